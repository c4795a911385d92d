/* holder_priv.h - private to holder/: a lock, and the thread that keeps it. */
#ifndef MERIDIAN_HOLDER_PRIV_H
#define MERIDIAN_HOLDER_PRIV_H

#include "holder/door.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
        OWNER_SIZE = 264,
        KEY_SIZE = 520,
};

/* Times that tests make shorter, or longer. */
struct holder_times {
        uint64_t ask_us;   /* twice that for an answer, beyond the wait */
        uint64_t dial_us;  /* for a connection, while the lock is asked for */
        uint64_t slack_us; /* for other nodes, when the wait is over */
        uint64_t pause_us; /* before another node is asked */
        uint64_t probe_us; /* silence after which a node is looked at; doubles, up to eight times */
        uint64_t look_us;  /* for a word of that node */
        uint64_t release_us;
};

extern struct holder_times holder_times;

struct meridian_lock {
        struct door door;
        char key[KEY_SIZE];
        char owner[OWNER_SIZE];
        uint64_t token;
        uint64_t ttl_us;
        uint64_t margin_us;
        uint64_t process; /* that holds it */
        void (*news)(void *context, enum meridian_lock_news news);
        void *context;
        _Atomic uint64_t until_us; /* 0: lost */
        /* Of the keeper, when it runs. */
        uint64_t due_us;      /* when to ask for a renewal */
        uint64_t patience_us; /* for its answer */
        bool doubtful;
        int wake_fd; /* readable: the keeper ends */
        pthread_t thread;
};

/* A renewal is asked for; its answer counts from `*ret_sent_us`. False: `ret` says why not. */
bool keeper_ask(struct meridian_lock *lock, uint64_t until_us, uint64_t *ret_sent_us,
                struct answer *ret);

/* What an answer to a question that was sent then says about a lease of so long. True: more than
 * was known. */
bool keeper_take(struct meridian_lock *lock, uint64_t sent_us, uint64_t lease_ms);

/* Keeps the lock until keeper_end, or its end. False: there is no thread to be had. */
bool keeper_begin(struct meridian_lock *lock);
void keeper_end(struct meridian_lock *lock);

#endif
