/* Looking at keys whose concurrent writes are all kept, and at conflicts. Nothing here fails. */
#include "keyspace/keyspace_priv.h"

size_t keyspace_siblings(const struct keyspace *keyspace, struct crdt_name name,
                         const struct crdt_sibling **ret)
{
        const struct node *node = NULL;
        if (name_fits(name))
                node = table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        if (node == NULL || node->kind != ENTRY_FULL)
                return 0;
        const struct crdt_siblings *siblings = ((const struct entry *)node)->crdt->siblings;
        if (siblings == NULL)
                return 0;
        *ret = siblings->list;
        return siblings->count;
}

void keyspace_watch(struct keyspace *keyspace,
                    void (*found)(void *context, const struct crdt_conflict *conflict),
                    void *context)
{
        keyspace->found = found;
        keyspace->found_context = context;
}

void keyspace_siblings_show(struct keyspace *keyspace, const struct crdt_native *native)
{
        struct table_walk walk = {0};
        struct node *node = table_next(&keyspace->table, &walk);
        for (; node != NULL; node = table_next(&keyspace->table, &walk)) {
                struct entry *entry = entry_of(node);
                if (entry->node.kind != ENTRY_FULL)
                        continue;
                struct crdt_env env = keyspace_env(keyspace, native, entry_name(entry));
                crdt_siblings_show(&env, entry->crdt);
        }
}
