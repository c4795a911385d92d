/* table.h - private to lock/: the table behind lock.h.
 *
 *   buckets ---> lock ---> lock          by key: hash table with chains
 *   first <----> lock <--> lock <--> last   by token: new grants go to the end
 *   leases:  heap of locks by deadline, then token
 *   waits:   heap of waiters by deadline, then number
 *   lock ---> waiter <--> waiter         by arrival
 *
 * Only the lists and heaps decide about order, so the hash seed has no influence on results. */
#ifndef MERIDIAN_LOCK_TABLE_H
#define MERIDIAN_LOCK_TABLE_H

#include "lock/lock.h"

/* A place in a heap of deadlines. `number` is unique in its heap and breaks ties. */
struct timer {
        uint64_t deadline;
        uint64_t number;
        size_t at;
};

struct timers {
        struct timer **items;
        size_t count;
        size_t size;
};

struct waiter {
        struct timer timer; /* first: a timer is cast to its waiter */
        struct waiter *next;
        struct waiter *before;
        struct lock *lock;
        struct lock_origin origin;
        uint64_t ttl_ms;
        struct bytes owner; /* owned */
};

struct lock {
        struct timer timer; /* first; its number is the token */
        struct lock *chain;
        struct lock *next;
        struct lock *before;
        struct waiter *waiter_first;
        struct waiter *waiter_last;
        size_t waiter_count;
        struct bytes key;   /* owned */
        struct bytes owner; /* owned */
};

struct lock_table {
        struct heap *heap;
        uint64_t seed;
        uint64_t time_ms;
        uint64_t last_token;
        uint64_t last_waiter;
        size_t count;
        size_t waiter_count;
        struct lock **buckets;
        size_t bucket_count; /* a power of two; 0: none yet */
        struct lock *first;
        struct lock *last;
        struct lock **cursor; /* where lock_next stopped; a cell of its own, as that is const */
        struct timers leases;
        struct timers waits;
        struct lock_result *results;
        size_t result_count;
        size_t result_size;
        struct bytes *garbage; /* keys and owners that results borrow; freed at the next call */
        size_t garbage_count;
        size_t garbage_size;
        uint64_t index; /* of the log entry being applied */
        bool fatal;
};

/* Puts a lock into every structure. `ret` is NULL when memory runs out; nothing changed then. */
MUST_USE struct lock *lock_slots_insert(struct lock_table *table, struct bytes key,
                                        struct bytes owner, uint64_t token, uint64_t deadline);
/* Puts a waiter at the end of a lock's queue. NULL as above. */
MUST_USE struct waiter *table_wait(struct lock_table *table, struct lock *lock, struct bytes owner,
                                   uint64_t number, uint64_t deadline);
struct lock *lock_slots_find(const struct lock_table *table, struct bytes key);
/* Takes a waiter out; gives its owner's bytes. */
struct bytes table_unwait(struct lock_table *table, struct waiter *waiter);
/* Takes a lock without waiters out. Its key and owner belong to the caller now. */
void lock_slots_remove(struct lock_table *table, struct lock *lock);
/* The lock goes to another owner (takes the bytes; the old ones belong to the caller) with a new
 * token and deadline. */
void table_regrant(struct lock_table *table, struct lock *lock, struct bytes owner, uint64_t token,
                   uint64_t deadline);
void table_extend(struct lock_table *table, struct lock *lock, uint64_t deadline);
void table_extend_wait(struct lock_table *table, struct waiter *waiter, uint64_t deadline);
/* Frees all locks and waiters. */
void table_clear(struct lock_table *table);
/* Takes content and counters of `from`, which has the same heap and seed and is empty then. */
void table_move(struct lock_table *table, struct lock_table *from);

#endif
