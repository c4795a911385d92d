/* rules.h - what is done with each command: one row each. */
#ifndef MERIDIAN_PLUGINS_REDIS_RULES_H
#define MERIDIAN_PLUGINS_REDIS_RULES_H

#include "base/bytes.h"
#include "redis_api.h"

/* How a command's change becomes a delta. */
enum rule_kind {
        RULE_PASS,   /* a known name that needs nothing, or is judged by its arguments */
        RULE_REFUSE, /* would make regions differ */
        RULE_EVENT,  /* the notification and the key alone say it: PERSIST, SETBIT, ... */
        RULE_DEL,    /* key ... */
        RULE_EXPIRE, /* key time ... */
        RULE_SET,    /* key value [options] */
        RULE_SETEX,  /* key time value */
        RULE_MSET,   /* key value ... */
        RULE_MSETNX,
        RULE_APPEND, /* key value */
        RULE_INCR,
        RULE_DECR,
        RULE_INCRBY,
        RULE_DECRBY,
        RULE_INCRBYFLOAT,
        RULE_HSET, /* key field value ... */
        RULE_HINCRBY,
        RULE_HINCRBYFLOAT,
        RULE_HDEL,
        RULE_SADD,
        RULE_SREM,
        RULE_SMOVE,
        RULE_SPOP,
        RULE_MULTI,   /* opens a transaction */
        RULE_EXEC,    /* closes one */
        RULE_CONFIG,  /* refused where it would take the metadata out of the AOF */
        RULE_DEBUG,   /* refused where it makes keys */
        RULE_ACL,     /* may change who may run what */
        RULE_CLUSTER, /* SETSLOT changes what is whose */
        RULE_LPUSH,   /* key value ... */
        RULE_RPUSH,
        RULE_LPOP, /* key [count] */
        RULE_RPOP,
        RULE_LINSERT,   /* key where pivot value */
        RULE_LSET,      /* key index value */
        RULE_LTRIM,     /* key start stop */
        RULE_XADD,      /* key options id field value ... */
        RULE_XDEL,      /* key id ... */
        RULE_LREM,      /* key count value */
        RULE_FLUSH,     /* empties databases */
        RULE_PFADD,     /* key element ... */
        RULE_PUBLISH,   /* channel message */
        RULE_ZADD,      /* key options score member ... */
        RULE_GEOADD,    /* key options longitude latitude member ... */
        RULE_ZINCRBY,   /* key amount member */
        RULE_ZREM,      /* key member ... */
        RULE_ZPOP,      /* key count */
        RULE_ZREMRANGE, /* key from to */
        RULE_MIGRATE,   /* host port key db timeout ... */
        RULE_ZMPOP,     /* keys of which the first that is there loses members */
        RULE_KIND_COUNT,
};

/* Wrapper commands, by where the wrapped command has its keys. */
enum wrap {
        WRAP_NONE,
        WRAP_ONE,   /* the first argument */
        WRAP_TWO,   /* the first two */
        WRAP_PAIRS, /* every second */
        WRAP_PLAIN, /* it has none */
        WRAP_COUNT,
};

struct rule {
        char name[32]; /* lower case */
        enum rule_kind kind;
        enum wrap wrap; /* how it is wrapped inside a transaction */
        int arity;   /* as Redis tells it: so many arguments with the name, -n: n or more; 0: any.
                         * Others are left to Redis, which refuses them */
        bool always; /* wrapped always: its notification does not say what changed */
};

/* Whether the row is for a command of `argc` words. */
static inline bool rule_fits(const struct rule *rule, int argc)
{
        return rule->arity > 0 ? argc == rule->arity : argc >= -rule->arity;
}

/* Builds the table: the fixed rows, then every write command of this server that no row names, as
 * refused. False and a sentence in *ret_why where the server does not tell its commands. */
bool rules_init(struct redis_context *ctx, const char **ret_why);

enum {
        RULE_SLOTS_LOG = 11,
        RULE_SLOTS = 1 << RULE_SLOTS_LOG,
        RULE_LETTERS_FOLD = 0x20, /* letters differ by this bit alone */
};

/* Of the table that rules_init builds. */
struct rule_slot {
        uint64_t cases[2];       /* the name's begin in lower and in upper case */
        const struct rule *rule; /* NULL: empty */
        size_t len;
};

extern struct rule_slot rule_slots[RULE_SLOTS];

/* The first eight bytes, or all of them: different for different names of one length. */
static inline uint64_t rule_word(const char *name, size_t len)
{
        uint64_t word = 0;
        uint32_t half = 0;
        if (len >= sizeof(word)) {
                memcpy(&word, name, sizeof(word));
        } else if (len >= sizeof(half)) {
                memcpy(&half, name + len - sizeof(half), sizeof(half));
                word = (uint64_t)half << 32;
                memcpy(&half, name, sizeof(half));
                word |= half;
        } else if (len > 0) {
                word = (uint8_t)name[0] | (uint64_t)(uint8_t)name[len / 2] << 8 |
                       (uint64_t)(uint8_t)name[len - 1] << 16;
        }
        return word;
}

static inline uint64_t rule_word_folded(uint64_t word)
{
        return word | RULE_LETTERS_FOLD * 0x0101010101010101u;
}

static inline unsigned rule_slot_of(uint64_t word, size_t len)
{
        uint64_t mixed = (rule_word_folded(word) ^ len) * 0x9e3779b97f4a7c15u;
        return (unsigned)(mixed >> (64 - RULE_SLOTS_LOG));
}

/* By the first letter of a name: bit n where there is a row for one of n letters (31: or more).
 * Most reads are known by it. */
extern uint32_t rule_lengths[UINT8_MAX + 1];

static inline bool rules_may_have(struct bytes name)
{
        return name.len > 0 &&
               (rule_lengths[name.ptr[0]] >> (name.len < 31 ? name.len : 31) & 1) != 0;
}

const struct rule *rules_search(const char *name, size_t len);

/* The row of a command name in any case, or NULL where none exists (reads). Cost: one probe; a
 * short name in lower or upper case is known at sight. */
static inline const struct rule *rules_find(const char *name, size_t len)
{
        uint64_t word = rule_word(name, len);
        const struct rule_slot *slot = &rule_slots[rule_slot_of(word, len)];
        if (slot->rule == NULL || (slot->len == len && len <= sizeof(word) &&
                                   (word == slot->cases[0] || word == slot->cases[1])))
                return slot->rule;
        return rules_search(name, len);
}

#endif
