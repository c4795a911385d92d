/* Sets changed here. What a removal has seen of a member goes with it; then the change goes the way
 * of local.c. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

bool names_fit(struct crdt_name name, const struct bytes *names, size_t count)
{
        bool fit = name_fits(name);
        for (size_t i = 0; i < count; i++)
                fit = fit && names[i].len <= CRDT_NAME_LEN_MAX;
        return fit;
}

static enum err names_publish(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                              enum crdt_op op, const struct bytes *names, size_t count,
                              struct keyspace_change *ret)
{
        CHECK(count > 0);
        if (!names_fit(name, names, count))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, op, ret))
                return ERR_NONE;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        if (op == CRDT_OP_SREM && count == 1 &&
            pack_set_remove(keyspace, entry, stamp, names[0], ret))
                return ERR_NONE;
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        uint8_t flags = op == CRDT_OP_SADD ? created_flag(entry) : 0;
        struct buffer *delta = delta_begin(keyspace, stamp, op, flags, name);
        buffer_varint(delta, count);
        for (size_t i = 0; i < count; i++) {
                buffer_slice(delta, names[i]);
                if (op == CRDT_OP_SREM)
                        crdt_dots_encode(&keyspace->env, crdt, names[i], delta);
        }
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err removal_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                         struct bytes body, struct keyspace_change *ret)
{
        struct cursor cursor = cursor_of(body);
        uint64_t count = cursor_varint(&cursor);
        if (change_is_part(entry, CRDT_OP_SREM, ret))
                return ERR_NONE;
        struct cursor first = cursor;
        if (count == 1 && pack_set_remove(keyspace, entry, stamp, cursor_slice(&first), ret))
                return ERR_NONE;
        struct crdt *crdt = entry_full(keyspace, entry);
        if (crdt == NULL)
                return ERR_NOMEM;
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_SREM, 0, entry_name(entry));
        buffer_varint(delta, count);
        for (uint64_t i = 0; i < count; i++) {
                struct bytes member = cursor_slice(&cursor);
                buffer_slice(delta, member);
                crdt_dots_encode(&keyspace->env, crdt, member, delta);
        }
        CHECK(cursor_done(&cursor) == ERR_NONE);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err keyspace_local_set_add(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                const struct bytes *members, size_t count,
                                struct keyspace_change *ret)
{
        return names_publish(keyspace, wall_ms, name, CRDT_OP_SADD, members, count, ret);
}

enum err keyspace_local_set_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                   struct crdt_name name, const struct bytes *members, size_t count,
                                   struct keyspace_change *ret)
{
        return names_publish(keyspace, wall_ms, name, CRDT_OP_SREM, members, count, ret);
}
