/* One rule of the contract a test: what two regions that write at once will see, what is refused,
 * and what a reader of a stream is told. */
#include "keyspace/keyspace.h"
#include "model.h"

#include "../cmocka_all.h"

enum {
        WALL_MS = 1000000,
        DRIFT_MS = 1000,
};

struct side {
        struct keyspace *keyspace;
        struct model model;
        struct crdt_native native;
        uint64_t now; /* its wall clock: the later stamp is whose clock is larger */
};

static struct heap heap;
static struct side a, b;
static const struct crdt_name key = {0, BYTES_INIT("k")};
static struct keyspace_change change;
static struct keyspace_result result;

static struct keyspace *made(region_id origin, uint64_t ring_bytes)
{
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = ring_bytes,
                                         .drift_max_ms = DRIFT_MS,
                                         .hash_key = {5, origin}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        assert_non_null(keyspace);
        return keyspace;
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        a.keyspace = made(1, 1 << 16);
        b.keyspace = made(2, 1 << 16);
        model_init(&a.model);
        model_init(&b.model);
        a.native = model_native(&a.model);
        b.native = model_native(&b.model);
        a.now = WALL_MS;
        b.now = WALL_MS + 100;
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        keyspace_free(a.keyspace);
        keyspace_free(b.keyspace);
        return heap.used_bytes == 0 ? 0 : -1;
}

static void ship(struct side *from, struct side *to, region_id origin)
{
        struct keyspace_batch batch;
        uint64_t after = vector_get(keyspace_positions(to->keyspace), origin);
        assert_int_equal(keyspace_tail(from->keyspace, from->now, after, SIZE_MAX, &batch),
                         ERR_NONE);
        assert_int_equal(keyspace_apply(to->keyspace, &to->native, to->now, origin, after,
                                        batch.last, batch.parts[0], &result),
                         ERR_NONE);
}

static void meet(void)
{
        ship(&a, &b, 1);
        ship(&b, &a, 2);
        assert_int_equal(model_digest(&a.model), model_digest(&b.model));
        assert_int_equal(keyspace_digest(a.keyspace), keyspace_digest(b.keyspace));
        a.now += 1000;
        b.now += 1000;
}

static void set(struct side *side, const char *value)
{
        model_string_set(&side->model, key, bytes_of_str(value), 0);
        assert_int_equal(
                keyspace_local_set(side->keyspace, side->now, key, bytes_of_str(value), 0, &change),
                ERR_NONE);
}

static void del(struct side *side)
{
        model_key_delete(&side->model, key);
        assert_int_equal(keyspace_local_delete(side->keyspace, side->now, key, &change), ERR_NONE);
}

static void add(struct side *side, int64_t amount, int64_t after)
{
        char text[32];
        int len = snprintf(text, sizeof text, "%lld", (long long)after);
        model_string_set(&side->model, key, bytes_of(text, (size_t)len), 0);
        assert_int_equal(
                keyspace_local_increment(side->keyspace, side->now, key, amount, after, &change),
                ERR_NONE);
        assert_false(change.rewrite);
}

static void sadd(struct side *side, const char *member)
{
        struct bytes one = bytes_of_str(member);
        model_set_add(&side->model, key, one);
        assert_int_equal(keyspace_local_set_add(side->keyspace, side->now, key, &one, 1, &change),
                         ERR_NONE);
}

static void srem(struct side *side, const char *member)
{
        struct bytes one = bytes_of_str(member);
        model_set_remove(&side->model, key, one);
        assert_int_equal(
                keyspace_local_set_remove(side->keyspace, side->now, key, &one, 1, &change),
                ERR_NONE);
}

static void hset(struct side *side, const char *field, const char *value)
{
        struct keyspace_pair pair = {bytes_of_str(field), bytes_of_str(value)};
        model_hash_set(&side->model, key, pair.field, pair.value);
        assert_int_equal(keyspace_local_hash_set(side->keyspace, side->now, key, &pair, 1, &change),
                         ERR_NONE);
}

