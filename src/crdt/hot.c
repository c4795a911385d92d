/* What a store asks on its hot path: questions that change nothing, and the plainest changes: the
 * increment of a counter that is known already, fields of a hash and members of a set that is
 * there. A plain change comes to what crdt_apply of its delta does: its stamp is later than all
 * that is known, and nothing of another type is left that could die by it. */
#include "crdt/counter.h"
#include "crdt/crdt_priv.h"
#include "crdt/list.h"
#include "crdt/zset.h"

static struct item *member_find(const struct crdt *crdt, struct bytes member, uint64_t hash)
{
        if (crdt->members == NULL || crdt->evicted || crdt_type(crdt) != CRDT_SET)
                return NULL;
        struct node *node = table_look_hashed(&crdt->members->table, hash, 0, member);
        return node == NULL || !item_visible(item_of(node)) ? NULL : item_of(node);
}

enum crdt_member crdt_set_look(const struct crdt *crdt, struct bytes member, uint64_t hash,
                               region_id origin, uint64_t shipped)
{
        struct item *item = member_find(crdt, member, hash);
        if (item == NULL)
                return CRDT_MEMBER_ABSENT;
        const struct crdt_dot *dot = item_dot(item, origin);
        bool fresh = dot != NULL && !dot->removed && dot->hlc > shipped;
        return fresh ? CRDT_MEMBER_FRESH : CRDT_MEMBER_THERE;
}

static bool zset_shows(const struct crdt *crdt)
{
        return crdt->zset != NULL && !crdt->evicted && crdt_type(crdt) == CRDT_ZSET;
}

enum crdt_member crdt_zset_look(const struct crdt *crdt, struct bytes name, uint64_t hash,
                                region_id origin, uint64_t shipped, double *ret_score)
{
        struct node *node =
                zset_shows(crdt) ? table_look_hashed(&crdt->zset->table, hash, 0, name) : NULL;
        if (node == NULL)
                return CRDT_MEMBER_ABSENT;
        struct zset_member *member = zset_member_of(node);
        if (member->more != NULL)
                return zset_score(crdt, member, ret_score) ? CRDT_MEMBER_THERE : CRDT_MEMBER_ABSENT;
        if (member->one.count == 0 || member->one.removed)
                return CRDT_MEMBER_ABSENT;
        *ret_score = member->one.score;
        bool fresh = member->one.origin == origin && member->one.hlc > shipped;
        return fresh ? CRDT_MEMBER_FRESH : CRDT_MEMBER_THERE;
}

struct table *crdt_zset_plain(const struct crdt *crdt)
{
        struct crdt_zset *zset = crdt->zset;
        bool plain = zset != NULL && zset->live > 0 && crdt->fields == NULL &&
                     crdt->members == NULL && crdt->list == NULL && crdt->stream == NULL &&
                     crdt->hll == NULL && crdt->siblings == NULL && crdt->bound_count == 0 &&
                     crdt->counter.base_kind == CRDT_BASE_NATIVE;
        return plain ? &zset->table : NULL;
}

/* A sum that has saturated stays where it is while a part goes up or down: who adds to such parts
 * has to look at the sum. */
static bool counter_adds_up(const struct crdt_counter *counter)
{
        bool good = counter->base_kind != CRDT_BASE_INT || crdt_adds_up(counter->base_int);
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *count = &counter->counts[i];
                good = good && crdt_adds_up((int64_t)(count->total.whole - count->cut.whole));
        }
        return good;
}

static bool part_is(const struct crdt_count *count, region_id origin, uint8_t life)
{
        return count->origin == origin && count->life == life;
}

struct crdt_count *crdt_increment_plain(struct crdt *crdt, region_id origin, uint8_t life)
{
        if (crdt->fields != NULL || crdt->members != NULL || crdt->list != NULL ||
            crdt->stream != NULL || crdt->zset != NULL || crdt->bound_count > 0 || crdt->evicted)
                return NULL;
        struct crdt_count *own = crdt->counter.counts;
        for (unsigned i = 1; i < crdt->counter.count_count && !part_is(own, origin, life); i++)
                own++;
        bool plain = own != NULL && part_is(own, origin, life) && crdt_counted(crdt, own) &&
                     !crdt_base_open(crdt) && counter_adds_up(&crdt->counter);
        return plain ? own : NULL;
}

