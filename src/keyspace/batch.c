/* Many local changes together. Every step is done for all keys before the next one begins, so that
 * the processor waits for the memory of all of them at once: the bucket, the entry, the metadata of
 * a key that is more than a plain string, the element. Then each change is made in order, by a
 * short way where its key is plain and by that of local.c elsewhere. The looking ahead only warms
 * caches: what it saw may be gone when a change is made, and is looked up again. */
#include "base/check.h"
#include "base/fetch.h"
#include "base/put.h"
#include "keyspace/keyspace_priv.h"

static enum crdt_type op_type(enum crdt_op op)
{
        switch ((int)op) {
        case CRDT_OP_HSET:
        case CRDT_OP_HDEL:
                return CRDT_HASH;
        case CRDT_OP_SADD:
        case CRDT_OP_SREM:
                return CRDT_SET;
        case CRDT_OP_ZADD:
                return CRDT_ZSET;
        }
        return CRDT_STRING;
}

/* The op's key, where the node is that; its metadata is fetched. */
static struct entry *entry_fetch(struct node *node, const struct keyspace_op *op)
{
        if (node == NULL || !node_is(node, (uint16_t)op->name.db, op->name.key))
                return NULL;
        struct entry *entry = entry_of(node);
        if (node->kind == ENTRY_PACK && op->op == CRDT_OP_COUNT)
                fetch_at(entry->pack); /* most counters have no more than the begin */
        else if (node->kind == ENTRY_PACK)
                fetch_bytes(entry->pack, (size_t)2 * FETCH_LINE);
        else if (node->kind == ENTRY_FULL)
                fetch_bytes(entry->crdt, sizeof *entry->crdt);
        return entry;
}

static const struct crdt *entry_whole(const struct entry *entry)
{
        return entry != NULL && entry->node.kind == ENTRY_FULL ? entry->crdt : NULL;
}

static const struct table *table_plain(const struct crdt *crdt, enum crdt_type type)
{
        if (type == CRDT_ZSET)
                return crdt_zset_plain(crdt);
        const struct crdt_items *items = crdt_items_plain(crdt, type);
        return items == NULL ? NULL : &items->table;
}

/* The table in which the first item is looked for, where that was not done by keyspace_op_find. */
static const struct table *fetch_part(const struct keyspace *keyspace, struct keyspace_op *op,
                                      const struct crdt *crdt)
{
        enum crdt_type type = op_type(op->op);
        if (op->op == CRDT_OP_COUNT && crdt->counter.counts != NULL)
                fetch_bytes(crdt->counter.counts, sizeof *crdt->counter.counts);
        if (type == CRDT_STRING || op->item_hash != 0)
                return NULL;
        const struct table *table = table_plain(crdt, type);
        if (table == NULL)
                return NULL;
        op->item_hash = crdt_item_hash(&keyspace->env, op_first(op));
        table_fetch_bucket(table, op->item_hash);
        return table;
}

static void fetch_parts(const struct keyspace *keyspace, struct keyspace_op *ops, size_t count,
                        struct entry *const *entries)
{
        const struct table *tables[KEYSPACE_OPS_MAX];
        for (size_t i = 0; i < count; i++) {
                const struct crdt *crdt = entry_whole(entries[i]);
                tables[i] = crdt == NULL ? NULL : fetch_part(keyspace, &ops[i], crdt);
        }
        for (size_t i = 0; i < count; i++) {
                if (tables[i] != NULL)
                        table_fetch_node(tables[i], ops[i].item_hash);
        }
}

/* Entries that were found stay where they are during a run, which frees none. */
static void fetch_all(const struct keyspace *keyspace, struct keyspace_op *ops, size_t count,
                      struct entry **entries)
{
        struct node *nodes[KEYSPACE_OPS_MAX];
        bool whole = false;
        for (size_t i = 0; i < count; i++) {
                entries[i] = op_entry(keyspace, &ops[i]);
                if (entries[i] != NULL)
                        continue;
                if (ops[i].hash == 0)
                        ops[i].hash = keyspace_name_hash(keyspace, ops[i].name);
                table_fetch_bucket(&keyspace->table, ops[i].hash);
        }
        for (size_t i = 0; i < count; i++) {
                if (entries[i] == NULL)
                        nodes[i] = table_fetch_node(&keyspace->table, ops[i].hash);
        }
        for (size_t i = 0; i < count; i++) {
                if (entries[i] == NULL)
                        entries[i] = entry_fetch(nodes[i], &ops[i]);
                whole = whole || entry_whole(entries[i]) != NULL;
        }
        if (whole)
                fetch_parts(keyspace, ops, count, entries);
}

