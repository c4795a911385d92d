/* lab_backend.c - a sample backend: a small HTTP/1.1 server with keep-alive and pipelining on one
 * libuv loop. `GET /` and any other path answer with JSON that says which region and which backend
 * it is; `/healthz` says ok. A request with a body has it skipped; anything that is not HTTP is
 * answered with 400 and closed. */
#include "lab/lab_priv.h"

#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define REQUEST_MAX 16384
#define ANSWER_MAX  4096
#define PATH_SHOWN  512

struct backend {
        const char *region;
        const char *name;
};

struct peer {
        uv_tcp_t tcp; /* first: handles are cast back */
        const struct backend *backend;
        size_t len;
        uint64_t body_left; /* of the request before, to be skipped */
        size_t writes;      /* under way */
        bool closing;
        char input[REQUEST_MAX];
};

struct answer {
        uv_write_t write;
        struct peer *peer;
        bool last;
        size_t len;
        char text[ANSWER_MAX];
};

static void peer_closed(uv_handle_t *handle)
{
        free(handle);
}

static void peer_close(struct peer *peer)
{
        if (!uv_is_closing((uv_handle_t *)&peer->tcp))
                uv_close((uv_handle_t *)&peer->tcp, peer_closed);
}

static void answer_written(uv_write_t *write, int status)
{
        struct answer *answer = write->data;
        if (status < 0 || answer->last)
                peer_close(answer->peer);
        free(answer);
}

static void answer_send(struct peer *peer, const char *status, const char *body, bool keep)
{
        struct answer *answer = malloc(sizeof *answer);
        if (answer == NULL) {
                peer_close(peer);
                return;
        }
        int len = snprintf(answer->text, sizeof answer->text,
                           "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\nCache-Control: no-store\r\nConnection: %s\r\n"
                           "\r\n%s",
                           status, strlen(body), keep ? "keep-alive" : "close", body);
        answer->len = (size_t)len < sizeof answer->text ? (size_t)len : sizeof answer->text - 1;
        answer->peer = peer;
        answer->last = !keep;
        answer->write.data = answer;
        peer->closing = !keep;
        uv_buf_t buf = uv_buf_init(answer->text, (unsigned)answer->len);
        if (uv_write(&answer->write, (uv_stream_t *)&peer->tcp, &buf, 1, answer_written) != 0) {
                free(answer);
                peer_close(peer);
        }
}

/* What of a path may stand in JSON as it is. */
static void path_copy(char *to, const char *from)
{
        size_t len = 0;
        for (; *from != '\0' && len < PATH_SHOWN - 1; from++) {
                bool plain = *from >= ' ' && *from <= '~' && *from != '"' && *from != '\\';
                to[len++] = plain ? *from : '?';
        }
        to[len] = '\0';
}

static void answer_page(struct peer *peer, const char *path, bool keep)
{
        char shown[PATH_SHOWN];
        char body[ANSWER_MAX / 2];
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        path_copy(shown, path);
        if (strcmp(path, "/healthz") == 0)
                snprintf(body, sizeof body, "{\"ok\":true,\"region\":\"%s\"}\n",
                         peer->backend->region);
        else
                snprintf(body, sizeof body,
                         "{\"region\":\"%s\",\"backend\":\"%s\",\"path\":\"%s\",\"pid\":%d,"
                         "\"time\":%lld.%03ld}\n",
                         peer->backend->region, peer->backend->name, shown, (int)getpid(),
                         (long long)now.tv_sec, now.tv_nsec / 1000000);
        answer_send(peer, "200 OK", body, keep);
}

/* The value of a header in a request with NUL at its end, or NULL. Ends at a CR or LF. */
static const char *header_find(const char *request, const char *name)
{
        size_t len = strlen(name);
        for (const char *line = strchr(request, '\n'); line != NULL; line = strchr(line, '\n')) {
                line++;
                if (strncasecmp(line, name, len) == 0 && line[len] == ':')
                        return line + len + 1 + strspn(line + len + 1, " \t");
        }
        return NULL;
}

/* One request, whole up to its empty line. */
static void request_handle(struct peer *peer, char *request)
{
        char path[2048];
        unsigned minor = 0;
        if (sscanf(request, "%*15[A-Z] %2047s HTTP/1.%u", path, &minor) != 2 || minor > 1) {
                answer_send(peer, "400 Bad Request", "{\"error\":\"not HTTP/1.1\"}\n", false);
                return;
        }
        const char *connection = header_find(request, "Connection");
        bool keep = minor == 1;
        if (connection != NULL && strncasecmp(connection, "close", 5) == 0)
                keep = false;
        if (connection != NULL && strncasecmp(connection, "keep-alive", 10) == 0)
                keep = true;
        const char *length = header_find(request, "Content-Length");
        peer->body_left = length == NULL ? 0 : strtoull(length, NULL, 10);
        if (header_find(request, "Transfer-Encoding") != NULL)
                keep = false;
        answer_page(peer, path, keep);
}

