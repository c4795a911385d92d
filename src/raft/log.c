/* Journal, entries and members of a group.
 *
 * Every change of term or vote and every entry becomes a record in `pending`, which the next take
 * hands out as one write. `written` counts the bytes of the journal including those. A mark says
 * which entries are durable once the journal is durable up to an offset; when a suffix is cut,
 * older marks no longer vouch for it, because the record that cuts may reach the disk as well.
 *
 * A snapshot makes a whole new journal: header, term and vote, the state, and the entries kept, at
 * once (log_rewrite) or in steps beside the old one (compact.c). It supersedes what is pending.
 * Until it is durable, promises wait for all of it; what was durable in the old journal stays so,
 * as one of the two survives a crash.
 *
 * Running out of memory here is final (core_fail): the log has already moved on. */
#include "base/check.h"
#include "raft/core_priv.h"

uint64_t log_last(const struct core *core)
{
        return entries_last(&core->entries);
}

uint64_t log_term(const struct core *core, uint64_t index)
{
        const struct entry *entry = entries_at(&core->entries, index);
        if (entry != NULL)
                return entry->term;
        return core->snapshot != NULL && core->snapshot->index == index ? core->snapshot->term : 0;
}

struct journal_identity log_identity(const struct core *core)
{
        return (struct journal_identity){
                .version = JOURNAL_VERSION,
                .cluster = core->config.cluster,
                .group = core->config.group,
                .node = core->config.self,
        };
}

/* Counts what was written to `pending` since it was `before` bytes long. */
static void pending_count(struct core *core, size_t before)
{
        if (core->pending.err != ERR_NONE)
                core_fail(core);
        else
                core->written += core->pending.len - before;
}

void log_meta_write(const struct core *core, uint64_t durable, struct buffer *out)
{
        struct journal_meta meta = core->meta;
        meta.extended = true;
        if (core->config.bugs.vote_volatile)
                meta.vote = 0;
        if (core->config.bugs.term_volatile)
                meta.term = 1;
        journal_write_meta(out, durable, &meta);
}

void log_meta(struct core *core)
{
        size_t before = core->pending.len;
        log_meta_write(core, core->durable, &core->pending);
        pending_count(core, before);
        core->meta_need = core->written;
}

const struct regime *log_regime(const struct core *core)
{
        if (core->regime_count == 0)
                return NULL;
        const struct regime *regime = &core->regimes[core->regime_count - 1];
        if (core->config.bugs.change_unsafe) {
                while (regime > core->regimes && regime->index > core->commit)
                        regime--;
        }
        return regime;
}

const struct member *log_self(const struct core *core)
{
        const struct regime *regime = log_regime(core);
        return regime == NULL ? NULL : members_find(&regime->members, core->config.self);
}

bool log_votes(const struct core *core)
{
        const struct member *self = log_self(core);
        return self != NULL && member_votes(self);
}

bool log_stateless(const struct core *core)
{
        const struct member *self = log_self(core);
        if (core->snapshot != NULL && core->snapshot->state.len == 0)
                return true; /* also before it knows itself for a member */
        return self != NULL &&
               (self->role == CONSENSUS_WITNESS || self->wanted == CONSENSUS_WITNESS);
}

void log_regime_push(struct core *core, uint64_t index, const struct members *members)
{
        void *regimes = core->regimes;
        if (!core_grow(core, &regimes, core->regime_count, &core->regime_size,
                       sizeof *core->regimes))
                return;
        core->regimes = regimes;
        core->regimes[core->regime_count++] = (struct regime){.index = index, .members = *members};
        if (core->role == CORE_LEADER)
                replicate_members(core);
}

static void regimes_cut(struct core *core, uint64_t index)
{
        while (core->regime_count > 0 && core->regimes[core->regime_count - 1].index >= index)
                core->regime_count--;
}

static void mark_push(struct core *core, uint64_t end, uint64_t last)
{
        void *marks = core->marks;
        /* What is written together is durable together: one mark for it is enough. */
        if (core->mark_count > 0 &&
            core->marks[core->mark_count - 1].end > core->written - core->pending.len) {
                core->marks[core->mark_count - 1] = (struct mark){.end = end, .last = last};
                return;
        }
        if (!core_grow(core, &marks, core->mark_count, &core->mark_size, sizeof *core->marks))
                return;
        core->marks = marks;
        core->marks[core->mark_count++] = (struct mark){.end = end, .last = last};
}

