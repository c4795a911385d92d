/* Deltas in a record of the log: what is read is what was added, also as older builds wrote it;
 * what is damaged ends the reading and is never read beyond. */
#include "keyspace/record.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <string.h>

enum {
        DELTAS = 60,
        LEN_MAX = 300,
        FRAMES_MAX = 4096,
        OWN_KIND = 1, /* a u64 follows */
};

struct sample {
        uint8_t bytes[LEN_MAX];
        size_t len;
        bool cut;
        bool zero; /* a frame of the caller's own goes before it */
        bool kind; /* the same */
};

static struct sample samples[DELTAS];

static void samples_make(struct rng *rng)
{
        uint64_t clock = rng_next(rng);
        for (size_t i = 0; i < DELTAS; i++) {
                struct sample *sample = &samples[i];
                uint64_t way = rng_below(rng, 8);
                clock = way == 0 ? rng_next(rng) : way == 1 ? clock - 3 : clock + rng_below(rng, 3);
                sample->len =
                        RECORD_CLOCK + 1 + rng_below(rng, i % 4 == 0 ? LEN_MAX - RECORD_CLOCK : 40);
                sample->cut = rng_below(rng, 4) == 0;
                sample->zero = rng_below(rng, 8) == 0;
                sample->kind = rng_below(rng, 8) == 0;
                for (size_t at = 0; at < sample->len; at++)
                        sample->bytes[at] = at < RECORD_CLOCK ? (uint8_t)(clock >> 8 * at)
                                                              : (uint8_t)rng_next(rng);
        }
}

static struct bytes sample_bytes(const struct sample *sample)
{
        return bytes_of(sample->bytes, sample->len);
}

/* As the first builds wrote it. */
static void add_old(struct buffer *buffer, const struct sample *sample)
{
        buffer_varint(buffer, (uint64_t)sample->len << 1 | sample->cut);
        buffer_bytes(buffer, sample_bytes(sample));
}

static void write_all(struct buffer *buffer, bool old)
{
        struct record record = {0};
        for (size_t i = 0; i < DELTAS; i++) {
                if (samples[i].zero) {
                        buffer_varint(buffer, 0);
                        buffer_u64(buffer, i);
                }
                if (samples[i].kind) {
                        buffer_varint(buffer, 1);
                        buffer_u8(buffer, OWN_KIND);
                        buffer_u64(buffer, i);
                }
                if (old)
                        add_old(buffer, &samples[i]);
                else
                        record_add(&record, buffer, sample_bytes(&samples[i]), samples[i].cut);
        }
        assert_int_equal(buffer->err, ERR_NONE);
}

/* How many deltas were read as they were added; `whole`: nothing is damaged. */
static size_t read_all(struct heap *heap, struct bytes bytes, bool whole, enum err *ret_err)
{
        struct record_read read;
        size_t next = 0;
        enum record_frame frame = RECORD_DELTA;
        record_begin(&read, heap, bytes);
        for (unsigned count = 0; frame != RECORD_END && count < FRAMES_MAX; count++) {
                struct bytes delta = {0};
                uint8_t kind = 0;
                frame = record_next(&read, &delta, &kind);
                if (frame == RECORD_ZERO || frame == RECORD_KIND) {
                        uint64_t own = cursor_u64(&read.cursor);
                        if (whole)
                                assert_int_equal(own, next);
                } else if (frame != RECORD_END) {
                        bool same = next < DELTAS &&
                                    bytes_equal(delta, sample_bytes(&samples[next])) &&
                                    (frame == RECORD_CUT) == samples[next].cut;
                        if (whole)
                                assert_true(same);
                        next += same;
                }
        }
        assert_int_equal(frame, RECORD_END);
        *ret_err = read.cursor.err;
        record_end(&read);
        return next;
}

static void begin(struct heap *heap, struct buffer *buffer, uint64_t seed, bool old)
{
        struct rng rng;
        rng_init(&rng, seed, 0);
        heap_init(heap, (size_t)1 << 20);
        buffer_init(buffer, heap);
        samples_make(&rng);
        write_all(buffer, old);
}

static void test_round_trip(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 300; seed++) {
                for (unsigned old = 0; old < 2; old++) {
                        struct heap heap;
                        struct buffer buffer;
                        enum err err;
                        begin(&heap, &buffer, seed, old != 0);
                        size_t count = read_all(&heap, buffer_view(&buffer), true, &err);
                        if (count != DELTAS || err != ERR_NONE)
                                fail_msg("seed %llu, old %u: %zu deltas, %s",
                                         (unsigned long long)seed, old, count, err_text(err));
                        buffer_fini(&buffer);
                }
        }
}

