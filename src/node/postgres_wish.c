/* postgres_wish.c - what people ask of the PostgreSQL cluster, and what they are told of it.
 *
 * A switchover is the holder's: it gets to know who is to take over, and tells all others by its
 * word. A failover is a wish of the node that is to take over. A request that came to another node
 * is passed on once. A wish ends when it came true, by an abort, or after a while, whatever has
 * become of it: a primary that held its writes for it goes on then. */
#include "node/node_priv.h"

#include <stdio.h>

#define SWITCHOVER_US  10000000
#define FAILOVER_US    30000000
#define HANDED_OVER_US 3000000             /* for the chosen one to take the lease */
#define READY_BYTES    ((uint64_t)1 << 20) /* behind by less: a switchover may begin */
#define COMES_US       3000000
#define REPLY_TEXT_MAX 400

static void say(struct node *node, struct asker asker, enum reply_code code, node_id target,
                const char *text)
{
        struct reply reply = {.kind = REQUEST_POSTGRES, .code = code, .text = bytes_of_str(text)};
        reply.postgres.node = target;
        request_answer(node, asker, &reply);
}

static void refuse(struct node *node, struct asker asker, const char *text)
{
        say(node, asker, REPLY_CONFLICT, 0, text);
}

/* What `target` lacks of what this node has; UINT64_MAX: it does not follow this line. */
static uint64_t behind_of(const struct node *node, node_id target)
{
        const struct postgres_word *word = postgres_word_of(node, target);
        struct primary_report own;
        postgres_report(node, &own);
        if (word == NULL || word->report.system != own.system || word->report.epoch != own.epoch ||
            word->report.timeline != own.timeline || word->report.server != PRIMARY_STANDBY)
                return UINT64_MAX;
        return own.written > word->report.written ? own.written - word->report.written : 0;
}

/* What a switchover to `target` still waits for, as a sentence's end; false: for nothing. */
static bool lacks(const struct node *node, node_id target, char text[static REPLY_TEXT_MAX])
{
        const struct postgres *postgres = &node->postgres;
        const char *name = postgres_name(node, target);
        uint64_t behind = behind_of(node, target);
        bool held = postgres->server.server == PRIMARY_HELD;
        if (!postgres_eligible(node, target))
                (void)snprintf(text, REPLY_TEXT_MAX, "%s may not become primary", name);
        else if (postgres_word_of(node, target) == NULL)
                (void)snprintf(text, REPLY_TEXT_MAX, "%s is not heard", name);
        else if (behind == UINT64_MAX)
                (void)snprintf(text, REPLY_TEXT_MAX, "%s does not follow the primary", name);
        else if (behind > (held ? 0 : READY_BYTES))
                (void)snprintf(text, REPLY_TEXT_MAX, "%s is %llu bytes behind", name,
                               (unsigned long long)behind);
        else
                return false;
        return true;
}

/* A standby that was heard moments ago, and is not heard just now, or about to be led to this
 * primary: a switchover waits for it. */
static bool comes(const struct node *node, node_id target)
{
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                const struct postgres_heard *heard = &node->postgres.heard[i];
                const struct primary_report *report = &heard->word.report;
                if (heard->node == target && postgres_eligible(node, target))
                        return node->now_us < heard->at_us + COMES_US &&
                               report->server == PRIMARY_STANDBY &&
                               report->system == node->postgres.server.system &&
                               (postgres_word_of(node, target) == NULL ||
                                behind_of(node, target) == UINT64_MAX);
        }
        return false;
}

bool postgres_ready(const struct node *node)
{
        char text[REPLY_TEXT_MAX];
        return node->postgres.wish == PRIMARY_WISH_AWAY && node->postgres.order.recorded &&
               !lacks(node, node->postgres.designated, text);
}

node_id postgres_designated(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        if (postgres->wish == PRIMARY_WISH_AWAY)
                return postgres->designated;
        if (postgres->wish != PRIMARY_WISH_NONE)
                return node->config.self;
        for (size_t i = 0; i < PRIMARY_NODES_MAX; i++) {
                const struct postgres_word *word = postgres_word_of(node, postgres->heard[i].node);
                if (word != NULL && word->designated != 0)
                        return word->designated;
        }
        return 0;
}

