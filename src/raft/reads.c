/* Reads without a log entry (dissertation, 6.4).
 *
 *   read --> index = commit, and a round of messages that begins after it --> a majority answers:
 *            this node still led then --> applied up to index --> ready
 *
 * A leader that has committed nothing in its term yet does not know what is committed: such a read
 * waits for the first entry of the term. All reads of a turn share one round. */
#include "raft/core_priv.h"

enum err reads_add(struct core *core, uint64_t id, bool lease)
{
        if (core->role != CORE_LEADER || log_stateless(core))
                return ERR_NOT_LEADER;
        const struct consensus_bugs *bugs = &core->config.bugs;
        void *reads = core->reads;
        if (core->read_count >= READS_MAX)
                return ERR_BUSY;
        if (!core_grow(core, &reads, core->read_count, &core->read_size, sizeof *core->reads))
                return ERR_NOMEM;
        core->reads = reads;
        struct pending_read *read = &core->reads[core->read_count++];
        *read = (struct pending_read){.id = id, .index = core->commit, .round = core->round + 1};
        if (read->index < core->lead_from && !bugs->read_unready)
                read->index = core->lead_from;
        if ((lease && replicate_lease(core, core->now_ms)) || bugs->read_unconfirmed)
                read->round = 0;
        else
                core->round_due = true;
        return ERR_NONE;
}

static void ready_push(struct core *core, uint64_t id, uint64_t index, enum err err)
{
        void *ready = core->ready;
        if (!core_grow(core, &ready, core->ready_count, &core->ready_size, sizeof *core->ready))
                return;
        core->ready = ready;
        core->ready[core->ready_count++] =
                (struct consensus_ready){.id = id, .index = index, .err = err};
}

void reads_refuse(struct core *core)
{
        for (size_t i = 0; i < core->read_count; i++)
                ready_push(core, core->reads[i].id, 0, ERR_NOT_LEADER);
        core->read_count = 0;
}

/* The newest round that a majority has answered. */
static bool round_answered(const struct core *core, uint64_t round)
{
        const struct members *members = &log_regime(core)->members;
        if (round == 0)
                return true;
        if (round > core->round)
                return false;
        size_t answered = log_votes(core);
        for (size_t i = 0; i < core->follower_count; i++) {
                const struct progress *progress = &core->followers[i];
                const struct member *member = members_find(members, progress->node);
                if (member != NULL && member_votes(member) && progress->round >= round)
                        answered++;
        }
        return answered >= election_quorum(core, members_voting(members));
}

void reads_advance(struct core *core)
{
        size_t kept = 0;
        for (size_t i = 0; i < core->read_count; i++) {
                struct pending_read *read = &core->reads[i];
                if (round_answered(core, read->round) && core->applied >= read->index)
                        ready_push(core, read->id, core->applied, ERR_NONE);
                else
                        core->reads[kept++] = *read;
        }
        core->read_count = kept;
}
