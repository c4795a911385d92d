/* The oracle behind the door: takes inputs, drives libraft's raft_step() with events, and
 * collects what it wants done.
 *
 *   input -> begin (forget what the last take handed out) -> step ... -> advance -> (take) output
 *
 * step     one event into the library; its update becomes records, entries, messages
 * advance  hands out entries that are committed now, and tells the library of configurations
 *
 * Failure: an error of the library that is not a plain refusal means memory ran out, or that a
 * committed entry would have to be overwritten. Either way this replica takes part no more
 * (library_fail): it sends nothing and wakes never, and status.failed tells.
 *
 * The library's own tracer prints through a static buffer; it is switched off. Its heap is malloc:
 * it knows only one for the whole process. */
#include "raft/library_priv.h"

#include "base/check.h"
#include "base/cursor.h"

#if RAFT_VERSION_NUMBER < 2201
#error "libraft 0.22.1 or later is needed: older ones lose committed entries"
#endif

_Static_assert((int)ENTRY_COMMAND == (int)RAFT_COMMAND, "entry types are the library's");
_Static_assert((int)ENTRY_BARRIER == (int)RAFT_BARRIER, "entry types are the library's");
_Static_assert((int)ENTRY_CHANGE == (int)RAFT_CHANGE, "entry types are the library's");

enum {
        INFLIGHT_ENTRIES_MAX = 1024,
        BACKLOG_ENTRIES_MAX = 4096,
        BATCH_BYTES_MAX = CONSENSUS_COMMAND_BYTES_MAX + 16,
        CAPACITY = UINT16_MAX,
        SNAPSHOT_ENTRIES_DEFAULT = 4096,
        TRAILING_ENTRIES_DEFAULT = 512,
};

#define SNAPSHOT_BYTES_DEFAULT ((size_t)8 * 1024 * 1024)

/* What the door has let through already, and what the library cannot do. */
static bool config_valid(const struct consensus_config *config)
{
        return config->members == NULL && !config->join && !config->amnesiac;
}

static void config_copy(struct library *consensus, const struct consensus_config *config)
{
        consensus->config = *config;
        consensus->config.voters = consensus->voters;
        if (config->snapshot_entries == 0)
                consensus->config.snapshot_entries = SNAPSHOT_ENTRIES_DEFAULT;
        if (config->snapshot_bytes == 0)
                consensus->config.snapshot_bytes = SNAPSHOT_BYTES_DEFAULT;
        if (config->trailing_entries == 0)
                consensus->config.trailing_entries = TRAILING_ENTRIES_DEFAULT;
        for (size_t i = 0; i < config->voter_count; i++) {
                size_t at = i;
                for (; at > 0 && consensus->voters[at - 1] > config->voters[i]; at--)
                        consensus->voters[at] = consensus->voters[at - 1];
                consensus->voters[at] = config->voters[i];
        }
}

static bool library_open(struct library *consensus)
{
        const struct consensus_config *config = &consensus->config;
        char address[16];
        snprintf(address, sizeof address, "%u", config->self);
        if (raft_init(&consensus->raft, NULL, NULL, config->self, address) != 0)
                return false;
        consensus->raft.tracer = NULL;
        consensus->raft_open = true;
        raft_seed(&consensus->raft, (unsigned)(config->seed ^ config->seed >> 32));
        raft_set_pre_vote(&consensus->raft, config->pre_vote);
        raft_set_election_timeout(&consensus->raft, config->election_timeout_ms);
        raft_set_heartbeat_timeout(&consensus->raft, config->heartbeat_ms);
        raft_set_install_snapshot_timeout(&consensus->raft, config->election_timeout_ms * 10);
        raft_set_max_inflight_entries(&consensus->raft, INFLIGHT_ENTRIES_MAX);
        return true;
}

static void library_free(void *core);
static struct consensus_status library_status(const void *core);

