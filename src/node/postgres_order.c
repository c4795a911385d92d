/* postgres_order.c - what was asked of this node's server (a switchover, a failover), as a lock of
 * the council's global table: so it outlives the node's restart, all nodes can see it, and the
 * table lets go of it by itself when its time is over.
 *
 *   asked -> begins here, and is recorded -> steps of the rows (hold, hand over, promote)
 *                                         -> come true, off, aborted: the lock is given back
 *   the node starts anew meanwhile        -> it finds the lock, and goes on with what is left
 *
 * The owner's name says it all:
 *
 *      node-NODE/KIND-TARGET/NUMBER/INCARNATION     (of the start at which it was asked)
 *
 * Writes are held for a switchover only when it is recorded. Whatever else stands in that lock, as
 * anybody may take it by hand, is no order: it only keeps others from being recorded. */
#include "node/node_priv.h"

#include <stdio.h>

#define AGAIN_US 300000

static const struct {
        enum primary_wish wish;
        const char *word;
} kinds[] = {
        {PRIMARY_WISH_AWAY, "switchover"},
        {PRIMARY_WISH_HERE, "failover"},
        {PRIMARY_WISH_FORCE, "force"},
};

struct order {
        enum primary_wish wish;
        node_id node, target;
        uint64_t number, incarnation;
};

static struct bytes order_key(const struct node *node, char text[static 80])
{
        (void)snprintf(text, 80, "global:postgres/%s/order", node->topology->cluster);
        return bytes_of_str(text);
}

static void owner_write(const struct order *order, char text[static POSTGRES_ORDER_MAX])
{
        const char *word = "";
        for (size_t i = 0; i < COUNT_OF(kinds); i++)
                if (kinds[i].wish == order->wish)
                        word = kinds[i].word;
        (void)snprintf(text, POSTGRES_ORDER_MAX, "node-%u/%s-%u/%llu/%llu", order->node, word,
                       order->target, (unsigned long long)order->number,
                       (unsigned long long)order->incarnation);
}

/* Takes `word` off the front. */
static bool word_take(struct bytes *text, const char *word)
{
        struct bytes wanted = bytes_of_str(word);
        if (!bytes_starts_with(*text, wanted))
                return false;
        *text = bytes_of(text->ptr + wanted.len, text->len - wanted.len);
        return true;
}

static bool number_take(struct bytes *text, uint64_t max, uint64_t *ret)
{
        uint64_t value = 0;
        size_t len = 0;
        while (len < text->len && text->ptr[len] >= '0' && text->ptr[len] <= '9') {
                uint64_t digit = (uint64_t)(text->ptr[len++] - '0');
                if (value > (max - digit) / 10)
                        return false;
                value = value * 10 + digit;
        }
        *text = bytes_of(text->ptr + len, text->len - len);
        *ret = value;
        return len > 0;
}

static bool owner_read(struct bytes text, struct order *ret)
{
        uint64_t id = 0, target = 0;
        bool known = false;
        if (!word_take(&text, "node-") || !number_take(&text, UINT32_MAX, &id) ||
            !word_take(&text, "/"))
                return false;
        for (size_t i = 0; i < COUNT_OF(kinds) && !known; i++) {
                known = word_take(&text, kinds[i].word);
                ret->wish = kinds[i].wish;
        }
        if (!known || !word_take(&text, "-") || !number_take(&text, UINT32_MAX, &target) ||
            !word_take(&text, "/") || !number_take(&text, UINT64_MAX, &ret->number) ||
            !word_take(&text, "/") || !number_take(&text, UINT64_MAX, &ret->incarnation))
                return false;
        ret->node = (node_id)id;
        ret->target = (node_id)target;
        return text.len == 0;
}

/* `number` is that of the order which the answer is for; 0: for none. */
static void ask(struct node *node, enum request_kind kind, uint64_t number)
{
        struct postgres *postgres = &node->postgres;
        char key[80];
        struct request request = {.kind = kind};
        request.lock.key = order_key(node, key);
        request.lock.owner = bytes_of_str(postgres->order_owner);
        request.lock.token = postgres->order_token;
        if (kind == REQUEST_LOCK_ACQUIRE)
                request.lock.ttl_ms = postgres->wish_until_us > node->now_us + 1000
                                              ? (postgres->wish_until_us - node->now_us) / 1000
                                              : 1;
        postgres->order_next_us = node->now_us + AGAIN_US;
        (void)postgres_ask(node,
                           &(struct postgres_ask){.kind = kind, .token = number, .order = true},
                           &request);
}

