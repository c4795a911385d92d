/* list.h - the order of a list, private to crdt/.
 *
 * An element is named by the stamp of its insertion and its index in it, and stands at a *point*
 * that never changes: a path of components (position, stamp, index), compared component by
 * component; an element stands before all whose path begins with its own. RPUSH takes the position
 * +clock, LPUSH -clock: after (before) everything that was known, and by time among what is
 * concurrent. The elements of one command differ in the index alone. Only what was inserted between
 * two neighbours has a position of its own and a prefix, kept beside its stamp in `places`.
 *
 * So the order holds no more than names: `span`s of 16 bytes, each a run of elements of one
 * insertion, in chunks as an array has them. Cost: O(log n) to find a point, O(1) at both ends; the
 * index of what is far from both ends takes a step for each chunk. */
#ifndef MERIDIAN_CRDT_LIST_H
#define MERIDIAN_CRDT_LIST_H

#include "crdt/crdt_priv.h"

enum list_kind {
        LIST_TAIL = CRDT_LIST_TAIL,       /* position +clock */
        LIST_HEAD = CRDT_LIST_HEAD,       /* position -clock */
        LIST_BETWEEN = CRDT_LIST_BETWEEN, /* a place of its own */
        LIST_AT = CRDT_LIST_AT, /* in a delta: no insertion, but a new value of an element */
};

enum {
        LIST_COMPONENT_LEN = 21, /* i64 position with its sign turned, u64 clock, u8 origin, u32
                                  * index, all big-endian: bytes compare as numbers do */
        LIST_DEPTH_MAX = 64,     /* components of a prefix */
        LIST_INDEX_BITS = 28,
        LIST_COUNT_MAX = CRDT_LIST_COUNT_MAX, /* elements of one insertion */
};

/* Elements first .. first + count - 1 of one insertion. */
struct list_run {
        struct stamp stamp;
        enum list_kind kind;
        uint32_t first;
        uint32_t count;
};

/* The same in 16 bytes. */
struct list_span {
        uint64_t hlc;
        uint64_t rest; /* origin - 1: 6 bits, kind: 2, first: 28, count: 28 */
};

struct list_place {
        int64_t position;
        struct bytes prefix; /* whole components */
};

struct list_point {
        struct list_place place;
        struct stamp stamp;
        uint32_t index;
};

struct list_chunk {
        uint64_t length; /* elements */
        uint16_t begin;  /* the first span in use */
        uint16_t count;
        uint16_t size;
        struct list_span spans[];
};

/* Where an element is, or what is before it is put. offset 0 of span `count` of the last chunk, or
 * of a chunk that is not there, is the end. */
struct list_at {
        size_t chunk;
        unsigned span;
        uint32_t offset;
};

/* Names by stamp and index, as disjoint spans in chunks: a name is added or found in steps that
 * grow with the logarithm of the spans, in whatever order they come. Zeroed is empty. */
struct list_gone_chunk;
struct list_gone {
        struct list_gone_chunk **chunks;
        size_t chunk_count;
        size_t chunk_size;
        size_t count; /* spans */
};

/* Zeroed is empty. */
struct crdt_list {
        struct list_chunk **chunks; /* those in use are [begin, begin + count) */
        size_t begin;
        size_t count;
        size_t size;
        uint64_t length;       /* elements */
        struct table places;   /* of insertions that stand between others, by stamp */
        struct table values;   /* elements that were set since, by stamp and index */
        struct list_gone gone; /* removed before they came */
};

static inline struct list_run list_run_of(struct list_span span)
{
        return (struct list_run){
                .stamp = {span.hlc, (region_id)((span.rest >> 58) + 1)},
                .kind = (enum list_kind)(span.rest >> 56 & 3),
                .first = (uint32_t)(span.rest >> LIST_INDEX_BITS & LIST_COUNT_MAX),
                .count = (uint32_t)(span.rest & LIST_COUNT_MAX),
        };
}

static inline struct list_span list_span_of(struct list_run run)
{
        return (struct list_span){
                .hlc = run.stamp.hlc,
                .rest = (uint64_t)(run.stamp.origin - 1) << 58 | (uint64_t)run.kind << 56 |
                        (uint64_t)run.first << LIST_INDEX_BITS | run.count,
        };
}

/* ---- order.c: no stamp is judged here */

/* The chunks go; the tables and `gone` are the owner's. */
void list_order_free(struct heap *heap, struct crdt_list *list);

int list_point_compare(const struct list_point *a, const struct list_point *b);

/* How a place is known: for runs of kind BETWEEN, else not called. */
struct list_place list_place_of(const struct table_env *env, const struct crdt_list *list,
                                struct stamp stamp);
struct list_point list_point_of(const struct table_env *env, const struct crdt_list *list,
                                struct list_run run, uint32_t index);

/* The run that `at` is in, from `at` on; count 0 at the end. */
struct list_run list_run_at(const struct crdt_list *list, struct list_at at);

/* The same, and moves `at` to the next span. */
struct list_run list_next(const struct crdt_list *list, struct list_at *at);

/* Moves `at` to the begin of the span before the one that it is in; false where there is none. */
bool list_back(const struct crdt_list *list, struct list_at *at);

/* index <= length. */
struct list_at list_seek(const struct crdt_list *list, uint64_t index);
uint64_t list_rank(const struct crdt_list *list, struct list_at at);

