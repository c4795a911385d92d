/* crdt_priv.h - what the files of crdt/ share. A change runs begin, joins of key-level parts,
 * settle (what died by them goes), joins of elements, end (expiry). */
#ifndef MERIDIAN_CRDT_CRDT_PRIV_H
#define MERIDIAN_CRDT_CRDT_PRIV_H

#include "crdt/crdt.h"

enum item_kind {
        ITEM_PLAIN,
        ITEM_TALLY, /* a field with increments */
};

/* The increments of a field. */
struct tally {
        struct crdt_counter counter;
        uint64_t touched; /* no earlier than any change of it was made */
        bool shown;       /* the field is visible */
        bool dirty;       /* not shown as it is now yet */
};

/* A field of a hash (one dot: its stamp, or none where only increments are known) or a member of a
 * set (a dot per origin). */
struct item {
        struct node node; /* kind: enum item_kind */
        union {
                struct crdt_dot *many; /* where there are two or more, by rising origin */
                struct tally *tally;
        };
        struct crdt_dot one; /* the dot, where there is one; always: count and mark */
        uint8_t key[];
};

static inline struct item *item_of(struct node *node)
{
        return (struct item *)node;
}

static inline struct crdt_dot *item_dots(struct item *item)
{
        return item->one.count > 1 ? item->many : &item->one;
}

static inline struct stamp dot_stamp(struct crdt_dot dot)
{
        return (struct stamp){dot.hlc, dot.origin};
}

static inline bool stamp_is(struct stamp stamp)
{
        return stamp.hlc != 0;
}

/* The largest `last` of the other types: everything of `type` at or below it is dead. */
struct stamp crdt_rival(const struct crdt *crdt, enum crdt_type type);

/* Whether that, or crdt_floor, has become larger by the change so far. */
bool rival_rose(const struct crdt_env *env, const struct crdt *crdt, enum crdt_type type);
bool floor_rose(const struct crdt_env *env, const struct crdt *crdt, enum crdt_type type);

/* True where a write with that stamp has been merged here (and may be gone again), and will not
 * come once more. */
bool env_seen(const struct crdt_env *env, struct stamp stamp);
/* The same of all writes of that origin up to it. */
bool env_seen_through(const struct crdt_env *env, struct stamp stamp);
/* A removal that came before the write with that stamp, which has come since, need not be told any
 * more: whoever may be receiving this state has that write. */
bool env_settled(const struct crdt_env *env, struct stamp stamp);

/* After a write beside which some of what was evicted may still count elsewhere. */
static inline void content_shows(struct crdt *crdt)
{
        crdt->partial = crdt->partial || crdt->evicted;
        crdt->evicted = false;
}

/* After a write that takes the place of all that was: of what is not known here, too, where it is
 * later than that. Increments may stay. */
static inline void content_written(struct crdt *crdt, struct stamp stamp)
{
        crdt->evicted = false;
        crdt->partial =
                crdt->partial && (stamp.hlc <= crdt->touched || crdt->counter.count_count > 0);
}

void change_begin(struct crdt_env *env, const struct crdt *crdt);
void change_settle(struct crdt_env *env, struct crdt *crdt);
void change_end(struct crdt_env *env, struct crdt *crdt);

/* Raises last[type]. `known`: the writer knew what other content it replaces. */
void last_raise(struct crdt_env *env, struct crdt *crdt, enum crdt_type type, struct stamp stamp,
                bool known);
void ttl_join(struct crdt *crdt, struct stamp stamp, uint64_t expire_at_ms);

/* conflict.c: tells env->conflict what a write of another region has lost, after it was applied. */
void conflict_find(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta);

/* items.c */
void items_free(const struct table_env *env, struct crdt_items **slot);
struct item *items_find(struct crdt_env *env, struct crdt_items *items, struct bytes name);
struct item *items_find_hashed(struct crdt_env *env, struct crdt_items *items, struct bytes name,
                               uint64_t hash);
struct item *items_add(struct crdt_env *env, struct crdt_items **slot, struct bytes name,
                       uint64_t hash);
void items_drop(struct crdt_env *env, struct crdt_items **slot, struct item *item);
void items_live(struct crdt_env *env, struct crdt_items *items, bool was, bool now);
uint64_t items_hash(const struct crdt_env *env, struct bytes name);
bool item_free(const struct table_env *env, struct item *item);
void dot_write(struct crdt_dot *dot, struct stamp stamp, bool removed);
bool item_visible(struct item *item);

/* A walk over all items that takes some away; where nothing visible is left, the native key goes in
 * one call. `drop` as for table_sweep. */
struct items_sweep {
        struct crdt_env *env;
        struct crdt *crdt;
        struct crdt_items *items;
        bool quiet; /* the native key has gone as a whole */
        const struct crdt_seen *sender;
        struct table_class class; /* the others are left alone */
};
/* By the state that is being merged, or a slice of the same round. */
static inline bool item_named(const struct items_sweep *sweep, const struct item *item)
{
        return item->one.mark == sweep->crdt->round;
}

