/* core.c - the inputs. The take is in core_take.c.
 *
 *   input -> begin (forget what the last take handed out) -> the room's files -> advance
 *
 * advance  what has become durable counts, what is committed is handed out, reads become ready
 *
 * Failure: running out of memory where the log has moved on already, and a disk that failed, end
 * this replica's part (core_fail): it sends nothing and wakes never, and status.failed tells.
 * Nothing that a peer sends can bring it there: what must not be is refused. */
#include "base/check.h"
#include "base/cursor.h"
#include "raft/core_priv.h"

enum {
        SNAPSHOT_ENTRIES_DEFAULT = 4096,
        TRAILING_ENTRIES_DEFAULT = 512,
        DRIFT_DEFAULT = 100,
        GROW_MIN = 32,
        PENDING_KEPT = 1024 * 1024, /* a larger buffer is given back after its write */
};

#define SNAPSHOT_BYTES_DEFAULT     ((size_t)8 * 1024 * 1024)
#define SNAPSHOT_BYTES_MAX_DEFAULT ((size_t)1024 * 1024 * 1024)
#define INFLIGHT_BYTES_DEFAULT     ((size_t)4 * 1024 * 1024)
#define CHUNK_BYTES_DEFAULT        ((size_t)256 * 1024)
#define PIECE_BYTES_DEFAULT        ((size_t)512 * 1024)

void core_fail(struct core *core)
{
        core->failed = true;
}

bool core_grow(struct core *core, void **items, size_t count, size_t *size, size_t item)
{
        if (count < *size)
                return true;
        size_t more = *size < GROW_MIN ? GROW_MIN : *size * 2;
        void *grown = heap_resize(core->heap, *items, more * item);
        if (grown == NULL) {
                core_fail(core);
                return false;
        }
        *items = grown;
        *size = more;
        return true;
}

bool core_ready(const struct core *core)
{
        return core->role == CORE_LEADER && core->applied >= core->lead_from;
}

static void config_defaults(struct consensus_config *config)
{
        if (config->snapshot_entries == 0)
                config->snapshot_entries = SNAPSHOT_ENTRIES_DEFAULT;
        if (config->snapshot_bytes == 0)
                config->snapshot_bytes = SNAPSHOT_BYTES_DEFAULT;
        if (config->trailing_entries == 0)
                config->trailing_entries = TRAILING_ENTRIES_DEFAULT;
        if (config->inflight_bytes == 0)
                config->inflight_bytes = INFLIGHT_BYTES_DEFAULT;
        if (config->chunk_bytes == 0)
                config->chunk_bytes = CHUNK_BYTES_DEFAULT;
        if (config->piece_bytes == 0)
                config->piece_bytes = PIECE_BYTES_DEFAULT;
        if (config->snapshot_bytes_max == 0)
                config->snapshot_bytes_max = SNAPSHOT_BYTES_MAX_DEFAULT;
        if (config->drift_per_mille == 0)
                config->drift_per_mille = DRIFT_DEFAULT;
}

static void core_close(void *engine)
{
        struct core *core = engine;
        replicate_end(core);
        post_fini(core);
        compact_drop(core);
        arrival_close(core);
        snapshot_drop(core, core->snapshot);
        snapshot_drop(core, core->restoring);
        entries_fini(&core->entries);
        buffer_fini(&core->pending);
        buffer_fini(&core->batch);
        heap_free(core->heap, core->regimes);
        heap_free(core->heap, core->marks);
        heap_free(core->heap, core->followers);
        heap_free(core->heap, core->reads);
        heap_free(core->heap, core->ready);
        heap_free(core->heap, core->commands);
        /* The configuration's lists are copies, borrowed no more. */
        heap_free_bytes(core->heap, bytes_of(core->config.voters, core->config.voters != NULL));
        heap_free_bytes(core->heap, bytes_of(core->config.members, core->config.members != NULL));
        heap_free(core->heap, core);
}

