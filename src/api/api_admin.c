/* api_admin.c - the administration's door: HTTP by libmicrohttpd, run on the loop's own thread: its
 * epoll set is watched by a uv_poll, its time-outs by a uv_timer.
 *
 * A request that the node must decide suspends its connection; the answer resumes it. Bodies are
 * bounded by API_BODY_MAX, connections by API_CONNECTIONS_MAX, and each must end a request within
 * API_REQUEST_MS, so that clients who send drop by drop do not keep the others out. A POST that a
 * browser sends for a page of another origin is refused: a door on a loopback address is reachable
 * by every page that the machine's user opens. */
#include "api/api_priv.h"
#include "base/check.h"
#include "merge/merge.h"
#include "node/status.h"
#include "topology/topology.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define API_BODY_MAX        ((size_t)1 << 20)
#define API_CONNECTIONS_MAX 512
#define API_IDLE_S          30
#define API_REQUEST_MS      30000
#define API_LOOK_MS         1000

struct api_admin {
        struct api *api;
        struct MHD_Daemon *daemon;
        uv_poll_t poll;
        uv_timer_t timer;
        struct ask *asks;
        struct visit *visits;
        size_t visit_count;
        uint64_t tickets;   /* of verifications, ever */
        uint64_t looked_ms; /* when visits were last looked through */
        unsigned handles;
        bool closing;
};

/* One connection. */
struct visit {
        struct MHD_Connection *connection;
        struct visit *previous;
        struct visit *next;
        uint64_t until_ms; /* by then it has ended a request, or is ended */
};

/* One HTTP request. */
struct ask {
        struct api_admin *admin;
        struct MHD_Connection *connection;
        struct ask *previous;
        struct ask *next;
        const char *path;
        bool post;
        bool too_long;
        bool suspended;
        uint64_t number; /* of a request to the node; 0: none waits */
        uint64_t ticket; /* of a verification that waits; 0: none */
        enum request_kind kind;
        struct buffer body;
        struct buffer out;
        unsigned status; /* of the answer; 0: none yet */
        const char *type;
};

/* ---- answers ---- */

static void answer_json(struct ask *ask, unsigned status, json_t *json)
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

static void answer_error(struct ask *ask, unsigned status, const char *code, const char *text)
{
        answer_json(ask, status, json_pack("{s:s, s:s}", "code", code, "error", text));
}

static void answer_text(struct ask *ask, const char *type)
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
               kind == REQUEST_LOCK_RELEASE || kind == REQUEST_LOCK_LOOK;
}

static json_t *json_reply(const struct ask *ask, const struct reply *reply)
{
        if (reply->code == REPLY_OK && is_lock(ask->kind))
                return api_http_lock_reply(reply);
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

static void run_soon(struct api_admin *admin);

static void ask_resume(struct ask *ask)
{
        if (!ask->suspended)
                return;
        ask->suspended = false;
        MHD_resume_connection(ask->connection);
        run_soon(ask->admin);
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
        answer_json(ask, status, json);
        ask_resume(ask);
}

static void node_ask(struct ask *ask, const struct request *request)
{
        struct api_waiter waiter = {ask, ask_answer};
        ask->kind = request->kind;
        if (api_ask(ask->admin->api, request, waiter, &ask->number) == 0)
                answer_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "LIMIT",
                             "too many requests wait: try again");
}

/* ---- what can be asked ---- */

static const char *query(const struct ask *ask, const char *key)
{
        return MHD_lookup_connection_value(ask->connection, MHD_GET_ARGUMENT_KIND, key);
}

static struct bytes actor(const struct ask *ask)
{
        const char *name = query(ask, "actor");
        return name == NULL ? BYTES("admin") : bytes_of_str(name);
}

static bool query_number(const struct ask *ask, const char *key, uint64_t otherwise,
                         uint64_t *ret_value)
{
        const char *text = query(ask, key);
        char *end = NULL;
        *ret_value = otherwise;
        if (text == NULL)
                return true;
        errno = 0;
        *ret_value = strtoull(text, &end, 10);
        return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

static void get_status(struct ask *ask)
{
        answer_json(ask, MHD_HTTP_OK, api_json_status(ask->admin->api));
}

static void get_healthz(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        if (host->status(host->context)->stopped) {
                answer_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "STOPPED",
                             "a journal failed: this node takes no part in agreement");
                return;
        }
        buffer_bytes(&ask->out, BYTES("ok\n"));
        answer_text(ask, "text/plain");
}

