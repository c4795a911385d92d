/* The canonical text, over the schema's rows, and the differences of two topologies, over the same
 * rows. Missing memory shows as the buffer's sticky error. */
#include "topology/topology_priv.h"

#include "base/check.h"

#include <stdio.h>

/* Is there anything to write for a field? What is required always is. */
static int64_t number_get(const struct field_row *row, const void *base)
{
        int32_t i32;
        uint32_t u32;
        uint64_t u64;
        if (row->kind == FIELD_U8)
                return *(const uint8_t *)field_of(row, base);
        if (row->kind == FIELD_U64) {
                memcpy(&u64, field_of(row, base), sizeof u64);
                return (int64_t)u64;
        }
        if (row->kind == FIELD_I32 || row->kind == FIELD_DEGREES) {
                memcpy(&i32, field_of(row, base), sizeof i32);
                return i32;
        }
        memcpy(&u32, field_of(row, base), sizeof u32);
        return u32;
}

static bool field_present(const struct field_row *row, const void *base)
{
        const struct topology_name *name = base;
        if (row->quiet)
                return row->kind == FIELD_SWITCH ? *(const bool *)field_of(row, base)
                                                 : number_get(row, base) != 0;
        switch (row->kind) {
        case FIELD_DEGREES:
                return ((const struct topology_region *)base)->place_known;
        case FIELD_CODE:
                return *(const char *)field_of(row, base) != 0;
        case FIELD_A:
        case FIELD_AAAA:
        case FIELD_ENDPOINTS:
        case FIELD_NODE:
        case FIELD_NODES:
                return field_count_of(row, base) > 0;
        case FIELD_ENDPOINT:
                return ((const struct topology_endpoint *)field_of(row, base))->address.family != 0;
        case FIELD_REGION:
                return name->policy == TOPOLOGY_POLICY_REGION;
        case FIELD_REGIONS:
                return name->policy == TOPOLOGY_POLICY_FAILOVER;
        case FIELD_FUNCTION:
                return *(const char *)field_of(row, base) != 0;
        case FIELD_NAME:
        case FIELD_DOMAIN:
        case FIELD_U8:
        case FIELD_U32:
        case FIELD_U64:
        case FIELD_I32:
        case FIELD_SECONDS:
        case FIELD_MILLIS:
        case FIELD_ROLE:
        case FIELD_POLICY:
        case FIELD_CONFLICT:
        case FIELD_TEXT:
        case FIELD_SWITCH:
                return true;
        }
        return false;
}

/* Millionths as a decimal without needless zeros: -77490000 is -77.49. */
static void write_degrees(struct buffer *buffer, int64_t udeg)
{
        int64_t size = udeg < 0 ? -udeg : udeg;
        char fraction[16];
        int len = snprintf(fraction, sizeof fraction, "%06lld", (long long)(size % 1000000));
        while (len > 0 && fraction[len - 1] == '0')
                fraction[--len] = 0;
        buffer_format(buffer, "%s%lld%s%s", udeg < 0 ? "-" : "", (long long)(size / 1000000),
                      len > 0 ? "." : "", fraction);
}

static const char *region_name(const struct topology *topology, uint8_t id)
{
        const struct topology_region *region = topology_region_by_id(topology, id);
        return region != NULL ? region->name : "unknown";
}

static const char *node_name(const struct topology *topology, uint32_t id)
{
        const struct topology_node *node = topology_node_by_id(topology, id);
        return node != NULL ? node->name : "unknown";
}

