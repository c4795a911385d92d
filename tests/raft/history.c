/* Event by event: the next thing that is due is a message, a sync, a wake, a restart, a client's
 * turn or a fault; its node's effects are carried out before the next. */
#include "history.h"

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        NODES = 7,
        LOG_MAX = 6000,
        MESSAGES_MAX = 8192,
        TERMS_MAX = 4000,
        READS_MAX = 4096,
        FAULTS_END_MS = 5000,
        END_MS = 40000,
        ELECTION_MS = 150,
        HEARTBEAT_MS = 40,
        DRIFT_PER_MILLE = 200,
};

struct disk {
        struct buffer file;
        size_t synced;
        uint64_t generation;
        bool replacing; /* `next` is written aside, not renamed yet */
        struct buffer next;
        uint64_t next_generation;
        uint64_t sync_at; /* 0: no sync under way */
        size_t sync_len;
};

struct node {
        struct heap heap;
        struct consensus *consensus;
        struct disk disk;
        bool exists; /* was ever started */
        bool join;
        bool lost;      /* its disk */
        bool forgot;    /* and is not a full member again, up or down */
        bool witness;   /* for ever: a witness's journal holds no state to go on with */
        uint64_t up_at; /* restart then */
        uint64_t paused_until;
        uint64_t clock_offset;
        unsigned clock_per_mille;
        uint64_t wake_ms;
        uint64_t count;
        uint32_t ids[LOG_MAX];
};

struct message {
        uint64_t at;
        uint64_t order;
        unsigned from;
        unsigned to;
        struct bytes data;
};

struct read {
        bool open;
        unsigned node;
        bool lease;
        uint64_t count; /* applied anywhere when it began */
};

struct world {
        struct history_options options;
        struct history_result result;
        struct rng rng;
        uint64_t now;
        struct heap heap;
        struct node nodes[NODES];
        struct message messages[MESSAGES_MAX]; /* a heap by time */
        size_t message_count;
        uint64_t order;
        uint64_t link_last[NODES][NODES];
        bool cut[NODES][NODES];
        uint64_t client_at;
        uint64_t fault_at;
        uint64_t delay_ms;
        uint64_t disk_ms;
        unsigned crash;
        unsigned cuts;
        unsigned loss;
        unsigned repeat;
        unsigned change;
        unsigned lose_disk;
        unsigned pause;
        unsigned voters;
        bool witness;
        bool ordered;
        bool healed;
        uint64_t target;
        uint32_t log[LOG_MAX];
        uint64_t log_count;
        uint8_t leaders[TERMS_MAX];
        uint32_t next_id;
        struct read reads[READS_MAX];
        uint64_t next_read;
};

static void violate(struct world *w, const char *what)
{
        if (w->result.violation == NULL) {
                w->result.violation = what;
                w->result.at_ms = w->now;
        }
}

static bool chance(struct world *w, unsigned per_mille)
{
        return rng_chance(&w->rng, per_mille);
}

static uint64_t below(struct world *w, uint64_t bound)
{
        return rng_below(&w->rng, bound);
}

static uint64_t clock_of(const struct world *w, const struct node *node)
{
        return node->clock_offset + w->now * node->clock_per_mille / 1000;
}

/* When this node's clock shows `clock`. */
static uint64_t real_of(const struct node *node, uint64_t clock)
{
        if (clock <= node->clock_offset)
                return 0;
        if (clock - node->clock_offset > UINT64_MAX / 2000)
                return UINT64_MAX;
        return ((clock - node->clock_offset) * 1000 + node->clock_per_mille - 1) /
               node->clock_per_mille;
}

#define TRACE(w, ...)                                                                              \
        do {                                                                                       \
                if ((w)->options.trace) {                                                          \
                        printf("%6llu ", (unsigned long long)(w)->now);                            \
                        printf(__VA_ARGS__);                                                       \
                        printf("\n");                                                              \
                }                                                                                  \
        } while (0)

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

