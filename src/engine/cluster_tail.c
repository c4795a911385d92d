/* The streams of all shards as one, for each peer by itself.
 *
 *      node asks -> every shard is read from there, without waiting
 *        nobody has anything  -> the bells wait, one blocking TAIL for each shard; one of them
 *                                rings, or the time is over -> asked again, or answered empty
 *        some have deltas     -> those that have none are asked to mark their stream as complete
 *                                up to the least that the others gave, and read again
 *        all have told        -> merged up to the least reach -> answered
 *
 * A mark is logged by its shard before it is told, so whatever position a peer learns, every shard
 * has it in its log. A shard that is behind the position asked for answers GAP, and so do we. */
#include "engine/cluster_priv.h"

enum {
        BELL_MS = 1000,
        FLOW_RETRY_MS = 100,
};

static struct flow *flow_of(struct cluster *cluster, node_id peer)
{
        struct heap *heap = cluster->engine->config.heap;
        struct flow *flow = cluster->flows;
        while (flow != NULL && flow->peer != peer)
                flow = flow->next;
        if (flow != NULL)
                return flow;
        flow = heap_alloc(heap, sizeof *flow);
        if (flow == NULL)
                return NULL;
        flow->peer = peer;
        for (unsigned i = 0; i < SHARDS_MAX; i++)
                buffer_init(&flow->deltas[i], heap);
        flow->next = cluster->flows;
        cluster->flows = flow;
        return flow;
}

static void flow_answer(struct cluster *cluster, struct flow *flow, uint64_t last,
                        struct bytes deltas)
{
        struct world_event event = {.kind = WORLD_REDIS_TAILED};
        flow->pending = flow->asking = false;
        event.tailed.peer = flow->peer;
        event.tailed.after = flow->after;
        event.tailed.gap = flow->gap;
        event.tailed.last = flow->gap || last > flow->after ? last : flow->after;
        event.tailed.deltas = deltas;
        engine_emit(cluster->engine, &event);
}

/* ---- bells ---- */

static void flow_ask(struct cluster *cluster, struct flow *flow);

static void bells_arm(struct cluster *cluster, const struct flow *flow);

static void bell_rang(struct call *call, const redisReply *reply)
{
        struct shard *shard = call->connection->user;
        struct cluster *cluster = shard->cluster;
        shard->bell_armed = false;
        if (reply == NULL || call->ticket != cluster->generation || !cluster->engine->redis_up)
                return;
        for (struct flow *flow = cluster->flows; flow != NULL; flow = flow->next) {
                if (flow->pending && !flow->asking && flow->retry_ms == 0)
                        flow_ask(cluster, flow);
        }
}

static void bells_arm(struct cluster *cluster, const struct flow *flow)
{
        for (unsigned i = 0; i < cluster->count; i++) {
                char after[NUMBER_SIZE], block_ms[NUMBER_SIZE];
                struct shard *shard = cluster->shards[i];
                struct call call = {.done = bell_rang, .ticket = cluster->generation};
                struct bytes argv[] = {BYTES("MERIDIAN.TAIL"),
                                       cluster_number(flow->reach[i], after), BYTES("1"),
                                       cluster_number(BELL_MS, block_ms)};
                if (shard->bell_armed)
                        continue;
                shard->bell.slack_ms = BELL_MS;
                shard->bell_armed = connection_send(&shard->bell, &call, COUNT_OF(argv), argv);
        }
}

/* ---- a round ---- */

static struct flow *flow_of_ticket(struct cluster *cluster, uint64_t ticket)
{
        struct flow *flow = cluster->flows;
        while (flow != NULL && !(flow->asking && flow->ticket == ticket))
                flow = flow->next;
        return flow;
}

static void flow_merge(struct cluster *cluster, struct flow *flow)
{
        struct shards_stream streams[SHARDS_MAX];
        struct buffer merged;
        uint64_t last = 0;
        for (unsigned i = 0; i < cluster->count; i++)
                streams[i] = (struct shards_stream){buffer_view(&flow->deltas[i]), flow->reach[i]};
        if (flow->read_to != flow->after)
                memset(&flow->seen, 0, sizeof flow->seen);
        buffer_init(&merged, cluster->engine->config.heap);
        enum err err =
                shards_merge(streams, cluster->count, flow->after, &flow->seen, &merged, &last);
        if (err != ERR_NONE || last <= flow->after) {
                if (err != ERR_NONE)
                        engine_note(cluster->engine, "redis-refused",
                                    "the stream of a shard cannot be read: %s", err_text(err));
                flow->asking = false;
                flow->retry_ms = cluster_now_ms(cluster) + FLOW_RETRY_MS;
        } else {
                flow->read_to = last;
                flow_answer(cluster, flow, last, buffer_view(&merged));
        }
        buffer_fini(&merged);
}

static void flow_wait(struct cluster *cluster, struct flow *flow)
{
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < cluster->count; i++)
                least = flow->reach[i] < least ? flow->reach[i] : least;
        flow->asking = false;
        if (cluster_now_ms(cluster) >= flow->deadline_ms)
                flow_answer(cluster, flow, least, bytes_of(NULL, 0));
        else
                bells_arm(cluster, flow);
}

static void flow_send(struct cluster *cluster, struct flow *flow, uint64_t mark);

