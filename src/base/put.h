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

static inline uint8_t *put_varint(uint8_t *at, uint64_t value)
{
        for (; value >= 0x80; value >>= 7)
                *at++ = (uint8_t)(value | 0x80);
        *at++ = (uint8_t)value;
        return at;
}

static inline uint8_t *put_bytes(uint8_t *at, struct bytes data)
{
        if (data.len > 0)
                memcpy(at, data.ptr, data.len);
        return at + data.len;
}

static inline uint8_t *put_slice(uint8_t *at, struct bytes data)
{
        return put_bytes(put_varint(at, data.len), data);
}

#endif
