/* request_changes.c - what operators ask for: another topology, another state of a region. Both are
 * judged here, with a sentence for who asked, before the global group decides. */
#include "node/node_priv.h"

#include <stdio.h>

static uint64_t region_bits(const struct topology *topology)
{
        uint64_t bits = 0;
        for (uint32_t i = 0; i < topology->region_count; i++)
                bits |= 1ull << (topology->regions[i].id - 1);
        return bits;
}

/* What the others hold of the removed region would be taken for what the new one has seen. */
const char *request_removed_text(region_id id, char *text, size_t size)
{
        (void)snprintf(
                text, size,
                "a region that was removed had the id %u: an id is never used again; give the "
                "region another one, 1 to %d",
                id, TOPOLOGY_REGION_ID_MAX);
        return text;
}

static void topology_set(struct node *node, struct asker asker, const struct request *request)
{
        struct node_group *group = &node->groups[WORLD_GROUP_GLOBAL];
        uint64_t epoch;
        char text[160];
        (void)council_topology(group->council, &epoch);
        if (epoch != request->topology.epoch) { /* what was removed is judged by the present one */
                request_refuse(node, asker, request->kind, REPLY_CONFLICT, err_text(ERR_BUSY));
                return;
        }
        uint64_t removed = council_removed(group->council);
        struct council_command command = {.kind = COUNCIL_SET_TOPOLOGY};
        command.actor = request->topology.actor;
        command.topology.epoch_expected = request->topology.epoch;
        command.topology.document = request->topology.document;
        command.topology.removed = region_bits(node->topology) & ~region_bits(node->spare);
        if (command.topology.removed != 0 || removed != 0)
                command.topology.regions = region_bits(node->spare);
        region_id again = council_region_least(command.topology.regions & removed);
        if (again != 0) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                               request_removed_text(again, text, sizeof text));
                return;
        }
        struct pending *pending = pending_for(node, asker, request->kind, WORLD_GROUP_GLOBAL, 0);
        if (pending != NULL)
                pending_begin(node, pending, &command);
}

void request_topology_came(struct node *node, struct asker asker, const struct request *request)
{
        struct node_group *group = &node->groups[WORLD_GROUP_GLOBAL];
        struct reply reply = {.kind = request->kind, .code = REPLY_OK};
        if (request->kind == REQUEST_TOPOLOGY_GET) {
                reply.topology.document = council_topology(group->council, &reply.topology.epoch);
                if (reply.topology.document.len == 0)
                        reply.topology.document = node_document(node);
                request_answer(node, asker, &reply);
                return;
        }
        struct topology_error error = {0};
        char text[480];
        if (!topology_parse(request->topology.document, node->spare, &error) ||
            !topology_may_follow(node->topology, node->spare, &error)) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                               topology_error_text(&error, text, sizeof text));
                return;
        }
        if (!members_may_follow(node, node->spare, text, sizeof text)) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST, text);
                return;
        }
        if (request_no_majority(node, asker, request->kind, group))
                return;
        topology_set(node, asker, request);
}

static uint16_t row_number(const struct failover_row *row)
{
        return (uint16_t)(row - failover_rows(&(size_t){0}) + 1);
}

void request_region_came(struct node *node, struct asker asker, const struct request *request)
{
        static const enum failover_wish wishes[REQUEST_ACTION_COUNT] = {
                [REQUEST_DRAIN] = FAILOVER_WISH_DRAIN,
                [REQUEST_UNDRAIN] = FAILOVER_WISH_RETURN,
                [REQUEST_ISOLATE] = FAILOVER_WISH_ISOLATE,
                [REQUEST_UNISOLATE] = FAILOVER_WISH_RETURN,
        };
        const struct topology_region *region =
                topology_region_by_name(node->topology, request->region.region);
        struct node_region *known = region != NULL ? node_region_of(node, region->id) : NULL;
        if (known == NULL) {
                request_refuse(node, asker, request->kind, REPLY_UNKNOWN_REGION,
                               "There is no such region.");
                return;
        }
        const struct failover_region named = {region->name, region->role == TOPOLOGY_ROLE_WITNESS};
        struct failover_input input;
        char sentence[FAILOVER_SENTENCE_SIZE];
        regions_input(node, known, &input);
        input.wish = wishes[request->region.action];
        const struct failover_row *row = failover_decide(&input);
        if (row == NULL || row->refuses) {
                request_refuse(node, asker, request->kind, REPLY_CONFLICT,
                               row == NULL ? "Nothing is to be done."
                                           : failover_sentence(row, named, NULL, NULL, sentence));
                return;
        }
        if (request_no_majority(node, asker, request->kind, &node->groups[WORLD_GROUP_GLOBAL]))
                return;
        struct pending *pending = pending_for(node, asker, request->kind, WORLD_GROUP_GLOBAL, 0);
        if (pending == NULL)
                return;
        pending->region = region->id;
        struct council_command command = {.kind = COUNCIL_SET_REGION_STATE};
        command.actor = request->region.actor;
        command.region.region = region->id;
        command.region.from = (uint8_t)input.state;
        command.region.to = (uint8_t)row->to;
        command.region.row = row_number(row);
        struct bytes evidence = request->region.why;
        if (evidence.len == 0)
                evidence = bytes_of_str(failover_sentence(row, named, NULL, NULL, sentence));
        if (evidence.len > COUNCIL_TEXT_BYTES_MAX)
                evidence.len = COUNCIL_TEXT_BYTES_MAX;
        command.region.evidence = evidence;
        pending_begin(node, pending, &command);
}
