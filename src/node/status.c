/* status.c - what the node knows, copied into a plain struct. What was not heard lately is unknown
 * here, never the number of long ago. */
#include "node/node_priv.h"

#include <stdio.h>

#define FRESH_HEARTBEATS 5

static bool gossip_fresh(const struct node *node, const struct node_peer *peer, uint64_t now_us)
{
        uint64_t fresh_us = 1000ull * FRESH_HEARTBEATS * node->topology->timing.heartbeat_ms;
        return peer->gossip_known &&
               (peer->id == node->config.self || now_us < peer->gossip_us + fresh_us);
}

static void copy_text(char *to, size_t size, struct bytes from)
{
        size_t len = from.len < size ? from.len : size - 1;
        if (len > 0)
                memcpy(to, from.ptr, len);
        to[len] = '\0';
}

static size_t region_index(const struct node *node, region_id id)
{
        size_t at = 0;
        while (at < node->region_count && node->regions[at].id != id)
                at++;
        return at;
}

static void status_rtts(const struct node *node, const struct gossip *gossip,
                        struct node_status_region *ret)
{
        for (uint32_t i = 0; i < gossip->rtt_count; i++) {
                size_t at = region_index(node, gossip->rtts[i].region);
                if (at >= NODE_STATUS_REGIONS_MAX)
                        continue;
                ret->rtt_known[at] = true;
                ret->rtt_us[at] = gossip->rtts[i].rtt_us;
        }
}

static void status_parts(const struct node *node, struct node_status_region *ret)
{
        uint8_t known = 0;
        uint8_t down = 0;
        health_parts(node->health, ret->id, &known, &down);
        for (unsigned part = 0; part < WORLD_PART_COUNT; part++) {
                if ((known & (1u << part)) == 0)
                        ret->parts[part] = NODE_PART_UNKNOWN;
                else
                        ret->parts[part] = (down & (1u << part)) != 0 ? NODE_PART_UNHEALTHY
                                                                      : NODE_PART_HEALTHY;
        }
}

static void status_word(const struct node *node, const struct gossip *gossip,
                        struct node_status_region *ret)
{
        ret->redis_known = gossip->redis_known;
        ret->redis_up = gossip->redis_up;
        ret->backends_healthy = gossip->backends_up;
        ret->lag_count = gossip->lag_count;
        memcpy(ret->lags, gossip->lags, gossip->lag_count * sizeof gossip->lags[0]);
        status_rtts(node, gossip, ret);
        status_parts(node, ret);
}

static void status_why(const struct node *node, const struct node_region *region, uint64_t now_us,
                       struct node_status_region *ret)
{
        char text[HEALTH_SENTENCE_SIZE];
        struct health_evidence evidence;
        enum health_verdict verdict = health_verdict(node->health, region->id, now_us);
        struct council_region council =
                council_region(node->groups[WORLD_GROUP_GLOBAL].council, region->id);
        bool serves = region_state_serves((enum region_state)region->state);
        bool doubtful = verdict != HEALTH_UP || (!ret->routable && !ret->witness);
        if (serves && doubtful && health_evidence(node->health, region->id, now_us, &evidence)) {
                const char *sentence = health_evidence_text(&evidence, node->topology, text);
                copy_text(ret->why, sizeof ret->why, bytes_of_str(sentence));
        } else {
                copy_text(ret->why, sizeof ret->why, council.text);
        }
}

static void status_region(const struct node *node, size_t index, uint64_t now_us,
                          struct node_status *status)
{
        const struct node_region *region = &node->regions[index];
        const struct topology_region *known = topology_region_by_id(node->topology, region->id);
        struct node_status_region *ret = &status->regions[index];
        ret->id = region->id;
        ret->state_value = region->state;
        ret->state = region_state_name((enum region_state)region->state);
        ret->self = region->id == node->region_id;
        ret->leader = status->leader_known && status->leader_region == region->id;
        ret->routable = region_routable(node, region, now_us);
        if (known != NULL) {
                ret->witness = known->role == TOPOLOGY_ROLE_WITNESS;
                copy_text(ret->name, sizeof ret->name, bytes_of_str(known->name));
                ret->backend_count = known->backend_count;
        }
        uint32_t age_ms = health_age_region_ms(node->health, region->id, now_us);
        ret->heard_ever = age_ms != HEALTH_AGE_NEVER;
        ret->heard_age_us = ret->heard_ever ? 1000ull * age_ms : 0;
        ret->heard =
                ret->self || (ret->heard_ever && age_ms < node->topology->timing.down_after_ms);
        const struct node_peer *speaker = carrier_speaks(node, region->id);
        if (speaker != NULL && gossip_fresh(node, speaker, now_us))
                status_word(node, &speaker->gossip, ret);
        status_why(node, region, now_us, ret);
        lock_copy_status(node, now_us, ret);
}

static void status_notes(const struct node *node, struct node_status *ret)
{
        uint64_t count =
                node->note_count < NODE_STATUS_NOTES_MAX ? node->note_count : NODE_STATUS_NOTES_MAX;
        for (uint64_t i = 0; i < count; i++) {
                uint64_t at = node->note_count - count + i;
                ret->notes[i] = node->notes[at % NODE_STATUS_NOTES_MAX];
        }
        ret->note_count = (size_t)count;
}

void node_status(const struct node *node, uint64_t now_us, uint64_t wall_us,
                 struct node_status *ret_status)
{
        (void)wall_us;
        memset(ret_status, 0, sizeof *ret_status);
        const struct node_group *global = &node->groups[WORLD_GROUP_GLOBAL];
        ret_status->node = node->config.self;
        ret_status->region = node->region_id;
        ret_status->version = node->view_version;
        (void)council_topology(global->council, &ret_status->epoch);
        ret_status->level = council_level(global->council);
        ret_status->term = global->status.term;
        ret_status->leads = global->leading;
        ret_status->leader = global->status.leader;
        const struct topology_region *leader =
                topology_region_of_node(node->topology, global->status.leader);
        ret_status->leader_known = global->status.leader != 0 && leader != NULL;
        ret_status->leader_region = leader != NULL ? leader->id : 0;
        ret_status->stopped = global->failed || node->groups[WORLD_GROUP_REGION].failed;
        ret_status->majority = global->consensus != NULL && !global->failed &&
                               consensus_has_majority(global->consensus, now_us / 1000);
        ret_status->region_leads = node->groups[WORLD_GROUP_REGION].leading;
        ret_status->region_count = node->region_count;
        for (size_t i = 0; i < node->region_count; i++)
                status_region(node, i, now_us, ret_status);
        members_status(node, ret_status);
        status_notes(node, ret_status);
        postgres_status(node, now_us, &ret_status->postgres);
}

void node_postgres(const struct node *node, uint64_t now_us, struct node_status_postgres *ret)
{
        memset(ret, 0, sizeof *ret);
        postgres_status(node, now_us, ret);
}

bool node_routable(const struct node *node, region_id region, uint64_t now_us)
{
        for (size_t i = 0; i < node->region_count; i++)
                if (node->regions[i].id == region)
                        return region_routable(node, &node->regions[i], now_us);
        return false;
}

int node_region_state(const struct node *node, region_id region)
{
        return node_state_of(node, region);
}

struct consensus_status node_group_status(const struct node *node, enum world_group group)
{
        return node->groups[group].status;
}
