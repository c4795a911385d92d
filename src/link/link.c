/* The mesh. The node with the lower id dials; a connection that breaks is dialled again after a
 * jittered pause that doubles from reconnect_ms_min to reconnect_ms_max. One timer does what time
 * brings: redial, PING, death, handshakes that take too long. At the end of every turn of the loop
 * (uv_prepare) what was queued in it is sent, broken connections are ended, and users who waited
 * for room are told. */
#include "base/check.h"
#include "link/link_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DELAY_US_MAX 60000000u

/* A timer this late means that this process stood still, not that peers are dead. */
#define STALL_US     500000u

uint64_t link_now_us(void)
{
        return uv_hrtime() / 1000;
}

static void on_timer(uv_timer_t *timer);

void link_tick_soon(struct link *link)
{
        uv_timer_start(&link->timer, on_timer, 0, 0);
}

/* ---- connections ---- */

static bool stranger(const struct conn *conn)
{
        return !conn->dialed && conn->peer == NULL;
}

static void refused(struct link *link, const char *who, const char *why)
{
        uint64_t second = link_now_us() / 1000000;
        if (second != link->refused_second) {
                link->refused_second = second;
                link->refused_count = 0;
        }
        if (link->callbacks.refused == NULL || link->closing ||
            link->refused_count++ >= LINK_REFUSED_MAX)
                return;
        link->callbacks.refused(link->callbacks.user, who, why);
}

void link_conn_known(struct conn *conn, struct peer *peer)
{
        CHECK(stranger(conn));
        if (peer->conn != NULL) {
                conn_break(peer->conn, "replaced by a newer connection");
                conn_settle(peer->conn);
        }
        CHECK(peer->conn == NULL);
        conn->link->strangers--;
        conn->peer = peer;
        conn->id = peer->id;
        peer->conn = conn;
}

void link_conn_up(struct conn *conn)
{
        struct link *link = conn->link;
        struct peer *peer = conn->peer;
        peer->backoff_ms = link->reconnect_ms_min;
        peer->status.up = true;
        peer->status.up_since_us = link_now_us();
        peer->status.connections++;
        peer->status.rtt_known = false;
        peer->status.why[0] = '\0';
        link->callbacks.up(link->callbacks.user, conn->id);
        link_tick_soon(link);
}

void link_conn_ended(struct conn *conn, bool was_up)
{
        struct link *link = conn->link;
        struct peer *peer = conn->peer;
        if (stranger(conn)) {
                CHECK(link->strangers > 0);
                link->strangers--;
                refused(link, conn->who, conn->why);
                return;
        }
        CHECK(peer != NULL && peer->conn == conn);
        peer->conn = NULL;
        conn->peer = NULL;
        peer->status.up = false;
        peer->status.rtt_known = false;
        snprintf(peer->status.why, sizeof peer->status.why, "%s", conn->why);
        link_peer_backoff(link, peer);
        if (was_up && !link->closing)
                link->callbacks.down(link->callbacks.user, conn->id, conn->why);
        if (!link->closing)
                link_tick_soon(link);
}

void link_conn_closed(struct conn *conn)
{
        struct conn **at = &conn->link->conns;
        while (*at != conn)
                at = &(*at)->next;
        *at = conn->next;
}

