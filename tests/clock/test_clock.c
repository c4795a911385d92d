#include "clock/clock.h"

#include "../cmocka_all.h"

static void test_order(void **state)
{
        (void)state;
        static const struct {
                struct stamp a, b;
                int sign;
        } rows[] = {
                {{0, 0}, {1, 1}, -1}, {{1, 2}, {2, 1}, -1},          {{2, 1}, {2, 2}, -1},
                {{2, 2}, {2, 2}, 0},  {{UINT64_MAX, 1}, {1, 64}, 1},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                int order = stamp_compare(rows[i].a, rows[i].b);
                assert_int_equal((order > 0) - (order < 0), rows[i].sign);
                assert_int_equal(stamp_before(rows[i].a, rows[i].b), rows[i].sign < 0);
        }
}

static void test_clock_only_grows(void **state)
{
        (void)state;
        static const uint64_t walls[] = {1000, 1000, 1001, 999, 1, 0, 1001, 1002};
        struct hlc hlc = {0};
        uint64_t last = 0;
        for (size_t i = 0; i < COUNT_OF(walls); i++) {
                uint64_t now = hlc_now(&hlc, walls[i]);
                assert_true(now > last);
                assert_true(hlc_ms(now) >= walls[i]);
                last = now;
        }
        assert_int_equal(hlc_ms(last), 1002);
        assert_int_equal(last, hlc_of_ms(1002));
}

static void test_counter_runs_over(void **state)
{
        (void)state;
        struct hlc hlc = {.last = hlc_of_ms(7) | 0xffff};
        assert_int_equal(hlc_now(&hlc, 7), hlc_of_ms(8));
        assert_int_equal(hlc_now(&hlc, 8), hlc_of_ms(8) + 1);
}

static void test_drift(void **state)
{
        (void)state;
        static const struct {
                uint64_t remote_ms;
                bool refused;
                const char *why;
        } rows[] = {
                {0, false, "the past is fine"},
                {1000, false, "the same time"},
                {1500, false, "at the bound"},
                {1501, true, "beyond the bound"},
                {UINT64_MAX >> CLOCK_COUNTER_BITS, true, "far beyond"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct hlc hlc = {.last = hlc_of_ms(900)};
                uint64_t remote = hlc_of_ms(rows[i].remote_ms) + 5;
                enum err err = hlc_observe(&hlc, remote, 1000, 500);
                if ((err == ERR_REFUSED) != rows[i].refused)
                        fail_msg("%s", rows[i].why);
                if (rows[i].refused)
                        assert_int_equal(hlc.last, hlc_of_ms(900));
                else
                        assert_true(hlc_now(&hlc, 0) > remote);
        }
}

static void test_vector(void **state)
{
        (void)state;
        struct vector a = {0};
        struct vector b = {0};
        vector_advance(&a, 1, 10);
        vector_advance(&a, 1, 5);
        vector_advance(&a, 64, 7);
        vector_advance(&a, 0, 7);
        vector_advance(&a, 65, 7);
        assert_int_equal(vector_get(&a, 1), 10);
        assert_int_equal(vector_get(&a, 64), 7);
        assert_int_equal(vector_get(&a, 0), 0);
        assert_int_equal(vector_get(&a, 65), 0);
        assert_true(vector_covers(&a, (struct stamp){10, 1}));
        assert_false(vector_covers(&a, (struct stamp){11, 1}));
        assert_false(vector_covers(&a, (struct stamp){1, 2}));
        assert_true(vector_covers(&a, (struct stamp){0, 0}));
        vector_advance(&b, 2, 3);
        assert_false(vector_includes(&a, &b));
        vector_merge(&a, &b);
        assert_true(vector_includes(&a, &b));
        assert_false(vector_includes(&b, &a));
}

static void test_vector_bytes(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct vector vector = {0};
        struct vector again;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i += 9)
                vector_advance(&vector, (region_id)i, i * 1000);
        vector_encode(&vector, &buffer);
        struct cursor cursor = cursor_of(buffer_view(&buffer));
        vector_decode(&cursor, &again);
        assert_int_equal(cursor_done(&cursor), ERR_NONE);
        assert_memory_equal(&vector, &again, sizeof vector);
        for (size_t len = 0; len < buffer.len; len++) {
                cursor = cursor_of(bytes_of(buffer.ptr, len));
                vector_decode(&cursor, &again);
                assert_true(cursor_failed(&cursor));
        }
        buffer_fini(&buffer);
}

static void test_vector_bad_bytes(void **state)
{
        (void)state;
        static const struct {
                struct bytes data;
                const char *why;
        } rows[] = {
                {BYTES_INIT("\x41"), "more regions than there may be"},
                {BYTES_INIT("\x01\x00\x01\0\0\0\0\0\0\0"), "no region has number 0"},
                {BYTES_INIT("\x01\x41\x01\0\0\0\0\0\0\0"), "nor 65"},
                {BYTES_INIT("\x01\x01\0\0\0\0\0\0\0\0"), "a clock of 0"},
                {BYTES_INIT("\x02\x02\x01\0\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0\0"), "falling"},
                {BYTES_INIT("\x02\x02\x01\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\0"), "twice"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct vector vector;
                struct cursor cursor = cursor_of(rows[i].data);
                vector_decode(&cursor, &vector);
                if (!cursor_failed(&cursor))
                        fail_msg("%s", rows[i].why);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_clock_only_grows),
                cmocka_unit_test(test_counter_runs_over),
                cmocka_unit_test(test_drift),
                cmocka_unit_test(test_vector),
                cmocka_unit_test(test_vector_bytes),
                cmocka_unit_test(test_vector_bad_bytes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
