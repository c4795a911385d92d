/* A whole state that comes from one peer, and what comes at the same time from elsewhere: nothing
 * may reach Redis between two parts of it. And regions that are removed from the topology, or join
 * it. The test plays Redis and both peers. */
#include "base/check.h"
#include "clock/clock.h"
#include "replication/replication_priv.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "two_peers.h"

/* A delta of 3's stream that 2 has seen, and whose removal it has seen, must not come between the
 * part with its key and the end, which claims both. */
static void test_other_streams_wait(void **state)
{
        (void)state;
        part(2, 1, false);
        assert_true(merge_of(2)->merge.state);
        batch(3, 0, 50);
        assert_null(merge_of(3));
        merged(2, 0);
        assert_null(merge_of(3));
        part(2, 2, true);
        assert_true(merge_of(2)->merge.state_end);
        merged(2, 90);
        struct world_event event = {.kind = WORLD_TIMER};
        if (merge_of(3) == NULL)
                step(&event);
        const struct world_effect *merge = merge_of(3);
        CHECK(merge != NULL);
        assert_int_equal(merge->merge.last, 50);
}

static void test_a_state_waits_for_what_is_at_redis(void **state)
{
        (void)state;
        batch(3, 0, 50);
        assert_non_null(merge_of(3));
        part(2, 1, true);
        assert_null(merge_of(2));
        batch(3, 50, 60);
        assert_null(merge_of(3));
        merged(3, 50);
        assert_true(merge_of(2)->merge.state_end);
}

static void test_a_transfer_that_breaks_off_frees_the_way(void **state)
{
        (void)state;
        part(2, 1, false);
        assert_non_null(merge_of(2));
        batch(3, 0, 50);
        merged(2, 0);
        assert_null(merge_of(3));
        struct world_event event = {.kind = WORLD_PEER_DOWN};
        event.peer.peer = 2;
        step(&event);
        assert_non_null(merge_of(3));
}

/* 2 was silent, 3 was asked for its stream; then 2 comes with its state before 3 answers. */
static void test_what_goes_round_does_not_come_between(void **state)
{
        (void)state;
        now_us += REPLICATION_RELAY_US;
        said(3, &(struct replication_message){.kind = REPLICATION_BEAT, .sub = sub_of[3]});
        assert_true(fetch_sub != 0);
        part(2, 1, false);
        assert_non_null(merge_of(2));
        merged(2, 0);
        said(3, &(struct replication_message){.kind = REPLICATION_RELAYED,
                                              .sub = fetch_sub,
                                              .origin = 2,
                                              .last = 40,
                                              .data = BYTES("deltas")});
        assert_null(merge_of(2));
        part(2, 2, true);
        assert_true(merge_of(2)->merge.state_end);
}

/* Lets time go by as the node does: it steps when it is to be woken. */
static unsigned wait_until(uint64_t until_us, enum replication_kind kind)
{
        unsigned sent = 0;
        while (replication_wake_us(replication) < until_us) {
                struct world_event event = {.kind = WORLD_TIMER};
                now_us = replication_wake_us(replication);
                step(&event);
                for (size_t i = 0; i < outbox.count; i++) {
                        struct replication_message message;
                        const struct world_effect *effect = &outbox.items[i];
                        if (effect->kind != WORLD_SEND || effect->send.peer != 2)
                                continue;
                        assert_int_equal(replication_message_decode(effect->send.data, &message),
                                         ERR_NONE);
                        sent += message.kind == kind;
                }
        }
        return sent;
}

/* A part of one large value takes a Redis longer than a silence may last. */
static void test_who_reads_for_long_says_so(void **state)
{
        (void)state;
        uint64_t sub = sub_of[2];
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        said(2,
             &(struct replication_message){.kind = REPLICATION_SUBSCRIBE, .sub = 9, .whole = true});
        assert_int_equal(wait_until(now_us + 10000000, REPLICATION_BUSY), 19);
        event.scanned.peer = 2;
        event.scanned.cursor = 0;
        step(&event);
        assert_int_equal(wait_until(now_us + 10000000, REPLICATION_BUSY), 0);

        /* And who hears that waits. */
        assert_true(sub_of[2] != sub); /* it had heard nothing until now */
        sub = sub_of[2];
        for (unsigned i = 0; i < 20; i++) {
                said(2, &(struct replication_message){.kind = REPLICATION_BUSY, .sub = sub});
                assert_int_equal(wait_until(now_us + REPLICATION_BUSY_US, REPLICATION_SUBSCRIBE),
                                 0);
                now_us += REPLICATION_BUSY_US;
        }
        assert_int_equal(sub_of[2], sub);
        assert_true(wait_until(now_us + 10000000, REPLICATION_SUBSCRIBE) > 0);
}

