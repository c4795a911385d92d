/* A state transfer that breaks off goes on behind the last part: what other streams bring meanwhile
 * neither undoes it nor is lost. Region 1 sends its state to region 2; region 3 writes too. */
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        WALL_MS = 1700000000,
        KEYS = 200,
};

static struct heap heap;
static struct keyspace *regions[4];

static void setup_regions(uint32_t slice_items)
{
        heap_init(&heap, 0);
        for (unsigned i = 1; i <= 3; i++) {
                struct keyspace_config config = {.origin = (region_id)i,
                                                 .ring_bytes = 1 << 20,
                                                 .drift_max_ms = 5000,
                                                 .slice_items = slice_items,
                                                 .incarnation = i,
                                                 .hash_key = {7, i}};
                regions[i] = keyspace_new(&heap, &config);
                assert_non_null(regions[i]);
        }
}

static void teardown_regions(void)
{
        for (unsigned i = 1; i <= 3; i++)
                keyspace_free(regions[i]);
        assert_int_equal(heap.used_bytes, 0);
}

static struct crdt_name key_of(char text[16], unsigned i)
{
        int len = snprintf(text, 16, "key%u", i);
        return (struct crdt_name){0, bytes_of(text, (size_t)len)};
}

static void add(unsigned region, unsigned key, const char *member)
{
        char text[16];
        struct keyspace_change change;
        struct bytes name = bytes_of(member, strlen(member));
        assert_int_equal(keyspace_local_set_add(regions[region], WALL_MS, key_of(text, key), &name,
                                                1, &change),
                         ERR_NONE);
}

static void take(unsigned region, unsigned key, const char *member)
{
        char text[16];
        struct keyspace_change change;
        struct bytes name = bytes_of(member, strlen(member));
        assert_int_equal(keyspace_local_set_remove(regions[region], WALL_MS, key_of(text, key),
                                                   &name, 1, &change),
                         ERR_NONE);
}

