/* Lists as bytes: the parts of deltas that name elements and places, the whole state of a list, and
 * the merge of two states.
 *
 *      varint spans, in list order: run, as list_run_write has it; [BETWEEN: place]; VALUES: a
 *              slice for each element
 *      varint sets: run of one element, stamp, u8 waits, [waits or VALUES: slice] each
 *      varint gone: run each
 *
 * place: signed varint position, slice prefix. Reading checks the order too, for the merge goes
 * through both lists side by side. */
#include "crdt/list.h"

#include "base/check.h"
#include "crdt/lists.h"

enum {
        RUN_LEN_MIN = 11,
        SET_LEN_MIN = RUN_LEN_MIN + 10,
        INDEX_AT = LIST_COMPONENT_LEN - 4,
};

void list_run_write(struct buffer *buffer, struct list_run run)
{
        buffer_u8(buffer, (uint8_t)((unsigned)run.kind << 6 | (run.stamp.origin - 1u)));
        buffer_u64(buffer, run.stamp.hlc);
        buffer_varint(buffer, run.first);
        buffer_varint(buffer, run.count);
}

struct list_run list_run_read(struct cursor *cursor, uint64_t hlc_max)
{
        struct list_run run = {0};
        unsigned tag = cursor_u8(cursor);
        run.kind = (enum list_kind)(tag >> 6);
        run.stamp.origin = (region_id)((tag & 63) + 1);
        run.stamp.hlc = cursor_u64(cursor);
        run.first = (uint32_t)cursor_varint_max(cursor, LIST_COUNT_MAX);
        run.count = (uint32_t)cursor_varint_max(cursor, LIST_COUNT_MAX);
        if (run.kind == LIST_AT || run.stamp.hlc == 0 || run.stamp.hlc > INT64_MAX ||
            run.count == 0 || run.first + run.count > LIST_COUNT_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        else if (run.stamp.hlc > hlc_max)
                cursor_fail(cursor, ERR_REFUSED);
        if (cursor_failed(cursor))
                return (struct list_run){.stamp = {1, 1}, .count = 1};
        return run;
}

void list_place_write(struct buffer *buffer, struct list_place place)
{
        buffer_varint_signed(buffer, place.position);
        buffer_slice(buffer, place.prefix);
}

static uint64_t read_be(const uint8_t *at, unsigned bytes)
{
        uint64_t value = 0;
        for (unsigned i = 0; i < bytes; i++)
                value = value << 8 | at[i];
        return value;
}

static bool component_fine(const uint8_t *at, uint64_t hlc_max)
{
        uint64_t hlc = read_be(at + 8, 8);
        return hlc != 0 && hlc <= hlc_max && region_valid(at[16]) &&
               read_be(at + INDEX_AT, 4) < LIST_COUNT_MAX;
}

struct list_place list_place_read(struct cursor *cursor, uint64_t hlc_max)
{
        struct list_place place = {.position = cursor_varint_signed(cursor)};
        place.prefix = cursor_slice(cursor);
        if (cursor_failed(cursor))
                return (struct list_place){0};
        bool fine = place.prefix.len % LIST_COMPONENT_LEN == 0 &&
                    place.prefix.len / LIST_COMPONENT_LEN <= LIST_DEPTH_MAX;
        for (size_t at = 0; fine && at < place.prefix.len; at += LIST_COMPONENT_LEN)
                fine = component_fine(place.prefix.ptr + at, hlc_max);
        /* At the top nothing stands beyond the clocks, or a push would not be the last. */
        int64_t top = place.position;
        if (fine && place.prefix.len > 0)
                top = (int64_t)(read_be(place.prefix.ptr, 8) ^ (uint64_t)1 << 63);
        int64_t bound = hlc_max > INT64_MAX ? INT64_MAX : (int64_t)hlc_max;
        if (!fine || top > bound || top < -bound) {
                cursor_fail(cursor, ERR_MALFORMED);
                return (struct list_place){0};
        }
        return place;
}

/* ---- encode */

struct sets_write {
        const struct crdt_env *env;
        const struct crdt_list *list;
        enum crdt_state_kind kind;
        struct buffer *buffer;
};

/* The text of an element, as the native has it. */
void list_text_write(const struct crdt_env *env, uint64_t index, struct buffer *buffer)
{
        struct bytes text = {0};
        if (env->native == NULL ||
            !env->native->list_get(env->native->context, env->name, index, &text))
                text = (struct bytes){0};
        buffer_slice(buffer, text);
}

static void set_write(void *context, const struct list_set *set)
{
        const struct sets_write *write = context;
        list_run_write(write->buffer, set->name);
        stamp_write(write->buffer, set->stamp);
        buffer_u8(write->buffer, set->waits);
        if (set->waits) {
                buffer_slice(write->buffer, set->text);
        } else if (write->kind == CRDT_STATE_VALUES) {
                struct list_at at;
                const struct table_env *table = &write->env->table;
                struct list_point point =
                        list_point_of(table, write->list, set->name, set->name.first);
                CHECK(list_find(table, write->list, &point, &at));
                list_text_write(write->env, list_rank(write->list, at), write->buffer);
        }
}

static void spans_write(const struct crdt_env *env, const struct crdt_list *list,
                        enum crdt_state_kind kind, struct buffer *buffer)
{
        uint64_t count = 0;
        uint64_t index = 0;
        struct list_at at = {0};
        while (list_next(list, &at).count > 0)
                count++;
        buffer_varint(buffer, count);
        at = (struct list_at){0};
        for (; count > 0; count--) {
                struct list_run run = list_next(list, &at);
                list_run_write(buffer, run);
                if (run.kind == LIST_BETWEEN)
                        list_place_write(buffer, list_place_of(&env->table, list, run.stamp));
                for (uint32_t i = 0; i < run.count && kind == CRDT_STATE_VALUES; i++)
                        list_text_write(env, index++, buffer);
        }
}

void list_state_write(const struct crdt_env *env, const struct crdt *crdt,
                      enum crdt_state_kind kind, struct buffer *buffer)
{
        const struct crdt_list *list = crdt->list;
        struct sets_write write = {env, list, kind, buffer};
        spans_write(env, list, kind, buffer);
        buffer_varint(buffer, list->values.count);
        list_sets(list, set_write, &write);
        list_gone_write(&list->gone, buffer);
}

/* ---- read */

/* A run of a state, with its place resolved. */
struct told {
        struct list_run run;
        struct list_place place;
};

static struct list_point told_point(const struct told *told, uint32_t index)
{
        struct list_point point = {.place = told->place, .stamp = told->run.stamp, .index = index};
        return point;
}

static struct told told_read(struct cursor *cursor, uint64_t hlc_max)
{
        struct told told = {.run = list_run_read(cursor, hlc_max)};
        if (told.run.kind == LIST_BETWEEN)
                told.place = list_place_read(cursor, hlc_max);
        else
                told.place.position = told.run.kind == LIST_HEAD ? -(int64_t)told.run.stamp.hlc
                                                                 : (int64_t)told.run.stamp.hlc;
        return told;
}

static void texts_skip(struct cursor *cursor, const struct told *told, enum crdt_state_kind kind)
{
        for (uint32_t i = 0; i < told->run.count && kind == CRDT_STATE_VALUES; i++) {
                name_read(cursor);
                if (cursor_failed(cursor))
                        return;
        }
}

static struct list_set set_read(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max)
{
        struct list_set set = {.name = list_run_read(cursor, hlc_max)};
        set.stamp = stamp_read(cursor, hlc_max, false);
        uint8_t waits = cursor_u8(cursor);
        if (waits > 1 || set.name.count != 1)
                cursor_fail(cursor, ERR_MALFORMED);
        set.waits = waits == 1;
        if (set.waits || kind == CRDT_STATE_VALUES)
                set.text = name_read(cursor);
        return set;
}

struct bytes list_state_check(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max)
{
        const uint8_t *from = cursor->at;
        struct list_point last = {0};
        uint64_t count = count_read(cursor, RUN_LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct told told = told_read(cursor, hlc_max);
                if (cursor_failed(cursor))
                        break;
                struct list_point first = told_point(&told, told.run.first);
                if (i > 0 && list_point_compare(&last, &first) >= 0)
                        cursor_fail(cursor, ERR_MALFORMED);
                last = told_point(&told, told.run.first + told.run.count - 1);
                texts_skip(cursor, &told, kind);
        }
        count = count_read(cursor, SET_LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                set_read(cursor, kind, hlc_max);
        count = count_read(cursor, RUN_LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                list_run_read(cursor, hlc_max);
        return cursor_since(cursor, from);
}

/* ---- merge */

static void spans_merge(struct crdt_env *env, struct crdt *crdt, struct cursor *cursor,
                        enum crdt_state_kind kind)
{
        uint64_t count = cursor_varint(cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct told told = told_read(cursor, UINT64_MAX);
                struct cursor texts = *cursor;
                if (!env_seen(env, told.run.stamp))
                        list_insert(env, crdt, told.run, told.place,
                                    kind == CRDT_STATE_VALUES ? &texts : NULL);
                texts_skip(cursor, &told, kind);
        }
}

/* Goes through the elements here and those of the state side by side: what the state does not have,
 * and its sender has seen, is collected in `dead`. */
struct absent {
        struct crdt_env *env;
        const struct crdt_list *list;
        const struct crdt_seen *sender;
        enum crdt_state_kind kind;
        struct cursor cursor;
        uint64_t left; /* runs of the state to read */
        struct told told;
        struct buffer dead;
};

static void told_next(struct absent *absent)
{
        absent->told.run.count = 0;
        if (absent->left == 0)
                return;
        absent->left--;
        absent->told = told_read(&absent->cursor, UINT64_MAX);
        texts_skip(&absent->cursor, &absent->told, absent->kind);
}

static void told_pass(struct absent *absent, uint32_t count)
{
        absent->told.run.first += count;
        absent->told.run.count -= count;
        if (absent->told.run.count == 0)
                told_next(absent);
}

/* How many of the run, from its begin, the state does not have; 0: it has the first. */
static uint32_t untold(const struct absent *absent, struct list_run run)
{
        const struct told *told = &absent->told;
        if (told->run.count == 0)
                return run.count;
        if (stamp_compare(told->run.stamp, run.stamp) == 0 && told->run.first <= run.first)
                return 0;
        struct list_point next = told_point(told, told->run.first);
        struct list_point point =
                list_point_of(&absent->env->table, absent->list, run, run.first + run.count - 1);
        if (list_point_compare(&point, &next) < 0)
                return run.count;
        if (stamp_compare(told->run.stamp, run.stamp) == 0)
                return told->run.first - run.first;
        return 1;
}

/* Passes what the state has before the run's first element. */
static void told_catch_up(struct absent *absent, struct list_run run)
{
        struct list_point point = list_point_of(&absent->env->table, absent->list, run, run.first);
        while (absent->told.run.count > 0) {
                const struct list_run *told = &absent->told.run;
                struct list_point first = told_point(&absent->told, told->first);
                struct list_point last = told_point(&absent->told, told->first + told->count - 1);
                if (list_point_compare(&last, &point) < 0)
                        told_pass(absent, told->count);
                else if (list_point_compare(&first, &point) >= 0)
                        return;
                else if (stamp_compare(told->stamp, run.stamp) == 0)
                        told_pass(absent, run.first - told->first);
                else
                        told_pass(absent, 1);
        }
}

static void absent_run(struct absent *absent, struct list_run run)
{
        bool covered = crdt_seen_covers(absent->sender, run.stamp);
        while (run.count > 0) {
                told_catch_up(absent, run);
                struct list_run part = run;
                part.count = untold(absent, run);
                if (part.count > 0 && covered)
                        list_run_write(&absent->dead, part);
                if (part.count == 0) {
                        uint32_t both = absent->told.run.count;
                        part.count = run.count < both ? run.count : both;
                        told_pass(absent, part.count);
                }
                run.first += part.count;
                run.count -= part.count;
        }
}

/* How many of the run stand before the point. */
static uint32_t run_before(const struct absent *absent, struct list_run run,
                           const struct list_point *point)
{
        uint32_t low = 0;
        uint32_t high = run.count;
        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                struct list_point there =
                        list_point_of(&absent->env->table, absent->list, run, run.first + middle);
                if (list_point_compare(&there, point) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static void elements_absent(struct crdt_env *env, struct crdt *crdt, struct bytes state,
                            struct list_range range, enum crdt_state_kind kind,
                            const struct crdt_seen *sender)
{
        struct absent absent = {.env = env, .sender = sender, .kind = kind, .list = crdt->list};
        if (crdt->list == NULL || crdt->list->length == 0)
                return;
        absent.cursor = cursor_of(state);
        absent.left = state.len == 0 ? 0 : cursor_varint(&absent.cursor);
        buffer_init(&absent.dead, env->table.heap);
        told_next(&absent);
        struct list_at at = {0};
        if (range.from_there)
                list_find(&env->table, crdt->list, &range.from, &at);
        struct list_run run = list_next(crdt->list, &at);
        for (; run.count > 0; run = list_next(crdt->list, &at)) {
                uint32_t count = run.count;
                run.count = range.to_there ? run_before(&absent, run, &range.to) : count;
                absent_run(&absent, run);
                if (run.count < count)
                        break;
        }
        if (absent.dead.err != ERR_NONE)
                env->err = absent.dead.err;
        struct cursor dead = cursor_of(buffer_view(&absent.dead));
        while (cursor_left(&dead) > 0 && crdt->list != NULL)
                list_drop(env, crdt, list_run_read(&dead, UINT64_MAX));
        buffer_fini(&absent.dead);
}

void list_state_merge(struct crdt_env *env, struct crdt *crdt, struct bytes state,
                      struct bytes range, enum crdt_state_kind kind, const struct crdt_seen *sender)
{
        struct cursor cursor = cursor_of(state);
        struct cursor range_cursor = cursor_of(range);
        struct list_range judged = {0};
        if (range.len > 0)
                judged = list_range_read(&range_cursor, UINT64_MAX);
        if (state.len > 0) {
                spans_merge(env, crdt, &cursor, kind);
                for (uint64_t i = cursor_varint(&cursor); i > 0; i--) {
                        struct list_set set = set_read(&cursor, kind, UINT64_MAX);
                        list_set(env, crdt, set.name, set.stamp, set.text);
                }
                for (uint64_t i = cursor_varint(&cursor); i > 0; i--)
                        list_remove(env, crdt, list_run_read(&cursor, UINT64_MAX));
        }
        elements_absent(env, crdt, state, judged, kind, sender);
        list_prune(env, crdt);
}

/* ---- digest */

static void set_digest(void *context, const struct list_set *set)
{
        uint64_t *sum = context;
        if (set->waits)
                return;
        uint64_t hash = hash_fnv_u64(HASH_FNV_START, set->name.stamp.hlc);
        hash = hash_fnv_u64(hash_fnv_u64(hash, set->name.stamp.origin), set->name.first);
        *sum += hash_fnv_u64(hash_fnv_u64(hash, set->stamp.hlc), set->stamp.origin);
}

uint64_t list_digest(const struct crdt_list *list)
{
        uint64_t sum = 0;
        struct list_at at = {0};
        if (list == NULL)
                return 0;
        struct list_run run = list_next(list, &at);
        for (; run.count > 0; run = list_next(list, &at)) {
                uint64_t hash = hash_fnv_u64(HASH_FNV_START, run.stamp.hlc);
                hash = hash_fnv_u64(hash, run.stamp.origin);
                for (uint32_t i = run.first; i < run.first + run.count; i++)
                        sum += hash_fnv_u64(hash, i);
        }
        list_sets(list, set_digest, &sum);
        return sum;
}
