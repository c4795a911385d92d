/* api_http_kv.c - values over HTTP, as JSON.
 *
 *   GET  /kv/KEY?revision=N&stale=1        one value; 404 where there is none
 *   GET  /kv?prefix=P&after=K&limit=N&revision=N&stale=1
 *   GET  /kv-history?key=K&limit=N&stale=1 the versions of a key, newest first
 *   GET  /kv-watch?prefix=P&after=N&wait_ms=N   changes after a revision, as soon as there are some
 *   POST /kv/KEY/put      {"value" or "base64", "revision", "session", "owner", "id", "keep"};
 *                         with a revision: only where the key's is that one (0: there is none),
 *                         else 409
 *   POST /kv/KEY/delete   {"prefix", "id"}; may be empty
 *   POST /kv              {"if": [{"key", "what", "is", "number" or "value"}], "then": [step],
 *                         "else": [step], "id"}; step: {"op", "key", "value", "prefix"}
 *
 * What a value has that is no UTF-8 is told as "base64". Members that are not known are refused. */
#include "api/api_priv.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX      "/kv/"
#define WAIT_MS_MAX 25000 /* below what a connection may take */
#define TIME_US_MAX ((uint64_t)INT64_MAX)

/* A request in the making; what it borrows lives in `json` and `bytes`. */
struct making {
        struct api_http_kv *http;
        struct kv_build build;
        struct kv_step step;
};

static bool wrong(struct making *making, const char *problem)
{
        making->http->problem = problem;
        return false;
}

static const char *query(const struct making *making, const char *key)
{
        return making->http->query(making->http->who, key);
}

static bool query_number(struct making *making, const char *key, uint64_t *ret)
{
        const char *text = query(making, key);
        if (text == NULL)
                return true;
        if (resp_number(bytes_of_str(text), UINT64_MAX >> 1, ret))
                return true;
        return wrong(making, "limit, revision, after and wait_ms are numbers");
}

static bool is_stale(const struct making *making)
{
        const char *text = query(making, "stale");
        return text != NULL && strcmp(text, "0") != 0;
}

/* ---- GET ---- */

static bool make_get(struct making *making)
{
        making->step.op = KV_GET;
        making->step.key = bytes_of_str(making->http->path + strlen(PREFIX));
        return query_number(making, "revision", &making->step.revision);
}

static bool make_list(struct making *making)
{
        const char *prefix = query(making, "prefix");
        const char *after = query(making, "after");
        if (prefix == NULL)
                return wrong(making, "prefix=\"global:...\" or \"<region>:...\" is wanted");
        making->step.op = KV_RANGE;
        making->step.flags = KV_PREFIX;
        making->step.key = bytes_of_str(prefix);
        making->step.end = bytes_of_str(after == NULL ? "" : after);
        return query_number(making, "limit", &making->step.limit) &&
               query_number(making, "revision", &making->step.revision);
}

static bool make_history(struct making *making)
{
        const char *key = query(making, "key");
        if (key == NULL)
                return wrong(making, "key=\"global:...\" or \"<region>:...\" is wanted");
        making->step.op = KV_HISTORY;
        making->step.key = bytes_of_str(key);
        return query_number(making, "limit", &making->step.limit);
}

static bool make_watch(struct making *making)
{
        struct request *request = making->http->request;
        const char *prefix = query(making, "prefix");
        if (prefix == NULL)
                return wrong(making, "prefix=\"global:...\" or \"<region>:...\" is wanted");
        request->kind = REQUEST_KV_WATCH;
        making->step.key = bytes_of_str(prefix);
        if (!query_number(making, "after", &request->kv.after) ||
            !query_number(making, "wait_ms", &request->kv.wait_ms))
                return false;
        if (request->kv.wait_ms > WAIT_MS_MAX)
                request->kv.wait_ms = WAIT_MS_MAX;
        return true;
}

/* ---- POST ---- */

