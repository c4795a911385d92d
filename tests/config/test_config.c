/* The configuration: every key, every fault with its line, and any bytes at all. */
#include "base/buffer.h"
#include "base/rng.h"
#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka needs some of the above. */
#include <cmocka.h>

#define PATH "/etc/meridian/meridiand.conf"

/* The least that is enough, one key a line. */
static const char least[] = "cluster lab;\n"
                            "region us-east;\n"
                            "node 1;\n"
                            "topology topology.conf;\n"
                            "data_dir /var/lib/meridian;\n"
                            "run_dir /run/meridian;\n"
                            "pki { ca ca.crt; cert node.crt; key node.key }\n"
                            "listen { link 127.97.0.1:7401; admin 127.97.0.1:7400\n"
                            "         locks \"[::1]:7402\" }\n";

static struct config config;
static struct config_error error;

static enum err parse(const char *text)
{
        return config_parse(bytes_of_str(text), PATH, &config, &error);
}

static void test_least(void **state)
{
        (void)state;
        assert_int_equal(parse(least), ERR_NONE);
        assert_string_equal(config.cluster, "lab");
        assert_string_equal(config.region, "us-east");
        assert_int_equal(config.node, 1);
        assert_string_equal(config.topology, "/etc/meridian/topology.conf");
        assert_string_equal(config.data_dir, "/var/lib/meridian");
        assert_string_equal(config.pki_key, "/etc/meridian/node.key");
        assert_string_equal(config.pki_crl, "");
        assert_string_equal(config.link.host, "127.97.0.1");
        assert_int_equal(config.link.port, 7401);
        assert_string_equal(config.locks.host, "::1");
        assert_string_equal(config.redis.host, "");
        assert_int_equal(config.log_level, LOG_LEVEL_INFO);
        assert_false(config.impairments);
        assert_false(config.hasty);
}

static void test_all_spellings(void **state)
{
        (void)state;
        char text[2048];
        snprintf(text, sizeof text,
                 "# a comment { with \"marks\" };\n%s"
                 "redis = 127.0.0.1:6379\n"
                 "dns: 127.0.0.1:5353\n"
                 "edge '127.0.0.1:8080'; geo \"/a path/with # and ;\"; log_level debug\n"
                 "lab { impairments = on; hasty on; };",
                 least);
        if (parse(text) != ERR_NONE)
                fail_msg("%s", error.text);
        assert_int_equal(config.redis.port, 6379);
        assert_int_equal(config.dns.port, 5353);
        assert_int_equal(config.edge.port, 8080);
        assert_string_equal(config.geo, "/a path/with # and ;");
        assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
        assert_true(config.impairments);
        assert_true(config.hasty);
}

static void test_several_redis(void **state)
{
        (void)state;
        char text[2048];
        size_t len = (size_t)snprintf(text, sizeof text, "%sredis { cluster on;", least);
        for (int i = 0; i < CONFIG_NODES_MAX + 1; i++) {
                (void)snprintf(text + len, sizeof text - len, " }");
                if (i > 0)
                        assert_int_equal(parse(text), ERR_NONE);
                len += (size_t)snprintf(text + len, sizeof text - len, " node 127.0.0.%d:6379;",
                                        i + 1);
        }
        assert_int_equal(config.redis_nodes.count, CONFIG_NODES_MAX);
        assert_string_equal(config.redis_nodes.items[15].host, "127.0.0.16");
        assert_true(config.redis_cluster);
        (void)snprintf(text + len, sizeof text - len, " }");
        assert_int_equal(parse(text), ERR_MALFORMED); /* one too many */
        (void)snprintf(text, sizeof text, "%sredis { master m; node 127.0.0.1:26379 }", least);
        assert_int_equal(parse(text), ERR_NONE);
        assert_string_equal(config.redis_master, "m");
        assert_false(config.redis_tls);

        (void)snprintf(text, sizeof text,
                       "%sredis { node 1.2.3.4:1; tls on; ca /ca; cert c.crt; key /k }", least);
        assert_int_equal(config_parse(bytes_of_str(text), "/etc/m/x.conf", &config, &error),
                         ERR_NONE);
        assert_true(config.redis_tls);
        assert_string_equal(config.redis_ca, "/ca");
        assert_string_equal(config.redis_cert, "/etc/m/c.crt");
        assert_string_equal(config.redis_key, "/k");
}

