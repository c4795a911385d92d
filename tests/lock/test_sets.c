/* Several locks at once: the rules one by one, and a property: who waits for a set holds nothing of
 * it, gets all of it, and is never overtaken by one who came later for the same lock. */
#include "lock/lock.h"

#include "base/rng.h"

#include "../cmocka_all.h"
#include "reload.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        KEYS = 5,
        OWNERS = 7,
        STEPS = 500,
        SEEDS = 150,
};

/* ---- rules one by one ---- */

#define ALL(name, first, others, ...)                                                              \
        {                                                                                          \
                .op = LOCK_ACQUIRE_ALL, .owner = BYTES_INIT(name), .key = BYTES_INIT(first),       \
                .also = BYTES_INIT(others), __VA_ARGS__                                            \
        }
#define ONE(name, lock, ...)                                                                       \
        {                                                                                          \
                .op = LOCK_ACQUIRE, .owner = BYTES_INIT(name), .key = BYTES_INIT(lock),            \
                __VA_ARGS__                                                                        \
        }
#define FREE(name, lock)                                                                           \
        {                                                                                          \
                .op = LOCK_RELEASE, .owner = BYTES_INIT(name), .key = BYTES_INIT(lock),            \
                .flags = LOCK_BY_OWNER                                                             \
        }
#define AT(ms)                                                                                     \
        {                                                                                          \
                .op = LOCK_TIME, .now_ms = (ms)                                                    \
        }

struct row {
        struct lock_command command;
        const char *results; /* kind and owner of each */
};

static void run(const char *why, const struct row *rows, size_t row_count)
{
        struct lock_table *table = NULL;
        struct buffer said;
        buffer_init(&said, &heap);
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        for (size_t i = 0; i < row_count; i++) {
                struct lock_command command = rows[i].command;
                size_t result_count = 0;
                bool fatal = false;
                command.origin = (struct lock_origin){1, 1, i + 1};
                if (command.op == LOCK_TIME)
                        command.origin = (struct lock_origin){0};
                command.ttl_ms = command.ttl_ms == 0 ? 100 : command.ttl_ms;
                const struct lock_result *results =
                        lock_apply(table, i + 1, &command, &result_count, &fatal);
                buffer_reset(&said);
                for (size_t r = 0; r < result_count; r++)
                        buffer_format(&said, "%s %.*s;", lock_result_name(results[r].kind),
                                      BYTES_ARGS(results[r].owner));
                buffer_u8(&said, 0);
                if (strcmp((const char *)said.ptr, rows[i].results) != 0)
                        fail_msg("%s, row %zu: %s, not %s", why, i, (const char *)said.ptr,
                                 rows[i].results);
                lock_table_check(table);
                lock_reload(&table, 77);
        }
        lock_table_free(table);
        buffer_fini(&said);
}