static void shows(const char *value)
{
        struct model_key *found = model_find(&a.model, key);
        if (value == NULL) {
                assert_null(found);
                return;
        }
        assert_non_null(found);
        assert_int_equal(found->type, CRDT_STRING);
        if (!bytes_equal(text_get(&found->value), bytes_of_str(value)))
                fail_msg("%.*s is not %s", BYTES_ARGS(text_get(&found->value)), value);
}

static void test_later_set_wins(void **state)
{
        (void)state;
        set(&b, "later");
        set(&a, "earlier");
        meet();
        shows("later");
}

static void test_increments_add_up(void **state)
{
        (void)state;
        set(&a, "10");
        meet();
        add(&a, 5, 15);
        add(&b, 7, 17);
        meet();
        shows("22");
}

static void test_set_takes_what_it_saw(void **state)
{
        (void)state;
        add(&a, 5, 5);
        meet();
        add(&a, 2, 7);
        set(&b, "100"); /* has seen 5, not 2 */
        meet();
        shows("102");
        del(&b);
        add(&a, 1, 103);
        meet();
        shows("1");
}

static void test_sum_saturates(void **state)
{
        (void)state;
        set(&a, "9223372036854775806");
        meet();
        add(&a, 1, INT64_MAX);
        add(&b, 1, INT64_MAX);
        meet();
        shows("9223372036854775807");
        /* Less 5 the sum is still beyond the limit, but the client was told of less than that. */
        assert_int_equal(
                keyspace_local_increment(a.keyspace, a.now, key, -5, INT64_MAX - 5, &change),
                ERR_NONE);
        assert_true(change.whole && change.nothing);
        set(&a, "9223372036854775802");
        meet();
        shows("9223372036854775802");
        add(&b, 5, INT64_MAX);
        meet();
        shows("9223372036854775807");
}

/* A double would lose the last digit; two regions' whole numbers add up all the same. */
static void test_whole_floats_are_exact(void **state)
{
        (void)state;
        set(&a, "9007199254740993");
        meet();
        assert_int_equal(keyspace_local_increment_float(a.keyspace, a.now, key, 1,
                                                        BYTES("9007199254740993"), &change),
                         ERR_NONE);
        assert_true(bytes_equal(change.text, BYTES("9007199254740994")));
        model_string_set(&a.model, key, change.text, 0);
        assert_int_equal(keyspace_local_increment_float(b.keyspace, b.now, key, -3,
                                                        BYTES("9007199254740993"), &change),
                         ERR_NONE);
        model_string_set(&b.model, key, change.text, 0);
        meet();
        shows("9007199254740991");
}

/* Running totals are told as 64 bits: a difference of more would be another one elsewhere. */
static void test_count_beyond_64_bits(void **state)
{
        (void)state;
        set(&a, "9223372036854775807");
        add(&a, -3, INT64_MAX - 3);
        add(&a, -INT64_MAX + 2, -1);
        meet();
        shows("-1");
        assert_int_equal(keyspace_local_increment(a.keyspace, a.now, key, -1, -2, &change),
                         ERR_NONE);
        assert_true(change.whole && change.nothing);
        assert_true(bytes_equal(change.name.key, key.key));
        set(&a, "-2");
        meet();
        shows("-2");
        add(&a, -1, -3);
        meet();
        shows("-3");
}

/* A log whose native commands have run already: the value of the first increment's base is told. */
static void test_replay_knows_the_base(void **state)
{
        (void)state;
        uint8_t first[64];
        uint8_t second[64];
        set(&a, "1.50");
        size_t first_len = change.delta.len;
        memcpy(first, change.delta.ptr, first_len);
        assert_null(change.before.ptr);
        enum err err = keyspace_local_increment_float(a.keyspace, a.now, key, 0.25, BYTES("1.50"),
                                                      &change);
        assert_int_equal(err, ERR_NONE);
        assert_true(bytes_equal(change.before, BYTES("1.50")));
        size_t second_len = change.delta.len;
        memcpy(second, change.delta.ptr, second_len);
        err = keyspace_local_increment_float(a.keyspace, a.now, key, 1, BYTES("1.75"), &change);
        assert_int_equal(err, ERR_NONE);
        assert_null(change.before.ptr);
        struct keyspace *again = made(1, 1 << 16);
        struct bytes deltas[] = {bytes_of(first, first_len), bytes_of(second, second_len)};
        const struct bytes before[] = {{0}, BYTES_INIT("1.50")};
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(keyspace_replay(again, &a.native, deltas[i], before[i], &result),
                                 ERR_NONE);
                if (i == 0)
                        model_string_set(&a.model, key, BYTES("1.75"), 0);
        }
        shows("1.75");
        keyspace_free(again);
}