/* What is added to the least, and what the error must say. */
static const struct {
        const char *text;
        const char *says;
} fault_rows[] = {
        {"colour blue;", "line 10: unknown key 'colour'; there are: cluster, region, node"},
        {"pki { cluster x; }", "unknown key 'pki cluster'; there are: ca, cert, key, crl"},
        {"cluster lab;", "line 10: the key 'cluster' is given twice"},
        {"paint { x y }", "unknown section 'paint'"},
        {"lab { lab { impairments on } }", "a section inside the section 'lab'"},
        {"lab { impairments on", "the section 'lab' has no end"},
        {"}", "a '}' without its '{'"},
        {"redis", "the key 'redis' has no value"},
        {"redis ;", "the key 'redis' has no value"},
        {"redis =", "the key 'redis' has no value"},
        {"redis 1.2.3.4:1 5.6.7.8:2;", "more than one value for 'redis'"},
        {"redis localhost:6379;", "'localhost:6379' is no value for 'redis'; use an IP address"},
        {"redis 127.0.0.1;", "is no value for 'redis'"},
        {"redis 127.0.0.1:0;", "is no value for 'redis'"},
        {"redis 127.0.0.1:65536;", "is no value for 'redis'"},
        {"redis 127.0.0.256:1;", "is no value for 'redis'"},
        {"redis ::1:6379;", "is no value for 'redis'"},
        {"redis \"[127.0.0.1]:6379\";", "is no value for 'redis'"},
        {"redis \"[::1:6379\";", "is no value for 'redis'"},
        {"redis :6379;", "is no value for 'redis'"},
        {"geo '';", "'' is no value for 'geo'"},
        {"redis [::1]:6379;", "the key 'redis' has no value; use an IP address and a port"},
        {"geo 'open", "a string has no end; add the missing quote"},
        {"geo 'two\nlines';", "a string has a byte that no value can have; use printable text"},
        {"log_level loud;", "use error, warn, info or debug"},
        {"lab { impairments perhaps }",
         "'perhaps' is no value for 'lab impairments'; use on or off"},
        {"redis 1.2.3.4:1; redis { node 1.2.3.4:1 }", "as one address and as a section"},
        {"redis { cluster on }", "the key 'redis node' is missing"},
        {"redis { password /p }", "the key 'redis node' is missing"},
        {"redis { tls on; ca /c }", "the key 'redis node' is missing"},
        {"redis { node 1.2.3.4:1; tls on }", "the key 'redis ca' is missing"},
        {"redis { node 1.2.3.4:1; ca /c }", "add 'tls on'"},
        {"redis { node 1.2.3.4:1; tls off; cert /c; key /k }", "add 'tls on'"},
        {"redis { node 1.2.3.4:1; tls on; ca /c; key /k }", "give both or none"},
        {"redis { node 1.2.3.4:1; user ann }",
         "the key 'redis password' is missing; name the file"},
        {"postgres { bin /b; home /h; password /p }", "the key 'postgres server' is missing"},
        {"postgres { follow 1.2.3.4:5; write 1.2.3.4:6 }", "the key 'postgres server' is missing"},
        {"postgres { data /d }", "the key 'postgres home' is missing"},
        {"postgres { user 'a b' }", "'a b' is no value for 'postgres user'"},
        {"redis { master m; master m; node 1.2.3.4:1 }", "'redis master' is given twice"},
        {"redis { cluster on; master m; node 1.2.3.4:1 }", "exclude each other"},
        {"redis { node 1.2.3.4 }", "'1.2.3.4' is no value for 'redis node'"},
        {"= x;", "a key is expected here"},
        {"{ }", "a key is expected here"},
        {"\"\x01\" x;", "a string has a byte that no value can have"},
};

static void test_faults(void **state)
{
        (void)state;
        char text[2048];
        for (size_t i = 0; i < COUNT_OF(fault_rows); i++) {
                snprintf(text, sizeof text, "%s%s", least, fault_rows[i].text);
                if (parse(text) != ERR_MALFORMED)
                        fail_msg("accepted: %s", fault_rows[i].text);
                if (strstr(error.text, fault_rows[i].says) == NULL ||
                    strstr(error.text, PATH) != error.text)
                        fail_msg("'%s': expected '%s' in '%s'", fault_rows[i].text,
                                 fault_rows[i].says, error.text);
        }
}

