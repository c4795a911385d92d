/* The state of one key as bytes, as a whole or slice by slice; the layout is in state.c. What
 * cannot be read from the native is told as empty. Nothing fails but memory. */
#include "crdt/counter.h"
#include "crdt/hll.h"
#include "crdt/list.h"
#include "crdt/lists.h"
#include "crdt/siblings.h"
#include "crdt/slice.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

static void last_write(const struct crdt *crdt, struct buffer *buffer)
{
        unsigned types = 0;
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++)
                types |= (unsigned)stamp_is(crdt->last[i]) << i;
        buffer_varint(buffer, types);
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (stamp_is(crdt->last[i]))
                        stamp_write(buffer, crdt->last[i]);
        }
}

/* The text of the base, which a sum may hide. */
static void base_write(const struct crdt_env *env, const struct crdt *crdt, struct buffer *buffer)
{
        struct bytes value = {0};
        if (crdt->counter.base_kind == CRDT_BASE_INT) {
                struct buffer text;
                buffer_init(&text, env->table.heap);
                buffer_format(&text, "%lld", (long long)crdt->counter.base_int);
                buffer_slice(buffer, buffer_view(&text));
                buffer_fini(&text);
                return;
        }
        if (crdt->counter.base_kind == CRDT_BASE_FLOAT)
                value = crdt->counter.base_text;
        else if (env->native == NULL ||
                 !env->native->string_get(env->native->context, env->name, &value))
                value = (struct bytes){0};
        buffer_slice(buffer, value);
}

static void value_write(const struct crdt_env *env, const struct crdt *crdt,
                        enum crdt_state_kind kind, struct buffer *buffer)
{
        struct bytes value = {0};
        if (kind == CRDT_STATE_SAVED) {
                counter_base_save(&crdt->counter, buffer);
        } else if (base_alive(crdt)) {
                base_write(env, crdt, buffer);
        } else {
                if (env->native == NULL ||
                    !env->native->opaque_get(env->native->context, env->name, &value))
                        value = (struct bytes){0};
                buffer_slice(buffer, value);
        }
}

void slice_member_write(struct item *item, struct buffer *buffer)
{
        buffer_slice(buffer, node_key(&item->node));
        buffer_varint(buffer, item->one.count);
        for (unsigned i = 0; i < item->one.count; i++) {
                struct crdt_dot dot = item_dots(item)[i];
                buffer_u8(buffer, dot.origin);
                buffer_u64(buffer, dot.hlc);
                buffer_u8(buffer, dot.removed);
        }
}

static size_t items_count(const struct crdt_items *items)
{
        return items == NULL ? 0 : items->table.count;
}

static void bounds_write(const struct crdt *crdt, struct buffer *buffer)
{
        buffer_varint(buffer, crdt->bound_count);
        for (unsigned i = 0; i < crdt->bound_count; i++) {
                buffer_u8(buffer, crdt->bounds[i].origin);
                buffer_u64(buffer, crdt->bounds[i].hlc);
        }
}

static void items_write(const struct crdt_env *env, const struct crdt *crdt,
                        enum crdt_state_kind kind, struct buffer *buffer)
{
        bounds_write(crdt, buffer);
        struct table_walk walk = {0};
        buffer_varint(buffer, items_count(crdt->fields));
        for (size_t i = 0; i < items_count(crdt->fields); i++)
                field_write_state(env, item_of(table_next(&crdt->fields->table, &walk)), kind,
                                  buffer);
        walk = (struct table_walk){0};
        buffer_varint(buffer, items_count(crdt->members));
        for (size_t i = 0; i < items_count(crdt->members); i++)
                slice_member_write(item_of(table_next(&crdt->members->table, &walk)), buffer);
}

