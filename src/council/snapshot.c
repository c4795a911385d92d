/* The whole state as bytes, in an order that only the state decides.
 *
 *   u8 version (1; 2 where regions were removed; 3 where values were ever used; 4 from level 2 on),
 *     version 4: u8 level, u8 whether values were ever used; varints applied index, epoch, slice
 *     document; from version 2 on varint ids of removed regions, a bit for each
 *   varint count of regions; each: u8 id, u8 state, varints row, index, wall clock, slice text
 *   varint count of audit lines; each: varints index, wall clock, row, slices actor, what, why
 *   varint count of askers; each: varints node, incarnation, highest sequence, index, count of
 *     answers; each: varint sequence, u8 kind, u8 lock result, u8 error, u8 region, from, to,
 *     varints epoch, token, ttl; values used: u8 result of a transaction, u8 whether it succeeded
 *   values used: slice: the values (kv/snapshot.c)
 *   the lock table (lock/snapshot.c) up to the end */
#include "base/check.h"
#include "base/cursor.h"
#include "council/council_priv.h"

enum {
        SNAPSHOT_VERSION = 1,
        SNAPSHOT_VERSION_REMOVED = 2,
        SNAPSHOT_VERSION_KV = 3,
        SNAPSHOT_VERSION_LEVEL = 4,
};

static void regions_encode(const struct council *council, struct buffer *out)
{
        uint64_t count = 0;
        for (size_t i = 0; i < REGION_IDS; i++)
                count += council->regions[i].spoken;
        buffer_varint(out, count);
        for (size_t i = 0; i < REGION_IDS; i++) {
                const struct region *region = &council->regions[i];
                if (!region->spoken)
                        continue;
                buffer_u8(out, (uint8_t)i);
                buffer_u8(out, region->state);
                buffer_varint(out, region->row);
                buffer_varint(out, region->index);
                buffer_varint(out, region->wall_us);
                buffer_slice(out, region->text);
        }
}

static void audit_encode(const struct council *council, struct buffer *out)
{
        buffer_varint(out, council->audit_count);
        for (size_t i = 0; i < council->audit_count; i++) {
                struct council_audit line = council_audit_at(council, i);
                buffer_varint(out, line.index);
                buffer_varint(out, line.wall_us);
                buffer_varint(out, line.row);
                buffer_slice(out, line.actor);
                buffer_slice(out, line.what);
                buffer_slice(out, line.why);
        }
}

static void answer_encode(const struct answer *answer, bool kv, struct buffer *out)
{
        buffer_varint(out, answer->sequence);
        buffer_u8(out, (uint8_t)answer->kind);
        buffer_u8(out, (uint8_t)answer->lock);
        buffer_u8(out, (uint8_t)answer->err);
        buffer_u8(out, answer->region);
        buffer_u8(out, answer->from);
        buffer_u8(out, answer->to);
        buffer_varint(out, answer->epoch);
        buffer_varint(out, answer->token);
        buffer_varint(out, answer->ttl_ms);
        if (kv) {
                buffer_u8(out, (uint8_t)answer->kv);
                buffer_u8(out, answer->kv_succeeded);
        }
}

/* The oldest sequence that may still be remembered. */
static uint64_t asker_oldest(const struct asker *asker)
{
        return asker->highest < COUNCIL_REPEATS_MAX ? 1 : asker->highest - COUNCIL_REPEATS_MAX + 1;
}

static void asker_encode(const struct asker *asker, bool kv, struct buffer *out)
{
        buffer_varint(out, asker->node);
        buffer_varint(out, asker->incarnation);
        buffer_varint(out, asker->highest);
        buffer_varint(out, asker->index);
        uint64_t count = 0;
        for (uint64_t s = asker_oldest(asker); s <= asker->highest; s++)
                count += repeats_answer(asker, s) != NULL;
        buffer_varint(out, count);
        for (uint64_t s = asker_oldest(asker); s <= asker->highest; s++) {
                if (repeats_answer(asker, s) != NULL)
                        answer_encode(repeats_answer(asker, s), kv, out);
        }
}

static void values_encode(const struct council *council, struct buffer *out)
{
        struct buffer values;
        buffer_init(&values, out->heap);
        kv_encode(council->kv, &values);
        buffer_slice(out, buffer_view(&values));
        if (values.err != ERR_NONE)
                out->err = values.err;
        buffer_fini(&values);
}

