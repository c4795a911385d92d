/* Streams as bytes: ids, fields and removals of deltas, the whole state of a stream, and the merge
 * of two states.
 *
 *      id last
 *      varint entries, by rising id: id, stamp, VALUES: fields
 *      varint hidden: id, stamp, slice fields (empty, or fields) each
 *      varint removals: id low, id high, version vector each
 *
 * id: varint milliseconds, varint sequence. */
#include "crdt/stream.h"

#include "base/check.h"
#include "crdt/lists.h"
#include "crdt/slice.h"

enum {
        ENTRY_LEN_MIN = 2 + 9,
        REMOVAL_LEN_MIN = 5,
};

void stream_id_write(struct buffer *buffer, struct crdt_stream_id id)
{
        buffer_varint(buffer, id.ms);
        buffer_varint(buffer, id.seq);
}

struct crdt_stream_id stream_id_read(struct cursor *cursor)
{
        struct crdt_stream_id id = {.ms = cursor_varint(cursor)};
        id.seq = cursor_varint(cursor);
        return id;
}

struct bytes stream_fields_read(struct cursor *cursor)
{
        const uint8_t *from = cursor->at;
        uint64_t count = count_read(cursor, 1);
        if (count == 0 || count % 2 != 0)
                cursor_fail(cursor, ERR_MALFORMED);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                name_read(cursor);
        return cursor_failed(cursor) ? (struct bytes){0} : cursor_since(cursor, from);
}

void stream_removal_read(struct cursor *cursor, uint64_t hlc_max, struct stream_removal *ret)
{
        struct stream_removal removal = {.low = stream_id_read(cursor)};
        removal.high = stream_id_read(cursor);
        vector_decode(cursor, &removal.seen);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && !cursor_failed(cursor); i++) {
                if (removal.seen.hlc[i] > hlc_max)
                        cursor_fail(cursor, ERR_REFUSED);
        }
        *ret = removal;
}

/* ---- encode */

static void entry_write(struct buffer *buffer, const struct stream_entry *entry)
{
        stream_id_write(buffer, entry->id);
        stamp_write(buffer, entry->stamp);
}

static void fields_write(const struct crdt_env *env, struct crdt_stream_id id,
                         struct buffer *buffer)
{
        struct bytes fields = {0};
        bool there = env->native != NULL &&
                     env->native->stream_get(env->native->context, env->name, id, &fields);
        if (there) {
                buffer_bytes(buffer, fields);
                return;
        }
        /* Told without its fields it could not be added: an empty one stands for it. */
        buffer_varint(buffer, 2);
        buffer_slice(buffer, (struct bytes){0});
        buffer_slice(buffer, (struct bytes){0});
}

/* Both ids are in it. */
struct stream_range {
        struct crdt_stream_id low, high;
};

static bool range_has(struct stream_range range, struct crdt_stream_id id)
{
        return stream_id_compare(range.low, id) <= 0 && stream_id_compare(id, range.high) <= 0;
}

static void hidden_write(struct buffer *buffer, const struct crdt_stream *stream,
                         struct stream_range range)
{
        uint64_t count = 0;
        for (size_t i = 0; i < stream->hidden_count; i++)
                count += range_has(range, stream->hidden[i].entry.id);
        buffer_varint(buffer, count);
        for (size_t i = 0; i < stream->hidden_count; i++) {
                if (!range_has(range, stream->hidden[i].entry.id))
                        continue;
                entry_write(buffer, &stream->hidden[i].entry);
                buffer_slice(buffer, stream->hidden[i].fields);
        }
}

static void removals_write(struct buffer *buffer, const struct crdt_stream *stream, size_t count)
{
        buffer_varint(buffer, count);
        for (size_t i = 0; i < count; i++) {
                stream_id_write(buffer, stream->removals[i].low);
                stream_id_write(buffer, stream->removals[i].high);
                vector_encode(&stream->removals[i].seen, buffer);
        }
}

void stream_state_write(const struct crdt_env *env, const struct crdt *crdt,
                        enum crdt_state_kind kind, struct buffer *buffer)
{
        static const struct crdt_stream nothing;
        const struct crdt_stream *stream = crdt->stream == NULL ? &nothing : crdt->stream;
        stream_id_write(buffer, stream->last);
        buffer_varint(buffer, stream->count);
        for (size_t i = 0; i < stream->count; i++) {
                entry_write(buffer, stream_entry_at(stream, i));
                if (kind == CRDT_STATE_VALUES)
                        fields_write(env, stream_entry_at(stream, i)->id, buffer);
        }
        hidden_write(buffer, stream, (struct stream_range){.high = {UINT64_MAX, UINT64_MAX}});
        removals_write(buffer, stream, stream->removal_count);
}

static struct crdt_stream_id id_after(struct crdt_stream_id id)
{
        id.seq++;
        id.ms += id.seq == 0;
        return id;
}

