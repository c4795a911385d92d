/* bytes.h - slices: a pointer and a length, by value. Nothing in the core is NUL-terminated. */
#ifndef MERIDIAN_BASE_BYTES_H
#define MERIDIAN_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define COUNT_OF(a)             (sizeof(a) / sizeof((a)[0]))

#define MUST_USE                __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))

/* A borrowed run of bytes. `ptr` may be NULL only when `len` is 0. */
struct bytes {
        const uint8_t *ptr;
        size_t len;
};

/* A slice of a string literal: BYTES for expressions, BYTES_INIT for static tables. */
#define BYTES(literal) ((struct bytes){(const uint8_t *)("" literal), sizeof(literal) - 1})
#define BYTES_INIT(literal)                                                                        \
        {                                                                                          \
                (const uint8_t *)("" literal), sizeof(literal) - 1                                 \
        }

static inline struct bytes bytes_of(const void *ptr, size_t len)
{
        return (struct bytes){(const uint8_t *)ptr, len};
}

/* Eight bytes as a number, the lowest first; `at` needs no alignment. */
static inline uint64_t bytes_u64(const void *at)
{
        uint64_t value;
        memcpy(&value, at, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = __builtin_bswap64(value);
#endif
        return value;
}

/* A slice of a NUL-terminated string, without the NUL. */
static inline struct bytes bytes_of_str(const char *text)
{
        return bytes_of(text, strlen(text));
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
        return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Lexicographic order; a prefix sorts before what it begins. Returns < 0, 0 or > 0. */
static inline int bytes_compare(struct bytes a, struct bytes b)
{
        size_t len = a.len < b.len ? a.len : b.len;
        int order = len == 0 ? 0 : memcmp(a.ptr, b.ptr, len);
        if (order != 0)
                return order;
        return (a.len > b.len) - (a.len < b.len);
}

static inline bool bytes_starts_with(struct bytes whole, struct bytes prefix)
{
        return whole.len >= prefix.len &&
               (prefix.len == 0 || memcmp(whole.ptr, prefix.ptr, prefix.len) == 0);
}

/* printf arguments for "%.*s". Slices longer than INT_MAX are cut. */
#define BYTES_ARGS(b) ((int)((b).len > 0x7fffffff ? 0x7fffffff : (b).len)), ((const char *)(b).ptr)

#endif
