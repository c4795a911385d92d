/* Histories by hand, histories that a real object made (good by construction, and with a planted
 * bug), and small ones beside a search that tries every order. */
#include "linear/linear.h"

#include "base/rng.h"
#include "linear/linear_priv.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

enum {
        OPS_MAX = 400,
        PAIRS_MAX = 2000,
};

static struct linear_op ops[OPS_MAX];
static size_t op_count;
static struct linear_pair pairs[PAIRS_MAX];
static size_t pair_count;

static void history_reset(void)
{
        op_count = pair_count = 0;
        memset(ops, 0, sizeof ops);
}

static struct linear_pairs pair(uint32_t key, uint64_t value)
{
        pairs[pair_count] = (struct linear_pair){key, value};
        return (struct linear_pairs){&pairs[pair_count++], 1};
}

static struct linear_op *op_add(uint64_t called, uint64_t returned)
{
        assert_true(op_count < OPS_MAX);
        struct linear_op *op = &ops[op_count++];
        op->called = called;
        op->returned = returned;
        return op;
}

static void put(uint64_t called, uint64_t returned, uint32_t key, uint64_t value)
{
        struct linear_op *op = op_add(called, returned);
        op->txn.then = pair(key, value);
        op->txn.held = true;
}

static void get(uint64_t called, uint64_t returned, uint32_t key, uint64_t value)
{
        struct linear_op *op = op_add(called, returned);
        op->txn.saw = pair(key, value);
        op->txn.held = true;
}

static void swap(uint64_t called, uint64_t returned, uint32_t key, uint64_t from, uint64_t to,
                 bool held)
{
        struct linear_op *op = op_add(called, returned);
        op->txn.when = pair(key, from);
        op->txn.then = pair(key, to);
        op->txn.held = held;
}

static void lock(uint64_t called, uint64_t returned, enum linear_lock_op what, uint64_t owner,
                 uint64_t token)
{
        struct linear_op *op = op_add(called, returned);
        op->lock = (struct linear_lock){0, what, owner, token};
}

static struct linear_report judge(enum linear_model model)
{
        return linear_check(&heap, model, ops, op_count, 4);
}

static void expect(enum linear_model model, enum linear_verdict verdict, const char *why)
{
        struct linear_report report = judge(model);
        if (report.verdict != verdict)
                fail_msg("%s: verdict %d", why, (int)report.verdict);
        history_reset();
}

#define NEVER LINEAR_NEVER

static void test_values(void **state)
{
        (void)state;
        history_reset();
        expect(LINEAR_VALUES, LINEAR_GOOD, "nothing happened");
        put(1, 2, 0, 7);
        get(3, 4, 0, 7);
        expect(LINEAR_VALUES, LINEAR_GOOD, "what was put is read");
        put(1, 2, 0, 7);
        get(3, 4, 0, 0);
        expect(LINEAR_VALUES, LINEAR_BAD, "a read misses what was there");
        put(1, 5, 0, 7);
        get(2, 3, 0, 7);
        get(4, 5, 0, 0);
        expect(LINEAR_VALUES, LINEAR_BAD, "a value is seen and then not");
        put(1, 5, 0, 7);
        get(2, 4, 0, 7);
        get(2, 4, 0, 0);
        expect(LINEAR_VALUES, LINEAR_GOOD, "reads side by side may differ");
        put(1, NEVER, 0, 7);
        get(5, 6, 0, 0);
        get(7, 8, 0, 7);
        expect(LINEAR_VALUES, LINEAR_GOOD, "without an answer: late");
        put(1, NEVER, 0, 7);
        get(5, 6, 0, 0);
        expect(LINEAR_VALUES, LINEAR_GOOD, "without an answer: never");
        put(1, NEVER, 0, 7);
        get(5, 6, 0, 7);
        put(7, 8, 0, 9);
        get(9, 10, 0, 7);
        expect(LINEAR_VALUES, LINEAR_BAD, "without an answer: but not twice");
        get(1, 2, 0, 7);
        put(3, NEVER, 0, 7);
        expect(LINEAR_VALUES, LINEAR_BAD, "and not before its call");
        swap(1, 4, 0, 0, 1, true);
        swap(2, 5, 0, 0, 2, true);
        expect(LINEAR_VALUES, LINEAR_BAD, "two swaps of the same");
        swap(1, 4, 0, 0, 1, true);
        swap(2, 5, 0, 0, 2, false);
        get(6, 7, 0, 1);
        expect(LINEAR_VALUES, LINEAR_GOOD, "one of two swaps");
        put(1, 2, 0, 7);
        put(3, 9, 0, 7);
        put(4, 5, 0, 8);
        get(10, 11, 0, 7);
        expect(LINEAR_VALUES, LINEAR_GOOD, "a put of what is there may come after another put");
}

