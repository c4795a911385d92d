/* api_routes.c - what the administration's door can be asked: a row each. One is answered at once,
 * or becomes a request to the node; what is wrong with it is said in a sentence. */
#include "api/api_ask.h"
#include "merge/merge.h"
#include "node/status.h"
#include "topology/topology.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

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
        ask_json(ask, MHD_HTTP_OK, api_json_status(ask->admin->api));
}

static void get_healthz(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        if (host->status(host->context)->stopped) {
                ask_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "STOPPED",
                          "a journal failed: this node takes no part in agreement");
                return;
        }
        buffer_bytes(&ask->out, BYTES("ok\n"));
        ask_text(ask, "text/plain");
}

static void get_events(struct ask *ask)
{
        uint64_t since = 0;
        if (query_number(ask, "since", 0, &since))
                ask_json(ask, MHD_HTTP_OK, api_json_events(ask->admin->api, since));
        else
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "since is not a number");
}

static void get_conflicts(struct ask *ask)
{
        uint64_t since = 0;
        if (query_number(ask, "since", 0, &since))
                ask_json(ask, MHD_HTTP_OK,
                         api_json_conflicts(ask->admin->api, since, query(ask, "prefix")));
        else
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "since is not a number");
}

/* u8 form (1), u32 shards, u64 walk, u64 keys, then the payload as the module made it. */
static void answer_verified(struct ask *ask, const struct api_verified *verified)
{
        if (verified->why != NULL) {
                ask_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "REDIS", verified->why);
                return;
        }
        buffer_reset(&ask->out);
        buffer_u8(&ask->out, 1);
        buffer_u32(&ask->out, verified->shards);
        buffer_u64(&ask->out, verified->walk);
        buffer_u64(&ask->out, verified->keys);
        buffer_bytes(&ask->out, verified->payload);
        ask_text(ask, "application/octet-stream");
}

/* Who waits for it; NULL: nobody any more. */
static struct ask *ticket_take(const struct api_admin *admin, uint64_t ticket)
{
        struct ask *ask = admin->closing ? NULL : admin->asks;
        while (ask != NULL && ask->ticket != ticket)
                ask = ask->next;
        if (ask != NULL)
                ask->ticket = 0;
        return ask;
}

void api_admin_verified(struct api_admin *admin, uint64_t ticket,
                        const struct api_verified *verified)
{
        struct ask *ask = ticket_take(admin, ticket);
        if (ask == NULL)
                return;
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
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
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
        ask_node(ask, &request);
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
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", problem);
        else
                ask_json(ask, MHD_HTTP_OK, json);
}

static void get_metrics(struct ask *ask)
{
        api_metrics(ask->admin->api, &ask->out);
        ask_text(ask, "text/plain; version=0.0.4");
}

static void get_doors(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        if (host->doors == NULL) {
                ask_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND", "there are no doors here");
                return;
        }
        host->doors(host->context, &ask->out);
        ask_text(ask, "application/json");
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
                        ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", text);
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
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
                          "the body must be a topology of at most 512 KiB");
        else if (!query_number(ask, "epoch", host->topology(host->context)->epoch,
                               &request.topology.epoch))
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "epoch is not a number");
        else if (!functions_refused(ask))
                ask_node(ask, &request);
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
                ask_node(ask, &request);
                return;
        }
        ask_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND",
                  "want /region/NAME/drain, undrain, isolate or unisolate");
}

/* /postgres/ACTION?to=NODE or REGION */
static void post_postgres(struct ask *ask)
{
        const char *to = query(ask, "to"), *force = query(ask, "force");
        struct request request = {.kind = REQUEST_POSTGRES};
        if (!api_postgres_post(ask->path, force != NULL && strcmp(force, "1") == 0, &request)) {
                ask_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND",
                          "want /postgres/switchover, failover (force=1) or abort");
                return;
        }
        request.postgres.target = bytes_of_str(to == NULL ? "" : to);
        request.postgres.actor = actor(ask);
        if (request.postgres.target.len > REQUEST_NAME_BYTES_MAX ||
            request.postgres.actor.len > REQUEST_NAME_BYTES_MAX)
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", "a name is too long");
        else
                ask_node(ask, &request);
}

static void get_lock(struct ask *ask)
{
        struct request request = {.kind = REQUEST_LOCK_LOOK};
        api_http_lock_get(ask->path, &request);
        ask_node(ask, &request);
}

static void get_locks(struct ask *ask)
{
        struct request request;
        const char *const numbers[2] = {query(ask, "after"), query(ask, "limit")};
        if (api_http_lock_list(query(ask, "prefix"), numbers, &request))
                ask_node(ask, &request);
        else
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
                          "want prefix=PREFIX, e.g. global:; after and limit are numbers");
}

