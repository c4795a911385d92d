/* zset.c - sorted sets, and geo, which is stored in them: what this region's clients change, by
 * notification. How a merge changes them is in zset_native.c.
 *
 * ZADD, GEOADD, ZINCRBY and ZREM are explained by their stashed arguments and by the scores that
 * Redis holds after them. Commands that take members away without naming them (ZPOPMIN, BZPOPMIN,
 * ZMPOP, ZREMRANGEBYSCORE ...) notify when the first has gone, so the key is noted, and looked into
 * when the command is over (zset_settle): what the keyspace has and Redis has not is gone. Those
 * that can be wrapped are, and say where to look; of the others the filter looks which members come
 * next. For a client that was blocked nobody knew: every member is looked up, which are the few
 * that woke it. Where the counts differ after that, the key is recorded anew as a whole.
 *
 * Fails only by running out of memory, which stops the server. */
#include "plugin.h"

#include <stdio.h>
#include <strings.h>

enum {
        INLINE = 32,
        PART_MEMBERS = 4096, /* of one delta */
};

static void changed(enum err err, const struct keyspace_change *change)
{
        plugin_must(err, "a sorted set");
        local_changed(change);
        plugin.stash.used = true;
}

/* ---- arguments */

/* Only what Redis takes for the same: a few digits; all else is asked of it. */
static bool digits_parse(struct bytes text, double *ret)
{
        enum {
                DIGITS_MAX = 15, /* exact in a double */
        };
        bool negative = text.len > 0 && text.ptr[0] == '-';
        size_t at = negative;
        int64_t value = 0;
        if (text.len == at || text.len - at > DIGITS_MAX)
                return false;
        for (; at < text.len; at++) {
                unsigned digit = (unsigned)text.ptr[at] - '0';
                if (digit > 9)
                        return false;
                value = value * 10 + digit;
        }
        *ret = (double)(negative ? -value : value);
        return true;
}

bool zset_parse(const struct redis_string *text, double *ret)
{
        if (digits_parse(plugin_bytes(text), ret))
                return true;
        bool number = redis.StringToDouble(text, ret) == REDIS_OK;
        *ret += 0.0; /* Redis forgets the sign of a zero in small sets: none has one here */
        return number;
}

static bool member_score(struct redis_key *open, struct redis_string *member, double *ret)
{
        bool there = redis.ZsetScore(open, member, ret) == REDIS_OK;
        *ret += 0.0;
        return there;
}

bool zset_is_option(struct bytes word)
{
        static const char *const options[] = {"nx", "xx", "gt", "lt", "ch", "incr"};
        for (size_t i = 0; i < COUNT_OF(options); i++) {
                if (word.len == strlen(options[i]) &&
                    strncasecmp((const char *)word.ptr, options[i], word.len) == 0)
                        return true;
        }
        return false;
}

static bool stash_is(enum rule_kind kind, const struct redis_string *key)
{
        const struct stash *stash = &plugin.stash;
        return stash->rule != NULL && stash->rule->kind == kind && stash->count >= 2 &&
               stash->arguments[0].string == key;
}

/* The argument behind the options. */
static unsigned stash_first(void)
{
        unsigned first = 1;
        while (first < plugin.stash.count && zset_is_option(stash_bytes(&plugin.stash, first)))
                first++;
        return first;
}

/* ---- adds */

static struct redis_key *open_zset(struct redis_context *ctx, struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        if (open == NULL || redis.KeyType(open) == REDIS_KEY_ZSET)
                return open;
        redis.CloseKey(open);
        return NULL;
}

static bool score_same(double a, double b)
{
        return memcmp(&a, &b, sizeof(a)) == 0;
}

/* Whether a member is to be told: with options, only what has become different. */
static bool is_news(struct crdt_name name, const struct keyspace_score *now, bool all)
{
        double known = 0;
        return all ||
               keyspace_zset_look(plugin.keyspace, name, now->member, 0, &known) ==
                       CRDT_MEMBER_ABSENT ||
               !score_same(known, now->score);
}

