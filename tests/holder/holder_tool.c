/* holder_tool NODE[,NODE...] KEY TTL_MS WAIT_MS HOLD_MS: takes a lock by the library and tells,
 * line by line, what becomes of it:
 *
 *   got TOKEN          at | sure 0 or 1, every 10 ms, with the monotonic time in microseconds
 *   doubtful, renewed, lost
 *   released 0 or 1 */
#include "holder/meridian_lock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static unsigned long long now_us(void)
{
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return (unsigned long long)at.tv_sec * 1000000 + (unsigned long long)at.tv_nsec / 1000;
}

static void news(void *context, enum meridian_lock_news what)
{
        static const char *const names[] = {[MERIDIAN_LOCK_DOUBTFUL] = "doubtful",
                                            [MERIDIAN_LOCK_RENEWED] = "renewed",
                                            [MERIDIAN_LOCK_LOST] = "lost"};
        (void)context;
        printf("%llu %s\n", now_us(), names[what]);
}

int main(int argc, char **argv)
{
        const char *nodes[8];
        size_t count = 0;
        char why[256] = "";
        if (argc != 6)
                return 2;
        for (char *node = strtok(argv[1], ","); node != NULL && count < 8; node = strtok(NULL, ","))
                nodes[count++] = node;
        setvbuf(stdout, NULL, _IOLBF, 0);
        struct meridian_lock_options options = {.nodes = nodes,
                                                .node_count = count,
                                                .ttl_ms = (unsigned)strtoul(argv[3], NULL, 10),
                                                .wait_ms = (unsigned)strtoul(argv[4], NULL, 10),
                                                .news = news};
        struct meridian_lock *lock;
        enum meridian_lock_status status =
                meridian_lock_acquire(&options, argv[2], &lock, why, sizeof why);
        if (status != MERIDIAN_LOCK_OK) {
                printf("%llu refused %d %s\n", now_us(), (int)status, why);
                return 1;
        }
        printf("%llu got %llu\n", now_us(), (unsigned long long)meridian_lock_token(lock));
        unsigned long long end_us = now_us() + strtoull(argv[5], NULL, 10) * 1000;
        while (now_us() < end_us) {
                struct timespec pause = {.tv_nsec = 10000000};
                /* The time is read first: what it says was so then. */
                unsigned long long at_us = now_us();
                bool sure = meridian_lock_sure(lock);
                printf("%llu sure %d\n", at_us, sure);
                nanosleep(&pause, NULL);
        }
        printf("%llu released %d\n", now_us(), meridian_lock_release(lock));
        return 0;
}
