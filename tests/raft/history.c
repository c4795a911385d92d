/* Event by event: the next thing that is due is a message, a sync, a wake, a restart, a client's
 * turn or a fault; its node's effects are carried out before the next. */
#include "history_priv.h"

#include "base/hash.h"

/* ---- clients ---- */

static void submit(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        unsigned batch = 1 + (unsigned)below(w, 3);
        for (unsigned n = 0; n < batch && w->log_count + 500 < LOG_MAX; n++) {
                uint8_t data[12] = {0};
                uint32_t id = ++w->next_id;
                for (int b = 0; b < 4; b++)
                        data[b] = (uint8_t)(id >> 8 * b);
                (void)!consensus_submit(node->consensus, clock_of(w, node),
                                        bytes_of(data, sizeof data));
        }
}

static void ask_read(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        struct read *read = &w->reads[w->next_read % READS_MAX];
        bool lease = chance(w, 500);
        if (read->open)
                return;
        if (consensus_read(node->consensus, clock_of(w, node), w->next_read, lease) != ERR_NONE)
                return;
        *read = (struct read){.open = true, .node = at, .lease = lease, .count = w->log_count};
        w->next_read++;
}

static void clients(struct world *w)
{
        w->client_at = w->now + 3 + below(w, 8);
        for (unsigned i = 0; i < NODES; i++) {
                struct node *node = &w->nodes[i];
                if (node->consensus == NULL || node->paused_until > w->now ||
                    consensus_status(node->consensus).role != CONSENSUS_LEADER)
                        continue;
                if (!w->healed || w->log_count < w->target)
                        submit(w, i);
                if (!w->options.oracle && chance(w, 400))
                        ask_read(w, i);
                node_pump(w, i);
        }
}

/* ---- the end ---- */

static const struct node *newest(const struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                const struct node *node = &w->nodes[i];
                if (node->consensus != NULL && consensus_status(node->consensus).ready)
                        return node;
        }
        return NULL;
}

static bool settled(const struct world *w, const struct consensus_member *member)
{
        const struct node *node = &w->nodes[member->node - 1];
        if (node->consensus == NULL)
                return false;
        struct consensus_status status = consensus_status(node->consensus);
        if (status.amnesiac)
                return false;
        bool stateless = member->role == CONSENSUS_WITNESS || member->wanted == CONSENSUS_WITNESS;
        return (stateless || node->count == w->log_count) && member->wanted == 0;
}

static bool agreed(const struct world *w)
{
        struct consensus_member members[NODES];
        const struct node *leader = newest(w);
        if (leader == NULL || w->log_count < w->target || leader->count != w->log_count)
                return false;
        if (w->options.oracle) {
                for (unsigned i = 0; i < w->voters; i++) {
                        if (w->nodes[i].consensus == NULL || w->nodes[i].count != w->log_count)
                                return false;
                }
                return true;
        }
        size_t count = consensus_members(leader->consensus, members, NODES);
        for (size_t i = 0; i < count; i++) {
                if (!settled(w, &members[i]))
                        return false;
        }
        return true;
}

static void dump(const struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                struct consensus_member members[NODES];
                const struct node *node = &w->nodes[i];
                if (node->consensus == NULL || !w->options.trace)
                        continue;
                struct consensus_status s = consensus_status(node->consensus);
                TRACE(w,
                      "node %u %s%s%s term %llu leader %u last %llu stored %llu commit %llu "
                      "applied "
                      "%llu (of %llu: %llu) members at %llu, behind %u, snapshot %llu",
                      i + 1, consensus_role_name(s.role), s.ready ? " ready" : "",
                      s.amnesiac ? " AMNESIAC" : "", (unsigned long long)s.term, s.leader,
                      (unsigned long long)s.last_index, (unsigned long long)s.stored_index,
                      (unsigned long long)s.commit_index, (unsigned long long)s.applied_index,
                      (unsigned long long)w->log_count, (unsigned long long)node->count,
                      (unsigned long long)s.members_index, s.followers_behind,
                      (unsigned long long)s.snapshot_index);
                size_t count = consensus_members(node->consensus, members, NODES);
                for (size_t k = 0; k < count; k++)
                        printf("       member %u role %d wanted %d\n", members[k].node,
                               (int)members[k].role, (int)members[k].wanted);
        }
}

static uint64_t node_due(const struct world *w, const struct node *node)
{
        uint64_t due = UINT64_MAX;
        if (node->consensus == NULL)
                return node->exists ? node->up_at : UINT64_MAX;
        if (node->disk.sync_at != 0)
                due = node->disk.sync_at;
        if (node->disk.aside_at != 0 && node->disk.aside_at < due)
                due = node->disk.aside_at;
        uint64_t wake = real_of(node, node->wake_ms);
        if (wake < due)
                due = wake;
        if (due < node->paused_until)
                due = node->paused_until;
        return due < w->now ? w->now : due;
}

