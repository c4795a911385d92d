/* One connection: TCP by libuv, TLS by OpenSSL on memory, HTTP/2 by session.c.
 *
 *      CONNECTING --tcp--> HANDSHAKE --certificate accepted--> OPENING --streams stand--> UP
 *           \________________\__________________________________\___________________/
 *                                 conn_break + conn_settle --> CLOSED --loop lets go--> freed
 *
 * Bytes out: session_pull -> TLS -> (delayed way) -> `out` -> one uv_write at a time. Nothing is
 * pulled while a write is under way, and TCP_NOTSENT_LOWAT keeps the kernel's queue short, so
 * whatever becomes urgent overtakes all that is still in our queues. */
#include "base/check.h"
#include "link/link_priv.h"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>

/* A key is renewed long before AES-GCM's limit of records. */
#define KEY_BYTES_MAX ((uint64_t)16 << 30)

static void on_connect(uv_connect_t *request, int status);
static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer);
static void conn_flush(struct conn *conn);

/* ---- life ---- */

static bool tls_init(struct conn *conn)
{
        conn->ssl = SSL_new(conn->link->tls);
        BIO *in = BIO_new(BIO_s_mem());
        BIO *out = BIO_new(BIO_s_mem());
        if (conn->ssl == NULL || in == NULL || out == NULL) {
                BIO_free(in);
                BIO_free(out);
                return false;
        }
        /* An empty memory means "later", not the end. */
        BIO_set_mem_eof_return(in, -1);
        BIO_set_mem_eof_return(out, -1);
        SSL_set_bio(conn->ssl, in, out);
        if (conn->dialed)
                SSL_set_connect_state(conn->ssl);
        else
                SSL_set_accept_state(conn->ssl);
        return true;
}

static void conn_free(struct conn *conn)
{
        struct heap *heap = conn->link->heap;
        session_fini(&conn->session);
        SSL_free(conn->ssl);
        pipe_clear(&conn->pipe);
        buffer_fini(&conn->out);
        buffer_fini(&conn->out_writing);
        heap_free(heap, conn);
}

static void on_closed(uv_handle_t *handle)
{
        struct conn *conn = handle->data;
        struct link *link = conn->link;
        link_conn_closed(conn);
        conn_free(conn);
        link->handles--;
        if (link->closing && link->handles == 0)
                link->closed(link->closed_user);
}

static struct conn *conn_new(struct link *link, bool dialed)
{
        struct conn *conn = heap_alloc(link->heap, sizeof *conn);
        if (conn == NULL)
                return NULL;
        conn->link = link;
        conn->dialed = dialed;
        conn->started_us = link_now_us();
        buffer_init(&conn->out, link->heap);
        buffer_init(&conn->out_writing, link->heap);
        pipe_init(&conn->pipe, link->heap);
        if (!tls_init(conn) || uv_tcp_init(link->loop, &conn->tcp) != 0) {
                conn_free(conn);
                return NULL;
        }
        conn->tcp.data = conn;
        link->handles++;
        conn->next = link->conns;
        link->conns = conn;
        return conn;
}

static void address_text(const struct sockaddr_storage *address, char *text, size_t size)
{
        char host[64] = "?";
        uint16_t port = 0;
        if (address->ss_family == AF_INET) {
                struct sockaddr_in in;
                memcpy(&in, address, sizeof in);
                uv_ip4_name(&in, host, sizeof host);
                port = ntohs(in.sin_port);
        } else if (address->ss_family == AF_INET6) {
                struct sockaddr_in6 in6;
                memcpy(&in6, address, sizeof in6);
                uv_ip6_name(&in6, host, sizeof host);
                port = ntohs(in6.sin6_port);
        }
        snprintf(text, size, "%s port %u", host, port);
}

/* The same address with any port, to dial from. */
static struct sockaddr_storage address_any_port(const struct sockaddr_storage *address)
{
        struct sockaddr_storage any = *address;
        _Static_assert(offsetof(struct sockaddr_in, sin_port) ==
                               offsetof(struct sockaddr_in6, sin6_port),
                       "the port of both families lies at the same place");
        memset((uint8_t *)&any + offsetof(struct sockaddr_in, sin_port), 0, sizeof(in_port_t));
        return any;
}

