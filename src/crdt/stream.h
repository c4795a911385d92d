/* stream.h - the entries of a stream, private to crdt/.
 *
 * An entry is (id, stamp of its XADD); its fields are outside. Ids that the module makes are never
 * the same in two regions, but a client may choose one that another region has taken: then the
 * later stamp shows, and the others are kept with their fields until something that saw them
 * removes them. A removal is a range of ids and, by origin, the clock up to which it had seen the
 * entries of that range; it is remembered until the version vector covers those clocks.
 *
 * A stream is there while it has an entry, or was written or taken from later than it was deleted:
 * as in Redis, one that was emptied stays. */
#ifndef MERIDIAN_CRDT_STREAM_H
#define MERIDIAN_CRDT_STREAM_H

#include "crdt/crdt_priv.h"

struct stream_entry {
        struct crdt_stream_id id;
        struct stamp stamp;
};

/* An entry that shows not, for another has its id. */
struct stream_hidden {
        struct stream_entry entry;
        struct bytes fields;
};

struct stream_removal {
        struct crdt_stream_id low;
        struct crdt_stream_id high;
        struct vector seen;
};

/* Zeroed is empty. */
struct crdt_stream {
        struct stream_entry *entries; /* those in use are [begin, begin + count), by id */
        size_t begin;
        size_t count;
        size_t size;
        struct stream_hidden *hidden; /* in no order */
        size_t hidden_count;
        struct stream_removal *removals;
        size_t removal_open; /* of what may still come; behind them, those that are only told on */
        size_t removal_count;
        bool raised;                /* `last` is beyond what the native was told */
        struct crdt_stream_id last; /* no id that was ever known is larger */
};

static inline int stream_id_compare(struct crdt_stream_id a, struct crdt_stream_id b)
{
        if (a.ms != b.ms)
                return a.ms < b.ms ? -1 : 1;
        return (a.seq > b.seq) - (a.seq < b.seq);
}

static inline const struct stream_entry *stream_entry_at(const struct crdt_stream *stream,
                                                         size_t index)
{
        return &stream->entries[stream->begin + index];
}

/* The first entry that is not before the id. */
size_t stream_seek(const struct crdt_stream *stream, struct crdt_stream_id id);

bool stream_exists(const struct crdt *crdt);
void stream_free(const struct table_env *env, struct crdt_stream **slot);

/* `fields`: as STREAM_ADD has them; ptr NULL: nobody asks. */
void stream_add(struct crdt_env *env, struct crdt *crdt, struct stream_entry entry,
                struct bytes fields);
void stream_remove(struct crdt_env *env, struct crdt *crdt, const struct stream_removal *removal);
void stream_raise(struct crdt_env *env, struct crdt *crdt, struct crdt_stream_id last);

/* Entries that died with the key go; then what need not be remembered. */
void stream_sweep(struct crdt_env *env, struct crdt *crdt);
/* The end of a change: a stream without entries is there too, and its last id is known. */
void stream_show(struct crdt_env *env, struct crdt *crdt);
void stream_prune(struct crdt_env *env, struct crdt *crdt);
/* The same of those that are only told on. Cost: a look at all of them. */
void stream_collect(struct crdt_env *env, struct crdt *crdt);

/* Those for which `takes` says so go; it is asked for each, by rising id. */
void stream_entries_take(struct crdt_env *env, struct crdt_stream *stream,
                         bool (*takes)(const void *context, const struct stream_entry *entry),
                         const void *context);
/* The same of those from `low` to `high`. */
void stream_range_take(struct crdt_env *env, struct crdt_stream *stream, struct crdt_stream_id low,
                       struct crdt_stream_id high,
                       bool (*takes)(const void *context, const struct stream_entry *entry),
                       const void *context);
void stream_hidden_drop(const struct table_env *env, struct crdt_stream *stream, size_t at);

/* The entry's stamps, all of that id, are raised in *ret. */
void stream_observe(const struct crdt_stream *stream, struct crdt_stream_id low,
                    struct crdt_stream_id high, struct vector *ret);

/* ---- stream_code.c: as bytes */

void stream_id_write(struct buffer *buffer, struct crdt_stream_id id);
struct crdt_stream_id stream_id_read(struct cursor *cursor);

/* varint strings (even, > 0), then slices. */
struct bytes stream_fields_read(struct cursor *cursor);
void stream_removal_read(struct cursor *cursor, uint64_t hlc_max, struct stream_removal *ret);

void stream_state_write(const struct crdt_env *env, const struct crdt *crdt,
                        enum crdt_state_kind kind, struct buffer *buffer);
struct bytes stream_state_check(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max);
/* `range` empty: that was the whole stream. */
void stream_state_merge(struct crdt_env *env, struct crdt *crdt, struct bytes state,
                        struct bytes range, enum crdt_state_kind kind,
                        const struct crdt_seen *sender);

/* What of a stream a slice tells, and judges: id, id; both are in it.
 *
 * Tells the next slice of the stream, which may be NULL, with values, from the id on, and moves it.
 * True where that was the end. Removals go with the first. */
struct slice_budget;
bool stream_slice_write(const struct crdt_env *env, const struct crdt_stream *stream,
                        struct crdt_stream_id *id, struct slice_budget *budget,
                        struct buffer *range, struct buffer *state);
struct bytes stream_range_check(struct cursor *cursor);
uint64_t stream_digest(const struct crdt_stream *stream);

#endif
