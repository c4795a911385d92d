/* clients.c - users of locks, and what they must be able to rely on. A client believes that
 * it holds a lock until 60 % of the time to live have passed by its own clock since it asked:
 * clocks run at 0.8 to 1.2 of the true rate, so the lease cannot have ended. While it
 * believes so, nobody else may be granted the lock, and the resource that it guards must not
 * have seen a larger token. */
#include "sim/sim_priv.h"

#include <stdio.h>

#define BELIEF_PERCENT 60
#define REPLY_WAIT_US  (8 * SECOND)

static void think(struct sim *sim, struct lock_client *client, uint64_t after_us)
{
        sim_at(sim, after_us, EVENT_LOCK_CLIENT, client->index, 0, ++client->generation);
}

void clients_init(struct sim *sim)
{
        static const char *const names[] = {"x", "y"};
        for (uint32_t i = 0; i < 2; i++) {
                struct lock_key *key = &sim->keys[sim->key_count++];
                (void)snprintf(key->name, sizeof key->name, "global:%s", names[i]);
                key->region = -1;
                key->holder = -1;
        }
        for (uint32_t i = 0; i < sim->swarm.region_count && sim->key_count < LOCK_KEYS; i++) {
                struct lock_key *key = &sim->keys[sim->key_count++];
                (void)snprintf(key->name, sizeof key->name, "r%u:x", i + 1);
                key->region = (int)i;
                key->holder = -1;
        }
        for (uint32_t i = 0; i < sim->swarm.lock_clients; i++) {
                struct lock_client *client = &sim->clients[i];
                client->index = i;
                client->rate_ppm =
                        sim->swarm.rates ? 800000 + sim_below(sim, STREAM_LOCKS, 400001) : 1000000;
                think(sim, client, sim_below(sim, STREAM_LOCKS, SECOND));
        }
}

uint64_t clients_ask(struct sim *sim, struct host *host, const struct request *request)
{
        struct buffer buffer;
        buffer_init(&buffer, &sim->heap);
        request_encode(request, &buffer);
        CHECK(buffer.err == ERR_NONE);
        struct world_event event = {.kind = WORLD_REQUEST};
        event.request.request = ++sim->request_last;
        struct parcel *parcel = parcel_new(sim, &event, buffer_view(&buffer));
        parcel->event.request.data = bytes_of(parcel->bytes, parcel->len);
        buffer_fini(&buffer);
        sim_post(sim, host, 100 + sim_below(sim, STREAM_LOCKS, 400), parcel);
        return sim->request_last;
}

static void ask(struct sim *sim, struct lock_client *client, enum request_kind kind)
{
        const struct lock_key *key = &sim->keys[client->key];
        char owner[16];
        struct request request = {.kind = kind};
        int len = snprintf(owner, sizeof owner, "client-%u", client->index);
        request.lock.key = bytes_of_str(key->name);
        request.lock.owner = bytes_of(owner, (size_t)len);
        request.lock.token = client->token;
        request.lock.ttl_ms = client->ttl_ms;
        request.lock.wait_ms = kind == REQUEST_LOCK_ACQUIRE ? client->wait_ms : 0;
        client->invoked_us = sim->now_us;
        client->token_floor = key->token_max;
        struct host *host = &sim->hosts[client->host];
        if (host->node == NULL) {
                client->request = 0;
                client->host = (uint32_t)sim_below(sim, STREAM_LOCKS, sim->host_count);
                think(sim, client, 100 * MS);
                return;
        }
        client->request = clients_ask(sim, host, &request);
        sim_at(sim, REPLY_WAIT_US, EVENT_LOCK_TIMEOUT, client->index, 0, client->request);
}

static bool believes(const struct sim *sim, const struct lock_client *client)
{
        return (client->state == CLIENT_HOLDING || client->state == CLIENT_RENEWING ||
                client->state == CLIENT_CHECKING) &&
               sim->now_us < client->until_us;
}

