/* Three nodes' consensus in simulated time: delays, resets, partitions, slow disks, crashes with
 * torn journals, snapshots, clocks at different rates. One seed is one history.
 *
 * Checked: every node applies the same commands in the same order, whatever happens in
 * between; no term has two leaders; what was acknowledged stays; after the faults end, all
 * make progress and agree. Then the same with planted bugs, each of which must be found. A
 * seed may be given as an argument. */
#include "raft/consensus.h"

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/rng.h"
#include "raft/library.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
        NODES = 3,
        LOG_MAX = 20000,
        MESSAGES_MAX = 4096,
        TERMS_MAX = 20000,
        FAULTS_END_MS = 6000,
        END_MS = 30000,
        ELECTION_MS = 150,
        HEARTBEAT_MS = 40,
};

static const struct consensus_engine *engine;

struct disk {
        struct buffer file;
        size_t synced;
        uint64_t generation;
        bool replacing; /* `next` is written aside, not renamed yet */
        struct buffer next;
        uint64_t next_generation;
        uint64_t sync_at; /* 0: no sync under way */
        size_t sync_len;
        struct buffer aside; /* a new journal, in pieces: a crash loses it */
        uint64_t aside_generation;
        uint64_t aside_at; /* 0: no sync of it under way */
};

struct node {
        struct heap heap;
        struct consensus *consensus;
        struct disk disk;
        uint64_t up_at; /* restart then; 0: is up */
        uint64_t clock_offset;
        unsigned clock_per_mille;
        uint64_t wake_ms;
        /* The state machine: how many commands, and their running hash. */
        uint64_t count;
        uint64_t ids[LOG_MAX];
};

struct message {
        uint64_t at;
        uint64_t order;
        unsigned from;
        unsigned to;
        struct bytes data;
};

struct world {
        struct rng rng;
        uint64_t seed;
        uint64_t now;
        struct heap heap;
        struct node nodes[NODES];
        struct message messages[MESSAGES_MAX];
        size_t message_count;
        uint64_t order;
        uint64_t link_last[NODES][NODES];
        bool cut[NODES][NODES];
        struct consensus_bugs bugs;
        /* strengths of the faults of this seed */
        uint64_t delay_ms;
        uint64_t disk_ms;
        unsigned crash_per_mille;
        unsigned cut_per_mille;
        unsigned reset_per_mille;
        bool healed;
        /* what the checker knows */
        uint64_t log[LOG_MAX];
        uint64_t log_count;
        unsigned leaders[TERMS_MAX];
        uint64_t next_id;
        uint64_t restores;
        uint64_t crashes;
        const char *violation;
};

static uint64_t clock_of(const struct world *w, const struct node *node)
{
        return node->clock_offset + w->now * node->clock_per_mille / 1000;
}

static void violate(struct world *w, const char *what)
{
        if (w->violation == NULL)
                w->violation = what;
}

static void apply(struct world *w, struct node *node, uint64_t id)
{
        if (node->count >= LOG_MAX)
                return;
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
        uint64_t count = cursor_u64(&cursor);
        if (count < node->count)
                violate(w, "a state older than what was applied");
        node->count = 0;
        for (uint64_t i = 0; i < count; i++)
                apply(w, node, cursor_u64(&cursor));
        if (cursor_done(&cursor) != ERR_NONE)
                violate(w, "a damaged state");
        w->restores++;
}

static void snapshot(struct world *w, struct node *node)
{
        struct buffer state;
        buffer_init(&state, &w->heap);
        buffer_u64(&state, node->count);
        for (uint64_t i = 0; i < node->count; i++)
                buffer_u64(&state, node->ids[i]);
        enum err err = consensus_snapshot(node->consensus, buffer_view(&state));
        assert_true(err == ERR_NONE || err == ERR_BUSY);
        buffer_fini(&state);
}

