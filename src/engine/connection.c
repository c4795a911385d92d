/* One connection to Redis by hiredis on libuv.
 *
 *      idle --open--> connecting --connected--> ready --broke--> waiting --timer--> connecting
 *                          \------ refused ------------------------^
 *
 * hiredis owns its context and frees it when the connection ends, whatever the cause; the `cleanup`
 * hook is the one door through which all endings come, so that is where the context is forgotten.
 * Commands without an answer have got a NULL reply before. */
#include "engine/engine_priv.h"

#include <stdio.h>

enum {
        WAIT_MS_MIN = 100,
        STALL_MS = 5000,
        BYTES_A_MS = 10 << 10, /* that a slow server takes in, and works through */
};

/* What lets libuv wait for hiredis. It outlives the context until libuv has closed it. */
struct poller {
        uv_poll_t handle;
        struct engine *engine;
        struct connection *connection;
        redisAsyncContext *context; /* NULL: gone */
        int events;
};

static uint64_t now_ms(const struct connection *connection)
{
        return uv_now(connection->engine->config.loop);
}

static void poller_ready(uv_poll_t *handle, int status, int events)
{
        struct poller *poller = handle->data;
        /* A long answer, or command, moves before it has come to its end. */
        if (status == 0 && poller->context != NULL)
                poller->connection->moved_ms = now_ms(poller->connection);
        /* On an error hiredis finds it by reading. */
        if (poller->context != NULL && (status < 0 || (events & UV_READABLE) != 0))
                redisAsyncHandleRead(poller->context);
        if (poller->context != NULL && (events & UV_WRITABLE) != 0)
                redisAsyncHandleWrite(poller->context);
}

static void poller_want(struct poller *poller, int add, int drop)
{
        int events = (poller->events | add) & ~drop;
        if (events == poller->events)
                return;
        poller->events = events;
        if (events != 0)
                (void)uv_poll_start(&poller->handle, events, poller_ready);
        else
                (void)uv_poll_stop(&poller->handle);
}

static void poller_add_read(void *user)
{
        poller_want(user, UV_READABLE, 0);
}

static void poller_del_read(void *user)
{
        poller_want(user, 0, UV_READABLE);
}

static void poller_add_write(void *user)
{
        poller_want(user, UV_WRITABLE, 0);
}

static void poller_del_write(void *user)
{
        poller_want(user, 0, UV_WRITABLE);
}

static void poller_closed(uv_handle_t *handle)
{
        struct poller *poller = handle->data;
        struct engine *engine = poller->engine;
        heap_free(engine->config.heap, poller);
        engine_handle_closed(engine);
}

static void connection_wait(struct connection *connection);

static void poller_cleanup(void *user)
{
        struct poller *poller = user;
        struct connection *connection = poller->connection;
        bool was_ready = connection->ready;
        if (connection->why[0] == 0)
                (void)snprintf(connection->why, sizeof connection->why, "%s",
                               poller->context->errstr != NULL && poller->context->errstr[0] != 0
                                       ? poller->context->errstr
                                       : "the connection ended");
        memcpy(connection->why_last, connection->why, sizeof connection->why);
        poller->context = NULL;
        uv_close((uv_handle_t *)&poller->handle, poller_closed);
        connection->poller = NULL;
        connection->context = NULL;
        connection->ready = false;
        connection->pending = 0;
        connection->sent_bytes = 0;
        connection->shown_asked = false;
        if (was_ready && connection->down != NULL)
                connection->down(connection);
        if (connection->wanted && connection->context == NULL)
                connection_wait(connection);
}

static bool poller_attach(struct connection *connection, redisAsyncContext *context)
{
        struct engine *engine = connection->engine;
        struct poller *poller = heap_alloc(engine->config.heap, sizeof *poller);
        if (poller == NULL)
                return false;
        if (uv_poll_init(engine->config.loop, &poller->handle, context->c.fd) != 0) {
                heap_free(engine->config.heap, poller);
                return false;
        }
        engine_handle_opened(engine);
        poller->handle.data = poller;
        poller->engine = engine;
        poller->connection = connection;
        poller->context = context;
        connection->poller = poller;
        connection->context = context;
        context->data = connection;
        context->ev.data = poller;
        context->ev.addRead = poller_add_read;
        context->ev.delRead = poller_del_read;
        context->ev.addWrite = poller_add_write;
        context->ev.delWrite = poller_del_write;
        context->ev.cleanup = poller_cleanup;
        return true;
}

static void connection_ready(struct connection *connection)
{
        connection->ready = true;
        connection->wait_ms = WAIT_MS_MIN;
        connection->why[0] = 0;
        if (connection->up != NULL)
                connection->up(connection);
}

static void connection_authenticated(struct call *call, const redisReply *reply)
{
        struct connection *connection = call->connection;
        if (reply == NULL)
                return;
        if (reply->type != REDIS_REPLY_STATUS) {
                connection_kick(connection, "Redis refuses user or password");
                return;
        }
        connection_ready(connection);
}

static void connection_connected(const redisAsyncContext *context, int status)
{
        struct connection *connection = context->data;
        struct engine *engine = connection->engine;
        connection->moved_ms = now_ms(connection);
        if (status != REDIS_OK)
                return; /* cleanup follows */
        if (engine->password[0] == 0 || connection->bare) {
                connection_ready(connection);
                return;
        }
        struct call call = {.done = connection_authenticated};
        struct bytes argv[] = {BYTES("AUTH"), bytes_of_str(engine->user),
                               bytes_of_str(engine->password)};
        size_t argc = COUNT_OF(argv);
        if (engine->user[0] == 0)
                argv[1] = argv[--argc];
        (void)connection_send(connection, &call, argc, argv);
}

