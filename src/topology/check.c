/* What values mean together: the rules of each section when it closes, and of the document at its
 * end. A broken rule is an error with the line of the section. */
#include "topology/parse_priv.h"

#include <stdio.h>

static bool section_fails(struct parser *parser, const struct frame *frame, const char *todo,
                          const char *what)
{
        return fail_at(parser, frame->line, frame->column, todo, "%s", what);
}

static bool frame_has(const struct frame *frame, const char *key)
{
        size_t index = 0;
        CHECK(section_field(frame->row, bytes_of_str(key), &index) != NULL);
        return (frame->seen & (1u << index)) != 0;
}

static bool check_timing(struct parser *parser, const struct frame *frame)
{
        const struct topology_timing *timing = frame->base;
        if (timing->suspect_after_ms < 2 * timing->heartbeat_ms)
                return section_fails(
                        parser, frame, "raise suspect_after or lower heartbeat",
                        "suspect_after is less than two heartbeats, so one lost packet "
                        "would raise suspicion");
        if (timing->down_after_ms <= timing->suspect_after_ms)
                return section_fails(parser, frame, "raise down_after or lower suspect_after",
                                     "down_after is not larger than suspect_after");
        if (timing->recover_after_ms < timing->heartbeat_ms)
                return section_fails(parser, frame, "raise recover_after",
                                     "recover_after is less than one heartbeat");
        if (timing->election_ms < 3 * timing->election_heartbeat_ms)
                return section_fails(parser, frame, "raise election or lower election_heartbeat",
                                     "election is less than three election_heartbeats");
        if (timing->region_election_ms < 3 * timing->region_election_heartbeat_ms)
                return section_fails(
                        parser, frame, "raise region_election or lower region_election_heartbeat",
                        "region_election is less than three region_election_heartbeats");
        return true;
}

static bool check_continent(const char *code)
{
        static const char *const codes[] = {"", "AF", "AN", "AS", "EU", "NA", "OC", "SA"};
        for (size_t i = 0; i < COUNT_OF(codes); i++) {
                if (strcmp(code, codes[i]) == 0)
                        return true;
        }
        return false;
}

static bool check_region(struct parser *parser, const struct frame *frame)
{
        struct topology_region *region = frame->base;
        if (frame_has(frame, "latitude") != frame_has(frame, "longitude"))
                return section_fails(parser, frame, "give both or neither",
                                     "latitude and longitude belong together");
        region->place_known = frame_has(frame, "latitude");
        if (!check_continent(region->continent))
                return section_fails(parser, frame, "use AF, AN, AS, EU, NA, OC or SA",
                                     "the continent is not known");
        for (const struct topology_region *other = parser->topology->regions; other < region;
             other++) {
                if (other->id == region->id)
                        return fail_at(parser, frame->line, frame->column,
                                       "give each region an id of its own",
                                       "the id %u is that of region %s already", region->id,
                                       other->name);
        }
        if (region->node_count == 0)
                return section_fails(parser, frame, "add: node NAME { id = ...; link = ...; }",
                                     "the region has no node");
        if (region->role == TOPOLOGY_ROLE_WITNESS &&
            region->a_count + region->aaaa_count + region->backend_count > 0)
                return section_fails(parser, frame,
                                     "remove a, aaaa and backends, or make its role data",
                                     "a witness serves nobody, but has addresses or backends");
        return true;
}

static bool check_node(struct parser *parser, const struct frame *frame)
{
        const struct topology_node *node = frame->base;
        const struct topology_node *other = topology_node_by_id(parser->topology, node->id);
        CHECK(other != NULL);
        if (other != node)
                return fail_at(parser, frame->line, frame->column,
                               "give each node of the cluster an id of its own",
                               "the id %u is that of node %s already", node->id, other->name);
        return true;
}

