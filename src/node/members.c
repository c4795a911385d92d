/* members.c - who belongs to the node's groups. Whoever leads a group brings its members step by
 * step to what the agreed topology wants (council/seats.h), one look at a time, so a new leader
 * goes on where the last one stopped.
 *
 * The first configuration of the global group is made of the document of epoch 1, by each node for
 * itself. A node that begins with a later document was not there then: it waits until the leader
 * takes it in. A region's own group is begun by the node with the lowest id in it, alone, when all
 * nodes of the region have said that none of them knows of it; the others are taken in.
 *
 * A witness has no state, and a node that was away for long may know an old topology: who knows a
 * newer one sends it to them. Who is not in the topology any more hands its leadership over. */
#include "base/check.h"
#include "base/cursor.h"
#include "council/leader.h"
#include "council/seats.h"
#include "node/node_priv.h"

#include <stdio.h>

#define STEP_APART_US   100000
#define LEND_APART_US   1000000
#define WORD_VERSION    1
#define WORD_REGION     1 /* flag: takes part in its region's group */
#define WORD_DONE       4 /* flag: its groups are as the topology wants them */
#define WORD_CARRIES    2 /* flag: carries its region's data */
#define AWAY_HEARTBEATS 10
#define LEAVES_US       3000000

static bool knows_members(const struct node *node)
{
        return node->config.raft_engine == NULL || node->config.raft_engine == &consensus_core;
}

bool node_stateless(const struct node *node)
{
        return knows_members(node) && node->region->role == TOPOLOGY_ROLE_WITNESS;
}

uint8_t node_state_of(const struct node *node, region_id region)
{
        if (node_stateless(node) && region <= TOPOLOGY_REGION_ID_MAX)
                return node->told_states[region];
        return council_region(node->groups[WORLD_GROUP_GLOBAL].council, region).state;
}

/* ---- the beginning ---- */

size_t members_first(const struct node *node, enum world_group group,
                     struct consensus_member members[CONSENSUS_VOTERS_MAX])
{
        struct seats seats;
        if (!seats_wanted(node->topology, group == WORLD_GROUP_GLOBAL ? 0 : node->region_id,
                          &seats))
                return 0;
        for (size_t i = 0; i < seats.count; i++)
                members[i] = seats.items[i].member;
        if (!knows_members(node))
                for (size_t i = 0; i < seats.count; i++)
                        members[i].role = CONSENSUS_VOTER;
        return seats.count;
}

bool members_later(const struct node *node)
{
        return node->topology->epoch > 1 && knows_members(node);
}

static bool fresh(const struct node *node, uint64_t at_us)
{
        return node->now_us <
               at_us + 1000ull * AWAY_HEARTBEATS * node->topology->timing.heartbeat_ms;
}

void members_note_founders(struct node *node)
{
        node->founder_count = 0;
        for (uint32_t i = 0; i < node->region->node_count; i++)
                node->founders[node->founder_count++] = node->region->nodes[i].id;
}

/* May this node begin its region's group (as the first), or join it (`ret_join`)? It begins only
 * where all nodes of the document that it was started with are there, and none of them knows of the
 * group: one that is gone may have known. */
static bool region_decided(struct node *node, bool *ret_join)
{
        bool first = true;
        *ret_join = false;
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->region == node->region_id && peer->id != node->config.self && peer->up &&
                    peer->word_us != 0 && fresh(node, peer->word_us) && peer->word.region_open)
                        *ret_join = true;
        }
        for (size_t i = 0; i < node->founder_count; i++) {
                const struct node_peer *peer = node_peer_of(node, node->founders[i]);
                if (node->founders[i] == node->config.self)
                        continue;
                first = first && node->config.self < node->founders[i] && peer != NULL &&
                        peer->up && peer->word_us != 0 && fresh(node, peer->word_us);
        }
        return *ret_join || first;
}

void members_begin(struct node *node)
{
        struct node_group *group = &node->groups[WORLD_GROUP_REGION];
        bool join = false;
        if (!group->waits || !region_decided(node, &join))
                return;
        group->waits = false;
        enum err err = group_begin(node, group, join);
        if (err != ERR_NONE)
                node->failed = err;
        node->gossip_wanted = true;
}

/* Members of the groups who are in the topology no more, from an earlier start. */
void members_meet(struct node *node)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        for (int group = 0; group < WORLD_GROUP_COUNT; group++) {
                const struct consensus *consensus = node->groups[group].consensus;
                size_t count = consensus == NULL
                                       ? 0
                                       : consensus_members(consensus, members, COUNT_OF(members));
                for (size_t i = 0; i < count; i++)
                        if (node_peer_of(node, members[i].node) == NULL)
                                node_peer_meet(node, members[i].node);
        }
}

/* ---- words ---- */

static bool is_witness(const struct node *node, const struct node_peer *peer)
{
        const struct topology_region *region = topology_region_by_id(node->topology, peer->region);
        return region != NULL && region->role == TOPOLOGY_ROLE_WITNESS;
}

