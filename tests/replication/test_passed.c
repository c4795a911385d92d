/* How far a region has come that cannot tell it itself: who is asked for a stream tells its origin,
 * and the origin believes that as long as it has no word of the region's own. The test plays Redis
 * and the other regions, of the numbers of their nodes. */
#include "base/check.h"
#include "replication/replication_priv.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "said.h"

enum {
        START_US = 1000000,
        PEERS = 3, /* 2, 3 and 4; 1 is here */
};

static struct outbox outbox;
static struct replication *replication;
static uint64_t now_us;

static void step(struct world_event *event)
{
        event->now_us = now_us;
        event->wall_us = 1700000000000000ull + now_us;
        outbox_reset(&outbox);
        replication_step(replication, event, &outbox);
        assert_int_equal(outbox.err, ERR_NONE);
}

static void link(node_id peer, bool up)
{
        struct world_event event = {.kind = up ? WORLD_PEER_UP : WORLD_PEER_DOWN};
        event.peer.peer = peer;
        step(&event);
}

static void asked(node_id by, uint64_t after)
{
        said(by, &(struct replication_message){
                         .kind = REPLICATION_FETCH, .sub = after, .origin = 3, .after = after});
}

static void passed(node_id by, region_id holder, uint64_t position)
{
        said(by,
             &(struct replication_message){
                     .kind = REPLICATION_PASSED, .origin = 1, .holder = holder, .last = position});
}

/* What Redis was told of that region's position by the last step; 0: nothing. */
static uint64_t told_of(region_id region)
{
        for (size_t i = 0; i < outbox.count; i++)
                if (outbox.items[i].kind == WORLD_REDIS_ACKED &&
                    outbox.items[i].acked.peer == region)
                        return outbox.items[i].acked.position;
        return 0;
}

/* To whom the last step has passed something on; 0: nobody. */
static node_id passed_to(struct replication_message *ret)
{
        for (size_t i = 0; i < outbox.count; i++) {
                if (outbox.items[i].kind != WORLD_SEND)
                        continue;
                assert_int_equal(replication_message_decode(outbox.items[i].send.data, ret),
                                 ERR_NONE);
                if (ret->kind == REPLICATION_PASSED)
                        return outbox.items[i].send.peer;
        }
        return 0;
}

static void redis_up(void)
{
        struct world_event event = {.kind = WORLD_REDIS_UP};
        step(&event);
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        outbox_init(&outbox, &heap);
        struct replication_peer peers[PEERS];
        for (unsigned i = 0; i < PEERS; i++)
                peers[i] = (struct replication_peer){.node = i + 2, .region = (region_id)(i + 2)};
        struct replication_config config = {.self = 1, .peers = peers, .peer_count = PEERS};
        now_us = START_US;
        replication = replication_new(&heap, &config);
        assert_non_null(replication);
        for (node_id i = 2; i < 2 + PEERS; i++)
                link(i, true);
        redis_up();
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        replication_free(replication);
        outbox_fini(&outbox);
        assert_int_equal(heap.used_bytes, 0);
        return 0;
}

static void test_believed_while_nothing_else_is_known(void **state)
{
        (void)state;
        passed(2, 3, 40);
        assert_int_equal(told_of(3), 0); /* 3 is in touch: its own word counts */
        link(3, false);
        passed(2, 3, 40);
        assert_int_equal(told_of(3), 40);
        passed(2, 3, 40);
        assert_int_equal(told_of(3), 0); /* no news */
        passed(4, 3, 50);
        assert_int_equal(told_of(3), 50);
        passed(2, 3, 30); /* it has lost the end */
        assert_int_equal(told_of(3), 30);
        passed(2, 9, 30);
        passed(2, 2, 30); /* 2 would say so itself */
        assert_int_equal(told_of(2) + told_of(9), 0);
}

/* A Redis that comes anew knows nothing, and is told again. */
static void test_told_again(void **state)
{
        (void)state;
        link(3, false);
        passed(2, 3, 40);
        struct world_event down = {.kind = WORLD_REDIS_DOWN};
        step(&down);
        passed(2, 3, 40);
        assert_int_equal(told_of(3), 0);
        redis_up();
        passed(2, 3, 40);
        assert_int_equal(told_of(3), 40);
}

static void test_passed_on(void **state)
{
        (void)state;
        static struct replication_message message;
        asked(2, 40);
        assert_int_equal(passed_to(&message), 3);
        assert_int_equal(message.origin, 3);
        assert_int_equal(message.holder, 2);
        assert_int_equal(message.last, 40);
        /* 3 cannot be reached from here, either: to whom it is asked of. */
        link(3, false);
        now_us += 2 * REPLICATION_RELAY_US;
        struct world_event timer = {.kind = WORLD_TIMER};
        step(&timer);
        asked(2, 41);
        node_id first = passed_to(&message);
        asked(4, 42);
        node_id second = passed_to(&message);
        assert_true((first == 0 && second == 2) || (first == 4 && second == 0));
        /* It does not go on for ever. */
        said(first == 0 ? 4 : 2, &(struct replication_message){.kind = REPLICATION_PASSED,
                                                               .origin = 3,
                                                               .holder = 7,
                                                               .last = 42,
                                                               .part = REPLICATION_PASSED_MAX});
        assert_int_equal(passed_to(&message), 0);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_believed_while_nothing_else_is_known),
                CASE(test_told_again),
                CASE(test_passed_on),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
