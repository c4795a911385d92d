/* Modes, sessions, delays and deadlocks: random commands beside a model that is one plain list of
 * claims, and the old form of snapshots. */
#include "lock/lock.h"

#include "base/rng.h"

#include "../cmocka_all.h"
#include "reload.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        KEYS = 4,
        OWNERS = 6,
        CLAIMS = KEYS * OWNERS,
        SESSIONS = 64,
        STEPS = 500,
};

struct claim {
        bool used;
        bool held;
        unsigned key;
        unsigned owner;
        uint32_t slots;
        uint64_t number; /* token, or place in the queue */
        uint64_t until;
        uint64_t ttl;
        uint64_t delay;
        uint64_t session;
};

struct session {
        uint64_t id; /* 0: none */
        unsigned owner;
        uint64_t until;
        uint64_t ttl;
};

struct model {
        uint64_t now;
        uint64_t index;
        uint64_t last_token;
        uint64_t last_waiter;
        struct claim claims[CLAIMS];
        struct session sessions[SESSIONS];
        uint64_t delayed[KEYS]; /* until; 0: not */
        uint64_t newest[KEYS];
        unsigned touched[CLAIMS];
        size_t touched_count;
};

static void touch(struct model *model, unsigned key)
{
        for (size_t i = 0; i < model->touched_count; i++)
                if (model->touched[i] == key)
                        return;
        model->touched[model->touched_count++] = key;
}

static uint64_t token_next(struct model *model)
{
        model->last_token =
                model->last_token + 1 > model->index ? model->last_token + 1 : model->index;
        return model->last_token;
}

static struct claim *claim_of(struct model *model, unsigned key, unsigned owner)
{
        for (size_t i = 0; i < CLAIMS; i++) {
                struct claim *claim = &model->claims[i];
                if (claim->used && claim->key == key && claim->owner == owner)
                        return claim;
        }
        return NULL;
}

static struct session *session_of(struct model *model, uint64_t id)
{
        for (size_t i = 0; i < SESSIONS; i++)
                if (model->sessions[i].id != 0 && model->sessions[i].id == id)
                        return &model->sessions[i];
        return NULL;
}

static size_t count(const struct model *model, unsigned key, bool held)
{
        size_t found = 0;
        for (size_t i = 0; i < CLAIMS; i++)
                found += model->claims[i].used && model->claims[i].key == key &&
                         model->claims[i].held == held;
        return found;
}

/* The claim of a key with the smallest or largest number. */
static struct claim *extreme(struct model *model, unsigned key, bool held, bool largest)
{
        struct claim *best = NULL;
        for (size_t i = 0; i < CLAIMS; i++) {
                struct claim *claim = &model->claims[i];
                if (claim->used && claim->key == key && claim->held == held &&
                    (best == NULL || (claim->number > best->number) == largest))
                        best = claim;
        }
        return best;
}

static bool room(struct model *model, unsigned key, uint32_t slots)
{
        if (model->delayed[key] != 0)
                return false;
        const struct claim *holder = extreme(model, key, true, true);
        return holder == NULL ||
               (holder->slots == slots && count(model, key, true) < (size_t)slots);
}

static void grant(struct model *model, struct claim *claim)
{
        claim->held = true;
        claim->number = token_next(model);
        claim->until = model->now + claim->ttl;
        model->newest[claim->key] = claim->number;
}

static void serve(struct model *model)
{
        for (size_t i = 0; i < model->touched_count; i++) {
                struct claim *head;
                while ((head = extreme(model, model->touched[i], false, false)) != NULL &&
                       room(model, head->key, head->slots))
                        grant(model, head);
        }
        model->touched_count = 0;
}

static void hold_end(struct model *model, struct claim *claim, bool expired)
{
        touch(model, claim->key);
        uint64_t until = model->now + claim->delay;
        if (expired && claim->delay > 0 && until > model->delayed[claim->key])
                model->delayed[claim->key] = until;
        claim->used = false;
}

/* All of a session, by number: holders first. */
static void session_end(struct model *model, struct session *session, bool expired)
{
        for (int held = 1; held >= 0; held--) {
                for (;;) {
                        struct claim *first = NULL;
                        for (size_t i = 0; i < CLAIMS; i++) {
                                struct claim *claim = &model->claims[i];
                                if (claim->used && claim->held == (held != 0) &&
                                    claim->session == session->id &&
                                    (first == NULL || claim->number < first->number))
                                        first = claim;
                        }
                        if (first == NULL)
                                break;
                        hold_end(model, first, expired && held != 0);
                }
        }
        session->id = 0;
}

static bool wait_out(struct model *model)
{
        struct claim *first = NULL;
        for (size_t i = 0; i < CLAIMS; i++) {
                struct claim *claim = &model->claims[i];
                if (claim->used && !claim->held && claim->until <= model->now &&
                    (first == NULL || claim->until < first->until ||
                     (claim->until == first->until && claim->number < first->number)))
                        first = claim;
        }
        if (first != NULL)
                hold_end(model, first, false);
        return first != NULL;
}

