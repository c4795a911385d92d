/* Who votes by the topology, and the way from one membership to another: whatever the members are
 * and whoever is away, each step keeps the majority that there is, and the steps end. */
#include "council/seats.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
        ROUNDS = 4000,
        STEPS_MAX = 200,
        NODES = 12,
};

static struct topology topology;

/* "3 2 1w": regions by their nodes; w: a witness. */
static void topology_make(const char *shape)
{
        char text[4096];
        size_t at = (size_t)snprintf(text, sizeof text, "cluster = test; epoch = 1;\n");
        unsigned id = 0;
        unsigned region = 0;
        for (const char *c = shape; *c != '\0'; c++) {
                if (*c < '1' || *c > '9')
                        continue;
                region++;
                at += (size_t)snprintf(text + at, sizeof text - at, "region r%u { id = %u; %s\n",
                                       region, region, c[1] == 'w' ? "role = witness;" : "");
                for (int i = 0; i < *c - '0'; i++) {
                        id++;
                        at += (size_t)snprintf(
                                text + at, sizeof text - at,
                                "node n%u { id = %u; link = \"127.0.%u.%d:7401\" }\n", id, id,
                                region, i + 1);
                }
                at += (size_t)snprintf(text + at, sizeof text - at, "}\n");
        }
        struct topology_error error;
        if (!topology_parse(bytes_of(text, at), &topology, &error))
                fail_msg("%s: %s", shape, error.what);
}

