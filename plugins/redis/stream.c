/* stream.c - streams: what this region's clients change.
 *
 * XADD is wrapped: an id that the server would make is made here, with a sequence that no other
 * region makes (congruent to the region's id modulo 64), and the entry is recorded from the
 * arguments. XDEL is explained by its stashed arguments. After a trim everything that is older than
 * the oldest entry is gone. Consumer groups and what is pending in them belong to the region: their
 * commands pass. What cannot be explained so makes the key dirty: it is recorded anew. */
#include "base/digits.h"
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
        REGION_STEP = 64, /* sequences of one region are so far apart */
        ID_TEXT_MAX = 48,
        PART_ENTRIES = 256,
};

static const struct crdt_stream_id id_max = {UINT64_MAX, UINT64_MAX};

static void changed(enum err err, const struct keyspace_change *change)
{
        plugin_must(err, "a stream");
        local_changed(change);
}

bool stream_id_parse(struct bytes text, struct crdt_stream_id *ret)
{
        const char *at = (const char *)text.ptr;
        const char *dash = text.len == 0 ? NULL : memchr(at, '-', text.len);
        struct crdt_stream_id id = {0};
        size_t head = dash == NULL ? text.len : (size_t)(dash - at);
        if (!digits_parse(bytes_of(at, head), UINT64_MAX, &id.ms) ||
            (dash != NULL &&
             !digits_parse(bytes_of(dash + 1, text.len - head - 1), UINT64_MAX, &id.seq)))
                return false;
        *ret = id;
        return true;
}

struct redis_string *stream_id_string(struct crdt_stream_id id)
{
        char text[ID_TEXT_MAX];
        int len = snprintf(text, sizeof(text), "%llu-%llu", (unsigned long long)id.ms,
                           (unsigned long long)id.seq);
        return redis.CreateString(NULL, text, (size_t)len);
}

static bool id_before(struct crdt_stream_id a, struct crdt_stream_id b)
{
        return a.ms != b.ms ? a.ms < b.ms : a.seq < b.seq;
}

struct crdt_stream_id stream_id_previous(struct crdt_stream_id id)
{
        if (id.seq > 0)
                return (struct crdt_stream_id){id.ms, id.seq - 1};
        return id.ms == 0 ? id : (struct crdt_stream_id){id.ms - 1, UINT64_MAX};
}

/* ---- what the server holds */

static struct bytes reply_bytes(struct redis_reply *reply)
{
        size_t len = 0;
        const char *text = reply == NULL ? NULL : redis.CallReplyStringPtr(reply, &len);
        return bytes_of(text, text == NULL ? 0 : len);
}

bool stream_look(struct redis_context *ctx, struct redis_string *key, struct stream_look *ret)
{
        struct redis_reply *reply = redis.Call(ctx, "XINFO", "cs", "STREAM", key);
        *ret = (struct stream_look){0};
        bool there = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY;
        for (size_t i = 0; there && i + 1 < redis.CallReplyLength(reply); i += 2) {
                struct bytes name = reply_bytes(redis.CallReplyArrayElement(reply, i));
                struct redis_reply *value = redis.CallReplyArrayElement(reply, i + 1);
                if (bytes_equal(name, BYTES("length")))
                        ret->length = (uint64_t)redis.CallReplyInteger(value);
                else if (bytes_equal(name, BYTES("entries-added")))
                        ret->added = (uint64_t)redis.CallReplyInteger(value);
                else if (bytes_equal(name, BYTES("last-generated-id")))
                        stream_id_parse(reply_bytes(value), &ret->last);
                else if (bytes_equal(name, BYTES("max-deleted-entry-id")))
                        stream_id_parse(reply_bytes(value), &ret->deleted);
                else if (bytes_equal(name, BYTES("first-entry")) &&
                         redis.CallReplyType(value) == REDIS_REPLY_ARRAY)
                        stream_id_parse(reply_bytes(redis.CallReplyArrayElement(value, 0)),
                                        &ret->first);
        }
        if (reply != NULL)
                redis.FreeCallReply(reply);
        return there;
}

/* ---- recording */

static void record_remove(struct crdt_name name, const struct keyspace_ids *ranges, size_t count)
{
        struct keyspace_change change;
        changed(keyspace_local_stream_remove(plugin.keyspace, plugin_stamp_ms(), name, ranges,
                                             count, &change),
                &change);
}

static void record_add(struct crdt_name name, struct crdt_stream_id last,
                       const struct keyspace_entry *entries, size_t count)
{
        struct keyspace_change change;
        changed(keyspace_local_stream_add(plugin.keyspace, plugin_stamp_ms(), name, last, entries,
                                          count, &change),
                &change);
}

