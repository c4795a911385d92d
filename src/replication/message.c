/* message.c - replication messages as bytes. They come from the network: every length, kind and
 * count is checked here, and what is left over is an error. */
#include "base/cursor.h"
#include "replication/replication_priv.h"

#define MESSAGE_VERSION 3

static void encode_positions(const struct replication_message *message, struct buffer *out)
{
        buffer_varint(out, message->position_count);
        for (size_t i = 0; i < message->position_count; i++) {
                buffer_u8(out, message->positions[i].origin);
                buffer_varint(out, message->positions[i].hlc);
        }
}

static void encode_holes(const struct replication_message *message, struct buffer *out)
{
        buffer_varint(out, message->hole_count);
        for (size_t i = 0; i < message->hole_count; i++) {
                buffer_u8(out, message->holes[i].origin);
                buffer_u8(out, message->holes[i].mixed);
                buffer_varint(out, message->holes[i].low);
                buffer_varint(out, message->holes[i].high);
        }
}

static void encode_resume(const struct replication_message *message, struct buffer *out)
{
        buffer_u64(out, message->resume.table);
        buffer_u64(out, message->resume.cursor);
        buffer_varint(out, message->resume.position);
}

void replication_message_encode(const struct replication_message *message, struct buffer *out)
{
        buffer_u8(out, MESSAGE_VERSION);
        buffer_u8(out, (uint8_t)message->kind);
        buffer_varint(out, message->sub);
        switch (message->kind) {
        case REPLICATION_HELLO:
        case REPLICATION_BYE:
        case REPLICATION_BUSY:
                break;
        case REPLICATION_SUBSCRIBE:
                buffer_varint(out, message->after);
                buffer_u8(out, message->whole);
                encode_holes(message, out);
                break;
        case REPLICATION_BATCH:
                buffer_varint(out, message->after);
                buffer_varint(out, message->last);
                buffer_varint(out, message->age_us);
                buffer_slice(out, message->data);
                break;
        case REPLICATION_BEAT:
                buffer_varint(out, message->last);
                buffer_varint(out, message->age_us);
                break;
        case REPLICATION_ACK:
                buffer_varint(out, message->last);
                buffer_varint(out, message->part);
                break;
        case REPLICATION_STATE:
                buffer_varint(out, message->part);
                buffer_u8(out, message->end);
                buffer_varint(out, message->done);
                if (message->end)
                        encode_positions(message, out);
                buffer_slice(out, message->data);
                break;
        case REPLICATION_FETCH:
                buffer_u8(out, message->origin);
                buffer_varint(out, message->after);
                break;
        case REPLICATION_RELAYED:
                buffer_u8(out, message->origin);
                buffer_varint(out, message->after);
                buffer_varint(out, message->last);
                buffer_u8(out, message->live);
                buffer_u8(out, message->gap);
                buffer_varint(out, message->age_us);
                encode_holes(message, out);
                buffer_slice(out, message->data);
                break;
        case REPLICATION_PIECE:
                buffer_u8(out, (uint8_t)message->part);
                buffer_varint(out, message->after);
                buffer_varint(out, message->last);
                buffer_slice(out, message->data);
                break;
        case REPLICATION_GOT:
                buffer_u8(out, (uint8_t)message->part);
                buffer_varint(out, message->last);
                break;
        case REPLICATION_PLACE:
                buffer_varint(out, message->part);
                encode_resume(message, out);
                break;
        case REPLICATION_RESUME:
                encode_resume(message, out);
                break;
        case REPLICATION_PASSED:
                buffer_u8(out, message->origin);
                buffer_u8(out, message->holder);
                buffer_varint(out, message->last);
                buffer_varint(out, message->part);
                break;
        case REPLICATION_KIND_COUNT:
                break;
        }
}

static bool decode_flag(struct cursor *cursor)
{
        uint8_t value = cursor_u8(cursor);
        if (value > 1)
                cursor_fail(cursor, ERR_MALFORMED);
        return value == 1;
}

static void decode_positions(struct cursor *cursor, struct replication_message *ret)
{
        ret->position_count = (size_t)cursor_varint_max(cursor, REPLICATION_POSITIONS_MAX);
        if (cursor_failed(cursor))
                ret->position_count = 0;
        for (size_t i = 0; i < ret->position_count; i++) {
                ret->positions[i].origin = cursor_u8(cursor);
                ret->positions[i].hlc = cursor_varint(cursor);
                if (ret->positions[i].origin == 0)
                        cursor_fail(cursor, ERR_MALFORMED);
        }
}

static void decode_holes(struct cursor *cursor, struct replication_message *ret)
{
        ret->hole_count = (size_t)cursor_varint_max(cursor, WORLD_HOLES_MAX);
        if (cursor_failed(cursor))
                ret->hole_count = 0;
        for (size_t i = 0; i < ret->hole_count; i++) {
                ret->holes[i].origin = cursor_u8(cursor);
                ret->holes[i].mixed = decode_flag(cursor);
                ret->holes[i].low = cursor_varint(cursor);
                ret->holes[i].high = cursor_varint(cursor);
                if (ret->holes[i].low >= ret->holes[i].high)
                        cursor_fail(cursor, ERR_MALFORMED);
        }
}

