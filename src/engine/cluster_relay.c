/* What the shards have merged of another region's stream, as one again, for a peer that its origin
 * does not reach. One question for each peer and origin.
 *
 *      node asks -> every shard is asked for what it has merged, and up to where
 *        some have less than all  -> asked again after a while, until the time is over
 *        the least reach is later -> merged up to there -> answered
 *        a shard no longer has it -> GAP, and so we answer: the peer takes the state
 *
 * A batch goes to all shards, also where nothing is in it for them, so positions are the same;
 * deltas that concern no key are at each of them, and are told once (keyspace/shards.h). */
#include "engine/cluster_priv.h"

enum {
        RELAY_RETRY_MS = 20,
};

struct relaying {
        struct relaying *next;
        node_id peer;
        region_id origin;
        bool pending; /* asked by the node and not answered */
        bool asking;  /* shards are asked */
        bool gap, failed;
        uint64_t after;
        uint32_t bytes_max;
        uint64_t deadline_ms;
        uint64_t retry_ms;
        uint64_t ticket;
        unsigned waiting;
        struct buffer deltas[SHARDS_MAX];
        uint64_t reach[SHARDS_MAX];
};

static struct relaying *relaying_of(struct cluster *cluster, node_id peer, region_id origin)
{
        struct heap *heap = cluster->engine->config.heap;
        struct relaying *relaying = cluster->relayings;
        while (relaying != NULL && (relaying->peer != peer || relaying->origin != origin))
                relaying = relaying->next;
        if (relaying != NULL)
                return relaying;
        relaying = heap_alloc(heap, sizeof *relaying);
        if (relaying == NULL)
                return NULL;
        relaying->peer = peer;
        relaying->origin = origin;
        for (unsigned i = 0; i < SHARDS_MAX; i++)
                buffer_init(&relaying->deltas[i], heap);
        relaying->next = cluster->relayings;
        cluster->relayings = relaying;
        return relaying;
}

static void relay_answer(struct cluster *cluster, struct relaying *relaying, uint64_t last,
                         struct bytes deltas)
{
        struct world_event event = {.kind = WORLD_REDIS_TAILED};
        relaying->pending = relaying->asking = false;
        event.tailed.peer = relaying->peer;
        event.tailed.origin = relaying->origin;
        event.tailed.after = relaying->after;
        event.tailed.gap = relaying->gap;
        event.tailed.last = last;
        event.tailed.deltas = deltas;
        engine_emit(cluster->engine, &event);
}

static void relay_later(struct cluster *cluster, struct relaying *relaying)
{
        uint64_t now_ms = cluster_now_ms(cluster);
        relaying->asking = false;
        relaying->retry_ms = now_ms + RELAY_RETRY_MS;
        if (now_ms >= relaying->deadline_ms)
                relay_answer(cluster, relaying, relaying->after, bytes_of(NULL, 0));
}

static void relay_round_done(struct cluster *cluster, struct relaying *relaying)
{
        struct shards_stream streams[SHARDS_MAX];
        struct buffer merged;
        uint64_t last = 0;
        if (relaying->gap) {
                relay_answer(cluster, relaying, 0, bytes_of(NULL, 0));
                return;
        }
        if (relaying->failed) {
                relay_later(cluster, relaying);
                return;
        }
        for (unsigned i = 0; i < cluster->count; i++)
                streams[i] = (struct shards_stream){buffer_view(&relaying->deltas[i]),
                                                    relaying->reach[i]};
        buffer_init(&merged, cluster->engine->config.heap);
        enum err err = shards_merge(streams, cluster->count, relaying->after, NULL, &merged, &last);
        if (err != ERR_NONE)
                engine_note(cluster->engine, "redis-refused",
                            "what a shard has merged cannot be read: %s", err_text(err));
        if (err != ERR_NONE || merged.len == 0)
                relay_later(cluster, relaying);
        else
                relay_answer(cluster, relaying, last, buffer_view(&merged));
        buffer_fini(&merged);
}

