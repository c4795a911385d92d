/* See shards.h. What comes from the network is checked as it is read: nothing after a damaged
 * delta or key is used, and the caller drops what was split until then. */
#include "keyspace/shards.h"

#include "base/check.h"
#include "keyspace/keyspace_priv.h"

/* CRC-16 of XMODEM: polynomial 0x1021, from 0, not reflected (Redis Cluster Specification,
 * "Key distribution model"). */
static uint16_t crc16(struct bytes data)
{
        unsigned crc = 0;
        for (size_t i = 0; i < data.len; i++) {
                crc ^= (unsigned)data.ptr[i] << 8;
                for (unsigned bit = 0; bit < 8; bit++)
                        crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1;
        }
        return (uint16_t)crc;
}

static struct bytes hash_tag(struct bytes key)
{
        const uint8_t *open = key.len == 0 ? NULL : memchr(key.ptr, '{', key.len);
        if (open == NULL)
                return key;
        size_t left = key.len - (size_t)(open + 1 - key.ptr);
        const uint8_t *close = left == 0 ? NULL : memchr(open + 1, '}', left);
        if (close == NULL || close == open + 1)
                return key;
        return bytes_of(open + 1, (size_t)(close - open - 1));
}

unsigned shards_slot(struct bytes key)
{
        return crc16(hash_tag(key)) % SHARDS_SLOTS;
}

bool shards_op_for_all(enum crdt_op op)
{
        return op == CRDT_OP_SEEN || op == CRDT_OP_FLUSH || op == CRDT_OP_LIFE;
}

/* The begin of a delta. */
struct head {
        uint64_t hlc;
        enum crdt_op op;
        struct bytes key;
};

static enum err head_read(struct bytes delta, struct head *ret)
{
        struct cursor cursor = cursor_of(delta);
        ret->hlc = cursor_u64(&cursor);
        ret->op = crdt_op_read(&cursor, NULL);
        cursor_varint_max(&cursor, CRDT_DB_MAX);
        ret->key = cursor_slice(&cursor);
        return cursor.err;
}

/* Who gets a key; SHARDS_NOBODY where nobody holds its slot. */
static unsigned owner_of(const struct shards_map *map, struct bytes key)
{
        unsigned owner = map->owner[shards_slot(key)];
        return owner < map->count ? owner : SHARDS_NOBODY;
}

enum err shards_split(const struct shards_map *map, struct bytes deltas, struct buffer *parts)
{
        CHECK(map->count >= 1 && map->count <= SHARDS_MAX);
        struct cursor cursor = cursor_of(deltas);
        while (cursor_left(&cursor) > 0) {
                struct head head;
                struct bytes delta = cursor_slice(&cursor);
                enum err err = cursor_failed(&cursor) ? cursor.err : head_read(delta, &head);
                if (err != ERR_NONE)
                        return err;
                bool all = shards_op_for_all(head.op);
                unsigned owner = all ? 0 : owner_of(map, head.key);
                if (owner == SHARDS_NOBODY)
                        return ERR_REFUSED;
                unsigned end = all ? map->count : owner + 1;
                for (unsigned i = owner; i < end; i++) {
                        buffer_slice(&parts[i], delta);
                        if (parts[i].err != ERR_NONE)
                                return parts[i].err;
                }
        }
        return ERR_NONE;
}

/* ---- the streams of all shards as one */

struct reader {
        struct cursor cursor;
        struct bytes delta; /* the next one; len 0: there is none */
        struct head head;
        uint64_t reach;
};

/* Goes to the next delta beyond `after`. */
static enum err reader_next(struct reader *reader, uint64_t after)
{
        for (;;) {
                uint64_t last = reader->head.hlc;
                reader->delta = bytes_of(NULL, 0);
                if (cursor_left(&reader->cursor) == 0)
                        return ERR_NONE;
                struct bytes delta = cursor_slice(&reader->cursor);
                if (cursor_failed(&reader->cursor))
                        return reader->cursor.err;
                enum err err = head_read(delta, &reader->head);
                if (err != ERR_NONE)
                        return err;
                if (reader->head.hlc < last || reader->head.hlc > reader->reach)
                        return ERR_MALFORMED;
                if (reader->head.hlc > after) {
                        reader->delta = delta;
                        return ERR_NONE;
                }
        }
}

/* A member is who is one to any of the shards; of the others only what all have alike is told. */
static void gone_least(struct crdt_gone *least, const struct crdt_gone *other)
{
        least->members =
                other->members == 0 || least->members == 0 ? 0 : least->members | other->members;
        for (unsigned origin = 1; origin <= CLOCK_REGIONS_MAX; origin++)
                if (least->marks.hlc[origin] != other->marks.hlc[origin])
                        least->marks.hlc[origin] = 0;
}

static void seen_write(const struct shards_seen *seen, unsigned count, uint64_t hlc,
                       struct buffer *scratch, struct buffer *buffer)
{
        struct vector least = seen->of[0];
        struct crdt_gone gone = seen->gone[0];
        bool all = true;
        for (unsigned i = 0; i < count; i++) {
                all = all && seen->told[i];
                gone_least(&gone, &seen->gone[i]);
                for (unsigned origin = 1; origin <= CLOCK_REGIONS_MAX; origin++) {
                        if (seen->of[i].hlc[origin] < least.hlc[origin])
                                least.hlc[origin] = seen->of[i].hlc[origin];
                }
        }
        if (!all)
                least = (struct vector){{0}};
        buffer_reset(scratch);
        bool known = all && gone.members != 0;
        crdt_delta_head(scratch, hlc, CRDT_OP_SEEN, known ? CRDT_FLAG_GONE : 0,
                        (struct crdt_name){0});
        vector_encode(&least, scratch);
        if (known)
                crdt_gone_write(&gone, scratch);
        buffer_slice(buffer, buffer_view(scratch));
        if (scratch->err != ERR_NONE)
                buffer->err = scratch->err;
}

