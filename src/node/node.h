/* node.h - the machine: one event in, a list of effects out (world/world.h).
 *
 * It owns two consensus groups with their councils, the health of its own parts and of the others,
 * the decisions on region states, the replication of data, and the requests of its clients. It has
 * no clock, socket, file, thread or allocator of its own: io/ and sim/ run the same code.
 *
 * Everything but the journals is rebuilt at a start. A node that fails to write a journal, or runs
 * out of memory inside a group, takes no more part in agreement (node_status.stopped) and goes on
 * serving its region from what it knows. */
#ifndef MERIDIAN_NODE_NODE_H
#define MERIDIAN_NODE_NODE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "node/status.h"
#include "world/world.h"

struct council;
struct topology;

/* Planted bugs of this room; those of other rooms are passed on in their own fields. */
enum node_bug {
        NODE_BUG_NONE = 0,
        NODE_BUG_FORWARD_NEW_ID = 1, /* a retry gets a new identity: not idempotent */
        NODE_BUG_EARLY_RETURN = 2,   /* a region returns before its data has caught up */
        NODE_BUG_NO_QUORUM = 4,      /* one observer is enough to take a region out */
        NODE_BUG_NEVER_RETURN = 8,   /* a recovered region stays out */
        NODE_BUG_SYNC_IGNORED = 16,  /* journal bytes count as durable when they are handed out */
        NODE_BUG_KEEP_FAILED = 32,   /* goes on after a failed journal */
        NODE_BUG_LOCAL_GRANT = 64,   /* answers before the entry is committed */
};

/* Every time 0 takes the default. */
struct node_config {
        node_id self;
        struct bytes topology; /* the document, borrowed for the call; the council's own copy, once
                                * there is one, wins */
        uint64_t gossip_us;    /* between two words to each peer; 200 ms */
        uint64_t global_heartbeat_us; /* 150 ms */
        uint64_t global_election_us;  /* 1 s */
        uint64_t region_heartbeat_us; /* 30 ms */
        uint64_t region_election_us;  /* 200 ms */
        uint64_t request_timeout_us;  /* an answer, good or bad, comes within it; 3 s */
        uint64_t expiry_us;           /* between lock expiry rounds while leading; 50 ms */
        uint64_t journal_bytes_max;   /* a journal beyond it is replaced by a snapshot; 4 MiB */
        unsigned bugs;                /* enum node_bug */
        unsigned raft_bugs;           /* enum of raft/consensus.h */
        unsigned lock_bugs;           /* enum of lock/lock.h */
        unsigned replication_bugs;    /* enum of replication/replication.h */
};

struct node;

/* Checks the topology: ERR_MALFORMED or ERR_INVALID when it is not usable or `self` is not in it,
 * ERR_NOMEM. Keeps `heap` until node_free. The first step must be WORLD_START. */
MUST_USE enum err node_new(struct heap *heap, const struct node_config *config,
                           struct node **ret_node);
void node_free(struct node *node);

/* One turn. `ret_effects` is borrowed until the next node_step. Never fails: see node_failed. */
void node_step(struct node *node, const struct world_event *event,
               struct world_effects *ret_effects);

/* ERR_NONE, or why the node cannot go on: ERR_CORRUPT (a journal is damaged before its torn end),
 * ERR_NOMEM. The program should end and say so. */
enum err node_failed(const struct node *node);

/* What the node knows now. Cost: about the size of the struct. */
void node_status(const struct node *node, uint64_t now_us, uint64_t wall_us,
                 struct node_status *ret_status);

/* The topology in force, borrowed until the next node_step. */
const struct topology *node_topology(const struct node *node);

/* A group's replicated state, borrowed until the next node_step; for lists of locks and the audit.
 */
const struct council *node_council(const struct node *node, enum world_group group);

/* Counters for metrics and for the simulator's coverage. */
struct node_counters {
        uint64_t messages_in, messages_malformed, requests, requests_forwarded, requests_refused;
        uint64_t elections_won, snapshots, proposals, region_changes, gossip_in;
};
struct node_counters node_counters(const struct node *node);

#endif
