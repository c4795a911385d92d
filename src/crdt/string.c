/* Strings: a base that a SET wrote, and what each origin has added since. Its value is
 *
 *      base (where alive) + sum over origins of (total - cut)
 *
 * of the origins whose last increment is later than the cut and than the last write of
 * another type. Nothing added: the native value is the base. Something added to a base that
 * is no number: the base.
 *
 * While a sum hides the base, its number is remembered here; otherwise the native value is all
 * there is. Sums of integers saturate at 64 bits; the totals behind them stay exact. Sums with a
 * float part are made in the order of the origins' numbers, so that every replica rounds alike. */
#include "crdt/crdt_priv.h"
#include "crdt/number.h"

#include "base/check.h"

#include <float.h>

__extension__ typedef __int128 wide;

bool base_alive(const struct crdt *crdt)
{
        return stamp_is(crdt->base) && stamp_before(crdt_floor(crdt, CRDT_STRING), crdt->base);
}

bool crdt_counted(const struct crdt *crdt, const struct crdt_count *count)
{
        struct stamp stamp = {count->hlc, count->origin};
        return count->hlc > count->cut_hlc && stamp_before(crdt_rival(crdt, CRDT_STRING), stamp);
}

bool string_counted(const struct crdt *crdt)
{
        for (unsigned i = 0; i < crdt->count_count; i++) {
                if (crdt_counted(crdt, &crdt->counts[i]))
                        return true;
        }
        return false;
}

bool string_exists(const struct crdt *crdt)
{
        if (base_alive(crdt))
                return crdt->base_kind != CRDT_BASE_LOST;
        return string_counted(crdt);
}

void base_forget(const struct table_env *env, struct crdt *crdt)
{
        heap_free_bytes(env->heap, crdt->base_text);
        crdt->base_text = (struct bytes){0};
        crdt->base_kind = CRDT_BASE_NATIVE;
}

void base_set(struct crdt_env *env, struct crdt *crdt, struct stamp stamp)
{
        base_forget(&env->table, crdt);
        crdt->base = stamp;
        env->string_new = true;
        env->string_dirty = true;
}

void base_learn(struct crdt_env *env, struct crdt *crdt, struct bytes value)
{
        double number = 0;
        base_forget(&env->table, crdt);
        if (number_int(value, &crdt->base_int)) {
                crdt->base_kind = CRDT_BASE_INT;
        } else if (number_float(value, &number)) {
                if (!heap_copy(env->table.heap, value, &crdt->base_text))
                        env->err = ERR_NOMEM;
                else
                        crdt->base_kind = CRDT_BASE_FLOAT;
        } else {
                crdt->base_kind = CRDT_BASE_TEXT;
        }
}

struct crdt_count *count_slot(struct crdt_env *env, struct crdt *crdt, region_id origin)
{
        unsigned at = 0;
        while (at < crdt->count_count && crdt->counts[at].origin < origin)
                at++;
        if (at < crdt->count_count && crdt->counts[at].origin == origin)
                return &crdt->counts[at];
        struct crdt_count *counts = heap_resize(env->table.heap, crdt->counts,
                                                (crdt->count_count + 1u) * sizeof *counts);
        if (counts == NULL) {
                env->err = ERR_NOMEM;
                return NULL;
        }
        for (unsigned i = crdt->count_count; i > at; i--)
                counts[i] = counts[i - 1];
        counts[at] = (struct crdt_count){.origin = origin};
        crdt->counts = counts;
        crdt->count_count++;
        return &counts[at];
}

bool crdt_base_open(const struct crdt *crdt)
{
        return (crdt->base_kind == CRDT_BASE_NATIVE || crdt->base_kind == CRDT_BASE_LOST) &&
               base_alive(crdt);
}

/* The first increment on a base whose value only the native has. */
static void base_ask(struct crdt_env *env, struct crdt *crdt)
{
        struct bytes value = env->text_before;
        if (!crdt_base_open(crdt) || (crdt->base_kind == CRDT_BASE_LOST && value.ptr == NULL))
                return;
        if (value.ptr == NULL && env->native != NULL &&
            !env->native->string_get(env->native->context, env->name, &value))
                value = BYTES("0");
        if (value.ptr != NULL)
                base_learn(env, crdt, value);
}

