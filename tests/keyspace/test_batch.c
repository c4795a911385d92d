/* Changes told together come to the same as changes told one by one: two keyspaces live through the
 * same random history, one by keyspace_local_*, the other by keyspace_run in batches of random
 * length wherever the change is of a kind that it takes. Every delta, the digest, the stream and
 * the saved state must be equal. */
#include "base/rng.h"
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        HISTORIES = 300,
        STEPS = 400,
        KEYS = 12,
        ITEMS = 40,
        VALUE_MAX = 24,
        WALL_MS = 1000000,
        OP_BYTES = 256,
};

/* What the store would hold: the types never mix, and integers are known. */
struct shadow {
        enum crdt_type type;
        int64_t number;
        bool is_number;
        bool items[ITEMS];
};

struct pair {
        struct heap heaps[2];
        struct keyspace *plain;
        struct keyspace *batched;
        struct rng rng;
        uint64_t now_ms;
        struct shadow shadow[KEYS];
        char names[KEYS][40];
        size_t count; /* of the batch that is being made */
        size_t count_max;
        uint64_t shipped;
        size_t looks[3]; /* by enum crdt_member: how often that was the answer */
        size_t heard;
        size_t asked;
        struct keyspace_op ops[KEYSPACE_OPS_MAX];
        uint8_t bytes[KEYSPACE_OPS_MAX][OP_BYTES];
        uint8_t expected[KEYSPACE_OPS_MAX][OP_BYTES];
        size_t expected_len[KEYSPACE_OPS_MAX];
};

static struct pair pair;

static struct crdt_name name_of(size_t key)
{
        return (struct crdt_name){key % 3 == 0 ? 200 : 0, bytes_of_str(pair.names[key])};
}

static int64_t value(void *context, struct crdt_name name)
{
        (void)context;
        pair.asked++;
        for (size_t i = 0; i < KEYS; i++) {
                struct crdt_name own = name_of(i);
                if (own.db == name.db && bytes_equal(own.key, name.key))
                        return pair.shadow[i].number;
        }
        fail_msg("asked for a key that is none");
        return 0;
}

static void changed(void *context, const struct keyspace_op *op,
                    const struct keyspace_change *change)
{
        (void)context;
        assert_true(pair.heard < pair.count);
        assert_ptr_equal(op, &pair.ops[pair.heard]);
        assert_int_equal(change->stamp.hlc, op->hlc);
        assert_true(bytes_equal(
                change->delta, bytes_of(pair.expected[pair.heard], pair.expected_len[pair.heard])));
        pair.heard++;
}

static void plain(void *context, const struct keyspace_op *op, struct bytes delta)
{
        const struct keyspace_change change = {.stamp = {op->hlc, 1}, .delta = delta};
        changed(context, op, &change);
}

static void drain(void)
{
        const struct keyspace_teller teller = {.value = value, .changed = changed, .plain = plain};
        pair.heard = 0;
        assert_int_equal(keyspace_run(pair.batched, pair.ops, pair.count, &teller), ERR_NONE);
        assert_int_equal(pair.heard, pair.count);
        pair.count = 0;
        if (rng_below(&pair.rng, 4) == 0)
                pair.shipped = keyspace_ring_last(pair.batched);
        pair.count_max = rng_below(&pair.rng, KEYSPACE_OPS_MAX) + 1;
}

static uint8_t *put(uint8_t *at, struct bytes data)
{
        if (data.len > 0)
                memcpy(at, data.ptr, data.len);
        return at + data.len;
}

static uint8_t *put_slice(uint8_t *at, struct bytes data)
{
        *at++ = (uint8_t)data.len; /* all are short */
        return put(at, data);
}

/* What a store asks before the command is what it would be told by the other questions. */
static void ask(struct keyspace_op *op, struct bytes member, double score)
{
        struct keyspace *keyspace = pair.batched;
        double known = 0;
        bool scored = op->op == CRDT_OP_ZADD;
        enum crdt_member told =
                scored ? keyspace_zset_look(keyspace, op->name, member, pair.shipped, &known)
                       : keyspace_set_look(keyspace, op->name,
                                           keyspace_name_hash(keyspace, op->name), member,
                                           pair.shipped);
        if (scored && (score < known || score > known))
                told = CRDT_MEMBER_ABSENT;
        keyspace_op_find(keyspace, op, member);
        assert_int_equal(keyspace_op_look(keyspace, op, member, score, pair.shipped), told);
        pair.looks[told]++;
}

