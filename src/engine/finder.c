/* Which server is the region's Redis now, where it has replicas.
 *
 *      Sentinel   asks the sentinels in turn for the address of the named primary, every POLL_MS
 *      no name    asks the servers in turn for their ROLE; stays with the one that is a primary
 *                 until it is one no more, or is gone
 *
 *      found another -> the connections for deltas are broken off and made to that one; it is used
 *                       as soon as it says itself that it is a primary (keeper.c)
 *
 * A primary that was replaced is left within one poll, and never merged into: a replica refuses
 * MERGE. What its clients wrote while it was cut off is lost to this region where its replicas
 * never had it; what of that had been sent to other regions comes back from them, as after a crash
 * (replication). */
#include "engine/engine_priv.h"

#include <stdio.h>

enum {
        POLL_MS = 500,
        FINDER_WAIT_MS_MAX = 200,
};

struct finder {
        struct engine *engine;
        struct connection asker;
        unsigned at;
        bool opened;
        bool primary; /* what the control connection's server said of itself */
};

static void finder_found(struct finder *finder, const struct topology_endpoint *endpoint)
{
        struct engine *engine = finder->engine;
        char host[TOPOLOGY_ENDPOINT_TEXT];
        if (finder->opened && engine_endpoint_same(&engine->config.redis, endpoint))
                return;
        topology_endpoint_text(endpoint, host);
        engine->config.redis = *endpoint;
        engine_note(engine, "redis-primary", "the region's Redis is %s", host);
        keeper_moved(engine);
        if (!finder->opened)
                keeper_open(engine);
        finder->opened = true;
}

static void finder_refused(struct finder *finder, const redisReply *reply)
{
        struct engine *engine = finder->engine;
        char host[TOPOLOGY_ENDPOINT_TEXT], text[ENGINE_TEXT_SIZE];
        if (engine->redis_up)
                return;
        topology_endpoint_text(&finder->asker.endpoint, host);
        if (reply->type == REDIS_REPLY_ERROR)
                reply_refusal(&finder->asker.endpoint, reply, text);
        else if (engine->config.redis_master[0] != 0)
                (void)snprintf(text, sizeof text,
                               "the sentinel at %s knows no primary of the name '%s': correct "
                               "'redis master' or the sentinel's configuration",
                               host, engine->config.redis_master);
        else
                (void)snprintf(text, sizeof text,
                               "Redis at %s is a replica, and no server that is listed is a "
                               "primary",
                               host);
        (void)snprintf(engine->refusal, sizeof engine->refusal, "%s", text);
}

/* [address, port] */
static bool sentinel_read(const redisReply *reply, struct topology_endpoint *ret)
{
        char text[TOPOLOGY_ENDPOINT_TEXT];
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
            reply->element[0]->type != REDIS_REPLY_STRING ||
            reply->element[1]->type != REDIS_REPLY_STRING)
                return false;
        bool six = strchr(reply->element[0]->str, ':') != NULL;
        (void)snprintf(text, sizeof text, six ? "[%s]:%s" : "%s:%s", reply->element[0]->str,
                       reply->element[1]->str);
        return topology_endpoint_parse(bytes_of_str(text), ret);
}

static bool role_is_primary(const redisReply *reply)
{
        return reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
               reply->element[0]->type == REDIS_REPLY_STRING &&
               strcmp(reply->element[0]->str, "master") == 0;
}

static void asker_answered(struct call *call, const redisReply *reply)
{
        struct connection *asker = call->connection;
        struct finder *finder = asker->user;
        struct topology_endpoint endpoint = asker->endpoint;
        bool named = finder->engine->config.redis_master[0] != 0;
        if (reply == NULL)
                return;
        bool found = named ? sentinel_read(reply, &endpoint) : role_is_primary(reply);
        if (found) {
                finder_found(finder, &endpoint);
                connection_retry(asker, POLL_MS);
        } else {
                finder_refused(finder, reply);
                connection_kick(asker, "another server is asked");
        }
}

static void asker_ask(struct connection *asker)
{
        const struct finder *finder = asker->user;
        struct call call = {.done = asker_answered};
        struct bytes sentinel[] = {BYTES("SENTINEL"), BYTES("get-master-addr-by-name"),
                                   bytes_of_str(finder->engine->config.redis_master)};
        struct bytes role[] = {BYTES("ROLE")};
        if (sentinel[2].len > 0)
                (void)connection_send(asker, &call, COUNT_OF(sentinel), sentinel);
        else
                (void)connection_send(asker, &call, COUNT_OF(role), role);
}

static void asker_choose(struct connection *asker)
{
        struct finder *finder = asker->user;
        const struct engine_config *config = &finder->engine->config;
        asker->endpoint = config->redis_nodes[finder->at++ % config->redis_node_count];
}

/* ---- the server in use ---- */

static void role_answered(struct call *call, const redisReply *reply)
{
        struct finder *finder = call->connection->engine->finder;
        finder->primary = reply != NULL && role_is_primary(reply);
}

void finder_ask_role(struct engine *engine)
{
        struct call call = {.done = role_answered};
        struct bytes role[] = {BYTES("ROLE")};
        engine->finder->primary = false;
        (void)connection_send(&engine->control, &call, COUNT_OF(role), role);
}

bool finder_role_is_primary(const struct engine *engine)
{
        return engine->finder->primary;
}

const char *finder_why(const struct engine *engine)
{
        if (engine->refusal[0] != 0)
                return engine->refusal;
        if (engine->finder != NULL && engine->finder->asker.why_last[0] != 0)
                return engine->finder->asker.why_last;
        return "not yet";
}

/* ---- life ---- */

bool finder_new(struct engine *engine)
{
        struct finder *finder = heap_alloc(engine->config.heap, sizeof *finder);
        if (finder == NULL)
                return false;
        finder->engine = engine;
        engine->finder = finder;
        connection_init(&finder->asker, engine, FINDER_WAIT_MS_MAX);
        finder->asker.user = finder;
        finder->asker.bare = engine->config.redis_master[0] != 0;
        finder->asker.up = asker_ask;
        finder->asker.retry = asker_ask;
        finder->asker.choose = asker_choose;
        return true;
}

void finder_start(struct engine *engine)
{
        connection_open(&engine->finder->asker);
}

void finder_watch(struct engine *engine)
{
        connection_watch(&engine->finder->asker, NULL);
}

void finder_close(struct engine *engine)
{
        connection_close(&engine->finder->asker);
}

void finder_fini(struct engine *engine)
{
        heap_free(engine->config.heap, engine->finder);
        engine->finder = NULL;
}
