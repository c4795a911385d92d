/* table.c - what held locks cost in the table itself: memory for each, the time of an acquire and a
 * release among them, and how long a snapshot takes, which stops everything else for so long.
 *
 *   table [LOCKS] */
#include "lock/lock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct heap heap;
static uint64_t entry;

static uint64_t now_ns(void)
{
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

/* Resident memory of this process, in bytes: what the allocator adds is in it. */
static uint64_t resident(void)
{
        unsigned long size = 0, pages = 0;
        FILE *file = fopen("/proc/self/statm", "r");
        if (file == NULL || fscanf(file, "%lu %lu", &size, &pages) != 2)
                pages = 0;
        if (file != NULL)
                fclose(file);
        return (uint64_t)pages * 4096;
}

static uint64_t run(struct lock_table *table, enum lock_op op, uint64_t number, uint64_t token)
{
        char key[64], owner[32];
        size_t count = 0;
        bool fatal = false;
        snprintf(key, sizeof key, "us-east:orders/%llu", (unsigned long long)number);
        snprintf(owner, sizeof owner, "worker-%llu", (unsigned long long)number);
        struct lock_command command = {.op = op,
                                       .now_ms = 1,
                                       .key = bytes_of_str(key),
                                       .owner = bytes_of_str(owner),
                                       .token = {token},
                                       .ttl_ms = 3600000,
                                       .origin = {1, 1, ++entry}};
        const struct lock_result *results = lock_apply(table, entry, &command, &count, &fatal);
        if (fatal || count == 0 ||
            (results[0].kind != LOCK_GRANTED && results[0].kind != LOCK_RELEASED)) {
                fprintf(stderr, "a command failed\n");
                exit(1);
        }
        return results[0].token.value;
}

static double pairs_us(struct lock_table *table, uint64_t base)
{
        enum {
                PAIRS = 200000
        };
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < PAIRS; i++)
                run(table, LOCK_RELEASE, base + i % 1000,
                    run(table, LOCK_ACQUIRE, base + i % 1000, 0));
        return (double)(now_ns() - begin) / 1e3 / PAIRS;
}

int main(int argc, char **argv)
{
        uint64_t locks = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
        struct lock_table *table;
        struct buffer snapshot;
        heap_init(&heap, 0);
        buffer_init(&snapshot, &heap);
        if (lock_table_new(&heap, 7, &table) != ERR_NONE)
                return 1;
        double empty_us = pairs_us(table, locks);
        uint64_t before = resident();
        for (uint64_t i = 0; i < locks; i++)
                run(table, LOCK_ACQUIRE, i, 0);
        uint64_t after = resident();
        double full_us = pairs_us(table, locks);
        uint64_t begin = now_ns();
        lock_table_encode(table, &snapshot);
        double encode_ms = (double)(now_ns() - begin) / 1e6;
        begin = now_ns();
        if (lock_table_decode(table, buffer_view(&snapshot)) != ERR_NONE)
                return 1;
        double decode_ms = (double)(now_ns() - begin) / 1e6;
        printf("{\"locks\": %llu, \"bytes_each\": %.0f, \"pair_us_empty\": %.2f, "
               "\"pair_us_full\": %.2f, \"snapshot_bytes_each\": %.0f, \"snapshot_ms\": %.0f, "
               "\"restore_ms\": %.0f}\n",
               (unsigned long long)locks, (double)(after - before) / (double)locks, empty_us,
               full_us, (double)snapshot.len / (double)locks, encode_ms, decode_ms);
        buffer_fini(&snapshot);
        lock_table_free(table);
        return 0;
}
