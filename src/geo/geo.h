/* geo.h - where is this address: a MaxMind-format database (libmaxminddb), read by many threads,
 * replaced while they read.
 *
 * The prefix length of an answer is the depth of the leaf in the database's tree, also for an
 * address that the database does not know (the depth of the empty leaf). Leaves never overlap, so
 * answers scoped by it never overlap either, as RFC 7871 7.2.1 demands.
 *
 * Forms of IPv6 that carry an IPv4 address (mapped ::ffff:0:0/96, NAT64 64:ff9b::/96, 6to4
 * 2002::/16) are looked up as that IPv4 address; other IPv6 leaves are narrowed so that
 * they do not cover those. */
#ifndef MERIDIAN_GEO_GEO_H
#define MERIDIAN_GEO_GEO_H

#include "base/bytes.h"
#include "base/err.h"

struct sockaddr;

enum geo_family {
        GEO_FAMILY_NONE,
        GEO_FAMILY_V4,
        GEO_FAMILY_V6,
};

struct geo_address {
        enum geo_family family;
        uint8_t ip[16]; /* network order; IPv4 in the first four */
};

struct geo_place {
        bool located;       /* latitude and longitude are known */
        double latitude;    /* degrees, -90 to 90 */
        double longitude;   /* degrees, -180 to 180 */
        char country[3];    /* ISO 3166 code, or empty */
        uint8_t prefix_len; /* bits of the address that this answer is for: 0 to 32, or to 128 */
};

struct geo;

/* A reader of the database at `path` (copied). Reads nothing yet; NULL when out of memory. */
struct geo *geo_new(const char *path);

/* No other thread may use it any more. NULL is fine. */
void geo_free(struct geo *geo);

/* Off the hot path, one thread at a time, at start and then every second or so: opens the file when
 * it is new or another one, and puts it in the place of the former. A file that cannot be read, or
 * is not a usable database, leaves the former in use. *ret_changed (may be NULL) tells whether a
 * new database is in use. On an error `why` (NULL or of `why_size` bytes) gets a sentence naming
 * file and reason. Replace the file by rename, never in place: it is mapped. Errors: ERR_NOT_FOUND
 * (no file), ERR_MALFORMED, ERR_NOMEM, ERR_BUSY (try again), ERR_IO. */
MUST_USE enum err geo_refresh(struct geo *geo, bool *ret_changed, char *why, size_t why_size);

/* True once a database is in use. */
bool geo_ready(struct geo *geo);

/* The hot path: any thread, no allocation, no system call, below a microsecond. `shard` is the
 * thread's number (any value; see base/swap.h). Without a database, or for an unknown address:
 * located is false; without a database prefix_len is 0. */
struct geo_place geo_find(struct geo *geo, unsigned shard, const struct geo_address *address);

/* From text ("192.0.2.1", "2001:db8::1"): false when it is neither. */
MUST_USE bool geo_address_parse(const char *text, struct geo_address *ret);

/* From a socket address; family GEO_FAMILY_NONE for any but AF_INET and AF_INET6. */
struct geo_address geo_address_of(const struct sockaddr *address);

#endif
