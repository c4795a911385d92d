/* converge_ops.h - what clients do in random histories, each type by its own operations. Part of
 * test_converge.c. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_OPS_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_OPS_H

#include "converge.h"

static bool text_int(struct bytes value, long long *ret);
static bool model_int(struct model_key *key, long long *ret);

#include "converge_sums.h"

struct op {
        struct world *world;
        struct replica *replica;
        struct crdt_name name;
        struct model_key *key; /* NULL: absent */
        struct keyspace_change change;
};

static uint64_t expiry_random(struct op *op)
{
        struct world *world = op->world;
        if ((world->faults & FAULT_EXPIRY) == 0 || rng_chance(&world->rng, 600))
                return 0;
        return world->now_ms + rng_between(&world->rng, 1, 200);
}

static struct bytes value_random(struct op *op, char *room, size_t size)
{
        static const char *const forms[] = {"%d", "%d.50", "v%d", "0%d", "-%d"};
        unsigned form = (unsigned)rng_below(&op->world->rng, COUNT_OF(forms));
        int number = (int)rng_below(&op->world->rng, 100) + 1;
        int len = 0;
        switch (form) {
        case 0:
                len = snprintf(room, size, "%d", number);
                break;
        case 1:
                len = snprintf(room, size, "%d.50", number);
                break;
        case 2:
                len = snprintf(room, size, "v%d", number);
                break;
        case 3:
                len = snprintf(room, size, "0%d", number);
                break;
        default:
                len = snprintf(room, size, "-%d", number);
                break;
        }
        return bytes_of(room, (size_t)len);
}

static void op_set(struct op *op)
{
        char room[MODEL_NAME];
        struct bytes value = value_random(op, room, sizeof room);
        bool keep = rng_chance(&op->world->rng, 200);
        uint64_t expiry = keep ? (op->key == NULL ? 0 : op->key->expire_at_ms) : expiry_random(op);
        model_string_set(&op->replica->model, op->name, value, expiry);
        CHECK(keyspace_local_set(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                 value, keep ? KEYSPACE_TTL_KEEP : expiry,
                                 &op->change) == ERR_NONE);
}

static void op_sibling(struct op *op)
{
        char room[MODEL_NAME];
        struct bytes value = value_random(op, room, sizeof room);
        uint64_t expiry = expiry_random(op);
        model_string_set(&op->replica->model, op->name, value, expiry);
        CHECK(keyspace_local_sibling(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                     value, expiry, &op->change) == ERR_NONE);
}

/* A part of what is known as a whole is told by the store as a whole: with FAULT_WHOLE only. */
static bool op_is_part(const struct op *op)
{
        struct keyspace_key known;
        return (op->world->faults & FAULT_WHOLE) == 0 &&
               keyspace_find(op->replica->keyspace, op->name, &known) &&
               known.type == CRDT_SIBLINGS;
}

/* Of increments of what is not whole nobody knows how much a SET has seen: where values are dropped
 * each has a key of its own. */
static bool op_mixes(const struct op *op, size_t own)
{
        return (op->world->faults & FAULT_EVICT) != 0 &&
               op->name.key.ptr != (const uint8_t *)key_names[own];
}

static void op_opaque(struct op *op)
{
        char room[MODEL_NAME];
        struct bytes value = value_random(op, room, sizeof room);
        uint64_t expiry = expiry_random(op);
        model_opaque_set(&op->replica->model, op->name, value, expiry);
        CHECK(keyspace_local_opaque(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                    value, expiry, &op->change) == ERR_NONE);
}

static bool text_int(struct bytes value, long long *ret)
{
        char text[MODEL_TEXT + 1];
        char again[MODEL_TEXT + 1];
        snprintf(text, sizeof text, "%.*s", BYTES_ARGS(value));
        *ret = strtoll(text, NULL, 10);
        snprintf(again, sizeof again, "%lld", *ret);
        return strcmp(text, again) == 0;
}

static bool model_int(struct model_key *key, long long *ret)
{
        *ret = 0;
        if (key == NULL)
                return true;
        return key->type == CRDT_STRING && text_int(text_get(&key->value), ret);
}

static void model_text_set(struct op *op, struct bytes text)
{
        struct model_key *key = model_find(&op->replica->model, op->name);
        uint64_t expiry = key == NULL ? 0 : key->expire_at_ms;
        model_string_set(&op->replica->model, op->name, text, expiry);
}

