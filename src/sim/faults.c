/* faults.c - what goes wrong. Each seed draws which kinds of faults there are and how many
 * (swarm testing): a run with all kinds at once hides what a run with one kind shows. */
#include "sim/sim_priv.h"

#define ONE_CUT_APART_US (3 * SECOND)
#define TRANSFER_PARTS   32 /* of a state in small windows, about */

static unsigned some(struct sim *sim, unsigned per_mille, unsigned max)
{
        bool on = sim_chance(sim, STREAM_SETUP, per_mille);
        unsigned strength = 1 + (unsigned)sim_below(sim, STREAM_SETUP, max);
        return on ? strength : 0;
}

static void draw_shape(struct sim *sim, struct swarm *swarm)
{
        swarm->region_count = sim_chance(sim, STREAM_SETUP, 120) ? 5 : 3;
        swarm->witness = sim_chance(sim, STREAM_SETUP, 150);
        swarm->region_of_three = swarm->region_count == 3 && sim_chance(sim, STREAM_SETUP, 150);
        swarm->calm = sim_chance(sim, STREAM_SETUP, 60);
        swarm->rates = !swarm->calm && sim_chance(sim, STREAM_SETUP, 400);
        swarm->delay_us = 500 + sim_below(sim, STREAM_SETUP, 60 * MS);
        swarm->jitter_us = sim_below(sim, STREAM_SETUP, 20 * MS);
        swarm->sync_us = 200 + sim_below(sim, STREAM_SETUP, 4 * MS);
        swarm->sync_jitter_us = sim_below(sim, STREAM_SETUP, 20 * MS);
        swarm->small_snapshots = sim_chance(sim, STREAM_SETUP, 500);
        swarm->small_windows = sim_chance(sim, STREAM_SETUP, 300);
        swarm->batches = sim_chance(sim, STREAM_SETUP, 500);
        swarm->small_ring = sim_chance(sim, STREAM_SETUP, 300);
        swarm->lock_clients = 2 + (uint32_t)sim_below(sim, STREAM_SETUP, LOCK_CLIENTS - 1);
        swarm->data_every_us = (5 + sim_below(sim, STREAM_SETUP, 60)) * MS;
}

/* In small windows each part of a state waits for two answers, and a region takes one state at a
 * time. After many crashes every region may have to hear the state of every other twice: what it
 * lacks, and what the other lacked itself. */
static void allow_transfers(struct swarm *swarm)
{
        uint64_t part_us = 4 * (swarm->delay_us + swarm->jitter_us);
        if (swarm->small_windows)
                swarm->end_us += 2ull * (swarm->region_count - 1) * TRANSFER_PARTS * part_us;
}

