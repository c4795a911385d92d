/* The table as bytes. Locks are written by rising token and waiters by arrival, so equal
 * tables give equal bytes.
 *
 *   u8 version (1), varints time, last token, last waiter number, count of locks; each lock:
 *     slices key, owner; varints token, deadline, count of waiters; each waiter:
 *       slice owner; varints number, deadline, ttl, node, incarnation, sequence
 *
 * Decoding builds a table beside, and takes it over only when all of it is good. */
#include "base/check.h"
#include "base/cursor.h"
#include "lock/table.h"

enum {
        SNAPSHOT_VERSION = 1,
};

#define NUMBER_MAX (UINT64_MAX >> 2)

static void waiter_encode(const struct waiter *waiter, struct buffer *out)
{
        buffer_slice(out, waiter->owner);
        buffer_varint(out, waiter->timer.number);
        buffer_varint(out, waiter->timer.deadline);
        buffer_varint(out, waiter->ttl_ms);
        buffer_varint(out, waiter->origin.node);
        buffer_varint(out, waiter->origin.incarnation);
        buffer_varint(out, waiter->origin.sequence);
}

void lock_table_encode(const struct lock_table *table, struct buffer *out)
{
        buffer_u8(out, SNAPSHOT_VERSION);
        buffer_varint(out, table->time_ms);
        buffer_varint(out, table->last_token);
        buffer_varint(out, table->last_waiter);
        buffer_varint(out, table->count);
        for (const struct lock *lock = table->first; lock != NULL; lock = lock->next) {
                buffer_slice(out, lock->key);
                buffer_slice(out, lock->owner);
                buffer_varint(out, lock->timer.number);
                buffer_varint(out, lock->timer.deadline);
                buffer_varint(out, lock->waiter_count);
                for (const struct waiter *w = lock->waiter_first; w != NULL; w = w->next)
                        waiter_encode(w, out);
        }
}

/* A name of 1 to `max` bytes. */
static struct bytes name_decode(struct cursor *cursor, size_t max)
{
        struct bytes name = cursor_slice(cursor);
        if (name.len == 0 || name.len > max)
                cursor_fail(cursor, ERR_MALFORMED);
        return name;
}

/* A time after the table's, by no more than `span`. */
static uint64_t deadline_decode(struct cursor *cursor, const struct lock_table *table,
                                uint64_t span)
{
        uint64_t deadline = cursor_varint_max(cursor, NUMBER_MAX);
        if (deadline <= table->time_ms || deadline - table->time_ms > span)
                cursor_fail(cursor, ERR_MALFORMED);
        return deadline;
}

static bool owner_waits(const struct lock *lock, struct bytes owner)
{
        const struct waiter *waiter = lock->waiter_first;
        while (waiter != NULL && !bytes_equal(waiter->owner, owner))
                waiter = waiter->next;
        return waiter != NULL;
}

static void waiter_decode(struct cursor *cursor, struct lock_table *table, struct lock *lock)
{
        struct bytes owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
        uint64_t number = cursor_varint_max(cursor, table->last_waiter);
        uint64_t deadline = deadline_decode(cursor, table, LOCK_WAIT_MS_MAX);
        uint64_t ttl_ms = cursor_varint_max(cursor, LOCK_TTL_MS_MAX);
        struct lock_origin origin = {0};
        origin.node = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        origin.incarnation = cursor_varint(cursor);
        origin.sequence = cursor_varint(cursor);
        uint64_t before = lock->waiter_last == NULL ? 0 : lock->waiter_last->timer.number;
        if (cursor_failed(cursor))
                return;
        if (number <= before || ttl_ms < LOCK_TTL_MS_MIN ||
            table->waiter_count >= LOCK_WAITERS_ALL_MAX || bytes_equal(owner, lock->owner) ||
            owner_waits(lock, owner)) {
                cursor_fail(cursor, ERR_MALFORMED);
                return;
        }
        struct waiter *waiter = table_wait(table, lock, owner, number, deadline);
        if (waiter == NULL) {
                cursor_fail(cursor, ERR_NOMEM);
                return;
        }
        waiter->origin = origin;
        waiter->ttl_ms = ttl_ms;
}

static void lock_decode(struct cursor *cursor, struct lock_table *table)
{
        struct bytes key = name_decode(cursor, LOCK_KEY_BYTES_MAX);
        struct bytes owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
        uint64_t token = cursor_varint_max(cursor, table->last_token);
        uint64_t deadline = deadline_decode(cursor, table, LOCK_TTL_MS_MAX);
        uint64_t waiters = cursor_varint_max(cursor, LOCK_WAITERS_MAX);
        uint64_t before = table->last == NULL ? 0 : table->last->timer.number;
        if (cursor_failed(cursor))
                return;
        if (token <= before || lock_slots_find(table, key) != NULL) {
                cursor_fail(cursor, ERR_MALFORMED);
                return;
        }
        struct lock *lock = lock_slots_insert(table, key, owner, token, deadline);
        if (lock == NULL) {
                cursor_fail(cursor, ERR_NOMEM);
                return;
        }
        for (uint64_t i = 0; i < waiters && !cursor_failed(cursor); i++)
                waiter_decode(cursor, table, lock);
}

static enum err table_decode(struct lock_table *table, struct bytes data)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        if (!cursor_failed(&cursor) && version != SNAPSHOT_VERSION)
                return ERR_VERSION;
        table->time_ms = cursor_varint_max(&cursor, NUMBER_MAX);
        table->last_token = cursor_varint_max(&cursor, NUMBER_MAX);
        table->last_waiter = cursor_varint_max(&cursor, NUMBER_MAX);
        uint64_t count = cursor_varint_max(&cursor, LOCK_COUNT_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(&cursor); i++)
                lock_decode(&cursor, table);
        return cursor_done(&cursor);
}

enum err lock_table_decode(struct lock_table *table, struct bytes data)
{
        struct lock_table *beside = NULL;
        enum err err = lock_table_new(table->heap, table->seed, &beside);
        if (err != ERR_NONE)
                return err;
        err = table_decode(beside, data);
        if (err == ERR_NONE)
                table_move(table, beside);
        lock_table_free(beside);
        return err;
}