enum primary_wish postgres_wish_of(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        bool others = postgres->hold == PRIMARY_FREE || postgres->hold == PRIMARY_OTHER;
        if (postgres->wish == PRIMARY_WISH_NONE && others &&
            postgres_designated(node) == node->config.self)
                return PRIMARY_WISH_HERE;
        return postgres->wish;
}

static const char *wish_word(enum primary_wish wish)
{
        return wish == PRIMARY_WISH_AWAY ? "switchover" : "failover";
}

static void wish_done(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        node_note(node, "postgres-wish", "PostgreSQL: the %s has come true.",
                  wish_word(postgres->wish));
        postgres->order.state = "done";
        postgres->order.why[0] = 0;
        postgres->wish = PRIMARY_WISH_NONE;
        postgres->designated = 0;
        postgres->dirty = true;
}

static void wish_off(struct node *node, const char *why)
{
        struct postgres *postgres = &node->postgres;
        node_note(node, "postgres-wish", "PostgreSQL: the %s is off: %s.",
                  wish_word(postgres->wish), why);
        (void)snprintf(postgres->order.why, sizeof postgres->order.why, "%s", why);
        postgres->order.state = "off";
        postgres->wish = PRIMARY_WISH_NONE;
        postgres->designated = 0;
        postgres->dirty = true;
}

static bool writes(const struct postgres *postgres)
{
        return postgres->server.server == PRIMARY_OPEN || postgres->server.server == PRIMARY_HELD;
}

void postgres_wish_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (postgres->wish == PRIMARY_WISH_NONE)
                return;
        bool away = postgres->wish == PRIMARY_WISH_AWAY;
        char missing[REPLY_TEXT_MAX] = "", why[REPLY_TEXT_MAX + 128];
        bool lacking = away && writes(postgres) && lacks(node, postgres->designated, missing);
        if (lacking)
                (void)snprintf(postgres->order.why, sizeof postgres->order.why, "%.300s", missing);
        else if (away && !postgres->order.recorded)
                (void)snprintf(postgres->order.why, sizeof postgres->order.why,
                               "the council has not recorded it yet");
        if (away ? postgres->hold == PRIMARY_OTHER : postgres->server.server == PRIMARY_OPEN) {
                wish_done(node);
        } else if (!away && postgres->hold == PRIMARY_OTHER) {
                (void)snprintf(why, sizeof why, "%s has taken over",
                               postgres_name(node, postgres->holder));
                wish_off(node, why);
        } else if (node->now_us >= postgres->wish_until_us) {
                (void)snprintf(why, sizeof why, "it took too long%s%s",
                               postgres->order.why[0] != 0 ? ": " : "", postgres->order.why);
                wish_off(node, why);
        }
}

void postgres_wish_released(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (postgres->wish != PRIMARY_WISH_AWAY)
                return;
        (void)snprintf(postgres->order.why, sizeof postgres->order.why,
                       "%s has not taken the lease that was given back for it",
                       postgres_name(node, postgres->designated));
        postgres->wish_until_us = node->now_us + HANDED_OVER_US;
}

void postgres_wish_failed(struct node *node, struct bytes why)
{
        struct postgres *postgres = &node->postgres;
        if (postgres->wish != PRIMARY_WISH_NONE)
                (void)snprintf(postgres->order.why, sizeof postgres->order.why, "%.*s",
                               BYTES_ARGS(why));
}

