/* native.c - how a merge changes Redis: by Redis's own commands, so that encodings are what a
 * client would have made, called without propagation (the merge itself is the record). While a log
 * is replayed quietly, values are read but not written. Nothing here fails: a key of a type that
 * the keyspace does not know of is replaced. */
#include "plugin.h"

static struct redis_context *native_ctx;
static struct buffer native_text; /* the text that was read last */

void native_trim(void)
{
        buffer_trim(&native_text, PLUGIN_SCRATCH_BYTES_MAX);
}

void native_close(void)
{
        zset_native_close();
        stream_native_close();
        list_native_close();
}

static const char *text_of(struct bytes bytes)
{
        return bytes.len == 0 ? "" : (const char *)bytes.ptr;
}

static struct redis_string *open_name(struct crdt_name name)
{
        native_close();
        redis.SelectDb(native_ctx, (int)name.db);
        return redis.CreateString(NULL, text_of(name.key), name.key.len);
}

void native_end(void)
{
        native_close();
        notify_end();
}

static void drop_reply(struct redis_reply *reply)
{
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

/* The text of a string reply, copied so that it outlives the reply. */
static bool reply_text(struct redis_reply *reply, struct bytes *ret)
{
        bool there = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_STRING;
        if (there) {
                size_t len;
                const char *text = redis.CallReplyStringPtr(reply, &len);
                native_trim();
                buffer_bytes(&native_text, bytes_of(text, len));
                plugin_must(native_text.err, "a value");
                *ret = buffer_view(&native_text);
        }
        drop_reply(reply);
        return there;
}

static bool string_get(void *context, struct crdt_name name, struct bytes *ret_value)
{
        (void)context;
        struct redis_string *key = open_name(name);
        bool there = reply_text(redis.Call(native_ctx, "GET", "s", key), ret_value);
        redis.FreeString(NULL, key);
        return there;
}

/* `was`: the expiry before, which is no change to be told. */
static void expire_key(struct redis_string *key, uint64_t at_ms, long long was)
{
        struct redis_key *open = redis.OpenKey(native_ctx, key, REDIS_READ | REDIS_WRITE);
        if (open == NULL)
                return;
        long long at = at_ms == 0 ? REDIS_NO_EXPIRE : (long long)at_ms;
        redis.SetAbsExpire(open, at);
        redis.CloseKey(open);
        if (at != was && notify_wanted())
                notify_send(REDIS_NOTIFY_GENERIC, at_ms == 0 ? "persist" : "expire", key);
}

/* The expiry of a key that a SET is about to take away; REDIS_NO_EXPIRE where nobody asks. */
static long long expiry_of(struct redis_string *key)
{
        return notify_wanted() ? (long long)local_expiry(native_ctx, key) : REDIS_NO_EXPIRE;
}

static void string_set(void *context, struct crdt_name name, struct bytes value,
                       uint64_t expire_at_ms)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *key = open_name(name);
        long long was = expire_at_ms == 0 ? REDIS_NO_EXPIRE : expiry_of(key);
        drop_reply(redis.Call(native_ctx, "SET", "sb", key, text_of(value), value.len));
        if (expire_at_ms != 0)
                expire_key(key, expire_at_ms, was);
        redis.FreeString(NULL, key);
}

/* What expired elsewhere is told as here, not as deleted. */
static void expired_delete(struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(native_ctx, key, REDIS_READ | REDIS_WRITE);
        bool there = open != NULL && redis.KeyType(open) != REDIS_KEY_EMPTY;
        if (there)
                redis.UnlinkKey(open);
        if (open != NULL)
                redis.CloseKey(open);
        if (there)
                notify_send(REDIS_NOTIFY_EXPIRED, "expired", key);
}

static void key_delete(void *context, struct crdt_name name)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *key = open_name(name);
        if (notify_expired())
                expired_delete(key);
        drop_reply(redis.Call(native_ctx, "UNLINK", "s", key));
        redis.FreeString(NULL, key);
}

