/* Messages between nodes: read back as written, refused when damaged. */
#include "node/node_priv.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct heap heap;

static const struct envelope envelopes[] = {
        {.kind = ENVELOPE_RAFT_GLOBAL, .body = BYTES_INIT("raft")},
        {.kind = ENVELOPE_RAFT_REGION},
        {.kind = ENVELOPE_GOSSIP, .body = BYTES_INIT("g")},
        {.kind = ENVELOPE_PROPOSE, .group = WORLD_GROUP_REGION, .body = BYTES_INIT("c")},
        {.kind = ENVELOPE_FORWARD, .id = 1ull << 63, .body = BYTES_INIT("r")},
        {.kind = ENVELOPE_ANSWER, .id = 0},
        {.kind = ENVELOPE_RESULT, .id = 300, .incarnation = 7, .body = BYTES_INIT("r")},
};

static void test_envelopes(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        for (size_t i = 0; i < COUNT_OF(envelopes); i++) {
                struct buffer buffer;
                struct envelope read;
                buffer_init(&buffer, &heap);
                envelope_encode(&envelopes[i], &buffer);
                assert_int_equal(envelope_decode(buffer_view(&buffer), &read), ERR_NONE);
                assert_int_equal(read.kind, envelopes[i].kind);
                assert_int_equal(read.group, envelopes[i].group);
                assert_true(read.id == envelopes[i].id);
                assert_true(bytes_equal(read.body, envelopes[i].body));
                size_t head = buffer.len - envelopes[i].body.len;
                for (size_t len = 0; len < head; len++)
                        assert_int_not_equal(envelope_decode(bytes_of(buffer.ptr, len), &read),
                                             ERR_NONE);
                buffer.ptr[0] = 9;
                assert_int_equal(envelope_decode(buffer_view(&buffer), &read), ERR_VERSION);
                buffer_fini(&buffer);
        }
        struct envelope read;
        assert_int_equal(envelope_decode(BYTES("\x01\x00"), &read), ERR_MALFORMED);
        uint8_t beyond[] = {1, ENVELOPE_KIND_COUNT};
        assert_int_equal(envelope_decode(bytes_of(beyond, 2), &read), ERR_MALFORMED);
        assert_int_equal(envelope_decode(BYTES("\x01\x04\x02"), &read), ERR_MALFORMED);
        assert_int_equal(heap.used_bytes, 0);
}

static void gossip_sample(struct gossip *ret)
{
        memset(ret, 0, sizeof *ret);
        ret->epoch = 300;
        ret->term = 7;
        ret->leader = 2;
        ret->redis_known = true;
        ret->caught_up = true;
        ret->backends_up = 5;
        ret->lag_count = 2;
        ret->lags[0] = (struct node_status_lag){2, true, 1500, 1ull << 50, false, 0};
        ret->lags[1] = (struct node_status_lag){3, false, 0, 0, false, 0};
        ret->rtt_count = 1;
        ret->rtts[0].region = 2;
        ret->rtts[0].rtt_us = 70000;
        ret->report.node = 1;
}

static void test_gossip(void **state)
{
        struct gossip gossip;
        struct gossip read;
        struct buffer buffer;
        struct buffer again;
        struct rng rng;
        (void)state;
        heap_init(&heap, 0);
        gossip_sample(&gossip);
        buffer_init(&buffer, &heap);
        buffer_init(&again, &heap);
        gossip_encode(&gossip, &buffer);
        memset(&read, 0, sizeof read);
        assert_int_equal(gossip_decode(buffer_view(&buffer), &read), ERR_NONE);
        gossip_encode(&read, &again);
        assert_true(bytes_equal(buffer_view(&buffer), buffer_view(&again)));
        for (size_t len = 0; len < buffer.len; len++)
                assert_int_not_equal(gossip_decode(bytes_of(buffer.ptr, len), &read), ERR_NONE);
        rng_init(&rng, 5, 0);
        for (int round = 0; round < 20000; round++) {
                size_t at = rng_below(&rng, buffer.len);
                uint8_t old = buffer.ptr[at];
                buffer.ptr[at] = (uint8_t)rng_next(&rng);
                if (gossip_decode(buffer_view(&buffer), &read) == ERR_NONE) {
                        assert_true(read.lag_count <= NODE_STATUS_REGIONS_MAX);
                        assert_true(read.rtt_count <= NODE_STATUS_REGIONS_MAX);
                }
                buffer.ptr[at] = old;
        }
        buffer_fini(&again);
        buffer_fini(&buffer);
}

