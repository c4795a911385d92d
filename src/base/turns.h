/* turns.h - pieces of bytes that wait for their turn: put in any order, taken by rising number. For
 * a state that is told in steps while it changes: what is about to change before it is told waits
 * here as it was. */
#ifndef MERIDIAN_BASE_TURNS_H
#define MERIDIAN_BASE_TURNS_H

#include "base/buffer.h"

/* Compared by number, then by place; each pair waits once at most. */
struct turn {
        uint64_t number;
        uint32_t place;
        size_t at;
        size_t len;
};

struct turns {
        struct buffer bytes; /* write a piece here, then turns_add */
        struct turn *items;  /* a heap */
        size_t count;
        size_t size;
};

/* Keeps `heap` until turns_fini. */
void turns_init(struct turns *turns, struct heap *heap);
void turns_fini(struct turns *turns);

/* What was written to `bytes` from `at` on waits for its turn. False: memory ran out, here or when
 * it was written. Cost: O(log n). */
MUST_USE bool turns_add(struct turns *turns, uint64_t number, uint32_t place, size_t at);

/* The next one; NULL: none. */
const struct turn *turns_next(const struct turns *turns);

/* Appends the next one to `out`, and forgets it; there is one. Its memory stays until the end. */
void turns_take(struct turns *turns, struct buffer *out);

bool turn_before(const struct turn *a, const struct turn *b);

#endif
