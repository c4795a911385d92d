/* door.h - private to holder/: one question at a time over RESP, to whichever node answers. */
#ifndef MERIDIAN_HOLDER_DOOR_H
#define MERIDIAN_HOLDER_DOOR_H

#include "holder/answer.h"
#include "holder/names.h"

enum {
        DOOR_NODES_MAX = 16,
};

struct door {
        struct name nodes[DOOR_NODES_MAX];
        size_t node_count;
        size_t at;   /* the node that is asked */
        int fd;      /* -1: none */
        int wake_fd; /* readable: every wait ends; -1: none */
        bool asked;  /* a question has no answer yet */
        size_t came_len;
        char came[ANSWER_BYTES_MAX];
};

/* Copies the names. REFUSED: one of them is no name (node_count is its index), NOMEM. To be closed
 * in any case. */
enum meridian_lock_status door_open(struct door *door, const char *const *nodes, size_t count);
void door_close(struct door *door);

/* Sends a question to the present node, by the connection that is kept or a new one, which must be
 * made by `until_us`. A question that has no answer yet is given up, with its connection. False:
 * it was not sent, `ret` is ANSWER_NONE and the next node's turn has come. */
bool door_send(struct door *door, const char *const *words, size_t count, uint64_t until_us,
               struct answer *ret);

/* Waits for the answer. ANSWER_WAITING: there is none by `until_us`, or `wake_fd` said so; wait
 * again, or go on with anything else. ANSWER_NONE: there will be none, the next node's turn has
 * come. */
void door_wait(struct door *door, uint64_t until_us, struct answer *ret);

/* Both; ANSWER_NONE also where time is up. */
void door_ask(struct door *door, const char *const *words, size_t count, uint64_t until_us,
              struct answer *ret);

/* The next node, after an answer that another may do better, or none: `ret` says so where it is
 * WAITING. */
void door_next(struct door *door, struct answer *ret);

/* Does the present node say anything at all, asked by a connection of its own? */
bool door_alive(const struct door *door, uint64_t until_us);

#endif
