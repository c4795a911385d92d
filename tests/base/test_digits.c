/* Numbers in text: what is one, and the largest that fits. */
#include "base/digits.h"

#include "../cmocka_all.h"

static void check(const char *text, uint64_t max, bool good, uint64_t wanted)
{
        uint64_t value = 77;
        if (digits_parse(bytes_of_str(text), max, &value) != good || value != (good ? wanted : 77))
                fail_msg("\"%s\" up to %llu: got %llu", text, (unsigned long long)max,
                         (unsigned long long)value);
}

static void test_numbers(void **state)
{
        (void)state;
        check("0", 0, true, 0);
        check("000", 5, true, 0);
        check("7", 7, true, 7);
        check("0065535", UINT16_MAX, true, 65535);
        check("18446744073709551615", UINT64_MAX, true, UINT64_MAX);
}

static void test_others(void **state)
{
        (void)state;
        static const char *const texts[] = {"",   " 1", "1 ", "+1",  "-1", "1.0",
                                            "1e", "/",  ":",  "0x1", "\n", "9\n"};
        for (size_t i = 0; i < COUNT_OF(texts); i++)
                check(texts[i], UINT64_MAX, false, 0);
}

static void test_too_large(void **state)
{
        (void)state;
        check("1", 0, false, 0);
        check("8", 7, false, 0);
        check("17", 16, false, 0);
        check("65536", UINT16_MAX, false, 0);
        check("18446744073709551616", UINT64_MAX, false, 0);
        check("99999999999999999999999999", UINT64_MAX, false, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_others),
                cmocka_unit_test(test_too_large),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
