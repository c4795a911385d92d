/* receiver.c - the stream, or the whole state, of one peer into our Redis.
 *
 *   IDLE --link and Redis up, retry time--> OPEN (SUBSCRIBE from Redis' own position)
 *   OPEN --batch or part in order--> queue --one at a time--> Redis --> ACK
 *   OPEN --gap, refusal by Redis, silence, queue full--> OPEN again, by a new subscription
 *   OPEN --BYE, link or Redis down--> IDLE
 *
 * A subscription tells what our Redis holds, so it waits for a merge that is under way. What others
 * relay of the stream (relay.c) goes through the same queue.
 *
 * Nothing is acknowledged before Redis has merged it. An answer of Redis to a merge of an older
 * subscription only frees the way. */
#include "base/check.h"
#include "replication/replication_priv.h"

void receiver_init(struct receiver *receiver)
{
        *receiver = (struct receiver){.state = RECEIVER_IDLE};
        receiver->tail = &receiver->first;
}

static void item_free(struct replication *r, struct receiver *receiver, struct receiver_item *item)
{
        receiver->bytes -= item->data.len;
        receiver->count--;
        heap_free(r->heap, item->positions);
        heap_free(r->heap, item);
}

static void queue_clear(struct replication *r, struct receiver *receiver)
{
        while (receiver->first != NULL) {
                struct receiver_item *item = receiver->first;
                receiver->first = item->next;
                item_free(r, receiver, item);
        }
        receiver->tail = &receiver->first;
}

void receiver_stop(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        queue_clear(r, receiver);
        if (r->transfer_from == peer)
                r->transfer_from = NULL;
        receiver->state = RECEIVER_IDLE;
        receiver->merge_stale = receiver->merging;
        receiver->transfer = false;
        receiver->retry_us = 0;
        receiver->synced = false;
        receiver->again = false;
}

void receiver_redis_down(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        receiver_stop(r, peer);
        receiver->whole = false;
        receiver->relay_out = false;
        receiver->relay_next_us = 0;
        receiver->merging = receiver->merge_stale = false;
        if (receiver->merged != NULL)
                item_free(r, receiver, receiver->merged);
        receiver->merged = NULL;
}

void receiver_subscribe(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        bool synced = receiver->synced;
        receiver_stop(r, peer);
        if (!peer->up || !r->redis_up)
                return;
        /* What we tell must hold for good: a merge that ends later would be more than that. */
        receiver->again = receiver->merging;
        if (receiver->again)
                return;
        receiver->synced = synced;
        receiver->state = RECEIVER_OPEN;
        receiver->sub = ++r->sub_last;
        receiver->expect = receiver->position;
        receiver->part = receiver->part_merged = receiver->place_of = 0;
        receiver->subscribed_us = receiver->heard_us = r->now_us;
        struct replication_message message = {.kind = REPLICATION_RESUME, .sub = receiver->sub};
        message.resume = receiver->resume;
        receiver->resuming = receiver->resume.table != 0;
        if (receiver->resuming)
                replication_send(r, peer, &message);
        message = (struct replication_message){.kind = REPLICATION_SUBSCRIBE};
        message.sub = receiver->sub;
        message.after = receiver->position;
        message.whole = receiver->whole;
        for (size_t i = 0; i < r->hole_count; i++)
                if (r->holes[i].origin == peer->region)
                        message.holes[message.hole_count++] = r->holes[i];
        replication_send(r, peer, &message);
}

static void retry_later(struct replication *r, struct peer *peer)
{
        receiver_stop(r, peer);
        peer->receiver.retry_us = r->now_us + REPLICATION_RETRY_US;
}

static void acknowledge(struct replication *r, struct peer *peer, uint64_t position, uint64_t part)
{
        struct replication_message message = {.kind = REPLICATION_ACK, .sub = peer->receiver.sub};
        message.last = position;
        message.part = part;
        replication_send(r, peer, &message);
}

static bool others_merge(const struct replication *r, const struct peer *peer)
{
        for (size_t i = 0; i < r->peer_count; i++)
                if (&r->peers[i] != peer && r->peers[i].receiver.merging)
                        return true;
        return false;
}

/* While a state is merged, nothing else is: a delta that its sender has seen, and that comes after
 * the part with its key, would bring back what has died there since. What is at Redis when it
 * begins is waited for: one of several servers may have to be asked again. */
