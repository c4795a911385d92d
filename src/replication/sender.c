/* sender.c - our stream, or our whole state, to one subscriber.
 *
 *   OFF --subscribe--> WAIT        until we know what our Redis lost, see below
 *                      SCAN        it asks for the whole state
 *   WAIT --nothing lost that it lacks--> STREAM
 *   WAIT --something was lost--> SCAN
 *   SCAN --last part sent--> STREAM, from the vector taken before the scan
 *   STREAM --gap--> SCAN
 *   any --link or Redis down--> OFF
 *
 * After our Redis has come back, nobody is served before every other region has told what it holds
 * (or the time for it is over), and what one of them holds of our lost tail has been read back from
 * it. A reader that went past the lost part knows that (it has a hole there) and gets our state;
 * but an increment made before its counter came back would count for more than it knows. Requests
 * for the whole state are served at once, so two that lost a tail do not wait for each other.
 *
 * Deltas that were written during a scan come twice, in the state and in the stream; merging is
 * idempotent. What is in flight is bounded in bytes and in number; acknowledgements make room. */
#include "base/check.h"
#include "clock/clock.h"
#include "replication/replication_priv.h"

void sender_stop(struct sender *sender)
{
        sender->state = SENDER_OFF;
        sender->flight_count = 0;
        sender->flight_bytes = 0;
        sender->tail_stale = sender->tail_out;
        sender->scan_stale = sender->scan_out;
        /* A pull that breaks off begins again when the peer tells its position again. */
        if (sender->pull_to != 0)
                sender->told = false;
        sender->pull_to = 0;
}

void sender_redis_down(struct replication *r, struct peer *peer)
{
        struct sender *sender = &peer->sender;
        sender->tail_out = sender->scan_out = false;
        sender_stop(sender);
        sender->acked = 0; /* our Redis has forgotten it, and is told again */
        sender->needs_state = false;
        if (peer->up)
                replication_send(r, peer, &(struct replication_message){.kind = REPLICATION_BYE});
}

/* Parts of a state and deltas go in different classes, which overtake one another. A delta ahead of
 * the last part is a gap, one behind the first part brings back what has died: so each waits until
 * the other is acknowledged. */
static bool other_under_way(const struct sender *sender)
{
        bool scan = sender->state == SENDER_SCAN;
        return sender->flight_count > 0 && sender->flights[sender->flight_first].state != scan;
}

/* The next message would take the place of one of which pieces wait for their turn, too. */
static bool window_open(const struct replication *r, const struct peer *peer)
{
        const struct sender *sender = &peer->sender;
        return !other_under_way(sender) && peer->out[PIECES_OWN].whole.len == 0 &&
               sender->flight_bytes < r->config.window_bytes &&
               sender->flight_count < REPLICATION_FLIGHT_MAX;
}

/* Asks Redis for what comes next, when there is room for it. */
static void sender_go(struct replication *r, struct peer *peer)
{
        struct sender *sender = &peer->sender;
        if (!r->redis_up || !peer->up)
                return;
        if (sender->state != SENDER_SCAN && sender->state != SENDER_STREAM)
                return;
        if (!window_open(r, peer)) {
                r->counters.window_full++;
                return;
        }
        struct world_effect effect;
        if (sender->state == SENDER_SCAN && !sender->scan_out && sender->scan_wait_us == 0) {
                effect = (struct world_effect){.kind = WORLD_REDIS_SCAN};
                effect.scan.peer = peer->node;
                effect.scan.cursor = sender->cursor;
                effect.scan.bytes_max = r->config.batch_bytes_max;
                sender->scan_out = true;
                sender->busy_us = r->now_us + REPLICATION_BUSY_US;
                outbox_push(r->outbox, &effect);
        } else if (sender->state == SENDER_STREAM && !sender->tail_out) {
                effect = (struct world_effect){.kind = WORLD_REDIS_TAIL};
                effect.tail.peer = peer->node;
                effect.tail.after = sender->sent;
                effect.tail.bytes_max = r->config.batch_bytes_max;
                effect.tail.block_ms = r->config.block_ms;
                sender->tail_out = true;
                outbox_push(r->outbox, &effect);
        }
}

