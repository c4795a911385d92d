/* Commands as bytes: u8 version (1, or 2, see topology), u8 kind, varints node, incarnation,
 * sequence and wall clock, slice actor, then by kind
 *   2 topology      varint epoch expected, slice document; in version 2, where regions were
 *                   removed, varints regions and removed
 *   3 region state  u8 region, u8 from, u8 to, varint row, slice evidence
 *   4 lock          a lock command (lock/command.c) up to the end
 *   5 kv            a transaction (kv/txn.c) up to the end
 *   6 level         u8 level
 *
 * A kind that is not known is one of a later build: ERR_VERSION. */
#include "base/cursor.h"
#include "council/council.h"

enum {
        COMMAND_VERSION = 1,
        COMMAND_VERSION_REGIONS = 2,
};

/* Its origin is the command's, which is written already. */
static void lock_encode(const struct lock_command *command, struct buffer *out)
{
        struct lock_command lock = *command;
        lock.origin = (struct lock_origin){0};
        lock_command_encode(&lock, out);
}

void council_command_encode(const struct council_command *command, struct buffer *out)
{
        bool regions = command->kind == COUNCIL_SET_TOPOLOGY && command->topology.regions != 0;
        buffer_u8(out, regions ? COMMAND_VERSION_REGIONS : COMMAND_VERSION);
        buffer_u8(out, (uint8_t)command->kind);
        buffer_varint(out, command->origin.node);
        buffer_varint(out, command->origin.incarnation);
        buffer_varint(out, command->origin.sequence);
        buffer_varint(out, command->wall_us);
        buffer_slice(out, command->actor);
        switch (command->kind) {
        case COUNCIL_SET_TOPOLOGY:
                buffer_varint(out, command->topology.epoch_expected);
                buffer_slice(out, command->topology.document);
                if (regions) {
                        buffer_varint(out, command->topology.regions);
                        buffer_varint(out, command->topology.removed);
                }
                return;
        case COUNCIL_SET_REGION_STATE:
                buffer_u8(out, command->region.region);
                buffer_u8(out, command->region.from);
                buffer_u8(out, command->region.to);
                buffer_varint(out, command->region.row);
                buffer_slice(out, command->region.evidence);
                return;
        case COUNCIL_LOCK:
                lock_encode(&command->lock, out);
                return;
        case COUNCIL_KV:
                buffer_bytes(out, command->kv);
                return;
        case COUNCIL_SET_LEVEL:
                buffer_u8(out, command->level);
                return;
        case COUNCIL_NOOP:
        case COUNCIL_COMMAND_COUNT:
                return;
        }
}

static struct bytes text_decode(struct cursor *cursor, size_t max)
{
        struct bytes text = cursor_slice(cursor);
        if (text.len > max)
                cursor_fail(cursor, ERR_MALFORMED);
        return text;
}

static void topology_decode(struct cursor *cursor, uint8_t version, struct council_command *ret)
{
        ret->topology.epoch_expected = cursor_varint(cursor);
        ret->topology.document = text_decode(cursor, COUNCIL_TOPOLOGY_BYTES_MAX);
        if (ret->topology.document.len == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        if (version < COMMAND_VERSION_REGIONS)
                return;
        ret->topology.regions = cursor_varint(cursor);
        ret->topology.removed = cursor_varint(cursor);
        if (ret->topology.regions == 0 || (ret->topology.regions & ret->topology.removed) != 0)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void region_decode(struct cursor *cursor, struct council_command *ret)
{
        ret->region.region = cursor_u8(cursor);
        ret->region.from = cursor_u8(cursor);
        ret->region.to = cursor_u8(cursor);
        ret->region.row = (uint16_t)cursor_varint_max(cursor, UINT16_MAX);
        ret->region.evidence = text_decode(cursor, COUNCIL_TEXT_BYTES_MAX);
        if (ret->region.region == 0)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void lock_decode(struct cursor *cursor, struct council_command *ret)
{
        struct bytes data = cursor_bytes(cursor, cursor_left(cursor));
        enum err err = lock_command_decode(data, &ret->lock);
        if (err != ERR_NONE)
                cursor_fail(cursor, err);
        ret->lock.origin = ret->origin;
}

static void kv_command_decode(struct cursor *cursor, struct council_command *ret)
{
        struct kv_txn txn;
        ret->kv = cursor_bytes(cursor, cursor_left(cursor));
        enum err err =
                ret->kv.len > KV_TXN_BYTES_MAX ? ERR_MALFORMED : kv_txn_decode(ret->kv, &txn);
        if (err != ERR_NONE)
                cursor_fail(cursor, err);
}

static void body_decode(struct cursor *cursor, uint8_t version, struct council_command *ret)
{
        switch (ret->kind) {
        case COUNCIL_SET_TOPOLOGY:
                topology_decode(cursor, version, ret);
                return;
        case COUNCIL_SET_REGION_STATE:
                region_decode(cursor, ret);
                return;
        case COUNCIL_LOCK:
                lock_decode(cursor, ret);
                return;
        case COUNCIL_KV:
                kv_command_decode(cursor, ret);
                return;
        case COUNCIL_SET_LEVEL:
                ret->level = cursor_u8(cursor);
                if (ret->level == 0)
                        cursor_fail(cursor, ERR_MALFORMED);
                return;
        case COUNCIL_NOOP:
        case COUNCIL_COMMAND_COUNT:
                return;
        }
}

enum err council_command_decode(struct bytes data, struct council_command *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t kind = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version != COMMAND_VERSION &&
            (version != COMMAND_VERSION_REGIONS || kind != COUNCIL_SET_TOPOLOGY))
                return ERR_VERSION;
        if (kind >= COUNCIL_COMMAND_COUNT)
                return ERR_VERSION;
        if (kind < COUNCIL_NOOP)
                return ERR_MALFORMED;
        struct council_command command = {.kind = (enum council_command_kind)kind};
        command.origin.node = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        command.origin.incarnation = cursor_varint(&cursor);
        command.origin.sequence = cursor_varint(&cursor);
        command.wall_us = cursor_varint(&cursor);
        command.actor = text_decode(&cursor, COUNCIL_NAME_BYTES_MAX);
        if ((command.origin.node == 0) != (command.origin.sequence == 0))
                cursor_fail(&cursor, ERR_MALFORMED);
        if (!cursor_failed(&cursor))
                body_decode(&cursor, version, &command);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = command;
        return err;
}
