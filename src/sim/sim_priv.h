/* sim_priv.h - what the files of this room share. Times are microseconds of the one true clock,
 * which no node sees. */
#ifndef MERIDIAN_SIM_SIM_PRIV_H
#define MERIDIAN_SIM_SIM_PRIV_H

#include "base/buffer.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/rng.h"
#include "council/request.h"
#include "keyspace/keyspace.h"
#include "linear/linear.h"
#include "node/node.h"
#include "sim/sim.h"
#include "world/world.h"

#define HOSTS_MAX     12
#define SIM_EPOCHS    3 /* of the topology, where it changes */
#define REGIONS_MAX   5
#define LOCK_CLIENTS  6
#define LOCK_KEYS     8
#define VALUE_CLIENTS 3
#define VALUE_KEYS    4
#define VALUE_OPS     160
#define TERMS_MAX     4096
#define INDEX_MAX     8192
#define WITNESSES_MAX 1024
#define MS            1000ull
#define SECOND        1000000ull
#define WALL_START_US 1700000000000000ull
#define DRIFT_MAX_MS  10000

/* One stream of randomness a subsystem, so that taking one away leaves the others as they are. */
enum sim_stream {
        STREAM_SETUP,
        STREAM_NETWORK,
        STREAM_DISK,
        STREAM_CLOCK,
        STREAM_FAULTS,
        STREAM_LOCKS,
        STREAM_REDIS,
        STREAM_DATA,
        STREAM_POSTGRES,
        STREAM_VALUES,
        STREAM_SHAPE,
        STREAM_UPGRADE,
        STREAM_SCORES,
        STREAM_STALE,
        STREAM_SETS,
        STREAM_COUNT,
};

enum event_kind {
        EVENT_STEP,        /* a world event for a node: data */
        EVENT_TIMER,       /* a node's wake */
        EVENT_LINK,        /* a connection comes up */
        EVENT_LINK_CHECK,  /* a cut connection is noticed */
        EVENT_SYNC,        /* a journal's sync ends */
        EVENT_CRASH,       /* a node crashes */
        EVENT_RESTART,     /* a crashed node starts */
        EVENT_REDIS_START, /* a crashed Redis starts */
        EVENT_REDIS_SYNC,  /* its log is synced */
        EVENT_REDIS_BEAT,  /* keys expire, tombstones go */
        EVENT_TAIL_END,    /* a blocked tail ends */
        EVENT_PROBE,       /* a node looks at its parts */
        EVENT_LOCK_CLIENT,
        EVENT_LOCK_TIMEOUT,
        EVENT_VALUE_CLIENT,
        EVENT_VALUE_TIMEOUT,
        EVENT_DATA_CLIENT,
        EVENT_FAULT,
        EVENT_CHANGE, /* of the topology */
        EVENT_HEAL_LINKS,
        EVENT_CHECK,
        EVENT_POSTGRES_BEAT,   /* flushes, streams, clients */
        EVENT_POSTGRES_SEE,    /* a node looks at its server */
        EVENT_POSTGRES_DONE,   /* an action ends */
        EVENT_POSTGRES_STREAM, /* records arrive at a standby */
        EVENT_POSTGRES_ACK,
        EVENT_SETS, /* a user of several locks, or one who watches */
        EVENT_SETS_TIMEOUT,
        EVENT_STALE, /* a question for a leader that is being replaced, or a write */
};

/* A world event on its way, with the bytes that it points at. */
struct parcel {
        struct world_event event;
        struct world_position positions[REGIONS_MAX];
        uint64_t link_epoch;
        bool from_link;
        size_t len;
        uint8_t bytes[];
};

struct sim_event {
        uint64_t at_us;
        uint64_t sequence;
        enum event_kind kind;
        uint32_t a, b;
        uint64_t generation;
        struct parcel *parcel; /* owned */
};

struct queue {
        struct heap *heap;
        struct sim_event *items;
        size_t count, size;
        uint64_t sequence;
};

