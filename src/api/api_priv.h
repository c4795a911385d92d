/* api_priv.h - what the files of this room share. */
#ifndef MERIDIAN_API_API_PRIV_H
#define MERIDIAN_API_API_PRIV_H

#include "api/api.h"
#include "api/resp.h"
#include "base/buffer.h"
#include "base/heap.h"
#include "council/request.h"
#include "kv/kv.h"
#include "lock/lock.h"

#include <jansson.h>

struct api_locks;
struct api_admin;

/* Who waits for the answer to a request. `answer` is called once, or never when it is dropped. */
struct api_waiter {
        void *who;
        void (*answer)(void *who, const struct reply *reply);
};

/* Requests handed to the node and not yet answered: a number is an index and the count of its use,
 * so that a late answer to a request that was dropped finds nobody. */
#define API_REQUESTS_MAX 65536

struct api_pending {
        struct api_waiter waiter; /* answer NULL: free */
        uint32_t use;
        uint32_t next_free;
};

struct api_event {
        uint64_t index; /* from 1 */
        uint64_t wall_us;
        const char *name;
        char text[480];
};

enum {
        API_CONFLICT_KINDS = 8,
};

struct api {
        uv_loop_t *loop;
        struct heap heap;
        struct api_host host;
        struct geo *geo;
        bool lab;
        struct api_pending *pending;
        uint32_t pending_made; /* entries ever used */
        uint32_t pending_free; /* head of the free ones, API_REQUESTS_MAX: none */
        uint32_t pending_count;
        struct buffer scratch; /* a request in the making */
        struct buffer txn;     /* a transaction in it, */
        struct buffer bytes;   /* and a value in that */
        struct api_event *events;
        uint64_t event_count; /* ever */
        json_t *conflicts[API_CONFLICTS_MAX];
        struct {
                json_t *json;
                uint64_t told_s;
        } shards[API_SHARDS_MAX];
        unsigned shard_count;
        uint64_t conflict_count; /* ever */
        uint64_t conflict_missed;
        uint64_t conflict_since_ms; /* Unix: when counting began */
        uint64_t conflict_kinds[API_CONFLICT_KINDS];
        struct api_locks *locks;
        struct api_admin *admin;
        unsigned closing; /* doors not yet closed */
        void (*closed)(void *context);
        void *closed_context;
        uint64_t requests;
        uint64_t lock_commands;
        uint64_t lock_clients;
        uint64_t http_requests;
};

/* Hands a request to the node. Returns its number, or 0 where too many wait (nothing is called
 * then). The answer may come before this returns: *ret_number is set before. */
uint64_t api_ask(struct api *api, const struct request *request, struct api_waiter waiter,
                 uint64_t *ret_number);

/* The waiter has gone; the node is told. */
void api_drop(struct api *api, uint64_t number);

/* A door has closed. */
void api_door_closed(struct api *api);

/* ---- api_locks.c ---- */
MUST_USE enum err api_locks_new(struct api *api, const char *host, uint16_t port,
                                struct api_locks **ret_locks, char *why, size_t why_size);
uint16_t api_locks_bound(const struct api_locks *locks);
void api_locks_close(struct api_locks *locks);

/* ---- api_redis.c ---- */
#define API_SCRIPTS     8
#define API_DIGEST_SIZE 41

/* The digests by which clients call the scripts that are known; empty: not loaded. */
struct api_scripts {
        char digests[API_SCRIPTS][API_DIGEST_SIZE];
};

/* How an answer is written. */
enum api_form {
        API_FORM_LOCK, /* as LOCK.* commands have it */
        API_FORM_SET,  /* OK or nil */
        API_FORM_GET,  /* the owner or nil */
        API_FORM_ONE,  /* 1 or 0 */
        API_FORM_KV_GET,
        API_FORM_KV_REVISION,
        API_FORM_KV_TOTAL,
        API_FORM_KV_RANGE,
        API_FORM_KV_HISTORY,
        API_FORM_KV_CHANGES,
        API_FORM_KV_TXN,
        API_FORM_COUNT,
};

/* A command by which a client of Redis locks, and what becomes of it. */
struct api_idiom {
        const struct resp_reader *reader;
        struct bytes input;
        struct buffer *out; /* for what is answered at once */
        struct api_scripts *scripts;
        struct request *request; /* to be filled */
        enum api_form form;
};

/* Each fills the request and the form; false: answered. */
bool api_redis_set(struct api_idiom *idiom);
bool api_redis_get(struct api_idiom *idiom);
bool api_redis_eval(struct api_idiom *idiom);
bool api_redis_evalsha(struct api_idiom *idiom);
/* SCRIPT LOAD, EXISTS, FLUSH: always answers at once. */
void api_redis_script(const struct api_idiom *idiom);
/* False where the answer is an error like any other. */
bool api_redis_write(struct buffer *out, int protocol, enum api_form form,
                     const struct reply *reply);

