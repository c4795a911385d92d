/* Orders of regions: known clients of the lab's geo database, every reason, fail open, ties, bias,
 * and the properties that hold for any input. */
#include "routing/routing.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct topology topology;
static struct topology_error error;
static struct routing_table table;

static const char lab[] =
        "cluster = lab; epoch = 1;\n"
        "region us-east { id = 1; latitude = 39.04; longitude = -77.49;"
        " node u { id = 1; link = 127.10.0.1:1 } }\n"
        "region eu-west { id = 2; latitude = 53.35; longitude = -6.26;"
        " node e { id = 2; link = 127.20.0.1:1 } }\n"
        "region ap-southeast { id = 3; latitude = 1.29; longitude = 103.85;"
        " node a { id = 3; link = 127.30.0.1:1 } }\n"
        "region watch { id = 4; role = witness; node w { id = 4; link = 127.40.0.1:1 } }\n";

enum {
        REGIONS = 4,
};

static struct routing_hint hints[TOPOLOGY_REGIONS_MAX];

static void setup_with(const char *text, uint8_t own, const uint32_t *rtt_us)
{
        if (!topology_parse(bytes_of_str(text), &topology, &error))
                fail_msg("%s: %s", error.where, error.what);
        routing_compile(&topology, own, rtt_us, &table);
        assert_true(routing_table_valid(&table));
        for (size_t i = 0; i < COUNT_OF(hints); i++)
                hints[i] = (struct routing_hint){.routable = true};
}

static struct routing_query query_at(double latitude, double longitude)
{
        return (struct routing_query){
                .policy = TOPOLOGY_POLICY_NEAREST,
                .place = {true, (int32_t)lrint(latitude * 1e6), (int32_t)lrint(longitude * 1e6)},
        };
}

static void test_clients(void **state)
{
        (void)state;
        static const struct {
                const char *who;
                double latitude, longitude;
                uint8_t order[3];
        } clients[] = {
                {"Milton", 47.25, -122.31, {1, 2, 3}},
                {"San Diego", 32.72, -117.16, {1, 2, 3}},
                {"London", 51.51, -0.09, {2, 1, 3}},
                {"Linkoeping", 58.42, 15.62, {2, 1, 3}},
                {"Changchun", 43.88, 125.32, {3, 2, 1}},
                {"Singapore", 1.35, 103.82, {3, 2, 1}},
                {"the antipode of us-east", -39.04, 102.51, {3, 2, 1}},
                {"the north pole", 90.0, 0.0, {2, 1, 3}},
                {"the date line", 0.0, 180.0, {3, 1, 2}},
                {"the date line again", 0.0, -180.0, {3, 1, 2}},
        };
        setup_with(lab, 2, NULL);
        for (size_t i = 0; i < COUNT_OF(clients); i++) {
                struct routing_query query = query_at(clients[i].latitude, clients[i].longitude);
                struct routing_route route;
                routing_order(&table, hints, &query, &route);
                assert_int_equal(route.count, 3);
                assert_int_equal(route.usable_count, 3);
                assert_false(route.fail_open);
                for (size_t k = 0; k < 3; k++) {
                        assert_int_equal(route.choices[k].reason, ROUTING_NEAREST_PLACE);
                        if (route.choices[k].region != clients[i].order[k])
                                fail_msg("%s: place %zu is %u", clients[i].who, k,
                                         route.choices[k].region);
                }
                assert_int_equal(routing_best(&table, hints, &query, NULL), route.choices[0].index);
        }
}

static void test_distance(void **state)
{
        (void)state;
        setup_with(lab, 1, NULL);
        /* Dublin to London is 463 km, Washington to Singapore 15,5 thousand. */
        struct routing_place london = {true, 51510000, -90000};
        struct routing_place singapore = {true, 1290000, 103850000};
        assert_in_range(routing_distance_m(&table, 1, london), 455000, 470000);
        assert_in_range(routing_distance_m(&table, 0, singapore), 15400000, 15700000);
        assert_in_range(routing_distance_m(&table, 2, singapore), 0, 1);
        assert_int_equal(routing_distance_m(&table, 3, london), UINT32_MAX);
        assert_int_equal(routing_distance_m(&table, 0, (struct routing_place){0}), UINT32_MAX);
}

