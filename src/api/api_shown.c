/* api_shown.c - how replication goes, as the region's Redis tells it, each of its servers for
 * itself: kept for GET /status and /metrics. What was not told anew for a while is not shown: an
 * old number looks like a good one. */
#include "api/api_priv.h"

#include "topology/topology.h"

#include <uv.h>

enum {
        SHOWN_S = 5,
};

static uint64_t now_s(void)
{
        return uv_hrtime() / 1000000000u;
}

void api_shown(struct api *api, unsigned shard, unsigned count, const char *endpoint,
               struct bytes text)
{
        json_t *json = json_loadb((const char *)text.ptr, text.len, 0, NULL);
        if (!json_is_object(json) || shard >= API_SHARDS_MAX || count > API_SHARDS_MAX) {
                json_decref(json);
                return;
        }
        json_object_set_new(json, "endpoint", json_string(endpoint));
        json_decref(api->shards[shard].json);
        api->shards[shard].json = json;
        api->shards[shard].told_s = now_s();
        api->shard_count = count;
}

void api_shown_fini(struct api *api)
{
        for (unsigned i = 0; i < API_SHARDS_MAX; i++)
                json_decref(api->shards[i].json);
}

static json_t *shown(const struct api *api, unsigned shard)
{
        if (shard >= api->shard_count || api->shards[shard].told_s + SHOWN_S < now_s())
                return NULL;
        return api->shards[shard].json;
}

static const char *region_name(const struct api *api, const json_t *id)
{
        const struct topology_region *region = topology_region_by_id(
                api->host.topology(api->host.context), (uint8_t)json_integer_value(id));
        return region == NULL ? NULL : region->name;
}

json_t *api_json_shown(const struct api *api)
{
        json_t *list = json_array();
        for (unsigned i = 0; i < api->shard_count; i++) {
                size_t at = 0;
                json_t *peer = NULL;
                json_t *copy = json_deep_copy(shown(api, i));
                if (copy == NULL)
                        continue;
                json_array_foreach(json_object_get(copy, "peers"), at, peer)
                {
                        const char *name = region_name(api, json_object_get(peer, "region"));
                        if (name != NULL)
                                json_object_set_new(peer, "region_name", json_string(name));
                }
                json_array_append_new(list, copy);
        }
        return list;
}

/* A metric of a server, or of a server and another region. */
struct metric {
        const char *key;
        const char *name;
        const char *type;
        const char *help;
        double unit; /* of what is told, in that of the metric */
};

static const struct metric of_servers[] = {
        {"keys", "meridian_redis_keys", "gauge", "Keys that are visible.", 1},
        {"tombstones", "meridian_redis_tombstones", "gauge", "Keys of which only metadata is left.",
         1},
        {"metadata_bytes", "meridian_redis_metadata_bytes", "gauge", "Memory of the metadata.", 1},
        {"backlog_bytes", "meridian_redis_backlog_bytes", "gauge",
         "Changes that are kept for the other regions.", 1},
        {"backlog_bytes_max", "meridian_redis_backlog_bytes_max", "gauge", "Their limit.", 1},
        {"backlog_ms", "meridian_redis_backlog_seconds", "gauge", "Age of the oldest of them.",
         0.001},
        {"local_deltas", "meridian_redis_changes_total", "counter", "Changes made here.", 1},
        {"merged_deltas", "meridian_redis_merged_total", "counter", "Changes of others, merged.",
         1},
        {"merge_rate", "meridian_redis_merge_rate", "gauge",
         "Changes of others merged in a second, by the last ten.", 1},
        {"holes", "meridian_redis_holes", "gauge",
         "Ranges of streams that are claimed and not there.", 1},
        {"evicted", "meridian_redis_evicted_total", "counter",
         "Keys that maxmemory took here, and other regions still have.", 1},
        {"memory_permille", "meridian_redis_memory_ratio", "gauge",
         "Memory in use, of maxmemory; 0: there is no limit.", 0.001},
        {"drift_refused", "meridian_redis_drift_refused_total", "counter",
         "Batches refused for a clock beyond the bound.", 1},
};

static const struct metric of_peers[] = {
        {"behind_ms", "meridian_redis_behind_seconds", "gauge",
         "Age of the oldest change that a region has not acknowledged.", 0.001},
        {"behind_deltas", "meridian_redis_behind_changes", "gauge",
         "Changes that a region has not acknowledged.", 1},
        {"behind_bytes", "meridian_redis_behind_bytes", "gauge", "The same in bytes.", 1},
        {"clock_ahead_ms", "meridian_redis_clock_ahead_seconds", "gauge",
         "How far a region's clock is ahead, less the way, by its last batch.", 0.001},
};

static void metric_begin(const struct metric *metric, struct buffer *out)
{
        buffer_format(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
                      metric->type);
}

static void metric_server(const struct metric *metric, const json_t *shard, struct buffer *out)
{
        const json_t *value = json_object_get(shard, metric->key);
        if (json_is_number(value))
                buffer_format(out, "%s{server=\"%s\"} %.10g\n", metric->name,
                              json_string_value(json_object_get(shard, "endpoint")),
                              json_number_value(value) * metric->unit);
}

static void metric_peers(const struct api *api, const struct metric *metric, const json_t *shard,
                         struct buffer *out)
{
        size_t at = 0;
        json_t *peer = NULL;
        json_array_foreach(json_object_get(shard, "peers"), at, peer)
        {
                const json_t *value = json_object_get(peer, metric->key);
                const char *name = region_name(api, json_object_get(peer, "region"));
                if (json_is_number(value) && name != NULL)
                        buffer_format(out, "%s{server=\"%s\",region=\"%s\"} %.10g\n", metric->name,
                                      json_string_value(json_object_get(shard, "endpoint")), name,
                                      json_number_value(value) * metric->unit);
        }
}

void api_metrics_shown(const struct api *api, struct buffer *out)
{
        for (size_t i = 0; i < COUNT_OF(of_servers); i++) {
                metric_begin(&of_servers[i], out);
                for (unsigned k = 0; k < api->shard_count; k++)
                        metric_server(&of_servers[i], shown(api, k), out);
        }
        for (size_t i = 0; i < COUNT_OF(of_peers); i++) {
                metric_begin(&of_peers[i], out);
                for (unsigned k = 0; k < api->shard_count; k++)
                        metric_peers(api, &of_peers[i], shown(api, k), out);
        }
}
