/* Tests of verify: digests do not depend on order, records survive bad input, and keys are judged
 * as the header says. */
#include "verify/verify.h"

#include "../cmocka_all.h"
#include "base/rng.h"

enum {
        REGIONS = 3,
};

static uint8_t map[VERIFY_MAP_LEN];

static void test_digests_know_every_argument(void **state)
{
        (void)state;
        uint64_t name = verify_name(0, BYTES("key"));
        assert_int_equal(name, verify_name(0, BYTES("key")));
        assert_int_not_equal(name, verify_name(1, BYTES("key")));
        assert_int_not_equal(name, verify_name(0, BYTES("kez")));
        assert_true(verify_bucket(UINT64_MAX) == VERIFY_BUCKETS - 1);
        uint64_t item = verify_item(name, BYTES("f"), BYTES("v"));
        assert_int_not_equal(item, verify_item(name, BYTES("v"), BYTES("f")));
        assert_int_not_equal(item, verify_item(name, BYTES("fv"), BYTES("")));
        assert_int_not_equal(item, verify_item(name + 1, BYTES("f"), BYTES("v")));
        assert_int_not_equal(verify_piece(name, 0, BYTES("v")), verify_piece(name, 1, BYTES("v")));
        uint64_t shape = verify_shape(name, 1, 2, 3);
        assert_int_not_equal(shape, verify_shape(name, 2, 2, 3));
        assert_int_not_equal(shape, verify_shape(name, 1, 3, 3));
        assert_int_not_equal(shape, verify_shape(name, 1, 2, 4));
        assert_int_not_equal(verify_memory(name, 1), verify_memory(name, 2));
}

/* Sums of few-bit inputs: two lists with an element swapped differ, in whatever order. */
static void test_sums_of_pieces_know_the_place(void **state)
{
        (void)state;
        uint64_t name = verify_name(0, BYTES("list"));
        uint64_t ab = verify_piece(name, 0, BYTES("a")) + verify_piece(name, 1, BYTES("b"));
        uint64_t ba = verify_piece(name, 0, BYTES("b")) + verify_piece(name, 1, BYTES("a"));
        assert_int_not_equal(ab, ba);
}

static struct verify_record record_of(struct bytes key, uint64_t value, uint64_t hlc)
{
        return (struct verify_record){.db = 0,
                                      .key = key,
                                      .begin = true,
                                      .type = 1,
                                      .memory = hlc * 3,
                                      .value = value,
                                      .hlc = hlc,
                                      .origin = 1};
}

