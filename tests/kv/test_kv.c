/* The key-value space by scripts: what each kind of transaction does, its limits, its bytes. */
#include "../heap_group.h"
#include "base/rng.h"
#include "kv_make.h"

#include <stdio.h>
#include <stdlib.h>

static struct buffer out;
static uint64_t index_last;
static bool session_there = true;

static bool alive(void *context, uint64_t session, struct bytes owner)
{
        (void)context;
        return session_there && session == 7 && bytes_equal(owner, BYTES("me"));
}

static const struct kv_result *apply(struct kv *kv, struct kv_build *build)
{
        bool fatal = false;
        struct kv_call call = {
                .index = ++index_last, .wall_us = 5, .actor = BYTES("ann"), .session_alive = alive};
        const struct kv_result *result = kv_apply(kv, &call, txn_end(build, &out), &fatal);
        assert_false(fatal);
        kv_check(kv);
        return result;
}

static struct kv *kv_begin(void)
{
        struct kv *kv = NULL;
        index_last = 0;
        session_there = true;
        assert_int_equal(kv_new(&heap, 3, &kv), ERR_NONE);
        return kv;
}

static struct kv_build begin(void)
{
        struct kv_build build;
        kv_build_init(&build, &heap);
        return build;
}

static uint64_t put(struct kv *kv, const char *key, const char *value, uint32_t flags)
{
        struct kv_build build = begin();
        struct kv_step step = {.op = KV_PUT,
                               .key = bytes_of_str(key),
                               .value = bytes_of_str(value),
                               .flags = flags};
        kv_build_step(&build, false, &step);
        const struct kv_result *result = apply(kv, &build);
        assert_int_equal(result->kind, KV_DONE);
        return result->revision;
}

static enum kv_result_kind step_kind(struct kv *kv, const struct kv_step *step)
{
        struct kv_build build = begin();
        kv_build_step(&build, false, step);
        return apply(kv, &build)->kind;
}

static void test_versions(void **state)
{
        struct kv *kv = kv_begin();
        struct kv_item item;
        (void)state;
        uint64_t first = put(kv, "a", "1", 0);
        uint64_t second = put(kv, "a", "2", 0);
        assert_true(second > first);
        assert_true(kv_find(kv, BYTES("a"), &item));
        assert_int_equal(item.version, 2);
        assert_int_equal(item.created, first);
        assert_int_equal(item.revision, second);
        assert_true(bytes_equal(item.actor, BYTES("ann")));
        struct kv_build build = begin();
        then_do(&build, KV_DELETE, "a", 0);
        const struct kv_result *result = apply(kv, &build);
        assert_int_equal(result->steps[0].total, 1);
        assert_false(kv_find(kv, BYTES("a"), &item));
        build = begin();
        then_do(&build, KV_DELETE, "a", 0);
        uint64_t deleted = result->revision;
        result = apply(kv, &build);
        assert_int_equal(result->steps[0].total, 0);
        assert_int_equal(result->revision, deleted); /* nothing changed: no revision used */
        uint64_t again = put(kv, "a", "3", 0);
        assert_true(kv_find(kv, BYTES("a"), &item));
        assert_int_equal(item.version, 1);
        assert_int_equal(item.created, again);
        kv_free(kv);
}

static void test_conditions(void **state)
{
        static const struct {
                const char *why;
                const char *key;
                enum kv_what what;
                enum kv_relation relation;
                uint64_t number;
                bool holds;
        } rows[] = {
                {"no key has version 0", "none", KV_VERSION, KV_IS, 0, true},
                {"a key has not", "a", KV_VERSION, KV_IS, 0, false},
                {"written twice", "a", KV_VERSION, KV_IS, 2, true},
                {"less", "a", KV_VERSION, KV_LESS, 3, true},
                {"not less than itself", "a", KV_VERSION, KV_LESS, 2, false},
                {"greater", "a", KV_VERSION, KV_GREATER, 1, true},
                {"not greater than itself", "a", KV_VERSION, KV_GREATER, 2, false},
                {"revision of the last write", "a", KV_REVISION, KV_IS, 2, true},
                {"of the first", "a", KV_CREATED, KV_IS, 1, true},
                {"another one", "a", KV_CREATED, KV_IS_NOT, 1, false},
                {"bound to none", "a", KV_SESSION, KV_IS, 0, true},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct kv *kv = kv_begin();
                put(kv, "a", "1", 0);
                put(kv, "a", "2", 0);
                struct kv_build build = begin();
                when(&build, rows[i].key, rows[i].what, rows[i].relation, rows[i].number);
                then_put(&build, "t", "yes");
                struct kv_step step = {.op = KV_GET, .key = BYTES("a")};
                kv_build_step(&build, true, &step);
                const struct kv_result *result = apply(kv, &build);
                if (result->succeeded != rows[i].holds)
                        fail_msg("%s", rows[i].why);
                assert_int_equal(kv_count(kv), rows[i].holds ? 2 : 1);
                assert_int_equal(result->item_count, rows[i].holds ? 0 : 1);
                kv_free(kv);
        }
}