static void get_events(struct ask *ask)
{
        uint64_t since = 0;
        if (query_number(ask, "since", 0, &since))
                answer_json(ask, MHD_HTTP_OK, api_json_events(ask->admin->api, since));
        else
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "since is not a number");
}

static void get_conflicts(struct ask *ask)
{
        uint64_t since = 0;
        if (query_number(ask, "since", 0, &since))
                answer_json(ask, MHD_HTTP_OK,
                            api_json_conflicts(ask->admin->api, since, query(ask, "prefix")));
        else
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "since is not a number");
}

/* u8 form (1), u32 shards, u64 walk, u64 keys, then the payload as the module made it. */
static void answer_verified(struct ask *ask, const struct api_verified *verified)
{
        if (verified->why != NULL) {
                answer_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "REDIS", verified->why);
                return;
        }
        buffer_reset(&ask->out);
        buffer_u8(&ask->out, 1);
        buffer_u32(&ask->out, verified->shards);
        buffer_u64(&ask->out, verified->walk);
        buffer_u64(&ask->out, verified->keys);
        buffer_bytes(&ask->out, verified->payload);
        answer_text(ask, "application/octet-stream");
}

void api_admin_verified(struct api_admin *admin, uint64_t ticket,
                        const struct api_verified *verified)
{
        struct ask *ask = admin->closing ? NULL : admin->asks;
        while (ask != NULL && ask->ticket != ticket)
                ask = ask->next;
        if (ask == NULL)
                return;
        ask->ticket = 0;
        answer_verified(ask, verified);
        ask_resume(ask);
}

static void post_verify(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        const char *prefix = query(ask, "prefix");
        struct api_verified failed = {.why = "this node has no Redis"};
        struct api_verify wanted = {.prefix = bytes_of_str(prefix == NULL ? "" : prefix),
                                    .map = buffer_view(&ask->body)};
        uint64_t shard = 0;
        uint64_t positions = 0;
        if (!query_number(ask, "shard", 0, &shard) || shard > UINT16_MAX ||
            !query_number(ask, "walk", 0, &wanted.walk) || wanted.walk > INT64_MAX ||
            !query_number(ask, "positions", 0, &positions)) {
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
                             "shard, walk and positions are numbers");
                return;
        }
        wanted.shard = (unsigned)shard;
        wanted.positions = positions != 0;
        ask->ticket = ++ask->admin->tickets;
        if (host->verify != NULL)
                failed.why = host->verify(host->context, ask->ticket, &wanted);
        if (failed.why == NULL)
                return;
        ask->ticket = 0;
        answer_verified(ask, &failed);
}

static void get_topology(struct ask *ask)
{
        struct request request = {.kind = REQUEST_TOPOLOGY_GET};
        node_ask(ask, &request);
}

static void get_why_route(struct ask *ask)
{
        const char *client = query(ask, "client");
        const char *name = query(ask, "name");
        const char *problem = "client=ADDRESS and name=NAME are wanted";
        json_t *json = NULL;
        if (client != NULL && name != NULL)
                json = api_json_why_route(ask->admin->api, client, name, &problem);
        if (json == NULL && problem != NULL)
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", problem);
        else
                answer_json(ask, MHD_HTTP_OK, json);
}

static void get_metrics(struct ask *ask)
{
        api_metrics(ask->admin->api, &ask->out);
        answer_text(ask, "text/plain; version=0.0.4");
}

/* Merge functions that do not compile. What else is wrong with the document the node says. */
static bool functions_refused(struct ask *ask)
{
        char why[MERGE_WHY_SIZE], text[MERGE_WHY_SIZE + 64];
        struct topology_error error;
        struct heap *heap = &ask->admin->api->heap;
        struct topology *topology = heap_alloc(heap, sizeof *topology);
        bool refused = false;
        if (topology != NULL && topology_parse(buffer_view(&ask->body), topology, &error)) {
                for (uint32_t i = 0; i < topology->function_count && !refused; i++) {
                        const struct topology_function *function = &topology->functions[i];
                        refused = !merge_check(heap, bytes_of_str(function->text), why);
                        if (!refused)
                                continue;
                        (void)snprintf(text, sizeof text, "function %s, text: %s; correct it",
                                       function->name, why);
                        answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", text);
                }
        }
        heap_free(heap, topology);
        return refused;
}

