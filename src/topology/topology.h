/* topology.h - the document that says what the cluster is: regions, their nodes,
 * backends and public addresses, the zones and names that DNS answers by policy, and the
 * timing of failure detection.
 *
 * The text is in the nginx-like syntax of the universal configuration language (keys, values,
 * sections, arrays, `#` and C comments, suffixes of time); this room has its own parser of it,
 * because it must be pure and must name the line of every fault. The grammar that is accepted:
 *
 *      document  := (entry)*
 *      entry     := key ("=" | ":")? value end | key name? "{" (entry)* "}" end?
 *      value     := word | "quoted" | """many lines""" | "[" (value ("," value)*)? "]"
 *      end       := ";" | "," | newline | before "}"
 *
 * Unknown keys, duplicates and values out of range are errors, never warnings. */
#ifndef MERIDIAN_TOPOLOGY_TOPOLOGY_H
#define MERIDIAN_TOPOLOGY_TOPOLOGY_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"
#include "topology/state.h"

enum {
        TOPOLOGY_REGIONS_MAX = 32,
        TOPOLOGY_REGION_NODES_MAX = 9,
        TOPOLOGY_NODES_MAX = TOPOLOGY_REGIONS_MAX * TOPOLOGY_REGION_NODES_MAX,
        TOPOLOGY_BACKENDS_MAX = 64, /* a region */
        TOPOLOGY_ADDRESSES_MAX = 8, /* a region, of each family */
        TOPOLOGY_ZONES_MAX = 8,
        TOPOLOGY_NAMES_MAX = 128, /* of all zones together */
        TOPOLOGY_DATA_MAX = 64,   /* key prefixes with a policy of their own */
        TOPOLOGY_FUNCTIONS_MAX = 8,
        TOPOLOGY_POSTGRES_NODES_MAX = 32,
        TOPOLOGY_PREFIX_SIZE = 64,     /* of keys: 63 bytes and a NUL */
        TOPOLOGY_FUNCTION_SIZE = 4096, /* the text of a merge function, with its NUL */
        TOPOLOGY_REGION_ID_MAX = 64,
        TOPOLOGY_NAME_SIZE = 32,      /* cluster, region, node: 31 characters and a NUL */
        TOPOLOGY_LABEL_SIZE = 64,     /* a name inside a zone */
        TOPOLOGY_DOMAIN_SIZE = 256,   /* a zone, the names in its SOA */
        TOPOLOGY_ADDRESS_TEXT = 46,   /* an address as text, with its NUL */
        TOPOLOGY_ENDPOINT_TEXT = 56,  /* "[address]:port", with its NUL */
        TOPOLOGY_BYTES_MAX = 1 << 20, /* of the text */
};

/* An IP address. `family` is 4, 6 or 0 (none); an IPv4 address fills the first four bytes, the
 * rest is zero. Host names are refused on purpose: finding a node must not depend on DNS, which
 * Meridian itself answers. */
struct topology_address {
        uint8_t family;
        uint8_t bytes[16];
};

struct topology_endpoint {
        struct topology_address address; /* family 0: not given */
        uint16_t port;
};

enum topology_role {
        TOPOLOGY_ROLE_DATA,    /* serves, and votes */
        TOPOLOGY_ROLE_WITNESS, /* votes only; never routed to */
        TOPOLOGY_ROLE_COUNT,
};

struct topology_node {
        char name[TOPOLOGY_NAME_SIZE];
        uint32_t id; /* > 0, unique in the cluster */
        struct topology_endpoint link;
        struct topology_endpoint admin;
        struct topology_endpoint locks;
};

struct topology_region {
        char name[TOPOLOGY_NAME_SIZE]; /* [a-z0-9-]{1,31} */
        uint8_t id;                    /* 1..64, unique; never used again for another region */
        enum topology_role role;
        bool place_known;
        int32_t latitude_udeg;  /* millionths of a degree, +-90e6 */
        int32_t longitude_udeg; /* +-180e6 */
        char country[3];        /* ISO 3166 alpha-2 in capitals, or empty */
        char continent[3];      /* AF AN AS EU NA OC SA, or empty */
        uint32_t capacity;      /* relative to the other regions, 1..1000000 */
        int32_t bias;           /* -90..90: > 0 draws clients from farther away */
        uint32_t a_count;
        uint32_t aaaa_count;
        uint32_t node_count;
        uint32_t backend_count;
        struct topology_address a[TOPOLOGY_ADDRESSES_MAX];
        struct topology_address aaaa[TOPOLOGY_ADDRESSES_MAX];
        struct topology_node nodes[TOPOLOGY_REGION_NODES_MAX];
        struct topology_endpoint backends[TOPOLOGY_BACKENDS_MAX];
};

