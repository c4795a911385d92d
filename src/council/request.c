/* Requests and replies as bytes: one pair of functions a kind, from a table. */
#include "council/request.h"

#include "base/cursor.h"
#include "kv/kv.h"
#include "lock/lock.h"

enum {
        REQUEST_VERSION = 1,
        REQUEST_VERSION_MODES = 2,
        REQUEST_VERSION_SETS = 3,
        REPLY_VERSION = 1,
        WATCH_MORE = 1, /* flags of a watch's answer */
        WATCH_COPY = 2,
};

/* Too long by some, as names are. */
#define ALSO_BYTES_MAX ((size_t)2 * LOCK_SET_MAX * (LOCK_KEY_BYTES_MAX + 2))

static struct bytes text_decode(struct cursor *cursor, size_t max)
{
        struct bytes text = cursor_slice(cursor);
        if (text.len > max)
                cursor_fail(cursor, ERR_MALFORMED);
        return text;
}

/* Lock keys and owners may be too long here by some, so that the lock table can say so. */
static struct bytes name_decode(struct cursor *cursor)
{
        return text_decode(cursor, (size_t)4 * LOCK_KEY_BYTES_MAX);
}

static void lock_request_encode(const struct request *request, struct buffer *out)
{
        buffer_slice(out, request->lock.key);
        buffer_slice(out, request->lock.owner);
        buffer_varint(out, request->lock.token);
        buffer_varint(out, request->lock.ttl_ms);
        buffer_varint(out, request->lock.wait_ms);
        buffer_slice(out, request->lock.actor);
}

static void lock_request_decode(struct cursor *cursor, struct request *ret)
{
        ret->lock.key = name_decode(cursor);
        ret->lock.owner = name_decode(cursor);
        ret->lock.token = cursor_varint(cursor);
        ret->lock.ttl_ms = cursor_varint(cursor);
        ret->lock.wait_ms = cursor_varint(cursor);
        ret->lock.actor = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
}

static void list_request_encode(const struct request *request, struct buffer *out)
{
        buffer_slice(out, request->list.key);
        buffer_varint(out, request->list.after);
        buffer_varint(out, request->list.limit);
}

static void list_request_decode(struct cursor *cursor, struct request *ret)
{
        ret->list.key = name_decode(cursor);
        ret->list.after = cursor_varint(cursor);
        ret->list.limit = cursor_varint_max(cursor, REQUEST_LIST_MAX);
        if (ret->list.limit == 0)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void topology_request_encode(const struct request *request, struct buffer *out)
{
        buffer_varint(out, request->topology.epoch);
        buffer_slice(out, request->topology.document);
        buffer_slice(out, request->topology.actor);
}

static void topology_request_decode(struct cursor *cursor, struct request *ret)
{
        ret->topology.epoch = cursor_varint(cursor);
        ret->topology.document = text_decode(cursor, REQUEST_DOCUMENT_BYTES_MAX);
        ret->topology.actor = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
}

static void region_request_encode(const struct request *request, struct buffer *out)
{
        buffer_slice(out, request->region.region);
        buffer_u8(out, (uint8_t)request->region.action);
        buffer_slice(out, request->region.actor);
        buffer_slice(out, request->region.why);
}

static void region_request_decode(struct cursor *cursor, struct request *ret)
{
        ret->region.region = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
        uint8_t action = cursor_u8(cursor);
        ret->region.actor = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
        ret->region.why = text_decode(cursor, REQUEST_TEXT_BYTES_MAX);
        if (ret->region.region.len == 0 || action < REQUEST_DRAIN || action >= REQUEST_ACTION_COUNT)
                cursor_fail(cursor, ERR_MALFORMED);
        else
                ret->region.action = (enum request_action)action;
}

static void reply_lock_encode(const struct reply_lock *lock, struct buffer *out)
{
        buffer_slice(out, lock->key);
        buffer_slice(out, lock->owner);
        buffer_varint(out, lock->token);
        buffer_varint(out, lock->ttl_ms);
        buffer_varint(out, lock->waiters);
}

static struct reply_lock reply_lock_decode(struct cursor *cursor)
{
        struct reply_lock lock = {0};
        lock.key = name_decode(cursor);
        lock.owner = name_decode(cursor);
        lock.token = cursor_varint(cursor);
        lock.ttl_ms = cursor_varint(cursor);
        lock.waiters = cursor_varint(cursor);
        return lock;
}

/* Where a list of locks goes. */
struct list_room {
        struct reply_lock *items;
        size_t size;
};

static void lock_reply_encode(const struct reply *reply, struct buffer *out)
{
        reply_lock_encode(&reply->lock, out);
}

static void lock_reply_decode(struct cursor *cursor, struct reply *ret,
                              const struct list_room *room)
{
        (void)room;
        ret->lock = reply_lock_decode(cursor);
}

static void list_reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_varint(out, reply->list.count);
        for (size_t i = 0; i < reply->list.count; i++)
                reply_lock_encode(&reply->list.items[i], out);
        buffer_varint(out, reply->list.next);
}

