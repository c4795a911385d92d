/* members.h - private to raft/: who belongs to a group, as what; and as bytes in log and snapshot.
 *
 * Encoded, format 2: u8 2, varint count, each: varint node, u8 role, u8 role wanted, u8 priority,
 * varint life. Format 1 is the library's and is read: voters and standbys, everything else 0.
 *
 * A life is a number that a node gives itself when it starts without what its journal held. As long
 * as the members say another one, nothing that it ever promised counts. */
#ifndef MERIDIAN_RAFT_MEMBERS_H
#define MERIDIAN_RAFT_MEMBERS_H

#include "base/buffer.h"
#include "raft/consensus.h"

struct member {
        uint32_t node;
        uint8_t role;   /* enum consensus_member_role */
        uint8_t wanted; /* the same, or 0 */
        uint8_t priority;
        uint64_t life;
};

/* In rising order of nodes. */
struct members {
        size_t count;
        struct member items[CONSENSUS_VOTERS_MAX];
};

/* NULL: not among them. */
const struct member *members_find(const struct members *members, uint32_t node);

/* Replaces or adds. False: there are too many. */
MUST_USE bool members_put(struct members *members, const struct member *member);

void members_drop(struct members *members, uint32_t node);

/* Those whose vote counts. */
bool member_votes(const struct member *member);
size_t members_voting(const struct members *members);

/* True when somebody votes, and somebody may lead. */
bool members_able(const struct members *members);

void members_encode(const struct members *members, struct buffer *out);

/* False: damaged, or nobody could lead. */
MUST_USE bool members_decode(struct bytes data, struct members *ret);

#endif
