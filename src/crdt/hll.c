/* HyperLogLogs. Their registers only grow, so merging is taking the larger ones; but what one write
 * has put into them cannot be told from what another has. So a HyperLogLog lives and dies as a
 * whole: each add carries its *generation*, the largest kill of the key that its writer knew (a
 * DEL, an expiry, a write of another type), kept in last[CRDT_HLL]. A greater generation replaces
 * the content of a smaller one, an equal one merges, and an add of a smaller one than is known
 * comes too late: a DEL, or a SET, wins over an add at the same time.
 *
 * Kills are forgotten once every region has seen them. So an add also carries its writer's stable
 * clock: it knew every kill up to there. A kill at or below the receiver's own is one after which
 * whatever is here was written. An expiry kills at the time for which it was set, which is the same
 * in every region and later than what was stable before it. The store must strike a key that is due
 * before it is changed.
 *
 * Nothing fails but memory: env->err is then set. */
#include "crdt/hll.h"

#include "base/check.h"
#include "crdt/crdt_priv.h"
#include "crdt/lists.h"

bool hll_alive(const struct crdt *crdt)
{
        return crdt->hll != NULL && !stamp_before(crdt->last[CRDT_HLL], crdt_floor(crdt, CRDT_HLL));
}

void hll_free(const struct table_env *env, struct crdt *crdt)
{
        heap_free(env->heap, crdt->hll);
        crdt->hll = NULL;
}

struct stamp crdt_hll_generation(const struct crdt *crdt)
{
        return stamp_max(crdt_floor(crdt, CRDT_HLL), crdt->last[CRDT_HLL]);
}

struct stamp crdt_hll_expiry(const struct crdt *crdt, struct stamp now)
{
        struct stamp stamp = {hlc_of_ms(crdt->expire_at_ms), crdt->ttl.origin};
        stamp.hlc = stamp.hlc < now.hlc ? stamp.hlc : now.hlc;
        stamp = stamp_max(stamp, crdt->ttl);
        return stamp_before(crdt->last[CRDT_HLL], stamp) ? stamp : now;
}

/* Whether content of that generation counts here; what is here and older goes. Before settle. */
static bool admit(struct crdt_env *env, struct crdt *crdt, struct stamp generation, uint64_t stable)
{
        struct stamp known = crdt_hll_generation(crdt);
        if (env->was != CRDT_NONE && env->was != CRDT_HLL)
                env->conflicts++;
        if (stamp_before(generation, known)) {
                /* Its generation is a kill that was: what it kills dies here as elsewhere. */
                crdt->last[CRDT_HLL] = stamp_max(crdt->last[CRDT_HLL], generation);
                if (known.hlc > stable)
                        return false;
                generation = known;
        }
        if (stamp_before(crdt->last[CRDT_HLL], generation) && generation.hlc > env->stable)
                hll_free(&env->table, crdt);
        crdt->last[CRDT_HLL] = generation;
        return true;
}

static void touch(struct crdt_env *env, struct crdt *crdt, struct stamp stamp)
{
        if (crdt->hll == NULL)
                crdt->hll = heap_alloc(env->table.heap, sizeof *crdt->hll);
        if (crdt->hll == NULL)
                env->err = ERR_NOMEM;
        else
                crdt->hll->added = stamp_max(crdt->hll->added, stamp);
}

static void registers_join(const struct crdt_env *env, struct bytes registers)
{
        if (env->native != NULL)
                env->native->hll_merge(env->native->context, env->name, registers);
}

static void elements_join(const struct crdt_env *env, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        if (env->native == NULL)
                return;
        registers_join(env, (struct bytes){0}); /* also one of nothing is there */
        for (uint64_t i = 0; i < delta->list_count; i++)
                env->native->hll_add(env->native->context, env->name, name_read(&cursor));
}

void apply_hll(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        bool admitted = admit(env, crdt, delta->killed, delta->stable);
        if ((delta->flags & CRDT_FLAG_CREATED) != 0)
                ttl_join(crdt, delta->stamp, 0);
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
        if (!admitted)
                return;
        touch(env, crdt, delta->stamp);
        if ((delta->flags & CRDT_FLAG_REGISTERS) != 0)
                registers_join(env, delta->value);
        else
                elements_join(env, delta);
}

void hll_outlive(const struct crdt_env *env, struct crdt *crdt)
{
        struct stamp floor = crdt_floor(crdt, CRDT_HLL);
        if (env->was == CRDT_HLL && floor.hlc <= env->stable)
                crdt->last[CRDT_HLL] = stamp_max(crdt->last[CRDT_HLL], floor);
}

/* ---- state */

void hll_write(const struct crdt_env *env, const struct crdt *crdt, bool values,
               struct buffer *buffer)
{
        struct bytes registers = {0};
        stamp_write(buffer, crdt->hll->added);
        if (!values)
                return;
        buffer_u64(buffer, env->stable);
        if (env->native == NULL ||
            !env->native->hll_get(env->native->context, env->name, &registers))
                registers = (struct bytes){0};
        buffer_slice(buffer, registers);
}

void hll_check(struct cursor *cursor, uint64_t hlc_max, struct crdt_state *state)
{
        state->hll_there = true;
        state->hll_added = stamp_read(cursor, hlc_max, false);
        if (state->kind != CRDT_STATE_VALUES)
                return;
        state->hll_stable = cursor_u64(cursor);
        state->registers = name_read(cursor);
}

/* All that is here had been seen there before anything was forgotten. So it is in what is told, or
 * died by a kill that nobody tells any more, of which a region that joins may not have heard. */
static void hll_replace(const struct crdt_env *env, struct crdt *crdt,
                        const struct crdt_state *state)
{
        if (crdt->hll != NULL && crdt->hll->added.hlc <= state->hll_stable)
                hll_free(&env->table, crdt);
}

bool merge_hll(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
               const struct crdt_seen *sender)
{
        struct stamp told = state->head.last[CRDT_HLL];
        hll_outlive(env, crdt);
        struct stamp own = crdt->last[CRDT_HLL];
        bool here = hll_alive(crdt);
        /* Seen there, and not there any more. */
        if (!state->hll_there && here && crdt_seen_covers(sender, crdt->hll->added))
                crdt->killed = stamp_max(crdt->killed, crdt->hll->added);
        if (state->hll_there && (here || !env_seen(env, state->hll_added))) {
                bool admitted = admit(env, crdt, told, state->hll_stable);
                if (admitted)
                        hll_replace(env, crdt, state);
                return admitted;
        }
        if (stamp_before(own, told) && told.hlc > env->stable)
                hll_free(&env->table, crdt);
        crdt->last[CRDT_HLL] = stamp_max(own, told);
        return false;
}

void merge_hll_registers(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state)
{
        touch(env, crdt, state->hll_added);
        registers_join(env, state->registers);
}