static void op_increment(struct op *op)
{
        char text[MODEL_NAME];
        long long before = 0;
        if (!model_int(op->key, &before) || op_is_part(op) || op_mixes(op, 3))
                return;
        int64_t amount = (int64_t)rng_below(&op->world->rng, 9) - 3;
        int len = snprintf(text, sizeof text, "%lld", before + (long long)amount);
        model_text_set(op, bytes_of(text, (size_t)len));
        CHECK(keyspace_local_increment(op->replica->keyspace, wall(op->world, op->replica),
                                       op->name, amount, before + amount, &op->change) == ERR_NONE);
        if (op->change.rewrite)
                model_text_set(op, op->change.text);
        /* Integers never need it: what INCR made natively is what the sum says. */
        DEMAND(op->world, !op->change.rewrite || op->key != NULL || evicts(op->world, op->replica));
        if (bytes_equal(op->name.key, BYTES("counter")))
                sum_note(op->world, SUM_COUNTER, op->change.stamp, amount);
}

static void op_increment_float(struct op *op)
{
        static const double amounts[] = {0.1, 0.25, -1.5, 3};
        if ((op->key != NULL && op->key->type != CRDT_STRING) || op_is_part(op) || op_mixes(op, 3))
                return;
        struct bytes before = op->key == NULL ? BYTES("") : text_get(&op->key->value);
        double amount = amounts[rng_below(&op->world->rng, COUNT_OF(amounts))];
        enum err err =
                keyspace_local_increment_float(op->replica->keyspace, wall(op->world, op->replica),
                                               op->name, amount, before, &op->change);
        if (err == ERR_INVALID) {
                op->change.nothing = true;
                return;
        }
        CHECK(err == ERR_NONE);
        if (op->change.whole)
                return;
        DEMAND(op->world, op->change.rewrite);
        model_text_set(op, op->change.text);
}

static void op_delete(struct op *op)
{
        if (op->key == NULL)
                return;
        model_drop(op->key);
        CHECK(keyspace_local_delete(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                    &op->change) == ERR_NONE);
        DEMAND(op->world, !op->change.nothing || evicts(op->world, op->replica));
}

static void op_expire(struct op *op)
{
        if (op->key == NULL || (op->world->faults & FAULT_EXPIRY) == 0)
                return;
        op->key->expire_at_ms = expiry_random(op);
        CHECK(keyspace_local_expire(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                    op->key->expire_at_ms, &op->change) == ERR_NONE);
        DEMAND(op->world, !op->change.nothing || evicts(op->world, op->replica));
}

static struct bytes item_random(struct op *op)
{
        return bytes_of_str(item_names[rng_below(&op->world->rng, COUNT_OF(item_names))]);
}

static void op_hash_set(struct op *op)
{
        char rooms[3][MODEL_NAME];
        struct keyspace_pair pairs[3];
        if (op->key != NULL && op->key->type != CRDT_HASH)
                return;
        size_t count = rng_between(&op->world->rng, 1, 3);
        for (size_t i = 0; i < count; i++) {
                pairs[i] = (struct keyspace_pair){item_random(op),
                                                  value_random(op, rooms[i], MODEL_NAME)};
                model_hash_set(&op->replica->model, op->name, pairs[i].field, pairs[i].value);
        }
        CHECK(keyspace_local_hash_set(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                      pairs, count, &op->change) == ERR_NONE);
}

static void op_hash_increment(struct op *op)
{
        char text[MODEL_NAME];
        long long before = 0;
        struct bytes field = item_random(op);
        if ((op->key != NULL && op->key->type != CRDT_HASH) || op_mixes(op, KEY_TALLY))
                return;
        struct model_item *item = op->key == NULL ? NULL : model_item(op->key, field);
        if (item != NULL && !text_int(text_get(&item->value), &before))
                return;
        int64_t amount = (int64_t)rng_below(&op->world->rng, 9) - 3;
        int len = snprintf(text, sizeof text, "%lld", before + (long long)amount);
        model_hash_set(&op->replica->model, op->name, field, bytes_of(text, (size_t)len));
        CHECK(keyspace_local_hash_increment(op->replica->keyspace, wall(op->world, op->replica),
                                            op->name, field, amount, before + amount,
                                            &op->change) == ERR_NONE);
        /* Only a store that had lost its log's end shows another sum than is remembered. */
        bool rewrite = op->change.rewrite && !op->change.whole;
        DEMAND(op->world,
               !rewrite || (op->world->faults & FAULT_LOSE) != 0 || evicts(op->world, op->replica));
        if (rewrite)
                model_hash_set(&op->replica->model, op->name, field, op->change.text);
        if (op->name.key.ptr == (const uint8_t *)key_names[KEY_TALLY])
                sum_note(op->world, SUM_TALLY, op->change.stamp, amount);
}

