/* replace.c - "this key is now this content": what RENAME, COPY, MOVE, RESTORE, BITOP and the STORE
 * commands of sets and sorted sets leave behind, and content that has no stamps
 * (recover.c). The native key is read after the change and recorded by the rule of its type: a
 * delete of what was observed under that name, then the content, in parts so that no delta is much
 * longer than PART_BYTES, then the expiry. Types without a rule of their own are one serialized
 * value, of which the last write wins.
 *
 * Fails only by running out of memory, which stops the server. */
#include "plugin.h"

enum {
        PART_BYTES = 1 << 20,
        PART_ITEMS = 4096,
};

static void changed(enum err err, const struct keyspace_change *change)
{
        plugin_must(err, "the content of a key");
        local_changed(change);
}

void replace_forget(struct crdt_name name)
{
        struct keyspace_change change;
        struct keyspace_key key;
        if (!keyspace_find(plugin.keyspace, name, &key) || key.type == CRDT_NONE)
                return;
        changed(keyspace_local_delete(plugin.keyspace, plugin_stamp_ms(), name, &change), &change);
}

static struct bytes reply_bytes(struct redis_reply *reply)
{
        size_t len = 0;
        const char *text = redis.CallReplyStringPtr(reply, &len);
        return bytes_of(text, len);
}

/* A reply of that kind, or NULL; to be freed where it is one. */
static struct redis_reply *ask(struct redis_context *ctx, const char *command,
                               struct redis_string *key, int type)
{
        struct redis_reply *reply = redis.Call(ctx, command, "s", key);
        if (reply == NULL || redis.CallReplyType(reply) == type)
                return reply;
        redis.FreeCallReply(reply);
        return NULL;
}

static void replace_string(struct redis_context *ctx, struct crdt_name name,
                           struct redis_string *key, uint64_t expire_at_ms)
{
        struct redis_reply *reply = ask(ctx, "GET", key, REDIS_REPLY_STRING);
        if (reply == NULL)
                return;
        struct bytes value = reply_bytes(reply);
        struct keyspace_change change;
        if (hll_is(value)) {
                replace_forget(name);
                hll_record(name, value);
                if (expire_at_ms != 0)
                        changed(keyspace_local_expire(plugin.keyspace, plugin_stamp_ms(), name,
                                                      expire_at_ms, &change),
                                &change);
                redis.FreeCallReply(reply);
                return;
        }
        plugin_must(keyspace_local_set(plugin.keyspace, plugin_stamp_ms(), name, value,
                                       expire_at_ms, &change),
                    "a string");
        local_set_changed(change.delta, value);
        redis.FreeCallReply(reply);
}

/* Where the part that begins with element `from` ends. Elements come in steps of `step`. */
static size_t part_end(struct redis_reply *reply, size_t from, size_t step)
{
        size_t len = 0;
        size_t count = redis.CallReplyLength(reply);
        size_t at = from;
        while (at + step <= count && (at - from) / step < PART_ITEMS && len < PART_BYTES) {
                for (size_t i = 0; i < step; i++)
                        len += reply_bytes(redis.CallReplyArrayElement(reply, at + i)).len;
                at += step;
        }
        return at;
}

static void replace_hash(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                         uint64_t expire_at_ms)
{
        (void)expire_at_ms;
        struct redis_reply *reply = ask(ctx, "HGETALL", key, REDIS_REPLY_ARRAY);
        if (reply == NULL)
                return;
        struct keyspace_pair *pairs = plugin_array(PART_ITEMS, sizeof(*pairs), "a hash");
        replace_forget(name);
        for (size_t from = 0, end = 0; from + 1 < redis.CallReplyLength(reply); from = end) {
                struct keyspace_change change;
                end = part_end(reply, from, 2);
                for (size_t i = from; i < end; i += 2)
                        pairs[(i - from) / 2] = (struct keyspace_pair){
                                reply_bytes(redis.CallReplyArrayElement(reply, i)),
                                reply_bytes(redis.CallReplyArrayElement(reply, i + 1))};
                changed(keyspace_local_hash_set(plugin.keyspace, plugin_stamp_ms(), name, pairs,
                                                (end - from) / 2, &change),
                        &change);
        }
        heap_free(&plugin.heap, pairs);
        redis.FreeCallReply(reply);
}

