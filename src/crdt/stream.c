/* Streams: entries by id in an array with room at both ends, since they come at the end and are
 * trimmed from the begin; what comes late moves the few that are younger.
 *
 * The native stream is told of each entry that comes to show or ceases to; it puts late ones where
 * they belong. Nothing fails but memory: env->err is then set and the entry left out. */
#include "crdt/stream.h"

#include "base/check.h"

enum {
        ENTRIES_MIN = 4,
};

void stream_free(const struct table_env *env, struct crdt_stream **slot)
{
        struct crdt_stream *stream = *slot;
        if (stream == NULL)
                return;
        for (size_t i = 0; i < stream->hidden_count; i++)
                heap_free_bytes(env->heap, stream->hidden[i].fields);
        heap_free(env->heap, stream->hidden);
        heap_free(env->heap, stream->removals);
        heap_free(env->heap, stream->entries);
        heap_free(env->heap, stream);
        *slot = NULL;
}

static struct crdt_stream *stream_get(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->stream == NULL)
                crdt->stream = heap_alloc(env->table.heap, sizeof(*crdt->stream));
        if (crdt->stream == NULL)
                env->err = ERR_NOMEM;
        return crdt->stream;
}

bool stream_exists(const struct crdt *crdt)
{
        if (crdt->stream != NULL && crdt->stream->count > 0)
                return true;
        return !crdt->evicted && stamp_before(crdt->killed, crdt->born) &&
               stamp_before(crdt_rival(crdt, CRDT_STREAM), crdt->last[CRDT_STREAM]);
}

