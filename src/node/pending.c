/* pending.c - the requests that wait for a decision: found by sequence (when the decision comes)
 * and by the world's name (when the client goes), in the order in which they came otherwise.
 *
 * Time is looked at rarely: `pending_next_us` is never later than the first deadline or retry, so
 * as long as it lies ahead nobody has to be asked. It may be earlier than all (whoever set it has
 * gone), which costs one look at all of them. */
#include "base/check.h"
#include "node/node_priv.h"

static struct pending **by_sequence(struct node *node, uint64_t sequence)
{
        return &node->pending_by_sequence[sequence % NODE_PENDING_CHAINS];
}

/* The numbers of the API count uses above and places below: both take part. */
static struct pending **by_request(struct node *node, uint64_t request)
{
        return &node->pending_by_request[(request ^ request >> 16) % NODE_PENDING_CHAINS];
}

bool pendings_open(struct node *node)
{
        node->pending_by_sequence =
                heap_alloc_array(node->heap, NODE_PENDING_CHAINS, sizeof(struct pending *));
        node->pending_by_request =
                heap_alloc_array(node->heap, NODE_PENDING_CHAINS, sizeof(struct pending *));
        node->pending_next_us = UINT64_MAX;
        return node->pending_by_sequence != NULL && node->pending_by_request != NULL;
}

struct pending *pending_new(struct node *node, struct asker asker)
{
        if (node->pending_count == NODE_PENDING_MAX)
                return NULL;
        struct pending *pending = heap_alloc(node->heap, sizeof *pending);
        if (pending == NULL)
                return NULL;
        pending->sequence = ++node->sequence;
        pending->arrived_us = node->now_us;
        pending->request = asker.request;
        pending->from = asker.from;
        pending->from_id = asker.from_id;
        pending->before = node->pending_last;
        if (node->pending_last == NULL)
                node->pending_first = pending;
        else
                node->pending_last->next = pending;
        node->pending_last = pending;
        struct pending **chain = by_sequence(node, pending->sequence);
        pending->sequence_next = *chain;
        *chain = pending;
        if (pending->request != 0) {
                chain = by_request(node, pending->request);
                pending->request_next = *chain;
                *chain = pending;
        }
        node->pending_count++;
        return pending;
}

void pending_forget_request(struct node *node, struct pending *pending)
{
        if (pending->request == 0)
                return;
        struct pending **link = by_request(node, pending->request);
        while (*link != pending)
                link = &(*link)->request_next;
        *link = pending->request_next;
        pending->request = 0;
}

static void sequence_leave(struct node *node, struct pending *pending)
{
        struct pending **link = by_sequence(node, pending->sequence);
        while (*link != pending)
                link = &(*link)->sequence_next;
        *link = pending->sequence_next;
}

void pending_number(struct node *node, struct pending *pending, uint64_t sequence)
{
        sequence_leave(node, pending);
        pending->sequence = sequence;
        struct pending **chain = by_sequence(node, sequence);
        pending->sequence_next = *chain;
        *chain = pending;
}

void pending_drop(struct node *node, struct pending *pending)
{
        CHECK(node->pending_count > 0);
        pending_forget_request(node, pending);
        sequence_leave(node, pending);
        if (pending->before == NULL)
                node->pending_first = pending->next;
        else
                pending->before->next = pending->next;
        if (pending->next == NULL)
                node->pending_last = pending->before;
        else
                pending->next->before = pending->before;
        node->pending_count--;
        if (pending->waits)
                node->waiting_count--;
        node->groups[pending->group].watch_counts[pending->watch] -=
                pending->watch != WATCH_NOTHING;
        heap_free_bytes(node->heap, pending->command);
        heap_free_bytes(node->heap, pending->question);
        heap_free(node->heap, pending);
}

void pending_drop_all(struct node *node)
{
        while (node->pending_first != NULL)
                pending_drop(node, node->pending_first);
        heap_free(node->heap, node->pending_by_sequence);
        heap_free(node->heap, node->pending_by_request);
}

struct pending *pending_of_sequence(struct node *node, uint64_t sequence)
{
        struct pending *pending = *by_sequence(node, sequence);
        while (pending != NULL && pending->sequence != sequence)
                pending = pending->sequence_next;
        return pending;
}

struct pending *pending_of_request(struct node *node, uint64_t request)
{
        struct pending *pending = *by_request(node, request);
        while (pending != NULL && pending->request != request)
                pending = pending->request_next;
        return pending;
}

void pending_times(struct node *node, const struct pending *pending)
{
        if (pending->deadline_us < node->pending_next_us)
                node->pending_next_us = pending->deadline_us;
        if (pending->retry_us < node->pending_next_us)
                node->pending_next_us = pending->retry_us;
}
