/* replication.h - streams of deltas between regions: one state machine per node that holds data.
 *
 * For every other region there is a sender side (it reads our stream from us) and a receiver side
 * (we read its stream from it). The receiver subscribes from its own position as soon as the link
 * and its Redis both stand; position and data live together in Redis, so nothing here survives a
 * restart and nothing has to.
 *
 *   receiver                                   sender
 *   IDLE --link and Redis up--> SUBSCRIBE n,p
 *        [we lost a tail that the sender has]  TAIL after p --ok--> BATCH n (after, last, deltas)
 *        PULL n  ------------------------------> SCAN --------->  STATE n (first, vector, part)
 *   MERGE --done--> ACK n,position ----------> window moves, ACKED to our Redis
 *                                              nothing new --> BEAT n (position)
 *                                              gap --> SCAN parts on BULK, then TAIL after
 *                                                      the vector taken before the scan
 *                                              Redis reads a part for long --> BUSY n, now and then
 *
 * Every message carries the subscription number that its receiver chose, so what belongs
 * to an older subscription is ignored. A batch whose `after` is not our position, a
 * refusal by Redis, a silence: each ends in a new subscription. Duplicates and old batches
 * are skipped by Redis by position.
 *
 * The lost tail: Redis may come back without the end of its own stream (the unsynced tail of its
 * append-only file) while a peer holds it. Each life leaves a hole then, here and at everybody who
 * reads on (keyspace/life.c). A subscription tells the reader's position and its holes in the
 * stream: where it has what we have not, its whole state is asked for first (PULL); where it lacks
 * what we have, it gets ours. When all have told and nothing is missing, the hole is closed.
 *
 * A state transfer that breaks off goes on behind the last part that was merged (PLACE, RESUME),
 * also after a restart of either daemon, or of the receiving Redis where its log holds the parts;
 * after a restart of the sending Redis, or when that got content by a pull, it begins again.
 *
 * The way round: an origin that is silent for a second is asked for at the others (relay.c).
 *
 * A region that was removed from the topology is heard no more (replication_members).
 *
 * Bounds: per peer one tail, one scan and `window_bytes` of batches not acknowledged; per receiver
 * one merge at Redis and `window_bytes` waiting. One delta, or the state of one key, is never
 * divided among batches; a message that is longer for it goes in pieces (pieces.c), and is in
 * memory as a whole at both ends.
 *
 * Pure. Effects go to the caller's outbox in order. */
#ifndef MERIDIAN_REPLICATION_REPLICATION_H
#define MERIDIAN_REPLICATION_REPLICATION_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "world/outbox.h"
#include "world/world.h"

#define REPLICATION_PEERS_MAX   32

/* The longest message that goes to a link in one piece, and the longest that goes at all: a value
 * of Redis (512 MB) with what is remembered of it. Replication owns the classes DATA and BULK. */
#define REPLICATION_PIECE_MAX   (8u << 20)
#define REPLICATION_MESSAGE_MAX (640u << 20)

/* Planted bugs, for the simulator's proof that it finds any. Never set in production. */
enum replication_bug {
        REPLICATION_BUG_NONE = 0,
        REPLICATION_BUG_RESUME_AT_END = 1, /* a stream resumes at its end, not where it broke off */
        REPLICATION_BUG_NO_PULL = 2,       /* the lost tail is not asked for */
        REPLICATION_BUG_NO_RELAY = 4,      /* nobody but the origin is asked for its stream */
        REPLICATION_BUG_CLOSE_EARLY = 8,   /* a hole closes before all have told what they hold */
        REPLICATION_BUG_NO_REFILL = 16,    /* what came back is not passed on to who lacks it */
};

struct replication_peer {
        node_id node; /* the data node of that region */
        region_id region;
};

struct replication_config {
        region_id self;
        const struct replication_peer *peers; /* copied */
        size_t peer_count;                    /* <= REPLICATION_PEERS_MAX */
        uint32_t window_bytes;                /* unacknowledged per peer; 0: 4 MiB */
        uint32_t batch_bytes_max;             /* of one tail or scan; 0: 256 KiB */
        uint32_t piece_bytes; /* longer messages go in pieces; 0: 1 MiB; <= PIECE_MAX / 2 */
        uint32_t block_ms;    /* of one tail, and between beats of an idle stream; 0: 200 */
        uint64_t silence_us;  /* without a word: subscribe again; 0: 3 s */
        unsigned bugs;        /* enum replication_bug */
};

/* What is known of one origin's stream here. Unknown is unknown, never an old number. */
struct replication_lag {
        region_id origin;
        bool known;             /* the fields below hold: subscribed, heard lately, Redis is up */
        uint64_t position;      /* hlc up to which Redis has applied the origin's stream */
        uint64_t end;           /* hlc of the origin's stream's end, as last heard */
        uint64_t heard_us;      /* monotonic: when something of the stream came last */
        uint64_t lag_us;        /* age of the oldest change that may be missing; 0: nothing is */
        bool relayed;           /* it comes by way of another region */
        bool transfer;          /* a state transfer from that origin is under way */
        uint32_t done_permille; /* of it */
        bool caught_up;         /* position reached what the origin had when we subscribed */
        uint64_t acked;         /* how far that region has acknowledged *our* stream; 0: unknown */
};

struct replication;

/* Copies the configuration; keeps `heap`. NULL when out of memory. */
MUST_USE struct replication *replication_new(struct heap *heap,
                                             const struct replication_config *config);
void replication_free(struct replication *replication);

/* The other regions that hold data, as the topology has them now; takes effect at once. What is new
 * is added, as far as there is room. A region that is no longer named is removed: it is neither
 * read nor served nor waited for. What any of the others has of its stream goes round among them
 * as state, for tombstones no longer wait for it. Outside of replication_step. */
void replication_members(struct replication *replication, const struct replication_peer *peers,
                         size_t count);

/* The region's data is at another of its nodes now; `up`: the link to that one stands. Streams in
 * both directions begin anew. Outside of replication_step. */
void replication_route(struct replication *replication, region_id region, node_id node, bool up);

/* Takes every event that concerns it and ignores the rest: PEER_UP, PEER_DOWN, MESSAGE (class DATA
 * and BULK), REDIS_*, TIMER. Appends SEND, REDIS_* and NOTE effects. `event->now_us` must not go
 * back. Damaged messages are dropped and counted. Memory that runs out shows in the outbox. */
void replication_step(struct replication *replication, const struct world_event *event,
                      struct outbox *outbox);

/* When replication_step wants a WORLD_TIMER next; UINT64_MAX: never. */
uint64_t replication_wake_us(const struct replication *replication);

/* The lag of one origin's stream at `now_us`; false when there is no such peer. */
bool replication_lag(const struct replication *replication, region_id origin, uint64_t now_us,
                     struct replication_lag *ret);

/* Counters since the start, for metrics and for the simulator's coverage. */
struct replication_counters {
        uint64_t batches_sent, batches_merged, bytes_sent, bytes_merged;
        uint64_t subscribes, gaps, transfers_sent, transfers_received, pulls, stale, malformed;
        uint64_t window_full;
        uint64_t fetches, relayed, closed, pieces_sent, resumed;
};
struct replication_counters replication_counters(const struct replication *replication);

#endif
