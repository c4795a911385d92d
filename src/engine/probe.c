/* Looks at servers. Each probe is one timer and at most one attempt:
 *
 *      waiting --timer--> looking --answer, refusal or timer--> waiting
 *
 * An attempt owns its socket. When the look ends first, the attempt is let go: libuv calls it back
 * with ECANCELED and closes it in its own time, and it finds no probe any more. */
#include "engine/engine_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum probe_kind {
        PROBE_HTTP,
        PROBE_DNS,
        PROBE_REDIS,
};

struct attempt {
        union {
                uv_handle_t handle;
                uv_tcp_t tcp;
                uv_udp_t udp;
        } socket;
        uv_connect_t connect;
        uv_write_t write;
        uv_udp_send_t send;
        struct engine *engine;
        struct probe *probe; /* NULL: let go */
        uint8_t query[DNS_QUERY_MAX];
        size_t query_len;
        char request[256];
        uint8_t begin[1500]; /* of the answer */
        size_t begin_len;
};

struct probe {
        struct engine *engine;
        enum probe_kind kind;
        enum world_part part;
        uint32_t index;
        struct topology_endpoint endpoint;
        const char *path;
        const char *path_else;
        int status_max;
        uv_timer_t timer;
        bool looking;
        bool ping_pending;
        uint64_t began_us;
        struct attempt *attempt;
};

static void probe_begin(struct probe *probe);

static void probe_timed(uv_timer_t *timer);

/* Until the next look: the interval less what this one took, with a jitter of a tenth. */
static void probe_wait(struct probe *probe)
{
        uint64_t interval_us = probe->engine->config.interval_ms * 1000ull;
        uint64_t wait_us =
                rng_between(&probe->engine->rng, interval_us * 9 / 10, interval_us * 11 / 10);
        uint64_t took_us = engine_now_us(probe->engine) - probe->began_us;
        wait_us = wait_us > took_us ? wait_us - took_us : 0;
        (void)uv_timer_start(&probe->timer, probe_timed, wait_us / 1000 + 1, 0);
}

static void attempt_closed(uv_handle_t *handle)
{
        struct attempt *attempt = handle->data;
        struct engine *engine = attempt->engine;
        heap_free(engine->config.heap, attempt);
        engine_handle_closed(engine);
}

static void attempt_let_go(struct probe *probe)
{
        struct attempt *attempt = probe->attempt;
        if (attempt == NULL)
                return;
        probe->attempt = NULL;
        attempt->probe = NULL;
        uv_close(&attempt->socket.handle, attempt_closed);
}

static void probe_result(struct probe *probe, bool healthy, const char *format, ...)
        PRINTF_LIKE(3, 4);

static void probe_result(struct probe *probe, bool healthy, const char *format, ...)
{
        char why[ENGINE_TEXT_SIZE];
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(why, sizeof why, format, arguments);
        va_end(arguments);
        if (!probe->looking)
                return;
        probe->looking = false;
        attempt_let_go(probe);
        struct world_event event = {.kind = WORLD_PROBED};
        event.probed.part = probe->part;
        event.probed.index = probe->index;
        event.probed.healthy = healthy;
        event.probed.latency_us = engine_now_us(probe->engine) - probe->began_us;
        event.probed.why = bytes_of_str(why);
        probe_wait(probe);
        engine_emit(probe->engine, &event);
}

/* A new attempt without a socket yet; NULL when memory is out. */
static struct attempt *attempt_new(struct probe *probe)
{
        struct attempt *attempt = heap_alloc(probe->engine->config.heap, sizeof *attempt);
        if (attempt == NULL)
                return NULL;
        attempt->engine = probe->engine;
        attempt->probe = probe;
        probe->attempt = attempt;
        return attempt;
}

/* libuv has its socket now: from here on it is freed by closing. */
static void attempt_opened(struct attempt *attempt)
{
        attempt->socket.handle.data = attempt;
        attempt->connect.data = attempt;
        attempt->write.data = attempt;
        attempt->send.data = attempt;
        engine_handle_opened(attempt->engine);
}

static void attempt_failed_to_open(struct probe *probe)
{
        heap_free(probe->engine->config.heap, probe->attempt);
        probe->attempt = NULL;
        probe_result(probe, false, "no socket could be opened");
}

/* ---- HTTP ---- */

static void http_answered(struct probe *probe, int status)
{
        if (status == 404 && probe->path_else != NULL) {
                probe->path = probe->path_else; /* it has no page for health: ask for the other */
                probe->path_else = NULL;
                attempt_let_go(probe);
                probe_begin(probe);
                return;
        }
        bool healthy = status >= 200 && status <= probe->status_max;
        probe_result(probe, healthy, "GET %s answers %d", probe->path, status);
}

static void attempt_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
        struct attempt *attempt = handle->data;
        (void)suggested;
        *buf = uv_buf_init((char *)attempt->begin + attempt->begin_len,
                           (unsigned)(sizeof attempt->begin - attempt->begin_len));
}