static void get_lock_watch(struct ask *ask)
{
        struct request request;
        const char *const numbers[3] = {query(ask, "after"), query(ask, "wait_ms"),
                                        query(ask, "copy")};
        if (api_http_lock_watch(query(ask, "key"), query(ask, "prefix"), numbers, &request))
                ask_node(ask, &request);
        else
                ask_error(
                        ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
                        "want key=KEY or prefix=PREFIX; after and wait_ms are numbers, copy is 1");
}

static void post_lock(struct ask *ask)
{
        struct request request = {.kind = REQUEST_LOCK_ACQUIRE};
        const char *problem = NULL;
        json_t *body = api_http_lock_post(ask->path, buffer_view(&ask->body), &ask->admin->api->txn,
                                          &request, &problem);
        if (body == NULL)
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", problem);
        else
                ask_node(ask, &request);
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
                ask_node(ask, &request);
        else
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", http.problem);
        json_decref(http.json);
}

static void post_session(struct ask *ask)
{
        struct request request = {.kind = REQUEST_SESSION_OPEN};
        const char *problem = NULL;
        json_t *body = api_session_post(ask->path, buffer_view(&ask->body), &request, &problem);
        if (body == NULL)
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST", problem);
        else
                ask_node(ask, &request);
        json_decref(body);
}

static void get_service(struct ask *ask)
{
        struct api *api = ask->admin->api;
        struct request request;
        if (api_services_request(ask->path, &api->bytes, &api->txn, &request))
                ask_node(ask, &request);
        else
                ask_error(ask, MHD_HTTP_BAD_REQUEST, "BADREQUEST",
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
                ask_error(ask, MHD_HTTP_FORBIDDEN, "REFUSED",
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
                ask_json(ask, MHD_HTTP_OK, json_pack("{s:b}", "done", 1));
        else
                ask_error(ask, err == ERR_NOT_FOUND ? MHD_HTTP_NOT_FOUND : MHD_HTTP_BAD_REQUEST,
                          "REFUSED", good ? err_text(err) : "want {\"region\": ...}");
}

static void answer_backup(struct ask *ask, enum err err)
{
        ask->ticket = 0;
        if (err == ERR_NONE)
                ask_text(ask, "application/octet-stream");
        else
                ask_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "LIMIT",
                          err == ERR_BUSY ? "a backup is being made for somebody: ask again"
                                          : err_text(err));
}

void api_admin_backed_up(struct api_admin *admin, uint64_t ticket, enum err err,
                         struct buffer *backup)
{
        struct ask *ask = ticket_take(admin, ticket);
        if (ask == NULL)
                return;
        struct buffer empty = ask->out;
        ask->out = *backup;
        *backup = empty;
        answer_backup(ask, err);
        ask_resume(ask);
}

static void get_backup(struct ask *ask)
{
        const struct api_host *host = &ask->admin->api->host;
        enum err err = ERR_UNSUPPORTED;
        ask->ticket = ++ask->admin->tickets;
        if (host->backup != NULL)
                err = host->backup(host->context, ask->ticket);
        if (err != ERR_NONE)
                answer_backup(ask, err);
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
        {"/postgres-sessions", false, get_doors, "who is connected by PostgreSQL's doors"},
        {"/verify", true, post_verify, "digests of the region's keys: `meridian verify`"},
        {"/backup", false, get_backup, "what this node's groups hold: `meridian backup`"},
        {"/why-route", false, get_why_route, "?client=ADDRESS&name=NAME: which region, and why"},
        {"/metrics", false, get_metrics, "for Prometheus"},
        {"/locks/", false, get_lock, "KEY: who holds it"},
        {"/locks/", true, post_lock, "KEY/acquire, renew, release, break"},
        {"/locks", false, get_locks, "?prefix=P&after=TOKEN&limit=N: what is held"},
        {"/lock-watch", false, get_lock_watch,
         "?key=KEY or prefix=P&after=REVISION&wait_ms=N&copy=1: changes"},
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
        ask_text(ask, "text/plain");
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

void ask_run(struct ask *ask)
{
        bool known = false;
        const char *path = strcmp(ask->path, "/") == 0 ? "/index" : ask->path;
        ask->admin->api->http_requests++;
        if (ask->too_long) {
                ask_error(ask, MHD_HTTP_CONTENT_TOO_LARGE, "LIMIT", "the body is too long");
                return;
        }
        if (ask->post && origin_foreign(ask)) {
                ask_error(ask, MHD_HTTP_FORBIDDEN, "REFUSED",
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
                ask_error(ask, MHD_HTTP_METHOD_NOT_ALLOWED, "BADREQUEST",
                          ask->post ? "use GET here" : "use POST here");
        else
                ask_error(ask, MHD_HTTP_NOT_FOUND, "NOTFOUND",
                          "nothing is here; GET / lists what is");
}
