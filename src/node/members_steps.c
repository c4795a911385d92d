/* members_steps.c - whoever leads a group brings its members step by step to what the agreed
 * topology wants (council/seats.h), one look at a time, so a new leader goes on where the last one
 * stopped; and which topology may be wanted. Who is not in it any more hands its lead over. */
#include "base/check.h"
#include "council/leader.h"
#include "council/seats.h"
#include "node/node_priv.h"

#include <stdio.h>

#define STEP_APART_US 100000
#define BETTER_FOR_US 30000000

static bool seats_now(struct node *node, const struct node_group *group, struct seats *ret)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        memset(ret, 0, sizeof *ret);
        ret->count = consensus_members(group->consensus, members, COUNT_OF(members));
        for (size_t i = 0; i < ret->count; i++) {
                const struct topology_region *region =
                        topology_region_of_node(node->topology, members[i].node);
                ret->items[i] = (struct seat){.member = members[i],
                                              .region = region != NULL ? region->id : 0,
                                              .there = members_there(node, members[i].node)};
        }
        return ret->count > 0;
}

static const char *member_name(const struct node *node, node_id id, char text[48])
{
        const struct topology_node *known = topology_node_by_id(node->topology, id);
        if (known != NULL)
                (void)snprintf(text, 48, "%s (node %u)", known->name, id);
        else
                (void)snprintf(text, 48, "node %u", id);
        return text;
}

static void tell_step(struct node *node, struct node_group *group, const struct seats_step *step)
{
        const char *name = group->group == WORLD_GROUP_GLOBAL ? "global" : "regional";
        char text[48];
        bool first = group->step.why == NULL;
        if (group->step.action == step->action && group->step.node == step->node &&
            group->step.why == step->why)
                return;
        group->step = *step;
        if (step->action == SEATS_DONE && !first)
                node_note(node, "members", "The %s group is as the topology wants it.", name);
        else if (step->action != SEATS_DONE)
                node_note(node, "members", "The %s group %s %s.", name, step->why,
                          member_name(node, step->node, text));
}

/* A refusal is no matter: the next look comes soon. */
static void carry_out(struct node *node, struct node_group *group, const struct seats_step *step)
{
        uint64_t now_ms = node->now_us / 1000;
        enum err err = ERR_NONE;
        switch (step->action) {
        case SEATS_SET:
                err = consensus_member_set(group->consensus, now_ms, &step->member);
                break;
        case SEATS_REMOVE:
                err = consensus_member_remove(group->consensus, now_ms, step->node);
                break;
        case SEATS_HAND_OVER:
                err = consensus_transfer(group->consensus, now_ms, step->node);
                break;
        case SEATS_DONE:
        case SEATS_WAIT:
                break;
        }
        if (err == ERR_NONE)
                tell_step(node, group, step);
}

static bool group_done(const struct node *node, const struct node_group *group)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        struct seats wanted;
        if (group->consensus == NULL ||
            !seats_wanted(node->topology, group->group == WORLD_GROUP_GLOBAL ? 0 : node->region_id,
                          &wanted))
                return false;
        size_t count = consensus_members(group->consensus, members, COUNT_OF(members));
        if (count != wanted.count)
                return false;
        for (size_t i = 0; i < count; i++) {
                const struct seat *seat = seats_find(&wanted, members[i].node);
                if (seat == NULL || seat->member.role != members[i].role)
                        return false;
        }
        return true;
}

bool node_members_done(const struct node *node)
{
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                if (!group_done(node, &node->groups[i]))
                        return false;
        return true;
}

/* The round trips that the regions tell of each other. */
static void leader_rtts(const struct node *node, struct leader_region *regions, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                const struct node_peer *peer = carrier_speaks(node, regions[i].id);
                for (uint32_t k = 0; peer != NULL && k < peer->gossip.rtt_count; k++)
                        for (size_t to = 0; to < count; to++)
                                if (regions[to].id == peer->gossip.rtts[k].region && to != i)
                                        regions[i].rtt_us[to] = peer->gossip.rtts[k].rtt_us;
        }
}

/* Another region than the present one is preferred when it has been the better one for a while:
 * round trips wobble on a busy machine or line, and each move costs an election. */
