/* What a client of PostgreSQL says first: a length and a code, in network order. Sessions and
 * requests for encryption are passed on as they are; a request to cancel has to be recognised, and
 * so has a plain session that is refused, which gets its error only after its whole packet. */
#include "road/road_priv.h"

enum {
        CODE_CANCEL = 80877102,
        CODE_SSL = 80877103,
        CODE_GSS = 80877104,
        HEAD_BYTES = 8,
        TLS_HANDSHAKE = 0x16,
};

static uint32_t u32_at(struct bytes data, size_t at)
{
        return (uint32_t)data.ptr[at] << 24 | (uint32_t)data.ptr[at + 1] << 16 |
               (uint32_t)data.ptr[at + 2] << 8 | data.ptr[at + 3];
}

enum startup startup_look(struct bytes data)
{
        if (data.len > 0 && data.ptr[0] == TLS_HANDSHAKE)
                return STARTUP_TLS;
        if (data.len < HEAD_BYTES)
                return STARTUP_MORE;
        uint32_t len = u32_at(data, 0), code = u32_at(data, 4);
        if (len < HEAD_BYTES || len > ROAD_FIRST_MAX)
                return STARTUP_BAD;
        if (code == CODE_SSL || code == CODE_GSS)
                return len == HEAD_BYTES ? STARTUP_ENCRYPT : STARTUP_BAD;
        if (code == CODE_CANCEL && len != CANCEL_BYTES)
                return STARTUP_BAD;
        if (data.len < len)
                return STARTUP_MORE;
        return code == CODE_CANCEL ? STARTUP_CANCEL : STARTUP_SESSION;
}

struct refusal_row {
        const char *code; /* SQLSTATE */
        const char *hint;
};

static const struct refusal_row refusal_rows[REFUSAL_COUNT] = {
        [REFUSAL_NO_SERVER] = {"57P03", "Try again. `meridian status` tells which server is to "
                                        "take over, and what it waits for."},
        [REFUSAL_TOO_MANY] = {"53300", "Close some, use a pooler, or raise `postgres connections` "
                                       "in meridiand's configuration."},
};

static const char *const no_server[ROAD_DOOR_COUNT] = {
        [ROAD_WRITE] = "no server takes writes now",
        [ROAD_READ] = "no server can be read now",
        [ROAD_FOLLOW] = "there is no server to follow now",
};

static void field(struct buffer *out, char kind, const char *text)
{
        buffer_u8(out, (uint8_t)kind);
        buffer_bytes(out, bytes_of(text, strlen(text) + 1));
}

void startup_refuse(enum refusal refusal, enum road_door door, struct buffer *out)
{
        const struct refusal_row *row = &refusal_rows[refusal];
        buffer_u8(out, 'E');
        size_t at = out->len;
        buffer_u32(out, 0);
        field(out, 'S', "FATAL");
        field(out, 'V', "FATAL");
        field(out, 'C', row->code);
        field(out, 'M',
              refusal == REFUSAL_NO_SERVER ? no_server[door] : "too many connections by this door");
        field(out, 'H', row->hint);
        buffer_u8(out, 0);
        if (out->err != ERR_NONE)
                return;
        size_t len = out->len - at;
        for (unsigned i = 0; i < 4; i++)
                out->ptr[at + i] = (uint8_t)(len >> (24 - 8 * i));
}
