/* postgres.c - what this node does with its PostgreSQL server: it tells the others what it sees,
 * ranks what they have told, asks the rows of primary/primary.h, and carries out what they say, one
 * action at a time; only a fence does not wait for what is under way. Without a postgres section in
 * the topology nothing of this runs.
 *
 * A claim is made by what was heard lately. Once it is granted, all are heard again: only a word
 * counts that was made in the knowledge of this very grant, so after the lease before it had ended.
 * What fails is said and tried again after a while; what is not known waits. */
#include "node/node_priv.h"

#include "base/check.h"

#include <stdio.h>

#define FRESH_BEATS     5
#define SEEN_FRESH_US   3000000
#define RENEW_SEEN_US   2000000
#define LOOK_EVERY_US   100000
#define TELL_APART_US   20000
#define FAILED_PAUSE_US 1000000
#define FAILED_MOST_US  60000000
#define SICK_FAILS      2        /* so often in a row, */
#define SICK_AFTER_US   2000000  /* and for so long: another is to have its turn, */
#define SICK_US         20000000 /* until it has not failed for so long */
#define FAILED_TELL_US  60000000 /* what fails again and again in the same way is told so often */

static bool enabled(const struct node *node)
{
        return node->topology->postgres.node_count > 0;
}

/* The place of a node in a list of the topology; `count` where it is not there. */
static uint32_t place_of(const uint32_t *ids, uint32_t count, node_id id)
{
        uint32_t at = 0;
        while (at < count && ids[at] != id)
                at++;
        return at;
}

bool postgres_listed(const struct node *node, node_id id)
{
        const struct topology_postgres *rules = &node->topology->postgres;
        return place_of(rules->nodes, rules->node_count, id) < rules->node_count;
}

bool postgres_eligible(const struct node *node, node_id id)
{
        const struct topology_postgres *rules = &node->topology->postgres;
        const struct topology_region *region = topology_region_of_node(node->topology, id);
        if (region == NULL || !postgres_listed(node, id) ||
            place_of(rules->never, rules->never_count, id) < rules->never_count)
                return false;
        return region_state_serves(region_state_of(node, region->id));
}

bool postgres_barred(const struct node *node)
{
        enum region_state state = region_state_of(node, node->region_id);
        return state != REGION_STATE_COUNT && !region_state_replicates(state);
}

const char *postgres_name(const struct node *node, node_id id)
{
        const struct topology_node *known = topology_node_by_id(node->topology, id);
        return known != NULL ? known->name : "another";
}

static uint64_t fresh_us(const struct node *node)
{
        return 1000ull * FRESH_BEATS * node->topology->timing.heartbeat_ms;
}

const struct postgres_word *postgres_word_of(const struct node *node, node_id id)
{
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                const struct postgres_heard *heard = &node->postgres.heard[i];
                if (heard->node == id && id != 0 && node->now_us < heard->at_us + fresh_us(node))
                        return &heard->word;
        }
        return NULL;
}

static void news_take(struct postgres *postgres, struct postgres_news news)
{
        struct postgres_news *known = &postgres->news;
        if (news.token > known->token ||
            (news.token == known->token && news.written > known->written))
                *known = news;
}

static struct postgres_heard *heard_place(struct node *node, node_id id)
{
        struct postgres_heard *place = NULL;
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                struct postgres_heard *heard = &node->postgres.heard[i];
                if (heard->node == id)
                        return heard;
                if (place == NULL && (heard->node == 0 || !postgres_listed(node, heard->node)))
                        place = heard;
        }
        return place;
}

enum err postgres_came(struct node *node, node_id from, struct bytes data)
{
        struct postgres *postgres = &node->postgres;
        struct postgres_word word;
        enum err err = postgres_word_decode(data, &word);
        if (err != ERR_NONE || word.report.node != from)
                return err != ERR_NONE ? err : ERR_MALFORMED;
        struct postgres_heard *place = heard_place(node, from);
        if (!postgres_listed(node, from) || place == NULL)
                return ERR_NONE;
        *place = (struct postgres_heard){.node = from, .at_us = node->now_us, .word = word};
        news_take(postgres, word.news);
        if (word.grant > postgres->grant) {
                postgres->grant = word.grant;
                postgres->grant_node = word.grant_node;
        }
        postgres->dirty = true;
        return ERR_NONE;
}

