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
 * is never ahead of the server from which a key comes (migrate.c). */
#include "keyspace/shards.h"
#include "plugin.h"

#include <errno.h>
#include <stdlib.h>

enum {
        LEAVING_MAX = 64, /* slots that are told apart; more wait for their turn */
        LOOK_MS = 2000,   /* after a SETSLOT, which may wait for replicas before it counts */
};

struct cluster {
        bool enabled;
        uint64_t layout;
        bool importing;
        bool stale; /* `importing` and the slots that leave are to be asked for again */
        uint64_t look_until_ms;
        unsigned leaving_count;
        struct leaving leaving[LEAVING_MAX];
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
        cluster.look_until_ms = plugin_now_ms() + LOOK_MS;
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

/* ---- slots that come and go: "[93-<-node]" and "[77->-node]" in our line of CLUSTER NODES */

struct leaving *cluster_leaving_at(unsigned index)
{
        return &cluster.leaving[index];
}

unsigned cluster_leaves(void)
{
        return cluster.leaving_count;
}

static struct leaving *leaving_of(unsigned slot)
{
        for (unsigned i = 0; i < cluster.leaving_count; i++)
                if (cluster.leaving[i].slot == slot)
                        return &cluster.leaving[i];
        return NULL;
}

/* The line that begins with that name; other lines may have it, too. */
static const char *node_line(struct bytes nodes, struct bytes id)
{
        const char *end = (const char *)nodes.ptr + nodes.len;
        for (const char *at = (const char *)nodes.ptr; (size_t)(end - at) > id.len;) {
                if (memcmp(at, id.ptr, id.len) == 0 && at[id.len] == ' ')
                        return at;
                at = memchr(at, '\n', (size_t)(end - at));
                if (at == NULL)
                        return NULL;
                at++;
        }
        return NULL;
}

/* The line of a node begins with its name, then "host:port@bus". */
static bool node_address(struct bytes nodes, struct bytes id, struct leaving *ret)
{
        char text[64];
        const char *line = node_line(nodes, id);
        if (line == NULL)
                return false;
        const char *from = line + id.len + 1;
        const char *end = (const char *)nodes.ptr + nodes.len;
        const char *bus = from < end ? memchr(from, '@', (size_t)(end - from)) : NULL;
        if (bus == NULL || (size_t)(bus - from) >= sizeof(text))
                return false;
        memcpy(text, from, (size_t)(bus - from));
        text[bus - from] = '\0';
        char *colon = strrchr(text, ':');
        if (colon == NULL || (size_t)(colon - text) >= sizeof(ret->host))
                return false;
        memcpy(ret->host, text, (size_t)(colon - text));
        ret->host[colon - text] = '\0';
        ret->port = (unsigned)strtoul(colon + 1, NULL, 10);
        return ret->port != 0;
}

/* One "[slot->-id]"; `from` is behind the bracket. */
static void leaving_read(struct bytes nodes, const char *from, const char *end,
                         struct leaving *list, unsigned *count)
{
        char *arrow = NULL;
        unsigned slot = (unsigned)strtoul(from, &arrow, 10);
        if (*count == LEAVING_MAX || end - arrow < 3 || memcmp(arrow, "->-", 3) != 0)
                return;
        struct leaving leaving = {.slot = slot};
        struct bytes id = bytes_of(arrow + 3, (size_t)(end - arrow - 3));
        const struct leaving *known = leaving_of(slot);
        if (!node_address(nodes, id, &leaving))
                return;
        leaving.told = known != NULL && known->told && known->port == leaving.port &&
                       strcmp(known->host, leaving.host) == 0;
        list[(*count)++] = leaving;
}

static void slots_take(struct bytes nodes)
{
        struct leaving list[LEAVING_MAX];
        unsigned count = 0;
        const char *end = (const char *)nodes.ptr + nodes.len;
        const char *at = (const char *)nodes.ptr;
        cluster.importing = memmem(nodes.ptr, nodes.len, "-<-", 3) != NULL;
        while ((at = memchr(at, '[', (size_t)(end - at))) != NULL) {
                const char *close = memchr(at, ']', (size_t)(end - at));
                if (close == NULL)
                        break;
                leaving_read(nodes, at + 1, close, list, &count);
                at = close;
        }
        struct leaving was[LEAVING_MAX];
        unsigned was_count = cluster.leaving_count;
        memcpy(was, cluster.leaving, sizeof(was));
        memcpy(cluster.leaving, list, count * sizeof(list[0]));
        cluster.leaving_count = count;
        for (unsigned i = 0; i < count; i++) {
                bool known = false;
                for (unsigned k = 0; k < was_count; k++)
                        known = known || was[k].slot == list[i].slot;
                if (!known)
                        migrate_slot_leaves(&list[i]);
        }
}

static void slots_ask(struct redis_context *ctx)
{
        cluster.importing = true; /* where it cannot be asked for */
        struct redis_reply *reply = redis.Call(ctx, "CLUSTER", "c", "NODES");
        if (reply == NULL)
                return;
        size_t len = 0;
        const char *text = redis.CallReplyStringPtr(reply, &len);
        if (text != NULL)
                slots_take(bytes_of(text, len));
        redis.FreeCallReply(reply);
        cluster.stale = plugin_now_ms() < cluster.look_until_ms;
}

bool cluster_importing(struct redis_context *ctx)
{
        if (cluster.stale)
                slots_ask(ctx);
        return cluster.importing;
}

bool cluster_look(struct redis_context *ctx)
{
        if (cluster.enabled && cluster.stale)
                slots_ask(ctx);
        return cluster.leaving_count > 0;
}

struct leaving *cluster_leaving(struct redis_context *ctx, unsigned slot)
{
        if (ctx != NULL)
                (void)cluster_look(ctx);
        return leaving_of(slot);
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
        return redis.ReplyWithLongLong(ctx, (long long)stats.keys + (long long)stats.tombstones);
}

int cluster_mark(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        uint64_t clock;
        uint64_t position = 0;
        if (argc != 2)
                return redis.WrongArity(ctx);
        if (!argument_u64(argv[1], INT64_MAX, &clock))
                return reply_bad(ctx);
        batch_drain();
        if (plugin.replica || !log_flush(ctx))
                return redis.ReplyWithError(ctx, "MERIDIAN clients are paused; try again");
        enum err err = keyspace_mark(plugin.keyspace, plugin_now_ms(), clock, &position);
        if (err != ERR_NONE)
                return redis.ReplyWithError(ctx, "DRIFT a clock is beyond the drift bound");
        log_mark(position);
        clock_out();
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
                uint64_t origin;
                uint64_t hlc;
                if (!argument_u64(argv[i], CLOCK_REGIONS_MAX, &origin) || origin == 0 ||
                    !argument_u64(argv[i + 1], INT64_MAX, &hlc))
                        return reply_bad(ctx);
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

/* "5", "5-9", or "[5-<-id]" for one that comes; "[5->-id]" is among the others, too. */
static void slots_word(const char *word, uint8_t *slots)
{
        char *end = NULL;
        bool comes = *word == '[';
        unsigned long low = strtoul(word + comes, &end, 10);
        unsigned long high = !comes && *end == '-' ? strtoul(end + 1, NULL, 10) : low;
        for (unsigned long slot = low; end != word + comes && slot <= high && slot < SHARDS_SLOTS;
             slot++)
                slots[slot / 8] |= (uint8_t)(1u << slot % 8);
}

bool cluster_slots(struct redis_context *ctx, uint8_t *slots)
{
        enum {
                WORDS_BEFORE = 8, /* id, address, flags, primary, ping, pong, epoch, link */
        };
        size_t len = 0;
        struct redis_reply *reply = redis.Call(ctx, "CLUSTER", "c", "NODES");
        const char *text = reply == NULL ? NULL : redis.CallReplyStringPtr(reply, &len);
        const char *at = text == NULL ? NULL : memmem(text, len, "myself", 6);
        const char *end = at == NULL ? NULL : memchr(at, '\n', (size_t)(text + len - at));
        memset(slots, 0, SHARDS_SLOTS / 8);
        unsigned word = 2; /* flags */
        while (end != NULL && (at = memchr(at, ' ', (size_t)(end - at))) != NULL) {
                at++;
                if (++word >= WORDS_BEFORE)
                        slots_word(at, slots);
        }
        if (reply != NULL)
                redis.FreeCallReply(reply);
        return end != NULL;
}

bool cluster_answers(struct redis_context *ctx, struct bytes key)
{
        struct redis_string *string =
                redis.CreateString(NULL, key.len == 0 ? "" : (const char *)key.ptr, key.len);
        errno = 0;
        struct redis_reply *reply = redis.Call(ctx, "EXISTS", "s", string);
        int why = errno;
        bool answers = reply != NULL;
        if (answers)
                redis.FreeCallReply(reply);
        redis.FreeString(NULL, string);
        errno = why;
        return answers;
}

/* The server judges: by its slots, and while a slot moves, by whether the key is still here. Where
 * it answers nobody (cluster_serves), this tells nothing. */
static bool key_is_here(struct redis_context *ctx, struct bytes key)
{
        return cluster_answers(ctx, key) || errno != EPERM;
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
