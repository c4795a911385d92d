/* crdt.h - the converging types: what is remembered about a key, how a delta changes it, how two
 * states of it merge. Values stay outside, behind `struct crdt_native`; only what decides who wins
 * is kept here. keyspace/ owns the keys and calls this room.
 *
 * State of a key, a lattice: every part only grows, so any order, repetition
 * or delay gives the same.
 *
 *   last[type]   largest stamp of a write of that type. The type with the largest `last` is the
 *                visible one; content of a type dies at the largest `last` of the other types.
 *   killed       largest kill stamp: DEL kills at its own stamp, an expiry at the stamp of the
 *                write that it observed. String base, hash fields and opaque values with a
 *                stamp <= killed are dead.
 *   base         stamp of the last SET of a string; its value is outside.
 *   counts       for each origin: running totals (integer and float part) at a clock, and the
 *                `cut`, the totals that a later SET, DEL or expiry had observed. The value of a
 *                string is base + sum over origins of (total - cut), where it was written after
 *                the cut.
 *   fields       for each field of a hash: stamp of its last write, or of its HDEL; and totals and
 *                cuts of its increments, as the string has them: see fields.c.
 *   members      for each member of a set: a dot (stamp of its SADD) per origin, the newest one;
 *                a dot that was removed before it came is remembered until the version vector
 *                covers it.
 *   list         the elements of a list in order, each with a name (the stamp of its insertion and
 *                an index) and a place that never change: see crdt/list.h; a name that was removed
 *                before it came is remembered until the version vector covers it.
 *   hll          that there is a HyperLogLog, of the generation last[HLL]: see hll.c.
 *   stream       entries by id, each with the stamp of its XADD: see crdt/stream.h.
 *   zset         the members of a sorted set, with dots as a set's, scores, and increments: see
 *                crdt/zset.h.
 *   bounds       dots up to which a DEL had observed, by origin, until the vector covers them.
 *   siblings     concurrent writes of a string that are all kept, and for each origin the clock up
 *                to which its writes were seen by one of them or are there.
 *   ttl          absolute expiry time and its stamp; at the same stamp "none" wins, so that
 *                nothing inherits the time of what has expired.
 *
 * Guarantees: a write that no delete, SET or expiry had observed survives it (add wins; concurrent
 * increments survive); hashes and string bases are last write wins by stamp; two types at once: the
 * later stamp decides, everywhere alike. Merging never looks at a clock. */
#ifndef MERIDIAN_CRDT_CRDT_H
#define MERIDIAN_CRDT_CRDT_H

#include "clock/clock.h"
#include "crdt/table.h"

/* The kinds of content a key may have. */
enum crdt_type {
        CRDT_STRING, /* register and counter */
        CRDT_HASH,
        CRDT_SET,
        CRDT_OPAQUE,   /* any other type, as one serialized value: the last write wins as a whole */
        CRDT_SIBLINGS, /* a string of which every concurrent write is kept */
        CRDT_LIST,     /* elements that are added and removed by name */
        CRDT_HLL,      /* a HyperLogLog; natively a string */
        CRDT_STREAM,   /* entries by id */
        CRDT_ZSET,     /* members with scores */
        CRDT_TYPE_COUNT,
        CRDT_NONE = CRDT_TYPE_COUNT, /* the key does not exist */
};

/* Which key: its database and its name. */
struct crdt_name {
        uint32_t db; /* <= CRDT_DB_MAX */
        struct bytes key;
};

enum {
        CRDT_DB_MAX = 0xffff,
};

/* The name of an entry of a stream; 0-0 is none. */
struct crdt_stream_id {
        uint64_t ms;
        uint64_t seq;
};

/* The store of values, as a merge sees it: Redis by its module interface, or a model. A merge calls
 * only what changes something visible. Slices are borrowed for the call; slices that are returned
 * stay good until the next call through the same native. No call may come back into the keyspace.
 *
 * `context` is the caller's own. Times are Unix milliseconds, 0 is "no expiry". A time in the past
 * is possible and must be stored as it is: only the native's own expiry may strike it, which then
 * comes back as keyspace_local_expired. */
struct crdt_sibling;
struct crdt_delta;

struct crdt_native {
        void *context;

        /* Whose calls follow, up to the next one; NULL: nobody asks. What a state brings comes
         * without. */
        void (*begin)(void *context, const struct crdt_delta *delta);

        /* What to show for several siblings, oldest first: a function of them alone. False, or
         * NULL: the newest one. */
        bool (*siblings_show)(void *context, struct crdt_name name,
                              const struct crdt_sibling *siblings, size_t count,
                              struct bytes *ret_value);

        /* The text of a string, which the keyspace believes to exist; false where it does not. */
        bool (*string_get)(void *context, struct crdt_name name, struct bytes *ret_value);

        /* Makes the key a string with this value and this expiry, whatever it was before. */
        void (*string_set)(void *context, struct crdt_name name, struct bytes value,
                           uint64_t expire_at_ms);

        /* The whole key goes, whatever its type; it may be absent already. */
        void (*key_delete)(void *context, struct crdt_name name);