void queue_init(struct queue *queue, struct heap *heap);
void queue_fini(struct queue *queue);
void queue_push(struct queue *queue, const struct sim_event *event);
bool queue_pop(struct queue *queue, struct sim_event *ret);

/* A journal: bytes written, and how many of them are durable. `next` is a replacement that
 * has not been confirmed. */
struct sim_journal {
        bool known; /* something of it was told as durable */
        struct buffer bytes;
        uint64_t generation;
        size_t synced;
        bool syncing;
        size_t sync_to;
        uint64_t sync_id; /* of the sync under way; an older one is void */
        bool replacing;
        struct buffer next;
        uint64_t next_generation;
        struct buffer aside; /* a new journal, in pieces: a crash loses it */
        uint64_t aside_generation;
        size_t aside_synced;
        bool aside_syncing;
        size_t aside_sync_to;
        uint64_t aside_sync_id;
};

struct host {
        uint32_t index;
        node_id id;
        uint32_t region; /* index into regions */
        struct heap heap;
        struct node *node;                /* NULL: not running */
        uint64_t generation;              /* of the process: events of older ones are void */
        unsigned from_epoch, until_epoch; /* in the topology of these epochs */
        unsigned document;                /* that it is started with, by its epoch */
        uint64_t incarnation;
        uint64_t wake_at_us;
        uint64_t wake_id;
        uint64_t paused_until_us;
        bool slowed; /* by a chase */
        bool old;    /* runs an older build, until it is changed while the others serve */
        bool disk_broken;
        bool dead;         /* the whole region is gone: nothing restarts it until the faults end */
        uint64_t rate_ppm; /* of the monotonic clock; 1,000,000 is true */
        uint64_t mono_offset_us;
        int64_t wall_offset_us;
        struct sim_journal journals[WORLD_GROUP_COUNT];
        uint64_t group_applied[WORLD_GROUP_COUNT];
        uint64_t heirs; /* node_counters */
        uint64_t seen_up[REGIONS_MAX];
        bool view_routable[REGIONS_MAX];
        bool redis_told;  /* the node was sent word that Redis is up */
        bool redis_ready; /* and has taken it: its wishes reach the connection */
        uint64_t redis_told_incarnation;
};

struct sim_link {
        bool up[2];  /* as told to the lower and to the higher host */
        bool cut[2]; /* lower to higher, higher to lower: nothing passes */
        uint64_t cut_since_us;
        uint64_t epoch;
        uint64_t busy_us[2][WORLD_CLASS_COUNT]; /* the last delivery, for order */
        uint64_t slow_us;
        uint64_t clog_until_us;
};

/* ---- Redis ---- */

enum log_kind {
        LOG_LOCAL,
        LOG_BATCH,
        LOG_STATE,
        LOG_ADOPT,
};

struct log_entry {
        struct log_entry *next;
        enum log_kind kind;
        region_id origin;
        uint64_t last;
        struct vector vector;
        size_t len;
        uint8_t bytes[];
};

struct model_item {
        uint8_t *field;
        size_t field_len;
        uint8_t *value;
        size_t value_len;
};

struct model_key {
        uint32_t db;
        uint8_t name[16];
        size_t name_len;
        enum crdt_type type;
        uint8_t *text;
        size_t text_len;
        uint64_t expire_at_ms;
        struct model_item *items;
        size_t item_count, item_size;
};

struct tail_wait {
        bool used;
        uint32_t host;
        node_id peer;
        region_id origin;
        uint64_t after;
        uint32_t bytes_max;
        uint64_t id;
};

struct scan_run {
        bool used;
        node_id peer;
        struct vector vector;
};

/* What a node has asked. */
struct redis_link {
        struct tail_wait tails[HOSTS_MAX][REGIONS_MAX + 1]; /* by peer and origin */
        struct scan_run scans[HOSTS_MAX];
};

