/* ring.h - the newest own deltas, oldest dropped first. Private to keyspace/.
 *
 * A circular buffer of length-prefixed deltas; none is cut at the end of the buffer, so that what
 * does not fit there leaves a gap and starts at the begin. A mark every few kilobytes (clock,
 * place) makes finding a position a binary search. */
#ifndef MERIDIAN_KEYSPACE_RING_H
#define MERIDIAN_KEYSPACE_RING_H

#include "base/bytes.h"
#include "base/heap.h"

struct ring_mark {
        uint64_t hlc;
        uint64_t at;
        uint64_t number; /* of the delta there, of all ever appended */
};

/* Places count up for ever; a place modulo size is where it is in `data`. Memory is taken as it
 * fills: at its first end the ring grows instead of going round, up to the limit, so all places
 * stay. */
struct ring {
        struct heap *heap;
        uint8_t *data;
        uint64_t size;
        uint64_t limit;
        uint64_t head;    /* where the next delta goes */
        uint64_t head_at; /* the same in the memory: head % size */
        uint64_t tail;    /* of the oldest */
        uint64_t seam;    /* the place where the gap at the end begins, where seamed */
        bool seamed;
        uint64_t count;
        uint64_t appended; /* ever */
        uint64_t last;     /* clock of the newest delta ever appended */
        uint64_t dropped;  /* clock of the newest delta that is not here any more */
        struct ring_mark *marks;
        uint64_t mark_size;
        uint64_t mark_head;
        uint64_t mark_tail;
        uint64_t marked; /* the place of the newest mark, where there is one */
};

/* Keeps `heap`. False: out of memory. */
MUST_USE bool ring_init(struct ring *ring, struct heap *heap, uint64_t limit);
void ring_fini(struct ring *ring);

/* Room for a delta of `len` bytes whose first 8 are its clock `hlc`, no smaller than any before (an
 * origin of several servers gives one to several keys): write exactly that many. NULL: it is larger
 * than the ring, which is then empty. */
uint8_t *ring_append_slow(struct ring *ring, uint64_t hlc, size_t len);

enum {
        RING_MARK_BYTES = 4096,
};

/* Most are short and fit behind the newest, short of the end, where none has to go and no mark is
 * due. */
static inline uint8_t *ring_append(struct ring *ring, uint64_t hlc, size_t len)
{
        unsigned prefix = len < 0x80 ? 1 : 2;
        uint64_t need = prefix + len;
        uint64_t head = ring->head + need;
        uint64_t head_at = ring->head_at + need;
        if (len >= 0x4000 || len < sizeof hlc || hlc < ring->last || ring->count == 0 ||
            head_at >= ring->size || head - ring->tail > ring->size ||
            ring->mark_head == ring->mark_tail || ring->head - ring->marked >= RING_MARK_BYTES)
                return ring_append_slow(ring, hlc, len);
        uint8_t *at = ring->data + ring->head_at;
        ring->head = head;
        ring->head_at = head_at;
        ring->count++;
        ring->appended++;
        ring->last = hlc;
        *at = (uint8_t)(prefix == 1 ? len : len | 0x80);
        if (prefix > 1)
                at[1] = (uint8_t)(len >> 7);
        return at + prefix;
}

/* Drops what is up to `hlc`: readers must be there or later. */
void ring_forget(struct ring *ring, uint64_t hlc);

/* Takes back what is of `hlc` and later, as if it had never been appended. Cost: as to find it. */
void ring_cut(struct ring *ring, uint64_t hlc);

struct ring_read {
        struct bytes parts[2];
        uint64_t last;
        uint64_t count;
};

/* Deltas with clocks > `after`, at least one where there is one, else about `bytes_max`. */
struct ring_read ring_read(const struct ring *ring, uint64_t after, size_t bytes_max);

/* What a reader at `after` has not read yet: how many deltas, how many bytes (with what is lost at
 * the end of the memory), and the clock of the first of them, 0 where there is none. Cost: as to
 * find it. */
struct ring_rest {
        uint64_t count;
        uint64_t bytes;
        uint64_t first;
};

struct ring_rest ring_rest(const struct ring *ring, uint64_t after);

/* The clock of the oldest delta, 0 where there is none. */
uint64_t ring_first(const struct ring *ring);

#endif
