/* A small world of nodes that send each other reports with delay, loss and cuts, by a fixed step of
 * time; and the parts alone: hysteresis, damage to the report, evidence. */
#include "health/health.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        NODES_MAX = 6,
        QUEUE_MAX = 512,
        STEP_US = 10000,
        SECOND_US = 1000000,
};

/* The world: node i is in region `home[i]`. */
struct flight {
        uint64_t at_us;
        unsigned from, to;
        struct health_report report;
};

static struct {
        uint64_t now_us;
        unsigned count;
        struct health nodes[NODES_MAX];
        bool dead[NODES_MAX];
        bool paused[NODES_MAX];
        bool cut[NODES_MAX][NODES_MAX];
        uint64_t delay_us;
        unsigned lose_per_mille;
        uint64_t beat_us[NODES_MAX];
        struct flight queue[QUEUE_MAX];
        size_t queued;
        struct rng rng;
} world;

static struct topology topology;
static struct topology_error error;

static void world_start(unsigned regions, unsigned nodes_each)
{
        static char text[8192];
        size_t used = (size_t)snprintf(text, sizeof text, "cluster = t; epoch = 1;");
        unsigned id = 0;
        for (unsigned r = 1; r <= regions; r++) {
                used += (size_t)snprintf(text + used, sizeof text - used, "region r%u { id = %u; ",
                                         r, r);
                for (unsigned n = 0; n < nodes_each; n++) {
                        id++;
                        used += (size_t)snprintf(text + used, sizeof text - used,
                                                 "node n%u { id = %u; link = 10.0.0.%u:1 } ", id,
                                                 id, id);
                }
                used += (size_t)snprintf(text + used, sizeof text - used, "}\n");
        }
        if (!topology_parse(bytes_of_str(text), &topology, &error))
                fail_msg("%s", error.what);
        memset(&world, 0, sizeof world);
        world.count = id;
        world.now_us = 5 * SECOND_US;
        world.delay_us = 50000;
        rng_init(&world.rng, 42, 1);
        for (unsigned i = 0; i < id; i++)
                health_init(&world.nodes[i], &topology, i + 1, world.now_us);
}

static void world_send(unsigned from)
{
        struct health_report report;
        health_report_make(&world.nodes[from], world.now_us, &report);
        world.beat_us[from] = world.now_us + topology.timing.heartbeat_ms * 1000ull;
        for (unsigned to = 0; to < world.count; to++) {
                if (to == from || world.cut[from][to] ||
                    rng_chance(&world.rng, world.lose_per_mille))
                        continue;
                assert_in_range(world.queued, 0, QUEUE_MAX - 1);
                world.queue[world.queued++] =
                        (struct flight){world.now_us + world.delay_us, from, to, report};
        }
}

static void world_deliver(void)
{
        size_t kept = 0;
        for (size_t i = 0; i < world.queued; i++) {
                struct flight *flight = &world.queue[i];
                if (flight->at_us > world.now_us || world.paused[flight->to]) {
                        world.queue[kept++] = *flight;
                        continue;
                }
                if (world.dead[flight->to] || world.cut[flight->from][flight->to])
                        continue;
                (void)health_reported(&world.nodes[flight->to], &flight->report, world.now_us);
        }
        world.queued = kept;
}

static void world_turn(void)
{
        world.now_us += STEP_US;
        for (unsigned i = 0; i < world.count; i++) {
                if (world.dead[i] || world.paused[i])
                        continue;
                struct health_step step = health_step(&world.nodes[i], world.now_us);
                assert_true(step.next_us > world.now_us);
                if (step.changed || world.now_us >= world.beat_us[i])
                        world_send(i);
        }
        world_deliver();
}

static void world_run(uint64_t for_us)
{
        for (uint64_t end = world.now_us + for_us; world.now_us < end;)
                world_turn();
}

static enum health_verdict verdict_at(unsigned node, uint8_t region)
{
        return health_verdict(&world.nodes[node], region, world.now_us);
}

