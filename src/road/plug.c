/* A socket of a way. What cannot be written at once waits in `out`; while anything waits nothing is
 * read from the other end, so at most one read, or a tunnel's window, is ever there. An error, in
 * whichever direction, breaks the way. */
#include "road/road_priv.h"

enum {
        KEEPALIVE_S = 30,
        OUT_KEPT = 64 << 10, /* a buffer that has grown beyond this is given back when empty */
};

void plug_init(struct plug *plug, struct way *way)
{
        plug->way = way;
        plug->tcp.data = plug;
        buffer_init(&plug->out, way->road->heap);
        buffer_init(&plug->out_writing, way->road->heap);
}

enum err plug_make(struct plug *plug)
{
        if (uv_tcp_init(plug->way->road->loop, &plug->tcp) != 0)
                return ERR_NOMEM;
        plug->tcp.data = plug;
        plug->made = true;
        plug->way->handles++;
        return ERR_NONE;
}

/* Where the system refuses an option, all still works. */
void plug_tune(struct plug *plug)
{
        (void)uv_tcp_nodelay(&plug->tcp, 1);
        (void)uv_tcp_keepalive(&plug->tcp, 1, KEEPALIVE_S);
}

static void on_connect(uv_connect_t *request, int status)
{
        struct plug *plug = request->data;
        if (status == UV_ECANCELED || plug->way->state == WAY_CLOSED)
                return;
        if (status == 0)
                plug_tune(plug);
        way_connected(plug->way, plug, status == 0);
}

enum err plug_connect(struct plug *plug, const struct sockaddr *address)
{
        plug->connect.data = plug;
        enum err err = plug_make(plug);
        if (err == ERR_NONE && uv_tcp_connect(&plug->connect, &plug->tcp, address, on_connect) != 0)
                err = ERR_IO;
        return err;
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
        (void)suggested;
        struct plug *plug = handle->data;
        struct road *road = plug->way->road;
        size_t room = way_room(plug->way, plug);
        *ret_buffer = uv_buf_init((char *)road->scratch + FRAME_HEAD,
                                  (unsigned)(room < READ_BYTES ? room : READ_BYTES));
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
        struct plug *plug = stream->data;
        struct way *way = plug->way;
        if (len == 0 || way->state == WAY_CLOSED)
                return;
        if (len == UV_ENOBUFS) {
                plug_pause(plug);
        } else if (len == UV_EOF) {
                plug_pause(plug);
                way_ended(way, plug);
        } else if (len < 0) {
                way_broke(way, plug);
        } else {
                way_came(way, plug, bytes_of(buffer->base, (size_t)len));
        }
}

void plug_read(struct plug *plug)
{
        if (plug->reading || !plug->made)
                return;
        plug->reading = uv_read_start((uv_stream_t *)&plug->tcp, on_alloc, on_read) == 0;
}

void plug_pause(struct plug *plug)
{
        if (plug->reading)
                (void)uv_read_stop((uv_stream_t *)&plug->tcp);
        plug->reading = false;
}

/* ---- writing ---- */

static void on_shutdown(uv_shutdown_t *request, int status)
{
        struct plug *plug = request->data;
        (void)status; /* the other side may be gone already: finished all the same */
        plug->finished = true;
        if (plug->way->state != WAY_CLOSED)
                way_look_done(plug->way);
}

static void finish_now(struct plug *plug)
{
        plug->shutdown.data = plug;
        if (uv_shutdown(&plug->shutdown, (uv_stream_t *)&plug->tcp, on_shutdown) != 0) {
                plug->finished = true;
                way_look_done(plug->way);
        }
}

static void write_next(struct plug *plug);

static void on_write(uv_write_t *request, int status)
{
        struct plug *plug = request->data;
        struct way *way = plug->way;
        plug->writing = false;
        buffer_reset(&plug->out_writing);
        if (way->state == WAY_CLOSED)
                return;
        if (status != 0)
                way_broke(way, plug);
        else
                write_next(plug);
}

static void buffer_give_back(struct buffer *buffer)
{
        struct heap *heap = buffer->heap;
        if (buffer->size <= OUT_KEPT)
                return;
        buffer_fini(buffer);
        buffer_init(buffer, heap);
}

static void write_next(struct plug *plug)
{
        if (plug->out.len == 0) {
                buffer_give_back(&plug->out);
                buffer_give_back(&plug->out_writing);
                if (plug->finishing)
                        finish_now(plug);
                way_drained(plug->way, plug);
                return;
        }
        struct buffer spare = plug->out_writing;
        plug->out_writing = plug->out;
        plug->out = spare;
        plug->write.data = plug;
        uv_buf_t data = uv_buf_init((char *)plug->out_writing.ptr, (unsigned)plug->out_writing.len);
        if (uv_write(&plug->write, (uv_stream_t *)&plug->tcp, &data, 1, on_write) != 0)
                way_broke(plug->way, plug);
        else
                plug->writing = true;
}

void plug_write(struct plug *plug, struct bytes data)
{
        if (!plug->writing && plug->out.len == 0) {
                uv_buf_t all = {.base = (char *)(uintptr_t)data.ptr, .len = data.len};
                int sent = uv_try_write((uv_stream_t *)&plug->tcp, &all, 1);
                if (sent < 0 && sent != UV_EAGAIN) {
                        way_broke(plug->way, plug);
                        return;
                }
                size_t done = sent > 0 ? (size_t)sent : 0;
                data = bytes_of(data.ptr + done, data.len - done);
        }
        if (data.len == 0)
                return;
        buffer_bytes(&plug->out, data);
        if (plug->out.err != ERR_NONE)
                way_broke(plug->way, plug);
        else if (!plug->writing)
                write_next(plug);
}

size_t plug_pending(const struct plug *plug)
{
        return plug->out.len + plug->out_writing.len;
}

void plug_finish(struct plug *plug)
{
        if (plug->finishing || !plug->made)
                return;
        plug->finishing = true;
        if (plug_pending(plug) == 0)
                finish_now(plug);
}

static void on_closed(uv_handle_t *handle)
{
        struct plug *plug = handle->data;
        plug->made = false;
        way_handle_closed(plug->way);
}

void plug_close(struct plug *plug)
{
        plug->reading = false;
        if (plug->made && !uv_is_closing((uv_handle_t *)&plug->tcp))
                uv_close((uv_handle_t *)&plug->tcp, on_closed);
}
