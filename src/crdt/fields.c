/* fields.c - fields of hashes. A field has a base: the last HSET or HDEL, of which the later stamp
 * wins; and it may have increments, which are a counter (counter.h) beside it, its tally. An HSET,
 * an HDEL, a DEL and an expiry take away the increments that they had observed, and no others: an
 * HINCRBY that an HDEL had not seen leaves a field of that amount.
 *
 * A tally is made by the first increment. It stays until every region has seen its last change, for
 * it says what later totals of the same origin are to be reduced by.
 *
 * Nothing fails but memory: env->err is then set and the element left out. */
#include "crdt/counter.h"
#include "crdt/crdt_priv.h"
#include "crdt/lists.h"

#include "base/check.h"

enum {
        FIELD_REMOVED = 1,
        FIELD_TALLY = 2,
};

void tally_free(const struct table_env *env, struct item *item)
{
        counter_free(env, &item->tally->counter);
        heap_free(env->heap, item->tally);
        item->tally = NULL;
        item->node.kind = ITEM_PLAIN;
}

static struct tally *tally_make(struct crdt_env *env, struct crdt *crdt, struct item *item)
{
        struct tally *tally = tally_of(item);
        if (tally != NULL)
                return tally;
        tally = heap_alloc(env->table.heap, sizeof *tally);
        if (tally == NULL) {
                env->err = ERR_NOMEM;
                return NULL;
        }
        tally->shown = item_visible(item);
        item->tally = tally;
        item->node.kind = ITEM_TALLY;
        crdt->fields->tallies++;
        return tally;
}

static void tally_drop(struct crdt_env *env, struct crdt *crdt, struct item *item)
{
        CHECK(crdt->fields->tallies > 0);
        crdt->fields->tallies--;
        tally_free(&env->table, item);
}

bool field_base_there(struct item *item)
{
        return item->one.count == 1 && !item->one.removed;
}

static bool field_counted(const struct crdt *crdt, struct item *item)
{
        return tally_of(item) != NULL &&
               counter_counts(&item->tally->counter, crdt_rival(crdt, CRDT_HASH));
}

static bool field_shown(struct item *item)
{
        return tally_of(item) != NULL ? item->tally->shown : field_base_there(item);
}

static struct item *field_get(struct crdt_env *env, struct crdt *crdt, struct bytes field)
{
        uint64_t hash = items_hash(env, field);
        struct item *item = items_find_hashed(env, crdt->fields, field, hash);
        return item != NULL ? item : items_add(env, &crdt->fields, field, hash);
}

/* What the native is to hold of a field with increments: false where it is what it has. */
static bool tally_show(struct crdt_env *env, const struct crdt *crdt, struct item *item,
                       struct bytes field)
{
        struct buffer text;
        buffer_init(&text, env->table.heap);
        bool made = counter_text(&item->tally->counter, field_base_there(item),
                                 crdt_rival(crdt, CRDT_HASH), &text);
        if (text.err != ERR_NONE)
                env->err = ERR_NOMEM;
        else if (made && env->native != NULL)
                env->native->hash_set(env->native->context, env->name, field, buffer_view(&text));
        buffer_fini(&text);
        return made;
}

/* Shows a field after a change of it. `written`: the base is new, with that value. */
static void field_show(struct crdt_env *env, struct crdt *crdt, struct item *item, bool was,
                       bool written, struct bytes value)
{
        struct tally *tally = tally_of(item);
        struct bytes field = node_key(&item->node);
        bool now = field_base_there(item) || field_counted(crdt, item);
        items_live(env, crdt->fields, was, now);
        if (tally != NULL) {
                tally->shown = now;
                tally->dirty = false;
        }
        if (now && tally != NULL && tally_show(env, crdt, item, field))
                return;
        if (env->native == NULL)
                return;
        if (now && written)
                env->native->hash_set(env->native->context, env->name, field, value);
        else if (was && !now)
                env->native->hash_delete(env->native->context, env->name, field);
}

static void base_learn_text(struct crdt_env *env, struct crdt_counter *counter, struct bytes value)
{
        if (counter_learn(&env->table, counter, value) != ERR_NONE)
                env->err = ERR_NOMEM;
}

