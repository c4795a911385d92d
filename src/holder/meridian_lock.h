/* meridian_lock.h - locks for programs: a lock that is kept while its program lives, and that says
 * so before it becomes doubtful.
 *
 * A lock is a lease, renewed by a thread of this library at a quarter of its time to live. The
 * library counts the lease from the moment when the question was sent that was answered last, by a
 * clock that goes on while the machine sleeps, and takes off 5 per cent for clocks that run apart.
 * So meridian_lock_sure is never true for a lock that may be somebody else's: not after the process
 * was stopped, not while no node can be reached. It reads the clock; it does not ask anybody.
 *
 * What takes time after that look is another matter: a program that was sure and then writes to a
 * resource may be stopped in between. So send the token with whatever is written, and let the
 * resource refuse a smaller one than the largest that it has seen. The same goes for a machine
 * that is stopped as a whole with its clock (a snapshot, a migration): it cannot notice.
 *
 * A lock belongs to the process that acquired it: in a child of fork it is never sure, and its
 * release there gives back memory only. A program that becomes a daemon acquires after that.
 *
 * Link with -lmeridian_lock. A lock may be used by several threads at once, but for its release. It
 * costs a thread, which takes no signals, and two descriptors. */
#ifndef MERIDIAN_LOCK_H
#define MERIDIAN_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MERIDIAN_LOCK_TTL_MS_MIN 200

struct meridian_lock;

enum meridian_lock_news {
        MERIDIAN_LOCK_DOUBTFUL = 1, /* not renewed in time: it ends soon. Stop what needs it */
        MERIDIAN_LOCK_RENEWED, /* after DOUBTFUL: all is well again, it was held all the time */
        MERIDIAN_LOCK_LOST,    /* it has ended, or was taken away; the last news of a lock */
};

struct meridian_lock_options {
        const char *const *nodes; /* "HOST:PORT" of the lock doors (7402), asked in turn; a host is
                                   * an address of IPv4 or IPv6, or a name */
        size_t node_count;
        const char *owner;  /* NULL: one that nobody else has. Two locks of one owner and key would
                             * be one: the release of the first ends the second */
        unsigned ttl_ms;    /* 0: 10 s; at least MERIDIAN_LOCK_TTL_MS_MIN */
        unsigned wait_ms;   /* 0: do not wait */
        unsigned margin_ms; /* DOUBTFUL comes so long before the end; 0: a quarter of the lease */
        unsigned slots;     /* 0 or 1: exclusive; else of a semaphore */
        bool shared;        /* for readers */
        unsigned delay_ms;  /* nobody gets it for so long after it has expired */
        /* Called by the library's thread; it must not release the lock, nor take long. */
        void (*news)(void *context, enum meridian_lock_news news);
        void *context;
};

enum meridian_lock_status {
        MERIDIAN_LOCK_OK,
        MERIDIAN_LOCK_HELD,        /* by somebody else, to the end of the wait */
        MERIDIAN_LOCK_UNREACHABLE, /* no node answered, or none has a majority: see why */
        MERIDIAN_LOCK_REFUSED,     /* the request was wrong: see why */
        MERIDIAN_LOCK_NOMEM,       /* out of memory, descriptors or threads */
};

/* Waits for the lock up to wait_ms, and at most ten seconds more where nodes do not answer. One
 * that is silent for long is passed over, which may cost the place in the queue. `why` (NULL, or
 * of `why_size` bytes) gets a sentence where it is not OK. The lock must be released in any case,
 * also when it is lost. */
enum meridian_lock_status meridian_lock_acquire(const struct meridian_lock_options *options,
                                                const char *key, struct meridian_lock **ret_lock,
                                                char *why, size_t why_size);

/* True: nobody else holds it now. */
bool meridian_lock_sure(struct meridian_lock *lock);

/* For so long, unless it is renewed; 0: it is not sure. */
unsigned meridian_lock_left_ms(struct meridian_lock *lock);

/* The fencing token: larger than that of any holder before. Never changes. */
uint64_t meridian_lock_token(const struct meridian_lock *lock);

/* Gives the lock back and frees it: true when a node has said so; else it ends by itself. Takes at
 * most two seconds, and no longer than the lease. After it there is no news. NULL is fine; called
 * from news() it does nothing. */
bool meridian_lock_release(struct meridian_lock *lock);

#ifdef __cplusplus
}
#endif

#endif
