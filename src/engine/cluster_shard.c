/* One primary of a Redis Cluster: its three connections, and what it is asked for whenever the
 * control connection comes up (POSITIONS, SHARD, CLUSTER NODES). A primary that refuses, that is of
 * another region or that tells something strange is asked again after ASK_AGAIN_MS, and what is
 * wrong is said; one whose connection breaks takes the cluster down with it. */
#include "engine/cluster_priv.h"

#include <stdio.h>

enum {
        POLL_SOON_MS = 100,
        ASK_AGAIN_MS = 200,
};

static void shard_refused(struct shard *shard, const redisReply *reply)
{
        char text[ENGINE_TEXT_SIZE], host[TOPOLOGY_ENDPOINT_TEXT];
        struct engine *engine = shard->cluster->engine;
        topology_endpoint_text(&shard->endpoint, host);
        engine->module_missing = reply_is_unknown_command(reply);
        if (engine->module_missing)
                (void)snprintf(text, sizeof text,
                               "Redis at %s, a primary of the cluster, has not loaded the "
                               "Meridian module: add 'loadmodule /path/to/meridian.so' to its "
                               "configuration and restart it",
                               host);
        else
                reply_refusal(&shard->endpoint, reply, text);
        cluster_refused(shard->cluster, text);
        connection_retry(&shard->control, ASK_AGAIN_MS);
}

static void shard_positions(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct engine *engine = shard->cluster->engine;
        struct world_event event;
        if (reply == NULL || call->ticket != shard->cluster->generation)
                return;
        enum reply_kind kind = reply_positions(reply, &shard->origin, &event, &shard->positions);
        if (kind == REPLY_REFUSED) {
                shard_refused(shard, reply);
                return;
        }
        if (kind != REPLY_GOOD || (engine->region != 0 && shard->origin != engine->region)) {
                char text[ENGINE_TEXT_SIZE], host[TOPOLOGY_ENDPOINT_TEXT];
                topology_endpoint_text(&shard->endpoint, host);
                (void)snprintf(text, sizeof text,
                               "the module of Redis at %s is set to region %u, but this node is "
                               "of region %u, or it is of another version",
                               host, shard->origin, engine->region);
                cluster_refused(shard->cluster, text);
                connection_retry(&shard->control, ASK_AGAIN_MS);
                return;
        }
        shard->incarnation = event.redis_up.incarnation;
        shard->recovered = event.redis_up.recovered;
        shard->first = event.redis_up.first;
        shard->positions_told = true;
}

static void shard_layout(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        if (reply == NULL || call->ticket != shard->cluster->generation)
                return;
        shard->layout_told = shard_layout_read(shard, reply);
        if (!shard->layout_told)
                connection_retry(&shard->control, ASK_AGAIN_MS);
}

static void shard_claims(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        if (reply == NULL || call->ticket != shard->cluster->generation || !shard->positions_told ||
            !shard->layout_told)
                return; /* asked again by connection_retry */
        if (!shard_claims_read(shard, reply)) {
                connection_retry(&shard->control, ASK_AGAIN_MS);
                return;
        }
        shard->told = true;
        cluster_try_up(shard->cluster);
}

static void shard_ask(struct connection *connection)
{
        struct shard *shard = connection->user;
        struct call call = {.done = shard_positions, .ticket = shard->cluster->generation};
        struct bytes argv[] = {BYTES("MERIDIAN.POSITIONS")};
        struct bytes nodes[] = {BYTES("CLUSTER"), BYTES("NODES")};
        if (shard->index >= SHARDS_MAX)
                return;
        shard->positions_told = shard->layout_told = false;
        (void)connection_send(connection, &call, COUNT_OF(argv), argv);
        call.done = shard_layout;
        argv[0] = BYTES("MERIDIAN.SHARD");
        (void)connection_send(connection, &call, COUNT_OF(argv), argv);
        call.done = shard_claims;
        (void)connection_send(connection, &call, COUNT_OF(nodes), nodes);
}

void cluster_ask_all(struct cluster *cluster)
{
        for (unsigned i = 0; i < cluster->count; i++) {
                if (cluster->shards[i]->control.ready)
                        shard_ask(&cluster->shards[i]->control);
        }
}

static void shard_up(struct connection *connection)
{
        struct shard *shard = connection->user;
        if (shard->index < SHARDS_MAX)
                cluster_try_up(shard->cluster);
}

static void shard_down(struct connection *connection)
{
        struct shard *shard = connection->user;
        struct cluster *cluster = shard->cluster;
        char host[TOPOLOGY_ENDPOINT_TEXT], why[ENGINE_TEXT_SIZE];
        shard->bell_armed = shard->bell_armed && connection != &shard->bell;
        if (shard->index >= SHARDS_MAX)
                return;
        topology_endpoint_text(&shard->endpoint, host);
        (void)snprintf(why, sizeof why, "%s: %s", host, connection->why_last);
        cluster_down(cluster, why);
        cluster_ask_all(cluster);
        connection_retry(&cluster->scout, POLL_SOON_MS);
}

struct shard *cluster_shard_of(struct cluster *cluster, const struct topology_endpoint *endpoint)
{
        struct engine *engine = cluster->engine;
        struct shard *shard = cluster->pool;
        while (shard != NULL && !engine_endpoint_same(&shard->endpoint, endpoint))
                shard = shard->next;
        if (shard != NULL || cluster->pool_count == SHARD_POOL_MAX)
                return shard;
        shard = heap_alloc(engine->config.heap, sizeof *shard);
        if (shard == NULL)
                return NULL;
        shard->cluster = cluster;
        shard->endpoint = *endpoint;
        shard->index = SHARDS_NOBODY;
        struct connection *all[] = {&shard->control, &shard->reads, &shard->bell};
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                connection_init(all[i], engine, SCOUT_WAIT_MS_MAX);
                all[i]->endpoint = *endpoint;
                all[i]->user = shard;
                all[i]->up = shard_up;
                all[i]->down = shard_down;
        }
        shard->control.up = shard_ask;
        shard->control.retry = shard_ask;
        shard->next = cluster->pool;
        cluster->pool = shard;
        cluster->pool_count++;
        return shard;
}

void shard_open(struct shard *shard)
{
        connection_open(&shard->control);
        connection_open(&shard->reads);
        connection_open(&shard->bell);
}

void shard_pause(struct shard *shard)
{
        connection_pause(&shard->control, "it is no primary any more");
        connection_pause(&shard->reads, "it is no primary any more");
        connection_pause(&shard->bell, "it is no primary any more");
}
