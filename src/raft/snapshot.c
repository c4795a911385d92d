/* States that stand for the log before them.
 *
 *   made here:  the caller gives the state at `applied` --> kept --> a whole new journal, and the
 *               log before it goes, but for what slow followers and transfers under way still need
 *   arriving:   chunks, in order --> whole, checksum right --> a new journal beside the old one,
 *               in pieces (compact.c) --> swap --> durable --> restore
 *
 * What is made here comes in steps, where the caller can, or at once. While a state arrives and is
 * written the old log goes on in all it does; at the swap it may turn out that it has come as far
 * by itself, and the state is not needed. A crash before the swap is durable leaves the old journal
 * whole. An arrival that breaks off resumes where it was when a leader offers the same state again;
 * another one begins anew. */
#include "base/check.h"
#include "base/hash.h"
#include "raft/core_priv.h"

struct snapshot *snapshot_new(struct core *core, uint64_t index, struct bytes state)
{
        struct snapshot *snapshot = heap_alloc(core->heap, sizeof *snapshot);
        if (snapshot == NULL) {
                heap_free_bytes(core->heap, state);
                return NULL;
        }
        snapshot->holders = 1;
        snapshot->index = index;
        snapshot->state = state;
        return snapshot;
}

uint32_t snapshot_crc(struct snapshot *snapshot)
{
        if (!snapshot->crc_known)
                snapshot->crc = hash_crc32c(0, snapshot->state);
        snapshot->crc_known = true;
        return snapshot->crc;
}

struct snapshot *snapshot_hold(struct snapshot *snapshot)
{
        snapshot->holders++;
        return snapshot;
}

void snapshot_drop(struct core *core, struct snapshot *snapshot)
{
        if (snapshot == NULL || --snapshot->holders > 0)
                return;
        heap_free_bytes(core->heap, snapshot->state);
        heap_free(core->heap, snapshot);
}

static uint64_t snapshot_index(const struct core *core)
{
        return core->snapshot == NULL ? 0 : core->snapshot->index;
}

const struct regime *snapshot_regime(const struct core *core, uint64_t index)
{
        const struct regime *found = NULL;
        for (size_t i = 0; i < core->regime_count; i++) {
                if (core->regimes[i].index <= index)
                        found = &core->regimes[i];
        }
        return core->config.bugs.snapshot_members ? &core->regimes[0] : found;
}

uint64_t snapshot_keep(const struct core *core, uint64_t index)
{
        uint64_t trailing = core->config.trailing_entries;
        uint64_t keep = index >= trailing ? index - trailing + 1 : 1;
        uint64_t needed = replicate_needed(core);
        if (needed < keep)
                keep = needed;
        return keep;
}

/* Takes over `state`. The log up to `index` is cut behind it. */
static enum err compact(struct core *core, uint64_t index, struct bytes state)
{
        const struct regime *regime = snapshot_regime(core, index);
        uint64_t term = log_term(core, index);
        if (regime == NULL || term == 0) {
                heap_free_bytes(core->heap, state); /* nobody has told yet who the members are */
                return ERR_BUSY;
        }
        struct snapshot *made = snapshot_new(core, index, state);
        if (made == NULL)
                return ERR_NOMEM;
        made->term = term;
        made->members_index = regime->index;
        made->members = regime->members;
        snapshot_drop(core, core->snapshot);
        core->snapshot = made;
        uint64_t keep = snapshot_keep(core, index);
        entries_trim(&core->entries, keep);
        log_rewrite(core);
        return core->failed ? ERR_NOMEM : ERR_NONE;
}

enum err snapshot_take(struct core *core, struct bytes state)
{
        if (core->applied_taken <= snapshot_index(core))
                return ERR_NONE;
        if (core->arrival.whole || core->arrival.writing || core->pending_replace ||
            core->compaction.stage != COMPACT_NONE)
                return ERR_BUSY;
        if (state.len > core->config.snapshot_bytes_max)
                return ERR_LIMIT;
        struct bytes copy;
        if (!heap_copy(core->heap, state, &copy))
                return ERR_NOMEM;
        return compact(core, core->applied_taken, copy);
}

