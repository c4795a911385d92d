/* Messages in a stream, cut at every place; the queue; the pretended wide area. */
#include "base/heap.h"
#include "link/link_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
/* cmocka needs the three above. */
#include <cmocka.h>

#define MESSAGES 40

static struct heap heap;

/* Message i: its length and every byte follow from i. */
static size_t length_of(unsigned i)
{
        static const size_t lengths[] = {0, 1, 127, 128, 129, 5, 0, 16383, 16384, 300};
        return lengths[i % COUNT_OF(lengths)];
}

static void queue_fill(struct queue *queue)
{
        static uint8_t body[16384];
        queue_init(queue, &heap);
        for (unsigned i = 0; i < MESSAGES; i++) {
                memset(body, (int)(i + 1), sizeof body);
                assert_int_equal(queue_push(queue, bytes_of(body, length_of(i))), ERR_NONE);
        }
}

static void message_check(struct bytes message, unsigned i)
{
        assert_int_equal(message.len, length_of(i));
        for (size_t at = 0; at < message.len; at++)
                assert_int_equal(message.ptr[at], (uint8_t)(i + 1));
}

/* The stream handed over in runs of random length gives the same messages. */
static void round_trip(struct rng *rng, size_t run_max)
{
        struct queue queue;
        struct assembler assembler;
        static uint8_t run[20000];
        unsigned got = 0;
        queue_fill(&queue);
        assembler_init(&assembler, &heap, 20000);
        while (queue.bytes > 0) {
                size_t len = queue_pull(&queue, run, (size_t)rng_between(rng, 1, run_max));
                struct bytes data = bytes_of(run, len), message;
                enum err err;
                while (assembler_next(&assembler, &data, &message, &err))
                        message_check(message, got++);
                assert_int_equal(err, ERR_NONE);
                assert_int_equal(data.len, 0);
        }
        assert_int_equal(got, MESSAGES);
        assembler_fini(&assembler);
}

static void test_round_trip(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 42, 0);
        round_trip(&rng, 1);
        for (unsigned i = 0; i < 30; i++)
                round_trip(&rng, i % 2 == 0 ? 300 : 20000);
        assert_int_equal(heap.used_bytes, 0);
}

static enum err feed(const char *bytes, size_t len, size_t body_max)
{
        struct assembler assembler;
        struct bytes data = bytes_of(bytes, len), message;
        enum err err;
        assembler_init(&assembler, &heap, body_max);
        while (assembler_next(&assembler, &data, &message, &err))
                continue;
        assembler_fini(&assembler);
        return err;
}

static void test_malformed(void **state)
{
        (void)state;
        static const struct {
                const char *bytes;
                size_t len;
                size_t body_max;
                enum err err;
                const char *why;
        } rows[] = {
                {"\x05", 1, 5, ERR_NONE, "as long as allowed"},
                {"\x06", 1, 5, ERR_MALFORMED, "one byte too long"},
                {"\x80\x01", 2, 128, ERR_NONE, "two bytes of length"},
                {"\x80\x01", 2, 127, ERR_MALFORMED, "two bytes of length, too long"},
                {"\x80\x00", 2, 128, ERR_MALFORMED, "longer than needed"},
                {"\xff\xff\xff\x1f", 4, (size_t)64 << 20, ERR_NONE, "just below 64 MiB"},
                {"\x80\x80\x80\x20", 4, (size_t)64 << 20, ERR_NONE, "64 MiB"},
                {"\x81\x80\x80\x20", 4, (size_t)64 << 20, ERR_MALFORMED, "64 MiB and a byte"},
                {"\x80\x80\x80\x80\x01", 5, (size_t)64 << 20, ERR_MALFORMED, "five bytes"},
                {"\xff\xff\xff\xff\xff", 5, SIZE_MAX, ERR_MALFORMED, "endless length"},
                {"GET / HTTP/1.1", 14, 70, ERR_MALFORMED, "not ours"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (feed(rows[i].bytes, rows[i].len, rows[i].body_max) != rows[i].err)
                        fail_msg("%s", rows[i].why);
        }
        assert_int_equal(heap.used_bytes, 0);
}

/* An announced length alone takes no memory. */
static void test_announced_length_is_free(void **state)
{
        (void)state;
        struct assembler assembler;
        struct bytes data = bytes_of("\x80\x80\x80\x20"
                                     "abc",
                                     7),
                     message;
        enum err err;
        assembler_init(&assembler, &heap, (size_t)64 << 20);
        assert_false(assembler_next(&assembler, &data, &message, &err));
        assert_int_equal(err, ERR_NONE);
        assert_true(heap.used_bytes < 4096);
        assembler_fini(&assembler);
}

/* Random bytes never crash, never give more than came, and stop at the first error. */
static void test_random(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 4711, 0);
        for (unsigned round = 0; round < 5000; round++) {
                char noise[64];
                for (unsigned i = 0; i < sizeof noise; i++)
                        noise[i] = (char)rng_next(&rng);
                enum err err = feed(noise, sizeof noise, 300);
                assert_true(err == ERR_NONE || err == ERR_MALFORMED);
        }
        assert_int_equal(heap.used_bytes, 0);
}

