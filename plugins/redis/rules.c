/* rules.c - the command table. The fixed rows name what is covered; all other commands that the
 * server itself lists as writes are refused, so that a command of a newer server cannot slip
 * through. Lookup is by the first eight letters folded to lower case in one word: command names
 * that clients send a million times a second are found with one multiplication. */
#include "rules.h"

#include "base/check.h"

#include <strings.h>

enum {
        RULES_MAX = 512,
};

static const struct rule fixed[] = {
        {"set", RULE_SET, WRAP_ONE, -3, false},
        {"setnx", RULE_SET, WRAP_ONE, 3, false},
        {"getset", RULE_SET, WRAP_ONE, 3, false},
        {"setex", RULE_SETEX, WRAP_ONE, 4, false},
        {"psetex", RULE_SETEX, WRAP_ONE, 4, false},
        {"mset", RULE_MSET, WRAP_PAIRS, -3, false},
        {"msetnx", RULE_MSETNX, WRAP_PAIRS, -3, false},
        {"append", RULE_APPEND, WRAP_ONE, 3, false},
        {"setrange", RULE_EVENT, WRAP_NONE, 0, false},
        {"setbit", RULE_EVENT, WRAP_NONE, 0, false},
        {"bitfield", RULE_EVENT, WRAP_NONE, 0, false},
        {"getdel", RULE_EVENT, WRAP_NONE, 0, false},
        {"getex", RULE_EVENT, WRAP_NONE, 0, false},
        {"incr", RULE_INCR, WRAP_ONE, 2, false},
        {"decr", RULE_DECR, WRAP_ONE, 2, false},
        {"incrby", RULE_INCRBY, WRAP_ONE, 3, false},
        {"decrby", RULE_DECRBY, WRAP_ONE, 3, false},
        {"incrbyfloat", RULE_INCRBYFLOAT, WRAP_ONE, 3, true},
        {"del", RULE_DEL, WRAP_NONE, -2, false},
        {"unlink", RULE_DEL, WRAP_NONE, -2, false},
        {"expire", RULE_EXPIRE, WRAP_NONE, -3, false},
        {"pexpire", RULE_EXPIRE, WRAP_NONE, -3, false},
        {"expireat", RULE_EXPIRE, WRAP_NONE, -3, false},
        {"pexpireat", RULE_EXPIRE, WRAP_NONE, -3, false},
        {"persist", RULE_EVENT, WRAP_NONE, 0, false},
        {"hset", RULE_HSET, WRAP_ONE, -4, false},
        {"hmset", RULE_HSET, WRAP_ONE, -4, false},
        {"hsetnx", RULE_HSET, WRAP_ONE, 4, false},
        {"hincrby", RULE_HINCRBY, WRAP_ONE, 4, false},
        {"hincrbyfloat", RULE_HINCRBYFLOAT, WRAP_ONE, 4, true},
        {"hdel", RULE_HDEL, WRAP_ONE, -3, false},
        {"sadd", RULE_SADD, WRAP_ONE, -3, false},
        {"srem", RULE_SREM, WRAP_ONE, -3, false},
        {"smove", RULE_SMOVE, WRAP_TWO, 4, false},
        {"spop", RULE_SPOP, WRAP_ONE, -2, true},
        {"lpush", RULE_LPUSH, WRAP_NONE, -3, false},
        {"rpush", RULE_RPUSH, WRAP_NONE, -3, false},
        {"lpushx", RULE_LPUSH, WRAP_NONE, -3, false},
        {"rpushx", RULE_RPUSH, WRAP_NONE, -3, false},
        {"lpop", RULE_LPOP, WRAP_NONE, -2, false},
        {"rpop", RULE_RPOP, WRAP_NONE, -2, false},
        {"lmpop", RULE_EVENT, WRAP_NONE, 0, false},
        {"lmove", RULE_EVENT, WRAP_NONE, 0, false},
        {"rpoplpush", RULE_EVENT, WRAP_NONE, 0, false},
        {"blpop", RULE_EVENT, WRAP_NONE, 0, false},
        {"brpop", RULE_EVENT, WRAP_NONE, 0, false},
        {"blmpop", RULE_EVENT, WRAP_NONE, 0, false},
        {"blmove", RULE_EVENT, WRAP_NONE, 0, false},
        {"brpoplpush", RULE_EVENT, WRAP_NONE, 0, false},
        {"xadd", RULE_XADD, WRAP_ONE, -5, true},
        {"xdel", RULE_XDEL, WRAP_ONE, -3, false},
        {"xtrim", RULE_EVENT, WRAP_NONE, 0, false},
        {"xsetid", RULE_EVENT, WRAP_NONE, 0, false},
        {"xgroup", RULE_EVENT, WRAP_NONE, 0, false},
        {"xreadgroup", RULE_EVENT, WRAP_NONE, 0, false},
        {"xack", RULE_EVENT, WRAP_NONE, 0, false},
        {"xclaim", RULE_EVENT, WRAP_NONE, 0, false},
        {"xautoclaim", RULE_EVENT, WRAP_NONE, 0, false},
        {"linsert", RULE_LINSERT, WRAP_ONE, 5, false},
        {"lset", RULE_LSET, WRAP_ONE, 4, false},
        {"ltrim", RULE_LTRIM, WRAP_ONE, 4, false},
        {"lrem", RULE_LREM, WRAP_ONE, 4, true},
        {"zadd", RULE_ZADD, WRAP_ONE, -4, false},
        {"geoadd", RULE_GEOADD, WRAP_ONE, -5, false},
        {"zincrby", RULE_ZINCRBY, WRAP_ONE, 4, false},
        {"zrem", RULE_ZREM, WRAP_ONE, -3, false},
        {"zpopmin", RULE_ZPOP, WRAP_ONE, -2, true},
        {"zpopmax", RULE_ZPOP, WRAP_ONE, -2, true},
        {"zremrangebyscore", RULE_ZREMRANGE, WRAP_ONE, 4, true},
        {"zremrangebyrank", RULE_ZREMRANGE, WRAP_ONE, 4, true},
        {"zremrangebylex", RULE_ZREMRANGE, WRAP_ONE, 4, true},
        {"bzpopmin", RULE_ZMPOP, WRAP_NONE, 0, false},
        {"bzpopmax", RULE_ZMPOP, WRAP_NONE, 0, false},
        {"zmpop", RULE_ZMPOP, WRAP_NONE, 0, false},
        {"bzmpop", RULE_ZMPOP, WRAP_NONE, 0, false},
        {"pfadd", RULE_PFADD, WRAP_ONE, -2, false},
        {"pfmerge", RULE_EVENT, WRAP_NONE, 0, false},
        {"flushdb", RULE_FLUSH, WRAP_PLAIN, -1, true},
        {"flushall", RULE_FLUSH, WRAP_PLAIN, -1, true},
        {"publish", RULE_PUBLISH, WRAP_PLAIN, 3, false},
        {"spublish", RULE_PUBLISH, WRAP_PLAIN, 3, false},
        {"multi", RULE_MULTI, WRAP_NONE, 0, false},
        {"exec", RULE_EXEC, WRAP_NONE, 0, false},
        {"discard", RULE_EXEC, WRAP_NONE, 0, false},
        {"reset", RULE_EXEC, WRAP_NONE, 0, false},
        {"cluster", RULE_CLUSTER, WRAP_NONE, 0, false},
        {"config", RULE_CONFIG, WRAP_NONE, 0, false},
        {"debug", RULE_DEBUG, WRAP_NONE, 0, false},
        {"acl", RULE_ACL, WRAP_NONE, 0, false},
        /* The notification names the key, whose content is then read: replace.c. */
        {"rename", RULE_EVENT, WRAP_NONE, 0, false},
        {"renamenx", RULE_EVENT, WRAP_NONE, 0, false},
        {"copy", RULE_EVENT, WRAP_NONE, 0, false},
        {"move", RULE_EVENT, WRAP_NONE, 0, false},
        {"restore", RULE_EVENT, WRAP_NONE, 0, false},
        {"migrate", RULE_MIGRATE, WRAP_PLAIN, -6, true},
        {"restore-asking", RULE_EVENT, WRAP_NONE, 0, false},
        {"bitop", RULE_EVENT, WRAP_NONE, 0, false},
        {"sdiffstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"sinterstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"sunionstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"sort", RULE_EVENT, WRAP_NONE, 0, false},
        {"georadius", RULE_EVENT, WRAP_NONE, 0, false},
        {"georadiusbymember", RULE_EVENT, WRAP_NONE, 0, false},
        {"geosearchstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"zrangestore", RULE_EVENT, WRAP_NONE, 0, false},
        {"zunionstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"zinterstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"zdiffstore", RULE_EVENT, WRAP_NONE, 0, false},
        {"function", RULE_PASS, WRAP_NONE, 0, false}, /* code, not data */
};

static struct rule rules[RULES_MAX];
static unsigned rules_count;

struct rule_slot rule_slots[RULE_SLOTS];
uint32_t rule_lengths[UINT8_MAX + 1];

const struct rule *rules_search(const char *name, size_t len)
{
        uint64_t folded = rule_word_folded(rule_word(name, len));
        unsigned at = rule_slot_of(folded, len);
        for (; rule_slots[at].rule != NULL; at = (at + 1) % RULE_SLOTS) {
                const struct rule_slot *slot = &rule_slots[at];
                if (slot->len == len && rule_word_folded(slot->cases[0]) == folded &&
                    strncasecmp(slot->rule->name, name, len) == 0)
                        return slot->rule;
        }
        return NULL;
}

static bool add(const struct rule *rule)
{
        size_t len = strlen(rule->name);
        if (rules_find(rule->name, len) != NULL)
                return true;
        if (rules_count == RULES_MAX)
                return false;
        char upper[sizeof(rule->name)];
        for (size_t i = 0; i < sizeof(upper); i++)
                upper[i] =
                        (char)(rule->name[i] >= 'a' && rule->name[i] <= 'z' ? rule->name[i] & ~0x20
                                                                            : rule->name[i]);
        struct rule_slot slot = {.cases = {rule_word(rule->name, len), rule_word(upper, len)},
                                 .rule = &rules[rules_count],
                                 .len = len};
        unsigned at = rule_slot_of(slot.cases[0], len);
        while (rule_slots[at].rule != NULL)
                at = (at + 1) % RULE_SLOTS;
        rules[rules_count++] = *rule;
        rule_slots[at] = slot;
        rule_lengths[(uint8_t)rule->name[0]] |= 1u << (len < 31 ? len : 31);
        rule_lengths[(uint8_t)upper[0]] |= 1u << (len < 31 ? len : 31);
        return true;
}

/* `listed` may name a subcommand as container|name: the container is what a client sends. */
static bool add_refused(const char *listed, size_t len)
{
        struct rule rule = {.kind = RULE_REFUSE};
        for (size_t i = 0; i < len && listed[i] != '|'; i++) {
                if (i + 1 >= sizeof(rule.name))
                        return false;
                char letter = listed[i];
                rule.name[i] = (char)(letter >= 'A' && letter <= 'Z' ? letter | 0x20 : letter);
        }
        return add(&rule);
}

/* The server lists a command by its own name and finds it by the one that it was given: then what
 * runs is not in the table. */
static bool is_renamed(struct redis_context *ctx, const char *listed, size_t len)
{
        const char *end = memchr(listed, '|', len);
        size_t name_len = end == NULL ? len : (size_t)(end - listed);
        struct redis_reply *reply = redis.Call(ctx, "COMMAND", "cb", "INFO", listed, name_len);
        if (reply == NULL)
                return false;
        struct redis_reply *found = redis.CallReplyType(reply) == REDIS_REPLY_ARRAY
                                            ? redis.CallReplyArrayElement(reply, 0)
                                            : NULL;
        bool is = found != NULL && redis.CallReplyType(found) != REDIS_REPLY_ARRAY;
        redis.FreeCallReply(reply);
        return is;
}

bool rules_init(struct redis_context *ctx, const char **ret_why)
{
        for (size_t i = 0; i < COUNT_OF(fixed); i++)
                CHECK(add(&fixed[i]));
        struct redis_reply *reply =
                redis.Call(ctx, "COMMAND", "cccc", "LIST", "FILTERBY", "ACLCAT", "write");
        if (reply == NULL || redis.CallReplyType(reply) != REDIS_REPLY_ARRAY ||
            redis.CallReplyLength(reply) < 20) {
                *ret_why = "the server does not list its write commands (it must be Redis 7.0 or "
                           "later, or Valkey)";
                if (reply != NULL)
                        redis.FreeCallReply(reply);
                return false;
        }
        bool fits = true;
        bool renamed = false;
        for (size_t i = 0; i < redis.CallReplyLength(reply); i++) {
                size_t len;
                struct redis_reply *item = redis.CallReplyArrayElement(reply, i);
                const char *name = redis.CallReplyStringPtr(item, &len);
                fits = fits && name != NULL && add_refused(name, len);
                renamed = renamed || (name != NULL && is_renamed(ctx, name, len));
        }
        redis.FreeCallReply(reply);
        if (!fits)
                *ret_why = "the server has more or longer write commands than the table holds";
        if (renamed)
                *ret_why =
                        "'rename-command' gives a command that writes another name, by which the "
                        "module would not know it; switch it off (\"\") or use ACLs";
        return fits && !renamed;
}
