/* keyspace.h - all that one replica knows about its keys, except their values: a table of per-key
 * metadata (crdt/crdt.h), a hybrid logical clock, the version vector, and the ring of own deltas
 * that other regions read. The Redis plugin and the simulator run this same code.
 *
 * Words
 *   delta     one change of one key by this region, encoded; carries its clock, not its origin
 *   stream    all deltas of one origin in clock order: length-prefixed deltas, one after the other
 *   position  the clock up to which a stream is known
 *   version   the vector of positions
 *
 * How it is used
 *   local change   the store changes natively, then keyspace_local_*() stamps it and appends a
 *                  delta. ret->delta is what belongs into the log (AOF) and to in-region replicas.
 *   remote change  keyspace_apply() merges a batch and changes the store through `native`.
 *   log replay     keyspace_replay() for deltas of this origin, keyspace_apply() for the others.
 *   state          keyspace_scan() at the sender until its cursor is 0; keyspace_merge_state() for
 *                  each part in order, then keyspace_adopt() at the receiver.
 *
 * Guarantees
 *   - Replicas that have the same positions, and none of whose keys was evicted, have the same
 *     visible content and the same keyspace_digest, whatever the order, duplication and delay in
 *     which streams and states came.
 *   - A clock beyond the drift bound is refused and never adopted; what came before it is kept.
 *   - A stamp is never issued twice, and never at or below a position given by keyspace_heartbeat.
 *     After a restart, readers that know more of our stream than we recovered are told GAP where
 *     the new stamps could hide behind what they know.
 *
 * One thread at a time. Every call allocates from the heap given at the start only. ERR_NOMEM
 * leaves a keyspace that is safe to free but whose last change may be half remembered: a host
 * should stop there and recover from its log. */
#ifndef MERIDIAN_KEYSPACE_KEYSPACE_H
#define MERIDIAN_KEYSPACE_KEYSPACE_H

#include "base/hash.h"
#include "crdt/crdt.h"

struct keyspace;

struct keyspace_config {
        region_id origin;         /* this region, 1 .. CLOCK_REGIONS_MAX */
        uint64_t ring_bytes;      /* limit of the deltas ring, >= 4096; taken as it fills */
        uint64_t drift_max_ms;    /* how far a remote clock may be ahead of the wall clock */
        bool several;             /* one of several servers of its region */
        uint32_t slice_items;     /* of a large key in one part of a state; 0: 1024 */
        uint64_t incarnation;     /* differs whenever memory was lost since */
        struct hash_key hash_key; /* secret and random in production, from the seed in simulation */
};

/* Keeps `heap` until keyspace_free. NULL: out of memory, or the configuration is out of range. */
MUST_USE struct keyspace *keyspace_new(struct heap *heap, const struct keyspace_config *config);
void keyspace_free(struct keyspace *keyspace);

/* ---- local changes ---------------------------------------------------------------------------
 *
 * Called after (or as part of) the native change. `wall_ms`: Unix milliseconds now. Errors:
 * ERR_NOMEM, and ERR_LIMIT for a name or value beyond 2^29 bytes, a db beyond CRDT_DB_MAX. Cost:
 * one table lookup and one copy into the ring. keyspace_local_set of a key that is known as a plain
 * string allocates nothing. */

struct keyspace_change {
        struct stamp stamp;
        struct bytes delta; /* encoded, without the length prefix of streams; see below */
        bool rewrite;       /* the native value, or field, must become `text` (expiry stays) */
        struct bytes text;
        struct bytes before; /* of an increment: the base that it was the first to be added to, ptr
                              * NULL: none. Nothing else tells it: to be logged before the delta */
        bool nothing;        /* nothing was to do: no stamp, no delta */
        bool whole;          /* nothing was told: the key `name` is known as one whole value, of
                       * which this was a part. It is to be told anew, as what it is now. */
        struct crdt_name name;
};
/* `delta`, `text` and `before` are borrowed until the next call on the keyspace. */

/* expire_at_ms for keyspace_local_set and _opaque: the key keeps the expiry that it has (APPEND,
 * SETRANGE, SET ... KEEPTTL). */
#define KEYSPACE_TTL_KEEP UINT64_MAX

/* The key is now a string with this value, whatever it was. expire_at_ms: 0 for none. */
MUST_USE enum err keyspace_local_set(struct keyspace *keyspace, uint64_t wall_ms,
                                     struct crdt_name name, struct bytes value,
                                     uint64_t expire_at_ms, struct keyspace_change *ret);

/* INCR, DECR, INCRBY, DECRBY that succeeded: by `amount`, and the string is now `value_after`. */
MUST_USE enum err keyspace_local_increment(struct keyspace *keyspace, uint64_t wall_ms,
                                           struct crdt_name name, int64_t amount,
                                           int64_t value_after, struct keyspace_change *ret);

