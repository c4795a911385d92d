/* postgres.c - a model of PostgreSQL on each node. Its clients, and what they rely on, are in
 * postgres_clients.c.
 *
 * The log is a list of records with numbers that are never used twice; a place in it (LSN) is a
 * count of records. A primary flushes after a while and streams what is flushed; a standby has what
 * has arrived. A crash loses what is not flushed. Promoting, cloning and rewinding take their time,
 * and need the other machine. The gate is read by the machine's own clock, whatever the daemon
 * does. */
#include "primary/primary.h"
#include "sim/sim_priv.h"

#include <stdio.h>

#define BEAT_US (20 * MS)
#define SEE_US  (60 * MS)
#define SYSTEM  77

static struct sim_postgres *server_of(struct sim *sim, uint32_t host)
{
        CHECK(host < HOSTS_MAX);
        return &sim->postgres[host];
}

static struct host *host_of_node(struct sim *sim, node_id id)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].id == id && sim->postgres[i].exists)
                        return &sim->hosts[i];
        return NULL;
}

static bool runs_primary(const struct sim_postgres *server)
{
        return server->state == PRIMARY_OPEN || server->state == PRIMARY_HELD;
}

bool postgres_gate_open(const struct sim *sim, const struct host *host)
{
        const struct sim_postgres *server = &sim->postgres[host->index];
        if (server->state != PRIMARY_OPEN)
                return false;
        if ((sim->postgres_bugs & SIM_POSTGRES_NO_GATE) != 0)
                return server->gate_until_us != 0;
        return host_mono_us(sim, host) < server->gate_until_us;
}

bool postgres_takes_writes(const struct sim *sim, const struct host *host)
{
        return sim->postgres[host->index].exists && !host->dead && postgres_gate_open(sim, host);
}

static bool reachable(struct sim *sim, uint32_t from, uint32_t to)
{
        const struct sim_link *link = network_link(sim, from, to);
        return !link->cut[from < to ? 0 : 1] && link->clog_until_us <= sim->now_us &&
               !sim->hosts[from].dead && !sim->hosts[to].dead;
}

/* ---- telling the node ---- */

void postgres_fill(struct sim *sim, struct host *host, struct world_postgres *ret)
{
        const struct sim_postgres *server = server_of(sim, host->index);
        *ret = (struct world_postgres){.server = (uint8_t)server->state};
        if (server->state == PRIMARY_OPEN && !postgres_gate_open(sim, host))
                ret->server = PRIMARY_FENCED;
        if (server->state == PRIMARY_ABSENT)
                return;
        ret->system = SYSTEM;
        ret->timeline = server->timeline;
        ret->epoch = server->epoch;
        ret->written = ret->replayed = server->flushed;
        ret->committed = server->count;
        ret->limited = server->gate_limited;
        ret->line_count = server->line_count;
        ret->lines_cut = server->lines_cut;
        memcpy(ret->lines, server->lines, sizeof ret->lines);
        if (server->state == PRIMARY_STANDBY)
                ret->upstream = server->upstream;
        ret->gate_epoch = server->gate_epoch;
        ret->gate_until_us = runs_primary(server) ? server->gate_until_us : 0;
}

static void see(struct sim *sim, struct host *host)
{
        struct world_event event = {.kind = WORLD_POSTGRES_SEEN};
        if (host->node != NULL)
                sim_post(sim, host, 0, parcel_new(sim, &event, bytes_of(NULL, 0)));
}

void postgres_see(struct sim *sim, struct host *host)
{
        see(sim, host);
        sim_at(sim, SEE_US, EVENT_POSTGRES_SEE, host->index, 0, host->generation);
}

void postgres_host_up(struct sim *sim, struct host *host)
{
        if (server_of(sim, host->index)->exists)
                sim_at(sim, MS, EVENT_POSTGRES_SEE, host->index, 0, host->generation);
}

/* ---- changes of the log ---- */

static void life_new(struct sim_postgres *server)
{
        server->life++;
        memset(server->acked, 0, sizeof server->acked);
}