static void test_words(void **state)
{
        struct postgres_word word = {.report = {.node = 3,
                                                .region = 2,
                                                .server = PRIMARY_STANDBY,
                                                .system = 9,
                                                .epoch = 5,
                                                .timeline = 2,
                                                .written = 77,
                                                .line_count = 1,
                                                .lines = {{1, 4, 70}}},
                                     .grant = 1u << 20,
                                     .grant_node = 4,
                                     .news = {5, 5, 80},
                                     .designated = 3,
                                     .lag_known = true,
                                     .lag_us = 12345};
        struct postgres_word back;
        struct buffer buffer;
        struct rng rng;
        (void)state;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        postgres_word_encode(&word, &buffer);
        assert_int_equal(postgres_word_decode(buffer_view(&buffer), &back), ERR_NONE);
        assert_true(back.grant == word.grant && back.news.written == 80 && back.lag_us == 12345);
        assert_true(back.report.lines[0].end == 70 && back.designated == 3);
        for (size_t len = 0; len < buffer.len; len++)
                assert_int_not_equal(postgres_word_decode(bytes_of(buffer.ptr, len), &back),
                                     ERR_NONE);
        rng_init(&rng, 11, 0);
        for (int i = 0; i < 20000; i++) {
                uint8_t bytes[80];
                memcpy(bytes, buffer.ptr, buffer.len);
                for (int k = 0; k < 3; k++)
                        bytes[rng_below(&rng, buffer.len)] ^= (uint8_t)(1 << rng_below(&rng, 8));
                if (postgres_word_decode(bytes_of(bytes, buffer.len), &back) == ERR_NONE)
                        assert_true(back.report.line_count <= PRIMARY_LINES_MAX);
        }
        buffer_fini(&buffer);
}

static void test_details(void **state)
{
        struct postgres_detail detail = {
                .paused = true,
                .commit_known = true,
                .commit_us = 1u << 30,
                .exposed_known = true,
                .exposed_us = 1u << 22,
                .exposed_bytes = 99,
                .slot_max = 1u << 30,
                .slot_count = 2,
                .slots = {{"meridian_2", true, false, 5}, {"other_1", false, true, 77}}};
        struct postgres_detail back;
        struct buffer buffer;
        struct rng rng;
        (void)state;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        postgres_detail_encode(&detail, &buffer);
        assert_int_equal(postgres_detail_decode(buffer_view(&buffer), &back), ERR_NONE);
        assert_true(back.paused && back.exposed_known && !back.exposed_held);
        assert_int_equal(back.exposed_us, 1u << 22);
        assert_true(back.commit_known && back.commit_us == 1u << 30);
        assert_string_equal(back.slots[1].name, "other_1");
        assert_true(back.slots[1].lost && back.slots[1].retained == 77 && back.slots[0].active);
        for (size_t len = 0; len < buffer.len; len++)
                assert_int_not_equal(postgres_detail_decode(bytes_of(buffer.ptr, len), &back),
                                     ERR_NONE);
        rng_init(&rng, 12, 0);
        for (int i = 0; i < 20000; i++) {
                uint8_t bytes[80];
                assert_in_range(buffer.len, 1, sizeof bytes);
                memcpy(bytes, buffer.ptr, buffer.len);
                for (int k = 0; k < 3; k++)
                        bytes[rng_below(&rng, buffer.len)] ^= (uint8_t)(1 << rng_below(&rng, 8));
                if (postgres_detail_decode(bytes_of(bytes, buffer.len), &back) != ERR_NONE)
                        continue;
                assert_true(back.slot_count <= WORLD_POSTGRES_SLOTS_MAX);
                for (uint32_t k = 0; k < back.slot_count; k++)
                        assert_in_range(strnlen(back.slots[k].name, sizeof back.slots[k].name), 1,
                                        sizeof back.slots[k].name - 1);
        }
        buffer_u8(&buffer, 9); /* what a later version adds */
        assert_int_equal(postgres_detail_decode(buffer_view(&buffer), &back), ERR_NONE);
        buffer_fini(&buffer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_envelopes),
                cmocka_unit_test(test_gossip),
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_details),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
