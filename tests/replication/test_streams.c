/* Two ends of a stream, with a Redis that the test plays: who says what after what. */
#include "base/check.h"
#include "replication/replication_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct side {
        struct replication *replication;
        struct outbox outbox;
        uint64_t now_us;
};

static struct heap heap;
static struct side sides[2]; /* regions 1 and 2, nodes 1 and 2 */

static void step(struct side *side, struct world_event *event)
{
        side->now_us += 1000;
        event->now_us = side->now_us;
        event->wall_us = 1700000000000000ull + side->now_us;
        outbox_reset(&side->outbox);
        replication_step(side->replication, event, &side->outbox);
        assert_int_equal(side->outbox.err, ERR_NONE);
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        for (unsigned i = 0; i < 2; i++) {
                struct replication_peer peer = {.node = 2 - i, .region = (region_id)(2 - i)};
                struct replication_config config = {.self = (region_id)(i + 1),
                                                    .peers = &peer,
                                                    .peer_count = 1,
                                                    .window_bytes = 100,
                                                    .piece_bytes = 150};
                sides[i] = (struct side){.now_us = SIZE_MAX >> 20};
                sides[i].replication = replication_new(&heap, &config);
                assert_non_null(sides[i].replication);
                outbox_init(&sides[i].outbox, &heap);
        }
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        for (unsigned i = 0; i < 2; i++) {
                replication_free(sides[i].replication);
                outbox_fini(&sides[i].outbox);
        }
        assert_int_equal(heap.used_bytes, 0);
        return 0;
}

static void link_up(unsigned side)
{
        struct world_event event = {.kind = WORLD_PEER_UP};
        event.peer.peer = 2 - side;
        step(&sides[side], &event);
}

/* Recovered up to `recovered`; a new life has begun at `first`, where that is not 0. */
static void redis_up(unsigned side, uint64_t own, uint64_t other, uint64_t recovered,
                     uint64_t first)
{
        uint8_t hole[WORLD_HOLE_LEN] = {(uint8_t)(side + 1)};
        CHECK(recovered < 256 && first < 256);
        hole[2] = (uint8_t)recovered;
        hole[10] = (uint8_t)first;
        struct world_position positions[] = {{(region_id)(side + 1), own},
                                             {(region_id)(2 - side), other}};
        struct world_event event = {.kind = WORLD_REDIS_UP};
        event.redis_up.positions = positions;
        event.redis_up.count = 2;
        event.redis_up.recovered = recovered;
        event.redis_up.first = first;
        if (first > recovered + 1)
                event.redis_up.holes = bytes_of(hole, sizeof hole);
        step(&sides[side], &event);
}

static const struct world_effect *effect_of(unsigned side, enum world_effect_kind kind)
{
        for (size_t i = 0; i < sides[side].outbox.count; i++)
                if (sides[side].outbox.items[i].kind == kind)
                        return &sides[side].outbox.items[i];
        return NULL;
}

/* The same where there must be one. */
static struct world_effect the_effect(unsigned side, enum world_effect_kind kind)
{
        const struct world_effect *effect = effect_of(side, kind);
        if (effect == NULL)
                fail_msg("no effect %d on side %u", (int)kind, side);
        return effect != NULL ? *effect : (struct world_effect){.kind = kind};
}

/* Gives the other side all that this one has just sent; its effects are then the other's last. */
static void pass_on(unsigned side)
{
        struct outbox sent = sides[side].outbox;
        outbox_init(&sides[side].outbox, &heap);
        for (size_t i = 0; i < sent.count; i++) {
                if (sent.items[i].kind != WORLD_SEND)
                        continue;
                struct world_event event = {.kind = WORLD_MESSAGE};
                event.message.peer = side + 1;
                event.message.class = sent.items[i].send.class;
                event.message.data = sent.items[i].send.data;
                step(&sides[1 - side], &event);
        }
        outbox_fini(&sent);
}

static void tailed(unsigned side, uint64_t after, uint64_t last, const char *deltas, bool gap)
{
        struct world_event event = {.kind = WORLD_REDIS_TAILED};
        event.tailed.peer = 2 - side;
        event.tailed.after = after;
        event.tailed.last = last;
        event.tailed.gap = gap;
        event.tailed.deltas = bytes_of_str(deltas);
        step(&sides[side], &event);
}

