/* view_nearest.c - the instances of a service in the order in which a client should try them. The
 * regions are ordered as for a name of the policy "nearest"; an instance that names no region, or
 * one that is not known, comes behind those that may get traffic. */
#include "view/view.h"

static bool before(const struct view_instance *a, const struct view_instance *b)
{
        if (a->rank != b->rank)
                return a->rank < b->rank;
        if (a->service.weight != b->service.weight)
                return a->service.weight > b->service.weight;
        return bytes_compare(a->service.id, b->service.id) < 0;
}

static int region_by_name(const struct view *view, struct bytes name)
{
        for (uint32_t i = 0; i < view->region_count; i++) {
                if (bytes_equal(bytes_of_str(view->regions[i].name), name))
                        return (int)i;
        }
        return -1;
}

static void instance_rank(const struct view *view, const struct routing_route *route,
                          struct view_instance *instance)
{
        int region = region_by_name(view, instance->service.region);
        size_t usable = route->fail_open ? 0 : route->usable_count;
        instance->rtt_us = ROUTING_RTT_UNKNOWN;
        instance->routable = region < 0;
        instance->rank = (uint32_t)usable;
        if (region >= 0 && region == view->self_index)
                instance->rtt_us = 0;
        for (size_t i = 0; region >= 0 && i < route->count; i++) {
                if (route->choices[i].index != region)
                        continue;
                instance->routable = i < usable;
                instance->rank = (uint32_t)(i < usable ? i : i + 1);
                if (region != view->self_index)
                        instance->rtt_us = route->choices[i].rtt_us;
        }
}

static void instance_place(struct view_instance *ret, size_t *count, size_t size,
                           const struct view_instance *instance)
{
        size_t at = *count;
        while (at > 0 && before(instance, &ret[at - 1]))
                at--;
        if (at == size)
                return;
        size_t moved = (*count < size ? *count : size - 1) - at;
        memmove(&ret[at + 1], &ret[at], moved * sizeof *ret);
        ret[at] = *instance;
        if (*count < size)
                *count += 1;
}

size_t view_nearest(const struct view *view, struct bytes service,
                    const struct routing_place *place, struct view_instance *ret, size_t size)
{
        struct routing_query query = {.policy = TOPOLOGY_POLICY_NEAREST};
        struct routing_route route;
        struct view_instance instance;
        size_t count = 0;
        if (place != NULL)
                query.place = *place;
        routing_order(&view->table, view->hints, &query, &route);
        uint32_t at = board_service_first(&view->board, service);
        for (; board_service_at(&view->board, at, &instance.service) &&
               bytes_equal(instance.service.name, service);
             at++) {
                instance_rank(view, &route, &instance);
                instance_place(ret, &count, size, &instance);
        }
        return count;
}
