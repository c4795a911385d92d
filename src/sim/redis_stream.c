/* redis_stream.c - streams: the entries are items, whose fields are the ids, largest byte first. */
#include "sim/redis_priv.h"

#include "base/buffer.h"

#include <stdio.h>

enum {
        ID_LEN = 16,
        ENTRIES_MAX = 30,
};

static struct bytes id_text(struct crdt_stream_id id, uint8_t text[ID_LEN])
{
        for (unsigned i = 0; i < 8; i++) {
                text[i] = (uint8_t)(id.ms >> (56 - 8 * i));
                text[8 + i] = (uint8_t)(id.seq >> (56 - 8 * i));
        }
        return bytes_of(text, ID_LEN);
}

static struct crdt_stream_id id_of(const struct model_item *item)
{
        struct crdt_stream_id id = {0};
        for (unsigned i = 0; i < 8; i++) {
                id.ms = id.ms << 8 | item->field[i];
                id.seq = id.seq << 8 | item->field[8 + i];
        }
        return id;
}

static struct model_key *stream_find(struct sim_redis *redis, struct crdt_name name)
{
        struct model_key *key = model_find(redis, name);
        return key != NULL && key->type == CRDT_STREAM ? key : NULL;
}

static void native_add(void *context, struct crdt_name name, struct crdt_stream_id id,
                       struct bytes fields)
{
        uint8_t text[ID_LEN];
        struct model_item *item =
                model_item_make(context, model_make(context, name, CRDT_STREAM), id_text(id, text));
        model_copy(context, &item->value, &item->value_len, fields);
}

/* The stream stays, also without any entry. */
static void native_remove(void *context, struct crdt_name name, struct crdt_stream_id id)
{
        struct sim_redis *redis = context;
        uint8_t text[ID_LEN];
        struct model_key *key = stream_find(redis, name);
        struct model_item *item = key == NULL ? NULL : model_item(key, id_text(id, text));
        if (item == NULL)
                return;
        heap_free(&redis->sim->heap, item->field);
        heap_free(&redis->sim->heap, item->value);
        *item = key->items[--key->item_count];
}

static bool native_get(void *context, struct crdt_name name, struct crdt_stream_id id,
                       struct bytes *ret_fields)
{
        uint8_t text[ID_LEN];
        struct model_key *key = stream_find(context, name);
        const struct model_item *item = key == NULL ? NULL : model_item(key, id_text(id, text));
        if (item == NULL)
                return false;
        *ret_fields = bytes_of(item->value, item->value_len);
        return true;
}

static void native_make(void *context, struct crdt_name name)
{
        (void)model_make(context, name, CRDT_STREAM);
}

static void native_raise(void *context, struct crdt_name name, struct crdt_stream_id last)
{
        (void)context;
        (void)name;
        (void)last;
}

static void native_fill(struct crdt_native *native)
{
        native->stream_add = native_add;
        native->stream_remove = native_remove;
        native->stream_get = native_get;
        native->stream_make = native_make;
        native->stream_raise = native_raise;
}

/* An id of this region's own, or, now and then, one that another region may take too. */
static void add(struct sim_redis *redis, struct crdt_name name)
{
        struct keyspace_change change;
        struct crdt_stream_id last;
        char text[16];
        (void)keyspace_stream_length(redis->keyspace, name, &last);
        struct crdt_stream_id id = {.ms = last.ms + 1, .seq = redis->region + 1};
        if (sim_chance(redis->sim, STREAM_DATA, 300))
                id.seq = 0;
        int len = snprintf(text, sizeof text, "%u",
                           (unsigned)sim_below(redis->sim, STREAM_DATA, 100000));
        struct bytes strings[] = {BYTES("v"), bytes_of(text, (size_t)len)};
        struct keyspace_entry entry = {id, strings, 2};
        buffer_reset(&redis->room);
        buffer_varint(&redis->room, 2);
        buffer_slice(&redis->room, strings[0]);
        buffer_slice(&redis->room, strings[1]);
        native_add(redis, name, id, buffer_view(&redis->room));
        redis_logged(redis,
                     keyspace_local_stream_add(redis->keyspace, redis_wall_ms(redis), name, id,
                                               &entry, 1, &change),
                     &change);
}

/* One entry, or it and all before it. */
static void drop(struct sim_redis *redis, struct crdt_name name, struct model_key *key)
{
        struct keyspace_change change;
        struct crdt_stream_id id =
                id_of(&key->items[sim_below(redis->sim, STREAM_DATA, key->item_count)]);
        struct keyspace_ids range = {id, id};
        if (sim_chance(redis->sim, STREAM_DATA, 400))
                range.low = (struct crdt_stream_id){0};
        for (size_t i = key->item_count; i > 0; i--) {
                struct crdt_stream_id at = id_of(&key->items[i - 1]);
                bool before = at.ms < id.ms || (at.ms == id.ms && at.seq < id.seq);
                bool same = at.ms == id.ms && at.seq == id.seq;
                if (same || (before && range.low.ms == 0))
                        native_remove(redis, name, at);
        }
        redis_logged(redis,
                     keyspace_local_stream_remove(redis->keyspace, redis_wall_ms(redis), name,
                                                  &range, 1, &change),
                     &change);
}

static void change_stream(struct sim_redis *redis, struct crdt_name name, unsigned turn)
{
        struct model_key *key = model_find(redis, name);
        if (key != NULL && key->type != CRDT_STREAM)
                return;
        if (key != NULL && key->item_count > 0 && (turn == 0 || key->item_count > ENTRIES_MAX))
                drop(redis, name, key);
        else
                add(redis, name);
}

static bool stream_whole(struct sim_redis *redis, const struct model_key *key)
{
        struct crdt_stream_id last;
        struct crdt_name name = {key->db, bytes_of(key->name, key->name_len)};
        return keyspace_stream_length(redis->keyspace, name, &last) == key->item_count;
}

const struct redis_type redis_streams = {.name = "streams",
                                         .type = CRDT_STREAM,
                                         .key = "stream",
                                         .weight = 3,
                                         .act = change_stream,
                                         .native = native_fill,
                                         .check = stream_whole};
