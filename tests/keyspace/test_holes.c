/* What a crash has lost comes back from a region that had been given it: a removal that it knows
 * nothing of, made in the meantime, meets it everywhere or nowhere, in whatever order they come. */
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

enum {
        ONE = 1, /* has what was lost, then hears of the removal */
        TWO,     /* crashes, and forgets all */
        THREE,   /* has what was lost, too */
        COUNT,
};

static struct heap heap;
static struct keyspace *replicas[COUNT];
static uint64_t wall_ms;
static struct crdt_name name;

static struct keyspace *opened(region_id origin, uint64_t incarnation)
{
        const region_id all[] = {ONE, TWO, THREE};
        struct keyspace_change change;
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 1 << 16,
                                         .drift_max_ms = 100000,
                                         .incarnation = incarnation,
                                         .hash_key = {7, origin}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        assert_non_null(keyspace);
        assert_int_equal(keyspace_members(keyspace, all, 3), ERR_NONE);
        assert_int_equal(keyspace_begin(keyspace, wall_ms, &change), ERR_NONE);
        return keyspace;
}

static void setup(void)
{
        heap_init(&heap, 0);
        wall_ms = 1000000;
        name = (struct crdt_name){0, BYTES("k")};
        for (region_id i = ONE; i < COUNT; i++)
                replicas[i] = opened(i, 1);
}

static void teardown(void)
{
        for (region_id i = ONE; i < COUNT; i++)
                keyspace_free(replicas[i]);
        assert_int_equal(heap.used_bytes, 0);
}