static void merged(unsigned side, uint64_t position, bool gap, enum err err)
{
        struct world_event event = {.kind = WORLD_REDIS_MERGED};
        event.merged.origin = (region_id)(2 - side);
        event.merged.position = position;
        event.merged.gap = gap;
        event.merged.err = err;
        step(&sides[side], &event);
}

/* Region 2 reads region 1's stream from position `after`. */
static void subscribed(uint64_t after)
{
        link_up(0);
        link_up(1);
        redis_up(0, after, 0, after, 0);
        redis_up(1, 0, after, 0, 0);
        /* The greeting came before, so only the subscription counts. */
        pass_on(1);
        struct world_effect tail = the_effect(0, WORLD_REDIS_TAIL);
        assert_int_equal(tail.tail.after, after);
}

static void test_batch_is_merged_and_acknowledged(void **state)
{
        (void)state;
        subscribed(0);
        tailed(0, 0, 50, "abc", false);
        assert_non_null(effect_of(0, WORLD_REDIS_TAIL));
        pass_on(0);
        struct world_effect merge = the_effect(1, WORLD_REDIS_MERGE);
        assert_int_equal(merge.merge.after, 0);
        assert_int_equal(merge.merge.last, 50);
        assert_true(bytes_equal(merge.merge.data, BYTES("abc")));
        assert_null(effect_of(1, WORLD_SEND));
        merged(1, 50, false, ERR_NONE);
        pass_on(1);
        struct world_effect acked = the_effect(0, WORLD_REDIS_ACKED);
        assert_int_equal(acked.acked.position, 50);
}

static void test_window_holds_the_sender(void **state)
{
        char deltas[101];
        (void)state;
        memset(deltas, 'x', 100);
        deltas[100] = '\0';
        subscribed(0);
        tailed(0, 0, 50, deltas, false);
        assert_null(effect_of(0, WORLD_REDIS_TAIL));
        pass_on(0);
        merged(1, 50, false, ERR_NONE);
        pass_on(1);
        assert_non_null(effect_of(0, WORLD_REDIS_TAIL));
}

/* Passes `count` pieces of a message on, and what the taker says to each. */
static void pass_pieces(unsigned count)
{
        for (unsigned i = 0; i < count; i++) {
                assert_int_equal(sides[0].outbox.count, 1); /* the window holds the next one */
                assert_in_range(the_effect(0, WORLD_SEND).send.data.len, 1, 180);
                pass_on(0);
                assert_null(effect_of(1, WORLD_REDIS_MERGE));
                pass_on(1);
        }
}

static void test_long_message_goes_in_pieces(void **state)
{
        char deltas[601];
        (void)state;
        memset(deltas, 'x', 600);
        deltas[600] = '\0';
        deltas[599] = 'y';
        subscribed(0);
        tailed(0, 0, 50, deltas, false);
        pass_pieces(4);
        pass_on(0);
        struct world_effect merge = the_effect(1, WORLD_REDIS_MERGE);
        assert_true(bytes_equal(merge.merge.data, bytes_of_str(deltas)));
        assert_int_equal(merge.merge.last, 50);
        merged(1, 50, false, ERR_NONE);
        pass_on(1);
        assert_non_null(effect_of(0, WORLD_REDIS_TAIL));
        /* One that breaks off in the middle, and the same anew, by a new subscription. */
        tailed(0, 50, 60, deltas, false);
        pass_pieces(2);
        struct world_event down = {.kind = WORLD_PEER_DOWN};
        down.peer.peer = 1;
        step(&sides[1], &down);
        down.peer.peer = 2;
        step(&sides[0], &down);
        link_up(0);
        link_up(1);
        pass_on(1);
        assert_int_equal(the_effect(0, WORLD_REDIS_TAIL).tail.after, 50);
        tailed(0, 50, 60, deltas, false);
        pass_pieces(4);
        pass_on(0);
        assert_true(bytes_equal(the_effect(1, WORLD_REDIS_MERGE).merge.data, bytes_of_str(deltas)));
}

