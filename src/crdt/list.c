/* Lists: elements are added with a name and a place that never change (list.h), and removed by the
 * name. A name that is removed before it came is remembered until the version vector covers its
 * stamp: then it cannot come any more. A new value (LSET) is the last write on the same name; where
 * the element has not come yet, the value waits for it.
 *
 * The native list is changed along, by index: what is alive here is there, in the same order.
 * Nothing fails but memory: env->err is then set and the element left out. */
#include "crdt/list.h"

#include "base/check.h"
#include "crdt/lists.h"

#include <stddef.h>

enum {
        STAMP_KEY_LEN = 9,
        NAME_KEY_LEN = STAMP_KEY_LEN + 4,
        TABLE_SPACE = 0,
};

/* Where the elements of an insertion between others stand. */
struct place {
        struct node node;
        uint64_t elements;
        int64_t position;
        size_t prefix_len;
        uint8_t bytes[]; /* the stamp, then the prefix */
};

/* An element that was set since it was inserted. */
struct value {
        struct node node;
        struct stamp stamp;
        struct bytes text; /* while it waits for the element */
        bool waits;
        uint8_t kind; /* of the element's insertion */
        uint8_t key[NAME_KEY_LEN];
};

static void key_write(uint8_t key[NAME_KEY_LEN], struct stamp stamp, uint32_t index)
{
        for (unsigned i = 0; i < 8; i++)
                key[i] = (uint8_t)(stamp.hlc >> (8 * i));
        key[8] = stamp.origin;
        for (unsigned i = 0; i < 4; i++)
                key[STAMP_KEY_LEN + i] = (uint8_t)(index >> (8 * i));
}

static struct list_run key_read(const struct value *value)
{
        struct list_run run = {.kind = (enum list_kind)value->kind, .count = 1};
        for (unsigned i = 0; i < 8; i++)
                run.stamp.hlc |= (uint64_t)value->key[i] << (8 * i);
        run.stamp.origin = value->key[8];
        for (unsigned i = 0; i < 4; i++)
                run.first |= (uint32_t)value->key[STAMP_KEY_LEN + i] << (8 * i);
        return run;
}

/* ---- places */

static struct place *place_find(const struct table_env *env, const struct crdt_list *list,
                                struct stamp stamp)
{
        uint8_t key[NAME_KEY_LEN];
        key_write(key, stamp, 0);
        return (struct place *)table_look(env, &list->places, TABLE_SPACE,
                                          bytes_of(key, STAMP_KEY_LEN));
}

struct list_place list_place_of(const struct table_env *env, const struct crdt_list *list,
                                struct stamp stamp)
{
        const struct place *place = place_find(env, list, stamp);
        CHECK(place != NULL);
        return (struct list_place){place->position,
                                   bytes_of(place->bytes + STAMP_KEY_LEN, place->prefix_len)};
}

static bool place_add(const struct table_env *env, struct crdt_list *list, struct stamp stamp,
                      struct list_place at, uint64_t elements)
{
        struct place *place = place_find(env, list, stamp);
        if (place == NULL) {
                uint8_t key[NAME_KEY_LEN];
                key_write(key, stamp, 0);
                place = heap_alloc(env->heap,
                                   offsetof(struct place, bytes) + STAMP_KEY_LEN + at.prefix.len);
                if (place == NULL)
                        return false;
                place->node.key_len = STAMP_KEY_LEN;
                place->node.key_at = offsetof(struct place, bytes);
                place->position = at.position;
                place->prefix_len = at.prefix.len;
                memcpy(place->bytes, key, STAMP_KEY_LEN);
                if (at.prefix.len > 0)
                        memcpy(place->bytes + STAMP_KEY_LEN, at.prefix.ptr, at.prefix.len);
                if (!table_insert(env, &list->places, &place->node)) {
                        heap_free(env->heap, place);
                        return false;
                }
        }
        place->elements += elements;
        return true;
}