        /* Sets or (0) takes away the expiry of a key that exists. */
        void (*expire_set)(void *context, struct crdt_name name, uint64_t expire_at_ms);

        /* Sets one field. The key is absent (then it is made, without expiry) or a hash. */
        void (*hash_set)(void *context, struct crdt_name name, struct bytes field,
                         struct bytes value);

        /* Removes one field; the key goes with its last one. */
        void (*hash_delete)(void *context, struct crdt_name name, struct bytes field);

        /* The value of a field that the keyspace believes to exist; false where it does not. */
        bool (*hash_get)(void *context, struct crdt_name name, struct bytes field,
                         struct bytes *ret_value);

        /* Adds one member. The key is absent (then it is made, without expiry) or a set. */
        void (*set_add)(void *context, struct crdt_name name, struct bytes member);

        /* Removes one member; the key goes with its last one. */
        void (*set_remove)(void *context, struct crdt_name name, struct bytes member);

        /* Puts one element before the `index`-th, or at the end. The key is absent (then it is
         * made, without expiry) or a list. */
        void (*list_insert)(void *context, struct crdt_name name, uint64_t index,
                            struct bytes value);

        /* Removes `count` elements from the `index`-th on; the key goes with its last one. */
        void (*list_remove)(void *context, struct crdt_name name, uint64_t index, uint64_t count);

        void (*list_set)(void *context, struct crdt_name name, uint64_t index, struct bytes value);

        /* The value of an element that the keyspace believes to exist; false where it does not. */
        bool (*list_get)(void *context, struct crdt_name name, uint64_t index,
                         struct bytes *ret_value);

        /* A HyperLogLog: adds an element; takes the larger of each register, where len 0 is one of
         * nothing (the key is absent, then it is made without expiry, or one); all registers, as
         * hll_merge takes them. */
        void (*hll_add)(void *context, struct crdt_name name, struct bytes element);
        void (*hll_merge)(void *context, struct crdt_name name, struct bytes registers);
        bool (*hll_get)(void *context, struct crdt_name name, struct bytes *ret_registers);
        /* Puts an entry where its id belongs; `fields`: varint strings (even, > 0), then slices.
         * The key is absent (then it is made, without expiry) or a stream without that id. */
        void (*stream_add)(void *context, struct crdt_name name, struct crdt_stream_id id,
                           struct bytes fields);

        /* Removes an entry; the stream stays, also without any. */
        void (*stream_remove)(void *context, struct crdt_name name, struct crdt_stream_id id);

        /* The fields of an entry that the keyspace believes to exist; false where it does not. */
        bool (*stream_get)(void *context, struct crdt_name name, struct crdt_stream_id id,
                           struct bytes *ret_fields);

        /* Makes a stream without entries, where the key is absent. */
        void (*stream_make)(void *context, struct crdt_name name);

        /* No entry will be given a smaller id than this by the store itself. */
        void (*stream_raise)(void *context, struct crdt_name name, struct crdt_stream_id last);

        /* Adds a member, or gives one another score, which may be infinite but is a number. The key
         * is absent (then it is made, without expiry) or a sorted set. */
        void (*zset_add)(void *context, struct crdt_name name, struct bytes member, double score);

        /* Removes one member; the key goes with its last one. */
        void (*zset_remove)(void *context, struct crdt_name name, struct bytes member);

        /* A serialized value of another type, for state transfer; false where it does not exist. */
        bool (*opaque_get)(void *context, struct crdt_name name, struct bytes *ret_value);

        /* Makes the key what the serialized value says, with this expiry. */
        void (*opaque_set)(void *context, struct crdt_name name, struct bytes value,
                           uint64_t expire_at_ms);

        /* An event of another region, in its place between the changes of its stream; NULL where
         * nobody wants any. `event` is an EVENT. */
        void (*event)(void *context, const struct crdt_delta *event);
};

