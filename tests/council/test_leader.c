/* Where the leader is best: rows of round trips, and what wobbles moves nobody. */
#include "council/leader.h"

#include "base/bytes.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct row {
        unsigned ms[3][3];
        unsigned votes[3];
        unsigned capacity[3];
        uint8_t present;
        uint8_t best;
        const char *why;
};

static const struct row rows[] = {
        {{{0, 70, 220}, {70, 0, 180}, {220, 180, 0}}, {1, 1, 1}, {1, 1, 1}, 0, 2, "in the middle"},
        {{{0, 70, 220}, {70, 0, 180}, {220, 180, 0}}, {1, 1, 1}, {1, 1, 1}, 1, 1, "not a fifth"},
        {{{0, 70, 220}, {70, 0, 180}, {220, 180, 0}}, {1, 1, 1}, {1, 1, 1}, 3, 2, "far better"},
        {{{0, 10, 10}, {10, 0, 10}, {10, 10, 0}}, {1, 1, 1}, {1, 1, 1}, 0, 0, "all alike"},
        {{{0, 1, 3}, {1, 0, 1}, {3, 1, 0}}, {1, 1, 1}, {1, 1, 1}, 0, 0, "less than 5 ms"},
        {{{0, 70, 220}, {70, 0, 180}, {220, 180, 0}}, {1, 1, 1}, {1, 1, 50}, 0, 3, "many clients"},
        {{{0, 70, 20}, {70, 0, 80}, {20, 80, 0}}, {1, 1, 1}, {1, 1, 0}, 0, 1, "a witness is near"},
        {{{0, 0, 220}, {0, 0, 180}, {220, 180, 0}}, {1, 1, 1}, {1, 1, 1}, 0, 0, "not known"},
        {{{0, 0, 220}, {0, 0, 180}, {220, 180, 0}}, {1, 1, 1}, {1, 1, 1}, 2, 2, "it stays"},
        {{{0, 90, 90}, {90, 0, 9}, {90, 9, 0}}, {3, 3, 3}, {1, 1, 1}, 1, 2, "of two the first"},
};

static size_t fill(const struct row *row, struct leader_region *regions)
{
        for (size_t i = 0; i < 3; i++) {
                regions[i] = (struct leader_region){.id = (uint8_t)(i + 1),
                                                    .leads = row->capacity[i] > 0,
                                                    .votes = row->votes[i],
                                                    .capacity = row->capacity[i]};
                for (size_t k = 0; k < 3; k++)
                        regions[i].rtt_us[k] = row->ms[i][k] * 1000ull;
        }
        return 3;
}

static void test_rows(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct leader_region regions[3];
                size_t count = fill(&rows[i], regions);
                uint8_t best = leader_region_best(regions, count, rows[i].present);
                if (best != rows[i].best)
                        fail_msg("row %zu (%s): %u, wanted %u", i, rows[i].why, best, rows[i].best);
        }
}

/* Measurements that wobble by 8 % move the leader once at most. */
static void test_wobble(void **state)
{
        struct rng rng;
        (void)state;
        for (unsigned seed = 1; seed <= 200; seed++) {
                struct leader_region regions[5] = {0};
                uint64_t base_us[5][5];
                uint8_t present = 0;
                unsigned moves = 0;
                rng_init(&rng, seed, 0);
                for (size_t i = 0; i < 5; i++)
                        for (size_t k = 0; k < i; k++)
                                base_us[i][k] = base_us[k][i] = 1000 + rng_below(&rng, 300000);
                for (unsigned round = 0; round < 50; round++) {
                        for (size_t i = 0; i < 5; i++) {
                                regions[i].id = (uint8_t)(i + 1);
                                regions[i].leads = true;
                                regions[i].votes = regions[i].capacity = 1;
                                for (size_t k = 0; k < 5; k++)
                                        regions[i].rtt_us[k] =
                                                i == k ? 0
                                                       : base_us[i][k] *
                                                                 (960 + rng_below(&rng, 81)) / 1000;
                        }
                        uint8_t best = leader_region_best(regions, 5, present);
                        moves += best != present;
                        present = best;
                }
                if (moves > 2)
                        fail_msg("seed %u: it moved %u times", seed, moves);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_wobble),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
