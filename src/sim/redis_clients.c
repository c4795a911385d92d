/* redis_clients.c - clients of the simulated Redis: which types there are, and whose turn it is. */
#include "sim/redis_priv.h"

#include <stdio.h>

#define DATA_KEYS 6

static const struct redis_type *const types[] = {
        &redis_witnesses, &redis_strings,  &redis_hashes,   &redis_sets,
        &redis_deletes,   &redis_lists,    &redis_expiries, &redis_hlls,
        &redis_streams,   &redis_siblings, &redis_flushes,  &redis_zsets,
};

const struct redis_type *const *redis_types(size_t *ret_count)
{
        *ret_count = sizeof types / sizeof types[0];
        return types;
}

struct crdt_name redis_name(const char *text)
{
        return (struct crdt_name){.db = 0, .key = bytes_of_str(text)};
}

void redis_logged(struct sim_redis *redis, enum err err, const struct keyspace_change *change)
{
        redis_must(redis, err, "a local change");
        struct crdt_delta delta;
        if (err == ERR_NONE && !change->nothing && redis->sim->options.trace &&
            crdt_delta_decode(change->delta, change->stamp.origin, &delta) == ERR_NONE)
                sim_trace(redis->sim, "Redis of region %u changes %.*s by %d at %llu",
                          redis->region + 1, BYTES_ARGS(delta.name.key), (int)delta.op,
                          (unsigned long long)delta.stamp.hlc);
        if (err != ERR_NONE || change->nothing)
                return;
        redis_log(redis, LOG_LOCAL, 0, change->stamp.hlc, NULL, change->delta);
        redis_reserve(redis);
        redis_wake_tails(redis);
}

struct bytes redis_draw_field(struct sim *sim, char text[8])
{
        int len = snprintf(text, 8, "f%u", (unsigned)sim_below(sim, STREAM_DATA, 5));
        return bytes_of(text, (size_t)len);
}

/* The last row is for half of the seeds. */
static unsigned weights(const struct sim *sim)
{
        unsigned sum = 0;
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
                sum += types[i] != &redis_zsets || sim->swarm.scores ? types[i]->weight : 0;
        return sum;
}

static void client_act(struct sim_redis *redis)
{
        struct sim *sim = redis->sim;
        char text[8];
        (void)snprintf(text, sizeof text, "k%u", (unsigned)sim_below(sim, STREAM_DATA, DATA_KEYS));
        struct crdt_name name = redis_name(text);
        unsigned turn = (unsigned)sim_below(sim, STREAM_DATA, weights(sim));
        size_t which = 0;
        for (; turn >= types[which]->weight; which++)
                turn -= types[which]->weight;
        const struct redis_type *type = types[which];
        if (type->key != NULL && sim_chance(sim, STREAM_DATA, 800))
                name = redis_name(type->key);
        redis_strike(redis, name);
        type->act(redis, name, turn);
}

void redis_client(struct sim *sim)
{
        struct sim_redis *redis = &sim->redis[sim_below(sim, STREAM_DATA, sim->swarm.region_count)];
        if (redis->exists && redis->up)
                client_act(redis);
        if (sim->now_us < sim->swarm.load_end_us)
                sim_at(sim, 1 + sim_below(sim, STREAM_DATA, 2 * sim->swarm.data_every_us),
                       EVENT_DATA_CLIENT, 0, 0, 0);
}
