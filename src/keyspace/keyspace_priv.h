/* keyspace_priv.h - what the files of keyspace/ share. */
#ifndef MERIDIAN_KEYSPACE_KEYSPACE_PRIV_H
#define MERIDIAN_KEYSPACE_KEYSPACE_PRIV_H

#include "crdt/pack.h"
#include "keyspace/keyspace.h"
#include "keyspace/ring.h"

/* How a key is kept: most are plain strings, which need no more than their stamp. */
enum entry_kind {
        ENTRY_STRING, /* only SET: stamp is the SET's, `more` its expiry time */
        ENTRY_DEAD,   /* SET, then deleted: stamp is the kill's, (more, more_origin) the SET's */
        ENTRY_PACK,   /* a counter, or few elements: the last write's stamp, `pack` says the rest */
        ENTRY_FULL,   /* `crdt` says all */
};

struct entry {
        struct node node; /* space: the database; kind: enum entry_kind */
        uint64_t hlc;
        union {
                uint64_t more;
                struct crdt *crdt;
                struct crdt_pack *pack;
        };
        region_id origin;
        region_id more_origin;
        uint8_t round; /* of the state transfer that mentioned it last */
        uint8_t key[];
};

/* A state transfer that is being received. */
struct transfer {
        struct crdt_seen sender; /* what it had seen at the begin */
        uint64_t table_id;
        uint64_t next; /* cursor of the part that must come */
        uint8_t round;
        uint8_t slice_round; /* of the key that comes in slices, as its metadata has it */
        uint64_t slice_hash; /* of its name */
        bool slice_open;     /* some of that key is still to come */
        bool slicing;        /* and every slice since its first has come in order */
        bool under_way;      /* every part since the first has come in order */
        bool whole;          /* the last one too */
};

enum {
        TRANSFER_VERSION = 3, /* of parts that hold whole keys alone */
        TRANSFER_SLICED = 4,
        TRANSFER_TO_AT = 18, /* offset of the second cursor */
        SCAN_PLACES = 8,
        SCRATCH_KEEP_BYTES = 1 << 20, /* of the buffers below, between two changes */
};

/* Where a scan is inside of a large key (scan.c). */
struct scan_key;
struct scan_place {
        uint32_t ticket; /* the cursor that goes on here names it; 0: free */
        uint64_t bucket; /* cursor by which the keys were met */
        uint64_t next;   /* and the one after it */
        struct scan_key *keys;
        struct crdt_slice slice; /* of the first of them */
        uint64_t used;
};

/* A database was emptied, and writes that the flusher had seen may still come. */
struct flush {
        uint32_t db;
        struct crdt_seen seen;
};

/* What was seen at a moment. */
struct telling {
        uint64_t wall_ms; /* 0: none was noted */
        struct vector seen;
        struct crdt_gone gone;
};

struct keyspace {
        struct heap *heap;
        struct keyspace_config config;
        struct table_env env;
        struct table table;
        struct hlc hlc;
        struct crdt_seen seen; /* positions, and what a crash took from our own stream */
        struct vector level; /* of several servers: what all of them have of the others, at least */
        struct vector known[CLOCK_REGIONS_MAX + 1]; /* positions of the others, as they told */
        uint64_t members;                           /* bit per region; 0: not told */
        struct ring ring;
        struct ring relays[CLOCK_REGIONS_MAX + 1]; /* of the others' deltas; data NULL: none */
        struct buffer delta;                       /* of the change being made */
        struct buffer text;
        struct buffer before;       /* keyspace_change.before */
        struct bytes replay_before; /* of the delta that is replayed */
        bool issued;                /* a stamp was given out since load */
        uint64_t first;             /* that one */
        uint64_t given;             /* the largest position that readers of this life may know */
        uint64_t recovered;
        struct vector
                hinted; /* content up to here may have come with parts of states, claimed or not */
        uint64_t reserved;      /* no stamp is beyond it, as the log knows; life.c */
        uint8_t life;           /* the number of this life: life.c */
        struct vector acked;    /* by region: what it says to have of our stream */
        struct telling telling; /* in a while, when a crash takes it back no more */
        struct vector told;     /* the last such */
        struct crdt_gone told_gone;
        uint64_t collected_to;                        /* tombstones up to here may be gone */
        struct crdt_gone gone[CLOCK_REGIONS_MAX + 1]; /* as the others told it last; members 0: one
                                                       * has not told, or not in what came here */
        struct transfer transfer;
        struct scan_place places[SCAN_PLACES];
        uint32_t scan_ticket;
        uint64_t scan_used;
        uint64_t scanned_ms;   /* when a part of our state was last asked for; 0: never */
        uint64_t scans_epoch;  /* counts the times when it no longer was to be asked for */
        struct vector settled; /* keyspace_known_to_all of each origin, of late */
        uint64_t collect_cursor;
        struct flush *flushes;
        unsigned flush_count;
        void (*found)(void *context, const struct crdt_conflict *conflict);
        void *found_context;
        bool quiet;            /* a log is loaded: conflicts were told before */
        uint64_t freed;        /* entries, ever: those that were found before may be gone */
        struct entry *lately;  /* of the last of many changes: the next is often of the same key */
        uint64_t lately_freed; /* how many were freed by then */
        struct crdt_env plain; /* of changes that need no more of it than memory */
        struct keyspace_stats stats; /* what is counted; the rest is filled in by keyspace_stats */
};