static uint8_t better_for_long(struct node *node, uint8_t best, uint8_t present)
{
        if (best == present || present == 0) {
                node->better_region = 0;
                return best;
        }
        if (node->better_region != best) {
                node->better_region = best;
                node->better_since_us = node->now_us;
        }
        return node->now_us - node->better_since_us < BETTER_FOR_US ? present : best;
}

/* An operator has taken it out: whoever does that wants to stop its nodes. */
static bool region_out(const struct node *node, uint8_t id)
{
        enum region_state state = region_state_of(node, id);
        return state == REGION_DRAINING || state == REGION_DRAINED || state == REGION_ISOLATED;
}

/* Who is in the region from which it is best to lead is preferred; who is in one that was taken out
 * leads only where nobody else can. */
static void prefer(struct node *node, const struct seats *now, struct seats *wanted)
{
        struct leader_region regions[TOPOLOGY_REGIONS_MAX];
        size_t count = node->topology->region_count;
        uint8_t present = 0;
        memset(regions, 0, sizeof regions);
        for (size_t i = 0; i < now->count; i++)
                if (now->items[i].member.priority > SEATS_PRIORITY &&
                    !region_out(node, now->items[i].region))
                        present = now->items[i].region;
        for (size_t i = 0; i < count; i++) {
                const struct topology_region *region = &node->topology->regions[i];
                bool data = region->role == TOPOLOGY_ROLE_DATA;
                regions[i].id = region->id;
                regions[i].votes = (uint32_t)seats_votes_of(wanted, region->id);
                regions[i].leads = data && regions[i].votes > 0 && !region_out(node, region->id);
                regions[i].capacity = data ? region->capacity : 0;
        }
        leader_rtts(node, regions, count);
        uint8_t best = better_for_long(node, leader_region_best(regions, count, present), present);
        for (size_t i = 0; i < wanted->count; i++) {
                struct seat *seat = &wanted->items[i];
                if (seat->member.role != CONSENSUS_VOTER)
                        continue;
                if (region_out(node, seat->region))
                        seat->member.priority = SEATS_PRIORITY - 1;
                else if (seat->region == best && best != 0)
                        seat->member.priority = SEATS_PRIORITY + 1;
        }
}

/* The newest document that is known here is without this node: parsed into `spare`. */
static const struct topology *topology_without_us(struct node *node)
{
        struct topology_error error;
        struct bytes agreed = council_topology(node->groups[WORLD_GROUP_GLOBAL].council, NULL);
        if (agreed.len > 0 && topology_parse(agreed, node->spare, &error) &&
            node->spare->epoch >= node->learned_epoch)
                return node->spare;
        bool parsed = node->learned.len > 0 && topology_parse(node->learned, node->spare, &error);
        return parsed ? node->spare : NULL;
}

/* A node that comes back knows the topology of before, and may lead its region's group before it
 * hears of another one: to go by the old one would take out who has come since. */
static bool topology_current(const struct node *node)
{
        if (node->groups[WORLD_GROUP_GLOBAL].status.leader == 0)
                return false;
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->word_us != 0 && members_fresh(node, peer->word_us) &&
                    peer->word.epoch > node->topology->epoch)
                        return false;
        }
        return true;
}

/* What the group is to be. Who is to leave its region brings the region's group there as anybody
 * would, for it may be the only one that has the group's state. */
static bool seats_aim(struct node *node, bool global, struct seats *ret)
{
        const struct topology *topology = node->topology;
        if (node->outcast)
                topology = topology_without_us(node);
        else if (!global && !topology_current(node))
                return false;
        return topology != NULL && seats_wanted(topology, global ? 0 : node->region_id, ret);
}

void members_tick(struct node *node, struct node_group *group)
{
        bool global = group->group == WORLD_GROUP_GLOBAL;
        struct seats now;
        struct seats wanted;
        struct seats_step step;
        uint64_t epoch = 0;
        (void)council_topology(node->groups[WORLD_GROUP_GLOBAL].council, &epoch);
        if (!group->leading) {
                group->step = (struct seats_step){0};
                return;
        }
        if (node->now_us < group->step_next_us || (global && epoch == 0) ||
            !seats_now(node, group, &now))
                return;
        group->step_next_us = node->now_us + STEP_APART_US;
        if (node->outcast && global) {
                if (now.count > 1)
                        (void)!consensus_transfer(group->consensus, node->now_us / 1000, 0);
                return;
        }
        if (!seats_aim(node, global, &wanted))
                return;
        if (global)
                prefer(node, &now, &wanted);
        seats_next(&now, &wanted, node->config.self, &step);
        carry_out(node, group, &step);
}

