/* Changes made elsewhere, the log of our own, and our stream for others.
 *
 * A batch says what it follows (`after`) and how far it reaches (`last`). A delta at
 * or below the position is known already; a batch that begins beyond the position
 * leaves a gap and is not read. An origin of several shards may have given one clock to deltas of
 * different keys: they come together in one batch, so the position moves to a clock only when the
 * next one is larger.
 *
 * Of several servers of a region, each is sent its part of every batch, and `after` is where the
 * last of them is: that is the level, beyond which a batch may come once more (move.c). */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"

/* The short way: a SET or DEL of a key that never was anything but a plain string. False where it
 * does not apply. */
static bool merge_plain(struct keyspace *keyspace, const struct crdt_native *native,
                        struct entry *entry, const struct crdt_delta *delta,
                        struct crdt_conflict *found)
{
        bool set = delta->op == CRDT_OP_SET;
        if (entry->node.kind != ENTRY_STRING || !(set || delta->op == CRDT_OP_DEL) ||
            delta->cuts.len > 0 || delta->bounds.len > 0 || delta->elements.len > 0 ||
            delta->scores.len > 0)
                return false;
        if (!stamp_before(entry_stamp(entry), delta->stamp)) {
                if (set && found != NULL && entry->origin == keyspace->config.origin)
                        *found = (struct crdt_conflict){.kind = CRDT_CONFLICT_VALUE,
                                                        .name = delta->name,
                                                        .lost = delta->stamp,
                                                        .won = entry_stamp(entry),
                                                        .value = delta->value,
                                                        .count = 1};
                return true;
        }
        entry_count(keyspace, entry_type(entry), set ? CRDT_STRING : CRDT_NONE);
        if (set) {
                entry->more = delta->expire_at_ms;
                if (native != NULL)
                        native->string_set(native->context, delta->name, delta->value,
                                           delta->expire_at_ms);
        } else {
                if (native != NULL && entry->hlc != 0)
                        native->key_delete(native->context, delta->name);
                entry->node.kind = ENTRY_DEAD;
                entry->more = entry->hlc;
                entry->more_origin = entry->origin;
        }
        entry->hlc = delta->stamp.hlc;
        entry->origin = delta->stamp.origin;
        return true;
}

enum err keyspace_merge(struct keyspace *keyspace, const struct crdt_native *native,
                        const struct crdt_delta *delta)
{
        if (native != NULL && native->begin != NULL)
                native->begin(native->context, delta);
        if (delta->op == CRDT_OP_SEEN) {
                vector_merge(&keyspace->known[delta->stamp.origin], &delta->seen);
                if (delta->gone.len > 0)
                        crdt_gone_read(delta->gone, &keyspace->gone[delta->stamp.origin]);
                return ERR_NONE;
        }
        if (delta->op == CRDT_OP_FLUSH)
                return flush_merge(keyspace, native, delta);
        if (delta->op == CRDT_OP_LIFE) {
                keyspace_lived(keyspace, delta);
                return ERR_NONE;
        }
        if (delta->op == CRDT_OP_EVENT) {
                if (native != NULL && native->event != NULL)
                        native->event(native->context, delta);
                return ERR_NONE;
        }
        struct entry *entry = entry_get(keyspace, delta->name);
        if (entry == NULL)
                return ERR_NOMEM;
        struct crdt_delta takes;
        if (transfer_told(keyspace, entry, delta)) {
                if (!crdt_delta_takes(delta, &takes))
                        return ERR_NONE;
                delta = &takes;
        }
        bool asked = keyspace->found != NULL && !keyspace->quiet &&
                     delta->stamp.origin != keyspace->config.origin;
        struct crdt_conflict found = {0};
        if (merge_plain(keyspace, native, entry, delta, asked ? &found : NULL)) {
                if (found.kind != CRDT_CONFLICT_NONE)
                        keyspace->found(keyspace->found_context, &found);
                return flushes_again(keyspace, native, entry);
        }
        struct crdt_env env = keyspace_env(keyspace, native, delta->name);
        if (entry->node.kind == ENTRY_PACK) {
                enum crdt_type before = crdt_pack_type(entry->pack);
                bool done = crdt_pack_apply(&env, &entry->pack, entry_stamp(entry), delta);
                entry_count(keyspace, before, crdt_pack_type(entry->pack));
                if (done) {
                        entry_raise(entry, delta->stamp);
                        return flushes_again(keyspace, native, entry);
                }
        }
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        if (delta->op == CRDT_OP_HLL || crdt->hll != NULL)
                env.stable = keyspace_kills_known(keyspace);
        enum crdt_type was = crdt_type(crdt);
        env.conflict = asked ? &found : NULL;
        env.text_before = keyspace->replay_before;
        crdt_apply(&env, crdt, delta);
        if (found.kind != CRDT_CONFLICT_NONE)
                keyspace->found(keyspace->found_context, &found);
        keyspace->stats.conflicts += env.conflicts;
        entry_count(keyspace, was, crdt_type(crdt));
        entry_pack(keyspace, entry);
        return env.err != ERR_NONE ? env.err : flushes_again(keyspace, native, entry);
}

