/* crdt.c - the change of one key: begin notes what is visible, the key-level parts are joined,
 * settle takes away what died by them, elements are joined, end sets the expiry right. The native
 * store is told of each visible change as it happens; a local change runs the same way with no
 * native.
 *
 * What is dead stays dead, for every part only grows. So a value that arrives dead is not kept, and
 * what is alive is always in the native: only the type with the largest `last` can have any. */
#include "crdt/crdt_priv.h"

#include "base/check.h"
#include "crdt/counter.h"
#include "crdt/hll.h"
#include "crdt/list.h"
#include "crdt/lists.h"
#include "crdt/siblings.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

void crdt_fini(const struct table_env *env, struct crdt *crdt)
{
        items_free(env, &crdt->fields);
        items_free(env, &crdt->members);
        siblings_free(env, &crdt->siblings);
        hll_free(env, crdt);
        list_free(env, &crdt->list);
        stream_free(env, &crdt->stream);
        zset_free(env, &crdt->zset);
        heap_free(env->heap, crdt->bounds);
        counter_free(env, &crdt->counter);
        *crdt = (struct crdt){0};
}

struct stamp crdt_rival(const struct crdt *crdt, enum crdt_type type)
{
        struct stamp rival = {0};
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (i != (unsigned)type && stamp_before(rival, crdt->last[i]))
                        rival = crdt->last[i];
        }
        return rival;
}

/* The same for all types in one pass: most keys have had content of one. */
static struct crdt_rivals rivals_of(const struct crdt *crdt)
{
        struct crdt_rivals rivals = {.of = CRDT_NONE};
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                struct stamp last = crdt->last[i];
                if (!stamp_is(last))
                        continue;
                if (stamp_before(rivals.first, last)) {
                        rivals.second = rivals.first;
                        rivals.first = last;
                        rivals.of = (enum crdt_type)i;
                } else {
                        rivals.second = stamp_max(rivals.second, last);
                }
        }
        return rivals;
}

/* What content of that type dies by. */
static struct stamp floor_of(struct stamp rival, struct stamp killed, enum crdt_type type)
{
        return type == CRDT_SET || type == CRDT_LIST || type == CRDT_STREAM || type == CRDT_ZSET
                       ? rival
                       : stamp_max(rival, killed);
}

struct stamp crdt_floor(const struct crdt *crdt, enum crdt_type type)
{
        return floor_of(crdt_rival(crdt, type), crdt->killed, type);
}

static bool opaque_alive(const struct crdt *crdt)
{
        struct stamp last = crdt->last[CRDT_OPAQUE];
        return stamp_is(last) && !crdt->opaque_lost &&
               stamp_before(crdt_floor(crdt, CRDT_OPAQUE), last);
}

enum crdt_type crdt_type(const struct crdt *crdt)
{
        if (crdt->fields != NULL && crdt->fields->live > 0)
                return CRDT_HASH;
        if (crdt->members != NULL && crdt->members->live > 0)
                return CRDT_SET;
        if (crdt->zset != NULL && crdt->zset->live > 0)
                return CRDT_ZSET;
        if (crdt->siblings != NULL && crdt->siblings->count > 0)
                return CRDT_SIBLINGS;
        if (crdt->hll != NULL && hll_alive(crdt))
                return CRDT_HLL;
        if (crdt->list != NULL && crdt->list->length > 0)
                return CRDT_LIST;
        if (stream_exists(crdt))
                return CRDT_STREAM;
        if (string_exists(crdt))
                return CRDT_STRING;
        return opaque_alive(crdt) ? CRDT_OPAQUE : CRDT_NONE;
}

uint64_t crdt_expire_at(const struct crdt *crdt)
{
        if (crdt->expire_at_ms == 0)
                return 0;
        enum crdt_type type = crdt_type(crdt);
        bool counts = type != CRDT_NONE && stamp_before(crdt_rival(crdt, type), crdt->ttl);
        if (type == CRDT_HLL) /* its generation is a kill, or a SET that had set the time */
                counts = !stamp_before(crdt->ttl, crdt->last[CRDT_HLL]);
        return counts ? crdt->expire_at_ms : 0;
}

struct stamp crdt_stamp(const struct crdt *crdt)
{
        return crdt_rival(crdt, CRDT_NONE);
}

/* ---- a change */

void change_begin(struct crdt_env *env, const struct crdt *crdt)
{
        env->was = crdt_type(crdt);
        env->expiry_was = crdt_expire_at(crdt);
        env->string_dirty = false;
        env->string_new = false;
        env->fields_cut = false;
        env->scores_cut = false;
        env->bounds_rose = false;
        env->siblings_dirty = false;
        env->fresh = env->was == CRDT_NONE;
        env->written = false;
        env->rivals_was = rivals_of(crdt);
        env->killed_was = crdt->killed;
}