static double draw_score(void)
{
        return (double)rng_below(&pair.rng, 9) / 3 - 1;
}

static void ask_any(size_t key)
{
        char text[8];
        enum crdt_type type = pair.shadow[key].type;
        struct keyspace_op op = {.op = type == CRDT_ZSET ? CRDT_OP_ZADD : CRDT_OP_SADD,
                                 .name = name_of(key)};
        size_t item = rng_below(&pair.rng, ITEMS);
        for (size_t i = 0; i < ITEMS && !pair.shadow[key].items[item]; i++)
                item = (item + 1) % ITEMS;
        snprintf(text, sizeof text, "i%zu", item);
        if (type == CRDT_SET || type == CRDT_ZSET)
                ask(&op, bytes_of_str(text), draw_score());
}

/* Other changes may be made between the question and the run. */
static void ask_before(struct keyspace_op *op, struct bytes body)
{
        double score = 0;
        struct bytes member = bytes_of(body.ptr + 2, body.ptr[1]);
        if (op->op == CRDT_OP_ZADD) {
                struct cursor cursor = cursor_of(bytes_of(body.ptr + 2 + member.len, 8));
                uint64_t bits = cursor_u64(&cursor);
                memcpy(&score, &bits, sizeof score);
        }
        ask(op, member, score);
}

/* The same change for the other keyspace, told with the next batch; the first `skip` bytes of the
 * delta's part after the key are not in the op's. */
static void later_skipping(enum crdt_op op, size_t key, int64_t amount, size_t skip,
                           struct bytes body, const struct keyspace_change *change)
{
        struct keyspace_op *next = &pair.ops[pair.count];
        struct crdt_name name = name_of(key);
        ask_any(key);
        *next = (struct keyspace_op){.op = op, .name = name, .amount = amount};
        bool adds = op == CRDT_OP_SADD || op == CRDT_OP_ZADD;
        if (adds && body.ptr[0] == 1 && rng_below(&pair.rng, 3) > 0)
                ask_before(next, body);
        /* an increment may come without room for its delta */
        if (op != CRDT_OP_COUNT || rng_below(&pair.rng, 4) > 0) {
                next->delta = pair.bytes[pair.count];
                uint8_t *at = next->delta + keyspace_op_body(next->op);
                if (name.db >= 128)
                        *at++ = (uint8_t)(name.db | 0x80);
                *at++ = (uint8_t)(name.db >= 128 ? name.db >> 7 : name.db);
                at = put_slice(at, name.key);
                next->body = bytes_of(at + skip, body.len - skip);
                next->delta_len = (size_t)(put(at, body) - next->delta);
        }
        next->hlc = keyspace_stamps(pair.batched, pair.now_ms, 1);
        assert_int_equal(next->hlc, change->stamp.hlc);
        assert_true(change->delta.len <= OP_BYTES);
        memcpy(pair.expected[pair.count], change->delta.ptr, change->delta.len);
        pair.expected_len[pair.count++] = change->delta.len;
        if (pair.count == pair.count_max)
                drain();
}

static void later(enum crdt_op op, size_t key, int64_t amount, struct bytes body,
                  const struct keyspace_change *change)
{
        later_skipping(op, key, amount, 0, body, change);
}

/* ---- steps; each knows whether the store would do it */

static uint8_t *put_expiry(uint8_t *at, uint64_t expire_at_ms)
{
        for (; expire_at_ms >= 0x80; expire_at_ms >>= 7)
                *at++ = (uint8_t)(expire_at_ms | 0x80);
        *at++ = (uint8_t)expire_at_ms;
        return at;
}

static void clear(struct shadow *shadow)
{
        *shadow = (struct shadow){.type = CRDT_NONE};
}