bool stream_slice_write(const struct crdt_env *env, const struct crdt_stream *stream,
                        struct crdt_stream_id *id, struct slice_budget *budget,
                        struct buffer *range_told, struct buffer *state)
{
        static const struct crdt_stream nothing;
        struct stream_range range = {*id, {UINT64_MAX, UINT64_MAX}};
        struct crdt_stream_id last = {0};
        struct buffer entries;
        bool more = budget->items > 0 && budget->bytes > 0;
        uint64_t count = 0;
        stream = stream == NULL ? &nothing : stream;
        buffer_init(&entries, env->table.heap);
        size_t at = stream_seek(stream, *id);
        for (; at < stream->count && more; at++, count++) {
                size_t from = entries.len;
                last = stream_entry_at(stream, at)->id;
                entry_write(&entries, stream_entry_at(stream, at));
                fields_write(env, last, &entries);
                more = slice_spend(budget, entries.len - from);
        }
        bool end = at == stream->count;
        if (!end) {
                range.high = last;
                *id = id_after(last);
        }
        stream_id_write(range_told, range.low);
        stream_id_write(range_told, range.high);
        stream_id_write(state, end ? stream->last : last);
        buffer_varint(state, count);
        buffer_bytes(state, buffer_view(&entries));
        hidden_write(state, stream, range);
        bool first = range.low.ms == 0 && range.low.seq == 0;
        removals_write(state, stream, first ? stream->removal_count : 0);
        state->err = entries.err != ERR_NONE ? entries.err : state->err;
        buffer_fini(&entries);
        return end;
}

/* ---- read */

static struct stream_entry entry_read(struct cursor *cursor, uint64_t hlc_max)
{
        struct stream_entry entry = {.id = stream_id_read(cursor)};
        entry.stamp = stamp_read(cursor, hlc_max, false);
        return entry;
}

static struct bytes hidden_fields_read(struct cursor *cursor)
{
        struct bytes fields = name_read(cursor);
        if (fields.len == 0 || cursor_failed(cursor))
                return fields;
        struct cursor inner = cursor_of(fields);
        stream_fields_read(&inner);
        if (cursor_done(&inner) != ERR_NONE)
                cursor_fail(cursor, ERR_MALFORMED);
        return fields;
}

static struct stream_range range_read(struct cursor *cursor)
{
        struct stream_range range = {.low = stream_id_read(cursor)};
        range.high = stream_id_read(cursor);
        return range;
}

struct bytes stream_range_check(struct cursor *cursor)
{
        const uint8_t *from = cursor->at;
        struct stream_range range = range_read(cursor);
        if (stream_id_compare(range.low, range.high) > 0)
                cursor_fail(cursor, ERR_MALFORMED);
        return cursor_failed(cursor) ? (struct bytes){0} : cursor_since(cursor, from);
}

struct bytes stream_state_check(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max)
{
        const uint8_t *from = cursor->at;
        struct crdt_stream_id last = {0};
        stream_id_read(cursor);
        uint64_t count = count_read(cursor, ENTRY_LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct stream_entry entry = entry_read(cursor, hlc_max);
                if (stream_id_compare(last, entry.id) >= 0)
                        cursor_fail(cursor, ERR_MALFORMED);
                last = entry.id;
                if (kind == CRDT_STATE_VALUES)
                        stream_fields_read(cursor);
        }
        count = count_read(cursor, ENTRY_LEN_MIN + 1);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct stream_entry entry = entry_read(cursor, hlc_max);
                if (entry.id.ms == 0 && entry.id.seq == 0)
                        cursor_fail(cursor, ERR_MALFORMED);
                hidden_fields_read(cursor);
        }
        count = count_read(cursor, REMOVAL_LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct stream_removal removal;
                stream_removal_read(cursor, hlc_max, &removal);
        }
        return cursor_since(cursor, from);
}

/* ---- merge */

/* The entries of a state are asked for by rising id: one pass. */
struct told {
        const struct crdt_seen *sender;
        enum crdt_state_kind kind;
        struct bytes state;
        struct cursor *at;
        uint64_t *left;
        struct stream_entry *next;
        uint64_t hidden;
        struct cursor hidden_at;
};

static void told_next(const struct told *told)
{
        *told->next = (struct stream_entry){{UINT64_MAX, UINT64_MAX}, {0, 0}};
        if (*told->left == 0)
                return;
        *told->left -= 1;
        *told->next = entry_read(told->at, UINT64_MAX);
        if (told->kind == CRDT_STATE_VALUES)
                stream_fields_read(told->at);
}

static bool entry_same(const struct stream_entry *a, const struct stream_entry *b)
{
        return stream_id_compare(a->id, b->id) == 0 && stamp_compare(a->stamp, b->stamp) == 0;
}

static bool told_hides(const struct told *told, const struct stream_entry *entry)
{
        struct cursor cursor = told->hidden_at;
        for (uint64_t i = 0; i < told->hidden; i++) {
                struct stream_entry one = entry_read(&cursor, UINT64_MAX);
                name_read(&cursor);
                if (entry_same(&one, entry))
                        return true;
        }
        return false;
}

