/* What the servers behind this node tell of how replication goes (MERIDIAN.STATUS, JSON): asked
 * once a second of each, one question a server at a time, and handed on. An older module does not
 * know the command: then nothing is told. */
#include "engine/cluster_priv.h"
#include "engine/engine_priv.h"

enum {
        ASK_TICKS = 2, /* of the keeper's watch */
};

static void hand_on(struct engine *engine, const struct connection *connection, unsigned shard,
                    unsigned count, const redisReply *reply)
{
        char endpoint[TOPOLOGY_ENDPOINT_TEXT];
        topology_endpoint_text(&connection->endpoint, endpoint);
        engine->config.shown(engine->config.user, shard, count, endpoint,
                             bytes_of(reply->str, reply->len));
}

static void answered(struct call *call, const redisReply *reply)
{
        struct connection *connection = call->connection;
        struct engine *engine = connection->engine;
        connection->shown_asked = false;
        if (reply == NULL || reply->type != REDIS_REPLY_STRING)
                return;
        if (engine->cluster == NULL) {
                hand_on(engine, connection, 0, 1, reply);
                return;
        }
        const struct cluster *cluster = engine->cluster;
        for (unsigned i = 0; i < cluster->count; i++)
                if (&cluster->shards[i]->control == connection)
                        hand_on(engine, connection, i, cluster->count, reply);
}

static void ask(struct connection *connection)
{
        struct bytes argv[] = {BYTES("MERIDIAN.STATUS")};
        struct call call = {.done = answered};
        if (connection->ready && !connection->shown_asked)
                connection->shown_asked = connection_send(connection, &call, 1, argv);
}

void shown_ask(struct engine *engine)
{
        if (!engine->redis_up || engine->config.shown == NULL || ++engine->shown_ticks < ASK_TICKS)
                return;
        engine->shown_ticks = 0;
        if (engine->cluster == NULL) {
                ask(&engine->control);
                return;
        }
        for (unsigned i = 0; i < engine->cluster->count; i++)
                ask(&engine->cluster->shards[i]->control);
}
