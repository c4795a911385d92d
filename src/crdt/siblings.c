/* Strings whose concurrent writes are all kept: a multi-value register. Each write names what its
 * writer had seen of the key, one clock for each origin (`seen`); a write dies when the `seen` of
 * another covers it, so what is left are exactly the concurrent newest ones, at most one for each
 * origin (Preguiça, Baquero, Almeida, Fonte, Gonçalves: "Dotted Version Vectors", 2010).
 *
 * One sibling alone has its value in the native store. Where there are more, the values are kept
 * here, for the native shows one of them or what a function makes of all. Fails only for lack of
 * memory, which env->err tells. */
#include "crdt/siblings.h"

#include "crdt/crdt_priv.h"
#include "crdt/lists.h"

static void sibling_drop(const struct table_env *env, struct crdt_siblings *siblings, unsigned at)
{
        heap_free_bytes(env->heap, siblings->list[at].value);
        siblings->count--;
        for (unsigned i = at; i < siblings->count; i++)
                siblings->list[i] = siblings->list[i + 1];
}

void siblings_free(const struct table_env *env, struct crdt_siblings **slot)
{
        struct crdt_siblings *siblings = *slot;
        if (siblings == NULL)
                return;
        siblings_forget(env, siblings);
        heap_free(env->heap, siblings->list);
        heap_free(env->heap, siblings);
        *slot = NULL;
}

void siblings_forget(const struct table_env *env, struct crdt_siblings *siblings)
{
        while (siblings != NULL && siblings->count > 0)
                sibling_drop(env, siblings, siblings->count - 1u);
}

static struct crdt_siblings *siblings_get(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->siblings == NULL)
                crdt->siblings = heap_alloc(env->table.heap, sizeof *crdt->siblings);
        if (crdt->siblings == NULL)
                env->err = ERR_NOMEM;
        return crdt->siblings;
}

/* What only the native has is fetched before something else is shown there. */
static void value_fetch(struct crdt_env *env, struct crdt_siblings *siblings)
{
        struct bytes value = {0};
        struct crdt_sibling *one = siblings->list;
        if (siblings->count != 1 || siblings->held || env->native == NULL ||
            !env->native->string_get(env->native->context, env->name, &value))
                return;
        if (!heap_copy(env->table.heap, value, &one->value))
                env->err = ERR_NOMEM;
        siblings->held = true;
}

/* The one that is left alone needs no copy: the native has it. */
static void value_leave(struct crdt_env *env, struct crdt_siblings *siblings)
{
        heap_free_bytes(env->table.heap, siblings->list[0].value);
        siblings->list[0].value = (struct bytes){0};
        siblings->held = false;
}

/* Adds one by its stamp's order, with a copy of its value. */
static void sibling_add(struct crdt_env *env, struct crdt_siblings *siblings, struct stamp stamp,
                        struct bytes value)
{
        struct crdt_sibling added = {.stamp = stamp};
        struct crdt_sibling *list =
                heap_resize(env->table.heap, siblings->list, (siblings->count + 1u) * sizeof *list);
        if (list == NULL) {
                env->err = ERR_NOMEM;
                return;
        }
        siblings->list = list;
        if (!heap_copy(env->table.heap, value, &added.value)) {
                env->err = ERR_NOMEM;
                return;
        }
        unsigned at = siblings->count++;
        for (; at > 0 && stamp_before(stamp, list[at - 1].stamp); at--)
                list[at] = list[at - 1];
        list[at] = added;
        siblings->held = true;
}

static bool sibling_there(const struct crdt_siblings *siblings, struct stamp stamp)
{
        for (unsigned i = 0; i < siblings->count; i++) {
                if (stamp_compare(siblings->list[i].stamp, stamp) == 0)
                        return true;
        }
        return false;
}

static struct vector cuts_of(struct bytes encoded)
{
        struct vector seen = {0};
        struct cursor cursor = cursor_of(encoded);
        region_id origin_last = 0;
        uint64_t count = encoded.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_dot dot = dot_read(&cursor, UINT64_MAX, &origin_last);
                vector_advance(&seen, dot.origin, dot.hlc);
        }
        return seen;
}

/* The visible value of two or more. */
static struct bytes shown(const struct crdt_env *env, const struct crdt_siblings *siblings)
{
        const struct crdt_native *native = env->native;
        struct bytes value = siblings->list[siblings->count - 1u].value;
        if (native->siblings_show == NULL ||
            !native->siblings_show(native->context, env->name, siblings->list, siblings->count,
                                   &value))
                value = siblings->list[siblings->count - 1u].value;
        return value;
}

