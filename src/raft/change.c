/* Members: one change at a time, in force from its writing (dissertation, 4.1 to 4.2).
 *
 *   added --> LEARNER, wants a role --> caught up --> VOTER or WITNESS
 *
 * Two majorities of members that differ by one overlap, so a change may begin when the one before
 * is committed, and an entry of the leader's own term is.
 *
 * A replica that lost its journal does not know what it promised. It begins empty and *amnesiac*,
 * with a new life: it takes entries, votes for nobody, and says so in each answer. The leader makes
 * it a learner of that life. When that is committed, no candidate can win any more by a vote of the
 * earlier life, nor does a majority need what it had acknowledged: for n members the majority that
 * knows of the change and any old majority overlap in one other than this replica. So when it
 * learns that, it is a plain learner, and is promoted when it has caught up. Until then nothing
 * depends on it but entries that it has stored in this life. */
#include "base/check.h"
#include "raft/core_priv.h"

enum {
        CAUGHT_UP_ENTRIES = 64,
};

static enum err may_change(const struct core *core)
{
        if (core->role != CORE_LEADER)
                return ERR_NOT_LEADER;
        if (core->config.bugs.change_unsafe)
                return ERR_NONE;
        if (!core_ready(core) || log_regime(core)->index > core->commit || core->transferee != 0)
                return ERR_BUSY;
        return ERR_NONE;
}

/* Those who would decide then are there, and remember. */
static bool can_decide(struct core *core, const struct members *members)
{
        size_t there = 0;
        for (size_t i = 0; i < members->count; i++) {
                const struct member *member = &members->items[i];
                const struct progress *progress = replicate_find(core, member->node);
                if (member_votes(member) &&
                    (member->node == core->config.self ||
                     (progress != NULL && !progress->amnesiac && replicate_active(core, progress))))
                        there++;
        }
        return there >= election_quorum(core, members_voting(members));
}

static enum err propose(struct core *core, const struct members *members)
{
        struct buffer encoded;
        if (!members_able(members))
                return ERR_INVALID;
        if (!can_decide(core, members))
                return ERR_NO_MAJORITY;
        core_flush(core);
        buffer_init(&encoded, core->heap);
        members_encode(members, &encoded);
        if (encoded.err == ERR_NONE)
                log_append(core, core->meta.term, ENTRY_CHANGE, buffer_view(&encoded));
        enum err err = encoded.err;
        buffer_fini(&encoded);
        return core->failed ? ERR_NOMEM : err;
}

static bool caught_up(const struct core *core, const struct progress *progress)
{
        return progress != NULL && progress->state == PROGRESS_REPLICATE && !progress->amnesiac &&
               replicate_active(core, progress) &&
               progress->match + CAUGHT_UP_ENTRIES >= log_last(core) &&
               progress->match >= core->lead_from;
}

/* What a member becomes next on its way to what is asked. */
static enum err next_of(struct core *core, const struct consensus_member *asked, struct member *ret)
{
        const struct member *old = members_find(&log_regime(core)->members, asked->node);
        struct member next = {.node = asked->node, .role = CONSENSUS_LEARNER};
        if (old != NULL)
                next = *old;
        next.priority = asked->priority;
        if (asked->role == CONSENSUS_LEARNER) {
                next.role = CONSENSUS_LEARNER;
                next.wanted = (uint8_t)asked->wanted;
        } else if (next.role != (uint8_t)asked->role) {
                if (next.role != CONSENSUS_LEARNER)
                        return ERR_INVALID; /* a voter has a state, a witness has none */
                next.wanted = (uint8_t)asked->role;
        }
        /* What it is to be decides what it is sent: no way from one to the other but anew. */
        if (old != NULL && (old->role == CONSENSUS_WITNESS || old->wanted == CONSENSUS_WITNESS) &&
            next.role != CONSENSUS_WITNESS && next.wanted != CONSENSUS_WITNESS)
                return ERR_INVALID;
        if (old != NULL && old->role != CONSENSUS_WITNESS && old->wanted != CONSENSUS_WITNESS &&
            next.wanted == CONSENSUS_WITNESS)
                return ERR_INVALID;
        *ret = next;
        return ERR_NONE;
}