/* The machine goes: what was not flushed is lost. */
void postgres_crash(struct sim *sim, struct host *host)
{
        struct sim_postgres *server = server_of(sim, host->index);
        if (!server->exists || server->state == PRIMARY_ABSENT)
                return;
        sim_trace(sim, "the server of node %u crashes, and loses %u records", host->id,
                  server->count - server->flushed);
        if (server->count > server->flushed)
                sim_cover(sim, COVER_POSTGRES_TAIL);
        server->count = server->flushed;
        server->state = runs_primary(server)               ? PRIMARY_CLOSED
                        : server->state == PRIMARY_STANDBY ? PRIMARY_ASLEEP
                                                           : server->state;
        server->gate_until_us = 0;
        server->action_id++;
        server->action = PRIMARY_DO_NOTHING;
        life_new(server);
}

static uint32_t common_len(const struct sim_postgres *a, const struct sim_postgres *b)
{
        uint32_t len = 0;
        while (len < a->count && len < b->count && a->log[len] == b->log[len])
                len++;
        return len;
}

static void keep_aside(struct sim *sim, struct host *host, uint32_t from)
{
        const struct sim_postgres *server = server_of(sim, host->index);
        sim_trace(sim, "node %u keeps %u records aside", host->id, server->count - from);
        if (server->count > from)
                sim_cover(sim, COVER_POSTGRES_ASIDE);
        for (uint32_t i = from; i < server->count; i++)
                sim->records[server->log[i]].aside =
                        (sim->postgres_bugs & SIM_POSTGRES_NO_ASIDE) == 0;
}

/* Makes a standby of what the other has. */
static void copy_from(struct sim_postgres *server, const struct sim_postgres *other, node_id id)
{
        memcpy(server->log, other->log, other->flushed * sizeof other->log[0]);
        server->count = server->flushed = other->flushed;
        server->timeline = other->timeline;
        server->epoch = other->epoch;
        server->line_count = other->line_count;
        server->lines_cut = other->lines_cut;
        memcpy(server->lines, other->lines, sizeof server->lines);
        server->state = PRIMARY_STANDBY;
        server->upstream = id;
        life_new(server);
}

static void promote(struct sim *sim, struct sim_postgres *server, uint64_t epoch)
{
        if (server->line_count == WORLD_POSTGRES_LINES_MAX) {
                server->line_count--;
                server->lines_cut = true;
        }
        memmove(server->lines + 1, server->lines, server->line_count * sizeof server->lines[0]);
        server->lines[0] =
                (struct world_postgres_line){server->timeline, server->epoch, server->flushed};
        server->line_count++;
        server->timeline++;
        server->epoch = epoch;
        server->upstream = 0;
        server->state = PRIMARY_OPEN;
        sim_cover(sim, COVER_POSTGRES_TAKEOVER);
        life_new(server);
}

/* ---- actions ---- */

static uint64_t action_us(struct sim *sim, enum primary_action action)
{
        static const uint64_t most_us[PRIMARY_ACTION_COUNT] = {
                [PRIMARY_DO_INIT] = 200 * MS,    [PRIMARY_DO_CLONE] = 500 * MS,
                [PRIMARY_DO_START] = 100 * MS,   [PRIMARY_DO_FOLLOW] = 20 * MS,
                [PRIMARY_DO_REWIND] = 400 * MS,  [PRIMARY_DO_REBUILD] = 600 * MS,
                [PRIMARY_DO_PROMOTE] = 300 * MS, [PRIMARY_DO_OPEN] = 100 * MS,
                [PRIMARY_DO_HOLD] = 20 * MS,     [PRIMARY_DO_FENCE] = 50 * MS,
        };
        return sim->swarm.chase ? MS : MS + sim_below(sim, STREAM_POSTGRES, most_us[action] + 1);
}