void log_append(struct core *core, uint64_t term, enum entry_type type, struct bytes data)
{
        uint64_t index = log_last(core) + 1;
        size_t before = core->pending.len;
        struct journal_entry record = {.index = index, .term = term, .type = type, .data = data};
        CHECK(term <= core->meta.term);
        journal_write_entry(&core->pending, core->durable, &record);
        if (!entries_append(&core->entries, term, type, data))
                core_fail(core);
        pending_count(core, before);
        if (core->failed)
                return;
        core->entry_new = true;
        mark_push(core, core->written, index);
        struct members members;
        if (type == ENTRY_CHANGE && members_decode(data, &members))
                log_regime_push(core, index, &members);
}

void log_cut(struct core *core, uint64_t index)
{
        CHECK(index > core->commit);
        CHECK(core->role != CORE_LEADER);
        entries_cut(&core->entries, index);
        compact_cut(core, index);
        regimes_cut(core, index);
        if (core->stored >= index)
                core->stored = index - 1;
        for (size_t i = 0; i < core->mark_count; i++) {
                if (core->marks[i].last >= index)
                        core->marks[i].last = index - 1;
        }
}

static void write_snapshot(struct core *core)
{
        const struct snapshot *snapshot = core->snapshot;
        struct buffer members;
        buffer_init(&members, core->heap);
        members_encode(&snapshot->members, &members);
        if (members.err != ERR_NONE)
                core_fail(core);
        journal_write_snapshot(&core->pending, 0,
                               &(struct journal_snapshot){
                                       .index = snapshot->index,
                                       .term = snapshot->term,
                                       .configuration_index = snapshot->members_index,
                                       .configuration = buffer_view(&members),
                                       .state = snapshot->state,
                               });
        buffer_fini(&members);
}

static void write_entries(struct core *core)
{
        uint64_t last = log_last(core);
        for (uint64_t index = core->entries.first; index <= last; index++) {
                const struct entry *entry = entries_at(&core->entries, index);
                journal_write_entry(&core->pending, 0,
                                    &(struct journal_entry){
                                            .index = index,
                                            .term = entry->term,
                                            .type = entry->type,
                                            .data = entry->data,
                                    });
        }
}

/* What was durable in the old journal stays so, as one of the two survives a crash; the rest waits
 * for all of the new one. */
static void rebase(struct core *core, uint64_t durable_before)
{
        core->durable = 0;
        core->base = core->written;
        core->mark_count = 0;
        mark_push(core, core->written, log_last(core));
        post_rebase(core, durable_before);
        core->meta_need = core->meta_need <= durable_before ? 0 : core->written;
}

void log_rewrite(struct core *core)
{
        struct journal_identity identity = log_identity(core);
        uint64_t durable_before = core->durable;
        compact_drop(core);
        buffer_reset(&core->pending);
        core->pending_replace = true;
        core->pending_swap = false;
        core->generation = ++core->generation_last;
        core->written = 0;
        journal_write_header(&core->pending, &identity);
        log_meta_write(core, 0, &core->pending);
        if (core->snapshot != NULL)
                write_snapshot(core);
        write_entries(core);
        pending_count(core, 0);
        rebase(core, durable_before);
}

void log_swap(struct core *core, uint64_t generation, uint64_t written, struct bytes piece)
{
        buffer_reset(&core->pending);
        core->pending_replace = core->pending_swap = true;
        core->generation = generation;
        core->written = written;
        buffer_bytes(&core->pending, piece);
        pending_count(core, 0);
        rebase(core, core->durable);
}

void log_synced(struct core *core)
{
        size_t done = 0;
        uint64_t reached = core->config.bugs.ack_before_sync ? UINT64_MAX : core->durable;
        while (done < core->mark_count && core->marks[done].end <= reached) {
                if (core->marks[done].last > core->stored)
                        core->stored = core->marks[done].last;
                done++;
        }
        if (done == 0)
                return;
        core->mark_count -= done;
        memmove(core->marks, core->marks + done, core->mark_count * sizeof *core->marks);
}
