/* core_priv.h - private to raft/: the state of the room's own core, and what its files do for each
 * other.
 *
 *   core.c       the inputs and the take
 *   log.c        journal, entries, the members in force; what is durable
 *   recover.c    a journal's bytes to a log, at start
 *   election.c   terms, votes, leadership won, lost, handed over
 *   replicate.c  the leader's side: followers' progress, commit, the lease
 *   transfer.c   leadership handed over
 *   reads.c      reads without a log entry
 *   follow.c     the follower's side: entries and snapshots from a leader
 *   snapshot.c   states: made, kept, installed
 *   compact.c    a state takes the place of the log before it, in steps
 *   change.c     members: changes, promotion, replicas that lost their journal
 *   post.c       messages out, held until what they promise is durable
 *
 * What must be true at the end of every input (core_check):
 *   snapshot.index <= applied <= commit <= last; stored <= last; a vote is only in the own term;
 *   a leader's log never loses an entry; an amnesiac never leads. */
#ifndef MERIDIAN_RAFT_CORE_PRIV_H
#define MERIDIAN_RAFT_CORE_PRIV_H

#include "base/buffer.h"
#include "base/rng.h"
#include "raft/consensus.h"
#include "raft/engine.h"
#include "raft/entries.h"
#include "raft/journal.h"
#include "raft/members.h"
#include "raft/message.h"

enum {
        FLIGHTS_MAX = 256, /* messages with entries under way to one follower */
        READS_MAX = 65536, /* that wait for their round */
        BACKLOG_ENTRIES_MAX = 4096,
        BATCH_BYTES_MAX = CONSENSUS_COMMAND_BYTES_MAX + 16,
};

/* When the journal is durable up to `end`, so are the entries up to `last`. */
struct mark {
        uint64_t end;
        uint64_t last;
};

/* A message that waits for the journal to be durable up to `need`. */
struct outgoing {
        uint32_t peer;
        uint64_t need;
        struct bytes data; /* owned */
};

/* A state that stands for all entries up to `index`. Several hold on to one: the log, and each
 * follower that it is being sent to. */
struct snapshot {
        unsigned holders;
        uint64_t index;
        uint64_t term;
        uint64_t members_index;
        struct members members;
        bool crc_known;
        uint32_t crc;
        struct bytes state; /* owned */
};

/* A snapshot on its way in. */
struct arrival {
        bool open;
        bool whole;   /* being written beside the journal, which goes on (compact.c) */
        bool writing; /* it has taken the journal's place: durable at `need` */
        uint64_t need;
        uint64_t leader_term; /* of the leader that sends it */
        uint64_t index;
        uint64_t term;
        uint64_t members_index;
        struct members members;
        uint64_t size;
        uint32_t crc;
        uint32_t sum; /* of what is here */
        struct buffer state;
};

/* A state on its way into a new journal: compact.c has the stages. */
struct compaction {
        enum {
                COMPACT_NONE,
                COMPACT_MARKED,
                COMPACT_SUM,
                COMPACT_HEAD,
                COMPACT_STATE,
                COMPACT_ENTRIES,
        } stage;
        uint64_t index;
        uint64_t term;
        uint64_t members_index;
        struct members members;
        struct snapshot *made; /* held */
        bool arrived;          /* it is a leader's: no entries follow it */
        uint32_t sum;          /* of the record so far */
        uint32_t state_sum;
        size_t done;         /* of the state, in this stage */
        uint64_t next;       /* entry to be written */
        uint64_t generation; /* of the new journal */
        uint64_t written;
        uint64_t durable;
        struct buffer piece;
};

/* Members that are in force from an entry on. */
struct regime {
        uint64_t index;
        struct members members;
};

/* PROBE: one message at a time, until it is known where the logs agree. REPLICATE: entries flow
 * without waiting. SNAPSHOT: what it needs is gone from the log; it is being sent the state. */
enum progress_state {
        PROGRESS_PROBE,
        PROGRESS_REPLICATE,
        PROGRESS_SNAPSHOT,
};

