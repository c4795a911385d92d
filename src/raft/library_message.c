/* One row of functions a type. Decoding reads everything with a cursor, then judges ranges and
 * relations; entries are walked once to check them and stay encoded until they are used. */
#include "raft/library_message.h"

#include "base/check.h"
#include "base/cursor.h"
#include "raft/journal.h"

enum {
        MESSAGE_VERSION = 1,
        FLAG_FIRST = 1,
        FLAG_PRE_VOTE = 2,
};

#define INDEX_MAX (UINT64_MAX >> 2)

static void append_encode(const struct library_message *message, const struct entries *entries,
                          struct buffer *out)
{
        buffer_varint(out, message->append.previous_index);
        buffer_varint(out, message->append.previous_term);
        buffer_varint(out, message->append.commit_index);
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

static void body_encode(const struct library_message *message, const struct entries *entries,
                        struct buffer *out)
{
        switch (message->type) {
        case LIBRARY_APPEND:
                append_encode(message, entries, out);
                return;
        case LIBRARY_APPEND_RESULT:
                buffer_varint(out, message->append_result.rejected);
                buffer_varint(out, message->append_result.last_index);
                buffer_u16(out, message->append_result.features);
                buffer_u16(out, message->append_result.capacity);
                return;
        case LIBRARY_VOTE:
                buffer_varint(out, message->vote.last_index);
                buffer_varint(out, message->vote.last_term);
                buffer_u8(out, (uint8_t)((message->vote.disrupt_leader ? FLAG_FIRST : 0) |
                                         (message->vote.pre_vote ? FLAG_PRE_VOTE : 0)));
                return;
        case LIBRARY_VOTE_RESULT:
                buffer_u8(out, (uint8_t)((message->vote_result.granted ? FLAG_FIRST : 0) |
                                         (message->vote_result.pre_vote ? FLAG_PRE_VOTE : 0)));
                buffer_u16(out, message->vote_result.features);
                buffer_u16(out, message->vote_result.capacity);
                return;
        case LIBRARY_INSTALL:
                buffer_varint(out, message->install.last_index);
                buffer_varint(out, message->install.last_term);
                buffer_varint(out, message->install.configuration_index);
                buffer_slice(out, message->install.configuration);
                buffer_slice(out, message->install.state);
                return;
        case LIBRARY_TIMEOUT_NOW:
                buffer_varint(out, message->timeout_now.last_index);
                buffer_varint(out, message->timeout_now.last_term);
                return;
        }
        UNREACHABLE("all types are above");
}

void library_message_encode(const struct library_message *message, const struct entries *entries,
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

/* An index and the term of its entry: both or neither. */
static bool place_valid(uint64_t index, uint64_t term)
{
        return (index == 0) == (term == 0);
}

static bool entries_valid(struct cursor *cursor, const struct library_message *message)
{
        uint64_t term_before = message->append.previous_term;
        for (size_t i = 0; i < message->append.count; i++) {
                uint64_t term = cursor_varint_max(cursor, INDEX_MAX);
                uint8_t type = cursor_u8(cursor);
                struct bytes data = cursor_slice(cursor);
                if (cursor_failed(cursor))
                        return false;
                if (term == 0 || term < term_before || term > message->term ||
                    type < ENTRY_COMMAND || type > ENTRY_CHANGE)
                        return false;
                if (type == ENTRY_CHANGE && !journal_configuration_valid(data))
                        return false;
                term_before = term;
        }
        return true;
}

static bool append_decode(struct cursor *cursor, struct library_message *ret)
{
        ret->append.previous_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->append.previous_term = cursor_varint_max(cursor, INDEX_MAX);
        ret->append.commit_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->append.count = (size_t)cursor_varint_max(cursor, LIBRARY_ENTRIES_MAX);
        ret->append.items = bytes_of(cursor->at, cursor_left(cursor));
        return place_valid(ret->append.previous_index, ret->append.previous_term) &&
               ret->append.previous_term <= ret->term && entries_valid(cursor, ret);
}

static bool append_result_decode(struct cursor *cursor, struct library_message *ret)
{
        ret->append_result.rejected = cursor_varint_max(cursor, INDEX_MAX);
        ret->append_result.last_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->append_result.features = cursor_u16(cursor);
        ret->append_result.capacity = cursor_u16(cursor);
        return ret->append_result.rejected == 0 ||
               ret->append_result.last_index < ret->append_result.rejected;
}

static bool vote_decode(struct cursor *cursor, struct library_message *ret)
{
        ret->vote.last_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->vote.last_term = cursor_varint_max(cursor, INDEX_MAX);
        uint8_t flags = cursor_u8(cursor);
        ret->vote.disrupt_leader = (flags & FLAG_FIRST) != 0;
        ret->vote.pre_vote = (flags & FLAG_PRE_VOTE) != 0;
        return flags <= (FLAG_FIRST | FLAG_PRE_VOTE) &&
               place_valid(ret->vote.last_index, ret->vote.last_term) &&
               ret->vote.last_term <= ret->term;
}

static bool vote_result_decode(struct cursor *cursor, struct library_message *ret)
{
        uint8_t flags = cursor_u8(cursor);
        ret->vote_result.granted = (flags & FLAG_FIRST) != 0;
        ret->vote_result.pre_vote = (flags & FLAG_PRE_VOTE) != 0;
        ret->vote_result.features = cursor_u16(cursor);
        ret->vote_result.capacity = cursor_u16(cursor);
        return flags <= (FLAG_FIRST | FLAG_PRE_VOTE);
}

static bool install_decode(struct cursor *cursor, struct library_message *ret)
{
        ret->install.last_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->install.last_term = cursor_varint_max(cursor, INDEX_MAX);
        ret->install.configuration_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->install.configuration = cursor_slice(cursor);
        ret->install.state = cursor_slice(cursor);
        return ret->install.last_index > 0 && ret->install.last_term > 0 &&
               ret->install.last_term <= ret->term && ret->install.configuration_index > 0 &&
               ret->install.configuration_index <= ret->install.last_index &&
               journal_configuration_valid(ret->install.configuration);
}

static bool timeout_now_decode(struct cursor *cursor, struct library_message *ret)
{
        ret->timeout_now.last_index = cursor_varint_max(cursor, INDEX_MAX);
        ret->timeout_now.last_term = cursor_varint_max(cursor, INDEX_MAX);
        return place_valid(ret->timeout_now.last_index, ret->timeout_now.last_term) &&
               ret->timeout_now.last_term <= ret->term;
}

static bool (*const body_decode[])(struct cursor *cursor, struct library_message *ret) = {
        [LIBRARY_APPEND] = append_decode,   [LIBRARY_APPEND_RESULT] = append_result_decode,
        [LIBRARY_VOTE] = vote_decode,       [LIBRARY_VOTE_RESULT] = vote_result_decode,
        [LIBRARY_INSTALL] = install_decode, [LIBRARY_TIMEOUT_NOW] = timeout_now_decode,
};

enum err library_message_decode(struct bytes data, struct library_message *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t type = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version != MESSAGE_VERSION)
                return ERR_VERSION;
        if (type < LIBRARY_APPEND || type > LIBRARY_TIMEOUT_NOW)
                return ERR_MALFORMED;
        struct library_message message = {.type = (enum library_message_type)type};
        message.group = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        message.cluster = cursor_varint(&cursor);
        message.from = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        message.to = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        message.term = cursor_varint_max(&cursor, INDEX_MAX);
        bool valid = body_decode[type](&cursor, &message);
        if (cursor_failed(&cursor))
                return cursor.err;
        if (!valid || message.term == 0)
                return ERR_MALFORMED;
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = message;
        return err;
}

struct entry library_message_entry(struct bytes *items)
{
        struct cursor cursor = cursor_of(*items);
        struct entry entry = {.term = cursor_varint(&cursor)};
        entry.type = (enum entry_type)cursor_u8(&cursor);
        entry.data = cursor_slice(&cursor);
        CHECK(!cursor_failed(&cursor));
        *items = bytes_of(cursor.at, cursor_left(&cursor));
        return entry;
}
