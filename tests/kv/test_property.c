/* Random transactions beside a model that is the plain list of all changes ever made. Every read,
 * past and present, every range, every run of changes must be what the list says; and a restored
 * copy must stay the same, byte by byte. */
#include "base/rng.h"
#include "kv_make.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        KEYS = 12,
        STEPS = 600,
        ROUNDS = 60,
        CHANGES = STEPS * KEYS,
        SESSIONS = 3,
};

struct change {
        unsigned key;
        uint64_t revision;
        uint64_t version; /* 0: deleted */
        uint64_t created;
        uint64_t session;
        char value[24];
};

struct model {
        struct change changes[CHANGES];
        size_t count;
        uint64_t revision;
        uint64_t compacted;
};

struct world {
        struct heap heap;
        struct rng rng;
        struct kv *kv;
        struct kv *twin; /* restored from a snapshot now and then */
        struct model model;
        uint64_t index;
        struct buffer txn;
        bool capturing;
        struct buffer whole; /* the bytes when the capture began */
        struct buffer steps;
};

static const char *key_name(unsigned key)
{
        static char names[KEYS][8];
        snprintf(names[key], sizeof names[key], "%c/%u", 'a' + (int)(key % 3), key);
        return names[key];
}

static const struct change *model_at(const struct model *model, unsigned key, uint64_t revision)
{
        for (size_t i = model->count; i > 0; i--) {
                const struct change *change = &model->changes[i - 1];
                if (change->key == key && change->revision <= revision)
                        return change->version > 0 ? change : NULL;
        }
        return NULL;
}

static bool alive(void *context, uint64_t session, struct bytes owner)
{
        (void)context;
        (void)owner;
        return session <= SESSIONS;
}

static const struct kv_result *apply(struct world *world, struct kv_build *build)
{
        bool fatal = false;
        struct kv_call call = {.index = world->index, .session_alive = alive};
        struct bytes txn = txn_end(build, &world->txn);
        const struct kv_result *result = kv_apply(world->twin, &call, txn, &fatal);
        uint64_t revision = result->revision;
        result = kv_apply(world->kv, &call, txn, &fatal);
        assert_int_equal(result->revision, revision);
        assert_false(fatal);
        return result;
}

static void change_add(struct model *model, unsigned key, const char *value, uint64_t session)
{
        const struct change *old = model_at(model, key, UINT64_MAX);
        assert_true(model->count < CHANGES);
        struct change *change = &model->changes[model->count++];
        *change = (struct change){.key = key, .revision = model->revision};
        if (value != NULL) {
                change->version = old == NULL ? 1 : old->version + 1;
                change->created = old == NULL ? model->revision : old->created;
                change->session = session;
                snprintf(change->value, sizeof change->value, "%s", value);
        }
}

static void revision_next(struct world *world)
{
        uint64_t next = world->model.revision + 1;
        world->model.revision = next > world->index ? next : world->index;
}

/* A put of one or two keys, on a condition that holds half of the time. */
static void do_put(struct world *world)
{
        struct kv_build build;
        struct model *model = &world->model;
        unsigned first = (unsigned)rng_below(&world->rng, KEYS);
        unsigned second = (first + 1 + (unsigned)rng_below(&world->rng, KEYS - 1)) % KEYS;
        const struct change *old = model_at(model, second, UINT64_MAX);
        uint64_t wanted = rng_below(&world->rng, 2) == 0 ? 0 : (old == NULL ? 0 : old->version);
        bool holds = wanted == (old == NULL ? 0 : old->version);
        uint64_t session = rng_below(&world->rng, SESSIONS + 3);
        session = session > SESSIONS ? 0 : session;
        char value[24];
        snprintf(value, sizeof value, "%llu", (unsigned long long)rng_next(&world->rng));
        kv_build_init(&build, &world->heap);
        when(&build, key_name(second), KV_VERSION, KV_IS, wanted);
        struct kv_step step = {.op = KV_PUT,
                               .key = bytes_of_str(key_name(first)),
                               .value = bytes_of_str(value),
                               .session = session,
                               .flags = first % 4 == 0 ? KV_KEEP : 0};
        kv_build_step(&build, false, &step);
        then_put(&build, key_name(second), value);
        struct kv_step get = {.op = KV_GET, .key = bytes_of_str(key_name(first))};
        kv_build_step(&build, true, &get);
        const struct kv_result *result = apply(world, &build);
        assert_int_equal(result->kind, KV_DONE);
        assert_int_equal(result->succeeded, holds);
        if (!holds)
                return;
        revision_next(world);
        assert_int_equal(result->revision, model->revision);
        change_add(model, first, value, session);
        change_add(model, second, value, 0);
}

