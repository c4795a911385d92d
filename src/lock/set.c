/* To ask for several locks at once: a claim in the queue of each, joined as a ring in the order of
 * their keys. They are granted together, when each comes first in its queue and each lock has room,
 * and end together. What can be had at once takes the same way: it waits for no time.
 *
 *   asked -> the owner has them from such a grant: a repeat
 *        |-> the owner waits for the same: it keeps its places, the newer request is answered
 *        |-> all can be had: granted
 *        `-> refused, or it waits: lock_serve() grants it when the last lock has room */
#include "base/check.h"
#include "base/cursor.h"
#include "lock/table.h"

struct set {
        size_t count;
        struct bytes keys[LOCK_SET_MAX]; /* by rising bytes */
};

void lock_set_mark(struct lock_table *table, struct claim *claim, size_t size, size_t place)
{
        table->set_count += (size_t)(size > 1) - (size_t)(claim->set_size > 1);
        claim->set_size = (uint8_t)size;
        claim->place = (uint8_t)place;
}

struct claim *lock_set_first(struct claim *claim)
{
        while (claim->waiting->set_next != NULL && claim->place != 0)
                claim = claim->waiting->set_next;
        return claim;
}

bool lock_set_ready(const struct claim *claim)
{
        const struct claim *begin = claim;
        do {
                if (claim->lock->waiters.first != claim ||
                    !lock_has_room(claim->lock, claim->slots))
                        return false;
                claim = claim->waiting->set_next;
        } while (claim != begin);
        return true;
}

void lock_set_grant(struct lock_table *table, struct claim *claim)
{
        struct claim *first = lock_set_first(claim);
        struct lock_origin origin = first->waiting->origin;
        uint64_t token = lock_token_next(table);
        table->last_token += first->set_size - 1u;
        claim = first;
        for (size_t i = 0; i < first->set_size; i++) {
                struct claim *next = claim->waiting->set_next;
                struct session *session = claim->session;
                CHECK(claim->place == i);
                table_unwait(table, claim);
                claim->lock->slots = claim->slots;
                table_hold(table, claim, session, token + i, table->time_ms + claim->ttl_ms);
                lock_event_add(table, LOCK_GRANTED, lock_key(claim->lock), claim_owner(claim),
                               token);
                lock_touch(table, claim->lock);
                claim = next;
        }
        lock_answer_holder(table, origin, LOCK_GRANTED, first);
}

/* ---- what is asked for ---- */

/* False: more than LOCK_SET_MAX, one twice, or one that is no key. */
static bool set_read(const struct lock_command *command, struct set *set)
{
        struct cursor cursor = cursor_of(command->also);
        struct bytes key = command->key;
        set->count = 0;
        for (;;) {
                size_t at = set->count;
                if (set->count == LOCK_SET_MAX || key.len == 0 || key.len > LOCK_KEY_BYTES_MAX)
                        return false;
                for (; at > 0 && bytes_compare(set->keys[at - 1], key) > 0; at--)
                        set->keys[at] = set->keys[at - 1];
                if (at > 0 && bytes_equal(set->keys[at - 1], key))
                        return false;
                set->keys[at] = key;
                set->count++;
                if (cursor_left(&cursor) == 0)
                        return true;
                key = cursor_slice(&cursor);
                if (cursor_failed(&cursor))
                        return false;
        }
}

static struct claim *set_holder(const struct lock_table *table, const struct wish *wish,
                                struct bytes key)
{
        const struct lock *lock = lock_slots_find(table, key);
        return lock == NULL ? NULL : table_holder(lock, wish->command->owner);
}

static struct claim *set_waiter(const struct lock_table *table, const struct wish *wish,
                                struct bytes key)
{
        const struct lock *lock = lock_slots_find(table, key);
        return lock == NULL ? NULL : table_waiter(lock, wish->command->owner);
}

/* ---- the owner asks again ---- */

