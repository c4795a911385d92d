/* See sentence.h. Cannot fail: what does not fit is cut. */
#include "base/sentence.h"

#include "base/bytes.h"

#include <string.h>

/* The word whose place is at the begin of `at`, or NULL. */
static const struct sentence_word *word_at(const char *at, const struct sentence_word *words,
                                           size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (bytes_starts_with(bytes_of_str(at), bytes_of_str(words[i].place)))
                        return &words[i];
        }
        return NULL;
}

const char *sentence_fill(const char *sentence, const struct sentence_word *words, size_t count,
                          const char *missing, char *text, size_t size)
{
        size_t used = 0;
        for (const char *at = sentence; *at != 0 && used < size - 1;) {
                const struct sentence_word *word = word_at(at, words, count);
                if (word == NULL) {
                        text[used++] = *at++;
                        continue;
                }
                const char *value =
                        word->value != NULL && word->value[0] != 0 ? word->value : missing;
                size_t left = size - 1 - used;
                size_t take = strlen(value) < left ? strlen(value) : left;
                memcpy(text + used, value, take);
                used += take;
                at += strlen(word->place);
        }
        text[used] = 0;
        return text;
}
