/* shards.h - one region on several servers (Redis Cluster): what has to be done with streams and
 * states so that other regions see one origin with one stream. Pure functions on bytes; the engine
 * calls them between its shards and the node.
 *
 * Every shard has the same origin and a ring of its own, and holds the keys of some of the 16384
 * slots.
 *
 *   out   shards_merge: the streams of all shards become one in clock order, up to the clock that
 *         each of them has reached. Deltas of one clock stay together; their keys differ, so
 *         (clock, origin) is unique for each key.
 *   in    shards_split: each delta goes to the shard of its key. All shards are told the whole
 *         batch's end, so that a position means the same at every one of them.
 *   state shards_state_*: parts of several scans get one numbering and begin with a part without
 *         keys, whose vector is the least of all shards; a received part is split by key. */
#ifndef MERIDIAN_KEYSPACE_SHARDS_H
#define MERIDIAN_KEYSPACE_SHARDS_H

#include "keyspace/keyspace.h"

enum {
        SHARDS_MAX = 64,
        SHARDS_SLOTS = 16384,
        SHARDS_NOBODY = 0xff,
};

/* The slot of a key: CRC-16 of it, or of what stands between its first '{' and the next '}'. */
unsigned shards_slot(struct bytes key);

/* Whether a change of that kind concerns no key, and so every shard. */
bool shards_op_for_all(enum crdt_op op);

/* Who holds which slot: an index below `count`, or SHARDS_NOBODY. */
struct shards_map {
        uint8_t owner[SHARDS_SLOTS];
        unsigned count; /* 1 .. SHARDS_MAX */
};

/* Appends each delta of a stream to the part of the shard that holds its key; what has no key goes
 * to all. `parts` are map->count buffers of the caller. ERR_REFUSED: nobody holds a slot.
 * ERR_TRUNCATED, ERR_MALFORMED: the stream is damaged. ERR_NOMEM. */
MUST_USE enum err shards_split(const struct shards_map *map, struct bytes deltas,
                               struct buffer *parts);

/* What one shard has told after the position that all were asked from. */
struct shards_stream {
        struct bytes deltas;
        uint64_t reach; /* every delta of it with a clock <= this is in `deltas` */
};

/* What each shard says to have seen of the other regions, as its stream told. Zeroed at the begin
 * of a stream, and kept by the caller from batch to batch. */
struct shards_seen {
        struct vector of[SHARDS_MAX];
        struct crdt_gone gone[SHARDS_MAX];
        bool told[SHARDS_MAX];
};

/* Appends to `ret_deltas` what lies in (after, W], in clock order, where W, in *ret_last, is the
 * least `reach`; W <= after means that nothing can be told yet. What a region has seen is what each
 * of its shards has: such deltas are written anew with the least of all; with `seen` NULL they stay
 * as they are, and what every shard has of no key is told once, which puts together what was one
 * stream before. ERR_TRUNCATED, ERR_MALFORMED, ERR_NOMEM; damaged is also a stream whose clocks
 * fall. */
MUST_USE enum err shards_merge(const struct shards_stream *streams, unsigned count, uint64_t after,
                               struct shards_seen *seen, struct buffer *ret_deltas,
                               uint64_t *ret_last);

/* A part of a state, as keyspace_scan made it. */
struct shards_part {
        bool sliced; /* it may hold slices of large keys */
        uint8_t origin;
        uint64_t table_id;
        uint64_t from;
        uint64_t to;
        uint64_t hlc;
        struct crdt_seen seen;
        struct vector hinted;
        struct bytes flushes; /* borrowed; len 0: none */
        struct bytes keys;    /* borrowed */
};

MUST_USE enum err shards_part_read(struct bytes part, struct shards_part *ret);
void shards_part_write(const struct shards_part *part, struct buffer *buffer);

/* The least of what the shards have seen, and all that any of them has lost. Holes that do not fit
 * count as seen by nobody from the lowest of them on: the vector of their origin ends there. */
void shards_seen_least(struct crdt_seen *least, const struct crdt_seen *other);

/* Splits a part that came: every shard gets the part's head, and the keys that it holds. As
 * shards_split. */
MUST_USE enum err shards_state_split(const struct shards_map *map, struct bytes part,
                                     struct buffer *parts);

#endif
