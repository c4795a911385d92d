/* model.h - a store of values for tests: what Redis is to the keyspace. It stops the test when the
 * keyspace asks for what the contract of struct crdt_native forbids. */
#ifndef MERIDIAN_TESTS_KEYSPACE_MODEL_H
#define MERIDIAN_TESTS_KEYSPACE_MODEL_H

#include "base/check.h"
#include "keyspace/keyspace.h"

#include <stdio.h>

enum {
        MODEL_KEYS = 24,
        MODEL_ITEMS = 24,
        MODEL_TEXT = 400,
        MODEL_NAME = 32,
        MODEL_LIST = 96,
        MODEL_ELEMENT = 15,
};

struct model_text {
        size_t len;
        uint8_t data[MODEL_TEXT];
};

struct model_element {
        uint8_t len;
        uint8_t data[MODEL_ELEMENT];
};

struct model_item {
        bool used;
        struct model_text name;
        struct model_text value;
};

struct model_key {
        enum crdt_type type; /* CRDT_NONE: the slot is free */
        uint32_t db;
        struct model_text name;
        struct model_text value;
        uint64_t expire_at_ms;
        struct model_item items[MODEL_ITEMS];
        size_t length; /* of a list */
        struct model_element list[MODEL_LIST];
        struct crdt_stream_id ids[MODEL_LIST]; /* of a stream's entries, whose values are `list` */
};

struct model {
        struct model_key keys[MODEL_KEYS];
        bool evicts; /* a key may be missing though it is known */
};

static inline void text_set(struct model_text *text, struct bytes data)
{
        CHECK(data.len <= MODEL_TEXT);
        text->len = data.len;
        if (data.len > 0)
                memcpy(text->data, data.ptr, data.len);
}

static inline struct bytes text_get(const struct model_text *text)
{
        return bytes_of(text->data, text->len);
}

static inline void model_init(struct model *model)
{
        memset(model, 0, sizeof *model);
        for (size_t i = 0; i < MODEL_KEYS; i++)
                model->keys[i].type = CRDT_NONE;
}

static inline struct model_key *model_find(struct model *model, struct crdt_name name)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                struct model_key *key = &model->keys[i];
                if (key->type != CRDT_NONE && key->db == name.db &&
                    bytes_equal(text_get(&key->name), name.key))
                        return key;
        }
        return NULL;
}

static inline struct model_key *model_get(struct model *model, struct crdt_name name,
                                          enum crdt_type type)
{
        struct model_key *key = model_find(model, name);
        if (key != NULL)
                return key;
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                key = &model->keys[i];
                if (key->type != CRDT_NONE)
                        continue;
                memset(key, 0, sizeof *key);
                key->type = type;
                key->db = name.db;
                text_set(&key->name, name.key);
                return key;
        }
        UNREACHABLE("the model has room for the keys of a test");
}

static inline void model_drop(struct model_key *key)
{
        memset(key, 0, sizeof *key);
        key->type = CRDT_NONE;
}

static inline struct model_item *model_item(struct model_key *key, struct bytes name)
{
        for (size_t i = 0; i < MODEL_ITEMS; i++) {
                if (key->items[i].used && bytes_equal(text_get(&key->items[i].name), name))
                        return &key->items[i];
        }
        return NULL;
}

static inline void model_item_set(struct model_key *key, struct bytes name, struct bytes value)
{
        struct model_item *item = model_item(key, name);
        for (size_t i = 0; item == NULL && i < MODEL_ITEMS; i++) {
                if (!key->items[i].used)
                        item = &key->items[i];
        }
        CHECK(item != NULL);
        item->used = true;
        text_set(&item->name, name);
        text_set(&item->value, value);
}

static inline size_t model_item_count(const struct model_key *key)
{
        size_t count = 0;
        for (size_t i = 0; i < MODEL_ITEMS; i++)
                count += key->items[i].used;
        return count;
}

static inline void model_item_drop(struct model_key *key, struct bytes name)
{
        struct model_item *item = model_item(key, name);
        CHECK(item != NULL);
        memset(item, 0, sizeof *item);
        if (model_item_count(key) == 0)
                model_drop(key);
}

static inline bool model_string_get(void *context, struct crdt_name name, struct bytes *ret)
{
        struct model_key *key = model_find(context, name);
        if (key == NULL || key->type != CRDT_STRING)
                return false;
        *ret = text_get(&key->value);
        return true;
}

