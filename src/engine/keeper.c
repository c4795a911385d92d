/* Keeps the connections to the local Redis for deltas.
 *
 *      control:  connected -> POSITIONS -> (good) MEMBERS, WORLD_REDIS_UP -> MERGE ... ACKED
 *                                  \-> (module missing, loading, ...) asked again after a while
 *                broke -> WORLD_REDIS_DOWN, and every other connection for deltas is broken off, so
 *                that no answer of before arrives after it
 *      tail:     one for each peer; broke alone -> made again, the same TAIL is asked again
 *      scan:     broke alone -> the SCAN is answered with ERR_CLOSED
 *
 * TAIL is idempotent, so asking again is safe. MERGE is not asked again here: the node does so,
 * from the positions of the next WORLD_REDIS_UP. */
#include "engine/engine_priv.h"

#include <stdio.h>

enum {
        WAIT_MS_MAX = 1000,
        RETRY_MS = 200,
        SCAN_WAIT_MS = 20,
        RETRY_MISSING_MS = 1000,
        WATCH_MS = 500,
        NUMBER_SIZE = 24,
};

struct tail {
        struct connection connection;
        struct tail *next;
        node_id peer;
        region_id origin; /* whose stream; 0: our own */
        bool pending;     /* asked by the node and not answered */
        uint64_t ticket;
        uint64_t after;
        uint32_t bytes_max;
        uint32_t block_ms;
};

static struct bytes number(uint64_t value, char text[static NUMBER_SIZE])
{
        int len = snprintf(text, NUMBER_SIZE, "%llu", (unsigned long long)value);
        return bytes_of(text, (size_t)len);
}

/* ---- control ---- */

static void redis_refused(struct engine *engine, const char *name, const char *text)
{
        bool news = strcmp(engine->refusal, text) != 0;
        (void)snprintf(engine->refusal, sizeof engine->refusal, "%s", text);
        if (news)
                engine_note(engine, name, "%s", engine->refusal);
}

const char *keeper_refusal(const struct engine *engine)
{
        return engine->refusal[0] != 0 ? engine->refusal : NULL;
}

void keeper_members(struct engine *engine)
{
        struct bytes argv[TOPOLOGY_REGIONS_MAX + 1] = {BYTES("MERIDIAN.MEMBERS")};
        struct call call = {.done = obstacle_told};
        policies_tell(engine);
        if (!engine->redis_up || engine->member_count == 0)
                return;
        if (engine->cluster != NULL) {
                cluster_members(engine);
                return;
        }
        memcpy(argv + 1, engine->members, engine->member_count * sizeof argv[0]);
        (void)connection_send(&engine->control, &call, engine->member_count + 1, argv);
}

static void redis_strange(struct engine *engine)
{
        redis_refused(engine, "redis-refused",
                      "the Meridian module in Redis answers in another form than this daemon "
                      "expects: install the same version of both");
}

static void control_up_for_good(struct engine *engine, region_id origin,
                                const struct world_event *event)
{
        engine->redis_up = true;
        engine->module_missing = false;
        engine->refusal[0] = 0;
        engine->origin = origin;
        engine->incarnation = event->redis_up.incarnation;
        engine_note(engine, "redis-up", "Redis is up with the Meridian module, region %u", origin);
        keeper_members(engine);
        engine_emit(engine, event);
}

static void control_refused(struct engine *engine, const redisReply *reply)
{
        char text[ENGINE_TEXT_SIZE], host[TOPOLOGY_ENDPOINT_TEXT];
        engine->module_missing = reply_is_unknown_command(reply);
        topology_endpoint_text(&engine->config.redis, host);
        if (engine->module_missing)
                (void)snprintf(text, sizeof text,
                               "Redis at %s answers, but the Meridian module is not loaded: add "
                               "'loadmodule /path/to/meridian.so' to its configuration and restart "
                               "it",
                               host);
        else
                reply_refusal(&engine->config.redis, reply, text);
        redis_refused(engine, engine->module_missing ? "redis-no-module" : "redis-refused", text);
}

