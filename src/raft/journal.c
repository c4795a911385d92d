/* Writing: a record is put together in the buffer, and its length and checksum filled in at the
 * end. Reading trusts nothing: the checksum first, then every length and range of the body. */
#include "raft/journal.h"

#include "base/check.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "raft/members.h"

enum {
        META_AMNESIAC = 1,
        META_JOINED = 2,
        SERVERS_MAX = 64,
        ROLES_MAX = 2,
        CONFIGURATION_FORMAT = 1,
};

#define INDEX_MAX (UINT64_MAX >> 2)

static const struct bytes magic = BYTES_INIT("MERIRAFT");

void journal_write_header(struct buffer *out, const struct journal_identity *identity)
{
        size_t at = out->len;
        buffer_bytes(out, magic);
        buffer_u32(out, identity->version);
        buffer_u32(out, identity->group);
        buffer_u64(out, identity->cluster);
        buffer_u32(out, identity->node);
        if (out->err != ERR_NONE)
                return;
        buffer_u32(out, hash_crc32c(0, bytes_of(out->ptr + at, JOURNAL_HEADER_SIZE - 4)));
}

/* Returns where the record begins. */
static size_t record_begin(struct buffer *out, uint64_t durable, enum journal_type type)
{
        size_t at = out->len;
        buffer_u32(out, 0);
        buffer_u32(out, 0);
        buffer_u64(out, durable);
        buffer_u8(out, (uint8_t)type);
        return at;
}

static void record_end(struct buffer *out, size_t at)
{
        if (out->err != ERR_NONE)
                return;
        size_t len = out->len - at - JOURNAL_RECORD_HEAD_SIZE;
        CHECK(len <= UINT32_MAX);
        buffer_patch_u32(out, at + 4, (uint32_t)len);
        struct bytes sum = bytes_of(out->ptr + at + 4, out->len - at - 4);
        buffer_patch_u32(out, at, hash_crc32c(0, sum));
}

void journal_write_meta(struct buffer *out, uint64_t durable, const struct journal_meta *meta)
{
        size_t at = record_begin(out, durable, JOURNAL_META);
        buffer_u64(out, meta->term);
        buffer_u32(out, meta->vote);
        if (meta->extended) {
                buffer_u64(out, meta->life);
                buffer_u8(out, (uint8_t)((meta->amnesiac ? META_AMNESIAC : 0) |
                                         (meta->joined ? META_JOINED : 0)));
        }
        record_end(out, at);
}

void journal_write_entry(struct buffer *out, uint64_t durable, const struct journal_entry *entry)
{
        size_t at = record_begin(out, durable, JOURNAL_ENTRY);
        buffer_u64(out, entry->index);
        buffer_u64(out, entry->term);
        buffer_u8(out, (uint8_t)entry->type);
        buffer_bytes(out, entry->data);
        record_end(out, at);
}

static size_t snapshot_begin(struct buffer *out, uint64_t durable,
                             const struct journal_snapshot *snapshot)
{
        size_t at = record_begin(out, durable, JOURNAL_SNAPSHOT);
        buffer_u64(out, snapshot->index);
        buffer_u64(out, snapshot->term);
        buffer_u64(out, snapshot->configuration_index);
        buffer_u32(out, (uint32_t)snapshot->configuration.len);
        buffer_bytes(out, snapshot->configuration);
        return at;
}

void journal_write_snapshot(struct buffer *out, uint64_t durable,
                            const struct journal_snapshot *snapshot)
{
        size_t at = snapshot_begin(out, durable, snapshot);
        buffer_bytes(out, snapshot->state);
        record_end(out, at);
}

void journal_write_snapshot_head(struct buffer *out, uint64_t durable,
                                 const struct journal_snapshot *snapshot)
{
        size_t at = snapshot_begin(out, durable, snapshot);
        if (out->err != ERR_NONE)
                return;
        size_t len = out->len - at - JOURNAL_RECORD_HEAD_SIZE + snapshot->state.len;
        CHECK(len <= UINT32_MAX);
        buffer_patch_u32(out, at + 4, (uint32_t)len);
}

uint32_t journal_sum_begin(struct bytes head)
{
        if (head.len < JOURNAL_RECORD_HEAD_SIZE)
                return 0; /* memory ran out, which is told later */
        return hash_crc32c(0, bytes_of(head.ptr + 4, head.len - 4));
}

enum err journal_read_header(struct bytes journal, const struct journal_identity *identity,
                             uint32_t *ret_version)
{
        if (journal.len < JOURNAL_HEADER_SIZE)
                return ERR_TRUNCATED;
        struct cursor cursor = cursor_of(bytes_of(journal.ptr, JOURNAL_HEADER_SIZE));
        struct bytes found = cursor_bytes(&cursor, magic.len);
        uint32_t version = cursor_u32(&cursor);
        uint32_t group = cursor_u32(&cursor);
        uint64_t cluster = cursor_u64(&cursor);
        uint32_t node = cursor_u32(&cursor);
        uint32_t crc = cursor_u32(&cursor);
        if (!bytes_equal(found, magic) ||
            crc != hash_crc32c(0, bytes_of(journal.ptr, JOURNAL_HEADER_SIZE - 4)))
                return ERR_CORRUPT;
        if (version == 0 || version > identity->version)
                return ERR_VERSION;
        if (group != identity->group || cluster != identity->cluster || node != identity->node)
                return ERR_REFUSED;
        *ret_version = version;
        return cursor_done(&cursor);
}

