/* The structures of the table: hash chains, the lists by token and number, the two heaps of
 * deadlines. No rule about locks is here. Memory is taken before anything is changed, so
 * a failure leaves all as it was. */
#include "lock/table.h"

#include "base/check.h"
#include "base/hash.h"

enum {
        BUCKETS_MIN = 64,
        TIMERS_MIN = 64,
};

static bool timer_less(const struct timer *a, const struct timer *b)
{
        return a->deadline != b->deadline ? a->deadline < b->deadline : a->number < b->number;
}

static void timers_set(struct timers *timers, size_t at, struct timer *timer)
{
        timers->items[at] = timer;
        timer->at = (uint32_t)at;
}

static void timers_up(struct timers *timers, struct timer *timer)
{
        size_t at = timer->at;
        while (at > 0 && timer_less(timer, timers->items[(at - 1) / 2])) {
                timers_set(timers, at, timers->items[(at - 1) / 2]);
                at = (at - 1) / 2;
        }
        timers_set(timers, at, timer);
}

static void timers_down(struct timers *timers, struct timer *timer)
{
        size_t at = timer->at;
        for (;;) {
                size_t child = 2 * at + 1;
                if (child >= timers->count)
                        break;
                if (child + 1 < timers->count &&
                    timer_less(timers->items[child + 1], timers->items[child]))
                        child++;
                if (!timer_less(timers->items[child], timer))
                        break;
                timers_set(timers, at, timers->items[child]);
                at = child;
        }
        timers_set(timers, at, timer);
}

static bool timers_reserve(struct heap *heap, struct timers *timers, size_t count)
{
        if (count <= timers->size)
                return true;
        size_t size = timers->size == 0 ? TIMERS_MIN : timers->size * 2;
        struct timer **items = heap_resize(heap, timers->items, size * sizeof(struct timer *));
        if (items == NULL)
                return false;
        timers->items = items;
        timers->size = size;
        return true;
}

static void timers_add(struct timers *timers, struct timer *timer)
{
        CHECK(timers->count < timers->size);
        timer->at = (uint32_t)timers->count++;
        timers_up(timers, timer);
}

static void timers_remove(struct timers *timers, struct timer *timer)
{
        CHECK(timer->at < timers->count && timers->items[timer->at] == timer);
        struct timer *moved = timers->items[--timers->count];
        if (moved == timer)
                return;
        moved->at = timer->at;
        timers_up(timers, moved);
        timers_down(timers, moved);
}

static void timers_move(struct timers *timers, struct timer *timer, uint64_t deadline)
{
        timer->deadline = deadline;
        timers_up(timers, timer);
        timers_down(timers, timer);
}

static struct lock **table_bucket(const struct lock_table *table, struct bytes key)
{
        struct hash_key hash_key = {.k0 = table->seed, .k1 = ~table->seed};
        return &table->buckets[hash_sip(hash_key, key) & (table->bucket_count - 1)];
}

struct lock *lock_slots_find(const struct lock_table *table, struct bytes key)
{
        if (table->bucket_count == 0)
                return NULL;
        struct lock *lock = *table_bucket(table, key);
        while (lock != NULL && !bytes_equal(lock_key(lock), key))
                lock = lock->chain;
        return lock;
}

static bool table_reserve(struct lock_table *table)
{
        if (table->count < table->bucket_count)
                return true;
        size_t count = table->bucket_count == 0 ? BUCKETS_MIN : table->bucket_count * 2;
        struct lock **buckets = heap_alloc_array(table->heap, count, sizeof(struct lock *));
        if (buckets == NULL)
                return false;
        heap_free(table->heap, table->buckets);
        table->buckets = buckets;
        table->bucket_count = count;
        for (struct lock *lock = table->first; lock != NULL; lock = lock->next) {
                struct lock **bucket = table_bucket(table, lock_key(lock));
                lock->chain = *bucket;
                *bucket = lock;
        }
        return true;
}

