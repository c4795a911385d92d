/* cluster.c - what meridiand asks of a server that is one of several in its region (Redis Cluster).
 *
 *   MERIDIAN.SHARD                        [layout, importing, keys]
 *   MERIDIAN.MARK clock                   the position to which our stream is complete, >= clock
 *   MERIDIAN.JOIN origin position ...     OK: a server without keys begins at these positions
 *   MERIDIAN.MERGE ... LAYOUT n [LAST]    as MERGE, but of keys that are not here the deltas come
 *                                         back: [position, deltas]
 *
 * The layout is a number that changes whenever CLUSTER SETSLOT is told to this server, so a batch
 * that was split by an older map is refused (-LAYOUT) before any of it is applied. A server that
 * imports slots wants LAST: the promise that every other server has the batch already, so that it
 * is never ahead of the server from which a key comes. (Slots that hold keys do not move yet, see
 * filter.c.) */
#include "keyspace/shards.h"
#include "plugin.h"

#include <errno.h>

struct cluster {
        bool enabled;
        uint64_t layout;
        bool importing;
        bool stale; /* `importing` is to be asked for again */
};

static struct cluster cluster;

void cluster_init(struct redis_context *ctx)
{
        cluster.enabled = (redis.GetContextFlags(ctx) & REDIS_FLAG_CLUSTER) != 0;
        redis.GetRandomBytes((unsigned char *)&cluster.layout, sizeof(cluster.layout));
        cluster.layout >>= 16;
        cluster.stale = true;
}

bool cluster_enabled(void)
{
        return cluster.enabled;
}

void cluster_changed(void)
{
        cluster.layout++;
        cluster.stale = true;
}

/* A server whose cluster is down answers no command on keys, not even ours: what a merge would
 * write then would be lost, what a scan would read would look empty. */
bool cluster_serves(struct redis_context *ctx)
{
        if (!cluster.enabled)
                return true;
        struct redis_reply *reply = redis.Call(ctx, "CLUSTER", "c", "INFO");
        if (reply == NULL)
                return false;
        size_t len = 0;
        const char *text = redis.CallReplyStringPtr(reply, &len);
        bool serves = text != NULL && memmem(text, len, "cluster_state:ok", 16) != NULL;
        redis.FreeCallReply(reply);
        return serves;
}

bool cluster_refuses(struct redis_context *ctx)
{
        if (cluster_serves(ctx))
                return false;
        redis.ReplyWithError(ctx, "CLUSTERDOWN this server's cluster is not served");
        return true;
}

/* Whether our line of CLUSTER NODES has a slot that comes to us: "[93-<-node]". */
static bool ask_importing(struct redis_context *ctx)
{
        struct redis_reply *reply = redis.Call(ctx, "CLUSTER", "c", "NODES");
        if (reply == NULL)
                return true;
        size_t len = 0;
        const char *text = redis.CallReplyStringPtr(reply, &len);
        bool found = text != NULL && memmem(text, len, "-<-", 3) != NULL;
        redis.FreeCallReply(reply);
        return found;
}

bool cluster_importing(struct redis_context *ctx)
{
        if (cluster.stale)
                cluster.importing = ask_importing(ctx);
        cluster.stale = false;
        return cluster.importing;
}

int cluster_shard(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        (void)argv;
        if (argc != 1)
                return redis.WrongArity(ctx);
        if (cluster_refuses(ctx))
                return REDIS_OK;
        batch_drain();
        struct keyspace_stats stats = keyspace_stats(plugin.keyspace);
        bool importing = cluster.enabled && cluster_importing(ctx);
        redis.ReplyWithArray(ctx, 3);
        redis.ReplyWithLongLong(ctx, (long long)cluster.layout);
        redis.ReplyWithLongLong(ctx, importing);
        return redis.ReplyWithLongLong(ctx, (long long)(stats.keys + stats.tombstones));
}

int cluster_mark(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        unsigned long long clock;
        uint64_t position = 0;
        if (argc != 2)
                return redis.WrongArity(ctx);
        if (redis.StringToULongLong(argv[1], &clock) != REDIS_OK || clock > INT64_MAX)
                return redis.ReplyWithError(ctx, "MERIDIAN an argument is no number in its range");
        batch_drain();
        if (plugin.replica || !log_flush(ctx))
                return redis.ReplyWithError(ctx, "MERIDIAN clients are paused; try again");
        enum err err = keyspace_mark(plugin.keyspace, plugin_now_ms(), clock, &position);
        if (err != ERR_NONE)
                return redis.ReplyWithError(ctx, "DRIFT a clock is beyond the drift bound");
        log_mark(position);
        log_flush(ctx);
        if (position > plugin.shipped)
                plugin.shipped = position;
        return redis.ReplyWithLongLong(ctx, (long long)position);
}

