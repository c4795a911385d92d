/* The RESP reader: whole commands, commands in pieces, everything that must be refused, and bytes
 * at random. Includes its subject. */
#include "api/resp.c"

#include "base/rng.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct read_case {
        const char *why;
        struct bytes input;
        enum resp_result result;
        size_t arg_count;
        const char *last_arg;
};

static const struct read_case read_cases[] = {
        {"nothing yet", BYTES_INIT(""), RESP_MORE, 0, NULL},
        {"an array", BYTES_INIT("*1\r\n$4\r\nPING\r\n"), RESP_COMMAND, 1, "PING"},
        {"two words", BYTES_INIT("*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n"), RESP_COMMAND, 2, "hi"},
        {"an empty bulk", BYTES_INIT("*1\r\n$0\r\n\r\n"), RESP_COMMAND, 1, ""},
        {"CR LF inside a bulk", BYTES_INIT("*1\r\n$2\r\n\r\n\r\n"), RESP_COMMAND, 1, "\r\n"},
        {"an empty array", BYTES_INIT("*0\r\n"), RESP_COMMAND, 0, NULL},
        {"a null array", BYTES_INIT("*-1\r\n"), RESP_COMMAND, 0, NULL},
        {"inline", BYTES_INIT("ECHO  hi \r\n"), RESP_COMMAND, 2, "hi"},
        {"inline with a bare LF", BYTES_INIT("PING\n"), RESP_COMMAND, 1, "PING"},
        {"an empty line", BYTES_INIT("\r\n"), RESP_COMMAND, 0, NULL},
        {"LF alone", BYTES_INIT("\n"), RESP_COMMAND, 0, NULL},
        {"a header without its end", BYTES_INIT("*1\r"), RESP_MORE, 0, NULL},
        {"a bulk without its end", BYTES_INIT("*1\r\n$4\r\nPING\r"), RESP_MORE, 0, NULL},
        {"a bulk ended wrongly", BYTES_INIT("*1\r\n$4\r\nPINGxx"), RESP_INVALID, 0, NULL},
        {"no number", BYTES_INIT("*\r\n"), RESP_INVALID, 0, NULL},
        {"a negative array", BYTES_INIT("*-2\r\n"), RESP_INVALID, 0, NULL},
        {"a signed array", BYTES_INIT("*+1\r\n"), RESP_INVALID, 0, NULL},
        {"a null bulk in a command", BYTES_INIT("*1\r\n$-1\r\n"), RESP_INVALID, 0, NULL},
        {"an integer for a bulk", BYTES_INIT("*1\r\n:1\r\n"), RESP_INVALID, 0, NULL},
        {"letters for a number", BYTES_INIT("*1\r\n$4x\r\nPING\r\n"), RESP_INVALID, 0, NULL},
        {"the most arguments but missing", BYTES_INIT("*256\r\n"), RESP_MORE, 0, NULL},
        {"one argument too many", BYTES_INIT("*257\r\n"), RESP_INVALID, 0, NULL},
        {"the longest bulk but missing", BYTES_INIT("*1\r\n$65536\r\n"), RESP_MORE, 0, NULL},
        {"a bulk too long", BYTES_INIT("*1\r\n$65537\r\n"), RESP_INVALID, 0, NULL},
        {"a number beyond 64 bits", BYTES_INIT("*1\r\n$18446744073709551617\r\n"), RESP_INVALID, 0,
         NULL},
        {"a header line without end", BYTES_INIT("*11111111111111111111111111111111"), RESP_INVALID,
         0, NULL},
};

static void check_case(const struct read_case *row)
{
        struct resp_reader reader;
        resp_reader_reset(&reader);
        enum resp_result result = resp_read(&reader, row->input);
        if (result != row->result || (result == RESP_COMMAND && reader.arg_count != row->arg_count))
                fail_msg("%s: result %d, %zu arguments", row->why, (int)result, reader.arg_count);
        assert_true(result != RESP_INVALID || reader.error != NULL);
        if (result == RESP_COMMAND)
                assert_int_equal(reader.at, row->input.len);
        if (row->last_arg != NULL) {
                struct bytes last = resp_arg(&reader, row->input, reader.arg_count - 1);
                assert_true(bytes_equal(last, bytes_of_str(row->last_arg)));
        }
}

static void reads_each_case(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(read_cases); i++)
                check_case(&read_cases[i]);
}

/* The same bytes one at a time give the same answer as all at once. */
static void reads_byte_by_byte(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(read_cases); i++) {
                const struct read_case *row = &read_cases[i];
                struct resp_reader reader;
                resp_reader_reset(&reader);
                enum resp_result result = RESP_MORE;
                for (size_t len = 1; len <= row->input.len && result == RESP_MORE; len++)
                        result = resp_read(&reader, bytes_of(row->input.ptr, len));
                if (result != row->result)
                        fail_msg("%s, byte by byte: result %d", row->why, (int)result);
        }
}