static inline struct entry *entry_of(struct node *node)
{
        return (struct entry *)node;
}

static inline struct stamp entry_stamp(const struct entry *entry)
{
        return (struct stamp){entry->hlc, entry->origin};
}

static inline struct crdt_name entry_name(const struct entry *entry)
{
        return (struct crdt_name){entry->node.space, node_key(&entry->node)};
}

struct entry *entry_find(struct keyspace *keyspace, struct crdt_name name);

/* Finds or makes it (ENTRY_STRING with stamp 0: nothing known). NULL: out of memory. */
struct entry *entry_get(struct keyspace *keyspace, struct crdt_name name);
struct entry *entry_get_hashed(struct keyspace *keyspace, struct crdt_name name, uint64_t hash);
void entry_remove(struct keyspace *keyspace, struct entry *entry);

/* The metadata of an entry, not to be changed: its own when full, else written to *room. To be
 * closed with the same room. NULL: out of memory. */
const struct crdt *entry_open(const struct keyspace *keyspace, const struct entry *entry,
                              struct crdt *room);
void entry_close(const struct keyspace *keyspace, const struct entry *entry, struct crdt *room);

/* Appends its state, see crdt_state_encode. */
MUST_USE enum err entry_encode(const struct keyspace *keyspace, const struct entry *entry,
                               const struct crdt_env *env, enum crdt_state_kind kind,
                               struct buffer *buffer);

enum crdt_type entry_type(const struct entry *entry);
uint64_t entry_expire_at(const struct entry *entry);

/* Makes it ENTRY_FULL; NULL: out of memory. */
struct crdt *entry_full(struct keyspace *keyspace, struct entry *entry);

/* The same where it is a pack, and nothing else. False: out of memory. */
static inline bool entry_unpack(struct keyspace *keyspace, struct entry *entry)
{
        return entry->node.kind != ENTRY_PACK || entry_full(keyspace, entry) != NULL;
}

/* All that is known is a SET, or that and a delete. */
static inline bool entry_short(const struct entry *entry)
{
        return entry->node.kind == ENTRY_STRING || entry->node.kind == ENTRY_DEAD;
}

/* Makes it that where nothing else matters to a SET or DEL. */
static inline bool entry_shorten(struct keyspace *keyspace, struct entry *entry)
{
        if (entry_short(entry))
                return true;
        if (entry->node.kind != ENTRY_PACK || !crdt_pack_is_string(entry->pack))
                return false;
        crdt_pack_free(&keyspace->env, entry->pack);
        entry->node.kind = ENTRY_STRING;
        entry->more = 0;
        entry->more_origin = 0;
        return true;
}

/* A stamp of a write to what is packed. */
static inline void entry_raise(struct entry *entry, struct stamp stamp)
{
        if (stamp_before(entry_stamp(entry), stamp)) {
                entry->hlc = stamp.hlc;
                entry->origin = stamp.origin;
        }
}

/* Makes it small again where it can be. */
void entry_pack(struct keyspace *keyspace, struct entry *entry);

/* Merges what a snapshot of this store or another shard of it says of a key (CRDT_STATE_SAVED):
 * nothing in it was seen before. ERR_NOMEM, or what the value refused. */
MUST_USE enum err entry_take(struct keyspace *keyspace, const struct crdt_native *native,
                             const struct crdt_state *state);

/* Keeps the counts of keys and tombstones: `was` is the type before a change. */
void entry_count(struct keyspace *keyspace, enum crdt_type was, enum crdt_type now);

struct crdt_env keyspace_env(const struct keyspace *keyspace, const struct crdt_native *native,
                             struct crdt_name name);

/* A new own stamp; the position moves with it. */
struct stamp keyspace_issue(struct keyspace *keyspace, uint64_t wall_ms);

/* Moves the position of the idle stream up to the clock; returns it. */
uint64_t keyspace_idle(struct keyspace *keyspace, uint64_t wall_ms);