static void assert_all_up(void)
{
        for (unsigned i = 0; i < world.count; i++) {
                for (uint8_t r = 1; r <= topology.region_count; r++) {
                        if (verdict_at(i, r) != HEALTH_UP)
                                fail_msg("node %u holds region %u for %s", i + 1, r,
                                         health_verdict_name(verdict_at(i, r)));
                }
        }
}

/* Runs until a node's verdict on a region is `wanted`; returns the time it took, or the limit. */
static uint64_t world_until(unsigned node, uint8_t region, enum health_verdict wanted,
                            uint64_t limit_us)
{
        uint64_t begin = world.now_us;
        while (verdict_at(node, region) != wanted && world.now_us - begin < limit_us)
                world_turn();
        return world.now_us - begin;
}

static void cut(unsigned a, unsigned b, bool on)
{
        world.cut[a][b] = world.cut[b][a] = on;
}

static void test_start(void **state)
{
        (void)state;
        world_start(3, 1);
        assert_int_equal(verdict_at(0, 1), HEALTH_UP);
        assert_int_equal(verdict_at(0, 2), HEALTH_UNKNOWN);
        assert_false(health_majority(&world.nodes[0], world.now_us));
        world_run(SECOND_US / 2);
        assert_all_up();
        assert_true(health_majority(&world.nodes[0], world.now_us));
}

static void test_kill_and_return(void **state)
{
        (void)state;
        for (unsigned phase = 0; phase < 20; phase++) { /* any moment between two heartbeats */
                world_start(3, 1);
                world.delay_us = 90000;
                world_run(3 * SECOND_US + phase * STEP_US);
                world.dead[2] = true;
                uint64_t took = world_until(0, 3, HEALTH_DOWN, 5 * SECOND_US);
                /* The last heartbeat left up to 200 ms before, and took 90 ms. */
                assert_in_range(took, 750000, 1300000);
                took = world_until(1, 3, HEALTH_DOWN, 5 * SECOND_US);
                assert_in_range(took, 0, 200000);
                assert_int_equal(verdict_at(0, 2), HEALTH_UP);
                assert_true(health_majority(&world.nodes[0], world.now_us));
                world_run(10 * SECOND_US);
                assert_int_equal(verdict_at(0, 3), HEALTH_DOWN);

                world.dead[2] = false;
                health_init(&world.nodes[2], &topology, 3, world.now_us);
                took = world_until(0, 3, HEALTH_UP, 30 * SECOND_US);
                assert_in_range(took, 2000000, 2500000);
                world_run(SECOND_US);
                assert_all_up();
        }
}

/* Down is decided at both sides of the boundary: nothing before down_after, all after. */
static void test_silence_boundary(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        struct health *health = &world.nodes[0];
        uint64_t now = world.now_us;
        health_heard(health, 3, now);
        static const struct {
                uint64_t after_ms;
                enum health_verdict verdict;
        } rows[] = {{499, HEALTH_UP},
                    {500, HEALTH_SUSPECT},
                    {899, HEALTH_SUSPECT},
                    {900, HEALTH_SUSPECT}};
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                uint64_t at = now + rows[i].after_ms * 1000;
                while (health->stepped_us + 100000 < at) {
                        health_heard(health, 2, health->stepped_us + 100000);
                        (void)health_step(health, health->stepped_us + 100000);
                }
                (void)health_step(health, at);
                assert_int_equal(health_verdict(health, 3, at), rows[i].verdict);
        }
        /* Its own vote is down now; one more vote makes the majority of three. */
        struct health_report report = {.node = 2, .region_count = 1};
        report.regions[0].region = 3;
        report.regions[0].opinion = HEALTH_DOWN;
        report.regions[0].age_ms = 1000;
        assert_true(health_reported(health, &report, now + 900000));
        assert_int_equal(health_verdict(health, 3, now + 900000), HEALTH_DOWN);
        /* A vote grows old: then it is not a majority any more. */
        assert_int_equal(health_verdict(health, 3, now + 900000 + 899999), HEALTH_DOWN);
        assert_int_equal(health_verdict(health, 3, now + 900000 + 900000), HEALTH_SUSPECT);
}

