/* request.h - what a client of a node asks (api/ -> node), and the answers. Also travels between
 * nodes when a request has to be forwarded. Versioned bytes; decoding borrows from its input,
 * checks everything and returns ERR_MALFORMED, ERR_TRUNCATED or ERR_VERSION.
 *
 * Layout of both: u8 version (1), u8 kind, then the fields of the kind in the order of the struct,
 * integers as varints, slices as varint length and bytes. A request has version 2, and slots,
 * flags, delay_ms, session at its end, where one of these or its kind is not of version 1; those of
 * values have version 2 without them. Version 3 of a request for locks has also, too. */
#ifndef MERIDIAN_COUNCIL_REQUEST_H
#define MERIDIAN_COUNCIL_REQUEST_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"

#define REQUEST_NAME_BYTES_MAX     64
#define REQUEST_TEXT_BYTES_MAX     512
#define REQUEST_DOCUMENT_BYTES_MAX ((size_t)512 * 1024)
#define REQUEST_LIST_MAX           1000 /* locks in one answer */

enum request_kind {
        REQUEST_LOCK_ACQUIRE = 1, /* key owner ttl_ms wait_ms */
        REQUEST_LOCK_RENEW,       /* key owner token ttl_ms */
        REQUEST_LOCK_RELEASE,     /* key owner token */
        REQUEST_LOCK_INFO,        /* key */
        REQUEST_LOCK_LIST,        /* key: prefix "global:" or "<region>:", after: token, limit */
        REQUEST_LOCK_BREAK,       /* key, actor: an operator takes it away */
        REQUEST_TOPOLOGY_GET,
        REQUEST_TOPOLOGY_APPLY, /* epoch (expected), document, actor */
        REQUEST_REGION,         /* region (name), action, actor, why */
        REQUEST_POSTGRES,       /* wish, target (a node or region; empty: any), actor */
        REQUEST_LOCK_LOOK,      /* key token: who holds it, as of the log; token 0: anybody */
        REQUEST_LOCK_SEIZE,     /* as BREAK; the answer has a token beyond all holders' */
        REQUEST_SESSION_OPEN,   /* key: prefix "global:" or "<region>:", owner ttl_ms; the answer's
                                 * token is the session */
        REQUEST_SESSION_KEEP,   /* key: prefix, owner session */
        REQUEST_SESSION_CLOSE,  /* the same */
        REQUEST_KV,             /* key txn actor stale: a transaction (kv/kv.h) */
        REQUEST_KV_WATCH,       /* key: prefix, after wait_ms: changes, as soon as there are some */
        REQUEST_LOCK_WATCH,     /* key, token: changes after that revision, wait_ms, flags: of
                                 * REQUEST_WATCH_...: changes, as soon as there are some */
        REQUEST_KIND_COUNT,
};

enum {
        REQUEST_WATCH_PREFIX = 1, /* LOCK_WATCH: of all locks that begin so */
        REQUEST_WATCH_COPY = 2,   /* as the asked node has heard of that other region's locks */
};

#define REQUEST_WATCH_NOW UINT64_MAX /* LOCK_WATCH: what happens from now on */

enum request_action {
        REQUEST_DRAIN = 1, /* active -> draining: no new traffic, lets go */
        REQUEST_UNDRAIN,   /* drained or draining -> active */
        REQUEST_ISOLATE,   /* out at once, and stays out until UNISOLATE */
        REQUEST_UNISOLATE,
        REQUEST_ACTION_COUNT,
};

/* What is asked of the PostgreSQL cluster. */
enum request_postgres {
        REQUEST_SWITCHOVER = 1, /* another one takes over, and nothing is lost */
        REQUEST_FAILOVER,       /* there is no primary: one takes over within the limit of loss */
        REQUEST_FAILOVER_FORCE, /* the same, whatever is lost */
        REQUEST_POSTGRES_ABORT, /* none of these any more */
        REQUEST_POSTGRES_COUNT,
};

struct request {
        enum request_kind kind;
        union {
                struct {
                        struct bytes key;
                        struct bytes owner;
                        uint64_t token;
                        uint64_t ttl_ms;
                        uint64_t wait_ms;
                        struct bytes actor; /* BREAK, SEIZE */
                        uint32_t slots;     /* ACQUIRE; see lock/lock.h for these */
                        uint32_t flags;     /* ACQUIRE, RENEW, RELEASE */
                        uint64_t delay_ms;  /* ACQUIRE */
                        uint64_t session;   /* ACQUIRE, SESSION_KEEP, SESSION_CLOSE; 0: none */
                        struct bytes also;  /* ACQUIRE: other keys, all or none: lock/lock.h */
                } lock;
                struct {
                        struct bytes key; /* prefix */
                        uint64_t after;
                        uint64_t limit; /* 1 .. REQUEST_LIST_MAX */
                } list;
                struct {
                        struct bytes key; /* "global:" or "<region>:" at least: who decides */
                        struct bytes txn; /* made by kv_build_end; all its keys begin alike */
                        struct bytes actor;
                        uint64_t after; /* revision */
                        uint64_t wait_ms;
                        bool stale; /* of reads: as this node knows it, without asking anybody */
                } kv;
                struct {
                        uint64_t epoch;
                        struct bytes document;
                        struct bytes actor;
                } topology;
                struct {
                        struct bytes region;
                        enum request_action action;
                        struct bytes actor;
                        struct bytes why;
                } region;
                struct {
                        enum request_postgres wish;
                        struct bytes target;
                        struct bytes actor;
                } postgres;
        };
};

