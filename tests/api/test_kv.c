/* KV.* commands and /kv requests: what is understood becomes the transaction that it says, what is
 * not is refused with a reason, and no text, however odd, is read beyond its end. */
#include "api/api_priv.h"

#include "../cmocka_all.h"
#include "../heap_group.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>

static struct buffer txn;
static struct buffer bytes;
static struct buffer out;

/* An inline command: words with blanks between them. */
static bool resp(const char *text, struct request *request, enum api_form *ret_form)
{
        char line[512];
        struct resp_reader reader;
        resp_reader_reset(&reader);
        (void)snprintf(line, sizeof line, "%s\r\n", text);
        struct bytes input = bytes_of_str(line);
        assert_int_equal(resp_read(&reader, input), RESP_COMMAND);
        *request = (struct request){.kind = REQUEST_KV};
        buffer_reset(&out);
        struct api_kv kv = {.reader = &reader,
                            .input = input,
                            .actor = BYTES("me"),
                            .out = &out,
                            .txn = &txn,
                            .request = request};
        bool good = api_kv_request(&kv);
        *ret_form = kv.form;
        /* what the request borrows from is gone with the line: only what is copied is looked at */
        request->kv.key = bytes_of(NULL, 0);
        request->kv.actor = bytes_of(NULL, 0);
        return good;
}

/* "get k;put k v": the steps of a branch as text. */
static void steps_text(const struct kv_txn *decoded, bool otherwise, char *text, size_t size)
{
        static const char *const ops[] = {"",      "get",     "put",    "delete",
                                          "range", "history", "compact"};
        struct kv_walk walk = kv_walk_steps(decoded, otherwise);
        struct kv_step step;
        text[0] = '\0';
        while (kv_walk_step(&walk, &step)) {
                size_t len = strlen(text);
                (void)snprintf(text + len, size - len, "%s %.*s%s%.*s%s;", ops[step.op],
                               BYTES_ARGS(step.key), step.op == KV_PUT ? "=" : "",
                               BYTES_ARGS(step.value), (step.flags & KV_PREFIX) != 0 ? "*" : "");
        }
}

static void test_resp(void **state)
{
        static const struct {
                const char *say;
                const char *then;
                const char *otherwise;
                size_t conditions;
        } rows[] = {
                {"KV.GET g:k", "get g:k;", "", 0},
                {"kv.get g:k revision 7 stale", "get g:k;", "", 0},
                {"KV.PUT g:k v", "put g:k=v;", "", 0},
                {"KV.PUT g:k v SESSION 4 OWNER o ID i KEEP ACTOR a", "put g:k=v;", "", 0},
                {"KV.CAS g:k 5 v", "put g:k=v;", "", 1},
                {"KV.DEL g:k", "delete g:k;", "", 0},
                {"KV.DEL g:k PREFIX", "delete g:k*;", "", 0},
                {"KV.RANGE g: AFTER g:a LIMIT 3 KEYS", "range g:*;", "", 0},
                {"KV.HISTORY g:k LIMIT 2", "history g:k;", "", 0},
                {"KV.COMPACT g: 9", "compact g:;", "", 0},
                {"KV.TXN THEN GET g:a", "get g:a;", "", 0},
                {"KV.TXN IF g:a VALUE = x IF g:b VERSION > 3 THEN PUT g:a y DEL g:b ELSE RANGE g:",
                 "put g:a=y;delete g:b;", "range g:*;", 2},
                {"KV.TXN IF g:a SESSION != 0 ELSE GET g:a ID once", "", "get g:a;", 1},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct request request;
                struct kv_txn decoded;
                char text[128];
                enum api_form form;
                if (!resp(rows[i].say, &request, &form))
                        fail_msg("%s: %.*s", rows[i].say, (int)out.len, (const char *)out.ptr);
                assert_int_equal(kv_txn_decode(request.kv.txn, &decoded), ERR_NONE);
                steps_text(&decoded, false, text, sizeof text);
                assert_string_equal(text, rows[i].then);
                steps_text(&decoded, true, text, sizeof text);
                assert_string_equal(text, rows[i].otherwise);
                assert_int_equal(decoded.condition_count, rows[i].conditions);
                assert_true(form >= API_FORM_KV_GET);
        }
}

