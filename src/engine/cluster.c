/* A region's Redis Cluster: what the node wants of it, what is told of it, its life.
 *
 *      scout   asks one server after the other which primaries there are (cluster_scout.c)
 *      shards  these; each is asked for its positions and its layout (cluster_shard.c)
 *      up      every primary has answered and every slot is held (cluster_up.c)
 *      down    a connection to one of them broke, or the primaries have changed (a failover); up
 *              again when all are. So a dead shard holds the region's stream until its replica has
 *              taken over. */
#include "engine/cluster_priv.h"

#include <stdio.h>

enum {
        TICK_MS = 10,
};

_Static_assert((int)ENGINE_SHARDS_MAX == (int)SHARDS_MAX, "status has room for every shard");

struct bytes cluster_number(uint64_t value, char text[static NUMBER_SIZE])
{
        int len = snprintf(text, NUMBER_SIZE, "%llu", (unsigned long long)value);
        return bytes_of(text, (size_t)len);
}

void cluster_refused(struct cluster *cluster, const char *text)
{
        struct engine *engine = cluster->engine;
        bool news = strcmp(engine->refusal, text) != 0;
        (void)snprintf(engine->refusal, sizeof engine->refusal, "%s", text);
        if (news)
                engine_note(engine, "redis-refused", "%s", engine->refusal);
}

/* ---- what the node wants ---- */

static void cluster_tell(struct cluster *cluster, size_t argc, const struct bytes *argv)
{
        struct call call = {.done = obstacle_told};
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
                cluster_relay(cluster, effect);
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
                told->position = shard_position(shard, shard->origin);
        }
}

/* ---- life ---- */

static void cluster_ticked(uv_timer_t *timer)
{
        struct cluster *cluster = timer->data;
        if (!cluster->engine->redis_up)
                return;
        cluster_tail_timed(cluster);
        cluster_relay_timed(cluster);
        cluster_scan_timed(cluster);
        cluster_merge_timed(cluster);
}

void cluster_watch(struct engine *engine)
{
        connection_watch(&engine->cluster->scout, NULL);
        for (struct shard *shard = engine->cluster->pool; shard != NULL; shard = shard->next) {
                connection_watch(&shard->control, &shard->reads);
                connection_watch(&shard->reads, &shard->reads);
                connection_watch(&shard->bell, &shard->reads);
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
        cluster->scout.up = cluster_scout_ask;
        cluster->scout.retry = cluster_scout_ask;
        cluster->scout.choose = cluster_scout_choose;
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
        cluster_relay_fini(cluster);
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
