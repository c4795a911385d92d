#include "base/buffer.h"
#include "base/cursor.h"
#include "base/rng.h"

#include "../cmocka_all.h"

struct scratch {
        struct heap heap;
        struct buffer buffer;
};

static int set_up(void **state)
{
        static struct scratch scratch;
        heap_init(&scratch.heap, 0);
        buffer_init(&scratch.buffer, &scratch.heap);
        *state = &scratch;
        return 0;
}

static int tear_down(void **state)
{
        struct scratch *scratch = *state;
        buffer_fini(&scratch->buffer);
        return scratch->heap.used_bytes == 0 ? 0 : -1;
}

static void write_all_kinds(struct buffer *buffer)
{
        buffer_u8(buffer, 0xfe);
        buffer_u16(buffer, 0xbeef);
        buffer_u32(buffer, 0xdeadbeef);
        buffer_u64(buffer, 0x0123456789abcdef);
        buffer_varint(buffer, 300);
        buffer_varint_signed(buffer, -65);
        buffer_slice(buffer, BYTES("key"));
        buffer_bytes(buffer, BYTES("xy"));
        buffer_format(buffer, "%d-%s", 7, "z");
}

static enum err read_all_kinds(struct bytes data)
{
        struct cursor cursor = cursor_of(data);
        bool same = cursor_u8(&cursor) == 0xfe;
        same = cursor_u16(&cursor) == 0xbeef && same;
        same = cursor_u32(&cursor) == 0xdeadbeef && same;
        same = cursor_u64(&cursor) == 0x0123456789abcdef && same;
        same = cursor_varint(&cursor) == 300 && same;
        same = cursor_varint_signed(&cursor) == -65 && same;
        same = bytes_equal(cursor_slice(&cursor), BYTES("key")) && same;
        same = bytes_equal(cursor_bytes(&cursor, 2), BYTES("xy")) && same;
        same = bytes_equal(cursor_bytes(&cursor, 3), BYTES("7-z")) && same;
        if (!cursor_failed(&cursor))
                assert_true(same);
        return cursor_done(&cursor);
}

static void test_round_trip_and_every_truncation(void **state)
{
        struct buffer *buffer = &((struct scratch *)*state)->buffer;
        write_all_kinds(buffer);
        assert_int_equal(buffer->err, ERR_NONE);
        struct bytes whole = buffer_view(buffer);
        assert_int_equal(read_all_kinds(whole), ERR_NONE);
        for (size_t len = 0; len < whole.len; len++)
                assert_int_equal(read_all_kinds(bytes_of(whole.ptr, len)), ERR_TRUNCATED);
        buffer_u8(buffer, 0);
        assert_int_equal(read_all_kinds(buffer_view(buffer)), ERR_MALFORMED);
}

static void test_varint_boundaries(void **state)
{
        struct buffer *buffer = &((struct scratch *)*state)->buffer;
        for (unsigned bits = 0; bits <= 64; bits++) {
                for (int off = -1; off <= 1; off++) {
                        uint64_t value = (bits == 64 ? 0 : (uint64_t)1 << bits) + (uint64_t)off;
                        buffer_reset(buffer);
                        buffer_varint(buffer, value);
                        buffer_varint_signed(buffer, (int64_t)value);
                        struct cursor cursor = cursor_of(buffer_view(buffer));
                        assert_true(cursor_varint(&cursor) == value);
                        assert_true(cursor_varint_signed(&cursor) == (int64_t)value);
                        assert_int_equal(cursor_done(&cursor), ERR_NONE);
                }
        }
}

static void test_varint_too_wide(void **state)
{
        (void)state;
        static const struct {
                struct bytes data;
                enum err err;
        } rows[] = {
                {BYTES_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), ERR_NONE},
                {BYTES_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), ERR_MALFORMED},
                {BYTES_INIT("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), ERR_MALFORMED},
                {BYTES_INIT("\xff\xff"), ERR_TRUNCATED},
                {BYTES_INIT(""), ERR_TRUNCATED},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct cursor cursor = cursor_of(rows[i].data);
                (void)cursor_varint(&cursor);
                assert_int_equal(cursor_done(&cursor), rows[i].err);
        }
}

static void test_slice_longer_than_the_rest(void **state)
{
        (void)state;
        /* the length is near 2^64: a check by addition would wrap */
        struct cursor cursor = cursor_of(BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01zz"));
        assert_int_equal(cursor_slice(&cursor).len, 0);
        assert_int_equal(cursor_done(&cursor), ERR_TRUNCATED);
        assert_int_equal(cursor_u64(&cursor), 0);
}

static void test_first_error_sticks(void **state)
{
        (void)state;
        struct cursor cursor = cursor_of(BYTES("\x05"));
        assert_int_equal(cursor_varint_max(&cursor, 4), 0);
        assert_int_equal(cursor.err, ERR_MALFORMED);
        assert_int_equal(cursor_u8(&cursor), 0);
        assert_int_equal(cursor_done(&cursor), ERR_MALFORMED);
}

static void test_out_of_memory_sticks(void **state)
{
        struct scratch *scratch = *state;
        scratch->heap.fail_at = 1;
        write_all_kinds(&scratch->buffer);
        assert_int_equal(scratch->buffer.err, ERR_NOMEM);
        assert_int_equal(scratch->buffer.len, 0);
        buffer_reset(&scratch->buffer);
        write_all_kinds(&scratch->buffer);
        assert_int_equal(scratch->buffer.err, ERR_NONE);
        scratch->heap.limit_bytes = 300;
        for (int i = 0; i < 1000; i++)
                buffer_u64(&scratch->buffer, 1);
        assert_int_equal(scratch->buffer.err, ERR_NOMEM);
        assert_true(scratch->heap.used_bytes <= 300);
}

static void test_consume_and_patch(void **state)
{
        struct buffer *buffer = &((struct scratch *)*state)->buffer;
        buffer_bytes(buffer, BYTES("head"));
        buffer_u32(buffer, 0);
        buffer_patch_u32(buffer, 4, 0x64636261);
        buffer_consume(buffer, 2);
        assert_true(bytes_equal(buffer_view(buffer), BYTES("adabcd")));
        buffer_consume(buffer, 0);
        buffer_consume(buffer, 6);
        assert_int_equal(buffer->len, 0);
}

static void test_random_input_never_overruns(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 20261121, 0);
        for (int round = 0; round < 20000; round++) {
                uint8_t data[32];
                size_t len = (size_t)rng_below(&rng, sizeof data + 1);
                for (size_t i = 0; i < len; i++)
                        data[i] = (uint8_t)rng_next(&rng);
                struct cursor cursor = cursor_of(bytes_of(data, len));
                while (cursor_left(&cursor) > 0) {
                        assert_true(cursor_slice(&cursor).len <= len);
                        (void)cursor_varint(&cursor);
                }
        }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(test_round_trip_and_every_truncation),
                CASE(test_varint_boundaries),
                CASE(test_varint_too_wide),
                CASE(test_slice_longer_than_the_rest),
                CASE(test_first_error_sticks),
                CASE(test_out_of_memory_sticks),
                CASE(test_consume_and_patch),
                CASE(test_random_input_never_overruns),
        };
        return cmocka_run_group_tests_name("base/cursor", tests, NULL, NULL);
}
