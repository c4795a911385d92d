/* lock.h - the lock table: a replicated state machine. Commands in log order in, results out; the
 * same commands give the same table on every replica.
 *
 * Time. The table has its own clock, in milliseconds, that only commands advance: each carries the
 * leader's reading of it, and the table's time is the largest seen. Before a command acts, every
 * lease and every wait that ends at or before the new time ends. So a lease ends by a log entry,
 * never by a replica's own clock. The leader reads a `struct lock_clock`, which goes on from the
 * table's time when it begins to lead and ignores pauses of its own process. Nothing is taken from
 * a lease by a change of leader: it is made longer by the time without a leader plus the time since
 * the last command, which the leader keeps below LOCK_CHECKPOINT_MS (or its election timeout, if
 * larger) by LOCK_TIME commands while lock_table_idle is false.
 *
 * Tokens. A grant's token is the log index of the command that caused it, or one more than the
 * last token where that is larger (several grants in one entry). It never falls and is never used
 * twice within a group, over restarts, snapshots and releases. A resource refuses a token smaller
 * than the largest it has seen.
 *
 * Memory: about 200 bytes and the key and owner for each held lock. Costs: O(log n) for each grant
 * and end of a lease, O(1) otherwise; n the number of held locks. */
#ifndef MERIDIAN_LOCK_LOCK_H
#define MERIDIAN_LOCK_LOCK_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"

#define LOCK_KEY_BYTES_MAX   512
#define LOCK_OWNER_BYTES_MAX 256
#define LOCK_TTL_MS_MIN      1
#define LOCK_TTL_MS_MAX      (24ull * 60 * 60 * 1000)
#define LOCK_WAIT_MS_MAX     (60ull * 60 * 1000)
#define LOCK_WAITERS_MAX     1024    /* of one lock */
#define LOCK_WAITERS_ALL_MAX 65536   /* of a table */
#define LOCK_COUNT_MAX       4000000 /* locks held in a table */
#define LOCK_CHECKPOINT_MS   1000ull

struct lock_token {
        uint64_t value; /* 0: none */
};

/* Who asked: a node, its start, and a number that grows with each of its requests. Comes back in
 * results, so that the right client gets the answer. All zero: nobody. */
struct lock_origin {
        uint32_t node;
        uint64_t incarnation;
        uint64_t sequence;
};

enum lock_op {
        LOCK_TIME = 1, /* only time passes */
        LOCK_ACQUIRE, /* key owner ttl_ms wait_ms. A holder that asks again gets its token and a new
                       * ttl (a repeat after a lost answer); a waiter that asks again keeps its
                       * place, and the answer goes to the newer request */
        LOCK_RENEW,   /* key owner token ttl_ms: the lease ends ttl_ms from now */
        LOCK_RELEASE, /* key owner token */
        LOCK_CANCEL,  /* key owner: give up waiting (the client went away). Names the waiting
                       * request by `cancelled`; one that was granted meanwhile stays granted */
        LOCK_BREAK,   /* key: an operator takes the lock away whoever holds it */
        LOCK_OP_COUNT,
};

struct lock_command {
        enum lock_op op;
        uint64_t now_ms; /* the leader's lock clock */
        struct bytes key;
        struct bytes owner;
        struct lock_token token;
        uint64_t ttl_ms;
        uint64_t wait_ms; /* 0: do not wait */
        struct lock_origin origin;
        struct lock_origin cancelled;
};

enum lock_result_kind {
        LOCK_GRANTED = 1, /* token, ttl_ms */
        LOCK_QUEUED,      /* waiting; the answer comes as GRANTED or TIMED_OUT to the same origin */
        LOCK_HELD,        /* somebody else has it; owner and ttl_ms are the holder's */
        LOCK_TIMED_OUT,   /* the wait ended */
        LOCK_RENEWED,     /* ttl_ms */
        LOCK_RELEASED,
        LOCK_NOT_OWNER, /* renew or release: not held, or not by this owner with this token */
        LOCK_EXPIRED,   /* an event: the lease of `owner` with `token` ended */
        LOCK_BROKEN,    /* an event and the answer to BREAK: it was taken from `owner` */
        LOCK_FREE,      /* BREAK, CANCEL: there was nothing to do */
        LOCK_CANCELLED, /* a wait was given up, or its owner asked again */
        LOCK_INVALID,   /* an argument out of range */
        LOCK_LIMIT,     /* too many locks or waiters */
        LOCK_RESULT_COUNT,
};

