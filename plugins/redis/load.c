/* load.c - the way in: arguments, tables, commands, subscriptions; and the turn of the event loop.
 *
 *   loadmodule meridian.so origin <region id> [ring <bytes>] [drift-max <ms>] [feed <bytes>]
 *
 * Refuses to load, with a sentence in the server's log, on a bad argument, on a server that lacks
 * an entry of the interface, and where the AOF would be rewritten without metadata. */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

struct plugin plugin;

enum {
        COLLECT_MS = 100,
        COLLECT_STEPS = 100,
        MULTI_CHECK_MS = 1000,
        RING_BYTES_MIN = 64 << 10,
};

uint64_t plugin_now_ms(void)
{
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        plugin.now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
        plugin.now_uses = 0;
        return plugin.now_ms;
}

void plugin_stop(enum err err, const char *what)
{
        redis.Log(NULL, "warning",
                  "meridian cannot go on with %s: %s. The server stops, and "
                  "recovers from its log.",
                  what, err_text(err));
        abort();
}

void *plugin_array(size_t count, size_t size, const char *what)
{
        void *array = heap_alloc_array(&plugin.heap, count, size);
        plugin_must(array == NULL ? ERR_NOMEM : ERR_NONE, what);
        return array;
}

void *plugin_resize(void *array, size_t count, size_t size, const char *what)
{
        void *resized = heap_resize(&plugin.heap, array, count * size);
        plugin_must(resized == NULL ? ERR_NOMEM : ERR_NONE, what);
        return resized;
}

/* ---- arguments */

struct option {
        const char *name;
        uint64_t min;
        uint64_t max;
        uint64_t value;
        bool given;
};

static struct option options[] = {
        {"origin", 1, CLOCK_REGIONS_MAX, 0, false},
        {"ring", RING_BYTES_MIN, (uint64_t)1 << 40, PLUGIN_RING_BYTES, false},
        {"drift-max", 1, 86400000, PLUGIN_DRIFT_MAX_MS, false},
        {"feed", 0, 256 << 20, PLUGIN_FEED_BYTES, false},
};

static struct option *option_find(struct bytes name)
{
        for (size_t i = 0; i < COUNT_OF(options); i++) {
                size_t len = strlen(options[i].name);
                if (name.len == len &&
                    strncasecmp((const char *)name.ptr, options[i].name, len) == 0)
                        return &options[i];
        }
        return NULL;
}

static bool read_options(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        for (int i = 0; i < argc; i += 2) {
                struct bytes name = plugin_bytes(argv[i]);
                struct option *option = option_find(name);
                unsigned long long value;
                if (option == NULL) {
                        redis.Log(
                                ctx, "warning",
                                "meridian: there is no argument '%.*s'; there are: origin <region "
                                "id> [ring <bytes>] [drift-max <ms>] [feed <bytes>]",
                                BYTES_ARGS(name));
                        return false;
                }
                if (i + 1 == argc || redis.StringToULongLong(argv[i + 1], &value) != REDIS_OK ||
                    value < option->min || value > option->max) {
                        redis.Log(ctx, "warning", "meridian: '%s' wants a number from %llu to %llu",
                                  option->name, (unsigned long long)option->min,
                                  (unsigned long long)option->max);
                        return false;
                }
                option->value = value;
                option->given = true;
        }
        if (!options[0].given) {
                redis.Log(
                        ctx, "warning",
                        "meridian: 'origin <region id>' is missing: loadmodule meridian.so origin "
                        "<region id> [ring <bytes>] [drift-max <ms>] [feed <bytes>]");
                return false;
        }
        plugin.config.origin = (region_id)options[0].value;
        plugin.config.ring_bytes = options[1].value;
        plugin.config.drift_max_ms = options[2].value;
        plugin.feed_bytes = options[3].value;
        return true;
}

