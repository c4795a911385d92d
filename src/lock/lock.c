/* The rules of locks: one function an operation, from a table.
 *
 *   apply -> time moves on: waits end, leases end -> the operation
 *
 * Whatever may let a waiter go on touches the lock; after each of the three the touched locks are
 * served in the order in which they were touched: those at the head of the queue that can have the
 * lock get it, and a lock that nobody wants goes. A wait that ends at the same time as the lease
 * before it ends first, so nobody is granted a lock that it no longer waits for. What is refused
 * changes nothing but the time. */
#include "lock/lock.h"

#include "base/check.h"
#include "lock/table.h"

enum err lock_table_new(struct heap *heap, uint64_t seed, struct lock_table **ret_table)
{
        struct lock_table *table = heap_alloc(heap, sizeof *table);
        if (table == NULL)
                return ERR_NOMEM;
        table->heap = heap;
        table->seed = seed;
        table->cursor = heap_alloc(heap, sizeof(struct lock *));
        if (table->cursor == NULL) {
                heap_free(heap, table);
                return ERR_NOMEM;
        }
        *ret_table = table;
        return ERR_NONE;
}

static void garbage_free(struct lock_table *table)
{
        for (size_t i = 0; i < table->garbage_count; i++)
                heap_give(table->heap, table->garbage[i].ptr, table->garbage[i].size);
        table->garbage_count = 0;
}

void lock_table_free(struct lock_table *table)
{
        if (table == NULL)
                return;
        table_clear(table);
        lock_events_free(table);
        lock_stuck_free(table);
        garbage_free(table);
        heap_free(table->heap, table->garbage);
        heap_free(table->heap, table->results);
        heap_free(table->heap, table->ended);
        heap_free(table->heap, table->cursor);
        heap_free(table->heap, table);
}

/* Keeps memory whose names a result borrows until the next call. */
void lock_garbage(struct lock_table *table, struct lock_block block)
{
        if (table->garbage_count == table->garbage_size) {
                size_t size = table->garbage_size == 0 ? 16 : table->garbage_size * 2;
                struct lock_block *garbage =
                        heap_resize(table->heap, table->garbage, size * sizeof *garbage);
                if (garbage == NULL) {
                        heap_give(table->heap, block.ptr, block.size);
                        table->fatal = true; /* so no result is shown that borrows them */
                        return;
                }
                table->garbage = garbage;
                table->garbage_size = size;
        }
        table->garbage[table->garbage_count++] = block;
}

void lock_result_add(struct lock_table *table, struct lock_result result)
{
        if (table->result_count == table->result_size) {
                size_t size = table->result_size == 0 ? 16 : table->result_size * 2;
                struct lock_result *results =
                        heap_resize(table->heap, table->results, size * sizeof *results);
                if (results == NULL) {
                        table->fatal = true;
                        return;
                }
                table->results = results;
                table->result_size = size;
        }
        table->results[table->result_count++] = result;
}

static uint64_t ttl_left(const struct lock_table *table, const struct claim *claim)
{
        const struct timer *timer = claim->session != NULL ? &claim->session->timer : &claim->timer;
        return timer->deadline > table->time_ms ? timer->deadline - table->time_ms : 0;
}

void lock_answer(struct lock_table *table, const struct lock_command *command,
                 enum lock_result_kind kind)
{
        lock_result_add(table, (struct lock_result){
                                       .kind = kind,
                                       .origin = command->origin,
                                       .key = command->key,
                                       .owner = command->owner,
                               });
}

uint64_t lock_token_of(const struct claim *claim)
{
        return claim->timer.number - claim->place;
}

/* A result about a holder. */
void lock_answer_holder(struct lock_table *table, struct lock_origin origin,
                        enum lock_result_kind kind, const struct claim *claim)
{
        lock_result_add(table, (struct lock_result){
                                       .kind = kind,
                                       .origin = origin,
                                       .key = lock_key(claim->lock),
                                       .owner = claim_owner(claim),
                                       .token.value = lock_token_of(claim),
                                       .ttl_ms = ttl_left(table, claim),
                               });
}