static enum err library_new(struct heap *heap, const struct consensus_config *config,
                            void **ret_core)
{
        if (!config_valid(config))
                return ERR_UNSUPPORTED;
        struct library *consensus = heap_alloc(heap, sizeof *consensus);
        if (consensus == NULL)
                return ERR_NOMEM;
        consensus->heap = heap;
        config_copy(consensus, config);
        store_init(consensus);
        buffer_init(&consensus->batch, heap);
        if (!library_open(consensus)) {
                library_free(consensus);
                return ERR_NOMEM;
        }
        *ret_core = consensus;
        return ERR_NONE;
}

static void library_free(void *core)
{
        struct library *consensus = core;
        if (consensus == NULL)
                return;
        if (consensus->raft_open)
                raft_close(&consensus->raft, NULL);
        exchange_fini(consensus);
        store_fini(consensus);
        buffer_fini(&consensus->batch);
        heap_free(consensus->heap, consensus->commands);
        heap_free(consensus->heap, consensus);
}

void library_fail(struct library *consensus)
{
        consensus->failed = true;
}

static void library_failed(void *core)
{
        struct library *consensus = core;
        library_fail(consensus);
}

/* Opens every input: moves time on and drops what the last take handed out. */
static void library_begin(struct library *consensus, uint64_t now_ms)
{
        if (now_ms > consensus->now_ms)
                consensus->now_ms = now_ms;
        if (!consensus->taken)
                return;
        consensus->taken = false;
        exchange_forget(consensus);
        buffer_reset(&consensus->pending);
        consensus->pending_replace = false;
        consensus->command_count = 0;
        consensus->restore = false;
}

static bool library_active(const struct library *consensus)
{
        return consensus->started && !consensus->failed;
}

static void step_entries(struct library *consensus, const struct raft_update *update)
{
        void *batch = update->entries.batch[0].batch;
        store_entries(consensus, update->entries.index, update->entries.batch, update->entries.n);
        raft_free(batch);
}

int library_step(struct library *consensus, struct raft_event *event)
{
        struct raft_update update;
        memset(&update, 0, sizeof update);
        event->time = consensus->now_ms;
        event->capacity = CAPACITY;
        int rv = raft_step(&consensus->raft, event, &update);
        if (rv == RAFT_NOTLEADER || rv == RAFT_BADID || rv == RAFT_NOTFOUND)
                return rv;
        if (rv != 0) {
                library_fail(consensus);
                return rv;
        }
        if (update.flags & ((RAFT_UPDATE_CURRENT_TERM) | (RAFT_UPDATE_VOTED_FOR)))
                store_meta(consensus);
        if (update.flags & (RAFT_UPDATE_SNAPSHOT)) {
                raft_free(update.snapshot.chunk.base);
                store_install(consensus);
        }
        if (update.flags & (RAFT_UPDATE_ENTRIES))
                step_entries(consensus, &update);
        if ((update.flags & (RAFT_UPDATE_STATE)) && consensus->raft.state == RAFT_LEADER)
                consensus->lead_from = entries_last(&consensus->entries);
        if (update.flags & (RAFT_UPDATE_MESSAGES)) {
                for (unsigned i = 0; i < update.messages.n; i++)
                        exchange_send(consensus, &update.messages.batch[i]);
        }
        return 0;
}

static bool commands_grow(struct library *consensus)
{
        if (consensus->command_count < consensus->command_size)
                return true;
        size_t size = consensus->command_size == 0 ? 64 : consensus->command_size * 2;
        struct consensus_command *commands = heap_resize(consensus->heap, consensus->commands,
                                                         size * sizeof *consensus->commands);
        if (commands == NULL)
                return false;
        consensus->commands = commands;
        consensus->command_size = size;
        return true;
}