void swarm_draw(struct sim *sim)
{
        struct swarm *swarm = &sim->swarm;
        draw_shape(sim, swarm);
        /* No planted bug is of sorted sets: they would only change which seeds find one. */
        swarm->scores = sim->options.bug == SIM_BUG_NONE && sim_chance(sim, STREAM_SCORES, 500);
        swarm->faults_end_us = 9 * SECOND;
        swarm->load_end_us = 12 * SECOND;
        swarm->end_us = 32 * SECOND;
        swarm->fault_every_us = (100 + sim_below(sim, STREAM_SETUP, 900)) * MS;
        swarm->loss = some(sim, 500, 80);
        swarm->crashes = some(sim, 600, 10);
        swarm->cuts = some(sim, 500, 8);
        swarm->one_ways = some(sim, 300, 8);
        swarm->resets = some(sim, 400, 10);
        swarm->pauses = some(sim, 300, 6);
        swarm->jumps = some(sim, 300, 4);
        swarm->clogs = some(sim, 300, 6);
        swarm->redis_crashes = some(sim, 400, 6);
        swarm->disk_fails = some(sim, 100, 2);
        swarm->isolations = some(sim, 300, 4);
        swarm->deaths = some(sim, 250, 3);
        swarm->deaths_only = sim_chance(sim, STREAM_SETUP, 60);
        swarm->one_cut = !swarm->deaths_only && sim_chance(sim, STREAM_SETUP, 60);
        if (swarm->deaths_only) {
                /* A backlog that takes a while, so that coming back too early shows. */
                swarm->small_windows = true;
                swarm->data_every_us = 5 * MS;
        }
        if (swarm->calm || swarm->deaths_only || swarm->one_cut) {
                swarm->loss = 1 + (unsigned)sim_below(sim, STREAM_SETUP, 10);
                swarm->crashes = swarm->cuts = swarm->one_ways = swarm->resets = 0;
                swarm->pauses = swarm->jumps = swarm->clogs = swarm->redis_crashes = 0;
                swarm->disk_fails = swarm->isolations = swarm->deaths = 0;
        }
        swarm->tail_loss = !swarm->calm && !swarm->deaths_only && !swarm->one_cut &&
                           sim_chance(sim, STREAM_SETUP, 400);
        if (swarm->tail_loss)
                swarm->redis_crashes = 5 + (unsigned)sim_below(sim, STREAM_SETUP, 20);
        upgrade_draw(sim);
        postgres_draw(sim);
        chase_draw(sim);
        changes_draw(sim);
        stale_draw(sim);
        orders_draw(sim);
        allow_transfers(swarm);
        if (swarm->calm)
                sim_cover(sim, COVER_CALM);
        else if (swarm->deaths_only)
                swarm->deaths = 1;
        else if (swarm->one_cut)
                swarm->cuts = swarm->one_ways = 1;
        if (swarm->region_count == 5)
                sim_cover(sim, COVER_FIVE_REGIONS);
        if (swarm->witness)
                sim_cover(sim, COVER_WITNESS);
        if (swarm->region_of_three)
                sim_cover(sim, COVER_REGION_OF_THREE);
}

static struct host *draw_host(struct sim *sim)
{
        return &sim->hosts[sim_below(sim, STREAM_FAULTS, sim->host_count)];
}

void faults_crash(struct sim *sim, struct host *host)
{
        if (host->node == NULL || host->dead)
                return;
        host_crash(sim, host);
        if (sim_chance(sim, STREAM_POSTGRES, 400))
                postgres_crash(sim, host);
        /* Sometimes the daemon alone is away for longer than a lease. */
        bool long_away = sim->swarm.postgres && sim_chance(sim, STREAM_POSTGRES, 150);
        uint64_t after_us = sim_chance(sim, STREAM_FAULTS, 300)
                                    ? SECOND + sim_below(sim, STREAM_FAULTS, 3 * SECOND)
                                    : 10 * MS + sim_below(sim, STREAM_FAULTS, 600 * MS);
        if (long_away)
                after_us += 4 * SECOND;
        sim_at(sim, after_us, EVENT_RESTART, host->index, 0, host->generation);
}

void faults_while_writing(struct sim *sim, struct host *host, bool replacing)
{
        if (sim->healing || sim->swarm.crashes == 0 ||
            !sim_chance(sim, STREAM_FAULTS, replacing ? 50 : 1))
                return;
        sim_at(sim, sim_below(sim, STREAM_FAULTS, sim->swarm.sync_us + sim->swarm.sync_jitter_us),
               EVENT_CRASH, host->index, 0, host->generation);
}

static void fault_cut(struct sim *sim, bool one_way)
{
        uint32_t a = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->host_count);
        uint32_t b = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->host_count - 1);
        if (b >= a)
                b++;
        if (sim->swarm.one_cut && sim->now_us < sim->one_cut_until_us)
                return;
        if (sim->isolated == (int)a || sim->isolated == (int)b)
                return;
        sim_trace(sim, "cut %u %s %u", sim->hosts[a].id, one_way ? "-/>" : "</>", sim->hosts[b].id);
        sim_cover(sim, one_way ? COVER_CUT_ONE_WAY : COVER_CUT);
        network_cut(sim, a, b, true, !one_way);
        uint64_t heal_us = 200 * MS + sim_below(sim, STREAM_FAULTS, 4 * SECOND);
        sim->one_cut_until_us = sim->now_us + heal_us + ONE_CUT_APART_US;
        sim_at(sim, heal_us, EVENT_HEAL_LINKS, a, b, 0);
}

