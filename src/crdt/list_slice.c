/* Slices of a list: ranges of places, which mean the same to all. A slice that is cut between
 * elements names the first element that is not in it; where that one has gone when the next slice
 * is told, its place stands all the same. Nothing fails but memory. */
#include "crdt/list.h"

#include "crdt/lists.h"
#include "crdt/slice.h"

enum {
        RANGE_FROM = 1,
        RANGE_TO = 2,
};

static void point_write(struct buffer *buffer, const struct list_point *point)
{
        list_place_write(buffer, point->place);
        stamp_write(buffer, point->stamp);
        buffer_varint(buffer, point->index);
}

static struct list_point point_read(struct cursor *cursor, uint64_t hlc_max)
{
        struct list_point point = {.place = list_place_read(cursor, hlc_max)};
        point.stamp = stamp_read(cursor, hlc_max, false);
        point.index = (uint32_t)cursor_varint_max(cursor, LIST_COUNT_MAX);
        return point;
}

struct list_range list_range_read(struct cursor *cursor, uint64_t hlc_max)
{
        uint8_t flags = cursor_u8(cursor);
        struct list_range range = {.from_there = (flags & RANGE_FROM) != 0,
                                   .to_there = (flags & RANGE_TO) != 0};
        if (flags > (RANGE_FROM | RANGE_TO))
                cursor_fail(cursor, ERR_MALFORMED);
        if (range.from_there)
                range.from = point_read(cursor, hlc_max);
        if (range.to_there)
                range.to = point_read(cursor, hlc_max);
        return range;
}

struct bytes list_range_check(struct cursor *cursor, uint64_t hlc_max)
{
        const uint8_t *from = cursor->at;
        list_range_read(cursor, hlc_max);
        return cursor_failed(cursor) ? (struct bytes){0} : cursor_since(cursor, from);
}

/* What is gathered of a slice. */
struct gather {
        const struct crdt_env *env;
        const struct crdt_list *list;
        struct slice_budget *budget;
        struct buffer spans, texts, sets;
        uint64_t span_count, set_count;
};

static void set_write(struct gather *gather, const struct list_set *set, struct bytes text)
{
        list_run_write(&gather->sets, set->name);
        stamp_write(&gather->sets, set->stamp);
        buffer_u8(&gather->sets, set->waits);
        buffer_slice(&gather->sets, text);
        gather->set_count++;
}

/* Tells elements of the run, and returns how many: at least one. */
static uint32_t run_tell(struct gather *gather, struct list_run run, uint64_t index)
{
        uint32_t count = 0;
        bool more = true;
        buffer_reset(&gather->texts);
        for (; count < run.count && more; count++) {
                struct list_set set;
                size_t from = gather->texts.len;
                list_text_write(gather->env, index + count, &gather->texts);
                struct bytes text = bytes_of(gather->texts.ptr + from, gather->texts.len - from);
                more = slice_spend(gather->budget, text.len);
                struct cursor cursor = cursor_of(text);
                if (list_set_of(&gather->env->table, gather->list, run.stamp, run.first + count,
                                &set))
                        set_write(gather, &set, cursor_slice(&cursor));
        }
        run.count = count;
        list_run_write(&gather->spans, run);
        if (run.kind == LIST_BETWEEN)
                list_place_write(&gather->spans,
                                 list_place_of(&gather->env->table, gather->list, run.stamp));
        buffer_bytes(&gather->spans, buffer_view(&gather->texts));
        gather->span_count++;
        return count;
}

static void waits_tell(void *context, const struct list_set *set)
{
        if (set->waits)
                set_write(context, set, set->text);
}

/* The run that was not told to its end, or the next; count 0: that was the end. */
static struct list_run spans_tell(struct gather *gather, struct list_at at)
{
        uint64_t index = list_rank(gather->list, at);
        struct list_run run = list_next(gather->list, &at);
        while (run.count > 0 && gather->budget->items > 0 && gather->budget->bytes > 0) {
                uint32_t count = run_tell(gather, run, index);
                index += count;
                run.first += count;
                run.count -= count;
                if (run.count == 0)
                        run = list_next(gather->list, &at);
        }
        return run;
}

bool list_slice_write(const struct crdt_env *env, const struct crdt_list *list,
                      struct buffer *point, struct slice_budget *budget, struct buffer *range,
                      struct buffer *state)
{
        static const struct crdt_list nothing;
        struct list_at at = {0};
        list = list == NULL ? &nothing : list;
        struct gather gather = {.env = env, .list = list, .budget = budget};
        buffer_init(&gather.spans, env->table.heap);
        buffer_init(&gather.texts, env->table.heap);
        buffer_init(&gather.sets, env->table.heap);
        bool first = point->len == 0;
        if (!first) {
                struct cursor cursor = cursor_of(buffer_view(point));
                struct list_point from = point_read(&cursor, UINT64_MAX);
                list_find(&env->table, list, &from, &at);
        } else {
                list_sets(list, waits_tell, &gather);
        }
        struct list_run next = spans_tell(&gather, at);
        bool end = next.count == 0;
        buffer_u8(range, (uint8_t)((first ? 0 : RANGE_FROM) | (end ? 0 : RANGE_TO)));
        buffer_bytes(range, buffer_view(point));
        buffer_reset(point);
        if (!end) {
                struct list_point to = list_point_of(&env->table, list, next, next.first);
                point_write(point, &to);
                buffer_bytes(range, buffer_view(point));
        }
        buffer_varint(state, gather.span_count);
        buffer_bytes(state, buffer_view(&gather.spans));
        buffer_varint(state, gather.set_count);
        buffer_bytes(state, buffer_view(&gather.sets));
        list_gone_write(first ? &list->gone : &nothing.gone, state);
        if (gather.spans.err != ERR_NONE || gather.texts.err != ERR_NONE ||
            gather.sets.err != ERR_NONE || point->err != ERR_NONE)
                state->err = ERR_NOMEM;
        buffer_fini(&gather.spans);
        buffer_fini(&gather.texts);
        buffer_fini(&gather.sets);
        return end;
}
