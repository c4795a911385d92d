/* model.c - the values of a Redis, as little as the checkers need: strings, hashes, sets and lists
 * with expiry, in arrays that are searched from the front, since a run has some dozen keys. */
#include "sim/sim_priv.h"

void model_copy(struct sim_redis *redis, uint8_t **to, size_t *to_len, struct bytes from)
{
        heap_free(&redis->sim->heap, *to);
        *to = NULL;
        *to_len = from.len;
        if (from.len == 0)
                return;
        *to = heap_alloc(&redis->sim->heap, from.len);
        CHECK(*to != NULL);
        memcpy(*to, from.ptr, from.len);
}

static bool key_is(const struct model_key *key, struct crdt_name name)
{
        return key->db == name.db && bytes_equal(bytes_of(key->name, key->name_len), name.key);
}

struct model_key *model_find(struct sim_redis *redis, struct crdt_name name)
{
        for (size_t i = 0; i < redis->key_count; i++)
                if (key_is(&redis->keys[i], name))
                        return &redis->keys[i];
        return NULL;
}

static void key_empty(struct sim_redis *redis, struct model_key *key)
{
        struct heap *heap = &redis->sim->heap;
        for (size_t i = 0; i < key->item_count; i++) {
                heap_free(heap, key->items[i].field);
                heap_free(heap, key->items[i].value);
        }
        heap_free(heap, key->items);
        heap_free(heap, key->text);
        key->items = NULL;
        key->item_count = key->item_size = 0;
        key->text = NULL;
        key->text_len = 0;
}

struct model_key *model_make(struct sim_redis *redis, struct crdt_name name, enum crdt_type type)
{
        struct model_key *key = model_find(redis, name);
        if (key != NULL) {
                if (key->type != type)
                        key_empty(redis, key);
                key->type = type;
                return key;
        }
        if (redis->key_count == redis->key_size) {
                redis->key_size = redis->key_size == 0 ? 16 : redis->key_size * 2;
                redis->keys = heap_resize(&redis->sim->heap, redis->keys,
                                          redis->key_size * sizeof redis->keys[0]);
                CHECK(redis->keys != NULL);
        }
        key = &redis->keys[redis->key_count++];
        memset(key, 0, sizeof *key);
        CHECK(name.key.len <= sizeof key->name);
        memcpy(key->name, name.key.ptr, name.key.len);
        key->name_len = name.key.len;
        key->db = name.db;
        key->type = type;
        return key;
}

static void native_key_delete(void *context, struct crdt_name name)
{
        struct sim_redis *redis = context;
        struct model_key *key = model_find(redis, name);
        if (key == NULL)
                return;
        key_empty(redis, key);
        *key = redis->keys[--redis->key_count];
}

void model_clear(struct sim_redis *redis)
{
        for (size_t i = 0; i < redis->key_count; i++)
                key_empty(redis, &redis->keys[i]);
        heap_free(&redis->sim->heap, redis->keys);
        redis->keys = NULL;
        redis->key_count = redis->key_size = 0;
}

struct bytes model_text(const struct model_key *key)
{
        return bytes_of(key->text, key->text_len);
}

static bool native_string_get(void *context, struct crdt_name name, struct bytes *ret_value)
{
        struct model_key *key = model_find(context, name);
        if (key == NULL || key->type != CRDT_STRING)
                return false;
        *ret_value = model_text(key);
        return true;
}

static void native_string_set(void *context, struct crdt_name name, struct bytes value,
                              uint64_t expire_at_ms)
{
        struct sim_redis *redis = context;
        struct model_key *key = model_make(redis, name, CRDT_STRING);
        model_copy(redis, &key->text, &key->text_len, value);
        key->expire_at_ms = expire_at_ms;
}

static void native_expire_set(void *context, struct crdt_name name, uint64_t expire_at_ms)
{
        struct model_key *key = model_find(context, name);
        if (key != NULL)
                key->expire_at_ms = expire_at_ms;
}

struct model_item *model_item(struct model_key *key, struct bytes field)
{
        for (size_t i = 0; i < key->item_count; i++)
                if (bytes_equal(bytes_of(key->items[i].field, key->items[i].field_len), field))
                        return &key->items[i];
        return NULL;
}

static void items_room(struct sim_redis *redis, struct model_key *key)
{
        if (key->item_count < key->item_size)
                return;
        key->item_size = key->item_size == 0 ? 8 : key->item_size * 2;
        key->items =
                heap_resize(&redis->sim->heap, key->items, key->item_size * sizeof key->items[0]);
        CHECK(key->items != NULL);
}

struct model_item *model_item_make(struct sim_redis *redis, struct model_key *key,
                                   struct bytes field)
{
        struct model_item *item = model_item(key, field);
        if (item != NULL)
                return item;
        items_room(redis, key);
        item = &key->items[key->item_count++];
        memset(item, 0, sizeof *item);
        model_copy(redis, &item->field, &item->field_len, field);
        return item;
}

void model_item_remove(struct sim_redis *redis, struct crdt_name name, enum crdt_type type,
                       struct bytes field)
{
        struct model_key *key = model_find(redis, name);
        struct model_item *item = key != NULL && key->type == type ? model_item(key, field) : NULL;
        if (item == NULL)
                return;
        heap_free(&redis->sim->heap, item->field);
        heap_free(&redis->sim->heap, item->value);
        *item = key->items[--key->item_count];
        if (key->item_count == 0)
                native_key_delete(redis, name);
}

static void native_hash_set(void *context, struct crdt_name name, struct bytes field,
                            struct bytes value)
{
        struct model_key *key = model_make(context, name, CRDT_HASH);
        struct model_item *item = model_item_make(context, key, field);
        model_copy(context, &item->value, &item->value_len, value);
}

