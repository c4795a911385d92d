/* feed.c - MERIDIAN.FEED [AFTER cursor] [COUNT n] [PREFIX p] [BLOCK ms]: what changed here, in the
 * order in which it changed, whichever region wrote it.
 *
 * The first FEED begins the feed; until then nothing is kept and nothing is spent. From then on
 * each delta of this region and each one that was merged is a row, in chunks of memory of which the
 * oldest go when there are more than the argument `feed` allows:
 *
 *   u32 len, u8 origin, u8 cut, delta (crdt/crdt.h); of a cut one, only the head
 *
 * A cursor is <life>-<number of the last row that was read>. It is refused with GAP, and the place
 * where the feed begins, where a row behind it is not here any more: it is too old, the server was
 * started anew or has changed its role, or a state transfer has come, which cannot be told as
 * changes. So a reader misses nothing without knowing; it then reads the keys anew. */
#include "base/digits.h"
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
        CHUNK_BYTES = 256 << 10,
        ROW_HEAD = 4 + 1 + 1,
        ROW_VALUE_MAX = 64 << 10, /* longer ones are told without their value */
        REPLY_BYTES = 1 << 20,    /* no more rows beyond it */
        COUNT_DEFAULT = 100,
        COUNT_MAX = 10000,
        CURSOR_SIZE = 48,
};

struct chunk {
        struct chunk *next;
        uint64_t first; /* number of its first row */
        size_t len;
        size_t size;
        uint8_t rows[];
};

/* Rows (dropped, last] are here. */
static struct {
        uint64_t life;
        uint64_t last;
        uint64_t dropped;
        uint64_t woken; /* up to here those that wait have looked */
        size_t bytes;
        struct chunk *oldest;
        struct chunk *newest;
        struct buffer head;
} feed;

struct query {
        uint64_t life;
        uint64_t after;
        uint64_t count;
        uint64_t block_ms;
        bool block;
        struct bytes prefix;
};

struct feed_wait {
        struct block block; /* first: Redis hands it back as that */
        struct query query;
        uint8_t prefix[];
};

/* Where a reader is. */
struct place {
        struct chunk *chunk;
        size_t at;
        uint64_t number; /* of the row at `at` */
};

struct row {
        uint64_t number;
        region_id origin;
        bool cut;
        struct bytes delta;
        uint64_t hlc;
        enum crdt_op op;
        uint32_t db;
        struct bytes key;
};

/* ---- writing */

static void chunk_drop(void)
{
        struct chunk *chunk = feed.oldest;
        feed.oldest = chunk->next;
        feed.bytes -= chunk->size;
        feed.dropped = feed.oldest == NULL ? feed.last : feed.oldest->first - 1;
        if (feed.oldest == NULL)
                feed.newest = NULL;
        heap_free(&plugin.heap, chunk);
}

static struct chunk *chunk_for(size_t len)
{
        struct chunk *chunk = feed.newest;
        if (chunk != NULL && chunk->size - chunk->len >= len)
                return chunk;
        size_t size = len > CHUNK_BYTES ? len : CHUNK_BYTES;
        while (feed.oldest != NULL && feed.bytes + size > plugin.feed_bytes)
                chunk_drop();
        chunk = plugin_array(1, sizeof(*chunk) + size, "the feed");
        *chunk = (struct chunk){.first = feed.last + 1, .size = size};
        if (feed.newest != NULL)
                feed.newest->next = chunk;
        else
                feed.oldest = chunk;
        feed.newest = chunk;
        feed.bytes += size;
        return chunk;
}

static void row_add(region_id origin, bool cut, struct bytes delta)
{
        struct chunk *chunk = chunk_for(ROW_HEAD + delta.len);
        uint8_t *at = chunk->rows + chunk->len;
        uint32_t len = (uint32_t)delta.len;
        memcpy(at, &len, sizeof(len));
        at[4] = origin;
        at[5] = cut;
        memcpy(at + ROW_HEAD, delta.ptr, delta.len);
        chunk->len += ROW_HEAD + delta.len;
        feed.last++;
}

static bool head_read(struct bytes delta, struct row *row)
{
        struct cursor cursor = cursor_of(delta);
        row->hlc = cursor_u64(&cursor);
        row->op = crdt_op_read(&cursor, NULL);
        row->db = (uint32_t)cursor_varint_max(&cursor, CRDT_DB_MAX);
        row->key = cursor_slice(&cursor);
        return !cursor_failed(&cursor);
}

void feed_tell(region_id origin, struct bytes delta)
{
        struct row row;
        if (!head_read(delta, &row) || row.op == CRDT_OP_SEEN || row.op == CRDT_OP_LIFE)
                return;
        if (delta.len <= ROW_VALUE_MAX) {
                row_add(origin, false, delta);
                return;
        }
        buffer_reset(&feed.head);
        crdt_delta_head(&feed.head, row.hlc, row.op, 0, (struct crdt_name){row.db, row.key});
        plugin_must(feed.head.err, "the feed");
        row_add(origin, true, buffer_view(&feed.head));
}