static void test_lost_heartbeats(void **state)
{
        (void)state;
        world_start(3, 1);
        world.lose_per_mille = 50;
        for (int second = 0; second < 600; second++) {
                world_run(SECOND_US);
                for (unsigned i = 0; i < 3; i++) {
                        for (uint8_t r = 1; r <= 3; r++)
                                assert_int_not_equal(verdict_at(i, r), HEALTH_DOWN);
                }
        }
        /* A single lost heartbeat or a delay does not even raise suspicion. */
        world_start(3, 1);
        world_run(2 * SECOND_US);
        for (uint64_t gap_us = 0; gap_us <= 140000; gap_us += STEP_US) {
                for (unsigned to = 0; to < 2; to++)
                        world.cut[2][to] = true;
                world_run(gap_us);
                for (unsigned to = 0; to < 2; to++)
                        world.cut[2][to] = false;
                for (int i = 0; i < 50; i++) {
                        world_turn();
                        assert_int_equal(verdict_at(0, 3), HEALTH_UP);
                }
        }
}

static void test_minority_decides_nothing(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        cut(0, 1, true);
        cut(0, 2, true);
        for (int i = 0; i < 1000; i++) {
                world_turn();
                assert_int_not_equal(verdict_at(0, 2), HEALTH_DOWN);
                assert_int_not_equal(verdict_at(0, 3), HEALTH_DOWN);
        }
        assert_false(health_majority(&world.nodes[0], world.now_us));
        assert_int_equal(verdict_at(0, 2), HEALTH_SUSPECT);
        assert_int_equal(verdict_at(1, 1), HEALTH_DOWN);
        assert_int_equal(verdict_at(2, 1), HEALTH_DOWN);
        assert_int_equal(verdict_at(2, 2), HEALTH_UP);
        cut(0, 1, false);
        cut(0, 2, false);
        for (int i = 0; i < 1000; i++) { /* on healing, the cut-off one decides nothing either */
                world_turn();
                assert_int_not_equal(verdict_at(0, 2), HEALTH_DOWN);
                assert_int_not_equal(verdict_at(1, 3), HEALTH_DOWN);
                assert_int_not_equal(verdict_at(2, 2), HEALTH_DOWN);
        }
        assert_all_up();
}

static void test_one_link_cut(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        cut(0, 1, true);
        world_run(3 * SECOND_US);
        assert_int_equal(verdict_at(0, 2), HEALTH_SUSPECT);
        assert_int_equal(verdict_at(2, 1), HEALTH_SUSPECT); /* by node 2's vote */
        assert_int_equal(verdict_at(2, 3), HEALTH_UP);
        struct health_evidence evidence;
        char text[HEALTH_SENTENCE_SIZE];
        assert_true(health_evidence(&world.nodes[2], 1, world.now_us, &evidence));
        assert_int_equal(evidence.votes_down, 1);
        assert_int_equal(evidence.votes_needed, 2);
        assert_int_equal(evidence.observer_count, 2);
        assert_int_equal(evidence.observers[0].region, 2);
        assert_int_equal(evidence.observers[0].vote, HEALTH_DOWN);
        assert_in_range(evidence.observers[0].age_ms, 2500, 3100);
        assert_int_equal(evidence.observers[1].vote, HEALTH_UP);
        assert_int_equal(evidence.observers[1].report_age_ms, 0);
        health_evidence_text(&evidence, &topology, text);
        assert_non_null(strstr(text, "suspect: not heard by 1 of 2 regions needed: r2 for "));
}

