/* kv.h - small values that never diverge: a key-value space with versions as a replicated state
 * machine. Transactions in log order in, results out; the same transactions give the same space on
 * every replica.
 *
 * Revisions. A transaction that changes something uses up one revision: the log index of its
 * command, or one more than the last where that is larger. Revisions only grow, with gaps. Each
 * version of a key tells the revision that made it, the one that created the key, how many times
 * it was written since then, who wrote it and when.
 *
 * Transactions. Conditions on several keys, and the steps of one of two branches: `then` where all
 * conditions hold, else `otherwise`. All steps of the branch happen, or none and the result says
 * why. A key is written at most once in a transaction; reads see what was written before them.
 *
 * Compaction. What was overwritten or deleted is kept for reads of a past revision and for those
 * who follow changes, up to KV_HISTORY_MAX versions and KV_HISTORY_BYTES_MAX; then the oldest go.
 * Who asks for what is gone is told KV_COMPACTED, never something else. Of keys that were written
 * with KV_KEEP the last KV_KEPT_MAX versions stay for KV_HISTORY whatever is compacted: what can be
 * read by a person can be taken back.
 *
 * Sessions. A key may be bound to a session of the lock table: when that ends, the key is deleted.
 *
 * Repeats. A transaction with an id is applied once: the last KV_IDS_MAX ids are remembered with
 * what came of them, failed conditions included.
 *
 * Memory: about 250 bytes, the value and the writer's name for each version, and the key. Costs:
 * O(log n) a key, O(k) for k keys of a range; n is the number of keys. */
#ifndef MERIDIAN_KV_KV_H
#define MERIDIAN_KV_KV_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/heap.h"

#define KV_KEY_BYTES_MAX     512
#define KV_VALUE_BYTES_MAX   ((size_t)64 * 1024)
#define KV_NAME_BYTES_MAX    64 /* an id, an actor */
#define KV_OWNER_BYTES_MAX   256
#define KV_CONDITIONS_MAX    64
#define KV_STEPS_MAX         64 /* of each branch */
#define KV_TXN_BYTES_MAX     ((size_t)512 * 1024)
#define KV_CHANGES_MAX       1000 /* keys that one transaction deletes; keys of one session */
#define KV_ITEMS_MAX         1000 /* in one result; of changes KV_CHANGES_MAX more */
#define KV_ITEMS_BYTES_MAX   ((size_t)512 * 1024)
#define KV_KEYS_MAX          1000000
#define KV_BYTES_MAX         ((size_t)64 * 1024 * 1024) /* keys and values, without history */
#define KV_HISTORY_MAX       65536
#define KV_HISTORY_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define KV_KEPT_MAX          32
#define KV_IDS_MAX           4096

/* What a condition looks at. Of a key that does not exist all numbers are 0. */
enum kv_what {
        KV_VERSION = 1, /* 0: there is no such key */
        KV_REVISION,    /* of its last write */
        KV_CREATED,
        KV_SESSION,
        KV_VALUE, /* KV_IS and KV_IS_NOT only; no value of no key is any value */
        KV_WHAT_COUNT,
};

enum kv_relation {
        KV_IS = 1,
        KV_IS_NOT,
        KV_LESS,
        KV_GREATER,
        KV_RELATION_COUNT,
};

struct kv_condition {
        struct bytes key;
        enum kv_what what;
        enum kv_relation relation;
        uint64_t number;
        struct bytes value; /* KV_VALUE */
};

enum kv_op {
        KV_GET = 1, /* key revision */
        KV_PUT,     /* key value session flags (KEEP) */
        KV_DELETE,  /* key flags (PREFIX) */
        KV_RANGE,   /* key end limit revision flags */
        KV_HISTORY, /* key limit: its versions, newest first */
        KV_COMPACT, /* revision */
        KV_CHANGES, /* of results only: see kv_changes */
        KV_OP_COUNT,
};

enum {
        KV_PREFIX = 1,    /* DELETE: all keys that begin so. RANGE: the same, after `end` where that
                           * is not empty. A RANGE without it goes from `key` to before `end` */
        KV_KEYS_ONLY = 2, /* RANGE: without values */
        KV_COUNT_ONLY = 4,
        KV_KEEP = 8, /* PUT: see above */
        KV_FLAGS = 15,
};

