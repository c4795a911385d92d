/* conflict.c - conflicts as events. The newest CONFLICTS_MAX are kept in memory, with both values
 * cut to VALUE_LEN_MAX, and can be read by any client:
 *
 *      MERIDIAN.CONFLICTS [COUNT n] [AFTER id] [JSON]
 *
 * gives a list, oldest first, of maps as flat lists (id, kind, key ...), or of JSON texts. The same
 * texts are published to the channel `meridian:conflicts` before the event loop sleeps, a bounded
 * number each turn. Events are told where the winner was written, and once; ids rise, also across
 * restarts, which forget the events themselves. Nothing of it replicates. Several increments that
 * meet the same SET are one event, which counts. */
#include "plugin.h"

#include <stdio.h>

enum {
        CONFLICTS_MAX = 1024,
        PUBLISH_MAX = 64, /* a turn */
        VALUE_LEN_MAX = 256,
        KEY_LEN_MAX = 256,
        WHY_LEN_MAX = 192,
        COUNT_DEFAULT = 100,
};

struct conflict {
        uint64_t id;
        uint64_t at_ms;
        const char *kind;
        const char *policy;
        uint32_t db;
        struct stamp lost, won;
        enum crdt_type lost_type, won_type;
        uint64_t count;
        bool cut; /* something of it was too long */
        size_t key_len, field_len, lost_len, won_len;
        uint8_t key[KEY_LEN_MAX];
        uint8_t field[KEY_LEN_MAX];
        uint8_t lost_value[VALUE_LEN_MAX];
        uint8_t won_value[VALUE_LEN_MAX];
        char why[WHY_LEN_MAX];
};

enum kind {
        KIND_VALUE,
        KIND_FIELD,
        KIND_TYPE,
        KIND_DELETE,
        KIND_COUNT,
        KIND_SIBLINGS,
        KIND_MERGE_FAILED,
        KIND_END,
};

static const struct {
        const char *name;
        const char *why;
} kinds[KIND_END] = {
        [KIND_VALUE] = {"value", "two regions wrote the key at once: the later write won"},
        [KIND_FIELD] = {"field", "two regions wrote the field at once: the later write won"},
        [KIND_TYPE] = {"type", "two types were written at once: the later write won"},
        [KIND_DELETE] = {"delete", "written in one region, deleted at once in another, which was "
                                   "later"},
        [KIND_COUNT] = {"increment", "incremented in one region, set at once in another: the "
                                     "increments are added to the new value"},
        [KIND_SIBLINGS] = {"siblings", "two regions wrote the key at once: all values are kept"},
        [KIND_MERGE_FAILED] = {"merge-failed", ""},
};

static struct conflict *ring;
static uint64_t first; /* id before the oldest that is kept */
static uint64_t last;  /* of the newest; 0 before there was one */
static uint64_t published;
static uint64_t counts[KIND_END];
static uint64_t since_ms; /* when counting began */

static const char *const type_names[CRDT_TYPE_COUNT + 1] = {
        [CRDT_STRING] = "string", [CRDT_HASH] = "hash",         [CRDT_SET] = "set",
        [CRDT_OPAQUE] = "whole",  [CRDT_SIBLINGS] = "siblings", [CRDT_NONE] = "none",
        [CRDT_LIST] = "list",     [CRDT_STREAM] = "stream",     [CRDT_HLL] = "hyperloglog",
        [CRDT_ZSET] = "zset",
};

static const char *type_name(enum crdt_type type)
{
        return (unsigned)type <= CRDT_TYPE_COUNT && type_names[type] != NULL ? type_names[type]
                                                                             : "other";
}

static void keep(struct conflict *conflict, struct bytes data, uint8_t *to, size_t size,
                 size_t *ret_len)
{
        conflict->cut = conflict->cut || data.len > size;
        *ret_len = data.len < size ? data.len : size;
        if (*ret_len > 0)
                memcpy(to, data.ptr, *ret_len);
}

static struct conflict *at(uint64_t id)
{
        return &ring[id % CONFLICTS_MAX];
}

static struct conflict *next(enum kind kind, struct crdt_name name)
{
        counts[kind]++;
        if (ring == NULL) {
                ring = plugin_array(CONFLICTS_MAX, sizeof(*ring), "conflicts");
                last = first = published = plugin_now_ms() << 16;
        }
        last++;
        first = last - first > CONFLICTS_MAX ? last - CONFLICTS_MAX : first;
        struct conflict *conflict = at(last);
        *conflict = (struct conflict){.id = last,
                                      .at_ms = plugin_now_ms(),
                                      .kind = kinds[kind].name,
                                      .policy = policy_name(policy_of(name.key)),
                                      .db = name.db,
                                      .count = 1};
        keep(conflict, name.key, conflict->key, KEY_LEN_MAX, &conflict->key_len);
        snprintf(conflict->why, sizeof(conflict->why), "%s", kinds[kind].why);
        return conflict;
}

