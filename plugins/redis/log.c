/* log.c - MERIDIAN.LOG: the metadata of local changes, for the AOF and for replicas.
 *
 *   a delta of this region        as keyspace/record.h has it; one that is cut is a SET without its
 *                                 value, or an HSET of one field without the value's bytes: it is
 *                                 what Redis holds
 *   varint 0, u32 db, slice key   the key was evicted
 *   varint 1, u8 kind, ...        enum log_kind
 *
 * The native commands stand in the log before it and have made the values; the record adds what the
 * keyspace must remember of them. Replay changes no value. A malformed record is an error reply,
 * which a server that loads its AOF reports and goes on. */
#include "plugin.h"

#include "keyspace/record.h"

enum log_kind {
        LOG_MARK = 1, /* u64 position that was told */
        LOG_BEFORE,   /* slice: what the increment that follows was the first to be added to */
        LOG_FORGET,   /* u32 db, slice key: it has gone to another server of the region */
        LOG_MOVED,    /* u64 clock, slice state: a key has come from one */
        LOG_NEAR = RECORD_NEAR, /* see record.h */
        LOG_SEEN,               /* slice: how far that server was, where it was less than here */
};

static struct record record; /* of plugin.pending */

static struct buffer *pending_open(void)
{
        if (plugin.pending.len == 0)
                record = (struct record){0};
        return &plugin.pending;
}

bool log_flush(struct redis_context *ctx)
{
        if (plugin.pending.len == 0)
                return true;
        /* While clients are paused nothing may be propagated; nothing leaves by TAIL either. */
        if (redis.AvoidReplicaTraffic())
                return false;
        struct bytes pending = buffer_view(&plugin.pending);
        CHECK(redis.Replicate(ctx, "meridian.log", "b", pending.ptr, pending.len) == REDIS_OK);
        buffer_trim(&plugin.pending, PLUGIN_PENDING_BYTES_MAX);
        return true;
}

static enum err replay_gone(struct cursor *cursor)
{
        struct crdt_name name = local_listed(cursor);
        return cursor_failed(cursor) ? cursor->err : keyspace_key_gone(plugin.keyspace, name);
}

static enum err replay_forget(struct cursor *cursor)
{
        struct crdt_name name = local_listed(cursor);
        if (cursor_failed(cursor))
                return cursor->err;
        keyspace_forget(plugin.keyspace, name);
        promote_good(name);
        return ERR_NONE;
}

static void skip_kind(struct cursor *cursor, uint8_t kind)
{
        if (kind == LOG_FORGET)
                cursor_u32(cursor);
        else if (kind == LOG_MARK || kind == LOG_MOVED)
                cursor_u64(cursor);
        if (kind != LOG_MARK)
                cursor_slice(cursor);
}

/* A reservation of the clock is no delta of the stream. */
static bool head_read(struct bytes delta, struct crdt_name *ret_name, struct log_unsaid *unsaid)
{
        struct cursor cursor = cursor_of(delta);
        uint64_t clock = cursor_u64(&cursor);
        enum crdt_op op = crdt_op_read(&cursor, NULL);
        ret_name->db = (uint32_t)cursor_varint_max(&cursor, CRDT_DB_MAX);
        ret_name->key = cursor_slice(&cursor);
        bool life = op == CRDT_OP_LIFE;
        if (life && cursor_u8(&cursor) == CRDT_LIFE_RESERVED)
                return false;
        CHECK(!cursor_failed(&cursor));
        if (!unsaid->any || clock < unsaid->first)
                unsaid->first = clock;
        unsaid->any = true;
        bool keyless = life || op == CRDT_OP_SEEN;
        bool adds = op == CRDT_OP_SADD || op == CRDT_OP_ZADD || op == CRDT_OP_EVENT;
        unsaid->changed = unsaid->changed || (!keyless && !adds);
        return !keyless && op != CRDT_OP_FLUSH;
}