static struct stamp rival_was(const struct crdt_env *env, enum crdt_type type)
{
        const struct crdt_rivals *rivals = &env->rivals_was;
        return rivals->of == type ? rivals->second : rivals->first;
}

bool rival_rose(const struct crdt_env *env, const struct crdt *crdt, enum crdt_type type)
{
        return stamp_before(rival_was(env, type), crdt_rival(crdt, type));
}

bool floor_rose(const struct crdt_env *env, const struct crdt *crdt, enum crdt_type type)
{
        struct stamp was = floor_of(rival_was(env, type), env->killed_was, type);
        return stamp_before(was, crdt_floor(crdt, type));
}

void change_settle(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->fields != NULL && (env->fields_cut || floor_rose(env, crdt, CRDT_HASH) ||
                                     rival_rose(env, crdt, CRDT_HASH)))
                fields_sweep(env, crdt);
        if (crdt->members != NULL && (floor_rose(env, crdt, CRDT_SET) || env->bounds_rose))
                members_sweep(env, crdt);
        if (crdt->zset != NULL &&
            (env->scores_cut || floor_rose(env, crdt, CRDT_ZSET) || env->bounds_rose))
                zset_sweep(env, crdt);
        if (crdt->siblings != NULL && floor_rose(env, crdt, CRDT_SIBLINGS))
                siblings_sweep(env, crdt);
        if (crdt->list != NULL && (floor_rose(env, crdt, CRDT_LIST) || env->bounds_rose))
                list_sweep(env, crdt);
        if (crdt->stream != NULL || env->was == CRDT_STREAM)
                stream_sweep(env, crdt);
        if (floor_rose(env, crdt, CRDT_STRING) || rival_rose(env, crdt, CRDT_STRING))
                env->string_dirty = true;
        bool gone = (env->was == CRDT_STRING && !string_exists(crdt)) ||
                    (env->was == CRDT_HLL && !hll_alive(crdt)) ||
                    (env->was == CRDT_SIBLINGS && crdt->siblings->count == 0) ||
                    (env->was == CRDT_OPAQUE && !opaque_alive(crdt));
        if (crdt->hll != NULL && !hll_alive(crdt))
                hll_free(&env->table, crdt);
        if (gone) {
                env->fresh = true;
                if (env->native != NULL)
                        env->native->key_delete(env->native->context, env->name);
        }
        if (!base_alive(crdt) && crdt->counter.base_kind != CRDT_BASE_NATIVE)
                base_forget(&env->table, crdt);
}

void change_end(struct crdt_env *env, struct crdt *crdt)
{
        if (crdt->bound_count > 0)
                bounds_prune(env, crdt);
        siblings_end(env, crdt);
        stream_show(env, crdt);
        if (env->native == NULL || env->written || crdt_type(crdt) == CRDT_NONE)
                return;
        uint64_t expiry = crdt_expire_at(crdt);
        if (env->fresh ? expiry != 0 : expiry != env->expiry_was)
                env->native->expire_set(env->native->context, env->name, expiry);
}

void last_raise(struct crdt_env *env, struct crdt *crdt, enum crdt_type type, struct stamp stamp,
                bool known)
{
        if (!known && env->was != CRDT_NONE && env->was != type)
                env->conflicts++;
        crdt->last[type] = stamp_max(crdt->last[type], stamp);
}

void ttl_join(struct crdt *crdt, struct stamp stamp, uint64_t expire_at_ms)
{
        int order = stamp_compare(crdt->ttl, stamp);
        if (order > 0 || (order == 0 && expire_at_ms != 0))
                return;
        crdt->ttl = stamp;
        crdt->expire_at_ms = expire_at_ms;
}

/* ---- the operations */

static void cuts_join(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->cuts);
        unsigned part_last = 0;
        uint64_t count = delta->cuts.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++) {
                struct crdt_count cut = cut_read(&cursor, UINT64_MAX, &part_last);
                cut_join(env, crdt, &cut);
        }
}

static void delta_bounds_join(struct crdt_env *env, struct crdt *crdt,
                              const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->bounds);
        region_id origin_last = 0;
        uint64_t count = delta->bounds.len == 0 ? 0 : cursor_varint(&cursor);
        for (uint64_t i = 0; i < count; i++)
                bounds_join(env, crdt, dot_stamp(dot_read(&cursor, UINT64_MAX, &origin_last)));
}

