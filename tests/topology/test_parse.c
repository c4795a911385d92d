/* The document: what is read, every rule that refuses one (with its line and place), damage of any
 * kind, and the round trip through the canonical text. */
#include "topology/topology_priv.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>

static struct topology topology, other;
static struct topology_error error;

#define NODE(id, address)   "node n" #id " { id = " #id "; link = \"" address ":7401\" }"
#define REGION(id, address) "region r" #id " { id = " #id "; " NODE(id, address) " }\n"
#define HEAD                "cluster = lab; epoch = 1;\n"

static const char *example_path;

static const char lab[] =
        "# the lab\n"
        "cluster = lab; epoch = 1;\n"
        "region us-east { id = 1; latitude = 39.04; longitude = -77.49; capacity = 100;\n"
        "  a = [\"127.10.0.1\"];\n"
        "  node us-east-1 { id = 1; link = \"127.10.0.1:7401\"; admin = \"127.10.0.1:7400\";\n"
        "    locks = \"127.10.0.1:7402\"; }\n"
        "  backends = [\"127.10.0.1:9000\", \"127.10.0.1:9001\"]; }\n"
        "region eu-west { id: 2, latitude: 53.35, longitude: -6.26\n"
        "  country = IE; continent = EU; bias = -5\n"
        "  a = 127.20.0.1\n  aaaa = [ \"2001:db8::20\" ]\n"
        "  node eu-west-1 { id = 2; link = 127.20.0.1:7401 } }\n"
        "region watch { id = 3; role = witness; node watch-1 { id = 7; link = "
        "\"127.30.0.1:7401\" } }\n"
        "postgres { nodes = [eu-west-1, us-east-1]; never = [us-east-1]; automatic = off;\n"
        "  sync = 1; lease = 2s; margin = 500ms; renew = 250ms }\n"
        "zone Example.Test. { name www { policy = nearest; } name api-us { region = us-east; }\n"
        "  name ha { order = [eu-west, us-east]; ttl = 5s } ttl = 45; soa { refresh = 2h } }\n"
        "timing { heartbeat = 100ms; down_after = 0.8s /* quick */ }\n"
        "data \"cart:\" { conflict = merge; function = cart }\n"
        "data session: { conflict = last-write }\n"
        "data \"session:old { } \" { conflict = siblings }\n"
        "data \"\" { conflict = typed }\n"
        "function cart { text = \"\"\"\nlocal s = ...\n-- \"it's\" { so\nreturn s[1].value\n\"\"\" "
        "}\n";

static void must_parse(const char *text, struct topology *ret)
{
        char sentence[512];
        if (!topology_parse(bytes_of_str(text), ret, &error))
                fail_msg("%s", topology_error_text(&error, sentence, sizeof sentence));
}

static void test_lab(void **state)
{
        (void)state;
        must_parse(lab, &topology);
        assert_string_equal(topology.cluster, "lab");
        assert_int_equal(topology.epoch, 1);
        assert_int_equal(topology.region_count, 3);
        const struct topology_region *us = topology_region_by_name(&topology, BYTES("us-east"));
        assert_non_null(us);
        assert_true(us->place_known);
        assert_int_equal(us->latitude_udeg, 39040000);
        assert_int_equal(us->longitude_udeg, -77490000);
        assert_int_equal(us->backend_count, 2);
        assert_int_equal(us->backends[1].port, 9001);
        const struct topology_region *eu = topology_region_by_id(&topology, 2);
        assert_string_equal(eu->country, "IE");
        assert_int_equal(eu->bias, -5);
        assert_int_equal(eu->capacity, 100);
        assert_int_equal(eu->a[0].bytes[1], 20);
        assert_int_equal(eu->aaaa[0].family, 6);
        assert_int_equal(topology.regions[2].role, TOPOLOGY_ROLE_WITNESS);
        assert_false(topology.regions[2].place_known);
        assert_ptr_equal(topology_region_of_node(&topology, 7), &topology.regions[2]);
        assert_ptr_equal(topology_node_by_name(&topology, BYTES("eu-west-1")), &eu->nodes[0]);
        assert_int_equal(topology_region_index(&topology, eu), 1);
        assert_int_equal(topology_majority(&topology), 2);
        assert_int_equal(topology.timing.heartbeat_ms, 100);
        assert_int_equal(topology.timing.down_after_ms, 800);
        assert_int_equal(topology.timing.suspect_after_ms, 500);
        assert_int_equal(topology.zones[0].ttl_s, 45);
        assert_int_equal(topology.zones[0].refresh_s, 7200);
        assert_int_equal(topology.zones[0].retry_s, 600);
        assert_string_equal(topology.zones[0].mname, "ns.example.test");
}

