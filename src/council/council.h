/* council.h - the replicated state of a Raft group: what its log adds up to. The global group holds
 * the topology document, the state of each region and the global locks and values; a regional group
 * holds the regional locks and values. Both keep an audit of their last changes.
 *
 * council_apply is given each committed command in log order, and says who is to be told what. As
 * every replica applies every command, the node that a client asked answers by itself when the
 * command comes by: outcomes carry the origin of their request.
 *
 * A command is applied once: it is known by (node, incarnation, sequence) of its origin, and a
 * repeat gets the first answer again. Remembered are the last COUNCIL_REPEATS_MAX sequences of each
 * node's latest incarnation; what is older is refused as a repeat (ERR_EXISTS), never applied
 * again. So a node may have at most that many requests open, and numbers them in order.
 *
 * Pure and deterministic: time comes from the commands. Memory comes from the heap given; when it
 * runs out, council_apply says so and this replica must stop. */
#ifndef MERIDIAN_COUNCIL_COUNCIL_H
#define MERIDIAN_COUNCIL_COUNCIL_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "kv/kv.h"
#include "lock/lock.h"
#include "world/world.h"

#define COUNCIL_REPEATS_MAX        16384
#define COUNCIL_NODES_MAX          256
#define COUNCIL_AUDIT_MAX          256
#define COUNCIL_TEXT_BYTES_MAX     512
#define COUNCIL_NAME_BYTES_MAX     64
#define COUNCIL_TOPOLOGY_BYTES_MAX ((size_t)512 * 1024)

enum council_command_kind {
        COUNCIL_NOOP = 1,
        COUNCIL_SET_TOPOLOGY,     /* where `epoch_expected` is the current epoch */
        COUNCIL_SET_REGION_STATE, /* where the region's state is `from` */
        COUNCIL_LOCK,             /* any lock command, LOCK_TIME included */
        COUNCIL_KV,               /* a transaction */
        COUNCIL_SET_LEVEL,        /* all replicas know the commands up to that level */
        COUNCIL_COMMAND_COUNT,
};

/* A command as proposed. Slices are borrowed. */
struct council_command {
        enum council_command_kind kind;
        struct lock_origin origin;
        uint64_t wall_us;   /* Unix time at the proposer, for the audit only */
        struct bytes actor; /* who: "operator", a node's name; <= COUNCIL_NAME_BYTES_MAX */
        union {
                struct {
                        uint64_t epoch_expected; /* 0: there is none yet */
                        struct bytes document;   /* opaque here; checked by the proposer */
                        uint64_t regions; /* in the document, a bit for each id; 0: not told */
                        uint64_t removed; /* in the one before, and not in this one */
                } topology;
                struct {
                        region_id region;
                        uint8_t from; /* enum topology_region_state */
                        uint8_t to;
                        uint16_t row;          /* of the failover decision table; 0: by hand */
                        struct bytes evidence; /* a sentence; <= COUNCIL_TEXT_BYTES_MAX */
                } region;
                struct lock_command lock; /* its `origin` is taken from the command's */
                struct bytes kv;          /* made by kv_build_end; <= KV_TXN_BYTES_MAX */
                uint8_t level;            /* 1 .. 255 */
        };
};

/* Levels. Each command belongs to the level of the first build that knew it; COUNCIL_LEVEL is this
 * build's. A group begins at level 1, and its leader raises it (COUNCIL_SET_LEVEL) when every node
 * of the group has said that it knows more. Above the group's level nothing is proposed, so nodes
 * of two builds serve together while they are changed one by one; after the rise an older build
 * cannot take part any more: council_apply and council_restore say ERR_VERSION there.
 *
 *   2  values (COUNCIL_KV)
 *   3  several locks at once (LOCK_ACQUIRE_ALL)
 *   4  deadlocks through semaphores (LOCK_DETECT_SLOTS) */
#define COUNCIL_LEVEL       4
#define COUNCIL_LEVEL_SETS  3
#define COUNCIL_LEVEL_SLOTS 4

