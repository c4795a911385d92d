/* resp.h - RESP, the protocol that Redis clients speak: commands in, replies out. Pure: bytes in,
 * decisions out. Private to api/.
 *
 * The reader is incremental: the caller keeps the input of the command that is not yet whole at the
 * front of its buffer, appends what arrives and calls resp_read again; no byte is looked at twice
 * except within one header line. */
#ifndef MERIDIAN_API_RESP_H
#define MERIDIAN_API_RESP_H

#include "base/buffer.h"
#include "base/bytes.h"

#define RESP_ARGS_MAX    256
#define RESP_BULK_MAX    65536
#define RESP_LINE_MAX    4096
#define RESP_COMMAND_MAX ((size_t)256 * 1024)

enum resp_result {
        RESP_MORE,    /* not yet whole */
        RESP_COMMAND, /* args[0 .. arg_count) is one command; arg_count may be 0: ignore it */
        RESP_INVALID, /* not RESP, or beyond a limit: say `error`, then close */
};

struct resp_span {
        uint32_t at;
        uint32_t len;
};

struct resp_reader {
        uint32_t at;        /* bytes of this command taken so far */
        uint32_t args_left; /* of an array */
        uint32_t bulk_len;  /* of the bulk whose header was read */
        bool array_open;
        bool bulk_open;
        size_t arg_count;
        struct resp_span args[RESP_ARGS_MAX];
        const char *error; /* static, set by RESP_INVALID */
};

/* Makes it ready for the next command. */
void resp_reader_reset(struct resp_reader *reader);

/* Goes on with the command that begins at input.ptr. After RESP_COMMAND, `reader->at` bytes belong
 * to it: the caller uses them, drops them and resets. */
MUST_USE enum resp_result resp_read(struct resp_reader *reader, struct bytes input);

/* An argument of the command just read, borrowed from the same input. */
struct bytes resp_arg(const struct resp_reader *reader, struct bytes input, size_t index);

/* An unsigned decimal number <= max, with nothing around it. False for anything else. */
MUST_USE bool resp_number(struct bytes text, uint64_t max, uint64_t *ret_value);

/* True where `text` is `name` (upper case letters) in any case. */
MUST_USE bool resp_is(struct bytes text, const char *name);

/* Replies. `protocol` is 2 or 3. */
void resp_write_simple(struct buffer *out, const char *text);
void resp_write_error(struct buffer *out, const char *format, ...) PRINTF_LIKE(2, 3);
void resp_write_integer(struct buffer *out, uint64_t value);
void resp_write_bulk(struct buffer *out, struct bytes data);
void resp_write_null(struct buffer *out, int protocol);
void resp_write_array(struct buffer *out, size_t count);
void resp_write_map(struct buffer *out, int protocol, size_t pairs);

#endif