static const struct world_effect *effect_of(enum world_effect_kind kind)
{
        for (size_t i = 0; i < outbox.count; i++)
                if (outbox.items[i].kind == kind)
                        return &outbox.items[i];
        return NULL;
}

static void link_of(node_id peer, bool up)
{
        struct world_event event = {.kind = up ? WORLD_PEER_UP : WORLD_PEER_DOWN};
        event.peer.peer = peer;
        step(&event);
}

static void placed_part(node_id peer, uint64_t number, uint64_t cursor)
{
        said(peer, &(struct replication_message){.kind = REPLICATION_PLACE,
                                                 .sub = sub_of[peer],
                                                 .part = number,
                                                 .resume = {77, cursor, 90}});
        part(peer, number, false);
}

/* It asks to go on behind what was merged, and no more after a refusal, or when its stream runs. */
static void test_a_transfer_goes_on_behind_what_was_merged(void **state)
{
        (void)state;
        placed_part(2, 1, 11);
        merged(2, 0);
        placed_part(2, 2, 22);
        merged(2, 0);
        placed_part(2, 3, 33);
        assert_int_equal(resumed.resume.table, 0);
        link_of(2, false);
        merged(2, 0); /* was at Redis when the link broke */
        link_of(2, true);
        assert_int_equal(resumed.resume.table, 77);
        assert_int_equal(resumed.resume.cursor, 33);
        assert_int_equal(resumed.resume.position, 90);
        assert_int_equal(resumed.sub, sub_of[2]);
        memset(&resumed, 0, sizeof resumed);
        placed_part(2, 1, 44);
        struct world_event event = {.kind = WORLD_REDIS_MERGED};
        event.merged.origin = 2;
        event.merged.err = ERR_INVALID; /* the parts do not follow each other */
        step(&event);
        link_of(2, false);
        link_of(2, true);
        assert_int_equal(resumed.resume.table, 0);
}

/* Our Redis came back, and knows from its log what it had merged. */
static void test_a_transfer_goes_on_after_a_restart(void **state)
{
        (void)state;
        struct world_event down = {.kind = WORLD_REDIS_DOWN};
        step(&down);
        struct world_event event = {.kind = WORLD_REDIS_UP};
        event.redis_up.resume_of = 3;
        event.redis_up.resume = (struct world_resume){5, 6, 7};
        step(&event);
        assert_int_equal(resumed.sub, sub_of[3]);
        assert_int_equal(resumed.resume.cursor, 6);
        part(3, 1, true);
        merged(3, 90);
        memset(&resumed, 0, sizeof resumed);
        link_of(3, false);
        link_of(3, true);
        assert_int_equal(resumed.resume.table, 0);
}

/* Redis remembers one place: where another transfer had a part since, the whole is asked for, and
 * nothing is refused. */
static void test_a_place_that_is_taken_is_not_asked_for(void **state)
{
        (void)state;
        placed_part(2, 1, 11);
        merged(2, 0);
        link_of(2, false);
        placed_part(3, 1, 22);
        merged(3, 0);
        link_of(2, true);
        assert_int_equal(resumed.resume.table, 0);
        link_of(3, false);
        link_of(2, false);
        link_of(2, true);
        link_of(3, true);
        assert_int_equal(resumed.resume.cursor, 22);
        assert_int_equal(resumed.sub, sub_of[3]);
        /* It is taken while the answer is on its way. */
        uint64_t asked = sub_of[3];
        memset(&resumed, 0, sizeof resumed);
        part(2, 1, false);
        merged(2, 0);
        assert_true(sub_of[3] > asked);
        assert_int_equal(resumed.resume.table, 0);
        asked = sub_of[3];
        part(2, 2, false);
        merged(2, 0);
        assert_int_equal(sub_of[3], asked);
}

/* A stream that waits for an acknowledgement while Redis is at another's state is not silent. */
static void test_who_waits_for_us_is_not_silent(void **state)
{
        (void)state;
        part(2, 1, false);
        batch(3, 0, 50);
        now_us += 60 * 1000000ull;
        merged(2, 0);
        part(2, 2, true);
        merged(2, 90);
        assert_non_null(merge_of(3));
        merged(3, 50);
        uint64_t asked = sub_of[3];
        struct world_event event = {.kind = WORLD_TIMER};
        step(&event);
        assert_int_equal(sub_of[3], asked);
        now_us += 60 * 1000000ull;
        step(&event);
        assert_true(sub_of[3] > asked);
}

