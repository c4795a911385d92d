/* resp.c - RESP as Redis servers accept it: arrays of bulk strings, and inline commands (words on a
 * line, for people with telnet).
 *
 *   *2\r\n $4\r\n ECHO\r\n $2\r\n hi\r\n          ECHO hi\r\n
 *
 * Everything outside the limits of resp.h is refused with a sentence; after that the stream has no
 * meaning any more, so the connection is to be closed. */
#include "api/resp.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>

#define HEADER_MAX 32 /* "*" or "$", a number, CR LF */

void resp_reader_reset(struct resp_reader *reader)
{
        *reader = (struct resp_reader){0};
}

static enum resp_result invalid(struct resp_reader *reader, const char *error)
{
        reader->error = error;
        return RESP_INVALID;
}

bool resp_number(struct bytes text, uint64_t max, uint64_t *ret_value)
{
        uint64_t value = 0;
        if (text.len == 0 || text.len > 20)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                uint8_t digit = (uint8_t)(text.ptr[i] - '0');
                if (digit > 9 || value > (UINT64_MAX - digit) / 10)
                        return false;
                value = value * 10 + digit;
        }
        if (value > max)
                return false;
        *ret_value = value;
        return true;
}

static uint8_t upper(uint8_t byte)
{
        return byte >= 'a' && byte <= 'z' ? (uint8_t)(byte - 'a' + 'A') : byte;
}

bool resp_is(struct bytes text, const char *name)
{
        size_t len = strlen(name);
        if (text.len != len)
                return false;
        for (size_t i = 0; i < len; i++) {
                if (upper(text.ptr[i]) != (uint8_t)name[i])
                        return false;
        }
        return true;
}

/* Finds the line that begins at reader->at. `line` is without its end; a CR before the LF goes. */
static enum resp_result line_find(struct resp_reader *reader, struct bytes input, size_t len_max,
                                  struct bytes *ret_line, uint32_t *ret_next)
{
        const uint8_t *begin = input.ptr + reader->at;
        size_t left = input.len - reader->at;
        size_t look = left < len_max ? left : len_max;
        const uint8_t *end = look == 0 ? NULL : memchr(begin, '\n', look);
        if (end == NULL)
                return left >= len_max ? invalid(reader, "Protocol error: line too long")
                                       : RESP_MORE;
        size_t len = (size_t)(end - begin);
        *ret_next = reader->at + (uint32_t)len + 1;
        if (len > 0 && begin[len - 1] == '\r')
                len--;
        *ret_line = bytes_of(begin, len);
        return RESP_COMMAND;
}

static bool arg_add(struct resp_reader *reader, uint32_t at, uint32_t len)
{
        if (reader->arg_count == RESP_ARGS_MAX)
                return false;
        reader->args[reader->arg_count++] = (struct resp_span){at, len};
        return true;
}

static bool is_space(uint8_t byte)
{
        return byte == ' ' || byte == '\t';
}

/* Words of an inline command; quotes have no meaning. */
static enum resp_result inline_read(struct resp_reader *reader, struct bytes input)
{
        struct bytes line = {0};
        uint32_t next = 0;
        enum resp_result result = line_find(reader, input, RESP_LINE_MAX, &line, &next);
        if (result != RESP_COMMAND)
                return result;
        size_t at = 0;
        while (at < line.len) {
                if (is_space(line.ptr[at])) {
                        at++;
                        continue;
                }
                size_t begin = at;
                while (at < line.len && !is_space(line.ptr[at]))
                        at++;
                if (!arg_add(reader, (uint32_t)begin, (uint32_t)(at - begin)))
                        return invalid(reader, "Protocol error: too many arguments");
        }
        reader->at = next;
        return RESP_COMMAND;
}

