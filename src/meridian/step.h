/* step.h - work of several steps, which is told while it is done: a line each for people, with
 * --json an object a line for programs:
 *
 *     {"step": "hold", "state": "done", "text": "us-east-1 lets no commit begin"}
 *
 * `step` is a name that stays, `text` is for people. `state` is one of
 *
 *     done     it is so now, or was found to be
 *     warning  something to know; the work goes on
 *     failed   it ends here
 *
 * The last object has the step "end"; its state agrees with the exit status. Other members are the
 * step's own. */
#ifndef MERIDIAN_MERIDIAN_STEP_H
#define MERIDIAN_MERIDIAN_STEP_H

#include "meridian/cli.h"

enum step_state {
        STEP_STATE_DONE,
        STEP_STATE_WARNING,
        STEP_STATE_FAILED,
        STEP_STATE_COUNT,
};

/* The work begins. `title` is for people; NULL: there is none. */
void step_begin(const struct cli *cli, const char *title);

/* One step. `more` are members of its own (taken; NULL: none), which people do not see. */
void step_tell(enum step_state state, const char *name, json_t *more, const char *format, ...)
        PRINTF_LIKE(4, 5);

#define STEP_DONE(name, ...) step_tell(STEP_STATE_DONE, name, NULL, __VA_ARGS__)
#define STEP_WARN(name, ...) step_tell(STEP_STATE_WARNING, name, NULL, __VA_ARGS__)
#define STEP_BAD(name, ...)  step_tell(STEP_STATE_FAILED, name, NULL, __VA_ARGS__)

/* The work is over; returns `status`, CLI_DONE or another. */
int step_end(int status);

#endif