/* Own entries come by rising id. */
static bool absent_takes(const void *context, const struct stream_entry *entry)
{
        const struct told *told = context;
        if (!crdt_seen_covers(told->sender, entry->stamp))
                return false;
        while (stream_id_compare(told->next->id, entry->id) < 0)
                told_next(told);
        return !entry_same(told->next, entry) && !told_hides(told, entry);
}

/* Hidden ones come in no order, and there are few: each looks from the begin. */
static bool told_shows(const struct told *told, const struct stream_entry *entry)
{
        struct cursor cursor = cursor_of(told->state);
        if (told->state.len == 0)
                return false;
        stream_id_read(&cursor);
        for (uint64_t i = cursor_varint(&cursor); i > 0; i--) {
                struct stream_entry one = entry_read(&cursor, UINT64_MAX);
                if (told->kind == CRDT_STATE_VALUES)
                        stream_fields_read(&cursor);
                if (entry_same(&one, entry))
                        return true;
        }
        return false;
}

static bool hidden_absent_takes(const struct told *told, const struct stream_entry *entry)
{
        return crdt_seen_covers(told->sender, entry->stamp) && !told_hides(told, entry) &&
               !told_shows(told, entry);
}

static void absent_take(struct crdt_env *env, struct crdt *crdt, struct bytes state,
                        struct stream_range range, enum crdt_state_kind kind,
                        const struct crdt_seen *sender)
{
        struct cursor cursor = cursor_of(state);
        struct stream_entry next = {0};
        uint64_t left = 0;
        struct told told = {.sender = sender,
                            .kind = kind,
                            .state = state,
                            .at = &cursor,
                            .left = &left,
                            .next = &next};
        if (crdt->stream == NULL)
                return;
        if (state.len > 0) {
                stream_id_read(&cursor);
                uint64_t count = cursor_varint(&cursor);
                struct cursor pass = cursor;
                for (uint64_t i = 0; i < count; i++) {
                        entry_read(&pass, UINT64_MAX);
                        if (kind == CRDT_STATE_VALUES)
                                stream_fields_read(&pass);
                }
                told.hidden = cursor_varint(&pass);
                told.hidden_at = pass;
                left = count;
        }
        told_next(&told);
        for (size_t i = crdt->stream->hidden_count; i > 0; i--) {
                if (range_has(range, crdt->stream->hidden[i - 1].entry.id) &&
                    hidden_absent_takes(&told, &crdt->stream->hidden[i - 1].entry))
                        stream_hidden_drop(&env->table, crdt->stream, i - 1);
        }
        stream_range_take(env, crdt->stream, range.low, range.high, absent_takes, &told);
}

void stream_state_merge(struct crdt_env *env, struct crdt *crdt, struct bytes state,
                        struct bytes range, enum crdt_state_kind kind,
                        const struct crdt_seen *sender)
{
        struct stream_range judged = {.high = {UINT64_MAX, UINT64_MAX}};
        struct cursor range_cursor = cursor_of(range);
        struct cursor cursor = cursor_of(state);
        if (range.len > 0)
                judged = range_read(&range_cursor);
        if (state.len > 0) {
                stream_raise(env, crdt, stream_id_read(&cursor));
                for (uint64_t i = cursor_varint(&cursor); i > 0; i--) {
                        struct stream_entry entry = entry_read(&cursor, UINT64_MAX);
                        struct bytes fields = {0};
                        if (kind == CRDT_STATE_VALUES)
                                fields = stream_fields_read(&cursor);
                        if (!env_seen(env, entry.stamp))
                                stream_add(env, crdt, entry, fields);
                }
                for (uint64_t i = cursor_varint(&cursor); i > 0; i--) {
                        struct stream_entry entry = entry_read(&cursor, UINT64_MAX);
                        struct bytes fields = hidden_fields_read(&cursor);
                        if (!env_seen(env, entry.stamp))
                                stream_add(env, crdt, entry, fields);
                }
                for (uint64_t i = cursor_varint(&cursor); i > 0; i--) {
                        struct stream_removal removal;
                        stream_removal_read(&cursor, UINT64_MAX, &removal);
                        stream_remove(env, crdt, &removal);
                }
        }
        absent_take(env, crdt, state, judged, kind, sender);
        stream_prune(env, crdt);
}

/* ---- digest */

uint64_t stream_digest(const struct crdt_stream *stream)
{
        uint64_t hash = HASH_FNV_START;
        for (size_t i = 0; stream != NULL && i < stream->count; i++) {
                const struct stream_entry *entry = stream_entry_at(stream, i);
                hash = hash_fnv_u64(hash_fnv_u64(hash, entry->id.ms), entry->id.seq);
                hash = hash_fnv_u64(hash_fnv_u64(hash, entry->stamp.hlc), entry->stamp.origin);
        }
        return hash;
}
