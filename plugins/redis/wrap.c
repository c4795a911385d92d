/* wrap.c - commands that run inside one of ours: those queued by MULTI, whose arguments nobody
 * would remember until EXEC, and those whose notification does not tell what changed (SPOP,
 * INCRBYFLOAT, a SADD of members that are there).
 *
 * The wrapped command runs as the client's user and is propagated as itself; its reply is passed on
 * as it is. Values are handed over as fresh strings, because Redis stores an integer as one only
 * where nobody else holds the string. */
#include "plugin.h"

#include <stdio.h>

static struct redis_reply *run(struct redis_context *ctx, const struct rule *rule,
                               struct redis_string **argv, int argc)
{
        struct bytes value = plugin_bytes(argv[argc > 2 ? 2 : 1]);
        struct bytes third = plugin_bytes(argv[argc > 3 ? 3 : 1]);
        switch ((int)rule->kind) {
        case RULE_SET:
        case RULE_APPEND:
                return redis.Call(ctx, rule->name, "!0CEsbv", argv[1], value.ptr, value.len,
                                  argv + 3, (size_t)(argc - 3));
        case RULE_SETEX:
                return redis.Call(ctx, rule->name, "!0CEssbv", argv[1], argv[2], third.ptr,
                                  third.len, argv + 4, (size_t)(argc - 4));
        }
        return redis.Call(ctx, rule->name, "!0CEv", argv + 1, (size_t)(argc - 1));
}

/* MSET and MSETNX as SETs: one call cannot pass on any number of fresh strings. */
static int run_pairs(struct redis_context *ctx, const struct rule *rule, struct redis_string **argv,
                     int argc)
{
        bool only_new = rule->kind == RULE_MSETNX;
        if (argc % 2 != 1)
                return redis.ReplyWithError(
                        ctx, only_new ? "ERR wrong number of arguments for 'msetnx' command"
                                      : "ERR wrong number of arguments for 'mset' command");
        if (only_new) {
                for (int i = 1; i < argc; i += 2) {
                        struct redis_key *key = redis.OpenKey(ctx, argv[i], REDIS_READ);
                        bool there = key != NULL;
                        if (there)
                                redis.CloseKey(key);
                        if (there)
                                return redis.ReplyWithLongLong(ctx, 0);
                }
        }
        for (int i = 1; i < argc; i += 2) {
                struct bytes value = plugin_bytes(argv[i + 1]);
                plugin.stash.next = (unsigned)i - 1;
                struct redis_reply *reply =
                        redis.Call(ctx, "SET", "!0CEsb", argv[i], value.ptr, value.len);
                if (reply == NULL || redis.CallReplyType(reply) == REDIS_REPLY_ERROR) {
                        int status = reply != NULL ? redis.ReplyWithCallReply(ctx, reply)
                                                   : redis.ReplyWithError(ctx, "ERR refused");
                        if (reply != NULL)
                                redis.FreeCallReply(reply);
                        return status;
                }
                redis.FreeCallReply(reply);
        }
        return only_new ? redis.ReplyWithLongLong(ctx, 1) : redis.ReplyWithSimpleString(ctx, "OK");
}

static struct crdt_name name_of(struct redis_context *ctx, const struct redis_string *key)
{
        return (struct crdt_name){(uint32_t)redis.GetSelectedDb(ctx), plugin_bytes(key)};
}

