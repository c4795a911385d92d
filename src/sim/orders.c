/* orders.c - seeds in which a switchover is asked for and given up, and then the writer dies.
 *
 * Takeovers wait for a person there (`automatic = off`), and the only thing that was ever asked for
 * is off: so nobody may take over, however the target's claim stood in the lease's queue. The
 * streams stall meanwhile, so that the switchover does not come true at once. Nothing else fails:
 * what was said before the writer's death has been heard. Otherwise, where there is no writer, a
 * person helps. */
#include "primary/primary.h"
#include "sim/sim_priv.h"

#include "node/status.h"

#include <stdio.h>

#define STEP_US   (25 * MS)
#define ROUND_US  (9 * SECOND) /* from an order to the end of its checks, and a little more */
#define DEAD_US   (6 * SECOND) /* longer than a lease, and than a claim waits */
#define HEARD_US  (300 * MS)   /* and four delays: after that its end is known everywhere */
#define STALL_US  (1500 * MS)
#define QUEUED_US (400 * MS) /* at most, before it is aborted */

enum stage {
        STAGE_STEADY,
        STAGE_ASKED,
        STAGE_ABORTED,
        STAGE_OFF,
        STAGE_DEAD,
};

void orders_draw(struct sim *sim)
{
        struct swarm *swarm = &sim->swarm;
        /* Not drawn: so the other draws of a seed stay what they are. */
        swarm->orders = bug_wants_orders(sim) && sim->options.seed % 8 == 5 && swarm->postgres &&
                        !swarm->calm && !swarm->deaths_only && !swarm->one_cut && !swarm->chase &&
                        !swarm->change && !swarm->stale;
        if (!swarm->orders)
                return;
        swarm->upgrade = false;
        swarm->loss = 0;
        swarm->faults_end_us = 18 * SECOND;
        swarm->load_end_us = 19 * SECOND;
        swarm->end_us = 39 * SECOND;
}

static void ask(struct sim *sim, struct host *host, enum request_postgres wish, node_id target)
{
        char name[16] = "";
        struct request request = {.kind = REQUEST_POSTGRES};
        if (target != 0)
                (void)snprintf(name, sizeof name, "n%u", target);
        request.postgres.wish = wish;
        request.postgres.target = bytes_of_str(name);
        (void)clients_ask(sim, host, &request);
}

static struct host *writer(struct sim *sim)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].node != NULL && postgres_takes_writes(sim, &sim->hosts[i]))
                        return &sim->hosts[i];
        return NULL;
}

/* One that follows the writer; 0: none. */
static node_id follower(struct sim *sim, const struct host *host)
{
        uint32_t first = (uint32_t)sim_below(sim, STREAM_POSTGRES, sim->host_count);
        for (uint32_t i = 0; i < sim->host_count; i++) {
                uint32_t at = (first + i) % sim->host_count;
                const struct sim_postgres *server = &sim->postgres[at];
                if (server->exists && sim->hosts[at].node != NULL &&
                    server->state == PRIMARY_STANDBY && server->upstream == host->id)
                        return sim->hosts[at].id;
        }
        return 0;
}

static const char *order_state(struct sim *sim, const struct host *host)
{
        struct node_status_postgres *status = heap_alloc(&sim->heap, sizeof *status);
        const char *state = "none";
        if (status != NULL && host->node != NULL) {
                node_postgres(host->node, host_mono_us(sim, host), status);
                state = status->order.state;
        }
        heap_free(&sim->heap, status);
        return state;
}

/* Who died on its way back is a standby: it waits for a person, too. */
static void help(struct sim *sim)
{
        uint32_t at = (uint32_t)(sim->now_us / SECOND) % sim->host_count;
        if (sim->now_us < sim->orders.at_us + SECOND)
                return;
        sim->orders.at_us = sim->now_us;
        if (sim->hosts[at].node != NULL)
                ask(sim, &sim->hosts[at], REQUEST_FAILOVER, 0);
}

static void begin(struct sim *sim)
{
        struct orders *orders = &sim->orders;
        struct host *host = writer(sim);
        if (host == NULL) {
                help(sim);
                return;
        }
        node_id target = follower(sim, host);
        if (target == 0 || sim->now_us + ROUND_US > sim->swarm.faults_end_us)
                return;
        sim->streams_stall_us = sim->now_us + STALL_US;
        ask(sim, host, REQUEST_SWITCHOVER, target);
        orders->host = host->index;
        orders->stage = STAGE_ASKED;
        orders->at_us = sim->now_us + sim_below(sim, STREAM_POSTGRES, QUEUED_US);
}

static void die(struct sim *sim)
{
        struct orders *orders = &sim->orders;
        struct host *host = &sim->hosts[orders->host];
        sim_trace(sim, "the switchover from node %u is off, and it dies", host->id);
        sim_cover(sim, COVER_ORDER_OFF);
        host_crash(sim, host);
        postgres_crash(sim, host);
        sim_at(sim, DEAD_US, EVENT_RESTART, host->index, 0, host->generation);
        orders->stage = STAGE_DEAD;
        orders->at_us = sim->now_us + DEAD_US;
}

static void look(struct sim *sim)
{
        struct orders *orders = &sim->orders;
        const struct host *host = &sim->hosts[orders->host];
        const struct host *other = writer(sim);
        if (orders->stage == STAGE_DEAD && other != NULL)
                sim_violation(sim, "postgres: node %u takes over, and nobody asks for it",
                              other->id);
        if (orders->stage == STAGE_STEADY) {
                begin(sim);
                return;
        }
        if (sim->now_us < orders->at_us)
                return;
        if (orders->stage == STAGE_ASKED) {
                ask(sim, &sim->hosts[orders->host], REQUEST_POSTGRES_ABORT, 0);
                orders->stage = STAGE_ABORTED;
                orders->at_us = sim->now_us + HEARD_US;
        } else if (orders->stage == STAGE_ABORTED) {
                /* It may have come true before. */
                bool off = strcmp(order_state(sim, host), "off") == 0 && other == host;
                orders->stage = off ? STAGE_OFF : STAGE_STEADY;
                orders->at_us = sim->now_us + (off ? 4 * sim->swarm.delay_us : 0);
        } else if (orders->stage == STAGE_OFF && other == host) {
                die(sim);
        } else {
                /* Also where it has died before, by another fault, which ends sooner. */
                orders->stage = STAGE_STEADY;
        }
}

void orders_step(struct sim *sim)
{
        if (!sim->healing)
                look(sim);
        else if (writer(sim) == NULL)
                help(sim);
        sim_at(sim, STEP_US, EVENT_FAULT, 0, 0, 0);
}
