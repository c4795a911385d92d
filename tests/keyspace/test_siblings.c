/* Strings whose concurrent writes are all kept. Random histories on four replicas, with streams
 * that come in any order between origins, twice, and by state transfer, are held against a model
 * that knows nothing of clocks: it keeps sets of writes, and for each write what its writer had
 * seen. Its siblings are the writes that nobody who is known here had seen. */
#include "base/rng.h"
#include "keyspace/keyspace.h"
#include "model.h"

#include "../cmocka_all.h"

#include <stdlib.h>

enum {
        WALL_MS = 1000000,
        SIDES = 4,
        KEYS = 2,
        WRITES_MAX = 512,
        STEPS = 220,
        SEEDS = 60,
};

/* The naive model. */
struct write {
        struct stamp stamp;
        unsigned key;
        bool removal;
        bool seen[WRITES_MAX]; /* by its writer */
};

struct side {
        struct keyspace *keyspace;
        struct model model;
        struct crdt_native native;
        bool knows[WRITES_MAX];
};

static struct heap heap;
static struct side sides[SIDES];
static struct write writes[WRITES_MAX];
static unsigned write_count;
static uint64_t now;
static uint64_t seed;

static struct crdt_name name_of(unsigned key)
{
        static const struct bytes names[KEYS] = {BYTES_INIT("cart"), BYTES_INIT("profile")};
        return (struct crdt_name){0, names[key]};
}

static bool join_values(void *context, struct crdt_name name, const struct crdt_sibling *siblings,
                        size_t count, struct bytes *ret_value)
{
        static char text[MODEL_TEXT];
        (void)context;
        if (bytes_equal(name.key, BYTES("profile")))
                return false;
        size_t len = 0;
        for (size_t i = 0; i < count; i++)
                len += (size_t)snprintf(text + len, sizeof text - len, "%s%.*s", i > 0 ? "+" : "",
                                        BYTES_ARGS(siblings[i].value));
        *ret_value = bytes_of(text, len);
        return true;
}

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

static void begin(void)
{
        heap_init(&heap, 0);
        now = WALL_MS;
        write_count = 0;
        for (unsigned i = 0; i < SIDES; i++) {
                memset(&sides[i], 0, sizeof sides[i]);
                sides[i].keyspace = made((region_id)(i + 1));
                model_init(&sides[i].model);
                sides[i].native = model_native(&sides[i].model);
                sides[i].native.siblings_show = join_values;
        }
}