void postgres_order_begin(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        struct order order = {.wish = postgres->wish,
                              .node = node->config.self,
                              .target = postgres->order.target,
                              .number = postgres->order.number,
                              .incarnation = node->incarnation};
        /* What an older order holds would keep this one from being recorded. */
        if (postgres->order_token != 0)
                ask(node, REQUEST_LOCK_RELEASE, 0);
        owner_write(&order, postgres->order_owner);
        postgres->order_token = 0;
        postgres->order_next_us = 0;
}

static void order_forget(struct postgres *postgres)
{
        postgres->order_owner[0] = '\0';
        postgres->order_token = 0;
}

void postgres_order_answered(struct node *node, const struct postgres_ask *ask,
                             const struct reply *reply)
{
        struct postgres *postgres = &node->postgres;
        enum request_kind kind = ask->kind;
        if (ask->token != postgres->order.number)
                return; /* of an older order */
        bool wished = postgres->wish != PRIMARY_WISH_NONE;
        if (kind == REQUEST_LOCK_ACQUIRE && reply->code == REPLY_OK) {
                postgres->order_token = reply->lock.token;
                postgres->order_next_us = node->now_us;
                postgres->order.recorded = wished;
        } else if (kind == REQUEST_LOCK_RELEASE &&
                   (reply->code == REPLY_OK || reply->code == REPLY_NOT_OWNER) && !wished) {
                order_forget(postgres);
        }
}

/* Who asked, and when, stands in the events of before. */
static void order_resume(struct node *node, const struct order *order, const struct lock_info *info)
{
        struct postgres *postgres = &node->postgres;
        owner_write(order, postgres->order_owner);
        postgres->order_token = info->token.value;
        postgres->wish = order->wish;
        postgres->designated = order->target;
        postgres->order = (struct node_status_order){.number = order->number,
                                                     .target = order->target,
                                                     .state = "waits",
                                                     .recorded = true};
        postgres->wish_until_us = node->now_us + 1000 * info->ttl_ms;
        postgres->dirty = true;
        postgres->tell_next_us = node->now_us;
        node_note(node, "postgres-wish",
                  "PostgreSQL: the %s to %s goes on, which was asked for before this node started.",
                  order->wish == PRIMARY_WISH_AWAY ? "switchover" : "failover",
                  postgres_name(node, order->target));
}

/* An order of an older start of this node. */
static void resume_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct lock_table *locks = council_locks(node->groups[WORLD_GROUP_GLOBAL].council);
        struct lock_info info;
        struct order order;
        char key[80];
        if (postgres->order.number != 0 || !lock_find(locks, order_key(node, key), &info) ||
            !owner_read(info.owner, &order) || order.node != node->config.self ||
            order.incarnation == node->incarnation || info.ttl_ms == 0)
                return;
        bool away = order.wish == PRIMARY_WISH_AWAY;
        bool writes = postgres_writes((enum primary_server)postgres->server.server);
        /* A switchover is the holder's, a failover that of a standby. */
        if (away ? postgres->hold == PRIMARY_MINE && writes : postgres->hold == PRIMARY_FREE)
                order_resume(node, &order, &info);
}

void postgres_order_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        bool wished = postgres->wish != PRIMARY_WISH_NONE;
        if (!wished && postgres->order_owner[0] == '\0') {
                resume_look(node);
                return;
        }
        if (node->now_us < postgres->order_next_us)
                return;
        if (wished && postgres->order_token == 0)
                ask(node, REQUEST_LOCK_ACQUIRE, postgres->order.number);
        else if (!wished && postgres->order_token != 0)
                ask(node, REQUEST_LOCK_RELEASE, postgres->order.number);
        else if (!wished)
                order_forget(postgres); /* it was not granted; if it still is, its time ends it */
}