static void test_text_hides_increments(void **state)
{
        (void)state;
        add(&a, 3, 3);
        set(&b, "words");
        meet();
        shows("words");
}

static void test_add_wins(void **state)
{
        (void)state;
        sadd(&a, "m");
        sadd(&a, "n");
        meet();
        sadd(&a, "m");
        srem(&b, "m");
        srem(&b, "n");
        meet();
        assert_non_null(model_item(model_find(&a.model, key), BYTES("m")));
        assert_null(model_item(model_find(&a.model, key), BYTES("n")));
        sadd(&a, "o");
        del(&b);
        meet();
        assert_int_equal(model_item_count(model_find(&b.model, key)), 1);
}

static void test_later_type_wins(void **state)
{
        (void)state;
        hset(&b, "f", "1");
        sadd(&a, "m");
        ship(&a, &b, 1);
        assert_int_equal(result.conflicts, 1);
        ship(&b, &a, 2);
        assert_int_equal(result.conflicts, 1);
        meet();
        struct model_key *found = model_find(&a.model, key);
        assert_true(found != NULL && found->type == CRDT_HASH);
}

static void test_expiry_takes_what_it_saw(void **state)
{
        (void)state;
        set(&a, "old");
        assert_int_equal(keyspace_local_expire(a.keyspace, a.now, key, a.now + 5, &change),
                         ERR_NONE);
        model_expire_set(&a.model, key, a.now + 5);
        meet();
        model_key_delete(&b.model, key);
        assert_int_equal(keyspace_local_expired(b.keyspace, b.now + 50, key, &change), ERR_NONE);
        set(&a, "new"); /* with an earlier clock than the expiry's, and still it survives */
        meet();
        shows("new");
        struct model_key *found = model_find(&b.model, key);
        assert_true(found != NULL && found->expire_at_ms == 0);
}

static void test_clock_ahead_is_refused(void **state)
{
        (void)state;
        struct keyspace_batch batch;
        b.now = WALL_MS + 10;
        set(&b, "1");
        b.now = WALL_MS + 3 * DRIFT_MS;
        set(&b, "2");
        assert_int_equal(keyspace_tail(b.keyspace, b.now, 0, SIZE_MAX, &batch), ERR_NONE);
        assert_int_equal(keyspace_apply(a.keyspace, &a.native, a.now, 2, 0, batch.last,
                                        batch.parts[0], &result),
                         ERR_REFUSED);
        assert_int_equal(result.applied, 1);
        shows("1");
        set(&a, "3");
        assert_true(hlc_ms(change.stamp.hlc) < WALL_MS + DRIFT_MS);
        assert_int_equal(keyspace_stats(a.keyspace).refused, 1);
}

static void test_gap_and_repeat(void **state)
{
        (void)state;
        set(&a, "1");
        uint64_t first = change.stamp.hlc;
        set(&a, "2");
        assert_int_equal(keyspace_apply(b.keyspace, &b.native, b.now, 1, first, first + 1,
                                        BYTES(""), &result),
                         ERR_NONE);
        assert_true(result.gap);
        ship(&a, &b, 1);
        struct keyspace_batch batch;
        assert_int_equal(keyspace_tail(a.keyspace, a.now, 0, 1, &batch), ERR_NONE);
        assert_int_equal(batch.count, 1);
        assert_int_equal(batch.last, first);
        assert_int_equal(keyspace_apply(b.keyspace, &b.native, b.now, 1, 0, batch.last,
                                        batch.parts[0], &result),
                         ERR_NONE);
        assert_int_equal(result.skipped, 1);
        assert_int_equal(keyspace_apply(b.keyspace, &b.native, b.now, 2, 0, 5, BYTES(""), &result),
                         ERR_INVALID);
}

