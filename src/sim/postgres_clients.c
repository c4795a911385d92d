/* postgres_clients.c - who uses the model of PostgreSQL, and what they rely on.
 *
 * A client writes wherever it is let, and is told of a commit when it is flushed, on so many
 * standbys as the seed asks for, and the gate still stands open.
 *
 * Promised: at any moment at most one server takes writes, their epochs never fall, and each is
 * that of the timeline that is written to. What was acknowledged with standbys is in the last
 * primary; what was acknowledged without is there or was kept aside, and what is kept aside is what
 * the others have not. Where the seed asks for it, nothing is written while no other region has
 * what was written a second ago, but for what a stopped daemon's gate lets through. After all has
 * healed there is a primary, and all others follow it and have the same. */
#include "primary/primary.h"
#include "sim/sim_priv.h"

#include <stdio.h>

#define RPO_MS       1000
#define SWITCH_MILLE 8 /* of the beats of clients ask for a switchover */

void postgres_check_writers(struct sim *sim)
{
        const struct host *first = NULL;
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *host = &sim->hosts[i];
                if (!postgres_takes_writes(sim, host))
                        continue;
                if (first != NULL)
                        sim_violation(sim, "postgres: nodes %u and %u take writes at once",
                                      first->id, host->id);
                first = host;
                uint64_t epoch = sim->postgres[i].gate_epoch;
                if (epoch < sim->postgres_epoch)
                        sim_violation(sim, "postgres: node %u takes writes under epoch %llu",
                                      host->id, (unsigned long long)epoch);
                if (epoch != sim->postgres[i].epoch)
                        sim_violation(sim,
                                      "postgres: node %u goes on with a timeline of epoch %llu "
                                      "under epoch %llu",
                                      host->id, (unsigned long long)sim->postgres[i].epoch,
                                      (unsigned long long)epoch);
                sim->postgres_epoch = epoch;
        }
}

/* A commit begins: for how long has no other region what was committed here before? */
static void check_limit(struct sim *sim, const struct host *host)
{
        const struct sim_postgres *server = &sim->postgres[host->index];
        for (uint32_t lsn = server->count; lsn > 0 && sim->swarm.postgres_rpo; lsn--) {
                const struct sim_record *record = &sim->records[server->log[lsn - 1]];
                if (record->away || record->life != server->life || record->host != host->index)
                        return;
                if (sim->now_us > record->at_us + RPO_MS * MS + SIM_RPO_LATE_US)
                        sim_violation(sim,
                                      "postgres: node %u commits, and no other region has what it "
                                      "committed %llu ms ago",
                                      host->id,
                                      (unsigned long long)(sim->now_us - record->at_us) / MS);
        }
}

static void client_writes(struct sim *sim)
{
        struct host *host = &sim->hosts[sim_below(sim, STREAM_POSTGRES, sim->host_count)];
        struct sim_postgres *server = &sim->postgres[host->index];
        if (!server->exists || host->dead || !postgres_gate_open(sim, host) ||
            sim->record_count == POSTGRES_RECORDS_MAX)
                return;
        if (server->gate_limited) {
                sim_cover(sim, COVER_POSTGRES_HELD);
                return;
        }
        check_limit(sim, host);
        sim->records[sim->record_count] = (struct sim_record){
                .host = host->index, .life = server->life, .at_us = sim->now_us};
        server->log[server->count++] = sim->record_count++;
}

static void client_switches(struct sim *sim)
{
        struct host *host = &sim->hosts[sim_below(sim, STREAM_POSTGRES, sim->host_count)];
        char name[8];
        if (host->node == NULL || !sim_chance(sim, STREAM_POSTGRES, SWITCH_MILLE))
                return;
        (void)snprintf(name, sizeof name, "n%u",
                       (unsigned)(1 + sim_below(sim, STREAM_POSTGRES, sim->host_count)));
        struct request request = {.kind = REQUEST_POSTGRES};
        request.postgres.wish = REQUEST_SWITCHOVER;
        request.postgres.target = bytes_of_str(name);
        (void)clients_ask(sim, host, &request);
}

void postgres_clients(struct sim *sim)
{
        client_writes(sim);
        if (!sim->swarm.orders)
                client_switches(sim);
}

static bool log_has(const struct sim_postgres *server, uint32_t record)
{
        for (uint32_t i = 0; i < server->count; i++)
                if (server->log[i] == record)
                        return true;
        return false;
}

static void check_records(struct sim *sim, const struct sim_postgres *primary)
{
        for (uint32_t i = 0; i < sim->record_count; i++) {
                const struct sim_record *record = &sim->records[i];
                bool has = log_has(primary, i);
                if (record->acked && !has && sim->swarm.postgres_sync > 0)
                        sim_violation(sim, "postgres: commit %u, on a standby, is lost", i);
                else if (record->acked && !has && !record->aside)
                        sim_violation(sim, "postgres: commit %u is neither there nor kept aside",
                                      i);
                if (record->acked && !has)
                        sim_cover(sim, COVER_POSTGRES_LOSS);
        }
}

bool postgres_converged(struct sim *sim, char *why, size_t size)
{
        const struct host *primary = NULL;
        if (!sim->swarm.postgres)
                return true;
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->postgres[i].exists && postgres_gate_open(sim, &sim->hosts[i]))
                        primary = &sim->hosts[i];
        if (primary == NULL) {
                (void)snprintf(why, size, "there is no PostgreSQL primary");
                return false;
        }
        const struct sim_postgres *writer = &sim->postgres[primary->index];
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct sim_postgres *server = &sim->postgres[i];
                if (!server->exists || server == writer)
                        continue;
                if (server->state != PRIMARY_STANDBY || server->upstream != primary->id ||
                    server->count != writer->count || server->epoch != writer->epoch) {
                        (void)snprintf(why, size, "the server of node %u (%s) does not follow %u",
                                       sim->hosts[i].id,
                                       primary_server_name((enum primary_server)server->state),
                                       primary->id);
                        return false;
                }
        }
        check_records(sim, writer);
        return true;
}
