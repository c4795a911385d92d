/* fetch.h - asks the processor for memory before it is read. Only hints: the address may be any. */
#ifndef MERIDIAN_BASE_FETCH_H
#define MERIDIAN_BASE_FETCH_H

#include <stddef.h>

enum {
        FETCH_LINE = 64,
};

/* Without the empty statement gcc 12 takes a function that only fetches for one that does nothing,
 * and leaves out the calls of it whose value is not used. */
static inline void fetch_at(const void *at)
{
        __builtin_prefetch(at);
        __asm__ volatile("");
}

/* All lines of them; `len` > 0. */
static inline void fetch_bytes(const void *from, size_t len)
{
        const char *at = from;
        for (size_t i = 0; i < len; i += FETCH_LINE)
                fetch_at(at + i);
        fetch_at(at + len - 1);
}

#endif