static bool before(uint64_t until, uint64_t number, uint64_t best, uint64_t best_number)
{
        return until < best || (until == best && number < best_number);
}

static bool lease_out(struct model *model)
{
        uint64_t best = model->now + 1;
        uint64_t number = 0;
        struct claim *claim = NULL;
        struct session *session = NULL;
        unsigned key = KEYS;
        for (size_t i = 0; i < CLAIMS; i++) {
                struct claim *c = &model->claims[i];
                if (!c->used || !c->held || c->session != 0 ||
                    !before(c->until, c->number, best, number))
                        continue;
                claim = c;
                best = c->until;
                number = c->number;
        }
        for (size_t i = 0; i < SESSIONS; i++) {
                struct session *s = &model->sessions[i];
                if (s->id == 0 || !before(s->until, s->id, best, number))
                        continue;
                session = s;
                claim = NULL;
                best = s->until;
                number = s->id;
        }
        for (unsigned k = 0; k < KEYS; k++) {
                if (model->delayed[k] == 0 ||
                    !before(model->delayed[k], model->newest[k], best, number))
                        continue;
                key = k;
                best = model->delayed[k];
                number = model->newest[k];
        }
        if (key != KEYS) {
                touch(model, key);
                model->delayed[key] = 0;
        } else if (claim != NULL) {
                hold_end(model, claim, true);
        } else if (session != NULL) {
                session_end(model, session, true);
        } else {
                return false;
        }
        return true;
}

static void advance(struct model *model, uint64_t now)
{
        if (now <= model->now)
                return;
        model->now = now;
        while (wait_out(model))
                continue;
        serve(model);
        while (lease_out(model))
                continue;
        serve(model);
}

/* Does one who asks for `slots` behind all numbers below `number` wait for that claim? */
static bool waits_for(const struct claim *other, uint32_t slots, uint64_t number)
{
        bool one = slots == 1 || slots == LOCK_SHARED;
        bool together = slots == LOCK_SHARED && other->slots == LOCK_SHARED;
        return one && !together && (other->held || other->number < number);
}

static bool deadlock(const struct model *model, unsigned key, unsigned owner, uint32_t slots)
{
        bool reached[OWNERS] = {false};
        for (size_t i = 0; i < CLAIMS; i++) {
                const struct claim *other = &model->claims[i];
                if (other->used && other->key == key && waits_for(other, slots, UINT64_MAX))
                        reached[other->owner] = true;
        }
        for (unsigned round = 0; round < OWNERS; round++) {
                for (size_t i = 0; i < (size_t)CLAIMS * CLAIMS; i++) {
                        const struct claim *from = &model->claims[i / CLAIMS];
                        const struct claim *to = &model->claims[i % CLAIMS];
                        if (from->used && !from->held && reached[from->owner] && to->used &&
                            to->key == from->key && to->owner != from->owner &&
                            waits_for(to, from->slots, from->number))
                                reached[to->owner] = true;
                }
        }
        return reached[owner];
}

static void fill(struct model *model, struct claim *claim, const struct lock_command *command)
{
        claim->slots = command->slots == 0 ? 1 : command->slots;
        claim->ttl = command->ttl_ms;
        claim->delay = command->delay_ms;
        claim->session = command->session;
        claim->until = model->now + command->ttl_ms;
}

static struct claim *claim_new(struct model *model, unsigned key, unsigned owner)
{
        struct claim *claim = model->claims;
        while (claim->used)
                claim++;
        *claim = (struct claim){.used = true, .key = key, .owner = owner};
        return claim;
}

static enum lock_result_kind acquire_held(struct model *model, struct claim *claim,
                                          const struct lock_command *command)
{
        uint32_t slots = command->slots == 0 ? 1 : command->slots;
        bool other = slots != claim->slots;
        if ((command->flags & LOCK_FRESH) != 0)
                return LOCK_HELD;
        if (other && (count(model, claim->key, true) > 1 || model->delayed[claim->key] != 0))
                return LOCK_HELD;
        fill(model, claim, command);
        if (other) {
                grant(model, claim);
                touch(model, claim->key);
        }
        return LOCK_GRANTED;
}

