/* The PostgreSQL cluster: its values, and what they mean together. Nodes are named, and may be
 * described later in the document, so their ids are filled in at its end. Fails as the rest of the
 * parser does: with the place, the reason, what to do. */
#include "topology/parse_priv.h"

#define RPO_MS_MIN 1000

bool store_switch(struct parser *parser, const struct field_row *row, void *base,
                  const struct token *token)
{
        bool on = bytes_equal(token->text, BYTES("on"));
        if (!on && !bytes_equal(token->text, BYTES("off")))
                return FAIL(parser, token, "use on or off", "'%.*s' is neither on nor off",
                            SHOWN(token));
        *(bool *)field_at(row, base) = on;
        return true;
}

bool store_node(struct parser *parser, const struct field_row *row, void *base,
                const struct token *token)
{
        uint32_t index = 0;
        uint32_t *ids = field_at(row, base);
        for (uint32_t i = 0; i < parser->node_count; i++) {
                const struct node_mention *other = &parser->nodes[i];
                if (other->id >= ids && other->id < ids + field_count_of(row, base) &&
                    bytes_equal(other->token.text, token->text))
                        return FAIL(parser, token, "name each node once", "%.*s is given twice",
                                    SHOWN(token));
        }
        if (!list_grow(parser, row, base, token, &index))
                return false;
        CHECK(parser->node_count < COUNT_OF(parser->nodes));
        parser->nodes[parser->node_count++] = (struct node_mention){*token, &ids[index]};
        return true;
}

static bool section_fails(struct parser *parser, const struct frame *frame, const char *todo,
                          const char *what)
{
        return fail_at(parser, frame->line, frame->column, todo, "%s", what);
}

bool check_postgres(struct parser *parser, const struct frame *frame)
{
        const struct topology_postgres *postgres = frame->base;
        if (postgres->node_count == 0)
                return section_fails(parser, frame, "name at least one: nodes = [NAME, ...]",
                                     "the cluster has no node");
        if (postgres->never_count >= postgres->node_count)
                return section_fails(parser, frame, "shorten never",
                                     "no node is left that may become primary");
        if (postgres->sync >= postgres->node_count)
                return section_fails(parser, frame, "lower sync, or name more nodes",
                                     "commits would wait for more standbys than there are");
        if (postgres->margin_ms + 2 * postgres->renew_ms > postgres->lease_ms)
                return section_fails(parser, frame, "raise lease, or lower margin or renew",
                                     "lease is less than margin and two renewals, so one lost "
                                     "packet would stop the primary");
        if (postgres->margin_ms < postgres->lease_ms / 10)
                return section_fails(parser, frame, "raise margin to a tenth of lease, or more",
                                     "margin is too small for clocks that run apart");
        if (postgres->rpo_hold && postgres->rpo_ms == 0 && postgres->rpo_bytes == 0)
                return section_fails(parser, frame, "give rpo (a time) or rpo_bytes as well",
                                     "rpo_hold has no limit beyond which commits would be held");
        if (postgres->rpo_ms != 0 && postgres->rpo_ms < RPO_MS_MIN)
                return section_fails(parser, frame, "raise rpo to 1s or more, or take it out",
                                     "what other regions have is not known that exactly");
        return true;
}

static bool listed(const uint32_t *ids, uint32_t count, uint32_t id)
{
        for (uint32_t i = 0; i < count; i++) {
                if (ids[i] == id)
                        return true;
        }
        return false;
}

static bool mention_resolve(struct parser *parser, const struct node_mention *mention)
{
        const struct topology *topology = parser->topology;
        const struct token *token = &mention->token;
        const struct topology_node *node = topology_node_by_name(topology, token->text);
        if (node == NULL)
                return FAIL(parser, token, "describe it in its region, or name another",
                            "there is no node '%.*s'", SHOWN(token));
        const struct topology_region *region = topology_region_of_node(topology, node->id);
        if (region->role != TOPOLOGY_ROLE_DATA)
                return FAIL(parser, token, "name a node of a region whose role is data",
                            "the node '%.*s' belongs to a witness", SHOWN(token));
        *mention->id = node->id;
        return true;
}