void postgres_effect(struct sim *sim, struct host *host, const struct world_effect *effect)
{
        struct sim_postgres *server = server_of(sim, host->index);
        if (effect->kind == WORLD_POSTGRES_WATCH)
                return; /* the model tells each change */
        if (effect->kind == WORLD_POSTGRES_GATE) {
                server->gate_epoch = effect->gate.epoch;
                server->gate_until_us = effect->gate.until_us;
                server->gate_limited = effect->gate.limited;
                return;
        }
        enum primary_action action = (enum primary_action)effect->postgres.action;
        if (server->action != PRIMARY_DO_NOTHING && action != PRIMARY_DO_FENCE &&
            server->action_generation == host->generation)
                sim_violation(sim, "contract: node %u asks for %s while %s is under way", host->id,
                              primary_action_name(action), primary_action_name(server->action));
        sim_trace(sim, "node %u: %s from %u, epoch %llu", host->id, primary_action_name(action),
                  effect->postgres.upstream, (unsigned long long)effect->postgres.epoch);
        server->action = action;
        server->action_number = effect->postgres.number;
        server->action_upstream = effect->postgres.upstream;
        server->action_epoch = effect->postgres.epoch;
        server->action_generation = host->generation;
        if (action == PRIMARY_DO_FENCE)
                server->gate_until_us = 0;
        sim_at(sim, action_us(sim, action), EVENT_POSTGRES_DONE, host->index, 0,
               ++server->action_id);
}

static const char *action_copies(struct sim *sim, struct host *host)
{
        struct sim_postgres *server = server_of(sim, host->index);
        struct host *from = host_of_node(sim, server->action_upstream);
        if (from == NULL || from == host || !reachable(sim, from->index, host->index) ||
            !runs_primary(server_of(sim, from->index)))
                return "the primary cannot be reached";
        struct sim_postgres *other = server_of(sim, from->index);
        if (server->action != PRIMARY_DO_CLONE)
                keep_aside(sim, host, common_len(server, other));
        copy_from(server, other, from->id);
        for (uint32_t i = 0; i < server->count && from->region != host->region; i++)
                sim->records[server->log[i]].away = true;
        return "";
}

/* What becomes of the server; "" or why not. */
static const char *action_ends(struct sim *sim, struct host *host)
{
        struct sim_postgres *server = server_of(sim, host->index);
        switch (server->action) {
        case PRIMARY_DO_INIT:
                if (server->state != PRIMARY_ABSENT)
                        return "there is data";
                server->state = PRIMARY_OPEN;
                server->timeline = 1;
                server->epoch = server->action_epoch;
                return "";
        case PRIMARY_DO_CLONE:
        case PRIMARY_DO_REWIND:
        case PRIMARY_DO_REBUILD:
                return action_copies(sim, host);
        case PRIMARY_DO_START:
                server->count = server->flushed;
                server->state = PRIMARY_STANDBY;
                server->upstream = server->action_upstream;
                life_new(server);
                return "";
        case PRIMARY_DO_FOLLOW:
                server->upstream = server->action_upstream;
                return "";
        case PRIMARY_DO_PROMOTE:
                if (server->state != PRIMARY_STANDBY)
                        return "it is no standby";
                promote(sim, server, server->action_epoch);
                return "";
        case PRIMARY_DO_OPEN:
                server->state = PRIMARY_OPEN;
                return "";
        case PRIMARY_DO_HOLD:
                server->state = PRIMARY_HELD;
                server->flushed = server->count;
                return "";
        case PRIMARY_DO_FENCE:
                server->state = runs_primary(server) ? PRIMARY_CLOSED : server->state;
                server->flushed = server->count;
                life_new(server);
                return "";
        case PRIMARY_DO_NOTHING:
        case PRIMARY_DO_CLAIM:
        case PRIMARY_DO_RELEASE:
        case PRIMARY_ACTION_COUNT:
                break;
        }
        sim_violation(sim, "contract: node %u asks its server for action %d", host->id,
                      (int)server->action);
        return "";
}

