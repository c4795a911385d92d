/* What a lock door may answer is read strictly: nothing else becomes a token or a lease. */
#include "../cmocka_all.h"
#include "base/rng.h"
#include "holder/answer.h"

#include <inttypes.h>
#include <string.h>

static const struct row {
        const char *text;
        enum answer_state state;
        enum answer_kind kind;
        size_t count;
        uint64_t numbers[2];
        const char *word;
} rows[] = {
        {":0\r\n", ANSWER_WHOLE, ANSWER_NUMBERS, 1, {0}, NULL},
        {":9223372036854775807\r\n", ANSWER_WHOLE, ANSWER_NUMBERS, 1, {INT64_MAX}, NULL},
        {":9223372036854775808\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":18446744073709551617\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":-1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":+1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {": 1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":1x\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":1\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":1\rx", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*2\r\n:7\r\n:1000\r\n", ANSWER_WHOLE, ANSWER_NUMBERS, 2, {7, 1000}, NULL},
        {"*1\r\n:7\r\n", ANSWER_WHOLE, ANSWER_NUMBERS, 1, {7}, NULL},
        {"*0\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*3\r\n:1\r\n:2\r\n:3\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*18446744073709551618\r\n:1\r\n:2\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*2\r\n$1\r\n7\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*2\r\n*2\r\n:7\r\n:1\r\n:1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*2\r\n:7\r\n-ERR no\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*2\r\n:7\r\n", ANSWER_MORE, 0, 0, {0}, NULL},
        {"*-1\r\n", ANSWER_WHOLE, ANSWER_NIL, 0, {0}, NULL},
        {"$-1\r\n", ANSWER_WHOLE, ANSWER_NIL, 0, {0}, NULL},
        {"_\r\n", ANSWER_WHOLE, ANSWER_NIL, 0, {0}, NULL},
        {"_x\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {":-1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"$-2\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"$3\r\nabc\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"-NOTOWNER it is not\r\n", ANSWER_WHOLE, ANSWER_ERROR, 0, {0}, "NOTOWNER it is not"},
        {"-a\tb\r\n", ANSWER_WHOLE, ANSWER_ERROR, 0, {0}, "a?b"},
        {"-\r\n", ANSWER_WHOLE, ANSWER_ERROR, 0, {0}, ""},
        {"+PONG\r\n", ANSWER_WHOLE, ANSWER_OTHER, 0, {0}, "PONG"},
        {":1\r\n:2\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"*2\r\n:7\r\n:1\r\n:1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"HTTP/1.1 400 Bad Request\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"%1\r\n", ANSWER_BAD, 0, 0, {0}, NULL},
        {"", ANSWER_MORE, 0, 0, {0}, NULL},
};

static void test_rows(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                const struct row *row = &rows[i];
                struct answer answer = {.count = 99};
                print_message("row %zu\n", i);
                assert_int_equal(answer_read(row->text, strlen(row->text), &answer), row->state);
                if (row->state != ANSWER_WHOLE) {
                        assert_int_equal(answer.count, 99); /* not clobbered */
                        continue;
                }
                assert_int_equal(answer.kind, row->kind);
                assert_int_equal(answer.count, row->count);
                for (size_t k = 0; k < row->count; k++)
                        assert_int_equal(answer.numbers[k], row->numbers[k]);
                if (row->word != NULL)
                        assert_string_equal(answer.text, row->word);
        }
}

/* A good answer that breaks off is no answer yet, at each of its bytes. */
static void test_truncated(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct answer answer;
                if (rows[i].state != ANSWER_WHOLE)
                        continue;
                for (size_t len = 0; len < strlen(rows[i].text); len++)
                        assert_int_equal(answer_read(rows[i].text, len, &answer), ANSWER_MORE);
        }
}

static void test_zero_bytes(void **state)
{
        struct answer answer;
        (void)state;
        assert_int_equal(answer_read("\0", 1, &answer), ANSWER_BAD);
        assert_int_equal(answer_read(":\0\r\n", 4, &answer), ANSWER_BAD);
        assert_int_equal(answer_read("-a\0b\r\n", 6, &answer), ANSWER_WHOLE);
        assert_string_equal(answer.text, "a?b");
}

static void test_long(void **state)
{
        char text[ANSWER_BYTES_MAX];
        struct answer answer;
        (void)state;
        memset(text, 'x', sizeof text);
        text[0] = '-';
        assert_int_equal(answer_read(text, sizeof text, &answer), ANSWER_BAD);
        assert_int_equal(answer_read(text, sizeof text - 1, &answer), ANSWER_MORE);
        memcpy(text + sizeof text - 2, "\r\n", 2);
        assert_int_equal(answer_read(text, sizeof text, &answer), ANSWER_WHOLE);
        assert_int_equal(strlen(answer.text), ANSWER_TEXT_SIZE - 1);
        text[0] = ':';
        assert_int_equal(answer_read(text, 100, &answer), ANSWER_BAD);
}

/* Whatever comes: no reading beyond the end (sanitizers), and numbers only from digits. */
static void test_noise(void **state)
{
        static const char letters[] = "+-:*$_0123456789\r\n\r\n :1";
        uint64_t seed = 20;
        struct rng rng;
        (void)state;
        rng_init(&rng, seed, 0);
        print_message("seed %" PRIu64 "\n", seed);
        for (int i = 0; i < 100000; i++) {
                char text[24];
                size_t len = (size_t)rng_below(&rng, sizeof text + 1);
                struct answer answer = {.count = 0};
                for (size_t k = 0; k < len; k++)
                        text[k] = letters[rng_below(&rng, sizeof letters)];
                enum answer_state read = answer_read(text, len, &answer);
                if (read != ANSWER_WHOLE)
                        continue;
                assert_true(answer.count <= 2);
                assert_memory_equal(text + len - 2, "\r\n", 2);
                for (size_t k = 0; k < answer.count; k++)
                        assert_true(answer.numbers[k] <= INT64_MAX);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),       cmocka_unit_test(test_truncated),
                cmocka_unit_test(test_zero_bytes), cmocka_unit_test(test_long),
                cmocka_unit_test(test_noise),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
