/* host.c - one node and the machine under it: its clocks, its process, and the
 * carrying out of its effects. */
#include "sim/sim_priv.h"

#define HOST_HEAP_BYTES (256u << 20)

uint64_t host_mono_us(const struct sim *sim, const struct host *host)
{
        return host->mono_offset_us + sim->now_us * host->rate_ppm / 1000000;
}

/* The true time of a reading of the host's monotonic clock, rounded up. */
static uint64_t true_of_mono_us(const struct host *host, uint64_t mono_us)
{
        if (mono_us <= host->mono_offset_us)
                return 0;
        return ((mono_us - host->mono_offset_us) * 1000000 + host->rate_ppm - 1) / host->rate_ppm;
}

uint64_t host_wall_us(const struct sim *sim, const struct host *host)
{
        return (uint64_t)((int64_t)(WALL_START_US + sim->now_us) + host->wall_offset_us);
}

void host_init(struct sim *sim, uint32_t index, node_id id, uint32_t region)
{
        struct host *host = &sim->hosts[index];
        host->index = index;
        host->id = id;
        host->region = region;
        host->rate_ppm = sim->swarm.rates ? 800000 + sim_below(sim, STREAM_CLOCK, 400001) : 1000000;
        if (sim->swarm.chase)
                host->rate_ppm = chase_rate_ppm(sim);
        if (sim->swarm.stale)
                host->rate_ppm = stale_rate_ppm(sim);
        host->mono_offset_us = SECOND + sim_below(sim, STREAM_CLOCK, 1000 * SECOND);
        uint64_t skew_us = 200 * MS;
        host->wall_offset_us =
                (int64_t)sim_below(sim, STREAM_CLOCK, 2 * skew_us) - (int64_t)skew_us;
        upgrade_host_init(sim, host);
        heap_init(&host->heap, HOST_HEAP_BYTES);
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                buffer_init(&host->journals[i].bytes, &sim->heap);
                buffer_init(&host->journals[i].next, &sim->heap);
                buffer_init(&host->journals[i].aside, &sim->heap);
        }
}

void host_fini(struct host *host)
{
        node_free(host->node);
        host->node = NULL;
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                buffer_fini(&host->journals[i].bytes);
                buffer_fini(&host->journals[i].next);
                buffer_fini(&host->journals[i].aside);
        }
}

void host_start(struct sim *sim, struct host *host)
{
        struct node_config config = {.self = host->id};
        config.topology =
                bytes_of_str(sim->topologies[host->document > 0 ? host->document - 1 : 0]);
        if (sim->swarm.small_snapshots) {
                config.snapshot_entries = 24;
                config.trailing_entries = 8;
                config.snapshot_step_bytes = 200;
                config.snapshot_piece_bytes = 300;
        }
        if (sim->swarm.small_windows) {
                config.replication_window_bytes = 512;
                config.replication_batch_bytes = 128;
                config.replication_piece_bytes = 100;
        }
        config.level_max = upgrade_level(sim, host);
        config.lock_copies = sim->copies != NULL;
        /* Planted bugs keep their histories. */
        config.early_votes = sim->options.bug < 0;
        bug_apply(sim, &config);
        CHECK(host->node == NULL);
        enum err err = node_new(&host->heap, &config, &host->node);
        if (err != ERR_NONE) {
                sim_violation(sim, "node %u cannot be made: %s", host->id, err_text(err));
                return;
        }
        host->generation++;
        host->incarnation++;
        host->redis_told = host->redis_ready = false;
        host->disk_broken = false;
        struct world_event event = {.kind = WORLD_START};
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                event.start.journals[i] = buffer_view(&host->journals[i].bytes);
                event.start.known[i] = host->journals[i].known;
                host->group_applied[i] = 0;
        }
        event.start.seed = rng_next(&sim->rng[STREAM_SETUP]);
        event.start.incarnation = host->incarnation;
        sim_trace(sim, "node %u starts", host->id);
        host_step(sim, host, &event);
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (i != host->index && sim->hosts[i].node != NULL)
                        network_connect(sim, host->index, i, 5 * MS);
        sim_at(sim, 10 * MS, EVENT_PROBE, host->index, 0, host->generation);
        redis_tell(&sim->redis[host->region]);
        postgres_host_up(sim, host);
}

void host_crash(struct sim *sim, struct host *host)
{
        if (host->node == NULL)
                return;
        sim_trace(sim, "node %u crashes", host->id);
        sim_cover(sim, COVER_CRASH);
        if (node_group_status(host->node, WORLD_GROUP_GLOBAL).role == CONSENSUS_LEADER)
                sim_cover(sim, COVER_CRASH_LEADER);
        if (node_topology(host->node)->epoch > host->document)
                host->document = (unsigned)node_topology(host->node)->epoch; /* it is kept */
        node_free(host->node);
        host->node = NULL;
        host->generation++;
        host->paused_until_us = 0;
        disk_crash(sim, host);
        clients_host_down(sim, host);
        network_host_down(sim, host);
}