/* Merges one decoded delta of any origin. */
MUST_USE enum err keyspace_merge(struct keyspace *keyspace, const struct crdt_native *native,
                                 const struct crdt_delta *delta);

/* life.c: below its position in (low, high) nothing of that origin is seen. Where there is no room
 * for one more, two neighbours become one, and `mixed` says up to where more is here than is
 * claimed. */
void hole_open(struct crdt_seen *seen, struct vector *mixed, region_id origin, uint64_t low,
               uint64_t high);

/* Takes over what another replica had seen, after its whole state was merged. */
void keyspace_learn(struct keyspace *keyspace, const struct crdt_seen *theirs);

/* Up to here everything of that origin is seen. */
uint64_t seen_solid(const struct crdt_seen *seen, region_id origin);

/* Up to here everything of that origin is seen, and none of it will come once more. */
uint64_t keyspace_solid(const struct keyspace *keyspace, region_id origin);

/* The life whose part of a counter an increment here goes to: 0 where nothing of ours may still
 * come back. */
uint8_t keyspace_life(const struct keyspace *keyspace);

/* A record of a life, in its place in the stream. */
void keyspace_lived(struct keyspace *keyspace, const struct crdt_delta *delta);

/* transfer.c: a part of the state that is being received has told the key with all that this change
 * did, and what became of it since. Applied again it would bring back what has died there; but what
 * it takes away goes here, too, for what brings that may come when the transfer is no more. */
bool transfer_told(struct keyspace *keyspace, const struct entry *entry,
                   const struct crdt_delta *delta);

/* scan.c */
void scan_places_free(struct keyspace *keyspace);

/* Whether somebody may be receiving our state: what it has told must go together with what it will
 * tell. */
bool scan_under_way(const struct keyspace *keyspace);

/* relay.c */
void relay_append(struct keyspace *keyspace, region_id origin, uint64_t hlc, struct bytes delta);
void relay_forget(struct keyspace *keyspace, region_id origin, uint64_t hlc);
void relay_fini(struct keyspace *keyspace);

/* Up to here every member has everything. */
uint64_t keyspace_stable(const struct keyspace *keyspace);

/* Up to here nothing that removes can come any more: that, or what it was before a region
 * joined. */
uint64_t keyspace_kills_known(const struct keyspace *keyspace);
/* The same of one stream; UINT64_MAX: it is not told who is a member. */
uint64_t keyspace_known_to_all(const struct keyspace *keyspace, region_id origin);

bool member_is(const struct keyspace *keyspace, unsigned region);

/* removed.c: what is told of the origins that are no members; whether all members are known to have
 * the same of that origin, which is none, and can get no more of it. */
void removed_tell(const struct keyspace *keyspace, struct crdt_gone *ret);
bool removed_settled(const struct keyspace *keyspace, region_id origin);

/* flush.c: others' flushes; what is remembered of them, applied again to a key after a change. */
MUST_USE enum err flush_merge(struct keyspace *keyspace, const struct crdt_native *native,
                              const struct crdt_delta *delta);
MUST_USE enum err flush_entry(struct keyspace *keyspace, const struct crdt_native *native,
                              struct entry *entry, const struct flush *flush);
MUST_USE enum err flushes_again(struct keyspace *keyspace, const struct crdt_native *native,
                                struct entry *entry);
void flushes_prune(struct keyspace *keyspace);
void flushes_free(struct keyspace *keyspace);

/* The same as bytes: checked and skipped; merged as news, from checked bytes; only kept. */
void flushes_encode(const struct keyspace *keyspace, struct buffer *buffer);
struct bytes flushes_check(struct cursor *cursor);
MUST_USE enum err flushes_merge(struct keyspace *keyspace, const struct crdt_native *native,
                                struct bytes flushes);
MUST_USE enum err flushes_load(struct keyspace *keyspace, struct cursor *cursor);

static inline bool name_fits(struct crdt_name name)
{
        return name.db <= CRDT_DB_MAX && name.key.len <= CRDT_NAME_LEN_MAX;
}
bool names_fit(struct crdt_name name, const struct bytes *names, size_t count);

/* local.c: a delta is begun in the scratch buffer, filled by the caller, then merged and published.
 * The flag says that the key had no content. */
uint8_t created_flag(const struct entry *entry);
struct buffer *delta_begin(struct keyspace *keyspace, struct stamp stamp, enum crdt_op op,
                           uint8_t flags, struct crdt_name name);
MUST_USE enum err delta_end(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
                            struct bytes text_before, struct keyspace_change *ret);
