/* The table as bytes. Sessions are written by id, locks by rising newest token, holders by token
 * and waiters by arrival, so equal tables give equal bytes.
 *
 *   u8 version (2), varints time, last token, last waiter number
 *   varint count of sessions; each: slice owner, varints id, deadline, ttl
 *   varint count of locks; each:
 *     slice key, varints newest token, end of the delay (0: none), slots
 *     varint count of holders; each: claim, varints token, deadline (0: by its session)
 *     varint count of waiters; each: claim, varints number, deadline, node, incarnation, sequence
 *   a claim: slice owner, varints slots, ttl, delay, session (0: none)
 *
 * Version 1, which is still read:
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
        SNAPSHOT_VERSION_OLD = 1,
        SNAPSHOT_VERSION = 2,
};

#define NUMBER_MAX (UINT64_MAX >> 2)

static void claim_encode(const struct claim *claim, struct buffer *out)
{
        buffer_slice(out, claim->owner);
        buffer_varint(out, claim->slots);
        buffer_varint(out, claim->ttl_ms);
        buffer_varint(out, claim->delay_ms);
        buffer_varint(out, claim->session == NULL ? 0 : claim->session->timer.number);
}

static void holder_encode(const struct claim *holder, struct buffer *out)
{
        claim_encode(holder, out);
        buffer_varint(out, holder->timer.number);
        buffer_varint(out, holder->session == NULL ? holder->timer.deadline : 0);
}

static void waiter_encode(const struct claim *waiter, struct buffer *out)
{
        claim_encode(waiter, out);
        buffer_varint(out, waiter->timer.number);
        buffer_varint(out, waiter->timer.deadline);
        buffer_varint(out, waiter->origin.node);
        buffer_varint(out, waiter->origin.incarnation);
        buffer_varint(out, waiter->origin.sequence);
}

static void lock_encode(const struct lock *lock, struct buffer *out)
{
        buffer_slice(out, lock->key);
        buffer_varint(out, lock->timer.number);
        buffer_varint(out, lock->delayed ? lock->timer.deadline : 0);
        buffer_varint(out, lock->holders.count > 0 ? lock->slots : 1);
        buffer_varint(out, lock->holders.count);
        for (const struct claim *claim = lock->holders.first; claim != NULL; claim = claim->next)
                holder_encode(claim, out);
        buffer_varint(out, lock->waiters.count);
        for (const struct claim *claim = lock->waiters.first; claim != NULL; claim = claim->next)
                waiter_encode(claim, out);
}

void lock_table_encode(const struct lock_table *table, struct buffer *out)
{
        buffer_u8(out, SNAPSHOT_VERSION);
        buffer_varint(out, table->time_ms);
        buffer_varint(out, table->last_token);
        buffer_varint(out, table->last_waiter);
        buffer_varint(out, table->session_count);
        for (const struct session *s = table->session_first; s != NULL; s = s->next) {
                buffer_slice(out, s->owner);
                buffer_varint(out, s->timer.number);
                buffer_varint(out, s->timer.deadline);
                buffer_varint(out, s->ttl_ms);
        }
        buffer_varint(out, table->count);
        for (const struct lock *lock = table->first; lock != NULL; lock = lock->next)
                lock_encode(lock, out);
}

/* A name of 1 to `max` bytes. */
static struct bytes name_decode(struct cursor *cursor, size_t max)
{
        struct bytes name = cursor_slice(cursor);
        if (name.len == 0 || name.len > max)
                cursor_fail(cursor, ERR_MALFORMED);
        return name;
}

static void want(struct cursor *cursor, bool good)
{
        if (!good && !cursor_failed(cursor))
                cursor_fail(cursor, ERR_MALFORMED);
}

/* A time after the table's, by no more than `span`. */
static uint64_t deadline_decode(struct cursor *cursor, const struct lock_table *table,
                                uint64_t span)
{
        uint64_t deadline = cursor_varint_max(cursor, NUMBER_MAX);
        want(cursor, deadline > table->time_ms && deadline - table->time_ms <= span);
        return deadline;
}

static uint64_t ttl_decode(struct cursor *cursor)
{
        uint64_t ttl_ms = cursor_varint_max(cursor, LOCK_TTL_MS_MAX);
        want(cursor, ttl_ms >= LOCK_TTL_MS_MIN);
        return ttl_ms;
}

static uint32_t slots_decode(struct cursor *cursor)
{
        uint32_t slots = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        want(cursor, slots != 0 && (slots <= LOCK_SLOTS_MAX || slots == LOCK_SHARED));
        return slots;
}

