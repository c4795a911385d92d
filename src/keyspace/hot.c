/* What a store asks on its hot path, or before it merges. None of it reads a value. */
#include "keyspace/keyspace_priv.h"

static const struct crdt *look(const struct keyspace *keyspace, struct crdt_name name)
{
        const struct node *node =
                table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        if (node == NULL || node->kind != ENTRY_FULL)
                return NULL;
        return ((const struct entry *)node)->crdt;
}

enum crdt_member keyspace_set_look(const struct keyspace *keyspace, struct crdt_name name,
                                   struct bytes member, uint64_t shipped)
{
        const struct crdt *crdt = look(keyspace, name);
        if (crdt == NULL)
                return CRDT_MEMBER_ABSENT;
        return crdt_set_look(&keyspace->env, crdt, member, keyspace->config.origin, shipped);
}

void keyspace_names(struct bytes deltas, void (*each)(void *context, struct crdt_name name),
                    void *context)
{
        struct cursor cursor = cursor_of(deltas);
        while (cursor_left(&cursor) > 0) {
                struct crdt_delta delta;
                struct bytes one = cursor_slice(&cursor);
                if (cursor_failed(&cursor) || crdt_delta_decode(one, 1, &delta) != ERR_NONE)
                        return;
                if (delta.op != CRDT_OP_SEEN && delta.op != CRDT_OP_LIFE &&
                    delta.op != CRDT_OP_EVENT)
                        each(context, delta.name);
        }
}
