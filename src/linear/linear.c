/* linear.c - a history into its parts: keys that an operation names together belong together, and
 * each part is searched alone. The first part that is bad, or too hard, decides. */
#include "linear/linear.h"

#include "base/check.h"
#include "linear/linear_priv.h"

enum {
        LOCK_WORDS = 3,
};

struct parts {
        uint32_t *root;   /* of each key, by union-find */
        uint32_t *places; /* of each key in the state of its part */
        size_t *ops;      /* of the part in hand */
};

static uint32_t root_of(uint32_t *root, uint32_t key)
{
        while (root[key] != key) {
                root[key] = root[root[key]];
                key = root[key];
        }
        return key;
}

static const struct linear_pairs *pairs_at(const struct linear_txn *txn, size_t i)
{
        const struct linear_pairs *all[] = {&txn->when, &txn->then, &txn->otherwise, &txn->saw};
        return i < sizeof all / sizeof all[0] ? all[i] : NULL;
}

/* The first key that an operation names; UINT32_MAX: none. */
static uint32_t key_of(enum linear_model model, const struct linear_op *op)
{
        if (model == LINEAR_LOCKS)
                return op->lock.key;
        const struct linear_pairs *pairs;
        for (size_t i = 0; (pairs = pairs_at(&op->txn, i)) != NULL; i++)
                if (pairs->count > 0)
                        return pairs->items[0].key;
        return UINT32_MAX;
}

static void keys_join(uint32_t *root, const struct linear_op *op, uint32_t key_count)
{
        uint32_t first = key_of(LINEAR_VALUES, op);
        const struct linear_pairs *pairs;
        for (size_t i = 0; (pairs = pairs_at(&op->txn, i)) != NULL; i++) {
                for (size_t k = 0; k < pairs->count; k++) {
                        CHECK(pairs->items[k].key < key_count);
                        root[root_of(root, pairs->items[k].key)] = root_of(root, first);
                }
        }
}

/* How many words the state of the part has; 0: more than there may be. */
static size_t places_give(struct parts *parts, uint32_t part, enum linear_model model,
                          uint32_t key_count)
{
        size_t words = 0;
        for (uint32_t key = 0; key < key_count; key++) {
                if (root_of(parts->root, key) != part)
                        continue;
                if (words + LOCK_WORDS > LINEAR_KEYS_MAX)
                        return 0;
                parts->places[key] = (uint32_t)words;
                words += model == LINEAR_LOCKS ? LOCK_WORDS : 1;
        }
        return words;
}

static void part_check(struct heap *heap, enum linear_model model, struct parts *parts,
                       uint32_t part, const struct linear_op *ops, size_t count, uint32_t key_count,
                       struct linear_report *report)
{
        size_t found = 0;
        for (size_t i = 0; i < count; i++) {
                uint32_t key = key_of(model, &ops[i]);
                if (key != UINT32_MAX && root_of(parts->root, key) == part)
                        parts->ops[found++] = i;
        }
        if (found == 0)
                return;
        report->parts++;
        struct linear_part shape = {.places = parts->places,
                                    .words = places_give(parts, part, model, key_count)};
        if (shape.words == 0) {
                report->verdict = LINEAR_UNKNOWN;
                return;
        }
        linear_search(heap, model, &shape, ops, count, parts->ops, found, report);
}

struct linear_report linear_check(struct heap *heap, enum linear_model model,
                                  const struct linear_op *ops, size_t count, uint32_t key_count)
{
        struct linear_report report = {.verdict = LINEAR_GOOD};
        if (count == 0 || key_count == 0)
                return report;
        struct parts parts = {
                .root = heap_alloc_array(heap, key_count, sizeof *parts.root),
                .places = heap_alloc_array(heap, key_count, sizeof *parts.places),
                .ops = heap_alloc_array(heap, count, sizeof *parts.ops),
        };
        if (parts.root == NULL || parts.places == NULL || parts.ops == NULL)
                report.verdict = LINEAR_UNKNOWN;
        for (uint32_t key = 0; report.verdict == LINEAR_GOOD && key < key_count; key++)
                parts.root[key] = key;
        for (size_t i = 0; report.verdict == LINEAR_GOOD && i < count; i++) {
                if (model == LINEAR_LOCKS)
                        CHECK(ops[i].lock.key < key_count);
                else
                        keys_join(parts.root, &ops[i], key_count);
        }
        for (uint32_t key = 0; report.verdict == LINEAR_GOOD && key < key_count; key++)
                if (root_of(parts.root, key) == key)
                        part_check(heap, model, &parts, key, ops, count, key_count, &report);
        heap_free(heap, parts.root);
        heap_free(heap, parts.places);
        heap_free(heap, parts.ops);
        return report;
}
