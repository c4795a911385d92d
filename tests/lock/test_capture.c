/* A capture in steps, while random commands of all kinds go on, gives the bytes of the moment at
 * which it began; and the table does not notice.
 *
 *   SEED=first SEEDS=n test-lock-capture */
#include "base/rng.h"
#include "lock/lock.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        KEYS = 14,
        OWNERS = 6,
        STEPS = 800,
        SESSIONS = 4,
};

struct world {
        struct rng rng;
        struct lock_table *table;
        uint64_t now_ms;
        uint64_t index;
        uint64_t sessions[SESSIONS]; /* the newest that were opened, and by whom */
        unsigned session_owner[SESSIONS];
        uint64_t tokens[KEYS]; /* granted last */
        bool open;
        struct buffer whole;
        struct buffer steps;
        size_t captures;
};

static const enum lock_op ops[] = {
        LOCK_ACQUIRE, LOCK_ACQUIRE,      LOCK_ACQUIRE,      LOCK_ACQUIRE,       LOCK_ACQUIRE_ALL,
        LOCK_RELEASE, LOCK_RELEASE,      LOCK_RENEW,        LOCK_CANCEL,        LOCK_BREAK,
        LOCK_SEIZE,   LOCK_SESSION_OPEN, LOCK_SESSION_KEEP, LOCK_SESSION_CLOSE, LOCK_TIME,
};

static uint64_t below(struct world *w, uint64_t bound)
{
        return rng_below(&w->rng, bound);
}

static void command_run(struct world *w)
{
        char key[8];
        char owner[8];
        char also[8];
        static const uint32_t slots[] = {0, 0, 2, 3, LOCK_SHARED};
        unsigned k = (unsigned)below(w, KEYS);
        unsigned o = (unsigned)below(w, OWNERS);
        unsigned s = (unsigned)below(w, SESSIONS);
        struct buffer keys;
        buffer_init(&keys, &heap);
        struct lock_command command = {
                .op = ops[below(w, COUNT_OF(ops))],
                .ttl_ms = 1 + below(w, 90),
                .wait_ms = below(w, 2) * below(w, 90),
                .slots = slots[below(w, COUNT_OF(slots))],
                .flags = below(w, 4) == 0 ? LOCK_BY_OWNER : 0,
                .delay_ms = below(w, 4) == 0 ? below(w, 30) : 0,
                .token.value = w->tokens[k],
        };
        bool session = w->sessions[s] != 0 && below(w, 3) == 0;
        if (session || command.op == LOCK_SESSION_KEEP || command.op == LOCK_SESSION_CLOSE) {
                command.session = w->sessions[s];
                o = w->session_owner[s];
        }
        snprintf(key, sizeof key, "k%u", k);
        snprintf(owner, sizeof owner, "o%u", o);
        snprintf(also, sizeof also, "k%u", (unsigned)below(w, KEYS));
        command.key = bytes_of_str(key);
        command.owner = bytes_of_str(owner);
        if (command.op == LOCK_ACQUIRE_ALL) {
                buffer_slice(&keys, bytes_of_str(also));
                command.also = buffer_view(&keys);
        }
        w->now_ms += below(w, 12);
        command.now_ms = w->now_ms;
        w->index++;
        command.origin = (struct lock_origin){1, 1, w->index};
        command.cancelled = (struct lock_origin){1, 1, w->index - below(w, 6)};
        size_t count = 0;
        bool fatal = false;
        const struct lock_result *results =
                lock_apply(w->table, w->index / 2, &command, &count, &fatal);
        assert_false(fatal);
        for (size_t i = 0; i < count; i++) {
                if (results[i].kind == LOCK_OPENED) {
                        w->sessions[s] = results[i].token.value;
                        w->session_owner[s] = o;
                } else if (results[i].kind == LOCK_GRANTED && results[i].key.len > 0) {
                        w->tokens[k] = results[i].token.value;
                }
        }
        buffer_fini(&keys);
}

static void capture_begin(struct world *w)
{
        buffer_reset(&w->whole);
        buffer_reset(&w->steps);
        lock_table_encode(w->table, &w->whole);
        lock_capture_begin(w->table, &w->steps);
        w->open = true;
}

