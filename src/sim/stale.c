/* stale.c - seeds whose only fault is aimed at the one that answers questions.
 *
 * A leader that others have replaced, and that does not know it yet, must answer nothing by its own
 * state. It is in that place for a moment only: from the first write under its successor to the end
 * of its own patience. So here the clocks are as fast or as slow as may be, the global group's
 * leader is first slowed, so that answers of long ago still reach it, then heard no more, then cut
 * off; meanwhile it is asked again and again, and others write.
 *
 *   steady --> slow --> mute --> cut off --> steady
 *
 * Judged at once: revisions only grow, so an answer is not below a revision that somebody was told
 * before the question. */
#include "kv/kv.h"
#include "sim/sim_priv.h"

#define READ_EVERY_US  (15 * MS)
#define STEADY_US      (1500 * MS)
#define CUT_US         (2500 * MS)
#define SLOW_MIN_US    (100 * MS)
#define SLOW_SPREAD_US (300 * MS)

enum phase {
        PHASE_STEADY,
        PHASE_SLOW,
        PHASE_MUTE,
        PHASE_CUT,
};

void stale_draw(struct sim *sim)
{
        struct swarm *swarm = &sim->swarm;
        swarm->stale = bug_wants_stale(sim) && sim_chance(sim, STREAM_STALE, 40) && !swarm->calm &&
                       !swarm->deaths_only && !swarm->one_cut && !swarm->chase && !swarm->change;
        if (!swarm->stale)
                return;
        sim_cover(sim, COVER_STALE_SEED);
        swarm->rates = true;
        swarm->postgres = swarm->upgrade = swarm->tail_loss = swarm->small_ring = false;
        swarm->loss = (unsigned)sim_below(sim, STREAM_STALE, 10);
        swarm->faults_end_us = 16 * SECOND;
        swarm->load_end_us = 17 * SECOND;
        swarm->end_us = 37 * SECOND;
}

uint64_t stale_rate_ppm(struct sim *sim)
{
        return sim_chance(sim, STREAM_STALE, 500) ? 800000 : 1200000;
}

/* ---- the fault ---- */

static struct host *leader(struct sim *sim, uint64_t *ret_term)
{
        struct host *found = NULL;
        *ret_term = 0;
        for (uint32_t i = 0; i < sim->host_count; i++) {
                struct host *host = &sim->hosts[i];
                if (host->node == NULL)
                        continue;
                struct consensus_status status = node_group_status(host->node, WORLD_GROUP_GLOBAL);
                if (status.role != CONSENSUS_LEADER || status.term <= *ret_term)
                        continue;
                *ret_term = status.term;
                found = host;
        }
        return found;
}

static void links_set(struct sim *sim, uint32_t of, uint64_t slow_us, bool forth, bool back)
{
        for (uint32_t i = 0; i < sim->host_count; i++) {
                if (i == of)
                        continue;
                network_link(sim, of, i)->slow_us = slow_us;
                network_cut(sim, of, i, forth, back);
        }
}

void stale_step(struct sim *sim)
{
        struct stale *stale = &sim->stale;
        uint64_t after_us = STEADY_US;
        uint64_t term;
        struct host *host = leader(sim, &term);
        if (sim->healing)
                return;
        switch (stale->phase) {
        case PHASE_STEADY:
                if (host == NULL) {
                        after_us = 100 * MS;
                        break;
                }
                stale->host = host->index;
                stale->slow_us = SLOW_MIN_US + sim_below(sim, STREAM_STALE, SLOW_SPREAD_US);
                sim_trace(sim, "the links of node %u are slow by %llu ms", host->id,
                          (unsigned long long)(stale->slow_us / MS));
                links_set(sim, stale->host, stale->slow_us, false, false);
                stale->phase = PHASE_SLOW;
                break;
        case PHASE_SLOW:
                if (host == NULL || host->index != stale->host) {
                        links_set(sim, stale->host, 0, false, false);
                        stale->phase = PHASE_STEADY;
                        break;
                }
                sim_trace(sim, "node %u is heard no more", host->id);
                links_set(sim, stale->host, stale->slow_us, true, false);
                stale->phase = PHASE_MUTE;
                after_us = sim->swarm.delay_us + sim->swarm.jitter_us + stale->slow_us;
                break;
        case PHASE_MUTE:
                links_set(sim, stale->host, stale->slow_us, true, true);
                stale->phase = PHASE_CUT;
                after_us = CUT_US;
                break;
        case PHASE_CUT:
                links_set(sim, stale->host, 0, false, false);
                stale->phase = PHASE_STEADY;
                break;
        }
        sim_at(sim, after_us, EVENT_FAULT, 0, 0, 0);
}

