/* What a store asks on its hot path: questions that change nothing, and the plainest changes: the
 * increment of a counter that is known already, fields of a hash and members of a set that is
 * there. A plain change comes to what crdt_apply of its delta does: its stamp is later than all
 * that is known, and nothing of another type is left that could die by it. */
#include "crdt/crdt_priv.h"

static struct item *member_find(const struct table_env *env, const struct crdt *crdt,
                                struct bytes member)
{
        if (crdt->members == NULL || crdt->evicted || crdt_type(crdt) != CRDT_SET)
                return NULL;
        struct node *node = table_look(env, &crdt->members->table, 0, member);
        return node == NULL || !item_visible(item_of(node)) ? NULL : item_of(node);
}

enum crdt_member crdt_set_look(const struct table_env *env, const struct crdt *crdt,
                               struct bytes member, region_id origin, uint64_t shipped)
{
        struct item *item = member_find(env, crdt, member);
        if (item == NULL)
                return CRDT_MEMBER_ABSENT;
        const struct crdt_dot *dot = item_dot(item, origin);
        bool fresh = dot != NULL && !dot->removed && dot->hlc > shipped;
        return fresh ? CRDT_MEMBER_FRESH : CRDT_MEMBER_THERE;
}

struct crdt_count *crdt_increment_plain(struct crdt *crdt, region_id origin)
{
        if (crdt->fields != NULL || crdt->members != NULL || crdt->list != NULL ||
            crdt->stream != NULL || crdt->zset != NULL || crdt->bound_count > 0 || crdt->evicted)
                return NULL;
        struct crdt_count *own = crdt->counter.counts;
        for (unsigned i = 1; i < crdt->counter.count_count && own->origin != origin; i++)
                own++;
        bool plain = own != NULL && own->origin == origin && crdt_counted(crdt, own) &&
                     !crdt_base_open(crdt);
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

void crdt_item_put(struct crdt_env *env, struct crdt *crdt, enum crdt_type type, struct bytes name,
                   uint64_t hash, struct stamp stamp)
{
        crdt->last[type] = stamp;
        if (type == CRDT_HASH)
                field_put(env, crdt, name, hash, stamp);
        else
                member_put(env, crdt, name, hash, stamp);
}

uint64_t crdt_item_hash(const struct table_env *env, struct bytes name)
{
        return table_hash(env, 0, name);
}