static void place_less(const struct table_env *env, struct crdt_list *list, struct stamp stamp,
                       uint64_t elements)
{
        struct place *place = place_find(env, list, stamp);
        CHECK(place != NULL);
        CHECK(place->elements >= elements);
        place->elements -= elements;
        if (place->elements > 0)
                return;
        table_remove(env, &list->places, &place->node);
        heap_free(env->heap, place);
}

/* ---- values that were set */

static struct value *value_find(const struct table_env *env, const struct crdt_list *list,
                                struct stamp stamp, uint32_t index)
{
        uint8_t key[NAME_KEY_LEN];
        if (list->values.count == 0)
                return NULL;
        key_write(key, stamp, index);
        return (struct value *)table_look(env, &list->values, TABLE_SPACE,
                                          bytes_of(key, NAME_KEY_LEN));
}

static void value_free(const struct table_env *env, struct value *value)
{
        heap_free_bytes(env->heap, value->text);
        heap_free(env->heap, value);
}

static void value_drop(const struct table_env *env, struct crdt_list *list, struct value *value)
{
        if (value == NULL)
                return;
        table_remove(env, &list->values, &value->node);
        value_free(env, value);
}

static struct value *value_get(const struct table_env *env, struct crdt_list *list,
                               struct list_run name)
{
        struct value *value = value_find(env, list, name.stamp, name.first);
        if (value != NULL)
                return value;
        value = heap_alloc(env->heap, sizeof(*value));
        if (value == NULL)
                return NULL;
        value->node.key_len = NAME_KEY_LEN;
        value->node.key_at = offsetof(struct value, key);
        value->kind = (uint8_t)name.kind;
        key_write(value->key, name.stamp, name.first);
        if (table_insert(env, &list->values, &value->node))
                return value;
        heap_free(env->heap, value);
        return NULL;
}

/* ---- life */

void list_free(const struct table_env *env, struct crdt_list **slot)
{
        struct crdt_list *list = *slot;
        if (list == NULL)
                return;
        struct table_walk walk = {0};
        struct node *node = table_next(&list->places, &walk);
        while (node != NULL) {
                struct node *next = table_next(&list->places, &walk);
                heap_free(env->heap, node);
                node = next;
        }
        walk = (struct table_walk){0};
        node = table_next(&list->values, &walk);
        while (node != NULL) {
                struct node *next = table_next(&list->values, &walk);
                value_free(env, (struct value *)node);
                node = next;
        }
        table_fini(env, &list->places);
        table_fini(env, &list->values);
        list_gone_free(env->heap, &list->gone);
        list_order_free(env->heap, list);
        heap_free(env->heap, list);
        *slot = NULL;
}

static void list_free_empty(const struct table_env *env, struct crdt *crdt)
{
        struct crdt_list *list = crdt->list;
        if (list != NULL && list->length == 0 && list->gone.count == 0 && list->values.count == 0)
                list_free(env, &crdt->list);
}

static struct crdt_list *list_get(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->list == NULL)
                crdt->list = heap_alloc(env->table.heap, sizeof(*crdt->list));
        if (crdt->list == NULL)
                env->err = ERR_NOMEM;
        return crdt->list;
}

uint64_t crdt_list_length(const struct crdt *crdt)
{
        return crdt->list == NULL || crdt->evicted ? 0 : crdt->list->length;
}

static bool list_dead(const struct crdt *crdt, struct stamp stamp)
{
        return dot_dead(crdt, CRDT_LIST, stamp);
}

/* ---- taking elements out */

/* What is told to the native store of elements that went: one run of neighbours at a time. */
static void native_take(struct crdt_env *env, uint64_t index, uint64_t count)
{
        if (env->native != NULL && !env->quiet)
                env->native->list_remove(env->native->context, env->name, index, count);
}

/* `count` elements of one span go. False: out of memory. */
static bool elements_take(struct crdt_env *env, struct crdt *crdt, struct list_at at,
                          uint32_t count)
{
        struct crdt_list *list = crdt->list;
        struct list_run run = list_run_at(list, at);
        uint64_t rank = env->native == NULL || env->quiet ? 0 : list_rank(list, at);
        if (!list_take(env->table.heap, list, at, count)) {
                env->err = ERR_NOMEM;
                return false;
        }
        if (run.kind == LIST_BETWEEN)
                place_less(&env->table, list, run.stamp, count);
        for (uint32_t i = 0; i < count && list->values.count > 0; i++)
                value_drop(&env->table, list,
                           value_find(&env->table, list, run.stamp, run.first + i));
        native_take(env, rank, count);
        if (list->length == 0)
                env->fresh = true;
        return true;
}

