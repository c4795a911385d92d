/* The lock table by scripts: each step is a command and all results that it must give. */
#include "lock/lock.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

#include <stdio.h>

/* One step: at `now`, a command; then the results as text: kind, origin's sequence, token, ttl. */
struct step {
        enum lock_op op;
        uint64_t now;
        const char *key;
        const char *owner;
        uint64_t token; /* CANCEL: the sequence of the wait */
        uint64_t ttl;
        uint64_t wait;
        uint64_t sequence;
        const char *results;
};

struct script {
        const char *why;
        struct step steps[16];
};

static const struct script scripts[] = {
        {"acquire, held, release, free again",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 10, "k", "b", 0, 100, 0, 2, "held 2 token 1 ttl 90;"},
          {LOCK_RELEASE, 20, "k", "a", 1, 0, 0, 3, "released 3 token 1 ttl 80;"},
          {LOCK_RELEASE, 21, "k", "a", 1, 0, 0, 4, "not owner 4 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 22, "k", "b", 0, 100, 0, 5, "granted 5 token 5 ttl 100;"}}},
        {"a lost answer: the same token, a new ttl",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 50, "k", "a", 0, 100, 0, 2, "granted 2 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 149, "k", "b", 0, 100, 0, 3, "held 3 token 1 ttl 1;"},
          {LOCK_ACQUIRE, 150, "k", "b", 0, 100, 0, 4,
           "expired 0 token 1 ttl 0;granted 4 token 4 ttl 100;"}}},
        {"renew: only the owner, only with its token, only in time",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_RENEW, 99, "k", "a", 1, 50, 0, 2, "renewed 2 token 1 ttl 50;"},
          {LOCK_RENEW, 100, "k", "a", 2, 50, 0, 3, "not owner 3 token 0 ttl 0;"},
          {LOCK_RENEW, 101, "k", "b", 1, 50, 0, 4, "not owner 4 token 0 ttl 0;"},
          {LOCK_RENEW, 148, "k", "a", 1, 200, 0, 5, "renewed 5 token 1 ttl 200;"},
          {LOCK_RENEW, 348, "k", "a", 1, 200, 0, 6,
           "expired 0 token 1 ttl 0;not owner 6 token 0 ttl 0;"}}},
        {"waiters in order, the owner of the last lease released",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 1, "k", "b", 0, 100, 500, 2, "queued 2 token 1 ttl 99;"},
          {LOCK_ACQUIRE, 2, "k", "c", 0, 70, 500, 3, "queued 3 token 1 ttl 98;"},
          {LOCK_RELEASE, 3, "k", "a", 1, 0, 0, 4,
           "released 4 token 1 ttl 97;granted 2 token 4 ttl 100;"},
          {LOCK_TIME, 103, "", "", 0, 0, 0, 0, "expired 0 token 4 ttl 0;granted 3 token 5 ttl 70;"},
          {LOCK_RELEASE, 104, "k", "b", 4, 0, 0, 6, "not owner 6 token 0 ttl 0;"},
          {LOCK_RELEASE, 105, "k", "c", 5, 0, 0, 7, "released 7 token 5 ttl 68;"}}},
        {"a wait that is over gets nothing, even when the lease ends at the same time",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "b", 0, 100, 100, 2, "queued 2 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "c", 0, 100, 101, 3, "queued 3 token 1 ttl 100;"},
          {LOCK_TIME, 100, "", "", 0, 0, 0, 0,
           "timed out 2 token 0 ttl 0;expired 0 token 1 ttl 0;granted 3 token 4 ttl 100;"}}},
        {"asking again while waiting keeps the place; the newer request is answered",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "b", 0, 100, 50, 2, "queued 2 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "c", 0, 100, 500, 3, "queued 3 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 10, "k", "b", 0, 30, 500, 4,
           "cancelled 2 token 0 ttl 0;queued 4 token 1 ttl 90;"},
          {LOCK_RELEASE, 60, "k", "a", 1, 0, 0, 5,
           "released 5 token 1 ttl 40;granted 4 token 5 ttl 30;"}}},
        {"asking again without a wait gives the wait up",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "b", 0, 100, 50, 2, "queued 2 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "b", 0, 100, 0, 3,
           "cancelled 2 token 0 ttl 0;held 3 token 1 ttl 100;"},
          {LOCK_RELEASE, 1, "k", "a", 1, 0, 0, 4, "released 4 token 1 ttl 99;"}}},
        {"cancel: the wait named, once; what was granted stays",
         {{LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "b", 0, 100, 50, 2, "queued 2 token 1 ttl 100;"},
          {LOCK_CANCEL, 1, "k", "b", 9, 0, 0, 3, "free 3 token 0 ttl 0;"},
          {LOCK_CANCEL, 1, "k", "b", 2, 0, 0, 4,
           "cancelled 2 token 0 ttl 0;cancelled 4 token 0 ttl 0;"},
          {LOCK_CANCEL, 1, "k", "b", 2, 0, 0, 5, "free 5 token 0 ttl 0;"},
          {LOCK_CANCEL, 1, "k", "a", 1, 0, 0, 6, "free 6 token 0 ttl 0;"}}},
        {"break: whoever holds it, the next one gets it",
         {{LOCK_BREAK, 0, "k", "", 0, 0, 0, 1, "free 1 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 0, "k", "a", 0, 100, 0, 2, "granted 2 token 2 ttl 100;"},
          {LOCK_ACQUIRE, 0, "k", "b", 0, 100, 50, 3, "queued 3 token 2 ttl 100;"},
          {LOCK_BREAK, 5, "k", "", 0, 0, 0, 4,
           "broken 4 token 2 ttl 95;granted 3 token 4 ttl 100;"},
          {LOCK_RENEW, 6, "k", "a", 2, 100, 0, 5, "not owner 5 token 0 ttl 0;"}}},
        {"time does not go back",
         {{LOCK_ACQUIRE, 50, "k", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 10, "k", "b", 0, 100, 0, 2, "held 2 token 1 ttl 100;"}}},
        {"two locks do not touch each other; the earlier deadline ends first",
         {{LOCK_ACQUIRE, 0, "x", "a", 0, 100, 0, 1, "granted 1 token 1 ttl 100;"},
          {LOCK_ACQUIRE, 0, "y", "a", 0, 50, 0, 2, "granted 2 token 2 ttl 50;"},
          {LOCK_RELEASE, 0, "x", "a", 2, 0, 0, 3, "not owner 3 token 0 ttl 0;"},
          {LOCK_TIME, 100, "", "", 0, 0, 0, 0,
           "expired 0 token 2 ttl 0;expired 0 token 1 ttl 0;"}}},
        {"arguments at their bounds",
         {{LOCK_ACQUIRE, 0, "", "a", 0, 100, 0, 1, "invalid 1 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 0, "k", "", 0, 100, 0, 2, "invalid 2 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 0, "k", "a", 0, 0, 0, 3, "invalid 3 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 0, "k", "a", 0, LOCK_TTL_MS_MAX + 1, 0, 4, "invalid 4 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 0, "k", "a", 0, 1, LOCK_WAIT_MS_MAX + 1, 5, "invalid 5 token 0 ttl 0;"},
          {LOCK_ACQUIRE, 0, "k", "a", 0, 1, LOCK_WAIT_MS_MAX, 6, "granted 6 token 6 ttl 1;"},
          {LOCK_RENEW, 0, "k", "a", 6, LOCK_TTL_MS_MAX, 0, 7, "renewed 7 token 6 ttl 86400000;"},
          {LOCK_RENEW, 0, "k", "a", 6, 0, 0, 8, "invalid 8 token 0 ttl 0;"}}},
};

