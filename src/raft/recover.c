/* From a journal's bytes to a log, at start.
 *
 *   records, in order --> term and vote, snapshot, entries (a later one cuts what stood there)
 *
 * A journal of version 1, which the library's core wrote, is read as well; it is replaced by one of
 * version 2 in the first take. A torn end is cut the same way, unless it is but zeros. Damage
 * before the end, or a record that cannot have been written by us, is refused with its place: what
 * was promised on the rest is not known. The way back is config.amnesiac (change.c). */
#include "base/check.h"
#include "raft/core_priv.h"

/* What recovery has seen so far. */
struct replay {
        bool meta;    /* term and vote are known */
        bool entries; /* the log has begun */
        bool nomem;
        bool old; /* another version wrote it */
};

static uint64_t snapshot_index(const struct core *core)
{
        return core->snapshot == NULL ? 0 : core->snapshot->index;
}

static bool replay_meta(struct core *core, struct replay *replay, const struct journal_meta *meta)
{
        if (replay->meta && meta->term < core->meta.term && !core->config.bugs.term_volatile)
                return false;
        replay->meta = true;
        core->meta = *meta;
        core->meta.extended = true;
        return true;
}

static bool replay_snapshot(struct core *core, struct replay *replay,
                            const struct journal_snapshot *record)
{
        if (!replay->meta || replay->entries || core->snapshot != NULL)
                return false;
        struct bytes state;
        if (!heap_copy(core->heap, record->state, &state)) {
                replay->nomem = true;
                return false;
        }
        core->snapshot = snapshot_new(core, record->index, state);
        if (core->snapshot == NULL) {
                replay->nomem = true;
                return false;
        }
        core->snapshot->term = record->term;
        (void)snapshot_crc(core->snapshot); /* now, not while it leads */
        core->snapshot->members_index = record->configuration_index;
        if (!members_decode(record->configuration, &core->snapshot->members))
                return false;
        log_regime_push(core, record->configuration_index, &core->snapshot->members);
        entries_clear(&core->entries, record->index + 1);
        return true;
}

/* Is this a place and a term at which an entry may stand? */
static bool entry_fits(const struct core *core, const struct replay *replay,
                       const struct journal_entry *entry)
{
        const struct consensus_bugs *bugs = &core->config.bugs;
        if (!replay->meta || (entry->term > core->meta.term && !bugs->term_volatile))
                return false;
        if (core->snapshot != NULL && entry->index == core->snapshot->index)
                return entry->term == core->snapshot->term;
        if (!replay->entries && core->snapshot == NULL)
                return entry->index == 1 && (entry->type == ENTRY_CHANGE || bugs->suffix_kept);
        uint64_t before = log_term(core, entry->index - 1);
        return before <= entry->term || bugs->suffix_kept;
}

static void regimes_cut(struct core *core, uint64_t index)
{
        while (core->regime_count > 0 && core->regimes[core->regime_count - 1].index >= index)
                core->regime_count--;
}

static bool replay_entry(struct core *core, struct replay *replay,
                         const struct journal_entry *entry)
{
        struct entries *entries = &core->entries;
        uint64_t last = entries_last(entries);
        if (!entry_fits(core, replay, entry) || entry->index > last + 1)
                return false;
        if (!replay->entries) {
                entries_clear(entries, entry->index);
        } else if (entry->index <= last) {
                if (entry->index <= snapshot_index(core) || entry->index < entries->first)
                        return false;
                if (core->config.bugs.suffix_kept)
                        return true;
                entries_cut(entries, entry->index);
                regimes_cut(core, entry->index);
        }
        replay->entries = true;
        if (!entries_append(entries, entry->term, entry->type, entry->data)) {
                replay->nomem = true;
                return false;
        }
        struct members members;
        if (entry->type == ENTRY_CHANGE && entry->index > snapshot_index(core)) {
                if (!members_decode(entry->data, &members))
                        return false;
                log_regime_push(core, entry->index, &members);
        }
        replay->nomem = core->failed;
        return !core->failed;
}

static bool replay_record(struct core *core, struct replay *replay,
                          const struct journal_record *record)
{
        switch (record->type) {
        case JOURNAL_META:
                return replay_meta(core, replay, &record->meta);
        case JOURNAL_ENTRY:
                return replay_entry(core, replay, &record->entry);
        case JOURNAL_SNAPSHOT:
                return replay_snapshot(core, replay, &record->snapshot);
        }
        UNREACHABLE("journal_read lets no other type through");
}

/* The first members, the same bytes on every one of them. */
static enum err first_members(const struct core *core, struct members *ret)
{
        *ret = (struct members){0};
        for (size_t i = 0; i < core->config.voter_count; i++) {
                struct member member = {.role = CONSENSUS_VOTER};
                if (core->config.members != NULL) {
                        const struct consensus_member *given = &core->config.members[i];
                        member = (struct member){.node = given->node,
                                                 .role = (uint8_t)given->role,
                                                 .wanted = (uint8_t)given->wanted,
                                                 .priority = given->priority};
                } else {
                        member.node = core->config.voters[i];
                }
                if (!members_put(ret, &member))
                        return ERR_LIMIT;
        }
        return ERR_NONE;
}

static enum err write_first_members(struct core *core)
{
        struct members members;
        struct buffer encoded;
        enum err err = first_members(core, &members);
        if (err != ERR_NONE)
                return err;
        buffer_init(&encoded, core->heap);
        members_encode(&members, &encoded);
        if (encoded.err == ERR_NONE)
                log_append(core, 1, ENTRY_CHANGE, buffer_view(&encoded));
        else
                core_fail(core);
        buffer_fini(&encoded);
        return core->failed ? ERR_NOMEM : ERR_NONE;
}

