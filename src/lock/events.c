/* What happened to locks lately, for those who watch: a ring. An event's id is the log index of its
 * command, and a number within that entry, so it is the same on every replica, whatever each
 * remembers. */
#include "lock/table.h"

enum {
        EVENT_NUMBER_BITS = 24, /* more events than one entry can cause */
};

static uint64_t id_next(struct lock_table *table)
{
        uint64_t first = table->index << EVENT_NUMBER_BITS;
        table->event_last = table->event_last < first ? first : table->event_last + 1;
        return table->event_last;
}

static void event_forget(struct lock_table *table)
{
        struct lock_event *oldest = &table->events[table->event_first];
        table->event_floor = oldest->id;
        heap_free_bytes(table->heap, oldest->key);
        table->event_first = (table->event_first + 1) % LOCK_EVENTS_MAX;
        table->event_count--;
}

static void events_forget(struct lock_table *table)
{
        while (table->event_count > 0)
                event_forget(table);
}

void lock_event_add(struct lock_table *table, enum lock_result_kind kind, struct bytes key,
                    struct bytes owner, uint64_t token)
{
        struct lock_event event = {.id = id_next(table), .kind = kind, .token.value = token};
        if (table->events == NULL)
                table->events =
                        heap_alloc_array(table->heap, LOCK_EVENTS_MAX, sizeof *table->events);
        uint8_t *names =
                table->events == NULL ? NULL : heap_alloc(table->heap, key.len + owner.len);
        if (names == NULL) {
                table->fatal = true;
                return;
        }
        memcpy(names, key.ptr, key.len);
        memcpy(names + key.len, owner.ptr, owner.len);
        event.key = bytes_of(names, key.len);
        event.owner = bytes_of(names + key.len, owner.len);
        if (table->event_count == LOCK_EVENTS_MAX)
                event_forget(table);
        table->events[(table->event_first + table->event_count++) % LOCK_EVENTS_MAX] = event;
}

bool lock_event_next(const struct lock_table *table, struct bytes key, uint64_t after,
                     struct lock_event *ret, bool *ret_compacted)
{
        *ret_compacted = after < table->event_floor;
        if (after >= table->event_last)
                return false;
        for (size_t i = 0; i < table->event_count; i++) {
                const struct lock_event *event =
                        &table->events[(table->event_first + i) % LOCK_EVENTS_MAX];
                if (event->id <= after || !bytes_equal(event->key, key))
                        continue;
                *ret = *event;
                return true;
        }
        return false;
}

uint64_t lock_event_last(const struct lock_table *table)
{
        return table->event_last;
}

void lock_events_begin(struct lock_table *table, uint64_t index)
{
        events_forget(table);
        table->event_last = (index + 1) << EVENT_NUMBER_BITS;
        table->event_last--;
        table->event_floor = table->event_last;
}

void lock_events_free(struct lock_table *table)
{
        if (table->events != NULL)
                events_forget(table);
        heap_free(table->heap, table->events);
        table->events = NULL;
        table->event_first = 0;
}
