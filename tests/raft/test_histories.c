/* Seeds of history.h for both cores, and planted bugs, each of which must be found.
 *
 *   SEEDS=n SEED=first ENGINE=library TRACE=1 test-raft-histories
 *   BUG=name SEED=first test-raft-histories */
#include "history.h"

#include "raft/engine.h"
#include "raft/library.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
        const char *name;
        unsigned first; /* seed to begin with: near where it was found last */
        unsigned budget;
        bool calm; /* shows without slow disks and frequent crashes */
        struct consensus_bugs bugs;
} planted[] = {
        {"vote_volatile", 1880, 3000, false, {.vote_volatile = true}},
        {"term_volatile", 1, 3000, false, {.term_volatile = true}},
        {"ack_before_sync", 1, 3000, false, {.ack_before_sync = true}},
        {"send_before_sync", 2030, 20000, false, {.send_before_sync = true}},
        {"suffix_kept", 1, 3000, false, {.suffix_kept = true}},
        {"old_term_commit", 237540, 20000, false, {.old_term_commit = true}},
        {"log_by_length", 1460, 5000, false, {.log_by_length = true}},
        {"log_strict", 1, 3000, true, {.log_strict = true}},
        {"no_noop", 1, 5000, true, {.no_noop = true}},
        {"read_unready", 1, 5000, true, {.read_unready = true}},
        {"read_unconfirmed", 1510, 5000, true, {.read_unconfirmed = true}},
        {"quorum_half", 1, 3000, true, {.quorum_half = true}},
        {"change_unsafe", 1, 5000, true, {.change_unsafe = true}},
        {"snapshot_members", 1, 5000, true, {.snapshot_members = true}},
        {"lease_no_drift", 11980, 20000, true, {.lease_no_drift = true}},
        {"amnesiac_votes", 1, 20000, true, {.amnesiac_votes = true}},
};