static void control_positions(struct call *call, const redisReply *reply)
{
        struct engine *engine = call->connection->engine;
        struct world_event event;
        struct positions positions;
        region_id origin = 0;
        if (reply == NULL || engine->redis_up)
                return;
        enum reply_kind kind = reply_positions(reply, &origin, &event, &positions);
        if (kind == REPLY_GOOD && engine->region != 0 && origin != engine->region) {
                char text[ENGINE_TEXT_SIZE];
                (void)snprintf(text, sizeof text,
                               "Redis's module is set to region %u, but this node is of region %u: "
                               "correct the loadmodule line of one or the region of the other",
                               origin, engine->region);
                redis_refused(engine, "redis-refused", text);
        } else if (kind == REPLY_GOOD && engine->finder != NULL &&
                   !finder_role_is_primary(engine)) {
                redis_refused(engine, "redis-refused",
                              "the server that should be the region's primary is a replica still");
        } else if (kind == REPLY_GOOD && !engine->scan.ready) {
                connection_retry(&engine->control, SCAN_WAIT_MS); /* the node may scan at once */
                return;
        } else if (kind == REPLY_GOOD) {
                control_up_for_good(engine, origin, &event);
                return;
        } else if (kind == REPLY_REFUSED) {
                control_refused(engine, reply);
        } else {
                redis_strange(engine);
        }
        connection_retry(&engine->control,
                         engine->module_missing ? (unsigned)RETRY_MISSING_MS : (unsigned)RETRY_MS);
}

static void control_ask(struct connection *connection)
{
        struct call call = {.done = control_positions};
        struct bytes argv[] = {BYTES("MERIDIAN.POSITIONS")};
        if (connection->engine->finder != NULL)
                finder_ask_role(connection->engine);
        (void)connection_send(connection, &call, COUNT_OF(argv), argv);
}

static void control_down(struct connection *connection)
{
        struct engine *engine = connection->engine;
        if (!engine->redis_up)
                return;
        engine->redis_up = false;
        connection_kick(&engine->scan, "the control connection broke");
        for (struct tail *tail = engine->tails; tail != NULL; tail = tail->next) {
                tail->pending = false;
                tail->ticket++;
                connection_kick(&tail->connection, "the control connection broke");
        }
        engine_note(engine, "redis-down", "Redis went away: %s", connection->why_last);
        struct world_event event = {.kind = WORLD_REDIS_DOWN};
        engine_emit(engine, &event);
}

/* ---- tails ---- */

static struct tail *tail_of(struct engine *engine, node_id peer, region_id origin)
{
        struct tail **at = &engine->tails;
        while (*at != NULL && ((*at)->peer != peer || (*at)->origin != origin))
                at = &(*at)->next;
        return *at;
}

static void tail_answered(struct call *call, const redisReply *reply);

static void tail_ask(struct tail *tail)
{
        char after[NUMBER_SIZE], bytes_max[NUMBER_SIZE], block_ms[NUMBER_SIZE];
        char origin[NUMBER_SIZE];
        struct call call = {.done = tail_answered, .ticket = tail->ticket};
        struct bytes argv[] = {BYTES("MERIDIAN.TAIL"), number(tail->after, after),
                               number(tail->bytes_max, bytes_max), number(tail->block_ms, block_ms),
                               number(tail->origin, origin)};
        size_t count = tail->origin != 0 ? COUNT_OF(argv) : COUNT_OF(argv) - 1;
        tail->connection.slack_ms = tail->block_ms;
        (void)connection_send(&tail->connection, &call, count, argv);
}

static void tail_answered(struct call *call, const redisReply *reply)
{
        struct tail *tail = call->connection->user;
        struct world_event event;
        if (reply == NULL || !tail->pending || call->ticket != tail->ticket)
                return; /* broke: asked again when it stands again; or stale */
        enum reply_kind kind = reply_tail(reply, &event);
        obstacle_heard(call, reply);
        if (kind == REPLY_STRANGE)
                redis_strange(tail->connection.engine);
        if (kind == REPLY_REFUSED || kind == REPLY_STRANGE) {
                connection_kick(&tail->connection, "TAIL is refused"); /* and tried again */
                return;
        }
        tail->pending = false;
        event.tailed.peer = tail->peer;
        event.tailed.origin = tail->origin;
        event.tailed.after = tail->after;
        engine_emit(tail->connection.engine, &event);
}

static void tail_up(struct connection *connection)
{
        struct tail *tail = connection->user;
        if (tail->pending)
                tail_ask(tail);
}

static struct tail *tail_new(struct engine *engine, node_id peer, region_id origin)
{
        struct tail *tail = heap_alloc(engine->config.heap, sizeof *tail);
        if (tail == NULL)
                return NULL;
        connection_init(&tail->connection, engine, WAIT_MS_MAX);
        tail->connection.user = tail;
        tail->connection.up = tail_up;
        tail->peer = peer;
        tail->origin = origin;
        tail->next = engine->tails;
        engine->tails = tail;
        connection_open(&tail->connection);
        return tail;
}