static void ship(region_id from, region_id to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(replicas[to]), from);
        assert_int_equal(keyspace_tail(replicas[from], wall_ms, after, 1 << 20, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(batch.parts[1].len, 0);
        assert_int_equal(keyspace_apply(replicas[to], NULL, wall_ms, from, after, batch.last,
                                        batch.parts[0], &result),
                         ERR_NONE);
}

static void scan(region_id from, struct buffer *part)
{
        uint64_t cursor = 0;
        buffer_init(part, &heap);
        assert_int_equal(keyspace_scan(replicas[from], NULL, &cursor, 1 << 20, part), ERR_NONE);
        assert_int_equal(cursor, 0);
}

static void merge(region_id to, struct buffer *part)
{
        struct keyspace_result result;
        assert_int_equal(
                keyspace_merge_state(replicas[to], NULL, wall_ms, buffer_view(part), &result),
                ERR_NONE);
        assert_int_equal(keyspace_adopt(replicas[to], NULL, NULL, &result), ERR_NONE);
        buffer_fini(part);
}

static void crash(region_id origin)
{
        wall_ms += 5000;
        keyspace_free(replicas[origin]);
        replicas[origin] = opened(origin, 2);
}

/* ---- a write of element `n`, and a removal of all that is there, of each kind */

static struct crdt_stream_id id_of(unsigned n)
{
        return (struct crdt_stream_id){4, n};
}

static void stream_add(struct keyspace *keyspace, unsigned n)
{
        struct keyspace_change change;
        struct bytes strings[] = {BYTES("f"), BYTES("v")};
        struct keyspace_entry entry = {id_of(n), strings, 2};
        assert_int_equal(
                keyspace_local_stream_add(keyspace, wall_ms, name, entry.id, &entry, 1, &change),
                ERR_NONE);
}

static void stream_trim(struct keyspace *keyspace)
{
        struct keyspace_change change;
        struct keyspace_ids range = {{0, 0}, id_of(9)};
        assert_int_equal(keyspace_local_stream_remove(keyspace, wall_ms, name, &range, 1, &change),
                         ERR_NONE);
}

static void set_add(struct keyspace *keyspace, unsigned n)
{
        struct keyspace_change change;
        struct bytes members[] = {BYTES("m"), n == 0 ? BYTES("a") : BYTES("b")};
        assert_int_equal(keyspace_local_set_add(keyspace, wall_ms, name, members, 2, &change),
                         ERR_NONE);
}

static void set_remove(struct keyspace *keyspace)
{
        struct keyspace_change change;
        struct bytes members[] = {BYTES("m")};
        assert_int_equal(keyspace_local_set_remove(keyspace, wall_ms, name, members, 1, &change),
                         ERR_NONE);
}

static void zset_add(struct keyspace *keyspace, unsigned n)
{
        struct keyspace_change change;
        struct keyspace_score scores[] = {{BYTES("m"), n}, {n == 0 ? BYTES("a") : BYTES("b"), 1}};
        assert_int_equal(keyspace_local_zset_add(keyspace, wall_ms, name, scores, 2, &change),
                         ERR_NONE);
}

static void zset_remove(struct keyspace *keyspace)
{
        struct keyspace_change change;
        struct bytes members[] = {BYTES("m")};
        assert_int_equal(keyspace_local_zset_remove(keyspace, wall_ms, name, members, 1, &change),
                         ERR_NONE);
}

static void list_add(struct keyspace *keyspace, unsigned n)
{
        struct keyspace_change change;
        struct bytes values[] = {BYTES("v"), BYTES("w")};
        assert_int_equal(
                keyspace_local_list_push(keyspace, wall_ms, name, n == 0, values, 2, &change),
                ERR_NONE);
}

static void list_remove(struct keyspace *keyspace)
{
        struct keyspace_change change;
        struct keyspace_range range = {0, 2};
        assert_int_equal(keyspace_local_list_remove(keyspace, wall_ms, name, &range, 1, &change),
                         ERR_NONE);
}

static void sibling_add(struct keyspace *keyspace, unsigned n)
{
        struct keyspace_change change;
        (void)n;
        assert_int_equal(keyspace_local_sibling(keyspace, wall_ms, name, BYTES("v"), 0, &change),
                         ERR_NONE);
}

static void delete_key(struct keyspace *keyspace)
{
        struct keyspace_change change;
        assert_int_equal(keyspace_local_delete(keyspace, wall_ms, name, &change), ERR_NONE);
}

static void nothing(struct keyspace *keyspace)
{
        (void)keyspace;
}

static const struct kind {
        const char *what;
        void (*add)(struct keyspace *keyspace, unsigned n);
        void (*remove)(struct keyspace *keyspace);
} kinds[] = {
        {"XTRIM", stream_add, stream_trim}, {"DEL of a stream", stream_add, delete_key},
        {"SREM", set_add, set_remove},      {"DEL of a set", set_add, delete_key},
        {"ZREM", zset_add, zset_remove},    {"DEL of a sorted set", zset_add, delete_key},
        {"LREM", list_add, list_remove},    {"DEL of a list", list_add, delete_key},
        {"siblings", sibling_add, nothing}, {"DEL of siblings", sibling_add, delete_key},
};

enum {
        KINDS = sizeof kinds / sizeof kinds[0]
};

static void alike(const char *what, region_id one, region_id other)
{
        if (keyspace_digest(replicas[one]) != keyspace_digest(replicas[other]))
                fail_msg("%s: regions %u and %u differ", what, one, other);
}

static void removal_by_the_crashed(const struct kind *kind, bool collects)
{
        struct buffer lost;
        setup();
        kind->add(replicas[TWO], 0);
        ship(TWO, ONE);
        crash(TWO);
        kind->add(replicas[TWO], 1);
        kind->remove(replicas[TWO]);
        if (collects)
                (void)keyspace_collect(replicas[TWO], 1000);
        scan(ONE, &lost);
        ship(TWO, ONE);
        merge(TWO, &lost);
        alike(kind->what, ONE, TWO);
        kind->add(replicas[TWO], 2);
        scan(TWO, &lost);
        merge(ONE, &lost);
        alike(kind->what, ONE, TWO);
        teardown();
}

static void test_removal_by_the_crashed(void **unused)
{
        (void)unused;
        for (unsigned i = 0; i < 2 * KINDS; i++)
                removal_by_the_crashed(&kinds[i / 2], i % 2 != 0);
}

/* The removal comes to the crashed one from elsewhere, before what it removes. */
static void removal_by_another(const struct kind *kind)
{
        struct buffer lost;
        setup();
        kind->add(replicas[TWO], 0);
        ship(TWO, ONE);
        ship(TWO, THREE);
        crash(TWO);
        kind->add(replicas[TWO], 1);
        ship(TWO, ONE);
        ship(TWO, THREE);
        kind->remove(replicas[ONE]);
        scan(THREE, &lost);
        ship(ONE, TWO);
        ship(ONE, THREE);
        merge(TWO, &lost);
        alike(kind->what, ONE, THREE);
        alike(kind->what, ONE, TWO);
        teardown();
}

static void test_removal_by_another(void **unused)
{
        (void)unused;
        for (unsigned i = 0; i < KINDS; i++)
                removal_by_another(&kinds[i]);
}

static void flushed(void *context, const struct keyspace_change *change)
{
        (void)context;
        (void)change;
}

static void flush_all(struct keyspace *keyspace)
{
        assert_int_equal(keyspace_local_flush(keyspace, wall_ms, 0, false, flushed, NULL),
                         ERR_NONE);
}

static void string_add(struct keyspace *keyspace, unsigned n)
{
        struct keyspace_change change;
        name.key = n == 0 ? BYTES("k") : BYTES("l");
        assert_int_equal(keyspace_local_set(keyspace, wall_ms, name, BYTES("v"), 0, &change),
                         ERR_NONE);
}

/* Not of the size that one block holds. */
static void large_zset_add(struct keyspace *keyspace, unsigned n)
{
        const struct bytes long_name =
                BYTES("a member with a name of more than any pack takes, a member with a name of "
                      "more than "
                      "any pack takes, a member with a name of more than any pack takes");
        struct keyspace_change change;
        struct keyspace_score score = {long_name, n};
        assert_int_equal(keyspace_local_zset_add(keyspace, wall_ms, name, &score, 1, &change),
                         ERR_NONE);
}

static void test_flush(void **unused)
{
        (void)unused;
        static const struct kind flushes[] = {
                {"FLUSHDB of a string", string_add, flush_all},
                {"FLUSHDB of a set", set_add, flush_all},
                {"FLUSHDB of a sorted set", zset_add, flush_all},
                {"FLUSHDB of a large sorted set", large_zset_add, flush_all},
                {"FLUSHDB of a stream", stream_add, flush_all}};
        for (size_t i = 0; i < sizeof flushes / sizeof flushes[0]; i++) {
                removal_by_the_crashed(&flushes[i], false);
                removal_by_another(&flushes[i]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_removal_by_the_crashed),
                cmocka_unit_test(test_removal_by_another),
                cmocka_unit_test(test_flush),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
