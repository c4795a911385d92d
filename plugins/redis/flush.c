/* flush.c - FLUSHDB and FLUSHALL.
 *
 * The command runs wrapped. The server tells that it is about to empty a database, before it does
 * and before it saves an empty snapshot: then the keyspace is told, so that the metadata in that
 * snapshot is right. The server tells the same of a DEBUG RELOAD or a replica's new start, which
 * are no change: only what happens under the wrapped command counts.
 *
 * A log that ends between the command and its LOG record leaves a keyspace that is fuller than the
 * store. So a flush that is replayed without a record puts all keys into `dirty`: what is known and
 * not there is then deleted. */
#include "plugin.h"

static bool flush_runs; /* a client's command is at work */
static bool flush_unlogged;

static void flushed(void *context, const struct keyspace_change *change)
{
        (void)context;
        local_changed(change);
}

static void flush_db(uint32_t db)
{
        plugin_must(keyspace_local_flush(plugin.keyspace, plugin_now_ms(), db, cluster_enabled(),
                                         flushed, NULL),
                    "a flush");
}

struct databases {
        uint64_t used[CRDT_DB_MAX / 64 + 1];
};

static void note_database(void *context, const struct keyspace_key *key)
{
        struct databases *databases = context;
        if (key->type != CRDT_NONE)
                databases->used[key->name.db / 64] |= (uint64_t)1 << key->name.db % 64;
}

static void flush_all(void)
{
        static struct databases databases;
        uint64_t cursor = 0;
        databases = (struct databases){{0}};
        do
                cursor = keyspace_each(plugin.keyspace, cursor, 1024, note_database, &databases);
        while (cursor != 0);
        for (uint32_t db = 0; db <= CRDT_DB_MAX; db++) {
                if ((databases.used[db / 64] >> db % 64 & 1) != 0)
                        flush_db(db);
        }
}

void flush_told(struct redis_context *ctx, struct redis_event event, uint64_t sub, void *data)
{
        (void)ctx;
        (void)event;
        const struct redis_flush *flush = data;
        if (sub != REDIS_FLUSH_BEGIN)
                return;
        if (plugin.loading || plugin.replica) {
                flush_unlogged = true;
                return;
        }
        if (!flush_runs)
                return;
        batch_drain();
        if (flush->db < 0)
                flush_all();
        else
                flush_db((uint32_t)flush->db);
}

int flush_run(struct redis_context *ctx, const struct rule *rule, struct redis_string **argv,
              int argc)
{
        flush_runs = true;
        struct redis_reply *reply =
                redis.Call(ctx, rule->name, "!0CEv", argv + 1, (size_t)(argc - 1));
        flush_runs = false;
        if (reply == NULL)
                return redis.ReplyWithError(ctx, "ERR refused");
        int status = redis.ReplyWithCallReply(ctx, reply);
        redis.FreeCallReply(reply);
        return status;
}

void flush_logged(void)
{
        flush_unlogged = false;
}

static void note_known(void *context, const struct keyspace_key *key)
{
        (void)context;
        if (key->type != CRDT_NONE)
                local_dirty(&plugin.dirty, key->name);
}

void flush_recover(void)
{
        uint64_t cursor = 0;
        if (!flush_unlogged)
                return;
        flush_unlogged = false;
        do
                cursor = keyspace_each(plugin.keyspace, cursor, 1024, note_known, NULL);
        while (cursor != 0);
}
