/* ngx_http_meridian_module.c - nginx's doors to edge.c: the directive, the balancer, the variables.
 *
 * Each worker has a reader of its own for each upstream and looks after its file once a second. A
 * request asks edge.c whenever nginx wants a peer, so also a second try sees the newest view. What
 * a request keeps of it is a copy of one endpoint. If there is none to give, nginx says 502, as it
 * does when all of its own servers are down. */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "edge.h"

#define REFRESH_MS  1000
#define REASON_SIZE 512

extern ngx_module_t ngx_http_meridian_module;

/* One upstream block. */
struct upstream_conf {
        ngx_str_t path; /* NUL-terminated; empty: no directive in this block */
        ngx_flag_t has_servers;
        struct view_reader *reader; /* of this worker */
        struct edge_marks marks;
        struct edge_texts texts;
        uint32_t turn;
        enum err reported; /* what was logged last about the file */
        ngx_flag_t reported_once;
};

struct main_conf {
        ngx_array_t upstreams; /* struct upstream_conf * */
};

/* One request, for the variables. */
struct request_state {
        enum edge_route route;
        u_char region[TOPOLOGY_NAME_SIZE];
};

/* nginx keeps a peer's name for its logs, so each try gets one of its own. */
struct peer_name {
        ngx_str_t name;
        char text[TOPOLOGY_ENDPOINT_TEXT];
};

/* One request, for the balancer. Small, with all that a first try needs, for nearly every request
 * has no second: one more block of its pool would be the dearest thing here. */
struct peer_state {
        struct upstream_conf *conf;
        struct request_state request;
        struct edge_tried *tried; /* NULL before the second try */
        struct edge_choice choice;
        struct peer_name first_name;
        bool chosen; /* `choice` holds the last try */
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        } address;
        ngx_pool_t *pool;
};

/* The worker's look at the files. */

static struct main_conf *refresh_conf;
static ngx_event_t refresh_timer;
static ngx_connection_t refresh_dummy; /* nginx's debug log wants a descriptor with each timer */

static void upstream_look(struct upstream_conf *conf, ngx_log_t *log)
{
        char why[REASON_SIZE];
        enum err err = view_reader_refresh(conf->reader, why, sizeof why);
        if (err == ERR_BUSY || (conf->reported_once && conf->reported == err))
                return;
        /* ngx_log_error is an if of its own */
        if (err != ERR_NONE) {
                ngx_log_error(NGX_LOG_WARN, log, 0, "meridian: %s", why);
        } else if (conf->reported_once) {
                ngx_log_error(NGX_LOG_NOTICE, log, 0, "meridian: view %V is in use", &conf->path);
        }
        conf->reported = err;
        conf->reported_once = 1;
}

static struct main_conf *main_conf_of(ngx_cycle_t *cycle)
{
        if (ngx_get_conf(cycle->conf_ctx, ngx_http_module) == NULL)
                return NULL;
        return ngx_http_cycle_get_module_main_conf(cycle, ngx_http_meridian_module);
}

static void refresh(ngx_event_t *event)
{
        struct upstream_conf **upstreams = refresh_conf->upstreams.elts;
        for (ngx_uint_t i = 0; i < refresh_conf->upstreams.nelts; i++)
                upstream_look(upstreams[i], event->log);
        if (!ngx_exiting)
                ngx_add_timer(event, REFRESH_MS);
}

static ngx_int_t process_init(ngx_cycle_t *cycle)
{
        struct main_conf *conf = main_conf_of(cycle);
        if (conf == NULL || conf->upstreams.nelts == 0)
                return NGX_OK;
        struct upstream_conf **upstreams = conf->upstreams.elts;
        for (ngx_uint_t i = 0; i < conf->upstreams.nelts; i++) {
                upstreams[i]->reader = view_reader_new((const char *)upstreams[i]->path.data);
                if (upstreams[i]->reader == NULL)
                        return NGX_ERROR;
                upstreams[i]->turn = (uint32_t)ngx_pid;
                upstream_look(upstreams[i], cycle->log);
        }
        refresh_dummy.fd = (ngx_socket_t)-1;
        refresh_conf = conf;
        refresh_timer.handler = refresh;
        refresh_timer.data = &refresh_dummy;
        refresh_timer.log = cycle->log;
        refresh_timer.cancelable = 1;
        ngx_add_timer(&refresh_timer, REFRESH_MS);
        return NGX_OK;
}

