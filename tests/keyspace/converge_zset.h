/* converge_zset.h - what clients do to sorted sets in random histories. Part of test_converge.c,
 * which includes it after its own types. Scores are such that sums of them are rounded, overflow,
 * are infinite or a zero with a sign. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_ZSET_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_ZSET_H

static double score_random(struct world *world)
{
        static const double odd[] = {0.1,    1e15, 1e300,   -1.7e308,        1.7e308,
                                     1e-300, 1e17, 3.3e-17, __builtin_inf(), -__builtin_inf()};
        if (rng_chance(&world->rng, 150))
                return odd[rng_below(&world->rng, COUNT_OF(odd))];
        return ((double)rng_below(&world->rng, 40) - 9) / (rng_chance(&world->rng, 300) ? 7 : 1);
}

static bool zset_fits(const struct op *op)
{
        return op->key == NULL || op->key->type == CRDT_ZSET;
}

static void op_zset_add(struct op *op)
{
        struct keyspace_score scores[3];
        if (!zset_fits(op))
                return;
        size_t count = rng_between(&op->world->rng, 1, 3);
        for (size_t i = 0; i < count; i++) {
                scores[i] = (struct keyspace_score){item_random(op), score_random(op->world)};
                model_zset_add(&op->replica->model, op->name, scores[i].member, scores[i].score);
        }
        CHECK(keyspace_local_zset_add(op->replica->keyspace, wall(op->world, op->replica), op->name,
                                      scores, count, &op->change) == ERR_NONE);
}

/* The key that is only ever added to gets integers. */
static void op_zset_increment(struct op *op)
{
        struct bytes member = item_random(op);
        bool exact = op->name.key.ptr == (const uint8_t *)key_names[KEY_SCORE];
        if (!zset_fits(op) || op_mixes(op, KEY_SCORE))
                return;
        struct model_item *item = op->key == NULL ? NULL : model_item(op->key, member);
        double amount = exact ? (double)rng_below(&op->world->rng, 9) - 3 : score_random(op->world);
        double after = item == NULL ? amount : model_score(item) + amount;
        if (__builtin_isnan(after))
                return;
        model_zset_add(&op->replica->model, op->name, member, after);
        CHECK(keyspace_local_zset_increment(op->replica->keyspace, wall(op->world, op->replica),
                                            op->name, member, amount, after,
                                            &op->change) == ERR_NONE);
        DEMAND(op->world, op->change.whole || !op->change.rewrite);
        if (exact)
                sum_note(op->world, SUM_SCORE, op->change.stamp, (int64_t)amount);
}

static void op_zset_remove(struct op *op)
{
        struct bytes members[2] = {item_random(op), item_random(op)};
        size_t count = 0;
        if (op->key == NULL || op->key->type != CRDT_ZSET)
                return;
        for (size_t i = 0; i < 2; i++) {
                if (op->key->type != CRDT_ZSET || model_item(op->key, members[i]) == NULL)
                        continue;
                model_item_drop(op->key, members[i]);
                members[count++] = members[i];
        }
        if (count > 0)
                CHECK(keyspace_local_zset_remove(op->replica->keyspace,
                                                 wall(op->world, op->replica), op->name, members,
                                                 count, &op->change) == ERR_NONE);
}

static void (*const ops_zset[])(struct op *op) = {
        op_zset_add,       op_zset_add,    op_zset_add,    op_zset_increment, op_zset_increment,
        op_zset_increment, op_zset_remove, op_zset_remove, op_delete,         op_expire};

#endif