static void native_hash_delete(void *context, struct crdt_name name, struct bytes field)
{
        model_item_remove(context, name, CRDT_HASH, field);
}

static bool native_hash_get(void *context, struct crdt_name name, struct bytes field,
                            struct bytes *ret_value)
{
        struct model_key *key = model_find(context, name);
        struct model_item *item =
                key != NULL && key->type == CRDT_HASH ? model_item(key, field) : NULL;
        if (item == NULL)
                return false;
        *ret_value = bytes_of(item->value, item->value_len);
        return true;
}

static void native_set_add(void *context, struct crdt_name name, struct bytes member)
{
        (void)model_item_make(context, model_make(context, name, CRDT_SET), member);
}

static void native_set_remove(void *context, struct crdt_name name, struct bytes member)
{
        model_item_remove(context, name, CRDT_SET, member);
}

/* A list's elements are the fields of its items, in order. */
static void native_list_insert(void *context, struct crdt_name name, uint64_t index,
                               struct bytes value)
{
        struct sim_redis *redis = context;
        struct model_key *key = model_make(redis, name, CRDT_LIST);
        CHECK(index <= key->item_count);
        items_room(redis, key);
        memmove(&key->items[index + 1], &key->items[index],
                (key->item_count - index) * sizeof key->items[0]);
        key->item_count++;
        memset(&key->items[index], 0, sizeof key->items[0]);
        model_copy(redis, &key->items[index].field, &key->items[index].field_len, value);
}

static struct model_key *list_find(struct sim_redis *redis, struct crdt_name name, uint64_t index)
{
        struct model_key *key = model_find(redis, name);
        bool there = key != NULL && key->type == CRDT_LIST && index < key->item_count;
        return there ? key : NULL;
}

static void native_list_remove(void *context, struct crdt_name name, uint64_t index, uint64_t count)
{
        struct sim_redis *redis = context;
        struct model_key *key = list_find(redis, name, index + count - 1);
        CHECK(key != NULL);
        for (uint64_t i = index; i < index + count; i++)
                heap_free(&redis->sim->heap, key->items[i].field);
        memmove(&key->items[index], &key->items[index + count],
                (key->item_count - index - count) * sizeof key->items[0]);
        key->item_count -= count;
        if (key->item_count == 0)
                native_key_delete(redis, name);
}

static void native_list_set(void *context, struct crdt_name name, uint64_t index,
                            struct bytes value)
{
        struct model_key *key = list_find(context, name, index);
        CHECK(key != NULL);
        model_copy(context, &key->items[index].field, &key->items[index].field_len, value);
}

static bool native_list_get(void *context, struct crdt_name name, uint64_t index,
                            struct bytes *ret_value)
{
        const struct model_key *key = list_find(context, name, index);
        if (key == NULL)
                return false;
        *ret_value = bytes_of(key->items[index].field, key->items[index].field_len);
        return true;
}

static bool native_opaque_get(void *context, struct crdt_name name, struct bytes *ret_value)
{
        struct model_key *key = model_find(context, name);
        if (key == NULL || key->type != CRDT_OPAQUE)
                return false;
        *ret_value = model_text(key);
        return true;
}

static void native_opaque_set(void *context, struct crdt_name name, struct bytes value,
                              uint64_t expire_at_ms)
{
        struct sim_redis *redis = context;
        struct model_key *key = model_make(redis, name, CRDT_OPAQUE);
        model_copy(redis, &key->text, &key->text_len, value);
        key->expire_at_ms = expire_at_ms;
}

void model_native(struct sim_redis *redis)
{
        redis->native = (struct crdt_native){.context = redis,
                                             .string_get = native_string_get,
                                             .string_set = native_string_set,
                                             .key_delete = native_key_delete,
                                             .expire_set = native_expire_set,
                                             .hash_set = native_hash_set,
                                             .hash_delete = native_hash_delete,
                                             .hash_get = native_hash_get,
                                             .set_add = native_set_add,
                                             .set_remove = native_set_remove,
                                             .list_insert = native_list_insert,
                                             .list_remove = native_list_remove,
                                             .list_set = native_list_set,
                                             .list_get = native_list_get,
                                             .opaque_get = native_opaque_get,
                                             .opaque_set = native_opaque_set};
}

bool model_has_member(struct sim_redis *redis, struct crdt_name name, struct bytes member)
{
        struct model_key *key = model_find(redis, name);
        return key != NULL && key->type == CRDT_SET && model_item(key, member) != NULL;
}

/* Sums over keys and items, so the order of the arrays does not count. */
uint64_t model_digest(struct sim_redis *redis)
{
        uint64_t digest = 0;
        for (size_t i = 0; i < redis->key_count; i++) {
                const struct model_key *key = &redis->keys[i];
                uint64_t hash = hash_fnv(HASH_FNV_START, bytes_of(key->name, key->name_len));
                hash = hash_fnv_u64(hash, key->type);
                hash = hash_fnv_u64(hash, key->expire_at_ms);
                hash = hash_fnv(hash, model_text(key));
                for (size_t k = 0; k < key->item_count; k++) {
                        const struct model_item *item = &key->items[k];
                        uint64_t one =
                                hash_fnv(HASH_FNV_START, bytes_of(item->field, item->field_len));
                        one = hash_fnv_u64(one, key->type == CRDT_LIST ? k : 7);
                        hash += hash_fnv(one, bytes_of(item->value, item->value_len));
                }
                digest += hash_fnv_u64(hash, 1);
        }
        return digest;
}