/* A value as text or as base64; the latter is decoded into the api's own buffer. */
static bool value_of(struct making *making, const json_t *text, const json_t *base64,
                     struct bytes *ret)
{
        struct buffer *out = making->http->bytes;
        if (text != NULL) {
                *ret = bytes_of(json_string_value(text), json_string_length(text));
                return true;
        }
        if (base64 == NULL)
                return wrong(making, "\"value\" or \"base64\" is wanted");
        size_t len = json_string_length(base64);
        const char *coded = json_string_value(base64);
        uint8_t *room = len > 2 * KV_VALUE_BYTES_MAX ? NULL : buffer_reserve(out, len + 1);
        if (room == NULL || out->len > 0)
                return wrong(making, "\"base64\" is too long, or there is more than one");
        int decoded = EVP_DecodeBlock(room, (const unsigned char *)coded, (int)len);
        size_t padding = 0;
        while (padding < 2 && padding < len && coded[len - 1 - padding] == '=')
                padding++;
        if (decoded < 0 || (size_t)decoded < padding)
                return wrong(making, "\"base64\" is not base64");
        *ret = bytes_of(room, (size_t)decoded - padding);
        buffer_commit(out, ret->len + 1);
        return true;
}

static bool make_put(struct making *making)
{
        static const char format[] = "{s?o, s?o, s?I, s?I, s?s, s?s, s?b !}";
        const char *owner = "";
        const char *id = "";
        json_t *text = NULL;
        json_t *base64 = NULL;
        json_int_t revision = -1;
        json_int_t session = 0;
        int keep = 0;
        if (json_unpack(making->http->json, format, "value", &text, "base64", &base64, "revision",
                        &revision, "session", &session, "owner", &owner, "id", &id, "keep",
                        &keep) != 0 ||
            revision < -1 || session < 0 || (text != NULL && !json_is_string(text)) ||
            (base64 != NULL && !json_is_string(base64)))
                return wrong(making, "want {\"value\" or \"base64\": ...}, and may have revision, "
                                     "session, owner, id, keep");
        making->step.op = KV_PUT;
        making->step.session = (uint64_t)session;
        making->step.flags = keep != 0 ? KV_KEEP : 0;
        making->build.owner = bytes_of_str(owner);
        making->build.id = bytes_of_str(id);
        if (revision >= 0) {
                struct kv_condition condition = {.key = making->step.key,
                                                 .what = KV_REVISION,
                                                 .relation = KV_IS,
                                                 .number = (uint64_t)revision};
                kv_build_condition(&making->build, &condition);
        }
        return value_of(making, text, base64, &making->step.value);
}

static bool make_delete(struct making *making)
{
        const char *id = "";
        int prefix = 0;
        if (making->http->json != NULL &&
            json_unpack(making->http->json, "{s?s, s?b !}", "id", &id, "prefix", &prefix) != 0)
                return wrong(making, "may have id, prefix");
        making->step.op = KV_DELETE;
        making->step.flags = prefix != 0 ? KV_PREFIX : 0;
        making->build.id = bytes_of_str(id);
        return true;
}

static bool make_post(struct making *making)
{
        const char *path = making->http->path;
        const char *word = strrchr(path, '/');
        if (word < path + strlen(PREFIX))
                return wrong(making, "want /kv/KEY/put or /kv/KEY/delete");
        making->step.key = bytes_of(path + strlen(PREFIX), (size_t)(word - path) - strlen(PREFIX));
        if (strcmp(word, "/put") == 0)
                return make_put(making);
        if (strcmp(word, "/delete") == 0)
                return make_delete(making);
        return wrong(making, "want /kv/KEY/put or /kv/KEY/delete");
}

/* ---- a transaction ---- */

static unsigned word_find(const char *const *words, unsigned count, const char *word)
{
        for (unsigned i = 1; i < count; i++) {
                if (words[i] != NULL && strcmp(words[i], word) == 0)
                        return i;
        }
        return 0;
}

static void key_first(struct making *making, struct bytes key)
{
        if (making->http->request->kv.key.len == 0)
                making->http->request->kv.key = key;
}

static bool txn_condition(struct making *making, json_t *json)
{
        static const char *const whats[KV_WHAT_COUNT] = {
                [KV_VERSION] = "version", [KV_REVISION] = "revision", [KV_CREATED] = "created",
                [KV_SESSION] = "session", [KV_VALUE] = "value",
        };
        static const char *const relations[KV_RELATION_COUNT] = {
                [KV_IS] = "=", [KV_IS_NOT] = "!=", [KV_LESS] = "<", [KV_GREATER] = ">"};
        const char *key = NULL;
        const char *what = NULL;
        const char *relation = "=";
        const char *value = NULL;
        json_int_t number = 0;
        if (json_unpack(json, "{s:s, s:s, s?s, s?I, s?s !}", "key", &key, "what", &what, "is",
                        &relation, "number", &number, "value", &value) != 0 ||
            number < 0)
                return wrong(making, "a condition is {\"key\", \"what\", \"is\", \"number\" or "
                                     "\"value\"}");
        struct kv_condition condition = {.key = bytes_of_str(key), .number = (uint64_t)number};
        condition.what = (enum kv_what)word_find(whats, KV_WHAT_COUNT, what);
        condition.relation = (enum kv_relation)word_find(relations, KV_RELATION_COUNT, relation);
        if ((int)condition.what == 0 || (int)condition.relation == 0 ||
            (condition.what == KV_VALUE) != (value != NULL))
                return wrong(making, "what is version, revision, created, session or value; is is "
                                     "=, !=, < or >");
        if (value != NULL)
                condition.value = bytes_of_str(value);
        key_first(making, condition.key);
        kv_build_condition(&making->build, &condition);
        return true;
}

