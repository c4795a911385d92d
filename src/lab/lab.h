/* lab.h - three regions on one machine: what `meridian lab ...` does. Everything lives in one
 * folder, `.lab`, beside the checkout's Makefile (docs/architecture.md), or where
 * MERIDIAN_LAB says; a process is only ever signalled when its pid and its start time are
 * those that the lab wrote down. */
#ifndef MERIDIAN_LAB_LAB_H
#define MERIDIAN_LAB_LAB_H

#include "base/bytes.h"
#include "base/err.h"

/* A region of the lab: fixed, so that ordinary clients just work. */
struct lab_region {
        const char *name;    /* "us-east" */
        const char *label;   /* "us", as in api-us.example.test */
        const char *address; /* "127.10.0.1" */
        const char *place;   /* where it stands in for, for people */
        double latitude;
        double longitude;
};

#define LAB_REGIONS 3
extern const struct lab_region lab_regions[LAB_REGIONS];

enum lab_port {
        LAB_PORT_REDIS = 6379,
        LAB_PORT_POSTGRES_WRITE = 5432,
        LAB_PORT_POSTGRES_READ = 5433,
        LAB_PORT_POSTGRES = 5434, /* the server itself, behind these doors */
        LAB_PORT_POSTGRES_FOLLOW = 5435,
        LAB_PORT_DNS = 5353,
        LAB_PORT_EDGE = 8080,
        LAB_PORT_ADMIN = 7400,
        LAB_PORT_LINK = 7401,
        LAB_PORT_LOCKS = 7402,
        LAB_PORT_BACKEND = 9000, /* and up */
};
#define LAB_BACKENDS 2 /* in each region */

/* Runs `meridian lab ARGS`: argv[0] is the sub-command ("up", "down", ...). Prints for a person.
 * Returns the exit status: 0 done, 1 refused or failed (said on stderr), 2 wrong usage. */
int lab_main(int argc, char **argv);

/* The sub-commands of `meridian lab`, for help and completion: one row
 * each, ended by a NULL name. */
struct lab_command {
        const char *name;
        const char *arguments;
        const char *help;
};
extern const struct lab_command lab_commands[];

/* Finds the folder of the nearest lab: what MERIDIAN_LAB names, else `.lab` in the current
 * directory or above it, else in the checkout of the running executable. Writes its path to `path`
 * (`size` bytes). False where none exists. */
MUST_USE bool lab_find(char *path, size_t size);

#endif