void log_pending(struct log_unsaid *ret, void (*each)(struct crdt_name name))
{
        struct record_read read;
        enum record_frame frame;
        struct bytes delta;
        uint8_t kind;
        *ret = (struct log_unsaid){0};
        record_begin(&read, &plugin.heap, buffer_view(&plugin.pending));
        while ((frame = record_next(&read, &delta, &kind)) != RECORD_END) {
                struct crdt_name name = {0};
                bool named = frame == RECORD_ZERO;
                if (frame == RECORD_KIND) {
                        skip_kind(&read.cursor, kind);
                } else if (named) {
                        name = local_listed(&read.cursor);
                } else {
                        named = head_read(delta, &name, ret);
                }
                if (named && !cursor_failed(&read.cursor))
                        each(name);
        }
        CHECK(read.cursor.err == ERR_NONE);
        record_end(&read);
}

static enum err replay_moved(struct cursor *cursor)
{
        uint64_t clock = cursor_u64(cursor);
        struct bytes state = cursor_slice(cursor);
        if (cursor_failed(cursor))
                return cursor->err;
        enum err err = keyspace_clock_observe(plugin.keyspace, hlc_ms(clock), clock);
        return err != ERR_NONE ? err : keyspace_move_in(plugin.keyspace, NULL, state);
}

static enum err replay_seen(struct cursor *cursor)
{
        bool less;
        struct bytes seen = cursor_slice(cursor);
        return cursor_failed(cursor) ? cursor->err : keyspace_seen_in(plugin.keyspace, seen, &less);
}

static enum err replay_kind(struct cursor *cursor, uint8_t kind, struct bytes *ret_before)
{
        if (kind == LOG_BEFORE)
                *ret_before = cursor_slice(cursor);
        if (cursor_failed(cursor) || kind == LOG_BEFORE)
                return cursor->err;
        if (kind == LOG_FORGET)
                return replay_forget(cursor);
        if (kind == LOG_MOVED)
                return replay_moved(cursor);
        if (kind == LOG_SEEN)
                return replay_seen(cursor);
        if (kind != LOG_MARK)
                return ERR_VERSION;
        uint64_t position = cursor_u64(cursor);
        if (cursor_failed(cursor))
                return cursor->err;
        keyspace_marked(plugin.keyspace, position);
        return ERR_NONE;
}

static void pending_name(struct buffer *pending, struct crdt_name name)
{
        buffer_u32(pending, name.db);
        buffer_slice(pending, name.key);
        plugin_must(pending->err, "the log");
}

static struct buffer *pending_kind(enum log_kind kind)
{
        struct buffer *pending = pending_open();
        buffer_varint(pending, 1);
        buffer_u8(pending, (uint8_t)kind);
        return pending;
}

static void pending_close(void)
{
        plugin_must(plugin.pending.err, "the log");
}

void log_mark(uint64_t position)
{
        buffer_u64(pending_kind(LOG_MARK), position);
        pending_close();
}

void log_forget(struct crdt_name name)
{
        pending_name(pending_kind(LOG_FORGET), name);
}

void log_moved(uint64_t clock, struct bytes state)
{
        struct buffer *pending = pending_kind(LOG_MOVED);
        buffer_u64(pending, clock);
        buffer_slice(pending, state);
        pending_close();
}

void log_seen(struct bytes seen)
{
        buffer_slice(pending_kind(LOG_SEEN), seen);
        pending_close();
}

void log_before(struct bytes text)
{
        buffer_slice(pending_kind(LOG_BEFORE), text);
        pending_close();
}

void log_gone(struct crdt_name name)
{
        struct buffer *pending = pending_open();
        buffer_varint(pending, 0);
        pending_name(pending, name);
}

void log_frame(struct bytes delta, bool cut)
{
        record_add(&record, pending_open(), delta, cut);
        pending_close();
}

static enum err uncut_set(const struct crdt_native *native, struct bytes delta,
                          struct buffer *whole)
{
        struct crdt_delta decoded;
        struct bytes value = {0};
        enum err err = crdt_delta_decode(delta, plugin.config.origin, &decoded);
        if (err != ERR_NONE || decoded.op != CRDT_OP_SET)
                return ERR_MALFORMED;
        buffer_bytes(whole, delta);
        if (native->string_get(native->context, decoded.name, &value))
                buffer_bytes(whole, value);
        return ERR_NONE;
}

