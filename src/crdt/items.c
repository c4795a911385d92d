/* What fields of hashes (fields.c) and members of sets have in common, and members. A member is a
 * dot per origin: it is there while one dot is. Removing takes exactly the dots that are named;
 * one that has not come yet is remembered until the version vector says that it has.
 *
 * Nothing fails but memory: env->err is then set and the element left out. */
#include "crdt/crdt_priv.h"

#include "base/check.h"

#include <stddef.h>

enum {
        ITEM_SPACE = 0,
};

static size_t item_size(size_t key_len)
{
        return offsetof(struct item, key) + key_len;
}

bool item_free(const struct table_env *env, struct item *item)
{
        if (item->node.kind == ITEM_TALLY)
                tally_free(env, item);
        else
                heap_free(env->heap, item->many);
        heap_give(env->heap, item, item_size(item->node.key_len));
        return true;
}

void items_free(const struct table_env *env, struct crdt_items **slot)
{
        struct crdt_items *items = *slot;
        if (items == NULL)
                return;
        struct table_walk walk = {0};
        struct node *node = table_next(&items->table, &walk);
        while (node != NULL) {
                struct node *next = table_next(&items->table, &walk);
                item_free(env, item_of(node));
                node = next;
        }
        table_fini(env, &items->table);
        heap_free(env->heap, items);
        *slot = NULL;
}

uint64_t items_hash(const struct crdt_env *env, struct bytes name)
{
        return table_hash(&env->table, ITEM_SPACE, name);
}

struct item *items_find_hashed(struct crdt_env *env, struct crdt_items *items, struct bytes name,
                               uint64_t hash)
{
        if (items == NULL)
                return NULL;
        struct node *node = table_find_hashed(&env->table, &items->table, hash, ITEM_SPACE, name);
        return node == NULL ? NULL : item_of(node);
}

struct item *items_find(struct crdt_env *env, struct crdt_items *items, struct bytes name)
{
        return items == NULL ? NULL : items_find_hashed(env, items, name, items_hash(env, name));
}

struct item *items_add(struct crdt_env *env, struct crdt_items **slot, struct bytes name,
                       uint64_t hash)
{
        if (*slot == NULL)
                *slot = heap_alloc(env->table.heap, sizeof **slot);
        struct item *item = *slot == NULL ? NULL : heap_take(env->table.heap, item_size(name.len));
        if (item == NULL) {
                env->err = ERR_NOMEM;
                return NULL;
        }
        item->node.key_len = (uint32_t)name.len;
        item->node.key_at = offsetof(struct item, key);
        if (name.len > 0)
                memcpy(item->key, name.ptr, name.len);
        if (!table_insert_hashed(&env->table, &(*slot)->table, hash, &item->node)) {
                item_free(&env->table, item);
                env->err = ERR_NOMEM;
                return NULL;
        }
        return item;
}

void items_drop(struct crdt_env *env, struct crdt_items **slot, struct item *item)
{
        table_remove(&env->table, &(*slot)->table, &item->node);
        item_free(&env->table, item);
        if ((*slot)->table.count == 0)
                items_free(&env->table, slot);
}

void items_live(struct crdt_env *env, struct crdt_items *items, bool was, bool now)
{
        if (now && !was)
                items->live++;
        if (was && !now) {
                CHECK(items->live > 0);
                items->live--;
                if (items->live == 0)
                        env->fresh = true;
        }
}

bool item_visible(struct item *item)
{
        const struct crdt_dot *dots = item_dots(item);
        for (unsigned i = 0; i < item->one.count; i++) {
                if (!dots[i].removed)
                        return true;
        }
        return false;
}

struct crdt_dot *item_dot(struct item *item, region_id origin)
{
        struct crdt_dot *dots = item_dots(item);
        for (unsigned i = 0; i < item->one.count; i++) {
                if (dots[i].origin == origin)
                        return &dots[i];
        }
        return NULL;
}

void dot_write(struct crdt_dot *dot, struct stamp stamp, bool removed)
{
        dot->hlc = stamp.hlc;
        dot->origin = stamp.origin;
        dot->removed = removed;
}

