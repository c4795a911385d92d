/* Deltas as bytes; the layout is in crdt.h. Decoding walks every element, so that whoever applies a
 * decoded delta needs no check of its own. */
#include "crdt/lists.h"

#include "crdt/list.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

#include "base/check.h"

enum {
        TOTALS_PART = 1, /* a float part follows */
        PART_LIFE = 0x80,
        OP_MASK = 0x0f,
        FLAGS_MASK = 0xf0,
};

void stamp_write(struct buffer *buffer, struct stamp stamp)
{
        buffer_u64(buffer, stamp.hlc);
        buffer_u8(buffer, stamp.origin);
}

struct stamp stamp_read(struct cursor *cursor, uint64_t hlc_max, bool zero_fine)
{
        struct stamp stamp = {.hlc = cursor_u64(cursor)};
        stamp.origin = cursor_u8(cursor);
        bool zero = stamp.hlc == 0 && stamp.origin == 0;
        bool fine = stamp.hlc != 0 && region_valid(stamp.origin);
        if (!fine && !(zero && zero_fine))
                cursor_fail(cursor, ERR_MALFORMED);
        else if (stamp.hlc > hlc_max)
                cursor_fail(cursor, ERR_REFUSED);
        return stamp;
}

struct bytes name_read(struct cursor *cursor)
{
        return cursor_bytes(cursor, cursor_varint_max(cursor, CRDT_NAME_LEN_MAX));
}

uint64_t count_read(struct cursor *cursor, size_t len_min)
{
        uint64_t count = cursor_varint(cursor);
        if (count > cursor_left(cursor) / len_min)
                cursor_fail(cursor, ERR_MALFORMED);
        return cursor_failed(cursor) ? 0 : count;
}

static double double_of_bits(uint64_t bits)
{
        double value = 0;
        memcpy(&value, &bits, sizeof value);
        return value;
}

static uint64_t bits_of_double(double value)
{
        uint64_t bits = 0;
        memcpy(&bits, &value, sizeof bits);
        return bits;
}

void crdt_totals_encode(struct buffer *buffer, struct crdt_totals totals)
{
        uint64_t bits = bits_of_double(totals.part);
        buffer_u8(buffer, bits != 0 ? TOTALS_PART : 0);
        buffer_varint_signed(buffer, (int64_t)totals.whole);
        if (bits != 0)
                buffer_u64(buffer, bits);
}

struct crdt_totals totals_read(struct cursor *cursor)
{
        struct crdt_totals totals = {0};
        uint8_t flags = cursor_u8(cursor);
        totals.whole = (uint64_t)cursor_varint_signed(cursor);
        if ((flags & TOTALS_PART) != 0)
                totals.part = double_of_bits(cursor_u64(cursor));
        if ((flags & ~TOTALS_PART) != 0 || !__builtin_isfinite(totals.part))
                cursor_fail(cursor, ERR_MALFORMED);
        return totals;
}

static region_id origin_read(struct cursor *cursor, region_id *origin_last)
{
        region_id origin = cursor_u8(cursor);
        if (!region_valid(origin) || origin <= *origin_last)
                cursor_fail(cursor, ERR_MALFORMED);
        *origin_last = origin;
        return origin;
}