/* The leader tells those who have no state what became of the regions. */
static void tell_states(struct node *node)
{
        struct buffer buffer;
        buffer_init(&buffer, node->heap);
        buffer_u8(&buffer, WORD_VERSION);
        buffer_u8(&buffer, (uint8_t)node->region_count);
        for (size_t i = 0; i < node->region_count; i++) {
                buffer_u8(&buffer, node->regions[i].id);
                buffer_u8(&buffer, node_state_of(node, node->regions[i].id));
        }
        struct envelope envelope = {.kind = ENVELOPE_STATES, .body = buffer_view(&buffer)};
        for (size_t i = 0; i < node->peer_count && buffer.err == ERR_NONE; i++)
                if (node->peers[i].up && is_witness(node, &node->peers[i]))
                        node_send(node, node->peers[i].id, &envelope);
        buffer_fini(&buffer);
}

enum err member_states_came(struct node *node, node_id from, struct bytes data)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t count = cursor_u8(&cursor);
        bool from_leader = node->groups[WORLD_GROUP_GLOBAL].status.leader == from;
        for (unsigned i = 0; i < count; i++) {
                uint8_t region = cursor_u8(&cursor);
                uint8_t state = cursor_u8(&cursor);
                if (cursor_failed(&cursor) || region > TOPOLOGY_REGION_ID_MAX ||
                    state >= REGION_STATE_COUNT)
                        return ERR_MALFORMED;
                if (from_leader)
                        node->told_states[region] = state;
        }
        return version < WORD_VERSION || cursor_failed(&cursor) ? ERR_MALFORMED : ERR_NONE;
}

static bool is_member(const struct node *node, node_id id)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        for (int group = 0; group < WORLD_GROUP_COUNT; group++) {
                const struct consensus *consensus = node->groups[group].consensus;
                size_t count = consensus == NULL
                                       ? 0
                                       : consensus_members(consensus, members, COUNT_OF(members));
                for (size_t i = 0; i < count; i++)
                        if (members[i].node == id)
                                return true;
        }
        return false;
}

/* Who has left the groups is not listened to any more. */
static void forget_left(struct node *node)
{
        for (size_t i = node->peer_count; i-- > 0;) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->leaving_us != 0 && node->now_us > peer->leaving_us + LEAVES_US &&
                    !is_member(node, peer->id))
                        node_peer_forget(node, i);
        }
}

void members_tell(struct node *node)
{
        forget_left(node);
        if (node->groups[WORLD_GROUP_GLOBAL].leading)
                tell_states(node);
        struct buffer buffer;
        buffer_init(&buffer, node->heap);
        buffer_u8(&buffer, WORD_VERSION);
        unsigned flags = node->groups[WORLD_GROUP_REGION].consensus != NULL ? WORD_REGION : 0;
        if (node->carries)
                flags |= WORD_CARRIES;
        if (node_members_done(node))
                flags |= WORD_DONE;
        buffer_u8(&buffer, (uint8_t)flags);
        buffer_varint(&buffer, node->outcast ? node->learned_epoch : node->topology->epoch);
        buffer_u8(&buffer, level_own(node));
        struct envelope envelope = {.kind = ENVELOPE_MEMBER, .body = buffer_view(&buffer)};
        for (size_t i = 0; i < node->peer_count && buffer.err == ERR_NONE; i++)
                if (node->peers[i].up)
                        node_send(node, node->peers[i].id, &envelope);
        buffer_fini(&buffer);
}

/* What a later version adds behind is not looked at. */
static bool word_decode(struct bytes data, struct member_word *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t flags = cursor_u8(&cursor);
        ret->epoch = cursor_varint(&cursor);
        ret->level = cursor_u8(&cursor);
        ret->region_open = (flags & WORD_REGION) != 0;
        ret->carries = (flags & WORD_CARRIES) != 0;
        ret->done = (flags & WORD_DONE) != 0;
        return !cursor_failed(&cursor) && version >= WORD_VERSION;
}

/* Sends the topology in force to one that knows an older one, and has had time to learn it. */
static void lend(struct node *node, struct node_peer *peer)
{
        struct bytes agreed = council_topology(node->groups[WORLD_GROUP_GLOBAL].council, NULL);
        struct envelope envelope = {.kind = ENVELOPE_TOPOLOGY,
                                    .body = agreed.len > 0 ? agreed : node->learned};
        if (envelope.body.len == 0 || peer->word.epoch >= node->topology->epoch) {
                peer->behind_us = 0;
                return;
        }
        if (peer->behind_us == 0)
                peer->behind_us = node->now_us;
        if (node->now_us < peer->behind_us + LEND_APART_US)
                return;
        peer->behind_us = node->now_us;
        node_send(node, peer->id, &envelope);
}

enum err member_word_came(struct node *node, struct node_peer *peer, struct bytes data)
{
        struct member_word word;
        if (!word_decode(data, &word))
                return ERR_MALFORMED;
        peer->word = word;
        peer->word_us = node->now_us;
        lend(node, peer);
        return ERR_NONE;
}

/* Another node has agreed on a newer topology than is known here. It is believed as far as the
 * peers go; what this node decides with others goes by its log. */
