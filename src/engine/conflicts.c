/* The conflicts that the region's servers tell of (MERIDIAN.CONFLICTS, as JSON): each of them is
 * asked twice a second, from the last one that it was heard of, so that none is told twice; what
 * comes faster than CONFLICTS_COUNT each time is heard a little later. Ids rise by one in a life of
 * the server, and by far more from life to life: so what it had to forget before it was asked is
 * counted, and what was lost with a life is not known. A server that refuses is asked again. */
#include "engine/cluster_priv.h"

#include <stdio.h>

enum {
        LIFE_MIN = 1 << 16, /* ids begin at the time in milliseconds, times this */
};

#define CONFLICTS_COUNT "200"

/* The texts begin with their id. */
static uint64_t conflict_id(struct bytes text)
{
        static const struct bytes head = BYTES_INIT("{\"id\":");
        uint64_t id = 0;
        if (text.len < head.len || memcmp(text.ptr, head.ptr, head.len) != 0)
                return 0;
        for (size_t i = head.len; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++)
                id = id * 10 + (uint64_t)(text.ptr[i] - '0');
        return id;
}

static void heard(struct connection *connection, struct bytes text)
{
        struct engine *engine = connection->engine;
        char endpoint[TOPOLOGY_ENDPOINT_TEXT];
        uint64_t id = conflict_id(text);
        uint64_t last = connection->conflict_last;
        if (id <= last)
                return;
        uint64_t missed = last == 0 || id - last > LIFE_MIN ? 0 : id - last - 1;
        connection->conflict_last = id;
        topology_endpoint_text(&connection->endpoint, endpoint);
        engine->config.conflict(engine->config.user, endpoint, missed, text);
}

static void answered(struct call *call, const redisReply *reply)
{
        struct connection *connection = call->connection;
        connection->conflicts_asked = false;
        if (reply == NULL || reply->type != REDIS_REPLY_ARRAY)
                return;
        for (size_t i = 0; i < reply->elements; i++)
                if (reply->element[i]->type == REDIS_REPLY_STRING)
                        heard(connection, bytes_of(reply->element[i]->str, reply->element[i]->len));
}

static void ask(struct connection *connection)
{
        char after[24];
        struct call call = {.done = answered};
        if (!connection->ready || connection->conflicts_asked)
                return;
        int len = snprintf(after, sizeof after, "%llu",
                           (unsigned long long)connection->conflict_last);
        struct bytes argv[] = {BYTES("MERIDIAN.CONFLICTS"),
                               BYTES("COUNT"),
                               BYTES(CONFLICTS_COUNT),
                               BYTES("JSON"),
                               BYTES("AFTER"),
                               bytes_of(after, (size_t)len)};
        connection->conflicts_asked = connection_send(connection, &call, COUNT_OF(argv), argv);
}

void conflicts_ask(struct engine *engine)
{
        if (!engine->redis_up || engine->config.conflict == NULL)
                return;
        if (engine->cluster == NULL) {
                ask(&engine->control);
                return;
        }
        for (unsigned i = 0; i < engine->cluster->count; i++)
                ask(&engine->cluster->shards[i]->control);
}
