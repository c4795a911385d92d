/* A state taken over in steps, while the one that it replaces goes on to be read.
 *
 *   begin: a council beside, what is small --> VALUES --> LOCKS --> WHOLE --end--> it is the state
 *                                                                       --> SWEEP: the old one goes
 *
 * Nothing of it is seen before the end, and nothing has changed where it fails. All at once, for
 * those who may stop, is the same run to its end. */
#include "base/check.h"
#include "council/council_priv.h"

/* By pieces: a council is too large for the stack. */
static void content_swap(struct council *a, struct council *b)
{
        uint8_t piece[256];
        uint8_t *at_a = (uint8_t *)a;
        uint8_t *at_b = (uint8_t *)b;
        for (size_t left = sizeof *a; left > 0;) {
                size_t len = left < sizeof piece ? left : sizeof piece;
                memcpy(piece, at_a, len);
                memcpy(at_a, at_b, len);
                memcpy(at_b, piece, len);
                at_a += len;
                at_b += len;
                left -= len;
        }
}

void council_restore_drop(struct council *council)
{
        struct council *beside = council->restoring.beside;
        council->restoring = (struct council_restoring){0};
        council_free(beside);
}

enum err council_restore_begin(struct council *council, struct bytes state)
{
        struct council_restoring restoring = {.stage = RESTORE_LOCKS};
        struct council *beside = NULL;
        council_restore_drop(council);
        enum err err = council_new(council->heap, &council->config, &beside);
        if (err != ERR_NONE)
                return err;
        struct bytes values;
        err = council_head_decode(beside, state, &values, &restoring.locks);
        if (err != ERR_NONE) {
                council_free(beside);
                return err;
        }
        restoring.beside = beside;
        if (beside->kv_used) {
                restoring.stage = RESTORE_VALUES;
                kv_restore_begin(beside->kv, values);
        } else {
                lock_restore_begin(beside->locks, restoring.locks);
        }
        council->restoring = restoring;
        return ERR_NONE;
}

bool council_restore_step(struct council *council, size_t bytes)
{
        struct council_restoring *restoring = &council->restoring;
        struct council *beside = restoring->beside;
        CHECK(council_restoring(council));
        if (restoring->stage == RESTORE_VALUES) {
                if (!kv_restore_step(beside->kv, bytes))
                        return false;
                restoring->err = kv_restore_end(beside->kv);
                restoring->stage = restoring->err == ERR_NONE ? RESTORE_LOCKS : RESTORE_WHOLE;
                if (restoring->stage == RESTORE_LOCKS)
                        lock_restore_begin(beside->locks, restoring->locks);
        }
        if (restoring->stage == RESTORE_LOCKS) {
                if (!lock_restore_step(beside->locks, bytes))
                        return false;
                restoring->err = lock_restore_end(beside->locks);
                restoring->stage = RESTORE_WHOLE;
        }
        return true;
}

bool council_restoring(const struct council *council)
{
        return council->restoring.stage != RESTORE_NONE &&
               council->restoring.stage != RESTORE_SWEEP;
}

bool council_sweeping(const struct council *council)
{
        return council->restoring.stage == RESTORE_SWEEP;
}

enum err council_restore_end(struct council *council)
{
        struct council_restoring restoring = council->restoring;
        CHECK(restoring.stage == RESTORE_WHOLE);
        if (restoring.err != ERR_NONE) {
                council_restore_drop(council);
                return restoring.err;
        }
        council->restoring = (struct council_restoring){0};
        lock_events_begin(restoring.beside->locks, restoring.beside->applied);
        content_swap(council, restoring.beside);
        council->restoring =
                (struct council_restoring){.stage = RESTORE_SWEEP, .beside = restoring.beside};
        return ERR_NONE;
}

void council_sweep(struct council *council, size_t bytes)
{
        struct council *old = council->restoring.beside;
        if (council_sweeping(council) && kv_sweep(old->kv, bytes) &&
            lock_table_sweep(old->locks, bytes))
                council_restore_drop(council);
}

enum err council_restore(struct council *council, struct bytes state)
{
        enum err err = council_restore_begin(council, state);
        if (err != ERR_NONE)
                return err;
        while (!council_restore_step(council, SIZE_MAX))
                ;
        err = council_restore_end(council);
        if (err == ERR_NONE)
                council_restore_drop(council); /* the old one, at once */
        return err;
}
