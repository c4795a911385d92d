/* engine_priv.h - the parts of the engine, as its files share them. */
#ifndef MERIDIAN_ENGINE_ENGINE_PRIV_H
#define MERIDIAN_ENGINE_ENGINE_PRIV_H

#include "base/check.h"
#include "base/rng.h"
#include "engine/engine.h"

/* <hiredis/hiredis.h> leaves timeval to others. */
#include <sys/time.h>

#include <hiredis/hiredis.h>

enum {
        HOST_HEADER_SIZE = TOPOLOGY_ENDPOINT_TEXT,
        DNS_QUERY_MAX = 320,
        HTTP_STATUS_LINE_MAX = 64,
        SCAN_PARTS_MAX = TOPOLOGY_REGION_ID_MAX,
};

/* ---- connection.c: one connection to Redis that is made again when it breaks ---- */

struct connection;

/* One command under way. */
struct call {
        struct call *next; /* by connection_send, as connection and bytes */
        struct connection *connection;
        size_t bytes;      /* of the command, set by connection_send */
        struct bytes name; /* its first word, static; set by connection_send */
        void (*done)(struct call *call, const redisReply *reply); /* reply NULL: it broke */
        uint64_t ticket;  /* TAIL: stale answers are dropped */
        node_id peer;     /* SCAN */
        region_id origin; /* MERGE */
        bool slow;        /* the server may answer nobody for long, while it works on this */
};

struct channel;
struct obstacle;

struct connection {
        struct engine *engine;
        struct topology_endpoint endpoint; /* the configured Redis, unless set otherwise */
        struct channel *channel;           /* NULL: none */
        redisReader *reader;               /* with a channel */
        struct call *calls;                /* without an answer, as they were sent */
        struct call **calls_end;
        bool hearing;     /* an answer is being told */
        bool ending;      /* as soon as that is over */
        uv_timer_t timer; /* until the next attempt; while it stands, the owner's */
        bool timer_open;
        bool wanted;
        bool bare;                       /* no password is told */
        bool lack_told;                  /* that our user lacks a right */
        bool shown_asked;                /* a MERIDIAN.STATUS is under way */
        const struct obstacle *obstacle; /* why `obstacle_name` was refused; NULL: it was not */
        struct bytes obstacle_name;
        bool cut;      /* the server, or the way to it, ended it */
        uint32_t cuts; /* how often in a row it was cut before `cut_name` was answered */
        struct bytes cut_name;
        bool conflicts_asked;   /* a MERIDIAN.CONFLICTS is */
        uint64_t conflict_last; /* id of the last one that was heard, of a control connection */
        bool ready;             /* connected and authenticated */
        uint32_t wait_ms;
        uint32_t wait_ms_max;
        uint32_t pending;    /* commands without an answer */
        uint32_t slack_ms;   /* a command may take this long beyond stall_ms: TAIL blocks */
        uint32_t slow;       /* commands of those that are */
        uint64_t moved_ms;   /* when it last made progress */
        uint64_t sent_bytes; /* of commands that are not answered */
        char why[128];       /* why it is being broken off */
        char why_last[128];  /* why it broke the last time */
        void (*up)(struct connection *connection);
        void (*down)(struct connection *connection);   /* only after up */
        void (*retry)(struct connection *connection);  /* connection_retry's time has come */
        void (*choose)(struct connection *connection); /* sets `endpoint` before each attempt */
        void *user;
};

void connection_init(struct connection *connection, struct engine *engine, uint32_t wait_ms_max);

/* Wants it to stand from now on. */
void connection_open(struct connection *connection);

/* Breaks it off; it is made again while wanted. */
void connection_kick(struct connection *connection, const char *why);

/* Ends it until it is opened again. */
void connection_pause(struct connection *connection, const char *why);

/* Ends it for good; its handles close by themselves. */
void connection_close(struct connection *connection);

/* Calls `retry` in `ms`, if it still stands then. */
void connection_retry(struct connection *connection, uint32_t ms);

/* Breaks it off when nothing has moved for too long. `beside` is the connection to the same server
 * by which slow commands go; NULL: there is none. */
void connection_watch(struct connection *connection, const struct connection *beside);

/* Sends a command; `call` is copied. False: it does not stand, or there is no memory. */
bool connection_send(struct connection *connection, const struct call *call, size_t argc,
                     const struct bytes *argv);