void council_head_encode(const struct council *council, struct buffer *out)
{
        uint8_t version = council->removed != 0 ? SNAPSHOT_VERSION_REMOVED : SNAPSHOT_VERSION;
        bool leveled = council->level > 1;
        version = council->kv_used ? SNAPSHOT_VERSION_KV : version;
        buffer_u8(out, leveled ? SNAPSHOT_VERSION_LEVEL : version);
        if (leveled) {
                buffer_u8(out, council->level);
                buffer_u8(out, council->kv_used);
        }
        buffer_varint(out, council->applied);
        buffer_varint(out, council->epoch);
        buffer_slice(out, council->document);
        if (council->removed != 0 || council->kv_used || leveled)
                buffer_varint(out, council->removed);
        regions_encode(council, out);
        audit_encode(council, out);
        buffer_varint(out, council->repeats.count);
        for (size_t i = 0; i < council->repeats.count; i++)
                asker_encode(&council->repeats.askers[i], council->kv_used, out);
}

void council_snapshot(const struct council *council, struct buffer *out)
{
        council_head_encode(council, out);
        if (council->kv_used)
                values_encode(council, out);
        lock_table_encode(council->locks, out);
}

static struct bytes text_decode(struct cursor *cursor, size_t max)
{
        struct bytes text = cursor_slice(cursor);
        if (text.len > max)
                cursor_fail(cursor, ERR_MALFORMED);
        return text;
}

static void regions_decode(struct cursor *cursor, struct council *council)
{
        uint64_t count = cursor_varint_max(cursor, REGION_IDS);
        unsigned before = 0;
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct council_region region = {0};
                region.region = cursor_u8(cursor);
                region.state = cursor_u8(cursor);
                region.row = (uint16_t)cursor_varint_max(cursor, UINT16_MAX);
                region.index = cursor_varint(cursor);
                region.wall_us = cursor_varint(cursor);
                region.text = text_decode(cursor, COUNCIL_TEXT_BYTES_MAX);
                uint8_t states = council->config.region_state_count;
                if (region.region <= before || (states != 0 && region.state >= states))
                        cursor_fail(cursor, ERR_MALFORMED);
                before = region.region;
                if (!cursor_failed(cursor) && !council_region_set(council, &region))
                        cursor_fail(cursor, ERR_NOMEM);
        }
}

static void audit_decode(struct cursor *cursor, struct council *council)
{
        uint64_t count = cursor_varint_max(cursor, COUNCIL_AUDIT_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct council_audit line = {0};
                line.index = cursor_varint(cursor);
                line.wall_us = cursor_varint(cursor);
                line.row = (uint16_t)cursor_varint_max(cursor, UINT16_MAX);
                line.actor = text_decode(cursor, COUNCIL_NAME_BYTES_MAX);
                line.what = text_decode(cursor, (size_t)4 * COUNCIL_TEXT_BYTES_MAX);
                line.why = text_decode(cursor, COUNCIL_TEXT_BYTES_MAX);
                if (!cursor_failed(cursor) && !council_audit_add(council, &line))
                        cursor_fail(cursor, ERR_NOMEM);
        }
}

static struct answer answer_decode(struct cursor *cursor, bool has_kv)
{
        struct answer answer = {.sequence = cursor_varint(cursor)};
        uint8_t kind = cursor_u8(cursor);
        uint8_t lock = cursor_u8(cursor);
        uint8_t err = cursor_u8(cursor);
        answer.region = cursor_u8(cursor);
        answer.from = cursor_u8(cursor);
        answer.to = cursor_u8(cursor);
        answer.epoch = cursor_varint(cursor);
        answer.token = cursor_varint(cursor);
        answer.ttl_ms = cursor_varint(cursor);
        uint8_t kv = has_kv ? cursor_u8(cursor) : 0;
        uint8_t kv_succeeded = has_kv ? cursor_u8(cursor) : 0;
        bool known = (kind >= COUNCIL_DONE && kind <= COUNCIL_LOCK_RESULT) ||
                     (kind == COUNCIL_KV_RESULT && kv != 0);
        if (!known || kv >= KV_RESULT_COUNT || kv_succeeded > 1 || lock >= LOCK_RESULT_COUNT ||
            err >= ERR_COUNT || (kind == COUNCIL_LOCK_RESULT && lock == 0))
                cursor_fail(cursor, ERR_MALFORMED);
        if (cursor_failed(cursor))
                return (struct answer){.kind = COUNCIL_DONE};
        answer.kind = (enum council_outcome_kind)kind;
        answer.lock = (enum lock_result_kind)lock;
        answer.err = (enum err)err;
        answer.kv = (enum kv_result_kind)kv;
        answer.kv_succeeded = kv_succeeded == 1;
        return answer;
}