struct flight {
        uint64_t last;
        size_t bytes;
};

struct progress {
        uint32_t node;
        enum progress_state state;
        uint64_t match; /* durable there */
        uint64_t next;
        bool waiting;  /* PROBE: the answer is outstanding */
        bool amnesiac; /* not in the life that the members know */
        bool heard;
        bool begin_known;
        uint64_t begin; /* what it has in its log begins there, or before */
        uint64_t life;
        uint64_t round_min; /* answers to older rounds are of another life */
        uint64_t active_ms; /* heard from */
        uint64_t round;     /* newest that it answered */
        uint64_t sent_ms;   /* when that was sent */
        uint64_t commit_sent;
        struct flight flights[FLIGHTS_MAX];
        size_t flight_head;
        size_t flight_count;
        size_t flight_bytes;
        struct snapshot *snapshot; /* held */
        uint64_t offset;           /* it has so much */
        uint64_t offset_sent;
        uint64_t offset_seen; /* at the last heartbeat: no progress since means loss */
};

/* A read that waits: for its round to be answered by a majority. */
struct pending_read {
        uint64_t id;
        uint64_t index;
        uint64_t round;
};

enum core_role {
        CORE_FOLLOWER,
        CORE_PROSPECT, /* asks whether it would be elected */
        CORE_CANDIDATE,
        CORE_LEADER,
};

struct core {
        struct heap *heap;
        struct consensus_config config;
        struct rng rng;
        uint64_t now_ms;
        bool started;
        bool failed;

        /* What is replicated. */
        struct entries entries;
        struct snapshot *snapshot; /* NULL: there is none */
        struct arrival arrival;
        struct compaction compaction;
        struct snapshot *restoring; /* held until the caller has taken it over; NULL: none */
        struct regime *regimes;     /* the first is committed; the last is in force */
        size_t regime_count;
        size_t regime_size;
        uint64_t commit;
        uint64_t applied;
        uint64_t applied_taken; /* at the last take */

        /* The journal. Offsets are of the current generation. */
        struct journal_meta meta; /* as last written, and in force */
        uint64_t generation;
        uint64_t generation_last; /* given to a journal, or to one that is being made */
        uint64_t written;
        uint64_t durable;
        uint64_t base; /* size of the journal when this generation began */
        uint64_t meta_need;
        uint64_t stored; /* entries durable here */
        struct buffer pending;
        bool pending_replace; /* it is a whole new journal, or the end of one */
        bool pending_swap;    /* the end of one that was written aside */
        struct mark *marks;
        size_t mark_count;
        size_t mark_size;

        /* Role. */
        enum core_role role;
        uint32_t leader;
        uint64_t heard_ms; /* the leader's word; votes are refused for an election timeout */
        uint64_t election_ms;
        bool gone;        /* the link to the leader broke, */
        uint64_t gone_ms; /* then */
        bool away;        /* it broke at away_ms, and is not there again */
        uint64_t away_ms;
        bool transfer_vote; /* this candidacy was asked for by the leader */
        bool granted[CONSENSUS_VOTERS_MAX];
        uint64_t verified;     /* as follower: agrees with the leader of this term up to here */
        uint64_t acknowledged; /* and has told so */
        uint64_t everywhere;
        struct message_round round_heard;
        bool entry_new;    /* the clock has not moved on since the newest entry came */
        uint64_t entry_ms; /* it had come by then; 0: not known */

        /* Leader. */
        struct progress *followers;
        size_t follower_count;
        uint64_t lead_from; /* its first entry: ready when that is applied */
        uint64_t lead_since_ms;
        uint64_t inherited_ms; /* entry_ms, before its first entry */
        uint64_t heartbeat_ms;
        uint64_t quorum_check_ms;
        uint64_t round;
        bool round_due; /* reads wait for a round that has not begun */
        uint32_t transferee;
        uint64_t transfer_until_ms;
        uint64_t placed_ms; /* last look for a better leader */
        bool lease_void;    /* somebody was told to stand for election in this term */
        struct pending_read *reads;
        size_t read_count;
        size_t read_size;