static enum lock_result_kind acquire(struct model *model, unsigned key, unsigned owner,
                                     const struct lock_command *command)
{
        uint32_t slots = command->slots == 0 ? 1 : command->slots;
        const struct session *session = session_of(model, command->session);
        if (command->session != 0 && (session == NULL || session->owner != owner))
                return LOCK_NO_SESSION;
        struct claim *claim = claim_of(model, key, owner);
        if (claim != NULL && claim->held)
                return acquire_held(model, claim, command);
        if (claim != NULL && command->wait_ms > 0 && claim->slots == slots &&
            claim->session == command->session) {
                fill(model, claim, command);
                claim->until = model->now + command->wait_ms;
                return LOCK_QUEUED;
        }
        if (claim != NULL) {
                hold_end(model, claim, false);
                serve(model);
        }
        if (count(model, key, false) == 0 && room(model, key, slots)) {
                claim = claim_new(model, key, owner);
                fill(model, claim, command);
                grant(model, claim);
                return LOCK_GRANTED;
        }
        if (command->wait_ms == 0)
                return LOCK_HELD;
        if ((command->flags & LOCK_DETECT) != 0 && deadlock(model, key, owner, slots))
                return LOCK_DEADLOCK;
        claim = claim_new(model, key, owner);
        fill(model, claim, command);
        claim->number = ++model->last_waiter;
        claim->until = model->now + command->wait_ms;
        return LOCK_QUEUED;
}

static struct claim *owned(struct model *model, unsigned key, unsigned owner,
                           const struct lock_command *command)
{
        struct claim *claim = claim_of(model, key, owner);
        if (claim == NULL || !claim->held ||
            (claim->number != command->token.value && (command->flags & LOCK_BY_OWNER) == 0))
                return NULL;
        return claim;
}

static enum lock_result_kind renew(struct model *model, struct claim *claim,
                                   const struct lock_command *command)
{
        if (claim == NULL)
                return LOCK_NOT_OWNER;
        uint64_t base = (command->flags & LOCK_ADD_TTL) != 0 ? claim->until : model->now;
        if (claim->session == 0)
                claim->until = base + command->ttl_ms;
        return LOCK_RENEWED;
}

static enum lock_result_kind take(struct model *model, unsigned key, bool seize)
{
        struct claim *claim = extreme(model, key, true, false);
        if (claim == NULL && model->delayed[key] == 0)
                return LOCK_FREE;
        if (seize)
                (void)token_next(model);
        touch(model, key);
        model->delayed[key] = 0;
        for (; claim != NULL; claim = extreme(model, key, true, false))
                hold_end(model, claim, false);
        return LOCK_BROKEN;
}

static enum lock_result_kind look(struct model *model, unsigned key, uint64_t token)
{
        for (size_t i = 0; i < CLAIMS; i++) {
                const struct claim *claim = &model->claims[i];
                if (claim->used && claim->held && claim->key == key &&
                    (token == 0 || claim->number == token))
                        return LOCK_SEEN;
        }
        return token == 0 ? LOCK_FREE : LOCK_NOT_OWNER;
}

static enum lock_result_kind session_open(struct model *model, unsigned owner, uint64_t ttl)
{
        struct session *session = model->sessions;
        while (session->id != 0)
                session++;
        *session = (struct session){token_next(model), owner, model->now + ttl, ttl};
        return LOCK_OPENED;
}

static enum lock_result_kind session_other(struct model *model, unsigned owner,
                                           const struct lock_command *command)
{
        struct session *session = session_of(model, command->session);
        if (session == NULL || session->owner != owner)
                return LOCK_NO_SESSION;
        if (command->op == LOCK_SESSION_KEEP) {
                session->until = model->now + session->ttl;
                return LOCK_KEPT;
        }
        session_end(model, session, false);
        return LOCK_CLOSED;
}

static enum lock_result_kind operate(struct model *model, unsigned key, unsigned owner,
                                     const struct lock_command *command)
{
        struct claim *claim = owned(model, key, owner, command);
        switch (command->op) {
        case LOCK_ACQUIRE:
                return acquire(model, key, owner, command);
        case LOCK_RENEW:
                return renew(model, claim, command);
        case LOCK_RELEASE:
                if (claim != NULL)
                        hold_end(model, claim, false);
                return claim != NULL ? LOCK_RELEASED : LOCK_NOT_OWNER;
        case LOCK_BREAK:
        case LOCK_SEIZE:
                return take(model, key, command->op == LOCK_SEIZE);
        case LOCK_LOOK:
                return look(model, key, command->token.value);
        case LOCK_SESSION_OPEN:
                return session_open(model, owner, command->ttl_ms);
        case LOCK_SESSION_KEEP:
        case LOCK_SESSION_CLOSE:
                return session_other(model, owner, command);
        case LOCK_TIME:
        case LOCK_CANCEL:
        case LOCK_ACQUIRE_ALL:
        case LOCK_OP_COUNT:
                break;
        }
        return LOCK_FREE;
}