static const struct world_effect *scanned(uint64_t table, uint64_t cursor)
{
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = 2;
        event.scanned.table = table;
        event.scanned.cursor = cursor;
        event.scanned.state = BYTES("part");
        step(&event);
        return effect_of(WORLD_REDIS_SCAN);
}

static void parts_acked(uint64_t sub)
{
        static struct replication_message message; /* it is long */
        message.kind = REPLICATION_ACK;
        message.sub = sub;
        message.part = 9;
        said(2, &message);
}

static void subscribed(node_id peer, uint64_t sub)
{
        static struct replication_message message;
        message.kind = REPLICATION_SUBSCRIBE;
        message.sub = sub;
        said(peer, &message);
}

/* We are the sender: from the cursor on, if it is of the table that we have; else from the begin.
 * */
static void test_a_sender_goes_on(void **state)
{
        (void)state;
        for (uint64_t table = 77; table <= 78; table++) {
                struct world_event gap = {.kind = WORLD_REDIS_TAILED};
                link_of(2, false);
                link_of(2, true);
                subscribed(3, 4);
                said(2, &(struct replication_message){
                                .kind = REPLICATION_RESUME, .sub = table, .resume = {77, 33, 90}});
                subscribed(2, table);
                gap.tailed.peer = 2;
                gap.tailed.gap = true;
                if (table == 78)
                        step(&gap); /* of the stream that broke off */
                step(&gap);
                const struct world_effect *scan = effect_of(WORLD_REDIS_SCAN);
                assert_non_null(scan);
                CHECK(scan != NULL);
                assert_int_equal(scan->scan.cursor, 33);
                scan = scanned(table, 44);
                assert_non_null(scan);
                CHECK(scan != NULL);
                assert_int_equal(scan->scan.cursor, table == 77 ? 44 : 0);
                scanned(table, 0);
                parts_acked(table);
                assert_non_null(effect_of(WORLD_REDIS_TAIL));
        }
        assert_int_equal(replication_counters(replication).resumed, 1);
}

/* Redis cuts the connection, or refuses: it is asked again later, not at once and for ever; where
 * it was only not reached, for the same part, if that is of the same table still. */
static void test_a_scan_that_fails_is_asked_for_later(void **state)
{
        static const struct {
                enum err err;
                uint64_t table;  /* of the next answer */
                uint64_t cursor; /* that is asked for after the failure */
                uint64_t next;   /* after the answer */
        } rows[] = {{ERR_CLOSED, 77, 33, 44},
                    {ERR_CLOSED, 78, 33, 0},
                    {ERR_REFUSED, 77, 0, 44},
                    {ERR_BUSY, 77, 0, 44}};
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct world_event gap = {.kind = WORLD_REDIS_TAILED};
                struct world_event failed = {.kind = WORLD_REDIS_SCANNED};
                link_of(2, false);
                link_of(2, true);
                subscribed(3, 4);
                subscribed(2, 100 + i);
                gap.tailed.peer = 2;
                gap.tailed.gap = true;
                if (i > 0)
                        step(&gap); /* of the stream that broke off */
                step(&gap);
                assert_non_null(effect_of(WORLD_REDIS_SCAN));
                assert_non_null(scanned(77, 33));
                failed.scanned.peer = 2;
                failed.scanned.err = rows[i].err;
                for (unsigned again = 0; again < 3; again++) {
                        step(&failed);
                        assert_null(effect_of(WORLD_REDIS_SCAN));
                        uint64_t until_us = now_us + 2 * REPLICATION_RETRY_US;
                        const struct world_effect *scan = NULL;
                        while (scan == NULL && replication_wake_us(replication) < until_us) {
                                struct world_event event = {.kind = WORLD_TIMER};
                                now_us = replication_wake_us(replication);
                                step(&event);
                                scan = effect_of(WORLD_REDIS_SCAN);
                        }
                        assert_non_null(scan);
                        CHECK(scan != NULL);
                        assert_int_equal(scan->scan.cursor, rows[i].cursor);
                }
                const struct world_effect *scan = scanned(rows[i].table, 44);
                assert_non_null(scan);
                CHECK(scan != NULL);
                assert_int_equal(scan->scan.cursor, rows[i].next);
                scanned(rows[i].table, 0);
                parts_acked(100 + i);
                assert_non_null(effect_of(WORLD_REDIS_TAIL));
        }
}

