/* put.h - writing where there is room, for hot paths that have made sure of it: each call writes at
 * `at` and returns what is behind. The formats are those of base/buffer.h. */
#ifndef MERIDIAN_BASE_PUT_H
#define MERIDIAN_BASE_PUT_H

#include "base/bytes.h"

enum {
        PUT_VARINT_MAX = 10, /* bytes of a varint */
};

static inline uint8_t *put_u64(uint8_t *at, uint64_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = __builtin_bswap64(value);
#endif
        memcpy(at, &value, sizeof value);
        return at + sizeof value;
}

/* Bytes of `value` as a varint: 1 to PUT_VARINT_MAX. */
static inline size_t put_varint_len(uint64_t value)
{
        size_t len = 1;
        for (; value >= 0x80; value >>= 7)
                len++;
        return len;
}

static inline uint8_t *put_varint(uint8_t *at, uint64_t value)
{
        for (; value >= 0x80; value >>= 7)
                *at++ = (uint8_t)(value | 0x80);
        *at++ = (uint8_t)value;
        return at;
}

static inline void put_block(uint8_t *at, const uint8_t *from)
{
        memcpy(at, from, 16);
}

/* Short ones, which most are, by moves of a fixed size that overlap, and no call. `data` must not
 * overlap with what is written. */
static inline uint8_t *put_bytes(uint8_t *at, struct bytes data)
{
        const uint8_t *from = data.ptr;
        size_t len = data.len;
        if (len >= 16 && len <= 64) {
                size_t half = len > 32 ? 32 : 16;
                put_block(at, from);
                put_block(at + half - 16, from + half - 16);
                put_block(at + len - half, from + len - half);
                put_block(at + len - 16, from + len - 16);
        } else if (len >= 8 && len < 16) {
                memcpy(at, from, 8);
                memcpy(at + len - 8, from + len - 8, 8);
        } else if (len > 0) {
                memcpy(at, from, len);
        }
        return at + len;
}

static inline uint8_t *put_slice(uint8_t *at, struct bytes data)
{
        return put_bytes(put_varint(at, data.len), data);
}

#endif