static unsigned parts_of(const struct crdt *crdt, enum crdt_state_kind kind)
{
        bool value = kind == CRDT_STATE_SAVED ? crdt->counter.base_kind != CRDT_BASE_NATIVE
                                              : base_alive(crdt) || crdt_type(crdt) == CRDT_OPAQUE;
        bool items = crdt->fields != NULL || crdt->members != NULL || crdt->bound_count > 0;
        return (stamp_is(crdt_stamp(crdt)) ? PART_LAST : 0u) |
               (stamp_is(crdt->killed) ? PART_KILLED : 0u) | (stamp_is(crdt->ttl) ? PART_TTL : 0u) |
               (stamp_is(crdt->base) ? PART_BASE : 0u) | (value ? PART_VALUE : 0u) |
               (crdt->counter.count_count > 0 ? PART_COUNTS : 0u) | (items ? PART_ITEMS : 0u) |
               (crdt->siblings != NULL ? PART_SIBLINGS : 0u) | (crdt->hll != NULL ? PART_HLL : 0u) |
               (crdt->list != NULL ? PART_LIST : 0u) |
               (crdt->stream != NULL || stamp_is(crdt->born) ? PART_STREAM : 0u) |
               (crdt->zset != NULL ? PART_ZSET : 0u) | (crdt->evicted ? PART_EVICTED : 0u) |
               (kind == CRDT_STATE_SAVED && crdt->partial ? PART_PARTIAL : 0u);
}

/* What comes before the items. */
static void head_write(const struct crdt_env *env, const struct crdt *crdt,
                       enum crdt_state_kind kind, unsigned parts, struct buffer *buffer)
{
        if ((parts & PART_LAST) != 0)
                last_write(crdt, buffer);
        if ((parts & PART_KILLED) != 0)
                stamp_write(buffer, crdt->killed);
        if ((parts & PART_TTL) != 0) {
                stamp_write(buffer, crdt->ttl);
                buffer_varint(buffer, crdt->expire_at_ms);
        }
        if ((parts & PART_BASE) != 0)
                stamp_write(buffer, crdt->base);
        if ((parts & PART_VALUE) != 0)
                value_write(env, crdt, kind, buffer);
        if ((parts & PART_COUNTS) != 0)
                counter_write(&crdt->counter, buffer);
}

/* In the place of a base: the clock up to which there is anything to know of the key. */
static enum err evicted_write(const struct crdt_env *env, const struct crdt *crdt,
                              struct buffer *buffer)
{
        bool known = crdt->touched != 0 && env->seen != NULL;
        buffer_varint(buffer, env->name.db);
        buffer_slice(buffer, env->name.key);
        buffer_varint(buffer, PART_EVICTED | (known ? PART_BASE : 0u));
        if (known)
                stamp_write(buffer, (struct stamp){crdt->touched, env->seen->self});
        return buffer->err;
}

enum err crdt_state_encode(const struct crdt_env *env, const struct crdt *crdt,
                           enum crdt_state_kind kind, struct buffer *buffer)
{
        unsigned parts = parts_of(crdt, kind);
        if ((crdt->evicted || crdt->partial) && kind == CRDT_STATE_VALUES)
                return evicted_write(env, crdt, buffer);
        buffer_varint(buffer, env->name.db);
        buffer_slice(buffer, env->name.key);
        buffer_varint(buffer, parts);
        head_write(env, crdt, kind, parts, buffer);
        if ((parts & PART_ITEMS) != 0)
                items_write(env, crdt, kind, buffer);
        if ((parts & PART_SIBLINGS) != 0)
                siblings_write(env, crdt, kind == CRDT_STATE_VALUES, buffer);
        if ((parts & PART_LIST) != 0)
                list_state_write(env, crdt, kind, buffer);
        if ((parts & PART_HLL) != 0)
                hll_write(env, crdt, kind == CRDT_STATE_VALUES, buffer);
        if ((parts & PART_STREAM) != 0) {
                stamp_write(buffer, crdt->born);
                stream_state_write(env, crdt, kind, buffer);
        }
        if ((parts & PART_ZSET) != 0)
                zset_state_write(crdt, buffer);
        return buffer->err;
}