/* One thing that happened. `origin` says who is to be told (all zero: an event for nobody in
 * particular); key and owner are borrowed until the next call on the table. */
struct lock_result {
        enum lock_result_kind kind;
        struct lock_origin origin;
        struct bytes key;
        struct bytes owner;
        struct lock_token token;
        uint64_t ttl_ms; /* left, counted from the table's time */
};

/* What LOCK.INFO tells. */
struct lock_info {
        struct bytes owner; /* borrowed until the next call on the table */
        struct lock_token token;
        uint64_t ttl_ms; /* left at the table's time */
        size_t waiters;
};

struct lock_table;

/* `seed` feeds the hash of keys only; replicas may differ. ERR_NOMEM. Keeps `heap`. */
MUST_USE enum err lock_table_new(struct heap *heap, uint64_t seed, struct lock_table **ret_table);
void lock_table_free(struct lock_table *table);

/* Applies the command of log entry `index`. Results stay valid until the next call on the table;
 * the first of them with the command's origin is its answer, and there is exactly one of those but
 * for LOCK_TIME without one. Never fails: what is refused is a result. When
 * memory runs out `*ret_fatal` is set and there are no results: replicas may differ then, so this
 * one must stop. */
const struct lock_result *lock_apply(struct lock_table *table, uint64_t index,
                                     const struct lock_command *command, size_t *ret_count,
                                     bool *ret_fatal);

/* The table's time and what it holds. */
uint64_t lock_table_time(const struct lock_table *table);
size_t lock_table_count(const struct lock_table *table);
size_t lock_table_waiters(const struct lock_table *table);
struct lock_token lock_table_last_token(const struct lock_table *table);

/* True when nothing is held or waited for, so that time need not be advanced. */
bool lock_table_idle(const struct lock_table *table);

/* The table's time at which the next lease or wait ends; UINT64_MAX: none. The leader
 * proposes LOCK_TIME then. */
uint64_t lock_next_deadline(const struct lock_table *table);

/* False when nobody holds `key`. */
bool lock_find(const struct lock_table *table, struct bytes key, struct lock_info *ret);

/* The held locks in order of their tokens: begin with token 0, go on with the last one returned.
 * False at the end. Cost: O(1) going on where the last call on this table stopped, else O(n). */
bool lock_next(const struct lock_table *table, struct lock_token after, struct bytes *ret_key,
               struct lock_info *ret);

/* The whole table, versioned; the same state gives the same bytes on every replica. */
void lock_table_encode(const struct lock_table *table, struct buffer *out);

/* Replaces the table's content. On an error (ERR_VERSION, ERR_TRUNCATED, ERR_MALFORMED, ERR_NOMEM)
 * nothing has changed. */
MUST_USE enum err lock_table_decode(struct lock_table *table, struct bytes data);

/* Checks every invariant; aborts on a broken one. For tests and the simulator. Cost: O(n). */
void lock_table_check(const struct lock_table *table);

/* Commands as bytes. Decoding borrows from `data`. ERR_MALFORMED, ERR_TRUNCATED, ERR_VERSION. Sizes
 * and ranges are judged by lock_apply, so that the client gets an answer. */
void lock_command_encode(const struct lock_command *command, struct buffer *out);
MUST_USE enum err lock_command_decode(struct bytes data, struct lock_command *ret);

/* The leader's lock clock: monotonic microseconds in, the table's milliseconds out. */
struct lock_clock {
        uint64_t time_us; /* of the table */
        uint64_t seen_us; /* the last monotonic reading */
        uint64_t jump_us; /* the most that one reading may add */
};

/* Begins to lead at `now_us` with a table at `table_ms`. Readings must be taken at least every
 * `jump_ms` (the heartbeat interval times a few): what a longer gap has on top is the fault of this
 * process, which could not take renewals then, and does not count against leases. */
void lock_clock_init(struct lock_clock *clock, uint64_t table_ms, uint64_t now_us,
                     uint64_t jump_ms);

/* The time to stamp on a command, in milliseconds. */
uint64_t lock_clock_read(struct lock_clock *clock, uint64_t now_us);

/* The monotonic time at which the clock will read `table_ms`, in microseconds; UINT64_MAX stays. */
uint64_t lock_clock_when(const struct lock_clock *clock, uint64_t table_ms);

/* "granted", "held", ...; static. */
const char *lock_result_name(enum lock_result_kind kind);

#endif
