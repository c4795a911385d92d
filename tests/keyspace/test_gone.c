/* Names removed before they came, in every order: what is remembered is right, and costs steps that
 * do not grow with what is there already. Steps are spans moved, not time. */
#include "base/rng.h"

#include <string.h>

static size_t moved_bytes;

static void *counting_memmove(void *to, const void *from, size_t len)
{
        moved_bytes += len;
        return memmove(to, from, len);
}

#define memmove counting_memmove
#include "crdt/list_gone.c"
#undef memmove

#include "../cmocka_all.h"

enum {
        NAMES = 1 << 16,
        STAMPS = 64,
};

static struct list_run name_of(uint64_t number, uint32_t count)
{
        return (struct list_run){.stamp = {number / (NAMES / STAMPS) + 1, 3},
                                 .kind = LIST_TAIL,
                                 .first = (uint32_t)(number % (NAMES / STAMPS)),
                                 .count = count};
}

static bool keeps_odd(const void *context, struct stamp stamp)
{
        (void)context;
        return stamp.hlc % 2 == 1;
}

/* Random names, runs of them, and all in order: against a plain array of flags. */
static void test_against_flags(void **context)
{
        static bool there[NAMES];
        struct heap heap;
        struct rng rng;
        (void)context;
        for (uint64_t seed = 1; seed <= 20; seed++) {
                struct list_gone gone = {0};
                memset(there, 0, sizeof there);
                rng_init(&rng, seed, 0);
                heap_init(&heap, 0);
                unsigned adds = (unsigned)rng_between(&rng, 1, 3000);
                for (unsigned i = 0; i < adds; i++) {
                        uint64_t number = rng_below(&rng, seed % 2 == 0 ? NAMES : NAMES / 16);
                        struct list_run run = name_of(number, 1);
                        uint32_t most = NAMES / STAMPS - run.first;
                        run.count = (uint32_t)rng_between(&rng, 1, most < 9 ? most : 9);
                        assert_true(list_gone_add(&heap, &gone, run));
                        for (uint32_t k = 0; k < run.count; k++)
                                there[number + k] = true;
                }
                for (unsigned pass = 0; pass < 2; pass++) {
                        size_t spans = 0;
                        for (uint64_t i = 0; i < NAMES; i++) {
                                struct list_run run = name_of(i, 1);
                                bool first = run.first == 0 || !there[i - 1];
                                there[i] = there[i] && (pass == 0 || keeps_odd(NULL, run.stamp));
                                spans += there[i] && first;
                                if (list_gone_has(&gone, run.stamp, run.first) != there[i])
                                        fail_msg("seed %llu, name %llu", (unsigned long long)seed,
                                                 (unsigned long long)i);
                        }
                        assert_int_equal(gone.count, spans);
                        list_gone_prune(&heap, &gone, keeps_odd, NULL);
                }
                list_gone_free(&heap, &gone);
                assert_int_equal(heap.used_bytes, 0);
        }
}

/* Every other name, in random order, so that none touches another. */
static size_t spans_moved(uint64_t names)
{
        static uint64_t order[NAMES];
        struct heap heap;
        struct rng rng;
        struct list_gone gone = {0};
        rng_init(&rng, 5, 0);
        heap_init(&heap, 0);
        for (uint64_t i = 0; i < names; i++)
                order[i] = i;
        for (uint64_t i = names; i > 1; i--) {
                uint64_t other = rng_below(&rng, i);
                uint64_t one = order[i - 1];
                order[i - 1] = order[other];
                order[other] = one;
        }
        moved_bytes = 0;
        for (uint64_t i = 0; i < names; i++) {
                struct list_run run = {
                        .stamp = {7, 3}, .first = (uint32_t)(2 * order[i]), .count = 1};
                assert_true(list_gone_add(&heap, &gone, run));
        }
        assert_int_equal(gone.count, names);
        list_gone_free(&heap, &gone);
        assert_int_equal(heap.used_bytes, 0);
        return moved_bytes / sizeof(struct list_span);
}

static void test_steps(void **context)
{
        (void)context;
        size_t few = spans_moved(NAMES / 16);
        size_t many = spans_moved(NAMES);
        assert_in_range(many / NAMES, 1, CHUNK_SPANS);
        assert_true(many < few * 16 * 2);
}

/* Memory runs out at each place once. */
static void test_no_memory(void **context)
{
        (void)context;
        for (size_t limit = 64; limit < 64 << 10; limit += 512) {
                struct heap heap;
                struct list_gone gone = {0};
                heap_init(&heap, limit);
                uint64_t added = 0;
                while (added < 4000 && list_gone_add(&heap, &gone, name_of(2 * added, 1)))
                        added++;
                assert_int_equal(gone.count, added);
                assert_false(list_gone_has(&gone, name_of(2 * added, 1).stamp,
                                           name_of(2 * added, 1).first));
                list_gone_free(&heap, &gone);
                assert_int_equal(heap.used_bytes, 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_against_flags),
                cmocka_unit_test(test_steps),
                cmocka_unit_test(test_no_memory),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
