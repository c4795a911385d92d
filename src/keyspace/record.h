/* record.h - deltas of one origin one behind another, as the store's log has them: a delta begins
 * with its clock, and of all but the first of a record that is told as what was added.
 *
 *   varint len << 1 | cut, delta          the first
 *   0x01 0x05                             RECORD_NEAR: the others follow
 *   varint len << 1 | cut, varint clock - clock of the one before (modulo 2^64),
 *           rest of the delta: len bytes
 *
 * A record without RECORD_NEAR has every clock whole, as older builds wrote it. Frames of the
 * caller's own may stand anywhere between: they begin with a varint of 0 or 1, and a byte that is
 * not RECORD_NEAR follows the 1. */
#ifndef MERIDIAN_KEYSPACE_RECORD_H
#define MERIDIAN_KEYSPACE_RECORD_H

#include "base/buffer.h"
#include "base/cursor.h"

enum {
        RECORD_CLOCK = 8, /* bytes of a delta's clock, at its begin */
        RECORD_NEAR = 5,
};

/* The record that is being written. */
struct record {
        uint64_t last; /* clock of the newest delta in it */
        bool any;
        bool near; /* RECORD_NEAR is in it */
};

/* Appends a delta (longer than RECORD_CLOCK) to the record in `buffer`; zero `record` where that
 * one begins. `cut` is the caller's. Errors: buffer->err. */
void record_add(struct record *record, struct buffer *buffer, struct bytes delta, bool cut);

/* The record that is being read. `cursor` is the caller's too, for its own frames. */
struct record_read {
        struct cursor cursor;
        struct buffer whole; /* the delta, where its clock was not */
        uint64_t last;
        bool near;
};

enum record_frame {
        RECORD_END,   /* or damage: see cursor.err; ERR_NOMEM too */
        RECORD_DELTA, /* borrowed until the next call */
        RECORD_CUT,   /* the same */
        RECORD_ZERO,  /* the caller's own; its varint 0 is read */
        RECORD_KIND,  /* the same, with its varint 1 and the byte after that, *ret_kind */
};

/* Keeps `heap`, borrows `bytes` until the end. */
void record_begin(struct record_read *read, struct heap *heap, struct bytes bytes);
MUST_USE enum record_frame record_next(struct record_read *read, struct bytes *ret_delta,
                                       uint8_t *ret_kind);
void record_end(struct record_read *read);

#endif