static void test_records_survive_bad_input(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct rng rng;
        const uint64_t seed = 20260731;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        rng_init(&rng, seed, 1);
        struct verify_record wrote = record_of(BYTES("a key"), 7, 9);
        verify_record_write(&buffer, &wrote);
        for (size_t len = 0; len <= buffer.len; len++) {
                struct verify_record read;
                struct cursor cursor = cursor_of(bytes_of(buffer.ptr, len));
                assert_true(verify_record_read(&cursor, &read) == (len == buffer.len));
                assert_true(cursor_failed(&cursor) == (len != 0 && len != buffer.len));
                if (len == buffer.len) {
                        assert_true(bytes_equal(read.key, wrote.key));
                        assert_int_equal(read.value, 7);
                        assert_int_equal(read.hlc, 9);
                }
        }
        for (size_t bit = 0; bit < buffer.len * 8; bit++) {
                struct verify *verify = verify_new(&heap, 1);
                assert_non_null(verify);
                buffer.ptr[bit / 8] = (uint8_t)(buffer.ptr[bit / 8] ^ 1u << bit % 8);
                enum err err = verify_records(verify, 0, buffer_view(&buffer));
                assert_true(err == ERR_NONE || err == ERR_TRUNCATED || err == ERR_MALFORMED);
                buffer.ptr[bit / 8] = (uint8_t)(buffer.ptr[bit / 8] ^ 1u << bit % 8);
                verify_free(verify);
        }
        for (unsigned turn = 0; turn < 200; turn++) {
                uint8_t noise[64];
                struct verify *verify = verify_new(&heap, 1);
                assert_non_null(verify);
                for (size_t i = 0; i < sizeof noise; i++)
                        noise[i] = (uint8_t)rng_below(&rng, 256);
                enum err err = verify_records(verify, 0, bytes_of(noise, sizeof noise));
                assert_true(err == ERR_NONE || err == ERR_TRUNCATED || err == ERR_MALFORMED);
                verify_free(verify);
        }
        buffer_fini(&buffer);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_sums_choose_the_buckets_that_differ(void **state)
{
        (void)state;
        struct heap heap;
        unsigned chosen = 0;
        heap_init(&heap, 0);
        struct verify *verify = verify_new(&heap, REGIONS);
        assert_non_null(verify);
        for (unsigned region = 0; region < REGIONS; region++) {
                verify_sum(verify, region, 0, 10, 100);
                verify_sum(verify, region, 9, 10, region == 2 ? 101 : 100);
                verify_sum(verify, region, VERIFY_BUCKETS - 1, region == 0 ? 1 : 0, 0);
                verify_sum(verify, region, VERIFY_BUCKETS, 1, 1); /* out of range */
        }
        verify_sum(verify, REGIONS, 1, 1, 1);
        assert_int_equal(verify_choose(verify, 1000, map, &chosen), 2);
        assert_int_equal(chosen, 2);
        assert_int_equal(map[0], 0);
        assert_int_equal(map[1], 2);
        assert_int_equal(map[VERIFY_MAP_LEN - 1], 0x80);
        assert_int_equal(verify_keys(verify, 0), 21);
        assert_int_equal(verify_choose(verify, 10, map, &chosen), 2);
        assert_int_equal(chosen, 1);
        assert_int_equal(map[VERIFY_MAP_LEN - 1], 0);
        verify_free(verify);
        assert_int_equal(heap.used_bytes, 0);
}

/* What the three regions show of one key in each round: a digest, 0 for nothing; and what becomes
 * of it. */
struct history {
        const char *why;
        unsigned rounds;
        uint64_t values[4][REGIONS];
        char verdict; /* e: equal, d: different, m: in motion */
};

static const struct history histories[] = {
        {"the same at once", 1, {{5, 5, 5}}, 'e'},
        {"seen to differ once only", 1, {{5, 5, 6}}, 'm'},
        {"differs in the same way twice", 2, {{5, 5, 6}, {5, 5, 6}}, 'd'},
        {"missing twice", 2, {{5, 0, 5}, {5, 0, 5}}, 'd'},
        {"arrived meanwhile", 2, {{5, 0, 5}, {5, 5, 5}}, 'e'},
        {"deleted meanwhile", 2, {{5, 0, 5}, {0, 0, 0}}, 'e'},
        {"differs in another way", 2, {{5, 5, 6}, {5, 5, 7}}, 'm'},
        {"written in one region, equal in none", 3, {{5, 6, 6}, {7, 6, 6}, {8, 7, 7}}, 'm'},
        {"moved, then stood still", 3, {{5, 6, 6}, {7, 6, 6}, {7, 6, 6}}, 'd'},
        {"the same between two that differ", 3, {{5, 6, 6}, {6, 6, 6}, {7, 6, 6}}, 'e'},
        {"judged once, it stays so", 3, {{5, 6, 6}, {5, 6, 6}, {5, 5, 5}}, 'd'},
        {"two regions of three differ from each other", 2, {{1, 2, 3}, {1, 2, 3}}, 'd'},
};

struct seen {
        char verdict;
        bool missing;
        bool value;
        uint64_t count;
};

static void see(void *context, const struct verify_key *key)
{
        struct seen *seen = context;
        seen->verdict = key->verdict == VERIFY_DIFFERENT ? 'd' : 'm';
        seen->missing = key->missing;
        seen->value = key->value;
        seen->count++;
}

static void round_take(struct verify *verify, struct heap *heap, const uint64_t *values)
{
        for (unsigned region = 0; region < REGIONS; region++) {
                struct buffer buffer;
                struct verify_record record = record_of(BYTES("key"), values[region], 1);
                buffer_init(&buffer, heap);
                /* In two parts, as a large value comes. */
                if (values[region] != 0) {
                        record.value = values[region] - 1;
                        verify_record_write(&buffer, &record);
                        record.begin = false;
                        record.value = 1;
                        verify_record_write(&buffer, &record);
                }
                assert_int_equal(verify_records(verify, region, buffer_view(&buffer)), ERR_NONE);
                buffer_fini(&buffer);
        }
}

static void test_verdicts(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(histories); i++) {
                struct heap heap;
                struct seen seen = {.verdict = 'e'};
                const struct history *history = &histories[i];
                uint64_t open = 0;
                heap_init(&heap, 0);
                struct verify *verify = verify_new(&heap, REGIONS);
                assert_non_null(verify);
                for (unsigned round = 0; round < history->rounds; round++) {
                        round_take(verify, &heap, history->values[round]);
                        open = verify_round_end(verify, map);
                }
                verify_each(verify, see, &seen);
                if (seen.verdict != history->verdict)
                        fail_msg("%s: %c", history->why, seen.verdict);
                assert_int_equal(open, seen.verdict == 'm');
                assert_int_equal(seen.count, seen.verdict != 'e');
                unsigned bucket = verify_bucket(verify_name(0, BYTES("key")));
                assert_int_equal(map[bucket / 8] >> bucket % 8 & 1, seen.verdict == 'm');
                verify_free(verify);
                assert_int_equal(heap.used_bytes, 0);
        }
}

