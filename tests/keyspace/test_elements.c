/* Lists, streams and sorted sets as bytes from outside: whatever is cut off or flipped is refused
 * or merged, and never harms; what is merged can be saved, loaded and transferred again. */
#include "base/rng.h"
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        WALL_MS = 1700000000,
        FLIPS = 4000,
};

static uint32_t slice_items;

static struct keyspace *made(struct heap *heap, region_id origin)
{
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 1 << 16,
                                         .drift_max_ms = 5000,
                                         .slice_items = slice_items,
                                         .incarnation = 1,
                                         .hash_key = {7, origin}};
        struct keyspace *keyspace = keyspace_new(heap, &config);
        assert_non_null(keyspace);
        return keyspace;
}

/* Every kind of element, place and removal. */
static void fill(struct keyspace *keyspace)
{
        struct crdt_name list = {0, BYTES("list")};
        struct crdt_name stream = {3, BYTES("stream")};
        struct bytes values[] = {BYTES("one"), BYTES(""), BYTES("three"), BYTES("four")};
        struct keyspace_range ranges[] = {{0, 1}, {3, 2}};
        struct keyspace_entry entries[] = {
                {{5, 1}, values, 4}, {{5, 2}, values, 2}, {{9, 1}, values, 2}};
        struct keyspace_ids ids[] = {{{0, 0}, {5, 1}}, {{9, 1}, {9, 1}}};
        struct keyspace_change change;
        for (int i = 0; i < 5; i++) {
                assert_int_equal(keyspace_local_list_push(keyspace, WALL_MS, list, i % 2 == 0,
                                                          values, 4, &change),
                                 ERR_NONE);
                assert_int_equal(
                        keyspace_local_list_insert(keyspace, WALL_MS, list, 2, values[0], &change),
                        ERR_NONE);
        }
        assert_int_equal(keyspace_local_list_set(keyspace, WALL_MS, list, 4, values[2], &change),
                         ERR_NONE);
        assert_int_equal(keyspace_local_list_remove(keyspace, WALL_MS, list, ranges, 2, &change),
                         ERR_NONE);
        assert_int_equal(keyspace_local_stream_add(keyspace, WALL_MS, stream,
                                                   (struct crdt_stream_id){9, 9}, entries, 3,
                                                   &change),
                         ERR_NONE);
        assert_int_equal(keyspace_local_stream_remove(keyspace, WALL_MS, stream, ids, 2, &change),
                         ERR_NONE);
}

/* Members with dots, increments, cuts and removals of each, and what a DEL has seen of them. */
static void fill_zset(struct keyspace *keyspace)
{
        struct crdt_name name = {0, BYTES("zset")};
        struct keyspace_score scores[] = {
                {BYTES("a"), 1}, {BYTES(""), -__builtin_inf()}, {BYTES("long member"), 0.1}};
        struct bytes gone[] = {BYTES("a"), BYTES("none")};
        struct keyspace_change change;
        for (int i = 0; i < 3; i++) {
                assert_int_equal(
                        keyspace_local_zset_add(keyspace, WALL_MS, name, scores, 3, &change),
                        ERR_NONE);
                assert_int_equal(keyspace_local_zset_increment(keyspace, WALL_MS, name, BYTES("a"),
                                                               0.5, 1.5, &change),
                                 ERR_NONE);
                assert_int_equal(keyspace_local_zset_increment(keyspace, WALL_MS, name, BYTES("n"),
                                                               7, 7 * (i % 2 + 1), &change),
                                 ERR_NONE);
                if (i == 1)
                        assert_int_equal(keyspace_local_delete(keyspace, WALL_MS, name, &change),
                                         ERR_NONE);
        }
        assert_int_equal(keyspace_local_zset_remove(keyspace, WALL_MS, name, gone, 2, &change),
                         ERR_NONE);
}