static uint64_t belief_end(const struct lock_client *client)
{
        return client->invoked_us +
               client->ttl_ms * MS * BELIEF_PERCENT / 100 * 1000000 / client->rate_ppm;
}

/* Uses the resource with the token, as a program that trusts its lock would, even when late. */
static void use_resource(struct sim *sim, struct lock_client *client)
{
        struct lock_key *key = &sim->keys[client->key];
        if (believes(sim, client))
                history_use(sim, client);
        if (client->token >= key->fence) {
                key->fence = client->token;
                return;
        }
        sim_cover(sim, COVER_LOCK_FENCED);
        if (believes(sim, client))
                sim_violation(sim,
                              "fencing: client %u holds %s by token %llu, the resource saw %llu",
                              client->index, key->name, (unsigned long long)client->token,
                              (unsigned long long)key->fence);
}

static void granted(struct sim *sim, struct lock_client *client, uint64_t token)
{
        struct lock_key *key = &sim->keys[client->key];
        sim_trace(sim, "client %u holds %s, token %llu", client->index, key->name,
                  (unsigned long long)token);
        if (token < client->token_floor)
                sim_violation(sim, "tokens: %s gives %llu after %llu", key->name,
                              (unsigned long long)token, (unsigned long long)client->token_floor);
        if (token == key->token_max && key->token_owner != client->index)
                sim_violation(sim, "tokens: %s gives %llu to two owners", key->name,
                              (unsigned long long)token);
        /* An answer that comes late is of a lease that may have ended: no reason to believe it. */
        bool late = sim->now_us >= belief_end(client);
        for (uint32_t i = 0; i < sim->swarm.lock_clients; i++) {
                const struct lock_client *other = &sim->clients[i];
                if (!late && other != client && other->key == client->key && believes(sim, other))
                        sim_violation(sim, "two owners: clients %u and %u hold %s", i,
                                      client->index, key->name);
        }
        if (key->holder >= 0 && (uint32_t)key->holder != client->index &&
            sim->clients[key->holder].key == client->key &&
            sim->clients[key->holder].state == CLIENT_HOLDING)
                sim_cover(sim, COVER_LOCK_EXPIRED);
        if (key->region >= 0 && (uint32_t)key->region != sim->hosts[client->host].region)
                sim_cover(sim, COVER_FORWARDED);
        if (client->wait_ms > 0 && sim->now_us > client->invoked_us + SECOND / 2)
                sim_cover(sim, COVER_LOCK_WAITED);
        if (token > key->token_max) {
                key->token_max = token;
                key->token_owner = client->index;
        }
        if (key->holder != (int)client->index || token != client->token)
                key->granted_us = sim->now_us;
        key->holder = (int)client->index;
        client->token = token;
        client->until_us = belief_end(client);
        client->state = CLIENT_HOLDING;
        use_resource(sim, client);
        uint64_t hold_us = client->ttl_ms * MS;
        think(sim, client, sim_below(sim, STREAM_LOCKS, hold_us * 3 / 2));
}

/* An answer tells the state of some moment since it was asked for: who held the lock all that time
 * is in it, and a token that somebody was told before is not above it. */
static void looked(struct sim *sim, const struct lock_client *client, const struct reply *reply)
{
        const struct lock_key *key = &sim->keys[client->key];
        bool held = reply->code == REPLY_OK;
        if (!held && reply->code != REPLY_NOT_FOUND && reply->code != REPLY_NOT_OWNER)
                return;
        sim_cover(sim, COVER_LOCK_READ);
        if (held && client->token == 0 && reply->lock.token < client->token_floor)
                sim_violation(sim, "reads: %s is told as held by token %llu after %llu", key->name,
                              (unsigned long long)reply->lock.token,
                              (unsigned long long)client->token_floor);
        if (key->holder < 0 || key->granted_us > client->invoked_us)
                return;
        const struct lock_client *holder = &sim->clients[key->holder];
        if (holder->key != client->key || !believes(sim, holder))
                return;
        bool asked = client->token == 0 || client->token == holder->token;
        if (held != asked || (held && reply->lock.token != holder->token))
                sim_violation(sim, "reads: client %u holds %s by token %llu, the answer is %llu",
                              holder->index, key->name, (unsigned long long)holder->token,
                              held ? (unsigned long long)reply->lock.token : 0);
}

