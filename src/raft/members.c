/* A small sorted array; searched from its begin, as groups are small. Decoding refuses what
 * encoding would never write. */
#include "raft/members.h"

#include "base/cursor.h"
#include "raft/journal.h"

enum {
        FORMAT_LIBRARY = 1,
        FORMAT = 2,
        LIBRARY_STANDBY = 0,
        LIBRARY_VOTER = 1,
};

const struct member *members_find(const struct members *members, uint32_t node)
{
        for (size_t i = 0; i < members->count; i++) {
                if (members->items[i].node == node)
                        return &members->items[i];
        }
        return NULL;
}

bool members_put(struct members *members, const struct member *member)
{
        size_t at = 0;
        while (at < members->count && members->items[at].node < member->node)
                at++;
        if (at == members->count || members->items[at].node != member->node) {
                if (members->count == COUNT_OF(members->items))
                        return false;
                memmove(&members->items[at + 1], &members->items[at],
                        (members->count - at) * sizeof members->items[0]);
                members->count++;
        }
        members->items[at] = *member;
        return true;
}

void members_drop(struct members *members, uint32_t node)
{
        size_t kept = 0;
        for (size_t i = 0; i < members->count; i++) {
                if (members->items[i].node != node)
                        members->items[kept++] = members->items[i];
        }
        members->count = kept;
}

bool member_votes(const struct member *member)
{
        return member->role != CONSENSUS_LEARNER;
}

size_t members_voting(const struct members *members)
{
        size_t count = 0;
        for (size_t i = 0; i < members->count; i++)
                count += member_votes(&members->items[i]);
        return count;
}

bool members_able(const struct members *members)
{
        for (size_t i = 0; i < members->count; i++) {
                if (members->items[i].role == CONSENSUS_VOTER)
                        return true;
        }
        return false;
}

void members_encode(const struct members *members, struct buffer *out)
{
        buffer_u8(out, FORMAT);
        buffer_varint(out, members->count);
        for (size_t i = 0; i < members->count; i++) {
                const struct member *member = &members->items[i];
                buffer_varint(out, member->node);
                buffer_u8(out, member->role);
                buffer_u8(out, member->wanted);
                buffer_u8(out, member->priority);
                buffer_varint(out, member->life);
        }
}

static bool decode_library(struct bytes data, struct members *ret)
{
        if (!journal_configuration_valid(data))
                return false;
        struct cursor cursor = cursor_of(data);
        (void)cursor_u8(&cursor);
        uint64_t count = cursor_u64(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct member member = {.node = (uint32_t)cursor_u64(&cursor)};
                while (cursor_u8(&cursor) != 0 && !cursor_failed(&cursor))
                        continue;
                uint8_t role = cursor_u8(&cursor);
                member.role = role == LIBRARY_VOTER ? CONSENSUS_VOTER : CONSENSUS_LEARNER;
                if (!members_put(ret, &member))
                        return false;
        }
        return !cursor_failed(&cursor) && members_able(ret);
}

static bool member_valid(const struct member *member, uint32_t before)
{
        if (member->node <= before || member->role < CONSENSUS_VOTER ||
            member->role > CONSENSUS_WITNESS)
                return false;
        return member->wanted == 0 ||
               (member->role == CONSENSUS_LEARNER &&
                (member->wanted == CONSENSUS_VOTER || member->wanted == CONSENSUS_WITNESS));
}

bool members_decode(struct bytes data, struct members *ret)
{
        struct members members = {0};
        struct cursor cursor = cursor_of(data);
        uint8_t format = cursor_u8(&cursor);
        if (format == FORMAT_LIBRARY) {
                if (!decode_library(data, &members))
                        return false;
                *ret = members;
                return true;
        }
        if (format != FORMAT)
                return false;
        members.count = (size_t)cursor_varint_max(&cursor, COUNT_OF(members.items));
        uint32_t before = 0;
        for (size_t i = 0; i < members.count; i++) {
                struct member *member = &members.items[i];
                member->node = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
                member->role = cursor_u8(&cursor);
                member->wanted = cursor_u8(&cursor);
                member->priority = cursor_u8(&cursor);
                member->life = cursor_varint(&cursor);
                if (cursor_failed(&cursor) || !member_valid(member, before))
                        return false;
                before = member->node;
        }
        if (cursor_done(&cursor) != ERR_NONE || !members_able(&members))
                return false;
        *ret = members;
        return true;
}
