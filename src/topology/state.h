/* state.h - the states of a region, and who may move a region from which to which.
 *
 *                                .-------- auto --------.
 *                                v                      |
 *    joining ----- auto -----> active ----- auto ---> suspect
 *       |                       ^  |                    |
 *       |                       |  |                    |          auto = by automatism
 *      auto                   auto auto                auto        op   = by an operator
 *       |                       |  |                    |
 *       |     recovering -------'  |                    |
 *       |      ^      |            |                    |
 *       |     auto   auto          |                    |
 *       |      |      v            |                    |
 *       '--------> down <----------+--------------------'
 *
 *    joining, active, suspect, recovering -- op --> draining -- auto, op --> drained
 *    down, isolated -- op --> drained          draining -- op --> active
 *    drained, isolated -- op --> recovering    every other state -- op --> isolated
 *
 * What an operator took out (draining, drained, isolated) never returns by automatism. The table in
 * state.c is the truth; tests/topology/test_state.c holds this drawing against it. */
#ifndef MERIDIAN_TOPOLOGY_STATE_H
#define MERIDIAN_TOPOLOGY_STATE_H

#include "base/bytes.h"

enum region_state {
        REGION_JOINING,    /* new: fetches the data, gets no traffic yet */
        REGION_ACTIVE,     /* serves */
        REGION_DRAINING,   /* an operator takes it out: no new traffic, the old one ends */
        REGION_DRAINED,    /* out by an operator's wish; data still replicates */
        REGION_SUSPECT,    /* not heard of late, or not by all; still serves */
        REGION_DOWN,       /* a majority does not hear it, or it says so itself: no traffic */
        REGION_RECOVERING, /* heard again: catches up, gets no traffic yet */
        REGION_ISOLATED,   /* cut off by an operator (security): no traffic, no data */
        REGION_STATE_COUNT,
};

enum region_actor {
        REGION_ACTOR_AUTOMATIC,
        REGION_ACTOR_OPERATOR,
        REGION_ACTOR_COUNT,
};

/* May `actor` move a region from `from` to `to`? Staying is no move: false. Values out of range
 * (from a peer, say) are answered with false. */
bool region_state_may(enum region_state from, enum region_state to, enum region_actor actor);

/* Does a region in this state get new traffic, as far as its state goes: active and suspect. */
bool region_state_serves(enum region_state state);

/* Do deltas flow from and to a region in this state: all but isolated. */
bool region_state_replicates(enum region_state state);

/* "active", ...; "unknown" for a value out of range. Static. */
const char *region_state_name(enum region_state state);
const char *region_actor_name(enum region_actor actor);

/* The state of a name. */
MUST_USE bool region_state_parse(struct bytes name, enum region_state *ret);

#endif
