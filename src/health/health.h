/* health.h - observations of many observers in, verdicts out.
 *
 * Every node hears heartbeats of every other node and tells all of them, in a small report with
 * each heartbeat, what it thinks of each region and how its own parts are. From that each node
 * computes, by itself and without the council:
 *
 *   opinion   of this node about a region, from its own ears:
 *
 *             unknown --heard--> up --suspect_after of silence--> suspect --down_after--> down
 *                |                ^ \<-------- heard ---------------/                      |
 *                |                +---- unbroken hearing for recover_after x penalty ------+
 *                +------ nothing within recover_after of the start --------------------> down
 *
 *             The penalty doubles with each fall (up to 16 times) and halves with each quiet
 *             minute.
 *   vote      of a region: down when every node of it that reports freshly says down.
 *   verdict   on a region: down when the votes of the OTHER regions reach the majority of ALL
 *             regions of the topology. Regions that are not heard have no vote, so a minority can
 *             never decide. Suspect when this region or any voter doubts; else up.
 *   self      what a region says of itself: ok, degraded, failed (part_hysteresis, each part).
 *
 * With the default timing (heartbeat 200 ms, suspect 500 ms, down 900 ms) a kill is a verdict after
 * 900 ms, one round trip and at most one heartbeat; one or two lost heartbeats never reach it.
 *
 * A node that was itself stopped (paused, swapped out) does not take its own absence for silence of
 * the others: the gap between two steps beyond two heartbeats is not counted. */
#ifndef MERIDIAN_HEALTH_HEALTH_H
#define MERIDIAN_HEALTH_HEALTH_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"
#include "topology/topology.h"

/* An age in milliseconds: never heard. */
#define HEALTH_AGE_NEVER UINT32_MAX

enum {
        HEALTH_SENTENCE_SIZE = 512,
        HEALTH_REPORT_BYTES_MAX = 512, /* encoded */
};

enum health_verdict {
        HEALTH_UNKNOWN, /* this node has just started */
        HEALTH_UP,
        HEALTH_SUSPECT,
        HEALTH_DOWN,
        HEALTH_VERDICT_COUNT,
};

enum health_self {
        HEALTH_SELF_OK,       /* or nothing is known */
        HEALTH_SELF_DEGRADED, /* some part is down, but it serves */
        HEALTH_SELF_FAILED,   /* it asks for no traffic */
        HEALTH_SELF_COUNT,
};

/* The parts of a region, in the order of enum world_part. */
enum health_part {
        HEALTH_PART_REDIS,
        HEALTH_PART_DNS,
        HEALTH_PART_EDGE,
        HEALTH_PART_POSTGRES,
        HEALTH_PART_BACKEND, /* with an index */
        HEALTH_PART_COUNT,
};

/* One part that is looked at again and again: it falls after `down_after` bad looks in a row and
 * rises after `up_after` good ones. The first look decides at once. */
struct part_hysteresis {
        uint8_t up_after;
        uint8_t down_after;
        uint8_t count; /* looks in a row against the present state */
        bool known;
        bool up;
};

void part_hysteresis_init(struct part_hysteresis *part, uint8_t up_after, uint8_t down_after);

/* Returns true if `up` (or `known`) has changed. */
bool part_hysteresis_look(struct part_hysteresis *part, bool healthy);

/* What a node tells every other with each heartbeat. */
struct health_report {
        uint32_t node;
        uint8_t parts_known;    /* bit (1 << enum health_part) */
        uint8_t parts_down;     /* bit set: down. BACKEND: none of them is up */
        uint8_t backends_up;    /* by hysteresis */
        uint8_t backends_known; /* how many were looked at */
        uint8_t region_count;
        struct {
                uint8_t region;
                enum health_verdict opinion; /* of that node alone */
                uint32_t age_ms;             /* since it heard that region; HEALTH_AGE_NEVER */
        } regions[TOPOLOGY_REGIONS_MAX];
};

/* Appends the report; at most HEALTH_REPORT_BYTES_MAX bytes. */
void health_report_encode(const struct health_report *report, struct buffer *buffer);

/* Reads one, from any bytes. *ret is set only on success. ERR_TRUNCATED, ERR_MALFORMED. */
MUST_USE enum err health_report_decode(struct bytes data, struct health_report *ret);

/* Private. What this node knows of another one. */
struct health_peer {
        uint32_t node;
        uint8_t region_index;
        bool ever_heard;
        bool ever_reported;
        uint64_t heard_us;
        uint64_t reported_us;
        uint8_t parts_known;
        uint8_t parts_down;
        uint8_t backends_up;
        uint8_t backends_known;
        uint8_t opinions[TOPOLOGY_REGIONS_MAX]; /* enum health_verdict, by region index */
        uint32_t ages_ms[TOPOLOGY_REGIONS_MAX];
};

/* Private. This node's own opinion of a region. */
struct health_region {
        uint64_t started_us; /* when this node began to listen for it */
        uint64_t heard_us;
        uint64_t streak_us; /* unbroken hearing since then; 0: none */
        uint64_t since_us;  /* of the opinion */
        uint64_t calm_us;   /* when `falls` was last counted up or down */
        uint32_t falls;     /* for the penalty */
        enum health_verdict opinion;
        uint8_t id;
        bool ever_heard;
};

