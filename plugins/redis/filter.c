/* filter.c - sees every command of a client, a script or another module before it is looked up.
 *
 * Reads cost one failed probe of the table. A covered write is left as it is and its arguments are
 * stashed for the notification that follows. Where a notification cannot follow at once (the
 * command may be queued by MULTI) or does not tell enough (SPOP), the command is wrapped: its name
 * moves to the first argument of a module command that runs it. Nothing is filtered on a replica:
 * what its master sends is already decided. Log replay does not come through filters. */
#include "plugin.h"

#include <strings.h>

static void wrap(struct redis_filter_context *ctx, struct redis_string *name)
{
        batch_drain();
        redis.RetainString(NULL, name);
        redis.CommandFilterArgInsert(ctx, 0, name);
}

static void wrap_as(struct redis_filter_context *ctx, enum wrap kind)
{
        wrap(ctx, guard_strict(ctx) ? plugin.strict_names[kind] : plugin.wrap_names[kind]);
}

static void wrap_rule(struct redis_filter_context *ctx, const struct rule *rule)
{
        wrap_as(ctx, rule->wrap);
}

static void refuse(struct redis_filter_context *ctx)
{
        wrap(ctx, plugin.refuse_name);
}

static bool argument_is(struct redis_filter_context *ctx, int at, const char *text)
{
        const struct redis_string *string = redis.CommandFilterArgGet(ctx, at);
        if (string == NULL)
                return false;
        struct bytes word = plugin_bytes(string);
        return word.len == strlen(text) && strncasecmp((const char *)word.ptr, text, word.len) == 0;
}

static void judge_config(struct redis_filter_context *ctx, int argc)
{
        if (argc < 4 || !argument_is(ctx, 1, "set"))
                return;
        for (int i = 2; i + 1 < argc; i += 2) {
                if (argument_is(ctx, i, "aof-use-rdb-preamble") && argument_is(ctx, i + 1, "no")) {
                        refuse(ctx);
                        return;
                }
        }
}

/* What is remembered of the keys in a slot has to go with it. */
static void judge_cluster(struct redis_filter_context *ctx)
{
        if (argument_is(ctx, 1, "setslot"))
                cluster_changed();
}

/* Which argument holds a value that Redis re-encodes in place. */
static bool argument_is_value(enum rule_kind kind, int at)
{
        switch ((int)kind) {
        case RULE_SET:
        case RULE_APPEND:
                return at == 2;
        case RULE_SETEX:
                return at == 3;
        case RULE_MSET:
        case RULE_MSETNX:
                return at % 2 == 0;
        }
        return false;
}

static void stash_command(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        if (batch_open(ctx, rule))
                return;
        batch_drain();
        stash_begin(&plugin.stash, rule);
        for (int i = 1; i < argc; i++)
                stash_add(&plugin.stash, redis.CommandFilterArgGet(ctx, i),
                          argument_is_value(rule->kind, i));
}

/* A SADD of a new member raises a notification. One of members that are all there does not, yet
 * must win over a concurrent remove: it is wrapped, unless every member stands by a dot that
 * nobody else can have seen. */
static void filter_set_add(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        struct crdt_name name = {0, plugin_bytes(redis.CommandFilterArgGet(ctx, 1))};
        uint64_t hash = keyspace_name_hash(plugin.keyspace, name);
        bool fresh = true;
        for (int i = 2; i < argc; i++) {
                struct bytes member = plugin_bytes(redis.CommandFilterArgGet(ctx, i));
                enum crdt_member look =
                        keyspace_set_look(plugin.keyspace, name, hash, member, plugin.shipped);
                if (look != CRDT_MEMBER_ABSENT && plugin.taking) {
                        batch_drain();
                        look = keyspace_set_look(plugin.keyspace, name, hash, member,
                                                 plugin.shipped);
                }
                if (look == CRDT_MEMBER_ABSENT) {
                        stash_command(ctx, rule, argc);
                        return;
                }
                fresh = fresh && look == CRDT_MEMBER_FRESH;
        }
        if (!fresh)
                wrap_rule(ctx, rule);
}

static void filter_zset_add(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        enum crdt_member look = zset_filter_look(ctx, argc);
        if (look != CRDT_MEMBER_ABSENT && plugin.taking) {
                batch_drain();
                look = zset_filter_look(ctx, argc);
        }
        if (look == CRDT_MEMBER_THERE)
                wrap_rule(ctx, rule);
        else if (look == CRDT_MEMBER_ABSENT)
                stash_command(ctx, rule, argc);
}

/* The same of one member. False: it is not so plain. */
static __attribute__((noinline)) bool filter_add_one(struct redis_filter_context *ctx,
                                                     const struct rule *rule)
{
        enum crdt_member look;
        if (!batch_open_add(ctx, rule, &look))
                return false;
        if (look != CRDT_MEMBER_ABSENT && plugin.taking) {
                batch_drain();
                if (!batch_open_add(ctx, rule, &look))
                        return false;
        }
        if (look == CRDT_MEMBER_THERE)
                wrap_rule(ctx, rule);
        return true;
}

static bool rule_adds(const struct rule *rule)
{
        return rule->kind == RULE_SADD || rule->kind == RULE_ZADD;
}