static void apply_set(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        bool known = (delta->flags & CRDT_FLAG_KNOWN) != 0;
        last_raise(env, crdt, CRDT_STRING, delta->stamp, known);
        ttl_join(crdt, delta->stamp, delta->expire_at_ms);
        cuts_join(env, crdt, delta);
        if (stamp_before(crdt->base, delta->stamp))
                base_set(env, crdt, delta->stamp);
        change_settle(env, crdt);
        string_sync(env, crdt, delta->value);
        if (env->string_new && base_alive(crdt))
                content_written(crdt, delta->stamp);
}

static void apply_count(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        last_raise(env, crdt, CRDT_STRING, delta->stamp, false);
        if ((delta->flags & CRDT_FLAG_CREATED) != 0)
                ttl_join(crdt, delta->stamp, 0);
        struct crdt_count cut = {.origin = delta->stamp.origin,
                                 .life = delta->part,
                                 .cut_hlc = delta->cut_hlc,
                                 .cut = delta->cut};
        count_join(env, crdt, delta->stamp, delta->part, delta->total);
        if ((delta->flags & CRDT_FLAG_CUTS) != 0)
                cut_join(env, crdt, &cut);
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
}

static void apply_gone(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        bool del = delta->op == CRDT_OP_DEL;
        crdt->killed = stamp_max(crdt->killed, del ? delta->stamp : delta->killed);
        if (!del && stamp_before(delta->ttl, crdt->ttl)) /* it struck what was here before */
                hll_outlive(env, crdt);
        ttl_join(crdt, del ? delta->stamp : delta->ttl, 0);
        cuts_join(env, crdt, delta);
        fields_cut(env, crdt, delta, true);
        zset_cut(env, crdt, delta->scores, delta->stamp.hlc);
        delta_bounds_join(env, crdt, delta);
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
        /* It takes away what is here; of what is not, more may be elsewhere. */
        if (del)
                content_shows(crdt);
}

static void apply_expire(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        (void)env;
        ttl_join(crdt, delta->stamp, delta->expire_at_ms);
}

/* The parts of the key, in a write of elements of that type. */
static void element_write(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta,
                          enum crdt_type type)
{
        last_raise(env, crdt, type, delta->stamp, false);
        if ((delta->flags & CRDT_FLAG_CREATED) != 0)
                ttl_join(crdt, delta->stamp, 0);
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
}

static void apply_hset(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        element_write(env, crdt, delta, CRDT_HASH);
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes field = name_read(&cursor);
                struct bytes value = name_read(&cursor);
                field_join(env, crdt, field, delta->stamp, false, value);
        }
        fields_cut(env, crdt, delta, false);
}

static void apply_hcount(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        element_write(env, crdt, delta, CRDT_HASH);
        field_count(env, crdt, delta);
}

static void apply_hdel(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++)
                field_join(env, crdt, name_read(&cursor), delta->stamp, true, (struct bytes){0});
        fields_cut(env, crdt, delta, false);
}

static void apply_sadd(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        element_write(env, crdt, delta, CRDT_SET);
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++)
                member_add(env, crdt, name_read(&cursor), delta->stamp);
}

static void apply_srem(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes member = name_read(&cursor);
                uint64_t dots = cursor_varint(&cursor);
                region_id origin_last = 0;
                for (uint64_t j = 0; j < dots; j++) {
                        struct crdt_dot dot = dot_read(&cursor, UINT64_MAX, &origin_last);
                        member_remove(env, crdt, member, dot_stamp(dot));
                }
        }
}

static void apply_zadd(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        element_write(env, crdt, delta, CRDT_ZSET);
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct bytes member = name_read(&cursor);
                zset_add(env, crdt, member, crdt_score_read(&cursor), delta->stamp);
        }
        zset_observed(env, crdt, delta->elements, delta->stamp.hlc);
}

static void apply_zrem(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        zset_observed(env, crdt, delta->list, delta->stamp.hlc);
}

static void apply_zcount(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        element_write(env, crdt, delta, CRDT_ZSET);
        zset_count(env, crdt, delta);
}

static void apply_opaque(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        bool newer = stamp_before(crdt->last[CRDT_OPAQUE], delta->stamp);
        bool known = (delta->flags & CRDT_FLAG_KNOWN) != 0;
        last_raise(env, crdt, CRDT_OPAQUE, delta->stamp, known);
        ttl_join(crdt, delta->stamp, delta->expire_at_ms);
        if (newer)
                crdt->opaque_lost = false;
        change_settle(env, crdt);
        string_sync(env, crdt, (struct bytes){0});
        if (!newer || !opaque_alive(crdt))
                return;
        content_written(crdt, delta->stamp);
        env->written = true;
        if (env->native != NULL)
                env->native->opaque_set(env->native->context, env->name, delta->value,
                                        crdt_expire_at(crdt));
}