static void end(void)
{
        for (unsigned i = 0; i < SIDES; i++)
                keyspace_free(sides[i].keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

static void noted(struct side *side, unsigned key, bool removal,
                  const struct keyspace_change *change)
{
        struct write *write = &writes[write_count];
        *write = (struct write){.stamp = change->stamp, .key = key, .removal = removal};
        memcpy(write->seen, side->knows, sizeof write->seen);
        /* What a known write had seen is before this one, though it may not have come here yet. */
        for (unsigned i = 0; i < write_count; i++)
                for (unsigned k = 0; k < write_count && side->knows[i] && writes[i].key == key; k++)
                        write->seen[k] = write->seen[k] || writes[i].seen[k];
        side->knows[write_count++] = true;
}

static void write_value(struct side *side, unsigned key)
{
        char text[16];
        struct keyspace_change change;
        int len = snprintf(text, sizeof text, "v%u", write_count);
        struct bytes value = bytes_of(text, (size_t)len);
        model_string_set(&side->model, name_of(key), value, 0);
        assert_int_equal(
                keyspace_local_sibling(side->keyspace, now, name_of(key), value, 0, &change),
                ERR_NONE);
        noted(side, key, false, &change);
}

static void remove_key(struct side *side, unsigned key)
{
        struct keyspace_change change;
        model_key_delete(&side->model, name_of(key));
        assert_int_equal(keyspace_local_delete(side->keyspace, now, name_of(key), &change),
                         ERR_NONE);
        if (!change.nothing)
                noted(side, key, true, &change);
}

/* What `to` gets of the stream of `from`, from an earlier position too. */
static void ship(struct side *from, struct side *to, region_id origin, uint64_t back)
{
        struct keyspace_batch batch;
        struct keyspace_result result;
        uint64_t after = vector_get(keyspace_positions(to->keyspace), origin);
        after = after > back ? after - back : 0;
        assert_int_equal(keyspace_tail(from->keyspace, now, after, SIZE_MAX, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(keyspace_apply(to->keyspace, &to->native, now, origin, after, batch.last,
                                        batch.parts[0], &result),
                         ERR_NONE);
        for (unsigned i = 0; i < write_count; i++)
                to->knows[i] = to->knows[i] || writes[i].stamp.origin == origin;
}

static void transfer(struct side *from, struct side *to)
{
        struct buffer state;
        struct keyspace_result result;
        uint64_t cursor = 0;
        buffer_init(&state, &heap);
        do {
                buffer_reset(&state);
                assert_int_equal(keyspace_scan(from->keyspace, &from->native, &cursor, 1, &state),
                                 ERR_NONE);
                assert_int_equal(keyspace_merge_state(to->keyspace, &to->native, now,
                                                      buffer_view(&state), &result),
                                 ERR_NONE);
        } while (cursor != 0);
        assert_int_equal(keyspace_adopt(to->keyspace, &to->native, NULL, &result), ERR_NONE);
        buffer_fini(&state);
        for (unsigned i = 0; i < write_count; i++)
                to->knows[i] = to->knows[i] || from->knows[i];
}

/* Saved and loaded; the values stay in the store, as they do in Redis. */
static void restart(struct side *side, region_id origin)
{
        struct buffer saved;
        buffer_init(&saved, &heap);
        assert_int_equal(keyspace_save(side->keyspace, true, &saved), ERR_NONE);
        keyspace_free(side->keyspace);
        side->keyspace = made(origin);
        assert_int_equal(keyspace_load(side->keyspace, buffer_view(&saved)), ERR_NONE);
        buffer_fini(&saved);
}

static bool naive_alive(const struct side *side, unsigned at)
{
        if (!side->knows[at] || writes[at].removal)
                return false;
        for (unsigned i = 0; i < write_count; i++) {
                if (side->knows[i] && writes[i].key == writes[at].key && writes[i].seen[at])
                        return false;
        }
        return true;
}

/* Siblings, their values, and what is shown, as the naive model has them. */
static void check(struct side *side, unsigned key)
{
        char joined[MODEL_TEXT] = "";
        char last[16] = "";
        size_t alive = 0, len = 0;
        const struct crdt_sibling *list = NULL;
        size_t count = keyspace_siblings(side->keyspace, name_of(key), &list);
        for (size_t i = 0; i < count; i++) {
                for (unsigned w = 0; w < write_count; w++) {
                        if (stamp_compare(writes[w].stamp, list[i].stamp) != 0)
                                continue;
                        if (!naive_alive(side, w))
                                fail_msg("seed %llu: a dead write is kept",
                                         (unsigned long long)seed);
                        (void)snprintf(last, sizeof last, "v%u", w);
                        len += (size_t)snprintf(joined + len, sizeof joined - len, "%s%s",
                                                len > 0 ? "+" : "", last);
                        if (count > 1)
                                assert_true(bytes_equal(list[i].value, bytes_of_str(last)));
                }
        }
        for (unsigned w = 0; w < write_count; w++)
                alive += writes[w].key == key && naive_alive(side, w);
        if (alive != count)
                fail_msg("seed %llu: %zu siblings, not %zu", (unsigned long long)seed, count,
                         alive);
        struct model_key *found = model_find(&side->model, name_of(key));
        assert_int_equal(found != NULL, count > 0);
        if (found != NULL)
                assert_true(bytes_equal(text_get(&found->value),
                                        bytes_of_str(key == 0 ? joined : last)));
}

static void check_all(void)
{
        for (unsigned i = 0; i < SIDES; i++)
                for (unsigned key = 0; key < KEYS; key++)
                        check(&sides[i], key);
}

static void step(struct rng *rng)
{
        unsigned at = (unsigned)rng_below(rng, SIDES);
        unsigned from = (unsigned)rng_below(rng, SIDES);
        unsigned key = (unsigned)rng_below(rng, KEYS);
        unsigned what = (unsigned)rng_below(rng, 100);
        now += rng_below(rng, 3);
        if (what < 40 && write_count < WRITES_MAX)
                write_value(&sides[at], key);
        else if (what < 48 && write_count < WRITES_MAX)
                remove_key(&sides[at], key);
        else if (what < 94 && from != at)
                ship(&sides[from], &sides[at], (region_id)(from + 1),
                     what < 60 ? (uint64_t)40 << CLOCK_COUNTER_BITS : 0);
        else if (what < 97 && from != at)
                transfer(&sides[from], &sides[at]);
        else if (what >= 97)
                restart(&sides[at], (region_id)(at + 1));
}

static void test_histories(void **state)
{
        (void)state;
        for (seed = 1; seed <= SEEDS; seed++) {
                struct rng rng;
                rng_init(&rng, seed, 0);
                begin();
                for (unsigned i = 0; i < STEPS; i++) {
                        step(&rng);
                        check_all();
                }
                for (unsigned from = 0; from < SIDES; from++)
                        for (unsigned to = 0; to < SIDES; to++)
                                if (from != to)
                                        ship(&sides[from], &sides[to], (region_id)(from + 1), 0);
                check_all();
                for (unsigned i = 1; i < SIDES; i++) {
                        assert_int_equal(model_digest(&sides[0].model),
                                         model_digest(&sides[i].model));
                        assert_int_equal(keyspace_digest(sides[0].keyspace),
                                         keyspace_digest(sides[i].keyspace));
                }
                end();
        }
}

static void increment(struct side *side, struct crdt_name name)
{
        char text[32];
        struct bytes value = {0};
        struct keyspace_change change;
        assert_true(model_string_get(&side->model, name, &value));
        assert_true(value.len < sizeof text);
        memcpy(text, value.ptr, value.len);
        text[value.len] = 0;
        long long after = strtoll(text, NULL, 10) + 1;
        int len = snprintf(text, sizeof text, "%lld", after);
        model_string_set(&side->model, name, bytes_of(text, (size_t)len), 0);
        assert_int_equal(keyspace_local_increment(side->keyspace, now, name, 1, after, &change),
                         ERR_NONE);
        assert_false(change.rewrite);
}

/* The policy of a key is changed while the regions write: what is kept depends on the deltas. */
static void test_policy_change(void **state)
{
        (void)state;
        struct keyspace_change change;
        struct crdt_name name = name_of(0);
        begin();
        for (unsigned round = 0; round < 40; round++) {
                for (unsigned i = 0; i < SIDES; i++) {
                        struct side *side = &sides[i];
                        struct bytes value = bytes_of(&"12345678"[(round + i) % 8], 1);
                        unsigned kind = (round * 7 + i * 3) % 5;
                        now += 1;
                        struct keyspace_key known;
                        (void)keyspace_find(side->keyspace, name, &known);
                        if (kind == 3 && known.type == CRDT_STRING) {
                                increment(side, name);
                                continue;
                        }
                        if (kind == 4) {
                                model_key_delete(&side->model, name);
                                assert_int_equal(
                                        keyspace_local_delete(side->keyspace, now, name, &change),
                                        ERR_NONE);
                                continue;
                        }
                        model_string_set(&side->model, name, value, 0);
                        enum err err = kind < 2 ? keyspace_local_set(side->keyspace, now, name,
                                                                     value, 0, &change)
                                                : keyspace_local_sibling(side->keyspace, now, name,
                                                                         value, 0, &change);
                        assert_int_equal(err, ERR_NONE);
                }
                for (unsigned k = 0; k < SIDES * SIDES; k++) {
                        unsigned from = (k * 5 + round) % SIDES;
                        unsigned to = (k / SIDES + round * 3) % SIDES;
                        if (from != to && (round % 4 == 3 || k % 3 != 0))
                                ship(&sides[from], &sides[to], (region_id)(from + 1), 0);
                }
                if (round % 4 != 3)
                        continue;
                for (unsigned i = 1; i < SIDES; i++) {
                        assert_int_equal(model_digest(&sides[0].model),
                                         model_digest(&sides[i].model));
                        assert_int_equal(keyspace_digest(sides[0].keyspace),
                                         keyspace_digest(sides[i].keyspace));
                }
        }
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories),
                cmocka_unit_test(test_policy_change),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