static void item_dot_insert(struct crdt_env *env, struct item *item, struct stamp stamp,
                            bool removed)
{
        unsigned count = item->one.count;
        if (count == 0) {
                dot_write(&item->one, stamp, removed);
                item->one.count = 1;
                return;
        }
        CHECK(count < CLOCK_REGIONS_MAX);
        struct crdt_dot *many =
                heap_resize(env->table.heap, item->many, (count + 1) * sizeof *many);
        if (many == NULL) {
                env->err = ERR_NOMEM;
                return;
        }
        if (count == 1)
                many[0] = item->one;
        unsigned at = count;
        for (; at > 0 && many[at - 1].origin > stamp.origin; at--)
                many[at] = many[at - 1];
        dot_write(&many[at], stamp, removed);
        item->many = many;
        item->one.count = (uint8_t)(count + 1);
}

void item_dot_put(struct crdt_env *env, struct item *item, struct stamp stamp, bool removed)
{
        struct crdt_dot *dot = item_dot(item, stamp.origin);
        if (dot != NULL)
                dot_write(dot, stamp, removed);
        else
                item_dot_insert(env, item, stamp, removed);
}

static void item_dot_drop(struct crdt_env *env, struct item *item, unsigned index)
{
        unsigned count = item->one.count;
        CHECK(index < count);
        struct crdt_dot *dots = item_dots(item);
        for (unsigned i = index + 1; i < count; i++)
                dots[i - 1] = dots[i];
        if (count == 2) {
                dot_write(&item->one, dot_stamp(dots[0]), dots[0].removed);
                heap_free(env->table.heap, item->many);
                item->many = NULL;
        }
        item->one.count = (uint8_t)(count - 1);
}

/* One that was seen goes. It took the place of earlier ones of its origin, so where one of them may
 * still come, it is remembered. */
static void item_dot_retire(struct crdt_env *env, struct item *item, unsigned index)
{
        struct crdt_dot *dot = &item_dots(item)[index];
        if (env_seen_through(env, dot_stamp(*dot)))
                item_dot_drop(env, item, index);
        else
                dot->removed = true;
}

/* ---- sweeps */

/* Whether nothing visible will be left: then the native key goes in one call. */
static bool sweep_takes_all(struct items_sweep *sweep,
                            bool (*survives)(struct items_sweep *sweep, struct item *item))
{
        struct table_walk walk = {0};
        struct node *node = table_next(&sweep->items->table, &walk);
        for (; node != NULL; node = table_next(&sweep->items->table, &walk)) {
                if (survives(sweep, item_of(node)))
                        return false;
        }
        return true;
}

void items_sweep_run(struct items_sweep *sweep, struct crdt_items **slot,
                     bool (*survives)(struct items_sweep *sweep, struct item *item),
                     bool (*drop)(void *context, struct node *node))
{
        sweep->items = *slot;
        if (sweep->items == NULL)
                return;
        struct crdt_env *env = sweep->env;
        if (sweep->class.bits == 0 && sweep->items->live > 0 && sweep_takes_all(sweep, survives)) {
                sweep->quiet = true;
                env->fresh = true;
                if (env->native != NULL)
                        env->native->key_delete(env->native->context, env->name);
        }
        table_sweep_class(&sweep->items->table, sweep->class, drop, sweep);
        if (sweep->items->table.count == 0)
                items_free(&env->table, slot);
}

/* ---- sets */

static uint64_t bound_of(const struct crdt *crdt, region_id origin)
{
        for (unsigned i = 0; i < crdt->bound_count; i++) {
                if (crdt->bounds[i].origin == origin)
                        return crdt->bounds[i].hlc;
        }
        return 0;
}

bool dot_dead(const struct crdt *crdt, enum crdt_type type, struct stamp dot)
{
        return !stamp_before(crdt_rival(crdt, type), dot) || dot.hlc <= bound_of(crdt, dot.origin);
}

