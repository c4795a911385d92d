/* linear.h - is a recorded history linearizable? Operations with the times of their calls and
 * answers in; the verdict, and where it fails, out.
 *
 * A history is linearizable when its operations can be put in one order, each at a point between
 * its call and its answer, so that a program which runs them one after the other in that order
 * gives the same answers. An operation without an answer may have happened at any time after its
 * call, or never.
 *
 * The search is that of Wing and Gong with Lowe's memory of what was tried. What is linearizable by
 * parts is linearizable as a whole, so keys that no transaction joins are checked apart.
 *
 * The two models:
 *  - values: a transaction compares keys with values, sees the values of keys as they were before
 *  it,
 *    and puts values, of one branch where all comparisons hold, else of the other. A read, a put
 *    and a compare-and-swap are transactions.
 *  - locks: who holds it, by which token, and the largest token ever. A lease may end at any time,
 *    so mutual exclusion is told by LINEAR_USE: at that time its owner is sure to hold the lock.
 *
 * Memory: some 700 bytes an operation, and 32 for each state that was tried, up to the heap's limit
 * or LINEAR_TRIED_MAX. Cost: linear in histories of few operations at a time, exponential in how
 * many lie side by side in the worst case. */
#ifndef MERIDIAN_LINEAR_LINEAR_H
#define MERIDIAN_LINEAR_LINEAR_H

#include "base/heap.h"

#define LINEAR_NEVER     UINT64_MAX   /* returned: no answer came */
#define LINEAR_TRIED_MAX (1ull << 20) /* states of one search; then it is too hard */
#define LINEAR_KEYS_MAX  64           /* that transactions join into one part */

/* A key and a value, both numbers that the caller has given to them. Value 0: there is none. */
struct linear_pair {
        uint32_t key;
        uint64_t value;
};

struct linear_pairs {
        const struct linear_pair *items;
        size_t count;
};

struct linear_txn {
        struct linear_pairs when; /* all equal: `then`, else `otherwise` */
        struct linear_pairs then;
        struct linear_pairs otherwise;
        struct linear_pairs saw; /* of an answer: values before it */
        bool held;               /* of an answer: the comparisons held */
};

enum linear_lock_op {
        LINEAR_GRANTED = 1, /* token; 0 where no answer came */
        LINEAR_HELD,        /* refused: somebody else holds it */
        LINEAR_RELEASED,    /* token */
        LINEAR_NOT_OWNER,   /* a release or renewal was refused: not by this owner and token */
        LINEAR_USE,    /* the owner holds it by token: it is sure of that, somebody looked, or a
                             * renewal succeeded */
        LINEAR_FREE,   /* somebody looked: nobody holds it */
        LINEAR_BROKEN, /* an operator took it; token: larger than all before, or 0 */
        LINEAR_LOCK_OP_COUNT,
};

struct linear_lock {
        uint32_t key;
        enum linear_lock_op op;
        uint64_t owner; /* not 0 */
        uint64_t token;
};

enum linear_model {
        LINEAR_VALUES,
        LINEAR_LOCKS,
};

struct linear_op {
        uint64_t called;
        uint64_t returned; /* >= called; LINEAR_NEVER */
        union {
                struct linear_txn txn;
                struct linear_lock lock;
        };
};

enum linear_verdict {
        LINEAR_GOOD = 1,
        LINEAR_BAD,
        LINEAR_UNKNOWN, /* too hard: memory, or too many states, or keys in one part */
};

struct linear_report {
        enum linear_verdict verdict;
        size_t op;    /* BAD: the operation that cannot follow in the longest order found */
        size_t after; /* how many of its part that order has */
        bool often;   /* GOOD: where each operation without an answer may have happened more than
                       * once; whether once is enough was too hard to say, in some part */
        size_t parts;
        uint64_t tried;
};

/* Checks `count` operations, in any order; borrows them. All have keys below `key_count`. All
 * memory is given back. */
struct linear_report linear_check(struct heap *heap, enum linear_model model,
                                  const struct linear_op *ops, size_t count, uint32_t key_count);

#endif
