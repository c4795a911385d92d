/* merge.c - MERIDIAN.MERGE and MERGESTATE: what other regions have changed, and their states.
 *
 * Both change Redis and are propagated as they came, so that position and data are one record in
 * the AOF. They are refused when memory is out (deny-oom): the stream is then held back, never half
 * applied. What is malformed is refused with an error and nothing after the bad place is read. */
#include "plugin.h"

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

int merge_command(struct redis_context *ctx, struct redis_string **argv, int argc)
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

/* ---- states */

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

int merge_state_command(struct redis_context *ctx, struct redis_string **argv, int argc)
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
