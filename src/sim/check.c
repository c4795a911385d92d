/* check.c - what must always hold, and what must hold in the end. */
#include "sim/sim_priv.h"

#include "council/council.h"
#include "topology/state.h"

#include <stdio.h>

#define ISOLATED_ASK_US    (3 * SECOND)
#define ISOLATED_ANSWER_US (5 * SECOND / 2)
#define DEAD_LEAVES_US     (4 * SECOND)
#define ROUND_US           (2500 * MS)
#define ROUND_LAG_US       (2000 * MS)
#define SETTLE_US          (8 * SECOND)
#define RETURN_LAG_MS      3500 /* lag_max by a slow clock, and the way of the decision */
#define DIGEST_EVERY       4

unsigned check_group_index(const struct host *host, unsigned group)
{
        return group == WORLD_GROUP_GLOBAL ? 0 : 1 + host->region;
}

static void check_leader(struct sim *sim, const struct host *host, unsigned group,
                         const struct consensus_status *status)
{
        if (status->role != CONSENSUS_LEADER || status->term >= TERMS_MAX)
                return;
        uint16_t *leader = &sim->leader_of[check_group_index(host, group)][status->term];
        if (*leader == 0 && group == WORLD_GROUP_GLOBAL && ++sim->leader_changes > 1)
                sim_cover(sim, COVER_LEADER_CHANGES);
        if (*leader != 0 && *leader != host->id)
                sim_violation(sim, "two leaders: nodes %u and %u lead group %u in term %llu",
                              *leader, host->id, check_group_index(host, group),
                              (unsigned long long)status->term);
        *leader = (uint16_t)host->id;
}

void check_digest(struct sim *sim, const struct host *host, unsigned at, uint64_t index,
                  uint64_t digest)
{
        uint64_t *known = &sim->digests[at][index];
        if (*known != 0 && *known != digest)
                sim_violation(sim, "replicas differ: group %u at entry %llu on node %u", at,
                              (unsigned long long)index, host->id);
        *known = digest;
}

/* The state after an entry is the same on every replica, before and after a restart. */
static void check_applied(struct sim *sim, struct host *host, unsigned group)
{
        const struct council *council = node_council(host->node, (enum world_group)group);
        uint64_t applied = council_applied_index(council);
        unsigned at = check_group_index(host, group);
        if (council_restoring(council))
                sim_cover(sim, COVER_RESTORE_STEPS);
        if (applied == host->group_applied[group])
                return;
        if (applied < host->group_applied[group])
                sim_violation(sim, "applied: node %u goes back from %llu to %llu", host->id,
                              (unsigned long long)host->group_applied[group],
                              (unsigned long long)applied);
        host->group_applied[group] = applied;
        if (applied > sim->applied_max[at])
                sim->applied_max[at] = applied;
        if (applied < INDEX_MAX && applied % DIGEST_EVERY == 0)
                check_digest(sim, host, at, applied, council_digest(council));
}

static bool region_serves(const struct sim *sim, uint32_t region)
{
        return sim->redis[region].exists;
}

/* A region that died alone and came back: when it serves again, its data are not old. */
static void region_returned(struct sim *sim, uint32_t region)
{
        sim_cover(sim, COVER_REGION_BACK);
        if (!sim->swarm.deaths_only || !region_serves(sim, region))
                return;
        for (uint32_t i = 0; i < sim->host_count && !sim->over; i++) {
                const struct host *other = &sim->hosts[i];
                uint64_t old_ms = redis_lag_ms(sim, region, other->region);
                if (other->region != region && old_ms > RETURN_LAG_MS)
                        sim_violation(sim,
                                      "returned: region %u serves with data of region %u that are "
                                      "%llu ms old",
                                      region + 1, other->region + 1, (unsigned long long)old_ms);
        }
}

/* Light packet loss changes no state; one link that is cut takes nobody out. */
static void check_flapping(struct sim *sim, const struct host *host, uint32_t region,
                           enum region_state state)
{
        if (!sim->settled || !region_serves(sim, region) || !host_in(sim, host) ||
            host->from_epoch > 1)
                return;
        bool serves = region_state_serves(state) &&
                      node_routable(host->node, (region_id)(region + 1), host_mono_us(sim, host));
        if (sim->swarm.calm && (!serves || state != REGION_ACTIVE))
                sim_violation(
                        sim, "flapping: node %u holds region %u for %s with only light packet loss",
                        host->id, region + 1, region_state_name(state));
        if (sim->swarm.one_cut && !serves)
                sim_violation(sim, "flapping: node %u holds region %u for %s for one link cut",
                              host->id, region + 1, region_state_name(state));
}

