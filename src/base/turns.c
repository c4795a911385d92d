/* turns.c - the bytes of the pieces lie in one buffer, in the order in which they came; a binary
 * heap of their places tells whose turn is next. Without memory a piece is not taken: turns_add
 * says so. */
#include "base/turns.h"

#include "base/check.h"

enum {
        ITEMS_MIN = 64,
};

void turns_init(struct turns *turns, struct heap *heap)
{
        *turns = (struct turns){0};
        buffer_init(&turns->bytes, heap);
}

void turns_fini(struct turns *turns)
{
        heap_free(turns->bytes.heap, turns->items);
        buffer_fini(&turns->bytes);
        *turns = (struct turns){.bytes = turns->bytes};
}

bool turn_before(const struct turn *a, const struct turn *b)
{
        return a->number != b->number ? a->number < b->number : a->place < b->place;
}

bool turns_add(struct turns *turns, uint64_t number, uint32_t place, size_t at)
{
        if (turns->bytes.err != ERR_NONE)
                return false;
        if (turns->count == turns->size) {
                size_t size = turns->size == 0 ? ITEMS_MIN : turns->size * 2;
                struct turn *items =
                        heap_resize(turns->bytes.heap, turns->items, size * sizeof *items);
                if (items == NULL)
                        return false;
                turns->items = items;
                turns->size = size;
        }
        struct turn turn = {number, place, at, turns->bytes.len - at};
        size_t place_at = turns->count++;
        while (place_at > 0 && turn_before(&turn, &turns->items[(place_at - 1) / 2])) {
                turns->items[place_at] = turns->items[(place_at - 1) / 2];
                place_at = (place_at - 1) / 2;
        }
        turns->items[place_at] = turn;
        return true;
}

const struct turn *turns_next(const struct turns *turns)
{
        return turns->count == 0 ? NULL : &turns->items[0];
}

void turns_take(struct turns *turns, struct buffer *out)
{
        CHECK(turns->count > 0);
        struct turn *items = turns->items;
        buffer_bytes(out, bytes_of(turns->bytes.ptr + items[0].at, items[0].len));
        struct turn last = items[--turns->count];
        size_t at = 0;
        for (;;) {
                size_t child = 2 * at + 1;
                if (child >= turns->count)
                        break;
                if (child + 1 < turns->count && turn_before(&items[child + 1], &items[child]))
                        child++;
                if (!turn_before(&items[child], &last))
                        break;
                items[at] = items[child];
                at = child;
        }
        items[at] = last;
}