unsigned council_command_level(const struct council_command *command);

/* What one request is to be told, or (origin all zero) what happened for everybody. */
enum council_outcome_kind {
        COUNCIL_DONE = 1,       /* topology or region state changed: `epoch` is the new one */
        COUNCIL_REFUSED,        /* not applied: `err` says why; `epoch`, `from` what is there.
                                 * ERR_BUSY: it changed meanwhile; ERR_REFUSED: no such move, or
                                 * the document uses the id `region` of one that was removed;
                                 * ERR_EXISTS: a repeat too old to be known */
        COUNCIL_LOCK_RESULT,    /* lock */
        COUNCIL_TOPOLOGY_EVENT, /* the document changed (every replica; read it anew) */
        COUNCIL_REGION_EVENT,   /* a region's state changed: region, from, to, text */
        COUNCIL_KV_RESULT,      /* kv */
};

struct council_outcome {
        enum council_outcome_kind kind;
        struct lock_origin origin;
        bool repeat; /* the answer to a command applied before */
        enum err err;
        uint64_t epoch;
        region_id region;
        uint8_t from;
        uint8_t to;
        uint16_t row;
        struct bytes text;
        struct lock_result lock;    /* on a repeat: kind, token and ttl_ms only */
        const struct kv_result *kv; /* on a repeat: kind, revision and whether it succeeded */
};

struct council_region {
        region_id region;
        uint8_t state;
        uint16_t row;      /* that caused it */
        uint64_t index;    /* log index of the change */
        uint64_t wall_us;  /* when */
        struct bytes text; /* why; borrowed until the next apply or restore */
};

/* One line of the audit, oldest first. Slices are borrowed until the next apply or restore. */
struct council_audit {
        uint64_t index;
        uint64_t wall_us;
        struct bytes actor;
        struct bytes what; /* "region 2 active -> down" */
        uint16_t row;
        struct bytes why;
};

struct council;

struct council_config {
        uint64_t seed;                /* of hash tables; replicas may differ */
        uint8_t region_state_initial; /* of a region not yet spoken of */
        uint8_t region_state_count;   /* states are 0 .. count - 1; 0: any */
        uint8_t level_max;            /* speak as a build of that level; 0: COUNCIL_LEVEL */
        /* May a region go from one state to another? Given by topology/; NULL: any. */
        bool (*may_move)(uint8_t from, uint8_t to);
        bool keys_stay; /* planted: a session's end deletes no keys */
};

/* Keeps `heap`. ERR_NOMEM. */
MUST_USE enum err council_new(struct heap *heap, const struct council_config *config,
                              struct council **ret_council);
void council_free(struct council *council);

/* Applies a committed command (bytes made by council_command_encode). Outcomes are borrowed until
 * the next call. Bytes that are no command are skipped alike on all replicas (ret_count 0). Returns
 * ERR_NONE, or ERR_NOMEM, or ERR_VERSION (a command of a later build): this replica must stop, it
 * may differ now. */
MUST_USE enum err council_apply(struct council *council, uint64_t index, uint64_t term,
                                struct bytes command, const struct council_outcome **ret_outcomes,
                                size_t *ret_count);

/* What the state holds. Slices are borrowed until the next apply or restore. */
uint64_t council_applied_index(const struct council *council);
struct bytes council_topology(const struct council *council, uint64_t *ret_epoch);
/* The ids of regions that were removed, a bit for each: no document may name them again. */
uint64_t council_removed(const struct council *council);
/* The least of some ids, given as bits; 0: none. */
region_id council_region_least(uint64_t regions);
struct council_region council_region(const struct council *council, region_id region);
/* The i-th region ever spoken of, by rising id. False at the end. */
bool council_region_at(const struct council *council, size_t i, struct council_region *ret);
size_t council_audit_count(const struct council *council);
struct council_audit council_audit_at(const struct council *council, size_t i);
/* The group's level, and what a council of that configuration knows. */
unsigned council_level(const struct council *council);
unsigned council_level_known(const struct council_config *config);
const struct lock_table *council_locks(const struct council *council);
const struct kv *council_kv(const struct council *council);

