/* link_priv.h - the parts of a link.
 *
 *   peers.c    the other nodes: who they are, who may connect, when to dial again
 *   link.c     the mesh: listening, dialling, timers, the public calls
 *   conn.c     one connection: TCP and TLS, what is read and written
 *   session.c  HTTP/2 on it: a stream for each class, the order of what is sent, PING
 *   frame.c    messages in a stream of bytes, and the queue of those to send
 *   pipe.c     the wide area that the lab pretends: delay and loss, in order
 *
 * Nothing is freed or told inside a callback of nghttp2 or OpenSSL: a connection that must end is
 * only marked (conn_break); who came from the loop ends it (conn_settle). */
#ifndef MERIDIAN_LINK_LINK_PRIV_H
#define MERIDIAN_LINK_LINK_PRIV_H

#include "base/buffer.h"
#include "base/rng.h"
#include "link/link.h"

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

/* What is taken from HTTP/2 at once, and so at most waits before the socket. */
#define LINK_PULL_BYTES    ((size_t)64 << 10)
#define LINK_FRAME_BYTES   ((size_t)16 << 10)
#define LINK_FRAME_HEAD    9
/* Strangers that may be in their handshake at the same time. */
#define LINK_STRANGERS_MAX 64
#define LINK_PINGS         32 /* that may be on the way; a power of two */
#define LINK_WHY_MAX       160
#define LINK_WHO_MAX       128
#define LINK_REFUSED_MAX   10 /* told in a second */

/* ---- frame.c ---- */

extern const size_t link_message_max[WORLD_CLASS_COUNT];
extern const size_t link_queue_max[WORLD_CLASS_COUNT];

/* Cuts a stream of bytes into messages: varint length, then as many bytes. */
struct assembler {
        struct buffer body;
        size_t body_max;    /* the longest message allowed */
        uint64_t body_len;  /* of the message under way, when head_done */
        unsigned head_bits; /* of the length read so far */
        bool head_done;
        bool delivered; /* the message has been given out: the next call begins anew */
};

void assembler_init(struct assembler *assembler, struct heap *heap, size_t body_max);
void assembler_fini(struct assembler *assembler);

/* Takes some bytes from the front of `data` (moving it on) until a message is whole.
 * Returns true with the message, borrowed until the next call; false when more bytes are
 * needed or on an error. */
MUST_USE bool assembler_next(struct assembler *assembler, struct bytes *data,
                             struct bytes *ret_message, enum err *ret_err);

struct queue_node;

/* Messages to send, framed, oldest first. */
struct queue {
        struct heap *heap;
        struct queue_node *first;
        struct queue_node *last;
        size_t bytes;
};

void queue_init(struct queue *queue, struct heap *heap);
void queue_clear(struct queue *queue);
MUST_USE enum err queue_push(struct queue *queue, struct bytes message);

/* Moves up to `size` bytes out. */
size_t queue_pull(struct queue *queue, uint8_t *buffer, size_t size);

/* ---- pipe.c ---- */

struct pipe_chunk;

/* Bytes on their delayed way, in order. */
struct pipe {
        struct heap *heap;
        struct pipe_chunk *first;
        struct pipe_chunk *last;
        size_t bytes;
        uint64_t due_us_last; /* of the last chunk ever put in */
};

void pipe_init(struct pipe *pipe, struct heap *heap);
void pipe_clear(struct pipe *pipe);

/* How much later than plain a run of `len` bytes arrives. */
uint64_t pipe_delay_us(const struct link_impairment *impairment, struct rng *rng, size_t len,
                       uint64_t rtt_us);

/* Puts bytes on the way; they come out at due_us, and never before what was put in earlier. */
MUST_USE enum err pipe_put(struct pipe *pipe, struct bytes data, uint64_t due_us);

/* Moves what is due to `out`. */
void pipe_take(struct pipe *pipe, uint64_t now_us, struct buffer *out);

/* When the next bytes come out; UINT64_MAX when there are none. */
uint64_t pipe_due_us(const struct pipe *pipe);

/* ---- session.c ---- */

struct conn;

struct stream {
        struct conn *conn;
        enum world_class class;
        int32_t id;    /* 0: not open */
        bool open;     /* the other side has agreed to it */
        bool deferred; /* nghttp2 does not ask for its bytes until resumed */
        struct assembler in;
        struct queue out;
        bool wanted; /* the user waits for room */
};

struct session {
        nghttp2_session *h2;
        struct stream streams[WORLD_CLASS_COUNT];
        uint64_t ping_next; /* number of the next PING */
        uint64_t ping_sent_us[LINK_PINGS];
};

/* For a connection whose peer is known. */
MUST_USE enum err session_open(struct conn *conn);
void session_fini(struct session *session);

/* What came in; marks the connection broken when it must end. */
void session_feed(struct conn *conn, struct bytes data);

/* Fills a buffer of LINK_PULL_BYTES + a frame with what is to be sent next; 0: nothing now. */
size_t session_pull(struct conn *conn, uint8_t *buffer);

void session_ping(struct conn *conn, uint64_t now_us);

/* ---- conn.c ---- */

