/* A socket to one server, plain or by TLS, on libuv: bytes out in the order in which they were
 * given, bytes in as they come.
 *
 *      CONNECTING --connected--> (TLS) SHAKING --certificate accepted--> OPEN
 *            \                          |                                 /
 *             `------ connection_broke (error, end, refused) <-----------'
 *
 * What breaks is said to the owner in one sentence, once, and the owner frees the channel; it may
 * do so inside of any call to it. The socket is closed at once, the memory when libuv has given the
 * handle back; so whoever has called the owner looks whether it is still there. */
#include "engine/engine_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
        READ_BYTES = 64 << 10,
        PIECES_A_WRITE = 32,
        ROUND_BYTES = 1 << 20, /* that TLS encrypts before others have their turn */
};

enum channel_state {
        CHANNEL_CONNECTING,
        CHANNEL_SHAKING,
        CHANNEL_OPEN,
};

struct piece {
        struct piece *next;
        char *text; /* of hiredis */
        size_t len;
};

struct channel {
        uv_poll_t poll;
        struct engine *engine;
        struct connection *owner; /* NULL: freed, as soon as libuv gives it back */
        enum channel_state state;
        int fd;
        int events;
        SSL *ssl; /* NULL: plain */
        struct piece *out;
        struct piece **out_end;
        size_t out_sent; /* of the first piece */
};

static void channel_ready(uv_poll_t *poll, int status, int events);

static void channel_broke(struct channel *channel, const char *format, ...) PRINTF_LIKE(2, 3);

static void channel_broke(struct channel *channel, const char *format, ...)
{
        char why[128];
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(why, sizeof why, format, arguments);
        va_end(arguments);
        connection_broke(channel->owner, why);
}

static void channel_want(struct channel *channel, int events)
{
        if (channel->events == events)
                return;
        channel->events = events;
        (void)uv_poll_start(&channel->poll, events, channel_ready);
}

/* ---- TLS ---- */

/* What OpenSSL says of a call that has failed; true: it only has to be called again later. */
static bool tls_later(struct channel *channel, int result)
{
        int kind = SSL_get_error(channel->ssl, result);
        unsigned long code = ERR_peek_last_error();
        const char *reason = ERR_reason_error_string(code);
        long verified = SSL_get_verify_result(channel->ssl);
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
                return true;
        if (verified != X509_V_OK)
                channel_broke(channel, "TLS: the server's certificate is not accepted: %s",
                              X509_verify_cert_error_string(verified));
        else if (kind == SSL_ERROR_ZERO_RETURN ||
                 ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
                channel_broke(channel, "Server closed the connection");
        else if (reason != NULL)
                channel_broke(channel, "TLS: %s", reason);
        else
                channel_broke(channel, "TLS: %s",
                              errno != 0 ? strerrordesc_np(errno) : "the server hung up");
        ERR_clear_error();
        return false;
}

static void tls_shake(struct channel *channel)
{
        ERR_clear_error();
        errno = 0;
        int result = SSL_do_handshake(channel->ssl);
        if (result != 1) {
                int kind = SSL_get_error(channel->ssl, result);
                if (tls_later(channel, result))
                        channel_want(channel,
                                     kind == SSL_ERROR_WANT_WRITE ? UV_WRITABLE : UV_READABLE);
                return;
        }
        channel->state = CHANNEL_OPEN;
        channel_want(channel, UV_READABLE);
        connection_stands(channel->owner);
}

/* A record may hold more than was asked for, of which the socket tells no more. */
static void tls_read(struct channel *channel, uint8_t *data)
{
        do {
                size_t len = 0;
                ERR_clear_error();
                errno = 0;
                int result = SSL_read_ex(channel->ssl, data, READ_BYTES, &len);
                if (result != 1) {
                        (void)tls_later(channel, result);
                        return;
                }
                connection_heard(channel->owner, bytes_of(data, len));
        } while (channel->owner != NULL && SSL_pending(channel->ssl) > 0);
}

/* How much of the first piece has gone; 0: nothing for now, or it broke. */
static size_t tls_write(struct channel *channel)
{
        const struct piece *piece = channel->out;
        size_t len = 0;
        ERR_clear_error();
        errno = 0;
        int result = SSL_write_ex(channel->ssl, piece->text + channel->out_sent,
                                  piece->len - channel->out_sent, &len);
        if (result != 1) {
                (void)tls_later(channel, result);
                return 0;
        }
        return len;
}

/* ---- plain ---- */

static bool is_later(int number)
{
        return number == EAGAIN || number == EINTR;
}

static void plain_read(struct channel *channel, uint8_t *data)
{
        ssize_t len = recv(channel->fd, data, READ_BYTES, 0);
        if (len > 0)
                connection_heard(channel->owner, bytes_of(data, (size_t)len));
        else if (len == 0)
                channel_broke(channel, "Server closed the connection");
        else if (!is_later(errno))
                channel_broke(channel, "%s", strerrordesc_np(errno));
}

static size_t plain_write(struct channel *channel)
{
        struct iovec parts[PIECES_A_WRITE];
        struct msghdr message = {.msg_iov = parts};
        size_t skip = channel->out_sent;
        for (const struct piece *piece = channel->out;
             piece != NULL && message.msg_iovlen < PIECES_A_WRITE; piece = piece->next) {
                parts[message.msg_iovlen++] = (struct iovec){.iov_base = piece->text + skip,
                                                             .iov_len = piece->len - skip};
                skip = 0;
        }
        ssize_t len = sendmsg(channel->fd, &message, MSG_NOSIGNAL);
        if (len < 0 && !is_later(errno))
                channel_broke(channel, "%s", strerrordesc_np(errno));
        return len > 0 ? (size_t)len : 0;
}

/* ---- both ---- */

static void channel_sent(struct channel *channel, size_t len)
{
        channel->out_sent += len;
        while (channel->out != NULL && channel->out_sent >= channel->out->len) {
                struct piece *piece = channel->out;
                channel->out_sent -= piece->len;
                channel->out = piece->next;
                redisFreeCommand(piece->text);
                heap_free(channel->engine->config.heap, piece);
        }
        if (channel->out == NULL)
                channel->out_end = &channel->out;
}

static void channel_write(struct channel *channel)
{
        size_t total = 0, len = 1;
        while (channel->owner != NULL && channel->out != NULL && len > 0 && total < ROUND_BYTES) {
                len = channel->ssl != NULL ? tls_write(channel) : plain_write(channel);
                if (channel->owner != NULL)
                        channel_sent(channel, len);
                total += len;
        }
        if (channel->owner != NULL && channel->out == NULL)
                channel_want(channel, UV_READABLE);
}

static void channel_connected(struct channel *channel)
{
        int number = 0, on = 1;
        socklen_t size = sizeof number;
        if (getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0)
                number = errno;
        if (number != 0) {
                channel_broke(channel, "%s", strerrordesc_np(number));
                return;
        }
        (void)setsockopt(channel->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (channel->ssl != NULL) {
                channel->state = CHANNEL_SHAKING;
                tls_shake(channel);
                return;
        }
        channel->state = CHANNEL_OPEN;
        channel_want(channel, UV_READABLE);
        connection_stands(channel->owner);
}

static void channel_read(struct channel *channel)
{
        static uint8_t data[READ_BYTES]; /* one loop, and nobody keeps what is heard */
        if (channel->ssl != NULL)
                tls_read(channel, data);
        else
                plain_read(channel, data);
}

static void channel_ready(uv_poll_t *poll, int status, int events)
{
        struct channel *channel = poll->data;
        /* A long answer, or command, moves before it has come to its end. */
        if (status == 0)
                channel->owner->moved_ms = uv_now(channel->engine->config.loop);
        if (channel->state == CHANNEL_CONNECTING)
                channel_connected(channel);
        else if (channel->state == CHANNEL_SHAKING)
                tls_shake(channel);
        else if (status < 0 || (events & UV_READABLE) != 0)
                channel_read(channel);
        if (channel->owner != NULL && status < 0) /* libuv waits no longer */
                channel_broke(channel, "the connection broke");
        if (channel->owner != NULL && channel->state == CHANNEL_OPEN &&
            (events & UV_WRITABLE) != 0 && channel->out != NULL)
                channel_write(channel);
}

bool channel_send(struct channel *channel, char *text, size_t len)
{
        struct piece *piece = heap_alloc(channel->engine->config.heap, sizeof *piece);
        if (piece == NULL)
                return false;
        piece->text = text;
        piece->len = len;
        piece->next = NULL;
        *channel->out_end = piece;
        channel->out_end = &piece->next;
        channel_want(channel, UV_READABLE | UV_WRITABLE);
        return true;
}

/* The socket, on its way to the server; negative: errno says why there is none. */
static int socket_open(const struct topology_endpoint *endpoint)
{
        struct sockaddr_storage address;
        engine_address(endpoint, &address);
        socklen_t size = endpoint->address.family == 4 ? sizeof(struct sockaddr_in)
                                                       : sizeof(struct sockaddr_in6);
        int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&address, size) == 0 ||
            errno == EINPROGRESS)
                return fd;
        int number = errno;
        close(fd);
        errno = number;
        return -1;
}

