/* A state takes the place of the log before it, in steps, while the journal goes on.
 *
 *   mark    the caller begins to put together the state as of `applied`
 *   give    it is whole: from now on it is what followers are sent
 *   SUM     its checksum, a piece at each take
 *   HEAD    the new journal begins beside the old one: header, term and vote, the record's head
 *   STATE   the state, a piece at each take, as fast as the disk says that pieces are durable
 *   ENTRIES the entries that are kept, and those that have come meanwhile
 *   swap    all of it is durable, and what is left is one piece: that goes with the wish that the
 *           new journal take the place of the old one
 *
 * Until then the old journal holds all that is promised, so a crash at any point loses nothing: the
 * new journal never was. From the swap on promises wait for it, as after log_rewrite, which drops
 * what is under way here. Without memory for a piece the old journal simply goes on.
 *
 * A leader's state that has arrived goes the same way from its sum on; no entries follow it
 * (snapshot.c has what its swap does). */
#include "base/check.h"
#include "base/hash.h"
#include "raft/core_priv.h"

enum {
        SUM_PIECES = 8, /* pieces that are summed at one take: memory is faster than a disk */
        AHEAD_PIECES = 8,
        TAIL_ENTRIES = 256, /* so few go with the swap: under load there are always some */
};

static uint64_t snapshot_index(const struct core *core)
{
        return core->snapshot == NULL ? 0 : core->snapshot->index;
}

enum err compact_mark(struct core *core)
{
        struct compaction *compaction = &core->compaction;
        uint64_t index = core->applied_taken;
        const struct regime *regime = snapshot_regime(core, index);
        /* The journal that has just taken another's place must be durable first. */
        if (compaction->stage != COMPACT_NONE || core->arrival.writing || core->pending_replace ||
            core->durable < core->base || log_stateless(core) || index <= snapshot_index(core) ||
            regime == NULL || log_term(core, index) == 0)
                return ERR_BUSY;
        *compaction = (struct compaction){
                .stage = COMPACT_MARKED,
                .index = index,
                .term = log_term(core, index),
                .members_index = regime->index,
                .members = regime->members,
        };
        buffer_init(&compaction->piece, core->heap);
        return ERR_NONE;
}

void compact_drop(struct core *core)
{
        struct compaction *compaction = &core->compaction;
        if (compaction->stage == COMPACT_NONE)
                return;
        bool arrived = compaction->arrived;
        snapshot_drop(core, compaction->made);
        buffer_fini(&compaction->piece);
        *compaction = (struct compaction){0};
        if (arrived)
                arrival_close(core);
}

/* What a buffer held, without what it had in reserve. */
static struct bytes buffer_give(struct buffer *state)
{
        struct bytes data = buffer_view(state);
        uint8_t *less = heap_resize(state->heap, state->ptr, state->len);
        if (less != NULL)
                data.ptr = less;
        buffer_init(state, state->heap);
        return data;
}

enum err compact_give(struct core *core, struct buffer *state)
{
        struct compaction *compaction = &core->compaction;
        if (compaction->stage != COMPACT_MARKED)
                return ERR_NOT_FOUND;
        enum err err = state->len > core->config.snapshot_bytes_max ? ERR_LIMIT : ERR_NONE;
        struct snapshot *made = NULL;
        if (err == ERR_NONE) {
                made = snapshot_new(core, compaction->index, buffer_give(state));
                err = made == NULL ? ERR_NOMEM : ERR_NONE;
        }
        if (err != ERR_NONE) {
                compact_drop(core);
                return err;
        }
        made->term = compaction->term;
        made->members_index = compaction->members_index;
        made->members = compaction->members;
        snapshot_drop(core, core->snapshot);
        core->snapshot = made;
        compaction->made = snapshot_hold(made);
        compaction->stage = COMPACT_SUM;
        compaction->generation = ++core->generation_last;
        compaction->next = snapshot_keep(core, made->index);
        if (compaction->next < core->entries.first)
                compaction->next = core->entries.first;
        return ERR_NONE;
}

void compact_arrived(struct core *core, struct snapshot *made)
{
        struct compaction *compaction = &core->compaction;
        compact_drop(core);
        *compaction = (struct compaction){
                .stage = COMPACT_SUM,
                .arrived = true,
                .index = made->index,
                .term = made->term,
                .members_index = made->members_index,
                .members = made->members,
                .made = made,
                .generation = ++core->generation_last,
                .next = made->index + 1,
        };
        buffer_init(&compaction->piece, core->heap);
}

void compact_cut(struct core *core, uint64_t index)
{
        if (core->compaction.next > index && !core->compaction.arrived)
                core->compaction.next = index;
}

/* The last entry that the new journal has to hold. */
static uint64_t entries_end(const struct core *core)
{
        return core->compaction.arrived ? core->compaction.index : log_last(core);
}

void compact_synced(struct core *core, uint64_t generation, uint64_t offset)
{
        struct compaction *compaction = &core->compaction;
        if (compaction->stage < COMPACT_HEAD || generation != compaction->generation)
                return;
        if (offset > compaction->written)
                offset = compaction->written;
        if (offset > compaction->durable)
                compaction->durable = offset;
}

/* ---- pieces ---- */

static struct journal_snapshot record_of(const struct snapshot *made, const struct buffer *members)
{
        return (struct journal_snapshot){
                .index = made->index,
                .term = made->term,
                .configuration_index = made->members_index,
                .configuration = buffer_view(members),
                .state = made->state,
        };
}

/* A witness's state is empty, and has no memory. */
static struct bytes state_at(struct bytes state, size_t at, size_t len)
{
        return len == 0 ? (struct bytes){0} : bytes_of(state.ptr + at, len);
}

