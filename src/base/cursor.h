/* cursor.h - reading untrusted bytes. The first error sticks; later reads give zero; check once at
 * the end with cursor_done or cursor_failed. Integers are little-endian. Varints are LEB128 of at
 * most 10 bytes; a longer or wider one is an error. No call reads past the end. */
#ifndef MERIDIAN_BASE_CURSOR_H
#define MERIDIAN_BASE_CURSOR_H

#include "base/bytes.h"
#include "base/err.h"

struct cursor {
        const uint8_t *at;
        const uint8_t *end;
        enum err err; /* ERR_NONE, ERR_TRUNCATED or ERR_MALFORMED */
};

/* Borrows `data` for the cursor's life. */
struct cursor cursor_of(struct bytes data);

uint8_t cursor_u8(struct cursor *cursor);
uint16_t cursor_u16(struct cursor *cursor);
uint32_t cursor_u32(struct cursor *cursor);
uint64_t cursor_u64(struct cursor *cursor);
uint64_t cursor_varint(struct cursor *cursor);

/* A varint that must be <= max, else ERR_MALFORMED. */
uint64_t cursor_varint_max(struct cursor *cursor, uint64_t max);

/* A zigzag varint. */
int64_t cursor_varint_signed(struct cursor *cursor);

/* The next `len` bytes, borrowed from the input. */
struct bytes cursor_bytes(struct cursor *cursor, size_t len);

/* A varint length, then that many bytes, borrowed from the input. */
struct bytes cursor_slice(struct cursor *cursor);

size_t cursor_left(const struct cursor *cursor);

/* Marks the input malformed, unless an error stands already. */
void cursor_fail(struct cursor *cursor, enum err err);

static inline bool cursor_failed(const struct cursor *cursor)
{
        return cursor->err != ERR_NONE;
}

/* The sticky error, or ERR_MALFORMED where bytes are left over, or ERR_NONE. */
MUST_USE enum err cursor_done(const struct cursor *cursor);

#endif
