/* wait.h - private to holder/: the clock of leases, and to wait for a descriptor no longer than
 * until a moment of it. */
#ifndef MERIDIAN_HOLDER_WAIT_H
#define MERIDIAN_HOLDER_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* Microseconds of a clock that goes on while the machine sleeps; UINT64_MAX: there is none. */
uint64_t wait_now_us(void);

/* Waits until `fd` can be read or written (poll's `events`), it is `until_us`, or `wake_fd` can be
 * read (-1: there is none). True: `fd` is ready, or has an error that its next use tells. */
bool wait_for(int fd, short events, int wake_fd, uint64_t until_us);

#endif
