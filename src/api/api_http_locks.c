/* api_http_locks.c - locks over HTTP: the same requests and refusals as over RESP, as JSON.
 *
 *   GET  /locks/KEY            who holds it, as of the log
 *   GET  /lock-watch?key=KEY (or prefix=P)&after=REVISION&wait_ms=N&copy=1
 *                              what happened to it after that revision, as soon as there is
 *                              something; without one: from now on
 *   POST /locks/KEY/acquire    {"owner", "ttl_ms", "wait_ms", "shared", "slots", "delay_ms",
 *                               "session", "detect", "fresh", "also": [key...]}; owner and ttl_ms
 *                               are wanted
 *   POST /locks/KEY/renew      {"owner", "token", "ttl_ms"}
 *   POST /locks/KEY/release    {"owner", "token"}
 *   POST /locks/KEY/break      {"who"}: takes it away; audited
 *   GET  /locks?prefix=P&after=TOKEN&limit=N
 *                              what is held
 *
 * A member that is not known is refused: a misspelt "wait" must not be a wait of 0. */
#include "api/api_priv.h"

#include <string.h>

#define PREFIX      "/locks/"
#define WAIT_MS_MAX 25000 /* below what a connection may take */

/* What a body says; numbers are refused below 0. */
struct body {
        const char *owner;
        const char *who;
        json_int_t ttl_ms;
        json_int_t wait_ms;
        json_int_t delay_ms;
        json_int_t slots;
        json_int_t session;
        json_int_t token;
        int shared;
        int detect;
        int fresh;
        json_t *also;
};

static const struct action {
        const char *word;
        enum request_kind kind;
        const char *format; /* of body_read */
        const char *problem;
} actions[] = {
        {"/acquire", REQUEST_LOCK_ACQUIRE, "{s:s, s:I, s?I, s?I, s?I, s?I, s?b, s?b, s?b, s?o !}",
         "want {\"owner\": ..., \"ttl_ms\": ...}, and may have wait_ms, shared, slots, delay_ms, "
         "session, detect, fresh, also"},
        {"/renew", REQUEST_LOCK_RENEW, "{s:s, s:I, s:I !}",
         "want {\"owner\": ..., \"token\": ..., \"ttl_ms\": ...}"},
        {"/release", REQUEST_LOCK_RELEASE, "{s:s, s:I !}", "want {\"owner\": ..., \"token\": ...}"},
        {"/break", REQUEST_LOCK_SEIZE, "{s:s !}", "want {\"who\": ...}, for the audit"},
};

static json_t *json_name(struct bytes name)
{
        json_t *json = json_stringn((const char *)name.ptr, name.len);
        return json == NULL ? json_string("(not text)") : json;
}

static bool body_read(json_t *json, const struct action *action, struct body *body)
{
        if (action->kind == REQUEST_LOCK_ACQUIRE)
                return json_unpack(json, action->format, "owner", &body->owner, "ttl_ms",
                                   &body->ttl_ms, "wait_ms", &body->wait_ms, "delay_ms",
                                   &body->delay_ms, "slots", &body->slots, "session",
                                   &body->session, "shared", &body->shared, "detect", &body->detect,
                                   "fresh", &body->fresh, "also", &body->also) == 0;
        if (action->kind == REQUEST_LOCK_RENEW)
                return json_unpack(json, action->format, "owner", &body->owner, "token",
                                   &body->token, "ttl_ms", &body->ttl_ms) == 0;
        if (action->kind == REQUEST_LOCK_SEIZE)
                return json_unpack(json, action->format, "who", &body->who) == 0;
        return json_unpack(json, action->format, "owner", &body->owner, "token", &body->token) == 0;
}

/* The keys that are asked for with the first one. */
static bool also_read(const json_t *keys, struct buffer *out)
{
        size_t i;
        const json_t *key;
        buffer_reset(out);
        if (keys != NULL && !json_is_array(keys))
                return false;
        json_array_foreach(keys, i, key)
        {
                if (!json_is_string(key))
                        return false;
                buffer_slice(out, bytes_of(json_string_value(key), json_string_length(key)));
        }
        return out->err == ERR_NONE;
}

/* What is out of its range; NULL: nothing. The rest the node says. */
static const char *body_fault(const struct body *body)
{
        if (body->ttl_ms < 0 || body->wait_ms < 0 || body->delay_ms < 0 || body->session < 0 ||
            body->token < 0)
                return "no number is below 0";
        if (body->slots < 0 || body->slots > LOCK_SLOTS_MAX)
                return "a semaphore has 1 to 1024 slots";
        if (body->shared != 0 && body->slots != 0)
                return "shared or slots, not both";
        if (body->who != NULL &&
            (body->who[0] == '\0' || strlen(body->who) > REQUEST_NAME_BYTES_MAX))
                return "who has a name of 1 to 64 bytes, for the audit";
        return NULL;
}

static bool body_request(const struct body *body, struct buffer *also, struct request *request)
{
        if (!also_read(body->also, also))
                return false;
        request->lock.actor = bytes_of_str(body->who == NULL ? "" : body->who);
        request->lock.also = buffer_view(also);
        request->lock.owner = bytes_of_str(body->owner == NULL ? "" : body->owner);
        request->lock.ttl_ms = (uint64_t)body->ttl_ms;
        request->lock.wait_ms = (uint64_t)body->wait_ms;
        request->lock.delay_ms = (uint64_t)body->delay_ms;
        request->lock.session = (uint64_t)body->session;
        request->lock.token = (uint64_t)body->token;
        request->lock.slots = body->shared != 0 ? LOCK_SHARED : (uint32_t)body->slots;
        request->lock.flags =
                (body->detect != 0 ? LOCK_DETECT : 0u) | (body->fresh != 0 ? LOCK_FRESH : 0u);
        return true;
}

