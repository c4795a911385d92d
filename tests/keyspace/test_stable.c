/* What a region may forget: only what no other can come back to without knowing of it. */
#include "clock/clock.h"
#include "keyspace/keyspace.h"

#include "../cmocka_all.h"

#include <stdio.h>

enum {
        ONE = 1,
        TWO,
        COUNT,
        TELL_MS = 2000,
        DRIFT_MS = 100000,
};

/* The one key of these tests, as its store shows it. */
struct shown {
        enum crdt_type type;
        char text[32];
};

static struct heap heap;
static struct keyspace *replicas[COUNT];
static struct shown shown[COUNT];
static uint64_t wall_ms;
static struct crdt_name name;

static void shown_set(void *context, struct crdt_name key, struct bytes value,
                      uint64_t expire_at_ms)
{
        struct shown *at = context;
        (void)expire_at_ms;
        if (!bytes_equal(key.key, name.key))
                return;
        at->type = CRDT_STRING;
        (void)snprintf(at->text, sizeof at->text, "%.*s", BYTES_ARGS(value));
}

static bool shown_get(void *context, struct crdt_name key, struct bytes *ret_value)
{
        struct shown *at = context;
        (void)key;
        *ret_value = bytes_of_str(at->text);
        return at->type == CRDT_STRING;
}

static void shown_delete(void *context, struct crdt_name key)
{
        struct shown *at = context;
        (void)key;
        *at = (struct shown){.type = CRDT_NONE};
}

static void shown_expire(void *context, struct crdt_name key, uint64_t expire_at_ms)
{
        (void)context;
        (void)key;
        (void)expire_at_ms;
}

static void shown_hll(void *context, struct crdt_name key, struct bytes registers)
{
        struct shown *at = context;
        (void)key;
        (void)registers;
        at->type = CRDT_HLL;
}

static bool shown_hll_get(void *context, struct crdt_name key, struct bytes *ret_registers)
{
        struct shown *at = context;
        (void)key;
        *ret_registers = BYTES("r");
        return at->type == CRDT_HLL;
}

/* Of a hash, the text of its one field. */
static void shown_hash_set(void *context, struct crdt_name key, struct bytes field,
                           struct bytes value)
{
        struct shown *at = context;
        (void)field;
        shown_set(context, key, value, 0);
        at->type = CRDT_HASH;
}

static bool shown_hash_get(void *context, struct crdt_name key, struct bytes field,
                           struct bytes *ret_value)
{
        struct shown *at = context;
        (void)key;
        (void)field;
        *ret_value = bytes_of_str(at->text);
        return at->type == CRDT_HASH;
}

static void shown_hash_delete(void *context, struct crdt_name key, struct bytes field)
{
        (void)field;
        shown_delete(context, key);
}

static struct crdt_native native_of(region_id replica)
{
        return (struct crdt_native){.context = &shown[replica],
                                    .string_get = shown_get,
                                    .string_set = shown_set,
                                    .key_delete = shown_delete,
                                    .expire_set = shown_expire,
                                    .hash_set = shown_hash_set,
                                    .hash_get = shown_hash_get,
                                    .hash_delete = shown_hash_delete,
                                    .hll_add = shown_hll,
                                    .hll_merge = shown_hll,
                                    .hll_get = shown_hll_get};
}

static struct keyspace *opened(region_id origin)
{
        const region_id all[] = {ONE, TWO};
        struct keyspace_config config = {.origin = origin,
                                         .ring_bytes = 1 << 16,
                                         .drift_max_ms = DRIFT_MS,
                                         .incarnation = wall_ms,
                                         .hash_key = {7, origin}};
        struct keyspace *keyspace = keyspace_new(&heap, &config);
        assert_non_null(keyspace);
        assert_int_equal(keyspace_members(keyspace, all, 2), ERR_NONE);
        return keyspace;
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        wall_ms = 1000000;
        name = (struct crdt_name){0, BYTES("k")};
        for (region_id i = ONE; i < COUNT; i++) {
                shown[i] = (struct shown){.type = CRDT_NONE};
                replicas[i] = opened(i);
        }
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        for (region_id i = ONE; i < COUNT; i++)
                keyspace_free(replicas[i]);
        assert_int_equal(heap.used_bytes, 0);
        return 0;
}

static void state(region_id from, region_id to)
{
        struct keyspace_result result;
        struct buffer part;
        uint64_t cursor = 0;
        struct crdt_native source = native_of(from);
        struct crdt_native target = native_of(to);
        buffer_init(&part, &heap);
        assert_int_equal(keyspace_scan(replicas[from], &source, &cursor, 1 << 20, &part), ERR_NONE);
        assert_int_equal(cursor, 0);
        assert_int_equal(
                keyspace_merge_state(replicas[to], &target, wall_ms, buffer_view(&part), &result),
                ERR_NONE);
        assert_int_equal(keyspace_adopt(replicas[to], &target, NULL, &result), ERR_NONE);
        buffer_fini(&part);
}