static void popped(struct crdt_name name, struct redis_reply *reply)
{
        int type = redis.CallReplyType(reply);
        bool many = type == REDIS_REPLY_ARRAY || type == REDIS_REPLY_SET;
        if (!many && type != REDIS_REPLY_STRING)
                return;
        size_t count = many ? redis.CallReplyLength(reply) : 1;
        if (count == 0)
                return;
        struct bytes *members = plugin_array(count, sizeof(*members), "members");
        for (size_t i = 0; i < count; i++) {
                struct redis_reply *item = reply;
                if (type == REDIS_REPLY_ARRAY)
                        item = redis.CallReplyArrayElement(reply, i);
                else if (type == REDIS_REPLY_SET)
                        item = redis.CallReplySetElement(reply, i);
                const char *text = redis.CallReplyStringPtr(item, &members[i].len);
                members[i].ptr = (const uint8_t *)text;
        }
        struct keyspace_change change;
        plugin_must(keyspace_local_set_remove(plugin.keyspace, plugin_now_ms(), name, members,
                                              count, &change),
                    "members");
        local_changed(&change);
        heap_free(&plugin.heap, members);
}

/* The keyspace adds up in doubles, the same in every region; where Redis rounds otherwise, Redis
 * gets what the keyspace has. */
static void float_added(struct redis_context *ctx, struct redis_string **argv, struct bytes before,
                        struct bytes after)
{
        double amount;
        struct keyspace_change change;
        struct crdt_name name = name_of(ctx, argv[1]);
        if (policy_tells_whole(name.key, true))
                return;
        if (redis.StringToDouble(argv[2], &amount) != REDIS_OK ||
            keyspace_local_increment_float(plugin.keyspace, plugin_now_ms(), name, amount, before,
                                           &change) != ERR_NONE) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        local_changed(&change);
        if (!change.rewrite || bytes_equal(change.text, after))
                return;
        plugin.applying = true;
        struct redis_reply *reply = redis.Call(ctx, "SET", "!sbc", argv[1], change.text.ptr,
                                               change.text.len, "KEEPTTL");
        plugin.applying = false;
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static int run_float(struct redis_context *ctx, const struct rule *rule, struct redis_string **argv,
                     int argc)
{
        struct redis_reply *before = redis.Call(ctx, "GET", "s", argv[1]);
        struct redis_reply *reply = run(ctx, rule, argv, argc);
        if (reply == NULL) {
                if (before != NULL)
                        redis.FreeCallReply(before);
                return redis.ReplyWithError(ctx, "ERR refused");
        }
        if (redis.CallReplyType(reply) != REDIS_REPLY_ERROR) {
                struct bytes text = bytes_of(NULL, 0);
                if (before != NULL && redis.CallReplyType(before) == REDIS_REPLY_STRING)
                        text.ptr = (const uint8_t *)redis.CallReplyStringPtr(before, &text.len);
                struct bytes after = bytes_of(NULL, 0);
                after.ptr = (const uint8_t *)redis.CallReplyStringPtr(reply, &after.len);
                float_added(ctx, argv, text, after);
        }
        int status = redis.ReplyWithCallReply(ctx, reply);
        redis.FreeCallReply(reply);
        if (before != NULL)
                redis.FreeCallReply(before);
        return status;
}

static int run_one(struct redis_context *ctx, const struct rule *rule, struct redis_string **argv,
                   int argc)
{
        if (rule->kind == RULE_LREM && argc == 4)
                list_before_lrem(ctx, argv);
        bool unnamed = rule->kind == RULE_ZPOP || rule->kind == RULE_ZREMRANGE;
        struct redis_reply *reply = rule->kind == RULE_XADD ? stream_run_xadd(ctx, argv, argc)
                                    : unnamed               ? zset_run(ctx, rule, argv, argc)
                                                            : run(ctx, rule, argv, argc);
        if (reply == NULL)
                return redis.ReplyWithError(ctx, "ERR refused");
        bool whole = policy_tells_whole(plugin_bytes(argv[1]), false);
        if (rule->kind == RULE_SPOP && whole)
                replace_key(ctx, name_of(ctx, argv[1]), argv[1]);
        else if (rule->kind == RULE_SPOP)
                popped(name_of(ctx, argv[1]), reply);
        else if (rule->kind == RULE_PUBLISH && redis.CallReplyType(reply) == REDIS_REPLY_INTEGER)
                bus_send(rule, argv);
        else if (rule->kind == RULE_SADD && !plugin.stash.used && !whole &&
                 redis.CallReplyType(reply) == REDIS_REPLY_INTEGER)
                local_set_add(name_of(ctx, argv[1]), &plugin.stash, 1);
        else if ((rule->kind == RULE_ZADD || rule->kind == RULE_GEOADD) && !plugin.stash.used &&
                 !whole && redis.CallReplyType(reply) == REDIS_REPLY_INTEGER)
                zset_added_again(ctx, name_of(ctx, argv[1]), argv[1]);
        int status = redis.ReplyWithCallReply(ctx, reply);
        redis.FreeCallReply(reply);
        return status;
}

int wrap_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        if (!guard_lets(ctx))
                return redis.ReplyWithError(ctx, "NOAUTH Authentication required.");
        return wrap_strict(ctx, argv, argc);
}