static void base_put(struct crdt_env *env, struct item *item, struct stamp stamp, bool removed,
                     struct bytes value)
{
        item->one.count = 1;
        dot_write(&item->one, stamp, removed);
        if (tally_of(item) == NULL)
                return;
        counter_forget(&env->table, &item->tally->counter);
        if (!removed)
                base_learn_text(env, &item->tally->counter, value);
}

/* The same stamp again: one HSET that names a field twice; the last value counts. */
static bool base_is_newer(const struct item *item, struct stamp stamp)
{
        return item->one.count == 0 || !stamp_before(stamp, dot_stamp(item->one));
}

static void base_write(struct crdt_env *env, struct crdt *crdt, struct bytes field, uint64_t hash,
                       struct stamp stamp, bool removed, struct bytes value)
{
        struct item *item = items_find_hashed(env, crdt->fields, field, hash);
        if (item != NULL && !base_is_newer(item, stamp))
                return;
        if (item == NULL)
                item = items_add(env, &crdt->fields, field, hash);
        if (item == NULL)
                return;
        bool was = field_shown(item);
        base_put(env, item, stamp, removed, value);
        field_show(env, crdt, item, was, !removed, value);
}

void field_join(struct crdt_env *env, struct crdt *crdt, struct bytes field, struct stamp stamp,
                bool removed, struct bytes value)
{
        if (stamp_before(crdt_floor(crdt, CRDT_HASH), stamp))
                base_write(env, crdt, field, items_hash(env, field), stamp, removed, value);
}

void field_put(struct crdt_env *env, struct crdt *crdt, struct bytes field, uint64_t hash,
               struct stamp stamp)
{
        base_write(env, crdt, field, hash, stamp, false, (struct bytes){0});
}

/* ---- increments */

/* The first increment on a base whose value only the native has. */
static void base_ask(struct crdt_env *env, struct item *item)
{
        struct bytes value;
        struct crdt_counter *counter = &item->tally->counter;
        if (field_base_there(item) && counter->base_kind == CRDT_BASE_NATIVE &&
            env->native != NULL &&
            env->native->hash_get(env->native->context, env->name, node_key(&item->node), &value))
                base_learn_text(env, counter, value);
}

/* A log tells the base with the delta, for the native is ahead of it. */
static void base_take(struct crdt_env *env, struct item *item, const struct crdt_delta *delta)
{
        struct crdt_counter *counter = &item->tally->counter;
        bool own = env->seen != NULL && delta->stamp.origin == env->seen->self;
        if (!own || (delta->flags & CRDT_FLAG_BASE) == 0)
                base_ask(env, item);
        else if (field_base_there(item) && counter->base_kind == CRDT_BASE_NATIVE)
                base_learn_text(env, counter, delta->value);
}

static struct crdt_count *tally_slot(struct crdt_env *env, struct tally *tally, region_id origin,
                                     uint8_t life)
{
        struct crdt_count *count = counter_slot(&env->table, &tally->counter, origin, life);
        if (count == NULL)
                env->err = ERR_NOMEM;
        return count;
}

static void tally_touch(struct tally *tally, uint64_t hlc)
{
        tally->touched = tally->touched > hlc ? tally->touched : hlc;
}

void field_count(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct item *item = field_get(env, crdt, delta->field);
        struct tally *tally = item == NULL ? NULL : tally_make(env, crdt, item);
        struct crdt_count *count =
                tally == NULL ? NULL : tally_slot(env, tally, delta->stamp.origin, delta->part);
        if (count == NULL)
                return;
        bool was = tally->shown;
        base_take(env, item, delta);
        count_raise(count, delta->stamp.hlc, delta->total);
        if ((delta->flags & CRDT_FLAG_CUTS) != 0)
                count_cut(count, delta->cut_hlc, delta->cut);
        tally_touch(tally, delta->stamp.hlc);
        field_show(env, crdt, item, was, false, (struct bytes){0});
}

