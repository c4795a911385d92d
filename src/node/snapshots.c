/* A group's state in steps, so that the node never stops for it:
 *
 *   the log is long --> a capture of the council --> step ... step --> whole --> the consensus
 *
 * which writes it beside the journal, piece by piece, and lets it take the journal's place. What
 * the group decides meanwhile is in the log behind it. A state that a leader sends ends a capture.
 * A core that cannot (the library's) is given all at once. */
#include "node/node_priv.h"

#define STEP_BYTES    ((size_t)128 * 1024)
#define STEP_APART_US 1000

static void given(struct node *node, struct node_group *group, enum err err)
{
        if (err == ERR_NONE)
                node->counters.snapshots++;
        else if (err != ERR_BUSY && err != ERR_NOT_FOUND && err != ERR_NOMEM)
                group_fail(node, group, err_text(err));
}

static void snapshot_at_once(struct node *node, struct node_group *group)
{
        buffer_reset(&node->scratch);
        council_snapshot(group->council, &node->scratch);
        if (node->scratch.err == ERR_NONE)
                given(node, group,
                      consensus_snapshot(group->consensus, buffer_view(&node->scratch)));
}

static void snapshot_whole(struct node *node, struct node_group *group)
{
        struct buffer state;
        uint64_t index;
        enum err err = council_capture_end(group->council, &state, &index);
        if (err != ERR_NONE) {
                consensus_snapshot_drop(group->consensus);
                return;
        }
        given(node, group, consensus_snapshot_give(group->consensus, &state));
        buffer_fini(&state);
}

static void step(struct node *node, struct node_group *group)
{
        size_t bytes = node->config.snapshot_step_bytes;
        group->capture_next_us = node->now_us + STEP_APART_US;
        if (council_capture_step(group->council, bytes == 0 ? STEP_BYTES : bytes))
                snapshot_whole(node, group);
}

bool snapshot_begin(struct node *node, struct node_group *group)
{
        if (council_capturing(group->council))
                return false;
        enum err err = consensus_snapshot_begin(group->consensus);
        if (err == ERR_UNSUPPORTED)
                snapshot_at_once(node, group);
        if (err != ERR_NONE)
                return err == ERR_UNSUPPORTED;
        council_capture_begin(group->council);
        step(node, group);
        return true;
}

void snapshot_tick(struct node *node, struct node_group *group)
{
        if (group->failed || node->now_us < snapshot_wake_us(group))
                return;
        step(node, group);
}

uint64_t snapshot_wake_us(const struct node_group *group)
{
        bool due = council_capturing(group->council) && !group->backs_up;
        return due ? group->capture_next_us : UINT64_MAX;
}
