/* local.c - what this region's clients change, as heard by synchronous keyspace notifications.
 *
 * A notification carries the very key object of the command's arguments: where it is the stashed
 * one, the stash says what changed; DEL, expiry and the like need no stash. A change that cannot be
 * explained so (a queued native command that the filter had not wrapped, a log without its LOG
 * record) puts the key into `dirty`: its whole content is stamped anew before the turn ends.
 *
 * Fails only by running out of memory, which stops the server. */
#include "plugin.h"

#include <strings.h>

enum {
        PAIRS_INLINE = 32,
};

struct event_row {
        const char *name;
        void (*handle)(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
};

void local_dirty(struct buffer *list, struct crdt_name name)
{
        buffer_u32(list, name.db);
        buffer_slice(list, name.key);
        plugin_must(list->err, "the list of changed keys");
}

struct crdt_name local_listed(struct cursor *cursor)
{
        struct crdt_name name = {.db = cursor_u32(cursor)};
        name.key = cursor_slice(cursor);
        return name;
}

void local_changed(const struct keyspace_change *change)
{
        if (change->whole)
                local_dirty(&plugin.dirty, change->name);
        if (change->nothing)
                return;
        if (change->before.ptr != NULL)
                log_before(change->before);
        feed_add(plugin.config.origin, change->delta);
        log_frame(change->delta, false);
}

/* A long value is in the log already, by the native command. Not so for what may be a number: an
 * increment in the same turn changes it, and the SET before it must be remembered as it was. */
static bool value_is_told(struct bytes value)
{
        static const bool numeric[UINT8_MAX + 1] = {
                ['0'] = true, ['1'] = true, ['2'] = true, ['3'] = true,  ['4'] = true, ['5'] = true,
                ['6'] = true, ['7'] = true, ['8'] = true, ['9'] = true,  ['+'] = true, ['-'] = true,
                ['.'] = true, [' '] = true, ['i'] = true, ['\t'] = true, ['n'] = true, ['f'] = true,
                ['I'] = true, ['N'] = true, ['F'] = true,
        };
        return value.len > LOG_VALUE_LEN && !numeric[value.ptr[0]];
}

void local_set_changed(struct bytes delta, struct bytes value)
{
        bool told = value_is_told(value);
        feed_add(plugin.config.origin, delta);
        delta.len -= told ? value.len : 0; /* a SET ends with its value */
        log_frame(delta, told);
}

void local_hset_changed(struct bytes delta, struct bytes body)
{
        struct cursor cursor = cursor_of(body);
        feed_add(plugin.config.origin, delta);
        bool one = cursor_varint(&cursor) == 1;
        cursor_slice(&cursor);
        struct bytes value = cursor_slice(&cursor);
        /* An HSET of one field ends with its value, if nothing of increments follows. */
        bool alone = (delta.ptr[8] & CRDT_FLAG_ELEMENTS) == 0;
        bool told = one && alone && value.len > LOG_VALUE_LEN;
        delta.len -= told ? value.len : 0;
        log_frame(delta, told);
}

static bool stash_is(enum rule_kind kind, unsigned at, const struct redis_string *key)
{
        const struct stash *stash = &plugin.stash;
        return stash->rule != NULL && stash->rule->kind == kind && at < stash->count &&
               stash->arguments[at].string == key;
}

static void set_value(struct crdt_name name, struct bytes value, bool keep_ttl)
{
        struct keyspace_change change;
        plugin_must(keyspace_local_set(plugin.keyspace, plugin_stamp_ms(), name, value,
                                       keep_ttl ? KEYSPACE_TTL_KEEP : 0, &change),
                    "a write");
        local_set_changed(change.delta, value);
        plugin.stash.used = true;
}

static bool stash_keeps_ttl(const struct stash *stash)
{
        for (unsigned i = 2; i < stash->count; i++) {
                struct bytes word = stash_bytes(stash, i);
                if (word.len == 7 && strncasecmp((const char *)word.ptr, "keepttl", 7) == 0)
                        return true;
        }
        return false;
}

static void on_set(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct stash *stash = &plugin.stash;
        if (stash_is(RULE_SET, 0, key)) {
                set_value(name, stash_bytes(stash, 1), stash->count > 2 && stash_keeps_ttl(stash));
        } else if (stash_is(RULE_SETEX, 0, key)) {
                set_value(name, stash_bytes(stash, 2), false);
        } else if (stash_is(RULE_MSET, stash->next, key) ||
                   stash_is(RULE_MSETNX, stash->next, key)) {
                set_value(name, stash_bytes(stash, stash->next + 1), false);
                stash->next += 2;
        } else {
                replace_key(ctx, name, key); /* BITOP */
        }
}

/* The text of a string that is stored raw: to ask so for another encoding would change it. */
static bool read_raw(struct redis_context *ctx, struct redis_string *key, struct bytes *ret,
                     struct redis_key **ret_open)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        if (open == NULL)
                return false;
        size_t len = 0;
        const char *text = redis.StringDMA(open, &len, REDIS_READ);
        *ret_open = open;
        *ret = bytes_of(text, len);
        return text != NULL;
}