static void member_changed(struct crdt_env *env, struct crdt *crdt, struct item *item, bool was)
{
        bool now = item_visible(item);
        items_live(env, crdt->members, was, now);
        if (env->native != NULL && now && !was)
                env->native->set_add(env->native->context, env->name, node_key(&item->node));
        if (env->native != NULL && was && !now)
                env->native->set_remove(env->native->context, env->name, node_key(&item->node));
        if (item->one.count == 0)
                items_drop(env, &crdt->members, item);
}

void member_put(struct crdt_env *env, struct crdt *crdt, struct bytes member, uint64_t hash,
                struct stamp dot)
{
        struct item *item = items_find_hashed(env, crdt->members, member, hash);
        const struct crdt_dot *older = item == NULL ? NULL : item_dot(item, dot.origin);
        if (older != NULL && older->hlc >= dot.hlc)
                return;
        if (item == NULL)
                item = items_add(env, &crdt->members, member, hash);
        if (item == NULL)
                return;
        bool was = item_visible(item);
        item_dot_put(env, item, dot, false);
        member_changed(env, crdt, item, was);
}

void member_add(struct crdt_env *env, struct crdt *crdt, struct bytes member, struct stamp dot)
{
        if (!dot_dead(crdt, CRDT_SET, dot))
                member_put(env, crdt, member, items_hash(env, member), dot);
}

void member_remove(struct crdt_env *env, struct crdt *crdt, struct bytes member, struct stamp dot)
{
        if (dot_dead(crdt, CRDT_SET, dot))
                return;
        bool remember = !env_seen_through(env, dot);
        uint64_t hash = items_hash(env, member);
        struct item *item = items_find_hashed(env, crdt->members, member, hash);
        struct crdt_dot *there = item == NULL ? NULL : item_dot(item, dot.origin);
        if (there == NULL ? !remember : there->hlc > dot.hlc)
                return;
        if (item == NULL)
                item = items_add(env, &crdt->members, member, hash);
        if (item == NULL)
                return;
        bool was = item_visible(item);
        if (remember || (there->removed && !env_settled(env, dot)))
                item_dot_put(env, item, dot, true);
        else
                item_dot_drop(env, item, (unsigned)(there - item_dots(item)));
        member_changed(env, crdt, item, was);
}

static bool member_survives(struct items_sweep *sweep, struct item *item)
{
        const struct crdt_dot *dots = item_dots(item);
        for (unsigned i = 0; i < item->one.count; i++) {
                if (!dots[i].removed && !dot_dead(sweep->crdt, CRDT_SET, dot_stamp(dots[i])))
                        return true;
        }
        return false;
}

/* After dots went: what that means for the member. True: the item is freed. */
static bool member_swept(struct items_sweep *sweep, struct item *item, bool was)
{
        struct crdt_env *env = sweep->env;
        bool now = item_visible(item);
        items_live(env, sweep->items, was, now);
        if (was && !now && env->native != NULL && !sweep->quiet)
                env->native->set_remove(env->native->context, env->name, node_key(&item->node));
        return item->one.count == 0 && item_free(&env->table, item);
}

static bool member_sweep(void *context, struct node *node)
{
        struct items_sweep *sweep = context;
        struct item *item = item_of(node);
        bool was = item_visible(item);
        for (unsigned i = item->one.count; i > 0; i--) {
                if (dot_dead(sweep->crdt, CRDT_SET, dot_stamp(item_dots(item)[i - 1])))
                        item_dot_drop(sweep->env, item, i - 1);
        }
        return member_swept(sweep, item, was);
}

void members_sweep(struct crdt_env *env, struct crdt *crdt)
{
        struct items_sweep sweep = {.env = env, .crdt = crdt};
        items_sweep_run(&sweep, &crdt->members, member_survives, member_sweep);
}

static bool dot_told(const struct items_sweep *sweep, const struct crdt_dot *dot)
{
        return dot->removed || !crdt_seen_covers(sweep->sender, dot_stamp(*dot));
}

static bool member_told_survives(struct items_sweep *sweep, struct item *item)
{
        const struct crdt_dot *dots = item_dots(item);
        for (unsigned i = 0; i < item->one.count; i++) {
                if (!dots[i].removed && (item_named(sweep, item) || dot_told(sweep, &dots[i])))
                        return true;
        }
        return false;
}

