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
 * larger) by LOCK_TIME commands while lock_table_idle is false. (Of one lock the holder is known to
 * count on all the same, and a new leader releases it: node/postgres_heir.c.)
 *
 * Tokens. A grant's token is the log index of the command that caused it, or one more than the
 * last token where that is larger (several grants in one entry). It never falls and is never used
 * twice within a group, over restarts, snapshots and releases. A resource refuses a token smaller
 * than the largest it has seen.
 *
 * Modes. A lock has slots: 1 is exclusive, LOCK_SHARED is for readers, any other number is a
 * semaphore of so many. Who holds it at one time has asked for the same number; who asks for
 * another waits until those have gone. Nobody overtakes: while somebody waits, who comes waits
 * behind. When the first in the queue can have the lock, so can all that follow it, up to the first
 * that cannot. A holder that asks for other slots gets them, with a new token, where it is the only
 * holder, and is refused (LOCK_HELD) where it is not: two who waited for that would wait for ever.
 *
 * Several at once. LOCK_ACQUIRE_ALL is granted all of its locks in one entry, or waits and holds
 * none of them. It stands in the queues of all, in each behind who came before it, and has its turn
 * when it is first in each of them and each has room; until then those behind it wait, also for a
 * lock that is free. So nobody starves, and two such requests never wait for each other, whatever
 * their order of names; who holds a lock and asks for others may, as ever (LOCK_DETECT). All locks
 * of a grant show the same token, the first of as many as there are locks, all used up. Each is
 * renewed and released by itself, or all by their session. Its owner holds none of them, or all
 * from one such grant (a repeat); otherwise it is refused (LOCK_HELD).
 *
 * Sessions. A lock may belong to a session instead of having a lease of its own: one keepalive
 * renews all of them, and the end of the session frees them and gives its waits up. A session
 * belongs to an owner, and its id is used up like a token.
 *
 * Delay. A lock that was acquired with `delay_ms` is granted to nobody for so long after its lease
 * (or its session) has expired, so that what its holder had sent may arrive or time out. There is
 * none after a release, a closed session or a forced release.
 *
 * Memory: about 250 bytes, the key and the owner for each held lock; some 110 more while one waits.
 * Costs: O(log n) for each grant and end of a lease, O(h) to find a holder, O(1) otherwise; n the
 * number of held locks, h of holders of the lock. */
#ifndef MERIDIAN_LOCK_LOCK_H
#define MERIDIAN_LOCK_LOCK_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/cursor.h"
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
#define LOCK_DELAY_MS_MAX    (10ull * 60 * 1000)
#define LOCK_SHARED          UINT32_MAX /* slots: any number, up to LOCK_HOLDERS_MAX */
#define LOCK_HOLDERS_MAX     1024       /* of one lock; one more waits */
#define LOCK_SLOTS_MAX       LOCK_HOLDERS_MAX
#define LOCK_SET_MAX         16                         /* locks of one LOCK_ACQUIRE_ALL */
#define LOCK_SESSIONS_MAX    65536                      /* of a table */
#define LOCK_CLAIMS_MAX      4096                       /* locks and waits of one session */
#define LOCK_EVENTS_MAX      65536                      /* remembered for who watches */
#define LOCK_EVENTS_BYTES    ((size_t)16 * 1024 * 1024) /* of their names */
#define LOCK_CHANGES_MAX     1000                       /* in one answer */
#define LOCK_CHANGES_BYTES   ((size_t)256 * 1024)
#define LOCK_COPY_MAX        65536                     /* changes in a copy */
#define LOCK_COPY_BYTES      ((size_t)8 * 1024 * 1024) /* of one, all in all */

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
        LOCK_SEIZE,   /* the same, and a token is used up and told: larger than that of any holder
                       * before, smaller than that of any after. Ends a delay, too */
        LOCK_LOOK,    /* key token: who holds it with that token; token 0: the newest holder */
        LOCK_SESSION_OPEN,  /* owner ttl_ms */
        LOCK_SESSION_KEEP,  /* owner session: it ends its ttl from now */
        LOCK_SESSION_CLOSE, /* owner session */
        LOCK_ACQUIRE_ALL,   /* as ACQUIRE, and `also` */
        LOCK_OP_COUNT,
};

enum {
        LOCK_FRESH = 1,         /* ACQUIRE: refused where the owner holds it already */
        LOCK_BY_OWNER = 2,      /* RENEW, RELEASE: by the owner alone, whatever its token */
        LOCK_ADD_TTL = 4,       /* RENEW: ttl_ms more than what is left */
        LOCK_DETECT = 8,        /* ACQUIRE: refuse to wait where that would be a deadlock */
        LOCK_DETECT_SLOTS = 16, /* the same, also through semaphores */
        LOCK_FLAGS = 31,
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
        uint32_t slots;    /* ACQUIRE: 0 or 1 exclusive, LOCK_SHARED, else of a semaphore */
        uint32_t flags;    /* of LOCK_FLAGS */
        uint64_t delay_ms; /* ACQUIRE: after an expiry; 0: none */
        uint64_t session;  /* ACQUIRE: 0: a lease of its own; ttl_ms is not looked at otherwise */
        struct bytes also; /* ACQUIRE_ALL: the other keys, each as a slice of buffer_slice */
};