/* Of how many others a commit on that node may wait: of those in other regions, where there are
 * any. */
static uint32_t waited_for(const struct topology *topology, uint32_t id)
{
        const struct topology_postgres *postgres = &topology->postgres;
        const struct topology_region *own = topology_region_of_node(topology, id);
        uint32_t outside = 0, inside = 0;
        for (uint32_t i = 0; i < postgres->node_count; i++) {
                uint32_t other = postgres->nodes[i];
                bool apart = topology_region_of_node(topology, other) != own;
                outside += apart;
                if (!apart && other != id)
                        inside++;
        }
        return outside > 0 ? outside : inside;
}

/* How many of the others may take over from the i-th: of other regions, where there are any. */
static uint32_t keepers(const struct topology *topology, uint32_t i)
{
        const struct topology_postgres *postgres = &topology->postgres;
        const struct topology_region *own = topology_region_of_node(topology, postgres->nodes[i]);
        bool alone = true;
        uint32_t count = 0;
        for (uint32_t k = 0; k < postgres->node_count; k++)
                alone = alone && topology_region_of_node(topology, postgres->nodes[k]) == own;
        for (uint32_t k = 0; k < postgres->node_count; k++)
                count += k != i &&
                         !listed(postgres->never, postgres->never_count, postgres->nodes[k]) &&
                         (alone || topology_region_of_node(topology, postgres->nodes[k]) != own);
        return count;
}

/* With rpo_hold one that has nobody to wait for would wait for ever. */
static bool sync_fits(struct parser *parser)
{
        const struct topology_postgres *postgres = &parser->topology->postgres;
        for (uint32_t i = 0; i < postgres->node_count; i++) {
                uint32_t most = waited_for(parser->topology, postgres->nodes[i]);
                bool writes = !listed(postgres->never, postgres->never_count, postgres->nodes[i]);
                if (postgres->rpo_hold && writes && keepers(parser->topology, i) == 0)
                        return FAIL(parser, &parser->nodes[0].token,
                                    "take rpo_hold out, or name more nodes that may be primary",
                                    "with rpo_hold commits of a node would wait for another "
                                    "server, and there is none");
                if (postgres->sync > most)
                        return FAIL(parser, &parser->nodes[0].token,
                                    "lower sync, or name nodes of more regions",
                                    "commits of a node would wait for %u servers of other regions, "
                                    "and there are %u",
                                    postgres->sync, most);
        }
        return true;
}

bool check_postgres_nodes(struct parser *parser)
{
        struct topology_postgres *postgres = &parser->topology->postgres;
        for (uint32_t i = 0; i < parser->node_count; i++) {
                if (!mention_resolve(parser, &parser->nodes[i]))
                        return false;
        }
        for (uint32_t i = 0; i < parser->node_count; i++) {
                const struct node_mention *mention = &parser->nodes[i];
                if (!listed(postgres->nodes, postgres->node_count, *mention->id))
                        return FAIL(parser, &mention->token, "add it to nodes, or remove it",
                                    "the node '%.*s' is none of the cluster's",
                                    SHOWN(&mention->token));
                if (mention->id == &postgres->first &&
                    listed(postgres->never, postgres->never_count, *mention->id))
                        return FAIL(parser, &mention->token, "name another",
                                    "the node '%.*s' is to be first, and never to be primary",
                                    SHOWN(&mention->token));
        }
        for (uint32_t i = 0; i < postgres->node_count && postgres->first_count == 0; i++) {
                if (!listed(postgres->never, postgres->never_count, postgres->nodes[i])) {
                        postgres->first = postgres->nodes[i];
                        postgres->first_count = 1;
                }
        }
        return sync_fits(parser);
}
