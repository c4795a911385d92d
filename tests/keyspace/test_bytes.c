/* Bytes that somebody else made: cut short, damaged, or made to hurt. Nothing may be read past its
 * end, nothing may break, and what a checksum covers may not pass. */
#include "base/rng.h"
#include "keyspace/keyspace.h"
#include "model.h"

#include "../cmocka_all.h"

enum {
        WALL_MS = 1000000,
        FLIPS = 4000,
};

static struct crdt_name named(const char *key)
{
        return (struct crdt_name){3, bytes_of_str(key)};
}

static struct keyspace *made_of(struct heap *heap, region_id origin, bool several)
{
        struct keyspace_config config = {.origin = origin,
                                         .several = several,
                                         .ring_bytes = 1 << 16,
                                         .drift_max_ms = 1000,
                                         .hash_key = {7, origin}};
        return keyspace_new(heap, &config);
}

static struct keyspace *made(struct heap *heap, region_id origin)
{
        return made_of(heap, origin, false);
}

/* Every operation once, so that its stream, its state and its save have every part.
 * Returns the first error. */
static enum err fill(struct keyspace *keyspace)
{
        struct keyspace_change change;
        struct keyspace_pair pairs[2] = {{BYTES("f"), BYTES("1")}, {BYTES("g"), BYTES("2")}};
        struct bytes members[2] = {BYTES("m"), BYTES("n")};
        uint64_t now = WALL_MS;
        enum err errs[] = {
                keyspace_local_set(keyspace, now, named("s"), BYTES("v"), 0, &change),
                keyspace_local_set(keyspace, now, named("t"), BYTES("5.50"), now + 9, &change),
                keyspace_local_increment_float(keyspace, now, named("t"), 0.25, BYTES("5.50"),
                                               &change),
                keyspace_local_set(keyspace, now, named("d"), BYTES("x"), 0, &change),
                keyspace_local_delete(keyspace, now, named("d"), &change),
                keyspace_local_increment(keyspace, now, named("c"), 7, 7, &change),
                keyspace_local_set(keyspace, now, named("c"), BYTES("3"), 0, &change),
                keyspace_local_increment(keyspace, now, named("c"), 2, 5, &change),
                keyspace_local_hash_set(keyspace, now, named("h"), pairs, 2, &change),
                keyspace_local_hash_delete(keyspace, now, named("h"), members, 1, &change),
                keyspace_local_hash_delete(keyspace, now, named("h"), &pairs[1].field, 1, &change),
                keyspace_local_expire(keyspace, now, named("h"), now + 100, &change),
                keyspace_local_hash_increment(keyspace, now, named("i"), BYTES("n"), 7, 7, &change),
                keyspace_local_hash_increment(keyspace, now, named("i"), BYTES("n"), 2, 9, &change),
                keyspace_local_hash_increment(keyspace, now, named("i"), BYTES("o"), 1, 1, &change),
                keyspace_local_hash_set(keyspace, now, named("i"),
                                        &(struct keyspace_pair){BYTES("n"), BYTES("1.5")}, 1,
                                        &change),
                keyspace_local_hash_increment_float(keyspace, now, named("i"), BYTES("n"), 0.25,
                                                    BYTES("1.5"), &change),
                keyspace_local_hash_delete(keyspace, now, named("i"),
                                           &(struct bytes){(const uint8_t *)"o", 1}, 1, &change),
                keyspace_local_hash_increment(keyspace, now, named("j"), BYTES("n"), 1, 1, &change),
                keyspace_local_delete(keyspace, now, named("j"), &change),
                keyspace_local_set_add(keyspace, now, named("m"), members, 2, &change),
                keyspace_local_set_remove(keyspace, now, named("m"), members, 1, &change),
                keyspace_local_set_add(keyspace, now, named("e"), members, 1, &change),
                keyspace_local_expire(keyspace, now, named("e"), now + 1, &change),
                keyspace_local_expired(keyspace, now + 2, named("e"), &change),
                keyspace_local_opaque(keyspace, now, named("o"), BYTES("dump"), now + 7, &change),
                keyspace_local_sibling(keyspace, now, named("w"), BYTES("one"), now + 7, &change),
                keyspace_local_sibling(keyspace, now, named("w"), BYTES("two"), 0, &change),
                keyspace_local_sibling(keyspace, now, named("x"), BYTES("gone"), 0, &change),
                keyspace_local_delete(keyspace, now, named("x"), &change),
                keyspace_local_set(keyspace, now, named("g"), BYTES("evicted"), 0, &change),
                keyspace_key_gone(keyspace, named("g")),
        };
        for (size_t i = 0; i < COUNT_OF(errs); i++) {
                if (errs[i] != ERR_NONE)
                        return errs[i];
        }
        region_id members_all[] = {1, 2};
        errs[0] = keyspace_members(keyspace, members_all, 2);
        keyspace_heartbeat(keyspace, now + 5000, &change);
        return errs[0];
}