/* After a removal the native stream must hold as much as is known. */
static void check_length(struct crdt_name name, uint64_t length)
{
        struct crdt_stream_id last;
        if (keyspace_stream_length(plugin.keyspace, name, &last) != length)
                local_dirty(&plugin.dirty, name);
}

static void record_trim(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct stream_look look;
        stream_look(ctx, key, &look);
        struct keyspace_ids range = {{0, 0}, id_max};
        if (look.length > 0)
                range.high = stream_id_previous(look.first);
        record_remove(name, &range, 1);
        check_length(name, look.length);
}

/* Entries of an XRANGE reply from `from` on: as many as fit one delta. Returns where they end. */
static size_t record_part(struct crdt_name name, struct redis_reply *reply, size_t from,
                          struct crdt_stream_id last)
{
        struct keyspace_entry entries[PART_ENTRIES];
        struct bytes *strings = NULL;
        size_t strings_count = 0;
        size_t count = redis.CallReplyLength(reply) - from;
        count = count < PART_ENTRIES ? count : PART_ENTRIES;
        for (size_t i = 0; i < count; i++)
                strings_count += redis.CallReplyLength(redis.CallReplyArrayElement(
                        redis.CallReplyArrayElement(reply, from + i), 1));
        strings = plugin_array(strings_count, sizeof(*strings), "a stream");
        struct bytes *at = strings;
        for (size_t i = 0; i < count; i++) {
                struct redis_reply *one = redis.CallReplyArrayElement(reply, from + i);
                struct redis_reply *fields = redis.CallReplyArrayElement(one, 1);
                entries[i].strings = at;
                entries[i].count = redis.CallReplyLength(fields);
                stream_id_parse(reply_bytes(redis.CallReplyArrayElement(one, 0)), &entries[i].id);
                for (size_t j = 0; j < entries[i].count; j++)
                        *at++ = reply_bytes(redis.CallReplyArrayElement(fields, j));
        }
        record_add(name, last, entries, count);
        heap_free(&plugin.heap, strings);
        return from + count;
}

/* Not by a delete, which would take the groups of other regions away. */
void stream_record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct stream_look look;
        struct keyspace_key known;
        keyspace_find(plugin.keyspace, name, &known);
        if (known.type == CRDT_STREAM) {
                struct keyspace_ids all = {{0, 0}, id_max};
                record_remove(name, &all, 1);
        } else {
                replace_forget(name);
        }
        stream_look(ctx, key, &look);
        struct redis_reply *reply = redis.Call(ctx, "XRANGE", "scc", key, "-", "+");
        bool there = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY;
        size_t from = 0;
        do
                if (there && redis.CallReplyLength(reply) > 0)
                        from = record_part(name, reply, from, look.last);
                else
                        record_add(name, look.last, NULL, 0);
        while (there && from < redis.CallReplyLength(reply));
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

/* ---- notifications */

static bool stash_is(enum rule_kind kind, const struct redis_string *key)
{
        const struct stash *stash = &plugin.stash;
        return stash->rule != NULL && stash->rule->kind == kind && stash->count >= 2 &&
               stash->arguments[0].string == key;
}

void stream_on_xadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        (void)ctx;
        if (!stash_is(RULE_XADD, key)) /* else the wrapper records it */
                local_dirty(&plugin.dirty, name);
}

void stream_on_xtrim(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        if (!stash_is(RULE_XADD, key))
                record_trim(ctx, name, key);
}

void stream_on_xdel(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct stream_look look;
        if (!stash_is(RULE_XDEL, key)) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        size_t count = plugin.stash.count - 1;
        struct keyspace_ids *ranges = plugin_array(count, sizeof(*ranges), "a stream");
        size_t fine = 0;
        for (unsigned i = 1; i <= count; i++) {
                struct crdt_stream_id id;
                if (stream_id_parse(stash_bytes(&plugin.stash, i), &id))
                        ranges[fine++] = (struct keyspace_ids){id, id};
        }
        record_remove(name, ranges, fine);
        heap_free(&plugin.heap, ranges);
        stream_look(ctx, key, &look);
        check_length(name, look.length);
}

/* XSETID, and XGROUP CREATE ... MKSTREAM: the stream is there, and its last id is known. */
void stream_on_made(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        struct stream_look look;
        struct keyspace_key known;
        struct crdt_stream_id last;
        if (!stream_look(ctx, key, &look))
                return;
        keyspace_find(plugin.keyspace, name, &known);
        keyspace_stream_length(plugin.keyspace, name, &last);
        if (known.type != CRDT_STREAM || id_before(last, look.last))
                record_add(name, look.last, NULL, 0);
}