size_t stream_seek(const struct crdt_stream *stream, struct crdt_stream_id id)
{
        size_t low = 0;
        size_t high = stream->count;
        /* Most come at the end. */
        if (high > 0 && stream_id_compare(stream_entry_at(stream, high - 1)->id, id) < 0)
                return high;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (stream_id_compare(stream_entry_at(stream, middle)->id, id) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* ---- the array */

static bool entries_room(const struct table_env *env, struct crdt_stream *stream)
{
        if (stream->begin + stream->count < stream->size)
                return true;
        if (stream->begin > stream->size / 2) {
                memmove(stream->entries, &stream->entries[stream->begin],
                        stream->count * sizeof(*stream->entries));
                stream->begin = 0;
                return true;
        }
        size_t size = stream->size == 0 ? ENTRIES_MIN : stream->size * 2;
        struct stream_entry *entries =
                heap_resize(env->heap, stream->entries, size * sizeof(*entries));
        if (entries == NULL)
                return false;
        stream->entries = entries;
        stream->size = size;
        return true;
}

static bool entry_insert(struct crdt_env *env, struct crdt_stream *stream, size_t at,
                         struct stream_entry entry)
{
        if (!entries_room(&env->table, stream)) {
                env->err = ERR_NOMEM;
                return false;
        }
        struct stream_entry *place = &stream->entries[stream->begin + at];
        memmove(place + 1, place, (stream->count - at) * sizeof(*place));
        *place = entry;
        stream->count++;
        return true;
}

static void entries_fit(const struct table_env *env, struct crdt_stream *stream)
{
        if (stream->count > 0)
                return;
        heap_free(env->heap, stream->entries);
        stream->entries = NULL;
        stream->begin = stream->size = 0;
}

/* ---- hidden entries */

static void hidden_add(struct crdt_env *env, struct crdt_stream *stream, struct stream_entry entry,
                       struct bytes fields)
{
        struct stream_hidden *hidden = heap_resize(env->table.heap, stream->hidden,
                                                   (stream->hidden_count + 1) * sizeof(*hidden));
        if (hidden == NULL) {
                env->err = ERR_NOMEM;
                return;
        }
        stream->hidden = hidden;
        struct stream_hidden *one = &hidden[stream->hidden_count];
        *one = (struct stream_hidden){.entry = entry};
        if (heap_copy(env->table.heap, fields, &one->fields))
                stream->hidden_count++;
        else
                env->err = ERR_NOMEM;
}

void stream_hidden_drop(const struct table_env *env, struct crdt_stream *stream, size_t at)
{
        heap_free_bytes(env->heap, stream->hidden[at].fields);
        stream->hidden[at] = stream->hidden[--stream->hidden_count];
        if (stream->hidden_count > 0)
                return;
        heap_free(env->heap, stream->hidden);
        stream->hidden = NULL;
}

/* The latest that has no entry of its id to hide it, or SIZE_MAX. */
static size_t hidden_free(const struct crdt_stream *stream)
{
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < stream->hidden_count; i++) {
                const struct stream_entry *entry = &stream->hidden[i].entry;
                size_t at = stream_seek(stream, entry->id);
                bool covered = at < stream->count &&
                               stream_id_compare(stream_entry_at(stream, at)->id, entry->id) == 0;
                if (!covered && (best == SIZE_MAX ||
                                 stamp_before(stream->hidden[best].entry.stamp, entry->stamp)))
                        best = i;
        }
        return best;
}

static void native_add(struct crdt_env *env, struct crdt_stream_id id, struct bytes fields)
{
        if (env->native != NULL)
                env->native->stream_add(env->native->context, env->name, id, fields);
}

static void native_remove(struct crdt_env *env, struct crdt_stream_id id)
{
        if (env->native != NULL && !env->quiet)
                env->native->stream_remove(env->native->context, env->name, id);
}

/* What is not hidden any more shows. */
static void hidden_show(struct crdt_env *env, struct crdt_stream *stream)
{
        for (size_t at = hidden_free(stream); at != SIZE_MAX; at = hidden_free(stream)) {
                struct stream_entry entry = stream->hidden[at].entry;
                if (!entry_insert(env, stream, stream_seek(stream, entry.id), entry))
                        return;
                native_add(env, entry.id, stream->hidden[at].fields);
                stream_hidden_drop(&env->table, stream, at);
        }
}

/* ---- adding */

static bool removal_has(const struct stream_removal *removal, const struct stream_entry *entry)
{
        return stream_id_compare(removal->low, entry->id) <= 0 &&
               stream_id_compare(entry->id, removal->high) <= 0 &&
               vector_covers(&removal->seen, entry->stamp);
}

static bool entry_removed(const struct crdt_stream *stream, const struct stream_entry *entry)
{
        for (size_t i = 0; i < stream->removal_open; i++) {
                if (removal_has(&stream->removals[i], entry))
                        return true;
        }
        return false;
}

static bool hidden_has(const struct crdt_stream *stream, const struct stream_entry *entry)
{
        for (size_t i = 0; i < stream->hidden_count; i++) {
                const struct stream_entry *one = &stream->hidden[i].entry;
                if (stream_id_compare(one->id, entry->id) == 0 &&
                    stamp_compare(one->stamp, entry->stamp) == 0)
                        return true;
        }
        return false;
}

/* The id is taken: the later stamp shows. */
static void entry_collide(struct crdt_env *env, struct crdt_stream *stream, size_t at,
                          struct stream_entry entry, struct bytes fields)
{
        struct stream_entry *there = &stream->entries[stream->begin + at];
        if (stamp_compare(there->stamp, entry.stamp) == 0 || hidden_has(stream, &entry))
                return;
        env->conflicts++;
        if (stamp_before(entry.stamp, there->stamp)) {
                hidden_add(env, stream, entry, fields);
                return;
        }
        struct bytes old = {0};
        if (env->native != NULL &&
            !env->native->stream_get(env->native->context, env->name, entry.id, &old))
                old = (struct bytes){0};
        hidden_add(env, stream, *there, old);
        *there = entry;
        native_remove(env, entry.id);
        native_add(env, entry.id, fields);
}

void stream_raise(struct crdt_env *env, struct crdt *crdt, struct crdt_stream_id last)
{
        struct crdt_stream *stream = stream_get(env, crdt);
        if (stream == NULL || stream_id_compare(stream->last, last) >= 0)
                return;
        stream->last = last;
        stream->raised = true;
}

void stream_add(struct crdt_env *env, struct crdt *crdt, struct stream_entry entry,
                struct bytes fields)
{
        if (dot_dead(crdt, CRDT_STREAM, entry.stamp))
                return;
        struct crdt_stream *stream = stream_get(env, crdt);
        if (stream == NULL || entry_removed(stream, &entry))
                return;
        if (stream_id_compare(stream->last, entry.id) < 0)
                stream->last = entry.id;
        size_t at = stream_seek(stream, entry.id);
        if (at < stream->count &&
            stream_id_compare(stream_entry_at(stream, at)->id, entry.id) == 0) {
                entry_collide(env, stream, at, entry, fields);
                return;
        }
        if (entry_insert(env, stream, at, entry))
                native_add(env, entry.id, fields);
}

/* ---- removing */

/* Those of [first, last) for which `takes` says so go; the order stays. */
static void entries_take(struct crdt_env *env, struct crdt_stream *stream, size_t first,
                         size_t last,
                         bool (*takes)(const void *context, const struct stream_entry *entry),
                         const void *context)
{
        size_t kept = first;
        if (first == last)
                return; /* where there are none there is no array */
        struct stream_entry *entries = &stream->entries[stream->begin];
        for (size_t i = first; i < last; i++) {
                if (takes(context, &entries[i]))
                        native_remove(env, entries[i].id);
                else
                        entries[kept++] = entries[i];
        }
        size_t gone = last - kept;
        if (gone == 0)
                return;
        if (kept == 0)
                stream->begin += gone;
        else
                memmove(&entries[kept], &entries[last], (stream->count - last) * sizeof(*entries));
        stream->count -= gone;
        entries_fit(&env->table, stream);
}

static void hidden_take(struct crdt_env *env, struct crdt_stream *stream,
                        bool (*takes)(const void *context, const struct stream_entry *entry),
                        const void *context)
{
        for (size_t i = stream->hidden_count; i > 0; i--) {
                if (takes(context, &stream->hidden[i - 1].entry))
                        stream_hidden_drop(&env->table, stream, i - 1);
        }
}

void stream_entries_take(struct crdt_env *env, struct crdt_stream *stream,
                         bool (*takes)(const void *context, const struct stream_entry *entry),
                         const void *context)
{
        entries_take(env, stream, 0, stream->count, takes, context);
        hidden_show(env, stream);
}

static bool removal_takes(const void *context, const struct stream_entry *entry)
{
        return removal_has(context, entry);
}

static bool removal_all(const struct crdt_env *env, const struct stream_removal *removal,
                        bool (*are)(const struct crdt_env *env, struct stamp stamp))
{
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                struct stamp stamp = {removal->seen.hlc[i], (region_id)i};
                if (stamp_is(stamp) && !are(env, stamp))
                        return false;
        }
        return true;
}