static bool state_waits(struct replication *r, struct peer *peer)
{
        if (r->transfer_from != NULL && r->transfer_from != peer)
                return true;
        if (!peer->receiver.first->state)
                return false;
        r->transfer_from = peer;
        return others_merge(r, peer);
}

/* Hands the next item to Redis. */
static void receiver_go(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        if (receiver->merging || receiver->first == NULL || !r->redis_up)
                return;
        if (state_waits(r, peer))
                return;
        struct receiver_item *item = receiver->first;
        receiver->first = item->next;
        if (receiver->first == NULL)
                receiver->tail = &receiver->first;
        item->next = NULL;
        CHECK(receiver->merged == NULL);
        receiver->merged = item;
        receiver->merging = true;
        struct world_effect effect = {.kind = WORLD_REDIS_MERGE};
        effect.merge.origin = peer->region;
        effect.merge.state = item->state;
        effect.merge.state_end = item->end;
        effect.merge.after = item->after;
        effect.merge.last = item->last;
        effect.merge.data = outbox_copy(r->outbox, item->data);
        struct bytes positions =
                bytes_of(item->positions, item->position_count * sizeof *item->positions);
        effect.merge.positions = (const void *)outbox_copy(r->outbox, positions).ptr;
        effect.merge.position_count = item->position_count;
        outbox_push(r->outbox, &effect);
}

static struct receiver_item *item_new(struct replication *r,
                                      const struct replication_message *message)
{
        size_t positions = message->position_count * sizeof message->positions[0];
        struct receiver_item *item = heap_alloc(r->heap, sizeof *item + message->data.len);
        if (item == NULL)
                return NULL;
        if (positions > 0) {
                /* A block of its own keeps the alignment. */
                item->positions = heap_alloc(r->heap, positions);
                if (item->positions == NULL) {
                        heap_free(r->heap, item);
                        return NULL;
                }
                memcpy(item->positions, message->positions, positions);
        }
        item->position_count = message->position_count;
        if (message->data.len > 0)
                memcpy(item->bytes, message->data.ptr, message->data.len);
        item->data = bytes_of(item->bytes, message->data.len);
        return item;
}

/* Takes a batch or a part into the queue. */
bool receiver_enqueue(struct replication *r, struct peer *peer,
                      const struct replication_message *message)
{
        struct receiver *receiver = &peer->receiver;
        bool full = receiver->count >= REPLICATION_QUEUE_MAX ||
                    receiver->bytes > 2 * (uint64_t)r->config.window_bytes;
        struct receiver_item *item = full ? NULL : item_new(r, message);
        if (item == NULL)
                return false;
        item->relayed = message->kind == REPLICATION_RELAYED;
        item->state = message->kind == REPLICATION_STATE;
        item->end = message->end;
        item->after = message->after;
        item->last = message->last;
        item->part = message->part;
        item->resume = (struct world_resume){0};
        if (item->state && receiver->place_of == item->part)
                item->resume = receiver->place;
        item->synced_us = r->now_us > message->age_us ? r->now_us - message->age_us : 0;
        *receiver->tail = item;
        receiver->tail = &item->next;
        receiver->count++;
        receiver->bytes += item->data.len;
        receiver_go(r, peer);
        return true;
}

static void enqueue(struct replication *r, struct peer *peer,
                    const struct replication_message *message)
{
        if (!receiver_enqueue(r, peer, message))
                retry_later(r, peer);
}

static void take_batch(struct replication *r, struct peer *peer,
                       const struct replication_message *message)
{
        struct receiver *receiver = &peer->receiver;
        if (message->after != receiver->expect) {
                r->counters.gaps++;
                retry_later(r, peer);
                return;
        }
        receiver->expect = message->last;
        receiver->transfer = receiver->resuming = false;
        receiver->resume = (struct world_resume){0};
        if (message->last > receiver->end)
                receiver->end = message->last;
        enqueue(r, peer, message);
}