static void test_data(void **state)
{
        (void)state;
        must_parse(lab, &topology);
        assert_int_equal(topology.data_count, 4);
        assert_string_equal(topology.data[0].prefix, "cart:");
        assert_int_equal(topology.data[0].conflict, TOPOLOGY_CONFLICT_MERGE);
        assert_string_equal(topology.data[0].function, "cart");
        assert_int_equal(topology.data[1].conflict, TOPOLOGY_CONFLICT_LAST_WRITE);
        assert_string_equal(topology.data[2].prefix, "session:old { } ");
        assert_int_equal(topology.data[2].conflict, TOPOLOGY_CONFLICT_SIBLINGS);
        assert_int_equal(topology.data[3].conflict, TOPOLOGY_CONFLICT_TYPED);
        assert_int_equal(topology.function_count, 1);
        const struct topology_function *function = topology_function_of(&topology, BYTES("cart"));
        assert_non_null(function);
        assert_string_equal(function->text,
                            "\nlocal s = ...\n-- \"it's\" { so\nreturn s[1].value\n");
        assert_null(topology_function_of(&topology, BYTES("car")));
}

static void test_postgres(void **state)
{
        (void)state;
        must_parse(lab, &topology);
        const struct topology_postgres *postgres = &topology.postgres;
        assert_int_equal(postgres->node_count, 2);
        assert_int_equal(postgres->nodes[0], 2);
        assert_int_equal(postgres->nodes[1], 1);
        assert_int_equal(postgres->never_count, 1);
        assert_int_equal(postgres->never[0], 1);
        assert_int_equal(postgres->first, 2);
        assert_false(postgres->automatic);
        assert_int_equal(postgres->sync, 1);
        assert_int_equal(postgres->lease_ms, 2000);
        must_parse(HEAD REGION(1, "1.0.0.1") "postgres { nodes = [n1]; margin = 300ms }",
                   &topology);
        assert_true(postgres->automatic);
        assert_int_equal(postgres->lease_ms, 3000);
        assert_int_equal(postgres->renew_ms, 500);
        assert_int_equal(postgres->first, 1);
        assert_int_equal(postgres->loss_max, 16 << 20);
        assert_int_equal(postgres->rpo_ms, 0);
        assert_int_equal(postgres->rpo_bytes, 0);
        assert_false(postgres->rpo_hold);
        must_parse(HEAD REGION(1, "1.0.0.1")
                           REGION(2, "1.0.0.2") "postgres { nodes = [n1, n2]; rpo = 5s; rpo_bytes "
                                                "= 4096; rpo_hold = on }",
                   &topology);
        assert_int_equal(postgres->rpo_ms, 5000);
        assert_int_equal(postgres->rpo_bytes, 4096);
        assert_true(postgres->rpo_hold);
}