/* A rewritten AOF without the RDB preamble has no place for metadata. */
static bool preamble_is_on(struct redis_context *ctx)
{
        struct redis_reply *reply = redis.Call(ctx, "CONFIG", "cc", "GET", "aof-use-rdb-preamble");
        if (reply == NULL)
                return true;
        bool off = false;
        if (redis.CallReplyType(reply) == REDIS_REPLY_ARRAY && redis.CallReplyLength(reply) == 2) {
                size_t len;
                const char *text =
                        redis.CallReplyStringPtr(redis.CallReplyArrayElement(reply, 1), &len);
                off = text != NULL && bytes_equal(bytes_of(text, len), BYTES("no"));
        }
        redis.FreeCallReply(reply);
        if (off)
                redis.Log(ctx, "warning",
                          "meridian: 'aof-use-rdb-preamble no' is not supported: a rewritten AOF "
                          "would lose what regions must remember. Set it to yes.");
        return !off;
}

static bool databases_fit(struct redis_context *ctx)
{
        bool fit = redis.SelectDb(ctx, CRDT_DB_MAX + 1) != REDIS_OK;
        redis.SelectDb(ctx, 0);
        if (!fit)
                redis.Log(ctx, "warning", "meridian: 'databases' may be at most %u",
                          (unsigned)CRDT_DB_MAX + 1);
        return fit;
}

/* ---- commands */

static const struct {
        const char *name;
        redis_command function;
        const char *flags;
        int key_first;
        int key_last;
        int key_step;
} commands[] = {
        {"meridian.positions", daemon_positions, "readonly fast", 0, 0, 0},
        {"meridian.tail", tail_command, "readonly", 0, 0, 0},
        {"meridian.merge", merge_command, "write deny-oom deny-script", 0, 0, 0},
        {"meridian.scan", daemon_scan, "readonly deny-script", 0, 0, 0},
        {"meridian.mergestate", merge_state_command, "write deny-oom deny-script", 0, 0, 0},
        {"meridian.acked", daemon_acked, "readonly fast", 0, 0, 0},
        {"meridian.feed", feed_command, "readonly", 0, 0, 0},
        {"meridian.wait", wait_regions, "readonly", 0, 0, 0},
        {"meridian.written", wait_written, "readonly fast", 0, 0, 0},
        {"meridian.members", daemon_members, "readonly fast", 0, 0, 0},
        {"meridian.policy", policy_command, "write deny-script", 0, 0, 0},
        {"meridian.conflicts", conflict_command, "readonly", 0, 0, 0},
        {"meridian.siblings", siblings_command, "readonly", 1, 1, 1},
        {"meridian.status", status_command, "readonly fast", 0, 0, 0},
        {"meridian.close", daemon_close, "readonly fast", 0, 0, 0},
        {"meridian.digest", daemon_digest, "readonly", 0, 0, 0},
        {"meridian.digests", digests_command, "readonly deny-script", 0, 0, 0},
        {"meridian.shard", cluster_shard, "readonly", 0, 0, 0},
        {"meridian.mark", cluster_mark, "readonly", 0, 0, 0},
        {"meridian.join", cluster_join, "write deny-script", 0, 0, 0},
        {"meridian.log", log_command, "write deny-script", 0, 0, 0},
        {"meridian.run", wrap_command, "write deny-oom no-auth", 2, 2, 1},
        {"meridian.run-two", wrap_command, "write deny-oom no-auth", 2, 3, 1},
        {"meridian.run-pairs", wrap_command, "write deny-oom no-auth", 2, -1, 2},
        {"meridian.run-plain", wrap_command, "write no-auth", 0, 0, 0},
        {"meridian.strict-plain", wrap_strict, "write", 0, 0, 0},
        {"meridian.strict", wrap_strict, "write deny-oom", 2, 2, 1},
        {"meridian.strict-two", wrap_strict, "write deny-oom", 2, 3, 1},
        {"meridian.strict-pairs", wrap_strict, "write deny-oom", 2, -1, 2},
        {"meridian.refuse", wrap_refuse, "fast no-auth", 0, 0, 0},
};

