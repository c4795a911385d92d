/* What DNS answers, without the server: policies and families, the cache's agreement with the
 * decision, and the client-subnet option to its last bit. */
#include "answer.h"
#include "client_subnet.h"

#include "../view_make.h"

#include "base/rng.h"
#include "geo/geo_write.h"

static const char document[] =
        "cluster = test; epoch = 1;\n"
        "region us { id = 1; latitude = 39; longitude = -77; a = [\"192.0.2.1\", \"192.0.2.2\"]\n"
        "  aaaa = [\"2001:db8::1\"]; node us-1 { id = 1; link = \"127.0.0.1:7401\" } }\n"
        "region eu { id = 2; latitude = 53; longitude = -6; a = [\"192.0.2.3\"]\n"
        "  node eu-1 { id = 2; link = \"127.0.0.2:7401\" } }\n"
        "region v6 { id = 3; latitude = 1; longitude = 103; aaaa = [\"2001:db8::3\"]\n"
        "  node v6-1 { id = 3; link = \"127.0.0.3:7401\" } }\n"
        "zone example.test { name www { policy = nearest } name a.b { policy = nearest }\n"
        "  name api-eu { region = eu } name ha { order = [v6, us] } }\n";

static struct geo *geo;
static struct answer_cache cache;
static char geo_path[80];

static int setup(void **state)
{
        struct heap heap;
        struct buffer out;
        struct geo_write_error error;
        (void)state;
        if (view_setup(document) != 0)
                return -1;
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        enum err err = geo_write_csv(
                &heap, BYTES("10.0.0.0/8,US,,40,-75\n20.0.0.0/8,GB,,51,0\n30.0.0.0/8,SG,,1,104\n"),
                1, &out, &error);
        (void)snprintf(geo_path, sizeof geo_path, "%s/geo", view_folder);
        FILE *file = fopen(geo_path, "wb");
        if (err != ERR_NONE || file == NULL || fwrite(out.ptr, 1, out.len, file) != out.len)
                return -1;
        (void)fclose(file);
        buffer_fini(&out);
        geo = geo_new(geo_path);
        return geo_refresh(geo, NULL, NULL, 0) == ERR_NONE ? 0 : -1;
}

static int teardown(void **state)
{
        (void)state;
        geo_free(geo);
        (void)unlink(geo_path);
        return view_teardown();
}

static struct answer ask(const struct view *view, struct bytes wire, uint8_t family,
                         const char *client)
{
        struct answer_client from = {.scoped = true};
        assert_true(geo_address_parse(client, &from.address));
        const struct view_name *name = view_name_find(view, wire);
        struct answer fresh = answer_make(view, name, family, geo, NULL, 0, &from);
        for (unsigned i = 0; i < 2; i++) {
                struct answer cached = answer_make(view, name, family, geo, &cache, 0, &from);
                assert_int_equal(cached.kind, fresh.kind);
                assert_ptr_equal(cached.addresses, fresh.addresses);
                assert_int_equal(cached.scope_len, fresh.scope_len);
        }
        return fresh;
}

#define WWW BYTES("\3www\7example\4test\0")

/* The last octet of the first address; 0: no data. */
static unsigned octet(struct answer answer)
{
        if (answer.kind != ANSWER_ADDRESSES)
                return 0;
        return answer.addresses[0].bytes[answer.family == 4 ? 3 : 15];
}

static void test_families(void **state)
{
        (void)state;
        static const struct {
                const char *client;
                uint8_t family;
                uint32_t down; /* bits of regions */
                unsigned wanted;
                uint8_t scope_len;
                const char *why;
        } cases[] = {
                {"10.0.0.1", 4, 0, 1, 8, "nearest"},
                {"20.0.0.1", 4, 0, 3, 8, "nearest"},
                {"30.0.0.1", 4, 0, 3, 8, "the nearest has no A: the next that has one"},
                {"30.0.0.1", 6, 0, 3, 8, "the nearest has AAAA"},
                {"20.0.0.1", 6, 0, 1, 8, "the nearest has no AAAA"},
                {"20.0.0.1", 4, 2, 1, 8, "the nearest is down"},
                {"20.0.0.1", 4, 3, 0, 0, "no region that is up has an A"},
                {"20.0.0.1", 6, 5, 0, 0, "no region that is up has an AAAA"},
                {"20.0.0.1", 4, 7, 3, 8, "all down: fail open"},
                {"30.0.0.1", 4, 7, 3, 8, "all down: fail open with an A"},
                {"20.0.0.1", 6, 7, 1, 8, "all down: fail open with an AAAA"},
                {"40.0.0.1", 4, 0, 1, 3, "not known: own region, depth of the empty leaf"},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                view_reset();
                for (uint32_t region = 0; region < 3; region++) {
                        if ((cases[i].down >> region & 1) != 0)
                                view_down(region);
                }
                const struct view *view = view_made(1);
                struct answer answer = ask(view, WWW, cases[i].family, cases[i].client);
                if (octet(answer) != cases[i].wanted || answer.scope_len != cases[i].scope_len)
                        fail_msg("%zu, %s: %u /%u", i, cases[i].why, octet(answer),
                                 answer.scope_len);
                view_done(view);
        }
}