static void list_append(struct lock_table *table, struct lock *lock)
{
        lock->next = NULL;
        lock->before = table->last;
        if (table->last == NULL)
                table->first = lock;
        else
                table->last->next = lock;
        table->last = lock;
}

static void list_remove(struct lock_table *table, struct lock *lock)
{
        if (*table->cursor == lock)
                *table->cursor = NULL;
        if (table->capture.next == lock)
                table->capture.next = lock->next;
        if (lock->before == NULL)
                table->first = lock->next;
        else
                lock->before->next = lock->next;
        if (lock->next == NULL)
                table->last = lock->before;
        else
                lock->next->before = lock->before;
}

/* Room for one more of whatever ends: each claim, session and delay has a place, used or not, so
 * that a grant, or a lease that leaves a delay, needs no memory. */
static bool leases_reserve(struct lock_table *table)
{
        return timers_reserve(table->heap, &table->leases,
                              table->holder_count + table->waiter_count + table->session_count +
                                      table->delay_count + 1);
}

struct lock *lock_slots_insert(struct lock_table *table, struct bytes key, uint64_t token)
{
        CHECK(table->last == NULL || table->last->timer.number < token);
        if (!table_reserve(table))
                return NULL;
        struct lock *lock = heap_take(table->heap, offsetof(struct lock, key) + key.len);
        if (lock == NULL)
                return NULL;
        CHECK(key.len <= LOCK_KEY_BYTES_MAX);
        lock->key_len = (uint16_t)key.len;
        memcpy(lock->key, key.ptr, key.len);
        lock->timer.number = token;
        lock->timer.kind = TIMER_DELAY;
        struct lock **bucket = table_bucket(table, key);
        lock->chain = *bucket;
        *bucket = lock;
        list_append(table, lock);
        table->count++;
        return lock;
}

static struct lock_block lock_block(struct lock *lock)
{
        return (struct lock_block){lock, offsetof(struct lock, key) + lock->key_len};
}

struct lock_block lock_slots_remove(struct lock_table *table, struct lock *lock)
{
        CHECK(lock->waiters.count == 0 && lock->holders.count == 0 && !lock->delayed);
        CHECK(!lock->touched);
        lock_changes(table, lock);
        struct lock **link = table_bucket(table, lock_key(lock));
        while (*link != lock)
                link = &(*link)->chain;
        *link = lock->chain;
        list_remove(table, lock);
        table->count--;
        return lock_block(lock);
}

/* Lists are in the order of numbers; almost always the new one goes to the end. */
static void claims_insert(struct claims *list, struct claim *claim)
{
        struct claim *after = list->last;
        while (after != NULL && after->timer.number > claim->timer.number)
                after = after->before;
        claim->before = after;
        claim->next = after == NULL ? list->first : after->next;
        if (claim->next == NULL)
                list->last = claim;
        else
                claim->next->before = claim;
        if (after == NULL)
                list->first = claim;
        else
                after->next = claim;
        list->count++;
}

static void claims_remove(struct claims *list, struct claim *claim)
{
        if (claim->before == NULL)
                list->first = claim->next;
        else
                claim->before->next = claim->next;
        if (claim->next == NULL)
                list->last = claim->before;
        else
                claim->next->before = claim->before;
        list->count--;
}

static void session_insert(struct claims *list, struct claim *claim)
{
        struct claim *after = list->last;
        while (after != NULL && after->timer.number > claim->timer.number)
                after = after->session_before;
        claim->session_before = after;
        claim->session_next = after == NULL ? list->first : after->session_next;
        if (claim->session_next == NULL)
                list->last = claim;
        else
                claim->session_next->session_before = claim;
        if (after == NULL)
                list->first = claim;
        else
                after->session_next = claim;
        list->count++;
}