static const char *const wrap_suffixes[WRAP_COUNT] = {
        [WRAP_NONE] = "",        [WRAP_ONE] = "",         [WRAP_TWO] = "-two",
        [WRAP_PAIRS] = "-pairs", [WRAP_PLAIN] = "-plain",
};

static struct redis_string *wrap_name(const char *name, const char *suffix)
{
        char text[32];
        int len = snprintf(text, sizeof(text), "meridian.%s%s", name, suffix);
        return redis.CreateString(NULL, text, (size_t)len);
}

static bool create_commands(struct redis_context *ctx)
{
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                if (redis.CreateCommand(ctx, commands[i].name, commands[i].function,
                                        commands[i].flags, commands[i].key_first,
                                        commands[i].key_last, commands[i].key_step) != REDIS_OK)
                        return false;
        for (unsigned i = 0; i < WRAP_COUNT; i++) {
                plugin.wrap_names[i] = wrap_name("run", wrap_suffixes[i]);
                plugin.strict_names[i] = wrap_name("strict", wrap_suffixes[i]);
        }
        plugin.refuse_name = redis.CreateString(NULL, "meridian.refuse", 15);
        return true;
}

/* ---- the turn */

/* How many clients have an open MULTI, as the client list tells. EXEC and DISCARD are counted as
 * they come, but a client that goes away inside a transaction, or an EXEC without one, is not. */
static uint64_t count_multi(struct redis_context *ctx)
{
        struct redis_reply *reply = redis.Call(ctx, "CLIENT", "c", "LIST");
        if (reply == NULL)
                return plugin.multi_open;
        size_t len = 0;
        uint64_t count = 0;
        const char *at = redis.CallReplyStringPtr(reply, &len);
        const char *end = at == NULL ? NULL : at + len;
        while (at != NULL && (at = memmem(at, (size_t)(end - at), " multi=", 7)) != NULL) {
                at += 7;
                count += at < end && *at != '-';
        }
        redis.FreeCallReply(reply);
        return count;
}

static void recover(struct redis_context *ctx)
{
        plugin.recover = false;
        if (!plugin.begun)
                clock_begin();
        plugin.shipped = vector_get(keyspace_positions(plugin.keyspace), plugin.config.origin);
        local_expire_unloaded(ctx);
        flush_recover();
        if (!plugin.saved)
                local_adopt_all(ctx);
}

static void housekeeping(struct redis_context *ctx)
{
        uint64_t now_ms = plugin_now_ms();
        if (now_ms - plugin.collect_ms < COLLECT_MS)
                return;
        plugin.collect_ms = now_ms;
        keyspace_collect(plugin.keyspace, COLLECT_STEPS);
        native_trim();
        status_tick(now_ms);
        if (plugin.multi_open > 0 && now_ms - plugin.multi_seen_ms >= MULTI_CHECK_MS) {
                plugin.multi_seen_ms = now_ms;
                plugin.multi_open = count_multi(ctx);
        }
}

static void turn(struct redis_context *ctx, struct redis_event event, uint64_t sub, void *data)
{
        (void)event;
        (void)data;
        plugin.now_uses = PLUGIN_NOW_USES_MAX;
        if (sub != REDIS_LOOP_BEFORE_SLEEP || plugin.loading || plugin.replica)
                return;
        batch_drain();
        zset_settle();
        if (plugin.recover)
                recover(ctx);
        if (plugin.dirty.len > 0 && cluster_serves(ctx))
                local_stamp_dirty(ctx);
        if (plugin.expired.len > 0)
                local_expire_listed(ctx);
        migrate_turn(ctx);
        lost_turn(ctx);
        clock_turn();
        if (log_flush(ctx)) {
                tail_wake(ctx);
                feed_wake();
        }
        conflict_publish(ctx);
        housekeeping(ctx);
        writers_turn();
}

