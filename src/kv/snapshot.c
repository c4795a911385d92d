/* The space as bytes: what cannot be derived, in the order of revisions, which is the same on every
 * replica. Integers are varints where nothing else is said.
 *
 *   u8 version (1), revision, compacted
 *   count of ids, the oldest first; each: slice id, revision, u8 succeeded
 *   count of versions; each: u8 bits (1 keep, 2 deletes), revision, created, version, session,
 *     wall_us, slices key, value, actor
 *
 * Derived: which of a key's versions is current, and which dead ones are in the queue: those that
 * are dead from after `compacted` on. The others were kept. */
#include "base/check.h"
#include "kv/kv_priv.h"

enum {
        SNAPSHOT_VERSION = 1,
};

static void ids_encode(const struct kv *kv, struct buffer *out)
{
        buffer_varint(out, kv->seen_count);
        for (size_t i = 0; i < kv->seen_count; i++) {
                const struct seen *seen = &kv->seen[(kv->seen_first + i) % KV_IDS_MAX];
                buffer_slice(out, seen->id);
                buffer_varint(out, seen->revision);
                buffer_u8(out, seen->succeeded);
        }
}

void kv_version_encode(const struct version *version, struct buffer *out)
{
        buffer_u8(out, (uint8_t)((version->keep ? 1 : 0) | (version->count == 0 ? 2 : 0)));
        buffer_varint(out, version->revision);
        buffer_varint(out, version->created);
        buffer_varint(out, version->count);
        buffer_varint(out, version->session);
        buffer_varint(out, version->wall_us);
        buffer_slice(out, version->entry->key);
        buffer_slice(out, version->value);
        buffer_slice(out, version->actor);
}

void kv_head_encode(const struct kv *kv, struct buffer *out)
{
        buffer_u8(out, SNAPSHOT_VERSION);
        buffer_varint(out, kv->revision);
        buffer_varint(out, kv->compacted);
        ids_encode(kv, out);
        buffer_varint(out, kv->version_count);
}

void kv_encode(const struct kv *kv, struct buffer *out)
{
        kv_head_encode(kv, out);
        for (const struct version *version = kv->first; version != NULL; version = version->next)
                kv_version_encode(version, out);
}

static struct bytes text_decode(struct cursor *cursor, size_t min, size_t max)
{
        struct bytes text = cursor_slice(cursor);
        if (text.len < min || text.len > max)
                cursor_fail(cursor, ERR_MALFORMED);
        return text;
}

static void ids_decode(struct cursor *cursor, struct kv *kv)
{
        uint64_t count = cursor_varint_max(cursor, KV_IDS_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct bytes id = text_decode(cursor, 1, KV_NAME_BYTES_MAX);
                uint64_t revision = cursor_varint_max(cursor, kv->revision);
                uint8_t succeeded = cursor_u8(cursor);
                if (succeeded > 1 || (!cursor_failed(cursor) && kv_seen_find(kv, id) != NULL))
                        cursor_fail(cursor, ERR_MALFORMED);
                if (!cursor_failed(cursor) && !kv_seen_add(kv, id, revision, succeeded == 1))
                        cursor_fail(cursor, ERR_NOMEM);
        }
}

/* Is this a version that may follow what was read? */
static bool version_fits(const struct kv *kv, const struct kv_item *item, bool deletes)
{
        const struct entry *entry = kv_tree_find(kv, item->key);
        const struct version *before = entry == NULL ? NULL : entry->newest;
        if (item->revision == 0 || item->revision > kv->revision ||
            item->created > item->revision || (item->version == 0) != deletes)
                return false;
        if (deletes && (item->value.len > 0 || item->session != 0))
                return false;
        if (kv->last != NULL && kv->last->revision > item->revision)
                return false;
        return before == NULL || before->revision < item->revision;
}

static void version_decode(struct cursor *cursor, struct kv *kv)
{
        struct kv_item item = {0};
        uint8_t bits = cursor_u8(cursor);
        item.revision = cursor_varint(cursor);
        item.created = cursor_varint(cursor);
        item.version = cursor_varint(cursor);
        item.session = cursor_varint(cursor);
        item.wall_us = cursor_varint(cursor);
        item.key = text_decode(cursor, 1, KV_KEY_BYTES_MAX);
        item.value = text_decode(cursor, 0, KV_VALUE_BYTES_MAX);
        item.actor = text_decode(cursor, 0, KV_NAME_BYTES_MAX);
        if (cursor_failed(cursor))
                return;
        if (bits > 3 || !version_fits(kv, &item, (bits & 2) != 0))
                cursor_fail(cursor, ERR_MALFORMED);
        else if (kv_store_add(kv, &item, (bits & 1) != 0) == NULL)
                cursor_fail(cursor, ERR_NOMEM);
}

/* What is dead at `compacted` was kept, or it would not be here. */
static bool kept_valid(const struct kv *kv)
{
        const struct version *version = kv->dead;
        for (; version != NULL && version->dead_at <= kv->compacted; version = version->dead_next) {
                if (!version->keep)
                        return false;
        }
        return true;
}

/* ---- in steps ---- */

void kv_restore_begin(struct kv *kv, struct bytes data)
{
        struct kv_restoring *restoring = &kv->restoring;
        CHECK(kv->version_count == 0);
        *restoring = (struct kv_restoring){.cursor = cursor_of(data)};
        uint8_t version = cursor_u8(&restoring->cursor);
        if (!cursor_failed(&restoring->cursor) && version != SNAPSHOT_VERSION)
                cursor_fail(&restoring->cursor, ERR_VERSION);
        kv->revision = cursor_varint(&restoring->cursor);
        restoring->compacted = cursor_varint_max(&restoring->cursor, kv->revision);
        ids_decode(&restoring->cursor, kv);
        restoring->left = cursor_varint(&restoring->cursor);
}

bool kv_restore_step(struct kv *kv, size_t bytes)
{
        struct kv_restoring *restoring = &kv->restoring;
        struct cursor *cursor = &restoring->cursor;
        for (size_t left = bytes; left > 0 && restoring->left > 0 && !cursor_failed(cursor);) {
                size_t before = cursor_left(cursor);
                version_decode(cursor, kv);
                restoring->left--;
                size_t done = before - cursor_left(cursor);
                left -= left < done ? left : done;
        }
        return restoring->left == 0 || cursor_failed(cursor);
}

enum err kv_restore_end(struct kv *kv)
{
        struct kv_restoring *restoring = &kv->restoring;
        enum err err = cursor_done(&restoring->cursor);
        CHECK(err != ERR_NONE || restoring->left == 0);
        if (err != ERR_NONE)
                return err;
        kv->compacted = restoring->compacted;
        if (!kept_valid(kv))
                return ERR_MALFORMED;
        size_t versions = kv->version_count;
        kv_store_compact(kv, kv->compacted);
        return kv->version_count == versions ? ERR_NONE : ERR_MALFORMED;
}

enum err kv_decode(struct kv *kv, struct bytes data)
{
        struct kv *beside = NULL;
        enum err err = kv_new(kv->heap, kv->seed, &beside);
        if (err != ERR_NONE)
                return err;
        kv_restore_begin(beside, data);
        while (!kv_restore_step(beside, SIZE_MAX))
                ;
        err = kv_restore_end(beside);
        if (err == ERR_NONE) {
                struct kv old = *kv;
                *kv = *beside;
                *beside = old;
        }
        kv_free(beside);
        return err;
}