static struct bytes stream_of(struct keyspace *keyspace, uint64_t *ret_last)
{
        struct keyspace_batch batch;
        assert_int_equal(keyspace_tail(keyspace, WALL_MS, 0, SIZE_MAX, &batch), ERR_NONE);
        assert_false(batch.gap);
        assert_int_equal(batch.parts[1].len, 0);
        *ret_last = batch.last;
        return batch.parts[0];
}

static void name_told(void *context, struct crdt_name name)
{
        buffer_bytes(context, name.key);
}

/* Keys that one delta after the other changes are told once; what a delta says is not looked at. */
static void test_names(void **state)
{
        (void)state;
        static const struct {
                enum crdt_op op;
                const char *key;
        } rows[] = {{CRDT_OP_SET, "a"},  {CRDT_OP_DEL, "a"},   {CRDT_OP_ZADD, "b"},
                    {CRDT_OP_ZADD, "b"}, {CRDT_OP_SEEN, ""},   {CRDT_OP_ZADD, "b"},
                    {CRDT_OP_SET, "a"},  {CRDT_OP_HSET, "ab"}, {CRDT_OP_EVENT, "e"}};
        struct heap heap;
        struct buffer deltas;
        struct buffer names;
        heap_init(&heap, 0);
        buffer_init(&deltas, &heap);
        buffer_init(&names, &heap);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct buffer delta;
                buffer_init(&delta, &heap);
                crdt_delta_head(&delta, 9, rows[i].op, 0, named(rows[i].key));
                buffer_slice(&deltas, buffer_view(&delta));
                buffer_fini(&delta);
        }
        for (size_t len = 0; len <= deltas.len; len++) {
                buffer_reset(&names);
                keyspace_names(bytes_of(deltas.ptr, len), name_told, &names);
                assert_true(names.len <= 5 &&
                            bytes_equal(buffer_view(&names), bytes_of("abaab", names.len)));
        }
        assert_int_equal(names.len, 5);
        buffer_fini(&deltas);
        buffer_fini(&names);
}

static enum err apply_to_new(struct bytes deltas, uint64_t last, struct keyspace_result *ret)
{
        struct heap heap;
        heap_init(&heap, 0);
        struct buffer names;
        buffer_init(&names, &heap);
        keyspace_names(deltas, name_told, &names);
        buffer_fini(&names);
        struct keyspace *keyspace = made(&heap, 2);
        enum err err = keyspace_apply(keyspace, NULL, WALL_MS + 5000, 1, 0, last, deltas, ret);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
        return err;
}