static void test_unroutable(void **state)
{
        (void)state;
        setup_with(lab, 1, NULL);
        struct routing_query query = query_at(51.51, -0.09);
        struct routing_route route;
        char text[ROUTING_SENTENCE_SIZE];
        hints[1].routable = false;
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.count, 3);
        assert_int_equal(route.usable_count, 2);
        assert_int_equal(route.choices[0].region, 1);
        assert_int_equal(route.choices[2].region, 2);
        assert_int_equal(route.choices[2].reason, ROUTING_UNROUTABLE);
        assert_string_equal(routing_explain(&table, &query, &route.choices[2], text),
                            "eu-west: skipped: it is not routable now, 465 km away");
        /* The witness is no way out, even as the only one that is well. */
        hints[0].routable = hints[2].routable = false;
        routing_order(&table, hints, &query, &route);
        assert_true(route.fail_open);
        assert_int_equal(route.usable_count, 3);
        assert_int_equal(route.choices[0].region, 2);
        assert_int_equal(route.choices[0].reason, ROUTING_FAIL_OPEN);
        bool fail_open = false;
        assert_int_equal(routing_best(&table, hints, &query, &fail_open), 1);
        assert_true(fail_open);
}

static void test_full(void **state)
{
        (void)state;
        setup_with(lab, 1, NULL);
        struct routing_query query = query_at(51.51, -0.09);
        struct routing_route route;
        hints[1].load_per_mille = ROUTING_LOAD_FULL - 1;
        assert_int_equal(routing_best(&table, hints, &query, NULL), 1);
        hints[1].load_per_mille = ROUTING_LOAD_FULL;
        hints[0].routable = false;
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].region, 3);
        assert_int_equal(route.choices[1].region, 2);
        assert_int_equal(route.choices[1].reason, ROUTING_FULL);
        assert_int_equal(route.choices[2].region, 1);
        assert_int_equal(route.usable_count, 2);
}

static void test_by_rtt(void **state)
{
        (void)state;
        /* Measured from eu-west: the far one is quicker; the last has no figure. */
        static const uint32_t rtt_us[REGIONS] = {90000, 0, 80000, 0};
        setup_with(lab, 2, rtt_us);
        struct routing_query query = {.policy = TOPOLOGY_POLICY_NEAREST, .by_rtt = true};
        struct routing_route route;
        char text[ROUTING_SENTENCE_SIZE];
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].region, 2);
        assert_int_equal(route.choices[0].reason, ROUTING_OWN);
        assert_int_equal(route.choices[1].region, 3);
        assert_int_equal(route.choices[1].reason, ROUTING_NEAREST_RTT);
        assert_int_equal(route.choices[2].region, 1);
        assert_string_equal(routing_explain(&table, &query, &route.choices[1], text),
                            "ap-southeast: by measured round-trip time from this region, "
                            "80.0 ms round trip");
        assert_string_equal(routing_explain(&table, &query, &route.choices[0], text),
                            "eu-west: this region itself");
        /* A place does not matter when the edge asks. */
        query.place = (struct routing_place){true, 1290000, 103850000};
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].region, 2);
}

static void test_unknown_client(void **state)
{
        (void)state;
        static const uint32_t rtt_us[REGIONS] = {0, 0, 80000, 0};
        struct routing_query query = {.policy = TOPOLOGY_POLICY_NEAREST};
        struct routing_route route;
        setup_with(lab, 2, rtt_us);
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].reason, ROUTING_OWN);
        assert_int_equal(route.choices[1].region, 3); /* measured before guessed */
        assert_int_equal(route.choices[2].reason, ROUTING_OWN_PLACE);
        setup_with(lab, 0, NULL); /* nobody's own: by id */
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].region, 1);
        assert_int_equal(route.choices[0].reason, ROUTING_UNPLACED);
}

