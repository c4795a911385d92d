/* postgres_plan.h - what `meridian switchover` and `meridian failover` find before they ask: whom
 * the nodes would choose, what stands against it, and what it costs. */
#ifndef MERIDIAN_MERIDIAN_POSTGRES_PLAN_H
#define MERIDIAN_MERIDIAN_POSTGRES_PLAN_H

#include "meridian/cli.h"

/* What the options say. */
struct order {
        const char *to; /* a node or a region; NULL: any */
        bool force;
        bool yes; /* do not ask whether the loss is taken */
        bool dry;
        bool abort;
};

/* What one look at the nodes has shown. */
struct view {
        json_t *status; /* whole, of the node that knows most */
        json_t *postgres;
        json_t *own; /* postgres, of the node that was asked for by name; NULL: it did not answer */
};

/* NULL: there is none. */
const char *postgres_text(json_t *object, const char *key);
bool postgres_is_text(json_t *object, const char *key, const char *text);
const char *postgres_or_else(const char *text, const char *otherwise);
json_int_t postgres_epoch(json_t *postgres);

/* Whom the nodes would choose, as far as this view goes: the one that is least behind. Borrowed
 * from the view; NULL: nobody. */
json_t *postgres_candidate(const struct view *view, const struct order *order, const char *writer);

/* Prints what was found. True: nothing stands against it. *ret_target is borrowed from the view;
 * NULL: there is none. */
bool postgres_plan_switchover(const struct view *view, const struct order *order,
                              json_t **ret_target);
bool postgres_plan_failover(const struct view *view, const struct order *order,
                            json_t **ret_target);

#endif