static bool value_holds(struct kv *kv, const char *key, enum kv_relation relation,
                        const char *value)
{
        struct kv_build build = begin();
        struct kv_condition condition = {.key = bytes_of_str(key),
                                         .what = KV_VALUE,
                                         .relation = relation,
                                         .value = bytes_of_str(value)};
        kv_build_condition(&build, &condition);
        return apply(kv, &build)->succeeded;
}

static void test_values(void **state)
{
        struct kv *kv = kv_begin();
        (void)state;
        put(kv, "a", "x", 0);
        put(kv, "empty", "", 0);
        assert_true(value_holds(kv, "a", KV_IS, "x"));
        assert_false(value_holds(kv, "a", KV_IS, ""));
        assert_true(value_holds(kv, "a", KV_IS_NOT, "y"));
        assert_true(value_holds(kv, "empty", KV_IS, ""));
        assert_false(value_holds(kv, "none", KV_IS, "")); /* no value is not an empty one */
        assert_true(value_holds(kv, "none", KV_IS_NOT, ""));
        kv_free(kv);
}

static void test_txn(void **state)
{
        struct kv *kv = kv_begin();
        struct kv_item item;
        (void)state;
        put(kv, "dir/1", "1", 0);
        put(kv, "dir/2", "2", 0);
        struct kv_build build = begin();
        then_put(&build, "x", "new");
        then_do(&build, KV_GET, "x", 0);
        then_do(&build, KV_DELETE, "dir/", KV_PREFIX);
        then_do(&build, KV_RANGE, "dir/", KV_PREFIX);
        const struct kv_result *result = apply(kv, &build);
        assert_int_equal(result->kind, KV_DONE);
        assert_int_equal(result->steps[1].count, 1); /* reads see what was written before them */
        assert_int_equal(result->items[0].revision, result->revision);
        assert_int_equal(result->steps[2].total, 2);
        assert_int_equal(result->steps[3].count, 0);
        assert_int_equal(kv_count(kv), 1);

        build = begin();
        then_put(&build, "y", "1");
        then_put(&build, "y", "2");
        assert_int_equal(apply(kv, &build)->kind, KV_INVALID);
        build = begin();
        then_put(&build, "y/1", "1");
        then_do(&build, KV_DELETE, "y", KV_PREFIX);
        assert_int_equal(apply(kv, &build)->kind, KV_INVALID);
        assert_false(kv_find(kv, BYTES("y"), &item));
        assert_false(kv_find(kv, BYTES("y/1"), &item)); /* all or nothing */
        kv_free(kv);
}

static void test_repeat(void **state)
{
        struct kv *kv = kv_begin();
        struct kv_item item;
        (void)state;
        for (int i = 0; i < 2; i++) {
                struct kv_build build = begin();
                build.id = BYTES("req-1");
                when(&build, "a", KV_VERSION, KV_IS, 0);
                then_put(&build, "a", "1");
                const struct kv_result *result = apply(kv, &build);
                assert_true(result->succeeded);
                assert_int_equal(result->repeat, i == 1);
                assert_int_equal(result->revision, 1);
        }
        assert_true(kv_find(kv, BYTES("a"), &item));
        assert_int_equal(item.version, 1);
        /* a failed one stays failed, even where its conditions hold by now */
        for (int i = 0; i < 2; i++) {
                struct kv_build build = begin();
                build.id = BYTES("req-2");
                when(&build, "b", KV_VERSION, KV_GREATER, 0);
                then_put(&build, "a", "2");
                assert_false(apply(kv, &build)->succeeded);
                put(kv, "b", "1", 0);
        }
        /* forgotten after KV_IDS_MAX others */
        for (int i = 0; i < KV_IDS_MAX; i++) {
                char id[32];
                bool fatal = false;
                struct kv_build build = begin();
                snprintf(id, sizeof id, "other-%d", i);
                build.id = bytes_of_str(id);
                struct kv_call call = {.index = ++index_last};
                assert_false(kv_apply(kv, &call, txn_end(&build, &out), &fatal)->repeat);
        }
        struct kv_build build = begin();
        build.id = BYTES("req-1");
        assert_false(apply(kv, &build)->repeat);
        kv_free(kv);
}

