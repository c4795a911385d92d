/* The table as bytes. Sessions are written by id, locks by rising newest token, holders by token
 * and waiters by arrival, so equal tables give equal bytes.
 *
 *   u8 version (2; 3 where there are sets), varints time, last token, last waiter number
 *   varint count of sessions; each: slice owner, varints id, deadline, ttl
 *   varint count of locks; each:
 *     slice key, varints newest token, end of the delay (0: none), slots
 *     varint count of holders; each: claim, varints token, deadline (0: by its session)
 *     varint count of waiters; each: claim, varints number, deadline, node, incarnation, sequence
 *   a claim: slice owner, varints slots, ttl, delay, session (0: none); in version 3 u8 size of its
 *            set (1: alone), u8 place in it
 *
 * Version 1, which is still read:
 *
 *   u8 version (1), varints time, last token, last waiter number, count of locks; each lock:
 *     slices key, owner; varints token, deadline, count of waiters; each waiter:
 *       slice owner; varints number, deadline, ttl, node, incarnation, sequence
 *
 * Reading fills an empty table, in steps; decoding builds one beside, and takes it over only when
 * all of it is good. */
#include "base/check.h"
#include "base/cursor.h"
#include "lock/table.h"

enum {
        SNAPSHOT_VERSION_OLD = 1,
        SNAPSHOT_VERSION = 2,
        SNAPSHOT_VERSION_SETS = 3,
};

enum {
        LOCK_BYTES_MIN = 7, /* of a lock here */
};

#define NUMBER_MAX (UINT64_MAX >> 2)

static void claim_encode(const struct claim *claim, bool sets, struct buffer *out)
{
        buffer_slice(out, claim_owner(claim));
        buffer_varint(out, claim->slots);
        buffer_varint(out, claim->ttl_ms);
        buffer_varint(out, claim->delay_ms);
        buffer_varint(out, claim->session == NULL ? 0 : claim->session->timer.number);
        if (sets) {
                buffer_u8(out, claim->set_size);
                buffer_u8(out, claim->place);
        }
}

static void holder_encode(const struct claim *holder, bool sets, struct buffer *out)
{
        claim_encode(holder, sets, out);
        buffer_varint(out, holder->timer.number);
        buffer_varint(out, holder->session == NULL ? holder->timer.deadline : 0);
}

static void waiter_encode(const struct claim *waiter, bool sets, struct buffer *out)
{
        claim_encode(waiter, sets, out);
        buffer_varint(out, waiter->timer.number);
        buffer_varint(out, waiter->timer.deadline);
        buffer_varint(out, waiter->waiting->origin.node);
        buffer_varint(out, waiter->waiting->origin.incarnation);
        buffer_varint(out, waiter->waiting->origin.sequence);
}

void lock_encode(const struct lock *lock, bool sets, struct buffer *out)
{
        buffer_slice(out, lock_key(lock));
        buffer_varint(out, lock->timer.number);
        buffer_varint(out, lock->delayed ? lock->timer.deadline : 0);
        buffer_varint(out, lock->holders.count > 0 ? lock->slots : 1);
        buffer_varint(out, lock->holders.count);
        for (const struct claim *claim = lock->holders.first; claim != NULL; claim = claim->next)
                holder_encode(claim, sets, out);
        buffer_varint(out, lock->waiters.count);
        for (const struct claim *claim = lock->waiters.first; claim != NULL; claim = claim->next)
                waiter_encode(claim, sets, out);
}

void lock_head_encode(const struct lock_table *table, struct buffer *out)
{
        bool sets = table->set_count > 0;
        buffer_u8(out, sets ? SNAPSHOT_VERSION_SETS : SNAPSHOT_VERSION);
        buffer_varint(out, table->time_ms);
        buffer_varint(out, table->last_token);
        buffer_varint(out, table->last_waiter);
        buffer_varint(out, table->session_count);
        for (const struct session *s = table->session_first; s != NULL; s = s->next) {
                buffer_slice(out, session_owner(s));
                buffer_varint(out, s->timer.number);
                buffer_varint(out, s->timer.deadline);
                buffer_varint(out, s->ttl_ms);
        }
        buffer_varint(out, table->count);
}

