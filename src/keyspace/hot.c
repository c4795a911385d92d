/* What a store asks on its hot path, or before it merges. None of it reads a value. */
#include "keyspace/keyspace_priv.h"

uint64_t keyspace_name_hash(const struct keyspace *keyspace, struct crdt_name name)
{
        return table_hash(&keyspace->env, (uint16_t)name.db, name.key);
}

enum crdt_member keyspace_set_look(const struct keyspace *keyspace, struct crdt_name name,
                                   uint64_t hash, struct bytes member, uint64_t shipped)
{
        region_id self = keyspace->config.origin;
        const struct node *node =
                table_look_hashed(&keyspace->table, hash, (uint16_t)name.db, name.key);
        const struct entry *entry = (const struct entry *)node;
        if (node != NULL && node->kind == ENTRY_PACK)
                return crdt_pack_member(entry->pack, member, self, shipped);
        if (node != NULL && node->kind == ENTRY_FULL)
                return crdt_set_look(&keyspace->env, entry->crdt, member, self, shipped);
        return CRDT_MEMBER_ABSENT;
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
