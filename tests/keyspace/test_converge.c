/* Random histories of several replicas: every kind of change, every kind of delivery. At the
 * end all must show the same. One seed, one history; a failure prints the seed, and
 * `test_converge SEED` runs that one alone. Each profile leaves some faults out, so that what
 * is left is looked at closely. */
#include "../../src/keyspace/keyspace_priv.h"
#include "base/rng.h"
#include "model.h"

#include <stdlib.h>

enum {
        KEY_TALLY = 8, /* in key_names */
        KEY_SCORE = 9,
        KEY_ZSET = 10,
        REPLICAS_MAX = 4,
        STEPS = 160,
        STEPS_OFTEN = 900,
        DRIFT_MS = 5000,
        STASH = 8,
};

enum fault {
        FAULT_TRANSFER = 1,   /* state transfers in the middle */
        FAULT_RESTART = 2,    /* save and load */
        FAULT_COLLECT = 4,    /* tombstones are collected */
        FAULT_SMALL_RING = 8, /* gaps */
        FAULT_EXPIRY = 16,
        FAULT_CRASH = 32, /* back to an older save: the end of the own stream is lost */
        FAULT_TYPES = 64, /* several types at one key */
        FAULT_FLUSH = 128,
        FAULT_OFTEN = 512,   /* so many crashes that there are more holes than can be kept */
        FAULT_REMOVE = 1024, /* one replica is removed, and noticed so by each at another time */
        FAULT_LOSE = 256, /* the same, the wall clock goes back too, and others read on meanwhile */
};

struct replica {
        struct keyspace *keyspace;
        struct model model;
        struct crdt_native native;
        int64_t skew_ms;
        struct buffer saved; /* for a crash */
        struct model saved_model;
        uint64_t incarnation;
        uint8_t reserved[64]; /* the last reservation of the clock: what a log would hold */
        size_t reserved_len;
        bool alone; /* it knows that the last replica is no member any more */
};

/* A batch that was sent and comes late, or twice. */
struct batch {
        unsigned from;
        unsigned to;
        uint64_t after;
        uint64_t last;
        struct bytes data;
};

struct world {
        struct heap heap;
        struct rng rng;
        uint64_t seed;
        unsigned faults;
        unsigned count;
        uint64_t now_ms;
        struct replica replicas[REPLICAS_MAX];
        struct batch stash[STASH];
        uint64_t collected;
        unsigned elements; /* ever made, so that each is told from the others */
        bool settling;     /* only delivery from here on */
        int64_t counted;   /* what was added to the counter that nothing else touches */
        int64_t tallied;   /* the same, to the fields of a hash */
        int64_t scored;    /* the same, to the members of a sorted set */
};

static const char *const key_names[] = {"a",   "b",      "c",     "counter", "f",   "list",
                                        "hll", "stream", "tally", "score",   "zset"};
static const char *const item_names[] = {"x", "y", "z", "w"};

