/* table.h - private to lock/: the table behind lock.h.
 *
 *   buckets ---> lock ---> lock             by key: hash table with chains
 *   first <----> lock <--> lock <--> last   by newest token: whatever is granted goes to the end
 *   lock ---> holders: claim <--> claim     by token
 *   lock ---> waiters: claim <--> claim     by arrival
 *   session ---> held: claim <--> claim     by token
 *   session ---> waits: claim <--> claim    by number
 *   leases:  heap of what ends (leases, sessions, delays) by deadline, then number
 *   waits:   heap of waiting claims by deadline, then number
 *
 * A claim waits first, or holds at once; when it is granted it moves, so a grant takes no memory.
 * Only the lists and heaps decide about order, and each has an order that follows from what it
 * holds: the hash seed, or a restore, has no influence on results. */
#ifndef MERIDIAN_LOCK_TABLE_H
#define MERIDIAN_LOCK_TABLE_H

#include "base/cursor.h"
#include "base/turns.h"
#include "lock/lock.h"

enum {
        LOCK_CHAINS = 4096,    /* of waiters by owner and of sessions by id */
        LOCK_VISIT_BYTES = 16, /* that one which is only passed by counts for in a step */
};

enum timer_kind {
        TIMER_CLAIM,
        TIMER_SESSION,
        TIMER_DELAY,
};

/* A place in a heap of deadlines. `number` is unique in its heap and breaks ties. */
struct timer {
        uint64_t deadline;
        uint64_t number;
        uint32_t at;
        uint8_t kind; /* enum timer_kind */
};

struct timers {
        struct timer **items;
        size_t count;
        size_t size;
};

struct claims {
        struct claim *first;
        struct claim *last;
        size_t count;
};

/* What a claim needs only while it waits; most claims never do. */
struct waiting {
        struct claim *owner_next; /* others whose owner has the same hash */
        struct claim **owner_link;
        struct claim *todo; /* of a search for deadlocks */
        uint64_t mark;
        struct lock_origin origin;
        struct claim *set_next; /* waits together with these, a ring; NULL: alone */
        /* Of stuck.c: its owner's number, and, of the first in a queue, the queue's. */
        uint64_t queue_mark;
        uint32_t queue;
        uint32_t stuck;
        bool granted;
};

/* Of a holder the timer's number is its token, and it is in no heap where it has a session. The
 * three structures end in their names, so that each is one block of memory. */
struct claim {
        struct timer timer; /* first: a timer is cast to what it is part of */
        uint32_t slots;
        uint32_t delay_ms;
        uint64_t ttl_ms;
        struct claim *next; /* in the lock's list */
        struct claim *before;
        struct claim *session_next;
        struct claim *session_before;
        struct session *session; /* NULL: a lease of its own */
        struct lock *lock;
        struct waiting *waiting; /* owned; NULL: it holds, or holds at once */
        bool held;
        uint8_t set_size; /* asked for at once; 1: alone */
        uint8_t place;    /* among these, by key; a holder's token is its number less that */
        uint16_t owner_len;
        uint8_t owner[];
};

struct lock {
        struct timer timer; /* of the delay; its number is the newest token */
        uint32_t slots;     /* of its holders */
        bool delayed : 1;
        bool touched : 1;
        bool saved : 1; /* its bytes wait for their turn in a capture */
        uint16_t key_len;
        struct lock *chain;
        struct lock *next;
        struct lock *before;
        struct lock *touched_next;
        struct claims holders;
        struct claims waiters;
        uint8_t key[];
};

struct session {
        struct timer timer; /* its number is the id */
        struct session *chain;
        struct session *next; /* by id */
        struct session *before;
        struct claims held;
        struct claims waits;
        uint64_t ttl_ms;
        uint16_t owner_len;
        uint8_t owner[];
};

/* A list that is made anew by each search; its memory stays. */
struct lock_scratch {
        void *items;
        size_t count;
        size_t size;
};

/* Memory that was taken from the heap. */
struct lock_block {
        void *ptr;
        size_t size;
};

struct lock_capture {
        bool open;
        bool sets;
        enum err err;
        uint64_t last_token; /* at the begin */
        uint64_t passed;     /* all up to this token is written */
        struct lock *next;   /* of the walk */
        struct turns turns;  /* locks that changed before they came by */
};

/* A state that is being read into an empty table. */
struct lock_reading {
        enum {
                READING_SESSIONS,
                READING_LOCKS,
                READING_JOIN,
                READING_LOOK,
                READING_END,
        } stage;
        uint8_t version;
        struct cursor cursor;
        uint64_t left;     /* sessions, or locks, to come */
        struct lock *next; /* to be joined, or looked at */
};