static void refuses_endless_lines(void **state)
{
        (void)state;
        static uint8_t line[RESP_LINE_MAX];
        memset(line, 'a', sizeof line);
        struct resp_reader reader;
        resp_reader_reset(&reader);
        assert_int_equal(resp_read(&reader, bytes_of(line, sizeof line - 1)), RESP_MORE);
        assert_int_equal(resp_read(&reader, bytes_of(line, sizeof line)), RESP_INVALID);
}

/* Many bulks, each within its limit, may not add up to more than a command may have. */
static void refuses_endless_commands(void **state)
{
        (void)state;
        static uint8_t input[RESP_COMMAND_MAX * 2];
        size_t len = (size_t)snprintf((char *)input, sizeof input, "*64\r\n");
        struct resp_reader reader;
        resp_reader_reset(&reader);
        enum resp_result result = RESP_MORE;
        while (result == RESP_MORE && len + RESP_BULK_MAX + 16 < sizeof input) {
                len += (size_t)snprintf((char *)input + len, 16, "$%d\r\n", RESP_BULK_MAX);
                memset(input + len, 'a', RESP_BULK_MAX);
                len += RESP_BULK_MAX;
                input[len++] = '\r';
                input[len++] = '\n';
                result = resp_read(&reader, bytes_of(input, len));
        }
        assert_int_equal(result, RESP_INVALID);
        assert_true(len <= RESP_COMMAND_MAX + RESP_BULK_MAX + 16);
}

/* Whatever arrives, in whatever pieces: no step back, no argument outside the input. */
static void survives_random_bytes(void **state)
{
        (void)state;
        static const char alphabet[] = "*$:+-0123456789\r\n\r\n\r\nPING \0\xff";
        uint64_t seed = 20261;
        struct rng rng;
        rng_init(&rng, seed, 0);
        for (unsigned round = 0; round < 20000; round++) {
                uint8_t input[96];
                size_t len = (size_t)rng_between(&rng, 1, sizeof input);
                for (size_t i = 0; i < len; i++)
                        input[i] = (uint8_t)alphabet[rng_below(&rng, sizeof alphabet - 1)];
                struct resp_reader reader;
                resp_reader_reset(&reader);
                size_t seen = 0;
                enum resp_result result = RESP_MORE;
                while (seen < len && result == RESP_MORE) {
                        seen += (size_t)rng_between(&rng, 1, len - seen);
                        uint32_t before = reader.at;
                        result = resp_read(&reader, bytes_of(input, seen));
                        assert_true(reader.at >= before && reader.at <= seen);
                }
                for (size_t i = 0; result == RESP_COMMAND && i < reader.arg_count; i++)
                        (void)resp_arg(&reader, bytes_of(input, seen), i);
        }
}

/* What survives a flip of one bit is either refused or still well formed. */
static void survives_bit_flips(void **state)
{
        (void)state;
        static const char good[] = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n";
        for (size_t bit = 0; bit < (sizeof good - 1) * 8; bit++) {
                uint8_t input[sizeof good - 1];
                memcpy(input, good, sizeof input);
                input[bit / 8] = (uint8_t)(input[bit / 8] ^ (1u << bit % 8));
                struct resp_reader reader;
                resp_reader_reset(&reader);
                if (resp_read(&reader, bytes_of(input, sizeof input)) == RESP_COMMAND)
                        assert_true(reader.at <= sizeof input);
        }
}

static void numbers_have_bounds(void **state)
{
        (void)state;
        uint64_t value = 7;
        assert_true(resp_number(BYTES("18446744073709551615"), UINT64_MAX, &value));
        assert_true(value == UINT64_MAX);
        assert_false(resp_number(BYTES("18446744073709551616"), UINT64_MAX, &value));
        assert_true(resp_number(BYTES("10"), 10, &value));
        assert_false(resp_number(BYTES("11"), 10, &value));
        assert_int_equal(value, 10);
        assert_false(resp_number(BYTES(""), 10, &value));
        assert_false(resp_number(BYTES("-1"), 10, &value));
        assert_false(resp_number(BYTES(" 1"), 10, &value));
        assert_false(resp_number(BYTES("1e1"), 10, &value));
}

static void errors_stay_on_one_line(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer out;
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        resp_write_error(&out, "ERR unknown command '%s'", "a\r\n+OK\r\n");
        assert_true(bytes_equal(buffer_view(&out), BYTES("-ERR unknown command 'a  +OK  '\r\n")));
        buffer_reset(&out);
        resp_write_null(&out, 2);
        resp_write_null(&out, 3);
        resp_write_map(&out, 2, 3);
        resp_write_map(&out, 3, 3);
        assert_true(bytes_equal(buffer_view(&out), BYTES("$-1\r\n_\r\n*6\r\n%3\r\n")));
        buffer_fini(&out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reads_each_case),       cmocka_unit_test(reads_byte_by_byte),
                cmocka_unit_test(refuses_endless_lines), cmocka_unit_test(refuses_endless_commands),
                cmocka_unit_test(survives_random_bytes), cmocka_unit_test(survives_bit_flips),
                cmocka_unit_test(numbers_have_bounds),   cmocka_unit_test(errors_stay_on_one_line),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