static void connection_try(struct connection *connection)
{
        char host[TOPOLOGY_ADDRESS_TEXT];
        const struct topology_endpoint *endpoint = &connection->endpoint;
        CHECK(connection->context == NULL);
        if (connection->choose != NULL)
                connection->choose(connection);
        connection->moved_ms = now_ms(connection);
        connection->why[0] = 0;
        redisAsyncContext *context =
                redisAsyncConnect(topology_address_text(&endpoint->address, host), endpoint->port);
        if (context == NULL || context->err != 0 || !poller_attach(connection, context)) {
                (void)snprintf(connection->why_last, sizeof connection->why_last, "%s",
                               context != NULL && context->err != 0 ? context->errstr
                                                                    : "out of memory");
                if (context != NULL)
                        redisAsyncFree(context);
                connection_wait(connection);
                return;
        }
        (void)redisAsyncSetConnectCallback(context, connection_connected);
}

static void connection_timed(uv_timer_t *timer)
{
        struct connection *connection = timer->data;
        if (connection->context == NULL && connection->wanted)
                connection_try(connection);
        else if (connection->ready && connection->retry != NULL)
                connection->retry(connection);
}

static void connection_wait(struct connection *connection)
{
        (void)uv_timer_start(&connection->timer, connection_timed, connection->wait_ms, 0);
        uint32_t twice = connection->wait_ms * 2;
        connection->wait_ms = twice < connection->wait_ms_max ? twice : connection->wait_ms_max;
}

void connection_retry(struct connection *connection, uint32_t ms)
{
        (void)uv_timer_start(&connection->timer, connection_timed, ms, 0);
}

void connection_init(struct connection *connection, struct engine *engine, uint32_t wait_ms_max)
{
        *connection = (struct connection){.engine = engine,
                                          .endpoint = engine->config.redis,
                                          .wait_ms = WAIT_MS_MIN,
                                          .wait_ms_max = wait_ms_max};
}

void connection_open(struct connection *connection)
{
        if (!connection->timer_open) {
                CHECK(uv_timer_init(connection->engine->config.loop, &connection->timer) == 0);
                engine_handle_opened(connection->engine);
                connection->timer.data = connection;
                connection->timer_open = true;
        }
        if (connection->wanted)
                return;
        connection->wanted = true;
        if (connection->context == NULL)
                (void)uv_timer_start(&connection->timer, connection_timed, 0, 0);
}

void connection_kick(struct connection *connection, const char *why)
{
        if (connection->context == NULL)
                return;
        if (connection->why[0] == 0)
                (void)snprintf(connection->why, sizeof connection->why, "%s", why);
        redisAsyncFree(connection->context); /* within a callback hiredis defers it */
}

static void connection_timer_closed(uv_handle_t *handle)
{
        struct connection *connection = handle->data;
        engine_handle_closed(connection->engine);
}

void connection_pause(struct connection *connection, const char *why)
{
        connection->wanted = false;
        if (connection->timer_open)
                (void)uv_timer_stop(&connection->timer);
        connection_kick(connection, why);
}

void connection_close(struct connection *connection)
{
        connection->wanted = false;
        connection->up = NULL;
        connection->down = NULL;
        connection->retry = NULL;
        if (connection->context != NULL)
                redisAsyncFree(connection->context);
        if (connection->timer_open)
                uv_close((uv_handle_t *)&connection->timer, connection_timer_closed);
        connection->timer_open = false;
}

void connection_watch(struct connection *connection)
{
        bool busy = connection->pending > 0 || !connection->ready;
        if (connection->context != NULL && busy &&
            now_ms(connection) - connection->moved_ms >
                    STALL_MS + connection->slack_ms + connection->sent_bytes / BYTES_A_MS)
                connection_kick(connection, "Redis does not answer");
}

static void call_done(redisAsyncContext *context, void *reply, void *user)
{
        struct call *call = user;
        struct connection *connection = call->connection;
        (void)context;
        connection->moved_ms = now_ms(connection);
        if (connection->pending > 0)
                connection->pending--;
        connection->sent_bytes -= call->bytes;
        if (!connection->engine->closing)
                call->done(call, reply);
        heap_free(connection->engine->config.heap, call);
}

bool connection_send(struct connection *connection, const struct call *call, size_t argc,
                     const struct bytes *argv)
{
        const char *texts[2 * SCAN_PARTS_MAX + 8];
        size_t lens[COUNT_OF(texts)];
        CHECK(argc <= COUNT_OF(texts));
        if (connection->context == NULL)
                return false;
        struct call *copy = heap_alloc(connection->engine->config.heap, sizeof *copy);
        if (copy == NULL)
                return false;
        *copy = *call;
        copy->connection = connection;
        copy->bytes = 0;
        for (size_t i = 0; i < argc; i++) {
                texts[i] = argv[i].len > 0 ? (const char *)argv[i].ptr : "";
                lens[i] = argv[i].len;
                copy->bytes += argv[i].len;
        }
        if (connection->pending == 0)
                connection->moved_ms = now_ms(connection);
        if (redisAsyncCommandArgv(connection->context, call_done, copy, (int)argc, texts, lens) !=
            REDIS_OK) {
                heap_free(connection->engine->config.heap, copy);
                return false;
        }
        connection->pending++;
        connection->sent_bytes += copy->bytes;
        return true;
}
