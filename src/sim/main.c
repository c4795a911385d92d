/* main.c - the simulator as a program.
 *
 *   meridian-sim run [--seeds N] [--seed FIRST] [--bug NAME]  ends non-zero at the first violation
 *   meridian-sim one SEED [--trace] [--bug NAME]               one run, twice: their hashes agree
 *   meridian-sim bugs [--name NAME]                            every planted bug must be found
 *
 * --raft core or --raft library chooses what is behind the door of consensus. */
#include "sim/sim.h"

#include "raft/library.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEEDS_DEFAULT   1000
#define COVER_SEEDS_MIN 2000 /* fewer may miss a rare state by chance */

struct arguments {
        uint64_t seeds;
        uint64_t seed;
        bool trace;
        int bug;
        const char *name;
        const struct consensus_engine *raft;
};

static double seconds(void)
{
        struct timespec time;
        (void)clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int bug_by_name(const char *name)
{
        size_t count;
        const struct sim_bug *bugs = sim_bugs(&count);
        for (size_t i = 0; i < count; i++)
                if (strcmp(bugs[i].name, name) == 0)
                        return (int)i;
        return SIM_BUG_NONE;
}

static const struct consensus_engine *raft_by_name(const char *name)
{
        if (strcmp(name, "library") == 0)
                return &consensus_library;
        return strcmp(name, "core") == 0 ? &consensus_core : NULL;
}

static int print_cover(const uint64_t *cover, uint64_t seeds)
{
        int missing = 0;
        for (int i = 0; i < COVER_COUNT; i++) {
                printf("  %10" PRIu64 "  %s\n", cover[i], sim_cover_text((enum sim_cover)i));
                missing += cover[i] == 0;
        }
        if (missing > 0 && seeds >= COVER_SEEDS_MIN) {
                printf("%d states were never seen: the generator is blind to them\n", missing);
                return 1;
        }
        return 0;
}

static int run(const struct arguments *arguments)
{
        uint64_t cover[COVER_COUNT] = {0};
        uint64_t events = 0;
        double virtual_s = 0;
        double begin_s = seconds();
        for (uint64_t i = 0; i < arguments->seeds; i++) {
                struct sim_options options = {.seed = arguments->seed + i,
                                              .bug = arguments->bug,
                                              .raft = arguments->raft};
                struct sim_result result;
                sim_run(&options, &result);
                events += result.events;
                virtual_s += (double)result.virtual_us * 1e-6;
                for (int k = 0; k < COVER_COUNT; k++)
                        cover[k] += result.cover[k];
                if (result.violated) {
                        printf("seed %" PRIu64 " after %" PRIu64 " seeds, %.1f s: %s\n",
                               options.seed, i + 1, seconds() - begin_s, result.violation);
                        printf("again: meridian-sim one %" PRIu64 " --trace\n", options.seed);
                        return 1;
                }
        }
        double took_s = seconds() - begin_s;
        printf("%" PRIu64 " seeds from %" PRIu64 " without a violation in %.1f s: %.0f seeds/s, "
               "%.0f events/s, %.0f virtual s per s\n",
               arguments->seeds, arguments->seed, took_s, (double)arguments->seeds / took_s,
               (double)events / took_s, virtual_s / took_s);
        return print_cover(cover, arguments->seeds);
}

static int one(const struct arguments *arguments)
{
        struct sim_options options = {.seed = arguments->seed,
                                      .bug = arguments->bug,
                                      .trace = arguments->trace,
                                      .raft = arguments->raft};
        struct sim_result first;
        struct sim_result second;
        sim_run(&options, &first);
        options.trace = false;
        sim_run(&options, &second);
        printf("seed %" PRIu64 ": %" PRIu64 " events, %.3f virtual s, hash %016" PRIx64 "\n",
               options.seed, first.events, (double)first.virtual_us * 1e-6, first.hash);
        if (first.violated)
                printf("violation: %s\n", first.violation);
        if (first.hash != second.hash || first.events != second.events) {
                printf("not deterministic: the second run has hash %016" PRIx64 "\n", second.hash);
                return 2;
        }
        return first.violated ? 1 : 0;
}

static int find_bug(int bug, const struct sim_bug *what, const struct arguments *arguments)
{
        double begin_s = seconds();
        for (uint64_t i = 0; i < what->budget; i++) {
                struct sim_options options = {.seed = arguments->seed + what->first + i,
                                              .bug = bug,
                                              .raft = arguments->raft};
                struct sim_result result;
                sim_run(&options, &result);
                if (!result.violated)
                        continue;
                printf("found   %-18s seed %" PRIu64 " of %u, %.1f s: %s\n", what->name, i + 1,
                       what->budget, seconds() - begin_s, result.violation);
                (void)fflush(stdout);
                return 0;
        }
        printf("MISSED  %-18s in %u seeds: %s\n", what->name, what->budget, what->breaks);
        (void)fflush(stdout);
        return 1;
}

static int bugs(const struct arguments *arguments)
{
        size_t count;
        const struct sim_bug *all = sim_bugs(&count);
        int missed = 0;
        for (size_t i = 0; i < count; i++)
                if (arguments->name == NULL || strcmp(arguments->name, all[i].name) == 0)
                        missed += find_bug((int)i, &all[i], arguments);
        if (missed > 0)
                printf("%d planted bugs were not found\n", missed);
        return missed > 0 ? 1 : 0;
}

static int usage(void)
{
        (void)fprintf(stderr, "usage: meridian-sim run [--seeds N] [--seed FIRST] [--bug NAME]\n"
                              "       meridian-sim one SEED [--trace] [--bug NAME]\n"
                              "       meridian-sim bugs [--name NAME] [--seed FIRST]\n"
                              "each with [--raft core|library]\n");
        return 64;
}

static bool number(const char *text, uint64_t *ret)
{
        char *end;
        if (text == NULL || *text < '0' || *text > '9')
                return false;
        *ret = strtoull(text, &end, 10);
        return *end == '\0';
}

static bool parse(int argc, char **argv, struct arguments *ret)
{
        *ret = (struct arguments){.seeds = SEEDS_DEFAULT, .seed = 1, .bug = SIM_BUG_NONE};
        for (int i = 2; i < argc; i++) {
                const char *value = i + 1 < argc ? argv[i + 1] : NULL;
                if (strcmp(argv[i], "--trace") == 0) {
                        ret->trace = true;
                        continue;
                }
                if (i == 2 && strcmp(argv[1], "one") == 0) {
                        if (!number(argv[i], &ret->seed))
                                return false;
                        continue;
                }
                if (value == NULL)
                        return false;
                i++;
                if (strcmp(argv[i - 1], "--seeds") == 0 && number(value, &ret->seeds))
                        continue;
                if (strcmp(argv[i - 1], "--seed") == 0 && number(value, &ret->seed))
                        continue;
                if (strcmp(argv[i - 1], "--name") == 0) {
                        ret->name = value;
                        continue;
                }
                if (strcmp(argv[i - 1], "--raft") == 0) {
                        ret->raft = raft_by_name(value);
                        if (ret->raft == NULL)
                                return false;
                        continue;
                }
                if (strcmp(argv[i - 1], "--bug") != 0)
                        return false;
                ret->bug = bug_by_name(value);
                if (ret->bug == SIM_BUG_NONE)
                        return false;
        }
        return true;
}

int main(int argc, char **argv)
{
        struct arguments arguments;
        if (argc < 2 || !parse(argc, argv, &arguments))
                return usage();
        if (strcmp(argv[1], "run") == 0)
                return run(&arguments);
        if (strcmp(argv[1], "one") == 0 && argc > 2)
                return one(&arguments);
        if (strcmp(argv[1], "bugs") == 0)
                return bugs(&arguments);
        return usage();
}
