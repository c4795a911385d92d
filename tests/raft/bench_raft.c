/* What a core costs, in memory: commands through one node and three, entries kept, a large state to
 * a new follower. No disk and no network: every write is durable and every message there at once.
 *
 *   bench-raft [COMMANDS]     prints CPU time, for both cores */
#include "raft/library.h"

#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
        NODES = 3,
        BATCH = 64,
};

struct node {
        struct heap heap;
        struct consensus *consensus;
        uint64_t applied;
        uint64_t written;
        uint64_t generation;
        size_t restored;
};

static struct node nodes[NODES];
static unsigned count;
static uint64_t now = 1;
static uint64_t syncs;

static double seconds(void)
{
        struct timespec time;
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
        return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void open_nodes(const struct consensus_engine *engine, unsigned voters, unsigned all)
{
        static const uint32_t ids[] = {1, 2, 3};
        count = all;
        for (unsigned i = 0; i < all; i++) {
                struct consensus_recovery recovery;
                struct consensus_config config = {
                        .engine = engine,
                        .cluster = 1,
                        .group = 1,
                        .self = i + 1,
                        .voters = ids,
                        .voter_count = i < voters ? voters : 0,
                        .join = i >= voters,
                        .election_timeout_ms = 100,
                        .heartbeat_ms = 20,
                        .pre_vote = true,
                        .seed = 3,
                        .snapshot_entries = 4096,
                };
                nodes[i] = (struct node){0};
                heap_init(&nodes[i].heap, 0);
                if (consensus_new(&nodes[i].heap, &config, &nodes[i].consensus) != ERR_NONE ||
                    consensus_start(nodes[i].consensus, now, (struct bytes){0}, 0, &recovery) !=
                            ERR_NONE)
                        abort();
        }
}

static void close_nodes(void)
{
        for (unsigned i = 0; i < count; i++)
                consensus_free(nodes[i].consensus);
}

/* One take; true when something came of it. */
static bool turn(unsigned at, bool snapshots)
{
        struct node *node = &nodes[at];
        struct consensus_output output;
        consensus_take(node->consensus, &output);
        bool more = output.write_count + output.message_count + output.command_count > 0;
        bool wrote = output.write_count > 0;
        node->applied += output.command_count;
        if (output.restore)
                node->restored = output.restore_state.len;
        for (size_t i = 0; i < output.message_count; i++) {
                unsigned to = output.messages[i].peer - 1;
                if (to < count)
                        (void)!consensus_receive(nodes[to].consensus, now, at + 1,
                                                 output.messages[i].data);
        }
        bool wished = output.snapshot_wished;
        if (wrote) {
                struct consensus_status status = consensus_status(node->consensus);
                consensus_synced(node->consensus, now, status.generation, status.journal_bytes);
                syncs++;
        }
        if (wished && snapshots)
                (void)!consensus_snapshot(node->consensus, BYTES("small"));
        return more;
}

static void settle(bool snapshots)
{
        for (bool more = true; more;) {
                more = false;
                for (unsigned i = 0; i < count; i++)
                        more = turn(i, snapshots) || more;
        }
}

static unsigned elect(void)
{
        for (;; now += 10) {
                for (unsigned i = 0; i < count; i++) {
                        consensus_tick(nodes[i].consensus, now);
                        settle(true);
                        if (consensus_status(nodes[i].consensus).ready)
                                return i;
                }
        }
}

static void commands(const char *name, const struct consensus_engine *engine, unsigned voters,
                     uint64_t total)
{
        open_nodes(engine, voters, voters);
        unsigned leader = elect();
        double begin = seconds();
        for (uint64_t done = 0; done < total; done += BATCH) {
                for (int i = 0; i < BATCH; i++)
                        (void)!consensus_submit(
                                nodes[leader].consensus, now,
                                BYTES("acquire us-east:order:12345 for session 77"));
                settle(true);
                if (done % 4096 == 0) {
                        now++;
                        consensus_tick(nodes[leader].consensus, now);
                        settle(true);
                }
        }
        double took = seconds() - begin;
        printf("%-8s %u node%s: %8.0f commands/s of CPU time (%llu applied)\n", name, voters,
               voters > 1 ? "s" : " ", (double)total / took,
               (unsigned long long)nodes[leader].applied);
        close_nodes();
}

static void entry_memory(const char *name, const struct consensus_engine *engine)
{
        open_nodes(engine, 1, 1);
        unsigned leader = elect();
        size_t before = nodes[leader].heap.used_bytes;
        for (int i = 0; i < 4000; i++) {
                (void)!consensus_submit(nodes[leader].consensus, now,
                                        BYTES("acquire us-east:order:12345 for session 77"));
                settle(false);
        }
        printf("%-8s an entry of 42 bytes keeps %.0f bytes on the heap\n", name,
               (double)(nodes[leader].heap.used_bytes - before) / 4000.0);
        close_nodes();
}

static void large_state(size_t size)
{
        open_nodes(&consensus_core, 1, 2);
        unsigned leader = elect();
        uint8_t *state = malloc(size);
        if (state == NULL)
                return;
        memset(state, 7, size);
        for (int i = 0; i < 2000; i++) {
                (void)!consensus_submit(nodes[leader].consensus, now, BYTES("one"));
                settle(false);
        }
        double begin = seconds();
        enum err err = consensus_snapshot(nodes[leader].consensus, bytes_of(state, size));
        settle(false);
        double made = seconds() - begin;
        size_t top = nodes[leader].heap.used_bytes_max;
        if (err == ERR_NONE)
                err = consensus_member_set(
                        nodes[leader].consensus, now,
                        &(struct consensus_member){.node = 2, .role = CONSENSUS_LEARNER});
        begin = seconds();
        for (int i = 0; i < 500 && nodes[1].restored == 0; i++) {
                now += 20;
                consensus_tick(nodes[leader].consensus, now);
                settle(false);
        }
        printf("core     a state of %zu MiB: %s, made and written in %.0f ms (%.1f times its size "
               "at "
               "most), sent in %.0f ms, arrived: %zu MiB, follower's heap at most %.1f times\n",
               size >> 20, err_name(err), made * 1e3, (double)top / (double)size,
               (seconds() - begin) * 1e3, nodes[1].restored >> 20,
               (double)nodes[1].heap.used_bytes_max / (double)size);
        free(state);
        close_nodes();
}

int main(int argc, char **argv)
{
        uint64_t total = argc > 1 ? strtoull(argv[1], NULL, 0) : 2000000;
        static const struct {
                const char *name;
                const struct consensus_engine *engine;
        } cores[] = {{"library", &consensus_library}, {"core", &consensus_core}};
        for (unsigned voters = 1; voters <= 3; voters += 2) {
                for (size_t i = 0; i < COUNT_OF(cores); i++)
                        commands(cores[i].name, cores[i].engine, voters, total);
        }
        for (size_t i = 0; i < COUNT_OF(cores); i++)
                entry_memory(cores[i].name, cores[i].engine);
        large_state((size_t)100 << 20);
        return 0;
}
