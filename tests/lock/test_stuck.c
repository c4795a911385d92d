/* Deadlocks through semaphores: by hand, and a property on small tables. Its oracle is the table
 * itself: everybody who does not wait gives back what it holds, again and again. Who still waits
 * then waits for ever.
 *
 *   told       -> the wait would never be granted
 *   for ever, and nobody would wait for ever if the owner who asks gave up all it has -> told
 *   found by the search for circles -> told */
#include "lock/lock.h"

#include "base/rng.h"

#include "../cmocka_all.h"
#include "reload.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        KEYS = 5,
        OWNERS = 6,
        PHANTOM = OWNERS, /* asks instead of another owner */
        COMMANDS = 28,
        ORIGINS = 4096,
        SEEDS = 1500,
};

struct word {
        unsigned owner;
        unsigned keys; /* bits */
        uint32_t slots;
        bool waits;
        bool releases;
};

struct world {
        struct lock_table *table;
        uint64_t number;
        unsigned owner_of[ORIGINS];
        bool waiting[ORIGINS]; /* by the number of the request */
        unsigned keys_of[ORIGINS];
        enum lock_result_kind answer; /* to the last command */
};

static void name_of(char *text, char kind, unsigned number)
{
        (void)snprintf(text, 8, "%c%u", kind, number);
}

static void run(struct world *world, struct lock_command *command, unsigned owner, unsigned keys)
{
        size_t count = 0;
        bool fatal = false;
        char text[8];
        uint64_t number = ++world->number;
        assert_true(number < ORIGINS);
        name_of(text, 'o', owner);
        command->owner = bytes_of_str(text);
        command->origin = (struct lock_origin){1, 1, number};
        world->owner_of[number] = owner;
        world->keys_of[number] = keys;
        world->answer = LOCK_RESULT_COUNT;
        const struct lock_result *results =
                lock_apply(world->table, number, command, &count, &fatal);
        assert_false(fatal);
        for (size_t i = 0; i < count; i++) {
                uint64_t origin = results[i].origin.sequence;
                world->waiting[origin] = results[i].kind == LOCK_QUEUED;
                if (origin == number && world->answer == LOCK_RESULT_COUNT)
                        world->answer = results[i].kind;
        }
}

static void acquire(struct world *world, const struct word *word, unsigned owner, uint32_t flags)
{
        struct buffer also;
        char text[KEYS][8];
        struct lock_command command = {.op = LOCK_ACQUIRE,
                                       .ttl_ms = LOCK_TTL_MS_MAX,
                                       .wait_ms = word->waits ? LOCK_WAIT_MS_MAX : 0,
                                       .slots = word->slots,
                                       .flags = flags};
        buffer_init(&also, &heap);
        for (unsigned key = 0; key < KEYS; key++) {
                if ((word->keys >> key & 1) == 0)
                        continue;
                name_of(text[key], 'k', key);
                if (command.key.len == 0)
                        command.key = bytes_of_str(text[key]);
                else
                        buffer_slice(&also, bytes_of_str(text[key]));
        }
        command.also = buffer_view(&also);
        if (command.also.len > 0)
                command.op = LOCK_ACQUIRE_ALL;
        run(world, &command, owner, word->keys);
        buffer_fini(&also);
}

static bool release(struct world *world, unsigned owner, unsigned key)
{
        char text[8];
        name_of(text, 'k', key);
        struct lock_command command = {
                .op = LOCK_RELEASE, .key = bytes_of_str(text), .flags = LOCK_BY_OWNER};
        run(world, &command, owner, 0);
        return world->answer == LOCK_RELEASED;
}

static bool waits(const struct world *world, unsigned owner)
{
        for (uint64_t i = 1; i <= world->number; i++)
                if (world->waiting[i] && world->owner_of[i] == owner)
                        return true;
        return false;
}

static void give_up(struct world *world, unsigned owner)
{
        for (uint64_t i = 1, end = world->number; i <= end; i++) {
                char text[8];
                unsigned key = 0;
                if (!world->waiting[i] || world->owner_of[i] != owner)
                        continue;
                while ((world->keys_of[i] >> key & 1) == 0)
                        key++;
                name_of(text, 'k', key);
                struct lock_command command = {
                        .op = LOCK_CANCEL, .key = bytes_of_str(text), .cancelled = {1, 1, i}};
                run(world, &command, owner, 0);
        }
        for (unsigned key = 0; key < KEYS; key++)
                (void)release(world, owner, key);
}

/* Everybody who can go on does, to the end. */
static void reduce(struct world *world)
{
        for (bool more = true; more;) {
                more = false;
                for (unsigned owner = 0; owner <= PHANTOM; owner++)
                        for (unsigned key = 0; key < KEYS && !waits(world, owner); key++)
                                more |= release(world, owner, key);
        }
}