/* SETRANGE, SETBIT and BITFIELD leave the string raw. */
static void on_bytes(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct bytes value;
        struct redis_key *open;
        if (!read_raw(ctx, key, &value, &open)) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        set_value(name, value, true);
        redis.CloseKey(open);
}

static void on_append(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        if (!stash_is(RULE_APPEND, 0, key)) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        struct bytes added = stash_bytes(&plugin.stash, 1);
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        bool created = open != NULL && redis.ValueLength(open) == added.len;
        if (open != NULL)
                redis.CloseKey(open);
        /* What APPEND created is encoded like SET's; what it extended is raw. */
        if (created)
                set_value(name, added, true);
        else
                on_bytes(ctx, name, key);
}

static bool stash_amount(const struct redis_string *key, long long *ret)
{
        const struct stash *stash = &plugin.stash;
        if (stash_is(RULE_INCR, 0, key)) {
                *ret = 1;
                return true;
        }
        if (stash_is(RULE_DECR, 0, key)) {
                *ret = -1;
                return true;
        }
        bool down = stash_is(RULE_DECRBY, 0, key);
        if (!down && !stash_is(RULE_INCRBY, 0, key))
                return false;
        if (redis.StringToLongLong(stash->arguments[1].string, ret) != REDIS_OK)
                return false;
        *ret = down ? -*ret : *ret;
        return true;
}

static void on_increment(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        long long amount;
        if (!stash_amount(key, &amount)) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        batch_add(name, amount);
        plugin.stash.used = true;
}

static void hash_set(struct crdt_name name, const struct keyspace_pair *pairs, size_t count)
{
        struct keyspace_change change;
        plugin_must(keyspace_local_hash_set(plugin.keyspace, plugin_stamp_ms(), name, pairs, count,
                                            &change),
                    "a hash");
        local_changed(&change);
        plugin.stash.used = true;
}

static void on_hset(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        struct stash *stash = &plugin.stash;
        if (!stash_is(RULE_HSET, 0, key) || stash->count < 3) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        struct keyspace_pair inside[PAIRS_INLINE];
        struct keyspace_pair *pairs = inside;
        size_t count = (stash->count - 1) / 2;
        if (count > PAIRS_INLINE)
                pairs = plugin_array(count, sizeof(*pairs), "a hash");
        for (unsigned i = 0; i < count; i++)
                pairs[i] = (struct keyspace_pair){stash_bytes(stash, 1 + 2 * i),
                                                  stash_bytes(stash, 2 + 2 * i)};
        hash_set(name, pairs, count);
        if (pairs != inside)
                heap_free(&plugin.heap, pairs);
}

typedef enum err (*members_change)(struct keyspace *, uint64_t, struct crdt_name,
                                   const struct bytes *, size_t, struct keyspace_change *);

static void change_members(members_change call, struct crdt_name name, unsigned first, unsigned end)
{
        struct bytes inside[PAIRS_INLINE];
        struct bytes *members = inside;
        unsigned count = end - first;
        if (count > PAIRS_INLINE)
                members = plugin_array(count, sizeof(*members), "members");
        for (unsigned i = 0; i < count; i++)
                members[i] = stash_bytes(&plugin.stash, first + i);
        struct keyspace_change change;
        plugin_must(call(plugin.keyspace, plugin_stamp_ms(), name, members, count, &change),
                    "members");
        local_changed(&change);
        plugin.stash.used = true;
        if (members != inside)
                heap_free(&plugin.heap, members);
}

