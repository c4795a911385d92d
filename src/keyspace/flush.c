/* Databases that were emptied as a whole. The flusher publishes deletes of the keys that stamps
 * alone cannot judge (crdt/flush.c), then one delta that says what it had seen. Whoever gets that
 * walks its keys of the database. A write that the flusher had seen may come later, by another
 * stream or a state: so the flush is remembered until everything that it had seen is here, and is
 * applied again to each key for which a change comes meanwhile. States carry what is remembered.
 *
 * In a state and in a save: varint count, then (varint database, u8 flusher, holes, vector)
 * each. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

enum {
        FLUSHES_MAX = 4096, /* in a state: more is malformed */
};

void flushes_free(struct keyspace *keyspace)
{
        heap_free(keyspace->heap, keyspace->flushes);
        keyspace->flushes = NULL;
        keyspace->flush_count = 0;
}

static bool flush_covers(const struct flush *flush, const struct entry *entry)
{
        return crdt_seen_covers(&flush->seen, entry_stamp(entry));
}

/* A plain string, which is most: as crdt_flush would leave it. */
static void flush_plain(struct keyspace *keyspace, const struct crdt_native *native,
                        struct entry *entry)
{
        entry_count(keyspace, CRDT_STRING, CRDT_NONE);
        entry->node.kind = ENTRY_DEAD;
        entry->more = entry->hlc;
        entry->more_origin = entry->origin;
        if (native != NULL)
                native->key_delete(native->context, entry_name(entry));
}

enum err flush_entry(struct keyspace *keyspace, const struct crdt_native *native,
                     struct entry *entry, const struct flush *flush)
{
        switch ((enum entry_kind)entry->node.kind) {
        case ENTRY_DEAD:
                return ERR_NONE;
        case ENTRY_STRING:
                if (entry->hlc != 0 && flush_covers(flush, entry))
                        flush_plain(keyspace, native, entry);
                return ERR_NONE;
        case ENTRY_PACK:
        case ENTRY_FULL:
                break;
        }
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        struct crdt_env env = keyspace_env(keyspace, native, entry_name(entry));
        enum crdt_type was = crdt_type(crdt);
        crdt_flush(&env, crdt, &flush->seen);
        entry_count(keyspace, was, crdt_type(crdt));
        entry_pack(keyspace, entry);
        return env.err;
}

static enum err flush_walk(struct keyspace *keyspace, const struct crdt_native *native,
                           const struct flush *flush)
{
        enum err err = ERR_NONE;
        struct table_walk walk = {0};
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL && err == ERR_NONE; node = table_next(&keyspace->table, &walk)) {
                if (node->space == flush->db)
                        err = flush_entry(keyspace, native, entry_of(node), flush);
        }
        return err;
}

/* ---- what is remembered */

/* What came before the flush in its own stream is here, but for holes. */
static bool flush_is_past(const struct keyspace *keyspace, const struct flush *flush)
{
        struct crdt_seen seen = keyspace->seen;
        region_id self = flush->seen.self;
        vector_advance(&seen.vector, self, vector_get(&flush->seen.vector, self));
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                uint64_t solid = i == self ? seen_solid(&seen, self)
                                           : keyspace_solid(keyspace, (region_id)i);
                if (solid < flush->seen.vector.hlc[i])
                        return false;
        }
        return true;
}

void flushes_prune(struct keyspace *keyspace)
{
        unsigned kept = 0;
        for (unsigned i = 0; i < keyspace->flush_count; i++) {
                if (!flush_is_past(keyspace, &keyspace->flushes[i]))
                        keyspace->flushes[kept++] = keyspace->flushes[i];
        }
        keyspace->flush_count = kept;
}

/* A later flush by the same region has seen all that an earlier one had. */
static enum err flush_remember(struct keyspace *keyspace, const struct flush *flush)
{
        if (flush_is_past(keyspace, flush))
                return ERR_NONE;
        for (unsigned i = 0; i < keyspace->flush_count; i++) {
                struct flush *known = &keyspace->flushes[i];
                if (known->db != flush->db || known->seen.self != flush->seen.self)
                        continue;
                if (vector_includes(&flush->seen.vector, &known->seen.vector))
                        *known = *flush;
                return ERR_NONE;
        }
        struct flush *flushes = heap_resize(keyspace->heap, keyspace->flushes,
                                            (keyspace->flush_count + 1) * sizeof *flushes);
        if (flushes == NULL)
                return ERR_NOMEM;
        flushes[keyspace->flush_count++] = *flush;
        keyspace->flushes = flushes;
        return ERR_NONE;
}

enum err flushes_again(struct keyspace *keyspace, const struct crdt_native *native,
                       struct entry *entry)
{
        enum err err = ERR_NONE;
        for (unsigned i = 0; i < keyspace->flush_count && err == ERR_NONE; i++) {
                if (keyspace->flushes[i].db == entry->node.space)
                        err = flush_entry(keyspace, native, entry, &keyspace->flushes[i]);
        }
        return err;
}

/* ---- others' */

static enum err flush_take(struct keyspace *keyspace, const struct crdt_native *native,
                           const struct flush *flush)
{
        enum err err = flush_walk(keyspace, native, flush);
        return err != ERR_NONE ? err : flush_remember(keyspace, flush);
}