static struct lock_origin origin_decode(struct cursor *cursor)
{
        struct lock_origin origin = {0};
        origin.node = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
        origin.incarnation = cursor_varint(cursor);
        origin.sequence = cursor_varint(cursor);
        return origin;
}

/* What is known of a claim before it is put into the table. */
struct draft {
        struct bytes owner;
        uint32_t slots;
        uint64_t ttl_ms;
        uint64_t delay_ms;
        struct session *session;
        uint64_t number;
        uint64_t deadline;
        struct lock_origin origin;
};

static void claim_decode(struct cursor *cursor, const struct lock_table *table, struct draft *draft)
{
        draft->owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
        draft->slots = slots_decode(cursor);
        /* A claim of a session may say anything about its own lease. */
        draft->ttl_ms = cursor_varint(cursor);
        draft->delay_ms = cursor_varint_max(cursor, LOCK_DELAY_MS_MAX);
        uint64_t id = cursor_varint(cursor);
        if (id == 0) {
                want(cursor, draft->ttl_ms >= LOCK_TTL_MS_MIN && draft->ttl_ms <= LOCK_TTL_MS_MAX);
                return;
        }
        draft->session = table_session_find(table, id);
        want(cursor,
             draft->session != NULL && bytes_equal(draft->session->owner, draft->owner) &&
                     draft->session->held.count + draft->session->waits.count < LOCK_CLAIMS_MAX);
}

static struct claim *claim_insert(struct cursor *cursor, struct lock_table *table,
                                  struct lock *lock, const struct draft *draft)
{
        want(cursor,
             table_holder(lock, draft->owner) == NULL && table_waiter(lock, draft->owner) == NULL);
        if (cursor_failed(cursor))
                return NULL;
        struct claim *claim = table_claim(table, lock, draft->owner);
        if (claim == NULL) {
                cursor_fail(cursor, ERR_NOMEM);
                return NULL;
        }
        claim->slots = draft->slots;
        claim->ttl_ms = draft->ttl_ms;
        claim->delay_ms = draft->delay_ms;
        claim->origin = draft->origin;
        return claim;
}

static void holder_insert(struct cursor *cursor, struct lock_table *table, struct lock *lock,
                          const struct draft *draft)
{
        uint64_t before = lock->holders.last == NULL ? 0 : lock->holders.last->timer.number;
        want(cursor, draft->number > before && draft->number <= lock->timer.number &&
                             draft->slots == lock->slots && lock->holders.count < lock->slots);
        struct claim *claim = claim_insert(cursor, table, lock, draft);
        if (claim != NULL)
                table_hold(table, claim, draft->session, draft->number, draft->deadline);
}

static void waiter_insert(struct cursor *cursor, struct lock_table *table, struct lock *lock,
                          const struct draft *draft)
{
        uint64_t before = lock->waiters.last == NULL ? 0 : lock->waiters.last->timer.number;
        want(cursor, draft->number > before && table->waiter_count < LOCK_WAITERS_ALL_MAX);
        struct claim *claim = claim_insert(cursor, table, lock, draft);
        if (claim != NULL)
                table_wait(table, claim, draft->session, draft->number, draft->deadline);
}

static void holder_decode(struct cursor *cursor, struct lock_table *table, struct lock *lock)
{
        struct draft draft = {0};
        claim_decode(cursor, table, &draft);
        draft.number = cursor_varint_max(cursor, table->last_token);
        if (draft.session == NULL)
                draft.deadline = deadline_decode(cursor, table, LOCK_TTL_MS_MAX);
        else
                want(cursor, cursor_varint(cursor) == 0);
        holder_insert(cursor, table, lock, &draft);
}

static void waiter_decode(struct cursor *cursor, struct lock_table *table, struct lock *lock)
{
        struct draft draft = {0};
        claim_decode(cursor, table, &draft);
        draft.number = cursor_varint_max(cursor, table->last_waiter);
        draft.deadline = deadline_decode(cursor, table, LOCK_WAIT_MS_MAX);
        draft.origin = origin_decode(cursor);
        waiter_insert(cursor, table, lock, &draft);
}

static struct lock *lock_insert(struct cursor *cursor, struct lock_table *table, struct bytes key,
                                uint64_t token)
{
        uint64_t before = table->last == NULL ? 0 : table->last->timer.number;
        want(cursor, token > before && lock_slots_find(table, key) == NULL);
        if (cursor_failed(cursor))
                return NULL;
        struct lock *lock = lock_slots_insert(table, key, token);
        if (lock == NULL)
                cursor_fail(cursor, ERR_NOMEM);
        return lock;
}