/* Tells the native what is visible now. */
static void siblings_settle(struct crdt_env *env, struct crdt *crdt)
{
        struct crdt_siblings *siblings = crdt->siblings;
        struct bytes value = {0};
        if (siblings->count == 0)
                return;
        value = siblings->list[siblings->count - 1u].value;
        if (env->native != NULL) {
                if (siblings->count > 1)
                        value = shown(env, siblings);
                env->native->string_set(env->native->context, env->name, value,
                                        crdt_expire_at(crdt));
        }
        env->written = true;
        if (siblings->count == 1)
                value_leave(env, siblings);
}

void crdt_siblings_show(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->siblings == NULL || crdt->siblings->count < 2 || env->native == NULL)
                return;
        env->native->string_set(env->native->context, env->name, shown(env, crdt->siblings),
                                crdt_expire_at(crdt));
}

void siblings_sweep(struct crdt_env *env, struct crdt *crdt)
{
        struct crdt_siblings *siblings = crdt->siblings;
        struct stamp floor = crdt_floor(crdt, CRDT_SIBLINGS);
        for (unsigned i = siblings->count; i > 0; i--) {
                if (stamp_before(floor, siblings->list[i - 1].stamp))
                        continue;
                sibling_drop(&env->table, siblings, i - 1);
                env->siblings_dirty = true;
        }
}

void siblings_end(struct crdt_env *env, struct crdt *crdt)
{
        if (env->siblings_dirty && crdt->siblings != NULL)
                siblings_settle(env, crdt);
}

/* Drops what another write's `cuts` cover. */
static void siblings_cut(struct crdt_env *env, struct crdt_siblings *siblings,
                         const struct vector *cuts)
{
        for (unsigned i = siblings->count; i > 0; i--) {
                if (!vector_covers(cuts, siblings->list[i - 1].stamp))
                        continue;
                sibling_drop(&env->table, siblings, i - 1);
                env->siblings_dirty = true;
        }
}

void apply_sibling(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        bool removal = (delta->flags & CRDT_FLAG_REMOVED) != 0;
        struct vector cuts = cuts_of(delta->bounds);
        struct crdt_siblings *siblings = siblings_get(env, crdt);
        if (siblings == NULL)
                return;
        /* An earlier write of its own it may have lost by a crash; `seen` covers that all the
         * same. */
        vector_advance(&cuts, delta->stamp.origin, delta->stamp.hlc - 1);
        if (removal) {
                ttl_join(crdt, delta->ttl, 0);
        } else {
                last_raise(env, crdt, CRDT_SIBLINGS, delta->stamp,
                           (delta->flags & CRDT_FLAG_KNOWN) != 0);
                ttl_join(crdt, delta->stamp, delta->expire_at_ms);
        }
        bool counts = !removal && !vector_covers(&siblings->seen, delta->stamp) &&
                      stamp_before(crdt_floor(crdt, CRDT_SIBLINGS), delta->stamp);
        if (counts && siblings->count == 1 && !vector_covers(&cuts, siblings->list[0].stamp))
                value_fetch(env, siblings);
        bool all = vector_includes(&cuts, &siblings->seen);
        siblings_cut(env, siblings, &cuts);
        vector_merge(&siblings->seen, &cuts);
        vector_advance(&siblings->seen, delta->stamp.origin, delta->stamp.hlc);
        if (counts) {
                if (!all)
                        content_shows(crdt);
                crdt->evicted = false;
                sibling_add(env, siblings, delta->stamp, delta->value);
                env->siblings_dirty = true;
        }
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
}

void crdt_siblings_cuts(const struct crdt *crdt, struct buffer *buffer)
{
        static const struct vector none;
        vector_encode(crdt->siblings == NULL ? &none : &crdt->siblings->seen, buffer);
}

/* ---- the state as bytes */

void siblings_write(const struct crdt_env *env, const struct crdt *crdt, bool values,
                    struct buffer *buffer)
{
        const struct crdt_siblings *siblings = crdt->siblings;
        vector_encode(&siblings->seen, buffer);
        buffer_varint(buffer, siblings->count);
        for (unsigned i = 0; i < siblings->count; i++) {
                struct bytes value = siblings->list[i].value;
                bool there = siblings->held || values;
                stamp_write(buffer, siblings->list[i].stamp);
                if (!siblings->held && values &&
                    (env->native == NULL ||
                     !env->native->string_get(env->native->context, env->name, &value)))
                        value = (struct bytes){0};
                buffer_u8(buffer, there);
                if (there)
                        buffer_slice(buffer, value);
        }
}

