/* world.h - all that a node may ask of the outside, and all that the outside may tell it.
 *
 * A node (node/node.h) is a function: one event in, a list of effects out. It has no clock, socket,
 * file or thread. Two worlds carry its effects out: io/ with libuv on a real machine, sim/ in
 * simulated time from one seed. Both must keep this contract:
 *
 *  - Effects are carried out in the order of the list.
 *  - A journal is an append-only run of bytes per group. WORLD_JOURNAL_APPEND adds to it;
 *    WORLD_JOURNAL_SYNCED tells, some time later, how far it is durable. A crash keeps every byte
 *    up to the last synced offset and an arbitrary prefix of the rest, whose last bytes may be
 *    damaged; what is recovered is durable. WORLD_JOURNAL_REPLACE swaps the whole journal
 *    atomically (write aside, sync, rename); offsets start again, and WORLD_JOURNAL_SYNCED with the
 *    new generation confirms it.
 *    A large one is written in pieces instead: WORLD_JOURNAL_ASIDE adds to a new journal beside the
 *    old one, which goes on (offset 0 begins it, and drops an earlier one); WORLD_JOURNAL_SYNCED
 *    with its generation tells how far it is durable. A crash, or a WORLD_JOURNAL_REPLACE, loses it
 *    whole. When all pieces were told as durable, WORLD_JOURNAL_SWAP adds the last one and puts it
 *    in the place of the old, atomically, as a REPLACE would; before that was told as durable no
 *    other ASIDE comes.
 *    What is recovered may end in zeros that nobody wrote: space made ready, so that a sync need
 *    not wait for the file to grow. The node says by the offset of its first WORLD_JOURNAL_APPEND
 *    where its own bytes end, and overwrites nothing but zeros; each later one begins where the
 *    last ended.
 *  - Messages between two nodes in one class keep their order while a connection lasts. After
 *    WORLD_PEER_DOWN nothing of the older connection arrives any more. Messages under way when a
 *    connection breaks may or may not have arrived. A message is never delivered twice by the link.
 *  - Slices in an event are borrowed by the node for the call. Slices in effects are borrowed by
 * the world until the next call of node_step on that node.
 *  - Redis: at most one WORLD_REDIS_TAIL per peer and origin, one WORLD_REDIS_SCAN per peer and
 *    one WORLD_REDIS_MERGE per origin are under way; each is answered once, unless WORLD_REDIS_DOWN
 *    comes first. A tail may be answered early, with what there is.
 *  - PostgreSQL: at most one WORLD_POSTGRES_DO is under way, but for a fence, which may come at any
 *    time and takes the place of what is under way. Each is answered once by WORLD_POSTGRES_DONE,
 *    and a WORLD_POSTGRES_SEEN of the time after it comes before or behind that answer. A gate lets
 *    a commit begin, and lets its answer leave, only before `until_us` on the clock of `now_us`,
 *    by whatever reads that clock inside of the server: so a server whose daemon is stopped fences
 *    itself. A server that is started anew begins with a closed gate.
 *  - Time: `now_us` is monotonic, goes on while the machine sleeps (CLOCK_BOOTTIME), and may run at
 *    a rate that is wrong by some per cent; `wall_us` is Unix time and may jump. */
#ifndef MERIDIAN_WORLD_WORLD_H
#define MERIDIAN_WORLD_WORLD_H

#include "base/bytes.h"
#include "base/err.h"

/* Nodes and regions are small numbers given by the topology; 0 is none. */
typedef uint32_t node_id;
typedef uint8_t region_id;

/* Raft groups that a node takes part in. */
enum world_group {
        WORLD_GROUP_GLOBAL, /* voters in every region: topology, states, leases, global locks */
        WORLD_GROUP_REGION, /* voters of this region only: regional locks */
        WORLD_GROUP_COUNT,
};

/* Classes of traffic on the link, most urgent first. A lower class never delays a higher one, but
 * for the last two, which are equals. */
enum world_class {
        WORLD_CLASS_CONTROL, /* Raft, health, forwarded requests */
        WORLD_CLASS_DATA,    /* deltas and their acknowledgements */
        WORLD_CLASS_TUNNEL,  /* roads to PostgreSQL: never reaches a node */
        WORLD_CLASS_BULK,    /* state transfer; shares the way with tunnels, as equals */
        WORLD_CLASS_COUNT,
};

