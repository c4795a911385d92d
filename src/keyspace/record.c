/* See record.h. Reading fails where the bytes end too early or a delta is shorter than its clock;
 * what is in a delta is not looked at. */
#include "keyspace/record.h"

#include "base/check.h"
#include "base/put.h"

enum {
        FRAME_KIND = 1, /* how a frame begins that RECORD_NEAR or the caller's kind follows */
};

static uint8_t *put_near(struct record *record, uint8_t *at)
{
        record->near = true;
        *at++ = FRAME_KIND;
        *at++ = RECORD_NEAR;
        return at;
}

void record_add(struct record *record, struct buffer *buffer, struct bytes delta, bool cut)
{
        CHECK(delta.len > RECORD_CLOCK);
        size_t need = 2 + (size_t)2 * PUT_VARINT_MAX + delta.len;
        if (buffer->size - buffer->len < need && buffer_reserve(buffer, need) == NULL)
                return;
        uint8_t *from = buffer->ptr + buffer->len;
        uint8_t *at = from;
        uint64_t clock = bytes_u64(delta.ptr);
        if (record->any) {
                if (!record->near)
                        at = put_near(record, at);
                struct bytes rest = bytes_of(delta.ptr + RECORD_CLOCK, delta.len - RECORD_CLOCK);
                at = put_varint(at, (uint64_t)rest.len << 1 | cut);
                at = put_bytes(put_varint(at, clock - record->last), rest);
        } else {
                at = put_bytes(put_varint(at, (uint64_t)delta.len << 1 | cut), delta);
        }
        record->any = true;
        record->last = clock;
        buffer->len += (size_t)(at - from);
}

void record_begin(struct record_read *read, struct heap *heap, struct bytes bytes)
{
        *read = (struct record_read){.cursor = cursor_of(bytes)};
        buffer_init(&read->whole, heap);
}

void record_end(struct record_read *read)
{
        buffer_fini(&read->whole);
}

/* The delta of which all but the clock is `rest`. */
static struct bytes whole(struct record_read *read, uint64_t clock, struct bytes rest)
{
        buffer_reset(&read->whole);
        buffer_u64(&read->whole, clock);
        buffer_bytes(&read->whole, rest);
        if (read->whole.err != ERR_NONE)
                cursor_fail(&read->cursor, read->whole.err);
        return buffer_view(&read->whole);
}

static struct bytes delta_next(struct record_read *read, uint64_t len)
{
        struct cursor *cursor = &read->cursor;
        uint64_t added = read->near ? cursor_varint(cursor) : 0;
        struct bytes rest = cursor_bytes(cursor, len);
        if (!read->near && !cursor_failed(cursor) && len < RECORD_CLOCK)
                cursor_fail(cursor, ERR_MALFORMED);
        if (cursor_failed(cursor))
                return (struct bytes){0};
        read->last = read->near ? read->last + added : bytes_u64(rest.ptr);
        return read->near ? whole(read, read->last, rest) : rest;
}

enum record_frame record_next(struct record_read *read, struct bytes *ret_delta, uint8_t *ret_kind)
{
        struct cursor *cursor = &read->cursor;
        while (!cursor_failed(cursor) && cursor_left(cursor) > 0) {
                uint64_t head = cursor_varint(cursor);
                if (head == 0 && !cursor_failed(cursor))
                        return RECORD_ZERO;
                if (head != FRAME_KIND) {
                        *ret_delta = delta_next(read, head >> 1);
                        if (cursor_failed(cursor))
                                return RECORD_END;
                        return (head & 1) != 0 ? RECORD_CUT : RECORD_DELTA;
                }
                *ret_kind = cursor_u8(cursor);
                if (cursor_failed(cursor))
                        return RECORD_END;
                if (*ret_kind != RECORD_NEAR)
                        return RECORD_KIND;
                read->near = true;
        }
        return RECORD_END;
}
