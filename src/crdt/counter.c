/* Running totals that add up to one number. Sums of integers saturate at 64 bits; the totals behind
 * them stay exact. Sums with a float part are made in the order of the origins' numbers, so that
 * every replica rounds alike. Nothing fails but memory. */
#include "crdt/counter.h"

#include "crdt/lists.h"
#include "crdt/number.h"

#include <float.h>

__extension__ typedef __int128 wide;

void counter_forget(const struct table_env *env, struct crdt_counter *counter)
{
        heap_free_bytes(env->heap, counter->base_text);
        counter->base_text = (struct bytes){0};
        counter->base_kind = CRDT_BASE_NATIVE;
}

void counter_free(const struct table_env *env, struct crdt_counter *counter)
{
        counter_forget(env, counter);
        heap_free(env->heap, counter->counts);
        *counter = (struct crdt_counter){0};
}

enum err counter_learn(const struct table_env *env, struct crdt_counter *counter,
                       struct bytes value)
{
        double number = 0;
        counter_forget(env, counter);
        if (number_int(value, &counter->base_int)) {
                counter->base_kind = CRDT_BASE_INT;
        } else if (number_float(value, &number)) {
                if (!heap_copy(env->heap, value, &counter->base_text))
                        return ERR_NOMEM;
                counter->base_kind = CRDT_BASE_FLOAT;
        } else {
                counter->base_kind = CRDT_BASE_TEXT;
        }
        return ERR_NONE;
}

struct crdt_count *counter_slot(const struct table_env *env, struct crdt_counter *counter,
                                region_id origin, uint8_t life)
{
        const struct crdt_count made = {.origin = origin, .life = life};
        unsigned at = 0;
        while (at < counter->count_count && count_part(&counter->counts[at]) < count_part(&made))
                at++;
        if (at < counter->count_count && count_part(&counter->counts[at]) == count_part(&made))
                return &counter->counts[at];
        struct crdt_count *counts = heap_resize(env->heap, counter->counts,
                                                (counter->count_count + 1u) * sizeof *counts);
        if (counts == NULL)
                return NULL;
        for (unsigned i = counter->count_count; i > at; i--)
                counts[i] = counts[i - 1];
        counts[at] = made;
        counter->counts = counts;
        counter->count_count++;
        return &counts[at];
}

const struct crdt_count *counter_find(const struct crdt_counter *counter, region_id origin,
                                      uint8_t life)
{
        for (unsigned i = 0; i < counter->count_count; i++) {
                if (counter->counts[i].origin == origin && counter->counts[i].life == life)
                        return &counter->counts[i];
        }
        return NULL;
}

bool count_raise(struct crdt_count *count, uint64_t hlc, struct crdt_totals total)
{
        if (count->hlc >= hlc)
                return false;
        count->hlc = hlc;
        count->total = total;
        return true;
}

bool count_cut(struct crdt_count *count, uint64_t hlc, struct crdt_totals cut)
{
        if (count->cut_hlc >= hlc)
                return false;
        count->cut_hlc = hlc;
        count->cut = cut;
        return true;
}

bool counter_absent(struct crdt_counter *counter, struct bytes told, const struct crdt_seen *sender)
{
        bool any = false;
        unsigned part_last = 0;
        struct crdt_count next = {0};
        struct cursor cursor = cursor_of(told);
        uint64_t left = told.len == 0 ? 0 : cursor_varint(&cursor);
        for (unsigned i = 0; i < counter->count_count; i++) {
                struct crdt_count *own = &counter->counts[i];
                struct stamp stamp = {own->hlc, own->origin};
                for (; left > 0 && count_part(&next) < count_part(own); left--)
                        next = count_read_one(&cursor, UINT64_MAX, &part_last);
                uint64_t known = count_part(&next) == count_part(own) ? next.hlc : 0;
                if (own->hlc > known && crdt_seen_covers(sender, stamp))
                        any = count_cut(own, own->hlc, own->total) || any;
        }
        return any;
}

/* ---- sums */

