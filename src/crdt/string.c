/* Strings: a base that a SET wrote, and what each origin has added since (counter.h). Nothing
 * added: the native value is the base. Something added to a base that is no number: the base.
 *
 * While a sum hides the base, its number is remembered here; otherwise the native value is all
 * there is. */
#include "crdt/counter.h"
#include "crdt/crdt_priv.h"
#include "crdt/number.h"

#include "base/check.h"

bool base_alive(const struct crdt *crdt)
{
        return stamp_is(crdt->base) && stamp_before(crdt_floor(crdt, CRDT_STRING), crdt->base);
}

bool crdt_counted(const struct crdt *crdt, const struct crdt_count *count)
{
        return count_counts(count, crdt_rival(crdt, CRDT_STRING));
}

bool string_counted(const struct crdt *crdt)
{
        return crdt->counter.count_count > 0 &&
               counter_counts(&crdt->counter, crdt_rival(crdt, CRDT_STRING));
}

bool string_exists(const struct crdt *crdt)
{
        if (base_alive(crdt))
                return crdt->counter.base_kind != CRDT_BASE_LOST;
        return string_counted(crdt);
}

void base_forget(const struct table_env *env, struct crdt *crdt)
{
        counter_forget(env, &crdt->counter);
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
        if (counter_learn(&env->table, &crdt->counter, value) != ERR_NONE)
                env->err = ERR_NOMEM;
}

bool crdt_base_open(const struct crdt *crdt)
{
        return (crdt->counter.base_kind == CRDT_BASE_NATIVE ||
                crdt->counter.base_kind == CRDT_BASE_LOST) &&
               base_alive(crdt);
}

/* The first increment on a base whose value only the native has. */
static void base_ask(struct crdt_env *env, struct crdt *crdt)
{
        struct bytes value = env->text_before;
        if (!crdt_base_open(crdt) ||
            (crdt->counter.base_kind == CRDT_BASE_LOST && value.ptr == NULL))
                return;
        if (value.ptr == NULL && env->native != NULL &&
            !env->native->string_get(env->native->context, env->name, &value))
                value = BYTES("0");
        if (value.ptr != NULL)
                base_learn(env, crdt, value);
}

static struct crdt_count *slot_of(struct crdt_env *env, struct crdt *crdt, region_id origin,
                                  uint8_t life)
{
        struct crdt_count *count = counter_slot(&env->table, &crdt->counter, origin, life);
        if (count == NULL)
                env->err = ERR_NOMEM;
        return count;
}

void count_join(struct crdt_env *env, struct crdt *crdt, struct stamp stamp, uint8_t life,
                struct crdt_totals total)
{
        struct crdt_count *count = slot_of(env, crdt, stamp.origin, life);
        if (count == NULL || count->hlc >= stamp.hlc)
                return;
        if (!env->string_new)
                base_ask(env, crdt);
        env->string_dirty = count_raise(count, stamp.hlc, total) || env->string_dirty;
}

void cut_join(struct crdt_env *env, struct crdt *crdt, const struct crdt_count *cut)
{
        struct crdt_count *count = slot_of(env, crdt, cut->origin, cut->life);
        if (count != NULL && count_cut(count, cut->cut_hlc, cut->cut))
                env->string_dirty = true;
}

bool crdt_sum_whole(const struct crdt *crdt, int64_t *ret)
{
        return counter_whole(&crdt->counter, base_alive(crdt), crdt_rival(crdt, CRDT_STRING), ret);
}

bool crdt_sum_saturated(const struct crdt *crdt)
{
        return counter_saturated(&crdt->counter, base_alive(crdt), crdt_rival(crdt, CRDT_STRING));
}

bool crdt_number(struct bytes text, double *ret)
{
        return number_float(text, ret);
}

struct crdt_totals crdt_amount(double amount, double before)
{
        const double exact = (double)(1LL << 53); /* below it a double keeps each whole number */
        const double range = (double)(1LL << 62);
        double after = before + amount;
        if (amount >= -exact && amount <= exact && after >= -range && after <= range &&
            before >= -range && before <= range) {
                int64_t whole = (int64_t)amount;
                double rest = amount - (double)whole;
                if (!(rest < 0 || rest > 0))
                        return (struct crdt_totals){(uint64_t)whole, 0};
        }
        return (struct crdt_totals){0, amount};
}

bool crdt_text(const struct crdt *crdt, struct buffer *buffer)
{
        buffer_reset(buffer);
        return counter_text(&crdt->counter, base_alive(crdt), crdt_rival(crdt, CRDT_STRING),
                            buffer);
}

void string_sync(struct crdt_env *env, struct crdt *crdt, struct bytes value)
{
        if (!env->string_dirty || !string_exists(crdt))
                return;
        if (env->string_new && crdt->counter.base_kind == CRDT_BASE_NATIVE && base_alive(crdt) &&
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

const struct crdt_count *crdt_count_of(const struct crdt *crdt, region_id origin, uint8_t life)
{
        return counter_find(&crdt->counter, origin, life);
}
