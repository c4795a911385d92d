/* road.h - the roads to PostgreSQL: doors on this node that lead to a server, here or at another
 * node, through the link. Runs on the caller's libuv loop and calls back from that loop's thread.
 *
 *   write    the server that takes writes, wherever it is
 *   read     the nearest server that may be read: as road_roles orders them
 *   follow   the server that road_follow named last: for this node's own standby, base backups and
 *            rewinds
 *
 * Bytes pass through as they are, so TLS and every way to log in work; only a client's first packet
 * is looked at. Nothing is opened behind a door before that packet came. A server on this machine
 * with the extension takes its clients over once they have logged in (pass.h): their bytes then
 * pass by nobody, and the road keeps what it needs to cut them.
 *
 * Guaranteed:
 *  - A connection by the write door reaches a server only under the epoch that this node believes
 *    in: the node of that server compares it with its own lease, and refuses otherwise. It is cut,
 *    at both ends, when that server stops being the writer under that epoch.
 *  - While there is no server for it, a new connection waits, at most wait_ms, and then gets an
 *    error in the protocol (57P03), as it does where too many are open (53300).
 *  - A request to cancel goes to every server that the door has led to and that has connections.
 *  - A reader that is slow slows down its own connection only.
 *  - Nothing passes between two nodes of which either holds the other for barred.
 *
 * Memory: each connection holds at most ROAD_WINDOW bytes in each direction and a first packet of
 * ROAD_FIRST_MAX; those of the follow door ROAD_WINDOW_FOLLOW. */
#ifndef MERIDIAN_ROAD_ROAD_H
#define MERIDIAN_ROAD_ROAD_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "world/world.h"

#include <uv.h>

enum road_door {
        ROAD_WRITE,
        ROAD_READ,
        ROAD_FOLLOW,
        ROAD_DOOR_COUNT,
};

enum {
        ROAD_SERVERS_MAX = 32,
        ROAD_WINDOW = 512 << 10,
        ROAD_WINDOW_FOLLOW = 8 << 20,
        ROAD_FIRST_MAX = 10000, /* PostgreSQL's own limit of a startup packet */
        ROAD_MESSAGE_MAX = 64 << 10,
};

/* Who is what, as this node knows it now. */
struct road_roles {
        node_id writer;  /* takes writes, as it told lately; 0: none, or not known */
        uint64_t epoch;  /* token of the newest lease known */
        bool own_writes; /* this node's server takes writes under a lease with that token */
        bool own_stays;  /* or it holds them back for a while: old connections stay */
        bool own_reads;  /* this node's server may be read: it runs, and is not fenced */
        uint32_t reader_count;
        node_id readers[ROAD_SERVERS_MAX]; /* that may be read now, the best first */
        uint64_t bars; /* another number where road_callbacks.barred may answer otherwise now */
};

struct road_callbacks {
        void *user;

        /* Sends a message to another node's road, in order. On an error nothing was sent, and the
         * connection to that node is to be given up. */
        enum err (*send)(void *user, node_id peer, struct bytes data);

        /* How many bytes may be sent now; 0: none, road_drained will tell; or there is no
         * connection. */
        size_t (*room)(void *user, node_id peer);

        /* Something for the log and for people. */
        void (*note)(void *user, const char *name, const char *text);

        /* Nothing is to pass between this node and that one, in neither direction; NULL: none is
         * barred. What passes is cut when the roles tell of it. */
        bool (*barred)(void *user, node_id peer);
};

/* An address to listen on or to connect to. host "" : none. */
struct road_address {
        const char *host; /* an IP address */
        uint16_t port;
};

struct road_config {
        struct heap *heap; /* kept */
        uv_loop_t *loop;
        node_id self;
        struct road_address server;                 /* this node's own PostgreSQL */
        struct road_address doors[ROAD_DOOR_COUNT]; /* not opened where there is no host */
        uint32_t connections_max;                   /* of each door, and of tunnels from outside;
                                                     * 0: 500 */
        uint32_t wait_ms;                           /* 0: 10,000 */
};

struct road_counters {
        uint64_t opened[ROAD_DOOR_COUNT];  /* connections that reached a server */
        uint64_t refused[ROAD_DOOR_COUNT]; /* that got an error instead */
        uint64_t cut[ROAD_DOOR_COUNT];     /* ended because a role changed, or a link broke */
        uint32_t open[ROAD_DOOR_COUNT];    /* now, those that wait included */
        uint32_t waiting[ROAD_DOOR_COUNT]; /* for a server, now */
        uint32_t passed[ROAD_DOOR_COUNT];  /* taken over by the own server, now */
        uint32_t tunnels_in;               /* from other nodes, now */
        uint64_t bytes;                    /* both directions, all doors */
};

/* One connection, as it is now. */
struct road_session {
        enum road_door door;
        const char *state; /* static: "waiting", "open", "passed" (taken over by its server), ... */
        node_id peer;      /* the node whose door it came by; 0: by this one's */
        char client[46];   /* address; empty: not known, as it came from another node */
        uint16_t client_port;
        node_id server; /* the node of the server that it leads to; 0: none yet */
        uint64_t epoch; /* under which it was let in; of the write door */
        uint64_t age_us;
        uint64_t from_client; /* bytes */
        uint64_t to_client;
};

struct road;

/* Opens the doors. ERR_EXISTS (a port is in use), ERR_INVALID, ERR_IO, ERR_NOMEM: `why` says what,
 * in a sentence. */
MUST_USE enum err road_new(const struct road_config *config, const struct road_callbacks *callbacks,
                           struct road **ret_road, char *why, size_t why_size);

/* Opens the socket where this node's server asks for the clients that came to it (pass.h): from
 * then on their bytes pass by nobody. Only processes of `uid` and the own user are heard. A socket
 * that is there already is replaced. ERR_INVALID: the path is too long; ERR_IO. Without it all
 * works. */
MUST_USE enum err road_pass_open(struct road *road, const char *path, uid_t uid);

/* The roles changed (or not: cheap then). Connections that this makes wrong are cut at once. */
void road_roles_set(struct road *road, const struct road_roles *roles);

/* Where the follow door leads from now on; 0: nowhere. Connections to another are cut. */
void road_follow(struct road *road, node_id node);
node_id road_following(const struct road *road);

/* What the link tells. A malformed message: ERR_MALFORMED, and the peer is to be dropped. */
void road_peer_up(struct road *road, node_id peer);
void road_peer_down(struct road *road, node_id peer);
MUST_USE enum err road_message(struct road *road, node_id peer, struct bytes data);
void road_drained(struct road *road, node_id peer);

struct road_counters road_counters(const struct road *road);

/* Calls `each` for all connections, those from other nodes included; borrowed for the call. */
void road_sessions(const struct road *road,
                   void (*each)(void *user, const struct road_session *session), void *user);

/* Closes everything; `closed` is called when the loop holds nothing of it; then road_free. */
void road_close(struct road *road, void (*closed)(void *user), void *user);
void road_free(struct road *road);

#endif
