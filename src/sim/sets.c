/* sets.c - users of several locks at once, alone or by a session to which they also bind a key.
 * In every fifth seed, by any node, under all faults.
 *
 *   idle --> (opens a session --> binds its key) --> acquires --> holds --> releases, or closes the
 *   session, or dies --> idle; now and then it reads what somebody else has bound.
 *
 * What they rely on: all locks of a set or none; while one believes that it holds a lock, by a
 * lease or a session that has 40 % of its time left by its own clock, nobody else is granted it;
 * tokens grow; a bound key is there while its session is believed to live, and gone once somebody
 * was told that it has ended (bound.c). The history of each lock is judged at the end
 * (linear/linear.h). */
#include "kv/kv.h"
#include "lock/lock.h"
#include "sim/sets_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define BELIEF_PERCENT 60
#define ANSWER_WAIT_US (8 * SECOND)
#define TRIES_MAX      6
#define SEEDS_EVERY    5
#define SEEDS_AT       2

static const char *const names[SET_KEYS] = {"global:set0", "global:set1", "global:set2",
                                            "global:set3"};

const char *set_key_name(uint32_t key)
{
        return names[key];
}

uint32_t set_key_of(struct bytes name)
{
        uint32_t key = 0;
        while (key < SET_KEYS && !bytes_equal(name, bytes_of_str(names[key])))
                key++;
        return key;
}

static uint64_t number_of(struct bytes text)
{
        char copy[24] = "";
        if (text.len < sizeof copy)
                memcpy(copy, text.ptr, text.len);
        return strtoull(copy, NULL, 10);
}

struct bytes set_number_text(uint64_t value, char text[24])
{
        int len = snprintf(text, 24, "%llu", (unsigned long long)value);
        return bytes_of(text, (size_t)len);
}

uint64_t set_owner_of(struct bytes name)
{
        return number_of(name);
}

static void think(struct sim *sim, struct set_user *user, uint64_t after_us)
{
        sim_at(sim, after_us, EVENT_SETS, user->index, 0, ++user->generation);
}

void sets_init(struct sim *sim)
{
        if (sim->options.seed % SEEDS_EVERY != SEEDS_AT || !bug_wants_sets(sim))
                return;
        sim->sets = heap_alloc(&sim->heap, sizeof *sim->sets);
        CHECK(sim->sets != NULL);
        memset(sim->sets, 0, sizeof *sim->sets);
        for (uint32_t i = 0; i < SET_USERS; i++) {
                struct set_user *user = &sim->sets->users[i];
                user->index = i;
                user->rate_ppm =
                        sim->swarm.rates ? 800000 + sim_below(sim, STREAM_SETS, 400001) : 1000000;
                think(sim, user, sim_below(sim, STREAM_SETS, 2 * SECOND));
        }
        watchers_init(sim);
}

void sets_fini(struct sim *sim)
{
        if (sim->sets != NULL) {
                heap_free(&sim->heap, sim->sets->history);
                heap_free(&sim->heap, sim->sets->sessions);
        }
        heap_free(&sim->heap, sim->sets);
        sim->sets = NULL;
}

/* ---- history ---- */

static void note(struct sim *sim, const struct set_user *user, enum linear_lock_op what,
                 unsigned keys, uint64_t called_us, uint64_t returned_us)
{
        struct sets *sets = sim->sets;
        for (uint32_t key = 0; key < SET_KEYS; key++) {
                if ((keys & 1u << key) == 0)
                        continue;
                if (sets->history_count == sets->history_size) {
                        sets->history_size = sets->history_size == 0 ? 256 : 2 * sets->history_size;
                        sets->history = heap_resize(&sim->heap, sets->history,
                                                    sets->history_size * sizeof *sets->history);
                        CHECK(sets->history != NULL);
                }
                struct linear_op *op = &sets->history[sets->history_count++];
                *op = (struct linear_op){.called = called_us, .returned = returned_us};
                op->lock = (struct linear_lock){key, what, user->owner + 1, user->token};
                sim_trace(sim, "set: %llu %lld %s owner %llu what %d token %llu",
                          (unsigned long long)called_us, (long long)returned_us, names[key],
                          (unsigned long long)user->owner, (int)what,
                          (unsigned long long)user->token);
        }
}

