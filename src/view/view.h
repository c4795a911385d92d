/* view.h - what a node knows about all regions, in a file that the servers' plugins map: one
 * process writes it, any number read it, each with several threads. Layout: view/view_format.h.
 *
 * A reader never waits, makes no system call on its hot path, and never loses what it
 * has: a view that is old, a writer that is dead, a file that is damaged or gone all
 * leave the last good view in use (static stability). How old it is can be seen from
 * `wall_us`; that is a matter for logs. */
#ifndef MERIDIAN_VIEW_VIEW_H
#define MERIDIAN_VIEW_VIEW_H

#include "base/bytes.h"
#include "base/err.h"
#include "board/board.h"
#include "routing/routing.h"
#include "topology/topology.h"

#define VIEW_SLOT_SIZE     ((size_t)256 * 1024)
#define VIEW_WIRE_SIZE     256u /* a DNS name in wire form is at most 255 bytes */
#define VIEW_NAME_BUCKETS  512u
#define VIEW_GROUP_DEFAULT (-1)

_Static_assert(TOPOLOGY_BACKENDS_MAX <= 64, "the health of a region's backends is one word");

/* What changes from moment to moment, one for each region in the order of the topology. */
struct view_region_now {
        enum region_state state;
        bool routable;             /* state, verdict and its own health allow new traffic */
        uint16_t load_per_mille;   /* ROUTING_LOAD_UNKNOWN, or of its capacity */
        uint32_t rtt_us;           /* from the own region; ROUTING_RTT_UNKNOWN */
        uint64_t backends_healthy; /* bit i: backends[i] of the topology */
};

/* What is published. All is borrowed for the call. */
struct view_content {
        uint8_t self;     /* id of the region that this node is in; 0: none */
        uint64_t wall_us; /* now, Unix time */
        const struct topology *topology;
        const struct view_region_now *regions; /* topology->region_count of them */
        struct bytes page; /* made by board/board.h, <= BOARD_BYTES_MAX; empty: none */
};

/* Writing. One process and one thread. */

struct view_writer;

/* Opens or creates the file at `path`. A good file keeps its last view until the next is published;
 * a damaged one, or one of another format version, is replaced by rename. Its mode is 0640 and its
 * group is `group` (VIEW_GROUP_DEFAULT: that of the process), so that the servers' users can read
 * it. On an error `why` (NULL or of `why_size` bytes) gets a sentence naming file and reason.
 * Errors: ERR_BUSY (another process writes it), ERR_NOSPACE, ERR_IO, ERR_NOMEM. */
MUST_USE enum err view_writer_open(const char *path, long group, struct view_writer **ret,
                                   char *why, size_t why_size);

/* Publishes; readers see the whole of it or nothing, whenever this process dies. No system call but
 * page faults; some tens of microseconds. Errors: ERR_INVALID (`self` is not in the topology, or a
 * name does not fit the DNS), ERR_LIMIT (does not fit into a slot); nothing is published then. */
MUST_USE enum err view_publish(struct view_writer *writer, const struct view_content *content);

/* Of the last published view; 0 when there was never one. Grows by one with
 * each, restarts included. */
uint64_t view_writer_generation(const struct view_writer *writer);

/* Appends the page of the last published view, if it has one: what was known before a restart. */
void view_writer_page(const struct view_writer *writer, struct buffer *out);

/* The file stays, and readers go on with the last view. NULL is fine. */
void view_writer_close(struct view_writer *writer);

/* Reading: what a view holds, decoded and made ready for lookups. */

struct view_region {
        uint8_t id;
        bool data; /* false: a witness */
        char name[TOPOLOGY_NAME_SIZE];
        enum region_state state;
        uint64_t backends_healthy; /* bit i: backends[i] */
        uint32_t a_count;
        uint32_t aaaa_count;
        uint32_t backend_count;
        struct topology_address a[TOPOLOGY_ADDRESSES_MAX];
        struct topology_address aaaa[TOPOLOGY_ADDRESSES_MAX];
        struct topology_endpoint backends[TOPOLOGY_BACKENDS_MAX];
};

