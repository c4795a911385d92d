/* Puts probes and keeper together, and ends them: closing waits until libuv has given every handle
 * back, since each of them points into the engine. */
#include "engine/engine_priv.h"

#include <stdarg.h>
#include <stdio.h>

uint64_t engine_now_us(const struct engine *engine)
{
        (void)engine;
        return uv_hrtime() / 1000;
}

void engine_handle_opened(struct engine *engine)
{
        engine->handles++;
}

void engine_handle_closed(struct engine *engine)
{
        CHECK(engine->handles > 0);
        engine->handles--;
        if (engine->closing && engine->handles == 0 && engine->closed != NULL)
                engine->closed(engine->closed_user);
}

void engine_emit(struct engine *engine, const struct world_event *event)
{
        if (!engine->closing)
                engine->config.event(engine->config.user, event);
}

void engine_note(struct engine *engine, const char *name, const char *format, ...)
{
        char text[ENGINE_TEXT_SIZE];
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        if (!engine->closing && engine->config.note != NULL)
                engine->config.note(engine->config.user, name, text);
}

enum err engine_new(const struct engine_config *config, struct engine **ret_engine)
{
        CHECK(config->loop != NULL);
        CHECK(config->event != NULL);
        struct engine *engine = heap_alloc(config->heap, sizeof *engine);
        if (engine == NULL)
                return ERR_NOMEM;
        engine->config = *config;
        if (config->redis_password != NULL)
                (void)snprintf(engine->password, sizeof engine->password, "%s",
                               config->redis_password);
        if (config->redis_user != NULL)
                (void)snprintf(engine->user, sizeof engine->user, "%s", config->redis_user);
        engine->config.redis_password = NULL;
        engine->config.redis_user = NULL;
        if (engine->config.interval_ms == 0)
                engine->config.interval_ms = ENGINE_INTERVAL_MS;
        if (engine->config.timeout_ms == 0)
                engine->config.timeout_ms = ENGINE_TIMEOUT_MS;
        if (engine->config.stall_ms == 0)
                engine->config.stall_ms = ENGINE_STALL_MS;
        rng_init(&engine->rng, config->seed, 0x656e67696e65);
        keeper_init(engine);
        bool made = true;
        if (config->redis_cluster)
                made = cluster_new(engine);
        else if (config->redis_node_count > 0)
                made = finder_new(engine);
        if (!made) {
                heap_free(config->heap, engine);
                return ERR_NOMEM;
        }
        *ret_engine = engine;
        return ERR_NONE;
}

static bool redis_used(const struct engine *engine)
{
        return engine->cluster != NULL || engine->finder != NULL ||
               engine->config.redis.address.family != 0;
}

static void backends_start(struct engine *engine)
{
        for (uint32_t i = 0; i < engine->backend_count; i++) {
                if (engine->probe_backends[i] == NULL)
                        engine->probe_backends[i] =
                                probe_http(engine, WORLD_PART_BACKEND, i, &engine->backends[i],
                                           "/healthz", "/", 299);
        }
}

void engine_start(struct engine *engine)
{
        const struct engine_config *config = &engine->config;
        CHECK(!engine->started);
        engine->started = true;
        if (redis_used(engine)) {
                keeper_start(engine);
                engine->probe_redis = probe_redis(engine);
        }
        if (config->dns.address.family != 0)
                engine->probe_dns = probe_dns(engine, &config->dns);
        /* The edge is well when it answers at all: where it sends a request is routing's matter. */
        if (config->edge.address.family != 0)
                engine->probe_edge = probe_http(engine, WORLD_PART_EDGE, 0, &config->edge,
                                                "/healthz", NULL, 499);
        backends_start(engine);
}

bool engine_endpoint_same(const struct topology_endpoint *a, const struct topology_endpoint *b)
{
        return a->port == b->port && a->address.family == b->address.family &&
               memcmp(a->address.bytes, b->address.bytes, sizeof a->address.bytes) == 0;
}