/* The parts of a region that its own node watches. */
enum world_part {
        WORLD_PART_REDIS,
        WORLD_PART_DNS,
        WORLD_PART_EDGE,
        WORLD_PART_POSTGRES,
        WORLD_PART_BACKEND, /* `index` tells which, in the order of the topology */
        WORLD_PART_COUNT,
};

enum world_event_kind {
        WORLD_START,          /* first, once: what the disk holds, and a seed */
        WORLD_TIMER,          /* the time asked for by WORLD_WAKE has come */
        WORLD_PEER_UP,        /* the link to a peer stands */
        WORLD_PEER_DOWN,      /* it broke */
        WORLD_MESSAGE,        /* a whole message from a peer */
        WORLD_ROUND_TRIP,     /* a measured round trip to a peer */
        WORLD_JOURNAL_SYNCED, /* a journal is durable up to an offset */
        WORLD_JOURNAL_FAILED, /* writing failed: the node must stop leading and acknowledging */
        WORLD_REQUEST,        /* a client of this node asks (api/, or the node's own shell) */
        WORLD_REQUEST_GONE,   /* the client of a pending request went away */
        WORLD_PROBED,         /* the result of a look at a part of this region */
        WORLD_REDIS_UP,       /* local Redis is there, with its replication positions */
        WORLD_REDIS_DOWN,     /* it went away: answers to pending Redis effects will not come */
        WORLD_REDIS_TAILED,   /* answer to WORLD_REDIS_TAIL */
        WORLD_REDIS_MERGED,   /* answer to WORLD_REDIS_MERGE */
        WORLD_REDIS_SCANNED,  /* answer to WORLD_REDIS_SCAN */
        WORLD_POSTGRES_SEEN,  /* how this node's PostgreSQL is: often, after each change */
        WORLD_POSTGRES_DONE,  /* a WORLD_POSTGRES_DO has ended */
};

/* How far a stream of one origin has been applied: the origin's hybrid logical clock (clock/hlc.h)
 * at its last applied delta, 0 for nothing. */
struct world_position {
        region_id origin;
        uint64_t hlc;
};

/* Holes are what a position claims and Redis has not: clocks of `origin` in (low, high). Each is u8
 * origin, u8 mixed (0, 1), u64 low, u64 high in little-endian order; see keyspace_hole. */
#define WORLD_HOLE_LEN  18
#define WORLD_HOLES_MAX 136

enum {
        WORLD_POSTGRES_LINES_MAX = 16,
        WORLD_POSTGRES_SLOTS_MAX = 16, /* that are told of: those that retain most */
        WORLD_POSTGRES_SLOT_NAME = 64,
};

/* A timeline that a server has left: followed up to `end` (LSN), begun under a lease with the token
 * `epoch`, which is stored beside the data, durably before the timeline begins. */
struct world_postgres_line {
        uint32_t timeline;
        uint64_t epoch; /* 0: none of ours */
        uint64_t end;
};

/* What a primary keeps of its log for somebody. */
struct world_postgres_slot {
        char name[WORLD_POSTGRES_SLOT_NAME]; /* NUL-terminated */
        bool active;
        bool lost;         /* it was let go of: too much would have been retained */
        uint64_t retained; /* bytes */
};

