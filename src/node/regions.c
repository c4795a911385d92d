/* regions.c - the states of regions: what is known of each goes through the failover table, and the
 * global group's leader proposes what the table says. The evidence of the moment goes with it, so
 * the audit tells why.
 *
 * Taking a region out of routing does not wait for that: routable is asked of state, verdict and
 * the region's own word each time. Returning does wait for it. */
#include "base/check.h"
#include "base/hash.h"
#include "node/node_priv.h"

#define PROPOSE_AGAIN_US 500000
#define RTT_CHANGE_US    2000

enum region_state region_state_of(const struct node *node, region_id id)
{
        for (size_t i = 0; i < node->region_count; i++)
                if (node->regions[i].id == id)
                        return (enum region_state)node->regions[i].state;
        return REGION_STATE_COUNT;
}

struct node_region *node_region_of(struct node *node, region_id id)
{
        for (size_t i = 0; i < node->region_count; i++)
                if (node->regions[i].id == id)
                        return &node->regions[i];
        return NULL;
}

/* Takes over the regions of the topology and their applied states. */
void regions_sync(struct node *node)
{
        for (size_t i = 0; i < node->topology->region_count; i++) {
                region_id id = node->topology->regions[i].id;
                struct node_region *region = &node->regions[i];
                uint8_t state = node_state_of(node, id);
                if (i < node->region_count && region->id == id && region->state == state)
                        continue;
                *region = (struct node_region){
                        .id = id, .state = state, .state_since_us = node->now_us};
        }
        node->region_count = node->topology->region_count;
}

static enum health_verdict region_verdict(const struct node *node, region_id region,
                                          uint64_t now_us)
{
        if (node->config.bugs & NODE_BUG_NO_QUORUM)
                for (size_t i = 0; i < node->health->region_count; i++)
                        if (node->health->regions[i].id == region && region != node->region_id)
                                return node->health->regions[i].opinion;
        return health_verdict(node->health, region, now_us);
}

bool region_routable(const struct node *node, const struct node_region *region, uint64_t now_us)
{
        const struct topology_region *known = topology_region_by_id(node->topology, region->id);
        if (known == NULL || known->role != TOPOLOGY_ROLE_DATA)
                return false;
        return failover_routable((enum region_state)region->state,
                                 region_verdict(node, region->id, now_us),
                                 health_self(node->health, region->id, now_us));
}

static const struct gossip *region_gossip(const struct node *node, region_id region)
{
        const struct node_peer *peer = carrier_speaks(node, region);
        return peer != NULL ? &peer->gossip : NULL;
}

/* Does a region write data that this one has to wait for before it serves? */
static bool origin_counts(const struct node *node, const struct node_region *region)
{
        const struct gossip *gossip = region_gossip(node, region->id);
        return region->id != node->region_id && gossip != NULL && gossip->redis_known &&
               gossip->redis_up && region_state_replicates((enum region_state)region->state) &&
               region_verdict(node, region->id, node->now_us) == HEALTH_UP;
}

bool node_caught_up(const struct node *node)
{
        if (!node->redis_known)
                return true;
        if (!node->redis_up)
                return false;
        for (size_t i = 0; i < node->region_count; i++) {
                struct replication_lag lag;
                if (!origin_counts(node, &node->regions[i]))
                        continue;
                if (!replication_lag(node->replication, node->regions[i].id, node->now_us, &lag))
                        continue;
                if (!lag.caught_up || lag.lag_us > 1000ull * node->topology->timing.lag_max_ms)
                        return false;
        }
        return true;
}

static bool region_caught_up(const struct node *node, region_id region)
{
        if (node->config.bugs & NODE_BUG_EARLY_RETURN)
                return true;
        if (region == node->region_id && node->carries)
                return node_caught_up(node);
        const struct gossip *gossip = region_gossip(node, region);
        return gossip != NULL && gossip->caught_up;
}

static bool region_last(const struct node *node, const struct node_region *region)
{
        for (size_t i = 0; i < node->region_count; i++)
                if (&node->regions[i] != region &&
                    region_routable(node, &node->regions[i], node->now_us))
                        return false;
        return true;
}

void regions_input(const struct node *node, const struct node_region *region,
                   struct failover_input *ret)
{
        const struct topology_timing *timing = &node->topology->timing;
        *ret = (struct failover_input){.state = (enum region_state)region->state};
        ret->verdict = region_verdict(node, region->id, node->now_us);
        ret->self = health_self(node->health, region->id, node->now_us);
        ret->wish = FAILOVER_WISH_NONE;
        ret->caught_up = region_caught_up(node, region->id);
        ret->held = region->fine_since_us != 0 &&
                    node->now_us >= region->fine_since_us + 1000ull * timing->hold_down_ms &&
                    node->now_us >= region->state_since_us + 1000ull * timing->hold_down_ms;
        if (node->config.bugs & NODE_BUG_NEVER_RETURN)
                ret->held = false;
        ret->emptied = node->now_us >= region->state_since_us + 1000ull * timing->drain_ms;
        ret->last = region_last(node, region);
}

static const char *parts_text(const struct node *node, region_id region, char text[128])
{
        uint8_t known = 0;
        uint8_t down = 0;
        health_parts(node->health, region, &known, &down);
        return health_parts_text(down, text, 128);
}