static void test_resp_refused(void **state)
{
        static const char *const texts[] = {
                "KV.GET g:k LATER",
                "KV.GET g:k REVISION",
                "KV.GET g:k REVISION x",
                "KV.GET g:k LIMIT 3",
                "KV.GET g:k KEEP",
                "KV.PUT g:k v STALE",
                "KV.CAS g:k x v",
                "KV.DEL g:k KEEP",
                "KV.RANGE g: LIMIT -1",
                "KV.WATCH g: x",
                "KV.WATCH g: 1 WAIT",
                "KV.COMPACT g: x",
                "KV.TXN IF g:a VALUE = THEN GET g:a",
                "KV.TXN IF g:a COLOUR = x THEN GET g:a",
                "KV.TXN IF g:a VALUE ~ x THEN GET g:a",
                "KV.TXN IF g:a VERSION = x THEN GET g:a",
                "KV.TXN THEN JUMP g:a",
                "KV.TXN THEN PUT g:a",
                "KV.TXN GET g:a",
        };
        struct request request;
        enum api_form form;
        (void)state;
        for (size_t i = 0; i < COUNT_OF(texts); i++) {
                if (resp(texts[i], &request, &form))
                        fail_msg("taken: %s", texts[i]);
                assert_true(out.len > 4 && out.ptr[0] == '-');
        }
}

struct asked {
        const char *key;
        const char *value;
};

static const char *query(const void *who, const char *key)
{
        const struct asked *asked = who;
        return asked->key != NULL && strcmp(asked->key, key) == 0 ? asked->value : NULL;
}

static bool http(const char *path, bool post, struct bytes body, const struct asked *asked,
                 struct request *request, const char **ret_problem)
{
        struct api_http_kv http = {.path = path,
                                   .post = post,
                                   .body = body,
                                   .actor = BYTES("me"),
                                   .query = query,
                                   .who = asked,
                                   .txn = &txn,
                                   .bytes = &bytes,
                                   .request = request};
        bool good = api_http_kv_request(&http);
        *ret_problem = http.problem;
        json_decref(http.json);
        return good;
}

static void test_http(void **state)
{
        static const struct {
                const char *path;
                struct asked asked;
                const char *body; /* NULL: GET */
                const char *then; /* NULL: refused */
                size_t conditions;
        } rows[] = {
                {"/kv/g:k", {0}, NULL, "get g:k;", 0},
                {"/kv/g:k", {"revision", "7"}, NULL, "get g:k;", 0},
                {"/kv/g:k", {"revision", "x"}, NULL, NULL, 0},
                {"/kv", {"prefix", "g:"}, NULL, "range g:*;", 0},
                {"/kv", {0}, NULL, NULL, 0},
                {"/kv-history", {"key", "g:k"}, NULL, "history g:k;", 0},
                {"/kv-history", {0}, NULL, NULL, 0},
                {"/kv-watch", {0}, NULL, NULL, 0},
                {"/kv/g:k/put", {0}, "{\"value\": \"v\"}", "put g:k=v;", 0},
                {"/kv/g:a/b/put", {0}, "{\"value\": \"\"}", "put g:a/b=;", 0},
                {"/kv/g:k/put", {0}, "{\"base64\": \"dg==\", \"revision\": 0}", "put g:k=v;", 1},
                {"/kv/g:k/put", {0}, "{\"base64\": \"d\"}", NULL, 0},
                {"/kv/g:k/put", {0}, "{\"base64\": 7}", NULL, 0},
                {"/kv/g:k/put", {0}, "{\"value\": 7}", NULL, 0},
                {"/kv/g:k/put", {0}, "{\"valve\": \"v\"}", NULL, 0},
                {"/kv/g:k/put", {0}, "{\"value\": \"v\", \"revision\": -7}", NULL, 0},
                {"/kv/g:k/put", {0}, "{", NULL, 0},
                {"/kv/g:k/put", {0}, "", NULL, 0},
                {"/kv/put", {0}, "{\"value\": \"v\"}", NULL, 0},
                {"/kv/g:k/jump", {0}, "{}", NULL, 0},
                {"/kv/g:k/delete", {0}, "", "delete g:k;", 0},
                {"/kv/g:k/delete", {0}, "{\"prefix\": true}", "delete g:k*;", 0},
                {"/kv/g:k/delete", {0}, "[]", NULL, 0},
                {"/kv",
                 {0},
                 "{\"if\": [{\"key\": \"g:a\", \"what\": \"version\"}], \"then\": [{\"op\": "
                 "\"put\", \"key\": \"g:a\", \"value\": \"1\"}]}",
                 "put g:a=1;",
                 1},
                {"/kv", {0}, "{\"then\": [{\"op\": \"put\", \"key\": \"g:a\"}]}", NULL, 0},
                {"/kv", {0}, "{\"then\": [{\"op\": \"jump\", \"key\": \"g:a\"}]}", NULL, 0},
                {"/kv", {0}, "{\"if\": [{\"key\": \"g:a\", \"what\": \"value\"}]}", NULL, 0},
                {"/kv", {0}, "{}", NULL, 0},
                {"/kv", {0}, "{\"then\": 7}", NULL, 0},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct request request;
                struct kv_txn decoded;
                char text[128];
                const char *problem = NULL;
                const char *body = rows[i].body == NULL ? "" : rows[i].body;
                bool good = http(rows[i].path, rows[i].body != NULL, bytes_of_str(body),
                                 &rows[i].asked, &request, &problem);
                if (good != (rows[i].then != NULL))
                        fail_msg("%s %s: %s", rows[i].path, body, problem == NULL ? "" : problem);
                assert_true(good || problem != NULL);
                if (!good)
                        continue;
                assert_int_equal(kv_txn_decode(request.kv.txn, &decoded), ERR_NONE);
                steps_text(&decoded, false, text, sizeof text);
                assert_string_equal(text, rows[i].then);
                assert_int_equal(decoded.condition_count, rows[i].conditions);
        }
}