/* What the winner's key or field shows now, where it is one value. */
static void keep_winner(struct conflict *conflict, const struct crdt_conflict *told)
{
        struct redis_context *ctx = plugin.ctx;
        struct redis_reply *reply = NULL;
        const char *key = told->name.key.len == 0 ? "" : (const char *)told->name.key.ptr;
        redis.SelectDb(ctx, (int)told->name.db);
        if (told->kind == CRDT_CONFLICT_FIELD)
                reply = redis.Call(ctx, "HGET", "bb", key, told->name.key.len,
                                   told->field.len == 0 ? "" : (const char *)told->field.ptr,
                                   told->field.len);
        else if (told->won_type == CRDT_STRING || told->won_type == CRDT_SIBLINGS)
                reply = redis.Call(ctx, "GET", "b", key, told->name.key.len);
        if (reply == NULL)
                return;
        size_t len = 0;
        const char *text = redis.CallReplyType(reply) == REDIS_REPLY_STRING
                                   ? redis.CallReplyStringPtr(reply, &len)
                                   : NULL;
        if (text != NULL)
                keep(conflict, bytes_of(text, len), conflict->won_value, VALUE_LEN_MAX,
                     &conflict->won_len);
        redis.FreeCallReply(reply);
}

/* An increment that meets the SET which the last event told of. */
static bool adds_to_last(const struct crdt_conflict *told)
{
        struct conflict *conflict = ring == NULL || last == first ? NULL : at(last);
        bool same = conflict != NULL && told->kind == CRDT_CONFLICT_COUNT &&
                    conflict->kind == kinds[KIND_COUNT].name && last > published &&
                    conflict->lost.origin == told->lost.origin &&
                    stamp_compare(conflict->won, told->won) == 0;
        if (!same)
                return false;
        conflict->count++;
        conflict->lost = told->lost;
        return true;
}

void conflict_found(void *context, const struct crdt_conflict *told)
{
        static const enum kind of[CRDT_CONFLICT_KINDS] = {
                [CRDT_CONFLICT_VALUE] = KIND_VALUE, [CRDT_CONFLICT_FIELD] = KIND_FIELD,
                [CRDT_CONFLICT_TYPE] = KIND_TYPE,   [CRDT_CONFLICT_DELETE] = KIND_DELETE,
                [CRDT_CONFLICT_COUNT] = KIND_COUNT, [CRDT_CONFLICT_SIBLINGS] = KIND_SIBLINGS,
        };
        (void)context;
        if (adds_to_last(told))
                return;
        struct conflict *conflict = next(of[told->kind], told->name);
        conflict->lost = told->lost;
        conflict->won = told->won;
        conflict->lost_type = told->lost_type;
        conflict->won_type = told->won_type;
        conflict->count = told->count;
        keep(conflict, told->field, conflict->field, KEY_LEN_MAX, &conflict->field_len);
        keep(conflict, told->value, conflict->lost_value, VALUE_LEN_MAX, &conflict->lost_len);
        if (told->kind != CRDT_CONFLICT_DELETE)
                keep_winner(conflict, told);
}

void conflict_merge_failed(struct crdt_name name, const struct crdt_sibling *shown,
                           const char *result, const char *why)
{
        struct conflict *conflict = next(KIND_MERGE_FAILED, name);
        conflict->won = shown->stamp;
        conflict->lost_type = conflict->won_type = CRDT_SIBLINGS;
        keep(conflict, shown->value, conflict->won_value, VALUE_LEN_MAX, &conflict->won_len);
        snprintf(conflict->why, sizeof(conflict->why), "%s: %s", result, why);
}

/* ---- as JSON */

/* The length of the UTF-8 sequence at `at`, 0 where it is none. */
static size_t utf8_len(const uint8_t *at, size_t left)
{
        size_t len = *at < 0x80                  ? 1
                     : *at >= 0xc2 && *at < 0xe0 ? 2
                     : (*at & 0xf0) == 0xe0      ? 3
                     : *at >= 0xf0 && *at < 0xf5 ? 4
                                                 : 0;
        if (len == 0 || len > left)
                return 0;
        for (size_t i = 1; i < len; i++) {
                if ((at[i] & 0xc0) != 0x80)
                        return 0;
        }
        bool overlong = (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xf0 && at[1] < 0x90);
        bool beyond = (*at == 0xed && at[1] >= 0xa0) || (*at == 0xf4 && at[1] >= 0x90);
        return overlong || beyond ? 0 : len;
}

