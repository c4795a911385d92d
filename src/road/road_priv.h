/* road_priv.h - the parts of a road.
 *
 *   road.c     the doors, the roles, the clock, the public calls
 *   way.c      one connection: from a socket to a socket or a tunnel, and how it ends
 *   guest.c    a client's way until it leads somewhere: first packet, choice, waiting, refusal
 *   pass.c     a client that its server takes over (pass.h)
 *   tunnel.c   ways through the link: frames, credit, and the far end
 *   plug.c     a socket with what waits to be written to it
 *   session.c  the list of connections, for people
 *   startup.c  what PostgreSQL's clients say first, and how they are refused
 *
 *   near, local server     client -- plugs[0] ===== plugs[1] -- server
 *   near, server elsewhere client -- plugs[0] ===== tunnel
 *   far                    server -- plugs[0] ===== tunnel
 *
 * Nothing frees a way but the close of its last handle. A way that ends is WAY_CLOSED at once, and
 * whatever comes for it later is ignored. */
#ifndef MERIDIAN_ROAD_ROAD_PRIV_H
#define MERIDIAN_ROAD_ROAD_PRIV_H

#include "base/buffer.h"
#include "base/check.h"
#include "base/cursor.h"
#include "road/road.h"

enum {
        READ_BYTES = 32 << 10,
        FRAME_HEAD = 5,        /* u8 kind, u32 the receiver's id */
        TICK_MS = 50,          /* how late a limit of time is noticed */
        RETRY_US = 50000,      /* after a server could not be reached */
        OPENING_US = 3000000,  /* for a server, or another node, to answer */
        FIRST_US = 60000000,   /* for a client to say its first word, */
        REFUSING_US = 5000000, /* and to take a refusal */
        REFUSERS_MAX = 64,     /* beyond a door's limit, to be told so */
        CANCEL_BYTES = 16,
        LISTEN_BACKLOG = 1024,
};
_Static_assert(READ_BYTES + FRAME_HEAD <= ROAD_MESSAGE_MAX, "a read fits a message");
_Static_assert(ROAD_FIRST_MAX + 64 <= ROAD_MESSAGE_MAX, "a first packet fits a message");

/* ---- startup.c ---- */

enum startup {
        STARTUP_MORE,    /* too short to tell */
        STARTUP_SESSION, /* a startup packet of protocol 3, maybe only its head so far */
        STARTUP_ENCRYPT, /* SSLRequest, GSSENCRequest */
        STARTUP_TLS,     /* TLS without asking */
        STARTUP_CANCEL,  /* whole */
        STARTUP_BAD,
};

enum startup startup_look(struct bytes data);

enum refusal {
        REFUSAL_NO_SERVER,
        REFUSAL_TOO_MANY,
        REFUSAL_COUNT,
};

/* Appends the ErrorResponse. */
void startup_refuse(enum refusal refusal, enum road_door door, struct buffer *out);

/* ---- plug.c ---- */

struct way;

struct plug {
        uv_tcp_t tcp;
        uv_connect_t connect;
        uv_write_t write;
        uv_shutdown_t shutdown;
        struct way *way;
        struct buffer out;         /* to be written after */
        struct buffer out_writing; /* what is being written */
        bool made;                 /* the handle is the loop's */
        bool reading;
        bool writing;
        bool finishing; /* nothing more comes: close that direction when all is written */
        bool finished;
};

/* Errors of the system end the way. */
void plug_init(struct plug *plug, struct way *way);
MUST_USE enum err plug_make(struct plug *plug);
MUST_USE enum err plug_connect(struct plug *plug, const struct sockaddr *address);
void plug_tune(struct plug *plug);
void plug_read(struct plug *plug);
void plug_pause(struct plug *plug);
void plug_write(struct plug *plug, struct bytes data);
void plug_finish(struct plug *plug);
size_t plug_pending(const struct plug *plug);
void plug_close(struct plug *plug);

/* ---- way.c ---- */

enum way_state {
        WAY_FIRST,    /* near: the client's first packet is not there yet */
        WAY_WAITING,  /* near: for a server */
        WAY_OPENING,  /* a server has been asked */
        WAY_OPEN,     /* bytes pass */
        WAY_PASSED,   /* near: the own server has taken the client over */
        WAY_REFUSING, /* near: a client is told why not */
        WAY_CLOSED,
};

struct tunnel {
        node_id peer;   /* 0: there is none */
        uint32_t id;    /* our name for it; 0: none */
        uint32_t far;   /* the other end's; 0: not told yet */
        size_t window;  /* bytes that may be on the way, each direction */
        size_t credit;  /* what may be sent still */
        size_t taken;   /* what came and was not given back as credit */
        bool ended_in;  /* the other end sends nothing more, */
        bool ended_out; /* nor do we */
};