static void step_set(size_t key)
{
        char text[VALUE_MAX];
        struct shadow *shadow = &pair.shadow[key];
        struct keyspace_change change;
        clear(shadow);
        shadow->type = CRDT_STRING;
        shadow->is_number = rng_below(&pair.rng, 3) > 0;
        shadow->number = (int64_t)rng_below(&pair.rng, 1000) - 500;
        snprintf(text, sizeof text, shadow->is_number ? "%lld" : "text %lld",
                 (long long)shadow->number);
        struct bytes value_set = bytes_of_str(text);
        uint64_t expire_at_ms = rng_below(&pair.rng, 3) == 0 ? pair.now_ms + 77 : 0;
        assert_int_equal(keyspace_local_set(pair.plain, pair.now_ms, name_of(key), value_set,
                                            expire_at_ms, &change),
                         0);
        uint8_t body[VALUE_MAX + 10];
        uint8_t *at = expire_at_ms == 0 ? body : put_expiry(body, expire_at_ms);
        size_t skip = (size_t)(at - body);
        at = put(at, value_set);
        later_skipping(CRDT_OP_SET, key, (int64_t)expire_at_ms, skip,
                       bytes_of(body, (size_t)(at - body)), &change);
}

static void step_expire(size_t key)
{
        struct keyspace_change change;
        uint8_t body[10];
        uint64_t expire_at_ms = rng_below(&pair.rng, 2) == 0 ? pair.now_ms + 9 : 0;
        if (pair.shadow[key].type == CRDT_NONE)
                return;
        assert_int_equal(
                keyspace_local_expire(pair.plain, pair.now_ms, name_of(key), expire_at_ms, &change),
                ERR_NONE);
        size_t len = (size_t)(put_expiry(body, expire_at_ms) - body);
        later(CRDT_OP_EXPIRE, key, (int64_t)expire_at_ms, bytes_of(body, len), &change);
}

static void step_delete(size_t key)
{
        struct keyspace_change change;
        if (pair.shadow[key].type == CRDT_NONE)
                return;
        clear(&pair.shadow[key]);
        assert_int_equal(keyspace_local_delete(pair.plain, pair.now_ms, name_of(key), &change),
                         ERR_NONE);
        later(CRDT_OP_DEL, key, 0, (struct bytes){0}, &change);
}

static void step_count(size_t key)
{
        struct shadow *shadow = &pair.shadow[key];
        struct keyspace_change change;
        if (shadow->type != CRDT_NONE && !(shadow->type == CRDT_STRING && shadow->is_number))
                return;
        int64_t amount = (int64_t)rng_below(&pair.rng, 200) - 100;
        shadow->type = CRDT_STRING;
        shadow->is_number = true;
        shadow->number += amount;
        assert_int_equal(keyspace_local_increment(pair.plain, pair.now_ms, name_of(key), amount,
                                                  shadow->number, &change),
                         0);
        later(CRDT_OP_COUNT, key, amount, (struct bytes){0}, &change);
}

/* HSET or SADD of one to three items. */
static void step_items(size_t key, enum crdt_type type)
{
        struct shadow *shadow = &pair.shadow[key];
        struct keyspace_change change;
        char names[3][8];
        uint8_t body[64];
        uint8_t *at = body;
        struct keyspace_pair pairs[3];
        struct bytes members[3];
        size_t count = rng_below(&pair.rng, 3) + 1;
        if (shadow->type != CRDT_NONE && shadow->type != type)
                return;
        shadow->type = type;
        *at++ = (uint8_t)count;
        for (size_t i = 0; i < count; i++) {
                size_t item = rng_below(&pair.rng, ITEMS);
                shadow->items[item] = true;
                snprintf(names[i], sizeof names[i], "i%zu", item);
                members[i] = bytes_of_str(names[i]);
                pairs[i] = (struct keyspace_pair){members[i], BYTES("value")};
                at = put_slice(at, members[i]);
                if (type == CRDT_HASH)
                        at = put_slice(at, pairs[i].value);
        }
        bool hash = type == CRDT_HASH;
        enum err err = hash ? keyspace_local_hash_set(pair.plain, pair.now_ms, name_of(key), pairs,
                                                      count, &change)
                            : keyspace_local_set_add(pair.plain, pair.now_ms, name_of(key), members,
                                                     count, &change);
        assert_int_equal(err, ERR_NONE);
        later(hash ? CRDT_OP_HSET : CRDT_OP_SADD, key, 0, bytes_of(body, (size_t)(at - body)),
              &change);
}

