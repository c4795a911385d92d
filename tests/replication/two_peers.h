/* two_peers.h - one region that is tested, two peers that the test plays, and its Redis. The
 * program that includes it sets each test up and takes it down by setup and teardown. */
#ifndef MERIDIAN_TESTS_REPLICATION_TWO_PEERS_H
#define MERIDIAN_TESTS_REPLICATION_TWO_PEERS_H

#include "said.h"

/* Regions 1 (here), 2 and 3, on nodes of the same numbers. */
enum {
        WINDOW = 1000,
        START_US = 1000000,
};

static struct outbox outbox;
static struct replication *replication;
static uint64_t now_us;
static uint64_t sub_of[4];                 /* our subscription to each region */
static uint64_t fetch_sub;                 /* of the question asked last */
static struct replication_message resumed; /* what was asked to go on last, of anybody */

static void step(struct world_event *event)
{
        event->now_us = now_us;
        event->wall_us = 1700000000000000ull + now_us;
        outbox_reset(&outbox);
        replication_step(replication, event, &outbox);
        assert_int_equal(outbox.err, ERR_NONE);
        for (size_t i = 0; i < outbox.count; i++) {
                struct replication_message message;
                const struct world_effect *effect = &outbox.items[i];
                if (effect->kind != WORLD_SEND)
                        continue;
                assert_int_equal(replication_message_decode(effect->send.data, &message), ERR_NONE);
                assert_in_range(effect->send.peer, 2, 3);
                if (message.kind == REPLICATION_SUBSCRIBE)
                        sub_of[effect->send.peer] = message.sub;
                if (message.kind == REPLICATION_RESUME)
                        resumed = message;
                if (message.kind == REPLICATION_FETCH)
                        fetch_sub = message.sub;
        }
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        outbox_init(&outbox, &heap);
        struct replication_peer peers[] = {{.node = 2, .region = 2}, {.node = 3, .region = 3}};
        struct replication_config config = {
                .self = 1, .peers = peers, .peer_count = 2, .window_bytes = WINDOW};
        now_us = START_US;
        memset(&resumed, 0, sizeof resumed);
        replication = replication_new(&heap, &config);
        assert_non_null(replication);
        for (node_id i = 2; i <= 3; i++) {
                struct world_event event = {.kind = WORLD_PEER_UP};
                event.peer.peer = i;
                step(&event);
        }
        struct world_event event = {.kind = WORLD_REDIS_UP};
        step(&event);
        assert_true(sub_of[2] != 0 && sub_of[3] != 0);
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

/* What Redis is given to merge by the last step; NULL: nothing. */
static const struct world_effect *merge_of(region_id origin)
{
        const struct world_effect *found = NULL;
        for (size_t i = 0; i < outbox.count; i++) {
                if (outbox.items[i].kind != WORLD_REDIS_MERGE)
                        continue;
                assert_null(found); /* one at a time, in these tests */
                assert_int_equal(outbox.items[i].merge.origin, origin);
                found = &outbox.items[i];
        }
        return found;
}

static void merged(region_id origin, uint64_t position)
{
        struct world_event event = {.kind = WORLD_REDIS_MERGED};
        event.merged.origin = origin;
        event.merged.position = position;
        step(&event);
}

static void part(node_id peer, uint64_t number, bool end)
{
        struct replication_message message = {.kind = REPLICATION_STATE,
                                              .sub = sub_of[peer],
                                              .part = number,
                                              .end = end,
                                              .data = BYTES("part")};
        message.positions[0] = (struct world_position){(region_id)peer, 90};
        message.position_count = end;
        said(peer, &message);
}

static void batch(node_id peer, uint64_t after, uint64_t last)
{
        said(peer, &(struct replication_message){.kind = REPLICATION_BATCH,
                                                 .sub = sub_of[peer],
                                                 .after = after,
                                                 .last = last,
                                                 .data = BYTES("deltas")});
}

#endif