static void list_reply_decode(struct cursor *cursor, struct reply *ret,
                              const struct list_room *room)
{
        size_t count = (size_t)cursor_varint_max(cursor, REQUEST_LIST_MAX);
        if (count > 0 && (room->items == NULL || count > room->size)) {
                cursor_fail(cursor, ERR_MALFORMED);
                return;
        }
        for (size_t i = 0; i < count && !cursor_failed(cursor); i++)
                room->items[i] = reply_lock_decode(cursor);
        ret->list.items = room->items;
        ret->list.count = count;
        ret->list.next = cursor_varint(cursor);
}

static void topology_reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_varint(out, reply->topology.epoch);
        buffer_slice(out, reply->topology.document);
}

static void topology_reply_decode(struct cursor *cursor, struct reply *ret,
                                  const struct list_room *room)
{
        (void)room;
        ret->topology.epoch = cursor_varint(cursor);
        ret->topology.document = text_decode(cursor, REQUEST_DOCUMENT_BYTES_MAX);
}

static void region_reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_u8(out, reply->region.state);
}

static void region_reply_decode(struct cursor *cursor, struct reply *ret,
                                const struct list_room *room)
{
        (void)room;
        ret->region.state = cursor_u8(cursor);
}

static void postgres_request_encode(const struct request *request, struct buffer *out)
{
        buffer_u8(out, (uint8_t)request->postgres.wish);
        buffer_slice(out, request->postgres.target);
        buffer_slice(out, request->postgres.actor);
}

static void postgres_request_decode(struct cursor *cursor, struct request *ret)
{
        uint8_t wish = cursor_u8(cursor);
        ret->postgres.target = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
        ret->postgres.actor = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
        if (wish < REQUEST_SWITCHOVER || wish >= REQUEST_POSTGRES_COUNT)
                cursor_fail(cursor, ERR_MALFORMED);
        else
                ret->postgres.wish = (enum request_postgres)wish;
}

static void postgres_reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_varint(out, reply->postgres.node);
}

static void postgres_reply_decode(struct cursor *cursor, struct reply *ret,
                                  const struct list_room *room)
{
        (void)room;
        ret->postgres.node = (uint32_t)cursor_varint_max(cursor, UINT32_MAX);
}

static void kv_request_encode(const struct request *request, struct buffer *out)
{
        buffer_slice(out, request->kv.key);
        buffer_slice(out, request->kv.txn);
        buffer_slice(out, request->kv.actor);
        buffer_varint(out, request->kv.after);
        buffer_varint(out, request->kv.wait_ms);
        buffer_u8(out, request->kv.stale);
}

static void kv_request_decode(struct cursor *cursor, struct request *ret)
{
        ret->kv.key = name_decode(cursor);
        ret->kv.txn = text_decode(cursor, KV_TXN_BYTES_MAX);
        ret->kv.actor = text_decode(cursor, REQUEST_NAME_BYTES_MAX);
        ret->kv.after = cursor_varint(cursor);
        ret->kv.wait_ms = cursor_varint(cursor);
        uint8_t stale = cursor_u8(cursor);
        if (stale > 1)
                cursor_fail(cursor, ERR_MALFORMED);
        ret->kv.stale = stale == 1;
}

static void kv_reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_slice(out, reply->kv.result);
}

static void kv_reply_decode(struct cursor *cursor, struct reply *ret, const struct list_room *room)
{
        struct kv_reading reading;
        (void)room;
        ret->kv.result = cursor_slice(cursor);
        if (!cursor_failed(cursor) && kv_result_open(ret->kv.result, &reading) != ERR_NONE)
                cursor_fail(cursor, ERR_MALFORMED);
}

static void watch_reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_slice(out, reply->watch.changes);
        buffer_varint(out, reply->watch.revision);
        buffer_u8(out, (uint8_t)((reply->watch.more ? WATCH_MORE : 0u) |
                                 (reply->watch.copy ? WATCH_COPY : 0u)));
        if (!reply->watch.copy)
                return;
        buffer_varint(out, reply->watch.known);
        buffer_varint(out, reply->watch.age_ms);
}

