/* seats.h - who is what in a Raft group: as the topology wants it, and step by step from what is.
 *
 * The rule. A region's own group: each of its nodes votes. The global group: every node is in it.
 * Of each region the first N nodes of the document vote, and all others learn (they know all, and
 * count for nothing). N is the largest of 3, 2, 1 by which no region has half of the votes, so that
 * any region may be lost; one and two regions cannot have that: there N is 3, and of two that
 * would have equally many, more than one, the second has one less. Of a witness region one node is
 * witness; it has no other. So three regions of one, two or three nodes have 3, 6 or 9 votes, and
 * regions of 3, 3 and 1 nodes have 7, of 3, 2 and 1 five, of 3, 1 and 1 three.
 *
 * The way. One member changes at a time; who is to go goes last, when all who are to come have
 * come, and he who leads hands over first. One that is not there any more goes first: without it
 * the majority is smaller. Nothing is done that would leave those who are there without a
 * majority. Whoever leads asks again and again, so a leader that dies in between costs nothing.
 *
 * Pure. Costs: O(members^2). */
#ifndef MERIDIAN_COUNCIL_SEATS_H
#define MERIDIAN_COUNCIL_SEATS_H

#include "base/err.h"
#include "raft/consensus.h"
#include "topology/topology.h"

enum {
        SEATS_MAX = CONSENSUS_VOTERS_MAX,
        SEATS_REGION_VOTES_MAX = 3,
        SEATS_PRIORITY = 8, /* of who may lead and has no reason to; a witness has 0 */
};

struct seat {
        struct consensus_member member;
        uint8_t region; /* 0: of none that is known */
        bool there;     /* was heard lately; of one that is wanted: without meaning */
};

/* Members of a group, as they are or as they are to be. */
struct seats {
        size_t count;
        struct seat items[SEATS_MAX];
};

/* Who is to be what, by the topology: of the global group where `region` is 0. False: there are
 * more than SEATS_MAX nodes, or none. */
MUST_USE bool seats_wanted(const struct topology *topology, uint8_t region, struct seats *ret);

enum seats_action {
        SEATS_DONE,      /* it is as wanted */
        SEATS_WAIT,      /* for `node`; `why` says for what */
        SEATS_SET,       /* consensus_member_set of `member` */
        SEATS_REMOVE,    /* consensus_member_remove of `node` */
        SEATS_HAND_OVER, /* consensus_transfer to `node` */
};

struct seats_step {
        enum seats_action action;
        uint32_t node;
        struct consensus_member member;
        const char *why; /* for people: "takes in", "waits until it runs and has caught up" */
};

/* The next step of the leader `self` from `now` to `wanted`. */
void seats_next(const struct seats *now, const struct seats *wanted, uint32_t self,
                struct seats_step *ret);

/* How many votes there are, of all and of one region. */
size_t seats_votes(const struct seats *seats);
size_t seats_votes_of(const struct seats *seats, uint8_t region);

/* Does a majority stay when that region is lost? */
bool seats_survive(const struct seats *seats, uint8_t region);

const struct seat *seats_find(const struct seats *seats, uint32_t node);

#endif
