/* node_priv.h - what the files of this room share: the node, and what each file does for the
 * others. What nodes tell each other is in message_priv.h, their part in PostgreSQL in
 * postgres_priv.h. */
#ifndef MERIDIAN_NODE_NODE_PRIV_H
#define MERIDIAN_NODE_NODE_PRIV_H

#include "base/buffer.h"
#include "council/council.h"
#include "council/request.h"
#include "council/seats.h"
#include "failover/failover.h"
#include "health/health.h"
#include "lock/lock.h"
#include "node/message_priv.h"
#include "node/node.h"
#include "node/postgres_priv.h"
#include "raft/consensus.h"
#include "replication/replication.h"
#include "topology/topology.h"
#include "world/outbox.h"

#define NODE_PENDING_MAX    16000 /* below COUNCIL_REPEATS_MAX, so that repeats are always known */
#define NODE_PENDING_CHAINS 4096
/* Of these for requests that may wait for a lock: what ends a wait (a release, a renewal that
 * fails, the cancel of a client that left) finds room beside them. */
#define NODE_WAITING_MAX    12000
#define NODE_WATCHES_MAX    1024 /* of locks: each looks at each change of each lock */

/* Kept free for what the node asks on its own behalf. */
#define NODE_PENDING_OWN    24

/* Another node, or this one. In the order of the topology. */
struct node_peer {
        node_id id;
        region_id region; /* 0: of one that is leaving */
        bool up;          /* the link stands */
        bool rtt_known;
        uint64_t rtt_us;
        bool gossip_known;
        uint64_t gossip_us; /* when it came */
        struct gossip gossip;
        uint64_t word_us; /* when it came; 0: never */
        struct member_word word;
        uint64_t behind_us;  /* knows an older topology since then, or was sent the newer one */
        uint64_t leaving_us; /* is not in the topology any more since then; 0: it is */
        struct node_leaving leaving;
};

/* What is followed about a region. */
struct node_region {
        region_id id;
        uint8_t state;           /* as applied */
        uint64_t state_since_us; /* seen in this state since then */
        uint64_t fine_since_us;  /* up and well without a break since then; 0: not now */
        uint64_t proposed_us;    /* a change was proposed then; 0: none is under way */
        node_id carrier;         /* data goes to that node of it; 0: to its first */
};

/* Where an answer goes. */
struct asker {
        uint64_t request;
        node_id from; /* a node; this one: postgres.c */
        uint64_t from_id;
};

/* What this node keeps of another region's locks: lock_copy.c. */
struct node_copy {
        region_id region;
        struct lock_copy *copy;
        bool heard;
        bool forgotten; /* what comes next is forgotten there: the next question is about now */
        bool asks;      /* an answer is due */
        bool asks_now;
        uint64_t ask;       /* which one */
        uint64_t heard_us;  /* when the last answer came */
        uint64_t behind_us; /* the region says less than is known here since then; 0: it does not */
        uint64_t check_us;  /* no earlier look at what the region says of now */
        uint64_t next_us;   /* no earlier question */
};

/* What can be watched. */
enum watch_subject {
        WATCH_NOTHING,
        WATCH_VALUES,
        WATCH_LOCKS,
        WATCH_COPIES,
        WATCH_COUNT,
};

/* A request that waits for its decision. */
struct pending {
        struct pending *next; /* all, as they came */
        struct pending *before;
        struct pending *sequence_next; /* chains of the two tables */
        struct pending *request_next;
        uint64_t sequence;
        uint64_t request; /* the world's name; 0: nobody waits for the answer */
        node_id from;     /* asked on behalf of that node; 0: by our own client */
        uint64_t from_id;
        enum request_kind kind;
        bool elsewhere; /* forwarded to another region */
        node_id target;
        enum world_group group;
        struct bytes command; /* owned: encoded command, or the request when elsewhere */
        bool submitted;
        uint64_t term; /* this node put it into its own log, as the leader of that term; 0: no */
        bool waits;    /* may wait for a lock: counted in waiting_count */
        bool queued;   /* waits for a lock */
        enum watch_subject watch; /* waits for changes: `command` is the request */
        bool read;                /* a question about the group's state: reads.c */
        bool direct;              /* of these, one that only this node may answer */
        struct bytes question;    /* owned: encoded request */
        uint64_t barrier;         /* number of the entry that makes the state current; 0: none */
        region_id region;
        uint64_t arrived_us;
        uint64_t retry_us;
        uint64_t deadline_us;
};

