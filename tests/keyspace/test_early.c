/* Removals that came before what they remove, told in a state while that comes: a receiver that
 * gets it later, by its own stream, must not keep it. */
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <string.h>

enum {
        REGIONS = 4, /* 1 removes what 3 has added; 2 sends its state to 4 */
        ADDED = 8,
        FILL = 16, /* other keys, so that there are several parts */
        WALL_MS = 1700000000,
        TOLD_MS = 2500, /* what was seen is told a while later */
        PARTS_MAX = 400,
        AN_HOUR_MS = 3600 * 1000,
};

static struct heap heap;
static struct keyspace *regions[REGIONS + 1];
static uint64_t wall_ms;

static struct crdt_name key(const char *text)
{
        return (struct crdt_name){0, bytes_of(text, strlen(text))};
}

/* ---- what is added and removed, by type */

static void set_add(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        char text[8];
        struct bytes member = bytes_of(text, (size_t)snprintf(text, sizeof text, "m%u", i));
        assert_int_equal(
                keyspace_local_set_add(regions[region], wall_ms, key(name), &member, 1, &change),
                ERR_NONE);
}

static void set_take(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        char text[8];
        struct bytes member = bytes_of(text, (size_t)snprintf(text, sizeof text, "m%u", i));
        assert_int_equal(
                keyspace_local_set_remove(regions[region], wall_ms, key(name), &member, 1, &change),
                ERR_NONE);
}

static void zset_add(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        char text[8];
        struct keyspace_score score = {
                bytes_of(text, (size_t)snprintf(text, sizeof text, "m%u", i)), i + 1};
        assert_int_equal(
                keyspace_local_zset_add(regions[region], wall_ms, key(name), &score, 1, &change),
                ERR_NONE);
        if (i % 2 == 0)
                assert_int_equal(keyspace_local_zset_increment(regions[region], wall_ms, key(name),
                                                               score.member, 1, i + 2, &change),
                                 ERR_NONE);
}

static void zset_take(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        char text[8];
        struct bytes member = bytes_of(text, (size_t)snprintf(text, sizeof text, "m%u", i));
        assert_int_equal(keyspace_local_zset_remove(regions[region], wall_ms, key(name), &member, 1,
                                                    &change),
                         ERR_NONE);
}

static void hash_add(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        char text[8];
        struct keyspace_pair pair = {bytes_of(text, (size_t)snprintf(text, sizeof text, "m%u", i)),
                                     BYTES("5")};
        assert_int_equal(
                keyspace_local_hash_set(regions[region], wall_ms, key(name), &pair, 1, &change),
                ERR_NONE);
        if (i % 2 == 0)
                assert_int_equal(keyspace_local_hash_increment(regions[region], wall_ms, key(name),
                                                               pair.field, 1, 6, &change),
                                 ERR_NONE);
}

static void hash_take(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        char text[8];
        struct bytes field = bytes_of(text, (size_t)snprintf(text, sizeof text, "m%u", i));
        assert_int_equal(
                keyspace_local_hash_delete(regions[region], wall_ms, key(name), &field, 1, &change),
                ERR_NONE);
}

static void list_add(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        struct bytes value = BYTES("v");
        assert_int_equal(keyspace_local_list_push(regions[region], wall_ms, key(name), i % 2 == 0,
                                                  &value, 1, &change),
                         ERR_NONE);
}

static void list_take(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        struct keyspace_range range = {i % 3, 1};
        assert_int_equal(
                keyspace_local_list_remove(regions[region], wall_ms, key(name), &range, 1, &change),
                ERR_NONE);
}

static void stream_add(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        struct bytes strings[] = {BYTES("f"), BYTES("v")};
        struct keyspace_entry entry = {{i + 1, 1}, strings, 2};
        assert_int_equal(keyspace_local_stream_add(regions[region], wall_ms, key(name), entry.id,
                                                   &entry, 1, &change),
                         ERR_NONE);
}

static void stream_take(unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        struct keyspace_ids ids = {{i + 1, 1}, {i + 1, 1}};
        assert_int_equal(
                keyspace_local_stream_remove(regions[region], wall_ms, key(name), &ids, 1, &change),
                ERR_NONE);
}

/* The key as a whole. */
static void delete (unsigned region, const char *name, unsigned i)
{
        struct keyspace_change change;
        if (i == 0)
                assert_int_equal(
                        keyspace_local_delete(regions[region], wall_ms, key(name), &change),
                        ERR_NONE);
}

static const struct kind {
        const char *name;
        void (*add)(unsigned region, const char *name, unsigned i);
        void (*take)(unsigned region, const char *name, unsigned i);
        unsigned taken; /* so many of those that are added */
} kinds[] = {
        {"set", set_add, set_take, ADDED - 2},
        {"zset", zset_add, zset_take, ADDED - 2},
        {"hash", hash_add, hash_take, ADDED - 2},
        {"list", list_add, list_take, ADDED - 3},
        {"stream", stream_add, stream_take, ADDED - 2},
        {"set as a whole", set_add, set_take, ADDED},
        {"list as a whole", list_add, list_take, ADDED},
        {"stream as a whole", stream_add, stream_take, ADDED},
        {"deleted set", set_add, delete, 1},
        {"deleted sorted set", zset_add, delete, 1},
        {"deleted hash", hash_add, delete, 1},
        {"deleted list", list_add, delete, 1},
        {"deleted stream", stream_add, delete, 1},
};

/* ---- regions */