static void disk_write(struct world *w, struct disk *disk, const struct consensus_write *write)
{
        if (write->kind == CONSENSUS_ASIDE) {
                assert_int_equal(write->offset, write->offset == 0 ? 0 : disk->aside.len);
                disk->aside.len = (size_t)write->offset;
                buffer_bytes(&disk->aside, write->data);
                disk->aside_generation = write->generation;
                disk->aside_at = w->now + 1 + rng_below(&w->rng, w->disk_ms);
                return;
        }
        if (write->kind == CONSENSUS_REPLACE || write->kind == CONSENSUS_SWAP) {
                struct buffer next = disk->next;
                bool swap = write->kind == CONSENSUS_SWAP;
                disk->replacing = true;
                disk->next_generation = write->generation;
                disk->next = swap ? disk->aside : next;
                disk->aside = swap ? next : disk->aside;
                assert_true(!swap || (disk->aside_at == 0 && write->offset == disk->next.len));
                disk->sync_at = disk->aside_at = 0;
        }
        struct buffer *file = disk->replacing ? &disk->next : &disk->file;
        assert_int_equal(write->generation,
                         disk->replacing ? disk->next_generation : disk->generation);
        file->len = (size_t)write->offset;
        if (!disk->replacing && disk->synced > file->len)
                disk->synced = file->len; /* zeros that lay behind the last record */
        buffer_bytes(file, write->data);
        if (disk->sync_at == 0) {
                disk->sync_at = w->now + 1 + rng_below(&w->rng, w->disk_ms);
                disk->sync_len = file->len;
        }
}

static void send(struct world *w, unsigned from, const struct consensus_message *message)
{
        unsigned to = message->peer - 1;
        assert_true(to < NODES && to != from);
        if (w->cut[from][to] || w->message_count == MESSAGES_MAX)
                return;
        struct message *m = &w->messages[w->message_count++];
        m->at = w->now + 1 + rng_below(&w->rng, w->delay_ms);
        if (m->at < w->link_last[from][to])
                m->at = w->link_last[from][to];
        w->link_last[from][to] = m->at;
        m->order = w->order++;
        m->from = from;
        m->to = to;
        assert_true(heap_copy(&w->heap, message->data, &m->data));
}

static void check_leader(struct world *w, unsigned at)
{
        struct consensus_status status = consensus_status(w->nodes[at].consensus);
        if (status.role != CONSENSUS_LEADER || status.term >= TERMS_MAX)
                return;
        if (w->leaders[status.term] != 0 && w->leaders[status.term] != at + 1)
                violate(w, "two leaders in one term");
        w->leaders[status.term] = at + 1;
}

/* Carries out what a node wants. */
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
                        apply(w, node, cursor_u64(&cursor));
                }
                node->wake_ms = output.wake_ms;
                if (output.snapshot_wished)
                        snapshot(w, node);
                else if (output.write_count + output.message_count + output.command_count == 0)
                        break;
        }
        if (consensus_status(node->consensus).failed)
                violate(w, "a node failed");
        check_leader(w, at);
}

static void start(struct world *w, unsigned at)
{
        static const uint32_t voters[NODES] = {3, 1, 2};
        struct node *node = &w->nodes[at];
        struct consensus_config config = {
                .engine = engine,
                .cluster = 77,
                .group = 1,
                .self = at + 1,
                .voters = voters,
                .voter_count = NODES,
                .election_timeout_ms = ELECTION_MS,
                .heartbeat_ms = HEARTBEAT_MS,
                .pre_vote = w->seed % 2 == 0,
                .seed = rng_next(&w->rng),
                .snapshot_entries = 40,
                .snapshot_bytes = 4096,
                .trailing_entries = 10,
                .bugs = w->bugs,
        };
        node->up_at = 0;
        node->count = 0;
        struct consensus_recovery recovery;
        assert_int_equal(consensus_new(&node->heap, &config, &node->consensus), ERR_NONE);
        node->disk.generation = 0;
        enum err err = consensus_start(node->consensus, clock_of(w, node),
                                       buffer_view(&node->disk.file), node->disk.synced, &recovery);
        if (err != ERR_NONE) {
                violate(w, "the journal was not accepted");
                return;
        }
        pump(w, at);
}

