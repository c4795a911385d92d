/* Small keys are kept packed and large ones whole; nobody can tell. One replica changes keys in
 * place, another makes the same by whole deltas, a third loads what the first saves: all have the
 * same digest at every size, across the limits of a pack, and whichever allocation fails. */
#include "keyspace/keyspace_priv.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

#include <stdio.h>

#define WALL_MS UINT64_C(1700000000000)

enum {
        ELEMENTS = CRDT_PACK_ELEMENTS_MAX + 12,
};

static const struct crdt_name key = {0, BYTES_INIT("k")};
static struct keyspace_change change;

static struct keyspace *made(region_id origin)
{
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 1 << 20,
                                         .drift_max_ms = 5000,
                                         .hash_key = {3, origin}};
        return keyspace_new(&heap, &config);
}

static void ship(struct keyspace *from, struct keyspace *to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(to), 1);
        assert_int_equal(keyspace_tail(from, WALL_MS, after, SIZE_MAX, &batch), ERR_NONE);
        assert_int_equal(
                keyspace_apply(to, NULL, WALL_MS, 1, after, batch.last, batch.parts[0], &result),
                ERR_NONE);
}

static bool packed(struct keyspace *keyspace)
{
        const struct entry *entry = entry_find(keyspace, key);
        return entry != NULL && entry->node.kind == ENTRY_PACK;
}

static void check_saved(struct keyspace *keyspace)
{
        struct buffer saved;
        struct keyspace *loaded = made(1);
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(keyspace, true, &saved), ERR_NONE);
        assert_int_equal(keyspace_load(loaded, buffer_view(&saved)), ERR_NONE);
        assert_int_equal(keyspace_digest(loaded), keyspace_digest(keyspace));
        keyspace_free(loaded);
        buffer_fini(&saved);
}

/* ---- a change of each kind, of the i-th element */

static struct bytes name_of(char room[32], unsigned i)
{
        return bytes_of(room, (size_t)snprintf(room, 32, "element%u", i));
}

static enum err hash_put(struct keyspace *keyspace, unsigned i)
{
        char room[32];
        struct keyspace_pair pair = {name_of(room, i), BYTES("v")};
        return keyspace_local_hash_set(keyspace, WALL_MS, key, &pair, 1, &change);
}

static enum err hash_take(struct keyspace *keyspace, unsigned i)
{
        char room[32];
        struct bytes name = name_of(room, i);
        return keyspace_local_hash_delete(keyspace, WALL_MS, key, &name, 1, &change);
}

static enum err set_put(struct keyspace *keyspace, unsigned i)
{
        char room[32];
        struct bytes name = name_of(room, i);
        return keyspace_local_set_add(keyspace, WALL_MS, key, &name, 1, &change);
}

static enum err set_take(struct keyspace *keyspace, unsigned i)
{
        char room[32];
        struct bytes name = name_of(room, i);
        return keyspace_local_set_remove(keyspace, WALL_MS, key, &name, 1, &change);
}

static enum err list_put_end(struct keyspace *keyspace, unsigned i)
{
        struct bytes value = BYTES("v");
        return keyspace_local_list_push(keyspace, WALL_MS, key, i % 2 == 0, &value, 1, &change);
}

static enum err list_take_end(struct keyspace *keyspace, unsigned i)
{
        uint64_t length = keyspace_list_length(keyspace, key);
        struct keyspace_range range = {i % 3 == 0 ? 0 : length - 1, 1};
        return keyspace_local_list_remove(keyspace, WALL_MS, key, &range, 1, &change);
}

static enum err zset_put(struct keyspace *keyspace, unsigned i)
{
        char room[32];
        struct keyspace_score score = {name_of(room, i), i * 0.5};
        return keyspace_local_zset_add(keyspace, WALL_MS, key, &score, 1, &change);
}

static enum err zset_take(struct keyspace *keyspace, unsigned i)
{
        char room[32];
        struct bytes name = name_of(room, i);
        return keyspace_local_zset_remove(keyspace, WALL_MS, key, &name, 1, &change);
}

static enum err count_up(struct keyspace *keyspace, unsigned i)
{
        int64_t after = ((int64_t)i + 1) * 7;
        return keyspace_local_increment(keyspace, WALL_MS, key, 7, after, &change);
}

