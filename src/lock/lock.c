/* The rules of locks: one function an operation, from a table.
 *
 *   apply -> time moves on: waits end, leases end (the next waiter gets the lock) -> the operation
 *
 * A wait that ends at the same time as the lease before it ends first, so nobody is granted a lock
 * that it no longer waits for. What is refused changes nothing but the time. */
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
                heap_free_bytes(table->heap, table->garbage[i]);
        table->garbage_count = 0;
}

void lock_table_free(struct lock_table *table)
{
        if (table == NULL)
                return;
        table_clear(table);
        garbage_free(table);
        heap_free(table->heap, table->garbage);
        heap_free(table->heap, table->results);
        heap_free(table->heap, table->cursor);
        heap_free(table->heap, table);
}

/* Keeps bytes that a result borrows until the next call. */
static void garbage_add(struct lock_table *table, struct bytes data)
{
        if (table->garbage_count == table->garbage_size) {
                size_t size = table->garbage_size == 0 ? 16 : table->garbage_size * 2;
                struct bytes *garbage =
                        heap_resize(table->heap, table->garbage, size * sizeof *garbage);
                if (garbage == NULL) {
                        heap_free_bytes(table->heap, data);
                        table->fatal = true; /* so no result is shown that borrows them */
                        return;
                }
                table->garbage = garbage;
                table->garbage_size = size;
        }
        table->garbage[table->garbage_count++] = data;
}

static void result_add(struct lock_table *table, struct lock_result result)
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

static uint64_t ttl_left(const struct lock_table *table, const struct lock *lock)
{
        return lock->timer.deadline - table->time_ms;
}

static void answer(struct lock_table *table, const struct lock_command *command,
                   enum lock_result_kind kind)
{
        result_add(table, (struct lock_result){
                                  .kind = kind,
                                  .origin = command->origin,
                                  .key = command->key,
                                  .owner = command->owner,
                          });
}

/* An answer about a held lock. */
static void answer_lock(struct lock_table *table, struct lock_origin origin,
                        enum lock_result_kind kind, const struct lock *lock)
{
        result_add(table, (struct lock_result){
                                  .kind = kind,
                                  .origin = origin,
                                  .key = lock->key,
                                  .owner = lock->owner,
                                  .token.value = lock->timer.number,
                                  .ttl_ms = ttl_left(table, lock),
                          });
}

static uint64_t token_next(struct lock_table *table)
{
        uint64_t token = table->last_token + 1;
        table->last_token = token > table->index ? token : table->index;
        return table->last_token;
}

/* The lease is over, for whatever reason: the first waiter gets the lock, or it goes. */
static void lock_pass_on(struct lock_table *table, struct lock *lock)
{
        garbage_add(table, lock->owner);
        struct waiter *waiter = lock->waiter_first;
        if (waiter == NULL) {
                garbage_add(table, lock->key);
                lock_slots_remove(table, lock);
                return;
        }
        struct lock_origin origin = waiter->origin;
        uint64_t deadline = table->time_ms + waiter->ttl_ms;
        struct bytes owner = table_unwait(table, waiter);
        table_regrant(table, lock, owner, token_next(table), deadline);
        answer_lock(table, origin, LOCK_GRANTED, lock);
}

/* Ends a wait and tells whoever waits. */
static void wait_end(struct lock_table *table, struct waiter *waiter, enum lock_result_kind kind)
{
        struct lock_result result = {
                .kind = kind,
                .origin = waiter->origin,
                .key = waiter->lock->key,
                .owner = waiter->owner,
        };
        garbage_add(table, table_unwait(table, waiter));
        result_add(table, result);
}

static void table_advance(struct lock_table *table, uint64_t now_ms)
{
        if (now_ms <= table->time_ms)
                return;
        table->time_ms = now_ms;
        while (table->waits.count > 0 && table->waits.items[0]->deadline <= now_ms) {
                struct timer *timer = table->waits.items[0];
                wait_end(table, (struct waiter *)timer, LOCK_TIMED_OUT);
        }
        while (table->leases.count > 0 && table->leases.items[0]->deadline <= now_ms) {
                struct lock *lock = (struct lock *)table->leases.items[0];
                result_add(table, (struct lock_result){
                                          .kind = LOCK_EXPIRED,
                                          .key = lock->key,
                                          .owner = lock->owner,
                                          .token.value = lock->timer.number,
                                  });
                lock_pass_on(table, lock);
        }
}