bool postgres_seen_fresh(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        return postgres->seen && node->now_us < postgres->seen_us + SEEN_FRESH_US;
}

/* Its server was to start again and again, and does not: it is as good as dead. It holds no lease,
 * claims none and tells nothing, so that the others take it for gone. */
static bool sick(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        return postgres->start_fails >= SICK_FAILS &&
               postgres->start_fail_last_us >= postgres->start_fail_first_us + SICK_AFTER_US &&
               node->now_us < postgres->start_fail_last_us + SICK_US;
}

static bool starts(enum primary_action action)
{
        return action == PRIMARY_DO_START || action == PRIMARY_DO_OPEN;
}

static void start_failed(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        bool was = sick(node);
        if (postgres->start_fails++ == 0)
                postgres->start_fail_first_us = node->now_us;
        postgres->start_fail_last_us = node->now_us;
        if (sick(node) && !was)
                node_note(node, "postgres-alarm",
                          "PostgreSQL of %s does not start, so another server may take over; it is "
                          "tried again each second.",
                          postgres_name(node, node->config.self));
}

/* Meanwhile its server is told as it was before. */
static bool made_anew(enum primary_action action)
{
        return action == PRIMARY_DO_START || action == PRIMARY_DO_CLONE ||
               action == PRIMARY_DO_REWIND || action == PRIMARY_DO_REBUILD;
}

/* What a primary that has handed over wrote after that, of transactions that can commit no more, is
 * nobody's: told, it would make the chosen one give the lease back. */
static uint64_t told_written(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        bool handed = postgres->handed_epoch != 0 && server->epoch == postgres->handed_epoch;
        return handed && server->written > postgres->handed_written ? postgres->handed_written
                                                                    : server->written;
}

void postgres_report(const struct node *node, struct primary_report *ret)
{
        const struct world_postgres *server = &node->postgres.server;
        *ret = (struct primary_report){.node = node->config.self, .region = node->region_id};
        ret->server = (enum primary_server)server->server;
        ret->system = server->system;
        ret->epoch = server->epoch;
        ret->timeline = server->timeline;
        ret->written = told_written(node);
        ret->replayed = server->replayed;
        ret->line_count = server->line_count;
        ret->lines_cut = server->lines_cut;
        for (unsigned i = 0; i < server->line_count; i++)
                ret->lines[i] = (struct primary_line){.timeline = server->lines[i].timeline,
                                                      .epoch = server->lines[i].epoch,
                                                      .end = server->lines[i].end};
        ret->following = server->upstream != 0 && server->upstream == node->postgres.holder &&
                         !made_anew(node->postgres.action);
        ret->eligible = postgres_eligible(node, node->config.self) && !sick(node);
}

void postgres_tell(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (!enabled(node) || !postgres_seen_fresh(node) ||
            !postgres_listed(node, node->config.self))
                return;
        if (sick(node)) {
                postgres->tell_next_us = UINT64_MAX;
                return;
        }
        struct postgres_word word = {.grant = postgres->grant,
                                     .grant_node = postgres->grant_node,
                                     .news = postgres->news,
                                     .lag_known = postgres->server.lag_known,
                                     .lag_us = postgres->server.lag_us};
        if (postgres->wish == PRIMARY_WISH_AWAY)
                word.designated = postgres->designated;
        postgres_report(node, &word.report);
        buffer_reset(&node->scratch2);
        postgres_word_encode(&word, &node->scratch2);
        if (node->scratch2.err != ERR_NONE)
                return;
        struct envelope envelope = {.kind = ENVELOPE_POSTGRES,
                                    .body = buffer_view(&node->scratch2)};
        for (size_t i = 0; i < node->peer_count; i++)
                if (node->peers[i].up && node->peers[i].id != node->config.self)
                        node_send(node, node->peers[i].id, &envelope);
        postgres->tell_next_us = UINT64_MAX;
}

