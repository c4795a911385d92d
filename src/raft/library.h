/* library.h - libraft 0.22.1 behind the door of consensus.h: the oracle of tests and simulator.
 * It knows no reads, no change of members, no witness, no amnesia, and sends a state in one
 * message (consensus_snapshot: ERR_LIMIT above 64 MiB). */
#ifndef MERIDIAN_RAFT_LIBRARY_H
#define MERIDIAN_RAFT_LIBRARY_H

#include "raft/consensus.h"

extern const struct consensus_engine consensus_library;

#endif
