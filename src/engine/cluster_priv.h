/* cluster_priv.h - a region's Redis Cluster, as the files of it share it. Towards the node it is
 * one Redis with one stream and one vector of positions.
 *
 *   cluster.c        what the node wants of it, what is told of it, its life
 *   cluster_scout.c  which primaries there are
 *   cluster_shard.c  one primary: its connections, what it is asked for
 *   cluster_slots.c  who has which slot
 *   cluster_up.c     whether all of them are there; positions
 *   cluster_tail.c   the streams of all shards as one
 *   cluster_relay.c  what all shards have merged of another region's stream, as one
 *   cluster_merge.c  a batch or a part of a state to the shards that it is for
 *   cluster_scan.c   the state of all shards, one after the other
 *
 * The cluster is up while every primary is. What was asked before it went down is forgotten: calls
 * carry the generation, and answers of an older one are dropped. */
#ifndef MERIDIAN_ENGINE_CLUSTER_PRIV_H
#define MERIDIAN_ENGINE_CLUSTER_PRIV_H

#include "engine/engine_priv.h"
#include "keyspace/shards.h"

enum {
        NODE_ID_SIZE = 48,
        SHARD_POOL_MAX = 256, /* servers that were ever primaries, in the life of an engine */
        NUMBER_SIZE = 24,
        SCOUT_WAIT_MS_MAX = 200,
};

/* A primary, as CLUSTER NODES tells it. */
struct node_told {
        char id[NODE_ID_SIZE];
        struct topology_endpoint endpoint;
        bool failed; /* and it still has slots: nobody has taken over yet */
        bool myself;
        uint64_t epoch; /* of its configuration: of two that claim a slot the later one has it */
        unsigned slots;
};

struct nodes {
        struct node_told items[SHARDS_MAX];
        struct shards_map map;
        unsigned uncovered; /* slots that nobody holds */
        uint64_t epoch_max; /* of those that hold slots */
};

/* `asked`: the address of the server that told it. False: nothing of use, or too many primaries. */
MUST_USE bool nodes_parse(struct bytes text, const struct topology_endpoint *asked,
                          struct nodes *ret);

/* One primary. */
struct shard {
        struct cluster *cluster;
        struct shard *next; /* in the pool */
        struct topology_endpoint endpoint;
        struct connection control; /* positions, merges, acknowledgements */
        struct connection reads;   /* tails that do not wait, marks, scans */
        struct connection bell;    /* a tail that waits for something to come */
        unsigned index;            /* in the map; SHARDS_NOBODY: no member now */
        unsigned slots;
        bool told; /* the fields below hold */
        bool positions_told, layout_told;
        region_id origin;
        uint64_t incarnation, recovered, first;
        struct positions positions;
        uint64_t layout;
        bool importing;
        uint64_t keys;
        uint64_t epoch;
        uint8_t claims[SHARDS_SLOTS / 8]; /* slots that it says to hold itself */
        bool bell_armed;
};

/* The tail of one peer. */
struct flow {
        struct flow *next;
        node_id peer;
        bool pending; /* asked by the node and not answered */
        bool asking;  /* shards are asked */
        bool marked;  /* those without deltas were asked for a mark */
        bool gap, failed;
        uint64_t after;
        uint32_t bytes_max;
        uint64_t deadline_ms;
        uint64_t retry_ms; /* after a failure; 0: none */
        uint64_t ticket;
        unsigned waiting;
        uint64_t read_to; /* where the last batch ended: `seen` holds there */
        struct buffer deltas[SHARDS_MAX];
        uint64_t reach[SHARDS_MAX];
        struct shards_seen seen;
};

/* A merge of one origin. */
struct merging {
        bool pending;
        bool state, state_end;
        region_id origin;
        uint64_t after, last;
        struct buffer data;
        struct positions positions;
        struct buffer parts[SHARDS_MAX];
        struct buffer moved[SHARDS_MAX]; /* what each gave back */
        bool stale;                      /* somebody has other slots than we thought */
        bool last_stage;
        unsigned waiting;
        unsigned tries;
        uint64_t retry_ms; /* 0: none */
        uint64_t position; /* the least */
        bool gap;
        enum err err;
        uint64_t ticket;
};

enum look {
        LOOK_BEGIN,  /* positions, tables and layouts */
        LOOK_RESUME, /* tables and layouts */
        LOOK_END,    /* layouts again */
};

