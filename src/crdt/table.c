/* Buckets of a cache line: seven nodes, and of each a byte of its key's hash, so that a search
 * reads the bucket and hardly ever a node that is not meant. A bucket that is full goes on in
 * another one, to which its last slot then points. Two arrays of buckets while a resize is under
 * way: every find, insert and remove moves a few nodes from the old array to the new. Running out
 * of memory for a larger array is no error: the chains grow longer, and the next insert tries
 * again.
 *
 * The cursor of a walk counts with its bits reversed (the idea of Pieter Noordhuis in Redis): a
 * bucket of the smaller array and those of the larger that it splits into share their low bits, so
 * whatever was visited before a resize stays visited after it. */
#include "crdt/table.h"

#include "base/check.h"
#include "base/fetch.h"

enum {
        SLOTS = 7,
        TABLE_EMPTY_MAX = 16, /* empty buckets passed over in one step */
        TABLE_MOVES_MAX = 3,  /* nodes that one step moves */
        TAG_USED = 0x80,
        NODE_FETCH = 56, /* of a node: its owner's head, and the key where it is short */
};

union slot {
        struct node *node;
        struct bucket *more;
};

struct bucket {
        uint8_t tags[SLOTS]; /* of the slots in use, never 0 */
        uint8_t chained;     /* the last slot is the bucket where this one goes on */
        union slot slots[SLOTS];
};

_Static_assert(sizeof(void *) != 8 || sizeof(struct bucket) == 64, "a cache line");

uint64_t table_hash(const struct table_env *env, uint16_t space, struct bytes key)
{
        struct hash_key hash_key = {env->hash_key.k0 ^ space, env->hash_key.k1};
        return hash_fold(hash_key, key);
}

static uint8_t tag_of(uint64_t hash)
{
        return (uint8_t)(hash >> 56 | TAG_USED);
}

/* ---- buckets */

static struct bucket *bucket_next(const struct bucket *bucket)
{
        return bucket->chained != 0 ? bucket->slots[SLOTS - 1].more : NULL;
}

static void chain_free(const struct table_env *env, struct bucket *bucket)
{
        struct bucket *more = bucket_next(bucket);
        while (more != NULL) {
                struct bucket *next = bucket_next(more);
                heap_give(env->heap, more, sizeof *more);
                more = next;
        }
        bucket->chained = 0;
}

static void buckets_free(const struct table_env *env, struct bucket *buckets, size_t size)
{
        for (size_t i = 0; i < size; i++)
                chain_free(env, &buckets[i]);
        heap_give(env->heap, buckets, size * sizeof *buckets);
}

static void slot_fill(struct bucket *bucket, unsigned at, uint8_t tag, struct node *node)
{
        bucket->tags[at] = tag;
        bucket->slots[at].node = node;
}

/* False: out of memory. */
static bool chain_put(const struct table_env *env, struct bucket *bucket, uint8_t tag,
                      struct node *node)
{
        for (;;) {
                unsigned slots = bucket->chained != 0 ? SLOTS - 1 : SLOTS;
                for (unsigned i = 0; i < slots; i++) {
                        if (bucket->tags[i] == 0) {
                                slot_fill(bucket, i, tag, node);
                                return true;
                        }
                }
                if (bucket->chained == 0)
                        break;
                bucket = bucket_next(bucket);
        }
        struct bucket *more = heap_take(env->heap, sizeof *more);
        if (more == NULL)
                return false;
        slot_fill(more, 0, bucket->tags[SLOTS - 1], bucket->slots[SLOTS - 1].node);
        slot_fill(more, 1, tag, node);
        bucket->tags[SLOTS - 1] = 0;
        bucket->slots[SLOTS - 1].more = more;
        bucket->chained = 1;
        return true;
}

void table_fini(const struct table_env *env, struct table *table)
{
        for (unsigned side = 0; side < 2; side++) {
                if (table->buckets[side] != NULL)
                        buckets_free(env, table->buckets[side], table->size[side]);
        }
        *table = (struct table){0};
}

/* ---- resizing */

static bool table_resizing(const struct table *table)
{
        return table->buckets[1] != NULL;
}

static void table_resize_end(const struct table_env *env, struct table *table)
{
        heap_give(env->heap, table->buckets[0], table->size[0] * sizeof(struct bucket));
        table->buckets[0] = table->buckets[1];
        table->size[0] = table->size[1];
        table->buckets[1] = NULL;
        table->size[1] = 0;
        table->moved = 0;
}

/* Moves a node of the chain to the new array. False: there is none, or no memory. */
static bool chain_move(const struct table_env *env, struct table *table, struct bucket *bucket)
{
        for (; bucket != NULL; bucket = bucket_next(bucket)) {
                for (unsigned i = 0; i < SLOTS; i++) {
                        if (bucket->tags[i] == 0)
                                continue;
                        struct node *node = bucket->slots[i].node;
                        uint64_t hash = table_hash(env, node->space, node_key(node));
                        struct bucket *to = &table->buckets[1][hash & (table->size[1] - 1)];
                        if (!chain_put(env, to, tag_of(hash), node))
                                return false;
                        bucket->tags[i] = 0;
                        return true;
                }
        }
        return false;
}