static void field_cut(struct crdt_env *env, struct crdt *crdt, struct bytes field,
                      struct cursor *cursor, uint64_t hlc, bool quiet)
{
        struct item *item = field_get(env, crdt, field);
        struct tally *tally = item == NULL ? NULL : tally_make(env, crdt, item);
        unsigned part_last = 0;
        uint64_t cuts = cursor_varint(cursor);
        for (uint64_t i = 0; i < cuts; i++) {
                struct crdt_count cut = cut_read(cursor, UINT64_MAX, &part_last);
                struct crdt_count *count =
                        tally == NULL ? NULL : tally_slot(env, tally, cut.origin, cut.life);
                if (count != NULL && count_cut(count, cut.cut_hlc, cut.cut))
                        tally->dirty = true;
        }
        if (tally == NULL)
                return;
        tally_touch(tally, hlc);
        if (!quiet && tally->dirty)
                field_show(env, crdt, item, tally->shown, false, (struct bytes){0});
}

void fields_cut(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta, bool quiet)
{
        env->fields_cut = env->fields_cut || delta->elements.len > 0;
        struct cursor cursor = cursor_of(delta->elements);
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                struct bytes field = name_read(&cursor);
                field_cut(env, crdt, field, &cursor, delta->stamp.hlc, quiet);
        }
        CHECK(!cursor_failed(&cursor));
}

/* ---- sweeps */

static bool base_survives(const struct items_sweep *sweep, struct item *item)
{
        return field_base_there(item) &&
               stamp_before(crdt_floor(sweep->crdt, CRDT_HASH), dot_stamp(item->one));
}

static bool field_survives(struct items_sweep *sweep, struct item *item)
{
        return base_survives(sweep, item) || field_counted(sweep->crdt, item);
}

static void base_drop(struct crdt_env *env, struct item *item)
{
        item->one.count = 0;
        dot_write(&item->one, (struct stamp){0}, false);
        if (tally_of(item) != NULL)
                counter_forget(&env->table, &item->tally->counter);
}

/* Shows what a sweep left of a field; true where nothing is left, and it is freed. */
static bool field_swept(struct items_sweep *sweep, struct item *item, bool was)
{
        struct crdt_env *env = sweep->env;
        const struct crdt_native *native = env->native;
        if (sweep->quiet)
                env->native = NULL;
        field_show(env, sweep->crdt, item, was, false, (struct bytes){0});
        env->native = native;
        return item->one.count == 0 && tally_of(item) == NULL && item_free(&env->table, item);
}

static bool field_sweep(void *context, struct node *node)
{
        struct items_sweep *sweep = context;
        struct item *item = item_of(node);
        bool was = field_shown(item);
        bool dead = item->one.count == 1 &&
                    !stamp_before(crdt_floor(sweep->crdt, CRDT_HASH), dot_stamp(item->one));
        if (dead)
                base_drop(sweep->env, item);
        if (!dead && tally_of(item) == NULL)
                return false;
        return field_swept(sweep, item, was);
}

void fields_sweep(struct crdt_env *env, struct crdt *crdt)
{
        struct items_sweep sweep = {.env = env, .crdt = crdt};
        items_sweep_run(&sweep, &crdt->fields, field_survives, field_sweep);
}

static bool base_told(const struct items_sweep *sweep, struct item *item)
{
        return item->one.count == 0 || item->one.removed || item_named(sweep, item) ||
               !crdt_seen_covers(sweep->sender, dot_stamp(item->one));
}

/* Told ones have been cut where they were merged. */
static bool field_told_survives(struct items_sweep *sweep, struct item *item)
{
        struct tally *tally = tally_of(item);
        if (tally != NULL && !item_named(sweep, item) &&
            counter_absent(&tally->counter, (struct bytes){0}, sweep->sender))
                tally->dirty = true;
        return (field_base_there(item) && base_told(sweep, item)) ||
               field_counted(sweep->crdt, item);
}

static bool field_absent(void *context, struct node *node)
{
        struct items_sweep *sweep = context;
        struct item *item = item_of(node);
        bool was = field_shown(item);
        bool told = base_told(sweep, item);
        field_told_survives(sweep, item);
        if (!told)
                base_drop(sweep->env, item);
        if (told && (tally_of(item) == NULL || !item->tally->dirty))
                return false;
        return field_swept(sweep, item, was);
}

void fields_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender,
                   struct table_class class)
{
        struct items_sweep sweep = {.env = env, .crdt = crdt, .sender = sender, .class = class};
        items_sweep_run(&sweep, &crdt->fields, field_told_survives, field_absent);
}