/* One delta stands there as ever; each further one of neighbouring clocks is seven bytes
 * shorter. */
static void test_lengths(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct record record = {0};
        struct sample sample = {.bytes = {7, 1, 2, 3, 4, 5, 6, 7, 9}, .len = 40};
        heap_init(&heap, (size_t)1 << 20);
        buffer_init(&buffer, &heap);
        record_add(&record, &buffer, sample_bytes(&sample), false);
        assert_int_equal(buffer.len, 1 + sample.len);
        assert_int_equal(buffer.ptr[0], sample.len << 1);
        assert_memory_equal(buffer.ptr + 1, sample.bytes, sample.len);
        for (uint8_t i = 1; i < 10; i++) {
                sample.bytes[0] = (uint8_t)(7 + i);
                record_add(&record, &buffer, sample_bytes(&sample), false);
                assert_int_equal(buffer.len,
                                 1 + sample.len + 2 + i * (2 + sample.len - RECORD_CLOCK));
        }
        buffer_fini(&buffer);
}

static void test_truncated(void **state)
{
        (void)state;
        for (unsigned old = 0; old < 2; old++) {
                struct heap heap;
                struct buffer buffer;
                size_t before = 0;
                begin(&heap, &buffer, 77, old != 0);
                for (size_t len = 0; len < buffer.len; len++) {
                        uint8_t *copy = heap_alloc(&heap, len + 1); /* its end is watched */
                        assert_non_null(copy);
                        memcpy(copy, buffer.ptr, len);
                        enum err err;
                        size_t count = read_all(&heap, bytes_of(copy, len), false, &err);
                        assert_in_range(count, before, before + 1);
                        assert_true(count < DELTAS);
                        before = count;
                        heap_free(&heap, copy);
                }
                buffer_fini(&buffer);
        }
}

/* Whatever a flipped bit makes of it, it comes to an end, and what stands before is read. */
static void test_bit_flips(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 5, 0);
        for (unsigned old = 0; old < 2; old++) {
                struct heap heap;
                struct buffer buffer;
                begin(&heap, &buffer, 78, old != 0);
                for (size_t bit = 0; bit < 8 * buffer.len; bit += 1 + rng_below(&rng, 4)) {
                        enum err err;
                        buffer.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        read_all(&heap, buffer_view(&buffer), false, &err);
                        buffer.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
                buffer_fini(&buffer);
        }
}

static void test_malformed(void **state)
{
        (void)state;
        static const struct {
                const char *why;
                uint8_t bytes[12];
                size_t len;
                enum err err;
        } rows[] = {
                {"nothing", {0}, 0, ERR_NONE},
                {"no kind after a 1", {1}, 1, ERR_TRUNCATED},
                {"a delta shorter than its clock", {7 << 1, 1, 2, 3, 4, 5, 6, 7}, 8, ERR_MALFORMED},
                {"of a clock alone", {8 << 1, 1, 2, 3, 4, 5, 6, 7, 8}, 9, ERR_NONE},
                {"a length beyond the end", {9 << 1, 1, 2, 3, 4, 5, 6, 7, 8}, 9, ERR_TRUNCATED},
                {"near, and no clock", {1, RECORD_NEAR, 1 << 1}, 3, ERR_TRUNCATED},
                {"near, and no rest", {1, RECORD_NEAR, 1 << 1, 1}, 4, ERR_TRUNCATED},
                {"near, whole", {1, RECORD_NEAR, 1 << 1, 1, 9}, 5, ERR_NONE},
                {"near twice", {1, RECORD_NEAR, 1, RECORD_NEAR, 1 << 1, 1, 9}, 7, ERR_NONE},
        };
        struct heap heap;
        heap_init(&heap, (size_t)1 << 20);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                enum err err;
                read_all(&heap, bytes_of(rows[i].bytes, rows[i].len), false, &err);
                if (err != rows[i].err)
                        fail_msg("%s: %s", rows[i].why, err_text(err));
        }
}

static void test_no_memory(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        begin(&heap, &buffer, 79, false);
        struct heap none;
        enum err err;
        heap_init(&none, 16);
        assert_true(read_all(&none, buffer_view(&buffer), false, &err) < DELTAS);
        assert_int_equal(err, ERR_NOMEM);
        buffer_fini(&buffer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip), cmocka_unit_test(test_lengths),
                cmocka_unit_test(test_truncated),  cmocka_unit_test(test_bit_flips),
                cmocka_unit_test(test_malformed),  cmocka_unit_test(test_no_memory),
        };
        return cmocka_run_group_tests_name("keyspace/record", tests, NULL, NULL);
}