/* What is no text shows as U+FFFD. */
static void json_text(struct buffer *to, const char *name, const uint8_t *at, size_t len)
{
        buffer_format(to, ",\"%s\":\"", name);
        for (size_t i = 0; i < len;) {
                size_t step = utf8_len(at + i, len - i);
                if (step == 0)
                        buffer_format(to, "\\ufffd");
                else if (step == 1 && (at[i] < ' ' || at[i] == 0x7f))
                        buffer_format(to, "\\u%04x", at[i]);
                else if (step == 1 && (at[i] == '"' || at[i] == '\\'))
                        buffer_format(to, "\\%c", at[i]);
                else
                        buffer_bytes(to, bytes_of(at + i, step));
                i += step == 0 ? 1 : step;
        }
        buffer_format(to, "\"");
}

static void json_side(struct buffer *to, const char *side, struct stamp stamp, enum crdt_type type,
                      const uint8_t *value, size_t len)
{
        buffer_format(to, ",\"%s\":{\"region\":%u,\"ms\":%llu,\"type\":\"%s\"", side, stamp.origin,
                      (unsigned long long)hlc_ms(stamp.hlc), type_name(type));
        json_text(to, "value", value, len);
        buffer_format(to, "}");
}

static void conflict_json(struct buffer *to, const struct conflict *conflict)
{
        buffer_format(to, "{\"id\":%llu,\"at_ms\":%llu,\"region\":%u,\"kind\":\"%s\",\"db\":%u",
                      (unsigned long long)conflict->id, (unsigned long long)conflict->at_ms,
                      plugin.config.origin, conflict->kind, conflict->db);
        json_text(to, "key", conflict->key, conflict->key_len);
        if (conflict->field_len > 0)
                json_text(to, "field", conflict->field, conflict->field_len);
        buffer_format(to, ",\"policy\":\"%s\",\"count\":%llu", conflict->policy,
                      (unsigned long long)conflict->count);
        json_side(to, "lost", conflict->lost, conflict->lost_type, conflict->lost_value,
                  conflict->lost_len);
        json_side(to, "won", conflict->won, conflict->won_type, conflict->won_value,
                  conflict->won_len);
        json_text(to, "why", (const uint8_t *)conflict->why, strlen(conflict->why));
        buffer_format(to, ",\"cut\":%s}", conflict->cut ? "true" : "false");
}

void conflict_publish(struct redis_context *ctx)
{
        if (last == published)
                return;
        struct buffer text;
        buffer_init(&text, &plugin.heap);
        published = published < first ? first : published;
        for (unsigned i = 0; i < PUBLISH_MAX && published < last; i++) {
                buffer_reset(&text);
                conflict_json(&text, at(++published));
                plugin_must(text.err, "a conflict");
                struct redis_reply *reply = redis.Call(ctx, "PUBLISH", "cb", "meridian:conflicts",
                                                       (const char *)text.ptr, text.len);
                if (reply != NULL)
                        redis.FreeCallReply(reply);
        }
        buffer_fini(&text);
}

/* ---- MERIDIAN.CONFLICTS */

struct query {
        unsigned long long count;
        unsigned long long after;
        bool json;
};

static bool read_query(struct redis_string **argv, int argc, struct query *ret)
{
        *ret = (struct query){.count = COUNT_DEFAULT};
        for (int i = 1; i < argc; i++) {
                struct bytes word = plugin_bytes(argv[i]);
                unsigned long long *number = bytes_equal(word, BYTES("COUNT"))   ? &ret->count
                                             : bytes_equal(word, BYTES("AFTER")) ? &ret->after
                                                                                 : NULL;
                if (number != NULL && i + 1 < argc &&
                    redis.StringToULongLong(argv[i + 1], number) == REDIS_OK)
                        i++;
                else if (number == NULL && bytes_equal(word, BYTES("JSON")))
                        ret->json = true;
                else
                        return false;
        }
        return true;
}

static void reply_text(struct redis_context *ctx, const char *name, const void *at_text, size_t len)
{
        redis.ReplyWithStringBuffer(ctx, name, strlen(name));
        redis.ReplyWithStringBuffer(ctx, len == 0 ? "" : at_text, len);
}

static void reply_number(struct redis_context *ctx, const char *name, uint64_t value)
{
        redis.ReplyWithStringBuffer(ctx, name, strlen(name));
        redis.ReplyWithLongLong(ctx, (long long)value);
}

