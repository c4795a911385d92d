/* level.c - while nodes of two builds serve together (council.h, "Levels"). Each node says in its
 * word what it knows; whoever leads a group raises the group's level to what all nodes of the group
 * have said. A node that has said nothing yet holds that up, also one that is down: it may come
 * back with the old build. */
#include "node/node_priv.h"

#include <stdio.h>

#define RAISE_APART_US 500000

uint8_t level_own(const struct node *node)
{
        struct council_config config = {.level_max = node->config.level_max};
        return (uint8_t)council_level_known(&config);
}

static bool in_group(const struct node *node, const struct node_group *group,
                     const struct node_peer *peer)
{
        return group->group == WORLD_GROUP_GLOBAL || peer->region == node->region_id;
}

/* The node of the group that knows least, and what: 0 where it has not spoken. NULL: all know as
 * much as this one. */
static const struct node_peer *lowest(const struct node *node, const struct node_group *group)
{
        const struct node_peer *found = NULL;
        for (size_t i = 0; i < node->peer_count; i++) {
                const struct node_peer *peer = &node->peers[i];
                if (peer->id == node->config.self || !in_group(node, group, peer) ||
                    peer->word.level >= level_own(node))
                        continue;
                if (found == NULL || peer->word.level < found->word.level)
                        found = peer;
        }
        return found;
}

void level_tick(struct node *node, struct node_group *group)
{
        unsigned level = council_level(group->council);
        if (!group->leading || level >= level_own(node) || node->now_us < group->raise_next_us)
                return;
        group->raise_next_us = node->now_us + RAISE_APART_US;
        const struct node_peer *least = lowest(node, group);
        bool blind = (node->config.bugs & NODE_BUG_LEVEL_BLIND) != 0;
        unsigned all = least == NULL || blind ? level_own(node) : least->word.level;
        if (all <= level)
                return;
        struct council_command command = {.kind = COUNCIL_SET_LEVEL,
                                          .wall_us = node->wall_us,
                                          .actor = BYTES("automatic"),
                                          .level = (uint8_t)all};
        (void)group_propose(node, group, &command);
}

bool level_refuses(struct node *node, struct asker asker, enum request_kind kind,
                   const struct node_group *group, unsigned level)
{
        char text[240];
        if (council_level(group->council) >= level)
                return false;
        const struct node_peer *least = lowest(node, group);
        if (level_own(node) < level)
                (void)snprintf(text, sizeof text,
                               "This needs level %u, and this node is kept at level %u (`level` "
                               "in its configuration).",
                               level, level_own(node));
        else if (least != NULL && least->word.level != 0)
                (void)snprintf(text, sizeof text,
                               "This needs level %u, and node %u knows level %u: bring all nodes "
                               "to this version first.",
                               level, least->id, least->word.level);
        else if (least != NULL && node->now_us > node->started_us + LEVEL_PATIENCE_US)
                (void)snprintf(text, sizeof text,
                               "This needs level %u, and node %u has never been heard: start it, "
                               "or take it out of the topology.",
                               level, least->id);
        else
                return false; /* it will rise in a moment */
        request_refuse(node, asker, kind, REPLY_LEVEL, text);
        return true;
}