/* INCRBYFLOAT: called *instead of* the native change. `value_before` is the present text, len 0 for
 * an absent key. The new text is in ret->text, ret->rewrite is true. ERR_INVALID: the present value
 * is no number, or the result is not finite; nothing has changed. */
MUST_USE enum err keyspace_local_increment_float(struct keyspace *keyspace, uint64_t wall_ms,
                                                 struct crdt_name name, double amount,
                                                 struct bytes value_before,
                                                 struct keyspace_change *ret);

/* DEL, UNLINK, GETDEL, and any command that left the key gone (but see hash_delete, set_remove). */
MUST_USE enum err keyspace_local_delete(struct keyspace *keyspace, uint64_t wall_ms,
                                        struct crdt_name name, struct keyspace_change *ret);

/* The native expiry has struck. What dies everywhere is what was known here. */
MUST_USE enum err keyspace_local_expired(struct keyspace *keyspace, uint64_t wall_ms,
                                         struct crdt_name name, struct keyspace_change *ret);

/* EXPIRE and family with an absolute time; 0: PERSIST. The key exists. */
MUST_USE enum err keyspace_local_expire(struct keyspace *keyspace, uint64_t wall_ms,
                                        struct crdt_name name, uint64_t expire_at_ms,
                                        struct keyspace_change *ret);

struct keyspace_pair {
        struct bytes field;
        struct bytes value;
};

/* HSET, HMSET, HSETNX ...: these fields now have these values. count > 0. */
MUST_USE enum err keyspace_local_hash_set(struct keyspace *keyspace, uint64_t wall_ms,
                                          struct crdt_name name, const struct keyspace_pair *pairs,
                                          size_t count, struct keyspace_change *ret);

/* HINCRBY that succeeded: by `amount`, and the field is now `value_after`. With ret->rewrite, or
 * with ERR_INVALID (no total of this origin holds it), the outcome is to be told as an HSET. */
MUST_USE enum err keyspace_local_hash_increment(struct keyspace *keyspace, uint64_t wall_ms,
                                                struct crdt_name name, struct bytes field,
                                                int64_t amount, int64_t value_after,
                                                struct keyspace_change *ret);

/* HINCRBYFLOAT: `value_before` is what the field was, len 0 where it was absent. ret->rewrite is
 * true, ret->text what the field must be. ERR_INVALID: that was no number, or the result is not
 * finite; nothing has changed. */
MUST_USE enum err keyspace_local_hash_increment_float(struct keyspace *keyspace, uint64_t wall_ms,
                                                      struct crdt_name name, struct bytes field,
                                                      double amount, struct bytes value_before,
                                                      struct keyspace_change *ret);

/* HDEL: these fields are gone; so is the key where they were the last. */
MUST_USE enum err keyspace_local_hash_delete(struct keyspace *keyspace, uint64_t wall_ms,
                                             struct crdt_name name, const struct bytes *fields,
                                             size_t count, struct keyspace_change *ret);

/* SADD: name every member of the command, those that were there already too: the add must win over
 * a concurrent remove. */
MUST_USE enum err keyspace_local_set_add(struct keyspace *keyspace, uint64_t wall_ms,
                                         struct crdt_name name, const struct bytes *members,
                                         size_t count, struct keyspace_change *ret);

/* What SADD of that member would be: of one that is there it is no change to Redis, but one to us.
 * Where it is fresh, no other region can have seen the dot by which it stands (its clock is beyond
 * `shipped`), so adding it again changes nothing anywhere. */
enum crdt_member keyspace_set_look(const struct keyspace *keyspace, struct crdt_name name,
                                   uint64_t hash, struct bytes member, uint64_t shipped);

/* The hash of a name, for what takes one. */
uint64_t keyspace_name_hash(const struct keyspace *keyspace, struct crdt_name name);

/* SREM, SPOP: these members are gone; so is the key where they were the last. */
MUST_USE enum err keyspace_local_set_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                            struct crdt_name name, const struct bytes *members,
                                            size_t count, struct keyspace_change *ret);

/* ---- lists: indexes are those of before the call; what is told has happened in the store */

/* How many elements of a list are known here; 0 where the key is none. */
uint64_t keyspace_list_length(const struct keyspace *keyspace, struct crdt_name name);

/* LPUSH (`head`), RPUSH and their like: these stand at that end now, in this order. count > 0.
 * ERR_LIMIT: more than CRDT_LIST_COUNT_MAX at once. */
MUST_USE enum err keyspace_local_list_push(struct keyspace *keyspace, uint64_t wall_ms,
                                           struct crdt_name name, bool head,
                                           const struct bytes *values, size_t count,
                                           struct keyspace_change *ret);

