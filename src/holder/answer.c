/* answer.c - the few answers of a lock door, read strictly: what is not exactly one of them, or has
 * anything behind it, is bad. A number that was read wrongly would be a token or a lease. */
#include "holder/answer.h"

#include <stdbool.h>
#include <string.h>

enum {
        NUMBER_LINE_MAX = 21, /* a type, and the digits of INT64_MAX with one to spare */
};

struct line {
        const char *text; /* without its type */
        size_t len;
        char type;
};

/* The line at `*at`, which moves behind it. */
static enum answer_state line_read(const char *text, size_t len, size_t *at, struct line *ret)
{
        const char *begin = text + *at;
        size_t left = len - *at;
        if (left == 0)
                return ANSWER_MORE;
        if (strchr("+-:*$_", begin[0]) == NULL || begin[0] == '\0')
                return ANSWER_BAD;
        bool word = begin[0] == '+' || begin[0] == '-';
        const char *end = memchr(begin, '\r', left);
        size_t whole = end == NULL ? left : (size_t)(end - begin);
        if ((!word && whole > NUMBER_LINE_MAX) || memchr(begin, '\n', whole) != NULL)
                return ANSWER_BAD;
        if (end == NULL || whole + 1 == left)
                return ANSWER_MORE;
        if (end[1] != '\n')
                return ANSWER_BAD;
        *ret = (struct line){.text = begin + 1, .len = whole - 1, .type = begin[0]};
        *at += whole + 2;
        return ANSWER_WHOLE;
}

static bool number_read(const struct line *line, uint64_t *ret)
{
        uint64_t value = 0;
        for (size_t i = 0; i < line->len; i++) {
                if (line->text[i] < '0' || line->text[i] > '9' || value > INT64_MAX / 10)
                        return false;
                value = value * 10 + (uint64_t)(line->text[i] - '0');
        }
        if (line->len == 0 || value > INT64_MAX)
                return false;
        *ret = value;
        return true;
}

static enum answer_state numbers_read(const char *text, size_t len, size_t *at,
                                      const struct line *head, struct answer *ret)
{
        uint64_t count;
        if (!number_read(head, &count) || count == 0 || count > 2)
                return ANSWER_BAD;
        for (ret->count = 0; ret->count < count; ret->count++) {
                struct line line;
                enum answer_state state = line_read(text, len, at, &line);
                if (state != ANSWER_WHOLE)
                        return state;
                if (line.type != ':' || !number_read(&line, &ret->numbers[ret->count]))
                        return ANSWER_BAD;
        }
        ret->kind = ANSWER_NUMBERS;
        return ANSWER_WHOLE;
}

static enum answer_state word_read(const struct line *line, struct answer *ret)
{
        size_t len = line->len < sizeof ret->text - 1 ? line->len : sizeof ret->text - 1;
        for (size_t i = 0; i < len; i++)
                ret->text[i] = line->text[i] >= 0 && line->text[i] < ' ' ? '?' : line->text[i];
        ret->text[len] = '\0';
        ret->kind = line->type == '-' ? ANSWER_ERROR : ANSWER_OTHER;
        return ANSWER_WHOLE;
}

static bool line_nil(const struct line *line)
{
        if (line->type == '_')
                return line->len == 0;
        return (line->type == '$' || line->type == '*') && line->len == 2 &&
               memcmp(line->text, "-1", 2) == 0;
}

static enum answer_state first_read(const char *text, size_t len, size_t *at, struct answer *ret)
{
        struct line line;
        enum answer_state state = line_read(text, len, at, &line);
        if (state != ANSWER_WHOLE)
                return state;
        if (line.type == '+' || line.type == '-')
                return word_read(&line, ret);
        if (line_nil(&line)) {
                ret->kind = ANSWER_NIL;
                return ANSWER_WHOLE;
        }
        if (line.type == '*')
                return numbers_read(text, len, at, &line, ret);
        ret->kind = ANSWER_NUMBERS;
        ret->count = 1;
        return line.type == ':' && number_read(&line, &ret->numbers[0]) ? ANSWER_WHOLE : ANSWER_BAD;
}

enum answer_state answer_read(const char *text, size_t len, struct answer *ret)
{
        struct answer answer = {.kind = ANSWER_NONE};
        size_t at = 0;
        enum answer_state state = first_read(text, len, &at, &answer);
        if (state == ANSWER_MORE && len >= ANSWER_BYTES_MAX)
                return ANSWER_BAD;
        if (state == ANSWER_WHOLE && at != len)
                return ANSWER_BAD;
        if (state == ANSWER_WHOLE)
                *ret = answer;
        return state;
}