static enum err uncut_hset(const struct crdt_native *native, struct bytes delta,
                           struct buffer *whole)
{
        struct bytes value = {0};
        struct cursor cursor = cursor_of(delta);
        cursor_bytes(&cursor, KEYSPACE_OP_BODY);
        struct crdt_name name = {.db = (uint32_t)cursor_varint_max(&cursor, CRDT_DB_MAX)};
        name.key = cursor_slice(&cursor);
        uint64_t count = cursor_varint(&cursor);
        struct bytes field = cursor_slice(&cursor);
        size_t len = delta.len - cursor_left(&cursor);
        cursor_varint(&cursor);
        if (cursor_done(&cursor) != ERR_NONE || count != 1)
                return ERR_MALFORMED;
        buffer_bytes(whole, bytes_of(delta.ptr, len));
        if (!native->hash_get(native->context, name, field, &value))
                value = (struct bytes){0};
        buffer_slice(whole, value);
        return ERR_NONE;
}

/* The whole delta of a cut one. */
static enum err uncut(const struct crdt_native *native, struct bytes delta, struct buffer *whole)
{
        bool hset = delta.len > 8 && (delta.ptr[8] & 0x0f) == CRDT_OP_HSET;
        return hset ? uncut_hset(native, delta, whole) : uncut_set(native, delta, whole);
}

/* Where the key was written again later, the value is the later one's, and so is its stamp. */
static enum err replay_cut(const struct crdt_native *native, struct bytes delta)
{
        struct keyspace_result result;
        struct buffer whole;
        buffer_init(&whole, &plugin.heap);
        enum err err = uncut(native, delta, &whole);
        plugin_must(whole.err, "a value");
        if (err == ERR_NONE)
                err = keyspace_replay(plugin.keyspace, native, buffer_view(&whole),
                                      (struct bytes){0}, &result);
        buffer_fini(&whole);
        return err;
}

static enum err replay_frames(const struct crdt_native *native, struct record_read *read)
{
        struct bytes before = {0};
        for (;;) {
                struct keyspace_result result;
                struct bytes delta = {0};
                uint8_t kind = 0;
                enum err err = ERR_NONE;
                enum record_frame frame = record_next(read, &delta, &kind);
                switch (frame) {
                case RECORD_END:
                        return read->cursor.err;
                case RECORD_ZERO:
                        err = replay_gone(&read->cursor);
                        break;
                case RECORD_KIND:
                        err = replay_kind(&read->cursor, kind, &before);
                        break;
                case RECORD_CUT:
                        err = replay_cut(native, delta);
                        break;
                case RECORD_DELTA:
                        err = keyspace_replay(plugin.keyspace, native, delta, before, &result);
                        break;
                }
                if (err != ERR_NONE)
                        return err;
                if (frame != RECORD_KIND)
                        before = (struct bytes){0};
        }
}

static enum err replay(struct redis_context *ctx, struct bytes bytes)
{
        struct record_read read;
        record_begin(&read, &plugin.heap, bytes);
        enum err err = replay_frames(native_of(ctx), &read);
        record_end(&read);
        return err;
}

int log_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        if (argc != 2)
                return redis.WrongArity(ctx);
        int flags = redis.GetContextFlags(ctx);
        if (!plugin.loading && (flags & REDIS_FLAG_REPLICATED) == 0)
                return redis.ReplyWithError(ctx, "MERIDIAN this record comes from the log alone");
        batch_drain();
        plugin.quiet = true;
        plugin.applying = true;
        enum err err = replay(ctx, plugin_bytes(argv[1]));
        native_end();
        plugin.quiet = false;
        plugin.applying = false;
        plugin.log_seen = true;
        flush_logged();
        buffer_reset(&plugin.dirty);
        buffer_reset(&plugin.expired);
        if (err != ERR_NONE) {
                redis.Log(ctx, "warning", "a MERIDIAN.LOG record is refused: %s", err_text(err));
                return redis.ReplyWithError(ctx, "MERIDIAN the record is malformed");
        }
        redis.ReplicateVerbatim(ctx);
        return redis.ReplyWithSimpleString(ctx, "OK");
}