/* Does the owner hold all of them from one grant? */
static bool set_held(const struct lock_table *table, const struct set *set, const struct wish *wish,
                     struct claim *held[LOCK_SET_MAX])
{
        for (size_t i = 0; i < set->count; i++) {
                held[i] = set_holder(table, wish, set->keys[i]);
                if (held[i] == NULL || held[i]->set_size != set->count || held[i]->place != i ||
                    held[i]->slots != wish->slots ||
                    lock_token_of(held[i]) != lock_token_of(held[0]))
                        return false;
        }
        return true;
}

/* The answer was lost, or a longer lease is wanted. */
static void set_renew(struct lock_table *table, const struct set *set, const struct wish *wish,
                      struct claim *held[LOCK_SET_MAX])
{
        for (size_t i = 0; i < set->count; i++) {
                uint64_t number = held[i]->timer.number;
                table_unhold(table, held[i]);
                lock_claim_fill(table, held[i], wish);
                table_hold(table, held[i], wish->session, number, table->time_ms + held[i]->ttl_ms);
        }
        lock_answer_holder(table, wish->command->origin, LOCK_GRANTED, held[0]);
}

/* Does the owner wait for the same? */
static struct claim *set_waits(const struct lock_table *table, const struct set *set,
                               const struct wish *wish)
{
        struct claim *first = set_waiter(table, wish, set->keys[0]);
        const struct claim *claim = first;
        if (claim == NULL || claim->waiting->set_next == NULL || claim->set_size != set->count ||
            claim->slots != wish->slots || claim->session != wish->session)
                return NULL;
        for (size_t i = 0; i < set->count; i++, claim = claim->waiting->set_next)
                if (claim->place != i || !bytes_equal(lock_key(claim->lock), set->keys[i]))
                        return NULL;
        return first;
}

/* ---- a new wish ---- */

/* A lock of the set that cannot be had now; NULL: all can. */
static struct lock *set_blocked(const struct lock_table *table, const struct set *set,
                                const struct wish *wish)
{
        for (size_t i = 0; i < set->count; i++) {
                struct lock *lock = lock_slots_find(table, set->keys[i]);
                if (lock != NULL && (lock->waiters.count > 0 || !lock_has_room(lock, wish->slots)))
                        return lock;
        }
        return NULL;
}

/* Is there room for it in the table, the session and (where it waits) the queues? */
static bool set_fits(const struct lock_table *table, const struct set *set, const struct wish *wish,
                     bool waits)
{
        const struct session *session = wish->session;
        if (session != NULL &&
            session->held.count + session->waits.count + set->count > LOCK_CLAIMS_MAX)
                return false;
        if (table->holder_count + set->count > LOCK_COUNT_MAX ||
            table->count + set->count > LOCK_COUNT_MAX)
                return false;
        if (waits && table->waiter_count + set->count > LOCK_WAITERS_ALL_MAX)
                return false;
        for (size_t i = 0; waits && i < set->count; i++) {
                const struct lock *lock = lock_slots_find(table, set->keys[i]);
                if (lock != NULL && lock->waiters.count >= LOCK_WAITERS_MAX)
                        return false;
        }
        return true;
}

static bool set_deadlock(struct lock_table *table, const struct set *set, const struct wish *wish)
{
        struct lock *locks[LOCK_SET_MAX];
        if ((wish->command->flags & (LOCK_DETECT | LOCK_DETECT_SLOTS)) == 0)
                return false;
        if ((wish->command->flags & LOCK_DETECT_SLOTS) != 0) {
                for (size_t i = 0; i < set->count; i++)
                        locks[i] = lock_slots_find(table, set->keys[i]);
                return lock_stuck(table, locks, set->count, wish->command->owner, wish->slots);
        }
        for (size_t i = 0; i < set->count; i++) {
                struct lock *lock = lock_slots_find(table, set->keys[i]);
                if (lock != NULL && lock_deadlock(table, lock, wish->command->owner, wish->slots))
                        return true;
        }
        return false;
}

