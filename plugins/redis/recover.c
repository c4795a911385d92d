/* recover.c - gives stamps to content that has none: keys whose LOG record was lost with the end of
 * the AOF, keys of a snapshot that a server without the module wrote, changes that no notification
 * explained. The whole key is written anew as of now: its old content is deleted as far as it was
 * observed, then what Redis holds is added. */
#include "plugin.h"

static void changed(enum err err, const struct keyspace_change *change)
{
        plugin_must(err, "a recovered key");
        local_changed(change);
}

static void stamp_key(struct redis_context *ctx, struct crdt_name name)
{
        redis.SelectDb(ctx, (int)name.db);
        struct redis_string *string = redis.CreateString(
                NULL, name.key.len == 0 ? "" : (const char *)name.key.ptr, name.key.len);
        replace_key(ctx, name, string);
        promote_stamped(name);
        plugin.stamped_anew++;
        redis.FreeString(NULL, string);
}

static void each_listed(struct buffer *list, struct redis_context *ctx,
                        void (*call)(struct redis_context *ctx, struct crdt_name name))
{
        struct buffer taken = *list;
        buffer_init(list, &plugin.heap);
        struct cursor cursor = cursor_of(buffer_view(&taken));
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                struct crdt_name name = local_listed(&cursor);
                if (!cursor_failed(&cursor))
                        call(ctx, name);
        }
        buffer_fini(&taken);
}

/* A log lists a key as often as it was written: each is stamped once. */
static struct bytes stamped_last;

static void stamp_listed(struct redis_context *ctx, struct crdt_name name)
{
        if (name.key.len > 0 && bytes_equal(stamped_last, name.key))
                return;
        stamped_last = name.key;
        stamp_key(ctx, name);
}

void local_stamp_dirty(struct redis_context *ctx)
{
        stamped_last = bytes_of(NULL, 0);
        each_listed(&plugin.dirty, ctx, stamp_listed);
        stamped_last = bytes_of(NULL, 0);
        promote_end();
}

static bool is_absent(struct redis_context *ctx, struct crdt_name name)
{
        redis.SelectDb(ctx, (int)name.db);
        struct redis_string *string = redis.CreateString(
                NULL, name.key.len == 0 ? "" : (const char *)name.key.ptr, name.key.len);
        struct redis_key *open = redis.OpenKey(ctx, string, REDIS_READ);
        redis.FreeString(NULL, string);
        if (open == NULL)
                return true;
        redis.CloseKey(open);
        return false;
}

static void expired_listed(struct redis_context *ctx, struct crdt_name name)
{
        struct keyspace_change change;
        if (is_absent(ctx, name))
                changed(keyspace_local_expired(plugin.keyspace, plugin_now_ms(), name, &change),
                        &change);
}

void local_expire_listed(struct redis_context *ctx)
{
        each_listed(&plugin.expired, ctx, expired_listed);
}

static void adopt(struct redis_context *ctx, struct redis_string *string, struct redis_key *open,
                  void *data)
{
        (void)open;
        (void)data;
        struct crdt_name name = {(uint32_t)redis.GetSelectedDb(ctx), plugin_bytes(string)};
        struct keyspace_key key;
        if (!keyspace_find(plugin.keyspace, name, &key) || key.type == CRDT_NONE)
                local_dirty(&plugin.dirty, name);
}

void local_adopt_all(struct redis_context *ctx)
{
        for (int db = 0; db <= CRDT_DB_MAX && redis.SelectDb(ctx, db) == REDIS_OK; db++) {
                struct redis_cursor *cursor = redis.ScanCursorCreate();
                while (redis.Scan(ctx, cursor, adopt, NULL) != 0)
                        continue;
                redis.ScanCursorDestroy(cursor);
        }
        redis.SelectDb(ctx, 0);
}

static void expire_due(void *context, const struct keyspace_key *key)
{
        (void)context;
        plugin.many_dbs = plugin.many_dbs || key->name.db != 0;
        if (key->expire_at_ms != 0 && key->expire_at_ms <= plugin_now_ms())
                local_dirty(&plugin.expired, key->name);
}

void local_expire_unloaded(struct redis_context *ctx)
{
        uint64_t cursor = 0;
        plugin.many_dbs = false;
        do
                cursor = keyspace_each(plugin.keyspace, cursor, 1024, expire_due, NULL);
        while (cursor != 0);
        local_expire_listed(ctx);
}
