/* network.c - ordered connections between nodes, as TCP gives them: a packet that is
 * lost comes late and holds up those behind it; a cut holds all up until it heals or
 * somebody gives up; a reset loses what is under way. Loss never reorders and nothing
 * comes twice, as world.h promises. */
#include "sim/sim_priv.h"

#define GIVE_UP_US   (3 * SECOND)
#define CONNECT_US   (50 * MS)
#define RESEND_US    (200 * MS)
#define BYTES_PER_MS 12500 /* 100 Mbit/s */

struct sim_link *network_link(struct sim *sim, uint32_t a, uint32_t b)
{
        CHECK(a != b && a < HOSTS_MAX && b < HOSTS_MAX);
        return a < b ? &sim->links[a][b] : &sim->links[b][a];
}

static struct host *other_of(struct sim *sim, const struct host *host, node_id peer)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (sim->hosts[i].id == peer && &sim->hosts[i] != host)
                        return &sim->hosts[i];
        return NULL;
}

static uint64_t draw_delay(struct sim *sim, const struct sim_link *link)
{
        uint64_t delay = sim->swarm.delay_us + link->slow_us +
                         sim_below(sim, STREAM_NETWORK, sim->swarm.jitter_us + 1);
        int resends = sim->swarm.calm || sim->swarm.one_cut ? 1 : 4;
        for (int i = 0; i < resends && sim_chance(sim, STREAM_NETWORK, sim->swarm.loss); i++)
                delay += RESEND_US << i;
        if (link->clog_until_us > sim->now_us)
                delay += link->clog_until_us - sim->now_us;
        return delay;
}

void network_send(struct sim *sim, struct host *from, const struct world_effect *effect)
{
        struct host *to = other_of(sim, from, effect->send.peer);
        if (to == NULL) {
                sim_violation(sim, "contract: a message to node %u, which is not there",
                              effect->send.peer);
                return;
        }
        struct sim_link *link = network_link(sim, from->index, to->index);
        unsigned side = from->index < to->index ? 0 : 1;
        if (!link->up[side] || to->node == NULL)
                return;
        uint64_t at_us =
                sim->now_us + draw_delay(sim, link) + effect->send.data.len * 1000 / BYTES_PER_MS;
        uint64_t *busy_us = &link->busy_us[side][effect->send.class];
        if (at_us <= *busy_us)
                at_us = *busy_us + 1;
        *busy_us = at_us;
        struct world_event event = {.kind = WORLD_MESSAGE};
        event.message.peer = from->id;
        event.message.class = effect->send.class;
        struct parcel *parcel = parcel_new(sim, &event, effect->send.data);
        parcel->event.message.data = bytes_of(parcel->bytes, parcel->len);
        parcel->from_link = true;
        parcel->link_epoch = link->epoch;
        sim_post(sim, to, at_us - sim->now_us, parcel);
}

void network_connect(struct sim *sim, uint32_t a, uint32_t b, uint64_t after_us)
{
        struct sim_link *link = network_link(sim, a, b);
        sim_at(sim, after_us, EVENT_LINK, a < b ? a : b, a < b ? b : a, link->epoch);
}

static void tell(struct sim *sim, struct host *host, const struct host *peer, bool up)
{
        struct world_event event = {.kind = up ? WORLD_PEER_UP : WORLD_PEER_DOWN};
        event.peer.peer = peer->id;
        sim_post(sim, host, 0, parcel_new(sim, &event, bytes_of(NULL, 0)));
}

void network_up(struct sim *sim, uint32_t a, uint32_t b, uint64_t epoch)
{
        struct sim_link *link = network_link(sim, a, b);
        struct host *hosts[2] = {&sim->hosts[a], &sim->hosts[b]};
        if (link->epoch != epoch || link->up[0] || link->up[1])
                return;
        if (hosts[0]->node == NULL || hosts[1]->node == NULL)
                return;
        bool strangers = !node_knows(hosts[0]->node, hosts[1]->id) ||
                         !node_knows(hosts[1]->node, hosts[0]->id);
        if (strangers || link->cut[0] || link->cut[1] || link->clog_until_us > sim->now_us) {
                network_connect(sim, a, b, 4 * CONNECT_US);
                return;
        }
        link->up[0] = link->up[1] = true;
        for (unsigned side = 0; side < 2; side++) {
                tell(sim, hosts[side], hosts[1 - side], true);
                struct world_event event = {.kind = WORLD_ROUND_TRIP};
                event.round_trip.peer = hosts[1 - side]->id;
                event.round_trip.rtt_us = 2 * (sim->swarm.delay_us + link->slow_us);
                sim_post(sim, hosts[side], 0, parcel_new(sim, &event, bytes_of(NULL, 0)));
        }
}

void network_break(struct sim *sim, uint32_t a, uint32_t b)
{
        uint32_t low = a < b ? a : b;
        uint32_t high = a < b ? b : a;
        struct sim_link *link = network_link(sim, a, b);
        link->epoch++;
        struct host *hosts[2] = {&sim->hosts[low], &sim->hosts[high]};
        for (unsigned side = 0; side < 2; side++) {
                if (link->up[side] && hosts[side]->node != NULL)
                        tell(sim, hosts[side], hosts[1 - side], false);
                link->up[side] = false;
                for (unsigned class = 0; class < WORLD_CLASS_COUNT; class ++)
                        link->busy_us[side][class] = 0;
        }
        network_connect(sim, low, high, CONNECT_US + sim_below(sim, STREAM_NETWORK, 200 * MS));
}

void network_cut(struct sim *sim, uint32_t a, uint32_t b, bool forth, bool back)
{
        struct sim_link *link = network_link(sim, a, b);
        bool was = link->cut[0] || link->cut[1];
        link->cut[a < b ? 0 : 1] = forth;
        link->cut[a < b ? 1 : 0] = back;
        if (!forth && !back)
                return;
        if (!was)
                link->cut_since_us = sim->now_us;
        uint64_t notice = GIVE_UP_US / 4 + sim_below(sim, STREAM_NETWORK, GIVE_UP_US);
        sim_at(sim, notice, EVENT_LINK_CHECK, a, b, link->epoch);
}

void network_cut_check(struct sim *sim, uint32_t a, uint32_t b)
{
        struct sim_link *link = network_link(sim, a, b);
        if ((link->cut[0] || link->cut[1]) && (link->up[0] || link->up[1]))
                network_break(sim, a, b);
}

void network_host_down(struct sim *sim, struct host *host)
{
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (i != host->index)
                        network_break(sim, host->index, i);
}

void network_heal(struct sim *sim)
{
        for (uint32_t a = 0; a < sim->host_count; a++) {
                for (uint32_t b = a + 1; b < sim->host_count; b++) {
                        struct sim_link *link = network_link(sim, a, b);
                        link->cut[0] = link->cut[1] = false;
                        link->clog_until_us = 0;
                        link->slow_us = 0;
                        if (!link->up[0])
                                network_connect(sim, a, b, CONNECT_US);
                }
        }
}
