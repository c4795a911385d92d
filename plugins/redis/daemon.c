/* daemon.c - the smaller commands of meridiand: where this region is, its state in parts, who has
 * what, who is a member (tail.c and merge.c have the streams). */
#include "plugin.h"

#include <stdio.h>

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