/* A result about a lock that somebody asks for: its newest holder, or the delay that is left. */
void lock_answer_lock(struct lock_table *table, const struct lock_command *command,
                      enum lock_result_kind kind, const struct lock *lock)
{
        if (lock->holders.last != NULL) {
                lock_answer_holder(table, command->origin, kind, lock->holders.last);
                return;
        }
        lock_result_add(table,
                        (struct lock_result){
                                .kind = kind,
                                .origin = command->origin,
                                .key = lock_key(lock),
                                .token.value = lock->timer.number,
                                .ttl_ms = lock->delayed ? lock->timer.deadline - table->time_ms : 0,
                        });
}

uint64_t lock_token_next(struct lock_table *table)
{
        uint64_t token = table->last_token + 1;
        table->last_token = token > table->index ? token : table->index;
        return table->last_token;
}

/* ---- grants ---- */

void lock_touch(struct lock_table *table, struct lock *lock)
{
        if (lock->touched)
                return;
        lock->touched = true;
        lock->touched_next = NULL;
        if (table->touched_last == NULL)
                table->touched_first = lock;
        else
                table->touched_last->touched_next = lock;
        table->touched_last = lock;
}

/* May one more for `slots` hold it, as far as its holders are concerned? */
bool lock_has_room(const struct lock *lock, uint32_t slots)
{
        if (lock->delayed)
                return false;
        if (lock->holders.count == 0)
                return true;
        return lock->slots == slots && lock->holders.count < slots &&
               lock->holders.count < LOCK_HOLDERS_MAX;
}

bool lock_head_ready(const struct lock *lock)
{
        const struct claim *head = lock->waiters.first;
        if (head == NULL)
                return false;
        return head->waiting->set_next != NULL ? lock_set_ready(head)
                                               : lock_has_room(lock, head->slots);
}

void lock_grant(struct lock_table *table, struct claim *claim, struct session *session,
                uint64_t token, struct lock_origin origin)
{
        struct lock *lock = claim->lock;
        lock->slots = claim->slots;
        table_hold(table, claim, session, token, table->time_ms + claim->ttl_ms);
        lock_answer_holder(table, origin, LOCK_GRANTED, claim);
        lock_event_add(table, LOCK_GRANTED, lock_key(lock), claim_owner(claim), token);
}

static void lock_serve(struct lock_table *table, struct lock *lock)
{
        while (lock_head_ready(lock)) {
                struct claim *claim = lock->waiters.first;
                struct session *session = claim->session;
                if (claim->waiting->set_next != NULL) {
                        lock_set_grant(table, claim);
                        continue;
                }
                struct lock_origin origin = claim->waiting->origin;
                table_unwait(table, claim);
                lock_grant(table, claim, session, lock_token_next(table), origin);
        }
        if (lock->holders.count > 0 || lock->waiters.count > 0 || lock->delayed)
                return;
        lock_garbage(table, lock_slots_remove(table, lock));
}

void locks_serve(struct lock_table *table)
{
        while (table->touched_first != NULL) {
                struct lock *lock = table->touched_first;
                table->touched_first = lock->touched_next;
                if (table->touched_first == NULL)
                        table->touched_last = NULL;
                lock->touched = false;
                lock_serve(table, lock);
        }
}

void lock_wait_end(struct lock_table *table, struct claim *claim, enum lock_result_kind kind)
{
        claim = lock_set_first(claim);
        lock_result_add(table, (struct lock_result){
                                       .kind = kind,
                                       .origin = claim->waiting->origin,
                                       .key = lock_key(claim->lock),
                                       .owner = claim_owner(claim),
                               });
        for (size_t left = claim->waiting->set_next == NULL ? 1 : claim->set_size; left > 0;
             left--) {
                struct claim *next = claim->waiting->set_next;
                lock_touch(table, claim->lock);
                lock_event_add(table, LOCK_CANCELLED, lock_key(claim->lock), claim_owner(claim), 0);
                table_unwait(table, claim);
                lock_garbage(table, table_unclaim(table, claim));
                claim = next;
        }
}

