/* history.h - one seed is one history of a group: delays, loss, repetition and reordering of
 * messages, cuts, slow disks, crashes with torn journals, lost disks, pauses, clocks at different
 * rates, members that come and go, snapshots, reads; then the faults end and all must agree.
 *
 * Checked: every node applies the same commands in the same order; no term has two leaders; what
 * was applied anywhere before a read began is seen by it; in the end all members that keep a state
 * have the same one, and none is left without its vote. */
#ifndef TESTS_RAFT_HISTORY_H
#define TESTS_RAFT_HISTORY_H

#include "raft/consensus.h"

struct history_options {
        uint64_t seed;
        const struct consensus_engine *engine;
        bool oracle; /* only what the library can: ordered links, fixed members, no reads */
        bool whole;  /* states are taken and written at once, as the library does */
        bool early;  /* who has lost its leader votes before an election timeout */
        bool harsh;  /* slow disks and frequent crashes: planted bugs show sooner */
        bool trace;
        struct consensus_bugs bugs;
};

struct history_result {
        const char *violation; /* NULL: none */
        uint64_t at_ms;
        uint64_t events;
        uint64_t commands;
        uint64_t crashes;
        uint64_t restores;
        uint64_t losses; /* of a disk */
        uint64_t changes;
        uint64_t reads;
        uint64_t leases;
        uint64_t elections;
        uint64_t hash;
};

void history_run(const struct history_options *options, struct history_result *ret);

#endif