/* What a peer had of our stream when it subscribed. */
static struct holdings told_of(const struct replication *r, const struct sender *sender)
{
        return (struct holdings){r->config.self, sender->from, sender->holes, sender->hole_count};
}

/* True where we have what the peer lacks, and the stream does not carry: a part of our tail that
 * was lost and has come back. */
static bool needs_state(const struct replication *r, const struct sender *sender)
{
        return (r->config.bugs & REPLICATION_BUG_NO_REFILL) == 0 &&
               holes_fillable(told_of(r, sender), replication_own(r, r->config.self));
}

/* Goes on where the peer says: in front of what our Redis has pulled since there is no way back. */
static void begin_resumed(struct replication *r, struct sender *sender)
{
        sender->cursor = sender->asked.cursor;
        sender->scan_position = sender->asked.position;
        sender->vector[0] = (struct world_position){r->config.self, sender->asked.position};
        sender->vector_count = 1;
        sender->resuming = true;
}

void sender_wake(struct replication *r, struct peer *peer)
{
        sender_go(r, peer);
}

static void begin_scan(struct replication *r, struct peer *peer)
{
        struct sender *sender = &peer->sender;
        sender->state = SENDER_SCAN;
        sender->resuming = false;
        sender->cursor = 0;
        sender->vector_count = 0;
        sender->scan_position = 0;
        sender->part_end = 0;
        sender->scan_stale = sender->scan_out;
        sender->tail_stale = sender->tail_out;
        r->counters.transfers_sent++;
        if (sender->asked.table != 0 && sender->asked_sub == sender->sub && !sender->needs_state &&
            !needs_state(r, sender))
                begin_resumed(r, sender);
        sender->asked_sub = 0;
        sender_go(r, peer);
}

static void begin_stream(struct replication *r, struct peer *peer, uint64_t after)
{
        struct sender *sender = &peer->sender;
        sender->state = SENDER_STREAM;
        sender->sent = sender->said = after;
        if (r->config.bugs & REPLICATION_BUG_RESUME_AT_END)
                sender->sent = r->own_position;
        sender->tail_stale = sender->tail_out;
        sender_go(r, peer);
}

static void tell_acked(struct replication *r, struct peer *peer, uint64_t position)
{
        if (position <= peer->sender.acked)
                return;
        peer->sender.acked = position;
        struct world_effect effect = {.kind = WORLD_REDIS_ACKED};
        effect.acked.peer = peer->region;
        effect.acked.position = position;
        outbox_push(r->outbox, &effect);
}

void sender_passed(struct replication *r, struct peer *peer, uint64_t position)
{
        if (peer->up || !r->redis_up || peer->standing != PEER_MEMBER)
                return;
        if (position < peer->sender.acked)
                peer->sender.acked = 0; /* it has lost the end of what it had */
        tell_acked(r, peer, position);
}

/* Asks a peer that holds our lost tail for its whole state. A request that stands is left alone:
 * two that lost a tail ask each other, and each request is a subscription, which would call forth
 * the next one for ever. */
static void begin_pull(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        uint64_t top = 0;
        for (size_t i = 0; i < r->hole_count; i++)
                if (r->holes[i].origin == r->config.self && r->holes[i].low < r->own_position &&
                    r->holes[i].high - 1 > top)
                        top = r->holes[i].high - 1;
        peer->sender.pull_to = peer->sender.from < top ? peer->sender.from : top;
        if (receiver->whole && receiver->state == RECEIVER_OPEN)
                return;
        r->counters.pulls++;
        receiver->whole = true;
        receiver_subscribe(r, peer);
}

/* Comes before its subscription. */
void sender_resume_asked(struct replication *r, struct peer *peer,
                         const struct replication_message *message)
{
        (void)r;
        peer->sender.asked = message->resume;
        peer->sender.asked_sub = message->sub;
}

