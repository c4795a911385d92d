/* geo_write.h - makes a MaxMind-format database (version 2.0, IPv6 tree with IPv4 in ::/96, 32-bit
 * records): networks with country, city and coordinates. Pure: bytes in, bytes out. */
#ifndef MERIDIAN_GEO_GEO_WRITE_H
#define MERIDIAN_GEO_GEO_WRITE_H

#include "base/buffer.h"
#include "geo/geo.h"

struct geo_network {
        struct geo_address address; /* bits after prefix_len are zero */
        uint8_t prefix_len;         /* 0 to 32 or 128 */
        struct bytes country;       /* ISO 3166 code, may be empty */
        struct bytes city;          /* English name, UTF-8, may be empty */
        double latitude;
        double longitude;
};

struct geo_write_error {
        size_t line;     /* of the table, from 1; 0: not about a line */
        const char *why; /* static */
};

/* Appends the database of `count` networks to `out`. A network inside another one wins there;
 * the same network twice is an error. `heap` is used for the call only. `build_epoch` is Unix time
 * in seconds. Errors: ERR_INVALID (a field out of range, `error->line` is the index from 1),
 * ERR_EXISTS (twice), ERR_NOMEM. */
MUST_USE enum err geo_write(struct heap *heap, const struct geo_network *networks, size_t count,
                            uint64_t build_epoch, struct buffer *out,
                            struct geo_write_error *error);

/* The same from text: one `network,country,city,latitude,longitude` a line; empty lines and lines
 * beginning with `#` or `network,` are skipped. Errors as above, and ERR_MALFORMED for a line that
 * is not of that form. */
MUST_USE enum err geo_write_csv(struct heap *heap, struct bytes csv, uint64_t build_epoch,
                                struct buffer *out, struct geo_write_error *error);

#endif