/* This node's PostgreSQL server. What each word means is said in primary/primary.h. */
struct world_postgres {
        uint8_t server;  /* enum primary_server */
        uint64_t system; /* the cluster's identifier; 0: no data */
        uint32_t timeline;
        uint64_t epoch;   /* under which that timeline was begun */
        uint64_t written; /* LSN: a primary's flush; a standby's receipt. Of a held or closed one it
                            * is final */
        uint64_t replayed; /* LSN */
        uint64_t whole; /* of a standby that has not replayed all: where its last whole record ends;
                         * 0: not known, or not yet */
        bool lines_cut;
        uint8_t line_count; /* newest first */
        struct world_postgres_line lines[WORLD_POSTGRES_LINES_MAX];
        node_id upstream;   /* a standby streams from that node's server now; 0: from none */
        bool gap;           /* a standby: the log that it needs next was removed everywhere */
        uint64_t committed; /* of an open or held one: no commit that was made here lies behind */
        uint64_t looked_us; /* monotonic: all of this was so then, or later; 0: now */
        bool limited;       /* of an open or held one: the gate was told so last */
        bool paused;        /* a standby whose replay somebody has paused */
        uint64_t slot_max; /* bytes of log that a slot may retain; 0: not known, or without limit */
        uint8_t slot_count; /* of an open or held one */
        struct world_postgres_slot slots[WORLD_POSTGRES_SLOTS_MAX];
        bool lag_known;    /* of a standby: how long ago its last replayed commit was made, where */
        uint64_t lag_us;   /* it has not replayed all that it received; 0: it has */
        bool commit_known; /* of a standby: the age of the newest commit that it shows, by the */
        uint64_t commit_us;     /* clocks of both servers */
        uint64_t gate_epoch;    /* of an open or held one: what the gate was told last; */
        uint64_t gate_until_us; /* 0: it is closed */
};

/* Where a state transfer goes on: a cursor into the table of that name, at a sender whose position
 * was that when it began. */
struct world_resume {
        uint64_t table; /* 0: nowhere */
        uint64_t cursor;
        uint64_t position;
};

struct world_event {
        enum world_event_kind kind;
        bool more; /* MESSAGE, REQUEST, REQUEST_GONE: another event follows at once, to which the
                    * node may leave whatever can be done for both together */
        uint64_t now_us;
        uint64_t wall_us;
        union {
                struct {
                        struct bytes journals[WORLD_GROUP_COUNT]; /* all that was recovered */
                        bool known[WORLD_GROUP_COUNT]; /* some of it was told as durable once: an
                                                        * empty one is a lost one */
                        uint64_t seed;
                        uint64_t incarnation; /* larger at every start of this node */
                } start;
                struct {
                        node_id peer;
                } peer; /* PEER_UP, PEER_DOWN */
                struct {
                        node_id peer;
                        enum world_class class;
                        struct bytes data;
                } message;
                struct {
                        node_id peer;
                        uint64_t rtt_us;
                } round_trip;
                struct {
                        enum world_group group;
                        uint64_t generation; /* of WORLD_JOURNAL_REPLACE, 0 before the first */
                        uint64_t offset;     /* durable bytes since this generation began */
                } synced;
                struct {
                        enum world_group group;
                        enum err err;
                } journal_failed;
                struct {
                        uint64_t request;  /* the world's name for it, echoed in WORLD_REPLY */
                        struct bytes data; /* encoded by council/request.h */
                } request;                 /* REQUEST, REQUEST_GONE (no data) */
                struct {
                        enum world_part part;
                        uint32_t index;
                        bool healthy;
                        uint64_t latency_us;
                        struct bytes why; /* for a person, when unhealthy */
                } probed;
                struct {
                        const struct world_position *positions; /* every origin, self included */
                        size_t count;
                        uint64_t
                                incarnation; /* changes whenever Redis lost what it had in memory */
                        uint64_t recovered; /* own position recovered at load: what came after it in
                                            * an older incarnation is lost here, if a peer saw it */
                        uint64_t first;     /* first own clock of this incarnation; 0: none yet */
                        struct bytes holes; /* below the positions: see WORLD_HOLE_LEN */
                        region_id resume_of; /* whose state it was getting; 0: nobody's */
                        struct world_resume resume;
                } redis_up;
                struct {
                        node_id peer;     /* as asked */
                        region_id origin; /* as asked */
                        bool gap; /* the ring begins later than asked: a state transfer is due */
                        uint64_t after;
                        uint64_t last; /* position after this batch; == after when nothing came */
                        struct bytes deltas;
                } tailed;
                struct {
                        region_id origin;
                        bool gap; /* `after` was ahead of what Redis holds: subscribe again */
                        uint64_t position;
                        enum err err;
                        struct bytes holes; /* all of them, from now on; ptr NULL: not known */
                        const struct world_position *positions; /* at the end of a state */
                        size_t position_count;
                } merged;
                struct {
                        node_id peer;    /* as asked */
                        uint64_t cursor; /* to go on with; 0 at the end */
                        struct bytes state;
                        const struct world_position *positions; /* taken when the scan began; */
                        size_t position_count;                  /* with every part, or the first */
                        uint32_t done_permille;                 /* of all keys, about */
                        uint64_t table;                         /* of which `cursor` is */
                        enum err err;
                } scanned;
                struct world_postgres postgres; /* SEEN */
                struct {
                        uint64_t number;   /* as asked */
                        struct bytes fail; /* one sentence; empty: all went well */
                } postgres_done;
        };
};