bool journal_configuration_valid(struct bytes configuration)
{
        uint64_t seen[SERVERS_MAX];
        struct cursor cursor = cursor_of(configuration);
        if (cursor_u8(&cursor) != CONFIGURATION_FORMAT)
                return false;
        uint64_t count = cursor_u64(&cursor);
        if (count == 0 || count > SERVERS_MAX)
                return false;
        for (size_t i = 0; i < count; i++) {
                seen[i] = cursor_u64(&cursor);
                if (seen[i] == 0 || seen[i] > UINT32_MAX)
                        return false;
                for (size_t j = 0; j < i; j++) {
                        if (seen[j] == seen[i])
                                return false;
                }
                /* The id in decimal: not used, but the library wants distinct addresses. */
                uint64_t address = 0;
                uint8_t digit = cursor_u8(&cursor);
                while (digit >= '0' && digit <= '9' && address <= UINT32_MAX) {
                        address = address * 10 + (uint64_t)(digit - '0');
                        digit = cursor_u8(&cursor);
                }
                if (digit != 0 || address != seen[i] || cursor_u8(&cursor) > ROLES_MAX)
                        return false;
        }
        if (cursor_left(&cursor) >= 8)
                return false;
        return !cursor_failed(&cursor);
}

/* As either core writes it. */
static bool change_valid(struct bytes encoded)
{
        struct members ignored;
        return members_decode(encoded, &ignored);
}

static bool read_meta(struct cursor *cursor, struct journal_meta *ret)
{
        ret->term = cursor_u64(cursor);
        ret->vote = cursor_u32(cursor);
        ret->extended = cursor_left(cursor) > 0;
        if (ret->extended) {
                ret->life = cursor_u64(cursor);
                uint8_t flags = cursor_u8(cursor);
                ret->amnesiac = (flags & META_AMNESIAC) != 0;
                ret->joined = (flags & META_JOINED) != 0;
                if (flags > (META_AMNESIAC | META_JOINED))
                        return false;
        }
        return cursor_done(cursor) == ERR_NONE && ret->term > 0 && ret->term <= INDEX_MAX;
}

static bool read_entry(struct cursor *cursor, struct journal_entry *ret)
{
        ret->index = cursor_u64(cursor);
        ret->term = cursor_u64(cursor);
        uint8_t type = cursor_u8(cursor);
        ret->data = cursor_bytes(cursor, cursor_left(cursor));
        if (cursor_failed(cursor) || type < ENTRY_COMMAND || type > ENTRY_CHANGE)
                return false;
        ret->type = (enum entry_type)type;
        if (ret->type == ENTRY_CHANGE && !change_valid(ret->data))
                return false;
        return ret->index > 0 && ret->index <= INDEX_MAX && ret->term > 0 && ret->term <= INDEX_MAX;
}

static bool read_snapshot(struct cursor *cursor, struct journal_snapshot *ret)
{
        ret->index = cursor_u64(cursor);
        ret->term = cursor_u64(cursor);
        ret->configuration_index = cursor_u64(cursor);
        ret->configuration = cursor_bytes(cursor, cursor_u32(cursor));
        ret->state = cursor_bytes(cursor, cursor_left(cursor));
        return !cursor_failed(cursor) && ret->index > 0 && ret->index <= INDEX_MAX &&
               ret->term > 0 && ret->term <= INDEX_MAX && ret->configuration_index > 0 &&
               ret->configuration_index <= ret->index && change_valid(ret->configuration);
}

static bool read_body(uint8_t type, struct bytes body, struct journal_record *ret)
{
        struct cursor cursor = cursor_of(body);
        switch (type) {
        case JOURNAL_META:
                ret->type = JOURNAL_META;
                return read_meta(&cursor, &ret->meta);
        case JOURNAL_ENTRY:
                ret->type = JOURNAL_ENTRY;
                return read_entry(&cursor, &ret->entry);
        case JOURNAL_SNAPSHOT:
                ret->type = JOURNAL_SNAPSHOT;
                return read_snapshot(&cursor, &ret->snapshot);
        default:
                return false;
        }
}

bool journal_read(struct bytes journal, size_t *at, struct journal_record *ret)
{
        if (*at > journal.len)
                return false;
        struct cursor cursor = cursor_of(bytes_of(journal.ptr + *at, journal.len - *at));
        uint32_t crc = cursor_u32(&cursor);
        uint32_t len = cursor_u32(&cursor);
        uint64_t durable = cursor_u64(&cursor);
        uint8_t type = cursor_u8(&cursor);
        struct bytes body = cursor_bytes(&cursor, len);
        /* The cheap refusals come before the checksum: journal_damaged tries every byte. */
        if (cursor_failed(&cursor) || type < JOURNAL_META || type > JOURNAL_SNAPSHOT ||
            durable > *at)
                return false;
        size_t size = JOURNAL_RECORD_HEAD_SIZE + body.len;
        if (crc != hash_crc32c(0, bytes_of(journal.ptr + *at + 4, size - 4)))
                return false;
        struct journal_record record = {.durable = durable, .type = JOURNAL_META};
        if (!read_body(type, body, &record))
                return false;
        *ret = record;
        *at += size;
        return true;
}

struct bytes journal_used(struct bytes journal)
{
        while (journal.len > 0 && journal.ptr[journal.len - 1] == 0)
                journal.len--;
        return journal;
}

uint64_t journal_known(struct bytes journal)
{
        size_t at = JOURNAL_HEADER_SIZE;
        struct journal_record record;
        uint64_t known = 0;
        while (journal_read(journal, &at, &record)) {
                if (record.durable > known)
                        known = record.durable;
        }
        return known;
}

bool journal_damaged(struct bytes journal, size_t at)
{
        for (size_t next = at + 1; next < journal.len; next++) {
                size_t behind = next;
                struct journal_record record;
                while (journal_read(journal, &behind, &record)) {
                        if (record.durable > at)
                                return true;
                        next = behind - 1;
                }
        }
        return false;
}