static void test_postgres_diff(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer lines;
        heap_init(&heap, 0);
        buffer_init(&lines, &heap);
        must_parse(lab, &topology);
        other = topology;
        other.postgres.automatic = true;
        other.postgres.never_count = 0;
        other.postgres.nodes[0] = 1;
        other.postgres.nodes[1] = 2;
        assert_int_equal(topology_diff(&topology, &other, &lines), 3);
        memset(&other.postgres, 0, sizeof other.postgres);
        assert_int_equal(topology_diff(&topology, &other, &lines), 1);
        assert_int_equal(topology_diff(&other, &topology, &lines), 1);
        buffer_u8(&lines, 0);
        assert_string_equal((const char *)lines.ptr,
                            "~ postgres: nodes [eu-west-1, us-east-1] -> [us-east-1, eu-west-1]\n"
                            "~ postgres: never [us-east-1] -> none\n"
                            "~ postgres: automatic off -> on\n"
                            "- postgres cluster\n"
                            "+ postgres cluster\n");
        buffer_fini(&lines);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_data_diff(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer lines;
        heap_init(&heap, 0);
        buffer_init(&lines, &heap);
        must_parse(lab, &topology);
        other = topology;
        other.data[0].conflict = TOPOLOGY_CONFLICT_SIBLINGS;
        memset(other.data[0].function, 0, sizeof other.data[0].function);
        (void)snprintf(other.data[1].prefix, sizeof other.data[1].prefix, "token:");
        other.functions[0].text[0] = ' ';
        assert_int_equal(topology_diff(&topology, &other, &lines), 5);
        buffer_u8(&lines, 0);
        assert_string_equal((const char *)lines.ptr, "~ data cart:: conflict merge -> siblings\n"
                                                     "~ data cart:: function cart -> none\n"
                                                     "- data session:\n"
                                                     "+ data token: (last-write)\n"
                                                     "~ function cart: another text\n");
        buffer_fini(&lines);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_names(void **state)
{
        (void)state;
        must_parse(lab, &topology);
        const struct topology_name *name = topology_name_of(&topology, BYTES("WWW.example.TEST."));
        assert_non_null(name);
        assert_int_equal(name->policy, TOPOLOGY_POLICY_NEAREST);
        assert_int_equal(name->ttl_s, 45);
        name = topology_name_of(&topology, BYTES("api-us.example.test"));
        assert_int_equal(name->policy, TOPOLOGY_POLICY_REGION);
        assert_int_equal(name->order[0], 1);
        name = topology_name_of(&topology, BYTES("ha.example.test"));
        assert_int_equal(name->policy, TOPOLOGY_POLICY_FAILOVER);
        assert_int_equal(name->order_count, 2);
        assert_int_equal(name->order[0], 2);
        assert_int_equal(name->order[1], 1);
        assert_int_equal(name->ttl_s, 5);
        assert_null(topology_name_of(&topology, BYTES("example.test")));
        assert_null(topology_name_of(&topology, BYTES("x.www.example.test")));
        assert_null(topology_name_of(&topology, BYTES("wwwexample.test")));
        assert_null(topology_zone_of(&topology, BYTES("badexample.test")));
        assert_null(topology_zone_of(&topology, BYTES("")));
        assert_non_null(topology_zone_of(&topology, BYTES("example.test")));
}

/* Each row breaks one rule; the message must name the line, the place and the matter. */
static const struct {
        const char *text;
        uint32_t line;
        const char *where;
        const char *what;
} broken[] = {
        {"", 1, "", "'cluster' is missing"},
        {"cluster = lab", 1, "", "'epoch' is missing"},
        {HEAD, 1, "", "no region"},
        {HEAD "regions = 1", 2, "regions", "not known here"},
        {HEAD "region r1 { idd = 1 }", 2, "region r1, idd", "not known here"},
        {HEAD "foo { }", 2, "foo", "not known here"},
        {HEAD "node n1 { id = 1 }", 2, "node", "not known here"},
        {"cluster = Lab; epoch = 1", 1, "cluster", "not a name"},
        {"cluster = abcdefghijklmnopqrstuvwxyz-12345; epoch = 1", 1, "cluster", "not a name"},
        {"cluster = lab; cluster = lab", 1, "cluster", "twice"},
        {"cluster = lab; epoch = 0", 1, "epoch", "out of range"},
        {"cluster = lab; epoch = -1", 1, "epoch", "out of range"},
        {"cluster = lab; epoch = 99999999999999999999", 1, "epoch", "not a number"},
        {"cluster = lab; epoch = 1.5", 1, "epoch", "not a number"},
        {"cluster = lab; epoch = 1x", 1, "epoch", "not a number"},
        {"cluster = lab; epoch = \"\"", 1, "epoch", "not a number"},
        {"cluster = lab epoch = 1", 1, "cluster", "';' or a new line"},
        {"cluster = [lab]", 1, "cluster", "a value"},
        {"cluster = ", 1, "cluster", "missing at the end"},
        {"cluster", 1, "cluster", "missing at the end"},
        {"cluster = \"lab", 1, "cluster", "no end"},
        {"/* cluster", 1, "", "comment has no end"},
        {"cluster = \"l\\ab\"", 1, "cluster", "byte"},
        {"cluster = l\x01"
         "ab",
         1, "", "not printable"},
        {"= 3", 1, "", "a key"},
        {"{ }", 1, "", "a key"},
        {"}", 1, "", "closes nothing"},
        {HEAD REGION(1, "1.0.0.1") "}", 3, "", "closes nothing"},
        {HEAD "region r1 {", 2, "region r1", "no end"},
        {HEAD "region { }", 2, "region", "a name"},
        {HEAD "region r1 ; ", 2, "region", "{"},
        {HEAD "region R1 { }", 2, "region", "not a name"},
        {HEAD "region r_1 { }", 2, "region", "not a name"},
        {HEAD REGION(1, "1.0.0.1") REGION(1, "1.0.0.1"), 3, "region", "twice"},
        {HEAD REGION(1, "1.0.0.1") "region x { id = 1; " NODE(2, "1.0.0.2") "}", 3, "region x",
         "id 1 is that of region r1"},
        {HEAD "region r1 { id = 65; }", 2, "region r1, id", "out of range: 1 to 64"},
        {HEAD "region r1 { id = 0; }", 2, "region r1, id", "out of range"},
        {HEAD "region r1 { " NODE(1, "1.0.0.1") " }", 2, "region r1", "'id' is missing"},
        {HEAD "region r1 { id = 1 }", 2, "region r1", "no node"},
        {HEAD "region r1 { id = 1\n latitude = 90.000001 }", 3, "region r1, latitude",
         "out of range: -90 to 90"},
        {HEAD "region r1 { id = 1\n latitude = -91 }", 3, "latitude", "out of range"},
        {HEAD "region r1 { id = 1\n longitude = 180.5 }", 3, "longitude", "out of range"},
        {HEAD "region r1 { id = 1\n longitude = 1.2345678 }", 3, "longitude", "not a number"},
        {HEAD "region r1 { id = 1\n longitude = 1. }", 3, "longitude", "not a number"},
        {HEAD "region r1 { id = 1\n longitude = .5 }", 3, "longitude", "not a number"},
        {HEAD "region r1 { id = 1\n longitude = nan }", 3, "longitude", "not a number"},
        {HEAD "region r1 { id = 1; latitude = 1; " NODE(1, "1.0.0.1") "}", 2, "region r1",
         "belong together"},
        {HEAD "region r1 { capacity = 0 }", 2, "capacity", "out of range"},
        {HEAD "region r1 { bias = 91 }", 2, "bias", "out of range"},
        {HEAD "region r1 { role = leader }", 2, "role", "not a role"},
        {HEAD "region r1 { country = usa }", 2, "country", "two letters"},
        {HEAD "region r1 { id = 1; continent = XX; " NODE(1, "1.0.0.1") "}", 2, "region r1",
         "continent"},
        {HEAD "region r1 { a = [\"1.2.3\"] }", 2, "region r1, a", "not an IPv4 address"},
        {HEAD "region r1 { a = [\"2001:db8::1\"] }", 2, "a", "not an IPv4 address"},
        {HEAD "region r1 { aaaa = [\"1.2.3.4\"] }", 2, "aaaa", "not an IPv6 address"},
        {HEAD "region r1 { a = [\"0.0.0.0\"] }", 2, "a", "not an IPv4 address of a server"},
        {HEAD "region r1 { a = [\"224.0.0.1\"] }", 2, "a", "not an IPv4 address of a server"},
        {HEAD "region r1 { aaaa = [\"ff02::1\"] }", 2, "aaaa", "of a server"},
        {HEAD "region r1 { aaaa = [\"::\"] }", 2, "aaaa", "of a server"},
        {HEAD "region r1 { a = [\"1.2.3.4\", \"1.2.3.4\"] }", 2, "a", "twice"},
        {HEAD "region r1 { a = [1.0.0.1,1.0.0.2,1.0.0.3,1.0.0.4,1.0.0.5,1.0.0.6,1.0.0.7,1.0.0.8,"
              "1.0.0.9] }",
         2, "a", "more than 8"},
        {HEAD "region r1 { a = [\"1.2.3.4\" }", 2, "a", "a comma or ]"},
        {HEAD "region r1 { a = [\"1.2.3.4\"; ] }", 2, "a", "a comma or ]"},
        {HEAD "region r1 { backends = [\"1.2.3.4\"] }", 2, "backends", "with a port"},
        {HEAD "region r1 { backends = [\"1.2.3.4:1\", \"1.2.3.4:1\"] }", 2, "backends", "twice"},
        {HEAD "region r1 { id = 1; role = witness; a = 1.2.3.4; " NODE(1, "1.0.0.1") " }", 2,
         "region r1", "witness serves nobody"},
        {HEAD "region r1 { node n1 { id = 1 } }", 2, "region r1, node n1", "'link' is missing"},
        {HEAD "region r1 { node n1 { link = host:1 } }", 2, "node n1, link", "with a port"},
        {HEAD "region r1 { node n1 { id = 4294967296 } }", 2, "node n1, id", "out of range"},
        {HEAD "region r1 { id = 1; " NODE(1, "1.0.0.1") NODE(1, "1.0.0.2") " }", 2, "node",
         "twice"},
        {HEAD REGION(1, "1.0.0.1") "region r2 { id = 2; node x { id = 1; link = 1.0.0.2:1 } }", 3,
         "region r2, node x", "id 1 is that of node n1"},
        {HEAD REGION(1, "1.0.0.1") REGION(2, "1.0.0.1"), 0, "", "1.0.0.1:7401 of node n2 is taken"},
        {HEAD "region r1 { id = 1; node x { id = 1; link = 1.0.0.1:1; admin = 1.0.0.1:1 } }", 0, "",
         "taken by node x"},
        {HEAD "region r1 { id = 1; role = witness; " NODE(1, "1.0.0.1") " }", 1, "",
         "all regions are witnesses"},
        {HEAD REGION(1, "1.0.0.1") "zone -..x { }", 3, "zone", "not a domain name"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { }\nzone X.Y { }", 4, "zone", "twice"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { ttl = 100d }", 3, "zone x.y, ttl", "out of range"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { ttl = 1500ms }", 3, "ttl", "not a duration"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { ttl = 5w }", 3, "ttl", "not a duration"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { ttl = 99999999999999d }", 3, "ttl",
         "not a duration"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { soa { }\n soa { } }", 4, "soa", "twice"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { } }", 3, "name w", "no policy"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { policy = best } }", 3, "policy",
         "not a policy"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { region = r9 } }", 3, "", "no region 'r9'"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { order = [r1, r1] } }", 3, "order", "twice"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { order = [] } }", 3, "name w", "do not fit"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { policy = nearest; region = r1 } }", 3,
         "name w", "do not fit"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { policy = region } }", 3, "name w",
         "do not fit"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { region = r1; order = [r2] } }", 3, "name w",
         "exclude"},
        {HEAD REGION(1, "1.0.0.1") "zone x.y { name w { region = r1 }\n name W { region = r1 } }",
         4, "name", "twice"},
        {HEAD REGION(1, "1.0.0.1") "region r2 { id = 2; role = witness; node n2 { id = 2; link = "
                                   "1.0.0.2:1 } }\n"
                                   "zone x.y { name w { region = r2 } }",
         4, "", "is a witness"},
        {HEAD "timing { heartbeat = 400ms }", 2, "timing", "two heartbeats"},
        {HEAD "timing { heartbeat = 200 }", 2, "timing, heartbeat", "out of range: 20 to 10000 ms"},
        {HEAD "timing { down_after = 500ms }", 2, "timing", "not larger than suspect_after"},
        {HEAD "timing { election = 500ms }", 2, "timing", "three election_heartbeats"},
        {HEAD "timing { }\ntiming { }", 3, "timing", "twice"},
        {HEAD "data { }", 2, "data", "a name"},
        {HEAD "data x { }", 2, "data x", "'conflict' is missing"},
        {HEAD "data x {\n conflict = best }", 3, "data x, conflict", "not a conflict policy"},
        {HEAD "data x { conflict = typed; publish = yes }", 2, "data x, publish", "neither on nor"},
        {HEAD "data x { conflict = typed }\ndata x { }", 3, "data", "twice"},
        {HEAD "data 'a\"b' { }", 2, "data", "not a prefix"},
        {HEAD "data "
              "1234567890123456789012345678901234567890123456789012345678901234 { }",
         2, "data", "not a prefix"},
        {HEAD "data x { conflict = merge }", 2, "data x", "has no function"},
        {HEAD "data x { conflict = typed; function = f }", 2, "data x", "policy is not merge"},
        {HEAD "data x { conflict = merge; function = F }", 2, "data x, function", "not a name"},
        {HEAD REGION(1, "1.0.0.1") "data x { conflict = merge;\n function = f }", 4, "",
         "no function 'f'"},
        {HEAD "function f { }", 2, "function f", "'text' is missing"},
        {HEAD "function f { text = \"\" }", 2, "function f, text", "no text"},
        {HEAD "function f { text = \"\"\"return }", 2, "function f, text", "no end"},
        {HEAD "postgres { }", 2, "postgres", "'nodes' is missing"},
        {HEAD "postgres { nodes = [] }", 2, "postgres", "has no node"},
        {HEAD "postgres { nodes = [a]; nodes = [b] }", 2, "postgres, nodes", "twice"},
        {HEAD "postgres { nodes = [a, a] }", 2, "postgres, nodes", "a is given twice"},
        {HEAD "postgres { nodes = [a] }\npostgres { nodes = [a] }", 3, "postgres", "twice"},
        {HEAD "postgres { nodes = [a]; never = [a] }", 2, "postgres", "no node is left"},
        {HEAD "postgres { nodes = [a, b]; sync = 2 }", 2, "postgres", "than there are"},
        {HEAD "postgres { nodes = [a]; rpo_hold = on }", 2, "postgres", "no limit beyond"},
        {HEAD "postgres { nodes = [a]; rpo = 999ms }", 2, "postgres", "not known that exactly"},
        {HEAD "postgres { nodes = [a]; rpo = 25h }", 2, "postgres, rpo", ""},
        {HEAD REGION(1, "1.0.0.1") "postgres { nodes = [n1]; rpo = 5s; rpo_hold = on }", 3, "",
         "wait for another server"},
        {HEAD REGION(1, "1.0.0.1")
                 REGION(2, "1.0.0.2") "postgres { nodes = [n1, n2]; never = [n2]; rpo = 5s;"
                                      " rpo_hold = on }",
         4, "", "wait for another server"},
        {HEAD "postgres { nodes = [a]; automatic = yes }", 2, "postgres, automatic", "neither on"},
        {HEAD "postgres { nodes = [a]; lease = 2s }", 2, "postgres", "two renewals"},
        {HEAD "postgres { nodes = [a]; margin = 299ms }", 2, "postgres", "margin is too small"},
        {HEAD REGION(1, "1.0.0.1") "postgres { nodes = [n1,\n a] }", 4, "", "no node 'a'"},
        {HEAD REGION(1, "1.0.0.1") REGION(2, "1.0.0.2") "postgres { nodes = [n1];\n first = n2 }",
         5, "", "none of the cluster's"},
        {HEAD REGION(1, "1.0.0.1")
                 REGION(2, "1.0.0.2") "postgres { nodes = [n1, n2]; first = n2;\n never = [n2] }",
         4, "", "never to be primary"},
        {HEAD REGION(1, "1.0.0.1") "postgres { nodes = [w] }\n"
                                   "region w { id = 2; role = witness; node w { id = 2; link = "
                                   "\"1.0.0.2:1\" } }",
         3, "", "belongs to a witness"},
        {HEAD "function F { }", 2, "function", "not a name"},
        {HEAD "function f { text = x }\nfunction f { }", 3, "function", "twice"},
};