/* A scan for one peer. */
struct scanning {
        struct scanning *next;
        node_id peer;
        bool pending;
        uint64_t cursor; /* the node's */
        uint32_t bytes_max;
        uint64_t table_id;
        uint64_t tables[SHARDS_MAX]; /* of each shard, at the begin; and its layout */
        uint64_t layouts[SHARDS_MAX];
        bool known;       /* these three hold */
        bool moved;       /* slots have, since the begin */
        uint64_t fail_ms; /* when it is told that this was in vain; 0: not */
        enum look look;   /* under way */
        unsigned waiting;
        bool failed;
        uint64_t mark;
        bool seen_there;
        struct crdt_seen seen;
        struct buffer part;
        uint64_t ticket;
};

struct relaying;

struct cluster {
        struct engine *engine;
        struct connection scout; /* asks for the nodes */
        unsigned scout_at;
        struct nodes nodes;
        bool nodes_there;
        uint64_t epoch_max;
        struct shard *pool;
        unsigned pool_count;
        struct shard *shards[SHARDS_MAX]; /* by index in the map */
        unsigned count;
        uint64_t generation;
        uint64_t tickets;
        unsigned joining; /* answers to JOIN to come */
        bool stale;       /* the slots are being asked for again */
        unsigned stale_waiting;
        uv_timer_t timer; /* for what waits */
        struct flow *flows;
        struct merging *mergings[TOPOLOGY_REGION_ID_MAX + 1];
        struct scanning *scannings;
        struct relaying *relayings; /* cluster_relay.c */
        struct nodes scratch;
};

static inline uint64_t cluster_now_ms(const struct cluster *cluster)
{
        return uv_now(cluster->engine->config.loop);
}

struct bytes cluster_number(uint64_t value, char text[static NUMBER_SIZE]);

/* Remembers why it is of no use, and tells it once. */
void cluster_refused(struct cluster *cluster, const char *text);

/* ---- cluster_scout.c ---- */

void cluster_scout_ask(struct connection *scout);

/* The server that is asked next. */
void cluster_scout_choose(struct connection *scout);

/* ---- cluster_shard.c ---- */

/* The one of that address, made where there is none. NULL: too many, or no memory. */
struct shard *cluster_shard_of(struct cluster *cluster, const struct topology_endpoint *endpoint);
void shard_open(struct shard *shard);
void shard_pause(struct shard *shard);

/* Asks every shard that is connected for what cluster_try_up waits for. */
void cluster_ask_all(struct cluster *cluster);

/* ---- cluster_slots.c ---- */

/* Take what a shard has told of itself; false: it is of no use. */
MUST_USE bool shard_claims_read(struct shard *shard, const redisReply *reply);
MUST_USE bool shard_layout_read(struct shard *shard, const redisReply *reply);

/* Makes the map of all shards' claims. */
void cluster_map_make(struct cluster *cluster);

/* Asks for the nodes and for every shard's layout; then cluster_refreshed goes on with merges. */
void cluster_refresh(struct cluster *cluster);

/* ---- cluster_up.c ---- */

/* Up, if every shard has told all. */
void cluster_try_up(struct cluster *cluster);
void cluster_down(struct cluster *cluster, const char *why);

/* What the shard told when it came up; 0: nothing of that origin. */
uint64_t shard_position(const struct shard *shard, unsigned origin);

/* ---- the streams ---- */

void cluster_tail(struct cluster *cluster, const struct world_effect *effect);
void cluster_tail_timed(struct cluster *cluster);
void cluster_tail_drop(struct cluster *cluster);
void cluster_tail_fini(struct cluster *cluster);

void cluster_relay(struct cluster *cluster, const struct world_effect *effect);
void cluster_relay_timed(struct cluster *cluster);
void cluster_relay_drop(struct cluster *cluster);
void cluster_relay_fini(struct cluster *cluster);

void cluster_merge(struct cluster *cluster, const struct world_effect *effect);
void cluster_merge_refreshed(struct cluster *cluster);
void cluster_merge_timed(struct cluster *cluster);
void cluster_merge_drop(struct cluster *cluster);
void cluster_merge_fini(struct cluster *cluster);

void cluster_scan(struct cluster *cluster, const struct world_effect *effect);
void cluster_scan_timed(struct cluster *cluster);
void cluster_scan_drop(struct cluster *cluster);
void cluster_scan_fini(struct cluster *cluster);

#endif
