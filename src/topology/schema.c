/* The schema: every key of every section, as rows. The order of the rows is the order
 * of the canonical text. */
#include "topology/topology_priv.h"

#define OF(type, member)       .offset = offsetof(struct type, member)
#define LIST(type, member, m)  .offset_count = offsetof(struct type, member), .max = (m)
#define RANGE(l, h, otherwise) .low = (l), .high = (h), .absent = (otherwise)

/* 64 bits wide, as the ranges are. */
#define SECOND_MS              INT64_C(1000)
#define DAY_S                  INT64_C(86400)
#define UDEG                   INT64_C(1000000)

static const struct field_row root_fields[] = {
        {"cluster", FIELD_NAME, true, OF(topology, cluster)},
        {"epoch", FIELD_U64, true, OF(topology, epoch), RANGE(1, INT64_MAX, 0)},
};

#define TIMING(name, l, h, otherwise)                                                              \
        {                                                                                          \
#name, FIELD_MILLIS, false, OF(topology_timing, name##_ms), RANGE(l, h, otherwise) \
        }

static const struct field_row timing_fields[] = {
        TIMING(heartbeat, 20, 10 * SECOND_MS, 200),
        TIMING(suspect_after, 40, 60 * SECOND_MS, 500),
        TIMING(down_after, 60, 300 * SECOND_MS, 900),
        TIMING(recover_after, 100, 600 * SECOND_MS, 2 * SECOND_MS),
        TIMING(hold_down, 0, 3600 * SECOND_MS, 2 * SECOND_MS),
        TIMING(lag_max, 10, 3600 * SECOND_MS, 2 * SECOND_MS),
        TIMING(drain, 0, 3600 * SECOND_MS, 5 * SECOND_MS),
        TIMING(election, 100, 60 * SECOND_MS, 2 * SECOND_MS),
        TIMING(election_heartbeat, 20, 20 * SECOND_MS, 300),
        TIMING(region_election, 50, 60 * SECOND_MS, 300),
        TIMING(region_election_heartbeat, 10, 20 * SECOND_MS, 50),
};

static const struct field_row region_fields[] = {
        {"id", FIELD_U8, true, OF(topology_region, id), RANGE(1, TOPOLOGY_REGION_ID_MAX, 0)},
        {"role", FIELD_ROLE, false, OF(topology_region, role)},
        {"latitude", FIELD_DEGREES, false, OF(topology_region, latitude_udeg),
         RANGE(-90 * UDEG, 90 * UDEG, 0)},
        {"longitude", FIELD_DEGREES, false, OF(topology_region, longitude_udeg),
         RANGE(-180 * UDEG, 180 * UDEG, 0)},
        {"country", FIELD_CODE, false, OF(topology_region, country)},
        {"continent", FIELD_CODE, false, OF(topology_region, continent)},
        {"capacity", FIELD_U32, false, OF(topology_region, capacity), RANGE(1, 1000000, 100)},
        {"bias", FIELD_I32, false, OF(topology_region, bias), RANGE(-90, 90, 0)},
        {"a", FIELD_A, false, OF(topology_region, a),
         LIST(topology_region, a_count, TOPOLOGY_ADDRESSES_MAX)},
        {"aaaa", FIELD_AAAA, false, OF(topology_region, aaaa),
         LIST(topology_region, aaaa_count, TOPOLOGY_ADDRESSES_MAX)},
        {"backends", FIELD_ENDPOINTS, false, OF(topology_region, backends),
         LIST(topology_region, backend_count, TOPOLOGY_BACKENDS_MAX)},
};

static const struct field_row node_fields[] = {
        {"id", FIELD_U32, true, OF(topology_node, id), RANGE(1, UINT32_MAX, 0)},
        {"link", FIELD_ENDPOINT, true, OF(topology_node, link)},
        {"admin", FIELD_ENDPOINT, false, OF(topology_node, admin)},
        {"locks", FIELD_ENDPOINT, false, OF(topology_node, locks)},
};

static const struct field_row zone_fields[] = {
        {"ttl", FIELD_SECONDS, false, OF(topology_zone, ttl_s), RANGE(0, DAY_S, 30)},
};

static const struct field_row soa_fields[] = {
        {"mname", FIELD_DOMAIN, false, OF(topology_zone, mname)},
        {"rname", FIELD_DOMAIN, false, OF(topology_zone, rname)},
        {"refresh", FIELD_SECONDS, false, OF(topology_zone, refresh_s), RANGE(1, INT32_MAX, 3600)},
        {"retry", FIELD_SECONDS, false, OF(topology_zone, retry_s), RANGE(1, INT32_MAX, 600)},
        {"expire", FIELD_SECONDS, false, OF(topology_zone, expire_s),
         RANGE(1, INT32_MAX, 7 * DAY_S)},
        {"minimum", FIELD_SECONDS, false, OF(topology_zone, minimum_s), RANGE(0, DAY_S, 30)},
};

