/* client_subnet.c - FAMILY (2 octets), SOURCE PREFIX-LENGTH (1), SCOPE PREFIX-LENGTH (1), ADDRESS
 * (as many octets as SOURCE needs). Whatever is not exactly that is refused. */
#include "client_subnet.h"

#define HEADER_LEN 4u

/* The last octet may be covered in part only. */
static bool bits_clear_after(struct bytes octets, unsigned source_len)
{
        unsigned partial = source_len % 8;
        if (partial == 0)
                return true;
        return (octets.ptr[octets.len - 1] & (0xffu >> partial)) == 0;
}

bool client_subnet_parse(struct bytes option, struct geo_address *ret_address,
                         uint8_t *ret_source_len)
{
        if (option.len < HEADER_LEN)
                return false;
        unsigned family = (unsigned)option.ptr[0] << 8 | option.ptr[1];
        unsigned source_len = option.ptr[2];
        unsigned scope_len = option.ptr[3];
        struct bytes octets = bytes_of(option.ptr + HEADER_LEN, option.len - HEADER_LEN);

        if (family != 1 && family != 2)
                return false;
        if (source_len > (family == 1 ? 32u : 128u) || scope_len != 0)
                return false;
        if (octets.len != (source_len + 7) / 8 || !bits_clear_after(octets, source_len))
                return false;

        *ret_address = (struct geo_address){.family = family == 1 ? GEO_FAMILY_V4 : GEO_FAMILY_V6};
        if (octets.len > 0)
                memcpy(ret_address->ip, octets.ptr, octets.len);
        *ret_source_len = (uint8_t)source_len;
        return true;
}
