/* Lookups: leaves never overlap, the file is swapped under readers, and a damaged one is refused or
 * answers "unknown", never worse. */
#include "geo/geo_write.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* libmaxminddb 1.7 forgets some of its memory when metadata is damaged. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
        return "leak:libmaxminddb";
}

static char path[] = "/tmp/meridian-test-geo-XXXXXX";
static char aside[64];
static char why[512];

static void file_write(const char *name, struct bytes data)
{
        FILE *file = fopen(name, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(data.ptr, 1, data.len, file), data.len);
        assert_int_equal(fclose(file), 0);
}

/* Written aside and renamed, as users must do it too. */
static void database_put(struct bytes data)
{
        file_write(aside, data);
        assert_int_equal(rename(aside, path), 0);
}

static void database_make(struct heap *heap, const char *csv, struct buffer *out)
{
        struct geo_write_error error;
        heap_init(heap, 0);
        buffer_init(out, heap);
        if (geo_write_csv(heap, bytes_of_str(csv), 1, out, &error) != ERR_NONE)
                fail_msg("%s", error.why);
}

static void database_put_csv(const char *csv)
{
        struct heap heap;
        struct buffer out;
        database_make(&heap, csv, &out);
        database_put(buffer_view(&out));
        buffer_fini(&out);
}

static unsigned bit_at(const struct geo_address *address, unsigned bit)
{
        return (unsigned)address->ip[bit / 8] >> (7 - bit % 8) & 1u;
}

static bool within(const struct geo_address *address, const struct geo_address *prefix,
                   unsigned len)
{
        for (unsigned bit = 0; bit < len; bit++) {
                if (bit_at(address, bit) != bit_at(prefix, bit))
                        return false;
        }
        return true;
}

/* Random networks; many addresses crowded around them and around the forms that embed IPv4. */
static void crowd(struct rng *rng, enum geo_family family, struct geo_address *ret)
{
        static const uint8_t heads[][12] = {
                {0},
                {0x20, 0x02},
                {0, 0x64, 0xff, 0x9b},
                {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
                {0x20},
                {0x20, 0x01},
        };
        *ret = (struct geo_address){.family = family};
        for (unsigned i = 0; i < 16; i++)
                ret->ip[i] = (uint8_t)(rng_chance(rng, 500) ? rng_below(rng, 4) : rng_next(rng));
        if (family == GEO_FAMILY_V6 && rng_chance(rng, 700))
                memcpy(ret->ip, heads[rng_below(rng, COUNT_OF(heads))],
                       rng_chance(rng, 800) ? 12 : rng_between(rng, 1, 12));
        if (family == GEO_FAMILY_V4)
                memset(ret->ip + 4, 0, 12);
}

static void networks_random(struct rng *rng, struct geo_network *networks, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                enum geo_family family = rng_chance(rng, 600) ? GEO_FAMILY_V4 : GEO_FAMILY_V6;
                unsigned max = family == GEO_FAMILY_V4 ? 32 : 128;
                struct geo_network *network = &networks[i];
                *network = (struct geo_network){.latitude = (double)rng_below(rng, 90)};
                crowd(rng, family, &network->address);
                network->prefix_len = (uint8_t)rng_between(rng, 1, max);
                for (unsigned bit = network->prefix_len; bit < max; bit++)
                        network->address.ip[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
        }
}

/* For two addresses of one family: if the second is in the first's prefix, it is the same leaf. */
static void test_no_overlap(void **state)
{
        (void)state;
        enum {
                NETWORKS = 40,
                ADDRESSES = 300,
        };
        for (uint64_t seed = 1; seed <= 12; seed++) {
                struct rng rng;
                struct heap heap;
                struct buffer out;
                struct geo_write_error error;
                static struct geo_network networks[NETWORKS];
                static struct geo_address addresses[ADDRESSES];
                static struct geo_place places[ADDRESSES];
                rng_init(&rng, seed, 0);
                heap_init(&heap, 0);
                buffer_init(&out, &heap);
                networks_random(&rng, networks, NETWORKS);
                if (geo_write(&heap, networks, NETWORKS, 1, &out, &error) == ERR_EXISTS) {
                        buffer_fini(&out);
                        continue;
                }
                assert_null(error.why);
                database_put(buffer_view(&out));
                buffer_fini(&out);
                struct geo *geo = geo_new(path);
                assert_int_equal(geo_refresh(geo, NULL, why, sizeof why), ERR_NONE);
                for (size_t i = 0; i < ADDRESSES; i++) {
                        crowd(&rng, seed % 2 ? GEO_FAMILY_V4 : GEO_FAMILY_V6, &addresses[i]);
                        places[i] = geo_find(geo, 0, &addresses[i]);
                }
                for (size_t i = 0; i < ADDRESSES; i++) {
                        for (size_t j = 0; j < ADDRESSES; j++) {
                                if (!within(&addresses[j], &addresses[i], places[i].prefix_len))
                                        continue;
                                if (memcmp(&places[i], &places[j], sizeof places[i]) != 0)
                                        fail_msg("seed %llu: addresses %zu and %zu",
                                                 (unsigned long long)seed, i, j);
                        }
                }
                geo_free(geo);
        }
}

static void test_swap(void **state)
{
        (void)state;
        struct geo_address address;
        bool changed = false;
        assert_true(geo_address_parse("10.1.2.3", &address));
        (void)unlink(path);
        struct geo *geo = geo_new(path);
        assert_int_equal(geo_refresh(geo, &changed, why, sizeof why), ERR_NOT_FOUND);
        assert_non_null(strstr(why, path));
        assert_false(geo_ready(geo) || changed);
        assert_false(geo_find(geo, 0, &address).located);

        database_put_csv("10.0.0.0/8,US,,1,1\n");
        assert_int_equal(geo_refresh(geo, &changed, why, sizeof why), ERR_NONE);
        assert_true(changed && geo_ready(geo));
        assert_string_equal(geo_find(geo, 0, &address).country, "US");
        assert_int_equal(geo_refresh(geo, &changed, why, sizeof why), ERR_NONE);
        assert_false(changed);

        for (unsigned i = 0; i < 10; i++) {
                database_put_csv(i % 2 ? "10.0.0.0/8,US,,1,1\n" : "10.1.0.0/16,FR,,1,1\n");
                assert_int_equal(geo_refresh(geo, &changed, why, sizeof why), ERR_NONE);
                assert_true(changed);
                assert_string_equal(geo_find(geo, 0, &address).country, i % 2 ? "US" : "FR");
        }
        database_put(BYTES("this is not a database"));
        assert_int_equal(geo_refresh(geo, &changed, why, sizeof why), ERR_MALFORMED);
        assert_string_equal(geo_find(geo, 0, &address).country, "US");
        (void)unlink(path);
        assert_int_equal(geo_refresh(geo, &changed, why, sizeof why), ERR_NOT_FOUND);
        assert_string_equal(geo_find(geo, 0, &address).country, "US");
        geo_free(geo);
}

static atomic_bool stopping;

static void *look(void *data)
{
        struct geo_address address;
        bool good = geo_address_parse("10.1.2.3", &address);
        uintptr_t failed = !good;
        while (!atomic_load(&stopping)) {
                struct geo_place place = geo_find(data, 1, &address);
                bool us = strcmp(place.country, "US") == 0 && place.prefix_len == 8;
                bool fr = strcmp(place.country, "FR") == 0 && place.prefix_len == 16;
                failed |= !us && !fr;
        }
        return (void *)failed;
}

static void test_swap_under_readers(void **state)
{
        (void)state;
        database_put_csv("10.0.0.0/8,US,,1,1\n");
        struct geo *geo = geo_new(path);
        assert_int_equal(geo_refresh(geo, NULL, why, sizeof why), ERR_NONE);
        pthread_t threads[2];
        atomic_store(&stopping, false);
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, look, geo), 0);
        for (unsigned i = 0; i < 300; i++) {
                database_put_csv(i % 2 ? "10.0.0.0/8,US,,1,1\n" : "10.1.0.0/16,FR,,1,1\n");
                enum err err = geo_refresh(geo, NULL, why, sizeof why);
                assert_true(err == ERR_NONE || err == ERR_BUSY);
        }
        atomic_store(&stopping, true);
        for (unsigned i = 0; i < 2; i++) {
                void *failed;
                (void)pthread_join(threads[i], &failed);
                assert_null(failed);
        }
        geo_free(geo);
}