static bool config_copy(struct core *core, const struct consensus_config *config)
{
        struct bytes voters = {0};
        struct bytes members = {0};
        size_t count = config->voter_count;
        core->config = *config;
        core->config.voters = NULL;
        core->config.members = NULL;
        config_defaults(&core->config);
        bool copied = true;
        if (count > 0 && config->members == NULL && config->voters != NULL)
                copied = heap_copy(core->heap, bytes_of(config->voters, count * sizeof(uint32_t)),
                                   &voters);
        if (count > 0 && config->members != NULL)
                copied = heap_copy(
                        core->heap,
                        bytes_of(config->members, count * sizeof(struct consensus_member)),
                        &members);
        core->config.voters = (const uint32_t *)(const void *)voters.ptr;
        core->config.members = (const struct consensus_member *)(const void *)members.ptr;
        return copied;
}

static enum err core_open(struct heap *heap, const struct consensus_config *config, void **ret_core)
{
        struct core *core = heap_alloc(heap, sizeof *core);
        if (core == NULL)
                return ERR_NOMEM;
        core->heap = heap;
        entries_init(&core->entries, heap, 1);
        buffer_init(&core->pending, heap);
        buffer_init(&core->batch, heap);
        buffer_init(&core->encoded, heap);
        buffer_init(&core->arrival.state, heap);
        rng_init(&core->rng, config->seed, config->self);
        if (!config_copy(core, config)) {
                core_close(core);
                return ERR_NOMEM;
        }
        *ret_core = core;
        return ERR_NONE;
}

void core_begin(struct core *core, uint64_t now_ms)
{
        if (now_ms > core->now_ms) {
                core->now_ms = now_ms;
                if (core->entry_new)
                        core->entry_ms = now_ms + 1;
                core->entry_new = false;
        }
        if (!core->taken)
                return;
        core->taken = false;
        post_forget(core);
        if (core->pending.size > PENDING_KEPT) {
                buffer_fini(&core->pending);
                buffer_init(&core->pending, core->heap);
        }
        buffer_reset(&core->pending);
        core->pending_replace = core->pending_swap = false;
        core->command_count = 0;
        core->ready_count = 0;
        core->restore = false;
}

bool core_active(const struct core *core)
{
        return core->started && !core->failed;
}

/* ---- what is committed comes out ---- */

static bool deliver_commands(struct core *core, uint64_t index, const struct entry *entry)
{
        struct cursor cursor = cursor_of(entry->data);
        while (cursor_left(&cursor) > 0) {
                struct bytes data = cursor_slice(&cursor);
                void *commands = core->commands;
                if (cursor_failed(&cursor))
                        return true; /* alike on all replicas */
                if (!core_grow(core, &commands, core->command_count, &core->command_size,
                               sizeof *core->commands))
                        return false;
                core->commands = commands;
                core->commands[core->command_count++] = (struct consensus_command){
                        .index = index, .term = entry->term, .data = data};
        }
        return true;
}

static bool deliver(struct core *core, uint64_t index, const struct entry *entry)
{
        struct members members;
        switch (entry->type) {
        case ENTRY_COMMAND:
                return log_stateless(core) || deliver_commands(core, index, entry);
        case ENTRY_BARRIER:
                return true;
        case ENTRY_CHANGE:
                if (members_decode(entry->data, &members))
                        change_committed(core, index, &members);
                return true;
        }
        UNREACHABLE("decoding lets no other type through");
}

static void check(const struct core *core)
{
        CHECK(core->applied <= core->commit);
        CHECK(core->commit <= log_last(core) || core->arrival.writing);
        CHECK(core->stored <= log_last(core));
        CHECK(IMPLIES(core->role == CORE_LEADER, !core->meta.amnesiac));
}

void core_advance(struct core *core)
{
        if (core->failed)
                return;
        log_synced(core);
        if (core->arrival.writing && core->durable >= core->arrival.need)
                arrival_durable(core);
        if (core->role == CORE_LEADER)
                replicate_commit(core);
        while (!core->failed && !core->arrival.writing && !restore_waits(core) &&
               core->applied < core->commit) {
                const struct entry *entry = entries_at(&core->entries, core->applied + 1);
                CHECK(entry != NULL);
                core->applied++;
                if (!deliver(core, core->applied, entry))
                        return;
        }
        follow_synced(core);
        if (core->role == CORE_LEADER)
                reads_advance(core);
        snapshot_witness(core);
        if (!core->failed)
                check(core);
}

/* ---- inputs ---- */

