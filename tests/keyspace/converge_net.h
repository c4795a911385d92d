/* converge_net.h - how changes travel in random histories, and what goes wrong: late and repeated
 * batches, state transfers, restarts, crashes, a removed region. In test_converge.c. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_NET_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_NET_H

#include "converge_whole.h"

/* ---- delivery */

static void transfer(struct world *world, unsigned from, unsigned to, bool busy);

/* The last replica is removed, or not there yet, as one of the two knows. */
static bool apart(const struct world *world, unsigned from, unsigned to)
{
        unsigned last = world->count - 1;
        return (from == last && world->replicas[to].alone) ||
               (to == last && world->replicas[from].alone);
}

static void give(struct replica *from, uint64_t last)
{
        from->given = last > from->given ? last : from->given;
}

static void hand_over(struct world *world, const struct batch *batch)
{
        struct replica *to = &world->replicas[batch->to];
        give(&world->replicas[batch->from], batch->last);
        struct keyspace_result result;
        strike_before_change(world, to);
        TRACE(to, "merges from %u: %llu to %llu", batch->from + 1, (unsigned long long)batch->after,
              (unsigned long long)batch->last);
        enum err err = keyspace_apply(to->keyspace, &to->native, wall(world, to),
                                      (region_id)(batch->from + 1), batch->after, batch->last,
                                      batch->data, &result);
        DEMAND(world, err == ERR_NONE);
        agree(world, to);
}

static void batch_free(struct world *world, struct batch *batch)
{
        heap_free_bytes(&world->heap, batch->data);
        *batch = (struct batch){0};
}

/* Before anything is given out, no stamp is beyond what is kept for the next life. */
static void reserve(struct world *world, struct replica *replica)
{
        struct keyspace_change change;
        DEMAND(world,
               keyspace_reserve(replica->keyspace, wall(world, replica), &change) == ERR_NONE);
        if (change.nothing)
                return;
        CHECK(change.delta.len <= sizeof replica->reserved);
        memcpy(replica->reserved, change.delta.ptr, change.delta.len);
        replica->reserved_len = change.delta.len;
}

/* The stream of `from` as another one has it. */
static void ship_round(struct world *world, unsigned from, unsigned to)
{
        struct keyspace_batch read;
        unsigned by = (unsigned)rng_below(&world->rng, world->count);
        struct replica *target = &world->replicas[to];
        if (by == from || by == to || apart(world, from, to) || apart(world, by, to) ||
            apart(world, from, by))
                return;
        uint64_t after = vector_get(keyspace_positions(target->keyspace), (region_id)(from + 1));
        CHECK(keyspace_relay(world->replicas[by].keyspace, (region_id)(from + 1), after,
                             rng_between(&world->rng, 1, 400), &read) == ERR_NONE);
        if (read.gap) {
                transfer(world, by, to, !world->settling);
                return;
        }
        struct buffer joined;
        buffer_init(&joined, &world->heap);
        buffer_bytes(&joined, read.parts[0]);
        buffer_bytes(&joined, read.parts[1]);
        TRACE(target, "by way of %u", by + 1);
        hand_over(world, &(struct batch){from, to, after, read.last, buffer_view(&joined)});
        buffer_fini(&joined);
}

/* Fetches a batch and hands it over now, later, or both. */
static void ship(struct world *world, unsigned from, unsigned to)
{
        struct keyspace_batch read;
        struct keyspace *source = world->replicas[from].keyspace;
        if (apart(world, from, to))
                return;
        const struct vector *positions = keyspace_positions(world->replicas[to].keyspace);
        uint64_t after = vector_get(positions, (region_id)(from + 1));
        size_t bytes_max = rng_between(&world->rng, 1, 400);
        reserve(world, &world->replicas[from]);
        CHECK(keyspace_tail(source, wall(world, &world->replicas[from]), after, bytes_max, &read) ==
              ERR_NONE);
        if (read.gap) {
                transfer(world, from, to, !world->settling);
                return;
        }
        struct buffer joined;
        buffer_init(&joined, &world->heap);
        buffer_bytes(&joined, read.parts[0]);
        buffer_bytes(&joined, read.parts[1]);
        struct batch batch = {from, to, after, read.last, {0}};
        CHECK(heap_copy(&world->heap, buffer_view(&joined), &batch.data));
        buffer_fini(&joined);
        if (rng_chance(&world->rng, 800))
                hand_over(world, &batch);
        struct batch *slot = &world->stash[rng_below(&world->rng, STASH)];
        batch_free(world, slot);
        *slot = batch;
}

static void ship_late(struct world *world)
{
        struct batch *batch = &world->stash[rng_below(&world->rng, STASH)];
        if (batch->from != batch->to && !apart(world, batch->from, batch->to))
                hand_over(world, batch);
}

/* The transfer is broken off for a while, and the streams go on meanwhile, also the sender's, by
 * way of others. Nothing begins another transfer. */