void count_join(struct crdt_env *env, struct crdt *crdt, struct stamp stamp,
                struct crdt_totals total)
{
        struct crdt_count *count = count_slot(env, crdt, stamp.origin);
        if (count == NULL || count->hlc >= stamp.hlc)
                return;
        if (!env->string_new)
                base_ask(env, crdt);
        count->hlc = stamp.hlc;
        count->total = total;
        env->string_dirty = true;
}

void cut_join(struct crdt_env *env, struct crdt *crdt, region_id origin, uint64_t hlc,
              struct crdt_totals cut)
{
        struct crdt_count *count = count_slot(env, crdt, origin);
        if (count == NULL || count->cut_hlc >= hlc)
                return;
        count->cut_hlc = hlc;
        count->cut = cut;
        env->string_dirty = true;
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

static double count_part(const struct crdt_count *count)
{
        return count->total.part - count->cut.part;
}

static bool count_has_part(const struct crdt_count *count)
{
        double part = count_part(count);
        return part < 0 || part > 0;
}

bool crdt_sum_whole(const struct crdt *crdt, int64_t *ret)
{
        bool alive = base_alive(crdt);
        if (alive && crdt->base_kind != CRDT_BASE_INT)
                return false;
        wide sum = alive ? crdt->base_int : 0;
        bool any = false;
        for (unsigned i = 0; i < crdt->count_count; i++) {
                const struct crdt_count *count = &crdt->counts[i];
                if (!crdt_counted(crdt, count))
                        continue;
                if (count_has_part(count))
                        return false;
                sum += count_whole(count);
                any = true;
        }
        if (!any && !alive)
                return false;
        *ret = saturated(sum);
        return true;
}

static double base_double(const struct crdt *crdt)
{
        double value = 0;
        if (!base_alive(crdt))
                return 0;
        if (crdt->base_kind == CRDT_BASE_FLOAT && number_float(crdt->base_text, &value))
                return value;
        return crdt->base_kind == CRDT_BASE_INT ? (double)crdt->base_int : 0;
}

static double sum_double(const struct crdt *crdt)
{
        double sum = base_double(crdt);
        for (unsigned i = 0; i < crdt->count_count; i++) {
                const struct crdt_count *count = &crdt->counts[i];
                if (crdt_counted(crdt, count))
                        sum += (double)count_whole(count) + count_part(count);
        }
        if (sum > DBL_MAX)
                return DBL_MAX;
        return sum < -DBL_MAX ? -DBL_MAX : sum;
}

bool crdt_number(struct bytes text, double *ret)
{
        return number_float(text, ret);
}

bool crdt_text(const struct crdt *crdt, struct buffer *buffer)
{
        bool alive = base_alive(crdt);
        enum crdt_base kind = (enum crdt_base)crdt->base_kind;
        int64_t whole = 0;
        buffer_reset(buffer);
        if (alive && kind != CRDT_BASE_INT && kind != CRDT_BASE_FLOAT)
                return false;
        if (crdt_sum_whole(crdt, &whole)) {
                buffer_format(buffer, "%lld", (long long)whole);
                return true;
        }
        if (!string_counted(crdt)) {
                buffer_bytes(buffer, crdt->base_text);
                return alive;
        }
        number_format(buffer, sum_double(crdt));
        return true;
}

void string_sync(struct crdt_env *env, struct crdt *crdt, struct bytes value)
{
        if (!env->string_dirty || !string_exists(crdt))
                return;
        if (env->string_new && crdt->base_kind == CRDT_BASE_NATIVE && base_alive(crdt) &&
            string_counted(crdt))
                base_learn(env, crdt, value);
        if (env->native == NULL)
                return;
        struct buffer text;
        buffer_init(&text, env->table.heap);
        bool made = crdt_text(crdt, &text);
        if (text.err != ERR_NONE)
                env->err = ERR_NOMEM;
        else if (made || env->string_new)
                env->native->string_set(env->native->context, env->name,
                                        made ? buffer_view(&text) : value, crdt_expire_at(crdt));
        env->written = env->written || made || env->string_new;
        buffer_fini(&text);
}

const struct crdt_count *crdt_count_of(const struct crdt *crdt, region_id origin)
{
        for (unsigned i = 0; i < crdt->count_count; i++) {
                if (crdt->counts[i].origin == origin)
                        return &crdt->counts[i];
        }
        return NULL;
}
