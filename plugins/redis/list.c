/* list.c - lists: what this region's clients change, by notification, and how a merge changes them.
 *
 * A notification of a list says which end was touched, or nothing but the key. How many came or
 * went is the difference between the native list and what the keyspace knows, so that no stash is
 * needed: a client that was blocked in BLPOP has none. LINSERT, LSET and LTRIM are explained by
 * their stashed arguments; LREM is wrapped, and what it will take is looked up before it runs.
 * A rotation (LMOVE of a list onto itself) pushes before the pop is told: the lengths are equal
 * then, and the pop that follows records both, in that order: a list of one is never empty.
 *
 * What cannot be explained so makes the key dirty: it is recorded anew as a whole. */
#include "plugin.h"

#include <stdlib.h>
#include <strings.h>

enum {
        VALUES_INLINE = 32,
};

static struct redis_key *open_list(struct redis_context *ctx, struct redis_string *key,
                                   uint64_t *ret_length)
{
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ);
        bool list = open != NULL && redis.KeyType(open) == REDIS_KEY_LIST;
        *ret_length = list ? redis.ValueLength(open) : 0;
        return open;
}

static void close_list(struct redis_key *open)
{
        if (open != NULL)
                redis.CloseKey(open);
}

static void changed(enum err err, const struct keyspace_change *change)
{
        plugin_must(err, "a list");
        local_changed(change);
}

/* Records `count` elements from the `first`-th on as pushed. */
static void record_push(struct crdt_name name, struct redis_key *open, uint64_t first,
                        uint64_t count, bool head)
{
        struct redis_string *inside_strings[VALUES_INLINE];
        struct bytes inside[VALUES_INLINE];
        struct redis_string **strings = inside_strings;
        struct bytes *values = inside;
        if (count > VALUES_INLINE) {
                strings = plugin_array(count, sizeof(struct redis_string *), "a list");
                values = plugin_array(count, sizeof(*values), "a list");
        }
        for (uint64_t i = 0; i < count; i++) {
                strings[i] = redis.ListGet(open, (long)(first + i));
                values[i] = strings[i] == NULL ? bytes_of(NULL, 0) : plugin_bytes(strings[i]);
        }
        struct keyspace_change change;
        changed(keyspace_local_list_push(plugin.keyspace, plugin_stamp_ms(), name, head, values,
                                         count, &change),
                &change);
        for (uint64_t i = 0; i < count; i++)
                if (strings[i] != NULL)
                        redis.FreeString(NULL, strings[i]);
        if (values != inside) {
                heap_free(&plugin.heap, strings);
                heap_free(&plugin.heap, values);
        }
}

static void record_remove(struct crdt_name name, const struct keyspace_range *ranges, size_t count)
{
        struct keyspace_change change;
        changed(keyspace_local_list_remove(plugin.keyspace, plugin_stamp_ms(), name, ranges, count,
                                           &change),
                &change);
}

/* ---- both ends */

/* A push onto the list from which the element has just been popped. */
static struct {
        bool open;
        bool head;
        uint32_t db;
        struct buffer key;
} rotation;

static void rotation_begin(struct crdt_name name, bool head)
{
        if (rotation.key.heap == NULL)
                buffer_init(&rotation.key, &plugin.heap);
        buffer_reset(&rotation.key);
        buffer_bytes(&rotation.key, name.key);
        plugin_must(rotation.key.err, "a list");
        rotation.db = name.db;
        rotation.head = head;
        rotation.open = true;
}

static bool rotation_ends(struct crdt_name name)
{
        bool ends = rotation.open && rotation.db == name.db &&
                    bytes_equal(buffer_view(&rotation.key), name.key);
        rotation.open = false;
        return ends;
}

static void on_push(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                    bool head)
{
        uint64_t length;
        uint64_t known = keyspace_list_length(plugin.keyspace, name);
        struct redis_key *open = open_list(ctx, key, &length);
        rotation.open = false;
        if (length > known)
                record_push(name, open, head ? 0 : known, length - known, head);
        else if (length == known && length > 0)
                rotation_begin(name, head);
        else
                local_dirty(&plugin.dirty, name);
        close_list(open);
}

void list_on_lpush(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        on_push(ctx, name, key, true);
}

void list_on_rpush(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        on_push(ctx, name, key, false);
}