struct kv_step {
        enum kv_op op;
        struct bytes key;
        struct bytes end;
        struct bytes value;
        uint64_t session;  /* 0: none */
        uint64_t limit;    /* 0: KV_ITEMS_MAX */
        uint64_t revision; /* as of then; 0: now */
        uint32_t flags;
};

/* One version of a key. Slices are borrowed. */
struct kv_item {
        struct bytes key;
        struct bytes value;
        struct bytes actor;
        uint64_t created;
        uint64_t revision;
        uint64_t version; /* 0: this revision deleted it */
        uint64_t session;
        uint64_t wall_us; /* of the writer's node, for people */
};

enum kv_result_kind {
        KV_DONE = 1,
        KV_INVALID,    /* an argument out of range, or a key written twice */
        KV_LIMIT,      /* too many keys or bytes */
        KV_COMPACTED,  /* the revision asked for is gone */
        KV_FUTURE,     /* or is not yet */
        KV_NO_SESSION, /* it has ended, or is another owner's */
        KV_RESULT_COUNT,
};

struct kv_answer_step {
        enum kv_op op;
        size_t first; /* of items */
        size_t count;
        uint64_t total; /* keys deleted, or found if there were no limit */
        bool more;      /* the limit cut it: go on after the last item */
};

/* All is borrowed until the next call on the space. */
struct kv_result {
        enum kv_result_kind kind;
        bool succeeded;    /* the conditions held */
        bool repeat;       /* its id was seen before: the answer of then, without what it read */
        uint64_t revision; /* of its change; of the space where it changed nothing */
        uint64_t compacted;
        const struct kv_answer_step *steps;
        size_t step_count;
        const struct kv_item *items;
        size_t item_count;
};

/* ---- transactions as bytes ---- */

/* A transaction in the making. After an error of a buffer, or more steps or conditions than
 * allowed, kv_build_end refuses. */
struct kv_build {
        struct bytes id;
        struct bytes owner; /* of the sessions that it names */
        struct buffer conditions;
        struct buffer branches[2]; /* 0: then, 1: otherwise */
        size_t condition_count;
        size_t step_counts[2];
};

/* Keeps `heap`. */
void kv_build_init(struct kv_build *build, struct heap *heap);
void kv_build_fini(struct kv_build *build);
void kv_build_condition(struct kv_build *build, const struct kv_condition *condition);
void kv_build_step(struct kv_build *build, bool otherwise, const struct kv_step *step);
/* Appends the transaction. ERR_LIMIT, ERR_NOMEM. */
MUST_USE enum err kv_build_end(const struct kv_build *build, struct buffer *out);

/* A decoded transaction; borrows from its bytes. */
struct kv_txn {
        struct bytes id;
        struct bytes owner;
        struct bytes conditions;
        struct bytes branches[2];
        size_t condition_count;
        size_t step_counts[2];
        bool writes; /* some step of it may change something */
};

/* Checks all but sizes and ranges, which kv_apply judges. ERR_MALFORMED, ERR_TRUNCATED,
 * ERR_VERSION. */
MUST_USE enum err kv_txn_decode(struct bytes data, struct kv_txn *ret);

/* Walks a decoded transaction: conditions, or steps of a branch. */
struct kv_walk {
        struct cursor cursor;
        size_t left;
};
struct kv_walk kv_walk_conditions(const struct kv_txn *txn);
struct kv_walk kv_walk_steps(const struct kv_txn *txn, bool otherwise);
bool kv_walk_condition(struct kv_walk *walk, struct kv_condition *ret);
bool kv_walk_step(struct kv_walk *walk, struct kv_step *ret);

/* Does every key that the transaction names satisfy `fits`? */
bool kv_txn_keys(const struct kv_txn *txn, bool (*fits)(void *context, struct bytes key),
                 void *context);

/* ---- results as bytes ---- */

void kv_result_encode(const struct kv_result *result, struct buffer *out);

/* An encoded result: `head` has everything but steps and items, which are walked. */
struct kv_reading {
        struct kv_result head;
        struct cursor cursor;
        size_t steps_left;
        size_t items_left;
};
/* Checks all of it. ERR_MALFORMED, ERR_TRUNCATED, ERR_VERSION. */
MUST_USE enum err kv_result_open(struct bytes data, struct kv_reading *ret);
/* The next step, false at the end; then its items. Items that were not read are skipped. */
bool kv_result_step(struct kv_reading *reading, struct kv_answer_step *ret);
bool kv_result_item(struct kv_reading *reading, struct kv_item *ret);

