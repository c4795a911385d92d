/* What a store asks on its hot path, or before it merges. None of it reads a value. */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"

static const struct crdt *look(const struct keyspace *keyspace, struct crdt_name name)
{
        const struct node *node =
                table_look(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
        if (node == NULL || node->kind != ENTRY_FULL)
                return NULL;
        return ((const struct entry *)node)->crdt;
}

void keyspace_prefetch(const struct keyspace *keyspace, struct crdt_name name)
{
        table_prefetch(&keyspace->env, &keyspace->table, (uint16_t)name.db, name.key);
}

bool keyspace_set_has(const struct keyspace *keyspace, struct crdt_name name, struct bytes member)
{
        const struct crdt *crdt = look(keyspace, name);
        return crdt != NULL && crdt_set_has(&keyspace->env, crdt, member);
}

bool keyspace_set_fresh(const struct keyspace *keyspace, struct crdt_name name, struct bytes member,
                        uint64_t shipped)
{
        const struct crdt *crdt = look(keyspace, name);
        return crdt != NULL &&
               crdt_set_fresh(&keyspace->env, crdt, member, keyspace->config.origin, shipped);
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
                if (delta.op != CRDT_OP_SEEN)
                        each(context, delta.name);
        }
}

/* The delta is as count_publish in local.c makes it, and the merge of it is what crdt_apply does to a
 * counter that is nothing else. */
static enum err add_plain(struct keyspace *keyspace, uint64_t wall_ms, struct entry *entry,
                          struct crdt_count *count, int64_t amount, struct keyspace_change *ret)
{
        struct crdt *crdt = entry->crdt;
        struct buffer *delta = &keyspace->delta;
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        struct crdt_totals total = count->total;
        total.whole += (uint64_t)amount;
        buffer_reset(delta);
        crdt_delta_head(delta, stamp.hlc, CRDT_OP_COUNT, count->cut_hlc != 0 ? CRDT_FLAG_CUTS : 0,
                        entry_name(entry));
        crdt_totals_encode(delta, total);
        if (count->cut_hlc != 0) {
                buffer_u64(delta, count->cut_hlc);
                crdt_totals_encode(delta, count->cut);
        }
        if (delta->err != ERR_NONE)
                return delta->err;
        count->total = total;
        count->hlc = stamp.hlc;
        crdt->last[CRDT_STRING] = stamp;
        struct bytes made = buffer_view(delta);
        uint8_t *at = ring_append(&keyspace->ring, stamp.hlc, made.len);
        if (at != NULL)
                memcpy(at, made.ptr, made.len);
        keyspace->stats.local++;
        *ret = (struct keyspace_change){.stamp = stamp, .delta = made};
        return ERR_NONE;
}

enum err keyspace_local_add(struct keyspace *keyspace, uint64_t wall_ms, struct crdt_name name,
                            int64_t amount, struct keyspace_change *ret)
{
        if (!name_fits(name))
                return ERR_LIMIT;
        struct entry *entry = entry_get(keyspace, name);
        if (entry == NULL)
                return ERR_NOMEM;
        if (entry->node.kind == ENTRY_FULL) {
                const char *lines = (const char *)entry->crdt;
                for (size_t i = 64; i < sizeof *entry->crdt; i += 64)
                        __builtin_prefetch(lines + i); /* together instead of one by one */
                struct crdt_count *count =
                        crdt_increment_plain(entry->crdt, keyspace->config.origin);
                if (count != NULL)
                        return add_plain(keyspace, wall_ms, entry, count, amount, ret);
        }
        struct crdt room;
        if (crdt_increment_asks(entry_look(entry, &room)))
                return ERR_NOT_FOUND;
        enum err err = keyspace_local_increment(keyspace, wall_ms, name, amount, amount, ret);
        ret->rewrite = false;
        return err;
}
