/* Walks over all members of a sorted set that take some away: what died by the key, what the sender
 * of a state had seen and did not tell, what a flusher had seen, what nobody needs to remember.
 * Where nothing visible is left, the native key goes in one call. Nothing fails. */
#include "crdt/zset.h"

#include "crdt/counter.h"

#include "base/check.h"

struct sweep {
        struct crdt_env *env;
        struct crdt *crdt;
        const struct crdt_seen *sender; /* NULL: what goes dies by the key, which is remembered */
        struct table_class class;       /* the others are left alone */
        uint64_t stable;
        uint64_t count;
        bool quiet; /* the native key has gone as a whole */
        bool (*dies)(const struct sweep *sweep, const struct zset_member *member,
                     const struct zset_dot *dot);
};

static bool dies_by_key(const struct sweep *sweep, const struct zset_member *member,
                        const struct zset_dot *dot)
{
        (void)member;
        return dot_dead(sweep->crdt, CRDT_ZSET, zset_stamp(dot));
}

static bool dies_seen(const struct sweep *sweep, const struct zset_member *member,
                      const struct zset_dot *dot)
{
        (void)member;
        return !dot->removed && crdt_seen_covers(sweep->sender, zset_stamp(dot));
}

static bool named(const struct sweep *sweep, const struct zset_member *member)
{
        return member->one.mark == sweep->crdt->round;
}

static bool dies_untold(const struct sweep *sweep, const struct zset_member *member,
                        const struct zset_dot *dot)
{
        return !named(sweep, member) && dies_seen(sweep, member, dot);
}

static bool counts(const struct sweep *sweep, const struct zset_member *member)
{
        return zset_tallied(member) &&
               counter_counts(&member->more->counter, crdt_rival(sweep->crdt, CRDT_ZSET));
}

static bool survives(const struct sweep *sweep, struct zset_member *member)
{
        const struct zset_dot *dots = zset_dots(member);
        for (unsigned i = 0; i < member->one.count; i++) {
                if (!dots[i].removed && !sweep->dies(sweep, member, &dots[i]))
                        return true;
        }
        return counts(sweep, member);
}

static bool takes_all(const struct sweep *sweep)
{
        const struct table *table = &sweep->crdt->zset->table;
        struct table_walk walk = {0};
        struct node *node = table_next(table, &walk);
        for (; node != NULL; node = table_next(table, &walk)) {
                if (survives(sweep, zset_member_of(node)))
                        return false;
        }
        return true;
}

static bool sweep_member(void *context, struct node *node)
{
        struct sweep *sweep = context;
        struct crdt_env *env = sweep->env;
        struct zset_member *member = zset_member_of(node);
        struct zset_shown was = zset_shown(member);
        for (unsigned i = member->one.count; i > 0; i--) {
                if (!sweep->dies(sweep, member, &zset_dots(member)[i - 1]))
                        continue;
                if (sweep->sender != NULL)
                        zset_dot_retire(env, member, i - 1);
                else
                        zset_dot_drop(env, member, i - 1);
        }
        const struct crdt_native *native = env->native;
        if (sweep->quiet)
                env->native = NULL;
        zset_show(env, sweep->crdt, member, was);
        env->native = native;
        if (!zset_member_empty(member))
                return false;
        zset_member_free(&env->table, member);
        return true;
}

static void sweep_run(struct sweep *sweep)
{
        struct crdt_env *env = sweep->env;
        struct crdt *crdt = sweep->crdt;
        if (sweep->class.bits == 0 && crdt->zset->live > 0 && takes_all(sweep)) {
                sweep->quiet = true;
                env->fresh = true;
                if (env->native != NULL)
                        env->native->key_delete(env->native->context, env->name);
        }
        table_sweep_class(&crdt->zset->table, sweep->class, sweep_member, sweep);
        if (crdt->zset->table.count == 0)
                zset_free(&env->table, &crdt->zset);
}

void zset_sweep(struct crdt_env *env, struct crdt *crdt)
{
        struct sweep sweep = {.env = env, .crdt = crdt, .dies = dies_by_key};
        if (crdt->zset != NULL)
                sweep_run(&sweep);
}

void zset_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen)
{
        struct sweep sweep = {.env = env, .crdt = crdt, .sender = seen, .dies = dies_seen};
        if (crdt->zset != NULL)
                sweep_run(&sweep);
}

/* Named ones were cut where they were merged. Frees nothing. */
static bool cut_unnamed(void *context, struct node *node)
{
        const struct sweep *sweep = context;
        struct zset_member *member = zset_member_of(node);
        if (zset_tallied(member) && !named(sweep, member) &&
            counter_absent(&member->more->counter, (struct bytes){0}, sweep->sender))
                zset_touch(member, vector_newest(&sweep->sender->vector));
        return false;
}

void zset_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender,
                 struct table_class class)
{
        struct sweep sweep = {
                .env = env, .crdt = crdt, .sender = sender, .dies = dies_untold, .class = class};
        if (crdt->zset == NULL)
                return;
        table_sweep_class(&crdt->zset->table, class, cut_unnamed, &sweep);
        sweep_run(&sweep);
}

/* ---- what is remembered */

static bool collect_member(void *context, struct node *node)
{
        struct sweep *sweep = context;
        struct zset_member *member = zset_member_of(node);
        if (zset_tallied(member) && member->more->touched <= sweep->stable &&
            !counts(sweep, member))
                zset_tally_drop(sweep->env, sweep->crdt, member);
        for (unsigned i = member->one.count; i > 0; i--) {
                const struct zset_dot *dot = &zset_dots(member)[i - 1];
                if (dot->removed && env_seen_through(sweep->env, zset_stamp(dot)) &&
                    env_settled(sweep->env, zset_stamp(dot)))
                        zset_dot_drop(sweep->env, member, i - 1);
        }
        if (!zset_member_empty(member))
                return false;
        sweep->count++;
        zset_member_free(&sweep->env->table, member);
        return true;
}

uint64_t zset_collect(struct crdt_env *env, struct crdt *crdt, uint64_t stable)
{
        struct sweep sweep = {.env = env, .crdt = crdt, .stable = stable};
        struct crdt_zset *zset = crdt->zset;
        if (zset == NULL || (zset->table.count == zset->live && zset->tallies == 0))
                return 0;
        table_sweep(&zset->table, collect_member, &sweep);
        if (zset->table.count == 0)
                zset_free(&env->table, &crdt->zset);
        return sweep.count;
}
