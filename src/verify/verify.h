/* verify.h - do several regions hold the same keys? Digests that mean the same at every server, and
 * the comparison of what the regions answered, while they go on being written.
 *
 * A key's digest is a sum of hashes: one of what is remembered of it, one of its type, length and
 * expiry, one for each item of its value. Sums do not depend on an order, so a large value can be
 * digested a piece at a time. The hash of its name puts a key into one of VERIFY_BUCKETS buckets;
 * a bucket's digest is the sum of its keys' digests. The hashes are not secret: they find
 * mistakes, not forgeries.
 *
 * How it is used
 *   1 verify_sum for every bucket of every region, then verify_choose: the buckets that differ.
 *   2 A round: verify_records with the keys of those buckets, from every region; verify_round_end.
 *   3 Wait until every region has merged what any of them had at the end of the round. Again 2.
 *   4 Enough rounds, or none is left: verify_each.
 *
 * What a verdict means. Let a key be read in all regions in two rounds, and be the same in the
 * second as in the first, in each region. Between the rounds every region has merged all that the
 * others held in the first, and its own state of the key did not change: so each holds what
 * the others hold, and replicas that hold the same show the same. Where they do not, they differ
 * for good: VERIFY_DIFFERENT. A key that was the same in all regions in some round is equal. What
 * is neither was being written all the time: VERIFY_MOVING. */
#ifndef MERIDIAN_VERIFY_VERIFY_H
#define MERIDIAN_VERIFY_VERIFY_H

#include "base/buffer.h"
#include "base/cursor.h"

enum {
        VERIFY_BUCKETS = 65536,
        VERIFY_MAP_LEN = VERIFY_BUCKETS / 8, /* bit b % 8 of byte b / 8: bucket b */
        VERIFY_REGIONS_MAX = 64,
        VERIFY_PAGE = 4096, /* buckets in one answer */
        VERIFY_KEY_LEN_MAX = 1 << 29,
};

/* ---- digests */

/* A name's hash. */
uint64_t verify_name(uint32_t db, struct bytes key);

static inline unsigned verify_bucket(uint64_t name)
{
        return (unsigned)(name >> 48);
}

/* One item of a value: a field or a member, or `at`, the place of a piece of a sequence. */
uint64_t verify_item(uint64_t name, struct bytes item, struct bytes value);
uint64_t verify_piece(uint64_t name, uint64_t at, struct bytes value);

/* The shape of a value. */
uint64_t verify_shape(uint64_t name, unsigned type, uint64_t length, uint64_t expire_at_ms);

/* What is remembered of it, as part of a sum. */
uint64_t verify_memory(uint64_t name, uint64_t digest);

/* ---- what a server answers */

/* A part of one key: the first has `begin`, and everything; the others add to `value`. */
struct verify_record {
        uint32_t db;
        struct bytes key; /* borrowed */
        bool begin;
        uint8_t type;    /* the server's number for the type; 0: there is no value */
        uint64_t memory; /* digest of what is remembered; 0: nothing is */
        uint64_t value;  /* digest of the value, or of this part of it */
        uint64_t hlc;    /* stamp of the newest write */
        uint8_t origin;
};

void verify_record_write(struct buffer *buffer, const struct verify_record *record);

/* False at the end of the input, or where it is malformed (the cursor says so). */
bool verify_record_read(struct cursor *cursor, struct verify_record *ret);

/* ---- the comparison */

struct verify;

/* `regions`: 1 .. VERIFY_REGIONS_MAX. Keeps `heap`. NULL: out of memory. About 1 MB a region. */
MUST_USE struct verify *verify_new(struct heap *heap, unsigned regions);
void verify_free(struct verify *verify);

/* Adds to one bucket of a region. Out of range is ignored. */
void verify_sum(struct verify *verify, unsigned region, uint32_t bucket, uint64_t keys,
                uint64_t sum);

/* The buckets that differ, as many as hold about `keys_max` keys, into `map`. Returns how many
 * differ; *ret_chosen is how many are in `map`. */
unsigned verify_choose(const struct verify *verify, uint64_t keys_max,
                       uint8_t map[static VERIFY_MAP_LEN], unsigned *ret_chosen);

/* Keys of a region, by verify_choose. */
uint64_t verify_keys(const struct verify *verify, unsigned region);

/* Takes what a region answered in this round. ERR_NOMEM; ERR_MALFORMED, ERR_TRUNCATED: what came
 * before the bad place was taken. After the first round keys that were equal are not taken. */
MUST_USE enum err verify_records(struct verify *verify, unsigned region, struct bytes records);

/* The round is over: judges its keys. Returns how many are open still, whose buckets are in `map`
 * then. */
uint64_t verify_round_end(struct verify *verify, uint8_t map[static VERIFY_MAP_LEN]);

enum verify_verdict {
        VERIFY_MOVING,
        VERIFY_DIFFERENT,
};

/* One region's side of a key. */
struct verify_side {
        bool there;
        uint8_t type;
        uint8_t origin;
        uint64_t memory;
        uint64_t value;
        uint64_t hlc;
};

struct verify_key {
        enum verify_verdict verdict;
        uint32_t db;
        struct bytes key;
        const struct verify_side *sides; /* of each region */
        bool missing;                    /* in some region */
        bool value;                      /* the values differ */
};

/* Calls `each` for all keys that are open or different, in the order of their buckets. What it is
 * given is borrowed for the call. */
void verify_each(const struct verify *verify,
                 void (*each)(void *context, const struct verify_key *key), void *context);

#endif