static bool chain_empty(const struct bucket *bucket)
{
        static const uint8_t none[SLOTS];
        for (; bucket != NULL; bucket = bucket_next(bucket)) {
                if (memcmp(bucket->tags, none, SLOTS) != 0)
                        return false;
        }
        return true;
}

/* Moves a few nodes, or passes over a few empty buckets. */
static void table_move(const struct table_env *env, struct table *table)
{
        unsigned moves = 0;
        for (unsigned empty = 0; empty < TABLE_EMPTY_MAX && table->moved < table->size[0];) {
                struct bucket *bucket = &table->buckets[0][table->moved];
                while (moves < TABLE_MOVES_MAX && chain_move(env, table, bucket))
                        moves++;
                if (!chain_empty(bucket))
                        return;
                chain_free(env, bucket);
                table->moved++;
                empty++;
        }
        if (table->moved == table->size[0])
                table_resize_end(env, table);
}

static inline void table_step(const struct table_env *env, struct table *table)
{
        if (table_resizing(table))
                table_move(env, table);
}

static void table_resize_begin(const struct table_env *env, struct table *table, size_t size)
{
        struct bucket *buckets = size > SIZE_MAX / sizeof *buckets
                                         ? NULL
                                         : heap_take(env->heap, size * sizeof *buckets);
        if (buckets == NULL)
                return;
        table->buckets[1] = buckets;
        table->size[1] = size;
        table->moved = 0;
}

/* Six nodes a bucket at most, on average, and one at least. */
static void table_fit(const struct table_env *env, struct table *table)
{
        if (table_resizing(table))
                return;
        size_t size = table->size[0];
        if (table->count / (SLOTS - 1) >= size && size <= SIZE_MAX / 4)
                table_resize_begin(env, table, size * 2);
        else if (size > 1 && table->count < size)
                table_resize_begin(env, table, size / 2);
}

/* ---- finding */

static uint64_t tags_load(const struct bucket *bucket)
{
        return bytes_u64(bucket); /* and `chained` in the highest byte */
}

/* A bit in each byte of `tags` that may be the tag (a byte above one that is may be taken for it
 * too), lowest first. */
static uint64_t tags_match(uint64_t tags, uint8_t tag)
{
        const uint64_t ones = 0x01010101010101;
        uint64_t differ = tags ^ ones * tag;
        return (differ - ones) & ~differ & ones << 7;
}

struct node *table_look_hashed(const struct table *table, uint64_t hash, uint16_t space,
                               struct bytes key)
{
        for (unsigned side = 0; side < 2 && table->buckets[side] != NULL; side++) {
                const struct bucket *bucket = &table->buckets[side][hash & (table->size[side] - 1)];
                for (; bucket != NULL; bucket = bucket_next(bucket)) {
                        uint64_t match = tags_match(tags_load(bucket), tag_of(hash));
                        for (; match != 0; match &= match - 1) {
                                unsigned at = (unsigned)__builtin_ctzll(match) / 8;
                                struct node *node = bucket->slots[at].node;
                                if (bucket->tags[at] != 0 && node_is(node, space, key))
                                        return node;
                        }
                }
        }
        return NULL;
}

/* The bucket where a key of that hash is: while a resize is under way, the one of the new array
 * where the old one's has moved. */
static const struct bucket *bucket_likely(const struct table *table, uint64_t hash)
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
        fetch_at(bucket_likely(table, hash));
}