/* Totals without a float part: a zero byte, then the zigzag varint. */
static uint8_t *put_whole(uint8_t *at, uint64_t whole)
{
        *at++ = 0;
        return put_varint(at, whole << 1 ^ (uint64_t)((int64_t)whole >> 63));
}

void op_publish(struct keyspace *keyspace, struct stamp stamp, const struct keyspace_op *op,
                uint8_t flags, const struct keyspace_teller *teller)
{
        bool more = keyspace_op_body(op->op) > KEYSPACE_OP_BODY;
        put_u64(op->delta, stamp.hlc);
        op->delta[8] = (uint8_t)((unsigned)(more ? CRDT_OP_MORE : op->op) | flags);
        if (more)
                op->delta[9] = (uint8_t)op->op;
        struct bytes delta = bytes_of(op->delta, op->delta_len);
        uint8_t *at = ring_append(&keyspace->ring, stamp.hlc, delta.len);
        if (at != NULL)
                put_bytes(at, delta);
        keyspace->stats.local++;
        teller->plain(teller->context, op, delta);
}

/* The delta of an increment that came to this, as count_publish in local.c makes it, without a
 * float part. */
static void count_tell(struct keyspace *keyspace, struct stamp stamp, struct keyspace_op *op,
                       uint8_t flags, const struct crdt_count *count,
                       const struct keyspace_teller *teller)
{
        uint8_t *at = put_whole(op->delta + op->delta_len, count->total.whole);
        if (count->cut_hlc != 0)
                at = put_whole(put_u64(at, count->cut_hlc), count->cut.whole);
        if (count->life != 0)
                *at++ = count->life;
        flags |= crdt_count_flags(count);
        op->delta_len = (size_t)(at - op->delta);
        op_publish(keyspace, stamp, op, flags, teller);
}

static bool has_part(const struct crdt_count *count)
{
        return count->total.part < 0 || count->total.part > 0 || count->cut.part < 0 ||
               count->cut.part > 0;
}

/* What crdt_apply of that delta does to a counter that is nothing else. */
static void count_add(struct entry *entry, struct crdt_count *count, struct stamp stamp,
                      int64_t amount)
{
        count->total.whole += (uint64_t)amount;
        count->hlc = stamp.hlc;
        entry->crdt->last[CRDT_STRING] = stamp;
}

/* What an increment was added to, where the store holds the outcome of the later ones too. A later
 * SET or DEL makes it of no more interest. */
static int64_t value_before(const struct keyspace_op *ops, size_t at, size_t count,
                            const struct keyspace_teller *teller)
{
        const struct keyspace_op *op = &ops[at];
        uint64_t later = 0;
        for (size_t i = at; i < count; i++) {
                if (ops[i].name.db != op->name.db || !bytes_equal(ops[i].name.key, op->name.key))
                        continue;
                if (ops[i].op == CRDT_OP_EXPIRE)
                        continue;
                if (ops[i].op != CRDT_OP_COUNT)
                        return 0;
                later += (uint64_t)ops[i].amount;
        }
        return (int64_t)((uint64_t)teller->value(teller->context, op->name) - later);
}

/* ---- the short ways: true where it is made and told */

