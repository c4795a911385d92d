/* What happened to locks lately, for those who watch: a ring. An event's id is the log index of its
 * command, and a number within that entry, so it is the same on every replica, whatever each
 * remembers. An entry that causes more events than there are numbers is forgotten as a whole: its
 * watchers are told so, as anybody who comes too late. */
#include "base/check.h"
#include "base/cursor.h"
#include "lock/table.h"

enum {
        EVENT_NUMBER_BITS = 16,
        EVENTS_FIRST = 256, /* the ring's first size */
};

_Static_assert(LOCK_EVENTS_MAX % EVENTS_FIRST == 0, "the ring doubles up to its end");

static struct lock_event *event_at(const struct lock_table *table, size_t i)
{
        CHECK(table->event_size > 0);
        return &table->events[(table->event_first + i) % table->event_size];
}

static void event_forget(struct lock_table *table)
{
        struct lock_event *oldest = event_at(table, 0);
        table->event_floor = oldest->id;
        table->event_bytes -= oldest->key.len + oldest->owner.len;
        heap_free_bytes(table->heap, oldest->key);
        table->event_first = (table->event_first + 1) % table->event_size;
        table->event_count--;
}

static void events_forget(struct lock_table *table)
{
        while (table->event_count > 0)
                event_forget(table);
        table->event_floor = table->event_last;
}

/* False: this one is not remembered. */
static bool id_next(struct lock_table *table)
{
        uint64_t first = table->index << EVENT_NUMBER_BITS;
        uint64_t last = first | (((uint64_t)1 << EVENT_NUMBER_BITS) - 1);
        if (table->event_last < first)
                table->event_last = first;
        else if (table->event_last < last)
                table->event_last++;
        if (table->event_last < last)
                return true;
        events_forget(table);
        return false;
}

/* Room for one more, by a larger ring or at the oldest's cost. */
static bool event_room(struct lock_table *table, size_t bytes)
{
        while (table->event_count == LOCK_EVENTS_MAX ||
               (table->event_count > 0 && table->event_bytes + bytes > LOCK_EVENTS_BYTES))
                event_forget(table);
        if (table->event_count < table->event_size)
                return true;
        size_t size = table->event_size == 0 ? EVENTS_FIRST : table->event_size * 2;
        struct lock_event *events = heap_alloc_array(table->heap, size, sizeof *events);
        if (events == NULL)
                return false;
        for (size_t i = 0; i < table->event_count; i++)
                events[i] = *event_at(table, i);
        heap_free(table->heap, table->events);
        table->events = events;
        table->event_size = size;
        table->event_first = 0;
        return true;
}

void lock_event_add(struct lock_table *table, enum lock_result_kind kind, struct bytes key,
                    struct bytes owner, uint64_t token)
{
        if (!id_next(table))
                return;
        struct lock_event event = {.id = table->event_last, .kind = kind, .token.value = token};
        size_t bytes = key.len + owner.len;
        uint8_t *names = event_room(table, bytes) ? heap_alloc(table->heap, bytes) : NULL;
        if (names == NULL) {
                table->fatal = true;
                return;
        }
        memcpy(names, key.ptr, key.len);
        memcpy(names + key.len, owner.ptr, owner.len);
        event.key = bytes_of(names, key.len);
        event.owner = bytes_of(names + key.len, owner.len);
        table->event_count++;
        table->event_bytes += bytes;
        *event_at(table, table->event_count - 1) = event;
}

/* ---- watching ---- */

/* The place of the first event after that id. */
static size_t event_find(const struct lock_table *table, uint64_t after)
{
        size_t low = 0;
        size_t high = table->event_count;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (event_at(table, middle)->id <= after)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

bool lock_event_watched(const struct lock_watch *watch, struct bytes key)
{
        return watch->prefix ? bytes_starts_with(key, watch->key) : bytes_equal(key, watch->key);
}

bool lock_event_next(const struct lock_table *table, const struct lock_watch *watch,
                     struct lock_event *ret)
{
        if (watch->after >= table->event_last)
                return false;
        for (size_t i = event_find(table, watch->after); i < table->event_count; i++) {
                const struct lock_event *event = event_at(table, i);
                if (!lock_event_watched(watch, event->key))
                        continue;
                *ret = *event;
                return true;
        }
        return false;
}

bool lock_events_forgotten(const struct lock_table *table, uint64_t after)
{
        return after < table->event_floor;
}

uint64_t lock_event_last(const struct lock_table *table)
{
        return table->event_last;
}

/* Of an event: varint id, u8 kind, slices key and owner, varint token. */
void lock_event_encode(const struct lock_event *event, struct buffer *out)
{
        buffer_varint(out, event->id);
        buffer_u8(out, (uint8_t)event->kind);
        buffer_slice(out, event->key);
        buffer_slice(out, event->owner);
        buffer_varint(out, event->token.value);
}

void lock_changes_encode(const struct lock_table *table, const struct lock_watch *watch,
                         struct lock_changes *ret, struct buffer *out)
{
        struct lock_watch rest = *watch;
        struct lock_event event;
        size_t begin = out->len;
        *ret = (struct lock_changes){.forgotten = lock_events_forgotten(table, watch->after)};
        while (!ret->forgotten && lock_event_next(table, &rest, &event)) {
                ret->more = ret->count >= LOCK_CHANGES_MAX || out->len - begin > LOCK_CHANGES_BYTES;
                if (ret->more)
                        break;
                rest.after = event.id;
                lock_event_encode(&event, out);
                ret->count++;
        }
        bool ahead = watch->after > table->event_last;
        ret->last = ret->more || ahead ? rest.after : table->event_last;
}

bool lock_change_decode(struct cursor *cursor, struct lock_event *ret)
{
        if (cursor_failed(cursor) || cursor_left(cursor) == 0)
                return false;
        struct lock_event event = {.id = cursor_varint(cursor)};
        uint8_t kind = cursor_u8(cursor);
        event.key = cursor_slice(cursor);
        event.owner = cursor_slice(cursor);
        event.token.value = cursor_varint(cursor);
        if (kind == 0 || kind >= LOCK_RESULT_COUNT)
                cursor_fail(cursor, ERR_MALFORMED);
        event.kind = (enum lock_result_kind)kind;
        if (!cursor_failed(cursor))
                *ret = event;
        return !cursor_failed(cursor);
}

const char *lock_event_name(enum lock_result_kind kind)
{
        if (kind == LOCK_QUEUED)
                return "waiting";
        return kind == LOCK_CANCELLED ? "left" : lock_result_name(kind);
}

/* ---- the beginning and the end ---- */

void lock_events_begin(struct lock_table *table, uint64_t index)
{
        table->event_last = (index + 1) << EVENT_NUMBER_BITS;
        table->event_last--;
        events_forget(table);
}

void lock_events_free(struct lock_table *table)
{
        events_forget(table);
        heap_free(table->heap, table->events);
        table->events = NULL;
        table->event_size = 0;
        table->event_first = 0;
}
