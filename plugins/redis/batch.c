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
        struct redis_string *key; /* of the open op, also its identity; NULL: none is open */
        const char *event;        /* how the name of its notification begins */
        uint64_t stamp;           /* the next that may be given, where any are left */
        unsigned stamps;
        unsigned count;
        size_t used; /* bytes of the committed ops */
        struct keyspace_op ops[KEYSPACE_OPS_MAX];
        uint8_t bytes[BATCH_BYTES];
} batch;

/* ---- opening */

static bool read_amount(struct redis_filter_context *ctx, const struct rule *rule, int64_t *ret)
{
        bool down = rule->kind == RULE_DECR || rule->kind == RULE_DECRBY;
        long long amount = 1;
        if ((rule->kind == RULE_INCRBY || rule->kind == RULE_DECRBY) &&
            redis.StringToLongLong(redis.CommandFilterArgGet(ctx, 2), &amount) != REDIS_OK)
                return false;
        *ret = down ? (int64_t)(0 - (uint64_t)amount) : amount;
        return true;
}

static const struct {
        enum crdt_op op; /* 0: not a plain write */
        char event[4];   /* how the name of its notification begins */
        int args;        /* exactly; 0: any number */
} shapes[RULE_KIND_COUNT] = {
        [RULE_SET] = {CRDT_OP_SET, "set", 3},
        [RULE_INCR] = {CRDT_OP_COUNT, {'i', 'n', 'c', 'r'}, 2},
        [RULE_DECR] = {CRDT_OP_COUNT, {'i', 'n', 'c', 'r'}, 2},
        [RULE_INCRBY] = {CRDT_OP_COUNT, {'i', 'n', 'c', 'r'}, 3},
        [RULE_DECRBY] = {CRDT_OP_COUNT, {'i', 'n', 'c', 'r'}, 3},
        [RULE_HSET] = {CRDT_OP_HSET, {'h', 's', 'e', 't'}, 0},
        [RULE_SADD] = {CRDT_OP_SADD, {'s', 'a', 'd', 'd'}, 0},
        [RULE_ZADD] = {CRDT_OP_ZADD, {'z', 'a', 'd', 'd'}, 4}, /* of one member */
        [RULE_LPUSH] = {CRDT_OP_LIST_INSERT, {'l', 'p', 'u', 's'}, 0},
        [RULE_RPUSH] = {CRDT_OP_LIST_INSERT, {'r', 'p', 'u', 's'}, 0},
        [RULE_LPOP] = {CRDT_OP_LIST_REMOVE, {'l', 'p', 'o', 'p'}, 2},
        [RULE_RPOP] = {CRDT_OP_LIST_REMOVE, {'r', 'p', 'o', 'p'}, 2},
};

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
        if (!zset_parse(redis.CommandFilterArgGet(ctx, 2), &score) ||
            member.len + PUT_VARINT_MAX + sizeof(bits) >= (size_t)(end - *at))
                return false;
        memcpy(&bits, &score, sizeof(bits));
        *at = put_slice(put_varint(*at, 1), member);
        for (unsigned i = 0; i < sizeof(bits); i++)
                *(*at)++ = (uint8_t)(bits >> (8 * i));
        return true;
}

/* The body of the open op's delta; false where the command is not plain. */
static bool put_body(struct redis_filter_context *ctx, const struct rule *rule, int argc,
                     struct keyspace_op *op, uint8_t **at, const uint8_t *end)
{
        bool hash = op->op == CRDT_OP_HSET;
        bool head = rule->kind == RULE_LPUSH || rule->kind == RULE_LPOP;
        if (op->op == CRDT_OP_COUNT)
                return read_amount(ctx, rule, &op->amount);
        if (op->op == CRDT_OP_ZADD)
                return put_score(ctx, at, end);
        op->amount = head;
        if (op->op == CRDT_OP_LIST_REMOVE)
                return true;
        if (op->op == CRDT_OP_LIST_INSERT)
                *(*at)++ = head ? CRDT_LIST_HEAD : CRDT_LIST_TAIL;
        if (op->op != CRDT_OP_SET)
                return (!hash || argc % 2 == 0) &&
                       put_list(ctx, argc, (uint64_t)(hash ? argc / 2 - 1 : argc - 2), head, at,
                                end);
        struct bytes value = plugin_bytes(redis.CommandFilterArgGet(ctx, 2));
        if (value.len > (size_t)(end - *at))
                return false;
        *at = put_bytes(*at, value);
        return true;
}