static void wish_begin(struct node *node, enum primary_wish wish, node_id designated,
                       struct bytes actor)
{
        struct postgres *postgres = &node->postgres;
        bool away = wish == PRIMARY_WISH_AWAY;
        postgres->wish = wish;
        postgres->designated = designated;
        postgres->order = (struct node_status_order){
                .number = postgres->order.number + 1, .target = designated, .state = "waits"};
        postgres->wish_until_us = node->now_us + (away ? SWITCHOVER_US : FAILOVER_US);
        postgres_order_begin(node);
        postgres->dirty = true;
        postgres->tell_next_us = node->now_us;
        node_note(node, "postgres-wish", "PostgreSQL: %.*s asks for a %s to %s.",
                  actor.len == 0 ? 7 : (int)actor.len,
                  actor.len == 0 ? "someone" : (const char *)actor.ptr,
                  away                         ? "switchover"
                  : wish == PRIMARY_WISH_FORCE ? "failover by force"
                                               : "failover",
                  postgres_name(node, designated));
}

/* The node that is meant by its name or its region's: the best of these; of an empty name the best
 * of all. 0: there is none. */
static node_id target_of(const struct node *node, struct bytes name)
{
        const struct topology_postgres *rules = &node->topology->postgres;
        const struct topology_region *region = topology_region_by_name(node->topology, name);
        const struct topology_node *one = topology_node_by_name(node->topology, name);
        if (one != NULL)
                return postgres_listed(node, one->id) ? one->id : 0;
        node_id best = 0;
        uint64_t best_written = 0;
        for (uint32_t i = 0; i < rules->node_count; i++) {
                node_id id = rules->nodes[i];
                const struct topology_region *home = topology_region_of_node(node->topology, id);
                const struct postgres_word *word = postgres_word_of(node, id);
                uint64_t written = word != NULL ? word->report.written : 0;
                if (home == NULL || (home != region && name.len > 0) ||
                    !postgres_eligible(node, id) || (word == NULL && name.len == 0))
                        continue;
                if (best == 0 || written > best_written) {
                        best = id;
                        best_written = written;
                }
        }
        return best;
}

static bool passed_on(struct node *node, struct asker asker, const struct request *request,
                      struct bytes data, node_id to)
{
        const struct node_peer *peer = node_peer_of(node, to);
        if (to == node->config.self)
                return false;
        if (asker.from != 0)
                refuse(node, asker, "The roles have just changed; ask again.");
        else if (peer == NULL || !peer->up)
                say(node, asker, REPLY_UNREACHABLE, 0, "The node in question cannot be reached.");
        else
                request_forward(node, asker, request, data, to);
        return true;
}

static void switchover(struct node *node, struct asker asker, const struct request *request,
                       struct bytes data)
{
        struct postgres *postgres = &node->postgres;
        char text[REPLY_TEXT_MAX + 8], missing[REPLY_TEXT_MAX];
        node_id holder = postgres->holder;
        if (holder == 0) {
                refuse(node, asker, "There is no primary, or it is not known; see failover.");
                return;
        }
        if (passed_on(node, asker, request, data, holder))
                return;
        node_id target = target_of(node, request->postgres.target);
        if (target == 0 || target == node->config.self) {
                refuse(node, asker,
                       target == 0 ? "Nothing there may become primary."
                                   : "It is the primary already.");
                return;
        }
        if (postgres->hold != PRIMARY_MINE || postgres->server.server != PRIMARY_OPEN ||
            postgres->action != PRIMARY_DO_NOTHING || postgres->wish != PRIMARY_WISH_NONE) {
                refuse(node, asker, "Something else is under way; ask again.");
                return;
        }
        if (lacks(node, target, missing) && !comes(node, target)) {
                (void)snprintf(text, sizeof text, "%s.", missing);
                refuse(node, asker, text);
                return;
        }
        wish_begin(node, PRIMARY_WISH_AWAY, target, request->postgres.actor);
        uint64_t behind = behind_of(node, target);
        (void)snprintf(text, sizeof text,
                       "%s takes over from %s, nothing is lost; %llu bytes to go.",
                       postgres_name(node, target), postgres_name(node, node->config.self),
                       (unsigned long long)(behind == UINT64_MAX ? 0 : behind));
        say(node, asker, REPLY_OK, target, text);
}

