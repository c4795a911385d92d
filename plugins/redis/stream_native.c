/* stream_native.c - how a merge changes a stream. The server adds entries at the end alone, so
 * those that come are gathered, key by key, and put together: where one is older than the last, the
 * younger ones are taken out and added again with it, once for all that were gathered. Ids, fields
 * and the groups with what is pending in them stay as they are. Removals are gathered, too: one
 * command takes many. */
#include "plugin.h"

#include <stdlib.h>

enum {
        GONE_MAX = 256, /* in one command */
};

struct gathered {
        struct crdt_stream_id id;
        size_t at; /* of its fields in `fields` */
        size_t len;
};

static struct {
        bool open;
        uint32_t db;
        struct buffer key;
        struct buffer fields;
        struct gathered *entries;
        size_t count;
        size_t size;
        struct redis_string *gone[GONE_MAX]; /* ids that go, where none come */
        size_t gone_count;
        struct buffer text; /* that was read last */
} native;

static const struct crdt_stream_id none;

static struct redis_string *string_of(struct bytes text)
{
        return redis.CreateString(NULL, text.len == 0 ? "" : (const char *)text.ptr, text.len);
}

static void drop_reply(struct redis_reply *reply)
{
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static struct redis_string *open_name(struct crdt_name name)
{
        list_native_close();
        zset_native_close();
        redis.SelectDb(native_context(), (int)name.db);
        return string_of(name.key);
}

static int gathered_compare(const void *a, const void *b)
{
        struct crdt_stream_id x = ((const struct gathered *)a)->id;
        struct crdt_stream_id y = ((const struct gathered *)b)->id;
        if (x.ms != y.ms)
                return x.ms < y.ms ? -1 : 1;
        return (x.seq > y.seq) - (x.seq < y.seq);
}

static void gather(struct crdt_stream_id id, struct bytes fields)
{
        if (native.count == native.size) {
                native.size = native.size == 0 ? 64 : native.size * 2;
                native.entries = plugin_resize(native.entries, native.size, sizeof(*native.entries),
                                               "a stream");
        }
        native.entries[native.count++] = (struct gathered){id, native.fields.len, fields.len};
        buffer_bytes(&native.fields, fields);
        plugin_must(native.fields.err, "a stream");
}

static void add_one(struct redis_string *key, const struct gathered *one)
{
        struct cursor cursor = cursor_of(bytes_of(native.fields.ptr + one->at, one->len));
        uint64_t count = cursor_varint(&cursor);
        struct redis_string **words =
                plugin_array((size_t)count + 1, sizeof(struct redis_string *), "a stream");
        words[0] = stream_id_string(one->id);
        for (uint64_t i = 1; i <= count; i++)
                words[i] = string_of(cursor_slice(&cursor));
        drop_reply(redis.Call(native_context(), "XADD", "sv", key, words, (size_t)count + 1));
        for (uint64_t i = 0; i <= count; i++)
                redis.FreeString(NULL, words[i]);
        heap_free(&plugin.heap, words);
}

/* The fields of an entry of an XRANGE reply, as the keyspace has them. */
static void fields_encode(struct redis_reply *fields, struct buffer *buffer)
{
        size_t count = redis.CallReplyLength(fields);
        buffer_varint(buffer, count);
        for (size_t i = 0; i < count; i++) {
                size_t len = 0;
                const char *text =
                        redis.CallReplyStringPtr(redis.CallReplyArrayElement(fields, i), &len);
                buffer_slice(buffer, bytes_of(text, len));
        }
}

/* What is younger than `first` goes out of the stream and is gathered too. */
static void take_tail(struct redis_string *key, struct crdt_stream_id first)
{
        struct redis_context *ctx = native_context();
        struct redis_string *from = stream_id_string(first);
        struct redis_reply *reply = redis.Call(ctx, "XRANGE", "ssc", key, from, "+");
        redis.FreeString(NULL, from);
        bool there = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY;
        size_t count = there ? redis.CallReplyLength(reply) : 0;
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ | REDIS_WRITE);
        struct buffer fields;
        buffer_init(&fields, &plugin.heap);
        for (size_t i = 0; i < count; i++) {
                struct redis_reply *one = redis.CallReplyArrayElement(reply, i);
                size_t len = 0;
                const char *text =
                        redis.CallReplyStringPtr(redis.CallReplyArrayElement(one, 0), &len);
                struct crdt_stream_id id = {0};
                stream_id_parse(bytes_of(text, len), &id);
                buffer_reset(&fields);
                fields_encode(redis.CallReplyArrayElement(one, 1), &fields);
                plugin_must(fields.err, "a stream");
                gather(id, buffer_view(&fields));
                struct redis_stream_id raw = {id.ms, id.seq};
                redis.StreamDelete(open, &raw);
        }
        buffer_fini(&fields);
        redis.CloseKey(open);
        drop_reply(reply);
}

/* `deleted`: 0-0 leaves what is. */
static void set_id(struct redis_string *key, struct crdt_stream_id id, uint64_t added,
                   struct crdt_stream_id deleted)
{
        struct redis_string *text = stream_id_string(id);
        struct redis_string *limit = stream_id_string(deleted);
        if (deleted.ms == 0 && deleted.seq == 0)
                drop_reply(redis.Call(native_context(), "XSETID", "sscl", key, text, "ENTRIESADDED",
                                      (long long)added));
        else
                drop_reply(redis.Call(native_context(), "XSETID", "ssclcs", key, text,
                                      "ENTRIESADDED", (long long)added, "MAXDELETEDID", limit));
        redis.FreeString(NULL, limit);
        redis.FreeString(NULL, text);
}