/* An entry's data are commands as slices. */
static bool deliver_commands(struct library *consensus, uint64_t index, const struct entry *entry)
{
        struct cursor cursor = cursor_of(entry->data);
        while (cursor_left(&cursor) > 0) {
                struct bytes data = cursor_slice(&cursor);
                if (cursor_failed(&cursor))
                        return true; /* alike on all replicas */
                if (!commands_grow(consensus))
                        return false;
                consensus->commands[consensus->command_count++] = (struct consensus_command){
                        .index = index, .term = entry->term, .data = data};
        }
        return true;
}

static bool deliver_configuration(struct library *consensus, uint64_t index,
                                  const struct entry *entry)
{
        struct raft_event event = {.type = RAFT_CONFIGURATION};
        event.configuration.index = index;
        return store_configuration(entry->data, &event.configuration.conf) &&
               library_step(consensus, &event) == 0;
}

static bool deliver(struct library *consensus, uint64_t index, const struct entry *entry)
{
        switch (entry->type) {
        case ENTRY_COMMAND:
                return deliver_commands(consensus, index, entry);
        case ENTRY_BARRIER:
                return true;
        case ENTRY_CHANGE:
                return deliver_configuration(consensus, index, entry);
        }
        UNREACHABLE("decoding lets no other type through");
}

/* Hands out what is committed by now. */
static void library_advance(struct library *consensus)
{
        store_synced(consensus);
        while (!consensus->failed && !consensus->raft.snapshot.installing &&
               consensus->applied < consensus->raft.commit_index) {
                uint64_t index = consensus->applied + 1;
                const struct entry *entry = entries_at(&consensus->entries, index);
                if (entry == NULL)
                        return;
                consensus->applied = index;
                if (!deliver(consensus, index, entry))
                        library_fail(consensus);
        }
}

static enum err library_start(void *core, uint64_t now_ms, struct bytes journal, uint64_t synced,
                              struct consensus_recovery *ret)
{
        struct library *consensus = core;
        CHECK(!consensus->started);
        consensus->now_ms = now_ms;
        enum err err = store_recover(consensus, journal, synced, ret);
        if (err == ERR_NONE)
                err = store_begin(consensus);
        if (err != ERR_NONE) {
                library_fail(consensus);
                return err;
        }
        consensus->started = true;
        library_advance(consensus);
        return ERR_NONE;
}

static void library_tick(void *core, uint64_t now_ms)
{
        struct library *consensus = core;
        library_begin(consensus, now_ms);
        if (!library_active(consensus) || consensus->now_ms < raft_timeout(&consensus->raft))
                return;
        struct raft_event event = {.type = RAFT_TIMEOUT};
        (void)library_step(consensus, &event);
        library_advance(consensus);
}

static enum err library_receive(void *core, uint64_t now_ms, uint32_t from, struct bytes data)
{
        struct library *consensus = core;
        library_begin(consensus, now_ms);
        if (!library_active(consensus))
                return ERR_NONE;
        enum err err = exchange_receive(consensus, from, data);
        library_advance(consensus);
        return err;
}

/* Proposes what was submitted as one entry; drops it where this node leads no more. */
static void batch_flush(struct library *consensus)
{
        if (consensus->batch.len == 0)
                return;
        void *data = raft_malloc(consensus->batch.len);
        if (data == NULL)
                return;
        memcpy(data, consensus->batch.ptr, consensus->batch.len);
        struct raft_entry entry = {
                .term = raft_current_term(&consensus->raft),
                .type = RAFT_COMMAND,
                .buf = {.base = data, .len = consensus->batch.len},
                .batch = data,
        };
        buffer_reset(&consensus->batch);
        struct raft_event event = {.type = RAFT_SUBMIT};
        event.submit.entries = &entry;
        event.submit.n = 1;
        if (library_step(consensus, &event) != 0)
                raft_free(data);
}

