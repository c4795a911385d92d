/* outbox.h - the effects of one step while they are being made: a list, and the bytes that the
 * effects point at, both alive until outbox_reset. The first failure of memory sticks. */
#ifndef MERIDIAN_WORLD_OUTBOX_H
#define MERIDIAN_WORLD_OUTBOX_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/heap.h"
#include "world/world.h"

struct outbox_block;

struct outbox {
        struct heap *heap;
        struct world_effect *items;
        size_t count;
        size_t size;
        struct outbox_block *blocks;
        enum err err; /* ERR_NONE or ERR_NOMEM */
};

/* Keeps `heap` until outbox_fini. Allocates nothing yet. */
void outbox_init(struct outbox *outbox, struct heap *heap);
void outbox_fini(struct outbox *outbox);

/* Forgets all effects and gives their bytes back; clears the error. */
void outbox_reset(struct outbox *outbox);

/* A copy of `data` that lives until outbox_reset; empty (and the error set) without memory. */
struct bytes outbox_copy(struct outbox *outbox, struct bytes data);

/* Appends an effect as it is: its slices must live until outbox_reset. */
void outbox_push(struct outbox *outbox, const struct world_effect *effect);

/* The common effects; `data` and `text` are copied. */
void outbox_wake(struct outbox *outbox, uint64_t at_us);
void outbox_send(struct outbox *outbox, node_id peer, enum world_class class, struct bytes data);
void outbox_reply(struct outbox *outbox, uint64_t request, struct bytes data);
void outbox_note(struct outbox *outbox, const char *name, const char *format, ...)
        PRINTF_LIKE(3, 4);
void outbox_publish(struct outbox *outbox);

#endif
