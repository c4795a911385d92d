/* State transfer: the sender walks its table (scan.c), the receiver merges key by key.
 *
 * A part of a state:
 *
 *      u8      format version
 *      u8      origin of the sender
 *      u64     name of the sender's table: parts with different names are of different scans
 *      u64     cursor from which this part was made, 0: the first
 *      u64     cursor to go on with, 0: the last
 *      u64     the sender's clock: no stamp in this part is later
 *      holes   varint count, (u8 origin, u64 low, u64 high) each
 *      vector  the sender's positions now
 *      vector  up to where it may have more than it claims, see keyspace_hole
 *      flushes that the sender remembers, as in flush.c
 *      keys    as in crdt/state.c, to the end; a large one in slices, over several parts
 *
 * Each part is judged by the vector that came with it. The vector of the first part is what the
 * receiver takes over at the end, since every later part includes it. A key that no part has
 * mentioned is not at the sender, whether never, or deleted and collected: of its content here,
 * what the sender had seen at the begin is dead, and the rest stays. This holds only if every part
 * has been merged in order, which the cursors prove. The same goes for the slices of one key. */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"
#include "keyspace/shards.h"

enum {
        ROUND_MAX = 255,
};

/* ---- the receiver */

struct part {
        struct crdt_seen sender;
        struct vector hinted;
        uint64_t table_id;
        uint64_t from;
        uint64_t to;
        uint64_t hlc;
        struct bytes flushes;
};

static enum err part_decode(struct cursor *cursor, struct part *ret)
{
        struct part part = {0};
        uint8_t version = cursor_u8(cursor);
        if (!cursor_failed(cursor) && version != TRANSFER_VERSION && version != TRANSFER_SLICED)
                return ERR_VERSION;
        region_id origin = cursor_u8(cursor);
        part.table_id = cursor_u64(cursor);
        part.from = cursor_u64(cursor);
        part.to = cursor_u64(cursor);
        part.hlc = cursor_u64(cursor);
        crdt_seen_decode(cursor, origin, &part.sender);
        vector_decode(cursor, &part.hinted);
        part.flushes = flushes_check(cursor);
        if (!cursor_failed(cursor) && !region_valid(origin))
                cursor_fail(cursor, ERR_MALFORMED);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (part.sender.vector.hlc[i] > part.hlc)
                        cursor_fail(cursor, ERR_MALFORMED);
        }
        *ret = part;
        return cursor->err;
}

static bool round_clear(void *context, struct node *node)
{
        (void)context;
        entry_of(node)->round = 0;
        return false;
}

static void transfer_begin(struct keyspace *keyspace, const struct part *part)
{
        struct transfer *transfer = &keyspace->transfer;
        uint8_t round = transfer->round;
        if (round == ROUND_MAX) {
                table_sweep(&keyspace->table, round_clear, NULL);
                round = 0;
        }
        *transfer = (struct transfer){.sender = part->sender,
                                      .table_id = part->table_id,
                                      .round = (uint8_t)(round + 1),
                                      .under_way = true};
}

/* ---- parts that pass through (shards.h) */

enum err shards_part_read(struct bytes data, struct shards_part *ret)
{
        struct part part;
        struct cursor cursor = cursor_of(data);
        enum err err = part_decode(&cursor, &part);
        if (err != ERR_NONE)
                return err;
        *ret = (struct shards_part){.sliced = data.ptr[0] == TRANSFER_SLICED,
                                    .origin = part.sender.self,
                                    .table_id = part.table_id,
                                    .from = part.from,
                                    .to = part.to,
                                    .hlc = part.hlc,
                                    .seen = part.sender,
                                    .hinted = part.hinted,
                                    .flushes = part.flushes};
        ret->keys = bytes_of(cursor.at, cursor_left(&cursor));
        return ERR_NONE;
}

void shards_part_write(const struct shards_part *part, struct buffer *buffer)
{
        buffer_u8(buffer, part->sliced ? TRANSFER_SLICED : TRANSFER_VERSION);
        buffer_u8(buffer, part->origin);
        buffer_u64(buffer, part->table_id);
        buffer_u64(buffer, part->from);
        buffer_u64(buffer, part->to);
        buffer_u64(buffer, part->hlc);
        crdt_seen_encode(&part->seen, buffer);
        vector_encode(&part->hinted, buffer);
        if (part->flushes.len > 0)
                buffer_bytes(buffer, part->flushes);
        else
                buffer_varint(buffer, 0);
        buffer_bytes(buffer, part->keys);
}