static enum err count_down(struct keyspace *keyspace, unsigned i)
{
        return keyspace_local_increment(keyspace, WALL_MS, key, -7, (int64_t)i * 7, &change);
}

/* A string whose expiry is told by itself. */
static enum err string_put(struct keyspace *keyspace, unsigned i)
{
        enum err err = i % 3 != 0 ? ERR_NONE
                                  : keyspace_local_set(keyspace, WALL_MS, key, BYTES("v"),
                                                       i % 2 * WALL_MS, &change);
        return err != ERR_NONE
                       ? err
                       : keyspace_local_expire(keyspace, WALL_MS, key, WALL_MS + 1000 + i, &change);
}

static enum err string_take(struct keyspace *keyspace, unsigned i)
{
        if (i % 3 == 0)
                return keyspace_local_set(keyspace, WALL_MS, key, BYTES("w"), WALL_MS, &change);
        return keyspace_local_expire(keyspace, WALL_MS, key, 0, &change);
}

static const struct {
        const char *what;
        enum err (*put)(struct keyspace *keyspace, unsigned i);
        enum err (*take)(struct keyspace *keyspace, unsigned i);
        bool always; /* one element, however often */
} kinds[] = {
        {"hash", hash_put, hash_take, false},         {"set", set_put, set_take, false},
        {"list", list_put_end, list_take_end, false}, {"zset", zset_put, zset_take, false},
        {"counter", count_up, count_down, true},      {"string", string_put, string_take, true},
};

static void test_all_sizes(void **state)
{
        (void)state;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                struct keyspace *a = made(1);
                struct keyspace *b = made(2);
                for (unsigned i = 0; i < ELEMENTS; i++) {
                        assert_int_equal(kinds[k].put(a, i), ERR_NONE);
                        if (kinds[k].always || i < CRDT_PACK_ELEMENTS_MAX / 2)
                                assert_true(packed(a));
                        else if (i >= CRDT_PACK_ELEMENTS_MAX)
                                assert_false(packed(a));
                        ship(a, b);
                        assert_int_equal(keyspace_digest(a), keyspace_digest(b));
                        check_saved(a);
                }
                for (unsigned i = ELEMENTS; i-- > 0;) {
                        assert_int_equal(kinds[k].take(a, i), ERR_NONE);
                        ship(a, b);
                        assert_int_equal(keyspace_digest(a), keyspace_digest(b));
                        assert_int_equal(keyspace_stats(a).keys, i > 0 || kinds[k].always);
                        check_saved(a);
                }
                /* and once more, over what is remembered of it */
                assert_int_equal(kinds[k].put(a, 0), ERR_NONE);
                ship(a, b);
                assert_int_equal(keyspace_digest(a), keyspace_digest(b));
                assert_int_equal(keyspace_stats(a).keys, 1);
                keyspace_free(a);
                keyspace_free(b);
        }
}

static void count_told(void *context, const struct keyspace_op *op, struct bytes delta)
{
        (void)context;
        (void)op;
        (void)delta;
}

static void count_changed(void *context, const struct keyspace_op *op,
                          const struct keyspace_change *told)
{
        (void)context;
        (void)op;
        assert_false(told->nothing);
}

/* An increment in place, where that can be. */
static void count_by(struct keyspace *keyspace, int64_t amount)
{
        static uint8_t delta[KEYSPACE_OP_BODY + 3 + KEYSPACE_OP_COUNT];
        static const struct keyspace_teller teller = {.plain = count_told,
                                                      .changed = count_changed};
        delta[KEYSPACE_OP_BODY] = 0;
        delta[KEYSPACE_OP_BODY + 1] = 1;
        delta[KEYSPACE_OP_BODY + 2] = key.key.ptr[0];
        struct keyspace_op op = {.op = CRDT_OP_COUNT, .name = key, .amount = amount};
        op.delta = delta;
        op.delta_len = KEYSPACE_OP_BODY + 3;
        op.hlc = keyspace_stamps(keyspace, WALL_MS, 1);
        assert_int_equal(keyspace_run(keyspace, &op, 1, &teller), ERR_NONE);
}

/* A counter is kept in sixteen bytes while its total fits 48 bits and nothing else happened to it;
 * across that limit and back, and over an expiry, it is the same counter. */