static void test_rules(void **state)
{
        (void)state;
        static const struct row whole[] = {
                {ALL("x", "b", "\1a\1c", .ttl_ms = 100), "granted x;"},
                {ALL("x", "a", "\1b\1c", .ttl_ms = 100), "granted x;"}, /* a repeat, in any order */
                {ONE("y", "c", .ttl_ms = 100), "held x;"},
                {FREE("x", "b"), "released x;"},
                {ALL("x", "b", "\1a\1c", .ttl_ms = 100), "held x;"}, /* it has some of them */
                {ONE("y", "b", .ttl_ms = 100), "granted y;"},
                {AT(100), "expired x;expired x;expired y;"},
        };
        run("all of them", whole, COUNT_OF(whole));
        static const struct row none[] = {
                {ONE("x", "b", .ttl_ms = 1000), "granted x;"},
                {ALL("y", "a", "\1b", .ttl_ms = 100), "held x;"},
                {ONE("z", "a", .ttl_ms = 100), "granted z;"}, /* nothing was left behind */
                {ALL("y", "a", "\1b", .wait_ms = 500), "queued z;"},
                {ONE("w", "c", .ttl_ms = 100), "granted w;"},
                {FREE("z", "a"), "released z;"},          /* y has not got a alone, */
                {ONE("w", "a", .ttl_ms = 100), "held ;"}, /* and nobody overtakes it */
                {ONE("w", "a", .wait_ms = 400), "queued ;"},
                {FREE("x", "b"), "released x;granted y;"},
                {AT(100), "expired w;expired y;expired y;granted w;"},
        };
        run("or none, and first come", none, COUNT_OF(none));
        static const struct row crossed[] = {
                {ONE("x", "a", .ttl_ms = 900), "granted x;"},
                {ALL("y", "a", "\1b", .wait_ms = 500), "queued x;"},
                {ALL("z", "b", "\1a", .wait_ms = 500), "queued x;"},
                {ALL("v", "c", "\1b", .wait_ms = 50), "queued ;"},
                {AT(50), "timed out v;"},
                {FREE("x", "a"), "released x;granted y;"},
                {FREE("y", "b"), "released y;"},
                {FREE("y", "a"), "released y;granted z;"},
        };
        run("two never wait for each other", crossed, COUNT_OF(crossed));
        static const struct row again[] = {
                {ONE("x", "a", .ttl_ms = 900), "granted x;"},
                {ALL("y", "a", "\1b", .wait_ms = 500), "queued x;"},
                {ONE("z", "b", .wait_ms = 500), "queued ;"},
                {ALL("y", "b", "\1a", .wait_ms = 500), "cancelled y;queued x;"},
                {ONE("z", "c", .ttl_ms = 100), "granted z;"},
                /* another wish of the same owner ends the first: who stood behind it goes on */
                {ONE("y", "a", .wait_ms = 500), "cancelled y;granted z;queued x;"},
        };
        run("its owner asks again", again, COUNT_OF(again));
        static const struct row readers[] = {
                {ALL("x", "a", "\1b", .slots = LOCK_SHARED), "granted x;"},
                {ALL("y", "b", "\1c", .slots = LOCK_SHARED), "granted y;"},
                {ALL("z", "a", "\1c", .wait_ms = 500), "queued x;"},
                {ONE("w", "a", .slots = LOCK_SHARED, .wait_ms = 500), "queued x;"},
                {FREE("x", "a"), "released x;"},
                {FREE("y", "c"), "released y;granted z;"},
        };
        run("readers", readers, COUNT_OF(readers));
        static const struct row circle[] = {
                {ALL("x", "a", "\1b", .ttl_ms = 900), "granted x;"},
                {ONE("y", "c", .ttl_ms = 900), "granted y;"},
                {ALL("y", "b", "\1d", .wait_ms = 500), "queued x;"},
                {ALL("x", "c", "\1e", .wait_ms = 500, .flags = LOCK_DETECT), "deadlock x;"},
                {ONE("x", "d", .wait_ms = 500, .flags = LOCK_DETECT), "deadlock x;"},
                {ALL("z", "a", "\1c", .wait_ms = 500, .flags = LOCK_DETECT), "queued x;"},
        };
        run("deadlocks", circle, COUNT_OF(circle));
        static const struct row wrong[] = {
                {ALL("x", "a", "\1a", .ttl_ms = 100), "invalid x;"},
                {ALL("x", "a", "\1b\0", .ttl_ms = 100), "invalid x;"},
                {ALL("x", "a", "\1b\5c", .ttl_ms = 100), "invalid x;"},
                {ALL("x", "a", "", .ttl_ms = 100), "granted x;"},
                {ALL("x", "b", "\1c", .session = 9), "no session x;"},
                {{.op = LOCK_BREAK, .key = BYTES_INIT("z")}, "free ;"},
        };
        run("what is wrong", wrong, COUNT_OF(wrong));
}

/* One token for all, larger than any before and smaller than any after. */
static void test_tokens(void **state)
{
        (void)state;
        struct lock_table *table = NULL;
        struct lock_info info;
        size_t count;
        bool fatal;
        uint64_t last = 0;
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        for (uint64_t i = 1; i <= 40; i++) {
                struct lock_command all = ALL("x", "a", "\1b\1c", .ttl_ms = 100);
                struct lock_command one = ONE("y", "b", .ttl_ms = 100);
                struct lock_command *command = i % 2 == 0 ? &all : &one;
                command->ttl_ms = 1;
                command->now_ms = i * 10;
                command->origin = (struct lock_origin){1, 1, i};
                const struct lock_result *results = lock_apply(table, 3, command, &count, &fatal);
                uint64_t token = results[count - 1].token.value;
                assert_int_equal(results[count - 1].kind, LOCK_GRANTED);
                assert_true(token > last);
                for (const char *key = "abc"; i % 2 == 0 && *key != '\0'; key++) {
                        struct bytes name = bytes_of(key, 1);
                        assert_true(lock_find_holder(table, name, results[count - 1].token, &info));
                        assert_int_equal(info.token.value, token);
                }
                last = i % 2 == 0 ? lock_table_last_token(table).value : token;
        }
        lock_table_free(table);
}

