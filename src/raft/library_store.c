/* Journal, log and snapshot of a group.
 *
 * Every change of term or vote and every entry becomes a record in `pending`, which the next take
 * hands out as one write. `written` counts the bytes of the journal including those. A mark says
 * which entries are durable once the journal is durable up to an offset; when a suffix is cut,
 * older marks no longer vouch for it, because the record that cuts may reach the disk as well.
 *
 * A snapshot makes a whole new journal: header, term and vote, the state, the entries behind
 * it and some before it for slow followers. It supersedes what is pending. Until it is
 * durable, promises wait for all of it; what was durable in the old journal stays so, as one
 * of the two survives a crash.
 *
 * Running out of memory here is final (library_fail): the library has already moved on. */
#include "raft/library_priv.h"

#include "base/check.h"

void store_init(struct library *consensus)
{
        entries_init(&consensus->entries, consensus->heap, 1);
        buffer_init(&consensus->pending, consensus->heap);
}

void snapshot_fini(struct library *consensus, struct snapshot *snapshot)
{
        heap_free_bytes(consensus->heap, snapshot->configuration);
        heap_free_bytes(consensus->heap, snapshot->state);
        *snapshot = (struct snapshot){0};
}

void store_fini(struct library *consensus)
{
        entries_fini(&consensus->entries);
        snapshot_fini(consensus, &consensus->snapshot);
        snapshot_fini(consensus, &consensus->install);
        buffer_fini(&consensus->pending);
        heap_free(consensus->heap, consensus->marks);
}

bool store_configuration(struct bytes encoded, struct raft_configuration *ret)
{
        CHECK(journal_configuration_valid(encoded));
        /* The library reads without regard to the end, but a valid one ends by itself. */
        void *copy = raft_malloc(encoded.len);
        if (copy == NULL)
                return false;
        memcpy(copy, encoded.ptr, encoded.len);
        struct raft_buffer buffer = {.base = copy, .len = encoded.len};
        int rv = raft_configuration_decode(&buffer, ret);
        raft_free(copy);
        return rv == 0;
}

static struct journal_identity identity_of(const struct library *consensus)
{
        return (struct journal_identity){
                .version = 1,
                .cluster = consensus->config.cluster,
                .group = consensus->config.group,
                .node = consensus->config.self,
        };
}

/* Counts what was written to `pending` since it was `before` bytes long. */
static void pending_count(struct library *consensus, size_t before)
{
        if (consensus->pending.err != ERR_NONE)
                library_fail(consensus);
        else
                consensus->written += consensus->pending.len - before;
}

/* A new generation begins with what `pending` is about to get. */
static void replace_begin(struct library *consensus)
{
        buffer_reset(&consensus->pending);
        consensus->pending_replace = true;
        consensus->generation++;
        consensus->written = 0;
}

/* What is durable so far stays durable, whichever of the two journals survives; what is not waits
 * for the whole new one. */
static void replace_end(struct library *consensus)
{
        uint64_t durable_before = consensus->durable;
        consensus->durable = 0;
        consensus->base = consensus->written;
        for (size_t i = 0; i < consensus->queue_count; i++) {
                struct outgoing *outgoing = &consensus->queue[i];
                outgoing->need = outgoing->need <= durable_before ? 0 : consensus->written;
        }
        consensus->meta_need = consensus->meta_need <= durable_before ? 0 : consensus->written;
}

static void mark_push(struct library *consensus, uint64_t end, uint64_t last)
{
        if (consensus->mark_count == consensus->mark_size) {
                size_t size = consensus->mark_size == 0 ? 32 : consensus->mark_size * 2;
                struct mark *marks = heap_resize(consensus->heap, consensus->marks,
                                                 size * sizeof *consensus->marks);
                if (marks == NULL) {
                        library_fail(consensus);
                        return;
                }
                consensus->marks = marks;
                consensus->mark_size = size;
        }
        consensus->marks[consensus->mark_count++] = (struct mark){.end = end, .last = last};
}

