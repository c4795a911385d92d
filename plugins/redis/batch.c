/* batch.c - the plain writes of a turn, told to the keyspace together (keyspace_run says why).
 *
 * The filter opens an op: it writes the delta of the command that runs next, with room for what is
 * not known yet. The notification commits it: the database and the stamp are filled in. Where none
 * comes, the command changed nothing, and the next op takes the room. Whoever needs the keyspace as
 * it is drains the batch first: a write that is not plain (in the filter, before it runs, so that
 * the store still holds what the ops left), any other notification, the daemon's commands, a
 * snapshot, the end of the turn.
 *
 * Fails only by running out of memory, which stops the server. */
#include "plugin.h"

#include "base/put.h"

#include <stdlib.h>
#include <strings.h>

enum {
        OP_BYTES_MAX = 8 << 10,        /* longer commands take the long way */
        EXPIRY_SPACE = PUT_VARINT_MAX, /* before the value of a SET that expires */
        BATCH_BYTES = 64 << 10,
        DB_SPACE = 2, /* before an op: database numbers beyond 127 take two bytes more */
};

static struct {
        const char *event; /* how the name of the open op's notification begins */
        bool expires;      /* SET, EXPIRE: it has an expiry, which is known afterwards */
        int half_db;       /* the database of plugin.open_half */
        size_t end;        /* `used`, when it is committed */
        size_t used;       /* bytes of the committed ops */
        uint64_t stamp;    /* the next that may be given, where any are left */
        unsigned stamps;
        unsigned count;
        struct keyspace_op ops[KEYSPACE_OPS_MAX];
        uint8_t bytes[BATCH_BYTES];
} batch;

/* ---- opening */

struct shape {
        enum crdt_op op; /* 0: not a plain write */
        int args;        /* exactly; 0: any number */
        int sign;        /* of an amount */
        char event[4];   /* how the name of its notification begins */
        bool head;       /* of a list */
        bool expires;
};

static const struct shape shapes[RULE_KIND_COUNT] = {
        [RULE_SET] = {CRDT_OP_SET, 0, 0, "set", false, false},
        [RULE_SETEX] = {CRDT_OP_SET, 4, 0, "set", false, true},
        [RULE_DEL] = {CRDT_OP_DEL, 2, 0, "del", false, false},
        [RULE_EXPIRE] = {CRDT_OP_EXPIRE, 0, 0, {'e', 'x', 'p', 'i'}, false, true},
        [RULE_INCR] = {CRDT_OP_COUNT, 2, 1, {'i', 'n', 'c', 'r'}, false, false},
        [RULE_DECR] = {CRDT_OP_COUNT, 2, -1, {'i', 'n', 'c', 'r'}, false, false},
        [RULE_INCRBY] = {CRDT_OP_COUNT, 3, 1, {'i', 'n', 'c', 'r'}, false, false},
        [RULE_DECRBY] = {CRDT_OP_COUNT, 3, -1, {'i', 'n', 'c', 'r'}, false, false},
        [RULE_HSET] = {CRDT_OP_HSET, 0, 0, {'h', 's', 'e', 't'}, false, false},
        [RULE_HDEL] = {CRDT_OP_HDEL, 0, 0, {'h', 'd', 'e', 'l'}, false, false},
        [RULE_SADD] = {CRDT_OP_SADD, 0, 0, {'s', 'a', 'd', 'd'}, false, false},
        [RULE_SREM] = {CRDT_OP_SREM, 0, 0, {'s', 'r', 'e', 'm'}, false, false},
        [RULE_ZADD] = {CRDT_OP_ZADD, 4, 0, {'z', 'a', 'd', 'd'}, false, false}, /* of one member */
        [RULE_LPUSH] = {CRDT_OP_LIST_INSERT, 0, 0, {'l', 'p', 'u', 's'}, true, false},
        [RULE_RPUSH] = {CRDT_OP_LIST_INSERT, 0, 0, {'r', 'p', 'u', 's'}, false, false},
        [RULE_LPOP] = {CRDT_OP_LIST_REMOVE, 2, 0, {'l', 'p', 'o', 'p'}, true, false},
        [RULE_RPOP] = {CRDT_OP_LIST_REMOVE, 2, 0, {'r', 'p', 'o', 'p'}, false, false},
};

