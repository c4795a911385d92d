/* verify.c - reads digests of the local Redis for `meridian verify`: MERIDIAN.DIGESTS, call after
 * call, until an answer is of a good size or has taken a while. Each call is short, so what the
 * connection else carries does not wait. A connection that breaks ends the walk: the asker begins
 * again. */
#include "base/check.h"
#include "engine/cluster_priv.h"

#include <stdio.h>

enum {
        PART_MS = 100,
        PART_BYTES = 256 << 10,
        ASKS_MAX = 32,
};

struct verifying {
        struct verifying *next;
        uint64_t ticket;
        unsigned shard;
        uint64_t walk;
        uint64_t keys;
        uint64_t until_ms;
        struct buffer payload;
};

static struct verifying **verifying_find(struct engine *engine, uint64_t ticket)
{
        struct verifying **at = &engine->verifyings;
        while (*at != NULL && (*at)->ticket != ticket)
                at = &(*at)->next;
        return at;
}

static void verifying_free(struct engine *engine, struct verifying **at)
{
        struct verifying *gone = *at;
        CHECK(gone != NULL);
        *at = gone->next;
        buffer_fini(&gone->payload);
        heap_free(engine->config.heap, gone);
}

void verify_fini(struct engine *engine)
{
        while (engine->verifyings != NULL)
                verifying_free(engine, &engine->verifyings);
}

static unsigned shard_count(const struct engine *engine)
{
        return engine->cluster == NULL ? 1 : engine->cluster->count;
}

static struct connection *connection_of(struct engine *engine, unsigned shard)
{
        if (!engine->redis_up || shard >= shard_count(engine))
                return NULL;
        return engine->cluster == NULL ? &engine->scan : &engine->cluster->shards[shard]->reads;
}

static void answer(struct engine *engine, uint64_t ticket, const char *why)
{
        struct verifying **at = verifying_find(engine, ticket);
        struct engine_verified verified = {.why = why, .shards = shard_count(engine)};
        if (*at == NULL)
                return;
        if (why == NULL) {
                verified.walk = (*at)->walk;
                verified.keys = (*at)->keys;
                verified.payload = buffer_view(&(*at)->payload);
        }
        engine->config.verified(engine->config.user, ticket, &verified);
        verifying_free(engine, verifying_find(engine, ticket));
}

static void answered(struct call *call, const redisReply *reply);

static bool ask_on(struct engine *engine, const struct verifying *verifying)
{
        char walk[NUMBER_SIZE];
        struct bytes argv[] = {BYTES("MERIDIAN.DIGESTS"), cluster_number(verifying->walk, walk)};
        struct call call = {.done = answered, .ticket = verifying->ticket};
        struct connection *connection = connection_of(engine, verifying->shard);
        return connection != NULL && connection->ready &&
               connection_send(connection, &call, COUNT_OF(argv), argv);
}

static const char *refusal(const redisReply *reply)
{
        static char text[ENGINE_TEXT_SIZE];
        if (reply == NULL)
                return "the connection to Redis broke: begin again";
        if (reply->type != REDIS_REPLY_ERROR)
                return "the module in Redis answers in another form: install the same version";
        (void)snprintf(text, sizeof text, "Redis refuses: %.*s",
                       (int)(reply->len < 120 ? reply->len : 120), reply->str);
        return text;
}

static void answered(struct call *call, const redisReply *reply)
{
        struct engine *engine = call->connection->engine;
        struct verifying *verifying = *verifying_find(engine, call->ticket);
        if (verifying == NULL)
                return;
        if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
            reply->element[0]->type != REDIS_REPLY_INTEGER ||
            reply->element[1]->type != REDIS_REPLY_INTEGER ||
            reply->element[2]->type != REDIS_REPLY_STRING) {
                answer(engine, call->ticket, refusal(reply));
                return;
        }
        verifying->walk = (uint64_t)reply->element[0]->integer;
        verifying->keys += (uint64_t)reply->element[1]->integer;
        buffer_bytes(&verifying->payload, bytes_of(reply->element[2]->str, reply->element[2]->len));
        if (verifying->payload.err != ERR_NONE)
                answer(engine, call->ticket, "out of memory");
        else if (verifying->walk == 0 || verifying->payload.len >= PART_BYTES ||
                 uv_now(engine->config.loop) >= verifying->until_ms)
                answer(engine, call->ticket, NULL);
        else if (!ask_on(engine, verifying))
                answer(engine, call->ticket, refusal(NULL));
}

static size_t words_of(const struct engine_verify *ask, char walk[static NUMBER_SIZE],
                       struct bytes argv[static 4])
{
        size_t count = 0;
        argv[count++] = BYTES("MERIDIAN.DIGESTS");
        if (ask->positions) {
                argv[count++] = BYTES("POSITIONS");
                return count;
        }
        argv[count++] = cluster_number(ask->walk, walk);
        if (ask->walk == 0)
                argv[count++] = ask->prefix;
        if (ask->walk == 0 && ask->map.len > 0)
                argv[count++] = ask->map;
        return count;
}

const char *engine_verify(struct engine *engine, const struct engine_verify *ask, uint64_t ticket)
{
        char walk[NUMBER_SIZE];
        struct bytes argv[4];
        struct call call = {.done = answered, .ticket = ticket};
        struct connection *connection = connection_of(engine, ask->shard);
        unsigned asks = 0;
        for (struct verifying *at = engine->verifyings; at != NULL; at = at->next)
                asks++;
        if (connection == NULL || !connection->ready)
                return engine->redis_up ? "there is no such shard, or it is not connected"
                                        : "the region's Redis is down";
        if (asks >= ASKS_MAX)
                return "too many ask at once";
        struct verifying *verifying = heap_alloc(engine->config.heap, sizeof *verifying);
        if (verifying == NULL)
                return "out of memory";
        buffer_init(&verifying->payload, engine->config.heap);
        verifying->ticket = ticket;
        verifying->shard = ask->shard;
        verifying->until_ms = uv_now(engine->config.loop) + PART_MS;
        verifying->next = engine->verifyings;
        engine->verifyings = verifying;
        size_t count = words_of(ask, walk, argv);
        if (connection_send(connection, &call, count, argv))
                return NULL;
        verifying_free(engine, verifying_find(engine, ticket));
        return "the region's Redis cannot be asked";
}