static void do_delete(struct world *world)
{
        struct kv_build build;
        struct model *model = &world->model;
        char prefix[4] = {(char)('a' + (char)rng_below(&world->rng, 3)), '/'};
        uint64_t deleted = 0;
        kv_build_init(&build, &world->heap);
        then_do(&build, KV_DELETE, prefix, KV_PREFIX);
        const struct kv_result *result = apply(world, &build);
        struct bytes found[KEYS];
        unsigned keys[KEYS];
        for (unsigned key = 0; key < KEYS; key++) {
                if (key_name(key)[0] != prefix[0] || model_at(model, key, UINT64_MAX) == NULL)
                        continue;
                found[deleted] = bytes_of_str(key_name(key));
                keys[deleted++] = key;
        }
        assert_int_equal(result->steps[0].total, deleted);
        if (deleted > 0)
                revision_next(world);
        /* in the order of keys */
        for (uint64_t i = 0; i < deleted; i++) {
                uint64_t least = i;
                for (uint64_t j = i + 1; j < deleted; j++)
                        if (bytes_compare(found[j], found[least]) < 0)
                                least = j;
                unsigned key = keys[least];
                found[least] = found[i];
                keys[least] = keys[i];
                change_add(model, key, NULL, 0);
        }
}

static void do_session_end(struct world *world)
{
        struct model *model = &world->model;
        uint64_t session = 1 + rng_below(&world->rng, SESSIONS);
        bool fatal = false;
        struct kv_call call = {.index = world->index};
        kv_session_ended(world->kv, &call, session, &fatal);
        kv_session_ended(world->twin, &call, session, &fatal);
        bool any = false;
        size_t count = model->count;
        for (size_t i = 0; i < count; i++) {
                const struct change *change = &model->changes[i];
                if (change->session != session ||
                    model_at(model, change->key, UINT64_MAX) != change)
                        continue;
                if (!any)
                        revision_next(world);
                any = true;
                change_add(model, change->key, NULL, 0);
        }
}

static void do_compact(struct world *world)
{
        struct kv_build build;
        struct model *model = &world->model;
        uint64_t low = model->compacted;
        struct kv_step step = {.op = KV_COMPACT};
        step.revision = rng_between(&world->rng, low, model->revision);
        kv_build_init(&build, &world->heap);
        kv_build_step(&build, false, &step);
        assert_int_equal(apply(world, &build)->kind, KV_DONE);
        model->compacted = step.revision;
        assert_int_equal(kv_compacted(world->kv), model->compacted);
}

static void do_restore(struct world *world)
{
        struct buffer bytes;
        buffer_init(&bytes, &world->heap);
        kv_encode(world->kv, &bytes);
        assert_int_equal(kv_decode(world->twin, buffer_view(&bytes)), ERR_NONE);
        buffer_fini(&bytes);
}

/* ---- what must be so ---- */

static void check_item(const struct kv_item *item, const struct change *change)
{
        assert_true(bytes_equal(item->key, bytes_of_str(key_name(change->key))));
        assert_true(bytes_equal(item->value, bytes_of_str(change->value)));
        assert_int_equal(item->revision, change->revision);
        assert_int_equal(item->version, change->version);
        assert_int_equal(item->session, change->session);
        if (change->version > 0)
                assert_int_equal(item->created, change->created);
}

static void check_past(struct world *world)
{
        struct model *model = &world->model;
        struct kv_build build;
        struct kv_step step = {.op = KV_RANGE, .flags = KV_PREFIX};
        step.revision = rng_between(&world->rng, model->compacted, model->revision);
        kv_build_init(&build, &world->heap);
        kv_build_step(&build, false, &step);
        bool fatal = false;
        struct kv_txn txn;
        assert_int_equal(kv_txn_decode(txn_end(&build, &world->txn), &txn), ERR_NONE);
        const struct kv_result *result = kv_read(world->kv, &txn, &fatal);
        assert_int_equal(result->kind, KV_DONE);
        size_t expected = 0;
        uint64_t revision = step.revision == 0 ? UINT64_MAX : step.revision;
        for (unsigned key = 0; key < KEYS; key++)
                expected += model_at(model, key, revision) != NULL;
        assert_int_equal(result->item_count, expected);
        for (size_t i = 0; i < result->item_count; i++) {
                unsigned key =
                        (unsigned)strtoul((const char *)result->items[i].key.ptr + 2, NULL, 10);
                assert_non_null(model_at(model, key, revision));
                check_item(&result->items[i], model_at(model, key, revision));
                assert_true(i == 0 ||
                            bytes_compare(result->items[i - 1].key, result->items[i].key) < 0);
        }
}