static void post_topology(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        struct request request = {.kind = REQUEST_TOPOLOGY_APPLY};
        request.topology.document = buffer_view(&ask->body);
        request.topology.actor = actor(ask);
        if (ask->body.len == 0 || ask->body.len > REQUEST_DOCUMENT_BYTES_MAX)
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
                             "the body must be a topology of at most 512 KiB");
        else if (!query_number(ask, "epoch", host->topology(host->context)->epoch,
                               &request.topology.epoch))
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "epoch is not a number");
        else if (!functions_refused(ask))
                node_ask(ask, &request);
}

static const struct {
        const char *word;
        enum request_action action;
} actions[] = {
        {"drain", REQUEST_DRAIN},
        {"undrain", REQUEST_UNDRAIN},
        {"isolate", REQUEST_ISOLATE},
        {"unisolate", REQUEST_UNISOLATE},
};

/* /region/NAME/ACTION */
static void post_region(struct ask *ask)
{
        const char *name = ask->path + strlen("/region/");
        const char *slash = strchr(name, '/');
        const char *why = query(ask, "why");
        struct request request = {.kind = REQUEST_REGION};
        for (size_t i = 0; slash != NULL && i < COUNT_OF(actions); i++) {
                if (strcmp(slash + 1, actions[i].word) != 0)
                        continue;
                request.region.region = bytes_of(name, (size_t)(slash - name));
                request.region.action = actions[i].action;
                request.region.actor = actor(ask);
                request.region.why = bytes_of_str(why == NULL ? "" : why);
                node_ask(ask, &request);
                return;
        }
        answer_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND",
                     "want /region/NAME/drain, undrain, isolate or unisolate");
}

/* /postgres/ACTION?to=NODE or REGION */
static void post_postgres(struct ask *ask)
{
        const char *to = query(ask, "to"), *force = query(ask, "force");
        struct request request = {.kind = REQUEST_POSTGRES};
        if (!api_postgres_post(ask->path, force != NULL && strcmp(force, "1") == 0, &request)) {
                answer_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND",
                             "want /postgres/switchover, failover (force=1) or abort");
                return;
        }
        request.postgres.target = bytes_of_str(to == NULL ? "" : to);
        request.postgres.actor = actor(ask);
        if (request.postgres.target.len > REQUEST_NAME_BYTES_MAX ||
            request.postgres.actor.len > REQUEST_NAME_BYTES_MAX)
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "a name is too long");
        else
                node_ask(ask, &request);
}

static void get_lock(struct ask *ask)
{
        struct request request = {.kind = REQUEST_LOCK_LOOK};
        api_http_lock_get(ask->path, &request);
        node_ask(ask, &request);
}

static void post_lock(struct ask *ask)
{
        struct request request = {.kind = REQUEST_LOCK_ACQUIRE};
        const char *problem = NULL;
        json_t *body = api_http_lock_post(ask->path, buffer_view(&ask->body), &request, &problem);
        if (body == NULL)
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", problem);
        else
                node_ask(ask, &request);
        json_decref(body);
}

static const char *kv_query(const void *who, const char *key)
{
        return query(who, key);
}

static void ask_kv(struct ask *ask)
{
        struct api *api = ask->admin->api;
        struct request request;
        struct api_http_kv http = {
                .path = ask->path,
                .post = ask->post,
                .body = buffer_view(&ask->body),
                .actor = actor(ask),
                .query = kv_query,
                .who = ask,
                .txn = &api->txn,
                .bytes = &api->bytes,
                .request = &request,
        };
        if (http.actor.len > REQUEST_NAME_BYTES_MAX)
                http.actor.len = REQUEST_NAME_BYTES_MAX;
        if (api_http_kv_request(&http))
                node_ask(ask, &request);
        else
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", http.problem);
        json_decref(http.json);
}

static void post_session(struct ask *ask)
{
        struct request request = {.kind = REQUEST_SESSION_OPEN};
        const char *problem = NULL;
        json_t *body = api_session_post(ask->path, buffer_view(&ask->body), &request, &problem);
        if (body == NULL)
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", problem);
        else
                node_ask(ask, &request);
        json_decref(body);
}