struct node_group {
        enum world_group group;
        struct consensus *consensus;
        struct council *council;
        bool failed;
        bool leading;             /* leader and ready; the clock runs */
        bool waits;               /* not begun yet: members.c */
        uint64_t step_next_us;    /* no earlier change of members */
        uint64_t raise_next_us;   /* no earlier change of the level */
        struct seats_step step;   /* of members, as told last */
        uint64_t leaderless_us;   /* since then; 0: a leader is known */
        uint64_t capture_next_us; /* the next step of a snapshot */
        uint64_t restore_next_us; /* of taking a leader's state over */
        bool backs_up;            /* the capture that is under way is a backup's */
        uint64_t time_next_us;    /* no earlier LOCK_TIME proposal */
        uint64_t time_last_us;    /* of the last command that carried a time */
        struct lock_clock clock;
        struct consensus_status status;
        uint64_t wake_ms;
        uint64_t kv_seen;                 /* revision up to which those who watch were told */
        uint64_t locks_seen;              /* the same of locks */
        size_t watch_counts[WATCH_COUNT]; /* of those who watch */
};

/* A backup that is being made. */
struct node_backup {
        enum {
                BACKUP_NONE,
                BACKUP_CAPTURE,
                BACKUP_JOIN,
                BACKUP_WHOLE,
        } stage;
        size_t group; /* whose turn it is */
        bool has[WORLD_GROUP_COUNT];
        uint64_t index[WORLD_GROUP_COUNT];
        struct buffer states[WORLD_GROUP_COUNT];
        size_t done; /* of that group's state, in JOIN */
        struct buffer out;
        uint32_t sum;
        enum err err;
        uint64_t next_us;
};

struct node {
        struct heap *heap;
        struct node_config config;
        struct topology *topology;
        struct topology *spare; /* to parse into */
        uint64_t topology_bytes_hash;
        struct bytes document; /* the one given at the start, owned */
        struct bytes learned;  /* the newest that another node told of, owned */
        uint64_t learned_epoch;
        uint8_t told_states[TOPOLOGY_REGION_ID_MAX + 1]; /* of a witness: as the leader told */
        node_id founders[TOPOLOGY_REGION_NODES_MAX];
        size_t founder_count;
        bool carries;          /* this node carries its region's data */
        bool outcast;          /* the agreed topology is without this node */
        uint8_t better_region; /* another than the preferred one is better to lead from; 0: none */
        uint64_t better_since_us;             /* since when */
        const struct topology_region *region; /* own */
        region_id region_id;
        struct node_group groups[WORLD_GROUP_COUNT];
        struct node_backup backup;
        struct health *health;
        struct replication *replication;
        struct outbox outbox;
        struct buffer scratch, scratch2;
        struct node_peer *peers;
        size_t peer_count;
        uint64_t peers_version;
        struct node_region regions[TOPOLOGY_REGIONS_MAX];
        size_t region_count;
        struct pending *pending_first;
        struct pending *pending_last;
        struct pending **pending_by_sequence;
        struct pending **pending_by_request;
        size_t pending_count;
        size_t waiting_count;     /* of these, those that may wait for a lock */
        uint64_t pending_next_us; /* before it no deadline or retry is due */
        uint64_t sequence;        /* of commands */
        uint64_t read_last;       /* of reads */
        uint64_t incarnation;
        uint64_t started_us;
        uint64_t seed; /* from the world, another at each start and on each node */
        bool started;
        enum err failed;
        uint64_t now_us, wall_us;
        uint64_t gossip_next_us;
        bool gossip_wanted;
        uint64_t health_next_us;
        bool look; /* something of a region may have changed */
        uint64_t look_next_us;
        bool redis_known, redis_up;
        uint64_t backends_up;
        uint64_t view_hash;
        uint64_t view_version;
        uint64_t board_revision; /* of the last change of what is published of the values */
        uint64_t rtt_seen_us[NODE_STATUS_REGIONS_MAX]; /* as last published */
        struct node_status_note notes[NODE_STATUS_NOTES_MAX];
        uint64_t note_count;
        struct node_counters counters;
        struct postgres postgres;
        struct node_copy copies[TOPOLOGY_REGIONS_MAX];
        size_t copy_count;
        uint64_t copies_next_us;
        uint64_t copy_ask_last;
};

