/* Backups while all goes on: in one run of four each node makes one after the other. Each is a
 * whole file, and what it holds of a group is what every replica had at that entry. */
#include "council/backup.h"

#include "council/council.h"

#include "sim/sim_priv.h"

static bool backups(const struct sim *sim)
{
        return sim->options.seed % 4 == 3;
}

static void group_check(struct sim *sim, struct host *host, const struct backup_group *group)
{
        struct council_config config = {.seed = 1};
        struct council *council = NULL;
        unsigned at = check_group_index(host, group->region.len == 0 ? WORLD_GROUP_GLOBAL
                                                                     : WORLD_GROUP_REGION);
        if (council_new(&sim->heap, &config, &council) != ERR_NONE)
                return;
        if (council_restore(council, group->state) != ERR_NONE ||
            council_applied_index(council) != group->index)
                sim_violation(sim, "backup: a group's state of node %u cannot be restored",
                              host->id);
        else if (group->index < INDEX_MAX)
                check_digest(sim, host, at, group->index, council_digest(council));
        council_free(council);
}

static void backup_check(struct sim *sim, struct host *host, struct bytes data)
{
        struct backup backup;
        if (backup_decode(data, &backup) != ERR_NONE) {
                sim_violation(sim, "backup: node %u gave a damaged one", host->id);
                return;
        }
        for (size_t i = 0; i < backup.count; i++)
                group_check(sim, host, &backup.groups[i]);
        sim_cover(sim, COVER_BACKUP);
}

void backup_probe(struct sim *sim, struct host *host)
{
        struct buffer data;
        enum err err;
        if (!backups(sim) || host->node == NULL)
                return;
        if (node_backup_take(host->node, &err, &data)) {
                if (err == ERR_NONE)
                        backup_check(sim, host, buffer_view(&data));
                buffer_fini(&data);
        }
        (void)!node_backup_begin(host->node); /* one may be under way */
}
