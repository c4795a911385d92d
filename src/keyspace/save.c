/* All metadata as bytes, for the host's own snapshot. Values are not in it.
 *
 *      u32     "MKS" and the format version
 *      u8      origin
 *      u64     clock
 *      u64     how far the clock is reserved
 *      seen    as in transfer.c
 *      vector  what parts of states hinted at
 *      u64     members, a bit per region
 *      u64     up to where tombstones may be forgotten
 *      vector  of one of several servers: what all of them have
 *      varint  count, then (u8 region, vector, u64 members, [members not 0: vector of marks]) of
 *              what the others know, as they told it
 *      flushes as in flush.c
 *      varint  count, then the keys, as in crdt/state.c, without values
 *      u64     clock of the newest delta that the ring has dropped
 *      varint  count, then (slice) of the deltas in the ring
 *      u32     CRC-32C of all before
 *
 * Damage is told by the checksum first, so that nothing of a damaged save is used. */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"

enum {
        SAVE_MAGIC = 0x04534b4d,
        SAVE_MAGIC_SEVERAL = 0x05534b4d, /* one of several servers */
        SAVE_MAGIC_UNTOLD = 0x03534b4d,  /* without what is told of the members, and forgotten */
        SAVE_MAGIC_MASK = 0x00ffffff,
        SAVE_CRC_LEN = 4,
};

static bool has_told(const struct keyspace *keyspace, unsigned region)
{
        static const struct vector none;
        return !vector_includes(&none, &keyspace->known[region]) ||
               keyspace->gone[region].members != 0;
}

static void known_save(const struct keyspace *keyspace, struct buffer *buffer)
{
        unsigned count = 0;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                count += has_told(keyspace, i);
        buffer_varint(buffer, count);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                const struct crdt_gone *gone = &keyspace->gone[i];
                if (!has_told(keyspace, i))
                        continue;
                buffer_u8(buffer, (uint8_t)i);
                vector_encode(&keyspace->known[i], buffer);
                buffer_u64(buffer, gone->members);
                if (gone->members != 0)
                        vector_encode(&gone->marks, buffer);
        }
}

static enum err keys_save(const struct keyspace *keyspace, struct buffer *buffer)
{
        struct table_walk walk = {0};
        buffer_varint(buffer, keyspace->table.count);
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL; node = table_next(&keyspace->table, &walk)) {
                struct entry *entry = entry_of(node);
                struct crdt_env env = keyspace_env(keyspace, NULL, entry_name(entry));
                enum err err = entry_encode(keyspace, entry, &env, CRDT_STATE_SAVED, buffer);
                if (err != ERR_NONE)
                        return err;
        }
        return ERR_NONE;
}

static void ring_save(const struct keyspace *keyspace, bool ring, struct buffer *buffer)
{
        struct ring_read read = {0};
        if (ring)
                read = ring_read(&keyspace->ring, 0, SIZE_MAX);
        buffer_u64(buffer, ring ? keyspace->ring.dropped : keyspace->ring.last);
        buffer_varint(buffer, read.count);
        buffer_bytes(buffer, read.parts[0]);
        buffer_bytes(buffer, read.parts[1]);
}

enum err keyspace_save(struct keyspace *keyspace, bool ring, struct buffer *buffer)
{
        size_t begin = buffer->len;
        bool several = keyspace->config.several;
        buffer_u32(buffer, several ? SAVE_MAGIC_SEVERAL : SAVE_MAGIC);
        buffer_u8(buffer, keyspace->config.origin);
        buffer_u64(buffer, keyspace->hlc.last);
        buffer_u64(buffer, keyspace->reserved);
        crdt_seen_encode(&keyspace->seen, buffer);
        vector_encode(&keyspace->hinted, buffer);
        buffer_u64(buffer, keyspace->members);
        buffer_u64(buffer, keyspace->collected_to);
        if (several)
                vector_encode(&keyspace->level, buffer);
        known_save(keyspace, buffer);
        flushes_encode(keyspace, buffer);
        enum err err = keys_save(keyspace, buffer);
        if (err != ERR_NONE)
                return err;
        ring_save(keyspace, ring, buffer);
        struct bytes body = bytes_of(buffer->ptr + begin, buffer->len - begin);
        if (buffer->err == ERR_NONE)
                buffer_u32(buffer, hash_crc32c(0, body));
        return buffer->err;
}

static void known_load(struct keyspace *keyspace, struct cursor *cursor, bool told)
{
        uint64_t count = cursor_varint_max(cursor, CLOCK_REGIONS_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                uint8_t region = cursor_u8(cursor);
                struct crdt_gone gone = {0};
                if (!region_valid(region)) {
                        cursor_fail(cursor, ERR_MALFORMED);
                        return;
                }
                vector_decode(cursor, &keyspace->known[region]);
                if (told)
                        gone.members = cursor_u64(cursor);
                if (gone.members != 0)
                        vector_decode(cursor, &gone.marks);
                keyspace->gone[region] = gone;
        }
}