void items_sweep_run(struct items_sweep *sweep, struct crdt_items **slot,
                     bool (*survives)(struct items_sweep *sweep, struct item *item),
                     bool (*drop)(void *context, struct node *node));
struct crdt_dot *item_dot(struct item *item, region_id origin);
void item_dot_put(struct crdt_env *env, struct item *item, struct stamp stamp, bool removed);
void member_put(struct crdt_env *env, struct crdt *crdt, struct bytes member, uint64_t hash,
                struct stamp dot);
void member_add(struct crdt_env *env, struct crdt *crdt, struct bytes member, struct stamp dot);
void member_remove(struct crdt_env *env, struct crdt *crdt, struct bytes member, struct stamp dot);
void members_sweep(struct crdt_env *env, struct crdt *crdt);
/* True where a set's or a list's element with that stamp has died with the key. */
bool dot_dead(const struct crdt *crdt, enum crdt_type type, struct stamp dot);
void bounds_join(struct crdt_env *env, struct crdt *crdt, struct stamp bound);
void bounds_prune(const struct crdt_env *env, struct crdt *crdt);

void members_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen);

/* What the merged state did not mention, of that class, though its sender had seen it goes. */
void members_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender,
                    struct table_class class);
/* The same for the dots of one member that the state does mention. */
void member_absent_dots(struct crdt_env *env, struct crdt *crdt, struct bytes member,
                        const struct vector *told, const struct crdt_seen *sender);

/* fields.c */
struct field_told {
        struct bytes name;
        struct bytes value; /* of the last HSET */
        struct stamp stamp; /* 0: only increments are known */
        bool removed;
        bool tallied; /* `counts` says something */
        bool saved;   /* in place of the value, `base` and `touched` */
        uint64_t touched;
        struct crdt_counter base;
        struct bytes counts;
};

/* The last write that is known is an HSET, and nothing has killed it. */
bool field_base_there(struct item *item);
void tally_free(const struct table_env *env, struct item *item);
static inline struct tally *tally_of(struct item *item)
{
        return item->node.kind == ITEM_TALLY ? item->tally : NULL;
}

/* An HSET or HDEL. */
void field_join(struct crdt_env *env, struct crdt *crdt, struct bytes field, struct stamp stamp,
                bool removed, struct bytes value);
/* The same for what is alive, with the hash of the name in its table; no field has increments. */
void field_put(struct crdt_env *env, struct crdt *crdt, struct bytes field, uint64_t hash,
               struct stamp stamp);

/* An HINCRBY. */
void field_count(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta);

/* What a change had observed of increments: (slice field, cuts) each. With `quiet`, the fields are
 * shown by the sweep that follows. */
void fields_cut(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta,
                bool quiet);

/* What died by key-level parts, or was cut. */
void fields_sweep(struct crdt_env *env, struct crdt *crdt);

/* What the flusher had seen goes. A field leaves its stamp behind: an older write that comes late
 * must lose as it would have without the flush. */
void fields_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen);

/* A field of a state; then, of what none mentioned, what its sender had seen. */
void field_merge(struct crdt_env *env, struct crdt *crdt, const struct field_told *told,
                 const struct crdt_seen *sender);
void fields_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender,
                   struct table_class class);

/* slice name, stamp, u8 1: removed, 2: increments follow; [VALUES and not removed: slice value]
 * [SAVED: the base, u64 clock of its last change] [counts]. */
void field_write_state(const struct crdt_env *env, struct item *item, enum crdt_state_kind kind,
                       struct buffer *buffer);
struct field_told field_read_state(struct cursor *cursor, enum crdt_state_kind kind,
                                   uint64_t hlc_max);

/* Whether an item is no more than a memory that nobody needs. */
bool field_collect(struct crdt_env *env, struct crdt *crdt, struct item *item, uint64_t stable);
uint64_t fields_digest(const struct crdt *crdt, bool all);

/* string.c */
bool base_alive(const struct crdt *crdt);
bool string_exists(const struct crdt *crdt);
bool string_counted(const struct crdt *crdt);
/* A newer base: `value` is borrowed until string_sync. */
void base_set(struct crdt_env *env, struct crdt *crdt, struct stamp stamp);
/* The base is about to be hidden by a sum: remember its value. */
void base_learn(struct crdt_env *env, struct crdt *crdt, struct bytes value);
void base_forget(const struct table_env *env, struct crdt *crdt);
void count_join(struct crdt_env *env, struct crdt *crdt, struct stamp stamp, uint8_t life,
                struct crdt_totals total);
void cut_join(struct crdt_env *env, struct crdt *crdt, const struct crdt_count *cut);
/* Makes the native string what the state says. `value` counts where the base is new. */
void string_sync(struct crdt_env *env, struct crdt *crdt, struct bytes value);

#endif
