/* replication.c - takes events to the sender and the receiver of the peer that they concern, and
 * says how far each stream has come.
 *
 * Link up and Redis up: subscribe to the peer, and greet it so that it subscribes to us.
 * Either down: both sides stop; positions stay with Redis. A message that cannot be decoded
 * is counted and dropped; what it would have carried shows as a gap or as silence, and ends
 * in a new subscription. */
#include "replication/replication.h"

#include "base/check.h"
#include "clock/clock.h"
#include "replication/replication_priv.h"

#define WINDOW_BYTES_DEFAULT (4u << 20)
#define BATCH_BYTES_DEFAULT  (256u << 10)
#define PIECE_BYTES_DEFAULT  (1u << 20)
#define BLOCK_MS_DEFAULT     200
#define SILENCE_US_DEFAULT   3000000
#define CAUGHT_UP_US         1500000

static void config_complete(struct replication_config *config)
{
        if (config->window_bytes == 0)
                config->window_bytes = WINDOW_BYTES_DEFAULT;
        if (config->batch_bytes_max == 0)
                config->batch_bytes_max = BATCH_BYTES_DEFAULT;
        if (config->piece_bytes == 0)
                config->piece_bytes = PIECE_BYTES_DEFAULT;
        if (config->block_ms == 0)
                config->block_ms = BLOCK_MS_DEFAULT;
        if (config->silence_us == 0)
                config->silence_us = SILENCE_US_DEFAULT;
}

struct replication *replication_new(struct heap *heap, const struct replication_config *config)
{
        CHECK(config->peer_count <= REPLICATION_PEERS_MAX);
        struct replication *r = heap_alloc(heap, sizeof *r);
        if (r == NULL)
                return NULL;
        r->heap = heap;
        r->config = *config;
        r->config.peers = NULL;
        config_complete(&r->config);
        buffer_init(&r->scratch, heap);
        r->peer_count = config->peer_count;
        for (size_t i = 0; i < config->peer_count; i++) {
                r->peers[i].node = r->peers[i].at = config->peers[i].node;
                r->peers[i].region = config->peers[i].region;
                receiver_init(&r->peers[i].receiver);
                pieces_init(r, &r->peers[i]);
        }
        return r;
}

void replication_free(struct replication *replication)
{
        if (replication == NULL)
                return;
        for (size_t i = 0; i < replication->peer_count; i++) {
                receiver_redis_down(replication, &replication->peers[i]);
                pieces_stop(&replication->peers[i]);
        }
        buffer_fini(&replication->scratch);
        heap_free(replication->heap, replication);
}

static struct peer *peer_add(struct replication *r, region_id region, enum peer_standing standing)
{
        if (r->peer_count == REPLICATION_PEERS_MAX)
                return NULL;
        struct peer *peer = &r->peers[r->peer_count++];
        *peer = (struct peer){.region = region, .standing = standing};
        receiver_init(&peer->receiver);
        pieces_init(r, peer);
        return peer;
}

static struct peer *peer_by_node(struct replication *r, node_id node)
{
        for (size_t i = 0; i < r->peer_count; i++)
                if (r->peers[i].node == node)
                        return &r->peers[i];
        return NULL;
}

static struct peer *peer_at(struct replication *r, node_id node)
{
        for (size_t i = 0; i < r->peer_count; i++)
                if (r->peers[i].at == node)
                        return &r->peers[i];
        return NULL;
}

static struct peer *peer_by_region(struct replication *r, region_id region)
{
        for (size_t i = 0; i < r->peer_count; i++)
                if (r->peers[i].region == region)
                        return &r->peers[i];
        return NULL;
}

/* What carries data may be of any length. All else is short, and is never cut: it would take the
 * place of a batch or a part that is on its way. */
static bool may_be_long(enum replication_kind kind)
{
        return kind == REPLICATION_BATCH || kind == REPLICATION_STATE ||
               kind == REPLICATION_RELAYED;
}

