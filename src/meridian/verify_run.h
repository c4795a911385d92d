/* verify_run.h - one run of `meridian verify`: whom it asks, and what has come of it so far. */
#ifndef MERIDIAN_MERIDIAN_VERIFY_RUN_H
#define MERIDIAN_MERIDIAN_VERIFY_RUN_H

#include "meridian/cli.h"
#include "topology/topology.h"
#include "verify/verify.h"

enum {
        VERIFY_ORIGINS = 65,
        VERIFY_EXIT_DIFFERENT = 1,
        VERIFY_EXIT_UNKNOWN = 2,
};

struct region {
        char name[TOPOLOGY_NAME_SIZE];
        uint8_t id;
        char node[96];     /* whom we ask; empty: nobody */
        char problem[300]; /* why it is left out; empty: it is not */
        unsigned index;    /* in the comparison */
        unsigned shards;
        unsigned shard; /* of the walk */
        uint64_t walk;
        bool walked;
        uint64_t positions[VERIFY_ORIGINS]; /* the least of its shards */
        uint64_t newest;                    /* own delta */
};

struct run {
        const struct cli *cli;
        const char *prefix;
        struct region regions[TOPOLOGY_REGIONS_MAX];
        size_t region_count;
        struct verify *verify;
        uint8_t map[VERIFY_MAP_LEN];
        bool map_used;
        uint64_t keys; /* that were looked at */
        unsigned buckets_different;
        unsigned buckets_chosen;
        uint64_t different;
        uint64_t moving;
        json_t *list;
        bool unknown;
        bool progress;
};

/* Says what was found, for people or as JSON; the exit status. `verify` has all answers. */
int verify_report(struct run *run);

#endif