static void crash_disk(struct world *w, struct disk *disk)
{
        if (disk->replacing && rng_chance(&w->rng, 500)) {
                /* The rename has happened: it happens after the sync of what was there then. */
                struct buffer old = disk->file;
                disk->file = disk->next;
                disk->next = old;
                disk->synced = disk->file.len;
        }
        disk->replacing = false;
        disk->sync_at = disk->aside_at = 0;
        size_t loose = disk->file.len - disk->synced;
        disk->file.len = disk->synced + (size_t)rng_below(&w->rng, loose + 1);
        size_t torn = disk->file.len - disk->synced;
        if (torn > 0 && rng_chance(&w->rng, 500)) {
                size_t damaged = 1 + (size_t)rng_below(&w->rng, torn < 40 ? torn : 40);
                for (size_t i = 0; i < damaged; i++)
                        disk->file.ptr[disk->file.len - 1 - i] = (uint8_t)rng_next(&w->rng);
        }
}

static void drop_messages(struct world *w, unsigned node_a, unsigned node_b)
{
        size_t kept = 0;
        for (size_t i = 0; i < w->message_count; i++) {
                struct message *m = &w->messages[i];
                bool hit = (m->from == node_a && (node_b == NODES || m->to == node_b)) ||
                           (m->to == node_a && (node_b == NODES || m->from == node_b));
                if (hit)
                        heap_free_bytes(&w->heap, m->data);
                else
                        w->messages[kept++] = *m;
        }
        w->message_count = kept;
}

static void crash(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        consensus_free(node->consensus);
        node->consensus = NULL;
        crash_disk(w, &node->disk);
        drop_messages(w, at, NODES);
        node->up_at = w->now + 1 + rng_below(&w->rng, 400);
        w->crashes++;
}

static void disk_synced(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        struct disk *disk = &node->disk;
        disk->sync_at = 0;
        if (disk->replacing) {
                struct buffer old = disk->file;
                disk->file = disk->next;
                disk->next = old;
                disk->replacing = false;
                disk->generation = disk->next_generation;
        }
        disk->synced = disk->sync_len;
        if (disk->file.len > disk->synced) {
                disk->sync_at = w->now + 1 + rng_below(&w->rng, w->disk_ms);
                disk->sync_len = disk->file.len;
        }
        consensus_synced(node->consensus, clock_of(w, node), disk->generation, disk->synced);
        pump(w, at);
}

static void deliver_due(struct world *w)
{
        for (;;) {
                size_t first = w->message_count;
                for (size_t i = 0; i < w->message_count; i++) {
                        struct message *m = &w->messages[i];
                        if (m->at <= w->now &&
                            (first == w->message_count || m->order < w->messages[first].order))
                                first = i;
                }
                if (first == w->message_count)
                        return;
                struct message m = w->messages[first];
                w->messages[first] = w->messages[--w->message_count];
                struct node *node = &w->nodes[m.to];
                if (node->consensus != NULL && !w->cut[m.from][m.to]) {
                        enum err err = consensus_receive(node->consensus, clock_of(w, node),
                                                         m.from + 1, m.data);
                        if (err != ERR_NONE) {
                                print_message("message type %u: %s\n", m.data.ptr[1],
                                              err_name(err));
                                violate(w, "a good message was refused");
                        }
                        pump(w, m.to);
                }
                heap_free_bytes(&w->heap, m.data);
        }
}

static void submit(struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                struct node *node = &w->nodes[i];
                if (node->consensus == NULL || w->log_count + 100 > LOG_MAX)
                        continue;
                unsigned batch = 1 + (unsigned)rng_below(&w->rng, 3);
                for (unsigned n = 0; n < batch; n++) {
                        uint8_t data[16] = {0};
                        uint64_t id = ++w->next_id;
                        for (int b = 0; b < 8; b++)
                                data[b] = (uint8_t)(id >> 8 * b);
                        (void)!consensus_submit(node->consensus, clock_of(w, node),
                                                bytes_of(data, sizeof data));
                }
                pump(w, i);
        }
}