/* The first element at or after the point; true where it stands there exactly. */
bool list_find(const struct table_env *env, const struct crdt_list *list,
               const struct list_point *point, struct list_at *ret);

/* Puts a run before what is at `at`. False: out of memory, and the list is what it was. */
MUST_USE bool list_put(struct heap *heap, struct crdt_list *list, struct list_at at,
                       struct list_run run);

/* Takes `count` elements from `at` on, which are in one span. False: out of memory. */
MUST_USE bool list_take(struct heap *heap, struct crdt_list *list, struct list_at at,
                        uint32_t count);

/* A place between the neighbours; false where the prefix would be too deep. `room` takes the prefix
 * and lives as long as *ret. */
bool list_place_between(const struct list_point *left, const struct list_point *right,
                        uint8_t room[LIST_DEPTH_MAX * LIST_COMPONENT_LEN], struct list_place *ret);

/* ---- list.c: what a change of one key does; values are read from a cursor of slices */

void list_free(const struct table_env *env, struct crdt_list **slot);

/* Adds those elements of the run that are not here and were not removed. `place` counts for BETWEEN
 * alone; `values` NULL: nobody asks for them (loading). */
void list_insert(struct crdt_env *env, struct crdt *crdt, struct list_run run,
                 struct list_place place, struct cursor *values);
void list_remove(struct crdt_env *env, struct crdt *crdt, struct list_run run);

/* Those of the run that are here go, and nothing is remembered. */
void list_drop(struct crdt_env *env, struct crdt *crdt, struct list_run run);

/* The element `name` has this value since `stamp`. */
void list_set(struct crdt_env *env, struct crdt *crdt, struct list_run name, struct stamp stamp,
              struct bytes text);

/* Elements that died with the key go; then what need not be remembered. */
void list_sweep(struct crdt_env *env, struct crdt *crdt);
void list_prune(struct crdt_env *env, struct crdt *crdt);

/* The elements that were set since they came, or wait to: calls `each` for all, in no order. */
struct list_set {
        struct list_run name;
        struct stamp stamp;
        struct bytes text; /* where it waits */
        bool waits;
};
void list_sets(const struct crdt_list *list,
               void (*each)(void *context, const struct list_set *set), void *context);

/* ---- list_gone.c */

void list_gone_free(struct heap *heap, struct list_gone *gone);

/* Adds a run, and takes all that it touches into one. False: out of memory, and nothing changed. */
MUST_USE bool list_gone_add(struct heap *heap, struct list_gone *gone, struct list_run run);
bool list_gone_has(const struct list_gone *gone, struct stamp stamp, uint32_t index);
/* Any of that insertion. */
bool list_gone_any(const struct list_gone *gone, struct stamp stamp);

/* varint spans: run each. */
void list_gone_write(const struct list_gone *gone, struct buffer *buffer);

/* Forgets the spans whose stamp `keeps` does not keep. */
void list_gone_prune(struct heap *heap, struct list_gone *gone,
                     bool (*keeps)(const void *context, struct stamp stamp), const void *context);

/* ---- list_code.c: as bytes */

/* u8 kind << 6 | origin - 1, u64 clock, varint first, varint count. */
void list_run_write(struct buffer *buffer, struct list_run run);
struct list_run list_run_read(struct cursor *cursor, uint64_t hlc_max);
void list_place_write(struct buffer *buffer, struct list_place place);
struct list_place list_place_read(struct cursor *cursor, uint64_t hlc_max);

/* The whole list of a key. The check reads what the merge will read; cost: O(n log n). */
void list_state_write(const struct crdt_env *env, const struct crdt *crdt,
                      enum crdt_state_kind kind, struct buffer *buffer);
struct bytes list_state_check(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max);

/* `range` empty: that was the whole list. */
void list_state_merge(struct crdt_env *env, struct crdt *crdt, struct bytes state,
                      struct bytes range, enum crdt_state_kind kind,
                      const struct crdt_seen *sender);

/* What of a list a slice tells, and judges: from a point on (flag 1, else from the begin) up to
 * another (flag 2, else to the end), which is not in it.
 *
 *      u8 flags, [point] [point]      point: place, stamp, varint index
 *
 * Tells the next slice of the list, which may be NULL, with values, from `point` on (empty: the
 * begin), and moves it. True where that was the end. What was removed or set before it came goes
 * with the first. */
struct slice_budget;
bool list_slice_write(const struct crdt_env *env, const struct crdt_list *list,
                      struct buffer *point, struct slice_budget *budget, struct buffer *range,
                      struct buffer *state);
struct bytes list_range_check(struct cursor *cursor, uint64_t hlc_max);

struct list_range {
        bool from_there, to_there;
        struct list_point from, to;
};
struct list_range list_range_read(struct cursor *cursor, uint64_t hlc_max);

/* The text of an element, as the native has it. */
void list_text_write(const struct crdt_env *env, uint64_t index, struct buffer *buffer);

/* The value that was set of an element, if one was. */
bool list_set_of(const struct table_env *env, const struct crdt_list *list, struct stamp stamp,
                 uint32_t index, struct list_set *ret);

/* The same for the same elements and values, however they are kept. */
uint64_t list_digest(const struct crdt_list *list);

#endif