struct sim_redis {
        uint32_t region;
        struct sim *sim;
        bool up;
        bool exists;
        uint64_t incarnation;
        struct keyspace *keyspace;
        struct crdt_native native;
        struct model_key *keys;
        size_t key_count, key_size;
        struct log_entry *log_first, **log_tail, *log_synced; /* NULL: nothing synced */
        struct redis_link links[HOSTS_MAX];                   /* by host */
        uint64_t tail_id;
        uint64_t clock_file;    /* how far the clock is reserved, durably */
        uint64_t clock_pending; /* is being written */
        uint64_t clock_at_us;   /* and durable then */
        uint64_t given;         /* the largest own clock that a tail or a scan has handed out */
        struct buffer room;     /* of one callback */
};

void redis_init(struct sim *sim, uint32_t region);
void redis_fini(struct sim_redis *redis);
void redis_crash(struct sim_redis *redis);
void redis_start(struct sim_redis *redis);
void redis_effect(struct sim_redis *redis, struct host *host, const struct world_effect *effect);
void redis_tell(struct sim_redis *redis);
void redis_again(struct sim_redis *redis, struct host *host);
void redis_synced(struct sim_redis *redis);
void redis_beat(struct sim_redis *redis);
void redis_tail_end(struct sim_redis *redis, uint32_t slot, uint64_t id);
void redis_client(struct sim *sim);
/* Checks. */
void redis_check_converged(struct sim *sim);
bool redis_all_equal(struct sim *sim);
void redis_explain(struct sim *sim);
uint64_t redis_lag_ms(struct sim *sim, uint32_t region, uint32_t origin);
/* The age of the oldest delta of `origin` that `region` lacks; 0: none. */
uint64_t redis_behind_ms(struct sim *sim, uint32_t region, uint32_t origin);

/* model.c: what the clients see. */
struct model_key *model_find(struct sim_redis *redis, struct crdt_name name);
void model_clear(struct sim_redis *redis);
void model_native(struct sim_redis *redis);
uint64_t model_digest(struct sim_redis *redis);
bool model_has_member(struct sim_redis *redis, struct crdt_name name, struct bytes member);
struct bytes model_text(const struct model_key *key);
/* The key, made where it is absent and emptied where it is of another type. */
struct model_key *model_make(struct sim_redis *redis, struct crdt_name name, enum crdt_type type);
/* Its item of this field, NULL: none; made where it is absent; gone, and the key with the last. */
struct model_item *model_item(struct model_key *key, struct bytes field);
struct model_item *model_item_make(struct sim_redis *redis, struct model_key *key,
                                   struct bytes field);
void model_item_remove(struct sim_redis *redis, struct crdt_name name, enum crdt_type type,
                       struct bytes field);
/* Takes a copy in place of what was there (`*to` NULL: nothing). */
void model_copy(struct sim_redis *redis, uint8_t **to, size_t *to_len, struct bytes from);

/* A change that a client was told of, to be found again at the end. */
struct witness {
        region_id origin;
        uint64_t hlc;
        bool counted; /* an increment of the counter, else a member of the set */
        uint32_t number;
        bool at_risk; /* was in a log's end that a crash lost */
        bool must;    /* must be there at the end */
};

/* ---- lock clients ---- */

enum client_state {
        CLIENT_IDLE,
        CLIENT_ACQUIRING,
        CLIENT_HOLDING,
        CLIENT_RENEWING,
        CLIENT_RELEASING,
        CLIENT_CHECKING, /* holds it, and asks whether it does */
        CLIENT_LOOKING,  /* holds nothing, and asks who does */
};

struct lock_client {
        uint32_t index;
        enum client_state state;
        uint32_t key;
        uint32_t host;
        uint64_t request; /* 0: none is open */
        uint64_t invoked_us;
        uint64_t token_floor;
        uint64_t token;
        uint64_t ttl_ms;
        uint64_t wait_ms;
        uint64_t until_us; /* believes to hold until then, by its own conservative clock */
        uint64_t generation;
        uint32_t tries;
        uint64_t rate_ppm;
};

struct lock_key {
        char name[32];
        int region;         /* index; -1: global */
        uint64_t token_max; /* largest answered */
        uint32_t token_owner;
        uint64_t fence;      /* of the resource */
        int holder;          /* client that believes to hold; -1: none */
        uint64_t granted_us; /* when it was told so */
};