static unsigned lowest(unsigned keys)
{
        return keys & (0u - keys);
}

/* No answer came to what may have happened all the same. */
static void note_lost(struct sim *sim, const struct set_user *user)
{
        if (user->state == SET_ACQUIRING)
                note(sim, user, LINEAR_GRANTED, user->keys, user->invoked_us, LINEAR_NEVER);
        else if (user->state == SET_RELEASING)
                note(sim, user, LINEAR_RELEASED, lowest(user->keys), user->invoked_us,
                     LINEAR_NEVER);
        else if (user->state == SET_CLOSING)
                note(sim, user, LINEAR_RELEASED, user->keys, user->invoked_us, LINEAR_NEVER);
}

/* ---- asking ---- */

static uint64_t belief_end(const struct set_user *user)
{
        return user->invoked_us +
               user->ttl_ms * MS * BELIEF_PERCENT / 100 * 1000000 / user->rate_ppm;
}

static bool session_believed(const struct sim *sim, const struct set_user *user)
{
        return user->session != 0 && user->state != SET_CLOSING &&
               sim->now_us < user->session_until_us;
}

static bool believes(const struct sim *sim, const struct set_user *user)
{
        if (user->state != SET_HOLDING && user->state != SET_KEEPING)
                return false;
        return user->session != 0 ? session_believed(sim, user) : sim->now_us < user->until_us;
}

static void fill_keys(const struct set_user *user, struct request *request, struct buffer *also)
{
        uint32_t first = SET_KEYS;
        /* Orders differ, so that locks in the wrong order would meet. */
        for (uint32_t i = 0; i < SET_KEYS; i++) {
                uint32_t key = user->index % 2 == 0 ? i : SET_KEYS - 1 - i;
                if ((user->keys & 1u << key) == 0)
                        continue;
                if (first < SET_KEYS)
                        buffer_slice(also, bytes_of_str(names[key]));
                else
                        first = key;
        }
        request->lock.key = bytes_of_str(names[first]);
        request->lock.also = buffer_view(also);
        request->lock.wait_ms = user->wait_ms;
        request->lock.ttl_ms = user->ttl_ms;
        /* Who forgot that it holds others may be told of a deadlock. */
        request->lock.flags = user->index % 2 == 0 ? LOCK_DETECT : 0;
}

static void fill_values(struct sim *sim, const struct set_user *user, struct request *request,
                        struct buffer *txn)
{
        struct kv_build build;
        char name[32], value[24], owner[24];
        uint32_t whose = user->state == SET_READING ? user->read : user->index;
        int len = snprintf(name, sizeof name, "global:bound%u", whose);
        struct kv_step step = {.op = KV_GET, .key = bytes_of(name, (size_t)len)};
        kv_build_init(&build, &sim->heap);
        if (user->state == SET_BINDING) {
                step.op = KV_PUT;
                step.value = set_number_text(user->session, value);
                step.session = user->session;
                build.owner = set_number_text(user->owner, owner);
        }
        kv_build_step(&build, false, &step);
        CHECK(kv_build_end(&build, txn) == ERR_NONE);
        kv_build_fini(&build);
        *request = (struct request){.kind = REQUEST_KV};
        request->kv.key = BYTES("global:");
        request->kv.txn = buffer_view(txn);
}