static void test_broken(void **state)
{
        (void)state;
        static const struct topology zero;
        for (size_t i = 0; i < COUNT_OF(broken); i++) {
                char sentence[512];
                if (topology_parse(bytes_of_str(broken[i].text), &topology, &error))
                        fail_msg("accepted: %s", broken[i].text);
                topology_error_text(&error, sentence, sizeof sentence);
                if (strstr(error.what, broken[i].what) == NULL ||
                    strstr(error.where, broken[i].where) == NULL ||
                    (broken[i].line != 0 && error.line != broken[i].line) || error.todo[0] == 0)
                        fail_msg("row %zu: \"%s\" for:\n%s", i, sentence, broken[i].text);
                assert_memory_equal(&topology, &zero, sizeof zero);
        }
}

static void test_round_trip(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer first, second;
        heap_init(&heap, 0);
        buffer_init(&first, &heap);
        buffer_init(&second, &heap);
        must_parse(lab, &topology);
        topology_write(&topology, &first);
        if (!topology_parse(buffer_view(&first), &other, &error))
                fail_msg("%s %s:\n%.*s", error.where, error.what, BYTES_ARGS(buffer_view(&first)));
        assert_memory_equal(&topology, &other, sizeof topology);
        topology_write(&other, &second);
        assert_true(bytes_equal(buffer_view(&first), buffer_view(&second)));
        assert_int_equal(topology_diff(&topology, &other, &second), 0);
        buffer_fini(&first);
        buffer_fini(&second);
        assert_int_equal(heap.used_bytes, 0);
}

