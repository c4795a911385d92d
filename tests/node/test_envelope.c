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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_envelopes),
                cmocka_unit_test(test_gossip),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
