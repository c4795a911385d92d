#include "base/bytes.h"
#include "base/err.h"

#include "../cmocka_all.h"

static int sign_of(int value)
{
        return (value > 0) - (value < 0);
}

static void test_compare(void **state)
{
        (void)state;
        static const struct {
                struct bytes a, b;
                int sign;
                const char *why;
        } rows[] = {
                {BYTES_INIT(""), BYTES_INIT(""), 0, "nothing equals nothing"},
                {BYTES_INIT(""), BYTES_INIT("a"), -1, "nothing comes first"},
                {BYTES_INIT("a"), BYTES_INIT("ab"), -1, "a prefix comes first"},
                {BYTES_INIT("b"), BYTES_INIT("ab"), 1, "the first byte decides"},
                {BYTES_INIT("\x80"), BYTES_INIT("\x7f"), 1, "bytes are unsigned"},
                {BYTES_INIT("a\0b"), BYTES_INIT("a\0c"), -1, "a NUL is a byte like any other"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (sign_of(bytes_compare(rows[i].a, rows[i].b)) != rows[i].sign)
                        fail_msg("%s", rows[i].why);
                if (sign_of(bytes_compare(rows[i].b, rows[i].a)) != -rows[i].sign)
                        fail_msg("%s, turned round", rows[i].why);
                assert_int_equal(bytes_equal(rows[i].a, rows[i].b), rows[i].sign == 0);
        }
}

static void test_starts_with(void **state)
{
        (void)state;
        assert_true(bytes_starts_with(BYTES("global:x"), BYTES("global:")));
        assert_true(bytes_starts_with(BYTES("x"), BYTES("")));
        assert_true(bytes_starts_with((struct bytes){0}, (struct bytes){0}));
        assert_false(bytes_starts_with(BYTES("glob"), BYTES("global")));
        assert_false(bytes_starts_with(BYTES("Global:"), BYTES("global:")));
}

static void test_errors_have_text(void **state)
{
        (void)state;
        for (int i = 0; i < ERR_COUNT; i++) {
                assert_true(strlen(err_text((enum err)i)) > 1);
                assert_int_equal(strncmp(err_name((enum err)i), "ERR_", 4), 0);
        }
        assert_string_equal(err_text(ERR_NONE), "ok");
        assert_string_equal(err_name(ERR_COUNT), "ERR_UNKNOWN");
        assert_true(err_may_retry(ERR_BUSY));
        assert_false(err_may_retry(ERR_CORRUPT));
        assert_false(err_may_retry(ERR_NONE));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_compare),
                cmocka_unit_test(test_starts_with),
                cmocka_unit_test(test_errors_have_text),
        };
        return cmocka_run_group_tests_name("base/bytes", tests, NULL, NULL);
}
