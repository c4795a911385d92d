/* What other regions lack of a primary's commits: against a plain list of all of them. */
#include "primary/primary.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECOND  1000000ull
#define LOOK_US 100000ull

static void test_steps(void **state)
{
        (void)state;
        struct primary_exposure exposure = {0};
        assert_int_equal(primary_exposure_bytes(&exposure), 0);
        assert_int_equal(primary_exposure_age_us(&exposure, SECOND), 0);
        primary_exposure_sample(&exposure, 5, 1000, SECOND, false);
        primary_exposure_sample(&exposure, 5, 1000, 2 * SECOND, false);
        assert_int_equal(primary_exposure_bytes(&exposure), 0);
        /* nothing had been committed at 2 s: so it is of after that */
        primary_exposure_sample(&exposure, 5, 1300, 3 * SECOND, false);
        assert_int_equal(primary_exposure_bytes(&exposure), 300);
        assert_int_equal(primary_exposure_age_us(&exposure, 4 * SECOND), 2 * SECOND);
        primary_exposure_sample(&exposure, 5, 1500, 4 * SECOND, false);
        primary_exposure_known(&exposure, 1299);
        assert_int_equal(primary_exposure_age_us(&exposure, 5 * SECOND), 3 * SECOND);
        primary_exposure_known(&exposure, 1300);
        assert_int_equal(primary_exposure_bytes(&exposure), 200);
        assert_int_equal(primary_exposure_age_us(&exposure, 5 * SECOND), 2 * SECOND);
        primary_exposure_known(&exposure, 1200);
        assert_int_equal(primary_exposure_bytes(&exposure), 200);
        primary_exposure_known(&exposure, 1600);
        assert_int_equal(primary_exposure_bytes(&exposure), 0);
        assert_int_equal(primary_exposure_age_us(&exposure, 9 * SECOND), 0);
        /* late samples, and a server that seems to have less, change nothing */
        primary_exposure_sample(&exposure, 5, 1700, 3 * SECOND, false);
        primary_exposure_sample(&exposure, 5, 1400, 9 * SECOND, false);
        assert_int_equal(primary_exposure_bytes(&exposure), 0);
        /* another timeline begins anew */
        primary_exposure_sample(&exposure, 6, 900, 10 * SECOND, false);
        assert_int_equal(primary_exposure_bytes(&exposure), 0);
        primary_exposure_sample(&exposure, 6, 950, 11 * SECOND, false);
        assert_int_equal(primary_exposure_bytes(&exposure), 50);
        /* who has told of it has less than there was at the beginning */
        primary_exposure_known(&exposure, 880);
        assert_int_equal(primary_exposure_bytes(&exposure), 70);
}

struct limit_row {
        const char *why;
        struct primary_limit limit;
        uint64_t committed, known, now_us;
        bool held, over, stays; /* stays: where it was beyond the limit before */
};

static void test_limit(void **state)
{
        (void)state;
        static const struct limit_row rows[] = {
                {"no limit", {0, 0}, 5000, 0, 99 * SECOND, false, false, false},
                {"as old as allowed", {4 * SECOND, 0}, 2000, 1000, 5 * SECOND, false, false, true},
                {"older", {4 * SECOND, 0}, 2000, 1000, 5 * SECOND + 1, false, true, true},
                {"half of it", {4 * SECOND, 0}, 2000, 1000, 3 * SECOND, false, false, false},
                {"as much as allowed", {0, 1000}, 2000, 1000, 2 * SECOND, false, false, true},
                {"more", {0, 999}, 2000, 1000, 2 * SECOND, false, true, true},
                {"half of it", {0, 2000}, 2000, 1000, 2 * SECOND, false, false, false},
                {"both, one is met", {SECOND, 9999}, 2000, 1000, 9 * SECOND, false, true, true},
                {"held before: not all is known",
                 {9 * SECOND, 0},
                 2000,
                 999,
                 2 * SECOND,
                 true,
                 true,
                 true},
                {"held before: all is known",
                 {9 * SECOND, 0},
                 2000,
                 1000,
                 2 * SECOND,
                 true,
                 false,
                 false},
                {"held before: the limit is gone",
                 {0, 0},
                 2000,
                 999,
                 2 * SECOND,
                 true,
                 false,
                 false},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                for (int again = 0; again < 2; again++) {
                        const struct limit_row *row = &rows[i];
                        struct primary_exposure exposure = {0};
                        primary_exposure_sample(&exposure, 1, 1000, SECOND, row->held);
                        primary_exposure_sample(&exposure, 1, row->committed, SECOND, row->held);
                        primary_exposure_known(&exposure, row->known);
                        exposure.over = exposure.over || again == 1;
                        bool over = primary_exposure_look(&exposure, &row->limit, row->now_us);
                        bool want = again == 1 ? row->stays : row->over;
                        if (over != want || exposure.over != over)
                                fail_msg("%s (%d): %d", row->why, again, over);
                }
        }
}

#define COMMITS_MAX 20000

/* Commits at random times, looks in between, a standby that stops and goes on. */
static void test_random(void **state)
{
        (void)state;
        static struct primary_mark commits[COMMITS_MAX];
        for (uint64_t seed = 1; seed <= 20; seed++) {
                struct rng rng;
                struct primary_exposure exposure = {0};
                size_t count = 0, gone = 0;
                uint64_t lsn = 5000, known = 0, look_us = 0;
                rng_init(&rng, seed, 0);
                uint64_t pause = 1 + rng_below(&rng, 3000000);
                bool streams = true;
                for (uint64_t now_us = SECOND; count < COMMITS_MAX / 4;
                     now_us += 1 + rng_below(&rng, pause)) {
                        if (rng_below(&rng, 3) > 0) {
                                lsn += 1 + rng_below(&rng, 500);
                                commits[count++] = (struct primary_mark){lsn, now_us};
                        }
                        if (now_us < look_us)
                                continue;
                        primary_exposure_sample(&exposure, 3, lsn, now_us, false);
                        uint64_t late_us = now_us - look_us + LOOK_US;
                        look_us = now_us + LOOK_US;
                        if (rng_below(&rng, 200) == 0)
                                streams = !streams;
                        if (streams && lsn > 5500)
                                known = lsn - rng_below(&rng, 500);
                        primary_exposure_known(&exposure, known);
                        while (gone < count && commits[gone].lsn <= exposure.known)
                                gone++;
                        uint64_t age_us = primary_exposure_age_us(&exposure, now_us);
                        uint64_t true_us = gone < count ? now_us - commits[gone].at_us : 0;
                        if (exposure.known == 0)
                                continue; /* what was there at the beginning is not counted */
                        if (age_us < true_us ||
                            age_us > true_us + true_us / 3 + late_us + pause + LOOK_US)
                                fail_msg("seed %llu: %llu us are taken for %llu us",
                                         (unsigned long long)seed, (unsigned long long)true_us,
                                         (unsigned long long)age_us);
                        assert_int_equal(primary_exposure_bytes(&exposure),
                                         lsn > exposure.known ? lsn - exposure.known : 0);
                        assert_in_range(exposure.count, 1, PRIMARY_MARKS_MAX);
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_steps),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_random),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
