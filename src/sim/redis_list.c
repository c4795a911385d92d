/* redis_list.c - lists: pushes, pops, and changes in the middle. */
#include "sim/redis_priv.h"

#include <stdio.h>

static struct bytes draw_element(struct sim *sim, char text[16])
{
        int len = snprintf(text, 16, "e%u", (unsigned)sim_below(sim, STREAM_DATA, 100000));
        return bytes_of(text, (size_t)len);
}

static void push(struct sim_redis *redis, struct crdt_name name, uint64_t length)
{
        struct keyspace_change change;
        char text[2][16];
        struct bytes values[2] = {draw_element(redis->sim, text[0]),
                                  draw_element(redis->sim, text[1])};
        bool head = sim_chance(redis->sim, STREAM_DATA, 300);
        size_t count = 1 + (size_t)sim_below(redis->sim, STREAM_DATA, COUNT_OF(values));
        CHECK(count <= COUNT_OF(values));
        for (size_t i = 0; i < count; i++)
                redis->native.list_insert(redis, name, head ? i : length + i, values[i]);
        enum err err = keyspace_local_list_push(redis->keyspace, redis_wall_ms(redis), name, head,
                                                values, count, &change);
        redis_logged(redis, err, &change);
}

/* A value in the middle, or a new one for what is there. */
static void change_element(struct sim_redis *redis, struct crdt_name name, uint64_t index)
{
        struct keyspace_change change;
        char text[16];
        struct bytes value = draw_element(redis->sim, text);
        enum err err;
        if (index > 0 && sim_chance(redis->sim, STREAM_DATA, 500)) {
                err = keyspace_local_list_insert(redis->keyspace, redis_wall_ms(redis), name, index,
                                                 value, &change);
                if (err == ERR_LIMIT)
                        return;
                redis->native.list_insert(redis, name, index, value);
        } else {
                redis->native.list_set(redis, name, index, value);
                err = keyspace_local_list_set(redis->keyspace, redis_wall_ms(redis), name, index,
                                              value, &change);
        }
        redis_logged(redis, err, &change);
}

static void pop(struct sim_redis *redis, struct crdt_name name, uint64_t length)
{
        struct keyspace_change change;
        struct keyspace_range range = {0, 1};
        if (sim_chance(redis->sim, STREAM_DATA, 300))
                range.index = sim_below(redis->sim, STREAM_DATA, length);
        if (sim_chance(redis->sim, STREAM_DATA, 200))
                range.count = length - range.index;
        redis->native.list_remove(redis, name, range.index, range.count);
        enum err err = keyspace_local_list_remove(redis->keyspace, redis_wall_ms(redis), name,
                                                  &range, 1, &change);
        redis_logged(redis, err, &change);
}

static void change_list(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        (void)turn;
        struct sim *sim = redis->sim;
        const struct model_key *key = model_find(redis, name);
        uint64_t length = key == NULL ? 0 : key->item_count;
        if (key != NULL && key->type != CRDT_LIST)
                return;
        if (keyspace_list_length(redis->keyspace, name) != length)
                sim_violation(sim,
                              "Redis of region %u: a list of %llu elements is not what the "
                              "metadata says",
                              redis->region + 1, (unsigned long long)length);
        else if (length == 0 || (length < 30 && sim_chance(sim, STREAM_DATA, 450)))
                push(redis, name, length);
        else if (sim_chance(sim, STREAM_DATA, 500))
                change_element(redis, name, sim_below(sim, STREAM_DATA, length));
        else
                pop(redis, name, length);
}

static bool list_whole(struct sim_redis *redis, const struct model_key *key)
{
        struct crdt_name name = {key->db, bytes_of(key->name, key->name_len)};
        return keyspace_list_length(redis->keyspace, name) == key->item_count;
}

const struct redis_type redis_lists = {.name = "lists",
                                       .type = CRDT_LIST,
                                       .key = "list",
                                       .weight = 3,
                                       .act = change_list,
                                       .check = list_whole};