MUST_USE enum err change_nothing(struct keyspace_change *ret);
void change_publish(struct keyspace *keyspace, struct stamp stamp, struct keyspace_change *ret);
MUST_USE enum err entry_delete(struct keyspace *keyspace, uint64_t wall_ms, struct entry *entry,
                               struct keyspace_change *ret);
/* Their stamp is issued already. */
MUST_USE enum err delete_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                 struct keyspace_change *ret);
MUST_USE enum err expire_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                 uint64_t expire_at_ms, struct keyspace_change *ret);

/* True where there is something that a delete or an expiry changes; NULL: no. */
bool entry_holds(const struct entry *entry);
/* A delete of what is short; an expiry of that or of a pack, where it can be made in place. */
void entry_kill(struct keyspace *keyspace, struct entry *entry, struct stamp stamp);
bool entry_expire(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
                  uint64_t expire_at_ms);

/* True where the key is known as one whole value, of which a write of `op` is only a part; *ret
 * then says so. */
bool change_is_part(const struct entry *entry, enum crdt_op op, struct keyspace_change *ret);

/* local_pack.c: changes whose stamp is issued, in place. HSET, HDEL, SADD, ZADD and LIST_INSERT
 * with that body: the delta needs the flags. An increment: what it came to. */
bool pack_body(struct keyspace *keyspace, struct entry *entry, enum crdt_op op, struct stamp stamp,
               struct bytes body, uint8_t *ret_flags);
bool pack_count(struct keyspace *keyspace, struct entry *entry, struct stamp stamp, int64_t amount,
                struct crdt_count *ret, uint8_t *ret_flags);

/* The same of one member, or of one element at an end; published. */
bool pack_set_remove(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
                     struct bytes member, struct keyspace_change *ret);
bool pack_pop(struct keyspace *keyspace, struct entry *entry, struct stamp stamp, bool head,
              struct keyspace_change *ret);

/* local.c: changes whose stamp is issued already. `body` is the delta's, after the key. */
void entry_set(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
               uint64_t expire_at_ms);
MUST_USE enum err value_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                enum crdt_op op, struct bytes value, uint64_t expire_at_ms,
                                struct keyspace_change *ret);
/* The next totals of this origin, and the cut that belongs to them: `own` is its part, `counted`
 * whether that counts. A part that others may have forgotten, or that a write of another type has
 * killed, does not come back by a new increment. */
struct crdt_count count_next(const struct keyspace *keyspace, const struct crdt_count *own,
                             bool counted, struct stamp stamp, int64_t whole, double part);
MUST_USE enum err count_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                int64_t whole, double part, struct bytes text_before,
                                struct keyspace_change *ret);
/* local_set.c: an SREM of the members that a body names. */
MUST_USE enum err removal_publish(struct keyspace *keyspace, struct stamp stamp,
                                  struct entry *entry, struct bytes body,
                                  struct keyspace_change *ret);
/* hot.c: as keyspace_set_look and keyspace_zset_look; `hash` of the member, 0: not known. */
enum crdt_member entry_set_look(const struct keyspace *keyspace, const struct entry *entry,
                                struct bytes member, uint64_t hash, uint64_t shipped);
enum crdt_member entry_zset_look(const struct keyspace *keyspace, const struct entry *entry,
                                 struct bytes member, uint64_t hash, uint64_t shipped,
                                 double *ret_score);
/* batch_items.c: the entry that was found for the op, or the last one's where that is the same;
 * NULL: it is to be looked for. */
struct entry *op_entry(const struct keyspace *keyspace, const struct keyspace_op *op);
void op_lately(struct keyspace *keyspace, struct entry *entry);
/* The first item of its body. */
struct bytes op_first(const struct keyspace_op *op);
/* Plain writes of elements of what is kept whole, told through `plain` or *ret. A short one, of one
 * item: false where it is not so plain. */
bool short_item(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                const struct keyspace_op *op, const struct keyspace_teller *teller);
MUST_USE enum err run_items(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                            const struct keyspace_op *op, const struct keyspace_teller *teller,
                            struct keyspace_change *ret);
/* batch.c: puts a delta into the ring as it is. */
void op_publish(struct keyspace *keyspace, struct stamp stamp, const struct keyspace_op *op,
                uint8_t flags, const struct keyspace_teller *teller);
/* local_zset.c: a ZADD with that body. */
MUST_USE enum err scores_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                 struct bytes body, struct keyspace_change *ret);
bool count_fits(const struct crdt_count *own, int64_t amount);
uint64_t entry_list_length(const struct entry *entry);
MUST_USE enum err pops_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                               const struct keyspace_range *ranges, size_t count,
                               struct keyspace_change *ret);
MUST_USE enum err items_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                                enum crdt_op op, struct bytes body, struct keyspace_change *ret);

#endif