/* Removes one or two, which may be there or not. */
static void step_remove(size_t key)
{
        struct shadow *shadow = &pair.shadow[key];
        struct keyspace_change change;
        char names[2][8];
        struct bytes members[2];
        uint8_t body[64];
        uint8_t *at = body;
        size_t count = rng_below(&pair.rng, 3) == 0 ? 2 : 1;
        bool hash = shadow->type == CRDT_HASH;
        if (!hash && shadow->type != CRDT_SET)
                return;
        *at++ = (uint8_t)count;
        for (size_t i = 0; i < count; i++) {
                size_t item = rng_below(&pair.rng, ITEMS);
                shadow->items[item] = false;
                snprintf(names[i], sizeof names[i], "i%zu", item);
                members[i] = bytes_of_str(names[i]);
                at = put_slice(at, members[i]);
        }
        assert_int_equal((hash ? keyspace_local_hash_delete : keyspace_local_set_remove)(
                                 pair.plain, pair.now_ms, name_of(key), members, count, &change),
                         ERR_NONE);
        later(hash ? CRDT_OP_HDEL : CRDT_OP_SREM, key, 0, bytes_of(body, (size_t)(at - body)),
              &change);
        bool left = false;
        for (size_t i = 0; i < ITEMS; i++)
                left = left || shadow->items[i];
        if (!left)
                clear(shadow);
}

/* ZADD of one or two members. */
static void step_scores(size_t key)
{
        struct shadow *shadow = &pair.shadow[key];
        struct keyspace_change change;
        char names[2][8];
        struct keyspace_score scores[2];
        uint8_t body[64];
        uint8_t *at = body;
        size_t count = rng_below(&pair.rng, 4) == 0 ? 2 : 1;
        if (shadow->type != CRDT_NONE && shadow->type != CRDT_ZSET)
                return;
        shadow->type = CRDT_ZSET;
        *at++ = (uint8_t)count;
        for (size_t i = 0; i < count; i++) {
                size_t item = rng_below(&pair.rng, ITEMS);
                uint64_t bits = 0;
                shadow->items[item] = true;
                snprintf(names[i], sizeof names[i], "i%zu", item);
                scores[i].member = bytes_of_str(names[i]);
                scores[i].score = draw_score();
                memcpy(&bits, &scores[i].score, sizeof bits);
                at = put_slice(at, scores[i].member);
                for (unsigned n = 0; n < sizeof bits; n++)
                        *at++ = (uint8_t)(bits >> (8 * n));
        }
        assert_int_equal(keyspace_local_zset_add(pair.plain, pair.now_ms, name_of(key), scores,
                                                 count, &change),
                         ERR_NONE);
        later(CRDT_OP_ZADD, key, 0, bytes_of(body, (size_t)(at - body)), &change);
}

static void step_score_count(size_t key)
{
        struct keyspace *both[2] = {pair.plain, pair.batched};
        struct keyspace_change change;
        drain();
        if (pair.shadow[key].type != CRDT_ZSET)
                return;
        pair.shadow[key].items[0] = true;
        for (size_t i = 0; i < 2; i++) {
                double before = 0;
                if (keyspace_zset_look(both[i], name_of(key), BYTES("i0"), 0, &before) ==
                    CRDT_MEMBER_ABSENT)
                        before = 0;
                assert_int_equal(keyspace_local_zset_increment(both[i], pair.now_ms, name_of(key),
                                                               BYTES("i0"), 0.1, before + 0.1,
                                                               &change),
                                 ERR_NONE);
        }
}