/* ---- values ---- */

/* An operation on values, as it is judged at the end. */
struct value_op {
        struct linear_op op;
        struct linear_pair when[1];
        struct linear_pair then[2];
        struct linear_pair saw[2];
        uint32_t gets[2];
        size_t get_count;
        bool reads; /* it writes nothing */
};

struct value_client {
        uint32_t index;
        uint32_t host;
        bool busy; /* with `op` */
        size_t op;
        uint64_t request; /* 0: none is open */
        uint64_t generation;
        uint32_t tries;
};

/* ---- PostgreSQL ---- */

#define POSTGRES_RECORDS_MAX 1024

struct sim_record {
        uint32_t host; /* where it was written, */
        uint16_t life; /* and in which of its lives */
        bool acked;    /* the client was told */
        bool aside;    /* a server that lost it in a rewind kept it */
        bool away;     /* a standby of another region has had it */
        uint64_t at_us;
};

enum {
        SIM_POSTGRES_NO_ASIDE = 1, /* nothing is kept aside */
        SIM_POSTGRES_NO_GATE = 2,  /* an open server takes writes whatever its gate says */
};

struct sim_postgres {
        bool exists;
        uint8_t state; /* enum primary_server, without FENCED: that is an open one's closed gate */
        uint16_t life; /* another whenever the log does not simply grow */
        uint32_t log[POSTGRES_RECORDS_MAX];
        uint32_t count, flushed;
        uint32_t acked[HOSTS_MAX];
        uint32_t timeline;
        uint64_t epoch;
        uint8_t line_count;
        bool lines_cut;
        struct world_postgres_line lines[WORLD_POSTGRES_LINES_MAX];
        node_id upstream;
        uint64_t gate_epoch, gate_until_us; /* by the host's clock */
        bool gate_limited;
        unsigned action; /* enum primary_action under way */
        uint64_t action_id, action_number, action_epoch, action_generation;
        node_id action_upstream;
};

/* ---- a leader that is being replaced ---- */

#define STALE_CLIENTS   3
#define STALE_QUESTIONS 64 /* that may be open: the oldest is forgotten */

struct stale_question {
        uint64_t request;
        uint64_t floor; /* a revision that somebody had been told */
        uint64_t asked_us;
};

struct stale {
        unsigned phase;
        uint32_t host;
        uint64_t slow_us;
        uint64_t revision; /* the largest that was told */
        struct stale_question questions[STALE_QUESTIONS];
        uint64_t asked;
};

/* What this seed does. */
struct swarm {
        uint32_t region_count;
        bool witness;
        bool region_of_three;
        bool many; /* regions of one to three nodes */
        uint8_t nodes[REGIONS_MAX];
        bool change; /* a node is added and one taken away, */
        uint32_t change_region;
        bool calm;     /* light loss only: nothing may flap */
        unsigned loss; /* per mille of messages that are late by a resend */
        uint64_t delay_us, jitter_us;
        unsigned crashes, cuts, one_ways, resets, pauses, jumps, clogs, redis_crashes, disk_fails,
                isolations, deaths;
        uint64_t sync_us, sync_jitter_us;
        bool small_snapshots;
        bool small_windows;
        bool batches; /* several events come in one turn of a node */
        bool small_ring;
        bool rates;
        bool deaths_only;
        bool one_cut;   /* one link is cut, then another: no region may go for that */
        bool tail_loss; /* logs may lose what a peer holds already */
        uint64_t fault_every_us;
        uint64_t faults_end_us, load_end_us, end_us;
        uint32_t lock_clients;
        uint64_t data_every_us;
        bool scores;  /* clients use sorted sets too */
        bool upgrade; /* nodes are changed to a newer build one by one */
        bool postgres;
        bool chase; /* PostgreSQL's writer is cut off or stopped, for longer than its lease */
        unsigned postgres_sync; /* commits wait for so many standbys */
        bool postgres_rpo;      /* commits are held where other regions lack more than a second */
        bool orders;            /* switchovers are given up, and the writer dies */
        bool stale; /* the leader of the global group is replaced, and asked meanwhile */
};

