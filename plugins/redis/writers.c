/* writers.c - up to where each client has written our stream, for those who wait for their own
 * writes alone (wait.c). Off, at the cost of a look at one flag a command, until somebody waits.
 *
 *   filter: another client's command -> what was written since the last change of clients is the
 *                                       former one's; the end of the turn is such a change
 *   wait:   what the table says of the client; where it says nothing, the floor
 *
 * The table is bounded: who makes room raises the floor, below which everybody who is not in it
 * has written. A client whose write may come after it has given way (it blocks, or its key is
 * stamped at the end of the turn) is *open*, and has written everything up to its next command. So
 * what is said may be too much, never too little. Commands that scripts and modules run belong to
 * whose command it is: their own clients are not known by number.
 *
 * A server that does not tell its filters who they are for (Redis 7.0) leaves us nothing to go by:
 * there everybody has written everything. */
#include "plugin.h"

enum {
        SETS = 1024,
        WAYS = 4,
};

struct writer {
        uint64_t client; /* 0: free */
        uint64_t position;
        bool open;
};

static struct {
        struct writer (*table)[WAYS]; /* NULL: nobody has waited yet */
        uint64_t floor;
        uint64_t client; /* whose commands run now; 0: nobody's */
        uint64_t mark;   /* what was written before they did */
        uint64_t inner;  /* the last client that was none: a script's */
        bool blocks;     /* the command that runs may block */
        bool open_lost;  /* one that was open has made room */
} writers;

/* ---- the table */

static struct writer *find(uint64_t client)
{
        struct writer *set = writers.table[client % SETS];
        for (unsigned i = 0; i < WAYS; i++)
                if (set[i].client == client)
                        return &set[i];
        return NULL;
}

/* The place that is given up with the least harm. */
static struct writer *oldest(struct writer *set)
{
        struct writer *found = &set[0];
        for (unsigned i = 1; i < WAYS; i++) {
                bool older = set[i].client == 0 || set[i].position < found->position;
                if (set[i].open == found->open ? found->client != 0 && older : found->open)
                        found = &set[i];
        }
        return found;
}

static struct writer *make(uint64_t client)
{
        struct writer *writer = find(client);
        if (writer != NULL)
                return writer;
        writer = oldest(writers.table[client % SETS]);
        if (writer->client != 0 && writer->position > writers.floor)
                writers.floor = writer->position;
        writers.open_lost = writers.open_lost || writer->open;
        *writer = (struct writer){.client = client};
        return writer;
}

/* ---- who runs */

static void leave(void)
{
        uint64_t now = batch_last();
        bool late = writers.blocks || plugin.dirty.len > 0 || plugin.noted.len > 0;
        if (writers.client != 0 && (now != writers.mark || late)) {
                struct writer *writer = make(writers.client);
                writer->position = now;
                writer->open = late;
        }
        writers.client = 0;
        writers.blocks = false;
        writers.mark = now;
}

static void enter(uint64_t client)
{
        struct writer *writer = find(client);
        writers.client = client;
        if (writer == NULL || !writer->open)
                return;
        writer->position = writers.mark;
        writer->open = false;
}

static bool is_client(uint64_t client)
{
        struct redis_string *name = redis.GetClientUserNameById(plugin.ctx, client);
        if (name == NULL)
                return false;
        redis.FreeString(NULL, name);
        return true;
}

void writers_saw(struct redis_filter_context *ctx, struct bytes name)
{
        uint64_t client = redis.CommandFilterGetClientId(ctx);
        if (client != writers.client) {
                if (client == writers.inner)
                        return;
                if (!is_client(client)) {
                        writers.inner = client;
                        return;
                }
                leave();
                enter(client);
        }
        /* BLPOP and its like; BITOP and the others of that letter lose little by it. */
        writers.blocks = name.len > 0 && (name.ptr[0] | 0x20) == 'b';
}

void writers_turn(void)
{
        if (plugin.writers)
                leave();
}

/* ---- who asks */

void writers_reset(void)
{
        heap_free(&plugin.heap, writers.table);
        memset(&writers, 0, sizeof(writers));
        plugin.writers = false;
}

static void begin(uint64_t position)
{
        writers.table = plugin_array(SETS, sizeof(writers.table[0]), "who writes");
        writers.floor = writers.mark = position;
        plugin.writers = true;
}

uint64_t writers_position(struct redis_context *ctx)
{
        batch_drain();
        zset_settle();
        bool script = (redis.GetContextFlags(ctx) & REDIS_FLAG_LUA) != 0;
        if (plugin.dirty.len > 0 && cluster_serves(plugin.ctx))
                local_stamp_dirty(plugin.ctx);
        if (plugin.dirty.len > 0)
                return INT64_MAX; /* nobody has what is not told yet */
        uint64_t everything = keyspace_ring_last(plugin.keyspace);
        if (redis.CommandFilterGetClientId == NULL || script)
                return everything;
        if (writers.table == NULL)
                begin(everything);
        uint64_t client = redis.GetClientId(ctx);
        if (client == writers.client) {
                leave();
                enter(client);
        }
        const struct writer *writer = find(client);
        if (writer != NULL)
                return writer->position;
        return writers.open_lost ? everything : writers.floor;
}