static void on_listen(uv_stream_t *listener, int status)
{
        struct link *link = listener->data;
        if (status != 0) {
                refused(link, "the listener", uv_strerror(status));
                return;
        }
        struct conn *conn = conn_accept(link, listener);
        if (conn == NULL)
                return;
        link->strangers++;
        if (link->strangers > LINK_STRANGERS_MAX)
                conn_break(conn, "too many strangers at once");
        conn_settle(conn);
        link_tick_soon(link);
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

/* PING and death of one connection; returns when to look again. */
static uint64_t conn_tick(struct conn *conn, uint64_t now_us)
{
        struct link *link = conn->link;
        if (conn->state == CONN_CLOSED)
                return UINT64_MAX;
        if (conn->state != CONN_UP) {
                uint64_t end_us = conn->started_us + link->handshake_us;
                if (now_us >= end_us)
                        conn_break(conn, "no connection within %u ms",
                                   (unsigned)(link->handshake_us / 1000));
                return end_us;
        }
        if (now_us >= conn->answered_us + link->dead_us)
                conn_break(conn, "no answer for %u ms", (unsigned)(link->dead_us / 1000));
        if (now_us >= conn->ping_due_us) {
                session_ping(conn, now_us);
                conn->ping_due_us = now_us + link->ping_us;
        }
        return earlier(conn->ping_due_us, conn->answered_us + link->dead_us);
}

static uint64_t peer_tick(struct link *link, struct peer *peer, uint64_t now_us)
{
        if (!link_peer_dials(link, peer))
                return UINT64_MAX;
        if (now_us < peer->dial_due_us)
                return peer->dial_due_us;
        peer->conn = conn_dial(link, peer);
        if (peer->conn == NULL)
                link_peer_backoff(link, peer);
        return peer->conn == NULL ? peer->dial_due_us : now_us + link->handshake_us;
}

/* After a standstill of this process the answers that wait in the sockets are read first. */
static void stall_forgive(struct link *link, uint64_t now_us)
{
        if (link->ticked_us != 0 && now_us - link->ticked_us > link->ping_us + STALL_US) {
                for (struct conn *conn = link->conns; conn != NULL; conn = conn->next) {
                        conn->answered_us = now_us;
                        conn->started_us = conn->state == CONN_UP ? conn->started_us : now_us;
                }
        }
        link->ticked_us = now_us;
}

static void on_timer(uv_timer_t *timer)
{
        struct link *link = timer->data;
        uint64_t now_us = link_now_us();
        uint64_t next_us = now_us + link->ping_us;
        stall_forgive(link, now_us);
        for (struct conn *conn = link->conns; conn != NULL; conn = conn->next)
                next_us = earlier(next_us, conn_tick(conn, now_us));
        for (struct peer *peer = link->peers; peer != NULL; peer = peer->next)
                next_us = earlier(next_us, peer_tick(link, peer, now_us));
        uint64_t wait_ms = next_us > now_us ? (next_us - now_us + 999) / 1000 : 1;
        uv_timer_start(timer, on_timer, wait_ms, 0);
}

/* Tells users who waited that a queue is below its half. */
static void conn_drained(struct conn *conn)
{
        struct link *link = conn->link;
        for (unsigned i = 0; conn->state == CONN_UP && i < WORLD_CLASS_COUNT; i++) {
                struct stream *stream = &conn->session.streams[i];
                if (!stream->wanted || stream->out.bytes > link_queue_max[i] / 2)
                        continue;
                stream->wanted = false;
                link->callbacks.drained(link->callbacks.user, conn->id, (enum world_class)i);
        }
}

/* The end of a turn. Callbacks may break further connections and queue more; what they leave is
 * done in the next turn, which the loop begins at once when something was closed or written. */
static void on_prepare(uv_prepare_t *prepare)
{
        struct link *link = prepare->data;
        for (struct conn *conn = link->conns; conn != NULL; conn = conn->next)
                conn_drained(conn);
        for (struct conn *conn = link->conns; conn != NULL; conn = conn->next) {
                if (conn->dirty)
                        conn_pump(conn);
                conn_settle(conn);
        }
        link_peers_sweep(link);
}

/* ---- the delayed way ---- */

void link_release_rearm(struct link *link)
{
        uint64_t due_us = UINT64_MAX;
        for (const struct conn *conn = link->conns; conn != NULL; conn = conn->next) {
                if (conn->state != CONN_CLOSED)
                        due_us = earlier(due_us, pipe_due_us(&conn->pipe));
        }
        if (link->release_fd < 0 || due_us == UINT64_MAX)
                return;
        /* uv_hrtime is CLOCK_MONOTONIC. All zero would stop the timer. */
        struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due_us / 1000000),
                                             .tv_nsec = (long)(due_us % 1000000) * 1000 + 1}};
        int result = timerfd_settime(link->release_fd, TFD_TIMER_ABSTIME, &at, NULL);
        CHECK(result == 0);
}

static void on_release(uv_poll_t *poll, int status, int events)
{
        (void)status;
        (void)events;
        struct link *link = poll->data;
        uint64_t rings;
        ssize_t len = read(link->release_fd, &rings, sizeof rings);
        (void)len; /* not rung after all: nothing is due, and the timer is set again */
        uint64_t now_us = link_now_us();
        for (struct conn *conn = link->conns; conn != NULL; conn = conn->next) {
                conn_release(conn, now_us);
                conn_settle(conn);
        }
        link_release_rearm(link);
}

static enum err release_init(struct link *link)
{
        link->release_fd = -1;
        if (!link->allow_impairments)
                return ERR_NONE;
        link->release_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (link->release_fd < 0 || uv_poll_init(link->loop, &link->release, link->release_fd) != 0)
                return ERR_IO;
        link->release.data = link;
        link->handles++;
        return uv_poll_start(&link->release, UV_READABLE, on_release) == 0 ? ERR_NONE : ERR_IO;
}