static void replace_set(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                        uint64_t expire_at_ms)
{
        (void)expire_at_ms;
        struct redis_reply *reply = ask(ctx, "SMEMBERS", key, REDIS_REPLY_ARRAY);
        if (reply == NULL)
                return;
        struct bytes *members = plugin_array(PART_ITEMS, sizeof(*members), "members");
        replace_forget(name);
        for (size_t from = 0, end = 0; from < redis.CallReplyLength(reply); from = end) {
                struct keyspace_change change;
                end = part_end(reply, from, 1);
                for (size_t i = from; i < end; i++)
                        members[i - from] = reply_bytes(redis.CallReplyArrayElement(reply, i));
                changed(keyspace_local_set_add(plugin.keyspace, plugin_stamp_ms(), name, members,
                                               end - from, &change),
                        &change);
        }
        heap_free(&plugin.heap, members);
        redis.FreeCallReply(reply);
}

static void replace_opaque(struct redis_context *ctx, struct crdt_name name,
                           struct redis_string *key, uint64_t expire_at_ms)
{
        struct redis_reply *reply = ask(ctx, "DUMP", key, REDIS_REPLY_STRING);
        if (reply == NULL)
                return;
        struct bytes value = reply_bytes(reply);
        struct keyspace_change change;
        if (value.len <= CRDT_NAME_LEN_MAX)
                changed(keyspace_local_opaque(plugin.keyspace, plugin_stamp_ms(), name, value,
                                              expire_at_ms, &change),
                        &change);
        else
                redis.Log(ctx, "warning",
                          "meridian: '%.*s' is longer than 512 MiB as one value: other regions do "
                          "not get it",
                          BYTES_ARGS(name.key));
        redis.FreeCallReply(reply);
}

static void replace_list(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                         uint64_t expire_at_ms)
{
        (void)expire_at_ms;
        list_record_all(ctx, name, key);
}

static void replace_sibling(struct redis_context *ctx, struct crdt_name name,
                            struct redis_string *key, uint64_t expire_at_ms)
{
        struct redis_reply *reply = ask(ctx, "GET", key, REDIS_REPLY_STRING);
        if (reply == NULL)
                return;
        struct keyspace_change change;
        changed(keyspace_local_sibling(plugin.keyspace, plugin_stamp_ms(), name, reply_bytes(reply),
                                       expire_at_ms, &change),
                &change);
        redis.FreeCallReply(reply);
}

static void replace_stream(struct redis_context *ctx, struct crdt_name name,
                           struct redis_string *key, uint64_t expire_at_ms)
{
        (void)expire_at_ms;
        stream_record_all(ctx, name, key);
}

static void replace_zset(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                         uint64_t expire_at_ms)
{
        (void)expire_at_ms;
        zset_record_all(ctx, name, key);
}

/* By REDIS_KEY_*: how content of that type is recorded. `whole`: the expiry is told with it. */
static const struct {
        void (*replace)(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                        uint64_t expire_at_ms);
        bool whole;
} rows[] = {
        [REDIS_KEY_STRING] = {replace_string, true},  [REDIS_KEY_LIST] = {replace_list, false},
        [REDIS_KEY_STREAM] = {replace_stream, false}, [REDIS_KEY_HASH] = {replace_hash, false},
        [REDIS_KEY_SET] = {replace_set, false},       [REDIS_KEY_ZSET] = {replace_zset, false},
};

void replace_key(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        if (open == NULL) {
                replace_forget(name);
                return;
        }
        int type = redis.KeyType(open);
        long long at_ms = redis.GetAbsExpire(open);
        uint64_t expire_at_ms = at_ms > 0 ? (uint64_t)at_ms : 0;
        redis.CloseKey(open);
        enum policy policy = policy_of(name.key);
        if (type == REDIS_KEY_STRING && (policy == POLICY_SIBLINGS || policy == POLICY_MERGE)) {
                replace_sibling(ctx, name, key, expire_at_ms);
                return;
        }
        if (type != REDIS_KEY_STRING && policy == POLICY_LAST_WRITE) {
                replace_opaque(ctx, name, key, expire_at_ms);
                return;
        }
        bool ruled = type > 0 && (size_t)type < COUNT_OF(rows) && rows[type].replace != NULL;
        if (!ruled) {
                replace_opaque(ctx, name, key, expire_at_ms);
                return;
        }
        rows[type].replace(ctx, name, key, expire_at_ms);
        if (rows[type].whole)
                return;
        /* A stream is not deleted before, so one without an expiry may have had one. */
        struct keyspace_key known;
        struct keyspace_change change;
        keyspace_find(plugin.keyspace, name, &known);
        if (known.expire_at_ms != expire_at_ms)
                changed(keyspace_local_expire(plugin.keyspace, plugin_stamp_ms(), name,
                                              expire_at_ms, &change),
                        &change);
}