static inline void model_whole_set(struct model *model, struct crdt_name name, enum crdt_type type,
                                   struct bytes value, uint64_t expire_at_ms)
{
        struct model_text copy;
        text_set(&copy, value);
        struct model_key *key = model_find(model, name);
        if (key != NULL)
                model_drop(key);
        key = model_get(model, name, type);
        key->value = copy;
        key->expire_at_ms = expire_at_ms;
}

static inline void model_string_set(void *context, struct crdt_name name, struct bytes value,
                                    uint64_t expire_at_ms)
{
        model_whole_set(context, name, CRDT_STRING, value, expire_at_ms);
}

static inline void model_key_delete(void *context, struct crdt_name name)
{
        struct model_key *key = model_find(context, name);
        if (key != NULL)
                model_drop(key);
}

static inline void model_expire_set(void *context, struct crdt_name name, uint64_t expire_at_ms)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL || ((struct model *)context)->evicts);
        if (key != NULL)
                key->expire_at_ms = expire_at_ms;
}

static inline void model_hash_set(void *context, struct crdt_name name, struct bytes field,
                                  struct bytes value)
{
        struct model_key *key = model_get(context, name, CRDT_HASH);
        CHECK(key->type == CRDT_HASH);
        model_item_set(key, field, value);
}

static inline void model_hash_delete(void *context, struct crdt_name name, struct bytes field)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL);
        CHECK(key->type == CRDT_HASH);
        model_item_drop(key, field);
}

static inline bool model_hash_get(void *context, struct crdt_name name, struct bytes field,
                                  struct bytes *ret)
{
        struct model_key *key = model_find(context, name);
        struct model_item *item = key == NULL ? NULL : model_item(key, field);
        if (item == NULL || key->type != CRDT_HASH)
                return false;
        *ret = text_get(&item->value);
        return true;
}

static inline void model_set_add(void *context, struct crdt_name name, struct bytes member)
{
        struct model_key *key = model_get(context, name, CRDT_SET);
        CHECK(key->type == CRDT_SET);
        model_item_set(key, member, BYTES(""));
}

static inline void model_set_remove(void *context, struct crdt_name name, struct bytes member)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL);
        CHECK(key->type == CRDT_SET);
        model_item_drop(key, member);
}

/* The value of a member is the bytes of its score. */
static inline void model_zset_add(void *context, struct crdt_name name, struct bytes member,
                                  double score)
{
        struct model_key *key = model_get(context, name, CRDT_ZSET);
        CHECK(key->type == CRDT_ZSET);
        CHECK(!__builtin_isnan(score));
        model_item_set(key, member, bytes_of((const uint8_t *)&score, sizeof score));
}

static inline void model_zset_remove(void *context, struct crdt_name name, struct bytes member)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL);
        CHECK(key->type == CRDT_ZSET);
        model_item_drop(key, member);
}

static inline double model_score(const struct model_item *item)
{
        double score = 0;
        CHECK(item->value.len == sizeof score);
        memcpy(&score, item->value.data, sizeof score);
        return score;
}

static inline void model_element_set(struct model_element *element, struct bytes value)
{
        CHECK(value.len <= MODEL_ELEMENT);
        element->len = (uint8_t)value.len;
        if (value.len > 0)
                memcpy(element->data, value.ptr, value.len);
}

static inline void model_list_insert(void *context, struct crdt_name name, uint64_t index,
                                     struct bytes value)
{
        struct model_key *key = model_get(context, name, CRDT_LIST);
        CHECK(key->type == CRDT_LIST);
        CHECK(index <= key->length);
        CHECK(key->length < MODEL_LIST);
        memmove(&key->list[index + 1], &key->list[index],
                (key->length - index) * sizeof(key->list[0]));
        key->length++;
        model_element_set(&key->list[index], value);
}

static inline void model_list_remove(void *context, struct crdt_name name, uint64_t index,
                                     uint64_t count)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL);
        CHECK(key->type == CRDT_LIST);
        CHECK(index + count <= key->length);
        memmove(&key->list[index], &key->list[index + count],
                (key->length - index - count) * sizeof(key->list[0]));
        key->length -= count;
        if (key->length == 0)
                model_drop(key);
}

static inline void model_list_set(void *context, struct crdt_name name, uint64_t index,
                                  struct bytes value)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL);
        CHECK(key->type == CRDT_LIST);
        CHECK(index < key->length);
        model_element_set(&key->list[index], value);
}

static inline bool model_list_get(void *context, struct crdt_name name, uint64_t index,
                                  struct bytes *ret)
{
        struct model_key *key = model_find(context, name);
        if (key == NULL || key->type != CRDT_LIST || index >= key->length)
                return false;
        *ret = bytes_of(key->list[index].data, key->list[index].len);
        return true;
}

