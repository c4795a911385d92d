/* api_locks.c - the lock service's door: RESP over TCP.
 *
 * A client's bytes go through resp_read; each command either has its answer at once or becomes a
 * request to the node. Answers leave in the order of the commands: while an earlier one waits, a
 * later one rests in a slot of the client's queue.
 *
 *   bytes -> input -> command -> [slot, slot, slot] -> output -> sending -> bytes
 *
 * Answers of one turn of the loop leave together, before the loop sleeps (uv_prepare): one write
 * for each client. What the socket does not take at once waits for it in `sending`.
 *
 * Bounds: a client that has API_PENDING_MAX slots, or slots whose answers may have
 * API_EXPECTED_MAX bytes, or API_OUTPUT_MAX bytes of output is not read from until it has less. A
 * client that breaks the protocol gets its earlier answers, the error, and is closed. One that
 * leaves has its requests dropped. */
#include "api/api_door.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

#define INPUT_CHUNK ((size_t)16 * 1024)
static void client_step(struct client *client);
static void client_close(struct client *client);

/* ---- answers ---- */

/* Adds a place to the end of the queue, done for now; NULL where memory ran out: the client is then
 * closed after what it has. */
struct slot *slot_add(struct client *client)
{
        struct api_locks *locks = client->locks;
        struct slot *slot = locks->slots;
        if (slot != NULL)
                locks->slots = slot->next;
        else
                slot = heap_alloc(&locks->api->heap, sizeof *slot);
        if (slot == NULL) {
                client->last = true;
                return NULL;
        }
        *slot = (struct slot){.client = client};
        buffer_init(&slot->reply, &locks->api->heap);
        slot->done = true;
        *client->slots_end = slot;
        client->slots_end = &slot->next;
        client->slot_count++;
        return slot;
}

/* Where an answer at once goes: to the output when nothing waits before it. NULL as above. */
struct buffer *reply_begin(struct client *client)
{
        if (client->slots == NULL)
                return &client->output;
        struct slot *slot = slot_add(client);
        return slot == NULL ? NULL : &slot->reply;
}

static void slot_free(struct client *client, struct slot *slot)
{
        buffer_fini(&slot->reply);
        slot->next = client->locks->slots;
        client->locks->slots = slot;
}

/* Moves answers whose turn has come to the output. */
static void slots_flush(struct client *client)
{
        while (client->slots != NULL && client->slots->done) {
                struct slot *slot = client->slots;
                client->slots = slot->next;
                if (client->slots == NULL)
                        client->slots_end = &client->slots;
                client->slot_count--;
                client->expected -= slot->expected;
                buffer_bytes(&client->output, buffer_view(&slot->reply));
                slot_free(client, slot);
        }
}

static void write_done(uv_write_t *write, int status)
{
        struct client *client = (struct client *)write->handle;
        client->writing = false;
        buffer_reset(&client->sending);
        if (client->closing)
                return;
        if (status < 0)
                client_close(client);
        else
                client_step(client);
}

static void output_send(struct client *client)
{
        if (client->output.err != ERR_NONE) {
                client_close(client);
                return;
        }
        if (client->writing || client->output.len == 0)
                return;
        uv_buf_t buf = uv_buf_init((char *)client->output.ptr, (unsigned)client->output.len);
        int sent = uv_try_write((uv_stream_t *)&client->tcp, &buf, 1);
        if (sent < 0 && sent != UV_EAGAIN) {
                client_close(client);
                return;
        }
        if (sent > 0)
                buffer_consume(&client->output, (size_t)sent);
        if (client->output.len == 0)
                return;
        struct buffer empty = client->sending;
        client->sending = client->output;
        client->output = empty;
        buf = uv_buf_init((char *)client->sending.ptr, (unsigned)client->sending.len);
        client->writing =
                uv_write(&client->write, (uv_stream_t *)&client->tcp, &buf, 1, write_done) == 0;
        if (!client->writing)
                client_close(client);
}

/* Has the client's turn at the end of this one of the loop. */
static void client_ready(struct client *client)
{
        struct api_locks *locks = client->locks;
        if (client->ready || client->closing)
                return;
        client->ready = true;
        client->ready_before = NULL;
        client->ready_next = locks->ready;
        if (locks->ready != NULL)
                locks->ready->ready_before = client;
        locks->ready = client;
}

static void ready_leave(struct client *client)
{
        if (!client->ready)
                return;
        client->ready = false;
        if (client->ready_before == NULL)
                client->locks->ready = client->ready_next;
        else
                client->ready_before->ready_next = client->ready_next;
        if (client->ready_next != NULL)
                client->ready_next->ready_before = client->ready_before;
}

static void on_prepare(uv_prepare_t *prepare)
{
        struct api_locks *locks = prepare->data;
        while (locks->ready != NULL) {
                struct client *client = locks->ready;
                ready_leave(client);
                client_step(client);
        }
}