/* LINSERT: this stands before the element that was the `index`-th, 0 < index < length. ERR_LIMIT:
 * too much was inserted at this one place; the list must be told anew as a whole (a delete,
 * then pushes). */
MUST_USE enum err keyspace_local_list_insert(struct keyspace *keyspace, uint64_t wall_ms,
                                             struct crdt_name name, uint64_t index,
                                             struct bytes value, struct keyspace_change *ret);

struct keyspace_range {
        uint64_t index;
        uint64_t count;
};

/* LPOP, RPOP, LREM, LTRIM and their like: these elements went, by rising index, disjoint. What is
 * beyond the length is left out. */
MUST_USE enum err keyspace_local_list_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                             struct crdt_name name,
                                             const struct keyspace_range *ranges, size_t count,
                                             struct keyspace_change *ret);

/* LSET. index < length. */
MUST_USE enum err keyspace_local_list_set(struct keyspace *keyspace, uint64_t wall_ms,
                                          struct crdt_name name, uint64_t index, struct bytes value,
                                          struct keyspace_change *ret);

/* PFADD that changed something: elements, of which there may be none. */
MUST_USE enum err keyspace_local_hll_add(struct keyspace *keyspace, uint64_t wall_ms,
                                         struct crdt_name name, const struct bytes *elements,
                                         size_t count, struct keyspace_change *ret);

/* PFMERGE, or a PFADD to what was no HyperLogLog to the keyspace: these are all registers now. */
MUST_USE enum err keyspace_local_hll_registers(struct keyspace *keyspace, uint64_t wall_ms,
                                               struct crdt_name name, struct bytes registers,
                                               struct keyspace_change *ret);

/* ---- sorted sets */

struct keyspace_score {
        struct bytes member;
        double score; /* no NaN, no zero with a sign */
};

/* ZADD: name every member of the command that the store has now with that score, those that had it
 * before too, for the add must win over a concurrent removal. count > 0. */
MUST_USE enum err keyspace_local_zset_add(struct keyspace *keyspace, uint64_t wall_ms,
                                          struct crdt_name name,
                                          const struct keyspace_score *scores, size_t count,
                                          struct keyspace_change *ret);

/* ZINCRBY: by `amount`, and the member has the score `after` now. `rewrite` never is. */
MUST_USE enum err keyspace_local_zset_increment(struct keyspace *keyspace, uint64_t wall_ms,
                                                struct crdt_name name, struct bytes member,
                                                double amount, double after,
                                                struct keyspace_change *ret);

/* ZREM, ZPOPMIN and their like: these members are gone; so is the key where they were the last. */
MUST_USE enum err keyspace_local_zset_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                             struct crdt_name name, const struct bytes *members,
                                             size_t count, struct keyspace_change *ret);

/* As keyspace_set_look; *ret_score is the score of a member that is there. */
enum crdt_member keyspace_zset_look(const struct keyspace *keyspace, struct crdt_name name,
                                    struct bytes member, uint64_t shipped, double *ret_score);

/* The same with the name's hash from keyspace_name_hash. */
enum crdt_member keyspace_zset_look_hashed(const struct keyspace *keyspace, struct crdt_name name,
                                           uint64_t hash, struct bytes member, uint64_t shipped,
                                           double *ret_score);

/* How many members are known here; calls `each` for all, in no order. `each` must not change the
 * keyspace. */
uint64_t keyspace_zset_length(const struct keyspace *keyspace, struct crdt_name name);
void keyspace_zset_each(const struct keyspace *keyspace, struct crdt_name name,
                        void (*each)(void *context, struct bytes member, double score),
                        void *context);

/* ---- streams */

/* How many entries are known here, and the largest id that ever was (0-0: none is known). */
uint64_t keyspace_stream_length(const struct keyspace *keyspace, struct crdt_name name,
                                struct crdt_stream_id *ret_last);

struct keyspace_entry {
        struct crdt_stream_id id;    /* not 0-0 */
        const struct bytes *strings; /* field, value, field, value ... */
        size_t count;                /* of strings: even, > 0 */
};

/* XADD: these entries are in the stream now. Without any (XGROUP CREATE ... MKSTREAM, XSETID): the
 * stream exists, and `last` is the largest id that was given out. */
MUST_USE enum err keyspace_local_stream_add(struct keyspace *keyspace, uint64_t wall_ms,
                                            struct crdt_name name, struct crdt_stream_id last,
                                            const struct keyspace_entry *entries, size_t count,
                                            struct keyspace_change *ret);

struct keyspace_ids {
        struct crdt_stream_id low;
        struct crdt_stream_id high; /* included */
};

/* XDEL, XTRIM: of these ids, whatever is known here went. */
MUST_USE enum err keyspace_local_stream_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                               struct crdt_name name,
                                               const struct keyspace_ids *ranges, size_t count,
                                               struct keyspace_change *ret);

