/* log.c - MERIDIAN.LOG: the metadata of local changes, for the AOF and for replicas.
 *
 *   varint len, delta      a delta of this region
 *   varint 0, u32 db, slice key   the key was evicted
 *
 * The native commands stand in the log before it and have made the values; the record adds what the
 * keyspace must remember of them. Replay changes no value. A malformed record is an error reply,
 * which a server that loads its AOF reports and goes on. */
#include "plugin.h"

bool log_flush(struct redis_context *ctx)
{
        if (plugin.pending.len == 0)
                return true;
        /* While clients are paused nothing may be propagated; nothing leaves by TAIL either. */
        if (redis.AvoidReplicaTraffic())
                return false;
        struct bytes pending = buffer_view(&plugin.pending);
        CHECK(redis.Replicate(ctx, "meridian.log", "b", pending.ptr, pending.len) == REDIS_OK);
        buffer_reset(&plugin.pending);
        return true;
}

static enum err replay_gone(struct cursor *cursor)
{
        struct crdt_name name = {.db = cursor_u32(cursor)};
        name.key = cursor_slice(cursor);
        return cursor_failed(cursor) ? cursor->err : keyspace_key_gone(plugin.keyspace, name);
}

static enum err replay(struct redis_context *ctx, struct bytes record)
{
        struct cursor cursor = cursor_of(record);
        enum err err = ERR_NONE;
        while (err == ERR_NONE && cursor_left(&cursor) > 0) {
                struct bytes delta = cursor_slice(&cursor);
                struct keyspace_result result;
                if (cursor_failed(&cursor))
                        break;
                if (delta.len == 0)
                        err = replay_gone(&cursor);
                else
                        err = keyspace_replay(plugin.keyspace, native_of(ctx), delta, &result);
        }
        return err != ERR_NONE ? err : cursor.err;
}

int log_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        if (argc != 2)
                return redis.WrongArity(ctx);
        int flags = redis.GetContextFlags(ctx);
        if (!plugin.loading && (flags & REDIS_FLAG_REPLICATED) == 0)
                return redis.ReplyWithError(ctx, "MERIDIAN this record comes from the log alone");
        plugin.quiet = true;
        plugin.applying = true;
        enum err err = replay(ctx, plugin_bytes(argv[1]));
        plugin.quiet = false;
        plugin.applying = false;
        plugin.log_seen = true;
        buffer_reset(&plugin.dirty);
        buffer_reset(&plugin.expired);
        if (err != ERR_NONE) {
                redis.Log(ctx, "warning", "a MERIDIAN.LOG record is refused: %s", err_text(err));
                return redis.ReplyWithError(ctx, "MERIDIAN the record is malformed");
        }
        redis.ReplicateVerbatim(ctx);
        return redis.ReplyWithSimpleString(ctx, "OK");
}
