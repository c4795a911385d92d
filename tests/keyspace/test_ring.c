/* The ring of deltas against a list: what is read is what was appended, oldest first; what is
 * gone came before; memory is taken as it fills, and a ring that gets none goes round earlier. */
#include "keyspace/ring.h"

#include "base/cursor.h"
#include "base/rng.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <string.h>

enum {
        APPENDS = 3000,
        LIMIT = 300 << 10,
        LEN_MAX = 3000,
};

struct model {
        uint64_t clocks[APPENDS];
        size_t lens[APPENDS];
        size_t count;
};

static uint8_t filler(uint64_t hlc, size_t at)
{
        return (uint8_t)(hlc * 31 + at);
}

static void append(struct ring *ring, struct model *model, uint64_t hlc, size_t len)
{
        uint8_t *at = ring_append(ring, hlc, len);
        model->clocks[model->count] = hlc;
        model->lens[model->count++] = len;
        if (at == NULL)
                return;
        for (unsigned i = 0; i < 8; i++)
                at[i] = (uint8_t)(hlc >> 8 * i);
        for (size_t i = 8; i < len; i++)
                at[i] = filler(hlc, i);
}

/* Reads all after a position and holds it against the list. */
static void check(const struct ring *ring, const struct model *model, uint64_t after)
{
        size_t next = 0;
        while (next < model->count && model->clocks[next] <= after)
                next++;
        struct ring_read read = ring_read(ring, after, SIZE_MAX);
        assert_int_equal(read.count, model->count - next);
        struct ring_rest rest = ring_rest(ring, after);
        assert_int_equal(rest.count, read.count);
        assert_int_equal(rest.first, next < model->count ? model->clocks[next] : 0);
        assert_in_range(rest.bytes, read.parts[0].len + read.parts[1].len, ring->size);
        for (unsigned part = 0; part < 2; part++) {
                struct cursor cursor = cursor_of(read.parts[part]);
                while (cursor_left(&cursor) > 0) {
                        struct bytes delta = cursor_slice(&cursor);
                        assert_false(cursor_failed(&cursor));
                        assert_int_equal(delta.len, model->lens[next]);
                        uint64_t hlc = model->clocks[next++];
                        size_t same = 8;
                        while (same < delta.len && delta.ptr[same] == filler(hlc, same))
                                same++;
                        assert_in_range(same, delta.len, SIZE_MAX);
                }
        }
        assert_int_equal(next, model->count);
}

static void history(uint64_t seed, bool short_of_memory)
{
        static struct model model;
        struct heap heap;
        struct ring ring;
        struct rng rng;
        uint64_t hlc = 100;
        rng_init(&rng, seed, 1);
        heap_init(&heap, 0);
        model.count = 0;
        assert_true(ring_init(&ring, &heap, LIMIT));
        if (short_of_memory)
                heap.limit_bytes = heap.used_bytes + rng_below(&rng, LIMIT);
        size_t first = heap.used_bytes;
        for (unsigned i = 0; i < APPENDS; i++) {
                hlc += rng_below(&rng, 3);
                size_t len = rng_chance(&rng, 20) ? rng_between(&rng, 8, 64 << 10)
                                                  : rng_between(&rng, 8, LEN_MAX);
                append(&ring, &model, hlc, len);
                if (rng_chance(&rng, 10)) {
                        hlc -= rng_below(&rng,
                                         hlc - ring.dropped < 40 ? hlc - ring.dropped + 1 : 40);
                        ring_cut(&ring, hlc + 1);
                        while (model.count > 0 && model.clocks[model.count - 1] > hlc)
                                model.count--;
                        check(&ring, &model,
                              ring.dropped + rng_below(&rng, hlc - ring.dropped + 1));
                }
                if (rng_chance(&rng, 5))
                        ring_forget(&ring, hlc - rng_below(&rng, 50));
                uint64_t after = ring.dropped + rng_below(&rng, hlc - ring.dropped + 1);
                if (rng_chance(&rng, 100))
                        check(&ring, &model, after);
        }
        check(&ring, &model, ring.dropped);
        assert_true(heap.used_bytes >= first);
        assert_true(short_of_memory || ring.size == LIMIT);
        assert_true(ring.size <= LIMIT);
        ring_fini(&ring);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_against_a_list(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 60; seed++)
                history(seed, seed % 3 == 0);
}

static void test_takes_little_at_first(void **state)
{
        (void)state;
        struct heap heap;
        struct ring ring;
        heap_init(&heap, 0);
        assert_true(ring_init(&ring, &heap, (uint64_t)1 << 40));
        assert_in_range(heap.used_bytes, 1, 128 << 10);
        assert_non_null(ring_append(&ring, 1, 1 << 20));
        assert_in_range(heap.used_bytes, 1 << 20, 5 << 20);
        ring_fini(&ring);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_larger_than_the_limit(void **state)
{
        (void)state;
        struct heap heap;
        struct ring ring;
        heap_init(&heap, 0);
        assert_true(ring_init(&ring, &heap, LIMIT));
        assert_non_null(ring_append(&ring, 1, 100));
        assert_null(ring_append(&ring, 2, LIMIT));
        assert_int_equal(ring.count, 0);
        assert_int_equal(ring.dropped, 2);
        assert_in_range(heap.used_bytes, 1, 128 << 10);
        ring_fini(&ring);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_against_a_list),
                cmocka_unit_test(test_takes_little_at_first),
                cmocka_unit_test(test_larger_than_the_limit),
        };
        return cmocka_run_group_tests_name("keyspace/ring", tests, NULL, NULL);
}