struct way {
        struct way *next, *before;
        struct road *road;
        enum road_door door;
        enum way_state state;
        bool near;    /* a client of ours; else a tunnel from another node */
        bool courier; /* carries a cancel, and has no other end */
        bool cancel;
        bool refuse_many;
        node_id target;
        uint64_t epoch;
        uint32_t tried; /* READ: so many readers, in this round */
        uint64_t begun_us;
        uint64_t until_us;      /* of the state */
        uint64_t wait_until_us; /* WAITING, OPENING: then it is refused */
        uint64_t retry_us;
        struct plug plugs[2];
        unsigned handles;
        struct tunnel tunnel;
        struct buffer first;
        struct asker *asker;    /* PASSED: the server's process, */
        uint64_t passed_before; /* and the bytes until then */
};

/* In the list of `road`; NULL: no memory. */
MUST_USE struct way *way_new(struct road *road, enum road_door door, bool near);

/* Ends it, at once: sockets are closed, the other end of a tunnel is told. */
void way_close(struct way *way);

/* Frees those that have ended and never had a handle: the loop would not tell. */
void way_reap(struct road *road);

/* The same as way_close, for a reason that is none of the client's. */
void way_cut(struct way *way);

/* Both ends stand: what was said first goes on, and all that follows. */
void way_open(struct way *way);

/* What plugs and tunnels tell. */
void way_came(struct way *way, struct plug *from, struct bytes data);
void way_ended(struct way *way, struct plug *from);
void way_broke(struct way *way, struct plug *from);
void way_connected(struct way *way, struct plug *plug, bool well);
void way_drained(struct way *way, struct plug *plug);
void way_handle_closed(struct way *way);

/* How many bytes may be read from a plug now. */
size_t way_room(struct way *way, const struct plug *from);

/* Goes on reading where there is room again. */
void way_resume(struct way *way);

/* Both directions are done: closes it. */
void way_look_done(struct way *way);

/* ---- guest.c ---- */

void guest_begin(struct way *way);
void guest_came(struct way *way, struct bytes data);

/* Looks for a server, and for the next one after a refusal. */
void guest_seek(struct way *way);
void guest_refused(struct way *way);
void guest_tick(struct way *way, uint64_t now_us);

/* ---- tunnel.c ---- */

MUST_USE bool tunnel_open(struct way *way, node_id peer);
void tunnel_opened(struct way *way); /* far: tells the near end */
void tunnel_refuse(struct way *way); /* far: could not be */
void tunnel_send(struct way *way, uint8_t *frame, size_t data_len);
void tunnel_end(struct way *way);
void tunnel_give_back(struct way *way);
void tunnel_close(struct way *way);
size_t tunnel_room(struct way *way);
void tunnel_cancel(struct road *road, node_id peer, enum road_door door, struct bytes packet);

/* A courier to this node's server. */
void courier_send(struct road *road, enum road_door door, struct bytes packet);

/* ---- pass.c ---- */

/* A server's process that asked for its client, or is about to. */
struct asker {
        struct asker *next, *before;
        struct road *road;
        struct way *way; /* whose client it has */
        uv_poll_t poll;
        int fd;
        bool closing;
};

/* Where servers ask. */
struct passes {
        uv_poll_t poll;
        int fd; /* -1: nowhere */
        uid_t uid;
        bool made;
        struct asker *askers;
        uint32_t count;
};

/* The client's socket is shut, and its server's process told so. */
void pass_end(struct way *way);

/* Bytes of a passed way since it was. */
uint64_t pass_bytes(const struct way *way);

void passes_close(struct road *road);

/* ---- road.c ---- */

struct door {
        uv_tcp_t tcp;
        struct road *road;
        enum road_door door;
        bool made;
};

struct road {
        struct heap *heap;
        uv_loop_t *loop;
        node_id self;
        struct road_callbacks callbacks;
        struct sockaddr_storage server;
        bool server_known;
        uint32_t connections_max;
        uint64_t wait_us;
        struct door doors[ROAD_DOOR_COUNT];
        struct passes passes;
        uv_timer_t timer;
        bool timer_made;
        unsigned handles; /* of doors and timer */
        struct road_roles roles;
        node_id follow;
        struct way *ways;
        struct way **slots; /* of tunnels, by the low half of their ids */
        uint32_t slot_count;
        uint32_t slot_last;
        uint32_t generation;
        struct road_counters counters;
        bool closing;
        void (*closed)(void *user);
        void *closed_user;
        uint8_t scratch[FRAME_HEAD + READ_BYTES]; /* what is being read, behind room for a head */
};

uint64_t road_now_us(const struct road *road);

/* A way's place in `slots`: its tunnel's id; false: too many, or no memory. */
MUST_USE bool road_slot_take(struct road *road, struct way *way);
void road_slot_free(struct road *road, struct way *way);

bool road_barred(const struct road *road, node_id peer);

/* There is a way: its limits of time are looked after. */
void road_timer_run(struct road *road);

/* A way, or a handle, is gone for good. */
void road_way_gone(struct road *road);

#endif