/* One element of a list, or the value of a scalar. */
static void write_element(struct buffer *buffer, const struct topology *topology,
                          const struct field_row *row, const void *base, uint32_t index)
{
        char text[TOPOLOGY_ENDPOINT_TEXT];
        const void *at = field_of(row, base);
        switch (row->kind) {
        case FIELD_NAME:
        case FIELD_DOMAIN:
        case FIELD_CODE:
        case FIELD_FUNCTION:
                buffer_format(buffer, "%s", (const char *)at);
                break;
        case FIELD_TEXT:
                buffer_bytes(buffer, BYTES("\"\"\""));
                buffer_bytes(buffer, bytes_of_str(at));
                buffer_bytes(buffer, BYTES("\"\"\""));
                break;
        case FIELD_CONFLICT:
                buffer_format(buffer, "%s",
                              topology_conflict_name(*(const enum topology_conflict *)at));
                break;
        case FIELD_U8:
        case FIELD_U32:
        case FIELD_U64:
        case FIELD_I32:
                buffer_format(buffer, "%lld", (long long)number_get(row, base));
                break;
        case FIELD_DEGREES:
                write_degrees(buffer, number_get(row, base));
                break;
        case FIELD_SECONDS:
                buffer_format(buffer, "%llds", (long long)number_get(row, base));
                break;
        case FIELD_MILLIS:
                buffer_format(buffer, "%lldms", (long long)number_get(row, base));
                break;
        case FIELD_ROLE:
                buffer_format(buffer, "%s", topology_role_name(*(const enum topology_role *)at));
                break;
        case FIELD_POLICY:
                buffer_format(buffer, "%s",
                              topology_policy_name(*(const enum topology_policy *)at));
                break;
        case FIELD_A:
        case FIELD_AAAA:
                buffer_format(
                        buffer, "\"%s\"",
                        topology_address_text((const struct topology_address *)at + index, text));
                break;
        case FIELD_ENDPOINT:
        case FIELD_ENDPOINTS:
                buffer_format(
                        buffer, "\"%s\"",
                        topology_endpoint_text((const struct topology_endpoint *)at + index, text));
                break;
        case FIELD_REGION:
        case FIELD_REGIONS:
                buffer_format(buffer, "%s", region_name(topology, ((const uint8_t *)at)[index]));
                break;
        case FIELD_SWITCH:
                buffer_format(buffer, "%s", *(const bool *)at ? "on" : "off");
                break;
        case FIELD_NODE:
        case FIELD_NODES:
                buffer_format(buffer, "%s", node_name(topology, ((const uint32_t *)at)[index]));
                break;
        }
}

static void write_value(struct buffer *buffer, const struct topology *topology,
                        const struct field_row *row, const void *base)
{
        bool list = row->max > 1;
        uint32_t count = list ? field_count_of(row, base) : 1;
        if (list)
                buffer_format(buffer, "[");
        for (uint32_t i = 0; i < count; i++) {
                buffer_format(buffer, "%s", i > 0 ? ", " : "");
                write_element(buffer, topology, row, base, i);
        }
        if (list)
                buffer_format(buffer, "]");
}

static void write_fields(struct buffer *buffer, const struct topology *topology,
                         enum section_kind kind, const void *base, int indent)
{
        for (size_t i = 0; i < section_rows[kind].field_count; i++) {
                const struct field_row *row = &section_rows[kind].fields[i];
                if (!field_present(row, base))
                        continue;
                buffer_format(buffer, "%*s%s = ", indent, "", row->key);
                write_value(buffer, topology, row, base);
                buffer_format(buffer, ";\n");
        }
}

static void write_section(struct buffer *buffer, const struct topology *topology,
                          enum section_kind kind, const char *name, const void *base, int indent)
{
        buffer_format(buffer, "%*s%s%s%s {\n", indent, "", section_rows[kind].key,
                      name[0] != 0 ? " " : "", name);
        write_fields(buffer, topology, kind, base, indent + 8);
}

static void write_region(struct buffer *buffer, const struct topology *topology,
                         const struct topology_region *region)
{
        buffer_format(buffer, "\n");
        write_section(buffer, topology, SECTION_REGION, region->name, region, 0);
        for (uint32_t i = 0; i < region->node_count; i++) {
                write_section(buffer, topology, SECTION_NODE, region->nodes[i].name,
                              &region->nodes[i], 8);
                buffer_format(buffer, "        }\n");
        }
        buffer_format(buffer, "}\n");
}

static void write_zone(struct buffer *buffer, const struct topology *topology, uint32_t index)
{
        const struct topology_zone *zone = &topology->zones[index];
        buffer_format(buffer, "\n");
        write_section(buffer, topology, SECTION_ZONE, zone->name, zone, 0);
        write_section(buffer, topology, SECTION_SOA, "", zone, 8);
        buffer_format(buffer, "        }\n");
        for (uint32_t i = 0; i < topology->name_count; i++) {
                const struct topology_name *name = &topology->names[i];
                if (name->zone != index)
                        continue;
                write_section(buffer, topology, SECTION_NAME, name->label, name, 8);
                buffer_format(buffer, "        }\n");
        }
        buffer_format(buffer, "}\n");
}

