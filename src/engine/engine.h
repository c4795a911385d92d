/* engine.h - what a node does with its own servers, by libuv on one loop: it looks at them
 * (probes), and keeps the connections to the local Redis over which deltas flow (keeper). It
 * decides nothing: each result is one event of world/world.h for the node, and what the node wants
 * of Redis comes as the effects WORLD_REDIS_*.
 *
 *   probes   Redis PING, DNS query by UDP, HTTP GET to the edge and to each backend; every
 *            `interval_ms` (each with a jitter of a tenth), given up after `timeout_ms`. Each look
 *            is one WORLD_PROBED; counting looks up and down is the node's business (health).
 *   keeper   a control connection (POSITIONS at its begin, then MERGE, MERGESTATE, ACKED,
 *            pipelined), one for SCAN, and one for each peer whose deltas are asked for (TAIL
 *            blocks). The control connection decides: WORLD_REDIS_UP when it stands and the module
 *            has answered, WORLD_REDIS_DOWN when it breaks. Reconnects after 100 ms, doubling to
 *            1 s. A broken tail connection is made again and its TAIL asked again, unseen by the
 *            node.
 *
 * A region's Redis may be a Redis Cluster: towards the node it is one Redis, with one stream and
 * one vector of positions, whatever runs behind it. It is up while all of its primaries are; slots
 * may move between them meanwhile.
 *
 * A Redis without the module is up for PING, but reported as unhealthy with a text that says so.
 */
#ifndef MERIDIAN_ENGINE_ENGINE_H
#define MERIDIAN_ENGINE_ENGINE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "topology/topology.h"
#include "world/world.h"

#include <uv.h>

enum {
        ENGINE_PASSWORD_SIZE = 256, /* with its NUL */
        ENGINE_INTERVAL_MS = 500,
        ENGINE_TIMEOUT_MS = 400,
        ENGINE_STALL_MS = 5000,
        ENGINE_TEXT_SIZE = 256,
        ENGINE_NODES_MAX = 16,
        ENGINE_SHARDS_MAX = 64,
        ENGINE_MASTER_SIZE = 64,
};

/* A question about digests (MERIDIAN.DIGESTS, plugins/redis/digests.c). */
struct engine_verify {
        unsigned shard;      /* of a Redis Cluster; else 0 */
        bool positions;      /* how far the server has come; the rest is ignored */
        uint64_t walk;       /* goes on with that one; 0: begins one */
        struct bytes prefix; /* of the keys; for a new walk */
        struct bytes map;    /* of buckets; empty: sums of all. For a new walk */
};

/* A part of an answer; slices are borrowed for the call. */
struct engine_verified {
        const char *why; /* NULL: good; else why there is none, and the walk is lost */
        unsigned shards; /* of the region; 1 without a Redis Cluster */
        uint64_t walk;   /* to go on with; 0: over */
        uint64_t keys;   /* that were looked at */
        struct bytes payload;
};

struct engine_config {
        uv_loop_t *loop;   /* kept */
        struct heap *heap; /* kept */
        uint64_t seed;     /* of the jitter and of the ids of DNS queries */

        /* The servers; address.family 0: the region does not use this one. */
        struct topology_endpoint redis;
        struct topology_endpoint dns;
        struct topology_endpoint edge;
        const char *redis_password;   /* NULL: none; copied */
        const char *redis_user;       /* with a password; NULL or empty: `default`; copied */
        struct ssl_ctx_st *redis_tls; /* of engine_tls_new; NULL: no TLS; kept */

        /* Instead of `redis`: some servers of a Redis Cluster, any of which tells the others; or
         * the sentinels that know a primary by its name; or a primary and its replicas. */
        bool redis_cluster;
        char redis_master[ENGINE_MASTER_SIZE]; /* as the sentinels call it; empty: none */
        struct topology_endpoint redis_nodes[ENGINE_NODES_MAX];
        size_t redis_node_count;

        uint32_t interval_ms; /* 0: ENGINE_INTERVAL_MS */
        uint32_t timeout_ms;  /* 0: ENGINE_TIMEOUT_MS */
        uint32_t stall_ms;    /* a connection to Redis without any answer; 0: ENGINE_STALL_MS */

        void *user;

