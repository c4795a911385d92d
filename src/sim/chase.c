/* chase.c - seeds whose only faults are those that a lease has to outlive, aimed at its holder.
 *
 * A lease is safe while the holder's count of it ends before the council's: whatever the clocks'
 * rates, however late an answer was, and also where the holder's daemon is not there to count.
 * Three faults that must come together, at the one node that matters, do so in few random
 * histories. So here each clock is as fast or as slow as may be, the servers do what they are asked
 * at once, and PostgreSQL's primary is cut off, or its daemon stopped, again and again, each time
 * for longer than a lease, its links slow before; and the council's leader falls beside it, so that
 * another has to count what is left of the lease. */
#include "sim/sim_priv.h"

#define APART_US (4 * SECOND) /* from the end of a fault to the next */

void chase_draw(struct sim *sim)
{
        struct swarm *swarm = &sim->swarm;
        swarm->chase = swarm->postgres && !swarm->calm && !swarm->deaths_only && !swarm->one_cut &&
                       sim_chance(sim, STREAM_POSTGRES, 150);
        if (!swarm->chase)
                return;
        sim_cover(sim, COVER_CHASE);
        swarm->rates = true;
        swarm->tail_loss = swarm->small_ring = false;
        swarm->loss = 1 + (unsigned)sim_below(sim, STREAM_POSTGRES, 10);
        swarm->faults_end_us = 16 * SECOND;
        swarm->load_end_us = 17 * SECOND;
        swarm->end_us = 37 * SECOND;
}

uint64_t chase_rate_ppm(struct sim *sim)
{
        return sim_chance(sim, STREAM_POSTGRES, 500) ? 800000 : 1200000;
}

static struct host *holder(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (postgres_takes_writes(sim, &sim->hosts[i]) && sim->hosts[i].node != NULL &&
                    sim->hosts[i].paused_until_us <= sim->now_us)
                        return &sim->hosts[i];
        return NULL;
}

static void slow(struct sim *sim, const struct host *host)
{
        uint64_t slow_us = sim_below(sim, STREAM_POSTGRES, 900 * MS);
        sim_trace(sim, "the links of node %u are slow by %llu ms", host->id,
                  (unsigned long long)(slow_us / MS));
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (i != host->index)
                        network_link(sim, host->index, i)->slow_us = slow_us;
}

/* Nothing that it says arrives any more, but what was answered before still comes. */
static void mute(struct sim *sim, const struct host *host, uint64_t for_us)
{
        sim_trace(sim, "node %u is heard no more", host->id);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                if (i == host->index)
                        continue;
                network_cut(sim, host->index, i, true, false);
                sim_at(sim, for_us, EVENT_HEAL_LINKS, host->index, i, 0);
        }
}

/* Leads the global group; NULL: nobody, or the holder does. */
static struct host *leader_beside(struct sim *sim, const struct host *holder)
{
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct host *host = &sim->hosts[i];
                if (host != holder && host->node != NULL && !host->dead &&
                    node_group_status(host->node, WORLD_GROUP_GLOBAL).role == CONSENSUS_LEADER)
                        return host;
        }
        return NULL;
}

/* Another has to lead, and to count a lease that it finds: whether the holder is heard by it before
 * the next fault or not. */
static bool leader_falls(struct sim *sim, const struct host *holder)
{
        struct host *host = leader_beside(sim, holder);
        if (host == NULL || !sim_chance(sim, STREAM_POSTGRES, 350))
                return false;
        sim_trace(sim, "node %u, which leads, falls", host->id);
        host_crash(sim, host);
        sim_at(sim, 50 * MS + sim_below(sim, STREAM_POSTGRES, SECOND), EVENT_RESTART, host->index,
               0, host->generation);
        sim_at(sim, sim_below(sim, STREAM_POSTGRES, 4 * SECOND), EVENT_FAULT, 0, 0, 0);
        return true;
}

/* One fault at the holder; after it the next. */
void chase_step(struct sim *sim)
{
        struct host *host = holder(sim);
        if (sim->healing)
                return;
        if (host == NULL || sim->isolated >= 0) {
                sim_at(sim, 100 * MS, EVENT_FAULT, 0, 0, 0);
                return;
        }
        if (leader_falls(sim, host))
                return;
        uint64_t long_us = 4 * SECOND + sim_below(sim, STREAM_POSTGRES, 3 * SECOND);
        uint64_t drawn = sim_below(sim, STREAM_POSTGRES, 100);
        uint64_t next_us = long_us + APART_US;
        if (drawn < 40 && !host->slowed) {
                host->slowed = true;
                slow(sim, host);
                next_us = SECOND + sim_below(sim, STREAM_POSTGRES, SECOND);
        } else if (drawn < 55) {
                mute(sim, host, long_us);
        } else if (drawn < 75) {
                faults_isolate(sim, host, long_us);
        } else if (drawn < 88) {
                faults_pause(sim, host, long_us);
        } else {
                host_crash(sim, host);
                sim_at(sim, long_us, EVENT_RESTART, host->index, 0, host->generation);
        }
        sim_at(sim, next_us, EVENT_FAULT, 0, 0, 0);
}
