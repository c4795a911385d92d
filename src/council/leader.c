/* leader.c - a cost for each region, and the smallest wins, if by enough. A region from which a
 * majority is not known to be reached costs more than any that is known, and wins nothing. */
#include "council/leader.h"

#include "base/check.h"

#define UNKNOWN_US    UINT64_MAX
#define BETTER_US     5000
#define BETTER_FIFTHS 4 /* at most so many fifths of the other's cost */

static uint32_t votes_all(const struct leader_region *regions, size_t count)
{
        uint32_t votes = 0;
        for (size_t i = 0; i < count; i++)
                votes += regions[i].votes;
        return votes;
}

/* The least time in which regions with a majority of the votes have answered. */
static uint64_t commit_us(const struct leader_region *regions, size_t count, size_t from)
{
        uint32_t needed = votes_all(regions, count) / 2 + 1;
        uint32_t have = regions[from].votes;
        uint64_t within_us = 0;
        while (have < needed) {
                uint64_t next_us = UNKNOWN_US;
                for (size_t i = 0; i < count; i++) {
                        uint64_t rtt_us = regions[from].rtt_us[i];
                        if (i != from && rtt_us > within_us && rtt_us < next_us)
                                next_us = rtt_us;
                }
                if (next_us == UNKNOWN_US)
                        return UNKNOWN_US;
                for (size_t i = 0; i < count; i++)
                        if (i != from && regions[from].rtt_us[i] == next_us)
                                have += regions[i].votes;
                within_us = next_us;
        }
        return within_us;
}

static uint64_t clients_us(const struct leader_region *regions, size_t count, size_t from)
{
        uint64_t sum = 0;
        uint64_t weight = 0;
        for (size_t i = 0; i < count; i++) {
                if (regions[i].capacity == 0)
                        continue;
                weight += regions[i].capacity;
                if (i == from)
                        continue;
                if (regions[from].rtt_us[i] == 0)
                        return UNKNOWN_US;
                sum += regions[from].rtt_us[i] * regions[i].capacity;
        }
        return weight == 0 ? 0 : sum / weight;
}

static uint64_t cost_us(const struct leader_region *regions, size_t count, size_t from)
{
        uint64_t commit = commit_us(regions, count, from);
        uint64_t clients = clients_us(regions, count, from);
        return commit == UNKNOWN_US || clients == UNKNOWN_US ? UNKNOWN_US : commit + clients;
}

static bool better(uint64_t a_us, uint64_t b_us)
{
        return a_us + BETTER_US <= b_us && a_us <= b_us / 5 * BETTER_FIFTHS;
}

uint8_t leader_region_best(const struct leader_region *regions, size_t count, uint8_t present)
{
        uint64_t best_us = UNKNOWN_US;
        uint64_t present_us = UNKNOWN_US;
        uint64_t sum_us = 0;
        uint64_t leads = 0;
        size_t best = 0;
        CHECK(count <= TOPOLOGY_REGIONS_MAX);
        for (size_t i = 0; i < count; i++) {
                uint64_t us = cost_us(regions, count, i);
                if (!regions[i].leads)
                        continue;
                if (us == UNKNOWN_US)
                        return present;
                leads++;
                sum_us += us;
                if (us < best_us) {
                        best_us = us;
                        best = i;
                }
                if (regions[i].id == present)
                        present_us = us;
        }
        if (leads == 0)
                return present;
        if (present_us != UNKNOWN_US)
                return better(best_us, present_us) ? regions[best].id : present;
        return better(best_us, sum_us / leads) ? regions[best].id : 0;
}