static void test_policies(void **state)
{
        (void)state;
        view_reset();
        view_down(1);
        const struct view *view = view_made(1);
        struct answer answer = ask(view, BYTES("\6api-eu\7example\4test\0"), 4, "10.0.0.1");
        assert_int_equal(octet(answer), 3);
        assert_int_equal(answer.scope_len, 0);
        answer = ask(view, BYTES("\6api-eu\7example\4test\0"), 6, "10.0.0.1");
        assert_int_equal(answer.kind, ANSWER_EMPTY);
        answer = ask(view, BYTES("\2ha\7example\4test\0"), 6, "10.0.0.1");
        assert_int_equal(octet(answer), 3);
        assert_int_equal(answer.scope_len, 0);
        answer = ask(view, BYTES("\2ha\7example\4test\0"), 4, "10.0.0.1");
        assert_int_equal(octet(answer), 1);
        answer = ask(view, BYTES("\1a\1b\7example\4test\0"), 4, "10.0.0.1");
        assert_int_equal(octet(answer), 1);
        answer = ask(view, BYTES("\1b\7example\4test\0"), 4, "10.0.0.1");
        assert_int_equal(answer.kind, ANSWER_EMPTY);
        answer = ask(view, BYTES("\4nope\7example\4test\0"), 4, "10.0.0.1");
        assert_int_equal(answer.kind, ANSWER_PASS);
        view_done(view);
}

static void test_without_geo(void **state)
{
        (void)state;
        view_reset();
        const struct view *view = view_made(2);
        struct answer_client from = {.scoped = true};
        assert_true(geo_address_parse("10.0.0.1", &from.address));
        struct answer answer =
                answer_make(view, view_name_find(view, WWW), 4, NULL, &cache, 0, &from);
        assert_int_equal(octet(answer), 3);
        assert_int_equal(answer.scope_len, 0);
        view_done(view);
}

static bool subnet(struct bytes option)
{
        struct geo_address address;
        uint8_t source_len;
        return client_subnet_parse(option, &address, &source_len);
}

static void test_subnet(void **state)
{
        (void)state;
        struct geo_address address;
        uint8_t source_len;
        assert_true(client_subnet_parse(BYTES("\0\1\x18\0\x51\2\x45"), &address, &source_len));
        assert_int_equal(address.family, GEO_FAMILY_V4);
        assert_int_equal(source_len, 24);
        assert_memory_equal(address.ip, "\x51\2\x45\0", 4);
        assert_true(
                client_subnet_parse(BYTES("\0\2\x21\0\x20\1\2\x18\x80"), &address, &source_len));
        assert_int_equal(address.family, GEO_FAMILY_V6);
        assert_int_equal(source_len, 33);
        assert_true(subnet(BYTES("\0\1\0\0")) && subnet(BYTES("\0\2\0\0")));
        assert_true(subnet(BYTES("\0\1\x20\0\1\2\3\4")));
        assert_true(subnet(BYTES("\0\1\1\0\x80")) && !subnet(BYTES("\0\1\1\0\x40")));
        assert_false(subnet(BYTES("\0\1\x20\0\1\2\3")) || subnet(BYTES("\0\1\x20\0\1\2\3\4\0")));
        assert_false(subnet(BYTES("\0\1\x21\0\1\2\3\4\x80")));
        assert_false(subnet(BYTES("\0\0\0\0")) || subnet(BYTES("\0\3\0\0")));
        assert_false(subnet(BYTES("\1\1\0\0")) || subnet(BYTES("\0\1\0\1")));
        for (size_t len = 0; len < 7; len++)
                assert_false(subnet(bytes_of("\0\1\x18\0\x51\2\x45", len)));
}

/* For random options, what is accepted is what one would write for its result. */
static void test_subnet_random(void **state)
{
        (void)state;
        struct rng rng;
        unsigned accepted = 0;
        rng_init(&rng, 3, 0);
        for (unsigned round = 0; round < 300000; round++) {
                uint8_t option[24] = {0, (uint8_t)rng_below(&rng, 4), 0, 0};
                unsigned source = (unsigned)rng_below(&rng, 140);
                option[2] = (uint8_t)source;
                option[3] = rng_chance(&rng, 100);
                size_t len = 4 + (rng_chance(&rng, 800) ? (source + 7) / 8 : rng_below(&rng, 20));
                for (size_t i = 4; i < sizeof option; i++)
                        option[i] = rng_chance(&rng, 500) ? 0 : (uint8_t)rng_next(&rng);
                struct geo_address address;
                uint8_t source_len = 0;
                if (!client_subnet_parse(bytes_of(option, len), &address, &source_len))
                        continue;
                accepted++;
                assert_int_equal(source_len, source);
                assert_true(source <= (option[1] == 1 ? 32u : 128u) && option[3] == 0);
                assert_int_equal(len, 4 + (source + 7) / 8);
                for (unsigned bit = 0; bit < 128; bit++) {
                        unsigned set = (unsigned)address.ip[bit / 8] >> (7 - bit % 8) & 1u;
                        assert_true(set == 0 || bit < source);
                }
        }
        assert_true(accepted > 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_families),      cmocka_unit_test(test_policies),
                cmocka_unit_test(test_without_geo),   cmocka_unit_test(test_subnet),
                cmocka_unit_test(test_subnet_random),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
