/* pieces.c - messages that are too long for one message of a link: a value of a few hundred
 * megabytes, or the state of a key with millions of members.
 *
 *   the one who sends                         the one who takes
 *   PIECE id, offset, whole length, data ---> kept until all is there
 *                                        <--- GOT id, offset after it
 *   no more than a window ahead of GOT        all there: taken as if it had come at once
 *
 * A peer has two messages under way at most: one of our stream or state, which the window of its
 * sender makes wait for one another, and one of another's stream that goes round. All others are
 * short and go whole. What belongs to a message that was given up (the link broke, a new
 * subscription) is dropped by its id; a piece that does not follow the last one is dropped too, and
 * what was lost shows as silence. */
#include "replication/replication_priv.h"

void pieces_init(struct replication *r, struct peer *peer)
{
        for (unsigned i = 0; i < PIECES_SLOTS; i++) {
                buffer_init(&peer->out[i].whole, r->heap);
                buffer_init(&peer->in[i].whole, r->heap);
        }
}

void pieces_stop_out(struct peer *peer)
{
        for (unsigned i = 0; i < PIECES_SLOTS; i++)
                buffer_fini(&peer->out[i].whole);
}

void pieces_stop(struct peer *peer)
{
        pieces_stop_out(peer);
        for (unsigned i = 0; i < PIECES_SLOTS; i++)
                buffer_fini(&peer->in[i].whole);
}

static void pieces_go(struct replication *r, struct peer *peer, struct pieces_out *out)
{
        struct replication_message message = {.kind = REPLICATION_PIECE, .sub = out->id};
        struct bytes whole = buffer_view(&out->whole);
        message.part = (uint64_t)(out - peer->out);
        message.last = whole.len;
        while (out->sent < whole.len && out->sent - out->got < r->config.window_bytes) {
                size_t left = whole.len - out->sent;
                size_t len = left < r->config.piece_bytes ? left : r->config.piece_bytes;
                message.after = out->sent;
                message.data = bytes_of(whole.ptr + out->sent, len);
                out->sent += len;
                replication_send(r, peer, &message);
                r->counters.pieces_sent++;
        }
        if (out->sent == whole.len)
                buffer_fini(&out->whole);
}

void pieces_begin(struct replication *r, struct peer *peer, unsigned slot, enum world_class class)
{
        struct pieces_out *out = &peer->out[slot];
        struct buffer whole = r->scratch;
        buffer_fini(&out->whole);
        buffer_init(&r->scratch, r->heap);
        *out = (struct pieces_out){.whole = whole, .id = ++r->sub_last, .class = class};
        pieces_go(r, peer, out);
}

void pieces_got(struct replication *r, struct peer *peer, const struct replication_message *message)
{
        struct pieces_out *out = &peer->out[message->part];
        if (out->whole.len == 0 || out->id != message->sub || message->last > out->sent ||
            message->last < out->got) {
                r->counters.stale++;
                return;
        }
        out->got = message->last;
        pieces_go(r, peer, out);
        sender_wake(r, peer);
}

/* Whoever waits for something of that peer sees that it is coming. */
static void heard(struct replication *r, struct peer *peer)
{
        if (peer->receiver.state == RECEIVER_OPEN)
                peer->receiver.heard_us = r->now_us;
        relay_heard(r, peer);
}

bool pieces_took(struct replication *r, struct peer *peer,
                 const struct replication_message *message)
{
        struct pieces_in *in = &peer->in[message->part];
        if (message->after == 0) {
                buffer_fini(&in->whole);
                in->id = message->sub;
        }
        if (in->id != message->sub || in->whole.len != message->after) {
                r->counters.stale++;
                return false;
        }
        buffer_bytes(&in->whole, message->data);
        if (in->whole.err != ERR_NONE) {
                buffer_fini(&in->whole);
                r->outbox->err = ERR_NOMEM;
                return false;
        }
        heard(r, peer);
        if (in->whole.len == message->last)
                return true;
        struct replication_message got = {.kind = REPLICATION_GOT, .sub = in->id};
        got.part = message->part;
        got.last = in->whole.len;
        replication_send(r, peer, &got);
        return false;
}