static void test_sessions(void **state)
{
        struct kv *kv = kv_begin();
        struct kv_step step = {
                .op = KV_PUT, .key = BYTES("s/1"), .value = BYTES("x"), .session = 7};
        struct kv_item item;
        bool fatal = false;
        (void)state;
        assert_int_equal(step_kind(kv, &step), KV_NO_SESSION); /* another owner */
        struct kv_build build = begin();
        build.owner = BYTES("me");
        kv_build_step(&build, false, &step);
        step.key = BYTES("s/2");
        kv_build_step(&build, false, &step);
        assert_int_equal(apply(kv, &build)->kind, KV_DONE);
        put(kv, "s/2", "free again", 0); /* written without a session: bound no more */
        struct kv_call call = {.index = ++index_last, .actor = BYTES("session")};
        kv_session_ended(kv, &call, 7, &fatal);
        kv_check(kv);
        assert_false(fatal);
        assert_false(kv_find(kv, BYTES("s/1"), &item));
        assert_true(kv_find(kv, BYTES("s/2"), &item));
        uint64_t revision = kv_revision(kv);
        kv_session_ended(kv, &call, 7, &fatal);
        assert_int_equal(kv_revision(kv), revision);
        kv_free(kv);
}

static void test_compaction(void **state)
{
        struct kv *kv = kv_begin();
        bool fatal = false;
        (void)state;
        uint64_t first = put(kv, "a", "1", 0);
        uint64_t second = put(kv, "a", "2", 0);
        uint64_t third = put(kv, "a", "3", 0);
        struct kv_step get = {.op = KV_GET, .key = BYTES("a"), .revision = first};
        assert_int_equal(step_kind(kv, &get), KV_DONE);
        assert_int_equal(kv_changes(kv, BYTES(""), first, &fatal)->item_count, 2);
        struct kv_step compact = {.op = KV_COMPACT, .revision = second};
        assert_int_equal(step_kind(kv, &compact), KV_DONE);
        assert_int_equal(step_kind(kv, &get), KV_COMPACTED);
        get.revision = second;
        assert_int_equal(step_kind(kv, &get), KV_DONE);
        get.revision = third + 1000;
        assert_int_equal(step_kind(kv, &get), KV_FUTURE);
        compact.revision = third + 1000;
        assert_int_equal(step_kind(kv, &compact), KV_FUTURE);
        const struct kv_result *result = kv_changes(kv, BYTES(""), first, &fatal);
        assert_int_equal(result->kind, KV_COMPACTED);
        assert_int_equal(result->compacted, second);
        result = kv_changes(kv, BYTES("a"), second, &fatal);
        assert_int_equal(result->item_count, 1);
        assert_int_equal(kv_changes(kv, BYTES("b"), second, &fatal)->item_count, 0);
        assert_int_equal(kv_changes(kv, BYTES(""), third + 1, &fatal)->kind, KV_FUTURE);
        kv_free(kv);
}

static void test_kept(void **state)
{
        struct kv *kv = kv_begin();
        (void)state;
        for (int i = 0; i < KV_KEPT_MAX + 10; i++)
                put(kv, "flag", i % 2 == 0 ? "on" : "off", KV_KEEP);
        struct kv_build build = begin();
        then_do(&build, KV_DELETE, "flag", 0);
        uint64_t revision = apply(kv, &build)->revision;
        struct kv_step compact = {.op = KV_COMPACT, .revision = revision};
        assert_int_equal(step_kind(kv, &compact), KV_DONE);
        build = begin();
        then_do(&build, KV_HISTORY, "flag", 0);
        const struct kv_result *result = apply(kv, &build);
        assert_int_equal(result->item_count, KV_KEPT_MAX);
        assert_int_equal(result->items[0].version, 0);
        assert_int_equal(result->items[1].version, KV_KEPT_MAX + 10);
        kv_free(kv);
}

