/* Lock commands as bytes: u8 version (1 to 3), u8 op, varint time, slices key and owner, varints
 * token, ttl, wait, then twice an origin (varints node, incarnation, sequence): who asks, and
 * whose wait is cancelled. Version 2 goes on with varints slots, flags, delay, session; it is
 * written where one of them, or the operation, is not of version 1. Version 3 is for ACQUIRE_ALL,
 * and has slice also at the end. */
#include "base/cursor.h"
#include "lock/lock.h"

enum {
        COMMAND_VERSION = 1,
        COMMAND_VERSION_MODES = 2,
        COMMAND_VERSION_SETS = 3,
};

/* Far beyond any clock, and far from where adding a ttl could wrap. */
#define TIME_MS_MAX ((uint64_t)1 << 53)

static void origin_encode(const struct lock_origin *origin, struct buffer *out)
{
        buffer_varint(out, origin->node);
        buffer_varint(out, origin->incarnation);
        buffer_varint(out, origin->sequence);
}

static struct lock_origin origin_decode(struct cursor *cursor)
{
        struct lock_origin origin = {0};
        origin.node = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        origin.incarnation = cursor_varint(cursor);
        origin.sequence = cursor_varint(cursor);
        return origin;
}

static bool is_old(const struct lock_command *command)
{
        return command->op <= LOCK_BREAK && command->slots == 0 && command->flags == 0 &&
               command->delay_ms == 0 && command->session == 0;
}

void lock_command_encode(const struct lock_command *command, struct buffer *out)
{
        bool old = is_old(command);
        bool all = command->op == LOCK_ACQUIRE_ALL;
        buffer_u8(out, all ? COMMAND_VERSION_SETS : old ? COMMAND_VERSION : COMMAND_VERSION_MODES);
        buffer_u8(out, (uint8_t)command->op);
        buffer_varint(out, command->now_ms);
        buffer_slice(out, command->key);
        buffer_slice(out, command->owner);
        buffer_varint(out, command->token.value);
        buffer_varint(out, command->ttl_ms);
        buffer_varint(out, command->wait_ms);
        origin_encode(&command->origin, out);
        origin_encode(&command->cancelled, out);
        if (old)
                return;
        buffer_varint(out, command->slots);
        buffer_varint(out, command->flags);
        buffer_varint(out, command->delay_ms);
        buffer_varint(out, command->session);
        if (all)
                buffer_slice(out, command->also);
}

enum err lock_command_decode(struct bytes data, struct lock_command *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t op = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version < COMMAND_VERSION || version > COMMAND_VERSION_SETS)
                return ERR_VERSION;
        if (op < LOCK_TIME || op >= LOCK_OP_COUNT ||
            (version == COMMAND_VERSION && op > LOCK_BREAK) ||
            (version == COMMAND_VERSION_SETS) != (op == LOCK_ACQUIRE_ALL))
                return ERR_MALFORMED;
        struct lock_command command = {.op = (enum lock_op)op};
        command.now_ms = cursor_varint_max(&cursor, TIME_MS_MAX);
        command.key = cursor_slice(&cursor);
        command.owner = cursor_slice(&cursor);
        command.token.value = cursor_varint(&cursor);
        command.ttl_ms = cursor_varint(&cursor);
        command.wait_ms = cursor_varint(&cursor);
        command.origin = origin_decode(&cursor);
        command.cancelled = origin_decode(&cursor);
        if (version != COMMAND_VERSION) {
                command.slots = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
                command.flags = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
                command.delay_ms = cursor_varint(&cursor);
                command.session = cursor_varint(&cursor);
        }
        if (version == COMMAND_VERSION_SETS)
                command.also = cursor_slice(&cursor);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = command;
        return err;
}