bool stream_event_local(const char *event)
{
        bool told = plugin.loading || plugin.replica; /* by the record that follows */
        return strncmp(event, "xgroup-", 7) == 0 && (told || strcmp(event, "xgroup-create") != 0);
}

/* ---- XADD */

static bool word_is(const struct redis_string *string, const char *word)
{
        struct bytes text = plugin_bytes(string);
        return text.len == strlen(word) && strncasecmp((const char *)text.ptr, word, text.len) == 0;
}

/* Which argument is the id, as the server finds it; argc where there is none. */
static int id_at(struct redis_string **argv, int argc, bool *ret_trims)
{
        int at = 2;
        *ret_trims = false;
        while (at < argc) {
                if (word_is(argv[at], "nomkstream")) {
                        at++;
                } else if (word_is(argv[at], "maxlen") || word_is(argv[at], "minid")) {
                        *ret_trims = true;
                        at++;
                        if (at < argc && (word_is(argv[at], "~") || word_is(argv[at], "=")))
                                at++;
                        at++;
                } else if (word_is(argv[at], "limit")) {
                        at += 2;
                } else {
                        return at;
                }
        }
        return argc;
}

/* The smallest id after `last` in millisecond `ms` that is this region's; false: there is none. */
static bool id_own(uint64_t ms, struct crdt_stream_id last, struct crdt_stream_id *ret)
{
        uint64_t own = plugin.config.origin % REGION_STEP;
        uint64_t seq = own;
        if (ms == last.ms && last.seq >= own) {
                uint64_t steps = (last.seq - own) / REGION_STEP + 1;
                if (steps > (UINT64_MAX - own) / REGION_STEP)
                        return false;
                seq = own + steps * REGION_STEP;
        }
        *ret = (struct crdt_stream_id){ms, seq};
        return ms >= last.ms;
}

/* What `*` and `ms-*` stand for; NULL: the id is explicit, or the server will refuse it. */
static struct redis_string *id_made(struct redis_context *ctx, struct redis_string *key,
                                    const struct redis_string *given)
{
        struct stream_look look;
        struct crdt_stream_id id;
        struct bytes text = plugin_bytes(given);
        bool whole = bytes_equal(text, BYTES("*"));
        uint64_t ms = 0;
        bool half = text.len > 2 && memcmp(text.ptr + text.len - 2, "-*", 2) == 0 &&
                    digits_parse(bytes_of(text.ptr, text.len - 2), UINT64_MAX, &ms);
        if (!whole && !half)
                return NULL;
        stream_look(ctx, key, &look);
        if (whole) {
                ms = plugin_now_ms();
                ms = ms < look.last.ms ? look.last.ms : ms;
        }
        bool fits = id_own(ms, look.last, &id) || (whole && id_own(ms + 1, look.last, &id));
        return fits ? stream_id_string(id) : NULL;
}

static void record_xadd(struct crdt_name name, struct redis_string **argv, int argc, int at,
                        struct redis_reply *reply)
{
        struct crdt_stream_id id;
        size_t count = (size_t)(argc - at - 1);
        if (redis.CallReplyType(reply) != REDIS_REPLY_STRING)
                return;
        if (!stream_id_parse(reply_bytes(reply), &id) || count == 0) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        struct bytes *strings = plugin_array(count, sizeof(*strings), "a stream");
        for (size_t i = 0; i < count; i++)
                strings[i] = plugin_bytes(argv[at + 1 + (int)i]);
        struct keyspace_entry entry = {id, strings, count};
        record_add(name, id, &entry, 1);
        heap_free(&plugin.heap, strings);
}

struct redis_reply *stream_run_xadd(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        bool trims;
        int at = id_at(argv, argc, &trims);
        struct redis_string *given = at < argc ? argv[at] : NULL;
        struct redis_string *made = given == NULL ? NULL : id_made(ctx, argv[1], given);
        if (made != NULL)
                argv[at] = made;
        struct redis_reply *reply = redis.Call(ctx, "XADD", "!0CEv", argv + 1, (size_t)(argc - 1));
        if (reply != NULL && given != NULL) {
                struct crdt_name name = {(uint32_t)redis.GetSelectedDb(ctx), plugin_bytes(argv[1])};
                record_xadd(name, argv, argc, at, reply);
                if (trims && redis.CallReplyType(reply) == REDIS_REPLY_STRING)
                        record_trim(ctx, name, argv[1]);
        }
        if (made != NULL) {
                argv[at] = given;
                redis.FreeString(NULL, made);
        }
        return reply;
}