static enum err seen_take(struct shards_seen *seen, unsigned shard, struct bytes delta)
{
        struct crdt_delta decoded;
        enum err err = crdt_delta_decode(delta, 1, &decoded);
        if (err != ERR_NONE)
                return err;
        seen->of[shard] = decoded.seen;
        seen->told[shard] = true;
        seen->gone[shard] = (struct crdt_gone){0};
        if (decoded.gone.len > 0)
                crdt_gone_read(decoded.gone, &seen->gone[shard]);
        return ERR_NONE;
}

static enum err merge_run(struct reader *readers, unsigned count, uint64_t after, uint64_t last,
                          struct shards_seen *seen, struct buffer *scratch,
                          struct buffer *ret_deltas)
{
        enum err err = ERR_NONE;
        struct bytes for_all = bytes_of(NULL, 0); /* the last that all shards have */
        for (unsigned i = 0; i < count && err == ERR_NONE; i++)
                err = reader_next(&readers[i], after);
        while (err == ERR_NONE) {
                unsigned least = count;
                for (unsigned i = 0; i < count; i++) {
                        bool there = readers[i].delta.len > 0 && readers[i].head.hlc <= last;
                        if (there &&
                            (least == count || readers[i].head.hlc < readers[least].head.hlc))
                                least = i;
                }
                if (least == count)
                        break;
                struct reader *reader = &readers[least];
                if (reader->head.op == CRDT_OP_SEEN && seen != NULL) {
                        err = seen_take(seen, least, reader->delta);
                        if (err == ERR_NONE)
                                seen_write(seen, count, reader->head.hlc, scratch, ret_deltas);
                } else if (seen != NULL || !shards_op_for_all(reader->head.op)) {
                        buffer_slice(ret_deltas, reader->delta);
                } else if (!bytes_equal(for_all, reader->delta)) {
                        for_all = reader->delta;
                        buffer_slice(ret_deltas, reader->delta);
                }
                if (err == ERR_NONE)
                        err = reader_next(reader, after);
        }
        return err;
}

enum err shards_merge(const struct shards_stream *streams, unsigned count, uint64_t after,
                      struct shards_seen *seen, struct buffer *ret_deltas, uint64_t *ret_last)
{
        CHECK(count >= 1 && count <= SHARDS_MAX);
        struct reader readers[SHARDS_MAX];
        uint64_t last = UINT64_MAX;
        for (unsigned i = 0; i < count; i++) {
                readers[i] = (struct reader){.cursor = cursor_of(streams[i].deltas),
                                             .reach = streams[i].reach};
                last = streams[i].reach < last ? streams[i].reach : last;
        }
        *ret_last = last;
        struct buffer scratch;
        buffer_init(&scratch, ret_deltas->heap);
        enum err err = merge_run(readers, count, after, last, seen, &scratch, ret_deltas);
        buffer_fini(&scratch);
        return err != ERR_NONE ? err : ret_deltas->err;
}

/* ---- states */

void shards_seen_least(struct crdt_seen *least, const struct crdt_seen *other)
{
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX; i++) {
                if (other->vector.hlc[i] < least->vector.hlc[i])
                        least->vector.hlc[i] = other->vector.hlc[i];
        }
        for (unsigned i = 0; i < other->hole_count; i++) {
                if (least->hole_count < CRDT_HOLES_MAX) {
                        least->holes[least->hole_count++] = other->holes[i];
                } else if (other->holes[i].low < least->vector.hlc[other->holes[i].origin]) {
                        least->vector.hlc[other->holes[i].origin] = other->holes[i].low;
                }
        }
}

enum err shards_state_split(const struct shards_map *map, struct bytes part, struct buffer *parts)
{
        CHECK(map->count >= 1 && map->count <= SHARDS_MAX);
        struct shards_part head;
        enum err err = shards_part_read(part, &head);
        if (err != ERR_NONE)
                return err;
        struct cursor cursor = cursor_of(head.keys);
        for (unsigned i = 0; i < map->count; i++)
                buffer_bytes(&parts[i], bytes_of(part.ptr, part.len - head.keys.len));
        while (cursor_left(&cursor) > 0) {
                struct crdt_state state;
                const uint8_t *from = cursor.at;
                if (!crdt_state_decode(&cursor, CRDT_STATE_VALUES, head.hlc, &state))
                        return cursor.err == ERR_REFUSED ? ERR_MALFORMED : cursor.err;
                unsigned owner = owner_of(map, state.name.key);
                if (owner == SHARDS_NOBODY)
                        return ERR_REFUSED;
                buffer_bytes(&parts[owner], bytes_of(from, (size_t)(cursor.at - from)));
        }
        for (unsigned i = 0; i < map->count && err == ERR_NONE; i++)
                err = parts[i].err;
        return err;
}