/* A region that is not trusted again yet has no vote, however fresh its word is. */
static void test_no_vote_while_recovering(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        world.dead[1] = true;
        world_run(3 * SECOND_US);
        struct health *health = &world.nodes[0];
        struct health_report report = {.node = 2, .region_count = 1};
        report.regions[0].region = 3;
        report.regions[0].opinion = HEALTH_DOWN;
        report.regions[0].age_ms = 5000;
        assert_int_equal(verdict_at(0, 2), HEALTH_DOWN);
        (void)health_reported(health, &report, world.now_us);
        struct health_evidence evidence;
        assert_true(health_evidence(health, 3, world.now_us, &evidence));
        assert_int_equal(evidence.votes_down, 0);
        assert_false(evidence.observers[1].fresh);
        assert_int_equal(verdict_at(0, 3), HEALTH_UP);
}

/* Two regions: neither may decide about the other. Five: three of them may. */
static void test_majorities(void **state)
{
        (void)state;
        world_start(2, 1);
        world_run(2 * SECOND_US);
        world.dead[1] = true;
        world_run(20 * SECOND_US);
        assert_int_equal(verdict_at(0, 2), HEALTH_SUSPECT);

        world_start(5, 1);
        world_run(2 * SECOND_US);
        world.dead[3] = world.dead[4] = true;
        world_run(3 * SECOND_US);
        assert_int_equal(verdict_at(0, 4), HEALTH_DOWN);
        assert_int_equal(verdict_at(0, 5), HEALTH_DOWN);
        world.dead[2] = true;
        world_run(30 * SECOND_US);
        assert_int_not_equal(verdict_at(0, 3), HEALTH_DOWN);

        world_start(1, 1);
        world_run(2 * SECOND_US);
        assert_int_equal(verdict_at(0, 1), HEALTH_UP);
        assert_true(health_majority(&world.nodes[0], world.now_us));
}

/* Regions of two nodes: one node's loss is no region's loss. */
static void test_many_nodes(void **state)
{
        (void)state;
        world_start(3, 2);
        world_run(2 * SECOND_US);
        assert_all_up();
        world.dead[5] = true;
        world_run(5 * SECOND_US);
        for (unsigned i = 0; i < 5; i++)
                assert_int_equal(verdict_at(i, 3), HEALTH_UP);
        assert_in_range(health_age_node_ms(&world.nodes[0], 6, world.now_us), 4500, 5100);
        assert_in_range(health_age_region_ms(&world.nodes[0], 3, world.now_us), 0, 300);
        /* One node of region 1 does not hear region 3; the other does, so region 1 does. */
        cut(0, 4, true);
        world_run(5 * SECOND_US);
        assert_int_equal(verdict_at(2, 3), HEALTH_UP);
        world.dead[4] = true;
        assert_in_range(world_until(2, 3, HEALTH_DOWN, 5 * SECOND_US), 0, 1300000);
}

/* A node that was stopped for long holds nobody for dead when it wakes. */
static void test_own_pause(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        world.paused[0] = true;
        world_run(5 * SECOND_US);
        assert_int_equal(verdict_at(1, 1), HEALTH_DOWN);
        world.paused[0] = false;
        for (int i = 0; i < 200; i++) {
                world_turn();
                assert_int_not_equal(verdict_at(0, 2), HEALTH_DOWN);
                assert_int_not_equal(world.nodes[0].regions[1].opinion, HEALTH_DOWN);
        }
}

/* Each fall doubles the time until a region is trusted again; quiet minutes halve it. */
static void test_flapping(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        static const uint64_t expected_ms[] = {2000, 4000, 8000, 16000, 32000, 32000};
        for (size_t i = 0; i < COUNT_OF(expected_ms); i++) {
                world.dead[2] = true;
                (void)world_until(0, 3, HEALTH_DOWN, 5 * SECOND_US);
                world_run(SECOND_US);
                world.dead[2] = false;
                uint64_t took_ms = world_until(0, 3, HEALTH_UP, 60 * SECOND_US) / 1000;
                assert_in_range(took_ms, expected_ms[i], expected_ms[i] + 500);
        }
        world_run(400ull * SECOND_US);
        world.dead[2] = true;
        (void)world_until(0, 3, HEALTH_DOWN, 5 * SECOND_US);
        world.dead[2] = false;
        assert_in_range(world_until(0, 3, HEALTH_UP, 60 * SECOND_US), 1900000, 2500000);
}