static bool txn_step(struct making *making, json_t *json, bool otherwise)
{
        static const char *const ops[KV_CHANGES] = {
                [KV_GET] = "get", [KV_PUT] = "put", [KV_DELETE] = "delete", [KV_RANGE] = "range"};
        const char *key = NULL;
        const char *op = NULL;
        json_t *value = NULL;
        int prefix = 0;
        if (json_unpack(json, "{s:s, s:s, s?o, s?b !}", "op", &op, "key", &key, "value", &value,
                        "prefix", &prefix) != 0)
                return wrong(making, "a step is {\"op\", \"key\", \"value\", \"prefix\"}");
        struct kv_step step = {.op = (enum kv_op)word_find(ops, KV_CHANGES, op),
                               .key = bytes_of_str(key)};
        if ((int)step.op == 0 || (step.op == KV_PUT) != json_is_string(value))
                return wrong(making, "op is get, put (with a value), delete or range");
        if (step.op == KV_PUT)
                step.value = bytes_of(json_string_value(value), json_string_length(value));
        if (step.op == KV_RANGE || prefix != 0)
                step.flags = KV_PREFIX;
        key_first(making, step.key);
        kv_build_step(&making->build, otherwise, &step);
        return true;
}

static bool make_txn(struct making *making)
{
        json_t *conditions = NULL;
        json_t *branches[2] = {NULL, NULL};
        const char *id = "";
        json_t *item;
        size_t i;
        if (json_unpack(making->http->json, "{s?o, s?o, s?o, s?s !}", "if", &conditions, "then",
                        &branches[0], "else", &branches[1], "id", &id) != 0)
                return wrong(making, "want {\"if\": [...], \"then\": [...], \"else\": [...]}");
        making->build.id = bytes_of_str(id);
        json_array_foreach(conditions, i, item)
        {
                if (!txn_condition(making, item))
                        return false;
        }
        for (int otherwise = 0; otherwise < 2; otherwise++) {
                json_array_foreach(branches[otherwise], i, item)
                {
                        if (!txn_step(making, item, otherwise == 1))
                                return false;
                }
        }
        if (making->build.condition_count + making->build.step_counts[0] +
                    making->build.step_counts[1] ==
            0)
                return wrong(making, "the transaction is empty");
        return true;
}

/* ---- requests ---- */

static bool make(struct making *making)
{
        const struct api_http_kv *http = making->http;
        if (strncmp(http->path, PREFIX, strlen(PREFIX)) == 0)
                return http->post ? make_post(making) : make_get(making);
        if (strcmp(http->path, "/kv-history") == 0)
                return make_history(making);
        if (strcmp(http->path, "/kv-watch") == 0)
                return make_watch(making);
        return http->post ? make_txn(making) : make_list(making);
}

static bool make_end(struct making *making)
{
        struct api_http_kv *http = making->http;
        struct request *request = http->request;
        if (request->kv.key.len == 0)
                request->kv.key = making->step.key;
        if (request->kind == REQUEST_KV_WATCH)
                return true;
        if ((int)making->step.op != 0)
                kv_build_step(&making->build, false, &making->step);
        request->kv.stale = is_stale(making);
        buffer_reset(http->txn);
        if (kv_build_end(&making->build, http->txn) != ERR_NONE)
                return wrong(making, "the transaction is too large");
        request->kv.txn = buffer_view(http->txn);
        return true;
}