bool count_counts(const struct crdt_count *count, struct stamp rival)
{
        struct stamp stamp = {count->hlc, count->origin};
        return count->hlc > count->cut_hlc && stamp_before(rival, stamp);
}

bool counter_counts(const struct crdt_counter *counter, struct stamp rival)
{
        for (unsigned i = 0; i < counter->count_count; i++) {
                if (count_counts(&counter->counts[i], rival))
                        return true;
        }
        return false;
}

static int64_t saturated(wide value)
{
        if (value > INT64_MAX)
                return INT64_MAX;
        return value < INT64_MIN ? INT64_MIN : (int64_t)value;
}

static int64_t count_whole(const struct crdt_count *count)
{
        return (int64_t)(count->total.whole - count->cut.whole);
}

static double count_rest(const struct crdt_count *count)
{
        return count->total.part - count->cut.part;
}

static bool count_has_part(const struct crdt_count *count)
{
        double part = count_rest(count);
        return part < 0 || part > 0;
}

double count_value(const struct crdt_count *count)
{
        return (double)count_whole(count) + count_rest(count);
}

/* The sum as it is. */
static bool counter_wide(const struct crdt_counter *counter, bool alive, struct stamp rival,
                         wide *ret)
{
        if (alive && counter->base_kind != CRDT_BASE_INT)
                return false;
        wide sum = alive ? counter->base_int : 0;
        bool any = false;
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *count = &counter->counts[i];
                if (!count_counts(count, rival))
                        continue;
                if (count_has_part(count))
                        return false;
                sum += count_whole(count);
                any = true;
        }
        if (!any && !alive)
                return false;
        *ret = sum;
        return true;
}

bool counter_whole(const struct crdt_counter *counter, bool alive, struct stamp rival, int64_t *ret)
{
        wide sum;
        if (!counter_wide(counter, alive, rival, &sum))
                return false;
        *ret = saturated(sum);
        return true;
}

bool counter_saturated(const struct crdt_counter *counter, bool alive, struct stamp rival)
{
        wide sum;
        return counter_wide(counter, alive, rival, &sum) && sum != saturated(sum);
}

static double base_double(const struct crdt_counter *counter, bool alive)
{
        double value = 0;
        if (!alive)
                return 0;
        if (counter->base_kind == CRDT_BASE_FLOAT && number_float(counter->base_text, &value))
                return value;
        return counter->base_kind == CRDT_BASE_INT ? (double)counter->base_int : 0;
}

static double sum_double(const struct crdt_counter *counter, bool alive, struct stamp rival)
{
        double sum = base_double(counter, alive);
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *count = &counter->counts[i];
                if (count_counts(count, rival))
                        sum += count_value(count);
        }
        if (sum > DBL_MAX)
                return DBL_MAX;
        return sum < -DBL_MAX ? -DBL_MAX : sum;
}

bool counter_text(const struct crdt_counter *counter, bool alive, struct stamp rival,
                  struct buffer *buffer)
{
        enum crdt_base kind = (enum crdt_base)counter->base_kind;
        int64_t whole = 0;
        if (alive && kind != CRDT_BASE_INT && kind != CRDT_BASE_FLOAT)
                return false;
        if (counter_whole(counter, alive, rival, &whole)) {
                buffer_format(buffer, "%lld", (long long)whole);
                return true;
        }
        if (!counter_counts(counter, rival)) {
                buffer_bytes(buffer, counter->base_text);
                return alive;
        }
        number_format(buffer, sum_double(counter, alive, rival));
        return true;
}

/* ---- as bytes */

bool counter_uncut(const struct crdt_counter *counter)
{
        for (unsigned i = 0; i < counter->count_count; i++) {
                if (counter->counts[i].hlc > counter->counts[i].cut_hlc)
                        return true;
        }
        return false;
}

void counter_cuts_encode(const struct crdt_counter *counter, struct buffer *buffer)
{
        uint64_t count = 0;
        for (unsigned i = 0; i < counter->count_count; i++)
                count += counter->counts[i].hlc > counter->counts[i].cut_hlc;
        buffer_varint(buffer, count);
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *cut = &counter->counts[i];
                if (cut->hlc <= cut->cut_hlc)
                        continue;
                part_write(buffer, cut);
                buffer_u64(buffer, cut->hlc);
                crdt_totals_encode(buffer, cut->total);
        }
}