static struct waiter *waiter_find(const struct lock *lock, struct bytes owner)
{
        struct waiter *waiter = lock->waiter_first;
        while (waiter != NULL && !bytes_equal(waiter->owner, owner))
                waiter = waiter->next;
        return waiter;
}

static bool origin_equal(const struct lock_origin *a, const struct lock_origin *b)
{
        return a->node == b->node && a->incarnation == b->incarnation && a->sequence == b->sequence;
}

static void acquire_free(struct lock_table *table, const struct lock_command *command)
{
        if (table->count >= LOCK_COUNT_MAX) {
                answer(table, command, LOCK_LIMIT);
                return;
        }
        struct lock *lock = lock_slots_insert(table, command->key, command->owner,
                                              token_next(table), table->time_ms + command->ttl_ms);
        if (lock == NULL) {
                table->fatal = true;
                answer(table, command, LOCK_LIMIT);
                return;
        }
        answer_lock(table, command->origin, LOCK_GRANTED, lock);
}

/* The same owner waits already. */
static void acquire_again(struct lock_table *table, const struct lock_command *command,
                          struct waiter *waiter)
{
        struct lock *lock = waiter->lock;
        if (command->wait_ms == 0) {
                wait_end(table, waiter, LOCK_CANCELLED);
                answer_lock(table, command->origin, LOCK_HELD, lock);
                return;
        }
        if (!origin_equal(&waiter->origin, &command->origin))
                result_add(table, (struct lock_result){
                                          .kind = LOCK_CANCELLED,
                                          .origin = waiter->origin,
                                          .key = lock->key,
                                          .owner = waiter->owner,
                                  });
        waiter->origin = command->origin;
        waiter->ttl_ms = command->ttl_ms;
        table_extend_wait(table, waiter, table->time_ms + command->wait_ms);
        answer_lock(table, command->origin, LOCK_QUEUED, lock);
}

static void acquire_wait(struct lock_table *table, const struct lock_command *command,
                         struct lock *lock)
{
        if (lock->waiter_count >= LOCK_WAITERS_MAX || table->waiter_count >= LOCK_WAITERS_ALL_MAX) {
                answer(table, command, LOCK_LIMIT);
                return;
        }
        struct waiter *waiter = table_wait(table, lock, command->owner, table->last_waiter + 1,
                                           table->time_ms + command->wait_ms);
        if (waiter == NULL) {
                table->fatal = true;
                answer(table, command, LOCK_LIMIT);
                return;
        }
        table->last_waiter++;
        waiter->origin = command->origin;
        waiter->ttl_ms = command->ttl_ms;
        answer_lock(table, command->origin, LOCK_QUEUED, lock);
}

static void lock_acquire(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_slots_find(table, command->key);
        if (lock == NULL) {
                acquire_free(table, command);
                return;
        }
        if (bytes_equal(lock->owner, command->owner)) {
                table_extend(table, lock, table->time_ms + command->ttl_ms);
                answer_lock(table, command->origin, LOCK_GRANTED, lock);
                return;
        }
        struct waiter *waiter = waiter_find(lock, command->owner);
        if (waiter != NULL)
                acquire_again(table, command, waiter);
        else if (command->wait_ms == 0)
                answer_lock(table, command->origin, LOCK_HELD, lock);
        else
                acquire_wait(table, command, lock);
}

/* The lock, if this owner holds it with this token. */
static struct lock *lock_owned(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_slots_find(table, command->key);
        if (lock == NULL || lock->timer.number != command->token.value ||
            !bytes_equal(lock->owner, command->owner))
                return NULL;
        return lock;
}