void store_meta(struct library *consensus)
{
        const struct consensus_bugs *bugs = &consensus->config.bugs;
        size_t before = consensus->pending.len;
        if (!bugs->term_volatile)
                consensus->meta.term = raft_current_term(&consensus->raft);
        consensus->meta.vote = bugs->vote_volatile ? 0 : (uint32_t)raft_voted_for(&consensus->raft);
        journal_write_meta(&consensus->pending, consensus->durable, &consensus->meta);
        pending_count(consensus, before);
        consensus->meta_need = consensus->written;
}

/* The record of an entry, and the entry in memory. */
static bool store_entry(struct library *consensus, uint64_t index, const struct raft_entry *item)
{
        struct bytes data = bytes_of(item->buf.base, item->buf.len);
        struct journal_entry entry = {
                .index = index,
                .term = item->term,
                .type = (enum entry_type)item->type,
                .data = data,
        };
        journal_write_entry(&consensus->pending, consensus->durable, &entry);
        return entries_append(&consensus->entries, entry.term, entry.type, data);
}

static void entries_replace(struct library *consensus, uint64_t index)
{
        entries_cut(&consensus->entries, index);
        if (consensus->stored >= index)
                consensus->stored = index - 1;
        for (size_t i = 0; i < consensus->mark_count; i++) {
                if (consensus->marks[i].last >= index)
                        consensus->marks[i].last = index - 1;
        }
}

void store_entries(struct library *consensus, uint64_t index, const struct raft_entry *items,
                   size_t count)
{
        CHECK(index <= entries_last(&consensus->entries) + 1);
        CHECK(index > consensus->snapshot.index);
        if (index <= entries_last(&consensus->entries))
                entries_replace(consensus, index);
        size_t before = consensus->pending.len;
        for (size_t i = 0; i < count; i++) {
                if (!store_entry(consensus, index + i, &items[i]))
                        library_fail(consensus);
        }
        pending_count(consensus, before);
        if (!consensus->failed)
                mark_push(consensus, consensus->written, index + count - 1);
}

static void write_snapshot(struct library *consensus, const struct snapshot *snapshot)
{
        journal_write_snapshot(&consensus->pending, 0,
                               &(struct journal_snapshot){
                                       .index = snapshot->index,
                                       .term = snapshot->term,
                                       .configuration_index = snapshot->configuration_index,
                                       .configuration = snapshot->configuration,
                                       .state = snapshot->state,
                               });
}

void store_install(struct library *consensus)
{
        replace_begin(consensus);
        struct journal_identity identity = identity_of(consensus);
        journal_write_header(&consensus->pending, &identity);
        journal_write_meta(&consensus->pending, 0, &consensus->meta);
        write_snapshot(consensus, &consensus->install);
        pending_count(consensus, 0);
        replace_end(consensus);
        consensus->mark_count = 0;
        consensus->stored = 0;
        consensus->install_need = consensus->written;
}

static void write_compacted(struct library *consensus)
{
        replace_begin(consensus);
        struct journal_identity identity = identity_of(consensus);
        journal_write_header(&consensus->pending, &identity);
        journal_write_meta(&consensus->pending, 0, &consensus->meta);
        write_snapshot(consensus, &consensus->snapshot);
        uint64_t last = entries_last(&consensus->entries);
        for (uint64_t index = consensus->entries.first; index <= last; index++) {
                const struct entry *entry = entries_at(&consensus->entries, index);
                journal_write_entry(&consensus->pending, 0,
                                    &(struct journal_entry){
                                            .index = index,
                                            .term = entry->term,
                                            .type = entry->type,
                                            .data = entry->data,
                                    });
        }
        pending_count(consensus, 0);
        replace_end(consensus);
        consensus->mark_count = 0;
        mark_push(consensus, consensus->written, last);
}