static void process_exit(ngx_cycle_t *cycle)
{
        struct main_conf *conf = main_conf_of(cycle);
        if (conf == NULL)
                return;
        struct upstream_conf **upstreams = conf->upstreams.elts;
        for (ngx_uint_t i = 0; i < conf->upstreams.nelts; i++)
                view_reader_free(upstreams[i]->reader);
}

/* The balancer. */

static void address_set(struct peer_state *peer, ngx_peer_connection_t *connection)
{
        const struct topology_endpoint *backend = &peer->choice.backend;
        ngx_memzero(&peer->address, sizeof peer->address);
        if (backend->address.family == 4) {
                peer->address.v4.sin_family = AF_INET;
                peer->address.v4.sin_port = htons(backend->port);
                ngx_memcpy(&peer->address.v4.sin_addr, backend->address.bytes, 4);
                connection->socklen = sizeof peer->address.v4;
        } else {
                peer->address.v6.sin6_family = AF_INET6;
                peer->address.v6.sin6_port = htons(backend->port);
                ngx_memcpy(&peer->address.v6.sin6_addr, backend->address.bytes, 16);
                connection->socklen = sizeof peer->address.v6;
        }
        connection->sockaddr = &peer->address.any;
}

static ngx_int_t name_set(struct peer_state *peer, ngx_peer_connection_t *connection)
{
        struct peer_name *made = &peer->first_name;
        if (peer->tried != NULL)
                made = ngx_palloc(peer->pool, sizeof *made);
        if (made == NULL)
                return NGX_ERROR;
        made->name.len = edge_texts_get(&peer->conf->texts, &peer->choice.backend, made->text);
        made->name.data = (u_char *)made->text;
        connection->name = &made->name;
        return NGX_OK;
}

/* What came before goes to the backends that were tried. */
static ngx_int_t tried_note(struct peer_state *peer)
{
        if (!peer->chosen)
                return NGX_OK;
        if (peer->tried == NULL) {
                peer->tried = ngx_palloc(peer->pool, sizeof *peer->tried);
                if (peer->tried == NULL)
                        return NGX_ERROR;
                peer->tried->count = 0;
        }
        if (peer->tried->count < EDGE_TRIES_MAX)
                peer->tried->backends[peer->tried->count++] = peer->choice.backend;
        peer->chosen = false;
        return NGX_OK;
}

static ngx_int_t peer_get(ngx_peer_connection_t *connection, void *data)
{
        static const struct edge_tried none = {0};
        struct peer_state *peer = data;
        struct upstream_conf *conf = peer->conf;
        bool found = false;
        if (tried_note(peer) != NGX_OK)
                return NGX_ERROR;
        const struct view *view = view_enter(conf->reader, 0);
        if (view != NULL) {
                found = edge_choose(view, &conf->marks, ngx_current_msec,
                                    peer->tried == NULL ? &none : peer->tried, &conf->turn,
                                    &peer->choice);
                view_leave(conf->reader, 0, view);
        }
        if (!found) {
                peer->request.route = EDGE_ROUTE_NONE;
                ngx_log_error(NGX_LOG_ERR, connection->log, 0, "meridian: view %V %s", &conf->path,
                              view == NULL ? "has never been published" : "has no backend left");
                return NGX_BUSY;
        }
        connection->cached = 0;
        connection->connection = NULL;
        address_set(peer, connection);
        if (name_set(peer, connection) != NGX_OK)
                return NGX_ERROR;
        peer->chosen = true;
        peer->request.route = peer->choice.route;
        ngx_memcpy(peer->request.region, peer->choice.region, sizeof peer->request.region);
        return NGX_OK;
}

