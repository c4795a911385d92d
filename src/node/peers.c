/* peers.c - the topology in force, and the peers that it gives: those who are in it, and those who
 * have left it and are heard until the groups have let them go.
 *
 * A document comes by the log, or from a peer that knows a newer one (members.c); here it is taken
 * over, or left where a newer one is known. One that is without this node changes nothing here but
 * that it is an outcast: it meets those of the newest, so that its groups can let it go. */
#include "node/node_priv.h"

struct node_peer *node_peer_of(struct node *node, node_id id)
{
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].id == id)
                        return &node->peers[i];
        return NULL;
}

static void peer_left(struct node *node, const struct topology *before, struct node_peer *peer)
{
        const struct topology_region *region = topology_region_of_node(before, peer->id);
        const struct topology_node *known = topology_node_by_id(before, peer->id);
        if (peer->leaving_us == 0 && region != NULL && known != NULL) {
                peer->leaving = (struct node_leaving){.id = peer->id, .link = known->link};
                memcpy(peer->leaving.region, region->name, sizeof peer->leaving.region);
                peer->leaving_us = node->now_us;
        }
        peer->region = 0;
}

enum err peers_fill(struct node *node, const struct topology *before)
{
        size_t count = node->peer_count;
        const struct topology *topology = node->topology;
        for (size_t i = 0; i < topology->region_count; i++)
                count += topology->regions[i].node_count;
        struct node_peer *peers = heap_alloc_array(node->heap, count, sizeof *peers);
        if (peers == NULL)
                return ERR_NOMEM;
        size_t at = 0;
        for (size_t i = 0; i < topology->region_count; i++) {
                for (size_t k = 0; k < topology->regions[i].node_count; k++) {
                        node_id id = topology->regions[i].nodes[k].id;
                        const struct node_peer *old = node_peer_of(node, id);
                        if (old != NULL)
                                peers[at] = *old;
                        peers[at].id = id;
                        peers[at].leaving_us = 0;
                        peers[at++].region = topology->regions[i].id;
                }
        }
        bool forget = before == NULL || (node->config.bugs & NODE_BUG_STRANGERS) != 0;
        for (size_t i = 0; i < node->peer_count && !forget; i++) {
                if (topology_region_of_node(topology, node->peers[i].id) != NULL)
                        continue;
                peers[at] = node->peers[i];
                peer_left(node, before, &peers[at++]);
        }
        heap_free(node->heap, node->peers);
        node->peers = peers;
        node->peer_count = at;
        node->peers_version++;
        return ERR_NONE;
}

/* A node that is not in the newest topology still knows those who are: its groups may need it to
 * let it go. */
static void peers_meet(struct node *node, const struct topology *newest)
{
        size_t count = node->peer_count;
        struct node_peer *peers =
                heap_alloc_array(node->heap, count + TOPOLOGY_NODES_MAX, sizeof *peers);
        if (peers == NULL)
                return; /* it hears of the topology again */
        memcpy(peers, node->peers, count * sizeof *peers);
        for (uint32_t i = 0; i < newest->region_count; i++) {
                const struct topology_region *region = &newest->regions[i];
                for (uint32_t k = 0; k < region->node_count; k++) {
                        if (node_peer_of(node, region->nodes[k].id) != NULL)
                                continue;
                        struct node_peer *peer = &peers[count++];
                        peer->id = region->nodes[k].id;
                        peer->leaving_us = node->now_us;
                        peer->leaving.id = peer->id;
                        peer->leaving.link = region->nodes[k].link;
                        memcpy(peer->leaving.region, region->name, sizeof region->name);
                }
        }
        heap_free(node->heap, node->peers);
        node->peers = peers;
        node->peer_count = count;
        node->peers_version++;
}

void node_peer_meet(struct node *node, node_id id)
{
        size_t size = (node->peer_count + 1) * sizeof *node->peers;
        struct node_peer *peers = heap_resize(node->heap, node->peers, size);
        if (peers == NULL)
                return;
        memset(&peers[node->peer_count], 0, sizeof *peers);
        peers[node->peer_count].id = peers[node->peer_count].leaving.id = id;
        peers[node->peer_count++].leaving_us = node->now_us;
        node->peers = peers;
        node->peers_version++;
}