static void said(unsigned side, const struct replication_message *message)
{
        struct buffer buffer;
        buffer_init(&buffer, &heap);
        replication_message_encode(message, &buffer);
        struct world_event event = {.kind = WORLD_MESSAGE};
        event.message.peer = 2 - side;
        event.message.class = WORLD_CLASS_DATA;
        event.message.data = buffer_view(&buffer);
        step(&sides[side], &event);
        buffer_fini(&buffer);
}

/* A subscription that tells so many holes that it is longer than a piece takes no batch's place. */
static void test_a_long_subscription_goes_between_pieces(void **state)
{
        char deltas[601];
        (void)state;
        memset(deltas, 'x', 600);
        deltas[600] = '\0';
        subscribed(0);
        tailed(0, 0, 50, deltas, false);
        pass_pieces(2);
        struct outbox third = sides[0].outbox;
        outbox_init(&sides[0].outbox, &heap);
        for (unsigned i = 0; i < WORLD_HOLES_MAX; i++)
                sides[0].replication->holes[i] = (struct hole){2, false, 100 + i, UINT64_MAX / 4};
        sides[0].replication->hole_count = WORLD_HOLES_MAX;
        said(0, &(struct replication_message){.kind = REPLICATION_HELLO});
        assert_in_range(the_effect(0, WORLD_SEND).send.data.len, 151, REPLICATION_PIECE_MAX);
        pass_on(0);
        assert_int_equal(sides[1].replication->peers[0].sender.hole_count, WORLD_HOLES_MAX);
        outbox_fini(&sides[0].outbox);
        sides[0].outbox = third;
        pass_pieces(2);
        pass_on(0);
        assert_true(bytes_equal(the_effect(1, WORLD_REDIS_MERGE).merge.data, bytes_of_str(deltas)));
}

/* A piece that does not follow, of a message that nobody knows, after the last: dropped. */
static void test_pieces_that_do_not_fit(void **state)
{
        (void)state;
        static const struct {
                uint64_t sub, after, last;
                const char *data;
        } rows[] = {
                {7, 5, 20, "xxx"}, {7, 0, 20, "xxx"},         {7, 5, 20, "xxx"}, {7, 4, 20, "xxx"},
                {8, 3, 20, "xxx"}, {9, 0, 3, "\x03\x0a\x01"}, {9, 3, 20, "xxx"}, {9, 0, 3, "xxx"},
        };
        subscribed(0);
        uint64_t malformed = replication_counters(sides[1].replication).malformed;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct replication_message message = {.kind = REPLICATION_PIECE,
                                                      .sub = rows[i].sub,
                                                      .after = rows[i].after,
                                                      .last = rows[i].last,
                                                      .data = bytes_of_str(rows[i].data)};
                said(1, &message);
                assert_null(effect_of(1, WORLD_REDIS_MERGE));
        }
        assert_int_equal(replication_counters(sides[1].replication).malformed, malformed + 2);
        assert_int_equal(replication_counters(sides[1].replication).stale, 5);
}

static void test_gap_sends_the_state(void **state)
{
        struct world_position vector[] = {{1, 90}, {2, 5}};
        (void)state;
        subscribed(10);
        tailed(0, 10, 10, "", true);
        assert_non_null(effect_of(0, WORLD_REDIS_SCAN));
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = 2;
        event.scanned.positions = vector;
        event.scanned.position_count = 2;
        event.scanned.state = BYTES("all");
        step(&sides[0], &event);
        assert_null(effect_of(0, WORLD_REDIS_TAIL)); /* a batch would pass the part */
        assert_int_equal(the_effect(0, WORLD_SEND).send.class, WORLD_CLASS_BULK);
        pass_on(0);
        struct world_effect merge = the_effect(1, WORLD_REDIS_MERGE);
        assert_true(merge.merge.state && merge.merge.state_end);
        assert_int_equal(merge.merge.position_count, 2);
        CHECK(merge.merge.positions != NULL);
        assert_int_equal(merge.merge.positions[0].hlc, 90);
        merged(1, 90, false, ERR_NONE);
        pass_on(1);
        assert_int_equal(the_effect(0, WORLD_REDIS_TAIL).tail.after, 90);
}

/* The last part of a state is longer than the window with what stands around its data alone: what
 * comes after it waits until it is all there. */