static void removal_remember(struct crdt_env *env, struct crdt_stream *stream,
                             const struct stream_removal *removal)
{
        for (size_t i = 0; i < stream->removal_open; i++) {
                struct stream_removal *one = &stream->removals[i];
                if (stream_id_compare(one->low, removal->low) == 0 &&
                    stream_id_compare(one->high, removal->high) == 0) {
                        vector_merge(&one->seen, &removal->seen);
                        return;
                }
        }
        struct stream_removal *removals = heap_resize(
                env->table.heap, stream->removals, (stream->removal_count + 1) * sizeof(*removals));
        if (removals == NULL) {
                env->err = ERR_NOMEM;
                return;
        }
        stream->removals = removals;
        if (stream->removal_open < stream->removal_count)
                removals[stream->removal_count] = removals[stream->removal_open];
        removals[stream->removal_open++] = *removal;
        stream->removal_count++;
}

void stream_range_take(struct crdt_env *env, struct crdt_stream *stream, struct crdt_stream_id low,
                       struct crdt_stream_id high,
                       bool (*takes)(const void *context, const struct stream_entry *entry),
                       const void *context)
{
        size_t first = stream_seek(stream, low);
        size_t last = stream_seek(stream, high);
        last += last < stream->count &&
                stream_id_compare(stream_entry_at(stream, last)->id, high) == 0;
        if (first < last)
                entries_take(env, stream, first, last, takes, context);
        hidden_show(env, stream);
}

void stream_remove(struct crdt_env *env, struct crdt *crdt, const struct stream_removal *removal)
{
        bool remember = !removal_all(env, removal, env_seen_through);
        if (crdt->stream == NULL && !remember)
                return;
        struct crdt_stream *stream = stream_get(env, crdt);
        if (stream == NULL)
                return;
        if (remember)
                removal_remember(env, stream, removal);
        hidden_take(env, stream, removal_takes, removal);
        stream_range_take(env, stream, removal->low, removal->high, removal_takes, removal);
}

static bool sweep_takes(const void *context, const struct stream_entry *entry)
{
        return dot_dead(context, CRDT_STREAM, entry->stamp);
}

/* What has come by now. */
static void removals_close(struct crdt_env *env, struct crdt_stream *stream)
{
        for (size_t i = stream->removal_open; i > 0; i--) {
                struct stream_removal one = stream->removals[i - 1];
                if (!removal_all(env, &one, env_seen_through))
                        continue;
                stream->removals[i - 1] = stream->removals[--stream->removal_open];
                stream->removals[stream->removal_open] = one;
        }
}

static void removals_fit(struct crdt_env *env, struct crdt *crdt)
{
        struct crdt_stream *stream = crdt->stream;
        if (stream->removal_count == 0) {
                heap_free(env->table.heap, stream->removals);
                stream->removals = NULL;
        }
        if (stream->removal_count == 0 && stream->count == 0 && stream->hidden_count == 0 &&
            !stream_exists(crdt))
                stream_free(&env->table, &crdt->stream);
}

void stream_prune(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->stream == NULL)
                return;
        removals_close(env, crdt->stream);
        if (env->settled == NULL)
                crdt->stream->removal_count = crdt->stream->removal_open;
        removals_fit(env, crdt);
}