static void watch_reply_decode(struct cursor *cursor, struct reply *ret,
                               const struct list_room *room)
{
        struct lock_event event;
        (void)room;
        ret->watch.changes = cursor_slice(cursor);
        struct cursor changes = cursor_of(ret->watch.changes);
        while (lock_change_decode(&changes, &event))
                continue;
        ret->watch.revision = cursor_varint(cursor);
        uint8_t flags = cursor_u8(cursor);
        if (flags > (WATCH_MORE | WATCH_COPY) || cursor_done(&changes) != ERR_NONE)
                cursor_fail(cursor, ERR_MALFORMED);
        ret->watch.more = (flags & WATCH_MORE) != 0;
        ret->watch.copy = (flags & WATCH_COPY) != 0;
        if (!ret->watch.copy)
                return;
        ret->watch.known = cursor_varint(cursor);
        ret->watch.age_ms = cursor_varint(cursor);
}

static void nothing_encode(const struct request *request, struct buffer *out)
{
        (void)request;
        (void)out;
}

static void nothing_decode(struct cursor *cursor, struct request *ret)
{
        (void)cursor;
        (void)ret;
}

#define LOCK_FORMAT                                                                                \
        {                                                                                          \
                lock_request_encode, lock_request_decode, lock_reply_encode, lock_reply_decode     \
        }

#define KV_FORMAT                                                                                  \
        {                                                                                          \
                kv_request_encode, kv_request_decode, kv_reply_encode, kv_reply_decode             \
        }

static const struct format {
        void (*request_encode)(const struct request *request, struct buffer *out);
        void (*request_decode)(struct cursor *cursor, struct request *ret);
        void (*reply_encode)(const struct reply *reply, struct buffer *out);
        void (*reply_decode)(struct cursor *cursor, struct reply *ret,
                             const struct list_room *room);
} formats[REQUEST_KIND_COUNT] = {
        [REQUEST_LOCK_ACQUIRE] = LOCK_FORMAT,
        [REQUEST_LOCK_RENEW] = LOCK_FORMAT,
        [REQUEST_LOCK_RELEASE] = LOCK_FORMAT,
        [REQUEST_LOCK_INFO] = LOCK_FORMAT,
        [REQUEST_LOCK_BREAK] = LOCK_FORMAT,
        [REQUEST_LOCK_LOOK] = LOCK_FORMAT,
        [REQUEST_LOCK_SEIZE] = LOCK_FORMAT,
        [REQUEST_SESSION_OPEN] = LOCK_FORMAT,
        [REQUEST_SESSION_KEEP] = LOCK_FORMAT,
        [REQUEST_SESSION_CLOSE] = LOCK_FORMAT,
        [REQUEST_KV] = KV_FORMAT,
        [REQUEST_KV_WATCH] = KV_FORMAT,
        [REQUEST_LOCK_WATCH] = {lock_request_encode, lock_request_decode, watch_reply_encode,
                                watch_reply_decode},
        [REQUEST_LOCK_LIST] = {list_request_encode, list_request_decode, list_reply_encode,
                               list_reply_decode},
        [REQUEST_TOPOLOGY_GET] = {nothing_encode, nothing_decode, topology_reply_encode,
                                  topology_reply_decode},
        [REQUEST_TOPOLOGY_APPLY] = {topology_request_encode, topology_request_decode,
                                    topology_reply_encode, topology_reply_decode},
        [REQUEST_REGION] = {region_request_encode, region_request_decode, region_reply_encode,
                            region_reply_decode},
        [REQUEST_POSTGRES] = {postgres_request_encode, postgres_request_decode,
                              postgres_reply_encode, postgres_reply_decode},
};

static bool is_lock(enum request_kind kind)
{
        return formats[kind].request_encode == lock_request_encode;
}

static bool is_kv(enum request_kind kind)
{
        return formats[kind].request_encode == kv_request_encode;
}

static bool is_old(const struct request *request)
{
        if (is_kv(request->kind))
                return false;
        if (!is_lock(request->kind))
                return true;
        return request->kind <= REQUEST_REGION && request->lock.slots == 0 &&
               request->lock.flags == 0 && request->lock.delay_ms == 0 &&
               request->lock.session == 0;
}

