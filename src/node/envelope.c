/* envelope.c - messages between nodes on the control class, and the gossip, as bytes. They come
 * from the network: every kind, count and range is checked, and what is left over is an error. */
#include "base/cursor.h"
#include "node/node_priv.h"

#define ENVELOPE_VERSION   1
#define GOSSIP_REGIONS_MAX NODE_STATUS_REGIONS_MAX

static bool kind_has_group(enum envelope_kind kind)
{
        return kind == ENVELOPE_PROPOSE || kind == ENVELOPE_READ;
}

static bool kind_has_id(enum envelope_kind kind)
{
        return kind == ENVELOPE_FORWARD || kind == ENVELOPE_ANSWER || kind == ENVELOPE_RESULT ||
               kind == ENVELOPE_READ;
}

void envelope_encode(const struct envelope *envelope, struct buffer *out)
{
        buffer_u8(out, ENVELOPE_VERSION);
        buffer_u8(out, (uint8_t)envelope->kind);
        if (kind_has_id(envelope->kind))
                buffer_varint(out, envelope->id);
        if (envelope->kind == ENVELOPE_RESULT)
                buffer_varint(out, envelope->incarnation);
        if (kind_has_group(envelope->kind))
                buffer_u8(out, (uint8_t)envelope->group);
        buffer_bytes(out, envelope->body);
}

enum err envelope_decode(struct bytes data, struct envelope *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t kind = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version != ENVELOPE_VERSION)
                return ERR_VERSION;
        if (kind < ENVELOPE_RAFT_GLOBAL || kind >= ENVELOPE_KIND_COUNT)
                return ERR_MALFORMED;
        struct envelope envelope = {.kind = (enum envelope_kind)kind};
        if (kind_has_id(envelope.kind))
                envelope.id = cursor_varint(&cursor);
        if (envelope.kind == ENVELOPE_RESULT)
                envelope.incarnation = cursor_varint(&cursor);
        if (kind_has_group(envelope.kind)) {
                uint8_t group = cursor_u8(&cursor);
                if (group >= WORLD_GROUP_COUNT)
                        cursor_fail(&cursor, ERR_MALFORMED);
                else
                        envelope.group = (enum world_group)group;
        }
        envelope.body = cursor_bytes(&cursor, cursor_left(&cursor));
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = envelope;
        return err;
}

void gossip_encode(const struct gossip *gossip, struct buffer *out)
{
        buffer_varint(out, gossip->epoch);
        buffer_varint(out, gossip->term);
        buffer_varint(out, gossip->leader);
        buffer_u8(out, (uint8_t)((gossip->redis_known ? 1 : 0) | (gossip->redis_up ? 2 : 0) |
                                 (gossip->caught_up ? 4 : 0)));
        buffer_u64(out, gossip->backends_up);
        buffer_varint(out, gossip->lag_count);
        for (uint32_t i = 0; i < gossip->lag_count; i++) {
                const struct node_status_lag *lag = &gossip->lags[i];
                buffer_u8(out, lag->origin);
                buffer_u8(out, lag->known);
                buffer_varint(out, lag->lag_us);
                buffer_varint(out, lag->position);
        }
        buffer_varint(out, gossip->rtt_count);
        for (uint32_t i = 0; i < gossip->rtt_count; i++) {
                buffer_u8(out, gossip->rtts[i].region);
                buffer_varint(out, gossip->rtts[i].rtt_us);
        }
        health_report_encode(&gossip->report, out);
}

static void decode_lags(struct cursor *cursor, struct gossip *ret)
{
        ret->lag_count = (uint32_t)cursor_varint_max(cursor, GOSSIP_REGIONS_MAX);
        if (cursor_failed(cursor))
                ret->lag_count = 0;
        for (uint32_t i = 0; i < ret->lag_count; i++) {
                struct node_status_lag *lag = &ret->lags[i];
                lag->origin = cursor_u8(cursor);
                uint8_t known = cursor_u8(cursor);
                if (known > 1)
                        cursor_fail(cursor, ERR_MALFORMED);
                lag->known = known == 1;
                lag->lag_us = cursor_varint(cursor);
                lag->position = cursor_varint(cursor);
        }
}

static void decode_rtts(struct cursor *cursor, struct gossip *ret)
{
        ret->rtt_count = (uint32_t)cursor_varint_max(cursor, GOSSIP_REGIONS_MAX);
        if (cursor_failed(cursor))
                ret->rtt_count = 0;
        for (uint32_t i = 0; i < ret->rtt_count; i++) {
                ret->rtts[i].region = cursor_u8(cursor);
                ret->rtts[i].rtt_us = cursor_varint(cursor);
        }
}

enum err gossip_decode(struct bytes data, struct gossip *ret)
{
        struct cursor cursor = cursor_of(data);
        ret->epoch = cursor_varint(&cursor);
        ret->term = cursor_varint(&cursor);
        ret->leader = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
        uint8_t flags = cursor_u8(&cursor);
        if (flags > 7)
                cursor_fail(&cursor, ERR_MALFORMED);
        ret->redis_known = (flags & 1) != 0;
        ret->redis_up = (flags & 2) != 0;
        ret->caught_up = (flags & 4) != 0;
        ret->backends_up = cursor_u64(&cursor);
        decode_lags(&cursor, ret);
        decode_rtts(&cursor, ret);
        if (cursor_failed(&cursor))
                return cursor.err;
        return health_report_decode(cursor_bytes(&cursor, cursor_left(&cursor)), &ret->report);
}
