#include "base/rng.h"

#include "../cmocka_all.h"

static void test_same_seed_same_stream(void **state)
{
        (void)state;
        struct rng a, b, other_stream, other_seed;
        rng_init(&a, 7, 1);
        rng_init(&b, 7, 1);
        rng_init(&other_stream, 7, 2);
        rng_init(&other_seed, 8, 1);
        int equal = 0;
        for (int i = 0; i < 1000; i++) {
                uint64_t value = rng_next(&a);
                assert_true(value == rng_next(&b));
                equal += value == rng_next(&other_stream);
                equal += value == rng_next(&other_seed);
        }
        assert_int_equal(equal, 0);
}

static void test_bounds(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 1, 0);
        unsigned seen = 0;
        for (int i = 0; i < 10000; i++) {
                uint64_t value = rng_between(&rng, 3, 6);
                assert_true(value >= 3 && value <= 6);
                seen |= 1u << value;
                assert_false(rng_chance(&rng, 0));
                assert_true(rng_chance(&rng, 1000));
        }
        assert_int_equal(seen, 0x78);
        assert_int_equal(rng_below(&rng, 0), 0);
        assert_int_equal(rng_below(&rng, 1), 0);
        (void)rng_between(&rng, 0, UINT64_MAX);
}

static void test_evenly_spread(void **state)
{
        (void)state;
        struct rng rng;
        unsigned counts[16] = {0};
        rng_init(&rng, 42, 3);
        for (int i = 0; i < 160000; i++)
                counts[rng_below(&rng, 16)]++;
        for (int i = 0; i < 16; i++)
                assert_in_range(counts[i], 9500, 10500);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same_seed_same_stream),
                cmocka_unit_test(test_bounds),
                cmocka_unit_test(test_evenly_spread),
        };
        return cmocka_run_group_tests_name("base/rng", tests, NULL, NULL);
}