int cluster_join(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        struct vector positions = {{0}};
        batch_drain();
        for (int i = 1; i + 1 < argc; i += 2) {
                unsigned long long origin;
                unsigned long long hlc;
                if (redis.StringToULongLong(argv[i], &origin) != REDIS_OK ||
                    redis.StringToULongLong(argv[i + 1], &hlc) != REDIS_OK ||
                    !region_valid(origin) || hlc > INT64_MAX)
                        return redis.ReplyWithError(ctx, "MERIDIAN an argument is out of range");
                vector_advance(&positions, (region_id)origin, hlc);
        }
        if (plugin.replica)
                return redis.ReplyWithError(ctx, "MERIDIAN this is a replica");
        if (keyspace_join(plugin.keyspace, plugin_now_ms(), &positions) != ERR_NONE)
                return redis.ReplyWithError(ctx, "MERIDIAN this server holds keys already");
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (positions.hlc[i] != 0 && i != plugin.config.origin)
                        redis.Replicate(ctx, "meridian.merge", "lllc", (long long)i, 0LL,
                                        (long long)positions.hlc[i], "");
        }
        return redis.ReplyWithSimpleString(ctx, "OK");
}

/* ---- which deltas are for this server */

/* Whether a command on the key would run here. The server judges: by its slots, and while a slot
 * moves, by whether the key is still here. */
static bool key_is_here(struct redis_context *ctx, struct bytes key)
{
        struct redis_string *string =
                redis.CreateString(NULL, key.len == 0 ? "" : (const char *)key.ptr, key.len);
        errno = 0;
        struct redis_reply *reply = redis.Call(ctx, "EXISTS", "s", string);
        bool here = reply != NULL || errno != EPERM;
        if (reply != NULL)
                redis.FreeCallReply(reply);
        redis.FreeString(NULL, string);
        return here;
}

void cluster_sift(struct redis_context *ctx, struct bytes deltas, struct buffer *here,
                  struct buffer *moved)
{
        struct cursor cursor = cursor_of(deltas);
        while (cursor_left(&cursor) > 0) {
                struct bytes delta = cursor_slice(&cursor);
                struct cursor head = cursor_of(delta);
                cursor_u64(&head);
                enum crdt_op op = crdt_op_read(&head, NULL);
                cursor_varint_max(&head, CRDT_DB_MAX);
                struct bytes key = cursor_slice(&head);
                if (cursor_failed(&cursor) || cursor_failed(&head)) {
                        /* keyspace_apply says what is wrong with it. */
                        buffer_slice(here, delta);
                        break;
                }
                bool ours = shards_op_for_all(op) || key_is_here(ctx, key);
                buffer_slice(ours ? here : moved, delta);
        }
        plugin_must(here->err != ERR_NONE ? here->err : moved->err, "a batch");
}

bool cluster_state_allowed(struct redis_context *ctx, struct bytes state)
{
        struct shards_part part;
        if (!cluster.enabled || state.len == 0)
                return true;
        if (cluster_importing(ctx))
                return false;
        if (shards_part_read(state, &part) != ERR_NONE)
                return true; /* keyspace_merge_state says what is wrong with it */
        struct cursor cursor = cursor_of(part.keys);
        while (cursor_left(&cursor) > 0) {
                struct crdt_state key;
                if (!crdt_state_decode(&cursor, CRDT_STATE_VALUES, part.hlc, &key))
                        return true;
                if (!key_is_here(ctx, key.name.key))
                        return false;
        }
        return true;
}

/* The words after the deltas. False: refused, and replied. */
bool cluster_merge_allowed(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        unsigned long long layout;
        if (argc == 5 && !cluster.enabled)
                return true;
        if ((argc != 7 && argc != 8) || !bytes_equal(plugin_bytes(argv[5]), BYTES("LAYOUT")) ||
            redis.StringToULongLong(argv[6], &layout) != REDIS_OK ||
            (argc == 8 && !bytes_equal(plugin_bytes(argv[7]), BYTES("LAST")))) {
                redis.ReplyWithError(ctx, cluster.enabled
                                                  ? "MERIDIAN this server is one of several: "
                                                    "MERGE wants LAYOUT"
                                                  : "MERIDIAN an argument is out of range");
                return false;
        }
        if (cluster_refuses(ctx))
                return false;
        if (layout != cluster.layout || (argc == 7 && cluster_importing(ctx))) {
                redis.ReplyWithError(ctx, "LAYOUT the slots have changed; ask MERIDIAN.SHARD");
                return false;
        }
        return true;
}