static void snapshot(struct world *w, struct node *node)
{
        struct buffer state;
        buffer_init(&state, &w->heap);
        buffer_u32(&state, (uint32_t)node->count);
        for (uint64_t i = 0; i < node->count; i++)
                buffer_u32(&state, node->ids[i]);
        enum err err = consensus_snapshot(node->consensus, buffer_view(&state));
        if (err != ERR_NONE && err != ERR_BUSY)
                violate(w, "a snapshot was refused");
        buffer_fini(&state);
}

/* ---- disk and network ---- */

static void disk_write(struct world *w, struct disk *disk, const struct consensus_write *write)
{
        if (write->replace) {
                disk->replacing = true;
                disk->next_generation = write->generation;
                buffer_reset(&disk->next);
                disk->sync_at = 0;
        }
        struct buffer *file = disk->replacing ? &disk->next : &disk->file;
        if (write->generation != (disk->replacing ? disk->next_generation : disk->generation))
                violate(w, "a write to another generation");
        file->len = (size_t)write->offset;
        if (!disk->replacing && disk->synced > file->len)
                disk->synced = file->len; /* zeros that lay behind the last record */
        buffer_bytes(file, write->data);
        if (disk->sync_at == 0) {
                disk->sync_at = w->now + 1 + below(w, w->disk_ms);
                disk->sync_len = file->len;
        }
}