static void get_service(struct ask *ask)
{
        struct api *api = ask->admin->api;
        struct request request;
        if (api_services_request(ask->path, &api->bytes, &api->txn, &request))
                node_ask(ask, &request);
        else
                answer_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
                             "want /services/NAME; a name has a-z, 0-9 and '-'");
}

static void post_lab_link(struct ask *ask)
{
        const struct api *api = ask->admin->api;
        struct api_impairment impairment = {0};
        const char *region = NULL;
        json_int_t delay_us = 0;
        json_int_t slow_us = 0;
        int loss = 0;
        int cut = 0;
        if (!api->lab || api->host.impair == NULL) {
                answer_error(
                        ask, MHD_HTTP_FORBIDDEN, "REFUSED",
                        "this node's configuration does not allow it (lab { impairments on })");
                return;
        }
        json_t *json = json_loadb((const char *)ask->body.ptr, ask->body.len, 0, NULL);
        bool good = json != NULL &&
                    json_unpack(json, "{s:s, s?I, s?I, s?i, s?b}", "region", &region, "delay_us",
                                &delay_us, "slow_us", &slow_us, "loss_per_mille", &loss, "cut",
                                &cut) == 0 &&
                    delay_us >= 0 && delay_us <= 60000000 && slow_us >= 0 && slow_us <= 60000000 &&
                    loss >= 0 && loss <= 1000;
        enum err err = ERR_INVALID;
        if (good) {
                impairment.delay_us = (uint64_t)delay_us;
                impairment.slow_us = (uint64_t)slow_us;
                impairment.loss_per_mille = (uint32_t)loss;
                impairment.cut = cut != 0;
                err = api->host.impair(api->host.context, bytes_of_str(region), &impairment);
        }
        json_decref(json);
        if (err == ERR_NONE)
                answer_json(ask, MHD_HTTP_OK, json_pack("{s:b}", "done", 1));
        else
                answer_error(ask, err == ERR_NOT_FOUND ? MHD_HTTP_NOT_FOUND : MHD_HTTP_BAD_REQUEST,
                             "REFUSED", good ? err_text(err) : "want {\"region\": ...}");
}

static void get_backup(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        enum err err = ERR_UNSUPPORTED;
        if (host->backup != NULL)
                err = host->backup(host->context, &ask->out);
        if (err == ERR_NONE)
                answer_text(ask, "application/octet-stream");
        else
                answer_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "LIMIT", err_text(err));
}

static void get_index(struct ask *ask);

struct route {
        const char *path; /* ends with '/': what begins so */
        bool post;
        void (*handle)(struct ask *ask);
        const char *help;
};

static const struct route routes[] = {
        {"/status", false, get_status, "what this node knows"},
        {"/healthz", false, get_healthz, "ok while the daemon takes part"},
        {"/events", false, get_events, "?since=N: what happened"},
        {"/conflicts", false, get_conflicts, "?since=N&prefix=P: what concurrent writes lost"},
        {"/topology", false, get_topology, "the document in force"},
        {"/topology", true, post_topology, "?epoch=N: apply a document"},
        {"/region/", true, post_region, "NAME/drain, undrain, isolate, unisolate"},
        {"/postgres/", true, post_postgres, "switchover, failover, abort; ?to=NODE or REGION"},
        {"/verify", true, post_verify, "digests of the region's keys: `meridian verify`"},
        {"/backup", false, get_backup, "what this node's groups hold: `meridian backup`"},
        {"/why-route", false, get_why_route, "?client=ADDRESS&name=NAME: which region, and why"},
        {"/metrics", false, get_metrics, "for Prometheus"},
        {"/locks/", false, get_lock, "KEY: who holds it"},
        {"/locks/", true, post_lock, "KEY/acquire, renew, release"},
        {"/kv/", false, ask_kv, "KEY?revision=N&stale=1: a value"},
        {"/kv/", true, ask_kv, "KEY/put, delete"},
        {"/kv", false, ask_kv, "?prefix=P&after=KEY&limit=N&stale=1: values"},
        {"/kv", true, ask_kv, "a transaction of several keys"},
        {"/kv-history", false, ask_kv, "?key=KEY: its versions, newest first"},
        {"/kv-watch", false, ask_kv, "?prefix=P&after=REVISION&wait_ms=N: changes"},
        {"/sessions/", true, post_session,
         "open, keep, close: for locks, and keys that end with it"},
        {"/services/", false, get_service, "NAME: its instances, the nearest first"},
        {"/lab/link", true, post_lab_link, "delay, loss and cuts; only in a lab"},
        {"/index", false, get_index, "this list; also at /"},
};

