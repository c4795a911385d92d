/* sim.c - one run: builds the world from the seed, then takes event after event until all has
 * converged, a promise is broken or the time is over. */
#include "sim/sim.h"

#include "sim/sim_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK_EVERY_US (100 * MS)
#define EVENTS_MAX     2000000

void sim_violation(struct sim *sim, const char *format, ...)
{
        va_list args;
        if (sim->result->violated)
                return;
        va_start(args, format);
        (void)vsnprintf(sim->result->violation, sizeof sim->result->violation, format, args);
        va_end(args);
        sim->result->violated = true;
        sim->over = true;
        sim_trace(sim, "VIOLATION %s", sim->result->violation);
}

void sim_trace(struct sim *sim, const char *format, ...)
{
        va_list args;
        if (!sim->options.trace)
                return;
        printf("%9.3f ms  ", (double)sim->now_us / 1000.0);
        va_start(args, format);
        (void)vprintf(format, args);
        va_end(args);
        printf("\n");
}

void sim_at(struct sim *sim, uint64_t after_us, enum event_kind kind, uint32_t a, uint32_t b,
            uint64_t generation)
{
        struct sim_event event = {.at_us = sim->now_us + after_us,
                                  .kind = kind,
                                  .a = a,
                                  .b = b,
                                  .generation = generation};
        queue_push(&sim->queue, &event);
}

struct parcel *parcel_new(struct sim *sim, const struct world_event *event, struct bytes data)
{
        struct parcel *parcel = heap_alloc(&sim->heap, sizeof *parcel + data.len);
        CHECK(parcel != NULL);
        parcel->event = *event;
        parcel->len = data.len;
        if (data.len > 0)
                memcpy(parcel->bytes, data.ptr, data.len);
        return parcel;
}

void sim_post(struct sim *sim, struct host *host, uint64_t after_us, struct parcel *parcel)
{
        struct sim_event event = {.at_us = sim->now_us + after_us,
                                  .kind = EVENT_STEP,
                                  .a = host->index,
                                  .generation = host->generation,
                                  .parcel = parcel};
        queue_push(&sim->queue, &event);
}

/* ---- the world ---- */

static void build(struct sim *sim)
{
        for (unsigned i = 0; i < STREAM_COUNT; i++)
                rng_init(&sim->rng[i], sim->options.seed, i);
        sim->isolated = -1;
        bug_postgres(sim);
        swarm_draw(sim);
        if (bug_wants_copies(sim))
                copies_init(sim);
        changes_build(sim);
        postgres_init(sim);
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                if (sim->redis[i].exists)
                        redis_init(sim, i);
        for (uint32_t i = 0; i < sim->host_count && !sim->over; i++)
                if (host_in(sim, &sim->hosts[i]))
                        host_start(sim, &sim->hosts[i]);
        clients_init(sim);
        value_clients_init(sim);
        stale_init(sim);
        sets_init(sim);
        sim_at(sim, SECOND, EVENT_DATA_CLIENT, 0, 0, 0);
        sim_at(sim, SECOND + sim_below(sim, STREAM_FAULTS, SECOND), EVENT_FAULT, 0, 0, 0);
        sim_at(sim, CHECK_EVERY_US, EVENT_CHECK, 0, 0, 0);
}

static void tear_down(struct sim *sim)
{
        history_fini(sim);
        sets_fini(sim);
        copies_fini(sim);
        queue_fini(&sim->queue);
        for (uint32_t i = 0; i < sim->host_count; i++)
                host_fini(&sim->hosts[i]);
        for (uint32_t i = 0; i < REGIONS_MAX; i++)
                redis_fini(&sim->redis[i]);
}

/* ---- events ---- */

/* A parcel for a node: late for a process that is gone, or of a connection that is no more. */
static bool parcel_void(const struct sim *sim, const struct sim_event *event)
{
        const struct host *host = &sim->hosts[event->a];
        const struct parcel *parcel = event->parcel;
        if (host->node == NULL || host->generation != event->generation)
                return true;
        if (!parcel->from_link)
                return false;
        uint32_t from = UINT32_MAX;
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].id == parcel->event.message.peer)
                        from = i;
        CHECK(from != UINT32_MAX && from != event->a);
        const struct sim_link *link =
                from < event->a ? &sim->links[from][event->a] : &sim->links[event->a][from];
        return link->epoch != parcel->link_epoch;
}