struct conn *conn_dial(struct link *link, struct peer *peer)
{
        struct conn *conn = conn_new(link, true);
        if (conn == NULL)
                return NULL;
        conn->peer = peer;
        conn->id = peer->id;
        conn->state = CONN_CONNECTING;
        conn->connect.data = conn;
        address_text(&peer->address, conn->who, sizeof conn->who);
        int result = 0;
        if (peer->address.ss_family == link->address.ss_family) {
                struct sockaddr_storage from = address_any_port(&link->address);
                result = uv_tcp_bind(&conn->tcp, (const struct sockaddr *)&from, 0);
        }
        if (result == 0)
                result = uv_tcp_connect(&conn->connect, &conn->tcp,
                                        (const struct sockaddr *)&peer->address, on_connect);
        if (result != 0)
                conn_break(conn, "cannot connect to %s: %s", conn->who, uv_strerror(result));
        return conn;
}

/* Small queues in the kernel: without the first call bulk data would pile up there. */
static void socket_tune(struct conn *conn)
{
        int fd, unsent = (int)LINK_PULL_BYTES;
        uv_tcp_nodelay(&conn->tcp, 1);
        if (uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0 &&
            setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent) != 0)
                conn_break(conn, "TCP_NOTSENT_LOWAT is refused by the system");
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
        (void)suggested;
        struct conn *conn = handle->data;
        *buffer = uv_buf_init((char *)conn->link->in_net, sizeof conn->link->in_net);
}

/* TCP stands: TLS may begin. */
static void conn_begin(struct conn *conn)
{
        conn->state = CONN_HANDSHAKE;
        socket_tune(conn);
        int result = uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
        if (result != 0)
                conn_break(conn, "cannot read: %s", uv_strerror(result));
}

struct conn *conn_accept(struct link *link, uv_stream_t *listener)
{
        struct conn *conn = conn_new(link, false);
        struct sockaddr_storage from = {0};
        int from_len = sizeof from;
        if (conn == NULL)
                return NULL;
        int result = uv_accept(listener, (uv_stream_t *)&conn->tcp);
        if (result == 0)
                result = uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&from, &from_len);
        address_text(&from, conn->who, sizeof conn->who);
        if (result != 0)
                conn_break(conn, "cannot accept: %s", uv_strerror(result));
        else
                conn_begin(conn);
        return conn;
}

void conn_break(struct conn *conn, const char *format, ...)
{
        if (conn->broken)
                return;
        va_list args;
        va_start(args, format);
        vsnprintf(conn->why, sizeof conn->why, format, args);
        va_end(args);
        conn->broken = true;
}

void conn_settle(struct conn *conn)
{
        if (!conn->broken || conn->state == CONN_CLOSED)
                return;
        bool was_up = conn->state == CONN_UP;
        /* The TLS alert that says why, as far as it goes without waiting. */
        if (!conn->writing && conn->out.len > 0 && conn->state != CONN_CONNECTING) {
                uv_buf_t left = uv_buf_init((char *)conn->out.ptr, (unsigned)conn->out.len);
                uv_try_write((uv_stream_t *)&conn->tcp, &left, 1);
        }
        conn->state = CONN_CLOSED;
        uv_close((uv_handle_t *)&conn->tcp, on_closed);
        link_conn_ended(conn, was_up);
}

void conn_opened(struct conn *conn)
{
        CHECK(conn->state == CONN_OPENING);
        conn->state = CONN_UP;
        conn->answered_us = link_now_us();
        conn->ping_due_us = conn->answered_us;
        link_conn_up(conn);
}

/* ---- TLS ---- */

static const char *tls_reason(struct conn *conn)
{
        long verified = SSL_get_verify_result(conn->ssl);
        unsigned long code = ERR_peek_last_error();
        const char *reason = ERR_reason_error_string(code);
        if (verified != X509_V_OK)
                return X509_verify_cert_error_string(verified);
        return reason == NULL ? "the other side hung up" : reason;
}