/* The members of the stashed ZADD or GEOADD, each the last of `step` arguments, with the scores
 * that they have. */
static void record_named(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                         unsigned step)
{
        struct keyspace_score inside[INLINE];
        struct keyspace_score *scores = inside;
        const struct stash *stash = &plugin.stash;
        unsigned first = stash_first();
        struct redis_key *open = open_zset(ctx, key);
        size_t count = 0;
        if (stash->count / step > INLINE)
                scores = plugin_array(stash->count / step, sizeof(*scores), "members");
        for (unsigned i = first + step - 1; i < stash->count && open != NULL; i += step) {
                struct keyspace_score *now = &scores[count];
                now->member = stash_bytes(stash, i);
                if (member_score(open, stash->arguments[i].string, &now->score) &&
                    is_news(name, now, first == 1))
                        count++;
        }
        if (open != NULL)
                redis.CloseKey(open);
        if (count > 0) {
                struct keyspace_change change;
                changed(keyspace_local_zset_add(plugin.keyspace, plugin_stamp_ms(), name, scores,
                                                count, &change),
                        &change);
        }
        if (scores != inside)
                heap_free(&plugin.heap, scores);
}

void zset_on_zadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        if (stash_is(RULE_ZADD, key))
                record_named(ctx, name, key, 2);
        else if (stash_is(RULE_GEOADD, key))
                record_named(ctx, name, key, 3);
        else
                local_dirty(&plugin.dirty, name);
}

void zset_added_again(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        if (stash_first() == 1)
                record_named(ctx, name, key, plugin.stash.rule->kind == RULE_GEOADD ? 3 : 2);
}

/* ZINCRBY key amount member; ZADD key ... INCR amount member. */
void zset_on_zincr(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        double amount = 0;
        double after = 0;
        const struct stash *stash = &plugin.stash;
        bool told = (stash_is(RULE_ZINCRBY, key) || stash_is(RULE_ZADD, key)) && stash->count >= 3;
        struct redis_key *open = told ? open_zset(ctx, key) : NULL;
        struct redis_string *member = told ? stash->arguments[stash->count - 1].string : NULL;
        told = open != NULL && zset_parse(stash->arguments[stash->count - 2].string, &amount) &&
               member_score(open, member, &after);
        if (open != NULL)
                redis.CloseKey(open);
        if (told) {
                struct keyspace_change change;
                changed(keyspace_local_zset_increment(plugin.keyspace, plugin_stamp_ms(), name,
                                                      plugin_bytes(member), amount, after, &change),
                        &change);
        } else {
                local_dirty(&plugin.dirty, name);
        }
}

/* A ZADD of a member that has that score already changes nothing in Redis and notifies nobody, yet
 * must win over a concurrent removal: it is wrapped then, unless the member stands by a dot that
 * nobody else can have seen. */
enum crdt_member zset_filter_look(struct redis_filter_context *ctx, int argc)
{
        struct crdt_name name = {0, plugin_bytes(redis.CommandFilterArgGet(ctx, 1))};
        enum crdt_member all = CRDT_MEMBER_FRESH;
        uint64_t hash = keyspace_name_hash(plugin.keyspace, name);
        if (argc % 2 != 0 || zset_is_option(plugin_bytes(redis.CommandFilterArgGet(ctx, 2))))
                return CRDT_MEMBER_ABSENT;
        for (int i = 2; i < argc; i += 2) {
                double score = 0;
                double known = 0;
                struct bytes member = plugin_bytes(redis.CommandFilterArgGet(ctx, i + 1));
                enum crdt_member look = keyspace_zset_look_hashed(plugin.keyspace, name, hash,
                                                                  member, plugin.shipped, &known);
                const struct redis_string *text = redis.CommandFilterArgGet(ctx, i);
                if (look == CRDT_MEMBER_ABSENT || !zset_parse(text, &score))
                        return CRDT_MEMBER_ABSENT;
                if (score < known || score > known)
                        return CRDT_MEMBER_ABSENT;
                all = look == CRDT_MEMBER_FRESH ? all : look;
        }
        return all;
}

