/* history.c - what the users of locks asked and heard, and the verdict at the end: is there one
 * order of all that explains every answer? */
#include "linear/linear.h"
#include "sim/sim_priv.h"

#include <stdlib.h>

static void op_add(struct sim *sim, const struct linear_op *op)
{
        if (sim->history_count == sim->history_size) {
                sim->history_size = sim->history_size == 0 ? 256 : 2 * sim->history_size;
                sim->history = heap_resize(&sim->heap, sim->history,
                                           sim->history_size * sizeof *sim->history);
                CHECK(sim->history != NULL);
        }
        sim->history[sim->history_count++] = *op;
        sim_trace(sim, "history: %llu %llu lock %s client-%llu what %d token %llu",
                  (unsigned long long)op->called, (unsigned long long)op->returned,
                  sim->keys[op->lock.key].name, (unsigned long long)op->lock.owner - 1,
                  (int)op->lock.op, (unsigned long long)op->lock.token);
}

static void note(struct sim *sim, const struct lock_client *client, enum linear_lock_op what,
                 uint64_t owner, uint64_t token)
{
        struct linear_op op = {.called = client->invoked_us, .returned = sim->now_us};
        op.lock = (struct linear_lock){client->key, what, owner, token};
        op_add(sim, &op);
}

void history_use(struct sim *sim, const struct lock_client *client)
{
        struct linear_op op = {.called = sim->now_us, .returned = sim->now_us};
        op.lock = (struct linear_lock){client->key, LINEAR_USE, client->index + 1, client->token};
        op_add(sim, &op);
}

void history_lost(struct sim *sim, const struct lock_client *client)
{
        struct linear_op op = {.called = client->invoked_us, .returned = LINEAR_NEVER};
        if (client->state == CLIENT_ACQUIRING)
                op.lock = (struct linear_lock){client->key, LINEAR_GRANTED, client->index + 1, 0};
        else if (client->state == CLIENT_RELEASING)
                op.lock = (struct linear_lock){client->key, LINEAR_RELEASED, client->index + 1,
                                               client->token};
        else
                return; /* nothing that changes who holds it */
        op_add(sim, &op);
}

/* The number in the owner's name, and one: 0 is nobody. */
static uint64_t owner_of(struct bytes name)
{
        char digits[16] = "";
        size_t skip = strlen("client-");
        if (name.len > skip && name.len - skip < sizeof digits)
                memcpy(digits, name.ptr + skip, name.len - skip);
        return strtoull(digits, NULL, 10) + 1;
}

static void looked(struct sim *sim, const struct lock_client *client, const struct reply *reply)
{
        uint64_t self = client->index + 1;
        if (reply->code == REPLY_OK)
                note(sim, client, LINEAR_USE, owner_of(reply->lock.owner), reply->lock.token);
        else if (client->token != 0 && reply->code == REPLY_NOT_OWNER)
                note(sim, client, LINEAR_NOT_OWNER, self, client->token);
        else if (client->token == 0 && reply->code == REPLY_NOT_FOUND)
                note(sim, client, LINEAR_FREE, self, 0);
}

/* Of a wait that ended in vain nothing is known but that it ended. */
static void refused(struct sim *sim, const struct lock_client *client)
{
        if (client->wait_ms == 0)
                note(sim, client, LINEAR_HELD, client->index + 1, 0);
}

void history_heard(struct sim *sim, const struct lock_client *client, const struct reply *reply)
{
        uint64_t self = client->index + 1;
        bool good = reply->code == REPLY_OK;
        if (client->state == CLIENT_CHECKING || client->state == CLIENT_LOOKING)
                looked(sim, client, reply);
        else if (client->state == CLIENT_ACQUIRING && good)
                note(sim, client, LINEAR_GRANTED, self, reply->lock.token);
        else if (client->state == CLIENT_ACQUIRING && reply->code == REPLY_HELD)
                refused(sim, client);
        else if (client->state == CLIENT_RENEWING && good)
                note(sim, client, LINEAR_USE, self, client->token);
        else if (client->state == CLIENT_RELEASING && good)
                note(sim, client, LINEAR_RELEASED, self, client->token);
        else if (reply->code == REPLY_NOT_OWNER)
                note(sim, client, LINEAR_NOT_OWNER, self, client->token);
        else
                history_lost(sim, client);
}

void history_check(struct sim *sim)
{
        struct linear_report report = linear_check(&sim->heap, LINEAR_LOCKS, sim->history,
                                                   sim->history_count, sim->key_count);
        if (report.verdict == LINEAR_UNKNOWN)
                return;
        sim_cover(sim, COVER_HISTORY);
        if (report.verdict == LINEAR_GOOD)
                return;
        const struct linear_op *op = &sim->history[report.op];
        sim_violation(sim,
                      "history: %s has no order in which client %llu has answer %d at %llu us "
                      "(token %llu)",
                      sim->keys[op->lock.key].name, (unsigned long long)op->lock.owner - 1,
                      (int)op->lock.op, (unsigned long long)op->returned,
                      (unsigned long long)op->lock.token);
}

void history_fini(struct sim *sim)
{
        heap_free(&sim->heap, sim->history);
}