static bool member_absent(void *context, struct node *node)
{
        struct items_sweep *sweep = context;
        struct item *item = item_of(node);
        bool was = item_visible(item);
        for (unsigned i = item->one.count; i > 0 && !item_named(sweep, item); i--) {
                if (!dot_told(sweep, &item_dots(item)[i - 1]))
                        item_dot_retire(sweep->env, item, i - 1);
        }
        return member_swept(sweep, item, was);
}

void members_absent(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *sender,
                    struct table_class class)
{
        struct items_sweep sweep = {.env = env, .crdt = crdt, .sender = sender, .class = class};
        items_sweep_run(&sweep, &crdt->members, member_told_survives, member_absent);
}

static bool member_flush_survives(struct items_sweep *sweep, struct item *item)
{
        const struct crdt_dot *dots = item_dots(item);
        for (unsigned i = 0; i < item->one.count; i++) {
                if (!dots[i].removed && dot_told(sweep, &dots[i]))
                        return true;
        }
        return false;
}

static bool member_flush(void *context, struct node *node)
{
        struct items_sweep *sweep = context;
        struct item *item = item_of(node);
        bool was = item_visible(item);
        for (unsigned i = item->one.count; i > 0; i--) {
                if (!dot_told(sweep, &item_dots(item)[i - 1]))
                        item_dot_retire(sweep->env, item, i - 1);
        }
        return member_swept(sweep, item, was);
}

void members_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen)
{
        struct items_sweep sweep = {.env = env, .crdt = crdt, .sender = seen};
        items_sweep_run(&sweep, &crdt->members, member_flush_survives, member_flush);
}

void member_absent_dots(struct crdt_env *env, struct crdt *crdt, struct bytes member,
                        const struct vector *told, const struct crdt_seen *sender)
{
        struct item *item = items_find(env, crdt->members, member);
        if (item == NULL)
                return;
        bool was = item_visible(item);
        item->one.mark = crdt->round;
        for (unsigned i = item->one.count; i > 0; i--) {
                struct crdt_dot dot = item_dots(item)[i - 1];
                if (!dot.removed && !vector_covers(told, dot_stamp(dot)) &&
                    crdt_seen_covers(sender, dot_stamp(dot)))
                        item_dot_retire(env, item, i - 1);
        }
        member_changed(env, crdt, item, was);
}

void bounds_join(struct crdt_env *env, struct crdt *crdt, struct stamp bound)
{
        unsigned at = 0;
        bool early = !env_seen_through(env, bound);
        while (at < crdt->bound_count && crdt->bounds[at].origin < bound.origin)
                at++;
        if (at < crdt->bound_count && crdt->bounds[at].origin == bound.origin) {
                if (crdt->bounds[at].hlc < bound.hlc) {
                        crdt->bounds[at].hlc = bound.hlc;
                        env->bounds_rose = true;
                }
                crdt->bounds[at].removed = crdt->bounds[at].removed || early;
                return;
        }
        struct crdt_dot *bounds = heap_resize(env->table.heap, crdt->bounds,
                                              (crdt->bound_count + 1u) * sizeof *bounds);
        if (bounds == NULL) {
                env->err = ERR_NOMEM;
                return;
        }
        for (unsigned i = crdt->bound_count; i > at; i--)
                bounds[i] = bounds[i - 1];
        bounds[at] = (struct crdt_dot){.hlc = bound.hlc, .origin = bound.origin, .removed = early};
        crdt->bounds = bounds;
        crdt->bound_count++;
        env->bounds_rose = true;
}

void bounds_prune(const struct crdt_env *env, struct crdt *crdt)
{
        unsigned kept = 0;
        for (unsigned i = 0; i < crdt->bound_count; i++) {
                struct stamp bound = dot_stamp(crdt->bounds[i]);
                if (!env_seen_through(env, bound) ||
                    (crdt->bounds[i].removed && !env_settled(env, bound)))
                        crdt->bounds[kept++] = crdt->bounds[i];
        }
        crdt->bound_count = (uint8_t)kept;
        if (kept == 0) {
                heap_free(env->table.heap, crdt->bounds);
                crdt->bounds = NULL;
        }
}