enum err change_set(struct core *core, const struct consensus_member *asked)
{
        enum err err = may_change(core);
        if (err != ERR_NONE)
                return err;
        if (asked->node == 0 || asked->role < CONSENSUS_VOTER || asked->role > CONSENSUS_WITNESS ||
            (asked->wanted != 0 && asked->wanted != CONSENSUS_VOTER &&
             asked->wanted != CONSENSUS_WITNESS))
                return ERR_INVALID;
        struct members members = log_regime(core)->members;
        struct member next;
        err = next_of(core, asked, &next);
        if (err != ERR_NONE)
                return err;
        const struct member *old = members_find(&members, asked->node);
        if (old != NULL && old->role == next.role && old->wanted == next.wanted &&
            old->priority == next.priority)
                return ERR_EXISTS;
        if (!members_put(&members, &next))
                return ERR_LIMIT;
        return propose(core, &members);
}

enum err change_remove(struct core *core, uint32_t node)
{
        enum err err = may_change(core);
        if (err != ERR_NONE)
                return err;
        struct members members = log_regime(core)->members;
        if (members_find(&members, node) == NULL)
                return ERR_NOT_FOUND;
        members_drop(&members, node);
        return propose(core, &members);
}

/* Takes the vote from a replica that lost its journal. */
static bool forget_promises(const struct core *core, const struct progress *progress,
                            struct member *member)
{
        if (progress == NULL || !progress->amnesiac || !replicate_active(core, progress) ||
            (member->role == CONSENSUS_LEARNER && member->life == progress->life))
                return false;
        if (member->role != CONSENSUS_LEARNER)
                member->wanted = member->role;
        member->role = CONSENSUS_LEARNER;
        member->life = progress->life;
        return true;
}

/* A witness's log goes on where each voter's state ends: else those two, as a majority, would have
 * the one no way to the other. */
static bool meets(struct core *core, const struct member *witness, const struct member *voter)
{
        const struct progress *from = replicate_find(core, witness->node);
        const struct progress *to = replicate_find(core, voter->node);
        return from == NULL || to == NULL || !from->begin_known || to->match >= from->begin;
}

static bool fits(struct core *core, const struct member *member)
{
        const struct members *members = &log_regime(core)->members;
        if (core->config.bugs.witness_anywhere)
                return true;
        for (size_t i = 0; i < members->count; i++) {
                const struct member *other = &members->items[i];
                if ((member->wanted == CONSENSUS_WITNESS && other->role == CONSENSUS_VOTER &&
                     !meets(core, member, other)) ||
                    (member->wanted == CONSENSUS_VOTER && other->role == CONSENSUS_WITNESS &&
                     !meets(core, other, member)))
                        return false;
        }
        return true;
}

static bool promote(struct core *core, const struct progress *progress, struct member *member)
{
        if (member->role != CONSENSUS_LEARNER || member->wanted == 0 ||
            !caught_up(core, progress) || !fits(core, member))
                return false;
        member->role = member->wanted;
        member->wanted = 0;
        return true;
}

void change_tick(struct core *core)
{
        if (may_change(core) != ERR_NONE)
                return;
        struct members members = log_regime(core)->members;
        for (size_t i = 0; i < members.count; i++) {
                struct member *member = &members.items[i];
                const struct progress *progress = replicate_find(core, member->node);
                if (forget_promises(core, progress, member) || promote(core, progress, member)) {
                        (void)!propose(core, &members);
                        return;
                }
        }
}

void change_committed(struct core *core, uint64_t index, const struct members *members)
{
        const struct member *self = members_find(members, core->config.self);
        const struct regime *regime = log_regime(core);
        if (core->role == CORE_LEADER && regime != NULL && regime->index == index &&
            !log_votes(core))
                election_step_down(core, core->meta.term, 0);
        if (self == NULL)
                return;
        if (core->meta.amnesiac && self->life == core->meta.life &&
            self->role == CONSENSUS_LEARNER) {
                core->meta.amnesiac = false;
                log_meta(core);
        } else if (!core->meta.amnesiac && self->life != core->meta.life && regime != NULL &&
                   regime->index == index && !core->config.bugs.amnesiac_votes) {
                /* The group counts on another life of this node than this one. */
                core->meta.amnesiac = true;
                log_meta(core);
        }
}
