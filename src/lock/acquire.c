/* To ask for a lock: its holder or a waiter asks again, or it can be had, or not. */
#include "lock/table.h"

void lock_claim_fill(struct lock_table *table, struct claim *claim, const struct wish *wish)
{
        lock_changes(table, claim->lock);
        if (claim->waiting != NULL)
                claim->waiting->origin = wish->command->origin;
        claim->ttl_ms = wish->command->ttl_ms;
        claim->delay_ms = (uint32_t)wish->command->delay_ms;
        claim->slots = wish->slots;
}

/* A claim for the wish; NULL: answered. */
static struct claim *wish_claim(struct lock_table *table, const struct wish *wish,
                                struct lock *lock, bool waits)
{
        const struct session *session = wish->session;
        if (session != NULL && session->held.count + session->waits.count >= LOCK_CLAIMS_MAX) {
                lock_answer(table, wish->command, LOCK_LIMIT);
                return NULL;
        }
        struct claim *claim = table_claim(table, lock, wish->command->owner, waits);
        if (claim == NULL)
                table->fatal = true;
        else
                lock_claim_fill(table, claim, wish);
        return claim;
}

/* Grants a new lock or one more of its slots. */
static void acquire_now(struct lock_table *table, const struct wish *wish, struct lock *lock)
{
        if (table->holder_count >= LOCK_COUNT_MAX ||
            (lock == NULL && table->count >= LOCK_COUNT_MAX)) {
                lock_answer(table, wish->command, LOCK_LIMIT);
                return;
        }
        uint64_t token = lock_token_next(table);
        if (lock == NULL)
                lock = lock_slots_insert(table, wish->command->key, token);
        if (lock == NULL) {
                table->fatal = true;
                return;
        }
        struct claim *claim = wish_claim(table, wish, lock, false);
        if (claim == NULL)
                lock_touch(table, lock);
        else
                lock_grant(table, claim, wish->session, token, wish->command->origin);
}

/* Takes a holder out and puts it back with what the wish says. */
static void holder_move(struct lock_table *table, const struct wish *wish, struct claim *claim,
                        uint64_t token)
{
        table_unhold(table, claim);
        if (token != claim->timer.number)
                lock_set_mark(table, claim, 1, 0);
        lock_claim_fill(table, claim, wish);
        claim->lock->slots = claim->slots;
        table_hold(table, claim, wish->session, token, table->time_ms + claim->ttl_ms);
}

/* The owner holds it: its answer was lost, or it wants a longer lease, or other slots. */
static void acquire_held(struct lock_table *table, const struct wish *wish, struct claim *claim)
{
        const struct lock_command *command = wish->command;
        struct lock *lock = claim->lock;
        bool other = claim->slots != wish->slots;
        if ((command->flags & LOCK_FRESH) != 0 ||
            (other && (lock->holders.count > 1 || lock->delayed))) {
                lock_answer_holder(table, command->origin, LOCK_HELD, claim);
                return;
        }
        const struct session *session = wish->session;
        if (session != NULL && session != claim->session &&
            session->held.count + session->waits.count >= LOCK_CLAIMS_MAX) {
                lock_answer(table, command, LOCK_LIMIT);
                return;
        }
        holder_move(table, wish, claim, other ? lock_token_next(table) : claim->timer.number);
        lock_answer_holder(table, command->origin, LOCK_GRANTED, claim);
        if (!other)
                return;
        lock_event_add(table, LOCK_GRANTED, lock_key(lock), claim_owner(claim),
                       lock_token_of(claim));
        lock_touch(table, lock);
}

static bool is_deadlock(struct lock_table *table, const struct wish *wish, struct lock *lock)
{
        const struct lock_command *command = wish->command;
        if ((command->flags & LOCK_DETECT_SLOTS) != 0)
                return lock_stuck(table, &lock, 1, command->owner, wish->slots);
        return (command->flags & LOCK_DETECT) != 0 &&
               lock_deadlock(table, lock, command->owner, wish->slots);
}

static void acquire_wait(struct lock_table *table, const struct wish *wish, struct lock *lock)
{
        const struct lock_command *command = wish->command;
        if (lock->waiters.count >= LOCK_WAITERS_MAX ||
            table->waiter_count >= LOCK_WAITERS_ALL_MAX) {
                lock_answer(table, command, LOCK_LIMIT);
                return;
        }
        if (is_deadlock(table, wish, lock)) {
                lock_answer(table, command, LOCK_DEADLOCK);
                return;
        }
        struct claim *claim = wish_claim(table, wish, lock, true);
        if (claim == NULL)
                return;
        table_wait(table, claim, wish->session, ++table->last_waiter,
                   table->time_ms + command->wait_ms);
        lock_answer_lock(table, command, LOCK_QUEUED, lock);
        lock_event_add(table, LOCK_QUEUED, lock_key(lock), claim_owner(claim), 0);
}

void lock_wait_again(struct lock_table *table, const struct wish *wish, struct claim *first)
{
        const struct lock_command *command = wish->command;
        struct claim *claim = first;
        if (!lock_origin_equal(&first->waiting->origin, &command->origin))
                lock_result_add(table, (struct lock_result){
                                               .kind = LOCK_CANCELLED,
                                               .origin = first->waiting->origin,
                                               .key = lock_key(first->lock),
                                               .owner = claim_owner(first),
                                       });
        do {
                lock_claim_fill(table, claim, wish);
                table_extend(table, &claim->timer, table->time_ms + command->wait_ms);
                claim = claim->waiting->set_next;
        } while (claim != NULL && claim != first);
        lock_answer_lock(table, command, LOCK_QUEUED, first->lock);
}

static void acquire_other(struct lock_table *table, const struct wish *wish, struct lock *lock)
{
        const struct lock_command *command = wish->command;
        struct claim *claim = table_waiter(lock, command->owner);
        if (claim != NULL && command->wait_ms > 0 && claim->slots == wish->slots &&
            claim->session == wish->session && claim->waiting->set_next == NULL) {
                lock_wait_again(table, wish, claim);
                return;
        }
        if (claim != NULL) {
                /* Who stood behind it comes first now. */
                lock_wait_end(table, claim, LOCK_CANCELLED);
                locks_serve(table);
                lock = lock_slots_find(table, command->key);
        }
        if (lock == NULL)
                acquire_now(table, wish, NULL);
        else if (lock->waiters.count == 0 && lock_has_room(lock, wish->slots))
                acquire_now(table, wish, lock);
        else if (command->wait_ms == 0)
                lock_answer_lock(table, command, LOCK_HELD, lock);
        else
                acquire_wait(table, wish, lock);
}

bool lock_wish(struct lock_table *table, const struct lock_command *command, struct wish *ret)
{
        *ret = (struct wish){.command = command, .slots = command->slots == 0 ? 1 : command->slots};
        if (command->session == 0)
                return true;
        ret->session = lock_session_of(table, command);
        if (ret->session == NULL)
                lock_answer(table, command, LOCK_NO_SESSION);
        return ret->session != NULL;
}

void lock_acquire(struct lock_table *table, const struct lock_command *command)
{
        struct wish wish;
        if (!lock_wish(table, command, &wish))
                return;
        struct lock *lock = lock_slots_find(table, command->key);
        struct claim *held = lock == NULL ? NULL : table_holder(lock, command->owner);
        if (lock == NULL)
                acquire_now(table, &wish, NULL);
        else if (held != NULL)
                acquire_held(table, &wish, held);
        else
                acquire_other(table, &wish, lock);
}
