/* sets_priv.h - private to sets.c and watchers.c: users of several locks at once, of sessions and
 * of keys bound to them, and those who watch the locks. */
#ifndef MERIDIAN_SIM_SETS_PRIV_H
#define MERIDIAN_SIM_SETS_PRIV_H

#include "sim/sim_priv.h"

enum {
        SET_USERS = 4,
        SET_KEYS = 4,
        SET_WATCHERS = 3,
        SET_EVENTS_MAX = 8192,
        SET_GRANTS_MAX = 1024,
};

enum set_state {
        SET_IDLE,
        SET_OPENING, /* a session */
        SET_BINDING, /* a key to it */
        SET_ACQUIRING,
        SET_HOLDING,
        SET_KEEPING,
        SET_RELEASING, /* one lock after the other */
        SET_CLOSING,
        SET_READING, /* somebody's bound key */
};

struct set_user {
        uint32_t index;
        enum set_state state;
        uint32_t host;
        uint64_t owner;   /* another for each attempt, so that what is left of one is nobody's */
        uint64_t request; /* 0: none is open */
        uint64_t generation;
        uint64_t rate_ppm;
        uint64_t invoked_us;
        uint32_t tries;
        uint64_t ttl_ms, wait_ms;

        uint64_t session;          /* 0: none */
        uint64_t session_until_us; /* believes that it lives until then */
        uint64_t bound;            /* the session that its key was bound to, as it was told */

        unsigned keys; /* asked for, then held: bits */
        uint64_t token;
        uint64_t until_us; /* of a lease of its own */
        uint64_t floor[SET_KEYS];

        uint32_t read; /* whose key is read, and what was known of it when it was asked for */
        uint64_t read_bound;
        uint64_t read_told; /* so many ends were told by then */
};

/* A session that a user was told of. */
struct set_session {
        uint64_t number;
        uint64_t owner;
        uint64_t told; /* its end was the n-th that somebody was told; 0: nobody was */
};

struct set_event {
        uint64_t id;
        unsigned kind; /* enum lock_result_kind */
        uint32_t key;
        uint64_t owner, token;
};

struct set_watcher {
        uint32_t index;
        uint32_t host;
        uint64_t request;
        uint64_t generation;
        uint64_t after; /* told up to there */
        uint64_t asked; /* `after` of the open question */
        bool begun;     /* else it asks from the beginning, and from now where that is forgotten */
};

/* What was told of one lock, in order. */
struct set_told {
        uint64_t token; /* of the newest grant that was seen */
        bool held;
};

struct sets {
        struct set_user users[SET_USERS];
        struct set_watcher watchers[SET_WATCHERS];
        uint64_t owner_last;
        uint64_t token_max[SET_KEYS];
        struct linear_op *history;
        size_t history_count, history_size;
        struct set_session *sessions;
        size_t session_count, session_size;
        uint64_t told_ends;
        /* Watched: all events after `low` up to `high`. */
        struct set_event events[SET_EVENTS_MAX];
        size_t event_count;
        uint64_t low, high;
        struct set_told told[SET_KEYS];
        struct set_event grants[SET_GRANTS_MAX]; /* that users were told of */
        size_t grant_count;
};

/* sets.c */
const char *set_key_name(uint32_t key);
/* The key of that name, SET_KEYS: none. */
uint32_t set_key_of(struct bytes name);
/* The number in an owner's name. */
uint64_t set_owner_of(struct bytes name);
/* An owner's name. */
struct bytes set_number_text(uint64_t value, char text[24]);

/* bound.c */
void bound_opened(struct sim *sim, uint64_t session, uint64_t owner);
void bound_ended(struct sim *sim, uint64_t session);
/* Is the end of that session among the first `told_ends` that were told? */
bool bound_told(const struct sim *sim, uint64_t session, uint64_t told_ends);
/* Of a node, when all is quiet: a bound key has its session. */
void bound_check(struct sim *sim, const struct host *host);

/* watchers.c */
void watchers_init(struct sim *sim);
void watcher_step(struct sim *sim, uint32_t index, uint64_t generation);
void watcher_timeout(struct sim *sim, uint32_t index, uint64_t request);
bool watchers_reply(struct sim *sim, uint64_t request, const struct reply *reply);
void watchers_host_down(struct sim *sim, const struct host *host);
/* A user was told of a grant: those who watch are told of it too. */
void watchers_granted(struct sim *sim, uint32_t key, uint64_t owner, uint64_t token);
void watchers_check(struct sim *sim);

#endif