void feed_merged(region_id origin, uint64_t before, uint64_t position, struct bytes deltas)
{
        struct cursor cursor = cursor_of(deltas);
        while (plugin.feeding && cursor_left(&cursor) > 0) {
                struct bytes delta = cursor_slice(&cursor);
                struct cursor head = cursor_of(delta);
                uint64_t hlc = cursor_u64(&head);
                if (cursor_failed(&cursor) || cursor_failed(&head) || hlc > position)
                        return;
                if (hlc > before)
                        feed_add(origin, delta);
        }
}

void feed_break(void)
{
        while (feed.oldest != NULL)
                chunk_drop();
        feed.dropped = ++feed.last; /* who had read all has not read this */
}

void feed_reset(void)
{
        while (feed.oldest != NULL)
                chunk_drop();
        if (feed.head.heap == NULL)
                buffer_init(&feed.head, &plugin.heap);
        redis.GetRandomBytes((unsigned char *)&feed.life, sizeof(feed.life));
        plugin.feeding = false;
        feed.last = feed.dropped = 0;
        feed.woken = UINT64_MAX; /* who waits is to hear of it */
}

/* ---- reading */

static struct place place_of(uint64_t number)
{
        struct place place = {.chunk = feed.oldest};
        while (place.chunk != NULL && place.chunk->next != NULL &&
               place.chunk->next->first <= number)
                place.chunk = place.chunk->next;
        place.number = place.chunk == NULL ? 0 : place.chunk->first;
        while (place.chunk != NULL && place.number < number) {
                uint32_t len;
                memcpy(&len, place.chunk->rows + place.at, sizeof(len));
                place.at += ROW_HEAD + len;
                place.number++;
        }
        return place;
}

/* The row there, and the place behind it; false at the end. */
static bool place_next(struct place *place, struct row *ret)
{
        if (place->chunk != NULL && place->at == place->chunk->len) {
                place->chunk = place->chunk->next;
                place->at = 0;
        }
        if (place->chunk == NULL || place->at == place->chunk->len)
                return false;
        const uint8_t *at = place->chunk->rows + place->at;
        uint32_t len;
        memcpy(&len, at, sizeof(len));
        *ret = (struct row){.number = place->number, .origin = at[4], .cut = at[5] != 0};
        ret->delta = bytes_of(at + ROW_HEAD, len);
        CHECK(head_read(ret->delta, ret));
        place->at += ROW_HEAD + len;
        place->number++;
        return true;
}

/* The next row that the query wants. What it does not want is behind it then. */
static bool next_wanted(struct query *query, struct place *place, struct row *ret)
{
        while (place_next(place, ret)) {
                if (bytes_starts_with(ret->key, query->prefix))
                        return true;
                query->after = ret->number;
        }
        return false;
}

static bool is_gap(const struct query *query)
{
        return query->life != feed.life || query->after < feed.dropped || query->after > feed.last;
}

/* ---- replies */

static void cursor_text(uint64_t number, char *text)
{
        snprintf(text, CURSOR_SIZE, "%016llx-%llu", (unsigned long long)feed.life,
                 (unsigned long long)number);
}

static void reply_text(struct redis_context *ctx, const char *text)
{
        redis.ReplyWithStringBuffer(ctx, text, strlen(text));
}

static void reply_bytes(struct redis_context *ctx, struct bytes bytes)
{
        redis.ReplyWithStringBuffer(ctx, bytes.len == 0 ? "" : (const char *)bytes.ptr, bytes.len);
}

/* Each replies with what the operation says and returns how many elements that is. */
static long tell_value(struct redis_context *ctx, const struct crdt_delta *delta)
{
        reply_bytes(ctx, delta->value);
        redis.ReplyWithLongLong(ctx, (long long)delta->expire_at_ms);
        return 2;
}

static long tell_message(struct redis_context *ctx, const struct crdt_delta *delta)
{
        reply_bytes(ctx, delta->value);
        return 1;
}

static long tell_expire(struct redis_context *ctx, const struct crdt_delta *delta)
{
        redis.ReplyWithLongLong(ctx, (long long)delta->expire_at_ms);
        return 1;
}

static long tell_slices(struct redis_context *ctx, const struct crdt_delta *delta)
{
        long count = 0;
        struct cursor cursor = cursor_of(delta->list);
        for (; cursor_left(&cursor) > 0 && !cursor_failed(&cursor); count++)
                reply_bytes(ctx, cursor_slice(&cursor));
        return count;
}

