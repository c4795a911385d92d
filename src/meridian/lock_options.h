/* lock_options.h - the options of `meridian lock acquire` and `run`. */
#ifndef MERIDIAN_MERIDIAN_LOCK_OPTIONS_H
#define MERIDIAN_MERIDIAN_LOCK_OPTIONS_H

#include "meridian/cli.h"

#define LOCK_DOOR_PORT 7402

struct lock_options {
        uint64_t lease_ms; /* 0: not said, as for all others */
        uint64_t wait_ms;
        uint64_t delay_ms;
        uint64_t slots;
        uint64_t session;
        const char *owner;
        bool shared;
        bool detect;
};

/* Reads options from argv[*at], up to the end or to "--". False: said on stderr. */
MUST_USE bool lock_options_read(struct lock_options *options, int argc, char **argv, int *at);

/* `meridian lock run`: argv[0] is the key. The exit status. */
int cli_lock_run(const struct cli *cli, int argc, char **argv);

#endif
