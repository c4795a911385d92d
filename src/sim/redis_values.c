/* redis_values.c - strings, counters that anybody may overwrite, deletes and expiry of any type. */
#include "sim/redis_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int64_t redis_number(const struct model_key *key)
{
        char text[24] = "0";
        if (key != NULL && key->text_len < sizeof text) {
                memcpy(text, key->text, key->text_len);
                text[key->text_len] = '\0';
        }
        errno = 0;
        long long value = strtoll(text, NULL, 10);
        return errno == 0 ? value : 0;
}

enum err redis_increment(struct sim_redis *redis, struct crdt_name name, uint32_t amount,
                         struct keyspace_change *ret)
{
        struct model_key *key = model_find(redis, name);
        char text[24];
        if (key != NULL && key->type != CRDT_STRING)
                return ERR_INVALID;
        int64_t after = redis_number(key) + amount;
        int len = snprintf(text, sizeof text, "%lld", (long long)after);
        uint64_t expire_at_ms = key != NULL ? key->expire_at_ms : 0;
        redis->native.string_set(redis, name, bytes_of(text, (size_t)len), expire_at_ms);
        return keyspace_local_increment(redis->keyspace, redis_wall_ms(redis), name, amount, after,
                                        ret);
}

static void increment(struct sim_redis *redis, struct crdt_name name)
{
        struct keyspace_change change;
        enum err err = redis_increment(redis, name, 1, &change);
        if (err != ERR_INVALID)
                redis_logged(redis, err, &change);
}

static void set_string(struct sim_redis *redis, struct crdt_name name)
{
        struct sim *sim = redis->sim;
        struct keyspace_change change;
        char text[16];
        int len = snprintf(text, sizeof text, "%u", (unsigned)sim_below(sim, STREAM_DATA, 100));
        uint64_t expire_at_ms = 0;
        if (sim_chance(sim, STREAM_DATA, 200))
                expire_at_ms = redis_wall_ms(redis) + 100 + sim_below(sim, STREAM_DATA, 3000);
        redis->native.string_set(redis, name, bytes_of(text, (size_t)len), expire_at_ms);
        enum err err = keyspace_local_set(redis->keyspace, redis_wall_ms(redis), name,
                                          bytes_of(text, (size_t)len), expire_at_ms, &change);
        redis_logged(redis, err, &change);
}

void redis_delete(struct sim_redis *redis, struct crdt_name name)
{
        struct keyspace_change change;
        if (model_find(redis, name) == NULL)
                return;
        redis->native.key_delete(redis, name);
        enum err err = keyspace_local_delete(redis->keyspace, redis_wall_ms(redis), name, &change);
        redis_logged(redis, err, &change);
}

static void delete_key(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        (void)turn;
        redis_delete(redis, name);
}

static void expire_key(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        (void)turn;
        struct sim *sim = redis->sim;
        struct keyspace_change change;
        if (model_find(redis, name) == NULL)
                return;
        uint64_t at_ms = sim_chance(sim, STREAM_DATA, 300)
                                 ? 0
                                 : redis_wall_ms(redis) + 50 + sim_below(sim, STREAM_DATA, 2000);
        redis->native.expire_set(redis, name, at_ms);
        enum err err =
                keyspace_local_expire(redis->keyspace, redis_wall_ms(redis), name, at_ms, &change);
        redis_logged(redis, err, &change);
}

static void change_string(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        if (turn == 0)
                set_string(redis, name);
        else
                increment(redis, name);
}

const struct redis_type redis_strings = {
        .name = "strings", .type = CRDT_STRING, .weight = 2, .act = change_string};
const struct redis_type redis_deletes = {.name = "deletes", .weight = 1, .act = delete_key};
const struct redis_type redis_expiries = {.name = "expiries", .weight = 1, .act = expire_key};
