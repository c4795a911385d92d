/* status.c - how replication goes, seen from this server: MERIDIAN.STATUS for the daemon, as JSON,
 * and the same in INFO.
 *
 * How far another region is behind is told by what it has acknowledged of our stream, so it grows
 * while a link is dead. How far its clock is ahead is told by what comes of its stream: the clock
 * of a batch less ours when it is merged, which the way makes smaller, so it is a lower bound. What
 * is further ahead than drift-max-ms is refused, and counted. */
#include "plugin.h"

#include <stdio.h>

enum {
        RATE_SECONDS = 10,
};

struct rate {
        uint64_t second; /* of the newest sample */
        uint64_t totals[RATE_SECONDS + 1];
};

struct clock_of {
        bool known;
        int64_t ahead_ms;     /* of the last batch */
        int64_t ahead_ms_max; /* since the start */
        uint64_t refused;     /* batches beyond the bound */
};

static struct rate merged;
static struct clock_of clocks[CLOCK_REGIONS_MAX + 1];

void status_batch(region_id origin, uint64_t last, enum err err)
{
        struct clock_of *clock = &clocks[origin];
        int64_t ahead_ms = (int64_t)hlc_ms(last) - (int64_t)plugin_now_ms();
        clock->ahead_ms = ahead_ms;
        if (!clock->known || ahead_ms > clock->ahead_ms_max)
                clock->ahead_ms_max = ahead_ms;
        clock->known = true;
        clock->refused += err == ERR_REFUSED;
}

/* A sample a second; seconds that nobody saw take the one before. */
void status_tick(uint64_t now_ms)
{
        uint64_t second = now_ms / 1000;
        uint64_t total = keyspace_stats(plugin.keyspace).applied;
        if (second <= merged.second && merged.second != 0)
                return;
        uint64_t gone = merged.second == 0 ? RATE_SECONDS + 1 : second - merged.second;
        for (uint64_t i = 0; i < gone && i <= RATE_SECONDS; i++)
                merged.totals[(second - i) % (RATE_SECONDS + 1)] =
                        i == 0 || merged.second == 0
                                ? total
                                : merged.totals[merged.second % (RATE_SECONDS + 1)];
        merged.second = second;
}

static uint64_t merge_rate(void)
{
        uint64_t newest = merged.totals[merged.second % (RATE_SECONDS + 1)];
        uint64_t oldest = merged.totals[(merged.second + 1) % (RATE_SECONDS + 1)];
        return newest > oldest ? (newest - oldest) / RATE_SECONDS : 0;
}

/* Age by our clock; 0 where it lies ahead. */
static uint64_t age_ms(uint64_t clock, uint64_t now_ms)
{
        return clock != 0 && now_ms > hlc_ms(clock) ? now_ms - hlc_ms(clock) : 0;
}

void status_info(struct redis_info *info)
{
        uint64_t now_ms = plugin_now_ms();
        char name[48];
        redis.InfoAddFieldULongLong(info, "merge_rate", merge_rate());
        redis.InfoAddFieldULongLong(info, "drift_max_ms", plugin.config.drift_max_ms);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                struct keyspace_behind behind = keyspace_behind(plugin.keyspace, (region_id)i);
                const struct {
                        const char *name;
                        uint64_t value;
                } rows[] = {
                        {"acked", behind.acked},
                        {"behind_ms", age_ms(behind.oldest, now_ms)},
                        {"behind_deltas", behind.deltas},
                        {"behind_bytes", behind.bytes},
                        {"needs_state", behind.state},
                };
                for (size_t k = 0; k < COUNT_OF(rows) && behind.member; k++) {
                        snprintf(name, sizeof(name), "%s_%u", rows[k].name, i);
                        redis.InfoAddFieldULongLong(info, name, rows[k].value);
                }
                if (!clocks[i].known)
                        continue;
                snprintf(name, sizeof(name), "clock_ahead_ms_%u", i);
                redis.InfoAddFieldLongLong(info, name, clocks[i].ahead_ms);
                snprintf(name, sizeof(name), "clock_ahead_ms_max_%u", i);
                redis.InfoAddFieldLongLong(info, name, clocks[i].ahead_ms_max);
                snprintf(name, sizeof(name), "clock_refused_%u", i);
                redis.InfoAddFieldULongLong(info, name, clocks[i].refused);
        }
}

