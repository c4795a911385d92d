/* daemon.c - the commands by which meridiand reads this region's stream and writes the others'.
 *
 * MERIDIAN.TAIL waits in a list; every turn of the event loop that made deltas answers all that
 * wait, after their LOG record was propagated. MERIDIAN.MERGE and MERGESTATE change Redis and are
 * propagated as they came, so that position and data are one record in the AOF. They are refused
 * when memory is out (deny-oom): the stream is then held back, never half applied. What is
 * malformed is refused with an error and nothing after the bad place is read. */
#include "plugin.h"

#include <stdio.h>

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

/* ---- arguments and replies */

static bool argument_u64(const struct redis_string *string, uint64_t max, uint64_t *ret)
{
        unsigned long long value;
        if (redis.StringToULongLong(string, &value) != REDIS_OK || value > max)
                return false;
        *ret = value;
        return true;
}

static int reply_err(struct redis_context *ctx, enum err err)
{
        char text[128];
        snprintf(text, sizeof(text), "%s %s",
                 err == ERR_REFUSED ? "DRIFT a clock is beyond the drift bound:" : "MERIDIAN",
                 err_text(err));
        return redis.ReplyWithError(ctx, text);
}

static int reply_bad(struct redis_context *ctx)
{
        return redis.ReplyWithError(ctx, "MERIDIAN an argument is no number in its range");
}

static int reply_gap(struct redis_context *ctx, uint64_t position)
{
        char text[64];
        snprintf(text, sizeof(text), "GAP %llu", (unsigned long long)position);
        return redis.ReplyWithError(ctx, text);
}

static void reply_u64(struct redis_context *ctx, uint64_t value)
{
        redis.ReplyWithLongLong(ctx, (long long)value);
}

static void reply_vector(struct redis_context *ctx, const struct vector *vector)
{
        long count = 0;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                count += vector->hlc[i] != 0;
        redis.ReplyWithArray(ctx, count);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (vector->hlc[i] == 0)
                        continue;
                redis.ReplyWithArray(ctx, 2);
                reply_u64(ctx, i);
                reply_u64(ctx, vector->hlc[i]);
        }
}

static void reply_holes(struct redis_context *ctx)
{
        struct buffer holes;
        buffer_init(&holes, &plugin.heap);
        keyspace_holes_encode(plugin.keyspace, &holes);
        plugin_must(holes.err, "the holes");
        redis.ReplyWithStringBuffer(ctx, holes.len == 0 ? "" : (const char *)holes.ptr, holes.len);
        buffer_fini(&holes);
}

/* For what may be beyond a signed number. */
static void reply_text_u64(struct redis_context *ctx, uint64_t value)
{
        char text[32];
        int len = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
        redis.ReplyWithStringBuffer(ctx, text, (size_t)len);
}

int daemon_positions(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        (void)argv;
        if (argc != 1)
                return redis.WrongArity(ctx);
        clock_out();
        struct keyspace_resume resume;
        bool resumes = keyspace_resume(plugin.keyspace, &resume);
        redis.ReplyWithArray(ctx, resumes ? 8 : 7);
        reply_u64(ctx, plugin.config.origin);
        reply_u64(ctx, plugin.config.incarnation);
        reply_u64(ctx, keyspace_recovered(plugin.keyspace));
        reply_u64(ctx, keyspace_first(plugin.keyspace));
        reply_u64(ctx, keyspace_ring_last(plugin.keyspace));
        reply_vector(ctx, keyspace_positions(plugin.keyspace));
        reply_holes(ctx);
        if (!resumes)
                return REDIS_OK;
        redis.ReplyWithArray(ctx, 4);
        reply_text_u64(ctx, resume.origin);
        reply_text_u64(ctx, resume.table);
        reply_text_u64(ctx, resume.cursor);
        reply_text_u64(ctx, resume.position);
        return REDIS_OK;
}

/* ---- TAIL */

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

void daemon_wake(struct redis_context *ctx)
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

int daemon_tail(struct redis_context *ctx, struct redis_string **argv, int argc)
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

/* ---- MERGE */

static const char *text_of(struct bytes bytes)
{
        return bytes.len == 0 ? "" : (const char *)bytes.ptr;
}