static void check_view(struct sim *sim, struct host *host)
{
        for (uint32_t i = 0; i < sim->swarm.region_count; i++) {
                region_id id = (region_id)(i + 1);
                uint64_t state = (uint64_t)node_region_state(host->node, id);
                if (host->index == 0 && state != sim->last_state[i]) {
                        if (state == REGION_DOWN)
                                sim_cover(sim, COVER_REGION_DOWN);
                        if (state == REGION_ACTIVE && sim->last_state[i] == REGION_RECOVERING)
                                region_returned(sim, i);
                        sim->last_state[i] = state;
                }
                check_flapping(sim, host, i, (enum region_state)state);
        }
}

void check_host(struct sim *sim, struct host *host)
{
        for (unsigned group = 0; group < WORLD_GROUP_COUNT && !sim->over; group++) {
                struct consensus_status status =
                        node_group_status(host->node, (enum world_group)group);
                check_leader(sim, host, group, &status);
                check_applied(sim, host, group);
        }
        if (!sim->over)
                check_view(sim, host);
        if (!sim->over)
                copies_check(sim, host);
        uint64_t heirs = node_counters(host->node).heirs;
        if (heirs > host->heirs)
                sim_cover(sim, COVER_HEIR);
        host->heirs = heirs;
}

/* ---- now and then ---- */

static bool all_active(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *host = &sim->hosts[i];
                if (!host_in(sim, host))
                        continue;
                if (host->node == NULL)
                        return false;
                for (uint32_t k = 0; k < sim->swarm.region_count; k++)
                        if (region_serves(sim, k) &&
                            (node_region_state(host->node, (region_id)(k + 1)) != REGION_ACTIVE ||
                             !node_routable(host->node, (region_id)(k + 1),
                                            host_mono_us(sim, host)))) {
                                sim_trace(sim, "node %u holds region %u for %s", host->id, k + 1,
                                          region_state_name((enum region_state)node_region_state(
                                                  host->node, (region_id)(k + 1))));
                                return false;
                        }
        }
        return true;
}

static void check_settled(struct sim *sim)
{
        if (sim->settled)
                return;
        sim->settled = all_active(sim);
        if (!sim->settled && sim->swarm.calm && sim->now_us > SETTLE_US)
                sim_violation(sim, "liveness: not all regions are active after %llu s of calm",
                              (unsigned long long)(SETTLE_US / SECOND));
}

static uint64_t ask_lock(struct sim *sim, struct host *host, const char *key)
{
        struct request request = {.kind = REQUEST_LOCK_ACQUIRE};
        request.lock.key = bytes_of_str(key);
        request.lock.owner = BYTES("probe");
        request.lock.ttl_ms = 100;
        return clients_ask(sim, host, &request);
}

static bool host_fine(const struct sim *sim, const struct host *host, uint64_t since_us)
{
        return host->node != NULL && !host->disk_broken && host->paused_until_us < since_us &&
               sim->host_count == sim->swarm.region_count;
}

/* A region that is cut off grants its own locks and refuses global ones. */
static void check_isolated(struct sim *sim)
{
        if (sim->isolated < 0 || sim->now_us < sim->isolated_since_us + ISOLATED_ASK_US)
                return;
        struct host *host = &sim->hosts[sim->isolated];
        if (sim->probe_global == 0 && host_fine(sim, host, sim->isolated_since_us)) {
                char key[16];
                (void)snprintf(key, sizeof key, "r%u:probe", host->region + 1);
                sim->probe_global = ask_lock(sim, host, "global:probe");
                sim->probe_region = ask_lock(sim, host, key);
                sim->probe_us = sim->now_us;
                sim->probe_generation = host->generation;
                return;
        }
        if (sim->probe_global == 0 || sim->now_us < sim->probe_us + ISOLATED_ANSWER_US)
                return;
        if (!host_fine(sim, host, sim->isolated_since_us) ||
            host->generation != sim->probe_generation)
                return;
        if (!sim->minority_global_refused)
                sim_violation(sim, "minority: node %u, cut off, did not refuse a global lock",
                              host->id);
        else if (!sim->minority_region_granted)
                sim_violation(sim, "minority: node %u, cut off, did not grant a lock of its region",
                              host->id);
        sim_cover(sim, COVER_MINORITY_SERVES);
        sim->isolated_since_us = UINT64_MAX / 2;
}

