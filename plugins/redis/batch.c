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

enum {
        OP_BYTES_MAX = 8 << 10, /* longer commands take the long way */
        BATCH_BYTES = 64 << 10,
        DB_SPACE = 2, /* before an op: database numbers beyond 127 take two bytes more */
};

static struct {
        const char *event; /* how the name of the open op's notification begins */
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
};

static const struct shape shapes[RULE_KIND_COUNT] = {
        [RULE_SET] = {CRDT_OP_SET, 3, 0, "set", false},
        [RULE_INCR] = {CRDT_OP_COUNT, 2, 1, {'i', 'n', 'c', 'r'}, false},
        [RULE_DECR] = {CRDT_OP_COUNT, 2, -1, {'i', 'n', 'c', 'r'}, false},
        [RULE_INCRBY] = {CRDT_OP_COUNT, 3, 1, {'i', 'n', 'c', 'r'}, false},
        [RULE_DECRBY] = {CRDT_OP_COUNT, 3, -1, {'i', 'n', 'c', 'r'}, false},
        [RULE_HSET] = {CRDT_OP_HSET, 0, 0, {'h', 's', 'e', 't'}, false},
        [RULE_HDEL] = {CRDT_OP_HDEL, 0, 0, {'h', 'd', 'e', 'l'}, false},
        [RULE_SADD] = {CRDT_OP_SADD, 0, 0, {'s', 'a', 'd', 'd'}, false},
        [RULE_SREM] = {CRDT_OP_SREM, 0, 0, {'s', 'r', 'e', 'm'}, false},
        [RULE_ZADD] = {CRDT_OP_ZADD, 4, 0, {'z', 'a', 'd', 'd'}, false}, /* of one member */
        [RULE_LPUSH] = {CRDT_OP_LIST_INSERT, 0, 0, {'l', 'p', 'u', 's'}, true},
        [RULE_RPUSH] = {CRDT_OP_LIST_INSERT, 0, 0, {'r', 'p', 'u', 's'}, false},
        [RULE_LPOP] = {CRDT_OP_LIST_REMOVE, 2, 0, {'l', 'p', 'o', 'p'}, true},
        [RULE_RPOP] = {CRDT_OP_LIST_REMOVE, 2, 0, {'r', 'p', 'o', 'p'}, false},
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

/* The list of a ZADD of one member. Where the command changes something, the score is this one. */
static bool put_score(struct redis_filter_context *ctx, uint8_t **at, const uint8_t *end)
{
        double score;
        uint64_t bits;
        struct bytes member = plugin_bytes(redis.CommandFilterArgGet(ctx, 3));
        if (!zset_parse_again(redis.CommandFilterArgGet(ctx, 2), &score) ||
            member.len + PUT_VARINT_MAX + sizeof(bits) >= (size_t)(end - *at))
                return false;
        memcpy(&bits, &score, sizeof(bits));
        *at = put_slice(put_varint(*at, 1), member);
        for (unsigned i = 0; i < sizeof(bits); i++)
                *(*at)++ = (uint8_t)(bits >> (8 * i));
        return true;
}

static bool put_value(struct redis_filter_context *ctx, uint8_t **at, const uint8_t *end)
{
        struct bytes value = plugin_bytes(redis.CommandFilterArgGet(ctx, 2));
        if (value.len > (size_t)(end - *at))
                return false;
        *at = put_bytes(*at, value);
        return true;
}

/* The body of the open op's delta; false where the command is not plain. */
static bool put_body(struct redis_filter_context *ctx, const struct shape *shape, int argc,
                     struct keyspace_op *op, uint8_t **at, const uint8_t *end)
{
        switch ((int)shape->op) {
        case CRDT_OP_COUNT:
                return put_amount(ctx, shape, &op->amount);
        case CRDT_OP_SET:
                return put_value(ctx, at, end);
        case CRDT_OP_HSET:
                return argc % 2 == 0 &&
                       put_list(ctx, argc, (uint64_t)(argc / 2 - 1), false, at, end);
        case CRDT_OP_SADD:
        case CRDT_OP_SREM:
        case CRDT_OP_HDEL:
                return put_list(ctx, argc, (uint64_t)(argc - 2), false, at, end);
        case CRDT_OP_ZADD:
                return put_score(ctx, at, end);
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
        op->op = shape->op;
        op->hash = 0;
        op->delta = delta;
        op->name.key = bytes_of(at, name.len);
        at = put_bytes(at, name);
        op->body.ptr = at;
        if (!put_body(ctx, shape, argc, op, &at, end))
                return false;
        op->body.len = (size_t)(at - op->body.ptr);
        op->delta_len = (size_t)(at - delta);
        batch.end =
                (size_t)(at - batch.bytes) + (shape->op == CRDT_OP_COUNT ? KEYSPACE_OP_COUNT : 0);
        batch.event = shape->event;
        plugin.open_key = key;
        return true;
}

void batch_hash(uint64_t hash)
{
        batch.ops[batch.count].hash = hash;
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
        plugin.many_dbs = true;
}

bool batch_commit(const char *event, int db)
{
        const char *ours = batch.event;
        if (event[0] != ours[0] || event[1] != ours[1] || event[2] != ours[2] ||
            event[3] != ours[3])
                return false;
        struct keyspace_op *op = &batch.ops[batch.count];
        if (op->op == CRDT_OP_SREM || op->op == CRDT_OP_HDEL)
                plugin.emptied_key = plugin.open_key;
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
        batch.count = 0;
        batch.used = 0;
        batch.stamps = 0; /* what comes now has later ones */
}

void batch_drain(void)
{
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

void batch_add(struct crdt_name name, int64_t amount)
{
        struct keyspace_op op = {.op = CRDT_OP_COUNT, .name = name, .amount = amount};
        op.hlc = keyspace_stamps(plugin.keyspace, plugin_stamp_ms(), 1);
        plugin_must(keyspace_run(plugin.keyspace, &op, 1, &teller), "an increment");
}
