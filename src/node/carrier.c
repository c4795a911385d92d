/* carrier.c - which node of a region carries its data: reads its Redis and the other regions'
 * streams. All nodes of a region are connected to the same Redis; one carries, the leader of the
 * region's group. The others carry nothing and take over when it is gone, by beginning anew from
 * what Redis then holds.
 *
 * Data never waits for agreement: where the region's group has no leader for a while, the one with
 * the lowest id of those who hear each other carries. Two who carry at once, for a moment, do no
 * harm: Redis knows every delta by its position, and refuses what does not follow. */
#include "base/check.h"
#include "node/node_priv.h"

#define LEADERLESS_ELECTIONS 6

static bool peer_fresh(const struct node *node, const struct node_peer *peer)
{
        uint64_t fresh_us = 5000ull * node->topology->timing.heartbeat_ms;
        return peer->up && peer->word_us != 0 && node->now_us < peer->word_us + fresh_us;
}

static bool lowest_here(const struct node *node)
{
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->region == node->region_id && peer->id < node->config.self &&
                    peer_fresh(node, peer))
                        return false;
        }
        return true;
}

static bool should_carry(const struct node *node)
{
        const struct node_group *group = &node->groups[WORLD_GROUP_REGION];
        uint64_t patience_us =
                1000ull * LEADERLESS_ELECTIONS * node->topology->timing.region_election_ms;
        if ((node->config.bugs & NODE_BUG_NO_CARRIER) != 0)
                return node->region->nodes[0].id == node->config.self;
        if (node->outcast)
                return false;
        if (node->region->node_count == 1)
                return true;
        if (group->consensus != NULL && !group->failed && group->status.leader != 0)
                return group->status.leader == node->config.self;
        if (node->now_us < group->leaderless_us + patience_us)
                return node->carries;
        return lowest_here(node);
}

static void stop_carrying(struct node *node)
{
        struct world_event event = {
                .kind = WORLD_REDIS_DOWN, .now_us = node->now_us, .wall_us = node->wall_us};
        replication_step(node->replication, &event, &node->outbox);
}

/* The one node of a region that data goes to: who says so; nobody: whoever did. */
static const struct node_peer *carrier_of(const struct node *node, region_id region, node_id now)
{
        const struct node_peer *found = NULL;
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->region != region || !peer_fresh(node, peer) || !peer->word.carries)
                        continue;
                if (found == NULL || peer->id == now)
                        found = peer;
        }
        return found;
}

static void follow_carriers(struct node *node)
{
        for (size_t i = 0; i < node->region_count; i++) {
                region_id region = node->regions[i].id;
                const struct node_peer *peer = carrier_of(node, region, node->regions[i].carrier);
                if (region == node->region_id || peer == NULL)
                        continue;
                node->regions[i].carrier = peer->id;
                replication_route(node->replication, region, peer->id, peer->up);
        }
}

void carrier_start(struct node *node)
{
        node->carries = node->region->node_count == 1;
}

void carrier_look(struct node *node)
{
        bool carries = should_carry(node);
        if (carries != node->carries) {
                struct world_effect effect = {.kind = WORLD_REDIS_AGAIN};
                node->carries = carries;
                node->gossip_wanted = true;
                node_note(node, "carrier", "This node %s the data of its region.",
                          carries ? "carries" : "no longer carries");
                if (carries)
                        outbox_push(&node->outbox, &effect);
                else
                        stop_carrying(node);
        }
        follow_carriers(node);
}

bool carrier_hears(const struct node *node, const struct world_event *event)
{
        bool redis = event->kind == WORLD_REDIS_UP || event->kind == WORLD_REDIS_DOWN ||
                     event->kind == WORLD_REDIS_TAILED || event->kind == WORLD_REDIS_MERGED ||
                     event->kind == WORLD_REDIS_SCANNED;
        return !redis || node->carries;
}

const struct node_peer *carrier_speaks(const struct node *node, region_id region)
{
        uint64_t fresh_us = 5000ull * node->topology->timing.heartbeat_ms;
        const struct node_peer *found = NULL;
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                bool self = peer->id == node->config.self;
                if (peer->region != region || !peer->gossip_known ||
                    (!self && node->now_us >= peer->gossip_us + fresh_us))
                        continue;
                if (self ? node->carries : peer->word.carries)
                        return peer;
                if (found == NULL)
                        found = peer;
        }
        return found;
}