#define DEMAND(world, belief)                                                                      \
        do {                                                                                       \
                if (!(belief)) {                                                                   \
                        printf("not ok - seed %llu faults %u line %d: %s\n",                       \
                               (unsigned long long)(world)->seed, (world)->faults, __LINE__,       \
                               #belief);                                                           \
                        exit(1);                                                                   \
                }                                                                                  \
        } while (0)

static uint64_t wall(struct world *world, const struct replica *replica)
{
        return (uint64_t)((int64_t)world->now_ms + replica->skew_ms);
}

static struct keyspace *keyspace_made(struct world *world, unsigned index)
{
        struct keyspace_config config = {
                .origin = (region_id)(index + 1),
                .ring_bytes = (world->faults & FAULT_SMALL_RING) != 0 ? 4096 : 1 << 16,
                .drift_max_ms = DRIFT_MS,
                .incarnation = world->replicas[index].incarnation,
                .hash_key = {world->seed, index},
        };
        struct keyspace *keyspace = keyspace_new(&world->heap, &config);
        CHECK(keyspace != NULL);
        if ((world->faults & FAULT_COLLECT) != 0) {
                region_id members[REPLICAS_MAX];
                for (unsigned i = 0; i < world->count; i++)
                        members[i] = (region_id)(i + 1);
                CHECK(keyspace_members(keyspace, members, world->count) == ERR_NONE);
        }
        return keyspace;
}

/* The same of scores, bit for bit. */
static void agree_scores(struct world *world, struct replica *replica, struct crdt_name name,
                         const struct model_key *key)
{
        uint64_t length = keyspace_zset_length(replica->keyspace, name);
        bool zset = key != NULL && key->type == CRDT_ZSET;
        DEMAND(world, length == (zset ? model_item_count(key) : 0));
        for (size_t i = 0; i < MODEL_ITEMS && zset; i++) {
                double known = 0;
                const struct model_item *item = &key->items[i];
                if (!item->used)
                        continue;
                DEMAND(world, keyspace_zset_look(replica->keyspace, name, text_get(&item->name), 0,
                                                 &known) != CRDT_MEMBER_ABSENT);
                DEMAND(world, memcmp(&known, item->value.data, sizeof known) == 0);
        }
}

/* What is visible natively is what the metadata says. */
static void agree(struct world *world, struct replica *replica)
{
        for (unsigned db = 0; db < 2; db++) {
                for (size_t i = 0; i < COUNT_OF(key_names); i++) {
                        struct crdt_name name = {db, bytes_of_str(key_names[i])};
                        struct keyspace_key told;
                        struct model_key *key = model_find(&replica->model, name);
                        keyspace_find(replica->keyspace, name, &told);
                        DEMAND(world, (told.type == CRDT_SIBLINGS ? CRDT_STRING : told.type) ==
                                              (key == NULL ? CRDT_NONE : key->type));
                        struct crdt_stream_id last;
                        uint64_t length = key == NULL ? 0 : key->length;
                        DEMAND(world, keyspace_list_length(replica->keyspace, name) +
                                                      keyspace_stream_length(replica->keyspace,
                                                                             name, &last) ==
                                              length);
                        DEMAND(world, key == NULL || told.expire_at_ms == key->expire_at_ms);
                        agree_scores(world, replica, name, key);
                }
        }
}

static void strike_key(struct world *world, struct replica *replica, struct model_key *key)
{
        struct keyspace_change change;
        struct model_text text = key->name;
        struct crdt_name name = {key->db, text_get(&text)};
        model_drop(key);
        CHECK(keyspace_local_expired(replica->keyspace, wall(world, replica), name, &change) ==
              ERR_NONE);
        DEMAND(world, !change.nothing);
}

static bool is_due(struct world *world, const struct replica *replica, const struct model_key *key)
{
        return key->type != CRDT_NONE && key->expire_at_ms != 0 &&
               key->expire_at_ms <= wall(world, replica);
}

/* The store's own expiry, by its own clock. */
static void strike(struct world *world, struct replica *replica)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                struct model_key *key = &replica->model.keys[i];
                if (is_due(world, replica, key) && rng_chance(&world->rng, 500))
                        strike_key(world, replica, key);
        }
}

/* A store strikes a key that is due before it is changed: HyperLogLogs rely on it. */
static void strike_before_change(struct world *world, struct replica *replica)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                struct model_key *key = &replica->model.keys[i];
                if (key->type == CRDT_HLL && is_due(world, replica, key))
                        strike_key(world, replica, key);
        }
}

/* ---- clients */

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

/* A part of what is known as a whole is told by the store as a whole: not here. */
static bool op_is_part(const struct op *op)
{
        struct keyspace_key known;
        return keyspace_find(op->replica->keyspace, op->name, &known) &&
               known.type == CRDT_SIBLINGS;
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
        if (!model_int(op->key, &before) || op_is_part(op))
                return;
        int64_t amount = (int64_t)rng_below(&op->world->rng, 9) - 3;
        int len = snprintf(text, sizeof text, "%lld", before + (long long)amount);
        model_text_set(op, bytes_of(text, (size_t)len));
        CHECK(keyspace_local_increment(op->replica->keyspace, wall(op->world, op->replica),
                                       op->name, amount, before + amount, &op->change) == ERR_NONE);
        if (op->change.rewrite)
                model_text_set(op, op->change.text);
        /* Integers never need it: what INCR made natively is what the sum says. */
        DEMAND(op->world, !op->change.rewrite || op->key != NULL);
        if (bytes_equal(op->name.key, BYTES("counter")))
                op->world->counted += amount;
}