/* True where the state was due. */
static bool ship(region_id from, region_id to, size_t bytes_max)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        struct crdt_native native = native_of(to);
        uint64_t after = vector_get(keyspace_positions(replicas[to]), from);
        assert_int_equal(keyspace_tail(replicas[from], wall_ms, after, bytes_max, &batch),
                         ERR_NONE);
        if (batch.gap) {
                state(from, to);
                return true;
        }
        assert_int_equal(batch.parts[1].len, 0);
        assert_int_equal(keyspace_apply(replicas[to], &native, wall_ms, from, after, batch.last,
                                        batch.parts[0], &result),
                         ERR_NONE);
        return false;
}

static bool beat(region_id replica)
{
        struct keyspace_change change;
        (void)keyspace_heartbeat(replicas[replica], wall_ms, &change);
        return !change.nothing;
}

/* Both tell what they have, and hear it. */
static void tell(void)
{
        wall_ms += TELL_MS;
        (void)beat(ONE);
        (void)beat(TWO);
        assert_false(ship(ONE, TWO, 1 << 20));
        assert_false(ship(TWO, ONE, 1 << 20));
}

static bool forgets(region_id replica)
{
        struct keyspace_key key;
        (void)keyspace_collect(replicas[replica], 1000);
        return !keyspace_find(replicas[replica], name, &key);
}

static void set(region_id replica, uint64_t expire_at_ms)
{
        struct keyspace_change change;
        shown_set(&shown[replica], name, BYTES("5"), 0);
        assert_int_equal(keyspace_local_set(replicas[replica], wall_ms, name, BYTES("5"),
                                            expire_at_ms, &change),
                         ERR_NONE);
}

static void increment(region_id replica, uint64_t ahead_ms, int64_t after)
{
        char text[32];
        struct keyspace_change change;
        (void)snprintf(text, sizeof text, "%lld", (long long)after);
        shown_set(&shown[replica], name, bytes_of_str(text), 0);
        assert_int_equal(keyspace_local_increment(replicas[replica], wall_ms + ahead_ms, name, 1,
                                                  after, &change),
                         ERR_NONE);
}

static void expire(region_id replica)
{
        struct keyspace_change change;
        shown_delete(&shown[replica], name);
        assert_int_equal(keyspace_local_expired(replicas[replica], wall_ms, name, &change),
                         ERR_NONE);
        assert_false(change.nothing);
}

static const char *text_of(region_id replica)
{
        return shown[replica].text;
}

static void assert_same(struct crdt_name key)
{
        assert_int_equal(keyspace_key_digest(replicas[ONE], key),
                         keyspace_key_digest(replicas[TWO], key));
        assert_int_equal(shown[ONE].type, shown[TWO].type);
        assert_string_equal(shown[ONE].text, shown[TWO].text);
}

/* TWO's clock is ahead, and it adds before it hears of a DEL. It acknowledges that DEL while the
 * addition is on its way still. */
static void test_acknowledged_is_not_heard(void **unused)
{
        (void)unused;
        struct keyspace_change change;
        enum {
                AHEAD_MS = 50000,
        };
        set(ONE, 0);
        assert_false(ship(ONE, TWO, 1 << 20));
        increment(TWO, 0, 6);
        assert_false(ship(TWO, ONE, 1 << 20));
        for (unsigned i = 0; i < 3; i++)
                tell();
        shown_delete(&shown[ONE], name);
        assert_int_equal(keyspace_local_delete(replicas[ONE], wall_ms, name, &change), ERR_NONE);
        assert_int_equal(keyspace_local_set(replicas[TWO], wall_ms + AHEAD_MS,
                                            (struct crdt_name){0, BYTES("other")}, BYTES("v"), 0,
                                            &change),
                         ERR_NONE);
        increment(TWO, AHEAD_MS + 1, 7);
        assert_false(ship(TWO, ONE, 1)); /* the other key only */
        assert_false(ship(ONE, TWO, 1 << 20));
        keyspace_acked(replicas[ONE], TWO, vector_get(keyspace_positions(replicas[TWO]), ONE));
        assert_false(forgets(ONE));
        assert_false(ship(TWO, ONE, 1 << 20));
        assert_same(name);
        assert_string_equal(text_of(ONE), "1");
}

/* What was seen is told when a log that is synced each second has it, and what was found to be lost
 * meanwhile is not told. */
