/* A copy of another table's changes: what it keeps, forgets and says about it, also beside a plain
 * model; and what it does with bytes that are no changes. */
#include "lock/lock.h"

#include "base/cursor.h"
#include "base/rng.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <string.h>

static struct heap heap;
static struct lock_copy *copy;
static struct buffer changes, told;

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        copy = lock_copy_new(&heap);
        assert_non_null(copy);
        buffer_init(&changes, &heap);
        buffer_init(&told, &heap);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        lock_copy_free(copy);
        buffer_fini(&changes);
        buffer_fini(&told);
        assert_int_equal(heap.used_bytes, 0);
        return 0;
}

static void change(uint64_t id, const char *key, struct bytes owner)
{
        buffer_varint(&changes, id);
        buffer_u8(&changes, LOCK_GRANTED);
        buffer_slice(&changes, bytes_of_str(key));
        buffer_slice(&changes, owner);
        buffer_varint(&changes, id);
}

static void take(uint64_t revision)
{
        assert_true(lock_copy_take(copy, buffer_view(&changes), revision));
        buffer_reset(&changes);
}

static struct cursor ask(const char *prefix, uint64_t after, struct lock_changes *ret)
{
        struct lock_watch watch = {.key = bytes_of_str(prefix), .prefix = true, .after = after};
        buffer_reset(&told);
        lock_copy_encode(copy, &watch, ret, &told);
        assert_int_equal(told.err, ERR_NONE);
        return cursor_of(buffer_view(&told));
}

static void assert_next(struct cursor *cursor, enum lock_result_kind kind, uint64_t from,
                        uint64_t id)
{
        struct lock_event event;
        assert_true(lock_change_decode(cursor, &event));
        assert_int_equal(event.kind, kind);
        assert_int_equal(event.token.value, from);
        assert_int_equal(event.id, id);
}

static void test_tells_what_it_took(void **state)
{
        struct lock_changes ret;
        (void)state;
        struct cursor cursor = ask("", 0, &ret);
        assert_true(ret.count == 0 && ret.last == 0 && cursor_left(&cursor) == 0);
        change(5, "r:a", BYTES("me"));
        change(7, "r:b", BYTES("you"));
        take(9);
        change(7, "r:b", BYTES("you")); /* told twice */
        change(12, "r:a", BYTES("me"));
        take(12);
        cursor = ask("r:", 0, &ret);
        assert_true(ret.count == 3 && ret.last == 12 && !ret.more && !ret.forgotten);
        assert_next(&cursor, LOCK_GRANTED, 5, 5);
        assert_next(&cursor, LOCK_GRANTED, 7, 7);
        assert_next(&cursor, LOCK_GRANTED, 12, 12);
        (void)ask("r:a", 5, &ret);
        assert_true(ret.count == 1 && ret.last == 12);
        (void)ask("r:", 99, &ret); /* from who knows more */
        assert_true(ret.count == 0 && ret.last == 99);
        struct lock_copy_state known = lock_copy_state(copy);
        assert_true(known.first == 0 && known.last == 12 && known.count == 3 && known.gaps == 0);
}

static void test_gaps_are_told(void **state)
{
        struct lock_changes ret;
        (void)state;
        lock_copy_skip(copy, 100); /* it came late, which is told, but missed nothing since */
        assert_int_equal(lock_copy_state(copy).gaps, 0);
        change(110, "r:a", BYTES("me"));
        take(115);
        lock_copy_skip(copy, 200);
        change(210, "r:b", BYTES("me"));
        take(210);
        assert_int_equal(lock_copy_state(copy).gaps, 1);
        struct cursor cursor = ask("r:b", 0, &ret);
        assert_int_equal(ret.count, 3);
        assert_next(&cursor, LOCK_GAP, 0, 100);
        assert_next(&cursor, LOCK_GAP, 115, 200);
        assert_next(&cursor, LOCK_GRANTED, 210, 210);
        cursor = ask("r:b", 200, &ret);
        assert_next(&cursor, LOCK_GRANTED, 210, 210);
        lock_copy_restart(copy, 3);
        cursor = ask("r:", 0, &ret);
        assert_true(ret.count == 1 && ret.last == 3 && lock_copy_state(copy).gaps == 2);
        assert_next(&cursor, LOCK_GAP, 0, 3);
}

