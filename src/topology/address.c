/* Addresses and endpoints from and to text, numeric forms only. A false return means that the text
 * is not one; outputs are set on success alone. */
#include "topology/topology.h"

#include <arpa/inet.h>
#include <stdio.h>

static bool address_of_family(const char *text, uint8_t family, struct topology_address *ret)
{
        struct topology_address address = {.family = family};
        if (inet_pton(family == 4 ? AF_INET : AF_INET6, text, address.bytes) != 1)
                return false;
        *ret = address;
        return true;
}

bool topology_address_parse(struct bytes text, struct topology_address *ret)
{
        char copy[TOPOLOGY_ADDRESS_TEXT] = {0};
        if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, 0, text.len) != NULL)
                return false;
        memcpy(copy, text.ptr, text.len);
        return address_of_family(copy, 4, ret) || address_of_family(copy, 6, ret);
}

static bool port_parse(struct bytes text, uint16_t *ret)
{
        uint32_t port = 0;
        if (text.len == 0 || text.len > 5 || text.ptr[0] == '0')
                return false;
        for (size_t i = 0; i < text.len; i++) {
                if (text.ptr[i] < '0' || text.ptr[i] > '9')
                        return false;
                port = port * 10 + (uint32_t)(text.ptr[i] - '0');
        }
        if (port > UINT16_MAX)
                return false;
        *ret = (uint16_t)port;
        return true;
}

/* Splits "host:port" or "[host]:port" at its last colon. */
static bool endpoint_split(struct bytes text, struct bytes *ret_host, struct bytes *ret_port)
{
        size_t colon = text.len;
        while (colon > 0 && text.ptr[colon - 1] != ':')
                colon--;
        if (colon < 2)
                return false;
        *ret_port = bytes_of(text.ptr + colon, text.len - colon);
        *ret_host = bytes_of(text.ptr, colon - 1);
        return true;
}

bool topology_endpoint_parse(struct bytes text, struct topology_endpoint *ret)
{
        struct topology_endpoint endpoint = {0};
        struct bytes host, port;
        if (!endpoint_split(text, &host, &port) || !port_parse(port, &endpoint.port))
                return false;
        bool bracketed = host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
        if (bracketed)
                host = bytes_of(host.ptr + 1, host.len - 2);
        if (!topology_address_parse(host, &endpoint.address) ||
            bracketed != (endpoint.address.family == 6))
                return false;
        *ret = endpoint;
        return true;
}

const char *topology_address_text(const struct topology_address *address,
                                  char text[static TOPOLOGY_ADDRESS_TEXT])
{
        if (address->family == 0 || inet_ntop(address->family == 4 ? AF_INET : AF_INET6,
                                              address->bytes, text, TOPOLOGY_ADDRESS_TEXT) == NULL)
                (void)snprintf(text, TOPOLOGY_ADDRESS_TEXT, "none");
        return text;
}

const char *topology_endpoint_text(const struct topology_endpoint *endpoint,
                                   char text[static TOPOLOGY_ENDPOINT_TEXT])
{
        char host[TOPOLOGY_ADDRESS_TEXT];
        topology_address_text(&endpoint->address, host);
        if (endpoint->address.family == 6)
                (void)snprintf(text, TOPOLOGY_ENDPOINT_TEXT, "[%s]:%u", host, endpoint->port);
        else if (endpoint->address.family == 4)
                (void)snprintf(text, TOPOLOGY_ENDPOINT_TEXT, "%s:%u", host, endpoint->port);
        else
                (void)snprintf(text, TOPOLOGY_ENDPOINT_TEXT, "%s", host);
        return text;
}