static void test_stream(void **state)
{
        (void)state;
        struct heap heap;
        struct keyspace_result result;
        struct rng rng;
        uint64_t last = 0;
        heap_init(&heap, 0);
        rng_init(&rng, 1, 0);
        struct keyspace *keyspace = made(&heap, 1);
        assert_int_equal(fill(keyspace), ERR_NONE);
        struct bytes stream = stream_of(keyspace, &last);
        assert_int_equal(apply_to_new(stream, last, &result), ERR_NONE);
        assert_int_equal(result.applied, keyspace_stats(keyspace).ring_count);
        unsigned whole = 0;
        for (size_t len = 0; len < stream.len; len++)
                whole += apply_to_new(bytes_of(stream.ptr, len), last, &result) == ERR_NONE;
        /* Only a cut between two deltas can pass. */
        assert_int_equal(whole, keyspace_stats(keyspace).ring_count);
        struct bytes copy;
        assert_true(heap_copy(&heap, stream, &copy));
        for (unsigned i = 0; i < FLIPS; i++) {
                uint64_t bit = rng_below(&rng, copy.len * 8);
                uint8_t *at = (uint8_t *)(uintptr_t)copy.ptr + bit / 8;
                *at ^= (uint8_t)(1u << bit % 8);
                (void)!apply_to_new(copy, last, &result);
                if (rng_chance(&rng, 700))
                        *at ^= (uint8_t)(1u << bit % 8);
        }
        heap_free_bytes(&heap, copy);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_bad_deltas(void **state)
{
        (void)state;
        static const struct {
                struct bytes data;
                enum err err;
                const char *why;
        } rows[] = {
                {BYTES_INIT(""), ERR_TRUNCATED, "nothing"},
                {BYTES_INIT("\0\0\0\0\0\0\0\0\x01\0\x01kv"), ERR_MALFORMED, "a clock of 0"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x01\0\x01kv"), ERR_NONE, "SET k v"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x01\0\x01k"), ERR_NONE, "SET k to nothing"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x00\0\x01k"), ERR_MALFORMED, "operation 0"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x0e\x0f\0\x01k"), ERR_MALFORMED,
                 "a long form of 15"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x0e\xff\0\x01k"), ERR_MALFORMED, "operation 255"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x0f\0\x01k\0v"), ERR_NONE, "a sibling"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x0f\0\x01k\x01\x02\x09\0\0\0\0\0\0\0v"),
                 ERR_MALFORMED, "a sibling that has seen its own time"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x5f\0\x01k\x01\0\0\0\0\0\0\0\0\0"), ERR_MALFORMED,
                 "a removal that expires"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x41\0\x01k"), ERR_MALFORMED, "a flag it has not"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x01\x80\x80\x04\x01k"), ERR_MALFORMED,
                 "a database beyond the limit"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x01\0\x7fk"), ERR_TRUNCATED, "a long key"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x01\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k"),
                 ERR_MALFORMED, "a key beyond the limit"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x06\0\x01k\0"), ERR_MALFORMED, "HSET of nothing"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x06\0\x01k\x7f"), ERR_MALFORMED,
                 "more fields than bytes"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x06\0\x01k\x01\x01"
                            "f\x01vx"),
                 ERR_MALFORMED, "something after the end"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x12\0\x01k\x01\x01\x0a\0\0\0\0\0\0\0"),
                 ERR_MALFORMED, "DEL observed its future"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x12\0\x01k\x01\x41\x01\0\0\0\0\0\0\0"),
                 ERR_MALFORMED, "DEL observed a region that cannot be"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x12\0\x01k\x02\x01\x01\0\0\0\0\0\0\0\x01\x01\0\0"
                            "\0\0\0\0\0"),
                 ERR_MALFORMED, "DEL observed a region twice"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x05\0\x01k\x01\x02\0\0\0\0\0\0\xf0\x7f"),
                 ERR_MALFORMED, "infinitely many"},
                {BYTES_INIT("\x09\0\0\0\0\0\0\0\x0b\0\x01k\0"), ERR_MALFORMED,
                 "a vector with a key"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct crdt_delta delta;
                enum err err = crdt_delta_decode(rows[i].data, 1, &delta);
                if (err != rows[i].err)
                        fail_msg("%s: %s", rows[i].why, err_name(err));
                enum crdt_op op = CRDT_OP_END;
                struct crdt_name name = {0};
                if (err != ERR_NONE)
                        continue;
                assert_int_equal(crdt_delta_peek(rows[i].data, &op, &name), ERR_NONE);
                assert_int_equal(op, delta.op);
                assert_int_equal(name.db, delta.name.db);
                assert_true(bytes_equal(name.key, delta.name.key));
        }
}

