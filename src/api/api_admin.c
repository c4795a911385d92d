/* api_admin.c - the administration's door: HTTP by libmicrohttpd, run on the loop's own thread: its
 * epoll set is watched by a uv_poll, its time-outs by a uv_timer.
 *
 * A request that the node must decide suspends its connection; the answer resumes it. Bodies are
 * bounded by API_BODY_MAX, connections by API_CONNECTIONS_MAX, and each must end a request within
 * API_REQUEST_MS, so that clients who send drop by drop do not keep the others out. A POST that a
 * browser sends for a page of another origin is refused: a door on a loopback address is reachable
 * by every page that the machine's user opens. */
#include "api/api_ask.h"
#include "base/check.h"

#include <arpa/inet.h>
#include <errno.h>
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
#define API_COPY_MAX        ((size_t)1 << 20)

/* ---- libmicrohttpd ---- */

static enum MHD_Result ask_respond(struct ask *ask)
{
        if (ask->out.err != ERR_NONE)
                return MHD_NO;
        /* What is large is not copied: it stays until the request is completed. */
        struct MHD_Response *response = MHD_create_response_from_buffer(
                ask->out.len, ask->out.ptr,
                ask->out.len > API_COPY_MAX ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_COPY);
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
                ask_error(ask, MHD_HTTP_METHOD_NOT_ALLOWED, "BADREQUEST", "use GET or POST");
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
        if (ask->waits)
                admin->wait_count--;
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

/* A NUL would end the name that it stands in: a text with one stays as it was written, and so names
 * nothing that there is. */
static size_t on_unescape(void *context, struct MHD_Connection *connection, char *text)
{
        (void)context;
        (void)connection;
        return strstr(text, "%00") == NULL ? MHD_http_unescape(text) : strlen(text);
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

void admin_run_soon(struct api_admin *admin)
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
                 errno == EADDRINUSE      ? "; end what uses it, or set another one"
                 : errno == EADDRNOTAVAIL ? "; set an address that this machine has"
                                          : "");
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
                MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
                MHD_OPTION_CONNECTION_LIMIT, (unsigned)API_CONNECTIONS_MAX,
                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)API_IDLE_S, MHD_OPTION_NOTIFY_COMPLETED,
                on_completed, admin, MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin,
                MHD_OPTION_END);
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
                ask_error(ask, MHD_HTTP_SERVICE_UNAVAILABLE, "CLOSING", "the daemon is ending");
                MHD_resume_connection(ask->connection);
        }
        uv_poll_stop(&admin->poll);
        MHD_stop_daemon(admin->daemon);
        admin->daemon = NULL;
        uv_close((uv_handle_t *)&admin->poll, handle_closed);
        uv_close((uv_handle_t *)&admin->timer, handle_closed);
}
