/* merge.h - merge functions: a chunk of Lua 5.4 that is given the concurrent writes of one key and
 * returns the value to show. What it returns is a function of the siblings alone, so every region
 * shows the same without a word between them.
 *
 *      local siblings = ...          -- a list, oldest first: {value = , region = , stamp = }
 *      return siblings[1].value      -- a string or a number
 *
 * It has: string (byte, char, find without patterns, format, len, lower, rep, reverse, sub, upper),
 * table (concat, insert, remove, sort, unpack), math (abs, ceil, floor, fmod, huge, max,
 * maxinteger, min, mininteger, sqrt, tointeger, type), json (decode, encode, null), assert, error,
 * ipairs, select, sorted_pairs, tonumber, tostring, type. Nothing there tells time, place, an
 * address or the order of a table's memory; strings compare by byte; nothing outlives a call.
 *
 * Limits, the same in every region: MERGE_STEPS instructions, MERGE_BYTES of memory at once and
 * MERGE_VOLUME over the whole call, MERGE_BLOCK for one string or table. */
#ifndef MERIDIAN_MERGE_MERGE_H
#define MERIDIAN_MERGE_MERGE_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/heap.h"

enum {
        MERGE_STEPS = 200000,
        MERGE_BYTES = 8 << 20,
        MERGE_VOLUME = 64 << 20,
        MERGE_BLOCK = 256 << 10,
        MERGE_WHY_SIZE = 192,
};

struct merge_sibling {
        struct bytes value;
        uint32_t region;
        uint64_t stamp;
};

enum merge_result {
        MERGE_DONE,
        MERGE_FAILED,    /* the function raised an error, or returned no string */
        MERGE_TOO_LONG,  /* MERGE_STEPS */
        MERGE_TOO_LARGE, /* MERGE_BYTES, MERGE_VOLUME or MERGE_BLOCK */
        MERGE_RESULT_COUNT,
};

const char *merge_result_name(enum merge_result result);

/* Is that a chunk of Lua at all? False with the reason (a line of the text first) in `why`. */
MUST_USE bool merge_check(struct heap *heap, struct bytes text, char why[static MERGE_WHY_SIZE]);

/* Runs it. MERGE_DONE: the value is appended to `value`. Else nothing is, and `why` tells. Cost:
 * about 20 microseconds and what the function does; all memory is of `heap` and given back. */
enum merge_result merge_run(struct heap *heap, struct bytes text,
                            const struct merge_sibling *siblings, size_t count,
                            struct buffer *value, char why[static MERGE_WHY_SIZE]);

#endif