/* node.c */
void node_note(struct node *node, const char *name, const char *format, ...) PRINTF_LIKE(3, 4);
void node_send(struct node *node, node_id peer, const struct envelope *envelope);
const char *node_region_name(const struct node *node, region_id id);

/* peers.c */
struct node_peer *node_peer_of(struct node *node, node_id id);
/* Those of the topology, and behind them those who were in it `before` (or NULL): who is to leave
 * the groups has to be heard until it has left them. */
MUST_USE enum err peers_fill(struct node *node, const struct topology *before);
/* One more, who is in no topology that is known; without memory, nothing happens. */
void node_peer_meet(struct node *node, node_id id);
void node_peer_forget(struct node *node, size_t at);
void node_adopt_topology(struct node *node, struct bytes document);
/* The newest document known here, borrowed. */
struct bytes node_document(const struct node *node);
/* The regions whose data comes here, and goes there: at first between their first nodes. At most
 * REPLICATION_PEERS_MAX; ERR_LIMIT. */
MUST_USE enum err peers_of_replication(const struct node *node, struct replication_peer *ret_peers,
                                       size_t *ret_count);

/* members.c, members_steps.c */
/* Can members change? Not under the library's core. */
bool members_change(const struct node *node);
/* Was something said at that time said lately? */
bool members_fresh(const struct node *node, uint64_t at_us);
size_t members_first(const struct node *node, enum world_group group,
                     struct consensus_member members[CONSENSUS_VOTERS_MAX]);
/* True where this node was not there when the cluster began. */
bool members_later(const struct node *node);
/* Whose word counts when the region's group begins: the nodes of the first document. */
void members_note_founders(struct node *node);
/* May this topology follow on the one in force? False, and why. */
bool members_may_follow(struct node *node, const struct topology *after, char *text, size_t size);
void members_meet(struct node *node);
/* Does this node have what its region's group holds? */
bool members_hold_region(const struct node *node);
/* Begins the region's group when it is time. */
void members_begin(struct node *node);
void members_tell(struct node *node);
MUST_USE enum err member_word_came(struct node *node, struct node_peer *peer, struct bytes data);
MUST_USE enum err member_topology_came(struct node *node, struct bytes document);
void members_tick(struct node *node, struct node_group *group);
/* Was that node heard lately? */
bool members_there(const struct node *node, node_id id);
void members_status(const struct node *node, struct node_status *ret);
/* A witness of the global group has its log, and not the state that it makes. */
bool node_stateless(const struct node *node);
/* Of a region, as it was agreed. */
uint8_t node_state_of(const struct node *node, region_id region);
MUST_USE enum err member_states_came(struct node *node, node_id from, struct bytes data);
/* A leader does not propose the topology that is without it: it hands over, true. */
bool members_give_way(struct node *node, struct node_group *group,
                      const struct council_command *command);

/* carrier.c */
void carrier_start(struct node *node);
/* Takes over, or lets go; and follows where the other regions' data is. */
void carrier_look(struct node *node);
/* Does replication hear of this event? */
bool carrier_hears(const struct node *node, const struct world_event *event);
/* Whose gossip counts for a region: the carrier's, else any fresh one; NULL: none. */
const struct node_peer *carrier_speaks(const struct node *node, region_id region);

/* group.c */
void group_config(const struct node *node, enum world_group group, uint64_t seed,
                  struct consensus_config *ret);
MUST_USE enum err group_open(struct node *node, enum world_group group);
void group_close(struct node_group *group);
/* `known`: the journal held something once. */
MUST_USE enum err group_start(struct node *node, struct node_group *group, struct bytes journal,
                              bool known);
/* With an empty journal, later: alone as the first, or to be taken in. */
MUST_USE enum err group_begin(struct node *node, struct node_group *group, bool join);
/* Carries out all that the group wants, until it wants nothing more. */
void group_pump(struct node *node, struct node_group *group);
/* Proposes a command here when this node leads; false: it does not, or not now. */
bool group_propose(struct node *node, struct node_group *group,
                   const struct council_command *command);
/* The leader's own duties: time for the locks. */
void group_tick(struct node *node, struct node_group *group);
void group_fail(struct node *node, struct node_group *group, const char *why);
/* Why a council that says this cannot go on, for a person. */
const char *group_stop_reason(enum err err);
uint64_t group_wake_us(const struct node *node, const struct node_group *group);