static void redis_tail(struct engine *engine, const struct world_effect *effect)
{
        struct tail *tail = tail_of(engine, effect->tail.peer, effect->tail.origin);
        if (tail == NULL)
                tail = tail_new(engine, effect->tail.peer, effect->tail.origin);
        if (tail == NULL) { /* no memory: answered with nothing, so that the node may ask again */
                struct world_event event = {.kind = WORLD_REDIS_TAILED};
                event.tailed.peer = effect->tail.peer;
                event.tailed.origin = effect->tail.origin;
                event.tailed.after = event.tailed.last = effect->tail.after;
                engine_emit(engine, &event);
                return;
        }
        tail->pending = true;
        tail->ticket++;
        tail->after = effect->tail.after;
        tail->bytes_max = effect->tail.bytes_max;
        tail->block_ms = effect->tail.block_ms;
        if (tail->connection.ready)
                tail_ask(tail);
}

/* ---- merge, acknowledge, scan ---- */

static void merge_failed(struct engine *engine, region_id origin, enum err err)
{
        struct world_event event = {.kind = WORLD_REDIS_MERGED};
        event.merged.origin = origin;
        event.merged.err = err;
        engine_emit(engine, &event);
}

static void merge_answered(struct call *call, const redisReply *reply)
{
        struct engine *engine = call->connection->engine;
        struct world_event event;
        if (reply == NULL)
                return; /* WORLD_REDIS_DOWN says it */
        struct positions positions;
        obstacle_heard(call, reply);
        (void)reply_merge(reply, &event, &positions);
        event.merged.origin = call->origin;
        engine_emit(engine, &event);
}

static void redis_merge(struct engine *engine, const struct world_effect *effect)
{
        char origin[NUMBER_SIZE], after[NUMBER_SIZE], last[NUMBER_SIZE];
        struct call call = {.done = merge_answered, .origin = effect->merge.origin};
        struct bytes argv[] = {BYTES("MERIDIAN.MERGE"), number(effect->merge.origin, origin),
                               number(effect->merge.after, after), number(effect->merge.last, last),
                               effect->merge.data};
        if (!connection_send(&engine->control, &call, COUNT_OF(argv), argv))
                merge_failed(engine, effect->merge.origin, ERR_NOMEM);
}

static void redis_merge_state(struct engine *engine, const struct world_effect *effect)
{
        char texts[2 * SCAN_PARTS_MAX][NUMBER_SIZE];
        struct bytes argv[2 * SCAN_PARTS_MAX + 3] = {BYTES("MERIDIAN.MERGESTATE"),
                                                     effect->merge.data, BYTES("END")};
        struct call call = {.done = merge_answered, .origin = effect->merge.origin};
        size_t count = effect->merge.state_end ? 3 : 2;
        CHECK(effect->merge.position_count <= SCAN_PARTS_MAX);
        for (size_t i = 0; effect->merge.state_end && i < effect->merge.position_count; i++) {
                const struct world_position *position = &effect->merge.positions[i];
                argv[count++] = number(position->origin, texts[2 * i]);
                argv[count++] = number(position->hlc, texts[2 * i + 1]);
        }
        if (!connection_send(&engine->control, &call, count, argv))
                merge_failed(engine, effect->merge.origin, ERR_NOMEM);
}

static void redis_acked(struct engine *engine, const struct world_effect *effect)
{
        char region[NUMBER_SIZE], position[NUMBER_SIZE];
        struct call call = {.done = obstacle_told};
        struct bytes argv[] = {BYTES("MERIDIAN.ACKED"), number(effect->acked.peer, region),
                               number(effect->acked.position, position)};
        (void)connection_send(&engine->control, &call, COUNT_OF(argv), argv);
}

static void redis_close(struct engine *engine, const struct world_effect *effect)
{
        char low[NUMBER_SIZE], high[NUMBER_SIZE];
        struct call call = {.done = obstacle_told};
        struct bytes argv[] = {BYTES("MERIDIAN.CLOSE"), number(effect->close.low, low),
                               number(effect->close.high, high)};
        (void)connection_send(&engine->control, &call, COUNT_OF(argv), argv);
}

static void scan_failed(struct engine *engine, node_id peer, enum err err)
{
        struct world_event event = {.kind = WORLD_REDIS_SCANNED};
        event.scanned.peer = peer;
        event.scanned.err = err;
        engine_emit(engine, &event);
}

static void scan_answered(struct call *call, const redisReply *reply)
{
        struct engine *engine = call->connection->engine;
        struct world_event event;
        struct positions positions;
        if (!engine->redis_up || call->ticket != engine->incarnation)
                return;
        if (reply == NULL) {
                scan_failed(engine, call->peer, ERR_CLOSED);
                return;
        }
        obstacle_heard(call, reply);
        (void)reply_scan(reply, &event, &positions);
        event.scanned.peer = call->peer;
        engine_emit(engine, &event);
}

