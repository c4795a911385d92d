/* relay.c - the stream of an origin that is silent, from those who hold more of it.
 *
 *   receiver of A                              any other peer C
 *   A silent for a second: FETCH A, after ---> TAIL of what was merged of A's stream
 *                          <------------------ RELAYED A (after, last, deltas), at once or
 *   MERGE, FETCH again from C                  empty after a while
 *   empty, C hears A itself: FETCH again       (the direct path is cut: C is the way round)
 *   empty, C does not: the next peer, later    (A is dead: there is no more at C)
 *   gap, or C can fill a hole of ours: C's whole state, once in a while
 *
 * One question an origin is under way at a time and nothing is remembered of it at C, so what goes
 * round is bounded by one batch; positions make duplicates harmless, and whoever has nothing more
 * sends nothing, so nothing goes to and fro. As soon as A is heard again nobody is asked.
 *
 * A question tells how far the asker has come, which the origin does not hear from it: C passes
 * that on to A (PASSED), so that those who wait there for regions count B, too.
 *
 * Of a region that was removed the others have different ends of its stream. What one of them holds
 * more, or may hold by parts of a state that broke off, comes as a state only, until all have the
 * same: their tombstones wait for that (keyspace/removed.c). */
#include "base/check.h"
#include "clock/clock.h"
#include "replication/replication_priv.h"

enum {
        RELAY_AGAIN_US = 500000, /* before the next is asked */
        RELAY_IDLE_US = 20000,   /* before the same is asked again */
        RELAY_GONE_US = 5000000, /* before the next is asked for a region that was removed */
        RELAY_PULL_US = 5000000, /* between two whole states */
};

/* ---- the one who asks */

bool relay_live(const struct replication *r, const struct receiver *receiver, uint64_t now_us)
{
        return receiver->relayed_us != 0 && now_us < receiver->relayed_us + r->config.silence_us;
}

static uint64_t silent_us(const struct replication *r, const struct peer *peer)
{
        uint64_t heard_us = peer->receiver.heard_us;
        return (heard_us > r->came_us ? heard_us : r->came_us) + REPLICATION_RELAY_US;
}

static uint64_t answer_us(const struct replication *r)
{
        return r->config.silence_us + (uint64_t)r->config.block_ms * 1000;
}

/* The next peer whose link stands, after the one that was asked last. */
static struct peer *relay_choose(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        for (size_t i = 0; i < r->peer_count; i++) {
                size_t at = (receiver->relay_from + i) % r->peer_count;
                if (&r->peers[at] == peer || !r->peers[at].up)
                        continue;
                receiver->relay_from = at;
                return &r->peers[at];
        }
        return NULL;
}

static void relay_ask(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        struct peer *from = relay_choose(r, peer);
        receiver->relay_next_us = r->now_us + RELAY_AGAIN_US;
        if (from == NULL)
                return;
        receiver->relay_out = true;
        receiver->relay_next_us = r->now_us + answer_us(r);
        receiver->relay_sub = ++r->sub_last;
        struct replication_message message = {.kind = REPLICATION_FETCH};
        message.sub = receiver->relay_sub;
        message.origin = peer->region;
        message.after = receiver->position;
        replication_send(r, from, &message);
        r->counters.fetches++;
}

static bool relay_due(const struct replication *r, const struct peer *peer)
{
        const struct receiver *receiver = &peer->receiver;
        return (r->config.bugs & REPLICATION_BUG_NO_RELAY) == 0 && r->peer_count > 1 &&
               !receiver->merging && receiver->first == NULL && r->transfer_from == NULL &&
               r->now_us >= silent_us(r, peer);
}

void relay_tick(struct replication *r, struct peer *peer)
{
        struct receiver *receiver = &peer->receiver;
        if (!relay_due(r, peer) || r->now_us < receiver->relay_next_us)
                return;
        if (receiver->relay_out)
                receiver->relay_from++; /* no answer: somebody else */
        relay_ask(r, peer);
}

