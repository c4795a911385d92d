/* One connection to Redis: commands out, answers in, in the same order. channel.c moves the bytes,
 * hiredis writes commands and reads answers.
 *
 *      idle --open--> connecting --connected--> ready --broke--> waiting --timer--> connecting
 *                          \------ refused ------------------------^
 *
 * connection_end is the one door through which all endings come. A connection that is to end while
 * its owner hears an answer ends behind that answer. Commands that have no answer get NULL first,
 * then the owner is told. */
#include "engine/engine_priv.h"

#include <stdio.h>

enum {
        WAIT_MS_MIN = 100,
        SLOW_MS = 120000,      /* a value of hundreds of megabytes is read, in one step */
        BYTES_A_MS = 10 << 10, /* that a slow server takes in, and works through */
};

static uint64_t now_ms(const struct connection *connection)
{
        return uv_now(connection->engine->config.loop);
}

static void connection_wait(struct connection *connection);

/* The first command that waits for its answer has got it; NULL: there will be none. */
static void call_done(struct connection *connection, const redisReply *reply)
{
        struct call *call = connection->calls;
        connection->calls = call->next;
        if (connection->calls == NULL)
                connection->calls_end = &connection->calls;
        connection->moved_ms = now_ms(connection);
        connection->pending--;
        connection->sent_bytes -= call->bytes;
        connection->slow -= call->slow;
        if (reply != NULL)
                obstacle_answered(connection, call);
        if (!connection->engine->closing)
                call->done(call, reply);
        heap_free(connection->engine->config.heap, call);
}

static void connection_end(struct connection *connection)
{
        bool was_ready = connection->ready;
        memcpy(connection->why_last, connection->why, sizeof connection->why);
        if (was_ready && connection->cut)
                obstacle_cut(connection);
        connection->cut = false;
        while (connection->calls != NULL)
                call_done(connection, NULL);
        channel_free(connection->channel);
        redisReaderFree(connection->reader);
        connection->channel = NULL;
        connection->reader = NULL;
        connection->ready = false;
        connection->ending = false;
        connection->shown_asked = false;
        connection->lack_told = false;
        if (was_ready && connection->down != NULL)
                connection->down(connection);
        if (connection->wanted && connection->channel == NULL)
                connection_wait(connection);
}

void connection_kick(struct connection *connection, const char *why)
{
        if (connection->channel == NULL || connection->ending)
                return;
        if (connection->why[0] == 0)
                (void)snprintf(connection->why, sizeof connection->why, "%s", why);
        connection->ending = true;
        if (!connection->hearing)
                connection_end(connection);
}

void connection_broke(struct connection *connection, const char *why)
{
        connection->cut = connection->channel != NULL && !connection->ending;
        connection_kick(connection, why);
}

static void connection_answered(struct connection *connection, redisReply *reply)
{
        if (connection->calls != NULL)
                call_done(connection, reply);
        else /* Redis says by itself only why it does not want us */
                connection_kick(connection, reply->type == REDIS_REPLY_ERROR
                                                    ? reply->str
                                                    : "Redis answers what was not asked");
        freeReplyObject(reply);
}

void connection_heard(struct connection *connection, struct bytes data)
{
        void *reply = NULL;
        redisReader *reader = connection->reader;
        connection->hearing = true;
        bool good = redisReaderFeed(reader, (const char *)data.ptr, data.len) == REDIS_OK;
        while (good && !connection->ending) {
                good = redisReaderGetReply(reader, &reply) == REDIS_OK;
                if (!good || reply == NULL)
                        break;
                connection_answered(connection, reply);
        }
        if (!good)
                connection_kick(connection, reader->errstr);
        connection->hearing = false;
        if (connection->ending)
                connection_end(connection);
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

void connection_stands(struct connection *connection)
{
        struct engine *engine = connection->engine;
        connection->moved_ms = now_ms(connection);
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
        const char *why = "out of memory";
        CHECK(connection->channel == NULL);
        if (connection->choose != NULL)
                connection->choose(connection);
        connection->moved_ms = now_ms(connection);
        connection->why[0] = 0;
        connection->reader = redisReaderCreate();
        if (connection->reader != NULL)
                connection->channel = channel_new(connection, &why);
        if (connection->channel != NULL)
                return;
        if (connection->reader != NULL)
                redisReaderFree(connection->reader);
        connection->reader = NULL;
        (void)snprintf(connection->why_last, sizeof connection->why_last, "%s", why);
        connection_wait(connection);
}

static void connection_timed(uv_timer_t *timer)
{
        struct connection *connection = timer->data;
        if (connection->channel == NULL && connection->wanted)
                connection_try(connection);
        else if (connection->ready && connection->retry != NULL)
                connection->retry(connection);
}

static void connection_wait(struct connection *connection)
{
        (void)uv_timer_start(&connection->timer, connection_timed, obstacle_wait_ms(connection), 0);
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
        connection->calls_end = &connection->calls;
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
        if (connection->channel == NULL)
                (void)uv_timer_start(&connection->timer, connection_timed, 0, 0);
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
        connection_kick(connection, "it is not wanted any more");
        if (connection->timer_open)
                uv_close((uv_handle_t *)&connection->timer, connection_timer_closed);
        connection->timer_open = false;
}

void connection_watch(struct connection *connection, const struct connection *beside)
{
        uint64_t patience_ms = connection->engine->config.stall_ms + connection->slack_ms +
                               connection->sent_bytes / BYTES_A_MS;
        if (beside != NULL && beside->slow > 0)
                patience_ms += SLOW_MS;
        bool busy = connection->pending > 0 || !connection->ready;
        if (connection->channel != NULL && busy &&
            now_ms(connection) - connection->moved_ms > patience_ms)
                connection_kick(connection, "Redis does not answer");
}

bool connection_send(struct connection *connection, const struct call *call, size_t argc,
                     const struct bytes *argv)
{
        const char *texts[2 * SCAN_PARTS_MAX + 8];
        size_t lens[COUNT_OF(texts)];
        char *text = NULL;
        CHECK(argc <= COUNT_OF(texts));
        if (connection->channel == NULL || connection->ending)
                return false;
        struct call *copy = heap_alloc(connection->engine->config.heap, sizeof *copy);
        if (copy == NULL)
                return false;
        *copy = *call;
        copy->connection = connection;
        copy->bytes = 0;
        copy->name = argv[0];
        copy->next = NULL;
        for (size_t i = 0; i < argc; i++) {
                texts[i] = argv[i].len > 0 ? (const char *)argv[i].ptr : "";
                lens[i] = argv[i].len;
                copy->bytes += argv[i].len;
        }
        long long len = redisFormatCommandArgv(&text, (int)argc, texts, lens);
        if (len < 0 || !channel_send(connection->channel, text, (size_t)len)) {
                if (len >= 0)
                        redisFreeCommand(text);
                heap_free(connection->engine->config.heap, copy);
                return false;
        }
        if (connection->pending == 0)
                connection->moved_ms = now_ms(connection);
        *connection->calls_end = copy;
        connection->calls_end = &copy->next;
        connection->pending++;
        connection->sent_bytes += copy->bytes;
        connection->slow += copy->slow;
        return true;
}