/* Tells the library; its own index of terms keeps the same entries as ours. */
static bool snapshot_tell(struct library *consensus, const struct snapshot *snapshot)
{
        struct raft_event event = {.type = RAFT_SNAPSHOT};
        event.snapshot.metadata.index = snapshot->index;
        event.snapshot.metadata.term = snapshot->term;
        event.snapshot.metadata.configuration_index = snapshot->configuration_index;
        event.snapshot.trailing = consensus->config.trailing_entries;
        return store_configuration(snapshot->configuration,
                                   &event.snapshot.metadata.configuration) &&
               library_step(consensus, &event) == 0;
}

enum err store_compact(struct library *consensus, struct bytes state)
{
        struct snapshot made = {
                .index = consensus->applied_taken,
                .configuration_index = consensus->raft.configuration_committed_index,
                .state = state,
        };
        const struct entry *entry = entries_at(&consensus->entries, made.index);
        CHECK(entry != NULL);
        made.term = entry->term;
        struct raft_buffer encoded = {0};
        if (raft_configuration_encode(&consensus->raft.configuration_committed, &encoded) != 0 ||
            !heap_copy(consensus->heap, bytes_of(encoded.base, encoded.len), &made.configuration)) {
                raft_free(encoded.base);
                snapshot_fini(consensus, &made);
                return ERR_NOMEM;
        }
        raft_free(encoded.base);
        snapshot_fini(consensus, &consensus->snapshot);
        consensus->snapshot = made;
        if (!snapshot_tell(consensus, &made)) {
                library_fail(consensus);
                return ERR_NOMEM;
        }
        entries_trim(&consensus->entries, consensus->raft.trail.offset + 1);
        write_compacted(consensus);
        return consensus->failed ? ERR_NOMEM : ERR_NONE;
}

/* The state from the leader is durable: it takes the place of everything. */
static void install_done(struct library *consensus)
{
        snapshot_fini(consensus, &consensus->snapshot);
        consensus->snapshot = consensus->install;
        consensus->install = (struct snapshot){0};
        const struct snapshot *snapshot = &consensus->snapshot;
        entries_clear(&consensus->entries, snapshot->index + 1);
        consensus->command_count = 0;
        consensus->applied = snapshot->index;
        consensus->stored = snapshot->index;
        consensus->restore = true;
        struct raft_event event = {.type = RAFT_PERSISTED_SNAPSHOT};
        event.persisted_snapshot.metadata.index = snapshot->index;
        event.persisted_snapshot.metadata.term = snapshot->term;
        event.persisted_snapshot.metadata.configuration_index = snapshot->configuration_index;
        event.persisted_snapshot.last = true;
        if (!store_configuration(snapshot->configuration,
                                 &event.persisted_snapshot.metadata.configuration) ||
            library_step(consensus, &event) != 0)
                library_fail(consensus);
}

void store_synced(struct library *consensus)
{
        size_t done = 0;
        uint64_t reached = consensus->config.bugs.ack_before_sync ? UINT64_MAX : consensus->durable;
        while (done < consensus->mark_count && consensus->marks[done].end <= reached) {
                if (consensus->marks[done].last > consensus->stored)
                        consensus->stored = consensus->marks[done].last;
                done++;
        }
        if (done > 0) {
                consensus->mark_count -= done;
                memmove(consensus->marks, consensus->marks + done,
                        consensus->mark_count * sizeof *consensus->marks);
        }
        if (consensus->raft.snapshot.installing) {
                if (consensus->durable >= consensus->install_need)
                        install_done(consensus);
                return;
        }
        if (consensus->stored <= consensus->raft.last_stored)
                return;
        struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};
        event.persisted_entries.index = consensus->stored;
        if (library_step(consensus, &event) != 0)
                library_fail(consensus);
}

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
        struct journal_identity identity = identity_of(consensus);
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
                replace_begin(consensus);
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
        replace_begin(consensus);
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
        struct journal_identity identity = identity_of(consensus);
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