struct lock_table {
        struct heap *heap;
        uint64_t seed;
        uint64_t time_ms;
        uint64_t last_token;
        uint64_t last_waiter;
        size_t count;
        size_t delay_count;
        size_t holder_count;
        size_t waiter_count;
        size_t session_count;
        size_t set_count; /* claims of sets */
        struct lock **buckets;
        size_t bucket_count; /* a power of two; 0: none yet */
        struct lock *first;
        struct lock *last;
        struct session *session_first;
        struct session *session_last;
        struct session **session_chains; /* LOCK_CHAINS; NULL: none yet */
        struct claim **owner_chains;
        struct lock *touched_first; /* to be served */
        struct lock *touched_last;
        struct lock **cursor; /* where lock_next stopped; a cell of its own, as that is const */
        struct timers leases;
        struct timers waits;
        uint64_t mark; /* of the last search */
        struct {
                struct lock_scratch owners;
                struct lock_scratch places;
                struct lock_scratch queues;
        } stuck;
        struct lock_result *results;
        size_t result_count;
        size_t result_size;
        struct lock_block *garbage; /* whose names results borrow; given back at the next call */
        size_t garbage_count;
        size_t garbage_size;
        uint64_t *ended; /* sessions, by the command being applied */
        size_t ended_count;
        size_t ended_size;
        uint64_t index; /* of the log entry being applied */
        bool fatal;
        struct lock_event *events; /* a ring; key and owner are one piece of memory */
        size_t event_size;         /* of the ring, which grows; 0: none yet */
        size_t event_first;
        size_t event_count;
        size_t event_bytes;
        uint64_t event_last;
        uint64_t event_floor; /* events up to this one may be forgotten */
        struct lock_capture capture;
        struct lock_reading reading;
};

static inline struct bytes claim_owner(const struct claim *claim)
{
        return bytes_of(claim->owner, claim->owner_len);
}

static inline struct bytes lock_key(const struct lock *lock)
{
        return bytes_of(lock->key, lock->key_len);
}

static inline struct bytes session_owner(const struct session *session)
{
        return bytes_of(session->owner, session->owner_len);
}

/* ---- table.c: structures. What gives NULL or false has changed nothing ---- */
struct lock *lock_slots_find(const struct lock_table *table, struct bytes key);
/* A lock without holders and waiters, at the end of the list; there is none of that key yet. */
MUST_USE struct lock *lock_slots_insert(struct lock_table *table, struct bytes key, uint64_t token);
/* Takes out a lock that nobody holds or waits for. Its memory belongs to the caller now. */
MUST_USE struct lock_block lock_slots_remove(struct lock_table *table, struct lock *lock);
/* A claim that belongs to nobody yet; with room for it in both heaps, and with what it takes to
 * wait where it `waits`. */
MUST_USE struct claim *table_claim(struct lock_table *table, struct lock *lock, struct bytes owner,
                                   bool waits);
/* Ends a claim that is in no list. Its memory belongs to the caller now. */
MUST_USE struct lock_block table_unclaim(struct lock_table *table, struct claim *claim);
/* The claim waits from now on; `session` may be NULL. */
void table_wait(struct lock_table *table, struct claim *claim, struct session *session,
                uint64_t number, uint64_t deadline);
void table_unwait(struct lock_table *table, struct claim *claim);
/* The claim holds its lock from now on, by `deadline` or by its session. Raises the lock's place
 * where `token` is its newest. */
void table_hold(struct lock_table *table, struct claim *claim, struct session *session,
                uint64_t token, uint64_t deadline);
void table_unhold(struct lock_table *table, struct claim *claim);
/* Of a lease, a wait or a session. */
void table_extend(struct lock_table *table, struct timer *timer, uint64_t deadline);
/* Nothing is granted before `deadline`; 0: ends that. */
void table_delay(struct lock_table *table, struct lock *lock, uint64_t deadline);
/* The same of a lock that was just read, with the room that it takes. */
MUST_USE bool table_delay_first(struct lock_table *table, struct lock *lock, uint64_t deadline);
struct claim *table_holder(const struct lock *lock, struct bytes owner);
struct claim *table_waiter(const struct lock *lock, struct bytes owner);
MUST_USE struct session *table_session_insert(struct lock_table *table, uint64_t id,
                                              struct bytes owner, uint64_t deadline);
struct session *table_session_find(const struct lock_table *table, uint64_t id);
/* Takes out a session without claims. Its memory belongs to the caller now. */
MUST_USE struct lock_block table_session_remove(struct lock_table *table, struct session *session);
/* Where waiters with that owner are. */
struct claim *table_owner_chain(const struct lock_table *table, struct bytes owner);
/* So many locks are about to come. Without the memory for it the buckets grow by and by. */
void table_expect(struct lock_table *table, size_t count);
/* Frees everything. */
void table_clear(struct lock_table *table);
/* Takes content and counters of `from`, which has the same heap and seed and is empty then. */
void table_move(struct lock_table *table, struct lock_table *from);

/* ---- lock.c ---- */
/* A result about a holder. */
void lock_answer_holder(struct lock_table *table, struct lock_origin origin,
                        enum lock_result_kind kind, const struct claim *claim);
