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
#include "council/seats.h"
#include "node/node_priv.h"

#include <stdio.h>

#define STEP_APART_US   100000
#define LEND_APART_US   1000000
#define WORD_VERSION    1
#define WORD_REGION     1 /* flag: takes part in its region's group */
#define AWAY_HEARTBEATS 10

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

/* May this node begin its region's group (as the first), or join it (`ret_join`)? */
static bool region_decided(const struct node *node, bool *ret_join)
{
        bool first = true;
        bool all = true;
        *ret_join = false;
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->region != node->region_id || peer->id == node->config.self)
                        continue;
                bool known = peer->up && peer->word_us != 0 && fresh(node, peer->word_us);
                all = all && known;
                first = first && node->config.self < peer->id;
                if (known && peer->word.region_open)
                        *ret_join = true;
        }
        return *ret_join || (all && first);
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

void members_tell(struct node *node)
{
        if (node->groups[WORLD_GROUP_GLOBAL].leading)
                tell_states(node);
        struct buffer buffer;
        buffer_init(&buffer, node->heap);
        buffer_u8(&buffer, WORD_VERSION);
        buffer_u8(&buffer, node->groups[WORLD_GROUP_REGION].consensus != NULL ? WORD_REGION : 0);
        buffer_varint(&buffer, node->topology->epoch);
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
        ret->region_open = (flags & WORD_REGION) != 0;
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
            node->spare->epoch <= node->topology->epoch)
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

static bool peer_there(struct node *node, node_id id)
{
        const struct node_peer *peer = node_peer_of(node, id);
        return id == node->config.self ||
               (peer != NULL && peer->up && peer->gossip_known && fresh(node, peer->gossip_us));
}

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
                                              .there = peer_there(node, members[i].node)};
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
                if (global && now.count > 1)
                        (void)!consensus_transfer(group->consensus, node->now_us / 1000, 0);
                return;
        }
        if (!seats_wanted(node->topology, global ? 0 : node->region_id, &wanted))
                return;
        seats_next(&now, &wanted, node->config.self, &step);
        carry_out(node, group, &step);
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
                if (members[i].role != CONSENSUS_VOTER || !peer_there(node, members[i].node) ||
                    topology_region_of_node(node->spare, members[i].node) == NULL)
                        continue;
                (void)!consensus_transfer(group->consensus, node->now_us / 1000, members[i].node);
                return true;
        }
        return false;
}
