/* models.c - the objects that histories are held against, as programs that run one operation after
 * the other. */
#include "linear/linear_priv.h"

static uint64_t *value_of(const struct linear_part *part, struct linear_state *state, uint32_t key)
{
        return &state->words[part->places[key]];
}

static bool all_are(const struct linear_part *part, struct linear_state *state,
                    const struct linear_pairs *pairs)
{
        for (size_t i = 0; i < pairs->count; i++)
                if (*value_of(part, state, pairs->items[i].key) != pairs->items[i].value)
                        return false;
        return true;
}

bool linear_step_values(const struct linear_part *part, struct linear_state *state,
                        const struct linear_op *op)
{
        const struct linear_txn *txn = &op->txn;
        bool held = all_are(part, state, &txn->when);
        if (op->returned != LINEAR_NEVER && (held != txn->held || !all_are(part, state, &txn->saw)))
                return false;
        const struct linear_pairs *puts = held ? &txn->then : &txn->otherwise;
        for (size_t i = 0; i < puts->count; i++)
                *value_of(part, state, puts->items[i].key) = puts->items[i].value;
        return true;
}

static bool has(const struct linear_pairs *pairs, struct linear_pair pair)
{
        for (size_t i = 0; i < pairs->count; i++)
                if (pairs->items[i].key == pair.key && pairs->items[i].value == pair.value)
                        return true;
        return false;
}

/* It puts nothing, or what its answer says was there: a put that happens to put what is there now
 * may hide the put of another later. */
bool linear_idle_values(const struct linear_op *op)
{
        const struct linear_txn *txn = &op->txn;
        const struct linear_pairs *puts = txn->held ? &txn->then : &txn->otherwise;
        for (size_t i = 0; i < puts->count; i++)
                if (!has(&txn->saw, puts->items[i]) &&
                    !(txn->held && has(&txn->when, puts->items[i])))
                        return false;
        return true;
}

/* The words of a lock's state. A token of a grant whose answer was lost is not known: it is larger
 * than the largest before, which is all that counts. */
enum {
        OWNER,
        TOKEN, /* 0: not known */
        LARGEST,
};

/* Without an answer: where it was no more than asked again, it may as well never have happened. */
static bool lock_grant(uint64_t *lock, const struct linear_lock *op, bool answered)
{
        if (!answered) {
                lock[OWNER] = op->owner;
                lock[TOKEN] = 0;
                return true;
        }
        if (lock[OWNER] == op->owner && lock[TOKEN] == op->token)
                return true; /* it asked again */
        if (op->token <= lock[LARGEST])
                return false;
        lock[OWNER] = op->owner;
        lock[TOKEN] = lock[LARGEST] = op->token;
        return true;
}

static bool lock_is(const uint64_t *lock, const struct linear_lock *op)
{
        return lock[OWNER] == op->owner && lock[TOKEN] == op->token;
}

/* The token of a grant whose answer was lost comes to light. */
static bool lock_learn(uint64_t *lock, const struct linear_lock *op)
{
        if (lock[OWNER] != op->owner || lock[TOKEN] != 0 || op->token <= lock[LARGEST])
                return false;
        lock[TOKEN] = lock[LARGEST] = op->token;
        return true;
}

static void lock_free(uint64_t *lock)
{
        lock[OWNER] = lock[TOKEN] = 0;
}

bool linear_step_locks(const struct linear_part *part, struct linear_state *state,
                       const struct linear_op *op)
{
        uint64_t *lock = &state->words[part->places[op->lock.key]];
        bool answered = op->returned != LINEAR_NEVER;
        switch (op->lock.op) {
        case LINEAR_GRANTED:
                return lock_grant(lock, &op->lock, answered);
        case LINEAR_HELD:
                return lock[OWNER] != 0 && lock[OWNER] != op->lock.owner;
        case LINEAR_USE:
                return lock_is(lock, &op->lock) || lock_learn(lock, &op->lock);
        case LINEAR_RELEASED:
                if (!lock_is(lock, &op->lock))
                        return !answered;
                lock_free(lock);
                return true;
        case LINEAR_NOT_OWNER:
                if (lock_is(lock, &op->lock))
                        lock_free(lock); /* its lease has ended */
                return true;
        case LINEAR_FREE:
                lock_free(lock);
                return true;
        case LINEAR_BROKEN:
                if (answered && op->lock.token != 0 && op->lock.token <= lock[LARGEST])
                        return false;
                lock_free(lock);
                if (op->lock.token > lock[LARGEST])
                        lock[LARGEST] = op->lock.token;
                return true;
        case LINEAR_LOCK_OP_COUNT:
                break;
        }
        return false;
}

/* All that such an operation could do later is to end a lease, and nothing needs that a lock is
 * free: a lease may end at any time. */
bool linear_idle_locks(const struct linear_op *op)
{
        (void)op;
        return true;
}