static bool short_count(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                        struct keyspace_op *op, const struct keyspace_teller *teller)
{
        struct crdt_count packed;
        uint8_t flags;
        if (pack_count(keyspace, entry, stamp, op->amount, &packed, &flags)) {
                count_tell(keyspace, stamp, op, flags, &packed, teller);
                return true;
        }
        struct crdt_count *own =
                entry->node.kind == ENTRY_FULL
                        ? crdt_increment_plain(entry->crdt, keyspace->config.origin,
                                               keyspace_life(keyspace))
                        : NULL;
        if (own == NULL || has_part(own) || !count_fits(own, op->amount))
                return false;
        count_add(entry, own, stamp, op->amount);
        count_tell(keyspace, stamp, op, 0, own, teller);
        return true;
}

static bool short_set(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                      const struct keyspace_op *op, const struct keyspace_teller *teller)
{
        uint64_t expire_at_ms = (uint64_t)op->amount;
        if (!entry_shorten(keyspace, entry))
                return false;
        if (entry->node.kind == ENTRY_STRING && entry->hlc != 0) {
                entry->hlc = stamp.hlc;
                entry->origin = stamp.origin;
                entry->more = expire_at_ms;
        } else {
                entry_set(keyspace, entry, stamp, expire_at_ms);
        }
        op_publish(keyspace, stamp, op, expire_at_ms != 0 ? CRDT_FLAG_EXPIRY : 0, teller);
        return true;
}

/* Of one that observed flags have nothing to tell of. */
static bool short_delete(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                         const struct keyspace_op *op, const struct keyspace_teller *teller)
{
        if (!entry_shorten(keyspace, entry) || entry_type(entry) == CRDT_NONE)
                return false;
        entry_kill(keyspace, entry, stamp);
        op_publish(keyspace, stamp, op, 0, teller);
        return true;
}

static bool short_expire(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                         const struct keyspace_op *op, const struct keyspace_teller *teller)
{
        if (entry_type(entry) == CRDT_NONE ||
            !entry_expire(keyspace, entry, stamp, (uint64_t)op->amount))
                return false;
        op_publish(keyspace, stamp, op, 0, teller);
        return true;
}

/* Of a key that is packed, or unknown, or a list. */
static bool short_body(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                       const struct keyspace_op *op, const struct keyspace_teller *teller)
{
        uint8_t flags;
        if (!pack_body(keyspace, entry, op->op, stamp, op->body, &flags))
                return false;
        op_publish(keyspace, stamp, op, flags, teller);
        return true;
}

/* ---- the others */

static enum err run_count(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                          const struct keyspace_op *ops, size_t at, size_t count,
                          const struct keyspace_teller *teller, struct keyspace_change *ret)
{
        struct crdt room;
        struct bytes before = {0};
        if (!entry_unpack(keyspace, entry))
                return ERR_NOMEM;
        if (crdt_base_open(entry_open(keyspace, entry, &room))) {
                buffer_reset(&keyspace->before);
                buffer_format(&keyspace->before, "%lld",
                              (long long)value_before(ops, at, count, teller));
                before = buffer_view(&keyspace->before);
        }
        return count_publish(keyspace, stamp, entry, ops[at].amount, 0, before, ret);
}

static enum err run_pop(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                        const struct keyspace_op *op, struct keyspace_change *ret)
{
        uint64_t length = entry_list_length(entry);
        if (length == 0)
                return change_nothing(ret);
        struct keyspace_range range = {op->amount != 0 ? 0 : length - 1, 1};
        return pops_publish(keyspace, stamp, entry, &range, 1, ret);
}

static bool run_short(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                      struct keyspace_op *op, const struct keyspace_teller *teller)
{
        if (op->delta == NULL)
                return false;
        switch ((int)op->op) {
        case CRDT_OP_COUNT:
                return short_count(keyspace, stamp, entry, op, teller);
        case CRDT_OP_SET:
                return short_set(keyspace, stamp, entry, op, teller);
        case CRDT_OP_DEL:
                return short_delete(keyspace, stamp, entry, op, teller);
        case CRDT_OP_EXPIRE:
                return short_expire(keyspace, stamp, entry, op, teller);
        case CRDT_OP_LIST_REMOVE:
        case CRDT_OP_SREM:
                return false;
        case CRDT_OP_HSET:
        case CRDT_OP_SADD:
        case CRDT_OP_ZADD:
                if (entry->node.kind == ENTRY_FULL)
                        return short_item(keyspace, stamp, entry, op, teller);
                break;
        }
        return short_body(keyspace, stamp, entry, op, teller);
}