static void test_limits(void **state)
{
        static uint8_t large[KV_VALUE_BYTES_MAX + 1];
        static uint8_t key[KV_KEY_BYTES_MAX + 1];
        struct kv *kv = kv_begin();
        (void)state;
        memset(key, 'k', sizeof key);
        struct kv_step step = {
                .op = KV_PUT, .key = BYTES("a"), .value = bytes_of(large, sizeof large - 1)};
        assert_int_equal(step_kind(kv, &step), KV_DONE);
        step.value.len++;
        assert_int_equal(step_kind(kv, &step), KV_INVALID);
        step = (struct kv_step){.op = KV_PUT, .key = bytes_of(key, sizeof key - 1)};
        assert_int_equal(step_kind(kv, &step), KV_DONE);
        step.key.len++;
        assert_int_equal(step_kind(kv, &step), KV_INVALID);
        step.key.len = 0;
        assert_int_equal(step_kind(kv, &step), KV_INVALID);
        /* more than one answer holds */
        for (int i = 0; i < 9; i++) {
                char name[8];
                snprintf(name, sizeof name, "v%d", i);
                step = (struct kv_step){.op = KV_PUT, .key = bytes_of_str(name)};
                step.value = bytes_of(large, KV_VALUE_BYTES_MAX);
                assert_int_equal(step_kind(kv, &step), KV_DONE);
        }
        struct kv_build build = begin();
        then_do(&build, KV_RANGE, "v", KV_PREFIX);
        const struct kv_result *result = apply(kv, &build);
        assert_true(result->steps[0].more);
        assert_int_equal(result->item_count, 7);
        step = (struct kv_step){
                .op = KV_RANGE, .key = BYTES("v"), .end = BYTES("v6"), .flags = KV_PREFIX};
        build = begin();
        kv_build_step(&build, false, &step);
        result = apply(kv, &build);
        assert_false(result->steps[0].more);
        assert_int_equal(result->item_count, 2);
        build = begin();
        for (int i = 0; i < 9; i++) {
                char name[8];
                snprintf(name, sizeof name, "v%d", i);
                then_do(&build, KV_GET, name, 0);
        }
        assert_int_equal(apply(kv, &build)->kind, KV_LIMIT);
        build = begin();
        for (int i = 0; i <= KV_STEPS_MAX; i++)
                then_do(&build, KV_GET, "a", 0);
        buffer_reset(&out);
        assert_int_equal(kv_build_end(&build, &out), ERR_LIMIT);
        kv_build_fini(&build);
        kv_free(kv);
}

static enum kv_result_kind put_large(struct kv *kv, int number)
{
        static uint8_t large[KV_VALUE_BYTES_MAX];
        char name[16];
        bool fatal = false;
        struct kv_build build = begin();
        struct kv_call call = {.index = ++index_last};
        snprintf(name, sizeof name, "k%d", number);
        struct kv_step step = {.op = KV_PUT, .key = bytes_of_str(name)};
        step.value = bytes_of(large, sizeof large);
        kv_build_step(&build, false, &step);
        return kv_apply(kv, &call, txn_end(&build, &out), &fatal)->kind;
}

/* What is overwritten is forgotten by itself, the oldest first, and that is said. */
static void test_history_is_bounded(void **state)
{
        struct kv *kv = kv_begin();
        bool fatal = false;
        (void)state;
        size_t fits = KV_HISTORY_BYTES_MAX / KV_VALUE_BYTES_MAX;
        for (size_t i = 0; i < fits; i++)
                assert_int_equal(put_large(kv, 1), KV_DONE);
        assert_int_equal(kv_compacted(kv), 0);
        for (int i = 0; i < 50; i++)
                assert_int_equal(put_large(kv, 1), KV_DONE);
        kv_check(kv);
        assert_in_range(kv_compacted(kv), 50, 53);
        assert_true(heap.used_bytes < KV_HISTORY_BYTES_MAX + KV_HISTORY_BYTES_MAX / 8);
        assert_int_equal(kv_changes(kv, BYTES(""), 1, &fatal)->kind, KV_COMPACTED);
        assert_int_equal(kv_changes(kv, BYTES(""), kv_compacted(kv), &fatal)->kind, KV_DONE);
        kv_free(kv);
}