static void http_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
        struct attempt *attempt = stream->data;
        struct probe *probe = attempt->probe;
        (void)buf;
        if (probe == NULL || len == 0)
                return;
        if (len < 0) {
                probe_result(probe, false, "no answer to GET %s: %s", probe->path,
                             len == UV_EOF ? "closed" : uv_strerror((int)len));
                return;
        }
        attempt->begin_len += (size_t)len;
        int status = http_status(bytes_of(attempt->begin, attempt->begin_len));
        if (status < 0)
                probe_result(probe, false, "GET %s is not answered in HTTP", probe->path);
        else if (status > 0)
                http_answered(probe, status);
}

static void http_written(uv_write_t *write, int status)
{
        struct attempt *attempt = write->data;
        if (attempt->probe != NULL && status < 0)
                probe_result(attempt->probe, false, "cannot write: %s", uv_strerror(status));
}

static void http_connected(uv_connect_t *connect, int status)
{
        struct attempt *attempt = connect->data;
        struct probe *probe = attempt->probe;
        char host[TOPOLOGY_ENDPOINT_TEXT];
        if (probe == NULL)
                return;
        topology_endpoint_text(&probe->endpoint, host);
        if (status < 0) {
                probe_result(probe, false, "cannot connect to %s: %s", host, uv_strerror(status));
                return;
        }
        int len = snprintf(attempt->request, sizeof attempt->request,
                           "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: meridian\r\n"
                           "Connection: close\r\n\r\n",
                           probe->path, host);
        uv_buf_t buf = uv_buf_init(attempt->request, (unsigned)len);
        uv_stream_t *stream = (uv_stream_t *)&attempt->socket.tcp;
        if (uv_write(&attempt->write, stream, &buf, 1, http_written) < 0 ||
            uv_read_start(stream, attempt_room, http_read) < 0)
                probe_result(probe, false, "cannot use the connection to %s", host);
}

static void http_begin(struct probe *probe)
{
        struct sockaddr_storage address;
        struct attempt *attempt = attempt_new(probe);
        engine_address(&probe->endpoint, &address);
        if (attempt == NULL || uv_tcp_init(probe->engine->config.loop, &attempt->socket.tcp) < 0) {
                attempt_failed_to_open(probe);
                return;
        }
        attempt_opened(attempt);
        int status = uv_tcp_connect(&attempt->connect, &attempt->socket.tcp,
                                    (const struct sockaddr *)&address, http_connected);
        if (status < 0)
                probe_result(probe, false, "cannot connect: %s", uv_strerror(status));
}

/* ---- DNS ---- */

static void dns_read(uv_udp_t *udp, ssize_t len, const uv_buf_t *buf,
                     const struct sockaddr *address, unsigned flags)
{
        struct attempt *attempt = udp->data;
        bool ours = false;
        (void)flags;
        if (attempt->probe == NULL || (len == 0 && address == NULL))
                return;
        if (len < 0) {
                probe_result(attempt->probe, false, "no answer by DNS: %s", uv_strerror((int)len));
                return;
        }
        const char *fault = dns_answer_fault(bytes_of(buf->base, (size_t)len),
                                             bytes_of(attempt->query, attempt->query_len), &ours);
        if (ours)
                probe_result(attempt->probe, fault == NULL, "%s",
                             fault != NULL ? fault : "answers");
}

static void dns_sent(uv_udp_send_t *send, int status)
{
        struct attempt *attempt = send->data;
        if (attempt->probe != NULL && status < 0)
                probe_result(attempt->probe, false, "cannot ask by DNS: %s", uv_strerror(status));
}

static void dns_begin(struct probe *probe)
{
        struct engine *engine = probe->engine;
        struct sockaddr_storage address;
        struct attempt *attempt = attempt_new(probe);
        engine_address(&probe->endpoint, &address);
        if (attempt == NULL || uv_udp_init(engine->config.loop, &attempt->socket.udp) < 0) {
                attempt_failed_to_open(probe);
                return;
        }
        attempt_opened(attempt);
        uint16_t id = (uint16_t)rng_next(&engine->rng);
        attempt->query_len = dns_query(id, bytes_of_str(engine->zone), attempt->query);
        CHECK(attempt->query_len > 0);
        uv_buf_t buf = uv_buf_init((char *)attempt->query, (unsigned)attempt->query_len);
        int status = uv_udp_connect(&attempt->socket.udp, (const struct sockaddr *)&address);
        if (status == 0)
                status = uv_udp_recv_start(&attempt->socket.udp, attempt_room, dns_read);
        if (status == 0)
                status = uv_udp_send(&attempt->send, &attempt->socket.udp, &buf, 1, NULL, dns_sent);
        if (status < 0)
                probe_result(probe, false, "cannot ask by DNS: %s", uv_strerror(status));
}