enum lock_result_kind {
        LOCK_GRANTED = 1, /* token, ttl_ms */
        LOCK_QUEUED,      /* waiting; the answer comes as GRANTED or TIMED_OUT to the same origin */
        LOCK_HELD,        /* somebody else has it; owner and ttl_ms are the holder's */
        LOCK_TIMED_OUT,   /* the wait ended */
        LOCK_RENEWED,     /* ttl_ms */
        LOCK_RELEASED,
        LOCK_NOT_OWNER,  /* renew or release: not held, or not by this owner with this token */
        LOCK_EXPIRED,    /* an event: the lease of `owner` with `token` ended */
        LOCK_BROKEN,     /* an event and the answer to BREAK: it was taken from `owner` */
        LOCK_FREE,       /* BREAK, CANCEL: there was nothing to do */
        LOCK_CANCELLED,  /* a wait was given up, or its owner asked again */
        LOCK_INVALID,    /* an argument out of range */
        LOCK_LIMIT,      /* too many locks, waiters or sessions */
        LOCK_SEEN,       /* LOOK: owner, token and ttl_ms of the holder */
        LOCK_DEADLOCK,   /* to wait would close a circle of owners who wait for each other */
        LOCK_NO_SESSION, /* that session has ended, or is another owner's */
        LOCK_OPENED,     /* the token is the session's id; ttl_ms */
        LOCK_KEPT,       /* ttl_ms */
        LOCK_CLOSED,
        LOCK_GAP, /* an event of a copy: what happened from `token` up to its id is not known */
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
        size_t holders;
        uint32_t slots;
        uint64_t place; /* of the lock in lock_next: its newest token */
};

/* A change of a lock, for those who watch it. */
struct lock_event {
        uint64_t id;                /* grows; the same on every replica */
        enum lock_result_kind kind; /* GRANTED, RELEASED, EXPIRED, BROKEN; without a token: QUEUED
                                     * (waits), CANCELLED (waits no more, and has not got it) */
        struct bytes key;           /* borrowed until the next call on the table */
        struct bytes owner;
        struct lock_token token;
};

/* Which locks are watched. */
struct lock_watch {
        struct bytes key;
        bool prefix;    /* all that begin so */
        uint64_t after; /* what happened up to this event is known */
};

/* What lock_changes_encode did. */
struct lock_changes {
        size_t count;
        uint64_t last;  /* `after` of the next call */
        bool more;      /* the limits cut it */
        bool forgotten; /* changes after `after` are: of these locks or of others */
};

struct lock_table;

/* `seed` feeds the hash of keys only; replicas may differ. ERR_NOMEM. Keeps `heap`. */
MUST_USE enum err lock_table_new(struct heap *heap, uint64_t seed, struct lock_table **ret_table);
void lock_table_free(struct lock_table *table);

/* What is wrong with the sizes and ranges of a command, as a sentence; NULL: nothing. lock_apply
 * says LOCK_INVALID to it. */
const char *lock_command_fault(const struct lock_command *command);

/* Applies the command of log entry `index`. Results stay valid until the next call on the table;
 * the first of them with the command's origin is its answer, and there is exactly one of those but
 * for LOCK_TIME without one. Never fails: what is refused is a result. When
 * memory runs out `*ret_fatal` is set and there are no results: replicas may differ then, so this
 * one must stop. */
const struct lock_result *lock_apply(struct lock_table *table, uint64_t index,
                                     const struct lock_command *command, size_t *ret_count,
                                     bool *ret_fatal);

/* The sessions that the last lock_apply ended, in order. Borrowed until the next call. */
const uint64_t *lock_sessions_ended(const struct lock_table *table, size_t *ret_count);

/* Is there such a session of that owner? */
bool lock_session_alive(const struct lock_table *table, uint64_t session, struct bytes owner);

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

/* False when nobody holds `key`. Tells of the newest holder. */
bool lock_find(const struct lock_table *table, struct bytes key, struct lock_info *ret);

/* The same of the holder with that token; token 0: of the newest. Cost: O(holders). */
bool lock_find_holder(const struct lock_table *table, struct bytes key, struct lock_token token,
                      struct lock_info *ret);

/* The held locks in order of their newest tokens: begin after 0, go on after the last `place`.
 * False at the end. Cost: O(1) going on where the last call on this table stopped, else O(n). */