static enum err run_long(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                         struct keyspace_op *ops, size_t at, size_t count,
                         const struct keyspace_teller *teller, struct keyspace_change *ret)
{
        const struct keyspace_op *op = &ops[at];
        switch ((int)op->op) {
        case CRDT_OP_COUNT:
                return run_count(keyspace, stamp, entry, ops, at, count, teller, ret);
        case CRDT_OP_SET:
                return value_publish(keyspace, stamp, entry, CRDT_OP_SET, op->body,
                                     (uint64_t)op->amount, ret);
        case CRDT_OP_DEL:
                return entry_holds(entry) ? delete_publish(keyspace, stamp, entry, ret)
                                          : change_nothing(ret);
        case CRDT_OP_EXPIRE:
                return entry_holds(entry)
                               ? expire_publish(keyspace, stamp, entry, (uint64_t)op->amount, ret)
                               : change_nothing(ret);
        case CRDT_OP_ZADD:
                return scores_publish(keyspace, stamp, entry, op->body, ret);
        case CRDT_OP_LIST_INSERT:
        case CRDT_OP_HDEL:
                return items_publish(keyspace, stamp, entry, op->op, op->body, ret);
        case CRDT_OP_SREM:
                return removal_publish(keyspace, stamp, entry, op->body, ret);
        case CRDT_OP_LIST_REMOVE:
                return run_pop(keyspace, stamp, entry, op, ret);
        }
        return run_items(keyspace, stamp, entry, op, teller, ret);
}

static __attribute__((noinline)) enum err run_told(struct keyspace *keyspace, struct entry *entry,
                                                   struct keyspace_op *ops, size_t at, size_t count,
                                                   const struct keyspace_teller *teller)
{
        struct stamp stamp = {ops[at].hlc, keyspace->config.origin};
        struct keyspace_change change = {0};
        enum err err = run_long(keyspace, stamp, entry, ops, at, count, teller, &change);
        if (err == ERR_NONE && (change.nothing || change.delta.ptr != NULL))
                teller->changed(teller->context, &ops[at], &change);
        return err;
}

/* It changes what is known alone. */
static bool op_takes(enum crdt_op op)
{
        return op == CRDT_OP_DEL || op == CRDT_OP_EXPIRE;
}

static bool run_knows(const struct keyspace *keyspace, const struct keyspace_op *op)
{
        return table_look_hashed(&keyspace->table, op->hash, (uint16_t)op->name.db, op->name.key) !=
               NULL;
}

enum err keyspace_run(struct keyspace *keyspace, struct keyspace_op *ops, size_t count,
                      const struct keyspace_teller *teller)
{
        struct entry *entries[KEYSPACE_OPS_MAX];
        CHECK(count <= KEYSPACE_OPS_MAX);
        if (count == 0)
                return ERR_NONE;
        CHECK(ops[count - 1].hlc <= keyspace->hlc.last);
        vector_advance(&keyspace->seen.vector, keyspace->config.origin, ops[count - 1].hlc);
        fetch_all(keyspace, ops, count, entries);
        for (size_t i = 0; i < count; i++) {
                if (!name_fits(ops[i].name) || ops[i].delta_len > CRDT_NAME_LEN_MAX)
                        return ERR_LIMIT;
                struct entry *entry = entries[i];
                if (entry == NULL && op_takes(ops[i].op) && !run_knows(keyspace, &ops[i]))
                        continue;
                if (entry == NULL)
                        entry = entry_get_hashed(keyspace, ops[i].name, ops[i].hash);
                if (entry == NULL)
                        return ERR_NOMEM;
                struct stamp stamp = {ops[i].hlc, keyspace->config.origin};
                if (run_short(keyspace, stamp, entry, &ops[i], teller))
                        continue;
                enum err err = run_told(keyspace, entry, ops, i, count, teller);
                if (err != ERR_NONE)
                        return err;
        }
        op_lately(keyspace, entries[count - 1]);
        return ERR_NONE;
}