static void strike(void *context, struct crdt_name name)
{
        (void)context;
        struct redis_context *ctx = plugin.ctx;
        struct keyspace_key key;
        if (!keyspace_find(plugin.keyspace, name, &key) || key.expire_at_ms == 0 ||
            key.expire_at_ms > plugin_now_ms())
                return;
        /* To look at an expired key removes it, and tells us so as a local change. */
        redis.SelectDb(ctx, (int)name.db);
        struct redis_string *string =
                redis.CreateString(NULL, (const char *)name.key.ptr, name.key.len);
        struct redis_key *open = redis.OpenKey(ctx, string, REDIS_READ | REDIS_WRITE);
        if (open != NULL)
                redis.CloseKey(open);
        redis.FreeString(NULL, string);
}

static bool from_log(struct redis_context *ctx)
{
        return plugin.loading || (redis.GetContextFlags(ctx) & REDIS_FLAG_REPLICATED) != 0;
}

struct merge {
        region_id origin;
        uint64_t after;
        uint64_t last;
        bool logged;
        struct keyspace_result result;
};

static enum err merge_apply(struct redis_context *ctx, struct merge *merge, uint64_t last,
                            struct bytes deltas)
{
        struct keyspace_result one = {0};
        plugin.applying = true;
        enum err err =
                merge->logged
                        ? keyspace_apply_logged(plugin.keyspace, native_of(ctx), merge->origin,
                                                merge->after, last, deltas, &one)
                        : keyspace_apply(plugin.keyspace, native_of(ctx), plugin_now_ms(),
                                         merge->origin, merge->after, last, deltas, &one);
        native_end();
        plugin.applying = false;
        one.applied += merge->result.applied;
        one.skipped += merge->result.skipped;
        one.conflicts += merge->result.conflicts;
        merge->result = one;
        return err;
}

/* The deltas of the next clock, which come together; where they cannot be read, all the rest. */
static struct bytes same_clock(struct cursor *cursor, uint64_t *ret_clock)
{
        const uint8_t *from = cursor->at;
        for (struct cursor next = *cursor; cursor_left(&next) > 0; *cursor = next) {
                struct cursor delta = cursor_of(cursor_slice(&next));
                uint64_t clock = cursor_u64(&delta);
                if (cursor_failed(&next) || cursor_failed(&delta)) {
                        *ret_clock = UINT64_MAX;
                        cursor_bytes(cursor, cursor_left(cursor));
                        break;
                }
                if (cursor->at != from && clock != *ret_clock)
                        break;
                *ret_clock = clock;
        }
        return bytes_of(from, (size_t)(cursor->at - from));
}

/* While slots leave, one clock after the other: what comes after a delta that took its key away is
 * for the server that the slot goes to, as a command would be. */
static enum err merge_in_steps(struct redis_context *ctx, struct merge *merge, struct bytes deltas,
                               struct buffer *here, struct buffer *moved)
{
        enum err err = ERR_NONE;
        struct cursor cursor = cursor_of(deltas);
        while (cursor_left(&cursor) > 0 && err == ERR_NONE && !merge->result.gap) {
                uint64_t clock = 0;
                size_t from = here->len;
                cluster_sift(ctx, same_clock(&cursor, &clock), here, moved);
                struct bytes all = buffer_view(here);
                bool any = all.len > from;
                clock = clock > merge->after ? clock : merge->after;
                err = merge_apply(ctx, merge, clock < merge->last ? clock : merge->last,
                                  any ? bytes_of(all.ptr + from, all.len - from) : BYTES(""));
        }
        return err;
}

static enum err merge_run(struct redis_context *ctx, struct merge *merge, struct bytes deltas,
                          struct buffer *here, struct buffer *moved)
{
        enum err err = ERR_NONE;
        bool sifted = !merge->logged && cluster_enabled();
        if (!merge->logged) {
                keyspace_names(deltas, strike, NULL);
                log_flush(ctx);
        }
        if (sifted && cluster_leaves() > 0) {
                err = merge_in_steps(ctx, merge, deltas, here, moved);
                deltas = (struct bytes){0};
        } else if (sifted) {
                cluster_sift(ctx, deltas, here, moved);
                deltas = buffer_view(here);
        }
        if (err == ERR_NONE && !merge->result.gap)
                err = merge_apply(ctx, merge, merge->last, deltas);
        return err;
}