static enum err merge_to_new(struct bytes part)
{
        struct heap heap;
        struct keyspace_result result;
        heap_init(&heap, 0);
        struct keyspace *keyspace = made(&heap, 2);
        enum err err = keyspace_merge_state(keyspace, NULL, WALL_MS + 5000, part, &result);
        if (err == ERR_NONE)
                err = keyspace_adopt(keyspace, NULL, NULL, &result);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
        return err;
}

static void test_state(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer part;
        struct rng rng;
        static struct model model;
        uint64_t cursor = 0;
        heap_init(&heap, 0);
        rng_init(&rng, 2, 0);
        buffer_init(&part, &heap);
        model_init(&model);
        struct crdt_native native = model_native(&model);
        struct keyspace *keyspace = made(&heap, 1);
        assert_int_equal(fill(keyspace), ERR_NONE);
        assert_int_equal(keyspace_scan(keyspace, &native, &cursor, SIZE_MAX, &part), ERR_NONE);
        assert_int_equal(cursor, 0);
        assert_int_equal(merge_to_new(buffer_view(&part)), ERR_NONE);
        for (size_t len = 0; len < part.len; len++)
                (void)!merge_to_new(bytes_of(part.ptr, len));
        for (unsigned i = 0; i < FLIPS; i++) {
                uint64_t bit = rng_below(&rng, part.len * 8);
                part.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                (void)!merge_to_new(buffer_view(&part));
                if (rng_chance(&rng, 700))
                        part.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_fini(&part);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

static enum err load_new(struct bytes saved, uint64_t *ret_digest)
{
        struct heap heap;
        heap_init(&heap, 0);
        struct keyspace *keyspace = made(&heap, 1);
        enum err err = keyspace_load(keyspace, saved);
        *ret_digest = keyspace_digest(keyspace);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
        return err;
}

static void seal(struct buffer *saved)
{
        uint32_t crc = hash_crc32c(0, bytes_of(saved->ptr, saved->len - 4));
        buffer_patch_u32(saved, saved->len - 4, crc);
}

/* Of region 2: what it knows, and who is a member to it. */
static void hear(struct heap *heap, struct keyspace *keyspace)
{
        static const region_id members[] = {1, 2};
        struct keyspace_result result;
        struct crdt_gone gone = {.members = 3, .marks = {{[7] = 9}}};
        struct vector seen = {{[1] = 5, [2] = 6}};
        struct buffer delta;
        struct buffer batch;
        buffer_init(&delta, heap);
        buffer_init(&batch, heap);
        crdt_delta_head(&delta, 7, CRDT_OP_SEEN, CRDT_FLAG_GONE, (struct crdt_name){0});
        vector_encode(&seen, &delta);
        crdt_gone_write(&gone, &delta);
        buffer_slice(&batch, buffer_view(&delta));
        assert_int_equal(keyspace_members(keyspace, members, 2), ERR_NONE);
        assert_int_equal(
                keyspace_apply(keyspace, NULL, WALL_MS, 2, 0, 7, buffer_view(&batch), &result),
                ERR_NONE);
        buffer_fini(&delta);
        buffer_fini(&batch);
}

static struct bytes since(const struct cursor *cursor, const uint8_t *from)
{
        return bytes_of(from, (size_t)(cursor->at - from));
}

/* The same as builds before saved it: without what region 2 tells of the members, and without the
 * clock up to which tombstones are forgotten. */
static void save_of_before(struct bytes saved, struct buffer *old)
{
        struct crdt_seen seen;
        struct vector vector;
        struct cursor cursor = cursor_of(bytes_of(saved.ptr, saved.len - 4));
        cursor_bytes(&cursor, 4 + 1 + 8 + 8);
        crdt_seen_decode(&cursor, 1, &seen);
        vector_decode(&cursor, &vector);
        cursor_u64(&cursor);
        buffer_bytes(old, since(&cursor, saved.ptr));
        cursor_u64(&cursor);
        const uint8_t *from = cursor.at;
        assert_int_equal(cursor_varint(&cursor), 1);
        assert_int_equal(cursor_u8(&cursor), 2);
        vector_decode(&cursor, &vector);
        buffer_bytes(old, since(&cursor, from));
        assert_int_equal(cursor_u64(&cursor), 3);
        vector_decode(&cursor, &vector);
        assert_int_equal(vector_get(&vector, 7), 9);
        buffer_bytes(old, cursor_bytes(&cursor, cursor_left(&cursor)));
        buffer_u32(old, 0);
        assert_int_equal(old->err, ERR_NONE);
        old->ptr[3] = 3;
        seal(old);
}

static void saved_is_whole(bool several)
{
        struct heap heap;
        struct buffer saved;
        struct rng rng;
        uint64_t digest = 0;
        heap_init(&heap, 0);
        rng_init(&rng, 3, 0);
        buffer_init(&saved, &heap);
        struct keyspace *keyspace = made_of(&heap, 1, several);
        assert_int_equal(fill(keyspace), ERR_NONE);
        hear(&heap, keyspace);
        assert_int_equal(keyspace_save(keyspace, true, &saved), ERR_NONE);
        if (!several) {
                struct buffer old;
                buffer_init(&old, &heap);
                save_of_before(buffer_view(&saved), &old);
                assert_int_equal(load_new(buffer_view(&old), &digest), ERR_NONE);
                assert_int_equal(digest, keyspace_digest(keyspace));
                buffer_fini(&old);
        }
        assert_int_equal(load_new(buffer_view(&saved), &digest), ERR_NONE);
        assert_int_equal(digest, keyspace_digest(keyspace));
        for (size_t len = 0; len < saved.len; len++)
                assert_int_equal(load_new(bytes_of(saved.ptr, len), &digest), ERR_CORRUPT);
        for (size_t bit = 0; bit < saved.len * 8; bit += 3) {
                saved.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                assert_int_equal(load_new(buffer_view(&saved), &digest), ERR_CORRUPT);
                saved.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        /* Even with a checksum that fits, damage must not break anything. */
        for (unsigned i = 0; i < FLIPS; i++) {
                uint64_t bit = rng_below(&rng, (saved.len - 4) * 8);
                saved.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                seal(&saved);
                (void)!load_new(buffer_view(&saved), &digest);
                saved.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        uint8_t version = saved.ptr[3];
        saved.ptr[3] = 6;
        seal(&saved);
        assert_int_equal(load_new(buffer_view(&saved), &digest), ERR_VERSION);
        saved.ptr[3] = version;
        saved.ptr[4]++;
        seal(&saved);
        assert_int_equal(load_new(buffer_view(&saved), &digest), ERR_INVALID);
        buffer_fini(&saved);
        keyspace_free(keyspace);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_saved(void **state)
{
        (void)state;
        saved_is_whole(false);
        saved_is_whole(true);
}

/* Every allocation fails once: the error is told, and everything can be freed. */
static void test_no_memory(void **state)
{
        (void)state;
        bool done = false;
        for (uint64_t fail_at = 1; !done; fail_at++) {
                struct heap heap;
                struct buffer saved;
                heap_init(&heap, 0);
                heap.fail_at = fail_at;
                buffer_init(&saved, &heap);
                struct keyspace *keyspace = made(&heap, 1);
                enum err err = keyspace == NULL ? ERR_NOMEM : fill(keyspace);
                if (err == ERR_NONE)
                        err = keyspace_save(keyspace, true, &saved);
                done = heap.calls < fail_at;
                if (err != ERR_NONE)
                        assert_int_equal(err, ERR_NOMEM);
                if (done)
                        assert_int_equal(err, ERR_NONE);
                buffer_fini(&saved);
                keyspace_free(keyspace);
                assert_int_equal(heap.used_bytes, 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),      cmocka_unit_test(test_stream),
                cmocka_unit_test(test_bad_deltas), cmocka_unit_test(test_state),
                cmocka_unit_test(test_saved),      cmocka_unit_test(test_no_memory),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
