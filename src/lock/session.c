/* Sessions: one lease for all locks and waits of a client. Its end ends them in the order of their
 * tokens and numbers, so alike on every replica. */
#include "lock/table.h"

struct session *lock_session_of(const struct lock_table *table, const struct lock_command *command)
{
        struct session *session = table_session_find(table, command->session);
        return session != NULL && bytes_equal(session_owner(session), command->owner) ? session
                                                                                      : NULL;
}

static void lock_session_answer(struct lock_table *table, const struct lock_command *command,
                                enum lock_result_kind kind, const struct session *session)
{
        lock_result_add(table, (struct lock_result){
                                       .kind = kind,
                                       .origin = command->origin,
                                       .key = command->key,
                                       .owner = command->owner,
                                       .token.value = session->timer.number,
                                       .ttl_ms = session->ttl_ms,
                               });
}

void lock_session_open(struct lock_table *table, const struct lock_command *command)
{
        if (table->session_count >= LOCK_SESSIONS_MAX) {
                lock_answer(table, command, LOCK_LIMIT);
                return;
        }
        struct session *session = table_session_insert(
                table, lock_token_next(table), command->owner, table->time_ms + command->ttl_ms);
        if (session == NULL) {
                table->fatal = true;
                return;
        }
        session->ttl_ms = command->ttl_ms;
        lock_session_answer(table, command, LOCK_OPENED, session);
}

void lock_session_keep(struct lock_table *table, const struct lock_command *command)
{
        struct session *session = lock_session_of(table, command);
        if (session == NULL) {
                lock_answer(table, command, LOCK_NO_SESSION);
                return;
        }
        table_extend(table, &session->timer, table->time_ms + session->ttl_ms);
        lock_session_answer(table, command, LOCK_KEPT, session);
}

void lock_session_close(struct lock_table *table, const struct lock_command *command)
{
        struct session *session = lock_session_of(table, command);
        if (session == NULL) {
                lock_answer(table, command, LOCK_NO_SESSION);
                return;
        }
        lock_session_answer(table, command, LOCK_CLOSED, session);
        lock_session_end(table, session, LOCK_RELEASED);
}

static void session_ended_add(struct lock_table *table, uint64_t session)
{
        if (table->ended_count == table->ended_size) {
                size_t size = table->ended_size == 0 ? 16 : table->ended_size * 2;
                uint64_t *ended = heap_resize(table->heap, table->ended, size * sizeof *ended);
                if (ended == NULL) {
                        table->fatal = true;
                        return;
                }
                table->ended = ended;
                table->ended_size = size;
        }
        table->ended[table->ended_count++] = session;
}

const uint64_t *lock_sessions_ended(const struct lock_table *table, size_t *ret_count)
{
        *ret_count = table->ended_count;
        return table->ended;
}

bool lock_session_alive(const struct lock_table *table, uint64_t session, struct bytes owner)
{
        const struct session *found = table_session_find(table, session);
        return found != NULL && bytes_equal(session_owner(found), owner);
}

void lock_session_end(struct lock_table *table, struct session *session, enum lock_result_kind kind)
{
        session_ended_add(table, session->timer.number);
        while (session->held.first != NULL)
                lock_hold_end(table, session->held.first, kind, (struct lock_origin){0});
        while (session->waits.first != NULL)
                lock_wait_end(table, session->waits.first, LOCK_NO_SESSION);
        lock_garbage(table, table_session_remove(table, session));
}