/* All of it, page by page: each id once, and how many. */
static uint64_t pages(uint64_t *ret_first)
{
        struct lock_changes ret = {.more = true};
        uint64_t count = 0;
        for (uint64_t before = 0; ret.more;) {
                struct lock_event event;
                struct cursor cursor = ask("", ret.last, &ret);
                assert_true(ret.count <= LOCK_CHANGES_MAX &&
                            told.len <= LOCK_CHANGES_BYTES + 2 * LOCK_KEY_BYTES_MAX);
                while (lock_change_decode(&cursor, &event)) {
                        assert_true(event.id > before);
                        before = event.id;
                        if (event.kind == LOCK_GAP)
                                *ret_first = event.id;
                        else
                                count++;
                }
                assert_int_equal(cursor_done(&cursor), ERR_NONE);
        }
        return count;
}

static void test_bounds(void **state)
{
        static char name[LOCK_OWNER_BYTES_MAX];
        static const size_t lens[] = {2, LOCK_OWNER_BYTES_MAX};
        uint64_t id = 0;
        (void)state;
        memset(name, 'x', sizeof name);
        for (size_t i = 0; i < COUNT_OF(lens); i++) {
                for (int n = 0; n < LOCK_COPY_MAX + 5000; n += 500) {
                        for (int k = 0; k < 500; k++)
                                change(++id, "r:a", bytes_of(name, lens[i]));
                        take(id);
                }
                struct lock_copy_state known = lock_copy_state(copy);
                uint64_t first = 0;
                assert_true(known.count <= LOCK_COPY_MAX && known.bytes <= LOCK_COPY_BYTES);
                assert_true(heap.used_bytes <= LOCK_COPY_BYTES + 1024 * 1024);
                assert_true(i == 0 ? known.count > LOCK_COPY_MAX - 2000
                                   : known.bytes == LOCK_COPY_BYTES);
                assert_int_equal(pages(&first), known.count);
                assert_true(first == known.first && known.first + known.count == id);
        }
}

static void test_bad_bytes(void **state)
{
        static char name[LOCK_OWNER_BYTES_MAX + 1];
        (void)state;
        change(1, "r:a", BYTES("me"));
        change(2, "r:b", BYTES("you"));
        size_t one = changes.len / 2;
        for (size_t len = 1; len < changes.len; len++) {
                lock_copy_free(copy);
                copy = lock_copy_new(&heap);
                bool taken = lock_copy_take(copy, bytes_of(changes.ptr, len), 9);
                assert_true(taken == (lock_copy_state(copy).last == 9));
                assert_true(!taken || len == one - 1 || len == one || len == one + 1);
                assert_true(lock_copy_state(copy).last <= 9);
        }
        buffer_reset(&changes);
        change(20, "r:a", BYTES("me"));
        assert_false(lock_copy_take(copy, buffer_view(&changes), 19)); /* beyond its end */
        buffer_reset(&changes);
        memset(name, 'x', sizeof name);
        change(21, "r:a", bytes_of(name, sizeof name));
        assert_false(lock_copy_take(copy, buffer_view(&changes), 30));
        uint64_t seed = 7;
        struct rng rng;
        rng_init(&rng, seed, 0);
        for (int i = 0; i < 2000; i++) {
                uint8_t noise[64];
                for (size_t k = 0; k < sizeof noise; k++)
                        noise[k] = (uint8_t)rng_next(&rng);
                uint64_t last = lock_copy_state(copy).last;
                bool taken = lock_copy_take(copy, bytes_of(noise, rng_below(&rng, sizeof noise)),
                                            last + 100);
                assert_true(lock_copy_state(copy).last <= last + 100);
                assert_true(!taken || lock_copy_state(copy).last == last + 100);
                uint64_t first = 0;
                (void)pages(&first);
        }
}