        /* A result: WORLD_PROBED, WORLD_REDIS_UP, DOWN, TAILED, MERGED, SCANNED. Times are left 0.
         * Slices are borrowed for the call. It may call engine_redis. */
        void (*event)(void *user, const struct world_event *event);

        /* Something for the log has changed: "redis-up", "redis-down", "redis-no-module",
         * "redis-refused", "redis-denied" and others, with a sentence. May be NULL. */
        void (*note)(void *user, const char *name, const char *text);

        /* A conflict that one of the region's servers tells of, once each, as JSON
         * (plugins/redis/conflict.c), and how many between the last one and it the server had to
         * forget before it was asked. Borrowed for the call. May be NULL. */
        void (*conflict)(void *user, const char *endpoint, uint64_t missed, struct bytes text);

        /* How replication goes, as one of the region's servers tells it (plugins/redis/status.c,
         * JSON), about once a second: the `shard`-th of `count`. Borrowed for the call. May be
         * NULL. */
        void (*shown)(void *user, unsigned shard, unsigned count, const char *endpoint,
                      struct bytes text);

        /* The answer to an engine_verify. */
        void (*verified)(void *user, uint64_t ticket, const struct engine_verified *verified);
};

/* Files in PEM. `cert` and `key` are ours, for servers that want a certificate of their clients;
 * empty: none. */
struct engine_tls {
        const char *ca;
        const char *cert;
        const char *key;
};

struct engine_tls_error {
        char text[1400];
};

/* What all connections to Redis share, for TLS 1.2 or later: a server is accepted whose certificate
 * is of the authority `ca`, whatever name it bears (as Redis's own replicas do). It is read once.
 * NULL: the error says which file, what is wrong and what to do. The caller frees it. */
MUST_USE struct ssl_ctx_st *engine_tls_new(const struct engine_tls *files,
                                           struct engine_tls_error *error);
void engine_tls_free(struct ssl_ctx_st *tls); /* NULL is fine */

struct engine;

/* Makes it; nothing runs before engine_start. ERR_NOMEM. */
MUST_USE enum err engine_new(const struct engine_config *config, struct engine **ret_engine);

/* Begins to probe and to connect. Events come from the loop only, never from inside this call. */
void engine_start(struct engine *engine);

/* Takes what a topology says about the own region (id): its backends are probed from now on, the
 * first zone's apex is the name that DNS is asked for (SOA), and Redis learns the data regions
 * (MERIDIAN.MEMBERS) and the policies of key prefixes (MERIDIAN.POLICY). To be called at the start
 * and after every change. ERR_NOMEM: some backends are not probed. */
MUST_USE enum err engine_topology(struct engine *engine, const struct topology *topology,
                                  uint8_t region);

/* Carries out a WORLD_REDIS_TAIL, MERGE, SCAN or ACKED; other kinds are our mistake. While Redis is
 * down it is dropped, as the contract of world.h says. */
void engine_redis(struct engine *engine, const struct world_effect *effect);

/* Asks Redis for digests: about a tenth of a second's worth. NULL: `verified` will be called,
 * unless the engine is closed before; else why it will not. `ticket` is not 0, and in use once. */
MUST_USE const char *engine_verify(struct engine *engine, const struct engine_verify *ask,
                                   uint64_t ticket);

/* For `status`. */
struct engine_shard {
        char endpoint[TOPOLOGY_ENDPOINT_TEXT];
        bool up;
        bool importing; /* slots are on their way to it */
        unsigned slots;
        uint64_t position; /* of our own stream, when the cluster came up */
};

struct engine_status {
        bool redis_used;
        bool redis_up; /* with the module */
        bool redis_module_missing;
        region_id redis_origin; /* 0: not known */
        uint64_t redis_incarnation;
        char redis_text[ENGINE_TEXT_SIZE]; /* the last refusal; empty: none */
        unsigned redis_shard_count;        /* of a Redis Cluster, else 0 */
        struct engine_shard redis_shards[ENGINE_SHARDS_MAX];
};

void engine_status(const struct engine *engine, struct engine_status *ret);

/* Stops. `closed` is called when the loop holds nothing of it (at once, if it was never started);
 * it may call engine_free. No event comes after this call. */
void engine_close(struct engine *engine, void (*closed)(void *user), void *user);

/* After `closed`, or without engine_start. NULL is fine. */
void engine_free(struct engine *engine);

#endif
