/* Large keys in a state transfer: no part is long, whatever the key; nothing is lost or comes
 * back by what happens between two slices; a slice that is missing makes the transfer begin
 * again. */
#include "base/rng.h"
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        WALL_MS = 1700000000,
        MEMBERS = 8000,
        AT_ONCE = 500,
        PART_MAX = 80 << 10, /* a slice, its head, and small keys beside it */
        SCANS = 12,          /* at once: more than are remembered */
};

static struct heap heap;

static struct keyspace *made(region_id origin, uint32_t slice_items)
{
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 4096,
                                         .drift_max_ms = 5000,
                                         .slice_items = slice_items,
                                         .incarnation = 1,
                                         .hash_key = {7, origin}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        assert_non_null(keyspace);
        return keyspace;
}

static const struct crdt_name set_name = {0, BYTES_INIT("set")};
static const struct crdt_name hash_name = {0, BYTES_INIT("hash")};
static const struct crdt_name zset_name = {0, BYTES_INIT("zset")};
static const struct crdt_name list_name = {0, BYTES_INIT("list")};
static const struct crdt_name stream_name = {0, BYTES_INIT("stream")};

static void fill_some(struct keyspace *keyspace, unsigned from, unsigned count)
{
        static char text[AT_ONCE][16];
        static struct bytes names[AT_ONCE];
        static struct keyspace_pair pairs[AT_ONCE];
        static struct keyspace_score scores[AT_ONCE];
        static struct keyspace_entry entries[AT_ONCE];
        struct keyspace_change change;
        assert_true(count <= AT_ONCE);
        for (unsigned i = 0; i < count; i++) {
                int len = snprintf(text[i], sizeof text[i], "m%u", from + i);
                names[i] = bytes_of(text[i], (size_t)len);
                pairs[i] = (struct keyspace_pair){names[i], names[i]};
                scores[i] = (struct keyspace_score){names[i], from + i};
                entries[i] = (struct keyspace_entry){{from + i + 1, 1}, &names[i], 2};
        }
        for (unsigned i = 0; i < count; i++)
                entries[i] = (struct keyspace_entry){{from + i + 1, 1}, names, 2};
        assert_int_equal(keyspace_local_set_add(keyspace, WALL_MS, set_name, names, count, &change),
                         ERR_NONE);
        assert_int_equal(
                keyspace_local_hash_set(keyspace, WALL_MS, hash_name, pairs, count, &change),
                ERR_NONE);
        assert_int_equal(
                keyspace_local_zset_add(keyspace, WALL_MS, zset_name, scores, count, &change),
                ERR_NONE);
        assert_int_equal(keyspace_local_list_push(keyspace, WALL_MS, list_name, from % 2 == 0,
                                                  names, count, &change),
                         ERR_NONE);
        assert_int_equal(keyspace_local_stream_add(keyspace, WALL_MS, stream_name,
                                                   (struct crdt_stream_id){from + count, 1},
                                                   entries, count, &change),
                         ERR_NONE);
}

static void fill(struct keyspace *keyspace)
{
        for (unsigned i = 0; i < MEMBERS; i += AT_ONCE)
                fill_some(keyspace, i, AT_ONCE);
}

static void remove_some(struct keyspace *keyspace, struct rng *rng)
{
        char text[16];
        struct keyspace_change change;
        int len = snprintf(text, sizeof text, "m%u", (unsigned)rng_below(rng, MEMBERS));
        struct bytes name = bytes_of(text, (size_t)len);
        struct keyspace_range range = {
                rng_below(rng, keyspace_list_length(keyspace, list_name) - 8), 8};
        struct crdt_stream_id id = {rng_below(rng, MEMBERS), 1};
        struct keyspace_ids ids = {id, {id.ms + 5, 1}};
        assert_int_equal(keyspace_local_set_remove(keyspace, WALL_MS, set_name, &name, 1, &change),
                         ERR_NONE);
        assert_int_equal(
                keyspace_local_hash_delete(keyspace, WALL_MS, hash_name, &name, 1, &change),
                ERR_NONE);
        assert_int_equal(
                keyspace_local_zset_remove(keyspace, WALL_MS, zset_name, &name, 1, &change),
                ERR_NONE);
        assert_int_equal(
                keyspace_local_list_remove(keyspace, WALL_MS, list_name, &range, 1, &change),
                ERR_NONE);
        assert_int_equal(
                keyspace_local_stream_remove(keyspace, WALL_MS, stream_name, &ids, 1, &change),
                ERR_NONE);
}