/* ---- which topology may follow ---- */

static bool holds_region(struct node *node, node_id id)
{
        const struct node_peer *peer = node_peer_of(node, id);
        if (id == node->config.self)
                return members_hold_region(node);
        return peer != NULL && peer->word_us != 0 && members_fresh(node, peer->word_us) &&
               peer->word.holds;
}

/* A region that loses a node keeps one that has its group's state. */
static bool region_may_follow(struct node *node, const struct topology_region *before,
                              const struct topology_region *after, char *text, size_t size)
{
        bool lost = false;
        bool kept = false;
        bool any = false;
        uint32_t there = 0;
        for (uint32_t i = 0; i < before->node_count; i++) {
                node_id id = before->nodes[i].id;
                bool stays = false;
                for (uint32_t k = 0; k < after->node_count; k++)
                        stays = stays || after->nodes[k].id == id;
                lost = lost || !stays;
                any = any || stays;
                kept = kept || (stays && holds_region(node, id));
                there += members_there(node, id);
        }
        if (any && before->role != after->role) {
                (void)snprintf(text, size,
                               "region %s goes from %s to %s: its nodes cannot; give them new ids",
                               after->name, topology_role_name(before->role),
                               topology_role_name(after->role));
                return false;
        }
        if (lost && there < before->node_count / 2 + 1) {
                (void)snprintf(text, size,
                               "the group of region %s has no majority now (%u of %u nodes are "
                               "there), so it can let nobody go: start its nodes, or take the "
                               "whole region out",
                               after->name, there, before->node_count);
                return false;
        }
        if (!lost || kept)
                return true;
        (void)snprintf(text, size,
                       "region %s would keep no node that has the state of its group: first add "
                       "the new nodes and wait until they have it; a region that is lost comes "
                       "back under a new id",
                       after->name);
        return false;
}

/* Those who vote then, and are there or new, are a majority. */
static bool majority_may_follow(struct node *node, const struct topology *after, char *text,
                                size_t size)
{
        struct seats wanted;
        size_t there = 0;
        size_t stay = 0;
        if (!seats_wanted(after, 0, &wanted)) {
                (void)snprintf(text, size, "more than %d nodes", SEATS_MAX);
                return false;
        }
        for (size_t i = 0; i < wanted.count; i++) {
                const struct consensus_member *member = &wanted.items[i].member;
                bool old = topology_node_by_id(node->topology, member->node) != NULL;
                if (member->role == CONSENSUS_LEARNER)
                        continue;
                stay += old;
                there += !old || members_there(node, member->node);
        }
        size_t votes = seats_votes(&wanted);
        if (stay > 0 && there >= votes / 2 + 1)
                return true;
        if (stay == 0)
                (void)snprintf(text, size,
                               "nobody who votes now would vote then: replace the "
                               "nodes in two steps");
        else
                (void)snprintf(text, size,
                               "agreement would be lost: of %zu votes only %zu are of nodes that "
                               "are there or new",
                               votes, there);
        return false;
}

bool members_may_follow(struct node *node, const struct topology *after, char *text, size_t size)
{
        for (uint32_t i = 0; i < node->topology->region_count; i++) {
                const struct topology_region *before = &node->topology->regions[i];
                const struct topology_region *then = topology_region_by_id(after, before->id);
                if (then != NULL && !region_may_follow(node, before, then, text, size))
                        return false;
        }
        return !members_change(node) || majority_may_follow(node, after, text, size);
}

bool members_give_way(struct node *node, struct node_group *group,
                      const struct council_command *command)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        struct topology_error error;
        if (command->kind != COUNCIL_SET_TOPOLOGY || !members_change(node) ||
            !topology_parse(command->topology.document, node->spare, &error) ||
            topology_region_of_node(node->spare, node->config.self) != NULL)
                return false;
        size_t count = consensus_members(group->consensus, members, COUNT_OF(members));
        for (size_t i = 0; i < count; i++) {
                if (members[i].role != CONSENSUS_VOTER || !members_there(node, members[i].node) ||
                    topology_region_of_node(node->spare, members[i].node) == NULL)
                        continue;
                (void)!consensus_transfer(group->consensus, node->now_us / 1000, members[i].node);
                return true;
        }
        return false;
}
