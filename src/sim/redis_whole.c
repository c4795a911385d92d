/* redis_whole.c - what concerns keys as a whole: strings of which concurrent writes are all kept
 * (siblings), and databases that are emptied. Both keep to keys of their own: what is known as one
 * whole value is not to be changed in parts, and the members that must be found at the end are in
 * database 0. */
#include "sim/redis_priv.h"

#include <stdio.h>

/* ---- siblings */

static void write_sibling(struct sim_redis *redis, struct crdt_name name)
{
        struct keyspace_change change;
        char text[16];
        int len = snprintf(text, sizeof text, "%u",
                           (unsigned)sim_below(redis->sim, STREAM_DATA, 100000));
        struct bytes value = bytes_of(text, (size_t)len);
        uint64_t expire_at_ms = 0;
        if (sim_chance(redis->sim, STREAM_DATA, 200))
                expire_at_ms =
                        redis_wall_ms(redis) + 100 + sim_below(redis->sim, STREAM_DATA, 3000);
        redis->native.string_set(redis, name, value, expire_at_ms);
        redis_logged(redis,
                     keyspace_local_sibling(redis->keyspace, redis_wall_ms(redis), name, value,
                                            expire_at_ms, &change),
                     &change);
}

static void change_sibling(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        char text[8];
        (void)snprintf(text, sizeof text, "s%u", (unsigned)sim_below(redis->sim, STREAM_DATA, 2));
        name = redis_name(text);
        redis_strike(redis, name);
        if (turn == 0 && sim_chance(redis->sim, STREAM_DATA, 400))
                redis_delete(redis, name);
        else
                write_sibling(redis, name);
}

const struct redis_type redis_siblings = {
        .name = "siblings", .type = CRDT_SIBLINGS, .weight = 2, .act = change_sibling};

/* ---- FLUSHDB */

static void flushed(void *context, const struct keyspace_change *change)
{
        redis_logged(context, ERR_NONE, change);
}

static void flush(struct sim_redis *redis)
{
        for (size_t i = 0; i < redis->key_count;) {
                struct model_key *key = &redis->keys[i];
                uint8_t text[sizeof key->name];
                memcpy(text, key->name, key->name_len);
                if (key->db == 1)
                        redis->native.key_delete(
                                redis, (struct crdt_name){1, bytes_of(text, key->name_len)});
                else
                        i++;
        }
        redis_must(redis,
                   keyspace_local_flush(redis->keyspace, redis_wall_ms(redis), 1,
                                        sim_chance(redis->sim, STREAM_DATA, 200), flushed, redis),
                   "a flush");
}

static void change_flushed(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        name.db = 1;
        redis_strike(redis, name);
        if (turn == 0 && sim_chance(redis->sim, STREAM_DATA, 150))
                flush(redis);
        else if (turn < 2)
                redis_strings.act(redis, name, turn);
        else
                redis_sets.act(redis, name, turn - 2);
}

const struct redis_type redis_flushes = {.name = "flushes", .weight = 4, .act = change_flushed};
