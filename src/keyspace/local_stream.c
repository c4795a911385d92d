/* Streams changed here: what went is named by its ids and by what had been seen of them; then the
 * change goes the way of local.c. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

static const struct crdt *stream_of(const struct entry *entry)
{
        return entry == NULL || entry->node.kind != ENTRY_FULL ? NULL : entry->crdt;
}

uint64_t keyspace_stream_length(const struct keyspace *keyspace, struct crdt_name name,
                                struct crdt_stream_id *ret_last)
{
        const struct node *node = NULL;
        if (name_fits(name))
                node = table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        const struct crdt *crdt = stream_of((const struct entry *)node);
        *ret_last = crdt == NULL ? (struct crdt_stream_id){0} : crdt_stream_last(crdt);
        return crdt == NULL ? 0 : crdt_stream_length(crdt);
}

static bool entries_fit(struct crdt_name name, const struct keyspace_entry *entries, size_t count)
{
        bool fit = name_fits(name);
        for (size_t i = 0; i < count; i++) {
                CHECK(entries[i].count > 0);
                CHECK(entries[i].count % 2 == 0);
                for (size_t j = 0; j < entries[i].count; j++)
                        fit = fit && entries[i].strings[j].len <= CRDT_NAME_LEN_MAX;
        }
        return fit;
}

enum err keyspace_local_stream_add(struct keyspace *keyspace, uint64_t wall_ms,
                                   struct crdt_name name, struct crdt_stream_id last,
                                   const struct keyspace_entry *entries, size_t count,
                                   struct keyspace_change *ret)
{
        if (!entries_fit(name, entries, count))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_STREAM_ADD, ret))
                return ERR_NONE;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_STREAM_ADD, created_flag(entry), name);
        crdt_stream_id_encode(delta, last);
        buffer_varint(delta, count);
        for (size_t i = 0; i < count; i++) {
                CHECK(entries[i].id.ms != 0 || entries[i].id.seq != 0);
                crdt_stream_id_encode(delta, entries[i].id);
                buffer_varint(delta, entries[i].count);
                for (size_t j = 0; j < entries[i].count; j++)
                        buffer_slice(delta, entries[i].strings[j]);
        }
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err keyspace_local_stream_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                      struct crdt_name name, const struct keyspace_ids *ranges,
                                      size_t count, struct keyspace_change *ret)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        if (entry != NULL && change_is_part(entry, CRDT_OP_STREAM_REMOVE, ret))
                return ERR_NONE;
        const struct crdt *crdt = stream_of(entry);
        uint64_t there = 0;
        for (size_t i = 0; crdt != NULL && i < count; i++)
                there += crdt_stream_has(crdt, ranges[i].low, ranges[i].high);
        if (there == 0)
                return change_nothing(ret);
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_STREAM_REMOVE, 0, name);
        buffer_varint(delta, there);
        for (size_t i = 0; i < count; i++) {
                if (crdt_stream_has(crdt, ranges[i].low, ranges[i].high))
                        crdt_stream_removal_encode(crdt, ranges[i].low, ranges[i].high, delta);
        }
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}
