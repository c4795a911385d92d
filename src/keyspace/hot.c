/* What a store asks on its hot path, or before it merges. None of it reads a value. */
#include "keyspace/keyspace_priv.h"

uint64_t keyspace_name_hash(const struct keyspace *keyspace, struct crdt_name name)
{
        return table_hash(&keyspace->env, (uint16_t)name.db, name.key);
}

static uint64_t known_hash(const struct keyspace *keyspace, struct bytes member, uint64_t hash)
{
        return hash != 0 ? hash : crdt_item_hash(&keyspace->env, member);
}

enum crdt_member entry_set_look(const struct keyspace *keyspace, const struct entry *entry,
                                struct bytes member, uint64_t hash, uint64_t shipped)
{
        region_id self = keyspace->config.origin;
        if (entry->node.kind == ENTRY_PACK)
                return crdt_pack_member(entry->pack, member, self, shipped);
        if (entry->node.kind == ENTRY_FULL)
                return crdt_set_look(entry->crdt, member, known_hash(keyspace, member, hash), self,
                                     shipped);
        return CRDT_MEMBER_ABSENT;
}

enum crdt_member entry_zset_look(const struct keyspace *keyspace, const struct entry *entry,
                                 struct bytes member, uint64_t hash, uint64_t shipped,
                                 double *ret_score)
{
        region_id self = keyspace->config.origin;
        if (entry->node.kind == ENTRY_PACK)
                return crdt_pack_score(entry->pack, member, self, shipped, ret_score);
        if (entry->node.kind == ENTRY_FULL)
                return crdt_zset_look(entry->crdt, member, known_hash(keyspace, member, hash), self,
                                      shipped, ret_score);
        return CRDT_MEMBER_ABSENT;
}

enum crdt_member keyspace_set_look(const struct keyspace *keyspace, struct crdt_name name,
                                   uint64_t hash, struct bytes member, uint64_t shipped)
{
        const struct node *node =
                table_look_hashed(&keyspace->table, hash, (uint16_t)name.db, name.key);
        const struct entry *entry = (const struct entry *)node;
        return entry == NULL ? CRDT_MEMBER_ABSENT
                             : entry_set_look(keyspace, entry, member, 0, shipped);
}

void keyspace_names(struct bytes deltas, void (*each)(void *context, struct crdt_name name),
                    void *context)
{
        struct cursor cursor = cursor_of(deltas);
        struct crdt_name last = {0};
        while (cursor_left(&cursor) > 0) {
                enum crdt_op op;
                struct crdt_name name;
                struct bytes one = cursor_slice(&cursor);
                if (cursor_failed(&cursor) || crdt_delta_peek(one, &op, &name) != ERR_NONE)
                        return;
                bool keyless = op == CRDT_OP_SEEN || op == CRDT_OP_LIFE || op == CRDT_OP_EVENT;
                bool again = last.key.ptr != NULL && last.db == name.db &&
                             bytes_equal(last.key, name.key);
                if (!keyless && !again)
                        each(context, name);
                if (!keyless)
                        last = name;
        }
}