/* Any other type: the key is now what `value` (a DUMP payload) says. */
MUST_USE enum err keyspace_local_opaque(struct keyspace *keyspace, uint64_t wall_ms,
                                        struct crdt_name name, struct bytes value,
                                        uint64_t expire_at_ms, struct keyspace_change *ret);

/* The key is now a string with this value, and every concurrent write of it is kept beside it
 * (crdt/siblings.c); those that are known here are resolved by this one. Such a key keeps about
 * 1 kB of metadata. keyspace_local_delete and _expired take away what was seen of it. */
MUST_USE enum err keyspace_local_sibling(struct keyspace *keyspace, uint64_t wall_ms,
                                         struct crdt_name name, struct bytes value,
                                         uint64_t expire_at_ms, struct keyspace_change *ret);

/* A message for the subscribers of a channel in the other regions, behind what was changed before:
 * it changes nothing and no state has it. There each store hands it on once (crdt_native.event). */
MUST_USE enum err keyspace_local_event(struct keyspace *keyspace, uint64_t wall_ms,
                                       struct bytes channel, struct bytes message, bool shard,
                                       struct keyspace_change *ret);

/* `found` is told of each conflict that a delta of another region makes with a write of this one,
 * after it was merged, in the same call; what is loaded from a log and state transfers tell
 * nothing. It must not come back into the keyspace. Cost: a few comparisons for each merged
 * delta. */
void keyspace_watch(struct keyspace *keyspace,
                    void (*found)(void *context, const struct crdt_conflict *conflict),
                    void *context);

/* The siblings of a key, oldest first; borrowed until the next call. Of one alone the
 * value is empty: it is the store's. Returns their count, 0 where the key is no such string. */
size_t keyspace_siblings(const struct keyspace *keyspace, struct crdt_name name,
                         const struct crdt_sibling **ret);

/* Shows again, through `native`, what several siblings come to, for a store whose siblings_show has
 * become another. Cost: a walk over all keys. */
void keyspace_siblings_show(struct keyspace *keyspace, const struct crdt_native *native);

/* FLUSHDB: the database is empty. What was known here goes in every region, what others write at
 * the same time stays. `changed` is called for each delta: one, after a delete for each key of
 * which stamps alone cannot tell what was seen (counters and the like). `one_by_one`: deletes
 * only, where this store holds a part of its region's keys. Cost: a walk over all keys. */
MUST_USE enum err
keyspace_local_flush(struct keyspace *keyspace, uint64_t wall_ms, uint32_t db, bool one_by_one,
                     void (*changed)(void *context, const struct keyspace_change *change),
                     void *context);

/* The store dropped the value without a delete (maxmemory eviction). Other regions keep theirs; the
 * key is absent here until somebody writes it, and a state transfer from here leaves it out. */
MUST_USE enum err keyspace_key_gone(struct keyspace *keyspace, struct crdt_name name);

/* ---- many local changes together -------------------------------------------------------------
 *
 * A store that makes many changes a turn stamps each as it happens and tells them
 * together: the memory of all their keys is then fetched at once, instead of one after the
 * other. Between keyspace_stamps and keyspace_run no other function may change the
 * keyspace, nor may anything be read of it that the change would change. The outcome is
 * that of the keyspace_local_* functions. */

enum {
        KEYSPACE_OPS_MAX = 64,
        KEYSPACE_OP_BODY = 8 + 1, /* where the database stands in `delta`, but see below */
        KEYSPACE_OP_COUNT = 11 + 8 + 11 + 1,
};

struct keyspace_op {
        uint64_t hlc; /* from keyspace_stamps; each larger than the one before */
        struct crdt_name name;
        enum crdt_op op; /* SET, DEL, EXPIRE, COUNT, HSET, HDEL, SADD, ZADD, LIST_INSERT at an
                          * end; SREM, whose body leaves out the dots; LIST_REMOVE: of one element
                          * at an end, where there is any */
        int64_t amount;  /* COUNT; LIST_REMOVE: 1 the head, 0 the tail; SET, EXPIRE: the expiry in
                          * Unix milliseconds, 0 none */

        /* Not of LIST_REMOVE: the delta as crdt/crdt.h has it, without flags, in memory of the
         * caller. The clock and the operation are filled in. `body` is its part after the key; of
         * SET, the value alone. DEL: what it observed is left out. Of
         * COUNT, that part is filled in: there are KEYSPACE_OP_COUNT bytes behind `delta_len`; or
         * `delta` is NULL, at the cost of the long way. */
        uint8_t *delta;
        size_t delta_len;
        struct bytes body;

        /* Known by keyspace_op_find, else 0: hashes of the name and of the first item, the entry,
         * and how many entries had been freed when it was found. */
        uint64_t hash;
        uint64_t item_hash;
        struct entry *entry;
        uint64_t freed;
};