/* The example in docs/ (its path is the first argument) is one, and shows every key. */
static void test_example(void **state)
{
        (void)state;
        static char text[65536];
        if (example_path == NULL)
                skip();
        FILE *file = fopen(example_path, "rb");
        assert_non_null(file);
        size_t len = fread(text, 1, sizeof text - 1, file);
        (void)fclose(file);
        text[len] = 0;
        must_parse(text, &topology);
        must_parse(
                "cluster = c; epoch = 1; region r { id = 1; node n { id = 1; link = 1.0.0.1:1 } }",
                &other);
        assert_memory_equal(&topology.timing, &other.timing, sizeof other.timing);
        for (size_t s = 0; s < SECTION_COUNT; s++) {
                for (size_t i = 0; i < section_rows[s].field_count; i++) {
                        char key[64];
                        (void)snprintf(key, sizeof key, " %s =", section_rows[s].fields[i].key);
                        if (strstr(text, key) == NULL && strstr(text, key + 1) == NULL)
                                fail_msg("%s shows no '%s'", example_path,
                                         section_rows[s].fields[i].key);
                }
        }
}

/* Every prefix of a good document is refused or is itself a good one; never read beyond its end. */
static void test_truncated(void **state)
{
        (void)state;
        size_t accepted = 0;
        for (size_t len = 0; len < sizeof lab - 1; len++) {
                uint8_t *copy = malloc(len + 1);
                assert_non_null(copy);
                memcpy(copy, lab, len);
                accepted += topology_parse(bytes_of(copy, len), &other, &error) ? 1 : 0;
                free(copy);
        }
        assert_in_range(accepted, 1, 40);
}