static void op_increment_float(struct op *op)
{
        static const double amounts[] = {0.1, 0.25, -1.5, 3};
        if ((op->key != NULL && op->key->type != CRDT_STRING) || op_is_part(op))
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
        DEMAND(op->world, !op->change.nothing);
}

static void op_expire(struct op *op)
{
        if (op->key == NULL || (op->world->faults & FAULT_EXPIRY) == 0)
                return;
        op->key->expire_at_ms = expiry_random(op);
        CHECK(keyspace_local_expire(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                    op->key->expire_at_ms, &op->change) == ERR_NONE);
        DEMAND(op->world, !op->change.nothing);
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
        if (op->key != NULL && op->key->type != CRDT_HASH)
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
        DEMAND(op->world, !rewrite || (op->world->faults & FAULT_LOSE) != 0);
        if (rewrite)
                model_hash_set(&op->replica->model, op->name, field, op->change.text);
        if (op->name.key.ptr == (const uint8_t *)key_names[KEY_TALLY])
                op->world->tallied += amount;
}

static void op_hash_increment_float(struct op *op)
{
        struct bytes before = {0};
        struct bytes field = item_random(op);
        if (op->key != NULL && op->key->type != CRDT_HASH)
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
            op->key->length > 12)
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
        DEMAND(op->world, !op->change.nothing);
}

static void op_list_set(struct op *op)
{
        char room[MODEL_NAME];
        if (op->key == NULL || op->key->type != CRDT_LIST)
                return;
        uint64_t index = rng_below(&op->world->rng, op->key->length);
        int len = snprintf(room, sizeof room, "s%u", ++op->world->elements);
        struct bytes value = bytes_of(room, (size_t)len);
        model_list_set(&op->replica->model, op->name, index, value);
        CHECK(keyspace_local_list_set(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                      index, value, &op->change) == ERR_NONE);
}