static void remove_3(void)
{
        struct replication_peer left[] = {{.node = 2, .region = 2}};
        replication_members(replication, left, 1);
}

/* Its link may stand for a while, and it may believe that nothing has changed. */
static void test_a_removed_region_is_not_heard(void **state)
{
        (void)state;
        static struct replication_message subscribe;
        subscribe.kind = REPLICATION_SUBSCRIBE;
        subscribe.sub = 7;
        batch(3, 0, 50);
        assert_non_null(merge_of(3));
        batch(3, 50, 60);
        remove_3();
        merged(3, 50);
        assert_null(merge_of(3));
        for (unsigned i = 0; i < 2; i++) {
                sub_of[3]++; /* whatever number it takes */
                batch(3, 60, 70);
                assert_null(merge_of(3));
                part(3, 1, true);
                assert_null(merge_of(3));
                said(3, &subscribe);
                assert_null(effect_of(WORLD_REDIS_TAIL));
                assert_null(effect_of(WORLD_REDIS_SCAN));
                struct world_event event = {.kind = WORLD_PEER_UP}; /* its link comes again */
                event.peer.peer = 3;
                step(&event);
                assert_null(effect_of(WORLD_SEND));
        }
        /* A node that reads its journal again goes through older topologies. */
        struct replication_peer both[] = {{.node = 2, .region = 2}, {.node = 3, .region = 3}};
        replication_members(replication, both, 2);
        struct world_event event = {.kind = WORLD_TIMER};
        uint64_t before = sub_of[3];
        step(&event);
        assert_true(sub_of[3] != before);
}

/* What 2 holds more of a removed region's stream is taken as a state, never as deltas. */
static void test_what_a_removed_region_left_comes_as_a_state(void **state)
{
        (void)state;
        remove_3();
        uint64_t before = sub_of[2];
        now_us += REPLICATION_RELAY_US;
        static struct replication_message answer;
        said(2, &(struct replication_message){.kind = REPLICATION_BEAT, .sub = sub_of[2]});
        assert_true(fetch_sub != 0);
        answer.kind = REPLICATION_RELAYED;
        answer.sub = fetch_sub;
        answer.origin = 3;
        answer.last = 40;
        answer.data = BYTES("deltas");
        said(2, &answer);
        assert_null(merge_of(3));
        assert_true(sub_of[2] != before); /* subscribed anew, for the whole state */

        /* And the other way. */
        answer = (struct replication_message){.kind = REPLICATION_FETCH, .sub = 9, .origin = 3};
        said(2, &answer);
        assert_non_null(effect_of(WORLD_REDIS_TAIL));
        struct world_event event = {.kind = WORLD_REDIS_TAILED};
        event.tailed.peer = 2;
        event.tailed.origin = 3;
        event.tailed.last = 40;
        event.tailed.deltas = BYTES("deltas");
        step(&event);
        const struct world_effect *send = effect_of(WORLD_SEND);
        CHECK(send != NULL);
        assert_int_equal(replication_message_decode(send->send.data, &answer), ERR_NONE);
        assert_int_equal(answer.kind, REPLICATION_RELAYED);
        assert_true(answer.gap);
        assert_int_equal(answer.data.len, 0);
}

/* What we relay is as old as what comes after it, however fresh our own copy is. */
static void test_a_part_that_is_relayed_is_as_old_as_it_is(void **state)
{
        (void)state;
        static struct replication_message answer;
        enum {
                BEHIND_MS = 4800,
        };
        uint64_t end = hlc_of_ms(1700000000000);
        uint64_t last[] = {end - hlc_of_ms(BEHIND_MS), end};
        batch(3, 0, end);
        merged(3, end);
        for (unsigned i = 0; i < 2; i++) {
                answer = (struct replication_message){
                        .kind = REPLICATION_FETCH, .sub = 9, .origin = 3};
                said(2, &answer);
                assert_non_null(effect_of(WORLD_REDIS_TAIL));
                struct world_event event = {.kind = WORLD_REDIS_TAILED};
                event.tailed.peer = 2;
                event.tailed.origin = 3;
                event.tailed.last = last[i];
                event.tailed.deltas = BYTES("deltas");
                step(&event);
                const struct world_effect *send = effect_of(WORLD_SEND);
                CHECK(send != NULL);
                assert_int_equal(replication_message_decode(send->send.data, &answer), ERR_NONE);
                assert_int_equal(answer.kind, REPLICATION_RELAYED);
                assert_true(answer.live);
                assert_true((answer.age_us >= 1000ull * BEHIND_MS) == (i == 0));
        }
}

