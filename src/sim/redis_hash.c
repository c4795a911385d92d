/* redis_hash.c - hashes. */
#include "sim/redis_priv.h"

#include <stdio.h>
#include <stdlib.h>

static void change_hash(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        struct sim *sim = redis->sim;
        struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char field_text[8];
        char value[16];
        struct bytes field = redis_draw_field(sim, field_text);
        if (key != NULL && key->type != CRDT_HASH)
                return;
        enum err err;
        if (turn == 1) {
                struct bytes old;
                if (!redis->native.hash_get(redis, name, field, &old))
                        return;
                redis->native.hash_delete(redis, name, field);
                err = keyspace_local_hash_delete(redis->keyspace, redis_wall_ms(redis), name,
                                                 &field, 1, &change);
        } else {
                int len = snprintf(value, sizeof value, "%u",
                                   (unsigned)sim_below(sim, STREAM_DATA, 1000));
                struct keyspace_pair pair = {field, bytes_of(value, (size_t)len)};
                redis->native.hash_set(redis, name, field, pair.value);
                err = keyspace_local_hash_set(redis->keyspace, redis_wall_ms(redis), name, &pair, 1,
                                              &change);
        }
        redis_logged(redis, err, &change);
}

/* Increments of several regions add up. */
static void increment_field(struct sim_redis *redis, struct crdt_name name)
{
        struct sim *sim = redis->sim;
        const struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char field_text[8];
        char text[24];
        struct bytes before;
        struct bytes field = redis_draw_field(sim, field_text);
        if (key != NULL && key->type != CRDT_HASH)
                return;
        long long value = 0;
        if (redis->native.hash_get(redis, name, field, &before)) {
                (void)snprintf(text, sizeof text, "%.*s", BYTES_ARGS(before));
                value = strtoll(text, NULL, 10);
        }
        int64_t amount = (int64_t)sim_below(sim, STREAM_DATA, 9) - 3;
        int len = snprintf(text, sizeof text, "%lld", value + (long long)amount);
        redis->native.hash_set(redis, name, field, bytes_of(text, (size_t)len));
        redis_logged(redis,
                     keyspace_local_hash_increment(redis->keyspace, redis_wall_ms(redis), name,
                                                   field, amount, value + amount, &change),
                     &change);
}

static void change_hash_any(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        if (turn < 2)
                change_hash(redis, name, turn);
        else
                increment_field(redis, name);
}

const struct redis_type redis_hashes = {
        .name = "hashes", .type = CRDT_HASH, .weight = 4, .act = change_hash_any};