enum conn_state {
        CONN_CONNECTING,
        CONN_HANDSHAKE, /* TLS */
        CONN_OPENING,   /* the peer is known; streams are being opened */
        CONN_UP,
        CONN_CLOSED, /* waits for the loop to let go */
};

struct conn {
        struct link *link;
        struct conn *next;
        struct peer *peer; /* NULL: not known yet, or gone */
        node_id id;        /* of the peer, 0: not known */
        enum conn_state state;
        bool dialed;
        bool broken; /* must end, for `why` */
        bool dirty;  /* something waits to be sent */
        bool writing;
        char who[LINK_WHO_MAX]; /* where it comes from or goes to */
        char why[LINK_WHY_MAX];
        uv_tcp_t tcp;
        uv_connect_t connect;
        uv_write_t write;
        SSL *ssl;
        struct session session;
        struct buffer out;         /* encrypted, for the next write */
        struct buffer out_writing; /* encrypted, being written */
        struct pipe pipe;
        uint64_t started_us;
        uint64_t answered_us; /* when a PING was answered last */
        uint64_t ping_due_us;
        uint64_t key_bytes; /* sent under the present key */
};

/* A connection that dials `peer`, or one that is accepted from the listener. NULL: no memory or no
 * descriptor; then nothing is left. */
struct conn *conn_dial(struct link *link, struct peer *peer);
struct conn *conn_accept(struct link *link, uv_stream_t *listener);

/* Marks it to be ended. The first reason stays. */
void conn_break(struct conn *conn, const char *format, ...) PRINTF_LIKE(2, 3);

/* Ends it when it is marked; it is freed by the loop later. Not from inside its own callbacks. */
void conn_settle(struct conn *conn);

/* Sends what may be sent now. */
void conn_pump(struct conn *conn);

/* Puts the delayed bytes that are due on their way. */
void conn_release(struct conn *conn, uint64_t now_us);

/* All streams stand. */
void conn_opened(struct conn *conn);

/* ---- link.c ---- */

struct peer {
        struct peer *next;
        node_id id;
        bool gone; /* left the topology; freed when its connection has ended */
        char region[PKI_NAME_MAX + 1];
        struct sockaddr_storage address;
        struct conn *conn;
        struct link_impairment impairment;
        uint64_t dial_due_us;
        uint32_t backoff_ms;
        struct link_status status;
};

struct link {
        uv_loop_t *loop;
        struct heap *heap;
        struct link_callbacks callbacks;
        struct pki_identity self;
        struct sockaddr_storage address;
        uint16_t port;
        SSL_CTX *tls;
        struct rng rng;
        bool allow_impairments;
        bool closing;
        uint64_t ping_us;
        uint64_t dead_us;
        uint64_t handshake_us;
        uint32_t reconnect_ms_min;
        uint32_t reconnect_ms_max;
        uv_tcp_t listener;
        uv_timer_t timer;     /* redial, PING, death, handshakes */
        uv_prepare_t prepare; /* the end of a turn */
        uv_poll_t release;    /* on release_fd: the next delayed bytes are due */
        int release_fd;   /* a timerfd, since a wide area needs better than milliseconds; or -1 */
        unsigned handles; /* of the loop that are not closed yet */
        struct peer *peers;
        struct conn *conns;
        unsigned strangers;
        uint64_t ticked_us; /* the last run of the timer */
        uint64_t refused_second;
        unsigned refused_count;
        void (*closed)(void *user);
        void *closed_user;
        uint8_t in_net[LINK_PULL_BYTES];
        uint8_t in_plain[LINK_FRAME_BYTES + 1024];
        uint8_t out_plain[LINK_PULL_BYTES + LINK_FRAME_BYTES + LINK_FRAME_HEAD];
};

uint64_t link_now_us(void);

struct peer *link_peer_find(struct link *link, node_id id);

/* The peer that an accepted certificate stands for; NULL with a reason in `why`. */
struct peer *link_admit(struct link *link, const struct pki_identity *identity,
                        char why[LINK_WHY_MAX]);

/* A numeric address of either family; ERR_INVALID where it is none. */
MUST_USE enum err link_address_parse(const char *host, uint16_t port, struct sockaddr_storage *ret);

/* It is for this node to dial the peer, and there is no connection. */
bool link_peer_dials(const struct link *link, const struct peer *peer);

/* An attempt failed: the next comes after between a half and the whole of a pause that doubles. */
void link_peer_backoff(struct link *link, struct peer *peer);

/* Frees those that have left the topology and have no connection. */
void link_peers_sweep(struct link *link);

/* Has the timer look at everything at the next turn of the loop. */
void link_tick_soon(struct link *link);

/* A connection is known to be `peer`'s: an older one is ended. */
void link_conn_known(struct conn *conn, struct peer *peer);

/* A connection stands; one has ended (it is still in the list); one is closed and may be freed. */
void link_conn_up(struct conn *conn);
void link_conn_ended(struct conn *conn, bool was_up);
void link_conn_closed(struct conn *conn);

/* The release timer must ring at the earliest of all pipes. */
void link_release_rearm(struct link *link);

#endif
