/* row.h - tables of decisions: each row says for which combinations it holds, what is decided, and
 * the sentence for people. A column is a mask of the values of an enum, or a flag that may be one
 * of two or both. Who has such a table looks for the first row of which all columns hold; its tests
 * go through every combination, and its page is made from the rows. */
#ifndef MERIDIAN_BASE_ROW_H
#define MERIDIAN_BASE_ROW_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        ROW_NO = 1,
        ROW_YES = 2,
        ROW_ANY = 3,
};

static inline bool row_flag_holds(uint8_t mask, bool value)
{
        return (mask & (value ? ROW_YES : ROW_NO)) != 0;
}

static inline bool row_mask_holds(uint32_t mask, unsigned value)
{
        return (mask >> value & 1u) != 0;
}

/* A cell of the page, "a, b | ", of a mask over `count` (< 32) values; "any" where all are set.
 * `name` may take an enum: those without negative values are unsigned. */
void row_mask_markdown(struct buffer *buffer, uint32_t mask, unsigned count,
                       const char *(*name)(unsigned value));

/* A word of a cell: `yes` or `no`; nothing where both hold. `*first`: it is the cell's first. */
void row_flag_markdown(struct buffer *buffer, uint8_t mask, const char *yes, const char *no,
                       bool *first);

struct sentence_word {
        const char *place; /* with its braces */
        const char *value; /* NULL or empty: `missing` stands there */
};

/* Writes `sentence` to text[size] (size > 0) with its places filled in, cut to fit and terminated.
 * Braces that are no place of `words` stay. Returns `text`. */
const char *sentence_fill(const char *sentence, const struct sentence_word *words, size_t count,
                          const char *missing, char *text, size_t size);

#endif