static long tell_removed(struct redis_context *ctx, const struct crdt_delta *delta)
{
        long count = 0;
        struct cursor cursor = cursor_of(delta->list);
        for (; cursor_left(&cursor) > 0 && !cursor_failed(&cursor); count++) {
                reply_bytes(ctx, cursor_slice(&cursor));
                uint64_t dots = cursor_varint_max(&cursor, CLOCK_REGIONS_MAX);
                cursor_bytes(&cursor, (size_t)dots * 9);
        }
        return count;
}

static long tell_scores(struct redis_context *ctx, const struct crdt_delta *delta)
{
        long count = 0;
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++, count += 2) {
                char text[40];
                reply_bytes(ctx, cursor_slice(&cursor));
                snprintf(text, sizeof(text), "%.17g", crdt_score_read(&cursor));
                reply_text(ctx, text);
        }
        return count;
}

/* Behind each member stands what was seen of it, which only a decoder knows the length of. */
static long tell_scores_removed(struct redis_context *ctx, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++)
                reply_bytes(ctx, crdt_score_seen_read(&cursor));
        return (long)delta->list_count;
}

static const struct {
        const char *name;
        const char *type;
        long (*tell)(struct redis_context *ctx, const struct crdt_delta *delta);
} operations[CRDT_OP_END] = {
        [CRDT_OP_SET] = {"set", "string", tell_value},
        [CRDT_OP_SIBLING] = {"set", "string", tell_value},
        [CRDT_OP_COUNT] = {"incr", "string", NULL},
        [CRDT_OP_DEL] = {"del", "", NULL},
        [CRDT_OP_EXPIRED] = {"expired", "", NULL},
        [CRDT_OP_EXPIRE] = {"expire", "", tell_expire},
        [CRDT_OP_HSET] = {"hset", "hash", tell_slices},
        [CRDT_OP_HCOUNT] = {"hincrby", "hash", NULL},
        [CRDT_OP_HDEL] = {"hdel", "hash", tell_slices},
        [CRDT_OP_SADD] = {"sadd", "set", tell_slices},
        [CRDT_OP_SREM] = {"srem", "set", tell_removed},
        [CRDT_OP_ZADD] = {"zadd", "zset", tell_scores},
        [CRDT_OP_ZREM] = {"zrem", "zset", tell_scores_removed},
        [CRDT_OP_ZCOUNT] = {"zincrby", "zset", NULL},
        [CRDT_OP_OPAQUE] = {"restore", "", NULL},
        [CRDT_OP_LIST_INSERT] = {"insert", "list", NULL},
        [CRDT_OP_LIST_REMOVE] = {"remove", "list", NULL},
        [CRDT_OP_HLL] = {"pfadd", "hyperloglog", NULL},
        [CRDT_OP_STREAM_ADD] = {"xadd", "stream", NULL},
        [CRDT_OP_STREAM_REMOVE] = {"xdel", "stream", NULL},
        [CRDT_OP_FLUSH] = {"flushdb", "", NULL},
        [CRDT_OP_EVENT] = {"publish", "channel", tell_message},
};

static void reply_row(struct redis_context *ctx, const struct row *row)
{
        char text[CURSOR_SIZE];
        long count = 7;
        struct crdt_delta delta = {.flags = 0};
        bool whole = !row->cut && crdt_delta_decode(row->delta, row->origin, &delta) == ERR_NONE;
        bool removal = row->op == CRDT_OP_SIBLING && (delta.flags & CRDT_FLAG_REMOVED) != 0;
        bool known = operations[row->op].name != NULL;
        cursor_text(row->number, text);
        redis.ReplyWithArray(ctx, REDIS_POSTPONED_LEN);
        reply_text(ctx, text);
        redis.ReplyWithLongLong(ctx, row->origin);
        redis.ReplyWithLongLong(ctx, (long long)hlc_ms(row->hlc));
        redis.ReplyWithLongLong(ctx, row->db);
        reply_bytes(ctx, row->key);
        reply_text(ctx, removal ? "del" : known ? operations[row->op].name : "change");
        reply_text(ctx, removal || !known ? "" : operations[row->op].type);
        if (whole && !removal && operations[row->op].tell != NULL)
                count += operations[row->op].tell(ctx, &delta);
        redis.ReplySetArrayLength(ctx, count);
}

static int reply_dropped(struct redis_context *ctx)
{
        char cursor[CURSOR_SIZE];
        char text[CURSOR_SIZE + 32];
        cursor_text(feed.dropped, cursor);
        snprintf(text, sizeof(text), "GAP feed begins at %s", cursor);
        return redis.ReplyWithError(ctx, text);
}

/* How many rows fit into one reply; the query is behind them then. */
static uint64_t rows_fitting(struct query *query)
{
        struct row row;
        uint64_t count = 0;
        size_t bytes = 0;
        struct place place = place_of(query->after + 1);
        while (count < query->count && bytes < REPLY_BYTES && next_wanted(query, &place, &row)) {
                query->after = row.number;
                bytes += row.delta.len;
                count++;
        }
        return count;
}

