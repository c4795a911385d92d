/* answer.c - policy, place and health to addresses. Nothing here fails: what is not known is left
 * out of the decision, and where nothing can be answered, the name exists without data. */
#include "answer.h"

#include <math.h>

static struct routing_place place_of(const struct geo_place *place)
{
        return (struct routing_place){
                .known = place->located,
                .latitude_udeg = (int32_t)lrint(place->latitude * 1e6),
                .longitude_udeg = (int32_t)lrint(place->longitude * 1e6),
        };
}

static uint32_t address_count(const struct view_region *region, uint8_t family)
{
        return family == 4 ? region->a_count : region->aaaa_count;
}

/* No region that has the family may be routed to. If another one may be, there is no data. If none
 * may, all are taken for well (fail open). */
static int best_of_last_resort(const struct view *view, const struct routing_query *query,
                               uint8_t family)
{
        bool fail_open = false;
        struct routing_hint hints[TOPOLOGY_REGIONS_MAX];
        if (routing_best(&view->table, view->hints, query, &fail_open) < 0 || !fail_open)
                return -1;
        for (uint32_t i = 0; i < view->region_count; i++) {
                hints[i] = view->hints[i];
                hints[i].routable = address_count(&view->regions[i], family) > 0;
        }
        int best = routing_best(&view->table, hints, query, &fail_open);
        return fail_open ? -1 : best;
}

/* An entry is the upper 56 bits of the question's hash, and the answer: region index + 1. */
static uint64_t question_hash(const struct view *view, uint8_t family, struct routing_place place)
{
        uint64_t hash =
                (uint64_t)(uint32_t)place.latitude_udeg << 32 | (uint32_t)place.longitude_udeg;
        hash ^= view->generation * 0x9e3779b97f4a7c15u;
        hash += (uint64_t)family << 1 | place.known;
        hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
        hash = (hash ^ hash >> 27) * 0x94d049bb133111ebu;
        return hash ^ hash >> 31;
}

static int region_choose(const struct view *view, const struct view_name *name, uint8_t family,
                         struct routing_place place)
{
        if (name->policy == TOPOLOGY_POLICY_REGION)
                return view_region_index(view, name->order[0]);
        bool fail_open = false;
        struct routing_query query = {
                .policy = name->policy,
                .place = place,
                .order = name->order,
                .order_count = name->order_count,
        };
        const struct routing_hint *hints = family == 4 ? view->hints_a : view->hints_aaaa;
        int best = routing_best(&view->table, hints, &query, &fail_open);
        return best >= 0 && fail_open ? best_of_last_resort(view, &query, family) : best;
}

static int nearest_choose(const struct view *view, const struct view_name *name, uint8_t family,
                          struct routing_place place, struct answer_cache *cache)
{
        if (cache == NULL)
                return region_choose(view, name, family, place);
        uint64_t hash = question_hash(view, family, place);
        _Atomic uint64_t *entry = &cache->entries[hash % ANSWER_CACHE_ENTRIES];
        uint64_t tag = hash & ~UINT64_C(0xff);
        uint64_t have = atomic_load_explicit(entry, memory_order_relaxed);
        if ((have & ~UINT64_C(0xff)) == tag && have != 0)
                return (int)(have & 0xff) - 1;
        int index = region_choose(view, name, family, place);
        atomic_store_explicit(entry, tag | (uint64_t)(index + 1), memory_order_relaxed);
        return index;
}

struct answer answer_make(const struct view *view, const struct view_name *name, uint8_t family,
                          struct geo *geo, struct answer_cache *cache, unsigned shard,
                          const struct answer_client *client)
{
        struct answer answer = {.kind = ANSWER_PASS, .family = family};
        if (name == NULL)
                return answer;
        answer.kind = ANSWER_EMPTY;
        answer.ttl_s = name->ttl_s;
        if (name->empty)
                return answer;

        struct geo_place place = {0};
        int index;
        if (name->policy == TOPOLOGY_POLICY_NEAREST) {
                if (geo != NULL)
                        place = geo_find(geo, shard, &client->address);
                index = nearest_choose(view, name, family, place_of(&place), cache);
        } else {
                index = region_choose(view, name, family, (struct routing_place){0});
        }
        if (index < 0 || address_count(&view->regions[index], family) == 0)
                return answer;
        const struct view_region *region = &view->regions[index];
        answer.kind = ANSWER_ADDRESSES;
        answer.addresses = family == 4 ? region->a : region->aaaa;
        answer.count = address_count(region, family);
        answer.scope_len = client->scoped ? place.prefix_len : 0;
        return answer;
}