/* ---- api_kv.c ---- */
/* A KV.* command, and what becomes of it. */
struct api_kv {
        const struct resp_reader *reader;
        struct bytes input;
        struct bytes actor; /* where the command names nobody */
        struct buffer *out; /* for what is refused at once */
        struct buffer *txn; /* what the request borrows from */
        struct request *request;
        enum api_form form;
};

/* Fills the request and the form; false: answered. */
bool api_kv_request(struct api_kv *kv);
/* False where the answer is an error, or of another form. */
bool api_kv_write(struct buffer *out, int protocol, enum api_form form, const struct reply *reply);

/* ---- api_http_locks.c ---- */
/* Fills a request from the path, which it borrows. */
void api_http_lock_get(const char *path, struct request *request);
/* The same with a body. The request borrows from the path, from `also` and from what is returned;
 * the caller releases that. NULL: `ret_problem` is a sentence. */
json_t *api_http_lock_post(const char *path, struct bytes text, struct buffer *also,
                           struct request *request, const char **ret_problem);
/* Fills a request from the query: one of key and prefix, and after and wait_ms as text; NULL: not
 * said. False: it is wrong. */
bool api_http_lock_watch(const char *key, const char *prefix, const char *const numbers[3],
                         struct request *request);
/* Of an answer that is no refusal; a new reference. */
json_t *api_http_watch_reply(const struct reply *reply);
/* Owner, token, ttl_ms of an answer that is no refusal; a new reference. */
json_t *api_http_lock_reply(const struct reply *reply);
/* GET /locks: `numbers` are after and limit, each NULL where it is not given. False: not good. */
bool api_http_lock_list(const char *prefix, const char *const numbers[2], struct request *request);
json_t *api_http_list_reply(const struct reply *reply);

/* ---- api_http_kv.c ---- */
/* A request to /kv..., and what becomes of it. */
struct api_http_kv {
        const char *path;
        bool post;
        struct bytes body;
        struct bytes actor;
        const char *(*query)(const void *who, const char *key);
        const void *who;
        struct buffer *txn; /* what the request borrows from, as from the path, */
        struct buffer *bytes;
        struct request *request;
        json_t *json;        /* and from this: the caller releases it */
        const char *problem; /* a sentence, where it is refused */
};

bool api_http_kv_request(struct api_http_kv *http);
/* What an answer that is no refusal says; a new reference. `*ret_status` changes where that is not
 * 200. */
json_t *api_http_kv_reply(const char *path, bool post, const struct reply *reply,
                          unsigned *ret_status);

/* ---- api_sessions.c ---- */
/* As api_http_lock_post. */
json_t *api_session_post(const char *path, struct bytes text, struct request *request,
                         const char **ret_problem);
bool api_session_is(enum request_kind kind);
json_t *api_session_reply(const struct reply *reply);

/* ---- api_services.c ---- */
/* Fills a request from the path, borrowing from both buffers. False: no service has such a name. */
bool api_services_request(const char *path, struct buffer *key, struct buffer *txn,
                          struct request *request);
json_t *api_services_reply(const struct api *api, const struct reply *reply, unsigned *ret_status);

/* ---- api_admin.c ---- */
MUST_USE enum err api_admin_new(struct api *api, const char *host, uint16_t port,
                                struct api_admin **ret_admin, char *why, size_t why_size);
uint16_t api_admin_bound(const struct api_admin *admin);
void api_admin_close(struct api_admin *admin);

void api_admin_backed_up(struct api_admin *admin, uint64_t ticket, enum err err,
                         struct buffer *backup);
void api_admin_verified(struct api_admin *admin, uint64_t ticket,
                        const struct api_verified *verified);

/* ---- api_conflicts.c ---- */
json_t *api_json_conflicts(const struct api *api, uint64_t since, const char *prefix);
void api_metrics_conflicts(const struct api *api, struct buffer *out);
void api_conflicts_fini(struct api *api);

/* ---- api_postgres.c ---- */
json_t *api_json_postgres(const struct api *api, const struct node_status *status);
json_t *api_json_postgres_region(const struct node_status *status, region_id region);
json_t *api_json_postgres_reply(const struct api *api, const struct reply *reply);
void api_metrics_postgres(const struct api *api, const struct node_status *status,
                          struct buffer *out);
/* Kind and wish by a path; false: there is no such. */
bool api_postgres_post(const char *path, bool force, struct request *request);

/* ---- api_shown.c ---- */
json_t *api_json_shown(const struct api *api);
void api_metrics_shown(const struct api *api, struct buffer *out);
void api_shown_fini(struct api *api);

/* ---- api_json.c: what GET answers; a new reference, NULL where memory ran out ---- */
json_t *api_json_status(const struct api *api);
json_t *api_json_events(const struct api *api, uint64_t since);

/* Which region a client at an address is sent to for a name, and why. `ret_problem` is a sentence
 * where the question is wrong (then NULL is returned). */
json_t *api_json_why_route(const struct api *api, const char *client, const char *name,
                           const char **ret_problem);

/* Metrics in Prometheus' text format. */
void api_metrics(const struct api *api, struct buffer *out);

#endif