static void retry(struct sim *sim, struct lock_client *client)
{
        client->tries++;
        if (sim_chance(sim, STREAM_LOCKS, 300))
                client->host = (uint32_t)sim_below(sim, STREAM_LOCKS, sim->host_count);
        if (client->tries > 6 && client->state != CLIENT_HOLDING)
                client->state = CLIENT_IDLE;
        think(sim, client, 20 * MS + sim_below(sim, STREAM_LOCKS, 300 * MS));
}

static void replied(struct sim *sim, struct lock_client *client, const struct reply *reply)
{
        if (reply->code == REPLY_NO_MAJORITY)
                sim_cover(sim, COVER_NO_MAJORITY);
        if (reply->code == REPLY_TIMEOUT)
                sim_cover(sim, COVER_TIMEOUT);
        bool ok = reply->code == REPLY_OK;
        switch (client->state) {
        case CLIENT_ACQUIRING:
                if (ok)
                        granted(sim, client, reply->lock.token);
                else
                        retry(sim, client);
                break;
        case CLIENT_RENEWING:
                client->state = CLIENT_HOLDING;
                if (ok)
                        client->until_us = belief_end(client);
                else if (reply->code == REPLY_NOT_OWNER)
                        client->state = CLIENT_IDLE;
                think(sim, client, sim_below(sim, STREAM_LOCKS, client->ttl_ms * MS));
                break;
        case CLIENT_RELEASING:
                if (ok || reply->code == REPLY_NOT_OWNER)
                        client->state = CLIENT_IDLE;
                retry(sim, client);
                break;
        case CLIENT_CHECKING:
                looked(sim, client, reply);
                client->state = CLIENT_HOLDING;
                think(sim, client, sim_below(sim, STREAM_LOCKS, client->ttl_ms * MS));
                break;
        case CLIENT_LOOKING:
                looked(sim, client, reply);
                client->state = CLIENT_IDLE;
                retry(sim, client);
                break;
        case CLIENT_IDLE:
        case CLIENT_HOLDING:
                think(sim, client, 100 * MS);
                break;
        }
}

void clients_reply(struct sim *sim, struct host *host, uint64_t request, struct bytes data)
{
        struct reply reply;

        if (reply_decode(data, &reply, NULL, 0) != ERR_NONE) {
                sim_violation(sim, "contract: a reply that cannot be read");
                return;
        }
        sim_mix(sim, request ^ (uint64_t)reply.code << 48);
        if (stale_reply(sim, host, request, &reply) || sets_reply(sim, request, &reply) ||
            value_clients_reply(sim, request, &reply))
                return;
        for (uint32_t i = 0; i < sim->swarm.lock_clients; i++) {
                struct lock_client *client = &sim->clients[i];
                if (client->request != request)
                        continue;
                client->request = 0;
                /* A reply may be lost between the node and its client. */
                if (!sim->swarm.calm && sim_chance(sim, STREAM_LOCKS, 50)) {
                        history_lost(sim, client);
                        retry(sim, client);
                        return;
                }
                history_heard(sim, client, &reply);
                replied(sim, client, &reply);
                return;
        }
        if (request == sim->probe_global && reply.code == REPLY_OK &&
            sim->isolated == (int)host->index)
                sim_violation(sim, "minority: node %u, cut off, granted a global lock", host->id);
        if (request == sim->probe_global && reply.code == REPLY_NO_MAJORITY)
                sim->minority_global_refused = true;
        if (request == sim->probe_region)
                sim->minority_region_granted = reply.code == REPLY_OK || reply.code == REPLY_HELD;
}