void api_http_lock_get(const char *path, struct request *request)
{
        request->kind = REQUEST_LOCK_LOOK;
        request->lock.key = bytes_of_str(path + strlen(PREFIX));
}

bool api_http_lock_watch(const char *key, const char *prefix, const char *const numbers[3],
                         struct request *request)
{
        uint64_t copy = 0;
        *request = (struct request){.kind = REQUEST_LOCK_WATCH};
        request->lock.token = REQUEST_WATCH_NOW;
        request->lock.flags = prefix != NULL ? REQUEST_WATCH_PREFIX : 0;
        request->lock.key = bytes_of_str(prefix != NULL ? prefix : key != NULL ? key : "");
        uint64_t *const to[3] = {&request->lock.token, &request->lock.wait_ms, &copy};
        for (int i = 0; i < 3; i++)
                if (numbers[i] != NULL &&
                    !resp_number(bytes_of_str(numbers[i]), i == 2 ? 1 : UINT64_MAX >> 1, to[i]))
                        return false;
        request->lock.flags |= copy != 0 ? REQUEST_WATCH_COPY : 0;
        if (request->lock.wait_ms > WAIT_MS_MAX)
                request->lock.wait_ms = WAIT_MS_MAX;
        return (key == NULL) != (prefix == NULL);
}

json_t *api_http_watch_reply(const struct reply *reply)
{
        struct lock_event event;
        json_t *changes = json_array();
        struct cursor cursor = cursor_of(reply->watch.changes);
        while (lock_change_decode(&cursor, &event))
                json_array_append_new(changes, json_pack("{s:s, s:o, s:o, s:I, s:I}", "change",
                                                         lock_event_name(event.kind), "key",
                                                         json_name(event.key), "owner",
                                                         json_name(event.owner), "token",
                                                         (json_int_t)event.token.value, "revision",
                                                         (json_int_t)event.id));
        json_t *json = json_pack("{s:I, s:b, s:o}", "revision", (json_int_t)reply->watch.revision,
                                 "more", (int)reply->watch.more, "changes", changes);
        if (reply->watch.copy)
                json_object_set_new(json, "copy",
                                    json_pack("{s:I, s:I}", "revision",
                                              (json_int_t)reply->watch.known, "age_ms",
                                              (json_int_t)reply->watch.age_ms));
        return json;
}

json_t *api_http_lock_post(const char *path, struct bytes text, struct buffer *also,
                           struct request *request, const char **ret_problem)
{
        const char *word = strrchr(path, '/');
        struct body body = {0};
        *ret_problem = "want /locks/KEY/acquire, renew, release or break";
        if (word < path + strlen(PREFIX))
                return NULL;
        for (size_t i = 0; i < COUNT_OF(actions); i++) {
                if (strcmp(actions[i].word, word) != 0)
                        continue;
                *ret_problem = actions[i].problem;
                json_t *json = json_loadb((const char *)text.ptr, text.len, 0, NULL);
                request->kind = actions[i].kind;
                request->lock.key = bytes_of((const uint8_t *)path + strlen(PREFIX),
                                             (size_t)(word - path) - strlen(PREFIX));
                if (json != NULL && body_read(json, &actions[i], &body)) {
                        const char *fault = body_fault(&body);
                        if (fault != NULL)
                                *ret_problem = fault;
                        else if (body_request(&body, also, request))
                                return json;
                }
                json_decref(json);
                return NULL;
        }
        return NULL;
}

bool api_http_lock_list(const char *prefix, const char *const numbers[2], struct request *request)
{
        *request = (struct request){.kind = REQUEST_LOCK_LIST};
        request->list.key = bytes_of_str(prefix == NULL ? "" : prefix);
        request->list.limit = 100;
        uint64_t *const to[2] = {&request->list.after, &request->list.limit};
        for (int i = 0; i < 2; i++)
                if (numbers[i] != NULL &&
                    !resp_number(bytes_of_str(numbers[i]), UINT64_MAX >> 1, to[i]))
                        return false;
        return prefix != NULL;
}

json_t *api_http_list_reply(const struct reply *reply)
{
        json_t *locks = json_array();
        for (size_t i = 0; i < reply->list.count; i++) {
                const struct reply_lock *lock = &reply->list.items[i];
                json_array_append_new(locks, json_pack("{s:o, s:o, s:I, s:I, s:I}", "key",
                                                       json_name(lock->key), "owner",
                                                       json_name(lock->owner), "token",
                                                       (json_int_t)lock->token, "ttl_ms",
                                                       (json_int_t)lock->ttl_ms, "waiters",
                                                       (json_int_t)lock->waiters));
        }
        return json_pack("{s:o}", "locks", locks);
}

json_t *api_http_lock_reply(const struct reply *reply)
{
        const struct reply_lock *lock = &reply->lock;
        return json_pack("{s:o, s:I, s:I}", "owner", json_name(lock->owner), "token",
                         (json_int_t)lock->token, "ttl_ms", (json_int_t)lock->ttl_ms);
}
