/* client_subnet.h - the EDNS Client Subnet option (RFC 7871) of a query. */
#ifndef MERIDIAN_KNOT_CLIENT_SUBNET_H
#define MERIDIAN_KNOT_CLIENT_SUBNET_H

#include "base/bytes.h"
#include "geo/geo.h"

/* Reads the option's data. False means FORMERR: too short, a family other than IPv4 and IPv6, a
 * source longer than the address, a scope in a query, a wrong number of octets, bits set beyond the
 * source (sections 6 and 7.2.1). ret_address is padded with zeros; *ret_source_len is 0 when the
 * client does not want to be located (7.1.2). */
bool client_subnet_parse(struct bytes option, struct geo_address *ret_address,
                         uint8_t *ret_source_len);

#endif