static void test_told_when_it_lasts(void **unused)
{
        (void)unused;
        struct keyspace_change change;
        assert_false(beat(TWO));
        set(ONE, 0);
        assert_false(ship(ONE, TWO, 1 << 20));
        shown_delete(&shown[ONE], name);
        assert_int_equal(keyspace_local_delete(replicas[ONE], wall_ms, name, &change), ERR_NONE);
        assert_false(ship(ONE, TWO, 1 << 20));
        wall_ms += TELL_MS;
        assert_true(beat(TWO)); /* as it was before the first of them */
        assert_false(ship(TWO, ONE, 1 << 20));
        (void)beat(ONE);
        assert_false(forgets(ONE));
        wall_ms += TELL_MS - 1;
        assert_false(beat(TWO));
        assert_false(forgets(ONE));
        wall_ms += 1;
        assert_true(beat(TWO));
        assert_false(ship(TWO, ONE, 1 << 20));
        assert_true(forgets(ONE));
}

/* TWO strikes an expiry that all know of and forget, comes back from an older backup, and strikes
 * it again: what ONE has made of the key since is not what was struck. */
static void test_struck_again(void **unused)
{
        (void)unused;
        struct buffer saved;
        struct keyspace_change change;
        struct bytes element = BYTES("e");
        set(ONE, wall_ms + 100);
        assert_false(ship(ONE, TWO, 1 << 20));
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(replicas[TWO], true, &saved), ERR_NONE);
        struct shown before = shown[TWO];
        wall_ms += 200;
        expire(TWO);
        assert_false(ship(TWO, ONE, 1 << 20));
        for (unsigned i = 0; i < 4; i++)
                tell();
        assert_true(forgets(ONE));
        shown_hll(&shown[ONE], name, element);
        assert_int_equal(keyspace_local_hll_add(replicas[ONE], wall_ms, name, &element, 1, &change),
                         ERR_NONE);
        uint64_t reserved = hlc_of_ms(wall_ms + 1);
        keyspace_free(replicas[TWO]);
        replicas[TWO] = opened(TWO);
        assert_int_equal(keyspace_load(replicas[TWO], buffer_view(&saved)), ERR_NONE);
        keyspace_floor(replicas[TWO], reserved);
        assert_int_equal(keyspace_begin(replicas[TWO], wall_ms, &change), ERR_NONE);
        buffer_fini(&saved);
        shown[TWO] = before;
        expire(TWO);
        assert_true(ship(ONE, TWO, 1 << 20)); /* it had told more than it has: the state is due */
        assert_false(ship(TWO, ONE, 1 << 20));
        assert_same(name);
        assert_int_equal(shown[ONE].type, CRDT_HLL);
}

/* TWO removes a field, which all know of and forget, and comes back from an older backup. What ONE
 * has counted in that field since is all that there is of it. */
static void test_field_counted_again(void **unused)
{
        (void)unused;
        struct buffer saved;
        struct keyspace_change change;
        struct bytes field = BYTES("f");
        struct keyspace_pair pair = {field, BYTES("90")};
        shown_hash_set(&shown[TWO], name, field, pair.value);
        assert_int_equal(keyspace_local_hash_set(replicas[TWO], wall_ms, name, &pair, 1, &change),
                         ERR_NONE);
        assert_false(ship(TWO, ONE, 1 << 20));
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(replicas[TWO], true, &saved), ERR_NONE);
        struct shown before = shown[TWO];
        shown_delete(&shown[TWO], name);
        assert_int_equal(
                keyspace_local_hash_delete(replicas[TWO], wall_ms, name, &field, 1, &change),
                ERR_NONE);
        bool forgotten = false;
        for (unsigned i = 0; i < 8 && !forgotten; i++) {
                tell();
                forgotten = forgets(ONE);
        }
        assert_true(forgotten);
        uint64_t reserved = keyspace_clock(replicas[TWO]);
        shown_hash_set(&shown[ONE], name, field, BYTES("5"));
        assert_int_equal(
                keyspace_local_hash_increment(replicas[ONE], wall_ms, name, field, 5, 5, &change),
                ERR_NONE);
        keyspace_free(replicas[TWO]);
        replicas[TWO] = opened(TWO);
        assert_int_equal(keyspace_load(replicas[TWO], buffer_view(&saved)), ERR_NONE);
        keyspace_floor(replicas[TWO], reserved);
        assert_int_equal(keyspace_begin(replicas[TWO], wall_ms, &change), ERR_NONE);
        buffer_fini(&saved);
        shown[TWO] = before;
        state(ONE, TWO);
        assert_same(name);
        assert_string_equal(shown[TWO].text, "5");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_acknowledged_is_not_heard, setup, teardown),
                cmocka_unit_test_setup_teardown(test_told_when_it_lasts, setup, teardown),
                cmocka_unit_test_setup_teardown(test_struck_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_field_counted_again, setup, teardown),
        };
        return cmocka_run_group_tests_name("keyspace stable", tests, NULL, NULL);
}