enum topology_policy {
        TOPOLOGY_POLICY_NEAREST,  /* the nearest routable region */
        TOPOLOGY_POLICY_REGION,   /* one region, always */
        TOPOLOGY_POLICY_FAILOVER, /* the first routable one of a given order */
        TOPOLOGY_POLICY_COUNT,
};

struct topology_name {
        char label[TOPOLOGY_LABEL_SIZE]; /* relative to the zone, lower case; "@" for the zone
                                            itself */
        uint8_t zone;                    /* index into zones */
        enum topology_policy policy;
        uint32_t ttl_s; /* the zone's, unless given */
        uint32_t order_count;
        uint8_t order[TOPOLOGY_REGIONS_MAX]; /* region ids: REGION has one, FAILOVER 1 or more */
};

struct topology_zone {
        char name[TOPOLOGY_DOMAIN_SIZE]; /* lower case, no dot at the end */
        uint32_t ttl_s;                  /* 0..86400 */
        char mname[TOPOLOGY_DOMAIN_SIZE];
        char rname[TOPOLOGY_DOMAIN_SIZE];
        uint32_t refresh_s;
        uint32_t retry_s;
        uint32_t expire_s;
        uint32_t minimum_s; /* the serial is the epoch of the topology */
};

/* All in milliseconds. */
struct topology_timing {
        uint32_t heartbeat_ms;     /* between two heartbeats to each peer */
        uint32_t suspect_after_ms; /* silence until an observer suspects */
        uint32_t down_after_ms;    /* silence until an observer votes for down */
        uint32_t recover_after_ms; /* unbroken hearing until an observer takes its vote back */
        uint32_t hold_down_ms;     /* a recovering region waits so long before it gets traffic */
        uint32_t lag_max_ms;       /* a region is caught up when its Redis lags no more than this */
        uint32_t drain_ms;         /* from draining to drained */
        uint32_t election_ms;      /* of the global group; randomised up to twice this */
        uint32_t election_heartbeat_ms; /* of the global group's leader */
        uint32_t region_election_ms;    /* the same of the regional groups */
        uint32_t region_election_heartbeat_ms;
};

/* What becomes of concurrent writes to one key. */
enum topology_conflict {
        TOPOLOGY_CONFLICT_TYPED,      /* by the rule of its type */
        TOPOLOGY_CONFLICT_LAST_WRITE, /* the whole value is one register */
        TOPOLOGY_CONFLICT_SIBLINGS,   /* strings: all are kept until a write that saw them */
        TOPOLOGY_CONFLICT_MERGE,      /* the same, and a function shows them as one value */
        TOPOLOGY_CONFLICT_COUNT,
};

/* The policy of the keys that begin with a prefix; the longest prefix that fits counts. The empty
 * one is for all keys that no other fits. */
struct topology_data {
        char prefix[TOPOLOGY_PREFIX_SIZE]; /* printable, without quotes */
        enum topology_conflict conflict;
        char function[TOPOLOGY_NAME_SIZE]; /* MERGE: of this document; else empty */
        bool publish;                      /* channels that begin so reach every region */
};

/* A merge function in Lua: a chunk that is given the siblings and returns one value
 * (merge/merge.h). */
struct topology_function {
        char name[TOPOLOGY_NAME_SIZE];
        char text[TOPOLOGY_FUNCTION_SIZE];
};

/* A PostgreSQL cluster that spans regions: who may write to it follows the rules of
 * primary/primary.h. */
struct topology_postgres {
        uint32_t node_count; /* 0: there is no such cluster */
        uint32_t never_count;
        uint32_t nodes[TOPOLOGY_POSTGRES_NODES_MAX]; /* ids of the nodes that have a server, of
                                                      * those that are as good as each other the
                                                      * earlier one first */
        uint32_t never[TOPOLOGY_POSTGRES_NODES_MAX]; /* of these, who never becomes primary */
        uint32_t first_count;                        /* 1 */
        uint32_t first; /* begins where nobody has data; nodes[0] unless given */
        bool automatic; /* a standby takes over without being asked */
        uint32_t lease_ms;
        uint32_t renew_ms;  /* between two renewals */
        uint32_t margin_ms; /* the holder stops so long before its lease ends by its own clock: the
                             * clocks of two machines may differ in rate by this part of it */
        uint32_t sync;      /* commits wait for so many standbys; 0: none */
        uint64_t loss_max;  /* bytes that a takeover may lose without being asked */
        /* What no other region has of the primary's commits: where it is older, or more, people
         * are told. 0: without limit. */
        uint32_t rpo_ms;
        uint64_t rpo_bytes;
        bool rpo_hold; /* and commits wait until another region has caught up */
};

/* About 130 kB, without pointers: copy it by assignment, keep it on a heap, never on a stack. Zero
 * padding is guaranteed after topology_parse, so two topologies may be compared by memcmp. */