/* snapshots.c */
/* The state as of now takes the place of the log before it, in steps. False: not now. */
bool snapshot_begin(struct node *node, struct node_group *group);
void snapshot_tick(struct node *node, struct node_group *group);
uint64_t snapshot_wake_us(const struct node_group *group);

/* ---- backup.c ---- */
void backup_tick(struct node *node);
uint64_t backup_wake_us(const struct node *node);
void backup_fini(struct node *node);

/* ---- restoring.c: a state that came is taken over ---- */
/* Of an output with a restore. */
void restoring_begin(struct node *node, struct node_group *group,
                     const struct consensus_output *output);
/* What else is in that output is carried out. */
void restoring_carried_out(struct node *node, struct node_group *group);
void restoring_tick(struct node *node, struct node_group *group);
uint64_t restoring_wake_us(const struct node_group *group);

/* pending.c */
MUST_USE bool pendings_open(struct node *node);
/* NULL: too many, or no memory. Deadline and retry are to be set, and told by pending_times. */
struct pending *pending_new(struct node *node, struct asker asker);
void pending_drop(struct node *node, struct pending *pending);
void pending_drop_all(struct node *node);
struct pending *pending_of_sequence(struct node *node, uint64_t sequence);
struct pending *pending_of_request(struct node *node, uint64_t request);
void pending_forget_request(struct node *node, struct pending *pending);
/* Its deadline or retry is new, or earlier than before. */
void pending_times(struct node *node, const struct pending *pending);

/* Gives it another number. */
void pending_number(struct node *node, struct pending *pending, uint64_t sequence);

/* requests.c */
void request_came(struct node *node, uint64_t request, node_id from, uint64_t from_id,
                  struct bytes data);
void request_gone(struct node *node, uint64_t request);
/* Tells the node that proposed a lock command what came of it, ahead of its own log. */
void request_result_send(struct node *node, const struct council_outcome *outcome);
void request_result_came(struct node *node, node_id from, const struct envelope *envelope);
void request_answered(struct node *node, node_id from, uint64_t id, struct bytes reply);
void request_peer_down(struct node *node, node_id peer);
void request_outcome(struct node *node, const struct node_group *group,
                     const struct council_outcome *outcome);
void request_tick(struct node *node);
uint64_t request_wake_us(const struct node *node);
void propose_came(struct node *node, node_id from, const struct envelope *envelope);

void request_answer(struct node *node, struct asker asker, const struct reply *reply);
void request_forward(struct node *node, struct asker asker, const struct request *request,
                     struct bytes data, node_id target);

void request_refuse(struct node *node, struct asker asker, enum request_kind kind,
                    enum reply_code code, const char *text);
/* A place for a request that waits; NULL: refused. */
struct pending *pending_for(struct node *node, struct asker asker, enum request_kind kind,
                            enum world_group group, uint64_t wait_ms);
void pending_begin(struct node *node, struct pending *pending, struct council_command *command);
void pending_answer(struct node *node, struct pending *pending, const struct reply *reply);
void pending_refuse(struct node *node, struct pending *pending, enum reply_code code,
                    const char *text);

/* request_locks.c */
void request_lock_came(struct node *node, struct asker asker, const struct request *request,
                       struct bytes data);
/* Gives up the wait of what this node has asked so: it is answered all the same, by a grant where
 * that came first. False: it does not wait yet; ask again. */
bool request_lock_withdraw(struct node *node, uint64_t id);

/* Asks for a global lock on behalf of this node: postgres_answered comes, maybe at once. */
void request_lock_own(struct node *node, uint64_t id, const struct request *request);
struct reply request_lock_reply(enum request_kind kind, const struct council_outcome *outcome);
void request_lock_outcome(struct node *node, struct pending *pending,
                          const struct council_outcome *outcome);

/* request_changes.c */
void request_topology_came(struct node *node, struct asker asker, const struct request *request);
void request_region_came(struct node *node, struct asker asker, const struct request *request);
/* Why a region may not have that id; put into `text`. */
const char *request_removed_text(region_id id, char *text, size_t size);

/* level.c */
#define LEVEL_PATIENCE_US 5000000
uint8_t level_own(const struct node *node);
void level_tick(struct node *node, struct node_group *group);
/* Refuses what needs a level that the group will not reach by itself now: true when it did. */
bool level_refuses(struct node *node, struct asker asker, enum request_kind kind,
                   const struct node_group *group, unsigned level);