static void describe(struct buffer *out, const struct lock_result *results, size_t count)
{
        for (size_t i = 0; i < count; i++)
                buffer_format(out, "%s %llu token %llu ttl %llu;",
                              lock_result_name(results[i].kind),
                              (unsigned long long)results[i].origin.sequence,
                              (unsigned long long)results[i].token.value,
                              (unsigned long long)results[i].ttl_ms);
}

static void run(const struct script *script)
{
        struct lock_table *table = NULL;
        struct buffer said;
        buffer_init(&said, &heap);
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        for (size_t i = 0; script->steps[i].op != 0; i++) {
                const struct step *step = &script->steps[i];
                struct lock_command command = {
                        .op = step->op,
                        .now_ms = step->now,
                        .key = bytes_of_str(step->key),
                        .owner = bytes_of_str(step->owner),
                        .token.value = step->token,
                        .ttl_ms = step->ttl,
                        .wait_ms = step->wait,
                        .origin = {step->sequence != 0, 1, step->sequence},
                        .cancelled = {step->token != 0, 1, step->token},
                };
                size_t count = 0;
                bool fatal = false;
                const struct lock_result *results =
                        lock_apply(table, i + 1, &command, &count, &fatal);
                assert_false(fatal);
                buffer_reset(&said);
                describe(&said, results, count);
                if (!bytes_equal(buffer_view(&said), bytes_of_str(step->results)))
                        fail_msg("%s, step %zu: \"%.*s\", not \"%s\"", script->why, i + 1,
                                 BYTES_ARGS(buffer_view(&said)), step->results);
                lock_table_check(table);
        }
        lock_table_free(table);
        buffer_fini(&said);
}

static void test_scripts(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(scripts); i++)
                run(&scripts[i]);
}

