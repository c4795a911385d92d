/* members.c - who belongs to the node's groups: the beginning, and what nodes tell each other of
 * it. How a group gets other members: members_steps.c.
 *
 * The first configuration of the global group is made of the document of epoch 1, by each node for
 * itself. A node that begins with a later document was not there then: it waits until the leader
 * takes it in. A region's own group is begun by the node with the lowest id in it, alone, when all
 * nodes of the region have said that none of them knows of it; the others are taken in.
 *
 * A witness has no state, and a node that was away for long may know an old topology: who knows a
 * newer one sends it to them. */
#include "base/check.h"
#include "base/cursor.h"
#include "council/seats.h"
#include "node/node_priv.h"

#include <stdio.h>

#define LEND_APART_US   1000000
#define WORD_VERSION    1
#define WORD_REGION     1 /* flag: takes part in its region's group */
#define WORD_DONE       4 /* flag: its groups are as the topology wants them */
#define WORD_CARRIES    2 /* flag: carries its region's data */
#define WORD_HOLDS      8 /* flag: votes in its region's group, so it has what the group holds */
#define AWAY_HEARTBEATS 10
#define LEAVES_US       3000000

bool members_change(const struct node *node)
{
        return node->config.raft_engine == NULL || node->config.raft_engine == &consensus_core;
}

bool node_stateless(const struct node *node)
{
        return members_change(node) && node->region->role == TOPOLOGY_ROLE_WITNESS;
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
        if (!members_change(node))
                for (size_t i = 0; i < seats.count; i++)
                        members[i].role = CONSENSUS_VOTER;
        return seats.count;
}

bool members_later(const struct node *node)
{
        return node->topology->epoch > 1 && members_change(node);
}

bool members_fresh(const struct node *node, uint64_t at_us)
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
                    peer->word_us != 0 && members_fresh(node, peer->word_us) &&
                    peer->word.region_open)
                        *ret_join = true;
        }
        for (size_t i = 0; i < node->founder_count; i++) {
                const struct node_peer *peer = node_peer_of(node, node->founders[i]);
                if (node->founders[i] == node->config.self)
                        continue;
                first = first && node->config.self < node->founders[i] && peer != NULL &&
                        peer->up && peer->word_us != 0 && members_fresh(node, peer->word_us);
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

/* What that node is in a group; 0: no member, as far as this node knows. */
static unsigned role_in(const struct node *node, int group, node_id id)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        const struct consensus *consensus = node->groups[group].consensus;
        size_t count =
                consensus == NULL ? 0 : consensus_members(consensus, members, COUNT_OF(members));
        for (size_t i = 0; i < count; i++)
                if (members[i].node == id)
                        return members[i].role;
        return 0;
}

bool members_hold_region(const struct node *node)
{
        const struct node_group *group = &node->groups[WORLD_GROUP_REGION];
        if (!members_change(node))
                return group->consensus != NULL;
        return !group->failed &&
               role_in(node, WORLD_GROUP_REGION, node->config.self) == CONSENSUS_VOTER;
}

/* Of its region's group: only those who go may know it. */
static bool waits_to_be_taken_in(const struct node *node, const struct node_peer *leaving)
{
        return strcmp(leaving->leaving.region, node->region->name) == 0 &&
               role_in(node, WORLD_GROUP_REGION, node->config.self) == 0;
}

/* Who has left the groups is not listened to any more. */
static void forget_left(struct node *node)
{
        for (size_t i = node->peer_count; i-- > 0;) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->leaving_us != 0 && node->now_us > peer->leaving_us + LEAVES_US &&
                    role_in(node, WORLD_GROUP_GLOBAL, peer->id) == 0 &&
                    role_in(node, WORLD_GROUP_REGION, peer->id) == 0 &&
                    !waits_to_be_taken_in(node, peer))
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
        if (members_hold_region(node))
                flags |= WORD_HOLDS;
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
        ret->holds = (flags & WORD_HOLDS) != 0;
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

/* ---- status ---- */

bool members_there(const struct node *node, node_id id)
{
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].id == id)
                        return id == node->config.self ||
                               (node->peers[i].up && node->peers[i].gossip_known &&
                                members_fresh(node, node->peers[i].gossip_us));
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
