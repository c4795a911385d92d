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

struct answer answer_make(const struct view *view, const struct view_name *name, uint8_t family,
                          struct geo *geo, unsigned shard, const struct answer_client *client)
{
        struct answer answer = {.kind = ANSWER_PASS, .family = family};
        if (name == NULL)
                return answer;
        answer.kind = ANSWER_EMPTY;
        answer.ttl_s = name->ttl_s;
        if (name->empty)
                return answer;

        struct geo_place place = {0};
        if (name->policy == TOPOLOGY_POLICY_NEAREST && geo != NULL)
                place = geo_find(geo, shard, &client->address);
        int index = region_choose(view, name, family, place_of(&place));
        if (index < 0 || address_count(&view->regions[index], family) == 0)
                return answer;
        const struct view_region *region = &view->regions[index];
        answer.kind = ANSWER_ADDRESSES;
        answer.addresses = family == 4 ? region->a : region->aaaa;
        answer.count = address_count(region, family);
        answer.scope_len = client->scoped ? place.prefix_len : 0;
        return answer;
}
