/* Keys that move between the shards of one region, and a clock that all shards have passed.
 *
 * What is moved of a key is its metadata as a snapshot keeps it (CRDT_STATE_SAVED); the value goes
 * by the store's own means. The receiver takes it as it is: nothing that the sender had seen is
 * taken for deleted, and nothing of it for known.
 *
 *      shard A   ......k......|                     a batch of another region is on its way
 *      shard B   ..................|                 and is here already
 *      k moves   ......k......|<---                 B, too, is where A was; the batch comes again
 *
 * So what is between the level, where all shards are, and the own position may be merged into a
 * key that has it. Merging does not mind, as long as what a removal knew of it is remembered: so
 * what is beyond the level does not count as seen (struct crdt_env). */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"
#include "keyspace/shards.h"

enum err keyspace_mark(struct keyspace *keyspace, uint64_t wall_ms, uint64_t clock,
                       uint64_t *ret_position)
{
        enum err err = hlc_observe(&keyspace->hlc, clock, wall_ms, keyspace->config.drift_max_ms);
        if (err != ERR_NONE)
                return err;
        uint64_t position = keyspace_idle(keyspace, wall_ms);
        keyspace->given = position > keyspace->given ? position : keyspace->given;
        *ret_position = position;
        return ERR_NONE;
}

void keyspace_marked(struct keyspace *keyspace, uint64_t position)
{
        keyspace->hlc.last = position > keyspace->hlc.last ? position : keyspace->hlc.last;
        vector_advance(&keyspace->seen.vector, keyspace->config.origin, position);
}

enum err keyspace_join(struct keyspace *keyspace, uint64_t wall_ms, const struct vector *positions)
{
        enum err err = ERR_NONE;
        if (keyspace->table.count > 0)
                return ERR_REFUSED;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && err == ERR_NONE; i++)
                err = hlc_observe(&keyspace->hlc, positions->hlc[i], wall_ms,
                                  keyspace->config.drift_max_ms);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && err == ERR_NONE; i++) {
                if (i != keyspace->config.origin)
                        vector_advance(&keyspace->seen.vector, (region_id)i, positions->hlc[i]);
        }
        return err;
}

void keyspace_seen_out(const struct keyspace *keyspace, struct buffer *buffer)
{
        vector_encode(&keyspace->seen.vector, buffer);
}

/* What is in a hole is not claimed, so the position is below one that reaches beyond it. */
static void seen_lower(struct keyspace *keyspace, region_id origin, uint64_t position)
{
        struct crdt_seen *seen = &keyspace->seen;
        struct crdt_seen now = {.vector = seen->vector, .self = seen->self};
        uint64_t was = vector_get(&seen->vector, origin);
        vector_advance(&keyspace->hinted, origin, was);
        relay_forget(keyspace, origin, was);

        for (unsigned i = 0; i < seen->hole_count; i++) {
                const struct crdt_hole *hole = &seen->holes[i];
                if (hole->origin == origin && hole->high > position && hole->low < position)
                        position = hole->low;
        }
        for (unsigned i = 0; i < seen->hole_count; i++) {
                if (seen->holes[i].origin != origin || seen->holes[i].high <= position)
                        now.holes[now.hole_count++] = seen->holes[i];
        }
        now.vector.hlc[origin] = position;
        *seen = now;
        if (position < keyspace->level.hlc[origin])
                keyspace->level.hlc[origin] = position;
}

enum err keyspace_seen_in(struct keyspace *keyspace, struct bytes seen, bool *ret_less)
{
        struct vector theirs = {{0}};
        struct cursor cursor = cursor_of(seen);
        *ret_less = false;
        vector_decode(&cursor, &theirs);
        enum err err = cursor_done(&cursor);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && err == ERR_NONE; i++) {
                if (i == keyspace->config.origin ||
                    theirs.hlc[i] >= vector_get(&keyspace->seen.vector, (region_id)i))
                        continue;
                seen_lower(keyspace, (region_id)i, theirs.hlc[i]);
                *ret_less = true;
        }
        return err;
}

enum err keyspace_move_out(struct keyspace *keyspace, struct crdt_name name, struct buffer *buffer)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        if (entry == NULL)
                return ERR_NOT_FOUND;
        struct crdt_env env = keyspace_env(keyspace, NULL, entry_name(entry));
        return entry_encode(keyspace, entry, &env, CRDT_STATE_SAVED, buffer);
}

void keyspace_forget(struct keyspace *keyspace, struct crdt_name name)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        if (entry == NULL)
                return;
        entry_count(keyspace, entry_type(entry), CRDT_NONE);
        entry_remove(keyspace, entry);
}

enum err entry_take(struct keyspace *keyspace, const struct crdt_native *native,
                    const struct crdt_state *state)
{
        static const struct crdt_seen nothing;
        struct entry *entry = entry_get(keyspace, state->name);
        struct crdt *crdt = entry == NULL ? NULL : entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        struct crdt_env env = keyspace_env(keyspace, native, state->name);
        enum crdt_type was = crdt_type(crdt);
        env.seen = NULL;
        crdt_merge(&env, crdt, state, &nothing);
        crdt->touched = keyspace->hlc.last;
        entry_count(keyspace, was, crdt_type(crdt));
        entry_pack(keyspace, entry);
        return env.err;
}

enum err keyspace_move_in(struct keyspace *keyspace, const struct crdt_native *native,
                          struct bytes state)
{
        struct crdt_state decoded;
        struct cursor cursor = cursor_of(state);
        if (!crdt_state_decode(&cursor, CRDT_STATE_SAVED, keyspace->hlc.last, &decoded))
                return cursor.err;
        enum err err = cursor_done(&cursor);
        return err == ERR_NONE ? entry_take(keyspace, native, &decoded) : err;
}

uint64_t keyspace_clock(const struct keyspace *keyspace)
{
        return keyspace->hlc.last;
}

enum err keyspace_clock_observe(struct keyspace *keyspace, uint64_t wall_ms, uint64_t clock)
{
        return hlc_observe(&keyspace->hlc, clock, wall_ms, keyspace->config.drift_max_ms);
}
