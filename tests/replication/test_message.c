/* The messages of replication: what is encoded is read back, and nothing else is taken. */
#include "replication/replication_priv.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct replication_message samples[] = {
        {.kind = REPLICATION_HELLO},
        {.kind = REPLICATION_BYE, .sub = 7},
        {.kind = REPLICATION_SUBSCRIBE, .sub = 1, .after = 1ull << 60, .whole = true},
        {.kind = REPLICATION_SUBSCRIBE,
         .sub = 2,
         .after = 50,
         .holes = {{1, false, 3, 9}, {1, true, 20, 1ull << 50}},
         .hole_count = 2},
        {.kind = REPLICATION_FETCH, .sub = 9, .origin = 3, .after = 1ull << 60},
        {.kind = REPLICATION_BUSY, .sub = 7},
        {.kind = REPLICATION_PASSED, .origin = 3, .holder = 2, .last = 1ull << 60, .part = 8},
        {.kind = REPLICATION_RELAYED,
         .sub = 9,
         .origin = 3,
         .after = 5,
         .last = 8,
         .live = true,
         .age_us = 77,
         .holes = {{3, true, 4, 6}},
         .hole_count = 1,
         .data = BYTES_INIT("deltas")},
        {.kind = REPLICATION_RELAYED, .sub = 9, .origin = 3, .after = 5, .last = 5, .gap = true},
        {.kind = REPLICATION_BATCH,
         .sub = 3,
         .after = 100,
         .last = 200,
         .age_us = 5,
         .data = BYTES_INIT("deltas")},
        {.kind = REPLICATION_BATCH, .sub = 3, .after = 100, .last = 100},
        {.kind = REPLICATION_BEAT, .sub = 4, .last = 9, .age_us = 1},
        {.kind = REPLICATION_ACK, .sub = 5, .last = 300, .part = 2},
        {.kind = REPLICATION_PIECE, .sub = 8, .part = 1, .last = 9, .data = BYTES_INIT("piece")},
        {.kind = REPLICATION_GOT, .sub = 8, .part = 1, .last = 5},
        {.kind = REPLICATION_PLACE, .sub = 9, .part = 3, .resume = {UINT64_MAX, 1, 700}},
        {.kind = REPLICATION_RESUME, .sub = 9, .resume = {5, UINT64_MAX, 0}},
        {.kind = REPLICATION_STATE, .sub = 6, .part = 1, .done = 999, .data = BYTES_INIT("state")},
        {.kind = REPLICATION_STATE,
         .sub = 6,
         .part = 2,
         .end = true,
         .positions = {{1, 10}, {2, 20}},
         .position_count = 2,
         .data = BYTES_INIT("end")},
};

static struct buffer encoded(struct heap *heap, const struct replication_message *message)
{
        struct buffer buffer;
        buffer_init(&buffer, heap);
        replication_message_encode(message, &buffer);
        assert_int_equal(buffer.err, ERR_NONE);
        return buffer;
}

static void test_round_trip(void **state)
{
        struct heap heap;
        (void)state;
        heap_init(&heap, 0);
        for (size_t i = 0; i < COUNT_OF(samples); i++) {
                struct buffer buffer = encoded(&heap, &samples[i]);
                struct replication_message read;
                assert_int_equal(replication_message_decode(buffer_view(&buffer), &read), ERR_NONE);
                struct buffer again = encoded(&heap, &read);
                assert_true(bytes_equal(buffer_view(&buffer), buffer_view(&again)));
                buffer_fini(&again);
                buffer_fini(&buffer);
        }
        assert_int_equal(heap.used_bytes, 0);
}

static void test_truncated_and_longer(void **state)
{
        struct heap heap;
        (void)state;
        heap_init(&heap, 0);
        for (size_t i = 0; i < COUNT_OF(samples); i++) {
                struct buffer buffer = encoded(&heap, &samples[i]);
                struct replication_message read;
                for (size_t len = 0; len < buffer.len; len++)
                        assert_int_not_equal(
                                replication_message_decode(bytes_of(buffer.ptr, len), &read),
                                ERR_NONE);
                buffer_u8(&buffer, 0);
                assert_int_not_equal(replication_message_decode(buffer_view(&buffer), &read),
                                     ERR_NONE);
                buffer_fini(&buffer);
        }
}

static void test_nonsense(void **state)
{
        static const struct {
                const char *bytes;
                size_t len;
                enum err err;
                const char *why;
        } rows[] = {
                {"\x01\x01\x00", 3, ERR_VERSION, "another version"},
                {"\x03\x00\x00", 3, ERR_MALFORMED, "kind 0"},
                {"\x03\x10\x00", 3, ERR_MALFORMED, "a kind beyond the last"},
                {"\x03\x03\x01\x05\x02", 5, ERR_MALFORMED, "a flag that is neither"},
                {"\x03\x03\x01\x05\x00\x01\x01\x00\x09\x09", 10, ERR_MALFORMED, "an empty hole"},
                {"\x03\x03\x01\x05\x00\x89\x01", 7, ERR_MALFORMED, "too many holes"},
                {"\x03\x09\x01\x01\x05\x04\x00\x00\x00\x00\x00", 11, ERR_MALFORMED,
                 "relayed backwards"},
                {"\x03\x0a\x01\x02\x00\x01\x01p", 8, ERR_MALFORMED, "a slot that there is not"},
                {"\x03\x0a\x01\x00\x00\x01\x00", 7, ERR_MALFORMED, "a piece of nothing"},
                {"\x03\x0a\x01\x00\x05\x05\x01p", 8, ERR_MALFORMED, "a piece beyond the end"},
                {"\x03\x0a\x01\x00\x07\x05\x01p", 8, ERR_MALFORMED, "a piece after the end"},
                {"\x03\x0b\x01\x05\x05", 5, ERR_MALFORMED, "got in a slot that there is not"},
                {"\x03\x04\x01\x05\x04\x00\x00", 7, ERR_MALFORMED, "a batch that goes back"},
                {"\x03\x07\x01\x01\x01\x00\x01\x00\x05\x00", 10, ERR_MALFORMED, "origin 0"},
                {"\x03\x07\x01\x01\x01\x00\x41", 7, ERR_MALFORMED, "too many positions"},
                {"\x03\x07\x01\x01\x00\xe9\x07\x00", 8, ERR_MALFORMED, "more than all"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct replication_message read;
                enum err err =
                        replication_message_decode(bytes_of(rows[i].bytes, rows[i].len), &read);
                if (err != rows[i].err)
                        fail_msg("%s: %s", rows[i].why, err_name(err));
        }
}

static void test_flipped_bits(void **state)
{
        struct heap heap;
        struct rng rng;
        uint64_t seed = 20240601;
        (void)state;
        heap_init(&heap, 0);
        rng_init(&rng, seed, 0);
        for (int round = 0; round < 20000; round++) {
                struct buffer buffer = encoded(&heap, &samples[rng_below(&rng, COUNT_OF(samples))]);
                struct replication_message read;
                for (uint64_t flips = 1 + rng_below(&rng, 4); flips > 0; flips--)
                        buffer.ptr[rng_below(&rng, buffer.len)] ^=
                                (uint8_t)(1u << rng_below(&rng, 8));
                if (replication_message_decode(buffer_view(&buffer), &read) == ERR_NONE) {
                        assert_true(read.position_count <= REPLICATION_POSITIONS_MAX);
                        assert_true(read.data.len <= buffer.len);
                }
                buffer_fini(&buffer);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_truncated_and_longer),
                cmocka_unit_test(test_nonsense),
                cmocka_unit_test(test_flipped_bits),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
