/* Which writes of other regions have lost to one that they had not seen. A delta that comes with a
 * smaller stamp than a write of our own is concurrent to it: its writer had not seen ours, or its
 * clock would be ahead of ours, and we had not seen it, for it comes only now. So the region of the
 * winner knows for certain, and it alone. What lost to a third region's write is found there,
 * unless the winner was itself overwritten before the loser came. Changes nothing. */
#include "crdt/crdt_priv.h"
#include "crdt/lists.h"
#include "crdt/zset.h"

static enum crdt_type type_of(enum crdt_op op)
{
        switch ((int)op) {
        case CRDT_OP_SET:
        case CRDT_OP_COUNT:
                return CRDT_STRING;
        case CRDT_OP_HSET:
        case CRDT_OP_HCOUNT:
                return CRDT_HASH;
        case CRDT_OP_SADD:
                return CRDT_SET;
        case CRDT_OP_ZADD:
        case CRDT_OP_ZCOUNT:
                return CRDT_ZSET;
        case CRDT_OP_LIST_INSERT:
                return CRDT_LIST;
        case CRDT_OP_STREAM_ADD:
                return CRDT_STREAM;
        case CRDT_OP_HLL:
                return CRDT_HLL;
        case CRDT_OP_OPAQUE:
                return CRDT_OPAQUE;
        case CRDT_OP_SIBLING:
                return CRDT_SIBLINGS;
        }
        return CRDT_NONE;
}

/* Is `won` ours, and later? */
static bool loses(const struct crdt_env *env, struct stamp lost, struct stamp won)
{
        return won.origin == env->seen->self && stamp_before(lost, won);
}

static void found(struct crdt_env *env, const struct crdt_delta *delta,
                  enum crdt_conflict_kind kind, struct stamp won)
{
        struct crdt_conflict *conflict = env->conflict;
        conflict->kind = kind;
        conflict->name = delta->name;
        conflict->lost = delta->stamp;
        conflict->won = won;
        conflict->lost_type = type_of(delta->op);
        conflict->won_type = conflict->lost_type;
        bool amount = delta->op == CRDT_OP_COUNT || delta->op == CRDT_OP_HCOUNT;
        conflict->value = amount ? (struct bytes){0} : delta->value;
        conflict->count = 1;
}

static void find_rival(struct crdt_env *env, const struct crdt *crdt,
                       const struct crdt_delta *delta)
{
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (i == (unsigned)type_of(delta->op) || !loses(env, delta->stamp, crdt->last[i]) ||
                    stamp_before(crdt->last[i], crdt_rival(crdt, type_of(delta->op))))
                        continue;
                found(env, delta, CRDT_CONFLICT_TYPE, crdt->last[i]);
                env->conflict->won_type = (enum crdt_type)i;
        }
}

static void find_fields(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        uint64_t count = 0;
        if (!stamp_before(delta->stamp, crdt->last[CRDT_HASH]))
                return;
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes field = name_read(&cursor);
                struct bytes value = name_read(&cursor);
                struct item *item = items_find(env, crdt->fields, field);
                if (item == NULL || !loses(env, delta->stamp, dot_stamp(item->one)))
                        continue;
                if (count++ > 0)
                        continue;
                found(env, delta, item->one.removed ? CRDT_CONFLICT_DELETE : CRDT_CONFLICT_FIELD,
                      dot_stamp(item->one));
                env->conflict->field = field;
                env->conflict->value = value;
        }
        env->conflict->count = count > 0 ? count : 1;
}

static void find_scores(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        uint64_t count = 0;
        if (!stamp_before(delta->stamp, crdt->last[CRDT_ZSET]))
                return;
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes name = name_read(&cursor);
                double score = crdt_score_read(&cursor);
                struct zset_member *member = zset_look(&env->table, crdt, name);
                const struct zset_dot *own =
                        member == NULL ? NULL : zset_dot(member, env->seen->self);
                if (own == NULL || own->removed || zset_same_score(own->score, score) ||
                    !loses(env, delta->stamp, zset_stamp(own)))
                        continue;
                if (count++ > 0)
                        continue;
                found(env, delta, CRDT_CONFLICT_FIELD, zset_stamp(own));
                env->conflict->field = name;
        }
        env->conflict->count = count > 0 ? count : 1;
}

static void find_siblings(struct crdt_env *env, const struct crdt *crdt,
                          const struct crdt_delta *delta)
{
        const struct crdt_siblings *siblings = crdt->siblings;
        if (siblings == NULL || siblings->count < 2)
                return;
        for (unsigned i = 0; i + 1u < siblings->count; i++) {
                struct stamp newest = siblings->list[siblings->count - 1u].stamp;
                if (stamp_compare(siblings->list[i].stamp, delta->stamp) == 0 &&
                    loses(env, delta->stamp, newest))
                        found(env, delta, CRDT_CONFLICT_SIBLINGS, newest);
        }
}

void conflict_find(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        enum crdt_type type = type_of(delta->op);
        if (type == CRDT_NONE)
                return;
        find_rival(env, crdt, delta);
        if (env->conflict->kind != CRDT_CONFLICT_NONE)
                return;
        bool kills = delta->op == CRDT_OP_SET || delta->op == CRDT_OP_HSET ||
                     delta->op == CRDT_OP_OPAQUE;
        if (kills && loses(env, delta->stamp, crdt->killed))
                found(env, delta, CRDT_CONFLICT_DELETE, crdt->killed);
        else if (delta->op == CRDT_OP_SET && loses(env, delta->stamp, crdt->base))
                found(env, delta, CRDT_CONFLICT_VALUE, crdt->base);
        else if (delta->op == CRDT_OP_OPAQUE && loses(env, delta->stamp, crdt->last[CRDT_OPAQUE]))
                found(env, delta, CRDT_CONFLICT_VALUE, crdt->last[CRDT_OPAQUE]);
        else if (delta->op == CRDT_OP_COUNT && loses(env, delta->stamp, crdt->base))
                found(env, delta, CRDT_CONFLICT_COUNT, crdt->base);
        else if (delta->op == CRDT_OP_HSET)
                find_fields(env, crdt, delta);
        else if (delta->op == CRDT_OP_ZADD)
                find_scores(env, crdt, delta);
        else if (delta->op == CRDT_OP_SIBLING)
                find_siblings(env, crdt, delta);
        env->conflict->lost_amount = delta->total.whole;
}