/* Nobody waits who could hold it, and it is there for a reason. */
static bool lock_sound(const struct lock *lock)
{
        const struct claim *head = lock->waiters.first;
        if (lock->delayed)
                return true;
        if (lock->holders.count == 0)
                return false;
        return head == NULL || head->slots != lock->slots || lock->holders.count >= lock->slots ||
               lock->holders.count >= LOCK_HOLDERS_MAX;
}

static void lock_decode(struct cursor *cursor, struct lock_table *table)
{
        struct bytes key = name_decode(cursor, LOCK_KEY_BYTES_MAX);
        uint64_t token = cursor_varint_max(cursor, table->last_token);
        uint64_t delayed = cursor_varint_max(cursor, NUMBER_MAX);
        want(cursor, delayed == 0 || (delayed > table->time_ms &&
                                      delayed - table->time_ms <= LOCK_DELAY_MS_MAX));
        uint32_t slots = slots_decode(cursor);
        struct lock *lock = lock_insert(cursor, table, key, token);
        if (lock == NULL)
                return;
        lock->slots = slots;
        uint64_t holders = cursor_varint_max(cursor, LOCK_HOLDERS_MAX);
        want(cursor, holders > 0 || slots == 1);
        for (uint64_t i = 0; i < holders && !cursor_failed(cursor); i++)
                holder_decode(cursor, table, lock);
        uint64_t waiters = cursor_varint_max(cursor, LOCK_WAITERS_MAX);
        /* The first claim has made room for a delay, or there is none. */
        if (delayed != 0 && !cursor_failed(cursor) && !table_delay_first(table, lock, delayed))
                cursor_fail(cursor, ERR_NOMEM);
        for (uint64_t i = 0; i < waiters && !cursor_failed(cursor); i++)
                waiter_decode(cursor, table, lock);
        want(cursor, lock_sound(lock));
}

static void lock_decode_old(struct cursor *cursor, struct lock_table *table)
{
        struct bytes key = name_decode(cursor, LOCK_KEY_BYTES_MAX);
        struct draft draft = {.slots = 1, .ttl_ms = LOCK_TTL_MS_MIN};
        draft.owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
        draft.number = cursor_varint_max(cursor, table->last_token);
        draft.deadline = deadline_decode(cursor, table, LOCK_TTL_MS_MAX);
        uint64_t waiters = cursor_varint_max(cursor, LOCK_WAITERS_MAX);
        struct lock *lock = lock_insert(cursor, table, key, draft.number);
        if (lock == NULL)
                return;
        lock->slots = 1;
        holder_insert(cursor, table, lock, &draft);
        for (uint64_t i = 0; i < waiters && !cursor_failed(cursor); i++) {
                draft = (struct draft){.slots = 1};
                draft.owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
                draft.number = cursor_varint_max(cursor, table->last_waiter);
                draft.deadline = deadline_decode(cursor, table, LOCK_WAIT_MS_MAX);
                draft.ttl_ms = ttl_decode(cursor);
                draft.origin = origin_decode(cursor);
                waiter_insert(cursor, table, lock, &draft);
        }
}

static void session_decode(struct cursor *cursor, struct lock_table *table)
{
        struct bytes owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
        uint64_t id = cursor_varint_max(cursor, table->last_token);
        uint64_t deadline = deadline_decode(cursor, table, LOCK_TTL_MS_MAX);
        uint64_t ttl_ms = ttl_decode(cursor);
        uint64_t before = table->session_last == NULL ? 0 : table->session_last->timer.number;
        want(cursor, id > before);
        if (cursor_failed(cursor))
                return;
        struct session *session = table_session_insert(table, id, owner, deadline);
        if (session == NULL)
                cursor_fail(cursor, ERR_NOMEM);
        else
                session->ttl_ms = ttl_ms;
}

static enum err table_decode(struct lock_table *table, struct bytes data)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        bool old = version == SNAPSHOT_VERSION_OLD;
        if (!cursor_failed(&cursor) && !old && version != SNAPSHOT_VERSION)
                return ERR_VERSION;
        table->time_ms = cursor_varint_max(&cursor, NUMBER_MAX);
        table->last_token = cursor_varint_max(&cursor, NUMBER_MAX);
        table->last_waiter = cursor_varint_max(&cursor, NUMBER_MAX);
        uint64_t sessions = old ? 0 : cursor_varint_max(&cursor, LOCK_SESSIONS_MAX);
        for (uint64_t i = 0; i < sessions && !cursor_failed(&cursor); i++)
                session_decode(&cursor, table);
        uint64_t count = cursor_varint_max(&cursor, LOCK_COUNT_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(&cursor); i++) {
                if (old)
                        lock_decode_old(&cursor, table);
                else
                        lock_decode(&cursor, table);
        }
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