static uint64_t number(const char *name, uint64_t otherwise)
{
        const char *text = getenv(name);
        return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

static void run_seeds(const struct consensus_engine *engine, bool oracle, uint64_t count)
{
        struct history_result sum = {0};
        uint64_t first = number("SEED", 1);
        for (uint64_t seed = first; seed < first + count; seed++) {
                struct history_options options = {
                        .seed = seed,
                        .engine = engine,
                        .oracle = oracle,
                        .whole = seed % 4 == 0,
                        .early = !oracle && seed % 4 > 1,
                        .harsh = seed % 3 == 0,
                        .trace = getenv("TRACE") != NULL,
                };
                struct history_result result;
                history_run(&options, &result);
                if (result.violation != NULL)
                        fail_msg("seed %llu at %llu ms: %s", (unsigned long long)seed,
                                 (unsigned long long)result.at_ms, result.violation);
                sum.events += result.events;
                sum.commands += result.commands;
                sum.crashes += result.crashes;
                sum.restores += result.restores;
                sum.losses += result.losses;
                sum.changes += result.changes;
                sum.reads += result.reads;
                sum.leases += result.leases;
                sum.elections += result.elections;
        }
        print_message("%llu seeds: %llu events, %llu commands, %llu crashes, %llu restores, %llu "
                      "disks lost, %llu changes, %llu reads (%llu by lease), %llu elections\n",
                      (unsigned long long)count, (unsigned long long)sum.events,
                      (unsigned long long)sum.commands, (unsigned long long)sum.crashes,
                      (unsigned long long)sum.restores, (unsigned long long)sum.losses,
                      (unsigned long long)sum.changes, (unsigned long long)sum.reads,
                      (unsigned long long)sum.leases, (unsigned long long)sum.elections);
        if (count >= 100) {
                assert_true(sum.crashes > count && sum.restores > count / 2);
                assert_true(oracle || (sum.losses > count / 20 && sum.changes > count / 2));
                assert_true(oracle || (sum.reads > count * 20 && sum.leases > count));
        }
}

static void test_core(void **state)
{
        (void)state;
        run_seeds(&consensus_core, false, number("SEEDS", 150));
}

/* Seeds that failed once. */
static void test_seeds_that_failed(void **state)
{
        static const struct {
                uint64_t seed;
                bool harsh;
                const char *why;
                struct consensus_bugs bugs;
        } rows[] = {
                {3672, true, "a witness that led waited for a commit that needed a state", {0}},
                {12772,
                 true,
                 "a crash in the first write after a lost disk looked like a start",
                 {0}},
                {14112, false, "and the replica voted again", {0}},
                {500486,
                 false,
                 "the last voter led at once, against its promise to the leader before",
                 {0}},
                {103753, false, "who was to take over from a witness saw itself removed", {0}},
                {16329,
                 true,
                 "a state made the replica whole, and a crash took the word of it",
                 {0}},
                {503256,
                 true,
                 "a witness's log began behind the state of the only voter left",
                 {0}},
                {503256,
                 true,
                 "and only a learner had a state to lead with",
                 {.witness_anywhere = true}},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct history_options options = {
                        .seed = rows[i].seed,
                        .engine = &consensus_core,
                        .harsh = rows[i].harsh,
                        .whole = true,
                        .bugs = rows[i].bugs,
                };
                struct history_result result;
                history_run(&options, &result);
                if (result.violation != NULL)
                        fail_msg("seed %llu (%s): %s", (unsigned long long)rows[i].seed,
                                 rows[i].why, result.violation);
        }
}

static void test_library(void **state)
{
        (void)state;
        run_seeds(&consensus_library, true, number("SEEDS", 150) / 3);
}

/* The same seed gives the same history. */
static void test_determinism(void **state)
{
        (void)state;
        for (uint64_t seed = 4242; seed < 4250; seed++) {
                struct history_options options = {.seed = seed, .engine = &consensus_core};
                struct history_result one;
                struct history_result two;
                history_run(&options, &one);
                history_run(&options, &two);
                assert_int_equal(one.hash, two.hash);
                assert_int_equal(one.events, two.events);
        }
}

/* In a process of its own: what stops by a broken belief is found as well. */
static bool found_in_child(size_t bug)
{
        (void)fflush(stdout);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
                (void)!freopen("/dev/null", "w", stderr);
                uint64_t first = planted[bug].first;
                if (getenv("BUG") != NULL)
                        first = number("SEED", first);
                for (uint64_t seed = first; seed < first + planted[bug].budget; seed++) {
                        struct history_options options = {
                                .seed = seed,
                                .engine = &consensus_core,
                                .whole = true,
                                .harsh = !planted[bug].calm,
                                .bugs = planted[bug].bugs,
                        };
                        struct history_result result;
                        history_run(&options, &result);
                        if (result.violation != NULL) {
                                print_message("  %s, seed %llu: %s\n", planted[bug].name,
                                              (unsigned long long)seed, result.violation);
                                (void)fflush(stdout);
                                _exit(1);
                        }
                }
                _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status))
                print_message("  %s: a belief was broken\n", planted[bug].name);
        return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void test_bugs_are_found(void **state)
{
        (void)state;
        const char *only = getenv("BUG");
        size_t missed = 0;
        for (size_t i = 0; i < COUNT_OF(planted); i++) {
                if (only != NULL && strcmp(only, planted[i].name) != 0)
                        continue;
                if (!found_in_child(i)) {
                        print_message("MISSED %s\n", planted[i].name);
                        missed++;
                }
        }
        assert_int_equal(missed, 0);
}

int main(void)
{
        const struct CMUnitTest seeds[] = {
                cmocka_unit_test(test_core),
                cmocka_unit_test(test_seeds_that_failed),
                cmocka_unit_test(test_library),
                cmocka_unit_test(test_determinism),
        };
        const struct CMUnitTest bugs[] = {cmocka_unit_test(test_bugs_are_found)};
        int failed = getenv("BUG") == NULL ? cmocka_run_group_tests(seeds, NULL, NULL) : 0;
        if (getenv("SEEDS") == NULL)
                failed += cmocka_run_group_tests(bugs, NULL, NULL);
        return failed;
}
