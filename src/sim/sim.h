/* sim.h - a whole cluster in one process, from one seed: the same node code that runs on real
 * machines, with simulated clocks, network, disks, Redis servers and clients, and with faults.
 *
 * A run has three parts: faults and load, then the faults end and everything heals, then the load
 * ends and all must converge. Checkers watch throughout; the first broken promise ends the run. The
 * same seed gives the same run, event by event. */
#ifndef MERIDIAN_SIM_SIM_H
#define MERIDIAN_SIM_SIM_H

#include "base/bytes.h"
#include "raft/consensus.h"

#include <stdint.h>

#define SIM_VIOLATION_MAX 512

/* States that must be seen sometimes over many seeds, or the generator is blind. */
#define SIM_COVER_LIST(X)                                                                          \
        X(COVER_LEADER_CHANGES, "a second leader of the global group")                             \
        X(COVER_CRASH, "a node crashed")                                                           \
        X(COVER_CRASH_UNSYNCED, "a crash lost journal bytes that were not synced")                 \
        X(COVER_CRASH_TORN, "a crash left a damaged journal end")                                  \
        X(COVER_CRASH_LEADER, "the leader of the global group crashed")                            \
        X(COVER_PAUSE, "a node was paused beyond an election timeout")                             \
        X(COVER_CUT, "a link was cut in both directions")                                          \
        X(COVER_CUT_ONE_WAY, "a link was cut in one direction")                                    \
        X(COVER_RESET, "a connection was reset with messages under way")                           \
        X(COVER_CLOCK_JUMP, "a wall clock jumped")                                                 \
        X(COVER_DISK_FAILED, "a journal failed")                                                   \
        X(COVER_SNAPSHOT, "a journal was replaced by a snapshot")                                  \
        X(COVER_RESTORE_STEPS, "a state that came was taken over in steps")                        \
        X(COVER_BACKUP, "a backup was made while all went on")                                     \
        X(COVER_CRASH_REPLACE, "a crash while a journal was being replaced")                       \
        X(COVER_NO_MAJORITY, "a request was refused for want of a majority")                       \
        X(COVER_TIMEOUT, "a request timed out")                                                    \
        X(COVER_FORWARDED, "a lock of another region was granted")                                 \
        X(COVER_HISTORY, "all that the users of locks heard has one order")                        \
        X(COVER_LOCK_READ, "a question about a lock was answered without an entry")                \
        X(COVER_LOCK_WAITED, "a lock was granted after a wait")                                    \
        X(COVER_LOCK_EXPIRED, "a lock went to another owner because its lease ended")              \
        X(COVER_LOCK_FENCED, "a holder that was late was refused by the resource")                 \
        X(COVER_SET_GRANTED, "several locks were granted at once")                                 \
        X(COVER_SET_WAITED, "several locks were granted after a wait")                             \
        X(COVER_SESSION_ENDED, "a session's end was told")                                         \
        X(COVER_BOUND_READ, "a key was read while the session that it is bound to lived")          \
        X(COVER_WATCH_MOVED, "a watch of locks went on at another node")                           \
        X(COVER_COPY, "a copy of another region's lock changes grew, and is what happened there")  \
        X(COVER_COPY_GAP, "a copy of another region's lock changes told a gap")                    \
        X(COVER_VALUES, "what was done to values was found linearizable")                          \
        X(COVER_VALUE_REPEATED, "a transaction was repeated, and known by its id")                 \
        X(COVER_MINORITY_SERVES, "a region cut off granted its own locks and refused global ones") \
        X(COVER_REGION_DOWN, "a region left the view")                                             \
        X(COVER_REGION_BACK, "a region returned to the view")                                      \
        X(COVER_DRAINED, "a region was drained by an operator")                                    \
        X(COVER_REDIS_CRASH, "a Redis crashed")                                                    \
        X(COVER_REDIS_TAIL_LOST, "a Redis lost the end of its log")                                \
        X(COVER_CLOCK_BACK, "a Redis came back with its clock behind its stamps")                  \
        X(COVER_PULL, "a lost tail was asked back from a peer")                                    \
        X(COVER_HOLE_CLOSED, "a hole in a stream was closed")                                      \
        X(COVER_RELAYED, "a stream went round by a third region")                                  \
        X(COVER_ROUND, "a link was cut for long while a third region reached both ends")           \
        X(COVER_STATE_TRANSFER, "a state transfer was completed")                                  \
        X(COVER_GAP, "a ring began later than asked")                                              \
        X(COVER_WINDOW_FULL, "a window of unacknowledged batches was full")                        \
        X(COVER_EXPIRED_KEY, "a key expired")                                                      \
        X(COVER_FIVE_REGIONS, "five regions ran")                                                  \
        X(COVER_WITNESS, "a witness region voted")                                                 \
        X(COVER_MANY_NODES, "regions had one to three nodes")                                      \
        X(COVER_NODE_ADDED, "a node was added to a region")                                        \
        X(COVER_NODE_REMOVED, "a region's first node was taken away")                              \
        X(COVER_CARRIER, "another node of a region took its data over")                            \
        X(COVER_REGION_OF_THREE, "a region had three nodes")                                       \
        X(COVER_POSTGRES_TAKEOVER, "a PostgreSQL standby was promoted")                            \
        X(COVER_POSTGRES_TAIL, "a PostgreSQL server lost what it had not flushed")                 \
        X(COVER_POSTGRES_ASIDE, "a former primary kept aside what only it had")                    \
        X(COVER_POSTGRES_HELD, "commits were held as no other region kept up")                     \
        X(COVER_POSTGRES_LOSS, "an asynchronous commit was lost in a takeover")                    \
        X(COVER_UPGRADED, "all nodes were changed to a newer build, and the level rose")           \
        X(COVER_CHASE, "PostgreSQL's writer was chased for longer than its lease")                 \
        X(COVER_HEIR, "a new leader ended the lease of a writer that had stopped")                 \
        X(COVER_ORDER_OFF, "a switchover was given up, and then the writer died")                  \
        X(COVER_STALE_SEED, "the leader of the global group was slowed and cut off, and asked")    \
        X(COVER_STALE, "a leader was asked that others had replaced")                              \
        X(COVER_CALM, "a run had no fault but light packet loss")

enum sim_cover {
#define SIM_COVER_ENUM(name, text) name,
        SIM_COVER_LIST(SIM_COVER_ENUM)
#undef SIM_COVER_ENUM
        COVER_COUNT
};

/* A planted bug: which switch, and what it breaks. */
struct sim_bug {
        const char *name;
        const char *breaks;
        uint32_t budget; /* seeds within which it must be found */
        uint32_t first;  /* where to begin, counted from the seed asked for: a rare one's place */
};

#define SIM_BUG_NONE (-1)

struct sim_options {
        uint64_t seed;
        int bug;                             /* index into sim_bugs, or SIM_BUG_NONE */
        bool trace;                          /* a line for each event on stdout */
        const struct consensus_engine *raft; /* NULL: the usual core */
};

struct sim_result {
        bool violated;
        char violation[SIM_VIOLATION_MAX];
        uint64_t hash; /* of the whole history */
        uint64_t events;
        uint64_t virtual_us;
        uint64_t cover[COVER_COUNT];
};

/* Runs one seed. Cost: some milliseconds. */
void sim_run(const struct sim_options *options, struct sim_result *ret);

const struct sim_bug *sim_bugs(size_t *ret_count);
const char *sim_cover_text(enum sim_cover cover);

#endif
