/* crdt_priv.h - what the files of crdt/ share. A change runs begin, joins of key-level parts,
 * settle (what died by them goes), joins of elements, end (expiry). */
#ifndef MERIDIAN_CRDT_CRDT_PRIV_H
#define MERIDIAN_CRDT_CRDT_PRIV_H

#include "crdt/crdt.h"

/* A field of a hash (one dot: its stamp) or a member of a set (a dot per origin). */
struct item {
        struct node node;
        struct crdt_dot *many; /* where there are two or more, by rising origin */
        struct crdt_dot one;   /* the dot, where there is one; always: count and mark */
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

/* True where a write with that stamp has been merged here (and may be gone again). */
bool env_seen(const struct crdt_env *env, struct stamp stamp);

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
bool item_visible(struct item *item);
struct crdt_dot *item_dot(struct item *item, region_id origin);
void field_join(struct crdt_env *env, struct crdt *crdt, struct bytes field, struct stamp stamp,
                bool removed, struct bytes value);
/* The same for what is alive, with the hash of the name in its table. */
void field_put(struct crdt_env *env, struct crdt *crdt, struct bytes field, uint64_t hash,
               struct stamp stamp);
void member_put(struct crdt_env *env, struct crdt *crdt, struct bytes member, uint64_t hash,
                struct stamp dot);
void member_add(struct crdt_env *env, struct crdt *crdt, struct bytes member, struct stamp dot);
void member_remove(struct crdt_env *env, struct crdt *crdt, struct bytes member, struct stamp dot);
void fields_sweep(struct crdt_env *env, struct crdt *crdt);
void members_sweep(struct crdt_env *env, struct crdt *crdt);
/* True where a set's or a list's element with that stamp has died with the key. */
bool dot_dead(const struct crdt *crdt, enum crdt_type type, struct stamp dot);
void bounds_join(struct crdt_env *env, struct crdt *crdt, struct stamp bound);
void bounds_prune(const struct crdt_env *env, struct crdt *crdt);

/* What the flusher had seen goes. A field leaves its stamp behind: an older write that comes late
 * must lose as it would have without the flush. */
void fields_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen);
void members_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen);

/* What the merged state did not mention though its sender had seen it goes; marks are cleared. */
void fields_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender);
void members_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender);
/* The same for the dots of one member that the state does mention. */
void member_absent_dots(struct crdt_env *env, struct crdt *crdt, struct bytes member,
                        const struct vector *told, const struct crdt_seen *sender);

/* string.c */
bool base_alive(const struct crdt *crdt);
bool string_exists(const struct crdt *crdt);
bool string_counted(const struct crdt *crdt);
/* A newer base: `value` is borrowed until string_sync. */
void base_set(struct crdt_env *env, struct crdt *crdt, struct stamp stamp);
/* The base is about to be hidden by a sum: remember its value. */
void base_learn(struct crdt_env *env, struct crdt *crdt, struct bytes value);
void base_forget(const struct table_env *env, struct crdt *crdt);
struct crdt_count *count_slot(struct crdt_env *env, struct crdt *crdt, region_id origin);
void count_join(struct crdt_env *env, struct crdt *crdt, struct stamp stamp,
                struct crdt_totals total);
void cut_join(struct crdt_env *env, struct crdt *crdt, region_id origin, uint64_t hlc,
              struct crdt_totals cut);
/* Makes the native string what the state says. `value` counts where the base is new. */
void string_sync(struct crdt_env *env, struct crdt *crdt, struct bytes value);

#endif