static void test_a_part_in_pieces_is_not_overtaken(void **state)
{
        (void)state;
        struct world_position positions[16];
        for (unsigned i = 0; i < 16; i++)
                positions[i] = (struct world_position){(region_id)(i + 1), UINT64_MAX / 4};
        subscribed(0);
        tailed(0, 0, 0, "", true);
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = 2;
        event.scanned.state = BYTES("short");
        event.scanned.positions = positions;
        event.scanned.position_count = 16;
        step(&sides[0], &event);
        assert_null(effect_of(0, WORLD_REDIS_TAIL));
        pass_pieces(1);
        pass_on(0);
        assert_true(the_effect(1, WORLD_REDIS_MERGE).merge.state_end);
}

static void test_refused_merge_subscribes_again(void **state)
{
        (void)state;
        subscribed(0);
        tailed(0, 0, 50, "abc", false);
        pass_on(0);
        merged(1, 0, false, ERR_REFUSED);
        assert_null(effect_of(1, WORLD_SEND));
        sides[1].now_us = replication_wake_us(sides[1].replication);
        struct world_event event = {.kind = WORLD_TIMER};
        step(&sides[1], &event);
        assert_non_null(effect_of(1, WORLD_SEND));
        pass_on(1);
        tailed(0, 50, 60, "late", false); /* of the older subscription: dropped */
        struct world_effect tail = the_effect(0, WORLD_REDIS_TAIL);
        assert_int_equal(tail.tail.after, 0);
}

/* Region 1 comes back without the end of its stream, which region 2 holds. */
static void test_lost_tail_is_asked_back(void **state)
{
        (void)state;
        link_up(0);
        link_up(1);
        redis_up(0, 120, 0, 80, 120);
        pass_on(0);
        redis_up(1, 0, 100, 0, 0);
        pass_on(1);
        assert_null(effect_of(0, WORLD_REDIS_TAIL));
        assert_int_equal(replication_counters(sides[0].replication).pulls, 1);
        /* Nothing is served before what region 2 holds has been merged here. */
        pass_on(0);
        assert_non_null(effect_of(1, WORLD_REDIS_SCAN));
}

static void test_unknown_is_unknown(void **state)
{
        struct replication_lag lag;
        (void)state;
        subscribed(0);
        assert_true(replication_lag(sides[1].replication, 1, sides[1].now_us, &lag));
        assert_false(lag.known);
        tailed(0, 0, 0, "", false);
        pass_on(0);
        assert_true(replication_lag(sides[1].replication, 1, sides[1].now_us, &lag));
        assert_true(lag.known);
        assert_true(lag.caught_up);
        assert_true(replication_lag(sides[1].replication, 1, sides[1].now_us + 60000000, &lag));
        assert_false(lag.known);
        assert_false(replication_lag(sides[1].replication, 9, sides[1].now_us, &lag));
}

static void test_every_allocation_fails_once(void **state)
{
        (void)state;
        for (uint64_t n = 1; n < 40; n++) {
                struct heap small;
                struct outbox outbox;
                heap_init(&small, 0);
                small.fail_at = n;
                outbox_init(&outbox, &small);
                struct replication_peer peer = {.node = 2, .region = 2};
                struct replication_config config = {.self = 1, .peers = &peer, .peer_count = 1};
                struct replication *r = replication_new(&small, &config);
                if (r != NULL) {
                        struct world_event event = {.kind = WORLD_PEER_UP, .now_us = 1};
                        event.peer.peer = 2;
                        replication_step(r, &event, &outbox);
                        event = (struct world_event){.kind = WORLD_REDIS_UP, .now_us = 2};
                        replication_step(r, &event, &outbox);
                }
                replication_free(r);
                outbox_fini(&outbox);
                assert_int_equal(small.used_bytes, 0);
        }
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_batch_is_merged_and_acknowledged),
                CASE(test_window_holds_the_sender),
                CASE(test_long_message_goes_in_pieces),
                CASE(test_pieces_that_do_not_fit),
                CASE(test_a_long_subscription_goes_between_pieces),
                CASE(test_a_part_in_pieces_is_not_overtaken),
                CASE(test_gap_sends_the_state),
                CASE(test_refused_merge_subscribes_again),
                CASE(test_lost_tail_is_asked_back),
                CASE(test_unknown_is_unknown),
                cmocka_unit_test(test_every_allocation_fails_once),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