/* ---- deltas ----------------------------------------------------------------------------------
 *
 * offset  what
 *      0  u64     clock of the change; the origin is known by the stream
 *      8  u8      operation, low 4 bits; flags, high 4 bits
 *         [u8     the operation, where those bits say MORE]
 *      9  varint  database
 *         slice   key
 *         ...     by operation:
 *
 * SET      [EXPIRY: varint time] [CUTS: cuts] the rest is the value
 * OPAQUE   [EXPIRY: varint time] the rest is the value
 * DEL      [CUTS: cuts] [BOUNDS: dots] [SCORES: slice of elements] [ELEMENTS: elements]
 * EXPIRED  stamp killed, stamp ttl, then as DEL
 * EXPIRE   varint time, 0: persist
 * COUNT    totals [CUTS: u64 clock, totals of the own cut] [LIFE: u8 1 .. CRDT_LIVES_MAX]
 * HSET     varint count > 0, (slice field, slice value) each, [ELEMENTS: elements]
 * HDEL     varint count > 0, slice field each, [ELEMENTS: elements]
 * HCOUNT   slice field, as COUNT [BASE: the rest is what the writer added to: for its own log,
 *          which its store is ahead of]
 * SADD     varint count > 0, slice member each
 * SREM     varint count > 0, (slice member, dots) each
 * SIBLING  [EXPIRY: varint time] dots seen, the rest is the value; REMOVED: dots seen, stamp ttl
 * LIST_INSERT  u8 where: 0 the tail, 1 the head, 2 (signed varint position, slice prefix) between
 *          neighbours, 3 (u8 kind and origin, u64 clock, varint index, varint 1) a new value of
 *          that element; varint count > 0, slice value each, in list order
 * LIST_REMOVE  varint count > 0, (u8 kind << 6 | origin - 1, u64 clock, varint first, varint count)
 *          each: elements of one insertion
 * HLL      u64 stable clock of the writer, stamp generation, then REGISTERS: the rest is the
 *          registers; else varint count, slice element each
 * FLUSH    the key is empty; holes: varint count, (u8 origin, u64 low, u64 high)
 *          each; version vector
 * STREAM_ADD  id last, varint count, (id, varint strings (even, > 0), slice each) each; no id
 *          is 0-0; id: varint milliseconds, varint sequence
 * ZADD     varint count > 0, (slice member, u64 bits of the score) each, [ELEMENTS: members seen]
 * ZREM     varint count > 0, then so many members seen
 * ZCOUNT   slice member, as COUNT
 * STREAM_REMOVE  varint count > 0, (id low, id high, version vector) each
 * EVENT    the rest is a message for the channel that `key` names; no key of the store is meant
 * SEEN     version vector, [GONE: u64 a bit for each member, then a vector of marks of the origins
 *          that are none, as keyspace/removed.c makes them]; key and database are empty
 * LIFE     u8 enum crdt_life, u64 low, u64 high; key and database are empty
 *
 * elements: (slice field or member, cuts) each, to the end. members seen: (slice member, dots,
 * cuts) each.
 * cuts: varint count, then (part rising, u64 clock, totals) each. part: u8 origin, or u8 origin |
 * 0x80 and u8 life. dots: varint count, then
 * (u8 origin rising, u64 clock) each. totals: u8 1 where a float part follows, signed varint of the
 * integer part, [u64 bits of the float part]. stamp: u64 clock, u8 origin. Every clock inside is <=
 * the clock of the delta. */

enum crdt_op {
        CRDT_OP_SET = 1,
        CRDT_OP_DEL,
        CRDT_OP_EXPIRED,
        CRDT_OP_EXPIRE,
        CRDT_OP_COUNT,
        CRDT_OP_HSET,
        CRDT_OP_HDEL,
        CRDT_OP_SADD,
        CRDT_OP_SREM,
        CRDT_OP_OPAQUE,
        CRDT_OP_SEEN,
        CRDT_OP_LIST_INSERT,
        CRDT_OP_LIST_REMOVE,
        CRDT_OP_MORE = 14, /* on the wire: the number, 16 or more, is in the next byte */
        CRDT_OP_SIBLING = 15,
        CRDT_OP_FLUSH,
        CRDT_OP_LIFE,
        CRDT_OP_HLL,
        CRDT_OP_STREAM_ADD,
        CRDT_OP_STREAM_REMOVE,
        CRDT_OP_EVENT,
        CRDT_OP_HCOUNT,
        CRDT_OP_ZADD,
        CRDT_OP_ZREM,
        CRDT_OP_ZCOUNT,
        CRDT_OP_END,
};

/* What an origin says of its own stream. */
enum crdt_life {
        CRDT_LIFE_BEGIN = 1, /* a life begins here: what it had in (low, here) may be lost to it;
                              * high != 0: one of several servers of that origin */
        CRDT_LIFE_CLOSED,    /* nothing of ours is in (low, high), wherever one looks */
        CRDT_LIFE_RESERVED,  /* in logs only: no stamp until the next of these is beyond `high` */
        CRDT_LIFE_END,
};

enum crdt_flag {
        CRDT_FLAG_EXPIRY = 0x10, /* SET, OPAQUE: there is an expiry time */
        CRDT_FLAG_BOUNDS = 0x10, /* DEL, EXPIRED: observed dots follow */
        CRDT_FLAG_CUTS = 0x20,   /* observed totals follow */
        CRDT_FLAG_REGISTERS = 0x20,
        CRDT_FLAG_SHARD = 0x20,    /* EVENT: to the subscribers of one shard */
        CRDT_FLAG_GONE = 0x10,     /* SEEN: members, and what is had of regions that are none */
        CRDT_FLAG_CREATED = 0x40,  /* the key was absent: an older expiry does not count any more */
        CRDT_FLAG_REMOVED = 0x40,  /* SIBLING: a delete or expiry of what was seen */
        CRDT_FLAG_BASE = 0x10,     /* HCOUNT: what was added to follows */
        CRDT_FLAG_SCORES = 0x40,   /* DEL, EXPIRED: observed totals of members of a sorted set */
        CRDT_FLAG_KNOWN = 0x80,    /* what other types lose by it was known to the writer */
        CRDT_FLAG_LIFE = 0x80,     /* COUNT, HCOUNT, ZCOUNT: of a life's own part */
        CRDT_FLAG_ELEMENTS = 0x80, /* HSET, HDEL, DEL, EXPIRED: observed totals of fields follow;
                                    * ZADD: what was seen of the members */
};