/* At most what could be forgotten, where that was not saved. */
static uint64_t collected_most(const struct keyspace *keyspace)
{
        uint64_t most =
                keyspace->members == 0 ? 0 : seen_solid(&keyspace->seen, keyspace->config.origin);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                uint64_t known = keyspace_known_to_all(keyspace, (region_id)i);
                if (member_is(keyspace, i) && known < most)
                        most = known;
        }
        return most;
}

static enum err key_load(struct keyspace *keyspace, struct cursor *cursor)
{
        struct crdt_state state;
        if (!crdt_state_decode(cursor, CRDT_STATE_SAVED, keyspace->hlc.last, &state))
                return ERR_CORRUPT;
        return entry_take(keyspace, NULL, &state);
}

static enum err keys_load(struct keyspace *keyspace, struct cursor *cursor)
{
        enum err err = ERR_NONE;
        uint64_t count = cursor_varint(cursor);
        for (uint64_t i = 0; i < count && err == ERR_NONE; i++)
                err = key_load(keyspace, cursor);
        return err;
}

static enum err ring_load(struct keyspace *keyspace, struct cursor *cursor)
{
        struct ring *ring = &keyspace->ring;
        uint64_t dropped = cursor_u64(cursor);
        uint64_t count = cursor_varint(cursor);
        ring->dropped = dropped;
        ring->last = dropped;
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_delta delta;
                struct bytes data = cursor_slice(cursor);
                if (cursor_failed(cursor) ||
                    crdt_delta_decode(data, keyspace->config.origin, &delta) != ERR_NONE ||
                    delta.stamp.hlc <= ring->last)
                        return ERR_CORRUPT;
                uint8_t *at = ring_append(ring, delta.stamp.hlc, data.len);
                if (at != NULL)
                        memcpy(at, data.ptr, data.len);
        }
        return ERR_NONE;
}

static enum err head_load(struct keyspace *keyspace, struct cursor *cursor)
{
        uint32_t magic = cursor_u32(cursor);
        region_id origin = cursor_u8(cursor);
        if (cursor_failed(cursor) || ((magic ^ SAVE_MAGIC) & SAVE_MAGIC_MASK) != 0)
                return ERR_CORRUPT;
        if (magic != SAVE_MAGIC && magic != SAVE_MAGIC_SEVERAL && magic != SAVE_MAGIC_UNTOLD)
                return ERR_VERSION;
        if (origin != keyspace->config.origin)
                return ERR_INVALID;
        keyspace->hlc.last = cursor_u64(cursor);
        keyspace->reserved = cursor_u64(cursor);
        crdt_seen_decode(cursor, origin, &keyspace->seen);
        vector_decode(cursor, &keyspace->hinted);
        keyspace->members = cursor_u64(cursor);
        keyspace->collected_to = magic == SAVE_MAGIC_UNTOLD ? 0 : cursor_u64(cursor);
        keyspace->level = keyspace->seen.vector;
        if (magic == SAVE_MAGIC_SEVERAL)
                vector_decode(cursor, &keyspace->level);
        known_load(keyspace, cursor, magic != SAVE_MAGIC_UNTOLD);
        if (magic == SAVE_MAGIC_UNTOLD)
                keyspace->collected_to = collected_most(keyspace);
        if (flushes_load(keyspace, cursor) != ERR_NONE)
                return ERR_NOMEM;
        return cursor_failed(cursor) ? ERR_CORRUPT : ERR_NONE;
}

enum err keyspace_load(struct keyspace *keyspace, struct bytes saved)
{
        CHECK(keyspace->table.count == 0);
        CHECK(!keyspace->issued);
        if (saved.len < SAVE_CRC_LEN)
                return ERR_CORRUPT;
        struct bytes body = bytes_of(saved.ptr, saved.len - SAVE_CRC_LEN);
        struct cursor crc = cursor_of(bytes_of(saved.ptr + body.len, SAVE_CRC_LEN));
        if (cursor_u32(&crc) != hash_crc32c(0, body))
                return ERR_CORRUPT;
        struct cursor cursor = cursor_of(body);
        enum err err = head_load(keyspace, &cursor);
        if (err == ERR_NONE)
                err = keys_load(keyspace, &cursor);
        if (err == ERR_NONE)
                err = ring_load(keyspace, &cursor);
        if (err == ERR_NONE && cursor_done(&cursor) != ERR_NONE)
                err = ERR_CORRUPT;
        uint64_t position = vector_get(&keyspace->seen.vector, keyspace->config.origin);
        /* A saved clock is never behind what was saved with it. */
        if (err == ERR_NONE && (keyspace->hlc.last < position || keyspace->ring.last > position ||
                                keyspace->hlc.last < keyspace->collected_to))
                err = ERR_CORRUPT;
        return err;
}
