/* redis_hll.c - HyperLogLogs, as exact ones: the registers are the elements themselves. */
#include "sim/redis_priv.h"

#include "base/cursor.h"

static void native_add(void *context, struct crdt_name name, struct bytes element)
{
        (void)model_item_make(context, model_make(context, name, CRDT_HLL), element);
}

static void native_merge(void *context, struct crdt_name name, struct bytes registers)
{
        struct cursor cursor = cursor_of(registers);
        struct model_key *key = model_make(context, name, CRDT_HLL);
        while (cursor_left(&cursor) > 0)
                (void)model_item_make(context, key, cursor_slice(&cursor));
        CHECK(!cursor_failed(&cursor));
}

static bool native_get(void *context, struct crdt_name name, struct bytes *ret_registers)
{
        struct sim_redis *redis = context;
        const struct model_key *key = model_find(redis, name);
        if (key == NULL || key->type != CRDT_HLL)
                return false;
        struct buffer *room = &redis->room;
        buffer_reset(room);
        for (size_t i = 0; i < key->item_count; i++)
                buffer_slice(room, bytes_of(key->items[i].field, key->items[i].field_len));
        CHECK(room->err == ERR_NONE);
        *ret_registers = buffer_view(room);
        return true;
}

static void native_fill(struct crdt_native *native)
{
        native->hll_add = native_add;
        native->hll_merge = native_merge;
        native->hll_get = native_get;
}

/* PFADD, and now and then a PFMERGE, which tells all registers. */
static void change_hll(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        struct model_key *key = model_find(redis, name);
        struct keyspace_change change;
        char text[8];
        struct bytes element = redis_draw_field(redis->sim, text);
        if (key != NULL && key->type != CRDT_HLL)
                return;
        native_add(redis, name, element);
        struct bytes registers;
        CHECK(native_get(redis, name, &registers));
        enum err err = turn == 0 && sim_chance(redis->sim, STREAM_DATA, 300)
                               ? keyspace_local_hll_registers(redis->keyspace, redis_wall_ms(redis),
                                                              name, registers, &change)
                               : keyspace_local_hll_add(redis->keyspace, redis_wall_ms(redis), name,
                                                        &element, 1, &change);
        redis_logged(redis, err, &change);
}

const struct redis_type redis_hlls = {.name = "HyperLogLogs",
                                      .type = CRDT_HLL,
                                      .key = "hll",
                                      .weight = 2,
                                      .act = change_hll,
                                      .native = native_fill};
