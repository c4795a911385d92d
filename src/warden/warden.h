/* warden.h - carries out on a real PostgreSQL 15 what the node decides (WORLD_POSTGRES_DO and GATE
 * of world/world.h), and tells what it sees (WORLD_POSTGRES_SEEN and DONE). It decides nothing.
 *
 * The server is a process of its own that outlives the daemon. It listens on `listen`, for the
 * node's own endpoints and for the other regions' tunnels; clients do not connect there. What the
 * warden owns lies in one folder, `home`:
 *
 *   data/          the cluster, unless `data` names another folder
 *   data.new/      a clone that is not whole yet
 *   rewinding      while it is there, the data is half rewound, and none
 *   gate           mapped by the server (warden/gate.h): until when it may take writes
 *   socket/        the server's Unix socket, for the warden alone
 *   server.log     what the server has said since it was started; server.log.1 the time before
 *   pgpass         how the replication role is let in elsewhere
 *   pg_hba.conf, pg_ident.conf
 *   kept-aside/    what only this server had before it was rewound or rebuilt, a folder each
 *
 * and two files in the cluster's folder: `meridian.conf`, included by its postgresql.conf, and
 * `meridian.epoch`, the epoch of a first timeline. The epoch of every later timeline stands as a
 * comment in the timeline's history file, where PostgreSQL itself takes it to every standby.
 *
 * One thread of the warden's own does what blocks (files, children, queries); the loop only writes
 * the gate and passes messages. A fence closes the gate at once, from the loop, then ends what is
 * under way. */
#ifndef MERIDIAN_WARDEN_WARDEN_H
#define MERIDIAN_WARDEN_WARDEN_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "topology/topology.h"
#include "world/world.h"

#include <sys/types.h>
#include <uv.h>

enum {
        WARDEN_PATH_SIZE = 1024,
        WARDEN_NAME_SIZE = 64,
        WARDEN_TEXT_SIZE = 512,
        WARDEN_PORT = 5434,        /* of every node's server, on the address of its link */
        WARDEN_PORT_TUNNEL = 5435, /* of this node: leads to the server that it follows */
};

struct warden_config {
        uv_loop_t *loop;   /* kept */
        struct heap *heap; /* kept; used by the loop only */
        node_id self;

        char bin[WARDEN_PATH_SIZE];      /* folder of initdb, postgres, pg_ctl, ... */
        char home[WARDEN_PATH_SIZE];     /* absolute */
        char data[WARDEN_PATH_SIZE];     /* the cluster; empty: home/data */
        char user[WARDEN_NAME_SIZE];     /* the server's, where the daemon is root; else empty */
        char password[WARDEN_PATH_SIZE]; /* file with the password of the role meridian_replication,
                                          * on one line, the same on all nodes */
        char library[WARDEN_PATH_SIZE];  /* the extension; empty: "meridian" in $libdir */
        char init[WARDEN_PATH_SIZE];     /* SQL for psql, run once in a new cluster; empty: none */
        char settings[WARDEN_PATH_SIZE]; /* more settings for the server (a file); empty: none */
        char archive[WARDEN_PATH_SIZE];  /* folder for finished WAL; empty: none */
        char adopt[WARDEN_PATH_SIZE];    /* folder of the configuration of a cluster that is to be
                                          * adopted and does not hold it itself; empty: none */
        bool hasty;    /* new data is not synced: for a lab, where a machine that dies
                                          * takes all of it anyway */
        unsigned keep; /* at most so many folders in kept-aside; 0: 3 */
        struct topology_endpoint listen; /* of the server */

        /* Where a standby connects: the local end of a tunnel that leads to the server that was
         * named last by `upstream`. family 0: the upstream's own address, without a tunnel. */
        struct topology_endpoint tunnel;

        void *user_data;
        /* WORLD_POSTGRES_SEEN and DONE; slices are borrowed for the call. */
        void (*event)(void *user_data, const struct world_event *event);
        /* "postgres-server", "postgres-kept-aside", ... and a sentence. May be NULL. */
        void (*note)(void *user_data, const char *name, const char *text);
        /* From now on this node's server follows, or copies, that node's. May be NULL. */
        void (*upstream)(void *user_data, node_id node);
};

struct warden;

/* Makes it; nothing runs before warden_start. ERR_NOMEM; ERR_INVALID with the reason in `why`: the
 * folders, the user or the programs are not as they have to be. */
MUST_USE enum err warden_new(const struct warden_config *config, struct warden **ret_warden,
                             char *why, size_t size);

/* Says, a line a call, what the warden would make of the data that is there, before it does: what
 * it adds, which settings no longer count, what is in the way. Looks at files only. Returns whether
 * nothing is in the way. */
MUST_USE bool warden_plan(const struct warden_config *config,
                          void (*line)(void *user, const char *text), void *user);

/* Where the server asks for the clients that came by a door (road/pass.h), and its user. Kept by
 * the warden. */
const char *warden_doors(const struct warden *warden, uid_t *ret_uid);

/* Begins to look. Events come from the loop only, never from inside of a call. ERR_NOMEM. */
MUST_USE enum err warden_start(struct warden *warden);

/* Takes the topology: names and addresses of the others, and of whom commits wait. */
void warden_topology(struct warden *warden, const struct topology *topology);

/* Carries out a WORLD_POSTGRES_DO or GATE; other kinds are our mistake. */
void warden_effect(struct warden *warden, const struct world_effect *effect);

/* Stops looking; what is under way is ended, the server runs on, and its gate stands for as long as
 * it was told last. `closed` is called when the loop holds nothing of it. */
void warden_close(struct warden *warden, void (*closed)(void *user), void *user);

/* After `closed`, or without warden_start. NULL is fine. */
void warden_free(struct warden *warden);

#endif
