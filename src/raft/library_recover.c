/* library_recover.c - what a start makes of the journal that it finds.
 *
 * Records are replayed in their order, each of which must fit those before it; then the library is
 * started with what came of them. A torn end is cut, as nothing was promised on it; damage before
 * that, or below what was known to be durable, is ERR_CORRUPT, with its place. An empty journal is
 * begun by the first configuration. */
#include "raft/library_priv.h"

#include "base/check.h"

#include <stdio.h>

/* What recovery has seen so far. */
struct replay {
        bool meta;    /* term and vote are known */
        bool entries; /* the log has begun */
};

static bool replay_meta(struct library *consensus, struct replay *replay,
                        const struct journal_meta *meta)
{
        if (replay->meta && meta->term < consensus->meta.term)
                return false;
        replay->meta = true;
        consensus->meta = *meta;
        return true;
}

static bool replay_snapshot(struct library *consensus, struct replay *replay,
                            const struct journal_snapshot *snapshot, bool *ret_nomem)
{
        if (!replay->meta || replay->entries || consensus->snapshot.index != 0 ||
            !journal_configuration_valid(snapshot->configuration))
                return false;
        struct snapshot copy = {
                .index = snapshot->index,
                .term = snapshot->term,
                .configuration_index = snapshot->configuration_index,
        };
        if (!heap_copy(consensus->heap, snapshot->configuration, &copy.configuration) ||
            !heap_copy(consensus->heap, snapshot->state, &copy.state)) {
                snapshot_fini(consensus, &copy);
                *ret_nomem = true;
                return false;
        }
        consensus->snapshot = copy;
        entries_clear(&consensus->entries, copy.index + 1);
        return true;
}

/* Is this a place and a term at which an entry may stand? */
static bool entry_fits(const struct library *consensus, const struct replay *replay,
                       const struct journal_entry *entry)
{
        const struct snapshot *snapshot = &consensus->snapshot;
        const struct consensus_bugs *bugs = &consensus->config.bugs;
        if (!replay->meta ||
            (entry->type == ENTRY_CHANGE && !journal_configuration_valid(entry->data)))
                return false;
        if (entry->term > consensus->meta.term && !bugs->term_volatile)
                return false;
        if (entry->index == snapshot->index)
                return entry->term == snapshot->term;
        if (!replay->entries && snapshot->index == 0)
                return entry->index == 1 && entry->type == ENTRY_CHANGE;
        const struct entry *before = entries_at(&consensus->entries, entry->index - 1);
        if (before != NULL)
                return before->term <= entry->term || bugs->suffix_kept;
        return entry->index != snapshot->index + 1 || snapshot->term <= entry->term;
}

static bool replay_entry(struct library *consensus, struct replay *replay,
                         const struct journal_entry *entry, bool *ret_nomem)
{
        struct entries *entries = &consensus->entries;
        uint64_t last = entries_last(entries);
        if (!entry_fits(consensus, replay, entry))
                return false;
        if (!replay->entries) {
                if (entry->index > last + 1)
                        return false;
                entries_clear(entries, entry->index);
        } else if (entry->index > last + 1) {
                return false;
        } else if (entry->index <= last) {
                if (entry->index <= consensus->snapshot.index || entry->index < entries->first)
                        return false;
                if (consensus->config.bugs.suffix_kept)
                        return true;
                entries_cut(entries, entry->index);
        }
        replay->entries = true;
        if (entries_append(entries, entry->term, entry->type, entry->data))
                return true;
        *ret_nomem = true;
        return false;
}

static bool replay_record(struct library *consensus, struct replay *replay,
                          const struct journal_record *record, bool *ret_nomem)
{
        switch (record->type) {
        case JOURNAL_META:
                return replay_meta(consensus, replay, &record->meta);
        case JOURNAL_ENTRY:
                return replay_entry(consensus, replay, &record->entry, ret_nomem);
        case JOURNAL_SNAPSHOT:
                return replay_snapshot(consensus, replay, &record->snapshot, ret_nomem);
        }
        UNREACHABLE("journal_read lets no other type through");
}

