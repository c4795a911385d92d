/* api_json.c - what a node knows, as JSON and as metrics. What is not known is
 * null, never an old number. */
#include "api/api_priv.h"

#include "geo/geo.h"
#include "node/status.h"
#include "routing/routing.h"
#include "topology/topology.h"

#include <math.h>
#include <time.h>

static const struct {
        enum world_part part;
        const char *key;
} part_keys[] = {
        {WORLD_PART_REDIS, "redis"},       {WORLD_PART_DNS, "dns"},
        {WORLD_PART_EDGE, "edge"},         {WORLD_PART_BACKEND, "backends"},
        {WORLD_PART_POSTGRES, "postgres"},
};

static json_t *milliseconds(bool known, uint64_t us)
{
        uint64_t hundredths = us / 10;
        return known ? json_real((double)hundredths / 100) : json_null();
}

static json_t *text_or_null(const char *text)
{
        return text == NULL || text[0] == '\0' ? json_null() : json_string(text);
}

static const struct node_status_region *region_by_id(const struct node_status *status, region_id id)
{
        for (size_t i = 0; i < status->region_count; i++) {
                if (status->regions[i].id == id)
                        return &status->regions[i];
        }
        return NULL;
}

static json_t *json_rtt(const struct node_status *status, const struct node_status_region *region)
{
        json_t *map = json_object();
        for (size_t i = 0; i < status->region_count; i++) {
                if (&status->regions[i] == region)
                        continue;
                json_object_set_new(map, status->regions[i].name,
                                    milliseconds(region->rtt_known[i], region->rtt_us[i]));
        }
        return map;
}

static json_t *json_redis(const struct api *api, const struct node_status *status,
                          const struct node_status_region *region)
{
        json_t *lags = json_object();
        json_t *transfers = json_object(); /* states that are being taken: per cent */
        for (size_t i = 0; i < region->lag_count; i++) {
                const struct node_status_lag *lag = &region->lags[i];
                const struct node_status_region *origin = region_by_id(status, lag->origin);
                if (origin == NULL || origin == region)
                        continue;
                json_object_set_new(lags, origin->name, milliseconds(lag->known, lag->lag_us));
                if (lag->transfer)
                        json_object_set_new(transfers, origin->name,
                                            json_real(lag->done_permille / 10.0));
        }
        return json_pack("{s:o, s:o, s:o, s:o}", "up",
                         region->redis_known ? json_boolean(region->redis_up) : json_null(),
                         "lag_ms", lags, "transfers", transfers, "servers",
                         region->self ? api_json_shown(api) : json_null());
}

static const char *part_text(enum node_part_state state)
{
        switch (state) {
        case NODE_PART_HEALTHY:
                return "healthy";
        case NODE_PART_UNHEALTHY:
                return "unhealthy";
        case NODE_PART_UNKNOWN:
                break;
        }
        return NULL;
}

static json_t *json_parts(const struct node_status_region *region)
{
        json_t *map = json_object();
        for (size_t i = 0; i < COUNT_OF(part_keys); i++)
                json_object_set_new(map, part_keys[i].key,
                                    text_or_null(part_text(region->parts[part_keys[i].part])));
        return map;
}

/* What this node keeps of that region's lock changes. */
static json_t *json_lock_copy(const struct node_status_region *region)
{
        if (!region->copy_known)
                return json_null();
        return json_pack("{s:I, s:o, s:I, s:I}", "revision", (json_int_t)region->copy_revision,
                         "age_ms", milliseconds(region->copy_heard, region->copy_age_us), "changes",
                         (json_int_t)region->copy_changes, "gaps", (json_int_t)region->copy_gaps);
}

static json_t *json_region(const struct api *api, const struct node_status *status,
                           const struct node_status_region *region)
{
        uint64_t healthy = (uint64_t)__builtin_popcountll(region->backends_healthy);
        json_t *heard = milliseconds(region->heard_ever, region->heard_age_us);
        return json_pack(
                "{s:i, s:s, s:s, s:o, s:b, s:b, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:{s:I, "
                "s:I}, s:o}",
                "id", (int)region->id, "name", region->name, "state", region->state, "why",
                text_or_null(region->why), "routable", (int)region->routable, "witness",
                (int)region->witness, "self", (int)region->self, "leader", (int)region->leader,
                "heard", (int)region->heard, "heard_age_ms", heard, "rtt_ms",
                json_rtt(status, region), "redis", json_redis(api, status, region), "parts",
                json_parts(region), "postgres", api_json_postgres_region(status, region->id),
                "backends", "count", (json_int_t)region->backend_count, "healthy",
                (json_int_t)healthy, "lock_copy", json_lock_copy(region));
}

