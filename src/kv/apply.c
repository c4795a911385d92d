/* Transactions: judged first, then carried out, so that what is refused changes nothing.
 *
 *   id seen before? its answer : conditions -> branch -> judge all steps -> run them -> compact
 *
 * The judge knows what each step will do before it is done, as a key is written at most once and
 * only what was there at the beginning can be deleted. Whatever fails after that is memory, which
 * stops this replica. */
#include "base/check.h"
#include "kv/kv_priv.h"

enum err kv_new(struct heap *heap, uint64_t seed, struct kv **ret_kv)
{
        struct kv *kv = heap_alloc(heap, sizeof *kv);
        if (kv == NULL)
                return ERR_NOMEM;
        kv->heap = heap;
        kv->seed = seed;
        *ret_kv = kv;
        return ERR_NONE;
}

void kv_free(struct kv *kv)
{
        if (kv == NULL)
                return;
        kv_store_clear(kv);
        heap_free(kv->heap, kv->items);
        heap_free(kv->heap, kv);
}

uint64_t kv_revision(const struct kv *kv)
{
        return kv->revision;
}

uint64_t kv_compacted(const struct kv *kv)
{
        return kv->compacted;
}

size_t kv_count(const struct kv *kv)
{
        return kv->live_count;
}

bool kv_unused(const struct kv *kv)
{
        return kv->revision == 0 && kv->seen_count == 0;
}

/* ---- results ---- */

static void items_begin(struct kv *kv)
{
        kv->item_count = 0;
        kv->item_bytes = 0;
        kv->result = (struct kv_result){.kind = KV_DONE};
}

/* False: memory ran out. */
static bool items_add(struct kv *kv, const struct kv_item *item)
{
        if (kv->item_count == kv->item_size) {
                size_t size = kv->item_size == 0 ? 64 : kv->item_size * 2;
                struct kv_item *items = heap_resize(kv->heap, kv->items, size * sizeof *items);
                if (items == NULL) {
                        kv->fatal = true;
                        return false;
                }
                kv->items = items;
                kv->item_size = size;
        }
        kv->items[kv->item_count++] = *item;
        return true;
}

static const struct kv_result *result_end(struct kv *kv, enum kv_result_kind kind)
{
        kv->result.kind = kind;
        kv->result.compacted = kv->compacted;
        kv->result.steps = kv->steps;
        kv->result.items = kv->items;
        kv->result.item_count = kv->item_count;
        if (kv->result.revision == 0)
                kv->result.revision = kv->revision;
        return &kv->result;
}

static struct kv_answer_step *answer_begin(struct kv *kv, enum kv_op op)
{
        CHECK(kv->result.step_count < KV_STEPS_MAX);
        struct kv_answer_step *answer = &kv->steps[kv->result.step_count++];
        *answer = (struct kv_answer_step){.op = op, .first = kv->item_count};
        return answer;
}

/* ---- steps ---- */

static uint64_t change_revision(struct kv *kv, const struct kv_call *call)
{
        if (kv->changing == 0) {
                uint64_t next = kv->revision + 1;
                kv->revision = next > call->index ? next : call->index;
                kv->changing = kv->revision;
        }
        return kv->changing;
}

static struct bytes actor_of(const struct kv_call *call)
{
        struct bytes actor = call->actor;
        if (actor.len > KV_NAME_BYTES_MAX)
                actor.len = KV_NAME_BYTES_MAX;
        return actor;
}

static void put(struct kv *kv, const struct kv_call *call, const struct kv_step *step)
{
        CHECK(call != NULL); /* who only asks has no steps that write */
        const struct version *old = kv_store_live(kv, step->key);
        uint64_t revision = change_revision(kv, call);
        struct kv_item item = {
                .key = step->key,
                .value = step->value,
                .actor = actor_of(call),
                .created = old == NULL ? revision : old->created,
                .revision = revision,
                .version = old == NULL ? 1 : old->count + 1,
                .session = step->session,
                .wall_us = call->wall_us,
        };
        if (kv_store_add(kv, &item, (step->flags & KV_KEEP) != 0) == NULL)
                kv->fatal = true;
}

static void delete_one(struct kv *kv, const struct kv_call *call, const struct version *old)
{
        CHECK(call != NULL);
        struct kv_item item = {
                .key = old->entry->key,
                .actor = actor_of(call),
                .created = old->created,
                .revision = change_revision(kv, call),
                .wall_us = call->wall_us,
        };
        if (kv_store_add(kv, &item, old->keep) == NULL)
                kv->fatal = true;
}

static void run_delete(struct kv *kv, const struct kv_call *call, const struct kv_step *step,
                       struct kv_answer_step *answer)
{
        bool prefix = (step->flags & KV_PREFIX) != 0;
        const struct entry *entry =
                prefix ? kv_tree_from(kv, step->key, false) : kv_tree_find(kv, step->key);
        while (entry != NULL && !kv->fatal && bytes_starts_with(entry->key, step->key)) {
                if (entry->newest->count > 0) {
                        delete_one(kv, call, entry->newest);
                        answer->total++;
                }
                entry = prefix ? kv_tree_next(entry) : NULL;
        }
}