void replication_send(struct replication *r, struct peer *peer,
                      const struct replication_message *message)
{
        buffer_reset(&r->scratch);
        replication_message_encode(message, &r->scratch);
        if (r->scratch.err != ERR_NONE) {
                r->outbox->err = r->scratch.err;
                return;
        }
        bool piece = message->kind == REPLICATION_PIECE;
        unsigned slot = message->kind == REPLICATION_RELAYED ? PIECES_RELAYED : PIECES_OWN;
        enum world_class class =
                message->kind == REPLICATION_STATE ? WORLD_CLASS_BULK : WORLD_CLASS_DATA;
        if (piece)
                class = peer->out[message->part].class;
        if (may_be_long(message->kind) && r->scratch.len > r->config.piece_bytes)
                pieces_begin(r, peer, slot, class);
        else
                outbox_send(r->outbox, peer->at, class, buffer_view(&r->scratch));
}

static void greet(struct replication *r, struct peer *peer)
{
        if (!r->redis_up || !peer->up)
                return;
        replication_send(r, peer, &(struct replication_message){.kind = REPLICATION_HELLO});
        receiver_subscribe(r, peer);
}

static void peer_changed(struct replication *r, struct peer *peer, bool up)
{
        sender_stop(&peer->sender);
        receiver_stop(r, peer);
        pieces_stop(peer);
        peer->up = up;
        if (up)
                greet(r, peer);
}

static void peer_remove(struct replication *r, struct peer *peer)
{
        sender_stop(&peer->sender);
        receiver_stop(r, peer);
        pieces_stop(peer);
        peer->sender.needs_state = false;
        peer->receiver.whole = false;
        peer->receiver.resume = (struct world_resume){0};
        peer->standing = PEER_REMOVED;
        peer->up = false;
}

void replication_members(struct replication *r, const struct replication_peer *peers, size_t count)
{
        for (size_t i = 0; i < r->peer_count; i++) {
                struct peer *peer = &r->peers[i];
                bool named = false;
                for (size_t k = 0; k < count; k++)
                        named = named || peers[k].region == peer->region;
                if (!named && peer->standing == PEER_MEMBER)
                        peer_remove(r, peer);
        }
        for (size_t i = 0; i < count; i++) {
                struct peer *peer = peer_by_region(r, peers[i].region);
                if (peer == NULL)
                        peer = peer_add(r, peers[i].region, PEER_UNKNOWN);
                if (peer == NULL || peer->standing == PEER_MEMBER)
                        continue;
                if (peer->standing == PEER_UNKNOWN)
                        peer->node = peer->at = peers[i].node;
                peer->standing = PEER_MEMBER;
        }
}

void replication_route(struct replication *r, region_id region, node_id node, bool up)
{
        struct peer *peer = peer_by_region(r, region);
        if (peer == NULL || peer->standing != PEER_MEMBER || peer->at == node)
                return;
        sender_stop(&peer->sender);
        receiver_stop(r, peer);
        pieces_stop(peer);
        peer->at = node;
        peer->link = up;
        peer->up = false; /* peers_return */
}

/* What our Redis holds of a region that is no member may be more than others have. */
static struct peer *position_peer(struct replication *r, region_id origin)
{
        struct peer *peer = peer_by_region(r, origin);
        if (peer != NULL || origin == r->config.self || !region_valid(origin))
                return peer;
        return peer_add(r, origin, PEER_UNKNOWN);
}

/* A region that is a member again, while its link stood all the time. */
static void peers_return(struct replication *r)
{
        for (size_t i = 0; i < r->peer_count; i++) {
                struct peer *peer = &r->peers[i];
                if (peer->standing == PEER_MEMBER && peer->link && !peer->up)
                        peer_changed(r, peer, true);
        }
}