static void ask(struct sim *sim, struct set_user *user)
{
        static const enum request_kind kinds[] = {
                [SET_OPENING] = REQUEST_SESSION_OPEN,
                [SET_BINDING] = REQUEST_KV,
                [SET_ACQUIRING] = REQUEST_LOCK_ACQUIRE,
                [SET_KEEPING] = REQUEST_SESSION_KEEP,
                [SET_RELEASING] = REQUEST_LOCK_RELEASE,
                [SET_CLOSING] = REQUEST_SESSION_CLOSE,
                [SET_READING] = REQUEST_KV,
        };
        struct host *host = &sim->hosts[user->host];
        struct buffer room;
        char owner[24];
        user->invoked_us = sim->now_us;
        if (host->node == NULL) {
                user->host = (uint32_t)sim_below(sim, STREAM_SETS, sim->host_count);
                think(sim, user, 100 * MS);
                return;
        }
        buffer_init(&room, &sim->heap);
        struct request request = {.kind = kinds[user->state]};
        if (request.kind == REQUEST_KV) {
                fill_values(sim, user, &request, &room);
        } else {
                request.lock.key = BYTES("global:");
                request.lock.owner = set_number_text(user->owner, owner);
                request.lock.session = user->state == SET_RELEASING ? 0 : user->session;
                request.lock.ttl_ms = user->ttl_ms;
        }
        if (user->state == SET_ACQUIRING) {
                fill_keys(user, &request, &room);
                memcpy(user->floor, sim->sets->token_max, sizeof user->floor);
        }
        if (user->state == SET_RELEASING) {
                uint32_t key = (uint32_t)__builtin_ctz(user->keys);
                request.lock.key = bytes_of_str(names[key]);
                request.lock.token = user->token;
        }
        if (user->state == SET_READING) {
                const struct set_user *other = &sim->sets->users[user->read];
                user->read_bound = session_believed(sim, other) ? other->bound : 0;
                user->read_told = sim->sets->told_ends;
        }
        CHECK(room.err == ERR_NONE);
        user->request = clients_ask(sim, host, &request);
        buffer_fini(&room);
        sim_at(sim, ANSWER_WAIT_US, EVENT_SETS_TIMEOUT, user->index, 0, user->request);
}

/* ---- turns ---- */

/* What is left of its attempt is nobody's any more: leases end, and the session does. */
static void idle(struct sim *sim, struct set_user *user)
{
        user->state = SET_IDLE;
        user->session = user->bound = user->token = 0;
        user->keys = 0;
        think(sim, user, sim_below(sim, STREAM_SETS, 600 * MS));
}

static void turn_begin(struct sim *sim, struct set_user *user)
{
        if (sim->now_us >= sim->swarm.load_end_us)
                return;
        user->owner = ++sim->sets->owner_last;
        user->host = (uint32_t)sim_below(sim, STREAM_SETS, sim->host_count);
        user->ttl_ms = 300 + sim_below(sim, STREAM_SETS, 2700);
        user->wait_ms = sim_chance(sim, STREAM_SETS, 500) ? sim_below(sim, STREAM_SETS, 2000) : 0;
        user->tries = 0;
        do {
                user->keys = (unsigned)sim_below(sim, STREAM_SETS, 1u << SET_KEYS);
        } while (user->keys == 0);
        uint64_t what = sim_below(sim, STREAM_SETS, 100);
        user->state = what < 20 ? SET_READING : what < 60 ? SET_OPENING : SET_ACQUIRING;
        if (what < 20)
                user->read = (user->index + 1 + (uint32_t)what % (SET_USERS - 1)) % SET_USERS;
        ask(sim, user);
}

static void turn_hold(struct sim *sim, struct set_user *user)
{
        uint64_t what = sim_below(sim, STREAM_SETS, 100);
        if (believes(sim, user))
                note(sim, user, LINEAR_USE, user->keys, sim->now_us, sim->now_us);
        user->tries = 0;
        if (user->session != 0 && what < 40) {
                user->state = SET_KEEPING;
                ask(sim, user);
        } else if (user->session != 0 && what < 65) {
                user->state = SET_CLOSING;
                ask(sim, user);
        } else if (what < 85) {
                user->state = SET_RELEASING;
                ask(sim, user);
        } else {
                idle(sim, user); /* it dies holding */
        }
}

static void users_step(struct sim *sim, struct set_user *user, uint64_t generation)
{
        if (user->generation != generation || user->request != 0)
                return;
        if (user->state == SET_IDLE)
                turn_begin(sim, user);
        else if (user->state == SET_HOLDING)
                turn_hold(sim, user);
        else
                ask(sim, user);
}

/* Again, maybe at another node; who has tried often gives up. */
static void retry(struct sim *sim, struct set_user *user)
{
        if (sim_chance(sim, STREAM_SETS, 300))
                user->host = (uint32_t)sim_below(sim, STREAM_SETS, sim->host_count);
        if (++user->tries > TRIES_MAX)
                idle(sim, user);
        else
                think(sim, user, 20 * MS + sim_below(sim, STREAM_SETS, 300 * MS));
}