/* The SOA's numbers when there is no soa section, and its names by default. */
static bool check_zone(struct parser *parser, const struct frame *frame)
{
        struct topology_zone *zone = frame->base;
        if ((frame->seen & (1u << (16 + SECTION_SOA))) == 0) {
                const struct section_row *soa = &section_rows[SECTION_SOA];
                for (size_t i = 0; i < soa->field_count; i++) {
                        uint32_t value = (uint32_t)soa->fields[i].absent;
                        if (soa->fields[i].kind == FIELD_SECONDS)
                                memcpy(field_at(&soa->fields[i], zone), &value, sizeof value);
                }
        }
        static const struct {
                const char *prefix;
                size_t offset;
        } names[] = {
                {"ns", offsetof(struct topology_zone, mname)},
                {"hostmaster", offsetof(struct topology_zone, rname)},
        };
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                char *name = (char *)zone + names[i].offset;
                if (name[0] != 0)
                        continue;
                int len =
                        snprintf(name, TOPOLOGY_DOMAIN_SIZE, "%s.%s", names[i].prefix, zone->name);
                if (len > 253)
                        return section_fails(parser, frame, "give soa { mname, rname }",
                                             "the zone's name is too long to derive its SOA from");
                memset(name + len, 0, TOPOLOGY_DOMAIN_SIZE - (size_t)len);
        }
        for (uint32_t i = 0; i < parser->topology->name_count; i++) {
                struct topology_name *name = &parser->topology->names[i];
                if (&parser->topology->zones[name->zone] == zone && name->ttl_s == UINT32_MAX)
                        name->ttl_s = zone->ttl_s;
        }
        return true;
}

static bool check_name(struct parser *parser, const struct frame *frame)
{
        struct topology_name *name = frame->base;
        const struct topology_zone *zone = &parser->topology->zones[name->zone];
        bool region = frame_has(frame, "region");
        bool order = frame_has(frame, "order");
        if (strlen(zone->name) + strlen(name->label) + 1 > 253)
                return section_fails(parser, frame, "shorten it",
                                     "the name with its zone is longer than 253 bytes");
        if (region && order)
                return section_fails(parser, frame, "keep one of them",
                                     "region and order exclude each other");
        if (!frame_has(frame, "policy") && (region || order))
                name->policy = region ? TOPOLOGY_POLICY_REGION : TOPOLOGY_POLICY_FAILOVER;
        if (!frame_has(frame, "policy") && !region && !order)
                return section_fails(parser, frame,
                                     "add policy = nearest, region = NAME or order = [NAME, ...]",
                                     "the name has no policy");
        if (region != (name->policy == TOPOLOGY_POLICY_REGION))
                return section_fails(parser, frame, "give region = NAME for policy region alone",
                                     "the policy and the key region do not fit");
        if ((order && name->order_count > 0) != (name->policy == TOPOLOGY_POLICY_FAILOVER))
                return section_fails(parser, frame,
                                     "give order = [NAME, ...] for policy failover alone",
                                     "the policy and the key order do not fit");
        if (!frame_has(frame, "ttl"))
                name->ttl_s = UINT32_MAX; /* until the zone closes and its ttl is known */
        return true;
}

/* Names of first mention become ids. */
static bool check_mentions(struct parser *parser)
{
        struct topology *topology = parser->topology;
        uint8_t ids[COUNT_OF(parser->mentions)] = {0};
        for (uint32_t i = 0; i < parser->mention_count; i++) {
                const struct token *token = &parser->mentions[i];
                const struct topology_region *region =
                        topology_region_by_name(topology, token->text);
                int shown = (int)(token->text.len < 64 ? token->text.len : 64);
                if (region == NULL)
                        return fail_at(parser, token->line, token->column,
                                       "describe it, or name another", "there is no region '%.*s'",
                                       shown, token->text.ptr);
                if (region->role != TOPOLOGY_ROLE_DATA)
                        return fail_at(parser, token->line, token->column,
                                       "name a region whose role is data",
                                       "the region '%.*s' is a witness", shown, token->text.ptr);
                ids[i] = region->id;
        }
        for (uint32_t i = 0; i < topology->name_count; i++) {
                struct topology_name *name = &topology->names[i];
                for (uint32_t k = 0; k < name->order_count; k++)
                        name->order[k] = ids[name->order[k]];
        }
        return true;
}