static void on_pop(struct redis_context *ctx, struct crdt_name name, struct redis_string *key,
                   bool head)
{
        uint64_t length;
        uint64_t known = keyspace_list_length(plugin.keyspace, name);
        struct redis_key *open = open_list(ctx, key, &length);
        bool rotated = rotation_ends(name);
        if (length < known) {
                struct keyspace_range range = {head ? 0 : length, known - length};
                record_remove(name, &range, 1);
        } else if (length == known && rotated) {
                struct keyspace_range range = {head ? 0 : known - 1, 1};
                range.index += rotation.head;
                record_push(name, open, rotation.head ? 0 : length - 1, 1, rotation.head);
                record_remove(name, &range, 1);
        } else {
                local_dirty(&plugin.dirty, name);
        }
        close_list(open);
}

void list_on_lpop(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        on_pop(ctx, name, key, true);
}

void list_on_rpop(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        on_pop(ctx, name, key, false);
}

/* ---- by arguments */

static bool stash_is(enum rule_kind kind, const struct redis_string *key)
{
        const struct stash *stash = &plugin.stash;
        return stash->rule != NULL && stash->rule->kind == kind && stash->count >= 3 &&
               stash->arguments[0].string == key;
}

static bool element_is(struct redis_key *open, uint64_t index, struct bytes text)
{
        struct redis_string *element = redis.ListGet(open, (long)index);
        if (element == NULL)
                return false;
        bool same = bytes_equal(plugin_bytes(element), text);
        redis.FreeString(NULL, element);
        return same;
}

/* LINSERT key BEFORE|AFTER pivot value, after it: where the value stands. */
static uint64_t inserted_at(struct redis_key *open, uint64_t length)
{
        struct bytes where = stash_bytes(&plugin.stash, 1);
        struct bytes pivot = stash_bytes(&plugin.stash, 2);
        bool before = where.len == 6 && strncasecmp((const char *)where.ptr, "before", 6) == 0;
        uint64_t at = 0;
        while (at < length && !element_is(open, at, pivot))
                at++;
        if (!before)
                return at + 1;
        /* What was put before the first pivot and looks like one is the first itself. */
        bool same = bytes_equal(stash_bytes(&plugin.stash, 3), pivot);
        return same || at == 0 ? at : at - 1;
}

static void record_insert(struct crdt_name name, struct redis_key *open, uint64_t at,
                          uint64_t length)
{
        struct redis_string *element = at < length ? redis.ListGet(open, (long)at) : NULL;
        if (element == NULL || at == 0 || at + 1 == length) {
                if (element == NULL)
                        local_dirty(&plugin.dirty, name);
                else
                        record_push(name, open, at, 1, at == 0);
        } else {
                struct keyspace_change change;
                enum err err = keyspace_local_list_insert(plugin.keyspace, plugin_stamp_ms(), name,
                                                          at, plugin_bytes(element), &change);
                if (err == ERR_LIMIT)
                        local_dirty(&plugin.dirty, name);
                else
                        changed(err, &change);
        }
        if (element != NULL)
                redis.FreeString(NULL, element);
}

void list_on_linsert(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        uint64_t length;
        uint64_t known = keyspace_list_length(plugin.keyspace, name);
        struct redis_key *open = open_list(ctx, key, &length);
        if (stash_is(RULE_LINSERT, key) && plugin.stash.count == 4 && length == known + 1)
                record_insert(name, open, inserted_at(open, length), length);
        else
                local_dirty(&plugin.dirty, name);
        close_list(open);
}

/* An index as Redis reads it: from the end where it is negative. */
static long long argument_index(unsigned at, uint64_t length)
{
        long long index = 0;
        if (redis.StringToLongLong(plugin.stash.arguments[at].string, &index) != REDIS_OK)
                return -1;
        return index < 0 ? index + (long long)length : index;
}

void list_on_lset(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        uint64_t length;
        struct redis_key *open = open_list(ctx, key, &length);
        struct redis_string *element = NULL;
        long long index = -1;
        if (stash_is(RULE_LSET, key) && length == keyspace_list_length(plugin.keyspace, name)) {
                index = argument_index(1, length);
                if (index >= 0 && (uint64_t)index < length)
                        element = redis.ListGet(open, (long)index);
        }
        if (element == NULL) {
                local_dirty(&plugin.dirty, name);
        } else {
                struct keyspace_change change;
                changed(keyspace_local_list_set(plugin.keyspace, plugin_stamp_ms(), name,
                                                (uint64_t)index, plugin_bytes(element), &change),
                        &change);
                redis.FreeString(NULL, element);
        }
        close_list(open);
}