static bool parcel_held(struct sim *sim, const struct sim_event *event)
{
        if (!event->parcel->from_link)
                return false;
        for (uint32_t i = 0; i < sim->host_count; i++) {
                if (sim->hosts[i].id != event->parcel->event.message.peer)
                        continue;
                const struct sim_link *link = network_link(sim, i, event->a);
                return link->cut[i < event->a ? 0 : 1];
        }
        return false;
}

/* False for the word of a connection that has broken meanwhile. */
static bool redis_current(const struct sim_redis *redis, const struct parcel *parcel)
{
        return redis->up && redis->incarnation == parcel->event.redis_up.incarnation;
}

static void deliver(struct sim *sim, struct sim_event *event)
{
        struct host *host = &sim->hosts[event->a];
        if (parcel_void(sim, event)) {
                heap_free(&sim->heap, event->parcel);
                return;
        }
        if (host->paused_until_us > sim->now_us) {
                event->at_us = host->paused_until_us;
                queue_push(&sim->queue, event);
                return;
        }
        if (parcel_held(sim, event)) {
                /* Packets of a cut connection are sent again until it heals or breaks. */
                event->at_us = (sim->now_us / (50 * MS) + 1) * (50 * MS);
                queue_push(&sim->queue, event);
                return;
        }
        if (event->parcel->event.kind == WORLD_REDIS_UP)
                host->redis_ready = redis_current(&sim->redis[host->region], event->parcel);
        if (event->parcel->event.kind == WORLD_POSTGRES_SEEN)
                postgres_fill(sim, host, &event->parcel->event.postgres);
        host_step(sim, host, &event->parcel->event);
        heap_free(&sim->heap, event->parcel);
}

static void restart(struct sim *sim, uint32_t index, uint64_t generation)
{
        struct host *host = &sim->hosts[index];
        if (host->node == NULL && !host->dead && host->generation == generation)
                host_start(sim, host);
}

static bool region_dead(const struct sim *sim, uint32_t region)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].region == region && sim->hosts[i].dead)
                        return true;
        return false;
}

static void check(struct sim *sim)
{
        if (!sim->healing && sim->now_us >= sim->swarm.faults_end_us)
                faults_end(sim);
        if (!sim->over)
                check_periodic(sim);
        if (sim->converged_us != 0)
                sim->over = true;
        sim_at(sim, CHECK_EVERY_US, EVENT_CHECK, 0, 0, 0);
}