uint64_t relay_wake_us(const struct replication *r, const struct peer *peer)
{
        const struct receiver *receiver = &peer->receiver;
        if ((r->config.bugs & REPLICATION_BUG_NO_RELAY) != 0 || r->peer_count < 2 ||
            receiver->merging || receiver->first != NULL)
                return UINT64_MAX;
        uint64_t quiet_us = silent_us(r, peer);
        uint64_t wake_us = receiver->relay_next_us > quiet_us ? receiver->relay_next_us : quiet_us;
        /* A transfer that is under way wakes us by its own events. */
        return r->transfer_from != NULL && wake_us <= r->now_us ? UINT64_MAX : wake_us;
}

void relay_heard(struct replication *r, const struct peer *from)
{
        for (size_t i = 0; i < r->peer_count; i++) {
                struct receiver *receiver = &r->peers[i].receiver;
                if (receiver->relay_out && &r->peers[receiver->relay_from] == from)
                        receiver->relay_next_us = r->now_us + answer_us(r);
        }
}

static void relay_pull(struct replication *r, struct peer *peer, struct peer *from)
{
        struct receiver *receiver = &peer->receiver;
        receiver->relay_next_us = r->now_us + RELAY_AGAIN_US;
        receiver->relay_from++;
        if (r->now_us < receiver->relay_pull_us || from->receiver.whole)
                return;
        receiver->relay_pull_us = r->now_us + RELAY_PULL_US;
        r->counters.pulls++;
        from->receiver.whole = true;
        receiver_subscribe(r, from);
}

void relay_answered(struct replication *r, struct peer *from,
                    const struct replication_message *message)
{
        struct peer *peer = NULL;
        for (size_t i = 0; i < r->peer_count; i++)
                if (r->peers[i].region == message->origin)
                        peer = &r->peers[i];
        if (peer == NULL || peer == from || !r->redis_up || !peer->receiver.relay_out ||
            peer->receiver.relay_sub != message->sub) {
                r->counters.stale++;
                return;
        }
        struct receiver *receiver = &peer->receiver;
        receiver->relay_out = false;
        receiver->relay_next_us = r->now_us;
        if (message->live)
                receiver->relayed_us = r->now_us;
        struct holdings theirs = {message->origin, message->last, message->holes,
                                  message->hole_count};
        struct holdings own = replication_own(r, message->origin);
        bool more = peer->standing != PEER_MEMBER &&
                    (message->last > receiver->position || holes_hinted(own, theirs));
        if (message->gap || more || holes_fillable(own, theirs)) {
                relay_pull(r, peer, from);
                return;
        }
        /* It came by another way meanwhile, or the origin sends its state, whose parts nothing may
         * come between. */
        if (message->after != receiver->position || receiver->transfer)
                return;
        if (message->data.len > 0) {
                r->counters.relayed++;
                (void)receiver_enqueue(r, peer, message);
                return;
        }
        if (message->live) {
                receiver->synced_us = r->now_us > message->age_us ? r->now_us - message->age_us : 0;
                receiver->relay_next_us = r->now_us + RELAY_IDLE_US;
                return;
        }
        bool gone = peer->standing != PEER_MEMBER;
        receiver->relay_next_us = r->now_us + (gone ? RELAY_GONE_US : RELAY_AGAIN_US);
        receiver->relay_from++;
}

/* ---- how far the asker has come, to the origin */

static struct peer *peer_of(struct replication *r, region_id region)
{
        for (size_t i = 0; i < r->peer_count; i++)
                if (r->peers[i].region == region)
                        return &r->peers[i];
        return NULL;
}

/* Where the origin's own stream comes from: straight, or by whom we ask for it. */
static struct peer *towards(struct replication *r, struct peer *origin)
{
        const struct receiver *receiver = &origin->receiver;
        if (origin->up)
                return origin;
        bool asks = r->peer_count > 1 && r->now_us >= silent_us(r, origin);
        struct peer *by = asks ? &r->peers[receiver->relay_from % r->peer_count] : NULL;
        return by != NULL && by->up ? by : NULL;
}

void relay_passed(struct replication *r, const struct peer *from,
                  const struct replication_message *message)
{
        struct peer *holder = peer_of(r, message->holder);
        if (message->origin == r->config.self) {
                if (holder != NULL && holder != from)
                        sender_passed(r, holder, message->last);
                return;
        }
        struct peer *origin = peer_of(r, message->origin);
        struct peer *to = origin == NULL || origin == from ? NULL : towards(r, origin);
        if (to == NULL || to == from || to == holder || message->part >= REPLICATION_PASSED_MAX)
                return;
        struct replication_message on = *message;
        on.part++;
        replication_send(r, to, &on);
}

