/* The table under random commands, beside a model that is slow and plain; and its snapshots. */
#include "lock/lock.h"

#include "base/rng.h"

#include "../cmocka_all.h"
#include "reload.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        KEYS = 4,
        OWNERS = 5,
        STEPS = 600,
};

/* The model: arrays, searched from end to end. */
struct model_wait {
        unsigned owner;
        uint64_t until;
        uint64_t ttl;
};

struct model_lock {
        bool held;
        unsigned owner;
        uint64_t token;
        uint64_t until;
        struct model_wait waits[OWNERS];
        size_t wait_count;
};

struct model {
        uint64_t now;
        uint64_t last_token;
        struct model_lock locks[KEYS];
};

static void model_unwait(struct model_lock *lock, size_t at)
{
        lock->wait_count--;
        for (; at < lock->wait_count; at++)
                lock->waits[at] = lock->waits[at + 1];
}

static void model_grant(struct model *model, struct model_lock *lock, unsigned owner,
                        uint64_t index, uint64_t ttl)
{
        model->last_token = model->last_token + 1 > index ? model->last_token + 1 : index;
        lock->held = true;
        lock->owner = owner;
        lock->token = model->last_token;
        lock->until = model->now + ttl;
}

static void model_end(struct model *model, struct model_lock *lock, uint64_t index)
{
        lock->held = false;
        if (lock->wait_count == 0)
                return;
        struct model_wait wait = lock->waits[0];
        model_unwait(lock, 0);
        model_grant(model, lock, wait.owner, index, wait.ttl);
}

static void model_advance(struct model *model, uint64_t now, uint64_t index)
{
        if (now <= model->now)
                return;
        model->now = now;
        for (size_t k = 0; k < KEYS; k++) {
                struct model_lock *lock = &model->locks[k];
                for (size_t i = lock->wait_count; i > 0; i--) {
                        if (lock->waits[i - 1].until <= now)
                                model_unwait(lock, i - 1);
                }
        }
        for (;;) {
                struct model_lock *first = NULL;
                for (size_t k = 0; k < KEYS; k++) {
                        struct model_lock *lock = &model->locks[k];
                        if (!lock->held || lock->until > now)
                                continue;
                        if (first == NULL || lock->until < first->until ||
                            (lock->until == first->until && lock->token < first->token))
                                first = lock;
                }
                if (first == NULL)
                        return;
                model_end(model, first, index);
        }
}

static size_t model_waiting(const struct model_lock *lock, unsigned owner)
{
        size_t i = 0;
        while (i < lock->wait_count && lock->waits[i].owner != owner)
                i++;
        return i;
}

static enum lock_result_kind model_acquire(struct model *model, struct model_lock *lock,
                                           unsigned owner, const struct lock_command *command,
                                           uint64_t index)
{
        if (!lock->held) {
                model_grant(model, lock, owner, index, command->ttl_ms);
                return LOCK_GRANTED;
        }
        if (lock->owner == owner) {
                lock->until = model->now + command->ttl_ms;
                return LOCK_GRANTED;
        }
        size_t at = model_waiting(lock, owner);
        if (command->wait_ms == 0) {
                if (at < lock->wait_count)
                        model_unwait(lock, at);
                return LOCK_HELD;
        }
        if (at == lock->wait_count)
                lock->wait_count++;
        lock->waits[at] =
                (struct model_wait){owner, model->now + command->wait_ms, command->ttl_ms};
        return LOCK_QUEUED;
}

static enum lock_result_kind model_apply(struct model *model, unsigned key, unsigned owner,
                                         const struct lock_command *command, uint64_t index)
{
        struct model_lock *lock = &model->locks[key];
        model_advance(model, command->now_ms, index);
        bool owned = lock->held && lock->owner == owner && lock->token == command->token.value;
        switch (command->op) {
        case LOCK_ACQUIRE:
                return model_acquire(model, lock, owner, command, index);
        case LOCK_RENEW:
                if (owned)
                        lock->until = model->now + command->ttl_ms;
                return owned ? LOCK_RENEWED : LOCK_NOT_OWNER;
        case LOCK_RELEASE:
                if (owned)
                        model_end(model, lock, index);
                return owned ? LOCK_RELEASED : LOCK_NOT_OWNER;
        case LOCK_BREAK:
                if (!lock->held)
                        return LOCK_FREE;
                model_end(model, lock, index);
                return LOCK_BROKEN;
        case LOCK_TIME:
        case LOCK_CANCEL:
        case LOCK_SEIZE:
        case LOCK_LOOK:
        case LOCK_SESSION_OPEN:
        case LOCK_SESSION_KEEP:
        case LOCK_SESSION_CLOSE:
        case LOCK_ACQUIRE_ALL:
        case LOCK_OP_COUNT:
                break;
        }
        return LOCK_FREE;
}

