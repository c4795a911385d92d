/* tail.c - MERIDIAN.TAIL: the stream of this region, or what was merged here of another one's.
 *
 * Who asks for what is not there yet waits in a list; every turn of the event loop that made deltas
 * answers all that wait, after their LOG record was propagated. */
#include "plugin.h"

enum {
        WAITERS_MAX = 256,
};

struct waiter {
        struct redis_blocked *blocked;
        region_id origin; /* 0: our own stream */
        uint64_t after;
        uint64_t bytes_max;
        struct waiter *next;
};

static struct waiter *waiters;
static unsigned waiters_count;

static int reply_batch(struct redis_context *ctx, bool own, uint64_t after,
                       const struct keyspace_batch *batch)
{
        struct bytes deltas = batch->parts[0];
        struct buffer joined;
        buffer_init(&joined, &plugin.heap);
        if (batch->parts[1].len > 0) {
                buffer_bytes(&joined, batch->parts[0]);
                buffer_bytes(&joined, batch->parts[1]);
                plugin_must(joined.err, "a batch");
                deltas = buffer_view(&joined);
        }
        if (own && batch->last > plugin.shipped)
                plugin.shipped = batch->last;
        redis.ReplyWithArray(ctx, 3);
        reply_u64(ctx, batch->count > 0 ? batch->last : after);
        reply_u64(ctx, batch->count);
        redis.ReplyWithStringBuffer(ctx, deltas.len == 0 ? "" : (const char *)deltas.ptr,
                                    deltas.len);
        buffer_fini(&joined);
        return REDIS_OK;
}

/* Replies with what is there. `final`: also where nothing is, with the position that an idle stream
 * has reached; else false is returned then and nothing was replied. */
static bool tail(struct redis_context *ctx, uint64_t after, uint64_t bytes_max, bool final)
{
        struct keyspace_change change = {.nothing = true};
        batch_drain();
        clock_out();
        bool flushed = log_flush(ctx);
        uint64_t position = after;
        if (final && flushed && !plugin.replica) {
                position = keyspace_heartbeat(plugin.keyspace, plugin_now_ms(), &change);
                local_changed(&change);
                clock_out();
                flushed = log_flush(ctx);
        }
        struct keyspace_batch batch = {.last = after};
        if (flushed) {
                enum err err = keyspace_tail(plugin.keyspace, plugin_now_ms(), after,
                                             (size_t)bytes_max, &batch);
                if (err != ERR_NONE || batch.gap) {
                        if (err != ERR_NONE)
                                reply_err(ctx, err);
                        else
                                reply_gap(ctx, keyspace_ring_first(plugin.keyspace));
                        return true;
                }
        }
        if (batch.count == 0 && !final)
                return false;
        if (flushed && position > plugin.shipped)
                plugin.shipped = position;
        reply_batch(ctx, true, flushed && position > after ? position : after, &batch);
        return true;
}

/* A shard also tells up to where it has merged all, for it has only a part of the stream. */
static void reply_relayed(struct redis_context *ctx, struct keyspace_batch *batch)
{
        batch->last = batch->reach;
        reply_batch(ctx, false, batch->reach, batch);
}

/* The same of another region's stream, as far as it was merged here. */
static bool tail_relayed(struct redis_context *ctx, region_id origin, uint64_t after,
                         uint64_t bytes_max, bool final)
{
        struct keyspace_batch batch;
        enum err err = keyspace_relay(plugin.keyspace, origin, after, (size_t)bytes_max, &batch);
        if (err != ERR_NONE)
                reply_err(ctx, err);
        else if (batch.gap)
                reply_gap(ctx, vector_get(keyspace_positions(plugin.keyspace), origin));
        else if (cluster_enabled() && (batch.reach > after || final))
                reply_relayed(ctx, &batch);
        else if (batch.count > 0 || final)
                reply_batch(ctx, false, after, &batch);
        else
                return false;
        return true;
}