/* Changes that are told at once, by both, when nothing waits. */
static void step_other(size_t key)
{
        struct shadow *shadow = &pair.shadow[key];
        struct keyspace *both[2] = {pair.plain, pair.batched};
        struct keyspace_change changes[2];
        unsigned what = (unsigned)rng_below(&pair.rng, 5);
        size_t item = rng_below(&pair.rng, ITEMS);
        char text[8];
        snprintf(text, sizeof text, "i%zu", item);
        struct bytes member = bytes_of_str(text);
        drain();
        if (shadow->type == CRDT_NONE)
                return;
        for (size_t i = 0; i < 2; i++) {
                enum err err = ERR_NONE;
                if (what == 0)
                        err = keyspace_local_expire(both[i], pair.now_ms, name_of(key),
                                                    pair.now_ms + 5, &changes[i]);
                else if (what == 1)
                        err = keyspace_local_expired(both[i], pair.now_ms, name_of(key),
                                                     &changes[i]);
                else if (what == 2 && shadow->type == CRDT_SET)
                        err = keyspace_local_set_remove(both[i], pair.now_ms, name_of(key), &member,
                                                        1, &changes[i]);
                else if (what == 2 && shadow->type == CRDT_HASH)
                        err = keyspace_local_hash_delete(both[i], pair.now_ms, name_of(key),
                                                         &member, 1, &changes[i]);
                else if (what == 2 && shadow->type == CRDT_ZSET)
                        err = keyspace_local_zset_remove(both[i], pair.now_ms, name_of(key),
                                                         &member, 1, &changes[i]);
                else if (what == 3)
                        err = keyspace_key_gone(both[i], name_of(key));
                else
                        err = keyspace_local_delete(both[i], pair.now_ms, name_of(key),
                                                    &changes[i]);
                assert_int_equal(err, ERR_NONE);
        }
        bool item_only = what == 2 && shadow->type != CRDT_STRING;
        if (what == 0)
                return;
        shadow->items[item] = false;
        bool left = false;
        for (size_t i = 0; i < ITEMS; i++)
                left = left || shadow->items[i];
        if (!item_only || !left)
                clear(shadow);
}

static void step(void)
{
        size_t key = rng_below(&pair.rng, KEYS);
        pair.now_ms += rng_below(&pair.rng, 2);
        switch (rng_below(&pair.rng, 27)) {
        case 23:
        case 24:
                step_expire(key);
                return;
        case 25:
        case 26:
                step_delete(key);
                return;
        case 0:
                step_other(key);
                return;
        case 20:
        case 21:
        case 22:
                step_remove(key);
                return;
        case 1:
        case 2:
        case 3:
                step_set(key);
                return;
        case 4:
        case 5:
        case 6:
        case 7:
        case 8:
                step_count(key);
                return;
        case 9:
        case 10:
        case 11:
        case 12:
                step_items(key, CRDT_HASH);
                return;
        case 13:
        case 14:
        case 15:
                step_items(key, CRDT_SET);
                return;
        case 16:
                step_score_count(key);
                return;
        default:
                step_scores(key);
        }
}

/* ---- what must be equal */

static void saved(struct keyspace *keyspace, struct buffer *buffer)
{
        assert_int_equal(keyspace_save(keyspace, true, buffer), ERR_NONE);
}

/* In whatever order tables keep their nodes, which depends on how often was looked. */
static bool same_bytes(struct bytes a, struct bytes b)
{
        enum {
                CHECKSUM_LEN = 8,
        };
        size_t counts[2][256] = {{0}};
        if (a.len != b.len)
                return false;
        for (size_t i = 0; i + CHECKSUM_LEN < a.len; i++) {
                counts[0][a.ptr[i]]++;
                counts[1][b.ptr[i]]++;
        }
        return memcmp(counts[0], counts[1], sizeof counts[0]) == 0;
}

static void compare(void)
{
        struct keyspace_batch streams[2];
        struct keyspace_stats stats[2] = {keyspace_stats(pair.plain), keyspace_stats(pair.batched)};
        assert_int_equal(keyspace_digest(pair.plain), keyspace_digest(pair.batched));
        assert_int_equal(stats[0].keys, stats[1].keys);
        assert_int_equal(stats[0].tombstones, stats[1].tombstones);
        assert_int_equal(stats[0].local, stats[1].local);
        assert_int_equal(keyspace_tail(pair.plain, pair.now_ms, 0, SIZE_MAX, &streams[0]), 0);
        assert_int_equal(keyspace_tail(pair.batched, pair.now_ms, 0, SIZE_MAX, &streams[1]), 0);
        for (size_t i = 0; i < 2; i++)
                assert_true(bytes_equal(streams[0].parts[i], streams[1].parts[i]));
        struct buffer states[2];
        for (size_t i = 0; i < 2; i++)
                buffer_init(&states[i], &pair.heaps[i]);
        saved(pair.plain, &states[0]);
        saved(pair.batched, &states[1]);
        assert_true(same_bytes(buffer_view(&states[0]), buffer_view(&states[1])));
        for (size_t i = 0; i < 2; i++)
                buffer_fini(&states[i]);
}