static void propose_state(struct node *node, struct node_region *region,
                          const struct failover_row *row)
{
        char evidence_text[HEALTH_SENTENCE_SIZE] = "";
        char sentence[FAILOVER_SENTENCE_SIZE];
        char parts[128];
        struct health_evidence evidence;
        const struct topology_region *told = topology_region_by_id(node->topology, region->id);
        const struct failover_region named = {node_region_name(node, region->id),
                                              told != NULL && told->role == TOPOLOGY_ROLE_WITNESS};
        if (health_evidence(node->health, region->id, node->now_us, &evidence))
                (void)health_evidence_text(&evidence, node->topology, evidence_text);
        size_t count;
        struct council_command command = {.kind = COUNCIL_SET_REGION_STATE,
                                          .wall_us = node->wall_us,
                                          .actor = BYTES("automatic")};
        command.region.region = region->id;
        command.region.from = region->state;
        command.region.to = (uint8_t)row->to;
        command.region.row = (uint16_t)(row - failover_rows(&count) + 1);
        struct bytes text = bytes_of_str(failover_sentence(
                row, named, evidence_text, parts_text(node, region->id, parts), sentence));
        if (text.len > COUNCIL_TEXT_BYTES_MAX)
                text.len = COUNCIL_TEXT_BYTES_MAX;
        command.region.evidence = text;
        if (group_propose(node, &node->groups[WORLD_GROUP_GLOBAL], &command))
                region->proposed_us = node->now_us;
}

static void region_follow(struct node *node, struct node_region *region)
{
        uint8_t state = node_state_of(node, region->id);
        if (state != region->state) {
                region->state = state;
                region->state_since_us = node->now_us;
                region->proposed_us = 0;
        }
        bool fine = region_verdict(node, region->id, node->now_us) == HEALTH_UP &&
                    health_self(node->health, region->id, node->now_us) != HEALTH_SELF_FAILED;
        if (!fine)
                region->fine_since_us = 0;
        else if (region->fine_since_us == 0)
                region->fine_since_us = node->now_us;
}

static void region_decide(struct node *node, struct node_region *region)
{
        struct failover_input input;
        if (region->proposed_us != 0 && node->now_us < region->proposed_us + PROPOSE_AGAIN_US)
                return;
        regions_input(node, region, &input);
        const struct failover_row *row = failover_decide(&input);
        if (row == NULL || row->refuses || row->to == input.state)
                return;
        propose_state(node, region, row);
}

/* The first leader brings the document that it was started with. */
static void propose_topology(struct node *node)
{
        uint64_t epoch = 0;
        if (council_topology(node->groups[WORLD_GROUP_GLOBAL].council, &epoch).len > 0)
                return;
        if (node->regions[0].proposed_us != 0 &&
            node->now_us < node->regions[0].proposed_us + PROPOSE_AGAIN_US)
                return;
        struct council_command command = {.kind = COUNCIL_SET_TOPOLOGY,
                                          .wall_us = node->wall_us,
                                          .actor = BYTES("automatic")};
        command.topology.epoch_expected = epoch;
        command.topology.document = node->document;
        if (group_propose(node, &node->groups[WORLD_GROUP_GLOBAL], &command))
                node->regions[0].proposed_us = node->now_us;
}

void regions_tick(struct node *node)
{
        for (size_t i = 0; i < node->region_count; i++)
                region_follow(node, &node->regions[i]);
        if (!node->groups[WORLD_GROUP_GLOBAL].leading)
                return;
        propose_topology(node);
        for (size_t i = 0; i < node->region_count; i++)
                region_decide(node, &node->regions[i]);
}

/* A round trip counts as changed when it moved by a quarter and by some milliseconds. */
static bool rtt_changed(struct node *node, size_t at, uint64_t rtt_us)
{
        uint64_t seen_us = node->rtt_seen_us[at];
        uint64_t apart_us = rtt_us > seen_us ? rtt_us - seen_us : seen_us - rtt_us;
        if (apart_us <= RTT_CHANGE_US || apart_us * 4 <= seen_us)
                return false;
        node->rtt_seen_us[at] = rtt_us;
        return true;
}

static uint64_t backends_of(const struct node *node, region_id region)
{
        if (region == node->region_id)
                return node->backends_up;
        const struct gossip *gossip = region_gossip(node, region);
        if (gossip != NULL)
                return gossip->backends_up;
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].region == region && node->peers[i].gossip_known)
                        return node->peers[i].gossip.backends_up;
        return 0;
}

void regions_publish(struct node *node)
{
        uint64_t epoch = 0;
        bool changed = false;
        (void)council_topology(node->groups[WORLD_GROUP_GLOBAL].council, &epoch);
        uint64_t hash = hash_fnv_u64(HASH_FNV_START, epoch);
        hash = hash_fnv_u64(hash, node->board_revision);
        for (size_t i = 0; i < node->region_count; i++) {
                const struct node_region *region = &node->regions[i];
                hash = hash_fnv_u64(hash, region->id);
                hash = hash_fnv_u64(hash, region->state);
                hash = hash_fnv_u64(hash, region_routable(node, region, node->now_us));
                hash = hash_fnv_u64(hash, backends_of(node, region->id));
        }
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                size_t at = 0;
                while (at < node->region_count && node->regions[at].id != peer->region)
                        at++;
                if (at < NODE_STATUS_REGIONS_MAX && peer->rtt_known &&
                    rtt_changed(node, at, peer->rtt_us))
                        changed = true;
        }
        if (hash == node->view_hash && !changed)
                return;
        node->view_hash = hash;
        node->view_version++;
        outbox_publish(&node->outbox);
}
