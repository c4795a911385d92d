/* Regions that were removed: when tombstones may go, and who is still heard; how far a walk is. */
#include "../../src/keyspace/keyspace_priv.h"
#include "keyspace/shards.h"

#include "../cmocka_all.h"

enum {
        ONE = 1,
        TWO,
        GONE, /* the one that is removed */
        COUNT,
};

static struct heap heap;
static struct keyspace *replicas[COUNT];
static uint64_t wall_ms;
static struct crdt_name name;

static int setup(void **state)
{
        (void)state;
        const region_id all[] = {ONE, TWO, GONE};
        heap_init(&heap, 0);
        wall_ms = 1000000;
        name = (struct crdt_name){0, BYTES("k")};
        for (region_id i = ONE; i < COUNT; i++) {
                struct keyspace_config config = {.origin = i,
                                                 .ring_bytes = 1 << 16,
                                                 .drift_max_ms = 100000,
                                                 .incarnation = 1,
                                                 .hash_key = {7, i}};
                replicas[i] = keyspace_new(&heap, &config);
                assert_non_null(replicas[i]);
                assert_int_equal(keyspace_members(replicas[i], all, 3), ERR_NONE);
        }
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        for (region_id i = ONE; i < COUNT; i++)
                keyspace_free(replicas[i]);
        assert_int_equal(heap.used_bytes, 0);
        return 0;
}