struct crdt_items *crdt_items_plain(const struct crdt *crdt, enum crdt_type type)
{
        struct crdt_items *items = type == CRDT_HASH ? crdt->fields : crdt->members;
        const struct crdt_items *others = type == CRDT_HASH ? crdt->members : crdt->fields;
        bool plain = items != NULL && items->live > 0 && items->tallies == 0 && others == NULL &&
                     crdt->list == NULL && crdt->stream == NULL && crdt->zset == NULL &&
                     crdt->bound_count == 0 && crdt->counter.base_kind == CRDT_BASE_NATIVE;
        return plain ? items : NULL;
}

/* An element that stands by one dot, whose place the new one takes. False: it is not so plain. */
static bool item_renew(struct item *item, enum crdt_type type, struct stamp stamp)
{
        bool own = type == CRDT_HASH || item->one.origin == stamp.origin;
        if (item->node.kind != ITEM_PLAIN || item->one.count != 1 || item->one.removed || !own ||
            !stamp_before(dot_stamp(item->one), stamp))
                return false;
        dot_write(&item->one, stamp, false);
        return true;
}

static void item_make(struct crdt_env *env, struct crdt_items **slot, struct bytes name,
                      uint64_t hash, struct stamp stamp)
{
        struct item *item = items_add(env, slot, name, hash);
        if (item == NULL)
                return;
        item->one.count = 1;
        dot_write(&item->one, stamp, false);
        (*slot)->live++;
}

void crdt_item_put(struct crdt_env *env, struct crdt *crdt, enum crdt_type type, struct bytes name,
                   uint64_t hash, struct stamp stamp)
{
        struct crdt_items **slot = type == CRDT_HASH ? &crdt->fields : &crdt->members;
        struct item *item = items_find_hashed(env, *slot, name, hash);
        crdt->last[type] = stamp;
        if (item == NULL)
                item_make(env, slot, name, hash, stamp);
        else if (item_renew(item, type, stamp))
                return;
        else if (type == CRDT_HASH)
                field_put(env, crdt, name, hash, stamp);
        else
                member_put(env, crdt, name, hash, stamp);
}

uint64_t crdt_item_hash(const struct table_env *env, struct bytes name)
{
        return table_hash(env, 0, name);
}

static struct crdt_list *list_plain(const struct crdt *crdt)
{
        struct crdt_list *list = crdt->list;
        bool plain = list != NULL && list->length > 0 && list->gone.count == 0 &&
                     list->values.count == 0 && crdt->fields == NULL && crdt->members == NULL &&
                     crdt->stream == NULL && crdt->zset == NULL && crdt->bound_count == 0 &&
                     !crdt->evicted && crdt->counter.base_kind == CRDT_BASE_NATIVE;
        return plain ? list : NULL;
}

bool crdt_list_push_plain(const struct table_env *env, struct crdt *crdt, bool head, uint32_t count,
                          struct stamp stamp)
{
        struct crdt_list *list = list_plain(crdt);
        if (list == NULL)
                return false;
        struct list_at at = list_seek(list, head ? 0 : list->length);
        struct list_run run = {
                .stamp = stamp, .kind = head ? LIST_HEAD : LIST_TAIL, .count = count};
        if (!list_put(env->heap, list, at, run))
                return false;
        crdt->last[CRDT_LIST] = stamp;
        return true;
}

bool crdt_list_pop_plain(const struct crdt_env *env, struct crdt *crdt, bool head,
                         struct buffer *name)
{
        struct crdt_list *list = list_plain(crdt);
        if (list == NULL || list->length == 1)
                return false;
        const struct crdt_seen *seen = env->seen;
        struct list_at at = list_seek(list, head ? 0 : list->length - 1);
        struct list_run run = list_run_at(list, at);
        run.count = 1;
        if (run.kind == LIST_BETWEEN || !env_seen(env, run.stamp) ||
            !list_take(env->table.heap, list, at, 1))
                return false;
        list_run_write(name, run);
        if (crdt->touched < seen->vector.hlc[seen->self])
                crdt->touched = seen->vector.hlc[seen->self];
        return true;
}