/* ---- answers ---- */

static void granted(struct sim *sim, struct set_user *user, uint64_t token)
{
        struct sets *sets = sim->sets;
        bool late = user->session != 0 ? sim->now_us >= user->session_until_us
                                       : sim->now_us >= belief_end(user);
        user->token = token;
        user->until_us = belief_end(user);
        for (uint32_t i = 0; i < SET_USERS; i++) {
                const struct set_user *other = &sets->users[i];
                if (!late && other != user && (other->keys & user->keys) != 0 &&
                    believes(sim, other))
                        sim_violation(sim, "sets: owners %llu and %llu hold %s",
                                      (unsigned long long)other->owner,
                                      (unsigned long long)user->owner,
                                      names[__builtin_ctz(other->keys & user->keys)]);
        }
        for (uint32_t key = 0; key < SET_KEYS; key++) {
                if ((user->keys & 1u << key) == 0)
                        continue;
                if (token < user->floor[key])
                        sim_violation(sim, "sets: %s is granted by token %llu after %llu",
                                      names[key], (unsigned long long)token,
                                      (unsigned long long)user->floor[key]);
                if (token > sets->token_max[key])
                        sets->token_max[key] = token;
                watchers_granted(sim, key, user->owner, token);
        }
        note(sim, user, LINEAR_GRANTED, user->keys, user->invoked_us, sim->now_us);
        if ((user->keys & (user->keys - 1)) != 0)
                sim_cover(sim, sim->now_us > user->invoked_us + SECOND / 2 ? COVER_SET_WAITED
                                                                           : COVER_SET_GRANTED);
        user->state = SET_HOLDING;
        think(sim, user, sim_below(sim, STREAM_SETS, user->ttl_ms * MS));
}

/* A session's end is told: what it held is free, and its key is gone. */
static void session_over(struct sim *sim, struct set_user *user)
{
        if (user->session != 0)
                bound_ended(sim, user->session);
        sim_cover(sim, COVER_SESSION_ENDED);
        idle(sim, user);
}

static void released(struct sim *sim, struct set_user *user, enum reply_code code)
{
        unsigned key = lowest(user->keys);
        note(sim, user, code == REPLY_OK ? LINEAR_RELEASED : LINEAR_NOT_OWNER, key,
             user->invoked_us, sim->now_us);
        user->keys &= ~key;
        if (user->keys == 0 && user->session == 0) {
                idle(sim, user);
                return;
        }
        user->state = user->keys == 0 ? SET_CLOSING : SET_RELEASING;
        think(sim, user, sim_below(sim, STREAM_SETS, 20 * MS));
}

static void read_judge(struct sim *sim, const struct set_user *user, const struct reply *reply)
{
        struct kv_reading reading;
        struct kv_answer_step step;
        struct kv_item item;
        const struct set_user *other = &sim->sets->users[user->read];
        CHECK(kv_result_open(reply->kv.result, &reading) == ERR_NONE);
        bool found = kv_result_step(&reading, &step) && kv_result_item(&reading, &item);
        uint64_t value = found ? number_of(item.value) : 0;
        bool lives = user->read_bound != 0 && session_believed(sim, other) &&
                     other->bound == user->read_bound;
        if (lives)
                sim_cover(sim, COVER_BOUND_READ);
        if (lives && value != other->bound)
                sim_violation(sim, "sets: the key of session %llu is %llu while it lives",
                              (unsigned long long)other->bound, (unsigned long long)value);
        if (value != 0 && bound_told(sim, value, user->read_told))
                sim_violation(sim, "sets: the key of session %llu is there after its end",
                              (unsigned long long)value);
}