/* Puts a claim into each queue; gives the first, or NULL where memory ran out. */
static struct claim *set_queue(struct lock_table *table, const struct set *set,
                               const struct wish *wish)
{
        struct claim *first = NULL, *last = NULL;
        for (size_t i = 0; i < set->count; i++) {
                struct lock *lock = lock_slots_find(table, set->keys[i]);
                if (lock == NULL)
                        lock = lock_slots_insert(table, set->keys[i], lock_token_next(table));
                struct claim *claim =
                        lock == NULL ? NULL : table_claim(table, lock, wish->command->owner, true);
                if (claim == NULL) {
                        table->fatal = true;
                        return NULL;
                }
                lock_claim_fill(table, claim, wish);
                lock_set_mark(table, claim, set->count, i);
                table_wait(table, claim, wish->session, ++table->last_waiter,
                           table->time_ms + wish->command->wait_ms);
                if (last != NULL)
                        last->waiting->set_next = claim;
                first = first == NULL ? claim : first;
                claim->waiting->set_next = first;
                last = claim;
        }
        return first;
}

static void set_wait(struct lock_table *table, const struct set *set, const struct wish *wish)
{
        struct claim *claim = set_queue(table, set, wish);
        if (claim == NULL)
                return;
        lock_answer_lock(table, wish->command, LOCK_QUEUED, claim->lock);
        for (size_t i = 0; i < set->count; i++, claim = claim->waiting->set_next)
                lock_event_add(table, LOCK_QUEUED, lock_key(claim->lock), claim_owner(claim), 0);
}

static void set_new(struct lock_table *table, const struct set *set, const struct wish *wish)
{
        const struct lock_command *command = wish->command;
        const struct lock *blocked = set_blocked(table, set, wish);
        if (blocked != NULL && command->wait_ms == 0)
                lock_answer_lock(table, command, LOCK_HELD, blocked);
        else if (!set_fits(table, set, wish, blocked != NULL))
                lock_answer(table, command, LOCK_LIMIT);
        else if (blocked != NULL && set_deadlock(table, set, wish))
                lock_answer(table, command, LOCK_DEADLOCK);
        else if (blocked != NULL)
                set_wait(table, set, wish);
        else {
                struct claim *claim = set_queue(table, set, wish);
                if (claim != NULL)
                        lock_set_grant(table, claim);
        }
}

void lock_acquire_all(struct lock_table *table, const struct lock_command *command)
{
        struct wish wish;
        struct set set;
        struct claim *mine[LOCK_SET_MAX] = {NULL};
        if (!set_read(command, &set)) {
                lock_answer(table, command, LOCK_INVALID);
                return;
        }
        if (set.count == 1) {
                lock_acquire(table, command);
                return;
        }
        if (!lock_wish(table, command, &wish))
                return;
        bool fresh = (command->flags & LOCK_FRESH) != 0;
        if (!fresh && set_held(table, &set, &wish, mine)) {
                set_renew(table, &set, &wish, mine);
                return;
        }
        for (size_t i = 0; i < set.count; i++) {
                const struct claim *held = set_holder(table, &wish, set.keys[i]);
                if (held == NULL)
                        continue;
                lock_answer_holder(table, command->origin, LOCK_HELD, held);
                return;
        }
        struct claim *waits = command->wait_ms > 0 ? set_waits(table, &set, &wish) : NULL;
        if (waits != NULL) {
                lock_wait_again(table, &wish, waits);
                return;
        }
        for (size_t i = 0; i < set.count; i++) {
                struct claim *claim = set_waiter(table, &wish, set.keys[i]);
                if (claim != NULL)
                        lock_wait_end(table, claim, LOCK_CANCELLED);
        }
        locks_serve(table);
        set_new(table, &set, &wish);
}