static struct keyspace_result merged(struct keyspace *keyspace, const struct buffer *part)
{
        struct keyspace_result result;
        assert_int_equal(keyspace_merge_state(keyspace, NULL, WALL_MS, buffer_view(part), &result),
                         ERR_NONE);
        return result;
}

static void told(struct keyspace *keyspace, uint64_t *cursor, struct buffer *part)
{
        buffer_reset(part);
        assert_int_equal(keyspace_scan(keyspace, NULL, cursor, 256 << 10, part), ERR_NONE);
}

static void transfer(struct keyspace *from, struct keyspace *to)
{
        struct keyspace_result result;
        struct buffer part;
        uint64_t cursor = 0;
        buffer_init(&part, &heap);
        do {
                told(from, &cursor, &part);
                assert_true(part.len < PART_MAX);
                assert_true(merged(to, &part).applied <= 8);
        } while (cursor != 0);
        assert_int_equal(keyspace_adopt(to, NULL, NULL, &result), ERR_NONE);
        buffer_fini(&part);
}

/* Five keys of 8,000 elements each. */
static void test_no_part_is_long(void **context)
{
        (void)context;
        heap_init(&heap, 0);
        struct keyspace *source = made(1, 0);
        struct keyspace *target = made(2, 0);
        fill(source);
        transfer(source, target);
        assert_int_equal(keyspace_digest(source), keyspace_digest(target));
        keyspace_free(source);
        keyspace_free(target);
        assert_int_equal(heap.used_bytes, 0);
}

/* A region that was away for long: what went meanwhile goes, what it wrote itself stays. */
static void test_judged(void **context)
{
        (void)context;
        struct rng rng;
        rng_init(&rng, 11, 0);
        heap_init(&heap, 0);
        struct keyspace *source = made(1, 64);
        struct keyspace *target = made(2, 64);
        fill(source);
        transfer(source, target);
        for (unsigned i = 0; i < 1500; i++)
                remove_some(source, &rng);
        fill_some(target, MEMBERS, 100);
        transfer(source, target);
        transfer(target, source);
        assert_int_equal(keyspace_digest(source), keyspace_digest(target));
        assert_int_equal(keyspace_list_length(source, list_name),
                         keyspace_list_length(target, list_name));
        assert_in_range(keyspace_zset_length(source, zset_name), 100, MEMBERS - 1000);
        keyspace_free(source);
        keyspace_free(target);
        assert_int_equal(heap.used_bytes, 0);
}