/* Without memory it forgets, says so, and goes on. */
static void test_no_memory(void **state)
{
        (void)state;
        change(1, "r:a", BYTES("me"));
        change(2, "r:b", BYTES("me"));
        for (uint64_t n = 1; n < 4; n++) {
                lock_copy_free(copy);
                copy = lock_copy_new(&heap);
                heap.fail_at = heap.calls + n;
                assert_true(lock_copy_take(copy, buffer_view(&changes), 5));
                heap.fail_at = 0;
                struct lock_copy_state known = lock_copy_state(copy);
                assert_int_equal(known.last, 5);
                assert_true(known.count == 2 || (known.first == 5 && known.gaps == 1));
        }
}

enum {
        MODEL_MAX = 4096,
};

struct model_change {
        uint64_t id;
        enum lock_result_kind kind;
        uint64_t token;
        unsigned key;
};

/* Few enough that nothing is forgotten: all that was told comes back, whatever is asked. */
static void test_beside_a_model(void **state)
{
        static struct model_change model[MODEL_MAX];
        static const char *const keys[] = {"r:a", "r:ab", "r:b"};
        (void)state;
        for (uint64_t seed = 1; seed <= 20; seed++) {
                struct rng rng;
                size_t count = 0;
                uint64_t last = 0;
                rng_init(&rng, seed, 0);
                lock_copy_free(copy);
                copy = lock_copy_new(&heap);
                while (count < MODEL_MAX - 20) {
                        uint64_t end = last + 1 + rng_below(&rng, 50);
                        if (count > 0 && rng_chance(&rng, 100)) {
                                model[count++] = (struct model_change){end, LOCK_GAP, last, 0};
                                lock_copy_skip(copy, end);
                                last = end;
                                continue;
                        }
                        for (uint64_t id = last + 1; id <= end; id++)
                                if (count < MODEL_MAX - 1 && rng_chance(&rng, 300)) {
                                        unsigned key = (unsigned)rng_below(&rng, 3);
                                        model[count++] =
                                                (struct model_change){id, LOCK_GRANTED, id, key};
                                        change(id, keys[key], BYTES("owner"));
                                }
                        take(end);
                        last = end;
                }
                for (int i = 0; i < 50; i++) {
                        const char *prefix = keys[rng_below(&rng, 3)];
                        struct lock_changes ret = {.last = rng_below(&rng, last + 10)};
                        size_t at = 0;
                        uint64_t after = ret.last;
                        do {
                                struct lock_event event;
                                struct cursor cursor = ask(prefix, ret.last, &ret);
                                while (lock_change_decode(&cursor, &event)) {
                                        while (model[at].id <= after ||
                                               (model[at].kind != LOCK_GAP &&
                                                strncmp(keys[model[at].key], prefix,
                                                        strlen(prefix)) != 0))
                                                at++;
                                        if (event.id != model[at].id ||
                                            event.kind != model[at].kind ||
                                            event.token.value != model[at].token)
                                                fail_msg("seed %llu: change %zu",
                                                         (unsigned long long)seed, at);
                                        at++;
                                }
                        } while (ret.more);
                        assert_true(ret.last == (after > last ? after : last));
                        for (; at < count; at++)
                                assert_true(model[at].id <= after ||
                                            (model[at].kind != LOCK_GAP &&
                                             strncmp(keys[model[at].key], prefix, strlen(prefix)) !=
                                                     0));
                }
        }
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_tells_what_it_took), CASE(test_gaps_are_told), CASE(test_bounds),
                CASE(test_bad_bytes),          CASE(test_no_memory),     CASE(test_beside_a_model),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
