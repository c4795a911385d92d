/* converge_whole.h - what clients do to whole keys in random histories: RENAME, COPY, MOVE, the
 * commands that store a result, several of them in one turn, and policies that change meanwhile.
 * A key that was replaced is told as plugins/redis/replace.c tells it. Part of test_converge.c.
 *
 * A key that is known as one serialized value has any type in the model: its dump is the value.
 * Without FAULT_WHOLE a turn is one command, which alone draws random numbers. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_WHOLE_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_WHOLE_H

#include "base/put.h"
#include "converge_ops.h"

/* ---- dumps */

enum {
        DUMP_MARK = 0x80, /* in the first byte, with the type: other values are of text */
        DUMP_BYTES = 4096,
};

static bool whole_opaque_get(void *context, struct crdt_name name, struct bytes *ret)
{
        static uint8_t room[DUMP_BYTES];
        const struct model_key *key = model_find(context, name);
        uint8_t *at = room;
        if (key == NULL)
                return false;
        *ret = text_get(&key->value);
        if (key->type == CRDT_OPAQUE)
                return true;
        *at++ = (uint8_t)(DUMP_MARK | key->type);
        at = put_varint(at, model_item_count(key));
        for (size_t i = 0; i < MODEL_ITEMS; i++) {
                const struct model_item *item = &key->items[i];
                if (!item->used)
                        continue;
                CHECK(at + item->name.len + item->value.len + 4 < room + sizeof room);
                at = put_slice(at, text_get(&item->name));
                at = put_slice(at, text_get(&item->value));
        }
        at = put_varint(at, key->length);
        for (size_t i = 0; i < key->length; i++) {
                const struct model_element *element = &key->list[i];
                CHECK(at + 16 + 1 + MODEL_ELEMENT < room + sizeof room);
                at = put_u64(put_u64(at, key->ids[i].ms), key->ids[i].seq);
                at = put_slice(at, bytes_of(element->data, element->len));
        }
        *ret = bytes_of(room, (size_t)(at - room));
        return true;
}

static void whole_opaque_set(void *context, struct crdt_name name, struct bytes value,
                             uint64_t expire_at_ms)
{
        if (value.len == 0 || (value.ptr[0] & DUMP_MARK) == 0) {
                model_opaque_set(context, name, value, expire_at_ms);
                return;
        }
        struct cursor cursor = cursor_of(value);
        enum crdt_type type = (enum crdt_type)(cursor_u8(&cursor) & ~DUMP_MARK);
        model_whole_set(context, name, type, (struct bytes){0}, expire_at_ms);
        struct model_key *key = model_find(context, name);
        for (uint64_t count = cursor_varint(&cursor); count > 0; count--) {
                struct bytes item = cursor_slice(&cursor);
                model_item_set(key, item, cursor_slice(&cursor));
        }
        key->length = cursor_varint(&cursor);
        CHECK(key->length <= MODEL_LIST);
        for (size_t i = 0; i < key->length; i++) {
                key->ids[i].ms = cursor_u64(&cursor);
                key->ids[i].seq = cursor_u64(&cursor);
                model_element_set(&key->list[i], cursor_slice(&cursor));
        }
        CHECK(cursor_done(&cursor) == ERR_NONE);
}

static void whole_native(struct crdt_native *native)
{
        native->opaque_get = whole_opaque_get;
        native->opaque_set = whole_opaque_set;
}

/* ---- telling what a key is now */

static enum policy *policy_of(const struct op *op)
{
        size_t which = 0;
        while (op->name.key.ptr != (const uint8_t *)key_names[which])
                which++;
        return &op->replica->policies[which];
}

static void told(struct op *op, enum err err)
{
        CHECK(err == ERR_NONE);
        DEMAND(op->world, !op->change.whole);
        DEMAND(op->world, !op->change.nothing || evicts(op->world, op->replica));
        trace_change(op->replica, &op->change);
}

#define TELL(op, call, ...)                                                                        \
        told(op, keyspace_local_##call((op)->replica->keyspace, wall((op)->world, (op)->replica),  \
                                       (op)->name, __VA_ARGS__, &(op)->change))

static void tell_delete(struct op *op)
{
        struct keyspace_key known;
        if (keyspace_find(op->replica->keyspace, op->name, &known) && known.type != CRDT_NONE)
                told(op, keyspace_local_delete(op->replica->keyspace, wall(op->world, op->replica),
                                               op->name, &op->change));
}

static void tell_string(struct op *op)
{
        if (*policy_of(op) == POLICY_SIBLINGS)
                TELL(op, sibling, text_get(&op->key->value), op->key->expire_at_ms);
        else
                TELL(op, set, text_get(&op->key->value), op->key->expire_at_ms);
}

static void tell_opaque(struct op *op)
{
        struct bytes value;
        CHECK(whole_opaque_get(&op->replica->model, op->name, &value));
        TELL(op, opaque, value, op->key->expire_at_ms);
}

