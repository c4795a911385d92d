/* answer.h - private to holder/: what a lock door may answer, and nothing else. */
#ifndef MERIDIAN_HOLDER_ANSWER_H
#define MERIDIAN_HOLDER_ANSWER_H

#include <stddef.h>
#include <stdint.h>

enum {
        ANSWER_BYTES_MAX = 1024,
        ANSWER_TEXT_SIZE = 384,
};

enum answer_kind {
        ANSWER_NONE,    /* nobody answered: text says who, and why */
        ANSWER_WAITING, /* not yet; the question stands */
        ANSWER_NUMBERS, /* an integer, or an array of one or two */
        ANSWER_NIL,
        ANSWER_ERROR, /* text is the line */
        ANSWER_OTHER, /* a word that is no error; text has it */
};

struct answer {
        enum answer_kind kind;
        uint64_t numbers[2]; /* 0 to INT64_MAX */
        size_t count;
        char text[ANSWER_TEXT_SIZE];
};

enum answer_state {
        ANSWER_MORE, /* what came may become an answer */
        ANSWER_WHOLE,
        ANSWER_BAD, /* no answer of a lock door, or more than one answer */
};

/* Reads what came so far. `ret` is written where it is whole. */
enum answer_state answer_read(const char *text, size_t len, struct answer *ret);

#endif
