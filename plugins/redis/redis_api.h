/* redis_api.h - the entries of the Redis and Valkey module interface that this plugin uses,
 * declared by us from the public documentation. The server hands each one out by name: the first
 * word of a context is its GetApi. The list below is the whole dependency on the server: an entry
 * that it does not know is an error at load, not a crash later. */
#ifndef MERIDIAN_PLUGINS_REDIS_API_H
#define MERIDIAN_PLUGINS_REDIS_API_H

#include <stddef.h>
#include <stdint.h>

/* All opaque: the server owns them. `redis_string` is reference counted by the server. */
struct redis_context;
struct redis_string;
struct redis_key;
struct redis_filter;
struct redis_filter_context;
struct redis_reply;
struct redis_type;
struct redis_io;
struct redis_blocked;
struct redis_info;
struct redis_cursor;

enum {
        REDIS_OK = 0,
        REDIS_ERR = 1,
        REDIS_API_VERSION = 1,

        REDIS_READ = 1,
        REDIS_WRITE = 2,

        REDIS_KEY_EMPTY = 0,
        REDIS_KEY_STRING = 1,
        REDIS_KEY_LIST = 2,
        REDIS_KEY_HASH = 3,
        REDIS_KEY_ZSET = 5,
        REDIS_KEY_STREAM = 7,
        REDIS_KEY_SET = 4,

        REDIS_REPLY_STRING = 0,
        REDIS_REPLY_ERROR = 1,
        REDIS_REPLY_INTEGER = 2,
        REDIS_REPLY_ARRAY = 3,
        REDIS_REPLY_NULL = 4,
        REDIS_REPLY_SET = 6,

        REDIS_FILTER_NOSELF = 1,

        REDIS_HASH_NONE = 0,

        REDIS_FLAG_LUA = 1 << 0,
        REDIS_FLAG_MULTI = 1 << 1,
        REDIS_FLAG_SLAVE = 1 << 3,
        REDIS_FLAG_CLUSTER = 1 << 5,
        REDIS_FLAG_REPLICATED = 1 << 12,
        REDIS_FLAG_LOADING = 1 << 13,
        REDIS_FLAG_DENY_BLOCKING = 1 << 21,

        REDIS_NOTIFY_GENERIC = 1 << 2,
        REDIS_NOTIFY_STRING = 1 << 3,
        REDIS_NOTIFY_LIST = 1 << 4,
        REDIS_NOTIFY_SET = 1 << 5,
        REDIS_NOTIFY_HASH = 1 << 6,
        REDIS_NOTIFY_ZSET = 1 << 7,
        REDIS_NOTIFY_STREAM = 1 << 10,
        REDIS_NOTIFY_EXPIRED = 1 << 8,
        REDIS_NOTIFY_EVICTED = 1 << 9,

        REDIS_EVENT_ROLE = 0,
        REDIS_EVENT_FLUSHDB = 2,
        REDIS_FLUSH_BEGIN = 0,
        REDIS_EVENT_LOADING = 3,
        REDIS_EVENT_LOOP = 15,
        REDIS_ROLE_MASTER = 0,
        REDIS_LOADING_RDB = 0,
        REDIS_LOADING_AOF = 1,
        REDIS_LOADING_REPLICATION = 2,
        REDIS_LOADING_ENDED = 3,
        REDIS_LOADING_FAILED = 4,
        REDIS_LOOP_BEFORE_SLEEP = 0,

        REDIS_TYPE_VERSION = 2,
        REDIS_AUX_BEFORE = 1,
        REDIS_AUX_AFTER = 2,

        REDIS_OPTION_HANDLE_IO_ERRORS = 1,
        REDIS_OPTION_NO_IMPLICIT_SIGNAL = 2,
};

#define REDIS_NO_EXPIRE     (-1)
#define REDIS_POSTPONED_LEN (-1) /* ReplySetArrayLength will tell */

struct redis_stream_id {
        uint64_t ms;
        uint64_t seq;
};

struct redis_event {
        uint64_t id;
        uint64_t version;
};

/* What comes with REDIS_EVENT_FLUSHDB. */
struct redis_flush {
        uint64_t version;
        int32_t sync;
        int32_t db; /* -1: all */
};

typedef int (*redis_command)(struct redis_context *, struct redis_string **, int);
typedef void (*redis_filter_callback)(struct redis_filter_context *);
typedef int (*redis_keyspace_callback)(struct redis_context *, int, const char *,
                                       struct redis_string *);
typedef void (*redis_event_callback)(struct redis_context *, struct redis_event, uint64_t, void *);
typedef void (*redis_info_callback)(struct redis_info *, int);
typedef void (*redis_scan_callback)(struct redis_context *, struct redis_string *,
                                    struct redis_key *, void *);
