/* alone.h - one node that is asked and told by a test, over disks without delay: what was appended
 * is synced in the next step. Before it is included, ALONE_MORE names what else a test remembers of
 * it (members of a struct; may be empty), and
 * ALONE_LOCK_COPIES that it keeps those. Header only: each test has a node of its own. */
#ifndef MERIDIAN_TESTS_NODE_ALONE_H
#define MERIDIAN_TESTS_NODE_ALONE_H

#include "council/request.h"
#include "node/node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct alone {
        struct heap heap;
        struct node *node;
        uint64_t now_us;
        struct buffer journals[WORLD_GROUP_COUNT];
        bool known; /* that there was something in them */
        uint64_t synced[WORLD_GROUP_COUNT];
        struct reply reply;
        bool replied;
        ALONE_MORE
};

static struct alone alone;

/* Of the test: an effect that was carried out; a reply is read already. */
static void effect_came(const struct world_effect *effect);

static void step(struct world_event *event)
{
        struct world_effects effects;
        alone.now_us += 1000;
        event->now_us = alone.now_us;
        event->wall_us = 1700000000000000ull + alone.now_us;
        node_step(alone.node, event, &effects);
        for (size_t i = 0; i < effects.count; i++) {
                const struct world_effect *effect = &effects.items[i];
                if (effect->kind == WORLD_JOURNAL_APPEND)
                        buffer_bytes(&alone.journals[effect->journal.group], effect->journal.data);
                if (effect->kind == WORLD_REPLY) {
                        alone.replied = true;
                        assert_int_equal(reply_decode(effect->reply.data, &alone.reply, NULL, 0),
                                         ERR_NONE);
                }
                effect_came(effect);
        }
}

static void sync_journals(void)
{
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                if (alone.synced[i] == alone.journals[i].len)
                        continue;
                struct world_event event = {.kind = WORLD_JOURNAL_SYNCED};
                event.synced.group = (enum world_group)i;
                event.synced.offset = alone.synced[i] = alone.journals[i].len;
                step(&event);
        }
}

static void start(const char *topology)
{
        struct node_config config = {.self = 1, .topology = bytes_of_str(topology)};
#ifdef ALONE_LOCK_COPIES
        config.lock_copies = true;
#endif
        assert_int_equal(node_new(&alone.heap, &config, &alone.node), ERR_NONE);
        struct world_event event = {.kind = WORLD_START};
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                event.start.journals[i] = buffer_view(&alone.journals[i]);
                event.start.known[i] = alone.known;
                alone.synced[i] = alone.journals[i].len;
        }
        event.start.seed = 1;
        event.start.incarnation = alone.now_us + 1;
        step(&event);
}

static int setup(void **state)
{
        (void)state;
        memset(&alone, 0, sizeof alone);
        heap_init(&alone.heap, 0);
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++)
                buffer_init(&alone.journals[i], &alone.heap);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        node_free(alone.node);
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++)
                buffer_fini(&alone.journals[i]);
        assert_int_equal(alone.heap.used_bytes, 0);
        return 0;
}

#endif