enum err flush_merge(struct keyspace *keyspace, const struct crdt_native *native,
                     const struct crdt_delta *delta)
{
        struct flush flush = {.db = delta->name.db};
        struct buffer seen;
        buffer_init(&seen, keyspace->heap);
        buffer_bytes(&seen, delta->holes);
        vector_encode(&delta->seen, &seen);
        enum err err = seen.err;
        struct cursor cursor = cursor_of(buffer_view(&seen));
        if (err == ERR_NONE) {
                crdt_seen_decode(&cursor, delta->stamp.origin, &flush.seen);
                CHECK(!cursor_failed(&cursor));
        }
        buffer_fini(&seen);
        return err != ERR_NONE ? err : flush_take(keyspace, native, &flush);
}

void flushes_encode(const struct keyspace *keyspace, struct buffer *buffer)
{
        buffer_varint(buffer, keyspace->flush_count);
        for (unsigned i = 0; i < keyspace->flush_count; i++) {
                buffer_varint(buffer, keyspace->flushes[i].db);
                buffer_u8(buffer, keyspace->flushes[i].seen.self);
                crdt_seen_encode(&keyspace->flushes[i].seen, buffer);
        }
}

static struct flush flush_read(struct cursor *cursor)
{
        struct flush flush = {.db = (uint32_t)cursor_varint_max(cursor, CRDT_DB_MAX)};
        region_id self = cursor_u8(cursor);
        if (!region_valid(self))
                cursor_fail(cursor, ERR_MALFORMED);
        crdt_seen_decode(cursor, self, &flush.seen);
        return flush;
}

struct bytes flushes_check(struct cursor *cursor)
{
        const uint8_t *from = cursor->at;
        uint64_t count = cursor_varint_max(cursor, FLUSHES_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                flush_read(cursor);
        return bytes_of(from, (size_t)(cursor->at - from));
}

enum err flushes_load(struct keyspace *keyspace, struct cursor *cursor)
{
        enum err err = ERR_NONE;
        uint64_t count = cursor_varint_max(cursor, FLUSHES_MAX);
        for (uint64_t i = 0; i < count && err == ERR_NONE && !cursor_failed(cursor); i++) {
                struct flush flush = flush_read(cursor);
                if (!cursor_failed(cursor))
                        err = flush_remember(keyspace, &flush);
        }
        return err;
}

enum err flushes_merge(struct keyspace *keyspace, const struct crdt_native *native,
                       struct bytes flushes)
{
        struct cursor cursor = cursor_of(flushes);
        enum err err = ERR_NONE;
        uint64_t count = flushes.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count && err == ERR_NONE; i++) {
                struct flush flush = flush_read(&cursor);
                region_id self = flush.seen.self;
                struct stamp stamp = {vector_get(&flush.seen.vector, self), self};
                if (!crdt_seen_covers(&keyspace->seen, stamp))
                        err = flush_take(keyspace, native, &flush);
        }
        return err;
}

/* ---- our own */

static enum err flush_publish(struct keyspace *keyspace, uint64_t wall_ms, uint32_t db,
                              struct keyspace_change *ret)
{
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct flush flush = {.db = db, .seen = keyspace->seen};
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_FLUSH, 0, (struct crdt_name){.db = db});
        crdt_seen_encode(&keyspace->seen, delta);
        if (delta->err != ERR_NONE)
                return delta->err;
        change_publish(keyspace, stamp, ret);
        return flush_walk(keyspace, NULL, &flush);
}

struct flusher {
        uint64_t wall_ms;
        uint32_t db;
        bool any; /* there is content for the flush itself */
        void (*changed)(void *context, const struct keyspace_change *change);
        void *context;
};

/* As crdt_flush_judges: of what is packed, by the type. */
static bool entry_judged(const struct keyspace *keyspace, const struct entry *entry)
{
        struct crdt room;
        if (entry->node.kind != ENTRY_PACK)
                return crdt_flush_judges(entry_open(keyspace, entry, &room));
        enum crdt_type type = crdt_pack_kind(entry->pack);
        return type == CRDT_HASH || type == CRDT_SET || crdt_pack_is_string(entry->pack);
}

/* Deletes one by one what is there; with `judged` left to the flush, what stamps alone can tell. */
static enum err delete_walk(struct keyspace *keyspace, struct flusher *flusher, bool judged)
{
        enum err err = ERR_NONE;
        struct table_walk walk = {0};
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL && err == ERR_NONE; node = table_next(&keyspace->table, &walk)) {
                struct keyspace_change change;
                struct entry *entry = entry_of(node);
                if (node->space != flusher->db)
                        continue;
                if (judged && entry_judged(keyspace, entry)) {
                        flusher->any = flusher->any || entry_type(entry) != CRDT_NONE;
                        continue;
                }
                err = entry_delete(keyspace, flusher->wall_ms, entry, &change);
                if (err == ERR_NONE && !change.nothing)
                        flusher->changed(flusher->context, &change);
        }
        return err;
}

/* What a state transfer that is under way has brought is here, but its stamps are not covered yet:
 * the flush leaves it, and it is deleted at the end. */
enum err keyspace_local_flush(struct keyspace *keyspace, uint64_t wall_ms, uint32_t db,
                              bool one_by_one,
                              void (*changed)(void *context, const struct keyspace_change *change),
                              void *context)
{
        struct keyspace_change change;
        struct flusher flusher = {wall_ms, db, false, changed, context};
        enum err err = delete_walk(keyspace, &flusher, !one_by_one);
        if (err != ERR_NONE || !flusher.any)
                return err;
        err = flush_publish(keyspace, wall_ms, db, &change);
        if (err != ERR_NONE)
                return err;
        changed(context, &change);
        return delete_walk(keyspace, &flusher, false);
}