static void op_hll_add(struct op *op)
{
        struct bytes elements[2] = {item_random(op), item_random(op)};
        struct keyspace *keyspace = op->replica->keyspace;
        uint64_t now_ms = wall(op->world, op->replica);
        if (op->key != NULL && op->key->type != CRDT_HLL)
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
        DEMAND(op->world, !op->change.nothing);
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

static void act(struct world *world, struct replica *replica)
{
        size_t which = rng_below(&world->rng, COUNT_OF(key_names));
        struct op op = {.world = world, .replica = replica};
        strike_before_change(world, replica);
        op.name =
                (struct crdt_name){(uint32_t)(which == 3 || which == KEY_TALLY || which == KEY_SCORE
                                                      ? 0
                                                      : rng_below(&world->rng, 2)),
                                   bytes_of_str(key_names[which])};
        op.key = model_find(&replica->model, op.name);
        if (which == 3)
                op_increment(&op);
        else if (which == KEY_TALLY)
                op_hash_increment(&op);
        else if (which == KEY_SCORE)
                op_zset_increment(&op);
        else if ((world->faults & FAULT_TYPES) != 0)
                ops_mixed[rng_below(&world->rng, COUNT_OF(ops_mixed))](&op);
        else if (which == 0)
                ops_hash[rng_below(&world->rng, COUNT_OF(ops_hash))](&op);
        else if (which == KEY_ZSET)
                ops_zset[rng_below(&world->rng, COUNT_OF(ops_zset))](&op);
        else if (which == 7)
                ops_stream[rng_below(&world->rng, COUNT_OF(ops_stream))](&op);
        else if (which == 5)
                ops_list[rng_below(&world->rng, COUNT_OF(ops_list))](&op);
        else if (which == 6)
                ops_hll[rng_below(&world->rng, COUNT_OF(ops_hll))](&op);
        else if (which == 1)
                ops_set[rng_below(&world->rng, COUNT_OF(ops_set))](&op);
        else
                ops_string[rng_below(&world->rng, COUNT_OF(ops_string))](&op);
        agree(world, replica);
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

/* ---- delivery */

static void transfer(struct world *world, unsigned from, unsigned to, bool busy);

/* The last replica is removed, and one of the two knows. */
static bool apart(const struct world *world, unsigned from, unsigned to)
{
        unsigned last = world->count - 1;
        return (from == last && world->replicas[to].alone) ||
               (to == last && world->replicas[from].alone);
}

static void hand_over(struct world *world, const struct batch *batch)
{
        struct replica *to = &world->replicas[batch->to];
        struct keyspace_result result;
        strike_before_change(world, to);
        enum err err = keyspace_apply(to->keyspace, &to->native, wall(world, to),
                                      (region_id)(batch->from + 1), batch->after, batch->last,
                                      batch->data, &result);
        DEMAND(world, err == ERR_NONE);
        agree(world, to);
}

static void batch_free(struct world *world, struct batch *batch)
{
        heap_free_bytes(&world->heap, batch->data);
        *batch = (struct batch){0};
}

/* Fetches a batch and hands it over now, later, or both. */
static void ship(struct world *world, unsigned from, unsigned to)
{
        struct keyspace_batch read;
        struct keyspace *source = world->replicas[from].keyspace;
        if (apart(world, from, to))
                return;
        const struct vector *positions = keyspace_positions(world->replicas[to].keyspace);
        uint64_t after = vector_get(positions, (region_id)(from + 1));
        size_t bytes_max = rng_between(&world->rng, 1, 400);
        CHECK(keyspace_tail(source, wall(world, &world->replicas[from]), after, bytes_max, &read) ==
              ERR_NONE);
        if (read.gap) {
                transfer(world, from, to, !world->settling);
                return;
        }
        struct buffer joined;
        buffer_init(&joined, &world->heap);
        buffer_bytes(&joined, read.parts[0]);
        buffer_bytes(&joined, read.parts[1]);
        struct batch batch = {from, to, after, read.last, {0}};
        CHECK(heap_copy(&world->heap, buffer_view(&joined), &batch.data));
        buffer_fini(&joined);
        if (rng_chance(&world->rng, 800))
                hand_over(world, &batch);
        struct batch *slot = &world->stash[rng_below(&world->rng, STASH)];
        batch_free(world, slot);
        *slot = batch;
}

static void ship_late(struct world *world)
{
        struct batch *batch = &world->stash[rng_below(&world->rng, STASH)];
        if (batch->from != batch->to && !apart(world, batch->from, batch->to))
                hand_over(world, batch);
}

static void transfer(struct world *world, unsigned from, unsigned to, bool busy)
{
        struct replica *source = &world->replicas[from];
        struct replica *target = &world->replicas[to];
        struct keyspace_result result;
        uint64_t cursor = 0;
        if (apart(world, from, to))
                return;
        do {
                struct buffer part;
                buffer_init(&part, &world->heap);
                CHECK(keyspace_scan(source->keyspace, &source->native, &cursor,
                                    busy ? rng_between(&world->rng, 1, 300) : 1 << 20,
                                    &part) == ERR_NONE);
                if (busy && rng_chance(&world->rng, 400)) {
                        act(world, source);
                        act(world, target);
                }
                strike_before_change(world, target);
                enum err err =
                        keyspace_merge_state(target->keyspace, &target->native, wall(world, target),
                                             buffer_view(&part), &result);
                DEMAND(world, err == ERR_NONE);
                agree(world, target);
                buffer_fini(&part);
        } while (cursor != 0);
        if (busy && rng_chance(&world->rng, 100))
                return; /* broken off before its end */
        DEMAND(world, keyspace_adopt(target->keyspace, &target->native, NULL, &result) == ERR_NONE);
        agree(world, target);
}

/* ---- faults */

static void removal_heard(struct world *world, struct replica *replica);

static void load(struct world *world, unsigned index, struct bytes saved)
{
        struct replica *replica = &world->replicas[index];
        keyspace_free(replica->keyspace);
        replica->incarnation++;
        replica->keyspace = keyspace_made(world, index);
        DEMAND(world, keyspace_load(replica->keyspace, saved) == ERR_NONE);
        if (replica->alone)
                removal_heard(world, replica);
        struct keyspace_change change;
        struct keyspace_result result;
        if (replica->reserved_len > 0)
                DEMAND(world, keyspace_replay(replica->keyspace, &replica->native,
                                              bytes_of(replica->reserved, replica->reserved_len),
                                              (struct bytes){0}, &result) == ERR_NONE);
        DEMAND(world, keyspace_begin(replica->keyspace, wall(world, replica), &change) == ERR_NONE);
        agree(world, replica);
}

/* One that knows of the removal waits for the others only. */
static void removal_heard(struct world *world, struct replica *replica)
{
        region_id members[REPLICAS_MAX];
        for (unsigned i = 0; i + 1 < world->count; i++)
                members[i] = (region_id)(i + 1);
        replica->alone = true;
        CHECK(keyspace_members(replica->keyspace, members, world->count - 1) == ERR_NONE);
}

static void removal_goes_on(struct world *world)
{
        unsigned which = (unsigned)rng_below(&world->rng, world->count - 1);
        if (world->count > 2 && rng_chance(&world->rng, 30))
                removal_heard(world, &world->replicas[which]);
}

/* What was lost is nowhere, or has come back. */
static void close_holes(struct world *world, struct replica *replica)
{
        struct crdt_seen seen = *keyspace_seen(replica->keyspace);
        struct keyspace_change change;
        for (unsigned i = 0; i < seen.hole_count; i++) {
                const struct crdt_hole *hole = &seen.holes[i];
                if (hole->origin == replica->keyspace->config.origin)
                        DEMAND(world, keyspace_close(replica->keyspace, wall(world, replica),
                                                     hole->low, hole->high, &change) == ERR_NONE);
        }
}

static void restart(struct world *world, unsigned index)
{
        struct replica *replica = &world->replicas[index];
        struct buffer saved;
        uint64_t digest = keyspace_digest(replica->keyspace);
        buffer_init(&saved, &world->heap);
        CHECK(keyspace_save(replica->keyspace, rng_chance(&world->rng, 700), &saved) == ERR_NONE);
        load(world, index, buffer_view(&saved));
        DEMAND(world, keyspace_digest(replica->keyspace) == digest);
        buffer_fini(&saved);
        if (rng_chance(&world->rng, 500) && (world->faults & FAULT_LOSE) == 0)
                close_holes(world, replica);
}

static void remember(struct world *world, unsigned index)
{
        struct replica *replica = &world->replicas[index];
        buffer_reset(&replica->saved);
        CHECK(keyspace_save(replica->keyspace, true, &replica->saved) == ERR_NONE);
        replica->saved_model = replica->model;
}

/* Back to the older save, then all that the others have of it. */
static void crash(struct world *world, unsigned index)
{
        struct replica *replica = &world->replicas[index];
        if (replica->saved.len == 0)
                return;
        replica->model = replica->saved_model;
        for (size_t i = 0; i < STASH; i++)
                batch_free(world, &world->stash[i]);
        load(world, index, buffer_view(&replica->saved));
        buffer_reset(&replica->saved);
        if ((world->faults & FAULT_LOSE) != 0) {
                if ((world->faults & FAULT_OFTEN) == 0)
                        replica->skew_ms -= (int64_t)rng_below(&world->rng, 1500);
                return;
        }
        for (unsigned i = 0; i < world->count; i++) {
                if (i != index)
                        transfer(world, i, index, false);
        }
        close_holes(world, &world->replicas[index]);
        for (unsigned i = 0; i < world->count; i++) {
                if (i != index)
                        transfer(world, index, i, false);
        }
}

static void beat(struct world *world, struct replica *replica)
{
        struct keyspace_change change;
        uint64_t position = keyspace_heartbeat(replica->keyspace, wall(world, replica), &change);
        DEMAND(world, position == vector_get(keyspace_positions(replica->keyspace),
                                             replica->keyspace->config.origin));
        if ((world->faults & FAULT_COLLECT) != 0)
                world->collected += keyspace_collect(replica->keyspace, 16);
}

static void beat_all(struct world *world)
{
        for (unsigned i = 0; i < world->count; i++) {
                beat(world, &world->replicas[i]);
                if ((world->faults & FAULT_COLLECT) != 0)
                        ship(world, i, (i + 1) % world->count);
        }
}

static void reserve_all(struct world *world)
{
        for (unsigned i = 0; i < world->count; i++) {
                struct replica *replica = &world->replicas[i];
                struct keyspace_change change;
                DEMAND(world, keyspace_reserve(replica->keyspace, wall(world, replica), &change) ==
                                      ERR_NONE);
                if (change.nothing)
                        continue;
                CHECK(change.delta.len <= sizeof replica->reserved);
                memcpy(replica->reserved, change.delta.ptr, change.delta.len);
                replica->reserved_len = change.delta.len;
        }
}

/* Everybody gets what anybody has; then the holes close. */
static void refill(struct world *world)
{
        for (unsigned round = 0; round < 2; round++)
                for (unsigned from = 0; from < world->count; from++)
                        for (unsigned to = 0; to < world->count; to++)
                                if (from != to)
                                        transfer(world, from, to, false);
        for (unsigned i = 0; i < world->count; i++)
                close_holes(world, &world->replicas[i]);
        for (unsigned from = 0; from < world->count; from++)
                for (unsigned to = 0; to < world->count; to++)
                        if (from != to)
                                transfer(world, from, to, false);
}

static void step(struct world *world)
{
        reserve_all(world);
        if ((world->faults & FAULT_REMOVE) != 0)
                removal_goes_on(world);
        unsigned a = (unsigned)rng_below(&world->rng, world->count);
        unsigned b = (a + 1 + (unsigned)rng_below(&world->rng, world->count - 1)) % world->count;
        struct replica *replica = &world->replicas[a];
        uint64_t dice = rng_below(&world->rng, 100);
        /* Tombstones go after seconds, and each life begins ahead; all else is milliseconds. */
        bool slow = (world->faults & (FAULT_COLLECT | FAULT_OFTEN)) != 0;
        world->now_ms += rng_below(&world->rng, slow ? 600 : 20);
        if ((world->faults & FAULT_OFTEN) != 0 && rng_chance(&world->rng, 300)) {
                remember(world, a);
                ship(world, b, a);
                ship(world, a, b);
                crash(world, a);
        } else if (dice < 45)
                act(world, replica);
        else if (dice < 80)
                ship(world, a, b);
        else if (dice < 88)
                ship_late(world);
        else if (dice < 92)
                beat_all(world);
        else if (dice < 95)
                strike(world, replica);
        else if (dice < 97 && rng_chance(&world->rng, 500) && (world->faults & FAULT_FLUSH) != 0)
                flush(world, replica);
        else if (dice < 96 && (world->faults & FAULT_TRANSFER) != 0)
                transfer(world, a, b, true);
        else if (dice < 98 && (world->faults & FAULT_RESTART) != 0)
                restart(world, a);
        else if (dice == 98 && (world->faults & FAULT_CRASH) != 0)
                remember(world, a);
        else if (dice == 99 && (world->faults & FAULT_CRASH) != 0)
                crash(world, a);
}

/* ---- the end */

/* Those that count at the end. */
static unsigned left(const struct world *world)
{
        bool removed = (world->faults & FAULT_REMOVE) != 0 && world->count > 2;
        return removed ? world->count - 1 : world->count;
}

static bool all_shipped(struct world *world)
{
        struct vector sum = {0};
        bool done = true;
        for (unsigned from = 0; from < left(world); from++) {
                uint64_t position = vector_get(keyspace_positions(world->replicas[from].keyspace),
                                               (region_id)(from + 1));
                vector_advance(&sum, (region_id)(from + 1), position);
        }
        for (unsigned to = 0; to < left(world); to++)
                done = done &&
                       vector_includes(keyspace_positions(world->replicas[to].keyspace), &sum);
        return done;
}

static void beat_over(struct world *world, unsigned from, unsigned to)
{
        struct replica *source = &world->replicas[from];
        uint64_t position = vector_get(keyspace_positions(source->keyspace), (region_id)(from + 1));
        uint64_t after =
                vector_get(keyspace_positions(world->replicas[to].keyspace), (region_id)(from + 1));
        if (after >= keyspace_ring_last(source->keyspace) && after < position)
                hand_over(world, &(struct batch){from, to, after, position, {0}});
}

/* What each has of the removed one's stream goes round as state. */
static void exchange(struct world *world)
{
        for (unsigned from = 0; from < left(world); from++)
                for (unsigned to = 0; to < left(world); to++)
                        if (from != to)
                                transfer(world, from, to, false);
}

/* Those of a stream that ended stay. */
static bool has_holes(const struct world *world, const struct replica *replica)
{
        const struct crdt_seen *seen = keyspace_seen(replica->keyspace);
        for (unsigned i = 0; i < seen->hole_count; i++)
                if (seen->holes[i].origin <= left(world))
                        return true;
        return false;
}

static void settle(struct world *world)
{
        world->settling = true;
        for (unsigned i = 0; i < left(world) && left(world) < world->count; i++)
                removal_heard(world, &world->replicas[i]);
        if ((world->faults & FAULT_LOSE) != 0)
                refill(world);
        if (left(world) < world->count)
                exchange(world);
        for (unsigned round = 0; round < 400 && !all_shipped(world); round++) {
                for (unsigned from = 0; from < left(world); from++) {
                        for (unsigned to = 0; to < left(world); to++) {
                                if (from == to)
                                        continue;
                                ship(world, from, to);
                                beat_over(world, from, to);
                        }
                }
        }
        DEMAND(world, all_shipped(world));
        for (unsigned i = 0; i < left(world) && (world->faults & FAULT_LOSE) != 0; i++)
                DEMAND(world, !has_holes(world, &world->replicas[i]));
}

static uint64_t digest_all(struct keyspace *keyspace)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL; node = table_next(&keyspace->table, &walk)) {
                struct crdt room;
                struct entry *entry = entry_of(node);
                sum += crdt_digest(entry_open(keyspace, entry, &room), entry_name(entry), true);
                entry_close(keyspace, entry, &room);
        }
        return sum;
}