/* ---- removals */

static void record_gone(struct crdt_name name, const struct bytes *members, size_t count)
{
        struct keyspace_change change;
        for (size_t from = 0; from < count; from += PART_MEMBERS) {
                size_t part = count - from < PART_MEMBERS ? count - from : PART_MEMBERS;
                changed(keyspace_local_zset_remove(plugin.keyspace, plugin_stamp_ms(), name,
                                                   members + from, part, &change),
                        &change);
        }
}

void zset_on_zrem(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        struct bytes inside[INLINE];
        struct bytes *members = inside;
        const struct stash *stash = &plugin.stash;
        if (!stash_is(RULE_ZREM, key)) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        if (stash->count > INLINE)
                members = plugin_array(stash->count, sizeof(*members), "members");
        for (unsigned i = 1; i < stash->count; i++)
                members[i - 1] = stash_bytes(stash, i);
        record_gone(name, members, stash->count - 1);
        if (members != inside)
                heap_free(&plugin.heap, members);
}

/* ---- members that went unnamed */

struct search {
        struct redis_key *open; /* NULL: Redis has nothing */
        struct bytes *gone;
        size_t count;
        size_t size;
};

static bool search_holds(const struct search *search, struct bytes member)
{
        double score;
        if (search->open == NULL)
                return false;
        struct redis_string *string = redis.CreateString(
                NULL, member.len == 0 ? "" : (const char *)member.ptr, member.len);
        bool there = redis.ZsetScore(search->open, string, &score) == REDIS_OK;
        redis.FreeString(NULL, string);
        return there;
}

static void search_member(void *context, struct bytes member, double score)
{
        (void)score;
        struct search *search = context;
        if (search_holds(search, member))
                return;
        if (search->count == search->size) {
                search->size = search->size == 0 ? INLINE : search->size * 2;
                search->gone =
                        plugin_resize(search->gone, search->size, sizeof(*search->gone), "members");
        }
        /* The keyspace's own copy goes with the first change of the key. */
        plugin_must(heap_copy(&plugin.heap, member, &search->gone[search->count++]) ? ERR_NONE
                                                                                    : ERR_NOMEM,
                    "members");
}

static void search_drop(struct search *search)
{
        while (search->count > 0)
                heap_free_bytes(&plugin.heap, search->gone[--search->count]);
}

static void search_hints(struct search *search, struct crdt_name name, struct redis_reply *hints)
{
        size_t count = hints == NULL || redis.CallReplyType(hints) != REDIS_REPLY_ARRAY
                               ? 0
                               : redis.CallReplyLength(hints);
        for (size_t i = 0; i < count; i++) {
                double known;
                struct redis_reply *hint = redis.CallReplyArrayElement(hints, i);
                size_t len = 0;
                const char *text = hint == NULL ? NULL : redis.CallReplyStringPtr(hint, &len);
                struct bytes member = bytes_of(text, text == NULL ? 0 : len);
                if (text != NULL && keyspace_zset_look(plugin.keyspace, name, member, 0, &known) !=
                                            CRDT_MEMBER_ABSENT)
                        search_member(search, member, 0);
        }
}

