/* daemon.h - the parts of a running meridiand, put together.
 *
 *                      api  engine  link        view
 *                        \    |    /  ^           ^
 *                  events \   |   /   |  effects  |
 *                          v  v  v    |           |
 *                         io_driver --+-----------+
 *                             |  ^
 *                             v  |
 *                            node
 *
 * wire.c carries events and effects between the parts; roads.c tells the doors to PostgreSQL who
 * is what; daemon.c starts and stops the parts; system.c is what concerns the process alone. All
 * run on one loop, in one thread. */
#ifndef MERIDIAN_MERIDIAND_DAEMON_H
#define MERIDIAN_MERIDIAND_DAEMON_H

#include "api/api.h"
#include "base/heap.h"
#include "config/config.h"
#include "engine/engine.h"
#include "geo/geo.h"
#include "io/io.h"
#include "link/link.h"
#include "node/node.h"
#include "road/road.h"
#include "topology/topology.h"
#include "view/view.h"
#include "warden/warden.h"

struct daemon {
        struct config config;
        char redis_password[ENGINE_PASSWORD_SIZE]; /* empty: none */
        struct ssl_ctx_st *redis_tls;              /* NULL: none */
        struct heap heap;
        uv_loop_t loop;
        bool loop_open;
        int lock_fd; /* of the data folder; -1: not held */
        uint64_t incarnation;
        uint8_t *document; /* the topology file's text */
        size_t document_len;
        struct topology topology; /* of the file, for checks */
        struct node *node;
        struct io_driver *driver;
        struct link *link;
        struct view_writer *view;
        struct api *api;
        struct engine *engine;
        struct road *road;
        struct geo *geo;
        struct warden *warden; /* NULL: no PostgreSQL server is looked after */
        uv_timer_t second;
        uv_signal_t signals[2];
        unsigned handles; /* of the three above */
        bool opened;      /* the opening is over, well or not */
        bool stopping;
        bool closing; /* the parts are being closed */
        bool driver_closed;
        bool link_closed;
        bool engine_started;
        bool engine_closed;
        bool road_closed;
        bool warden_closed;
        int exit_status;
        bool publish_due;
        uint64_t backup_ticket;  /* who waits for a backup */
        bool published_failed;   /* said so already */
        struct buffer board;     /* flags, configuration, services, as published, */
        uint64_t board_revision; /* as of then */
        uint64_t board_wait_us;  /* an older state is taken after that; 0: no majority */
        char board_said[256];    /* what was wrong with them */
        const struct topology *topology_set; /* the one that the link was told */
        uint64_t topology_epoch;
        struct node_status status; /* rendered on demand */
        struct node_status_postgres postgres;
        struct view_region_now regions[TOPOLOGY_REGIONS_MAX];
        struct link_peer peers[TOPOLOGY_NODES_MAX];
        char peer_hosts[TOPOLOGY_NODES_MAX][TOPOLOGY_ADDRESS_TEXT];
        struct node_leaving leaving[8]; /* nodes that are in the topology no more */
        uint64_t peers_version;
};

/* Reads the topology file and checks that it, the configuration and the certificate belong
 * together. Says what is wrong on stderr. `document` is freed with heap_free. */
bool daemon_check(struct daemon *daemon, int64_t *ret_days_left);

/* Prints what the keeper would make of PostgreSQL's data here. Whether nothing is in the way. */
MUST_USE bool daemon_plan(const struct config *config);

/* Runs until a signal, or a failure, ends it. Returns the exit status. */
int daemon_run(struct daemon *daemon);

/* Begins an orderly stop; later calls do nothing. */
void daemon_stop(struct daemon *daemon, int exit_status);

/* ---- wire.c ---- */

struct io_ports wire_ports(struct daemon *daemon);
struct link_callbacks wire_link(struct daemon *daemon);
struct api_host wire_api(struct daemon *daemon);

/* The two callbacks of engine_config. */
void wire_engine_event(void *user, const struct world_event *event);
void wire_engine_note(void *user, const char *name, const char *text);
void wire_engine_conflict(void *user, const char *endpoint, uint64_t missed, struct bytes text);
void wire_engine_shown(void *user, unsigned shard, unsigned count, const char *endpoint,
                       struct bytes text);
void wire_engine_verified(void *user, uint64_t ticket, const struct engine_verified *verified);

/* The callbacks of warden_config. */
void wire_warden_event(void *user, const struct world_event *event);
void wire_warden_note(void *user, const char *name, const char *text);
void wire_warden_upstream(void *user, node_id node);

/* The nodes of a topology that this one links to, into daemon->peers; returns their count. */
size_t wire_peers(struct daemon *daemon, const struct topology *topology);

/* Renders the view anew. */
void wire_publish(struct daemon *daemon);

/* ---- roads.c ---- */

/* Opens the doors to PostgreSQL. */
bool roads_open(struct daemon *daemon);
void roads_pass_open(struct daemon *daemon);
void roads_sessions(void *context, struct buffer *out);

/* Tells them what the node knows now. */
void roads_look(struct daemon *daemon);

/* From another node's roads. */
void roads_message(struct daemon *daemon, node_id peer, struct bytes data);

/* As api_host.metrics. */
void roads_metrics(void *context, struct buffer *out);

/* ---- secret.c ---- */

/* The first line of a file that only its owner may read, NUL-terminated. False, said in the log. */
bool secret_read(const char *path, char *ret, size_t size);

/* ---- system.c ---- */

/* As many descriptors as the system allows, at most 65,536. */
void system_descriptors_raise(void);

/* Signals that must not end the process: a broken connection, a file at its limit. */
void system_signals_ignore(void);

/* Tells systemd (if it started us) a state such as "READY=1". */
void system_notify(const char *state);

/* A number from the system's generator. */
uint64_t system_seed(void);

#endif