void lock_client_timeout(struct sim *sim, uint32_t index, uint64_t request)
{
        struct lock_client *client = &sim->clients[index];
        if (client->request != request)
                return;
        const struct host *host = &sim->hosts[client->host];
        if (host->node != NULL && host->paused_until_us == 0 && sim->healing &&
            sim->now_us > sim->swarm.faults_end_us + 2 * REPLY_WAIT_US)
                sim_violation(sim, "liveness: client %u got no answer from node %u within %llu s",
                              index, host->id, (unsigned long long)(REPLY_WAIT_US / SECOND));
        client->request = 0;
        history_lost(sim, client);
        retry(sim, client);
}

void clients_host_down(struct sim *sim, struct host *host)
{
        value_clients_host_down(sim, host);
        sets_host_down(sim, host);
        for (uint32_t i = 0; i < sim->swarm.lock_clients; i++) {
                struct lock_client *client = &sim->clients[i];
                if (client->host != host->index || client->request == 0)
                        continue;
                client->request = 0;
                history_lost(sim, client);
                client->host = (uint32_t)sim_below(sim, STREAM_LOCKS, sim->host_count);
                retry(sim, client);
        }
}

static void begin(struct sim *sim, struct lock_client *client)
{
        client->key = (uint32_t)sim_below(sim, STREAM_LOCKS, sim->key_count);
        client->host = (uint32_t)sim_below(sim, STREAM_LOCKS, sim->host_count);
        client->ttl_ms = 300 + sim_below(sim, STREAM_LOCKS, 2700);
        client->wait_ms =
                sim_chance(sim, STREAM_LOCKS, 400) ? sim_below(sim, STREAM_LOCKS, 2000) : 0;
        client->token = 0;
        client->tries = 0;
        if (sim_chance(sim, STREAM_LOCKS, 200)) {
                client->state = CLIENT_LOOKING;
                ask(sim, client, REQUEST_LOCK_LOOK);
                return;
        }
        client->state = CLIENT_ACQUIRING;
        ask(sim, client, REQUEST_LOCK_ACQUIRE);
}

static void while_holding(struct sim *sim, struct lock_client *client)
{
        use_resource(sim, client);
        uint64_t what = sim_below(sim, STREAM_LOCKS, 100);
        client->tries = 0;
        if (what < 15) {
                client->state = CLIENT_CHECKING;
                ask(sim, client, REQUEST_LOCK_LOOK);
        } else if (what < 40) {
                client->state = CLIENT_RENEWING;
                ask(sim, client, REQUEST_LOCK_RENEW);
        } else if (what < 80) {
                client->state = CLIENT_RELEASING;
                ask(sim, client, REQUEST_LOCK_RELEASE);
        } else if (what < 90) {
                /* The program stops for longer than its lease, then goes on as if nothing was. */
                think(sim, client, client->ttl_ms * MS * 2);
        } else {
                client->state = CLIENT_IDLE; /* it dies holding */
                think(sim, client, SECOND);
        }
}

void lock_client_step(struct sim *sim, uint32_t index, uint64_t generation)
{
        struct lock_client *client = &sim->clients[index];
        if (client->generation != generation || client->request != 0)
                return;
        switch (client->state) {
        case CLIENT_IDLE:
                if (sim->now_us < sim->swarm.load_end_us)
                        begin(sim, client);
                break;
        case CLIENT_ACQUIRING:
                ask(sim, client, REQUEST_LOCK_ACQUIRE);
                break;
        case CLIENT_HOLDING:
                while_holding(sim, client);
                break;
        case CLIENT_RENEWING:
        case CLIENT_CHECKING:
                client->state = CLIENT_HOLDING;
                think(sim, client, 1);
                break;
        case CLIENT_LOOKING:
                client->state = CLIENT_IDLE;
                think(sim, client, 1);
                break;
        case CLIENT_RELEASING:
                ask(sim, client, REQUEST_LOCK_RELEASE);
                break;
        }
}
