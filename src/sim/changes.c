/* changes.c - the shape of a run: how many nodes each region has, and what an operator makes of it
 * meanwhile. In some runs a node is added to a region, and then the region's first node is taken
 * away, whatever goes wrong at that time: the topology is sent again and again until somebody knows
 * it to be agreed. The node that is taken away goes on running, and must disturb nobody. */
#include "sim/sim_priv.h"

#include "council/council.h"
#include "topology/topology.h"

#include <stdio.h>

#define ASK_AGAIN_US (300 * MS)

void changes_draw(struct sim *sim)
{
        struct swarm *swarm = &sim->swarm;
        for (uint32_t i = 0; i < REGIONS_MAX; i++)
                swarm->nodes[i] = 1;
        if (swarm->region_of_three)
                swarm->nodes[0] = 3;
        swarm->many = swarm->region_count == 3 && !swarm->region_of_three &&
                      sim_chance(sim, STREAM_SHAPE, 80);
        for (uint32_t i = 0; i < 3 && swarm->many; i++)
                swarm->nodes[i] = (uint8_t)(1 + sim_below(sim, STREAM_SHAPE, 3));
        swarm->change = sim_chance(sim, STREAM_SHAPE, 100) && !swarm->calm &&
                        (sim->options.raft == NULL || sim->options.raft == &consensus_core);
        if (swarm->change)
                swarm->postgres = swarm->chase = false;
        swarm->change_region = (uint32_t)sim_below(sim, STREAM_SHAPE, 2);
        sim->change_next_us = 2 * SECOND + sim_below(sim, STREAM_SHAPE, 4 * SECOND);
        if (swarm->many)
                sim_cover(sim, COVER_MANY_NODES);
}

static void host_add(struct sim *sim, uint32_t region, unsigned from, unsigned until)
{
        uint32_t id = sim->host_count + 1;
        CHECK(sim->host_count < HOSTS_MAX);
        host_init(sim, sim->host_count, id, region);
        sim->hosts[sim->host_count].from_epoch = from;
        sim->hosts[sim->host_count].until_epoch = until;
        sim->host_count++;
}

bool host_in(const struct sim *sim, const struct host *host)
{
        return host->from_epoch <= sim->epoch && sim->epoch < host->until_epoch;
}

static void topology_text(struct sim *sim, unsigned epoch)
{
        char *text = sim->topologies[epoch - 1];
        size_t at = 0;
        size_t size = sizeof sim->topologies[0];
        at += (size_t)snprintf(text, size,
                               "cluster = sim; epoch = %u;\n"
                               "timing { recover_after = 500ms; hold_down = 500ms; drain = 1s;\n"
                               "  election = 800ms; election_heartbeat = 150ms; }\n",
                               epoch);
        for (uint32_t i = 0; i < sim->swarm.region_count; i++) {
                at += (size_t)snprintf(text + at, size - at, "region r%u { id = %u; %s\n", i + 1,
                                       i + 1, sim->redis[i].exists ? "" : "role = witness;");
                for (uint32_t k = 0; k < sim->host_count; k++) {
                        const struct host *host = &sim->hosts[k];
                        if (host->region != i || host->from_epoch > epoch ||
                            host->until_epoch <= epoch)
                                continue;
                        at += (size_t)snprintf(text + at, size - at,
                                               "  node n%u { id = %u; link = \"127.0.%u.%u:7401\" "
                                               "}\n",
                                               host->id, host->id, i + 1, k + 1);
                }
                at += (size_t)snprintf(text + at, size - at, "}\n");
        }
        CHECK(at < size);
}

void changes_build(struct sim *sim)
{
        const struct swarm *swarm = &sim->swarm;
        sim->epoch = 1;
        for (uint32_t i = 0; i < swarm->region_count; i++) {
                bool changes = swarm->change && i == swarm->change_region;
                sim->redis[i].exists = !(swarm->witness && i == swarm->region_count - 1);
                for (uint32_t k = 0; k < swarm->nodes[i]; k++)
                        host_add(sim, i, 1, changes && k == 0 ? 3 : SIM_EPOCHS + 1);
        }
        if (swarm->change)
                host_add(sim, swarm->change_region, 2, SIM_EPOCHS + 1);
        for (unsigned epoch = 1; epoch <= SIM_EPOCHS; epoch++)
                topology_text(sim, epoch);
        if (swarm->change)
                sim_at(sim, sim->change_next_us, EVENT_CHANGE, 0, 0, 0);
}

static bool agreed(const struct sim *sim, unsigned epoch)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].node != NULL &&
                    council_topology(node_council(sim->hosts[i].node, WORLD_GROUP_GLOBAL), NULL)
                                    .len > 0 &&
                    node_topology(sim->hosts[i].node)->epoch >= epoch)
                        return true;
        return false;
}

static void ask(struct sim *sim)
{
        struct host *host = &sim->hosts[sim_below(sim, STREAM_SHAPE, sim->host_count)];
        if (host->node == NULL)
                return;
        struct request request = {.kind = REQUEST_TOPOLOGY_APPLY};
        (void)council_topology(node_council(host->node, WORLD_GROUP_GLOBAL),
                               &request.topology.epoch);
        request.topology.document = bytes_of_str(sim->topologies[sim->epoch]);
        request.topology.actor = BYTES("operator");
        (void)clients_ask(sim, host, &request);
}

void changes_step(struct sim *sim)
{
        unsigned next = sim->epoch + 1;
        if (next > SIM_EPOCHS || sim->over)
                return;
        if (!agreed(sim, next)) {
                ask(sim);
                sim_at(sim, ASK_AGAIN_US, EVENT_CHANGE, 0, 0, 0);
                return;
        }
        sim_trace(sim, "epoch %u of the topology is agreed", next);
        sim->epoch = next;
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct host *host = &sim->hosts[i];
                if (host->from_epoch != next)
                        continue;
                host->document = next;
                host_start(sim, host);
        }
        sim_cover(sim, next == 2 ? COVER_NODE_ADDED : COVER_NODE_REMOVED);
        sim_at(sim, SECOND + sim_below(sim, STREAM_SHAPE, 2 * SECOND), EVENT_CHANGE, 0, 0, 0);
}

/* Everybody is what the last topology wants, and knows it. */
bool changes_done(struct sim *sim, char *why, size_t size)
{
        if (!sim->swarm.change)
                return true;
        if (sim->epoch < SIM_EPOCHS) {
                (void)snprintf(why, size, "epoch %u is not agreed", sim->epoch + 1);
                return false;
        }
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *host = &sim->hosts[i];
                if (!host_in(sim, host))
                        continue;
                if (node_topology(host->node)->epoch != sim->epoch ||
                    !node_members_done(host->node)) {
                        (void)snprintf(why, size, "node %u is not where it belongs", host->id);
                        return false;
                }
        }
        return true;
}
