/* Members of sorted sets: what joins and removals do to one, and what is shown of it. Every change
 * notes what was shown, changes dots or totals, and shows what came of it. Sweeps are in
 * zset_sweep.c, bytes in zset_code.c. Fails only by memory, as zset.h says. */
#include "crdt/zset.h"

#include "base/check.h"
#include "crdt/counter.h"
#include "crdt/lists.h"

#include <float.h>
#include <stddef.h>

enum {
        MEMBER_SPACE = 0,
};

static void more_free(const struct table_env *env, struct zset_member *member)
{
        if (member->more == NULL)
                return;
        counter_free(env, &member->more->counter);
        heap_free(env->heap, member->more->dots);
        heap_free(env->heap, member->more);
        member->more = NULL;
}

static size_t member_size(size_t key_len)
{
        return offsetof(struct zset_member, key) + key_len;
}

void zset_member_free(const struct table_env *env, struct zset_member *member)
{
        more_free(env, member);
        heap_give(env->heap, member, member_size(member->node.key_len));
}

void zset_free(const struct table_env *env, struct crdt_zset **slot)
{
        struct crdt_zset *zset = *slot;
        if (zset == NULL)
                return;
        struct table_walk walk = {0};
        struct node *node = table_next(&zset->table, &walk);
        while (node != NULL) {
                struct node *next = table_next(&zset->table, &walk);
                zset_member_free(env, zset_member_of(node));
                node = next;
        }
        table_fini(env, &zset->table);
        heap_free(env->heap, zset);
        *slot = NULL;
}

/* ---- members */

static struct zset_member *member_find(struct crdt_env *env, struct crdt *crdt, struct bytes name,
                                       uint64_t hash)
{
        if (crdt->zset == NULL)
                return NULL;
        struct node *node =
                table_find_hashed(&env->table, &crdt->zset->table, hash, MEMBER_SPACE, name);
        return node == NULL ? NULL : zset_member_of(node);
}

static struct zset_member *member_make(struct crdt_env *env, struct crdt *crdt, struct bytes name,
                                       uint64_t hash)
{
        if (crdt->zset == NULL)
                crdt->zset = heap_alloc(env->table.heap, sizeof *crdt->zset);
        struct zset_member *member =
                crdt->zset == NULL ? NULL : heap_take(env->table.heap, member_size(name.len));
        if (member == NULL) {
                env->err = ERR_NOMEM;
                return NULL;
        }
        member->node.key_len = (uint32_t)name.len;
        member->node.key_at = offsetof(struct zset_member, key);
        if (name.len > 0)
                memcpy(member->key, name.ptr, name.len);
        if (!table_insert_hashed(&env->table, &crdt->zset->table, hash, &member->node)) {
                zset_member_free(&env->table, member);
                env->err = ERR_NOMEM;
                return NULL;
        }
        return member;
}

struct zset_member *zset_get(struct crdt_env *env, struct crdt *crdt, struct bytes name)
{
        uint64_t hash = table_hash(&env->table, MEMBER_SPACE, name);
        struct zset_member *member = member_find(env, crdt, name, hash);
        return member != NULL ? member : member_make(env, crdt, name, hash);
}

struct zset_member *zset_look(const struct table_env *env, const struct crdt *crdt,
                              struct bytes name)
{
        if (crdt->zset == NULL)
                return NULL;
        struct node *node = table_look(env, &crdt->zset->table, MEMBER_SPACE, name);
        return node == NULL ? NULL : zset_member_of(node);
}

bool zset_member_empty(const struct zset_member *member)
{
        return member->one.count == 0 && !zset_tallied(member);
}

/* ---- dots */

struct zset_dot *zset_dot(struct zset_member *member, region_id origin)
{
        struct zset_dot *dots = zset_dots(member);
        for (unsigned i = 0; i < member->one.count; i++) {
                if (dots[i].origin == origin)
                        return &dots[i];
        }
        return NULL;
}

static void dot_set(struct zset_dot *dot, struct stamp stamp, double score, bool removed)
{
        dot->hlc = stamp.hlc;
        dot->origin = stamp.origin;
        dot->score = removed ? 0 : score;
        dot->removed = removed;
}

static struct zset_more *more_make(struct crdt_env *env, struct zset_member *member)
{
        if (member->more == NULL)
                member->more = heap_alloc(env->table.heap, sizeof *member->more);
        if (member->more == NULL)
                env->err = ERR_NOMEM;
        return member->more;
}