static void test_who_votes(void **state)
{
        static const struct {
                const char *shape;
                const char *votes; /* of each region */
                const char *survives;
                const char *why;
        } rows[] = {
                {"1", "1", "n", "one"},
                {"3", "3", "n", "one region has no other"},
                {"5", "3", "n", "and not more votes than three"},
                {"1 1", "11", "nn", "two cannot survive the loss of either"},
                {"2 2", "21", "ny", "so one of them can be lost at least"},
                {"3 3", "32", "ny", "the same"},
                {"3 1", "31", "ny", "the same"},
                {"1 1 1w", "111", "yyy", "a witness makes a majority of two"},
                {"3 3 1w", "331", "yyy", "with any region lost"},
                {"3 3 3w", "331", "yyy", "one witness is enough"},
                {"3 1 1w", "111", "yyy", "no region has half of the votes"},
                {"1 1 1", "111", "yyy", "one each"},
                {"2 2 2", "222", "yyy", "two each"},
                {"3 3 3", "333", "yyy", "three each"},
                {"4 5 3", "333", "yyy", "not more"},
                {"3 2 1", "221", "yyy", "2 + 2 + 1"},
                {"3 1 1", "111", "yyy", "not 2 + 1 + 1: that is half"},
                {"3 1 1 1", "2111", "yyyy", "2 of 5"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct seats seats;
                topology_make(rows[i].shape);
                assert_true(seats_wanted(&topology, 0, &seats));
                for (uint32_t r = 0; r < topology.region_count; r++) {
                        uint8_t id = topology.regions[r].id;
                        size_t votes = seats_votes_of(&seats, id);
                        if (votes != (size_t)(rows[i].votes[r] - '0') ||
                            seats_survive(&seats, id) != (rows[i].survives[r] == 'y'))
                                fail_msg("%s (%s): region %u has %zu votes", rows[i].shape,
                                         rows[i].why, r + 1, votes);
                        struct seats own;
                        assert_true(seats_wanted(&topology, id, &own));
                        assert_int_equal(own.count, topology.regions[r].node_count);
                        assert_int_equal(seats_votes(&own), own.count);
                }
        }
}

static void test_too_many(void **state)
{
        struct seats seats;
        (void)state;
        topology_make("9 9 9 9 9 9 9");
        assert_true(seats_wanted(&topology, 0, &seats));
        topology_make("9 9 9 9 9 9 9 1");
        assert_false(seats_wanted(&topology, 0, &seats));
        assert_false(seats_wanted(&topology, 40, &seats));
}

/* ---- the way ---- */

static struct seats random_seats(struct rng *rng, bool witness)
{
        struct seats seats = {0};
        for (uint32_t node = 1; node <= NODES; node++) {
                if (!rng_chance(rng, 400))
                        continue;
                struct seat *seat = &seats.items[seats.count++];
                seat->member.node = node;
                seat->region = (uint8_t)(1 + node % 4);
                seat->member.role = rng_chance(rng, 700) ? CONSENSUS_VOTER : CONSENSUS_LEARNER;
                if (witness && node == NODES)
                        seat->member.role = CONSENSUS_WITNESS;
                seat->member.priority = (uint8_t)rng_below(rng, 3);
        }
        return seats;
}

static bool has_voter(const struct seats *seats)
{
        for (size_t i = 0; i < seats->count; i++)
                if (seats->items[i].member.role == CONSENSUS_VOTER)
                        return true;
        return false;
}

static size_t votes_there(const struct seats *seats)
{
        size_t count = 0;
        for (size_t i = 0; i < seats->count; i++)
                count += seats->items[i].there && seats->items[i].member.role != CONSENSUS_LEARNER;
        return count;
}

static bool majority(const struct seats *seats)
{
        return votes_there(seats) >= seats_votes(seats) / 2 + 1;
}

static struct seat *find(struct seats *seats, uint32_t node)
{
        for (size_t i = 0; i < seats->count; i++)
                if (seats->items[i].member.node == node)
                        return &seats->items[i];
        return NULL;
}

/* What consensus.h does with a step. */
static void carry_out(struct seats *now, const struct seats_step *step, const bool *away,
                      uint32_t *leader)
{
        struct seat *seat = find(now, step->node);
        if (seat == NULL && step->action != SEATS_SET) {
                fail_msg("%s %u, who is no member", step->why, step->node);
        } else if (step->action == SEATS_REMOVE) {
                *seat = now->items[--now->count];
        } else if (step->action == SEATS_HAND_OVER) {
                assert_true(seat != NULL && seat->there && seat->member.role == CONSENSUS_VOTER);
                *leader = step->node;
        } else if (step->action == SEATS_SET) {
                if (seat == NULL) {
                        seat = &now->items[now->count++];
                        *seat = (struct seat){.there = !away[step->node]};
                        seat->member.node = step->node;
                        seat->member.role = CONSENSUS_LEARNER;
                }
                seat->member.priority = step->member.priority;
                if (step->member.role == CONSENSUS_LEARNER) {
                        seat->member.role = CONSENSUS_LEARNER;
                        seat->member.wanted = step->member.wanted;
                } else if (seat->member.role == CONSENSUS_LEARNER) {
                        seat->member.wanted = step->member.role;
                }
        }
}

static void promote(struct seats *now)
{
        for (size_t i = 0; i < now->count; i++) {
                struct seat *seat = &now->items[i];
                if (seat->there && seat->member.role == CONSENSUS_LEARNER &&
                    seat->member.wanted != 0) {
                        seat->member.role = seat->member.wanted;
                        seat->member.wanted = (enum consensus_member_role)0;
                        return;
                }
        }
}

static bool as_wanted(const struct seats *now, const struct seats *wanted)
{
        if (now->count != wanted->count)
                return false;
        for (size_t i = 0; i < wanted->count; i++) {
                const struct seat *seat = seats_find(now, wanted->items[i].member.node);
                if (seat == NULL || seat->member.role != wanted->items[i].member.role ||
                    seat->member.priority != wanted->items[i].member.priority)
                        return false;
        }
        return true;
}

static bool all_votes_in(const struct seats *now, const struct seats *wanted)
{
        for (size_t i = 0; i < wanted->count; i++) {
                const struct seat *seat = seats_find(now, wanted->items[i].member.node);
                if (wanted->items[i].member.role != CONSENSUS_LEARNER &&
                    (seat == NULL || seat->member.role == CONSENSUS_LEARNER))
                        return false;
        }
        return true;
}

static void one_way(unsigned seed)
{
        struct rng rng;
        bool away[NODES + 1] = {false};
        rng_init(&rng, seed, 0);
        struct seats now = random_seats(&rng, rng_chance(&rng, 200));
        struct seats wanted = random_seats(&rng, seats_find(&now, NODES) != NULL &&
                                                         seats_find(&now, NODES)->member.role ==
                                                                 CONSENSUS_WITNESS);
        unsigned lost = rng_chance(&rng, 500) ? (unsigned)rng_below(&rng, 300) : 0;
        for (uint32_t node = 1; node <= NODES; node++)
                away[node] = rng_chance(&rng, lost);
        uint32_t leader = 0;
        for (size_t i = 0; i < now.count; i++) {
                now.items[i].there = !away[now.items[i].member.node];
                if (now.items[i].there && now.items[i].member.role == CONSENSUS_VOTER)
                        leader = now.items[i].member.node;
        }
        if (leader == 0 || !majority(&now) || !has_voter(&wanted))
                return;
        bool can = true;
        for (size_t i = 0; i < wanted.count; i++)
                can = can && !away[wanted.items[i].member.node];
        struct seats_step step = {0};
        for (unsigned i = 0; i < STEPS_MAX; i++) {
                struct seats before = now;
                seats_next(&now, &wanted, leader, &step);
                assert_non_null(step.why);
                if (step.action == SEATS_DONE)
                        break;
                const struct seat *gone = seats_find(&now, step.node);
                if (step.action == SEATS_REMOVE && gone->there &&
                    gone->member.role != CONSENSUS_LEARNER && !all_votes_in(&now, &wanted))
                        fail_msg("seed %u: %u goes before all have come", seed, step.node);
                carry_out(&now, &step, away, &leader);
                promote(&now);
                if (!majority(&now) || !has_voter(&now))
                        fail_msg("seed %u, step %u (%s %u): no majority", seed, i, step.why,
                                 step.node);
                if (seats_find(&now, leader) == NULL)
                        fail_msg("seed %u: the leader took itself out", seed);
                if (memcmp(&before, &now, sizeof now) == 0 && step.action == SEATS_WAIT)
                        break; /* for ever, unless somebody comes back */
        }
        if (can && (step.action != SEATS_DONE || !as_wanted(&now, &wanted)))
                fail_msg("seed %u: ends with %u %s %u", seed, step.action, step.why, step.node);
}

static void test_every_way_ends(void **state)
{
        (void)state;
        for (unsigned seed = 1; seed <= ROUNDS; seed++)
                one_way(seed);
}

static void test_a_dead_region_is_replaced(void **state)
{
        struct seats now;
        struct seats wanted;
        struct seats_step step;
        (void)state;
        topology_make("1 1 1");
        assert_true(seats_wanted(&topology, 0, &now));
        wanted = now;
        for (size_t i = 0; i < 3; i++)
                now.items[i].there = i != 2;
        wanted.items[2].member.node = 9;
        seats_next(&now, &wanted, 1, &step);
        assert_int_equal(step.action, SEATS_REMOVE);
        assert_int_equal(step.node, 3);
        /* Were one more away, nothing of it could be decided anyway. */
        now.items[1].there = false;
        seats_next(&now, &wanted, 1, &step);
        assert_int_equal(step.action, SEATS_SET);
        assert_int_equal(step.node, 9);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_who_votes),
                cmocka_unit_test(test_too_many),
                cmocka_unit_test(test_every_way_ends),
                cmocka_unit_test(test_a_dead_region_is_replaced),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