static void compare(struct model *model, const struct lock_table *table, uint64_t seed,
                    uint64_t step)
{
        assert_int_equal(lock_table_last_token(table).value, model->last_token);
        for (unsigned k = 0; k < KEYS; k++) {
                char key[8];
                char owner[8];
                const struct claim *newest = extreme(model, k, true, true);
                struct lock_info info;
                snprintf(key, sizeof key, "k%u", k);
                bool held = lock_find(table, bytes_of_str(key), &info);
                if (held != (newest != NULL))
                        fail_msg("seed %llu, %llu: %s held %d", (unsigned long long)seed,
                                 (unsigned long long)step, key, held);
                if (newest == NULL)
                        continue;
                struct session *session = session_of(model, newest->session);
                uint64_t until = session != NULL ? session->until : newest->until;
                snprintf(owner, sizeof owner, "o%u", newest->owner);
                if (info.token.value != newest->number || info.slots != newest->slots ||
                    info.waiters != count(model, k, false) ||
                    info.holders != count(model, k, true) || info.ttl_ms != until - model->now ||
                    !bytes_equal(info.owner, bytes_of_str(owner)))
                        fail_msg("seed %llu, %llu: %s differs", (unsigned long long)seed,
                                 (unsigned long long)step, key);
        }
}

static uint64_t any_session(struct rng *rng, const struct model *model)
{
        for (int tries = 0; tries < 8; tries++) {
                uint64_t id = model->sessions[rng_below(rng, 8)].id;
                if (id != 0)
                        return id;
        }
        return 1 + rng_below(rng, 5);
}

static struct lock_command choose(struct rng *rng, struct model *model, unsigned key,
                                  unsigned owner)
{
        static const enum lock_op ops[] = {
                LOCK_ACQUIRE,      LOCK_ACQUIRE, LOCK_ACQUIRE, LOCK_ACQUIRE,      LOCK_ACQUIRE,
                LOCK_ACQUIRE,      LOCK_RELEASE, LOCK_RELEASE, LOCK_RENEW,        LOCK_SESSION_OPEN,
                LOCK_SESSION_KEEP, LOCK_LOOK,    LOCK_SEIZE,   LOCK_SESSION_CLOSE};
        static const uint32_t slots[] = {0, 1, 1, 2, 3, LOCK_SHARED, LOCK_SHARED, LOCK_SHARED};
        const struct claim *claim = claim_of(model, key, owner);
        struct lock_command command = {
                .op = ops[rng_below(rng, rng_chance(rng, 100) ? 14 : 12)],
                .now_ms = model->now + rng_below(rng, 12),
                .ttl_ms = 1 + rng_below(rng, 60),
                .token.value = claim == NULL ? rng_below(rng, 3) : claim->number,
                .slots = slots[rng_below(rng, 8)],
                .flags = (uint32_t)rng_below(rng, LOCK_DETECT_SLOTS) | LOCK_DETECT,
        };
        if (rng_chance(rng, 700))
                command.flags &= ~(uint32_t)LOCK_FRESH;
        if (rng_chance(rng, 700))
                command.wait_ms = 1 + rng_below(rng, 80);
        if (rng_chance(rng, 200))
                command.delay_ms = 1 + rng_below(rng, 30);
        if (command.op >= LOCK_SESSION_KEEP || rng_chance(rng, 300))
                command.session = any_session(rng, model);
        return command;
}

/* Ids of sessions and names of owners agree mostly, or nothing much would happen. */
static unsigned owner_fit(struct model *model, const struct lock_command *command, unsigned owner)
{
        const struct session *session = session_of(model, command->session);
        return session != NULL && command->session % 5 != 0 ? session->owner : owner;
}

struct tally {
        uint64_t deadlocks;
        uint64_t granted;
        uint64_t delayed;
        uint64_t sessions_ended;
};

static void step(struct rng *rng, struct model *model, struct lock_table *table, uint64_t seed,
                 uint64_t number, struct tally *tally)
{
        unsigned key = (unsigned)rng_below(rng, KEYS);
        unsigned owner = (unsigned)rng_below(rng, OWNERS);
        struct lock_command command = choose(rng, model, key, owner);
        owner = owner_fit(model, &command, owner);
        char names[2][8];
        snprintf(names[0], sizeof names[0], "k%u", key);
        snprintf(names[1], sizeof names[1], "o%u", owner);
        command.key = bytes_of_str(names[0]);
        command.owner = bytes_of_str(names[1]);
        command.origin = (struct lock_origin){1, 1, number};
        if (command.op == LOCK_SESSION_OPEN)
                command.session = 0;
        size_t result_count = 0;
        bool fatal = false;
        model->index = number / 3;
        const struct lock_result *results =
                lock_apply(table, model->index, &command, &result_count, &fatal);
        advance(model, command.now_ms);
        enum lock_result_kind kind = operate(model, key, owner, &command);
        serve(model);
        assert_false(fatal);
        size_t answers = 0;
        for (size_t i = 0; i < result_count; i++) {
                tally->granted +=
                        results[i].kind == LOCK_GRANTED && results[i].origin.sequence != number;
                tally->sessions_ended += results[i].kind == LOCK_NO_SESSION;
                if (results[i].origin.sequence == number && answers++ == 0 &&
                    results[i].kind != kind)
                        fail_msg("seed %llu, %llu: op %u %s, not %s", (unsigned long long)seed,
                                 (unsigned long long)number, command.op,
                                 lock_result_name(results[i].kind), lock_result_name(kind));
        }
        assert_int_equal(answers, 1);
        tally->deadlocks += kind == LOCK_DEADLOCK;
        for (unsigned k = 0; k < KEYS; k++)
                tally->delayed += model->delayed[k] != 0;
}

