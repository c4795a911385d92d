/* converge_shrink.h - a history that fails, made short: parts of it are left out as long as it goes
 * on failing at the same line. Part of test_converge.c.
 *
 * Each part of a history begins with the random numbers and the time with which it began in the
 * whole one, so what is left does what it did there, as far as the state allows. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_SHRINK_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_SHRINK_H

#include "converge.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
        PARTS_MAX = 5 * STEPS_OFTEN + 1,
};

struct parts {
        size_t at;
        size_t count; /* 0: the whole history has not run yet */
        int line;     /* where the last one failed, 0: nowhere */
        struct {
                struct rng rng;
                uint64_t now_ms;
                bool left_out;
        } part[PARTS_MAX];
};

static struct parts *parts; /* NULL: nothing is left out */

static void failed(int line)
{
        if (parts != NULL)
                parts->line = line;
}

/* Before each part: whether it is to be run. */
static bool part_begins(struct world *world)
{
        if (parts == NULL)
                return true;
        size_t at = parts->at++;
        CHECK(at < PARTS_MAX);
        if (parts->count == 0) {
                parts->part[at].rng = world->rng;
                parts->part[at].now_ms = world->now_ms;
        }
        world->rng = parts->part[at].rng;
        world->now_ms = parts->part[at].now_ms;
        return !parts->part[at].left_out;
}

static void history(uint64_t seed, unsigned faults);

/* In a process of its own, since a failure ends it. */
static int line_of_failure(uint64_t seed, unsigned faults, bool trace)
{
        parts->at = 0;
        parts->line = 0;
        int status = 0;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
                int nowhere = trace ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
                if (nowhere >= 0) {
                        dup2(nowhere, STDOUT_FILENO);
                        dup2(nowhere, STDERR_FILENO);
                }
                tracing = trace;
                history(seed, faults);
                exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        return WIFSIGNALED(status) ? -1 : parts->line;
}

static void leave_out(size_t from, size_t to, bool left_out)
{
        for (size_t i = from; i < to; i++)
                parts->part[i].left_out = left_out;
}

static bool all_left_out(size_t from, size_t to)
{
        while (from < to && parts->part[from].left_out)
                from++;
        return from == to;
}

/* Whether anything more can go in pieces of that size. */
static bool pieces_go(uint64_t seed, unsigned faults, size_t size, int line)
{
        bool any = false;
        for (size_t from = 0; from < parts->count; from += size) {
                bool before[PARTS_MAX];
                size_t to = from + size < parts->count ? from + size : parts->count;
                if (all_left_out(from, to))
                        continue;
                for (size_t i = from; i < to; i++)
                        before[i] = parts->part[i].left_out;
                leave_out(from, to, true);
                if (line_of_failure(seed, faults, false) == line) {
                        any = true;
                        continue;
                }
                for (size_t i = from; i < to; i++)
                        parts->part[i].left_out = before[i];
        }
        return any;
}

/* Prints what is left, step by step. 0: it does not fail. */
static int shrink(uint64_t seed, unsigned faults)
{
        parts = mmap(NULL, sizeof *parts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                     0);
        CHECK(parts != MAP_FAILED);
        int line = line_of_failure(seed, faults, false);
        if (line == 0)
                return 0;
        parts->count = parts->at - 1; /* the last one is the end, and stays */
        for (size_t size = (parts->count + 1) / 2; size > 1; size = (size + 1) / 2)
                pieces_go(seed, faults, size, line);
        while (pieces_go(seed, faults, 1, line))
                ;
        size_t left = 0;
        for (size_t i = 0; i < parts->count; i++)
                left += !parts->part[i].left_out;
        fflush(stdout);
        line_of_failure(seed, faults, true);
        printf("# %zu of %zu parts are left\n", left, parts->count);
        return 1;
}

#endif
