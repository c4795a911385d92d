/* reply.c - what the commands of meridiand read of their words, and how they answer. */
#include "plugin.h"

#include <stdio.h>

bool argument_u64(const struct redis_string *string, uint64_t max, uint64_t *ret)
{
        unsigned long long value;
        if (redis.StringToULongLong(string, &value) != REDIS_OK || value > max)
                return false;
        *ret = value;
        return true;
}

int reply_err(struct redis_context *ctx, enum err err)
{
        char text[128];
        snprintf(text, sizeof(text), "%s %s",
                 err == ERR_REFUSED ? "DRIFT a clock is beyond the drift bound:" : "MERIDIAN",
                 err_text(err));
        return redis.ReplyWithError(ctx, text);
}

int reply_bad(struct redis_context *ctx)
{
        return redis.ReplyWithError(ctx, "MERIDIAN an argument is no number in its range");
}

int reply_gap(struct redis_context *ctx, uint64_t position)
{
        char text[64];
        snprintf(text, sizeof(text), "GAP %llu", (unsigned long long)position);
        return redis.ReplyWithError(ctx, text);
}

void reply_u64(struct redis_context *ctx, uint64_t value)
{
        redis.ReplyWithLongLong(ctx, (long long)value);
}

void reply_vector(struct redis_context *ctx, const struct vector *vector)
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

void reply_holes(struct redis_context *ctx)
{
        struct buffer holes;
        buffer_init(&holes, &plugin.heap);
        keyspace_holes_encode(plugin.keyspace, &holes);
        plugin_must(holes.err, "the holes");
        redis.ReplyWithStringBuffer(ctx, holes.len == 0 ? "" : (const char *)holes.ptr, holes.len);
        buffer_fini(&holes);
}

/* For what may be beyond a signed number. */
void reply_text_u64(struct redis_context *ctx, uint64_t value)
{
        char text[32];
        int len = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
        redis.ReplyWithStringBuffer(ctx, text, (size_t)len);
}