static enum err core_start(void *engine, uint64_t now_ms, struct bytes journal, uint64_t synced,
                           struct consensus_recovery *ret)
{
        struct core *core = engine;
        CHECK(!core->started);
        core->now_ms = now_ms;
        enum err err = recover_journal(core, journal, synced, ret);
        if (err != ERR_NONE)
                return err;
        if (core->config.bugs.amnesiac_votes)
                core->meta.amnesiac = false;
        core->started = true;
        core->entry_new = true;
        /* This pause, and pre-vote, make it rare that a lost vote counts: so they go with it. */
        core->heard_ms = core->config.bugs.vote_volatile ? 0 : now_ms;
        election_timer(core);
        /* Alone there is nobody to wait for, unless it became so under another leader, which may
         * still go by this node's promise. */
        const struct regime *regime = log_regime(core);
        bool led = core->meta.vote == core->config.self || core->meta.term <= 1;
        if (led && regime != NULL && log_self(core) != NULL &&
            members_voting(&regime->members) == 1) {
                core->election_ms = now_ms;
                election_tick(core);
        }
        core_advance(core);
        return ERR_NONE;
}

static void core_tick(void *engine, uint64_t now_ms)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        if (!core_active(core))
                return;
        replicate_tick(core);
        election_tick(core);
        core_advance(core);
}

static enum err handle(struct core *core, struct message *message)
{
        switch (message->type) {
        case MESSAGE_APPEND:
                return follow_append(core, message);
        case MESSAGE_APPEND_RESULT:
                replicate_append_result(core, message);
                return ERR_NONE;
        case MESSAGE_VOTE:
                election_vote(core, message);
                return ERR_NONE;
        case MESSAGE_VOTE_RESULT:
                election_vote_result(core, message);
                return ERR_NONE;
        case MESSAGE_CHUNK:
                return follow_chunk(core, message);
        case MESSAGE_CHUNK_RESULT:
                replicate_chunk_result(core, message);
                return ERR_NONE;
        case MESSAGE_TIMEOUT_NOW:
                election_timeout_now(core, message);
                return ERR_NONE;
        }
        UNREACHABLE("message_decode lets no other type through");
}

static enum err core_receive(void *engine, uint64_t now_ms, uint32_t from, struct bytes data)
{
        struct core *core = engine;
        struct message message;
        core_begin(core, now_ms);
        if (!core_active(core))
                return ERR_NONE;
        if (data.len > CONSENSUS_MESSAGE_BYTES_MAX)
                return ERR_MALFORMED;
        enum err err = message_decode(data, &message);
        if (err != ERR_NONE)
                return err;
        if (message.group != core->config.group || message.cluster != core->config.cluster ||
            message.from != from || message.to != core->config.self || from == core->config.self)
                return ERR_REFUSED;
        err = handle(core, &message);
        core_advance(core);
        return err;
}

void core_flush(struct core *core)
{
        if (core->batch.len == 0)
                return;
        if (core->role == CORE_LEADER)
                log_append(core, core->meta.term, ENTRY_COMMAND, buffer_view(&core->batch));
        buffer_reset(&core->batch);
}

static enum err core_submit(void *engine, uint64_t now_ms, struct bytes command)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        if (command.len == 0 || command.len > CONSENSUS_COMMAND_BYTES_MAX)
                return ERR_INVALID;
        if (!core_active(core) || core->role != CORE_LEADER)
                return ERR_NOT_LEADER;
        if (core->transferee != 0 || log_stateless(core) ||
            log_last(core) - core->applied > BACKLOG_ENTRIES_MAX)
                return ERR_BUSY;
        if (core->batch.len + command.len + 10 > BATCH_BYTES_MAX)
                core_flush(core);
        size_t before = core->batch.len;
        buffer_slice(&core->batch, command);
        if (core->batch.err == ERR_NONE)
                return ERR_NONE;
        core->batch.err = ERR_NONE;
        core->batch.len = before;
        return ERR_NOMEM;
}

static void core_synced(void *engine, uint64_t now_ms, uint64_t generation, uint64_t offset)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        if (!core_active(core))
                return;
        compact_synced(core, generation, offset);
        if (generation != core->generation)
                return;
        if (offset > core->written)
                offset = core->written;
        if (offset > core->durable)
                core->durable = offset;
        core_advance(core);
}