void engine_address(const struct topology_endpoint *endpoint, struct sockaddr_storage *ret)
{
        char host[TOPOLOGY_ADDRESS_TEXT];
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        topology_address_text(&endpoint->address, host);
        memset(ret, 0, sizeof *ret);
        if (endpoint->address.family == 4) {
                CHECK(uv_ip4_addr(host, endpoint->port, &in) == 0);
                memcpy(ret, &in, sizeof in);
        } else {
                CHECK(uv_ip6_addr(host, endpoint->port, &in6) == 0);
                memcpy(ret, &in6, sizeof in6);
        }
}

static void backends_take(struct engine *engine, const struct topology_region *region)
{
        uint32_t count = region != NULL ? region->backend_count : 0;
        for (uint32_t i = 0; i < engine->backend_count; i++) {
                if (i < count && engine_endpoint_same(&engine->backends[i], &region->backends[i]))
                        continue;
                probe_close(engine->probe_backends[i]);
                engine->probe_backends[i] = NULL;
        }
        for (uint32_t i = 0; i < count; i++)
                engine->backends[i] = region->backends[i];
        engine->backend_count = count;
}

static void members_take(struct engine *engine, const struct topology *topology)
{
        engine->member_count = 0;
        for (uint32_t i = 0; i < topology->region_count; i++) {
                if (topology->regions[i].role != TOPOLOGY_ROLE_DATA)
                        continue;
                size_t at = engine->member_count++;
                int len = snprintf(engine->member_text[at], sizeof engine->member_text[at], "%u",
                                   topology->regions[i].id);
                engine->members[at] = bytes_of(engine->member_text[at], (size_t)len);
        }
}

enum err engine_topology(struct engine *engine, const struct topology *topology, uint8_t region)
{
        engine->region = region;
        (void)snprintf(engine->zone, sizeof engine->zone, "%s",
                       topology->zone_count > 0 ? topology->zones[0].name : "");
        members_take(engine, topology);
        policies_take(engine, topology);
        backends_take(engine, topology_region_by_id(topology, region));
        if (!engine->started || engine->closing)
                return ERR_NONE;
        keeper_members(engine);
        backends_start(engine);
        for (uint32_t i = 0; i < engine->backend_count; i++) {
                if (engine->probe_backends[i] == NULL)
                        return ERR_NOMEM;
        }
        return ERR_NONE;
}

void engine_status(const struct engine *engine, struct engine_status *ret)
{
        *ret = (struct engine_status){
                .redis_used = redis_used(engine),
                .redis_up = engine->redis_up,
                .redis_module_missing = engine->module_missing,
                .redis_origin = engine->origin,
                .redis_incarnation = engine->incarnation,
        };
        const char *text = engine->refusal;
        if (text[0] == 0 && !engine->redis_up && ret->redis_used)
                text = engine->control.why_last[0] != 0 ? engine->control.why_last
                                                        : finder_why(engine);
        if (engine->cluster != NULL) {
                cluster_status(engine, ret);
                text = cluster_why(engine);
        }
        (void)snprintf(ret->redis_text, sizeof ret->redis_text, "%s", text != NULL ? text : "");
}

void engine_close(struct engine *engine, void (*closed)(void *user), void *user)
{
        CHECK(!engine->closing);
        engine->closing = true;
        engine->closed = closed;
        engine->closed_user = user;
        engine_handle_opened(engine); /* held while this function closes the others */
        if (engine->started && redis_used(engine))
                keeper_close(engine);
        probe_close(engine->probe_redis);
        engine->probe_redis = NULL;
        probe_close(engine->probe_dns);
        probe_close(engine->probe_edge);
        for (uint32_t i = 0; i < engine->backend_count; i++)
                probe_close(engine->probe_backends[i]);
        engine_handle_closed(engine);
}

void engine_free(struct engine *engine)
{
        if (engine == NULL)
                return;
        CHECK(engine->handles == 0);
        keeper_fini(engine);
        heap_free(engine->config.heap, engine);
}