static uint64_t clock_read(struct cursor *cursor, uint64_t hlc_max)
{
        uint64_t hlc = cursor_u64(cursor);
        if (hlc == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        else if (hlc > hlc_max)
                cursor_fail(cursor, ERR_REFUSED);
        return hlc;
}

struct crdt_dot dot_read(struct cursor *cursor, uint64_t hlc_max, region_id *origin_last)
{
        struct crdt_dot dot = {.origin = origin_read(cursor, origin_last)};
        dot.hlc = clock_read(cursor, hlc_max);
        return dot;
}

void part_write(struct buffer *buffer, const struct crdt_count *count)
{
        buffer_u8(buffer, (uint8_t)(count->origin | (count->life != 0 ? PART_LIFE : 0)));
        if (count->life != 0)
                buffer_u8(buffer, count->life);
}

static uint8_t life_read(struct cursor *cursor)
{
        uint8_t life = cursor_u8(cursor);
        if (life < 1 || life > CRDT_LIVES_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        return life;
}

struct crdt_count part_read(struct cursor *cursor, unsigned *part_last)
{
        uint8_t tag = cursor_u8(cursor);
        struct crdt_count count = {.origin = tag & (uint8_t)~PART_LIFE};
        if ((tag & PART_LIFE) != 0)
                count.life = life_read(cursor);
        if (!region_valid(count.origin) || count_part(&count) <= *part_last)
                cursor_fail(cursor, ERR_MALFORMED);
        *part_last = count_part(&count);
        return count;
}

struct crdt_count cut_read(struct cursor *cursor, uint64_t hlc_max, unsigned *part_last)
{
        struct crdt_count count = part_read(cursor, part_last);
        count.cut_hlc = clock_read(cursor, hlc_max);
        count.cut = totals_read(cursor);
        return count;
}

/* ---- decode, one function per operation */

static struct bytes dots_check(struct cursor *cursor, uint64_t hlc_max)
{
        const uint8_t *from = cursor->at;
        region_id origin_last = 0;
        uint64_t count = count_read(cursor, 9);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                dot_read(cursor, hlc_max, &origin_last);
        return cursor_since(cursor, from);
}

static struct bytes cuts_check(struct cursor *cursor, uint64_t hlc_max)
{
        const uint8_t *from = cursor->at;
        unsigned part_last = 0;
        uint64_t count = count_read(cursor, 11);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                cut_read(cursor, hlc_max, &part_last);
        return cursor_since(cursor, from);
}

static void elements_check(struct cursor *cursor, struct crdt_delta *delta)
{
        const uint8_t *from = cursor->at;
        if ((delta->flags & CRDT_FLAG_ELEMENTS) == 0)
                return;
        while (cursor_left(cursor) > 0 && !cursor_failed(cursor)) {
                name_read(cursor);
                cuts_check(cursor, delta->stamp.hlc);
        }
        delta->elements = cursor_since(cursor, from);
}

static void scores_check(struct cursor *cursor, struct crdt_delta *delta)
{
        if ((delta->flags & CRDT_FLAG_SCORES) == 0)
                return;
        delta->scores = cursor_slice(cursor);
        struct cursor inside = cursor_of(delta->scores);
        while (cursor_left(&inside) > 0 && !cursor_failed(&inside))
                zset_cut_check(&inside, delta->stamp.hlc);
        if (cursor_failed(&inside))
                cursor_fail(cursor, inside.err);
}

static void decode_observed(struct cursor *cursor, struct crdt_delta *delta)
{
        if ((delta->flags & CRDT_FLAG_CUTS) != 0)
                delta->cuts = cuts_check(cursor, delta->stamp.hlc);
        if ((delta->flags & CRDT_FLAG_BOUNDS) != 0)
                delta->bounds = dots_check(cursor, delta->stamp.hlc);
        scores_check(cursor, delta);
        elements_check(cursor, delta);
}

static void decode_value(struct cursor *cursor, struct crdt_delta *delta)
{
        if ((delta->flags & CRDT_FLAG_EXPIRY) != 0)
                delta->expire_at_ms = cursor_varint(cursor);
        if ((delta->flags & CRDT_FLAG_CUTS) != 0)
                delta->cuts = cuts_check(cursor, delta->stamp.hlc);
        if (cursor_left(cursor) > CRDT_NAME_LEN_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        delta->value = cursor_bytes(cursor, cursor_left(cursor));
}

static void decode_expired(struct cursor *cursor, struct crdt_delta *delta)
{
        delta->killed = stamp_read(cursor, delta->stamp.hlc, true);
        delta->ttl = stamp_read(cursor, delta->stamp.hlc, true);
        decode_observed(cursor, delta);
}

static void decode_expire(struct cursor *cursor, struct crdt_delta *delta)
{
        delta->expire_at_ms = cursor_varint(cursor);
}

static void decode_count(struct cursor *cursor, struct crdt_delta *delta)
{
        delta->total = totals_read(cursor);
        if ((delta->flags & CRDT_FLAG_CUTS) != 0) {
                delta->cut_hlc = clock_read(cursor, delta->stamp.hlc);
                delta->cut = totals_read(cursor);
        }
        if ((delta->flags & CRDT_FLAG_LIFE) != 0)
                delta->part = life_read(cursor);
}

void crdt_count_encode(struct buffer *buffer, const struct crdt_count *count)
{
        crdt_totals_encode(buffer, count->total);
        if (count->cut_hlc != 0) {
                buffer_u64(buffer, count->cut_hlc);
                crdt_totals_encode(buffer, count->cut);
        }
        if (count->life != 0)
                buffer_u8(buffer, count->life);
}

uint8_t crdt_count_flags(const struct crdt_count *count)
{
        return (uint8_t)((count->cut_hlc != 0 ? CRDT_FLAG_CUTS : 0) |
                         (count->life != 0 ? CRDT_FLAG_LIFE : 0));
}

static void element_pair(struct cursor *cursor, uint64_t hlc_max)
{
        (void)hlc_max;
        name_read(cursor);
        name_read(cursor);
}

static void element_name(struct cursor *cursor, uint64_t hlc_max)
{
        (void)hlc_max;
        name_read(cursor);
}

static void element_removal(struct cursor *cursor, uint64_t hlc_max)
{
        name_read(cursor);
        dots_check(cursor, hlc_max);
}

static void decode_list(struct cursor *cursor, struct crdt_delta *delta,
                        void (*element)(struct cursor *cursor, uint64_t hlc_max))
{
        delta->list_count = count_read(cursor, 1);
        if (delta->list_count == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        const uint8_t *from = cursor->at;
        for (uint64_t i = 0; i < delta->list_count && !cursor_failed(cursor); i++)
                element(cursor, delta->stamp.hlc);
        delta->list = cursor_since(cursor, from);
}

static void decode_pairs(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_pair);
        elements_check(cursor, delta);
}

static void decode_hcount(struct cursor *cursor, struct crdt_delta *delta)
{
        delta->field = name_read(cursor);
        decode_count(cursor, delta);
        if (cursor_left(cursor) > CRDT_NAME_LEN_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        if ((delta->flags & CRDT_FLAG_BASE) != 0)
                delta->value = cursor_bytes(cursor, cursor_left(cursor));
}

static void decode_fields(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_name);
        elements_check(cursor, delta);
}

static void decode_names(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_name);
}

static void decode_removals(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_removal);
}

static void element_score(struct cursor *cursor, uint64_t hlc_max)
{
        (void)hlc_max;
        name_read(cursor);
        crdt_score_read(cursor);
}

static void decode_scores(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_score);
        const uint8_t *from = cursor->at;
        while ((delta->flags & CRDT_FLAG_ELEMENTS) != 0 && cursor_left(cursor) > 0 &&
               !cursor_failed(cursor))
                zset_observed_check(cursor, delta->stamp.hlc);
        delta->elements = cursor_since(cursor, from);
}

