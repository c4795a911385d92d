/* backup.h - the state of a cluster's groups as one file. Pure: bytes in, bytes out.
 *
 *   offset size meaning, integers little-endian
 *        0    8 "MERIBACK"
 *        8    4 version (1)
 *       12    8 life of the cluster that begins with it; 0: a backup, not yet made ready to restore
 *       20      slice: name of the cluster (a slice: varint length, bytes)
 *             8 Unix time in microseconds
 *               varint count of groups, each: slice region (empty: global), varint index of the
 *               log, slice state (council_snapshot)
 *      end    4 CRC-32C of all before
 *
 * What is restored goes on at BACKUP_JUMP beyond the log's index, so tokens and revisions only grow
 * as long as no more entries were written after the backup. */
#ifndef MERIDIAN_COUNCIL_BACKUP_H
#define MERIDIAN_COUNCIL_BACKUP_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"

#define BACKUP_GROUPS_MAX 64
#define BACKUP_JUMP       (1ull << 40) /* 100,000 entries a second for four months */
#define BACKUP_BYTES_MAX  ((size_t)1 << 30)

struct backup_group {
        struct bytes region; /* empty: the global group */
        uint64_t index;
        struct bytes state;
};

struct backup {
        uint64_t life;
        struct bytes cluster;
        uint64_t wall_us;
        size_t count;
        struct backup_group groups[BACKUP_GROUPS_MAX];
};

void backup_encode(const struct backup *backup, struct buffer *out);

/* The same in parts: what comes before the groups, of which only the count is looked at, and what
 * comes before each group's state. The states, and the checksum at the end, are the caller's. */
void backup_head_encode(const struct backup *backup, struct buffer *out);
void backup_group_encode(const struct backup_group *group, struct buffer *out);

/* Borrows from `data`. ERR_CORRUPT (no backup, or the checksum), ERR_VERSION, ERR_TRUNCATED,
 * ERR_MALFORMED. */
MUST_USE enum err backup_decode(struct bytes data, struct backup *ret);

/* NULL: it is not in there. */
const struct backup_group *backup_find(const struct backup *backup, struct bytes region);

#endif