static void reply_conflict(struct redis_context *ctx, const struct conflict *conflict)
{
        const char *lost = type_name(conflict->lost_type);
        const char *won = type_name(conflict->won_type);
        redis.ReplyWithArray(ctx, 34);
        reply_number(ctx, "id", conflict->id);
        reply_number(ctx, "at-ms", conflict->at_ms);
        reply_text(ctx, "kind", conflict->kind, strlen(conflict->kind));
        reply_number(ctx, "db", conflict->db);
        reply_text(ctx, "key", conflict->key, conflict->key_len);
        reply_text(ctx, "field", conflict->field, conflict->field_len);
        reply_text(ctx, "policy", conflict->policy, strlen(conflict->policy));
        reply_number(ctx, "count", conflict->count);
        reply_number(ctx, "lost-region", conflict->lost.origin);
        reply_number(ctx, "lost-stamp", conflict->lost.hlc);
        reply_text(ctx, "lost-type", lost, strlen(lost));
        reply_text(ctx, "lost-value", conflict->lost_value, conflict->lost_len);
        reply_number(ctx, "won-region", conflict->won.origin);
        reply_number(ctx, "won-stamp", conflict->won.hlc);
        reply_text(ctx, "won-type", won, strlen(won));
        reply_text(ctx, "won-value", conflict->won_value, conflict->won_len);
        reply_text(ctx, "why", conflict->why, strlen(conflict->why));
}

int conflict_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        struct query query;
        if (!read_query(argv, argc, &query))
                return redis.ReplyWithError(
                        ctx, "ERR usage: MERIDIAN.CONFLICTS [COUNT n] [AFTER id] [JSON]");
        uint64_t from = query.after > first ? query.after : first;
        uint64_t count = from < last ? last - from : 0;
        /* Without AFTER, the newest. */
        if (query.after == 0 && count > query.count)
                from = last - query.count;
        count = count < query.count ? count : query.count;
        struct buffer text;
        buffer_init(&text, &plugin.heap);
        redis.ReplyWithArray(ctx, (long)count);
        for (uint64_t i = 1; i <= count; i++) {
                if (!query.json) {
                        reply_conflict(ctx, at(from + i));
                        continue;
                }
                buffer_reset(&text);
                conflict_json(&text, at(from + i));
                plugin_must(text.err, "a conflict");
                redis.ReplyWithStringBuffer(ctx, (const char *)text.ptr, text.len);
        }
        buffer_fini(&text);
        return REDIS_OK;
}

/* ---- MERIDIAN.SIBLINGS */

int siblings_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        const struct crdt_sibling *list = NULL;
        if (argc != 2)
                return redis.WrongArity(ctx);
        batch_drain();
        struct crdt_name name = {(uint32_t)redis.GetSelectedDb(ctx), plugin_bytes(argv[1])};
        size_t count = keyspace_siblings(plugin.keyspace, name, &list);
        redis.ReplyWithArray(ctx, (long)count);
        for (size_t i = 0; i < count; i++) {
                struct bytes value = list[i].value;
                struct redis_reply *reply = NULL;
                if (count == 1) {
                        reply = redis.Call(ctx, "GET", "s", argv[1]);
                        if (reply != NULL)
                                value.ptr = (const uint8_t *)redis.CallReplyStringPtr(reply,
                                                                                      &value.len);
                }
                redis.ReplyWithArray(ctx, 3);
                redis.ReplyWithLongLong(ctx, list[i].stamp.origin);
                redis.ReplyWithLongLong(ctx, (long long)list[i].stamp.hlc);
                redis.ReplyWithStringBuffer(ctx, value.ptr == NULL ? "" : (const char *)value.ptr,
                                            value.len);
                if (reply != NULL)
                        redis.FreeCallReply(reply);
        }
        return REDIS_OK;
}

void conflict_begin(void)
{
        since_ms = plugin_now_ms();
}

uint64_t conflict_since_ms(void)
{
        return since_ms;
}

uint64_t conflict_total(void)
{
        uint64_t total = 0;
        for (unsigned i = 0; i < KIND_END; i++)
                total += counts[i];
        return total;
}

void conflict_info(struct redis_info *info)
{
        char name[48];
        for (unsigned i = 0; i < KIND_END; i++) {
                snprintf(name, sizeof(name), "conflicts_%s", kinds[i].name);
                for (char *mark = name; *mark != 0; mark++)
                        *mark = *mark == '-' ? '_' : *mark;
                redis.InfoAddFieldULongLong(info, name, counts[i]);
        }
        redis.InfoAddFieldULongLong(info, "conflicts_since", since_ms / 1000);
        redis.InfoAddFieldULongLong(info, "policies", policy_count());
}
