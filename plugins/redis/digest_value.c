/* digest_value.c - the digest of one value as Redis shows it, by Redis's own commands, a piece at a
 * time: the same for equal values, however they are encoded. HyperLogLogs count by their registers,
 * scores by their number. A stream's consumer groups are its region's own, and do not count;
 * of a type of another module only type and length do. A value that changes while it is read gives
 * a digest of neither, which the caller finds by reading again. */
#include "digest.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        STEP_ITEMS = 64,
        STEP_BYTES = 64 << 10,
        REGISTERS = 16384,
        REGISTER_BITS = 6,
        HLL_HEAD = 16,
        HLL_DENSE_LEN = HLL_HEAD + REGISTERS * REGISTER_BITS / 8,
};

static struct bytes element_text(struct redis_reply *reply, size_t at)
{
        size_t len = 0;
        struct redis_reply *element = redis.CallReplyArrayElement(reply, at);
        const char *text = element == NULL ? NULL : redis.CallReplyStringPtr(element, &len);
        return bytes_of(text, text == NULL ? 0 : len);
}

static bool is_array(struct redis_reply *reply, size_t len_min)
{
        return reply != NULL && redis.CallReplyType(reply) == REDIS_REPLY_ARRAY &&
               redis.CallReplyLength(reply) >= len_min;
}

/* ---- HyperLogLogs */

static bool registers_dense(struct bytes value, uint8_t *ret)
{
        if (value.len < HLL_DENSE_LEN)
                return false;
        for (size_t i = 0; i < REGISTERS; i++) {
                size_t bit = i * REGISTER_BITS;
                const uint8_t *at = value.ptr + HLL_HEAD + bit / 8;
                unsigned two = at[0] | (bit % 8 > 2 ? (unsigned)at[1] << 8 : 0);
                ret[i] = two >> bit % 8 & ((1 << REGISTER_BITS) - 1);
        }
        return true;
}

/* Runs of zeroes (00nnnnnn, 01nnnnnn nnnnnnnn) and of one value (1vvvvvnn). */
static bool registers_sparse(struct bytes value, uint8_t *ret)
{
        size_t filled = 0;
        for (size_t i = HLL_HEAD; i < value.len; i++) {
                uint8_t code = value.ptr[i];
                uint8_t shown = 0;
                size_t run = 0;
                if ((code & 0x80) != 0) {
                        shown = (uint8_t)((code >> 2 & 0x1f) + 1);
                        run = (code & 3u) + 1;
                } else if ((code & 0x40) == 0) {
                        run = (code & 0x3fu) + 1;
                } else if (++i < value.len) {
                        run = ((code & 0x3fu) << 8 | value.ptr[i]) + 1;
                }
                if (run == 0 || run > REGISTERS - filled)
                        return false;
                memset(ret + filled, shown, run);
                filled += run;
        }
        return filled == REGISTERS;
}

static bool hll_piece(struct reading *reading, struct bytes value)
{
        uint8_t *registers = plugin_array(REGISTERS, 1, "registers");
        bool dense = value.len > 4 && value.ptr[4] == 0;
        bool good = dense ? registers_dense(value, registers) : registers_sparse(value, registers);
        if (good)
                reading->sum = verify_shape(reading->name, REDIS_KEY_STRING, REGISTERS,
                                            reading->expire_at_ms) +
                               verify_piece(reading->name, 0, bytes_of(registers, REGISTERS));
        heap_free(&plugin.heap, registers);
        return good;
}

/* ---- one step of each type */