static void peer_free(ngx_peer_connection_t *connection, void *data, ngx_uint_t state)
{
        struct peer_state *peer = data;
        if (!peer->chosen && peer->tried == NULL)
                return;
        if (state & NGX_PEER_FAILED) {
                edge_mark(&peer->conf->marks, &peer->choice.backend, ngx_current_msec);
                peer->request.region[0] = '\0';
        } else if (peer->conf->marks.count > 0) {
                edge_unmark(&peer->conf->marks, &peer->choice.backend);
        }
        if (connection->tries > 0)
                connection->tries--;
}

#if (NGX_HTTP_SSL)
/* TLS sessions to backends are not kept: which backend comes next is not known. */
static ngx_int_t session_set(ngx_peer_connection_t *connection, void *data)
{
        (void)connection;
        (void)data;
        return NGX_OK;
}

static void session_save(ngx_peer_connection_t *connection, void *data)
{
        (void)connection;
        (void)data;
}
#endif

/* How many tries there are; 0 for no view. */
static size_t tries_count(struct upstream_conf *conf)
{
        const struct view *view = view_enter(conf->reader, 0);
        if (view == NULL)
                return 0;
        size_t count = edge_count(view);
        view_leave(conf->reader, 0, view);
        return count > 0 ? count : 1;
}

static ngx_int_t peer_init(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
        struct upstream_conf *conf = ngx_http_conf_upstream_srv_conf(us, ngx_http_meridian_module);
        struct peer_state *peer = ngx_palloc(r->pool, sizeof *peer);
        if (peer == NULL)
                return NGX_ERROR;
        peer->request.route = EDGE_ROUTE_NONE;
        peer->request.region[0] = '\0';
        ngx_http_set_ctx(r, &peer->request, ngx_http_meridian_module);
        size_t tries = tries_count(conf);
        if (tries == 0 && conf->has_servers) {
                peer->request.route = EDGE_ROUTE_SERVER_LINES;
                return ngx_http_upstream_init_round_robin_peer(r, us);
        }
        peer->conf = conf;
        peer->tried = NULL;
        peer->chosen = false;
        peer->pool = r->pool;
        r->upstream->peer.data = peer;
        r->upstream->peer.get = peer_get;
        r->upstream->peer.free = peer_free;
        r->upstream->peer.tries = tries;
#if (NGX_HTTP_SSL)
        r->upstream->peer.set_session = session_set;
        r->upstream->peer.save_session = session_save;
#endif
        return NGX_OK;
}

static ngx_int_t upstream_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
        struct upstream_conf *conf = ngx_http_conf_upstream_srv_conf(us, ngx_http_meridian_module);
        ngx_http_upstream_server_t *servers = us->servers->elts;
        for (ngx_uint_t i = 0; i < us->servers->nelts; i++)
                conf->has_servers |= servers[i].naddrs > 0;
#if (NGX_HTTP_UPSTREAM_ZONE)
        if (us->shm_zone != NULL && !conf->has_servers) {
                ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                              "\"zone\" in upstream \"%V\" needs server lines: take it out, "
                              "the view is shared already",
                              &us->host);
                return NGX_ERROR;
        }
#endif
        if (conf->has_servers && ngx_http_upstream_init_round_robin(cf, us) != NGX_OK)
                return NGX_ERROR;
        us->peer.init = peer_init;
        return NGX_OK;
}

/* Configuration. */