static void test_ring_drops_the_oldest(void **state)
{
        (void)state;
        struct keyspace *small = made(3, 4096);
        struct keyspace_batch batch;
        char value[100] = {0};
        for (unsigned i = 0; i < 1000; i++) {
                assert_int_equal(keyspace_local_set(small, WALL_MS + i, key,
                                                    bytes_of(value, i % sizeof value), 0, &change),
                                 ERR_NONE);
                struct keyspace_change beat; /* readers may know every position from here on */
                keyspace_heartbeat(small, WALL_MS + i, &beat);
                uint64_t first = keyspace_ring_first(small);
                assert_int_equal(keyspace_tail(small, WALL_MS + i, first, SIZE_MAX, &batch),
                                 ERR_NONE);
                assert_false(batch.gap);
                assert_int_equal(batch.count + 1, keyspace_stats(small).ring_count);
                assert_true(keyspace_stats(small).ring_bytes <= 4096);
        }
        assert_int_equal(keyspace_tail(small, WALL_MS + 1000, 0, SIZE_MAX, &batch), ERR_NONE);
        assert_true(batch.gap);
        static char huge[8192];
        assert_int_equal(keyspace_local_set(small, WALL_MS + 1000, key, bytes_of(huge, sizeof huge),
                                            0, &change),
                         ERR_NONE);
        assert_int_equal(keyspace_ring_first(small), 0);
        keyspace_heartbeat(small, WALL_MS + 1000, &(struct keyspace_change){0});
        assert_int_equal(keyspace_tail(small, WALL_MS + 1000, change.stamp.hlc, SIZE_MAX, &batch),
                         ERR_NONE);
        assert_false(batch.gap);
        keyspace_free(small);
}

/* A crash took the end of a stream that a reader holds, and the clock went back with it: what is
 * stamped now could hide behind what the reader knows. */