/* What a batch is read with. */
struct apply {
        struct keyspace *keyspace;
        const struct crdt_native *native;
        region_id origin;
        uint64_t last;
        uint64_t wall_ms;
        bool logged;      /* from the log: no clock is refused */
        uint64_t reached; /* clock of the last delta that was merged; 0: none yet */
};

static enum err apply_observe(const struct apply *apply, uint64_t hlc)
{
        struct keyspace *keyspace = apply->keyspace;
        uint64_t wall_ms = apply->logged ? hlc_ms(hlc) : apply->wall_ms;
        return hlc_observe(&keyspace->hlc, hlc, wall_ms, keyspace->config.drift_max_ms);
}

/* No more of that clock will come. */
static void apply_reach(const struct apply *apply)
{
        vector_advance(&apply->keyspace->seen.vector, apply->origin, apply->reached);
}

static enum err apply_delta(struct apply *apply, struct bytes data, struct keyspace_result *ret)
{
        struct crdt_delta delta;
        struct keyspace *keyspace = apply->keyspace;
        enum err err = crdt_delta_decode(data, apply->origin, &delta);
        if (err != ERR_NONE)
                return err;
        if (delta.op == CRDT_OP_LIFE && delta.life == CRDT_LIFE_RESERVED)
                return keyspace_merge(keyspace, apply->native, &delta);
        if (delta.stamp.hlc > apply->last)
                return ERR_MALFORMED;
        if (delta.stamp.hlc <= vector_get(&keyspace->seen.vector, apply->origin) ||
            delta.stamp.hlc < apply->reached) {
                ret->skipped++;
                return ERR_NONE;
        }
        if (delta.stamp.hlc > apply->reached)
                apply_reach(apply);
        err = apply_observe(apply, delta.stamp.hlc);
        if (err == ERR_NONE)
                err = keyspace_merge(keyspace, apply->native, &delta);
        if (err != ERR_NONE)
                return err;
        apply->reached = delta.stamp.hlc;
        if (apply->origin != keyspace->config.origin)
                relay_append(keyspace, apply->origin, delta.stamp.hlc, data);
        ret->applied++;
        return ERR_NONE;
}

static enum err apply_batch(struct apply *apply, struct bytes deltas, struct keyspace_result *ret)
{
        struct cursor cursor = cursor_of(deltas);
        enum err err = ERR_NONE;
        while (err == ERR_NONE && cursor_left(&cursor) > 0) {
                struct bytes delta = cursor_slice(&cursor);
                err = cursor_failed(&cursor) ? cursor.err : apply_delta(apply, delta, ret);
        }
        apply_reach(apply);
        if (err == ERR_NONE)
                err = apply_observe(apply, apply->last);
        if (err == ERR_NONE)
                vector_advance(&apply->keyspace->seen.vector, apply->origin, apply->last);
        return err;
}

static enum err apply_run(struct apply *apply, uint64_t after, struct bytes deltas,
                          struct keyspace_result *ret)
{
        struct keyspace *keyspace = apply->keyspace;
        if (after <= ret->position)
                vector_advance(&keyspace->level, apply->origin, after);
        uint64_t conflicts = keyspace->stats.conflicts;
        keyspace->quiet = apply->logged;
        enum err err = apply_batch(apply, deltas, ret);
        ret->conflicts = keyspace->stats.conflicts - conflicts;
        ret->position = vector_get(&keyspace->seen.vector, apply->origin);
        keyspace->stats.applied += ret->applied;
        keyspace->stats.skipped += ret->skipped;
        keyspace->stats.refused += err == ERR_REFUSED;
        return err;
}