static void dot_insert(struct crdt_env *env, struct zset_member *member, struct stamp stamp,
                       double score, bool removed)
{
        unsigned count = member->one.count;
        CHECK(count < CLOCK_REGIONS_MAX);
        if (count == 0) {
                dot_set(&member->one, stamp, score, removed);
                member->one.count = 1;
                return;
        }
        struct zset_more *more = more_make(env, member);
        struct zset_dot *dots =
                more == NULL ? NULL
                             : heap_resize(env->table.heap, more->dots, (count + 1) * sizeof *dots);
        if (dots == NULL) {
                env->err = ERR_NOMEM;
                return;
        }
        if (count == 1)
                dots[0] = member->one;
        unsigned at = count;
        for (; at > 0 && dots[at - 1].origin > stamp.origin; at--)
                dots[at] = dots[at - 1];
        dot_set(&dots[at], stamp, score, removed);
        more->dots = dots;
        member->one.count = (uint8_t)(count + 1);
}

void zset_dot_put(struct crdt_env *env, struct zset_member *member, struct stamp stamp,
                  double score, bool removed)
{
        struct zset_dot *dot = zset_dot(member, stamp.origin);
        if (dot != NULL)
                dot_set(dot, stamp, score, removed);
        else
                dot_insert(env, member, stamp, score, removed);
}

void zset_dot_drop(struct crdt_env *env, struct zset_member *member, unsigned index)
{
        unsigned count = member->one.count;
        CHECK(index < count);
        struct zset_dot *dots = zset_dots(member);
        for (unsigned i = index + 1; i < count; i++)
                dots[i - 1] = dots[i];
        if (count == 2) {
                dot_set(&member->one, zset_stamp(&dots[0]), dots[0].score, dots[0].removed);
                heap_free(env->table.heap, member->more->dots);
                member->more->dots = NULL;
        }
        member->one.count = (uint8_t)(count - 1);
        if (member->one.count == 0)
                dot_set(&member->one, (struct stamp){0}, 0, true);
        if (member->one.count < 2 && member->more != NULL && !member->more->tallied)
                more_free(&env->table, member);
}

void zset_dot_retire(struct crdt_env *env, struct zset_member *member, unsigned index)
{
        struct zset_dot *dot = &zset_dots(member)[index];
        if (env_seen_through(env, zset_stamp(dot))) {
                zset_dot_drop(env, member, index);
                return;
        }
        dot->removed = true;
        dot->score = 0;
}

/* The live dot with the largest stamp. */
static const struct zset_dot *dot_newest(struct zset_member *member)
{
        const struct zset_dot *newest = NULL;
        const struct zset_dot *dots = zset_dots(member);
        for (unsigned i = 0; i < member->one.count; i++) {
                if (!dots[i].removed &&
                    (newest == NULL || stamp_before(zset_stamp(newest), zset_stamp(&dots[i]))))
                        newest = &dots[i];
        }
        return newest;
}

/* ---- scores */

/* A sum of doubles, rounded once at its end: `low` is what the roundings of `high` have left
 * (Knuth, The Art of Computer Programming 2, 4.2.2, theorem B). */
struct sum {
        bool any;
        double high;
        double low;
};

static void sum_add(struct sum *sum, double value)
{
        double before = sum->high;
        double after = before + value;
        double back = after - before;
        bool exact = !sum->any || !__builtin_isfinite(after);
        sum->high = sum->any ? after : value;
        sum->low = exact ? 0 : sum->low + ((before - (after - back)) + (value - back));
        sum->any = true;
}

/* An integer of 64 bits as two doubles. */
static void sum_add_whole(struct sum *sum, uint64_t whole)
{
        int64_t value = (int64_t)whole;
        int64_t low = value % (INT64_C(1) << 32);
        sum_add(sum, (double)(value - low));
        sum_add(sum, (double)low);
}

/* All are finite, so no sum is of infinities of both kinds; one beyond all doubles stays so. */
static void sum_add_part(struct sum *sum, const struct crdt_count *count)
{
        sum_add_whole(sum, count->total.whole - count->cut.whole);
        sum_add(sum, count->total.part);
        sum_add(sum, -count->cut.part);
}

static double sum_value(const struct sum *sum)
{
        double value = sum->high + sum->low;
        return __builtin_isnan(value) ? sum->high : value; /* at the very end of the doubles */
}