static void test_no_memory(void **state)
{
        (void)state;
        struct heap small;
        struct queue queue;
        heap_init(&small, 100);
        queue_init(&queue, &small);
        uint8_t body[200] = {0};
        assert_int_equal(queue_push(&queue, bytes_of(body, sizeof body)), ERR_NOMEM);
        assert_int_equal(queue.bytes, 0);
        assert_int_equal(queue_push(&queue, bytes_of(body, 10)), ERR_NONE);
        assert_int_equal(queue.bytes, 11);
        queue_clear(&queue);
        assert_int_equal(small.used_bytes, 0);
}

static void test_pipe_order(void **state)
{
        (void)state;
        struct pipe pipe;
        struct buffer out;
        pipe_init(&pipe, &heap);
        buffer_init(&out, &heap);
        assert_int_equal(pipe_due_us(&pipe), UINT64_MAX);
        assert_int_equal(pipe_put(&pipe, BYTES("late "), 500), ERR_NONE);
        /* Faster now, but it may not overtake. */
        assert_int_equal(pipe_put(&pipe, BYTES("soon "), 100), ERR_NONE);
        assert_int_equal(pipe_put(&pipe, BYTES("last"), 600), ERR_NONE);
        pipe_take(&pipe, 499, &out);
        assert_int_equal(out.len, 0);
        pipe_take(&pipe, 500, &out);
        assert_true(bytes_equal(buffer_view(&out), BYTES("late soon ")));
        assert_int_equal(pipe_due_us(&pipe), 600);
        pipe_take(&pipe, 9999, &out);
        assert_true(bytes_equal(buffer_view(&out), BYTES("late soon last")));
        assert_int_equal(pipe.bytes, 0);
        assert_int_equal(pipe_put(&pipe, BYTES("left"), 700), ERR_NONE);
        pipe_clear(&pipe);
        buffer_fini(&out);
        assert_int_equal(heap.used_bytes, 0);
}

/* Of a thousand segments at 5 per cent about fifty are late, each by a retransmission at least. */
static void test_pipe_loss(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 5, 0);
        struct link_impairment none = {.delay_us = 1000, .slow_us = 500};
        struct link_impairment lossy = {.delay_us = 1000, .loss_per_mille = 50};
        unsigned late = 0;
        for (unsigned i = 0; i < 1000; i++) {
                assert_int_equal(pipe_delay_us(&none, &rng, 100, 0), 1500);
                uint64_t delay_us = pipe_delay_us(&lossy, &rng, 100, 70000);
                assert_true(delay_us == 1000 || delay_us >= 201000);
                late += delay_us > 1000;
        }
        assert_in_range(late, 30, 70);
        lossy.loss_per_mille = 1000;
        /* Every retransmission is lost too, five times. */
        assert_int_equal(pipe_delay_us(&lossy, &rng, 1, 300000), 1000 + 5 * 300000);
}

int main(void)
{
        heap_init(&heap, 0);
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_announced_length_is_free),
                cmocka_unit_test(test_random),
                cmocka_unit_test(test_no_memory),
                cmocka_unit_test(test_pipe_order),
                cmocka_unit_test(test_pipe_loss),
        };
        return cmocka_run_group_tests_name("link/frame", tests, NULL, NULL);
}