static void live(uint64_t seed)
{
        const struct keyspace_config config = {.origin = 3,
                                               .ring_bytes = 1 << 20,
                                               .drift_max_ms = 1000,
                                               .incarnation = 1,
                                               .hash_key = {seed, 5}};
        memset(&pair, 0, sizeof pair);
        rng_init(&pair.rng, seed, 0);
        pair.now_ms = WALL_MS;
        pair.count_max = 1 + rng_below(&pair.rng, KEYSPACE_OPS_MAX);
        for (size_t i = 0; i < KEYS; i++) {
                clear(&pair.shadow[i]);
                snprintf(pair.names[i], sizeof pair.names[i], "%s:%zu",
                         i % 2 == 0 ? "k" : "a key with a longer name", i);
        }
        for (size_t i = 0; i < 2; i++)
                heap_init(&pair.heaps[i], 0);
        pair.plain = keyspace_new(&pair.heaps[0], &config);
        pair.batched = keyspace_new(&pair.heaps[1], &config);
        assert_non_null(pair.plain);
        assert_non_null(pair.batched);
        for (size_t i = 0; i < STEPS; i++)
                step();
        drain();
        compare();
        keyspace_free(pair.plain);
        keyspace_free(pair.batched);
        for (size_t i = 0; i < 2; i++)
                assert_int_equal(pair.heaps[i].used_bytes, 0);
}

static void test_batches_change_nothing(void **state)
{
        (void)state;
        size_t asked = 0;
        size_t looks[COUNT_OF(pair.looks)] = {0};
        for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
                printf("seed %llu\n", (unsigned long long)seed);
                live(seed);
                asked += pair.asked;
                for (size_t i = 0; i < COUNT_OF(looks); i++)
                        looks[i] += pair.looks[i];
        }
        for (size_t i = 0; i < COUNT_OF(looks); i++)
                assert_true(looks[i] > HISTORIES);
        assert_true(asked > HISTORIES); /* increments after a SET were among them */
}

/* The key that was found before the command is forgotten before the change is made. */
static void test_found_key_goes(void **state)
{
        (void)state;
        const struct keyspace_config config = {
                .origin = 3, .ring_bytes = 1 << 20, .incarnation = 1};
        const struct keyspace_teller teller = {.value = value, .changed = changed, .plain = plain};
        struct keyspace_change change;
        memset(&pair, 0, sizeof pair);
        heap_init(&pair.heaps[0], 0);
        struct keyspace *keyspace = keyspace_new(&pair.heaps[0], &config);
        assert_non_null(keyspace);
        struct crdt_name name = {0, BYTES("k")};
        struct bytes member = BYTES("m");
        struct bytes body = BYTES("\x01\x01m");
        assert_int_equal(keyspace_local_set_add(keyspace, WALL_MS, name, &member, 1, &change), 0);
        struct keyspace_op *op = &pair.ops[0];
        *op = (struct keyspace_op){.op = CRDT_OP_SADD, .name = name, .delta = pair.bytes[0]};
        keyspace_op_find(keyspace, op, member);
        assert_int_equal(keyspace_op_look(keyspace, op, member, 0, 0), CRDT_MEMBER_FRESH);
        keyspace_forget(keyspace, name);
        uint8_t *at = put_slice(op->delta + KEYSPACE_OP_BODY + 1, name.key);
        op->body = bytes_of(at, body.len);
        op->delta[KEYSPACE_OP_BODY] = 0;
        op->delta_len = (size_t)(put(at, body) - op->delta);
        op->hlc = keyspace_stamps(keyspace, WALL_MS, 1);
        pair.expected_len[0] = op->delta_len;
        memcpy(pair.expected[0], op->delta, op->delta_len);
        for (unsigned i = 0; i < 8; i++)
                pair.expected[0][i] = (uint8_t)(op->hlc >> (8 * i));
        pair.count = 1;
        pair.expected[0][8] = CRDT_OP_SADD | CRDT_FLAG_CREATED;
        assert_int_equal(keyspace_run(keyspace, op, 1, &teller), ERR_NONE);
        assert_int_equal(pair.heard, 1);
        assert_int_equal(
                keyspace_set_look(keyspace, name, keyspace_name_hash(keyspace, name), member, 0),
                CRDT_MEMBER_FRESH);
        keyspace_free(keyspace);
        assert_int_equal(pair.heaps[0].used_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_found_key_goes),
                cmocka_unit_test(test_batches_change_nothing),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
