/* What goes wrong, and members that come and go: only what a group promises to survive. */
#include "history_priv.h"

static int a_leader(struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                struct node *node = &w->nodes[i];
                if (node->consensus != NULL && consensus_status(node->consensus).ready)
                        return (int)i;
        }
        return -1;
}

/* While a disk is lost, a voter less could be one too many: that is for the operator to know. */
static bool anybody_lost(const struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                const struct node *node = &w->nodes[i];
                if (node->lost || node->forgot)
                        return true;
        }
        return false;
}

static void change_members(struct world *w)
{
        int at = a_leader(w);
        if (at < 0 || anybody_lost(w))
                return;
        struct node *leader = &w->nodes[at];
        uint64_t clock = clock_of(w, leader);
        struct consensus_member members[NODES];
        size_t count = consensus_members(leader->consensus, members, NODES);
        uint32_t target = 1 + (uint32_t)below(w, NODES);
        enum err err = ERR_NONE;
        if (chance(w, 200)) {
                err = consensus_transfer(leader->consensus, clock, chance(w, 500) ? 0 : target);
        } else if (chance(w, 450) && count > 2) {
                err = consensus_member_remove(leader->consensus, clock, target);
                TRACE(w, "remove %u: %s", target, err_name(err));
        } else {
                struct consensus_member member = {.node = target,
                                                  .role = chance(w, 300) ? CONSENSUS_LEARNER
                                                                         : CONSENSUS_VOTER,
                                                  .priority = (uint8_t)below(w, 3)};
                if (w->nodes[target - 1].witness)
                        member.role = CONSENSUS_WITNESS;
                err = consensus_member_set(leader->consensus, clock, &member);
                TRACE(w, "member %u role %d: %s", target, (int)member.role, err_name(err));
        }
        w->result.changes += err == ERR_NONE;
        node_pump(w, (unsigned)at);
        struct node *other = &w->nodes[target - 1];
        if (err == ERR_NONE && !other->exists) {
                other->join = true;
                other->exists = true;
                other->up_at = w->now + below(w, 300);
        }
}

/* Only what a group promises to survive: each configuration that anybody goes by keeps a majority
 * that remembers. */
static bool may_lose(struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                struct node *node = &w->nodes[i];
                struct consensus_member members[NODES];
                if (!node->exists)
                        continue;
                if (node->consensus == NULL)
                        return false;
                struct consensus_status status = consensus_status(node->consensus);
                if (status.amnesiac)
                        return false;
                size_t count = consensus_members(node->consensus, members, NODES);
                size_t voting = 0;
                size_t voters = 0;
                for (size_t k = 0; k < count; k++) {
                        voting += members[k].role != CONSENSUS_LEARNER;
                        voters += members[k].role == CONSENSUS_VOTER;
                }
                if (count > 0 && (voting < 3 || voters < 2))
                        return false;
        }
        return true;
}

static void lose_disk(struct world *w)
{
        unsigned at = (unsigned)below(w, NODES);
        struct node *node = &w->nodes[at];
        if (node->consensus == NULL || !may_lose(w))
                return;
        node_crash(w, at);
        node->lost = node->forgot = true;
        w->result.losses++;
        TRACE(w, "node %u loses its disk", at + 1);
        if (chance(w, 500)) {
                node->disk.file.len = 0; /* but it is known that there was something */
                buffer_u32(&node->disk.file, 0);
                node->disk.synced = 4;
        } else if (node->disk.file.len > 0) {
                node->disk.file.ptr[below(w, node->disk.file.len)] ^= 0x40;
                node->disk.synced = node->disk.file.len;
        }
}

void faults_step(struct world *w)
{
        w->fault_at = w->now + 20;
        unsigned at = (unsigned)below(w, NODES);
        struct node *node = &w->nodes[at];
        if (chance(w, w->crash) && node->consensus != NULL)
                node_crash(w, at);
        /* A link that breaks and stands again at once. */
        if (!w->options.whole && !w->options.oracle && chance(w, w->crash))
                node_links_break(w, at);
        for (unsigned i = 0; i < NODES && w->options.early; i++)
                node_links_mend(w, i);
        if (chance(w, w->pause) && node->consensus != NULL)
                node->paused_until = w->now + below(w, 600);
        if (chance(w, w->cuts)) {
                for (unsigned i = 0; i < NODES; i++) {
                        for (unsigned j = 0; j < NODES; j++)
                                w->cut[i][j] = chance(w, 300);
                }
        }
        if (chance(w, w->change))
                change_members(w);
        if (chance(w, w->lose_disk))
                lose_disk(w);
}

void faults_heal(struct world *w)
{
        w->healed = true;
        memset(w->cut, 0, sizeof w->cut);
        w->delay_ms = 5;
        w->disk_ms = 3;
        w->loss = w->repeat = 0;
        w->target = w->log_count + 20;
        for (unsigned i = 0; i < NODES; i++)
                w->nodes[i].paused_until = 0;
        TRACE(w, "faults end");
}