/* ---- the property ---- */

struct waiting {
        bool on;
        unsigned keys; /* bits */
        uint64_t since;
        uint64_t origin;
};

struct world {
        struct rng rng;
        struct lock_table *table;
        uint64_t now;
        uint64_t number;
        struct waiting waits[OWNERS];
        size_t granted_sets; /* after a wait */
};

static struct bytes key_name(unsigned key)
{
        static const char *const names[KEYS] = {"k0", "k1", "k2", "k3", "k4"};
        return bytes_of_str(names[key]);
}

static struct bytes owner_name(unsigned owner)
{
        static const char *const names[OWNERS] = {"o0", "o1", "o2", "o3", "o4", "o5", "o6"};
        return bytes_of_str(names[owner]);
}

static bool holds(const struct world *world, unsigned owner, unsigned key)
{
        struct lock_info info;
        for (uint64_t token = 1; token <= lock_table_last_token(world->table).value; token++)
                if (lock_find_holder(world->table, key_name(key), (struct lock_token){token},
                                     &info) &&
                    bytes_equal(info.owner, owner_name(owner)))
                        return true;
        return false;
}

static void granted(struct world *world, unsigned owner, bool stays, uint64_t seed)
{
        struct waiting *mine = &world->waits[owner];
        for (unsigned other = 0; other < OWNERS; other++) {
                const struct waiting *wait = &world->waits[other];
                if (other != owner && wait->on && (wait->keys & mine->keys) != 0 &&
                    wait->since < mine->since)
                        fail_msg("seed %llu, %llu: o%u overtakes o%u", (unsigned long long)seed,
                                 (unsigned long long)world->number, owner, other);
        }
        for (unsigned key = 0; stays && key < KEYS; key++)
                if ((mine->keys >> key & 1) != 0 && !holds(world, owner, key))
                        fail_msg("seed %llu, %llu: o%u was not granted k%u",
                                 (unsigned long long)seed, (unsigned long long)world->number, owner,
                                 key);
        world->granted_sets += (mine->keys & (mine->keys - 1)) != 0;
        mine->on = false;
}

/* Does something that the owner holds end in this command? */
static bool ends(const struct lock_result *results, size_t count, unsigned owner)
{
        for (size_t i = 0; i < count; i++)
                if ((results[i].kind == LOCK_EXPIRED || results[i].kind == LOCK_BROKEN ||
                     results[i].kind == LOCK_RELEASED) &&
                    bytes_equal(results[i].owner, owner_name(owner)))
                        return true;
        return false;
}

static void apply(struct world *world, struct lock_command *command, unsigned owner, unsigned keys,
                  uint64_t seed)
{
        size_t count = 0;
        bool fatal = false;
        command->now_ms = world->now;
        command->owner = owner_name(owner);
        command->origin = (struct lock_origin){1, 1, ++world->number};
        const struct lock_result *results =
                lock_apply(world->table, world->number / 3, command, &count, &fatal);
        assert_false(fatal);
        size_t answers = 0;
        for (size_t i = 0; i < count; i++) {
                answers += results[i].origin.sequence == world->number;
                if (results[i].kind == LOCK_QUEUED)
                        world->waits[owner] =
                                (struct waiting){true, keys, world->number, world->number};
        }
        assert_int_equal(answers, 1);
        for (size_t i = 0; i < count; i++)
                for (unsigned o = 0; o < OWNERS; o++) {
                        struct waiting *wait = &world->waits[o];
                        if (!wait->on || results[i].origin.sequence != wait->origin ||
                            results[i].kind == LOCK_QUEUED)
                                continue;
                        if (results[i].kind == LOCK_GRANTED)
                                granted(world, o, !ends(results, count, o), seed);
                        wait->on = false;
                }
        lock_table_check(world->table);
        for (unsigned o = 0; o < OWNERS; o++)
                for (unsigned key = 0; world->waits[o].on && key < KEYS; key++)
                        if ((world->waits[o].keys >> key & 1) != 0)
                                assert_false(holds(world, o, key));
}