/* Each key alone is fine; together they are not. */
static void test_transactions(void **state)
{
        (void)state;
        history_reset();
        for (int joined = 0; joined < 2; joined++) {
                put(1, 2, 0, 1);
                put(1, 2, 1, 1);
                struct linear_op *op = op_add(3, 10);
                static const struct linear_pair both[] = {{0, 2}, {1, 2}};
                op->txn.then = (struct linear_pairs){both, joined ? 2 : 1};
                op->txn.held = true;
                op = op_add(4, 5);
                static const struct linear_pair torn[] = {{0, 2}, {1, 1}};
                op->txn.saw = (struct linear_pairs){torn, 2};
                op->txn.held = true;
                expect(LINEAR_VALUES, joined ? LINEAR_BAD : LINEAR_GOOD, "a torn transaction");
        }
        for (uint32_t key = 0; key < 3; key++)
                put(1, 2, key, 1);
        struct linear_report report = judge(LINEAR_VALUES);
        assert_int_equal(report.parts, 3);
        history_reset();
}

/* Owner 1 is granted the lock by token 5 in a call from 1 to 2, where not `alone`; then what is
 * told. */
static void test_locks(void **state)
{
        static const struct {
                const char *why;
                enum linear_verdict verdict;
                bool alone;
                struct {
                        uint64_t called, returned;
                        enum linear_lock_op kind;
                        uint64_t owner;
                        uint64_t token;
                } told[4]; /* `called` 0: the end */
        } rows[] = {
                {"one after the other",
                 LINEAR_GOOD,
                 false,
                 {{3, 4, LINEAR_HELD, 2, 0},
                  {5, 6, LINEAR_RELEASED, 1, 5},
                  {7, 8, LINEAR_GRANTED, 2, 6}}},
                {"a token is used twice", LINEAR_BAD, false, {{3, 4, LINEAR_GRANTED, 2, 5}}},
                {"a token falls", LINEAR_BAD, false, {{3, 4, LINEAR_GRANTED, 2, 4}}},
                {"a lease may end", LINEAR_GOOD, false, {{3, 4, LINEAR_GRANTED, 2, 6}}},
                {"but not while its owner is sure of it",
                 LINEAR_BAD,
                 false,
                 {{3, 4, LINEAR_GRANTED, 2, 6}, {5, 5, LINEAR_USE, 1, 5}}},
                {"the grant may come after the use",
                 LINEAR_GOOD,
                 false,
                 {{3, 6, LINEAR_GRANTED, 2, 6}, {5, 5, LINEAR_USE, 1, 5}}},
                {"the answer was lost, it asks again",
                 LINEAR_GOOD,
                 true,
                 {{1, NEVER, LINEAR_GRANTED, 1, 0},
                  {3, 4, LINEAR_HELD, 2, 0},
                  {5, 6, LINEAR_GRANTED, 1, 5},
                  {7, 7, LINEAR_USE, 1, 5}}},
                {"its lease ended, it asked again, the answer was lost",
                 LINEAR_GOOD,
                 false,
                 {{3, NEVER, LINEAR_GRANTED, 1, 0}, {5, 6, LINEAR_USE, 1, 7}}},
                {"it asked again, the answer was lost",
                 LINEAR_GOOD,
                 false,
                 {{3, NEVER, LINEAR_GRANTED, 1, 0}, {5, 6, LINEAR_USE, 1, 5}}},
                {"refused, and nobody has it", LINEAR_BAD, true, {{3, 4, LINEAR_HELD, 2, 0}}},
                {"released by somebody else", LINEAR_BAD, false, {{3, 4, LINEAR_RELEASED, 2, 5}}},
                {"a token of a forced release is used again",
                 LINEAR_BAD,
                 false,
                 {{3, 4, LINEAR_BROKEN, 9, 6}, {5, 6, LINEAR_GRANTED, 2, 6}}},
        };
        (void)state;
        history_reset();
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (!rows[i].alone)
                        lock(1, 2, LINEAR_GRANTED, 1, 5);
                for (size_t k = 0; k < COUNT_OF(rows[i].told) && rows[i].told[k].called != 0; k++)
                        lock(rows[i].told[k].called, rows[i].told[k].returned, rows[i].told[k].kind,
                             rows[i].told[k].owner, rows[i].told[k].token);
                expect(LINEAR_LOCKS, rows[i].verdict, rows[i].why);
        }
}

