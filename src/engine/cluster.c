/* Which servers a region's Redis Cluster has, and whether all of them are there.
 *
 *      scout   asks one server after the other for CLUSTER NODES, every POLL_MS
 *      shards  the primaries it names; each is asked for its positions and its layout
 *      up      every primary has answered and every slot is held: WORLD_REDIS_UP with the least of
 *              all positions. A primary without a slot and without a key is given those positions
 *              first (JOIN): it takes part before the first slot comes to it.
 *      down    a connection to one of them broke, or the primaries have changed (a failover):
 *              WORLD_REDIS_DOWN; up again when all are. So a dead shard holds the region's stream
 *              until its replica has taken over, and an old primary that is cut off is left as soon
 *              as another one is named in its place.
 *
 * Who has which slot is asked of each primary for itself, after its layout: so it gets every delta
 * of what it holds, whatever the others have heard of that. Slots that move between the same
 * primaries end nothing: they are asked for again when a shard refuses a batch
 * (cluster_merge.c). */
#include "engine/cluster_priv.h"

#include <stdio.h>

enum {
        POLL_MS = 500,
        POLL_SOON_MS = 100,
        ASK_AGAIN_MS = 200,
        TICK_MS = 10,
        SCOUT_WAIT_MS_MAX = 200,
};

_Static_assert((int)ENGINE_SHARDS_MAX == (int)SHARDS_MAX, "status has room for every shard");

struct bytes cluster_number(uint64_t value, char text[static NUMBER_SIZE])
{
        int len = snprintf(text, NUMBER_SIZE, "%llu", (unsigned long long)value);
        return bytes_of(text, (size_t)len);
}

static void cluster_refused(struct cluster *cluster, const char *text)
{
        struct engine *engine = cluster->engine;
        bool news = strcmp(engine->refusal, text) != 0;
        (void)snprintf(engine->refusal, sizeof engine->refusal, "%s", text);
        if (news)
                engine_note(engine, "redis-refused", "%s", engine->refusal);
}

/* ---- who has which slot ---- */

static bool shard_claims_read(struct shard *shard, const redisReply *reply)
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

static void map_make(struct cluster *cluster)
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

/* ---- up and down ---- */

static void cluster_down(struct cluster *cluster, const char *why)
{
        struct engine *engine = cluster->engine;
        cluster->generation++;
        cluster->stale = false;
        cluster->joining = 0;
        for (unsigned i = 0; i < cluster->count; i++)
                cluster->shards[i]->told = false;
        cluster_tail_drop(cluster);
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

static uint64_t position_of(const struct shard *shard, unsigned origin)
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
                        uint64_t told = position_of(cluster->shards[i], origin);
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

static void cluster_try_up(struct cluster *cluster)
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
        map_make(cluster);
        cluster_join(cluster);
}

/* ---- a shard ---- */

static void shard_refused(struct shard *shard, const redisReply *reply)
{
        char text[ENGINE_TEXT_SIZE], host[TOPOLOGY_ENDPOINT_TEXT];
        struct engine *engine = shard->cluster->engine;
        topology_endpoint_text(&shard->endpoint, host);
        engine->module_missing = reply_is_unknown_command(reply);
        if (engine->module_missing)
                (void)snprintf(text, sizeof text,
                               "Redis at %s, a primary of the cluster, has not loaded the "
                               "Meridian module: add 'loadmodule /path/to/meridian.so' to its "
                               "configuration and restart it",
                               host);
        else
                (void)snprintf(text, sizeof text, "Redis at %s refuses: %.*s", host,
                               (int)(reply->len < 120 ? reply->len : 120), reply->str);
        cluster_refused(shard->cluster, text);
        connection_retry(&shard->control, ASK_AGAIN_MS);
}

