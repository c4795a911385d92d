/* consensus.h - one Raft group of one node, behind one door: events in, effects out. Behind it is
 * the core of this room, or the library's (library.h), the oracle of tests.
 *
 * The caller feeds inputs (start, tick, receive, submit, synced, snapshot, transfer) and then calls
 * consensus_take once, which says what is to be done. Any number of inputs may go before one take;
 * commands submitted between two takes share one log entry. The effects, in the order in which the
 * caller carries them out:
 *
 *   writes     bytes to append to the group's journal, or a whole new journal to replace it with
 *   messages   to peers. Every message in the list may leave at once: what promises something (a
 *              vote, a term, an acknowledgement) was held here until consensus_synced covered the
 *              records that it rests on. Keep their order; drop those for a peer without a link
 *   restore    a state to start from: after a restart, or sent by the leader to a follower that is
 *              too far behind. It replaces everything applied before
 *   commands   committed, in order, each exactly once since the last restore
 *
 * Guarantees: no acknowledged entry is lost as long as a majority of voters keeps its journals; one
 * leader per term; a leader that has not heard a majority for one election timeout steps down; a
 * message is validated completely before the core sees it, and so is a recovered journal.
 * Messages may be lost, repeated and come in any order (but the library wants them in order for
 * each connection, which world.h gives).
 *
 * Sans I/O and deterministic: the same inputs give the same effects. Time is the caller's
 * monotonic clock in milliseconds; a value that goes back is taken as the largest seen. Not for use
 * by two threads at once. Memory comes from the heap given, but for what the library itself holds.
 * Costs: O(bytes) each; a snapshot in one call costs the whole state, one in steps O(piece_bytes) a
 * take. */
#ifndef MERIDIAN_RAFT_CONSENSUS_H
#define MERIDIAN_RAFT_CONSENSUS_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"

#define CONSENSUS_VOTERS_MAX        63
#define CONSENSUS_COMMAND_BYTES_MAX ((size_t)1024 * 1024)
#define CONSENSUS_MESSAGE_BYTES_MAX ((size_t)64 * 1024 * 1024)

/* Faults planted on purpose, so that the simulator can prove that it finds them.
 * All false in production. */
struct consensus_bugs {
        bool vote_volatile;    /* a vote is not written to the journal */
        bool term_volatile;    /* a term is not written to the journal */
        bool ack_before_sync;  /* entries count as stored as soon as they are handed to the disk */
        bool send_before_sync; /* messages leave without waiting for their records */
        bool old_term_commit;  /* entries of old terms are committed by counting (figure 8) */
        bool log_by_length;    /* votes go to the longest log, whatever its terms */
        bool log_strict;       /* votes go to longer logs only: `>` instead of `>=` */
        bool no_noop;          /* a leader takes itself for ready without an entry of its term */
        bool read_unready;     /* reads before an entry of the own term is committed */
        bool read_unconfirmed; /* reads without asking a majority */
        bool quorum_half;      /* n / 2 is a majority */
        bool change_unsafe;    /* members change two at a time, and when committed */
        bool snapshot_members; /* a snapshot brings the first members instead of the current */
        bool lease_no_drift;   /* a lease counts from the answer and knows no drift */
        bool amnesiac_votes;   /* a replica that lost its journal votes and never tells */
        bool witness_anywhere; /* a witness is taken wherever its log begins */
        bool suffix_kept; /* at recovery a conflicting suffix is not cut: the first record of an
                           * index wins */
};

enum consensus_member_role {
        CONSENSUS_VOTER = 1, /* votes, applies, may lead */
        CONSENSUS_LEARNER,   /* receives everything, votes for nobody that counts */
        CONSENSUS_WITNESS,   /* votes and keeps the log, has no state; leads only to hand over what
                              * a dead leader left with it alone, and takes no command then. It
                              * becomes a voter only with an empty journal, after a removal */
};

struct consensus_member {
        uint32_t node;
        enum consensus_member_role role;
        enum consensus_member_role wanted; /* of a learner: taken as soon as it has caught up; 0:
                                            * it stays a learner */
        uint8_t priority; /* an up-to-date voter of higher priority is given the leadership */
};

/* Which core does the work behind the door. NULL in the configuration: the usual one. */
struct consensus_engine;
extern const struct consensus_engine consensus_core; /* this room's own */