static void redis_came(struct replication *r, const struct world_event *event)
{
        for (size_t i = 0; i < r->peer_count; i++) {
                receiver_redis_down(r, &r->peers[i]);
                sender_stop(&r->peers[i].sender);
                pieces_stop_out(&r->peers[i]);
                r->peers[i].sender.tail_out = r->peers[i].sender.scan_out = false;
                r->peers[i].sender.tail_stale = r->peers[i].sender.scan_stale = false;
                r->peers[i].sender.acked = 0;
                r->peers[i].sender.told = false;
                r->peers[i].sender.needs_state = false;
                r->peers[i].sender.pulled = false;
                r->peers[i].receiver.position = 0;
                r->peers[i].receiver.resume = (struct world_resume){0};
                r->peers[i].receiver.relayed_us = 0;
                r->peers[i].receiver.relay_next_us = r->peers[i].receiver.relay_pull_us = 0;
        }
        r->own_position = 0;
        r->refilled = 0;
        r->came_us = r->now_us;
        if (!holes_decode(event->redis_up.holes, r->holes, &r->hole_count))
                r->hole_count = 0;
        memset(r->fetches, 0, sizeof r->fetches);
        for (size_t i = 0; i < event->redis_up.count; i++) {
                const struct world_position *position = &event->redis_up.positions[i];
                struct peer *peer = position_peer(r, position->origin);
                if (position->origin == r->config.self)
                        r->own_position = position->hlc;
                else if (peer != NULL)
                        peer->receiver.position = position->hlc;
        }
        struct peer *broken = peer_by_region(r, event->redis_up.resume_of);
        if (broken != NULL)
                broken->receiver.resume = event->redis_up.resume;
        r->serve_us = r->now_us + REPLICATION_WAIT_US;
        r->redis_up = true;
        for (size_t i = 0; i < r->peer_count; i++)
                greet(r, &r->peers[i]);
}

static void redis_went(struct replication *r)
{
        r->redis_up = false;
        for (size_t i = 0; i < r->peer_count; i++) {
                receiver_redis_down(r, &r->peers[i]);
                pieces_stop_out(&r->peers[i]);
                sender_redis_down(r, &r->peers[i]);
        }
}

static void message_take(struct replication *r, struct peer *peer,
                         const struct replication_message *message)
{
        if (message->kind == REPLICATION_SUBSCRIBE)
                sender_subscribed(r, peer, message);
        else if (message->kind == REPLICATION_RESUME)
                sender_resume_asked(r, peer, message);
        else if (message->kind == REPLICATION_ACK)
                sender_acked(r, peer, message);
        else if (message->kind == REPLICATION_FETCH)
                relay_asked(r, peer, message);
        else if (message->kind == REPLICATION_PASSED)
                relay_passed(r, peer, message);
        else if (message->kind == REPLICATION_RELAYED)
                relay_answered(r, peer, message);
        else if (message->kind == REPLICATION_GOT)
                pieces_got(r, peer, message);
        else
                receiver_took(r, peer, message);
}

/* What is whole now may not be a piece itself. */
static void piece_came(struct replication *r, struct peer *peer,
                       const struct replication_message *piece)
{
        if (!pieces_took(r, peer, piece))
                return;
        struct buffer whole = peer->in[piece->part].whole;
        buffer_init(&peer->in[piece->part].whole, r->heap);
        struct replication_message message;
        enum err err = replication_message_decode(buffer_view(&whole), &message);
        if (err == ERR_NONE && message.kind != REPLICATION_PIECE)
                message_take(r, peer, &message);
        else
                r->counters.malformed++;
        buffer_fini(&whole);
}

static void message_came(struct replication *r, struct peer *peer, struct bytes data)
{
        struct replication_message message;
        if (replication_message_decode(data, &message) != ERR_NONE)
                r->counters.malformed++;
        else if (message.kind == REPLICATION_PIECE)
                piece_came(r, peer, &message);
        else
                message_take(r, peer, &message);
}

static void redis_answered(struct replication *r, const struct world_event *event)
{
        struct peer *peer = NULL;
        if (!r->redis_up)
                return;
        if (event->kind == WORLD_REDIS_TAILED && event->tailed.origin != 0) {
                relay_tailed(r, event);
        } else if (event->kind == WORLD_REDIS_TAILED) {
                peer = peer_by_node(r, event->tailed.peer);
                if (peer != NULL)
                        sender_tailed(r, peer, event);
        } else if (event->kind == WORLD_REDIS_SCANNED) {
                peer = peer_by_node(r, event->scanned.peer);
                if (peer != NULL)
                        sender_scanned(r, peer, event);
        } else {
                peer = peer_by_region(r, event->merged.origin);
                if (peer != NULL)
                        receiver_merged(r, peer, event);
        }
}