static void filter_write(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        if (!rule_fits(rule, argc))
                return;
        bool blind = rule_adds(rule) && plugin.many_dbs; /* the database is not known here */
        if (rule->always || blind || plugin.multi_open > 0)
                wrap_rule(ctx, rule);
        else if (rule->kind == RULE_SADD)
                filter_set_add(ctx, rule, argc);
        else if (rule->kind == RULE_ZADD)
                filter_zset_add(ctx, rule, argc);
        else
                stash_command(ctx, rule, argc);
}

/* Where the command is queued, what came or went at an end of a list is also told by its length,
 * and the rest by the notification and the key alone. */
static void filter_unwrapped(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        bool queued = plugin.multi_open > 0;
        if (rule_fits(rule, argc) && (queued || !batch_open(ctx, rule)))
                batch_drain();
}

static void filter_publish(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        if (!rule_fits(rule, argc))
                return;
        enum wrap kind = bus_wrap(rule, plugin_bytes(redis.CommandFilterArgGet(ctx, 1)));
        if (kind != WRAP_NONE)
                wrap_as(ctx, kind);
}

static __attribute__((noinline)) void filter_rule(struct redis_filter_context *ctx,
                                                  const struct rule *rule)
{
        int argc = redis.CommandFilterArgsCount(ctx);
        switch (rule->kind) {
        case RULE_PASS:
        case RULE_KIND_COUNT:
                return;
        case RULE_EVENT:
                batch_drain();
                return;
        case RULE_ZMPOP:
                batch_drain();
                zset_peek(ctx, rule, argc);
                return;
        case RULE_REFUSE:
                refuse(ctx);
                return;
        case RULE_PUBLISH:
                filter_publish(ctx, rule, argc);
                return;
        case RULE_CONFIG:
                guard_changes();
                judge_config(ctx, argc);
                return;
        case RULE_DEBUG:
                if (argc > 1 && argument_is(ctx, 1, "populate"))
                        refuse(ctx);
                return;
        case RULE_ACL:
                guard_changes();
                return;
        case RULE_CLUSTER:
                judge_cluster(ctx);
                return;
        case RULE_MULTI:
                plugin.multi_open++;
                return;
        case RULE_EXEC:
                batch_drain();
                guard_executed();
                plugin.multi_open -= plugin.multi_open > 0;
                return;
        case RULE_LPUSH:
        case RULE_RPUSH:
        case RULE_LPOP:
        case RULE_RPOP:
        case RULE_DEL:
        case RULE_EXPIRE:
                filter_unwrapped(ctx, rule, argc);
                return;
        case RULE_SET:
        case RULE_SETEX:
        case RULE_MSET:
        case RULE_MSETNX:
        case RULE_APPEND:
        case RULE_INCR:
        case RULE_DECR:
        case RULE_INCRBY:
        case RULE_DECRBY:
        case RULE_INCRBYFLOAT:
        case RULE_HSET:
        case RULE_HINCRBY:
        case RULE_HINCRBYFLOAT:
        case RULE_HDEL:
        case RULE_SADD:
        case RULE_SREM:
        case RULE_SMOVE:
        case RULE_SPOP:
        case RULE_LINSERT:
        case RULE_LSET:
        case RULE_LTRIM:
        case RULE_LREM:
        case RULE_FLUSH:
        case RULE_PFADD:
        case RULE_XADD:
        case RULE_XDEL:
        case RULE_ZADD:
        case RULE_GEOADD:
        case RULE_ZINCRBY:
        case RULE_ZREM:
        case RULE_ZPOP:
        case RULE_ZREMRANGE:
        case RULE_MIGRATE:
                filter_write(ctx, rule, argc);
                return;
        }
}

/* One that batch_open takes as it comes, outside of transactions. */
static bool rule_plain(const struct rule *rule)
{
        const uint64_t plain = 1ull << RULE_SET | 1ull << RULE_INCR | 1ull << RULE_DECR |
                               1ull << RULE_INCRBY | 1ull << RULE_DECRBY | 1ull << RULE_HSET |
                               1ull << RULE_HDEL | 1ull << RULE_SREM | 1ull << RULE_LPUSH |
                               1ull << RULE_RPUSH | 1ull << RULE_LPOP | 1ull << RULE_RPOP |
                               1ull << RULE_SETEX | 1ull << RULE_DEL | 1ull << RULE_EXPIRE;
        return (plain >> rule->kind & 1) != 0;
}

_Static_assert(RULE_KIND_COUNT <= 64, "a bit for each kind");

void filter_command(struct redis_filter_context *ctx)
{
        if (plugin.replica)
                return;
        struct bytes name = plugin_bytes(redis.CommandFilterArgGet(ctx, 0));
        /* The strings of the last one may be gone, and their addresses used again. */
        plugin.stash.rule = NULL;
        plugin.emptied_key = NULL;
        batch_close();
        if (plugin.writers)
                writers_saw(ctx, name);
        if (!rules_may_have(name))
                return;
        const struct rule *rule = rules_find((const char *)name.ptr, name.len);
        if (rule == NULL)
                return;
        zset_settle();
        if (plugin.multi_open == 0) {
                if (rule_plain(rule) && batch_open(ctx, rule))
                        return;
                if (rule_adds(rule) && !plugin.many_dbs && filter_add_one(ctx, rule))
                        return;
        }
        filter_rule(ctx, rule);
}