static void loss_text(const struct primary_standing *standing, char text[static 64])
{
        if (standing->loss == UINT64_MAX)
                (void)snprintf(text, 64, "nobody knows how much is lost");
        else
                (void)snprintf(text, 64, "%llu bytes are known to be lost",
                               (unsigned long long)standing->loss);
}

static void failover(struct node *node, struct asker asker, const struct request *request,
                     struct bytes data)
{
        struct postgres *postgres = &node->postgres;
        const struct primary_standing *standing = &postgres->standing;
        bool force = request->postgres.wish == REQUEST_FAILOVER_FORCE;
        char text[REPLY_TEXT_MAX];
        char loss[64];
        bool named = request->postgres.target.len > 0;
        node_id target = !named && standing->best != 0 ? standing->best
                                                       : target_of(node, request->postgres.target);
        if (target == 0) {
                refuse(node, asker, "Nothing there may become primary, as far as is known.");
                return;
        }
        if (passed_on(node, asker, request, data, target))
                return;
        loss_text(standing, loss);
        const char *why = NULL;
        if (postgres->hold == PRIMARY_OTHER)
                why = "There is a primary with a lease: see switchover, or isolate its region.";
        else if (postgres->hold == PRIMARY_UNKNOWN)
                why = "No majority can be reached, so nobody can take over.";
        else if (postgres->server.server == PRIMARY_OPEN)
                why = "It is the primary already.";
        else if (!postgres_seen_fresh(node))
                why = "What its server has is not known: see `meridian events` of that node.";
        else if (!postgres_eligible(node, node->config.self))
                why = "It may not become primary.";
        else if (postgres->server.server == PRIMARY_ABSENT)
                why = "It has no data.";
        else if (!force && standing->rank != PRIMARY_RANK_BEST)
                why = "It has not most, or too few have told what they have; --force takes over "
                      "nevertheless.";
        if (why != NULL) {
                refuse(node, asker, why);
                return;
        }
        if (!force && standing->loss_over) {
                (void)snprintf(text, sizeof text, "More than the limit: %s; --force takes it.",
                               loss);
                refuse(node, asker, text);
                return;
        }
        /* Asked for twice, it is one; force may be added to it. */
        bool begun = postgres->wish == PRIMARY_WISH_FORCE ||
                     (postgres->wish == PRIMARY_WISH_HERE && !force);
        if (!begun)
                wish_begin(node, force ? PRIMARY_WISH_FORCE : PRIMARY_WISH_HERE, node->config.self,
                           request->postgres.actor);
        (void)snprintf(text, sizeof text, "%s takes over%s; %s.",
                       postgres_name(node, node->config.self),
                       begun ? ", as it was asked to before" : "", loss);
        say(node, asker, REPLY_OK, node->config.self, text);
}

static void wish_abort(struct node *node, struct asker asker, const struct request *request,
                       struct bytes data)
{
        node_id at = request->postgres.target.len > 0 ? target_of(node, request->postgres.target)
                                                      : node->postgres.holder;
        if (node->postgres.wish == PRIMARY_WISH_NONE && at != 0 &&
            passed_on(node, asker, request, data, at))
                return;
        if (node->postgres.wish == PRIMARY_WISH_NONE) {
                refuse(node, asker, "Nothing is under way there.");
                return;
        }
        wish_off(node, "it was aborted");
        say(node, asker, REPLY_OK, 0, "It is off.");
}

void postgres_request(struct node *node, struct asker asker, const struct request *request,
                      struct bytes data)
{
        if (node->topology->postgres.node_count == 0) {
                say(node, asker, REPLY_NOT_FOUND, 0, "The topology has no PostgreSQL cluster.");
                return;
        }
        switch (request->postgres.wish) {
        case REQUEST_SWITCHOVER:
                switchover(node, asker, request, data);
                break;
        case REQUEST_FAILOVER:
        case REQUEST_FAILOVER_FORCE:
                failover(node, asker, request, data);
                break;
        case REQUEST_POSTGRES_ABORT:
                wish_abort(node, asker, request, data);
                break;
        case REQUEST_POSTGRES_COUNT:
                break;
        }
}