struct view_name {
        uint8_t wire[VIEW_WIRE_SIZE]; /* the full name as in a DNS message, lower case */
        uint8_t wire_len;
        bool empty; /* has no data of its own, only names below it (an empty non-terminal) */
        enum topology_policy policy;
        uint32_t ttl_s;
        uint32_t order_count;
        uint8_t order[TOPOLOGY_REGIONS_MAX];
};

struct view {
        uint64_t generation;
        uint64_t wall_us; /* when it was published */
        uint64_t epoch;   /* of the topology */
        uint8_t self;
        int self_index; /* of `regions`, -1: none */
        uint32_t region_count;
        uint32_t name_count;
        struct routing_table table;                           /* for routing_order, routing_best */
        struct routing_hint hints[TOPOLOGY_REGIONS_MAX];      /* for the edge */
        struct routing_hint hints_a[TOPOLOGY_REGIONS_MAX];    /* routable only with an A address */
        struct routing_hint hints_aaaa[TOPOLOGY_REGIONS_MAX]; /* ... with an AAAA address */
        struct view_region regions[TOPOLOGY_REGIONS_MAX];     /* in the order of the topology */
        struct view_name names[2 * TOPOLOGY_NAMES_MAX];
        uint16_t buckets[VIEW_NAME_BUCKETS]; /* of view_name_find: index + 1, or 0 */
        struct board board; /* flags, configuration, services; all empty where none came */
        uint8_t page[BOARD_BYTES_MAX]; /* what it borrows from */
};

struct view_reader;

/* A reader of the file at `path` (copied), which need not exist. Reads nothing yet; NULL when out
 * of memory (takes about two megabytes). */
struct view_reader *view_reader_new(const char *path);

/* No other thread may use it any more. NULL is fine. */
void view_reader_free(struct view_reader *reader);

/* Off the hot path, one thread at a time, at start and then every second or so: finds the file, or
 * another one that took its place, and checks it. Once a file is mapped, views published in it are
 * seen on the hot path, without this call. An error says that there is nothing newer than what is
 * in use, and why: `why` (NULL or of `why_size` bytes) gets a sentence naming file, place and
 * reason. Errors: ERR_NOT_FOUND (no file, or nothing published yet), ERR_TRUNCATED, ERR_VERSION,
 * ERR_CORRUPT, ERR_BUSY (try again), ERR_NOMEM, ERR_IO. */
MUST_USE enum err view_reader_refresh(struct view_reader *reader, char *why, size_t why_size);

/* The hot path: any thread, never waits, no allocation, no system call. The newest view, or the
 * last good one; it stays as it is until view_leave. NULL when there has never been one (then do
 * not leave). `shard` is the thread's number (any value; see base/swap.h). Cost: tens of
 * nanoseconds; once per published view one caller pays for decoding it. Hold it for one request,
 * not for long: a view that is held keeps others from being taken over. */
MUST_USE const struct view *view_enter(struct view_reader *reader, unsigned shard);
void view_leave(struct view_reader *reader, unsigned shard, const struct view *view);

/* The name, given in wire form and lower case, or NULL. Constant cost. */
const struct view_name *view_name_find(const struct view *view, struct bytes wire);

/* An instance of a service, and where it stands for a client. */
#define VIEW_INSTANCES_MAX 64u
struct view_instance {
        struct board_service service; /* borrows from the view */
        uint32_t rank;   /* of its region for the client, from 0; the same for the same region */
        bool routable;   /* its region may get traffic, or it names none */
        uint32_t rtt_us; /* from the own region; 0: it is that; ROUTING_RTT_UNKNOWN */
};

/* The instances of a service, those of the client's nearest region first, then by weight and id;
 * those of regions that get no traffic last (there is nothing better where they are all). `place`
 * is the client's; NULL: the own region's. At most `size` (<= VIEW_INSTANCES_MAX); how many were
 * written. */
size_t view_nearest(const struct view *view, struct bytes service,
                    const struct routing_place *place, struct view_instance *ret, size_t size);

/* The position of the region with that id in `regions`, or -1. */
int view_region_index(const struct view *view, uint8_t id);

#endif
