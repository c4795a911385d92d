/* Transactions and results as bytes; integers are varints where nothing else is said.
 *
 *   transaction   u8 version (1), slice id, slice owner, count of conditions, slice of them,
 *                 twice (then, otherwise): count of steps, slice of them
 *   condition     u8 what, u8 relation, slice key, and by what: slice value, or number
 *   step          u8 op, flags, slices key, end, value, then session, limit, revision
 *   result        u8 version (1), u8 kind, u8 bits (1 succeeded, 2 repeat), revision, compacted,
 *                 count of steps; each: u8 op, u8 more, total, count of items
 *   item          slices key, value, actor, then created, revision, version, session, wall_us */
#include "kv/kv.h"

enum {
        TXN_VERSION = 1,
        RESULT_VERSION = 1,
};

/* ---- building ---- */

void kv_build_init(struct kv_build *build, struct heap *heap)
{
        *build = (struct kv_build){0};
        buffer_init(&build->conditions, heap);
        buffer_init(&build->branches[0], heap);
        buffer_init(&build->branches[1], heap);
}

void kv_build_fini(struct kv_build *build)
{
        buffer_fini(&build->conditions);
        buffer_fini(&build->branches[0]);
        buffer_fini(&build->branches[1]);
}

void kv_build_condition(struct kv_build *build, const struct kv_condition *condition)
{
        struct buffer *out = &build->conditions;
        build->condition_count++;
        buffer_u8(out, (uint8_t)condition->what);
        buffer_u8(out, (uint8_t)condition->relation);
        buffer_slice(out, condition->key);
        if (condition->what == KV_VALUE)
                buffer_slice(out, condition->value);
        else
                buffer_varint(out, condition->number);
}

void kv_build_step(struct kv_build *build, bool otherwise, const struct kv_step *step)
{
        struct buffer *out = &build->branches[otherwise];
        build->step_counts[otherwise]++;
        buffer_u8(out, (uint8_t)step->op);
        buffer_varint(out, step->flags);
        buffer_slice(out, step->key);
        buffer_slice(out, step->end);
        buffer_slice(out, step->value);
        buffer_varint(out, step->session);
        buffer_varint(out, step->limit);
        buffer_varint(out, step->revision);
}

enum err kv_build_end(const struct kv_build *build, struct buffer *out)
{
        if (build->conditions.err != ERR_NONE || build->branches[0].err != ERR_NONE ||
            build->branches[1].err != ERR_NONE)
                return ERR_NOMEM;
        if (build->condition_count > KV_CONDITIONS_MAX || build->step_counts[0] > KV_STEPS_MAX ||
            build->step_counts[1] > KV_STEPS_MAX)
                return ERR_LIMIT;
        size_t before = out->len;
        buffer_u8(out, TXN_VERSION);
        buffer_slice(out, build->id);
        buffer_slice(out, build->owner);
        buffer_varint(out, build->condition_count);
        buffer_slice(out, buffer_view(&build->conditions));
        for (int i = 0; i < 2; i++) {
                buffer_varint(out, build->step_counts[i]);
                buffer_slice(out, buffer_view(&build->branches[i]));
        }
        if (out->err != ERR_NONE)
                return ERR_NOMEM;
        return out->len - before > KV_TXN_BYTES_MAX ? ERR_LIMIT : ERR_NONE;
}

/* ---- walking ---- */

static bool condition_read(struct cursor *cursor, struct kv_condition *ret)
{
        uint8_t what = cursor_u8(cursor);
        uint8_t relation = cursor_u8(cursor);
        if (what < KV_VERSION || what >= KV_WHAT_COUNT || relation < KV_IS ||
            relation >= KV_RELATION_COUNT) {
                cursor_fail(cursor, ERR_MALFORMED);
                return false;
        }
        *ret = (struct kv_condition){.what = (enum kv_what)what,
                                     .relation = (enum kv_relation)relation};
        ret->key = cursor_slice(cursor);
        if (ret->what == KV_VALUE)
                ret->value = cursor_slice(cursor);
        else
                ret->number = cursor_varint(cursor);
        return !cursor_failed(cursor);
}