static void op_hash_increment_float(struct op *op)
{
        struct bytes before = {0};
        struct bytes field = item_random(op);
        if ((op->key != NULL && op->key->type != CRDT_HASH) || op_mixes(op, KEY_TALLY))
                return;
        struct model_item *item = op->key == NULL ? NULL : model_item(op->key, field);
        if (item != NULL)
                before = text_get(&item->value);
        double amount = ((double)rng_below(&op->world->rng, 9) - 3) / 4;
        enum err err = keyspace_local_hash_increment_float(op->replica->keyspace,
                                                           wall(op->world, op->replica), op->name,
                                                           field, amount, before, &op->change);
        if (err == ERR_INVALID)
                return;
        CHECK(err == ERR_NONE);
        if (op->change.whole)
                return;
        DEMAND(op->world, op->change.rewrite);
        model_hash_set(&op->replica->model, op->name, field, op->change.text);
}

static void op_item_remove(struct op *op, enum crdt_type type)
{
        struct bytes item = item_random(op);
        if (op->key == NULL || op->key->type != type || model_item(op->key, item) == NULL)
                return;
        model_item_drop(op->key, item);
        enum err err = type == CRDT_HASH
                               ? keyspace_local_hash_delete(op->replica->keyspace,
                                                            wall(op->world, op->replica), op->name,
                                                            &item, 1, &op->change)
                               : keyspace_local_set_remove(op->replica->keyspace,
                                                           wall(op->world, op->replica), op->name,
                                                           &item, 1, &op->change);
        CHECK(err == ERR_NONE);
}

static void op_hash_delete(struct op *op)
{
        op_item_remove(op, CRDT_HASH);
}

static void op_set_remove(struct op *op)
{
        op_item_remove(op, CRDT_SET);
}

static void op_set_add(struct op *op)
{
        struct bytes members[2] = {item_random(op), item_random(op)};
        if (op->key != NULL && op->key->type != CRDT_SET)
                return;
        size_t count = rng_between(&op->world->rng, 1, 2);
        for (size_t i = 0; i < count; i++)
                model_set_add(&op->replica->model, op->name, members[i]);
        CHECK(keyspace_local_set_add(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                     members, count, &op->change) == ERR_NONE);
}

/* A list is kept short, so that neighbours meet often. */
static void op_push(struct op *op)
{
        char rooms[4][MODEL_NAME];
        struct bytes values[4];
        uint64_t length = op->key == NULL ? 0 : op->key->length;
        if ((op->key != NULL && op->key->type != CRDT_LIST) || length > 10)
                return;
        size_t count = rng_between(&op->world->rng, 1, 4);
        bool head = rng_chance(&op->world->rng, 500);
        for (size_t i = 0; i < count; i++) {
                int len = snprintf(rooms[i], MODEL_NAME, "e%u", ++op->world->elements);
                values[i] = bytes_of(rooms[i], (size_t)len);
                model_list_insert(&op->replica->model, op->name, head ? i : length + i, values[i]);
        }
        CHECK(keyspace_local_list_push(op->replica->keyspace, wall(op->world, op->replica),
                                       op->name, head, values, count, &op->change) == ERR_NONE);
}

static void op_list_insert(struct op *op)
{
        char room[MODEL_NAME];
        if (op->key == NULL || op->key->type != CRDT_LIST || op->key->length < 2 ||
            op->key->length > 12 || evicts(op->world, op->replica))
                return;
        uint64_t index = rng_between(&op->world->rng, 1, op->key->length - 1);
        int len = snprintf(room, sizeof room, "i%u", ++op->world->elements);
        struct bytes value = bytes_of(room, (size_t)len);
        model_list_insert(&op->replica->model, op->name, index, value);
        CHECK(keyspace_local_list_insert(op->replica->keyspace, wall(op->world, op->replica),
                                         op->name, index, value, &op->change) == ERR_NONE);
}