static bool within(const struct kv_step *step, struct bytes key)
{
        if ((step->flags & KV_PREFIX) != 0)
                return bytes_starts_with(key, step->key);
        return bytes_compare(key, step->end) < 0;
}

static const struct entry *range_first(const struct kv *kv, const struct kv_step *step)
{
        bool prefix = (step->flags & KV_PREFIX) != 0;
        if (prefix && bytes_compare(step->end, step->key) >= 0 && step->end.len > 0)
                return kv_tree_from(kv, step->end, true);
        return kv_tree_from(kv, step->key, false);
}

static uint64_t limit_of(const struct kv_step *step)
{
        return step->limit == 0 || step->limit > KV_ITEMS_MAX ? KV_ITEMS_MAX : step->limit;
}

/* Tells one more, or that there are more. */
static bool tell(struct kv *kv, const struct kv_step *step, struct kv_answer_step *answer,
                 const struct version *version)
{
        struct kv_item item;
        kv_store_item(version, &item);
        if ((step->flags & KV_KEYS_ONLY) != 0)
                item.value = bytes_of(NULL, 0);
        size_t size = item.key.len + item.value.len;
        if (answer->count >= limit_of(step) || kv->item_count >= KV_ITEMS_MAX ||
            (answer->count > 0 && kv->item_bytes + size > KV_ITEMS_BYTES_MAX)) {
                answer->more = true;
                return false;
        }
        kv->item_bytes += size;
        answer->count++;
        return items_add(kv, &item);
}

static void run_range(struct kv *kv, const struct kv_step *step, struct kv_answer_step *answer)
{
        uint64_t revision = step->revision == 0 ? UINT64_MAX : step->revision;
        bool count_only = (step->flags & KV_COUNT_ONLY) != 0;
        const struct entry *entry = range_first(kv, step);
        for (; entry != NULL && within(step, entry->key); entry = kv_tree_next(entry)) {
                const struct version *version = kv_store_at(entry, revision);
                if (version == NULL)
                        continue;
                if (!count_only && !tell(kv, step, answer, version))
                        return;
                answer->total++;
        }
}

static void run_get(struct kv *kv, const struct kv_step *step, struct kv_answer_step *answer)
{
        struct kv_item item;
        const struct entry *entry = kv_tree_find(kv, step->key);
        const struct version *version =
                entry == NULL
                        ? NULL
                        : kv_store_at(entry, step->revision == 0 ? UINT64_MAX : step->revision);
        if (version == NULL)
                return;
        kv_store_item(version, &item);
        if (!items_add(kv, &item))
                return;
        answer->count = 1;
        answer->total = 1;
}

static void run_history(struct kv *kv, const struct kv_step *step, struct kv_answer_step *answer)
{
        const struct entry *entry = kv_tree_find(kv, step->key);
        const struct version *version = entry == NULL ? NULL : entry->newest;
        for (; version != NULL; version = version->older) {
                if (!tell(kv, step, answer, version))
                        return;
                answer->total++;
        }
}

static void run_step(struct kv *kv, const struct kv_call *call, const struct kv_step *step)
{
        struct kv_answer_step *answer = answer_begin(kv, step->op);
        switch (step->op) {
        case KV_GET:
                run_get(kv, step, answer);
                return;
        case KV_PUT:
                put(kv, call, step);
                return;
        case KV_DELETE:
                run_delete(kv, call, step, answer);
                return;
        case KV_RANGE:
                run_range(kv, step, answer);
                return;
        case KV_HISTORY:
                run_history(kv, step, answer);
                return;
        case KV_COMPACT:
                kv_store_compact(kv, step->revision);
                return;
        case KV_CHANGES:
        case KV_OP_COUNT:
                return;
        }
}

static void run(struct kv *kv, const struct kv_call *call, const struct kv_txn *txn, bool otherwise)
{
        struct kv_walk walk = kv_walk_steps(txn, otherwise);
        struct kv_step step;
        while (!kv->fatal && kv_walk_step(&walk, &step))
                run_step(kv, call, &step);
        while (kv->dead_count > KV_HISTORY_MAX || kv->dead_bytes > KV_HISTORY_BYTES_MAX)
                kv_store_compact(kv, kv->dead->dead_at);
}

static bool txn_fits(const struct kv_txn *txn)
{
        return txn->id.len <= KV_NAME_BYTES_MAX && txn->owner.len <= KV_OWNER_BYTES_MAX &&
               kv_conditions_fit(txn);
}