struct consensus_config {
        const struct consensus_engine *engine;
        uint64_t cluster;       /* identity of the cluster, the same on all its nodes */
        uint32_t group;         /* enum world_group, or any other number the voters agree on */
        uint32_t self;          /* node id, > 0 */
        const uint32_t *voters; /* node ids of the first configuration, distinct, self among them;
                                 * the same set on every voter, in any order. Borrowed for _new */
        size_t voter_count;     /* 1 .. CONSENSUS_VOTERS_MAX */
        const struct consensus_member *members; /* instead of `voters`, `voter_count` of them, where
                                                 * not all are plain voters. Borrowed for _new */
        bool join; /* not a member of the first configuration: an empty journal stays empty until
                        * a leader fills it. `voters` is not used */
        bool amnesiac; /* what the journal held is lost, whatever it holds now: votes for nobody
                        * until the group has taken the vote from this node and given it back */
        uint32_t election_timeout_ms; /* 10 .. 60,000; a follower waits 1 to 2 times this */
        uint32_t heartbeat_ms;        /* 1 .. election_timeout_ms / 2 */
        bool pre_vote;
        bool early_votes; /* who has had no link to the leader for an eighth of the election timeout
                           * takes it for gone, and votes. Then nobody has a lease. Own core only */
        uint64_t seed;    /* of the election timers' jitter */
        uint32_t snapshot_entries; /* a snapshot is wished after so many entries; 0: 4,096 */
        size_t snapshot_bytes;     /* ... or so many bytes of journal; 0: 8 MiB */
        uint32_t trailing_entries; /* kept before a snapshot for slow followers; 0: 512 */
        size_t inflight_bytes;     /* under way to a follower, unanswered; 0: 4 MiB */
        size_t chunk_bytes;        /* of a snapshot in one message; 0: 256 KiB */
        size_t piece_bytes;        /* of a new journal in one write, about; 0: 512 KiB */
        size_t snapshot_bytes_max; /* of a state that is accepted; 0: 1 GiB */
        bool restore_waits; /* a state that comes out is taken over in steps: no command and no read
                             * behind it comes out before consensus_restored. Own core only */
        uint32_t drift_per_mille; /* leases: the most by which one clock may run faster than
                                    * another, 0 .. 900; 0: 100 */
        struct consensus_bugs bugs;
};

/* A journal for config->self that begins with `state` as of log entry `index` (> 0), with the
 * members of the configuration: to be appended to an empty `out`, and given to consensus_start on
 * that node. For restores: all nodes must begin with the same state and index. ERR_INVALID,
 * ERR_NOMEM. */
struct buffer;
MUST_USE enum err consensus_seed(struct heap *heap, const struct consensus_config *config,
                                 uint64_t index, struct bytes state, struct buffer *out);

/* How many of a journal's first bytes are durable, by the word of its own records: each says what
 * was told as durable when it was written. 0: none of it is known. Cost: O(journal). */
uint64_t consensus_journal_known(struct bytes journal);

enum consensus_role {
        CONSENSUS_FOLLOWER,
        CONSENSUS_CANDIDATE,
        CONSENSUS_LEADER,
};

struct consensus_message {
        uint32_t peer;
        struct bytes data;
};

/* In world.h's words: WORLD_JOURNAL_APPEND and so on. */
enum consensus_write_kind {
        CONSENSUS_APPEND,
        CONSENSUS_REPLACE, /* a whole new journal */
        CONSENSUS_ASIDE,   /* a piece of a new journal; the old one goes on */
        CONSENSUS_SWAP,    /* its last piece: it takes the place of the old one */
};

struct consensus_write {
        enum consensus_write_kind kind;
        uint64_t generation; /* of the journal that it goes to */
        uint64_t offset;     /* in it; 0 for a replacement */
        struct bytes data;
};

struct consensus_command {
        uint64_t index; /* of the log entry; several commands may share one */
        uint64_t term;
        struct bytes data;
};

/* An answer to consensus_read. ERR_NONE: what is applied after the commands of this take is current
 * for a reader that asked then. ERR_NOT_LEADER: ask the leader. */
struct consensus_ready {
        uint64_t id;
        uint64_t index;
        enum err err;
};

/* Everything borrowed from the consensus until the next call on it. */
struct consensus_output {
        const struct consensus_write *writes;
        size_t write_count;
        const struct consensus_message *messages;
        size_t message_count;
        bool restore; /* restore_state is valid; apply it before the commands */
        uint64_t restore_index;
        uint64_t restore_term;
        struct bytes restore_state; /* what an earlier consensus_snapshot was given */
        bool restore_waits; /* restore_state stays until consensus_restored, which is waited for, or
                             * until a take brings a newer state, which is to be restored instead */
        const struct consensus_command *commands;
        size_t command_count;
        const struct consensus_ready *reads;
        size_t read_count;
        bool changed;         /* role, term, leader or readiness differ from the last take */
        bool snapshot_wished; /* call consensus_snapshot when convenient (after the commands) */
        uint64_t wake_ms;     /* call consensus_tick then, at the latest */
};

