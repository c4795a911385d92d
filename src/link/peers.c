/* The other nodes: who they are by the topology, who of them may connect, and when to dial again.
 * One that leaves the topology stays until its connection has ended. */
#include "base/check.h"
#include "link/link_priv.h"

#include <stdio.h>

struct peer *link_peer_find(struct link *link, node_id id)
{
        for (struct peer *peer = link->peers; peer != NULL; peer = peer->next) {
                if (peer->id == id && !peer->gone)
                        return peer;
        }
        return NULL;
}

enum err link_address_parse(const char *host, uint16_t port, struct sockaddr_storage *ret)
{
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        memset(ret, 0, sizeof *ret);
        if (uv_ip4_addr(host, port, &in) == 0)
                memcpy(ret, &in, sizeof in);
        else if (uv_ip6_addr(host, port, &in6) == 0)
                memcpy(ret, &in6, sizeof in6);
        else
                return ERR_INVALID;
        return ERR_NONE;
}

static enum err peer_check(const struct link *link, const struct link_peer *wish)
{
        struct sockaddr_storage address;
        if (wish->id == 0 || wish->id == link->self.node || !pki_name_valid(wish->region))
                return ERR_INVALID;
        return link_address_parse(wish->host, wish->port, &address);
}

/* Where it must be dialled and who it must be. */
static void peer_set(struct peer *peer, const struct link_peer *wish)
{
        enum err err = link_address_parse(wish->host, wish->port, &peer->address);
        CHECK(err == ERR_NONE);
        snprintf(peer->region, sizeof peer->region, "%s", wish->region);
}

static struct peer *peer_new(struct link *link, const struct link_peer *wish)
{
        struct peer *peer = heap_alloc(link->heap, sizeof *peer);
        if (peer == NULL)
                return NULL;
        peer->id = wish->id;
        peer->status.peer = wish->id;
        peer->backoff_ms = link->reconnect_ms_min;
        peer_set(peer, wish);
        peer->next = link->peers;
        link->peers = peer;
        return peer;
}

void link_peers_sweep(struct link *link)
{
        struct peer **at = &link->peers;
        while (*at != NULL) {
                struct peer *peer = *at;
                if (!peer->gone || peer->conn != NULL) {
                        at = &peer->next;
                        continue;
                }
                *at = peer->next;
                heap_free(link->heap, peer);
        }
}

struct peer *link_admit(struct link *link, const struct pki_identity *identity,
                        char why[LINK_WHY_MAX])
{
        struct peer *peer = link_peer_find(link, identity->node);
        const char *reason = NULL;
        if (strcmp(identity->cluster, link->self.cluster) != 0)
                reason = "another cluster";
        else if (peer == NULL)
                reason = "no such node in the topology";
        else if (strcmp(identity->region, peer->region) != 0)
                reason = "the topology puts this node in another region";
        else if (identity->node > link->self.node)
                reason = "it must be dialled from here";
        else if (peer->impairment.cut)
                reason = "the lab has cut this link";
        if (reason == NULL)
                return peer;
        snprintf(why, LINK_WHY_MAX, "%s", reason);
        return NULL;
}

bool link_peer_dials(const struct link *link, const struct peer *peer)
{
        return link->self.node < peer->id && peer->conn == NULL && !peer->gone &&
               !peer->impairment.cut;
}

void link_peer_backoff(struct link *link, struct peer *peer)
{
        uint64_t pause_us = (uint64_t)peer->backoff_ms * 1000;
        peer->dial_due_us = link_now_us() + rng_between(&link->rng, pause_us / 2, pause_us);
        peer->backoff_ms *= 2;
        if (peer->backoff_ms > link->reconnect_ms_max)
                peer->backoff_ms = link->reconnect_ms_max;
}

static const struct link_peer *wish_find(const struct link_peer *wishes, size_t count, node_id id)
{
        for (size_t i = 0; i < count; i++) {
                if (wishes[i].id == id)
                        return &wishes[i];
        }
        return NULL;
}

static bool peer_same(const struct peer *peer, const struct link_peer *wish)
{
        struct sockaddr_storage address;
        enum err err = link_address_parse(wish->host, wish->port, &address);
        CHECK(err == ERR_NONE);
        return memcmp(&address, &peer->address, sizeof address) == 0 &&
               strcmp(peer->region, wish->region) == 0;
}

/* One that is known already: it leaves, moves or stays. */
static void peer_update(struct peer *peer, const struct link_peer *wish)
{
        if (wish != NULL && peer_same(peer, wish))
                return;
        peer->gone = wish == NULL;
        if (wish != NULL)
                peer_set(peer, wish);
        if (peer->conn != NULL)
                conn_break(peer->conn, "%s",
                           peer->gone ? "it left the topology"
                                      : "its place in the topology changed");
}

enum err link_set_peers(struct link *link, const struct link_peer *peers, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                enum err err = peer_check(link, &peers[i]);
                if (err != ERR_NONE)
                        return err;
        }
        for (struct peer *peer = link->peers; peer != NULL; peer = peer->next) {
                if (!peer->gone)
                        peer_update(peer, wish_find(peers, count, peer->id));
        }
        for (size_t i = 0; i < count; i++) {
                if (link_peer_find(link, peers[i].id) == NULL && peer_new(link, &peers[i]) == NULL)
                        return ERR_NOMEM;
        }
        link_tick_soon(link);
        return ERR_NONE;
}
