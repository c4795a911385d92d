/* The simulator itself: the same seed gives the same history, other seeds give others, and a
 * planted bug that breaks everything is seen. */
#include "sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_same_seed_same_history(void **state)
{
        uint64_t last = 0;
        (void)state;
        for (uint64_t seed = 1; seed <= 20; seed++) {
                struct sim_options options = {.seed = seed, .bug = SIM_BUG_NONE};
                struct sim_result first;
                struct sim_result second;
                sim_run(&options, &first);
                sim_run(&options, &second);
                if (first.violated)
                        fail_msg("seed %llu: %s", (unsigned long long)seed, first.violation);
                assert_true(first.hash == second.hash);
                assert_true(first.events == second.events);
                assert_true(first.hash != last);
                last = first.hash;
        }
}

/* Seeds that failed once. Their histories are others now, but not by much. */
static void test_seeds_that_failed(void **state)
{
        static const struct {
                uint64_t seed;
                const char *why;
        } rows[] = {
                {2096, "a node came back with an old topology, and took out who had come since"},
                {2747, "a witness that was cut off did not know for long that its leader was gone"},
                {103512, "who left its region as the last of its group took nobody in"},
                {601240, "a region kept a node that had nothing yet: its group began anew"},
                {8000387, "a session was taken for ended, as a younger one of its user had"},
        };
        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct sim_options options = {.seed = rows[i].seed, .bug = SIM_BUG_NONE};
                struct sim_result result;
                sim_run(&options, &result);
                if (result.violated)
                        fail_msg("seed %llu (%s): %s", (unsigned long long)rows[i].seed,
                                 rows[i].why, result.violation);
        }
}

static void test_bugs_have_names(void **state)
{
        size_t count;
        const struct sim_bug *bugs = sim_bugs(&count);
        (void)state;
        assert_true(count >= 10);
        for (size_t i = 0; i < count; i++) {
                assert_true(strlen(bugs[i].name) > 0 && strlen(bugs[i].breaks) > 0);
                assert_true(bugs[i].budget > 0);
                for (size_t k = 0; k < i; k++)
                        assert_string_not_equal(bugs[i].name, bugs[k].name);
        }
}

static void test_a_bug_is_seen(void **state)
{
        size_t count;
        const struct sim_bug *bugs = sim_bugs(&count);
        int bug = SIM_BUG_NONE;
        (void)state;
        for (size_t i = 0; i < count; i++)
                if (strcmp(bugs[i].name, "no-expiry") == 0)
                        bug = (int)i;
        assert_true(bug != SIM_BUG_NONE);
        for (uint64_t seed = 1; seed <= 20; seed++) {
                struct sim_options options = {.seed = seed, .bug = bug};
                struct sim_result result;
                sim_run(&options, &result);
                if (result.violated)
                        return;
        }
        fail_msg("20 seeds did not show it");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same_seed_same_history),
                cmocka_unit_test(test_seeds_that_failed),
                cmocka_unit_test(test_bugs_have_names),
                cmocka_unit_test(test_a_bug_is_seen),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