/* Reads as of what this replica has applied: see kv_read and kv_changes. Borrowed until the next
 * call of these, apply or restore. NULL: memory ran out; nothing has changed. */
const struct kv_result *council_kv_read(struct council *council, const struct kv_txn *txn);
const struct kv_result *council_kv_changes(struct council *council, struct bytes prefix,
                                           uint64_t after);

/* The whole state as bytes, the same on every replica at the same index; versioned. */
void council_snapshot(const struct council *council, struct buffer *out);

/* The same bytes in steps, as of the begin, while commands go on. One at a time, none while
 * council_capturing. Step makes about `bytes` more; true: that is all, or memory ran out, and end
 * is due: it gives the bytes (free with buffer_fini) and the index as of which they are, or says
 * ERR_NOMEM. A restore ends a capture, and gives nothing. Cost of begin: O(sessions, and answers
 * that are remembered for repeats); of drop: O(state), where it is not whole. */
void council_capture_begin(struct council *council);
MUST_USE bool council_capture_step(struct council *council, size_t bytes);
bool council_capturing(const struct council *council);
MUST_USE enum err council_capture_end(struct council *council, struct buffer *ret,
                                      uint64_t *ret_index);
void council_capture_drop(struct council *council);

/* Replaces the state. On an error (ERR_VERSION, ERR_TRUNCATED, ERR_MALFORMED,
 * ERR_NOMEM) nothing has changed. */
MUST_USE enum err council_restore(struct council *council, struct bytes state);

/* The same in steps, while the old state is read, and may go on to change: begin (errors as above;
 * one that is under way ends), steps of about `bytes` of `state`, which stays until the end; true:
 * that was all, or it failed. End takes it over, or says why not: nothing has changed then. The old
 * state is then freed in steps as well, by sweep, as long as council_sweeping. Cost of begin:
 * O(answers remembered for repeats); of drop, and of an end that fails: O(what was read). */
MUST_USE enum err council_restore_begin(struct council *council, struct bytes state);
MUST_USE bool council_restore_step(struct council *council, size_t bytes);
MUST_USE enum err council_restore_end(struct council *council);
bool council_restoring(const struct council *council);
void council_restore_drop(struct council *council);
void council_sweep(struct council *council, size_t bytes);
bool council_sweeping(const struct council *council);

/* A hash of the whole state: equal on replicas at the same index. Cost: as council_snapshot.
 * ERR_NOMEM gives 0. */
uint64_t council_digest(const struct council *council);

/* Commands as bytes. Decoding borrows from `data` and is complete: lengths, ranges, kinds.
 * ERR_MALFORMED, ERR_TRUNCATED, ERR_VERSION. */
void council_command_encode(const struct council_command *command, struct buffer *out);
MUST_USE enum err council_command_decode(struct bytes data, struct council_command *ret);

/* Which group decides about a lock or a value. */
enum council_place {
        COUNCIL_PLACE_GLOBAL,    /* "global:..." */
        COUNCIL_PLACE_HERE,      /* "<own region>:..." */
        COUNCIL_PLACE_ELSEWHERE, /* another region's: forward it to a node there */
        COUNCIL_PLACE_INVALID,   /* no "<region>:" or "global:" in front */
};

/* Looks at the part before the first ':', at most COUNCIL_NAME_BYTES_MAX bytes of a-z
 * 0-9 '-'. Whether the region exists is for the caller to check. `ret_region` (may be
 * NULL) borrows from `key`. */
enum council_place council_group_of(struct bytes key, struct bytes own_region,
                                    struct bytes *ret_region);

/* The sentence for a key that is COUNCIL_PLACE_INVALID; static. */
const char *council_place_help(void);

#endif