enum world_effect_kind {
        WORLD_WAKE, /* send WORLD_TIMER at that time; replaces an earlier wish */
        WORLD_SEND, /* to a peer; dropped in silence when the link is down */
        WORLD_JOURNAL_APPEND,
        WORLD_JOURNAL_REPLACE,
        WORLD_JOURNAL_ASIDE,
        WORLD_JOURNAL_SWAP,
        WORLD_REPLY,          /* the answer to a request; final */
        WORLD_PUBLISH,        /* what this node knows has changed: render the view again */
        WORLD_NOTE,           /* an event for the log and for `meridian events` */
        WORLD_REDIS_TAIL,     /* wait for deltas of this region after a position, for a peer */
        WORLD_REDIS_MERGE,    /* apply a batch of an origin */
        WORLD_REDIS_SCAN,     /* the next part of the whole state, for a peer */
        WORLD_REDIS_ACKED,    /* tell Redis how far a peer holds our stream (tombstones, WAIT) */
        WORLD_REDIS_CLOSE,    /* tell Redis that nobody holds anything of a hole in our stream */
        WORLD_REDIS_AGAIN,    /* tell anew how Redis is: DOWN, where it was up, and UP when it is */
        WORLD_POSTGRES_DO,    /* change this node's PostgreSQL server */
        WORLD_POSTGRES_GATE,  /* how long it may take writes */
        WORLD_POSTGRES_WATCH, /* look at it as often as can be for a moment */
};

struct world_effect {
        enum world_effect_kind kind;
        union {
                struct {
                        uint64_t at_us; /* monotonic */
                } wake;
                struct {
                        node_id peer;
                        enum world_class class;
                        struct bytes data;
                } send;
                struct {
                        enum world_group group;
                        uint64_t generation; /* REPLACE, ASIDE, SWAP: the new one, > 0 */
                        uint64_t offset;     /* where `data` goes; REPLACE: 0 */
                        struct bytes data;
                } journal;
                struct {
                        uint64_t request;
                        struct bytes data; /* encoded by council/request.h */
                } reply;
                struct {
                        const char *name;  /* static: "region-down", "leader", ... */
                        struct bytes text; /* one sentence */
                } note;
                struct {
                        node_id peer;
                        region_id origin; /* 0: our own; else what was merged of another's stream */
                        uint64_t after;
                        uint32_t bytes_max;
                        uint32_t block_ms;
                } tail;
                struct {
                        region_id origin;
                        bool state;     /* a part of a state transfer, not of the stream */
                        bool state_end; /* last of it: adopt `positions` */
                        uint64_t after;
                        uint64_t last;
                        struct bytes data;
                        const struct world_position *positions;
                        size_t position_count;
                } merge;
                struct {
                        node_id peer;
                        uint64_t cursor; /* 0 to begin */
                        uint32_t bytes_max;
                } scan;
                struct {
                        region_id peer;
                        uint64_t position;
                } acked;
                struct {
                        uint64_t low;
                        uint64_t high;
                } close;
                struct {
                        uint64_t number;  /* grows with each, from 1 at each start of the node */
                        uint8_t action;   /* enum primary_action that concerns the server */
                        node_id upstream; /* whose server is followed or copied; 0: not known */
                        uint64_t epoch;   /* INIT, PROMOTE, OPEN: the lease's token */
                } postgres;
                struct {
                        uint64_t epoch;
                        uint64_t until_us; /* monotonic */
                        bool limited;      /* new commits wait: no other region keeps up */
                } gate;
                struct {
                        uint64_t until_us; /* monotonic */
                } watch;
        };
};

/* The effects of one step, in order. Owned by the node, borrowed by the world. */
struct world_effects {
        const struct world_effect *items;
        size_t count;
};

#endif