static void tell_hash(struct op *op)
{
        struct keyspace_pair pairs[MODEL_ITEMS];
        size_t count = 0;
        for (size_t i = 0; i < MODEL_ITEMS; i++)
                if (op->key->items[i].used)
                        pairs[count++] = (struct keyspace_pair){text_get(&op->key->items[i].name),
                                                                text_get(&op->key->items[i].value)};
        tell_delete(op);
        TELL(op, hash_set, pairs, count);
}

static void tell_set(struct op *op)
{
        struct bytes members[MODEL_ITEMS];
        size_t count = 0;
        for (size_t i = 0; i < MODEL_ITEMS; i++)
                if (op->key->items[i].used)
                        members[count++] = text_get(&op->key->items[i].name);
        tell_delete(op);
        TELL(op, set_add, members, count);
}

static void tell_zset(struct op *op)
{
        struct keyspace_score scores[MODEL_ITEMS];
        size_t count = 0;
        for (size_t i = 0; i < MODEL_ITEMS; i++)
                if (op->key->items[i].used)
                        scores[count++] = (struct keyspace_score){text_get(&op->key->items[i].name),
                                                                  model_score(&op->key->items[i])};
        tell_delete(op);
        TELL(op, zset_add, scores, count);
}

static void tell_list(struct op *op)
{
        struct bytes values[MODEL_LIST];
        for (size_t i = 0; i < op->key->length; i++)
                values[i] = bytes_of(op->key->list[i].data, op->key->list[i].len);
        tell_delete(op);
        TELL(op, list_push, false, values, op->key->length);
}

static void tell_hll(struct op *op)
{
        struct bytes registers;
        CHECK(model_hll_get(&op->replica->model, op->name, &registers));
        tell_delete(op);
        TELL(op, hll_registers, registers);
}

/* Not by a delete where it was a stream. */
static void tell_stream(struct op *op)
{
        struct bytes strings[MODEL_LIST][2];
        struct keyspace_entry entries[MODEL_LIST];
        struct crdt_stream_id last = {0};
        struct keyspace_key known;
        for (size_t i = 0; i < op->key->length; i++) {
                last = op->key->ids[i];
                strings[i][0] = BYTES("v");
                strings[i][1] = bytes_of(op->key->list[i].data, op->key->list[i].len);
                entries[i] = (struct keyspace_entry){last, strings[i], 2};
        }
        keyspace_find(op->replica->keyspace, op->name, &known);
        if (known.type == CRDT_STREAM) {
                struct keyspace_ids all = {{0, 0}, {UINT64_MAX, UINT64_MAX}};
                CHECK(keyspace_local_stream_remove(op->replica->keyspace,
                                                   wall(op->world, op->replica), op->name, &all, 1,
                                                   &op->change) == ERR_NONE);
                trace_change(op->replica, &op->change);
        } else {
                tell_delete(op);
        }
        TELL(op, stream_add, last, entries, op->key->length);
}

/* By type; `whole`: the expiry is told with it. */
static const struct {
        void (*tell)(struct op *op);
        bool whole;
} tell_rows[] = {
        [CRDT_STRING] = {tell_string, true},  [CRDT_HASH] = {tell_hash, false},
        [CRDT_SET] = {tell_set, false},       [CRDT_OPAQUE] = {tell_opaque, true},
        [CRDT_LIST] = {tell_list, false},     [CRDT_HLL] = {tell_hll, false},
        [CRDT_STREAM] = {tell_stream, false}, [CRDT_ZSET] = {tell_zset, false},
};

static void tell_key(struct op *op)
{
        struct keyspace_key known;
        op->key = model_find(&op->replica->model, op->name);
        TRACE(op->replica, "tells %.*s of %u anew, policy %d", BYTES_ARGS(op->name.key),
              (unsigned)op->name.db, (int)*policy_of(op));
        if (op->key == NULL) {
                tell_delete(op);
                return;
        }
        enum crdt_type type = op->key->type;
        if (*policy_of(op) == POLICY_LAST_WRITE && type != CRDT_STRING && type != CRDT_HLL)
                type = CRDT_OPAQUE;
        tell_rows[type].tell(op);
        if (tell_rows[type].whole)
                return;
        keyspace_find(op->replica->keyspace, op->name, &known);
        if (known.expire_at_ms != op->key->expire_at_ms)
                TELL(op, expire, op->key->expire_at_ms);
}

/* ---- what clients do */

/* Not to what is only ever added to: converge_sums.h. */
static struct op whole_begin(struct world *world, struct replica *replica)
{
        static const uint8_t names[] = {0, 1, 2, 4, 5, 6, 7, KEY_ZSET};
        size_t which = names[rng_below(&world->rng, COUNT_OF(names))];
        struct op op = {.world = world, .replica = replica};
        op.name = (struct crdt_name){(uint32_t)rng_below(&world->rng, 2),
                                     bytes_of_str(key_names[which])};
        op.key = model_find(&replica->model, op.name);
        return op;
}

