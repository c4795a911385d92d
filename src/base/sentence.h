/* sentence.h - sentences for people with places to be filled in: "{region} is down". */
#ifndef MERIDIAN_BASE_SENTENCE_H
#define MERIDIAN_BASE_SENTENCE_H

#include <stddef.h>

struct sentence_word {
        const char *place; /* with its braces */
        const char *value; /* NULL or empty: `missing` stands there */
};

/* Writes `sentence` to text[size] (size > 0) with its places filled in, cut to fit and terminated.
 * Braces that are no place of `words` stay. Returns `text`. */
const char *sentence_fill(const char *sentence, const struct sentence_word *words, size_t count,
                          const char *missing, char *text, size_t size);

#endif
