/* Lists changed here: indexes become names and places, then the change goes the way of local.c. */
#include "keyspace/keyspace_priv.h"

#include "base/check.h"

/* What is known of a list; NULL: nothing. A pack becomes whole; out of memory is told by *err. */
static const struct crdt *list_of(struct keyspace *keyspace, struct entry *entry, enum err *err)
{
        *err = ERR_NONE;
        if (entry != NULL && !entry_unpack(keyspace, entry))
                *err = ERR_NOMEM;
        return entry == NULL || entry->node.kind != ENTRY_FULL ? NULL : entry->crdt;
}

uint64_t entry_list_length(const struct entry *entry)
{
        if (entry->node.kind == ENTRY_PACK)
                return crdt_pack_length(entry->pack, CRDT_LIST);
        return entry->node.kind == ENTRY_FULL ? crdt_list_length(entry->crdt) : 0;
}

uint64_t keyspace_list_length(const struct keyspace *keyspace, struct crdt_name name)
{
        const struct node *node = NULL;
        if (name_fits(name))
                node = table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        return node == NULL ? 0 : entry_list_length((const struct entry *)node);
}

static bool values_fit(struct crdt_name name, const struct bytes *values, size_t count)
{
        bool fit = name_fits(name) && count <= CRDT_LIST_COUNT_MAX;
        for (size_t i = 0; fit && i < count; i++)
                fit = values[i].len <= CRDT_NAME_LEN_MAX;
        return fit;
}

enum err keyspace_local_list_push(struct keyspace *keyspace, uint64_t wall_ms,
                                  struct crdt_name name, bool head, const struct bytes *values,
                                  size_t count, struct keyspace_change *ret)
{
        CHECK(count > 0);
        if (!values_fit(name, values, count))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (change_is_part(entry, CRDT_OP_LIST_INSERT, ret))
                return ERR_NONE;
        buffer_reset(&keyspace->text);
        buffer_u8(&keyspace->text, head ? CRDT_LIST_HEAD : CRDT_LIST_TAIL);
        buffer_varint(&keyspace->text, count);
        for (size_t i = 0; i < count; i++)
                buffer_slice(&keyspace->text, values[i]);
        if (keyspace->text.err != ERR_NONE)
                return keyspace->text.err;
        return items_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry,
                             CRDT_OP_LIST_INSERT, buffer_view(&keyspace->text), ret);
}

enum err keyspace_local_list_insert(struct keyspace *keyspace, uint64_t wall_ms,
                                    struct crdt_name name, uint64_t index, struct bytes value,
                                    struct keyspace_change *ret)
{
        struct entry *entry = values_fit(name, &value, 1) ? entry_find(keyspace, name) : NULL;
        if (entry != NULL && change_is_part(entry, CRDT_OP_LIST_INSERT, ret))
                return ERR_NONE;
        enum err memory;
        const struct crdt *crdt = list_of(keyspace, entry, &memory);
        if (memory != ERR_NONE)
                return memory;
        if (crdt == NULL || index == 0 || index >= crdt_list_length(crdt))
                return ERR_LIMIT;
        struct buffer place;
        buffer_init(&place, keyspace->heap);
        bool fits = crdt_list_place_encode(&keyspace->env, crdt, index, &place);
        if (!fits || place.err != ERR_NONE) {
                enum err err = fits ? place.err : ERR_LIMIT;
                buffer_fini(&place);
                return err;
        }
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_LIST_INSERT, 0, name);
        buffer_u8(delta, CRDT_LIST_BETWEEN);
        buffer_bytes(delta, buffer_view(&place));
        buffer_fini(&place);
        buffer_varint(delta, 1);
        buffer_slice(delta, value);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

/* As much of a range as there is. */
static struct keyspace_range range_within(struct keyspace_range range, uint64_t length)
{
        range.index = range.index < length ? range.index : length;
        uint64_t left = length - range.index;
        range.count = range.count < left ? range.count : left;
        return range;
}

enum err keyspace_local_list_remove(struct keyspace *keyspace, uint64_t wall_ms,
                                    struct crdt_name name, const struct keyspace_range *ranges,
                                    size_t count, struct keyspace_change *ret)
{
        struct entry *entry = name_fits(name) ? entry_find(keyspace, name) : NULL;
        uint64_t length = entry == NULL ? 0 : entry_list_length(entry);
        uint64_t there = 0;
        if (entry != NULL && change_is_part(entry, CRDT_OP_LIST_INSERT, ret))
                return ERR_NONE;
        for (size_t i = 0; i < count; i++)
                there += range_within(ranges[i], length).count;
        if (there == 0)
                return change_nothing(ret);
        return pops_publish(keyspace, keyspace_issue(keyspace, wall_ms), entry, ranges, count, ret);
}

/* True where one element goes, at an end; *ret_head says which. */
static bool range_is_end(struct keyspace_range range, uint64_t length, bool *ret_head)
{
        *ret_head = range.index == 0;
        return range.count == 1 && (*ret_head || range.index + 1 == length);
}

enum err pops_publish(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                      const struct keyspace_range *ranges, size_t count,
                      struct keyspace_change *ret)
{
        bool head;
        if (change_is_part(entry, CRDT_OP_LIST_INSERT, ret))
                return ERR_NONE;
        if (count == 1 && range_is_end(ranges[0], entry_list_length(entry), &head) &&
            pack_pop(keyspace, entry, stamp, head, ret))
                return ERR_NONE;
        enum err memory;
        const struct crdt *crdt = list_of(keyspace, entry, &memory);
        if (memory != ERR_NONE)
                return memory;
        uint64_t length = crdt == NULL ? 0 : crdt_list_length(crdt);
        uint64_t runs = 0;
        for (size_t i = 0; i < count; i++) {
                struct keyspace_range range = range_within(ranges[i], length);
                CHECK(i == 0 || ranges[i].index >= ranges[i - 1].index + ranges[i - 1].count);
                runs += range.count == 0 ? 0 : crdt_list_runs(crdt, range.index, range.count);
        }
        if (runs == 0)
                return change_nothing(ret);
        struct buffer *delta =
                delta_begin(keyspace, stamp, CRDT_OP_LIST_REMOVE, 0, entry_name(entry));
        buffer_varint(delta, runs);
        for (size_t i = 0; i < count; i++) {
                struct keyspace_range range = range_within(ranges[i], length);
                if (range.count > 0)
                        crdt_list_runs_encode(crdt, range.index, range.count, delta);
        }
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}

enum err keyspace_local_list_set(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                                 uint64_t index, struct bytes value, struct keyspace_change *ret)
{
        struct entry *entry = values_fit(name, &value, 1) ? entry_find(keyspace, name) : NULL;
        if (entry != NULL && change_is_part(entry, CRDT_OP_LIST_INSERT, ret))
                return ERR_NONE;
        enum err memory;
        const struct crdt *crdt = list_of(keyspace, entry, &memory);
        if (memory != ERR_NONE)
                return memory;
        if (crdt == NULL || index >= crdt_list_length(crdt))
                return ERR_LIMIT;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct buffer *delta = delta_begin(keyspace, stamp, CRDT_OP_LIST_INSERT, 0, name);
        buffer_u8(delta, CRDT_LIST_AT);
        crdt_list_runs_encode(crdt, index, 1, delta);
        buffer_varint(delta, 1);
        buffer_slice(delta, value);
        return delta_end(keyspace, entry, stamp, (struct bytes){0}, ret);
}