static void look_everywhere(struct rng *rng)
{
        struct geo *geo = geo_new(path);
        if (geo_refresh(geo, NULL, why, sizeof why) == ERR_NONE) {
                for (unsigned i = 0; i < 20; i++) {
                        struct geo_address address;
                        crowd(rng, i % 2 ? GEO_FAMILY_V4 : GEO_FAMILY_V6, &address);
                        if (i < 4)
                                assert_true(geo_address_parse(i % 2 ? "10.1.2.3" : "2001:218::1",
                                                              &address));
                        struct geo_place place = geo_find(geo, 0, &address);
                        assert_true(place.latitude >= -90 && place.latitude <= 90);
                        assert_true(place.longitude >= -180 && place.longitude <= 180);
                        assert_true(place.prefix_len <= 128);
                }
        }
        geo_free(geo);
}

static void test_damaged(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer out;
        struct rng rng;
        rng_init(&rng, 9, 0);
        database_make(&heap, "10.0.0.0/8,US,Here,1,1\n2001:218::/32,JP,There,2,2\n", &out);
        for (unsigned i = 0; i < 1500; i++) {
                size_t bit = rng_below(&rng, out.len * 8);
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                database_put(buffer_view(&out));
                look_everywhere(&rng);
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t len = 1; len < out.len; len += 1 + len / 100) {
                database_put(bytes_of(out.ptr, len));
                look_everywhere(&rng);
        }
        buffer_fini(&out);
}

static void test_addresses(void **state)
{
        (void)state;
        struct geo_address address;
        assert_true(geo_address_parse("192.0.2.1", &address));
        assert_int_equal(address.family, GEO_FAMILY_V4);
        assert_true(geo_address_parse("2001:db8::1", &address));
        assert_int_equal(address.family, GEO_FAMILY_V6);
        static const char *const bad[] = {"", "1.2.3", "1.2.3.4.5", "::g", "a.example", "1.2.3.4 "};
        for (size_t i = 0; i < COUNT_OF(bad); i++)
                assert_false(geo_address_parse(bad[i], &address));
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000201)};
        address = geo_address_of((const struct sockaddr *)&v4);
        assert_int_equal(address.family, GEO_FAMILY_V4);
        assert_int_equal(address.ip[0], 192);
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr.s6_addr = {0x20, 1}};
        address = geo_address_of((const struct sockaddr *)&v6);
        assert_int_equal(address.family, GEO_FAMILY_V6);
        assert_int_equal(address.ip[0], 0x20);
        struct sockaddr other = {.sa_family = AF_UNIX};
        assert_int_equal(geo_address_of(&other).family, GEO_FAMILY_NONE);
}

int main(void)
{
        int fd = mkstemp(path);
        if (fd < 0)
                return 1;
        (void)close(fd);
        (void)snprintf(aside, sizeof aside, "%s.new", path);
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_no_overlap),         cmocka_unit_test(test_swap),
                cmocka_unit_test(test_swap_under_readers), cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_addresses),
        };
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        (void)unlink(path);
        (void)unlink(aside);
        return failed;
}
