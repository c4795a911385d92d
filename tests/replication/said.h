/* said.h - a message of a peer as an event, for the tests of replication. The program that includes
 * it sets the heap up, and defines step(). */
#ifndef MERIDIAN_TESTS_REPLICATION_SAID_H
#define MERIDIAN_TESTS_REPLICATION_SAID_H

#include "replication/replication_priv.h"

static struct heap heap;

static void step(struct world_event *event);

static void said(node_id peer, const struct replication_message *message)
{
        struct buffer buffer;
        buffer_init(&buffer, &heap);
        replication_message_encode(message, &buffer);
        struct world_event event = {.kind = WORLD_MESSAGE};
        event.message.peer = peer;
        event.message.class = WORLD_CLASS_DATA;
        event.message.data = buffer_view(&buffer);
        step(&event);
        buffer_fini(&buffer);
}

#endif