/* The first configuration, the same bytes on every voter: ids in rising order. */
static bool first_configuration(const struct library *consensus, struct raft_buffer *ret)
{
        struct raft_configuration configuration;
        raft_configuration_init(&configuration);
        int rv = 0;
        for (size_t i = 0; i < consensus->config.voter_count && rv == 0; i++) {
                char address[16];
                snprintf(address, sizeof address, "%u", consensus->voters[i]);
                rv = raft_configuration_add(&configuration, consensus->voters[i], address,
                                            RAFT_VOTER);
        }
        if (rv == 0)
                rv = raft_configuration_encode(&configuration, ret);
        raft_configuration_close(&configuration);
        return rv == 0;
}

/* Writes a first journal: term 1, and the first configuration as entry 1. */
static enum err write_fresh(struct library *consensus)
{
        struct raft_buffer configuration = {0};
        if (!first_configuration(consensus, &configuration))
                return ERR_NOMEM;
        struct journal_identity identity = store_identity(consensus);
        consensus->meta = (struct journal_meta){.term = 1};
        snapshot_fini(consensus, &consensus->snapshot);
        entries_clear(&consensus->entries, 1);
        journal_write_header(&consensus->pending, &identity);
        journal_write_meta(&consensus->pending, 0, &consensus->meta);
        struct raft_entry item = {.term = 1, .type = RAFT_CHANGE, .buf = configuration};
        bool stored = store_entry(consensus, 1, &item);
        raft_free(configuration.base);
        if (!stored || consensus->pending.err != ERR_NONE)
                return ERR_NOMEM;
        return ERR_NONE;
}

static enum err store_fresh(struct library *consensus, bool torn, struct consensus_recovery *ret)
{
        if (torn)
                store_replace_begin(consensus);
        enum err err = write_fresh(consensus);
        if (err != ERR_NONE)
                return err;
        consensus->written = consensus->pending.len;
        consensus->base = consensus->written;
        consensus->durable = 0;
        consensus->meta_need = consensus->written;
        ret->fresh = true;
        ret->valid_bytes = 0;
        ret->term = 1;
        ret->last_index = 1;
        return ERR_NONE;
}

/* A torn end is cut by writing the good part anew: there is no other way to shorten a journal. */
static enum err store_cut(struct library *consensus, struct bytes valid)
{
        store_replace_begin(consensus);
        buffer_bytes(&consensus->pending, valid);
        consensus->written = valid.len;
        consensus->base = valid.len;
        consensus->durable = 0;
        return consensus->pending.err;
}

static enum err corrupt(struct consensus_recovery *ret, uint64_t at)
{
        ret->corrupt_at = at;
        return ERR_CORRUPT;
}

/* A header that is cut short or damaged, in a journal so short that it can only be the torn first
 * write of a first start. Nothing was promised on it. */
static bool first_write_torn(struct library *consensus, struct bytes journal, uint64_t synced,
                             struct consensus_recovery *ret, enum err *ret_err)
{
        struct consensus_recovery ignored;
        if (synced != 0 || journal_damaged(journal, 0))
                return false;
        *ret_err = store_fresh(consensus, true, &ignored);
        if (*ret_err == ERR_NONE && journal.len > consensus->written)
                return false;
        *ret = (struct consensus_recovery){
                .dropped_bytes = journal.len, .term = 1, .last_index = 1, .fresh = true};
        return true;
}

static enum err replay_all(struct library *consensus, struct replay *replay, struct bytes journal,
                           size_t *at, struct consensus_recovery *ret)
{
        *at = JOURNAL_HEADER_SIZE;
        struct journal_record record;
        size_t begin = *at;
        while (journal_read(journal, at, &record)) {
                bool nomem = false;
                if (!replay_record(consensus, replay, &record, &nomem))
                        return nomem ? ERR_NOMEM : corrupt(ret, begin);
                begin = *at;
        }
        return ERR_NONE;
}

