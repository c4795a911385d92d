/* Which backend the edge chooses, without the server: tiers, turns, tries and marks. */
#include "edge.h"

#include "../view_make.h"

static const char document[] =
        "cluster = test; epoch = 1;\n"
        "region us { id = 1; node us-1 { id = 1; link = \"127.0.0.1:7401\" }\n"
        "  backends = [\"127.0.0.1:11\", \"127.0.0.1:12\", \"[::1]:13\"] }\n"
        "region eu { id = 2; node eu-1 { id = 2; link = \"127.0.0.2:7401\" }\n"
        "  backends = [\"127.0.0.2:21\", \"127.0.0.2:22\"] }\n"
        "region none { id = 3; node none-1 { id = 3; link = \"127.0.0.3:7401\" } }\n";

static struct edge_marks marks;
static struct edge_tried tried;
static uint32_t turn;

static int setup(void **state)
{
        (void)state;
        return view_setup(document);
}

static int teardown(void **state)
{
        (void)state;
        return view_teardown();
}

static int fresh(void **state)
{
        (void)state;
        marks.count = tried.count = turn = 0;
        view_reset();
        return 0;
}

/* The port of what is chosen at `now_ms`, 0 for none; it counts as tried. */
static unsigned choose(const struct view *view, uint64_t now_ms, enum edge_route *ret_route)
{
        struct edge_choice choice;
        bool found = edge_choose(view, &marks, now_ms, &tried, &turn, &choice);
        *ret_route = choice.route;
        if (!found)
                return 0;
        tried.backends[tried.count++] = choice.backend;
        return choice.backend.port;
}

/* All ports one after the other, as one request tries them; compared as a set a region. */
static void expect_tries(const struct view *view, const unsigned *ports, size_t count,
                         enum edge_route route)
{
        assert_int_equal(edge_count(view), count);
        enum edge_route got;
        uint64_t seen = 0;
        tried.count = 0;
        for (size_t i = 0; i < count; i++) {
                unsigned port = choose(view, 0, &got);
                assert_int_equal(port / 10, ports[i] / 10);
                assert_int_equal(seen >> port & 1, 0);
                seen |= UINT64_C(1) << port;
                if (i == 0)
                        assert_int_equal(got, route);
        }
        for (size_t i = 0; i < count; i++)
                assert_int_equal(seen >> ports[i] & 1, 1);
        assert_int_equal(choose(view, 0, &got), 0);
        assert_int_equal(got, EDGE_ROUTE_NONE);
}

static void test_tiers(void **state)
{
        (void)state;
        const struct view *view = view_made(1);
        expect_tries(view, (unsigned[]){11, 12, 13, 21, 22}, 5, EDGE_ROUTE_OWN_REGION);
        view_done(view);
        view = view_made(2);
        expect_tries(view, (unsigned[]){21, 22, 11, 12, 13}, 5, EDGE_ROUTE_OWN_REGION);
        view_done(view);
        view = view_made(3);
        expect_tries(view, (unsigned[]){11, 12, 13, 21, 22}, 5, EDGE_ROUTE_NEAREST_REGION);
        view_done(view);

        view_regions[0].backends_healthy = 2;
        view = view_made(1);
        expect_tries(view, (unsigned[]){12, 21, 22}, 3, EDGE_ROUTE_OWN_REGION);
        view_done(view);
        view_down(0);
        view = view_made(1);
        expect_tries(view, (unsigned[]){21, 22}, 2, EDGE_ROUTE_NEAREST_REGION);
        view_done(view);
        view_regions[1].backends_healthy = 0;
        view = view_made(1);
        expect_tries(view, (unsigned[]){12}, 1, EDGE_ROUTE_FAIL_OPEN);
        view_done(view);
        view_regions[0].backends_healthy = 0;
        view = view_made(1);
        expect_tries(view, (unsigned[]){21, 22, 11, 12, 13}, 5, EDGE_ROUTE_FAIL_OPEN);
        view_done(view);
        view_regions[1].state = REGION_ISOLATED;
        view = view_made(1);
        expect_tries(view, (unsigned[]){11, 12, 13}, 3, EDGE_ROUTE_FAIL_OPEN);
        view_done(view);
        view_regions[0].state = REGION_ISOLATED;
        view = view_made(1);
        expect_tries(view, NULL, 0, EDGE_ROUTE_NONE);
        view_done(view);
}