/* The same value under another stamp is not the same. */
static void test_metadata_counts(void **state)
{
        (void)state;
        struct heap heap;
        struct seen seen = {.verdict = 'e'};
        heap_init(&heap, 0);
        struct verify *verify = verify_new(&heap, 2);
        assert_non_null(verify);
        for (unsigned round = 0; round < 2; round++) {
                for (unsigned region = 0; region < 2; region++) {
                        struct buffer buffer;
                        struct verify_record record = record_of(BYTES("key"), 5, 1 + region);
                        buffer_init(&buffer, &heap);
                        verify_record_write(&buffer, &record);
                        assert_int_equal(verify_records(verify, region, buffer_view(&buffer)),
                                         ERR_NONE);
                        buffer_fini(&buffer);
                }
                (void)verify_round_end(verify, map);
        }
        verify_each(verify, see, &seen);
        assert_int_equal(seen.verdict, 'd');
        assert_false(seen.missing);
        assert_false(seen.value);
        verify_free(verify);
}

/* A key that appears after the first round is nobody's candidate. */
static void test_later_keys_are_left_out(void **state)
{
        (void)state;
        static const uint64_t nothing[REGIONS];
        static const uint64_t differs[REGIONS] = {1, 2, 3};
        struct heap heap;
        struct seen seen = {0};
        heap_init(&heap, 0);
        struct verify *verify = verify_new(&heap, REGIONS);
        assert_non_null(verify);
        round_take(verify, &heap, nothing);
        assert_int_equal(verify_round_end(verify, map), 0);
        round_take(verify, &heap, differs);
        assert_int_equal(verify_round_end(verify, map), 0);
        verify_each(verify, see, &seen);
        assert_int_equal(seen.count, 0);
        verify_free(verify);
}

static void test_memory_runs_out_everywhere(void **state)
{
        (void)state;
        for (uint64_t fail_at = 1; fail_at <= 4; fail_at++) {
                struct heap heap;
                struct buffer buffer;
                struct verify_record record = record_of(BYTES("key"), 5, 1);
                struct heap plain;
                heap_init(&plain, 0);
                heap_init(&heap, 0);
                heap.fail_at = fail_at;
                buffer_init(&buffer, &plain);
                verify_record_write(&buffer, &record);
                struct verify *verify = verify_new(&heap, 1);
                assert_true((verify == NULL) == (fail_at <= 2));
                if (verify != NULL)
                        assert_int_equal(verify_records(verify, 0, buffer_view(&buffer)),
                                         ERR_NOMEM);
                verify_free(verify);
                buffer_fini(&buffer);
                assert_int_equal(heap.used_bytes, 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_digests_know_every_argument),
                cmocka_unit_test(test_sums_of_pieces_know_the_place),
                cmocka_unit_test(test_records_survive_bad_input),
                cmocka_unit_test(test_sums_choose_the_buckets_that_differ),
                cmocka_unit_test(test_verdicts),
                cmocka_unit_test(test_metadata_counts),
                cmocka_unit_test(test_later_keys_are_left_out),
                cmocka_unit_test(test_memory_runs_out_everywhere),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
