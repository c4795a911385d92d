/* bus.c - PUBLISH that reaches other regions, on channels whose prefix the topology names.
 *
 * Out: the filter wraps such a PUBLISH or SPUBLISH. When the server has run it, the message is
 * a delta that changes no key, behind those of everything that was written before.
 *
 * In: a merge meets the message in its place in the stream; when the batch is merged and
 * recorded, it is published by the server's own command, which takes it to the region's replicas
 * and to the other servers of a cluster. So who hears an event finds the data that was written
 * before it. What this module calls does not come through its filter: an event does not go round.
 *
 * Delivery is at most once for each region, by the position of the stream: a duplicate is skipped,
 * a log that is replayed publishes nothing, and after a crash that lost positions, what was stamped
 * before this life began is not published again. Lost is what comes by a state transfer
 * instead of the stream, and what is on its way when the receiving server crashes. */
#include "plugin.h"

static struct buffer heard; /* u8 shard, slice channel, slice message */
static uint64_t sent;
static uint64_t published;

static bool is_shard(const struct rule *rule)
{
        return rule->name[0] == 's';
}

enum wrap bus_wrap(const struct rule *rule, struct bytes channel)
{
        if (!policy_publishes(channel))
                return WRAP_NONE;
        /* A cluster finds the server by the channel; elsewhere it would only ask for the right to a
         * key of that name. */
        return is_shard(rule) && cluster_enabled() ? WRAP_ONE : WRAP_PLAIN;
}

void bus_send(const struct rule *rule, struct redis_string **argv)
{
        struct keyspace_change change;
        plugin_must(keyspace_local_event(plugin.keyspace, plugin_now_ms(), plugin_bytes(argv[1]),
                                         plugin_bytes(argv[2]), is_shard(rule), &change),
                    "an event");
        local_changed(&change);
        sent++;
}

void bus_hear(void *context, const struct crdt_delta *event)
{
        (void)context;
        if (plugin.quiet || plugin.loading || event->stamp.hlc <= keyspace_first(plugin.keyspace))
                return;
        if (heard.heap == NULL)
                buffer_init(&heard, &plugin.heap);
        buffer_u8(&heard, (event->flags & CRDT_FLAG_SHARD) != 0);
        buffer_slice(&heard, event->name.key);
        buffer_slice(&heard, event->value);
        plugin_must(heard.err, "an event");
}

static const char *text_of(struct bytes bytes)
{
        return bytes.len == 0 ? "" : (const char *)bytes.ptr;
}

void bus_publish(struct redis_context *ctx, bool logged)
{
        struct cursor cursor = cursor_of(buffer_view(&heard));
        while (!logged && cursor_left(&cursor) > 0) {
                const char *command = cursor_u8(&cursor) != 0 ? "SPUBLISH" : "PUBLISH";
                struct bytes channel = cursor_slice(&cursor);
                struct bytes message = cursor_slice(&cursor);
                CHECK(!cursor_failed(&cursor));
                struct redis_reply *reply = redis.Call(ctx, command, "!bb", text_of(channel),
                                                       channel.len, text_of(message), message.len);
                published += reply != NULL;
                if (reply != NULL)
                        redis.FreeCallReply(reply);
        }
        if (heard.heap != NULL)
                buffer_reset(&heard);
}

void bus_info(struct redis_info *info)
{
        redis.InfoAddFieldULongLong(info, "events_sent", sent);
        redis.InfoAddFieldULongLong(info, "events_published", published);
}