static enum lock_result_kind acquire(struct lock_table *table, uint64_t index, struct bytes key,
                                     struct bytes owner, uint64_t wait_ms)
{
        struct lock_command command = {.op = LOCK_ACQUIRE,
                                       .key = key,
                                       .owner = owner,
                                       .ttl_ms = 1000,
                                       .wait_ms = wait_ms,
                                       .origin = {1, 1, index}};
        size_t count = 0;
        bool fatal = false;
        const struct lock_result *results = lock_apply(table, index, &command, &count, &fatal);
        assert_false(fatal);
        assert_int_equal(count, 1);
        return results[0].kind;
}

static void test_limits(void **state)
{
        (void)state;
        struct lock_table *table = NULL;
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        uint8_t name[LOCK_KEY_BYTES_MAX + 1];
        memset(name, 'n', sizeof name);
        struct bytes owner = BYTES("o");
        assert_int_equal(acquire(table, 1, bytes_of(name, LOCK_KEY_BYTES_MAX), owner, 0),
                         LOCK_GRANTED);
        assert_int_equal(acquire(table, 2, bytes_of(name, sizeof name), owner, 0), LOCK_INVALID);
        assert_int_equal(acquire(table, 3, BYTES("k"), bytes_of(name, LOCK_OWNER_BYTES_MAX), 0),
                         LOCK_GRANTED);
        assert_int_equal(acquire(table, 4, BYTES("k"), bytes_of(name, LOCK_OWNER_BYTES_MAX + 1), 0),
                         LOCK_INVALID);
        for (uint64_t i = 0; i <= LOCK_WAITERS_MAX; i++) {
                char waiter[24];
                snprintf(waiter, sizeof waiter, "w%llu", (unsigned long long)i);
                assert_int_equal(acquire(table, 5 + i, BYTES("k"), bytes_of_str(waiter), 10),
                                 i < LOCK_WAITERS_MAX ? LOCK_QUEUED : LOCK_LIMIT);
        }
        lock_table_check(table);
        assert_int_equal(lock_table_waiters(table), LOCK_WAITERS_MAX);
        struct lock_info info;
        assert_true(lock_find(table, BYTES("k"), &info));
        assert_int_equal(info.waiters, LOCK_WAITERS_MAX);
        assert_int_equal(lock_next_deadline(table), 10);
        lock_table_free(table);
}

/* Many grants in one log entry still have rising tokens, none of them smaller than its index. */
static void test_tokens_in_one_entry(void **state)
{
        (void)state;
        struct lock_table *table = NULL;
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        uint64_t before = 0;
        for (uint64_t i = 0; i < 50; i++) {
                char key[24];
                snprintf(key, sizeof key, "k%llu", (unsigned long long)i);
                (void)acquire(table, 10 + i / 25 * 5, bytes_of_str(key), BYTES("o"), 0);
                uint64_t token = lock_table_last_token(table).value;
                assert_true(token > before && token >= 10 + i / 25 * 5);
                before = token;
        }
        struct bytes key;
        struct lock_info info = {.place = 0};
        size_t count = 0;
        while (lock_next(table, info.place, &key, &info))
                count++;
        assert_int_equal(count, 50);
        lock_table_free(table);
}

static void test_clock(void **state)
{
        (void)state;
        struct lock_clock clock;
        lock_clock_init(&clock, 5000, 1000000, 300);
        assert_int_equal(lock_clock_read(&clock, 1000000), 5000);
        assert_int_equal(lock_clock_read(&clock, 1000999), 5000);
        assert_int_equal(lock_clock_read(&clock, 1001000), 5001);
        assert_int_equal(lock_clock_when(&clock, 5101), 1101000);
        assert_int_equal(lock_clock_when(&clock, 4000), 1001000);
        assert_int_equal(lock_clock_when(&clock, UINT64_MAX), UINT64_MAX);
        assert_int_equal(lock_clock_read(&clock, 900000), 5001);
        assert_int_equal(lock_clock_read(&clock, 1301000), 5301);
        /* Stopped for a minute: only 300 ms of it count. */
        assert_int_equal(lock_clock_read(&clock, 61301000), 5601);
}