struct consensus_status {
        enum consensus_role role;
        bool started;
        bool failed;     /* the disk failed, or the log broke a promise: takes part no more */
        bool ready;      /* leader, and an entry of its own term is applied: its state is current */
        uint32_t leader; /* node id; 0: not known */
        uint32_t vote;   /* node id voted for in this term; 0: none */
        uint64_t term;
        uint64_t commit_index;
        uint64_t applied_index; /* handed out by consensus_take */
        uint64_t last_index;
        uint64_t stored_index; /* durable here */
        uint64_t snapshot_index;
        uint64_t generation;
        uint64_t journal_bytes;    /* written in this generation */
        bool amnesiac;             /* lost its journal: takes part, but votes for nobody yet */
        bool member;               /* is in the newest configuration that it knows */
        bool lease;                /* leader, and may answer reads at once now */
        uint64_t members_index;    /* of the entry with the newest configuration */
        uint32_t followers_behind; /* leader: members that need a snapshot or are being probed */
        uint64_t inherited_ms;     /* leader: all entries before its first one were made before that
                                    * time of its own clock, whoever made them; 0: not known */
};

/* What was found in a journal at start. */
struct consensus_recovery {
        uint64_t valid_bytes;   /* whole records from the beginning */
        uint64_t dropped_bytes; /* a torn end, never synced: cut */
        uint64_t corrupt_at;    /* ERR_CORRUPT: offset of the damaged record */
        uint64_t term;
        uint64_t snapshot_index;
        uint64_t last_index;
        bool fresh; /* nothing was there: the first configuration was written */
};

struct consensus;

/* Keeps `heap` until consensus_free; copies the configuration. ERR_INVALID: a value
 * out of range; ERR_NOMEM. */
MUST_USE enum err consensus_new(struct heap *heap, const struct consensus_config *config,
                                struct consensus **ret_consensus);

/* NULL is fine. */
void consensus_free(struct consensus *consensus);

/* First call, once: all bytes that the journal held (empty: a first start), and how many of them
 * are known to have been synced (0 when not known; 1: some, so an empty one is lost). The journal
 * is generation 0 now, whatever its past, and its offsets count from its first byte, recovered
 * bytes included. A torn end is cut by a replacement (generation 1) in the next take.
 * Errors, all final for this journal, with `ret` filled in: ERR_CORRUPT - damage before the
 * end, or below `synced`: stop, keep the file for a person, rejoin as a new member; ERR_VERSION;
 * ERR_REFUSED - it is another cluster's, group's or node's journal; ERR_NOMEM. */
MUST_USE enum err consensus_start(struct consensus *consensus, uint64_t now_ms,
                                  struct bytes journal, uint64_t synced,
                                  struct consensus_recovery *ret);

/* Time passes. Cheap when nothing is due. */
void consensus_tick(struct consensus *consensus, uint64_t now_ms);

/* A message from a peer, as that peer's consensus made it. ERR_MALFORMED, ERR_TRUNCATED,
 * ERR_VERSION: refused, nothing changed (count it; close the link if you like). ERR_REFUSED: of
 * another cluster or group, or of a node that is not in the configuration. */
MUST_USE enum err consensus_receive(struct consensus *consensus, uint64_t now_ms, uint32_t from,
                                    struct bytes data);

/* Proposes a command (copied; 1 .. CONSENSUS_COMMAND_BYTES_MAX bytes). ERR_NONE means only that
 * the leader has taken it: it is decided when it comes out of consensus_take, and it may get lost
 * with the leadership, so identify your commands and repeat. ERR_NOT_LEADER: see status.leader;
 * ERR_BUSY: leadership is being handed over or too much is under way; ERR_INVALID: its size. */
MUST_USE enum err consensus_submit(struct consensus *consensus, uint64_t now_ms,
                                   struct bytes command);

/* The journal of `generation`, the one in use or one that is written aside, is durable up to
 * `offset`. Older generations are ignored. */
void consensus_synced(struct consensus *consensus, uint64_t now_ms, uint64_t generation,
                      uint64_t offset);

/* Writing the journal failed: from now on nothing is promised, sent, or led by this node. */
void consensus_failed(struct consensus *consensus);

