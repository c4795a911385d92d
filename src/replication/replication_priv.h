/* replication_priv.h - what the files of this room share. */
#ifndef MERIDIAN_REPLICATION_REPLICATION_PRIV_H
#define MERIDIAN_REPLICATION_REPLICATION_PRIV_H

#include "base/buffer.h"
#include "replication/replication.h"

#define REPLICATION_POSITIONS_MAX 64
#define REPLICATION_FLIGHT_MAX    128 /* batches and parts not acknowledged, of one peer */
#define REPLICATION_QUEUE_MAX     256 /* batches and parts waiting for our Redis, of one peer */
#define REPLICATION_RETRY_US      250000
#define REPLICATION_WAIT_US       2000000
#define REPLICATION_HOLES_US      3000000
#define REPLICATION_HOLES_MAX_US  60000000
#define REPLICATION_RELAY_US      1000000 /* of silence: then the others are asked */
#define REPLICATION_BUSY_US       500000  /* between two BUSY */
#define REPLICATION_PASSED_MAX    8       /* steps of a PASSED */

enum replication_kind {
        REPLICATION_HELLO = 1, /* my Redis is up: subscribe */
        REPLICATION_BYE,       /* my Redis is down: what I said of my stream is old */
        REPLICATION_SUBSCRIBE, /* sub after whole [holes] */
        REPLICATION_BATCH,     /* sub after last age_us data */
        REPLICATION_BEAT,      /* sub last age_us: that was all up to `last` */
        REPLICATION_ACK,       /* sub last part */
        REPLICATION_STATE,     /* sub part end done [positions] data */
        REPLICATION_FETCH,     /* sub origin after: what have you of that stream? */
        REPLICATION_RELAYED,   /* sub origin after last live gap age_us [holes] data */
        REPLICATION_PIECE,     /* sub part after last data: of a longer message */
        REPLICATION_GOT,       /* sub part last: of that one, so far */
        REPLICATION_PLACE,     /* sub part resume: where a transfer goes on behind that part */
        REPLICATION_RESUME,    /* sub resume: where a transfer goes on, if that subscription makes
                                * one due; older builds drop these two, and begin at the start */
        REPLICATION_PASSED,    /* origin last holder part: the holder region has that stream up to
                                * there, as it told whom it asks for it; to the origin, by `part`
                                * steps so far; older builds drop it */
        REPLICATION_BUSY,      /* sub: the next part of the state is still being read; older builds
                                * drop it */
        REPLICATION_KIND_COUNT,
};

/* Clocks of an origin in (low, high) that a position claims and its owner has not. */
struct hole {
        region_id origin;
        bool mixed; /* some of it may be there all the same */
        uint64_t low, high;
};

/* Layout: u8 version, u8 kind, then varints in the order of the kind's line above. */
struct replication_message {
        enum replication_kind kind;
        uint64_t sub; /* chosen by the receiver of the stream */
        uint64_t after;
        uint64_t last;
        uint64_t age_us;  /* of `last` when it was sent, by the sender's own clock */
        uint64_t part;    /* of a state, from 1; ACK: merged so far; PIECE, GOT: the slot; PASSED */
        bool whole;       /* SUBSCRIBE: the whole state first */
        bool end;         /* STATE: the last part; `positions` hold */
        uint32_t done;    /* STATE: per mille of all parts, about */
        region_id origin; /* FETCH, RELAYED, PASSED */
        region_id holder; /* PASSED */
        bool live;        /* RELAYED: the sender hears the origin itself, and age_us holds */
        bool gap;         /* RELAYED: it has more, but only as a state */
        struct hole holes[WORLD_HOLES_MAX]; /* of the sender in that stream */
        size_t hole_count;
        struct world_position positions[REPLICATION_POSITIONS_MAX];
        size_t position_count;
        struct world_resume resume; /* PLACE, RESUME */
        struct bytes data;          /* borrowed */
};

void replication_message_encode(const struct replication_message *message, struct buffer *out);

/* ERR_NONE, ERR_VERSION, ERR_TRUNCATED or ERR_MALFORMED. */
MUST_USE enum err replication_message_decode(struct bytes data, struct replication_message *ret);

/* What was sent and not acknowledged. */
struct replication_flight {
        bool state;
        uint64_t mark; /* last, or part */
        uint32_t bytes;
};

enum sender_state {
        SENDER_OFF,    /* nobody subscribes */
        SENDER_WAIT,   /* until what our Redis lost is known, and read back */
        SENDER_SCAN,   /* our state, part by part */
        SENDER_STREAM, /* deltas */
};