static void get_index(struct ask *ask)
{
        for (size_t i = 0; i < COUNT_OF(routes); i++)
                buffer_format(&ask->out, "%-4s %-12s %s\n", routes[i].post ? "POST" : "GET",
                              routes[i].path, routes[i].help);
        answer_text(ask, "text/plain");
}

static bool route_is(const struct route *route, const char *path)
{
        size_t len = strlen(route->path);
        if (route->path[len - 1] == '/')
                return strncmp(route->path, path, len) == 0;
        return strcmp(route->path, path) == 0;
}

/* A page of another origin. Programs send no Origin. */
static bool origin_foreign(const struct ask *ask)
{
        const char *origin =
                MHD_lookup_connection_value(ask->connection, MHD_HEADER_KIND, "Origin");
        const char *host = MHD_lookup_connection_value(ask->connection, MHD_HEADER_KIND, "Host");
        if (origin == NULL)
                return false;
        const char *mark = strstr(origin, "://");
        return host == NULL || mark == NULL || strcmp(mark + 3, host) != 0;
}

static void ask_run(struct ask *ask)
{
        bool known = false;
        const char *path = strcmp(ask->path, "/") == 0 ? "/index" : ask->path;
        ask->admin->api->http_requests++;
        if (ask->too_long) {
                answer_error(ask, MHD_HTTP_CONTENT_TOO_LARGE, "LIMIT", "the body is too long");
                return;
        }
        if (ask->post && origin_foreign(ask)) {
                answer_error(ask, MHD_HTTP_FORBIDDEN, "REFUSED",
                             "a page of another origin may not change anything here");
                return;
        }
        for (size_t i = 0; i < COUNT_OF(routes); i++) {
                if (!route_is(&routes[i], path))
                        continue;
                known = true;
                if (routes[i].post == ask->post) {
                        routes[i].handle(ask);
                        return;
                }
        }
        if (known)
                answer_error(ask, MHD_HTTP_METHOD_NOT_ALLOWED, "BADREQUEST",
                             ask->post ? "use GET here" : "use POST here");
        else
                answer_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND",
                             "nothing is here; GET / lists what is");
}

/* ---- libmicrohttpd ---- */

static enum MHD_Result ask_respond(struct ask *ask)
{
        if (ask->out.err != ERR_NONE)
                return MHD_NO;
        struct MHD_Response *response =
                MHD_create_response_from_buffer(ask->out.len, ask->out.ptr, MHD_RESPMEM_MUST_COPY);
        if (response == NULL)
                return MHD_NO;
        MHD_add_response_header(response, "Content-Type", ask->type);
        MHD_add_response_header(response, "Cache-Control", "no-store");
        enum MHD_Result result = MHD_queue_response(ask->connection, ask->status, response);
        MHD_destroy_response(response);
        return result;
}

static struct ask *ask_new(struct api_admin *admin, struct MHD_Connection *connection,
                           const char *path, const char *method)
{
        struct ask *ask = heap_alloc(&admin->api->heap, sizeof *ask);
        if (ask == NULL)
                return NULL;
        ask->admin = admin;
        ask->connection = connection;
        ask->path = path;
        ask->post = strcmp(method, "POST") == 0;
        buffer_init(&ask->body, &admin->api->heap);
        buffer_init(&ask->out, &admin->api->heap);
        ask->next = admin->asks;
        if (admin->asks != NULL)
                admin->asks->previous = ask;
        admin->asks = ask;
        return ask;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **ask_slot)
{
        struct ask *ask = *ask_slot;
        (void)version;
        if (ask == NULL) {
                *ask_slot = ask_new(context, connection, url, method);
                return *ask_slot == NULL ? MHD_NO : MHD_YES;
        }
        if (*data_len > 0) {
                ask->too_long = ask->too_long || *data_len > API_BODY_MAX - ask->body.len;
                if (!ask->too_long)
                        buffer_bytes(&ask->body, bytes_of(data, *data_len));
                *data_len = 0;
                return MHD_YES;
        }
        if (ask->status != 0)
                return ask_respond(ask);
        if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 && !ask->post)
                answer_error(ask, MHD_HTTP_METHOD_NOT_ALLOWED, "BADREQUEST", "use GET or POST");
        else
                ask_run(ask);
        if (ask->status != 0)
                return ask_respond(ask);
        CHECK(ask->number != 0 || ask->ticket != 0);
        ask->suspended = true;
        MHD_suspend_connection(connection);
        return MHD_YES;
}

