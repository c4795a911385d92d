/* leader.h - where the leader of the global group is best, by the round trips that were measured.
 *
 * To lead from a region costs the time until a majority of the votes has answered (the votes of the
 * region itself answer at once), and the time that the clients of the other regions take to get
 * there, each region by its capacity. Measurements wobble and to move costs an election, so a
 * region is preferred only where it is better by a fifth and by 5 ms: than the mean of all, where
 * none is preferred yet, or than the one that is.
 *
 * Pure. Cost: O(regions^2 log regions). */
#ifndef MERIDIAN_COUNCIL_LEADER_H
#define MERIDIAN_COUNCIL_LEADER_H

#include "topology/topology.h"

struct leader_region {
        uint8_t id;
        bool leads;                            /* may lead: it has voters with data, and is there */
        uint32_t votes;                        /* of its nodes */
        uint32_t capacity;                     /* of its clients; 0: it has none */
        uint64_t rtt_us[TOPOLOGY_REGIONS_MAX]; /* to the i-th region; 0: not known */
};

/* The id of the region that is to be preferred, `present` being preferred now (0: none). 0: none;
 * `present` also where a round trip that counts is not known. */
uint8_t leader_region_best(const struct leader_region *regions, size_t count, uint8_t present);

#endif