static void core_failed(void *engine)
{
        core_fail(engine);
}

static enum err core_snapshot(void *engine, struct bytes state)
{
        struct core *core = engine;
        core_begin(core, core->now_ms);
        if (state.len == 0)
                return ERR_INVALID; /* no bytes are what a witness has for a state */
        return core_active(core) ? snapshot_take(core, state) : ERR_NONE;
}

static enum err core_snapshot_begin(void *engine)
{
        struct core *core = engine;
        core_begin(core, core->now_ms);
        return core_active(core) ? compact_mark(core) : ERR_BUSY;
}

static enum err core_snapshot_give(void *engine, struct buffer *state)
{
        struct core *core = engine;
        core_begin(core, core->now_ms);
        if (state->len == 0)
                return ERR_INVALID;
        return core_active(core) ? compact_give(core, state) : ERR_NOT_FOUND;
}

static void core_snapshot_drop(void *engine)
{
        struct core *core = engine;
        core_begin(core, core->now_ms);
        if (core->compaction.stage == COMPACT_MARKED)
                compact_drop(core);
}

static void core_restored(void *engine)
{
        struct core *core = engine;
        core_begin(core, core->now_ms);
        snapshot_drop(core, core->restoring);
        core->restoring = NULL;
        if (core_active(core))
                core_advance(core);
}

static enum err core_transfer(void *engine, uint64_t now_ms, uint32_t peer)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        if (!core_active(core) || core->role != CORE_LEADER)
                return ERR_NOT_LEADER;
        core_flush(core);
        return transfer_to(core, peer);
}

static enum err core_read(void *engine, uint64_t now_ms, uint64_t id, bool lease)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        return core_active(core) ? reads_add(core, id, lease) : ERR_NOT_LEADER;
}

static void core_peer_gone(void *engine, uint64_t now_ms, uint32_t peer)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        if (core_active(core))
                election_leader_gone(core, peer);
}

static void core_peer_back(void *engine, uint64_t now_ms, uint32_t peer)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        if (core_active(core))
                election_leader_back(core, peer);
}

static bool core_lease_held(const void *engine, uint64_t now_ms)
{
        const struct core *core = engine;
        return core_active(core) && replicate_lease(core, now_ms);
}

static enum err core_member_set(void *engine, uint64_t now_ms,
                                const struct consensus_member *member)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        return core_active(core) ? change_set(core, member) : ERR_NOT_LEADER;
}

static enum err core_member_remove(void *engine, uint64_t now_ms, uint32_t node)
{
        struct core *core = engine;
        core_begin(core, now_ms);
        return core_active(core) ? change_remove(core, node) : ERR_NOT_LEADER;
}

static size_t core_members(const void *engine, struct consensus_member *ret, size_t size)
{
        const struct core *core = engine;
        const struct regime *regime = log_regime(core);
        if (regime == NULL)
                return 0;
        for (size_t i = 0; i < regime->members.count && i < size; i++) {
                const struct member *member = &regime->members.items[i];
                ret[i] = (struct consensus_member){
                        .node = member->node,
                        .role = (enum consensus_member_role)member->role,
                        .wanted = (enum consensus_member_role)member->wanted,
                        .priority = member->priority,
                };
        }
        return regime->members.count;
}

const struct consensus_engine consensus_core = {
        .name = "core",
        .open = core_open,
        .close = core_close,
        .start = core_start,
        .tick = core_tick,
        .receive = core_receive,
        .submit = core_submit,
        .synced = core_synced,
        .fail = core_failed,
        .snapshot = core_snapshot,
        .snapshot_begin = core_snapshot_begin,
        .snapshot_give = core_snapshot_give,
        .snapshot_drop = core_snapshot_drop,
        .restored = core_restored,
        .transfer = core_transfer,
        .take = core_take,
        .status = core_status,
        .has_majority = core_has_majority,
        .read = core_read,
        .peer_gone = core_peer_gone,
        .peer_back = core_peer_back,
        .lease_held = core_lease_held,
        .member_set = core_member_set,
        .member_remove = core_member_remove,
        .members = core_members,
};
