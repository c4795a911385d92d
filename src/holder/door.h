/* door.h - private to holder/: one question and its answer, over RESP, to whichever node answers.
 * */
#ifndef MERIDIAN_HOLDER_DOOR_H
#define MERIDIAN_HOLDER_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        DOOR_NODES_MAX = 16,
        DOOR_TEXT_MAX = 1024,
};

struct door {
        char *nodes[DOOR_NODES_MAX];
        size_t node_count;
        size_t at; /* the node that is asked */
        int fd;    /* -1: none */
};

enum door_answer_kind {
        DOOR_NONE,    /* no answer in time: text says why */
        DOOR_NUMBERS, /* an integer, or an array of them */
        DOOR_NIL,
        DOOR_ERROR, /* text is the whole line */
};

struct door_answer {
        enum door_answer_kind kind;
        uint64_t numbers[2];
        size_t count;
        char text[256];
};

/* Copies the names. False: out of memory, or too many. */
bool door_open(struct door *door, const char *const *nodes, size_t count);
void door_close(struct door *door);

/* Asks the present node, by a connection that is kept. After DOOR_NONE the next one's turn comes.
 * */
void door_ask(struct door *door, const char *const *words, size_t count, uint64_t until_us,
              struct door_answer *ret);

/* The next node, after an answer that another may do better. */
void door_next(struct door *door);

/* Microseconds of a clock that goes on while the machine sleeps. */
uint64_t door_now_us(void);

#endif
