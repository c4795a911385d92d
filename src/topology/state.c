/* The table of moves: one row a state, one mask of targets for each actor. It cannot fail. */
#include "topology/state.h"

#define TO(state) (1u << (state))

struct state_row {
        const char *name;
        bool serves;
        bool replicates;
        uint16_t automatic;
        uint16_t operator_;
};

static const struct state_row rows[REGION_STATE_COUNT] = {
        [REGION_JOINING] = {"joining", false, true, TO(REGION_ACTIVE) | TO(REGION_DOWN),
                            TO(REGION_DRAINING) | TO(REGION_ISOLATED)},
        [REGION_ACTIVE] = {"active", true, true, TO(REGION_SUSPECT) | TO(REGION_DOWN),
                           TO(REGION_DRAINING) | TO(REGION_ISOLATED)},
        [REGION_DRAINING] = {"draining", false, true, TO(REGION_DRAINED),
                             TO(REGION_ACTIVE) | TO(REGION_DRAINED) | TO(REGION_ISOLATED)},
        [REGION_DRAINED] = {"drained", false, true, 0, TO(REGION_RECOVERING) | TO(REGION_ISOLATED)},
        [REGION_SUSPECT] = {"suspect", true, true, TO(REGION_ACTIVE) | TO(REGION_DOWN),
                            TO(REGION_DRAINING) | TO(REGION_ISOLATED)},
        [REGION_DOWN] = {"down", false, true, TO(REGION_RECOVERING),
                         TO(REGION_DRAINED) | TO(REGION_ISOLATED)},
        [REGION_RECOVERING] = {"recovering", false, true, TO(REGION_ACTIVE) | TO(REGION_DOWN),
                               TO(REGION_DRAINING) | TO(REGION_ISOLATED)},
        [REGION_ISOLATED] = {"isolated", false, false, 0,
                             TO(REGION_RECOVERING) | TO(REGION_DRAINED)},
};

static const char *const actor_names[REGION_ACTOR_COUNT] = {
        [REGION_ACTOR_AUTOMATIC] = "automatic",
        [REGION_ACTOR_OPERATOR] = "operator",
};

bool region_state_may(enum region_state from, enum region_state to, enum region_actor actor)
{
        if ((unsigned)from >= REGION_STATE_COUNT || (unsigned)to >= REGION_STATE_COUNT)
                return false;
        switch (actor) {
        case REGION_ACTOR_AUTOMATIC:
                return (rows[from].automatic & TO(to)) != 0;
        case REGION_ACTOR_OPERATOR:
                return (rows[from].operator_ & TO(to)) != 0;
        case REGION_ACTOR_COUNT:
                break;
        }
        return false;
}

bool region_state_serves(enum region_state state)
{
        return (unsigned)state < REGION_STATE_COUNT && rows[state].serves;
}

bool region_state_replicates(enum region_state state)
{
        return (unsigned)state < REGION_STATE_COUNT && rows[state].replicates;
}

const char *region_state_name(enum region_state state)
{
        return (unsigned)state < REGION_STATE_COUNT ? rows[state].name : "unknown";
}

const char *region_actor_name(enum region_actor actor)
{
        return (unsigned)actor < REGION_ACTOR_COUNT ? actor_names[actor] : "unknown";
}

bool region_state_parse(struct bytes name, enum region_state *ret)
{
        for (unsigned i = 0; i < REGION_STATE_COUNT; i++) {
                if (bytes_equal(name, bytes_of_str(rows[i].name))) {
                        *ret = (enum region_state)i;
                        return true;
                }
        }
        return false;
}
