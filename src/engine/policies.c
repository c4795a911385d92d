/* What Redis is told of the topology's policies (MERIDIAN.POLICY): whenever the topology changes
 * and whenever Redis comes back; the module takes what is the same for nothing. A refusal is noted
 * for the log. */
#include "engine/engine_priv.h"

#include <stdio.h>

enum {
        POLICY_WORDS_MAX = 2 + 5 * TOPOLOGY_DATA_MAX + 3 * TOPOLOGY_FUNCTIONS_MAX,
};

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