bool api_http_kv_request(struct api_http_kv *http)
{
        struct making making = {.http = http};
        *http->request = (struct request){.kind = REQUEST_KV};
        http->request->kv.actor = http->actor;
        buffer_reset(http->bytes);
        kv_build_init(&making.build, http->txn->heap);
        if (http->post && http->body.len > 0) {
                http->json = json_loadb((const char *)http->body.ptr, http->body.len, 0, NULL);
                if (http->json == NULL)
                        http->problem = "the body is no JSON";
        }
        bool done = http->problem == NULL && make(&making) && make_end(&making);
        kv_build_fini(&making.build);
        return done;
}

/* ---- answers ---- */

static json_t *json_value(struct bytes value, const char **ret_name)
{
        json_t *text = json_stringn((const char *)value.ptr, value.len);
        *ret_name = "value";
        if (text != NULL)
                return text;
        *ret_name = "base64";
        char *coded = malloc(4 * (value.len / 3 + 1) + 1);
        if (coded == NULL)
                return NULL;
        (void)EVP_EncodeBlock((unsigned char *)coded, value.ptr, (int)value.len);
        text = json_string(coded);
        free(coded);
        return text;
}

static json_t *json_text(struct bytes text)
{
        json_t *json = json_stringn((const char *)text.ptr, text.len);
        return json == NULL ? json_string("(not text)") : json;
}

static json_t *json_item(const struct kv_item *item)
{
        const char *name = NULL;
        uint64_t wall_us = item->wall_us < TIME_US_MAX ? item->wall_us : 0;
        json_t *json = json_pack("{s:o, s:I, s:I, s:I, s:o, s:f}", "key", json_text(item->key),
                                 "revision", (json_int_t)item->revision, "version",
                                 (json_int_t)item->version, "created", (json_int_t)item->created,
                                 "writer", json_text(item->actor), "time", (double)wall_us / 1e6);
        if (item->session != 0)
                json_object_set_new(json, "session", json_integer((json_int_t)item->session));
        if (item->version == 0) {
                json_object_set_new(json, "deleted", json_true());
        } else {
                json_t *value = json_value(item->value, &name);
                json_object_set_new(json, name, value);
        }
        return json;
}

static json_t *json_items(struct kv_reading *reading)
{
        json_t *items = json_array();
        struct kv_item item;
        while (kv_result_item(reading, &item))
                json_array_append_new(items, json_item(&item));
        return items;
}

static json_t *json_steps(struct kv_reading *reading)
{
        json_t *steps = json_array();
        struct kv_answer_step step;
        while (kv_result_step(reading, &step)) {
                bool more = step.more;
                json_int_t total = (json_int_t)step.total;
                json_array_append_new(steps, json_pack("{s:I, s:b, s:o}", "total", total, "more",
                                                       (int)more, "items", json_items(reading)));
        }
        return steps;
}

/* The first step's answer, for those who asked for one thing. */
static json_t *json_one(struct kv_reading *reading, unsigned *ret_status)
{
        struct kv_answer_step step = {.op = KV_GET};
        struct kv_item item;
        json_int_t revision = (json_int_t)reading->head.revision;
        bool stepped = kv_result_step(reading, &step);
        if (!reading->head.succeeded) {
                *ret_status = 409;
                return json_pack("{s:s, s:s}", "code", "CONFLICT", "error",
                                 "the key has another revision: read it again");
        }
        if (!stepped || step.op == KV_PUT || step.op == KV_COMPACT)
                return json_pack("{s:I}", "revision", revision);
        if (step.op == KV_DELETE)
                return json_pack("{s:I, s:I}", "revision", revision, "deleted",
                                 (json_int_t)step.total);
        if (step.op != KV_GET)
                return json_pack("{s:I, s:b, s:o}", "revision", revision, "more", (int)step.more,
                                 "items", json_items(reading));
        if (kv_result_item(reading, &item))
                return json_item(&item);
        *ret_status = 404;
        return json_pack("{s:s, s:s}", "code", "NOTFOUND", "error", "there is no such key");
}

json_t *api_http_kv_reply(const char *path, bool post, const struct reply *reply,
                          unsigned *ret_status)
{
        struct kv_reading reading;
        if (kv_result_open(reply->kv.result, &reading) != ERR_NONE)
                return NULL;
        if (!post || strcmp(path, "/kv") != 0)
                return json_one(&reading, ret_status);
        json_int_t revision = (json_int_t)reading.head.revision;
        bool succeeded = reading.head.succeeded;
        bool repeat = reading.head.repeat;
        return json_pack("{s:b, s:b, s:I, s:o}", "succeeded", (int)succeeded, "repeat", (int)repeat,
                         "revision", revision, "steps", json_steps(&reading));
}