/* Refuses at once where no decision can come: true when it did. */
bool request_no_majority(struct node *node, struct asker asker, enum request_kind kind,
                         const struct node_group *group);
/* Which group decides; `list`: by what keys begin with. */
enum council_place request_place(const struct node *node, bool list, struct bytes key,
                                 struct bytes *ret_region);
/* To a node of the region that decides. */
void request_forward_region(struct node *node, struct asker asker, const struct request *request,
                            struct bytes data, struct bytes region_name, uint64_t wait_ms);

/* values.c */
void values_came(struct node *node, struct asker asker, const struct request *request,
                 struct bytes data);
/* Answers a transaction that only reads, by a state that is current. */
void values_read(struct node *node, struct asker asker, const struct node_group *group,
                 const struct request *request);
void values_outcome(struct node *node, struct pending *pending, const struct kv_result *result);
/* Fills an answer; its bytes are borrowed until the next use of node->scratch. */
void values_reply(struct node *node, enum request_kind kind, const struct kv_result *result,
                  struct reply *ret);
/* Something of a group's values may have changed: those who watch are told. */
void values_changed(struct node *node, struct node_group *group);

/* ---- lock_copy.c: other regions' locks, for the audit ---- */
#define LOCK_COPY_ASK (1ull << 63) /* of an own question: it is about these */
void lock_copy_tick(struct node *node);
uint64_t lock_copy_wake_us(const struct node *node);
void lock_copy_answered(struct node *node, uint64_t id, const struct reply *reply);
void lock_copy_fini(struct node *node);
const struct node_copy *lock_copy_of(const struct node *node, region_id region);
/* A question about a copy; look: fills the answer, false: there is nothing to tell, and it is not
 * `due`. */
void lock_copy_came(struct node *node, struct asker asker, const struct request *request);
bool lock_copy_look(struct node *node, const struct request *request, bool due, struct reply *ret);
void lock_copy_status(const struct node *node, uint64_t now_us, struct node_status_region *ret);

/* watch.c */
/* Answers, or waits for changes; the group is the one that decides about its key. */
void watch_came(struct node *node, struct asker asker, const struct request *request,
                struct bytes data, struct node_group *group);
/* A request to watch locks: to the group that decides. */
void watch_locks_came(struct node *node, struct asker asker, const struct request *request,
                      struct bytes data);
/* There is something new: those who watch it are told. */
void watch_tell(struct node *node, const struct node_group *group, enum watch_subject subject);
/* Locks of the group may have changed. */
void watch_locks_changed(struct node *node, struct node_group *group);
/* The time of one who watches is over: it is told that nothing happened. */
void watch_end(struct node *node, struct pending *pending);
/* Gives the asker an answer that another node has encoded. */
void request_pass_on(struct node *node, struct pending *pending, struct bytes reply);
void request_look_by_log(struct node *node, struct pending *pending, const struct request *request);

/* reads.c */
/* Is this kind of request answered from a group's state, without an entry? */
bool read_is(enum request_kind kind);
/* Answers `asker` by the group's state as of some moment between now and the answer. To add a kind
 * of question: a row in the table of reads.c. */
void read_begin(struct node *node, struct asker asker, const struct request *request,
                enum world_group group);
void read_try(struct node *node, struct pending *pending);
/* Tries it again after that time. */
void read_again(struct node *node, struct pending *pending, uint64_t after_us);
void read_came(struct node *node, node_id from, const struct envelope *envelope);
bool read_answered(struct node *node, struct pending *pending, node_id from, struct bytes data);
void read_ready(struct node *node, const struct node_group *group,
                const struct consensus_ready *ready, size_t count);
bool read_outcome(struct node *node, const struct council_outcome *outcome);

/* gossip.c */
void gossip_make(struct node *node, struct gossip *ret);
void gossip_send(struct node *node);
void gossip_came(struct node *node, struct node_peer *peer, struct bytes data);

/* regions.c */
void regions_sync(struct node *node);
void regions_tick(struct node *node);
void regions_input(const struct node *node, const struct node_region *region,
                   struct failover_input *ret);
bool region_routable(const struct node *node, const struct node_region *region, uint64_t now_us);
bool node_caught_up(const struct node *node);
struct node_region *node_region_of(struct node *node, region_id id);
/* As this node last looked at it; REGION_STATE_COUNT: not known. */
enum region_state region_state_of(const struct node *node, region_id id);
/* Publishes when what matters to routing has changed. */
void regions_publish(struct node *node);

#endif