static bool earlier(const struct message *a, const struct message *b)
{
        return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void message_push(struct world *w, struct message message)
{
        size_t at = w->message_count++;
        while (at > 0 && earlier(&message, &w->messages[(at - 1) / 2])) {
                w->messages[at] = w->messages[(at - 1) / 2];
                at = (at - 1) / 2;
        }
        w->messages[at] = message;
}

static struct message message_pop(struct world *w)
{
        struct message first = w->messages[0];
        struct message last = w->messages[--w->message_count];
        size_t at = 0;
        for (;;) {
                size_t child = 2 * at + 1;
                if (child >= w->message_count)
                        break;
                if (child + 1 < w->message_count &&
                    earlier(&w->messages[child + 1], &w->messages[child]))
                        child++;
                if (!earlier(&w->messages[child], &last))
                        break;
                w->messages[at] = w->messages[child];
                at = child;
        }
        w->messages[at] = last;
        return first;
}

static void send_one(struct world *w, unsigned from, unsigned to, struct bytes data)
{
        if (w->message_count == MESSAGES_MAX)
                return;
        struct message m = {.at = w->now + 1 + below(w, w->delay_ms),
                            .order = w->order++,
                            .from = from,
                            .to = to};
        if (w->ordered && m.at < w->link_last[from][to])
                m.at = w->link_last[from][to];
        w->link_last[from][to] = m.at;
        if (heap_copy(&w->heap, data, &m.data))
                message_push(w, m);
}

static void send(struct world *w, unsigned from, const struct consensus_message *message)
{
        unsigned to = message->peer - 1;
        if (to >= NODES || to == from) {
                violate(w, "a message to nobody");
                return;
        }
        if (w->cut[from][to] || chance(w, w->loss))
                return;
        send_one(w, from, to, message->data);
        if (chance(w, w->repeat))
                send_one(w, from, to, message->data);
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

static void pump(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        for (int round = 0; round < 8; round++) {
                struct consensus_output output;
                consensus_take(node->consensus, &output);
                for (size_t i = 0; i < output.write_count; i++)
                        disk_write(w, &node->disk, &output.writes[i]);
                for (size_t i = 0; i < output.message_count; i++)
                        send(w, at, &output.messages[i]);
                if (output.restore)
                        restore(w, node, output.restore_state);
                for (size_t i = 0; i < output.command_count; i++) {
                        struct cursor cursor = cursor_of(output.commands[i].data);
                        apply(w, node, cursor_u32(&cursor));
                }
                for (size_t i = 0; i < output.read_count; i++)
                        check_read(w, at, &output.reads[i]);
                node->wake_ms = output.wake_ms;
                if (output.snapshot_wished)
                        snapshot(w, node);
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
                .seed = rng_next(&w->rng),
                .snapshot_entries = 30,
                .snapshot_bytes = 4096,
                .trailing_entries = 5,
                .chunk_bytes = 100,
                .inflight_bytes = 1000,
                .drift_per_mille = DRIFT_PER_MILLE,
                .bugs = w->options.bugs,
        };
}

static void start(struct world *w, unsigned at)
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
        /* What is opened is synced first; but a torn end is about to be cut. */
        node->disk.synced = (size_t)recovery.valid_bytes;
        TRACE(w, "node %u starts, term %llu, last %llu", at + 1, (unsigned long long)recovery.term,
              (unsigned long long)recovery.last_index);
        pump(w, at);
}

static void disk_swap(struct disk *disk)
{
        struct buffer old = disk->file;
        disk->file = disk->next;
        disk->next = old;
}

static void crash_disk(struct world *w, struct disk *disk)
{
        if (disk->replacing && chance(w, 500)) {
                /* The rename has happened, after the sync of what was there then. */
                disk_swap(disk);
                disk->synced = disk->file.len;
        }
        disk->replacing = false;
        disk->sync_at = 0;
        size_t loose = disk->file.len - disk->synced;
        disk->file.len = disk->synced + (size_t)below(w, loose + 1);
        size_t torn = disk->file.len - disk->synced;
        if (torn > 0 && chance(w, 500)) {
                size_t damaged = 1 + (size_t)below(w, torn < 40 ? torn : 40);
                for (size_t i = 0; i < damaged; i++)
                        disk->file.ptr[disk->file.len - 1 - i] = (uint8_t)rng_next(&w->rng);
        }
}

/* The library wants connections: what was under way on one ends with it. */
static void drop_messages(struct world *w, unsigned at)
{
        struct message kept[64];
        size_t count = 0;
        while (w->message_count > 0) {
                struct message m = message_pop(w);
                if (m.from == at || m.to == at || count == COUNT_OF(kept))
                        heap_free_bytes(&w->heap, m.data);
                else
                        kept[count++] = m;
        }
        for (size_t i = 0; i < count; i++)
                message_push(w, kept[i]);
}

static void crash(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        consensus_free(node->consensus);
        node->consensus = NULL;
        crash_disk(w, &node->disk);
        node->up_at = w->now + 1 + below(w, 400);
        for (size_t i = 0; i < READS_MAX; i++) {
                if (w->reads[i].node == at)
                        w->reads[i].open = false;
        }
        if (w->options.oracle)
                drop_messages(w, at);
        w->result.crashes++;
        TRACE(w, "node %u crashes", at + 1);
}

static void disk_synced(struct world *w, unsigned at)
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
        pump(w, at);
}

static void deliver(struct world *w)
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
                pump(w, m.to);
        }
        heap_free_bytes(&w->heap, m.data);
}

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
                pump(w, i);
        }
}

/* ---- faults ---- */

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
        pump(w, (unsigned)at);
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
        crash(w, at);
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

static void faults(struct world *w)
{
        w->fault_at = w->now + 20;
        unsigned at = (unsigned)below(w, NODES);
        struct node *node = &w->nodes[at];
        if (chance(w, w->crash) && node->consensus != NULL)
                crash(w, at);
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

static void heal(struct world *w)
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
                start(w, at);
                return;
        }
        if (node->disk.sync_at != 0 && w->now >= node->disk.sync_at)
                disk_synced(w, at);
        if (clock_of(w, node) >= node->wake_ms) {
                consensus_tick(node->consensus, clock_of(w, node));
                pump(w, at);
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
                deliver(w);
        else if (who >= 0)
                node_turn(w, (unsigned)who);
        else if (w->client_at == w->now)
                clients(w);
        else
                faults(w);
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
                start(w, i);
        while (w->result.violation == NULL) {
                step(w);
                if (!w->healed && w->now >= FAULTS_END_MS)
                        heal(w);
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
