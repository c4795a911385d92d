/* A node: what its consensus wishes is carried out, what comes out of it is applied to a list of
 * numbers, and checked against all that was applied anywhere. */
#include "history_priv.h"

#include "base/cursor.h"
#include "base/hash.h"

/* ---- the state machine: a list of numbers ---- */

static void apply(struct world *w, struct node *node, uint32_t id)
{
        if (node->count >= LOG_MAX) {
                violate(w, "the history is too long for its checker");
                return;
        }
        uint64_t at = node->count++;
        node->ids[at] = id;
        if (at < w->log_count && w->log[at] != id)
                violate(w, "two nodes applied different commands at one place");
        if (at == w->log_count)
                w->log[w->log_count++] = id;
}

static void restore(struct world *w, struct node *node, struct bytes state)
{
        struct cursor cursor = cursor_of(state);
        uint64_t count = cursor_u32(&cursor);
        if (count < node->count)
                violate(w, "a state older than what was applied");
        node->count = 0;
        for (uint64_t i = 0; i < count && !cursor_failed(&cursor); i++)
                apply(w, node, cursor_u32(&cursor));
        if (cursor_done(&cursor) != ERR_NONE)
                violate(w, "a damaged state");
        w->result.restores++;
}

static void state_encode(const struct node *node, uint64_t count, struct buffer *out)
{
        buffer_u32(out, (uint32_t)count);
        for (uint64_t i = 0; i < count; i++)
                buffer_u32(out, node->ids[i]);
}

/* All at once, as the library wants it. */
static void snapshot(struct world *w, struct node *node)
{
        struct buffer state;
        buffer_init(&state, &w->heap);
        state_encode(node, node->count, &state);
        enum err err = consensus_snapshot(node->consensus, buffer_view(&state));
        if (err != ERR_NONE && err != ERR_BUSY)
                violate(w, "a snapshot was refused");
        buffer_fini(&state);
}

/* In steps: what was applied meanwhile is not in it. */
static void snapshot_give(struct world *w, struct node *node)
{
        struct buffer state;
        buffer_init(&state, &node->heap);
        state_encode(node, node->mark_count, &state);
        enum err err = consensus_snapshot_give(node->consensus, &state);
        if (err != ERR_NONE && err != ERR_NOT_FOUND)
                violate(w, "a snapshot was refused");
        buffer_fini(&state);
        node->marked = false;
}

static void snapshot_wished(struct world *w, struct node *node)
{
        if (w->options.oracle || w->options.whole || chance(w, 200)) {
                snapshot(w, node);
                return;
        }
        enum err err = consensus_snapshot_begin(node->consensus);
        if (err != ERR_NONE && err != ERR_BUSY)
                violate(w, "a snapshot could not begin");
        node->marked = err == ERR_NONE;
        node->mark_count = node->count;
}

/* ---- a node ---- */

static void check_leader(struct world *w, unsigned at)
{
        struct consensus_status status = consensus_status(w->nodes[at].consensus);
        if (status.role != CONSENSUS_LEADER || status.term >= TERMS_MAX)
                return;
        if (w->leaders[status.term] != 0 && w->leaders[status.term] != at + 1)
                violate(w, "two leaders in one term");
        if (w->leaders[status.term] == 0) {
                w->result.elections++;
                TRACE(w, "node %u leads term %llu", at + 1, (unsigned long long)status.term);
        }
        w->leaders[status.term] = (uint8_t)(at + 1);
}

static void check_read(struct world *w, unsigned at, const struct consensus_ready *ready)
{
        struct read *read = &w->reads[ready->id % READS_MAX];
        if (!read->open || read->node != at) {
                violate(w, "an answer to a read that nobody asked");
                return;
        }
        read->open = false;
        if (ready->err != ERR_NONE)
                return;
        w->result.reads++;
        w->result.leases += read->lease;
        if (w->nodes[at].count < read->count)
                TRACE(w, "node %u: %s read at %llu, want %llu", at + 1,
                      read->lease ? "lease" : "index", (unsigned long long)w->nodes[at].count,
                      (unsigned long long)read->count);
        if (w->nodes[at].count < read->count)
                violate(w, "a read does not see what was applied before it began");
}