/* Of orders.c. */
struct orders {
        int stage;
        uint32_t host;  /* who was asked, */
        uint64_t at_us; /* and when this stage is over */
};

struct sim {
        struct sim_options options;
        struct sim_result *result;
        struct heap heap;
        struct rng rng[STREAM_COUNT];
        struct swarm swarm;
        struct queue queue;
        uint64_t now_us;
        uint64_t hash;
        uint64_t events;
        bool over;
        bool healing;
        char topologies[SIM_EPOCHS][8192];
        unsigned epoch; /* of the topology, as agreed */
        uint64_t change_next_us;
        struct host hosts[HOSTS_MAX];
        uint32_t host_count;
        struct sim_link links[HOSTS_MAX][HOSTS_MAX]; /* [low][high] */
        struct sim_redis redis[REGIONS_MAX];
        struct sim_postgres postgres[HOSTS_MAX];
        struct sim_record records[POSTGRES_RECORDS_MAX];
        uint32_t record_count;
        uint64_t postgres_epoch;   /* the newest that took writes */
        uint64_t streams_stall_us; /* until then no standby streams */
        unsigned postgres_bugs;
        struct lock_client clients[LOCK_CLIENTS];
        struct lock_key keys[LOCK_KEYS];
        uint32_t key_count;
        struct value_client value_clients[VALUE_CLIENTS];
        struct value_op value_ops[VALUE_OPS];
        size_t value_op_count;
        uint64_t value_seen[VALUE_KEYS]; /* by whoever read last */
        struct stale stale;
        struct orders orders;
        struct sets *sets;     /* NULL: not in this seed */
        struct copies *copies; /* the same */
        uint64_t request_last;
        /* Checkers. */
        uint16_t leader_of[1 + REGIONS_MAX][TERMS_MAX];
        uint64_t digests[1 + REGIONS_MAX][INDEX_MAX];
        uint64_t applied_max[1 + REGIONS_MAX];
        uint64_t applied_at_heal[1 + REGIONS_MAX];
        uint32_t leader_changes;
        uint64_t dead_since_us; /* of the region that died last */
        uint64_t undrain_us;
        uint64_t one_cut_until_us;
        struct witness witnesses[WITNESSES_MAX];
        uint32_t witness_count;
        uint32_t member_next;
        int isolated; /* host that is cut from all others; -1: none */
        uint64_t isolated_since_us;
        uint64_t state_changes; /* of regions, after the start */
        bool settled;           /* all regions were active once */
        uint64_t settled_us;
        uint64_t converged_us;
        bool minority_global_refused, minority_region_granted;
        struct linear_op *history; /* of the locks */
        size_t history_count, history_size;
        uint64_t probe_global, probe_region; /* requests; 0: none */
        uint64_t probe_us, probe_generation;
        uint64_t last_state[REGIONS_MAX];
};

/* sim.c */
static inline void sim_mix(struct sim *sim, uint64_t value)
{
        sim->hash = (sim->hash ^ value) * 0x9e3779b97f4a7c15u;
        sim->hash ^= sim->hash >> 29;
}
void sim_violation(struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);
void sim_trace(struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);
void sim_at(struct sim *sim, uint64_t after_us, enum event_kind kind, uint32_t a, uint32_t b,
            uint64_t generation);
struct parcel *parcel_new(struct sim *sim, const struct world_event *event, struct bytes data);
/* Hands a parcel to a host's node after a while; it takes the parcel. */
void sim_post(struct sim *sim, struct host *host, uint64_t after_us, struct parcel *parcel);
static inline void sim_cover(struct sim *sim, enum sim_cover cover)
{
        sim->result->cover[cover]++;
}
static inline uint64_t sim_below(struct sim *sim, enum sim_stream stream, uint64_t bound)
{
        return rng_below(&sim->rng[stream], bound);
}
static inline bool sim_chance(struct sim *sim, enum sim_stream stream, unsigned per_mille)
{
        return rng_chance(&sim->rng[stream], per_mille);
}

