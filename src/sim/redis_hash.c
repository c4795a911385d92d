/* redis_hash.c - hashes. */
#include "sim/redis_priv.h"

#include <stdio.h>

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

const struct redis_type redis_hashes = {
        .name = "hashes", .type = CRDT_HASH, .weight = 2, .act = change_hash};