int wrap_strict(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        if (argc < 2)
                return redis.WrongArity(ctx);
        struct bytes name = plugin_bytes(argv[1]);
        const struct rule *rule = rules_find((const char *)name.ptr, name.len);
        argv++;
        argc--;
        zset_settle();
        if (rule == NULL || rule->wrap == WRAP_NONE || !rule_fits(rule, argc))
                return redis.ReplyWithError(ctx, "MERIDIAN this command is not meant for clients");
        stash_begin(&plugin.stash, rule);
        for (int i = 1; i < argc; i++)
                stash_add(&plugin.stash, argv[i], false);
        int status;
        if (rule->kind == RULE_MSET || rule->kind == RULE_MSETNX)
                status = run_pairs(ctx, rule, argv, argc);
        else if (rule->kind == RULE_INCRBYFLOAT)
                status = run_float(ctx, rule, argv, argc);
        else if (rule->kind == RULE_HINCRBYFLOAT)
                status = hash_run_float(ctx, argv, argc);
        else if (rule->kind == RULE_FLUSH)
                status = flush_run(ctx, rule, argv, argc);
        else if (rule->kind == RULE_MIGRATE)
                status = migrate_run(ctx, argv, argc);
        else
                status = run_one(ctx, rule, argv, argc);
        plugin.stash.rule = NULL;
        return status;
}

/* Why, for those that stay refused. */
static const struct {
        const char *name;
        const char *reason;
} reasons[] = {
        {"config", "aof-use-rdb-preamble must stay 'yes': a rewritten AOF would lose the metadata"},
        {"debug", "keys made by DEBUG POPULATE would be in this region alone"},
        {"pfdebug", "it changes a HyperLogLog in ways that other regions cannot follow"},
        {"swapdb", "it gives every key of two databases another name, while other regions go on "
                   "to write to the old ones; use MOVE or COPY"},
};

static const char *reason_of(const char *name)
{
        for (size_t i = 0; i < COUNT_OF(reasons); i++) {
                if (strcmp(reasons[i].name, name) == 0)
                        return reasons[i].reason;
        }
        return NULL;
}

int wrap_refuse(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        char text[256];
        char name[33] = "";
        if (argc < 2)
                return redis.WrongArity(ctx);
        struct bytes given = plugin_bytes(argv[1]);
        for (size_t i = 0; i < given.len && i < sizeof(name) - 1; i++)
                name[i] = (char)(given.ptr[i] >= 'A' && given.ptr[i] <= 'Z' ? given.ptr[i] | 0x20
                                                                            : given.ptr[i]);
        plugin.refused++;
        const char *reason = reason_of(name);
        if (reason != NULL)
                snprintf(text, sizeof(text), "MERIDIAN '%s' is refused: %s", name, reason);
        else
                snprintf(text, sizeof(text),
                         "MERIDIAN '%s' is not replicated between regions yet; refused so that "
                         "regions cannot differ",
                         name);
        return redis.ReplyWithError(ctx, text);
}
