/* restore.c - a backup as the journals that a node begins with. */
#include "council/backup.h"
#include "node/node_priv.h"

/* A group of which nothing was backed up begins empty, and as far ahead as the others. */
static enum err group_seed(struct node *node, enum world_group group,
                           const struct backup_group *found, const struct consensus_config *config,
                           struct buffer *out)
{
        struct council *council = node->groups[group].council;
        struct buffer state;
        buffer_init(&state, node->heap);
        enum err err = found == NULL ? ERR_NONE : council_restore(council, found->state);
        if (found == NULL)
                council_snapshot(council, &state);
        else
                buffer_bytes(&state, found->state);
        uint64_t index = BACKUP_JUMP + (found == NULL ? 0 : found->index);
        err = err == ERR_NONE ? state.err : err;
        if (err == ERR_NONE)
                err = consensus_seed(node->heap, config, index, buffer_view(&state), out);
        buffer_fini(&state);
        return err;
}

enum err node_restore(struct node *node, enum world_group group, const struct backup *backup,
                      struct buffer *out)
{
        struct consensus_member members[CONSENSUS_VOTERS_MAX];
        struct consensus_config config = {.members = members};
        struct bytes region = bytes_of(NULL, 0);
        if (group == WORLD_GROUP_REGION)
                region = bytes_of_str(node->region->name);
        const struct backup_group *found = backup_find(backup, region);
        if (node->started || backup->life == 0 || backup->life != node->config.life)
                return ERR_INVALID;
        if (!bytes_equal(backup->cluster, bytes_of_str(node->topology->cluster)))
                return ERR_REFUSED;
        config.voter_count = members_first(node, group, members);
        for (size_t i = 0; i < config.voter_count; i++)
                if (members[i].node == node->config.self && members[i].role == CONSENSUS_WITNESS)
                        return ERR_NONE; /* keeps no state: its peers give it what it needs */
        group_config(node, group, node->seed, &config);
        return group_seed(node, group, found, &config, out);
}