enum {
        NODE_ENDPOINTS = 3,
};

static const struct topology_endpoint *node_endpoint(const struct topology_node *node, size_t index)
{
        const struct topology_endpoint *all[NODE_ENDPOINTS] = {&node->link, &node->admin,
                                                               &node->locks};
        return all[index];
}

/* The node before `last` (or last itself, by an earlier endpoint) that has this endpoint. */
static const struct topology_node *endpoint_taken(const struct topology *topology,
                                                  const struct topology_node *last, size_t index)
{
        const struct topology_endpoint *endpoint = node_endpoint(last, index);
        if (endpoint->address.family == 0)
                return NULL;
        for (uint32_t r = 0; r < topology->region_count; r++) {
                const struct topology_region *region = &topology->regions[r];
                for (uint32_t n = 0; n < region->node_count; n++) {
                        const struct topology_node *node = &region->nodes[n];
                        size_t count = node == last ? index : (size_t)NODE_ENDPOINTS;
                        for (size_t i = 0; i < count; i++) {
                                if (endpoint_equal(node_endpoint(node, i), endpoint))
                                        return node;
                        }
                        if (node == last)
                                return NULL;
                }
        }
        return NULL;
}

static bool check_endpoints(struct parser *parser, const struct topology_node *node)
{
        for (size_t i = 0; i < NODE_ENDPOINTS; i++) {
                const struct topology_node *other = endpoint_taken(parser->topology, node, i);
                char text[TOPOLOGY_ENDPOINT_TEXT];
                if (other != NULL)
                        return fail_at(parser, 0, 0,
                                       "give each door of each node a port of its own",
                                       "%s of node %s is taken by node %s already",
                                       topology_endpoint_text(node_endpoint(node, i), text),
                                       node->name, other->name);
        }
        return true;
}

static bool check_root(struct parser *parser, const struct frame *frame)
{
        const struct topology *topology = parser->topology;
        uint32_t data_count = 0;
        if (topology->region_count == 0)
                return section_fails(parser, frame, "describe at least one: region NAME { ... }",
                                     "the document has no region");
        for (uint32_t r = 0; r < topology->region_count; r++) {
                const struct topology_region *region = &topology->regions[r];
                data_count += region->role == TOPOLOGY_ROLE_DATA ? 1 : 0;
                for (uint32_t n = 0; n < region->node_count; n++) {
                        if (!check_endpoints(parser, &region->nodes[n]))
                                return false;
                }
        }
        if (data_count == 0)
                return section_fails(parser, frame, "make the role of at least one region data",
                                     "all regions are witnesses");
        return check_mentions(parser) && check_functions(parser) && check_postgres_nodes(parser);
}

static bool check_nothing(struct parser *parser, const struct frame *frame)
{
        (void)parser;
        (void)frame;
        return true;
}

bool check_section(struct parser *parser, const struct frame *frame)
{
        static bool (*const checks[SECTION_COUNT])(struct parser *, const struct frame *) = {
                [SECTION_ROOT] = check_root,        [SECTION_TIMING] = check_timing,
                [SECTION_REGION] = check_region,    [SECTION_NODE] = check_node,
                [SECTION_ZONE] = check_zone,        [SECTION_SOA] = check_nothing,
                [SECTION_NAME] = check_name,        [SECTION_DATA] = check_data,
                [SECTION_FUNCTION] = check_nothing, [SECTION_POSTGRES] = check_postgres,
        };
        return checks[frame->kind](parser, frame);
}
