/* Addresses and endpoints: the forms that are taken, those that are not, and back to text. */
#include "topology/topology.h"

#include "../cmocka_all.h"

#include <stdio.h>

static const struct {
        const char *text;
        const char *back; /* NULL: refused */
        const char *why;
} endpoints[] = {
        {"127.10.0.1:7401", "127.10.0.1:7401", "the lab"},
        {"[2001:db8::1]:80", "[2001:db8::1]:80", "IPv6 in brackets"},
        {"[2001:DB8:0:0:0:0:0:1]:80", "[2001:db8::1]:80", "made canonical"},
        {"[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]:1", "mapped"},
        {"1.2.3.4:65535", "1.2.3.4:65535", "the last port"},
        {"1.2.3.4:65536", NULL, "one beyond"},
        {"1.2.3.4:99999", NULL, "five digits"},
        {"1.2.3.4:100000", NULL, "six digits"},
        {"1.2.3.4:1", "1.2.3.4:1", "the first port"},
        {"1.2.3.4:0", NULL, "no port"},
        {"1.2.3.4:080", NULL, "leading zero"},
        {"1.2.3.4:", NULL, "no digits"},
        {"1.2.3.4", NULL, "no colon"},
        {":80", NULL, "no host"},
        {"", NULL, "nothing"},
        {"2001:db8::1:80", NULL, "IPv6 without brackets"},
        {"[1.2.3.4]:80", NULL, "IPv4 in brackets"},
        {"[]:80", NULL, "empty brackets"},
        {"1.2.3:80", NULL, "three numbers"},
        {"1.2.3.256:80", NULL, "out of range"},
        {"01.2.3.4:80", NULL, "octal looks"},
        {"localhost:80", NULL, "a name"},
        {"1.2.3.4:80 ", NULL, "a blank"},
        {"1.2.3.4:+80", NULL, "a sign"},
        {"[fe80::1%lo]:80", NULL, "a scope"},
};

static void test_endpoints(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(endpoints); i++) {
                struct topology_endpoint endpoint;
                char text[TOPOLOGY_ENDPOINT_TEXT];
                bool good = topology_endpoint_parse(bytes_of_str(endpoints[i].text), &endpoint);
                if (good != (endpoints[i].back != NULL))
                        fail_msg("%s: %s", endpoints[i].text, endpoints[i].why);
                if (good)
                        assert_string_equal(topology_endpoint_text(&endpoint, text),
                                            endpoints[i].back);
        }
}

static void test_untouched(void **state)
{
        (void)state;
        struct topology_endpoint endpoint = {.port = 7};
        struct topology_address address = {.family = 9};
        assert_false(topology_endpoint_parse(BYTES("1.2.3.4:0"), &endpoint));
        assert_int_equal(endpoint.port, 7);
        assert_false(topology_address_parse(BYTES("1.2.3"), &address));
        assert_false(topology_address_parse(bytes_of("1.2.3.4\0x", 9), &address));
        assert_int_equal(address.family, 9);
}

static void test_none(void **state)
{
        (void)state;
        struct topology_endpoint endpoint = {0};
        char text[TOPOLOGY_ENDPOINT_TEXT];
        assert_string_equal(topology_endpoint_text(&endpoint, text), "none");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_endpoints),
                cmocka_unit_test(test_untouched),
                cmocka_unit_test(test_none),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