/* "done", "compacted", ...; static. */
const char *kv_result_name(enum kv_result_kind kind);

/* ---- the space ---- */

struct kv;

/* `seed` shapes the index only; replicas may differ. ERR_NOMEM. Keeps `heap`. */
MUST_USE enum err kv_new(struct heap *heap, uint64_t seed, struct kv **ret_kv);
void kv_free(struct kv *kv);

/* What a transaction is applied with. */
struct kv_call {
        uint64_t index; /* of the log entry */
        uint64_t wall_us;
        struct bytes actor; /* cut at KV_NAME_BYTES_MAX */
        /* Is there such a session of that owner? NULL: there are none. */
        bool (*session_alive)(void *context, uint64_t session, struct bytes owner);
        void *context;
};

/* Applies a transaction of the log. Never fails: what is refused is a result. When memory runs out
 * `*ret_fatal` is set: replicas may differ then, so this one must stop. */
const struct kv_result *kv_apply(struct kv *kv, const struct kv_call *call, struct bytes txn,
                                 bool *ret_fatal);

/* A session has ended: the keys bound to it are deleted, in one revision. */
void kv_session_ended(struct kv *kv, const struct kv_call *call, uint64_t session, bool *ret_fatal);

/* Carries out a transaction that only reads, as of what this replica has applied; KV_INVALID for
 * one that may write. `*ret_fatal` says that memory ran out: there is no result then, but nothing
 * has changed. */
const struct kv_result *kv_read(struct kv *kv, const struct kv_txn *txn, bool *ret_fatal);

/* The changes after revision `after` of keys that begin with `prefix`, in order, each once and
 * those of one revision together. A result with one step: `more` says that there are others, and
 * `revision` is up to where this tells (`after` of the next call). KV_COMPACTED: some are gone.
 * KV_FUTURE: `after` is ahead of the space. Cost: O(changes after it). */
const struct kv_result *kv_changes(struct kv *kv, struct bytes prefix, uint64_t after,
                                   bool *ret_fatal);

/* One key as it is now. False: there is none. */
bool kv_find(const struct kv *kv, struct bytes key, struct kv_item *ret);

/* The first key after `after` that begins with `prefix`, as it is now. False at the end. */
bool kv_next(const struct kv *kv, struct bytes prefix, struct bytes after, struct kv_item *ret);

/* The last revision used up, 0 at the beginning; and that up to which history is gone. */
uint64_t kv_revision(const struct kv *kv);
uint64_t kv_compacted(const struct kv *kv);
size_t kv_count(const struct kv *kv);
/* True where it was never used: nothing need be stored of it. */
bool kv_unused(const struct kv *kv);

/* The whole space, versioned; the same state gives the same bytes on every replica. */
void kv_encode(const struct kv *kv, struct buffer *out);

/* The same bytes as a slice (their length first), in steps, as of the begin, while transactions go
 * on: what is forgotten meanwhile is kept aside. One at a time. Begin costs O(KV_IDS_MAX); step
 * appends about `bytes` more; true: that was all, or memory ran out (out->err). End is due in any
 * case, also before all is told; it costs O(versions) only then. A decode ends it. */
void kv_capture_begin(struct kv *kv, struct buffer *out);
MUST_USE bool kv_capture_step(struct kv *kv, size_t bytes, struct buffer *out);
void kv_capture_end(struct kv *kv);

/* Replaces the content. On an error (ERR_VERSION, ERR_TRUNCATED, ERR_MALFORMED, ERR_NOMEM) nothing
 * has changed. */
MUST_USE enum err kv_decode(struct kv *kv, struct bytes data);

/* The same into a new space, in steps; `data` stays until the end. Each reads about `bytes`; true:
 * that was all, or it failed, and end is due: after an error (as above), and before the end, the
 * space can only be freed. End costs O(versions beyond history that are kept). */
void kv_restore_begin(struct kv *kv, struct bytes data);
MUST_USE bool kv_restore_step(struct kv *kv, size_t bytes);
MUST_USE enum err kv_restore_end(struct kv *kv);

/* Frees content of a space that is only to be freed, about `bytes` of it; true: what is left costs
 * little. */
MUST_USE bool kv_sweep(struct kv *kv, size_t bytes);

/* Checks every invariant; aborts on a broken one. For tests and the simulator. Cost: O(n). */
void kv_check(const struct kv *kv);

#endif
