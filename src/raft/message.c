/* One function a type and direction. Decoding reads everything with a cursor, then judges ranges
 * and relations; entries are walked once to check them and stay encoded until they are used. */
#include "raft/message.h"

#include "base/check.h"
#include "base/cursor.h"

enum {
        MESSAGE_VERSION = 2,
        FLAG_FIRST = 1,
        FLAG_SECOND = 2,
};

static void flags_encode(bool first, bool second, struct buffer *out)
{
        buffer_u8(out, (uint8_t)((first ? FLAG_FIRST : 0) | (second ? FLAG_SECOND : 0)));
}

static void round_encode(const struct message *message, struct buffer *out)
{
        buffer_varint(out, message->round.number);
        buffer_varint(out, message->round.sent_ms);
}

static void append_encode(const struct message *message, const struct entries *entries,
                          struct buffer *out)
{
        buffer_varint(out, message->append.previous_index);
        buffer_varint(out, message->append.previous_term);
        buffer_varint(out, message->append.commit_index);
        buffer_varint(out, message->append.everywhere_index);
        round_encode(message, out);
        buffer_varint(out, message->append.count);
        for (size_t i = 0; i < message->append.count; i++) {
                const struct entry *entry =
                        entries_at(entries, message->append.previous_index + 1 + i);
                CHECK(entry != NULL);
                buffer_varint(out, entry->term);
                buffer_u8(out, (uint8_t)entry->type);
                buffer_slice(out, entry->data);
        }
}

static void append_result_encode(const struct message *message, struct buffer *out)
{
        flags_encode(message->append_result.rejected, message->append_result.amnesiac, out);
        buffer_varint(out, message->append_result.index);
        buffer_varint(out, message->append_result.hint_index);
        buffer_varint(out, message->append_result.hint_term);
        round_encode(message, out);
        buffer_varint(out, message->append_result.life);
}

static void chunk_encode(const struct message *message, struct buffer *out)
{
        buffer_varint(out, message->chunk.index);
        buffer_varint(out, message->chunk.term);
        buffer_varint(out, message->chunk.members_index);
        buffer_slice(out, message->chunk.members);
        buffer_varint(out, message->chunk.size);
        buffer_u32(out, message->chunk.crc);
        buffer_varint(out, message->chunk.offset);
        round_encode(message, out);
        buffer_slice(out, message->chunk.data);
}

static void body_encode(const struct message *message, const struct entries *entries,
                        struct buffer *out)
{
        switch (message->type) {
        case MESSAGE_APPEND:
                append_encode(message, entries, out);
                return;
        case MESSAGE_APPEND_RESULT:
                append_result_encode(message, out);
                return;
        case MESSAGE_VOTE:
                buffer_varint(out, message->vote.last_index);
                buffer_varint(out, message->vote.last_term);
                flags_encode(message->vote.transfer, message->vote.pre_vote, out);
                return;
        case MESSAGE_VOTE_RESULT:
                flags_encode(message->vote_result.granted, message->vote_result.pre_vote, out);
                buffer_varint(out, message->vote_result.asked_term);
                return;
        case MESSAGE_CHUNK:
                chunk_encode(message, out);
                return;
        case MESSAGE_CHUNK_RESULT:
                flags_encode(false, message->chunk_result.amnesiac, out);
                buffer_varint(out, message->chunk_result.index);
                buffer_varint(out, message->chunk_result.term);
                buffer_varint(out, message->chunk_result.offset);
                round_encode(message, out);
                buffer_varint(out, message->chunk_result.life);
                return;
        case MESSAGE_TIMEOUT_NOW:
                buffer_varint(out, message->timeout_now.last_index);
                buffer_varint(out, message->timeout_now.last_term);
                return;
        }
        UNREACHABLE("all types are above");
}

void message_encode(const struct message *message, const struct entries *entries,
                    struct buffer *out)
{
        buffer_u8(out, MESSAGE_VERSION);
        buffer_u8(out, (uint8_t)message->type);
        buffer_varint(out, message->group);
        buffer_varint(out, message->cluster);
        buffer_varint(out, message->from);
        buffer_varint(out, message->to);
        buffer_varint(out, message->term);
        body_encode(message, entries, out);
}

static uint64_t index_decode(struct cursor *cursor)
{
        return cursor_varint_max(cursor, RAFT_INDEX_MAX);
}

static void flags_decode(struct cursor *cursor, bool *ret_first, bool *ret_second)
{
        uint8_t flags = cursor_u8(cursor);
        *ret_first = (flags & FLAG_FIRST) != 0;
        *ret_second = (flags & FLAG_SECOND) != 0;
        if (flags > (FLAG_FIRST | FLAG_SECOND))
                cursor_fail(cursor, ERR_MALFORMED);
}

static void round_decode(struct cursor *cursor, struct message *ret)
{
        ret->round.number = index_decode(cursor);
        ret->round.sent_ms = cursor_varint(cursor);
}

/* An index and the term of its entry: both or neither. */
static bool place_valid(uint64_t index, uint64_t term)
{
        return (index == 0) == (term == 0);
}

static bool entries_valid(struct cursor *cursor, const struct message *message)
{
        uint64_t term_before = message->append.previous_term;
        struct members ignored;
        for (size_t i = 0; i < message->append.count; i++) {
                uint64_t term = index_decode(cursor);
                uint8_t type = cursor_u8(cursor);
                struct bytes data = cursor_slice(cursor);
                if (cursor_failed(cursor) || term == 0 || term < term_before ||
                    term > message->term || type < ENTRY_COMMAND || type > ENTRY_CHANGE ||
                    (type == ENTRY_CHANGE && !members_decode(data, &ignored)))
                        return false;
                term_before = term;
        }
        return true;
}

