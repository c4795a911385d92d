/* Messages out. Each waits until the journal is durable up to what it promises: the term and vote
 * of its head. Acknowledgements name only what is durable already, so heartbeats and their answers
 * never wait for the entries that are being written. */
#include "base/check.h"
#include "raft/core_priv.h"

void post_send(struct core *core, uint32_t peer, struct message *message)
{
        message->group = core->config.group;
        message->cluster = core->config.cluster;
        message->from = core->config.self;
        message->to = peer;
        message->term = core->meta.term;
        void *queue = core->queue;
        struct bytes data;
        buffer_reset(&core->encoded);
        message_encode(message, &core->entries, &core->encoded);
        /* A message that finds no memory is a message lost. */
        if (core->encoded.err != ERR_NONE ||
            !heap_copy(core->heap, buffer_view(&core->encoded), &data))
                return;
        if (!core_grow(core, &queue, core->queue_count, &core->queue_size, sizeof *core->queue)) {
                heap_free_bytes(core->heap, data);
                return;
        }
        core->queue = queue;
        core->queue[core->queue_count++] =
                (struct outgoing){.peer = peer, .need = core->meta_need, .data = data};
}

/* Keeps the order of those to one peer as far as what they wait for allows. */
size_t post_release(struct core *core)
{
        uint64_t reached = core->config.bugs.send_before_sync ? UINT64_MAX : core->durable;
        if (core->failed || core->queue_count == 0)
                return 0;
        if (core->messages_size < core->queue_count) {
                struct consensus_message *messages = heap_resize(
                        core->heap, core->messages, core->queue_size * sizeof *core->messages);
                if (messages == NULL)
                        return 0; /* they wait for the next take */
                core->messages = messages;
                core->messages_size = core->queue_size;
        }
        size_t count = 0;
        size_t kept = 0;
        for (size_t i = 0; i < core->queue_count; i++) {
                struct outgoing *outgoing = &core->queue[i];
                if (outgoing->need <= reached)
                        core->messages[count++] = (struct consensus_message){
                                .peer = outgoing->peer, .data = outgoing->data};
                else
                        core->queue[kept++] = *outgoing;
        }
        core->queue_count = kept;
        core->released_count = count;
        return count;
}

void post_forget(struct core *core)
{
        for (size_t i = 0; i < core->released_count; i++)
                heap_free_bytes(core->heap, core->messages[i].data);
        core->released_count = 0;
}

void post_rebase(struct core *core, uint64_t durable_before)
{
        for (size_t i = 0; i < core->queue_count; i++) {
                struct outgoing *outgoing = &core->queue[i];
                outgoing->need = outgoing->need <= durable_before ? 0 : core->written;
        }
}

void post_fini(struct core *core)
{
        post_forget(core);
        for (size_t i = 0; i < core->queue_count; i++)
                heap_free_bytes(core->heap, core->queue[i].data);
        core->queue_count = 0;
        heap_free(core->heap, core->queue);
        heap_free(core->heap, core->messages);
        buffer_fini(&core->encoded);
}