static bool tail_any(struct redis_context *ctx, region_id origin, uint64_t after,
                     uint64_t bytes_max, bool final)
{
        return origin == 0 ? tail(ctx, after, bytes_max, final)
                           : tail_relayed(ctx, origin, after, bytes_max, final);
}

static struct waiter *waiter_take(const struct redis_blocked *blocked)
{
        for (struct waiter **at = &waiters; *at != NULL; at = &(*at)->next) {
                struct waiter *waiter = *at;
                if (waiter->blocked != blocked)
                        continue;
                *at = waiter->next;
                waiters_count--;
                return waiter;
        }
        return NULL;
}

static void waiter_free(struct redis_context *ctx, void *waiter)
{
        (void)ctx;
        heap_free(&plugin.heap, waiter);
}

static int tail_reply(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        (void)argc;
        const struct waiter *waiter = redis.GetBlockedClientPrivateData(ctx);
        tail_any(ctx, waiter->origin, waiter->after, waiter->bytes_max, true);
        return REDIS_OK;
}

static int tail_timeout(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        (void)argc;
        struct redis_blocked *blocked = redis.GetBlockedClientHandle(ctx);
        struct waiter *waiter = waiter_take(blocked);
        if (waiter == NULL)
                return redis.ReplyWithError(ctx, "MERIDIAN no such wait");
        tail_any(ctx, waiter->origin, waiter->after, waiter->bytes_max, true);
        redis.UnblockClient(blocked, waiter);
        return REDIS_OK;
}

static void tail_gone(struct redis_context *ctx, struct redis_blocked *blocked)
{
        (void)ctx;
        redis.UnblockClient(blocked, waiter_take(blocked));
}

void tail_wake(struct redis_context *ctx)
{
        (void)ctx;
        uint64_t last = keyspace_ring_last(plugin.keyspace);
        const struct vector *positions = keyspace_positions(plugin.keyspace);
        struct waiter **at = &waiters;
        while (*at != NULL) {
                struct waiter *waiter = *at;
                uint64_t there = waiter->origin == 0 ? last : positions->hlc[waiter->origin];
                if (waiter->after >= there) {
                        at = &waiter->next;
                        continue;
                }
                *at = waiter->next;
                waiters_count--;
                redis.UnblockClient(waiter->blocked, waiter);
        }
}

int tail_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        uint64_t after;
        uint64_t bytes_max;
        uint64_t block_ms;
        uint64_t origin = 0;
        if (argc != 4 && argc != 5)
                return redis.WrongArity(ctx);
        if ((argc == 5 && !argument_u64(argv[4], CLOCK_REGIONS_MAX, &origin)) ||
            !argument_u64(argv[1], INT64_MAX, &after) ||
            !argument_u64(argv[2], PLUGIN_BATCH_BYTES_MAX, &bytes_max) ||
            !argument_u64(argv[3], PLUGIN_TAIL_MS_MAX, &block_ms))
                return reply_bad(ctx);
        int flags = redis.GetContextFlags(ctx);
        bool now = block_ms == 0 ||
                   (flags & (REDIS_FLAG_DENY_BLOCKING | REDIS_FLAG_MULTI | REDIS_FLAG_LUA)) != 0;
        if (tail_any(ctx, (region_id)origin, after, bytes_max, now))
                return REDIS_OK;
        struct waiter *waiter = heap_alloc(&plugin.heap, sizeof(*waiter));
        if (waiter == NULL || waiters_count == WAITERS_MAX) {
                heap_free(&plugin.heap, waiter);
                return redis.ReplyWithError(ctx, "MERIDIAN too many clients wait");
        }
        waiter->blocked =
                redis.BlockClient(ctx, tail_reply, tail_timeout, waiter_free, (long long)block_ms);
        redis.SetDisconnectCallback(waiter->blocked, tail_gone);
        waiter->origin = (region_id)origin;
        waiter->after = after;
        waiter->bytes_max = bytes_max;
        waiter->next = waiters;
        waiters = waiter;
        waiters_count++;
        return REDIS_OK;
}