static void set_wake(struct sim *sim, struct host *host, uint64_t mono_us)
{
        uint64_t at_us = true_of_mono_us(host, mono_us);
        host->wake_id++;
        host->wake_at_us = at_us > sim->now_us ? at_us : sim->now_us + 1;
        sim_at(sim, host->wake_at_us - sim->now_us, EVENT_TIMER, host->index, 0, host->wake_id);
}

static void carry_out(struct sim *sim, struct host *host, const struct world_effect *effect)
{
        sim_mix(sim, effect->kind);
        switch (effect->kind) {
        case WORLD_WAKE:
                set_wake(sim, host, effect->wake.at_us);
                break;
        case WORLD_SEND:
                sim_mix(sim, effect->send.data.len);
                network_send(sim, host, effect);
                break;
        case WORLD_JOURNAL_APPEND:
        case WORLD_JOURNAL_REPLACE:
        case WORLD_JOURNAL_ASIDE:
        case WORLD_JOURNAL_SWAP:
                sim_mix(sim, hash_crc32c(0, effect->journal.data));
                disk_append(sim, host, effect);
                break;
        case WORLD_REPLY:
                clients_reply(sim, host, effect->reply.request, effect->reply.data);
                break;
        case WORLD_PUBLISH:
                break;
        case WORLD_NOTE:
                sim_trace(sim, "node %u notes %s: %.*s", host->id, effect->note.name,
                          BYTES_ARGS(effect->note.text));
                break;
        case WORLD_REDIS_TAIL:
        case WORLD_REDIS_MERGE:
        case WORLD_REDIS_SCAN:
        case WORLD_REDIS_ACKED:
        case WORLD_REDIS_CLOSE:
                if (host->redis_ready)
                        redis_effect(&sim->redis[host->region], host, effect);
                break;
        case WORLD_REDIS_AGAIN:
                redis_again(&sim->redis[host->region], host);
                break;
        case WORLD_POSTGRES_DO:
        case WORLD_POSTGRES_GATE:
        case WORLD_POSTGRES_WATCH:
                postgres_effect(sim, host, effect);
                break;
        }
}

/* Some messages and requests are told as the first of several; what follows is at the least a timer
 * in the next microsecond, and whatever comes before it. */
static bool more_follows(struct sim *sim, const struct world_event *event)
{
        bool may = event->kind == WORLD_MESSAGE || event->kind == WORLD_REQUEST ||
                   event->kind == WORLD_REQUEST_GONE;
        return may && sim->swarm.batches && sim_chance(sim, STREAM_CLOCK, 300);
}

void host_step(struct sim *sim, struct host *host, struct world_event *event)
{
        struct world_effects effects;
        event->now_us = host_mono_us(sim, host);
        event->wall_us = host_wall_us(sim, host);
        event->more = more_follows(sim, event);
        sim_mix(sim, sim->now_us ^ ((uint64_t)host->index << 56) ^ ((uint64_t)event->kind << 48));
        node_step(host->node, event, &effects);
        for (size_t i = 0; i < effects.count && !sim->over; i++)
                carry_out(sim, host, &effects.items[i]);
        if (event->more)
                set_wake(sim, host, 0);
        if (node_failed(host->node) != ERR_NONE)
                sim_violation(sim, "node %u cannot go on: %s", host->id,
                              err_text(node_failed(host->node)));
        if (!sim->over)
                check_host(sim, host);
}

void host_timer(struct sim *sim, struct host *host, uint64_t id)
{
        if (host->node == NULL || host->wake_id != id)
                return;
        if (host->paused_until_us > sim->now_us) {
                sim_at(sim, host->paused_until_us - sim->now_us, EVENT_TIMER, host->index, 0, id);
                return;
        }
        struct world_event event = {.kind = WORLD_TIMER};
        host_step(sim, host, &event);
}

void host_probe(struct sim *sim, struct host *host)
{
        struct world_event event = {.kind = WORLD_PROBED};
        static const enum world_part parts[] = {WORLD_PART_REDIS, WORLD_PART_EDGE, WORLD_PART_DNS};
        if (host->node == NULL)
                return;
        backup_probe(sim, host);
        for (size_t i = 0; i < COUNT_OF(parts); i++) {
                const struct sim_redis *redis = &sim->redis[host->region];
                if (parts[i] == WORLD_PART_REDIS && !redis->exists)
                        continue;
                event.probed.part = parts[i];
                event.probed.healthy = parts[i] != WORLD_PART_REDIS || redis->up;
                sim_post(sim, host, 0, parcel_new(sim, &event, bytes_of(NULL, 0)));
        }
        sim_at(sim, 500 * MS, EVENT_PROBE, host->index, 0, host->generation);
}
