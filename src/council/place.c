/* Which group decides about a lock or a value: what its key has before the first colon. */
#include "council/council.h"

static bool name_byte(uint8_t byte)
{
        return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-';
}

enum council_place council_group_of(struct bytes key, struct bytes own_region,
                                    struct bytes *ret_region)
{
        size_t len = 0;
        while (len < key.len && len <= COUNCIL_NAME_BYTES_MAX && name_byte(key.ptr[len]))
                len++;
        if (len == 0 || len > COUNCIL_NAME_BYTES_MAX || len + 1 >= key.len || key.ptr[len] != ':')
                return COUNCIL_PLACE_INVALID;
        struct bytes name = bytes_of(key.ptr, len);
        if (ret_region != NULL)
                *ret_region = name;
        if (bytes_equal(name, BYTES("global")))
                return COUNCIL_PLACE_GLOBAL;
        return bytes_equal(name, own_region) ? COUNCIL_PLACE_HERE : COUNCIL_PLACE_ELSEWHERE;
}

const char *council_place_help(void)
{
        return "a key begins with \"global:\" (decided by a majority of regions) or with a "
               "region's name and a colon (decided in that region), e.g. \"global:config\" or "
               "\"us-east:order:12345\"";
}