static void peer_json(struct buffer *to, unsigned region, uint64_t now_ms)
{
        struct keyspace_behind behind = keyspace_behind(plugin.keyspace, (region_id)region);
        const struct clock_of *clock = &clocks[region];
        buffer_format(to, "{\"region\":%u", region);
        if (behind.member)
                buffer_format(to,
                              ",\"behind_ms\":%llu,\"behind_deltas\":%llu,\"behind_bytes\":%llu,"
                              "\"needs_state\":%s",
                              (unsigned long long)age_ms(behind.oldest, now_ms),
                              (unsigned long long)behind.deltas, (unsigned long long)behind.bytes,
                              behind.state ? "true" : "false");
        if (clock->known)
                buffer_format(to,
                              ",\"clock_ahead_ms\":%lld,\"clock_ahead_ms_max\":%lld,"
                              "\"clock_refused\":%llu",
                              (long long)clock->ahead_ms, (long long)clock->ahead_ms_max,
                              (unsigned long long)clock->refused);
        buffer_format(to, "}");
}

/* What becomes of keys where memory is full, as the server's configuration names it. */
static void policy_json(struct redis_context *ctx, struct buffer *to)
{
        struct redis_reply *reply = redis.Call(ctx, "CONFIG", "cc", "GET", "maxmemory-policy");
        size_t len = 0;
        const char *text = NULL;
        if (reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY &&
            redis.CallReplyLength(reply) == 2)
                text = redis.CallReplyStringPtr(redis.CallReplyArrayElement(reply, 1), &len);
        buffer_format(to, "\"maxmemory_policy\":\"%.*s\",", text == NULL ? 0 : (int)len,
                      text == NULL ? "" : text);
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static void status_json(struct redis_context *ctx, struct buffer *to)
{
        struct keyspace_stats stats = keyspace_stats(plugin.keyspace);
        uint64_t now_ms = plugin_now_ms();
        const struct {
                const char *name;
                uint64_t value;
        } rows[] = {
                {"keys", stats.keys},
                {"tombstones", stats.tombstones},
                {"tombstones_collected", stats.collected},
                {"metadata_bytes", stats.bytes},
                {"backlog_bytes", stats.ring_bytes},
                {"backlog_bytes_max", plugin.config.ring_bytes},
                {"backlog_deltas", stats.ring_count},
                {"backlog_ms", age_ms(keyspace_ring_first(plugin.keyspace), now_ms)},
                {"holes", keyspace_seen(plugin.keyspace)->hole_count},
                {"local_deltas", stats.local},
                {"merged_deltas", stats.applied},
                {"merge_rate", merge_rate()},
                {"drift_refused", stats.refused},
                {"drift_max_ms", plugin.config.drift_max_ms},
                {"conflicts", conflict_total()},
                {"conflicts_since_ms", conflict_since_ms()},
                {"evicted", plugin.evicted},
                {"memory_permille", (uint64_t)(1000 * (double)redis.GetUsedMemoryRatio())},
        };
        buffer_format(to, "{");
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                buffer_format(to, "\"%s\":%llu,", rows[i].name, (unsigned long long)rows[i].value);
        policy_json(ctx, to);
        buffer_format(to, "\"peers\":[");
        const char *between = "";
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                bool member = keyspace_behind(plugin.keyspace, (region_id)i).member;
                if (!member && !clocks[i].known)
                        continue;
                buffer_format(to, "%s", between);
                peer_json(to, i, now_ms);
                between = ",";
        }
        buffer_format(to, "]}");
}

int status_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        if (argc != 1)
                return redis.WrongArity(ctx);
        batch_drain();
        struct buffer text;
        buffer_init(&text, &plugin.heap);
        status_json(ctx, &text);
        plugin_must(text.err, "a status");
        redis.ReplyWithStringBuffer(ctx, (const char *)text.ptr, text.len);
        buffer_fini(&text);
        return REDIS_OK;
}
