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

/* Short ones, which most are, by two moves that may overlap and no call. */
static inline uint8_t *put_bytes(uint8_t *at, struct bytes data)
{
        struct put_block {
                uint8_t bytes[16];
        } head, tail;
        if (data.len >= sizeof head && data.len <= 2 * sizeof head) {
                memcpy(&head, data.ptr, sizeof head);
                memcpy(&tail, data.ptr + data.len - sizeof tail, sizeof tail);
                memcpy(at, &head, sizeof head);
                memcpy(at + data.len - sizeof tail, &tail, sizeof tail);
        } else if (data.len >= 8 && data.len < sizeof head) {
                memcpy(&head, data.ptr, 8);
                memcpy(&tail, data.ptr + data.len - 8, 8);
                memcpy(at, &head, 8);
                memcpy(at + data.len - 8, &tail, 8);
        } else if (data.len > 0) {
                memcpy(at, data.ptr, data.len);
        }
        return at + data.len;
}

static inline uint8_t *put_slice(uint8_t *at, struct bytes data)
{
        return put_bytes(put_varint(at, data.len), data);
}

#endif