static json_t *json_nodes(const struct node_status *status)
{
        json_t *nodes = json_array();
        for (size_t i = 0; i < status->member_count; i++) {
                const struct node_status_member *node = &status->members[i];
                const struct node_status_region *region = region_by_id(status, node->region);
                json_array_append_new(
                        nodes, json_pack("{s:I, s:s, s:o, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                         (json_int_t)node->node, "name", node->name, "region",
                                         text_or_null(region == NULL ? NULL : region->name), "role",
                                         node->role, "coming", (int)node->coming, "up",
                                         (int)node->up, "leader", (int)node->leads, "carries",
                                         (int)node->carries, "done", (int)node->done));
        }
        return nodes;
}

json_t *api_json_status(const struct api *api)
{
        const struct node_status *status = api->host.status(api->host.context);
        const struct node_status_region *self = region_by_id(status, status->region);
        const struct node_status_region *leader =
                status->leader_known ? region_by_id(status, status->leader_region) : NULL;
        json_t *regions = json_array();
        for (size_t i = 0; i < status->region_count; i++)
                json_array_append_new(regions, json_region(api, status, &status->regions[i]));
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return json_pack(
                "{s:s, s:f, s:I, s:o, s:I, s:i, s:I, s:I, s:o, s:b, s:b, s:b, s:o, s:o, s:o}",
                "version", MERIDIAN_VERSION, "time", (double)now.tv_sec + (double)now.tv_nsec / 1e9,
                "node", (json_int_t)status->node, "region",
                text_or_null(self == NULL ? NULL : self->name), "epoch", (json_int_t)status->epoch,
                "level", (int)status->level, "view", (json_int_t)status->version, "term",
                (json_int_t)status->term, "leader",
                text_or_null(leader == NULL ? NULL : leader->name), "leads", (int)status->leads,
                "majority", (int)status->majority, "stopped", (int)status->stopped, "postgres",
                api_json_postgres(api, status), "nodes", json_nodes(status), "regions", regions);
}

json_t *api_json_events(const struct api *api, uint64_t since)
{
        json_t *events = json_array();
        uint64_t first = api->event_count > API_EVENTS_MAX ? api->event_count - API_EVENTS_MAX : 0;
        if (since > first)
                first = since;
        for (uint64_t at = first; at < api->event_count; at++) {
                const struct api_event *event = &api->events[at % API_EVENTS_MAX];
                json_array_append_new(
                        events,
                        json_pack("{s:I, s:f, s:s, s:o}", "index", (json_int_t)event->index, "time",
                                  (double)event->wall_us / 1e6, "name", event->name, "text",
                                  json_stringn_nocheck(event->text, strlen(event->text))));
        }
        return json_pack("{s:o, s:I}", "events", events, "next", (json_int_t)api->event_count);
}

/* ---- why-route ---- */

static struct routing_place place_of(const struct geo_place *place)
{
        if (!place->located)
                return (struct routing_place){0};
        return (struct routing_place){true, (int32_t)lround(place->latitude * 1e6),
                                      (int32_t)lround(place->longitude * 1e6)};
}

static void hints_fill(const struct node_status *status, const struct topology *topology,
                       struct routing_hint *hints, uint32_t *rtt_us)
{
        for (size_t i = 0; i < topology->region_count; i++) {
                const struct node_status_region *region =
                        region_by_id(status, topology->regions[i].id);
                const struct node_status_region *self = region_by_id(status, status->region);
                hints[i] = (struct routing_hint){
                        .routable = region != NULL && region->routable,
                };
                rtt_us[i] = ROUTING_RTT_UNKNOWN;
                for (size_t j = 0; self != NULL && j < status->region_count; j++) {
                        if (status->regions[j].id == topology->regions[i].id && self->rtt_known[j])
                                rtt_us[i] = (uint32_t)self->rtt_us[j];
                }
        }
}

static json_t *json_route(const struct routing_table *table, const struct routing_query *query,
                          const struct routing_route *route)
{
        json_t *choices = json_array();
        char sentence[ROUTING_SENTENCE_SIZE];
        for (size_t i = 0; i < route->count; i++) {
                const struct routing_choice *choice = &route->choices[i];
                json_array_append_new(choices,
                                      json_pack("{s:s, s:b, s:s, s:s}", "region",
                                                table->entries[choice->index].name, "usable",
                                                (int)(i < route->usable_count), "rule",
                                                routing_reason_name(choice->reason), "why",
                                                routing_explain(table, query, choice, sentence)));
        }
        return choices;
}

static json_t *json_place(const struct geo_place *place)
{
        if (!place->located && place->country[0] == '\0')
                return json_null();
        return json_pack("{s:o, s:o, s:o, s:i}", "country", text_or_null(place->country),
                         "latitude", place->located ? json_real(place->latitude) : json_null(),
                         "longitude", place->located ? json_real(place->longitude) : json_null(),
                         "prefix", (int)place->prefix_len);
}

