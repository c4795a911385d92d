/* Chained buckets, two arrays of them while a resize is under way: every find, insert and remove
 * moves one bucket from the old array to the new. Running out of memory for a larger array is no
 * error: the chains grow longer, and the next insert tries again.
 *
 * The cursor of a walk counts with its bits reversed (the idea of Pieter Noordhuis in Redis): a
 * bucket of the smaller array and those of the larger that it splits into share their low bits, so
 * whatever was visited before a resize stays visited after it. */
#include "crdt/table.h"

#include "base/check.h"

enum {
        TABLE_SIZE_MIN = 4,
        TABLE_EMPTY_MAX = 16, /* empty buckets passed over in one step */
};

uint64_t table_hash(const struct table_env *env, uint16_t space, struct bytes key)
{
        struct hash_key hash_key = {env->hash_key.k0 ^ space, env->hash_key.k1};
        return hash_sip(hash_key, key);
}

void table_fini(const struct table_env *env, struct table *table)
{
        heap_free(env->heap, table->buckets[0]);
        heap_free(env->heap, table->buckets[1]);
        *table = (struct table){0};
}

static bool table_resizing(const struct table *table)
{
        return table->buckets[1] != NULL;
}

static void table_resize_end(const struct table_env *env, struct table *table)
{
        heap_free(env->heap, table->buckets[0]);
        table->buckets[0] = table->buckets[1];
        table->size[0] = table->size[1];
        table->buckets[1] = NULL;
        table->size[1] = 0;
        table->moved = 0;
}

/* Moves one bucket that has something in it, or passes over a few that have not. */
static void table_step(const struct table_env *env, struct table *table)
{
        if (!table_resizing(table))
                return;
        unsigned empty = 0;
        while (table->moved < table->size[0] && table->buckets[0][table->moved] == NULL) {
                table->moved++;
                if (++empty == TABLE_EMPTY_MAX)
                        return;
        }
        if (table->moved < table->size[0]) {
                struct node *node = table->buckets[0][table->moved];
                while (node != NULL) {
                        struct node *next = node->next;
                        uint64_t hash = table_hash(env, node->space, node_key(node));
                        struct node **bucket = &table->buckets[1][hash & (table->size[1] - 1)];
                        node->next = *bucket;
                        *bucket = node;
                        node = next;
                }
                table->buckets[0][table->moved++] = NULL;
        }
        if (table->moved == table->size[0])
                table_resize_end(env, table);
}

static void table_resize_begin(const struct table_env *env, struct table *table, size_t size)
{
        struct node **buckets = heap_alloc_array(env->heap, size, sizeof(struct node *));
        if (buckets == NULL)
                return;
        table->buckets[1] = buckets;
        table->size[1] = size;
        table->moved = 0;
}

static void table_fit(const struct table_env *env, struct table *table)
{
        if (table_resizing(table))
                return;
        size_t size = table->size[0];
        if (table->count >= size && size <= SIZE_MAX / 4)
                table_resize_begin(env, table, size * 2);
        else if (size > TABLE_SIZE_MIN && table->count < size / 8)
                table_resize_begin(env, table, size / 2);
}

static bool node_is(const struct node *node, uint16_t space, struct bytes key)
{
        return node->key_len == key.len && node->space == space &&
               (key.len == 0 || memcmp(node_key(node).ptr, key.ptr, key.len) == 0);
}

struct node *table_look_hashed(const struct table *table, uint64_t hash, uint16_t space,
                               struct bytes key)
{
        if (table->count == 0)
                return NULL;
        for (unsigned side = 0; side < 2; side++) {
                if (table->buckets[side] == NULL)
                        break;
                struct node *node = table->buckets[side][hash & (table->size[side] - 1)];
                for (; node != NULL; node = node->next) {
                        if (node_is(node, space, key))
                                return node;
                }
        }
        return NULL;
}

/* The bucket where a key of that hash is: while a resize is under way, the one of the new array
 * where the old one's has moved. */
static struct node *const *bucket_likely(const struct table *table, uint64_t hash)
{
        if (table->count == 0)
                return NULL;
        size_t old = hash & (table->size[0] - 1);
        if (table->buckets[1] == NULL || old >= table->moved)
                return &table->buckets[0][old];
        return &table->buckets[1][hash & (table->size[1] - 1)];
}

void table_fetch_bucket(const struct table *table, uint64_t hash)
{
        __builtin_prefetch(bucket_likely(table, hash));
}

const struct node *table_fetch_node(const struct table *table, uint64_t hash)
{
        struct node *const *bucket = bucket_likely(table, hash);
        const struct node *node = bucket == NULL ? NULL : *bucket;
        if (node == NULL)
                return NULL;
        __builtin_prefetch(node);
        __builtin_prefetch((const char *)node + 64);
        return node;
}