/* Both write and remove between any two slices, also the whole key, and tables are resized. */
static void test_changed_between(void **context)
{
        (void)context;
        struct rng rng;
        rng_init(&rng, 12, 0);
        heap_init(&heap, 0);
        for (unsigned round = 0; round < 4; round++) {
                struct keyspace_result result;
                struct keyspace_change change;
                struct buffer part;
                uint64_t cursor = 0;
                unsigned parts = 0;
                struct keyspace *source = made(1, 200);
                struct keyspace *target = made(2, 200);
                fill(source);
                transfer(source, target);
                buffer_init(&part, &heap);
                do {
                        told(source, &cursor, &part);
                        merged(target, &part);
                        remove_some(source, &rng);
                        fill_some(target, MEMBERS + parts * 3, 3);
                        if (parts % 8 == 0)
                                fill_some(source, 2 * MEMBERS + parts * 100, 100);
                        if (round > 0 && parts == 20 * round)
                                assert_int_equal(
                                        keyspace_local_delete(source, WALL_MS, hash_name, &change),
                                        ERR_NONE);
                        if (round > 1 && parts == 30 * round)
                                assert_int_equal(
                                        keyspace_local_delete(target, WALL_MS, zset_name, &change),
                                        ERR_NONE);
                        parts++;
                } while (cursor != 0);
                assert_int_equal(keyspace_adopt(target, NULL, NULL, &result), ERR_NONE);
                transfer(source, target);
                transfer(target, source);
                assert_int_equal(keyspace_digest(source), keyspace_digest(target));
                buffer_fini(&part);
                keyspace_free(source);
                keyspace_free(target);
        }
        assert_int_equal(heap.used_bytes, 0);
}

/* Who has not had every slice judges nothing by them, and cannot take the transfer for whole. */
static void test_slice_is_missing(void **context)
{
        (void)context;
        heap_init(&heap, 0);
        struct keyspace_result result;
        struct buffer part;
        uint64_t cursor = 0;
        unsigned parts = 0;
        struct keyspace *source = made(1, 0);
        struct keyspace *target = made(2, 0);
        fill(source);
        transfer(source, target);
        uint64_t digest = keyspace_digest(target);
        buffer_init(&part, &heap);
        do {
                told(source, &cursor, &part);
                if (++parts % 7 != 0)
                        merged(target, &part);
        } while (cursor != 0);
        assert_int_equal(keyspace_adopt(target, NULL, NULL, &result), ERR_REFUSED);
        assert_int_equal(keyspace_digest(target), digest);
        transfer(source, target);
        buffer_fini(&part);
        keyspace_free(source);
        keyspace_free(target);
        assert_int_equal(heap.used_bytes, 0);
}

/* Many regions ask at once; a cursor is asked for twice; a made up one is harmless. */
static void test_many_scans(void **context)
{
        (void)context;
        struct rng rng;
        rng_init(&rng, 13, 0);
        heap_init(&heap, 0);
        struct buffer part;
        struct keyspace_result result;
        struct keyspace *targets[SCANS];
        uint64_t cursors[SCANS] = {0};
        unsigned left = SCANS;
        struct keyspace *source = made(1, 1000);
        fill(source);
        buffer_init(&part, &heap);
        for (unsigned i = 0; i < SCANS; i++)
                targets[i] = made((region_id)(i + 2), 0);
        bool done[SCANS] = {false};
        while (left > 0) {
                /* In runs: a place is lost to others, but not each time. */
                unsigned one = (unsigned)rng_below(&rng, SCANS);
                for (unsigned n = 0; n < 30 && !done[one]; n++) {
                        uint64_t twice = cursors[one];
                        if (rng_chance(&rng, 20))
                                told(source, &twice, &part);
                        told(source, &cursors[one], &part);
                        merged(targets[one], &part);
                        done[one] = cursors[one] == 0;
                        left -= done[one];
                }
        }
        for (unsigned i = 0; i < SCANS; i++) {
                assert_int_equal(keyspace_adopt(targets[i], NULL, NULL, &result), ERR_NONE);
                assert_int_equal(keyspace_digest(targets[i]), keyspace_digest(source));
                keyspace_free(targets[i]);
        }
        for (unsigned i = 0; i < 100; i++) {
                uint64_t cursor = rng_next(&rng) >> 8;
                told(source, &cursor, &part);
        }
        buffer_fini(&part);
        keyspace_free(source);
        assert_int_equal(heap.used_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_no_part_is_long), cmocka_unit_test(test_judged),
                cmocka_unit_test(test_changed_between), cmocka_unit_test(test_slice_is_missing),
                cmocka_unit_test(test_many_scans),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