void sender_subscribed(struct replication *r, struct peer *peer,
                       const struct replication_message *message)
{
        struct sender *sender = &peer->sender;
        if (!r->redis_up) {
                replication_send(r, peer, &(struct replication_message){.kind = REPLICATION_BYE});
                return;
        }
        sender_stop(sender);
        pieces_stop_out(peer);
        sender->sub = message->sub;
        sender->part = 0;
        sender->part_end = 0;
        sender->acked = 0;
        r->counters.subscribes++;
        tell_acked(r, peer, message->after);
        sender->told = true;
        sender->from = message->after;
        memcpy(sender->holes, message->holes, message->hole_count * sizeof message->holes[0]);
        sender->hole_count = message->hole_count;
        struct holdings own = replication_own(r, r->config.self);
        struct holdings told = told_of(r, sender);
        bool more = !sender->pulled && (holes_fillable(own, told) || holes_mixed(own, told));
        if (more && (r->config.bugs & REPLICATION_BUG_NO_PULL) == 0)
                begin_pull(r, peer);
        if (message->whole)
                begin_scan(r, peer);
        else
                sender->state = SENDER_WAIT;
        senders_release(r);
}

static bool senders_wait(const struct replication *r)
{
        bool wait = false;
        for (size_t i = 0; i < r->peer_count; i++) {
                const struct sender *sender = &r->peers[i].sender;
                if (sender->pull_to != 0 && r->peers[i].up)
                        return true;
                wait = wait || (!sender->told && r->peers[i].standing == PEER_MEMBER);
        }
        return wait && r->now_us < r->serve_us;
}

/* What everybody has told of is here: the rest of our holes is nowhere. */
static void holes_close(struct replication *r)
{
        size_t kept = 0;
        for (size_t i = 0; i < r->peer_count; i++) {
                const struct sender *sender = &r->peers[i].sender;
                bool early = (r->config.bugs & REPLICATION_BUG_CLOSE_EARLY) != 0 ||
                             r->peers[i].standing != PEER_MEMBER;
                if ((!sender->told || sender->pull_to != 0) && !early)
                        return;
        }
        for (size_t i = 0; i < r->hole_count; i++) {
                struct hole hole = r->holes[i];
                if (hole.origin != r->config.self || hole.low >= r->own_position) {
                        r->holes[kept++] = hole;
                        continue;
                }
                struct world_effect effect = {.kind = WORLD_REDIS_CLOSE};
                effect.close.low = hole.low;
                effect.close.high = hole.high;
                outbox_push(r->outbox, &effect);
                r->counters.closed++;
        }
        r->hole_count = kept;
}

void senders_release(struct replication *r)
{
        if (!r->redis_up)
                return;
        holes_close(r);
        if (senders_wait(r))
                return;
        for (size_t i = 0; i < r->peer_count; i++) {
                struct peer *peer = &r->peers[i];
                struct sender *sender = &peer->sender;
                if (sender->state != SENDER_WAIT)
                        continue;
                if (needs_state(r, sender) || sender->needs_state)
                        begin_scan(r, peer);
                else
                        begin_stream(r, peer, sender->from);
        }
}

void sender_pulled(struct replication *r, struct peer *from)
{
        if (from->sender.pull_to > r->refilled)
                r->refilled = from->sender.pull_to;
        from->sender.pull_to = 0;
        from->sender.pulled = true;
        for (size_t i = 0; i < r->peer_count; i++) {
                struct peer *peer = &r->peers[i];
                struct sender *sender = &peer->sender;
                if (peer == from || (r->config.bugs & REPLICATION_BUG_NO_REFILL) != 0 ||
                    (sender->from >= r->refilled && !needs_state(r, sender)))
                        continue;
                sender->needs_state = true;
                if (sender->state == SENDER_STREAM || sender->state == SENDER_SCAN)
                        begin_scan(r, peer);
        }
        senders_release(r);
}