/* Running totals of one origin's increments. The integer part wraps; only differences count. */
struct crdt_totals {
        uint64_t whole;
        double part;
};

/* A delta, decoded and validated. Slices are borrowed from the input. */
struct crdt_delta {
        struct stamp stamp;
        enum crdt_op op;
        uint8_t flags;
        struct crdt_name name;
        uint64_t expire_at_ms;
        struct bytes value;       /* SET, OPAQUE, SIBLING, EVENT; HCOUNT: what it was added to */
        struct bytes field;       /* HCOUNT, ZCOUNT */
        struct stamp killed;      /* EXPIRED; HLL: the generation */
        uint64_t stable;          /* HLL */
        struct stamp ttl;         /* EXPIRED, SIBLING */
        struct crdt_totals total; /* COUNT, HCOUNT, ZCOUNT */
        uint8_t part;             /* the same: the life of crdt_count */
        struct crdt_totals cut;
        uint64_t cut_hlc;
        struct bytes cuts;     /* encoded, with their count */
        struct bytes bounds;   /* encoded, with their count */
        struct bytes elements; /* encoded, to the end */
        struct bytes scores;   /* encoded */
        struct bytes list;     /* encoded items, without their count */
        uint64_t list_count;
        struct bytes holes;  /* FLUSH: encoded, with their count */
        struct vector seen;  /* SEEN, FLUSH */
        struct bytes gone;   /* SEEN: encoded, see crdt_gone_read; len 0: it is not told */
        enum crdt_life life; /* LIFE */
        uint64_t low;
        uint64_t high;
};

enum {
        CRDT_NAME_LEN_MAX = 1 << 29, /* of keys, fields, members, values: the limit of Redis */
};

/* Decodes and validates one delta of `origin`, down to the last element: applying it cannot fail on
 * its content. ERR_TRUNCATED, ERR_MALFORMED. */
MUST_USE enum err crdt_delta_decode(struct bytes data, region_id origin, struct crdt_delta *ret);

/* What a delta does and to which key, by its begin alone: what is behind may be malformed. The name
 * borrows. ERR_TRUNCATED, ERR_MALFORMED. */
MUST_USE enum err crdt_delta_peek(struct bytes data, enum crdt_op *ret_op,
                                  struct crdt_name *ret_name);

/* What a delta takes away, without what it brings, as a delta that borrows the same; false where
 * that is nothing, or all that it takes is remembered by stamps until everybody has seen it. */
bool crdt_delta_takes(const struct crdt_delta *delta, struct crdt_delta *ret);

/* The operation of a delta, behind its clock; the flags too, unless NULL. */
enum crdt_op crdt_op_read(struct cursor *cursor, uint8_t *ret_flags);

/* The common begin of every delta. */
void crdt_delta_head(struct buffer *buffer, uint64_t hlc, enum crdt_op op, uint8_t flags,
                     struct crdt_name name);
void crdt_totals_encode(struct buffer *buffer, struct crdt_totals totals);

/* ---- the state of one key -------------------------------------------------------------------- */

enum {
        CRDT_LIVES_MAX = 7,
};

/* One origin's part of a counter; and one more for each of its lives that added to it while the end
 * of an older life was not known to be here: no total of one of them takes the place of another's
 * that is still to come back. The numbers of lives go round from 1 to CRDT_LIVES_MAX. */
struct crdt_count {
        uint64_t hlc; /* of the last increment, 0: none known */
        struct crdt_totals total;
        uint64_t cut_hlc; /* up to here a SET, DEL or expiry took it away */
        struct crdt_totals cut;
        region_id origin;
        uint8_t life; /* 0: the part that it has for good */
};

/* What a COUNT has behind the names, and the flags that tell of it. */
void crdt_count_encode(struct buffer *buffer, const struct crdt_count *count);
uint8_t crdt_count_flags(const struct crdt_count *count);

struct crdt_dot {
        uint64_t hlc;
        region_id origin;
        bool removed;
        uint8_t count; /* of an item's first: how many there are */
        uint8_t mark;  /* of an item's first: the round of the merge that named it last */
};

/* What is known about the value of the last SET. */
enum crdt_base {
        CRDT_BASE_NATIVE, /* nothing: the native value is its text, or it is dead */
        CRDT_BASE_INT,    /* `base_int`; the native value may show a sum */
        CRDT_BASE_FLOAT,  /* `base_text`; the native value may show a sum */
        CRDT_BASE_TEXT,   /* no number: the native value shows it, whatever the increments */
        CRDT_BASE_LOST,   /* evicted here */
};

/* What is added up to one number: a string, or a field of a hash. */
struct crdt_counter {
        struct crdt_count *counts; /* by rising origin, and life */
        struct bytes base_text;
        int64_t base_int;
        uint8_t base_kind; /* enum crdt_base */
        uint8_t count_count;
};

