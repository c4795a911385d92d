/* history.h - what PostgreSQL 15 writes in text: timeline history files, pg_controldata,
 * pg_waldump. Pure: bytes in, a struct out; any bytes are accepted as input.
 *
 * A history file has a line for each timeline that was left: its number, the place (LSN) where it
 * was left, a reason. Lines that begin with '#' are comments, which PostgreSQL keeps when it begins
 * the next timeline, and sends along. Ours says the epoch of what comes after a timeline:
 *
 *      # meridian: after timeline 2 epoch 17 */
#ifndef MERIDIAN_WARDEN_HISTORY_H
#define MERIDIAN_WARDEN_HISTORY_H

#include "base/bytes.h"
#include "world/world.h"

enum {
        HISTORY_LINES_MAX = 64, /* of longer ones the newest are kept */
        HISTORY_FILE_MAX = 1 << 20,
};

struct history_line {
        uint32_t timeline;
        uint64_t epoch; /* 0: none of ours */
        uint64_t end;
};

/* Of one timeline: those before it, oldest first. */
struct history {
        uint32_t timeline;
        uint64_t epoch; /* of that timeline itself */
        bool cut;       /* there are older lines */
        unsigned count;
        struct history_line lines[HISTORY_LINES_MAX];
};

/* Reads the history file of `timeline`. `first_epoch` is that of its oldest line, or, where it has
 * none, of the timeline itself. False: a line is no line of such a file, or out of order. */
MUST_USE bool history_parse(struct bytes text, uint32_t timeline, uint64_t first_epoch,
                            struct history *ret);

/* Fills timeline, epoch and lines. */
void history_tell(const struct history *history, struct world_postgres *ret);

/* Where two histories part: the last place that both went through, which is on *ret_timeline.
 * `own_end` and `other_end`: how far each went on its own timeline. False: nothing in common. */
MUST_USE bool history_fork(const struct history *own, uint64_t own_end, const struct history *other,
                           uint64_t other_end, uint32_t *ret_timeline, uint64_t *ret_lsn);

/* "0/17529B0" to a number: two hexadecimal parts of 1 to 8 digits. */
MUST_USE bool history_lsn_parse(struct bytes text, uint64_t *ret_lsn);

/* A file in the folder of a cluster: "timeline 1 epoch 7\n", for the timeline that began without a
 * history. */
MUST_USE bool history_epoch_parse(struct bytes text, uint64_t *ret_epoch);

/* What pg_controldata says. */
struct history_control {
        uint64_t system;
        uint64_t checkpoint; /* LSN */
        uint64_t redo;       /* LSN */
        uint32_t timeline;   /* of that checkpoint */
        uint64_t recovered;  /* LSN; a standby's data is whole from there on; 0: no standby's */
        uint32_t recovered_timeline;
        uint32_t segment_bytes;
        uint32_t version; /* pg_control's: 1300 is PostgreSQL 13 to 16 */
        bool checksums;
        bool hints; /* wal_log_hints */
        bool clean; /* it was shut down, as a primary or as a standby */
};
MUST_USE bool history_control_parse(struct bytes text, struct history_control *ret);

/* The last record that pg_waldump printed in `text`, whose beginning may be missing: where the next
 * one would begin. `segment_bytes` is the size of a file of the log. */
MUST_USE bool history_waldump_end(struct bytes text, uint32_t segment_bytes, uint64_t *ret_end);

/* Where pg_waldump stopped: "error in WAL record at 0/17529B0: ...". */
MUST_USE bool history_waldump_last(struct bytes text, uint64_t *ret_lsn);

/* The beginning of the file of `timeline` that pg_waldump did not find. */
MUST_USE bool history_waldump_missing(struct bytes text, uint32_t timeline, uint32_t segment_bytes,
                                      uint64_t *ret_lsn);

/* The place behind a record of `len` bytes at `lsn`: headers of pages lie in between, and records
 * begin at multiples of 8. */
uint64_t history_record_end(uint64_t lsn, uint64_t len, uint32_t segment_bytes);

#endif