/* What came can be kept and told on. */
static void told_on(struct heap *heap, struct keyspace *keyspace)
{
        struct buffer saved;
        uint64_t cursor = 0;
        buffer_init(&saved, heap);
        assert_int_equal(keyspace_save(keyspace, true, &saved), ERR_NONE);
        struct keyspace *other = made(heap, 2);
        assert_int_equal(keyspace_load(other, buffer_view(&saved)), ERR_NONE);
        assert_int_equal(keyspace_digest(other), keyspace_digest(keyspace));
        keyspace_free(other);
        buffer_reset(&saved);
        do
                assert_int_equal(keyspace_scan(keyspace, NULL, &cursor, 1 << 20, &saved), ERR_NONE);
        while (cursor != 0);
        buffer_fini(&saved);
}

static void take(struct heap *heap, struct bytes data, uint64_t last, bool state)
{
        struct keyspace_result result;
        struct keyspace *keyspace = made(heap, 2);
        enum err err = state ? keyspace_merge_state(keyspace, NULL, WALL_MS, data, &result)
                             : keyspace_apply(keyspace, NULL, WALL_MS, 1, 0, last, data, &result);
        assert_int_not_equal(err, ERR_NOMEM);
        told_on(heap, keyspace);
        keyspace_free(keyspace);
}

static void damaged(struct heap *heap, struct bytes data, uint64_t last, bool state, unsigned flips)
{
        struct rng rng;
        rng_init(&rng, 5, state);
        uint8_t *bytes = heap_alloc(heap, data.len);
        assert_non_null(bytes);
        for (size_t len = 0; len <= data.len; len++)
                take(heap, bytes_of(data.ptr, len), last, state);
        for (unsigned i = 0; i < flips; i++) {
                memcpy(bytes, data.ptr, data.len);
                for (uint64_t n = rng_between(&rng, 1, 3); n > 0; n--)
                        bytes[rng_below(&rng, data.len)] ^= (uint8_t)(1u << rng_below(&rng, 8));
                take(heap, bytes_of(bytes, data.len), last, state);
        }
        heap_free(heap, bytes);
}

static void test_deltas(void **context)
{
        (void)context;
        struct heap heap;
        struct keyspace_batch batch;
        heap_init(&heap, 0);
        struct keyspace *keyspace = made(&heap, 1);
        fill(keyspace);
        fill_zset(keyspace);
        assert_int_equal(keyspace_tail(keyspace, WALL_MS, 0, 1 << 20, &batch), ERR_NONE);
        assert_int_equal(batch.parts[1].len, 0);
        damaged(&heap, batch.parts[0], batch.last, false, FLIPS);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_states(void **context)
{
        (void)context;
        struct heap heap;
        struct buffer state;
        uint64_t cursor = 0;
        heap_init(&heap, 0);
        struct keyspace *keyspace = made(&heap, 1);
        fill(keyspace);
        fill_zset(keyspace);
        buffer_init(&state, &heap);
        assert_int_equal(keyspace_scan(keyspace, NULL, &cursor, 1 << 20, &state), ERR_NONE);
        damaged(&heap, buffer_view(&state), 0, true, FLIPS);
        buffer_fini(&state);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

/* The same in slices of a few elements: each part of the state is damaged. */
static void test_slices(void **context)
{
        (void)context;
        struct heap heap;
        struct buffer state;
        uint64_t cursor = 0;
        heap_init(&heap, 0);
        slice_items = 3;
        struct keyspace *keyspace = made(&heap, 1);
        fill(keyspace);
        fill_zset(keyspace);
        do {
                buffer_init(&state, &heap);
                assert_int_equal(keyspace_scan(keyspace, NULL, &cursor, 1 << 20, &state), ERR_NONE);
                damaged(&heap, buffer_view(&state), 0, true, FLIPS / 8);
                buffer_fini(&state);
        } while (cursor != 0);
        slice_items = 0;
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_deltas),
                cmocka_unit_test(test_states),
                cmocka_unit_test(test_slices),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