static void test_bytes_are_bounded(void **state)
{
        struct kv *kv = kv_begin();
        int count = 0;
        (void)state;
        while (put_large(kv, count) == KV_DONE)
                count++;
        assert_in_range(count, KV_BYTES_MAX / KV_VALUE_BYTES_MAX - 2,
                        KV_BYTES_MAX / KV_VALUE_BYTES_MAX);
        struct kv_build build = begin();
        then_do(&build, KV_DELETE, "k1", 0);
        assert_int_equal(apply(kv, &build)->kind, KV_DONE);
        assert_int_equal(put_large(kv, count), KV_DONE);
        kv_free(kv);
}

/* A space with all that a snapshot may hold. */
static struct kv *kv_full(void)
{
        struct kv *kv = kv_begin();
        put(kv, "a", "1", KV_KEEP);
        put(kv, "a", "2", KV_KEEP);
        put(kv, "b", "1", 0);
        struct kv_step compact = {.op = KV_COMPACT, .revision = kv_revision(kv)};
        assert_int_equal(step_kind(kv, &compact), KV_DONE);
        put(kv, "b", "2", 0);
        struct kv_build build = begin();
        build.id = BYTES("id");
        build.owner = BYTES("me");
        struct kv_step step = {.op = KV_PUT, .key = BYTES("s"), .session = 7};
        kv_build_step(&build, false, &step);
        then_do(&build, KV_DELETE, "a", 0);
        assert_int_equal(apply(kv, &build)->kind, KV_DONE);
        return kv;
}

static void test_snapshot(void **state)
{
        struct kv *kv = kv_full();
        struct kv *copy = NULL;
        struct buffer bytes;
        struct buffer again;
        (void)state;
        buffer_init(&bytes, &heap);
        buffer_init(&again, &heap);
        kv_encode(kv, &bytes);
        assert_int_equal(kv_new(&heap, 99, &copy), ERR_NONE);
        put(copy, "old", "gone after", 0);
        assert_int_equal(kv_decode(copy, buffer_view(&bytes)), ERR_NONE);
        kv_check(copy);
        kv_encode(copy, &again);
        assert_true(bytes_equal(buffer_view(&bytes), buffer_view(&again)));
        /* both go on alike */
        bool fatal = false;
        struct kv_call call = {.index = 1000};
        kv_session_ended(kv, &call, 7, &fatal);
        kv_session_ended(copy, &call, 7, &fatal);
        buffer_reset(&bytes);
        buffer_reset(&again);
        kv_encode(kv, &bytes);
        kv_encode(copy, &again);
        assert_true(bytes_equal(buffer_view(&bytes), buffer_view(&again)));
        buffer_fini(&bytes);
        buffer_fini(&again);
        kv_free(copy);
        kv_free(kv);
}

