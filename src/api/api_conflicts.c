/* api_conflicts.c - the conflicts that the region's Redis told of: the last API_CONFLICTS_MAX are
 * kept for GET /conflicts, and counted by kind for /metrics. A text that is no JSON is dropped. */
#include "api/api_priv.h"

#include "topology/topology.h"

static const char *const kinds[API_CONFLICT_KINDS] = {
        "value", "field", "type", "delete", "increment", "siblings", "merge-failed", "other",
};

void api_conflict(struct api *api, const char *endpoint, uint64_t missed, struct bytes text)
{
        api->conflict_missed += missed;
        json_t *json = json_loadb((const char *)text.ptr, text.len, JSON_ALLOW_NUL, NULL);
        const char *kind = json_string_value(json_object_get(json, "kind"));
        if (kind == NULL) {
                json_decref(json);
                return;
        }
        json_object_set_new(json, "server", json_string(endpoint));
        unsigned at = 0;
        while (at + 1 < API_CONFLICT_KINDS && strcmp(kinds[at], kind) != 0)
                at++;
        api->conflict_kinds[at]++;
        json_t **slot = &api->conflicts[api->conflict_count++ % API_CONFLICTS_MAX];
        json_decref(*slot);
        *slot = json;
}

void api_conflicts_fini(struct api *api)
{
        for (unsigned i = 0; i < API_CONFLICTS_MAX; i++)
                json_decref(api->conflicts[i]);
}

/* Regions by name, for people and programs that know no ids. */
static void name_region(const struct topology *topology, json_t *object, const char *key)
{
        json_t *id = json_object_get(object, key);
        const struct topology_region *region =
                topology_region_by_id(topology, (uint8_t)json_integer_value(id));
        if (region != NULL)
                json_object_set_new(object, "region_name", json_string(region->name));
}

static bool begins_with(json_t *conflict, const char *prefix)
{
        json_t *key = json_object_get(conflict, "key");
        size_t len = strlen(prefix);
        return json_string_length(key) >= len && memcmp(json_string_value(key), prefix, len) == 0;
}

json_t *api_json_conflicts(const struct api *api, uint64_t since, const char *prefix)
{
        const struct topology *topology = api->host.topology(api->host.context);
        json_t *list = json_array();
        uint64_t first = api->conflict_count > API_CONFLICTS_MAX
                                 ? api->conflict_count - API_CONFLICTS_MAX
                                 : 0;
        for (uint64_t at = since > first ? since : first; at < api->conflict_count; at++) {
                json_t *conflict = api->conflicts[at % API_CONFLICTS_MAX];
                if (prefix != NULL && !begins_with(conflict, prefix))
                        continue;
                json_t *copy = json_deep_copy(conflict);
                name_region(topology, copy, "region");
                name_region(topology, json_object_get(copy, "lost"), "region");
                name_region(topology, json_object_get(copy, "won"), "region");
                json_array_append_new(list, copy);
        }
        return json_pack("{s:o, s:I, s:I, s:I}", "conflicts", list, "next",
                         (json_int_t)api->conflict_count, "since_ms",
                         (json_int_t)api->conflict_since_ms, "missed",
                         (json_int_t)api->conflict_missed);
}

void api_metrics_conflicts(const struct api *api, struct buffer *out)
{
        buffer_format(out, "# HELP meridian_conflicts_total Conflicts that this region's writes "
                           "have won, by kind, since the daemon began.\n"
                           "# TYPE meridian_conflicts_total counter\n");
        for (unsigned i = 0; i < API_CONFLICT_KINDS; i++)
                buffer_format(out, "meridian_conflicts_total{kind=\"%s\"} %llu\n", kinds[i],
                              (unsigned long long)api->conflict_kinds[i]);
        buffer_format(
                out,
                "# HELP meridian_conflicts_missed_total Conflicts that a server had forgotten "
                "before it was asked.\n"
                "# TYPE meridian_conflicts_missed_total counter\n"
                "meridian_conflicts_missed_total %llu\n",
                (unsigned long long)api->conflict_missed);
}