/* A state that waits is taken over at some later pump; until then nothing behind it comes out. */
static void restore_begin(struct world *w, struct node *node, const struct consensus_output *output)
{
        if (output->restore && !output->restore_waits) {
                restore(w, node, output->restore_state);
                return;
        }
        if (output->restore) {
                node->restoring = true;
                node->restore_state = output->restore_state;
        }
        if (node->restoring && output->command_count > 0)
                violate(w, "a command before the state that it follows was taken over");
        for (size_t i = 0; i < output->read_count; i++)
                if (node->restoring && output->reads[i].err == ERR_NONE)
                        violate(w, "a read before a state was taken over");
}

static void restore_end(struct world *w, struct node *node)
{
        restore(w, node, node->restore_state);
        consensus_restored(node->consensus);
        node->restoring = false;
}

void node_pump(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        for (int round = 0; round < 8; round++) {
                struct consensus_output output;
                consensus_take(node->consensus, &output);
                for (size_t i = 0; i < output.write_count; i++)
                        disk_write(w, &node->disk, &output.writes[i]);
                for (size_t i = 0; i < output.message_count; i++)
                        net_send(w, at, &output.messages[i]);
                restore_begin(w, node, &output);
                for (size_t i = 0; i < output.command_count; i++) {
                        struct cursor cursor = cursor_of(output.commands[i].data);
                        apply(w, node, cursor_u32(&cursor));
                }
                for (size_t i = 0; i < output.read_count; i++)
                        check_read(w, at, &output.reads[i]);
                node->wake_ms = output.wake_ms;
                if (node->marked && chance(w, 300))
                        snapshot_give(w, node);
                if (node->restoring && chance(w, 300))
                        restore_end(w, node);
                if (output.snapshot_wished && !node->marked)
                        snapshot_wished(w, node);
                else if (output.write_count + output.message_count + output.command_count == 0)
                        break;
        }
        if (consensus_status(node->consensus).failed)
                violate(w, "a node failed");
        if (!node->lost && !consensus_status(node->consensus).amnesiac)
                node->forgot = false;
        check_leader(w, at);
        w->result.hash = hash_fnv_u64(w->result.hash, w->now * NODES + at + node->count * 977);
}

static void config_of(struct world *w, unsigned at, struct consensus_config *config,
                      struct consensus_member members[NODES], uint32_t voters[NODES])
{
        for (unsigned i = 0; i < w->voters; i++) {
                voters[i] = i + 1;
                members[i] = (struct consensus_member){.node = i + 1,
                                                       .role = w->witness && i + 1 == w->voters
                                                                       ? CONSENSUS_WITNESS
                                                                       : CONSENSUS_VOTER};
        }
        *config = (struct consensus_config){
                .engine = w->options.engine,
                .cluster = 77,
                .group = 1,
                .self = at + 1,
                .voters = voters,
                .members = w->options.oracle ? NULL : members,
                .voter_count = w->nodes[at].join ? 0 : w->voters,
                .join = w->nodes[at].join,
                .election_timeout_ms = ELECTION_MS,
                .heartbeat_ms = HEARTBEAT_MS,
                .pre_vote = true,
                .early_votes = w->options.early,
                .seed = rng_next(&w->rng),
                .snapshot_entries = 30,
                .snapshot_bytes = 4096,
                .trailing_entries = 5,
                .chunk_bytes = 100,
                .piece_bytes = w->piece_bytes,
                .restore_waits = !w->options.oracle && !w->options.whole,
                .inflight_bytes = 1000,
                .drift_per_mille = DRIFT_PER_MILLE,
                .bugs = w->options.bugs,
        };
}