static void pass(struct replication *r, const struct peer *peer,
                 const struct replication_message *message)
{
        struct replication_message passed = {.kind = REPLICATION_PASSED};
        passed.origin = message->origin;
        passed.holder = peer->region;
        passed.last = message->after;
        relay_passed(r, peer, &passed);
}

/* ---- the one who is asked */

static struct fetch *fetch_of(struct replication *r, node_id peer, region_id origin)
{
        for (size_t i = 0; i < COUNT_OF(r->fetches); i++)
                if (r->fetches[i].peer == peer && r->fetches[i].origin == origin)
                        return &r->fetches[i];
        return NULL;
}

void relay_asked(struct replication *r, struct peer *peer,
                 const struct replication_message *message)
{
        bool known = false;
        for (size_t i = 0; i < r->peer_count; i++)
                known = known || (r->peers[i].region == message->origin && &r->peers[i] != peer);
        if (!known)
                return;
        pass(r, peer, message);
        if (!r->redis_up)
                return;
        struct fetch *fetch = fetch_of(r, peer->node, message->origin);
        if (fetch != NULL) {
                fetch->sub = message->sub; /* the answer under way is this one's */
                return;
        }
        fetch = fetch_of(r, 0, 0);
        if (fetch == NULL)
                return; /* they ask somebody else */
        *fetch = (struct fetch){peer->node, message->origin, message->sub};
        struct world_effect effect = {.kind = WORLD_REDIS_TAIL};
        effect.tail.peer = peer->node;
        effect.tail.origin = message->origin;
        effect.tail.after = message->after;
        effect.tail.bytes_max = r->config.batch_bytes_max;
        effect.tail.block_ms = r->config.block_ms;
        outbox_push(r->outbox, &effect);
}

/* How old `last` is: what we have reaches further, by the clock of the origin, and is that old. */
static uint64_t relayed_age_us(const struct replication *r, const struct receiver *receiver,
                               uint64_t last)
{
        uint64_t age_us = r->now_us > receiver->synced_us ? r->now_us - receiver->synced_us : 0;
        if (last >= receiver->position)
                return age_us;
        return age_us + 1000 * (hlc_ms(receiver->position) - hlc_ms(last));
}

void relay_tailed(struct replication *r, const struct world_event *event)
{
        struct fetch *fetch = fetch_of(r, event->tailed.peer, event->tailed.origin);
        struct peer *peer = NULL;
        struct peer *origin = NULL;
        if (fetch == NULL)
                return;
        for (size_t i = 0; i < r->peer_count; i++) {
                if (r->peers[i].node == fetch->peer)
                        peer = &r->peers[i];
                if (r->peers[i].region == fetch->origin)
                        origin = &r->peers[i];
        }
        struct replication_message message = {.kind = REPLICATION_RELAYED, .sub = fetch->sub};
        *fetch = (struct fetch){0};
        if (peer == NULL || origin == NULL || !peer->up)
                return;
        const struct receiver *receiver = &origin->receiver;
        message.origin = origin->region;
        message.after = event->tailed.after;
        message.last = event->tailed.gap || event->tailed.last < event->tailed.after
                               ? event->tailed.after
                               : event->tailed.last;
        message.gap = event->tailed.gap;
        message.data = event->tailed.deltas;
        if (origin->standing != PEER_MEMBER && message.last > message.after) {
                message.gap = true;
                message.last = message.after;
                message.data = (struct bytes){0};
        }
        message.live = receiver->state == RECEIVER_OPEN && receiver->synced &&
                       r->now_us < receiver->heard_us + REPLICATION_RELAY_US;
        message.age_us = relayed_age_us(r, receiver, message.last);
        for (size_t i = 0; i < r->hole_count; i++)
                if (r->holes[i].origin == message.origin)
                        message.holes[message.hole_count++] = r->holes[i];
        replication_send(r, peer, &message);
}