static void take_part(struct replication *r, struct peer *peer,
                      const struct replication_message *message)
{
        struct receiver *receiver = &peer->receiver;
        if (message->part != receiver->part + 1) {
                r->counters.gaps++;
                retry_later(r, peer);
                return;
        }
        if (!receiver->transfer)
                r->counters.transfers_received++;
        receiver->transfer = true;
        receiver->done_permille = message->done;
        receiver->part = message->part;
        if (message->end) {
                receiver->expect = 0;
                for (size_t i = 0; i < message->position_count; i++)
                        if (message->positions[i].origin == peer->region)
                                receiver->expect = message->positions[i].hlc;
        }
        enqueue(r, peer, message);
}

static void take_beat(struct replication *r, struct peer *peer,
                      const struct replication_message *message)
{
        struct receiver *receiver = &peer->receiver;
        receiver->end = message->last;
        if (receiver->merging || receiver->first != NULL)
                return;
        if (message->last <= receiver->position) {
                receiver->synced = true;
                receiver->synced_us = r->now_us > message->age_us ? r->now_us - message->age_us : 0;
        }
}

static bool ignore_message(struct replication *r, const struct receiver *receiver,
                           const struct replication_message *message)
{
        if (receiver->state == RECEIVER_OPEN && message->sub == receiver->sub)
                return false;
        r->counters.stale++;
        return true;
}

void receiver_took(struct replication *r, struct peer *peer,
                   const struct replication_message *message)
{
        struct receiver *receiver = &peer->receiver;
        if (message->kind == REPLICATION_HELLO) {
                receiver_subscribe(r, peer);
                return;
        }
        if (message->kind == REPLICATION_BYE) {
                retry_later(r, peer);
                receiver->retry_us = r->now_us + r->config.silence_us;
                return;
        }
        if (ignore_message(r, receiver, message))
                return;
        receiver->heard_us = r->now_us;
        if (message->kind == REPLICATION_PLACE) {
                receiver->place = message->resume;
                receiver->place_of = message->part;
        } else if (message->kind == REPLICATION_BATCH)
                take_batch(r, peer, message);
        else if (message->kind == REPLICATION_STATE)
                take_part(r, peer, message);
        else if (message->kind == REPLICATION_BEAT)
                take_beat(r, peer, message);
}

static void state_merged(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        receiver->transfer = false;
        if (r->transfer_from == peer)
                r->transfer_from = NULL;
        if (!receiver->whole)
                return;
        receiver->whole = false;
        sender_pulled(r, peer);
}

/* What Redis holds after a merge, of every stream. */
static void learned(struct replication *r, const struct world_event *event)
{
        (void)holes_decode(event->merged.holes, r->holes, &r->hole_count);
        for (size_t i = 0; i < event->merged.position_count; i++) {
                const struct world_position *position = &event->merged.positions[i];
                for (size_t k = 0; k < r->peer_count; k++) {
                        struct receiver *receiver = &r->peers[k].receiver;
                        if (r->peers[k].region == position->origin &&
                            receiver->position < position->hlc)
                                receiver->position = position->hlc;
                }
        }
}

/* Redis remembers where one transfer goes on: the one of which it had a part last. Who was asked to
 * go on with another is asked for the whole at once, for its next part would be refused. */
static void place_taken(struct replication *r, struct peer *by)
{
        by->receiver.resuming = false;
        for (size_t i = 0; i < r->peer_count; i++) {
                struct receiver *receiver = &r->peers[i].receiver;
                if (&r->peers[i] == by)
                        continue;
                receiver->resume = (struct world_resume){0};
                if (receiver->state == RECEIVER_OPEN && receiver->resuming)
                        receiver_subscribe(r, &r->peers[i]);
        }
}