static void input_drop(struct peer *peer, size_t len)
{
        memmove(peer->input, peer->input + len, peer->len - len);
        peer->len -= len;
}

static void input_handle(struct peer *peer)
{
        while (!peer->closing && peer->len > 0) {
                if (peer->body_left > 0) {
                        size_t len =
                                peer->body_left < peer->len ? (size_t)peer->body_left : peer->len;
                        input_drop(peer, len);
                        peer->body_left -= len;
                        continue;
                }
                char *end = memmem(peer->input, peer->len, "\r\n\r\n", 4);
                if (end == NULL && peer->len == sizeof peer->input)
                        answer_send(peer, "431 Request Header Fields Too Large",
                                    "{\"error\":\"header too long\"}\n", false);
                if (end == NULL)
                        return;
                *end = '\0';
                size_t len = (size_t)(end - peer->input) + 4;
                if (memchr(peer->input, '\0', len - 4) != NULL)
                        answer_send(peer, "400 Bad Request", "{\"error\":\"not HTTP\"}\n", false);
                else
                        request_handle(peer, peer->input);
                input_drop(peer, len);
        }
}

static void input_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
        struct peer *peer = (struct peer *)handle;
        (void)size;
        *buf = uv_buf_init(peer->input + peer->len, (unsigned)(sizeof peer->input - peer->len));
}

static void input_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
        struct peer *peer = (struct peer *)stream;
        (void)buf;
        if (len < 0) {
                peer_close(peer);
                return;
        }
        peer->len += (size_t)len;
        input_handle(peer);
        if (peer->closing)
                uv_read_stop(stream);
}

static void peer_accept(uv_stream_t *server, int status)
{
        struct peer *peer = status < 0 ? NULL : calloc(1, sizeof *peer);
        if (peer == NULL)
                return;
        peer->backend = server->data;
        uv_tcp_init(server->loop, &peer->tcp);
        if (uv_accept(server, (uv_stream_t *)&peer->tcp) != 0 ||
            uv_read_start((uv_stream_t *)&peer->tcp, input_alloc, input_read) != 0) {
                peer_close(peer);
                return;
        }
        uv_tcp_nodelay(&peer->tcp, 1);
}

static void signal_stop(uv_signal_t *handle, int number)
{
        (void)number;
        uv_stop(handle->loop);
}

static int serve(struct backend *backend, const char *host, int port)
{
        uv_loop_t loop;
        uv_tcp_t server;
        uv_signal_t term;
        struct sockaddr_in name;
        uv_loop_init(&loop);
        uv_tcp_init(&loop, &server);
        uv_signal_init(&loop, &term);
        server.data = backend;
        int err = uv_ip4_addr(host, port, &name);
        if (err == 0)
                err = uv_tcp_bind(&server, (const struct sockaddr *)&name, 0);
        if (err == 0)
                err = uv_listen((uv_stream_t *)&server, 511, peer_accept);
        if (err != 0) {
                lab_error("backend: %s:%d: %s", host, port, uv_strerror(err));
                return 1;
        }
        uv_signal_start(&term, signal_stop, SIGTERM);
        uv_run(&loop, UV_RUN_DEFAULT);
        return 0;
}

int lab_backend(int argc, char **argv)
{
        struct backend backend = {.region = NULL, .name = "backend"};
        char host[64] = "";
        int port = 0;
        for (int i = 1; i + 1 < argc; i += 2) {
                if (strcmp(argv[i], "--region") == 0)
                        backend.region = argv[i + 1];
                else if (strcmp(argv[i], "--name") == 0)
                        backend.name = argv[i + 1];
                else if (strcmp(argv[i], "--listen") != 0 ||
                         sscanf(argv[i + 1], "%63[0-9.]:%d", host, &port) != 2)
                        port = -1;
        }
        if (argc % 2 == 0 || backend.region == NULL || port <= 0 || port > 65535) {
                lab_error("usage: meridian lab backend --listen 127.0.0.1:9000 --region NAME "
                          "[--name NAME]");
                return 2;
        }
        return serve(&backend, host, port);
}