json_t *api_json_why_route(const struct api *api, const char *client, const char *name,
                           const char **ret_problem)
{
        static struct routing_table table;
        static struct routing_route route;
        struct routing_hint hints[TOPOLOGY_REGIONS_MAX];
        uint32_t rtt_us[TOPOLOGY_REGIONS_MAX];
        struct geo_address address;
        struct geo_place place = {0};
        const struct node_status *status = api->host.status(api->host.context);
        const struct topology *topology = api->host.topology(api->host.context);
        *ret_problem = "client is not an IP address";
        if (!geo_address_parse(client, &address))
                return NULL;
        const struct topology_name *found = topology_name_of(topology, bytes_of_str(name));
        *ret_problem = "no policy answers that name: it is not in a zone of the topology";
        if (found == NULL)
                return NULL;
        *ret_problem = NULL;
        if (api->geo != NULL)
                place = geo_find(api->geo, 0, &address);
        hints_fill(status, topology, hints, rtt_us);
        routing_compile(topology, status->region, rtt_us, &table);
        struct routing_query query = {.policy = found->policy,
                                      .place = place_of(&place),
                                      .order = found->order,
                                      .order_count = found->order_count};
        routing_order(&table, hints, &query, &route);
        return json_pack("{s:s, s:s, s:s, s:o, s:b, s:o, s:o}", "client", client, "name", name,
                         "policy", topology_policy_name(found->policy), "place", json_place(&place),
                         "fail_open", (int)route.fail_open, "region",
                         route.count == 0 ? json_null()
                                          : json_string(table.entries[route.choices[0].index].name),
                         "choices", json_route(&table, &query, &route));
}

/* ---- metrics ---- */

static void metric_head(struct buffer *out, const char *name, const char *type, const char *help)
{
        buffer_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void metrics_regions(const struct node_status *status, struct buffer *out)
{
        metric_head(out, "meridian_region_routable", "gauge", "1 where a region may get traffic.");
        for (size_t i = 0; i < status->region_count; i++)
                buffer_format(out, "meridian_region_routable{region=\"%s\",state=\"%s\"} %d\n",
                              status->regions[i].name, status->regions[i].state,
                              status->regions[i].routable ? 1 : 0);
        metric_head(out, "meridian_rtt_seconds", "gauge", "Round-trip time between two regions.");
        for (size_t i = 0; i < status->region_count; i++) {
                for (size_t j = 0; j < status->region_count; j++) {
                        const struct node_status_region *from = &status->regions[i];
                        if (i != j && from->rtt_known[j])
                                buffer_format(out,
                                              "meridian_rtt_seconds{from=\"%s\",to=\"%s\"} %.6f\n",
                                              from->name, status->regions[j].name,
                                              (double)from->rtt_us[j] / 1e6);
                }
        }
        metric_head(out, "meridian_redis_lag_seconds", "gauge",
                    "Age of the oldest change of an origin that may be missing in a region.");
        for (size_t i = 0; i < status->region_count; i++) {
                const struct node_status_region *region = &status->regions[i];
                for (size_t j = 0; j < region->lag_count; j++) {
                        const struct node_status_region *origin =
                                region_by_id(status, region->lags[j].origin);
                        if (origin != NULL && origin != region && region->lags[j].known)
                                buffer_format(out,
                                              "meridian_redis_lag_seconds{region=\"%s\",origin="
                                              "\"%s\"} %.6f\n",
                                              region->name, origin->name,
                                              (double)region->lags[j].lag_us / 1e6);
                }
        }
}

void api_metrics(const struct api *api, struct buffer *out)
{
        const struct node_status *status = api->host.status(api->host.context);
        const struct {
                const char *name;
                const char *type;
                const char *help;
                uint64_t value;
        } rows[] = {
                {"meridian_epoch", "gauge", "Epoch of the topology and the states.", status->epoch},
                {"meridian_term", "gauge", "Term of the global group.", status->term},
                {"meridian_majority", "gauge", "1 where a majority is in touch.",
                 status->majority ? 1 : 0},
                {"meridian_leads", "gauge", "1 where this node leads the global group.",
                 status->leads ? 1 : 0},
                {"meridian_requests_total", "counter", "Requests handed to the node.",
                 api->requests},
                {"meridian_requests_pending", "gauge", "Requests that wait for the node.",
                 api->pending_count},
                {"meridian_lock_commands_total", "counter", "Commands on the lock port.",
                 api->lock_commands},
                {"meridian_lock_clients_total", "counter", "Connections to the lock port.",
                 api->lock_clients},
                {"meridian_http_requests_total", "counter", "Requests on the admin port.",
                 api->http_requests},
                {"meridian_events_total", "counter", "Events since the daemon began.",
                 api->event_count},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                metric_head(out, rows[i].name, rows[i].type, rows[i].help);
                buffer_format(out, "%s %llu\n", rows[i].name, (unsigned long long)rows[i].value);
        }
        api_metrics_conflicts(api, out);
        api_metrics_shown(api, out);
        metrics_regions(status, out);
        api_metrics_postgres(api, status, out);
        if (api->host.metrics != NULL)
                api->host.metrics(api->host.context, out);
}