static bool step_read(struct cursor *cursor, struct kv_step *ret)
{
        uint8_t op = cursor_u8(cursor);
        if (op < KV_GET || op >= KV_CHANGES) {
                cursor_fail(cursor, ERR_MALFORMED);
                return false;
        }
        *ret = (struct kv_step){.op = (enum kv_op)op};
        ret->flags = (uint32_t)cursor_varint_max(cursor, KV_FLAGS);
        ret->key = cursor_slice(cursor);
        ret->end = cursor_slice(cursor);
        ret->value = cursor_slice(cursor);
        ret->session = cursor_varint(cursor);
        ret->limit = cursor_varint(cursor);
        ret->revision = cursor_varint(cursor);
        return !cursor_failed(cursor);
}

struct kv_walk kv_walk_conditions(const struct kv_txn *txn)
{
        return (struct kv_walk){cursor_of(txn->conditions), txn->condition_count};
}

struct kv_walk kv_walk_steps(const struct kv_txn *txn, bool otherwise)
{
        return (struct kv_walk){cursor_of(txn->branches[otherwise]), txn->step_counts[otherwise]};
}

bool kv_walk_condition(struct kv_walk *walk, struct kv_condition *ret)
{
        if (walk->left == 0)
                return false;
        walk->left--;
        return condition_read(&walk->cursor, ret);
}

bool kv_walk_step(struct kv_walk *walk, struct kv_step *ret)
{
        if (walk->left == 0)
                return false;
        walk->left--;
        return step_read(&walk->cursor, ret);
}

/* ---- decoding ---- */