static void node_turn(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        if (node->consensus == NULL) {
                node_start(w, at);
                return;
        }
        if (node->disk.sync_at != 0 && w->now >= node->disk.sync_at)
                node_synced(w, at);
        if (node->disk.aside_at != 0 && w->now >= node->disk.aside_at)
                node_aside_synced(w, at);
        if (clock_of(w, node) >= node->wake_ms) {
                consensus_tick(node->consensus, clock_of(w, node));
                node_pump(w, at);
        }
}

static void step(struct world *w)
{
        uint64_t next = w->client_at;
        int who = -1;
        if (!w->healed && w->fault_at < next)
                next = w->fault_at;
        for (unsigned i = 0; i < NODES; i++) {
                uint64_t due = node_due(w, &w->nodes[i]);
                if (due < next) {
                        next = due;
                        who = (int)i;
                }
        }
        bool message = w->message_count > 0 && w->messages[0].at <= next;
        w->now = message ? w->messages[0].at : next;
        w->result.events++;
        if (message)
                node_deliver(w);
        else if (who >= 0)
                node_turn(w, (unsigned)who);
        else if (w->client_at == w->now)
                clients(w);
        else
                faults_step(w);
}

static void world_open(struct world *w, const struct history_options *options)
{
        memset(w, 0, sizeof *w);
        w->options = *options;
        heap_init(&w->heap, 0);
        rng_init(&w->rng, options->seed, 0);
        w->delay_ms = chance(w, 500) ? 4 : 1 + below(w, 120);
        w->disk_ms = chance(w, 500) ? 2 : 1 + below(w, 80);
        w->crash = chance(w, 800) ? (unsigned)below(w, 120) : 0;
        w->cuts = chance(w, 600) ? (unsigned)below(w, 60) : 0;
        w->pause = chance(w, 400) ? (unsigned)below(w, 60) : 0;
        w->voters = 1 + (unsigned)below(w, 5);
        if (chance(w, 400))
                w->voters = 3;
        if (!options->oracle) {
                w->loss = chance(w, 500) ? (unsigned)below(w, 200) : 0;
                w->repeat = chance(w, 500) ? (unsigned)below(w, 200) : 0;
                w->change = chance(w, 500) ? (unsigned)below(w, 200) : 0;
                w->lose_disk = chance(w, 400) ? (unsigned)below(w, 60) : 0;
                w->witness = w->voters >= 3 && chance(w, 200);
        }
        w->nodes[NODES - 1].witness = true;
        w->piece_bytes = 20 + (size_t)(options->seed % 401);
        w->ordered = options->oracle || chance(w, 300);
        if (options->harsh) {
                w->delay_ms = 1 + below(w, chance(w, 300) ? 250 : 30);
                w->disk_ms = chance(w, 300) ? 4 : 20 + below(w, 80);
                w->crash = 150;
                w->cuts = 15;
        }
        for (unsigned i = 0; i < NODES; i++) {
                struct node *node = &w->nodes[i];
                heap_init(&node->heap, 0);
                buffer_init(&node->disk.file, &w->heap);
                buffer_init(&node->disk.next, &w->heap);
                buffer_init(&node->disk.aside, &w->heap);
                node->clock_offset = below(w, 100000);
                node->clock_per_mille = 900 + (unsigned)below(w, 200);
        }
}

static void world_close(struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                consensus_free(w->nodes[i].consensus);
                if (w->nodes[i].heap.used_bytes != 0)
                        violate(w, "memory is lost");
                buffer_fini(&w->nodes[i].disk.file);
                buffer_fini(&w->nodes[i].disk.next);
                buffer_fini(&w->nodes[i].disk.aside);
        }
        for (size_t i = 0; i < w->message_count; i++)
                heap_free_bytes(&w->heap, w->messages[i].data);
}

void history_run(const struct history_options *options, struct history_result *ret)
{
        static struct world world;
        struct world *w = &world;
        world_open(w, options);
        if (w->witness)
                w->nodes[w->voters - 1].witness = true;
        for (unsigned i = 0; i < w->voters; i++)
                node_start(w, i);
        while (w->result.violation == NULL) {
                step(w);
                if (!w->healed && w->now >= FAULTS_END_MS)
                        faults_heal(w);
                if (w->healed && agreed(w))
                        break;
                if (w->now > END_MS)
                        violate(w, "no agreement long after the faults ended");
        }
        dump(w);
        w->result.commands = w->log_count;
        w->result.hash = hash_fnv_u64(w->result.hash, w->log_count);
        world_close(w);
        *ret = w->result;
}