static void test_reader_of_an_older_life(void **state)
{
        (void)state;
        struct keyspace_batch batch;
        struct buffer saved;
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(a.keyspace, true, &saved), ERR_NONE);
        set(&a, "lost");
        ship(&a, &b, 1);
        uint64_t known = change.stamp.hlc;
        keyspace_free(a.keyspace);
        a.keyspace = made(1, 1 << 16);
        assert_int_equal(keyspace_load(a.keyspace, buffer_view(&saved)), ERR_NONE);
        buffer_fini(&saved);
        assert_int_equal(keyspace_recovered(a.keyspace), 0);
        a.now -= 500;
        set(&a, "hidden");
        assert_true(change.stamp.hlc < known);
        assert_int_equal(keyspace_tail(a.keyspace, a.now, known, SIZE_MAX, &batch), ERR_NONE);
        assert_true(batch.gap);
        set(&a, "seen");
        assert_true(change.stamp.hlc > known);
        assert_int_equal(keyspace_tail(a.keyspace, a.now, known, SIZE_MAX, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(batch.count, 1);
}

static void test_heartbeat_is_never_undercut(void **state)
{
        (void)state;
        uint64_t position = keyspace_heartbeat(a.keyspace, WALL_MS + 500, &change);
        set(&a, "x"); /* the wall clock is behind the heartbeat's */
        assert_true(change.stamp.hlc > position);
}

static void test_tombstones_wait_for_all(void **state)
{
        (void)state;
        region_id members[] = {1, 2};
        set(&a, "x");
        meet();
        del(&a);
        assert_int_equal(keyspace_collect(a.keyspace, 100), 0);
        assert_int_equal(keyspace_members(a.keyspace, members, 2), ERR_NONE);
        assert_int_equal(keyspace_members(b.keyspace, members, 2), ERR_NONE);
        assert_int_equal(keyspace_collect(a.keyspace, 100), 0);
        for (unsigned i = 0; i < 3; i++) {
                uint64_t at_a = keyspace_heartbeat(a.keyspace, a.now += 1100, &change);
                uint64_t at_b = keyspace_heartbeat(b.keyspace, b.now += 1100, &change);
                meet();
                assert_int_equal(keyspace_apply(b.keyspace, &b.native, b.now + 2000, 1, 0, at_a,
                                                BYTES(""), &result),
                                 ERR_NONE);
                assert_int_equal(keyspace_apply(a.keyspace, &a.native, a.now + 2000, 2, 0, at_b,
                                                BYTES(""), &result),
                                 ERR_NONE);
        }
        assert_int_equal(keyspace_collect(a.keyspace, 100), 1);
        assert_int_equal(keyspace_stats(a.keyspace).tombstones, 0);
        shows(NULL);
}

static void test_adopt_needs_every_part(void **state)
{
        (void)state;
        uint64_t cursor = 0;
        struct buffer part;
        buffer_init(&part, &heap);
        for (unsigned i = 0; i < 40; i++) {
                char name[8];
                int len = snprintf(name, sizeof name, "k%u", i % 20);
                struct crdt_name one = {i, bytes_of(name, (size_t)len)};
                assert_int_equal(keyspace_local_set(a.keyspace, a.now, one, BYTES("v"), 0, &change),
                                 ERR_NONE);
        }
        assert_int_equal(keyspace_scan(a.keyspace, NULL, &cursor, 1, &part), ERR_NONE);
        assert_int_not_equal(cursor, 0);
        assert_int_equal(keyspace_merge_state(b.keyspace, NULL, b.now, buffer_view(&part), &result),
                         ERR_NONE);
        assert_int_equal(keyspace_adopt(b.keyspace, NULL, NULL, &result), ERR_REFUSED);
        buffer_reset(&part);
        assert_int_equal(keyspace_scan(a.keyspace, NULL, &cursor, 1, &part), ERR_NONE);
        buffer_reset(&part); /* one is lost */
        while (cursor != 0) {
                buffer_reset(&part);
                assert_int_equal(keyspace_scan(a.keyspace, NULL, &cursor, 1, &part), ERR_NONE);
                assert_int_equal(
                        keyspace_merge_state(b.keyspace, NULL, b.now, buffer_view(&part), &result),
                        ERR_NONE);
        }
        assert_int_equal(keyspace_adopt(b.keyspace, NULL, NULL, &result), ERR_REFUSED);
        buffer_fini(&part);
}

static void test_bad_arguments(void **state)
{
        (void)state;
        struct keyspace_config config = {.origin = 0, .ring_bytes = 4096};
        assert_null(keyspace_new(&heap, &config));
        config.origin = CLOCK_REGIONS_MAX + 1;
        assert_null(keyspace_new(&heap, &config));
        config = (struct keyspace_config){.origin = 1, .ring_bytes = 4095};
        assert_null(keyspace_new(&heap, &config));
        struct crdt_name far = {CRDT_DB_MAX + 1, BYTES("k")};
        assert_int_equal(keyspace_local_set(a.keyspace, a.now, far, BYTES("v"), 0, &change),
                         ERR_LIMIT);
        region_id nobody = 0;
        assert_int_equal(keyspace_members(a.keyspace, &nobody, 1), ERR_INVALID);
}

#define RULE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                RULE(test_later_set_wins),
                RULE(test_increments_add_up),
                RULE(test_set_takes_what_it_saw),
                RULE(test_sum_saturates),
                RULE(test_whole_floats_are_exact),
                RULE(test_count_beyond_64_bits),
                RULE(test_replay_knows_the_base),
                RULE(test_text_hides_increments),
                RULE(test_add_wins),
                RULE(test_later_type_wins),
                RULE(test_expiry_takes_what_it_saw),
                RULE(test_clock_ahead_is_refused),
                RULE(test_gap_and_repeat),
                RULE(test_ring_drops_the_oldest),
                RULE(test_reader_of_an_older_life),
                RULE(test_heartbeat_is_never_undercut),
                RULE(test_tombstones_wait_for_all),
                RULE(test_adopt_needs_every_part),
                RULE(test_bad_arguments),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