/* Writes a first journal: term 1, and the first members as entry 1. One that joins later, or comes
 * back without what it knew, waits for a leader to tell it everything. */
static enum err write_fresh(struct core *core, bool replace, struct consensus_recovery *ret)
{
        struct journal_identity identity = log_identity(core);
        bool amnesiac = core->config.amnesiac;
        bool empty = core->config.join || amnesiac;
        core->meta = (struct journal_meta){
                .term = 1, .extended = true, .joined = empty, .amnesiac = amnesiac};
        while (amnesiac && core->meta.life == 0)
                core->meta.life = rng_next(&core->rng);
        if (replace) {
                core->pending_replace = true;
                core->generation = ++core->generation_last;
        }
        entries_clear(&core->entries, 1);
        core->regime_count = 0;
        journal_write_header(&core->pending, &identity);
        journal_write_meta(&core->pending, 0, &core->meta);
        core->written = core->pending.len;
        if (core->pending.err != ERR_NONE)
                return ERR_NOMEM;
        enum err err = empty ? ERR_NONE : write_first_members(core);
        core->base = core->meta_need = core->written;
        *ret = (struct consensus_recovery){
                .dropped_bytes = ret->dropped_bytes,
                .fresh = true,
                .term = 1,
                .last_index = log_last(core),
        };
        return err;
}

static enum err corrupt(struct consensus_recovery *ret, uint64_t at)
{
        ret->corrupt_at = at;
        return ERR_CORRUPT;
}

static enum err replay_all(struct core *core, struct replay *replay, struct bytes journal,
                           size_t *at, struct consensus_recovery *ret)
{
        *at = JOURNAL_HEADER_SIZE;
        struct journal_record record;
        size_t begin = *at;
        while (journal_read(journal, at, &record)) {
                if (!replay_record(core, replay, &record))
                        return replay->nomem ? ERR_NOMEM : corrupt(ret, begin);
                begin = *at;
        }
        return ERR_NONE;
}

/* A damaged header, in a journal so short that it can only be the torn first write of a first
 * start. Nothing was promised on it. */
static enum err torn_first_write(struct core *core, struct bytes journal, uint64_t synced,
                                 struct consensus_recovery *ret)
{
        if (synced != 0 || journal_damaged(journal, 0))
                return corrupt(ret, 0);
        ret->dropped_bytes = journal.len;
        enum err err = write_fresh(core, true, ret);
        if (err == ERR_NONE && journal.len > core->written)
                return corrupt(ret, 0);
        return err;
}

/* Only the first write, torn behind term and vote. */
static enum err no_log(struct core *core, size_t at, uint64_t synced,
                       struct consensus_recovery *ret)
{
        if (synced != 0 || core->meta.term > 1 || core->meta.vote != 0)
                return corrupt(ret, at);
        return write_fresh(core, true, ret);
}

static void settle(struct core *core, size_t at, struct replay *replay,
                   struct consensus_recovery *ret)
{
        uint64_t last = log_last(core);
        if (last < snapshot_index(core)) {
                last = snapshot_index(core);
                entries_clear(&core->entries, last + 1);
        }
        if (core->config.bugs.term_volatile && log_term(core, last) > core->meta.term)
                core->meta.term = log_term(core, last);
        ret->term = core->meta.term;
        ret->snapshot_index = snapshot_index(core);
        ret->last_index = last;
        core->written = core->base = core->durable = at;
        core->stored = last;
        core->commit = core->applied = core->applied_taken = snapshot_index(core);
        core->restore = core->snapshot != NULL && !log_stateless(core);
        if (ret->dropped_bytes > 0 || replay->old) {
                /* There is no other way to shorten a journal than to write it anew. */
                log_rewrite(core);
                core->meta_need = 0;
                core->stored = last;
        }
        /* It may have come as a whole state, and the word that followed from it be lost. */
        if (core->snapshot != NULL)
                change_committed(core, core->snapshot->members_index, &core->snapshot->members);
}

/* Over what was lost goes a whole new journal: half of one would look like a first start. */
static enum err write_empty(struct core *core, struct bytes journal, struct consensus_recovery *ret)
{
        return write_fresh(core, core->config.amnesiac && journal.len > 0, ret);
}

enum err recover_journal(struct core *core, struct bytes journal, uint64_t synced,
                         struct consensus_recovery *ret)
{
        *ret = (struct consensus_recovery){0};
        struct journal_identity identity = log_identity(core);
        uint32_t version = 0;
        if (journal.len < synced)
                return corrupt(ret, journal.len);
        struct bytes used = journal_used(journal);
        if (used.len == 0)
                return synced == 0 || core->config.amnesiac ? write_empty(core, journal, ret)
                                                            : corrupt(ret, 0);
        enum err err = journal_read_header(journal, &identity, &version);
        if (core->config.amnesiac && (err == ERR_TRUNCATED || err == ERR_CORRUPT))
                return write_fresh(core, true, ret);
        if (err == ERR_TRUNCATED || err == ERR_CORRUPT)
                return torn_first_write(core, used, synced, ret);
        if (err != ERR_NONE)
                return err;
        if (core->config.amnesiac)
                return write_fresh(core, true, ret);

        struct replay replay = {.old = version != identity.version};
        size_t at = 0;
        err = replay_all(core, &replay, journal, &at, ret);
        if (err != ERR_NONE)
                return err;
        ret->valid_bytes = at;
        ret->dropped_bytes = used.len > at ? used.len - at : 0;
        if (at < synced || (at < used.len && journal_damaged(used, at)))
                return corrupt(ret, at);
        if (!replay.meta || (!replay.entries && core->snapshot == NULL && !core->meta.joined))
                return no_log(core, at, synced, ret);
        settle(core, at, &replay, ret);
        return core->failed ? ERR_NOMEM : ERR_NONE;
}
