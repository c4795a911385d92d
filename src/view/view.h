/* view.h - what a node knows about all regions, in a file that the servers' plugins map: one
 * process writes it, any number read it, each with several threads. Layout: view/view_format.h.
 *
 * A reader never waits, makes no system call on its hot path, and never loses what it has: a view
 * that is old, a writer that is dead, a file that is damaged or gone all leave the last good view
 * in use (static stability). How old it is can be seen from `wall_us`; that is a matter for logs.
 */
#ifndef MERIDIAN_VIEW_VIEW_H
#define MERIDIAN_VIEW_VIEW_H

#include "base/bytes.h"
#include "base/err.h"
#include "world/world.h"

#define VIEW_REGIONS_MAX    64
#define VIEW_ADDRESSES_MAX  512  /* of all regions together */
#define VIEW_BACKENDS_MAX   1024 /* of all regions together */
#define VIEW_NAMES_MAX      512  /* of all zones together */
#define VIEW_REGION_LEN_MAX 63   /* bytes of a region's name */
#define VIEW_NAME_LEN_MAX   253  /* bytes of a DNS name as text without the last dot */
#define VIEW_RTT_UNKNOWN    UINT64_MAX
#define VIEW_SLOT_SIZE      (256u * 1024u)

struct view_address {
        uint8_t family; /* 4 or 6 */
        uint8_t ip[16]; /* network order; IPv4 in the first four */
        uint16_t port;  /* host order; 0 for an address that DNS answers with */
};

struct view_backend {
        struct view_address address;
        bool healthy;
};

struct view_region {
        region_id id;      /* > 0, unique */
        struct bytes name; /* "us-east", unique */
        uint8_t state;     /* enum topology_state */
        bool routable;     /* may be answered with at all, as the node's health verdict says */
        double latitude;   /* degrees */
        double longitude;
        uint32_t capacity; /* relative; 0: unknown */
        int32_t bias;      /* per mille, as in the topology; 0: none */
        uint64_t rtt_us;   /* from the own region; VIEW_RTT_UNKNOWN; 0 for the own region */
        const struct view_address *addresses; /* what DNS answers with: A and AAAA */
        size_t address_count;
        const struct view_backend *backends; /* behind the region's edge */
        size_t backend_count;
};

enum view_policy {
        VIEW_POLICY_NEAREST, /* the nearest routable region to the client */
        VIEW_POLICY_REGION,  /* always the addresses of one region */
        VIEW_POLICY_COUNT,
};

struct view_name {
        struct bytes name; /* "www.example.test": full, any case, with or without the last dot */
        enum view_policy policy;
        region_id region; /* of VIEW_POLICY_REGION, else 0 */
};

/* What is published and what is read. All pointers are borrowed: from the caller of view_publish
 * for the call, from the view between view_enter and view_leave. In a view that was read the order
 * of regions and of names is that of the writer, and names are in lower case without the last dot.
 */
struct view_content {
        region_id self;   /* the region that this node is in */
        uint64_t epoch;   /* of the topology */
        uint64_t wall_us; /* when it was published, Unix time */
        const struct view_region *regions;
        size_t region_count;
        const struct view_name *names;
        size_t name_count;
};

/* Writing. One process and one thread. */

struct view_writer;

/* Opens or creates the file at `path`. A good file keeps its last view until the next is published;
 * a damaged one, or one of another format version, is replaced by rename. Mode 0640, so that the
 * group of the file (`group`, or (gid_t)-1 for that of the process) may read.
 * Errors: ERR_BUSY (another process writes it), ERR_NOSPACE, ERR_IO (`why` has a sentence),
 * ERR_NOMEM. */
MUST_USE enum err view_writer_open(const char *path, long group, struct view_writer **ret,
                                   char *why, size_t why_size);

/* Publishes; readers see the whole of it or nothing, whenever this process dies. No system call
 * (page faults apart); cost: some microseconds per kilobyte. Errors: ERR_INVALID (the content
 * breaks a limit above or refers to a region that is not there; nothing is published), ERR_LIMIT
 * (does not fit in a slot). */
MUST_USE enum err view_publish(struct view_writer *writer, const struct view_content *content);

/* Of the last published view; 0 when there was never one. Grows by one with each, restarts
 * included. */
uint64_t view_writer_generation(const struct view_writer *writer);

/* The file stays, and readers go on with the last view. NULL is fine. */
void view_writer_close(struct view_writer *writer);

/* Reading. */

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

/* A view, held by one thread between enter and leave. */
struct view {
        const struct view_content *content;
        const struct view_index *index; /* for the functions below */
        uint64_t generation;
        int slot;
};

/* The hot path: any thread, never waits, no allocation, no system call. Takes the newest view, or
 * the last good one. False when there has never been one (then do not leave). `shard` is the
 * thread's number (any value; see base/swap.h). Cost: tens of nanoseconds; once per published view
 * one caller pays for decoding it. Hold it for one request, not for long. */
MUST_USE bool view_enter(struct view_reader *reader, unsigned shard, struct view *ret);
void view_leave(struct view_reader *reader, unsigned shard, const struct view *view);

/* The name (a DNS name in wire form, lower case) in the view, or NULL. Constant cost. */
const struct view_name *view_name_find(const struct view *view, struct bytes wire);

/* The region of that id, or NULL. Constant cost. */
const struct view_region *view_region_find(const struct view *view, region_id id);

#endif
