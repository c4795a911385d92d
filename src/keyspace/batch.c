/* Many local changes together. Every step is done for all keys before the next one begins, so that
 * the processor waits for the memory of all of them at once: the bucket, the entry, the metadata of
 * a key that is more than a plain string, the element. Then each change is made in order, by a
 * short way where its key is plain and by that of local.c elsewhere. The looking ahead only warms
 * caches: what it saw may be gone when a change is made, and is looked up again. */
#include "base/check.h"
#include "base/put.h"
#include "keyspace/keyspace_priv.h"

enum {
        CACHE_LINE = 64,
};

static void fetch(const void *from, size_t len)
{
        for (size_t i = 0; i < len; i += CACHE_LINE)
                __builtin_prefetch((const char *)from + i);
}

static enum crdt_type op_type(enum crdt_op op)
{
        switch ((int)op) {
        case CRDT_OP_HSET:
                return CRDT_HASH;
        case CRDT_OP_SADD:
                return CRDT_SET;
        case CRDT_OP_ZADD:
                return CRDT_ZSET;
        }
        return CRDT_STRING;
}

/* Fetches the metadata of a node that has more than a stamp; returns it where it is whole, and the
 * node is the op's key. */
static const struct crdt *full_fetch(const struct node *node, const struct keyspace_op *op)
{
        if (node == NULL || node->key_len != op->name.key.len)
                return NULL;
        const struct entry *entry = (const struct entry *)node;
        if (node->kind == ENTRY_PACK)
                fetch(entry->pack, (size_t)2 * CACHE_LINE);
        if (node->kind != ENTRY_FULL)
                return NULL;
        fetch(entry->crdt, sizeof *entry->crdt);
        return entry->crdt;
}

static struct bytes first_item(const struct keyspace_op *op)
{
        struct cursor cursor = cursor_of(op->body);
        cursor_varint(&cursor);
        return cursor_slice(&cursor);
}

static const struct table *table_plain(const struct crdt *crdt, enum crdt_type type)
{
        if (type == CRDT_ZSET)
                return crdt_zset_plain(crdt);
        const struct crdt_items *items = crdt_items_plain(crdt, type);
        return items == NULL ? NULL : &items->table;
}

static void fetch_part(const struct keyspace *keyspace, struct keyspace_op *op,
                       const struct crdt *crdt)
{
        enum crdt_type type = op_type(op->op);
        if (op->op == CRDT_OP_COUNT && crdt->counter.counts != NULL)
                fetch(crdt->counter.counts, sizeof *crdt->counter.counts);
        if (type == CRDT_STRING)
                return;
        const struct table *table = table_plain(crdt, type);
        if (table == NULL)
                return;
        op->item_hash = crdt_item_hash(&keyspace->env, first_item(op));
        table_fetch_bucket(table, op->item_hash);
}

static void fetch_all(const struct keyspace *keyspace, struct keyspace_op *ops, size_t count)
{
        const struct node *nodes[KEYSPACE_OPS_MAX];
        const struct crdt *full[KEYSPACE_OPS_MAX];
        for (size_t i = 0; i < count; i++) {
                if (ops[i].hash == 0)
                        ops[i].hash = keyspace_name_hash(keyspace, ops[i].name);
                table_fetch_bucket(&keyspace->table, ops[i].hash);
                ops[i].item_hash = 0;
        }
        for (size_t i = 0; i < count; i++)
                nodes[i] = table_fetch_node(&keyspace->table, ops[i].hash);
        bool any = false;
        for (size_t i = 0; i < count; i++) {
                full[i] = full_fetch(nodes[i], &ops[i]);
                any = any || full[i] != NULL;
        }
        if (!any)
                return;
        for (size_t i = 0; i < count; i++) {
                if (full[i] != NULL)
                        fetch_part(keyspace, &ops[i], full[i]);
        }
        for (size_t i = 0; i < count; i++) {
                enum crdt_type type = op_type(ops[i].op);
                const struct table *table =
                        type == CRDT_STRING || full[i] == NULL ? NULL : table_plain(full[i], type);
                if (table != NULL)
                        table_fetch_node(table, ops[i].item_hash);
        }
}

/* Totals without a float part: a zero byte, then the zigzag varint. */
static uint8_t *put_whole(uint8_t *at, uint64_t whole)
{
        *at++ = 0;
        return put_varint(at, whole << 1 ^ (uint64_t)((int64_t)whole >> 63));
}

