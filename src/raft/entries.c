/* The log in memory: an array with a moving head. What is trimmed in front is given back in bulk,
 * when it is more than what is left, so an append costs O(1) amortized. */
#include "raft/entries.h"

#include "base/check.h"

enum {
        ENTRIES_SIZE_MIN = 64,
};

void entries_init(struct entries *entries, struct heap *heap, uint64_t first)
{
        CHECK(first > 0);
        *entries = (struct entries){.heap = heap, .first = first};
}

void entries_fini(struct entries *entries)
{
        entries_clear(entries, 1);
        heap_free(entries->heap, entries->items);
        entries->items = NULL;
        entries->size = 0;
}

uint64_t entries_last(const struct entries *entries)
{
        return entries->first + entries->count - 1;
}

const struct entry *entries_at(const struct entries *entries, uint64_t index)
{
        if (index < entries->first || index - entries->first >= entries->count)
                return NULL;
        return &entries->items[entries->head + (size_t)(index - entries->first)];
}

static bool entries_grow(struct entries *entries)
{
        if (entries->head + entries->count < entries->size)
                return true;
        if (entries->head > entries->count) {
                memmove(entries->items, entries->items + entries->head,
                        entries->count * sizeof *entries->items);
                entries->head = 0;
                return true;
        }
        size_t size = entries->size < ENTRIES_SIZE_MIN ? ENTRIES_SIZE_MIN : entries->size * 2;
        struct entry *items =
                heap_resize(entries->heap, entries->items, size * sizeof *entries->items);
        if (items == NULL)
                return false;
        entries->items = items;
        entries->size = size;
        return true;
}

bool entries_append(struct entries *entries, uint64_t term, enum entry_type type, struct bytes data)
{
        struct bytes copy;
        if (!entries_grow(entries) || !heap_copy(entries->heap, data, &copy))
                return false;
        entries->items[entries->head + entries->count] =
                (struct entry){.term = term, .type = type, .data = copy};
        entries->count++;
        return true;
}

static void entries_free(struct entries *entries, size_t from, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                struct entry *entry = &entries->items[entries->head + from + i];
                heap_free_bytes(entries->heap, entry->data);
                *entry = (struct entry){.type = ENTRY_COMMAND};
        }
}

void entries_cut(struct entries *entries, uint64_t index)
{
        CHECK(index >= entries->first);
        if (index > entries_last(entries))
                return;
        size_t keep = (size_t)(index - entries->first);
        entries_free(entries, keep, entries->count - keep);
        entries->count = keep;
}

void entries_trim(struct entries *entries, uint64_t index)
{
        CHECK(index <= entries_last(entries) + 1);
        if (index <= entries->first)
                return;
        size_t drop = (size_t)(index - entries->first);
        entries_free(entries, 0, drop);
        entries->head += drop;
        entries->count -= drop;
        entries->first = index;
}

void entries_clear(struct entries *entries, uint64_t first)
{
        CHECK(first > 0);
        entries_free(entries, 0, entries->count);
        entries->head = 0;
        entries->count = 0;
        entries->first = first;
}