void lock_table_encode(const struct lock_table *table, struct buffer *out)
{
        bool sets = table->set_count > 0;
        lock_head_encode(table, out);
        for (const struct lock *lock = table->first; lock != NULL; lock = lock->next)
                lock_encode(lock, sets, out);
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
        bool sets; /* such are told */
        uint8_t set_size;
        uint8_t place;
};

static void set_decode(struct cursor *cursor, struct draft *draft)
{
        draft->set_size = 1;
        if (!draft->sets)
                return;
        draft->set_size = cursor_u8(cursor);
        draft->place = cursor_u8(cursor);
        want(cursor, draft->set_size >= 1 && draft->set_size <= LOCK_SET_MAX &&
                             draft->place < draft->set_size);
}

static void claim_decode(struct cursor *cursor, const struct lock_table *table, struct draft *draft)
{
        draft->owner = name_decode(cursor, LOCK_OWNER_BYTES_MAX);
        draft->slots = slots_decode(cursor);
        /* A claim of a session may say anything about its own lease. */
        draft->ttl_ms = cursor_varint(cursor);
        draft->delay_ms = cursor_varint_max(cursor, LOCK_DELAY_MS_MAX);
        uint64_t id = cursor_varint(cursor);
        set_decode(cursor, draft);
        if (id == 0) {
                want(cursor, draft->ttl_ms >= LOCK_TTL_MS_MIN && draft->ttl_ms <= LOCK_TTL_MS_MAX);
                return;
        }
        draft->session = table_session_find(table, id);
        want(cursor,
             draft->session != NULL && bytes_equal(session_owner(draft->session), draft->owner) &&
                     draft->session->held.count + draft->session->waits.count < LOCK_CLAIMS_MAX);
}

static struct claim *claim_insert(struct cursor *cursor, struct lock_table *table,
                                  struct lock *lock, const struct draft *draft, bool waits)
{
        want(cursor,
             table_holder(lock, draft->owner) == NULL && table_waiter(lock, draft->owner) == NULL);
        if (cursor_failed(cursor))
                return NULL;
        struct claim *claim = table_claim(table, lock, draft->owner, waits);
        if (claim == NULL) {
                cursor_fail(cursor, ERR_NOMEM);
                return NULL;
        }
        claim->slots = draft->slots;
        claim->ttl_ms = draft->ttl_ms;
        claim->delay_ms = (uint32_t)draft->delay_ms;
        if (waits)
                claim->waiting->origin = draft->origin;
        lock_set_mark(table, claim, draft->set_size, draft->place);
        return claim;
}

static void holder_insert(struct cursor *cursor, struct lock_table *table, struct lock *lock,
                          const struct draft *draft)
{
        uint64_t before = lock->holders.last == NULL ? 0 : lock->holders.last->timer.number;
        want(cursor, draft->number > before && draft->number <= lock->timer.number &&
                             draft->slots == lock->slots && lock->holders.count < lock->slots);
        struct claim *claim = claim_insert(cursor, table, lock, draft, false);
        if (claim != NULL)
                table_hold(table, claim, draft->session, draft->number, draft->deadline);
}

static void waiter_insert(struct cursor *cursor, struct lock_table *table, struct lock *lock,
                          const struct draft *draft)
{
        uint64_t before = lock->waiters.last == NULL ? 0 : lock->waiters.last->timer.number;
        want(cursor, draft->number > before && table->waiter_count < LOCK_WAITERS_ALL_MAX);
        struct claim *claim = claim_insert(cursor, table, lock, draft, true);
        if (claim != NULL)
                table_wait(table, claim, draft->session, draft->number, draft->deadline);
}

