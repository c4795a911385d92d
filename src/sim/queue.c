/* queue.c - the events to come, a binary heap by time; equal times keep the order of their making,
 * so a run does not depend on the heap's shape. */
#include "sim/sim_priv.h"

#define QUEUE_FIRST 1024

static bool before(const struct sim_event *a, const struct sim_event *b)
{
        return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

void queue_init(struct queue *queue, struct heap *heap)
{
        *queue = (struct queue){.heap = heap};
}

void queue_fini(struct queue *queue)
{
        for (size_t i = 0; i < queue->count; i++)
                heap_free(queue->heap, queue->items[i].parcel);
        heap_free(queue->heap, queue->items);
        queue->items = NULL;
        queue->count = queue->size = 0;
}

void queue_push(struct queue *queue, const struct sim_event *event)
{
        if (queue->count == queue->size) {
                size_t size = queue->size == 0 ? QUEUE_FIRST : queue->size * 2;
                queue->items =
                        heap_resize(queue->heap, queue->items, size * sizeof queue->items[0]);
                CHECK(queue->items != NULL);
                queue->size = size;
        }
        struct sim_event moving = *event;
        moving.sequence = ++queue->sequence;
        size_t at = queue->count++;
        while (at > 0 && before(&moving, &queue->items[(at - 1) / 2])) {
                queue->items[at] = queue->items[(at - 1) / 2];
                at = (at - 1) / 2;
        }
        queue->items[at] = moving;
}

static void sink(struct queue *queue, struct sim_event moving)
{
        size_t at = 0;
        for (;;) {
                size_t child = 2 * at + 1;
                if (child >= queue->count)
                        break;
                if (child + 1 < queue->count &&
                    before(&queue->items[child + 1], &queue->items[child]))
                        child++;
                if (!before(&queue->items[child], &moving))
                        break;
                queue->items[at] = queue->items[child];
                at = child;
        }
        queue->items[at] = moving;
}

bool queue_pop(struct queue *queue, struct sim_event *ret)
{
        if (queue->count == 0)
                return false;
        *ret = queue->items[0];
        struct sim_event last = queue->items[--queue->count];
        if (queue->count > 0)
                sink(queue, last);
        return true;
}