/* Takes those of the run that are here. */
static void run_take(struct crdt_env *env, struct crdt *crdt, struct list_run run)
{
        struct crdt_list *list = crdt->list;
        if (run.kind == LIST_BETWEEN && place_find(&env->table, list, run.stamp) == NULL)
                return;
        while (run.count > 0 && list->length > 0) {
                struct list_at at;
                struct list_point point = list_point_of(&env->table, list, run, run.first);
                bool exact = list_find(&env->table, list, &point, &at);
                struct list_run there = list_run_at(list, at);
                uint32_t count = 1;
                if (exact) {
                        bool last = there.count >= run.count;
                        count = last ? run.count : there.count;
                        if (!elements_take(env, crdt, at, count) || last)
                                return;
                        if (run.kind == LIST_BETWEEN &&
                            place_find(&env->table, list, run.stamp) == NULL)
                                return;
                } else if (there.count == 0) {
                        return;
                } else if (stamp_compare(there.stamp, run.stamp) == 0) {
                        count = there.first - run.first;
                        count = count < run.count ? count : run.count;
                }
                run.first += count;
                run.count -= count;
        }
}

void list_remove(struct crdt_env *env, struct crdt *crdt, struct list_run run)
{
        if (list_dead(crdt, run.stamp))
                return;
        bool remember = !env_seen(env, run.stamp);
        if (crdt->list == NULL && !remember)
                return;
        struct crdt_list *list = list_get(env, crdt);
        if (list == NULL)
                return;
        if (remember && !list_gone_add(env->table.heap, &list->gone, run))
                env->err = ERR_NOMEM;
        run_take(env, crdt, run);
        for (uint32_t i = 0; i < run.count && list->values.count > 0; i++)
                value_drop(&env->table, list,
                           value_find(&env->table, list, run.stamp, run.first + i));
        list_free_empty(&env->table, crdt);
}

void list_drop(struct crdt_env *env, struct crdt *crdt, struct list_run run)
{
        run_take(env, crdt, run);
        list_free_empty(&env->table, crdt);
}

/* ---- putting elements in */

static void native_put(struct crdt_env *env, const struct crdt_list *list, struct list_run run,
                       uint64_t rank, struct cursor *values)
{
        for (uint32_t i = 0; i < run.count; i++) {
                struct bytes text = values == NULL ? (struct bytes){0} : name_read(values);
                struct value *set = value_find(&env->table, list, run.stamp, run.first + i);
                if (set != NULL && set->waits)
                        text = set->text;
                if (env->native != NULL)
                        env->native->list_insert(env->native->context, env->name, rank + i, text);
                if (set == NULL || !set->waits)
                        continue;
                heap_free_bytes(env->table.heap, set->text);
                set->text = (struct bytes){0};
                set->waits = false;
        }
}

/* How many of the run stand together before what is at `at`. */
static uint32_t run_together(struct crdt_env *env, const struct crdt_list *list, struct list_at at,
                             struct list_run run)
{
        struct list_run next = list_run_at(list, at);
        if (run.count == 1 || list_gone_any(&list->gone, run.stamp))
                return 1;
        if (next.count == 0)
                return run.count;
        struct list_point there = list_point_of(&env->table, list, next, next.first);
        struct list_point last = list_point_of(&env->table, list, run, run.first + run.count - 1);
        return list_point_compare(&last, &there) < 0 ? run.count : 1;
}