/* Where it stands for that operation, whose number may take one byte more. */
static inline unsigned keyspace_op_body(enum crdt_op op)
{
        return KEYSPACE_OP_BODY + ((unsigned)op > 15);
}

/* Of an SADD or ZADD of one member, of which `op` and `name` alone are known yet: looks for the
 * key, and asks the processor for the place of the member. Other changes may come before the run.
 */
void keyspace_op_find(struct keyspace *keyspace, struct keyspace_op *op, struct bytes member);

/* Right after it: what that would be to the member. ABSENT where it makes it or gives it another
 * score, so that the store changes; else as keyspace_set_look. */
enum crdt_member keyspace_op_look(const struct keyspace *keyspace, const struct keyspace_op *op,
                                  struct bytes member, double score, uint64_t shipped);

/* What a run asks and tells. */
struct keyspace_teller {
        void *context;

        /* The integer that the store holds now: asked for the first increment after a SET. Must not
         * come back into the keyspace. */
        int64_t (*value)(void *context, struct crdt_name name);

        /* One change is made, as if by keyspace_local_*. `rewrite` never is. */
        void (*changed)(void *context, const struct keyspace_op *op,
                        const struct keyspace_change *change);

        /* The same of most: there is nothing to tell but the delta. */
        void (*plain)(void *context, const struct keyspace_op *op, struct bytes delta);
};

/* `count` stamps one behind the other, for changes that keyspace_run will tell: the first of them.
 * Those that are not used before the next run or other change are void. */
uint64_t keyspace_stamps(struct keyspace *keyspace, uint64_t wall_ms, unsigned count);

/* Makes the changes in order. count <= KEYSPACE_OPS_MAX. ERR_NOMEM, ERR_LIMIT. */
MUST_USE enum err keyspace_run(struct keyspace *keyspace, struct keyspace_op *ops, size_t count,
                               const struct keyspace_teller *teller);

/* ---- streams --------------------------------------------------------------------------------- */

struct keyspace_result {
        uint64_t applied;   /* deltas that were new */
        uint64_t skipped;   /* deltas that were known */
        uint64_t conflicts; /* content killed by a concurrent write of another type */
        uint64_t position;  /* of the origin, after the call */
        bool gap;           /* `after` is ahead of that position: nothing was read */
        bool broken;        /* of a part: it does not follow the one before; begin anew */
};

/* Merges a batch of `origin`'s stream: all its deltas with clocks in (after, last]. Idempotent.
 * ERR_NONE also for a gap (see ret->gap). ERR_REFUSED: a clock is beyond the drift bound; what came
 * before it is applied, and ret->position says how far. ERR_MALFORMED, ERR_TRUNCATED: as before, up
 * to the bad delta. ERR_INVALID: origin is this region, out of range, or no member
 * (keyspace_members). *ret is always set. */
MUST_USE enum err keyspace_apply(struct keyspace *keyspace, const struct crdt_native *native,
                                 uint64_t wall_ms, region_id origin, uint64_t after, uint64_t last,
                                 struct bytes deltas, struct keyspace_result *ret);

/* The same while a log is loaded: no drift bound, no gap (a log may begin in the middle of a
 * stream, after the snapshot that it continues). */
MUST_USE enum err keyspace_apply_logged(struct keyspace *keyspace, const struct crdt_native *native,
                                        region_id origin, uint64_t after, uint64_t last,
                                        struct bytes deltas, struct keyspace_result *ret);

/* One delta of this region as keyspace_change.delta held it, from the log: sets metadata, ring,
 * position and the native value. Known ones are skipped. `before`: keyspace_change.before; with ptr
 * NULL the native is asked, which is right where it is as it was before the change: not where a
 * log holds the native change too, and has made it already. */
MUST_USE enum err keyspace_replay(struct keyspace *keyspace, const struct crdt_native *native,
                                  struct bytes delta, struct bytes before,
                                  struct keyspace_result *ret);

/* Calls `each` with the keys that the deltas of a batch change, in order: once for deltas of one
 * key that follow each other. Stops at the first that names none; what else is malformed it does
 * not see. A host uses it before keyspace_apply to let the store's own expiry strike first. */
void keyspace_names(struct bytes deltas, void (*each)(void *context, struct crdt_name name),
                    void *context);

struct keyspace_batch {
        struct bytes parts[2]; /* the stream, in order; borrowed until the next call */
        uint64_t last;         /* position after it; == after where nothing is new */
        uint64_t reach;        /* keyspace_relay: up to where nothing is missing; >= last */
        uint64_t count;
        bool gap; /* the ring begins later, or `after` is of an older life: state transfer is due */
};