/* Fields of a hash or members of a set. */
struct crdt_items {
        struct table table;
        size_t live;    /* visible ones */
        size_t tallies; /* fields with increments that are remembered */
};

/* One of the concurrent writes. */
struct crdt_sibling {
        struct stamp stamp;
        struct bytes value; /* of one alone: empty, the native has it */
};

/* A string whose concurrent writes are all kept. */
struct crdt_siblings {
        struct vector seen;        /* writes up to here are in `list`, or dead */
        struct crdt_sibling *list; /* by rising stamp, one for each origin at most */
        uint8_t count;
        bool held; /* the values are here */
};

struct crdt_hll {
        struct stamp added; /* the newest add */
};

/* Everything remembered about one key. Zeroed is a key of which nothing is known. */
struct crdt {
        struct stamp last[CRDT_TYPE_COUNT];
        struct stamp killed;
        struct stamp base;
        struct stamp ttl;
        struct stamp born; /* of a stream: the last write or removal, which leaves it in being */
        uint64_t expire_at_ms;
        uint64_t touched; /* no earlier than any change of this key was made, whatever stamp it
                           * carries: an expiry kills at the stamp of what it observed */
        struct crdt_items *fields;
        struct crdt_items *members;
        struct crdt_siblings *siblings;
        struct crdt_hll *hll;
        struct crdt_list *list;
        struct crdt_stream *stream;
        struct crdt_zset *zset;
        struct crdt_counter counter; /* the string's */
        struct crdt_dot *bounds;     /* by rising origin; removed: before all of that had come */
        uint8_t bound_count;
        bool evicted;     /* the content here is not whole */
        bool partial;     /* nor is it, as it came in a state of one where it was not: it shows, but
                           * states do not tell it */
        bool opaque_lost; /* evicted here */
        uint8_t round;    /* of the merge that marks what it names; 0: there was none */
        bool open;        /* slices of a state are still to come: it is not packed */
};

/* Clocks of `origin` in (low, high) may have been lost by a crash: the vector does not cover them.
 */
struct crdt_hole {
        uint64_t low;
        uint64_t high;
        region_id origin;
};

enum {
        CRDT_HOLES_MAX = 72, /* more than there are regions */
};

/* What a replica has seen: its positions, but for the holes below them. */
struct crdt_seen {
        struct vector vector;
        struct crdt_hole holes[CRDT_HOLES_MAX];
        uint8_t hole_count;
        region_id self;
};

bool crdt_seen_covers(const struct crdt_seen *seen, struct stamp stamp);

/* The same for all earlier stamps of its origin, too: nothing of them can come any more. What is
 * removed up to a clock is to be remembered until then: a hole below it may still be filled. */
bool crdt_seen_through(const struct crdt_seen *seen, struct stamp stamp);

/* Holes, then the vector. A failed read leaves *ret alone. */
void crdt_seen_encode(const struct crdt_seen *seen, struct buffer *buffer);
void crdt_seen_decode(struct cursor *cursor, region_id self, struct crdt_seen *ret);

/* Who writes, as a store was told, and what it has of those who do no more. */
struct crdt_gone {
        uint64_t members;    /* a bit for each region; 0: not told */
        struct vector marks; /* equal marks of an origin: equal parts of its stream; 0: nothing */
};

void crdt_gone_write(const struct crdt_gone *gone, struct buffer *buffer);
/* `gone` was checked when its delta was decoded. */
void crdt_gone_read(struct bytes gone, struct crdt_gone *ret);

/* Why of two writes, neither of which had seen the other, one is lost or hidden. */
enum crdt_conflict_kind {
        CRDT_CONFLICT_NONE,
        CRDT_CONFLICT_VALUE,    /* two values: the later stamp won */
        CRDT_CONFLICT_FIELD,    /* the same of a field of a hash, or a member's score */
        CRDT_CONFLICT_TYPE,     /* a write of another type won */
        CRDT_CONFLICT_DELETE,   /* a later delete won */
        CRDT_CONFLICT_COUNT,    /* increments to a base that another SET has replaced: they stay */
        CRDT_CONFLICT_SIBLINGS, /* all are kept */
        CRDT_CONFLICT_KINDS,
};

/* A write of another region met a later one of this region that had not seen it, nor been seen: it
 * is certain, because this region's clock would else be behind, and it is found in one region only,
 * that of the winner. */
struct crdt_conflict {
        enum crdt_conflict_kind kind; /* NONE: there is none */
        struct crdt_name name;
        struct stamp lost;
        struct stamp won;
        enum crdt_type lost_type;
        enum crdt_type won_type;
        struct bytes field;
        struct bytes value;   /* what was lost, where it is one value; borrowed from the delta */
        uint64_t lost_amount; /* COUNT: the running total, as a signed number */
        uint64_t count;       /* fields that have lost; else 1 */
};

/* The largest `last`, whose it is, and the largest of the others. */
struct crdt_rivals {
        struct stamp first;
        struct stamp second;
        enum crdt_type of;
};

/* What a change needs to know, and what it tells. One per key and change. */
struct crdt_env {
        struct table_env table;
        const struct crdt_native *native; /* NULL: change nothing outside */
        struct crdt_name name;
        const struct crdt_seen *seen; /* by this replica; NULL: nothing (loading) */