/* ---- questions and writes ---- */

void stale_init(struct sim *sim)
{
        if (!sim->swarm.stale)
                return;
        for (uint32_t i = 0; i < STALE_CLIENTS; i++)
                sim_at(sim, SECOND + i * MS, EVENT_STALE, i, 0, 0);
}

static void ask(struct sim *sim, struct host *host, bool write)
{
        struct kv_build build;
        struct buffer txn;
        struct stale *stale = &sim->stale;
        struct kv_step step = {.op = KV_GET, .key = BYTES("global:newest")};
        if (write) {
                step.op = KV_PUT;
                step.value = BYTES("written");
        }
        buffer_init(&txn, &sim->heap);
        kv_build_init(&build, &sim->heap);
        kv_build_step(&build, false, &step);
        CHECK(kv_build_end(&build, &txn) == ERR_NONE);
        kv_build_fini(&build);
        struct request request = {.kind = REQUEST_KV};
        request.kv.key = step.key;
        request.kv.txn = buffer_view(&txn);
        struct stale_question *question = &stale->questions[stale->asked++ % STALE_QUESTIONS];
        *question = (struct stale_question){.floor = stale->revision, .asked_us = sim->now_us};
        question->request = clients_ask(sim, host, &request);
        buffer_fini(&txn);
}

/* The first asks the leader that is being replaced, the others write elsewhere. */
void stale_client_step(struct sim *sim, uint32_t index)
{
        uint64_t term;
        struct host *newest = leader(sim, &term);
        struct host *host = &sim->hosts[sim->stale.host];
        if (sim->now_us >= sim->swarm.load_end_us)
                return;
        if (index == 0) {
                sim_at(sim, READ_EVERY_US, EVENT_STALE, index, 0, 0);
                if (host->node != NULL)
                        ask(sim, host, false);
                if (newest != NULL && newest != host && host->node != NULL &&
                    node_group_status(host->node, WORLD_GROUP_GLOBAL).role == CONSENSUS_LEADER)
                        sim_cover(sim, COVER_STALE);
                return;
        }
        host = &sim->hosts[sim_below(sim, STREAM_STALE, sim->host_count)];
        sim_at(sim, 20 * MS + sim_below(sim, STREAM_STALE, 60 * MS), EVENT_STALE, index, 0, 0);
        if (host->node != NULL && host->index != sim->stale.host)
                ask(sim, host, true);
}

bool stale_reply(struct sim *sim, const struct host *host, uint64_t request,
                 const struct reply *reply)
{
        struct stale *stale = &sim->stale;
        struct kv_reading reading;
        size_t at = 0;
        while (at < STALE_QUESTIONS && stale->questions[at].request != request)
                at++;
        if (at == STALE_QUESTIONS || reply->kind != REQUEST_KV)
                return false;
        const struct stale_question *question = &stale->questions[at];
        if (reply->code != REPLY_OK)
                return true;
        CHECK(kv_result_open(reply->kv.result, &reading) == ERR_NONE);
        if (reading.head.revision < question->floor)
                sim_violation(sim,
                              "reads: node %u was asked at %llu us and answers by revision %llu, "
                              "somebody had been told %llu",
                              host->id, (unsigned long long)question->asked_us,
                              (unsigned long long)reading.head.revision,
                              (unsigned long long)question->floor);
        if (reading.head.revision > stale->revision)
                stale->revision = reading.head.revision;
        return true;
}