void local_set_add(struct crdt_name name, struct stash *stash, unsigned first)
{
        change_members(keyspace_local_set_add, name, first, stash->count);
}

static void on_hdel(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (stash_is(RULE_HDEL, 0, key))
                change_members(keyspace_local_hash_delete, name, 1, plugin.stash.count);
        else
                local_dirty(&plugin.dirty, name);
}

static void on_sadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (stash_is(RULE_SADD, 0, key))
                change_members(keyspace_local_set_add, name, 1, plugin.stash.count);
        else if (stash_is(RULE_SMOVE, 1, key))
                change_members(keyspace_local_set_add, name, 2, 3);
        else
                local_dirty(&plugin.dirty, name);
}

static void on_srem(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (stash_is(RULE_SREM, 0, key))
                change_members(keyspace_local_set_remove, name, 1, plugin.stash.count);
        else if (stash_is(RULE_SMOVE, 0, key))
                change_members(keyspace_local_set_remove, name, 2, 3);
        else
                local_dirty(&plugin.dirty, name);
}

static void on_spop(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (!stash_is(RULE_SPOP, 0, key)) /* else wrap.c sees the reply */
                local_dirty(&plugin.dirty, name);
}

/* wrap.c tells the keyspace what the float has become. */
static void on_float(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (!stash_is(RULE_INCRBYFLOAT, 0, key))
                local_dirty(&plugin.dirty, name);
}

/* "del" also tells that the last member has gone: the removal itself has been recorded then. */
static void on_del(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (stash_is(RULE_SREM, 0, key) || stash_is(RULE_SPOP, 0, key) ||
            stash_is(RULE_SMOVE, 0, key) || stash_is(RULE_HDEL, 0, key))
                return;
        struct keyspace_change change;
        plugin_must(keyspace_local_delete(plugin.keyspace, plugin_stamp_ms(), name, &change),
                    "a delete");
        local_changed(&change);
}

static void expire(struct crdt_name name, uint64_t at_ms)
{
        struct keyspace_change change;
        plugin_must(keyspace_local_expire(plugin.keyspace, plugin_stamp_ms(), name, at_ms, &change),
                    "an expiry");
        local_changed(&change);
}

uint64_t local_expiry(struct redis_context *ctx, struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        long long at_ms = open == NULL ? REDIS_NO_EXPIRE : redis.GetAbsExpire(open);
        if (open != NULL)
                redis.CloseKey(open);
        return at_ms > 0 ? (uint64_t)at_ms : 0;
}

static void on_expire(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        uint64_t at_ms = local_expiry(ctx, key);
        if (at_ms != 0)
                expire(name, at_ms);
        else
                local_dirty(&plugin.dirty, name);
}

static void on_persist(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        (void)key;
        expire(name, 0);
}

static void on_expired(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        (void)key;
        struct keyspace_change change;
        plugin_must(keyspace_local_expired(plugin.keyspace, plugin_stamp_ms(), name, &change),
                    "an expiry");
        local_changed(&change);
}

static void on_evicted(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        (void)key;
        plugin_must(keyspace_key_gone(plugin.keyspace, name), "an eviction");
        plugin.evicted++;
        log_gone(name);
}

/* The old name of what RENAME or MOVE took away. */
static void on_left(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        (void)key;
        replace_forget(name);
}