        /* Out. */
        struct outgoing *queue;
        size_t queue_count;
        size_t queue_size;
        struct buffer encoded;
        size_t released_count;
        struct consensus_message *messages;
        size_t messages_size;
        struct consensus_command *commands;
        size_t command_count;
        size_t command_size;
        struct consensus_ready *ready;
        size_t ready_count;
        size_t ready_size;
        struct consensus_write writes[2];
        bool restore;
        bool taken;                   /* the output above is out: forget it at the next input */
        struct consensus_status told; /* at the last take */

        /* In: commands waiting to become one entry, each as a slice. */
        struct buffer batch;
};

/* core.c */
/* From now on nothing is promised: memory or disk failed, or the log broke a promise. */
void core_fail(struct core *core);
/* Makes room for one more of `count` items of `item` bytes; false (and failed) without memory. */
MUST_USE bool core_grow(struct core *core, void **items, size_t count, size_t *size, size_t item);
bool core_ready(const struct core *core);
/* It has started and not failed. */
bool core_active(const struct core *core);
/* Opens every input: moves time on and drops what the last take handed out. */
void core_begin(struct core *core, uint64_t now_ms);
/* What has become durable counts, what is committed is handed out, reads become ready. */
void core_advance(struct core *core);
/* What was submitted becomes one entry; it is dropped where this node leads no more. */
void core_flush(struct core *core);

/* core_take.c: as consensus.h says of those of these names. */
void core_take(void *engine, struct consensus_output *ret);
struct consensus_status core_status(const void *engine);
bool core_has_majority(const void *engine, uint64_t now_ms);

/* log.c */
uint64_t log_last(const struct core *core);
/* 0: not known any more, or not yet. */
uint64_t log_term(const struct core *core, uint64_t index);
void log_meta(struct core *core);
/* The record of term and vote, in a journal of which `durable` bytes are. */
void log_meta_write(const struct core *core, uint64_t durable, struct buffer *out);
/* Appends one entry, whose index is log_last + 1. */
void log_append(struct core *core, uint64_t term, enum entry_type type, struct bytes data);
/* Drops entries from `index` on: they conflict with the leader's. */
void log_cut(struct core *core, uint64_t index);
/* A whole new journal; `snapshot` and the entries kept. */
void log_rewrite(struct core *core);
void log_synced(struct core *core);
/* A journal that was written aside up to `written` takes the place of this one with its last
 * piece, behind which all entries are in it. */
void log_swap(struct core *core, uint64_t generation, uint64_t written, struct bytes piece);
/* Members in force; NULL: none are known yet. */
const struct regime *log_regime(const struct core *core);
const struct member *log_self(const struct core *core);
/* This node's own vote counts. */
bool log_votes(const struct core *core);
/* This node keeps the log, but no state. */
bool log_stateless(const struct core *core);
/* Takes a configuration from an entry or snapshot into force. */
void log_regime_push(struct core *core, uint64_t index, const struct members *members);
struct journal_identity log_identity(const struct core *core);

/* recover.c */
MUST_USE enum err recover_journal(struct core *core, struct bytes journal, uint64_t synced,
                                  struct consensus_recovery *ret);

/* election.c */
void election_timer(struct core *core);
void election_tick(struct core *core);
void election_leader_gone(struct core *core, uint32_t peer);
void election_leader_back(struct core *core, uint32_t peer);
void election_step_down(struct core *core, uint64_t term, uint32_t leader);
void election_vote(struct core *core, const struct message *message);
void election_vote_result(struct core *core, const struct message *message);
void election_timeout_now(struct core *core, const struct message *message);
/* So many votes, out of all, decide. */
size_t election_quorum(const struct core *core, size_t voting);

