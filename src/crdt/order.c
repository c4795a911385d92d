/* The order of a list: chunks of spans in an array that has room at both ends, so that a queue is
 * pushed and popped without moving anything. A chunk grows to SPANS_MAX spans and is then split, or
 * followed by a fresh one where it was added to at its edge, so that a queue's chunks stay full.
 *
 * Fails only by running out of memory: false, and the order is as it was. */
#include "crdt/list.h"

#include "base/check.h"

#include <stddef.h>

enum {
        SPANS_MIN = 4,
        SPANS_MAX = 256,
        CHUNKS_MIN = 4,
};

static struct list_chunk *chunk_at(const struct crdt_list *list, size_t index)
{
        CHECK(index < list->count);
        return list->chunks[list->begin + index];
}

static struct list_span *span_at(const struct crdt_list *list, struct list_at at)
{
        struct list_chunk *chunk = chunk_at(list, at.chunk);
        CHECK(at.span < chunk->count);
        return &chunk->spans[chunk->begin + at.span];
}

static uint32_t span_count(struct list_span span)
{
        return (uint32_t)(span.rest & LIST_COUNT_MAX);
}

void list_order_free(struct heap *heap, struct crdt_list *list)
{
        for (size_t i = 0; i < list->count; i++)
                heap_free(heap, chunk_at(list, i));
        heap_free(heap, list->chunks);
        list->chunks = NULL;
        list->begin = list->count = list->size = 0;
        list->length = 0;
}

/* ---- points */