/* Own deltas after a position: at least one where there is one, else about `bytes_max`. ERR_NONE
 * also for a gap. ERR_REFUSED: `after` is beyond the drift bound. Cost: O(log ring) to find. */
MUST_USE enum err keyspace_tail(struct keyspace *keyspace, uint64_t wall_ms, uint64_t after,
                                size_t bytes_max, struct keyspace_batch *ret);

/* The same of another origin's stream, as far as it was merged here: for those whom that origin
 * does not reach. ERR_INVALID: no origin, or our own. */
MUST_USE enum err keyspace_relay(const struct keyspace *keyspace, region_id origin, uint64_t after,
                                 size_t bytes_max, struct keyspace_batch *ret);

/* Advances an idle stream: every own delta with a clock <= the result is in the ring, and none
 * will come. At most every two seconds it also appends a delta that tells what was known here of
 * all streams two seconds before (for the collection of tombstones: by then the log is to be
 * synced, for what is told must not be lost); *ret->nothing is false then and the delta wants to
 * be logged. Returns the position. */
uint64_t keyspace_heartbeat(struct keyspace *keyspace, uint64_t wall_ms,
                            struct keyspace_change *ret);

/* The clock of the oldest own delta in the ring and of the newest; 0 where it is empty. */
uint64_t keyspace_ring_first(const struct keyspace *keyspace);
uint64_t keyspace_ring_last(const struct keyspace *keyspace);

/* What was stamped here with `clock` or later is in no log, and will not be: no reader gets it. 0:
 * readers get the state instead of what was stamped up to now. The host sees to the keys. */
void keyspace_unlogged(struct keyspace *keyspace, uint64_t clock);

/* The version vector, self included. Borrowed, changes with every call. */
const struct vector *keyspace_positions(const struct keyspace *keyspace);

/* Own position as it was recovered by load and log replay: fixed by the first local change or
 * heartbeat, raised by a state transfer that fills the lost tail. */
uint64_t keyspace_recovered(const struct keyspace *keyspace);

/* The first own stamp or position of this life; 0 before there is one. What lies between the
 * recovered position and this was ours in an older life, and is lost here if a peer holds it. */
uint64_t keyspace_first(const struct keyspace *keyspace);

/* ---- lives: a store that crashed may have lost the end of its stream (life.c) ---------------- */

/* A new life begins, after a load or the replay of a log, or where a replica takes over from
 * another store of this region: before the first local change, and always. The record of it is to
 * be logged. Without it, the first local change begins a life that nobody hears of. */
MUST_USE enum err keyspace_begin(struct keyspace *keyspace, uint64_t wall_ms,
                                 struct keyspace_change *ret);

/* Reserves the clock: call it once a turn or oftener, and log what comes (a short record, about
 * twice a second). It is not part of the stream. Then keep keyspace_reserved() durably, beside the
 * log, which loses its end: in the background, but at once where keyspace_clock_bare() says so, and
 * before anything is given out. */
MUST_USE enum err keyspace_reserve(struct keyspace *keyspace, uint64_t wall_ms,
                                   struct keyspace_change *ret);
uint64_t keyspace_reserved(const struct keyspace *keyspace);

/* True where stamps may have been given that are beyond what is durable: after a begin, a jump of
 * the wall clock, or a remote clock that is ahead of it. */
bool keyspace_clock_bare(const struct keyspace *keyspace, uint64_t durable);

/* What was kept, before keyspace_begin. Stamps are beyond it then, whatever the wall clock says. */
void keyspace_floor(struct keyspace *keyspace, uint64_t reserved);

/* What was seen: the positions, and the holes below them. Borrowed, changes with every call. */
const struct crdt_seen *keyspace_seen(const struct keyspace *keyspace);

/* Clocks of `origin` in (low, high) are not claimed. `mixed`: some of that may be here all the
 * same, by parts of a state transfer that did not come to its end: so one may lie above the
 * position, too. To tell somebody what is missing here, all of these are told. */
struct keyspace_hole {
        region_id origin;
        bool mixed;
        uint64_t low;
        uint64_t high;
};

enum {
        KEYSPACE_HOLES_MAX = CRDT_HOLES_MAX + CLOCK_REGIONS_MAX,
        KEYSPACE_HOLE_LEN = 18, /* encoded: u8 origin, u8 mixed, u64 low, u64 high */
};

/* Returns how many there are, at most KEYSPACE_HOLES_MAX. */
size_t keyspace_holes(const struct keyspace *keyspace, struct keyspace_hole *ret);

/* Appends them all, as the daemon reads them. */
void keyspace_holes_encode(const struct keyspace *keyspace, struct buffer *buffer);

/* Every other member has told, in this life, what it has seen of our stream, and what they had of
 * (low, high) has come back: the rest is nowhere. ERR_INVALID: no hole of ours is in there. */
