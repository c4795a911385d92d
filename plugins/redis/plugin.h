/* plugin.h - what the parts of the Redis plugin share. One server process holds one plugin; Redis
 * runs all of it on its main thread, so there is one global state and no lock.
 *
 * How a write flows
 *   1 filter.c sees the command before it runs. It refuses what would make regions differ, and
 *     *stashes* the arguments that a delta will need. The command itself stays as it is.
 *   2 Redis runs its own command. Replies, encodings, errors, access control, statistics and the
 *     propagation to AOF and replicas are therefore the stock server's.
 *   3 local.c hears of the change by the synchronous keyspace notification, tells the keyspace, and
 *     appends the delta to `pending`. Plain writes of a turn are told together (batch.c).
 *   4 Before the event loop sleeps, and so before the AOF is written and any reply leaves, log.c
 *     propagates `pending` as one MERIDIAN.LOG record, and then wakes those that wait in TAIL.
 *
 * A log that ends between 2 and 4 (kill -9) holds native commands without a LOG: their keys are in
 * `dirty` at the end of the load, and are stamped anew. No delta leaves the process before
 * its LOG is propagated. */
#ifndef MERIDIAN_PLUGINS_REDIS_PLUGIN_H
#define MERIDIAN_PLUGINS_REDIS_PLUGIN_H

#include "base/buffer.h"
#include "base/check.h"
#include "keyspace/keyspace.h"
#include "redis_api.h"
#include "rules.h"

enum {
        PLUGIN_RING_BYTES = 64 << 20, /* the default */
        PLUGIN_FEED_BYTES = 16 << 20,
        PLUGIN_DRIFT_MAX_MS = 5000,
        PLUGIN_PENDING_BYTES_MAX = 1 << 20, /* a longer LOG is propagated within the turn */
        PLUGIN_BATCH_BYTES_MAX = 64 << 20,
        PLUGIN_SCRATCH_BYTES_MAX = 1 << 20, /* that is kept for the next use */
        LOG_VALUE_LEN = 64,                 /* longer values are not told twice */
        PLUGIN_TAIL_MS_MAX = 60000,
        PLUGIN_NOW_USES_MAX = 16, /* writes of one turn that may share a reading of the clock */
};

/* An argument as it was when the command came. Redis re-encodes short values in place, which frees
 * what `string` points to: those are copied. */
struct stash_argument {
        struct redis_string *string; /* borrowed from the command; also its identity */
        uint32_t copy_at;
        uint32_t copy_len; /* UINT32_MAX: not copied */
};

struct stash {
        const struct rule *rule; /* NULL: nothing is stashed */
        unsigned count;
        unsigned next; /* MSET: the argument where the next key is looked for */
        unsigned size;
        bool used; /* a notification has consumed it */
        struct stash_argument *arguments;
        struct buffer copies;
};

struct plugin {
        struct heap heap;
        struct keyspace *keyspace;
        struct keyspace_config config;
        struct redis_type *type;
        struct redis_context *ctx; /* for calls outside of any command */
        struct buffer pending;     /* frames of the next MERIDIAN.LOG */
        struct buffer dirty; /* keys that changed natively without a delta: u32 db, slice key */
        struct stash stash;
        struct redis_string *wrap_names[WRAP_COUNT];
        struct redis_string *strict_names[WRAP_COUNT];
        struct redis_string *refuse_name;
        uint64_t multi_open; /* clients that may have queued a MULTI, never fewer than there are */
        uint64_t multi_seen_ms; /* when multi_open was last compared with the client list */
        uint64_t shipped;       /* no delta beyond this clock has left the process */
        uint64_t feed_bytes;    /* limit of the change feed; 0: there is none */
        uint64_t refused;       /* commands refused by the filter */
        uint64_t evicted;       /* keys, since the start: other regions have them still */
        uint64_t stamped_anew;  /* keys that had lost their LOG */
        uint64_t collect_ms;
        uint64_t now_ms;
        unsigned now_uses;
        bool loading;
        bool replica;
        bool quiet;            /* a log is replayed: Redis has the values already */
        bool applying;         /* a merge writes: its notifications are not local changes */
        bool telling;          /* the same, and nothing changes by it: see notify.c */
        bool saved;            /* the loaded snapshot held our metadata */
        bool log_seen;         /* the loaded log held our records */
        bool many_dbs;         /* another database than 0 was written */
        bool begun;            /* a life of the stream, see clock.c */
        bool recover;          /* a load has ended: look for content without stamps */
        bool feeding;          /* somebody has asked for the change feed */
        bool writers;          /* somebody waits for its own writes, see writers.c */
        struct buffer expired; /* keys that expired during a merge: as `dirty` */
        struct buffer noted; /* sorted sets that have lost somebody: as `dirty`, see zset_settle */
        bool taking;         /* the batch takes away what looking at the keyspace still finds */
        bool open_half;      /* the open op has happened, but its expiry is still to come */
        struct redis_string *open_key; /* of the open op, also its identity; NULL: none is open */
        struct redis_string *emptied_key; /* of the removal that runs: a "del" of it says no more */
};