static void write_be(uint8_t *at, uint64_t value, unsigned bytes)
{
        for (unsigned i = 0; i < bytes; i++)
                at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static uint64_t read_be(const uint8_t *at, unsigned bytes)
{
        uint64_t value = 0;
        for (unsigned i = 0; i < bytes; i++)
                value = value << 8 | at[i];
        return value;
}

static void component_write(uint8_t at[LIST_COMPONENT_LEN], const struct list_point *point)
{
        write_be(at, (uint64_t)point->place.position ^ (uint64_t)1 << 63, 8);
        write_be(at + 8, point->stamp.hlc, 8);
        at[16] = point->stamp.origin;
        write_be(at + 17, point->index, 4);
}

static int64_t component_position(const uint8_t at[LIST_COMPONENT_LEN])
{
        return (int64_t)(read_be(at, 8) ^ (uint64_t)1 << 63);
}

static size_t point_depth(const struct list_point *point)
{
        return point->place.prefix.len / LIST_COMPONENT_LEN + 1;
}

/* The component `level` of a point's path; `own` holds the last one. */
static const uint8_t *point_component(const struct list_point *point, const uint8_t *own,
                                      size_t level)
{
        return level + 1 == point_depth(point)
                       ? own
                       : point->place.prefix.ptr + level * LIST_COMPONENT_LEN;
}

static int paths_compare(const struct list_point *a, const struct list_point *b)
{
        uint8_t own_a[LIST_COMPONENT_LEN];
        uint8_t own_b[LIST_COMPONENT_LEN];
        component_write(own_a, a);
        component_write(own_b, b);
        size_t depth_a = point_depth(a);
        size_t depth_b = point_depth(b);
        for (size_t i = 0; i < depth_a && i < depth_b; i++) {
                int order = memcmp(point_component(a, own_a, i), point_component(b, own_b, i),
                                   LIST_COMPONENT_LEN);
                if (order != 0)
                        return order;
        }
        return (depth_a > depth_b) - (depth_a < depth_b);
}

int list_point_compare(const struct list_point *a, const struct list_point *b)
{
        if (a->place.prefix.len > 0 || b->place.prefix.len > 0)
                return paths_compare(a, b);
        if (a->place.position != b->place.position)
                return a->place.position < b->place.position ? -1 : 1;
        int order = stamp_compare(a->stamp, b->stamp);
        return order != 0 ? order : (a->index > b->index) - (a->index < b->index);
}

struct list_point list_point_of(const struct table_env *env, const struct crdt_list *list,
                                struct list_run run, uint32_t index)
{
        struct list_point point = {.stamp = run.stamp, .index = index};
        if (run.kind == LIST_BETWEEN)
                point.place = list_place_of(env, list, run.stamp);
        else
                point.place.position =
                        run.kind == LIST_HEAD ? -(int64_t)run.stamp.hlc : (int64_t)run.stamp.hlc;
        return point;
}

/* ---- finding */

struct list_run list_run_at(const struct crdt_list *list, struct list_at at)
{
        if (at.chunk == list->count || at.span == chunk_at(list, at.chunk)->count)
                return (struct list_run){0};
        struct list_run run = list_run_of(*span_at(list, at));
        CHECK(at.offset < run.count);
        run.first += at.offset;
        run.count -= at.offset;
        return run;
}

struct list_run list_next(const struct crdt_list *list, struct list_at *at)
{
        struct list_run run = list_run_at(list, *at);
        if (run.count == 0)
                return run;
        at->offset = 0;
        if (++at->span == chunk_at(list, at->chunk)->count) {
                at->chunk++;
                at->span = 0;
        }
        return run;
}

bool list_back(const struct crdt_list *list, struct list_at *at)
{
        at->offset = 0;
        if (at->span == 0) {
                if (at->chunk == 0)
                        return false;
                at->chunk--;
                at->span = chunk_at(list, at->chunk)->count;
        }
        at->span--;
        return true;
}

static struct list_at at_end(const struct crdt_list *list)
{
        return (struct list_at){.chunk = list->count};
}

struct list_at list_seek(const struct crdt_list *list, uint64_t index)
{
        CHECK(index <= list->length);
        if (index == list->length)
                return at_end(list);
        struct list_at at = {0};
        if (index < list->length / 2) {
                while (index >= chunk_at(list, at.chunk)->length)
                        index -= chunk_at(list, at.chunk++)->length;
        } else {
                uint64_t after = list->length;
                at.chunk = list->count;
                while (after > index)
                        after -= chunk_at(list, --at.chunk)->length;
                index -= after;
        }
        while (index >= span_count(*span_at(list, at)))
                index -= span_count(*span_at(list, (struct list_at){at.chunk, at.span++, 0}));
        at.offset = (uint32_t)index;
        return at;
}

uint64_t list_rank(const struct crdt_list *list, struct list_at at)
{
        uint64_t rank = 0;
        if (at.chunk < list->count / 2) {
                for (size_t i = 0; i < at.chunk; i++)
                        rank += chunk_at(list, i)->length;
        } else {
                rank = list->length;
                for (size_t i = at.chunk; i < list->count; i++)
                        rank -= chunk_at(list, i)->length;
        }
        for (unsigned i = 0; i < at.span; i++)
                rank += span_count(*span_at(list, (struct list_at){at.chunk, i, 0}));
        return rank + at.offset;
}

static int run_compare(const struct table_env *env, const struct crdt_list *list,
                       struct list_run run, uint32_t index, const struct list_point *point)
{
        struct list_point own = list_point_of(env, list, run, index);
        return list_point_compare(&own, point);
}

/* The last chunk whose first element is at or before the point; 0 where none is. */
static size_t find_chunk(const struct table_env *env, const struct crdt_list *list,
                         const struct list_point *point)
{
        size_t low = 0;
        size_t high = list->count;
        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;
                struct list_run run = list_run_of(*span_at(list, (struct list_at){middle, 0, 0}));
                if (run_compare(env, list, run, run.first, point) <= 0)
                        low = middle;
                else
                        high = middle;
        }
        return low;
}