/* ---- what is seen ---- */

static bool server_sound(const struct world_postgres *server)
{
        bool absent = server->server == PRIMARY_ABSENT;
        return server->server < PRIMARY_SERVER_COUNT && absent == (server->system == 0) &&
               absent == (server->timeline == 0) && server->line_count <= PRIMARY_LINES_MAX;
}

static void server_seen(struct node *node, const struct world_postgres *server)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *old = &postgres->server;
        if (!server_sound(server))
                return;
        bool news = !postgres->seen || old->server != server->server ||
                    old->timeline != server->timeline || old->epoch != server->epoch ||
                    old->upstream != server->upstream || old->gap != server->gap ||
                    (server->server != PRIMARY_OPEN && old->written != server->written);
        if (news && postgres->tell_next_us > node->now_us + TELL_APART_US)
                postgres->tell_next_us = node->now_us + (postgres->seen ? TELL_APART_US : 0);
        postgres->dirty = postgres->dirty || news || postgres->stale;
        if (server->server == PRIMARY_STANDBY ||
            postgres_writes((enum primary_server)server->server))
                postgres->start_fails = 0;
        postgres->server = *server;
        postgres->seen = true;
        postgres->stale = false;
        postgres->seen_us = node->now_us;
}

static bool copies(enum primary_action action)
{
        return action == PRIMARY_DO_CLONE || action == PRIMARY_DO_REWIND ||
               action == PRIMARY_DO_REBUILD;
}

/* It is tried again in a second; a copy that took long, after as long again. */
static void action_failed(struct node *node, struct bytes fail)
{
        struct postgres *postgres = &node->postgres;
        char text[sizeof postgres->failed];
        uint64_t pause_us = FAILED_PAUSE_US;
        uint64_t took_us = node->now_us - postgres->action_since_us;
        (void)snprintf(text, sizeof text, "%s failed: %.*s", primary_action_name(postgres->action),
                       BYTES_ARGS(fail));
        if (strcmp(text, postgres->failed) != 0 ||
            node->now_us >= postgres->failed_told_us + FAILED_TELL_US) {
                node_note(node, "postgres-failed", "PostgreSQL of %s: %s",
                          postgres_name(node, node->config.self), text);
                postgres->failed_told_us = node->now_us;
        }
        memcpy(postgres->failed, text, sizeof text);
        if (copies(postgres->action) && took_us > pause_us)
                pause_us = took_us < FAILED_MOST_US ? took_us : FAILED_MOST_US;
        postgres->pause_until_us = node->now_us + pause_us;
}

static void action_done(struct node *node, uint64_t number, struct bytes fail)
{
        struct postgres *postgres = &node->postgres;
        if (postgres->action == PRIMARY_DO_NOTHING || number != postgres->action_number)
                return;
        if (fail.len > 0) {
                if (starts(postgres->action))
                        start_failed(node);
                action_failed(node, fail);
                postgres_wish_failed(node, fail);
        } else {
                postgres->failed[0] = '\0';
        }
        postgres->fenced = postgres->action == PRIMARY_DO_FENCE && fail.len == 0;
        postgres->action = PRIMARY_DO_NOTHING;
        postgres->stale = true;
        postgres->dirty = true;
}

void postgres_event(struct node *node, const struct world_event *event)
{
        if (event->kind == WORLD_POSTGRES_SEEN)
                server_seen(node, &event->postgres);
        else
                action_done(node, event->postgres_done.number, event->postgres_done.fail);
}

/* ---- standing ---- */

bool postgres_writes(enum primary_server server)
{
        return server == PRIMARY_OPEN || server == PRIMARY_HELD;
}

/* It has not told of its server for long: its node lives, but cannot see the server. Of one that
 * was never heard the time counts from when this node began to look. */
static bool silent(const struct node *node, node_id id)
{
        uint64_t long_us = 2000ull * node->topology->timing.down_after_ms;
        uint64_t at_us = node->postgres.begun_us + long_us;
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++)
                if (node->postgres.heard[i].node == id)
                        at_us = node->postgres.heard[i].at_us;
        return node->now_us >= at_us + long_us;
}