static void dispatch(struct replication *r, const struct world_event *event)
{
        struct peer *peer;
        switch (event->kind) {
        case WORLD_PEER_UP:
        case WORLD_PEER_DOWN:
                peer = peer_at(r, event->peer.peer);
                if (peer == NULL)
                        break;
                peer->link = event->kind == WORLD_PEER_UP;
                if (peer->standing == PEER_MEMBER)
                        peer_changed(r, peer, peer->link);
                break;
        case WORLD_MESSAGE:
                peer = peer_at(r, event->message.peer);
                if (event->message.class != WORLD_CLASS_CONTROL && peer != NULL && peer->up)
                        message_came(r, peer, event->message.data);
                break;
        case WORLD_REDIS_UP:
                redis_came(r, event);
                break;
        case WORLD_REDIS_DOWN:
                redis_went(r);
                break;
        case WORLD_REDIS_TAILED:
        case WORLD_REDIS_MERGED:
        case WORLD_REDIS_SCANNED:
                redis_answered(r, event);
                break;
        case WORLD_START:
                r->sub_last = event->start.incarnation << 20;
                break;
        case WORLD_TIMER:
        case WORLD_ROUND_TRIP:
        case WORLD_JOURNAL_SYNCED:
        case WORLD_JOURNAL_FAILED:
        case WORLD_REQUEST:
        case WORLD_REQUEST_GONE:
        case WORLD_PROBED:
        case WORLD_POSTGRES_SEEN:
        case WORLD_POSTGRES_DONE:
                break;
        }
}

void replication_step(struct replication *replication, const struct world_event *event,
                      struct outbox *outbox)
{
        replication->now_us = event->now_us;
        replication->wall_us = event->wall_us;
        replication->outbox = outbox;
        peers_return(replication);
        dispatch(replication, event);
        for (size_t i = 0; i < replication->peer_count; i++)
                receiver_tick(replication, &replication->peers[i]);
        for (size_t i = 0; i < replication->peer_count; i++)
                sender_tick(replication, &replication->peers[i]);
        senders_release(replication);
        replication->outbox = NULL;
}

uint64_t replication_wake_us(const struct replication *replication)
{
        uint64_t wake_us = UINT64_MAX;
        if (replication->redis_up && replication->now_us < replication->serve_us)
                wake_us = replication->serve_us;
        for (size_t i = 0; i < replication->peer_count; i++) {
                const struct peer *peer = &replication->peers[i];
                uint64_t receiver_us = receiver_wake_us(replication, peer);
                uint64_t sender_us = sender_wake_us(peer);
                if (receiver_us < wake_us)
                        wake_us = receiver_us;
                if (sender_us < wake_us)
                        wake_us = sender_us;
        }
        return wake_us;
}

bool replication_lag(const struct replication *replication, region_id origin, uint64_t now_us,
                     struct replication_lag *ret)
{
        for (size_t i = 0; i < replication->peer_count; i++) {
                const struct peer *peer = &replication->peers[i];
                const struct receiver *receiver = &peer->receiver;
                if (peer->region != origin)
                        continue;
                bool heard = receiver->state == RECEIVER_OPEN && receiver->synced &&
                             (now_us < receiver->heard_us + replication->config.silence_us ||
                              receiver->merging);
                bool relayed = relay_live(replication, receiver, now_us);
                heard = heard || (relayed && receiver->synced_us != 0);
                *ret = (struct replication_lag){.origin = origin, .known = heard};
                ret->position = receiver->position;
                ret->end = receiver->end > receiver->position ? receiver->end : receiver->position;
                ret->heard_us = receiver->heard_us;
                ret->lag_us = now_us > receiver->synced_us ? now_us - receiver->synced_us : 0;
                ret->transfer = receiver->transfer;
                ret->done_permille = receiver->transfer ? receiver->done_permille : 0;
                ret->relayed = relayed && receiver->state != RECEIVER_OPEN;
                ret->caught_up = heard && !receiver->transfer && ret->lag_us < CAUGHT_UP_US;
                ret->acked = peer->sender.acked;
                return true;
        }
        return false;
}

struct replication_counters replication_counters(const struct replication *replication)
{
        return replication->counters;
}
