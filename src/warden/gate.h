/* gate.h - the file through which the daemon lets a PostgreSQL server take writes: mapped by both,
 * so that a commit asks for nothing but memory and the clock, and a server whose daemon is stopped
 * fences itself.
 *
 *   offset size
 *      0     8  magic
 *      8     8  boot        written by the server: a random number of this start of it
 *     16     8  opened      written by the daemon: the boot that it lets write; no other may
 *     24     8  epoch       of the lease
 *     32     8  until_us    CLOCK_BOOTTIME, as the daemon counts; 0: closed
 *     40     8  held        commits wait. 2: and the gate is closed before the lease is given back
 *     48     8  begun       by the server: commits that came past the gate,
 *     56     8  ended       and those of them that are over
 *     64     8  limited     1: commits wait until other regions have caught up, while the gate is
 *                           open. An older extension does not look at it
 *
 * All words are little-endian 64-bit atomics of one machine. A commit counts itself in `begun`,
 * then looks; who closes or holds writes first, then waits for `ended` to come up: one of the two
 * sees the other (sequentially consistent order). The daemon sets until_us to 0 before it changes
 * `opened`, so a server that reads the same until_us before and after `opened` reads a pair.
 *
 * Header only, without other headers of the project: plugins/postgres includes it. */
#ifndef MERIDIAN_WARDEN_GATE_H
#define MERIDIAN_WARDEN_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define GATE_MAGIC 0x316574616764726dull /* "mrdgate1" */
#define GATE_SIZE  4096
#define GATE_HELD  2 /* an older daemon's is 1 */

struct gate {
        _Atomic uint64_t magic;
        _Atomic uint64_t boot;
        _Atomic uint64_t opened;
        _Atomic uint64_t epoch;
        _Atomic uint64_t until_us;
        _Atomic uint64_t held;
        _Atomic uint64_t begun;
        _Atomic uint64_t ended;
        _Atomic uint64_t limited;
};
_Static_assert(sizeof(struct gate) == 72, "as drawn above");

static inline uint64_t gate_now_us(void)
{
        struct timespec now;
        clock_gettime(CLOCK_BOOTTIME, &now);
        return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* May the server of this boot take writes now? */
static inline bool gate_open(const struct gate *gate, uint64_t boot)
{
        uint64_t until_us = atomic_load(&gate->until_us);
        bool ours = atomic_load(&gate->opened) == boot;
        return ours && until_us == atomic_load(&gate->until_us) && gate_now_us() < until_us;
}

#endif