static void compare(struct world *world)
{
        struct replica *first = &world->replicas[0];
        bool same = true;
        for (unsigned i = 1; i < left(world); i++) {
                struct replica *other = &world->replicas[i];
                same = same && model_digest(&first->model) == model_digest(&other->model) &&
                       keyspace_digest(first->keyspace) == keyspace_digest(other->keyspace);
                if ((world->faults & ~(unsigned)(FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART)) == 0)
                        same = same && digest_all(first->keyspace) == digest_all(other->keyspace);
        }
        for (unsigned i = 0; !same && i < left(world); i++) {
                printf("# replica %u: content %016llx metadata %016llx\n", i + 1,
                       (unsigned long long)model_digest(&world->replicas[i].model),
                       (unsigned long long)keyspace_digest(world->replicas[i].keyspace));
                model_print(&world->replicas[i].model);
        }
        DEMAND(world, same);
        if ((world->faults & (FAULT_CRASH | FAULT_REMOVE)) != 0)
                return;
        long long value = 0;
        struct model_key *key = model_find(&first->model, (struct crdt_name){0, BYTES("counter")});
        DEMAND(world, model_int(key, &value));
        DEMAND(world, value == world->counted);
        int64_t tallied = 0;
        key = model_find(&world->replicas[0].model,
                         (struct crdt_name){0, bytes_of_str(key_names[KEY_TALLY])});
        for (size_t i = 0; key != NULL && i < MODEL_ITEMS; i++) {
                if (key->items[i].used && text_int(text_get(&key->items[i].value), &value))
                        tallied += value;
        }
        DEMAND(world, tallied == world->tallied);
        check_scored(world);
}