static void ship(unsigned from, unsigned to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(regions[to]), (region_id)from);
        assert_int_equal(keyspace_tail(regions[from], wall_ms, after, 1 << 20, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(batch.parts[1].len, 0);
        assert_int_equal(keyspace_apply(regions[to], NULL, wall_ms, (region_id)from, after,
                                        batch.last, batch.parts[0], &result),
                         ERR_NONE);
}

static void ship_all(void)
{
        for (unsigned from = 1; from <= REGIONS; from++)
                for (unsigned to = 1; to <= REGIONS; to++)
                        if (from != to)
                                ship(from, to);
}

static void time_passes(void)
{
        struct keyspace_change change;
        wall_ms += TOLD_MS;
        for (unsigned i = 1; i <= REGIONS; i++)
                keyspace_heartbeat(regions[i], wall_ms, &change);
}

/* All have told that they have all. */
static void all_told(void)
{
        for (unsigned i = 0; i < 4; i++) {
                time_passes();
                ship_all();
        }
}

static void setup_regions(void)
{
        const region_id members[] = {1, 2, 3, 4};
        heap_init(&heap, 0);
        wall_ms = WALL_MS;
        for (unsigned i = 1; i <= REGIONS; i++) {
                struct keyspace_config config = {.origin = (region_id)i,
                                                 .ring_bytes = 1 << 16,
                                                 .drift_max_ms = 5000,
                                                 .slice_items = 2,
                                                 .incarnation = i};
                regions[i] = keyspace_new(&heap, &config);
                assert_non_null(regions[i]);
                assert_int_equal(keyspace_members(regions[i], members, REGIONS), ERR_NONE);
                set_add(i, "first", i);
        }
        for (unsigned i = 0; i < FILL; i++) {
                char name[8];
                snprintf(name, sizeof name, "k%u", i);
                set_add(2, name, 0);
        }
        ship_all();
        all_told();
}

static void teardown_regions(void)
{
        for (unsigned i = 1; i <= REGIONS; i++)
                keyspace_free(regions[i]);
        assert_int_equal(heap.used_bytes, 0);
}

static void same_everywhere(const char *name)
{
        ship_all();
        for (unsigned i = 2; i <= REGIONS; i++) {
                if (keyspace_key_digest(regions[1], key(name)) !=
                    keyspace_key_digest(regions[i], key(name)))
                        fail_msg("%s: %u differs", name, i);
                assert_int_equal(keyspace_digest(regions[1]), keyspace_digest(regions[i]));
        }
}

static void part(uint64_t *cursor)
{
        struct keyspace_result result;
        struct buffer bytes;
        buffer_init(&bytes, &heap);
        assert_int_equal(keyspace_scan(regions[2], NULL, cursor, 1, &bytes), ERR_NONE);
        assert_int_equal(
                keyspace_merge_state(regions[4], NULL, wall_ms, buffer_view(&bytes), &result),
                ERR_NONE);
        assert_false(result.broken);
        buffer_fini(&bytes);
}

static void added_and_taken(const struct kind *kind)
{
        for (unsigned i = 0; i < ADDED; i++)
                kind->add(3, kind->name, i);
        ship(3, 1);
        for (unsigned i = 0; i < kind->taken; i++)
                kind->take(1, kind->name, i);
        ship(1, 2);
}

/* What was removed comes to 2 after so many parts, and everything that can be is forgotten. Returns
 * how many there were. */
static unsigned told(const struct kind *kind, unsigned middle)
{
        struct keyspace_result result;
        uint64_t cursor = 0;
        unsigned count = 0;
        setup_regions();
        added_and_taken(kind);
        do {
                part(&cursor);
                if (++count == middle) {
                        ship(3, 2);
                        keyspace_collect(regions[2], 1 << 16);
                }
                assert_true(count < PARTS_MAX);
        } while (cursor != 0);
        assert_int_equal(keyspace_adopt(regions[4], NULL, NULL, &result), ERR_NONE);
        same_everywhere(kind->name);
        teardown_regions();
        return count;
}

static void test_comes_meanwhile(void **context)
{
        (void)context;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
                unsigned count = told(&kinds[i], 0);
                assert_true(count > 1);
                for (unsigned middle = 1; middle < count; middle++)
                        told(&kinds[i], middle);
        }
}

/* When all have told that they have it, nothing is remembered of it any more. */
static void test_is_forgotten_in_the_end(void **context)
{
        (void)context;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
                uint64_t cursor = 0;
                setup_regions();
                part(&cursor);
                added_and_taken(&kinds[i]);
                if (kinds[i].taken < ADDED)
                        delete (1, kinds[i].name, 0);
                ship_all();
                keyspace_collect(regions[2], 1 << 16);
                all_told();
                for (unsigned k = 0; k < 3; k++)
                        keyspace_collect(regions[2], 1 << 16);
                assert_int_equal(keyspace_stats(regions[2]).tombstones, 0);
                teardown_regions();
        }
}

/* Nobody has asked for long, and it is forgotten at once: what is asked for then is of another
 * scan. */
static void test_pause(void **context)
{
        (void)context;
        struct keyspace_result result;
        struct keyspace_resume resume;
        struct buffer bytes;
        uint64_t cursor = 0;
        setup_regions();
        part(&cursor);
        assert_true(cursor != 0);
        assert_true(keyspace_resume(regions[4], &resume));
        wall_ms += AN_HOUR_MS;
        set_add(2, "later", 0);
        buffer_init(&bytes, &heap);
        assert_int_equal(keyspace_scan(regions[2], NULL, &cursor, 1, &bytes), ERR_NONE);
        assert_true(keyspace_state_table(buffer_view(&bytes)) != resume.table);
        assert_int_equal(
                keyspace_merge_state(regions[4], NULL, wall_ms, buffer_view(&bytes), &result),
                ERR_NONE);
        assert_true(result.broken);
        buffer_fini(&bytes);
        teardown_regions();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_comes_meanwhile),
                cmocka_unit_test(test_is_forgotten_in_the_end),
                cmocka_unit_test(test_pause),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