struct told {
        struct stamp stamp;
        struct bytes value;
        bool there;
};

static struct told told_read(struct cursor *cursor, uint64_t hlc_max)
{
        struct told told = {.stamp = stamp_read(cursor, hlc_max, false)};
        uint8_t flag = cursor_u8(cursor);
        told.there = flag == 1;
        if (flag > 1)
                cursor_fail(cursor, ERR_MALFORMED);
        if (told.there)
                told.value = name_read(cursor);
        return told;
}

void siblings_check(struct cursor *cursor, uint64_t hlc_max, struct crdt_state *state)
{
        const uint8_t *from = cursor->at;
        struct vector seen = {0};
        struct stamp last = {0};
        bool held = true;
        vector_decode(cursor, &seen);
        for (unsigned i = 1; i <= CLOCK_REGIONS_MAX && !cursor_failed(cursor); i++) {
                if (seen.hlc[i] > hlc_max)
                        cursor_fail(cursor, ERR_REFUSED);
        }
        uint64_t count = cursor_varint_max(cursor, CLOCK_REGIONS_MAX);
        for (uint64_t i = 0; i < count && !cursor_failed(cursor); i++) {
                struct told told = told_read(cursor, hlc_max);
                held = held && told.there;
                if (!stamp_before(last, told.stamp) || !vector_covers(&seen, told.stamp) ||
                    (count > 1 && !held))
                        cursor_fail(cursor, ERR_MALFORMED);
                last = told.stamp;
        }
        state->siblings = cursor_since(cursor, from);
}

/* Of `crdt`, what the sender had seen and does not show goes. */
static void siblings_absent(struct crdt_env *env, struct crdt_siblings *siblings,
                            const struct vector *theirs, const struct told *told, uint64_t count,
                            const struct crdt_seen *sender)
{
        for (unsigned i = siblings->count; i > 0; i--) {
                struct stamp stamp = siblings->list[i - 1].stamp;
                bool there = false;
                for (uint64_t k = 0; k < count; k++)
                        there = there || stamp_compare(told[k].stamp, stamp) == 0;
                if (there || !(vector_covers(theirs, stamp) || crdt_seen_covers(sender, stamp)))
                        continue;
                sibling_drop(&env->table, siblings, i - 1);
                env->siblings_dirty = true;
        }
}

void merge_siblings(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                    const struct crdt_seen *sender)
{
        struct told told[CLOCK_REGIONS_MAX];
        struct vector theirs = {0};
        struct cursor cursor = cursor_of(state->siblings);
        uint64_t count = 0;
        if (state->siblings.len > 0) {
                vector_decode(&cursor, &theirs);
                count = cursor_varint(&cursor);
                for (uint64_t i = 0; i < count; i++)
                        told[i] = told_read(&cursor, UINT64_MAX);
        }
        if (crdt->siblings == NULL && state->siblings.len == 0)
                return;
        struct crdt_siblings *siblings = siblings_get(env, crdt);
        if (siblings == NULL)
                return;
        value_fetch(env, siblings);
        siblings_absent(env, siblings, &theirs, told, count, sender);
        struct stamp floor = crdt_floor(crdt, CRDT_SIBLINGS);
        for (uint64_t i = 0; i < count; i++) {
                if (vector_covers(&siblings->seen, told[i].stamp) || env_seen(env, told[i].stamp) ||
                    !stamp_before(floor, told[i].stamp) || sibling_there(siblings, told[i].stamp))
                        continue;
                sibling_add(env, siblings, told[i].stamp, told[i].value);
                env->siblings_dirty = true;
                siblings->held = told[i].there;
        }
        vector_merge(&siblings->seen, &theirs);
        if (!env->siblings_dirty && siblings->count == 1)
                value_leave(env, siblings);
}

uint64_t siblings_newest(const struct crdt *crdt)
{
        uint64_t newest = 0;
        for (unsigned i = 1; crdt->siblings != NULL && i <= CLOCK_REGIONS_MAX; i++) {
                uint64_t hlc = crdt->siblings->seen.hlc[i];
                newest = hlc > newest ? hlc : newest;
        }
        return newest;
}