static void test_turns(void **state)
{
        (void)state;
        unsigned counts[64] = {0};
        enum edge_route route;
        turn = UINT32_MAX - 20; /* also over the end of the counter */
        const struct view *view = view_made(1);
        for (unsigned i = 0; i < 300; i++) {
                tried.count = 0;
                counts[choose(view, 0, &route)]++;
        }
        for (unsigned port = 11; port <= 13; port++)
                assert_true(counts[port] >= 98 && counts[port] <= 102);
        view_done(view);
}

static void test_full_region_goes_last(void **state)
{
        (void)state;
        enum edge_route route;
        view_regions[0].load_per_mille = ROUTING_LOAD_FULL;
        const struct view *view = view_made(1);
        assert_int_equal(choose(view, 0, &route) / 10, 2);
        view_done(view);
}

static void test_marks(void **state)
{
        (void)state;
        enum edge_route route;
        const struct view *view = view_made(1);
        const struct topology_endpoint *us = view->regions[0].backends;
        edge_mark(&marks, &us[0], 1000);
        edge_mark(&marks, &us[1], 1000);
        edge_mark(&marks, &us[1], 1000);
        assert_int_equal(marks.count, 2);
        for (unsigned i = 0; i < 10; i++) {
                tried.count = 0;
                assert_int_equal(choose(view, 1000 + EDGE_MARK_MS - 1, &route), 13);
        }
        edge_mark(&marks, &us[2], 1000);
        tried.count = 0;
        assert_int_equal(choose(view, 2000, &route) / 10, 2);
        assert_int_equal(choose(view, 2000, &route) / 10, 2);
        assert_int_equal(choose(view, 2000, &route) / 10, 1);
        edge_unmark(&marks, &us[0]);
        tried.count = 0;
        assert_int_equal(choose(view, 2000, &route), 11);
        tried.count = 0;
        turn = 1;
        assert_int_equal(choose(view, 1000 + EDGE_MARK_MS, &route), 12);

        struct topology_endpoint other = us[0];
        for (unsigned i = 0; i < 2 * EDGE_MARKS_MAX; i++) {
                other.port = (uint16_t)(1000 + i);
                edge_mark(&marks, &other, 3000);
        }
        assert_int_equal(marks.count, EDGE_MARKS_MAX);
        edge_mark(&marks, &us[0], 3000 + EDGE_MARK_MS);
        assert_int_equal(marks.count, 1);
        view_done(view);
}

static void test_text(void **state)
{
        (void)state;
        static const char *const texts[] = {"0.0.0.0:1",     "255.255.255.255:65535",
                                            "192.0.2.10:80", "100.20.3.0:9999",
                                            "[::1]:443",     "[2001:db8::1]:10"};
        static struct edge_texts kept;
        for (size_t i = 0; i < COUNT_OF(texts); i++) {
                struct topology_endpoint backend;
                char text[TOPOLOGY_ENDPOINT_TEXT];
                assert_true(topology_endpoint_parse(bytes_of_str(texts[i]), &backend));
                assert_int_equal(edge_backend_text(&backend, text), strlen(texts[i]));
                assert_string_equal(text, texts[i]);
                /* Kept ones, and others that want the same place. */
                struct topology_endpoint other = backend;
                for (unsigned round = 0; round < 4; round++) {
                        assert_int_equal(edge_texts_get(&kept, &backend, text), strlen(texts[i]));
                        assert_string_equal(text, texts[i]);
                        char wanted[TOPOLOGY_ENDPOINT_TEXT];
                        other.port = (uint16_t)(other.port + EDGE_TEXTS);
                        (void)edge_backend_text(&other, wanted);
                        assert_int_equal(edge_texts_get(&kept, &other, text), strlen(wanted));
                        assert_string_equal(text, wanted);
                }
        }
        for (enum edge_route route = EDGE_ROUTE_NONE; route < EDGE_ROUTE_COUNT; route++)
                assert_true(strlen(edge_route_name(route)) > 0);
        assert_string_equal(edge_route_name(EDGE_ROUTE_COUNT), "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_tiers, fresh),
                cmocka_unit_test_setup(test_turns, fresh),
                cmocka_unit_test_setup(test_full_region_goes_last, fresh),
                cmocka_unit_test_setup(test_marks, fresh),
                cmocka_unit_test(test_text),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
