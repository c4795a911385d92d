/* The leader's lock clock. It adds up what passes between readings, but no more than `jump_us`
 * each: a process that was stopped could not take renewals, so its leases must not end for that. */
#include "lock/lock.h"

void lock_clock_init(struct lock_clock *clock, uint64_t table_ms, uint64_t now_us, uint64_t jump_ms)
{
        *clock = (struct lock_clock){
                .time_us = table_ms * 1000,
                .seen_us = now_us,
                .jump_us = jump_ms * 1000,
        };
}

uint64_t lock_clock_read(struct lock_clock *clock, uint64_t now_us)
{
        if (now_us > clock->seen_us) {
                uint64_t passed = now_us - clock->seen_us;
                clock->time_us += passed < clock->jump_us ? passed : clock->jump_us;
                clock->seen_us = now_us;
        }
        return clock->time_us / 1000;
}

uint64_t lock_clock_when(const struct lock_clock *clock, uint64_t table_ms)
{
        if (table_ms > UINT64_MAX / 1000)
                return UINT64_MAX;
        uint64_t target_us = table_ms * 1000;
        uint64_t left = target_us > clock->time_us ? target_us - clock->time_us : 0;
        return left > UINT64_MAX - clock->seen_us ? UINT64_MAX : clock->seen_us + left;
}
