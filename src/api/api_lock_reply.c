/* api_lock_reply.c - the node's answers in RESP. */
#include "api/api_door.h"

static void write_info(struct buffer *out, int protocol, const struct reply_lock *lock)
{
        resp_write_map(out, protocol, 5);
        resp_write_bulk(out, BYTES("key"));
        resp_write_bulk(out, lock->key);
        resp_write_bulk(out, BYTES("owner"));
        resp_write_bulk(out, lock->owner);
        resp_write_bulk(out, BYTES("token"));
        resp_write_integer(out, lock->token);
        resp_write_bulk(out, BYTES("ttl_ms"));
        resp_write_integer(out, lock->ttl_ms);
        resp_write_bulk(out, BYTES("waiters"));
        resp_write_integer(out, lock->waiters);
}

/* [revision, more, [[change, key, owner, token, revision]...]], of a copy also its last revision,
 * and how long ago its region was heard. */
static void write_watch(struct buffer *out, const struct reply *reply)
{
        struct lock_event event;
        size_t count = 0;
        struct cursor cursor = cursor_of(reply->watch.changes);
        while (lock_change_decode(&cursor, &event))
                count++;
        resp_write_array(out, reply->watch.copy ? 5 : 3);
        resp_write_integer(out, reply->watch.revision);
        resp_write_integer(out, reply->watch.more);
        resp_write_array(out, count);
        cursor = cursor_of(reply->watch.changes);
        while (lock_change_decode(&cursor, &event)) {
                resp_write_array(out, 5);
                resp_write_bulk(out, bytes_of_str(lock_event_name(event.kind)));
                resp_write_bulk(out, event.key);
                resp_write_bulk(out, event.owner);
                resp_write_integer(out, event.token.value);
                resp_write_integer(out, event.id);
        }
        if (!reply->watch.copy)
                return;
        resp_write_integer(out, reply->watch.known);
        resp_write_integer(out, reply->watch.age_ms);
}

static void write_done_reply(struct buffer *out, int protocol, const struct reply *reply)
{
        switch (reply->kind) {
        case REQUEST_LOCK_ACQUIRE:
        case REQUEST_SESSION_OPEN:
                resp_write_array(out, 2);
                resp_write_integer(out, reply->lock.token);
                resp_write_integer(out, reply->lock.ttl_ms);
                return;
        case REQUEST_LOCK_RENEW:
        case REQUEST_SESSION_KEEP:
                resp_write_integer(out, reply->lock.ttl_ms);
                return;
        case REQUEST_LOCK_SEIZE:
                resp_write_integer(out, reply->lock.token);
                return;
        case REQUEST_LOCK_RELEASE:
        case REQUEST_LOCK_BREAK:
        case REQUEST_LOCK_LOOK:
        case REQUEST_SESSION_CLOSE:
                resp_write_integer(out, 1);
                return;
        case REQUEST_LOCK_INFO:
                write_info(out, protocol, &reply->lock);
                return;
        case REQUEST_LOCK_LIST:
                resp_write_array(out, reply->list.count);
                for (size_t i = 0; i < reply->list.count; i++)
                        write_info(out, protocol, &reply->list.items[i]);
                return;
        case REQUEST_LOCK_WATCH:
                write_watch(out, reply);
                return;
        case REQUEST_TOPOLOGY_GET:
        case REQUEST_TOPOLOGY_APPLY:
        case REQUEST_REGION:
        case REQUEST_POSTGRES:
        case REQUEST_KV:
        case REQUEST_KV_WATCH:
        case REQUEST_KIND_COUNT:
                break;
        }
        resp_write_error(out, "INTERNAL the node answered another question");
}

/* What a refusal is in RESP: nil and 0 are answers, the rest are errors that
 * begin with their word. */
void lock_reply_write(struct buffer *out, int protocol, enum request_kind asked,
                      const struct reply *reply)
{
        enum reply_code code = reply->code;
        bool none = (asked == REQUEST_LOCK_ACQUIRE && code == REPLY_HELD) ||
                    (asked == REQUEST_LOCK_INFO && code == REPLY_NOT_FOUND);
        bool not_released = (asked == REQUEST_LOCK_RELEASE || asked == REQUEST_LOCK_BREAK ||
                             asked == REQUEST_LOCK_SEIZE || asked == REQUEST_LOCK_LOOK) &&
                            (code == REPLY_NOT_OWNER || code == REPLY_NOT_FOUND);
        if (code == REPLY_OK && reply->kind == asked)
                write_done_reply(out, protocol, reply);
        else if (none)
                resp_write_null(out, protocol);
        else if (not_released)
                resp_write_integer(out, 0);
        else
                resp_write_error(out, "%s %.*s",
                                 code == REPLY_OK ? "INTERNAL" : reply_code_word(code),
                                 BYTES_ARGS(reply->text));
}