/* `own`, where it is one, in its place among the parts. */
static struct sum member_sum(const struct crdt *crdt, struct zset_member *member,
                             const struct crdt_count *own)
{
        struct sum sum = {0};
        const struct zset_dot *dot = dot_newest(member);
        if (dot != NULL)
                sum_add(&sum, dot->score);
        unsigned count = zset_tallied(member) ? member->more->counter.count_count : 0;
        struct stamp rival = count > 0 ? crdt_rival(crdt, CRDT_ZSET) : (struct stamp){0};
        for (unsigned i = 0; i < count; i++) {
                const struct crdt_count *part = &member->more->counter.counts[i];
                if (own != NULL && count_part(own) <= count_part(part)) {
                        sum_add_part(&sum, own);
                        bool same = count_part(own) == count_part(part);
                        own = NULL;
                        if (same)
                                continue;
                }
                if (count_counts(part, rival))
                        sum_add_part(&sum, part);
        }
        if (own != NULL)
                sum_add_part(&sum, own);
        return sum;
}

bool zset_score(const struct crdt *crdt, struct zset_member *member, double *ret)
{
        struct sum sum = member_sum(crdt, member, NULL);
        *ret = sum_value(&sum);
        return sum.any;
}

struct zset_shown zset_shown(struct zset_member *member)
{
        if (zset_tallied(member))
                return (struct zset_shown){member->more->shown, member->more->score};
        const struct zset_dot *dot = dot_newest(member);
        return (struct zset_shown){dot != NULL, dot == NULL ? 0 : dot->score};
}

bool zset_same_score(double a, double b)
{
        return memcmp(&a, &b, sizeof a) == 0;
}

void zset_show(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
               struct zset_shown was)
{
        struct zset_shown now = {0};
        const struct crdt_native *native = env->native;
        struct bytes name = node_key(&member->node);
        now.there = zset_score(crdt, member, &now.score);
        if (zset_tallied(member)) {
                member->more->shown = now.there;
                member->more->score = now.score;
        }
        if (now.there && !was.there)
                crdt->zset->live++;
        if (was.there && !now.there) {
                CHECK(crdt->zset->live > 0);
                crdt->zset->live--;
                env->fresh = env->fresh || crdt->zset->live == 0;
        }
        if (native == NULL)
                return;
        if (now.there && (!was.there || !zset_same_score(was.score, now.score)))
                native->zset_add(native->context, env->name, name, now.score);
        if (was.there && !now.there)
                native->zset_remove(native->context, env->name, name);
}

/* Shows it; frees it where nothing of it is left. */
void zset_changed(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                  struct zset_shown was)
{
        zset_show(env, crdt, member, was);
        if (!zset_member_empty(member))
                return;
        table_remove(&env->table, &crdt->zset->table, &member->node);
        zset_member_free(&env->table, member);
        if (crdt->zset->table.count == 0)
                zset_free(&env->table, &crdt->zset);
}

/* ---- adds */

/* The same stamp again: one ZADD that names a member twice; the last score counts. */
static bool dot_is_news(const struct zset_dot *older, struct stamp dot)
{
        return older == NULL || older->hlc < dot.hlc || (older->hlc == dot.hlc && !older->removed);
}

void zset_add(struct crdt_env *env, struct crdt *crdt, struct bytes name, double score,
              struct stamp dot)
{
        uint64_t hash = table_hash(&env->table, MEMBER_SPACE, name);
        struct zset_member *member = member_find(env, crdt, name, hash);
        if (dot_dead(crdt, CRDT_ZSET, dot) ||
            (member != NULL && !dot_is_news(zset_dot(member, dot.origin), dot)))
                return;
        if (member == NULL)
                member = member_make(env, crdt, name, hash);
        if (member == NULL)
                return;
        struct zset_shown was = zset_shown(member);
        zset_dot_put(env, member, dot, score, false);
        zset_show(env, crdt, member, was);
}

bool crdt_zset_put(struct crdt_env *env, struct crdt *crdt, struct bytes name, uint64_t hash,
                   double score, struct stamp stamp)
{
        struct zset_member *member = member_find(env, crdt, name, hash);
        if (member != NULL && (member->more != NULL || member->one.origin != stamp.origin))
                return false;
        crdt->last[CRDT_ZSET] = stamp;
        if (member == NULL)
                member = member_make(env, crdt, name, hash);
        if (member == NULL)
                return true;
        bool was = member->one.count > 0 && !member->one.removed;
        member->one.count = 1;
        dot_set(&member->one, stamp, score, false);
        crdt->zset->live += !was;
        return true;
}

void zset_load(struct crdt_env *env, struct crdt *crdt, struct bytes name, struct stamp dot,
               double score)
{
        struct zset_member *member =
                member_make(env, crdt, name, table_hash(&env->table, MEMBER_SPACE, name));
        if (member == NULL)
                return;
        member->one.count = 1;
        dot_set(&member->one, dot, score, false);
        crdt->zset->live++;
}

/* ---- removals */