/* A result about a lock that somebody asks for: its newest holder, or the delay that is left. */
void lock_answer_lock(struct lock_table *table, const struct lock_command *command,
                      enum lock_result_kind kind, const struct lock *lock);
/* What a holder's owner knows. */
uint64_t lock_token_of(const struct claim *claim);
/* Can the first in the queue have it, with all that it wants? */
bool lock_head_ready(const struct lock *lock);
/* The claim is one of a set, or of none any more. */
void lock_set_mark(struct lock_table *table, struct claim *claim, size_t size, size_t place);
/* May one more for `slots` hold it, as far as its holders are concerned? */
bool lock_has_room(const struct lock *lock, uint32_t slots);
/* The claim, in no list yet, holds the lock; told to `origin`. */
void lock_grant(struct lock_table *table, struct claim *claim, struct session *session,
                uint64_t token, struct lock_origin origin);
bool lock_origin_equal(const struct lock_origin *a, const struct lock_origin *b);
/* The lock is looked at when the command has done its work. */
void lock_touch(struct lock_table *table, struct lock *lock);
void locks_serve(struct lock_table *table);
void lock_garbage(struct lock_table *table, struct lock_block block);
void lock_result_add(struct lock_table *table, struct lock_result result);
void lock_answer(struct lock_table *table, const struct lock_command *command,
                 enum lock_result_kind kind);
uint64_t lock_token_next(struct lock_table *table);
/* Ends a wait and tells whoever waits. */
void lock_wait_end(struct lock_table *table, struct claim *claim, enum lock_result_kind kind);
/* Ends a holder's lease: RELEASED, EXPIRED or BROKEN, told to `origin`. */
void lock_hold_end(struct lock_table *table, struct claim *claim, enum lock_result_kind kind,
                   struct lock_origin origin);

/* ---- acquire.c ---- */
/* What an ACQUIRE asks for. */
struct wish {
        const struct lock_command *command;
        struct session *session; /* NULL: a lease of its own */
        uint32_t slots;
};

/* False: answered. */
/* The same owner waits already, for the same: it keeps its place, of a set in all queues, and the
 * newer request is the one that is answered. */
void lock_wait_again(struct lock_table *table, const struct wish *wish, struct claim *first);
bool lock_wish(struct lock_table *table, const struct lock_command *command, struct wish *ret);
void lock_claim_fill(struct lock_table *table, struct claim *claim, const struct wish *wish);
void lock_acquire(struct lock_table *table, const struct lock_command *command);

/* ---- set.c ---- */
void lock_acquire_all(struct lock_table *table, const struct lock_command *command);
/* The set can be granted: each of its claims comes first, and each lock has room. */
bool lock_set_ready(const struct claim *claim);
void lock_set_grant(struct lock_table *table, struct claim *claim);
/* The first of a set, or the claim itself. */
struct claim *lock_set_first(struct claim *claim);

/* ---- session.c ---- */
void lock_session_open(struct lock_table *table, const struct lock_command *command);
void lock_session_keep(struct lock_table *table, const struct lock_command *command);
void lock_session_close(struct lock_table *table, const struct lock_command *command);
/* Frees all that belongs to it, each with `kind`: EXPIRED or RELEASED. */
void lock_session_end(struct lock_table *table, struct session *session,
                      enum lock_result_kind kind);
/* The session that a command names, where it is its owner's; else NULL. */
struct session *lock_session_of(const struct lock_table *table, const struct lock_command *command);

/* ---- snapshot.c ---- */
/* All but the locks themselves, and one lock. */
void lock_head_encode(const struct lock_table *table, struct buffer *out);
void lock_encode(const struct lock *lock, bool sets, struct buffer *out);

/* ---- capture.c ---- */
void lock_capture_save(struct lock_table *table, struct lock *lock);

/* A lock is about to change. */
static inline void lock_changes(struct lock_table *table, struct lock *lock)
{
        if (table->capture.open)
                lock_capture_save(table, lock);
}

/* ---- deadlock.c ---- */
bool lock_deadlock(struct lock_table *table, struct lock *lock, struct bytes owner, uint32_t slots);

/* ---- stuck.c ---- */
/* The same for locks that are asked for together (NULL: nobody knows it), also through semaphores.
 */
bool lock_stuck(struct lock_table *table, struct lock *const *locks, size_t count,
                struct bytes owner, uint32_t slots);
void lock_stuck_free(struct lock_table *table);

/* ---- events.c ---- */
void lock_event_add(struct lock_table *table, enum lock_result_kind kind, struct bytes key,
                    struct bytes owner, uint64_t token);
void lock_events_free(struct lock_table *table);
bool lock_event_watched(const struct lock_watch *watch, struct bytes key);
void lock_event_encode(const struct lock_event *event, struct buffer *out);

#endif