static void relay_part_done(struct cluster *cluster, struct relaying *relaying)
{
        CHECK(relaying->waiting > 0);
        relaying->waiting--;
        if (relaying->waiting == 0)
                relay_round_done(cluster, relaying);
}

static void relay_read(struct call *call, const redisReply *reply)
{
        const struct shard *shard = call->connection->user;
        struct relaying *relaying = shard->cluster->relayings;
        struct world_event event;
        while (relaying != NULL && !(relaying->asking && relaying->ticket == call->ticket))
                relaying = relaying->next;
        if (reply == NULL || relaying == NULL || shard->index >= SHARDS_MAX)
                return;
        enum reply_kind kind = reply_tail(reply, &event);
        obstacle_heard(call, reply);
        struct buffer *deltas = &relaying->deltas[shard->index];
        if (kind == REPLY_GAP) {
                relaying->gap = true;
        } else if (kind != REPLY_GOOD) {
                relaying->failed = true;
        } else {
                buffer_bytes(deltas, event.tailed.deltas);
                relaying->reach[shard->index] = event.tailed.last;
                relaying->failed = relaying->failed || deltas->err != ERR_NONE;
        }
        relay_part_done(shard->cluster, relaying);
}

static void relay_ask(struct cluster *cluster, struct relaying *relaying)
{
        char after[NUMBER_SIZE], bytes_max[NUMBER_SIZE], origin[NUMBER_SIZE];
        struct bytes argv[] = {BYTES("MERIDIAN.TAIL"), cluster_number(relaying->after, after),
                               cluster_number(relaying->bytes_max / cluster->count + 1, bytes_max),
                               BYTES("0"), cluster_number(relaying->origin, origin)};
        relaying->asking = true;
        relaying->gap = relaying->failed = false;
        relaying->ticket = ++cluster->tickets;
        relaying->waiting = 1; /* for this function */
        struct call call = {.done = relay_read, .ticket = relaying->ticket};
        for (unsigned i = 0; i < cluster->count; i++) {
                buffer_reset(&relaying->deltas[i]);
                relaying->reach[i] = 0;
                if (connection_send(&cluster->shards[i]->reads, &call, COUNT_OF(argv), argv))
                        relaying->waiting++;
                else
                        relaying->failed = true;
        }
        relay_part_done(cluster, relaying);
}

void cluster_relay(struct cluster *cluster, const struct world_effect *effect)
{
        struct relaying *relaying = relaying_of(cluster, effect->tail.peer, effect->tail.origin);
        if (relaying == NULL) { /* no memory: there is nothing, for now */
                struct world_event event = {.kind = WORLD_REDIS_TAILED};
                event.tailed.peer = effect->tail.peer;
                event.tailed.origin = effect->tail.origin;
                event.tailed.after = event.tailed.last = effect->tail.after;
                engine_emit(cluster->engine, &event);
                return;
        }
        relaying->pending = true;
        relaying->after = effect->tail.after;
        relaying->bytes_max = effect->tail.bytes_max;
        relaying->deadline_ms = cluster_now_ms(cluster) + effect->tail.block_ms;
        relay_ask(cluster, relaying);
}

void cluster_relay_timed(struct cluster *cluster)
{
        uint64_t now_ms = cluster_now_ms(cluster);
        for (struct relaying *r = cluster->relayings; r != NULL; r = r->next)
                if (r->pending && !r->asking && now_ms >= r->retry_ms)
                        relay_ask(cluster, r);
}

void cluster_relay_drop(struct cluster *cluster)
{
        for (struct relaying *r = cluster->relayings; r != NULL; r = r->next) {
                r->pending = r->asking = false;
                r->ticket = ++cluster->tickets;
        }
}

void cluster_relay_fini(struct cluster *cluster)
{
        while (cluster->relayings != NULL) {
                struct relaying *relaying = cluster->relayings;
                cluster->relayings = relaying->next;
                for (unsigned i = 0; i < SHARDS_MAX; i++)
                        buffer_fini(&relaying->deltas[i]);
                heap_free(cluster->engine->config.heap, relaying);
        }
}
