/* answer.h - what DNS answers for a name of the view: the decision, without the server. */
#ifndef MERIDIAN_KNOT_ANSWER_H
#define MERIDIAN_KNOT_ANSWER_H

#include "geo/geo.h"
#include "view/view.h"

#include <stdatomic.h>

enum answer_kind {
        ANSWER_PASS,      /* not ours: whatever the zone file says */
        ANSWER_EMPTY,     /* the name exists, but has nothing of that type */
        ANSWER_ADDRESSES, /* at least one */
};

struct answer {
        enum answer_kind kind;
        const struct topology_address *addresses; /* borrowed from the view */
        uint32_t count;
        uint8_t family;    /* 4 or 6 */
        uint8_t scope_len; /* bits of the client's address that this answer is for; 0: all */
        uint32_t ttl_s;
};

/* Who asks. */
struct answer_client {
        struct geo_address address;
        bool scoped; /* it is a client-subnet prefix of more than 0 bits, so the scope is told */
};

/* Which region was nearest to which place, for one view; shared by all threads. Zeroed
 * memory is an empty one. */
#define ANSWER_CACHE_ENTRIES 2048u
struct answer_cache {
        _Atomic uint64_t entries[ANSWER_CACHE_ENTRIES];
};

/* The addresses of `family` (4 or 6) for a name; `name` may be NULL: ANSWER_PASS. `geo` may be
 * NULL, `cache` too. Only a region that has such an address is chosen, so that for each family
 * all clients get addresses, or none does: a resolver may take a negative answer for
 * everybody's (RFC 7871 7.4). */
struct answer answer_make(const struct view *view, const struct view_name *name, uint8_t family,
                          struct geo *geo, struct answer_cache *cache, unsigned shard,
                          const struct answer_client *client);

#endif