static void redis_scan(struct engine *engine, const struct world_effect *effect)
{
        char cursor[NUMBER_SIZE], bytes_max[NUMBER_SIZE];
        struct call call = {.done = scan_answered,
                            .peer = effect->scan.peer,
                            .ticket = engine->incarnation,
                            .slow = true};
        struct bytes argv[] = {BYTES("MERIDIAN.SCAN"), number(effect->scan.cursor, cursor),
                               number(effect->scan.bytes_max, bytes_max)};
        if (!engine->scan.ready || !connection_send(&engine->scan, &call, COUNT_OF(argv), argv))
                scan_failed(engine, effect->scan.peer, ERR_CLOSED);
}

void engine_redis(struct engine *engine, const struct world_effect *effect)
{
        if (engine->closing || !engine->redis_up)
                return;
        if (engine->cluster != NULL) {
                cluster_redis(engine, effect);
                return;
        }
        if (effect->kind == WORLD_REDIS_TAIL) {
                redis_tail(engine, effect);
        } else if (effect->kind == WORLD_REDIS_MERGE) {
                if (effect->merge.state)
                        redis_merge_state(engine, effect);
                else
                        redis_merge(engine, effect);
        } else if (effect->kind == WORLD_REDIS_SCAN) {
                redis_scan(engine, effect);
        } else if (effect->kind == WORLD_REDIS_AGAIN) {
                connection_kick(&engine->control, "asked anew");
        } else if (effect->kind == WORLD_REDIS_CLOSE) {
                redis_close(engine, effect);
        } else {
                CHECK(effect->kind == WORLD_REDIS_ACKED);
                redis_acked(engine, effect);
        }
}

/* ---- life ---- */

static void keeper_watch(uv_timer_t *timer)
{
        struct engine *engine = timer->data;
        if (engine->cluster != NULL)
                cluster_watch(engine);
        if (engine->finder != NULL)
                finder_watch(engine);
        conflicts_ask(engine);
        shown_ask(engine);
        connection_watch(&engine->control, &engine->scan);
        connection_watch(&engine->scan, &engine->scan);
        connection_watch(&engine->ping, &engine->scan);
        for (struct tail *tail = engine->tails; tail != NULL; tail = tail->next)
                connection_watch(&tail->connection, &engine->scan);
}

void keeper_init(struct engine *engine)
{
        connection_init(&engine->control, engine, WAIT_MS_MAX);
        connection_init(&engine->scan, engine, WAIT_MS_MAX);
        connection_init(&engine->ping, engine, RETRY_MS);
        engine->control.up = control_ask;
        engine->control.retry = control_ask;
        engine->control.down = control_down;
}

void keeper_open(struct engine *engine)
{
        connection_open(&engine->control);
        connection_open(&engine->scan);
        connection_open(&engine->ping);
}

static void moved_one(struct connection *connection)
{
        connection->endpoint = connection->engine->config.redis;
        connection_kick(connection, "another server is the primary now");
}

void keeper_moved(struct engine *engine)
{
        moved_one(&engine->control);
        moved_one(&engine->scan);
        moved_one(&engine->ping);
        for (struct tail *tail = engine->tails; tail != NULL; tail = tail->next)
                moved_one(&tail->connection);
}

void keeper_start(struct engine *engine)
{
        CHECK(uv_timer_init(engine->config.loop, &engine->watch) == 0);
        engine_handle_opened(engine);
        engine->watch.data = engine;
        (void)uv_timer_start(&engine->watch, keeper_watch, WATCH_MS, WATCH_MS);
        if (engine->cluster != NULL) {
                cluster_start(engine);
                return;
        }
        if (engine->finder != NULL)
                finder_start(engine);
        else
                keeper_open(engine);
}

static void watch_closed(uv_handle_t *handle)
{
        engine_handle_closed(handle->data);
}

void keeper_close(struct engine *engine)
{
        uv_close((uv_handle_t *)&engine->watch, watch_closed);
        if (engine->cluster != NULL)
                cluster_close(engine);
        if (engine->finder != NULL)
                finder_close(engine);
        connection_close(&engine->control);
        connection_close(&engine->scan);
        connection_close(&engine->ping);
        for (struct tail *tail = engine->tails; tail != NULL; tail = tail->next)
                connection_close(&tail->connection);
}

void keeper_fini(struct engine *engine)
{
        verify_fini(engine);
        cluster_fini(engine);
        finder_fini(engine);
        while (engine->tails != NULL) {
                struct tail *tail = engine->tails;
                engine->tails = tail->next;
                heap_free(engine->config.heap, tail);
        }
}