static enum kv_result_kind apply(struct kv *kv, const struct kv_call *call,
                                 const struct kv_txn *txn)
{
        if (!txn_fits(txn))
                return KV_INVALID;
        const struct seen *seen = txn->id.len > 0 ? kv_seen_find(kv, txn->id) : NULL;
        if (seen != NULL) {
                kv->result.repeat = true;
                kv->result.succeeded = seen->succeeded;
                kv->result.revision = seen->revision;
                return KV_DONE;
        }
        bool otherwise = !kv_conditions_hold(kv, txn);
        enum kv_result_kind kind = kv_judge(kv, txn, call, otherwise);
        if (kind != KV_DONE)
                return kind;
        kv->result.succeeded = !otherwise;
        run(kv, call, txn, otherwise);
        kv->result.revision = kv->changing != 0 ? kv->changing : kv->revision;
        if (call != NULL && txn->id.len > 0 && !kv->fatal &&
            !kv_seen_add(kv, txn->id, kv->result.revision, kv->result.succeeded))
                kv->fatal = true;
        return KV_DONE;
}

const struct kv_result *kv_apply(struct kv *kv, const struct kv_call *call, struct bytes txn,
                                 bool *ret_fatal)
{
        struct kv_txn decoded;
        enum kv_result_kind kind = KV_INVALID;
        kv_store_garbage_free(kv);
        items_begin(kv);
        kv->changing = 0;
        if (txn.len <= KV_TXN_BYTES_MAX && kv_txn_decode(txn, &decoded) == ERR_NONE)
                kind = apply(kv, call, &decoded);
        *ret_fatal = kv->fatal;
        return result_end(kv, kind);
}

const struct kv_result *kv_read(struct kv *kv, const struct kv_txn *txn, bool *ret_fatal)
{
        bool before = kv->fatal;
        struct kv_txn unnamed = *txn;
        unnamed.id = bytes_of(NULL, 0);
        items_begin(kv);
        enum kv_result_kind kind = apply(kv, NULL, &unnamed);
        *ret_fatal = kv->fatal;
        kv->fatal = before;
        return result_end(kv, kind);
}

void kv_session_ended(struct kv *kv, const struct kv_call *call, uint64_t session, bool *ret_fatal)
{
        kv->changing = 0;
        const struct bond *bond = kv_store_bond(kv, session);
        for (size_t left = bond == NULL ? 0 : bond->count; left > 0 && !kv->fatal; left--)
                delete_one(kv, call, kv_store_bond(kv, session)->first);
        *ret_fatal = kv->fatal;
}

/* ---- looking ---- */

bool kv_find(const struct kv *kv, struct bytes key, struct kv_item *ret)
{
        const struct version *version = kv_store_live(kv, key);
        if (version != NULL)
                kv_store_item(version, ret);
        return version != NULL;
}

bool kv_next(const struct kv *kv, struct bytes prefix, struct bytes after, struct kv_item *ret)
{
        const struct entry *entry = after.len > 0 && bytes_compare(after, prefix) >= 0
                                            ? kv_tree_from(kv, after, true)
                                            : kv_tree_from(kv, prefix, false);
        while (entry != NULL && bytes_starts_with(entry->key, prefix)) {
                if (entry->newest->count > 0) {
                        kv_store_item(entry->newest, ret);
                        return true;
                }
                entry = kv_tree_next(entry);
        }
        return false;
}

/* The first version after revision `after`; the newest ones are near. */
static const struct version *changes_first(const struct kv *kv, uint64_t after)
{
        const struct version *version = kv->last;
        while (version != NULL && version->before != NULL && version->before->revision > after)
                version = version->before;
        return version != NULL && version->revision > after ? version : NULL;
}

const struct kv_result *kv_changes(struct kv *kv, struct bytes prefix, uint64_t after,
                                   bool *ret_fatal)
{
        bool before = kv->fatal;
        *ret_fatal = false;
        items_begin(kv);
        if (after > kv->revision)
                return result_end(kv, KV_FUTURE);
        if (after < kv->compacted)
                return result_end(kv, KV_COMPACTED);
        struct kv_answer_step *answer = answer_begin(kv, KV_CHANGES);
        const struct version *version = changes_first(kv, after);
        uint64_t told = after;
        for (; version != NULL && !answer->more; version = version->next) {
                struct kv_item item;
                bool full = kv->item_count >= KV_ITEMS_MAX || kv->item_bytes > KV_ITEMS_BYTES_MAX;
                answer->more = full && version->revision > told;
                if (answer->more)
                        break;
                told = version->revision;
                kv_store_item(version, &item);
                if (!bytes_starts_with(item.key, prefix))
                        continue;
                kv->item_bytes += item.key.len + item.value.len;
                if (!items_add(kv, &item))
                        break;
                answer->count++;
        }
        *ret_fatal = kv->fatal;
        kv->fatal = before;
        answer->total = answer->count;
        kv->result.succeeded = true;
        kv->result.revision = answer->more ? told : kv->revision;
        return result_end(kv, KV_DONE);
}

const char *kv_result_name(enum kv_result_kind kind)
{
        static const char *const names[KV_RESULT_COUNT] = {
                [KV_DONE] = "done",     [KV_INVALID] = "invalid",
                [KV_LIMIT] = "limit",   [KV_COMPACTED] = "compacted",
                [KV_FUTURE] = "future", [KV_NO_SESSION] = "no session",
        };
        return (unsigned)kind < KV_RESULT_COUNT && names[kind] != NULL ? names[kind] : "unknown";
}