static void lock_renew(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_owned(table, command);
        if (lock == NULL) {
                answer(table, command, LOCK_NOT_OWNER);
                return;
        }
        table_extend(table, lock, table->time_ms + command->ttl_ms);
        answer_lock(table, command->origin, LOCK_RENEWED, lock);
}

static void lock_release(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_owned(table, command);
        if (lock == NULL) {
                answer(table, command, LOCK_NOT_OWNER);
                return;
        }
        answer_lock(table, command->origin, LOCK_RELEASED, lock);
        lock_pass_on(table, lock);
}

static void lock_cancel(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_slots_find(table, command->key);
        struct waiter *waiter = lock == NULL ? NULL : waiter_find(lock, command->owner);
        if (waiter == NULL || !origin_equal(&waiter->origin, &command->cancelled)) {
                answer(table, command, LOCK_FREE);
                return;
        }
        wait_end(table, waiter, LOCK_CANCELLED);
        answer(table, command, LOCK_CANCELLED);
}

static void lock_break(struct lock_table *table, const struct lock_command *command)
{
        struct lock *lock = lock_slots_find(table, command->key);
        if (lock == NULL) {
                answer(table, command, LOCK_FREE);
                return;
        }
        answer_lock(table, command->origin, LOCK_BROKEN, lock);
        lock_pass_on(table, lock);
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
};

static bool command_valid(const struct lock_command *command, const struct operation *operation)
{
        if (operation->key && (command->key.len == 0 || command->key.len > LOCK_KEY_BYTES_MAX))
                return false;
        if (operation->owner &&
            (command->owner.len == 0 || command->owner.len > LOCK_OWNER_BYTES_MAX))
                return false;
        if (operation->ttl &&
            (command->ttl_ms < LOCK_TTL_MS_MIN || command->ttl_ms > LOCK_TTL_MS_MAX))
                return false;
        return command->wait_ms <= LOCK_WAIT_MS_MAX;
}

const struct lock_result *lock_apply(struct lock_table *table, uint64_t index,
                                     const struct lock_command *command, size_t *ret_count,
                                     bool *ret_fatal)
{
        CHECK(command->op >= LOCK_TIME && command->op < LOCK_OP_COUNT);
        garbage_free(table);
        table->result_count = 0;
        table->index = index;
        table_advance(table, command->now_ms);
        const struct operation *operation = &operations[command->op];
        if (command_valid(command, operation))
                operation->run(table, command);
        else
                answer(table, command, LOCK_INVALID);
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
        return table->count == 0;
}

uint64_t lock_next_deadline(const struct lock_table *table)
{
        uint64_t lease = table->leases.count > 0 ? table->leases.items[0]->deadline : UINT64_MAX;
        uint64_t wait = table->waits.count > 0 ? table->waits.items[0]->deadline : UINT64_MAX;
        return lease < wait ? lease : wait;
}

static struct lock_info info_of(const struct lock_table *table, const struct lock *lock)
{
        return (struct lock_info){
                .owner = lock->owner,
                .token.value = lock->timer.number,
                .ttl_ms = ttl_left(table, lock),
                .waiters = lock->waiter_count,
        };
}

bool lock_find(const struct lock_table *table, struct bytes key, struct lock_info *ret)
{
        const struct lock *lock = lock_slots_find(table, key);
        if (lock == NULL)
                return false;
        *ret = info_of(table, lock);
        return true;
}

bool lock_next(const struct lock_table *table, struct lock_token after, struct bytes *ret_key,
               struct lock_info *ret)
{
        struct lock *lock = *table->cursor;
        if (lock != NULL && lock->timer.number == after.value)
                lock = lock->next;
        else
                for (lock = table->first; lock != NULL && lock->timer.number <= after.value;)
                        lock = lock->next;
        if (lock == NULL)
                return false;
        *table->cursor = lock;
        *ret_key = lock->key;
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
        [LOCK_LIMIT] = "limit",
};

const char *lock_result_name(enum lock_result_kind kind)
{
        if ((unsigned)kind >= LOCK_RESULT_COUNT || result_names[kind] == NULL)
                return "unknown";
        return result_names[kind];
}