/* Replies with what there is, which may be nothing. */
static int reply_rows(struct redis_context *ctx, const struct query *asked)
{
        char text[CURSOR_SIZE];
        struct row row;
        struct query query = *asked;
        if (is_gap(&query))
                return reply_dropped(ctx);
        uint64_t count = rows_fitting(&query);
        struct place place = place_of(asked->after + 1);
        cursor_text(query.after, text);
        redis.ReplyWithArray(ctx, 2);
        reply_text(ctx, text);
        redis.ReplyWithArray(ctx, (long)count);
        for (query.after = asked->after; count > 0; count--) {
                CHECK(next_wanted(&query, &place, &row));
                reply_row(ctx, &row);
        }
        return REDIS_OK;
}

/* ---- waiting */

static int feed_answer(struct redis_context *ctx, struct block *block)
{
        return reply_rows(ctx, &((struct feed_wait *)block)->query);
}

static bool has_wanted(struct query *query)
{
        struct row row;
        struct place place = place_of(query->after + 1);
        return next_wanted(query, &place, &row);
}

static bool feed_done(struct block *block)
{
        struct query *query = &((struct feed_wait *)block)->query;
        return is_gap(query) || has_wanted(query);
}

void feed_wake(void)
{
        if (feed.woken == feed.last)
                return;
        feed.woken = feed.last;
        block_each(feed_answer, feed_done);
}

/* ---- the command */

static bool read_cursor(struct bytes text, struct query *query)
{
        char copy[CURSOR_SIZE];
        uint64_t number;
        char *end;
        query->life = feed.life;
        query->after = feed.last;
        if (bytes_equal(text, BYTES("$")))
                return true;
        query->after = feed.dropped;
        if (bytes_equal(text, BYTES("-")))
                return true;
        if (text.len >= sizeof(copy) || text.len < 18 || text.ptr[16] != '-')
                return false;
        memcpy(copy, text.ptr, text.len);
        copy[text.len] = 0;
        unsigned long long life = strtoull(copy, &end, 16);
        if (end != copy + 16 ||
            !digits_parse(bytes_of(text.ptr + 17, text.len - 17), UINT64_MAX, &number))
                return false;
        query->life = life;
        query->after = number;
        return true;
}

static bool word_is(struct bytes word, const char *name)
{
        return word.len == strlen(name) && strncasecmp((const char *)word.ptr, name, word.len) == 0;
}

static bool read_query(struct redis_string **argv, int argc, struct query *query)
{
        bool good = argc % 2 == 1 && read_cursor(BYTES("$"), query);
        for (int i = 1; good && i + 1 < argc; i += 2) {
                struct bytes word = plugin_bytes(argv[i]);
                if (word_is(word, "after")) {
                        good = read_cursor(plugin_bytes(argv[i + 1]), query);
                } else if (word_is(word, "count")) {
                        good = argument_u64(argv[i + 1], COUNT_MAX, &query->count) &&
                               query->count > 0;
                } else if (word_is(word, "prefix")) {
                        query->prefix = plugin_bytes(argv[i + 1]);
                } else if (word_is(word, "block")) {
                        query->block = argument_u64(argv[i + 1], INT32_MAX, &query->block_ms);
                        good = query->block;
                } else {
                        good = false;
                }
        }
        return good;
}

int feed_command(struct redis_context *ctx, struct redis_string **argv, int argc)
{
        struct query query = {.count = COUNT_DEFAULT};
        if (plugin.feed_bytes == 0)
                return redis.ReplyWithError(ctx, "MERIDIAN the feed is off: the module was loaded "
                                                 "with 'feed 0'");
        if (plugin.replica)
                return redis.ReplyWithError(ctx, "MERIDIAN a replica has no feed; ask the primary");
        batch_drain();
        plugin.feeding = true;
        if (!read_query(argv, argc, &query))
                return redis.ReplyWithError(
                        ctx, "ERR usage: MERIDIAN.FEED [AFTER cursor|$|-] [COUNT 1..10000] [PREFIX "
                             "prefix] [BLOCK ms]");
        if (!query.block || !block_allowed(ctx) || is_gap(&query) || has_wanted(&query))
                return reply_rows(ctx, &query);
        struct feed_wait *wait =
                plugin_array(1, sizeof(*wait) + query.prefix.len, "a wait for the feed");
        *wait = (struct feed_wait){.block.answer = feed_answer, .query = query};
        if (query.prefix.len > 0)
                memcpy(wait->prefix, query.prefix.ptr, query.prefix.len);
        wait->query.prefix = bytes_of(wait->prefix, query.prefix.len);
        return block_client(ctx, &wait->block, query.block_ms);
}