void slot_answer(void *who, const struct reply *reply)
{
        struct slot *slot = who;
        struct client *client = slot->client;
        /* Its turn has come already: straight to where it leaves. */
        struct buffer *out = client->slots == slot ? &client->output : &slot->reply;
        slot->number = 0;
        slot->done = true;
        if (!api_redis_write(out, client->protocol, slot->form, reply) &&
            !api_kv_write(out, client->protocol, slot->form, reply))
                lock_reply_write(out, client->protocol, slot->kind, reply);
        if (out->err != ERR_NONE)
                client->last = true;
        if (!client->stepping)
                client_ready(client);
}

/* A web page that makes a browser send HTTP here must not get a command through in the body. */
static bool is_http(const struct client *client, struct bytes input)
{
        if (client->reader.arg_count == 0 || input.ptr[0] == '*')
                return false;
        struct bytes name = resp_arg(&client->reader, input, 0);
        return resp_is(name, "POST") || resp_is(name, "HOST:") || resp_is(name, "GET");
}

static void protocol_error(struct client *client, const char *text)
{
        struct buffer *out = reply_begin(client);
        if (out != NULL)
                resp_write_error(out, "ERR %s", text);
        client->last = true;
}

static bool client_full(const struct client *client)
{
        return client->slot_count >= API_PENDING_MAX || client->expected >= API_EXPECTED_MAX ||
               client->output.len + client->sending.len >= API_OUTPUT_MAX;
}

static void commands_take(struct client *client)
{
        size_t used = 0;
        while (!client->last && !client_full(client)) {
                struct bytes rest = bytes_of(client->input.ptr + used, client->input.len - used);
                if (rest.len == 0)
                        break;
                enum resp_result result = resp_read(&client->reader, rest);
                if (result == RESP_MORE)
                        break;
                if (result == RESP_INVALID || is_http(client, rest)) {
                        protocol_error(client, result == RESP_INVALID
                                                       ? client->reader.error
                                                       : "this port speaks RESP, not HTTP");
                        break;
                }
                command_run(client, rest);
                used += client->reader.at;
                resp_reader_reset(&client->reader);
                slots_flush(client);
        }
        buffer_consume(&client->input, used);
}

static void input_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
        struct client *client = (struct client *)handle;
        uint8_t *room = buffer_reserve(&client->input, INPUT_CHUNK);
        (void)size;
        *buf = uv_buf_init((char *)room, room == NULL ? 0 : (unsigned)INPUT_CHUNK);
}

static void input_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
        struct client *client = (struct client *)stream;
        (void)buf;
        if (len < 0) {
                client_close(client);
                return;
        }
        buffer_commit(&client->input, (size_t)len);
        client_step(client);
}

/* Everything that may go on does: commands, answers, output, reading. */
static void client_step(struct client *client)
{
        if (client->stepping || client->closing)
                return;
        client->stepping = true;
        slots_flush(client);
        commands_take(client);
        slots_flush(client);
        client->stepping = false;
        output_send(client);
        if (client->closing)
                return;
        if (client->last && client->slots == NULL && !client->writing) {
                client_close(client);
                return;
        }
        bool wanted = !client->last && !client_full(client);
        if (wanted && !client->reading)
                wanted = uv_read_start((uv_stream_t *)&client->tcp, input_alloc, input_read) == 0;
        if (!wanted && client->reading)
                uv_read_stop((uv_stream_t *)&client->tcp);
        client->reading = wanted;
}

/* ---- the life of a client and of the door ---- */

static void locks_finish(struct api_locks *locks)
{
        if (!locks->closing || locks->handles > 0 || locks->clients != NULL)
                return;
        struct api *api = locks->api;
        while (locks->slots != NULL) {
                struct slot *slot = locks->slots;
                locks->slots = slot->next;
                heap_free(&api->heap, slot);
        }
        free(locks);
        api_door_closed(api);
}

static void client_closed(uv_handle_t *handle)
{
        struct client *client = (struct client *)handle;
        struct api_locks *locks = client->locks;
        if (client->previous == NULL)
                locks->clients = client->next;
        else
                client->previous->next = client->next;
        if (client->next != NULL)
                client->next->previous = client->previous;
        buffer_fini(&client->input);
        buffer_fini(&client->output);
        buffer_fini(&client->sending);
        heap_free(&locks->api->heap, client);
        locks->client_count--;
        locks_finish(locks);
}

static void client_close(struct client *client)
{
        struct api *api = client->locks->api;
        if (client->closing)
                return;
        client->closing = true;
        ready_leave(client);
        while (client->slots != NULL) {
                struct slot *slot = client->slots;
                client->slots = slot->next;
                if (slot->number != 0 && !client->locks->closing)
                        api_drop(api, slot->number);
                slot_free(client, slot);
        }
        uv_close((uv_handle_t *)&client->tcp, client_closed);
}

