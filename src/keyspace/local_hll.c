/* HyperLogLogs changed here. An add names its elements; where the registers alone say it, they are
 * told. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

/* `entry` is no pack. */
static struct buffer *hll_begin(struct keyspace *keyspace, uint64_t wall_ms, struct entry *entry,
                                uint8_t flags, struct stamp *ret_stamp)
{
        struct crdt room;
        struct stamp generation = crdt_hll_generation(entry_open(keyspace, entry, &room));
        flags |= created_flag(entry);
        *ret_stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta =
                delta_begin(keyspace, *ret_stamp, CRDT_OP_HLL, flags, entry_name(entry));
        buffer_u64(delta, keyspace_kills_known(keyspace));
        buffer_u64(delta, generation.hlc);
        buffer_u8(delta, generation.origin);
        return delta;
}

enum err keyspace_local_hll_add(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                const struct bytes *elements, size_t count,
                                struct keyspace_change *ret)
{
        bool fit = name_fits(name);
        struct stamp stamp;
        for (size_t i = 0; i < count; i++)
                fit = fit && elements[i].len <= CRDT_NAME_LEN_MAX;
        if (!fit)
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL || !entry_unpack(keyspace, entry))
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_HLL, ret))
                return ERR_NONE;
        struct buffer *delta = hll_begin(keyspace, wall_ms, entry, 0, &stamp);
        buffer_varint(delta, count);
        for (size_t i = 0; i < count; i++)
                buffer_slice(delta, elements[i]);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err keyspace_local_hll_registers(struct keyspace *keyspace, uint64_t wall_ms,
                                      struct crdt_name name, struct bytes registers,
                                      struct keyspace_change *ret)
{
        struct stamp stamp;
        if (!name_fits(name) || registers.len > CRDT_NAME_LEN_MAX)
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL || !entry_unpack(keyspace, entry))
                return ERR_NOMEM;
        struct buffer *delta = hll_begin(keyspace, wall_ms, entry, CRDT_FLAG_REGISTERS, &stamp);
        buffer_bytes(delta, registers);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}
