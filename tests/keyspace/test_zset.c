/* Sorted sets by the rules, one case each: two or three replicas, told step by step what their
 * clients do, and who hears of it when. */
#include "model.h"

#include "../cmocka_all.h"

enum {
        WALL_MS = 1700000000,
        REPLICAS = 3,
};

static struct {
        struct heap heap;
        struct keyspace *keyspaces[REPLICAS];
        struct model models[REPLICAS];
        struct crdt_native natives[REPLICAS];
        uint64_t now_ms;
} world;

static const struct crdt_name name = {0, BYTES_INIT("z")};

static int begin(void **state)
{
        (void)state;
        memset(&world, 0, sizeof world);
        heap_init(&world.heap, 0);
        world.now_ms = WALL_MS;
        for (unsigned i = 0; i < REPLICAS; i++) {
                struct keyspace_config config = {.origin = (region_id)(i + 1),
                                                 .ring_bytes = 1 << 16,
                                                 .drift_max_ms = 5000,
                                                 .incarnation = 1,
                                                 .hash_key = {3, i}};
                world.keyspaces[i] = keyspace_new(&world.heap, &config);
                assert_non_null(world.keyspaces[i]);
                model_init(&world.models[i]);
                world.natives[i] = model_native(&world.models[i]);
        }
        return 0;
}

static int end(void **state)
{
        (void)state;
        for (unsigned i = 0; i < REPLICAS; i++)
                keyspace_free(world.keyspaces[i]);
        assert_int_equal(world.heap.used_bytes, 0);
        return 0;
}

static double score_at(unsigned who, const char *member, bool *ret_there)
{
        double known = 0;
        struct model_key *key = model_find(&world.models[who], name);
        bool zset = key != NULL && key->type == CRDT_ZSET;
        struct model_item *item = zset ? model_item(key, bytes_of_str(member)) : NULL;
        *ret_there = item != NULL;
        assert_int_equal(keyspace_zset_look(world.keyspaces[who], name, bytes_of_str(member), 0,
                                            &known) != CRDT_MEMBER_ABSENT,
                         *ret_there);
        if (item == NULL)
                return 0;
        assert_memory_equal(&known, item->value.data, sizeof known);
        return known;
}

static void shows(unsigned who, const char *member, double score)
{
        bool there;
        double found = score_at(who, member, &there);
        assert_true(there);
        assert_memory_equal(&found, &score, sizeof score);
}

static void all_show(const char *member, double score)
{
        for (unsigned i = 0; i < REPLICAS; i++)
                shows(i, member, score);
}

static void none_shows(const char *member)
{
        for (unsigned i = 0; i < REPLICAS; i++) {
                bool there;
                score_at(i, member, &there);
                assert_false(there);
        }
}

static void add(unsigned who, const char *member, double score)
{
        struct keyspace_change change;
        struct keyspace_score one = {bytes_of_str(member), score};
        model_zset_add(&world.models[who], name, one.member, score);
        assert_int_equal(keyspace_local_zset_add(world.keyspaces[who], ++world.now_ms, name, &one,
                                                 1, &change),
                         ERR_NONE);
        shows(who, member, score);
}

static enum crdt_op increment(unsigned who, const char *member, double amount)
{
        bool there;
        struct keyspace_change change;
        struct crdt_delta delta;
        double after = score_at(who, member, &there) + amount;
        model_zset_add(&world.models[who], name, bytes_of_str(member), after);
        assert_int_equal(keyspace_local_zset_increment(world.keyspaces[who], ++world.now_ms, name,
                                                       bytes_of_str(member), amount, after,
                                                       &change),
                         ERR_NONE);
        shows(who, member, after);
        assert_int_equal(crdt_delta_decode(change.delta, change.stamp.origin, &delta), ERR_NONE);
        return delta.op;
}

static void take(unsigned who, const char *member)
{
        struct keyspace_change change;
        struct bytes gone = bytes_of_str(member);
        model_zset_remove(&world.models[who], name, gone);
        assert_int_equal(keyspace_local_zset_remove(world.keyspaces[who], ++world.now_ms, name,
                                                    &gone, 1, &change),
                         ERR_NONE);
}

static void drop(unsigned who)
{
        struct keyspace_change change;
        model_key_delete(&world.models[who], name);
        assert_int_equal(keyspace_local_delete(world.keyspaces[who], ++world.now_ms, name, &change),
                         ERR_NONE);
}

/* Everything of one stream. */
static void tell(unsigned from, unsigned to)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        region_id origin = (region_id)(from + 1);
        uint64_t after = vector_get(keyspace_positions(world.keyspaces[to]), origin);
        assert_int_equal(keyspace_tail(world.keyspaces[from], world.now_ms, after, 1 << 20, &batch),
                         0);
        assert_int_equal(keyspace_apply(world.keyspaces[to], &world.natives[to], world.now_ms,
                                        origin, after, batch.last, batch.parts[0], &result),
                         ERR_NONE);
}

static void tell_all(void)
{
        for (unsigned from = 0; from < REPLICAS; from++)
                for (unsigned to = 0; to < REPLICAS; to++)
                        if (from != to)
                                tell(from, to);
        for (unsigned i = 1; i < REPLICAS; i++)
                assert_int_equal(keyspace_digest(world.keyspaces[i]),
                                 keyspace_digest(world.keyspaces[0]));
}