void lock_hold_end(struct lock_table *table, struct claim *claim, enum lock_result_kind kind,
                   struct lock_origin origin)
{
        struct lock *lock = claim->lock;
        lock_touch(table, lock);
        lock_answer_holder(table, origin, kind, claim);
        lock_event_add(table, kind, lock_key(lock), claim_owner(claim), lock_token_of(claim));
        table_unhold(table, claim);
        uint64_t until = table->time_ms + claim->delay_ms;
        if (kind == LOCK_EXPIRED && claim->delay_ms > 0 &&
            (!lock->delayed || lock->timer.deadline < until))
                table_delay(table, lock, until);
        lock_garbage(table, table_unclaim(table, claim));
}

/* ---- time ---- */

static void lease_end(struct lock_table *table, struct timer *timer)
{
        switch (timer->kind) {
        case TIMER_CLAIM:
                lock_hold_end(table, (struct claim *)timer, LOCK_EXPIRED, (struct lock_origin){0});
                return;
        case TIMER_SESSION:
                lock_session_end(table, (struct session *)timer, LOCK_EXPIRED);
                return;
        case TIMER_DELAY:
                lock_touch(table, (struct lock *)timer);
                table_delay(table, (struct lock *)timer, 0);
                return;
        }
}

static void table_advance(struct lock_table *table, uint64_t now_ms)
{
        if (now_ms <= table->time_ms)
                return;
        table->time_ms = now_ms;
        while (table->waits.count > 0 && table->waits.items[0]->deadline <= now_ms)
                lock_wait_end(table, (struct claim *)table->waits.items[0], LOCK_TIMED_OUT);
        locks_serve(table);
        while (table->leases.count > 0 && table->leases.items[0]->deadline <= now_ms)
                lease_end(table, table->leases.items[0]);
        locks_serve(table);
}

/* ---- operations ---- */

bool lock_origin_equal(const struct lock_origin *a, const struct lock_origin *b)
{
        return a->node == b->node && a->incarnation == b->incarnation && a->sequence == b->sequence;
}

/* The holder, if it is this owner with this token. */
static struct claim *holder_owned(struct lock_table *table, const struct lock_command *command)
{
        const struct lock *lock = lock_slots_find(table, command->key);
        struct claim *claim = lock == NULL ? NULL : table_holder(lock, command->owner);
        bool known = claim != NULL && (lock_token_of(claim) == command->token.value ||
                                       (command->flags & LOCK_BY_OWNER) != 0);
        return known ? claim : NULL;
}

/* A lock of a session ends with that: its renewal only tells when. */
static void lock_renew(struct lock_table *table, const struct lock_command *command)
{
        struct claim *claim = holder_owned(table, command);
        if (claim == NULL) {
                lock_answer(table, command, LOCK_NOT_OWNER);
                return;
        }
        uint64_t ttl_ms = command->ttl_ms;
        if ((command->flags & LOCK_ADD_TTL) != 0)
                ttl_ms += ttl_left(table, claim);
        if (ttl_ms > LOCK_TTL_MS_MAX) {
                lock_answer(table, command, LOCK_INVALID);
                return;
        }
        if (claim->session == NULL)
                table_extend(table, &claim->timer, table->time_ms + ttl_ms);
        lock_answer_holder(table, command->origin, LOCK_RENEWED, claim);
}

static void lock_release(struct lock_table *table, const struct lock_command *command)
{
        struct claim *claim = holder_owned(table, command);
        if (claim == NULL)
                lock_answer(table, command, LOCK_NOT_OWNER);
        else
                lock_hold_end(table, claim, LOCK_RELEASED, command->origin);
}

static void lock_cancel(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_slots_find(table, command->key);
        struct claim *claim = lock == NULL ? NULL : table_waiter(lock, command->owner);
        if (claim == NULL || !lock_origin_equal(&claim->waiting->origin, &command->cancelled)) {
                lock_answer(table, command, LOCK_FREE);
                return;
        }
        lock_wait_end(table, claim, LOCK_CANCELLED);
        lock_answer(table, command, LOCK_CANCELLED);
}

