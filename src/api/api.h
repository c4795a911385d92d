/* api.h - the doors of a node for people and programs: locks over RESP (port 7402) and status and
 * administration over HTTP (port 7400). Runs on the caller's libuv loop; every callback comes from
 * that loop's thread.
 *
 * A request that the node must decide (a lock, a drain, a new topology) is handed out by
 * `api_host.request`, encoded by council/request.h, and stays pending until api_reply. Replies may
 * come in any order, also from within `request`; each client still sees its answers in the order of
 * its commands. A client that leaves with something pending is told by `request_gone`, after which
 * a reply to that request is ignored.
 *
 * What can be alive at once: API_CLIENTS_MAX lock clients, each with at most API_PENDING_MAX
 * commands not yet answered, whose answers may have API_EXPECTED_MAX bytes, and API_OUTPUT_MAX
 * bytes not yet read by it; a client beyond its bounds is not read from until it catches up. Where
 * all of them together take API_HEAP_LARGE, what may have a large answer is refused; at
 * API_HEAP_MAX whoever wants more is closed. */
#ifndef MERIDIAN_API_API_H
#define MERIDIAN_API_API_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"
#include "world/world.h"

#include <uv.h>

#define API_CLIENTS_MAX  16384
#define API_PENDING_MAX  1024
#define API_OUTPUT_MAX   ((size_t)1024 * 1024)

#define API_EXPECTED_MAX ((size_t)8 * 1024 * 1024)
#define API_HEAP_LARGE   ((size_t)1024 * 1024 * 1024)
#define API_HEAP_MAX     (2 * API_HEAP_LARGE)

struct api;
struct geo;
struct node_status;
struct topology;

/* What to do to the traffic that this node sends to the nodes of one region: the lab's wide area.
 * All zero is a plain link. */
struct api_impairment {
        uint64_t delay_us;       /* one way, <= 60 s */
        uint64_t slow_us;        /* more of the same: the `slow` on top of the wide area */
        uint32_t loss_per_mille; /* 0 to 1000 */
        bool cut;                /* nothing passes */
};

/* A question about digests of the region's Redis: as struct engine_verify (engine/engine.h). */
struct api_verify {
        unsigned shard;
        bool positions;
        uint64_t walk;
        struct bytes prefix;
        struct bytes map;
};

/* Its answer: as struct engine_verified. */
struct api_verified {
        const char *why;
        unsigned shards;
        uint64_t walk;
        uint64_t keys;
        struct bytes payload;
};

/* What the api asks of its owner. `context` is handed back in every call. */
struct api_host {
        void *context;

        /* A request for the node: becomes WORLD_REQUEST. `data` is borrowed for the call. */
        void (*request)(void *context, uint64_t request, struct bytes data);

        /* Its client went away: becomes WORLD_REQUEST_GONE. */
        void (*request_gone)(void *context, uint64_t request);

        /* What the node knows now (node/status.h); borrowed until the next turn of the loop. */
        const struct node_status *(*status)(void *context);

        /* The topology in force (topology/topology.h), borrowed likewise. */
        const struct topology *(*topology)(void *context);

        /* Impairs the links to `region`. ERR_NOT_FOUND for an unknown one. NULL where there is no
         * link to impair. */
        enum err (*impair)(void *context, struct bytes region,
                           const struct api_impairment *impairment);

        /* Asks the region's Redis; the answer comes by api_verified. NULL, or why it does not. The
         * entry is NULL where there is no Redis to ask. */
        const char *(*verify)(void *context, uint64_t ticket, const struct api_verify *ask);

        /* Begins a backup of this node's groups (council/backup.h); it comes by api_backed_up. May
         * be NULL. ERR_BUSY: one is being made. */
        enum err (*backup)(void *context, uint64_t ticket);

        /* Appends more metrics in Prometheus' text format. May be NULL. */
        void (*metrics)(void *context, struct buffer *out);

        /* Appends the connections by PostgreSQL's doors, as JSON. May be NULL. */
        void (*doors)(void *context, struct buffer *out);
};

struct api_config {
        const char *admin_host; /* an IP address, borrowed for api_new */
        uint16_t admin_port;    /* 0: any free one (see api_admin_port) */
        const char *locks_host;
        uint16_t locks_port;
        bool lab;        /* allow POST /lab/link */
        struct geo *geo; /* where clients are, for /why-route; NULL: unknown. Kept */
        struct api_host host;
};

/* Listens on both doors. On failure nothing is left open and `why` (a string of at least
 * `why_size` bytes, may be NULL) says what failed, where, and what to do. The loop must run, and
 * must outlive api_free. */
MUST_USE enum err api_new(uv_loop_t *loop, const struct api_config *config, struct api **ret_api,
                          char *why, size_t why_size);

/* The answer to a request: `data` as encoded by council/request.h, borrowed for the call. Unknown
 * numbers (a client that left) are ignored. */
void api_reply(struct api *api, uint64_t request, struct bytes data);

/* Adds an event (WORLD_NOTE) to those that GET /events tells; the last API_EVENTS_MAX are kept. */
#define API_EVENTS_MAX 1024
void api_note(struct api *api, uint64_t wall_us, const char *name, struct bytes text);

/* Adds a conflict (JSON) of one of the region's servers to those that GET /conflicts tells: the
 * last API_CONFLICTS_MAX; `missed` before it are only counted. */
#define API_CONFLICTS_MAX 1024
void api_conflict(struct api *api, const char *endpoint, uint64_t missed, struct bytes text);

/* How replication goes, as the `shard`-th of the region's `count` servers tells it (JSON): shown by
 * GET /status and /metrics for a few seconds. */
#define API_SHARDS_MAX 64
void api_shown(struct api *api, unsigned shard, unsigned count, const char *endpoint,
               struct bytes text);

/* The answer to a host's `verify`: borrowed for the call. Unknown tickets are ignored. */
void api_verified(struct api *api, uint64_t ticket, const struct api_verified *verified);

/* The answer to a host's `backup`: takes what `backup` holds. Unknown tickets are ignored. */
void api_backed_up(struct api *api, uint64_t ticket, enum err err, struct buffer *backup);

/* The ports that were bound. */
uint16_t api_admin_port(const struct api *api);
uint16_t api_locks_port(const struct api *api);

/* Closes both doors and all clients; `closed` is called when the loop holds nothing of it any more,
 * and the api is freed by then. Pending requests get no request_gone. */
void api_close(struct api *api, void (*closed)(void *context), void *context);

#endif