static void compare(const struct model *model, const struct lock_table *table, uint64_t seed)
{
        for (unsigned k = 0; k < KEYS; k++) {
                char key[8];
                char owner[8];
                const struct model_lock *lock = &model->locks[k];
                struct lock_info info;
                snprintf(key, sizeof key, "k%u", k);
                snprintf(owner, sizeof owner, "o%u", lock->owner);
                bool held = lock_find(table, bytes_of_str(key), &info);
                if (held != lock->held)
                        fail_msg("seed %llu: %s held %d", (unsigned long long)seed, key, held);
                if (!held)
                        continue;
                if (info.token.value != lock->token || info.waiters != lock->wait_count ||
                    info.ttl_ms != lock->until - model->now ||
                    !bytes_equal(info.owner, bytes_of_str(owner)))
                        fail_msg("seed %llu: %s differs", (unsigned long long)seed, key);
        }
}

/* Picks a command; the token is mostly the right one. */
static struct lock_command choose(struct rng *rng, const struct model *model, unsigned key,
                                  unsigned owner)
{
        static const enum lock_op ops[] = {LOCK_ACQUIRE, LOCK_ACQUIRE, LOCK_ACQUIRE, LOCK_RELEASE,
                                           LOCK_RELEASE, LOCK_RENEW,   LOCK_BREAK};
        (void)owner;
        return (struct lock_command){
                .op = ops[rng_below(rng, rng_chance(rng, 100) ? 7 : 6)],
                .now_ms = model->now + rng_below(rng, 15),
                .ttl_ms = 1 + rng_below(rng, 60),
                .wait_ms = rng_chance(rng, 600) ? 1 + rng_below(rng, 60) : 0,
                .token.value = model->locks[key].token - (rng_chance(rng, 100) ? 1 : 0),
        };
}

static void history(uint64_t seed)
{
        struct rng rng;
        struct model model = {0};
        struct lock_table *table = NULL;
        uint64_t token_before = 0;
        rng_init(&rng, seed, 0);
        assert_int_equal(lock_table_new(&heap, seed, &table), ERR_NONE);
        for (uint64_t index = 1; index <= STEPS; index++) {
                unsigned key = (unsigned)rng_below(&rng, KEYS);
                unsigned owner = (unsigned)rng_below(&rng, OWNERS);
                char key_name[8];
                char owner_name[8];
                snprintf(key_name, sizeof key_name, "k%u", key);
                snprintf(owner_name, sizeof owner_name, "o%u", owner);
                struct lock_command command = choose(&rng, &model, key, owner);
                command.key = bytes_of_str(key_name);
                command.owner = bytes_of_str(owner_name);
                command.origin = (struct lock_origin){1, 1, index};
                size_t count = 0;
                bool fatal = false;
                uint64_t entry = index / 3; /* three commands an entry */
                const struct lock_result *results =
                        lock_apply(table, entry, &command, &count, &fatal);
                enum lock_result_kind kind = model_apply(&model, key, owner, &command, entry);
                size_t answers = 0;
                for (size_t i = 0; i < count; i++) {
                        if (results[i].origin.sequence == index && answers++ == 0 &&
                            results[i].kind != kind)
                                fail_msg("seed %llu, %llu: %s, not %s", (unsigned long long)seed,
                                         (unsigned long long)index,
                                         lock_result_name(results[i].kind), lock_result_name(kind));
                }
                assert_int_equal(answers, 1);
                assert_false(fatal);
                compare(&model, table, seed);
                assert_true(lock_table_last_token(table).value >= token_before);
                token_before = lock_table_last_token(table).value;
                lock_table_check(table);
                if (rng_chance(&rng, 50))
                        lock_reload(&table, seed);
        }
        lock_table_free(table);
}

static void test_model(void **state)
{
        (void)state;
        const char *only = getenv("SEED");
        uint64_t first = only != NULL ? strtoull(only, NULL, 0) : 1;
        for (uint64_t seed = first; seed < first + (only != NULL ? 1 : 150); seed++)
                history(seed);
}

