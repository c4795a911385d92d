/* The database that is written, read back by libmaxminddb through geo.h: the lab's networks,
 * nesting, every refusal with its line, every allocation failing once. */
#include "geo/geo_write.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char table[] = "network,country,city,latitude,longitude\n"
                            "# the lab\n"
                            "216.160.83.56/29,US,Milton,47.25,-122.31\n"
                            "214.78.120.0/22,US,San Diego,32.72,-117.16\r\n"
                            "81.2.69.142/31,GB,London,51.51,-0.09\n"
                            "81.2.69.160/27, GB , London , 51.51 , -0.09\n"
                            "\n"
                            "89.160.20.112/28,SE,Link\xc3\xb6ping,58.42,15.62\n"
                            "175.16.199.0/24,CN,Changchun,43.88,125.32\n"
                            "214.0.0.0/24,SG,,1.35,103.82\n"
                            "10.0.0.0/8,,,1,2\n"
                            "10.1.0.0/16,DE,Bonn,50.73,7.10\n"
                            "2001:218::/32,JP,Tokyo,35.69,139.69";

static char path[] = "/tmp/meridian-test-geo-XXXXXX";

static struct geo *geo_made(const char *csv)
{
        struct heap heap;
        struct buffer out;
        struct geo_write_error error;
        char why[256];
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        assert_int_equal(geo_write_csv(&heap, bytes_of_str(csv), 1700000000, &out, &error),
                         ERR_NONE);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(out.ptr, 1, out.len, file), out.len);
        (void)fclose(file);
        buffer_fini(&out);
        assert_int_equal(heap.used_bytes, 0);
        struct geo *geo = geo_new(path);
        if (geo_refresh(geo, NULL, why, sizeof why) != ERR_NONE)
                fail_msg("%s", why);
        return geo;
}

static struct geo_place find(struct geo *geo, const char *text)
{
        struct geo_address address;
        assert_true(geo_address_parse(text, &address));
        return geo_find(geo, 0, &address);
}

static void test_lab(void **state)
{
        (void)state;
        static const struct {
                const char *address;
                const char *country; /* NULL: not there */
                unsigned prefix_len;
                double latitude;
                double longitude;
                const char *why;
        } cases[] = {
                {"216.160.83.56", "US", 29, 47.25, -122.31, "first of its network"},
                {"216.160.83.63", "US", 29, 47.25, -122.31, "last of its network"},
                {"216.160.83.64", NULL, 26, 0, 0, "one behind: the other half of /25"},
                {"216.160.83.55", NULL, 29, 0, 0, "one before"},
                {"81.2.69.142", "GB", 31, 51.51, -0.09, "two addresses"},
                {"81.2.69.144", NULL, 28, 0, 0, "between the two"},
                {"81.2.69.160", "GB", 27, 51.51, -0.09, "blanks around fields"},
                {"81.2.0.0", NULL, 18, 0, 0, "not the whole of 81.2.0.0/16"},
                {"89.160.20.127", "SE", 28, 58.42, 15.62, "UTF-8 in the city"},
                {"214.78.123.255", "US", 22, 32.72, -117.16, "carriage return"},
                {"214.0.0.9", "SG", 24, 1.35, 103.82, "no city"},
                {"10.2.3.4", "", 15, 1, 2, "outer network, no country"},
                {"10.1.3.4", "DE", 16, 50.73, 7.10, "inner network wins"},
                {"0.0.0.0", NULL, 5, 0, 0, "empty leaf"},
                {"255.255.255.255", NULL, 3, 0, 0, "empty leaf"},
                {"2001:218::1", "JP", 32, 35.69, 139.69, "IPv6"},
                {"2001:219::1", NULL, 32, 0, 0, "its neighbour"},
                {"::ffff:81.2.69.142", "GB", 127, 51.51, -0.09, "mapped"},
                {"64:ff9b::81.2.69.142", "GB", 127, 51.51, -0.09, "NAT64"},
                {"2002:5102:458e::1", "GB", 47, 51.51, -0.09, "6to4"},
                {"8000::", NULL, 1, 0, 0, "the upper half"},
        };
        struct geo *geo = geo_made(table);
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct geo_place place = find(geo, cases[i].address);
                if (place.prefix_len != cases[i].prefix_len ||
                    place.located != (cases[i].country != NULL) ||
                    strcmp(place.country, cases[i].country == NULL ? "" : cases[i].country) != 0)
                        fail_msg("%s (%s): /%u %d '%s'", cases[i].address, cases[i].why,
                                 place.prefix_len, place.located, place.country);
                assert_true(place.latitude >= cases[i].latitude - 1e-9 &&
                            place.latitude <= cases[i].latitude + 1e-9);
                assert_true(place.longitude >= cases[i].longitude - 1e-9 &&
                            place.longitude <= cases[i].longitude + 1e-9);
        }
        geo_free(geo);
}

