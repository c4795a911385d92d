/* hash.c - HINCRBY and HINCRBYFLOAT: increments that are added up over regions (crdt/fields.c).
 * HINCRBY is explained by its notification and its stashed arguments. HINCRBYFLOAT is wrapped: its
 * delta is an amount in doubles, the same in every region, and where Redis rounds otherwise, Redis
 * gets what the keyspace has. What cannot be told as an amount is told as an HSET of the outcome.
 *
 * Fails only by running out of memory, which stops the server. */
#include "plugin.h"

static bool stash_is(enum rule_kind kind, const struct redis_string *key)
{
        const struct stash *stash = &plugin.stash;
        return stash->rule != NULL && stash->rule->kind == kind && stash->count == 3 &&
               stash->arguments[0].string == key;
}

static struct redis_string *field_value(struct redis_context *ctx, struct redis_string *key,
                                        struct redis_string *field)
{
        struct redis_string *value = NULL;
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        if (open == NULL)
                return NULL;
        if (redis.KeyType(open) == REDIS_KEY_HASH)
                redis.HashGet(open, REDIS_HASH_NONE, field, &value, NULL);
        redis.CloseKey(open);
        return value;
}

static void record_outcome(struct crdt_name name, struct bytes field, struct bytes value)
{
        struct keyspace_change change;
        struct keyspace_pair pair = {field, value};
        plugin_must(keyspace_local_hash_set(plugin.keyspace, plugin_stamp_ms(), name, &pair, 1,
                                            &change),
                    "a hash");
        local_changed(&change);
}

void hash_on_hincrby(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        long long amount;
        long long after;
        struct keyspace_change change;
        struct redis_string *field =
                plugin.stash.count == 3 ? plugin.stash.arguments[1].string : NULL;
        struct redis_string *value =
                stash_is(RULE_HINCRBY, key) ? field_value(ctx, key, field) : NULL;
        if (value == NULL || redis.StringToLongLong(value, &after) != REDIS_OK ||
            redis.StringToLongLong(plugin.stash.arguments[2].string, &amount) != REDIS_OK) {
                local_dirty(&plugin.dirty, name);
        } else {
                enum err err =
                        keyspace_local_hash_increment(plugin.keyspace, plugin_stamp_ms(), name,
                                                      plugin_bytes(field), amount, after, &change);
                if (err != ERR_INVALID) {
                        plugin_must(err, "an increment");
                        local_changed(&change);
                }
                if (err == ERR_INVALID || change.rewrite)
                        record_outcome(name, plugin_bytes(field), plugin_bytes(value));
                plugin.stash.used = true;
        }
        if (value != NULL)
                redis.FreeString(ctx, value);
}

/* hash_run_float tells the keyspace what the field has become. */
void hash_on_hincrbyfloat(struct redis_context *ctx, struct crdt_name name,
                          struct redis_string *key)
{
        (void)ctx;
        if (!stash_is(RULE_HINCRBYFLOAT, key))
                local_dirty(&plugin.dirty, name);
}

static void rewrite(struct redis_context *ctx, struct redis_string **argv, struct bytes text)
{
        plugin.applying = true;
        struct redis_reply *reply =
                redis.Call(ctx, "HSET", "!ssb", argv[1], argv[2], text.ptr, text.len);
        plugin.applying = false;
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

/* Redis adds in more digits than doubles have: from here on a sum of ours would be another number
 * than the one that it has replied. */
static bool is_far(struct bytes text)
{
        static const double exact_max = 9007199254740992.0;
        double value = 0;
        return crdt_number(text, &value) && (value > exact_max || value < -exact_max);
}

static void float_added(struct redis_context *ctx, struct redis_string **argv, struct bytes before,
                        struct bytes after)
{
        double amount;
        struct keyspace_change change;
        struct crdt_name name = {(uint32_t)redis.GetSelectedDb(ctx), plugin_bytes(argv[1])};
        if (policy_tells_whole(name.key, false))
                return;
        if (is_far(before) || is_far(after) || redis.StringToDouble(argv[3], &amount) != REDIS_OK ||
            keyspace_local_hash_increment_float(plugin.keyspace, plugin_stamp_ms(), name,
                                                plugin_bytes(argv[2]), amount, before,
                                                &change) != ERR_NONE) {
                record_outcome(name, plugin_bytes(argv[2]), after);
                return;
        }
        local_changed(&change);
        if (change.rewrite && !bytes_equal(change.text, after))
                rewrite(ctx, argv, change.text);
}

int hash_run_float(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        struct redis_string *before = argc == 4 ? field_value(ctx, argv[1], argv[2]) : NULL;
        struct redis_reply *reply =
                redis.Call(ctx, "HINCRBYFLOAT", "!0CEv", argv + 1, (size_t)(argc - 1));
        if (reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_STRING) {
                struct bytes after = bytes_of(NULL, 0);
                after.ptr = (const uint8_t *)redis.CallReplyStringPtr(reply, &after.len);
                float_added(ctx, argv, before == NULL ? bytes_of(NULL, 0) : plugin_bytes(before),
                            after);
        }
        int status = reply == NULL ? redis.ReplyWithError(ctx, "ERR refused")
                                   : redis.ReplyWithCallReply(ctx, reply);
        if (reply != NULL)
                redis.FreeCallReply(reply);
        if (before != NULL)
                redis.FreeString(ctx, before);
        return status;
}