static void ship(unsigned from, unsigned to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(regions[to]), (region_id)from);
        assert_int_equal(keyspace_tail(regions[from], WALL_MS, after, 1 << 20, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(batch.parts[1].len, 0);
        assert_int_equal(keyspace_apply(regions[to], NULL, WALL_MS, (region_id)from, after,
                                        batch.last, batch.parts[0], &result),
                         ERR_NONE);
}

/* Parts of 1's state to 2, from the cursor on; how many at most. */
static bool parts(uint64_t *cursor, unsigned count)
{
        struct keyspace_result result;
        do {
                struct buffer part;
                buffer_init(&part, &heap);
                assert_int_equal(keyspace_scan(regions[1], NULL, cursor, 200, &part), ERR_NONE);
                assert_int_equal(keyspace_merge_state(regions[2], NULL, WALL_MS, buffer_view(&part),
                                                      &result),
                                 ERR_NONE);
                buffer_fini(&part);
        } while (*cursor != 0 && --count > 0 && !result.broken);
        return !result.broken;
}

static void same_everywhere(void)
{
        for (unsigned i = 0; i < 2; i++) {
                for (unsigned from = 1; from <= 3; from++)
                        for (unsigned to = 1; to <= 3; to++)
                                if (from != to)
                                        ship(from, to);
        }
        assert_int_equal(keyspace_digest(regions[1]), keyspace_digest(regions[2]));
        assert_int_equal(keyspace_digest(regions[1]), keyspace_digest(regions[3]));
}

/* 3 has added a member to each key, and 1 has taken it away again; 2 knows of neither. */
static void fill(void)
{
        for (unsigned i = 0; i < KEYS; i++) {
                add(1, i, "stays");
                add(3, i, "goes");
                add(3, i, "comes");
        }
        ship(3, 1);
        for (unsigned i = 0; i < KEYS; i++)
                take(1, i, "goes");
}

static void test_others_go_on_meanwhile(void **context)
{
        (void)context;
        setup_regions(0);
        struct keyspace_result result;
        struct keyspace_resume resume;
        uint64_t cursor = 0;
        fill();
        assert_false(keyspace_resume(regions[2], &resume));
        assert_true(parts(&cursor, 8));
        add(3, 1, "new");
        ship(3, 2); /* the link to 1 is cut: what 1 has taken away must not come back */
        assert_true(keyspace_resume(regions[2], &resume));
        assert_int_equal(resume.origin, 1);
        assert_true(resume.cursor == cursor);
        for (unsigned i = 0; i < KEYS; i++)
                add(1, i + KEYS, "later"); /* and the sender's table grows */
        assert_true(parts(&resume.cursor, KEYS));
        assert_int_equal(keyspace_adopt(regions[2], NULL, NULL, &result), ERR_NONE);
        assert_false(keyspace_resume(regions[2], &resume));
        same_everywhere();
        teardown_regions();
}

/* The transfer never goes on: what was skipped for its sake is there all the same. */
static void test_nothing_is_lost_where_it_never_ends(void **context)
{
        (void)context;
        setup_regions(0);
        uint64_t cursor = 0;
        fill();
        assert_true(parts(&cursor, 8));
        ship(3, 2);
        same_everywhere();
        teardown_regions();
}

/* In the middle of a key: a change of it comes by another stream, and the key is told again. */
/* What was taken away is told by its absence, and comes in a stream, too; then the transfer is
 * given up, and what was taken away comes. */
static void test_taken_away_before_it_comes(void **context)
{
        (void)context;
        setup_regions(0);
        struct buffer lost;
        uint64_t cursor = 0;
        fill();
        assert_true(parts(&cursor, 8));
        ship(1, 2);
        buffer_init(&lost, &heap);
        assert_int_equal(keyspace_scan(regions[1], NULL, &cursor, 200, &lost), ERR_NONE);
        buffer_fini(&lost);
        assert_false(parts(&cursor, 1));
        ship(3, 2);
        same_everywhere();
        teardown_regions();
}

static void test_within_a_key(void **context)
{
        (void)context;
        for (unsigned meanwhile = 0; meanwhile < 2; meanwhile++) {
                struct keyspace_result result;
                struct keyspace_resume resume;
                uint64_t cursor = 0;
                char text[16];
                setup_regions(4);
                for (unsigned i = 0; i < KEYS; i++) {
                        snprintf(text, sizeof text, "m%u", i);
                        add(3, 0, text);
                }
                ship(3, 1);
                for (unsigned i = 0; i < KEYS; i += 2) {
                        snprintf(text, sizeof text, "m%u", i);
                        take(1, 0, text);
                }
                assert_true(parts(&cursor, 10));
                assert_true(cursor != 0);
                if (meanwhile != 0)
                        ship(3, 2);
                assert_true(keyspace_resume(regions[2], &resume));
                /* What was on its way when the link broke is lost. */
                struct buffer lost;
                buffer_init(&lost, &heap);
                assert_int_equal(keyspace_scan(regions[1], NULL, &cursor, 200, &lost), ERR_NONE);
                buffer_fini(&lost);
                assert_true(parts(&resume.cursor, 2 * KEYS));
                assert_int_equal(keyspace_adopt(regions[2], NULL, NULL, &result), ERR_NONE);
                same_everywhere();
                teardown_regions();
        }
}

/* The sender came back with another memory: its cursors say nothing any more. */
static void test_another_table(void **context)
{
        (void)context;
        setup_regions(0);
        struct buffer part;
        struct keyspace_resume resume;
        uint64_t cursor = 0;
        fill();
        assert_true(parts(&cursor, 4));
        assert_true(keyspace_resume(regions[2], &resume));
        buffer_init(&part, &heap);
        assert_int_equal(keyspace_scan(regions[3], NULL, &cursor, 200, &part), ERR_NONE);
        assert_true(keyspace_state_table(buffer_view(&part)) != resume.table);
        assert_true(keyspace_state_table(bytes_of(part.ptr, 20)) == 0);
        buffer_fini(&part);
        teardown_regions();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_others_go_on_meanwhile),
                cmocka_unit_test(test_nothing_is_lost_where_it_never_ends),
                cmocka_unit_test(test_taken_away_before_it_comes),
                cmocka_unit_test(test_within_a_key),
                cmocka_unit_test(test_another_table),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