/* Damaged documents: refused with a complete error, or accepted and then stable in a round trip. */
static void test_damaged(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct rng rng;
        uint64_t seed = 20260101;
        static uint8_t copy[sizeof lab];
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        rng_init(&rng, seed, 1);
        for (int round = 0; round < 20000; round++) {
                memcpy(copy, lab, sizeof lab);
                for (uint64_t n = rng_between(&rng, 1, 4); n > 0; n--) {
                        size_t at = rng_below(&rng, sizeof lab - 1);
                        copy[at] = rng_chance(&rng, 500)
                                           ? (uint8_t)(copy[at] ^ (1u << rng_below(&rng, 8)))
                                           : (uint8_t)lab[rng_below(&rng, sizeof lab - 1)];
                }
                memset(&error, 0, sizeof error);
                if (!topology_parse(bytes_of(copy, sizeof lab - 1), &topology, &error)) {
                        assert_true(error.what[0] != 0 && error.todo[0] != 0);
                        continue;
                }
                buffer_reset(&buffer);
                topology_write(&topology, &buffer);
                if (!topology_parse(buffer_view(&buffer), &other, &error) ||
                    memcmp(&topology, &other, sizeof other) != 0)
                        fail_msg("seed %llu round %d: no round trip (%s):\n%.*s",
                                 (unsigned long long)seed, round, error.what,
                                 BYTES_ARGS(buffer_view(&buffer)));
        }
        buffer_fini(&buffer);
}

