#include "base/hash.h"

#include "../cmocka_all.h"

#include <stdio.h>

static void test_crc32c_known_answers(void **state)
{
        (void)state;
        static const uint8_t zeros[32];
        static const struct {
                struct bytes data;
                uint32_t crc;
        } rows[] = {
                {BYTES_INIT("123456789"), 0xe3069283}, /* the check value of the polynomial */
                {BYTES_INIT(""), 0},
                {BYTES_INIT("a"), 0xc1d04330},
                {{zeros, sizeof zeros}, 0x8a9136aa}, /* RFC 3720, B.4 */
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                assert_int_equal(hash_crc32c(0, rows[i].data), rows[i].crc);
        uint32_t half = hash_crc32c(0, BYTES("1234"));
        assert_int_equal(hash_crc32c(half, BYTES("56789")), 0xe3069283);
}

static void test_sip_depends_on_every_bit(void **state)
{
        (void)state;
        struct hash_key key = {1, 2};
        uint8_t data[40] = {0};
        for (size_t len = 0; len <= sizeof data; len++) {
                uint64_t plain = hash_sip(key, bytes_of(data, len));
                assert_true(plain == hash_sip(key, bytes_of(data, len)));
                assert_true(plain != hash_sip((struct hash_key){1, 3}, bytes_of(data, len)));
                for (size_t bit = 0; bit < len * 8; bit++) {
                        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        assert_true(plain != hash_sip(key, bytes_of(data, len)));
                        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
        }
}

static void test_fold_depends_on_every_bit(void **state)
{
        (void)state;
        struct hash_key key = {0x243f6a8885a308d3u, 0x13198a2e03707344u};
        uint8_t data[56] = {0};
        for (size_t len = 0; len <= sizeof data; len++) {
                uint64_t plain = hash_fold(key, bytes_of(data, len));
                struct hash_key other[] = {{key.k0 ^ 1, key.k1}, {key.k0, key.k1 ^ 1}};
                assert_true(plain == hash_fold(key, bytes_of(data, len)));
                assert_true(plain != hash_fold(other[0], bytes_of(data, len)));
                assert_true(plain != hash_fold(other[1], bytes_of(data, len)));
                assert_true(len == 0 || plain != hash_fold(key, bytes_of(data, len - 1)));
                for (size_t bit = 0; bit < len * 8; bit++) {
                        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        assert_true(plain != hash_fold(key, bytes_of(data, len)));
                        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
        }
}

/* Names as people give them fill the buckets of a table like random ones, by the lowest bits and by
 * the highest. */
static void test_fold_spreads(void **state)
{
        (void)state;
        enum {
                NAMES = 1 << 16,
                BUCKETS = 1 << 10,
                MEAN = NAMES / BUCKETS,
        };
        static const struct {
                const char *before;
                int width;
                const char *after;
        } shapes[] = {
                {"", 1, ""}, {"key:", 12, ""}, {"user:", 1, ":name"}, {"", 8, "/0123456789ab"}};
        static unsigned low[BUCKETS];
        static unsigned high[BUCKETS];
        for (size_t shape = 0; shape < COUNT_OF(shapes); shape++) {
                memset(low, 0, sizeof low);
                memset(high, 0, sizeof high);
                for (unsigned i = 0; i < NAMES; i++) {
                        char name[40];
                        int len = snprintf(name, sizeof name, "%s%0*u%s", shapes[shape].before,
                                           shapes[shape].width, i, shapes[shape].after);
                        uint64_t hash = hash_fold((struct hash_key){77, 1234567},
                                                  bytes_of(name, (size_t)len));
                        low[hash % BUCKETS]++;
                        high[hash >> 54]++;
                }
                for (unsigned i = 0; i < BUCKETS; i++) {
                        assert_in_range(low[i], MEAN / 3, MEAN * 2);
                        assert_in_range(high[i], MEAN / 3, MEAN * 2);
                }
        }
}

static void test_fnv_known_answers(void **state)
{
        (void)state;
        assert_true(hash_fnv(HASH_FNV_START, BYTES("")) == 0xcbf29ce484222325u);
        assert_true(hash_fnv(HASH_FNV_START, BYTES("a")) == 0xaf63dc4c8601ec8cu);
        assert_true(hash_fnv(HASH_FNV_START, BYTES("foobar")) == 0x85944171f73967e8u);
        assert_true(hash_fnv_u64(HASH_FNV_START, 0x64636261) ==
                    hash_fnv(HASH_FNV_START, BYTES("abcd\0\0\0\0")));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_crc32c_known_answers),
                cmocka_unit_test(test_sip_depends_on_every_bit),
                cmocka_unit_test(test_fold_depends_on_every_bit),
                cmocka_unit_test(test_fold_spreads),
                cmocka_unit_test(test_fnv_known_answers),
        };
        return cmocka_run_group_tests_name("base/hash", tests, NULL, NULL);
}