static enum err ship(region_id from, region_id to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(replicas[to]), from);
        assert_int_equal(keyspace_tail(replicas[from], wall_ms, after, 1 << 20, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(batch.parts[1].len, 0);
        return keyspace_apply(replicas[to], NULL, wall_ms, from, after, batch.last, batch.parts[0],
                              &result);
}

/* Seconds pass, and everybody tells what he knows. */
static void tell(void)
{
        struct keyspace_change change;
        wall_ms += 2200;
        for (region_id i = ONE; i < COUNT; i++)
                (void)keyspace_heartbeat(replicas[i], wall_ms, &change);
        for (unsigned round = 0; round < 2; round++) {
                assert_int_equal(ship(ONE, TWO), ERR_NONE);
                assert_int_equal(ship(TWO, ONE), ERR_NONE);
        }
}

static void hears_removal(region_id replica)
{
        const region_id left[] = {ONE, TWO};
        assert_int_equal(keyspace_members(replicas[replica], left, 2), ERR_NONE);
}

static enum err state(region_id from, region_id to)
{
        struct keyspace_result result;
        struct buffer part;
        uint64_t cursor = 0;
        enum err err = ERR_NONE;
        do {
                buffer_init(&part, &heap);
                assert_int_equal(keyspace_scan(replicas[from], NULL, &cursor, 4096, &part),
                                 ERR_NONE);
                err = keyspace_merge_state(replicas[to], NULL, wall_ms, buffer_view(&part),
                                           &result);
                buffer_fini(&part);
        } while (cursor != 0 && err == ERR_NONE);
        return err != ERR_NONE ? err : keyspace_adopt(replicas[to], NULL, NULL, &result);
}

static bool has_tombstone(region_id replica)
{
        struct keyspace_key key;
        (void)keyspace_collect(replicas[replica], 1000);
        return keyspace_find(replicas[replica], name, &key) && key.type == CRDT_NONE;
}

/* All have the key; then the one that will be removed deletes it, and only ONE hears of that. */
static void delete_half_told(void)
{
        struct keyspace_change change;
        assert_int_equal(keyspace_local_set(replicas[GONE], wall_ms, name, BYTES("v"), 0, &change),
                         ERR_NONE);
        assert_int_equal(ship(GONE, ONE), ERR_NONE);
        assert_int_equal(ship(GONE, TWO), ERR_NONE);
        assert_int_equal(keyspace_local_delete(replicas[GONE], wall_ms, name, &change), ERR_NONE);
        assert_int_equal(ship(GONE, ONE), ERR_NONE);
}

static void test_waits_for_all(void **unused)
{
        (void)unused;
        delete_half_told();
        hears_removal(ONE);
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_true(has_tombstone(ONE)); /* TWO has not heard of the removal */
        hears_removal(TWO);
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_true(has_tombstone(ONE)); /* TWO has less of that stream */
        assert_int_equal(state(ONE, TWO), ERR_NONE);
        assert_true(has_tombstone(ONE)); /* and has not said otherwise */
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_false(has_tombstone(ONE));
        assert_false(has_tombstone(TWO));
        assert_int_equal(keyspace_stats(replicas[ONE]).keys, 0);
        assert_int_equal(keyspace_stats(replicas[TWO]).keys, 0);
}

/* Nothing of that stream differs: nothing waits. */
static void test_all_have_it(void **unused)
{
        (void)unused;
        delete_half_told();
        assert_int_equal(ship(GONE, TWO), ERR_NONE);
        hears_removal(ONE);
        hears_removal(TWO);
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_false(has_tombstone(ONE));
        assert_false(has_tombstone(TWO));
}

/* Parts of the removed region's state that came to one only are something that it has more. */
static void test_part_of_state(void **unused)
{
        (void)unused;
        struct keyspace_change change;
        struct keyspace_result result;
        struct buffer part;
        uint64_t cursor = 0;
        delete_half_told();
        assert_int_equal(ship(GONE, TWO), ERR_NONE);
        struct crdt_name other = {0, BYTES("other")};
        assert_int_equal(keyspace_local_set(replicas[GONE], wall_ms, other, BYTES("v"), 0, &change),
                         ERR_NONE);
        buffer_init(&part, &heap);
        assert_int_equal(keyspace_scan(replicas[GONE], NULL, &cursor, 4096, &part), ERR_NONE);
        assert_int_equal(
                keyspace_merge_state(replicas[ONE], NULL, wall_ms, buffer_view(&part), &result),
                ERR_NONE);
        buffer_fini(&part);
        hears_removal(ONE);
        hears_removal(TWO);
        wall_ms += 1000;
        assert_int_equal(keyspace_local_set(replicas[TWO], wall_ms, name, BYTES("w"), 0, &change),
                         ERR_NONE);
        assert_int_equal(keyspace_local_delete(replicas[TWO], wall_ms, name, &change), ERR_NONE);
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_true(has_tombstone(TWO)); /* it is later than what all have of that stream */
        assert_int_equal(state(ONE, TWO), ERR_NONE);
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_false(has_tombstone(TWO));
        assert_int_equal(keyspace_stats(replicas[TWO]).keys, 1);
}

/* TWO knows only ONE beside itself, a delete of ONE, and that ONE has all of that. */
static void one_and_two(void)
{
        struct keyspace_change change;
        hears_removal(ONE);
        hears_removal(TWO);
        assert_int_equal(keyspace_local_set(replicas[ONE], wall_ms, name, BYTES("v"), 0, &change),
                         ERR_NONE);
        assert_int_equal(ship(ONE, TWO), ERR_NONE);
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_int_equal(keyspace_local_delete(replicas[ONE], wall_ms, name, &change), ERR_NONE);
        const region_id all[] = {ONE, TWO, GONE};
        assert_int_equal(keyspace_members(replicas[ONE], all, 3), ERR_NONE);
}

/* One that joins may have written below what ONE tells: TWO keeps what that is to meet, though it
 * has not heard of the join itself. */
static void test_join_heard_by_one(void **unused)
{
        (void)unused;
        one_and_two();
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_true(has_tombstone(TWO));
}

/* Also after it was started anew, though nothing is told again. */
static void test_join_and_restart(void **unused)
{
        (void)unused;
        struct buffer saved;
        one_and_two();
        for (unsigned i = 0; i < 4; i++)
                tell();
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(replicas[TWO], true, &saved), ERR_NONE);
        struct keyspace_config config = replicas[TWO]->config;
        config.incarnation++;
        keyspace_free(replicas[TWO]);
        replicas[TWO] = keyspace_new(&heap, &config);
        assert_non_null(replicas[TWO]);
        assert_int_equal(keyspace_load(replicas[TWO], buffer_view(&saved)), ERR_NONE);
        buffer_fini(&saved);
        assert_true(has_tombstone(TWO));
        const region_id all[] = {ONE, TWO, GONE};
        assert_int_equal(keyspace_members(replicas[TWO], all, 3), ERR_NONE);
        assert_true(has_tombstone(TWO)); /* GONE has said nothing */
}

/* Also where a state took TWO past the place in which ONE had told it. */
static void test_join_passed_by_state(void **unused)
{
        (void)unused;
        struct keyspace_change change;
        one_and_two();
        for (unsigned i = 0; i < 2; i++) {
                wall_ms += 2200;
                (void)keyspace_heartbeat(replicas[ONE], wall_ms, &change);
                (void)keyspace_heartbeat(replicas[TWO], wall_ms, &change);
                assert_int_equal(ship(TWO, ONE), ERR_NONE);
        }
        assert_int_equal(state(ONE, TWO), ERR_NONE);
        wall_ms += 2200;
        (void)keyspace_heartbeat(replicas[TWO], wall_ms, &change);
        assert_true(has_tombstone(TWO));
}

