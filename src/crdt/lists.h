/* lists.h - the repeated parts of deltas and states: read the same way by the check and by the
 * merge. Private to crdt/. A reader marks the cursor when an element is not as it must be. */
#ifndef MERIDIAN_CRDT_LISTS_H
#define MERIDIAN_CRDT_LISTS_H

#include "crdt/crdt.h"

struct crdt_totals totals_read(struct cursor *cursor);
void stamp_write(struct buffer *buffer, struct stamp stamp);

/* A clock in 1 .. hlc_max and a valid origin; with `zero_fine`, {0, 0} too. */
struct stamp stamp_read(struct cursor *cursor, uint64_t hlc_max, bool zero_fine);

/* A slice of at most CRDT_NAME_LEN_MAX bytes. */
struct bytes name_read(struct cursor *cursor);

/* The count of a list whose elements take at least `len_min` bytes each. */
uint64_t count_read(struct cursor *cursor, size_t len_min);

/* The next (origin, clock); origins must rise above *origin_last. */
struct crdt_dot dot_read(struct cursor *cursor, uint64_t hlc_max, region_id *origin_last);

/* Whose part of a counter: its number, by which parts are in order, as bytes; and the next one,
 * which must rise above *part_last. */
static inline unsigned count_part(const struct crdt_count *count)
{
        return (unsigned)count->origin << 8 | count->life;
}
void part_write(struct buffer *buffer, const struct crdt_count *count);
struct crdt_count part_read(struct cursor *cursor, unsigned *part_last);

/* The next (part, clock, totals) as a cut. */
struct crdt_count cut_read(struct cursor *cursor, uint64_t hlc_max, unsigned *part_last);

/* The bytes that the cursor passed since `from`. */
static inline struct bytes cursor_since(const struct cursor *cursor, const uint8_t *from)
{
        return bytes_of(from, (size_t)(cursor->at - from));
}

#endif