struct node *table_look(const struct table_env *env, const struct table *table, uint16_t space,
                        struct bytes key)
{
        if (table->count == 0)
                return NULL;
        return table_look_hashed(table, table_hash(env, space, key), space, key);
}

struct node *table_find(const struct table_env *env, struct table *table, uint16_t space,
                        struct bytes key)
{
        table_step(env, table);
        return table_look(env, table, space, key);
}

struct node *table_find_hashed(const struct table_env *env, struct table *table, uint64_t hash,
                               uint16_t space, struct bytes key)
{
        table_step(env, table);
        return table_look_hashed(table, hash, space, key);
}

bool table_insert(const struct table_env *env, struct table *table, struct node *node)
{
        return table_insert_hashed(env, table, table_hash(env, node->space, node_key(node)), node);
}

bool table_insert_hashed(const struct table_env *env, struct table *table, uint64_t hash,
                         struct node *node)
{
        if (table->buckets[0] == NULL) {
                table->buckets[0] =
                        heap_alloc_array(env->heap, TABLE_SIZE_MIN, sizeof(struct node *));
                if (table->buckets[0] == NULL)
                        return false;
                table->size[0] = TABLE_SIZE_MIN;
        }
        table_step(env, table);
        unsigned side = table_resizing(table);
        struct node **bucket = &table->buckets[side][hash & (table->size[side] - 1)];
        node->next = *bucket;
        *bucket = node;
        table->count++;
        table_fit(env, table);
        return true;
}

void table_remove(const struct table_env *env, struct table *table, struct node *node)
{
        uint64_t hash = table_hash(env, node->space, node_key(node));
        for (unsigned side = 0; side < 2 && table->buckets[side] != NULL; side++) {
                struct node **at = &table->buckets[side][hash & (table->size[side] - 1)];
                while (*at != NULL && *at != node)
                        at = &(*at)->next;
                if (*at == NULL)
                        continue;
                *at = node->next;
                table->count--;
                table_step(env, table);
                table_fit(env, table);
                return;
        }
        UNREACHABLE("the node is in the table");
}

static uint64_t bits_reversed(uint64_t value)
{
        uint64_t result = 0;
        for (unsigned i = 0; i < 64; i++)
                result |= (value >> i & 1) << (63 - i);
        return result;
}

/* The next cursor for a table with this mask. */
static uint64_t cursor_next(uint64_t cursor, uint64_t mask)
{
        return bits_reversed(bits_reversed(cursor | ~mask) + 1);
}

static void bucket_visit(struct node *node, void (*each)(void *context, struct node *node),
                         void *context)
{
        for (; node != NULL; node = node->next)
                each(context, node);
}

uint64_t table_scan(const struct table *table, uint64_t cursor,
                    void (*each)(void *context, struct node *node), void *context)
{
        if (table->buckets[0] == NULL)
                return 0;
        if (!table_resizing(table)) {
                uint64_t mask = table->size[0] - 1;
                bucket_visit(table->buckets[0][cursor & mask], each, context);
                return cursor_next(cursor, mask);
        }
        unsigned small = table->size[0] > table->size[1];
        uint64_t mask_small = table->size[small] - 1;
        uint64_t mask_large = table->size[1 - small] - 1;
        bucket_visit(table->buckets[small][cursor & mask_small], each, context);
        do {
                bucket_visit(table->buckets[1 - small][cursor & mask_large], each, context);
                cursor = cursor_next(cursor, mask_large);
        } while ((cursor & (mask_small ^ mask_large)) != 0);
        return cursor;
}

void table_sweep(struct table *table, bool (*drop)(void *context, struct node *node), void *context)
{
        for (unsigned side = 0; side < 2; side++) {
                for (size_t i = 0; i < table->size[side]; i++) {
                        struct node **at = &table->buckets[side][i];
                        while (*at != NULL) {
                                struct node *node = *at;
                                struct node *next = node->next;
                                if (drop(context, node)) {
                                        *at = next;
                                        table->count--;
                                } else {
                                        at = &node->next;
                                }
                        }
                }
        }
}

struct node *table_next(const struct table *table, struct table_walk *walk)
{
        while (walk->next == NULL) {
                if (walk->bucket == table->size[walk->side]) {
                        if (walk->side == 1)
                                return NULL;
                        walk->side = 1;
                        walk->bucket = 0;
                        continue;
                }
                walk->next = table->buckets[walk->side][walk->bucket++];
        }
        struct node *node = walk->next;
        walk->next = node->next;
        return node;
}