static inline bool model_id_equal(struct crdt_stream_id a, struct crdt_stream_id b)
{
        return a.ms == b.ms && a.seq == b.seq;
}

/* The place of an id among the entries. */
static inline size_t model_stream_seek(const struct model_key *key, struct crdt_stream_id id)
{
        size_t at = 0;
        while (at < key->length &&
               (key->ids[at].ms < id.ms || (key->ids[at].ms == id.ms && key->ids[at].seq < id.seq)))
                at++;
        return at;
}

/* One field, "v", and its value. */
static inline void model_stream_add(void *context, struct crdt_name name, struct crdt_stream_id id,
                                    struct bytes fields)
{
        struct cursor cursor = cursor_of(fields);
        struct model_key *key = model_get(context, name, CRDT_STREAM);
        CHECK(key->type == CRDT_STREAM);
        CHECK(key->length < MODEL_LIST);
        CHECK(cursor_varint(&cursor) == 2);
        CHECK(bytes_equal(cursor_slice(&cursor), BYTES("v")));
        size_t at = model_stream_seek(key, id);
        CHECK(at == key->length || !model_id_equal(key->ids[at], id));
        memmove(&key->list[at + 1], &key->list[at], (key->length - at) * sizeof(key->list[0]));
        memmove(&key->ids[at + 1], &key->ids[at], (key->length - at) * sizeof(key->ids[0]));
        key->length++;
        key->ids[at] = id;
        model_element_set(&key->list[at], cursor_slice(&cursor));
}

static inline void model_stream_remove(void *context, struct crdt_name name,
                                       struct crdt_stream_id id)
{
        struct model_key *key = model_find(context, name);
        CHECK(key != NULL);
        CHECK(key->type == CRDT_STREAM);
        size_t at = model_stream_seek(key, id);
        CHECK(at < key->length);
        CHECK(model_id_equal(key->ids[at], id));
        key->length--;
        memmove(&key->list[at], &key->list[at + 1], (key->length - at) * sizeof(key->list[0]));
        memmove(&key->ids[at], &key->ids[at + 1], (key->length - at) * sizeof(key->ids[0]));
}

static inline bool model_stream_get(void *context, struct crdt_name name, struct crdt_stream_id id,
                                    struct bytes *ret)
{
        static uint8_t room[4 + MODEL_ELEMENT];
        struct model_key *key = model_find(context, name);
        size_t at = key == NULL ? 0 : model_stream_seek(key, id);
        if (key == NULL || at == key->length || !model_id_equal(key->ids[at], id))
                return false;
        memcpy(room, "\2\1v", 3);
        room[3] = key->list[at].len;
        memcpy(room + 4, key->list[at].data, key->list[at].len);
        *ret = bytes_of(room, 4u + key->list[at].len);
        return true;
}

/* Of a stream that was evicted, and is there again without entries, nothing is known. */
static inline void model_stream_make(void *context, struct crdt_name name)
{
        const struct model_key *key = model_find(context, name);
        CHECK(key == NULL || (((struct model *)context)->evicts && key->type == CRDT_STREAM));
        if (key == NULL)
                model_get(context, name, CRDT_STREAM);
}

static inline void model_stream_raise(void *context, struct crdt_name name,
                                      struct crdt_stream_id last)
{
        (void)last;
        CHECK(model_find(context, name) != NULL);
}

static inline bool model_opaque_get(void *context, struct crdt_name name, struct bytes *ret)
{
        struct model_key *key = model_find(context, name);
        if (key == NULL || key->type != CRDT_OPAQUE)
                return false;
        *ret = text_get(&key->value);
        return true;
}

static inline void model_opaque_set(void *context, struct crdt_name name, struct bytes value,
                                    uint64_t expire_at_ms)
{
        model_whole_set(context, name, CRDT_OPAQUE, value, expire_at_ms);
}

/* A HyperLogLog that is exact: its registers are its elements. */
static inline void model_hll_add(void *context, struct crdt_name name, struct bytes element)
{
        struct model_key *key = model_get(context, name, CRDT_HLL);
        CHECK(key->type == CRDT_HLL);
        model_item_set(key, element, BYTES(""));
}

static inline void model_hll_merge(void *context, struct crdt_name name, struct bytes registers)
{
        struct model_key *key = model_get(context, name, CRDT_HLL);
        struct cursor cursor = cursor_of(registers);
        CHECK(key->type == CRDT_HLL);
        while (cursor_left(&cursor) > 0)
                model_item_set(key, cursor_slice(&cursor), BYTES(""));
        CHECK(!cursor_failed(&cursor));
}