static void test_later_score_wins(void **state)
{
        (void)state;
        add(0, "m", 5);
        add(1, "m", 3);
        tell_all();
        all_show("m", 3);
        add(0, "m", __builtin_inf());
        tell_all();
        all_show("m", __builtin_inf());
}

static void test_add_wins(void **state)
{
        (void)state;
        add(0, "m", 5);
        tell_all();
        add(1, "m", 5); /* the same score: an add all the same */
        take(0, "m");
        tell_all();
        all_show("m", 5);
        take(2, "m");
        tell_all();
        none_shows("m");
}

/* Who heard of the second add, and not of the first, takes both: the second had seen the first. */
static void test_a_replaced_score_stays_replaced(void **state)
{
        (void)state;
        add(0, "m", 1);
        tell(0, 1);
        add(1, "m", 2);
        tell(1, 2);
        shows(2, "m", 2);
        take(2, "m");
        tell_all();
        none_shows("m");
}

static void test_increments_add_up(void **state)
{
        (void)state;
        add(0, "m", 10);
        tell_all();
        increment(0, "m", 0.1);
        increment(1, "m", 0.2);
        increment(2, "m", -4);
        tell_all();
        all_show("m", 6.3); /* rounded once */
        for (int i = 0; i < 200; i++)
                assert_int_equal(increment((unsigned)i % REPLICAS, "m", (i % 7) / 10.0),
                                 CRDT_OP_ZCOUNT);
        tell_all();
        assert_int_equal(increment(1, "m", 0.3), CRDT_OP_ZCOUNT);
        tell_all();
}

static void test_first_increments_add_up(void **state)
{
        (void)state;
        increment(0, "m", 1);
        increment(1, "m", 1);
        tell_all();
        all_show("m", 2);
}

static void test_seen_increments_go(void **state)
{
        (void)state;
        add(0, "m", 10);
        increment(0, "m", 5);
        tell_all();
        take(1, "m"); /* 15 were seen */
        increment(2, "m", 4);
        tell_all();
        all_show("m", 4);
        add(1, "m", 100); /* the 4 go */
        increment(2, "m", 7);
        tell_all();
        all_show("m", 107);
        increment(0, "m", 1); /* begins anew, not from what was cut */
        tell_all();
        all_show("m", 108);
}

static void test_delete_takes_what_it_saw(void **state)
{
        (void)state;
        add(0, "a", 1);
        increment(0, "b", 2);
        tell_all();
        drop(0);
        increment(1, "b", 3);
        add(2, "c", 4);
        tell_all();
        none_shows("a");
        all_show("b", 3);
        all_show("c", 4);
}

static void test_other_type_takes_all(void **state)
{
        (void)state;
        struct keyspace_change change;
        add(0, "a", 1);
        increment(0, "b", 2);
        model_string_set(&world.models[1], name, BYTES("text"), 0);
        world.now_ms += 10;
        assert_int_equal(keyspace_local_set(world.keyspaces[1], world.now_ms, name, BYTES("text"),
                                            0, &change),
                         ERR_NONE);
        tell_all();
        none_shows("a");
        none_shows("b");
        drop(2);
        increment(2, "b", 5);
        tell_all();
        all_show("b", 5);
}

/* Where no total of doubles gives what the store has, the outcome is told. */
static void test_what_is_no_amount(void **state)
{
        (void)state;
        add(0, "m", 1e300);
        assert_int_equal(increment(0, "m", 1), CRDT_OP_ZCOUNT); /* 1e300 it stays */
        assert_int_equal(increment(0, "m", __builtin_inf()), CRDT_OP_ZADD);
        assert_int_equal(increment(0, "n", -__builtin_inf()), CRDT_OP_ZADD);
        add(0, "big", 1e16);
        increment(0, "big", 1.5);
        increment(0, "big", -1e16);
        tell_all();
        bool there;
        all_show("big", score_at(0, "big", &there));
        all_show("m", __builtin_inf());
        increment(1, "n", 5);
        tell_all();
        all_show("n", -__builtin_inf());
}

/* 1.7e308 of each: the sum of the three is beyond all doubles, everywhere alike. */
static void test_sums_overflow_alike(void **state)
{
        (void)state;
        for (unsigned i = 0; i < REPLICAS; i++)
                increment(i, "m", 1.7e308);
        tell_all();
        all_show("m", __builtin_inf());
        increment(0, "m", -1);
        tell_all();
        all_show("m", __builtin_inf());
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_later_score_wins, begin, end),
                cmocka_unit_test_setup_teardown(test_add_wins, begin, end),
                cmocka_unit_test_setup_teardown(test_a_replaced_score_stays_replaced, begin, end),
                cmocka_unit_test_setup_teardown(test_increments_add_up, begin, end),
                cmocka_unit_test_setup_teardown(test_first_increments_add_up, begin, end),
                cmocka_unit_test_setup_teardown(test_seen_increments_go, begin, end),
                cmocka_unit_test_setup_teardown(test_delete_takes_what_it_saw, begin, end),
                cmocka_unit_test_setup_teardown(test_other_type_takes_all, begin, end),
                cmocka_unit_test_setup_teardown(test_what_is_no_amount, begin, end),
                cmocka_unit_test_setup_teardown(test_sums_overflow_alike, begin, end),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