void request_encode(const struct request *request, struct buffer *out);
MUST_USE enum err request_decode(struct bytes data, struct request *ret);

/* The word that leads an error message: one list for RESP, HTTP and the command line. */
#define REPLY_CODE_LIST(X)                                                                         \
        X(REPLY_OK, "OK", 200)                                                                     \
        X(REPLY_HELD, "HELD", 409)              /* somebody else holds it: nil over RESP */        \
        X(REPLY_NOT_OWNER, "NOTOWNER", 409)     /* this owner does not hold it with this token */  \
        X(REPLY_NO_MAJORITY, "NOMAJORITY", 503) /* cannot be decided now */                        \
        X(REPLY_NOT_LEADER, "NOTLEADER", 503)   /* try again; a leader is being found */           \
        X(REPLY_UNKNOWN_REGION, "NOREGION", 404)                                                   \
        X(REPLY_UNREACHABLE, "UNREACHABLE", 503) /* the region that decides cannot be reached */   \
        X(REPLY_BAD_REQUEST, "BADREQUEST", 400)                                                    \
        X(REPLY_NOT_FOUND, "NOTFOUND", 404)                                                        \
        X(REPLY_CONFLICT, "CONFLICT", 409) /* it changed meanwhile: read again */                  \
        X(REPLY_LIMIT, "LIMIT", 429)                                                               \
        X(REPLY_TIMEOUT, "TIMEOUT", 504) /* not known whether it happened: ask again */            \
        X(REPLY_INTERNAL, "INTERNAL", 500)                                                         \
        X(REPLY_DEADLOCK, "DEADLOCK", 409)    /* to wait would close a circle of waiting owners */ \
        X(REPLY_NO_SESSION, "NOSESSION", 404) /* it has ended, or is another owner's */            \
        X(REPLY_COMPACTED, "COMPACTED", 410)  /* changes since then are forgotten */               \
        X(REPLY_LEVEL, "LEVEL", 409)          /* not all nodes know this yet: see council.h */

enum reply_code {
#define REPLY_ENUM(name, word, http) name,
        REPLY_CODE_LIST(REPLY_ENUM)
#undef REPLY_ENUM
        REPLY_CODE_COUNT
};

/* "NOMAJORITY"; static. */
const char *reply_code_word(enum reply_code code);
/* The HTTP status that fits. */
int reply_code_http(enum reply_code code);

struct reply_lock {
        struct bytes key;
        struct bytes owner;
        uint64_t token;
        uint64_t ttl_ms; /* left */
        uint64_t waiters;
};

/* `kind` is the request's; `text` is for a person. With a code other than OK only
 * `text` counts, and on REPLY_HELD also `lock` (the holder). */
struct reply {
        enum request_kind kind;
        enum reply_code code;
        struct bytes text;
        union {
                struct reply_lock
                        lock; /* ACQUIRE: token ttl; RENEW: ttl; INFO: all; RELEASE, BREAK: - */
                struct {
                        const struct reply_lock *items; /* encode: borrowed; decode: see below */
                        size_t count;
                        uint64_t next; /* `after` of the next request; 0: that was all */
                } list;
                struct {
                        struct bytes result; /* by kv_result_encode */
                } kv;
                struct {
                        struct bytes changes; /* by lock_changes_encode */
                        uint64_t revision;    /* `after` of the next request */
                        bool more;
                        bool copy;       /* of a copy: only then */
                        uint64_t known;  /* the last revision in it */
                        uint64_t age_ms; /* since its region was heard of */
                } watch;
                struct {
                        uint64_t epoch;
                        struct bytes document; /* GET */
                } topology;
                struct {
                        uint8_t state; /* of the region now */
                } region;
                struct {
                        uint32_t node; /* that is to take over; 0: none. `text` says what will be */
                } postgres;
        };
};

void reply_encode(const struct reply *reply, struct buffer *out);

/* `items` (REQUEST_LIST_MAX of them, may be NULL where no list is expected)
 * receives the locks of a list. */
MUST_USE enum err reply_decode(struct bytes data, struct reply *ret, struct reply_lock *items,
                               size_t items_size);

#endif