/* What TWO has dropped for want of memory is told by nobody, also not as gone by GONE, which has
 * its state from TWO. */
static void test_evicted_in_state(void **unused)
{
        (void)unused;
        struct keyspace_change change;
        struct keyspace_key key;
        assert_int_equal(keyspace_local_set(replicas[ONE], wall_ms, name, BYTES("v"), 0, &change),
                         ERR_NONE);
        assert_int_equal(ship(ONE, TWO), ERR_NONE);
        assert_int_equal(keyspace_key_gone(replicas[TWO], name), ERR_NONE);
        assert_int_equal(state(TWO, GONE), ERR_NONE);
        assert_int_equal(state(GONE, ONE), ERR_NONE);
        assert_int_equal(keyspace_stats(replicas[ONE]).keys, 1);
        struct buffer saved;
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(replicas[GONE], true, &saved), ERR_NONE);
        struct keyspace_config config = replicas[GONE]->config;
        keyspace_free(replicas[GONE]);
        replicas[GONE] = keyspace_new(&heap, &config);
        assert_non_null(replicas[GONE]);
        assert_int_equal(keyspace_load(replicas[GONE], buffer_view(&saved)), ERR_NONE);
        buffer_fini(&saved);
        assert_int_equal(state(GONE, ONE), ERR_NONE);
        assert_int_equal(keyspace_stats(replicas[ONE]).keys, 1);
        /* A later write is told again. */
        wall_ms += 10;
        assert_int_equal(keyspace_local_set(replicas[ONE], wall_ms, name, BYTES("w"), 0, &change),
                         ERR_NONE);
        assert_int_equal(ship(ONE, GONE), ERR_NONE);
        assert_true(keyspace_find(replicas[GONE], name, &key));
        assert_int_equal(key.type, CRDT_STRING);
        assert_int_equal(state(GONE, TWO), ERR_NONE);
}

static void test_heard_no_more(void **unused)
{
        (void)unused;
        struct keyspace_change change;
        delete_half_told();
        hears_removal(ONE);
        assert_int_equal(keyspace_local_set(replicas[GONE], wall_ms, name, BYTES("w"), 0, &change),
                         ERR_NONE);
        assert_int_equal(ship(GONE, ONE), ERR_INVALID);
        assert_int_equal(state(GONE, ONE), ERR_INVALID);
        assert_int_equal(keyspace_stats(replicas[ONE]).keys, 0);
        assert_int_equal(ship(GONE, TWO), ERR_NONE); /* which has not heard of it */
}

static void seen_add(struct buffer *stream, uint64_t hlc, uint64_t members, uint64_t mark)
{
        struct crdt_gone gone = {.members = members};
        struct vector none = {{0}};
        struct buffer delta;
        gone.marks.hlc[GONE] = mark;
        buffer_init(&delta, &heap);
        crdt_delta_head(&delta, hlc, CRDT_OP_SEEN, CRDT_FLAG_GONE, (struct crdt_name){0});
        vector_encode(&none, &delta);
        crdt_gone_write(&gone, &delta);
        buffer_slice(stream, buffer_view(&delta));
        buffer_fini(&delta);
}