struct topology {
        char cluster[TOPOLOGY_NAME_SIZE];
        uint64_t epoch; /* >= 1; grows with every change */
        uint32_t region_count;
        uint32_t zone_count;
        uint32_t name_count;
        uint32_t data_count;
        uint32_t function_count;
        struct topology_timing timing;
        struct topology_region regions[TOPOLOGY_REGIONS_MAX]; /* in the order of the document */
        struct topology_zone zones[TOPOLOGY_ZONES_MAX];
        struct topology_name names[TOPOLOGY_NAMES_MAX]; /* in the order of the zones */
        struct topology_data data[TOPOLOGY_DATA_MAX];   /* in the order of the document */
        struct topology_function functions[TOPOLOGY_FUNCTIONS_MAX];
        struct topology_postgres postgres;
};

/* A fault in the text: what, where, and what to do about it. */
struct topology_error {
        uint32_t line;   /* from 1 */
        uint32_t column; /* from 1, in bytes */
        char where[128]; /* "region us-east, node us-east-1, link" */
        char what[192];
        char todo[160];
};

/* Reads a document. True: *ret is complete and consistent, *ret_error untouched. False: *ret_error
 * says why, and *ret is all zero; so parse into a spare copy. Any bytes are accepted as input.
 * Cost: linear in the text. Neither allocates nor recurses. */
MUST_USE bool topology_parse(struct bytes text, struct topology *ret,
                             struct topology_error *ret_error);

/* The fault as one sentence with a NUL, cut to `size` (> 0). Returns `text`. */
const char *topology_error_text(const struct topology_error *error, char *text, size_t size);

/* Appends the canonical text: what topology_parse reads back to the same struct, byte for byte. The
 * buffer's sticky error tells of missing memory. */
void topology_write(const struct topology *topology, struct buffer *buffer);

/* Appends one line ("+ region sa-east (id 4)\n", "~ region us-east: capacity 100 -> 50\n", ...) for
 * each difference from `before` to `after`, in the order of the document; none for equal ones.
 * Epochs are compared too. Returns the count of lines. */
size_t topology_diff(const struct topology *before, const struct topology *after,
                     struct buffer *buffer);

/* May `after` take the place of `before`? False with the reason in *ret_error (line 0):
 * the epoch must be larger, the cluster's name the same, and an id must not move to
 * another region or node. */
MUST_USE bool topology_may_follow(const struct topology *before, const struct topology *after,
                                  struct topology_error *ret_error);

/* Look-ups; linear, borrowed from the topology; NULL where there is none. */
const struct topology_region *topology_region_by_id(const struct topology *topology, uint8_t id);
const struct topology_region *topology_region_by_name(const struct topology *topology,
                                                      struct bytes name);
const struct topology_node *topology_node_by_id(const struct topology *topology, uint32_t id);
const struct topology_node *topology_node_by_name(const struct topology *topology,
                                                  struct bytes name);

/* The region that a node belongs to, or NULL. */
const struct topology_region *topology_region_of_node(const struct topology *topology, uint32_t id);

/* The position of a region in topology->regions. `region` must point into it. */
size_t topology_region_index(const struct topology *topology, const struct topology_region *region);

/* The zone whose name is the longest suffix of `domain` (text, lower or upper case, with or without
 * a dot at the end), or NULL; and the name in it, or NULL. */
const struct topology_zone *topology_zone_of(const struct topology *topology, struct bytes domain);
const struct topology_name *topology_name_of(const struct topology *topology, struct bytes domain);

/* How many regions are a majority of all (witnesses vote too). */
static inline uint32_t topology_majority(const struct topology *topology)
{
        return topology->region_count / 2 + 1;
}

const char *topology_role_name(enum topology_role role);
const char *topology_policy_name(enum topology_policy policy);
const char *topology_conflict_name(enum topology_conflict conflict);

/* The merge function of that name, or NULL. */
const struct topology_function *topology_function_of(const struct topology *topology,
                                                     struct bytes name);

/* Addresses and endpoints from and to text. The parsers accept exactly the numeric forms
 * ("192.0.2.1", "2001:db8::1"; "192.0.2.1:80", "[2001:db8::1]:80") with a port of 1..65535. */
MUST_USE bool topology_address_parse(struct bytes text, struct topology_address *ret);
MUST_USE bool topology_endpoint_parse(struct bytes text, struct topology_endpoint *ret);
const char *topology_address_text(const struct topology_address *address,
                                  char text[static TOPOLOGY_ADDRESS_TEXT]);
const char *topology_endpoint_text(const struct topology_endpoint *endpoint,
                                   char text[static TOPOLOGY_ENDPOINT_TEXT]);

#endif