static void take(struct sim *sim, struct sim_event *event)
{
        struct host *host = &sim->hosts[event->a < HOSTS_MAX ? event->a : 0];
        switch (event->kind) {
        case EVENT_STEP:
                deliver(sim, event);
                break;
        case EVENT_TIMER:
                host_timer(sim, host, event->generation);
                break;
        case EVENT_LINK:
                network_up(sim, event->a, event->b, event->generation);
                break;
        case EVENT_LINK_CHECK:
                network_cut_check(sim, event->a, event->b);
                break;
        case EVENT_SYNC:
                disk_sync_done(sim, host, event->b, event->generation);
                break;
        case EVENT_CRASH:
                if (host->generation == event->generation && !sim->healing)
                        faults_crash(sim, host);
                break;
        case EVENT_CHANGE:
                changes_step(sim);
                break;
        case EVENT_RESTART:
                restart(sim, event->a, event->generation);
                break;
        case EVENT_REDIS_START:
                if (!region_dead(sim, event->a))
                        redis_start(&sim->redis[event->a]);
                break;
        case EVENT_REDIS_SYNC:
                redis_synced(&sim->redis[event->a]);
                break;
        case EVENT_REDIS_BEAT:
                redis_beat(&sim->redis[event->a]);
                break;
        case EVENT_TAIL_END:
                redis_tail_end(&sim->redis[event->a], event->b, event->generation);
                break;
        case EVENT_PROBE:
                if (host->generation == event->generation)
                        host_probe(sim, host);
                break;
        case EVENT_LOCK_CLIENT:
                lock_client_step(sim, event->a, event->generation);
                break;
        case EVENT_LOCK_TIMEOUT:
                lock_client_timeout(sim, event->a, event->generation);
                break;
        case EVENT_VALUE_CLIENT:
                value_client_step(sim, event->a, event->generation);
                break;
        case EVENT_VALUE_TIMEOUT:
                value_client_timeout(sim, event->a, event->generation);
                break;
        case EVENT_DATA_CLIENT:
                redis_client(sim);
                break;
        case EVENT_FAULT:
                if (sim->swarm.chase)
                        chase_step(sim);
                else if (sim->swarm.stale)
                        stale_step(sim);
                else if (sim->swarm.orders)
                        orders_step(sim);
                else
                        faults_step(sim);
                break;
        case EVENT_HEAL_LINKS:
                faults_heal_link(sim, event->a, event->b);
                break;
        case EVENT_CHECK:
                check(sim);
                break;
        case EVENT_POSTGRES_BEAT:
                postgres_beat(sim);
                break;
        case EVENT_POSTGRES_SEE:
                if (host->generation == event->generation && host->node != NULL)
                        postgres_see(sim, host);
                break;
        case EVENT_POSTGRES_DONE:
                postgres_done(sim, host, event->generation);
                break;
        case EVENT_POSTGRES_STREAM:
                postgres_streamed(sim, event->a, event->b, event->generation);
                break;
        case EVENT_POSTGRES_ACK:
                postgres_acked(sim, event->a, event->b, event->generation);
                break;
        case EVENT_SETS:
                sets_step(sim, event->a, event->generation);
                break;
        case EVENT_SETS_TIMEOUT:
                sets_timeout(sim, event->a, event->generation);
                break;
        case EVENT_STALE:
                stale_client_step(sim, event->a);
                break;
        }
}

static void count_cover(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].node != NULL) {
                        struct replication_counters counters =
                                node_replication_counters(sim->hosts[i].node);
                        sim->result->cover[COVER_PULL] += counters.pulls;
                        sim->result->cover[COVER_RELAYED] += counters.relayed;
                        sim->result->cover[COVER_WINDOW_FULL] += counters.window_full;
                }
}

void sim_run(const struct sim_options *options, struct sim_result *ret)
{
        struct sim *sim = calloc(1, sizeof *sim);
        CHECK(sim != NULL);
        memset(ret, 0, sizeof *ret);
        sim->options = *options;
        sim->result = ret;
        sim->hash = HASH_FNV_START;
        heap_init(&sim->heap, 0);
        queue_init(&sim->queue, &sim->heap);
        build(sim);
        struct sim_event event;
        while (!sim->over && queue_pop(&sim->queue, &event)) {
                CHECK(event.at_us >= sim->now_us);
                sim->now_us = event.at_us;
                if (++sim->events > EVENTS_MAX) {
                        sim_violation(sim, "liveness: the events do not end");
                        heap_free(&sim->heap, event.parcel);
                        break;
                }
                take(sim, &event);
        }
        if (!ret->violated)
                check_end(sim);
        if (!ret->violated)
                value_clients_check(sim);
        if (!ret->violated)
                sets_check(sim);
        count_cover(sim);
        ret->hash = sim->hash;
        ret->events = sim->events;
        ret->virtual_us = sim->now_us;
        tear_down(sim);
        CHECK(sim->heap.used_bytes == 0);
        free(sim);
}

const char *sim_cover_text(enum sim_cover cover)
{
        static const char *const texts[] = {
#define SIM_COVER_TEXT(name, text) text,
                SIM_COVER_LIST(SIM_COVER_TEXT)
#undef SIM_COVER_TEXT
        };
        return (size_t)cover < COUNT_OF(texts) ? texts[cover] : "?";
}