static void shard_positions(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct engine *engine = shard->cluster->engine;
        struct world_event event;
        if (reply == NULL || call->ticket != shard->cluster->generation)
                return;
        enum reply_kind kind = reply_positions(reply, &shard->origin, &event, &shard->positions);
        if (kind == REPLY_REFUSED) {
                shard_refused(shard, reply);
                return;
        }
        if (kind != REPLY_GOOD || (engine->region != 0 && shard->origin != engine->region)) {
                char text[ENGINE_TEXT_SIZE], host[TOPOLOGY_ENDPOINT_TEXT];
                topology_endpoint_text(&shard->endpoint, host);
                (void)snprintf(text, sizeof text,
                               "the module of Redis at %s is set to region %u, but this node is "
                               "of region %u, or it is of another version",
                               host, shard->origin, engine->region);
                cluster_refused(shard->cluster, text);
                connection_retry(&shard->control, ASK_AGAIN_MS);
                return;
        }
        shard->incarnation = event.redis_up.incarnation;
        shard->recovered = event.redis_up.recovered;
        shard->first = event.redis_up.first;
        shard->positions_told = true;
}

/* [layout, importing, keys] */
static bool shard_layout_read(struct shard *shard, const redisReply *reply)
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

static void shard_layout(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        if (reply == NULL || call->ticket != shard->cluster->generation)
                return;
        shard->layout_told = shard_layout_read(shard, reply);
        if (!shard->layout_told)
                connection_retry(&shard->control, ASK_AGAIN_MS);
}

static void shard_claims(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        if (reply == NULL || call->ticket != shard->cluster->generation || !shard->positions_told ||
            !shard->layout_told)
                return; /* asked again by connection_retry */
        if (!shard_claims_read(shard, reply)) {
                connection_retry(&shard->control, ASK_AGAIN_MS);
                return;
        }
        shard->told = true;
        cluster_try_up(shard->cluster);
}

static void shard_ask(struct connection *connection)
{
        struct shard *shard = connection->user;
        struct call call = {.done = shard_positions, .ticket = shard->cluster->generation};
        struct bytes argv[] = {BYTES("MERIDIAN.POSITIONS")};
        struct bytes nodes[] = {BYTES("CLUSTER"), BYTES("NODES")};
        if (shard->index >= SHARDS_MAX)
                return;
        shard->positions_told = shard->layout_told = false;
        (void)connection_send(connection, &call, COUNT_OF(argv), argv);
        call.done = shard_layout;
        argv[0] = BYTES("MERIDIAN.SHARD");
        (void)connection_send(connection, &call, COUNT_OF(argv), argv);
        call.done = shard_claims;
        (void)connection_send(connection, &call, COUNT_OF(nodes), nodes);
}

static void cluster_ask_all(struct cluster *cluster)
{
        for (unsigned i = 0; i < cluster->count; i++) {
                if (cluster->shards[i]->control.ready)
                        shard_ask(&cluster->shards[i]->control);
        }
}

static void shard_up(struct connection *connection)
{
        struct shard *shard = connection->user;
        if (shard->index < SHARDS_MAX)
                cluster_try_up(shard->cluster);
}

static void shard_down(struct connection *connection)
{
        struct shard *shard = connection->user;
        struct cluster *cluster = shard->cluster;
        char host[TOPOLOGY_ENDPOINT_TEXT], why[ENGINE_TEXT_SIZE];
        shard->bell_armed = shard->bell_armed && connection != &shard->bell;
        if (shard->index >= SHARDS_MAX)
                return;
        topology_endpoint_text(&shard->endpoint, host);
        (void)snprintf(why, sizeof why, "%s: %s", host, connection->why_last);
        cluster_down(cluster, why);
        cluster_ask_all(cluster);
        connection_retry(&cluster->scout, POLL_SOON_MS);
}

static struct shard *shard_of(struct cluster *cluster, const struct topology_endpoint *endpoint)
{
        struct engine *engine = cluster->engine;
        struct shard *shard = cluster->pool;
        while (shard != NULL && !engine_endpoint_same(&shard->endpoint, endpoint))
                shard = shard->next;
        if (shard != NULL || cluster->pool_count == SHARD_POOL_MAX)
                return shard;
        shard = heap_alloc(engine->config.heap, sizeof *shard);
        if (shard == NULL)
                return NULL;
        shard->cluster = cluster;
        shard->endpoint = *endpoint;
        shard->index = SHARDS_NOBODY;
        struct connection *all[] = {&shard->control, &shard->reads, &shard->bell};
        for (size_t i = 0; i < COUNT_OF(all); i++) {
                connection_init(all[i], engine, SCOUT_WAIT_MS_MAX);
                all[i]->endpoint = *endpoint;
                all[i]->user = shard;
                all[i]->up = shard_up;
                all[i]->down = shard_down;
        }
        shard->control.up = shard_ask;
        shard->control.retry = shard_ask;
        shard->next = cluster->pool;
        cluster->pool = shard;
        cluster->pool_count++;
        return shard;
}