static void decode_scores_removed(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, zset_observed_check);
}

static void decode_zcount(struct cursor *cursor, struct crdt_delta *delta)
{
        delta->field = name_read(cursor);
        decode_count(cursor, delta);
}

static void decode_sibling(struct cursor *cursor, struct crdt_delta *delta)
{
        bool removal = (delta->flags & CRDT_FLAG_REMOVED) != 0;
        if (removal && delta->flags != CRDT_FLAG_REMOVED)
                cursor_fail(cursor, ERR_MALFORMED);
        if ((delta->flags & CRDT_FLAG_EXPIRY) != 0)
                delta->expire_at_ms = cursor_varint(cursor);
        delta->bounds = dots_check(cursor, delta->stamp.hlc - 1);
        if (cursor_left(cursor) > CRDT_NAME_LEN_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        if (removal)
                delta->ttl = stamp_read(cursor, delta->stamp.hlc, true);
        else
                delta->value = cursor_bytes(cursor, cursor_left(cursor));
}

static void element_run(struct cursor *cursor, uint64_t hlc_max)
{
        list_run_read(cursor, hlc_max);
}

static void decode_runs(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_run);
}

static void decode_entries(struct cursor *cursor, struct crdt_delta *delta)
{
        const uint8_t *from = cursor->at;
        stream_id_read(cursor);
        delta->list_count = count_read(cursor, 4);
        for (uint64_t i = 0; i < delta->list_count && !cursor_failed(cursor); i++) {
                struct crdt_stream_id id = stream_id_read(cursor);
                if (id.ms == 0 && id.seq == 0)
                        cursor_fail(cursor, ERR_MALFORMED);
                stream_fields_read(cursor);
        }
        delta->list = cursor_since(cursor, from);
}

