/* HTTP/2 on a connection. The dialler opens four streams, one for each class:
 *
 *         dialler: HEADERS POST /meridian/control ...         acceptor: HEADERS 200
 *         DATA: messages of the dialler                       DATA: messages of the acceptor
 *
 * and both stay open. The connection stands when all of them do: the acceptor sends nothing before,
 * so the answers come before any DATA. The end of any stream, an unknown path, a GOAWAY, a
 * malformed message: the connection is broken with the reason.
 *
 * Order of what is sent: nghttp2 asks for the bytes of a stream only after we resume it, and we
 * resume only the most urgent class that has something and is allowed to send it. nghttp2's own
 * frames (PING, WINDOW_UPDATE) go before all DATA. The window of the whole connection is as large
 * as it can be, so that a full stream never holds up another. */
#include "base/check.h"
#include "link/link_priv.h"

#include <stdio.h>

struct class_row {
        struct bytes path;
        unsigned rank;  /* a smaller one goes first; equals take turns, by nghttp2 */
        int32_t window; /* what we allow to be on its way to us: 220 ms at some hundred MB/s */
};

static const struct class_row class_rows[WORLD_CLASS_COUNT] = {
        [WORLD_CLASS_CONTROL] = {BYTES_INIT("/meridian/control"), 0, 64 << 20},
        [WORLD_CLASS_DATA] = {BYTES_INIT("/meridian/data"), 1, 32 << 20},
        [WORLD_CLASS_TUNNEL] = {BYTES_INIT("/meridian/tunnel"), 2, 64 << 20},
        [WORLD_CLASS_BULK] = {BYTES_INIT("/meridian/bulk"), 2, 16 << 20},
};

#define WINDOW_CONNECTION 0x7fffffff

static struct stream *stream_of(const struct conn *conn, int32_t id)
{
        return id == 0 ? NULL : nghttp2_session_get_stream_user_data(conn->session.h2, id);
}

/* True when a class has bytes and the other side has room for them. */
static bool stream_ready(const struct stream *stream)
{
        nghttp2_session *h2 = stream->conn->session.h2;
        return stream->id != 0 && stream->out.bytes > 0 &&
               nghttp2_session_get_stream_remote_window_size(h2, stream->id) > 0;
}

static bool more_urgent_ready(const struct stream *stream)
{
        const struct stream *all = stream->conn->session.streams;
        for (unsigned i = 0; i < (unsigned)stream->class; i++) {
                if (class_rows[i].rank < class_rows[stream->class].rank && stream_ready(&all[i]))
                        return true;
        }
        return false;
}

/* NOLINTBEGIN(readability-non-const-parameter): the type is nghttp2's */
static ssize_t stream_read(nghttp2_session *h2, int32_t id, uint8_t *buffer, size_t size,
                           uint32_t *flags, nghttp2_data_source *source, void *user)
{
        (void)h2;
        (void)id;
        (void)flags;
        (void)user;
        struct stream *stream = source->ptr;
        if (stream->out.bytes == 0 || more_urgent_ready(stream)) {
                stream->deferred = true;
                return NGHTTP2_ERR_DEFERRED;
        }
        size_t len = queue_pull(&stream->out, buffer, size);
        stream->conn->peer->status.sent_bytes[stream->class] += len;
        return (ssize_t)len;
}
/* NOLINTEND(readability-non-const-parameter) */

static nghttp2_data_provider provider_of(struct stream *stream)
{
        return (nghttp2_data_provider){.source = {.ptr = stream}, .read_callback = stream_read};
}

static bool all_open(const struct session *session)
{
        for (unsigned i = 0; i < WORLD_CLASS_COUNT; i++) {
                if (!session->streams[i].open)
                        return false;
        }
        return true;
}

/* ---- what comes in ---- */

static void window_widen(struct conn *conn, const struct stream *stream)
{
        if (nghttp2_session_set_local_window_size(conn->session.h2, NGHTTP2_FLAG_NONE, stream->id,
                                                  class_rows[stream->class].window) != 0)
                conn_break(conn, "no memory for a window");
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
        (void)h2;
        struct conn *conn = user;
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST && conn->dialed)
                conn_break(conn, "the peer opens streams that it must not open");
        return 0;
}

/* A request's path gives its stream a class. */
static void path_take(struct conn *conn, int32_t id, struct bytes path)
{
        for (unsigned i = 0; i < WORLD_CLASS_COUNT; i++) {
                struct stream *stream = &conn->session.streams[i];
                if (!bytes_equal(path, class_rows[i].path) || stream->id != 0)
                        continue;
                stream->id = id;
                if (nghttp2_session_set_stream_user_data(conn->session.h2, id, stream) != 0)
                        conn_break(conn, "no memory for a stream");
                return;
        }
        conn_break(conn, "an unknown stream '%.*s' was asked for",
                   path.len > 40 ? 40 : (int)path.len, (const char *)path.ptr);
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
        (void)h2;
        (void)flags;
        struct conn *conn = user;
        struct bytes key = bytes_of(name, name_len), text = bytes_of(value, value_len);
        if (conn->broken || frame->hd.type != NGHTTP2_HEADERS)
                return 0;
        if (!conn->dialed && bytes_equal(key, BYTES(":path")))
                path_take(conn, frame->hd.stream_id, text);
        if (conn->dialed && bytes_equal(key, BYTES(":status")) && !bytes_equal(text, BYTES("200")))
                conn_break(conn, "the peer refuses a stream with status %.*s",
                           text.len > 8 ? 8 : (int)text.len, (const char *)text.ptr);
        return 0;
}