/* What the shards of a region tell together: a member to one is one, marks that differ are none. */
static void test_shards(void **unused)
{
        (void)unused;
        static const struct {
                uint64_t members[2], marks[2], members_told, mark_told;
        } rows[] = {
                {{3, 3}, {9, 9}, 3, 9},
                {{3, 7}, {9, 9}, 7, 9},
                {{3, 3}, {9, 8}, 3, 0},
                {{3, 3}, {9, 0}, 3, 0},
        };
        static struct shards_seen seen;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct buffer streams[2];
                struct buffer out;
                uint64_t last;
                memset(&seen, 0, sizeof seen);
                buffer_init(&out, &heap);
                struct shards_stream told[2];
                for (unsigned k = 0; k < 2; k++) {
                        buffer_init(&streams[k], &heap);
                        seen_add(&streams[k], 10 + k, rows[i].members[k], rows[i].marks[k]);
                        told[k] = (struct shards_stream){buffer_view(&streams[k]), 20};
                }
                assert_int_equal(shards_merge(told, 2, 0, &seen, &out, &last), ERR_NONE);
                struct cursor cursor = cursor_of(buffer_view(&out));
                struct crdt_delta delta;
                assert_int_equal(crdt_delta_decode(cursor_slice(&cursor), ONE, &delta), ERR_NONE);
                assert_int_equal(delta.gone.len, 0); /* the second has told nothing yet */
                assert_int_equal(crdt_delta_decode(cursor_slice(&cursor), ONE, &delta), ERR_NONE);
                struct crdt_gone gone;
                crdt_gone_read(delta.gone, &gone);
                assert_int_equal(gone.members, rows[i].members_told);
                assert_int_equal(gone.marks.hlc[GONE], rows[i].mark_told);
                buffer_fini(&streams[0]);
                buffer_fini(&streams[1]);
                buffer_fini(&out);
        }
}

/* Per mille of a table by the cursor of its walk, whatever its size. */
static void test_share_of_a_walk(void **unused)
{
        (void)unused;
        static const struct {
                uint64_t cursor;
                unsigned permille;
        } rows[] = {{0, 1000}, {1, 500}, {2, 250}, {3, 750}, {4, 125}, {7, 875}, {1ull << 20, 0}};
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                assert_int_equal(keyspace_scan_permille(rows[i].cursor), rows[i].permille);
        struct keyspace_change change;
        for (unsigned i = 0; i < 500; i++)
                assert_int_equal(
                        keyspace_local_set(replicas[ONE], wall_ms,
                                           (struct crdt_name){0, bytes_of((uint8_t *)&i, sizeof i)},
                                           BYTES("v"), 0, &change),
                        ERR_NONE);
        uint64_t cursor = 0;
        unsigned before = 0;
        struct buffer part;
        do {
                buffer_init(&part, &heap);
                assert_int_equal(keyspace_scan(replicas[ONE], NULL, &cursor, 300, &part), ERR_NONE);
                assert_in_range(keyspace_scan_permille(cursor), before, 1000);
                before = keyspace_scan_permille(cursor);
                buffer_fini(&part);
        } while (cursor != 0);
        assert_int_equal(before, 1000);
}

static void test_damaged(void **unused)
{
        (void)unused;
        struct buffer stream;
        struct crdt_delta delta;
        buffer_init(&stream, &heap);
        seen_add(&stream, 10, 3, 9);
        struct cursor cursor = cursor_of(buffer_view(&stream));
        struct bytes whole = cursor_slice(&cursor);
        for (size_t len = 0; len < whole.len; len++)
                assert_int_not_equal(crdt_delta_decode(bytes_of(whole.ptr, len), ONE, &delta),
                                     ERR_NONE);
        uint8_t bytes[64];
        memcpy(bytes, whole.ptr, whole.len);
        memset(bytes + 13, 0, 8); /* no members: nobody tells that */
        assert_int_equal(crdt_delta_decode(bytes_of(bytes, whole.len), ONE, &delta), ERR_MALFORMED);
        for (size_t bit = 0; bit < whole.len * 8; bit++) {
                memcpy(bytes, whole.ptr, whole.len);
                bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
                if (crdt_delta_decode(bytes_of(bytes, whole.len), ONE, &delta) == ERR_NONE &&
                    delta.gone.len > 0) {
                        struct crdt_gone gone;
                        crdt_gone_read(delta.gone, &gone);
                }
        }
        buffer_fini(&stream);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_waits_for_all, setup, teardown),
                cmocka_unit_test_setup_teardown(test_all_have_it, setup, teardown),
                cmocka_unit_test_setup_teardown(test_part_of_state, setup, teardown),
                cmocka_unit_test_setup_teardown(test_join_heard_by_one, setup, teardown),
                cmocka_unit_test_setup_teardown(test_join_and_restart, setup, teardown),
                cmocka_unit_test_setup_teardown(test_join_passed_by_state, setup, teardown),
                cmocka_unit_test_setup_teardown(test_evicted_in_state, setup, teardown),
                cmocka_unit_test_setup_teardown(test_heard_no_more, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shards, setup, teardown),
                cmocka_unit_test_setup_teardown(test_share_of_a_walk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        };
        cmocka_set_message_output(CM_OUTPUT_TAP);
        return cmocka_run_group_tests_name("keyspace removed", tests, NULL, NULL);
}