static void element_entries(struct cursor *cursor, uint64_t hlc_max)
{
        struct stream_removal removal;
        stream_removal_read(cursor, hlc_max, &removal);
}

static void decode_entries_removed(struct cursor *cursor, struct crdt_delta *delta)
{
        decode_list(cursor, delta, element_entries);
}

/* The list is the whole body, for where it stands is needed too. */
static void decode_insert(struct cursor *cursor, struct crdt_delta *delta)
{
        const uint8_t *from = cursor->at;
        unsigned where = cursor_u8(cursor);
        bool fine = where <= LIST_AT;
        if (where == LIST_BETWEEN)
                list_place_read(cursor, delta->stamp.hlc);
        if (where == LIST_AT)
                fine = list_run_read(cursor, delta->stamp.hlc).count == 1;
        decode_list(cursor, delta, element_name);
        if (!fine || delta->list_count > (where == LIST_AT ? 1u : (unsigned)LIST_COUNT_MAX) ||
            delta->stamp.hlc > INT64_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        delta->list = cursor_since(cursor, from);
}

static void decode_seen(struct cursor *cursor, struct crdt_delta *delta)
{
        vector_decode(cursor, &delta->seen);
        if (delta->name.db != 0 || delta->name.key.len != 0)
                cursor_fail(cursor, ERR_MALFORMED);
        if ((delta->flags & CRDT_FLAG_GONE) == 0)
                return;
        const uint8_t *from = cursor->at;
        struct vector marks;
        if (cursor_u64(cursor) == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        vector_decode(cursor, &marks);
        delta->gone = cursor_since(cursor, from);
}

void crdt_gone_write(const struct crdt_gone *gone, struct buffer *buffer)
{
        CHECK(gone->members != 0);
        buffer_u64(buffer, gone->members);
        vector_encode(&gone->marks, buffer);
}

void crdt_gone_read(struct bytes gone, struct crdt_gone *ret)
{
        struct cursor cursor = cursor_of(gone);
        *ret = (struct crdt_gone){.members = cursor_u64(&cursor)};
        vector_decode(&cursor, &ret->marks);
        CHECK(!cursor_failed(&cursor));
}

static void decode_hll(struct cursor *cursor, struct crdt_delta *delta)
{
        delta->stable = cursor_u64(cursor);
        delta->killed = stamp_read(cursor, delta->stamp.hlc, true);
        if (delta->stable > delta->stamp.hlc || cursor_left(cursor) > CRDT_NAME_LEN_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        if ((delta->flags & CRDT_FLAG_REGISTERS) != 0) {
                delta->value = cursor_bytes(cursor, cursor_left(cursor));
                return;
        }
        delta->list_count = count_read(cursor, 1);
        const uint8_t *from = cursor->at;
        for (uint64_t i = 0; i < delta->list_count && !cursor_failed(cursor); i++)
                name_read(cursor);
        delta->list = cursor_since(cursor, from);
}

static void decode_flush(struct cursor *cursor, struct crdt_delta *delta)
{
        const uint8_t *from = cursor->at;
        struct cursor whole = *cursor;
        struct crdt_seen seen;
        uint64_t count = cursor_varint_max(cursor, CRDT_HOLES_MAX);
        for (uint64_t i = 0; i < count; i++) {
                cursor_u8(cursor);
                cursor_u64(cursor);
                cursor_u64(cursor);
        }
        delta->holes = cursor_since(cursor, from);
        vector_decode(cursor, &delta->seen);
        crdt_seen_decode(&whole, delta->stamp.origin, &seen);
        if (cursor_failed(&whole))
                cursor_fail(cursor, whole.err);
        if (delta->name.key.len != 0)
                cursor_fail(cursor, ERR_MALFORMED);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && !cursor_failed(cursor); i++) {
                if (delta->seen.hlc[i] > delta->stamp.hlc)
                        cursor_fail(cursor, ERR_MALFORMED);
        }
}

static void decode_event(struct cursor *cursor, struct crdt_delta *delta)
{
        if (delta->name.db != 0 || cursor_left(cursor) > CRDT_NAME_LEN_MAX)
                cursor_fail(cursor, ERR_MALFORMED);
        delta->value = cursor_bytes(cursor, cursor_left(cursor));
}

static void decode_life(struct cursor *cursor, struct crdt_delta *delta)
{
        uint8_t kind = cursor_u8(cursor);
        delta->low = cursor_u64(cursor);
        delta->high = cursor_u64(cursor);
        bool good =
                kind > 0 && kind < CRDT_LIFE_END && delta->name.db == 0 && delta->name.key.len == 0;
        delta->life = good ? (enum crdt_life)kind : CRDT_LIFE_END;
        if (kind == CRDT_LIFE_BEGIN)
                good = good && delta->low < delta->stamp.hlc;
        else if (kind == CRDT_LIFE_CLOSED)
                good = good && delta->low < delta->high && delta->high <= delta->stamp.hlc;
        if (!good)
                cursor_fail(cursor, ERR_MALFORMED);
}

static const struct {
        void (*decode)(struct cursor *cursor, struct crdt_delta *delta);
        uint8_t flags; /* those that may be set */
} op_table[CRDT_OP_END] = {
        [CRDT_OP_SET] = {decode_value, CRDT_FLAG_EXPIRY | CRDT_FLAG_CUTS | CRDT_FLAG_KNOWN},
        [CRDT_OP_DEL] = {decode_observed,
                         CRDT_FLAG_CUTS | CRDT_FLAG_BOUNDS | CRDT_FLAG_SCORES | CRDT_FLAG_ELEMENTS},
        [CRDT_OP_EXPIRED] = {decode_expired, CRDT_FLAG_CUTS | CRDT_FLAG_BOUNDS | CRDT_FLAG_SCORES |
                                                     CRDT_FLAG_ELEMENTS},
        [CRDT_OP_EXPIRE] = {decode_expire, 0},
        [CRDT_OP_COUNT] = {decode_count, CRDT_FLAG_CUTS | CRDT_FLAG_CREATED | CRDT_FLAG_LIFE},
        [CRDT_OP_HSET] = {decode_pairs, CRDT_FLAG_CREATED | CRDT_FLAG_ELEMENTS},
        [CRDT_OP_HDEL] = {decode_fields, CRDT_FLAG_ELEMENTS},
        [CRDT_OP_HCOUNT] = {decode_hcount,
                            CRDT_FLAG_CREATED | CRDT_FLAG_CUTS | CRDT_FLAG_BASE | CRDT_FLAG_LIFE},
        [CRDT_OP_SADD] = {decode_names, CRDT_FLAG_CREATED},
        [CRDT_OP_SREM] = {decode_removals, 0},
        [CRDT_OP_ZADD] = {decode_scores, CRDT_FLAG_CREATED | CRDT_FLAG_ELEMENTS},
        [CRDT_OP_ZREM] = {decode_scores_removed, 0},
        [CRDT_OP_ZCOUNT] = {decode_zcount, CRDT_FLAG_CREATED | CRDT_FLAG_CUTS | CRDT_FLAG_LIFE},
        [CRDT_OP_OPAQUE] = {decode_value, CRDT_FLAG_EXPIRY | CRDT_FLAG_KNOWN},
        [CRDT_OP_SIBLING] = {decode_sibling,
                             CRDT_FLAG_EXPIRY | CRDT_FLAG_REMOVED | CRDT_FLAG_KNOWN},
        [CRDT_OP_SEEN] = {decode_seen, CRDT_FLAG_GONE},
        [CRDT_OP_LIST_INSERT] = {decode_insert, CRDT_FLAG_CREATED},
        [CRDT_OP_LIST_REMOVE] = {decode_runs, 0},
        [CRDT_OP_HLL] = {decode_hll, CRDT_FLAG_CREATED | CRDT_FLAG_REGISTERS},
        [CRDT_OP_STREAM_ADD] = {decode_entries, CRDT_FLAG_CREATED},
        [CRDT_OP_STREAM_REMOVE] = {decode_entries_removed, 0},
        [CRDT_OP_EVENT] = {decode_event, CRDT_FLAG_SHARD},
        [CRDT_OP_FLUSH] = {decode_flush, 0},
        [CRDT_OP_LIFE] = {decode_life, 0},
};

bool crdt_delta_takes(const struct crdt_delta *delta, struct crdt_delta *ret)
{
        static const bool takes[CRDT_OP_END] = {
                [CRDT_OP_DEL] = true,           [CRDT_OP_EXPIRED] = true,
                [CRDT_OP_HDEL] = true,          [CRDT_OP_SREM] = true,
                [CRDT_OP_ZREM] = true,          [CRDT_OP_LIST_REMOVE] = true,
                [CRDT_OP_STREAM_REMOVE] = true,
        };
        *ret = *delta;
        if (delta->op != CRDT_OP_ZADD)
                return takes[delta->op];
        ret->op = CRDT_OP_ZREM;
        ret->flags = 0;
        ret->list = delta->elements;
        ret->elements = (struct bytes){0};
        return ret->list.len > 0;
}

enum crdt_op crdt_op_read(struct cursor *cursor, uint8_t *ret_flags)
{
        uint8_t byte = cursor_u8(cursor);
        enum crdt_op op = (enum crdt_op)(byte & OP_MASK);
        if (ret_flags != NULL)
                *ret_flags = byte & FLAGS_MASK;
        if (op != CRDT_OP_MORE)
                return op;
        op = (enum crdt_op)cursor_u8(cursor);
        if ((unsigned)op <= OP_MASK)
                cursor_fail(cursor, ERR_MALFORMED);
        return op;
}

enum err crdt_delta_peek(struct bytes data, enum crdt_op *ret_op, struct crdt_name *ret_name)
{
        struct cursor cursor = cursor_of(data);
        struct crdt_name name;
        cursor_u64(&cursor);
        enum crdt_op op = crdt_op_read(&cursor, NULL);
        name.db = (uint32_t)cursor_varint_max(&cursor, CRDT_DB_MAX);
        name.key = name_read(&cursor);
        if (cursor_failed(&cursor))
                return cursor.err;
        if (op >= CRDT_OP_END || op_table[op].decode == NULL)
                return ERR_MALFORMED;
        *ret_op = op;
        *ret_name = name;
        return ERR_NONE;
}

enum err crdt_delta_decode(struct bytes data, region_id origin, struct crdt_delta *ret)
{
        struct cursor cursor = cursor_of(data);
        struct crdt_delta delta = {.stamp = {cursor_u64(&cursor), origin}};
        delta.op = crdt_op_read(&cursor, &delta.flags);
        delta.name.db = (uint32_t)cursor_varint_max(&cursor, CRDT_DB_MAX);
        delta.name.key = name_read(&cursor);
        if (cursor_failed(&cursor))
                return cursor.err;
        if (delta.stamp.hlc == 0 || delta.op >= CRDT_OP_END || op_table[delta.op].decode == NULL ||
            (delta.flags & ~op_table[delta.op].flags) != 0)
                return ERR_MALFORMED;
        op_table[delta.op].decode(&cursor, &delta);
        enum err err = cursor_done(&cursor);
        /* A clock inside that is later than the delta's own is no drift, it is nonsense. */
        if (err != ERR_NONE)
                return err == ERR_REFUSED ? ERR_MALFORMED : err;
        *ret = delta;
        return ERR_NONE;
}

void crdt_delta_head(struct buffer *buffer, uint64_t hlc, enum crdt_op op, uint8_t flags,
                     struct crdt_name name)
{
        CHECK((flags & OP_MASK) == 0);
        buffer_u64(buffer, hlc);
        if ((unsigned)op > OP_MASK) {
                buffer_u8(buffer, (uint8_t)(CRDT_OP_MORE | flags));
                buffer_u8(buffer, (uint8_t)op);
        } else {
                buffer_u8(buffer, (uint8_t)(op | flags));
        }
        buffer_varint(buffer, name.db);
        buffer_slice(buffer, name.key);
}
