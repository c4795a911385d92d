/* The wide area that the lab pretends. Bytes come out after the delay, in order. A lost segment is
 * what TCP makes of it: the segment, and all behind it, come a retransmission later, which may be
 * lost again. Between nodes something is always under way, so the sender notices each loss, also
 * that of a retransmission, after about a round trip (RACK, RFC 8985): no timer is doubled. */
#include "base/check.h"
#include "link/link_priv.h"

#define SEGMENT_BYTES 1400
#define RTO_US_MIN    200000
#define RETRIES_MAX   5

struct pipe_chunk {
        struct pipe_chunk *next;
        uint64_t due_us;
        size_t len;
        uint8_t data[];
};

void pipe_init(struct pipe *pipe, struct heap *heap)
{
        *pipe = (struct pipe){.heap = heap};
}

static void pipe_drop_first(struct pipe *pipe)
{
        struct pipe_chunk *chunk = pipe->first;
        CHECK(chunk->len <= pipe->bytes);
        pipe->first = chunk->next;
        if (pipe->first == NULL)
                pipe->last = NULL;
        pipe->bytes -= chunk->len;
        heap_free(pipe->heap, chunk);
}

void pipe_clear(struct pipe *pipe)
{
        while (pipe->first != NULL)
                pipe_drop_first(pipe);
}

/* What the losses of one segment cost. */
static uint64_t segment_late_us(uint32_t loss_per_mille, struct rng *rng, uint64_t rto_us)
{
        uint64_t late_us = 0;
        for (unsigned i = 0; i < RETRIES_MAX && rng_chance(rng, loss_per_mille); i++)
                late_us += rto_us;
        return late_us;
}

uint64_t pipe_delay_us(const struct link_impairment *impairment, struct rng *rng, size_t len,
                       uint64_t rtt_us)
{
        uint64_t worst_us = 0;
        uint64_t rto_us = rtt_us > RTO_US_MIN ? rtt_us : RTO_US_MIN;
        size_t segments = impairment->loss_per_mille == 0 ? 0 : len / SEGMENT_BYTES + 1;
        for (size_t i = 0; i < segments; i++) {
                uint64_t late_us = segment_late_us(impairment->loss_per_mille, rng, rto_us);
                worst_us = late_us > worst_us ? late_us : worst_us;
        }
        return impairment->delay_us + impairment->slow_us + worst_us;
}

enum err pipe_put(struct pipe *pipe, struct bytes data, uint64_t due_us)
{
        struct pipe_chunk *chunk = heap_alloc(pipe->heap, sizeof *chunk + data.len);
        if (chunk == NULL)
                return ERR_NOMEM;
        if (due_us < pipe->due_us_last)
                due_us = pipe->due_us_last;
        pipe->due_us_last = due_us;
        chunk->due_us = due_us;
        chunk->len = data.len;
        memcpy(chunk->data, data.ptr, data.len);
        if (pipe->last == NULL)
                pipe->first = chunk;
        else
                pipe->last->next = chunk;
        pipe->last = chunk;
        pipe->bytes += data.len;
        return ERR_NONE;
}

void pipe_take(struct pipe *pipe, uint64_t now_us, struct buffer *out)
{
        while (pipe->first != NULL && pipe->first->due_us <= now_us && out->err == ERR_NONE) {
                buffer_bytes(out, bytes_of(pipe->first->data, pipe->first->len));
                pipe_drop_first(pipe);
        }
}

uint64_t pipe_due_us(const struct pipe *pipe)
{
        return pipe->first == NULL ? UINT64_MAX : pipe->first->due_us;
}
