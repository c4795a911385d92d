/* See row.h. Cannot fail: a sentence that does not fit is cut; a page's buffer keeps its own
 * error. */
#include "base/row.h"

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

void row_mask_markdown(struct buffer *buffer, uint32_t mask, unsigned count,
                       const char *(*name)(unsigned value))
{
        bool first = true;
        for (unsigned i = 0; i < count && mask != (1u << count) - 1; i++) {
                if (!row_mask_holds(mask, i))
                        continue;
                buffer_format(buffer, "%s%s", first ? "" : ", ", name(i));
                first = false;
        }
        buffer_format(buffer, "%s | ", mask == (1u << count) - 1 ? "any" : "");
}

void row_flag_markdown(struct buffer *buffer, uint8_t mask, const char *yes, const char *no,
                       bool *first)
{
        if (mask == ROW_ANY)
                return;
        buffer_format(buffer, "%s%s", *first ? "" : ", ", mask == ROW_YES ? yes : no);
        *first = false;
}
