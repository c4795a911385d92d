/* Look-ups and names. They cannot fail but for "there is none". */
#include "topology/topology.h"

#include "base/check.h"

#include <stdio.h>

static const char *const role_names[TOPOLOGY_ROLE_COUNT] = {
        [TOPOLOGY_ROLE_DATA] = "data",
        [TOPOLOGY_ROLE_WITNESS] = "witness",
};

static const char *const policy_names[TOPOLOGY_POLICY_COUNT] = {
        [TOPOLOGY_POLICY_NEAREST] = "nearest",
        [TOPOLOGY_POLICY_REGION] = "region",
        [TOPOLOGY_POLICY_FAILOVER] = "failover",
};

static const char *const conflict_names[TOPOLOGY_CONFLICT_COUNT] = {
        [TOPOLOGY_CONFLICT_TYPED] = "typed",
        [TOPOLOGY_CONFLICT_LAST_WRITE] = "last-write",
        [TOPOLOGY_CONFLICT_SIBLINGS] = "siblings",
        [TOPOLOGY_CONFLICT_MERGE] = "merge",
};

const char *topology_conflict_name(enum topology_conflict conflict)
{
        return (unsigned)conflict < TOPOLOGY_CONFLICT_COUNT ? conflict_names[conflict] : "unknown";
}

const struct topology_function *topology_function_of(const struct topology *topology,
                                                     struct bytes name)
{
        for (uint32_t i = 0; i < topology->function_count; i++) {
                if (bytes_equal(name, bytes_of_str(topology->functions[i].name)))
                        return &topology->functions[i];
        }
        return NULL;
}

const char *topology_role_name(enum topology_role role)
{
        return (unsigned)role < TOPOLOGY_ROLE_COUNT ? role_names[role] : "unknown";
}

const char *topology_policy_name(enum topology_policy policy)
{
        return (unsigned)policy < TOPOLOGY_POLICY_COUNT ? policy_names[policy] : "unknown";
}

const struct topology_region *topology_region_by_id(const struct topology *topology, uint8_t id)
{
        for (uint32_t i = 0; i < topology->region_count; i++) {
                if (topology->regions[i].id == id)
                        return &topology->regions[i];
        }
        return NULL;
}

const struct topology_region *topology_region_by_name(const struct topology *topology,
                                                      struct bytes name)
{
        for (uint32_t i = 0; i < topology->region_count; i++) {
                if (bytes_equal(name, bytes_of_str(topology->regions[i].name)))
                        return &topology->regions[i];
        }
        return NULL;
}

/* Walks all nodes; stops at the first one whose id or name fits. */
static const struct topology_node *node_find(const struct topology *topology, uint32_t id,
                                             struct bytes name,
                                             const struct topology_region **ret_region)
{
        for (uint32_t r = 0; r < topology->region_count; r++) {
                const struct topology_region *region = &topology->regions[r];
                for (uint32_t n = 0; n < region->node_count; n++) {
                        const struct topology_node *node = &region->nodes[n];
                        if (id != 0 ? node->id == id
                                    : bytes_equal(name, bytes_of_str(node->name))) {
                                *ret_region = region;
                                return node;
                        }
                }
        }
        return NULL;
}

const struct topology_node *topology_node_by_id(const struct topology *topology, uint32_t id)
{
        const struct topology_region *region;
        return id == 0 ? NULL : node_find(topology, id, bytes_of(NULL, 0), &region);
}

const struct topology_node *topology_node_by_name(const struct topology *topology,
                                                  struct bytes name)
{
        const struct topology_region *region;
        return name.len == 0 ? NULL : node_find(topology, 0, name, &region);
}

const struct topology_region *topology_region_of_node(const struct topology *topology, uint32_t id)
{
        const struct topology_region *region = NULL;
        if (id == 0 || node_find(topology, id, bytes_of(NULL, 0), &region) == NULL)
                return NULL;
        return region;
}

size_t topology_region_index(const struct topology *topology, const struct topology_region *region)
{
        CHECK(region >= topology->regions);
        CHECK(region < topology->regions + topology->region_count);
        return (size_t)(region - topology->regions);
}

static uint8_t lower(uint8_t byte)
{
        return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

/* Does `text` end in the lower-case name `tail`, whatever its own case? */
static bool ends_in(struct bytes text, struct bytes tail)
{
        if (text.len < tail.len)
                return false;
        for (size_t i = 0; i < tail.len; i++) {
                if (lower(text.ptr[text.len - tail.len + i]) != tail.ptr[i])
                        return false;
        }
        return true;
}

static struct bytes undotted(struct bytes domain)
{
        if (domain.len > 0 && domain.ptr[domain.len - 1] == '.')
                domain.len--;
        return domain;
}

const struct topology_zone *topology_zone_of(const struct topology *topology, struct bytes domain)
{
        const struct topology_zone *best = NULL;
        size_t best_len = 0;
        domain = undotted(domain);
        for (uint32_t i = 0; i < topology->zone_count; i++) {
                struct bytes name = bytes_of_str(topology->zones[i].name);
                bool inside =
                        ends_in(domain, name) &&
                        (domain.len == name.len || domain.ptr[domain.len - name.len - 1] == '.');
                if (inside && name.len > best_len) {
                        best = &topology->zones[i];
                        best_len = name.len;
                }
        }
        return best;
}

const struct topology_name *topology_name_of(const struct topology *topology, struct bytes domain)
{
        const struct topology_zone *zone = topology_zone_of(topology, domain);
        if (zone == NULL)
                return NULL;
        domain = undotted(domain);
        size_t zone_len = strlen(zone->name);
        struct bytes label = BYTES("@");
        if (domain.len > zone_len)
                label = bytes_of(domain.ptr, domain.len - zone_len - 1);
        for (uint32_t i = 0; i < topology->name_count; i++) {
                const struct topology_name *name = &topology->names[i];
                struct bytes have = bytes_of_str(name->label);
                if (&topology->zones[name->zone] == zone && have.len == label.len &&
                    ends_in(label, have))
                        return name;
        }
        return NULL;
}

const char *topology_error_text(const struct topology_error *error, char *text, size_t size)
{
        char line[32] = "";
        CHECK(size > 0);
        if (error->line > 0)
                (void)snprintf(line, sizeof line, "line %u:%u, ", error->line, error->column);
        (void)snprintf(text, size, "%s%s%s%s; %s", line, error->where,
                       error->where[0] != 0 ? ": " : "", error->what, error->todo);
        return text;
}