void faults_isolate(struct sim *sim, struct host *host, uint64_t for_us)
{
        if (sim->isolated >= 0)
                return;
        sim->isolated = (int)host->index;
        sim->isolated_since_us = sim->now_us;
        sim->minority_global_refused = sim->minority_region_granted = false;
        sim->probe_global = sim->probe_region = 0;
        sim_trace(sim, "node %u is cut off", host->id);
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (i != host->index)
                        network_cut(sim, host->index, i, true, true);
        sim_at(sim, for_us, EVENT_HEAL_LINKS, host->index, host->index, 0);
}

static void fault_reset(struct sim *sim)
{
        uint32_t a = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->host_count);
        uint32_t b = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->host_count - 1);
        if (b >= a)
                b++;
        if (!network_link(sim, a, b)->up[0])
                return;
        sim_cover(sim, COVER_RESET);
        sim_trace(sim, "reset %u - %u", sim->hosts[a].id, sim->hosts[b].id);
        network_break(sim, a, b);
}

void faults_pause(struct sim *sim, struct host *host, uint64_t for_us)
{
        if (host->node == NULL || host->paused_until_us > sim->now_us)
                return;
        host->paused_until_us = sim->now_us + for_us;
        sim_trace(sim, "node %u is paused for %llu ms", host->id,
                  (unsigned long long)(for_us / MS));
        if (for_us > 2 * SECOND)
                sim_cover(sim, COVER_PAUSE);
}

static void fault_jump(struct sim *sim)
{
        struct host *host = draw_host(sim);
        int64_t jump = (int64_t)sim_below(sim, STREAM_CLOCK, 4 * SECOND) - (int64_t)(2 * SECOND);
        int64_t after = host->wall_offset_us + jump;
        if (after > (int64_t)(3 * SECOND) || after < -(int64_t)(3 * SECOND))
                return;
        host->wall_offset_us = after;
        sim_cover(sim, COVER_CLOCK_JUMP);
        sim_trace(sim, "the wall clock of node %u jumps by %lld ms", host->id,
                  (long long)(jump / (int64_t)MS));
}

static void fault_clog(struct sim *sim)
{
        uint32_t a = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->host_count);
        uint32_t b = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->host_count - 1);
        if (b >= a)
                b++;
        struct sim_link *link = network_link(sim, a, b);
        if (sim_chance(sim, STREAM_FAULTS, 500))
                link->slow_us = sim_below(sim, STREAM_FAULTS, 200 * MS);
        else
                link->clog_until_us = sim->now_us + sim_below(sim, STREAM_FAULTS, 2 * SECOND);
}

/* The machine comes up with a clock that is behind what it had stamped. */
static void clock_back(struct sim *sim, uint32_t region)
{
        int64_t back = (int64_t)sim_below(sim, STREAM_CLOCK, 2 * SECOND);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct host *host = &sim->hosts[i];
                if (host->region != region || host->wall_offset_us - back < -(int64_t)(3 * SECOND))
                        continue;
                host->wall_offset_us -= back;
                sim_cover(sim, COVER_CLOCK_BACK);
        }
}

static void fault_redis(struct sim *sim)
{
        struct sim_redis *redis =
                &sim->redis[sim_below(sim, STREAM_FAULTS, sim->swarm.region_count)];
        if (!redis->exists || !redis->up)
                return;
        redis_crash(redis);
        if (sim->swarm.tail_loss)
                clock_back(sim, redis->region);
        sim_at(sim, 50 * MS + sim_below(sim, STREAM_FAULTS, 2 * SECOND), EVENT_REDIS_START,
               redis->region, 0, 0);
}

static void fault_disk(struct sim *sim)
{
        struct host *host = draw_host(sim);
        if (host->node == NULL || host->dead)
                return;
        host->disk_broken = true;
        sim_cover(sim, COVER_DISK_FAILED);
        sim_trace(sim, "the disk of node %u fails", host->id);
}

/* A whole region goes: its nodes and its Redis. It stays away long enough to be seen as down. */
static void fault_death(struct sim *sim)
{
        uint32_t region = (uint32_t)sim_below(sim, STREAM_FAULTS, sim->swarm.region_count);
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].dead)
                        return;
        sim_trace(sim, "region %u dies", region + 1);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct host *host = &sim->hosts[i];
                if (host->region != region)
                        continue;
                host_crash(sim, host);
                postgres_crash(sim, host);
                host->dead = true;
        }
        redis_crash(&sim->redis[region]);
        sim->dead_since_us = sim->now_us;
}