static void expire_set(void *context, struct crdt_name name, uint64_t expire_at_ms)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *key = open_name(name);
        expire_key(key, expire_at_ms, expire_at_ms == 0 ? 0 : REDIS_NO_EXPIRE);
        redis.SignalModifiedKey(native_ctx, key);
        redis.FreeString(NULL, key);
}

static void with_item(const char *command, struct crdt_name name, struct bytes item)
{
        if (plugin.quiet)
                return;
        struct redis_string *key = open_name(name);
        drop_reply(redis.Call(native_ctx, command, "sb", key, text_of(item), item.len));
        redis.FreeString(NULL, key);
}

static void hash_set(void *context, struct crdt_name name, struct bytes field, struct bytes value)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *key = open_name(name);
        drop_reply(redis.Call(native_ctx, "HSET", "sbb", key, text_of(field), field.len,
                              text_of(value), value.len));
        redis.FreeString(NULL, key);
}

static void hash_delete(void *context, struct crdt_name name, struct bytes field)
{
        (void)context;
        with_item("HDEL", name, field);
}

static bool hash_get(void *context, struct crdt_name name, struct bytes field,
                     struct bytes *ret_value)
{
        (void)context;
        struct redis_string *key = open_name(name);
        bool there = reply_text(
                redis.Call(native_ctx, "HGET", "sb", key, text_of(field), field.len), ret_value);
        redis.FreeString(NULL, key);
        return there;
}

static void set_add(void *context, struct crdt_name name, struct bytes member)
{
        (void)context;
        with_item("SADD", name, member);
}

static void set_remove(void *context, struct crdt_name name, struct bytes member)
{
        (void)context;
        with_item("SREM", name, member);
}

static bool opaque_get(void *context, struct crdt_name name, struct bytes *ret_value)
{
        (void)context;
        struct redis_string *key = open_name(name);
        bool there = reply_text(redis.Call(native_ctx, "DUMP", "s", key), ret_value);
        redis.FreeString(NULL, key);
        return there;
}

static void opaque_set(void *context, struct crdt_name name, struct bytes value,
                       uint64_t expire_at_ms)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *key = open_name(name);
        long long was = expire_at_ms == 0 ? REDIS_NO_EXPIRE : expiry_of(key);
        drop_reply(redis.Call(native_ctx, "RESTORE", "scbc", key, "0", text_of(value), value.len,
                              "REPLACE"));
        if (expire_at_ms != 0)
                expire_key(key, expire_at_ms, was);
        redis.FreeString(NULL, key);
}

static const struct crdt_native native = {
        .begin = notify_begin,
        .siblings_show = policy_show,
        .event = bus_hear,
        .string_get = string_get,
        .string_set = string_set,
        .key_delete = key_delete,
        .expire_set = expire_set,
        .hash_set = hash_set,
        .hash_delete = hash_delete,
        .hash_get = hash_get,
        .set_add = set_add,
        .set_remove = set_remove,
        .zset_add = zset_native_add,
        .zset_remove = zset_native_remove,
        .list_insert = list_native_insert,
        .list_remove = list_native_remove,
        .list_set = list_native_set,
        .list_get = list_native_get,
        .hll_add = hll_native_add,
        .hll_merge = hll_native_merge,
        .hll_get = string_get,
        .stream_add = stream_native_add,
        .stream_remove = stream_native_remove,
        .stream_get = stream_native_get,
        .stream_make = stream_native_make,
        .stream_raise = stream_native_raise,
        .opaque_get = opaque_get,
        .opaque_set = opaque_set,
};

struct redis_context *native_context(void)
{
        return native_ctx;
}

const struct crdt_native *native_of(struct redis_context *ctx)
{
        if (native_text.heap == NULL)
                buffer_init(&native_text, &plugin.heap);
        /* The client keeps the database that it has selected. In a cluster there is but one, and
         * the server asks whose client it is: what its master or its log sends runs always. */
        native_ctx = cluster_enabled() ? ctx : plugin.ctx;
        return &native;
}