static void test_snapshot_damaged(void **state)
{
        struct kv *kv = kv_full();
        struct buffer bytes;
        (void)state;
        buffer_init(&bytes, &heap);
        kv_encode(kv, &bytes);
        for (size_t len = 0; len < bytes.len; len++)
                assert_int_not_equal(kv_decode(kv, bytes_of(bytes.ptr, len)), ERR_NONE);
        for (size_t bit = 0; bit < bytes.len * 8; bit++) {
                bytes.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (kv_decode(kv, buffer_view(&bytes)) == ERR_NONE)
                        kv_check(kv);
                bytes.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_u8(&bytes, 0);
        assert_int_equal(kv_decode(kv, buffer_view(&bytes)), ERR_MALFORMED);
        buffer_fini(&bytes);
        kv_free(kv);
}

static void walk_all(struct bytes data)
{
        struct kv_txn txn;
        struct kv_step step;
        struct kv_condition condition;
        if (kv_txn_decode(data, &txn) != ERR_NONE)
                return;
        struct kv_walk walk = kv_walk_conditions(&txn);
        while (kv_walk_condition(&walk, &condition))
                continue;
        for (int i = 0; i < 2; i++) {
                walk = kv_walk_steps(&txn, i == 1);
                while (kv_walk_step(&walk, &step))
                        continue;
        }
}

static void read_all(struct bytes data)
{
        struct kv_reading reading;
        struct kv_answer_step step;
        struct kv_item item;
        if (kv_result_open(data, &reading) != ERR_NONE)
                return;
        while (kv_result_step(&reading, &step)) {
                while (kv_result_item(&reading, &item))
                        continue;
        }
}

/* Every prefix and every flipped bit of both: refused or read, never more. */
static void test_codes_damaged(void **state)
{
        struct kv *kv = kv_full();
        struct buffer txn;
        struct buffer answer;
        bool fatal = false;
        (void)state;
        buffer_init(&txn, &heap);
        buffer_init(&answer, &heap);
        struct kv_build build = begin();
        build.id = BYTES("id-2");
        when(&build, "b", KV_VERSION, KV_GREATER, 1);
        then_do(&build, KV_RANGE, "", KV_PREFIX);
        then_do(&build, KV_HISTORY, "a", 0);
        struct kv_call call = {.index = 100};
        struct bytes data = txn_end(&build, &txn);
        const struct kv_result *result = kv_apply(kv, &call, data, &fatal);
        assert_true(result->succeeded);
        kv_result_encode(result, &answer);
        struct kv_reading reading;
        struct kv_answer_step step;
        struct kv_item item;
        assert_int_equal(kv_result_open(buffer_view(&answer), &reading), ERR_NONE);
        assert_true(kv_result_step(&reading, &step));
        assert_int_equal(step.count, 2);
        assert_true(kv_result_item(&reading, &item));
        assert_true(bytes_equal(item.key, BYTES("b")));
        assert_true(kv_result_step(&reading, &step));
        assert_int_equal(step.op, KV_HISTORY);
        assert_false(kv_result_step(&reading, &step));
        for (size_t len = 0; len < data.len; len++) {
                struct kv_txn decoded;
                assert_int_not_equal(kv_txn_decode(bytes_of(data.ptr, len), &decoded), ERR_NONE);
        }
        for (size_t len = 0; len < answer.len; len++)
                assert_int_not_equal(kv_result_open(bytes_of(answer.ptr, len), &reading), ERR_NONE);
        for (size_t bit = 0; bit < txn.len * 8; bit++) {
                txn.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                walk_all(buffer_view(&txn));
                call.index++;
                (void)kv_apply(kv, &call, buffer_view(&txn), &fatal);
                kv_check(kv);
                txn.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t bit = 0; bit < answer.len * 8; bit++) {
                answer.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                read_all(buffer_view(&answer));
                answer.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_fini(&txn);
        buffer_fini(&answer);
        kv_free(kv);
}

/* Each allocation fails once: a fatal replica, or nothing changed; never a crash. */
static void test_no_memory(void **state)
{
        (void)state;
        struct kv_build build = begin();
        build.id = BYTES("id");
        then_put(&build, "k", "v");
        then_do(&build, KV_GET, "k", 0);
        struct buffer txn;
        buffer_init(&txn, &heap);
        struct bytes data = txn_end(&build, &txn);
        for (uint64_t at = 1;; at++) {
                struct heap failing;
                struct kv *kv = NULL;
                bool fatal = false;
                heap_init(&failing, 0);
                failing.fail_at = at;
                enum err err = kv_new(&failing, 1, &kv);
                if (err == ERR_NONE) {
                        struct kv_call call = {.index = 1};
                        (void)kv_apply(kv, &call, data, &fatal);
                }
                bool failed = failing.calls >= at;
                assert_true(!failed || fatal || err == ERR_NOMEM);
                kv_free(kv);
                assert_int_equal(failing.used_bytes, 0);
                if (!failed)
                        break;
        }
        buffer_fini(&txn);
}

static int group_begin(void **state)
{
        buffer_init(&out, &heap);
        return heap_group_setup(state);
}

static int group_end(void **state)
{
        buffer_fini(&out);
        return heap_group_teardown(state);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_versions),
                cmocka_unit_test(test_conditions),
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_txn),
                cmocka_unit_test(test_repeat),
                cmocka_unit_test(test_sessions),
                cmocka_unit_test(test_compaction),
                cmocka_unit_test(test_kept),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_history_is_bounded),
                cmocka_unit_test(test_bytes_are_bounded),
                cmocka_unit_test(test_snapshot),
                cmocka_unit_test(test_snapshot_damaged),
                cmocka_unit_test(test_codes_damaged),
                cmocka_unit_test(test_no_memory),
        };
        return cmocka_run_group_tests(tests, group_begin, group_end);
}