static void flight_add(struct sender *sender, bool state, uint64_t mark, size_t bytes)
{
        CHECK(sender->flight_count < REPLICATION_FLIGHT_MAX);
        size_t at = (sender->flight_first + sender->flight_count) % REPLICATION_FLIGHT_MAX;
        sender->flights[at] = (struct replication_flight){state, mark, (uint32_t)bytes};
        sender->flight_count++;
        sender->flight_bytes += bytes;
}

void sender_acked(struct replication *r, struct peer *peer,
                  const struct replication_message *message)
{
        struct sender *sender = &peer->sender;
        if (sender->state == SENDER_OFF || message->sub != sender->sub) {
                r->counters.stale++;
                return;
        }
        while (sender->flight_count > 0) {
                const struct replication_flight *flight = &sender->flights[sender->flight_first];
                if (flight->mark > (flight->state ? message->part : message->last))
                        break;
                sender->flight_bytes -= flight->bytes;
                sender->flight_first = (sender->flight_first + 1) % REPLICATION_FLIGHT_MAX;
                sender->flight_count--;
        }
        if (sender->part_end != 0 && message->part >= sender->part_end &&
            sender->state == SENDER_STREAM)
                sender->needs_state = false;
        tell_acked(r, peer, message->last);
        sender_go(r, peer);
}

/* How old the position was just now, by our own clock: 0 where the clock part lies ahead. */
static uint64_t position_age_us(const struct replication *r, uint64_t position)
{
        uint64_t at_us = hlc_ms(position) * 1000;
        return at_us < r->wall_us ? r->wall_us - at_us : 0;
}

static void send_batch(struct replication *r, struct peer *peer, const struct world_event *event)
{
        struct replication_message message = {.kind = REPLICATION_BATCH, .sub = peer->sender.sub};
        message.after = peer->sender.said;
        message.last = event->tailed.last;
        message.age_us = position_age_us(r, event->tailed.last);
        message.data = event->tailed.deltas;
        replication_send(r, peer, &message);
        peer->sender.sent = peer->sender.said = event->tailed.last;
        flight_add(&peer->sender, false, message.last, message.data.len);
        r->counters.batches_sent++;
        r->counters.bytes_sent += message.data.len;
}

static void send_beat(struct replication *r, struct peer *peer)
{
        struct replication_message message = {.kind = REPLICATION_BEAT, .sub = peer->sender.sub};
        message.last = peer->sender.sent;
        replication_send(r, peer, &message);
}

void sender_tailed(struct replication *r, struct peer *peer, const struct world_event *event)
{
        struct sender *sender = &peer->sender;
        bool stale = sender->tail_stale || !sender->tail_out;
        sender->tail_out = sender->tail_stale = false;
        if (!event->tailed.gap && event->tailed.last > r->own_position)
                r->own_position = event->tailed.last;
        if (stale || sender->state != SENDER_STREAM || event->tailed.after != sender->sent) {
                sender_go(r, peer);
                return;
        }
        if (event->tailed.gap) {
                r->counters.gaps++;
                begin_scan(r, peer);
                return;
        }
        /* An idle stream's position is for those who wait, not for Redis: merged, it would be taken
         * for a lost tail when our Redis comes back, which has never logged it. */
        if (event->tailed.deltas.len > 0)
                send_batch(r, peer, event);
        else
                send_beat(r, peer);
        sender_go(r, peer);
}

static bool reading(const struct peer *peer)
{
        const struct sender *sender = &peer->sender;
        return peer->up && sender->state == SENDER_SCAN && sender->scan_out;
}

static void send_busy(struct replication *r, struct peer *peer)
{
        replication_send(
                r, peer,
                &(struct replication_message){.kind = REPLICATION_BUSY, .sub = peer->sender.sub});
}

/* A part with one very large value takes Redis long; a peer that heard nothing meanwhile would ask
 * anew, and keep Redis at it for ever. */