/* ---- Redis ---- */

static void redis_answered(struct call *call, const redisReply *reply)
{
        struct probe *probe = call->connection->engine->probe_redis;
        if (probe == NULL)
                return;
        probe->ping_pending = false;
        if (reply == NULL) {
                probe_result(probe, false, "the connection to Redis broke");
                return;
        }
        const char *refusal = keeper_refusal(probe->engine);
        if (reply->type == REDIS_REPLY_ERROR)
                probe_result(probe, false, "Redis answers: %.*s", (int)reply->len, reply->str);
        else if (refusal != NULL)
                probe_result(probe, false, "%s", refusal);
        else
                probe_result(probe, true, "answers");
}

static void redis_begin(struct probe *probe)
{
        struct connection *connection = &probe->engine->ping;
        struct call call = {.done = redis_answered};
        struct bytes argv[] = {BYTES("PING")};
        if (probe->engine->cluster != NULL) {
                const char *why = cluster_why(probe->engine);
                probe_result(probe, why == NULL, "%s", why == NULL ? "answers" : why);
                return;
        }
        if (!connection->ready) {
                const char *why = connection->why_last[0] != 0 ? connection->why_last
                                                               : finder_why(probe->engine);
                probe_result(probe, false, "cannot connect to Redis: %s", why);
                return;
        }
        if (probe->ping_pending)
                return; /* the last one has no answer yet: this look waits for it, or runs out */
        probe->ping_pending = connection_send(connection, &call, COUNT_OF(argv), argv);
        if (!probe->ping_pending)
                probe_result(probe, false, "Redis cannot be asked");
}

/* ---- all ---- */

static void probe_begin(struct probe *probe)
{
        switch (probe->kind) {
        case PROBE_HTTP:
                http_begin(probe);
                return;
        case PROBE_DNS:
                if (probe->engine->zone[0] != 0) {
                        dns_begin(probe);
                } else { /* nothing to ask for: no look, no result */
                        probe->looking = false;
                        probe_wait(probe);
                }
                return;
        case PROBE_REDIS:
                redis_begin(probe);
                return;
        }
        UNREACHABLE("a kind of probe");
}

static void probe_timed(uv_timer_t *timer)
{
        struct probe *probe = timer->data;
        if (probe->looking) {
                probe_result(probe, false, "no answer in %u ms", probe->engine->config.timeout_ms);
                return;
        }
        probe->looking = true;
        probe->began_us = engine_now_us(probe->engine);
        (void)uv_timer_start(&probe->timer, probe_timed, probe->engine->config.timeout_ms, 0);
        probe_begin(probe);
}

static struct probe *probe_new(struct engine *engine, enum probe_kind kind, enum world_part part,
                               const struct topology_endpoint *endpoint)
{
        struct probe *probe = heap_alloc(engine->config.heap, sizeof *probe);
        if (probe == NULL)
                return NULL;
        if (uv_timer_init(engine->config.loop, &probe->timer) < 0) {
                heap_free(engine->config.heap, probe);
                return NULL;
        }
        engine_handle_opened(engine);
        probe->timer.data = probe;
        probe->engine = engine;
        probe->kind = kind;
        probe->part = part;
        probe->endpoint = *endpoint;
        /* The first look of Redis leaves the keeper the time to find the module. */
        uint64_t first_ms = kind == PROBE_REDIS
                                    ? engine->config.interval_ms
                                    : rng_below(&engine->rng, engine->config.interval_ms / 2);
        (void)uv_timer_start(&probe->timer, probe_timed, first_ms, 0);
        return probe;
}

struct probe *probe_http(struct engine *engine, enum world_part part, uint32_t index,
                         const struct topology_endpoint *endpoint, const char *path,
                         const char *path_else, int status_max)
{
        struct probe *probe = probe_new(engine, PROBE_HTTP, part, endpoint);
        if (probe == NULL)
                return NULL;
        probe->index = index;
        probe->path = path;
        probe->path_else = path_else;
        probe->status_max = status_max;
        return probe;
}

struct probe *probe_dns(struct engine *engine, const struct topology_endpoint *endpoint)
{
        return probe_new(engine, PROBE_DNS, WORLD_PART_DNS, endpoint);
}

struct probe *probe_redis(struct engine *engine)
{
        return probe_new(engine, PROBE_REDIS, WORLD_PART_REDIS, &engine->config.redis);
}

static void probe_closed(uv_handle_t *handle)
{
        struct probe *probe = handle->data;
        struct engine *engine = probe->engine;
        heap_free(engine->config.heap, probe);
        engine_handle_closed(engine);
}

void probe_close(struct probe *probe)
{
        if (probe == NULL)
                return;
        probe->looking = false;
        attempt_let_go(probe);
        uv_close((uv_handle_t *)&probe->timer, probe_closed);
}
