/* What is remembered of a key longer than it shows, and for how long; the number that is the same
 * for the same content, however it came. Neither fails. */
#include "crdt/counter.h"
#include "crdt/crdt_priv.h"
#include "crdt/list.h"
#include "crdt/siblings.h"
#include "crdt/stream.h"
#include "crdt/zset.h"

/* ---- tombstones */

struct collect {
        struct crdt_env *env;
        struct crdt *crdt;
        uint64_t stable;
        uint64_t count;
};

static bool collect_field(void *context, struct node *node)
{
        struct collect *collect = context;
        if (!field_collect(collect->env, collect->crdt, item_of(node), collect->stable))
                return false;
        collect->count++;
        return item_free(&collect->env->table, item_of(node));
}

static bool member_collect(void *context, struct node *node)
{
        struct collect *collect = context;
        struct item *item = item_of(node);
        /* A member with live dots keeps its removed ones: they go with it, and cost little. */
        for (unsigned i = 0; i < item->one.count; i++) {
                struct crdt_dot dot = item_dots(item)[i];
                if (!dot.removed || !env_seen_through(collect->env, dot_stamp(dot)) ||
                    !env_settled(collect->env, dot_stamp(dot)))
                        return false;
        }
        collect->count++;
        return item_free(&collect->env->table, item);
}

static void items_collect(struct collect *collect, struct crdt_items **slot,
                          bool (*drop)(void *context, struct node *node))
{
        if (*slot == NULL || ((*slot)->table.count == (*slot)->live && (*slot)->tallies == 0))
                return;
        table_sweep(&(*slot)->table, drop, collect);
        if ((*slot)->table.count == 0)
                items_free(&collect->env->table, slot);
}

uint64_t crdt_collect(struct crdt_env *env, struct crdt *crdt, uint64_t stable)
{
        struct collect collect = {.env = env, .crdt = crdt, .stable = stable};
        items_collect(&collect, &crdt->fields, collect_field);
        items_collect(&collect, &crdt->members, member_collect);
        list_prune(env, crdt);
        stream_collect(env, crdt);
        bounds_prune(env, crdt);
        return collect.count + zset_collect(env, crdt, stable);
}

bool crdt_forgettable(const struct crdt_env *env, const struct crdt *crdt, uint64_t stable)
{
        (void)env;
        if (crdt_type(crdt) != CRDT_NONE || crdt->evicted || crdt->partial ||
            crdt->bound_count > 0 || crdt->fields != NULL || crdt->members != NULL ||
            crdt->list != NULL || crdt->stream != NULL || crdt->zset != NULL)
                return false;
        /* Whoever forgets such a time makes the key anew without a word about it, and whoever has
         * not forgotten it yet lets it strike. */
        if (crdt->expire_at_ms != 0)
                return false;
        uint64_t newest = siblings_newest(crdt);
        newest = crdt->touched > newest ? crdt->touched : newest;
        newest = crdt_stamp(crdt).hlc > newest ? crdt_stamp(crdt).hlc : newest;
        newest = crdt->killed.hlc > newest ? crdt->killed.hlc : newest;
        newest = crdt->born.hlc > newest ? crdt->born.hlc : newest;
        newest = crdt->ttl.hlc > newest ? crdt->ttl.hlc : newest;
        uint64_t counted = counter_newest(&crdt->counter);
        newest = counted > newest ? counted : newest;
        return newest <= stable;
}

/* ---- digest */

static uint64_t digest_stamp(uint64_t hash, struct stamp stamp)
{
        return hash_fnv_u64(hash_fnv_u64(hash, stamp.hlc), stamp.origin);
}

static size_t items_count(const struct crdt_items *items)
{
        return items == NULL ? 0 : items->table.count;
}

/* A sum over elements, so that their order does not count. */
static uint64_t digest_items(const struct crdt_items *items)
{
        uint64_t sum = 0;
        struct table_walk walk = {0};
        for (size_t n = 0; n < items_count(items); n++) {
                struct item *item = item_of(table_next(&items->table, &walk));
                const struct crdt_dot *dots = item_dots(item);
                uint64_t hash = hash_fnv(HASH_FNV_START, node_key(&item->node));
                bool any = false;
                for (unsigned i = 0; i < item->one.count; i++) {
                        if (dots[i].removed)
                                continue;
                        hash = hash_fnv_u64(digest_stamp(hash, dot_stamp(dots[i])),
                                            dots[i].removed);
                        any = true;
                }
                sum += any ? hash : 0;
        }
        return sum;
}

uint64_t crdt_digest(const struct crdt *crdt, struct crdt_name name, bool all)
{
        enum crdt_type type = crdt_type(crdt);
        if (!all && type == CRDT_NONE)
                return 0;
        uint64_t hash = hash_fnv_u64(hash_fnv(HASH_FNV_START, name.key), name.db);
        hash = hash_fnv_u64(hash, type);
        hash = hash_fnv_u64(hash, crdt_expire_at(crdt));
        hash = digest_stamp(hash, base_alive(crdt) || all ? crdt->base : (struct stamp){0});
        hash = counter_digest(hash, &crdt->counter, crdt_rival(crdt, CRDT_STRING), all);
        hash = hash_fnv_u64(hash, fields_digest(crdt, all));
        hash = hash_fnv_u64(hash, digest_items(crdt->members));
        for (unsigned i = 0; crdt->siblings != NULL && i < crdt->siblings->count; i++)
                hash = digest_stamp(hash, crdt->siblings->list[i].stamp);
        if (crdt->list != NULL && crdt->list->length > 0)
                hash = hash_fnv_u64(hash, list_digest(crdt->list));
        if (crdt->stream != NULL && crdt->stream->count > 0)
                hash = hash_fnv_u64(hash, stream_digest(crdt->stream));
        uint64_t scores = zset_digest(crdt, all);
        if (scores != 0)
                hash = hash_fnv_u64(hash, scores);
        for (unsigned i = 0; i < CRDT_TYPE_COUNT; i++) {
                if (all || (i == CRDT_OPAQUE && type == CRDT_OPAQUE))
                        hash = digest_stamp(hash, crdt->last[i]);
        }
        if (!all)
                return hash;
        /* A kill before the base says nothing that the base does not say. */
        bool moot = stamp_before(crdt->killed, crdt->base);
        hash = digest_stamp(hash, moot ? (struct stamp){0} : crdt->killed);
        hash = digest_stamp(hash, crdt->ttl);
        return hash_fnv_u64(hash, crdt->expire_at_ms);
}