static void capture_step(struct world *w, uint64_t seed)
{
        if (!lock_capture_step(w->table, 1 + below(w, 60), &w->steps))
                return;
        if (!bytes_equal(buffer_view(&w->whole), buffer_view(&w->steps)))
                fail_msg("seed %llu, step %llu: a capture differs from its moment",
                         (unsigned long long)seed, (unsigned long long)w->index);
        lock_capture_end(w->table);
        w->open = false;
        w->captures++;
}

static void history(uint64_t seed, size_t *captures)
{
        struct world w = {0};
        rng_init(&w.rng, seed, 0);
        buffer_init(&w.whole, &heap);
        buffer_init(&w.steps, &heap);
        assert_int_equal(lock_table_new(&heap, seed, &w.table), ERR_NONE);
        for (int i = 0; i < STEPS; i++) {
                command_run(&w);
                lock_table_check(w.table);
                if (!w.open && below(&w, 8) == 0)
                        capture_begin(&w);
                else if (w.open && below(&w, 3) == 0)
                        capture_step(&w, seed);
                else if (w.open && below(&w, 100) == 0) {
                        lock_capture_end(w.table); /* given up */
                        w.open = false;
                }
        }
        *captures += w.captures;
        lock_table_free(w.table);
        buffer_fini(&w.whole);
        buffer_fini(&w.steps);
}

static void test_histories(void **state)
{
        (void)state;
        const char *first = getenv("SEED");
        const char *count = getenv("SEEDS");
        uint64_t seed = first == NULL ? 1 : strtoull(first, NULL, 0);
        uint64_t end = seed + (count == NULL ? 60 : strtoull(count, NULL, 0));
        size_t captures = 0;
        for (; seed < end; seed++)
                history(seed, &captures);
        print_message("%zu captures\n", captures);
        assert_true(captures > 0);
}

/* A capture that is open when the state is replaced, or the table goes. */
static void test_replaced(void **state)
{
        (void)state;
        struct world w = {0};
        struct buffer empty;
        rng_init(&w.rng, 7, 0);
        buffer_init(&w.whole, &heap);
        buffer_init(&w.steps, &heap);
        buffer_init(&empty, &heap);
        assert_int_equal(lock_table_new(&heap, 7, &w.table), ERR_NONE);
        lock_table_encode(w.table, &empty);
        for (int round = 0; round < 2; round++) {
                for (int i = 0; i < 60; i++)
                        command_run(&w);
                capture_begin(&w);
                for (int i = 0; i < 60; i++)
                        command_run(&w);
                if (round == 0)
                        assert_int_equal(lock_table_decode(w.table, buffer_view(&empty)), ERR_NONE);
        }
        lock_table_free(w.table);
        buffer_fini(&w.whole);
        buffer_fini(&w.steps);
        buffer_fini(&empty);
}

/* Without memory the capture fails, and says so; the table goes on. */
static void test_memory(void **state)
{
        (void)state;
        struct heap small;
        bool failed = false;
        for (uint64_t fail = 1; fail < 8; fail++) {
                struct lock_table *table = NULL;
                struct buffer out;
                size_t count = 0;
                bool fatal = false;
                heap_init(&small, 0);
                buffer_init(&out, &heap);
                assert_int_equal(lock_table_new(&small, 1, &table), ERR_NONE);
                struct lock_command command = {.op = LOCK_ACQUIRE,
                                               .key = BYTES("a"),
                                               .owner = BYTES("o"),
                                               .ttl_ms = 50,
                                               .origin = {1, 1, 1}};
                (void)lock_apply(table, 1, &command, &count, &fatal);
                command.op = LOCK_BREAK;
                lock_capture_begin(table, &out);
                small.fail_at = small.calls + fail;
                (void)lock_apply(table, 2, &command, &count, &fatal);
                while (!lock_capture_step(table, 8, &out))
                        continue;
                failed = failed || out.err == ERR_NOMEM;
                lock_table_free(table);
                buffer_fini(&out);
                assert_int_equal(small.used_bytes, 0);
        }
        assert_true(failed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories),
                cmocka_unit_test(test_replaced),
                cmocka_unit_test(test_memory),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