static void test_model(void **state)
{
        (void)state;
        const char *only = getenv("SEED");
        uint64_t first = only != NULL ? strtoull(only, NULL, 0) : 1;
        struct tally tally = {0};
        for (uint64_t seed = first; seed < first + (only != NULL ? 1 : 200); seed++) {
                struct rng rng;
                struct model model = {0};
                struct lock_table *table = NULL;
                rng_init(&rng, seed, 0);
                assert_int_equal(lock_table_new(&heap, seed, &table), ERR_NONE);
                for (uint64_t number = 1; number <= STEPS; number++) {
                        step(&rng, &model, table, seed, number, &tally);
                        compare(&model, table, seed, number);
                        lock_table_check(table);
                        if (rng_chance(&rng, 50))
                                lock_reload(&table, seed);
                }
                lock_table_free(table);
        }
        /* The histories reach what they are about. */
        print_message("%llu deadlocks, %llu waits granted, %llu delays, %llu sessions ended\n",
                      (unsigned long long)tally.deadlocks, (unsigned long long)tally.granted,
                      (unsigned long long)tally.delayed, (unsigned long long)tally.sessions_ended);
        assert_true(only != NULL || (tally.deadlocks > 10 && tally.delayed > 100 &&
                                     tally.granted > 100 && tally.sessions_ended > 100));
}

/* ---- rules one by one ---- */

struct row {
        struct lock_command command;
        const char *results; /* kind and token of each */
};

static void run(const char *why, const struct row *rows, size_t row_count)
{
        struct lock_table *table = NULL;
        struct buffer said;
        buffer_init(&said, &heap);
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        for (size_t i = 0; i < row_count; i++) {
                struct lock_command command = rows[i].command;
                size_t result_count = 0;
                bool fatal = false;
                command.origin = (struct lock_origin){1, 1, i + 1};
                if (command.ttl_ms == 0)
                        command.ttl_ms = 100;
                const struct lock_result *results =
                        lock_apply(table, i + 1, &command, &result_count, &fatal);
                buffer_reset(&said);
                for (size_t r = 0; r < result_count; r++)
                        buffer_format(&said, "%s %llu;", lock_result_name(results[r].kind),
                                      (unsigned long long)results[r].token.value);
                if (!bytes_equal(buffer_view(&said), bytes_of_str(rows[i].results)))
                        fail_msg("%s, row %zu: \"%.*s\", not \"%s\"", why, i + 1,
                                 BYTES_ARGS(buffer_view(&said)), rows[i].results);
                lock_table_check(table);
                lock_reload(&table, i);
        }
        lock_table_free(table);
        buffer_fini(&said);
}

#define ASK(at, name, who, ...)                                                                    \
        .command = {.op = LOCK_ACQUIRE,                                                            \
                    .now_ms = (at),                                                                \
                    .key = BYTES_INIT(name),                                                       \
                    .owner = BYTES_INIT(who),                                                      \
                    __VA_ARGS__}
#define DO(what, at, name, who, ...)                                                               \
        .command = {.op = (what),                                                                  \
                    .now_ms = (at),                                                                \
                    .key = BYTES_INIT(name),                                                       \
                    .owner = BYTES_INIT(who),                                                      \
                    __VA_ARGS__}

static void test_readers(void **state)
{
        (void)state;
        static const struct row rows[] = {
                {ASK(0, "k", "r1", .slots = LOCK_SHARED), "granted 1;"},
                {ASK(0, "k", "r2", .slots = LOCK_SHARED), "granted 2;"},
                {ASK(0, "k", "w", .wait_ms = 50), "queued 2;"},
                /* A reader behind a waiting writer waits, or is refused. */
                {ASK(0, "k", "r3", .slots = LOCK_SHARED), "held 2;"},
                {ASK(0, "k", "r3", .slots = LOCK_SHARED, .wait_ms = 90), "queued 2;"},
                {ASK(0, "k", "r4", .slots = LOCK_SHARED, .wait_ms = 90), "queued 2;"},
                /* The writer gives up: all readers behind it are in. */
                {DO(LOCK_TIME, 50, "", "", .wait_ms = 0), "timed out 0;granted 7;granted 8;"},
                /* One of several may not become a writer; the only one may. */
                {ASK(51, "k", "r4", .wait_ms = 0), "held 8;"},
                {DO(LOCK_TIME, 100, "", "", .wait_ms = 0), "expired 1;expired 2;"},
                {DO(LOCK_RELEASE, 101, "k", "r3", .token = {7}), "released 7;"},
                {ASK(102, "k", "r4", .wait_ms = 0), "granted 11;"},
                {ASK(102, "k", "r5", .slots = LOCK_SHARED, .wait_ms = 50), "queued 11;"},
                /* And back: who waits to read comes in. */
                {ASK(103, "k", "r4", .slots = LOCK_SHARED), "granted 13;granted 14;"},
        };
        run("readers", rows, COUNT_OF(rows));
}