static void asker_decode(struct cursor *cursor, struct council *council, uint32_t *node_before)
{
        uint32_t node = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        if (node <= *node_before)
                cursor_fail(cursor, ERR_MALFORMED);
        if (cursor_failed(cursor))
                return;
        *node_before = node;
        struct asker *asker = repeats_asker(&council->repeats, node);
        if (asker == NULL) {
                cursor_fail(cursor, ERR_NOMEM);
                return;
        }
        asker->incarnation = cursor_varint(cursor);
        asker->highest = cursor_varint(cursor);
        asker->index = cursor_varint(cursor);
        uint64_t count = cursor_varint_max(cursor, COUNCIL_REPEATS_MAX);
        uint64_t before = asker_oldest(asker) - 1;
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct answer answer = answer_decode(cursor, council->kv_used);
                bool sound = answer.sequence > before && answer.sequence <= asker->highest;
                struct answer *place = NULL;
                if (sound)
                        place = repeats_place(&council->repeats, asker, answer.sequence);
                if (place != NULL)
                        *place = answer;
                else
                        cursor_fail(cursor, sound ? ERR_NOMEM : ERR_MALFORMED);
                before = answer.sequence;
        }
}

static void document_decode(struct cursor *cursor, struct council *council)
{
        council->epoch = cursor_varint(cursor);
        struct bytes document = text_decode(cursor, COUNCIL_TOPOLOGY_BYTES_MAX);
        if ((council->epoch == 0) != (document.len == 0))
                cursor_fail(cursor, ERR_MALFORMED);
        if (!cursor_failed(cursor) && !heap_copy(council->heap, document, &council->document))
                cursor_fail(cursor, ERR_NOMEM);
}

static void level_decode(struct cursor *cursor, struct council *council)
{
        council->level = cursor_u8(cursor);
        uint8_t used = cursor_u8(cursor);
        council->kv_used = used == 1;
        if (council->level < 2 || used > 1)
                cursor_fail(cursor, ERR_MALFORMED);
}

enum err council_head_decode(struct council *council, struct bytes state, struct bytes *ret_values,
                             struct bytes *ret_locks)
{
        struct cursor cursor = cursor_of(state);
        uint8_t version = cursor_u8(&cursor);
        if (!cursor_failed(&cursor) && version != SNAPSHOT_VERSION &&
            version != SNAPSHOT_VERSION_REMOVED && version != SNAPSHOT_VERSION_KV &&
            version != SNAPSHOT_VERSION_LEVEL)
                return ERR_VERSION;
        council->kv_used = version == SNAPSHOT_VERSION_KV;
        if (version == SNAPSHOT_VERSION_LEVEL)
                level_decode(&cursor, council);
        if (!cursor_failed(&cursor) && council->level > council_level_known(&council->config))
                return ERR_VERSION;
        council->applied = cursor_varint(&cursor);
        document_decode(&cursor, council);
        if (version >= SNAPSHOT_VERSION_REMOVED) {
                council->removed = cursor_varint(&cursor);
                if (council->removed == 0 && version == SNAPSHOT_VERSION_REMOVED)
                        cursor_fail(&cursor, ERR_MALFORMED);
        }
        regions_decode(&cursor, council);
        audit_decode(&cursor, council);
        uint64_t askers = cursor_varint_max(&cursor, COUNCIL_NODES_MAX);
        uint32_t node_before = 0;
        for (uint64_t i = 0; i < askers && !cursor_failed(&cursor); i++)
                asker_decode(&cursor, council, &node_before);
        struct bytes values = council->kv_used ? cursor_slice(&cursor) : bytes_of(NULL, 0);
        if (cursor_failed(&cursor))
                return cursor.err;
        *ret_values = values;
        *ret_locks = cursor_bytes(&cursor, cursor_left(&cursor));
        return ERR_NONE;
}