static void step_string(struct reading *reading, struct redis_context *ctx)
{
        size_t len = 0;
        struct redis_reply *reply =
                redis.Call(ctx, "GETRANGE", "sll", reading->key, (long long)reading->at,
                           (long long)reading->at + STEP_BYTES - 1);
        const char *text = reply == NULL ? NULL : redis.CallReplyStringPtr(reply, &len);
        struct bytes piece = bytes_of(text, text == NULL ? 0 : len);
        bool first = reading->at == 0;
        reading->at += piece.len;
        reading->whole = piece.len < STEP_BYTES;
        if (!(first && reading->whole && hll_is(piece) && hll_piece(reading, piece)) &&
            piece.len > 0)
                reading->sum += verify_piece(reading->name, reading->at, piece);
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

/* The number, so that servers may write it in different ways. */
static struct bytes score_of(struct bytes text, double *room)
{
        char copy[64] = "";
        if (text.len < sizeof(copy) && text.len > 0)
                memcpy(copy, text.ptr, text.len);
        *room = strtod(copy, NULL) + 0.0;
        return bytes_of(room, sizeof(*room));
}

static void scanned(struct reading *reading, struct redis_reply *items, unsigned width)
{
        double score;
        for (size_t i = 0; i + width <= redis.CallReplyLength(items); i += width) {
                struct bytes value = width == 2 ? element_text(items, i + 1) : bytes_of("", 0);
                if (reading->type == REDIS_KEY_ZSET)
                        value = score_of(value, &score);
                reading->sum += verify_item(reading->name, element_text(items, i), value);
        }
}

static void step_scan(struct reading *reading, struct redis_context *ctx, const char *command,
                      unsigned width)
{
        struct redis_reply *reply = redis.Call(ctx, command, "sccl", reading->key, reading->cursor,
                                               "COUNT", (long long)STEP_ITEMS);
        reading->whole = true;
        if (is_array(reply, 2)) {
                struct bytes next = element_text(reply, 0);
                if (next.len > 0 && next.len < sizeof(reading->cursor)) {
                        memcpy(reading->cursor, next.ptr, next.len);
                        reading->cursor[next.len] = 0;
                        reading->whole = bytes_equal(next, BYTES("0"));
                }
                scanned(reading, redis.CallReplyArrayElement(reply, 1), width);
        }
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static void step_hash(struct reading *reading, struct redis_context *ctx)
{
        step_scan(reading, ctx, "HSCAN", 2);
}

static void step_set(struct reading *reading, struct redis_context *ctx)
{
        step_scan(reading, ctx, "SSCAN", 1);
}

static void step_zset(struct reading *reading, struct redis_context *ctx)
{
        step_scan(reading, ctx, "ZSCAN", 2);
}

static void step_list(struct reading *reading, struct redis_context *ctx)
{
        struct redis_reply *reply =
                redis.Call(ctx, "LRANGE", "sll", reading->key, (long long)reading->at,
                           (long long)reading->at + STEP_ITEMS - 1);
        size_t count = is_array(reply, 0) ? redis.CallReplyLength(reply) : 0;
        for (size_t i = 0; i < count; i++)
                reading->sum +=
                        verify_piece(reading->name, reading->at + i, element_text(reply, i));
        reading->at += count;
        reading->whole = count < STEP_ITEMS;
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static void entry_add(struct reading *reading, struct redis_reply *entry)
{
        struct bytes id = element_text(entry, 0);
        struct redis_reply *fields = redis.CallReplyArrayElement(entry, 1);
        uint64_t name = verify_item(reading->name, id, bytes_of("", 0));
        size_t count = is_array(fields, 0) ? redis.CallReplyLength(fields) : 0;
        reading->sum += name;
        for (size_t i = 0; i < count; i++)
                reading->sum += verify_piece(name, i, element_text(fields, i));
        snprintf(reading->cursor, sizeof(reading->cursor), "(%.*s", BYTES_ARGS(id));
}

static void step_stream(struct reading *reading, struct redis_context *ctx)
{
        const char *from = reading->at == 0 ? "-" : reading->cursor;
        struct redis_reply *reply = redis.Call(ctx, "XRANGE", "scccl", reading->key, from, "+",
                                               "COUNT", (long long)STEP_ITEMS);
        size_t count = is_array(reply, 0) ? redis.CallReplyLength(reply) : 0;
        for (size_t i = 0; i < count; i++) {
                struct redis_reply *entry = redis.CallReplyArrayElement(reply, i);
                if (is_array(entry, 2))
                        entry_add(reading, entry);
        }
        reading->at += count;
        reading->whole = count < STEP_ITEMS;
        if (reply != NULL)
                redis.FreeCallReply(reply);
}

static const struct {
        unsigned type;
        void (*step)(struct reading *reading, struct redis_context *ctx);
} steps[] = {
        {REDIS_KEY_STRING, step_string}, {REDIS_KEY_HASH, step_hash},
        {REDIS_KEY_SET, step_set},       {REDIS_KEY_ZSET, step_zset},
        {REDIS_KEY_LIST, step_list},     {REDIS_KEY_STREAM, step_stream},
};

void reading_begin(struct reading *reading, struct redis_context *ctx, struct crdt_name name)
{
        *reading = (struct reading){.db = name.db, .cursor = "0"};
        const char *text = name.key.len == 0 ? "" : (const char *)name.key.ptr;
        reading->name = verify_name(name.db, name.key);
        reading->key = redis.CreateString(NULL, text, name.key.len);
        redis.SelectDb(ctx, (int)name.db);
        struct redis_key *open = redis.OpenKey(ctx, reading->key, REDIS_READ);
        reading->whole = open == NULL;
        if (open == NULL)
                return;
        long long expire = redis.GetAbsExpire(open);
        reading->type = (unsigned)redis.KeyType(open);
        reading->length = redis.ValueLength(open);
        reading->expire_at_ms = expire == REDIS_NO_EXPIRE ? 0 : (uint64_t)expire;
        reading->sum =
                verify_shape(reading->name, reading->type, reading->length, reading->expire_at_ms);
        redis.CloseKey(open);
}

void reading_step(struct reading *reading, struct redis_context *ctx)
{
        redis.SelectDb(ctx, (int)reading->db);
        for (size_t i = 0; i < COUNT_OF(steps); i++) {
                if (steps[i].type == reading->type) {
                        steps[i].step(reading, ctx);
                        return;
                }
        }
        reading->whole = true;
}

void reading_end(struct reading *reading)
{
        if (reading->key != NULL)
                redis.FreeString(NULL, reading->key);
        reading->key = NULL;
}