static void step(struct world *world, uint64_t seed)
{
        struct rng *rng = &world->rng;
        unsigned owner = (unsigned)rng_below(rng, OWNERS);
        unsigned first = (unsigned)rng_below(rng, KEYS);
        unsigned keys = 1u << first;
        struct lock_command command = {.op = LOCK_RELEASE,
                                       .key = key_name(first),
                                       .flags = LOCK_BY_OWNER,
                                       .ttl_ms = 1 + rng_below(rng, 60)};
        struct buffer also;
        buffer_init(&also, &heap);
        world->now += rng_below(rng, 6);
        if (!world->waits[owner].on && rng_chance(rng, 600)) {
                command.op = rng_chance(rng, 700) ? LOCK_ACQUIRE_ALL : LOCK_ACQUIRE;
                command.flags = rng_chance(rng, 300) ? LOCK_DETECT : 0;
                command.wait_ms = rng_chance(rng, 800) ? 1 + rng_below(rng, 120) : 0;
                command.slots = rng_chance(rng, 300) ? LOCK_SHARED : 1;
                for (unsigned key = 0; key < KEYS && command.op == LOCK_ACQUIRE_ALL; key++) {
                        if (key == first || rng_chance(rng, 600))
                                continue;
                        buffer_slice(&also, key_name(key));
                        keys |= 1u << key;
                }
                command.also = buffer_view(&also);
        } else if (rng_chance(rng, 100)) {
                command.op = LOCK_SEIZE;
        } else if (world->waits[owner].on && rng_chance(rng, 200)) {
                command.op = LOCK_CANCEL;
                command.cancelled = (struct lock_origin){1, 1, world->waits[owner].origin};
                while ((world->waits[owner].keys >> first & 1) == 0)
                        first = (first + 1) % KEYS;
                command.key = key_name(first);
        }
        apply(world, &command, owner, keys, seed);
        buffer_fini(&also);
        if (rng_chance(rng, 100))
                lock_reload(&world->table, 77);
}

static void test_property(void **state)
{
        (void)state;
        const char *only = getenv("SEED");
        uint64_t first = only != NULL ? strtoull(only, NULL, 0) : 1;
        size_t sets = 0;
        for (uint64_t seed = first; seed < first + (only != NULL ? 1 : SEEDS); seed++) {
                struct world world = {0};
                rng_init(&world.rng, seed, 0);
                assert_int_equal(lock_table_new(&heap, seed, &world.table), ERR_NONE);
                for (int i = 0; i < STEPS; i++)
                        step(&world, seed);
                /* All comes to an end: nobody waits for ever. */
                world.now += LOCK_WAIT_MS_MAX;
                struct lock_command end = {.op = LOCK_CANCEL, .key = BYTES("none")};
                apply(&world, &end, 0, 0, seed);
                world.now += LOCK_WAIT_MS_MAX;
                apply(&world, &end, 0, 0, seed);
                assert_true(lock_table_idle(world.table));
                sets += world.granted_sets;
                lock_table_free(world.table);
        }
        print_message("%zu sets granted after a wait\n", sets);
        assert_true(only != NULL || sets > 1000);
}

/* A damaged snapshot is refused, or is a table that holds together. */
static void test_damage(void **state)
{
        (void)state;
        static const struct lock_command commands[] = {
                ONE("x", "b", .ttl_ms = 900),
                ALL("y", "a", "\1b\1c", .ttl_ms = 100, .wait_ms = 500),
                ALL("z", "d", "\1e", .ttl_ms = 900),
                ONE("w", "a", .ttl_ms = 100, .wait_ms = 500),
        };
        struct lock_table *table = NULL, *other = NULL;
        struct buffer out;
        size_t count;
        bool fatal;
        buffer_init(&out, &heap);
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        assert_int_equal(lock_table_new(&heap, 2, &other), ERR_NONE);
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                (void)lock_apply(table, i + 1, &commands[i], &count, &fatal);
        lock_table_encode(table, &out);
        assert_int_equal(out.ptr[0], 3);
        for (size_t len = 0; len < out.len; len++)
                assert_int_not_equal(lock_table_decode(other, bytes_of(out.ptr, len)), ERR_NONE);
        for (size_t bit = 0; bit < out.len * 8; bit++) {
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (lock_table_decode(other, buffer_view(&out)) == ERR_NONE) {
                        struct lock_command time = {.op = LOCK_TIME, .now_ms = 1000};
                        lock_table_check(other);
                        (void)lock_apply(other, 10, &time, &count, &fatal);
                        lock_table_check(other);
                }
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        lock_table_free(table);
        lock_table_free(other);
        buffer_fini(&out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rules),
                cmocka_unit_test(test_tokens),
                cmocka_unit_test(test_property),
                cmocka_unit_test(test_damage),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
