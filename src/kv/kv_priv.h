/* kv_priv.h - private to kv/: the space behind kv.h.
 *
 *   root ---> entry                          by key: a treap, priorities from a keyed hash
 *   entry ---> newest <--> older <--> ...    versions of a key
 *   first <--> version <--> last             all versions by revision
 *   dead ---> version ---> dead_last         overwritten or deleted ones, in the order in which
 *                                            they became so; compaction takes them from the front
 *   bonds[] ---> bond ---> version <--> ...  current versions bound to a session, by revision
 *
 * A version is dead from the revision of the next one of its key on; one that deletes is dead from
 * its own. So compaction to revision c takes from the queue's front whatever is dead from c or
 * before, and a read at c or later finds what it needs. What leaves the queue is freed, or, where
 * its key keeps versions, stays in the key's list beyond history: `kept`.
 *
 * What a result borrows is freed at the next change only: garbage. */
#ifndef MERIDIAN_KV_KV_PRIV_H
#define MERIDIAN_KV_KV_PRIV_H

#include "base/cursor.h"
#include "base/turns.h"
#include "kv/kv.h"

enum {
        BOND_CHAINS = 1024,
        ID_CHAINS = 4096,
};

struct version {
        struct version *newer;
        struct version *older;
        struct version *next;
        struct version *before;
        struct version *dead_next;
        struct version *bound_next;
        struct version *bound_before;
        struct bond *bond; /* NULL: bound to no session, or not current */
        struct entry *entry;
        uint64_t revision;
        uint64_t created;
        uint64_t count; /* 0: it deletes */
        uint64_t session;
        uint64_t wall_us;
        uint64_t dead_at; /* 0: current */
        uint32_t ordinal; /* among those of its revision */
        bool keep;
        bool kept;
        bool saved;         /* its bytes wait for their turn in a capture */
        struct bytes value; /* behind the struct, as the actor */
        struct bytes actor;
};

struct entry {
        struct entry *parent;
        struct entry *left;
        struct entry *right;
        uint64_t priority;
        struct version *newest;
        struct version *oldest;
        size_t kept;
        struct bytes key; /* behind the struct */
};

struct bond {
        struct bond *chain;
        uint64_t session;
        size_t count;
        struct version *first;
        struct version *last;
};

/* An id that was seen, and its answer. */
struct seen {
        struct bytes id; /* owned */
        uint64_t revision;
        bool succeeded;
        uint32_t chain; /* index + 1 */
};

struct kv_capture {
        bool open;
        enum err err;
        uint64_t revision;    /* at the begin */
        struct version *next; /* of the walk */
        struct turns turns;   /* versions that went before they came by */
};

/* A state that is being read into an empty space. */
struct kv_restoring {
        struct cursor cursor;
        uint64_t compacted;
        uint64_t left; /* versions to come */
};

struct kv {
        struct heap *heap;
        uint64_t seed;
        uint64_t revision;
        uint64_t compacted;
        struct entry *root;
        struct version *first;
        struct version *last;
        struct version *dead;
        struct version *dead_last;
        size_t entry_count;
        size_t live_count;
        size_t version_count;
        size_t dead_count; /* in the queue */
        size_t dead_bytes;
        size_t bytes;         /* keys, live values, kept values */
        size_t encoded_bytes; /* of all versions in a snapshot */
        struct kv_capture capture;
        struct kv_restoring restoring;
        struct bond *bonds[BOND_CHAINS];
        struct seen *seen; /* a ring of KV_IDS_MAX; NULL: none yet */
        size_t seen_first;
        size_t seen_count;
        uint32_t *seen_heads;          /* ID_CHAINS: index + 1 */
        struct version *garbage;       /* by dead_next */
        struct entry *garbage_entries; /* by parent */
        bool fatal;
        uint64_t changing; /* the revision of the change being made; 0: none yet */
        struct kv_result result;
        struct kv_answer_step steps[KV_STEPS_MAX];
        struct kv_item *items;
        size_t item_count;
        size_t item_size;
        size_t item_bytes;
};

/* ---- tree.c ---- */
struct entry *kv_tree_find(const struct kv *kv, struct bytes key);
/* The first with a key at or after (`strictly`: after) this one. */
struct entry *kv_tree_from(const struct kv *kv, struct bytes key, bool strictly);
struct entry *kv_tree_next(const struct entry *entry);
struct entry *kv_tree_first(const struct kv *kv);
/* Takes an entry whose key is not there yet. */
void kv_tree_insert(struct kv *kv, struct entry *entry);
void kv_tree_remove(struct kv *kv, struct entry *entry);

/* ---- store.c ---- */
/* The version that was current at `revision`; NULL: none, or deleted. */
const struct version *kv_store_at(const struct entry *entry, uint64_t revision);
/* The current version, not one that deletes; NULL: none. */
const struct version *kv_store_live(const struct kv *kv, struct bytes key);
/* Adds a version at the end of all. `item->version` 0 deletes. NULL: memory ran out, and nothing
 * has changed. */
struct version *kv_store_add(struct kv *kv, const struct kv_item *item, bool keep);
/* Forgets what was dead at `revision` or before. */
void kv_store_compact(struct kv *kv, uint64_t revision);
/* Frees what the last results borrowed. */
void kv_store_garbage_free(struct kv *kv);
struct bond *kv_store_bond(const struct kv *kv, uint64_t session);
/* Frees all content, and forgets ids. */
void kv_store_clear(struct kv *kv);
void kv_store_item(const struct version *version, struct kv_item *ret);

/* ---- snapshot.c ---- */
/* All but the versions themselves, and one version. */
void kv_head_encode(const struct kv *kv, struct buffer *out);
void kv_version_encode(const struct version *version, struct buffer *out);

/* ---- capture.c ---- */
/* A version is about to go, or to be kept from now on. */
void kv_capture_save(struct kv *kv, struct version *version);
/* What kv_version_encode writes. */
size_t kv_version_size(const struct version *version);

/* ---- seen.c ---- */
const struct seen *kv_seen_find(const struct kv *kv, struct bytes id);
/* Remembers it; false: memory ran out. */
MUST_USE bool kv_seen_add(struct kv *kv, struct bytes id, uint64_t revision, bool succeeded);
void kv_seen_clear(struct kv *kv);

/* ---- judge.c ---- */
bool kv_conditions_fit(const struct kv_txn *txn);
bool kv_conditions_hold(const struct kv *kv, const struct kv_txn *txn);
/* KV_DONE, or why the branch cannot be carried out. `call` NULL: only reads are allowed. */
enum kv_result_kind kv_judge(const struct kv *kv, const struct kv_txn *txn,
                             const struct kv_call *call, bool otherwise);

#endif