static const struct event_row events[] = {
        {"xadd", stream_on_xadd},
        {"xtrim", stream_on_xtrim},
        {"xdel", stream_on_xdel},
        {"xsetid", stream_on_made},
        {"xgroup-create", stream_on_made},
        {"lpush", list_on_lpush},
        {"rpush", list_on_rpush},
        {"lpop", list_on_lpop},
        {"rpop", list_on_rpop},
        {"lset", list_on_lset},
        {"ltrim", list_on_ltrim},
        {"linsert", list_on_linsert},
        {"lrem", list_on_lrem},
        {"zadd", zset_on_zadd},
        {"zincr", zset_on_zincr},
        {"zrem", zset_on_zrem},
        {"set", on_set},
        {"incrby", on_increment},
        {"hset", on_hset},
        {"sadd", on_sadd},
        {"srem", on_srem},
        {"del", on_del},
        {"expire", on_expire},
        {"expired", on_expired},
        {"hdel", on_hdel},
        {"append", on_append},
        {"setrange", on_bytes},
        {"setbit", on_bytes},
        {"hincrby", hash_on_hincrby},
        {"persist", on_persist},
        {"hincrbyfloat", hash_on_hincrbyfloat},
        {"spop", on_spop},
        {"evicted", on_evicted},
        {"incrbyfloat", on_float},
        {"rename_from", on_left},
        {"rename_to", replace_key},
        {"move_from", on_left},
        {"move_to", replace_key},
        {"copy_to", replace_key},
        {"restore", replace_key},
        {"sortstore", replace_key},
        {"pfadd", hll_on_pfadd},
        {"sdiffstore", replace_key},
        {"sinterstore", replace_key},
        {"sunionstore", replace_key},
        {"zrangestore", replace_key},
        {"zunionstore", replace_key},
        {"zinterstore", replace_key},
        {"zdiffstore", replace_key},
        {"geosearchstore", replace_key},
        {"georadiusstore", replace_key},
};

static bool local_ours(void)
{
        return !plugin.applying && !plugin.loading && !plugin.replica;
}

static void dispatch(struct redis_context *ctx, const char *event, struct crdt_name name,
                     struct redis_string *key)
{
        for (size_t i = 0; i < COUNT_OF(events); i++) {
                if (strcmp(events[i].name, event) == 0) {
                        events[i].handle(ctx, name, key);
                        return;
                }
        }
        local_dirty(&plugin.dirty, name);
}

static __attribute__((noinline)) int notified(struct redis_context *ctx, int type,
                                              const char *event, struct redis_string *key)
{
        int db = redis.GetSelectedDb(ctx);
        if (local_ours()) {
                /* Before the change of the command that runs: it is not in the log yet. */
                if (plugin.pending.len > PLUGIN_PENDING_BYTES_MAX)
                        log_flush(ctx);
                zset_settle();
                if (key == plugin.open_key && batch_commit(ctx, event, db))
                        return REDIS_OK;
        }
        struct crdt_name name = {(uint32_t)db, plugin_bytes(key)};
        migrate_touched(name);
        if (plugin.applying) {
                if (type == REDIS_NOTIFY_EXPIRED && !plugin.telling)
                        local_dirty(&plugin.expired, name);
                return REDIS_OK;
        }
        if (stream_event_local(event))
                return REDIS_OK;
        if (key == plugin.emptied_key && strcmp(event, "del") == 0)
                return REDIS_OK;
        plugin.many_dbs = plugin.many_dbs || name.db != 0;
        if (plugin.loading || plugin.replica) {
                local_dirty(&plugin.dirty, name);
                return REDIS_OK;
        }
        /* What stood there had expired: the command goes on without it. */
        if (type == REDIS_NOTIFY_EXPIRED && key == plugin.open_key && !plugin.open_half)
                batch_drain_before();
        else
                batch_drain();
        if (zset_noted(event, name))
                return REDIS_OK;
        if (strcmp(event, "restore") == 0 && migrate_restored(ctx, name, key))
                return REDIS_OK;
        if (strcmp(event, "del") == 0 && lost_key(ctx, name))
                return REDIS_OK;
        if (!policy_notified(ctx, event, name, key))
                dispatch(ctx, event, name, key);
        return REDIS_OK;
}

int local_notified(struct redis_context *ctx, int type, const char *event, struct redis_string *key)
{
        bool plain = key == plugin.open_key && local_ours() && plugin.noted.len == 0 &&
                     plugin.pending.len <= PLUGIN_PENDING_BYTES_MAX;
        if (plain && batch_commit(ctx, event, redis.GetSelectedDb(ctx)))
                return REDIS_OK;
        return notified(ctx, type, event, key);
}