void receiver_merged(struct replication *r, struct peer *peer, const struct world_event *event)
{
        struct receiver *receiver = &peer->receiver;
        struct receiver_item *item = receiver->merged;
        if (!receiver->merging || item == NULL)
                return;
        bool stale = receiver->merge_stale;
        receiver->merging = receiver->merge_stale = false;
        receiver->merged = NULL;
        if (event->merged.err == ERR_NONE && event->merged.position > receiver->position)
                receiver->position = event->merged.position;
        bool again = receiver->again;
        bool good = event->merged.err == ERR_NONE && !event->merged.gap;
        if (good)
                learned(r, event);
        if (event->merged.gap)
                receiver->position = event->merged.position;
        if (item->state && (good || event->merged.err != ERR_BUSY)) {
                receiver->resume = good ? item->resume : (struct world_resume){0};
                place_taken(r, peer);
        }
        if (!good && item->relayed) {
                receiver->relay_next_us = r->now_us + REPLICATION_RELAY_US;
                stale = true;
        }
        if (again) {
                item_free(r, receiver, item);
                receiver_subscribe(r, peer);
                return;
        }
        if (!good) {
                item_free(r, receiver, item);
                if (!stale)
                        retry_later(r, peer);
                else
                        receiver_go(r, peer);
                return;
        }
        r->counters.batches_merged++;
        r->counters.bytes_merged += item->data.len;
        if (item->relayed) {
                if (item->synced_us > receiver->synced_us)
                        receiver->synced_us = item->synced_us;
        } else if (!stale) {
                receiver->done_us = r->now_us;
                if (!item->state) {
                        receiver->synced = true;
                        if (item->synced_us > receiver->synced_us)
                                receiver->synced_us = item->synced_us;
                } else {
                        receiver->part_merged = item->part;
                }
                acknowledge(r, peer, receiver->position, receiver->part_merged);
                if (item->end)
                        state_merged(r, peer);
        }
        item_free(r, receiver, item);
        receiver_go(r, peer);
}

/* From when on it says too little: while we were at what it had sent it may have waited for us. */
static uint64_t silence_us(const struct replication *r, const struct receiver *receiver)
{
        uint64_t since_us =
                receiver->heard_us > receiver->done_us ? receiver->heard_us : receiver->done_us;
        return since_us + r->config.silence_us;
}

static bool silent(const struct replication *r, const struct receiver *receiver)
{
        return receiver->state == RECEIVER_OPEN && !receiver->merging && receiver->first == NULL &&
               r->now_us >= silence_us(r, receiver);
}

static bool has_holes(const struct replication *r, const struct peer *peer)
{
        for (size_t i = 0; i < r->hole_count; i++)
                if (r->holes[i].origin == peer->region && r->holes[i].low < peer->receiver.position)
                        return true;
        return false;
}

static bool calm(const struct receiver *receiver)
{
        return receiver->state == RECEIVER_OPEN && !receiver->transfer && !receiver->whole &&
               !receiver->merging && receiver->first == NULL;
}

/* What the origin can fill in the meantime it sends when it is told what is missing; oftener at
 * first. */
static bool tells_holes(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        if (!has_holes(r, peer)) {
                receiver->holes_us = receiver->holes_wait_us = 0;
                return false;
        }
        if (receiver->holes_us == 0) {
                receiver->holes_wait_us = REPLICATION_HOLES_US;
                receiver->holes_us = r->now_us + receiver->holes_wait_us;
        }
        if (!calm(receiver) || r->now_us < receiver->holes_us)
                return false;
        receiver->holes_wait_us *= 2;
        if (receiver->holes_wait_us > REPLICATION_HOLES_MAX_US)
                receiver->holes_wait_us = REPLICATION_HOLES_MAX_US;
        receiver->holes_us = r->now_us + receiver->holes_wait_us;
        return true;
}

void receiver_tick(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        if (!r->redis_up)
                return;
        receiver_go(r, peer);
        relay_tick(r, peer);
        if (!peer->up)
                return;
        bool due = receiver->state == RECEIVER_IDLE && receiver->retry_us != 0 &&
                   r->now_us >= receiver->retry_us;
        if (due || silent(r, receiver) || tells_holes(r, peer))
                receiver_subscribe(r, peer);
}

static uint64_t direct_wake_us(const struct replication *r, const struct peer *peer)
{
        const struct receiver *receiver = &peer->receiver;
        if (!peer->up)
                return UINT64_MAX;
        if (receiver->state == RECEIVER_IDLE)
                return receiver->retry_us != 0 ? receiver->retry_us : UINT64_MAX;
        if (receiver->merging || receiver->first != NULL)
                return UINT64_MAX;
        uint64_t silent_us = silence_us(r, receiver);
        return receiver->holes_us != 0 && receiver->holes_us < silent_us && calm(receiver)
                       ? receiver->holes_us
                       : silent_us;
}

uint64_t receiver_wake_us(const struct replication *r, const struct peer *peer)
{
        if (!r->redis_up)
                return UINT64_MAX;
        uint64_t direct_us = direct_wake_us(r, peer);
        uint64_t relay_us = relay_wake_us(r, peer);
        return direct_us < relay_us ? direct_us : relay_us;
}