static bool channel_init(struct channel *channel, struct ssl_ctx_st *tls)
{
        if (tls != NULL) {
                channel->ssl = SSL_new(tls);
                if (channel->ssl == NULL || SSL_set_fd(channel->ssl, channel->fd) != 1)
                        return false;
                SSL_set_connect_state(channel->ssl);
        }
        return uv_poll_init(channel->engine->config.loop, &channel->poll, channel->fd) == 0;
}

struct channel *channel_new(struct connection *owner, const char **ret_why)
{
        struct engine *engine = owner->engine;
        struct channel *channel = heap_alloc(engine->config.heap, sizeof *channel);
        *ret_why = "out of memory";
        if (channel == NULL)
                return NULL;
        *channel = (struct channel){.engine = engine, .owner = owner};
        channel->out_end = &channel->out;
        channel->fd = socket_open(&owner->endpoint);
        if (channel->fd < 0)
                *ret_why = strerrordesc_np(errno);
        if (channel->fd < 0 || !channel_init(channel, engine->config.redis_tls)) {
                SSL_free(channel->ssl);
                if (channel->fd >= 0)
                        close(channel->fd);
                heap_free(engine->config.heap, channel);
                return NULL;
        }
        channel->poll.data = channel;
        engine_handle_opened(engine);
        channel->events = UV_WRITABLE;
        (void)uv_poll_start(&channel->poll, UV_WRITABLE, channel_ready);
        return channel;
}

static void channel_closed(uv_handle_t *handle)
{
        struct channel *channel = handle->data;
        struct engine *engine = channel->engine;
        heap_free(engine->config.heap, channel);
        engine_handle_closed(engine);
}

void channel_free(struct channel *channel)
{
        channel->owner = NULL;
        uv_close((uv_handle_t *)&channel->poll, channel_closed);
        SSL_free(channel->ssl);
        channel->ssl = NULL;
        close(channel->fd);
        while (channel->out != NULL) {
                struct piece *piece = channel->out;
                channel->out = piece->next;
                redisFreeCommand(piece->text);
                heap_free(channel->engine->config.heap, piece);
        }
}