MUST_USE enum err keyspace_close(struct keyspace *keyspace, uint64_t wall_ms, uint64_t low,
                                 uint64_t high, struct keyspace_change *ret);

/* ---- state transfer -------------------------------------------------------------------------- */

/* Appends the next part of the whole state to `buffer`, about `bytes_max` long; *cursor is 0 to
 * begin, and 0 again at the end. A key that stays is never missed, whatever happens to the table
 * between calls; it may come twice. A large key comes in slices of `slice_items` elements or 64 KiB
 * over several parts; one element, one string is never divided. A cursor from within a key goes on
 * in it once, and for the last few scans; after that, or later, it begins with the key again.
 * ERR_NOMEM. */
MUST_USE enum err keyspace_scan(struct keyspace *keyspace, const struct crdt_native *native,
                                uint64_t *cursor, size_t bytes_max, struct buffer *buffer);

/* How much of the table a scan has told that goes on with `cursor`: per mille; 0 is the end. */
unsigned keyspace_scan_permille(uint64_t cursor);

/* Merges one part. Parts that are malformed are refused up to the bad key: ERR_MALFORMED,
 * ERR_TRUNCATED, ERR_VERSION. ERR_REFUSED: a clock beyond the drift bound. ERR_INVALID: the sender
 * is this region, or no member. */
MUST_USE enum err keyspace_merge_state(struct keyspace *keyspace, const struct crdt_native *native,
                                       uint64_t wall_ms, struct bytes state,
                                       struct keyspace_result *ret);

/* Calls `each` with the key of everything in a part, as keyspace_names does for a batch. */
void keyspace_state_names(struct bytes state, void (*each)(void *context, struct crdt_name name),
                          void *context);

/* Where a transfer that broke off goes on: what the sender's next part is made from, in the table
 * of that name. Changes of others that come meanwhile are no harm. False: none is under way. It
 * is part of a log that is replayed from before the transfer's begin, and of no save. */
struct keyspace_resume {
        region_id origin; /* of the sender */
        uint64_t table;
        uint64_t cursor;
        uint64_t position; /* the sender's own, at the begin */
};
bool keyspace_resume(const struct keyspace *keyspace, struct keyspace_resume *ret);

/* The name of the table that a part is of; 0: it is damaged. */
uint64_t keyspace_state_table(struct bytes state);

/* The end of a transfer: takes over the sender's positions (those in its first part: `positions`
 * may be NULL, and is only checked not to be ahead of them), after killing what the sender had seen
 * at its begin and no longer has. ERR_REFUSED: not every part of one scan was merged in order since
 * its first; the transfer must be begun again. Between two parts of it batches may be applied: what
 * the sender has seen of a key that a part has told is not applied again. Cost: a walk over all
 * keys. */
MUST_USE enum err keyspace_adopt(struct keyspace *keyspace, const struct crdt_native *native,
                                 const struct vector *positions, struct keyspace_result *ret);

/* ---- one region on several servers (shards.h) ------------------------------------------- */

/* Moves the position of our stream to `clock` or beyond: every own delta with a clock <=
 * *ret_position is in the ring, and none will come. A host logs the position (keyspace_marked at
 * the replay) before it tells it. ERR_REFUSED: `clock` is beyond the drift bound. */
MUST_USE enum err keyspace_mark(struct keyspace *keyspace, uint64_t wall_ms, uint64_t clock,
                                uint64_t *ret_position);
void keyspace_marked(struct keyspace *keyspace, uint64_t position);

/* Takes these positions of the other origins for an empty keyspace, which has nothing to miss.
 * ERR_REFUSED: it holds keys, or a clock is beyond the drift bound. */
MUST_USE enum err keyspace_join(struct keyspace *keyspace, uint64_t wall_ms,
                                const struct vector *positions);

/* How far this shard is in the streams of the other regions, for another one to which keys go; and
 * there: where the giver was less far, so is this shard from now on, and what comes after that is
 * to be sent to it once more. A batch goes to all shards at once, so one may be ahead of another by
 * it, and what is in it for a key that moves would come to neither. *ret_less: a position has
 * changed. ERR_MALFORMED, ERR_TRUNCATED. */
void keyspace_seen_out(const struct keyspace *keyspace, struct buffer *buffer);
MUST_USE enum err keyspace_seen_in(struct keyspace *keyspace, struct bytes seen, bool *ret_less);

/* Appends what is remembered of one key, without its value, for another shard of this region.
 * ERR_NOT_FOUND: nothing is. ERR_NOMEM. */
MUST_USE enum err keyspace_move_out(struct keyspace *keyspace, struct crdt_name name,
                                    struct buffer *buffer);