/* Held for down by a majority; silent; of a region that is there, not heard for long. */
static bool gone(const struct node *node, node_id id)
{
        const struct topology_region *region = topology_region_of_node(node->topology, id);
        if (region == NULL || silent(node, id) ||
            health_verdict(node->health, region->id, node->now_us) == HEALTH_DOWN)
                return true;
        uint32_t age_ms = health_age_node_ms(node->health, id, node->now_us);
        return region->node_count > 1 && age_ms >= 2 * node->topology->timing.down_after_ms;
}

static size_t candidates_fill(const struct node *node, struct primary_candidate *candidates)
{
        const struct postgres *postgres = &node->postgres;
        const struct topology_postgres *rules = &node->topology->postgres;
        uint64_t grant = 0; /* that a word must know of to count */
        if (postgres->lease.token != 0 &&
            !postgres_writes((enum primary_server)postgres->server.server) &&
            (node->config.bugs & NODE_BUG_CLAIM_ANY) == 0)
                grant = postgres->lease.token;
        size_t count = 0;
        for (uint32_t i = 0; i < rules->node_count && count < PRIMARY_NODES_MAX; i++) {
                struct primary_candidate *candidate = &candidates[count++];
                node_id id = rules->nodes[i];
                *candidate = (struct primary_candidate){.priority = i};
                candidate->report.node = id;
                if (id == node->config.self) {
                        candidate->fresh = postgres_seen_fresh(node);
                        postgres_report(node, &candidate->report);
                        continue;
                }
                const struct postgres_word *word = postgres_word_of(node, id);
                candidate->gone = gone(node, id);
                candidate->fresh = word != NULL && word->grant >= grant;
                if (word != NULL)
                        candidate->report = word->report;
                candidate->report.eligible =
                        candidate->report.eligible && postgres_eligible(node, id);
                candidate->report.node = id;
                const struct topology_region *region = topology_region_of_node(node->topology, id);
                candidate->report.region = region != NULL ? region->id : 0;
        }
        return count;
}

/* Did whoever was granted the newest lease say since then what it did with it? */
static bool grant_told(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        if (postgres->grant <= postgres->news.token || postgres->grant_node == node->config.self ||
            !postgres_listed(node, postgres->grant_node))
                return true;
        const struct postgres_word *word = postgres_word_of(node, postgres->grant_node);
        return word != NULL && word->grant >= postgres->grant;
}

static void rules_fill(const struct node *node, const struct primary_candidate *candidates,
                       size_t count, struct primary_rules *ret)
{
        const struct postgres *postgres = &node->postgres;
        const struct topology_postgres *rules = &node->topology->postgres;
        const struct topology_region *last =
                topology_region_of_node(node->topology, postgres->grant_node);
        *ret = (struct primary_rules){.sync = rules->sync,
                                      .automatic = rules->automatic,
                                      .loss_max = rules->loss_max,
                                      .designated = postgres_designated(node),
                                      .region = last != NULL ? last->id : 0,
                                      .epoch = postgres->news.epoch,
                                      .written = postgres->news.written};
        for (size_t i = 0; i < count; i++) {
                const struct primary_report *report = &candidates[i].report;
                if (!candidates[i].fresh || report->server == PRIMARY_ABSENT ||
                    report->epoch < ret->epoch)
                        continue;
                if (report->epoch > ret->epoch || report->written > ret->written)
                        ret->written = report->written;
                ret->epoch = report->epoch;
        }
        /* With synchronous commits one of those that have told has all that was acknowledged. */
        if (ret->sync == 0 && !grant_told(node) && postgres->grant > ret->epoch)
                ret->epoch = postgres->grant;
}

void postgres_rules(const struct node *node, struct primary_rules *ret)
{
        struct primary_candidate candidates[PRIMARY_NODES_MAX];
        rules_fill(node, candidates, candidates_fill(node, candidates), ret);
}

