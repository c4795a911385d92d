/* buffer.h - writing bytes: grows on a heap; the first failure sticks and later writes do nothing,
 * so that a caller checks once at the end. The mirror of cursor.h. */
#ifndef MERIDIAN_BASE_BUFFER_H
#define MERIDIAN_BASE_BUFFER_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"

struct buffer {
        struct heap *heap;
        uint8_t *ptr;
        size_t len;
        size_t size;
        enum err err; /* ERR_NONE or ERR_NOMEM */
};

/* Keeps `heap` until buffer_fini. Allocates nothing yet. */
void buffer_init(struct buffer *buffer, struct heap *heap);
void buffer_fini(struct buffer *buffer);

/* Empties it and clears the error; the memory stays. */
void buffer_reset(struct buffer *buffer);

/* The same, but memory beyond `keep` bytes goes back: for what is used again and again, and is
 * large once. */
void buffer_trim(struct buffer *buffer, size_t keep);

void buffer_u8(struct buffer *buffer, uint8_t value);
void buffer_u16(struct buffer *buffer, uint16_t value);
void buffer_u32(struct buffer *buffer, uint32_t value);
void buffer_u64(struct buffer *buffer, uint64_t value);
void buffer_varint(struct buffer *buffer, uint64_t value);
void buffer_varint_signed(struct buffer *buffer, int64_t value);
void buffer_bytes(struct buffer *buffer, struct bytes data);

/* Varint length, then the bytes: what cursor_slice reads. */
void buffer_slice(struct buffer *buffer, struct bytes data);

/* Text by a format; the NUL is not kept. */
void buffer_format(struct buffer *buffer, const char *format, ...) PRINTF_LIKE(2, 3);

/* Overwrites 4 bytes at `at`, which must have been written already. */
void buffer_patch_u32(struct buffer *buffer, size_t at, uint32_t value);

/* Drops the first `len` bytes (<= buffer->len) by moving the rest. Cost: what is left. */
void buffer_consume(struct buffer *buffer, size_t len);

/* Room for `len` more bytes: a pointer to write to, or NULL. Then buffer_commit what was used. */
MUST_USE uint8_t *buffer_reserve(struct buffer *buffer, size_t len);
void buffer_commit(struct buffer *buffer, size_t len);

/* What was written, borrowed until the next call on the buffer. */
static inline struct bytes buffer_view(const struct buffer *buffer)
{
        return bytes_of(buffer->ptr, buffer->len);
}

#endif