static void session_take(struct claims *list, struct claim *claim)
{
        if (claim->session_before == NULL)
                list->first = claim->session_next;
        else
                claim->session_before->session_next = claim->session_next;
        if (claim->session_next == NULL)
                list->last = claim->session_before;
        else
                claim->session_next->session_before = claim->session_before;
        list->count--;
}

static size_t chain_of(const struct lock_table *table, struct bytes name)
{
        struct hash_key hash_key = {.k0 = table->seed, .k1 = ~table->seed};
        return hash_sip(hash_key, name) % LOCK_CHAINS;
}

struct claim *table_claim(struct lock_table *table, struct lock *lock, struct bytes owner,
                          bool waits)
{
        CHECK(owner.len <= LOCK_OWNER_BYTES_MAX);
        if (table->owner_chains == NULL)
                table->owner_chains =
                        heap_alloc_array(table->heap, LOCK_CHAINS, sizeof(struct claim *));
        if (table->owner_chains == NULL || !leases_reserve(table) ||
            !timers_reserve(table->heap, &table->waits, table->waiter_count + 1))
                return NULL;
        size_t size = offsetof(struct claim, owner) + owner.len;
        struct claim *claim = heap_take(table->heap, size);
        if (claim == NULL)
                return NULL;
        if (waits) {
                claim->waiting = heap_take(table->heap, sizeof *claim->waiting);
                if (claim->waiting == NULL) {
                        heap_give(table->heap, claim, size);
                        return NULL;
                }
        }
        claim->owner_len = (uint16_t)owner.len;
        memcpy(claim->owner, owner.ptr, owner.len);
        claim->lock = lock;
        claim->set_size = 1;
        claim->timer.kind = TIMER_CLAIM;
        return claim;
}

static void waiting_end(struct lock_table *table, struct claim *claim)
{
        if (claim->waiting != NULL)
                heap_give(table->heap, claim->waiting, sizeof *claim->waiting);
        claim->waiting = NULL;
}

struct lock_block table_unclaim(struct lock_table *table, struct claim *claim)
{
        lock_set_mark(table, claim, 1, 0);
        waiting_end(table, claim);
        return (struct lock_block){claim, offsetof(struct claim, owner) + claim->owner_len};
}

void table_wait(struct lock_table *table, struct claim *claim, struct session *session,
                uint64_t number, uint64_t deadline)
{
        lock_changes(table, claim->lock);
        claim->held = false;
        claim->timer.number = number;
        claim->timer.deadline = deadline;
        claim->session = session;
        claims_insert(&claim->lock->waiters, claim);
        if (session != NULL)
                session_insert(&session->waits, claim);
        struct claim **link = &table->owner_chains[chain_of(table, claim_owner(claim))];
        struct waiting *waiting = claim->waiting;
        waiting->owner_next = *link;
        waiting->owner_link = link;
        if (*link != NULL)
                (*link)->waiting->owner_link = &waiting->owner_next;
        *link = claim;
        timers_add(&table->waits, &claim->timer);
        table->waiter_count++;
}

void table_unwait(struct lock_table *table, struct claim *claim)
{
        CHECK(!claim->held);
        lock_changes(table, claim->lock);
        claims_remove(&claim->lock->waiters, claim);
        if (claim->session != NULL)
                session_take(&claim->session->waits, claim);
        struct waiting *waiting = claim->waiting;
        *waiting->owner_link = waiting->owner_next;
        if (waiting->owner_next != NULL)
                waiting->owner_next->waiting->owner_link = waiting->owner_link;
        waiting_end(table, claim);
        timers_remove(&table->waits, &claim->timer);
        table->waiter_count--;
}

void table_hold(struct lock_table *table, struct claim *claim, struct session *session,
                uint64_t token, uint64_t deadline)
{
        struct lock *lock = claim->lock;
        lock_changes(table, lock);
        claim->held = true;
        claim->timer.number = token;
        claim->timer.deadline = deadline;
        claim->session = session;
        claims_insert(&lock->holders, claim);
        if (session != NULL)
                session_insert(&session->held, claim);
        else
                timers_add(&table->leases, &claim->timer);
        table->holder_count++;
        if (token > lock->timer.number) {
                CHECK(!lock->delayed && table->last->timer.number < token);
                list_remove(table, lock);
                lock->timer.number = token;
                lock->saved = false; /* a capture's walk ends before it */
                list_append(table, lock);
        }
}

