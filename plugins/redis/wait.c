/* wait.c - MERIDIAN.WAIT regions timeout-ms [AT position]: until other regions have what this
 * client has written here, or what was written up to a position that MERIDIAN.WRITTEN has told.
 *
 * The answer is a number: how many other regions have told that they merged our stream up to there.
 * A region tells it after its Redis has merged a batch and written its append-only file: with
 * `appendfsync always` there, it is on that region's disk; with `everysec`, within a second. Who
 * cannot reach us tells it by way of a third region.
 *
 * What a region tells is taken as it is, also when it goes back: a Redis that has lost its last
 * second tells less when it comes again. A time-out answers what there is, which may be 0; in
 * MULTI and in scripts the answer is what there is now. */
#include "plugin.h"

#include <stdlib.h>
#include <strings.h>

enum {
        WAIT_MS_MAX = INT32_MAX,
};

struct wait {
        struct block block; /* first: Redis hands it back as that */
        uint64_t position;
        uint64_t regions;
};

static struct vector acked;

/* What `rank` regions, or more, have: the largest position that the first has, and so on. */
static uint64_t reached[CLOCK_REGIONS_MAX];

static long long wait_count(uint64_t position)
{
        long long count = 0;
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                count += i != plugin.config.origin && acked.hlc[i] >= position && acked.hlc[i] != 0;
        return count;
}

static int wait_answer(struct redis_context *ctx, struct block *block)
{
        const struct wait *wait = (const struct wait *)block;
        return redis.ReplyWithLongLong(ctx, wait_count(wait->position));
}

static bool wait_done(struct block *block)
{
        const struct wait *wait = (const struct wait *)block;
        return wait->regions <= CLOCK_REGIONS_MAX && reached[wait->regions - 1] >= wait->position;
}

static int falling(const void *a, const void *b)
{
        uint64_t left = *(const uint64_t *)a;
        uint64_t right = *(const uint64_t *)b;
        return left < right ? 1 : left > right ? -1 : 0;
}

void wait_acked(region_id region, uint64_t position)
{
        if (region == plugin.config.origin || position == acked.hlc[region])
                return;
        acked.hlc[region] = position;
        memcpy(reached, &acked.hlc[1], sizeof(reached));
        qsort(reached, CLOCK_REGIONS_MAX, sizeof(reached[0]), falling);
        block_each(wait_answer, wait_done);
}

void wait_members(const region_id *regions, size_t count)
{
        struct vector members = {{0}};
        for (size_t i = 0; i < count; i++)
                members.hlc[regions[i]] = acked.hlc[regions[i]];
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++)
                if (members.hlc[i] != acked.hlc[i])
                        wait_acked((region_id)i, members.hlc[i]);
}

void wait_reset(void)
{
        memset(&acked, 0, sizeof(acked));
        memset(reached, 0, sizeof(reached));
}

/* [AT position] */
static bool wait_at(struct redis_string **argv, int argc, uint64_t *ret)
{
        unsigned long long position;
        struct bytes word = argc == 5 ? plugin_bytes(argv[3]) : bytes_of(NULL, 0);
        if (word.len != 2 || strncasecmp((const char *)word.ptr, "at", 2) != 0 ||
            redis.StringToULongLong(argv[4], &position) != REDIS_OK || position > INT64_MAX)
                return false;
        *ret = position;
        return true;
}

int wait_regions(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        unsigned long long regions;
        unsigned long long timeout_ms;
        uint64_t position = 0;
        if (argc != 3 && argc != 5)
                return redis.WrongArity(ctx);
        if (redis.StringToULongLong(argv[1], &regions) != REDIS_OK ||
            redis.StringToULongLong(argv[2], &timeout_ms) != REDIS_OK || timeout_ms > WAIT_MS_MAX ||
            (argc == 5 && !wait_at(argv, argc, &position)))
                return redis.ReplyWithError(
                        ctx, "ERR usage: MERIDIAN.WAIT regions timeout-ms [AT position]");
        if (plugin.replica)
                return redis.ReplyWithError(ctx, "ERR MERIDIAN.WAIT is for the region's primary");
        if (argc == 3)
                position = writers_position(ctx);
        long long count = wait_count(position);
        if ((unsigned long long)count >= regions || !block_allowed(ctx))
                return redis.ReplyWithLongLong(ctx, count);
        struct wait *wait = plugin_array(1, sizeof(*wait), "a wait");
        *wait = (struct wait){
                .block.answer = wait_answer, .position = position, .regions = regions};
        return block_client(ctx, &wait->block, timeout_ms);
}

int wait_written(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        if (argc != 1)
                return redis.WrongArity(ctx);
        if (plugin.replica)
                return redis.ReplyWithError(ctx,
                                            "ERR MERIDIAN.WRITTEN is for the region's primary");
        return redis.ReplyWithLongLong(ctx, (long long)writers_position(ctx));
}
