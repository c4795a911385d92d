/* What a transaction may do, before it does anything: do its conditions hold, and could each step
 * of the branch be carried out? A key is written at most once, and only what was there at the
 * beginning can be deleted, so what a step will do is known without the steps before it. */
#include "kv/kv_priv.h"

/* ---- conditions ---- */

static bool number_holds(uint64_t have, enum kv_relation relation, uint64_t want)
{
        switch (relation) {
        case KV_IS:
                return have == want;
        case KV_IS_NOT:
                return have != want;
        case KV_LESS:
                return have < want;
        case KV_GREATER:
                return have > want;
        case KV_RELATION_COUNT:
                break;
        }
        return false;
}

static bool value_holds(const struct version *version, const struct kv_condition *condition)
{
        bool same = version != NULL && bytes_equal(version->value, condition->value);
        if (condition->relation == KV_IS)
                return same;
        return condition->relation == KV_IS_NOT && !same;
}

static bool condition_holds(const struct kv *kv, const struct kv_condition *condition)
{
        const struct version *version = kv_store_live(kv, condition->key);
        uint64_t have = 0;
        switch (condition->what) {
        case KV_VALUE:
                return value_holds(version, condition);
        case KV_VERSION:
                have = version == NULL ? 0 : version->count;
                break;
        case KV_REVISION:
                have = version == NULL ? 0 : version->revision;
                break;
        case KV_CREATED:
                have = version == NULL ? 0 : version->created;
                break;
        case KV_SESSION:
                have = version == NULL ? 0 : version->session;
                break;
        case KV_WHAT_COUNT:
                return false;
        }
        return number_holds(have, condition->relation, condition->number);
}

static bool key_fits(struct bytes key)
{
        return key.len > 0 && key.len <= KV_KEY_BYTES_MAX;
}

bool kv_conditions_fit(const struct kv_txn *txn)
{
        struct kv_walk walk = kv_walk_conditions(txn);
        struct kv_condition condition;
        while (kv_walk_condition(&walk, &condition)) {
                bool relation = condition.what != KV_VALUE || condition.relation <= KV_IS_NOT;
                if (!key_fits(condition.key) || !relation)
                        return false;
        }
        return true;
}

bool kv_conditions_hold(const struct kv *kv, const struct kv_txn *txn)
{
        struct kv_walk walk = kv_walk_conditions(txn);
        struct kv_condition condition;
        while (kv_walk_condition(&walk, &condition)) {
                if (!condition_holds(kv, &condition))
                        return false;
        }
        return true;
}

/* ---- the judge ---- */

/* What is known of a branch so far. */
struct judging {
        const struct kv *kv;
        const struct kv_txn *txn;
        const struct kv_call *call; /* NULL: only reads are allowed */
        bool otherwise;
        size_t bytes;     /* that puts add at most */
        size_t keys;      /* that they create at most */
        size_t bound;     /* of sessions */
        size_t deleted;   /* by prefix */
        size_t get_bytes; /* that gets tell */
};

static bool writes(const struct kv_step *step)
{
        return step->op == KV_PUT || step->op == KV_DELETE;
}

static bool writes_key(const struct kv_step *step, struct bytes key)
{
        if ((step->flags & KV_PREFIX) != 0)
                return bytes_starts_with(key, step->key);
        return bytes_equal(key, step->key);
}

/* Does an earlier step of the branch write a key that this one writes? Two deletes may. */
static bool written_twice(const struct judging *judging, const struct kv_step *step, size_t at)
{
        struct kv_walk walk = kv_walk_steps(judging->txn, judging->otherwise);
        struct kv_step other;
        for (size_t i = 0; i < at && kv_walk_step(&walk, &other); i++) {
                if (!writes(&other) || (other.op == KV_DELETE && step->op == KV_DELETE))
                        continue;
                if (writes_key(&other, step->key) || writes_key(step, other.key))
                        return true;
        }
        return false;
}

static enum kv_result_kind judge_revision(const struct kv *kv, uint64_t revision)
{
        if (revision > kv->revision)
                return KV_FUTURE;
        return revision != 0 && revision < kv->compacted ? KV_COMPACTED : KV_DONE;
}

