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

static uint8_t *put_u64(uint8_t *at, uint64_t value)
{
        for (unsigned i = 0; i < 8; i++)
                at[i] = (uint8_t)(value >> (8 * i));
        return at + 8;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
        for (; value >= 0x80; value >>= 7)
                *at++ = (uint8_t)(value | 0x80);
        *at++ = (uint8_t)value;
        return at;
}

/* Totals without a float part: a zero byte, then the zigzag varint. */
static uint8_t *put_whole(uint8_t *at, uint64_t whole)
{
        *at++ = 0;
        return put_varint(at, whole << 1 ^ (uint64_t)((int64_t)whole >> 63));
}

/* Writes the delta that count_publish in local.c makes, without a float part. */
static enum err add_encode(struct buffer *delta, uint64_t hlc, struct crdt_name name,
                           const struct crdt_count *count)
{
        enum {
                HEAD_MAX = 8 + 1 + 5 + 5,
                TAIL_MAX = 11 + 8 + 11,
        };
        buffer_reset(delta);
        uint8_t *from = buffer_reserve(delta, HEAD_MAX + name.key.len + TAIL_MAX);
        if (from == NULL)
                return ERR_NOMEM;
        uint8_t *at = put_u64(from, hlc);
        *at++ = (uint8_t)(CRDT_OP_COUNT | (count->cut_hlc != 0 ? CRDT_FLAG_CUTS : 0));
        at = put_varint(at, name.db);
        at = put_varint(at, name.key.len);
        if (name.key.len > 0)
                memcpy(at, name.key.ptr, name.key.len);
        at = put_whole(at + name.key.len, count->total.whole);
        if (count->cut_hlc != 0)
                at = put_whole(put_u64(at, count->cut_hlc), count->cut.whole);
        buffer_commit(delta, (size_t)(at - from));
        return ERR_NONE;
}

static bool has_part(const struct crdt_count *count)
{
        return count->total.part < 0 || count->total.part > 0 || count->cut.part < 0 ||
               count->cut.part > 0;
}

/* What crdt_apply of that delta does to a counter that is nothing else. */
static enum err add_plain(struct keyspace *keyspace, uint64_t wall_ms, struct entry *entry,
                          struct crdt_count *count, int64_t amount, struct keyspace_change *ret)
{
        struct stamp stamp = keyspace_issue(keyspace, wall_ms);
        count->total.whole += (uint64_t)amount;
        count->hlc = stamp.hlc;
        entry->crdt->last[CRDT_STRING] = stamp;
        enum err err = add_encode(&keyspace->delta, stamp.hlc, entry_name(entry), count);
        if (err != ERR_NONE)
                return err;
        struct bytes made = buffer_view(&keyspace->delta);
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
                if (count != NULL && !has_part(count))
                        return add_plain(keyspace, wall_ms, entry, count, amount, ret);
        }
        struct crdt room;
        if (crdt_increment_asks(entry_look(entry, &room)))
                return ERR_NOT_FOUND;
        enum err err = keyspace_local_increment(keyspace, wall_ms, name, amount, amount, ret);
        ret->rewrite = false;
        return err;
}