static void streams_go_on(struct world *world, unsigned to)
{
        unsigned from = (unsigned)rng_below(&world->rng, world->count);
        struct keyspace *source = world->replicas[from].keyspace;
        struct keyspace_batch read;
        if (from == to || apart(world, from, to))
                return;
        reserve(world, &world->replicas[from]);
        uint64_t after =
                vector_get(keyspace_positions(world->replicas[to].keyspace), (region_id)(from + 1));
        CHECK(keyspace_tail(source, wall(world, &world->replicas[from]), after, 1 << 20, &read) ==
              ERR_NONE);
        if (!read.gap)
                ship(world, from, to);
}

static void transfer(struct world *world, unsigned from, unsigned to, bool busy)
{
        struct replica *source = &world->replicas[from];
        struct replica *target = &world->replicas[to];
        struct keyspace_result result;
        uint64_t cursor = 0;
        unsigned meanwhile = (world->faults & FAULT_RESUME) != 0 ? 200 : 300;
        if (apart(world, from, to))
                return;
        do {
                struct buffer part;
                buffer_init(&part, &world->heap);
                reserve(world, source);
                CHECK(keyspace_scan(source->keyspace, &source->native, &cursor,
                                    busy ? rng_between(&world->rng, 1, 300) : 1 << 20,
                                    &part) == ERR_NONE);
                give(source,
                     vector_get(keyspace_positions(source->keyspace), (region_id)(from + 1)));
                if (busy && rng_chance(&world->rng, 400)) {
                        act(world, source);
                        act(world, target);
                }
                strike_before_change(world, target);
                TRACE(target, "merges a part of the state of %u", from + 1);
                enum err err =
                        keyspace_merge_state(target->keyspace, &target->native, wall(world, target),
                                             buffer_view(&part), &result);
                DEMAND(world, err == ERR_NONE);
                agree(world, target);
                buffer_fini(&part);
                if (result.broken)
                        return;
                if (busy && cursor != 0 && rng_chance(&world->rng, meanwhile))
                        streams_go_on(world, to);
        } while (cursor != 0);
        if (busy && rng_chance(&world->rng, 100))
                return; /* broken off before its end */
        DEMAND(world, keyspace_adopt(target->keyspace, &target->native, NULL, &result) == ERR_NONE);
        target->told = true;
        TRACE(target, "takes over what %u has seen", from + 1);
        agree(world, target);
}

/* ---- faults */

/* A store that is short of memory. */
static void evict(struct world *world, struct replica *replica)
{
        struct model_key *key = &replica->model.keys[rng_below(&world->rng, MODEL_KEYS)];
        /* Of a list the store tells what is left as a whole, at its next change: not here. */
        if (key->type == CRDT_NONE || key->type == CRDT_LIST)
                return;
        struct model_text text = key->name;
        struct crdt_name name = {key->db, text_get(&text)};
        TRACE(replica, "evicts %.*s of %u", BYTES_ARGS(name.key), (unsigned)name.db);
        model_drop(key);
        DEMAND(world, keyspace_key_gone(replica->keyspace, name) == ERR_NONE);
        agree(world, replica);
}

static void members_heard(struct world *world, struct replica *replica);

static void load(struct world *world, unsigned index, struct bytes saved)
{
        struct replica *replica = &world->replicas[index];
        TRACE(replica, "loads a save");
        keyspace_free(replica->keyspace);
        replica->incarnation++;
        replica->keyspace = keyspace_made(world, index);
        DEMAND(world, keyspace_load(replica->keyspace, saved) == ERR_NONE);
        if ((world->faults & (FAULT_REMOVE | FAULT_JOIN)) != 0)
                members_heard(world, replica);
        struct keyspace_change change;
        struct keyspace_result result;
        if (replica->reserved_len > 0)
                DEMAND(world, keyspace_replay(replica->keyspace, &replica->native,
                                              bytes_of(replica->reserved, replica->reserved_len),
                                              (struct bytes){0}, &result) == ERR_NONE);
        DEMAND(world, keyspace_begin(replica->keyspace, wall(world, replica), &change) == ERR_NONE);
        DEMAND(world, change.stamp.hlc > replica->given);
        /* The numbers of lives have gone round. */
        world->unsure = world->unsure || ++replica->lives > CRDT_LIVES_MAX;
        agree(world, replica);
}

/* Who is a member to it. */
static void members_heard(struct world *world, struct replica *replica)
{
        region_id members[REPLICAS_MAX];
        unsigned count = replica->alone ? world->count - 1 : world->count;
        for (unsigned i = 0; i < count; i++)
                members[i] = (region_id)(i + 1);
        CHECK(keyspace_members(replica->keyspace, members, count) == ERR_NONE);
}

/* One that knows of the removal waits for the others only. */
static void removal_heard(struct world *world, struct replica *replica)
{
        if (!replica->alone)
                TRACE(replica, "hears that %u is removed", world->count);
        replica->alone = true;
        members_heard(world, replica);
}

static void removal_goes_on(struct world *world)
{
        unsigned which = (unsigned)rng_below(&world->rng, world->count - 1);
        if (world->count > 2 && rng_chance(&world->rng, 30))
                removal_heard(world, &world->replicas[which]);
}