static const struct field_row name_fields[] = {
        {"policy", FIELD_POLICY, false, OF(topology_name, policy)},
        {"region", FIELD_REGION, false, OF(topology_name, order),
         LIST(topology_name, order_count, 1)},
        {"order", FIELD_REGIONS, false, OF(topology_name, order),
         LIST(topology_name, order_count, TOPOLOGY_REGIONS_MAX)},
        {"ttl", FIELD_SECONDS, false, OF(topology_name, ttl_s), RANGE(0, DAY_S, -1)},
};

static const struct field_row data_fields[] = {
        {"conflict", FIELD_CONFLICT, true, OF(topology_data, conflict)},
        {"function", FIELD_FUNCTION, false, OF(topology_data, function)},
        {"publish", FIELD_SWITCH, false, OF(topology_data, publish)},
};

static const struct field_row function_fields[] = {
        {"text", FIELD_TEXT, true, OF(topology_function, text)},
};

static const struct field_row postgres_fields[] = {
        {"nodes", FIELD_NODES, true, OF(topology_postgres, nodes),
         LIST(topology_postgres, node_count, TOPOLOGY_POSTGRES_NODES_MAX)},
        {"never", FIELD_NODES, false, OF(topology_postgres, never),
         LIST(topology_postgres, never_count, TOPOLOGY_POSTGRES_NODES_MAX)},
        {"first", FIELD_NODE, false, OF(topology_postgres, first),
         LIST(topology_postgres, first_count, 1)},
        {"automatic", FIELD_SWITCH, false, OF(topology_postgres, automatic)},
        {"lease", FIELD_MILLIS, false, OF(topology_postgres, lease_ms),
         RANGE(500, 60 * SECOND_MS, 3 * SECOND_MS)},
        {"renew", FIELD_MILLIS, false, OF(topology_postgres, renew_ms),
         RANGE(50, 20 * SECOND_MS, 500)},
        {"margin", FIELD_MILLIS, false, OF(topology_postgres, margin_ms),
         RANGE(50, 30 * SECOND_MS, 1200)},
        {"sync", FIELD_U32, false, OF(topology_postgres, sync),
         RANGE(0, TOPOLOGY_POSTGRES_NODES_MAX - 1, 0)},
        {"loss_max", FIELD_U64, false, OF(topology_postgres, loss_max),
         RANGE(0, INT64_MAX, 16 << 20)},
        {"rpo", FIELD_MILLIS, false, OF(topology_postgres, rpo_ms),
         RANGE(0, 86400 * (int64_t)SECOND_MS, 0), .quiet = true},
        {"rpo_bytes", FIELD_U64, false, OF(topology_postgres, rpo_bytes), RANGE(0, INT64_MAX, 0),
         .quiet = true},
        {"rpo_hold", FIELD_SWITCH, false, OF(topology_postgres, rpo_hold), .quiet = true},
};

#define FIELDS(rows) .fields = (rows), .field_count = COUNT_OF(rows)

const struct section_row section_rows[SECTION_COUNT] = {
        [SECTION_ROOT] = {"document", SECTION_ROOT, false, FIELDS(root_fields)},
        [SECTION_TIMING] = {"timing", SECTION_ROOT, false, FIELDS(timing_fields)},
        [SECTION_REGION] = {"region", SECTION_ROOT, true, FIELDS(region_fields)},
        [SECTION_NODE] = {"node", SECTION_REGION, true, FIELDS(node_fields)},
        [SECTION_ZONE] = {"zone", SECTION_ROOT, true, FIELDS(zone_fields)},
        [SECTION_SOA] = {"soa", SECTION_ZONE, false, FIELDS(soa_fields)},
        [SECTION_NAME] = {"name", SECTION_ZONE, true, FIELDS(name_fields)},
        [SECTION_DATA] = {"data", SECTION_ROOT, true, FIELDS(data_fields)},
        [SECTION_FUNCTION] = {"function", SECTION_ROOT, true, FIELDS(function_fields)},
        [SECTION_POSTGRES] = {"postgres", SECTION_ROOT, false, FIELDS(postgres_fields)},
};

const struct field_row *section_field(const struct section_row *section, struct bytes key,
                                      size_t *ret_index)
{
        for (size_t i = 0; i < section->field_count; i++) {
                if (bytes_equal(key, bytes_of_str(section->fields[i].key))) {
                        *ret_index = i;
                        return &section->fields[i];
                }
        }
        return NULL;
}

void text_copy(char *to, size_t size, struct bytes text)
{
        size_t len = text.len < size - 1 ? text.len : size - 1;
        memset(to, 0, size);
        if (len > 0)
                memcpy(to, text.ptr, len);
}