/* ---- connections ---- */

static void visit_begin(struct api_admin *admin, struct MHD_Connection *connection, void **ret_slot)
{
        struct visit *visit = heap_alloc(&admin->api->heap, sizeof *visit);
        *ret_slot = visit;
        if (visit == NULL)
                return;
        visit->connection = connection;
        visit->until_ms = uv_now(admin->api->loop) + API_REQUEST_MS;
        visit->next = admin->visits;
        if (admin->visits != NULL)
                admin->visits->previous = visit;
        admin->visits = visit;
        admin->visit_count++;
}

static void visit_end(struct api_admin *admin, struct visit *visit)
{
        if (visit->previous == NULL)
                admin->visits = visit->next;
        else
                visit->previous->next = visit->next;
        if (visit->next != NULL)
                visit->next->previous = visit->previous;
        heap_free(&admin->api->heap, visit);
        admin->visit_count--;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **slot,
                          enum MHD_ConnectionNotificationCode code)
{
        if (code == MHD_CONNECTION_NOTIFY_STARTED)
                visit_begin(context, connection, slot);
        else if (*slot != NULL)
                visit_end(context, *slot);
}

static void visit_prolong(struct api_admin *admin, struct MHD_Connection *connection)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        struct visit *visit = info == NULL ? NULL : info->socket_context;
        if (visit != NULL)
                visit->until_ms = uv_now(admin->api->loop) + API_REQUEST_MS;
}