void list_on_ltrim(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        uint64_t length;
        uint64_t known = keyspace_list_length(plugin.keyspace, name);
        close_list(open_list(ctx, key, &length));
        if (!stash_is(RULE_LTRIM, key) || length > known) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        long long start = argument_index(1, known);
        start = start < 0 ? 0 : start;
        uint64_t before = length == 0 ? known : (uint64_t)start;
        if (before > known - length) {
                local_dirty(&plugin.dirty, name);
                return;
        }
        struct keyspace_range ranges[] = {{0, before}, {before + length, known - before - length}};
        record_remove(name, ranges, COUNT_OF(ranges));
}

/* ---- LREM */

static struct {
        struct keyspace_range *ranges;
        size_t count;
        size_t size;
        uint64_t elements;
} taken;

static void taken_add(uint64_t index)
{
        taken.elements++;
        if (taken.count > 0) {
                struct keyspace_range *last = &taken.ranges[taken.count - 1];
                if (last->index + last->count == index) {
                        last->count++;
                        return;
                }
                if (last->index == index + 1) {
                        last->index--;
                        last->count++;
                        return;
                }
        }
        if (taken.count == taken.size) {
                taken.size = taken.size == 0 ? 16 : taken.size * 2;
                taken.ranges =
                        plugin_resize(taken.ranges, taken.size, sizeof(*taken.ranges), "a list");
        }
        taken.ranges[taken.count++] = (struct keyspace_range){index, 1};
}

static void taken_turn(void)
{
        for (size_t i = 0; i < taken.count / 2; i++) {
                struct keyspace_range range = taken.ranges[i];
                taken.ranges[i] = taken.ranges[taken.count - 1 - i];
                taken.ranges[taken.count - 1 - i] = range;
        }
}

void list_before_lrem(struct redis_context *ctx, struct redis_string **argv)
{
        uint64_t length;
        long long limit = 0;
        taken.count = 0;
        taken.elements = 0;
        if (redis.StringToLongLong(argv[2], &limit) != REDIS_OK)
                return;
        struct redis_key *open = open_list(ctx, argv[1], &length);
        bool back = limit < 0;
        uint64_t most = limit == 0 ? UINT64_MAX : back ? 0 - (uint64_t)limit : (uint64_t)limit;
        struct bytes text = plugin_bytes(argv[3]);
        for (uint64_t i = 0; i < length && taken.elements < most; i++) {
                uint64_t index = back ? length - 1 - i : i;
                if (element_is(open, index, text))
                        taken_add(index);
        }
        if (back)
                taken_turn();
        close_list(open);
}

void list_on_lrem(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        uint64_t length;
        uint64_t known = keyspace_list_length(plugin.keyspace, name);
        close_list(open_list(ctx, key, &length));
        if (stash_is(RULE_LREM, key) && length + taken.elements == known)
                record_remove(name, taken.ranges, taken.count);
        else
                local_dirty(&plugin.dirty, name);
        heap_free(&plugin.heap, taken.ranges);
        taken.ranges = NULL;
        taken.count = taken.size = 0;
        taken.elements = 0;
}

/* ---- the whole */

void list_record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key)
{
        enum {
                PART = 4096,
        };
        uint64_t length;
        struct redis_key *open = open_list(ctx, key, &length);
        replace_forget(name);
        for (uint64_t first = 0; first < length; first += PART)
                record_push(name, open, first, length - first < PART ? length - first : PART,
                            false);
        close_list(open);
}

/* ---- a merge. While it is read the list stays open, for it remembers where it is. To change it is
 * opened for each change: what a server remembers of its place does not survive all of them. */

static struct {
        struct redis_key *open;
        struct redis_string *key;
        uint32_t db;
        struct redis_string *element; /* that was read last */
} native;

void list_native_close(void)
{
        if (native.element != NULL)
                redis.FreeString(NULL, native.element);
        if (native.open != NULL)
                redis.CloseKey(native.open);
        if (native.key != NULL)
                redis.FreeString(NULL, native.key);
        native.open = NULL;
        native.key = NULL;
        native.element = NULL;
}