static void tls_break(struct conn *conn, const char *doing, int result)
{
        int kind = SSL_get_error(conn->ssl, result);
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
                return;
        if (kind == SSL_ERROR_ZERO_RETURN)
                conn_break(conn, "the peer closed the connection");
        else
                conn_break(conn, "TLS %s failed: %s", doing, tls_reason(conn));
        ERR_clear_error();
}

/* Whose certificate it is, and whether that peer may have this connection. */
static void conn_identify(struct conn *conn)
{
        struct pki_identity identity;
        char uri[PKI_URI_MAX], why[LINK_WHY_MAX];
        X509 *certificate = SSL_get0_peer_certificate(conn->ssl);
        if (certificate == NULL || SSL_get_verify_result(conn->ssl) != X509_V_OK ||
            pki_certificate_identity(certificate, &identity) != ERR_NONE) {
                conn_break(conn, "its certificate names no node");
                return;
        }
        pki_identity_format(&identity, uri);
        if (conn->dialed) {
                struct pki_identity expected = conn->link->self;
                memcpy(expected.region, conn->peer->region, sizeof expected.region);
                expected.node = conn->id;
                if (!pki_identity_equal(&identity, &expected))
                        conn_break(conn, "its certificate is that of %s, not of %s/%u", uri,
                                   expected.region, expected.node);
                return;
        }
        struct peer *peer = link_admit(conn->link, &identity, why);
        if (peer == NULL)
                conn_break(conn, "%s: %s", uri, why);
        else
                link_conn_known(conn, peer);
}

static void tls_shake(struct conn *conn)
{
        int result = SSL_do_handshake(conn->ssl);
        if (result != 1) {
                tls_break(conn, "handshake", result);
                return;
        }
        const unsigned char *protocol;
        unsigned protocol_len;
        SSL_get0_alpn_selected(conn->ssl, &protocol, &protocol_len);
        if (!bytes_equal(bytes_of(protocol, protocol_len), BYTES("h2")))
                conn_break(conn, "the peer does not speak HTTP/2");
        else
                conn_identify(conn);
        if (conn->broken)
                return;
        conn->state = CONN_OPENING;
        if (session_open(conn) != ERR_NONE)
                conn_break(conn, "no memory for HTTP/2");
        conn->dirty = true;
}

static void tls_receive(struct conn *conn)
{
        uint8_t *plain = conn->link->in_plain;
        while (!conn->broken) {
                size_t len = 0;
                int result = SSL_read_ex(conn->ssl, plain, sizeof conn->link->in_plain, &len);
                if (result != 1) {
                        tls_break(conn, "read", result);
                        return;
                }
                session_feed(conn, bytes_of(plain, len));
        }
}