/* ---- the public calls ---- */

static enum err fail(struct pki_error *error, enum err err, const char *format, ...)
        PRINTF_LIKE(3, 4);

static enum err fail(struct pki_error *error, enum err err, const char *format, ...)
{
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
        return err;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
        return value == 0 ? otherwise : value;
}

static enum err link_fill(struct link *link, const struct link_config *config,
                          struct pki_error *error)
{
        link->heap = config->heap;
        link->release_fd = -1;
        link->allow_impairments = config->allow_impairments;
        link->ping_us = (uint64_t)or_default(config->ping_ms, 200) * 1000;
        link->dead_us = (uint64_t)or_default(config->dead_ms, 2000) * 1000;
        link->handshake_us = (uint64_t)or_default(config->handshake_ms, 5000) * 1000;
        link->reconnect_ms_min = or_default(config->reconnect_ms_min, 50);
        link->reconnect_ms_max = or_default(config->reconnect_ms_max, 500);
        rng_init(&link->rng, config->seed, 0x11111111);
        if (pki_identity_set(&link->self, config->cluster, config->region, config->self) !=
            ERR_NONE)
                return fail(error, ERR_INVALID, "%s/%s/%u is no identity of a node",
                            config->cluster, config->region, config->self);
        if (link_address_parse(config->host, config->port, &link->address) != ERR_NONE)
                return fail(error, ERR_INVALID, "'%s' is not an IP address to listen on",
                            config->host);
        return pki_context_new(&config->files, &link->self, &link->tls, error);
}

static enum err handles_init(struct link *link)
{
        if (uv_timer_init(link->loop, &link->timer) != 0)
                return ERR_IO;
        link->timer.data = link;
        link->handles++;
        if (uv_prepare_init(link->loop, &link->prepare) != 0)
                return ERR_IO;
        link->prepare.data = link;
        link->handles++;
        if (uv_tcp_init(link->loop, &link->listener) != 0)
                return ERR_IO;
        link->listener.data = link;
        link->handles++;
        return release_init(link);
}

static uint16_t port_of(const uv_tcp_t *tcp)
{
        struct sockaddr_storage bound = {0};
        int len = sizeof bound;
        struct sockaddr_in in;
        if (uv_tcp_getsockname(tcp, (struct sockaddr *)&bound, &len) != 0)
                return 0;
        /* The port of both families lies at the same place (asserted in conn.c). */
        memcpy(&in, &bound, sizeof in);
        return ntohs(in.sin_port);
}

static enum err link_listen(struct link *link, const struct link_config *config,
                            struct pki_error *error)
{
        int result = uv_tcp_bind(&link->listener, (const struct sockaddr *)&link->address, 0);
        if (result == 0)
                result = uv_listen((uv_stream_t *)&link->listener, 128, on_listen);
        if (result == UV_EADDRINUSE)
                return fail(error, ERR_EXISTS,
                            "cannot listen for other nodes on %s port %u: the port is in use; "
                            "see by whom with: ss -ltnp 'sport = :%u'",
                            config->host, config->port, config->port);
        if (result != 0)
                return fail(error, ERR_IO, "cannot listen for other nodes on %s port %u: %s",
                            config->host, config->port, uv_strerror(result));
        link->port = port_of(&link->listener);
        return ERR_NONE;
}

static void nothing(void *user)
{
        (void)user;
}

static void free_when_closed(void *user)
{
        link_free(user);
}

enum err link_new(uv_loop_t *loop, const struct link_config *config,
                  const struct link_callbacks *callbacks, struct link **ret_link,
                  struct pki_error *error)
{
        struct link *link = heap_alloc(config->heap, sizeof *link);
        if (link == NULL)
                return fail(error, ERR_NOMEM, "no memory for the link");
        link->loop = loop;
        link->callbacks = *callbacks;
        enum err err = link_fill(link, config, error);
        if (err != ERR_NONE) {
                link_free(link);
                return err;
        }
        err = handles_init(link);
        if (err != ERR_NONE)
                fail(error, err, "the loop has no room for the link");
        else
                err = link_listen(link, config, error);
        if (err == ERR_NONE) {
                err = link_set_peers(link, config->peers, config->peer_count);
                if (err != ERR_NONE)
                        fail(error, err, "a peer is not usable: %s", err_text(err));
        }
        if (err != ERR_NONE) {
                link_close(link, free_when_closed, link);
                return err;
        }
        uv_prepare_start(&link->prepare, on_prepare);
        uv_unref((uv_handle_t *)&link->prepare);
        link_tick_soon(link);
        *ret_link = link;
        return ERR_NONE;
}