/* ---- histories of a real object ---- */

enum bug {
        BUG_NONE,
        BUG_STALE,  /* a read answers with the value before the last */
        BUG_LOST,   /* a put is answered and forgotten */
        BUG_TOKENS, /* a token is given again */
        BUG_OWNERS, /* a lock is given away while it is held */
};

enum {
        WRITERS = 5,
        TURNS = 60,
};

struct writer {
        uint64_t called;
        uint64_t happens; /* 0: idle */
        uint64_t returns;
        uint32_t key;
        unsigned what;
        struct linear_op *op;
};

struct object {
        struct rng rng;
        uint64_t values[3], before[3];
        uint64_t value_last;
        uint64_t owner, token, largest;
        uint64_t evicted, evicted_token; /* BUG_OWNERS: it knows nothing of that */
        enum bug bug;
};

static uint64_t below(struct object *object, uint64_t bound)
{
        return rng_below(&object->rng, bound);
}

static bool strikes(struct object *object, enum bug bug)
{
        return object->bug == bug && below(object, 6) == 0;
}

static void values_happen(struct object *object, struct writer *writer)
{
        uint32_t key = writer->key;
        struct linear_txn *txn = &writer->op->txn;
        txn->held = true;
        if (writer->what == 0) {
                bool stale = strikes(object, BUG_STALE);
                txn->saw = pair(key, stale ? object->before[key] : object->values[key]);
                return;
        }
        uint64_t value = ++object->value_last;
        txn->then = pair(key, value);
        if (writer->what == 1 && strikes(object, BUG_LOST))
                return;
        object->before[key] = object->values[key];
        object->values[key] = value;
}

/* The lock is taken where it is free; it is held for some time, used, and released. */
static void locks_happen(struct object *object, struct writer *writer, uint64_t now)
{
        struct linear_lock *what = &writer->op->lock;
        uint64_t self = what->owner;
        if (object->evicted == self) {
                *what = (struct linear_lock){0, LINEAR_USE, self, object->evicted_token};
                writer->op->called = writer->op->returned = now;
                object->evicted = 0;
        } else if (object->owner == self) {
                *what = (struct linear_lock){0, writer->what == 0 ? LINEAR_USE : LINEAR_RELEASED,
                                             self, object->token};
                if (writer->what != 0)
                        object->owner = 0;
                if (writer->what == 0)
                        writer->op->called = writer->op->returned = now;
        } else if (object->owner != 0 && !strikes(object, BUG_OWNERS)) {
                what->op = LINEAR_HELD;
        } else {
                object->evicted = object->owner;
                object->evicted_token = object->token;
                bool again = strikes(object, BUG_TOKENS) && object->largest > 0;
                object->owner = self;
                object->token = again ? object->largest : object->largest + 1 + below(object, 3);
                object->largest = object->token;
                *what = (struct linear_lock){0, LINEAR_GRANTED, self, object->token};
        }
}

static void writer_begin(struct object *object, struct writer *writer, enum linear_model model,
                         uint64_t now, uint64_t self)
{
        writer->called = now;
        writer->happens = now + 1 + below(object, 8);
        writer->returns = writer->happens + 1 + below(object, 8);
        writer->key = (uint32_t)below(object, 3);
        writer->what = (unsigned)below(object, 2);
        writer->op = op_add(now, writer->returns);
        if (model == LINEAR_LOCKS)
                writer->op->lock.owner = self;
}

static void object_run(struct object *object, enum linear_model model)
{
        struct writer writers[WRITERS] = {{0}};
        history_reset();
        for (uint64_t now = 1; op_count < TURNS; now++) {
                for (uint64_t i = 0; i < WRITERS; i++) {
                        struct writer *writer = &writers[i];
                        if (writer->happens == now && model == LINEAR_VALUES)
                                values_happen(object, writer);
                        else if (writer->happens == now)
                                locks_happen(object, writer, now);
                        if (now >= writer->returns && below(object, 3) == 0 && op_count < TURNS)
                                writer_begin(object, writer, model, now, i + 1);
                }
        }
        /* What has not happened at the end gets no answer. */
        for (uint64_t i = 0; i < WRITERS; i++)
                if (writers[i].op != NULL && writers[i].op->txn.then.count == 0 &&
                    writers[i].op->txn.saw.count == 0 && model == LINEAR_VALUES)
                        writers[i].op->returned = NEVER;
                else if (model == LINEAR_LOCKS && writers[i].op->lock.op == 0)
                        *writers[i].op = (struct linear_op){.called = writers[i].called,
                                                            .returned = NEVER,
                                                            .lock = {0, LINEAR_GRANTED, i + 1, 0}};
}

