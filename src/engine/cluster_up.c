/* A Redis Cluster comes up and goes down, as one.
 *
 *      try_up  every primary has answered and every slot is held
 *      join    a primary without a slot and without a key is given the least of all positions
 *              first: it takes part before the first slot comes to it
 *      up      WORLD_REDIS_UP with the least of all positions, and with the range that the shards
 *              have lost of our own stream
 *      down    WORLD_REDIS_DOWN; what was asked before is forgotten */
#include "engine/cluster_priv.h"

void cluster_down(struct cluster *cluster, const char *why)
{
        struct engine *engine = cluster->engine;
        cluster->generation++;
        cluster->stale = false;
        cluster->joining = 0;
        for (unsigned i = 0; i < cluster->count; i++)
                cluster->shards[i]->told = false;
        cluster_tail_drop(cluster);
        cluster_relay_drop(cluster);
        cluster_merge_drop(cluster);
        cluster_scan_drop(cluster);
        if (!engine->redis_up)
                return;
        engine->redis_up = false;
        engine_note(engine, "redis-down", "the Redis Cluster is not whole: %s", why);
        struct world_event event = {.kind = WORLD_REDIS_DOWN};
        engine_emit(engine, &event);
}

/* What was lost of our own stream lies between `recovered` and `first` of some shard's newest life.
 * The newest of these ranges is told, with those that touch it: a position in an older one was
 * told before that shard's restart, and has been asked for then. */
static void lost_range(const struct cluster *cluster, struct world_event *event)
{
        const struct shard *newest = cluster->shards[0];
        for (unsigned i = 1; i < cluster->count; i++) {
                const struct shard *shard = cluster->shards[i];
                /* None yet is later than any. */
                if (newest->first != 0 && (shard->first == 0 || shard->first > newest->first))
                        newest = shard;
        }
        event->redis_up.first = newest->first;
        event->redis_up.recovered = newest->recovered;
        for (unsigned i = 0; i < cluster->count; i++) {
                const struct shard *shard = cluster->shards[i];
                bool touches = shard->first == 0 || shard->first > newest->recovered;
                if (touches && shard->recovered < event->redis_up.recovered)
                        event->redis_up.recovered = shard->recovered;
        }
}

uint64_t shard_position(const struct shard *shard, unsigned origin)
{
        for (size_t i = 0; i < shard->positions.count; i++) {
                if (shard->positions.items[i].origin == origin)
                        return shard->positions.items[i].hlc;
        }
        return 0;
}

static bool shard_joins(const struct shard *shard)
{
        return shard->slots == 0 && shard->keys == 0;
}

/* The least of all that count; of ourselves the largest. */
static void positions_least(const struct cluster *cluster, struct positions *ret)
{
        ret->count = 0;
        for (unsigned origin = 1; origin <= TOPOLOGY_REGION_ID_MAX; origin++) {
                bool own = origin == cluster->engine->origin;
                uint64_t hlc = own ? 0 : UINT64_MAX;
                for (unsigned i = 0; i < cluster->count; i++) {
                        uint64_t told = shard_position(cluster->shards[i], origin);
                        if (own)
                                hlc = told > hlc ? told : hlc;
                        else if (told < hlc && !shard_joins(cluster->shards[i]))
                                hlc = told;
                }
                if (hlc != 0 && hlc != UINT64_MAX)
                        ret->items[ret->count++] = (struct world_position){(region_id)origin, hlc};
        }
}

static void cluster_up(struct cluster *cluster)
{
        struct engine *engine = cluster->engine;
        struct world_event event = {.kind = WORLD_REDIS_UP};
        struct positions positions;
        uint64_t incarnation = 0;
        for (unsigned i = 0; i < cluster->count; i++)
                incarnation = incarnation * 31 + cluster->shards[i]->incarnation;
        incarnation = (incarnation & INT64_MAX) | 1;
        uint8_t hole[WORLD_HOLE_LEN] = {engine->origin};
        positions_least(cluster, &positions);
        lost_range(cluster, &event);
        for (unsigned i = 0; i < 8; i++) {
                hole[2 + i] = (uint8_t)(event.redis_up.recovered >> (8 * i));
                hole[10 + i] = (uint8_t)(event.redis_up.first >> (8 * i));
        }
        bool lost = event.redis_up.first > event.redis_up.recovered + 1;
        event.redis_up.holes = bytes_of(hole, lost ? sizeof hole : 0);
        event.redis_up.positions = positions.items;
        event.redis_up.count = positions.count;
        event.redis_up.incarnation = incarnation;
        engine->redis_up = true;
        engine->refusal[0] = 0;
        engine->incarnation = incarnation;
        engine_note(engine, "redis-up", "a Redis Cluster of %u primaries is up, region %u",
                    cluster->count, engine->origin);
        keeper_members(engine);
        engine_emit(engine, &event);
}

static void join_answered(struct call *call, const redisReply *reply)
{
        struct cluster *cluster = ((struct shard *)call->connection->user)->cluster;
        if (reply == NULL || call->ticket != cluster->generation || cluster->joining == 0)
                return;
        if (reply->type == REDIS_REPLY_ERROR)
                cluster_refused(cluster, reply->str);
        cluster->joining--;
        if (cluster->joining == 0)
                cluster_up(cluster);
}

/* Gives those that have nothing the positions of the others. */
static void cluster_join(struct cluster *cluster)
{
        char texts[2 * TOPOLOGY_REGION_ID_MAX][NUMBER_SIZE];
        struct bytes argv[2 * TOPOLOGY_REGION_ID_MAX + 1] = {BYTES("MERIDIAN.JOIN")};
        struct call call = {.done = join_answered, .ticket = cluster->generation};
        struct positions positions;
        size_t count = 1;
        positions_least(cluster, &positions);
        for (size_t i = 0; i < positions.count; i++) {
                if (positions.items[i].origin == cluster->engine->origin)
                        continue;
                argv[count] = cluster_number(positions.items[i].origin, texts[count]);
                count++;
                argv[count] = cluster_number(positions.items[i].hlc, texts[count]);
                count++;
        }
        for (unsigned i = 0; count > 1 && i < cluster->count; i++) {
                struct shard *shard = cluster->shards[i];
                if (shard_joins(shard) && connection_send(&shard->control, &call, count, argv))
                        cluster->joining++;
        }
        if (cluster->joining == 0)
                cluster_up(cluster);
}

void cluster_try_up(struct cluster *cluster)
{
        if (cluster->engine->redis_up || cluster->joining > 0 || cluster->count == 0 ||
            cluster->nodes.uncovered > 0)
                return;
        for (unsigned i = 0; i < cluster->count; i++) {
                const struct shard *shard = cluster->shards[i];
                if (!shard->told || !shard->reads.ready || !shard->bell.ready)
                        return;
        }
        cluster->engine->origin = cluster->shards[0]->origin;
        cluster_map_make(cluster);
        cluster_join(cluster);
}