static uint64_t collected; /* in all histories of a profile */

static void history(uint64_t seed, unsigned faults)
{
        static struct world world;
        world = (struct world){.seed = seed, .faults = faults, .now_ms = 1700000000000};
        heap_init(&world.heap, 0);
        rng_init(&world.rng, seed, faults);
        world.count = (unsigned)rng_between(&world.rng, 2, REPLICAS_MAX);
        for (unsigned i = 0; i < world.count; i++) {
                struct replica *replica = &world.replicas[i];
                replica->skew_ms = (int64_t)rng_below(&world.rng, 1000);
                replica->keyspace = keyspace_made(&world, i);
                model_init(&replica->model);
                replica->native = model_native(&replica->model);
                buffer_init(&replica->saved, &world.heap);
        }
        unsigned steps = (faults & FAULT_OFTEN) != 0 ? STEPS_OFTEN : STEPS;
        for (unsigned i = 0; i < steps; i++)
                step(&world);
        settle(&world);
        compare(&world);
        for (unsigned i = 0; i < STASH; i++)
                batch_free(&world, &world.stash[i]);
        for (unsigned i = 0; i < world.count; i++) {
                keyspace_free(world.replicas[i].keyspace);
                buffer_fini(&world.replicas[i].saved);
        }
        DEMAND(&world, world.heap.used_bytes == 0);
        collected += world.collected;
}