uint16_t link_port(const struct link *link)
{
        return link->port;
}

/* The stream of a peer's standing connection; NULL when there is none. */
static struct stream *stream_up(struct link *link, node_id id, enum world_class class)
{
        CHECK((unsigned)class < WORLD_CLASS_COUNT);
        struct peer *peer = link_peer_find(link, id);
        if (peer == NULL || peer->conn == NULL || peer->conn->state != CONN_UP ||
            peer->conn->broken)
                return NULL;
        return &peer->conn->session.streams[class];
}

enum err link_send(struct link *link, node_id peer, enum world_class class, struct bytes data)
{
        struct stream *stream = stream_up(link, peer, class);
        if (data.len > link_message_max[class] || link_peer_find(link, peer) == NULL)
                return ERR_INVALID;
        if (stream == NULL)
                return ERR_CLOSED;
        if (stream->out.bytes + data.len + 4 > link_queue_max[class]) {
                stream->wanted = true;
                return ERR_LIMIT;
        }
        stream->conn->dirty = true;
        return queue_push(&stream->out, data);
}

size_t link_room(struct link *link, node_id peer, enum world_class class)
{
        struct stream *stream = stream_up(link, peer, class);
        if (stream == NULL || stream->out.bytes + 4 >= link_queue_max[class])
                return 0;
        size_t room = link_queue_max[class] - stream->out.bytes - 4;
        if (room < link_queue_max[class] / 2)
                stream->wanted = true;
        return room < link_message_max[class] ? room : link_message_max[class];
}

void link_drop(struct link *link, node_id id, const char *why)
{
        struct peer *peer = link_peer_find(link, id);
        if (peer != NULL && peer->conn != NULL)
                conn_break(peer->conn, "%s", why);
}

enum err link_impair(struct link *link, node_id id, const struct link_impairment *impairment)
{
        struct peer *peer = link_peer_find(link, id);
        if (!link->allow_impairments)
                return ERR_REFUSED;
        if (peer == NULL)
                return ERR_NOT_FOUND;
        if (impairment->delay_us > DELAY_US_MAX || impairment->slow_us > DELAY_US_MAX ||
            impairment->loss_per_mille > 1000)
                return ERR_INVALID;
        peer->impairment = *impairment;
        if (impairment->cut && peer->conn != NULL)
                conn_break(peer->conn, "the lab has cut this link");
        link_tick_soon(link);
        return ERR_NONE;
}

enum err link_status_get(struct link *link, node_id id, struct link_status *ret_status)
{
        struct peer *peer = link_peer_find(link, id);
        if (peer == NULL)
                return ERR_NOT_FOUND;
        *ret_status = peer->status;
        for (unsigned i = 0; peer->status.up && i < WORLD_CLASS_COUNT; i++)
                ret_status->queued_bytes[i] = peer->conn->session.streams[i].out.bytes;
        return ERR_NONE;
}

static void on_handle_closed(uv_handle_t *handle)
{
        struct link *link = handle->data;
        link->handles--;
        if (link->handles == 0)
                link->closed(link->closed_user);
}

static void handle_close(void *handle, uv_close_cb closed)
{
        uv_handle_t *base = handle;
        if (base->data != NULL && !uv_is_closing(base))
                uv_close(base, closed);
}

void link_close(struct link *link, void (*closed)(void *user), void *user)
{
        CHECK(!link->closing);
        link->closing = true;
        link->closed = closed == NULL ? nothing : closed;
        link->closed_user = user;
        for (struct conn *conn = link->conns; conn != NULL; conn = conn->next) {
                conn_break(conn, "this node stops");
                conn_settle(conn);
        }
        handle_close(&link->timer, on_handle_closed);
        handle_close(&link->prepare, on_handle_closed);
        handle_close(&link->listener, on_handle_closed);
        handle_close(&link->release, on_handle_closed);
        CHECK(link->handles > 0);
}

void link_free(struct link *link)
{
        if (link == NULL)
                return;
        struct heap *heap = link->heap;
        CHECK(link->conns == NULL);
        while (link->peers != NULL) {
                struct peer *peer = link->peers;
                link->peers = peer->next;
                heap_free(heap, peer);
        }
        if (link->release_fd >= 0)
                close(link->release_fd);
        SSL_CTX_free(link->tls);
        heap_free(heap, link);
}
