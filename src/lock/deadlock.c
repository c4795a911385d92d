/* Would it be a deadlock to wait? A search among owners: who is waited for, and for whom do those
 * wait? A waiter waits for all that are before it and cannot share with it; one in the queue of a
 * semaphore waits for any of its holders, so nothing is concluded from it: what is told is always a
 * deadlock, but one through a semaphore is not found: stuck.c finds that, in groups whose nodes all
 * know it.
 *
 * Each waiter is looked at once. Who stands behind a waiter for exclusive use waits for no more
 * than that one and what it waits for, so the walk ends there. */
#include "lock/table.h"

struct search {
        struct lock_table *table;
        struct bytes owner; /* who asks */
        struct claim *todo;
        bool found;
};

/* `owner` is waited for: so is whomever it waits for. */
static void owner_reached(struct search *search, struct bytes owner)
{
        if (bytes_equal(owner, search->owner)) {
                search->found = true;
                return;
        }
        struct claim *claim = table_owner_chain(search->table, owner);
        for (; claim != NULL; claim = claim->waiting->owner_next) {
                if (claim->waiting->mark == search->table->mark ||
                    !bytes_equal(claim_owner(claim), owner))
                        continue;
                claim->waiting->mark = search->table->mark;
                claim->waiting->todo = search->todo;
                search->todo = claim;
        }
}

/* Whoever asks for `slots` stands behind `before` (NULL: at the head). */
static void place_reached(struct search *search, const struct lock *lock,
                          const struct claim *before, uint32_t slots)
{
        if (slots != 1 && slots != LOCK_SHARED)
                return;
        for (; before != NULL && !search->found; before = before->before) {
                if (slots == LOCK_SHARED && before->slots == LOCK_SHARED)
                        continue;
                owner_reached(search, claim_owner(before));
                if (before->slots == 1)
                        return;
        }
        if (slots == LOCK_SHARED && lock->slots == LOCK_SHARED)
                return;
        for (const struct claim *claim = lock->holders.first; claim != NULL && !search->found;
             claim = claim->next)
                owner_reached(search, claim_owner(claim));
}

bool lock_deadlock(struct lock_table *table, struct lock *lock, struct bytes owner, uint32_t slots)
{
        struct search search = {.table = table, .owner = owner};
        table->mark++;
        place_reached(&search, lock, lock->waiters.last, slots);
        while (search.todo != NULL && !search.found) {
                const struct claim *claim = search.todo;
                search.todo = claim->waiting->todo;
                place_reached(&search, claim->lock, claim->before, claim->slots);
        }
        return search.found;
}