static bool origin_foreign(const struct keyspace *keyspace, region_id origin)
{
        return region_valid(origin) && origin != keyspace->config.origin;
}

/* A region that was removed is heard no more: nothing waits for what it has seen. */
static bool origin_heard(const struct keyspace *keyspace, region_id origin)
{
        return origin_foreign(keyspace, origin) &&
               (keyspace->members == 0 || member_is(keyspace, origin));
}

enum err keyspace_apply(struct keyspace *keyspace, const struct crdt_native *native,
                        uint64_t wall_ms, region_id origin, uint64_t after, uint64_t last,
                        struct bytes deltas, struct keyspace_result *ret)
{
        *ret = (struct keyspace_result){.position = vector_get(&keyspace->seen.vector, origin)};
        if (!origin_heard(keyspace, origin) || last < after)
                return ERR_INVALID;
        if (after > ret->position) {
                ret->gap = true;
                return ERR_NONE;
        }
        struct apply apply = {keyspace, native, origin, last, wall_ms, false, 0};
        return apply_run(&apply, after, deltas, ret);
}

enum err keyspace_apply_logged(struct keyspace *keyspace, const struct crdt_native *native,
                               region_id origin, uint64_t after, uint64_t last, struct bytes deltas,
                               struct keyspace_result *ret)
{
        *ret = (struct keyspace_result){.position = vector_get(&keyspace->seen.vector, origin)};
        if (!origin_foreign(keyspace, origin))
                return ERR_INVALID;
        struct apply apply = {keyspace, native, origin, last, 0, true, 0};
        return apply_run(&apply, after, deltas, ret);
}

enum err keyspace_replay(struct keyspace *keyspace, const struct crdt_native *native,
                         struct bytes delta, struct bytes before, struct keyspace_result *ret)
{
        region_id self = keyspace->config.origin;
        struct apply apply = {keyspace, native, self, UINT64_MAX, 0, true, 0};
        uint64_t conflicts = keyspace->stats.conflicts;
        *ret = (struct keyspace_result){0};
        keyspace->replay_before = before;
        enum err err = apply_delta(&apply, delta, ret);
        keyspace->replay_before = (struct bytes){0};
        apply_reach(&apply);
        ret->position = vector_get(&keyspace->seen.vector, self);
        ret->conflicts = keyspace->stats.conflicts - conflicts;
        if (err != ERR_NONE || ret->applied == 0)
                return err;
        uint8_t *at = ring_append(&keyspace->ring, ret->position, delta.len);
        if (at != NULL)
                memcpy(at, delta.ptr, delta.len);
        return ERR_NONE;
}

/* ---- our stream */

/* A reader that knows more of our stream than this life has given out knows it from a life that a
 * crash ended. What we have stamped since at or below that, it would take for known. */
static bool tail_of_older_life(const struct keyspace *keyspace, uint64_t after)
{
        return keyspace->issued && after >= keyspace->first && after > keyspace->given;
}

/* A reader below what is collected has lost what it had told: the state tells it what is gone. */
enum err keyspace_tail(struct keyspace *keyspace, uint64_t wall_ms, uint64_t after,
                       size_t bytes_max, struct keyspace_batch *ret)
{
        *ret = (struct keyspace_batch){.last = after};
        if (hlc_observe(&keyspace->hlc, after, wall_ms, keyspace->config.drift_max_ms) != ERR_NONE)
                return ERR_REFUSED;
        if (after < keyspace->ring.dropped || after < keyspace->collected_to ||
            tail_of_older_life(keyspace, after)) {
                ret->gap = true;
                keyspace->given = after > keyspace->given ? after : keyspace->given;
                return ERR_NONE;
        }
        struct ring_read read = ring_read(&keyspace->ring, after, bytes_max);
        ret->parts[0] = read.parts[0];
        ret->parts[1] = read.parts[1];
        ret->count = read.count;
        ret->last = read.last;
        keyspace->given = read.last > keyspace->given ? read.last : keyspace->given;
        return ERR_NONE;
}
