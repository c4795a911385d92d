/* postgres_act.c - from a row to what is done: the input of the table, the actions, the gate, and
 * what is said. One action is under way at a time; only a fence does not wait. */
#include "node/node_priv.h"

#define WATCH_US     500000
#define WAIT_TOLD_US 1000000 /* a row that only waits is told when it has lasted so long */

/* Own data beside the holder's, once that takes writes. */
static enum primary_match holder_match(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        const struct postgres_word *word = postgres_word_of(node, postgres->holder);
        struct primary_report own;
        if (word == NULL || !postgres_writes(word->report.server))
                return PRIMARY_MATCH_UNKNOWN;
        postgres_report(node, &own);
        own.written = postgres->server.written;
        /* The rest is a part of a record: the next timeline does without it as well. */
        if (postgres->server.whole != 0 && postgres->server.whole < own.written)
                own.written = postgres->server.whole;
        enum primary_match match = primary_match(&own, &word->report);
        bool known = postgres->server.whole != 0 || own.replayed >= own.written;
        if (match == PRIMARY_MATCH_DIVERGED && own.server == PRIMARY_STANDBY && !known)
                return PRIMARY_MATCH_UNKNOWN;
        return match == PRIMARY_MATCH_PREFIX && postgres->server.gap ? PRIMARY_MATCH_BROKEN : match;
}

static void act(struct node *node, enum primary_action action)
{
        struct postgres *postgres = &node->postgres;
        struct world_effect effect = {.kind = WORLD_POSTGRES_DO};
        effect.postgres.number = ++postgres->action_last;
        effect.postgres.action = (uint8_t)action;
        effect.postgres.upstream = postgres->holder != node->config.self ? postgres->holder : 0;
        effect.postgres.epoch = postgres->lease.token;
        postgres->action = action;
        postgres->action_number = postgres->action_last;
        postgres->action_since_us = node->now_us;
        postgres->gate_until_us = 0;
        outbox_push(&node->outbox, &effect);
}

/* Is the server open, or about to be, in a timeline of this very lease? */
static bool opening(const struct postgres *postgres)
{
        if (postgres->action == PRIMARY_DO_INIT || postgres->action == PRIMARY_DO_PROMOTE)
                return true;
        bool open =
                postgres->action == PRIMARY_DO_OPEN ||
                (postgres->action == PRIMARY_DO_NOTHING && postgres->server.server == PRIMARY_OPEN);
        return open && postgres->server.epoch == postgres->lease.token;
}

void postgres_gate_renew(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (postgres->hold != PRIMARY_MINE || !opening(postgres))
                return;
        uint64_t until_us = postgres->lease.until_us - postgres_margin_us(node);
        if (until_us == postgres->gate_until_us && postgres->lease.token == postgres->gate_token &&
            postgres->limited == postgres->gate_limited)
                return;
        postgres->gate_until_us = until_us;
        postgres->gate_token = postgres->lease.token;
        postgres->gate_limited = postgres->limited;
        struct world_effect effect = {.kind = WORLD_POSTGRES_GATE};
        effect.gate.epoch = postgres->lease.token;
        effect.gate.until_us = until_us;
        effect.gate.limited = postgres->limited;
        outbox_push(&node->outbox, &effect);
}

void postgres_watch_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (!postgres->queued || node->now_us < postgres->watch_next_us)
                return;
        postgres->watch_next_us = node->now_us + WATCH_US / 2;
        struct world_effect effect = {.kind = WORLD_POSTGRES_WATCH};
        effect.watch.until_us = node->now_us + WATCH_US;
        outbox_push(&node->outbox, &effect);
}

void postgres_row_tell(struct node *node, const struct primary_row *row)
{
        struct postgres *postgres = &node->postgres;
        char text[PRIMARY_SENTENCE_SIZE];
        if (row != postgres->row) {
                postgres->row = row;
                postgres->row_since_us = node->now_us;
                postgres->row_told = false;
        }
        if (row == NULL || row->sentence == NULL || postgres->row_told)
                return;
        if (row->action == PRIMARY_DO_NOTHING &&
            node->now_us < postgres->row_since_us + WAIT_TOLD_US)
                return;
        node_id other = postgres->holder;
        if (row->action == PRIMARY_DO_HOLD || postgres->server.server == PRIMARY_HELD)
                other = postgres->designated;
        else if (other == 0 || other == node->config.self)
                other = postgres->standing.best;
        postgres->row_told = true;
        node_note(node, row->alarm ? "postgres-alarm" : "postgres", "%s (%s).",
                  primary_sentence(row, postgres_name(node, node->config.self),
                                   postgres_name(node, other), postgres->standing.loss, text),
                  row->id);
}

const struct primary_row *postgres_decide(struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        const struct topology_postgres *rules = &node->topology->postgres;
        struct primary_input input = {.server = (enum primary_server)postgres->server.server,
                                      .hold = postgres->hold,
                                      .match = holder_match(node),
                                      .rank = postgres->standing.rank,
                                      .wish = postgres_wish_of(node),
                                      .latest = postgres->standing.latest,
                                      .loss_over = postgres->standing.loss_over,
                                      .automatic = rules->automatic,
                                      .ready = postgres_ready(node),
                                      .following = postgres->server.upstream != 0 &&
                                                   postgres->server.upstream == postgres->holder,
                                      .founder = rules->first == node->config.self};
        return primary_decide(&input);
}

/* Writes are held, but who starts this node anew must not find a lease that was given back. */
static void gate_close(struct node *node)
{
        struct world_effect effect = {.kind = WORLD_POSTGRES_GATE};
        effect.gate.epoch = node->postgres.lease.token;
        outbox_push(&node->outbox, &effect);
}

void postgres_carry_out(struct node *node, const struct primary_row *row)
{
        struct postgres *postgres = &node->postgres;
        bool fence = row->action == PRIMARY_DO_FENCE;
        if (fence ? postgres->action == PRIMARY_DO_FENCE || (postgres->stale && postgres->fenced)
                  : postgres->action != PRIMARY_DO_NOTHING || postgres->stale)
                return;
        if (!fence && node->now_us < postgres->pause_until_us)
                return;
        postgres_row_tell(node, row);
        if (row->action == PRIMARY_DO_CLAIM) {
                postgres_lease_claim(node);
        } else if (row->action == PRIMARY_DO_RELEASE) {
                if (postgres->server.server == PRIMARY_HELD) {
                        gate_close(node);
                        postgres->handed_epoch = postgres->server.epoch;
                        postgres->handed_written = postgres->server.written;
                }
                postgres_lease_release(node);
                postgres_wish_released(node);
        } else if (row->action != PRIMARY_DO_NOTHING) {
                act(node, row->action);
        }
}