/* Long enough to matter beside the state that would be written. */
static bool log_is_long(const struct core *core)
{
        uint64_t grown = core->written - core->base;
        uint64_t entries = core->applied - snapshot_index(core);
        size_t state = core->snapshot == NULL ? 0 : core->snapshot->state.len;
        if (grown >= core->config.snapshot_bytes && grown >= core->base)
                return true;
        return entries >= core->config.snapshot_entries && grown >= state / 4;
}

/* Not before our own disk has what is applied: the journal that goes is the one that holds it. */
static bool may_compact(const struct core *core)
{
        return core->started && !core->failed && !core->arrival.whole && !core->arrival.writing &&
               !core->pending_replace && core->applied > snapshot_index(core) &&
               core->stored >= core->applied;
}

bool snapshot_wished(const struct core *core)
{
        return may_compact(core) && core->compaction.stage == COMPACT_NONE &&
               !log_stateless(core) && log_is_long(core);
}

void snapshot_witness(struct core *core)
{
        if (!may_compact(core) || !log_stateless(core) || !log_is_long(core))
                return;
        uint64_t index = core->applied < core->everywhere ? core->applied : core->everywhere;
        if (index <= snapshot_index(core) || snapshot_regime(core, index) == NULL ||
            log_term(core, index) == 0)
                return;
        if (compact(core, index, (struct bytes){0}) != ERR_NONE)
                core_fail(core);
}

void arrival_close(struct core *core)
{
        struct buffer state = core->arrival.state;
        buffer_fini(&state);
        core->arrival = (struct arrival){0};
        buffer_init(&core->arrival.state, core->heap);
}

/* All chunks are here. */
void arrival_begin(struct core *core)
{
        struct arrival *arrival = &core->arrival;
        struct bytes state = buffer_view(&arrival->state);
        buffer_init(&arrival->state, core->heap); /* the snapshot owns what it held */
        struct snapshot *made = snapshot_new(core, arrival->index, state);
        if (made == NULL) {
                arrival_close(core);
                return;
        }
        made->term = arrival->term;
        made->members_index = arrival->members_index;
        made->members = arrival->members;
        made->crc = arrival->crc;
        made->crc_known = true;
        arrival->whole = true;
        compact_arrived(core, made);
}

/* The log has come as far by itself, or its owner leads: then it has all that was committed. */
static bool arrival_late(const struct core *core)
{
        const struct arrival *arrival = &core->arrival;
        return arrival->index <= core->commit || arrival->index <= core->verified ||
               log_term(core, arrival->index) == arrival->term || core->role == CORE_LEADER;
}

/* The new journal holds the state and nothing behind it, as the log here is either shorter or not
 * what was committed. */
void arrival_swap(struct core *core, struct bytes piece)
{
        struct arrival *arrival = &core->arrival;
        struct compaction *compaction = &core->compaction;
        CHECK(arrival->whole && compaction->arrived);
        if (arrival_late(core)) {
                compact_drop(core);
                return;
        }
        /* What was to be handed out from the old log is part of this state. */
        core->command_count = 0;
        core->applied = core->applied_taken;
        core->restore = false;
        snapshot_drop(core, core->snapshot);
        core->snapshot = snapshot_hold(compaction->made);
        entries_clear(&core->entries, core->snapshot->index + 1);
        core->entry_new = true;
        core->regime_count = 0;
        log_regime_push(core, core->snapshot->members_index, &core->snapshot->members);
        core->stored = 0;
        log_swap(core, compaction->generation, compaction->written, piece);
        arrival->whole = false;
        arrival->writing = true;
        arrival->need = core->written;
        compaction->arrived = false; /* the arrival goes on without it */
        compact_drop(core);
}

void arrival_durable(struct core *core)
{
        uint64_t index = core->snapshot->index;
        arrival_close(core);
        core->command_count = 0;
        core->commit = core->applied = index;
        if (core->verified < index)
                core->verified = index;
        if (core->stored < index)
                core->stored = index;
        core->restore = !log_stateless(core);
        change_committed(core, core->snapshot->members_index, &core->snapshot->members);
}

bool restore_waits(const struct core *core)
{
        return core->restoring != NULL || (core->restore && core->config.restore_waits);
}