static unsigned bad_of(enum linear_model model, enum bug bug, unsigned seeds)
{
        unsigned bad = 0;
        for (unsigned seed = 0; seed < seeds; seed++) {
                struct object object = {.bug = bug};
                rng_init(&object.rng, 1000 + seed, 0);
                object_run(&object, model);
                struct linear_report report = judge(model);
                assert_int_not_equal(report.verdict, LINEAR_UNKNOWN);
                if (bug == BUG_NONE && report.verdict != LINEAR_GOOD)
                        fail_msg("seed %u: a good history is called bad", seed);
                bad += report.verdict == LINEAR_BAD;
        }
        history_reset();
        return bad;
}

static void test_objects(void **state)
{
        (void)state;
        assert_int_equal(bad_of(LINEAR_VALUES, BUG_NONE, 300), 0);
        assert_int_equal(bad_of(LINEAR_LOCKS, BUG_NONE, 300), 0);
        assert_true(bad_of(LINEAR_VALUES, BUG_STALE, 50) > 40);
        assert_true(bad_of(LINEAR_VALUES, BUG_LOST, 50) > 20);
        assert_true(bad_of(LINEAR_LOCKS, BUG_TOKENS, 50) > 30);
        assert_true(bad_of(LINEAR_LOCKS, BUG_OWNERS, 50) > 30);
}

/* ---- beside every order ---- */

/* True when the operations that are left can follow `model_state` in some order. */
static bool every_order(linear_step *step, const struct linear_part *part, unsigned left,
                        const struct linear_state *from)
{
        uint64_t first_answer = NEVER;
        bool due = false;
        for (size_t i = 0; i < op_count; i++) {
                if ((left & 1u << i) == 0)
                        continue;
                due = due || ops[i].returned != NEVER;
                if (ops[i].returned < first_answer)
                        first_answer = ops[i].returned;
        }
        if (!due)
                return true;
        for (size_t i = 0; i < op_count; i++) {
                struct linear_state to = *from;
                if ((left & 1u << i) != 0 && ops[i].called <= first_answer &&
                    step(part, &to, &ops[i]) && every_order(step, part, left & ~(1u << i), &to))
                        return true;
        }
        return false;
}

static void draw(struct rng *rng, enum linear_model model)
{
        history_reset();
        size_t count = 2 + rng_below(rng, 6);
        for (size_t i = 0; i < count; i++) {
                uint64_t called = rng_below(rng, 12);
                bool never = rng_below(rng, 5) == 0;
                struct linear_op *op = op_add(called, never ? NEVER : called + rng_below(rng, 9));
                if (model == LINEAR_LOCKS) {
                        op->lock.op = (enum linear_lock_op)(1 + rng_below(rng, 7));
                        op->lock.owner = 1 + rng_below(rng, 2);
                        op->lock.token = never ? 0 : 1 + rng_below(rng, 3);
                        continue;
                }
                uint32_t key = (uint32_t)rng_below(rng, 2);
                op->txn.held = rng_below(rng, 4) != 0;
                if (!op->txn.held || rng_below(rng, 2) == 0)
                        op->txn.when = pair(key, rng_below(rng, 3));
                if (rng_below(rng, 2) == 0)
                        op->txn.then = pair(key, 1 + rng_below(rng, 2));
                if (rng_below(rng, 4) == 0)
                        op->txn.otherwise = pair(1 - key, 1 + rng_below(rng, 2));
                if (rng_below(rng, 2) == 0)
                        op->txn.saw = pair((uint32_t)rng_below(rng, 2), rng_below(rng, 3));
        }
}

/* The verdict of the search, which is that of every order. */
static enum linear_verdict verdict_of(enum linear_model model, unsigned seed)
{
        static const uint32_t places[] = {0, 1, 2, 3};
        const struct linear_part part = {places, 4};
        struct linear_state start = {{0}};
        linear_step *step = model == LINEAR_LOCKS ? linear_step_locks : linear_step_values;
        bool good = every_order(step, &part, (1u << op_count) - 1, &start);
        struct linear_report report = judge(model);
        if (report.verdict != (good ? LINEAR_GOOD : LINEAR_BAD))
                fail_msg("seed %u: verdict %d, every order says %s", seed, (int)report.verdict,
                         good ? "good" : "bad");
        return report.verdict;
}