static void faults(struct world *w)
{
        if (rng_chance(&w->rng, w->crash_per_mille)) {
                unsigned at = (unsigned)rng_below(&w->rng, NODES);
                if (w->nodes[at].consensus != NULL)
                        crash(w, at);
        }
        if (rng_chance(&w->rng, w->reset_per_mille)) {
                unsigned at = (unsigned)rng_below(&w->rng, NODES);
                drop_messages(w, at, (at + 1) % NODES);
        }
        if (rng_chance(&w->rng, w->cut_per_mille)) {
                for (unsigned i = 0; i < NODES; i++) {
                        for (unsigned j = 0; j < NODES; j++)
                                w->cut[i][j] = rng_chance(&w->rng, 300);
                }
        }
}

static void heal(struct world *w)
{
        w->healed = true;
        memset(w->cut, 0, sizeof w->cut);
        w->delay_ms = 5;
        w->disk_ms = 3;
}

static bool agreed(const struct world *w, uint64_t target)
{
        for (unsigned i = 0; i < NODES; i++) {
                if (w->nodes[i].consensus == NULL || w->nodes[i].count != w->log_count)
                        return false;
        }
        return w->log_count >= target;
}

static void tick(struct world *w, unsigned at)
{
        struct node *node = &w->nodes[at];
        if (node->consensus == NULL) {
                if (w->now >= node->up_at)
                        start(w, at);
                return;
        }
        if (node->disk.sync_at != 0 && w->now >= node->disk.sync_at)
                disk_synced(w, at);
        if (node->disk.aside_at != 0 && w->now >= node->disk.aside_at) {
                node->disk.aside_at = 0;
                consensus_synced(node->consensus, clock_of(w, node), node->disk.aside_generation,
                                 node->disk.aside.len);
                pump(w, at);
        }
        if (clock_of(w, node) >= node->wake_ms) {
                consensus_tick(node->consensus, clock_of(w, node));
                pump(w, at);
        }
}

static void run(struct world *w)
{
        uint64_t target = 0;
        for (unsigned i = 0; i < NODES; i++)
                start(w, i);
        while (w->violation == NULL) {
                w->now++;
                if (!w->healed && w->now >= FAULTS_END_MS) {
                        heal(w);
                        target = w->log_count + 20;
                }
                deliver_due(w);
                for (unsigned i = 0; i < NODES && w->violation == NULL; i++)
                        tick(w, i);
                if (w->violation == NULL && w->now % 7 == 0 &&
                    (!w->healed || w->log_count < target))
                        submit(w);
                if (!w->healed && w->now % 20 == 0)
                        faults(w);
                if (w->healed && agreed(w, target))
                        return;
                if (w->now > END_MS)
                        violate(w, "no agreement long after the faults ended");
        }
}

static void world_open(struct world *w, uint64_t seed, struct consensus_bugs bugs)
{
        memset(w, 0, sizeof *w);
        heap_init(&w->heap, 0);
        rng_init(&w->rng, seed, 0);
        w->seed = seed;
        w->bugs = bugs;
        w->delay_ms = rng_chance(&w->rng, 500) ? 4 : 1 + rng_below(&w->rng, 120);
        w->disk_ms = rng_chance(&w->rng, 500) ? 2 : 1 + rng_below(&w->rng, 80);
        w->crash_per_mille = rng_chance(&w->rng, 800) ? (unsigned)rng_below(&w->rng, 80) : 0;
        w->cut_per_mille = rng_chance(&w->rng, 600) ? (unsigned)rng_below(&w->rng, 60) : 0;
        w->reset_per_mille = rng_chance(&w->rng, 500) ? (unsigned)rng_below(&w->rng, 200) : 0;
        static const struct consensus_bugs none;
        if (memcmp(&bugs, &none, sizeof none) != 0) {
                /* Planted bugs show at slow disks and frequent crashes. */
                w->delay_ms = 1 + rng_below(&w->rng, 30);
                w->disk_ms = 20 + rng_below(&w->rng, 80);
                w->crash_per_mille = 100;
                w->cut_per_mille = 10;
        }
        for (unsigned i = 0; i < NODES; i++) {
                struct node *node = &w->nodes[i];
                heap_init(&node->heap, 0);
                buffer_init(&node->disk.file, &w->heap);
                buffer_init(&node->disk.next, &w->heap);
                buffer_init(&node->disk.aside, &w->heap);
                node->clock_offset = rng_below(&w->rng, 100000);
                node->clock_per_mille = 900 + (unsigned)rng_below(&w->rng, 200);
        }
}

