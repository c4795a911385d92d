/* Messages that go with the stream: handed on once, in their place; no state, no key. */
#include "base/rng.h"
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        WALL_MS = 1000000,
};

static struct heap heap;
static struct keyspace *from, *to;
static char story[512]; /* what `to` did, in order */

static struct keyspace *made(region_id origin)
{
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 1 << 16,
                                         .drift_max_ms = 100000,
                                         .hash_key = {7, origin}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        assert_non_null(keyspace);
        return keyspace;
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        from = made(1);
        to = made(2);
        story[0] = 0;
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        keyspace_free(from);
        keyspace_free(to);
        return 0;
}

static void tell(const char *what, struct bytes name, struct bytes value)
{
        size_t len = strlen(story);
        (void)snprintf(story + len, sizeof story - len, "%s %.*s=%.*s;", what, BYTES_ARGS(name),
                       BYTES_ARGS(value));
}

static void string_set(void *context, struct crdt_name name, struct bytes value,
                       uint64_t expire_at_ms)
{
        (void)context;
        (void)expire_at_ms;
        tell("set", name.key, value);
}

static void event(void *context, const struct crdt_delta *delta)
{
        (void)context;
        assert_int_equal(delta->stamp.origin, 1);
        tell((delta->flags & CRDT_FLAG_SHARD) != 0 ? "shard" : "event", delta->name.key,
             delta->value);
}

static const struct crdt_native native = {.string_set = string_set, .event = event};

static void write_all(void)
{
        struct keyspace_change change;
        struct crdt_name name = {0, BYTES("k")};
        assert_int_equal(keyspace_local_set(from, WALL_MS, name, BYTES("1"), 0, &change), ERR_NONE);
        assert_int_equal(
                keyspace_local_event(from, WALL_MS, BYTES("c"), BYTES("one"), false, &change),
                ERR_NONE);
        assert_false(change.nothing);
        assert_int_equal(keyspace_local_set(from, WALL_MS, name, BYTES("2"), 0, &change), ERR_NONE);
        assert_int_equal(keyspace_local_event(from, WALL_MS, BYTES("c"), BYTES(""), true, &change),
                         ERR_NONE);
}

static void carry(uint64_t after)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        assert_int_equal(keyspace_tail(from, WALL_MS, after, 1 << 16, &batch), ERR_NONE);
        assert_int_equal(batch.parts[1].len, 0);
        assert_int_equal(
                keyspace_apply(to, &native, WALL_MS, 1, after, batch.last, batch.parts[0], &result),
                ERR_NONE);
        assert_int_equal(result.position, batch.last);
}

static void test_in_order_and_once(void **state)
{
        (void)state;
        write_all();
        carry(0);
        assert_string_equal(story, "set k=1;event c=one;set k=2;shard c=;");
        carry(0);
        assert_string_equal(story, "set k=1;event c=one;set k=2;shard c=;");
        assert_int_equal(keyspace_stats(to).keys, 1);
        assert_int_equal(keyspace_digest(from), keyspace_digest(to));
}

static void test_without_anybody(void **state)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        struct crdt_native deaf = {.string_set = string_set};
        (void)state;
        write_all();
        assert_int_equal(keyspace_tail(from, WALL_MS, 0, 1 << 16, &batch), ERR_NONE);
        assert_int_equal(
                keyspace_apply(to, &deaf, WALL_MS, 1, 0, batch.last, batch.parts[0], &result),
                ERR_NONE);
        assert_int_equal(result.applied, 4);
        assert_string_equal(story, "set k=1;set k=2;");
        /* Passed on to a third, they are the same. */
        assert_int_equal(keyspace_relay(to, 1, 0, 1 << 16, &batch), ERR_NONE);
        assert_int_equal(batch.count, 4);
}

static void test_too_long(void **state)
{
        struct keyspace_change change;
        struct bytes long_one = bytes_of("x", (size_t)CRDT_NAME_LEN_MAX + 1);
        (void)state;
        assert_int_equal(keyspace_local_event(from, WALL_MS, long_one, BYTES(""), false, &change),
                         ERR_LIMIT);
        assert_int_equal(keyspace_local_event(from, WALL_MS, BYTES(""), long_one, false, &change),
                         ERR_LIMIT);
}

/* Cut at every length it is refused or an event with a shorter message; a bit that flips never
 * breaks the decoder. */
static void test_damaged(void **state)
{
        struct keyspace_change change;
        struct crdt_delta delta;
        uint8_t data[64];
        (void)state;
        assert_int_equal(
                keyspace_local_event(from, WALL_MS, BYTES("c"), BYTES("one"), true, &change),
                ERR_NONE);
        size_t len = change.delta.len;
        assert_true(len <= sizeof data);
        memcpy(data, change.delta.ptr, len);
        size_t head = len - 3;
        for (size_t cut = 0; cut <= len; cut++) {
                enum err err = crdt_delta_decode(bytes_of(data, cut), 1, &delta);
                assert_int_equal(err == ERR_NONE, cut >= head);
                if (err == ERR_NONE)
                        assert_int_equal(delta.value.len, cut - head);
        }
        for (size_t bit = 0; bit < len * 8; bit++) {
                data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (crdt_delta_decode(bytes_of(data, len), 1, &delta) == ERR_NONE)
                        assert_true(delta.op < CRDT_OP_END);
                data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        memcpy(data, change.delta.ptr, len);
        data[10] = 1; /* events belong to no database */
        assert_int_equal(crdt_delta_decode(bytes_of(data, len), 1, &delta), ERR_MALFORMED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_in_order_and_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_without_anybody, setup, teardown),
                cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
                cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        };
        cmocka_set_message_output(CM_OUTPUT_TAP);
        return cmocka_run_group_tests_name("keyspace events", tests, NULL, NULL);
}