/* Puts the run, whose place is known to the list. */
static void run_put(struct crdt_env *env, struct crdt *crdt, struct list_run run,
                    struct cursor *values)
{
        struct crdt_list *list = crdt->list;
        while (run.count > 0) {
                struct list_at at;
                struct list_point point = list_point_of(&env->table, list, run, run.first);
                struct list_run part = run;
                part.count = 1;
                if (list_gone_has(&list->gone, run.stamp, run.first) ||
                    list_find(&env->table, list, &point, &at)) {
                        if (values != NULL)
                                name_read(values);
                } else {
                        part.count = run_together(env, list, at, run);
                        uint64_t rank = env->native == NULL ? 0 : list_rank(list, at);
                        if (!list_put(env->table.heap, list, at, part)) {
                                env->err = ERR_NOMEM;
                                return;
                        }
                        if (run.kind == LIST_BETWEEN)
                                CHECK(place_add(&env->table, list, run.stamp, point.place,
                                                part.count));
                        if (env->native != NULL || list->values.count > 0)
                                native_put(env, list, part, rank, values);
                        else
                                values = NULL; /* nobody asks */
                }
                run.first += part.count;
                run.count -= part.count;
        }
}

void list_insert(struct crdt_env *env, struct crdt *crdt, struct list_run run,
                 struct list_place place, struct cursor *values)
{
        if (list_dead(crdt, run.stamp))
                return;
        struct crdt_list *list = list_get(env, crdt);
        if (list == NULL)
                return;
        bool between = run.kind == LIST_BETWEEN;
        /* Held for the time of the call, so that the place is known before the first element. */
        if (between && !place_add(&env->table, list, run.stamp, place, 1)) {
                env->err = ERR_NOMEM;
                list_free_empty(&env->table, crdt);
                return;
        }
        run_put(env, crdt, run, values);
        if (between)
                place_less(&env->table, list, run.stamp, 1);
        list_free_empty(&env->table, crdt);
}

/* ---- a new value */

static bool element_find(struct crdt_env *env, const struct crdt_list *list, struct list_run name,
                         struct list_at *ret)
{
        if (list->length == 0 ||
            (name.kind == LIST_BETWEEN && place_find(&env->table, list, name.stamp) == NULL))
                return false;
        struct list_point point = list_point_of(&env->table, list, name, name.first);
        return list_find(&env->table, list, &point, ret);
}

void list_set(struct crdt_env *env, struct crdt *crdt, struct list_run name, struct stamp stamp,
              struct bytes text)
{
        if (list_dead(crdt, name.stamp))
                return;
        struct list_at at;
        struct crdt_list *list = list_get(env, crdt);
        if (list == NULL)
                return;
        bool there = element_find(env, list, name, &at);
        bool comes = !there && !env_seen(env, name.stamp) &&
                     !list_gone_has(&list->gone, name.stamp, name.first);
        const struct value *old = value_find(&env->table, list, name.stamp, name.first);
        if ((!there && !comes) || (old != NULL && !stamp_before(old->stamp, stamp))) {
                list_free_empty(&env->table, crdt);
                return;
        }
        struct value *value = value_get(&env->table, list, name);
        struct bytes kept = {0};
        if (value == NULL || (comes && !heap_copy(env->table.heap, text, &kept))) {
                env->err = ERR_NOMEM;
                return;
        }
        heap_free_bytes(env->table.heap, value->text);
        value->text = kept;
        value->stamp = stamp;
        value->waits = comes;
        if (there && env->native != NULL)
                env->native->list_set(env->native->context, env->name, list_rank(list, at), text);
}

/* ---- what dies with the key */

struct sweep {
        struct crdt_env *env;
        struct crdt *crdt;
};

static bool value_sweep(void *context, struct node *node)
{
        const struct sweep *sweep = context;
        struct value *value = (struct value *)node;
        struct stamp stamp = key_read(value).stamp;
        if (!value->waits || !(list_dead(sweep->crdt, stamp) || env_seen(sweep->env, stamp)))
                return false;
        value_free(&sweep->env->table, value);
        return true;
}

static bool gone_keeps(const void *context, struct stamp stamp)
{
        const struct sweep *sweep = context;
        return (!env_seen(sweep->env, stamp) || !env_settled(sweep->env, stamp)) &&
               !list_dead(sweep->crdt, stamp);
}