static void fill(struct lock_table *table, size_t locks, size_t waiters)
{
        uint64_t index = 0;
        for (size_t i = 0; i < locks; i++) {
                for (size_t w = 0; w <= waiters; w++) {
                        char key[24];
                        char owner[24];
                        snprintf(key, sizeof key, "key%zu", i);
                        snprintf(owner, sizeof owner, "o%zu", w);
                        struct lock_command command = {.op = LOCK_ACQUIRE,
                                                       .key = bytes_of_str(key),
                                                       .owner = bytes_of_str(owner),
                                                       .ttl_ms = 5000 + i % 1000,
                                                       .wait_ms = w == 0 ? 0 : 100,
                                                       .origin = {1, 2, index}};
                        size_t count;
                        bool fatal;
                        (void)lock_apply(table, ++index, &command, &count, &fatal);
                        assert_false(fatal);
                }
        }
}

/* Damaged snapshots change nothing; whatever is accepted is a sound table. */
static void test_damaged(void **state)
{
        (void)state;
        struct lock_table *table = NULL;
        struct lock_table *other = NULL;
        struct buffer out;
        struct buffer now;
        buffer_init(&out, &heap);
        buffer_init(&now, &heap);
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        assert_int_equal(lock_table_new(&heap, 2, &other), ERR_NONE);
        fill(table, 4, 2);
        fill(other, 1, 0);
        lock_table_encode(table, &out);
        for (size_t len = 0; len < out.len; len++)
                assert_int_not_equal(lock_table_decode(other, bytes_of(out.ptr, len)), ERR_NONE);
        assert_int_equal(lock_table_count(other), 1);
        for (size_t bit = 0; bit < out.len * 8; bit++) {
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (lock_table_decode(other, buffer_view(&out)) == ERR_NONE) {
                        lock_table_check(other);
                        buffer_reset(&now);
                        lock_table_encode(other, &now);
                        assert_int_equal(now.len, out.len);
                }
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        lock_table_free(table);
        lock_table_free(other);
        buffer_fini(&out);
        buffer_fini(&now);
}

/* Every allocation fails once: told as fatal, and nothing leaks. */
static void test_memory(void **state)
{
        (void)state;
        struct heap small;
        uint64_t calls = 0;
        for (uint64_t fail = 0; fail == 0 || fail <= calls; fail++) {
                heap_init(&small, 0);
                small.fail_at = fail;
                struct lock_table *table = NULL;
                if (lock_table_new(&small, 1, &table) == ERR_NONE) {
                        for (uint64_t i = 1; i < 12; i++) {
                                struct lock_command command = {
                                        .op = i < 9 ? LOCK_ACQUIRE : LOCK_TIME,
                                        .now_ms = i < 9 ? 0 : i * 10,
                                        .key = i % 2 == 0 ? BYTES("a") : BYTES("b"),
                                        .owner = bytes_of(&"abcdefghijkl"[i], 1),
                                        .ttl_ms = 85,
                                        .wait_ms = 1000,
                                        .origin = {1, 1, i}};
                                size_t count;
                                bool fatal;
                                (void)lock_apply(table, i, &command, &count, &fatal);
                                if (fatal)
                                        break;
                                lock_table_check(table);
                        }
                        lock_table_free(table);
                }
                if (fail == 0)
                        calls = small.calls;
                assert_int_equal(small.used_bytes, 0);
                if (fail != 0)
                        assert_true(small.calls >= fail);
        }
        assert_true(calls > 20);
}

/* A hundred thousand locks with one deadline each end in one command. */
static void test_many(void **state)
{
        (void)state;
        struct lock_table *table = NULL;
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        fill(table, 100000, 0);
        assert_int_equal(lock_table_count(table), 100000);
        lock_reload(&table, 1);
        lock_table_check(table);
        struct lock_command command = {.op = LOCK_TIME, .now_ms = 5999};
        size_t count;
        bool fatal;
        (void)lock_apply(table, 200000, &command, &count, &fatal);
        assert_int_equal(count, 100000);
        assert_true(lock_table_idle(table));
        assert_int_equal(lock_next_deadline(table), UINT64_MAX);
        lock_table_free(table);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_model),
                cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_memory),
                cmocka_unit_test(test_many),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