/* What has not come yet is remembered. */
void zset_dot_remove(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                     struct stamp dot)
{
        bool remember = !env_seen_through(env, dot);
        struct zset_dot *there = zset_dot(member, dot.origin);
        if (dot_dead(crdt, CRDT_ZSET, dot) || (there == NULL ? !remember : there->hlc > dot.hlc))
                return;
        if (remember || (there->removed && !env_settled(env, dot)))
                zset_dot_put(env, member, dot, 0, true);
        else
                zset_dot_drop(env, member, (unsigned)(there - zset_dots(member)));
}

struct zset_more *zset_tally(struct crdt_env *env, struct crdt *crdt, struct zset_member *member)
{
        if (zset_tallied(member))
                return member->more;
        struct zset_shown shown = zset_shown(member);
        struct zset_more *more = more_make(env, member);
        if (more == NULL)
                return NULL;
        more->shown = shown.there;
        more->score = shown.score;
        more->tallied = true;
        crdt->zset->tallies++;
        return more;
}

void zset_tally_drop(struct crdt_env *env, struct crdt *crdt, struct zset_member *member)
{
        CHECK(crdt->zset->tallies > 0);
        crdt->zset->tallies--;
        counter_free(&env->table, &member->more->counter);
        member->more->tallied = false;
        if (member->one.count < 2)
                more_free(&env->table, member);
}

struct crdt_count *zset_slot(struct crdt_env *env, struct crdt *crdt, struct zset_member *member,
                             region_id origin, uint8_t life)
{
        struct zset_more *more = zset_tally(env, crdt, member);
        struct crdt_count *count =
                more == NULL ? NULL : counter_slot(&env->table, &more->counter, origin, life);
        if (count == NULL)
                env->err = ERR_NOMEM;
        return count;
}

void zset_touch(struct zset_member *member, uint64_t hlc)
{
        if (zset_tallied(member) && member->more->touched < hlc)
                member->more->touched = hlc;
}

/* ---- the next increment */

/* The integer part of a float part goes to the whole one, so that what is left has small digits. */
static bool carry(struct crdt_count *count)
{
        static const double whole_max = 9007199254740992.0;
        double part = count->total.part;
        int64_t sum;
        if (!__builtin_isfinite(part) || part <= -whole_max || part >= whole_max)
                return __builtin_isfinite(part);
        int64_t whole = (int64_t)part;
        if (__builtin_add_overflow((int64_t)(count->total.whole - count->cut.whole), whole, &sum))
                return false;
        count->total.whole += (uint64_t)whole;
        count->total.part = part - (double)whole;
        return true;
}

/* The store rounds after each addition, a sum of totals once: the difference goes into the total,
 * so that the sum is what the store has replied. */
bool crdt_score_next(const struct table_env *env, const struct crdt *crdt, struct bytes name,
                     struct stamp stamp, uint8_t life, double amount, double after,
                     struct crdt_count *ret)
{
        enum {
                ROUNDS = 3,
        };
        static struct zset_member none;
        struct zset_member *member = zset_look(env, crdt, name);
        const struct crdt_count *own =
                member == NULL || !zset_tallied(member)
                        ? NULL
                        : counter_find(&member->more->counter, stamp.origin, life);
        struct crdt_count next = {.cut_hlc = stamp.hlc - 1};
        if (own != NULL && count_counts(own, crdt_rival(crdt, CRDT_ZSET)))
                next = *own;
        next.origin = stamp.origin;
        next.life = life;
        next.hlc = stamp.hlc;
        next.total.part += amount;
        bool fits = carry(&next);
        for (unsigned i = 0; i < ROUNDS && fits; i++) {
                struct sum sum = member_sum(crdt, member == NULL ? &none : member, &next);
                if (zset_same_score(sum_value(&sum), after)) {
                        *ret = next;
                        return true;
                }
                next.total.part += (after - sum.high) - sum.low;
                fits = carry(&next);
        }
        return false;
}

/* ---- questions */

uint64_t crdt_zset_length(const struct crdt *crdt)
{
        return crdt->zset != NULL && crdt_type(crdt) == CRDT_ZSET ? crdt->zset->live : 0;
}

void crdt_zset_each(const struct crdt *crdt,
                    void (*each)(void *context, struct bytes member, double score), void *context)
{
        struct table_walk walk = {0};
        struct node *node = crdt->zset == NULL ? NULL : table_next(&crdt->zset->table, &walk);
        for (; node != NULL; node = table_next(&crdt->zset->table, &walk)) {
                double score;
                if (zset_score(crdt, zset_member_of(node), &score))
                        each(context, node_key(node), score);
        }
}