/* Recovery needs unbroken hearing: a gap as long as suspicion starts it anew. */
static void test_recovery_is_unbroken(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        world.dead[2] = true;
        world_run(3 * SECOND_US);
        for (int i = 0; i < 5; i++) {
                world.dead[2] = false;
                world_run(3 * SECOND_US / 2);
                world.dead[2] = true;
                world_run(6 * SECOND_US / 10);
                assert_int_equal(verdict_at(0, 3), HEALTH_DOWN);
        }
}

static void test_hysteresis(void **state)
{
        (void)state;
        struct part_hysteresis part;
        part_hysteresis_init(&part, 2, 3);
        assert_true(part_hysteresis_look(&part, true)); /* the first look decides */
        assert_true(part.up);
        static const struct {
                bool healthy, changed, up;
        } looks[] = {
                {false, false, true}, {false, false, true},  {true, false, true},
                {false, false, true}, {false, false, true},  {false, true, false},
                {true, false, false}, {false, false, false}, {true, false, false},
                {true, true, true},   {true, false, true},
        };
        for (size_t i = 0; i < COUNT_OF(looks); i++) {
                assert_int_equal(part_hysteresis_look(&part, looks[i].healthy), looks[i].changed);
                assert_int_equal(part.up, looks[i].up);
        }
}

static enum health_self self_at(unsigned node, uint8_t region)
{
        return health_self(&world.nodes[node], region, world.now_us);
}

static void test_self(void **state)
{
        (void)state;
        world_start(3, 1);
        world_run(2 * SECOND_US);
        struct health *own = &world.nodes[2];
        bool known = true;
        assert_false(health_part_up(own, HEALTH_PART_EDGE, 0, &known));
        assert_false(known);
        assert_true(health_looked(own, HEALTH_PART_EDGE, 0, true));
        assert_true(health_looked(own, HEALTH_PART_DNS, 0, true));
        assert_true(health_looked(own, HEALTH_PART_BACKEND, 0, true));
        assert_true(health_looked(own, HEALTH_PART_BACKEND, 1, true));
        assert_false(health_looked(own, HEALTH_PART_BACKEND, TOPOLOGY_BACKENDS_MAX, true));
        assert_false(health_looked(own, HEALTH_PART_COUNT, 0, true));
        world_run(SECOND_US);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_OK);

        assert_false(health_looked(own, HEALTH_PART_DNS, 0, false));
        assert_true(health_looked(own, HEALTH_PART_DNS, 0, false));
        world_run(SECOND_US);
        assert_int_equal(self_at(2, 3), HEALTH_SELF_DEGRADED);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_DEGRADED);

        for (int i = 0; i < 2; i++)
                (void)health_looked(own, HEALTH_PART_BACKEND, 0, false);
        world_run(SECOND_US);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_DEGRADED);
        for (int i = 0; i < 2; i++)
                (void)health_looked(own, HEALTH_PART_BACKEND, 1, false);
        world_run(SECOND_US);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_FAILED);

        uint8_t parts_known = 0, parts_down = 0;
        char text[HEALTH_SENTENCE_SIZE];
        health_parts(&world.nodes[0], 3, &parts_known, &parts_down);
        assert_string_equal(health_parts_text(parts_down, text, sizeof text), "dns, backends");
        assert_string_equal(health_parts_text(parts_down, text, 6), "dns, ");
        assert_string_equal(health_parts_text(parts_known, text, sizeof text),
                            "dns, edge, backends");
        struct health_evidence evidence;
        assert_true(health_evidence(&world.nodes[0], 3, world.now_us, &evidence));
        assert_string_equal(health_evidence_text(&evidence, &topology, text),
                            "up; says of itself: failed (dns, backends down)");

        for (int i = 0; i < 2; i++)
                (void)health_looked(own, HEALTH_PART_BACKEND, 1, true);
        world_run(SECOND_US);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_DEGRADED);
        for (int i = 0; i < 2; i++)
                (void)health_looked(own, HEALTH_PART_REDIS, 0, false);
        world_run(SECOND_US);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_FAILED);
        /* The word of a silent region does not count. */
        world.dead[2] = true;
        world_run(3 * SECOND_US);
        assert_int_equal(self_at(0, 3), HEALTH_SELF_OK);
        assert_int_equal(verdict_at(0, 3), HEALTH_DOWN);
}

