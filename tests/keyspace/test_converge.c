/* Random histories of several replicas: every kind of change, every kind of delivery. At the
 * end all must show the same. One seed, one history; a failure prints the seed and the faults, and
 * `test-keyspace-converge SEED 1 FAULTS` runs that one alone, with `trace` behind it step by step,
 * with `shrink` only those steps that it takes to fail.
 * Each profile leaves some faults out, so that what is left is looked at closely. */
#include "converge_net.h"
#include "converge_shrink.h"

static void members_go_on(struct world *world)
{
        if ((world->faults & FAULT_REMOVE) != 0)
                removal_goes_on(world);
        if ((world->faults & FAULT_JOIN) != 0)
                join_goes_on(world);
}

static void clocks_wander(struct world *world)
{
        for (unsigned i = 0; i < world->count; i++) {
                int64_t *skew = &world->replicas[i].skew_ms;
                *skew += (int64_t)rng_below(&world->rng, 201) - 100;
                *skew = *skew < 0 ? 0 : *skew;
                *skew = *skew > SKEW_FAR_MS ? SKEW_FAR_MS : *skew;
        }
}

static void step(struct world *world)
{
        reserve_all(world);
        if ((world->faults & FAULT_DRIFT) != 0 && part_begins(world))
                clocks_wander(world);
        if (part_begins(world))
                members_go_on(world);
        if ((world->faults & FAULT_TELL) != 0 && part_begins(world))
                tell_often(world);
        if ((world->faults & FAULT_EVICT) != 0 && part_begins(world) &&
            rng_chance(&world->rng, 100))
                evict(world, &world->replicas[0]);
        if (!part_begins(world))
                return;
        unsigned a = (unsigned)rng_below(&world->rng, world->count);
        unsigned b = (a + 1 + (unsigned)rng_below(&world->rng, world->count - 1)) % world->count;
        struct replica *replica = &world->replicas[a];
        uint64_t dice = rng_below(&world->rng, 100);
        /* Tombstones go after seconds, and each life begins ahead; all else is milliseconds. */
        bool slow = (world->faults & (FAULT_COLLECT | FAULT_OFTEN | FAULT_TAILS)) != 0;
        world->now_ms += rng_below(&world->rng, slow ? 600 : 20);
        if ((world->faults & FAULT_OFTEN) != 0 && rng_chance(&world->rng, 300)) {
                remember(world, a);
                ship(world, b, a);
                ship(world, a, b);
                crash(world, a);
        } else if (dice < 45)
                act(world, replica);
        else if ((world->faults & FAULT_TAILS) != 0 && dice >= 60 && dice < 70)
                (dice < 65 ? remember : crash)(world, a);
        else if ((world->faults & FAULT_RESUME) != 0 && dice < 70)
                transfer(world, a, b, true);
        else if (dice < 80 && (world->faults & FAULT_ROUND) != 0 && rng_chance(&world->rng, 400))
                ship_round(world, a, b);
        else if (dice < 80)
                ship(world, a, b);
        else if (dice < 88)
                ship_late(world);
        else if (dice < 92)
                beat_all(world);
        else if (dice < 95)
                strike(world, replica);
        else if (dice < 97 && rng_chance(&world->rng, 500) && (world->faults & FAULT_FLUSH) != 0)
                flush(world, replica);
        else if (dice < 96 && (world->faults & FAULT_TRANSFER) != 0)
                transfer(world, a, b, true);
        else if (dice < 98 && (world->faults & FAULT_RESTART) != 0)
                restart(world, a);
        else if (dice == 98 && (world->faults & FAULT_CRASH) != 0)
                remember(world, a);
        else if (dice == 99 && (world->faults & FAULT_CRASH) != 0)
                crash(world, a);
}

/* ---- the end */

/* Those that count at the end. */
static unsigned left(const struct world *world)
{
        bool removed = (world->faults & FAULT_REMOVE) != 0 && world->count > 2;
        return removed ? world->count - 1 : world->count;
}