        /* What is beyond this of another origin may come again, by origin: it counts as not seen.
         * NULL: nothing may. */
        const struct vector *level;

        /* Removals that came before what they remove are remembered until every member has that,
         * as far as is known: up to here, by origin. NULL: until this replica has it. */
        const struct vector *settled;
        struct bytes
                text_before; /* the string before a local increment; ptr NULL: ask the native */
        uint64_t stable;     /* no removal up to here can come any more; for HyperLogLogs */
        uint64_t conflicts;  /* counted up */
        struct crdt_conflict *conflict; /* filled in by crdt_apply; NULL: nobody asks */
        enum err err;                   /* ERR_NONE or ERR_NOMEM, sticky */

        enum crdt_type was; /* from here on: this room's own, for the time of one call */
        uint64_t expiry_was;
        struct crdt_rivals rivals_was;
        struct stamp killed_was;
        bool string_dirty;
        bool string_new;
        bool fields_cut;
        bool scores_cut;
        bool bounds_rose;
        bool siblings_dirty;
        bool fresh;
        bool written;
        bool quiet; /* the native key has gone as a whole */
};

void crdt_fini(const struct table_env *env, struct crdt *crdt);

/* The type that is visible, CRDT_NONE where nothing is. */
enum crdt_type crdt_type(const struct crdt *crdt);

/* The expiry that counts for what is visible, 0 for none. */
uint64_t crdt_expire_at(const struct crdt *crdt);

/* The largest stamp of a write of any type. */
struct stamp crdt_stamp(const struct crdt *crdt);

/* Applies a delta of any operation but SEEN, FLUSH, LIFE and EVENT. */
void crdt_apply(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta);

/* The database was emptied by one who had `seen` that much: see flush.c. The second: nothing is
 * visible, or what is can be told by stamps alone whether it goes. */
void crdt_flush(struct crdt_env *env, struct crdt *crdt, const struct crdt_seen *seen);
bool crdt_flush_judges(const struct crdt *crdt);

/* Forgets the content without a word to others (eviction). */
void crdt_evict(const struct table_env *env, struct crdt *crdt);

/* Up to here content of that type is dead: see `killed` and `last` above. Members of sets and
 * increments do not die by `killed`. */
struct stamp crdt_floor(const struct crdt *crdt, enum crdt_type type);

/* The observed parts that SET, DEL and EXPIRED carry. The `has` calls tell whether to. */
bool crdt_has_cuts(const struct crdt *crdt);
void crdt_cuts_encode(const struct crdt *crdt, struct buffer *buffer);
bool crdt_has_bounds(const struct crdt *crdt);
void crdt_bounds_encode(const struct crdt *crdt, struct buffer *buffer);
void crdt_dots_encode(const struct table_env *env, struct crdt *crdt, struct bytes member,
                      struct buffer *buffer);

/* The same of the increments of a hash's fields: of one, where it has any, and of all. */
bool crdt_has_elements(const struct crdt *crdt);
void crdt_element_encode(const struct table_env *env, const struct crdt *crdt, struct bytes field,
                         struct buffer *buffer);
void crdt_elements_encode(const struct crdt *crdt, struct buffer *buffer);

/* The part of an origin (and a life) in a field, NULL where there is none, and whether it counts;
 * whether an increment has to be told the present text; the text where there are increments, else
 * false. */
const struct crdt_count *crdt_field_count(const struct table_env *env, const struct crdt *crdt,
                                          struct bytes field, region_id origin, uint8_t life,
                                          bool *ret_counts);
bool crdt_field_open(const struct table_env *env, const struct crdt *crdt, struct bytes field);
bool crdt_field_text(const struct table_env *env, const struct crdt *crdt, struct bytes field,
                     struct buffer *buffer);

/* What a SIBLING says that it has seen. */
void crdt_siblings_cuts(const struct crdt *crdt, struct buffer *buffer);

/* Shows the native again what several siblings come to: the function may be another one now. */
void crdt_siblings_show(struct crdt_env *env, struct crdt *crdt);

/* Lists: how many elements are visible, and what a change of [index, index + count) names. The
 * element, or all of them, must be there. A place between the neighbours of an insertion before
 * the element `index` > 0: false where that is too deep, then nothing is written. */
uint64_t crdt_list_length(const struct crdt *crdt);
uint64_t crdt_list_runs(const struct crdt *crdt, uint64_t index, uint64_t count);
void crdt_list_runs_encode(const struct crdt *crdt, uint64_t index, uint64_t count,
                           struct buffer *buffer);
bool crdt_list_place_encode(const struct table_env *env, const struct crdt *crdt, uint64_t index,
                            struct buffer *buffer);

/* Sorted sets: how many members show, and which, with their scores. A score as a delta has it: a
 * number or infinite, else the cursor fails. */
uint64_t crdt_zset_length(const struct crdt *crdt);
void crdt_zset_each(const struct crdt *crdt,
                    void (*each)(void *context, struct bytes member, double score), void *context);