static void holder_decode(struct cursor *cursor, struct lock_table *table, struct lock *lock,
                          bool sets)
{
        struct draft draft = {.sets = sets};
        claim_decode(cursor, table, &draft);
        draft.number = cursor_varint_max(cursor, table->last_token);
        want(cursor, draft.number > draft.place);
        if (draft.session == NULL)
                draft.deadline = deadline_decode(cursor, table, LOCK_TTL_MS_MAX);
        else
                want(cursor, cursor_varint(cursor) == 0);
        holder_insert(cursor, table, lock, &draft);
}

static void waiter_decode(struct cursor *cursor, struct lock_table *table, struct lock *lock,
                          bool sets)
{
        struct draft draft = {.sets = sets};
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
        if (lock->holders.count == 0 && !lock->delayed && lock->waiters.count == 0)
                return false;
        return !lock_head_ready(lock);
}

static void lock_decode(struct cursor *cursor, struct lock_table *table, bool sets)
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
                holder_decode(cursor, table, lock, sets);
        uint64_t waiters = cursor_varint_max(cursor, LOCK_WAITERS_MAX);
        /* The first claim has made room for a delay, or there is none. */
        if (delayed != 0 && !cursor_failed(cursor) && !table_delay_first(table, lock, delayed))
                cursor_fail(cursor, ERR_NOMEM);
        for (uint64_t i = 0; i < waiters && !cursor_failed(cursor); i++)
                waiter_decode(cursor, table, lock, sets);
}