static void report_random(struct rng *rng, struct health_report *ret)
{
        memset(ret, 0, sizeof *ret);
        ret->node = (uint32_t)rng_between(rng, 1, UINT32_MAX);
        ret->parts_known = (uint8_t)rng_below(rng, 1u << HEALTH_PART_COUNT);
        ret->parts_down = (uint8_t)(rng_next(rng) & ret->parts_known);
        ret->backends_known = (uint8_t)rng_below(rng, TOPOLOGY_BACKENDS_MAX + 1);
        ret->backends_up = (uint8_t)rng_below(rng, ret->backends_known + 1u);
        ret->region_count = (uint8_t)rng_below(rng, TOPOLOGY_REGIONS_MAX + 1);
        for (uint32_t i = 0; i < ret->region_count; i++) {
                ret->regions[i].region = (uint8_t)(i + 1 + ret->region_count % 32);
                ret->regions[i].opinion = (enum health_verdict)rng_below(rng, HEALTH_VERDICT_COUNT);
                ret->regions[i].age_ms = (uint32_t)(rng_next(rng) >> rng_between(rng, 32, 63));
        }
}

static void test_report(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct rng rng;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        rng_init(&rng, 11, 1);
        for (int round = 0; round < 300; round++) {
                struct health_report report, back;
                report_random(&rng, &report);
                buffer_reset(&buffer);
                health_report_encode(&report, &buffer);
                struct bytes data = buffer_view(&buffer);
                assert_in_range(data.len, 1, HEALTH_REPORT_BYTES_MAX);
                memset(&back, 0, sizeof back);
                assert_int_equal(health_report_decode(data, &back), ERR_NONE);
                assert_memory_equal(&report, &back, sizeof back);
                for (size_t len = 0; len < data.len; len++) {
                        uint8_t *copy = malloc(len + 1);
                        assert_non_null(copy);
                        memcpy(copy, data.ptr, len);
                        enum err err = health_report_decode(bytes_of(copy, len), &back);
                        assert_int_not_equal(err, ERR_NONE);
                        free(copy);
                }
                assert_memory_equal(&report, &back, sizeof back); /* untouched */
        }
        buffer_fini(&buffer);
}

/* Damaged reports are refused, or are valid ones: feeding them changes no invariant. */
static void test_report_damage(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct rng rng;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        rng_init(&rng, 12, 1);
        world_start(3, 1);
        for (int round = 0; round < 20000; round++) {
                struct health_report report;
                report_random(&rng, &report);
                report.node = 2;
                buffer_reset(&buffer);
                health_report_encode(&report, &buffer);
                for (uint64_t n = rng_between(&rng, 1, 3); n > 0; n--)
                        buffer.ptr[rng_below(&rng, buffer.len)] ^=
                                (uint8_t)(1u << rng_below(&rng, 8));
                if (health_report_decode(buffer_view(&buffer), &report) != ERR_NONE ||
                    report.node != 2)
                        continue;
                assert_in_range(report.region_count, 0, TOPOLOGY_REGIONS_MAX);
                (void)health_reported(&world.nodes[0], &report, world.now_us);
                assert_int_not_equal(verdict_at(0, 1), HEALTH_VERDICT_COUNT);
                /* Whatever one peer says, it is one vote: never a majority of three. */
                for (uint8_t r = 1; r <= 3; r++)
                        assert_int_not_equal(verdict_at(0, r), HEALTH_DOWN);
        }
        buffer_fini(&buffer);
}