bool batch_open(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        int args = shapes[rule->kind].args;
        enum crdt_op kind = shapes[rule->kind].op;
        if (kind == 0 || (args != 0 && argc != args))
                return false;
        struct redis_string *key = redis.CommandFilterArgGet(ctx, 1);
        struct bytes name = plugin_bytes(key);
        struct keyspace_op *op = &batch.ops[batch.count];
        if (policy_of(name) != POLICY_TYPED || name.len > OP_BYTES_MAX / 2)
                return false;
        op->op = kind;
        op->hash = 0;
        op->delta = batch.bytes + batch.used + DB_SPACE;
        const uint8_t *end = op->delta + OP_BYTES_MAX - DB_SPACE - KEYSPACE_OP_COUNT;
        uint8_t *at = put_varint(op->delta + keyspace_op_body(kind) + 1, name.len);
        op->name.key = bytes_of(at, name.len);
        at = put_bytes(at, name);
        op->body.ptr = at;
        if (!put_body(ctx, rule, argc, op, &at, end))
                return false;
        op->body.len = (size_t)(at - op->body.ptr);
        op->delta_len = (size_t)(at - op->delta);
        batch.key = key;
        batch.event = shapes[rule->kind].event;
        return true;
}

void batch_hash(uint64_t hash)
{
        batch.ops[batch.count].hash = hash;
}

void batch_close(void)
{
        batch.key = NULL;
}

/* ---- committing */

static uint64_t next_stamp(void)
{
        if (batch.stamps == 0) {
                batch.stamps = KEYSPACE_OPS_MAX;
                batch.stamp = keyspace_stamps(plugin.keyspace, plugin_stamp_ms(), batch.stamps);
        }
        batch.stamps--;
        return batch.stamp++;
}

/* A database that takes more than a byte. */
static void widen(struct keyspace_op *op)
{
        unsigned extra = op->name.db < 1 << 14 ? 1 : 2;
        op->delta -= extra;
        op->delta_len += extra;
}

bool batch_commit(const char *event, const struct redis_string *key, int db)
{
        const char *ours = batch.event;
        if (batch.key != key || key == NULL || event[0] != ours[0] || event[1] != ours[1] ||
            event[2] != ours[2] || event[3] != ours[3])
                return false;
        struct keyspace_op *op = &batch.ops[batch.count];
        batch.key = NULL;
        op->name.db = (uint32_t)db;
        op->hash = db == 0 ? op->hash : 0;
        if (db >= 1 << 7)
                widen(op);
        put_varint(op->delta + keyspace_op_body(op->op), op->name.db);
        size_t room = op->op == CRDT_OP_COUNT ? KEYSPACE_OP_COUNT : 0;
        batch.used = (size_t)(op->delta + op->delta_len + room - batch.bytes);
        op->hlc = next_stamp();
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
        if (change->nothing)
                local_changed(change);
        else if (op->op == CRDT_OP_SET)
                local_set_changed(change, op->body);
        else if (op->op == CRDT_OP_HSET && op->body.len > LOG_VALUE_LEN)
                local_hset_changed(change, op->body);
        else
                local_changed(change);
}

static void op_plain(void *context, const struct keyspace_op *op, struct bytes delta)
{
        (void)context;
        const struct keyspace_change change = {.delta = delta};
        if (op->op == CRDT_OP_SET && op->body.len > LOG_VALUE_LEN) {
                local_set_changed(&change, op->body);
        } else if (op->op == CRDT_OP_HSET && op->body.len > LOG_VALUE_LEN) {
                local_hset_changed(&change, op->body);
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

void batch_add(struct crdt_name name, int64_t amount)
{
        struct keyspace_op op = {.op = CRDT_OP_COUNT, .name = name, .amount = amount};
        op.hlc = keyspace_stamps(plugin.keyspace, plugin_stamp_ms(), 1);
        plugin_must(keyspace_run(plugin.keyspace, &op, 1, &teller), "an increment");
}