static void world_close(struct world *w)
{
        for (unsigned i = 0; i < NODES; i++) {
                consensus_free(w->nodes[i].consensus);
                assert_int_equal(w->nodes[i].heap.used_bytes, 0);
                buffer_fini(&w->nodes[i].disk.file);
                buffer_fini(&w->nodes[i].disk.next);
                buffer_fini(&w->nodes[i].disk.aside);
        }
        for (size_t i = 0; i < w->message_count; i++)
                heap_free_bytes(&w->heap, w->messages[i].data);
        assert_int_equal(w->heap.used_bytes, 0);
}

static struct world world;

static void test_histories(void **state)
{
        (void)state;
        const char *only = getenv("SEED");
        const char *seeds = getenv("SEEDS");
        uint64_t first = only != NULL ? strtoull(only, NULL, 0) : 1;
        uint64_t count = only != NULL ? 1 : seeds != NULL ? strtoull(seeds, NULL, 0) : 60;
        uint64_t restores = 0;
        uint64_t crashes = 0;
        uint64_t commands = 0;
        for (uint64_t seed = first; seed < first + count; seed++) {
                world_open(&world, seed, (struct consensus_bugs){0});
                run(&world);
                if (world.violation != NULL)
                        fail_msg("seed %llu at %llu ms: %s", (unsigned long long)seed,
                                 (unsigned long long)world.now, world.violation);
                restores += world.restores;
                crashes += world.crashes;
                commands += world.log_count;
                world_close(&world);
        }
        print_message("%llu commands, %llu crashes, %llu restores\n", (unsigned long long)commands,
                      (unsigned long long)crashes, (unsigned long long)restores);
        if (count >= 60) {
                assert_true(crashes > count);
                assert_true(restores > count);
                assert_true(commands > count * 50);
        }
}

/* The same seed gives the same history. */
static void test_determinism(void **state)
{
        (void)state;
        uint64_t seen[2][3];
        for (int i = 0; i < 2; i++) {
                world_open(&world, 4242, (struct consensus_bugs){0});
                run(&world);
                assert_null(world.violation);
                seen[i][0] = world.now;
                seen[i][1] = world.order;
                seen[i][2] = world.log_count;
                world_close(&world);
        }
        assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
}

static bool found_in_child(struct consensus_bugs bugs, uint64_t seeds)
{
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
                (void)!freopen("/dev/null", "w", stderr);
                for (uint64_t seed = 1; seed <= seeds; seed++) {
                        world_open(&world, seed, bugs);
                        run(&world);
                        if (world.violation != NULL) {
                                print_message("  seed %llu: %s\n", (unsigned long long)seed,
                                              world.violation);
                                fflush(stdout);
                                _exit(1);
                        }
                        world_close(&world);
                }
                _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void test_bugs_are_found(void **state)
{
        (void)state;
        static const struct {
                const char *name;
                struct consensus_bugs bugs;
        } cases[] = {
                {"vote_volatile", {.vote_volatile = true}},
                {"term_volatile", {.term_volatile = true}},
                {"ack_before_sync", {.ack_before_sync = true}},
                {"send_before_sync", {.send_before_sync = true}},
                {"suffix_kept", {.suffix_kept = true}},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                if (!found_in_child(cases[i].bugs, 3000))
                        fail_msg("%s was not found", cases[i].name);
                print_message("found %s\n", cases[i].name);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories),
                cmocka_unit_test(test_determinism),
                cmocka_unit_test(test_bugs_are_found),
        };
        engine = &consensus_library;
        int failed = cmocka_run_group_tests_name("library", tests, NULL, NULL);
        engine = &consensus_core;
        return failed + cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
