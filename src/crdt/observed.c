/* observed.c - what a local change has observed of a key: it is told with the change, so that this
 * takes away what it saw, and nothing else. Nothing fails but the buffer, whose error sticks. */
#include "crdt/counter.h"
#include "crdt/crdt_priv.h"
#include "crdt/list.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

bool crdt_has_cuts(const struct crdt *crdt)
{
        return counter_uncut(&crdt->counter);
}

void crdt_cuts_encode(const struct crdt *crdt, struct buffer *buffer)
{
        counter_cuts_encode(&crdt->counter, buffer);
}

bool crdt_has_bounds(const struct crdt *crdt)
{
        return (crdt->members != NULL && crdt->members->live > 0) ||
               (crdt->list != NULL && crdt->list->length > 0) ||
               (crdt->stream != NULL && crdt->stream->count > 0) ||
               (crdt->zset != NULL && crdt->zset->live > 0);
}

static void elements_bounds(const struct crdt *crdt, struct vector *bounds)
{
        struct list_at at = {0};
        struct list_run run =
                crdt->list == NULL ? (struct list_run){0} : list_next(crdt->list, &at);
        for (; run.count > 0; run = list_next(crdt->list, &at))
                vector_advance(bounds, run.stamp.origin, run.stamp.hlc);
}

void crdt_bounds_encode(const struct crdt *crdt, struct buffer *buffer)
{
        struct vector bounds = {0};
        struct table_walk walk = {0};
        elements_bounds(crdt, &bounds);
        if (crdt->zset != NULL)
                zset_bounds(crdt->zset, &bounds);
        if (crdt->stream != NULL)
                stream_observe(crdt->stream, (struct crdt_stream_id){0},
                               (struct crdt_stream_id){UINT64_MAX, UINT64_MAX}, &bounds);
        struct node *node = crdt->members == NULL ? NULL : table_next(&crdt->members->table, &walk);
        for (; node != NULL; node = table_next(&crdt->members->table, &walk)) {
                struct item *item = item_of(node);
                for (unsigned i = 0; i < item->one.count; i++) {
                        struct crdt_dot dot = item_dots(item)[i];
                        if (!dot.removed)
                                vector_advance(&bounds, dot.origin, dot.hlc);
                }
        }
        vector_encode(&bounds, buffer);
}

void crdt_dots_encode(const struct table_env *env, struct crdt *crdt, struct bytes member,
                      struct buffer *buffer)
{
        struct crdt_env find = {.table = *env};
        struct item *item = items_find(&find, crdt->members, member);
        struct vector dots = {0};
        for (unsigned i = 0; item != NULL && i < item->one.count; i++) {
                struct crdt_dot dot = item_dots(item)[i];
                if (!dot.removed)
                        vector_advance(&dots, dot.origin, dot.hlc);
        }
        vector_encode(&dots, buffer);
}

struct stamp crdt_observed(const struct crdt *crdt)
{
        switch (crdt_type(crdt)) {
        case CRDT_STRING:
                return crdt->base;
        case CRDT_HASH:
                return crdt->last[CRDT_HASH];
        case CRDT_OPAQUE:
                return crdt->last[CRDT_OPAQUE];
        case CRDT_STREAM:
                return crdt->born;
        case CRDT_SET:
        case CRDT_ZSET:
        case CRDT_SIBLINGS:
        case CRDT_LIST:
        case CRDT_HLL:
        case CRDT_NONE:
                break;
        }
        return (struct stamp){0};
}

/* ---- increments of a hash's fields */

static struct item *field_look(const struct table_env *env, const struct crdt *crdt,
                               struct bytes field)
{
        if (crdt->fields == NULL)
                return NULL;
        struct node *node = table_look(env, &crdt->fields->table, 0, field);
        return node == NULL ? NULL : item_of(node);
}

const struct crdt_count *crdt_field_count(const struct table_env *env, const struct crdt *crdt,
                                          struct bytes field, region_id origin, uint8_t life,
                                          bool *ret_counts)
{
        struct item *item = field_look(env, crdt, field);
        const struct crdt_count *count =
                item == NULL || tally_of(item) == NULL
                        ? NULL
                        : counter_find(&item->tally->counter, origin, life);
        *ret_counts = count != NULL && count_counts(count, crdt_rival(crdt, CRDT_HASH));
        return count;
}

bool crdt_field_open(const struct table_env *env, const struct crdt *crdt, struct bytes field)
{
        struct item *item = field_look(env, crdt, field);
        return item != NULL && field_base_there(item) &&
               (tally_of(item) == NULL || item->tally->counter.base_kind == CRDT_BASE_NATIVE);
}

bool crdt_field_text(const struct table_env *env, const struct crdt *crdt, struct bytes field,
                     struct buffer *buffer)
{
        struct item *item = field_look(env, crdt, field);
        buffer_reset(buffer);
        return item != NULL && tally_of(item) != NULL &&
               counter_text(&item->tally->counter, field_base_there(item),
                            crdt_rival(crdt, CRDT_HASH), buffer);
}

bool crdt_has_elements(const struct crdt *crdt)
{
        return crdt->fields != NULL && crdt->fields->tallies > 0;
}

static void element_encode(struct item *item, struct buffer *buffer)
{
        if (tally_of(item) == NULL || !counter_uncut(&item->tally->counter))
                return;
        buffer_slice(buffer, node_key(&item->node));
        counter_cuts_encode(&item->tally->counter, buffer);
}

void crdt_element_encode(const struct table_env *env, const struct crdt *crdt, struct bytes field,
                         struct buffer *buffer)
{
        struct item *item = field_look(env, crdt, field);
        if (item != NULL)
                element_encode(item, buffer);
}

void crdt_elements_encode(const struct crdt *crdt, struct buffer *buffer)
{
        struct table_walk walk = {0};
        struct node *node = crdt->fields == NULL ? NULL : table_next(&crdt->fields->table, &walk);
        for (; node != NULL; node = table_next(&crdt->fields->table, &walk))
                element_encode(item_of(node), buffer);
}
