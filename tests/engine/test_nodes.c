/* What CLUSTER NODES tells: primaries, slots, epochs; other forms and damaged ones. */
#include "engine/cluster_priv.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>

static const char whole[] =
        "aaa 127.0.0.1:7001@17001 myself,master - 0 0 3 connected 0-5460 [93-<-bbb] [95->-ccc]\n"
        "bbb 127.0.0.1:7002@17002,host-b master - 0 1700000000000 12 connected 5461-10921 16383\n"
        "ccc ::1:7003@17003 master - 0 0 2 connected 10922-16382\n"
        "ddd 127.0.0.1:7004@17004 slave aaa 0 0 3 connected\n"
        "eee 127.0.0.1:7005@17005 master,fail - 0 0 1 disconnected\n"
        "fff :0@0 master,noaddr - 0 0 0 disconnected\n"
        "ggg 127.0.0.1:7007@17007 handshake - 0 0 0 connected\n"
        "hhh 127.0.0.1:7008@17008 master - 0 0 99 connected\n";

static struct nodes nodes;
static struct topology_endpoint asked;

static bool parse(struct bytes text)
{
        return nodes_parse(text, &asked, &nodes);
}

static void test_whole(void **state)
{
        char text[TOPOLOGY_ENDPOINT_TEXT];
        (void)state;
        assert_true(parse(bytes_of_str(whole)));
        assert_int_equal(nodes.map.count, 4);
        assert_int_equal(nodes.uncovered, 0);
        assert_int_equal(nodes.epoch_max, 12);
        assert_true(nodes.items[0].myself);
        assert_false(nodes.items[1].myself);
        assert_int_equal(nodes.items[0].slots, 5461);
        assert_int_equal(nodes.items[1].slots, 5462);
        assert_int_equal(nodes.items[3].slots, 0);
        assert_int_equal(nodes.map.owner[93], 0);
        assert_int_equal(nodes.map.owner[16383], 1);
        assert_int_equal(nodes.map.owner[16382], 2);
        topology_endpoint_text(&nodes.items[2].endpoint, text);
        assert_string_equal(text, "[::1]:7003");
}

static void test_forms(void **state)
{
        static const struct {
                const char *text;
                bool good;
                unsigned count, uncovered;
                bool failed;
                const char *why;
        } rows[] = {
                {"", false, 0, 0, false, "nothing"},
                {"\n\n", false, 0, 0, false, "no nodes"},
                {"a 127.0.0.1:1@2 slave b 0 0 1 connected\n", false, 0, 0, false, "no primary"},
                {"a :7001@17001 myself,master - 0 0 0 connected 0-16383", true, 1, 0, false,
                 "no address of its own, no end of line"},
                {"a 127.0.0.1:1@2 master,fail - 0 0 0 connected 0-99\n", true, 1, 16284, true,
                 "a dead one that still has slots"},
                {"a 127.0.0.1:1@2 master,fail? - 0 0 0 connected 0-99\n", true, 1, 16284, false,
                 "one that is only suspected"},
                {"a 127.0.0.1:1@2 master - 0 0 0 connected 99-16384 20000 x -5 7- 1-x\n", true, 1,
                 16384, false, "slots out of range"},
                {"a nonsense master - 0 0 0 connected 5\n", false, 0, 0, false, "no address"},
                {"a 127.0.0.1:70000@2 master - 0 0 0 connected 5\n", false, 0, 0, false,
                 "no such port"},
        };
        (void)state;
        assert_true(topology_endpoint_parse(BYTES("127.0.0.1:7001"), &asked));
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                bool good = parse(bytes_of_str(rows[i].text));
                if (good != rows[i].good || (good && (nodes.map.count != rows[i].count ||
                                                      nodes.uncovered != rows[i].uncovered ||
                                                      nodes.items[0].failed != rows[i].failed)))
                        fail_msg("row %zu (%s): %d, %u primaries, %u uncovered", i, rows[i].why,
                                 good, nodes.map.count, nodes.uncovered);
        }
}

/* Whatever bytes come, nothing is read past their end. */
static void test_damaged(void **state)
{
        (void)state;
        for (size_t len = 0; len < sizeof whole; len++) {
                uint8_t *copy = malloc(len + 1);
                assert_non_null(copy);
                memcpy(copy, whole, len);
                (void)parse(bytes_of(copy, len));
                for (size_t bit = 0; len > 0 && bit < 8; bit++) {
                        copy[len - 1] ^= (uint8_t)(1u << bit);
                        (void)parse(bytes_of(copy, len));
                        copy[len - 1] ^= (uint8_t)(1u << bit);
                }
                free(copy);
        }
}

static void test_too_many(void **state)
{
        static char text[(SHARDS_MAX + 1) * 64];
        size_t len = 0;
        (void)state;
        for (unsigned i = 0; i <= SHARDS_MAX; i++) {
                if (i == SHARDS_MAX)
                        assert_true(parse(bytes_of(text, len)));
                len += (size_t)snprintf(text + len, sizeof text - len,
                                        "n%u 127.0.0.1:%u@1 master - 0 0 0 connected %u\n", i,
                                        i + 1, i);
        }
        assert_false(parse(bytes_of(text, len)));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whole),
                cmocka_unit_test(test_forms),
                cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_too_many),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
