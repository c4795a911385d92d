/* slice.h - one large key, told slice by slice. Private to crdt/.
 *
 * Each slice is a state of its own, with the whole head of the key (stamps, times, counters), and
 * merging one is a merge: order and repetition do no harm. What must not happen is that a slice is
 * taken for the whole, for what a state does not show is dead where its sender had seen it. So
 *
 *   lists, streams   a slice names the range of places or ids that it tells, which means the same
 *                    at both ends: what is absent within it is judged, and nothing else.
 *   hashes, sets,    the order of the sender's table says nothing to others. The receiver marks
 *   sorted sets      what is told, from the first slice to the last; then come slices that tell
 *                    nothing, but have it go through a part of its own table each, and judge what
 *                    no slice has named by what the sender had seen at the *begin* of the transfer:
 *                    what it took away since comes in its stream.
 *
 * In a state, after `parts`: u8 1: the first, 2: the last, 4: a part of the table is to be judged:
 * [varint bits, varint class]: those whose hash has `class` in its low `bits`. */
#ifndef MERIDIAN_CRDT_SLICE_H
#define MERIDIAN_CRDT_SLICE_H

#include "crdt/crdt_priv.h"

enum {
        PART_LAST = 1,
        PART_KILLED = 2,
        PART_TTL = 4,
        PART_BASE = 8,
        PART_VALUE = 16,
        PART_COUNTS = 32,
        PART_ITEMS = 64,
        PART_EVICTED = 128,
        PART_SIBLINGS = 256,
        PART_LIST = 512,
        PART_HLL = 1024,
        PART_STREAM = 2048,
        PART_ZSET = 4096,
        PART_SLICE = 8192,
        PART_PARTIAL = 16384,
        PARTS_ALL = 32767,
};

/* What a slice may still tell. */
struct slice_budget {
        uint64_t items;
        uint64_t bytes;
};

/* Takes an item of that length from it; false when nothing is left. */
static inline bool slice_spend(struct slice_budget *budget, size_t len)
{
        budget->items -= budget->items > 0;
        budget->bytes -= budget->bytes < len ? budget->bytes : len;
        return budget->items > 0 && budget->bytes > 0;
}

/* What one slice tells, encoded but for the counts. */
struct slice_body {
        struct crdt_slice_mark mark;
        uint64_t field_count, member_count, score_count;
        bool elements_told, entries_told;
        struct buffer fields, members, scores;
        struct buffer elements_range, elements;
        struct buffer entries_range, entries;
};

void slice_body_init(struct slice_body *body, struct heap *heap);
void slice_body_fini(struct slice_body *body);

/* state_write.c: as crdt_state_encode with values. A body that is first and last is the whole. */
MUST_USE enum err slice_body_write(const struct crdt_env *env, const struct crdt *crdt,
                                   const struct slice_body *body, struct buffer *buffer);

/* state_write.c */
void slice_member_write(struct item *item, struct buffer *buffer);

void slice_mark_write(struct crdt_slice_mark mark, struct buffer *buffer);
struct crdt_slice_mark slice_mark_read(struct cursor *cursor);

/* The begin of a merge: elements that are named from here on are marked with crdt->round. */
void slice_round_begin(struct crdt *crdt);

/* What no slice has named, in that part of the tables, and `begin` covers, goes. */
void slice_judge(struct crdt_env *env, struct crdt *crdt, struct crdt_slice_mark mark,
                 const struct crdt_seen *begin);

#endif