static bool all_shipped(struct world *world)
{
        struct vector sum = {0};
        bool done = true;
        for (unsigned from = 0; from < left(world); from++) {
                uint64_t position = vector_get(keyspace_positions(world->replicas[from].keyspace),
                                               (region_id)(from + 1));
                vector_advance(&sum, (region_id)(from + 1), position);
        }
        for (unsigned to = 0; to < left(world); to++)
                done = done &&
                       vector_includes(keyspace_positions(world->replicas[to].keyspace), &sum);
        return done;
}

static void beat_over(struct world *world, unsigned from, unsigned to)
{
        struct replica *source = &world->replicas[from];
        uint64_t position = vector_get(keyspace_positions(source->keyspace), (region_id)(from + 1));
        uint64_t after =
                vector_get(keyspace_positions(world->replicas[to].keyspace), (region_id)(from + 1));
        if (after >= keyspace_ring_last(source->keyspace) && after < position)
                hand_over(world, &(struct batch){from, to, after, position, {0}});
}

/* What each has of the removed one's stream goes round as state. */
static void exchange(struct world *world)
{
        for (unsigned from = 0; from < left(world); from++)
                for (unsigned to = 0; to < left(world); to++)
                        if (from != to)
                                transfer(world, from, to, false);
}

/* Those of a stream that ended stay. */
static bool has_holes(const struct world *world, const struct replica *replica)
{
        const struct crdt_seen *seen = keyspace_seen(replica->keyspace);
        for (unsigned i = 0; i < seen->hole_count; i++)
                if (seen->holes[i].origin <= left(world))
                        return true;
        return false;
}

static bool any_has_holes(const struct world *world)
{
        bool any = false;
        for (unsigned i = 0; i < left(world); i++)
                any = any || has_holes(world, &world->replicas[i]);
        return any;
}

static void ship_all(struct world *world)
{
        for (unsigned round = 0; round < 400 && !all_shipped(world); round++) {
                for (unsigned from = 0; from < left(world); from++) {
                        for (unsigned to = 0; to < left(world); to++) {
                                if (from == to)
                                        continue;
                                ship(world, from, to);
                                beat_over(world, from, to);
                        }
                }
        }
        DEMAND(world, all_shipped(world));
}

static void settle(struct world *world)
{
        CHECK(part_begins(world));
        world->settling = true;
        for (unsigned i = 0; i < left(world) && left(world) < world->count; i++)
                removal_heard(world, &world->replicas[i]);
        for (unsigned i = 0; i < world->count && (world->faults & FAULT_JOIN) != 0; i++)
                join_heard(world, &world->replicas[i]);
        if ((world->faults & FAULT_LOSE) != 0)
                refill(world);
        if (left(world) < world->count)
                exchange(world);
        ship_all(world);
        /* Of a crash whose refill left out one that was no member yet, or no more. */
        if (any_has_holes(world)) {
                refill(world);
                ship_all(world);
        }
        DEMAND(world, !any_has_holes(world));
}

static uint64_t digest_all(struct keyspace *keyspace)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL; node = table_next(&keyspace->table, &walk)) {
                struct crdt room;
                struct entry *entry = entry_of(node);
                sum += crdt_digest(entry_open(keyspace, entry, &room), entry_name(entry), true);
                entry_close(keyspace, entry, &room);
        }
        return sum;
}

static bool is_whole(const struct replica *replica, struct crdt_name name)
{
        const struct entry *entry = entry_find(replica->keyspace, name);
        return entry == NULL || entry->node.kind != ENTRY_FULL ||
               !(entry->crdt->partial || entry->crdt->evicted);
}

/* The same, but for what one replica dropped and those that got its state may lack: wherever a key
 * is whole it is the same. */