/* For the channel: bytes may go out from now on; some have come; it is of no use any more. Each may
 * free it. */
void connection_stands(struct connection *connection);
void connection_heard(struct connection *connection, struct bytes data);
void connection_broke(struct connection *connection, const char *why);

/* ---- channel.c: a socket to one server, plain or by TLS ---- */

/* Connects to the owner's endpoint. NULL: *ret_why, static, says why not. */
struct channel *channel_new(struct connection *owner, const char **ret_why);
void channel_free(struct channel *channel);

/* Takes a text of redisFormatCommandArgv, unless it is false: no memory. */
MUST_USE bool channel_send(struct channel *channel, char *text, size_t len);

/* ---- reply.c: what the module answers ---- */

enum reply_kind {
        REPLY_GOOD,
        REPLY_GAP,     /* *ret_position is where the stream stands */
        REPLY_REFUSED, /* an error; see reply_err */
        REPLY_STRANGE, /* of no form that the module has */
};

struct positions {
        struct world_position items[TOPOLOGY_REGION_ID_MAX];
        size_t count;
};

/* MERIDIAN.POSITIONS. */
enum reply_kind reply_positions(const redisReply *reply, region_id *ret_origin,
                                struct world_event *ret_event, struct positions *ret_positions);

/* MERIDIAN.TAIL. Slices point into the reply. */
enum reply_kind reply_tail(const redisReply *reply, struct world_event *ret_event);

/* MERIDIAN.MERGE and MERGESTATE. */
enum reply_kind reply_merge(const redisReply *reply, struct world_event *ret_event,
                            struct positions *ret_positions);

/* MERIDIAN.SCAN. */
enum reply_kind reply_scan(const redisReply *reply, struct world_event *ret_event,
                           struct positions *ret_positions);

/* The world's error for an error that Redis answered. */
MUST_USE enum err reply_err(const redisReply *reply);

bool reply_is_unknown_command(const redisReply *reply);
bool reply_is_denied(const redisReply *reply); /* by the access list */

/* Which server refuses, and with which words, for a person. */
void reply_refusal(const struct topology_endpoint *endpoint, const redisReply *reply,
                   char text[ENGINE_TEXT_SIZE]);

/* ---- dns.c ---- */

/* Writes a query for the SOA of `name` (text). Returns its length, 0: the name does not fit. */
size_t dns_query(uint16_t id, struct bytes name, uint8_t ret[static DNS_QUERY_MAX]);

/* Is this the answer to the query, and a good one (NOERROR, some answer)? NULL: yes, it is well;
 * else what is wrong, static. *ret_ours: it answers this query at all. */
const char *dns_answer_fault(struct bytes answer, struct bytes query, bool *ret_ours);

/* ---- http.c ---- */

/* The status of a response that begins with these bytes: 100..599; 0: more bytes are needed; -1: it
 * is no HTTP. */
int http_status(struct bytes begin);

/* ---- probe.c ---- */

struct probe;

/* Begins a look every interval. `path` is static; `path_else`, where the server does not know the
 * first one (404), or NULL; a status up to `status_max` is well. */
struct probe *probe_http(struct engine *engine, enum world_part part, uint32_t index,
                         const struct topology_endpoint *endpoint, const char *path,
                         const char *path_else, int status_max);
struct probe *probe_dns(struct engine *engine, const struct topology_endpoint *endpoint);
struct probe *probe_redis(struct engine *engine);
void probe_close(struct probe *probe); /* NULL is fine; it frees itself */

/* ---- keeper.c ---- */

void keeper_init(struct engine *engine);
void keeper_start(struct engine *engine);
void keeper_close(struct engine *engine);
void keeper_members(struct engine *engine);

/* With a finder: opens the connections to config.redis, and makes them anew when it is another. */
void keeper_open(struct engine *engine);
void keeper_moved(struct engine *engine);

/* policies.c: what the topology says of key prefixes. */
void policies_take(struct engine *engine, const struct topology *topology);
void policies_tell(struct engine *engine);

/* conflicts.c: to be called with each tick of the watch. */
void conflicts_ask(struct engine *engine);

/* obstacles.c: what a server has answered to a merge, a tail or a scan. */
void obstacle_heard(const struct call *call, const redisReply *reply);

/* What becomes of a command whose answer nobody waits for: a right that our user lacks would be
 * missed much later. */