/* Records what Redis has no more. The hints are members that may have gone. */
static void record_missing(struct redis_context *ctx, struct crdt_name name,
                           struct redis_string *key, struct redis_reply *hints)
{
        struct search search = {.open = open_zset(ctx, key)};
        uint64_t length = search.open == NULL ? 0 : redis.ValueLength(search.open);
        search_hints(&search, name, hints);
        if (keyspace_zset_length(plugin.keyspace, name) != length + search.count) {
                search_drop(&search);
                keyspace_zset_each(plugin.keyspace, name, search_member, &search);
        }
        if (search.open != NULL)
                redis.CloseKey(search.open);
        record_gone(name, search.gone, search.count);
        if (keyspace_zset_length(plugin.keyspace, name) != length)
                local_dirty(&plugin.dirty, name);
        search_drop(&search);
        heap_free(&plugin.heap, search.gone);
}

static void look_into(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                      struct redis_reply *hints)
{
        if (policy_tells_whole(name.key, false))
                replace_key(ctx, name, key);
        else
                record_missing(ctx, name, key, hints);
}

bool zset_noted(const char *event, struct crdt_name name)
{
        static const char *const events[] = {"zpopmin", "zpopmax", "zremrangebyscore",
                                             "zremrangebyrank", "zremrangebylex"};
        if (event[0] != 'z')
                return false;
        for (size_t i = 0; i < COUNT_OF(events); i++) {
                if (strcmp(events[i], event) != 0)
                        continue;
                if (plugin.noted.heap == NULL)
                        buffer_init(&plugin.noted, &plugin.heap);
                local_dirty(&plugin.noted, name);
                return true;
        }
        return false;
}

/* The members that a command without a wrapper will take first; a hint, of whatever age. */
static struct redis_reply *peeked;

static long long argument_number(struct redis_filter_context *ctx, int argc, int at)
{
        long long value = 0;
        return at < argc && redis.StringToLongLong(redis.CommandFilterArgGet(ctx, at), &value) ==
                                       REDIS_OK
                       ? value
                       : 0;
}

/* BZPOPMIN key ... timeout; ZMPOP numkeys key ... MIN|MAX [COUNT n]; BZMPOP timeout, then the same.
 * False: it is none of these. */
struct peek {
        int first;
        int end; /* of the keys */
        bool max;
        long long count;
};

static bool peek_parse(struct redis_filter_context *ctx, const struct rule *rule, int argc,
                       struct peek *ret)
{
        *ret = (struct peek){1, argc - 1, strcmp(rule->name, "bzpopmax") == 0, 1};
        if (strncmp(rule->name, "bzpop", 5) == 0)
                return argc > 2;
        ret->first = rule->name[0] == 'b' ? 3 : 2;
        long long keys = argument_number(ctx, argc, ret->first - 1);
        if (keys < 1 || keys >= argc - ret->first)
                return false;
        ret->end = ret->first + (int)keys;
        struct bytes where = plugin_bytes(redis.CommandFilterArgGet(ctx, ret->end));
        ret->max = where.len == 3 && (where.ptr[1] | 0x20) == 'a';
        long long count = argument_number(ctx, argc, ret->end + 2);
        ret->count = count > 0 ? count : 1;
        return true;
}

void zset_peek(struct redis_filter_context *ctx, const struct rule *rule, int argc)
{
        struct peek peek;
        if (peeked != NULL)
                redis.FreeCallReply(peeked);
        peeked = NULL;
        /* The database is not known here, nor whether the command runs at once. */
        if (plugin.many_dbs || plugin.multi_open > 0 || !peek_parse(ctx, rule, argc, &peek))
                return;
        for (int i = peek.first; i < peek.end && peeked == NULL; i++) {
                struct redis_string *key = redis.CommandFilterArgGet(ctx, i);
                struct crdt_name name = {0, plugin_bytes(key)};
                if (keyspace_zset_length(plugin.keyspace, name) == 0)
                        continue;
                redis.SelectDb(plugin.ctx, 0);
                peeked = redis.Call(plugin.ctx, peek.max ? "ZREVRANGE" : "ZRANGE", "sll", key, 0LL,
                                    peek.count - 1);
        }
}