static void check_dead(struct sim *sim)
{
        if (!sim->swarm.deaths_only || sim->dead_since_us == 0 || sim->healing ||
            sim->now_us < sim->dead_since_us + DEAD_LEAVES_US || !sim->settled)
                return;
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *dead = &sim->hosts[i];
                for (uint32_t k = 0; k < sim->host_count && dead->dead; k++) {
                        const struct host *host = &sim->hosts[k];
                        if (host->node != NULL &&
                            node_routable(host->node, (region_id)(dead->region + 1),
                                          host_mono_us(sim, host)))
                                sim_violation(
                                        sim, "view: node %u routes to region %u, dead for %llu ms",
                                        host->id, dead->region + 1,
                                        (unsigned long long)((sim->now_us - sim->dead_since_us) /
                                                             MS));
                }
        }
}

/* One link is cut and a third region, which has data, reaches both ends: data goes round. */
static void check_round(struct sim *sim)
{
        if (!sim->swarm.one_cut || sim->healing || !sim->settled || sim->swarm.small_windows ||
            sim->host_count != sim->swarm.region_count || sim->now_us > sim->swarm.load_end_us ||
            sim->swarm.region_count - sim->swarm.witness < 3)
                return;
        for (uint32_t a = 0; a < sim->host_count; a++) {
                for (uint32_t b = a + 1; b < sim->host_count; b++) {
                        const struct sim_link *link = &sim->links[a][b];
                        if (!(link->cut[0] && link->cut[1]) ||
                            sim->now_us < link->cut_since_us + ROUND_US)
                                continue;
                        uint64_t ab_ms =
                                redis_behind_ms(sim, sim->hosts[a].region, sim->hosts[b].region);
                        uint64_t ba_ms =
                                redis_behind_ms(sim, sim->hosts[b].region, sim->hosts[a].region);
                        sim_cover(sim, COVER_ROUND);
                        if (ab_ms * MS > ROUND_LAG_US || ba_ms * MS > ROUND_LAG_US)
                                sim_violation(
                                        sim,
                                        "relay: %u - %u is cut for %llu ms, and they are "
                                        "%llu and %llu ms behind each other",
                                        sim->hosts[a].id, sim->hosts[b].id,
                                        (unsigned long long)((sim->now_us - link->cut_since_us) /
                                                             MS),
                                        (unsigned long long)ab_ms, (unsigned long long)ba_ms);
                }
        }
}

/* Regions that an operator took out during the faults come back by an operator. */
static void undrain(struct sim *sim)
{
        if (!sim->healing || sim->now_us < sim->undrain_us)
                return;
        sim->undrain_us = sim->now_us + SECOND;
        struct host *host = &sim->hosts[sim_below(sim, STREAM_FAULTS, sim->host_count)];
        for (uint32_t i = 0; i < sim->swarm.region_count && host->node != NULL; i++) {
                int state = node_region_state(host->node, (region_id)(i + 1));
                if (state != REGION_DRAINING && state != REGION_DRAINED)
                        continue;
                char name[8] = {'r', (char)('1' + i)};
                struct request request = {.kind = REQUEST_REGION};
                request.region.region = bytes_of_str(name);
                request.region.action = REQUEST_UNDRAIN;
                request.region.actor = BYTES("operator");
                (void)clients_ask(sim, host, &request);
        }
}

/* For a person who looks for the cause. */
static void groups_explain(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *host = &sim->hosts[i];
                for (unsigned group = 0; group < WORLD_GROUP_COUNT && host->node != NULL; group++) {
                        struct consensus_status status =
                                node_group_status(host->node, (enum world_group)group);
                        sim_trace(sim,
                                  "node %u group %u: %s%s term %llu leader %u vote %u last %llu "
                                  "stored %llu commit %llu applied %llu",
                                  host->id, check_group_index(host, group),
                                  consensus_role_name(status.role), status.failed ? " FAILED" : "",
                                  (unsigned long long)status.term, status.leader, status.vote,
                                  (unsigned long long)status.last_index,
                                  (unsigned long long)status.stored_index,
                                  (unsigned long long)status.commit_index,
                                  (unsigned long long)status.applied_index);
                }
        }
}