static bool put_amount(struct redis_filter_context *ctx, const struct shape *shape, int64_t *ret)
{
        long long amount = 1;
        if (shape->args == 3 &&
            redis.StringToLongLong(redis.CommandFilterArgGet(ctx, 2), &amount) != REDIS_OK)
                return false;
        *ret = shape->sign < 0 ? (int64_t)(0 - (uint64_t)amount) : amount;
        return true;
}

/* The list of an HSET, a SADD or a push; false where it is too long. */
static bool put_list(struct redis_filter_context *ctx, int argc, uint64_t count, bool reversed,
                     uint8_t **at, const uint8_t *end)
{
        *at = put_varint(*at, count);
        for (int i = 2; i < argc; i++) {
                int from = reversed ? argc + 1 - i : i;
                struct bytes item = plugin_bytes(redis.CommandFilterArgGet(ctx, from));
                if (item.len + PUT_VARINT_MAX > (size_t)(end - *at))
                        return false;
                *at = put_slice(*at, item);
        }
        return true;
}

/* Where an expiry goes before it, there is room for that. */
static bool put_value(struct redis_filter_context *ctx, int from, bool expires,
                      struct keyspace_op *op, uint8_t **at, const uint8_t *end)
{
        struct bytes value = plugin_bytes(redis.CommandFilterArgGet(ctx, from));
        if (value.len + EXPIRY_SPACE > (size_t)(end - *at))
                return false;
        if (expires)
                *at += EXPIRY_SPACE;
        op->body.ptr = *at;
        *at = put_bytes(*at, value);
        return true;
}

/* The options of a SET: whether it has an expiry. False: the long way takes one of them. */
static bool set_options(struct redis_filter_context *ctx, int argc, bool *ret_expires)
{
        static const struct {
                char name[5];
                bool time;
        } known[] = {{"nx", false}, {"xx", false},  {"get", false}, {"ex", true},
                     {"px", true},  {"exat", true}, {"pxat", true}};
        *ret_expires = false;
        for (int i = 3; i < argc; i++) {
                struct bytes word = plugin_bytes(redis.CommandFilterArgGet(ctx, i));
                unsigned k = 0;
                while (k < COUNT_OF(known) &&
                       (word.len != strnlen(known[k].name, sizeof(known[k].name)) ||
                        strncasecmp((const char *)word.ptr, known[k].name, word.len) != 0))
                        k++;
                if (k == COUNT_OF(known))
                        return false;
                *ret_expires = *ret_expires || known[k].time;
                i += known[k].time;
        }
        return true;
}

/* What is not set here is where it is used, by the kind of op. */
static inline void op_begin(struct keyspace_op *op, enum crdt_op kind, struct bytes name)
{
        op->op = kind;
        op->name = (struct crdt_name){0, name};
        op->hash = 0;
        op->item_hash = 0;
        op->entry = NULL;
}

/* The body of the open op's delta; false where the command is not plain. */
static bool put_body(struct redis_filter_context *ctx, const struct shape *shape, int argc,
                     struct keyspace_op *op, uint8_t **at, const uint8_t *end)
{
        switch ((int)shape->op) {
        case CRDT_OP_COUNT:
                return put_amount(ctx, shape, &op->amount);
        case CRDT_OP_SET:
                op->amount = 0;
                batch.expires = shape->expires;
                if (argc > 3 && !shape->expires && !set_options(ctx, argc, &batch.expires))
                        return false;
                return put_value(ctx, shape->expires ? 3 : 2, batch.expires, op, at, end);
        case CRDT_OP_DEL:
                return !cluster_leaves(); /* what dies in such a slot is noted */
        case CRDT_OP_EXPIRE:
                batch.expires = true;
                return true;
        case CRDT_OP_HSET:
                return argc % 2 == 0 &&
                       put_list(ctx, argc, (uint64_t)(argc / 2 - 1), false, at, end);
        case CRDT_OP_SADD:
        case CRDT_OP_SREM:
        case CRDT_OP_HDEL:
                return put_list(ctx, argc, (uint64_t)(argc - 2), false, at, end);
        case CRDT_OP_ZADD:
                return false; /* batch_open_add */
        }
        op->amount = shape->head;
        if (shape->op == CRDT_OP_LIST_REMOVE)
                return true;
        *(*at)++ = shape->head ? CRDT_LIST_HEAD : CRDT_LIST_TAIL;
        return put_list(ctx, argc, (uint64_t)(argc - 2), shape->head, at, end);
}