static void lock_break(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_slots_find(table, command->key);
        struct lock_origin origin = command->origin;
        if (lock == NULL) {
                lock_answer(table, command, LOCK_FREE);
                return;
        }
        if (command->op == LOCK_SEIZE) {
                lock_answer_lock(table, command, LOCK_BROKEN, lock);
                uint64_t token = lock_token_next(table);
                if (!table->fatal)
                        table->results[table->result_count - 1].token.value = token;
                origin = (struct lock_origin){0};
        }
        if (lock->holders.first == NULL && command->op == LOCK_BREAK)
                lock_answer(table, command, LOCK_FREE);
        lock_touch(table, lock);
        table_delay(table, lock, 0);
        while (lock->holders.first != NULL) {
                lock_hold_end(table, lock->holders.first, LOCK_BROKEN, origin);
                origin = (struct lock_origin){0};
        }
}

static void lock_look(struct lock_table *table, const struct lock_command *command)
{
        const struct lock *lock = lock_slots_find(table, command->key);
        const struct claim *claim = lock == NULL ? NULL : lock->holders.last;
        uint64_t token = command->token.value;
        while (claim != NULL && token != 0 && lock_token_of(claim) != token)
                claim = claim->before;
        if (claim != NULL)
                lock_answer_holder(table, command->origin, LOCK_SEEN, claim);
        else
                lock_answer(table, command, token != 0 ? LOCK_NOT_OWNER : LOCK_FREE);
}

static void lock_time(struct lock_table *table, const struct lock_command *command)
{
        (void)table;
        (void)command;
}

/* What each operation wants of its arguments, and who carries it out. */
static const struct operation {
        void (*run)(struct lock_table *table, const struct lock_command *command);
        bool key;
        bool owner;
        bool ttl;
} operations[LOCK_OP_COUNT] = {
        [LOCK_TIME] = {lock_time, false, false, false},
        [LOCK_ACQUIRE] = {lock_acquire, true, true, true},
        [LOCK_RENEW] = {lock_renew, true, true, true},
        [LOCK_RELEASE] = {lock_release, true, true, false},
        [LOCK_CANCEL] = {lock_cancel, true, true, false},
        [LOCK_BREAK] = {lock_break, true, false, false},
        [LOCK_SEIZE] = {lock_break, true, false, false},
        [LOCK_LOOK] = {lock_look, true, false, false},
        [LOCK_SESSION_OPEN] = {lock_session_open, false, true, true},
        [LOCK_SESSION_KEEP] = {lock_session_keep, false, true, false},
        [LOCK_SESSION_CLOSE] = {lock_session_close, false, true, false},
        [LOCK_ACQUIRE_ALL] = {lock_acquire_all, true, true, true},
};

const char *lock_command_fault(const struct lock_command *command)
{
        CHECK(command->op >= LOCK_TIME && command->op < LOCK_OP_COUNT);
        const struct operation *operation = &operations[command->op];
        if (operation->key && (command->key.len == 0 || command->key.len > LOCK_KEY_BYTES_MAX))
                return "A key has 1 to 512 bytes.";
        if (operation->owner &&
            (command->owner.len == 0 || command->owner.len > LOCK_OWNER_BYTES_MAX))
                return "An owner has 1 to 256 bytes.";
        if (operation->ttl && command->session == 0 &&
            (command->ttl_ms < LOCK_TTL_MS_MIN || command->ttl_ms > LOCK_TTL_MS_MAX))
                return "The time to live is 1 to 86400000 ms (a day).";
        if (command->wait_ms > LOCK_WAIT_MS_MAX)
                return "The wait is at most 3600000 ms (an hour).";
        if (command->delay_ms > LOCK_DELAY_MS_MAX)
                return "The delay after an expiry is at most 600000 ms (ten minutes).";
        if (command->slots > LOCK_SLOTS_MAX && command->slots != LOCK_SHARED)
                return "A semaphore has 1 to 1024 slots.";
        return (command->flags & ~(uint32_t)LOCK_FLAGS) == 0 ? NULL : "A flag is not known.";
}

const struct lock_result *lock_apply(struct lock_table *table, uint64_t index,
                                     const struct lock_command *command, size_t *ret_count,
                                     bool *ret_fatal)
{
        const char *fault = lock_command_fault(command);
        garbage_free(table);
        table->result_count = 0;
        table->ended_count = 0;
        table->index = index;
        table_advance(table, command->now_ms);
        if (fault == NULL)
                operations[command->op].run(table, command);
        else
                lock_answer(table, command, LOCK_INVALID);
        locks_serve(table);
        *ret_count = table->fatal ? 0 : table->result_count;
        *ret_fatal = table->fatal;
        return table->results;
}