extern struct plugin plugin;

/* Unix milliseconds. */
uint64_t plugin_now_ms(void);

/* The same for a stamp: read once for a few writes of one turn, which take microseconds. */
static inline uint64_t plugin_stamp_ms(void)
{
        return plugin.now_uses++ < PLUGIN_NOW_USES_MAX ? plugin.now_ms : plugin_now_ms();
}

/* Stops the server with a reason on a failure from which only a restart recovers (no memory). */
_Noreturn void plugin_stop(enum err err, const char *what);

static inline void plugin_must(enum err err, const char *what)
{
        if (__builtin_expect(err != ERR_NONE, 0))
                plugin_stop(err, what);
}

/* Memory for `count` things of `size` bytes, to be freed by heap_free; it does not
 * fail, see plugin_must. */
MUST_USE __attribute__((returns_nonnull)) void *plugin_array(size_t count, size_t size,
                                                             const char *what);

/* The same for an array that grows; what it held stays in it. */
MUST_USE __attribute__((returns_nonnull)) void *plugin_resize(void *array, size_t count,
                                                              size_t size, const char *what);

static inline struct bytes plugin_bytes(const struct redis_string *string)
{
        size_t len;
        const char *ptr = redis.StringPtrLen(string, &len);
        return bytes_of(ptr, len);
}

/* ---- filter.c, stash.c */

void filter_command(struct redis_filter_context *ctx);

void stash_begin(struct stash *stash, const struct rule *rule);
void stash_add(struct stash *stash, struct redis_string *string, bool copy);
struct bytes stash_bytes(const struct stash *stash, unsigned at);

/* ---- batch.c: the plain writes of a turn, told together */

/* In the filter: the command that runs next is a plain write of that shape. False: it is not, and
 * nothing is open. */
bool batch_open(struct redis_filter_context *ctx, const struct rule *rule);
/* The same of an SADD or ZADD of one member, in database 0; and what it would be to that, as
 * keyspace_op_look says, by what is told: where it is not ABSENT, nothing is open. */
bool batch_open_add(struct redis_filter_context *ctx, const struct rule *rule,
                    enum crdt_member *ret_look);
void batch_settle(void);
static inline void batch_close(void)
{
        if (plugin.open_half)
                batch_settle();
        plugin.open_key = NULL;
}

/* A notification of open_key: true where it was the open op's, which is now in the batch, or will
 * be when the rest of it is told. */
bool batch_commit(struct redis_context *ctx, const char *event, int db);

/* Tells the keyspace. What runs after it sees everything that was committed. */
void batch_drain(void);

/* The clock of the last write that was committed, told or not. */
uint64_t batch_last(void);

/* The same of what came before the open op, which stays open. */
void batch_drain_before(void);

/* Drops what was committed: the keyspace is another one. */
void batch_forget(void);

/* One increment, at once. */
void batch_add(struct crdt_name name, int64_t amount);

/* ---- local.c: what this region's clients change */

int local_notified(struct redis_context *ctx, int type, const char *event,
                   struct redis_string *key);

/* Records what a change appended: its delta goes into `pending`. */
void local_changed(const struct keyspace_change *change);