static void fault_admin(struct sim *sim)
{
        struct host *host = draw_host(sim);
        if (host->node == NULL)
                return;
        char name[8] = {'r', (char)('1' + sim_below(sim, STREAM_FAULTS, sim->swarm.region_count))};
        struct request request = {.kind = REQUEST_REGION};
        request.region.region = bytes_of_str(name);
        request.region.action =
                sim_chance(sim, STREAM_FAULTS, 500) ? REQUEST_DRAIN : REQUEST_UNDRAIN;
        request.region.actor = BYTES("operator");
        request.region.why = BYTES("maintenance");
        (void)clients_ask(sim, host, &request);
        if (request.region.action == REQUEST_DRAIN)
                sim_cover(sim, COVER_DRAINED);
}

void faults_step(struct sim *sim)
{
        const struct swarm *swarm = &sim->swarm;
        if (sim->healing)
                return;
        unsigned weights[] = {
                swarm->crashes,    swarm->cuts,
                swarm->one_ways,   swarm->resets,
                swarm->pauses,     swarm->jumps,
                swarm->clogs,      swarm->redis_crashes,
                swarm->disk_fails, swarm->isolations,
                swarm->deaths,     swarm->calm || swarm->deaths_only || swarm->one_cut ? 0 : 1};
        unsigned sum = 0;
        for (size_t i = 0; i < COUNT_OF(weights); i++)
                sum += weights[i];
        sim_at(sim, 1 + sim_below(sim, STREAM_FAULTS, 2 * swarm->fault_every_us), EVENT_FAULT, 0, 0,
               0);
        if (sum == 0)
                return;
        uint64_t drawn = sim_below(sim, STREAM_FAULTS, sum);
        size_t kind = 0;
        while (drawn >= weights[kind])
                drawn -= weights[kind++];
        switch (kind) {
        case 0:
                faults_crash(sim, draw_host(sim));
                break;
        case 1:
                fault_cut(sim, false);
                break;
        case 2:
                fault_cut(sim, true);
                break;
        case 3:
                fault_reset(sim);
                break;
        case 4:
                faults_pause(sim, draw_host(sim),
                             50 * MS + sim_below(sim, STREAM_FAULTS, 3 * SECOND));
                break;
        case 5:
                fault_jump(sim);
                break;
        case 6:
                fault_clog(sim);
                break;
        case 7:
                fault_redis(sim);
                break;
        case 8:
                fault_disk(sim);
                break;
        case 9:
                faults_isolate(sim, draw_host(sim),
                               SECOND + sim_below(sim, STREAM_FAULTS, 6 * SECOND));
                break;
        case 10:
                fault_death(sim);
                break;
        default:
                fault_admin(sim);
                break;
        }
}

void faults_heal_link(struct sim *sim, uint32_t a, uint32_t b)
{
        if (a != b) {
                if (sim->isolated == (int)a || sim->isolated == (int)b)
                        return;
                network_cut(sim, a, b, false, false);
                return;
        }
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (i != a)
                        network_cut(sim, a, i, false, false);
        sim_trace(sim, "node %u is no more cut off", sim->hosts[a].id);
        sim->isolated = -1;
}

/* All is well again: links, disks, processes; drained regions come back. */
void faults_end(struct sim *sim)
{
        sim_trace(sim, "the faults end");
        sim->healing = true;
        sim->isolated = -1;
        sim->swarm.loss = sim->swarm.loss > 10 ? 10 : sim->swarm.loss;
        network_heal(sim);
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                redis_start(&sim->redis[i]);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct host *host = &sim->hosts[i];
                host->dead = false;
                if (host->disk_broken || host->old)
                        host_crash(sim, host);
                if (host->node == NULL && host->from_epoch <= sim->epoch)
                        host_start(sim, host);
        }
        for (unsigned i = 0; i < 1 + REGIONS_MAX; i++)
                sim->applied_at_heal[i] = sim->applied_max[i];
}
