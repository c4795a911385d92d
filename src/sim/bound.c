/* bound.c - what the sessions of sets.c promise to the keys that are bound to them. A user leaves a
 * session as it is and opens the next, maybe with a shorter ttl: so they end in any order, and each
 * end is remembered by itself.
 *
 *   whose end was told  its key is gone for whoever asks after that
 *   whose end was not   at the end of the run, each node's key has a session on that node */
#include "base/check.h"
#include "council/council.h"
#include "kv/kv.h"
#include "lock/lock.h"
#include "sim/sets_priv.h"

#include <stdio.h>

static struct set_session *session_of(const struct sets *sets, uint64_t number)
{
        for (size_t i = sets->session_count; i > 0; i--)
                if (sets->sessions[i - 1].number == number)
                        return &sets->sessions[i - 1];
        return NULL;
}

void bound_opened(struct sim *sim, uint64_t session, uint64_t owner)
{
        struct sets *sets = sim->sets;
        if (sets->session_count == sets->session_size) {
                sets->session_size = sets->session_size == 0 ? 64 : 2 * sets->session_size;
                sets->sessions = heap_resize(&sim->heap, sets->sessions,
                                             sets->session_size * sizeof *sets->sessions);
                CHECK(sets->sessions != NULL);
        }
        sets->sessions[sets->session_count++] = (struct set_session){session, owner, 0};
}

void bound_ended(struct sim *sim, uint64_t session)
{
        struct set_session *ended = session_of(sim->sets, session);
        CHECK(ended != NULL);
        if (ended->told == 0)
                ended->told = ++sim->sets->told_ends;
        sim_trace(sim, "set: the end of session %llu is told", (unsigned long long)session);
}

bool bound_told(const struct sim *sim, uint64_t session, uint64_t told_ends)
{
        const struct set_session *ended = session_of(sim->sets, session);
        return ended != NULL && ended->told != 0 && ended->told <= told_ends;
}

void bound_check(struct sim *sim, const struct host *host)
{
        const struct council *council = node_council(host->node, WORLD_GROUP_GLOBAL);
        struct bytes prefix = BYTES("global:bound");
        struct kv_item item = {.key = bytes_of(NULL, 0)};
        while (kv_next(council_kv(council), prefix, item.key, &item)) {
                const struct set_session *session = session_of(sim->sets, item.session);
                char owner[24];
                if (session != NULL && lock_session_alive(council_locks(council), session->number,
                                                          set_number_text(session->owner, owner)))
                        continue;
                sim_violation(sim, "sets: node %u has the key of session %llu without the session",
                              host->id, (unsigned long long)item.session);
        }
}