/* Takes what keyspace_move_out made; the clock must have been observed before. `native` NULL: the
 * value is there already. ERR_MALFORMED, ERR_TRUNCATED, ERR_REFUSED (a clock that was not
 * observed), ERR_NOMEM. */
MUST_USE enum err keyspace_move_in(struct keyspace *keyspace, const struct crdt_native *native,
                                   struct bytes state);

/* Forgets a key without a word to others: another shard holds it. */
void keyspace_forget(struct keyspace *keyspace, struct crdt_name name);

/* The clock now, and taking another's into account (ERR_REFUSED: beyond the drift bound). */
uint64_t keyspace_clock(const struct keyspace *keyspace);
MUST_USE enum err keyspace_clock_observe(struct keyspace *keyspace, uint64_t wall_ms,
                                         uint64_t clock);

/* ---- tombstones ------------------------------------------------------------------------------ */

/* All regions that may write, this one included: tombstones wait for each of them. Before the first
 * call nothing is collected. A region that is left out is removed: nothing of it is taken any more
 * but by way of the others, and tombstones wait until all of these have the same of its stream.
 * ERR_INVALID: an id is out of range. */
MUST_USE enum err keyspace_members(struct keyspace *keyspace, const region_id *regions,
                                   size_t count);

/* `region` says that it holds our stream up to `position`: for keyspace_behind. (Tombstones wait
 * for what it tells in its own stream.) */
void keyspace_acked(struct keyspace *keyspace, region_id region, uint64_t position);

/* Looks at about `steps` buckets of the table for tombstones that every member has seen, and frees
 * them. Returns how many went. Call it now and then, e.g. ten times a second with 100. */
uint64_t keyspace_collect(struct keyspace *keyspace, size_t steps);

/* ---- keeping, looking ------------------------------------------------------------------------ */

/* Appends everything but the values: versioned, checksummed. With `ring`, peers can resume from it
 * after the restart. */
MUST_USE enum err keyspace_save(struct keyspace *keyspace, bool ring, struct buffer *buffer);

/* Fills a new keyspace. ERR_CORRUPT, ERR_VERSION, ERR_INVALID (another origin's), ERR_NOMEM; the
 * keyspace is then to be freed. */
MUST_USE enum err keyspace_load(struct keyspace *keyspace, struct bytes saved);

struct keyspace_key {
        struct crdt_name name; /* borrowed for the call */
        enum crdt_type type;   /* CRDT_NONE: a tombstone */
        uint64_t expire_at_ms;
        struct stamp stamp; /* the largest of its writes */
};

/* Looks up one key; false (and CRDT_NONE) where nothing is known about it. */
bool keyspace_find(const struct keyspace *keyspace, struct crdt_name name,
                   struct keyspace_key *ret);

/* Calls `each` for the keys of about `steps` buckets; cursor as for keyspace_scan. `each` must not
 * change the keyspace. After a load, use it to find keys whose expiry has passed and which the
 * store did not load, and report them by keyspace_local_expired. */
uint64_t keyspace_each(const struct keyspace *keyspace, uint64_t cursor, size_t steps,
                       void (*each)(void *context, const struct keyspace_key *key), void *context);

/* One number for all metadata that decides what is visible; independent of table order, of what was
 * collected and of the way it came. Cost: a walk over everything. */
uint64_t keyspace_digest(const struct keyspace *keyspace);

/* The same of one key; 0 where it is not visible. Cost: all its items, with the removed ones. */
uint64_t keyspace_key_digest(const struct keyspace *keyspace, struct crdt_name name);

/* What a region has not acknowledged of our stream (keyspace_acked). */
struct keyspace_behind {
        bool member;     /* false: it is none, or ourselves, and the rest is 0 */
        bool state;      /* the ring no longer reaches back to it: it needs the state */
        uint64_t acked;  /* position; 0: nothing, or not heard of since the start */
        uint64_t deltas; /* in the ring after that position */
        uint64_t bytes;
        uint64_t oldest; /* clock of the first of them; 0: there is none */
};

/* Cost: O(log ring). */
struct keyspace_behind keyspace_behind(const struct keyspace *keyspace, region_id region);

struct keyspace_stats {
        uint64_t keys;       /* visible */
        uint64_t tombstones; /* keys of which only metadata is left */
        uint64_t bytes;      /* of memory in use */
        uint64_t ring_bytes; /* of deltas in the ring */
        uint64_t ring_count;
        uint64_t local;     /* deltas made here since the start */
        uint64_t applied;   /* remote deltas merged */
        uint64_t skipped;   /* remote deltas that were known */
        uint64_t conflicts; /* content killed by a concurrent write of another type */
        uint64_t refused;   /* batches with a clock beyond the drift bound */
        uint64_t collected; /* tombstones freed */
};

struct keyspace_stats keyspace_stats(const struct keyspace *keyspace);

#endif