static void op_list_remove(struct op *op)
{
        struct keyspace_range ranges[2];
        if (op->key == NULL || op->key->type != CRDT_LIST)
                return;
        uint64_t length = op->key->length;
        ranges[0].index = rng_below(&op->world->rng, length);
        ranges[0].count = rng_between(&op->world->rng, 1, 2);
        ranges[1].index = ranges[0].index + ranges[0].count + rng_below(&op->world->rng, 3);
        ranges[1].count = rng_below(&op->world->rng, 3);
        for (size_t i = 2; i > 0; i--) {
                uint64_t index = ranges[i - 1].index < length ? ranges[i - 1].index : length;
                uint64_t count =
                        ranges[i - 1].count < length - index ? ranges[i - 1].count : length - index;
                if (count > 0)
                        model_list_remove(&op->replica->model, op->name, index, count);
        }
        CHECK(keyspace_local_list_remove(op->replica->keyspace, wall(op->world, op->replica),
                                         op->name, ranges, 2, &op->change) == ERR_NONE);
        DEMAND(op->world,
               !op->change.nothing || op->change.whole || evicts(op->world, op->replica));
}

static void op_list_set(struct op *op)
{
        char room[MODEL_NAME];
        if (op->key == NULL || op->key->type != CRDT_LIST || evicts(op->world, op->replica))
                return;
        uint64_t index = rng_below(&op->world->rng, op->key->length);
        int len = snprintf(room, sizeof room, "s%u", ++op->world->elements);
        struct bytes value = bytes_of(room, (size_t)len);
        model_list_set(&op->replica->model, op->name, index, value);
        CHECK(keyspace_local_list_set(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                      index, value, &op->change) == ERR_NONE);
}

/* What a region adds to a HyperLogLog before its first state has come may meet a delete that some
 * have forgotten and others not. */
static bool op_comes_early(const struct op *op)
{
        return (op->world->faults & FAULT_JOIN) != 0 && !op->replica->told &&
               op->replica == &op->world->replicas[op->world->count - 1];
}

static void op_hll_add(struct op *op)
{
        struct bytes elements[2] = {item_random(op), item_random(op)};
        struct keyspace *keyspace = op->replica->keyspace;
        uint64_t now_ms = wall(op->world, op->replica);
        if ((op->key != NULL && op->key->type != CRDT_HLL) || op_comes_early(op))
                return;
        size_t count = rng_between(&op->world->rng, op->key == NULL ? 0 : 1, 2);
        model_hll_merge(&op->replica->model, op->name, (struct bytes){0});
        for (size_t i = 0; i < count; i++)
                model_hll_add(&op->replica->model, op->name, elements[i]);
        struct bytes registers;
        CHECK(model_hll_get(&op->replica->model, op->name, &registers));
        enum err err = rng_chance(&op->world->rng, 300)
                               ? keyspace_local_hll_registers(keyspace, now_ms, op->name, registers,
                                                              &op->change)
                               : keyspace_local_hll_add(keyspace, now_ms, op->name, elements, count,
                                                        &op->change);
        CHECK(err == ERR_NONE);
}

/* Ids of a region's own, and now and then one that another region may take too. */
static void op_stream_add(struct op *op)
{
        char room[MODEL_NAME];
        if ((op->key != NULL && op->key->type != CRDT_STREAM) ||
            (op->key != NULL && op->key->length > 12))
                return;
        struct crdt_stream_id last = {0};
        if (op->key != NULL && op->key->length > 0)
                last = op->key->ids[op->key->length - 1];
        struct crdt_stream_id id = {.ms = last.ms + 1};
        id.seq = rng_chance(&op->world->rng, 300) ? 0 : op->replica->keyspace->config.origin;
        int len = snprintf(room, sizeof room, "x%u", ++op->world->elements);
        struct bytes strings[] = {BYTES("v"), bytes_of(room, (size_t)len)};
        struct keyspace_entry entry = {id, strings, 2};
        struct buffer fields;
        buffer_init(&fields, &op->world->heap);
        buffer_varint(&fields, 2);
        buffer_slice(&fields, strings[0]);
        buffer_slice(&fields, strings[1]);
        model_stream_add(&op->replica->model, op->name, id, buffer_view(&fields));
        buffer_fini(&fields);
        CHECK(keyspace_local_stream_add(op->replica->keyspace, wall(op->world, op->replica),
                                        op->name, id, &entry, 1, &op->change) == ERR_NONE);
}

static void op_stream_make(struct op *op)
{
        if (op->key != NULL)
                return;
        model_stream_make(&op->replica->model, op->name);
        CHECK(keyspace_local_stream_add(op->replica->keyspace, wall(op->world, op->replica),
                                        op->name, (struct crdt_stream_id){0}, NULL, 0,
                                        &op->change) == ERR_NONE);
}