/* The same of what 2 may have by parts of a state that broke off; once we have that, no more. */
static void test_what_a_removed_region_left_in_parts(void **state)
{
        (void)state;
        static const struct {
                uint64_t high;
                bool mixed, pulls;
        } rows[] = {{60, false, false}, {1, true, false}, {60, true, true}};
        remove_3();
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                uint64_t before = sub_of[2];
                now_us += REPLICATION_RELAY_US;
                static struct replication_message answer;
                fetch_sub = 0;
                said(2, &(struct replication_message){.kind = REPLICATION_BEAT, .sub = sub_of[2]});
                assert_true(fetch_sub != 0);
                answer = (struct replication_message){.kind = REPLICATION_RELAYED,
                                                      .sub = fetch_sub,
                                                      .origin = 3,
                                                      .hole_count = 1};
                answer.holes[0] = (struct hole){3, rows[i].mixed, 0, rows[i].high};
                said(2, &answer);
                assert_int_equal(sub_of[2] != before, rows[i].pulls);
                now_us += 5000000; /* until 2 is asked again */
        }
}

static void redis_comes(const struct hole *hole)
{
        struct buffer holes;
        struct world_position own = {1, 100};
        buffer_init(&holes, &heap);
        buffer_u8(&holes, hole->origin);
        buffer_u8(&holes, 0);
        buffer_u64(&holes, hole->low);
        buffer_u64(&holes, hole->high);
        struct world_event event = {.kind = WORLD_REDIS_UP};
        event.redis_up.positions = &own;
        event.redis_up.count = 1;
        event.redis_up.holes = buffer_view(&holes);
        step(&event);
        buffer_fini(&holes);
}

/* A hole of ours waits for what every member tells; no longer for one that is removed. */
static void test_holes_close_without_a_removed_region(void **state)
{
        static struct replication_message subscribe;
        (void)state;
        struct hole hole = {1, false, 50, 60};
        redis_comes(&hole);
        subscribe.kind = REPLICATION_SUBSCRIBE;
        subscribe.sub = 5;
        subscribe.after = 50;
        said(2, &subscribe);
        assert_null(effect_of(WORLD_REDIS_CLOSE));
        remove_3();
        struct world_event event = {.kind = WORLD_TIMER};
        step(&event);
        const struct world_effect *close = effect_of(WORLD_REDIS_CLOSE);
        CHECK(close != NULL);
        assert_int_equal(close->close.low, 50);
        assert_int_equal(close->close.high, 60);
}

/* A region that joins is subscribed to as soon as its link stands. */
static void test_a_new_region_is_read_at_once(void **state)
{
        (void)state;
        struct replication_peer left[] = {{.node = 2, .region = 2}};
        replication_free(replication);
        struct replication_config config = {.self = 1, .peers = left, .peer_count = 1};
        replication = replication_new(&heap, &config);
        assert_non_null(replication);
        struct world_event event = {.kind = WORLD_REDIS_UP};
        step(&event);
        struct replication_peer both[] = {{.node = 2, .region = 2}, {.node = 3, .region = 3}};
        replication_members(replication, both, 2);
        sub_of[3] = 0;
        event = (struct world_event){.kind = WORLD_PEER_UP};
        event.peer.peer = 3;
        step(&event);
        assert_true(sub_of[3] != 0);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                CASE(test_other_streams_wait),
                CASE(test_a_state_waits_for_what_is_at_redis),
                CASE(test_a_transfer_that_breaks_off_frees_the_way),
                CASE(test_what_goes_round_does_not_come_between),
                CASE(test_a_transfer_goes_on_behind_what_was_merged),
                CASE(test_a_transfer_goes_on_after_a_restart),
                CASE(test_a_sender_goes_on),
                CASE(test_a_scan_that_fails_is_asked_for_later),
                CASE(test_a_place_that_is_taken_is_not_asked_for),
                CASE(test_who_waits_for_us_is_not_silent),
                CASE(test_who_reads_for_long_says_so),
                CASE(test_a_removed_region_is_not_heard),
                CASE(test_what_a_removed_region_left_comes_as_a_state),
                CASE(test_a_part_that_is_relayed_is_as_old_as_it_is),
                CASE(test_what_a_removed_region_left_in_parts),
                CASE(test_holes_close_without_a_removed_region),
                CASE(test_a_new_region_is_read_at_once),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
