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
#include "raft/consensus.h"
#include "replication/replication.h"
#include "topology/topology.h"
#include "world/world.h"

struct council;
struct lock_copy;

/* Planted bugs of this room; those of other rooms are passed on in their own fields. */
enum node_bug {
        NODE_BUG_NONE = 0,
        NODE_BUG_EARLY_RETURN = 2,  /* a region returns before its data has caught up */
        NODE_BUG_NO_QUORUM = 4,     /* one observer is enough to take a region out */
        NODE_BUG_NEVER_RETURN = 8,  /* a recovered region stays out */
        NODE_BUG_EARLY_ANSWER = 16, /* answers before the entry is committed */
        NODE_BUG_LOCAL_CLOCK = 32,  /* the lock clock is each leader's own uptime */
        NODE_BUG_NO_EXPIRY = 64,    /* the leader proposes no time: leases of the dead stay */
        NODE_BUG_KEEP_FAILED = 128, /* goes on after a failed journal */
        NODE_BUG_CLAIM_ANY = 256,   /* who has not most claims PostgreSQL's lease, and promotes */
        NODE_BUG_LEASE_FROM_ANSWER =
                512,                   /* a lease counts from the answer, not from the question */
        NODE_BUG_READ_OWN_COPY = 2048, /* values are read as if they might be stale */
        NODE_BUG_NO_CARRIER = 8192,    /* nobody takes a region's data over */
        NODE_BUG_STRANGERS = 16384,    /* who is to leave a group is not heard any more at once */
        NODE_BUG_NO_MARGIN = 1024,     /* the holder goes on up to its lease's end */
        NODE_BUG_NO_LIMIT = 1 << 20,   /* commits are not held, whatever other regions lack */
        NODE_BUG_LEVEL_BLIND = 4096,   /* a level rises without asking who knows it */
        NODE_BUG_SET_FIRST = 32768,    /* of several locks only the first is asked for */
        NODE_BUG_KEEP_EARLY = 65536,   /* a session's keepalive is answered before it is decided */
        NODE_BUG_KEYS_STAY = 131072,   /* keys outlive the sessions that they are bound to */
        NODE_BUG_WATCH_NOW = 262144,   /* a watch of locks begins with its question */
        NODE_BUG_HEIR_AT_ONCE = 1 << 21, /* a new leader ends the writer's lease at once */
        NODE_BUG_HEIR_BLIND = 1 << 22,   /* and though it was renewed meanwhile */
        NODE_BUG_CLAIM_STAYS = 1 << 23,  /* of a switchover that is off */
        NODE_BUG_COPY_NO_GAP = 1 << 24, /* what a copy of other regions' locks missed is not told */
        NODE_BUG_COPY_AHEAD = 1 << 25,  /* it takes a region's now for what it knows */
        NODE_BUG_COPY_MIXED = 1 << 26,  /* it takes the answer to any question for its own */
        NODE_BUG_COPY_STOPS = 1 << 27,  /* it asks no more after a refusal */
};

struct node_config {
        node_id self;
        struct bytes topology; /* the document, borrowed for node_new; the council's own copy, once
                                * there is one, wins */
        uint64_t life; /* of the cluster since its last restore, the same on all nodes; 0: never
                        * restored. Nodes of two lives do not hear each other's agreement */
        uint64_t request_timeout_us; /* an answer comes within it, beyond the wait for a lock that
                                      * was asked for; 0: 3 s */
        uint32_t snapshot_entries;   /* as in raft/consensus.h; 0: its default */
        size_t snapshot_bytes;
        uint32_t trailing_entries;
        size_t snapshot_step_bytes;        /* of a state, made in one turn, about; 0: 128 KiB */
        size_t snapshot_piece_bytes;       /* of a journal, as piece_bytes there */
        uint32_t replication_window_bytes; /* as in replication/replication.h; 0: its default */
        uint32_t replication_batch_bytes;
        uint32_t replication_piece_bytes;
        bool early_votes;  /* a leader whose link broke is replaced before an election timeout */
        bool lock_copies;  /* keep what happens to other regions' locks; a witness never does */
        uint8_t level_max; /* speak as a build of that level (council.h); 0: as this one */
        unsigned bugs;     /* enum node_bug */
        const struct consensus_engine *raft_engine; /* as in raft/consensus.h; NULL: the usual */
        struct consensus_bugs raft_bugs;
        unsigned replication_bugs; /* enum replication_bug */
};