/* A good body with some bytes changed, of exact size. */
static void test_http_odd(void **state)
{
        static const char good[] =
                "{\"if\": [{\"key\": \"g:a\", \"what\": \"value\", \"value\": \"x\"}], \"then\": "
                "[{\"op\": \"put\", \"key\": \"g:a\", \"value\": \"1\"}], \"else\": [], \"id\": "
                "\"i\"}";
        struct rng rng;
        (void)state;
        rng_init(&rng, 11, 0);
        for (int round = 0; round < 5000; round++) {
                struct request request;
                struct asked asked = {0};
                const char *problem;
                size_t len = sizeof good - 1 - (rng_chance(&rng, 300) ? rng_below(&rng, 60) : 0);
                uint8_t *copy = malloc(len);
                assert_non_null(copy);
                memcpy(copy, good, len);
                for (uint64_t i = rng_below(&rng, 4); i > 0; i--)
                        copy[rng_below(&rng, len)] = (uint8_t)rng_next(&rng);
                (void)http("/kv", true, bytes_of(copy, len), &asked, &request, &problem);
                free(copy);
        }
}

/* An answer of the node, through the writers of both doors. */
static void test_answers(void **state)
{
        struct kv_item item = {.key = BYTES("g:k"),
                               .value = BYTES("\xff\0"),
                               .actor = BYTES("me"),
                               .created = 1,
                               .revision = 5,
                               .version = 2};
        struct kv_answer_step step = {.op = KV_GET, .count = 1, .total = 1};
        struct kv_result result = {.kind = KV_DONE,
                                   .succeeded = true,
                                   .revision = 6,
                                   .steps = &step,
                                   .step_count = 1,
                                   .items = &item,
                                   .item_count = 1};
        unsigned status = 200;
        (void)state;
        buffer_reset(&bytes);
        kv_result_encode(&result, &bytes);
        struct reply reply = {.kind = REQUEST_KV, .code = REPLY_OK};
        reply.kv.result = buffer_view(&bytes);
        buffer_reset(&out);
        assert_true(api_kv_write(&out, 2, API_FORM_KV_GET, &reply));
        assert_true(bytes_equal(buffer_view(&out), BYTES("*2\r\n$2\r\n\xff\0\r\n:5\r\n")));
        json_t *json = api_http_kv_reply("/kv/g:k", false, &reply, &status);
        assert_string_equal(json_string_value(json_object_get(json, "base64")), "/wA=");
        json_decref(json);
        result.step_count = 0;
        result.succeeded = false;
        buffer_reset(&bytes);
        kv_result_encode(&result, &bytes);
        reply.kv.result = buffer_view(&bytes);
        buffer_reset(&out);
        assert_true(api_kv_write(&out, 3, API_FORM_KV_REVISION, &reply));
        assert_true(bytes_equal(buffer_view(&out), BYTES("_\r\n")));
        json = api_http_kv_reply("/kv/g:k/put", true, &reply, &status);
        assert_int_equal(status, 409);
        json_decref(json);
        reply.code = REPLY_NO_MAJORITY;
        assert_false(api_kv_write(&out, 2, API_FORM_KV_GET, &reply));
}

static int setup(void **state)
{
        buffer_init(&txn, &heap);
        buffer_init(&bytes, &heap);
        buffer_init(&out, &heap);
        return heap_group_setup(state);
}

static int teardown(void **state)
{
        buffer_fini(&txn);
        buffer_fini(&bytes);
        buffer_fini(&out);
        return heap_group_teardown(state);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_resp),    cmocka_unit_test(test_resp_refused),
                cmocka_unit_test(test_http),    cmocka_unit_test(test_http_odd),
                cmocka_unit_test(test_answers),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