/* The last id may not go below the largest that was deleted: that goes first. */
static void put_back(struct redis_string *key, struct crdt_stream_id id,
                     const struct stream_look *look)
{
        bool deleted = look->deleted.ms != 0 || look->deleted.seq != 0;
        if (deleted && id.ms == 0 && id.seq == 0 && stream_begin_again(key))
                return;
        if (deleted)
                set_id(key, look->last, look->added, (struct crdt_stream_id){0, 1});
        set_id(key, id, look->added, none);
}

static void put_gathered(struct redis_string *key)
{
        struct stream_look look;
        uint64_t come = native.count;
        stream_look(native_context(), key, &look);
        qsort(native.entries, native.count, sizeof(*native.entries), gathered_compare);
        struct gathered last = {.id = look.last};
        struct crdt_stream_id first = native.entries[0].id;
        bool late = gathered_compare(&native.entries[0], &last) <= 0;
        if (late) {
                take_tail(key, first);
                qsort(native.entries, native.count, sizeof(*native.entries), gathered_compare);
                put_back(key, stream_id_previous(first), &look);
        }
        for (size_t i = 0; i < native.count; i++)
                add_one(key, &native.entries[i]);
        if (!late)
                return;
        struct gathered newest = native.entries[native.count - 1];
        set_id(key, gathered_compare(&newest, &last) < 0 ? look.last : newest.id, look.added + come,
               look.deleted);
}

static void take_gathered(void)
{
        struct redis_string *key =
                open_name((struct crdt_name){native.db, buffer_view(&native.key)});
        drop_reply(redis.Call(native_context(), "XDEL", "sv", key, native.gone, native.gone_count));
        for (size_t i = 0; i < native.gone_count; i++)
                redis.FreeString(NULL, native.gone[i]);
        native.gone_count = 0;
        redis.FreeString(NULL, key);
}

void stream_native_close(void)
{
        if (!native.open)
                return;
        native.open = false;
        if (native.count > 0) {
                struct redis_string *key =
                        open_name((struct crdt_name){native.db, buffer_view(&native.key)});
                put_gathered(key);
                redis.FreeString(NULL, key);
        }
        if (native.gone_count > 0)
                take_gathered();
        native.count = 0;
        buffer_reset(&native.fields);
}

/* The key that follows calls are about. */
static void gather_for(struct crdt_name name)
{
        if (native.key.heap == NULL) {
                buffer_init(&native.key, &plugin.heap);
                buffer_init(&native.fields, &plugin.heap);
        }
        if (native.open && native.db == name.db && bytes_equal(buffer_view(&native.key), name.key))
                return;
        stream_native_close();
        buffer_reset(&native.key);
        buffer_bytes(&native.key, name.key);
        plugin_must(native.key.err, "a stream");
        native.db = name.db;
        native.open = true;
}

void stream_native_add(void *context, struct crdt_name name, struct crdt_stream_id id,
                       struct bytes fields)
{
        (void)context;
        if (plugin.quiet || fields.len == 0)
                return;
        if (native.gone_count > 0)
                stream_native_close();
        gather_for(name);
        gather(id, fields);
}

void stream_native_remove(void *context, struct crdt_name name, struct crdt_stream_id id)
{
        (void)context;
        if (plugin.quiet)
                return;
        if (native.count > 0 || native.gone_count == GONE_MAX)
                stream_native_close();
        gather_for(name);
        native.gone[native.gone_count++] = stream_id_string(id);
}

bool stream_native_get(void *context, struct crdt_name name, struct crdt_stream_id id,
                       struct bytes *ret)
{
        (void)context;
        stream_native_close();
        if (native.text.heap == NULL)
                buffer_init(&native.text, &plugin.heap);
        struct redis_string *key = open_name(name);
        struct redis_string *text = stream_id_string(id);
        struct redis_reply *reply = redis.Call(native_context(), "XRANGE", "sss", key, text, text);
        bool there = reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY &&
                     redis.CallReplyLength(reply) == 1;
        if (there) {
                buffer_reset(&native.text);
                fields_encode(redis.CallReplyArrayElement(redis.CallReplyArrayElement(reply, 0), 1),
                              &native.text);
                plugin_must(native.text.err, "a stream");
                *ret = buffer_view(&native.text);
        }
        drop_reply(reply);
        redis.FreeString(NULL, text);
        redis.FreeString(NULL, key);
        return there;
}

/* A stream without entries comes from a group that goes again. */
void stream_native_make(void *context, struct crdt_name name)
{
        (void)context;
        if (plugin.quiet)
                return;
        stream_native_close();
        struct redis_string *key = open_name(name);
        drop_reply(redis.Call(native_context(), "XGROUP", "csccc", "CREATE", key, "meridian", "$",
                              "MKSTREAM"));
        drop_reply(redis.Call(native_context(), "XGROUP", "csc", "DESTROY", key, "meridian"));
        redis.FreeString(NULL, key);
}

void stream_native_raise(void *context, struct crdt_name name, struct crdt_stream_id last)
{
        struct stream_look look;
        (void)context;
        if (plugin.quiet)
                return;
        stream_native_close();
        struct redis_string *key = open_name(name);
        struct gathered a = {.id = last};
        bool there = stream_look(native_context(), key, &look);
        struct gathered b = {.id = look.last};
        if (there && gathered_compare(&a, &b) > 0)
                set_id(key, last, look.added, none);
        redis.FreeString(NULL, key);
}
