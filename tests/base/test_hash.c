#include "base/hash.h"

#include "../cmocka_all.h"

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
                cmocka_unit_test(test_fnv_known_answers),
        };
        return cmocka_run_group_tests_name("base/hash", tests, NULL, NULL);
}