void postgres_done(struct sim *sim, struct host *host, uint64_t id)
{
        struct sim_postgres *server = server_of(sim, host->index);
        if (server->action_id != id || host->dead)
                return;
        const char *fail = action_ends(sim, host);
        server->action = PRIMARY_DO_NOTHING;
        if (host->node == NULL || server->action_generation != host->generation)
                return;
        struct world_event event = {.kind = WORLD_POSTGRES_DONE};
        event.postgres_done.number = server->action_number;
        struct parcel *parcel = parcel_new(sim, &event, bytes_of_str(fail));
        parcel->event.postgres_done.fail = bytes_of(parcel->bytes, parcel->len);
        sim_post(sim, host, 0, parcel);
        see(sim, host);
}

/* ---- streaming ---- */

static uint64_t stream_us(struct sim *sim, uint32_t a, uint32_t b)
{
        return sim->swarm.delay_us + network_link(sim, a, b)->slow_us +
               sim_below(sim, STREAM_POSTGRES, sim->swarm.jitter_us + 1);
}

/* What a message of a stream says, beside the two ends: which lives of these, and how far. */
static uint64_t word_pack(const struct sim_postgres *from, const struct sim_postgres *to,
                          uint32_t upto)
{
        return (uint64_t)from->life << 48 | (uint64_t)to->life << 32 | upto;
}

static bool word_current(const struct sim_postgres *from, const struct sim_postgres *to,
                         uint64_t word)
{
        return (uint16_t)(word >> 48) == from->life && (uint16_t)(word >> 32) == to->life;
}

/* Everything up to where the other one's timeline began is here: this one is on it, too. */
static void adopt_timeline(struct sim_postgres *server, const struct sim_postgres *other)
{
        if (server->timeline == other->timeline || other->line_count == 0 ||
            server->count < other->lines[0].end)
                return;
        server->timeline = other->timeline;
        server->epoch = other->epoch;
        server->line_count = other->line_count;
        server->lines_cut = other->lines_cut;
        memcpy(server->lines, other->lines, sizeof server->lines);
}

void postgres_streamed(struct sim *sim, uint32_t from, uint32_t to, uint64_t word)
{
        struct sim_postgres *other = server_of(sim, from);
        struct sim_postgres *server = server_of(sim, to);
        uint32_t upto = (uint32_t)word;
        if (!word_current(other, server, word) || server->state != PRIMARY_STANDBY ||
            !reachable(sim, from, to))
                return;
        if (common_len(server, other) < server->count)
                return; /* it has left this line: only a rewind helps */
        for (uint32_t i = server->count; i < upto; i++) {
                server->log[i] = other->log[i];
                if (sim->hosts[from].region != sim->hosts[to].region)
                        sim->records[server->log[i]].away = true;
        }
        if (upto > server->count)
                server->count = upto;
        server->flushed = server->count;
        adopt_timeline(server, other);
        sim_at(sim, stream_us(sim, from, to), EVENT_POSTGRES_ACK, from, to,
               word_pack(other, server, server->flushed));
}

void postgres_acked(struct sim *sim, uint32_t primary, uint32_t standby, uint64_t word)
{
        struct sim_postgres *server = server_of(sim, primary);
        if (!word_current(server, server_of(sim, standby), word) || !runs_primary(server) ||
            !reachable(sim, standby, primary))
                return;
        if ((uint32_t)word > server->acked[standby])
                server->acked[standby] = (uint32_t)word;
}

static void flush(struct sim *sim, struct sim_postgres *server)
{
        if (server->flushed < server->count && sim_chance(sim, STREAM_POSTGRES, 700))
                server->flushed = server->count;
}

/* In other regions. */
static bool standbys_have(const struct sim *sim, const struct host *host,
                          const struct sim_postgres *server, uint32_t lsn)
{
        unsigned have = 0;
        for (uint32_t i = 0; i < sim->host_count; i++)
                have += sim->hosts[i].region != host->region && server->acked[i] >= lsn;
        return have >= sim->swarm.postgres_sync;
}