static void refuse_closed(uv_handle_t *handle)
{
        free(handle);
}

/* Over the limit: accepted and closed, so that it does not stay in the backlog. */
static void client_refuse(uv_stream_t *server)
{
        uv_tcp_t *tcp = calloc(1, sizeof *tcp);
        if (tcp == NULL)
                return;
        uv_tcp_init(server->loop, tcp);
        if (uv_accept(server, (uv_stream_t *)tcp) == 0) {
                char text[] = "-LIMIT too many clients: try again later\r\n";
                uv_buf_t buf = uv_buf_init(text, sizeof text - 1);
                (void)uv_try_write((uv_stream_t *)tcp, &buf, 1);
        }
        uv_close((uv_handle_t *)tcp, refuse_closed);
}

static void client_accept(uv_stream_t *server, int status)
{
        struct api_locks *locks = (struct api_locks *)server;
        struct api *api = locks->api;
        if (status < 0 || locks->closing)
                return;
        struct client *client = locks->client_count >= API_CLIENTS_MAX
                                        ? NULL
                                        : heap_alloc(&api->heap, sizeof *client);
        if (client == NULL) {
                client_refuse(server);
                return;
        }
        uv_tcp_init(server->loop, &client->tcp);
        client->locks = locks;
        client->id = ++locks->client_id;
        client->protocol = 2;
        client->slots_end = &client->slots;
        buffer_init(&client->input, &api->heap);
        buffer_init(&client->output, &api->heap);
        buffer_init(&client->sending, &api->heap);
        client->next = locks->clients;
        if (locks->clients != NULL)
                locks->clients->previous = client;
        locks->clients = client;
        locks->client_count++;
        api->lock_clients++;
        if (uv_accept(server, (uv_stream_t *)&client->tcp) != 0) {
                client_close(client);
                return;
        }
        uv_tcp_nodelay(&client->tcp, 1);
        uv_tcp_keepalive(&client->tcp, 1, 60);
        client_step(client);
}

static enum err locks_listen(struct api_locks *locks, const char *host, uint16_t port, char *why,
                             size_t why_size)
{
        struct sockaddr_storage name = {0};
        int err = uv_ip4_addr(host, port, (struct sockaddr_in *)&name);
        if (err != 0)
                err = uv_ip6_addr(host, port, (struct sockaddr_in6 *)&name);
        if (err == 0)
                err = uv_tcp_bind(&locks->server, (const struct sockaddr *)&name, 0);
        if (err == 0)
                err = uv_listen((uv_stream_t *)&locks->server, 511, client_accept);
        if (err == 0)
                return ERR_NONE;
        snprintf(why, why_size, "locks: cannot listen on %s port %u: %s%s", host, port,
                 uv_strerror(err),
                 err == UV_EADDRINUSE      ? "; end what uses it, or set another one"
                 : err == UV_EADDRNOTAVAIL ? "; set an address that this machine has"
                                           : "");
        return err == UV_EADDRINUSE ? ERR_EXISTS : ERR_IO;
}

static void failed_closed(uv_handle_t *handle)
{
        free(handle);
}

enum err api_locks_new(struct api *api, const char *host, uint16_t port,
                       struct api_locks **ret_locks, char *why, size_t why_size)
{
        struct api_locks *locks = calloc(1, sizeof *locks);
        if (locks == NULL)
                return ERR_NOMEM;
        locks->api = api;
        uv_tcp_init(api->loop, &locks->server);
        enum err err = locks_listen(locks, host, port, why, why_size);
        if (err != ERR_NONE) {
                uv_close((uv_handle_t *)&locks->server, failed_closed);
                return err;
        }
        uv_prepare_init(api->loop, &locks->prepare);
        uv_prepare_start(&locks->prepare, on_prepare);
        locks->server.data = locks->prepare.data = locks;
        locks->handles = 2;
        *ret_locks = locks;
        return ERR_NONE;
}

uint16_t api_locks_bound(const struct api_locks *locks)
{
        struct sockaddr_storage name = {0};
        int len = sizeof name;
        if (uv_tcp_getsockname(&locks->server, (struct sockaddr *)&name, &len) != 0)
                return 0;
        if (name.ss_family == AF_INET6)
                return ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
        return ntohs(((struct sockaddr_in *)&name)->sin_port);
}

static void handle_closed(uv_handle_t *handle)
{
        struct api_locks *locks = handle->data;
        locks->handles--;
        locks_finish(locks);
}

void api_locks_close(struct api_locks *locks)
{
        locks->closing = true;
        for (struct client *client = locks->clients; client != NULL; client = client->next)
                client_close(client);
        uv_close((uv_handle_t *)&locks->server, handle_closed);
        uv_close((uv_handle_t *)&locks->prepare, handle_closed);
}