static void test_edges(void **state)
{
        (void)state;
        struct geo *geo = geo_made("");
        struct geo_place place = find(geo, "192.0.2.1");
        assert_false(place.located);
        assert_int_equal(place.prefix_len, 0);
        geo_free(geo);

        geo = geo_made("0.0.0.0/0,US,,1,1\n");
        assert_int_equal(find(geo, "192.0.2.1").prefix_len, 0);
        assert_true(find(geo, "192.0.2.1").located);
        assert_false(find(geo, "2001:db8::").located);
        geo_free(geo);

        geo = geo_made("::/0,US,,1,1\n192.0.2.1/32,FR,,2,2\n2001:db8::1/128,IT,,90,180\n");
        assert_int_equal(find(geo, "192.0.2.1").prefix_len, 32);
        assert_string_equal(find(geo, "192.0.2.1").country, "FR");
        assert_string_equal(find(geo, "192.0.2.0").country, "US");
        assert_int_equal(find(geo, "2001:db8::1").prefix_len, 128);
        assert_string_equal(find(geo, "2001:db8::1").country, "IT");
        assert_string_equal(find(geo, "2001:db8::2").country, "US");
        geo_free(geo);
}

static void test_refused(void **state)
{
        (void)state;
        static const struct {
                const char *csv;
                size_t line;
                enum err err;
                const char *why;
        } cases[] = {
                {"x\n", 1, ERR_MALFORMED, "a line is"},
                {"1.0.0.0/8,US,,1\n", 1, ERR_MALFORMED, "a line is"},
                {"1.0.0.0/8,US,,1,2,3\n", 1, ERR_MALFORMED, "a line is"},
                {"\n1.0.0.0,US,,1,2\n", 2, ERR_MALFORMED, "address/length"},
                {"1.0.0.0/,US,,1,2\n", 1, ERR_MALFORMED, "address/length"},
                {"1.0.0/8,US,,1,2\n", 1, ERR_MALFORMED, "address/length"},
                {"1.0.0.0/+8,US,,1,2\n", 1, ERR_MALFORMED, "address/length"},
                {"1.0.0.0/999,US,,1,2\n", 1, ERR_MALFORMED, "address/length"},
                {"1.0.0.0/33,US,,1,2\n", 1, ERR_INVALID, "longer than the address"},
                {"::/129,US,,1,2\n", 1, ERR_MALFORMED, "address/length"},
                {"1.0.0.1/8,US,,1,2\n", 1, ERR_INVALID, "beyond its prefix"},
                {"2001:db8::1/127,US,,1,2\n", 1, ERR_INVALID, "beyond its prefix"},
                {"1.0.0.0/8,USA,,1,2\n", 1, ERR_INVALID, "country"},
                {"1.0.0.0/8,US,,x,2\n", 1, ERR_MALFORMED, "latitude"},
                {"1.0.0.0/8,US,,,2\n", 1, ERR_MALFORMED, "latitude"},
                {"1.0.0.0/8,US,,nan,2\n", 1, ERR_MALFORMED, "latitude"},
                {"1.0.0.0/8,US,,90.1,2\n", 1, ERR_INVALID, "latitude"},
                {"1.0.0.0/8,US,,-90.1,2\n", 1, ERR_INVALID, "latitude"},
                {"1.0.0.0/8,US,,1,180.1\n", 1, ERR_INVALID, "longitude"},
                {"1.0.0.0/8,US,,1,2-3\n", 1, ERR_MALFORMED, "longitude"},
                {"# a\n1.0.0.0/8,US,,1,2\n2.0.0.0/8,US,,1,2\n1.0.0.0/8,FR,,1,2\n", 4, ERR_EXISTS,
                 "twice"},
        };
        struct heap heap;
        heap_init(&heap, 0);
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct buffer out;
                struct geo_write_error error;
                buffer_init(&out, &heap);
                enum err err = geo_write_csv(&heap, bytes_of_str(cases[i].csv), 0, &out, &error);
                if (err != cases[i].err || error.line != cases[i].line ||
                    strstr(error.why, cases[i].why) == NULL)
                        fail_msg("%s: %s, line %zu: %s", cases[i].csv, err_name(err), error.line,
                                 error.why);
                buffer_fini(&out);
        }
        assert_int_equal(heap.used_bytes, 0);
}

static void test_table_cut(void **state)
{
        (void)state;
        struct heap heap;
        heap_init(&heap, 0);
        for (size_t len = 0; len < sizeof table; len++) {
                struct buffer out;
                struct geo_write_error error;
                char *copy = malloc(len + 1);
                assert_non_null(copy);
                memcpy(copy, table, len);
                buffer_init(&out, &heap);
                enum err err = geo_write_csv(&heap, bytes_of(copy, len), 0, &out, &error);
                assert_true((err == ERR_NONE) == (error.why == NULL));
                buffer_fini(&out);
                free(copy);
        }
        assert_int_equal(heap.used_bytes, 0);
}

static void test_no_memory(void **state)
{
        (void)state;
        enum err err = ERR_NOMEM;
        for (uint64_t fail_at = 1; err != ERR_NONE; fail_at++) {
                struct heap heap;
                struct buffer out;
                struct geo_write_error error;
                heap_init(&heap, 0);
                heap.fail_at = fail_at;
                buffer_init(&out, &heap);
                err = geo_write_csv(&heap, bytes_of_str(table), 0, &out, &error);
                assert_true(err == ERR_NOMEM || (err == ERR_NONE && fail_at > 3));
                buffer_fini(&out);
                assert_int_equal(heap.used_bytes, 0);
        }
}

int main(void)
{
        int fd = mkstemp(path);
        if (fd < 0)
                return 1;
        (void)close(fd);
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lab),       cmocka_unit_test(test_edges),
                cmocka_unit_test(test_refused),   cmocka_unit_test(test_table_cut),
                cmocka_unit_test(test_no_memory),
        };
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        (void)unlink(path);
        return failed;
}