static inline bool model_hll_get(void *context, struct crdt_name name, struct bytes *ret)
{
        static struct model_text registers;
        const struct model_key *key = model_find(context, name);
        if (key == NULL || key->type != CRDT_HLL)
                return false;
        registers.len = 0;
        for (size_t i = 0; i < MODEL_ITEMS; i++) {
                const struct model_text *element = &key->items[i].name;
                if (!key->items[i].used)
                        continue;
                CHECK(registers.len + 1 + element->len <= MODEL_TEXT);
                registers.data[registers.len++] = (uint8_t)element->len;
                memcpy(registers.data + registers.len, element->data, element->len);
                registers.len += element->len;
        }
        *ret = text_get(&registers);
        return true;
}

static inline struct crdt_native model_native(struct model *model)
{
        return (struct crdt_native){
                .context = model,
                .string_get = model_string_get,
                .string_set = model_string_set,
                .key_delete = model_key_delete,
                .expire_set = model_expire_set,
                .hash_set = model_hash_set,
                .hash_delete = model_hash_delete,
                .hash_get = model_hash_get,
                .set_add = model_set_add,
                .set_remove = model_set_remove,
                .zset_add = model_zset_add,
                .zset_remove = model_zset_remove,
                .list_insert = model_list_insert,
                .list_remove = model_list_remove,
                .list_set = model_list_set,
                .list_get = model_list_get,
                .hll_add = model_hll_add,
                .hll_merge = model_hll_merge,
                .hll_get = model_hll_get,
                .stream_add = model_stream_add,
                .stream_remove = model_stream_remove,
                .stream_get = model_stream_get,
                .stream_make = model_stream_make,
                .stream_raise = model_stream_raise,
                .opaque_get = model_opaque_get,
                .opaque_set = model_opaque_set,
        };
}

static inline uint64_t model_key_digest(const struct model_key *key)
{
        uint64_t sum = 0;
        uint64_t hash = hash_fnv(HASH_FNV_START, text_get(&key->name));
        hash = hash_fnv_u64(hash_fnv_u64(hash, key->db), key->type);
        hash = hash_fnv_u64(hash_fnv(hash, text_get(&key->value)), key->expire_at_ms);
        for (size_t i = 0; i < MODEL_ITEMS; i++) {
                if (!key->items[i].used)
                        continue;
                uint64_t item = hash_fnv(HASH_FNV_START, text_get(&key->items[i].name));
                item = hash_fnv_u64(item, 0x5a);
                sum += hash_fnv(item, text_get(&key->items[i].value));
        }
        for (size_t i = 0; i < key->length; i++)
                hash = hash_fnv_u64(hash_fnv(hash, bytes_of(key->list[i].data, key->list[i].len)),
                                    0x5a);
        for (size_t i = 0; i < key->length; i++)
                hash = hash_fnv_u64(hash_fnv_u64(hash, key->ids[i].ms), key->ids[i].seq);
        return hash_fnv_u64(hash, sum);
}

/* Equal for equal visible content. */
static inline uint64_t model_digest(const struct model *model)
{
        uint64_t sum = 0;
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                if (model->keys[i].type != CRDT_NONE)
                        sum += model_key_digest(&model->keys[i]);
        }
        return sum;
}

static inline void model_print(const struct model *model)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                const struct model_key *key = &model->keys[i];
                if (key->type == CRDT_NONE)
                        continue;
                printf("#   %u:%.*s type %d value '%.*s' expiry %llu", key->db,
                       BYTES_ARGS(text_get(&key->name)), (int)key->type,
                       BYTES_ARGS(text_get(&key->value)), (unsigned long long)key->expire_at_ms);
                for (size_t j = 0; j < MODEL_ITEMS; j++) {
                        if (key->items[j].used && key->type == CRDT_ZSET)
                                printf(" %.*s=%.17g", BYTES_ARGS(text_get(&key->items[j].name)),
                                       model_score(&key->items[j]));
                        else if (key->items[j].used)
                                printf(" %.*s=%.*s", BYTES_ARGS(text_get(&key->items[j].name)),
                                       BYTES_ARGS(text_get(&key->items[j].value)));
                }
                for (size_t j = 0; j < key->length; j++)
                        printf(" %llu-%llu:%.*s", (unsigned long long)key->ids[j].ms,
                               (unsigned long long)key->ids[j].seq, (int)key->list[j].len,
                               (const char *)key->list[j].data);
                printf("\n");
        }
}

#endif