static void check_changes(struct world *world)
{
        struct model *model = &world->model;
        uint64_t after = rng_between(&world->rng, model->compacted, model->revision);
        char prefix[4] = {(char)('a' + (char)rng_below(&world->rng, 3)), '/'};
        bool fatal = false;
        const struct kv_result *result = kv_changes(world->kv, bytes_of_str(prefix), after, &fatal);
        assert_int_equal(result->kind, KV_DONE);
        size_t at = 0;
        for (size_t i = 0; i < model->count; i++) {
                const struct change *change = &model->changes[i];
                if (change->revision <= after || key_name(change->key)[0] != prefix[0])
                        continue;
                assert_true(at < result->item_count);
                check_item(&result->items[at++], change);
        }
        assert_int_equal(at, result->item_count);
        if (model->compacted > 0)
                assert_int_equal(
                        kv_changes(world->kv, BYTES(""), model->compacted - 1, &fatal)->kind,
                        KV_COMPACTED);
}

/* What a key that keeps versions has is the newest part of what the list has. */
static void check_history(struct world *world, unsigned key)
{
        struct model *model = &world->model;
        struct kv_build build;
        kv_build_init(&build, &world->heap);
        then_do(&build, KV_HISTORY, key_name(key), 0);
        bool fatal = false;
        struct kv_txn txn;
        assert_int_equal(kv_txn_decode(txn_end(&build, &world->txn), &txn), ERR_NONE);
        const struct kv_result *result = kv_read(world->kv, &txn, &fatal);
        size_t at = 0;
        for (size_t i = model->count; i > 0 && at < result->item_count; i--) {
                const struct change *change = &model->changes[i - 1];
                if (change->key == key && result->items[at].revision == change->revision)
                        check_item(&result->items[at++], change);
        }
        assert_int_equal(at, result->item_count);
}

static void check_twin(struct world *world)
{
        struct buffer one;
        struct buffer other;
        buffer_init(&one, &world->heap);
        buffer_init(&other, &world->heap);
        kv_encode(world->kv, &one);
        kv_encode(world->twin, &other);
        assert_true(bytes_equal(buffer_view(&one), buffer_view(&other)));
        buffer_fini(&one);
        buffer_fini(&other);
}

/* A capture in steps gives the bytes of the moment at which it began. */
static void capture(struct world *world)
{
        uint64_t dice = rng_below(&world->rng, 100);
        if (!world->capturing && dice < 10) {
                buffer_reset(&world->whole);
                buffer_reset(&world->steps);
                struct buffer bytes;
                buffer_init(&bytes, &world->heap);
                kv_encode(world->kv, &bytes);
                buffer_slice(&world->whole, buffer_view(&bytes));
                buffer_fini(&bytes);
                kv_capture_begin(world->kv, &world->steps);
                world->capturing = true;
        } else if (world->capturing && dice < 60) {
                size_t size = 1 + (size_t)rng_below(&world->rng, 200);
                if (!kv_capture_step(world->kv, size, &world->steps))
                        return;
                assert_true(bytes_equal(buffer_view(&world->whole), buffer_view(&world->steps)));
                kv_capture_end(world->kv);
                world->capturing = false;
        } else if (world->capturing && dice < 62) {
                kv_capture_end(world->kv);
                world->capturing = false;
        }
}

static void step(struct world *world)
{
        uint64_t dice = rng_below(&world->rng, 100);
        world->index += rng_below(&world->rng, 3);
        if (dice < 75)
                do_put(world);
        else if (dice < 88)
                do_delete(world);
        else if (dice < 94)
                do_session_end(world);
        else if (dice < 97)
                do_compact(world);
        else
                do_restore(world);
        kv_check(world->kv);
        kv_check(world->twin);
        assert_int_equal(kv_revision(world->kv), world->model.revision);
        capture(world);
        check_past(world);
        check_changes(world);
        check_history(world, (unsigned)rng_below(&world->rng, KEYS / 4) * 4);
}

static void test_property(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
                struct world *world = calloc(1, sizeof *world);
                assert_non_null(world);
                print_message("seed %llu\n", (unsigned long long)seed);
                heap_init(&world->heap, 0);
                rng_init(&world->rng, seed, 0);
                buffer_init(&world->txn, &world->heap);
                buffer_init(&world->whole, &world->heap);
                buffer_init(&world->steps, &world->heap);
                assert_int_equal(kv_new(&world->heap, seed, &world->kv), ERR_NONE);
                assert_int_equal(kv_new(&world->heap, seed + 1, &world->twin), ERR_NONE);
                for (int i = 0; i < STEPS / 2; i++)
                        step(world);
                check_twin(world);
                kv_free(world->kv);
                kv_free(world->twin);
                buffer_fini(&world->txn);
                buffer_fini(&world->whole);
                buffer_fini(&world->steps);
                assert_int_equal(world->heap.used_bytes, 0);
                free(world);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_property)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
