/* table.h - a hash table of nodes that carry their own key, for keys that outsiders choose
 * (hash_fold). It grows and shrinks a few nodes at a time, so no call takes long, and can be walked
 * with a cursor while it does: what is there from the first call to the last is never missed. */
#ifndef MERIDIAN_CRDT_TABLE_H
#define MERIDIAN_CRDT_TABLE_H

#include "base/hash.h"
#include "base/heap.h"

/* The head of every node. The key lies `key_at` bytes from its begin. */
struct node {
        _Alignas(uint64_t) uint32_t key_len;
        uint16_t space; /* equal keys in different spaces are different */
        uint8_t key_at;
        uint8_t kind; /* the owner's */
};

static inline struct bytes node_key(const struct node *node)
{
        return bytes_of((const uint8_t *)node + node->key_at, node->key_len);
}

static inline bool node_is(const struct node *node, uint16_t space, struct bytes key)
{
        return node->key_len == key.len && node->space == space &&
               (key.len == 0 || memcmp(node_key(node).ptr, key.ptr, key.len) == 0);
}

/* What all tables of one owner share. */
struct table_env {
        struct heap *heap;
        struct hash_key hash_key;
};

/* Zeroed is empty. Cost: 11 to 22 bytes a node. */
struct bucket;
struct table {
        struct bucket *buckets[2]; /* [1] while it is being resized */
        size_t size[2];            /* of them: a power of two, or 0 */
        size_t moved;              /* buckets of [0] below this are empty already */
        size_t count;
};

/* Frees the buckets. The table must be empty, or its nodes of no more interest. */
void table_fini(const struct table_env *env, struct table *table);

/* The node with that key, or NULL. Also moves a few nodes where a resize is under way. */
struct node *table_find(const struct table_env *env, struct table *table, uint16_t space,
                        struct bytes key);

/* The same and changes nothing. */
struct node *table_look(const struct table_env *env, const struct table *table, uint16_t space,
                        struct bytes key);

/* Adds a node whose key is not in the table. False: out of memory. */
MUST_USE bool table_insert(const struct table_env *env, struct table *table, struct node *node);

/* The same with a hash that is known already, as table_hash gives it. */
uint64_t table_hash(const struct table_env *env, uint16_t space, struct bytes key);
struct node *table_find_hashed(const struct table_env *env, struct table *table, uint64_t hash,
                               uint16_t space, struct bytes key);
struct node *table_look_hashed(const struct table *table, uint64_t hash, uint16_t space,
                               struct bytes key);
MUST_USE bool table_insert_hashed(const struct table_env *env, struct table *table, uint64_t hash,
                                  struct node *node);

/* For many keys at once, each step for all of them before the next: asks the processor to fetch the
 * bucket; then the node, which is returned and may be another key's or NULL. Only hints. */
void table_fetch_bucket(const struct table *table, uint64_t hash);
struct node *table_fetch_node(const struct table *table, uint64_t hash);

/* Takes out a node that is in the table. */
void table_remove(const struct table_env *env, struct table *table, struct node *node);

/* Calls `each` for the nodes of the next buckets of a walk; returns the cursor to go on with, 0 at
 * the end. `each` must not change the table. */
uint64_t table_scan(const struct table *table, uint64_t cursor,
                    void (*each)(void *context, struct node *node), void *context);

/* Calls `drop` for every node and takes out those for which it returns true; `drop` may free
 * them. Cost: everything. */
void table_sweep(struct table *table, bool (*drop)(void *context, struct node *node),
                 void *context);

/* The nodes whose hash ends in these bits: all classes of as many bits are the whole table, also
 * where it is resized between them. `value` < 2^bits. A small table is met several times. */
struct table_class {
        uint8_t bits;
        uint64_t value;
};
void table_sweep_class(struct table *table, struct table_class class,
                       bool (*drop)(void *context, struct node *node), void *context);

/* All nodes, in no order: for (i = {0}; (node = table_next(table, &i)) != NULL;). The table must
 * not change meanwhile; a node that was given may be freed before the next is asked for. */
struct table_walk {
        size_t index; /* of the bucket after this one */
        const struct bucket *in;
        uint8_t side;
        uint8_t slot;
};
struct node *table_next(const struct table *table, struct table_walk *walk);

#endif