static struct redis_string *string_of(struct bytes text)
{
        return redis.CreateString(NULL, text.len == 0 ? "" : (const char *)text.ptr, text.len);
}

/* One change: `call` gets the list, open for writing. */
static void with_list(struct crdt_name name, uint64_t index, struct redis_string *element,
                      int (*call)(struct redis_key *open, long index, struct redis_string *element))
{
        struct redis_context *ctx = native_context();
        list_native_close();
        zset_native_close();
        redis.SelectDb(ctx, (int)name.db);
        struct redis_string *key = string_of(name.key);
        struct redis_key *open = redis.OpenKey(ctx, key, REDIS_READ | REDIS_WRITE);
        call(open, (long)index, element);
        redis.CloseKey(open);
        redis.FreeString(NULL, key);
}

static int call_insert(struct redis_key *open, long index, struct redis_string *element)
{
        return redis.ListInsert(open, index, element);
}

static int call_delete(struct redis_key *open, long index, struct redis_string *element)
{
        (void)element;
        return redis.ListDelete(open, index);
}

static int call_set(struct redis_key *open, long index, struct redis_string *element)
{
        return redis.ListSet(open, index, element);
}

void list_native_insert(void *context, struct crdt_name name, uint64_t index, struct bytes value)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *element = string_of(value);
        with_list(name, index, element, call_insert);
        redis.FreeString(NULL, element);
        notify_list(name, notify_pushed());
}

/* The end of a list goes in one command, which tells it. */
static void native_trim_end(struct crdt_name name, bool head, uint64_t count)
{
        struct redis_context *ctx = native_context();
        long long from = head ? (long long)count : 0;
        long long to = head ? -1 : -(long long)count - 1;
        list_native_close();
        redis.SelectDb(ctx, (int)name.db);
        struct redis_reply *reply =
                redis.Call(ctx, "LTRIM", "bll", name.key.len == 0 ? "" : (const char *)name.key.ptr,
                           name.key.len, from, to);
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static uint64_t native_length(struct crdt_name name)
{
        uint64_t length;
        struct redis_context *ctx = native_context();
        redis.SelectDb(ctx, (int)name.db);
        struct redis_string *key = string_of(name.key);
        close_list(open_list(ctx, key, &length));
        redis.FreeString(NULL, key);
        return length;
}

void list_native_remove(void *context, struct crdt_name name, uint64_t index, uint64_t count)
{
        (void)context;
        if (plugin.quiet)
                return;
        bool wanted = notify_wanted();
        bool head = index == 0;
        bool tail = (count > 1 || wanted) && index + count == native_length(name);
        if (count > 1 && (head || tail)) {
                native_trim_end(name, head, count);
                return;
        }
        for (uint64_t i = count; i > 0; i--)
                with_list(name, index + i - 1, NULL, call_delete);
        if (wanted)
                notify_list(name, head ? NOTIFY_LPOP : tail ? NOTIFY_RPOP : NOTIFY_LREM);
}

void list_native_set(void *context, struct crdt_name name, uint64_t index, struct bytes value)
{
        (void)context;
        if (plugin.quiet)
                return;
        struct redis_string *element = string_of(value);
        with_list(name, index, element, call_set);
        redis.FreeString(NULL, element);
        notify_list(name, NOTIFY_LSET);
}

bool list_native_get(void *context, struct crdt_name name, uint64_t index, struct bytes *ret)
{
        (void)context;
        bool same = native.key != NULL && native.db == name.db &&
                    bytes_equal(plugin_bytes(native.key), name.key);
        if (!same) {
                list_native_close();
                zset_native_close();
                redis.SelectDb(native_context(), (int)name.db);
                native.key = string_of(name.key);
                native.db = name.db;
                native.open = redis.OpenKey(native_context(), native.key, REDIS_READ);
        }
        if (native.element != NULL)
                redis.FreeString(NULL, native.element);
        native.element = NULL;
        if (native.open != NULL && redis.KeyType(native.open) == REDIS_KEY_LIST)
                native.element = redis.ListGet(native.open, (long)index);
        if (native.element == NULL)
                return false;
        *ret = plugin_bytes(native.element);
        return true;
}