static void compare_whole(struct world *world)
{
        for (unsigned which = 0; which < 2 * COUNT_OF(key_names); which++) {
                struct crdt_name name = {which % 2, bytes_of_str(key_names[which / 2])};
                const struct replica *first = NULL;
                for (unsigned i = 1; i < left(world); i++) {
                        const struct replica *replica = &world->replicas[i];
                        if (!is_whole(replica, name))
                                continue;
                        if (first != NULL && keyspace_key_digest(first->keyspace, name) !=
                                                     keyspace_key_digest(replica->keyspace, name))
                                printf("# %s of %u: replicas %u and %u\n", key_names[which / 2],
                                       which % 2, first->keyspace->config.origin, i + 1u);
                        DEMAND(world, first == NULL ||
                                              keyspace_key_digest(first->keyspace, name) ==
                                                      keyspace_key_digest(replica->keyspace, name));
                        first = first == NULL ? replica : first;
                }
        }
}

static void compare(struct world *world)
{
        if ((world->faults & FAULT_EVICT) != 0) {
                compare_whole(world);
                return;
        }
        struct replica *first = &world->replicas[0];
        bool same = true;
        for (unsigned i = 1; i < left(world); i++) {
                struct replica *other = &world->replicas[i];
                same = same && model_digest(&first->model) == model_digest(&other->model) &&
                       keyspace_digest(first->keyspace) == keyspace_digest(other->keyspace);
                if ((world->faults & ~(unsigned)(FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART)) == 0)
                        same = same && digest_all(first->keyspace) == digest_all(other->keyspace);
        }
        for (unsigned i = 0; !same && i < left(world); i++) {
                printf("# replica %u: content %016llx metadata %016llx\n", i + 1,
                       (unsigned long long)model_digest(&world->replicas[i].model),
                       (unsigned long long)keyspace_digest(world->replicas[i].keyspace));
                model_print(&world->replicas[i].model);
        }
        DEMAND(world, same);
        if ((world->faults & FAULT_REMOVE) == 0 && !world->unsure)
                sums_check(world);
}

static uint64_t collected; /* in all histories of a profile */

static void history(uint64_t seed, unsigned faults)
{
        static struct world world;
        world = (struct world){.seed = seed, .faults = faults, .now_ms = 1700000000000};
        heap_init(&world.heap, 0);
        rng_init(&world.rng, seed, faults);
        world.count = (unsigned)rng_between(&world.rng, 2, REPLICAS_MAX);
        for (unsigned i = 0; i < world.count; i++) {
                struct replica *replica = &world.replicas[i];
                bool far = (faults & FAULT_DRIFT) != 0;
                replica->skew_ms = (int64_t)rng_below(&world.rng, far ? SKEW_FAR_MS : SKEW_MS);
                replica->keyspace = keyspace_made(&world, i);
                model_init(&replica->model);
                replica->model.evicts = evicts(&world, replica);
                replica->native = model_native(&replica->model);
                if ((faults & FAULT_WHOLE) != 0)
                        whole_native(&replica->native);
                buffer_init(&replica->saved, &world.heap);
                replica->alone = (faults & FAULT_JOIN) != 0 && i + 1 < world.count;
                if (replica->alone)
                        members_heard(&world, replica);
        }
        unsigned steps = (faults & FAULT_OFTEN) != 0 ? STEPS_OFTEN : STEPS;
        for (unsigned i = 0; i < steps; i++)
                step(&world);
        settle(&world);
        compare(&world);
        for (unsigned i = 0; i < STASH; i++)
                batch_free(&world, &world.stash[i]);
        for (unsigned i = 0; i < world.count; i++) {
                keyspace_free(world.replicas[i].keyspace);
                buffer_fini(&world.replicas[i].saved);
        }
        DEMAND(&world, world.heap.used_bytes == 0);
        collected += world.collected;
}

