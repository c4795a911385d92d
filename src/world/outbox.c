/* outbox.c - effects and their bytes. A block holds one copy; blocks go all at once, in
 * outbox_reset. When memory runs out the effect is left out and `err` tells: the node
 * then stops taking part, since an effect that is missing (a journal record, a vote)
 * may have been a promise. */
#include "world/outbox.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>

#define OUTBOX_ITEMS_FIRST 32
#define OUTBOX_NOTE_MAX    512

struct outbox_block {
        struct outbox_block *next;
        uint8_t data[];
};

void outbox_init(struct outbox *outbox, struct heap *heap)
{
        *outbox = (struct outbox){.heap = heap};
}

void outbox_reset(struct outbox *outbox)
{
        while (outbox->blocks != NULL) {
                struct outbox_block *block = outbox->blocks;
                outbox->blocks = block->next;
                heap_free(outbox->heap, block);
        }
        outbox->count = 0;
        outbox->err = ERR_NONE;
}

void outbox_fini(struct outbox *outbox)
{
        outbox_reset(outbox);
        heap_free(outbox->heap, outbox->items);
        outbox->items = NULL;
        outbox->size = 0;
}

struct bytes outbox_copy(struct outbox *outbox, struct bytes data)
{
        if (data.len == 0)
                return bytes_of(NULL, 0);
        struct outbox_block *block = NULL;
        if (data.len <= SIZE_MAX - sizeof *block)
                block = heap_alloc(outbox->heap, sizeof *block + data.len);
        if (block == NULL) {
                outbox->err = ERR_NOMEM;
                return bytes_of(NULL, 0);
        }
        memcpy(block->data, data.ptr, data.len);
        block->next = outbox->blocks;
        outbox->blocks = block;
        return bytes_of(block->data, data.len);
}

void outbox_push(struct outbox *outbox, const struct world_effect *effect)
{
        if (outbox->err != ERR_NONE)
                return;
        if (outbox->count == outbox->size) {
                size_t size = outbox->size == 0 ? OUTBOX_ITEMS_FIRST : outbox->size * 2;
                struct world_effect *items =
                        heap_resize(outbox->heap, outbox->items, size * sizeof *items);
                if (items == NULL) {
                        outbox->err = ERR_NOMEM;
                        return;
                }
                outbox->items = items;
                outbox->size = size;
        }
        CHECK(outbox->count < outbox->size);
        outbox->items[outbox->count++] = *effect;
}

void outbox_wake(struct outbox *outbox, uint64_t at_us)
{
        struct world_effect effect = {.kind = WORLD_WAKE};
        effect.wake.at_us = at_us;
        outbox_push(outbox, &effect);
}

void outbox_send(struct outbox *outbox, node_id peer, enum world_class class, struct bytes data)
{
        struct world_effect effect = {.kind = WORLD_SEND};
        effect.send.peer = peer;
        effect.send.class = class;
        effect.send.data = outbox_copy(outbox, data);
        outbox_push(outbox, &effect);
}

void outbox_reply(struct outbox *outbox, uint64_t request, struct bytes data)
{
        struct world_effect effect = {.kind = WORLD_REPLY};
        effect.reply.request = request;
        effect.reply.data = outbox_copy(outbox, data);
        outbox_push(outbox, &effect);
}

void outbox_note(struct outbox *outbox, const char *name, const char *format, ...)
{
        char text[OUTBOX_NOTE_MAX];
        va_list args;
        va_start(args, format);
        int len = vsnprintf(text, sizeof text, format, args);
        va_end(args);
        if (len < 0)
                len = 0;
        size_t kept = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
        struct world_effect effect = {.kind = WORLD_NOTE};
        effect.note.name = name;
        effect.note.text = outbox_copy(outbox, bytes_of(text, kept));
        outbox_push(outbox, &effect);
}

void outbox_publish(struct outbox *outbox)
{
        struct world_effect effect = {.kind = WORLD_PUBLISH};
        outbox_push(outbox, &effect);
}