static bool same_name(const struct op *op, const struct op *other)
{
        return op->name.db == other->name.db && op->name.key.ptr == other->name.key.ptr;
}

static void model_copy(struct op *from, struct op *to)
{
        model_key_delete(&to->replica->model, to->name);
        to->key = model_get(&to->replica->model, to->name, from->key->type);
        struct model_text name = to->key->name;
        *to->key = *from->key;
        to->key->name = name;
        to->key->db = to->name.db;
}

static void op_copy(struct op *op)
{
        struct op to = whole_begin(op->world, op->replica);
        if (op->key == NULL || same_name(op, &to))
                return;
        model_copy(op, &to);
        tell_key(&to);
}

/* RENAME tells the old name first, MOVE the new one. */
static void change_name(struct op *op, struct op *to, bool old_first)
{
        if (op->key == NULL || same_name(op, to))
                return;
        model_copy(op, to);
        model_drop(op->key);
        tell_key(old_first ? op : to);
        tell_key(old_first ? to : op);
}

static void op_rename(struct op *op)
{
        struct op to = whole_begin(op->world, op->replica);
        to.name.db = op->name.db;
        change_name(op, &to, true);
}

static void op_move(struct op *op)
{
        struct op to = *op;
        to.name.db = 1 - op->name.db;
        if (model_find(&op->replica->model, to.name) == NULL)
                change_name(op, &to, false);
}

/* SORT, BITOP, SINTERSTORE, ZUNIONSTORE and their like: what is there goes, with its expiry; an
 * empty outcome leaves nothing. */
static void op_store(struct op *op)
{
        static const enum crdt_type types[] = {CRDT_STRING, CRDT_LIST, CRDT_SET, CRDT_ZSET};
        enum crdt_type type = types[rng_below(&op->world->rng, COUNT_OF(types))];
        struct model *model = &op->replica->model;
        char room[MODEL_NAME];
        model_key_delete(model, op->name);
        for (uint64_t count = rng_below(&op->world->rng, 4); count > 0; count--) {
                struct bytes item = item_random(op);
                if (type == CRDT_STRING)
                        model_string_set(model, op->name, value_random(op, room, sizeof room), 0);
                else if (type == CRDT_LIST)
                        model_list_insert(model, op->name, 0, item);
                else if (type == CRDT_SET)
                        model_set_add(model, op->name, item);
                else
                        model_zset_add(model, op->name, item, score_random(op->world));
        }
        tell_key(op);
}

/* Holds from the next write on, which comes at once or later. */
static void op_policy(struct op *op)
{
        *policy_of(op) = (enum policy)rng_below(&op->world->rng, POLICY_COUNT);
        if (op->key != NULL && rng_chance(&op->world->rng, 500))
                tell_key(op);
}

static void (*const ops_whole[])(struct op *op) = {op_copy, op_rename, op_rename,
                                                   op_move, op_store,  op_policy};

static void act_whole(struct world *world, struct replica *replica)
{
        strike_before_change(world, replica);
        struct op op = whole_begin(world, replica);
        if (!op_comes_early(&op))
                ops_whole[rng_below(&world->rng, COUNT_OF(ops_whole))](&op);
        agree(world, replica);
}

/* One command. What was a part of a whole is told anew as what the key is now; so is, often, what a
 * policy wants to be told so. */
static void act_once(struct world *world, struct replica *replica)
{
        size_t which = rng_below(&world->rng, COUNT_OF(key_names));
        struct op op = {.world = world, .replica = replica};
        if ((world->faults & FAULT_JOIN) != 0 && !world->joined &&
            replica == &world->replicas[world->count - 1])
                return;
        strike_before_change(world, replica);
        op.name =
                (struct crdt_name){(uint32_t)(which == 3 || which == KEY_TALLY || which == KEY_SCORE
                                                      ? 0
                                                      : rng_below(&world->rng, 2)),
                                   bytes_of_str(key_names[which])};
        op.key = model_find(&replica->model, op.name);
        act_by_type(&op, which);
        trace_change(replica, &op.change);
        bool told = *policy_of(&op) != POLICY_TYPED && rng_chance(&world->rng, 700);
        if (op.change.whole || told)
                tell_key(&op);
        agree(world, replica);
}

/* One turn: with FAULT_WHOLE a script may do several things. */
static void act(struct world *world, struct replica *replica)
{
        act_once(world, replica);
        bool absent = (world->faults & FAULT_JOIN) != 0 && !world->joined &&
                      replica == &world->replicas[world->count - 1];
        if ((world->faults & FAULT_WHOLE) == 0 || absent || rng_chance(&world->rng, 600))
                return;
        for (uint64_t more = rng_between(&world->rng, 1, 3); more > 0; more--)
                (rng_chance(&world->rng, 700) ? act_whole : act_once)(world, replica);
}

#endif