/* ---- slices */

void slice_body_init(struct slice_body *body, struct heap *heap)
{
        *body = (struct slice_body){0};
        buffer_init(&body->fields, heap);
        buffer_init(&body->members, heap);
        buffer_init(&body->scores, heap);
        buffer_init(&body->elements_range, heap);
        buffer_init(&body->elements, heap);
        buffer_init(&body->entries_range, heap);
        buffer_init(&body->entries, heap);
}

void slice_body_fini(struct slice_body *body)
{
        buffer_fini(&body->fields);
        buffer_fini(&body->members);
        buffer_fini(&body->scores);
        buffer_fini(&body->elements_range);
        buffer_fini(&body->elements);
        buffer_fini(&body->entries_range);
        buffer_fini(&body->entries);
}

static enum err body_err(const struct slice_body *body)
{
        enum err err = ERR_NONE;
        const struct buffer *buffers[] = {
                &body->fields,   &body->members,       &body->scores, &body->elements_range,
                &body->elements, &body->entries_range, &body->entries};
        for (size_t i = 0; i < sizeof buffers / sizeof *buffers && err == ERR_NONE; i++)
                err = buffers[i]->err;
        return err;
}

static unsigned body_parts(const struct crdt *crdt, const struct slice_body *body, bool whole)
{
        const unsigned told = PART_ITEMS | PART_LIST | PART_ZSET | PART_STREAM;
        bool items = body->field_count > 0 || body->member_count > 0 || crdt->bound_count > 0;
        bool stream = crdt->stream != NULL || stamp_is(crdt->born);
        return (parts_of(crdt, CRDT_STATE_VALUES) & ~told) | (items ? PART_ITEMS : 0u) |
               (body->elements_told && (!whole || crdt->list != NULL) ? PART_LIST : 0u) |
               (body->score_count > 0 ? PART_ZSET : 0u) |
               (stream || (body->entries_told && !whole) ? PART_STREAM : 0u) |
               (whole ? 0u : PART_SLICE);
}

enum err slice_body_write(const struct crdt_env *env, const struct crdt *crdt,
                          const struct slice_body *body, struct buffer *buffer)
{
        bool whole = body->mark.first && body->mark.last;
        unsigned parts = body_parts(crdt, body, whole);
        buffer_varint(buffer, env->name.db);
        buffer_slice(buffer, env->name.key);
        buffer_varint(buffer, parts);
        if (!whole)
                slice_mark_write(body->mark, buffer);
        head_write(env, crdt, CRDT_STATE_VALUES, parts, buffer);
        if ((parts & PART_ITEMS) != 0) {
                bounds_write(crdt, buffer);
                buffer_varint(buffer, body->field_count);
                buffer_bytes(buffer, buffer_view(&body->fields));
                buffer_varint(buffer, body->member_count);
                buffer_bytes(buffer, buffer_view(&body->members));
        }
        if ((parts & PART_SIBLINGS) != 0)
                siblings_write(env, crdt, true, buffer);
        if ((parts & PART_LIST) != 0) {
                if (!whole)
                        buffer_bytes(buffer, buffer_view(&body->elements_range));
                buffer_bytes(buffer, buffer_view(&body->elements));
        }
        if ((parts & PART_HLL) != 0)
                hll_write(env, crdt, true, buffer);
        if ((parts & PART_STREAM) != 0) {
                stamp_write(buffer, crdt->born);
                if (!whole)
                        buffer_u8(buffer, body->entries_told);
                if (!whole && body->entries_told)
                        buffer_bytes(buffer, buffer_view(&body->entries_range));
                if (whole || body->entries_told)
                        buffer_bytes(buffer, buffer_view(&body->entries));
        }
        if ((parts & PART_ZSET) != 0) {
                buffer_varint(buffer, body->score_count);
                buffer_bytes(buffer, buffer_view(&body->scores));
        }
        return buffer->err != ERR_NONE ? buffer->err : body_err(body);
}
