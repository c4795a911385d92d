/* cursor.c - reads bytes that nobody vouches for. The first error sticks and puts the cursor at
 * the end, where every read gives zero. */
#include "base/cursor.h"

struct cursor cursor_of(struct bytes data)
{
        return (struct cursor){.at = data.ptr,
                               .end = data.len == 0 ? data.ptr : data.ptr + data.len};
}

size_t cursor_left(const struct cursor *cursor)
{
        return cursor->at == cursor->end ? 0 : (size_t)(cursor->end - cursor->at);
}

void cursor_fail(struct cursor *cursor, enum err err)
{
        if (cursor->err == ERR_NONE)
                cursor->err = err;
        cursor->at = cursor->end;
}

struct bytes cursor_bytes(struct cursor *cursor, size_t len)
{
        if (len > cursor_left(cursor)) {
                cursor_fail(cursor, ERR_TRUNCATED);
                return (struct bytes){0};
        }
        struct bytes data = bytes_of(cursor->at, len);
        if (len > 0)
                cursor->at += len;
        return data;
}

static uint64_t cursor_fixed(struct cursor *cursor, size_t width)
{
        struct bytes data = cursor_bytes(cursor, width);
        uint64_t value = 0;
        for (size_t i = data.len; i > 0; i--)
                value = value << 8 | data.ptr[i - 1];
        return value;
}

uint8_t cursor_u8(struct cursor *cursor)
{
        return (uint8_t)cursor_fixed(cursor, 1);
}

uint16_t cursor_u16(struct cursor *cursor)
{
        return (uint16_t)cursor_fixed(cursor, 2);
}

uint32_t cursor_u32(struct cursor *cursor)
{
        return (uint32_t)cursor_fixed(cursor, 4);
}

uint64_t cursor_u64(struct cursor *cursor)
{
        struct bytes data = cursor_bytes(cursor, sizeof(uint64_t));
        return data.len > 0 ? bytes_u64(data.ptr) : 0;
}

uint64_t cursor_varint(struct cursor *cursor)
{
        if (cursor->at != cursor->end && *cursor->at < 0x80) /* most are */
                return *cursor->at++;
        uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
                uint8_t byte = cursor_u8(cursor);
                if (shift == 63 && byte > 1)
                        break;
                value |= (uint64_t)(byte & 0x7f) << shift;
                if (byte < 0x80)
                        return cursor_failed(cursor) ? 0 : value;
        }
        cursor_fail(cursor, ERR_MALFORMED);
        return 0;
}

uint64_t cursor_varint_max(struct cursor *cursor, uint64_t max)
{
        uint64_t value = cursor_varint(cursor);
        if (value <= max)
                return value;
        cursor_fail(cursor, ERR_MALFORMED);
        return 0;
}

int64_t cursor_varint_signed(struct cursor *cursor)
{
        uint64_t value = cursor_varint(cursor);
        return (int64_t)(value >> 1 ^ (0 - (value & 1)));
}

struct bytes cursor_slice(struct cursor *cursor)
{
        const uint8_t *at = cursor->at;
        if (at != cursor->end && *at < 0x80 && *at < cursor->end - at) { /* most are short */
                cursor->at = at + 1 + *at;
                return bytes_of(at + 1, *at);
        }
        uint64_t len = cursor_varint(cursor);
        if (len > cursor_left(cursor)) {
                cursor_fail(cursor, ERR_TRUNCATED);
                return (struct bytes){0};
        }
        return cursor_bytes(cursor, (size_t)len);
}

enum err cursor_done(const struct cursor *cursor)
{
        if (cursor->err != ERR_NONE)
                return cursor->err;
        return cursor->at == cursor->end ? ERR_NONE : ERR_MALFORMED;
}