static enum kv_result_kind judge_put(struct judging *judging, const struct kv_step *step)
{
        const struct kv *kv = judging->kv;
        const struct kv_call *call = judging->call;
        if (step->value.len > KV_VALUE_BYTES_MAX || (step->flags & ~(uint32_t)KV_KEEP) != 0)
                return KV_INVALID;
        judging->bytes += step->key.len + step->value.len;
        if (kv_tree_find(kv, step->key) == NULL)
                judging->keys++;
        if (kv->entry_count + judging->keys > KV_KEYS_MAX ||
            kv->bytes + judging->bytes > KV_BYTES_MAX)
                return KV_LIMIT;
        if (step->session == 0)
                return KV_DONE;
        if (call->session_alive == NULL ||
            !call->session_alive(call->context, step->session, judging->txn->owner))
                return KV_NO_SESSION;
        const struct bond *bond = kv_store_bond(kv, step->session);
        judging->bound++;
        return (bond == NULL ? 0 : bond->count) + judging->bound > KV_CHANGES_MAX ? KV_LIMIT
                                                                                  : KV_DONE;
}

static enum kv_result_kind judge_delete(struct judging *judging, const struct kv_step *step)
{
        if ((step->flags & ~(uint32_t)KV_PREFIX) != 0)
                return KV_INVALID;
        if ((step->flags & KV_PREFIX) == 0)
                return KV_DONE;
        const struct entry *entry = kv_tree_from(judging->kv, step->key, false);
        while (entry != NULL && bytes_starts_with(entry->key, step->key)) {
                judging->deleted += entry->newest->count > 0;
                if (judging->deleted > KV_CHANGES_MAX)
                        return KV_LIMIT;
                entry = kv_tree_next(entry);
        }
        return KV_DONE;
}

static enum kv_result_kind judge_get(struct judging *judging, const struct kv_step *step)
{
        const struct entry *entry = kv_tree_find(judging->kv, step->key);
        const struct version *version =
                entry == NULL
                        ? NULL
                        : kv_store_at(entry, step->revision == 0 ? UINT64_MAX : step->revision);
        judging->get_bytes += version == NULL ? 0 : version->value.len;
        if (judging->get_bytes > KV_ITEMS_BYTES_MAX)
                return KV_LIMIT;
        return judge_revision(judging->kv, step->revision);
}

static enum kv_result_kind judge_step(struct judging *judging, const struct kv_step *step,
                                      size_t at)
{
        bool prefix = (step->flags & KV_PREFIX) != 0;
        bool any = step->op == KV_COMPACT || (step->op == KV_RANGE && prefix);
        if (!(any ? step->key.len <= KV_KEY_BYTES_MAX : key_fits(step->key)) ||
            step->end.len > KV_KEY_BYTES_MAX)
                return KV_INVALID;
        if (judging->call == NULL && (writes(step) || step->op == KV_COMPACT))
                return KV_INVALID;
        if (writes(step) && written_twice(judging, step, at))
                return KV_INVALID;
        switch (step->op) {
        case KV_GET:
                return judge_get(judging, step);
        case KV_PUT:
                return judge_put(judging, step);
        case KV_DELETE:
                return judge_delete(judging, step);
        case KV_RANGE:
                return judge_revision(judging->kv, step->revision);
        case KV_COMPACT:
                return step->revision > judging->kv->revision ? KV_FUTURE : KV_DONE;
        case KV_HISTORY:
                return KV_DONE;
        case KV_CHANGES:
        case KV_OP_COUNT:
                break;
        }
        return KV_INVALID;
}

enum kv_result_kind kv_judge(const struct kv *kv, const struct kv_txn *txn,
                             const struct kv_call *call, bool otherwise)
{
        struct judging judging = {.kv = kv, .txn = txn, .call = call, .otherwise = otherwise};
        struct kv_walk walk = kv_walk_steps(txn, otherwise);
        struct kv_step step;
        for (size_t i = 0; kv_walk_step(&walk, &step); i++) {
                enum kv_result_kind kind = judge_step(&judging, &step, i);
                if (kind != KV_DONE)
                        return kind;
        }
        return KV_DONE;
}