/* A commit was acknowledged by one that may not become primary, and none of the others has it. */
static bool more_elsewhere(const struct primary_candidate *candidates, size_t count, node_id self)
{
        const struct primary_report *own = NULL;
        for (size_t i = 0; i < count; i++)
                if (candidates[i].report.node == self)
                        own = &candidates[i].report;
        for (size_t i = 0; i < count && own != NULL; i++) {
                const struct primary_report *report = &candidates[i].report;
                if (candidates[i].fresh && !report->eligible && report->system == own->system &&
                    (report->epoch > own->epoch ||
                     (report->epoch == own->epoch && report->written > own->written)))
                        return true;
        }
        return false;
}

static void standing_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        struct primary_candidate candidates[PRIMARY_NODES_MAX];
        struct primary_rules rules;
        size_t count = candidates_fill(node, candidates);
        rules_fill(node, candidates, count, &rules);
        postgres->standing = primary_rank(candidates, count, node->config.self, &rules);
        if (rules.sync > 0 && postgres->standing.rank == PRIMARY_RANK_BEST &&
            more_elsewhere(candidates, count, node->config.self))
                postgres->standing.rank = PRIMARY_RANK_UNSURE;
        if ((node->config.bugs & NODE_BUG_CLAIM_ANY) != 0 &&
            postgres->standing.rank != PRIMARY_RANK_EMPTY) {
                postgres->standing.rank = PRIMARY_RANK_BEST;
                postgres->standing.loss_over = false;
        }
}

static void news_own(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        if (postgres->lease.token != 0 && postgres_writes((enum primary_server)server->server))
                news_take(postgres, (struct postgres_news){postgres->lease.token, server->epoch,
                                                           told_written(node)});
}

/* A lease that is not put to use ends by itself, so that another may try; so does that of a server
 * that is being fenced, or is not seen any more. What is left of it lets a slow server answer. */
static bool renews(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        uint64_t use_us = 2000ull * node->topology->postgres.lease_ms;
        if (postgres->action == PRIMARY_DO_FENCE || postgres_barred(node) || sick(node) ||
            node->now_us >= postgres->seen_us + RENEW_SEEN_US)
                return false;
        return postgres_seen_fresh(node) &&
               (postgres_writes((enum primary_server)postgres->server.server) ||
                postgres->action != PRIMARY_DO_NOTHING ||
                node->now_us < postgres->claimed_us + use_us);
}

/* In a while, or when the lease begins to end. */
static uint64_t look_next_us(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        uint64_t next_us = node->now_us + LOOK_EVERY_US;
        uint64_t end_us = postgres->lease.until_us - postgres_margin_us(node);
        if (postgres->lease.token != 0 && end_us > node->now_us && end_us < next_us)
                next_us = end_us;
        return postgres->tell_next_us < next_us ? postgres->tell_next_us : next_us;
}

void postgres_tick(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (!enabled(node) || !postgres_listed(node, node->config.self) || !postgres->seen)
                return;
        if (!postgres->dirty && node->now_us < postgres->next_us)
                return;
        if (postgres->begun_us == 0)
                postgres->begun_us = node->now_us;
        postgres->dirty = false;
        uint64_t grant = postgres->grant;
        postgres_lease_look(node);
        postgres_order_look(node);
        postgres_wish_look(node);
        news_own(node);
        if (renews(node))
                postgres_lease_renew(node);
        standing_look(node);
        const struct primary_row *row = postgres_decide(node);
        postgres_limit_look(node);
        if (row != NULL && (postgres_seen_fresh(node) || row->action == PRIMARY_DO_FENCE))
                postgres_carry_out(node, row);
        else
                postgres_row_tell(node, NULL);
        postgres_gate_renew(node);
        postgres_watch_look(node);
        if (postgres->grant != grant || node->now_us >= postgres->tell_next_us)
                postgres_tell(node);
        if (node->now_us >= postgres->detail_next_us)
                postgres_detail_tell(node);
        postgres->next_us = look_next_us(node);
}

uint64_t postgres_wake_us(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        if (!enabled(node) || !postgres_listed(node, node->config.self) || !postgres->seen)
                return UINT64_MAX;
        return postgres->dirty ? node->now_us : postgres->next_us;
}