enum err member_topology_came(struct node *node, struct bytes document)
{
        struct topology_error error;
        if (!topology_parse(document, node->spare, &error))
                return ERR_MALFORMED;
        struct bytes copy;
        if (strcmp(node->spare->cluster, node->topology->cluster) != 0 ||
            node->spare->epoch <= node->topology->epoch ||
            node->spare->epoch <= node->learned_epoch)
                return ERR_NONE;
        if (!heap_copy(node->heap, document, &copy))
                return ERR_NONE; /* it comes again */
        heap_free_bytes(node->heap, node->learned);
        node->learned = copy;
        node->learned_epoch = node->spare->epoch;
        node_note(node, "topology-learned", "Another node told of epoch %llu of the topology.",
                  (unsigned long long)node->spare->epoch);
        node_adopt_topology(node, copy);
        return ERR_NONE;
}

/* ---- steps ---- */

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

/* Who is in the region from which it is best to lead is preferred. */
static void prefer(struct node *node, const struct seats *now, struct seats *wanted)
{
        struct leader_region regions[TOPOLOGY_REGIONS_MAX];
        size_t count = node->topology->region_count;
        uint8_t present = 0;
        memset(regions, 0, sizeof regions);
        for (size_t i = 0; i < now->count; i++)
                if (now->items[i].member.priority > SEATS_PRIORITY)
                        present = now->items[i].region;
        for (size_t i = 0; i < count; i++) {
                const struct topology_region *region = &node->topology->regions[i];
                bool data = region->role == TOPOLOGY_ROLE_DATA;
                regions[i].id = region->id;
                regions[i].votes = (uint32_t)seats_votes_of(wanted, region->id);
                regions[i].leads = data && regions[i].votes > 0;
                regions[i].capacity = data ? region->capacity : 0;
        }
        leader_rtts(node, regions, count);
        uint8_t best = leader_region_best(regions, count, present);
        for (size_t i = 0; i < wanted->count; i++)
                if (wanted->items[i].region == best && best != 0 &&
                    wanted->items[i].member.role == CONSENSUS_VOTER)
                        wanted->items[i].member.priority = SEATS_PRIORITY + 1;
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
        if (node->outcast) {
                if (now.count > 1)
                        (void)!consensus_transfer(group->consensus, node->now_us / 1000, 0);
                return;
        }
        if (!seats_wanted(node->topology, global ? 0 : node->region_id, &wanted))
                return;
        if (global)
                prefer(node, &now, &wanted);
        seats_next(&now, &wanted, node->config.self, &step);
        carry_out(node, group, &step);
}

/* ---- which topology may follow ---- */

static bool region_open_at(struct node *node, node_id id)
{
        const struct node_peer *peer = node_peer_of(node, id);
        if (id == node->config.self)
                return node->groups[WORLD_GROUP_REGION].consensus != NULL;
        return peer != NULL && peer->word_us != 0 && fresh(node, peer->word_us) &&
               peer->word.region_open;
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
                kept = kept || (stays && region_open_at(node, id));
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
        return !knows_members(node) || majority_may_follow(node, after, text, size);
}

bool members_give_way(struct node *node, struct node_group *group,
                      const struct council_command *command)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        struct topology_error error;
        if (command->kind != COUNCIL_SET_TOPOLOGY || !knows_members(node) ||
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

/* ---- status ---- */

bool members_there(const struct node *node, node_id id)
{
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].id == id)
                        return id == node->config.self ||
                               (node->peers[i].up && node->peers[i].gossip_known &&
                                fresh(node, node->peers[i].gossip_us));
        return id == node->config.self;
}

static void member_role(const struct consensus_member *members, size_t count,
                        struct node_status_member *ret)
{
        static const char *const names[] = {"none", "voter", "learner", "witness"};
        ret->role = names[0];
        for (size_t i = 0; i < count; i++) {
                if (members[i].node != ret->node)
                        continue;
                ret->role = names[members[i].role];
                ret->coming = members[i].wanted != 0;
        }
}

void members_status(const struct node *node, struct node_status *ret)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        const struct node_group *global = &node->groups[WORLD_GROUP_GLOBAL];
        size_t count = global->consensus == NULL
                               ? 0
                               : consensus_members(global->consensus, members, COUNT_OF(members));
        for (size_t i = 0; i < node->peer_count && i < NODE_STATUS_MEMBERS_MAX; i++) {
                const struct node_peer *peer = &node->peers[i];
                struct node_status_member *out = &ret->members[ret->member_count++];
                const struct topology_node *known = topology_node_by_id(node->topology, peer->id);
                bool self = peer->id == node->config.self;
                out->node = peer->id;
                out->region = peer->region;
                (void)snprintf(out->name, sizeof out->name, "%s", known != NULL ? known->name : "");
                member_role(members, count, out);
                out->up = members_there(node, peer->id);
                out->leads = global->status.leader == peer->id;
                out->carries = self ? node->carries : out->up && peer->word.carries;
                out->done = self ? node_members_done(node) : peer->word.done;
        }
}