static bool field_flush_survives(struct items_sweep *sweep, struct item *item)
{
        return (field_base_there(item) && !crdt_seen_covers(sweep->sender, dot_stamp(item->one))) ||
               field_counted(sweep->crdt, item);
}

static bool field_flush(void *context, struct node *node)
{
        struct items_sweep *sweep = context;
        struct item *item = item_of(node);
        bool was = field_shown(item);
        if (!field_base_there(item) || !crdt_seen_covers(sweep->sender, dot_stamp(item->one)))
                return false;
        item->one.removed = true;
        if (tally_of(item) != NULL)
                counter_forget(&sweep->env->table, &item->tally->counter);
        return field_swept(sweep, item, was);
}

void fields_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen)
{
        struct items_sweep sweep = {.env = env, .crdt = crdt, .sender = seen};
        items_sweep_run(&sweep, &crdt->fields, field_flush_survives, field_flush);
}

/* ---- state */

/* The text of the base, which a sum may hide. */
static void base_text(const struct crdt_env *env, struct item *item, struct buffer *buffer)
{
        struct bytes value = {0};
        const struct tally *tally = tally_of(item);
        enum crdt_base kind =
                tally == NULL ? CRDT_BASE_NATIVE : (enum crdt_base)tally->counter.base_kind;
        if (kind == CRDT_BASE_INT) {
                struct buffer text;
                buffer_init(&text, env->table.heap);
                buffer_format(&text, "%lld", (long long)tally->counter.base_int);
                buffer_slice(buffer, buffer_view(&text));
                buffer_fini(&text);
                return;
        }
        if (kind == CRDT_BASE_FLOAT)
                value = tally->counter.base_text;
        else if (env->native == NULL || !env->native->hash_get(env->native->context, env->name,
                                                               node_key(&item->node), &value))
                value = (struct bytes){0};
        buffer_slice(buffer, value);
}

void field_write_state(const struct crdt_env *env, struct item *item, enum crdt_state_kind kind,
                       struct buffer *buffer)
{
        const struct tally *tally = tally_of(item);
        bool removed = item->one.count == 1 && item->one.removed;
        buffer_slice(buffer, node_key(&item->node));
        stamp_write(buffer, dot_stamp(item->one));
        buffer_u8(buffer,
                  (uint8_t)((removed ? FIELD_REMOVED : 0) | (tally != NULL ? FIELD_TALLY : 0)));
        if (kind == CRDT_STATE_VALUES && field_base_there(item))
                base_text(env, item, buffer);
        if (tally == NULL)
                return;
        if (kind == CRDT_STATE_SAVED) {
                counter_base_save(&tally->counter, buffer);
                buffer_u64(buffer, tally->touched);
        }
        counter_write(&tally->counter, buffer);
}

struct field_told field_read_state(struct cursor *cursor, enum crdt_state_kind kind,
                                   uint64_t hlc_max)
{
        struct field_told field = {.name = name_read(cursor), .saved = kind == CRDT_STATE_SAVED};
        field.stamp = stamp_read(cursor, hlc_max, true);
        uint8_t flags = cursor_u8(cursor);
        field.removed = (flags & FIELD_REMOVED) != 0;
        field.tallied = (flags & FIELD_TALLY) != 0;
        if (flags > (FIELD_REMOVED | FIELD_TALLY) ||
            (!stamp_is(field.stamp) && (field.removed || !field.tallied)))
                cursor_fail(cursor, ERR_MALFORMED);
        if (kind == CRDT_STATE_VALUES && stamp_is(field.stamp) && !field.removed)
                field.value = name_read(cursor);
        if (!field.tallied)
                return field;
        if (kind == CRDT_STATE_SAVED) {
                field.value = counter_base_read(cursor, &field.base);
                field.touched = cursor_u64(cursor);
        }
        field.counts = counter_check(cursor, hlc_max);
        return field;
}