static void flow_round_done(struct cluster *cluster, struct flow *flow)
{
        uint64_t mark = UINT64_MAX;
        bool idle = false;
        for (unsigned i = 0; i < cluster->count; i++) {
                bool data = flow->deltas[i].len > 0;
                idle = idle || !data;
                if (data && flow->reach[i] < mark)
                        mark = flow->reach[i];
        }
        if (flow->gap) {
                flow_answer(cluster, flow, 0, bytes_of(NULL, 0));
        } else if (flow->failed) {
                flow->asking = false;
                flow->retry_ms = cluster_now_ms(cluster) + FLOW_RETRY_MS;
        } else if (mark == UINT64_MAX) {
                flow_wait(cluster, flow);
        } else if (idle && !flow->marked) {
                flow->marked = true;
                flow_send(cluster, flow, mark);
        } else {
                flow_merge(cluster, flow);
        }
}

static void flow_part_done(struct cluster *cluster, struct flow *flow)
{
        CHECK(flow->waiting > 0);
        flow->waiting--;
        if (flow->waiting == 0)
                flow_round_done(cluster, flow);
}

static void mark_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct flow *flow = flow_of_ticket(shard->cluster, call->ticket);
        if (reply == NULL || flow == NULL || shard->index >= SHARDS_MAX)
                return;
        if (reply->type == REDIS_REPLY_INTEGER && reply->integer > 0)
                flow->reach[shard->index] = (uint64_t)reply->integer;
        else
                flow->failed = true;
        flow_part_done(shard->cluster, flow);
}

static void read_answered(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct flow *flow = flow_of_ticket(shard->cluster, call->ticket);
        struct world_event event;
        if (reply == NULL || flow == NULL || shard->index >= SHARDS_MAX)
                return;
        enum reply_kind kind = reply_tail(reply, &event);
        obstacle_heard(call, reply);
        struct buffer *deltas = &flow->deltas[shard->index];
        if (kind == REPLY_GAP)
                flow->gap = true;
        else if (kind != REPLY_GOOD)
                flow->failed = true;
        else
                buffer_bytes(deltas, event.tailed.deltas);
        if (deltas->err != ERR_NONE)
                flow->failed = true;
        if (kind == REPLY_GOOD && (deltas->len > 0 || !flow->marked))
                flow->reach[shard->index] = event.tailed.last;
        flow_part_done(shard->cluster, flow);
}

/* Reads every shard, or, with a mark, those that had nothing. */
static void flow_send(struct cluster *cluster, struct flow *flow, uint64_t mark)
{
        CHECK(cluster->count > 0);
        char after[NUMBER_SIZE], bytes_max[NUMBER_SIZE], clock[NUMBER_SIZE];
        struct bytes marks[] = {BYTES("MERIDIAN.MARK"), cluster_number(mark, clock)};
        struct bytes reads[] = {BYTES("MERIDIAN.TAIL"), cluster_number(flow->after, after),
                                cluster_number(flow->bytes_max / cluster->count + 1, bytes_max),
                                BYTES("0")};
        struct call call = {.done = read_answered, .ticket = flow->ticket};
        struct call call_mark = {.done = mark_answered, .ticket = flow->ticket};
        flow->waiting = 1; /* for this function */
        for (unsigned i = 0; i < cluster->count; i++) {
                struct connection *connection = &cluster->shards[i]->reads;
                if (mark != 0 && flow->deltas[i].len > 0)
                        continue;
                if (mark != 0 && connection_send(connection, &call_mark, COUNT_OF(marks), marks))
                        flow->waiting++;
                if (connection_send(connection, &call, COUNT_OF(reads), reads))
                        flow->waiting++;
                else
                        flow->failed = true;
        }
        flow_part_done(cluster, flow);
}

static void flow_ask(struct cluster *cluster, struct flow *flow)
{
        flow->asking = true;
        flow->marked = flow->gap = flow->failed = false;
        flow->retry_ms = 0;
        flow->ticket = ++cluster->tickets;
        for (unsigned i = 0; i < cluster->count; i++) {
                buffer_reset(&flow->deltas[i]);
                flow->reach[i] = 0;
        }
        flow_send(cluster, flow, 0);
}

void cluster_tail(struct cluster *cluster, const struct world_effect *effect)
{
        struct flow *flow = flow_of(cluster, effect->tail.peer);
        if (flow == NULL) { /* no memory: answered with nothing, so that the node may ask again */
                struct world_event event = {.kind = WORLD_REDIS_TAILED};
                event.tailed.peer = effect->tail.peer;
                event.tailed.after = event.tailed.last = effect->tail.after;
                engine_emit(cluster->engine, &event);
                return;
        }
        flow->pending = true;
        flow->after = effect->tail.after;
        flow->bytes_max = effect->tail.bytes_max;
        flow->deadline_ms = cluster_now_ms(cluster) + effect->tail.block_ms;
        flow_ask(cluster, flow);
}

void cluster_tail_timed(struct cluster *cluster)
{
        uint64_t now_ms = cluster_now_ms(cluster);
        for (struct flow *flow = cluster->flows; flow != NULL; flow = flow->next) {
                bool due = flow->retry_ms != 0 ? now_ms >= flow->retry_ms
                                               : now_ms >= flow->deadline_ms;
                if (flow->pending && !flow->asking && due)
                        flow_ask(cluster, flow);
        }
}

void cluster_tail_drop(struct cluster *cluster)
{
        for (struct flow *flow = cluster->flows; flow != NULL; flow = flow->next) {
                flow->pending = flow->asking = false;
                flow->read_to = 0;
                flow->ticket = ++cluster->tickets;
        }
}

void cluster_tail_fini(struct cluster *cluster)
{
        while (cluster->flows != NULL) {
                struct flow *flow = cluster->flows;
                cluster->flows = flow->next;
                for (unsigned i = 0; i < SHARDS_MAX; i++)
                        buffer_fini(&flow->deltas[i]);
                heap_free(cluster->engine->config.heap, flow);
        }
}