static void heard(struct sim *sim, struct set_user *user, const struct reply *reply)
{
        bool ok = reply->code == REPLY_OK;
        switch (user->state) {
        case SET_OPENING:
                if (!ok)
                        break;
                user->session = reply->lock.token;
                bound_opened(sim, user->session, user->owner);
                user->session_until_us = belief_end(user);
                user->state = SET_BINDING;
                think(sim, user, 1);
                return;
        case SET_BINDING:
                if (!ok)
                        break;
                user->bound = user->session;
                user->state = SET_ACQUIRING;
                think(sim, user, 1);
                return;
        case SET_ACQUIRING:
                if (!ok)
                        break;
                granted(sim, user, reply->lock.token);
                return;
        case SET_KEEPING:
                if (!ok)
                        break;
                user->session_until_us = belief_end(user);
                user->state = SET_HOLDING;
                think(sim, user, sim_below(sim, STREAM_SETS, user->ttl_ms * MS / 2));
                return;
        case SET_RELEASING:
                if (!ok && reply->code != REPLY_NOT_OWNER)
                        break;
                released(sim, user, reply->code);
                return;
        case SET_CLOSING:
                if (!ok)
                        break;
                note(sim, user, LINEAR_RELEASED, user->keys, user->invoked_us, sim->now_us);
                session_over(sim, user);
                return;
        case SET_READING:
                if (!ok)
                        break;
                read_judge(sim, user, reply);
                idle(sim, user);
                return;
        case SET_IDLE:
        case SET_HOLDING:
                return;
        }
        if (reply->code == REPLY_BAD_REQUEST)
                sim_violation(sim, "sets: refused: %.*s", BYTES_ARGS(reply->text));
        if (reply->code == REPLY_NO_SESSION) {
                session_over(sim, user);
        } else if (reply->code == REPLY_HELD || reply->code == REPLY_DEADLOCK) {
                idle(sim, user);
        } else {
                note_lost(sim, user);
                retry(sim, user);
        }
}

bool sets_reply(struct sim *sim, uint64_t request, const struct reply *reply)
{
        if (sim->sets == NULL)
                return false;
        if (watchers_reply(sim, request, reply))
                return true;
        for (uint32_t i = 0; i < SET_USERS; i++) {
                struct set_user *user = &sim->sets->users[i];
                if (user->request != request)
                        continue;
                user->request = 0;
                if (!sim->swarm.calm && sim_chance(sim, STREAM_SETS, 50)) {
                        note_lost(sim, user);
                        retry(sim, user);
                } else {
                        heard(sim, user, reply);
                }
                return true;
        }
        return false;
}

void sets_step(struct sim *sim, uint32_t index, uint64_t generation)
{
        if (index >= SET_USERS)
                watcher_step(sim, index - SET_USERS, generation);
        else
                users_step(sim, &sim->sets->users[index], generation);
}

static void given_up(struct sim *sim, struct set_user *user)
{
        user->request = 0;
        note_lost(sim, user);
        retry(sim, user);
}

void sets_timeout(struct sim *sim, uint32_t index, uint64_t request)
{
        if (index >= SET_USERS)
                watcher_timeout(sim, index - SET_USERS, request);
        else if (sim->sets->users[index].request == request)
                given_up(sim, &sim->sets->users[index]);
}

void sets_host_down(struct sim *sim, const struct host *host)
{
        if (sim->sets == NULL)
                return;
        watchers_host_down(sim, host);
        for (uint32_t i = 0; i < SET_USERS; i++)
                if (sim->sets->users[i].request != 0 && sim->sets->users[i].host == host->index)
                        given_up(sim, &sim->sets->users[i]);
}

void sets_check(struct sim *sim)
{
        struct sets *sets = sim->sets;
        if (sets == NULL)
                return;
        watchers_check(sim);
        for (uint32_t i = 0; i < sim->host_count; i++)
                if (host_in(sim, &sim->hosts[i]))
                        bound_check(sim, &sim->hosts[i]);
        struct linear_report report = linear_check(&sim->heap, LINEAR_LOCKS, sets->history,
                                                   sets->history_count, SET_KEYS);
        if (report.verdict != LINEAR_BAD)
                return;
        const struct linear_op *op = &sets->history[report.op];
        sim_violation(sim,
                      "sets: %s has no order in which owner %llu has answer %d at %llu us (token "
                      "%llu)",
                      names[op->lock.key], (unsigned long long)op->lock.owner - 1, (int)op->lock.op,
                      (unsigned long long)op->returned, (unsigned long long)op->lock.token);
}