void sender_tick(struct replication *r, struct peer *peer)
{
        struct sender *sender = &peer->sender;
        if (sender->scan_wait_us != 0 && r->now_us >= sender->scan_wait_us) {
                sender->scan_wait_us = 0;
                sender_go(r, peer);
        }
        if (!reading(peer) || r->now_us < sender->busy_us)
                return;
        sender->busy_us = r->now_us + REPLICATION_BUSY_US;
        send_busy(r, peer);
}

uint64_t sender_wake_us(const struct peer *peer)
{
        uint64_t wake_us = reading(peer) ? peer->sender.busy_us : UINT64_MAX;
        uint64_t wait_us = peer->sender.scan_wait_us;
        return wait_us != 0 && wait_us < wake_us ? wait_us : wake_us;
}

static void keep_vector(struct replication *r, struct sender *sender,
                        const struct world_event *event)
{
        sender->vector_count = 0;
        for (size_t i = 0; i < event->scanned.position_count; i++) {
                if (sender->vector_count == REPLICATION_POSITIONS_MAX)
                        break;
                sender->vector[sender->vector_count++] = event->scanned.positions[i];
                if (event->scanned.positions[i].origin == r->config.self)
                        sender->scan_position = event->scanned.positions[i].hlc;
        }
        if (sender->scan_position > r->own_position)
                r->own_position = sender->scan_position;
}

static void send_place(struct replication *r, struct peer *peer, const struct world_event *event)
{
        struct replication_message message = {.kind = REPLICATION_PLACE, .sub = peer->sender.sub};
        if (event->scanned.cursor == 0 || event->scanned.table == 0)
                return;
        message.part = peer->sender.part;
        message.resume = (struct world_resume){event->scanned.table, event->scanned.cursor,
                                               peer->sender.scan_position};
        replication_send(r, peer, &message);
}

static void send_part(struct replication *r, struct peer *peer, const struct world_event *event)
{
        struct sender *sender = &peer->sender;
        struct replication_message message = {.kind = REPLICATION_STATE, .sub = sender->sub};
        message.part = ++sender->part;
        message.end = event->scanned.cursor == 0;
        message.done = message.end ? 1000 : event->scanned.done_permille;
        message.data = event->scanned.state;
        if (message.end) {
                sender->part_end = message.part;
                memcpy(message.positions, sender->vector,
                       sender->vector_count * sizeof sender->vector[0]);
                message.position_count = sender->vector_count;
        }
        send_place(r, peer, event);
        replication_send(r, peer, &message);
        flight_add(sender, true, message.part, message.data.len);
}

/* Redis is asked again a little later; where it only was not reached, for the same part, so that
 * a part of which it cannot get rid does not make all others be sent again and again. */
static void scan_failed(struct replication *r, struct peer *peer, enum err err)
{
        struct sender *sender = &peer->sender;
        sender->scan_wait_us = r->now_us + REPLICATION_RETRY_US;
        if (err != ERR_CLOSED && sender->cursor != 0)
                begin_scan(r, peer);
        else if (sender->cursor != 0 && !sender->resuming) {
                sender->asked.table = sender->scan_table;
                sender->resuming = true;
        }
        send_busy(r, peer);
}

void sender_scanned(struct replication *r, struct peer *peer, const struct world_event *event)
{
        struct sender *sender = &peer->sender;
        bool stale = sender->scan_stale || !sender->scan_out;
        sender->scan_out = sender->scan_stale = false;
        if (stale || sender->state != SENDER_SCAN) {
                sender_go(r, peer);
                return;
        }
        bool strange = sender->resuming && event->scanned.table != sender->asked.table;
        if (event->scanned.err != ERR_NONE) {
                scan_failed(r, peer, event->scanned.err);
                return;
        }
        if (strange) {
                begin_scan(r, peer);
                return;
        }
        sender->scan_table = event->scanned.table;
        r->counters.resumed += sender->resuming;
        sender->resuming = false;
        if (sender->cursor == 0)
                keep_vector(r, sender, event);
        sender->cursor = event->scanned.cursor;
        send_part(r, peer, event);
        if (event->scanned.cursor == 0)
                begin_stream(r, peer, sender->scan_position);
        else
                sender_go(r, peer);
}