static void write_data(struct buffer *buffer, const struct topology *topology)
{
        for (uint32_t i = 0; i < topology->data_count; i++) {
                const struct topology_data *data = &topology->data[i];
                buffer_format(buffer, "\ndata \"%s\" {\n", data->prefix);
                write_fields(buffer, topology, SECTION_DATA, data, 8);
                buffer_format(buffer, "}\n");
        }
        for (uint32_t i = 0; i < topology->function_count; i++) {
                const struct topology_function *function = &topology->functions[i];
                buffer_format(buffer, "\n");
                write_section(buffer, topology, SECTION_FUNCTION, function->name, function, 0);
                buffer_format(buffer, "}\n");
        }
}

static void write_postgres(struct buffer *buffer, const struct topology *topology)
{
        if (topology->postgres.node_count == 0)
                return;
        buffer_format(buffer, "\n");
        write_section(buffer, topology, SECTION_POSTGRES, "", &topology->postgres, 0);
        buffer_format(buffer, "}\n");
}

void topology_write(const struct topology *topology, struct buffer *buffer)
{
        write_fields(buffer, topology, SECTION_ROOT, topology, 0);
        buffer_format(buffer, "\n");
        write_section(buffer, topology, SECTION_TIMING, "", &topology->timing, 0);
        buffer_format(buffer, "}\n");
        for (uint32_t i = 0; i < topology->region_count; i++)
                write_region(buffer, topology, &topology->regions[i]);
        for (uint32_t i = 0; i < topology->zone_count; i++)
                write_zone(buffer, topology, i);
        write_data(buffer, topology);
        write_postgres(buffer, topology);
}

/* Differences */

struct diff {
        const struct topology *before;
        const struct topology *after;
        struct buffer *buffer;
        size_t count;
        const char *kind; /* of the thing compared: "region", ... */
        const char *name;
};

static void diff_fields(struct diff *diff, enum section_kind kind, const void *before,
                        const void *after)
{
        for (size_t i = 0; i < section_rows[kind].field_count; i++) {
                const struct field_row *row = &section_rows[kind].fields[i];
                bool had = field_present(row, before);
                bool has = field_present(row, after);
                if (!had && !has)
                        continue;
                /* Write "key a -> b" tentatively, and take it back when a and b read the same. */
                size_t begin = diff->buffer->len;
                buffer_format(diff->buffer, "~ %s%s%s: %s ", diff->kind,
                              diff->name[0] != 0 ? " " : "", diff->name, row->key);
                size_t old = diff->buffer->len;
                if (had)
                        write_value(diff->buffer, diff->before, row, before);
                size_t old_len = diff->buffer->len - old;
                buffer_format(diff->buffer, "%s -> ", had ? "" : "none");
                size_t new = diff->buffer->len;
                if (has)
                        write_value(diff->buffer, diff->after, row, after);
                size_t new_len = diff->buffer->len - new;
                buffer_format(diff->buffer, "%s\n", has ? "" : "none");
                if (diff->buffer->err != ERR_NONE)
                        return;
                if (bytes_equal(bytes_of(diff->buffer->ptr + old, old_len),
                                bytes_of(diff->buffer->ptr + new, new_len)) &&
                    had == has)
                        diff->buffer->len = begin;
                else
                        diff->count++;
        }
}

static void diff_line(struct diff *diff, char sign, const char *kind, const char *name,
                      const char *detail)
{
        buffer_format(diff->buffer, "%c %s %s%s\n", sign, kind, name, detail);
        diff->count++;
}

static const struct topology_node *region_node(const struct topology_region *region,
                                               const char *name)
{
        for (uint32_t i = 0; i < region->node_count; i++) {
                if (strcmp(region->nodes[i].name, name) == 0)
                        return &region->nodes[i];
        }
        return NULL;
}

static void diff_nodes(struct diff *diff, const struct topology_region *before,
                       const struct topology_region *after)
{
        for (uint32_t i = 0; i < before->node_count; i++) {
                const struct topology_node *node = &before->nodes[i];
                const struct topology_node *other = region_node(after, node->name);
                if (other == NULL) {
                        diff_line(diff, '-', "node", node->name, "");
                        continue;
                }
                diff->kind = "node";
                diff->name = node->name;
                diff_fields(diff, SECTION_NODE, node, other);
        }
        for (uint32_t i = 0; i < after->node_count; i++) {
                if (region_node(before, after->nodes[i].name) == NULL)
                        diff_line(diff, '+', "node", after->nodes[i].name, "");
        }
}

