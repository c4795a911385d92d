/* Plain writes of elements, which batch.c makes one by one: what the filter of a store asks before
 * the command, and the short way into a hash, set or sorted set that is kept whole. What it finds
 * out goes with the op, so that nothing is looked for twice: hashes stay, and an entry that was
 * found is where it was as long as none has been freed since. Fails only by memory. */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"

/* Whether it has that name. Different names of one length mostly end differently. */
static bool entry_named(const struct entry *entry, struct crdt_name name)
{
        uint64_t ours;
        uint64_t end;
        struct bytes key = node_key(&entry->node);
        if (key.len != name.key.len || entry->node.space != name.db)
                return false;
        if (key.len < sizeof ours)
                return bytes_equal(key, name.key);
        memcpy(&ours, key.ptr + key.len - sizeof ours, sizeof ours);
        memcpy(&end, name.key.ptr + key.len - sizeof end, sizeof end);
        return ours == end && memcmp(key.ptr, name.key.ptr, key.len - sizeof ours) == 0;
}

void op_lately(struct keyspace *keyspace, struct entry *entry)
{
        keyspace->lately = entry;
        keyspace->lately_freed = keyspace->freed;
}

struct entry *op_entry(const struct keyspace *keyspace, const struct keyspace_op *op)
{
        if (op->entry != NULL)
                return op->freed == keyspace->freed ? op->entry : NULL;
        struct entry *entry = keyspace->lately;
        bool there = entry != NULL && keyspace->lately_freed == keyspace->freed;
        return there && entry_named(entry, op->name) ? entry : NULL;
}

struct bytes op_first(const struct keyspace_op *op)
{
        struct cursor cursor = cursor_of(op->body);
        cursor_varint(&cursor);
        return cursor_slice(&cursor);
}

static struct entry *op_look_up(struct keyspace *keyspace, struct keyspace_op *op)
{
        op->hash = keyspace_name_hash(keyspace, op->name);
        struct node *node =
                table_look_hashed(&keyspace->table, op->hash, (uint16_t)op->name.db, op->name.key);
        if (node == NULL)
                return NULL;
        op_lately(keyspace, entry_of(node));
        return entry_of(node);
}

static const struct table *member_table(const struct crdt *crdt, enum crdt_op op)
{
        if (op == CRDT_OP_ZADD)
                return crdt_zset_plain(crdt);
        return crdt->members == NULL ? NULL : &crdt->members->table;
}

void keyspace_op_find(struct keyspace *keyspace, struct keyspace_op *op, struct bytes member)
{
        struct entry *entry = op_entry(keyspace, op);
        if (entry == NULL)
                entry = op_look_up(keyspace, op);
        op->entry = entry;
        op->freed = keyspace->freed;
        if (entry == NULL || entry->node.kind != ENTRY_FULL)
                return;
        const struct table *table = member_table(entry->crdt, op->op);
        op->item_hash = crdt_item_hash(&keyspace->env, member);
        if (table != NULL)
                table_fetch_bucket(table, op->item_hash);
}

enum crdt_member keyspace_op_look(const struct keyspace *keyspace, const struct keyspace_op *op,
                                  struct bytes member, double score, uint64_t shipped)
{
        double known = 0;
        const struct entry *entry = op->entry;
        CHECK(entry == NULL || op->freed == keyspace->freed);
        if (entry == NULL)
                return CRDT_MEMBER_ABSENT;
        if (op->op != CRDT_OP_ZADD)
                return entry_set_look(keyspace, entry, member, op->item_hash, shipped);
        enum crdt_member look =
                entry_zset_look(keyspace, entry, member, op->item_hash, shipped, &known);
        return score < known || score > known ? CRDT_MEMBER_ABSENT : look;
}

static uint64_t item_hash(const struct keyspace *keyspace, const struct keyspace_op *op,
                          struct bytes name, bool first)
{
        return first && op->item_hash != 0 ? op->item_hash : crdt_item_hash(&keyspace->env, name);
}

/* None of what they do asks for anything outside. */
static struct crdt_env *plain_env(struct keyspace *keyspace)
{
        keyspace->plain.table = keyspace->env;
        keyspace->plain.err = ERR_NONE;
        return &keyspace->plain;
}

/* The table of that type, where nothing but an element of it changes. */
static bool item_plain(const struct crdt *crdt, enum crdt_op op)
{
        if (op == CRDT_OP_ZADD)
                return crdt_zset_plain(crdt) != NULL;
        return crdt_items_plain(crdt, op == CRDT_OP_HSET ? CRDT_HASH : CRDT_SET) != NULL;
}

bool short_item(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                const struct keyspace_op *op, const struct keyspace_teller *teller)
{
        struct cursor cursor = cursor_of(op->body);
        if (cursor_varint(&cursor) != 1 || !item_plain(entry->crdt, op->op))
                return false;
        struct crdt_env *env = plain_env(keyspace);
        struct bytes name = cursor_slice(&cursor);
        uint64_t hash = item_hash(keyspace, op, name, true);
        if (op->op != CRDT_OP_ZADD)
                crdt_item_put(env, entry->crdt, op->op == CRDT_OP_HSET ? CRDT_HASH : CRDT_SET, name,
                              hash, stamp);
        else if (!crdt_zset_put(env, entry->crdt, name, hash, crdt_score_read(&cursor), stamp))
                return false;
        if (env->err != ERR_NONE)
                return false; /* and there is none for the long way either */
        op_publish(keyspace, stamp, op, 0, teller);
        return true;
}

enum err run_items(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                   const struct keyspace_op *op, const struct keyspace_teller *teller,
                   struct keyspace_change *ret)
{
        enum crdt_type type = op->op == CRDT_OP_HSET ? CRDT_HASH : CRDT_SET;
        if (entry->node.kind != ENTRY_FULL || crdt_items_plain(entry->crdt, type) == NULL)
                return items_publish(keyspace, stamp, entry, op->op, op->body, ret);
        struct crdt_env *env = plain_env(keyspace);
        struct cursor cursor = cursor_of(op->body);
        uint64_t count = cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct bytes name = cursor_slice(&cursor);
                crdt_item_put(env, entry->crdt, type, name, item_hash(keyspace, op, name, i == 0),
                              stamp);
                if (type == CRDT_HASH)
                        cursor_slice(&cursor);
        }
        CHECK(cursor_done(&cursor) == ERR_NONE);
        if (env->err == ERR_NONE)
                op_publish(keyspace, stamp, op, 0, teller);
        return env->err;
}
