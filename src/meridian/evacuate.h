/* evacuate.h - what evacuate.c uses of other commands. */
#ifndef MERIDIAN_MERIDIAN_EVACUATE_H
#define MERIDIAN_MERIDIAN_EVACUATE_H

#include "meridian/postgres_plan.h"

/* Of one region's Redis servers together: what another region has not acknowledged. */
struct behind {
        bool known;
        bool state; /* it has to be sent the state of at least one of them */
        double deltas, bytes, ms, ahead_ms;
};

/* `region` is one of a status, by its own node's word; `other` a region's name. */
struct behind cli_behind_of(json_t *region, const char *other);

/* Asks for "drain", "undrain", "isolate" or "unisolate". Gives the node's answer; NULL: said on
 * stderr. */
json_t *cli_region_ask(const struct cli *cli, const char *region, const char *action,
                       const char *why);

/* A look at all nodes, into `view`, which is emptied before. `own` (NULL: nobody's) is the node
 * whose own word about PostgreSQL is kept beside. False: none answers. */
MUST_USE bool postgres_look(const struct cli *cli, const char *own, struct view *view);
void postgres_view_fini(struct view *view);

/* The status by a node of that region; NULL: none answers. Yours. */
json_t *postgres_status_of_region(const struct cli *cli, const char *region);

/* Checks, asks and follows a switchover, as steps. Returns CLI_DONE or another. */
int postgres_switchover(const struct cli *cli, const struct order *order);

/* Takes back an order that is under way. */
int postgres_give_up(const struct cli *cli);

#endif
