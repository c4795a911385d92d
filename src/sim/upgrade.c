/* upgrade.c - seeds in which some nodes begin with an older build and get the newer one with their
 * next start, while all others serve. Nobody may be told what it does not know; in the end all know
 * everything, and the groups' level has risen. */
#include "council/council.h"
#include "sim/sim_priv.h"

#include <stdio.h>

void upgrade_draw(struct sim *sim)
{
        struct swarm *swarm = &sim->swarm;
        swarm->upgrade = !swarm->calm && !swarm->deaths_only && !swarm->one_cut &&
                         sim_chance(sim, STREAM_UPGRADE, 150);
        if (swarm->upgrade)
                swarm->crashes += 5;
}

void upgrade_host_init(struct sim *sim, struct host *host)
{
        host->old = sim->swarm.upgrade && sim_chance(sim, STREAM_UPGRADE, 600);
}

uint8_t upgrade_level(struct sim *sim, struct host *host)
{
        if (host->from_epoch > 1)
                host->old = false; /* who comes later must be as new as the rest may be by then */
        if (host->old && host->incarnation > 0) {
                host->old = false;
                sim_trace(sim, "node %u gets the newer build", host->id);
        }
        return host->old ? 1 : 0;
}

bool upgrade_converged(struct sim *sim, char *why, size_t size)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                for (unsigned group = 0; group < WORLD_GROUP_COUNT; group++) {
                        const struct host *host = &sim->hosts[i];
                        const struct council *council =
                                node_council(host->node, (enum world_group)group);
                        if (!host_in(sim, host) || !sim->redis[host->region].exists ||
                            council_level(council) == COUNCIL_LEVEL)
                                continue;
                        (void)snprintf(why, size, "node %u has level %u in group %u", host->id,
                                       council_level(council), group);
                        return false;
                }
        if (sim->swarm.upgrade)
                sim_cover(sim, COVER_UPGRADED);
        return true;
}