bool batch_open(struct redis_filter_context *ctx, const struct rule *rule)
{
        const struct shape *shape = &shapes[rule->kind];
        int argc = redis.CommandFilterArgsCount(ctx);
        batch.expires = false;
        if (shape->op == 0 || (shape->args != 0 && argc != shape->args) || !rule_fits(rule, argc))
                return false;
        struct redis_string *key = redis.CommandFilterArgGet(ctx, 1);
        struct bytes name = plugin_bytes(key);
        if (policy_of(name) != POLICY_TYPED || name.len > OP_BYTES_MAX / 2)
                return false;
        struct keyspace_op *op = &batch.ops[batch.count];
        uint8_t *delta = batch.bytes + batch.used + DB_SPACE;
        const uint8_t *end = delta + OP_BYTES_MAX - DB_SPACE - KEYSPACE_OP_COUNT;
        uint8_t *at = put_varint(delta + keyspace_op_body(shape->op) + 1, name.len);
        op_begin(op, shape->op, name);
        op->delta = delta;
        op->name.key = bytes_of(at, name.len);
        at = put_bytes(at, name);
        op->body.ptr = at;
        if (!put_body(ctx, shape, argc, op, &at, end))
                return false;
        op->body.len = (size_t)(at - op->body.ptr);
        op->delta_len = (size_t)(at - delta);
        batch.end = (size_t)(at - batch.bytes);
        if (shape->op == CRDT_OP_COUNT || shape->op == CRDT_OP_EXPIRE)
                batch.end += KEYSPACE_OP_COUNT; /* what is filled in */
        batch.event = shape->event;
        plugin.open_key = key;
        return true;
}

/* Its name is where the command has it. */
static void open_add(struct keyspace_op *op, struct redis_string *key, const struct shape *shape,
                     struct bytes member, double score)
{
        uint8_t *delta = batch.bytes + batch.used + DB_SPACE;
        uint8_t *at = put_slice(delta + keyspace_op_body(shape->op) + 1, op->name.key);
        op->name.key.ptr = at - op->name.key.len;
        op->delta = delta;
        op->body.ptr = at;
        at = put_slice(put_varint(at, 1), member);
        if (shape->op == CRDT_OP_ZADD) {
                uint64_t bits;
                memcpy(&bits, &score, sizeof(bits));
                at = put_u64(at, bits);
        }
        op->body.len = (size_t)(at - op->body.ptr);
        op->delta_len = (size_t)(at - delta);
        batch.end = (size_t)(at - batch.bytes);
        batch.event = shape->event;
        batch.expires = false;
        plugin.open_key = key;
}

/* A ZADD mostly changes something: its delta is written while the processor fetches where the
 * member is. */
