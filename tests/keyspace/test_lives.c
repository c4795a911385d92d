/* Increments over lost tails: a server told its peers of some, crashed, lost them and went on
 * counting before they came back. All of them must be in the sum at the end. */
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <math.h>

enum {
        HOME = 1, /* crashes, again and again, and comes back with nothing but its clock */
        EARLY,    /* is told of each life's first increments */
        LATE,     /* is told of the last life alone */
        COUNT,
        LIVES = CRDT_LIVES_MAX, /* beyond that the numbers of lives go round */
};

static struct heap heap;
static struct keyspace *replicas[COUNT];
static uint64_t wall_ms;
static const struct crdt_name name = {0, BYTES_INIT("k")};

static struct keyspace *opened(region_id origin, uint64_t floor)
{
        const region_id all[] = {HOME, EARLY, LATE};
        struct keyspace_change change;
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 1 << 16,
                                         .drift_max_ms = 100000,
                                         .incarnation = wall_ms,
                                         .hash_key = {7, origin}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        assert_non_null(keyspace);
        keyspace_floor(keyspace, floor);
        assert_int_equal(keyspace_members(keyspace, all, 3), ERR_NONE);
        assert_int_equal(keyspace_begin(keyspace, wall_ms, &change), ERR_NONE);
        assert_int_equal(keyspace_reserve(keyspace, wall_ms, &change), ERR_NONE);
        return keyspace;
}

static void ship(region_id from, region_id to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(replicas[to]), from);
        assert_int_equal(keyspace_tail(replicas[from], wall_ms, after, 1 << 20, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(keyspace_apply(replicas[to], NULL, wall_ms, from, after, batch.last,
                                        batch.parts[0], &result),
                         ERR_NONE);
}

static void transfer(region_id from, region_id to)
{
        uint64_t cursor = 0;
        struct buffer part;
        struct keyspace_result result;
        buffer_init(&part, &heap);
        assert_int_equal(keyspace_scan(replicas[from], NULL, &cursor, 1 << 20, &part), ERR_NONE);
        assert_int_equal(cursor, 0);
        assert_int_equal(
                keyspace_merge_state(replicas[to], NULL, wall_ms, buffer_view(&part), &result),
                ERR_NONE);
        assert_int_equal(keyspace_adopt(replicas[to], NULL, NULL, &result), ERR_NONE);
        buffer_fini(&part);
}

static void crash(void)
{
        uint64_t reserved = keyspace_reserved(replicas[HOME]);
        wall_ms += 5000;
        keyspace_free(replicas[HOME]);
        replicas[HOME] = opened(HOME, reserved);
}

static void close_all(void)
{
        struct crdt_seen seen = *keyspace_seen(replicas[HOME]);
        struct keyspace_change change;
        for (unsigned i = 0; i < seen.hole_count; i++)
                if (seen.holes[i].origin == HOME)
                        assert_int_equal(keyspace_close(replicas[HOME], wall_ms, seen.holes[i].low,
                                                        seen.holes[i].high, &change),
                                         ERR_NONE);
}

/* By `amount`; true where the sum is `after` then. */
static bool string_add(struct keyspace *keyspace, int amount, int after)
{
        struct keyspace_change change;
        assert_int_equal(keyspace_local_increment(keyspace, wall_ms, name, amount, after, &change),
                         ERR_NONE);
        return !change.rewrite;
}

static bool field_add(struct keyspace *keyspace, int amount, int after)
{
        struct keyspace_change change;
        assert_int_equal(keyspace_local_hash_increment(keyspace, wall_ms, name, BYTES("f"), amount,
                                                       after, &change),
                         ERR_NONE);
        return !change.rewrite;
}

/* A score is what the store says, so only a look tells what it was. */
static bool score_add(struct keyspace *keyspace, int amount, int after)
{
        struct keyspace_change change;
        double before = 0;
        (void)keyspace_zset_look(keyspace, name, BYTES("m"), 0, &before);
        assert_int_equal(keyspace_local_zset_increment(keyspace, wall_ms, name, BYTES("m"), amount,
                                                       before + amount, &change),
                         ERR_NONE);
        return fabs(before + amount - after) < 0.5;
}

static const struct kind {
        const char *what;
        bool (*add)(struct keyspace *keyspace, int amount, int after);
} kinds[] = {{"INCRBY", string_add}, {"HINCRBY", field_add}, {"ZINCRBY", score_add}};

static void lost_tails(const struct kind *kind)
{
        int all = 0;
        heap_init(&heap, 0);
        wall_ms = 1000000;
        for (region_id i = HOME; i < COUNT; i++)
                replicas[i] = opened(i, 0);
        for (int life = 1; life <= LIVES; life++) {
                if (life > 1)
                        crash();
                /* Half is told, and the rest is lost without a trace. */
                (void)kind->add(replicas[HOME], life, life);
                all += life;
                ship(HOME, EARLY);
                if (life == LIVES)
                        ship(HOME, LATE);
                else
                        (void)kind->add(replicas[HOME], 1000, life + 1000);
        }
        transfer(EARLY, HOME);
        transfer(HOME, LATE);
        close_all();
        assert_true(kind->add(replicas[HOME], 5, all + 5));
        ship(HOME, EARLY);
        ship(HOME, LATE);
        for (region_id i = EARLY; i < COUNT; i++) {
                if (keyspace_digest(replicas[HOME]) != keyspace_digest(replicas[i]))
                        fail_msg("%s: regions %u and %u differ", kind->what, HOME, i);
        }
        assert_true(kind->add(replicas[LATE], 1, all + 6));
        for (region_id i = HOME; i < COUNT; i++)
                keyspace_free(replicas[i]);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_lost_tails(void **unused)
{
        (void)unused;
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
                lost_tails(&kinds[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lost_tails),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