/* Writes the delta that count_publish in local.c makes, without a float part. */
static enum err add_encode(struct buffer *delta, uint64_t hlc, uint8_t flags, struct crdt_name name,
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
        *at++ = (uint8_t)(CRDT_OP_COUNT | flags | (count->cut_hlc != 0 ? CRDT_FLAG_CUTS : 0));
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

/* Publishes what an increment came to. */
static enum err add_publish(struct keyspace *keyspace, struct stamp stamp, uint8_t flags,
                            const struct entry *entry, const struct crdt_count *count,
                            struct keyspace_change *ret)
{
        enum err err = add_encode(&keyspace->delta, stamp.hlc, flags, entry_name(entry), count);
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

/* What crdt_apply of that delta does to a counter that is nothing else. */
static enum err add_plain(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                          struct crdt_count *count, int64_t amount, struct keyspace_change *ret)
{
        count->total.whole += (uint64_t)amount;
        count->hlc = stamp.hlc;
        entry->crdt->last[CRDT_STRING] = stamp;
        return add_publish(keyspace, stamp, 0, entry, count, ret);
}

/* What an increment was added to, where the store holds the outcome of the later ones too. A later
 * SET makes it of no more interest. */
static int64_t value_before(const struct keyspace_op *ops, size_t at, size_t count,
                            const struct keyspace_teller *teller)
{
        const struct keyspace_op *op = &ops[at];
        uint64_t later = 0;
        for (size_t i = at; i < count; i++) {
                if (ops[i].hash != op->hash || ops[i].name.db != op->name.db ||
                    !bytes_equal(ops[i].name.key, op->name.key))
                        continue;
                if (ops[i].op != CRDT_OP_COUNT)
                        return 0;
                later += (uint64_t)ops[i].amount;
        }
        return (int64_t)((uint64_t)teller->value(teller->context, op->name) - later);
}

static enum err run_count(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                          const struct keyspace_op *ops, size_t at, size_t count,
                          const struct keyspace_teller *teller, struct keyspace_change *ret)
{
        int64_t amount = ops[at].amount;
        struct crdt_count packed;
        uint8_t flags;
        if (pack_count(keyspace, entry, stamp, amount, &packed, &flags))
                return add_publish(keyspace, stamp, flags, entry, &packed, ret);
        if (entry->node.kind == ENTRY_FULL) {
                struct crdt_count *own = crdt_increment_plain(entry->crdt, keyspace->config.origin);
                if (own != NULL && !has_part(own) && count_fits(own, amount))
                        return add_plain(keyspace, stamp, entry, own, amount, ret);
        }
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
        return count_publish(keyspace, stamp, entry, amount, 0, before, ret);
}

/* Puts a delta into the ring as it is. */
static void publish(struct keyspace *keyspace, struct stamp stamp, const struct keyspace_op *op,
                    uint8_t flags, struct keyspace_change *ret)
{
        put_u64(op->delta, stamp.hlc);
        bool more = keyspace_op_body(op->op) > KEYSPACE_OP_BODY;
        op->delta[8] = (uint8_t)((unsigned)(more ? CRDT_OP_MORE : op->op) | flags);
        if (more)
                op->delta[9] = (uint8_t)op->op;
        uint8_t *at = ring_append(&keyspace->ring, stamp.hlc, op->delta_len);
        if (at != NULL)
                memcpy(at, op->delta, op->delta_len);
        keyspace->stats.local++;
        *ret = (struct keyspace_change){.stamp = stamp,
                                        .delta = bytes_of(op->delta, op->delta_len)};
}

static enum err run_set(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                        const struct keyspace_op *op, struct keyspace_change *ret)
{
        if (!entry_short(entry))
                return value_publish(keyspace, stamp, entry, CRDT_OP_SET, op->body, 0, ret);
        entry_set(keyspace, entry, stamp, 0);
        publish(keyspace, stamp, op, 0, ret);
        return ERR_NONE;
}

/* Of the first item, which is `name`. */
static uint64_t item_hash(const struct keyspace *keyspace, const struct keyspace_op *op,
                          struct bytes name)
{
        return op->item_hash != 0 ? op->item_hash : crdt_item_hash(&keyspace->env, name);
}

static enum err run_items(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                          const struct keyspace_op *op, struct keyspace_change *ret)
{
        uint8_t flags;
        enum crdt_type type = op_type(op->op);
        if (pack_body(keyspace, entry, op->op, stamp, op->body, &flags)) {
                publish(keyspace, stamp, op, flags, ret);
                return ERR_NONE;
        }
        if (entry->node.kind != ENTRY_FULL || crdt_items_plain(entry->crdt, type) == NULL)
                return items_publish(keyspace, stamp, entry, op->op, op->body, ret);
        struct crdt_env env = {.table = keyspace->env};
        struct cursor cursor = cursor_of(op->body);
        uint64_t count = cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct bytes name = cursor_slice(&cursor);
                uint64_t hash = i == 0 ? item_hash(keyspace, op, name)
                                       : crdt_item_hash(&keyspace->env, name);
                crdt_item_put(&env, entry->crdt, type, name, hash, stamp);
                if (type == CRDT_HASH)
                        cursor_slice(&cursor);
        }
        CHECK(cursor_done(&cursor) == ERR_NONE);
        if (env.err != ERR_NONE)
                return env.err;
        publish(keyspace, stamp, op, 0, ret);
        return ERR_NONE;
}

/* The short way for one member, which most commands name. */
static enum err run_score(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                          const struct keyspace_op *op, struct keyspace_change *ret)
{
        uint8_t flags;
        if (pack_body(keyspace, entry, op->op, stamp, op->body, &flags)) {
                publish(keyspace, stamp, op, flags, ret);
                return ERR_NONE;
        }
        if (entry->node.kind != ENTRY_FULL || crdt_zset_plain(entry->crdt) == NULL)
                return scores_publish(keyspace, stamp, entry, op->body, ret);
        struct crdt_env env = {.table = keyspace->env};
        struct cursor cursor = cursor_of(op->body);
        uint64_t count = cursor_varint(&cursor);
        struct bytes member = cursor_slice(&cursor);
        double score = crdt_score_read(&cursor);
        CHECK(!cursor_failed(&cursor));
        if (count != 1 || !crdt_zset_put(&env, entry->crdt, member, item_hash(keyspace, op, member),
                                         score, stamp))
                return scores_publish(keyspace, stamp, entry, op->body, ret);
        if (env.err != ERR_NONE)
                return env.err;
        publish(keyspace, stamp, op, 0, ret);
        return ERR_NONE;
}

static enum err run_push(struct keyspace *keyspace, struct stamp stamp, struct entry *entry,
                         const struct keyspace_op *op, struct keyspace_change *ret)
{
        uint8_t flags;
        if (!pack_body(keyspace, entry, op->op, stamp, op->body, &flags))
                return items_publish(keyspace, stamp, entry, op->op, op->body, ret);
        publish(keyspace, stamp, op, flags, ret);
        return ERR_NONE;
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

static enum err run_one(struct keyspace *keyspace, struct entry *entry, struct keyspace_op *ops,
                        size_t at, size_t count, const struct keyspace_teller *teller,
                        struct keyspace_change *ret)
{
        const struct keyspace_op *op = &ops[at];
        struct stamp stamp = {op->hlc, keyspace->config.origin};
        switch ((int)op->op) {
        case CRDT_OP_COUNT:
                return run_count(keyspace, stamp, entry, ops, at, count, teller, ret);
        case CRDT_OP_SET:
                return run_set(keyspace, stamp, entry, op, ret);
        case CRDT_OP_ZADD:
                return run_score(keyspace, stamp, entry, op, ret);
        case CRDT_OP_LIST_INSERT:
                return run_push(keyspace, stamp, entry, op, ret);
        case CRDT_OP_LIST_REMOVE:
                return run_pop(keyspace, stamp, entry, op, ret);
        }
        return run_items(keyspace, stamp, entry, op, ret);
}

uint64_t keyspace_stamp(struct keyspace *keyspace, uint64_t wall_ms)
{
        return keyspace_issue(keyspace, wall_ms).hlc;
}

enum err keyspace_run(struct keyspace *keyspace, struct keyspace_op *ops, size_t count,
                      const struct keyspace_teller *teller)
{
        CHECK(count <= KEYSPACE_OPS_MAX);
        fetch_all(keyspace, ops, count);
        for (size_t i = 0; i < count; i++) {
                struct keyspace_op *op = &ops[i];
                struct keyspace_change change = {0};
                if (!name_fits(op->name) || op->delta_len > CRDT_NAME_LEN_MAX)
                        return ERR_LIMIT;
                struct entry *entry = entry_get_hashed(keyspace, op->name, op->hash);
                if (entry == NULL)
                        return ERR_NOMEM;
                enum err err = run_one(keyspace, entry, ops, i, count, teller, &change);
                if (err != ERR_NONE)
                        return err;
                teller->changed(teller->context, op, &change);
        }
        return ERR_NONE;
}