static void test_semaphore(void **state)
{
        (void)state;
        static const struct row rows[] = {
                {ASK(0, "k", "a", .slots = 2), "granted 1;"},
                {ASK(0, "k", "b", .slots = 2), "granted 2;"},
                {ASK(0, "k", "c", .slots = 2), "held 2;"},
                {ASK(0, "k", "c", .slots = 2, .wait_ms = 50), "queued 2;"},
                {ASK(0, "k", "d", .slots = 3), "held 2;"},
                {DO(LOCK_RELEASE, 1, "k", "a", .token = {1}), "released 1;granted 6;"},
                {ASK(0, "k", "a", .slots = LOCK_SLOTS_MAX + 1), "invalid 0;"},
                {ASK(0, "k", "a", .flags = LOCK_FLAGS + 1), "invalid 0;"},
                {ASK(0, "k", "a", .delay_ms = LOCK_DELAY_MS_MAX + 1), "invalid 0;"},
                {ASK(2, "k", "b", .slots = 2, .flags = LOCK_FRESH), "held 2;"},
                {ASK(2, "k", "b", .slots = 2), "granted 2;"},
                {DO(LOCK_LOOK, 2, "k", "", .wait_ms = 0), "seen 6;"},
                {DO(LOCK_LOOK, 2, "k", "", .token = {2}), "seen 2;"},
                {DO(LOCK_LOOK, 2, "k", "", .token = {1}), "not owner 0;"},
                {DO(LOCK_SEIZE, 3, "k", "", .wait_ms = 0), "broken 15;broken 2;broken 6;"},
                {DO(LOCK_LOOK, 3, "k", "", .wait_ms = 0), "free 0;"},
                {ASK(3, "k", "e", .wait_ms = 0), "granted 17;"},
        };
        run("semaphore", rows, COUNT_OF(rows));
}

static void test_delay(void **state)
{
        (void)state;
        static const struct row rows[] = {
                {ASK(0, "k", "a", .delay_ms = 30), "granted 1;"},
                {DO(LOCK_RELEASE, 1, "k", "a", .token = {1}), "released 1;"},
                {ASK(1, "k", "a", .delay_ms = 30), "granted 3;"},
                {ASK(101, "k", "b", .wait_ms = 0), "expired 3;held 3;"},
                {ASK(101, "k", "a", .wait_ms = 0), "held 3;"},
                {ASK(130, "k", "b", .wait_ms = 50), "queued 3;"},
                {DO(LOCK_TIME, 131, "", "", .wait_ms = 0), "granted 7;"},
                {ASK(131, "k", "b", .wait_ms = 0), "granted 7;"},
                /* The last word counts: no delay now. */
                {ASK(231, "k", "c", .wait_ms = 0), "expired 7;granted 9;"},
                {ASK(231, "k", "c", .delay_ms = LOCK_DELAY_MS_MAX), "granted 9;"},
                {DO(LOCK_TIME, 331, "", "", .wait_ms = 0), "expired 9;"},
                {DO(LOCK_SEIZE, 331, "k", "", .wait_ms = 0), "broken 12;"},
                {ASK(331, "k", "b", .wait_ms = 0), "granted 13;"},
        };
        run("delay", rows, COUNT_OF(rows));
}