static void apply_list_insert(struct crdt_env *env, struct crdt *crdt,
                              const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        struct list_run run = {.stamp = delta->stamp, .count = (uint32_t)delta->list_count};
        struct list_place place = {0};
        run.kind = (enum list_kind)cursor_u8(&cursor);
        if (run.kind == LIST_AT) {
                run = list_run_read(&cursor, UINT64_MAX);
                cursor_varint(&cursor);
                list_set(env, crdt, run, delta->stamp, name_read(&cursor));
                return;
        }
        if (run.kind == LIST_BETWEEN)
                place = list_place_read(&cursor, UINT64_MAX);
        cursor_varint(&cursor);
        element_write(env, crdt, delta, CRDT_LIST);
        list_insert(env, crdt, run, place, &cursor);
}

static void apply_list_remove(struct crdt_env *env, struct crdt *crdt,
                              const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        for (uint64_t i = 0; i < delta->list_count; i++)
                list_remove(env, crdt, list_run_read(&cursor, UINT64_MAX));
}

/* A stream that was evicted, and is there again, exists also without entries, as in the store. */
static void stream_back(struct crdt *crdt)
{
        if (!crdt->evicted)
                return;
        crdt->evicted = false;
        crdt->evicted = !stream_exists(crdt);
        crdt->partial = crdt->partial || !crdt->evicted;
}

static void apply_stream_add(struct crdt_env *env, struct crdt *crdt,
                             const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        crdt->born = stamp_max(crdt->born, delta->stamp);
        element_write(env, crdt, delta, CRDT_STREAM);
        stream_raise(env, crdt, stream_id_read(&cursor));
        for (uint64_t i = cursor_varint(&cursor); i > 0; i--) {
                struct stream_entry entry = {stream_id_read(&cursor), delta->stamp};
                stream_add(env, crdt, entry, stream_fields_read(&cursor));
        }
        stream_back(crdt);
}

static void apply_stream_remove(struct crdt_env *env, struct crdt *crdt,
                                const struct crdt_delta *delta)
{
        struct cursor cursor = cursor_of(delta->list);
        crdt->born = stamp_max(crdt->born, delta->stamp);
        if (env->was == CRDT_STREAM)
                stream_back(crdt);
        for (uint64_t i = 0; i < delta->list_count; i++) {
                struct stream_removal removal;
                stream_removal_read(&cursor, UINT64_MAX, &removal);
                stream_remove(env, crdt, &removal);
        }
}

static void (*const apply_table[CRDT_OP_END])(struct crdt_env *env, struct crdt *crdt,
                                              const struct crdt_delta *delta) = {
        [CRDT_OP_SET] = apply_set,
        [CRDT_OP_DEL] = apply_gone,
        [CRDT_OP_EXPIRED] = apply_gone,
        [CRDT_OP_EXPIRE] = apply_expire,
        [CRDT_OP_COUNT] = apply_count,
        [CRDT_OP_HSET] = apply_hset,
        [CRDT_OP_HDEL] = apply_hdel,
        [CRDT_OP_HCOUNT] = apply_hcount,
        [CRDT_OP_SADD] = apply_sadd,
        [CRDT_OP_SREM] = apply_srem,
        [CRDT_OP_ZADD] = apply_zadd,
        [CRDT_OP_ZREM] = apply_zrem,
        [CRDT_OP_ZCOUNT] = apply_zcount,
        [CRDT_OP_OPAQUE] = apply_opaque,
        [CRDT_OP_HLL] = apply_hll,
        [CRDT_OP_SIBLING] = apply_sibling,
        [CRDT_OP_LIST_INSERT] = apply_list_insert,
        [CRDT_OP_LIST_REMOVE] = apply_list_remove,
        [CRDT_OP_STREAM_ADD] = apply_stream_add,
        [CRDT_OP_STREAM_REMOVE] = apply_stream_remove,
};

void crdt_apply(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta)
{
        CHECK(delta->op < CRDT_OP_END);
        CHECK(apply_table[delta->op] != NULL);
        change_begin(env, crdt);
        apply_table[delta->op](env, crdt, delta);
        if (delta->stamp.hlc > crdt->touched)
                crdt->touched = delta->stamp.hlc;
        change_end(env, crdt);
        if (env->conflict != NULL && env->seen != NULL && delta->stamp.origin != env->seen->self)
                conflict_find(env, crdt, delta);
}

void crdt_evict(const struct table_env *env, struct crdt *crdt)
{
        items_free(env, &crdt->fields);
        items_free(env, &crdt->members);
        siblings_forget(env, crdt->siblings);
        hll_free(env, crdt);
        list_free(env, &crdt->list);
        stream_free(env, &crdt->stream);
        zset_free(env, &crdt->zset);
        base_forget(env, crdt);
        crdt->counter.base_kind = CRDT_BASE_LOST;
        crdt->opaque_lost = true;
        crdt->evicted = true;
}