static void test_unplaced_region(void **state)
{
        (void)state;
        static const char text[] = "cluster = c; epoch = 1;"
                                   "region a { id = 1; node a { id = 1; link = 1.0.0.1:1 } }"
                                   "region b { id = 2; latitude = -33; longitude = 151;"
                                   " node b { id = 2; link = 1.0.0.2:1 } }"
                                   "region c { id = 3; node c { id = 3; link = 1.0.0.3:1 } }";
        static const uint32_t rtt_us[3] = {0, 0, 1000};
        struct routing_query query = query_at(60, 10);
        struct routing_route route;
        setup_with(text, 2, rtt_us);
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].region, 2);
        assert_int_equal(route.choices[1].region, 3);
        assert_int_equal(route.choices[1].reason, ROUTING_NEAREST_RTT);
        assert_int_equal(route.choices[2].region, 1);
        assert_int_equal(route.choices[2].reason, ROUTING_UNPLACED);
}

static void test_policies(void **state)
{
        (void)state;
        static const uint8_t order[] = {3, 4, 9, 1};
        setup_with(lab, 2, NULL);
        struct routing_query query = {
                .policy = TOPOLOGY_POLICY_FAILOVER, .order = order, .order_count = 4};
        struct routing_route route;
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.count, 2); /* neither the witness nor the unknown region */
        assert_int_equal(route.choices[0].region, 3);
        assert_int_equal(route.choices[0].reason, ROUTING_NAMED);
        hints[2].routable = false;
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.choices[0].region, 1);
        assert_int_equal(route.usable_count, 1);
        hints[0].routable = false;
        routing_order(&table, hints, &query, &route);
        assert_true(route.fail_open);
        assert_int_equal(route.choices[0].region, 3);

        query.policy = TOPOLOGY_POLICY_REGION;
        query.order_count = 1;
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.count, 1);
        assert_int_equal(route.usable_count, 1);
        assert_true(route.fail_open);

        query.order_count = 0;
        routing_order(&table, hints, &query, &route);
        assert_int_equal(route.count, 0);
        assert_false(route.fail_open);
        assert_int_equal(routing_best(&table, hints, &query, NULL), -1);
}

static void test_bias(void **state)
{
        (void)state;
        static char text[sizeof lab + 64];
        struct routing_query query = query_at(48.0, -40.0); /* mid-Atlantic, nearer to Dublin */
        setup_with(lab, 1, NULL);
        assert_int_equal(routing_best(&table, hints, &query, NULL), 1);
        (void)snprintf(text, sizeof text, "%s", lab);
        char *at = strstr(text, "id = 1;");
        assert_non_null(at);
        memmove(at + 11, at, strlen(at) + 1);
        memcpy(at, "bias = 50; ", 11);
        setup_with(text, 1, NULL);
        assert_int_equal(routing_best(&table, hints, &query, NULL), 0);
        memcpy(at, "bias = -9; ", 11);
        setup_with(text, 1, NULL);
        assert_int_equal(routing_best(&table, hints, &query, NULL), 1);
}

static void test_ties(void **state)
{
        (void)state;
        /* Two regions in one place, the larger id first in the document. */
        static const char text[] = "cluster = c; epoch = 1;"
                                   "region b { id = 2; latitude = 10; longitude = 20;"
                                   " node b { id = 2; link = 1.0.0.2:1 } }"
                                   "region a { id = 1; latitude = 10; longitude = 20;"
                                   " node a { id = 1; link = 1.0.0.1:1 } }";
        setup_with(text, 0, NULL);
        for (int longitude = -180; longitude <= 180; longitude += 7) {
                struct routing_query query = query_at(33.3, longitude);
                assert_int_equal(routing_best(&table, hints, &query, NULL), 1);
        }
}

static double exact_angle(const struct topology_region *region, struct routing_place place)
{
        double to_radian = 3.14159265358979323846 / 180e6;
        double latitude = region->latitude_udeg * to_radian;
        double other = place.latitude_udeg * to_radian;
        double delta = (region->longitude_udeg - place.longitude_udeg) * to_radian;
        double half_latitude = sin((latitude - other) / 2);
        double half_longitude = sin(delta / 2);
        return 2 * asin(sqrt(half_latitude * half_latitude +
                             cos(latitude) * cos(other) * half_longitude * half_longitude));
}

