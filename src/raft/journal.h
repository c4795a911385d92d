/* journal.h - private to raft/: the format of a group's journal. Pure: bytes to records and back.
 *
 * A journal is a header, then records until its end. Integers are little-endian.
 *
 * header, 32 bytes
 *   offset size meaning
 *        0    8 "MERIRAFT"
 *        8    4 version: 1 by the library's core, 2 by this room's
 *       12    4 group
 *       16    8 cluster
 *       24    4 node
 *       28    4 CRC-32C of bytes 0 to 27
 *
 * record, 17 bytes and the body
 *   offset size meaning
 *        0    4 CRC-32C of all that follows in this record
 *        4    4 length of the body
 *        8    8 how many bytes of this journal were known to be durable when it was written
 *       16    1 type: 1 META, 2 ENTRY, 3 SNAPSHOT
 *       17      body
 *
 * META      u64 term, u32 node voted for in it (0: none); version 2: u64 life, u8 flags (1
 *           amnesiac, 2 joined: may begin with an empty log). The last one counts
 * ENTRY     u64 index, u64 term, u8 type, data. Ends what stood at this index and beyond
 * SNAPSHOT  u64 index, u64 term, u64 index of the configuration, u32 its length, the configuration
 *           (version 1: as the library encodes it; 2: members.h), the state. Only after the first
 *           META; entries that follow may begin before its index (kept for slow followers)
 *
 * The durable count tells a torn end from damage. A crash may tear everything that was not synced,
 * in any order of pages. So a bad record is damage if a good one behind it knows the place for
 * durable; else it is the torn end, and nothing that was promised lies there. Zeros behind the last
 * good record are no torn end: the world makes space ready (world.h); what comes goes over it. */
#ifndef MERIDIAN_RAFT_JOURNAL_H
#define MERIDIAN_RAFT_JOURNAL_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "raft/entries.h"

#define JOURNAL_VERSION          2
#define JOURNAL_HEADER_SIZE      32
#define JOURNAL_RECORD_HEAD_SIZE 17

enum journal_type {
        JOURNAL_META = 1,
        JOURNAL_ENTRY,
        JOURNAL_SNAPSHOT,
};

struct journal_identity {
        uint32_t version; /* the newest that is read, and the one that is written */
        uint64_t cluster;
        uint32_t group;
        uint32_t node;
};

struct journal_meta {
        uint64_t term;
        uint32_t vote;
        bool extended; /* life and flags are there */
        bool amnesiac;
        bool joined;
        uint64_t life;
};

struct journal_entry {
        uint64_t index;
        uint64_t term;
        enum entry_type type;
        struct bytes data;
};

struct journal_snapshot {
        uint64_t index;
        uint64_t term;
        uint64_t configuration_index;
        struct bytes configuration;
        struct bytes state;
};

struct journal_record {
        enum journal_type type;
        uint64_t durable;
        union {
                struct journal_meta meta;
                struct journal_entry entry;
                struct journal_snapshot snapshot;
        };
};

void journal_write_header(struct buffer *out, const struct journal_identity *identity);
void journal_write_meta(struct buffer *out, uint64_t durable, const struct journal_meta *meta);
void journal_write_entry(struct buffer *out, uint64_t durable, const struct journal_entry *entry);
void journal_write_snapshot(struct buffer *out, uint64_t durable,
                            const struct journal_snapshot *snapshot);

/* The same without the state, and with a sum of 0: the record of a state that is written in pieces.
 * Its sum, to be put into its first four bytes, is that of hash_crc32c over the state, begun with
 * journal_sum_begin(the head). */
void journal_write_snapshot_head(struct buffer *out, uint64_t durable,
                                 const struct journal_snapshot *snapshot);
uint32_t journal_sum_begin(struct bytes head);

/* ERR_TRUNCATED, ERR_CORRUPT (magic or checksum), ERR_VERSION, ERR_REFUSED (not this identity). */
MUST_USE enum err journal_read_header(struct bytes journal, const struct journal_identity *identity,
                                      uint32_t *ret_version);

/* Reads the record at `*at` and moves on; borrows from `journal`. False: there is no good record
 * there (the end, torn or damaged). */
MUST_USE bool journal_read(struct bytes journal, size_t *at, struct journal_record *ret);

/* The journal without the zeros at its end. Space that was made ready is zeros, and no record
 * begins with them; but a record may end in some, so this says only where none begins any more. */
struct bytes journal_used(struct bytes journal);

/* The most that any record, of those in order from the beginning, knows for durable. */
uint64_t journal_known(struct bytes journal);

/* True if a good record behind `at` knows the byte at `at` for durable. Cost: O(what is left). */
MUST_USE bool journal_damaged(struct bytes journal, size_t at);

/* True for a configuration that the library can decode: it checks nothing itself. */
MUST_USE bool journal_configuration_valid(struct bytes configuration);

#endif