void table_unhold(struct lock_table *table, struct claim *claim)
{
        CHECK(claim->held);
        lock_changes(table, claim->lock);
        claims_remove(&claim->lock->holders, claim);
        if (claim->session != NULL)
                session_take(&claim->session->held, claim);
        else
                timers_remove(&table->leases, &claim->timer);
        table->holder_count--;
}

void table_extend(struct lock_table *table, struct timer *timer, uint64_t deadline)
{
        bool waits = timer->kind == TIMER_CLAIM && !((struct claim *)timer)->held;
        if (timer->kind == TIMER_CLAIM)
                lock_changes(table, ((struct claim *)timer)->lock);
        timers_move(waits ? &table->waits : &table->leases, timer, deadline);
}

void table_delay(struct lock_table *table, struct lock *lock, uint64_t deadline)
{
        lock_changes(table, lock);
        if (lock->delayed) {
                timers_remove(&table->leases, &lock->timer);
                table->delay_count--;
        }
        lock->delayed = deadline != 0;
        lock->timer.deadline = deadline;
        if (lock->delayed) {
                timers_add(&table->leases, &lock->timer);
                table->delay_count++;
        }
}

bool table_delay_first(struct lock_table *table, struct lock *lock, uint64_t deadline)
{
        if (!leases_reserve(table))
                return false;
        table_delay(table, lock, deadline);
        return true;
}

struct claim *table_holder(const struct lock *lock, struct bytes owner)
{
        struct claim *claim = lock->holders.first;
        while (claim != NULL && !bytes_equal(claim_owner(claim), owner))
                claim = claim->next;
        return claim;
}

struct claim *table_waiter(const struct lock *lock, struct bytes owner)
{
        struct claim *claim = lock->waiters.first;
        while (claim != NULL && !bytes_equal(claim_owner(claim), owner))
                claim = claim->next;
        return claim;
}

struct claim *table_owner_chain(const struct lock_table *table, struct bytes owner)
{
        return table->owner_chains == NULL ? NULL : table->owner_chains[chain_of(table, owner)];
}

struct session *table_session_insert(struct lock_table *table, uint64_t id, struct bytes owner,
                                     uint64_t deadline)
{
        CHECK(table->session_last == NULL || table->session_last->timer.number < id);
        if (table->session_chains == NULL)
                table->session_chains =
                        heap_alloc_array(table->heap, LOCK_CHAINS, sizeof(struct session *));
        if (table->session_chains == NULL || !leases_reserve(table))
                return NULL;
        CHECK(owner.len <= LOCK_OWNER_BYTES_MAX);
        struct session *session =
                heap_take(table->heap, offsetof(struct session, owner) + owner.len);
        if (session == NULL)
                return NULL;
        session->owner_len = (uint16_t)owner.len;
        memcpy(session->owner, owner.ptr, owner.len);
        session->timer = (struct timer){.deadline = deadline, .number = id, .kind = TIMER_SESSION};
        session->chain = table->session_chains[id % LOCK_CHAINS];
        table->session_chains[id % LOCK_CHAINS] = session;
        session->before = table->session_last;
        if (table->session_last == NULL)
                table->session_first = session;
        else
                table->session_last->next = session;
        table->session_last = session;
        timers_add(&table->leases, &session->timer);
        table->session_count++;
        return session;
}

struct session *table_session_find(const struct lock_table *table, uint64_t id)
{
        if (table->session_chains == NULL)
                return NULL;
        struct session *session = table->session_chains[id % LOCK_CHAINS];
        while (session != NULL && session->timer.number != id)
                session = session->chain;
        return session;
}