struct node *table_fetch_node(const struct table *table, uint64_t hash)
{
        const struct bucket *bucket = bucket_likely(table, hash);
        uint64_t match = bucket == NULL ? 0 : tags_match(tags_load(bucket), tag_of(hash));
        if (match == 0)
                return NULL;
        unsigned at = (unsigned)__builtin_ctzll(match) / 8;
        struct node *node = bucket->tags[at] == 0 ? NULL : bucket->slots[at].node;
        if (node == NULL)
                return NULL;
        fetch_bytes(node, NODE_FETCH);
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

/* ---- changing */

bool table_insert(const struct table_env *env, struct table *table, struct node *node)
{
        return table_insert_hashed(env, table, table_hash(env, node->space, node_key(node)), node);
}

bool table_insert_hashed(const struct table_env *env, struct table *table, uint64_t hash,
                         struct node *node)
{
        if (table->buckets[0] == NULL) {
                table->buckets[0] = heap_take(env->heap, sizeof(struct bucket));
                if (table->buckets[0] == NULL)
                        return false;
                table->size[0] = 1;
        }
        table_step(env, table);
        unsigned side = table_resizing(table);
        if (!chain_put(env, &table->buckets[side][hash & (table->size[side] - 1)], tag_of(hash),
                       node))
                return false;
        table->count++;
        table_fit(env, table);
        return true;
}

void table_remove(const struct table_env *env, struct table *table, struct node *node)
{
        uint64_t hash = table_hash(env, node->space, node_key(node));
        for (unsigned side = 0; side < 2 && table->buckets[side] != NULL; side++) {
                struct bucket *first = &table->buckets[side][hash & (table->size[side] - 1)];
                for (struct bucket *bucket = first; bucket != NULL; bucket = bucket_next(bucket)) {
                        unsigned at = 0;
                        while (at < SLOTS &&
                               (bucket->tags[at] == 0 || bucket->slots[at].node != node))
                                at++;
                        if (at == SLOTS)
                                continue;
                        bucket->tags[at] = 0;
                        table->count--;
                        if (first->chained != 0 && chain_empty(first))
                                chain_free(env, first);
                        table_step(env, table);
                        table_fit(env, table);
                        return;
                }
        }
        UNREACHABLE("the node is in the table");
}

/* ---- walking */

static uint64_t bits_swapped(uint64_t value, unsigned by, uint64_t mask)
{
        return (value >> by & mask) | (value & mask) << by;
}

static uint64_t bits_reversed(uint64_t value)
{
        value = bits_swapped(value, 1, 0x5555555555555555);
        value = bits_swapped(value, 2, 0x3333333333333333);
        value = bits_swapped(value, 4, 0x0f0f0f0f0f0f0f0f);
        return __builtin_bswap64(value);
}

/* The next cursor for a table with this mask. */
static uint64_t cursor_next(uint64_t cursor, uint64_t mask)
{
        return bits_reversed(bits_reversed(cursor | ~mask) + 1);
}

static void bucket_visit(const struct bucket *bucket,
                         void (*each)(void *context, struct node *node), void *context)
{
        for (; bucket != NULL; bucket = bucket_next(bucket)) {
                for (unsigned i = 0; i < SLOTS; i++) {
                        if (bucket->tags[i] != 0)
                                each(context, bucket->slots[i].node);
                }
        }
}

uint64_t table_scan(const struct table *table, uint64_t cursor,
                    void (*each)(void *context, struct node *node), void *context)
{
        if (table->buckets[0] == NULL)
                return 0;
        if (!table_resizing(table)) {
                uint64_t mask = table->size[0] - 1;
                bucket_visit(&table->buckets[0][cursor & mask], each, context);
                return cursor_next(cursor, mask);
        }
        unsigned small = table->size[0] > table->size[1];
        uint64_t mask_small = table->size[small] - 1;
        uint64_t mask_large = table->size[1 - small] - 1;
        bucket_visit(&table->buckets[small][cursor & mask_small], each, context);
        do {
                bucket_visit(&table->buckets[1 - small][cursor & mask_large], each, context);
                cursor = cursor_next(cursor, mask_large);
        } while ((cursor & (mask_small ^ mask_large)) != 0);
        return cursor;
}

static void chain_sweep(struct table *table, struct bucket *bucket,
                        bool (*drop)(void *context, struct node *node), void *context)
{
        for (; bucket != NULL; bucket = bucket_next(bucket)) {
                for (unsigned at = 0; at < SLOTS; at++) {
                        if (bucket->tags[at] == 0 || !drop(context, bucket->slots[at].node))
                                continue;
                        bucket->tags[at] = 0;
                        table->count--;
                }
        }
}

void table_sweep_class(struct table *table, struct table_class class,
                       bool (*drop)(void *context, struct node *node), void *context)
{
        uint64_t step = (uint64_t)1 << class.bits;
        for (unsigned side = 0; side < 2; side++) {
                size_t size = table->size[side];
                size_t first = size == 0 ? 0 : (size_t) class.value & (size - 1);
                for (uint64_t i = first; i < size; i += step)
                        chain_sweep(table, &table->buckets[side][i], drop, context);
        }
}

void table_sweep(struct table *table, bool (*drop)(void *context, struct node *node), void *context)
{
        table_sweep_class(table, (struct table_class){0}, drop, context);
}

/* The bucket after the one that the walk is in; false at the end. */
static bool walk_on(const struct table *table, struct table_walk *walk)
{
        walk->slot = 0;
        walk->in = walk->in == NULL ? NULL : bucket_next(walk->in);
        if (walk->in != NULL)
                return true;
        while (walk->index == table->size[walk->side]) {
                if (walk->side == 1)
                        return false;
                walk->side = 1;
                walk->index = 0;
        }
        walk->in = &table->buckets[walk->side][walk->index++];
        return true;
}

struct node *table_next(const struct table *table, struct table_walk *walk)
{
        for (;;) {
                if ((walk->in == NULL || walk->slot == SLOTS) && !walk_on(table, walk))
                        return NULL;
                unsigned at = walk->slot++;
                if (walk->in->tags[at] != 0)
                        return walk->in->slots[at].node;
        }
}