static void diff_regions(struct diff *diff)
{
        char detail[32];
        for (uint32_t i = 0; i < diff->before->region_count; i++) {
                const struct topology_region *region = &diff->before->regions[i];
                const struct topology_region *other =
                        topology_region_by_name(diff->after, bytes_of_str(region->name));
                (void)snprintf(detail, sizeof detail, " (id %u)", region->id);
                if (other == NULL) {
                        diff_line(diff, '-', "region", region->name, detail);
                        continue;
                }
                diff->kind = "region";
                diff->name = region->name;
                diff_fields(diff, SECTION_REGION, region, other);
                diff_nodes(diff, region, other);
        }
        for (uint32_t i = 0; i < diff->after->region_count; i++) {
                const struct topology_region *region = &diff->after->regions[i];
                (void)snprintf(detail, sizeof detail, " (id %u)", region->id);
                if (topology_region_by_name(diff->before, bytes_of_str(region->name)) == NULL)
                        diff_line(diff, '+', "region", region->name, detail);
        }
}

/* The zone of the same name, or NULL. */
static const struct topology_zone *zone_named(const struct topology *topology, const char *name)
{
        for (uint32_t i = 0; i < topology->zone_count; i++) {
                if (strcmp(topology->zones[i].name, name) == 0)
                        return &topology->zones[i];
        }
        return NULL;
}

/* The name of the same zone and label, or NULL. */
static const struct topology_name *name_named(const struct topology *topology, const char *zone,
                                              const char *label)
{
        for (uint32_t i = 0; i < topology->name_count; i++) {
                const struct topology_name *name = &topology->names[i];
                if (strcmp(topology->zones[name->zone].name, zone) == 0 &&
                    strcmp(name->label, label) == 0)
                        return name;
        }
        return NULL;
}

static void diff_zones(struct diff *diff)
{
        for (uint32_t i = 0; i < diff->before->zone_count; i++) {
                const struct topology_zone *zone = &diff->before->zones[i];
                const struct topology_zone *other = zone_named(diff->after, zone->name);
                if (other == NULL) {
                        diff_line(diff, '-', "zone", zone->name, "");
                        continue;
                }
                diff->kind = "zone";
                diff->name = zone->name;
                diff_fields(diff, SECTION_ZONE, zone, other);
                diff_fields(diff, SECTION_SOA, zone, other);
        }
        for (uint32_t i = 0; i < diff->after->zone_count; i++) {
                if (zone_named(diff->before, diff->after->zones[i].name) == NULL)
                        diff_line(diff, '+', "zone", diff->after->zones[i].name, "");
        }
}

static void diff_names(struct diff *diff)
{
        char full[TOPOLOGY_LABEL_SIZE + TOPOLOGY_DOMAIN_SIZE];
        for (uint32_t i = 0; i < diff->before->name_count; i++) {
                const struct topology_name *name = &diff->before->names[i];
                const char *zone = diff->before->zones[name->zone].name;
                const struct topology_name *other = name_named(diff->after, zone, name->label);
                (void)snprintf(full, sizeof full, "%s.%s", name->label, zone);
                if (other == NULL) {
                        diff_line(diff, '-', "name", full, "");
                        continue;
                }
                diff->kind = "name";
                diff->name = full;
                diff_fields(diff, SECTION_NAME, name, other);
        }
        for (uint32_t i = 0; i < diff->after->name_count; i++) {
                const struct topology_name *name = &diff->after->names[i];
                const char *zone = diff->after->zones[name->zone].name;
                (void)snprintf(full, sizeof full, "%s.%s", name->label, zone);
                if (name_named(diff->before, zone, name->label) == NULL)
                        diff_line(diff, '+', "name", full, "");
        }
        diff->name = "";
}

static const struct topology_data *data_of(const struct topology *topology, const char *prefix)
{
        for (uint32_t i = 0; i < topology->data_count; i++) {
                if (strcmp(topology->data[i].prefix, prefix) == 0)
                        return &topology->data[i];
        }
        return NULL;
}

