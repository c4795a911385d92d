/* stream_first.c - a stream without entries goes back to its begin: last id 0-0, nothing deleted.
 *
 * An entry 0-1 that comes late needs that. XSETID sets no last id below the largest that was
 * deleted, and 0-0 as that one means to it that nothing was given. So the stream is taken as DUMP
 * has it, four numbers are made zero, and it is restored; groups and expiry stay.
 *
 *   u8 type, 0 nodes, 0 entries, last id, first id, largest deleted id (two numbers each), the
 *   rest with the groups, u16 version, u64 CRC of all before it
 *
 * Fails, and changes nothing, where the dump is not so. */
#include "plugin.h"

enum {
        FOOTER_LEN = 2 + 8,
        TYPE_MIN = 19, /* RDB_TYPE_STREAM_LISTPACKS_2, the first with a deleted id */
};

/* CRC-64 as Redis has it: polynomial 0xad93d23594c935a9, reflected. */
static uint64_t crc_of(struct bytes data)
{
        uint64_t crc = 0;
        for (size_t i = 0; i < data.len; i++) {
                crc ^= data.ptr[i];
                for (unsigned bit = 0; bit < 8; bit++)
                        crc = crc >> 1 ^ ((crc & 1) != 0 ? UINT64_C(0x95ac9329ac4bc9b5) : 0);
        }
        return crc;
}

/* A number as a snapshot has it: 6 or 14 bits, or 4 or 8 bytes behind a first one. */
static struct bytes number_skip(struct cursor *cursor)
{
        const uint8_t *from = cursor->at;
        uint8_t head = cursor_u8(cursor);
        size_t more = head >> 6;
        if (more > 1)
                more = head == 0x80 ? 4 : 8;
        if (head > 0x81)
                cursor_fail(cursor, ERR_MALFORMED);
        cursor_bytes(cursor, more);
        return bytes_of(from, (size_t)(cursor->at - from));
}

static bool rewrite(struct bytes dump, struct buffer *ret)
{
        if (dump.len < FOOTER_LEN)
                return false;
        struct cursor cursor = cursor_of(bytes_of(dump.ptr, dump.len - FOOTER_LEN));
        uint8_t type = cursor_u8(&cursor);
        bool empty = cursor_u16(&cursor) == 0;
        number_skip(&cursor);
        number_skip(&cursor);
        struct bytes first_ms = number_skip(&cursor);
        struct bytes first_seq = number_skip(&cursor);
        number_skip(&cursor);
        number_skip(&cursor);
        if (cursor_failed(&cursor) || type < TYPE_MIN || !empty)
                return false;
        buffer_bytes(ret, bytes_of(dump.ptr, 3));
        buffer_bytes(ret, bytes_of("\0\0", 2));
        buffer_bytes(ret, first_ms);
        buffer_bytes(ret, first_seq);
        buffer_bytes(ret, bytes_of("\0\0", 2));
        buffer_bytes(ret, cursor_bytes(&cursor, cursor_left(&cursor)));
        buffer_bytes(ret, bytes_of(dump.ptr + dump.len - FOOTER_LEN, 2));
        buffer_u64(ret, crc_of(buffer_view(ret)));
        plugin_must(ret->err, "a stream");
        return true;
}

static struct redis_key *open_key(struct redis_string *key)
{
        return redis.OpenKey(native_context(), key, REDIS_READ | REDIS_WRITE);
}

static bool restore(struct redis_string *key, struct bytes dump)
{
        struct redis_key *open = open_key(key);
        long long at_ms = open == NULL ? REDIS_NO_EXPIRE : redis.GetAbsExpire(open);
        if (open != NULL)
                redis.CloseKey(open);
        struct redis_reply *reply = redis.Call(native_context(), "RESTORE", "scbc", key, "0",
                                               dump.ptr, dump.len, "REPLACE");
        bool done = reply != NULL && redis.CallReplyType(reply) != REDIS_REPLY_ERROR;
        if (reply != NULL)
                redis.FreeCallReply(reply);
        open = done ? open_key(key) : NULL;
        if (open != NULL && at_ms > 0)
                redis.SetAbsExpire(open, at_ms);
        if (open != NULL)
                redis.CloseKey(open);
        return done;
}

bool stream_begin_again(struct redis_string *key)
{
        struct redis_reply *reply = redis.Call(native_context(), "DUMP", "s", key);
        if (reply == NULL)
                return false;
        struct buffer changed;
        buffer_init(&changed, &plugin.heap);
        struct bytes dump = {0};
        if (redis.CallReplyType(reply) == REDIS_REPLY_STRING)
                dump.ptr = (const uint8_t *)redis.CallReplyStringPtr(reply, &dump.len);
        bool done = rewrite(dump, &changed) && restore(key, buffer_view(&changed));
        buffer_fini(&changed);
        redis.FreeCallReply(reply);
        return done;
}