struct sender {
        enum sender_state state;
        uint64_t sub;
        bool told;                          /* it has told its position since our Redis came */
        uint64_t from;                      /* that position */
        struct hole holes[WORLD_HOLES_MAX]; /* below it, in our stream */
        size_t hole_count;
        uint64_t sent; /* position after all that was sent */
        uint64_t said; /* what the next batch says that it follows; == sent */
        uint64_t acked;
        uint64_t part;     /* of the last state part sent */
        uint64_t part_end; /* the last of the scan under way; 0: not sent yet */
        uint64_t cursor;
        uint64_t scan_position;    /* ours, from the vector at the scan's begin */
        struct world_resume asked; /* where the scan is to go on; table 0: nowhere */
        uint64_t asked_sub;        /* by that subscription */
        bool resuming;             /* the next part must be of the table that was asked for */
        struct world_position vector[REPLICATION_POSITIONS_MAX];
        size_t vector_count;
        bool tail_out, tail_stale;
        bool scan_out, scan_stale;
        uint64_t scan_table;   /* of which the last part was; 0: not known */
        uint64_t scan_wait_us; /* after a failure: when the next part is asked for; 0: at once */
        uint64_t busy_us;      /* while a scan is out: when the peer is told so next */
        bool pulled;           /* its whole state was merged here in this life of our Redis */
        bool needs_state;      /* our Redis got content by a pull that the stream does not carry */
        uint64_t pull_to; /* position that the peer holds of our lost tail; 0: none is asked for */
        struct replication_flight flights[REPLICATION_FLIGHT_MAX];
        size_t flight_first, flight_count;
        uint64_t flight_bytes;
};

enum receiver_state {
        RECEIVER_IDLE, /* link or Redis is down, or the peer's Redis is */
        RECEIVER_OPEN, /* subscribed */
};

/* What waits for our Redis. */
struct receiver_item {
        struct receiver_item *next;
        bool state, end, relayed;
        uint64_t after, last, part;
        struct world_resume resume; /* behind this part */
        uint64_t synced_us;         /* nothing older than that can be missing once it is merged */
        struct world_position *positions; /* behind the data; NULL where not `end` */
        size_t position_count;
        struct bytes data;
        uint8_t bytes[];
};

struct receiver {
        enum receiver_state state;
        uint64_t sub;
        bool whole; /* ask for the whole state: it holds what we lost */
        bool again; /* subscribe when the merge under way has ended */
        bool transfer;
        uint32_t done_permille;
        uint64_t expect;   /* `after` of the next batch */
        uint64_t position; /* in our Redis */
        uint64_t end;      /* of the stream, as heard */
        uint64_t heard_us;
        uint64_t subscribed_us;
        uint64_t retry_us; /* 0: none */
        uint64_t done_us;  /* when Redis had merged what the subscription brought last */
        uint64_t holes_us; /* when it tells its holes again */
        uint64_t holes_wait_us;
        bool synced;
        uint64_t synced_us; /* nothing older is missing; monotonic here, may be before our start */
        uint64_t part;      /* last part of a state received */
        uint64_t part_merged;
        struct receiver_item *first, **tail;
        size_t count;
        uint64_t bytes;
        struct world_resume resume; /* of a transfer that broke off */
        bool resuming;              /* the subscription asks to go on there */
        struct world_resume place;  /* as told of the part `place_of` */
        uint64_t place_of;
        bool merging, merge_stale;
        struct receiver_item *merged; /* under way at Redis */

        /* The origin is silent: we ask the others for its stream (relay.c). */
        bool relay_out;
        uint64_t relay_sub;
        size_t relay_from; /* index of the peer that is asked */
        uint64_t relay_next_us;
        uint64_t relay_pull_us; /* no state is asked for before that */
        uint64_t relayed_us;    /* when somebody who hears the origin answered */
};

/* A question for the stream of another origin that our Redis is looking for an answer to. */
struct fetch {
        node_id peer; /* 0: free */
        region_id origin;
        uint64_t sub;
};

/* Long messages under way: our stream or state, and one of another origin. */
enum {
        PIECES_OWN,
        PIECES_RELAYED,
        PIECES_SLOTS,
};

struct pieces_out {
        struct buffer whole; /* len 0: none */
        enum world_class class;
        uint64_t id;
        size_t sent, got;
};

struct pieces_in {
        struct buffer whole;
        uint64_t id;
};

enum peer_standing {
        PEER_MEMBER,
        PEER_UNKNOWN, /* our Redis has something of it, the topology does not */
        PEER_REMOVED, /* its own word counts no more */
};

struct peer {
        node_id node; /* its name towards Redis; 0: no member */
        node_id at;   /* where it is reached now */
        region_id region;
        enum peer_standing standing;
        bool link; /* `up` only for members */
        bool up;
        struct sender sender;
        struct receiver receiver;
        struct pieces_out out[PIECES_SLOTS];
        struct pieces_in in[PIECES_SLOTS];
};