static void tls_send(struct conn *conn, struct bytes data)
{
        conn->key_bytes += data.len;
        if (conn->key_bytes > KEY_BYTES_MAX) {
                conn->key_bytes = 0;
                if (SSL_key_update(conn->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
                        conn_break(conn, "TLS cannot renew its key");
        }
        while (data.len > 0 && !conn->broken) {
                size_t len = 0;
                int result = SSL_write_ex(conn->ssl, data.ptr, data.len, &len);
                if (result != 1) {
                        conn_break(conn, "TLS write failed: %s", tls_reason(conn));
                        return;
                }
                data = bytes_of(data.ptr + len, data.len - len);
        }
}

/* ---- what is written ---- */

static bool impaired(const struct conn *conn)
{
        const struct peer *peer = conn->peer;
        return conn->pipe.bytes > 0 ||
               (peer != NULL && (peer->impairment.delay_us > 0 || peer->impairment.slow_us > 0 ||
                                 peer->impairment.loss_per_mille > 0));
}

static void pipe_send(struct conn *conn, struct bytes data)
{
        static const struct link_impairment none;
        struct link *link = conn->link;
        const struct peer *peer = conn->peer;
        uint64_t late_us = pipe_delay_us(peer == NULL ? &none : &peer->impairment, &link->rng,
                                         data.len, peer == NULL ? 0 : peer->status.rtt_us);
        if (pipe_put(&conn->pipe, data, link_now_us() + late_us) != ERR_NONE)
                conn_break(conn, "no memory for delayed bytes");
        link_release_rearm(link);
}

/* Moves what TLS has made to its way out. */
static void tls_drain(struct conn *conn)
{
        BIO *bio = SSL_get_wbio(conn->ssl);
        char *made;
        long len = BIO_get_mem_data(bio, &made);
        if (len <= 0)
                return;
        struct bytes data = bytes_of(made, (size_t)len);
        if (impaired(conn))
                pipe_send(conn, data);
        else
                buffer_bytes(&conn->out, data);
        if (conn->out.err != ERR_NONE)
                conn_break(conn, "no memory for what is to be sent");
        (void)BIO_reset(bio);
}

static void on_write(uv_write_t *request, int status)
{
        struct conn *conn = request->data;
        conn->writing = false;
        buffer_reset(&conn->out_writing);
        if (status != 0 && status != UV_ECANCELED)
                conn_break(conn, "cannot write: %s", uv_strerror(status));
        if (conn->state != CONN_CLOSED)
                conn_pump(conn);
        conn_settle(conn);
}

static void conn_flush(struct conn *conn)
{
        if (conn->writing || conn->out.len == 0 || conn->broken)
                return;
        struct buffer spare = conn->out_writing;
        conn->out_writing = conn->out;
        conn->out = spare;
        conn->write.data = conn;
        uv_buf_t data = uv_buf_init((char *)conn->out_writing.ptr, (unsigned)conn->out_writing.len);
        int result = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, &data, 1, on_write);
        if (result != 0)
                conn_break(conn, "cannot write: %s", uv_strerror(result));
        else
                conn->writing = true;
}

/* More may be pulled only when all that was pulled before is with the kernel
 * or on its delayed way. */
static bool conn_room(const struct conn *conn)
{
        return !conn->broken && !conn->writing && conn->out.len < LINK_PULL_BYTES &&
               conn->pipe.bytes < LINK_DELAYED_BYTES;
}

void conn_pump(struct conn *conn)
{
        conn->dirty = false;
        if (conn->state == CONN_CONNECTING || conn->state == CONN_CLOSED)
                return;
        tls_drain(conn);
        while (conn->session.h2 != NULL && conn_room(conn)) {
                size_t len = session_pull(conn, conn->link->out_plain);
                if (len == 0)
                        break;
                tls_send(conn, bytes_of(conn->link->out_plain, len));
                tls_drain(conn);
        }
        conn_flush(conn);
}

void conn_release(struct conn *conn, uint64_t now_us)
{
        if (pipe_due_us(&conn->pipe) > now_us || conn->state == CONN_CLOSED)
                return;
        pipe_take(&conn->pipe, now_us, &conn->out);
        if (conn->out.err != ERR_NONE)
                conn_break(conn, "no memory for delayed bytes");
        conn_pump(conn);
}

/* ---- what the loop tells ---- */

static void on_connect(uv_connect_t *request, int status)
{
        struct conn *conn = request->data;
        if (conn->state == CONN_CLOSED)
                return;
        if (status != 0)
                conn_break(conn, "cannot connect to %s: %s", conn->who, uv_strerror(status));
        else
                conn_begin(conn);
        if (!conn->broken)
                tls_shake(conn);
        conn_pump(conn);
        conn_settle(conn);
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
        struct conn *conn = stream->data;
        if (len == 0 || conn->state == CONN_CLOSED)
                return;
        if (len < 0)
                conn_break(conn, len == UV_EOF ? "the peer closed the connection" : "%s",
                           uv_strerror((int)len));
        else if (BIO_write(SSL_get_rbio(conn->ssl), buffer->base, (int)len) != (int)len)
                conn_break(conn, "no memory for TLS");
        if (!conn->broken && conn->state == CONN_HANDSHAKE)
                tls_shake(conn);
        if (!conn->broken && conn->state != CONN_HANDSHAKE)
                tls_receive(conn);
        conn_pump(conn);
        conn_settle(conn);
}