static void tally_merge(struct crdt_env *env, struct tally *tally, const struct field_told *told,
                        const struct crdt_seen *sender)
{
        struct cursor cursor = cursor_of(told->counts);
        unsigned part_last = 0;
        uint64_t count = told->counts.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_count one = count_read_one(&cursor, UINT64_MAX, &part_last);
                struct crdt_count *own = tally_slot(env, tally, one.origin, one.life);
                if (own == NULL)
                        return;
                struct stamp stamp = {one.hlc, one.origin};
                if (one.hlc != 0 && !env_seen(env, stamp))
                        tally->dirty = count_raise(own, one.hlc, one.total) || tally->dirty;
                if (one.cut_hlc != 0)
                        tally->dirty = count_cut(own, one.cut_hlc, one.cut) || tally->dirty;
        }
        if (counter_absent(&tally->counter, told->counts, sender))
                tally->dirty = true;
        tally_touch(tally, told->touched);
        tally_touch(tally, vector_newest(&sender->vector));
}

/* This region's own storage has kept the base, and not the value. */
static void base_load(struct crdt_env *env, struct item *item, const struct field_told *told)
{
        struct crdt_counter *counter = &item->tally->counter;
        counter_forget(&env->table, counter);
        if (told->base.base_kind == CRDT_BASE_FLOAT)
                base_learn_text(env, counter, told->value);
        else
                counter->base_kind = told->base.base_kind;
        counter->base_int = told->base.base_int;
}

/* The sender had seen what is here and shows less of the field: it was removed there, and that is
 * forgotten. */
static bool base_lost(struct item *item, const struct field_told *told,
                      const struct crdt_seen *sender)
{
        return field_base_there(item) && stamp_before(told->stamp, dot_stamp(item->one)) &&
               crdt_seen_covers(sender, dot_stamp(item->one));
}

void field_merge(struct crdt_env *env, struct crdt *crdt, const struct field_told *told,
                 const struct crdt_seen *sender)
{
        struct item *item = items_find(env, crdt->fields, told->name);
        bool written = stamp_is(told->stamp) && (told->removed || !env_seen(env, told->stamp)) &&
                       stamp_before(crdt_floor(crdt, CRDT_HASH), told->stamp) &&
                       (item == NULL || base_is_newer(item, told->stamp));
        if (item == NULL && (written || told->tallied))
                item = field_get(env, crdt, told->name);
        if (item == NULL)
                return;
        bool was = field_shown(item);
        bool lost = !written && base_lost(item, told, sender);
        item->one.mark = crdt->round;
        if (lost)
                base_drop(env, item);
        if (told->tallied || tally_of(item) != NULL) {
                if (tally_make(env, crdt, item) == NULL)
                        return;
                if (!written)
                        base_ask(env, item);
                tally_merge(env, item->tally, told, sender);
        }
        if (written) {
                base_put(env, item, told->stamp, told->removed, told->value);
                if (tally_of(item) != NULL && told->saved)
                        base_load(env, item, told);
        }
        if (written || lost || (tally_of(item) != NULL && item->tally->dirty))
                field_show(env, crdt, item, was, written && !told->removed, told->value);
        if (item->one.count == 0 && tally_of(item) == NULL)
                items_drop(env, &crdt->fields, item);
}

/* ---- what is remembered */

bool field_collect(struct crdt_env *env, struct crdt *crdt, struct item *item, uint64_t stable)
{
        struct tally *tally = tally_of(item);
        if (tally != NULL && (tally->touched > stable || field_counted(crdt, item)))
                return false;
        if (tally != NULL)
                tally_drop(env, crdt, item);
        return item->one.count == 0 || (item->one.removed && item->one.hlc <= stable);
}

uint64_t fields_digest(const struct crdt *crdt, bool all)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        struct node *node = crdt->fields == NULL ? NULL : table_next(&crdt->fields->table, &walk);
        for (; node != NULL; node = table_next(&crdt->fields->table, &walk)) {
                struct item *item = item_of(node);
                uint64_t hash = hash_fnv(HASH_FNV_START, node_key(node));
                bool base = item->one.count == 1 && (all || !item->one.removed);
                if (base)
                        hash = hash_fnv_u64(
                                hash_fnv_u64(hash_fnv_u64(hash, item->one.hlc), item->one.origin),
                                item->one.removed);
                if (tally_of(item) != NULL)
                        hash = counter_digest(hash, &item->tally->counter,
                                              crdt_rival(crdt, CRDT_HASH), all);
                sum += base || field_counted(crdt, item) || (all && tally_of(item) != NULL) ? hash
                                                                                            : 0;
        }
        return sum;
}