void crdt_score_encode(struct buffer *buffer, double score);
double crdt_score_read(struct cursor *cursor);

/* The member of the next element of a ZREM. */
struct bytes crdt_score_seen_read(struct cursor *cursor);

/* What a ZADD or ZREM of that member has seen: whether there is any but the dot of `origin`; a
 * member seen, without the dot of `except` (0: with all). And the increments of all members. */
bool crdt_score_observed(const struct table_env *env, const struct crdt *crdt, struct bytes member,
                         region_id origin);
void crdt_score_observed_encode(const struct table_env *env, const struct crdt *crdt,
                                struct bytes name, region_id except, struct buffer *buffer);
bool crdt_has_scores(const struct crdt *crdt);
void crdt_scores_encode(const struct crdt *crdt, struct buffer *buffer);

/* The next part of the origin of `stamp`, in that life, in a member, after which it shows the
 * score `after`, as the store does that has added `amount`; false where no part does (infinities,
 * far exponents): the outcome is to be told as a ZADD then. */
bool crdt_score_next(const struct table_env *env, const struct crdt *crdt, struct bytes member,
                     struct stamp stamp, uint8_t life, double amount, double after,
                     struct crdt_count *ret);

/* Streams: how many entries show, the largest id that was ever known, whether there is one of
 * [low, high]; and what a removal of them names (where there is one). */
uint64_t crdt_stream_length(const struct crdt *crdt);
struct crdt_stream_id crdt_stream_last(const struct crdt *crdt);
bool crdt_stream_has(const struct crdt *crdt, struct crdt_stream_id low,
                     struct crdt_stream_id high);
void crdt_stream_removal_encode(const struct crdt *crdt, struct crdt_stream_id low,
                                struct crdt_stream_id high, struct buffer *buffer);
void crdt_stream_id_encode(struct buffer *buffer, struct crdt_stream_id id);

/* Where an insertion stands, as LIST_INSERT has it. */
enum crdt_list_where {
        CRDT_LIST_TAIL,
        CRDT_LIST_HEAD,
        CRDT_LIST_BETWEEN,
        CRDT_LIST_AT,
};

enum {
        CRDT_LIST_COUNT_MAX = (1 << 28) - 1, /* elements of one insertion */
};

/* The largest stamp of the visible content that `killed` can kill (EXPIRED): {0, 0} for sets and
 * lists. */
struct stamp crdt_observed(const struct crdt *crdt);

/* The generation that an add here has. The stamp at which an expiry kills that is
 * noticed `now`. */
struct stamp crdt_hll_generation(const struct crdt *crdt);
struct stamp crdt_hll_expiry(const struct crdt *crdt, struct stamp now);

/* This origin's part of the counter, of that life, NULL where there is none. */
const struct crdt_count *crdt_count_of(const struct crdt *crdt, region_id origin, uint8_t life);
bool crdt_counted(const struct crdt *crdt, const struct crdt_count *count);

/* The text of a visible string that the increments make; false where it is the native value itself
 * (or nothing). `buffer` is emptied first. */
bool crdt_text(const struct crdt *crdt, struct buffer *buffer);

/* True where an increment has to be told the present text: there is a base whose value
 * is not remembered here. */
bool crdt_base_open(const struct crdt *crdt);

/* A finite decimal number, as a float base or amount may be. */
bool crdt_number(struct bytes text, double *ret);

/* What an increment of `before` adds: a whole number as one, so that the sum stays exact beyond
 * what doubles keep, unless that may leave the range of integers. */
struct crdt_totals crdt_amount(double amount, double before);

/* The same as crdt_text where it is an integer without a float part: the sum, saturated. */
bool crdt_sum_whole(const struct crdt *crdt, int64_t *ret);

/* Whether that sum lies beyond 64 bits: it stays where it is while parts of it go up or down. */
bool crdt_sum_saturated(const struct crdt *crdt);

/* ---- questions of a store on its hot path ---------------------------------------------------- */

enum crdt_member {
        CRDT_MEMBER_ABSENT, /* or not visible */
        CRDT_MEMBER_THERE,
        CRDT_MEMBER_FRESH, /* there by a dot of `origin` with a clock beyond `shipped` */
};

/* `hash` is the member's, from crdt_item_hash. */
enum crdt_member crdt_set_look(const struct crdt *crdt, struct bytes member, uint64_t hash,
                               region_id origin, uint64_t shipped);

/* The part of `origin`, of that life, where one more increment changes nothing but its total, its
 * clock and last[CRDT_STRING]: a live counter of parts that add up, no content of other types.
 * NULL where it is not so plain. */
struct crdt_count *crdt_increment_plain(struct crdt *crdt, region_id origin, uint8_t life);

/* The table of a hash (set) to which fields (members) can be added by crdt_item_put and
 * nothing else changes: it is visible, and no content of other types is remembered. NULL
 * where it is not so plain. */
struct crdt_items *crdt_items_plain(const struct crdt *crdt, enum crdt_type type);