/* Drops what waits for an element that cannot come any more, and removals of such. */
void list_prune(struct crdt_env *env, struct crdt *crdt)
{
        struct crdt_list *list = crdt->list;
        struct sweep sweep = {.env = env, .crdt = crdt};
        if (list == NULL)
                return;
        list_gone_prune(env->table.heap, &list->gone, gone_keeps, &sweep);
        if (list->values.count > 0)
                table_sweep(&list->values, value_sweep, &sweep);
        list_free_empty(&env->table, crdt);
}

static bool all_die(const struct crdt *crdt)
{
        struct list_at at = {0};
        struct list_run run = list_next(crdt->list, &at);
        for (; run.count > 0; run = list_next(crdt->list, &at)) {
                if (!list_dead(crdt, run.stamp))
                        return false;
        }
        return crdt->list->length > 0;
}

/* From the end, so that what is still to come stays where it is. */
static void spans_take(struct crdt_env *env, struct crdt *crdt)
{
        struct list_at at = {.chunk = crdt->list->count};
        while (list_back(crdt->list, &at) && env->err == ERR_NONE) {
                struct list_run run = list_run_at(crdt->list, at);
                if (list_dead(crdt, run.stamp))
                        elements_take(env, crdt, at, run.count);
        }
}

void list_sweep(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->list == NULL)
                return;
        if (all_die(crdt)) {
                if (env->native != NULL)
                        env->native->key_delete(env->native->context, env->name);
                env->quiet = true;
        }
        spans_take(env, crdt);
        env->quiet = false;
        list_prune(env, crdt);
}

/* ---- looking */

void list_sets(const struct crdt_list *list,
               void (*each)(void *context, const struct list_set *set), void *context)
{
        struct table_walk walk = {0};
        struct node *node = table_next(&list->values, &walk);
        for (; node != NULL; node = table_next(&list->values, &walk)) {
                const struct value *value = (const struct value *)node;
                struct list_set set = {key_read(value), value->stamp, value->text, value->waits};
                each(context, &set);
        }
}

bool list_set_of(const struct table_env *env, const struct crdt_list *list, struct stamp stamp,
                 uint32_t index, struct list_set *ret)
{
        const struct value *value = value_find(env, list, stamp, index);
        if (value == NULL)
                return false;
        *ret = (struct list_set){key_read(value), value->stamp, value->text, value->waits};
        return true;
}

/* Calls for the runs of [index, index + count): how many there are, and each. */
static uint64_t runs_walk(const struct crdt_list *list, uint64_t index, uint64_t count,
                          struct buffer *buffer)
{
        uint64_t runs = 0;
        struct list_at at = list_seek(list, index);
        CHECK(count <= list->length - index);
        while (count > 0) {
                struct list_run run = list_next(list, &at);
                run.count = run.count < count ? run.count : (uint32_t)count;
                count -= run.count;
                runs++;
                if (buffer != NULL)
                        list_run_write(buffer, run);
        }
        return runs;
}

uint64_t crdt_list_runs(const struct crdt *crdt, uint64_t index, uint64_t count)
{
        return runs_walk(crdt->list, index, count, NULL);
}

void crdt_list_runs_encode(const struct crdt *crdt, uint64_t index, uint64_t count,
                           struct buffer *buffer)
{
        runs_walk(crdt->list, index, count, buffer);
}

bool crdt_list_place_encode(const struct table_env *env, const struct crdt *crdt, uint64_t index,
                            struct buffer *buffer)
{
        const struct crdt_list *list = crdt->list;
        uint8_t room[LIST_DEPTH_MAX * LIST_COMPONENT_LEN];
        struct list_place place;
        CHECK(index > 0);
        struct list_run left = list_run_at(list, list_seek(list, index - 1));
        struct list_run right = list_run_at(list, list_seek(list, index));
        struct list_point before = list_point_of(env, list, left, left.first);
        struct list_point after = list_point_of(env, list, right, right.first);
        if (!list_place_between(&before, &after, room, &place))
                return false;
        list_place_write(buffer, place);
        return true;
}
