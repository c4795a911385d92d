/* The table's bytes as of one moment, made in steps while commands go on.
 *
 *   begin: head, sessions --> step: locks in the order of their tokens --> ... --> all
 *                               ^ a lock that is about to change, and has not come by yet, is
 *                                 encoded at once and waits for its turn
 *
 * A lock comes by as long as its newest token is one of those from before the begin; what is
 * granted later has a larger one, and moves behind the end of the walk. `passed` is the token up to
 * which all is written. The bytes are those of lock_table_encode at the begin.
 *
 * Failure: without memory for a lock that changes, the capture is lost, and the table is not. */
#include "base/check.h"
#include "lock/table.h"

void lock_capture_save(struct lock_table *table, struct lock *lock)
{
        struct lock_capture *capture = &table->capture;
        uint64_t number = lock->timer.number;
        if (lock->saved || number > capture->last_token || number <= capture->passed ||
            capture->err != ERR_NONE)
                return;
        size_t at = capture->turns.bytes.len;
        lock_encode(lock, capture->sets, &capture->turns.bytes);
        if (!turns_add(&capture->turns, number, 0, at))
                capture->err = ERR_NOMEM;
        lock->saved = true;
}

void lock_capture_begin(struct lock_table *table, struct buffer *out)
{
        struct lock_capture *capture = &table->capture;
        CHECK(!capture->open);
        lock_head_encode(table, out);
        *capture = (struct lock_capture){
                .open = true,
                .sets = table->set_count > 0,
                .last_token = table->last_token,
                .next = table->first,
        };
        turns_init(&capture->turns, table->heap);
}

/* The next lock of the walk that has not been saved. */
static const struct lock *capture_walk(struct lock_capture *capture, size_t *left)
{
        while (capture->next != NULL && capture->next->timer.number <= capture->last_token) {
                struct lock *lock = capture->next;
                if (!lock->saved)
                        return lock;
                const struct turn *turn = turns_next(&capture->turns);
                if (turn != NULL && turn->number <= lock->timer.number)
                        return NULL; /* its turn comes first */
                lock->saved = false;
                capture->passed = lock->timer.number;
                capture->next = lock->next;
                *left -= *left < LOCK_VISIT_BYTES ? *left : LOCK_VISIT_BYTES;
        }
        return NULL;
}

static bool capture_saved(struct lock_capture *capture, const struct lock *next, struct buffer *out)
{
        const struct turn *turn = turns_next(&capture->turns);
        if (turn == NULL || (next != NULL && next->timer.number < turn->number))
                return false;
        capture->passed = turn->number;
        turns_take(&capture->turns, out);
        return true;
}

bool lock_capture_step(struct lock_table *table, size_t bytes, struct buffer *out)
{
        struct lock_capture *capture = &table->capture;
        CHECK(capture->open);
        for (size_t left = bytes; left > 0 && capture->err == ERR_NONE;) {
                size_t before = out->len;
                const struct lock *next = capture_walk(capture, &left);
                if (!capture_saved(capture, next, out)) {
                        if (next == NULL)
                                return true;
                        lock_encode(next, capture->sets, out);
                        capture->passed = next->timer.number;
                        capture->next = next->next;
                }
                size_t done = out->len - before;
                left -= left < done ? left : done;
                if (out->err != ERR_NONE)
                        return true;
        }
        if (capture->err != ERR_NONE)
                out->err = capture->err;
        return capture->err != ERR_NONE;
}

void lock_capture_end(struct lock_table *table)
{
        struct lock_capture *capture = &table->capture;
        if (!capture->open)
                return;
        for (struct lock *lock = capture->next;
             lock != NULL && lock->timer.number <= capture->last_token; lock = lock->next)
                lock->saved = false;
        turns_fini(&capture->turns);
        *capture = (struct lock_capture){0};
}
