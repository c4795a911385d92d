/* What Redis is told of the topology's policies (MERIDIAN.POLICY), and what it tells of conflicts.
 *
 * The policies are sent whenever the topology changes and whenever Redis comes back; the module
 * takes what is the same for nothing. Conflicts are asked for twice a second, from the last one
 * that was heard, so that none is told twice; what comes faster than CONFLICTS_COUNT each time is
 * heard a little later. A refusal is noted for the log. */
#include "engine/engine_priv.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        POLICY_WORDS_MAX = 2 + 5 * TOPOLOGY_DATA_MAX + 3 * TOPOLOGY_FUNCTIONS_MAX,
        NUMBER_SIZE = 24,
};

#define CONFLICTS_COUNT "200"

void policies_take(struct engine *engine, const struct topology *topology)
{
        engine->data_count = topology->data_count;
        engine->function_count = topology->function_count;
        memcpy(engine->data, topology->data, sizeof engine->data);
        memcpy(engine->functions, topology->functions, sizeof engine->functions);
}

static size_t policy_words(const struct engine *engine, struct bytes *argv)
{
        size_t count = 0;
        argv[count++] = BYTES("MERIDIAN.POLICY");
        for (uint32_t i = 0; i < engine->data_count; i++) {
                const struct topology_data *data = &engine->data[i];
                argv[count++] = BYTES("DATA");
                argv[count++] = bytes_of_str(data->prefix);
                argv[count++] = bytes_of_str(topology_conflict_name(data->conflict));
                argv[count++] = bytes_of_str(data->function);
                if (data->publish)
                        argv[count++] = BYTES("PUBLISH");
        }
        for (uint32_t i = 0; i < engine->function_count; i++) {
                argv[count++] = BYTES("FUNCTION");
                argv[count++] = bytes_of_str(engine->functions[i].name);
                argv[count++] = bytes_of_str(engine->functions[i].text);
        }
        if (count == 1)
                argv[count++] = BYTES("NONE");
        return count;
}

static void policies_answered(struct call *call, const redisReply *reply)
{
        struct engine *engine = call->connection->engine;
        if (reply != NULL && reply->type == REDIS_REPLY_ERROR)
                engine_note(engine, "redis-policies", "Redis does not take the policies: %.*s",
                            (int)(reply->len < 120 ? reply->len : 120), reply->str);
}

void policies_tell(struct engine *engine)
{
        struct bytes argv[POLICY_WORDS_MAX];
        struct call call = {.done = policies_answered};
        if (!engine->redis_up)
                return;
        size_t count = policy_words(engine, argv);
        if (engine->cluster != NULL)
                cluster_tell_all(engine, count, argv);
        else
                (void)connection_send(&engine->control, &call, count, argv);
}

/* ---- conflicts */

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

static void conflicts_answered(struct call *call, const redisReply *reply)
{
        struct engine *engine = call->connection->engine;
        engine->conflicts_asked = false;
        if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || engine->config.conflict == NULL)
                return;
        for (size_t i = 0; i < reply->elements; i++) {
                const redisReply *element = reply->element[i];
                if (element->type != REDIS_REPLY_STRING)
                        continue;
                struct bytes text = bytes_of(element->str, element->len);
                uint64_t id = conflict_id(text);
                if (id <= engine->conflict_last)
                        continue;
                engine->conflict_last = id;
                engine->config.conflict(engine->config.user, text);
        }
}

void conflicts_ask(struct engine *engine)
{
        char after[NUMBER_SIZE];
        struct call call = {.done = conflicts_answered};
        if (!engine->redis_up || engine->cluster != NULL || engine->conflicts_asked)
                return;
        int len = snprintf(after, sizeof after, "%llu", (unsigned long long)engine->conflict_last);
        struct bytes argv[] = {BYTES("MERIDIAN.CONFLICTS"),
                               BYTES("COUNT"),
                               BYTES(CONFLICTS_COUNT),
                               BYTES("JSON"),
                               BYTES("AFTER"),
                               bytes_of(after, (size_t)len)};
        engine->conflicts_asked = connection_send(&engine->control, &call, COUNT_OF(argv), argv);
}
