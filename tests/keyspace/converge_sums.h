/* converge_sums.h - what must be left of the increments of keys that nothing else touches: each
 * that somebody holds who claims to have seen it, whatever was lost in crashes. Part of
 * test_converge.c. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_SUMS_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_SUMS_H

#include "converge.h"

/* An increment was told. */
static void sum_note(struct world *world, enum sum which, struct stamp stamp, int64_t amount)
{
        CHECK(world->added_count < ADDED_MAX);
        world->added[world->added_count++] = (struct added){stamp, which, (int8_t)amount};
        world->sums[which] += amount;
}

/* Parts of a state that was broken off may have brought it, and nobody claims it. */
static bool may_be_there(const struct world *world, struct stamp stamp)
{
        bool may = false;
        for (unsigned i = 0; i < world->count; i++)
                may = may || vector_covers(&world->replicas[i].keyspace->hinted, stamp);
        return may;
}

static bool is_held(const struct world *world, struct stamp stamp)
{
        bool held = false;
        for (unsigned i = 0; i < world->count; i++)
                held = held || crdt_seen_covers(keyspace_seen(world->replicas[i].keyspace), stamp);
        return held;
}

/* After a crash: what nobody holds any more is lost for good. */
static void sums_lose(struct world *world)
{
        unsigned left = 0;
        for (unsigned i = 0; i < world->added_count; i++) {
                struct added added = world->added[i];
                bool held = is_held(world, added.stamp);
                if (held)
                        world->added[left++] = added;
                else if (may_be_there(world, added.stamp))
                        world->unsure = true;
                else
                        world->sums[added.which] -= added.amount;
        }
        world->added_count = left;
}

static int64_t items_sum(const struct model_key *key, bool scores)
{
        int64_t sum = 0;
        for (size_t i = 0; key != NULL && i < MODEL_ITEMS; i++) {
                long long value = 0;
                const struct model_item *item = &key->items[i];
                if (item->used && scores)
                        sum += (int64_t)model_score(item);
                else if (item->used && text_int(text_get(&item->value), &value))
                        sum += value;
        }
        return sum;
}

static void sums_check(struct world *world)
{
        struct model *model = &world->replicas[0].model;
        static const size_t keys[] = {[SUM_TALLY] = KEY_TALLY, [SUM_SCORE] = KEY_SCORE};
        long long value = 0;
        DEMAND(world,
               model_int(model_find(model, (struct crdt_name){0, BYTES("counter")}), &value));
        DEMAND(world, value == world->sums[SUM_COUNTER]);
        for (unsigned i = SUM_TALLY; i <= SUM_SCORE; i++) {
                struct crdt_name name = {0, bytes_of_str(key_names[keys[i]])};
                int64_t sum = items_sum(model_find(model, name), i == SUM_SCORE);
                DEMAND(world, sum == world->sums[i]);
        }
}

#endif