static void test_sessions(void **state)
{
        (void)state;
        static const struct row rows[] = {
                {DO(LOCK_SESSION_OPEN, 0, "", "a", .ttl_ms = 50), "opened 1;"},
                {ASK(0, "k", "a", .session = 1), "granted 2;"},
                {ASK(0, "l", "a", .session = 1, .delay_ms = 5), "granted 3;"},
                {ASK(0, "k", "b", .wait_ms = 500), "queued 2;"},
                {ASK(0, "m", "b", .session = 1), "no session 0;"},
                {ASK(0, "m", "b", .wait_ms = 0), "granted 6;"},
                {ASK(0, "m", "a", .session = 1, .wait_ms = 500), "queued 6;"},
                {DO(LOCK_SESSION_KEEP, 49, "", "b", .session = 1), "no session 0;"},
                {DO(LOCK_SESSION_KEEP, 49, "", "a", .session = 1), "kept 1;"},
                {DO(LOCK_RENEW, 50, "k", "a", .token = {2}, .ttl_ms = 5000), "renewed 2;"},
                {DO(LOCK_TIME, 98, "", "", .wait_ms = 0), ""},
                {DO(LOCK_SESSION_KEEP, 99, "", "a", .session = 1),
                 "expired 2;expired 3;no session 0;granted 12;no session 0;"},
                {ASK(99, "l", "b", .wait_ms = 0), "held 3;"},
                {DO(LOCK_SESSION_OPEN, 104, "", "b", .wait_ms = 0), "expired 6;opened 14;"},
                /* A lock may go over to a session, and dies with it. */
                {ASK(104, "k", "b", .session = 14), "granted 12;"},
                {DO(LOCK_SESSION_CLOSE, 105, "", "b", .session = 14), "closed 14;released 12;"},
                {DO(LOCK_LOOK, 105, "k", "", .wait_ms = 0), "free 0;"},
        };
        run("sessions", rows, COUNT_OF(rows));
}

static void test_deadlocks(void **state)
{
        (void)state;
        static const struct row rows[] = {
                {ASK(0, "x", "a", .wait_ms = 0), "granted 1;"},
                {ASK(0, "y", "b", .wait_ms = 0), "granted 2;"},
                {ASK(0, "z", "c", .slots = LOCK_SHARED), "granted 3;"},
                {ASK(0, "y", "a", .wait_ms = 50, .flags = LOCK_DETECT), "queued 2;"},
                {ASK(0, "z", "b", .wait_ms = 50, .flags = LOCK_DETECT), "queued 3;"},
                {ASK(0, "x", "c", .wait_ms = 50, .flags = LOCK_DETECT), "deadlock 0;"},
                {ASK(0, "x", "d", .wait_ms = 50, .flags = LOCK_DETECT), "queued 1;"},
                /* Not asked for: a time-out will end it. */
                {ASK(0, "x", "c", .wait_ms = 50), "queued 1;"},
        };
        run("deadlocks", rows, COUNT_OF(rows));
}

/* Acquires and releases of one owner, in turn: `count` of them from number `first` on. */
static void take_turns(struct lock_table *table, uint64_t index, const char *key, uint64_t count)
{
        for (uint64_t i = 0; i < count; i++) {
                struct lock_command command = {.op = i % 2 == 0 ? LOCK_ACQUIRE : LOCK_RELEASE,
                                               .key = bytes_of_str(key),
                                               .owner = BYTES("o"),
                                               .ttl_ms = 1000,
                                               .flags = LOCK_BY_OWNER,
                                               .origin = {1, 1, i + 1}};
                size_t result_count;
                bool fatal;
                (void)lock_apply(table, index, &command, &result_count, &fatal);
        }
}

/* Every change of a lock once, in order, from anywhere; or it is said that some are gone. */
static void test_events(void **state)
{
        (void)state;
        struct lock_table *table = NULL;
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        for (uint64_t i = 1; i <= 600; i++) {
                take_turns(table, i, "a", 2);
                take_turns(table, i, "b", 2);
        }
        struct lock_event event;
        struct lock_watch watch = {.key = BYTES("a")};
        size_t found = 0;
        for (; lock_event_next(table, &watch, &event); found++) {
                assert_true(event.id > watch.after);
                assert_int_equal(event.kind, found % 2 == 0 ? LOCK_GRANTED : LOCK_RELEASED);
                watch.after = event.id;
        }
        assert_int_equal(found, 1200);
        assert_false(lock_events_forgotten(table, 0));
        take_turns(table, 1000, "c", LOCK_EVENTS_MAX / 2);
        take_turns(table, 1001, "c", LOCK_EVENTS_MAX / 2);
        assert_true(lock_events_forgotten(table, watch.after - 1));
        assert_false(lock_events_forgotten(table, lock_event_last(table)));
        /* More than an entry has numbers for: none of them is told. */
        uint64_t before = lock_event_last(table);
        take_turns(table, 2000, "c", 70000);
        assert_true(lock_events_forgotten(table, before));
        watch = (struct lock_watch){.key = BYTES("c"), .after = lock_event_last(table)};
        take_turns(table, 2001, "c", 1);
        assert_true(lock_event_next(table, &watch, &event));
        lock_events_begin(table, 9000);
        assert_true(lock_events_forgotten(table, lock_event_last(table) - 1));
        assert_false(lock_events_forgotten(table, lock_event_last(table)));
        watch.after = lock_event_last(table);
        assert_false(lock_event_next(table, &watch, &event));
        lock_table_free(table);
}