/* A command cut anywhere is refused; with a bit flipped it is refused or is another command. */
static void test_commands(void **state)
{
        (void)state;
        struct lock_command command = {
                .op = LOCK_ACQUIRE,
                .now_ms = 123456,
                .key = BYTES("global:k"),
                .owner = BYTES("me"),
                .token.value = 300,
                .ttl_ms = 5000,
                .wait_ms = 100,
                .origin = {3, 900, 12},
                .cancelled = {4, 901, 13},
        };
        struct buffer out;
        struct buffer again;
        struct lock_command back;
        buffer_init(&out, &heap);
        buffer_init(&again, &heap);
        lock_command_encode(&command, &out);
        assert_int_equal(lock_command_decode(buffer_view(&out), &back), ERR_NONE);
        lock_command_encode(&back, &again);
        assert_true(bytes_equal(buffer_view(&out), buffer_view(&again)));
        for (size_t len = 0; len < out.len; len++)
                assert_int_not_equal(lock_command_decode(bytes_of(out.ptr, len), &back), ERR_NONE);
        for (size_t bit = 0; bit < out.len * 8; bit++) {
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (lock_command_decode(buffer_view(&out), &back) == ERR_NONE) {
                        buffer_reset(&again);
                        lock_command_encode(&back, &again);
                        assert_int_equal(again.err, ERR_NONE);
                }
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        out.ptr[0] = 4;
        assert_int_equal(lock_command_decode(buffer_view(&out), &back), ERR_VERSION);
        buffer_fini(&out);
        buffer_fini(&again);
}

/* Each bound from both sides: what is wrong is said. */
static void test_faults(void **state)
{
        static uint8_t many[LOCK_KEY_BYTES_MAX + 1];
        static const struct {
                enum lock_op op;
                size_t key, owner;
                uint64_t ttl, wait, delay, session;
                uint32_t slots, flags;
                const char *says; /* NULL: nothing is wrong */
        } rows[] = {
                {LOCK_ACQUIRE, 1, 1, 1, 0, 0, 0, 0, 0, NULL},
                {LOCK_ACQUIRE, 0, 1, 1, 0, 0, 0, 0, 0, "key"},
                {LOCK_ACQUIRE, LOCK_KEY_BYTES_MAX, 1, 1, 0, 0, 0, 0, 0, NULL},
                {LOCK_ACQUIRE, LOCK_KEY_BYTES_MAX + 1, 1, 1, 0, 0, 0, 0, 0, "512"},
                {LOCK_ACQUIRE, 1, 0, 1, 0, 0, 0, 0, 0, "owner"},
                {LOCK_ACQUIRE, 1, LOCK_OWNER_BYTES_MAX, 1, 0, 0, 0, 0, 0, NULL},
                {LOCK_ACQUIRE, 1, LOCK_OWNER_BYTES_MAX + 1, 1, 0, 0, 0, 0, 0, "256"},
                {LOCK_RENEW, 1, 1, 0, 0, 0, 0, 0, 0, "time to live"},
                {LOCK_RENEW, 1, 1, LOCK_TTL_MS_MAX, 0, 0, 0, 0, 0, NULL},
                {LOCK_RENEW, 1, 1, LOCK_TTL_MS_MAX + 1, 0, 0, 0, 0, 0, "86400000"},
                {LOCK_ACQUIRE, 1, 1, 0, 0, 0, 5, 0, 0, NULL},
                {LOCK_ACQUIRE, 1, 1, 1, LOCK_WAIT_MS_MAX, 0, 0, 0, 0, NULL},
                {LOCK_ACQUIRE, 1, 1, 1, LOCK_WAIT_MS_MAX + 1, 0, 0, 0, 0, "3600000"},
                {LOCK_ACQUIRE, 1, 1, 1, 0, LOCK_DELAY_MS_MAX, 0, 0, 0, NULL},
                {LOCK_ACQUIRE, 1, 1, 1, 0, LOCK_DELAY_MS_MAX + 1, 0, 0, 0, "600000"},
                {LOCK_ACQUIRE, 1, 1, 1, 0, 0, 0, LOCK_SLOTS_MAX, 0, NULL},
                {LOCK_ACQUIRE, 1, 1, 1, 0, 0, 0, LOCK_SLOTS_MAX + 1, 0, "1024"},
                {LOCK_ACQUIRE, 1, 1, 1, 0, 0, 0, LOCK_SHARED, 0, NULL},
                {LOCK_ACQUIRE, 1, 1, 1, 0, 0, 0, 0, LOCK_FLAGS + 1, "flag"},
                {LOCK_RELEASE, 1, 1, 0, 0, 0, 0, 0, 0, NULL},
                {LOCK_TIME, 0, 0, 0, 0, 0, 0, 0, 0, NULL},
        };
        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct lock_command command = {.op = rows[i].op,
                                               .key = bytes_of(many, rows[i].key),
                                               .owner = bytes_of(many, rows[i].owner),
                                               .ttl_ms = rows[i].ttl,
                                               .wait_ms = rows[i].wait,
                                               .delay_ms = rows[i].delay,
                                               .session = rows[i].session,
                                               .slots = rows[i].slots,
                                               .flags = rows[i].flags};
                const char *says = lock_command_fault(&command);
                print_message("row %zu\n", i);
                assert_int_equal(says == NULL, rows[i].says == NULL);
                if (says != NULL)
                        assert_non_null(strstr(says, rows[i].says));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_scripts), cmocka_unit_test(test_limits),
                cmocka_unit_test(test_faults),  cmocka_unit_test(test_tokens_in_one_entry),
                cmocka_unit_test(test_clock),   cmocka_unit_test(test_commands),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