static void test_limits(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        for (unsigned count = TOPOLOGY_REGIONS_MAX; count <= TOPOLOGY_REGIONS_MAX + 1; count++) {
                buffer_reset(&buffer);
                buffer_format(&buffer, "cluster = c; epoch = 1;");
                for (unsigned i = 1; i <= count; i++) {
                        buffer_format(&buffer, "region r%u { id = %u; backends = [", i, i);
                        for (unsigned k = 1; k <= TOPOLOGY_BACKENDS_MAX; k++)
                                buffer_format(&buffer, "10.0.%u.%u:80,", i, k);
                        buffer_format(&buffer, "]; ");
                        for (unsigned k = 1; k <= TOPOLOGY_REGION_NODES_MAX; k++)
                                buffer_format(&buffer,
                                              "node n%u-%u { id = %u; link = 10.1.%u.%u:1 }", i, k,
                                              i * 10 + k, i, k);
                        buffer_format(&buffer, "}");
                }
                buffer_format(&buffer, "zone z { ");
                for (unsigned i = 1; i <= TOPOLOGY_NAMES_MAX; i++)
                        buffer_format(&buffer, "name x%u { region = r%u }", i,
                                      1 + i % TOPOLOGY_REGIONS_MAX);
                buffer_format(&buffer, "}");
                bool good = topology_parse(buffer_view(&buffer), &topology, &error);
                assert_int_equal(good, count == TOPOLOGY_REGIONS_MAX);
        }
        assert_non_null(strstr(error.what, "more than 32 regions"));
        buffer_fini(&buffer);

        uint8_t *huge = malloc(TOPOLOGY_BYTES_MAX + 1);
        assert_non_null(huge);
        memset(huge, '\n', TOPOLOGY_BYTES_MAX + 1);
        assert_false(topology_parse(bytes_of(huge, TOPOLOGY_BYTES_MAX + 1), &topology, &error));
        assert_non_null(strstr(error.what, "bytes"));
        free(huge);
}