static int merge_done(struct redis_context *ctx, struct bytes batch, struct bytes moved,
                      const struct merge *merge, enum err err)
{
        const struct keyspace_result *result = &merge->result;
        if (result->gap)
                return reply_gap(ctx, result->position);
        if (err == ERR_INVALID)
                return reply_err(ctx, err);
        /* What was applied is propagated up to where it was applied. */
        if (result->applied > 0 || result->position > merge->after)
                redis.Replicate(ctx, "meridian.merge", "lllb", (long long)merge->origin,
                                (long long)merge->after, (long long)result->position,
                                text_of(batch), batch.len);
        if (err != ERR_NONE)
                return reply_err(ctx, err);
        if (moved.len > 0) {
                redis.ReplyWithArray(ctx, 2);
                reply_u64(ctx, result->position);
                return redis.ReplyWithStringBuffer(ctx, text_of(moved), moved.len);
        }
        if (keyspace_seen(plugin.keyspace)->hole_count == 0) {
                reply_u64(ctx, result->position);
                return REDIS_OK;
        }
        redis.ReplyWithArray(ctx, 3);
        reply_u64(ctx, result->position);
        reply_holes(ctx);
        redis.ReplyWithArray(ctx, 0);
        return REDIS_OK;
}

int daemon_merge(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        uint64_t origin;
        uint64_t after;
        uint64_t last;
        if (argc < 5)
                return redis.WrongArity(ctx);
        if (!argument_u64(argv[1], CLOCK_REGIONS_MAX, &origin) || origin == 0 ||
            !argument_u64(argv[2], INT64_MAX, &after) || !argument_u64(argv[3], INT64_MAX, &last) ||
            last < after)
                return reply_bad(ctx);
        struct bytes deltas = plugin_bytes(argv[4]);
        struct merge merge = {
                .origin = (region_id)origin, .after = after, .last = last, .logged = from_log(ctx)};
        if (!merge.logged && !cluster_merge_allowed(ctx, argv, argc))
                return REDIS_OK;
        struct buffer here;
        struct buffer moved;
        buffer_init(&here, &plugin.heap);
        buffer_init(&moved, &plugin.heap);
        uint64_t before = vector_get(keyspace_positions(plugin.keyspace), merge.origin);
        enum err err = merge_run(ctx, &merge, deltas, &here, &moved);
        if (!merge.logged && cluster_enabled())
                deltas = buffer_view(&here);
        if (!merge.logged)
                migrate_merged(deltas);
        if (!merge.logged && deltas.len > 0 && err != ERR_INVALID)
                status_batch(merge.origin, last, err);
        int status = merge_done(ctx, deltas, buffer_view(&moved), &merge, err);
        feed_merged(merge.origin, before, merge.result.position, deltas);
        bus_publish(ctx, merge.logged);
        buffer_fini(&here);
        buffer_fini(&moved);
        return status;
}

/* ---- state transfer */

int daemon_scan(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        uint64_t cursor;
        uint64_t bytes_max;
        if (argc != 3)
                return redis.WrongArity(ctx);
        if (!argument_u64(argv[1], UINT64_MAX, &cursor) ||
            !argument_u64(argv[2], PLUGIN_BATCH_BYTES_MAX, &bytes_max))
                return reply_bad(ctx);
        clock_out();
        if (!log_flush(ctx))
                return redis.ReplyWithError(ctx, "MERIDIAN clients are paused; try again");
        if (cluster_refuses(ctx) || (plugin.replica && promote_refuses(ctx)))
                return REDIS_OK;
        bool begin = cursor == 0;
        struct vector positions = {{0}};
        if (begin)
                positions = *keyspace_positions(plugin.keyspace);
        struct buffer state;
        buffer_init(&state, &plugin.heap);
        plugin.applying = true;
        enum err err =
                keyspace_scan(plugin.keyspace, native_of(ctx), &cursor, (size_t)bytes_max, &state);
        native_trim();
        native_end();
        plugin.applying = false;
        if (err != ERR_NONE) {
                buffer_fini(&state);
                return reply_err(ctx, err);
        }
        /* What the scan shows others have seen. */
        plugin.shipped = vector_get(keyspace_positions(plugin.keyspace), plugin.config.origin);
        redis.ReplyWithArray(ctx, 3);
        reply_text_u64(ctx, cursor);
        reply_vector(ctx, &positions);
        redis.ReplyWithStringBuffer(ctx, state.len == 0 ? "" : (const char *)state.ptr, state.len);
        buffer_fini(&state);
        return REDIS_OK;
}

/* END origin hlc ...; false where that is malformed. */
static bool read_end(struct redis_string **argv, int argc, struct vector *ret)
{
        struct bytes word = plugin_bytes(argv[2]);
        if (argc % 2 != 1 || !bytes_equal(word, BYTES("END")))
                return false;
        for (int i = 3; i < argc; i += 2) {
                uint64_t origin;
                uint64_t hlc;
                if (!argument_u64(argv[i], CLOCK_REGIONS_MAX, &origin) || origin == 0 ||
                    !argument_u64(argv[i + 1], INT64_MAX, &hlc))
                        return false;
                vector_advance(ret, (region_id)origin, hlc);
        }
        return true;
}