/* A list must not be empty for nginx, so the block gets one server without an address. */
static char *directive_meridian(ngx_conf_t *cf, ngx_command_t *command, void *data)
{
        struct upstream_conf *conf = data;
        ngx_str_t *words = cf->args->elts;
        ngx_http_upstream_srv_conf_t *us =
                ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
        struct main_conf *all = ngx_http_conf_get_module_main_conf(cf, ngx_http_meridian_module);
        static char duplicate[] = "is duplicate";
        (void)command;
        if (conf->path.len > 0)
                return duplicate;
        if (us->peer.init_upstream != NULL) {
                ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                                   "load balancing method redefined: \"meridian\" must come first");
        }
        conf->path = words[1];
        if (ngx_conf_full_name(cf->cycle, &conf->path, 1) != NGX_OK)
                return NGX_CONF_ERROR;
        struct upstream_conf **listed = ngx_array_push(&all->upstreams);
        ngx_http_upstream_server_t *server = ngx_array_push(us->servers);
        if (listed == NULL || server == NULL)
                return NGX_CONF_ERROR;
        *listed = conf;
        ngx_memzero(server, sizeof *server);
        ngx_str_set(&server->name, "meridian");
        us->peer.init_upstream = upstream_init;
        us->flags = NGX_HTTP_UPSTREAM_CREATE | NGX_HTTP_UPSTREAM_WEIGHT |
                    NGX_HTTP_UPSTREAM_MAX_CONNS | NGX_HTTP_UPSTREAM_MAX_FAILS |
                    NGX_HTTP_UPSTREAM_FAIL_TIMEOUT | NGX_HTTP_UPSTREAM_DOWN |
                    NGX_HTTP_UPSTREAM_BACKUP;
        return NGX_CONF_OK;
}

static void *main_conf_create(ngx_conf_t *cf)
{
        struct main_conf *conf = ngx_pcalloc(cf->pool, sizeof *conf);
        if (conf == NULL ||
            ngx_array_init(&conf->upstreams, cf->pool, 4, sizeof(struct upstream_conf *)) != NGX_OK)
                return NULL;
        return conf;
}

static void *upstream_conf_create(ngx_conf_t *cf)
{
        return ngx_pcalloc(cf->pool, sizeof(struct upstream_conf));
}

static ngx_int_t value_set(ngx_http_variable_value_t *value, const void *text)
{
        value->len = (unsigned)ngx_strlen(text) & 0xfffffffu;
        value->valid = 1;
        value->no_cacheable = 1;
        value->not_found = value->len == 0;
        union {
                const void *read;
                u_char *any;
        } bytes = {.read = text};
        value->data = bytes.any;
        return NGX_OK;
}

static ngx_int_t variable_region(ngx_http_request_t *r, ngx_http_variable_value_t *value,
                                 uintptr_t data)
{
        struct request_state *request = ngx_http_get_module_ctx(r, ngx_http_meridian_module);
        (void)data;
        return value_set(value, request == NULL ? (const u_char *)"" : request->region);
}

static ngx_int_t variable_route(ngx_http_request_t *r, ngx_http_variable_value_t *value,
                                uintptr_t data)
{
        struct request_state *request = ngx_http_get_module_ctx(r, ngx_http_meridian_module);
        (void)data;
        return value_set(value, request == NULL ? "" : edge_route_name(request->route));
}

static ngx_int_t variables_add(ngx_conf_t *cf)
{
        static ngx_str_t region = ngx_string("meridian_region");
        static ngx_str_t route = ngx_string("meridian_route");
        ngx_http_variable_t *variable =
                ngx_http_add_variable(cf, &region, NGX_HTTP_VAR_NOCACHEABLE);
        if (variable == NULL)
                return NGX_ERROR;
        variable->get_handler = variable_region;
        variable = ngx_http_add_variable(cf, &route, NGX_HTTP_VAR_NOCACHEABLE);
        if (variable == NULL)
                return NGX_ERROR;
        variable->get_handler = variable_route;
        return NGX_OK;
}

static ngx_command_t commands[] = {
        {
                .name = ngx_string("meridian"),
                .type = NGX_HTTP_UPS_CONF | NGX_CONF_TAKE1,
                .set = directive_meridian,
                .conf = NGX_HTTP_SRV_CONF_OFFSET,
        },
        ngx_null_command,
};

static ngx_http_module_t context = {
        .preconfiguration = variables_add,
        .create_main_conf = main_conf_create,
        .create_srv_conf = upstream_conf_create,
};

ngx_module_t ngx_http_meridian_module = {
        NGX_MODULE_V1,
        .ctx = &context,
        .commands = commands,
        .type = NGX_HTTP_MODULE,
        .init_process = process_init,
        .exit_process = process_exit,
        NGX_MODULE_V1_PADDING,
};
