/* Who has which slot. Each primary is asked for itself, after its layout: so it gets every delta of
 * what it holds, whatever the others have heard of that. Slots that move between the same primaries
 * end nothing: they are asked for again when a shard refuses a batch (cluster_merge.c). What a
 * server tells that is of no use is left out, and asked for again. */
#include "engine/cluster_priv.h"

bool shard_claims_read(struct shard *shard, const redisReply *reply)
{
        struct nodes *nodes = &shard->cluster->scratch;
        if (reply->type != REDIS_REPLY_STRING ||
            !nodes_parse(bytes_of(reply->str, reply->len), &shard->endpoint, nodes))
                return false;
        for (unsigned i = 0; i < nodes->map.count; i++) {
                if (!nodes->items[i].myself)
                        continue;
                shard->epoch = nodes->items[i].epoch;
                shard->slots = nodes->items[i].slots;
                for (unsigned slot = 0; slot < SHARDS_SLOTS; slot++) {
                        uint8_t bit = (uint8_t)(1u << slot % 8);
                        if (nodes->map.owner[slot] == i)
                                shard->claims[slot / 8] |= bit;
                        else
                                shard->claims[slot / 8] &= (uint8_t)~bit;
                }
                return true;
        }
        return false; /* a replica now */
}

void cluster_map_make(struct cluster *cluster)
{
        struct shards_map *map = &cluster->nodes.map;
        for (unsigned slot = 0; slot < SHARDS_SLOTS; slot++) {
                unsigned owner = SHARDS_NOBODY;
                for (unsigned i = 0; i < cluster->count; i++) {
                        const struct shard *shard = cluster->shards[i];
                        bool claimed = (shard->claims[slot / 8] >> slot % 8 & 1) != 0;
                        if (claimed && (owner == SHARDS_NOBODY ||
                                        shard->epoch > cluster->shards[owner]->epoch))
                                owner = i;
                }
                map->owner[slot] = (uint8_t)owner;
        }
        map->count = cluster->count;
}

/* [layout, importing, keys] */
bool shard_layout_read(struct shard *shard, const redisReply *reply)
{
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
                return false;
        for (size_t i = 0; i < 3; i++) {
                if (reply->element[i]->type != REDIS_REPLY_INTEGER)
                        return false;
        }
        shard->layout = (uint64_t)reply->element[0]->integer;
        shard->importing = reply->element[1]->integer != 0;
        shard->keys = (uint64_t)reply->element[2]->integer;
        return true;
}

/* ---- again ---- */

static void refresh_done(struct cluster *cluster)
{
        cluster->stale = false;
        cluster_map_make(cluster);
        if (cluster->engine->redis_up)
                cluster_merge_refreshed(cluster);
}

static void refresh_layout(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        if (reply == NULL || call->ticket != cluster->generation || !cluster->stale)
                return;
        (void)!shard_layout_read(shard, reply);
}

static void refresh_claims(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        if (reply == NULL || call->ticket != cluster->generation || !cluster->stale)
                return;
        (void)!shard_claims_read(shard, reply);
        if (--cluster->stale_waiting == 0)
                refresh_done(cluster);
}

void cluster_refresh(struct cluster *cluster)
{
        struct call call = {.done = refresh_layout, .ticket = cluster->generation};
        struct call call_claims = {.done = refresh_claims, .ticket = cluster->generation};
        struct bytes layout[] = {BYTES("MERIDIAN.SHARD")};
        struct bytes nodes[] = {BYTES("CLUSTER"), BYTES("NODES")};
        if (cluster->stale || !cluster->engine->redis_up)
                return;
        cluster->stale = true;
        cluster->stale_waiting = 1; /* for this function */
        for (unsigned i = 0; i < cluster->count; i++) {
                struct connection *control = &cluster->shards[i]->control;
                if (connection_send(control, &call, COUNT_OF(layout), layout) &&
                    connection_send(control, &call_claims, COUNT_OF(nodes), nodes))
                        cluster->stale_waiting++;
        }
        if (--cluster->stale_waiting == 0)
                refresh_done(cluster);
}