static void diff_data(struct diff *diff)
{
        char detail[TOPOLOGY_NAME_SIZE * 2 + 8];
        for (uint32_t i = 0; i < diff->before->data_count; i++) {
                const struct topology_data *data = &diff->before->data[i];
                const struct topology_data *other = data_of(diff->after, data->prefix);
                diff->kind = "data";
                diff->name = data->prefix;
                if (other == NULL)
                        diff_line(diff, '-', "data", data->prefix, "");
                else
                        diff_fields(diff, SECTION_DATA, data, other);
        }
        for (uint32_t i = 0; i < diff->after->data_count; i++) {
                const struct topology_data *data = &diff->after->data[i];
                (void)snprintf(detail, sizeof detail, " (%s%s%s)",
                               topology_conflict_name(data->conflict),
                               data->function[0] != 0 ? " by " : "", data->function);
                if (data_of(diff->before, data->prefix) == NULL)
                        diff_line(diff, '+', "data", data->prefix, detail);
        }
}

/* The texts are long: that one has changed is all that is said. */
static void diff_functions(struct diff *diff)
{
        for (uint32_t i = 0; i < diff->before->function_count; i++) {
                const struct topology_function *function = &diff->before->functions[i];
                const struct topology_function *other =
                        topology_function_of(diff->after, bytes_of_str(function->name));
                if (other == NULL)
                        diff_line(diff, '-', "function", function->name, "");
                else if (strcmp(function->text, other->text) != 0)
                        diff_line(diff, '~', "function", function->name, ": another text");
        }
        for (uint32_t i = 0; i < diff->after->function_count; i++) {
                struct bytes name = bytes_of_str(diff->after->functions[i].name);
                if (topology_function_of(diff->before, name) == NULL)
                        diff_line(diff, '+', "function", diff->after->functions[i].name, "");
        }
        diff->name = "";
}

static void diff_postgres(struct diff *diff)
{
        bool had = diff->before->postgres.node_count > 0;
        bool has = diff->after->postgres.node_count > 0;
        diff->kind = "postgres";
        if (had && has)
                diff_fields(diff, SECTION_POSTGRES, &diff->before->postgres,
                            &diff->after->postgres);
        else if (had || has)
                diff_line(diff, has ? '+' : '-', "postgres", "cluster", "");
}

size_t topology_diff(const struct topology *before, const struct topology *after,
                     struct buffer *buffer)
{
        struct diff diff = {before, after, buffer, 0, "cluster", ""};
        diff_fields(&diff, SECTION_ROOT, before, after);
        diff.kind = "timing";
        diff_fields(&diff, SECTION_TIMING, &before->timing, &after->timing);
        diff_regions(&diff);
        diff_zones(&diff);
        diff_names(&diff);
        diff_data(&diff);
        diff_functions(&diff);
        diff_postgres(&diff);
        return diff.count;
}

static bool follow_fails(struct topology_error *error, const char *where, const char *what,
                         const char *todo)
{
        *error = (struct topology_error){0};
        (void)snprintf(error->where, sizeof error->where, "%s", where);
        (void)snprintf(error->what, sizeof error->what, "%s", what);
        (void)snprintf(error->todo, sizeof error->todo, "%s", todo);
        return false;
}

bool topology_may_follow(const struct topology *before, const struct topology *after,
                         struct topology_error *ret_error)
{
        if (strcmp(before->cluster, after->cluster) != 0)
                return follow_fails(ret_error, "cluster", "it is another cluster's document",
                                    "apply it to that cluster, or correct the name");
        if (after->epoch <= before->epoch)
                return follow_fails(ret_error, "epoch", "it is not larger than the present one",
                                    "read the present topology again and raise the epoch");
        for (uint32_t i = 0; i < after->region_count; i++) {
                const struct topology_region *region = &after->regions[i];
                const struct topology_region *id = topology_region_by_id(before, region->id);
                const struct topology_region *name =
                        topology_region_by_name(before, bytes_of_str(region->name));
                if (id != name)
                        return follow_fails(ret_error, region->name,
                                            "the region's id or name is that of another region",
                                            "ids and names stay together; use new ones");
                for (uint32_t n = 0; n < region->node_count; n++) {
                        const struct topology_region *home =
                                topology_region_of_node(before, region->nodes[n].id);
                        if (home != NULL && home->id != region->id)
                                return follow_fails(ret_error, region->nodes[n].name,
                                                    "the node's id belongs to another region",
                                                    "give the node a new id");
                }
        }
        return true;
}