/* The same for a sorted set. crdt_zset_put writes a member of it with a stamp later than all that
 * is known; false, and nothing is changed, where that takes away what the member had of other
 * origins or of increments. *ret_score is the one that shows. */
struct table *crdt_zset_plain(const struct crdt *crdt);
bool crdt_zset_put(struct crdt_env *env, struct crdt *crdt, struct bytes member, uint64_t hash,
                   double score, struct stamp stamp);
enum crdt_member crdt_zset_look(const struct crdt *crdt, struct bytes name, uint64_t hash,
                                region_id origin, uint64_t shipped, double *ret_score);

/* The same for a list: a push of `count` with a stamp later than all that is known, and a pop of
 * one that leaves some, whose name is appended as a delta has it. False: not so plain, or no
 * memory; nothing is changed. */
bool crdt_list_push_plain(const struct table_env *env, struct crdt *crdt, bool head, uint32_t count,
                          struct stamp stamp);
bool crdt_list_pop_plain(const struct crdt_env *env, struct crdt *crdt, bool head,
                         struct buffer *name);

/* Writes a field or adds a member with a stamp later than all that is known. `hash` is the
 * name's, from crdt_item_hash. */
void crdt_item_put(struct crdt_env *env, struct crdt *crdt, enum crdt_type type, struct bytes name,
                   uint64_t hash, struct stamp stamp);
uint64_t crdt_item_hash(const struct table_env *env, struct bytes name);

/* ---- the state as bytes: state transfer and saving ------------------------------------------- */

enum crdt_state_kind {
        CRDT_STATE_VALUES, /* with values, read from the native: for another region */
        CRDT_STATE_SAVED,  /* without: for this region's own storage, where the values are kept */
};

/* Appends the state of one key, name included. ERR_NOMEM. */
MUST_USE enum err crdt_state_encode(const struct crdt_env *env, const struct crdt *crdt,
                                    enum crdt_state_kind kind, struct buffer *buffer);

/* Which slice of a large key a state is (crdt/slice.h). */
struct crdt_slice_mark {
        bool there; /* false: the whole key */
        bool first, last;
        bool judges; /* elements whose hash has `class` in its low `bits` are all told by now */
        uint8_t bits;
        uint64_t class;
};

/* A walk through one key, slice by slice: zeroed, and `point` initialised, at its begin. */
struct crdt_slice {
        bool begun;
        uint8_t section;
        uint8_t bits;
        uint64_t at;
        struct crdt_stream_id id;
        struct buffer point; /* in a list */
};

/* Appends the next slice of a key, with values: about `items_max` elements or `bytes_max` bytes of
 * them, at least one; all in one state where it fits into the first. *ret_done: that was the last.
 * The key may change between the calls. ERR_NOMEM. */
MUST_USE enum err crdt_slice_encode(const struct crdt_env *env, const struct crdt *crdt,
                                    struct crdt_slice *slice, uint64_t items_max,
                                    uint64_t bytes_max, struct buffer *buffer, bool *ret_done);
void crdt_slice_fini(struct crdt_slice *slice);

/* A decoded and validated state of a key. Slices are borrowed from the input. */
struct crdt_state {
        struct crdt_name name;
        struct crdt_slice_mark mark;
        struct bytes elements_range; /* of a slice */
        struct bytes entries_range;
        bool elements_told, entries_told;
        const struct crdt_seen *begin; /* of a slice, set by who merges: what its sender had seen
                                        * before the first; NULL: not all slices have come */
        struct crdt head;              /* without tables and arrays */
        bool value_there;
        struct bytes value; /* of the string or the opaque value */
        struct bytes counts;
        struct bytes bounds;
        struct bytes fields;
        struct bytes members;
        struct bytes siblings;
        struct bytes registers;
        struct stamp hll_added;
        uint64_t hll_stable;
        bool hll_there;
        struct bytes elements; /* of the list */
        struct bytes entries;  /* of the stream */
        struct bytes scores;   /* of the sorted set */
        enum crdt_state_kind kind;
};

/* Decodes the next key. Every clock must be <= `hlc_max` (ERR_REFUSED beyond it). The cursor's
 * error says what is wrong. */
bool crdt_state_decode(struct cursor *cursor, enum crdt_state_kind kind, uint64_t hlc_max,
                       struct crdt_state *ret);

/* Merges it. `sender` is what its sender had seen: of that, what it does not show is dead. With
 * nothing seen it merges only what is there. */
void crdt_merge(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                const struct crdt_seen *sender);

/* ---- tombstones, digest ---------------------------------------------------------------------- */

/* Drops field tombstones with clocks <= `stable` and remembered removals that `seen` covers.
 * Returns how many went. */
uint64_t crdt_collect(struct crdt_env *env, struct crdt *crdt, uint64_t stable);

/* True where nothing is visible and nothing has to be remembered. */
bool crdt_forgettable(const struct crdt_env *env, const struct crdt *crdt, uint64_t stable);

/* One number for what is visible; with `all`, for everything that is remembered too, save what
 * depends on the vector. Independent of the order of tables. */
uint64_t crdt_digest(const struct crdt *crdt, struct crdt_name name, bool all);

#endif