bool lock_next(const struct lock_table *table, uint64_t after, struct bytes *ret_key,
               struct lock_info *ret);

/* The first change after `watch->after`; in order and each once, where the next call goes on after
 * the last one's id. False: none yet. Cost: O(log LOCK_EVENTS_MAX), and O(1) for each other lock's
 * change on the way. */
bool lock_event_next(const struct lock_table *table, const struct lock_watch *watch,
                     struct lock_event *ret);

/* Are changes after event `after` forgotten? */
bool lock_events_forgotten(const struct lock_table *table, uint64_t after);

/* Appends the changes for a watch to `out`, up to LOCK_CHANGES_MAX and LOCK_CHANGES_BYTES; to be
 * read one by one from a cursor until that is at its end: false there, or where it fails. */
void lock_changes_encode(const struct lock_table *table, const struct lock_watch *watch,
                         struct lock_changes *ret, struct buffer *out);
bool lock_change_decode(struct cursor *cursor, struct lock_event *ret);

/* "granted", "released", "expired", "broken", "waiting", "left" (the queue), "gap"; static. */
const char *lock_event_name(enum lock_result_kind kind);

/* What happened to the locks of another table, as far as it was told: the newest changes, encoded
 * as lock_changes_encode does it, up to LOCK_COPY_MAX and LOCK_COPY_BYTES; beyond, the oldest are
 * forgotten, some hundred at a time. Memory is taken as it fills. */
struct lock_copy;

/* NULL: no memory. It knows nothing, up to event 0. Keeps `heap`. */
MUST_USE struct lock_copy *lock_copy_new(struct heap *heap);
void lock_copy_free(struct lock_copy *copy);

/* Takes over what was told after lock_copy_last, up to `revision`, which is then the last; what it
 * knows already is left out. False: it cannot be read from some place on; nothing is known from
 * there on, and `last` stays there. Without memory all is forgotten, up to `revision`. */
MUST_USE bool lock_copy_take(struct lock_copy *copy, struct bytes changes, uint64_t revision);

/* What happened up to `revision` (> last) stays unknown: a LOCK_GAP among the changes. */
void lock_copy_skip(struct lock_copy *copy, uint64_t revision);

/* The table began anew, and is at `revision`: all is forgotten. */
void lock_copy_restart(struct lock_copy *copy, uint64_t revision);

struct lock_copy_state {
        uint64_t first; /* what happened up to it is not kept */
        uint64_t last;
        uint64_t gaps; /* so often something was missed that happened after its beginning */
        size_t count;
        size_t bytes; /* memory */
};
struct lock_copy_state lock_copy_state(const struct lock_copy *copy);

/* As lock_changes_encode. What is not kept after `watch->after` is told first, as a LOCK_GAP, and
 * each gap whatever is watched; nothing is said to be forgotten. */
void lock_copy_encode(const struct lock_copy *copy, const struct lock_watch *watch,
                      struct lock_changes *ret, struct buffer *out);

/* The last event so far: where a watch may begin. */
uint64_t lock_event_last(const struct lock_table *table);

/* After a decode: nothing is known of events up to log entry `index`. */
void lock_events_begin(struct lock_table *table, uint64_t index);

/* The whole table, versioned; the same state gives the same bytes on every replica. */
void lock_table_encode(const struct lock_table *table, struct buffer *out);

/* The same bytes in steps, as of the begin, while commands go on: what changes meanwhile is kept
 * aside as it was (some 70 bytes for each lock that does). One at a time. Begin appends sessions
 * and counts: O(sessions). Step appends about `bytes` more; true: that was all, or memory ran out
 * (out->err). End is due in any case, also before all is told; it costs O(locks) only then. A
 * decode ends it. */
void lock_capture_begin(struct lock_table *table, struct buffer *out);
MUST_USE bool lock_capture_step(struct lock_table *table, size_t bytes, struct buffer *out);
void lock_capture_end(struct lock_table *table);

/* Replaces the table's content. On an error (ERR_VERSION, ERR_TRUNCATED, ERR_MALFORMED, ERR_NOMEM)
 * nothing has changed. */
MUST_USE enum err lock_table_decode(struct lock_table *table, struct bytes data);

/* The same into a new table, in steps; `data` stays until the end. Each reads about `bytes`; true:
 * that was all, or it failed, and end is due: after an error (as above), and before the end, the
 * table can only be freed. */
void lock_restore_begin(struct lock_table *table, struct bytes data);
MUST_USE bool lock_restore_step(struct lock_table *table, size_t bytes);
MUST_USE enum err lock_restore_end(struct lock_table *table);

/* Frees content of a table that is only to be freed, about `bytes` of it; true: what is left costs
 * little. */
MUST_USE bool lock_table_sweep(struct lock_table *table, size_t bytes);

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