static nghttp2_nv field(const char *name, struct bytes value)
{
        struct bytes key = bytes_of_str(name);
        /* nghttp2 copies both; its type lacks the const. */
        /* NOLINTBEGIN(performance-no-int-to-ptr) */
        return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)key.ptr,
                            .value = (uint8_t *)(uintptr_t)value.ptr,
                            .namelen = key.len,
                            .valuelen = value.len};
        /* NOLINTEND(performance-no-int-to-ptr) */
}

/* The acceptor's answer to a request. */
static void stream_accept(struct conn *conn, struct stream *stream)
{
        nghttp2_nv answer[] = {field(":status", BYTES("200"))};
        nghttp2_data_provider provider = provider_of(stream);
        if (nghttp2_submit_response(conn->session.h2, stream->id, answer, COUNT_OF(answer),
                                    &provider) != 0)
                conn_break(conn, "no memory for a stream");
}

/* Headers are whole: a request at the acceptor, an answer at the dialler. */
static void headers_done(struct conn *conn, const nghttp2_frame *frame)
{
        struct stream *stream = stream_of(conn, frame->hd.stream_id);
        if (stream == NULL || stream->open) {
                conn_break(conn, "the peer sends headers that do not belong here");
                return;
        }
        stream->open = true;
        if (!conn->dialed)
                stream_accept(conn, stream);
        window_widen(conn, stream);
        if (!conn->broken && all_open(&conn->session))
                conn_opened(conn);
}

static void ping_answered(struct conn *conn, const uint8_t data[8])
{
        struct session *session = &conn->session;
        uint64_t number = 0;
        for (unsigned i = 0; i < 8; i++)
                number = number << 8 | data[i];
        /* Not one of ours, or so old that its time was overwritten. */
        if (number >= session->ping_next || session->ping_next - number > LINK_PINGS)
                return;
        uint64_t now_us = link_now_us();
        uint64_t rtt_us = now_us - session->ping_sent_us[number % LINK_PINGS];
        struct link_status *status = &conn->peer->status;
        conn->answered_us = now_us;
        status->rtt_us = rtt_us;
        if (!status->rtt_known || rtt_us < status->rtt_us_min)
                status->rtt_us_min = rtt_us;
        status->rtt_known = true;
        if (conn->state == CONN_UP)
                conn->link->callbacks.rtt(conn->link->callbacks.user, conn->id, rtt_us);
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
        (void)h2;
        struct conn *conn = user;
        if (conn->broken)
                return 0;
        if (frame->hd.type == NGHTTP2_HEADERS)
                headers_done(conn, frame);
        if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0)
                ping_answered(conn, frame->ping.opaque_data);
        if (frame->hd.type == NGHTTP2_GOAWAY)
                conn_break(conn, "the peer says goodbye (HTTP/2 error %u)",
                           frame->goaway.error_code);
        if (!conn->broken && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
            (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS))
                conn_break(conn, "the peer ends a stream");
        return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len,
                   void *user)
{
        (void)h2;
        (void)flags;
        struct conn *conn = user;
        struct stream *stream = stream_of(conn, id);
        struct bytes data = bytes_of(bytes, len), message;
        enum err err = ERR_NONE;
        if (stream == NULL || conn->state != CONN_UP) {
                conn_break(conn, "the peer sends data before the streams stand");
                return 0;
        }
        conn->peer->status.received_bytes[stream->class] += len;
        while (!conn->broken && assembler_next(&stream->in, &data, &message, &err))
                conn->link->callbacks.message(conn->link->callbacks.user, conn->id, stream->class,
                                              message);
        if (err != ERR_NONE)
                conn_break(conn, "a message cannot be taken: %s", err_text(err));
        return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t id, uint32_t error, void *user)
{
        (void)h2;
        (void)id;
        conn_break(user, "a stream was closed (HTTP/2 error %u)", error);
        return 0;
}

static int on_invalid_frame(nghttp2_session *h2, const nghttp2_frame *frame, int error, void *user)
{
        (void)h2;
        (void)frame;
        conn_break(user, "the peer violates HTTP/2: %s", nghttp2_strerror(error));
        return 0;
}

/* ---- opening ---- */