uint64_t lock_table_time(const struct lock_table *table)
{
        return table->time_ms;
}

size_t lock_table_count(const struct lock_table *table)
{
        return table->count;
}

size_t lock_table_waiters(const struct lock_table *table)
{
        return table->waiter_count;
}

struct lock_token lock_table_last_token(const struct lock_table *table)
{
        return (struct lock_token){table->last_token};
}

bool lock_table_idle(const struct lock_table *table)
{
        return table->count == 0 && table->session_count == 0;
}

uint64_t lock_next_deadline(const struct lock_table *table)
{
        uint64_t lease = table->leases.count > 0 ? table->leases.items[0]->deadline : UINT64_MAX;
        uint64_t wait = table->waits.count > 0 ? table->waits.items[0]->deadline : UINT64_MAX;
        return lease < wait ? lease : wait;
}

static struct lock_info info_of(const struct lock_table *table, const struct lock *lock)
{
        const struct claim *newest = lock->holders.last;
        return (struct lock_info){
                .owner = claim_owner(newest),
                .token.value = lock_token_of(newest),
                .ttl_ms = ttl_left(table, newest),
                .waiters = lock->waiters.count,
                .holders = lock->holders.count,
                .slots = lock->slots,
                .place = lock->timer.number,
        };
}

bool lock_find(const struct lock_table *table, struct bytes key, struct lock_info *ret)
{
        const struct lock *lock = lock_slots_find(table, key);
        if (lock == NULL || lock->holders.count == 0)
                return false;
        *ret = info_of(table, lock);
        return true;
}

bool lock_find_holder(const struct lock_table *table, struct bytes key, struct lock_token token,
                      struct lock_info *ret)
{
        const struct lock *lock = lock_slots_find(table, key);
        const struct claim *claim = lock == NULL ? NULL : lock->holders.last;
        while (claim != NULL && token.value != 0 && lock_token_of(claim) != token.value)
                claim = claim->before;
        if (claim == NULL)
                return false;
        *ret = info_of(table, lock);
        ret->owner = claim_owner(claim);
        ret->token.value = lock_token_of(claim);
        ret->ttl_ms = ttl_left(table, claim);
        return true;
}

bool lock_next(const struct lock_table *table, uint64_t after, struct bytes *ret_key,
               struct lock_info *ret)
{
        struct lock *lock = *table->cursor;
        if (lock != NULL && lock->timer.number == after)
                lock = lock->next;
        else
                for (lock = table->first; lock != NULL && lock->timer.number <= after;)
                        lock = lock->next;
        while (lock != NULL && lock->holders.count == 0)
                lock = lock->next;
        if (lock == NULL)
                return false;
        *table->cursor = lock;
        *ret_key = lock_key(lock);
        *ret = info_of(table, lock);
        return true;
}

static const char *const result_names[LOCK_RESULT_COUNT] = {
        [LOCK_GRANTED] = "granted",     [LOCK_QUEUED] = "queued",
        [LOCK_HELD] = "held",           [LOCK_TIMED_OUT] = "timed out",
        [LOCK_RENEWED] = "renewed",     [LOCK_RELEASED] = "released",
        [LOCK_NOT_OWNER] = "not owner", [LOCK_EXPIRED] = "expired",
        [LOCK_BROKEN] = "broken",       [LOCK_FREE] = "free",
        [LOCK_CANCELLED] = "cancelled", [LOCK_INVALID] = "invalid",
        [LOCK_LIMIT] = "limit",         [LOCK_SEEN] = "seen",
        [LOCK_DEADLOCK] = "deadlock",   [LOCK_NO_SESSION] = "no session",
        [LOCK_OPENED] = "opened",       [LOCK_KEPT] = "kept",
        [LOCK_CLOSED] = "closed",       [LOCK_GAP] = "gap",
};

const char *lock_result_name(enum lock_result_kind kind)
{
        if ((unsigned)kind >= LOCK_RESULT_COUNT || result_names[kind] == NULL)
                return "unknown";
        return result_names[kind];
}