uint64_t counter_newest(const struct crdt_counter *counter)
{
        uint64_t newest = 0;
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *count = &counter->counts[i];
                newest = count->cut_hlc > newest ? count->cut_hlc : newest;
                newest = count->hlc > newest ? count->hlc : newest;
        }
        return newest;
}

void counter_write(const struct crdt_counter *counter, struct buffer *buffer)
{
        buffer_varint(buffer, counter->count_count);
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *count = &counter->counts[i];
                part_write(buffer, count);
                buffer_u64(buffer, count->hlc);
                crdt_totals_encode(buffer, count->total);
                buffer_u64(buffer, count->cut_hlc);
                crdt_totals_encode(buffer, count->cut);
        }
}

static uint64_t clock_or_zero(struct cursor *cursor, uint64_t hlc_max)
{
        uint64_t hlc = cursor_u64(cursor);
        if (hlc > hlc_max)
                cursor_fail(cursor, ERR_REFUSED);
        return hlc;
}

struct crdt_count count_read_one(struct cursor *cursor, uint64_t hlc_max, unsigned *part_last)
{
        struct crdt_count count = part_read(cursor, part_last);
        count.hlc = clock_or_zero(cursor, hlc_max);
        count.total = totals_read(cursor);
        count.cut_hlc = clock_or_zero(cursor, hlc_max);
        count.cut = totals_read(cursor);
        return count;
}

struct bytes counter_check(struct cursor *cursor, uint64_t hlc_max)
{
        enum {
                LEN_MIN = 21,
        };
        const uint8_t *from = cursor->at;
        unsigned part_last = 0;
        uint64_t count = count_read(cursor, LEN_MIN);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++)
                count_read_one(cursor, hlc_max, &part_last);
        return cursor_since(cursor, from);
}

void counter_base_save(const struct crdt_counter *counter, struct buffer *buffer)
{
        buffer_u8(buffer, counter->base_kind);
        if (counter->base_kind == CRDT_BASE_INT)
                buffer_varint_signed(buffer, counter->base_int);
        if (counter->base_kind == CRDT_BASE_FLOAT)
                buffer_slice(buffer, counter->base_text);
}

/* The text of a FLOAT is borrowed from the input, and not in *ret. */
struct bytes counter_base_read(struct cursor *cursor, struct crdt_counter *ret)
{
        ret->base_kind = cursor_u8(cursor);
        if (ret->base_kind > CRDT_BASE_LOST)
                cursor_fail(cursor, ERR_MALFORMED);
        if (ret->base_kind == CRDT_BASE_INT)
                ret->base_int = cursor_varint_signed(cursor);
        return ret->base_kind == CRDT_BASE_FLOAT ? name_read(cursor) : (struct bytes){0};
}

static uint64_t digest_double(uint64_t hash, double value)
{
        uint64_t bits = 0;
        memcpy(&bits, &value, sizeof bits);
        return hash_fnv_u64(hash, bits);
}

static uint64_t digest_totals(uint64_t hash, uint64_t hlc, unsigned of, uint64_t whole, double part)
{
        hash = hash_fnv_u64(hash_fnv_u64(hash, hlc), of);
        return digest_double(hash_fnv_u64(hash, whole), part);
}

static unsigned digest_part(const struct crdt_count *count)
{
        return count->origin | (unsigned)count->life << 8;
}

uint64_t counter_digest(uint64_t hash, const struct crdt_counter *counter, struct stamp rival,
                        bool all)
{
        for (unsigned i = 0; i < counter->count_count; i++) {
                const struct crdt_count *count = &counter->counts[i];
                if (all)
                        hash = digest_totals(hash, count->cut_hlc, digest_part(count),
                                             count->cut.whole, count->cut.part);
                if (all || count_counts(count, rival))
                        hash = digest_totals(hash, count->hlc, digest_part(count),
                                             count->total.whole - count->cut.whole,
                                             count_rest(count));
        }
        return hash;
}
