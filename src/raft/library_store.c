/* library_store.c - journal, log and snapshot of a group. What a start finds: library_recover.c.
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

struct journal_identity store_identity(const struct library *consensus)
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

void store_replace_begin(struct library *consensus)
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

bool store_entry(struct library *consensus, uint64_t index, const struct raft_entry *item)
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
        store_replace_begin(consensus);
        struct journal_identity identity = store_identity(consensus);
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
        store_replace_begin(consensus);
        struct journal_identity identity = store_identity(consensus);
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