static void shard_open(struct shard *shard)
{
        connection_open(&shard->control);
        connection_open(&shard->reads);
        connection_open(&shard->bell);
}

static void shard_pause(struct shard *shard)
{
        connection_pause(&shard->control, "it is no primary any more");
        connection_pause(&shard->reads, "it is no primary any more");
        connection_pause(&shard->bell, "it is no primary any more");
}

/* ---- the nodes ---- */

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
                struct shard *shard = shard_of(cluster, &nodes->items[i].endpoint);
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

static void scout_ask(struct connection *scout)
{
        struct call call = {.done = scout_answered};
        struct bytes argv[] = {BYTES("CLUSTER"), BYTES("NODES")};
        (void)connection_send(scout, &call, COUNT_OF(argv), argv);
}

/* The configured servers in turn, and between them those that were named. */
static void scout_choose(struct connection *scout)
{
        struct cluster *cluster = scout->user;
        const struct engine_config *config = &cluster->engine->config;
        unsigned at = cluster->scout_at++ % ((unsigned)config->redis_node_count + cluster->count);
        scout->endpoint = at < config->redis_node_count
                                  ? config->redis_nodes[at]
                                  : cluster->shards[at - config->redis_node_count]->endpoint;
}

/* ---- the slots again ---- */

static void refresh_done(struct cluster *cluster)
{
        cluster->stale = false;
        map_make(cluster);
        if (cluster->engine->redis_up)
                cluster_merge_refreshed(cluster);
}

static void refresh_layout(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        if (reply == NULL || call->ticket != cluster->generation || !cluster->stale)
                return;
        (void)shard_layout_read(shard, reply);
}