/* Whether this part is the next of the scan that is being received. */
static bool transfer_follows(const struct transfer *transfer, const struct part *part)
{
        return transfer->under_way && !transfer->whole && transfer->next == part->from &&
               transfer->table_id == part->table_id && transfer->sender.self == part->sender.self &&
               vector_includes(&part->sender.vector, &transfer->sender.vector);
}

/* A slice that does not follow the one before it has lost its transfer: what no slice has named may
 * be in one that never came. */
static void slice_follow(struct keyspace *keyspace, struct crdt *crdt, struct crdt_state *state,
                         uint64_t hash)
{
        struct transfer *transfer = &keyspace->transfer;
        if (state->mark.first) {
                transfer->slicing = transfer->slice_open = true;
                transfer->slice_hash = hash;
        } else if (!transfer->slicing || transfer->slice_hash != hash ||
                   (crdt->round != transfer->slice_round && crdt->round != 0)) {
                transfer->under_way = false;
        } else {
                /* All of it went here since: nothing that is marked is left. */
                crdt->round = transfer->slice_round;
        }
        state->begin = transfer->under_way ? &transfer->sender : NULL;
}

bool transfer_told(struct keyspace *keyspace, const struct entry *entry,
                   const struct crdt_delta *delta)
{
        struct transfer *transfer = &keyspace->transfer;
        if (!transfer->under_way || entry->round != transfer->round ||
            delta->stamp.origin == keyspace->config.origin ||
            !crdt_seen_covers(&transfer->sender, delta->stamp))
                return false;
        if (!transfer->slice_open ||
            keyspace_name_hash(keyspace, delta->name) != transfer->slice_hash)
                return true;
        /* Some of the key is still to come: that one must be told from its first slice again. */
        transfer->slicing = false;
        return false;
}

/* The last slice, or the whole in place of it. */
static void slice_end(struct transfer *transfer, const struct crdt *crdt,
                      const struct crdt_state *state, uint64_t hash)
{
        if (state->mark.there)
                transfer->slice_round = crdt->round;
        if (state->mark.there ? !state->mark.last : hash != transfer->slice_hash)
                return;
        transfer->slicing = transfer->slice_open = false;
}

static enum err merge_key(struct keyspace *keyspace, const struct crdt_native *native,
                          struct cursor *cursor, const struct part *part,
                          struct keyspace_result *ret)
{
        struct crdt_state state;
        if (!crdt_state_decode(cursor, CRDT_STATE_VALUES, part->hlc, &state))
                return cursor->err == ERR_REFUSED ? ERR_MALFORMED : cursor->err;
        struct entry *entry = entry_get(keyspace, state.name);
        struct crdt *crdt = entry == NULL ? NULL : entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        entry->round = keyspace->transfer.round;
        struct crdt_env env = keyspace_env(keyspace, native, state.name);
        if (state.hll_there || crdt->hll != NULL || state.head.last[CRDT_HLL].hlc != 0)
                env.stable = keyspace_kills_known(keyspace);
        enum crdt_type was = crdt_type(crdt);
        uint64_t hash = keyspace_name_hash(keyspace, state.name);
        if (state.mark.there)
                slice_follow(keyspace, crdt, &state, hash);
        crdt_merge(&env, crdt, &state, &part->sender);
        slice_end(&keyspace->transfer, crdt, &state, hash);
        ret->applied++;
        ret->conflicts += env.conflicts;
        keyspace->stats.conflicts += env.conflicts;
        entry_count(keyspace, was, crdt_type(crdt));
        entry_pack(keyspace, entry);
        return env.err != ERR_NONE ? env.err : flushes_again(keyspace, native, entry);
}