/* replicate.c */
void replicate_begin(struct core *core);
void replicate_end(struct core *core);
void replicate_members(struct core *core);
void replicate_tick(struct core *core);
/* Sends what may be sent. */
void replicate_flush(struct core *core);
void replicate_append_result(struct core *core, const struct message *message);
void replicate_chunk_result(struct core *core, const struct message *message);
void replicate_commit(struct core *core);
struct progress *replicate_find(struct core *core, uint32_t node);
bool replicate_lease(const struct core *core, uint64_t now_ms);
bool replicate_active(const struct core *core, const struct progress *progress);
uint64_t replicate_wake(const struct core *core);
uint64_t replicate_needed(const struct core *core);

/* transfer.c */
MUST_USE enum err transfer_to(struct core *core, uint32_t peer);
/* The one who is to take over may have all by now. */
void transfer_try(struct core *core);
/* Another is to lead: looked at now and then. */
void transfer_place(struct core *core);

/* reads.c */
MUST_USE enum err reads_add(struct core *core, uint64_t id, bool lease);
void reads_advance(struct core *core);
void reads_refuse(struct core *core);

/* follow.c */
MUST_USE enum err follow_append(struct core *core, struct message *message);
MUST_USE enum err follow_chunk(struct core *core, const struct message *message);
/* Tells the leader what has become durable. */
void follow_synced(struct core *core);

/* snapshot.c */
MUST_USE struct snapshot *snapshot_new(struct core *core, uint64_t index, struct bytes state);
/* Computed when it is first asked for. */
uint32_t snapshot_crc(struct snapshot *snapshot);
struct snapshot *snapshot_hold(struct snapshot *snapshot);
void snapshot_drop(struct core *core, struct snapshot *snapshot);
MUST_USE enum err snapshot_take(struct core *core, struct bytes state);
bool snapshot_wished(const struct core *core);
/* The members in force at an applied index; NULL: nobody has told yet. */
const struct regime *snapshot_regime(const struct core *core, uint64_t index);
/* The first entry to keep before a state as of `index`. */
uint64_t snapshot_keep(const struct core *core, uint64_t index);
/* A witness has no state: its log is cut behind by the core itself. */
void snapshot_witness(struct core *core);
void arrival_close(struct core *core);
void arrival_begin(struct core *core);
/* Its journal is written but for `piece`: it takes the place of the old one, or is not needed. */
void arrival_swap(struct core *core, struct bytes piece);
void arrival_durable(struct core *core);
/* A state was handed out, or is about to be, and the caller has not taken it over yet. */
bool restore_waits(const struct core *core);

/* compact.c */
MUST_USE enum err compact_mark(struct core *core);
MUST_USE enum err compact_give(struct core *core, struct buffer *state);
/* A leader's state takes the place of all that is here, by the same steps from its sum on. */
void compact_arrived(struct core *core, struct snapshot *made);
/* What is under way here ends, an arrival that is whole with it. */
void compact_drop(struct core *core);
/* Entries from `index` on are others now. */
void compact_cut(struct core *core, uint64_t index);
void compact_synced(struct core *core, uint64_t generation, uint64_t offset);
/* There is something to do at the next take. */
bool compact_due(const struct core *core);
/* The next piece; of length 0: none. */
void compact_take(struct core *core, struct consensus_write *ret);

/* change.c */
MUST_USE enum err change_set(struct core *core, const struct consensus_member *member);
MUST_USE enum err change_remove(struct core *core, uint32_t node);
/* As leader: promotes who has caught up, takes the vote from who has lost its journal. */
void change_tick(struct core *core);
/* As any: what a committed configuration means for this node. */
void change_committed(struct core *core, uint64_t index, const struct members *members);

/* post.c */
void post_send(struct core *core, uint32_t peer, struct message *message);
size_t post_release(struct core *core);
void post_forget(struct core *core);
/* A new journal begins: what was durable stays so, the rest waits for all of the new one. */
void post_rebase(struct core *core, uint64_t durable_before);
void post_fini(struct core *core);

#endif