/* A header line: `mark`, then a number. "-1" is told apart by ret_null where the caller allows. */
static enum resp_result header_read(struct resp_reader *reader, struct bytes input, uint8_t mark,
                                    uint64_t max, const char *error, uint64_t *ret_value)
{
        struct bytes line = {0};
        uint32_t next = 0;
        enum resp_result result = line_find(reader, input, HEADER_MAX, &line, &next);
        if (result != RESP_COMMAND)
                return result;
        if (line.len < 2 || line.ptr[0] != mark)
                return invalid(reader, error);
        struct bytes number = bytes_of(line.ptr + 1, line.len - 1);
        if (mark == '*' && bytes_equal(number, BYTES("-1")))
                *ret_value = 0;
        else if (!resp_number(number, max, ret_value))
                return invalid(reader, error);
        reader->at = next;
        return RESP_COMMAND;
}

static enum resp_result bulk_read(struct resp_reader *reader, struct bytes input)
{
        uint64_t len = 0;
        if (!reader->bulk_open) {
                if (reader->at >= input.len)
                        return RESP_MORE;
                enum resp_result result = header_read(reader, input, '$', RESP_BULK_MAX,
                                                      "Protocol error: invalid bulk length", &len);
                if (result != RESP_COMMAND)
                        return result;
                reader->bulk_len = (uint32_t)len;
                reader->bulk_open = true;
        }
        if (input.len - reader->at < (size_t)reader->bulk_len + 2)
                return RESP_MORE;
        uint32_t end = reader->at + reader->bulk_len;
        if (input.ptr[end] != '\r' || input.ptr[end + 1] != '\n')
                return invalid(reader, "Protocol error: a bulk string must end with CR LF");
        if (!arg_add(reader, reader->at, reader->bulk_len))
                return invalid(reader, "Protocol error: too many arguments");
        reader->at = end + 2;
        reader->bulk_open = false;
        return RESP_COMMAND;
}

enum resp_result resp_read(struct resp_reader *reader, struct bytes input)
{
        CHECK(reader->at <= input.len);
        if (input.len == 0)
                return RESP_MORE;
        if (!reader->array_open) {
                if (input.ptr[0] != '*')
                        return inline_read(reader, input);
                uint64_t count = 0;
                enum resp_result result =
                        header_read(reader, input, '*', RESP_ARGS_MAX,
                                    "Protocol error: invalid multibulk length", &count);
                if (result != RESP_COMMAND)
                        return result;
                reader->array_open = true;
                reader->args_left = (uint32_t)count;
        }
        while (reader->args_left > 0) {
                enum resp_result result = bulk_read(reader, input);
                if (result == RESP_MORE && input.len > RESP_COMMAND_MAX)
                        return invalid(reader, "Protocol error: command too long");
                if (result != RESP_COMMAND)
                        return result;
                reader->args_left--;
        }
        return RESP_COMMAND;
}

struct bytes resp_arg(const struct resp_reader *reader, struct bytes input, size_t index)
{
        CHECK(index < reader->arg_count);
        struct resp_span span = reader->args[index];
        CHECK((size_t)span.at + span.len <= input.len);
        return bytes_of(input.ptr + span.at, span.len);
}

void resp_write_simple(struct buffer *out, const char *text)
{
        buffer_format(out, "+%s\r\n", text);
}

/* CR and LF inside would end the error early, and the client would lose its place. */
void resp_write_error(struct buffer *out, const char *format, ...)
{
        char text[512];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        for (char *c = text; *c != '\0'; c++) {
                if (*c == '\r' || *c == '\n')
                        *c = ' ';
        }
        buffer_format(out, "-%s\r\n", text);
}

void resp_write_integer(struct buffer *out, uint64_t value)
{
        buffer_format(out, ":%llu\r\n", (unsigned long long)value);
}

void resp_write_bulk(struct buffer *out, struct bytes data)
{
        buffer_format(out, "$%zu\r\n", data.len);
        buffer_bytes(out, data);
        buffer_bytes(out, BYTES("\r\n"));
}

void resp_write_null(struct buffer *out, int protocol)
{
        buffer_bytes(out, protocol == 3 ? BYTES("_\r\n") : BYTES("$-1\r\n"));
}

void resp_write_array(struct buffer *out, size_t count)
{
        buffer_format(out, "*%zu\r\n", count);
}

void resp_write_map(struct buffer *out, int protocol, size_t pairs)
{
        buffer_format(out, "%c%zu\r\n", protocol == 3 ? '%' : '*',
                      protocol == 3 ? pairs : pairs * 2);
}