struct node;

/* Checks the topology: ERR_MALFORMED or ERR_INVALID when it is not usable or `self` is not in it,
 * ERR_NOMEM. Keeps `heap` until node_free. The first step must be WORLD_START. */
MUST_USE enum err node_new(struct heap *heap, const struct node_config *config,
                           struct node **ret_node);
void node_free(struct node *node);

/* Begins a backup of what the councils of this node's groups hold (council/backup.h), which is made
 * in the next steps, while all goes on. It may be behind the leaders'. ERR_BUSY: one is being made,
 * or was not taken yet. */
struct backup;
MUST_USE enum err node_backup_begin(struct node *node);

/* True where one has ended; `ret` is the caller's then (buffer_fini), and holds it where `ret_err`
 * is not ERR_NOMEM. */
MUST_USE bool node_backup_take(struct node *node, enum err *ret_err, struct buffer *ret);

/* Before WORLD_START: the journal with which a group of this node begins after a restore, appended
 * to `out`; nothing for a witness. ERR_INVALID (not of config.life), ERR_REFUSED
 * (another cluster's), those of council_restore. */
MUST_USE enum err node_restore(struct node *node, enum world_group group,
                               const struct backup *backup, struct buffer *out);

/* One turn. `ret_effects` is borrowed until the next node_step. Never fails: see node_failed. */
void node_step(struct node *node, const struct world_event *event,
               struct world_effects *ret_effects);

/* ERR_NONE, or why the node cannot go on: ERR_CORRUPT (a journal is damaged before its torn end),
 * ERR_NOMEM. The program should end and say so. */
MUST_USE enum err node_failed(const struct node *node);

/* What the node knows now. Cost: about the size of the struct. */
void node_status(const struct node *node, uint64_t now_us, uint64_t wall_us,
                 struct node_status *ret_status);

/* The part of node_status that is about PostgreSQL. */
void node_postgres(const struct node *node, uint64_t now_us, struct node_status_postgres *ret);

/* The light part of node_status: may traffic go to that region now, as far as this node knows?
 * False for an unknown id. */
bool node_routable(const struct node *node, region_id region, uint64_t now_us);

/* A region's committed state as applied here (enum region_state of topology/state.h). */
int node_region_state(const struct node *node, region_id region);

/* A group's consensus, for status. */
struct consensus_status node_group_status(const struct node *node, enum world_group group);

/* True where both groups of this node have the members that its topology wants, as far as it
 * knows. */
bool node_members_done(const struct node *node);

/* A node that is in the topology no more, and leaves the groups: its link stays until then. */
struct node_leaving {
        node_id id;
        char region[TOPOLOGY_NAME_SIZE];
        struct topology_endpoint link;
};
size_t node_leaving(const struct node *node, struct node_leaving *ret, size_t size);

/* Is that node one to have a link with? */
bool node_knows(const struct node *node, node_id id);

/* Grows whenever the set of nodes to have a link with has changed. */
uint64_t node_peers_version(const struct node *node);

/* The topology in force, borrowed until the next node_step. */
const struct topology *node_topology(const struct node *node);

/* A group's replicated state, borrowed until the next node_step; for lists
 * of locks and the audit. */
const struct council *node_council(const struct node *node, enum world_group group);

/* What this node keeps of the changes of that region's locks; borrowed as above. NULL: nothing. */
const struct lock_copy *node_lock_copy(const struct node *node, region_id region);

/* Counters for metrics and for the simulator's coverage. */
struct node_counters {
        uint64_t messages_in, messages_malformed, requests, requests_forwarded, requests_refused;
        uint64_t elections_won, snapshots, proposals, region_changes, gossip_in;
        uint64_t heirs; /* leases of PostgreSQL's writer that it ended as a new leader */
};
struct node_counters node_counters(const struct node *node);
struct replication_counters node_replication_counters(const struct node *node);

#endif