/* All of it; about 60 kB, no pointers. The caller owns it; keep it on a heap. */
struct health {
        uint32_t own_node;
        uint8_t own_index; /* of the own region */
        uint32_t region_count;
        uint32_t peer_count;
        struct topology_timing timing;
        uint64_t stepped_us;
        struct health_region regions[TOPOLOGY_REGIONS_MAX];
        struct health_peer peers[TOPOLOGY_NODES_MAX]; /* self included, for its own reports */
        struct part_hysteresis parts[HEALTH_PART_BACKEND];
        struct part_hysteresis backends[TOPOLOGY_BACKENDS_MAX];
};

/* Begins with no knowledge. `own_node` must be in the topology (checked). Times are monotonic
 * microseconds of this node, here and below, and never go back. */
void health_init(struct health *health, const struct topology *topology, uint32_t own_node,
                 uint64_t now_us);

/* Takes a new topology; what is known of regions and nodes that stay is kept. One that lacks the
 * own node changes nothing. */
void health_reconfigure(struct health *health, const struct topology *topology, uint64_t now_us);

/* Something arrived from that node (any message of it). Unknown ids are ignored. */
void health_heard(struct health *health, uint32_t node, uint64_t now_us);

/* A report arrived; it counts as heard, too. Returns true if it may have changed a verdict or a
 * self-declared health. Reports of unknown nodes, or of this one, are ignored. */
bool health_reported(struct health *health, const struct health_report *report, uint64_t now_us);

/* The result of a look at a part of the own region. `index` is for backends alone. Returns true if
 * the part's state changed: then send a report at once. */
bool health_looked(struct health *health, enum health_part part, uint32_t index, bool healthy);

/* Is an own part up, by hysteresis; *ret_known (may be NULL) is false before the first look. */
bool health_part_up(const struct health *health, enum health_part part, uint32_t index,
                    bool *ret_known);

struct health_step {
        bool changed;     /* an own opinion changed: send a report at once, look at the verdicts */
        uint64_t next_us; /* step again at this time at the latest (<= one heartbeat from now) */
};

/* Moves the own opinions on. Call it first in every turn; cheap. */
struct health_step health_step(struct health *health, uint64_t now_us);

/* The report to send now. */
void health_report_make(const struct health *health, uint64_t now_us, struct health_report *ret);

/* The verdict on a region (id). HEALTH_UNKNOWN for an unknown id. Cost: nodes of the cluster. */
enum health_verdict health_verdict(const struct health *health, uint8_t region, uint64_t now_us);

/* What a region says of itself, by its fresh reports; the own region by its own parts. A region
 * with several nodes has failed when all of its fresh reports say so. */
enum health_self health_self(const struct health *health, uint8_t region, uint64_t now_us);

/* Which parts of a region are down and known, by its last reports (any of its nodes). */
void health_parts(const struct health *health, uint8_t region, uint8_t *ret_known,
                  uint8_t *ret_down);

/* Does this node hear so many regions, itself included, that they are a majority? */
bool health_majority(const struct health *health, uint64_t now_us);

/* Milliseconds since a node, or any node of a region, was heard by this node; 0 for itself. */
uint32_t health_age_node_ms(const struct health *health, uint32_t node, uint64_t now_us);
uint32_t health_age_region_ms(const struct health *health, uint8_t region, uint64_t now_us);

/* Who says what about a region: kept for `status` and for the audit. */
struct health_observer {
        uint8_t region;
        bool fresh; /* its report is recent enough to count */
        enum health_verdict vote;
        uint32_t age_ms;        /* since it heard the region in question, as it said */
        uint32_t report_age_ms; /* how old its word is; 0 for this node's own */
};

struct health_evidence {
        uint8_t region;
        enum health_verdict verdict;
        enum health_self self;
        uint8_t parts_known;
        uint8_t parts_down;
        uint32_t votes_down;
        uint32_t votes_needed;
        uint32_t observer_count; /* all regions but the one in question, in the topology's order */
        struct health_observer observers[TOPOLOGY_REGIONS_MAX];
};

/* All that the verdict on a region rests on. False if the region is unknown. */
MUST_USE bool health_evidence(const struct health *health, uint8_t region, uint64_t now_us,
                              struct health_evidence *ret);

/* One sentence: "down: 2 regions of 2 needed do not hear it: eu-west for 1.2 s, ...". */
const char *health_evidence_text(const struct health_evidence *evidence,
                                 const struct topology *topology,
                                 char text[static HEALTH_SENTENCE_SIZE]);

/* "redis, edge" of a mask of parts; "" for none. Returns `text`, cut to `size` (> 0). */
const char *health_parts_text(uint8_t parts, char *text, size_t size);

const char *health_verdict_name(enum health_verdict verdict);
const char *health_self_name(enum health_self self);
const char *health_part_name(enum health_part part);

#endif