static const unsigned profiles[] = {
        0,
        FAULT_TYPES,
        FAULT_EXPIRY,
        FAULT_TYPES | FAULT_EXPIRY,
        FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART,
        FAULT_TRANSFER,
        FAULT_TRANSFER | FAULT_TYPES,
        FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_SMALL_RING,
        FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY,
        FAULT_COLLECT | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                FAULT_SMALL_RING,
        FAULT_CRASH,
        FAULT_CRASH | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART,
        FAULT_CRASH | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER |
                FAULT_SMALL_RING,
        FAULT_FLUSH,
        FAULT_FLUSH | FAULT_TYPES | FAULT_EXPIRY,
        FAULT_FLUSH | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                FAULT_SMALL_RING,
        FAULT_FLUSH | FAULT_COLLECT | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                FAULT_SMALL_RING,
        FAULT_FLUSH | FAULT_CRASH | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                FAULT_TRANSFER | FAULT_SMALL_RING,
        FAULT_CRASH | FAULT_LOSE,
        FAULT_CRASH | FAULT_LOSE | FAULT_TYPES | FAULT_EXPIRY,
        FAULT_CRASH | FAULT_LOSE | FAULT_TRANSFER,
        FAULT_CRASH | FAULT_LOSE | FAULT_TYPES | FAULT_EXPIRY | FAULT_TRANSFER,
        FAULT_CRASH | FAULT_LOSE | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER |
                FAULT_SMALL_RING,
        FAULT_CRASH | FAULT_LOSE | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                FAULT_TRANSFER | FAULT_SMALL_RING,
        FAULT_REMOVE | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY,
        FAULT_REMOVE | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER |
                FAULT_SMALL_RING,
        FAULT_REMOVE | FAULT_COLLECT | FAULT_FLUSH | FAULT_CRASH | FAULT_LOSE | FAULT_TYPES |
                FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER | FAULT_SMALL_RING,
        FAULT_CRASH | FAULT_LOSE | FAULT_TAILS,
        FAULT_CRASH | FAULT_LOSE | FAULT_TAILS | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY |
                FAULT_TRANSFER | FAULT_RESTART | FAULT_ROUND,
        FAULT_CRASH | FAULT_LOSE | FAULT_OFTEN,
        FAULT_CRASH | FAULT_LOSE | FAULT_OFTEN | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY |
                FAULT_TRANSFER | FAULT_RESTART | FAULT_SMALL_RING,
        FAULT_TELL | FAULT_ROUND | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY,
        FAULT_TELL | FAULT_TRANSFER | FAULT_COLLECT | FAULT_FLUSH | FAULT_TYPES | FAULT_EXPIRY |
                FAULT_RESTART,
        FAULT_TELL | FAULT_CRASH | FAULT_LOSE | FAULT_TRANSFER | FAULT_COLLECT | FAULT_TYPES |
                FAULT_EXPIRY | FAULT_RESTART,
        FAULT_ROUND | FAULT_REMOVE | FAULT_COLLECT | FAULT_FLUSH | FAULT_CRASH | FAULT_LOSE |
                FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER | FAULT_SMALL_RING,
        FAULT_TELL | FAULT_JOIN | FAULT_COLLECT | FAULT_TYPES | FAULT_EXPIRY,
        FAULT_JOIN | FAULT_ROUND | FAULT_COLLECT | FAULT_FLUSH | FAULT_CRASH | FAULT_LOSE |
                FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER | FAULT_SMALL_RING,
        FAULT_JOIN | FAULT_COLLECT | FAULT_CRASH | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART |
                FAULT_TRANSFER | FAULT_SMALL_RING,
        FAULT_REMOVE | FAULT_COLLECT | FAULT_CRASH | FAULT_TYPES | FAULT_RESTART | FAULT_TRANSFER |
                FAULT_DRIFT,
        FAULT_EVICT | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_FLUSH,
        FAULT_RESUME | FAULT_TRANSFER,
        FAULT_RESUME | FAULT_TRANSFER | FAULT_TYPES | FAULT_EXPIRY | FAULT_COLLECT | FAULT_FLUSH |
                FAULT_ROUND | FAULT_RESTART,
        FAULT_WHOLE | FAULT_EXPIRY,
        FAULT_WHOLE | FAULT_TRANSFER | FAULT_COLLECT | FAULT_FLUSH | FAULT_TYPES | FAULT_EXPIRY |
                FAULT_RESTART | FAULT_SMALL_RING,
        FAULT_WHOLE | FAULT_CRASH | FAULT_LOSE | FAULT_TRANSFER | FAULT_COLLECT | FAULT_TYPES |
                FAULT_EXPIRY | FAULT_RESTART | FAULT_ROUND,
};

