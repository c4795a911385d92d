/* link.h - the mesh between nodes: one listening port, mutual TLS 1.3, HTTP/2, one connection for
 * each pair of nodes. Runs on the caller's libuv loop and calls back from that loop's thread.
 *
 * Who dials: the node with the lower id. A node that is called by a higher id, by itself, or by
 * anybody whose certificate does not say exactly a peer's cluster, region and id closes at once and
 * tells `refused`. A new connection of a peer replaces the older one.
 *
 * Guaranteed, while a connection stands (between `up` and `down`):
 *  - messages of one class to one peer arrive whole, once and in order;
 *  - a message of a higher class passes all messages of lower classes that are not yet handed to
 * the socket, and never more than about LINK_UNSENT_BYTES lie between the two;
 *  - after `down` nothing of that connection arrives any more.
 *
 * Memory that can be alive for each peer: the queues (LINK_QUEUE_*), one message in assembly for
 * each class (LINK_MESSAGE_*), what nghttp2 and OpenSSL hold (under 200 KiB), and with an
 * impairment what is on the delayed way (at most LINK_DELAYED_BYTES). */
#ifndef MERIDIAN_LINK_LINK_H
#define MERIDIAN_LINK_LINK_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "pki/pki.h"
#include "world/world.h"

#include <uv.h>

/* The longest message of each class, in bytes. A longer one is refused by link_send, and one that
 * arrives is a reason to close. */
#define LINK_MESSAGE_CONTROL ((size_t)64 << 20) /* a snapshot is one message */
#define LINK_MESSAGE_DATA    ((size_t)16 << 20)
#define LINK_MESSAGE_TUNNEL  ((size_t)128 << 10)
#define LINK_MESSAGE_BULK    ((size_t)16 << 20)

/* The most that waits in a queue; a message that does not fit is refused with ERR_LIMIT. */
#define LINK_QUEUE_CONTROL   ((size_t)160 << 20)
#define LINK_QUEUE_DATA      ((size_t)64 << 20)
#define LINK_QUEUE_TUNNEL    ((size_t)2 << 20)
#define LINK_QUEUE_BULK      ((size_t)32 << 20)

/* What may lie in the socket before the network takes it, and what an impaired way may hold. */
#define LINK_UNSENT_BYTES    ((size_t)128 << 10)
#define LINK_DELAYED_BYTES   ((size_t)64 << 20)

struct link;

/* Another node. Strings are borrowed for the call that takes the struct. */
struct link_peer {
        node_id id;
        const char *region; /* as in its certificate */
        const char *host;   /* an IP address */
        uint16_t port;
};

/* What the lab does to the traffic sent to one peer. All zero is a plain link. */
struct link_impairment {
        uint64_t delay_us;       /* one way, added to every byte sent; <= 60 s */
        uint64_t slow_us;        /* the same again: `slow` on top of the wide area's delay */
        uint32_t loss_per_mille; /* a lost segment and all behind it come a retransmission later */
        bool cut;                /* drop the connection, dial nobody, accept nobody */
};

struct link_callbacks {
        void *user; /* handed back in every call */

        /* The connection stands in both directions. */
        void (*up)(void *user, node_id peer);

        /* It broke; `why` is a sentence. Always after `up`, once. */
        void (*down)(void *user, node_id peer, const char *why);

        /* A whole message. `data` is borrowed for the call. */
        void (*message)(void *user, node_id peer, enum world_class class, struct bytes data);

        /* A measured round trip (HTTP/2 PING), several times a second. */
        void (*rtt)(void *user, node_id peer, uint64_t rtt_us);

        /* A queue that had refused (or that link_room found below its half)
         * has emptied below a half. */
        void (*drained)(void *user, node_id peer, enum world_class class);

        /* Somebody was turned away: an address or a peer's name, and why. May be NULL. At most ten
         * a second are told. */
        void (*refused)(void *user, const char *who, const char *why);
};

/* Times of 0 take the default. */
struct link_config {
        struct heap *heap; /* kept */
        node_id self;
        const char *cluster; /* as in the certificates */
        const char *region;
        const char *host; /* an IP address to listen on, and to dial from */
        uint16_t port;    /* 0: any free one, see link_port */
        struct pki_files files;
        const struct link_peer *peers;
        size_t peer_count;
        uint64_t seed; /* for jitter and for loss */
        bool allow_impairments;
        uint32_t ping_ms;          /* between two PINGs; 200 */
        uint32_t dead_ms;          /* without an answer for so long: dropped; 2000 */
        uint32_t handshake_ms;     /* from dial or accept to `up`; 5000 */
        uint32_t reconnect_ms_min; /* 50 */
        uint32_t reconnect_ms_max; /* 500 */
};

/* What is known of one peer's connection. */
struct link_status {
        node_id peer;
        bool up;
        uint64_t up_since_us; /* uv_hrtime / 1000, when up */
        bool rtt_known;       /* for this connection */
        uint64_t rtt_us;      /* the last */
        uint64_t rtt_us_min;  /* the least of this connection */
        uint64_t connections; /* how often it came up */
        uint64_t sent_bytes[WORLD_CLASS_COUNT];
        uint64_t received_bytes[WORLD_CLASS_COUNT];
        size_t queued_bytes[WORLD_CLASS_COUNT];
        char why[160]; /* why it is down, or broke the last time; a sentence or empty */
};

/* Listens, and begins to dial the peers of higher id. The strings and arrays of `config` are
 * borrowed for the call. ERR_EXISTS: the port is in use; ERR_INVALID, ERR_NOT_FOUND, ERR_REFUSED,
 * ERR_IO: as `error` says, which names the address or the file and what to do. */
MUST_USE enum err link_new(uv_loop_t *loop, const struct link_config *config,
                           const struct link_callbacks *callbacks, struct link **ret_link,
                           struct pki_error *error);

/* The port that it listens on. */
uint16_t link_port(const struct link *link);

/* Queues a copy of `data`. ERR_CLOSED: no connection; ERR_INVALID: unknown peer, or longer than the
 * class allows; ERR_LIMIT: the queue is full (`drained` will tell); ERR_NOMEM. On any error nothing
 * was queued. May be called from every callback. */
MUST_USE enum err link_send(struct link *link, node_id peer, enum world_class class,
                            struct bytes data);

/* How many bytes may be queued now; 0 when there is no connection. */
size_t link_room(struct link *link, node_id peer, enum world_class class);

/* Breaks the connection to a peer (it is dialled again); `down` is called
 * with `why` from the loop. */
void link_drop(struct link *link, node_id id, const char *why);

/* The topology changed: peers that are gone are dropped, new ones dialled, those with another
 * address or region are connected anew. */
MUST_USE enum err link_set_peers(struct link *link, const struct link_peer *peers, size_t count);

/* Impairs what is sent to a peer from now on. ERR_NOT_FOUND: no such peer; ERR_REFUSED: the
 * configuration does not allow it; ERR_INVALID: out of range. Stays over reconnects. */
MUST_USE enum err link_impair(struct link *link, node_id id,
                              const struct link_impairment *impairment);

/* ERR_NOT_FOUND for an unknown peer. */
MUST_USE enum err link_status_get(struct link *link, node_id id, struct link_status *ret_status);

/* Closes everything; no callback of link_callbacks comes any more. `closed` is called when the loop
 * holds nothing of it; call link_free then or later. */
void link_close(struct link *link, void (*closed)(void *user), void *user);

/* Only after `closed` (or NULL). */
void link_free(struct link *link);

#endif