/* Each required key, taken away, is named. */
static void test_missing(void **state)
{
        (void)state;
        static const char *const keys[] = {
                "cluster", "region",   "node",    "topology",    "data_dir",     "run_dir",
                "pki ca",  "pki cert", "pki key", "listen link", "listen admin", "listen locks",
        };
        char text[2048], named[64];
        for (size_t i = 0; i < COUNT_OF(keys); i++) {
                const char *space = strchr(keys[i], ' ');
                const char *key = space == NULL ? keys[i] : space + 1;
                snprintf(text, sizeof text, "%s", least);
                snprintf(named, sizeof named, "%s ", key);
                /* "link " becomes "#ink ": the rest of the line is a comment. Only keys at the end
                 * of their line may go that way, so every key gets a line of its own first. */
                for (char *at = text; *at != '\0'; at++)
                        *at = *at == ';' ? '\n' : *at;
                char *at = strstr(text, named);
                assert_non_null(at);
                size_t len = strcspn(at, "\n}");
                memset(at, ' ', len);
                assert_int_equal(parse(text), ERR_MALFORMED);
                snprintf(named, sizeof named, "the key '%s' is missing", keys[i]);
                if (strstr(error.text, named) == NULL)
                        fail_msg("expected '%s' in '%s'", named, error.text);
        }
}

static void test_node_numbers(void **state)
{
        (void)state;
        static const struct {
                const char *number;
                bool good;
        } rows[] = {{"1", true},   {"4294967295", true}, {"0", false}, {"4294967296", false},
                    {"-1", false}, {"1.5", false},       {"x", false}, {"99999999999", false}};
        char text[2048];
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                const char *at = strstr(least, "node 1;");
                snprintf(text, sizeof text, "%.*snode %s;%s", (int)(at - least), least,
                         rows[i].number, at + strlen("node 1;"));
                if ((parse(text) == ERR_NONE) != rows[i].good)
                        fail_msg("node %s", rows[i].number);
        }
}

static void test_long_values(void **state)
{
        (void)state;
        static char text[8192], path[4096];
        for (size_t len = 1000; len <= 1100; len++) {
                memset(path, 'x', len);
                path[0] = '/';
                path[len] = '\0';
                snprintf(text, sizeof text, "%sgeo %s;", least, path);
                assert_int_equal(parse(text) == ERR_NONE, len < CONFIG_TEXT_MAX);
        }
}

/* Cut at every length, and with bytes changed at random: an answer each time, and never a good one
 * for a cut text, since the last required key is gone. */
static void test_damage(void **state)
{
        (void)state;
        struct rng rng;
        static char text[sizeof least];
        size_t last = (size_t)(strstr(least, "locks") - least) + strlen("locks \"[::1]:7402\"");
        for (size_t cut = 0; cut < sizeof least - 1; cut++) {
                memcpy(text, least, cut);
                text[cut] = '\0';
                enum err err = parse(text);
                assert_true(cut >= last || err == ERR_MALFORMED);
        }
        rng_init(&rng, 7400, 0);
        for (unsigned round = 0; round < 20000; round++) {
                memcpy(text, least, sizeof least);
                for (unsigned i = 0; i < 3; i++)
                        text[rng_below(&rng, sizeof least - 1)] = (char)rng_next(&rng);
                enum err err =
                        config_parse(bytes_of(text, sizeof least - 1), PATH, &config, &error);
                assert_true(err == ERR_NONE || err == ERR_MALFORMED);
        }
}

static void test_files(void **state)
{
        (void)state;
        assert_int_equal(config_load("/nonexistent/m.conf", &config, &error), ERR_NOT_FOUND);
        assert_non_null(strstr(error.text, "/nonexistent/m.conf"));
        assert_int_equal(config_load("/", &config, &error), ERR_IO);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_least),         cmocka_unit_test(test_all_spellings),
                cmocka_unit_test(test_several_redis), cmocka_unit_test(test_faults),
                cmocka_unit_test(test_missing),       cmocka_unit_test(test_node_numbers),
                cmocka_unit_test(test_long_values),   cmocka_unit_test(test_damage),
                cmocka_unit_test(test_files),
        };
        return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