void check_periodic(struct sim *sim)
{
        check_settled(sim);
        check_isolated(sim);
        check_dead(sim);
        check_round(sim);
        undrain(sim);
        char why[128];
        if (sim->now_us < sim->swarm.load_end_us)
                return;
        if (check_converged(sim, why, sizeof why)) {
                sim->converged_us = sim->now_us;
                return;
        }
        if (sim->now_us < sim->swarm.end_us)
                return;
        groups_explain(sim);
        redis_explain(sim);
        sim_violation(sim, "liveness: %llu s after the faults ended %s",
                      (unsigned long long)((sim->now_us - sim->swarm.faults_end_us) / SECOND), why);
}

/* ---- in the end ---- */

static bool groups_converged(struct sim *sim, char *why, size_t size)
{
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *host = &sim->hosts[i];
                if (!host_in(sim, host))
                        continue;
                if (host->node == NULL) {
                        (void)snprintf(why, size, "node %u is not running", host->id);
                        return false;
                }
                for (unsigned group = 0; group < WORLD_GROUP_COUNT; group++) {
                        struct consensus_status status =
                                node_group_status(host->node, (enum world_group)group);
                        unsigned at = check_group_index(host, group);
                        if (status.leader == 0) {
                                (void)snprintf(why, size, "node %u knows no leader of group %u",
                                               host->id, at);
                                return false;
                        }
                        bool stateless = group == WORLD_GROUP_GLOBAL &&
                                         (sim->options.raft == NULL ||
                                          sim->options.raft == &consensus_core) &&
                                         !sim->redis[host->region].exists;
                        if (!stateless && host->group_applied[group] < sim->applied_at_heal[at]) {
                                (void)snprintf(
                                        why, size, "node %u has applied %llu of %llu in group %u",
                                        host->id, (unsigned long long)host->group_applied[group],
                                        (unsigned long long)sim->applied_at_heal[at], at);
                                return false;
                        }
                }
        }
        return true;
}

/* No client asks any more, so every lease has ended. */
static bool locks_free(const struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                for (unsigned group = 0; group < WORLD_GROUP_COUNT && host_in(sim, &sim->hosts[i]);
                     group++) {
                        const struct lock_table *locks = council_locks(
                                node_council(sim->hosts[i].node, (enum world_group)group));
                        bool global = group == WORLD_GROUP_GLOBAL;
                        /* PostgreSQL's lease stays, for a while what was asked for last. */
                        size_t stay = global && sim->swarm.postgres ? 1u : 0u;
                        stay += global && sim->swarm.orders ? 1u : 0u;
                        if (lock_table_count(locks) > stay || lock_table_waiters(locks) > 0)
                                return false;
                }
        return true;
}

bool check_converged(struct sim *sim, char *why, size_t size)
{
        if (!groups_converged(sim, why, size) || !changes_done(sim, why, size))
                return false;
        if (!all_active(sim)) {
                (void)snprintf(why, size, "not all regions are active and routable everywhere");
                return false;
        }
        if (!locks_free(sim)) {
                (void)snprintf(why, size, "locks of clients that are gone are held");
                return false;
        }
        if (!postgres_converged(sim, why, size) || !upgrade_converged(sim, why, size) ||
            !copies_converged(sim, why, size))
                return false;
        if (!redis_all_equal(sim)) {
                (void)snprintf(why, size, "the Redis servers differ");
                return false;
        }
        return true;
}

void check_end(struct sim *sim)
{
        redis_check_converged(sim);
        history_check(sim);
        copies_check_end(sim);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                const struct host *host = &sim->hosts[i];
                for (unsigned group = 0; group < WORLD_GROUP_COUNT; group++) {
                        const struct council *council =
                                node_council(host->node, (enum world_group)group);
                        lock_table_check(council_locks(council));
                        sim_mix(sim, council_digest(council));
                }
        }
        for (uint32_t i = 0; i < sim->swarm.region_count; i++)
                if (sim->redis[i].exists)
                        sim_mix(sim, keyspace_digest(sim->redis[i].keyspace));
}
