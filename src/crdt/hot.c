/* What a store asks on its hot path: questions that change nothing, and the increment of a counter
 * that is known already. */
#include "crdt/crdt_priv.h"

static struct item *member_find(const struct table_env *env, const struct crdt *crdt,
                                struct bytes member)
{
        if (crdt->members == NULL || crdt->evicted || crdt_type(crdt) != CRDT_SET)
                return NULL;
        struct node *node = table_look(env, &crdt->members->table, 0, member);
        return node == NULL || !item_visible(item_of(node)) ? NULL : item_of(node);
}

bool crdt_set_has(const struct table_env *env, const struct crdt *crdt, struct bytes member)
{
        return member_find(env, crdt, member) != NULL;
}

bool crdt_set_fresh(const struct table_env *env, const struct crdt *crdt, struct bytes member,
                    region_id origin, uint64_t shipped)
{
        struct item *item = member_find(env, crdt, member);
        const struct crdt_dot *dot = item == NULL ? NULL : item_dot(item, origin);
        return dot != NULL && !dot->removed && dot->hlc > shipped;
}

bool crdt_increment_asks(const struct crdt *crdt)
{
        return base_alive(crdt) && crdt->base_kind == CRDT_BASE_NATIVE;
}

struct crdt_count *crdt_increment_plain(struct crdt *crdt, region_id origin)
{
        if (crdt->fields != NULL || crdt->members != NULL || crdt->bound_count > 0 ||
            crdt->evicted || crdt_type(crdt) != CRDT_STRING || crdt_increment_asks(crdt))
                return NULL;
        for (unsigned i = 0; i < crdt->count_count; i++) {
                struct crdt_count *count = &crdt->counts[i];
                if (count->origin == origin)
                        return crdt_counted(crdt, count) ? count : NULL;
        }
        return NULL;
}