int daemon_merge_state(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        struct vector positions = {{0}};
        if (argc < 2)
                return redis.WrongArity(ctx);
        bool end = argc > 2;
        if (end && !read_end(argv, argc, &positions))
                return reply_bad(ctx);
        struct bytes state = plugin_bytes(argv[1]);
        struct keyspace_result result = {0};
        if (!from_log(ctx) && cluster_refuses(ctx))
                return REDIS_OK;
        if (!from_log(ctx) && !cluster_state_allowed(ctx, state))
                return redis.ReplyWithError(ctx, "LAYOUT the slots have changed, or are moving");
        /* A state from the log was within the bound when it came. */
        uint64_t wall_ms = from_log(ctx) ? (uint64_t)1 << 47 : plugin_now_ms();
        if (!from_log(ctx))
                keyspace_state_names(state, strike, NULL);
        log_flush(ctx);
        plugin.applying = true;
        enum err err = ERR_NONE;
        if (state.len > 0)
                err = keyspace_merge_state(plugin.keyspace, native_of(ctx), wall_ms, state,
                                           &result);
        if (err == ERR_NONE && end)
                err = keyspace_adopt(plugin.keyspace, native_of(ctx), argc > 3 ? &positions : NULL,
                                     &result);
        native_end();
        plugin.applying = false;
        /* Also a part that was refused midway has changed something. */
        feed_break();
        redis.ReplicateVerbatim(ctx);
        if (err != ERR_NONE)
                return reply_err(ctx, err);
        if (result.broken)
                return redis.ReplyWithError(ctx, "BROKEN the parts do not follow each other");
        if (!end)
                return redis.ReplyWithSimpleString(ctx, "OK");
        clock_out();
        redis.ReplyWithArray(ctx, 3);
        reply_u64(ctx, result.position);
        reply_holes(ctx);
        reply_vector(ctx, keyspace_positions(plugin.keyspace));
        return REDIS_OK;
}

/* Nobody holds anything of a hole in our stream any more. */
int daemon_close(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        uint64_t low;
        uint64_t high;
        struct keyspace_change change;
        if (argc != 3)
                return redis.WrongArity(ctx);
        if (!argument_u64(argv[1], INT64_MAX, &low) || !argument_u64(argv[2], INT64_MAX, &high))
                return reply_bad(ctx);
        if (plugin.replica)
                return redis.ReplyWithError(ctx, "READONLY a replica has no stream of its own");
        enum err err = keyspace_close(plugin.keyspace, plugin_now_ms(), low, high, &change);
        if (err != ERR_NONE)
                return reply_err(ctx, err);
        local_changed(&change);
        return redis.ReplyWithSimpleString(ctx, "OK");
}

int daemon_acked(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        uint64_t region;
        uint64_t position;
        if (argc != 3)
                return redis.WrongArity(ctx);
        if (!argument_u64(argv[1], CLOCK_REGIONS_MAX, &region) || region == 0 ||
            !argument_u64(argv[2], INT64_MAX, &position))
                return reply_bad(ctx);
        keyspace_acked(plugin.keyspace, (region_id)region, position);
        wait_acked((region_id)region, position);
        return redis.ReplyWithSimpleString(ctx, "OK");
}

int daemon_members(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        region_id regions[CLOCK_REGIONS_MAX];
        if (argc < 2 || argc > CLOCK_REGIONS_MAX + 1)
                return redis.WrongArity(ctx);
        for (int i = 1; i < argc; i++) {
                uint64_t region;
                if (!argument_u64(argv[i], CLOCK_REGIONS_MAX, &region) || region == 0)
                        return reply_bad(ctx);
                regions[i - 1] = (region_id)region;
        }
        enum err err = keyspace_members(plugin.keyspace, regions, (size_t)argc - 1);
        if (err != ERR_NONE)
                return reply_err(ctx, err);
        wait_members(regions, (size_t)argc - 1);
        return redis.ReplyWithSimpleString(ctx, "OK");
}

int daemon_digest(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        batch_drain();
        (void)argv;
        if (argc != 1)
                return redis.WrongArity(ctx);
        char text[32];
        int len = snprintf(text, sizeof(text), "%016llx",
                           (unsigned long long)keyspace_digest(plugin.keyspace));
        return redis.ReplyWithStringBuffer(ctx, text, (size_t)len);
}