void node_start(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        struct consensus_config config;
        struct consensus_member members[NODES];
        uint32_t voters[NODES];
        struct consensus_recovery recovery;
        config_of(w, at, &config, members, voters);
        node->exists = true;
        node->up_at = 0;
        node->paused_until = 0;
        node->count = 0;
        node->broken = 0;
        node->marked = false;
        node->restoring = false;
        node->disk.generation = 0;
        for (int again = 0; again < 2; again++) {
                if (consensus_new(&node->heap, &config, &node->consensus) != ERR_NONE) {
                        violate(w, "no core");
                        return;
                }
                enum err err = consensus_start(node->consensus, clock_of(w, node),
                                               buffer_view(&node->disk.file), node->disk.synced,
                                               &recovery);
                if (err == ERR_NONE) {
                        /* Damaged until the new journal is in its place. */
                        node->lost = node->lost && again > 0;
                        break;
                }
                if (err != ERR_CORRUPT || !node->lost || again > 0) {
                        violate(w, "the journal was not accepted");
                        return;
                }
                consensus_free(node->consensus);
                config.amnesiac = true;
        }
        /* What is opened is synced first; but a torn end is about to be cut. What is damaged stays,
         * until a whole new journal is in its place. */
        if (!config.amnesiac)
                node->disk.synced = (size_t)recovery.valid_bytes;
        TRACE(w, "node %u starts, term %llu, last %llu", at + 1, (unsigned long long)recovery.term,
              (unsigned long long)recovery.last_index);
        node_pump(w, at);
}

void node_links_break(struct world *w, unsigned at)
{
        for (unsigned i = 0; i < NODES && !w->options.whole; i++) {
                struct node *node = &w->nodes[i];
                if (i == at || node->consensus == NULL || !chance(w, 700))
                        continue;
                consensus_peer_gone(node->consensus, clock_of(w, node), at + 1);
                node_pump(w, i);
                node->broken |= 1u << at;
        }
}

void node_links_mend(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        for (unsigned i = 0; i < NODES && node->consensus != NULL; i++) {
                if ((node->broken >> i & 1) == 0 || w->nodes[i].consensus == NULL ||
                    !chance(w, 500))
                        continue;
                node->broken &= ~(1u << i);
                consensus_peer_back(node->consensus, clock_of(w, node), i + 1);
                node_pump(w, at);
        }
}

void node_crash(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        consensus_free(node->consensus);
        node->consensus = NULL;
        disk_crash(w, &node->disk);
        node->up_at = w->now + 1 + below(w, 400);
        for (size_t i = 0; i < READS_MAX; i++) {
                if (w->reads[i].node == at)
                        w->reads[i].open = false;
        }
        if (w->options.oracle)
                messages_drop(w, at);
        w->result.crashes++;
        TRACE(w, "node %u crashes", at + 1);
        node_links_break(w, at);
}

void node_synced(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        struct disk *disk = &node->disk;
        disk->sync_at = 0;
        if (disk->replacing) {
                disk_swap(disk);
                disk->replacing = false;
                disk->generation = disk->next_generation;
        }
        disk->synced = disk->sync_len;
        if (disk->file.len > disk->synced) {
                disk->sync_at = w->now + 1 + below(w, w->disk_ms);
                disk->sync_len = disk->file.len;
        }
        consensus_synced(node->consensus, clock_of(w, node), disk->generation, disk->synced);
        node_pump(w, at);
}

void node_aside_synced(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        struct disk *disk = &node->disk;
        disk->aside_at = 0;
        consensus_synced(node->consensus, clock_of(w, node), disk->aside_generation,
                         disk->aside.len);
        node_pump(w, at);
}

void node_deliver(struct world *w)
{
        struct message m = message_pop(w);
        struct node *node = &w->nodes[m.to];
        if (node->paused_until > w->now && w->message_count < MESSAGES_MAX) {
                m.at = node->paused_until;
                message_push(w, m);
                return;
        }
        if (node->consensus != NULL && !w->cut[m.from][m.to]) {
                enum err err =
                        consensus_receive(node->consensus, clock_of(w, node), m.from + 1, m.data);
                if (err != ERR_NONE) {
                        TRACE(w, "node %u from %u: %s, type %u", m.to + 1, m.from + 1,
                              err_name(err), m.data.ptr[1]);
                        /* The library's door refuses what a leader of an old term got wrong. */
                        if (!w->options.oracle)
                                violate(w, "a good message was refused");
                }
                node_pump(w, m.to);
        }
        heap_free_bytes(&w->heap, m.data);
}
