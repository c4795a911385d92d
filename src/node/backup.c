/* A backup of what this node's groups hold, made in steps, so that the node never stops for it:
 *
 *   CAPTURE, a group after the other: the council's bytes of one moment, while it goes on
 *   JOIN: the parts are put together as one file (council/backup.h) --> WHOLE: it is asked for
 *
 * A group of which a snapshot is being made waits for its turn. A state that came meanwhile ends a
 * capture; it begins anew. A group that has failed is left out. */
#include "council/backup.h"
#include "base/check.h"
#include "base/hash.h"
#include "node/node_priv.h"

#define STEP_BYTES    ((size_t)128 * 1024)
#define JOIN_BYTES    ((size_t)1024 * 1024) /* to copy is faster than to put together */
#define STEP_APART_US 1000

enum err node_backup_begin(struct node *node)
{
        struct node_backup *backup = &node->backup;
        if (backup->stage != BACKUP_NONE)
                return ERR_BUSY;
        *backup = (struct node_backup){.stage = BACKUP_CAPTURE, .next_us = node->now_us};
        buffer_init(&backup->out, node->heap);
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                buffer_init(&backup->states[i], node->heap);
        return ERR_NONE;
}

static void backup_end(struct node_backup *backup, enum err err)
{
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                buffer_fini(&backup->states[i]);
        backup->err = err;
        backup->stage = BACKUP_WHOLE;
}

static void joined(struct node_backup *backup, size_t before)
{
        if (backup->out.err == ERR_NONE)
                backup->sum = hash_crc32c(
                        backup->sum, bytes_of(backup->out.ptr + before, backup->out.len - before));
}

static void join_begin(struct node *node)
{
        struct node_backup *backup = &node->backup;
        struct backup head = {.cluster = bytes_of_str(node->topology->cluster),
                              .wall_us = node->wall_us};
        for (int i = 0; i < WORLD_GROUP_COUNT; i++)
                head.count += backup->has[i];
        backup_head_encode(&head, &backup->out);
        joined(backup, 0);
        backup->group = 0;
        backup->stage = BACKUP_JOIN;
}

static void capture_step(struct node *node, size_t bytes)
{
        struct node_backup *backup = &node->backup;
        if (backup->group == WORLD_GROUP_COUNT) {
                join_begin(node);
                return;
        }
        struct node_group *group = &node->groups[backup->group];
        if (group->failed) {
                if (group->backs_up)
                        council_capture_drop(group->council);
                group->backs_up = false;
                backup->group++;
                return;
        }
        if (!group->backs_up && council_capturing(group->council))
                return;
        if (!group->backs_up)
                council_capture_begin(group->council);
        group->backs_up = true;
        if (!council_capture_step(group->council, bytes))
                return;
        group->backs_up = false;
        enum err err = council_capture_end(group->council, &backup->states[backup->group],
                                           &backup->index[backup->group]);
        backup->has[backup->group++] = err == ERR_NONE;
        if (err != ERR_NONE)
                backup_end(backup, err);
}

static void join_step(struct node *node)
{
        struct node_backup *backup = &node->backup;
        struct buffer *out = &backup->out;
        size_t before = out->len;
        if (backup->group == WORLD_GROUP_COUNT) {
                buffer_u32(out, backup->sum);
                backup_end(backup, out->err);
                return;
        }
        struct buffer *state = &backup->states[backup->group];
        bool region = backup->group == WORLD_GROUP_REGION;
        if (backup->has[backup->group] && backup->done == 0)
                backup_group_encode(
                        &(struct backup_group){
                                .region = bytes_of_str(region ? node->region->name : ""),
                                .index = backup->index[backup->group],
                                .state = buffer_view(state)},
                        out);
        size_t len = state->len - backup->done;
        len = len > JOIN_BYTES ? JOIN_BYTES : len;
        if (len > 0)
                buffer_bytes(out, bytes_of(state->ptr + backup->done, len));
        joined(backup, before);
        backup->done += len;
        if (out->err != ERR_NONE) {
                backup_end(backup, out->err);
        } else if (backup->done == state->len) {
                buffer_fini(state);
                buffer_init(state, node->heap);
                backup->group++;
                backup->done = 0;
        }
}

void backup_tick(struct node *node)
{
        struct node_backup *backup = &node->backup;
        size_t bytes = node->config.snapshot_step_bytes;
        if (backup_wake_us(node) > node->now_us)
                return;
        backup->next_us = node->now_us + STEP_APART_US;
        if (backup->stage == BACKUP_CAPTURE)
                capture_step(node, bytes == 0 ? STEP_BYTES : bytes);
        else
                join_step(node);
}

uint64_t backup_wake_us(const struct node *node)
{
        const struct node_backup *backup = &node->backup;
        bool due = backup->stage == BACKUP_CAPTURE || backup->stage == BACKUP_JOIN;
        return due ? backup->next_us : UINT64_MAX;
}

bool node_backup_take(struct node *node, enum err *ret_err, struct buffer *ret)
{
        struct node_backup *backup = &node->backup;
        if (backup->stage != BACKUP_WHOLE)
                return false;
        *ret_err = backup->err;
        *ret = backup->out;
        *backup = (struct node_backup){0};
        return true;
}

void backup_fini(struct node *node)
{
        struct node_backup *backup = &node->backup;
        if (backup->stage == BACKUP_NONE)
                return;
        backup_end(backup, ERR_NONE);
        buffer_fini(&backup->out);
        *backup = (struct node_backup){0};
}