struct replication {
        struct heap *heap;
        struct replication_config config;
        struct peer peers[REPLICATION_PEERS_MAX];
        size_t peer_count;
        bool redis_up;
        uint64_t own_position;
        struct hole holes[WORLD_HOLES_MAX]; /* of our Redis, in all streams */
        size_t hole_count;
        uint64_t refilled; /* our own stream: what a peer has given back reaches up to here */
        uint64_t came_us;  /* when our Redis came up */
        struct fetch fetches[REPLICATION_PEERS_MAX];
        uint64_t sub_last;
        uint64_t serve_us;          /* then senders wait no longer for regions that are silent */
        struct peer *transfer_from; /* whose state is being merged; NULL: nobody's */
        struct buffer scratch;
        struct replication_counters counters;
        /* Of the step under way. */
        uint64_t now_us, wall_us;
        struct outbox *outbox;
};

void replication_send(struct replication *r, struct peer *peer,
                      const struct replication_message *message);

/* pieces.c: r->scratch, which is too long, on its way; GOT and PIECE of it. */
void pieces_init(struct replication *r, struct peer *peer);
void pieces_stop(struct peer *peer);
void pieces_stop_out(struct peer *peer);
void pieces_begin(struct replication *r, struct peer *peer, unsigned slot, enum world_class class);
void pieces_got(struct replication *r, struct peer *peer,
                const struct replication_message *message);
/* True where all is there: in peer->in[message->part].whole, until the next message. */
bool pieces_took(struct replication *r, struct peer *peer,
                 const struct replication_message *message);

/* holes.c */
bool holes_decode(struct bytes data, struct hole *ret, size_t *ret_count);

/* What is known of one stream: a position, less the holes of that origin. */
struct holdings {
        region_id origin;
        uint64_t position;
        const struct hole *holes;
        size_t hole_count;
};

/* True where `holder` claims something that is in a hole of `other`. */
bool holes_fillable(struct holdings other, struct holdings holder);
/* True where `holder` may have something there that it does not claim. */
bool holes_mixed(struct holdings other, struct holdings holder);

/* Whether `holder` may have more of a stream than it claims, beyond all that `other` may have. */
bool holes_hinted(struct holdings other, struct holdings holder);
struct holdings replication_own(const struct replication *r, region_id origin);

/* relay.c */
void relay_tick(struct replication *r, struct peer *peer);
uint64_t relay_wake_us(const struct replication *r, const struct peer *peer);
void relay_asked(struct replication *r, struct peer *peer,
                 const struct replication_message *message);
void relay_answered(struct replication *r, struct peer *from,
                    const struct replication_message *message);
void relay_tailed(struct replication *r, const struct world_event *event);
/* PASSED: ours, or on its way to the origin. */
void relay_passed(struct replication *r, const struct peer *from,
                  const struct replication_message *message);
/* Pieces of an answer come from that peer. */
void relay_heard(struct replication *r, const struct peer *from);
bool relay_live(const struct replication *r, const struct receiver *receiver, uint64_t now_us);

/* Puts a batch or a part into the queue for our Redis. */
bool receiver_enqueue(struct replication *r, struct peer *peer,
                      const struct replication_message *message);

void sender_stop(struct sender *sender);
/* A message that went in pieces is on its way. */
void sender_wake(struct replication *r, struct peer *peer);
void sender_redis_down(struct replication *r, struct peer *peer);
void sender_resume_asked(struct replication *r, struct peer *peer,
                         const struct replication_message *message);
void sender_subscribed(struct replication *r, struct peer *peer,
                       const struct replication_message *message);
void sender_acked(struct replication *r, struct peer *peer,
                  const struct replication_message *message);
/* How far the peer holds our stream, as a third region passes on: its own word counts alone while
 * it is in touch. */
void sender_passed(struct replication *r, struct peer *peer, uint64_t position);
void sender_tailed(struct replication *r, struct peer *peer, const struct world_event *event);
void sender_scanned(struct replication *r, struct peer *peer, const struct world_event *event);
/* Serves those that wait, when nothing is to be waited for. */
void senders_release(struct replication *r);
/* The peer's whole state was merged here. */
void sender_pulled(struct replication *r, struct peer *from);

void receiver_init(struct receiver *receiver);
void receiver_stop(struct replication *r, struct peer *peer);
void receiver_redis_down(struct replication *r, struct peer *peer);
/* Subscribes anew when link and Redis are up. */
void receiver_subscribe(struct replication *r, struct peer *peer);
void receiver_took(struct replication *r, struct peer *peer,
                   const struct replication_message *message);
void receiver_merged(struct replication *r, struct peer *peer, const struct world_event *event);
void receiver_tick(struct replication *r, struct peer *peer);
void sender_tick(struct replication *r, struct peer *peer);
uint64_t sender_wake_us(const struct peer *peer);
uint64_t receiver_wake_us(const struct replication *r, const struct peer *peer);

#endif