/* The record's head is written when its sum is known. */
static void sum(struct core *core)
{
        struct compaction *compaction = &core->compaction;
        struct bytes state = compaction->made->state;
        size_t len = state.len - compaction->done;
        size_t most = SUM_PIECES * core->config.piece_bytes;
        len = len > most ? most : len;
        struct bytes piece = state_at(state, compaction->done, len);
        if (compaction->done == 0) {
                struct buffer members;
                buffer_init(&members, core->heap);
                members_encode(&compaction->members, &members);
                struct journal_snapshot record = record_of(compaction->made, &members);
                buffer_reset(&compaction->piece);
                journal_write_snapshot_head(&compaction->piece, 0, &record);
                if (members.err != ERR_NONE)
                        compaction->piece.err = members.err;
                buffer_fini(&members);
                compaction->sum = journal_sum_begin(buffer_view(&compaction->piece));
        }
        compaction->sum = hash_crc32c(compaction->sum, piece);
        compaction->state_sum = hash_crc32c(compaction->state_sum, piece);
        compaction->done += len;
        if (compaction->done < state.len)
                return;
        compaction->made->crc = compaction->state_sum;
        compaction->made->crc_known = true;
        compaction->done = 0;
        compaction->stage = COMPACT_HEAD;
}

static struct bytes head(struct core *core)
{
        struct compaction *compaction = &core->compaction;
        struct journal_identity identity = log_identity(core);
        struct buffer record = compaction->piece;
        if (record.err == ERR_NONE)
                buffer_patch_u32(&record, 0, compaction->sum);
        buffer_init(&compaction->piece, core->heap);
        journal_write_header(&compaction->piece, &identity);
        log_meta_write(core, 0, &compaction->piece);
        buffer_bytes(&compaction->piece, buffer_view(&record));
        if (record.err != ERR_NONE)
                compaction->piece.err = record.err;
        buffer_fini(&record);
        compaction->stage = COMPACT_STATE;
        return buffer_view(&compaction->piece);
}

static struct bytes state_piece(struct core *core)
{
        struct compaction *compaction = &core->compaction;
        struct bytes state = compaction->made->state;
        size_t len = state.len - compaction->done;
        len = len > core->config.piece_bytes ? core->config.piece_bytes : len;
        struct bytes piece = state_at(state, compaction->done, len);
        compaction->done += len;
        if (compaction->done == state.len)
                compaction->stage = COMPACT_ENTRIES;
        return piece;
}

/* Entries of a higher term than the last term written need that before them. */
static struct bytes entries_piece(struct core *core)
{
        struct compaction *compaction = &core->compaction;
        struct buffer *out = &compaction->piece;
        uint64_t last = entries_end(core);
        buffer_reset(out);
        log_meta_write(core, 0, out);
        for (; compaction->next <= last && out->len < core->config.piece_bytes;
             compaction->next++) {
                const struct entry *entry = entries_at(&core->entries, compaction->next);
                CHECK(entry != NULL);
                journal_write_entry(out, 0,
                                    &(struct journal_entry){
                                            .index = compaction->next,
                                            .term = entry->term,
                                            .type = entry->type,
                                            .data = entry->data,
                                    });
        }
        return buffer_view(out);
}

static void swap(struct core *core, struct bytes piece)
{
        struct compaction *compaction = &core->compaction;
        uint64_t keep = snapshot_keep(core, compaction->index);
        if (keep > core->entries.first)
                entries_trim(&core->entries, keep);
        log_swap(core, compaction->generation, compaction->written, piece);
        compact_drop(core);
}

/* ---- at a take ---- */

bool compact_due(const struct core *core)
{
        const struct compaction *compaction = &core->compaction;
        uint64_t ahead = compaction->written - compaction->durable;
        /* A candidate's log stays as it is: who wins has the state's last entry in it. */
        bool stands = core->role == CORE_PROSPECT || core->role == CORE_CANDIDATE;
        if (compaction->stage == COMPACT_ENTRIES &&
            compaction->next + TAIL_ENTRIES > entries_end(core))
                return ahead == 0 && !(compaction->arrived && stands);
        /* A journal that has just taken another's place must be durable first. */
        if (compaction->stage == COMPACT_HEAD)
                return core->durable >= core->base;
        return compaction->stage == COMPACT_SUM ||
               (compaction->stage > COMPACT_SUM && ahead < AHEAD_PIECES * core->config.piece_bytes);
}

void compact_take(struct core *core, struct consensus_write *ret)
{
        struct compaction *compaction = &core->compaction;
        struct bytes piece = {0};
        ret->data = piece;
        if (compaction->stage == COMPACT_SUM)
                sum(core);
        if (!compact_due(core) || compaction->stage < COMPACT_HEAD || core->pending_replace)
                return;
        bool durable = compaction->written == compaction->durable;
        bool ends = compaction->stage == COMPACT_ENTRIES;
        if (compaction->stage == COMPACT_HEAD)
                piece = head(core);
        else if (compaction->stage == COMPACT_STATE)
                piece = state_piece(core);
        else
                piece = entries_piece(core);
        if (compaction->piece.err != ERR_NONE) {
                compact_drop(core);
                return;
        }
        if (ends && durable && compaction->next > entries_end(core)) {
                if (compaction->arrived)
                        arrival_swap(core, piece);
                else
                        swap(core, piece);
                return;
        }
        *ret = (struct consensus_write){
                .kind = CONSENSUS_ASIDE,
                .generation = compaction->generation,
                .offset = compaction->written,
                .data = piece,
        };
        compaction->written += piece.len;
}
