/* The table against a plain array of flags: inserts, removals and finds in random order, walks and
 * scans while it grows and shrinks, and every allocation failing once. */
#include "crdt/table.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

#include "base/rng.h"

#include <stddef.h>

enum {
        KEYS = 3000,
};

struct thing {
        struct node node;
        uint32_t number;
};

static struct thing things[KEYS];
static bool there[KEYS];
static unsigned seen[KEYS];

static struct table_env env = {.heap = &heap, .hash_key = {1, 2}};

static void things_init(void)
{
        for (uint32_t i = 0; i < KEYS; i++) {
                things[i] = (struct thing){.number = i};
                things[i].node.key_len = sizeof(uint32_t);
                things[i].node.key_at = offsetof(struct thing, number);
                things[i].node.space = (uint16_t)(i % 3);
                there[i] = false;
        }
}

static struct node *find(struct table *table, uint32_t number)
{
        return table_find(&env, table, (uint16_t)(number % 3), bytes_of(&number, sizeof number));
}

static void toggle(struct table *table, uint32_t number)
{
        if (there[number])
                table_remove(&env, table, &things[number].node);
        else
                assert_true(table_insert(&env, table, &things[number].node));
        there[number] = !there[number];
}

static void see(void *context, struct node *node)
{
        (void)context;
        seen[((struct thing *)node)->number]++;
}

static void check_walk(const struct table *table)
{
        struct table_walk walk = {0};
        memset(seen, 0, sizeof seen);
        for (struct node *node = table_next(table, &walk); node != NULL;
             node = table_next(table, &walk))
                see(NULL, node);
        for (uint32_t i = 0; i < KEYS; i++)
                assert_int_equal(seen[i], there[i]);
}

static void test_random(void **state)
{
        (void)state;
        struct table table = {0};
        struct rng rng;
        rng_init(&rng, 7, 0);
        things_init();
        size_t count = 0;
        for (unsigned step = 0; step < 60000; step++) {
                /* in waves: mostly inserts, then mostly removals */
                bool wave = step / 10000 % 2 == 0;
                uint32_t number = (uint32_t)rng_below(&rng, KEYS);
                if (there[number] != wave || rng_below(&rng, 8) == 0) {
                        toggle(&table, number);
                        count = there[number] ? count + 1 : count - 1;
                }
                number = (uint32_t)rng_below(&rng, KEYS);
                struct node *node = find(&table, number);
                assert_ptr_equal(node, there[number] ? &things[number].node : NULL);
                assert_int_equal(table.count, count);
                if (step % 2500 == 0)
                        check_walk(&table);
        }
        check_walk(&table);
        table_fini(&env, &table);
}

/* What is there from the first call of a scan to its last is seen, whatever happens between. */
static void test_scan_while_it_changes(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 11, 0);
        for (unsigned round = 0; round < 40; round++) {
                struct table table = {0};
                bool stays[KEYS] = {false};
                bool grows = round % 2 == 0;
                uint64_t cursor = 0;
                things_init();
                memset(seen, 0, sizeof seen);
                for (uint32_t i = 0; i < (grows ? 200 : KEYS); i++)
                        toggle(&table, i);
                for (uint32_t i = 0; i < 200; i++)
                        stays[i] = true;
                do {
                        cursor = table_scan(&table, cursor, see, NULL);
                        for (unsigned i = 0; i < 40; i++) {
                                uint32_t number = 200 + (uint32_t)rng_below(&rng, KEYS - 200);
                                if (there[number] != grows)
                                        toggle(&table, number);
                        }
                } while (cursor != 0);
                for (uint32_t i = 0; i < KEYS; i++)
                        assert_true(!stays[i] || seen[i] > 0);
                table_fini(&env, &table);
        }
}

static bool drop_odd(void *context, struct node *node)
{
        (void)context;
        uint32_t number = ((struct thing *)node)->number;
        there[number] = number % 2 == 0;
        return number % 2 != 0;
}

static void test_sweep(void **state)
{
        (void)state;
        struct table table = {0};
        things_init();
        for (uint32_t i = 0; i < KEYS; i++)
                toggle(&table, i);
        table_sweep(&table, drop_odd, NULL);
        assert_int_equal(table.count, KEYS / 2);
        check_walk(&table);
        for (uint32_t i = 0; i < KEYS; i++)
                assert_true((find(&table, i) != NULL) == there[i]);
        table_fini(&env, &table);
}

/* A failed insert leaves the table as it was; a failed growth is no failure. */
static void test_no_memory(void **state)
{
        (void)state;
        for (unsigned nth = 1; nth < 60; nth++) {
                struct table table = {0};
                things_init();
                heap.fail_at = heap.calls + nth;
                for (uint32_t i = 0; i < 400; i++) {
                        there[i] = table_insert(&env, &table, &things[i].node);
                        assert_true(there[i] || heap.calls >= heap.fail_at);
                }
                heap.fail_at = 0;
                check_walk(&table);
                table_fini(&env, &table);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),
                cmocka_unit_test(test_scan_while_it_changes),
                cmocka_unit_test(test_sweep),
                cmocka_unit_test(test_no_memory),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