static void acknowledge(struct sim *sim, struct host *host)
{
        struct sim_postgres *server = server_of(sim, host->index);
        if (!postgres_gate_open(sim, host))
                return;
        for (uint32_t lsn = server->flushed; lsn > 0; lsn--) {
                struct sim_record *record = &sim->records[server->log[lsn - 1]];
                if (record->acked)
                        break;
                if (standbys_have(sim, host, server, lsn) && record->life == server->life &&
                    record->host == host->index)
                        record->acked = true;
        }
}

/* ---- the beat ---- */

/* Nobody streams for a while, though all nodes hear each other. */
static void stall(struct sim *sim)
{
        if (!sim->swarm.postgres_rpo || sim->now_us < sim->streams_stall_us ||
            sim->now_us >= sim->swarm.faults_end_us || !sim_chance(sim, STREAM_POSTGRES, 10))
                return;
        sim->streams_stall_us = sim->now_us + SIM_RPO_LATE_US +
                                sim_below(sim, STREAM_POSTGRES, 2 * SIM_RPO_LATE_US);
        if (sim->streams_stall_us > sim->swarm.load_end_us)
                sim->streams_stall_us = sim->swarm.load_end_us;
        sim_trace(sim, "no standby streams for %llu ms",
                  (unsigned long long)(sim->streams_stall_us - sim->now_us) / MS);
}

void postgres_beat(struct sim *sim)
{
        postgres_check_writers(sim);
        stall(sim);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct sim_postgres *server = server_of(sim, i);
                if (sim->hosts[i].dead || !runs_primary(server))
                        continue;
                flush(sim, server);
                acknowledge(sim, &sim->hosts[i]);
                for (uint32_t k = 0; k < sim->host_count && sim->now_us >= sim->streams_stall_us;
                     k++) {
                        struct sim_postgres *to = server_of(sim, k);
                        if (k != i && to->state == PRIMARY_STANDBY &&
                            to->upstream == sim->hosts[i].id && reachable(sim, i, k))
                                sim_at(sim, stream_us(sim, i, k), EVENT_POSTGRES_STREAM, i, k,
                                       word_pack(server, to, server->flushed));
                }
        }
        if (sim->now_us < sim->swarm.load_end_us)
                postgres_clients(sim);
        sim_at(sim, BEAT_US, EVENT_POSTGRES_BEAT, 0, 0, 0);
}

void postgres_draw(struct sim *sim)
{
        sim->swarm.postgres = sim_chance(sim, STREAM_POSTGRES, 500);
        sim->swarm.postgres_sync = sim_chance(sim, STREAM_POSTGRES, 500) ? 1 : 0;
        /* Not drawn: so the other draws of a seed stay what they are. */
        sim->swarm.postgres_rpo = sim->swarm.postgres_sync == 0 && sim->options.seed % 3 == 1;
}

void postgres_init(struct sim *sim)
{
        if (!sim->swarm.postgres)
                return;
        size_t at = strlen(sim->topologies[0]);
        size_t size = sizeof sim->topologies[0];
        const char *comma = "";
        unsigned regions = 0;
        bool seen[REGIONS_MAX] = {false};
        at += (size_t)snprintf(sim->topologies[0] + at, size - at, "postgres { nodes = [");
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct sim_postgres *server = server_of(sim, i);
                server->exists = sim->redis[sim->hosts[i].region].exists;
                if (!server->exists)
                        continue;
                at += (size_t)snprintf(sim->topologies[0] + at, size - at, "%sn%u", comma,
                                       sim->hosts[i].id);
                comma = ", ";
                regions += seen[sim->hosts[i].region] ? 0 : 1;
                seen[sim->hosts[i].region] = true;
        }
        sim->swarm.postgres_rpo = sim->swarm.postgres_rpo && regions > 1;
        at += (size_t)snprintf(sim->topologies[0] + at, size - at, "]; sync = %u%s%s }\n",
                               sim->swarm.postgres_sync,
                               sim->swarm.orders ? "; automatic = off" : "",
                               sim->swarm.postgres_rpo ? "; rpo = 1s; rpo_hold = on" : "");
        CHECK(at < size);
        sim_at(sim, BEAT_US, EVENT_POSTGRES_BEAT, 0, 0, 0);
}