/* What a watch is told, as text: changes of locks that begin with `a`. */
static void told(const struct lock_table *table, uint64_t *after, struct buffer *out)
{
        struct lock_watch watch = {.key = BYTES("a"), .prefix = true, .after = *after};
        struct lock_changes changes;
        struct lock_event event;
        struct buffer data;
        buffer_init(&data, &heap);
        lock_changes_encode(table, &watch, &changes, &data);
        *after = changes.last;
        struct cursor cursor = cursor_of(buffer_view(&data));
        buffer_reset(out);
        while (lock_change_decode(&cursor, &event))
                buffer_format(out, "%s %.*s %.*s;", lock_result_name(event.kind),
                              BYTES_ARGS(event.key), BYTES_ARGS(event.owner));
        assert_int_equal(cursor_done(&cursor), ERR_NONE);
        buffer_fini(&data);
}

/* All that happens to locks with a prefix is told: who waits, who gives up, whose lease ends. */
static void test_watch(void **state)
{
        static const struct {
                struct lock_command command;
                const char *told;
        } rows[] = {
                {{.op = LOCK_ACQUIRE,
                  .key = BYTES_INIT("a1"),
                  .owner = BYTES_INIT("x"),
                  .ttl_ms = 100},
                 "granted a1 x;"},
                {{.op = LOCK_ACQUIRE,
                  .key = BYTES_INIT("b"),
                  .owner = BYTES_INIT("x"),
                  .ttl_ms = 100},
                 ""},
                {{.op = LOCK_ACQUIRE,
                  .key = BYTES_INIT("a1"),
                  .owner = BYTES_INIT("y"),
                  .ttl_ms = 500,
                  .wait_ms = 200},
                 "queued a1 y;"},
                {{.op = LOCK_ACQUIRE,
                  .key = BYTES_INIT("a1"),
                  .owner = BYTES_INIT("z"),
                  .ttl_ms = 100,
                  .wait_ms = 50},
                 "queued a1 z;"},
                {{.op = LOCK_TIME, .now_ms = 60}, "cancelled a1 z;"},
                {{.op = LOCK_TIME, .now_ms = 100}, "expired a1 x;granted a1 y;"},
                {{.op = LOCK_SEIZE, .key = BYTES_INIT("a1")}, "broken a1 y;"},
        };
        struct lock_table *table = NULL;
        struct buffer out;
        uint64_t after = 0;
        (void)state;
        buffer_init(&out, &heap);
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                size_t count;
                bool fatal;
                (void)lock_apply(table, i + 1, &rows[i].command, &count, &fatal);
                told(table, &after, &out);
                buffer_u8(&out, 0);
                assert_string_equal((const char *)out.ptr, rows[i].told);
        }
        /* An answer has its limit, and the next goes on behind it. */
        take_turns(table, 50, "a2", 2 * LOCK_CHANGES_MAX);
        struct lock_watch watch = {.key = BYTES("a"), .prefix = true, .after = after};
        struct lock_changes changes;
        size_t rounds = 0;
        for (bool more = true; more; rounds++) {
                buffer_reset(&out);
                lock_changes_encode(table, &watch, &changes, &out);
                assert_int_equal(changes.count, LOCK_CHANGES_MAX);
                watch.after = changes.last;
                more = changes.more;
        }
        assert_int_equal(rounds, 2);
        for (size_t len = 0; len < 40; len++) { /* broken off anywhere: no end, no crash */
                struct cursor cursor = cursor_of(bytes_of(out.ptr, len));
                struct lock_event event;
                while (lock_change_decode(&cursor, &event))
                        continue;
        }
        buffer_fini(&out);
        lock_table_free(table);
}

/* A table written before there were modes: time 5, last token 9, last waiter 3, one lock. */
static void test_old_snapshot(void **state)
{
        (void)state;
        static const uint8_t old[] = {1,   5, 9, 3,   1, 1,  'k', 1, 'a', 9,
                                      105, 1, 1, 'b', 3, 55, 70,  1, 2,   4};
        struct lock_table *table = NULL;
        struct lock_info info;
        assert_int_equal(lock_table_new(&heap, 1, &table), ERR_NONE);
        assert_int_equal(lock_table_decode(table, bytes_of(old, sizeof old)), ERR_NONE);
        lock_table_check(table);
        assert_true(lock_find(table, BYTES("k"), &info));
        assert_int_equal(info.token.value, 9);
        assert_int_equal(info.ttl_ms, 100);
        assert_int_equal(info.waiters, 1);
        assert_int_equal(info.slots, 1);
        lock_reload(&table, 1);
        for (size_t len = 0; len < sizeof old; len++)
                assert_int_not_equal(lock_table_decode(table, bytes_of(old, len)), ERR_NONE);
        lock_table_free(table);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_readers),   cmocka_unit_test(test_semaphore),
                cmocka_unit_test(test_delay),     cmocka_unit_test(test_sessions),
                cmocka_unit_test(test_deadlocks), cmocka_unit_test(test_events),
                cmocka_unit_test(test_watch),     cmocka_unit_test(test_old_snapshot),
                cmocka_unit_test(test_model),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