bool batch_open_add(struct redis_filter_context *ctx, const struct rule *rule,
                    enum crdt_member *ret_look)
{
        const struct shape *shape = &shapes[rule->kind];
        bool scored = shape->op == CRDT_OP_ZADD;
        int last = redis.CommandFilterArgsCount(ctx) - 1;
        if (last != (scored ? 3 : 2))
                return false;
        struct redis_string *key = redis.CommandFilterArgGet(ctx, 1);
        struct bytes name = plugin_bytes(key);
        struct bytes member = plugin_bytes(redis.CommandFilterArgGet(ctx, last));
        double score = 0;
        if (policy_of(name) != POLICY_TYPED || name.len + member.len > OP_BYTES_MAX / 2)
                return false;
        struct keyspace_op *op = &batch.ops[batch.count];
        op_begin(op, shape->op, name);
        keyspace_op_find(plugin.keyspace, op, member);
        if (scored && !zset_parse(redis.CommandFilterArgGet(ctx, 2), &score))
                return false;
        if (scored)
                open_add(op, key, shape, member, score);
        *ret_look = keyspace_op_look(plugin.keyspace, op, member, score, plugin.shipped);
        if (*ret_look != CRDT_MEMBER_ABSENT)
                plugin.open_key = NULL;
        else if (!scored)
                open_add(op, key, shape, member, score);
        return true;
}

/* ---- committing */

static void more_stamps(void)
{
        batch.stamps = KEYSPACE_OPS_MAX;
        batch.stamp = keyspace_stamps(plugin.keyspace, plugin_stamp_ms(), batch.stamps);
}

/* A database that is not 0: its number may take more than a byte. */
static void widen(struct keyspace_op *op)
{
        unsigned extra = op->name.db < 1 << 7 ? 0 : op->name.db < 1 << 14 ? 1 : 2;
        op->delta -= extra;
        op->delta_len += extra;
        put_varint(op->delta + keyspace_op_body(op->op), op->name.db);
        op->hash = 0;
        op->entry = NULL;
        plugin.many_dbs = true;
}

static inline __attribute__((always_inline)) void commit(int db)
{
        struct keyspace_op *op = &batch.ops[batch.count];
        if (op->op == CRDT_OP_SREM || op->op == CRDT_OP_HDEL)
                plugin.emptied_key = plugin.open_key;
        plugin.taking = plugin.taking || op->op == CRDT_OP_SREM || op->op == CRDT_OP_DEL;
        plugin.open_key = NULL;
        op->name.db = (uint32_t)db;
        op->delta[keyspace_op_body(op->op)] = 0;
        if (db != 0)
                widen(op);
        batch.used = batch.end;
        if (batch.stamps == 0)
                more_stamps();
        batch.stamps--;
        op->hlc = batch.stamp++;
        batch.count++;
        if (batch.count == KEYSPACE_OPS_MAX || batch.used > BATCH_BYTES - OP_BYTES_MAX)
                batch_drain();
}

/* The head and the key of a SET move up to its expiry, of which there is none where that is 0. */
static void set_expiry(struct keyspace_op *op, uint64_t at_ms)
{
        uint8_t room[EXPIRY_SPACE];
        size_t len = at_ms == 0 ? 0 : (size_t)(put_varint(room, at_ms) - room);
        uint8_t *value = op->delta + op->delta_len - op->body.len;
        size_t moved = EXPIRY_SPACE - len;
        memcpy(value - len, room, len);
        memmove(op->delta + moved, op->delta, (size_t)(value - op->delta) - EXPIRY_SPACE);
        op->delta += moved;
        op->delta_len -= moved;
        op->name.key.ptr += moved;
        op->amount = (int64_t)at_ms;
}

static void expire_at(struct keyspace_op *op, uint64_t at_ms)
{
        op->body.ptr = op->delta + op->delta_len;
        op->body.len = (size_t)(put_varint(op->delta + op->delta_len, at_ms) - op->body.ptr);
        op->delta_len += op->body.len;
        op->amount = (int64_t)at_ms;
}

void batch_settle(void)
{
        plugin.open_half = false;
        set_expiry(&batch.ops[batch.count], 0);
        commit(batch.half_db);
}