/* The same for a SET of `value`, and for an HSET with that body. */
void local_set_changed(struct bytes delta, struct bytes value);
void local_hset_changed(struct bytes delta, struct bytes body);

void local_set_add(struct crdt_name name, struct stash *stash, unsigned first);
/* A list of keys: u32 db, slice key each. Adds one; takes the next one, which borrows, or what the
 * cursor's error stands for. */
void local_dirty(struct buffer *list, struct crdt_name name);
struct crdt_name local_listed(struct cursor *cursor);

/* When the key expires, in Unix milliseconds; 0: never, or there is no such key. */
uint64_t local_expiry(struct redis_context *ctx, struct redis_string *key);

/* ---- policy.c: what becomes of concurrent writes, by the prefix of a key */

enum policy {
        POLICY_TYPED,
        POLICY_LAST_WRITE,
        POLICY_SIBLINGS,
        POLICY_MERGE,
        POLICY_COUNT,
};

/* Cost: one look at the key's first byte where no prefix begins so. */
enum policy policy_of(struct bytes key);
const char *policy_name(enum policy policy);
uint64_t policy_count(void);

/* True where messages of that channel reach other regions. */
bool policy_publishes(struct bytes channel);

/* True where a change of that key (`string`: one of a string) is told as its whole value. */
bool policy_tells_whole(struct bytes key, bool string);

/* A notification of a local change: true where the policy has told it. */
bool policy_notified(struct redis_context *ctx, const char *event, struct crdt_name name,
                     struct redis_string *key);

/* As crdt_native.siblings_show. */
bool policy_show(void *context, struct crdt_name name, const struct crdt_sibling *siblings,
                 size_t count, struct bytes *ret_value);

int policy_command(struct redis_context *ctx, struct redis_string **argv, int argc);

/* For snapshots; policy_load is false where that is none. */
struct bytes policy_saved(void);
bool policy_load(struct bytes saved);

/* ---- conflict.c: conflicts as events */

void conflict_found(void *context, const struct crdt_conflict *told);
void conflict_merge_failed(struct crdt_name name, const struct crdt_sibling *shown,
                           const char *result, const char *why);