/* host.c */
void host_init(struct sim *sim, uint32_t index, node_id id, uint32_t region);
void host_fini(struct host *host);
void host_start(struct sim *sim, struct host *host);
void host_crash(struct sim *sim, struct host *host);
void host_step(struct sim *sim, struct host *host, struct world_event *event);
void host_timer(struct sim *sim, struct host *host, uint64_t id);
void host_probe(struct sim *sim, struct host *host);
uint64_t host_mono_us(const struct sim *sim, const struct host *host);
uint64_t host_wall_us(const struct sim *sim, const struct host *host);

/* disk.c */
void disk_append(struct sim *sim, struct host *host, const struct world_effect *effect);
void disk_sync_done(struct sim *sim, struct host *host, uint32_t group, uint64_t id);
void disk_crash(struct sim *sim, struct host *host);

/* network.c */
void network_send(struct sim *sim, struct host *from, const struct world_effect *effect);
void network_connect(struct sim *sim, uint32_t a, uint32_t b, uint64_t after_us);
void network_up(struct sim *sim, uint32_t a, uint32_t b, uint64_t epoch);
void network_break(struct sim *sim, uint32_t a, uint32_t b);
void network_cut(struct sim *sim, uint32_t a, uint32_t b, bool forth, bool back);
void network_cut_check(struct sim *sim, uint32_t a, uint32_t b);
void network_host_down(struct sim *sim, struct host *host);
void network_heal(struct sim *sim);
struct sim_link *network_link(struct sim *sim, uint32_t a, uint32_t b);

/* clients.c */
void clients_init(struct sim *sim);
void lock_client_step(struct sim *sim, uint32_t index, uint64_t generation);
void lock_client_timeout(struct sim *sim, uint32_t index, uint64_t request);
void clients_reply(struct sim *sim, struct host *host, uint64_t request, struct bytes data);
void clients_host_down(struct sim *sim, struct host *host);

/* history.c: each before the client's state changes. */
void history_use(struct sim *sim, const struct lock_client *client);
void history_lost(struct sim *sim, const struct lock_client *client);
void history_heard(struct sim *sim, const struct lock_client *client, const struct reply *reply);
void history_check(struct sim *sim);
void history_fini(struct sim *sim);
uint64_t clients_ask(struct sim *sim, struct host *host, const struct request *request);

/* values.c */
void value_clients_init(struct sim *sim);
void value_client_step(struct sim *sim, uint32_t index, uint64_t generation);
void value_client_timeout(struct sim *sim, uint32_t index, uint64_t request);
/* False: it is no answer about values. */
bool value_clients_reply(struct sim *sim, uint64_t request, const struct reply *reply);
void value_clients_host_down(struct sim *sim, const struct host *host);
/* At the end: is what was recorded linearizable? */
void value_clients_check(struct sim *sim);

/* sets.c: users of several locks, of sessions and their keys; and who watches. */
void sets_init(struct sim *sim);
void sets_fini(struct sim *sim);
void sets_step(struct sim *sim, uint32_t index, uint64_t generation);
void sets_timeout(struct sim *sim, uint32_t index, uint64_t request);
/* False: it is no answer to these. */
bool sets_reply(struct sim *sim, uint64_t request, const struct reply *reply);
void sets_host_down(struct sim *sim, const struct host *host);
/* At the end: histories, and what who watches was told. */
void sets_check(struct sim *sim);

/* copies.c: what nodes keep of other regions' lock changes. */
void copies_init(struct sim *sim);
void copies_fini(struct sim *sim);
/* After each step of a host. */
void copies_check(struct sim *sim, const struct host *host);
bool copies_converged(struct sim *sim, char *why, size_t size);
void copies_check_end(struct sim *sim);