static void play(struct world *world, const struct word *words, size_t count, uint32_t flags)
{
        memset(world, 0, sizeof *world);
        assert_int_equal(lock_table_new(&heap, 5, &world->table), ERR_NONE);
        for (size_t i = 0; i < count; i++)
                if (words[i].releases)
                        (void)release(world, words[i].owner, words[i].keys);
                else
                        acquire(world, &words[i], words[i].owner, flags);
}

static struct word choose(struct rng *rng, const uint32_t *slots, bool alike)
{
        static const uint32_t any[] = {1, 2, 3, LOCK_SHARED};
        unsigned key = (unsigned)rng_below(rng, KEYS);
        struct word word = {.owner = (unsigned)rng_below(rng, OWNERS),
                            .keys = 1u << key,
                            .slots = slots[key],
                            .waits = !rng_chance(rng, 200)};
        if (!alike)
                word.slots = any[rng_below(rng, 4)];
        if (rng_chance(rng, 200))
                word.keys |= 1u << rng_below(rng, KEYS);
        if (rng_chance(rng, 150)) {
                word.releases = true;
                word.keys = key;
        }
        return word;
}

struct tally {
        unsigned told, circles, for_ever, by_others;
};

static void judge(const struct word *words, const struct word *asks, uint32_t flags, uint64_t seed,
                  struct tally *tally)
{
        static struct world world;
        play(&world, words, COMMANDS, flags);
        for (uint64_t i = 1; i <= world.number; i++)
                if (world.waiting[i] && world.owner_of[i] == asks->owner &&
                    (world.keys_of[i] & asks->keys) != 0) {
                        lock_table_free(world.table);
                        return; /* it waits for that already: no new wait */
                }
        acquire(&world, asks, asks->owner, 0);
        bool queued = world.answer == LOCK_QUEUED;
        uint64_t number = world.number;
        reduce(&world);
        bool never = queued && world.waiting[number];
        lock_table_free(world.table);

        play(&world, words, COMMANDS, flags);
        give_up(&world, asks->owner);
        acquire(&world, asks, PHANTOM, 0);
        reduce(&world);
        bool others = false;
        for (unsigned owner = 0; owner <= PHANTOM; owner++)
                others |= waits(&world, owner);
        lock_table_free(world.table);

        play(&world, words, COMMANDS, flags);
        lock_reload(&world.table, seed); /* another order of hashing */
        acquire(&world, asks, asks->owner, LOCK_DETECT_SLOTS);
        bool told = world.answer == LOCK_DEADLOCK;
        lock_table_check(world.table);
        lock_table_free(world.table);

        play(&world, words, COMMANDS, flags);
        acquire(&world, asks, asks->owner, LOCK_DETECT);
        bool circle = world.answer == LOCK_DEADLOCK;
        lock_table_free(world.table);

        if ((told && !never) || (never && !others && !told) || (circle && !told))
                fail_msg("seed %llu: told %d, for ever %d, others %d, circle %d",
                         (unsigned long long)seed, told, never, others, circle);
        tally->told += told;
        tally->circles += circle;
        tally->for_ever += never;
        tally->by_others += never && others;
}

static void test_small_tables(void **state)
{
        const char *only = getenv("SEED");
        uint64_t first = only != NULL ? strtoull(only, NULL, 0) : 1;
        struct tally tally = {0};
        (void)state;
        for (uint64_t seed = first; seed < first + (only != NULL ? 1 : SEEDS); seed++) {
                struct rng rng;
                struct word words[COMMANDS + 1];
                static const uint32_t any[] = {1, 1, 2, 2, 3, LOCK_SHARED};
                uint32_t slots[KEYS];
                rng_init(&rng, seed, 0);
                for (unsigned key = 0; key < KEYS; key++)
                        slots[key] = any[rng_below(&rng, 6)];
                bool alike = rng_chance(&rng, 700);
                for (size_t i = 0; i <= COMMANDS; i++)
                        words[i] = choose(&rng, slots, alike);
                words[COMMANDS].waits = true;
                words[COMMANDS].releases = false;
                if (words[COMMANDS].keys == 0 || words[COMMANDS].keys >= 1u << KEYS)
                        words[COMMANDS].keys = 1;
                uint32_t flags = rng_chance(&rng, 600) ? LOCK_DETECT_SLOTS : 0;
                judge(words, &words[COMMANDS], flags, seed, &tally);
        }
        print_message("told %u, circles %u, for ever %u, of these with others %u\n", tally.told,
                      tally.circles, tally.for_ever, tally.by_others);
        if (only == NULL)
                assert_true(tally.told > tally.circles && tally.circles > 0);
}