void obstacle_told(struct call *call, const redisReply *reply);

/* A connection was cut, with its calls still there; one of its calls was answered. */
void obstacle_cut(struct connection *connection);
void obstacle_answered(struct connection *connection, const struct call *call);

/* Until the next attempt: longer where it was cut before. */
uint32_t obstacle_wait_ms(const struct connection *connection);

/* shown.c: to be called with each tick of the watch. */
void shown_ask(struct engine *engine);

/* Frees what keeper_close has closed. */
void keeper_fini(struct engine *engine);

/* Why Redis is of no use although it answers, or NULL. */
const char *keeper_refusal(const struct engine *engine);

/* ---- cluster.c: the same for a Redis Cluster; see cluster_priv.h ---- */

struct cluster;

MUST_USE bool cluster_new(struct engine *engine);
void cluster_start(struct engine *engine);
void cluster_close(struct engine *engine);
void cluster_fini(struct engine *engine);
void cluster_members(struct engine *engine);

/* Sends a command to every server of the cluster. */
void cluster_tell_all(struct engine *engine, size_t argc, const struct bytes *argv);
void cluster_redis(struct engine *engine, const struct world_effect *effect);
void cluster_watch(struct engine *engine);
void cluster_status(const struct engine *engine, struct engine_status *ret);

/* Why it is of no use, or NULL. */
const char *cluster_why(const struct engine *engine);

/* ---- verify.c ---- */

struct verifying;

void verify_fini(struct engine *engine);

/* ---- finder.c: which of several servers is the primary ---- */

struct finder;

MUST_USE bool finder_new(struct engine *engine);
void finder_start(struct engine *engine);
void finder_watch(struct engine *engine);
void finder_close(struct engine *engine);
void finder_fini(struct engine *engine);

/* Asks the server of the control connection; the answer holds for what is asked there after it. */
void finder_ask_role(struct engine *engine);
bool finder_role_is_primary(const struct engine *engine);

/* Why no primary is known, for a person; also where the region has one server and no finder. */
const char *finder_why(const struct engine *engine);

/* ---- engine.c ---- */

struct tail;

struct engine {
        struct engine_config config;
        char user[64];
        char password[ENGINE_PASSWORD_SIZE];
        struct rng rng;
        bool started;
        bool closing;
        uint32_t handles; /* of libuv, not yet closed */
        void (*closed)(void *user);
        void *closed_user;

        region_id region;
        struct bytes members[TOPOLOGY_REGIONS_MAX]; /* as text, in member_text */
        char member_text[TOPOLOGY_REGIONS_MAX][4];
        size_t member_count;
        char zone[TOPOLOGY_DOMAIN_SIZE];
        uint32_t data_count;
        uint32_t function_count;
        struct topology_data data[TOPOLOGY_DATA_MAX];
        struct topology_function functions[TOPOLOGY_FUNCTIONS_MAX];
        unsigned shown_ticks;

        struct probe *probe_redis;
        struct probe *probe_dns;
        struct probe *probe_edge;
        uint32_t backend_count;
        struct topology_endpoint backends[TOPOLOGY_BACKENDS_MAX];
        struct probe *probe_backends[TOPOLOGY_BACKENDS_MAX];

        uv_timer_t watch; /* looks for connections that hang */
        struct connection control;
        struct connection scan;
        struct connection ping;
        struct tail *tails;
        struct verifying *verifyings;
        struct finder *finder;   /* NULL: config.redis is the only one */
        struct cluster *cluster; /* NULL: the region has one Redis, `control` and so on */
        bool redis_up;
        bool module_missing;
        region_id origin;
        uint64_t incarnation;
        char refusal[ENGINE_TEXT_SIZE];
};

/* Counts a handle that libuv holds; engine_handle_closed when its close callback came. */
void engine_handle_opened(struct engine *engine);
void engine_handle_closed(struct engine *engine);

void engine_emit(struct engine *engine, const struct world_event *event);
void engine_note(struct engine *engine, const char *name, const char *format, ...)
        PRINTF_LIKE(3, 4);

bool engine_endpoint_same(const struct topology_endpoint *a, const struct topology_endpoint *b);

void engine_address(const struct topology_endpoint *endpoint, struct sockaddr_storage *ret);

uint64_t engine_now_us(const struct engine *engine);

#endif
