/* A query for an SOA, and whether an answer to it is well (RFC 1035, 4.1). Pure; any bytes may come
 * as an answer. */
#include "engine/engine_priv.h"

enum {
        HEADER_SIZE = 12,
        TYPE_SOA = 6,
        CLASS_IN = 1,
};

size_t dns_query(uint16_t id, struct bytes name, uint8_t ret[static DNS_QUERY_MAX])
{
        size_t at = HEADER_SIZE;
        memset(ret, 0, HEADER_SIZE);
        ret[0] = (uint8_t)(id >> 8);
        ret[1] = (uint8_t)id;
        ret[5] = 1; /* one question */
        if (name.len > 253)
                return 0;
        for (size_t i = 0; i < name.len;) {
                size_t len = 0;
                while (i + len < name.len && name.ptr[i + len] != '.')
                        len++;
                if (len == 0 || len > 63)
                        return 0;
                ret[at++] = (uint8_t)len;
                memcpy(ret + at, name.ptr + i, len);
                at += len;
                i += len + 1;
        }
        ret[at++] = 0;
        ret[at++] = 0;
        ret[at++] = TYPE_SOA;
        ret[at++] = 0;
        ret[at++] = CLASS_IN;
        return at;
}

const char *dns_answer_fault(struct bytes answer, struct bytes query, bool *ret_ours)
{
        static const char *const codes[16] = {
                [1] = "the DNS server answers FORMERR",  [2] = "the DNS server answers SERVFAIL",
                [3] = "the DNS server answers NXDOMAIN", [4] = "the DNS server answers NOTIMP",
                [5] = "the DNS server answers REFUSED",
        };
        *ret_ours = answer.len >= HEADER_SIZE && query.len >= HEADER_SIZE &&
                    answer.ptr[0] == query.ptr[0] && answer.ptr[1] == query.ptr[1] &&
                    (answer.ptr[2] & 0x80) != 0;
        if (!*ret_ours)
                return "the DNS server answers something else";
        unsigned code = answer.ptr[3] & 0x0f;
        if (code != 0)
                return codes[code] != NULL ? codes[code] : "the DNS server answers an error";
        if (answer.ptr[6] == 0 && answer.ptr[7] == 0)
                return "the DNS server does not know the zone";
        return NULL;
}