enum err keyspace_merge_state(struct keyspace *keyspace, const struct crdt_native *native,
                              uint64_t wall_ms, struct bytes state, struct keyspace_result *ret)
{
        struct part part;
        struct transfer *transfer = &keyspace->transfer;
        struct cursor cursor = cursor_of(state);
        *ret = (struct keyspace_result){0};
        enum err err = part_decode(&cursor, &part);
        if (err != ERR_NONE)
                return err;
        if (part.sender.self == keyspace->config.origin ||
            (keyspace->members != 0 && !member_is(keyspace, part.sender.self)))
                return ERR_INVALID;
        err = hlc_observe(&keyspace->hlc, part.hlc, wall_ms, keyspace->config.drift_max_ms);
        if (err != ERR_NONE) {
                keyspace->stats.refused++;
                return err;
        }
        vector_merge(&keyspace->hinted, &part.sender.vector);
        vector_merge(&keyspace->hinted, &part.hinted);
        if (part.from == 0)
                transfer_begin(keyspace, &part);
        else
                transfer->under_way = transfer_follows(transfer, &part);
        err = flushes_merge(keyspace, native, part.flushes);
        while (err == ERR_NONE && cursor_left(&cursor) > 0)
                err = merge_key(keyspace, native, &cursor, &part, ret);
        transfer->next = part.to;
        transfer->under_way = transfer->under_way && err == ERR_NONE;
        transfer->whole = transfer->under_way && part.to == 0;
        ret->broken = err == ERR_NONE && !transfer->under_way;
        ret->position = vector_get(&keyspace->seen.vector, part.sender.self);
        return err;
}

void keyspace_state_names(struct bytes state, void (*each)(void *context, struct crdt_name name),
                          void *context)
{
        struct part part;
        struct crdt_state one;
        struct cursor cursor = cursor_of(state);
        if (part_decode(&cursor, &part) != ERR_NONE)
                return;
        while (cursor_left(&cursor) > 0 &&
               crdt_state_decode(&cursor, CRDT_STATE_VALUES, part.hlc, &one))
                each(context, one.name);
}

bool keyspace_resume(const struct keyspace *keyspace, struct keyspace_resume *ret)
{
        const struct transfer *transfer = &keyspace->transfer;
        region_id origin = transfer->sender.self;
        if (!transfer->under_way || transfer->whole)
                return false;
        *ret = (struct keyspace_resume){.origin = origin,
                                        .table = transfer->table_id,
                                        .cursor = transfer->next,
                                        .position = vector_get(&transfer->sender.vector, origin)};
        return true;
}

uint64_t keyspace_state_table(struct bytes state)
{
        struct part part;
        struct cursor cursor = cursor_of(state);
        return part_decode(&cursor, &part) == ERR_NONE ? part.table_id : 0;
}

struct absent {
        struct keyspace *keyspace;
        const struct crdt_native *native;
        struct keyspace_result *result;
        enum err err;
};

/* The content of a key that the sender does not have. */
static bool absent_entry(void *context, struct node *node)
{
        struct absent *absent = context;
        struct keyspace *keyspace = absent->keyspace;
        const struct transfer *transfer = &keyspace->transfer;
        struct entry *entry = entry_of(node);
        bool mentioned = entry->round == transfer->round;
        entry->round = 0;
        enum crdt_type was = entry_type(entry);
        if (mentioned || was == CRDT_NONE || absent->err != ERR_NONE)
                return false;
        if (entry->node.kind == ENTRY_STRING &&
            !crdt_seen_covers(&transfer->sender, entry_stamp(entry)))
                return false;
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL) {
                absent->err = ERR_NOMEM;
                return false;
        }
        struct crdt_env env = keyspace_env(keyspace, absent->native, entry_name(entry));
        struct crdt_state nothing = {.name = env.name, .kind = CRDT_STATE_VALUES};
        crdt_merge(&env, crdt, &nothing, &transfer->sender);
        absent->result->applied++;
        absent->err = env.err;
        entry_count(keyspace, was, crdt_type(crdt));
        entry_pack(keyspace, entry);
        return false;
}

enum err keyspace_adopt(struct keyspace *keyspace, const struct crdt_native *native,
                        const struct vector *positions, struct keyspace_result *ret)
{
        struct transfer *transfer = &keyspace->transfer;
        const struct vector *theirs = &transfer->sender.vector;
        *ret = (struct keyspace_result){0};
        if (!transfer->whole)
                return ERR_REFUSED;
        if (positions != NULL && !vector_includes(theirs, positions))
                return ERR_INVALID;
        struct absent absent = {keyspace, native, ret, ERR_NONE};
        table_sweep(&keyspace->table, absent_entry, &absent);
        transfer->whole = false;
        transfer->under_way = false;
        if (absent.err != ERR_NONE)
                return absent.err;
        keyspace_learn(keyspace, &transfer->sender);
        vector_merge(&keyspace->known[transfer->sender.self], theirs);
        /* What it has told of the members meanwhile is not in a state. */
        keyspace->gone[transfer->sender.self] = (struct crdt_gone){0};
        ret->position = vector_get(&keyspace->seen.vector, transfer->sender.self);
        return ERR_NONE;
}