static void lock_decode_old(struct cursor *cursor, struct lock_table *table)
{
        struct bytes key = name_decode(cursor, LOCK_KEY_BYTES_MAX);
        struct draft draft = {.slots = 1, .ttl_ms = LOCK_TTL_MS_MIN, .set_size = 1};
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
                draft = (struct draft){.slots = 1, .set_size = 1};
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

/* The next of a set's claims, where it fits the one before it: another key, all else the same. */
static bool set_follows(const struct claim *before, const struct claim *claim)
{
        return claim->set_size == before->set_size && claim->place == before->place + 1 &&
               claim->timer.number == before->timer.number + 1 && claim->slots == before->slots &&
               claim->timer.deadline == before->timer.deadline && claim->ttl_ms == before->ttl_ms &&
               claim->delay_ms == before->delay_ms && claim->session == before->session &&
               lock_origin_equal(&claim->waiting->origin, &before->waiting->origin) &&
               bytes_equal(claim_owner(claim), claim_owner(before)) &&
               bytes_compare(lock_key(before->lock), lock_key(claim->lock)) < 0;
}

/* The waiter with that number, of those with that owner. */
static struct claim *waiter_numbered(const struct lock_table *table, struct bytes owner,
                                     uint64_t number)
{
        struct claim *claim = table_owner_chain(table, owner);
        while (claim != NULL && claim->timer.number != number)
                claim = claim->waiting->owner_next;
        return claim;
}

/* Joins the set that begins with that claim. False: it is not whole. */
static bool set_join(const struct lock_table *table, struct claim *first)
{
        struct claim *claim = first;
        for (size_t i = 1; i < first->set_size; i++) {
                struct claim *next =
                        waiter_numbered(table, claim_owner(first), first->timer.number + i);
                if (next == NULL || next->waiting->set_next != NULL || !set_follows(claim, next))
                        return false;
                claim->waiting->set_next = next;
                claim = next;
        }
        claim->waiting->set_next = first;
        return true;
}

/* The sets that begin with a waiter of this lock. */
static bool lock_join(const struct lock_table *table, const struct lock *lock)
{
        for (struct claim *c = lock->waiters.first; c != NULL; c = c->next)
                if (c->set_size > 1 && c->place == 0 && !set_join(table, c))
                        return false;
        return true;
}

/* When all sets are joined: what depends on them. */
static bool lock_joined(const struct lock *lock)
{
        for (const struct claim *c = lock->waiters.first; c != NULL; c = c->next)
                if ((c->set_size > 1) != (c->waiting->set_next != NULL))
                        return false;
        return lock_sound(lock);
}

/* ---- in steps ---- */

void lock_restore_begin(struct lock_table *table, struct bytes data)
{
        struct lock_reading *reading = &table->reading;
        CHECK(table->count == 0 && table->session_count == 0);
        *reading = (struct lock_reading){.stage = READING_SESSIONS, .cursor = cursor_of(data)};
        struct cursor *cursor = &reading->cursor;
        reading->version = cursor_u8(cursor);
        bool old = reading->version == SNAPSHOT_VERSION_OLD;
        if (!cursor_failed(cursor) && !old && reading->version != SNAPSHOT_VERSION &&
            reading->version != SNAPSHOT_VERSION_SETS)
                cursor_fail(cursor, ERR_VERSION);
        table->time_ms = cursor_varint_max(cursor, NUMBER_MAX);
        table->last_token = cursor_varint_max(cursor, NUMBER_MAX);
        table->last_waiter = cursor_varint_max(cursor, NUMBER_MAX);
        reading->left = old ? 0 : cursor_varint_max(cursor, LOCK_SESSIONS_MAX);
}

static void sessions_read(struct lock_table *table)
{
        struct lock_reading *reading = &table->reading;
        if (reading->left > 0) {
                session_decode(&reading->cursor, table);
                reading->left--;
                return;
        }
        reading->left = cursor_varint_max(&reading->cursor, LOCK_COUNT_MAX);
        reading->stage = READING_LOCKS;
        size_t most = cursor_left(&reading->cursor) / LOCK_BYTES_MIN;
        table_expect(table, reading->left < most ? (size_t)reading->left : most);
}

static void locks_read(struct lock_table *table)
{
        struct lock_reading *reading = &table->reading;
        if (reading->left == 0) {
                reading->stage = READING_JOIN;
                reading->next = table->first;
                return;
        }
        reading->left--;
        if (reading->version == SNAPSHOT_VERSION_OLD)
                lock_decode_old(&reading->cursor, table);
        else
                lock_decode(&reading->cursor, table, reading->version == SNAPSHOT_VERSION_SETS);
}

static void joins_read(struct lock_table *table)
{
        struct lock_reading *reading = &table->reading;
        bool joins = reading->stage == READING_JOIN;
        if (reading->next == NULL) {
                reading->stage = joins ? READING_LOOK : READING_END;
                reading->next = table->first;
                return;
        }
        want(&reading->cursor,
             joins ? lock_join(table, reading->next) : lock_joined(reading->next));
        reading->next = reading->next->next;
}

bool lock_restore_step(struct lock_table *table, size_t bytes)
{
        struct lock_reading *reading = &table->reading;
        for (size_t left = bytes; left > 0 && reading->stage != READING_END;) {
                size_t before = cursor_left(&reading->cursor);
                if (cursor_failed(&reading->cursor))
                        return true;
                if (reading->stage == READING_SESSIONS)
                        sessions_read(table);
                else if (reading->stage == READING_LOCKS)
                        locks_read(table);
                else
                        joins_read(table);
                size_t done = before - cursor_left(&reading->cursor) + LOCK_VISIT_BYTES;
                left -= left < done ? left : done;
        }
        return reading->stage == READING_END;
}

enum err lock_restore_end(struct lock_table *table)
{
        struct lock_reading *reading = &table->reading;
        struct cursor *cursor = &reading->cursor;
        CHECK(cursor_failed(cursor) || reading->stage == READING_END);
        want(cursor, (reading->version == SNAPSHOT_VERSION_SETS) == (table->set_count > 0));
        return cursor_done(cursor);
}

enum err lock_table_decode(struct lock_table *table, struct bytes data)
{
        struct lock_table *beside = NULL;
        enum err err = lock_table_new(table->heap, table->seed, &beside);
        if (err != ERR_NONE)
                return err;
        lock_restore_begin(beside, data);
        while (!lock_restore_step(beside, SIZE_MAX))
                ;
        err = lock_restore_end(beside);
        if (err == ERR_NONE)
                table_move(table, beside);
        lock_table_free(beside);
        return err;
}