void node_peer_forget(struct node *node, size_t at)
{
        memmove(&node->peers[at], &node->peers[at + 1],
                (node->peer_count - at - 1) * sizeof *node->peers);
        node->peer_count--;
        node->peers_version++;
}

bool node_knows(const struct node *node, node_id id)
{
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].id == id)
                        return true;
        return false;
}

uint64_t node_peers_version(const struct node *node)
{
        return node->peers_version;
}

size_t node_leaving(const struct node *node, struct node_leaving *ret, size_t size)
{
        size_t count = 0;
        for (size_t i = 0; i < node->peer_count && count < size; i++)
                if (node->peers[i].leaving_us != 0)
                        ret[count++] = node->peers[i].leaving;
        return count;
}

enum err peers_of_replication(const struct node *node, struct replication_peer *ret_peers,
                              size_t *ret_count)
{
        size_t count = 0;
        for (size_t i = 0; i < node->topology->region_count; i++) {
                const struct topology_region *region = &node->topology->regions[i];
                if (region->id == node->region_id || region->role != TOPOLOGY_ROLE_DATA ||
                    region->node_count == 0)
                        continue;
                if (count == REPLICATION_PEERS_MAX)
                        return ERR_LIMIT;
                ret_peers[count++] = (struct replication_peer){region->nodes[0].id, region->id};
        }
        *ret_count = count;
        return ERR_NONE;
}

static void regions_removed(struct node *node, const struct topology *before)
{
        if (node->topology->epoch <= before->epoch)
                return; /* an older one, from the journal */
        for (size_t i = 0; i < before->region_count; i++) {
                const struct topology_region *region = &before->regions[i];
                if (topology_region_by_id(node->topology, region->id) == NULL)
                        node_note(node, "region-removed",
                                  "Region %s (id %u) was removed: nothing that it still sends is "
                                  "taken. To come back it needs a new id and an empty Redis.",
                                  region->name, region->id);
        }
}

static void replication_follow(struct node *node)
{
        struct replication_peer peers[REPLICATION_PEERS_MAX];
        size_t count;
        if (peers_of_replication(node, peers, &count) == ERR_NONE)
                replication_members(node->replication, peers, count);
        else
                node_note(node, "too-many-regions",
                          "The agreed topology has more than %d regions with data: replication "
                          "goes on with those of before.",
                          REPLICATION_PEERS_MAX + 1);
}

struct bytes node_document(const struct node *node)
{
        struct bytes agreed = council_topology(node->groups[WORLD_GROUP_GLOBAL].council, NULL);
        if (agreed.len > 0)
                return agreed;
        return node->learned.len > 0 ? node->learned : node->document;
}

/* Takes over a document that the council has agreed on. The members of the groups follow it step by
 * step: members.c. */
void node_adopt_topology(struct node *node, struct bytes document)
{
        struct topology_error error;
        if (!topology_parse(document, node->spare, &error)) {
                node_note(node, "topology-unreadable", "The agreed topology cannot be read: %s",
                          error.what);
                return;
        }
        if (node->spare->epoch < node->learned_epoch)
                return; /* the log comes there, too */
        bool without = topology_region_of_node(node->spare, node->config.self) == NULL;
        if (without && node->spare->epoch < node->topology->epoch)
                return; /* of the time before this node */
        node->outcast = without;
        if (node->outcast) {
                if (node->started)
                        peers_meet(node, node->spare);
                node_note(node, "topology-without-us",
                          "The agreed topology is without this node: it takes and sends no data "
                          "any more. Stop it; its region can come back under a new id, with an "
                          "empty Redis.");
                if (node->replication != NULL)
                        replication_members(node->replication, NULL, 0);
                return;
        }
        struct topology *old = node->topology;
        node->topology = node->spare;
        node->spare = old;
        node->region = topology_region_of_node(node->topology, node->config.self);
        if (node->started) {
                health_reconfigure(node->health, node->topology, node->now_us);
                if (peers_fill(node, old) != ERR_NONE)
                        node->failed = ERR_NOMEM;
                regions_sync(node);
                regions_removed(node, old);
        }
        if (node->replication != NULL)
                replication_follow(node);
}
