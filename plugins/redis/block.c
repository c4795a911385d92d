/* block.c - clients that wait in WAIT and FEED: one list, in the order in which they came.
 *
 *   block_client -> waits -> block_each finds it done ----> answer
 *                         -> its time is over ------------> answer
 *                         -> the client goes, or is forced -> nothing
 *
 * Whatever ends the wait takes the block off the list; Redis then frees it by block_free. Fails
 * only where too many wait, with an error reply. */
#include "plugin.h"

enum {
        BLOCKS_MAX = 16384,
};

static struct block *first;
static struct block **end = &first;
static unsigned count;

static void unlink_at(struct block **at)
{
        struct block *block = *at;
        *at = block->next;
        if (end == &block->next)
                end = at;
        count--;
}

static struct block *take(const struct redis_blocked *blocked)
{
        for (struct block **at = &first; *at != NULL; at = &(*at)->next) {
                struct block *block = *at;
                if (block->blocked != blocked)
                        continue;
                unlink_at(at);
                return block;
        }
        return NULL;
}

static void block_free(struct redis_context *ctx, void *block)
{
        (void)ctx;
        heap_free(&plugin.heap, block);
}

static int block_reply(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        (void)argc;
        struct block *block = redis.GetBlockedClientPrivateData(ctx);
        return block->answer(ctx, block);
}

static int block_timeout(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        (void)argc;
        struct redis_blocked *blocked = redis.GetBlockedClientHandle(ctx);
        struct block *block = take(blocked);
        if (block == NULL)
                return redis.ReplyWithError(ctx, "MERIDIAN no such wait");
        int status = block->answer(ctx, block);
        redis.UnblockClient(blocked, block);
        return status;
}

static void block_gone(struct redis_context *ctx, struct redis_blocked *blocked)
{
        (void)ctx;
        redis.UnblockClient(blocked, take(blocked));
}

bool block_allowed(struct redis_context *ctx)
{
        int flags = redis.GetContextFlags(ctx);
        return (flags & (REDIS_FLAG_DENY_BLOCKING | REDIS_FLAG_MULTI | REDIS_FLAG_LUA)) == 0;
}

int block_client(struct redis_context *ctx, struct block *block, uint64_t timeout_ms)
{
        if (count == BLOCKS_MAX) {
                heap_free(&plugin.heap, block);
                return redis.ReplyWithError(ctx, "MERIDIAN too many clients wait");
        }
        block->blocked = redis.BlockClient(ctx, block_reply, block_timeout, block_free,
                                           (long long)timeout_ms);
        redis.SetDisconnectCallback(block->blocked, block_gone);
        block->next = NULL;
        *end = block;
        end = &block->next;
        count++;
        return REDIS_OK;
}

void block_each(block_answer answer, bool (*done)(struct block *block))
{
        struct block **at = &first;
        while (*at != NULL) {
                struct block *block = *at;
                if (block->answer != answer || !done(block)) {
                        at = &block->next;
                        continue;
                }
                unlink_at(at);
                redis.UnblockClient(block->blocked, block);
        }
}