/* One entry, or all up to one. */
static void op_stream_remove(struct op *op)
{
        if (op->key == NULL || op->key->type != CRDT_STREAM || op->key->length == 0)
                return;
        size_t at = (size_t)rng_below(&op->world->rng, op->key->length);
        struct keyspace_ids range = {op->key->ids[at], op->key->ids[at]};
        if (rng_chance(&op->world->rng, 400))
                range.low = (struct crdt_stream_id){0};
        for (size_t i = at + 1; i > 0; i--) {
                if (i == at + 1 || range.low.ms == 0)
                        model_stream_remove(&op->replica->model, op->name, op->key->ids[i - 1]);
        }
        CHECK(keyspace_local_stream_remove(op->replica->keyspace, wall(op->world, op->replica),
                                           op->name, &range, 1, &op->change) == ERR_NONE);
        DEMAND(op->world,
               !op->change.nothing || op->change.whole || evicts(op->world, op->replica));
}

#include "converge_zset.h"

/* The type that each key has where types do not mix; "counter" is only ever added to. */
static void (*const ops_string[])(struct op *op) = {
        op_set, op_increment, op_increment_float, op_delete, op_expire, op_sibling, op_sibling};
static void (*const ops_hash[])(struct op *op) = {
        op_hash_set,       op_hash_set,       op_hash_delete,
        op_hash_delete,    op_delete,         op_hash_increment,
        op_hash_increment, op_hash_increment, op_hash_increment_float,
        op_expire};
static void (*const ops_set[])(struct op *op) = {op_set_add, op_set_add, op_set_remove, op_delete,
                                                 op_expire};
static void (*const ops_list[])(struct op *op) = {op_push,        op_push,        op_list_insert,
                                                  op_list_insert, op_list_remove, op_list_remove,
                                                  op_list_set,    op_delete,      op_expire};
static void (*const ops_hll[])(struct op *op) = {op_hll_add, op_hll_add, op_hll_add, op_delete,
                                                 op_expire};
static void (*const ops_stream[])(struct op *op) = {
        op_stream_add,    op_stream_add,    op_stream_add, op_stream_make,
        op_stream_remove, op_stream_remove, op_delete,     op_expire};
static void (*const ops_mixed[])(struct op *op) = {
        op_stream_add,
        op_stream_add,
        op_stream_remove,
        op_stream_make,
        op_set,
        op_increment,
        op_increment_float,
        op_delete,
        op_expire,
        op_hash_set,
        op_hash_set,
        op_hash_delete,
        op_set_add,
        op_set_add,
        op_set_remove,
        op_opaque,
        op_push,
        op_push,
        op_list_insert,
        op_list_remove,
        op_list_set,
        op_hll_add,
        op_hll_add,
        op_sibling,
        op_hash_increment,
        op_hash_increment,
        op_hash_increment_float,
        op_zset_add,
        op_zset_add,
        op_zset_increment,
        op_zset_remove,
};

static void act_by_type(struct op *op, size_t which)
{
        if (which == 3)
                op_increment(op);
        else if (which == KEY_TALLY)
                op_hash_increment(op);
        else if (which == KEY_SCORE)
                op_zset_increment(op);
        else if ((op->world->faults & FAULT_TYPES) != 0)
                ops_mixed[rng_below(&op->world->rng, COUNT_OF(ops_mixed))](op);
        else if (which == 0)
                ops_hash[rng_below(&op->world->rng, COUNT_OF(ops_hash))](op);
        else if (which == KEY_ZSET)
                ops_zset[rng_below(&op->world->rng, COUNT_OF(ops_zset))](op);
        else if (which == 7)
                ops_stream[rng_below(&op->world->rng, COUNT_OF(ops_stream))](op);
        else if (which == 5)
                ops_list[rng_below(&op->world->rng, COUNT_OF(ops_list))](op);
        else if (which == 6)
                ops_hll[rng_below(&op->world->rng, COUNT_OF(ops_hll))](op);
        else if (which == 1)
                ops_set[rng_below(&op->world->rng, COUNT_OF(ops_set))](op);
        else
                ops_string[rng_below(&op->world->rng, COUNT_OF(ops_string))](op);
}

static void flushed(void *context, const struct keyspace_change *change)
{
        struct world *world = context;
        DEMAND(world, !change->nothing);
}

/* FLUSHDB of the database that does not hold the counter. */
static void flush(struct world *world, struct replica *replica)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                if (replica->model.keys[i].type != CRDT_NONE && replica->model.keys[i].db == 1)
                        model_drop(&replica->model.keys[i]);
        }
        CHECK(keyspace_local_flush(replica->keyspace, wall(world, replica), 1,
                                   rng_chance(&world->rng, 200), flushed, world) == ERR_NONE);
        agree(world, replica);
}

#endif
