/* postgres_lease.c - the right to write to PostgreSQL, as a lock of the council's global table.
 *
 * The node asks for it as a client would, and counts what it was granted from the moment it asked
 * (primary_lease_granted). Each of its starts is an owner of its own, so what an older start sent
 * and what arrives late cannot end a lease that is counted; for the same reason a token that was
 * given back is never counted again, though the table may grant it once more. A lease that the
 * server's gate remembers is taken over at a start under its owner's name: nobody who has given it
 * back leaves an open gate. Without an answer nothing is known, and the lease ends by itself. */
#include "node/node_priv.h"

#include <stdio.h>

#define CLAIM_AGAIN_US 250000
#define QUEUE_MS       3000 /* for a lease that is about to be given back */

/* Which request to the council is meant by `id`, or NULL. */
static struct postgres_ask *ask_of(struct postgres *postgres, uint64_t id)
{
        for (size_t i = 0; i < POSTGRES_ASKS_MAX; i++)
                if (postgres->asks[i].id == id)
                        return &postgres->asks[i];
        return NULL;
}

struct bytes postgres_lease_key(const struct node *node, char text[static POSTGRES_KEY_MAX])
{
        (void)snprintf(text, POSTGRES_KEY_MAX, "global:postgres/%s", node->topology->cluster);
        return bytes_of_str(text);
}

static void owner_make(const struct node *node, char text[static POSTGRES_OWNER_MAX])
{
        (void)snprintf(text, POSTGRES_OWNER_MAX, "node-%u/%llu", node->config.self,
                       (unsigned long long)node->incarnation);
}

node_id postgres_owner_node(struct bytes owner)
{
        uint64_t id = 0;
        if (!bytes_starts_with(owner, BYTES("node-")))
                return 0;
        for (size_t i = 5; i < owner.len && owner.ptr[i] != '/' && id <= UINT32_MAX; i++) {
                if (owner.ptr[i] < '0' || owner.ptr[i] > '9')
                        return 0;
                id = id * 10 + (uint64_t)(owner.ptr[i] - '0');
        }
        return id <= UINT32_MAX ? (node_id)id : 0;
}

uint64_t postgres_margin_us(const struct node *node)
{
        if ((node->config.bugs & NODE_BUG_NO_MARGIN) != 0)
                return 0;
        return 1000ull * node->topology->postgres.margin_ms;
}

static uint64_t lease_us(const struct node *node)
{
        return 1000ull * node->topology->postgres.lease_ms;
}

bool postgres_ask(struct node *node, const struct postgres_ask *what, const struct request *request)
{
        struct postgres *postgres = &node->postgres;
        struct postgres_ask *place = ask_of(postgres, 0);
        if (place == NULL)
                return false;
        *place = *what;
        place->id = ++postgres->ask_last;
        place->sent_us = node->now_us;
        request_lock_own(node, place->id, request);
        return true;
}

static bool ask(struct node *node, enum request_kind kind, uint64_t token, uint64_t wait_ms)
{
        struct postgres *postgres = &node->postgres;
        char key[POSTGRES_KEY_MAX];
        struct request request = {.kind = kind};
        request.lock.key = postgres_lease_key(node, key);
        request.lock.owner = bytes_of_str(postgres->owner);
        request.lock.token = token;
        request.lock.ttl_ms = node->topology->postgres.lease_ms;
        request.lock.wait_ms = wait_ms;
        return postgres_ask(node, &(struct postgres_ask){.kind = kind, .token = token}, &request);
}

void postgres_lease_claim(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        bool queue = postgres->hold == PRIMARY_OTHER;
        if ((postgres->claiming && (queue || !postgres->queued)) ||
            node->now_us < postgres->claim_next_us)
                return;
        owner_make(node, postgres->owner);
        postgres->claim_next_us = node->now_us + CLAIM_AGAIN_US;
        postgres->claiming = ask(node, REQUEST_LOCK_ACQUIRE, 0, queue ? QUEUE_MS : 0);
        postgres->queued = postgres->claiming && queue;
        postgres->withdrawn = false;
}

/* Is it said that the holder does not give it back for us any more? Its word is about this very
 * lease, and it takes writes; who has handed over does not, whatever it says of its wish. */
static bool goes_on(const struct node *node)
{
        const struct postgres *postgres = &node->postgres;
        const struct postgres_word *word = postgres_word_of(node, postgres->holder);
        return postgres->hold == PRIMARY_OTHER && word != NULL && word->grant == postgres->grant &&
               word->report.server == PRIMARY_OPEN && postgres_wish_of(node) == PRIMARY_WISH_NONE;
}

/* A switchover that is off must not come true by the holder's death. */
static void withdraw(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (!postgres->queued || postgres->withdrawn || !goes_on(node) ||
            (node->config.bugs & NODE_BUG_CLAIM_STAYS) != 0)
                return;
        for (size_t i = 0; i < POSTGRES_ASKS_MAX && !postgres->withdrawn; i++) {
                const struct postgres_ask *ask = &postgres->asks[i];
                if (ask->id != 0 && !ask->order && ask->kind == REQUEST_LOCK_ACQUIRE)
                        postgres->withdrawn = request_lock_withdraw(node, ask->id);
        }
}

/* Where the word is lost the lease ends by itself. */
static void give_back(struct node *node, uint64_t token)
{
        node->postgres.claim_next_us = node->now_us + CLAIM_AGAIN_US;
        (void)ask(node, REQUEST_LOCK_RELEASE, token, 0);
}

void postgres_lease_release(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        uint64_t token = postgres->lease.token;
        if (token > postgres->released)
                postgres->released = token;
        primary_lease_lost(&postgres->lease);
        give_back(node, token);
}