static void test_unknown_ids(void **state)
{
        (void)state;
        world_start(3, 1);
        struct health_report report = {.node = 99};
        struct health_evidence evidence;
        health_heard(&world.nodes[0], 99, world.now_us);
        assert_false(health_reported(&world.nodes[0], &report, world.now_us));
        report.node = 1; /* its own: an echo */
        assert_false(health_reported(&world.nodes[0], &report, world.now_us));
        assert_int_equal(health_verdict(&world.nodes[0], 60, world.now_us), HEALTH_UNKNOWN);
        assert_int_equal(health_self(&world.nodes[0], 60, world.now_us), HEALTH_SELF_OK);
        assert_false(health_evidence(&world.nodes[0], 60, world.now_us, &evidence));
        assert_int_equal(health_age_node_ms(&world.nodes[0], 99, world.now_us), HEALTH_AGE_NEVER);
        assert_int_equal(health_age_node_ms(&world.nodes[0], 1, world.now_us), 0);
        assert_int_equal(health_age_region_ms(&world.nodes[0], 60, world.now_us), HEALTH_AGE_NEVER);
}

/* A new topology keeps what is known of those who stay, in whatever order they stand now. */
static void test_reconfigure(void **state)
{
        (void)state;
        world_start(4, 1);
        world_run(2 * SECOND_US);
        world.dead[3] = true;
        world_run(3 * SECOND_US);
        static struct topology next;
        next = topology;
        next.regions[0] = topology.regions[3]; /* 4, 2, 1; region 3 is gone */
        next.regions[2] = topology.regions[0];
        next.region_count = 3;
        struct health *health = &world.nodes[0];
        assert_int_equal(verdict_at(0, 4), HEALTH_DOWN);
        health_reconfigure(health, &next, world.now_us);
        assert_int_equal(verdict_at(0, 4), HEALTH_DOWN);
        assert_int_equal(verdict_at(0, 2), HEALTH_UP);
        assert_int_equal(verdict_at(0, 1), HEALTH_UP);
        assert_int_equal(verdict_at(0, 3), HEALTH_UNKNOWN);
        assert_int_equal(health_age_node_ms(health, 3, world.now_us), HEALTH_AGE_NEVER);
        assert_true(health_age_node_ms(health, 2, world.now_us) < 500);
        /* A topology without this node changes nothing. */
        next.region_count = 2;
        health_reconfigure(health, &next, world.now_us);
        assert_int_equal(health->region_count, 3);
        /* And one region more: unknown until heard. */
        health_reconfigure(health, &topology, world.now_us);
        assert_int_equal(verdict_at(0, 3), HEALTH_UNKNOWN);
        assert_int_equal(verdict_at(0, 2), HEALTH_UP);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_start),
                cmocka_unit_test(test_kill_and_return),
                cmocka_unit_test(test_silence_boundary),
                cmocka_unit_test(test_lost_heartbeats),
                cmocka_unit_test(test_minority_decides_nothing),
                cmocka_unit_test(test_one_link_cut),
                cmocka_unit_test(test_no_vote_while_recovering),
                cmocka_unit_test(test_majorities),
                cmocka_unit_test(test_many_nodes),
                cmocka_unit_test(test_own_pause),
                cmocka_unit_test(test_flapping),
                cmocka_unit_test(test_recovery_is_unbroken),
                cmocka_unit_test(test_hysteresis),
                cmocka_unit_test(test_self),
                cmocka_unit_test(test_report),
                cmocka_unit_test(test_report_damage),
                cmocka_unit_test(test_unknown_ids),
                cmocka_unit_test(test_reconfigure),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
