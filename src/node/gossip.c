/* gossip.c - what this node tells every other several times a second, and what it makes of theirs.
 * A word that is lost costs nothing: the next one carries all again. */
#include "node/node_priv.h"

static void gossip_lags(const struct node *node, struct gossip *ret)
{
        for (size_t i = 0; i < node->region_count; i++) {
                struct replication_lag lag;
                if (ret->lag_count == NODE_STATUS_REGIONS_MAX)
                        break;
                if (!replication_lag(node->replication, node->regions[i].id, node->now_us, &lag))
                        continue;
                struct node_status_lag *out = &ret->lags[ret->lag_count++];
                out->origin = lag.origin;
                out->known = lag.known;
                out->lag_us = lag.known ? lag.lag_us : 0;
                out->position = lag.position;
                out->transfer = lag.transfer;
                out->done_permille = lag.done_permille;
        }
}

/* The shortest measured round trip to any node of each other region. */
static void gossip_rtts(const struct node *node, struct gossip *ret)
{
        for (size_t i = 0; i < node->region_count; i++) {
                region_id region = node->regions[i].id;
                uint64_t best_us = UINT64_MAX;
                for (size_t k = 0; k < node->peer_count; k++) {
                        const struct node_peer *peer = &node->peers[k];
                        if (peer->region == region && peer->up && peer->rtt_known &&
                            peer->rtt_us < best_us)
                                best_us = peer->rtt_us;
                }
                if (best_us == UINT64_MAX || ret->rtt_count == NODE_STATUS_REGIONS_MAX)
                        continue;
                ret->rtts[ret->rtt_count].region = region;
                ret->rtts[ret->rtt_count++].rtt_us = best_us;
        }
}

void gossip_make(struct node *node, struct gossip *ret)
{
        memset(ret, 0, sizeof *ret);
        health_report_make(node->health, node->now_us, &ret->report);
        const struct consensus_status *status = &node->groups[WORLD_GROUP_GLOBAL].status;
        (void)council_topology(node->groups[WORLD_GROUP_GLOBAL].council, &ret->epoch);
        ret->term = status->term;
        ret->leader = status->leader;
        ret->redis_known = node->redis_known;
        ret->redis_up = node->redis_up;
        ret->caught_up = node_caught_up(node);
        ret->backends_up = node->backends_up;
        gossip_lags(node, ret);
        gossip_rtts(node, ret);
}

void gossip_send(struct node *node)
{
        struct node_peer *self = node_peer_of(node, node->config.self);
        gossip_make(node, &self->gossip);
        self->gossip_known = true;
        self->gossip_us = node->now_us;
        buffer_reset(&node->scratch2);
        gossip_encode(&self->gossip, &node->scratch2);
        if (node->scratch2.err != ERR_NONE)
                return;
        struct envelope envelope = {.kind = ENVELOPE_GOSSIP, .body = buffer_view(&node->scratch2)};
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].up)
                        node_send(node, node->peers[i].id, &envelope);
        members_tell(node);
        postgres_tell(node);
        node->gossip_wanted = false;
        node->gossip_next_us = node->now_us + (uint64_t)node->topology->timing.heartbeat_ms * 1000;
}

void gossip_came(struct node *node, struct node_peer *peer, struct bytes data)
{
        struct gossip *gossip = &peer->gossip;
        if (gossip_decode(data, gossip) != ERR_NONE || gossip->report.node != peer->id) {
                peer->gossip_known = false;
                node->counters.messages_malformed++;
                return;
        }
        peer->gossip_known = true;
        peer->gossip_us = node->now_us;
        node->counters.gossip_in++;
        if (health_reported(node->health, &gossip->report, node->now_us))
                node->look = true;
}