/* A SET that expires is told twice: as a SET, then as an expiry. */
static __attribute__((noinline)) bool commit_expiring(struct redis_context *ctx, const char *event,
                                                      int db)
{
        struct keyspace_op *op = &batch.ops[batch.count];
        if (op->op == CRDT_OP_SET && !plugin.open_half) {
                plugin.open_half = true;
                batch.half_db = db;
                batch.event = shapes[RULE_EXPIRE].event;
                return true;
        }
        uint64_t at_ms = strcmp(event, "expire") == 0 ? local_expiry(ctx, plugin.open_key) : 0;
        if (at_ms == 0)
                return false;
        if (op->op == CRDT_OP_SET)
                set_expiry(op, at_ms);
        else
                expire_at(op, at_ms);
        plugin.open_half = false;
        commit(db);
        return true;
}

bool batch_commit(struct redis_context *ctx, const char *event, int db)
{
        const char *ours = batch.event;
        if (event[0] != ours[0] || event[1] != ours[1] || event[2] != ours[2] ||
            event[3] != ours[3])
                return false;
        if (batch.expires)
                return commit_expiring(ctx, event, db);
        commit(db);
        return true;
}

/* ---- draining */

/* Nobody may expire the key meanwhile: that would be a change. It is noted, as during a merge. */
static int64_t present_value(void *context, struct crdt_name name)
{
        (void)context;
        bool applying = plugin.applying;
        plugin.applying = true;
        redis.SelectDb(plugin.ctx, (int)name.db);
        struct redis_reply *reply = redis.Call(plugin.ctx, "GET", "b", name.key.ptr, name.key.len);
        size_t len = 0;
        const char *text = reply == NULL ? NULL : redis.CallReplyStringPtr(reply, &len);
        char number[32] = "";
        if (text != NULL && len < sizeof(number))
                memcpy(number, text, len);
        if (reply != NULL)
                redis.FreeCallReply(reply);
        plugin.applying = applying;
        return strtoll(number, NULL, 10);
}

static void op_changed(void *context, const struct keyspace_op *op,
                       const struct keyspace_change *change)
{
        (void)context;
        if (op->op == CRDT_OP_SET && !change->nothing)
                local_set_changed(change->delta, op->body);
        else if (op->op == CRDT_OP_HSET && op->body.len > LOG_VALUE_LEN && !change->nothing)
                local_hset_changed(change->delta, op->body);
        else
                local_changed(change);
}

static void op_plain(void *context, const struct keyspace_op *op, struct bytes delta)
{
        (void)context;
        if (op->op == CRDT_OP_SET && op->body.len > LOG_VALUE_LEN) {
                local_set_changed(delta, op->body);
        } else if (op->op == CRDT_OP_HSET && op->body.len > LOG_VALUE_LEN) {
                local_hset_changed(delta, op->body);
        } else {
                feed_add(plugin.config.origin, delta);
                log_frame(delta, false);
        }
}

static const struct keyspace_teller teller = {
        .value = present_value, .changed = op_changed, .plain = op_plain};

void batch_forget(void)
{
        batch_close();
        plugin.taking = false;
        batch.count = 0;
        batch.used = 0;
        batch.stamps = 0; /* what comes now has later ones */
}

void batch_drain(void)
{
        batch_close();
        unsigned count = batch.count;
        batch_forget();
        if (count > 0)
                plugin_must(keyspace_run(plugin.keyspace, batch.ops, count, &teller), "a write");
}

uint64_t batch_last(void)
{
        return batch.count > 0 ? batch.ops[batch.count - 1].hlc
                               : keyspace_ring_last(plugin.keyspace);
}

void batch_drain_before(void)
{
        unsigned count = batch.count;
        const struct keyspace_op *open = &batch.ops[count];
        size_t used = batch.used;
        struct redis_string *key = plugin.open_key;
        CHECK(key != NULL && !plugin.open_half);
        batch_drain();
        plugin.open_key = key;
        batch.ops[0] = *open;
        batch.used = used; /* it stays where it is */
}

void batch_add(struct crdt_name name, int64_t amount)
{
        struct keyspace_op op = {.op = CRDT_OP_COUNT, .name = name, .amount = amount};
        op.hlc = keyspace_stamps(plugin.keyspace, plugin_stamp_ms(), 1);
        plugin_must(keyspace_run(plugin.keyspace, &op, 1, &teller), "an increment");
}
