/* liar.h - a lock door that answers by a script, for tests of who must not believe it. */
#ifndef MERIDIAN_TESTS_HOLDER_LIAR_H
#define MERIDIAN_TESTS_HOLDER_LIAR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
        LIAR_CLIENTS_MAX = 512,
        LIAR_ACTS_MAX = 8,
};

enum liar_flag {
        LIAR_CLOSES = 1, /* after what it says */
        LIAR_DRIPS = 2,  /* byte by byte */
};

/* What is said to a command. The first act that fits and is not used up counts; none: silence. */
struct liar_act {
        const char *to;   /* how the command begins; NULL: any */
        const char *say;  /* NULL: nothing */
        unsigned times;   /* 0: always */
        unsigned flags;   /* enum liar_flag */
        size_t say_bytes; /* 0: all of it */
};

struct liar {
        char node[32]; /* "127.0.0.1:port" */
        int listen_fd;
        int end_fd;
        pthread_t thread;
        struct liar_act acts[LIAR_ACTS_MAX];
        unsigned used[LIAR_ACTS_MAX];
        _Atomic unsigned acquires;
        _Atomic unsigned renewals;
        _Atomic unsigned releases;
        _Atomic uint64_t last_us; /* when the last ACQUIRE came */
};

/* Acts end with the first whose `to` and `say` are NULL. */
void liar_begin(struct liar *liar, const struct liar_act *acts);
void liar_end(struct liar *liar);

#endif
