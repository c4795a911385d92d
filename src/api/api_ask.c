/* api_ask.c - answers to HTTP requests: as JSON, now or when the node has decided. */
#include "api/api_ask.h"
#include "topology/topology.h"

#include <stdlib.h>

void ask_json(struct ask *ask, unsigned status, json_t *json)
{
        char *text = json == NULL ? NULL : json_dumps(json, JSON_REAL_PRECISION(15));
        ask->status = text == NULL ? MHD_HTTP_INTERNAL_SERVER_ERROR : status;
        ask->type = "application/json";
        buffer_reset(&ask->out);
        buffer_bytes(&ask->out,
                     text == NULL ? BYTES("{\"error\":\"out of memory\"}") : bytes_of_str(text));
        buffer_bytes(&ask->out, BYTES("\n"));
        free(text);
        json_decref(json);
}

void ask_error(struct ask *ask, unsigned status, const char *code, const char *text)
{
        ask_json(ask, status, json_pack("{s:s, s:s}", "code", code, "error", text));
}

void ask_text(struct ask *ask, const char *type)
{
        ask->status = MHD_HTTP_OK;
        ask->type = type;
}

static json_t *json_text(struct bytes text)
{
        json_t *json = json_stringn((const char *)text.ptr, text.len);
        return json == NULL ? json_string("(not text)") : json;
}

static bool is_lock(enum request_kind kind)
{
        return kind == REQUEST_LOCK_ACQUIRE || kind == REQUEST_LOCK_RENEW ||
               kind == REQUEST_LOCK_RELEASE || kind == REQUEST_LOCK_LOOK ||
               kind == REQUEST_LOCK_SEIZE;
}

static json_t *json_reply(const struct ask *ask, const struct reply *reply)
{
        if (reply->code == REPLY_OK && is_lock(ask->kind))
                return api_http_lock_reply(reply);
        if (reply->code == REPLY_OK && ask->kind == REQUEST_LOCK_LIST)
                return api_http_list_reply(reply);
        if (reply->code == REPLY_OK && ask->kind == REQUEST_LOCK_WATCH)
                return api_http_watch_reply(reply);
        if (reply->code == REPLY_OK && api_session_is(ask->kind))
                return api_session_reply(reply);
        if (reply->code != REPLY_OK)
                return json_pack("{s:s, s:o}", "code", reply_code_word(reply->code), "error",
                                 json_text(reply->text));
        if (ask->kind == REQUEST_TOPOLOGY_GET)
                return json_pack("{s:I, s:o}", "epoch", (json_int_t)reply->topology.epoch,
                                 "document", json_text(reply->topology.document));
        if (ask->kind == REQUEST_TOPOLOGY_APPLY)
                return json_pack("{s:I}", "epoch", (json_int_t)reply->topology.epoch);
        if (ask->kind == REQUEST_POSTGRES)
                return api_json_postgres_reply(ask->admin->api, reply);
        return json_pack("{s:s}", "state",
                         region_state_name((enum region_state)reply->region.state));
}

void ask_resume(struct ask *ask)
{
        if (!ask->suspended)
                return;
        ask->suspended = false;
        MHD_resume_connection(ask->connection);
        admin_run_soon(ask->admin);
}

static void ask_answer(void *who, const struct reply *reply)
{
        struct ask *ask = who;
        unsigned status = (unsigned)reply_code_http(reply->code);
        bool kv = ask->kind == REQUEST_KV || ask->kind == REQUEST_KV_WATCH;
        json_t *json = NULL;
        if (kv && reply->code == REPLY_OK && strncmp(ask->path, "/services/", 10) == 0)
                json = api_services_reply(ask->admin->api, reply, &status);
        else if (kv && reply->code == REPLY_OK)
                json = api_http_kv_reply(ask->path, ask->post, reply, &status);
        else
                json = json_reply(ask, reply);
        ask->number = 0;
        ask_json(ask, status, json);
        ask_resume(ask);
}

/* For how long the node may wait before it answers, beyond what a decision takes. */
static uint64_t wait_ms_of(const struct request *request)
{
        if (request->kind == REQUEST_KV_WATCH)
                return request->kv.wait_ms;
        bool lock = request->kind == REQUEST_LOCK_ACQUIRE || request->kind == REQUEST_LOCK_WATCH;
        return lock ? request->lock.wait_ms : 0;
}

void ask_node(struct ask *ask, const struct request *request)
{
        struct api_waiter waiter = {ask, ask_answer};
        struct api_admin *admin = ask->admin;
        ask->kind = request->kind;
        if (wait_ms_of(request) > 0 && admin->wait_count >= API_ASKS_WAIT_MAX) {
                ask_error(ask, MHD_HTTP_TOO_MANY_REQUESTS, "LIMIT",
                          "too many wait over HTTP: ask another node, or wait over RESP");
                return;
        }
        if (wait_ms_of(request) > 0) {
                ask->waits = true;
                admin->wait_count++;
        }
        if (api_ask(ask->admin->api, request, waiter, &ask->number) == 0)
                ask_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "LIMIT",
                          "too many requests wait: try again");
}