/* Shuts the late ones' sockets; the library then sees their end and frees them. */
static void visits_look(struct api_admin *admin)
{
        uint64_t now_ms = uv_now(admin->api->loop);
        if (now_ms < admin->looked_ms + API_LOOK_MS)
                return;
        admin->looked_ms = now_ms;
        for (struct visit *visit = admin->visits; visit != NULL; visit = visit->next) {
                const union MHD_ConnectionInfo *info = MHD_get_connection_info(
                        visit->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
                if (now_ms >= visit->until_ms && info != NULL)
                        (void)shutdown(info->connect_fd, SHUT_RDWR);
        }
}

static void on_completed(void *context, struct MHD_Connection *connection, void **ask_slot,
                         enum MHD_RequestTerminationCode code)
{
        struct ask *ask = *ask_slot;
        struct api_admin *admin = context;
        (void)code;
        if (ask == NULL)
                return;
        visit_prolong(admin, connection);
        if (ask->number != 0 && !admin->closing)
                api_drop(admin->api, ask->number);
        if (ask->previous == NULL)
                admin->asks = ask->next;
        else
                ask->previous->next = ask->next;
        if (ask->next != NULL)
                ask->next->previous = ask->previous;
        buffer_fini(&ask->body);
        buffer_fini(&ask->out);
        heap_free(&admin->api->heap, ask);
        *ask_slot = NULL;
}

static void on_log(void *context, const char *format, va_list args)
{
        /* Refused clients are no news for the daemon's log. */
        (void)context;
        (void)format;
        (void)args;
}

/* ---- the loop ---- */

static void on_timer(uv_timer_t *timer);

static void run(struct api_admin *admin)
{
        MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
        if (admin->closing)
                return;
        size_t before = admin->visit_count;
        visits_look(admin);
        MHD_run(admin->daemon);
        /* At its limit of connections the library stops listening, and listens again only when it
         * is run after one has gone. */
        if (admin->visit_count < before)
                timeout_ms = 0;
        else if (MHD_get_timeout(admin->daemon, &timeout_ms) != MHD_YES || timeout_ms > API_LOOK_MS)
                timeout_ms = API_LOOK_MS;
        if (before > 0 || admin->visit_count > 0)
                uv_timer_start(&admin->timer, on_timer, timeout_ms, 0);
        else
                uv_timer_stop(&admin->timer);
}

static void on_timer(uv_timer_t *timer)
{
        run(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
        (void)status;
        (void)events;
        run(poll->data);
}

static void run_soon(struct api_admin *admin)
{
        uv_timer_start(&admin->timer, on_timer, 0, 0);
}

static void handle_closed(uv_handle_t *handle)
{
        struct api_admin *admin = handle->data;
        if (--admin->handles > 0)
                return;
        struct api *api = admin->api;
        free(admin);
        api_door_closed(api);
}

static int socket_listen(const char *host, uint16_t port, char *why, size_t why_size)
{
        struct sockaddr_storage name = {0};
        socklen_t len = sizeof(struct sockaddr_in);
        int one = 1;
        if (uv_ip4_addr(host, port, (struct sockaddr_in *)&name) != 0) {
                len = sizeof(struct sockaddr_in6);
                if (uv_ip6_addr(host, port, (struct sockaddr_in6 *)&name) != 0) {
                        snprintf(why, why_size, "admin: \"%s\" is not an IP address", host);
                        return -1;
                }
        }
        int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
            bind(fd, (struct sockaddr *)&name, len) == 0 && listen(fd, 128) == 0)
                return fd;
        snprintf(why, why_size, "admin: cannot listen on %s port %u: %s%s", host, port,
                 uv_strerror(uv_translate_sys_error(errno)),
                 errno == EADDRINUSE ? "; end what uses it, or set another one" : "");
        if (fd >= 0)
                close(fd);
        return -1;
}

enum err api_admin_new(struct api *api, const char *host, uint16_t port,
                       struct api_admin **ret_admin, char *why, size_t why_size)
{
        struct api_admin *admin = calloc(1, sizeof *admin);
        if (admin == NULL)
                return ERR_NOMEM;
        int fd = socket_listen(host, port, why, why_size);
        if (fd < 0) {
                int number = errno;
                free(admin);
                return number == EADDRINUSE ? ERR_EXISTS : ERR_IO;
        }
        admin->api = api;
        admin->daemon = MHD_start_daemon(
                MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                on_request, admin, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
                MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                (unsigned)API_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)API_IDLE_S,
                MHD_OPTION_NOTIFY_COMPLETED, on_completed, admin, MHD_OPTION_NOTIFY_CONNECTION,
                on_connection, admin, MHD_OPTION_END);
        if (admin->daemon == NULL) {
                snprintf(why, why_size, "admin: the HTTP server cannot be started");
                close(fd);
                free(admin);
                return ERR_IO;
        }
        const union MHD_DaemonInfo *info =
                MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        admin->handles = 2;
        admin->poll.data = admin;
        admin->timer.data = admin;
        uv_timer_init(api->loop, &admin->timer);
        CHECK(info != NULL);
        CHECK(uv_poll_init(api->loop, &admin->poll, info->epoll_fd) == 0);
        CHECK(uv_poll_start(&admin->poll, UV_READABLE, on_poll) == 0);
        admin->poll.data = admin;
        admin->timer.data = admin;
        *ret_admin = admin;
        return ERR_NONE;
}

uint16_t api_admin_bound(const struct api_admin *admin)
{
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        } name;
        socklen_t len = sizeof name;
        const union MHD_DaemonInfo *info =
                MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_LISTEN_FD);
        memset(&name, 0, sizeof name);
        if (info == NULL || getsockname(info->listen_fd, &name.any, &len) != 0)
                return 0;
        return ntohs(name.any.sa_family == AF_INET6 ? name.v6.sin6_port : name.v4.sin_port);
}

void api_admin_close(struct api_admin *admin)
{
        admin->closing = true;
        for (struct ask *ask = admin->asks; ask != NULL; ask = ask->next) {
                if (!ask->suspended)
                        continue;
                ask->suspended = false;
                answer_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "CLOSING", "the daemon is ending");
                MHD_resume_connection(ask->connection);
        }
        uv_poll_stop(&admin->poll);
        MHD_stop_daemon(admin->daemon);
        admin->daemon = NULL;
        uv_close((uv_handle_t *)&admin->poll, handle_closed);
        uv_close((uv_handle_t *)&admin->timer, handle_closed);
}
