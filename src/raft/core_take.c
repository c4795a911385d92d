/* core_take.c - what the caller gets: the output of a turn, and what this replica says of itself.
 *
 *   take  -> flush (commands become an entry, entries become messages) -> advance -> output
 *
 * A replica that has failed hands out no write and no message, and wakes never. */
#include "raft/core_priv.h"

static bool status_differs(const struct consensus_status *a, const struct consensus_status *b)
{
        return a->role != b->role || a->term != b->term || a->leader != b->leader ||
               a->ready != b->ready || a->failed != b->failed || a->amnesiac != b->amnesiac ||
               a->members_index != b->members_index;
}

static size_t take_writes(struct core *core)
{
        struct consensus_write aside = {0};
        size_t count = 0;
        if (core->failed)
                return 0;
        compact_take(core, &aside);
        if (core->pending.len > 0) {
                struct consensus_write *write = &core->writes[count++];
                *write = (struct consensus_write){
                        .kind = CONSENSUS_APPEND,
                        .generation = core->generation,
                        .offset = core->written - core->pending.len,
                        .data = buffer_view(&core->pending),
                };
                if (core->pending_replace)
                        write->kind = core->pending_swap ? CONSENSUS_SWAP : CONSENSUS_REPLACE;
        }
        if (aside.data.len > 0)
                core->writes[count++] = aside;
        return core->failed ? 0 : count;
}

static uint64_t wake_ms(const struct core *core)
{
        if (!core_active(core))
                return UINT64_MAX;
        uint64_t at = core->role == CORE_LEADER ? replicate_wake(core) : core->election_ms;
        if (compact_due(core))
                at = 0;
        return at > core->now_ms ? at : core->now_ms + 1;
}

/* Members whom a later applied configuration has replaced. */
static void forget_regimes(struct core *core)
{
        size_t old = 0;
        uint64_t needed = core->applied_taken;
        if (core->config.bugs.snapshot_members)
                return;
        if (log_stateless(core) && core->everywhere < needed)
                needed = core->everywhere; /* where its log will be cut */
        while (old + 1 < core->regime_count && core->regimes[old + 1].index <= needed)
                old++;
        if (old == 0)
                return;
        core->regime_count -= old;
        memmove(core->regimes, core->regimes + old, core->regime_count * sizeof *core->regimes);
}

static enum consensus_role role_of(const struct core *core)
{
        if (!core_active(core) || core->role == CORE_FOLLOWER)
                return CONSENSUS_FOLLOWER;
        return core->role == CORE_LEADER ? CONSENSUS_LEADER : CONSENSUS_CANDIDATE;
}

static uint32_t followers_behind(const struct core *core)
{
        uint32_t count = 0;
        for (size_t i = 0; i < core->follower_count; i++)
                count += core->followers[i].state != PROGRESS_REPLICATE;
        return count;
}

struct consensus_status core_status(const void *engine)
{
        const struct core *core = engine;
        struct consensus_status status = {
                .role = role_of(core),
                .started = core->started,
                .failed = core->failed,
        };
        if (!core->started)
                return status;
        const struct regime *regime = log_regime(core);
        status.ready = status.role == CONSENSUS_LEADER && core_ready(core) && !log_stateless(core);
        status.leader = core->failed ? 0 : core->leader;
        status.vote = core->meta.vote;
        status.term = core->meta.term;
        status.commit_index = core->commit;
        status.applied_index = core->applied;
        status.last_index = log_last(core);
        status.stored_index = core->stored;
        status.snapshot_index = core->snapshot == NULL ? 0 : core->snapshot->index;
        status.generation = core->generation;
        status.journal_bytes = core->written;
        status.amnesiac = core->meta.amnesiac;
        status.member = log_self(core) != NULL;
        status.lease = core_active(core) && replicate_lease(core, core->now_ms);
        status.members_index = regime == NULL ? 0 : regime->index;
        status.followers_behind = followers_behind(core);
        if (status.role == CONSENSUS_LEADER)
                status.inherited_ms = core->inherited_ms;
        return status;
}

bool core_has_majority(const void *engine, uint64_t now_ms)
{
        const struct core *core = engine;
        if (!core_active(core))
                return false;
        if (core->role == CORE_LEADER)
                return true;
        return core->leader != 0 && now_ms <= core->heard_ms + core->config.election_timeout_ms;
}

void core_take(void *engine, struct consensus_output *ret)
{
        struct core *core = engine;
        core_begin(core, core->now_ms);
        if (core_active(core)) {
                core_flush(core);
                core_advance(core);
                replicate_flush(core);
                core_advance(core);
        }
        size_t write_count = take_writes(core);
        struct consensus_status status = core_status(core);
        *ret = (struct consensus_output){
                .writes = core->writes,
                .write_count = write_count,
                .message_count = post_release(core),
                .restore = core->restore,
                .commands = core->commands,
                .command_count = core->command_count,
                .reads = core->ready,
                .read_count = core->ready_count,
                .changed = status_differs(&status, &core->told),
                .snapshot_wished = snapshot_wished(core),
                .wake_ms = wake_ms(core),
        };
        ret->messages = core->messages;
        if (core->restore) {
                ret->restore_index = core->snapshot->index;
                ret->restore_term = core->snapshot->term;
                ret->restore_state = core->snapshot->state;
        }
        if (core->restore && core->config.restore_waits) {
                snapshot_drop(core, core->restoring);
                core->restoring = snapshot_hold(core->snapshot);
                ret->restore_waits = true;
        }
        core->applied_taken = core->applied;
        core->told = status;
        core->taken = true;
        forget_regimes(core);
}