/* postgres.c */
void postgres_draw(struct sim *sim);
void postgres_init(struct sim *sim);
bool postgres_takes_writes(const struct sim *sim, const struct host *host);
bool postgres_gate_open(const struct sim *sim, const struct host *host);
void postgres_host_up(struct sim *sim, struct host *host);
void postgres_crash(struct sim *sim, struct host *host);
void postgres_see(struct sim *sim, struct host *host);
void postgres_fill(struct sim *sim, struct host *host, struct world_postgres *ret);
void postgres_effect(struct sim *sim, struct host *host, const struct world_effect *effect);
void postgres_done(struct sim *sim, struct host *host, uint64_t id);
void postgres_streamed(struct sim *sim, uint32_t from, uint32_t to, uint64_t word);
void postgres_acked(struct sim *sim, uint32_t primary, uint32_t standby, uint64_t word);
void postgres_beat(struct sim *sim);

/* postgres_clients.c */
/* So much later than the limit a commit is let through: of a lease, by clocks at a wrong rate. */
#define SIM_RPO_LATE_US (5 * SECOND)
void postgres_clients(struct sim *sim); /* one beat of their work */
void postgres_check_writers(struct sim *sim);
bool postgres_converged(struct sim *sim, char *why, size_t size);

/* faults.c */
void swarm_draw(struct sim *sim);
void faults_step(struct sim *sim);
void faults_crash(struct sim *sim, struct host *host);
void faults_isolate(struct sim *sim, struct host *host, uint64_t for_us);
void faults_pause(struct sim *sim, struct host *host, uint64_t for_us);
/* A write has begun: the most interesting moment for a crash. */
void faults_while_writing(struct sim *sim, struct host *host, bool replacing);
void faults_end(struct sim *sim);

/* backup.c */
void backup_probe(struct sim *sim, struct host *host);

/* upgrade.c */
void upgrade_draw(struct sim *sim);
void upgrade_host_init(struct sim *sim, struct host *host);
/* What the build knows that a host starts with now; 0: everything. */
uint8_t upgrade_level(struct sim *sim, struct host *host);
bool upgrade_converged(struct sim *sim, char *why, size_t size);

/* chase.c */
void chase_draw(struct sim *sim);
uint64_t chase_rate_ppm(struct sim *sim);
void chase_step(struct sim *sim);
void faults_heal_link(struct sim *sim, uint32_t a, uint32_t b);

/* orders.c */
void orders_draw(struct sim *sim);
void orders_step(struct sim *sim);

/* stale.c */
void stale_draw(struct sim *sim);
uint64_t stale_rate_ppm(struct sim *sim);
void stale_init(struct sim *sim);
void stale_step(struct sim *sim);
void stale_client_step(struct sim *sim, uint32_t index);
/* False: it is no answer to what was asked here. */
bool stale_reply(struct sim *sim, const struct host *host, uint64_t request,
                 const struct reply *reply);

/* changes.c */
void changes_draw(struct sim *sim);
void changes_build(struct sim *sim);
void changes_step(struct sim *sim);
bool changes_done(struct sim *sim, char *why, size_t size);
/* Is it in the topology now? */
bool host_in(const struct sim *sim, const struct host *host);

/* check.c */
/* Where a node's group is in what is known of groups. */
unsigned check_group_index(const struct host *host, unsigned group);
/* A replica's state at an entry below INDEX_MAX: the same everywhere. */
void check_digest(struct sim *sim, const struct host *host, unsigned at, uint64_t index,
                  uint64_t digest);
void check_host(struct sim *sim, struct host *host);
void check_periodic(struct sim *sim);
void check_end(struct sim *sim);
bool check_converged(struct sim *sim, char *why, size_t size);

/* bugs.c */
void bug_apply(const struct sim *sim, struct node_config *config);
void bug_postgres(struct sim *sim);
bool bug_wants_orders(const struct sim *sim);
/* Most bugs are not of reads: seeds of stale.c would only change which seeds find one. */
bool bug_wants_stale(const struct sim *sim);
/* The same of seeds of sets.c, and of those where nodes keep copies of locks. */
bool bug_wants_sets(const struct sim *sim);
bool bug_wants_copies(const struct sim *sim);

#endif
