/* The structures of the table: hash chains, the list by token, the two heaps of
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
        timer->at = at;
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

static bool timers_reserve(struct heap *heap, struct timers *timers)
{
        if (timers->count < timers->size)
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
        timer->at = timers->count++;
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
        while (lock != NULL && !bytes_equal(lock->key, key))
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
                struct lock **bucket = table_bucket(table, lock->key);
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
        if (lock->before == NULL)
                table->first = lock->next;
        else
                lock->before->next = lock->next;
        if (lock->next == NULL)
                table->last = lock->before;
        else
                lock->next->before = lock->before;
}

static void bytes_free(struct lock_table *table, struct bytes data)
{
        heap_free_bytes(table->heap, data);
}

struct lock *lock_slots_insert(struct lock_table *table, struct bytes key, struct bytes owner,
                               uint64_t token, uint64_t deadline)
{
        CHECK(lock_slots_find(table, key) == NULL);
        CHECK(table->last == NULL || table->last->timer.number < token);
        if (!table_reserve(table) || !timers_reserve(table->heap, &table->leases))
                return NULL;
        struct lock *lock = heap_alloc(table->heap, sizeof *lock);
        if (lock == NULL)
                return NULL;
        if (!heap_copy(table->heap, key, &lock->key) ||
            !heap_copy(table->heap, owner, &lock->owner)) {
                bytes_free(table, lock->key);
                heap_free(table->heap, lock);
                return NULL;
        }
        lock->timer.deadline = deadline;
        lock->timer.number = token;
        struct lock **bucket = table_bucket(table, key);
        lock->chain = *bucket;
        *bucket = lock;
        list_append(table, lock);
        timers_add(&table->leases, &lock->timer);
        table->count++;
        return lock;
}

struct waiter *table_wait(struct lock_table *table, struct lock *lock, struct bytes owner,
                          uint64_t number, uint64_t deadline)
{
        if (!timers_reserve(table->heap, &table->waits))
                return NULL;
        struct waiter *waiter = heap_alloc(table->heap, sizeof *waiter);
        if (waiter == NULL)
                return NULL;
        if (!heap_copy(table->heap, owner, &waiter->owner)) {
                heap_free(table->heap, waiter);
                return NULL;
        }
        waiter->timer.deadline = deadline;
        waiter->timer.number = number;
        waiter->lock = lock;
        waiter->before = lock->waiter_last;
        if (lock->waiter_last == NULL)
                lock->waiter_first = waiter;
        else
                lock->waiter_last->next = waiter;
        lock->waiter_last = waiter;
        lock->waiter_count++;
        table->waiter_count++;
        timers_add(&table->waits, &waiter->timer);
        return waiter;
}

struct bytes table_unwait(struct lock_table *table, struct waiter *waiter)
{
        struct lock *lock = waiter->lock;
        if (waiter->before == NULL)
                lock->waiter_first = waiter->next;
        else
                waiter->before->next = waiter->next;
        if (waiter->next == NULL)
                lock->waiter_last = waiter->before;
        else
                waiter->next->before = waiter->before;
        lock->waiter_count--;
        table->waiter_count--;
        timers_remove(&table->waits, &waiter->timer);
        struct bytes owner = waiter->owner;
        heap_free(table->heap, waiter);
        return owner;
}

void lock_slots_remove(struct lock_table *table, struct lock *lock)
{
        CHECK(lock->waiter_count == 0);
        struct lock **link = table_bucket(table, lock->key);
        while (*link != lock)
                link = &(*link)->chain;
        *link = lock->chain;
        list_remove(table, lock);
        timers_remove(&table->leases, &lock->timer);
        table->count--;
        heap_free(table->heap, lock);
}

void table_regrant(struct lock_table *table, struct lock *lock, struct bytes owner, uint64_t token,
                   uint64_t deadline)
{
        CHECK(table->last->timer.number < token);
        list_remove(table, lock);
        list_append(table, lock);
        timers_remove(&table->leases, &lock->timer);
        lock->owner = owner;
        lock->timer.number = token;
        lock->timer.deadline = deadline;
        timers_add(&table->leases, &lock->timer);
}

void table_extend(struct lock_table *table, struct lock *lock, uint64_t deadline)
{
        timers_move(&table->leases, &lock->timer, deadline);
}

void table_extend_wait(struct lock_table *table, struct waiter *waiter, uint64_t deadline)
{
        timers_move(&table->waits, &waiter->timer, deadline);
}

static void lock_drop(struct lock_table *table, struct lock *lock)
{
        while (lock->waiter_first != NULL) {
                struct waiter *waiter = lock->waiter_first;
                lock->waiter_first = waiter->next;
                bytes_free(table, waiter->owner);
                heap_free(table->heap, waiter);
        }
        bytes_free(table, lock->key);
        bytes_free(table, lock->owner);
        heap_free(table->heap, lock);
}

void table_clear(struct lock_table *table)
{
        for (struct lock *lock = table->first; lock != NULL;) {
                struct lock *next = lock->next;
                lock_drop(table, lock);
                lock = next;
        }
        heap_free(table->heap, table->buckets);
        heap_free(table->heap, table->leases.items);
        heap_free(table->heap, table->waits.items);
        table->buckets = NULL;
        table->bucket_count = 0;
        table->first = NULL;
        table->last = NULL;
        table->leases = (struct timers){0};
        table->waits = (struct timers){0};
        table->count = 0;
        table->waiter_count = 0;
        *table->cursor = NULL;
}

void table_move(struct lock_table *table, struct lock_table *from)
{
        table_clear(table);
        table->time_ms = from->time_ms;
        table->last_token = from->last_token;
        table->last_waiter = from->last_waiter;
        table->count = from->count;
        table->waiter_count = from->waiter_count;
        table->buckets = from->buckets;
        table->bucket_count = from->bucket_count;
        table->first = from->first;
        table->last = from->last;
        table->leases = from->leases;
        table->waits = from->waits;
        from->buckets = NULL;
        from->bucket_count = 0;
        from->first = NULL;
        from->last = NULL;
        from->leases = (struct timers){0};
        from->waits = (struct timers){0};
        from->count = 0;
        from->waiter_count = 0;
}

static void timers_check(const struct timers *timers)
{
        for (size_t i = 0; i < timers->count; i++) {
                CHECK(timers->items[i]->at == i);
                CHECK(i == 0 || !timer_less(timers->items[i], timers->items[(i - 1) / 2]));
        }
}

static size_t waiters_check(const struct lock_table *table, const struct lock *lock)
{
        size_t count = 0;
        uint64_t number = 0;
        const struct waiter *before = NULL;
        for (const struct waiter *w = lock->waiter_first; w != NULL; w = w->next) {
                CHECK(w->lock == lock && w->before == before);
                CHECK(w->timer.number > number && w->timer.number <= table->last_waiter);
                CHECK(w->timer.deadline > table->time_ms);
                CHECK(!bytes_equal(w->owner, lock->owner));
                CHECK(table->waits.items[w->timer.at] == &w->timer);
                number = w->timer.number;
                before = w;
                count++;
        }
        CHECK(lock->waiter_last == before);
        CHECK(lock->waiter_count == count);
        return count;
}

void lock_table_check(const struct lock_table *table)
{
        timers_check(&table->leases);
        timers_check(&table->waits);
        size_t count = 0;
        size_t waiters = 0;
        uint64_t token = 0;
        const struct lock *before = NULL;
        for (const struct lock *lock = table->first; lock != NULL; lock = lock->next) {
                CHECK(lock->before == before);
                CHECK(lock->timer.number > token && lock->timer.number <= table->last_token);
                CHECK(lock->timer.deadline > table->time_ms);
                CHECK(table->leases.items[lock->timer.at] == &lock->timer);
                CHECK(lock_slots_find(table, lock->key) == lock);
                waiters += waiters_check(table, lock);
                token = lock->timer.number;
                before = lock;
                count++;
        }
        CHECK(table->last == before);
        CHECK(table->count == count && table->leases.count == count);
        CHECK(table->waiter_count == waiters && table->waits.count == waiters);
}