enum err store_recover(struct library *consensus, struct bytes journal, uint64_t synced,
                       struct consensus_recovery *ret)
{
        *ret = (struct consensus_recovery){0};
        if (journal.len < synced)
                return corrupt(ret, journal.len);
        struct bytes used = journal_used(journal);
        if (used.len == 0)
                return synced == 0 ? store_fresh(consensus, false, ret) : corrupt(ret, 0);
        struct journal_identity identity = store_identity(consensus);
        uint32_t version;
        enum err err = journal_read_header(journal, &identity, &version);
        if (err == ERR_TRUNCATED || err == ERR_CORRUPT)
                return first_write_torn(consensus, used, synced, ret, &err) ? err : corrupt(ret, 0);
        if (err != ERR_NONE)
                return err;

        struct replay replay = {0};
        size_t at = 0;
        err = replay_all(consensus, &replay, journal, &at, ret);
        if (err != ERR_NONE)
                return err;
        ret->valid_bytes = at;
        ret->dropped_bytes = used.len > at ? used.len - at : 0;
        if (at < synced || (at < used.len && journal_damaged(used, at)))
                return corrupt(ret, at);
        if (!replay.entries && consensus->snapshot.index == 0) {
                if (consensus->meta.term > 1)
                        return corrupt(ret, at);
                return store_fresh(consensus, true, ret);
        }
        uint64_t last = entries_last(&consensus->entries);
        if (last < consensus->snapshot.index) {
                last = consensus->snapshot.index;
                entries_clear(&consensus->entries, last + 1);
        }
        ret->term = consensus->meta.term;
        ret->snapshot_index = consensus->snapshot.index;
        ret->last_index = last;
        consensus->written = at;
        consensus->base = at;
        consensus->durable = at;
        consensus->stored = last;
        return ret->dropped_bytes > 0 ? store_cut(consensus, bytes_of(journal.ptr, at)) : ERR_NONE;
}

/* The library wants terms and configurations only; the data stay ours. */
static struct raft_entry *start_entries(const struct library *consensus)
{
        const struct entries *entries = &consensus->entries;
        struct raft_entry *items = raft_calloc(entries->count + 1, sizeof *items);
        if (items == NULL)
                return NULL;
        for (size_t i = 0; i < entries->count; i++) {
                const struct entry *entry = entries_at(entries, entries->first + i);
                items[i].term = entry->term;
                items[i].type = (enum raft_entry_type)entry->type;
                items[i].buf.base = (void *)(uintptr_t)entry->data.ptr;
                items[i].buf.len = entry->data.len;
        }
        return items;
}

enum err store_begin(struct library *consensus)
{
        const struct snapshot *snapshot = &consensus->snapshot;
        struct raft_snapshot_metadata metadata = {
                .index = snapshot->index,
                .term = snapshot->term,
                .configuration_index = snapshot->configuration_index,
        };
        uint64_t term = consensus->meta.term;
        const struct entry *last =
                entries_at(&consensus->entries, entries_last(&consensus->entries));
        if (last != NULL && last->term > term)
                term = last->term; /* only where a bug is planted */
        struct raft_entry *items = start_entries(consensus);
        if (items == NULL)
                return ERR_NOMEM;
        struct raft_event event = {.type = RAFT_START};
        event.start.term = term;
        event.start.voted_for = consensus->meta.vote;
        event.start.start_index = consensus->entries.first;
        event.start.entries = items;
        event.start.n_entries = (unsigned)consensus->entries.count;
        int rv = 0;
        if (snapshot->index > 0) {
                event.start.metadata = &metadata;
                if (!store_configuration(snapshot->configuration, &metadata.configuration))
                        rv = RAFT_NOMEM;
        }
        consensus->applied = snapshot->index;
        consensus->applied_taken = snapshot->index;
        consensus->restore = snapshot->index > 0;
        consensus->stored = consensus->raft.last_stored;
        if (rv == 0)
                rv = library_step(consensus, &event);
        raft_free(items);
        return rv == 0 ? ERR_NONE : ERR_NOMEM;
}