static enum err library_submit(void *core, uint64_t now_ms, struct bytes command)
{
        struct library *consensus = core;
        library_begin(consensus, now_ms);
        if (command.len == 0 || command.len > CONSENSUS_COMMAND_BYTES_MAX)
                return ERR_INVALID;
        if (!library_active(consensus) || consensus->raft.state != RAFT_LEADER)
                return ERR_NOT_LEADER;
        if (raft_transferee(&consensus->raft) != 0 ||
            entries_last(&consensus->entries) - consensus->applied > BACKLOG_ENTRIES_MAX)
                return ERR_BUSY;
        if (consensus->batch.len + command.len + 10 > BATCH_BYTES_MAX)
                batch_flush(consensus);
        size_t before = consensus->batch.len;
        buffer_slice(&consensus->batch, command);
        if (consensus->batch.err == ERR_NONE)
                return ERR_NONE;
        consensus->batch.err = ERR_NONE;
        consensus->batch.len = before;
        return ERR_NOMEM;
}

static void library_synced(void *core, uint64_t now_ms, uint64_t generation, uint64_t offset)
{
        struct library *consensus = core;
        library_begin(consensus, now_ms);
        if (!library_active(consensus) || generation != consensus->generation)
                return;
        if (offset > consensus->written)
                offset = consensus->written;
        if (offset > consensus->durable)
                consensus->durable = offset;
        library_advance(consensus);
}

/* Not while a state from the leader is on its way to the disk; nor before our own disk has what the
 * others have committed: the library counts what it has stored entry by entry. */
static bool snapshot_must_wait(const struct library *consensus)
{
        return consensus->raft.snapshot.installing ||
               consensus->raft.last_stored < consensus->applied;
}

static enum err library_snapshot(void *core, struct bytes state)
{
        struct library *consensus = core;
        library_begin(consensus, consensus->now_ms);
        if (!library_active(consensus) || consensus->applied_taken <= consensus->snapshot.index)
                return ERR_NONE;
        if (snapshot_must_wait(consensus))
                return ERR_BUSY;
        if (state.len > CONSENSUS_MESSAGE_BYTES_MAX - 65536)
                return ERR_LIMIT;
        struct bytes copy;
        if (!heap_copy(consensus->heap, state, &copy))
                return ERR_NOMEM;
        return store_compact(consensus, copy);
}

static enum err library_transfer(void *core, uint64_t now_ms, uint32_t peer)
{
        struct library *consensus = core;
        library_begin(consensus, now_ms);
        if (!library_active(consensus) || consensus->raft.state != RAFT_LEADER)
                return ERR_NOT_LEADER;
        if (raft_transferee(&consensus->raft) != 0)
                return ERR_BUSY;
        batch_flush(consensus);
        struct raft_event event = {.type = RAFT_TRANSFER};
        event.transfer.server_id = peer;
        if (library_step(consensus, &event) != 0)
                return ERR_NOT_FOUND;
        library_advance(consensus);
        return ERR_NONE;
}

/* Wished when the log is long enough to matter beside the state that would be written. */
static bool snapshot_wished(const struct library *consensus)
{
        if (!library_active(consensus) || snapshot_must_wait(consensus) ||
            consensus->applied <= consensus->snapshot.index)
                return false;
        uint64_t grown = consensus->written - consensus->base;
        uint64_t entries = consensus->applied - consensus->snapshot.index;
        if (grown >= consensus->config.snapshot_bytes && grown >= consensus->base)
                return true;
        return entries >= consensus->config.snapshot_entries &&
               grown >= consensus->snapshot.state.len / 4;
}

static bool status_differs(const struct consensus_status *a, const struct consensus_status *b)
{
        return a->role != b->role || a->term != b->term || a->leader != b->leader ||
               a->ready != b->ready || a->failed != b->failed;
}

static size_t take_write(struct library *consensus)
{
        if (consensus->pending.len == 0 || consensus->failed)
                return 0;
        consensus->write = (struct consensus_write){
                .kind = consensus->pending_replace ? CONSENSUS_REPLACE : CONSENSUS_APPEND,
                .generation = consensus->generation,
                .offset = consensus->written - consensus->pending.len,
                .data = buffer_view(&consensus->pending),
        };
        return 1;
}