static void decode_slot(struct cursor *cursor, struct replication_message *ret)
{
        ret->part = cursor_u8(cursor);
        if (ret->part >= PIECES_SLOTS)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void decode_resume(struct cursor *cursor, struct replication_message *ret)
{
        ret->resume.table = cursor_u64(cursor);
        ret->resume.cursor = cursor_u64(cursor);
        ret->resume.position = cursor_varint(cursor);
        if (ret->resume.table == 0)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void decode_fields(struct cursor *cursor, struct replication_message *ret)
{
        switch (ret->kind) {
        case REPLICATION_HELLO:
        case REPLICATION_BYE:
        case REPLICATION_BUSY:
                break;
        case REPLICATION_SUBSCRIBE:
                ret->after = cursor_varint(cursor);
                ret->whole = decode_flag(cursor);
                decode_holes(cursor, ret);
                break;
        case REPLICATION_BATCH:
                ret->after = cursor_varint(cursor);
                ret->last = cursor_varint(cursor);
                ret->age_us = cursor_varint(cursor);
                ret->data = cursor_slice(cursor);
                if (ret->last < ret->after)
                        cursor_fail(cursor, ERR_MALFORMED);
                break;
        case REPLICATION_BEAT:
                ret->last = cursor_varint(cursor);
                ret->age_us = cursor_varint(cursor);
                break;
        case REPLICATION_ACK:
                ret->last = cursor_varint(cursor);
                ret->part = cursor_varint(cursor);
                break;
        case REPLICATION_STATE:
                ret->part = cursor_varint(cursor);
                ret->end = decode_flag(cursor);
                ret->done = (uint32_t)cursor_varint_max(cursor, 1000);
                if (ret->end)
                        decode_positions(cursor, ret);
                ret->data = cursor_slice(cursor);
                break;
        case REPLICATION_FETCH:
                ret->origin = cursor_u8(cursor);
                ret->after = cursor_varint(cursor);
                break;
        case REPLICATION_RELAYED:
                ret->origin = cursor_u8(cursor);
                ret->after = cursor_varint(cursor);
                ret->last = cursor_varint(cursor);
                ret->live = decode_flag(cursor);
                ret->gap = decode_flag(cursor);
                ret->age_us = cursor_varint(cursor);
                decode_holes(cursor, ret);
                ret->data = cursor_slice(cursor);
                if (ret->last < ret->after)
                        cursor_fail(cursor, ERR_MALFORMED);
                break;
        case REPLICATION_PIECE:
                decode_slot(cursor, ret);
                ret->after = cursor_varint(cursor);
                ret->last = cursor_varint_max(cursor, REPLICATION_MESSAGE_MAX);
                ret->data = cursor_slice(cursor);
                if (ret->data.len == 0 || ret->after > ret->last ||
                    ret->data.len > ret->last - ret->after)
                        cursor_fail(cursor, ERR_MALFORMED);
                break;
        case REPLICATION_GOT:
                decode_slot(cursor, ret);
                ret->last = cursor_varint_max(cursor, REPLICATION_MESSAGE_MAX);
                break;
        case REPLICATION_PLACE:
                ret->part = cursor_varint(cursor);
                decode_resume(cursor, ret);
                break;
        case REPLICATION_RESUME:
                decode_resume(cursor, ret);
                break;
        case REPLICATION_PASSED:
                ret->origin = cursor_u8(cursor);
                ret->holder = cursor_u8(cursor);
                ret->last = cursor_varint(cursor);
                ret->part = cursor_varint_max(cursor, REPLICATION_PASSED_MAX);
                break;
        case REPLICATION_KIND_COUNT:
                cursor_fail(cursor, ERR_MALFORMED);
                break;
        }
}

enum err replication_message_decode(struct bytes data, struct replication_message *ret)
{
        struct cursor cursor = cursor_of(data);
        ret->position_count = 0;
        ret->data = bytes_of(NULL, 0);
        ret->after = ret->last = ret->age_us = ret->part = 0;
        ret->whole = ret->end = ret->live = ret->gap = false;
        ret->hole_count = 0;
        ret->origin = ret->holder = 0;
        ret->done = 0;
        ret->resume = (struct world_resume){0};
        if (data.len > REPLICATION_MESSAGE_MAX)
                return ERR_MALFORMED;
        uint8_t version = cursor_u8(&cursor);
        if (!cursor_failed(&cursor) && version != MESSAGE_VERSION)
                return ERR_VERSION;
        uint8_t kind = cursor_u8(&cursor);
        if (kind < REPLICATION_HELLO || kind >= REPLICATION_KIND_COUNT)
                return cursor_failed(&cursor) ? ERR_TRUNCATED : ERR_MALFORMED;
        ret->kind = (enum replication_kind)kind;
        ret->sub = cursor_varint(&cursor);
        decode_fields(&cursor, ret);
        return cursor_done(&cursor);
}