void conflict_publish(struct redis_context *ctx);
void conflict_begin(void);
uint64_t conflict_since_ms(void); /* Unix: what is counted was found since then */
uint64_t conflict_total(void);
void conflict_info(struct redis_info *info);
int conflict_command(struct redis_context *ctx, struct redis_string **argv, int argc);
int siblings_command(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- replace.c: a key is now what Redis holds */

/* Records the present content of a key, and its expiry, in place of what was known of it: a delete
 * where Redis has none. `ctx` has the key's database selected. Cost: the whole value. */
void replace_key(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* A delete of what is known under that name. */
void replace_forget(struct crdt_name name);

/* ---- flush.c: FLUSHDB, FLUSHALL */

void flush_told(struct redis_context *ctx, struct redis_event event, uint64_t sub, void *data);
int flush_run(struct redis_context *ctx, const struct rule *rule, struct redis_string **argv,
              int argc);

/* A LOG record was replayed; the load is at its end. */
void flush_logged(void);
void flush_recover(void);

/* ---- hash.c: increments of fields */

void hash_on_hincrby(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void hash_on_hincrbyfloat(struct redis_context *ctx, struct crdt_name name,
                          struct redis_string *key);
int hash_run_float(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- hll.c: HyperLogLogs */

bool hll_is(struct bytes value);
void hll_record(struct crdt_name name, struct bytes registers);
void hll_on_pfadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void hll_native_add(void *context, struct crdt_name name, struct bytes element);
void hll_native_merge(void *context, struct crdt_name name, struct bytes registers);

/* ---- zset.c: sorted sets */

/* A score as Redis reads it; whether that is a word of ZADD or GEOADD and no score. */
bool zset_parse(const struct redis_string *text, double *ret);
bool zset_is_option(struct bytes word);

/* In the filter: what a ZADD would be to the members that it names: ABSENT where it changes any. */
enum crdt_member zset_filter_look(struct redis_filter_context *ctx, int argc);

void zset_on_zadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void zset_on_zincr(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void zset_on_zrem(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* The wrapped ZADD or GEOADD that is stashed has changed nothing: it is told all the same. */
void zset_added_again(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* True for an event that does not name what went: it is looked for when the command is over, which
 * is before the next event, filtered write, or end of the turn. */
bool zset_noted(const char *event, struct crdt_name name);
void zset_settle_noted(void);
static inline void zset_settle(void)
{
        if (plugin.noted.len > 0)
                zset_settle_noted();
}

/* In the filter: looks which members a command that cannot be wrapped will take. */
void zset_peek(struct redis_filter_context *ctx, const struct rule *rule, int argc);
void zset_forget(void);

/* Runs a command that takes members away; NULL as redis.Call. */
struct redis_reply *zset_run(struct redis_context *ctx, const struct rule *rule,
                             struct redis_string **argv, int argc);

/* Deletes what was observed of the key and adds what the native set holds. */
void zset_record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* The part of a merge. What is added is put by native_close. */
void zset_native_add(void *context, struct crdt_name name, struct bytes member, double score);
void zset_native_remove(void *context, struct crdt_name name, struct bytes member);
void zset_native_close(void);

/* ---- recover.c: content without stamps */

/* Gives every key in `dirty` a fresh stamp for what Redis holds now. */
void local_stamp_dirty(struct redis_context *ctx);

/* Puts every key that Redis holds and the keyspace does not know into `dirty`. */
void local_adopt_all(struct redis_context *ctx);

/* Kills what expired during a merge and has not come back. */
void local_expire_listed(struct redis_context *ctx);

/* Kills what has expired without the store noticing (it does not load expired keys).
 * Also learns which databases are in use. */
void local_expire_unloaded(struct redis_context *ctx);

/* ---- wrap.c: commands that cannot be followed by their notification alone */

int wrap_command(struct redis_context *ctx, struct redis_string **argv, int argc);
int wrap_refuse(struct redis_context *ctx, struct redis_string **argv, int argc);

int wrap_strict(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- guard.c: who may run a wrapped command */

/* The access lists may be about to change; a transaction has ended. */
void guard_changes(void);
void guard_executed(void);

/* In the filter: the wrapper must be the one for which the server checks the client. */
bool guard_strict(struct redis_filter_context *ctx);

/* In the other wrapper: the client has authenticated or need not. */
bool guard_lets(struct redis_context *ctx);

/* ---- log.c: the record for AOF and replicas */

/* Propagates `pending`, unless clients are paused. True where nothing is pending after it. */
bool log_flush(struct redis_context *ctx);

/* Appends one frame to `pending`. `cut`: the value, its tail, is left out. */
void log_before(struct bytes text); /* keyspace_change.before, before its delta */
void log_frame(struct bytes delta, bool cut);
void log_gone(struct crdt_name name); /* it was evicted */
int log_command(struct redis_context *ctx, struct redis_string **argv, int argc);

/* Appends a position of our own stream that was told (keyspace_mark). */
void log_mark(uint64_t position);

/* A key has gone to another server of the region; one has come, by a server with that clock. */
void log_forget(struct crdt_name name);
void log_moved(uint64_t clock, struct bytes state);
void log_seen(struct bytes seen);

/* What waits in `pending`: the clock of its first delta, and whether there is more than adds of
 * what was there. */
struct log_unsaid {
        uint64_t first;
        bool any;
        bool changed;
};

/* Calls `each` with every key that is named in `pending`. */
void log_pending(struct log_unsaid *ret, void (*each)(struct crdt_name name));

/* ---- promote.c: changes that were not logged when the server stopped being the primary */

/* It is a replica now, `pending` will not be logged; it is the primary now. */
void promote_left(void);
void promote_begin(void);

/* Replies with an error and is true where a replica remembers what its primary does not. */
bool promote_refuses(struct redis_context *ctx);

/* A key of `dirty` was stamped anew; all were. */
void promote_stamped(struct crdt_name name);
void promote_end(void);

/* The log has told all that is to be remembered of a key. */
void promote_good(struct crdt_name name);
void promote_reset(void);

/* ---- cluster.c: one of several servers of a region */

void cluster_init(struct redis_context *ctx);
bool cluster_enabled(void);

/* Whether commands on keys run now; else _refuses replies so and is true. */
bool cluster_serves(struct redis_context *ctx);
bool cluster_refuses(struct redis_context *ctx);

/* CLUSTER SETSLOT is about to run. */
void cluster_changed(void);

/* A slot that goes to another server. */
struct leaving {
        unsigned slot;
        char host[48];
        unsigned port;
        bool told; /* the other server has our clock, and what was remembered at the begin */
};

/* Looks again where a SETSLOT was told lately; true where slots leave. Once a turn. */
bool cluster_look(struct redis_context *ctx);
unsigned cluster_leaves(void); /* how many, as of the last look */
struct leaving *cluster_leaving_at(unsigned index);
/* The one of that slot, or NULL; with a context it looks first. */
struct leaving *cluster_leaving(struct redis_context *ctx, unsigned slot);
bool cluster_importing(struct redis_context *ctx);

/* The slots that are here, or come: SHARDS_SLOTS bits. False: it cannot be told. Cost: CLUSTER
 * NODES. */
bool cluster_slots(struct redis_context *ctx, uint8_t *slots);

/* Whether a command on the key runs here now; false: errno is why. */
bool cluster_answers(struct redis_context *ctx, struct bytes key);

/* Whether the words of a MERGE after its deltas fit this server; else it has replied. */
bool cluster_merge_allowed(struct redis_context *ctx, struct redis_string **argv, int argc);

/* Parts a batch into what is for this server and what is for another one. */
void cluster_sift(struct redis_context *ctx, struct bytes deltas, struct buffer *here,
                  struct buffer *moved);

/* Whether all keys in a part of a state are for this server, and none is on its way. */
bool cluster_state_allowed(struct redis_context *ctx, struct bytes state);
int cluster_shard(struct redis_context *ctx, struct redis_string **argv, int argc);
int cluster_mark(struct redis_context *ctx, struct redis_string **argv, int argc);
int cluster_join(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- migrate.c: keys that move between the servers of a cluster */

void migrate_init(void);
int migrate_run(struct redis_context *ctx, struct redis_string **argv, int argc);

/* A key was told to have changed; a batch was merged: it may have died in a slot that leaves. */
void migrate_touched(struct crdt_name name);
void migrate_merged(struct bytes deltas);
void migrate_slot_leaves(const struct leaving *leaving);

/* A key was restored. True: it came from another server of this region, with its metadata. */
bool migrate_restored(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* At the end of a turn, before anybody is answered. */
void migrate_turn(struct redis_context *ctx);

/* Whether the store has it, in whichever slot. */
bool migrate_name_there(struct redis_context *ctx, struct crdt_name name);

/* ---- native.c: how a merge changes Redis */

/* Borrowed until the next call; writes nothing while plugin.quiet. */
const struct crdt_native *native_of(struct redis_context *ctx);
struct redis_context *native_context(void);

/* Puts what was gathered and closes what is open, as before any other kind of change. */
void native_close(void);

/* What was read last is not needed any more. */
void native_trim(void);

/* A merge, or what else was handed a native, is over: what was kept open is closed, and told. */
void native_end(void);

/* ---- notify.c: keyspace notifications of what a merge changes */

enum notify_event {
        NOTIFY_LPUSH,
        NOTIFY_RPUSH,
        NOTIFY_LINSERT,
        NOTIFY_LSET,
        NOTIFY_LPOP,
        NOTIFY_RPOP,
        NOTIFY_LREM,
};

/* As crdt_native.begin; and the end of the merge. */
void notify_begin(void *context, const struct crdt_delta *delta);
void notify_end(void);

/* Whether the server is told to send any. */
bool notify_wanted(void);

/* Sends one for a key of the database that native_context() has selected. */
void notify_send(int type, const char *event, struct redis_string *key);

/* The same once for this change, when it has ended. */
void notify_list(struct crdt_name name, enum notify_event event);
void notify_settle(void);

/* Which one the elements that come are told by. */
enum notify_event notify_pushed(void);

/* Whether a key that goes is to be told as expired. */
bool notify_expired(void);

/* ---- stream.c, stream_native.c */

/* What the server tells of a stream. */
struct stream_look {
        uint64_t length;
        uint64_t added;
        struct crdt_stream_id first;
        struct crdt_stream_id last;
        struct crdt_stream_id deleted; /* the largest that was deleted; 0-0: none */
};

/* False where the key is no stream: all is 0 then. */
bool stream_look(struct redis_context *ctx, struct redis_string *key, struct stream_look *ret);
bool stream_id_parse(struct bytes text, struct crdt_stream_id *ret);
struct redis_string *stream_id_string(struct crdt_stream_id id);
struct crdt_stream_id stream_id_previous(struct crdt_stream_id id);

/* stream_first.c. False: the stream, which must have no entries, is as it was. */
bool stream_begin_again(struct redis_string *key);

void stream_on_xadd(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void stream_on_xtrim(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void stream_on_xdel(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void stream_on_made(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* True for what groups do among themselves: no change of the stream. */
bool stream_event_local(const char *event);

/* Runs XADD with an id of this region's own and records it; NULL as redis.Call. */
struct redis_reply *stream_run_xadd(struct redis_context *ctx, struct redis_string **argv,
                                    int argc);

/* Takes out what was observed of the key and adds what the native stream holds. */
void stream_record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* The part of a merge. What is added is put when the native is closed, or used otherwise. */
void stream_native_add(void *context, struct crdt_name name, struct crdt_stream_id id,
                       struct bytes fields);
void stream_native_remove(void *context, struct crdt_name name, struct crdt_stream_id id);
bool stream_native_get(void *context, struct crdt_name name, struct crdt_stream_id id,
                       struct bytes *ret);
void stream_native_make(void *context, struct crdt_name name);
void stream_native_raise(void *context, struct crdt_name name, struct crdt_stream_id last);
void stream_native_close(void);

/* ---- list.c */

void list_on_lpush(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_rpush(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_lpop(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_rpop(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_linsert(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_lset(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_ltrim(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);
void list_on_lrem(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* Looks up what the LREM that runs next will take. */
void list_before_lrem(struct redis_context *ctx, struct redis_string **argv);

/* Deletes what was observed of the key and pushes what the native list holds. */
void list_record_all(struct redis_context *ctx, struct crdt_name name, struct redis_string *key);

/* The part of a merge. A list that is read stays open between the calls, until native_close. */
void list_native_insert(void *context, struct crdt_name name, uint64_t index, struct bytes value);
void list_native_remove(void *context, struct crdt_name name, uint64_t index, uint64_t count);
void list_native_set(void *context, struct crdt_name name, uint64_t index, struct bytes value);
bool list_native_get(void *context, struct crdt_name name, uint64_t index, struct bytes *ret);
void list_native_close(void);

/* ---- clock.c: lives of the stream, and the clock that is reserved for them */

/* A new life: after a load, and where this server is no replica any more. */
void clock_begin(void);

/* Before anything is given out: at the end of each turn. */
void clock_turn(void);

/* The same before a reply that holds stamps of ours: it may leave in the middle of a long turn. */
void clock_out(void);

/* ---- lost.c: keys that Redis Cluster itself has deleted */

/* A "del" comes: true where it is of a key in a slot that is another server's; it is forgotten. */
bool lost_key(struct redis_context *ctx, struct crdt_name name);
void lost_turn(struct redis_context *ctx);

/* ---- reply.c: words and answers of meridiand's commands */

/* False: no number, or larger than `max`. */
bool argument_u64(const struct redis_string *string, uint64_t max, uint64_t *ret);

int reply_err(struct redis_context *ctx, enum err err);
int reply_bad(struct redis_context *ctx); /* an argument is no number in its range */
int reply_gap(struct redis_context *ctx, uint64_t position);
void reply_u64(struct redis_context *ctx, uint64_t value);      /* up to INT64_MAX */
void reply_text_u64(struct redis_context *ctx, uint64_t value); /* any, as digits */
void reply_vector(struct redis_context *ctx, const struct vector *vector);
void reply_holes(struct redis_context *ctx);

/* ---- tail.c, merge.c, daemon.c: the commands of meridiand */

int tail_command(struct redis_context *ctx, struct redis_string **argv, int argc);
/* Answers those who wait for what is there now. */
void tail_wake(struct redis_context *ctx);

int merge_command(struct redis_context *ctx, struct redis_string **argv, int argc);
int merge_state_command(struct redis_context *ctx, struct redis_string **argv, int argc);

int daemon_positions(struct redis_context *ctx, struct redis_string **argv, int argc);
int daemon_scan(struct redis_context *ctx, struct redis_string **argv, int argc);
int daemon_acked(struct redis_context *ctx, struct redis_string **argv, int argc);
int daemon_members(struct redis_context *ctx, struct redis_string **argv, int argc);
int daemon_close(struct redis_context *ctx, struct redis_string **argv, int argc);
int daemon_digest(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- bus.c: messages that reach other regions */

/* How the PUBLISH or SPUBLISH that comes is wrapped; NONE: it is left alone. */
enum wrap bus_wrap(const struct rule *rule, struct bytes channel);

/* It has run: its message goes out. */
void bus_send(const struct rule *rule, struct redis_string **argv);

/* As crdt_native.event; and the end of the merge, where what was heard is published unless the
 * merge came from the log. */
void bus_hear(void *context, const struct crdt_delta *event);
void bus_publish(struct redis_context *ctx, bool logged);
void bus_info(struct redis_info *info);

/* ---- block.c: clients that wait */

struct block;
typedef int (*block_answer)(struct redis_context *ctx, struct block *block);

/* The begin of what a waiting client is remembered by. */
struct block {
        struct redis_blocked *blocked;
        struct block *next;
        block_answer answer; /* when the wait is over; also says which kind it is */
};

/* False in a transaction, a script and the like: the answer must come at once. */
bool block_allowed(struct redis_context *ctx);

/* Takes `block`, one piece of plugin.heap. timeout_ms 0: no end. */
int block_client(struct redis_context *ctx, struct block *block, uint64_t timeout_ms);

/* Ends the wait of those of one kind that are `done`, oldest first. */
void block_each(block_answer answer, bool (*done)(struct block *block));

/* ---- writers.c: up to where each client has written */

/* In the filter, where plugin.writers is set: whose command comes, and how it begins. */
void writers_saw(struct redis_filter_context *ctx, struct bytes name);
/* At the end of the turn. */
void writers_turn(void);
void writers_reset(void);
/* In a command: everything that its client has written lies at this position of our stream or
 * before it; in a script, and where the server does not tell, everything that anybody has. */
uint64_t writers_position(struct redis_context *ctx);

/* ---- wait.c: until other regions have it */

/* What a region has told; what it was before may have been more. */
void wait_acked(region_id region, uint64_t position);
void wait_members(const region_id *regions, size_t count);
void wait_reset(void);
int wait_regions(struct redis_context *ctx, struct redis_string **argv, int argc);
int wait_written(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- digests.c: digests that mean the same in every region, in slices */

int digests_command(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- feed.c: what changed, for any client */

/* status.c: a batch of another region has come; once in a while; how replication goes. */
void status_batch(region_id origin, uint64_t last, enum err err);
void status_tick(uint64_t now_ms);
void status_info(struct redis_info *info);
int status_command(struct redis_context *ctx, struct redis_string **argv, int argc);

/* A change of this region; those of a batch that was merged, beyond `before`, up to `position`. */
void feed_tell(region_id origin, struct bytes delta);
static inline void feed_add(region_id origin, struct bytes delta)
{
        if (plugin.feeding)
                feed_tell(origin, delta);
}
void feed_merged(region_id origin, uint64_t before, uint64_t position, struct bytes deltas);

/* Something changed that cannot be told; everything is another one. */
void feed_break(void);
void feed_reset(void);

/* Once a turn, when all that changed is logged. */
void feed_wake(void);
int feed_command(struct redis_context *ctx, struct redis_string **argv, int argc);

/* ---- persist.c, info.c */

/* A name for this life of the memory. */
void persist_incarnation(void);

/* A new, empty keyspace in place of the present one. */
void persist_reset(void);
bool persist_create_type(struct redis_context *ctx);
void persist_loading(struct redis_context *ctx, struct redis_event event, uint64_t sub, void *data);
void info_write(struct redis_info *info, int crash);

#endif
