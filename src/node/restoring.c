/* A state that a leader has sent, taken over in steps, so that the node never stops for it:
 *
 *   it comes out of the consensus --> a council beside --> step ... step --> it is the state, and
 *   what was decided behind it comes out --> the old one is freed, step by step
 *
 * Until then the old state answers whoever asks for what is here, and this node leads nothing. A
 * newer state that comes out meanwhile is begun with instead. Where this node is elected meanwhile
 * all wait for it, and the steps are larger. At a node's start, when nobody is served yet, all is
 * done at once. */
#include "node/node_priv.h"

#define STEP_BYTES    ((size_t)128 * 1024)
#define STEP_APART_US 1000
#define STEPS_LEADING 8 /* in one */

static size_t step_bytes(const struct node *node)
{
        return node->config.snapshot_step_bytes == 0 ? STEP_BYTES
                                                     : node->config.snapshot_step_bytes;
}

static void adopt(struct node *node, struct node_group *group)
{
        group->backs_up = false; /* the capture went with the old state */
        struct bytes document = council_topology(group->council, NULL);
        if (group->group == WORLD_GROUP_GLOBAL && document.len > 0)
                node_adopt_topology(node, document);
}

void restoring_begin(struct node *node, struct node_group *group,
                     const struct consensus_output *output)
{
        bool steps = output->restore_waits && node->now_us != node->started_us;
        enum err err = steps ? council_restore_begin(group->council, output->restore_state)
                             : council_restore(group->council, output->restore_state);
        if (err != ERR_NONE)
                group_fail(node, group, group_stop_reason(err));
        else if (!steps)
                adopt(node, group);
        group->restore_next_us = node->now_us;
}

void restoring_carried_out(struct node *node, struct node_group *group)
{
        if (group->failed || council_restoring(group->council))
                return;
        consensus_restored(group->consensus);
        values_changed(node, group);
        watch_locks_changed(node, group);
}

static void restore_end(struct node *node, struct node_group *group)
{
        enum err err = council_restore_end(group->council);
        if (err != ERR_NONE) {
                group_fail(node, group, group_stop_reason(err));
                return;
        }
        adopt(node, group);
        restoring_carried_out(node, group);
        node->look = true;
}

void restoring_tick(struct node *node, struct node_group *group)
{
        if (restoring_wake_us(group) > node->now_us)
                return;
        size_t bytes = step_bytes(node);
        bool leads = group->status.role == CONSENSUS_LEADER;
        group->restore_next_us = node->now_us + STEP_APART_US;
        if (council_sweeping(group->council))
                council_sweep(group->council, bytes);
        else if (group->failed)
                council_restore_drop(group->council);
        else if (council_restore_step(group->council, leads ? STEPS_LEADING * bytes : bytes))
                restore_end(node, group);
}

uint64_t restoring_wake_us(const struct node_group *group)
{
        bool due = council_restoring(group->council) || council_sweeping(group->council);
        return due ? group->restore_next_us : UINT64_MAX;
}
