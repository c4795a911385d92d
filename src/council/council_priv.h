/* council_priv.h - private to council/: the state behind council.h. */
#ifndef MERIDIAN_COUNCIL_COUNCIL_PRIV_H
#define MERIDIAN_COUNCIL_COUNCIL_PRIV_H

#include "council/council.h"

#define REGION_IDS    256
#define REPEATS_PAGE  1024 /* answers */
#define REPEATS_PAGES (COUNCIL_REPEATS_MAX / REPEATS_PAGE)
_Static_assert(COUNCIL_REPEATS_MAX % REPEATS_PAGE == 0, "pages are whole");

/* The answer to one command, small enough to be kept for all repeats. */
struct answer {
        uint64_t sequence; /* 0: an empty place */
        uint64_t epoch;
        uint64_t token;
        uint64_t ttl_ms;
        enum council_outcome_kind kind;
        enum lock_result_kind lock;
        enum err err;
        region_id region;
        uint8_t from;
        uint8_t to;
        enum kv_result_kind kv; /* the token is its revision */
        bool kv_succeeded;
};

/* What one node has asked since its last start. Sequence s is remembered at s % MAX, as long as
 * highest - s < MAX. */
struct asker {
        uint32_t node;
        uint64_t incarnation;
        uint64_t highest;
        uint64_t index;                      /* of its last command */
        struct answer *pages[REPEATS_PAGES]; /* made when they are needed */
};

struct repeats {
        struct heap *heap;
        struct asker askers[COUNCIL_NODES_MAX]; /* by rising node */
        size_t count;
};

enum repeat {
        REPEAT_NEW,   /* never seen: apply it */
        REPEAT_KNOWN, /* applied before: here is the answer */
        REPEAT_OLD,   /* applied or not, nobody knows: refuse it */
        REPEAT_NOMEM,
};

/* What to do about a command from `origin`. NEW makes a place for its answer. */
enum repeat repeats_look(struct repeats *repeats, const struct lock_origin *origin, uint64_t index,
                         struct answer *ret);
/* Keeps an answer, where its place still stands. */
void repeats_keep(struct repeats *repeats, const struct lock_origin *origin,
                  const struct answer *answer);
/* An asker of that node, made where there is none. NULL: memory ran out. */
struct asker *repeats_asker(struct repeats *repeats, uint32_t node);
/* The place of a sequence's answer, made where there is none. NULL: memory ran out. */
struct answer *repeats_place(struct repeats *repeats, struct asker *asker, uint64_t sequence);
/* The answer itself; NULL: not remembered. */
const struct answer *repeats_answer(const struct asker *asker, uint64_t sequence);
void repeats_fini(struct repeats *repeats);

struct region {
        bool spoken;
        uint8_t state;
        uint16_t row;
        uint64_t index;
        uint64_t wall_us;
        struct bytes text; /* owned */
};

struct audit {
        uint64_t index;
        uint64_t wall_us;
        uint16_t row;
        struct bytes actor; /* all owned */
        struct bytes what;
        struct bytes why;
};

struct council_capture {
        enum {
                CAPTURE_NONE,
                CAPTURE_VALUES,
                CAPTURE_LOCKS,
                CAPTURE_WHOLE,
        } stage;
        uint64_t index;
        struct buffer out;
        struct buffer locks; /* the head of the locks, until their turn */
};

struct council_restoring {
        enum {
                RESTORE_NONE,
                RESTORE_VALUES,
                RESTORE_LOCKS,
                RESTORE_WHOLE,
                RESTORE_SWEEP,
        } stage;
        enum err err;
        struct council *beside; /* owned: the new state; in SWEEP the old one */
        struct bytes locks;     /* borrowed */
};

struct council {
        struct heap *heap;
        struct council_config config;
        uint64_t applied;
        uint64_t epoch;
        struct bytes document; /* owned */
        uint64_t removed;      /* ids of regions that were in an earlier one, a bit for each */
        struct region regions[REGION_IDS];
        struct audit audit[COUNCIL_AUDIT_MAX]; /* a ring */
        size_t audit_first;
        size_t audit_count;
        struct lock_table *locks;
        struct kv *kv;
        uint8_t level;
        bool kv_used;               /* a transaction came by: a snapshot has it from then on */
        struct kv_result kv_repeat; /* the answer to a repeat */
        struct repeats repeats;
        struct council_outcome *outcomes;
        size_t outcome_count;
        size_t outcome_size;
        struct council_capture capture;
        struct council_restoring restoring;
        bool fatal; /* memory ran out in the middle of a change */
};

/* ---- snapshot.c ---- */
/* What a snapshot begins with: all but values and locks. */
void council_head_encode(const struct council *council, struct buffer *out);
/* Reads that into a new council, and tells where values and locks are. */
MUST_USE enum err council_head_decode(struct council *council, struct bytes state,
                                      struct bytes *ret_values, struct bytes *ret_locks);

/* ---- level.c ---- */
void council_level_apply(struct council *council, const struct council_command *command,
                         uint64_t index);

/* ---- values.c ---- */
/* Applies a transaction. Sets `fatal` when memory runs out. */
const struct kv_result *council_kv_apply(struct council *council,
                                         const struct council_command *command, uint64_t index);
/* Deletes the keys of sessions that the last lock command ended. */
void council_sessions_ended(struct council *council, uint64_t index);
/* Does the transaction only read? */
bool council_kv_reads(const struct council_command *command);

/* Adds a line; takes nothing over. False when memory runs out. */
MUST_USE bool council_audit_add(struct council *council, const struct council_audit *line);
/* Sets a region's row; copies `text`. False when memory runs out. */
MUST_USE bool council_region_set(struct council *council, const struct council_region *region);

#endif
