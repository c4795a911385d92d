/* routing.h - which regions should serve a client, in order, and why. One set of rules for DNS, for
 * the edge and for `meridian why-route`.
 *
 * Two steps. routing_compile turns a topology (and, where known, the measured round-trip times from
 * the own region) into a table of unit vectors; it is done once per change. routing_order then
 * answers for one client: no allocation, no system call, three multiplications a region (an
 * arc cosine more where a bias is set; routing_order computes distances for the reader, too). All
 * comparisons are of integers, ties go to the smaller region id, so equal input gives equal output
 * on every machine that runs the same table. */
#ifndef MERIDIAN_ROUTING_ROUTING_H
#define MERIDIAN_ROUTING_ROUTING_H

#include "base/bytes.h"
#include "topology/topology.h"

enum {
        ROUTING_RTT_UNKNOWN = 0,
        ROUTING_LOAD_UNKNOWN = 0,
        ROUTING_LOAD_FULL = 1000, /* per mille: no room left */
        ROUTING_SENTENCE_SIZE = 256,
};

/* One region as the hot path needs it. Without pointers, so that a table may live in the view. */
struct routing_entry {
        double x, y, z;    /* unit vector; all 0 where the place is unknown */
        double stretch;    /* distances are multiplied by this: the bias as a factor, 1 for none */
        uint32_t rtt_us;   /* from the own region; ROUTING_RTT_UNKNOWN if never measured */
        uint32_t capacity; /* as in the topology */
        uint8_t id;        /* of the region */
        uint8_t place_known;
        uint8_t data; /* 0 for a witness, which is never routed to */
        char name[TOPOLOGY_NAME_SIZE];
};

struct routing_table {
        uint32_t count;
        uint8_t own;                                        /* region id, 0: none */
        uint8_t biased;                                     /* any stretch is not 1 */
        struct routing_entry entries[TOPOLOGY_REGIONS_MAX]; /* in the order of the topology */
};

/* What changes from moment to moment, by the index of the topology. */
struct routing_hint {
        bool routable;           /* state, verdict and self-declared health allow it */
        uint16_t load_per_mille; /* of its capacity; ROUTING_LOAD_UNKNOWN, or 1..; >= FULL goes last
                                  */
};

/* Where the client is. */
struct routing_place {
        bool known;
        int32_t latitude_udeg;
        int32_t longitude_udeg;
};

struct routing_query {
        enum topology_policy policy;
        struct routing_place place; /* unknown: as if the client were in the own region */
        bool by_rtt; /* the client is the own region itself (edge): own region first, then by RTT */
        const uint8_t *order; /* region ids, for REGION and FAILOVER; borrowed */
        size_t order_count;
};

/* Why a region stands where it stands. The first ones are usable, the last ones not. */
enum routing_reason {
        ROUTING_NEAREST_PLACE, /* by great-circle distance (with bias) from the client */
        ROUTING_NEAREST_RTT,   /* by measured round-trip time from the own region */
        ROUTING_OWN,           /* it is the own region, and the client's place is unknown */
        ROUTING_OWN_PLACE,     /* by distance from the own region: nothing better is known */
        ROUTING_NAMED,         /* the policy names it */
        ROUTING_UNPLACED,   /* neither its place nor a round-trip time is known: after the rest */
        ROUTING_FULL,       /* usable, but its load is at its capacity: after those with room */
        ROUTING_FAIL_OPEN,  /* unroutable, but so are all: answered as configured */
        ROUTING_UNROUTABLE, /* skipped */
        ROUTING_REASON_COUNT,
};

struct routing_choice {
        uint8_t region; /* id */
        uint8_t index;  /* in the topology and the table */
        enum routing_reason reason;
        uint32_t distance_m; /* from the client, without bias; UINT32_MAX if unknown */
        uint32_t rtt_us;     /* ROUTING_RTT_UNKNOWN if unknown */
};

struct routing_route {
        size_t count;        /* of choices; 0 only where the policy has no data region at all */
        size_t usable_count; /* the first of them may be used, in this order */
        bool fail_open;      /* all were unroutable */
        struct routing_choice choices[TOPOLOGY_REGIONS_MAX];
};

/* Makes the table for the region `own` (id; 0 if none). `rtt_us` has one value for each region in
 * the order of the topology (ROUTING_RTT_UNKNOWN where not measured), or is NULL. */
void routing_compile(const struct topology *topology, uint8_t own, const uint32_t *rtt_us,
                     struct routing_table *ret);

/* Is a table that came from shared memory fit for use? Bounds, ids, finite numbers. */
bool routing_table_valid(const struct routing_table *table);

/* Orders the regions for a client. `hints` has table->count entries. A witness is never among the
 * choices. All unroutable: fail_open, and all are usable in the same order as if they were well.
 * REGION: the one region, always usable (fail_open tells if it is unroutable). */
void routing_order(const struct routing_table *table, const struct routing_hint *hints,
                   const struct routing_query *query, struct routing_route *ret);

/* The best region alone, for the hot path: the index of what would be choices[0], or -1 if none.
 * *ret_fail_open may be NULL. */
int routing_best(const struct routing_table *table, const struct routing_hint *hints,
                 const struct routing_query *query, bool *ret_fail_open);

/* Great-circle distance in metres; the table's place of a region to a client.
 * UINT32_MAX if either is unknown. */
uint32_t routing_distance_m(const struct routing_table *table, size_t index,
                            struct routing_place place);

/* One sentence for a person about a choice of a route for that query: "us-east: nearest to the
 * client, 312 km". Returns `text`. */
const char *routing_explain(const struct routing_table *table, const struct routing_query *query,
                            const struct routing_choice *choice,
                            char text[static ROUTING_SENTENCE_SIZE]);

/* "nearest-place", ...; static. */
const char *routing_reason_name(enum routing_reason reason);

#endif