static void test_brief_counters(void **state)
{
        (void)state;
        const int64_t limit = INT64_C(1) << 47;
        const int64_t amounts[] = {1,  limit - 3, 1,     1, -1, -limit, -limit, 1,
                                   -2, -limit,    limit, 5, -5, 0,      limit,  -1};
        struct keyspace *a = made(1);
        struct keyspace *b = made(2);
        int64_t sum = 0;
        for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++) {
                struct crdt room;
                int64_t told = 0;
                count_by(a, amounts[i]);
                sum += amounts[i];
                assert_true(packed(a));
                const struct entry *entry = entry_find(a, key);
                const struct crdt *crdt = entry_open(a, entry, &room);
                assert_non_null(crdt);
                assert_true(crdt_sum_whole(crdt, &told));
                assert_int_equal(told, sum);
                entry_close(a, entry, &room);
                ship(a, b);
                assert_int_equal(keyspace_digest(a), keyspace_digest(b));
                check_saved(a);
                if (i == 12)
                        assert_int_equal(
                                keyspace_local_expire(a, WALL_MS, key, WALL_MS + 9000, &change),
                                ERR_NONE);
        }
        keyspace_free(a);
        keyspace_free(b);
}

static void test_long_names(void **state)
{
        (void)state;
        static const size_t lengths[] = {
                0, 1, CRDT_PACK_NAME_MAX - 1, CRDT_PACK_NAME_MAX, CRDT_PACK_NAME_MAX + 1, 300};
        static uint8_t text[300];
        struct keyspace *a = made(1);
        struct keyspace *b = made(2);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                struct bytes member = bytes_of(text, lengths[i]);
                assert_int_equal(keyspace_local_set_add(a, WALL_MS, key, &member, 1, &change),
                                 ERR_NONE);
                assert_int_equal(packed(a), lengths[i] <= CRDT_PACK_NAME_MAX);
                assert_int_equal(keyspace_set_look(a, key, keyspace_name_hash(a, key), member, 0),
                                 CRDT_MEMBER_FRESH);
                ship(a, b);
                assert_int_equal(keyspace_digest(a), keyspace_digest(b));
        }
        keyspace_free(a);
        keyspace_free(b);
}

/* Expiry is told, kept, taken away, and does not come back with a key that is made anew. */
static void test_expiry(void **state)
{
        (void)state;
        struct keyspace_key found;
        struct keyspace *a = made(1);
        struct keyspace *b = made(2);
        assert_int_equal(set_put(a, 0), ERR_NONE);
        assert_int_equal(keyspace_local_expire(a, WALL_MS, key, WALL_MS + 5000, &change), ERR_NONE);
        assert_true(packed(a));
        assert_true(keyspace_find(a, key, &found));
        assert_int_equal(found.expire_at_ms, WALL_MS + 5000);
        assert_int_equal(set_take(a, 0), ERR_NONE);
        assert_true(keyspace_find(a, key, &found));
        assert_int_equal(found.expire_at_ms, 0);
        assert_int_equal(set_put(a, 1), ERR_NONE);
        assert_true(keyspace_find(a, key, &found));
        assert_int_equal(found.expire_at_ms, 0);
        ship(a, b);
        assert_int_equal(keyspace_digest(a), keyspace_digest(b));
        keyspace_free(a);
        keyspace_free(b);
}

/* A failed change leaves something that can be freed, to the last byte. */
static void test_no_memory(void **state)
{
        (void)state;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                bool failed = true;
                for (unsigned nth = 1; failed && nth < 2000; nth += 1 + nth / 20) {
                        struct keyspace *a = made(1);
                        failed = false;
                        heap.fail_at = heap.calls + nth;
                        for (unsigned i = 0; i < ELEMENTS && !failed; i++)
                                failed = kinds[k].put(a, i) != ERR_NONE;
                        for (unsigned i = 0; i < ELEMENTS && !failed; i++)
                                failed = kinds[k].take(a, i) != ERR_NONE;
                        failed = failed || heap.calls >= heap.fail_at;
                        heap.fail_at = 0;
                        keyspace_free(a);
                }
                assert_false(failed);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all_sizes),  cmocka_unit_test(test_brief_counters),
                cmocka_unit_test(test_long_names), cmocka_unit_test(test_expiry),
                cmocka_unit_test(test_no_memory),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