/* How many elements of a run are before a point of another insertion: not all. */
static uint32_t find_offset(const struct table_env *env, const struct crdt_list *list,
                            struct list_run run, const struct list_point *point)
{
        uint32_t low = 0;
        uint32_t high = run.count - 1;
        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                if (run_compare(env, list, run, run.first + middle, point) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

bool list_find(const struct table_env *env, const struct crdt_list *list,
               const struct list_point *point, struct list_at *ret)
{
        *ret = at_end(list);
        if (list->count == 0)
                return false;
        struct list_at at = {.chunk = find_chunk(env, list, point)};
        unsigned low = 0; /* the first span whose last element is not before the point */
        unsigned high = chunk_at(list, at.chunk)->count;
        while (low < high) {
                at.span = low + (high - low) / 2;
                struct list_run run = list_run_of(*span_at(list, at));
                if (run_compare(env, list, run, run.first + run.count - 1, point) < 0)
                        low = at.span + 1;
                else
                        high = at.span;
        }
        at.span = low;
        if (low == chunk_at(list, at.chunk)->count) {
                *ret = (struct list_at){.chunk = at.chunk + 1};
                return false;
        }
        struct list_run run = list_run_of(*span_at(list, at));
        bool same = stamp_compare(run.stamp, point->stamp) == 0;
        if (!same)
                at.offset = find_offset(env, list, run, point);
        else if (point->index > run.first)
                at.offset = point->index - run.first;
        *ret = at;
        return same && point->index >= run.first;
}

/* ---- the array of chunks */

/* Room at both ends: a queue wanders through the array, which grows only where it is half full. */
static bool directory_grow(struct heap *heap, struct crdt_list *list)
{
        size_t size = list->count > list->size / 2 ? list->size * 2 : list->size;
        size = size < CHUNKS_MIN ? CHUNKS_MIN : size;
        struct list_chunk **chunks = heap_alloc_array(heap, size, sizeof(*chunks));
        if (chunks == NULL)
                return false;
        size_t begin = (size - list->count) / 2;
        if (list->count > 0)
                memcpy(&chunks[begin], &list->chunks[list->begin], list->count * sizeof(*chunks));
        heap_free(heap, list->chunks);
        list->chunks = chunks;
        list->begin = begin;
        list->size = size;
        return true;
}

static bool chunk_add(struct heap *heap, struct crdt_list *list, size_t at, unsigned size)
{
        bool room = at == 0 ? list->begin > 0 : list->begin + list->count < list->size;
        if (!room && !directory_grow(heap, list))
                return false;
        struct list_chunk *chunk = heap_alloc(heap, offsetof(struct list_chunk, spans) +
                                                            size * sizeof(chunk->spans[0]));
        if (chunk == NULL)
                return false;
        chunk->size = (uint16_t)size;
        if (at == 0)
                list->begin--;
        else
                memmove(&list->chunks[list->begin + at + 1], &list->chunks[list->begin + at],
                        (list->count - at) * sizeof(struct list_chunk *));
        list->chunks[list->begin + at] = chunk;
        list->count++;
        return true;
}

static void chunk_drop(struct heap *heap, struct crdt_list *list, size_t at)
{
        heap_free(heap, chunk_at(list, at));
        if (at == 0)
                list->begin++;
        else
                memmove(&list->chunks[list->begin + at], &list->chunks[list->begin + at + 1],
                        (list->count - at - 1) * sizeof(struct list_chunk *));
        list->count--;
        if (list->count > 0)
                return;
        heap_free(heap, list->chunks);
        list->chunks = NULL;
        list->begin = list->size = 0;
}

/* ---- spans within a chunk */

static bool chunk_grow(struct heap *heap, struct crdt_list *list, size_t at)
{
        struct list_chunk *chunk = chunk_at(list, at);
        unsigned size = chunk->size * 2u;
        chunk = heap_resize(heap, chunk,
                            offsetof(struct list_chunk, spans) + size * sizeof(chunk->spans[0]));
        if (chunk == NULL)
                return false;
        chunk->size = (uint16_t)size;
        list->chunks[list->begin + at] = chunk;
        return true;
}

/* The upper half of a full chunk moves to a new one after it. */
static bool chunk_split(struct heap *heap, struct crdt_list *list, struct list_at *at)
{
        if (!chunk_add(heap, list, at->chunk + 1, SPANS_MAX))
                return false;
        struct list_chunk *low = chunk_at(list, at->chunk);
        struct list_chunk *high = chunk_at(list, at->chunk + 1);
        unsigned half = low->count / 2u;
        high->count = (uint16_t)(low->count - half);
        memcpy(high->spans, &low->spans[low->begin + half], high->count * sizeof(high->spans[0]));
        for (unsigned i = 0; i < high->count; i++)
                high->length += span_count(high->spans[i]);
        low->count = (uint16_t)half;
        low->length -= high->length;
        if (at->span > half)
                *at = (struct list_at){.chunk = at->chunk + 1, .span = at->span - half};
        return true;
}

/* Makes room for one more span in the chunk of `at`, which may become another chunk. */
static bool room_make(struct heap *heap, struct crdt_list *list, struct list_at *at)
{
        if (at->chunk == list->count && list->count > 0) {
                at->chunk--;
                at->span = chunk_at(list, at->chunk)->count;
        }
        if (list->count == 0) {
                at->chunk = 0;
                return chunk_add(heap, list, 0, SPANS_MIN);
        }
        const struct list_chunk *chunk = chunk_at(list, at->chunk);
        if (chunk->count < chunk->size)
                return true;
        if (chunk->size < SPANS_MAX)
                return chunk_grow(heap, list, at->chunk);
        if (at->span > 0 && at->span < chunk->count)
                return chunk_split(heap, list, at);
        at->chunk += at->span > 0;
        at->span = 0;
        return chunk_add(heap, list, at->chunk,
                         at->chunk == 0 || at->chunk == list->count ? SPANS_MAX : SPANS_MIN);
}

static bool span_insert(struct heap *heap, struct crdt_list *list, struct list_at *at,
                        struct list_span span)
{
        if (!room_make(heap, list, at))
                return false;
        struct list_chunk *chunk = chunk_at(list, at->chunk);
        struct list_span *spans = &chunk->spans[chunk->begin];
        bool left = chunk->begin > 0 && at->span < chunk->count / 2u;
        if (!left && chunk->begin + chunk->count == chunk->size) {
                memmove(chunk->spans, spans, chunk->count * sizeof(*spans));
                chunk->begin = 0;
                spans = chunk->spans;
        }
        if (chunk->count == 0 && at->chunk == 0 && chunk->size == SPANS_MAX) {
                /* A fresh chunk before the others: filled from its end. */
                chunk->begin = (uint16_t)(chunk->size - 1);
                spans = &chunk->spans[chunk->begin];
        } else if (left) {
                memmove(spans - 1, spans, at->span * sizeof(*spans));
                chunk->begin--;
                spans--;
        } else {
                memmove(spans + at->span + 1, spans + at->span,
                        (chunk->count - at->span) * sizeof(*spans));
        }
        spans[at->span] = span;
        chunk->count++;
        chunk->length += span_count(span);
        list->length += span_count(span);
        return true;
}

static void span_remove(struct heap *heap, struct crdt_list *list, struct list_at at)
{
        struct list_chunk *chunk = chunk_at(list, at.chunk);
        struct list_span *spans = &chunk->spans[chunk->begin];
        chunk->length -= span_count(spans[at.span]);
        list->length -= span_count(spans[at.span]);
        if (at.span == 0)
                chunk->begin++;
        else
                memmove(spans + at.span, spans + at.span + 1,
                        (chunk->count - at.span - 1) * sizeof(*spans));
        chunk->count--;
        if (chunk->count == 0)
                chunk_drop(heap, list, at.chunk);
}

static void span_resize(struct crdt_list *list, struct list_at at, uint32_t first, uint32_t count)
{
        struct list_chunk *chunk = chunk_at(list, at.chunk);
        struct list_span *span = span_at(list, at);
        struct list_run run = list_run_of(*span);
        chunk->length = chunk->length - run.count + count;
        list->length = list->length - run.count + count;
        run.first = first;
        run.count = count;
        *span = list_span_of(run);
}

/* Splits the span at `at`, which then is at the begin of one. */
static bool span_split(struct heap *heap, struct crdt_list *list, struct list_at *at)
{
        if (at->offset == 0)
                return true;
        struct list_run rest = list_run_at(list, *at);
        struct list_run whole = list_run_of(*span_at(list, *at));
        struct list_at after = {.chunk = at->chunk, .span = at->span + 1};
        span_resize(list, *at, whole.first, at->offset);
        if (!span_insert(heap, list, &after, list_span_of(rest))) {
                span_resize(list, *at, whole.first, whole.count);
                return false;
        }
        *at = after;
        return true;
}

/* Whether the run goes on where the span before `at` ends; then that span takes it. */
static bool span_extend(struct crdt_list *list, struct list_at at, struct list_run run)
{
        if (at.chunk == list->count && list->count > 0) {
                at.chunk--;
                at.span = chunk_at(list, at.chunk)->count;
        }
        if (at.span == 0 || list->count == 0)
                return false;
        at.span--;
        struct list_run before = list_run_of(*span_at(list, at));
        if (stamp_compare(before.stamp, run.stamp) != 0 || before.kind != run.kind ||
            before.first + before.count != run.first)
                return false;
        span_resize(list, at, before.first, before.count + run.count);
        return true;
}

bool list_put(struct heap *heap, struct crdt_list *list, struct list_at at, struct list_run run)
{
        CHECK(run.count > 0);
        CHECK(run.first + run.count <= LIST_COUNT_MAX);
        if (!span_split(heap, list, &at))
                return false;
        return span_extend(list, at, run) || span_insert(heap, list, &at, list_span_of(run));
}

bool list_take(struct heap *heap, struct crdt_list *list, struct list_at at, uint32_t count)
{
        struct list_run rest = list_run_at(list, at);
        CHECK(count > 0);
        CHECK(count <= rest.count);
        uint32_t left = rest.count - count;
        if (at.offset == 0 && left == 0) {
                span_remove(heap, list, at);
                return true;
        }
        if (at.offset == 0) {
                span_resize(list, at, rest.first + count, left);
                return true;
        }
        if (left > 0) {
                at.offset += count;
                struct list_at begin;
                uint32_t kept = at.offset - count;
                if (!span_split(heap, list, &at))
                        return false;
                /* The split may have moved the left part into another chunk: it is just before. */
                if (at.span > 0)
                        begin = (struct list_at){.chunk = at.chunk, .span = at.span - 1};
                else
                        begin = (struct list_at){.chunk = at.chunk - 1,
                                                 .span = chunk_at(list, at.chunk - 1)->count - 1u};
                span_resize(list, begin, list_run_of(*span_at(list, begin)).first, kept);
                return true;
        }
        span_resize(list, at, rest.first - at.offset, at.offset);
        return true;
}

/* ---- a new place */

enum {
        STEP_BITS = 24, /* so many are left free beside one that is put */
};

static bool place_set(uint8_t *room, size_t depth, int64_t position, struct list_place *ret)
{
        if (depth > LIST_DEPTH_MAX)
                return false;
        ret->position = position;
        ret->prefix = bytes_of(room, depth * LIST_COMPONENT_LEN);
        return true;
}

/* Behind the left one and before all that stands under it. */
static bool place_under(const struct list_point *left, const uint8_t *own, uint8_t *room,
                        int64_t position, struct list_place *ret)
{
        size_t depth = point_depth(left);
        if (depth > LIST_DEPTH_MAX)
                return false;
        memcpy(room + (depth - 1) * LIST_COMPONENT_LEN, own, LIST_COMPONENT_LEN);
        return place_set(room, depth, position, ret);
}

bool list_place_between(const struct list_point *left, const struct list_point *right,
                        uint8_t room[LIST_DEPTH_MAX * LIST_COMPONENT_LEN], struct list_place *ret)
{
        const int64_t step = (int64_t)1 << STEP_BITS;
        uint8_t own_left[LIST_COMPONENT_LEN];
        uint8_t own_right[LIST_COMPONENT_LEN];
        component_write(own_left, left);
        component_write(own_right, right);
        CHECK(list_point_compare(left, right) < 0);
        size_t depth = point_depth(left);
        if (left->place.prefix.len > 0)
                memcpy(room, left->place.prefix.ptr, left->place.prefix.len);
        size_t level = 0;
        while (level < depth && level < point_depth(right) &&
               memcmp(point_component(left, own_left, level),
                      point_component(right, own_right, level), LIST_COMPONENT_LEN) == 0)
                level++;
        if (level == depth) { /* the right one stands under the left one */
                int64_t position = component_position(point_component(right, own_right, level));
                if (position > INT64_MIN + step)
                        return place_under(left, own_left, room, position - step, ret);
                return false;
        }
        uint64_t low = (uint64_t)component_position(point_component(left, own_left, level));
        uint64_t gap = (uint64_t)component_position(point_component(right, own_right, level)) - low;
        if (gap >= 2) {
                gap = gap / 2 < (uint64_t)step ? gap / 2 : (uint64_t)step;
                return place_set(room, level, (int64_t)(low + gap), ret);
        }
        /* No room beside it: beside a part of its path below, or under it. */
        for (level++; level < depth; level++) {
                int64_t position = component_position(point_component(left, own_left, level));
                if (position < INT64_MAX - step)
                        return place_set(room, level, position + step, ret);
        }
        return place_under(left, own_left, room, 0, ret);
}