/* Histories that once ended different. */
static const struct {
        uint64_t seed;
        unsigned faults;
} pinned[] = {
        {2850, FAULT_JOIN | FAULT_COLLECT | FAULT_CRASH | FAULT_TYPES | FAULT_EXPIRY |
                       FAULT_RESTART | FAULT_TRANSFER | FAULT_SMALL_RING},
        {1113, FAULT_RESUME | FAULT_JOIN | FAULT_ROUND | FAULT_FLUSH | FAULT_COLLECT | FAULT_CRASH |
                       FAULT_TYPES | FAULT_EXPIRY | FAULT_RESTART | FAULT_TRANSFER |
                       FAULT_SMALL_RING},
        {5630258, FAULT_RESUME | FAULT_JOIN | FAULT_TELL | FAULT_ROUND | FAULT_FLUSH |
                          FAULT_COLLECT | FAULT_CRASH | FAULT_LOSE | FAULT_TRANSFER |
                          FAULT_SMALL_RING},
        {61000313, FAULT_JOIN | FAULT_TELL | FAULT_EXPIRY | FAULT_COLLECT | FAULT_SMALL_RING},
        {71000044, FAULT_EVICT | FAULT_RESUME | FAULT_CRASH | FAULT_LOSE | FAULT_FLUSH |
                           FAULT_TYPES | FAULT_EXPIRY | FAULT_COLLECT | FAULT_SMALL_RING},
};

static void run(size_t number, unsigned faults, uint64_t first, uint64_t count)
{
        collected = 0;
        for (uint64_t seed = first; seed < first + count; seed++)
                history(seed, faults);
        printf("ok %zu - %llu histories with faults %u, %llu tombstones collected\n", number,
               (unsigned long long)count, faults, (unsigned long long)collected);
}

/* Fewer of those that take long. */
static uint64_t seeds_of(unsigned faults, uint64_t count)
{
        uint64_t part = (faults & FAULT_OFTEN) != 0 ? 20 : (faults & FAULT_WHOLE) != 0 ? 2 : 1;
        return (count + part - 1) / part;
}

int main(int argc, char **argv)
{
        uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
        const char *seeds_wanted = getenv("SEEDS"); /* fewer where the program is slow */
        uint64_t count = seeds_wanted == NULL ? 150 : strtoull(seeds_wanted, NULL, 10);
        if (argc > 1)
                count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        tracing = argc > 4 && strcmp(argv[4], "trace") == 0;
        if (argc > 4 && strcmp(argv[4], "shrink") == 0)
                return shrink(first, (unsigned)strtoul(argv[3], NULL, 10));
        if (argc > 3) {
                run(1, (unsigned)strtoul(argv[3], NULL, 10), first, count);
                return 0;
        }
        for (size_t i = 0; i < COUNT_OF(profiles); i++)
                run(i + 1, profiles[i], first, seeds_of(profiles[i], count));
        for (size_t i = 0; i < COUNT_OF(pinned); i++)
                run(COUNT_OF(profiles) + i + 1, pinned[i].faults, pinned[i].seed, 1);
        printf("1..%zu\n", COUNT_OF(profiles) + COUNT_OF(pinned));
        return 0;
}
