/* redis_check.c - are the regions alike, and how far is one behind another? */
#include "sim/redis_priv.h"

bool redis_all_equal(struct sim *sim)
{
        const struct sim_redis *first = NULL;
        uint64_t values = 0;
        uint64_t metadata = 0;
        for (uint32_t i = 0; i < sim->swarm.region_count; i++) {
                struct sim_redis *redis = &sim->redis[i];
                if (!redis->exists)
                        continue;
                if (!redis->up)
                        return false;
                uint64_t digest = model_digest(redis);
                uint64_t meta = keyspace_digest(redis->keyspace);
                if (first == NULL) {
                        first = redis;
                        values = digest;
                        metadata = meta;
                } else if (digest != values || meta != metadata) {
                        return false;
                }
        }
        return true;
}

/* How far behind one region is with the stream of another, by that one's clock. */
uint64_t redis_lag_ms(struct sim *sim, uint32_t region, uint32_t origin)
{
        struct sim_redis *redis = &sim->redis[region];
        struct sim_redis *other = &sim->redis[origin];
        if (!redis->exists || !other->exists || region == origin)
                return 0;
        uint64_t at_ms =
                hlc_ms(vector_get(keyspace_positions(redis->keyspace), (region_id)(origin + 1)));
        uint64_t now_ms = redis_wall_ms(other);
        return now_ms > at_ms ? now_ms - at_ms : 0;
}

uint64_t redis_behind_ms(struct sim *sim, uint32_t region, uint32_t origin)
{
        struct sim_redis *redis = &sim->redis[region];
        struct sim_redis *other = &sim->redis[origin];
        struct keyspace_batch batch;
        if (!redis->exists || !other->exists || !redis->up || !other->up)
                return 0;
        uint64_t at = vector_get(keyspace_positions(redis->keyspace), (region_id)(origin + 1));
        if (keyspace_tail(other->keyspace, redis_wall_ms(other), at, 1, &batch) != ERR_NONE ||
            batch.gap || batch.count == 0)
                return 0;
        uint64_t now_ms = redis_wall_ms(other);
        return now_ms > hlc_ms(batch.last) ? now_ms - hlc_ms(batch.last) : 0;
}

/* For a person who looks for the cause. */
void redis_explain(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->swarm.region_count && sim->options.trace; i++) {
                struct sim_redis *redis = &sim->redis[i];
                if (!redis->exists)
                        continue;
                sim_trace(sim, "Redis of region %u: values %016llx, metadata %016llx", i + 1,
                          (unsigned long long)model_digest(redis),
                          (unsigned long long)keyspace_digest(redis->keyspace));
                const struct vector *vector = keyspace_positions(redis->keyspace);
                for (uint32_t k = 1; k <= sim->swarm.region_count; k++)
                        sim_trace(sim, "    position of %u: %llu", k,
                                  (unsigned long long)vector->hlc[k]);
                witness_explain(redis);
                for (size_t k = 0; k < redis->key_count; k++) {
                        const struct model_key *key = &redis->keys[k];
                        sim_trace(sim, "    %.*s type %d expires %llu: %.*s, %zu items",
                                  (int)key->name_len, (const char *)key->name, (int)key->type,
                                  (unsigned long long)key->expire_at_ms, (int)key->text_len,
                                  (const char *)key->text, key->item_count);
                }
        }
}

static void check_keys(struct sim_redis *redis, const struct redis_type *type)
{
        for (size_t i = 0; i < redis->key_count && type->check != NULL; i++) {
                const struct model_key *key = &redis->keys[i];
                if (key->type == type->type && !type->check(redis, key))
                        sim_violation(redis->sim,
                                      "Redis of region %u: %.*s (%s) is not what the metadata says",
                                      redis->region + 1, (int)key->name_len,
                                      (const char *)key->name, type->name);
        }
}

void redis_check_converged(struct sim *sim)
{
        size_t count;
        const struct redis_type *const *types = redis_types(&count);
        for (uint32_t i = 0; i < sim->swarm.region_count && !sim->over; i++) {
                struct sim_redis *redis = &sim->redis[i];
                if (!redis->exists)
                        continue;
                witness_check(redis);
                for (size_t k = 0; k < count; k++)
                        check_keys(redis, types[k]);
        }
}