int main(int argc, char **argv)
{
        static const unsigned profiles[] = {
                0,
                FAULT_TYPES,
                FAULT_EXPIRY,
                FAULT_TYPES | FAULT_EXPIRY,
                FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART,
                FAULT_TRANSFER,
                FAULT_TRANSFER | FAULT_TYPES,
                FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_SMALL_RING,
                FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY,
                FAULT_COLLECT | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                        FAULT_SMALL_RING,
                FAULT_CRASH,
                FAULT_CRASH | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART,
                FAULT_CRASH | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                        FAULT_TRANSFER | FAULT_SMALL_RING,
                FAULT_FLUSH,
                FAULT_FLUSH | FAULT_TYPES | FAULT_EXPIRY,
                FAULT_FLUSH | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                        FAULT_SMALL_RING,
                FAULT_FLUSH | FAULT_COLLECT | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY |
                        FAULT_RESTART | FAULT_SMALL_RING,
                FAULT_FLUSH | FAULT_CRASH | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY |
                        FAULT_RESTART | FAULT_TRANSFER | FAULT_SMALL_RING,
                FAULT_CRASH | FAULT_LOSE,
                FAULT_CRASH | FAULT_LOSE | FAULT_TYPES | FAULT_EXPIRY,
                FAULT_CRASH | FAULT_LOSE | FAULT_TRANSFER,
                FAULT_CRASH | FAULT_LOSE | FAULT_TYPES | FAULT_EXPIRY | FAULT_TRANSFER,
                FAULT_CRASH | FAULT_LOSE | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                        FAULT_TRANSFER | FAULT_SMALL_RING,
                FAULT_CRASH | FAULT_LOSE | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY |
                        FAULT_RESTART | FAULT_TRANSFER | FAULT_SMALL_RING,
                FAULT_REMOVE | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY,
                FAULT_REMOVE | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                        FAULT_TRANSFER | FAULT_SMALL_RING,
                FAULT_REMOVE | FAULT_COLLECT | FAULT_FLUSH | FAULT_CRASH | FAULT_LOSE |
                        FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER |
                        FAULT_SMALL_RING,
                FAULT_CRASH | FAULT_LOSE | FAULT_OFTEN,
                FAULT_CRASH | FAULT_LOSE | FAULT_OFTEN | FAULT_COLLECT | FAULT_TYPES |
                        FAULT_EXPIRY | FAULT_TRANSFER | FAULT_RESTART | FAULT_SMALL_RING,
        };
        uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
        uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : 350;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (size_t i = 0; i < COUNT_OF(profiles); i++) {
                uint64_t seeds = (profiles[i] & FAULT_OFTEN) != 0 ? (count + 19) / 20 : count;
                for (uint64_t seed = first; seed < first + seeds; seed++)
                        history(seed, profiles[i]);
                printf("ok %zu - %llu histories with faults %u, %llu tombstones collected\n", i + 1,
                       (unsigned long long)seeds, profiles[i], (unsigned long long)collected);
                collected = 0;
        }
        printf("1..%zu\n", COUNT_OF(profiles));
        return 0;
}
