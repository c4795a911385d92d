/* Leadership handed over: because somebody asks for it, or because another is to lead.
 *
 *   hand_over --> the other has the whole log --> TIMEOUT_NOW --> it stands at once, and is heard
 *
 * Meanwhile this leader takes no commands, and from TIMEOUT_NOW on it has no lease. Where nothing
 * comes of it within an election timeout, it goes on leading. */
#include "raft/core_priv.h"

static void send_timeout_now(struct core *core)
{
        struct message message = {.type = MESSAGE_TIMEOUT_NOW};
        message.timeout_now.last_index = log_last(core);
        message.timeout_now.last_term = log_term(core, log_last(core));
        core->lease_void = true;
        post_send(core, core->transferee, &message);
}

void transfer_try(struct core *core)
{
        struct progress *progress = replicate_find(core, core->transferee);
        if (core->transferee != 0 && progress != NULL && progress->match == log_last(core))
                send_timeout_now(core);
}

static bool may_take_over(const struct core *core, const struct progress *progress)
{
        const struct member *member = members_find(&log_regime(core)->members, progress->node);
        return member != NULL && member->role == CONSENSUS_VOTER && !progress->amnesiac &&
               replicate_active(core, progress) && progress->heard;
}

/* A learner leads for a while where no voter can: the voters' states are behind a witness's log. */
static bool may_stand_in(const struct core *core, const struct progress *progress)
{
        const struct member *member = members_find(&log_regime(core)->members, progress->node);
        return member != NULL && member->role == CONSENSUS_LEARNER &&
               member->wanted != CONSENSUS_WITNESS && !progress->amnesiac &&
               replicate_active(core, progress) && progress->heard;
}

static void hand_over(struct core *core, uint32_t node)
{
        core->transferee = node;
        core->transfer_until_ms = core->now_ms + core->config.election_timeout_ms;
        transfer_try(core);
}

enum err transfer_to(struct core *core, uint32_t peer)
{
        const struct progress *best = NULL;
        if (core->transferee != 0)
                return ERR_BUSY;
        for (size_t i = 0; i < core->follower_count; i++) {
                const struct progress *progress = &core->followers[i];
                if (may_take_over(core, progress) && (peer == 0 || peer == progress->node) &&
                    (best == NULL || progress->match > best->match))
                        best = progress;
        }
        if (best == NULL)
                return ERR_NOT_FOUND;
        hand_over(core, best->node);
        return ERR_NONE;
}

/* Of those who are up to date, the one of the highest priority above `most`; 0: none. */
static uint32_t successor(const struct core *core, int most,
                          bool (*may)(const struct core *core, const struct progress *progress))
{
        const struct members *members = &log_regime(core)->members;
        uint32_t best = 0;
        for (size_t i = 0; i < core->follower_count; i++) {
                const struct progress *progress = &core->followers[i];
                const struct member *member = members_find(members, progress->node);
                if (may(core, progress) && progress->state == PROGRESS_REPLICATE &&
                    progress->match >= core->commit && member->priority > most) {
                        most = member->priority;
                        best = member->node;
                }
        }
        return best;
}

/* A witness leads only until somebody with a state can, and waits for no commit: those who need a
 * state before they can store its entries get none from it. When no voter gets so far, a learner
 * stands in, who gives them his state and hands over as well. Otherwise the voter of highest
 * priority is to lead, when it is up to date. */
void transfer_place(struct core *core)
{
        const struct member *self = log_self(core);
        if (self == NULL || core->transferee != 0)
                return;
        bool witness = self->role == CONSENSUS_WITNESS;
        bool guest = witness ||
                     (self->role == CONSENSUS_LEARNER && log_regime(core)->index <= core->commit);
        uint64_t apart = (uint64_t)core->config.election_timeout_ms * (guest ? 1 : 4);
        if ((!witness && !core_ready(core)) || core->now_ms < core->placed_ms + apart)
                return;
        core->placed_ms = core->now_ms;
        uint32_t best = successor(core, guest ? -1 : self->priority, may_take_over);
        if (best == 0 && witness && core->now_ms > core->lead_since_ms + 4 * apart)
                best = successor(core, -1, may_stand_in);
        if (best != 0)
                hand_over(core, best);
        else if (witness && core->now_ms > core->lead_since_ms + 8 * apart)
                election_step_down(core, core->meta.term, 0);
}