/* For any regions, hints and client: a permutation of the data regions; usable ones first; within a
 * tier by distance as the haversine formula says; best agrees with order. */
static void test_properties(void **state)
{
        (void)state;
        struct rng rng;
        uint64_t seed = 7;
        rng_init(&rng, seed, 1);
        setup_with(lab, 1, NULL);
        for (int round = 0; round < 3000; round++) {
                topology.region_count = (uint32_t)rng_between(&rng, 1, TOPOLOGY_REGIONS_MAX);
                size_t data_count = 0;
                for (uint32_t i = 0; i < topology.region_count; i++) {
                        struct topology_region *region = &topology.regions[i];
                        *region = (struct topology_region){
                                .name = "r", .id = (uint8_t)(i + 1), .place_known = true};
                        region->role =
                                rng_chance(&rng, 100) ? TOPOLOGY_ROLE_WITNESS : TOPOLOGY_ROLE_DATA;
                        data_count += region->role == TOPOLOGY_ROLE_DATA ? 1 : 0;
                        region->latitude_udeg = (int32_t)rng_below(&rng, 180000001) - 90000000;
                        region->longitude_udeg = (int32_t)rng_below(&rng, 360000001) - 180000000;
                        hints[i].routable = rng_chance(&rng, 600);
                        hints[i].load_per_mille = (uint16_t)rng_below(&rng, 1300);
                }
                routing_compile(&topology, 1, NULL, &table);
                struct routing_query query = {
                        .place = {true, (int32_t)rng_below(&rng, 180000001) - 90000000,
                                  (int32_t)rng_below(&rng, 360000001) - 180000000}};
                struct routing_route route;
                routing_order(&table, hints, &query, &route);
                assert_int_equal(route.count, data_count);
                uint64_t seen = 0;
                for (size_t i = 0; i < route.count; i++) {
                        const struct routing_choice *choice = &route.choices[i];
                        assert_int_equal(seen & (1ull << choice->index), 0);
                        seen |= 1ull << choice->index;
                        if (!route.fail_open)
                                assert_int_equal(hints[choice->index].routable,
                                                 i < route.usable_count);
                        if (i == 0 || choice->reason != route.choices[i - 1].reason)
                                continue;
                        double before = exact_angle(&topology.regions[route.choices[i - 1].index],
                                                    query.place);
                        double here = exact_angle(&topology.regions[choice->index], query.place);
                        if (before > here + 1e-6)
                                fail_msg("seed %llu round %d", (unsigned long long)seed, round);
                }
                int best = routing_best(&table, hints, &query, NULL);
                assert_int_equal(best, route.count > 0 ? route.choices[0].index : -1);
        }
}

static void test_table_valid(void **state)
{
        (void)state;
        setup_with(lab, 1, NULL);
        struct routing_table bad = table;
        bad.count = TOPOLOGY_REGIONS_MAX + 1;
        assert_false(routing_table_valid(&bad));
        bad = table;
        bad.entries[1].x = (double)NAN;
        assert_false(routing_table_valid(&bad));
        bad = table;
        bad.entries[1].stretch = 0;
        assert_false(routing_table_valid(&bad));
        bad = table;
        bad.entries[2].id = 0;
        assert_false(routing_table_valid(&bad));
        bad = table;
        memset(bad.entries[0].name, 'x', sizeof bad.entries[0].name);
        assert_false(routing_table_valid(&bad));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_clients),
                cmocka_unit_test(test_distance),
                cmocka_unit_test(test_unroutable),
                cmocka_unit_test(test_full),
                cmocka_unit_test(test_by_rtt),
                cmocka_unit_test(test_unknown_client),
                cmocka_unit_test(test_unplaced_region),
                cmocka_unit_test(test_policies),
                cmocka_unit_test(test_bias),
                cmocka_unit_test(test_ties),
                cmocka_unit_test(test_properties),
                cmocka_unit_test(test_table_valid),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