void request_encode(const struct request *request, struct buffer *out)
{
        bool old = is_old(request);
        bool sets = is_lock(request->kind) && request->lock.also.len > 0;
        buffer_u8(out, sets ? REQUEST_VERSION_SETS : old ? REQUEST_VERSION : REQUEST_VERSION_MODES);
        buffer_u8(out, (uint8_t)request->kind);
        formats[request->kind].request_encode(request, out);
        if (!is_lock(request->kind) || (old && !sets))
                return;
        buffer_varint(out, request->lock.slots);
        buffer_varint(out, request->lock.flags);
        buffer_varint(out, request->lock.delay_ms);
        buffer_varint(out, request->lock.session);
        if (sets)
                buffer_slice(out, request->lock.also);
}

enum err request_decode(struct bytes data, struct request *ret)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t kind = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        bool old = version == REQUEST_VERSION;
        bool sets = version == REQUEST_VERSION_SETS;
        if (!old && !sets && version != REQUEST_VERSION_MODES)
                return ERR_VERSION;
        if (kind < REQUEST_LOCK_ACQUIRE || kind >= REQUEST_KIND_COUNT ||
            (old ? kind > REQUEST_POSTGRES
                 : !is_lock((enum request_kind)kind) && !is_kv((enum request_kind)kind)) ||
            (sets && kind != REQUEST_LOCK_ACQUIRE))
                return ERR_MALFORMED;
        struct request request = {.kind = (enum request_kind)kind};
        formats[kind].request_decode(&cursor, &request);
        if (!old && is_lock(request.kind)) {
                request.lock.slots = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
                request.lock.flags = (uint32_t)cursor_varint_max(&cursor, UINT32_MAX);
                request.lock.delay_ms = cursor_varint(&cursor);
                request.lock.session = cursor_varint(&cursor);
        }
        if (sets)
                request.lock.also = text_decode(&cursor, ALSO_BYTES_MAX);
        if (sets && request.lock.also.len == 0)
                return ERR_MALFORMED;
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = request;
        return err;
}

/* Does this reply carry the body of its kind? */
static bool reply_has_body(enum request_kind kind, enum reply_code code)
{
        if (code == REPLY_OK)
                return true;
        return code == REPLY_HELD && formats[kind].reply_encode == lock_reply_encode;
}

void reply_encode(const struct reply *reply, struct buffer *out)
{
        buffer_u8(out, REPLY_VERSION);
        buffer_u8(out, (uint8_t)reply->kind);
        buffer_u8(out, (uint8_t)reply->code);
        struct bytes text = reply->text;
        if (text.len > REQUEST_TEXT_BYTES_MAX)
                text.len = REQUEST_TEXT_BYTES_MAX;
        buffer_slice(out, text);
        if (reply_has_body(reply->kind, reply->code))
                formats[reply->kind].reply_encode(reply, out);
}

enum err reply_decode(struct bytes data, struct reply *ret, struct reply_lock *items,
                      size_t items_size)
{
        struct cursor cursor = cursor_of(data);
        uint8_t version = cursor_u8(&cursor);
        uint8_t kind = cursor_u8(&cursor);
        uint8_t code = cursor_u8(&cursor);
        if (cursor_failed(&cursor))
                return ERR_TRUNCATED;
        if (version != REPLY_VERSION)
                return ERR_VERSION;
        if (kind < REQUEST_LOCK_ACQUIRE || kind >= REQUEST_KIND_COUNT || code >= REPLY_CODE_COUNT)
                return ERR_MALFORMED;
        struct reply reply = {.kind = (enum request_kind)kind, .code = (enum reply_code)code};
        struct list_room room = {.items = items, .size = items_size};
        reply.text = text_decode(&cursor, REQUEST_TEXT_BYTES_MAX);
        if (reply_has_body(reply.kind, reply.code))
                formats[kind].reply_decode(&cursor, &reply, &room);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE)
                *ret = reply;
        return err;
}

static const struct code_row {
        const char *word;
        int http;
} code_rows[REPLY_CODE_COUNT] = {
#define REPLY_ROW(name, said, status) [name] = {said, status},
        REPLY_CODE_LIST(REPLY_ROW)
#undef REPLY_ROW
};

const char *reply_code_word(enum reply_code code)
{
        return (unsigned)code < REPLY_CODE_COUNT ? code_rows[code].word : "INTERNAL";
}

int reply_code_http(enum reply_code code)
{
        return (unsigned)code < REPLY_CODE_COUNT ? code_rows[code].http : 500;
}
