/* Every invariant of the table, told by its structures from more than one side. */
#include "base/check.h"
#include "lock/table.h"

static void timers_check(const struct timers *timers)
{
        CHECK(timers->count <= timers->size);
        for (size_t i = 0; i < timers->count; i++) {
                const struct timer *timer = timers->items[i];
                CHECK(timer->at == i);
                if (i == 0)
                        continue;
                const struct timer *above = timers->items[(i - 1) / 2];
                /* Numbers may meet in a damaged snapshot. */
                CHECK(above->deadline < timer->deadline ||
                      (above->deadline == timer->deadline && above->number <= timer->number));
        }
}

static void session_check(const struct claim *claim)
{
        const struct claims *list = claim->held ? &claim->session->held : &claim->session->waits;
        CHECK(bytes_equal(session_owner(claim->session), claim_owner(claim)));
        CHECK(claim->session_before != NULL || list->first == claim);
        CHECK(claim->session_next != NULL || list->last == claim);
        CHECK(claim->session_next == NULL ||
              claim->session_next->timer.number > claim->timer.number);
}

static void claim_check(const struct lock_table *table, const struct lock *lock,
                        const struct claim *claim)
{
        CHECK(claim->lock == lock);
        CHECK(claim->slots != 0 && claim->owner_len != 0);
        if (claim->session != NULL)
                session_check(claim);
        CHECK(claim->set_size >= 1 && claim->place < claim->set_size);
        CHECK(claim->held || (claim->waiting->set_next != NULL) == (claim->set_size > 1));
        if (!claim->held && claim->waiting->set_next != NULL) {
                const struct claim *next = claim->waiting->set_next;
                CHECK(next->place == (claim->place + 1) % claim->set_size);
                CHECK(next->set_size == claim->set_size && next->slots == claim->slots);
                CHECK(next->timer.deadline == claim->timer.deadline);
                CHECK(bytes_equal(claim_owner(next), claim_owner(claim)) &&
                      next->session == claim->session);
        }
        CHECK(claim->held == (claim->waiting == NULL));
        if (claim->held) {
                CHECK(claim->slots == lock->slots);
                CHECK(claim->timer.number <= lock->timer.number);
                CHECK(claim->session != NULL ||
                      (claim->timer.deadline > table->time_ms &&
                       table->leases.items[claim->timer.at] == &claim->timer));
        } else {
                CHECK(claim->timer.number <= table->last_waiter);
                CHECK(claim->timer.deadline > table->time_ms);
                CHECK(table->waits.items[claim->timer.at] == &claim->timer);
                CHECK(*claim->waiting->owner_link == claim);
                CHECK(table_holder(lock, claim_owner(claim)) == NULL);
        }
}

static void claims_check(const struct lock_table *table, const struct lock *lock,
                         const struct claims *list, bool held)
{
        size_t count = 0;
        uint64_t number = 0;
        const struct claim *before = NULL;
        for (const struct claim *claim = list->first; claim != NULL; claim = claim->next) {
                CHECK(claim->before == before && claim->held == held);
                CHECK(claim->timer.number > number);
                claim_check(table, lock, claim);
                number = claim->timer.number;
                before = claim;
                count++;
        }
        CHECK(list->last == before && list->count == count);
}

static void lock_check(const struct lock_table *table, const struct lock *lock)
{
        CHECK(lock_slots_find(table, lock_key(lock)) == lock);
        CHECK(!lock->touched);
        CHECK(lock->holders.count > 0 || lock->delayed || lock->waiters.count > 0);
        CHECK(lock->holders.count <= lock->slots || lock->holders.count == 0);
        CHECK(lock->holders.count <= LOCK_HOLDERS_MAX);
        CHECK(!lock->delayed || (lock->timer.deadline > table->time_ms &&
                                 table->leases.items[lock->timer.at] == &lock->timer));
        claims_check(table, lock, &lock->holders, true);
        claims_check(table, lock, &lock->waiters, false);
        CHECK(!lock_head_ready(lock)); /* nobody waits who could have it */
}

static size_t sessions_check(const struct lock_table *table)
{
        size_t count = 0;
        uint64_t id = 0;
        size_t held = 0;
        for (const struct session *s = table->session_first; s != NULL; s = s->next) {
                CHECK(s->timer.number > id && s->timer.number <= table->last_token);
                CHECK(s->timer.deadline > table->time_ms);
                CHECK(table->leases.items[s->timer.at] == &s->timer);
                CHECK(table_session_find(table, s->timer.number) == s);
                CHECK(s->held.count + s->waits.count <= LOCK_CLAIMS_MAX);
                held += s->held.count;
                id = s->timer.number;
                count++;
        }
        CHECK(count == table->session_count);
        return held;
}

void lock_table_check(const struct lock_table *table)
{
        timers_check(&table->leases);
        timers_check(&table->waits);
        size_t count = 0;
        size_t waiters = 0;
        size_t holders = 0;
        size_t delays = 0;
        size_t sets = 0;
        uint64_t token = 0;
        const struct lock *before = NULL;
        for (const struct lock *lock = table->first; lock != NULL; lock = lock->next) {
                CHECK(lock->before == before);
                CHECK(lock->timer.number > token && lock->timer.number <= table->last_token);
                lock_check(table, lock);
                waiters += lock->waiters.count;
                holders += lock->holders.count;
                delays += lock->delayed;
                for (const struct claim *c = lock->holders.first; c != NULL; c = c->next)
                        sets += c->set_size > 1;
                for (const struct claim *c = lock->waiters.first; c != NULL; c = c->next)
                        sets += c->set_size > 1;
                token = lock->timer.number;
                before = lock;
                count++;
        }
        CHECK(table->last == before && table->touched_first == NULL);
        CHECK(table->count == count && table->holder_count == holders);
        CHECK(table->waiter_count == waiters && table->waits.count == waiters);
        CHECK(table->delay_count == delays && table->set_count == sets);
        size_t by_session = sessions_check(table);
        CHECK(table->leases.count == holders - by_session + delays + table->session_count);
}
