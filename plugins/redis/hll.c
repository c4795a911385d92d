/* hll.c - HyperLogLogs. An add that changed something names its elements, and other regions run the
 * same PFADD. Where the registers alone say what is there (PFMERGE, a PFADD to a string that was
 * not known as a HyperLogLog, a copy) all of them are told. Redis merges registers only from
 * another key: one is made for the moment, in the same slot. PFCOUNT keeps its result in the value;
 * that is no change.
 *
 * Fails only by running out of memory, which stops the server. Registers that Redis does not take
 * for such are left out. */
#include "plugin.h"

enum {
        HEAD_LEN = 16,
        ENCODING_AT = 4,
        ENCODING_MAX = 1,
};

bool hll_is(struct bytes value)
{
        return value.len >= HEAD_LEN && memcmp(value.ptr, "HYLL", 4) == 0 &&
               value.ptr[ENCODING_AT] <= ENCODING_MAX;
}

static void changed(enum err err, const struct keyspace_change *change)
{
        plugin_must(err, "a HyperLogLog");
        local_changed(change);
        plugin.stash.used = true;
}

void hll_record(struct crdt_name name, struct bytes registers)
{
        struct keyspace_change change;
        changed(keyspace_local_hll_registers(plugin.keyspace, plugin_stamp_ms(), name, registers,
                                             &change),
                &change);
}

static void record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct redis_reply *reply = redis.Call(ctx, "GET", "s", key);
        if (reply == NULL)
                return;
        size_t len = 0;
        const char *text = redis.CallReplyStringPtr(reply, &len);
        if (text != NULL)
                hll_record(name, bytes_of(text, len));
        redis.FreeCallReply(reply);
}

static void record_elements(struct crdt_name name)
{
        struct keyspace_change change;
        unsigned count = plugin.stash.count - 1;
        struct bytes *elements = plugin_array(count + 1, sizeof(*elements), "elements");
        for (unsigned i = 0; i < count; i++)
                elements[i] = stash_bytes(&plugin.stash, i + 1);
        changed(keyspace_local_hll_add(plugin.keyspace, plugin_stamp_ms(), name, elements, count,
                                       &change),
                &change);
        heap_free(&plugin.heap, elements);
}

void hll_on_pfadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        const struct stash *stash = &plugin.stash;
        struct keyspace_key known;
        bool told = stash->rule != NULL && stash->rule->kind == RULE_PFADD && stash->count > 0 &&
                    stash->arguments[0].string == key;
        keyspace_find(plugin.keyspace, name, &known);
        if (told && (known.type == CRDT_HLL || known.type == CRDT_NONE))
                record_elements(name);
        else
                record_all(ctx, name, key);
}

/* ---- as a merge changes them */

static const char *text_of(struct bytes bytes)
{
        return bytes.len == 0 ? "" : (const char *)bytes.ptr;
}

static void drop(struct redis_reply *reply)
{
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

void hll_native_add(void *context, struct crdt_name name, struct bytes element)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_context *ctx = native_context();
        redis.SelectDb(ctx, (int)name.db);
        drop(redis.Call(ctx, "PFADD", "bb", text_of(name.key), name.key.len, text_of(element),
                        element.len));
}

/* A name in the slot of `key`: its hash tag, or all of it as one where it can be. */
static void neighbour(struct bytes key, struct buffer *ret)
{
        static const char suffix[] = "\0meridian";
        const uint8_t *open = key.len == 0 ? NULL : memchr(key.ptr, '{', key.len);
        const uint8_t *end = key.ptr + key.len;
        const uint8_t *close =
                open == NULL ? NULL : memchr(open + 1, '}', (size_t)(end - open - 1));
        struct bytes tag = key;
        if (close != NULL && close > open + 1)
                tag = bytes_of(open + 1, (size_t)(close - open - 1));
        buffer_u8(ret, '{');
        buffer_bytes(ret, tag);
        buffer_u8(ret, '}');
        buffer_bytes(ret, bytes_of(suffix, sizeof(suffix) - 1));
        plugin_must(ret->err, "a name");
}

static bool is_one(struct redis_reply *reply)
{
        bool one = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_INTEGER &&
                   redis.CallReplyInteger(reply) == 1;
        drop(reply);
        return one;
}

void hll_native_merge(void *context, struct crdt_name name, struct bytes registers)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_context *ctx = native_context();
        redis.SelectDb(ctx, (int)name.db);
        const char *key = text_of(name.key);
        if (!hll_is(registers)) {
                drop(redis.Call(ctx, "PFADD", "b", key, name.key.len));
                return;
        }
        if (is_one(redis.Call(ctx, "SETNX", "bb", key, name.key.len, registers.ptr, registers.len)))
                return;
        struct buffer other;
        buffer_init(&other, &plugin.heap);
        neighbour(name.key, &other);
        drop(redis.Call(ctx, "SET", "bb", other.ptr, other.len, registers.ptr, registers.len));
        drop(redis.Call(ctx, "PFMERGE", "bb", key, name.key.len, other.ptr, other.len));
        drop(redis.Call(ctx, "DEL", "b", other.ptr, other.len));
        buffer_fini(&other);
}