static void conditions_check(struct cursor *cursor, struct kv_txn *txn)
{
        struct kv_condition condition;
        struct kv_walk walk;
        txn->condition_count = (size_t)cursor_varint_max(cursor, KV_CONDITIONS_MAX);
        txn->conditions = cursor_slice(cursor);
        walk = kv_walk_conditions(txn);
        while (kv_walk_condition(&walk, &condition))
                continue;
        if (cursor_done(&walk.cursor) != ERR_NONE)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void steps_check(struct cursor *cursor, struct kv_txn *txn, bool otherwise)
{
        struct kv_step step;
        struct kv_walk walk;
        txn->step_counts[otherwise] = (size_t)cursor_varint_max(cursor, KV_STEPS_MAX);
        txn->branches[otherwise] = cursor_slice(cursor);
        walk = kv_walk_steps(txn, otherwise);
        while (kv_walk_step(&walk, &step)) {
                if (step.op == KV_PUT || step.op == KV_DELETE || step.op == KV_COMPACT)
                        txn->writes = true;
        }
        if (cursor_done(&walk.cursor) != ERR_NONE)
                cursor_fail(cursor, ERR_MALFORMED);
}

enum err kv_txn_decode(struct bytes data, struct kv_txn *ret)
{
        struct cursor cursor = cursor_of(data);
        struct kv_txn txn = {0};
        uint8_t version = cursor_u8(&cursor);
        if (!cursor_failed(&cursor) && version != TXN_VERSION)
                return ERR_VERSION;
        txn.id = cursor_slice(&cursor);
        txn.owner = cursor_slice(&cursor);
        conditions_check(&cursor, &txn);
        steps_check(&cursor, &txn, false);
        steps_check(&cursor, &txn, true);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = txn;
        return err;
}

static bool steps_fit(const struct kv_txn *txn, bool otherwise,
                      bool (*fits)(void *context, struct bytes key), void *context)
{
        struct kv_walk walk = kv_walk_steps(txn, otherwise);
        struct kv_step step;
        while (kv_walk_step(&walk, &step)) {
                bool between = step.op == KV_RANGE && (step.flags & KV_PREFIX) == 0;
                if (step.op != KV_COMPACT && !fits(context, step.key))
                        return false;
                if (between && !fits(context, step.end))
                        return false;
        }
        return true;
}

bool kv_txn_keys(const struct kv_txn *txn, bool (*fits)(void *context, struct bytes key),
                 void *context)
{
        struct kv_walk walk = kv_walk_conditions(txn);
        struct kv_condition condition;
        while (kv_walk_condition(&walk, &condition)) {
                if (!fits(context, condition.key))
                        return false;
        }
        return steps_fit(txn, false, fits, context) && steps_fit(txn, true, fits, context);
}

/* ---- results ---- */

static void item_write(const struct kv_item *item, struct buffer *out)
{
        buffer_slice(out, item->key);
        buffer_slice(out, item->value);
        buffer_slice(out, item->actor);
        buffer_varint(out, item->created);
        buffer_varint(out, item->revision);
        buffer_varint(out, item->version);
        buffer_varint(out, item->session);
        buffer_varint(out, item->wall_us);
}

static bool item_read(struct cursor *cursor, struct kv_item *ret)
{
        ret->key = cursor_slice(cursor);
        ret->value = cursor_slice(cursor);
        ret->actor = cursor_slice(cursor);
        ret->created = cursor_varint(cursor);
        ret->revision = cursor_varint(cursor);
        ret->version = cursor_varint(cursor);
        ret->session = cursor_varint(cursor);
        ret->wall_us = cursor_varint(cursor);
        return !cursor_failed(cursor);
}

void kv_result_encode(const struct kv_result *result, struct buffer *out)
{
        buffer_u8(out, RESULT_VERSION);
        buffer_u8(out, (uint8_t)result->kind);
        buffer_u8(out, (uint8_t)((result->succeeded ? 1 : 0) | (result->repeat ? 2 : 0)));
        buffer_varint(out, result->revision);
        buffer_varint(out, result->compacted);
        buffer_varint(out, result->step_count);
        for (size_t i = 0; i < result->step_count; i++) {
                const struct kv_answer_step *step = &result->steps[i];
                buffer_u8(out, (uint8_t)step->op);
                buffer_u8(out, step->more);
                buffer_varint(out, step->total);
                buffer_varint(out, step->count);
                for (size_t at = 0; at < step->count; at++)
                        item_write(&result->items[step->first + at], out);
        }
}

bool kv_result_item(struct kv_reading *reading, struct kv_item *ret)
{
        if (reading->items_left == 0)
                return false;
        reading->items_left--;
        return item_read(&reading->cursor, ret);
}

bool kv_result_step(struct kv_reading *reading, struct kv_answer_step *ret)
{
        struct kv_item skipped;
        struct cursor *cursor = &reading->cursor;
        while (kv_result_item(reading, &skipped))
                continue;
        if (reading->steps_left == 0)
                return false;
        reading->steps_left--;
        uint8_t op = cursor_u8(cursor);
        uint8_t more = cursor_u8(cursor);
        *ret = (struct kv_answer_step){.more = more != 0};
        ret->total = cursor_varint(cursor);
        ret->count = (size_t)cursor_varint_max(cursor, KV_ITEMS_MAX + 2 * KV_CHANGES_MAX);
        if (op < KV_GET || op >= KV_OP_COUNT || more > 1)
                cursor_fail(cursor, ERR_MALFORMED);
        if (cursor_failed(cursor))
                return false;
        ret->op = (enum kv_op)op;
        reading->items_left = ret->count;
        return true;
}

enum err kv_result_open(struct bytes data, struct kv_reading *ret)
{
        struct cursor cursor = cursor_of(data);
        struct kv_answer_step step;
        uint8_t version = cursor_u8(&cursor);
        uint8_t kind = cursor_u8(&cursor);
        uint8_t bits = cursor_u8(&cursor);
        struct kv_reading reading = {.steps_left = 0};
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version != RESULT_VERSION)
                return ERR_VERSION;
        if (kind < KV_DONE || kind >= KV_RESULT_COUNT || bits > 3)
                return ERR_MALFORMED;
        reading.head.kind = (enum kv_result_kind)kind;
        reading.head.succeeded = (bits & 1) != 0;
        reading.head.repeat = (bits & 2) != 0;
        reading.head.revision = cursor_varint(&cursor);
        reading.head.compacted = cursor_varint(&cursor);
        reading.steps_left = (size_t)cursor_varint_max(&cursor, KV_STEPS_MAX);
        reading.head.step_count = reading.steps_left;
        reading.cursor = cursor;
        struct kv_reading walked = reading;
        while (kv_result_step(&walked, &step))
                continue;
        enum err err = cursor_done(&walked.cursor);
        if (err == ERR_NONE)
                *ret = reading;
        return err;
}
