/* Local changes in place: of keys that are packed, or of which nothing is known, and at the ends of
 * lists. Each comes to what
 * the long way of local.c makes of the same delta. False: it must go that way, with the same stamp;
 * what was done already does no harm there. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

static enum crdt_type op_type(enum crdt_op op)
{
        switch ((int)op) {
        case CRDT_OP_HSET:
        case CRDT_OP_HDEL:
                return CRDT_HASH;
        case CRDT_OP_SADD:
                return CRDT_SET;
        case CRDT_OP_LIST_INSERT:
                return CRDT_LIST;
        case CRDT_OP_ZADD:
                return CRDT_ZSET;
        }
        return CRDT_NONE;
}

static bool name_change(struct keyspace *keyspace, struct crdt_pack **slot, enum crdt_op op,
                        struct stamp stamp, struct cursor *cursor)
{
        struct bytes name = cursor_slice(cursor);
        if (op == CRDT_OP_HDEL)
                return crdt_pack_hash_delete(*slot, name, stamp);
        if (op == CRDT_OP_ZADD)
                return crdt_pack_score_put(&keyspace->env, slot, name, stamp,
                                           crdt_score_read(cursor));
        if (op == CRDT_OP_HSET)
                cursor_slice(cursor);
        return crdt_pack_put(&keyspace->env, slot, name, stamp);
}

static bool names_change(struct keyspace *keyspace, struct crdt_pack **slot, enum crdt_op op,
                         struct stamp stamp, struct cursor *cursor)
{
        uint64_t count = cursor_varint(cursor);
        for (uint64_t i = 0; i < count; i++) {
                if (!name_change(keyspace, slot, op, stamp, cursor))
                        return false;
        }
        return true;
}

static bool pack_change(struct keyspace *keyspace, struct crdt_pack **slot, enum crdt_op op,
                        struct stamp stamp, struct bytes body)
{
        struct cursor cursor = cursor_of(body);
        if (crdt_pack_kind(*slot) != op_type(op))
                return false;
        if (op != CRDT_OP_LIST_INSERT)
                return names_change(keyspace, slot, op, stamp, &cursor);
        uint8_t where = cursor_u8(&cursor);
        uint64_t count = cursor_varint(&cursor);
        return where <= CRDT_LIST_HEAD &&
               crdt_pack_push(&keyspace->env, slot, where == CRDT_LIST_HEAD, (uint32_t)count,
                              stamp);
}

static bool entry_unknown(const struct entry *entry)
{
        return entry->node.kind == ENTRY_STRING && entry->hlc == 0;
}

static void entry_begin(struct keyspace *keyspace, struct entry *entry, struct crdt_pack *pack,
                        struct stamp stamp)
{
        entry_count(keyspace, CRDT_NONE, crdt_pack_kind(pack));
        entry->node.kind = ENTRY_PACK;
        entry->pack = pack;
        entry->hlc = stamp.hlc;
        entry->origin = stamp.origin;
        entry->more_origin = 0;
}

static bool list_push(struct keyspace *keyspace, struct crdt *crdt, struct stamp stamp,
                      struct bytes body)
{
        struct cursor cursor = cursor_of(body);
        uint8_t where = cursor_u8(&cursor);
        uint64_t count = cursor_varint(&cursor);
        return where <= CRDT_LIST_HEAD &&
               crdt_list_push_plain(&keyspace->env, crdt, where == CRDT_LIST_HEAD, (uint32_t)count,
                                    stamp);
}

bool pack_body(struct keyspace *keyspace, struct entry *entry, enum crdt_op op, struct stamp stamp,
               struct bytes body, uint8_t *ret_flags)
{
        *ret_flags = 0;
        if (entry->node.kind == ENTRY_PACK) {
                enum crdt_type was = crdt_pack_type(entry->pack);
                bool done = created_flag(entry) == 0 &&
                            pack_change(keyspace, &entry->pack, op, stamp, body);
                entry_count(keyspace, was, crdt_pack_type(entry->pack));
                if (done && op != CRDT_OP_HDEL)
                        entry_raise(entry, stamp);
                return done;
        }
        if (entry->node.kind == ENTRY_FULL && op == CRDT_OP_LIST_INSERT)
                return list_push(keyspace, entry->crdt, stamp, body);
        if (!entry_unknown(entry) || op == CRDT_OP_HDEL)
                return false;
        struct crdt_pack *pack = crdt_pack_new(&keyspace->env, op_type(op), stamp);
        if (pack == NULL)
                return false;
        if (!pack_change(keyspace, &pack, op, stamp, body)) {
                crdt_pack_free(&keyspace->env, pack);
                return false;
        }
        entry_begin(keyspace, entry, pack, stamp);
        *ret_flags = CRDT_FLAG_CREATED;
        return true;
}

bool pack_count(struct keyspace *keyspace, struct entry *entry, struct stamp stamp, int64_t amount,
                struct crdt_count *ret, uint8_t *ret_flags)
{
        *ret_flags = 0;
        if (entry->node.kind == ENTRY_PACK) {
                if (!crdt_pack_increment(entry->pack, keyspace_life(keyspace), entry_stamp(entry),
                                         stamp, amount, ret))
                        return false;
                entry_raise(entry, stamp);
                return true;
        }
        if (!entry_unknown(entry))
                return false;
        struct crdt_pack *pack =
                crdt_pack_count_new(&keyspace->env, stamp, keyspace_life(keyspace), amount, ret);
        if (pack == NULL)
                return false;
        entry_begin(keyspace, entry, pack, stamp);
        *ret_flags = CRDT_FLAG_CREATED;
        return true;
}

bool pack_set_remove(struct keyspace *keyspace, struct entry *entry, struct stamp stamp,
                     struct bytes member, struct keyspace_change *ret)
{
        if (entry->node.kind != ENTRY_PACK)
                return false;
        struct crdt_env env = keyspace_env(keyspace, NULL, entry_name(entry));
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_SREM, 0, env.name);
        buffer_varint(delta, 1);
        buffer_slice(delta, member);
        if (!crdt_pack_set_remove(&env, &entry->pack, member, delta) || delta->err != ERR_NONE)
                return false;
        entry_count(keyspace, CRDT_SET, crdt_pack_type(entry->pack));
        change_publish(keyspace, stamp, ret);
        return true;
}

bool pack_pop(struct keyspace *keyspace, struct entry *entry, struct stamp stamp, bool head,
              struct keyspace_change *ret)
{
        if (entry_short(entry))
                return false;
        struct crdt_env env = keyspace_env(keyspace, NULL, entry_name(entry));
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_LIST_REMOVE, 0, env.name);
        buffer_varint(delta, 1);
        bool packed = entry->node.kind == ENTRY_PACK;
        bool done = packed ? crdt_pack_pop(&env, &entry->pack, head, delta)
                           : crdt_list_pop_plain(&env, entry->crdt, head, delta);
        if (!done || delta->err != ERR_NONE)
                return false;
        if (packed)
                entry_count(keyspace, CRDT_LIST, crdt_pack_type(entry->pack));
        change_publish(keyspace, stamp, ret);
        return true;
}