static void join_heard(struct world *world, struct replica *replica)
{
        if (replica->alone)
                TRACE(replica, "hears that %u joins", world->count);
        world->joined = true;
        replica->alone = false;
        members_heard(world, replica);
}

static void join_goes_on(struct world *world)
{
        unsigned which = (unsigned)rng_below(&world->rng, world->count - 1);
        if (rng_chance(&world->rng, 30))
                join_heard(world, &world->replicas[which]);
}

/* What was lost is nowhere, or has come back. */
static void close_holes(struct world *world, struct replica *replica)
{
        struct crdt_seen seen = *keyspace_seen(replica->keyspace);
        struct keyspace_change change;
        for (unsigned i = 0; i < seen.hole_count; i++) {
                const struct crdt_hole *hole = &seen.holes[i];
                if (hole->origin == replica->keyspace->config.origin)
                        DEMAND(world, keyspace_close(replica->keyspace, wall(world, replica),
                                                     hole->low, hole->high, &change) == ERR_NONE);
        }
        replica->lives = 0;
}

static void restart(struct world *world, unsigned index)
{
        struct replica *replica = &world->replicas[index];
        struct buffer saved;
        uint64_t digest = keyspace_digest(replica->keyspace);
        bool whole = keyspace_seen(replica->keyspace)->hole_count == 0;
        buffer_init(&saved, &world->heap);
        CHECK(keyspace_save(replica->keyspace, rng_chance(&world->rng, 700), &saved) == ERR_NONE);
        load(world, index, buffer_view(&saved));
        DEMAND(world, keyspace_digest(replica->keyspace) == digest);
        buffer_fini(&saved);
        /* Those of an older crash are not empty by that. */
        if (rng_chance(&world->rng, 500) && (world->faults & FAULT_LOSE) == 0 && whole)
                close_holes(world, replica);
}

static void remember(struct world *world, unsigned index)
{
        struct replica *replica = &world->replicas[index];
        buffer_reset(&replica->saved);
        CHECK(keyspace_save(replica->keyspace, true, &replica->saved) == ERR_NONE);
        replica->saved_model = replica->model;
        replica->saved_told = replica->told;
}

/* Back to the older save, then all that the others have of it. */
static void crash(struct world *world, unsigned index)
{
        struct replica *replica = &world->replicas[index];
        if (replica->saved.len == 0)
                return;
        replica->model = replica->saved_model;
        replica->told = replica->saved_told;
        for (size_t i = 0; i < STASH; i++)
                batch_free(world, &world->stash[i]);
        load(world, index, buffer_view(&replica->saved));
        if ((world->faults & FAULT_TAILS) == 0)
                buffer_reset(&replica->saved);
        sums_lose(world);
        if ((world->faults & FAULT_LOSE) != 0) {
                if ((world->faults & (FAULT_OFTEN | FAULT_TAILS)) == 0)
                        replica->skew_ms -= (int64_t)rng_below(&world->rng, 1500);
                return;
        }
        bool all = true;
        for (unsigned i = 0; i < world->count; i++) {
                all = all && !apart(world, i, index);
                if (i != index)
                        transfer(world, i, index, false);
        }
        if (all)
                close_holes(world, &world->replicas[index]);
        for (unsigned i = 0; i < world->count; i++) {
                if (i != index)
                        transfer(world, index, i, false);
        }
}

static void beat(struct world *world, struct replica *replica)
{
        struct keyspace_change change;
        uint64_t position = keyspace_heartbeat(replica->keyspace, wall(world, replica), &change);
        DEMAND(world, position == vector_get(keyspace_positions(replica->keyspace),
                                             replica->keyspace->config.origin));
        if ((world->faults & FAULT_COLLECT) != 0)
                world->collected += keyspace_collect(replica->keyspace, 16);
}

static void beat_all(struct world *world)
{
        for (unsigned i = 0; i < world->count; i++) {
                beat(world, &world->replicas[i]);
                if ((world->faults & FAULT_COLLECT) != 0)
                        ship(world, i, (i + 1) % world->count);
        }
}

/* Each reads from the next one, and tells, one in three times. */
static void tell_often(struct world *world)
{
        for (unsigned i = 0; i < world->count; i++) {
                unsigned to =
                        (i + 1 + (unsigned)rng_below(&world->rng, world->count - 1)) % world->count;
                if (!rng_chance(&world->rng, 333))
                        continue;
                beat(world, &world->replicas[i]);
                ship(world, i, to);
        }
}

static void reserve_all(struct world *world)
{
        for (unsigned i = 0; i < world->count; i++)
                reserve(world, &world->replicas[i]);
}

/* Everybody gets what anybody has; then the holes close. */
static void refill(struct world *world)
{
        for (unsigned round = 0; round < 2; round++)
                for (unsigned from = 0; from < world->count; from++)
                        for (unsigned to = 0; to < world->count; to++)
                                if (from != to)
                                        transfer(world, from, to, false);
        for (unsigned i = 0; i < world->count; i++)
                close_holes(world, &world->replicas[i]);
        for (unsigned from = 0; from < world->count; from++)
                for (unsigned to = 0; to < world->count; to++)
                        if (from != to)
                                transfer(world, from, to, false);
}

#endif