static bool append_decode(struct cursor *cursor, struct message *ret)
{
        ret->append.previous_index = index_decode(cursor);
        ret->append.previous_term = index_decode(cursor);
        ret->append.commit_index = index_decode(cursor);
        ret->append.everywhere_index = index_decode(cursor);
        round_decode(cursor, ret);
        ret->append.count = (size_t)cursor_varint_max(cursor, MESSAGE_ENTRIES_MAX);
        ret->append.items = bytes_of(cursor->at, cursor_left(cursor));
        return place_valid(ret->append.previous_index, ret->append.previous_term) &&
               ret->append.previous_term <= ret->term && entries_valid(cursor, ret);
}

static bool append_result_decode(struct cursor *cursor, struct message *ret)
{
        flags_decode(cursor, &ret->append_result.rejected, &ret->append_result.amnesiac);
        ret->append_result.index = index_decode(cursor);
        ret->append_result.hint_index = index_decode(cursor);
        ret->append_result.hint_term = index_decode(cursor);
        round_decode(cursor, ret);
        ret->append_result.life = cursor_varint(cursor);
        return ret->append_result.hint_term <= ret->term;
}

static bool vote_decode(struct cursor *cursor, struct message *ret)
{
        ret->vote.last_index = index_decode(cursor);
        ret->vote.last_term = index_decode(cursor);
        flags_decode(cursor, &ret->vote.transfer, &ret->vote.pre_vote);
        return place_valid(ret->vote.last_index, ret->vote.last_term) &&
               ret->vote.last_term <= ret->term;
}

static bool vote_result_decode(struct cursor *cursor, struct message *ret)
{
        flags_decode(cursor, &ret->vote_result.granted, &ret->vote_result.pre_vote);
        ret->vote_result.asked_term = index_decode(cursor);
        return true;
}

static bool chunk_decode(struct cursor *cursor, struct message *ret)
{
        struct members ignored;
        ret->chunk.index = index_decode(cursor);
        ret->chunk.term = index_decode(cursor);
        ret->chunk.members_index = index_decode(cursor);
        ret->chunk.members = cursor_slice(cursor);
        ret->chunk.size = index_decode(cursor);
        ret->chunk.crc = cursor_u32(cursor);
        ret->chunk.offset = index_decode(cursor);
        round_decode(cursor, ret);
        ret->chunk.data = cursor_slice(cursor);
        return ret->chunk.index > 0 && ret->chunk.term > 0 && ret->chunk.term <= ret->term &&
               ret->chunk.members_index <= ret->chunk.index &&
               ret->chunk.offset <= ret->chunk.size &&
               ret->chunk.data.len <= ret->chunk.size - ret->chunk.offset &&
               members_decode(ret->chunk.members, &ignored);
}

static bool chunk_result_decode(struct cursor *cursor, struct message *ret)
{
        bool ignored;
        flags_decode(cursor, &ignored, &ret->chunk_result.amnesiac);
        ret->chunk_result.index = index_decode(cursor);
        ret->chunk_result.term = index_decode(cursor);
        ret->chunk_result.offset = index_decode(cursor);
        round_decode(cursor, ret);
        ret->chunk_result.life = cursor_varint(cursor);
        return true;
}

static bool timeout_now_decode(struct cursor *cursor, struct message *ret)
{
        ret->timeout_now.last_index = index_decode(cursor);
        ret->timeout_now.last_term = index_decode(cursor);
        return place_valid(ret->timeout_now.last_index, ret->timeout_now.last_term) &&
               ret->timeout_now.last_term <= ret->term;
}

static bool (*const body_decode[])(struct cursor *cursor, struct message *ret) = {
        [MESSAGE_APPEND] = append_decode,
        [MESSAGE_APPEND_RESULT] = append_result_decode,
        [MESSAGE_VOTE] = vote_decode,
        [MESSAGE_VOTE_RESULT] = vote_result_decode,
        [MESSAGE_CHUNK] = chunk_decode,
        [MESSAGE_CHUNK_RESULT] = chunk_result_decode,
        [MESSAGE_TIMEOUT_NOW] = timeout_now_decode,
};

enum err message_decode(struct bytes data, struct message *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t type = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version != MESSAGE_VERSION)
                return ERR_VERSION;
        if (type < MESSAGE_APPEND || type > MESSAGE_TIMEOUT_NOW)
                return ERR_MALFORMED;
        struct message message = {.type = (enum message_type)type};
        message.group = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        message.cluster = cursor_varint(&cursor);
        message.from = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        message.to = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        message.term = index_decode(&cursor);
        bool valid = body_decode[type](&cursor, &message);
        if (cursor_failed(&cursor))
                return cursor.err;
        /* Beyond this a candidate could not count on. */
        if (!valid || message.term == 0 || message.term > RAFT_INDEX_MAX / 2 || message.from == 0)
                return ERR_MALFORMED;
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = message;
        return err;
}

struct entry message_entry(struct bytes *items)
{
        struct cursor cursor = cursor_of(*items);
        struct entry entry = {.term = cursor_varint(&cursor)};
        entry.type = (enum entry_type)cursor_u8(&cursor);
        entry.data = cursor_slice(&cursor);
        CHECK(!cursor_failed(&cursor));
        *items = bytes_of(cursor.at, cursor_left(&cursor));
        return entry;
}