static uint64_t wake_ms(const struct library *consensus)
{
        if (!library_active(consensus))
                return UINT64_MAX;
        uint64_t at = raft_timeout(&consensus->raft);
        return at > consensus->now_ms ? at : consensus->now_ms + 1;
}

static void library_take(void *core, struct consensus_output *ret)
{
        struct library *consensus = core;
        library_begin(consensus, consensus->now_ms);
        if (library_active(consensus)) {
                batch_flush(consensus);
                library_advance(consensus);
        }
        struct consensus_status status = library_status(consensus);
        *ret = (struct consensus_output){
                .writes = &consensus->write,
                .write_count = take_write(consensus),
                .message_count = exchange_release(consensus),
                .restore = consensus->restore,
                .commands = consensus->commands,
                .command_count = consensus->command_count,
                .changed = status_differs(&status, &consensus->told),
                .snapshot_wished = snapshot_wished(consensus),
                .wake_ms = wake_ms(consensus),
        };
        ret->messages = consensus->messages;
        if (consensus->restore) {
                ret->restore_index = consensus->snapshot.index;
                ret->restore_term = consensus->snapshot.term;
                ret->restore_state = consensus->snapshot.state;
        }
        consensus->applied_taken = consensus->applied;
        consensus->told = status;
        consensus->taken = true;
}

static uint32_t leader_of(const struct library *consensus)
{
        switch (consensus->raft.state) {
        case RAFT_LEADER:
                return consensus->config.self;
        case RAFT_FOLLOWER:
                return (uint32_t)consensus->raft.follower_state.current_leader.id;
        default:
                return 0;
        }
}

static enum consensus_role role_of(const struct library *consensus)
{
        if (!library_active(consensus))
                return CONSENSUS_FOLLOWER;
        switch (consensus->raft.state) {
        case RAFT_LEADER:
                return CONSENSUS_LEADER;
        case RAFT_CANDIDATE:
                return CONSENSUS_CANDIDATE;
        default:
                return CONSENSUS_FOLLOWER;
        }
}

static struct consensus_status library_status(const void *core)
{
        const struct library *consensus = core;
        struct consensus_status status = {
                .role = role_of(consensus),
                .started = consensus->started,
                .failed = consensus->failed,
        };
        if (!consensus->started)
                return status;
        status.ready =
                status.role == CONSENSUS_LEADER && consensus->applied >= consensus->lead_from;
        status.leader = consensus->failed ? 0 : leader_of(consensus);
        status.vote = (uint32_t)raft_voted_for(&consensus->raft);
        status.term = raft_current_term(&consensus->raft);
        status.commit_index = raft_commit_index(&consensus->raft);
        status.applied_index = consensus->applied;
        status.last_index = entries_last(&consensus->entries);
        status.stored_index = consensus->raft.last_stored;
        status.snapshot_index = consensus->snapshot.index;
        status.generation = consensus->generation;
        status.journal_bytes = consensus->written;
        return status;
}

static bool library_has_majority(const void *core, uint64_t now_ms)
{
        const struct library *consensus = core;
        if (!library_active(consensus))
                return false;
        if (consensus->raft.state == RAFT_LEADER)
                return true;
        uint64_t heard = consensus->raft.election_timer_start;
        return leader_of(consensus) != 0 &&
               (now_ms <= heard || now_ms - heard <= consensus->config.election_timeout_ms);
}

const struct consensus_engine consensus_library = {
        .name = "library",
        .open = library_new,
        .close = library_free,
        .start = library_start,
        .tick = library_tick,
        .receive = library_receive,
        .submit = library_submit,
        .synced = library_synced,
        .fail = library_failed,
        .snapshot = library_snapshot,
        .transfer = library_transfer,
        .take = library_take,
        .status = library_status,
        .has_majority = library_has_majority,
};