void stream_collect(struct crdt_env *env, struct crdt *crdt)
{
        struct crdt_stream *stream = crdt->stream;
        if (stream == NULL)
                return;
        removals_close(env, stream);
        size_t kept = stream->removal_open;
        for (size_t i = kept; i < stream->removal_count; i++) {
                if (!removal_all(env, &stream->removals[i], env_settled))
                        stream->removals[kept++] = stream->removals[i];
        }
        stream->removal_count = kept;
        removals_fit(env, crdt);
}

static bool any_lives(const struct crdt *crdt)
{
        const struct crdt_stream *stream = crdt->stream;
        for (size_t i = 0; stream != NULL && i < stream->count; i++) {
                if (!dot_dead(crdt, CRDT_STREAM, stream_entry_at(stream, i)->stamp))
                        return true;
        }
        for (size_t i = 0; stream != NULL && i < stream->hidden_count; i++) {
                if (!dot_dead(crdt, CRDT_STREAM, stream->hidden[i].entry.stamp))
                        return true;
        }
        return !crdt->evicted &&
               stamp_before(crdt_rival(crdt, CRDT_STREAM), crdt->last[CRDT_STREAM]) &&
               stamp_before(crdt->killed, crdt->born);
}

void stream_show(struct crdt_env *env, struct crdt *crdt)
{
        const struct crdt_native *native = env->native;
        const struct crdt_stream *stream = crdt->stream;
        if (native == NULL)
                return;
        /* Its last entry went, and a delete had taken the rest before. */
        if (env->was == CRDT_STREAM && !env->fresh && !stream_exists(crdt)) {
                native->key_delete(native->context, env->name);
                env->fresh = true;
        }
        if (crdt_type(crdt) != CRDT_STREAM)
                return;
        if (env->fresh && (stream == NULL || stream->count == 0))
                native->stream_make(native->context, env->name);
        if (stream != NULL && stream->raised)
                native->stream_raise(native->context, env->name, stream->last);
        if (stream != NULL)
                crdt->stream->raised = false;
}

void stream_sweep(struct crdt_env *env, struct crdt *crdt)
{
        bool rose = floor_rose(env, crdt, CRDT_STREAM) || env->bounds_rose;
        if (env->was == CRDT_STREAM && !any_lives(crdt)) {
                env->quiet = true;
                env->fresh = true;
                if (env->native != NULL)
                        env->native->key_delete(env->native->context, env->name);
        }
        if (crdt->stream != NULL && rose) {
                hidden_take(env, crdt->stream, sweep_takes, crdt);
                stream_entries_take(env, crdt->stream, sweep_takes, crdt);
        }
        env->quiet = false;
        stream_prune(env, crdt);
}

/* ---- looking */

void stream_observe(const struct crdt_stream *stream, struct crdt_stream_id low,
                    struct crdt_stream_id high, struct vector *ret)
{
        for (size_t i = stream_seek(stream, low); i < stream->count; i++) {
                const struct stream_entry *entry = stream_entry_at(stream, i);
                if (stream_id_compare(high, entry->id) < 0)
                        break;
                vector_advance(ret, entry->stamp.origin, entry->stamp.hlc);
        }
        for (size_t i = 0; i < stream->hidden_count; i++) {
                const struct stream_entry *entry = &stream->hidden[i].entry;
                if (stream_id_compare(low, entry->id) <= 0 &&
                    stream_id_compare(entry->id, high) <= 0)
                        vector_advance(ret, entry->stamp.origin, entry->stamp.hlc);
        }
}

uint64_t crdt_stream_length(const struct crdt *crdt)
{
        return crdt->stream == NULL || crdt->evicted ? 0 : crdt->stream->count;
}

struct crdt_stream_id crdt_stream_last(const struct crdt *crdt)
{
        return crdt->stream == NULL ? (struct crdt_stream_id){0} : crdt->stream->last;
}

bool crdt_stream_has(const struct crdt *crdt, struct crdt_stream_id low, struct crdt_stream_id high)
{
        if (crdt->stream == NULL)
                return false;
        size_t at = stream_seek(crdt->stream, low);
        return at < crdt->stream->count &&
               stream_id_compare(stream_entry_at(crdt->stream, at)->id, high) <= 0;
}

void crdt_stream_removal_encode(const struct crdt *crdt, struct crdt_stream_id low,
                                struct crdt_stream_id high, struct buffer *buffer)
{
        struct vector seen = {0};
        stream_observe(crdt->stream, low, high, &seen);
        stream_id_write(buffer, low);
        stream_id_write(buffer, high);
        vector_encode(&seen, buffer);
}

void crdt_stream_id_encode(struct buffer *buffer, struct crdt_stream_id id)
{
        stream_id_write(buffer, id);
}