static struct lock_block session_block(struct session *session)
{
        return (struct lock_block){session, offsetof(struct session, owner) + session->owner_len};
}

struct lock_block table_session_remove(struct lock_table *table, struct session *session)
{
        CHECK(session->held.count == 0 && session->waits.count == 0);
        struct session **link = &table->session_chains[session->timer.number % LOCK_CHAINS];
        while (*link != session)
                link = &(*link)->chain;
        *link = session->chain;
        if (session->before == NULL)
                table->session_first = session->next;
        else
                session->before->next = session->next;
        if (session->next == NULL)
                table->session_last = session->before;
        else
                session->next->before = session->before;
        timers_remove(&table->leases, &session->timer);
        table->session_count--;
        return session_block(session);
}

static void block_give(struct heap *heap, struct lock_block block)
{
        heap_give(heap, block.ptr, block.size);
}

static void claims_drop(struct lock_table *table, struct claims *list)
{
        while (list->first != NULL) {
                struct claim *claim = list->first;
                list->first = claim->next;
                block_give(table->heap, table_unclaim(table, claim));
        }
}

/* What a table holds, without what it is. */
static void content_move(struct lock_table *to, const struct lock_table *from)
{
        to->count = from->count;
        to->delay_count = from->delay_count;
        to->holder_count = from->holder_count;
        to->waiter_count = from->waiter_count;
        to->session_count = from->session_count;
        to->set_count = from->set_count;
        to->buckets = from->buckets;
        to->bucket_count = from->bucket_count;
        to->first = from->first;
        to->last = from->last;
        to->session_first = from->session_first;
        to->session_last = from->session_last;
        to->session_chains = from->session_chains;
        to->owner_chains = from->owner_chains;
        to->leases = from->leases;
        to->waits = from->waits;
        to->touched_first = from->touched_first;
        to->touched_last = from->touched_last;
}

static const struct lock_table nothing;

void table_expect(struct lock_table *table, size_t count)
{
        size_t buckets = BUCKETS_MIN;
        CHECK(table->count == 0);
        while (buckets <= count)
                buckets *= 2;
        if (buckets <= table->bucket_count)
                return;
        struct lock **made = heap_alloc_array(table->heap, buckets, sizeof(struct lock *));
        if (made == NULL)
                return;
        heap_free(table->heap, table->buckets);
        table->buckets = made;
        table->bucket_count = buckets;
}

/* The youngest first, so that memory goes back to the system by and by, not all at the end. */
bool lock_table_sweep(struct lock_table *table, size_t bytes)
{
        size_t left = bytes / sizeof(struct lock);
        lock_capture_end(table);
        for (; table->last != NULL && left > 0; left--) {
                struct lock *lock = table->last;
                table->last = lock->before;
                size_t claims = lock->holders.count + lock->waiters.count;
                left -= left - 1 < claims ? left - 1 : claims;
                claims_drop(table, &lock->holders);
                claims_drop(table, &lock->waiters);
                block_give(table->heap, lock_block(lock));
        }
        return table->last == NULL;
}

void table_clear(struct lock_table *table)
{
        while (!lock_table_sweep(table, SIZE_MAX))
                ;
        for (struct session *session = table->session_first; session != NULL;) {
                struct session *next = session->next;
                block_give(table->heap, session_block(session));
                session = next;
        }
        heap_free(table->heap, table->buckets);
        heap_free(table->heap, table->session_chains);
        heap_free(table->heap, table->owner_chains);
        heap_free(table->heap, table->leases.items);
        heap_free(table->heap, table->waits.items);
        content_move(table, &nothing);
        *table->cursor = NULL;
}

void table_move(struct lock_table *table, struct lock_table *from)
{
        table_clear(table);
        lock_events_free(table);
        table->time_ms = from->time_ms;
        table->last_token = from->last_token;
        table->last_waiter = from->last_waiter;
        content_move(table, from);
        content_move(from, &nothing);
}