/* `hints` are for the last of those that were noted. */
static void settle(struct redis_context *ctx, struct redis_reply *hints)
{
        int db = redis.GetSelectedDb(ctx);
        struct buffer taken = plugin.noted;
        buffer_init(&plugin.noted, &plugin.heap);
        batch_drain();
        struct cursor cursor = cursor_of(buffer_view(&taken));
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                struct crdt_name name = local_listed(&cursor);
                CHECK(!cursor_failed(&cursor));
                redis.SelectDb(ctx, (int)name.db);
                struct redis_string *key = redis.CreateString(
                        NULL, name.key.len == 0 ? "" : (const char *)name.key.ptr, name.key.len);
                look_into(ctx, name, key, cursor_left(&cursor) == 0 ? hints : NULL);
                redis.FreeString(NULL, key);
        }
        redis.SelectDb(ctx, db);
        buffer_fini(&taken);
}

void zset_settle_noted(void)
{
        settle(plugin.ctx, peeked);
}

void zset_forget(void)
{
        buffer_reset(&plugin.noted);
}

/* ---- wrapped commands */

/* What ZREMRANGEBY... is about to take. */
static struct redis_reply *range_of(struct redis_context *ctx, const struct rule *rule,
                                    struct redis_string **argv)
{
        const char *command = strcmp(rule->name, "zremrangebyscore") == 0 ? "ZRANGEBYSCORE"
                              : strcmp(rule->name, "zremrangebylex") == 0 ? "ZRANGEBYLEX"
                                                                          : "ZRANGE";
        return redis.Call(ctx, command, "v", argv + 1, (size_t)3);
}

struct redis_reply *zset_run(struct redis_context *ctx, const struct rule *rule,
                             struct redis_string **argv, int argc)
{
        struct redis_reply *range =
                rule->kind == RULE_ZREMRANGE && argc == 4 ? range_of(ctx, rule, argv) : NULL;
        struct redis_reply *reply =
                redis.Call(ctx, rule->name, "!0CEv", argv + 1, (size_t)(argc - 1));
        if (plugin.noted.len > 0)
                settle(ctx, range != NULL ? range : reply);
        if (range != NULL)
                redis.FreeCallReply(range);
        return reply;
}

/* ---- as a whole */

static double text_score(struct redis_reply *reply)
{
        size_t len = 0;
        const char *text = redis.CallReplyStringPtr(reply, &len);
        struct redis_string *string = redis.CreateString(NULL, text == NULL ? "" : text, len);
        double score = 0;
        CHECK(zset_parse(string, &score));
        redis.FreeString(NULL, string);
        return score;
}

void zset_record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct redis_reply *reply = redis.Call(ctx, "ZRANGE", "sccc", key, "0", "-1", "WITHSCORES");
        if (reply == NULL || redis.CallReplyType(reply) != REDIS_REPLY_ARRAY) {
                if (reply != NULL)
                        redis.FreeCallReply(reply);
                return;
        }
        struct keyspace_score *scores = plugin_array(PART_MEMBERS, sizeof(*scores), "members");
        size_t count = redis.CallReplyLength(reply) / 2;
        replace_forget(name);
        for (size_t from = 0; from < count; from += PART_MEMBERS) {
                struct keyspace_change change;
                size_t part = count - from < PART_MEMBERS ? count - from : PART_MEMBERS;
                for (size_t i = 0; i < part; i++) {
                        size_t len = 0;
                        struct redis_reply *member =
                                redis.CallReplyArrayElement(reply, 2 * (from + i));
                        const char *text = redis.CallReplyStringPtr(member, &len);
                        scores[i].member = bytes_of(text, len);
                        scores[i].score =
                                text_score(redis.CallReplyArrayElement(reply, 2 * (from + i) + 1));
                }
                changed(keyspace_local_zset_add(plugin.keyspace, plugin_stamp_ms(), name, scores,
                                                part, &change),
                        &change);
        }
        heap_free(&plugin.heap, scores);
        redis.FreeCallReply(reply);
}