/* Gives the state that results from all commands of all takes so far, so that the log before can
 * go. Copied. Does nothing when no entry was applied since the last one. ERR_BUSY: the disk has to
 * catch up first (snapshot_wished comes again); ERR_LIMIT: larger than snapshot_bytes_max, or than
 * the library can send; ERR_INVALID: a state has at least one byte. */
MUST_USE enum err consensus_snapshot(struct consensus *consensus, struct bytes state);

/* The same in steps, while commands go on. Begin: the state that results from all commands of all
 * takes so far is being put together. ERR_BUSY: not now; ERR_UNSUPPORTED: by this core. Give: here
 * it is, in memory of the heap of consensus_new, which is taken over; the buffer is empty then.
 * From here on each take brings a piece of a new journal, and consensus_synced (of its generation)
 * the next one. ERR_NOT_FOUND: a leader's state has come meanwhile; ERR_LIMIT, ERR_NOMEM: nothing
 * has changed; ERR_INVALID: it is empty. Where it is not ERR_NONE the buffer is the caller's still,
 * or empty. Drop: it will not be given; nothing happens where none was begun. */
MUST_USE enum err consensus_snapshot_begin(struct consensus *consensus);
MUST_USE enum err consensus_snapshot_give(struct consensus *consensus, struct buffer *state);
void consensus_snapshot_drop(struct consensus *consensus);

/* The state that came with restore_waits has been taken over: what is behind it comes out of the
 * next takes. Until then this node leads nothing that has to be current: it is not ready. Does
 * nothing where none waits. */
void consensus_restored(struct consensus *consensus);

/* Hands leadership to `peer` (0: any voter that is up to date). ERR_NOT_LEADER, ERR_NOT_FOUND,
 * ERR_BUSY. It may not happen; look at the status after one election timeout. */
MUST_USE enum err consensus_transfer(struct consensus *consensus, uint64_t now_ms, uint32_t peer);

/* Asks when this leader's state is current: the answer with this `id` comes out of a take. Many
 * reads share one round of messages. With `lease` the answer may come at once, without a round, on
 * the word of clocks: no clock runs faster than another by more than drift_per_mille, and a caller
 * that was paused asks consensus_lease_held after reading and before answering.
 * ERR_NOT_LEADER; ERR_BUSY: too many wait; ERR_UNSUPPORTED: by this core. */
MUST_USE enum err consensus_read(struct consensus *consensus, uint64_t now_ms, uint64_t id,
                                 bool lease);

/* The link to a peer broke. A hint: where that is the leader, this node stands for election as
 * soon as the election timeout allows, with less chance on top; by `early_votes` after a quarter of
 * it. No promise depends on it. */
void consensus_peer_gone(struct consensus *consensus, uint64_t now_ms, uint32_t peer);

/* There is a link to that peer again. */
void consensus_peer_back(struct consensus *consensus, uint64_t now_ms, uint32_t peer);

/* True while no other node can have been elected, by the clocks' word. */
bool consensus_lease_held(const struct consensus *consensus, uint64_t now_ms);

/* Adds a member or changes one, one at a time: an entry in the log, in force from its writing. A
 * new voter or witness begins as a learner and is promoted when it has caught up. While a disk is
 * lost, a voter less may be one too many: first let it recover.
 * ERR_NOT_LEADER; ERR_BUSY: an earlier change is under way, or this leader is not ready;
 * ERR_EXISTS: nothing would change; ERR_LIMIT: too many; ERR_INVALID: nobody would be left who can
 * lead, or there is no way from the one role to the other; ERR_NO_MAJORITY: those who would then
 * decide are not there. */
MUST_USE enum err consensus_member_set(struct consensus *consensus, uint64_t now_ms,
                                       const struct consensus_member *member);

/* Takes a member out, also this one: then it leads until that is committed. Errors as above, and
 * ERR_NOT_FOUND. */
MUST_USE enum err consensus_member_remove(struct consensus *consensus, uint64_t now_ms,
                                          uint32_t node);

/* The members of the newest configuration known here: how many, and up to `size` of them. */
size_t consensus_members(const struct consensus *consensus, struct consensus_member *ret,
                         size_t size);

/* What is to be done now. The order of calls: take, carry out, and only then the next input. */
void consensus_take(struct consensus *consensus, struct consensus_output *ret);

/* Where it stands. Any time. */
struct consensus_status consensus_status(const struct consensus *consensus);

/* True when this node leads, or has heard the leader within the last election timeout: a command
 * has a chance. For status, and to answer NOMAJORITY at once. */
bool consensus_has_majority(const struct consensus *consensus, uint64_t now_ms);

/* "follower", "candidate", "leader"; static. */
const char *consensus_role_name(enum consensus_role role);

#endif