void postgres_lease_renew(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        if (postgres->lease.token == 0 || postgres->owner[0] == 0 ||
            node->now_us < postgres->renew_next_us)
                return;
        postgres->renew_next_us = node->now_us + 1000ull * node->topology->postgres.renew_ms;
        (void)ask(node, REQUEST_LOCK_RENEW, postgres->lease.token, 0);
}

/* It was taken back, too late, and nobody wants it now. */
static bool unwanted(const struct node *node)
{
        return node->postgres.withdrawn && postgres_wish_of(node) == PRIMARY_WISH_NONE &&
               !node->topology->postgres.automatic;
}

static void granted(struct node *node, const struct postgres_ask *ask, uint64_t token)
{
        struct postgres *postgres = &node->postgres;
        if (ask->kind == REQUEST_LOCK_ACQUIRE && token > postgres->released && unwanted(node))
                postgres->released = token;
        if (token <= postgres->released) {
                /* The word that gave it back is lost, or still on its way. */
                give_back(node, token);
                return;
        }
        if (token != postgres->lease.token) {
                postgres->claimed_us = node->now_us;
                /* At once where the claim has waited: the lease counts from when it was asked. */
                postgres->renew_next_us =
                        ask->sent_us + 1000ull * node->topology->postgres.renew_ms;
        }
        bool late = (node->config.bugs & NODE_BUG_LEASE_FROM_ANSWER) != 0;
        primary_lease_granted(&postgres->lease, token, late ? node->now_us : ask->sent_us,
                              lease_us(node));
        if (token > postgres->grant) {
                postgres->grant = token;
                postgres->grant_node = node->config.self;
        }
}

void postgres_answered(struct node *node, uint64_t id, const struct reply *reply)
{
        struct postgres *postgres = &node->postgres;
        struct postgres_ask *place = id == 0 ? NULL : ask_of(postgres, id);
        if (place == NULL)
                return;
        struct postgres_ask ask = *place;
        *place = (struct postgres_ask){0};
        postgres->dirty = true;
        if (ask.order) {
                postgres_order_answered(node, &ask, reply);
        } else if (ask.kind == REQUEST_LOCK_ACQUIRE) {
                postgres->claiming = postgres->queued = false;
                if (reply->code == REPLY_OK)
                        granted(node, &ask, reply->lock.token);
                postgres->withdrawn = false;
        } else if (ask.kind == REQUEST_LOCK_RENEW && ask.token == postgres->lease.token) {
                if (reply->code == REPLY_OK)
                        granted(node, &ask, ask.token);
                else if (reply->code == REPLY_NOT_OWNER)
                        primary_lease_lost(&postgres->lease);
        }
}

/* The server's gate is open by a lease of an older start of this node: it goes on, also where
 * writes were held. Who gives the lease back closes the gate before. */
static void lease_adopt(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        const struct world_postgres *server = &postgres->server;
        if (postgres->adopted || !postgres->seen)
                return;
        postgres->adopted = true;
        if (!postgres_writes((enum primary_server)server->server) ||
            server->gate_until_us <= node->now_us || postgres->lease.token != 0 ||
            server->gate_until_us > node->now_us + lease_us(node))
                return;
        postgres->lease.token = server->gate_epoch;
        postgres->lease.until_us = server->gate_until_us + postgres_margin_us(node);
        postgres->owner[0] = 0;
}

static enum primary_hold hold_of_table(struct node *node, const struct lock_info *info)
{
        struct postgres *postgres = &node->postgres;
        char own[POSTGRES_OWNER_MAX];
        owner_make(node, own);
        postgres->holder = postgres_owner_node(info->owner);
        if (info->token.value > postgres->grant) {
                postgres->grant = info->token.value;
                postgres->grant_node = postgres->holder;
        }
        if (postgres->holder != node->config.self)
                return PRIMARY_OTHER;
        /* Ours, but not counted: asked for again, unless an older start of ours had it. */
        return bytes_equal(info->owner, bytes_of_str(own)) ? PRIMARY_FREE : PRIMARY_UNKNOWN;
}

void postgres_lease_look(struct node *node)
{
        struct postgres *postgres = &node->postgres;
        struct node_group *group = &node->groups[WORLD_GROUP_GLOBAL];
        struct lock_info info;
        char key[POSTGRES_KEY_MAX];
        lease_adopt(node);
        bool held = lock_find(council_locks(group->council), postgres_lease_key(node, key), &info);
        if (held && postgres->lease.token != 0 && postgres->owner[0] == 0 &&
            info.token.value == postgres->lease.token && info.owner.len < POSTGRES_OWNER_MAX)
                (void)snprintf(postgres->owner, sizeof postgres->owner, "%.*s",
                               BYTES_ARGS(info.owner));
        enum primary_hold own =
                primary_lease_hold(&postgres->lease, node->now_us, postgres_margin_us(node));
        if (own == PRIMARY_MINE && postgres_barred(node))
                own = PRIMARY_ENDING;
        postgres->holder = 0;
        enum primary_hold told = held ? hold_of_table(node, &info) : PRIMARY_FREE;
        bool blind = group->failed || group->consensus == NULL || group->status.leader == 0 ||
                     !consensus_has_majority(group->consensus, node->now_us / 1000);
        if (own != PRIMARY_UNKNOWN)
                postgres->holder = node->config.self;
        if (own == PRIMARY_UNKNOWN && blind)
                postgres->holder = 0;
        postgres->hold = own != PRIMARY_UNKNOWN ? own : blind ? PRIMARY_UNKNOWN : told;
        withdraw(node);
}
