/* wait.c - poll by the clock of leases. The kernel's time-outs stand still while the machine
 * sleeps, so one wait is a second at most, and then the clock is read again. */
#include "holder/wait.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define SLICE_US 1000000ULL

uint64_t wait_now_us(void)
{
        struct timespec at;
        if (clock_gettime(CLOCK_BOOTTIME, &at) != 0)
                return UINT64_MAX; /* no clock: nothing is sure */
        return (uint64_t)at.tv_sec * 1000000 + (uint64_t)at.tv_nsec / 1000;
}

bool wait_for(int fd, short events, int wake_fd, uint64_t until_us)
{
        for (;;) {
                uint64_t now_us = wait_now_us();
                if (now_us >= until_us)
                        return false;
                uint64_t left_us = until_us - now_us < SLICE_US ? until_us - now_us : SLICE_US;
                struct pollfd items[] = {{.fd = fd, .events = events},
                                         {.fd = wake_fd, .events = POLLIN}};
                int found = poll(items, 2, (int)((left_us + 999) / 1000));
                if (found > 0)
                        return items[0].revents != 0;
                if (found < 0 && errno != EINTR)
                        return false;
        }
}
