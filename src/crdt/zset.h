/* zset.h - sorted sets. A member has dots, as a member of a set has: one for each origin at most,
 * each with the score that its ZADD gave; and increments, which are running totals of each origin
 * (counter.h), its tally. It is there while a dot lives or an increment counts.
 *
 *   score   that of the live dot with the largest stamp, then what each origin has added, in the
 *           order of their numbers and rounded once: everywhere the same, to the last bit.
 *   ZADD    a new dot; the dots and increments of the member that it had seen go.
 *   ZREM    what it had seen of the member goes, and nothing else.
 *   ZINCRBY adds to its origin's total; it makes no dot. So those of two regions add up, also where
 *           both are the first; one that a ZREM had not seen leaves a member of that amount.
 *   DEL     dots that it had seen go by `bounds`, increments by its `scores`. Neither dies by
 *           `killed`. A write of another type kills both by its stamp.
 *
 * Private to crdt/. Nothing fails but memory: env->err is then set and the member left out. */
#ifndef MERIDIAN_CRDT_ZSET_H
#define MERIDIAN_CRDT_ZSET_H

#include "crdt/crdt_priv.h"

struct zset_dot {
        uint64_t hlc;
        double score; /* 0 where it is removed */
        region_id origin;
        bool removed;
        uint8_t count; /* of a member's first: how many there are */
        uint8_t mark;  /* of a member's first: the round of the merge that named it last */
};

/* What few members have. */
struct zset_more {
        struct zset_dot *dots; /* where there are two or more, by rising origin */
        struct crdt_counter counter;
        uint64_t touched; /* no earlier than any change of the increments was made */
        double score;     /* as it is shown, where there are increments */
        bool shown;
        bool tallied; /* increments, or cuts of them, are known */
};

struct zset_member {
        struct node node;
        struct zset_more *more; /* NULL: a dot at most */
        struct zset_dot one;
        uint8_t key[];
};

struct crdt_zset {
        struct table table;
        size_t live;
        size_t tallies; /* members with increments that are remembered */
};

/* A member of a state. */
struct zset_told {
        struct bytes name;
        struct zset_dot dots[CLOCK_REGIONS_MAX];
        unsigned dot_count;
        struct bytes counts; /* encoded; len 0: none */
        uint64_t touched;
};

void zset_free(const struct table_env *env, struct crdt_zset **slot);

/* Makes a member that is not there yet, with one dot. */
void zset_load(struct crdt_env *env, struct crdt *crdt, struct bytes name, struct stamp dot,
               double score);

/* A ZADD; what it had seen comes by zset_observed. */
void zset_add(struct crdt_env *env, struct crdt *crdt, struct bytes name, double score,
              struct stamp dot);
void zset_count(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta);

/* What a change that was made at `hlc` had seen, and takes away: (slice member, dots, cuts) each.
 * And the increments alone: (slice member, cuts) each, shown by the sweep that follows. */
void zset_observed(struct crdt_env *env, struct crdt *crdt, struct bytes elements, uint64_t hlc);
void zset_cut(struct crdt_env *env, struct crdt *crdt, struct bytes scores, uint64_t hlc);

/* What died by key-level parts, or was cut. What the flusher had seen. */
void zset_sweep(struct crdt_env *env, struct crdt *crdt);
void zset_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen);

/* Of what a state did not mention, what its sender had seen. */
void zset_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender,
                 struct table_class class);

/* Forgets what nobody needs; returns how many members went. */
uint64_t zset_collect(struct crdt_env *env, struct crdt *crdt, uint64_t stable);

static inline struct zset_member *zset_member_of(struct node *node)
{
        return (struct zset_member *)node;
}

static inline struct zset_dot *zset_dots(struct zset_member *member)
{
        return member->more != NULL && member->one.count > 1 ? member->more->dots : &member->one;
}

static inline struct stamp zset_stamp(const struct zset_dot *dot)
{
        return (struct stamp){dot->hlc, dot->origin};
}

static inline bool zset_tallied(const struct zset_member *member)
{
        return member->more != NULL && member->more->tallied;
}

/* Whether the member shows, and with which score. */
bool zset_score(const struct crdt *crdt, struct zset_member *member, double *ret);
struct zset_member *zset_look(const struct table_env *env, const struct crdt *crdt,
                              struct bytes name);

/* ---- between the files of zset */

struct zset_shown {
        bool there;
        double score;
};

/* What the native was last told of a member; and telling it what there is now. */
struct zset_shown zset_shown(struct zset_member *member);
void zset_show(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
               struct zset_shown was);
/* The same; then frees the member where nothing of it is left, and the set with its last. */
void zset_changed(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                  struct zset_shown was);

struct zset_member *zset_get(struct crdt_env *env, struct crdt *crdt, struct bytes name);
bool zset_member_empty(const struct zset_member *member);
void zset_member_free(const struct table_env *env, struct zset_member *member);
struct zset_dot *zset_dot(struct zset_member *member, region_id origin);
void zset_dot_put(struct crdt_env *env, struct zset_member *member, struct stamp stamp,
                  double score, bool removed);
void zset_dot_drop(struct crdt_env *env, struct zset_member *member, unsigned index);
/* The same, but remembered where an earlier one of its origin, of which it took the place, may
 * still come. */
void zset_dot_retire(struct crdt_env *env, struct zset_member *member, unsigned index);
void zset_dot_remove(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                     struct stamp dot);

/* The increments of a member, and the part of an origin in them: made where there are none. */
struct zset_more *zset_tally(struct crdt_env *env, struct crdt *crdt, struct zset_member *member);
struct crdt_count *zset_slot(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                             region_id origin, uint8_t life);
void zset_touch(struct zset_member *member, uint64_t hlc);
void zset_tally_drop(struct crdt_env *env, struct crdt *crdt, struct zset_member *member);
bool zset_same_score(double a, double b);

/* ---- zset_code.c: as bytes
 *
 * In a state: varint count, then slice name, u8 2: increments follow, varint dots, (u8 origin
 * rising, u64 clock, u8 1: removed, else u64 bits of the score) each, [increments: u64 clock of the
 * last change, counts as in counter.h] each. */
void zset_state_write(const struct crdt *crdt, struct buffer *buffer);
void zset_member_write(struct zset_member *member, struct buffer *buffer);
struct bytes zset_state_check(struct cursor *cursor, uint64_t hlc_max);
/* Merges what is told; what is not, zset_absent judges. */
void zset_state_merge(struct crdt_env *env, struct crdt *crdt, struct bytes members,
                      const struct crdt_seen *sender);
uint64_t zset_digest(const struct crdt *crdt, bool all);

/* One element of what was seen, or of the increments alone. */
void zset_observed_check(struct cursor *cursor, uint64_t hlc_max);
void zset_cut_check(struct cursor *cursor, uint64_t hlc_max);
void zset_bounds(const struct crdt_zset *zset, struct vector *bounds);

#endif