static void test_every_order(void **state)
{
        (void)state;
        unsigned verdicts[4] = {0};
        for (unsigned seed = 0; seed < 20000; seed++) {
                struct rng rng;
                rng_init(&rng, seed, 0);
                enum linear_model model = seed % 2 == 0 ? LINEAR_VALUES : LINEAR_LOCKS;
                draw(&rng, model);
                verdicts[verdict_of(model, seed)]++;
        }
        assert_true(verdicts[LINEAR_GOOD] > 2000 && verdicts[LINEAR_BAD] > 2000);
}

/* ---- what users of values do ---- */

/* An operation of one key or two: a read, a put, a delete or a comparison. Few values, so that many
 * operations put what is there already. */
static void user_draw(struct rng *rng, struct linear_op *op)
{
        uint32_t key = (uint32_t)rng_below(rng, 2);
        uint64_t what = rng_below(rng, 4);
        if (what == 0)
                return;
        if (what == 1)
                op->txn.when = pair(key, rng_below(rng, 3));
        const struct linear_pair *puts = &pairs[pair_count];
        op->txn.then = pair(key, rng_below(rng, 3));
        if (rng_below(rng, 3) != 0)
                return;
        (void)pair(1 - key, rng_below(rng, 3));
        op->txn.then = (struct linear_pairs){puts, 2};
}

/* It happens, and tells what it found, or no more than whether its comparisons held: a repeat. */
static void user_happens(struct rng *rng, struct linear_op *op, uint64_t *values)
{
        uint64_t before[2] = {values[0], values[1]};
        struct linear_txn *txn = &op->txn;
        txn->held =
                txn->when.count == 0 || values[txn->when.items[0].key] == txn->when.items[0].value;
        for (size_t i = 0; txn->held && i < txn->then.count; i++)
                values[txn->then.items[i].key] = txn->then.items[i].value;
        if (txn->then.count > 0 && rng_below(rng, 3) == 0)
                return;
        uint32_t key = (uint32_t)rng_below(rng, 2);
        txn->saw = pair(key, before[key]);
}

/* Operations in the order in which they happen, called before and answered after it. `wrong`: one
 * tells something else than it found. */
static void users_run(struct rng *rng, bool wrong)
{
        uint64_t values[2] = {0, 0};
        history_reset();
        size_t count = 5 + rng_below(rng, 5);
        size_t liar = wrong ? rng_below(rng, count) : count;
        for (size_t i = 0; i < count; i++) {
                uint64_t at = 20 + 4 * i;
                struct linear_op *op =
                        op_add(at - rng_below(rng, 16), at + rng_below(rng, 3) * rng_below(rng, 8));
                bool lost = rng_below(rng, 6) == 0;
                user_draw(rng, op);
                if (!lost || rng_below(rng, 2) == 0)
                        user_happens(rng, op, values);
                if (lost)
                        op->returned = NEVER;
                if (i != liar)
                        continue;
                uint32_t key = (uint32_t)rng_below(rng, 2);
                op->txn.saw = pair(key, rng_below(rng, 3));
        }
}

static void test_users(void **state)
{
        (void)state;
        unsigned verdicts[4] = {0};
        for (unsigned seed = 0; seed < 20000; seed++) {
                struct rng rng;
                rng_init(&rng, seed, 1);
                bool wrong = seed % 2 == 1;
                users_run(&rng, wrong);
                enum linear_verdict verdict = verdict_of(LINEAR_VALUES, seed);
                if (!wrong && verdict != LINEAR_GOOD)
                        fail_msg("seed %u: what happened is called impossible", seed);
                verdicts[verdict]++;
        }
        assert_true(verdicts[LINEAR_GOOD] > 12000 && verdicts[LINEAR_BAD] > 2000);
}

/* Each allocation fails once: no verdict then, and nothing is leaked. */
static void test_memory(void **state)
{
        (void)state;
        struct object object = {.bug = BUG_NONE};
        rng_init(&object.rng, 7, 0);
        object_run(&object, LINEAR_VALUES);
        for (uint64_t at = 1;; at++) {
                struct heap poor;
                heap_init(&poor, 0);
                poor.fail_at = at;
                struct linear_report report = linear_check(&poor, LINEAR_VALUES, ops, op_count, 4);
                assert_int_equal(poor.used_bytes, 0);
                if (report.verdict == LINEAR_GOOD)
                        break;
                assert_int_equal(report.verdict, LINEAR_UNKNOWN);
        }
        history_reset();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),      cmocka_unit_test(test_transactions),
                cmocka_unit_test(test_locks),       cmocka_unit_test(test_objects),
                cmocka_unit_test(test_every_order), cmocka_unit_test(test_users),
                cmocka_unit_test(test_memory),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