typedef void (*redis_free_callback)(struct redis_context *, void *);
typedef void (*redis_disconnect_callback)(struct redis_context *, struct redis_blocked *);

/* The methods of a data type, up to the version that is used: most stay NULL. */
struct redis_type_methods {
        uint64_t version;
        void *(*rdb_load)(struct redis_io *, int);
        void (*rdb_save)(struct redis_io *, void *);
        void (*aof_rewrite)(struct redis_io *, struct redis_string *, void *);
        size_t (*mem_usage)(const void *);
        void (*digest)(void *, void *);
        void (*free)(void *);
        int (*aux_load)(struct redis_io *, int, int);
        void (*aux_save)(struct redis_io *, int);
        int aux_save_triggers;
};

#define REDIS_API_LIST(X)                                                                          \
        X(void, SetModuleAttribs, (struct redis_context *, const char *, int, int))                \
        X(void, SetModuleOptions, (struct redis_context *, int))                                   \
        X(int, CreateCommand,                                                                      \
          (struct redis_context *, const char *, redis_command, const char *, int, int, int))      \
        X(struct redis_filter *, RegisterCommandFilter,                                            \
          (struct redis_context *, redis_filter_callback, int))                                    \
        X(struct redis_string *, CommandFilterArgGet, (struct redis_filter_context *, int))        \
        X(int, CommandFilterArgsCount, (struct redis_filter_context *))                            \
        X(int, CommandFilterArgInsert,                                                             \
          (struct redis_filter_context *, int, struct redis_string *))                             \
        X(const char *, StringPtrLen, (const struct redis_string *, size_t *))                     \
        X(struct redis_string *, CreateString, (struct redis_context *, const char *, size_t))     \
        X(void, FreeString, (struct redis_context *, struct redis_string *))                       \
        X(void, RetainString, (struct redis_context *, struct redis_string *))                     \
        X(int, StringToLongLong, (const struct redis_string *, long long *))                       \
        X(int, StringToULongLong, (const struct redis_string *, unsigned long long *))             \
        X(int, StringToDouble, (const struct redis_string *, double *))                            \
        X(struct redis_key *, OpenKey, (struct redis_context *, struct redis_string *, int))       \
        X(void, CloseKey, (struct redis_key *))                                                    \
        X(int, KeyType, (struct redis_key *))                                                      \
        X(size_t, ValueLength, (struct redis_key *))                                               \
        X(char *, StringDMA, (struct redis_key *, size_t *, int))                                  \
        X(long long, GetAbsExpire, (struct redis_key *))                                           \
        X(int, SetAbsExpire, (struct redis_key *, long long))                                      \
        X(int, HashGet, (struct redis_key *, int, ...))                                            \
        X(int, HashSet, (struct redis_key *, int, ...))                                            \
        X(int, ZsetScore, (struct redis_key *, struct redis_string *, double *))                   \
        X(struct redis_string *, ListGet, (struct redis_key *, long))                              \
        X(int, ListSet, (struct redis_key *, long, struct redis_string *))                         \
        X(int, ListInsert, (struct redis_key *, long, struct redis_string *))                      \
        X(int, StreamDelete, (struct redis_key *, struct redis_stream_id *))                       \
        X(int, ListDelete, (struct redis_key *, long))                                             \
        X(int, DeleteKey, (struct redis_key *))                                                    \
        X(int, StringSet, (struct redis_key *, struct redis_string *))                             \
        X(int, NotifyKeyspaceEvent,                                                                \
          (struct redis_context *, int, const char *, struct redis_string *))                      \
        X(int, GetNotifyKeyspaceEvents, (void))                                                    \
        X(int, UnlinkKey, (struct redis_key *))                                                    \
        X(int, SignalModifiedKey, (struct redis_context *, struct redis_string *))                 \
        X(struct redis_context *, GetDetachedThreadSafeContext, (struct redis_context *))          \
        X(int, GetSelectedDb, (struct redis_context *))                                            \
        X(int, SelectDb, (struct redis_context *, int))                                            \
        X(struct redis_reply *, Call, (struct redis_context *, const char *, const char *, ...))   \
        X(void, FreeCallReply, (struct redis_reply *))                                             \
        X(int, CallReplyType, (struct redis_reply *))                                              \
        X(const char *, CallReplyStringPtr, (struct redis_reply *, size_t *))                      \
        X(size_t, CallReplyLength, (struct redis_reply *))                                         \
        X(struct redis_reply *, CallReplyArrayElement, (struct redis_reply *, size_t))             \
        X(struct redis_reply *, CallReplySetElement, (struct redis_reply *, size_t))               \
        X(long long, CallReplyInteger, (struct redis_reply *))                                     \
        X(int, ReplyWithCallReply, (struct redis_context *, struct redis_reply *))                 \
        X(int, ReplyWithError, (struct redis_context *, const char *))                             \
        X(int, ReplyWithSimpleString, (struct redis_context *, const char *))                      \
        X(int, ReplyWithLongLong, (struct redis_context *, long long))                             \
        X(int, ReplyWithArray, (struct redis_context *, long))                                     \
        X(void, ReplySetArrayLength, (struct redis_context *, long))                               \
        X(int, ReplyWithStringBuffer, (struct redis_context *, const char *, size_t))              \
        X(int, Replicate, (struct redis_context *, const char *, const char *, ...))               \
        X(int, ReplicateVerbatim, (struct redis_context *))                                        \
        X(int, WrongArity, (struct redis_context *))                                               \
        X(struct redis_type *, CreateDataType,                                                     \
          (struct redis_context *, const char *, int, struct redis_type_methods *))                \
        X(void, SaveStringBuffer, (struct redis_io *, const char *, size_t))                       \
        X(char *, LoadStringBuffer, (struct redis_io *, size_t *))                                 \
        X(int, IsIOError, (struct redis_io *))                                                     \
        X(void, LogIOError, (struct redis_io *, const char *, const char *, ...))                  \
        X(void *, Calloc, (size_t, size_t))                                                        \
        X(void *, Realloc, (void *, size_t))                                                       \
        X(void, Free, (void *))                                                                    \
        X(int, SubscribeToServerEvent,                                                             \
          (struct redis_context *, struct redis_event, redis_event_callback))                      \
        X(int, SubscribeToKeyspaceEvents, (struct redis_context *, int, redis_keyspace_callback))  \
        X(struct redis_blocked *, BlockClient,                                                     \
          (struct redis_context *, redis_command, redis_command, redis_free_callback, long long))  \
        X(int, UnblockClient, (struct redis_blocked *, void *))                                    \
        X(void *, GetBlockedClientPrivateData, (struct redis_context *))                           \
        X(struct redis_blocked *, GetBlockedClientHandle, (struct redis_context *))                \
        X(void, SetDisconnectCallback, (struct redis_blocked *, redis_disconnect_callback))        \
        X(int, AvoidReplicaTraffic, (void))                                                        \
        X(int, RegisterInfoFunc, (struct redis_context *, redis_info_callback))                    \
        X(int, InfoAddSection, (struct redis_info *, const char *))                                \
        X(int, InfoAddFieldULongLong, (struct redis_info *, const char *, unsigned long long))     \
        X(int, InfoAddFieldLongLong, (struct redis_info *, const char *, long long))               \
        X(int, InfoAddFieldCString, (struct redis_info *, const char *, const char *))             \
        X(int, InfoBeginDictField, (struct redis_info *, const char *))                            \
        X(int, InfoEndDictField, (struct redis_info *))                                            \
        X(int, GetContextFlags, (struct redis_context *))                                          \
        X(float, GetUsedMemoryRatio, (void))                                                       \
        X(void, Log, (struct redis_context *, const char *, const char *, ...))                    \
        X(void, GetRandomBytes, (unsigned char *, size_t))                                         \
        X(unsigned long long, GetClientId, (struct redis_context *))                               \
        X(struct redis_string *, GetClientUserNameById, (struct redis_context *, uint64_t))        \
        X(struct redis_cursor *, ScanCursorCreate, (void))                                         \
        X(void, ScanCursorDestroy, (struct redis_cursor *))                                        \
        X(int, Scan, (struct redis_context *, struct redis_cursor *, redis_scan_callback, void *))

/* What newer servers have: NULL where this one does not. */
#define REDIS_API_LIST_NEWER(X)                                                                    \
        X(unsigned long long, CommandFilterGetClientId, (struct redis_filter_context *))

/* One table of entries, filled once by redis_api_load and read as redis.OpenKey(...). */
struct redis_api {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): a declarator; it takes no more parentheses */
#define REDIS_API_FIELD(type, name, arguments) type(*name) arguments;
        REDIS_API_LIST(REDIS_API_FIELD)
        REDIS_API_LIST_NEWER(REDIS_API_FIELD)
#undef REDIS_API_FIELD
};

extern struct redis_api redis;

/* Resolves every entry through `ctx`. NULL when all are there, else the name of the first that the
 * server lacks (static). */
const char *redis_api_load(struct redis_context *ctx);

#endif