static void role_changed(struct redis_context *ctx, struct redis_event event, uint64_t sub,
                         void *data)
{
        (void)ctx;
        (void)event;
        (void)data;
        plugin.replica = sub != REDIS_ROLE_MASTER;
        plugin.multi_open = 0;
        batch_drain();
        feed_reset();
        plugin.begun = false;
        if (plugin.replica) {
                promote_left();
                buffer_reset(&plugin.pending);
                return;
        }
        promote_begin();
        /* Another server wrote our stream until now; what it wrote last may not have come. */
        persist_incarnation();
        clock_begin();
        plugin.recover = plugin.saved = true; /* it knows every key; some may be dirty */
}

static bool subscribe(struct redis_context *ctx)
{
        const struct redis_event loading = {REDIS_EVENT_LOADING, 1};
        const struct redis_event role = {REDIS_EVENT_ROLE, 1};
        const struct redis_event flush = {REDIS_EVENT_FLUSHDB, 1};
        const struct redis_event loop = {REDIS_EVENT_LOOP, 1};
        int types = REDIS_NOTIFY_GENERIC | REDIS_NOTIFY_STRING | REDIS_NOTIFY_SET |
                    REDIS_NOTIFY_LIST | REDIS_NOTIFY_STREAM | REDIS_NOTIFY_HASH |
                    REDIS_NOTIFY_ZSET | REDIS_NOTIFY_EXPIRED | REDIS_NOTIFY_EVICTED;
        return redis.SubscribeToKeyspaceEvents(ctx, types, local_notified) == REDIS_OK &&
               redis.SubscribeToServerEvent(ctx, loading, persist_loading) == REDIS_OK &&
               redis.SubscribeToServerEvent(ctx, flush, flush_told) == REDIS_OK &&
               redis.SubscribeToServerEvent(ctx, role, role_changed) == REDIS_OK &&
               redis.SubscribeToServerEvent(ctx, loop, turn) == REDIS_OK &&
               redis.RegisterInfoFunc(ctx, info_write) == REDIS_OK &&
               redis.RegisterCommandFilter(ctx, filter_command, REDIS_FILTER_NOSELF) != NULL;
}

static struct heap_source memory;

static bool start(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        const char *why = "the server refuses a command, a type or a subscription of the module";
        if (!read_options(ctx, argv, argc) || !preamble_is_on(ctx) || !databases_fit(ctx))
                return false;
        /* the server's own, so that INFO and maxmemory count what is remembered of its keys */
        memory = (struct heap_source){redis.Calloc, redis.Realloc, redis.Free};
        heap_init_from(&plugin.heap, 0, &memory);
        buffer_init(&plugin.pending, &plugin.heap);
        buffer_init(&plugin.dirty, &plugin.heap);
        buffer_init(&plugin.expired, &plugin.heap);
        buffer_init(&plugin.stash.copies, &plugin.heap);
        plugin.ctx = redis.GetDetachedThreadSafeContext(ctx);
        cluster_init(ctx);
        conflict_begin();
        migrate_init();
        persist_reset();
        plugin.replica = (redis.GetContextFlags(ctx) & REDIS_FLAG_SLAVE) != 0;
        plugin.recover = true; /* a module that is loaded at run time finds keys */
        redis.SetModuleOptions(ctx, REDIS_OPTION_HANDLE_IO_ERRORS);
        if (rules_init(ctx, &why) && persist_create_type(ctx) && create_commands(ctx) &&
            subscribe(ctx))
                return true;
        redis.Log(ctx, "warning", "meridian: %s", why);
        return false;
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(struct redis_context *ctx,
                                                              struct redis_string **argv, int argc);

int RedisModule_OnLoad(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        const char *missing = redis_api_load(ctx);
        if (missing != NULL) {
                fprintf(stderr, "meridian: this server has no module entry '%s'\n", missing);
                return REDIS_ERR;
        }
        redis.SetModuleAttribs(ctx, "meridian", 1, REDIS_API_VERSION);
        return start(ctx, argv, argc) ? REDIS_OK : REDIS_ERR;
}