static void test_diff(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        must_parse(lab, &topology);
        other = topology;
        other.epoch = 2;
        other.regions[0].capacity = 50;
        other.regions[0].a_count = 0;
        other.regions[1].nodes[0].link.port = 7;
        other.names[0].policy = TOPOLOGY_POLICY_FAILOVER;
        other.names[0].order[0] = 2;
        other.names[0].order_count = 1;
        other.region_count = 2;
        size_t count = topology_diff(&topology, &other, &buffer);
        buffer_u8(&buffer, 0);
        static const char expected[] = "~ cluster: epoch 1 -> 2\n"
                                       "~ region us-east: capacity 100 -> 50\n"
                                       "~ region us-east: a [\"127.10.0.1\"] -> none\n"
                                       "~ node eu-west-1: link \"127.20.0.1:7401\" -> "
                                       "\"127.20.0.1:7\"\n"
                                       "- region watch (id 3)\n"
                                       "~ name www.example.test: policy nearest -> failover\n"
                                       "~ name www.example.test: order none -> [eu-west]\n";
        assert_string_equal((const char *)buffer.ptr, expected);
        assert_int_equal(count, 7);
        buffer_reset(&buffer);
        assert_int_equal(topology_diff(&other, &topology, &buffer), 7);
        buffer_fini(&buffer);
}

static void test_may_follow(void **state)
{
        (void)state;
        must_parse(lab, &topology);
        other = topology;
        assert_false(topology_may_follow(&topology, &other, &error));
        assert_string_equal(error.where, "epoch");
        other.epoch++;
        assert_true(topology_may_follow(&topology, &other, &error));
        other.regions[0].id = 9;
        assert_false(topology_may_follow(&topology, &other, &error));
        other.regions[0].id = 2;
        other.regions[1].id = 1;
        assert_false(topology_may_follow(&topology, &other, &error));
        other = topology;
        other.epoch++;
        other.regions[0].nodes[0].id = 7;
        other.regions[2].nodes[0].id = 1;
        assert_false(topology_may_follow(&topology, &other, &error));
        other = topology;
        other.epoch++;
        other.cluster[0] = 'x';
        assert_false(topology_may_follow(&topology, &other, &error));
}

/* Writing with too little memory ends in the buffer's error, at each allocation. */
static void test_write_without_memory(void **state)
{
        (void)state;
        must_parse(lab, &topology);
        for (uint64_t n = 1;; n++) {
                struct heap heap;
                struct buffer buffer;
                heap_init(&heap, 0);
                heap.fail_at = n;
                buffer_init(&buffer, &heap);
                topology_write(&topology, &buffer);
                enum err err = buffer.err;
                buffer_fini(&buffer);
                assert_int_equal(heap.used_bytes, 0);
                if (err == ERR_NONE)
                        break;
                assert_in_range(n, 1, 100);
        }
}

int main(int argc, char **argv)
{
        example_path = argc > 1 ? argv[1] : NULL;
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lab),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_data),
                cmocka_unit_test(test_data_diff),
                cmocka_unit_test(test_postgres),
                cmocka_unit_test(test_postgres_diff),
                cmocka_unit_test(test_broken),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_example),
                cmocka_unit_test(test_truncated),
                cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_diff),
                cmocka_unit_test(test_may_follow),
                cmocka_unit_test(test_write_without_memory),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