/* Where everybody asks so, and has one wait at a time, nobody ever waits for ever. */
static void test_all_detect(void **state)
{
        unsigned told = 0;
        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS / 4; seed++) {
                static struct world world;
                struct rng rng;
                uint32_t slots[KEYS];
                rng_init(&rng, seed, 1);
                for (unsigned key = 0; key < KEYS; key++)
                        slots[key] = 1 + (uint32_t)rng_below(&rng, 3);
                play(&world, NULL, 0, 0);
                for (unsigned i = 0; i < 2 * COMMANDS; i++) {
                        struct word word = choose(&rng, slots, true);
                        if (waits(&world, word.owner))
                                continue;
                        if (word.releases)
                                (void)release(&world, word.owner, word.keys);
                        else
                                acquire(&world, &word, word.owner, LOCK_DETECT_SLOTS);
                        told += world.answer == LOCK_DEADLOCK;
                }
                reduce(&world);
                for (unsigned owner = 0; owner < OWNERS; owner++)
                        if (waits(&world, owner))
                                fail_msg("seed %llu", (unsigned long long)seed);
                lock_table_free(world.table);
        }
        assert_true(told > 0);
}

/* ---- by hand ---- */

static const struct row {
        unsigned owner;
        unsigned keys;
        uint32_t slots;
        enum lock_result_kind answer;
} rows[] = {
        /* a semaphore of two, of which one holder waits: who waits for it waits for one only */
        {0, 1, 2, LOCK_GRANTED},  {1, 1, 2, LOCK_GRANTED}, {2, 2, 1, LOCK_GRANTED},
        {0, 2, 1, LOCK_QUEUED},   {2, 1, 2, LOCK_QUEUED}, /* 1 may still give it back */
        {3, 4, 1, LOCK_GRANTED},  {3, 1, 2, LOCK_QUEUED}, /* behind 2 */
        {1, 4, 1, LOCK_DEADLOCK}, /* 1 waits for 3, which waits behind 2: now nobody goes on */
        {1, 8, 1, LOCK_GRANTED},
};

static void test_rows(void **state)
{
        static struct world world;
        (void)state;
        play(&world, NULL, 0, 0);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct word word = {.keys = rows[i].keys, .slots = rows[i].slots, .waits = true};
                acquire(&world, &word, rows[i].owner, LOCK_DETECT_SLOTS);
                print_message("row %zu\n", i);
                assert_int_equal(world.answer, rows[i].answer);
        }
        lock_table_free(world.table);
}

/* A long queue, and a long chain of full semaphores that ends at who asks. */
static void test_long(void **state)
{
        (void)state;
        enum {
                LINKS = 3000
        };
        size_t count = 0;
        bool fatal = false;
        struct lock_table *table;
        char key[16], owner[16];
        uint64_t number = 0;
        assert_int_equal(lock_table_new(&heap, 5, &table), ERR_NONE);
        struct lock_command command = {.op = LOCK_ACQUIRE,
                                       .ttl_ms = LOCK_TTL_MS_MAX,
                                       .wait_ms = LOCK_WAIT_MS_MAX,
                                       .slots = 2,
                                       .flags = LOCK_DETECT_SLOTS};
        /* Owners 2i and 2i+1 hold semaphore i, and wait for semaphore i+1. */
        for (int round = 0; round < 2; round++)
                for (unsigned i = 0; i < 2 * LINKS; i++) {
                        (void)snprintf(key, sizeof key, "k%u", i / 2 + (unsigned)round);
                        (void)snprintf(owner, sizeof owner, "o%u", i);
                        command.key = bytes_of_str(key);
                        command.owner = bytes_of_str(owner);
                        command.origin = (struct lock_origin){1, 1, ++number};
                        const struct lock_result *results =
                                lock_apply(table, number, &command, &count, &fatal);
                        assert_int_equal(count, 1);
                        /* the last two get the semaphore behind all */
                        assert_int_equal(results[0].kind, round == 0 || i / 2 == LINKS - 1
                                                                  ? LOCK_GRANTED
                                                                  : LOCK_QUEUED);
                }
        /* One of the last two closes one half of the circle, the other the whole. */
        command.key = BYTES("k0");
        for (unsigned i = 2 * LINKS - 2; i < 2 * LINKS; i++) {
                (void)snprintf(owner, sizeof owner, "o%u", i);
                command.owner = bytes_of_str(owner);
                command.origin.sequence = ++number;
                const struct lock_result *results =
                        lock_apply(table, number, &command, &count, &fatal);
                assert_int_equal(results[0].kind, i == 2 * LINKS - 2 ? LOCK_QUEUED : LOCK_DEADLOCK);
        }
        lock_table_free(table);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_small_tables),
                cmocka_unit_test(test_all_detect),
                cmocka_unit_test(test_long),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