static void refresh_claims(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        if (reply == NULL || call->ticket != cluster->generation || !cluster->stale)
                return;
        (void)shard_claims_read(shard, reply);
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

/* ---- what the node wants ---- */

static void done_nothing(struct call *call, const redisReply *reply)
{
        (void)call;
        (void)reply;
}

static void cluster_tell(struct cluster *cluster, size_t argc, const struct bytes *argv)
{
        struct call call = {.done = done_nothing};
        for (unsigned i = 0; i < cluster->count; i++)
                (void)connection_send(&cluster->shards[i]->control, &call, argc, argv);
}

void cluster_tell_all(struct engine *engine, size_t argc, const struct bytes *argv)
{
        cluster_tell(engine->cluster, argc, argv);
}

void cluster_members(struct engine *engine)
{
        struct bytes argv[TOPOLOGY_REGIONS_MAX + 1] = {BYTES("MERIDIAN.MEMBERS")};
        memcpy(argv + 1, engine->members, engine->member_count * sizeof argv[0]);
        cluster_tell(engine->cluster, engine->member_count + 1, argv);
}

void cluster_redis(struct engine *engine, const struct world_effect *effect)
{
        struct cluster *cluster = engine->cluster;
        if (effect->kind == WORLD_REDIS_TAIL && effect->tail.origin != 0) {
                /* What the shards have merged of another's stream is not put together again. */
                struct world_event event = {.kind = WORLD_REDIS_TAILED};
                event.tailed.peer = effect->tail.peer;
                event.tailed.origin = effect->tail.origin;
                event.tailed.after = event.tailed.last = effect->tail.after;
                engine_emit(engine, &event);
        } else if (effect->kind == WORLD_REDIS_AGAIN) {
                for (unsigned i = 0; i < cluster->count; i++)
                        connection_kick(&cluster->shards[i]->control, "asked anew");
        } else if (effect->kind == WORLD_REDIS_CLOSE) {
                char low[NUMBER_SIZE], high[NUMBER_SIZE];
                struct bytes argv[] = {BYTES("MERIDIAN.CLOSE"),
                                       cluster_number(effect->close.low, low),
                                       cluster_number(effect->close.high, high)};
                cluster_tell(cluster, COUNT_OF(argv), argv);
        } else if (effect->kind == WORLD_REDIS_TAIL) {
                cluster_tail(cluster, effect);
        } else if (effect->kind == WORLD_REDIS_MERGE) {
                cluster_merge(cluster, effect);
        } else if (effect->kind == WORLD_REDIS_SCAN) {
                cluster_scan(cluster, effect);
        } else {
                char region[NUMBER_SIZE], position[NUMBER_SIZE];
                struct bytes argv[] = {BYTES("MERIDIAN.ACKED"),
                                       cluster_number(effect->acked.peer, region),
                                       cluster_number(effect->acked.position, position)};
                CHECK(effect->kind == WORLD_REDIS_ACKED);
                cluster_tell(cluster, COUNT_OF(argv), argv);
        }
}

const char *cluster_why(const struct engine *engine)
{
        const struct cluster *cluster = engine->cluster;
        if (engine->redis_up)
                return NULL;
        if (engine->refusal[0] != 0)
                return engine->refusal;
        return cluster->scout.why_last[0] != 0 ? cluster->scout.why_last
                                               : "not every primary has answered yet";
}

void cluster_status(const struct engine *engine, struct engine_status *ret)
{
        const struct cluster *cluster = engine->cluster;
        ret->redis_shard_count = cluster->count;
        for (unsigned i = 0; i < cluster->count; i++) {
                const struct shard *shard = cluster->shards[i];
                struct engine_shard *told = &ret->redis_shards[i];
                topology_endpoint_text(&shard->endpoint, told->endpoint);
                told->up = shard->told && shard->control.ready;
                told->importing = shard->importing;
                told->slots = shard->slots;
                told->position = position_of(shard, shard->origin);
        }
}

/* ---- life ---- */

static void cluster_ticked(uv_timer_t *timer)
{
        struct cluster *cluster = timer->data;
        if (!cluster->engine->redis_up)
                return;
        cluster_tail_timed(cluster);
        cluster_merge_timed(cluster);
}

void cluster_watch(struct engine *engine)
{
        connection_watch(&engine->cluster->scout);
        for (struct shard *shard = engine->cluster->pool; shard != NULL; shard = shard->next) {
                connection_watch(&shard->control);
                connection_watch(&shard->reads);
                connection_watch(&shard->bell);
        }
}

bool cluster_new(struct engine *engine)
{
        struct cluster *cluster = heap_alloc(engine->config.heap, sizeof *cluster);
        if (cluster == NULL)
                return false;
        cluster->engine = engine;
        engine->cluster = cluster;
        connection_init(&cluster->scout, engine, SCOUT_WAIT_MS_MAX);
        cluster->scout.user = cluster;
        cluster->scout.up = scout_ask;
        cluster->scout.retry = scout_ask;
        cluster->scout.choose = scout_choose;
        return true;
}

void cluster_start(struct engine *engine)
{
        struct cluster *cluster = engine->cluster;
        CHECK(uv_timer_init(engine->config.loop, &cluster->timer) == 0);
        engine_handle_opened(engine);
        cluster->timer.data = cluster;
        (void)uv_timer_start(&cluster->timer, cluster_ticked, TICK_MS, TICK_MS);
        connection_open(&cluster->scout);
}

static void timer_closed(uv_handle_t *handle)
{
        const struct cluster *cluster = handle->data;
        engine_handle_closed(cluster->engine);
}

void cluster_close(struct engine *engine)
{
        struct cluster *cluster = engine->cluster;
        uv_close((uv_handle_t *)&cluster->timer, timer_closed);
        connection_close(&cluster->scout);
        for (struct shard *shard = cluster->pool; shard != NULL; shard = shard->next) {
                connection_close(&shard->control);
                connection_close(&shard->reads);
                connection_close(&shard->bell);
        }
}

void cluster_fini(struct engine *engine)
{
        struct cluster *cluster = engine->cluster;
        if (cluster == NULL)
                return;
        cluster_tail_fini(cluster);
        cluster_merge_fini(cluster);
        cluster_scan_fini(cluster);
        while (cluster->pool != NULL) {
                struct shard *shard = cluster->pool;
                cluster->pool = shard->next;
                heap_free(engine->config.heap, shard);
        }
        heap_free(engine->config.heap, cluster);
        engine->cluster = NULL;
}