static enum err h2_new(struct conn *conn)
{
        nghttp2_session_callbacks *callbacks;
        if (nghttp2_session_callbacks_new(&callbacks) != 0)
                return ERR_NOMEM;
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
        int made = conn->dialed ? nghttp2_session_client_new(&conn->session.h2, callbacks, conn)
                                : nghttp2_session_server_new(&conn->session.h2, callbacks, conn);
        nghttp2_session_callbacks_del(callbacks);
        return made == 0 ? ERR_NONE : ERR_NOMEM;
}

static enum err settings_send(struct session *session)
{
        static const nghttp2_settings_entry settings[] = {
                {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, WORLD_CLASS_COUNT},
                {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
                {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 4096},
                {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        };
        if (nghttp2_submit_settings(session->h2, NGHTTP2_FLAG_NONE, settings, COUNT_OF(settings)) !=
                    0 ||
            nghttp2_session_set_local_window_size(session->h2, NGHTTP2_FLAG_NONE, 0,
                                                  WINDOW_CONNECTION) != 0)
                return ERR_NOMEM;
        return ERR_NONE;
}

static enum err stream_request(struct conn *conn, struct stream *stream)
{
        nghttp2_nv request[] = {
                field(":method", BYTES("POST")),
                field(":scheme", BYTES("https")),
                field(":authority", BYTES("meridian")),
                field(":path", class_rows[stream->class].path),
        };
        nghttp2_data_provider provider = provider_of(stream);
        int32_t id = nghttp2_submit_request(conn->session.h2, NULL, request, COUNT_OF(request),
                                            &provider, stream);
        if (id < 0)
                return ERR_NOMEM;
        stream->id = id;
        return ERR_NONE;
}

enum err session_open(struct conn *conn)
{
        struct session *session = &conn->session;
        enum err err = h2_new(conn);
        if (err == ERR_NONE)
                err = settings_send(session);
        for (unsigned i = 0; i < WORLD_CLASS_COUNT; i++) {
                struct stream *stream = &session->streams[i];
                stream->conn = conn;
                stream->class = (enum world_class)i;
                assembler_init(&stream->in, conn->link->heap, link_message_max[i]);
                queue_init(&stream->out, conn->link->heap);
                if (err == ERR_NONE && conn->dialed)
                        err = stream_request(conn, stream);
        }
        return err;
}

void session_fini(struct session *session)
{
        for (unsigned i = 0; session->h2 != NULL && i < WORLD_CLASS_COUNT; i++) {
                assembler_fini(&session->streams[i].in);
                queue_clear(&session->streams[i].out);
        }
        nghttp2_session_del(session->h2);
        session->h2 = NULL;
}

/* ---- both directions ---- */

void session_feed(struct conn *conn, struct bytes data)
{
        ssize_t used = nghttp2_session_mem_recv(conn->session.h2, data.ptr, data.len);
        if (used < 0)
                conn_break(conn, "the peer violates HTTP/2: %s", nghttp2_strerror((int)used));
        else if (!nghttp2_session_want_read(conn->session.h2) &&
                 !nghttp2_session_want_write(conn->session.h2))
                conn_break(conn, "HTTP/2 has come to its end");
}

/* Lets nghttp2 ask for the most urgent classes that can go; false when none was waiting to. */
static bool streams_resume(struct session *session)
{
        bool resumed = false;
        for (unsigned i = 0; i < WORLD_CLASS_COUNT; i++) {
                struct stream *stream = &session->streams[i];
                if (!stream_ready(stream))
                        continue;
                if (more_urgent_ready(stream))
                        break;
                if (!stream->deferred)
                        continue;
                stream->deferred = false;
                resumed = nghttp2_session_resume_data(session->h2, stream->id) == 0 || resumed;
        }
        return resumed;
}

size_t session_pull(struct conn *conn, uint8_t *buffer)
{
        size_t len = 0;
        while (len < LINK_PULL_BYTES && !conn->broken) {
                const uint8_t *frame;
                bool again = streams_resume(&conn->session);
                ssize_t frame_len = nghttp2_session_mem_send(conn->session.h2, &frame);
                if (frame_len < 0) {
                        conn_break(conn, "HTTP/2 cannot send: %s",
                                   nghttp2_strerror((int)frame_len));
                        return 0;
                }
                CHECK((size_t)frame_len <= LINK_FRAME_BYTES + LINK_FRAME_HEAD);
                if (frame_len == 0 && !again)
                        return len;
                if (frame_len > 0)
                        memcpy(buffer + len, frame, (size_t)frame_len);
                len += (size_t)frame_len;
        }
        return len;
}

void session_ping(struct conn *conn, uint64_t now_us)
{
        struct session *session = &conn->session;
        uint8_t data[8];
        uint64_t number = session->ping_next++;
        for (unsigned i = 0; i < 8; i++)
                data[i] = (uint8_t)(number >> (56 - 8 * i));
        session->ping_sent_us[number % LINK_PINGS] = now_us;
        if (nghttp2_submit_ping(session->h2, NGHTTP2_FLAG_NONE, data) != 0)
                conn_break(conn, "no memory for a PING");
        conn->dirty = true;
}
