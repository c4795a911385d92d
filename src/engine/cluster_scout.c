/* Which primaries a Redis Cluster has: one server after the other is asked for CLUSTER NODES, every
 * POLL_MS. What a server tells is taken unless it has not heard of the last failover, or knows of
 * slots that nobody serves. Other primaries than before take the cluster down until all of them
 * have answered; so an old primary that is cut off is left as soon as another one is named in its
 * place. */
#include "engine/cluster_priv.h"

#include <stdio.h>

enum {
        POLL_MS = 500,
};

static bool same_primaries(const struct cluster *cluster, const struct nodes *nodes)
{
        if (!cluster->nodes_there || cluster->count != nodes->map.count)
                return false;
        for (unsigned i = 0; i < cluster->count; i++) {
                if (strcmp(cluster->nodes.items[i].id, nodes->items[i].id) != 0 ||
                    !engine_endpoint_same(&cluster->nodes.items[i].endpoint,
                                          &nodes->items[i].endpoint))
                        return false;
        }
        return true;
}

/* By id, so that two servers that name the same primaries name them in the same order. */
static void nodes_sort(struct nodes *nodes)
{
        unsigned place[SHARDS_MAX];
        struct node_told sorted[SHARDS_MAX];
        unsigned count = nodes->map.count;
        for (unsigned i = 0; i < count; i++) {
                place[i] = 0;
                for (unsigned k = 0; k < count; k++)
                        place[i] += strcmp(nodes->items[k].id, nodes->items[i].id) < 0;
                sorted[place[i]] = nodes->items[i];
        }
        memcpy(nodes->items, sorted, count * sizeof sorted[0]);
        for (unsigned slot = 0; slot < SHARDS_SLOTS; slot++) {
                if (nodes->map.owner[slot] != SHARDS_NOBODY)
                        nodes->map.owner[slot] = (uint8_t)place[nodes->map.owner[slot]];
        }
}

static void nodes_take(struct cluster *cluster, const struct nodes *nodes)
{
        struct shard *before[SHARDS_MAX];
        unsigned count_before = cluster->count;
        memcpy(before, cluster->shards, sizeof before);
        cluster_down(cluster, "its primaries have changed");
        for (unsigned i = 0; i < count_before; i++)
                before[i]->index = SHARDS_NOBODY;
        cluster->nodes = *nodes;
        cluster->nodes_there = true;
        cluster->count = 0;
        for (unsigned i = 0; i < nodes->map.count; i++) {
                struct shard *shard = cluster_shard_of(cluster, &nodes->items[i].endpoint);
                if (shard == NULL) {
                        cluster_refused(cluster, "too many servers of the Redis Cluster come and "
                                                 "go, or there is no memory");
                        cluster->nodes_there = false;
                        break;
                }
                shard->index = i;
                cluster->shards[cluster->count++] = shard;
        }
        for (unsigned i = 0; i < count_before; i++) {
                if (before[i]->index == SHARDS_NOBODY)
                        shard_pause(before[i]);
        }
        for (unsigned i = 0; i < cluster->count; i++)
                shard_open(cluster->shards[i]);
        cluster_ask_all(cluster);
}

/* Takes what a server has told; false: it is of no use. */
static bool nodes_told(struct cluster *cluster, const struct connection *by,
                       const redisReply *reply)
{
        struct nodes *nodes = &cluster->scratch;
        char text[ENGINE_TEXT_SIZE], host[TOPOLOGY_ENDPOINT_TEXT];
        topology_endpoint_text(&by->endpoint, host);
        /* A string in RESP2. */
        bool there = reply->type == REDIS_REPLY_STRING &&
                     nodes_parse(bytes_of(reply->str, reply->len), &by->endpoint, nodes);
        if (!there) {
                (void)snprintf(text, sizeof text,
                               "Redis at %s is no part of a cluster of 1 to %u primaries: set "
                               "'cluster-enabled yes' there, or take 'cluster on' away here",
                               host, (unsigned)SHARDS_MAX);
                cluster_refused(cluster, text);
                return false;
        }
        if (cluster->nodes_there && nodes->epoch_max < cluster->epoch_max)
                return false; /* it has not heard of the last failover */
        for (unsigned i = 0; i < nodes->map.count; i++) {
                if (nodes->items[i].failed || nodes->uncovered > 0) {
                        (void)snprintf(text, sizeof text,
                                       "the Redis Cluster has %u slots that nobody serves, as %s "
                                       "tells; its stream waits until they are served again",
                                       nodes->items[i].failed ? nodes->items[i].slots
                                                              : nodes->uncovered,
                                       host);
                        cluster_refused(cluster, text);
                        return false;
                }
        }
        nodes_sort(nodes);
        cluster->epoch_max = nodes->epoch_max;
        if (!same_primaries(cluster, nodes))
                nodes_take(cluster, nodes);
        return cluster->nodes_there;
}

static void scout_answered(struct call *call, const redisReply *reply)
{
        struct connection *scout = call->connection;
        struct cluster *cluster = scout->user;
        if (reply == NULL)
                return;
        if (nodes_told(cluster, scout, reply))
                connection_retry(scout, POLL_MS);
        else
                connection_kick(scout, "another server is asked");
}

void cluster_scout_ask(struct connection *scout)
{
        struct call call = {.done = scout_answered};
        struct bytes argv[] = {BYTES("CLUSTER"), BYTES("NODES")};
        (void)connection_send(scout, &call, COUNT_OF(argv), argv);
}

/* The configured servers in turn, and between them those that were named. */
void cluster_scout_choose(struct connection *scout)
{
        struct cluster *cluster = scout->user;
        const struct engine_config *config = &cluster->engine->config;
        unsigned at = cluster->scout_at++ % ((unsigned)config->redis_node_count + cluster->count);
        scout->endpoint = at < config->redis_node_count
                                  ? config->redis_nodes[at]
                                  : cluster->shards[at - config->redis_node_count]->endpoint;
}
