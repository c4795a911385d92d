/* crdt.h - the converging types: what is remembered about a key, how a delta changes it, how two
 * states of it merge. Values stay outside, behind `struct crdt_native`; only what decides who wins
 * is kept here. keyspace/ owns the keys and calls this room.
 *
 * State of a key, a lattice: every part only grows, so any order, repetition or delay gives the
 * same.
 *
 *   last[type]   largest stamp of a write of that type. The type with the largest `last` is the
 *                visible one; content of a type dies at the largest `last` of the other types.
 *   killed       largest kill stamp: DEL kills at its own stamp, an expiry at the stamp of the
 * write that it observed. String base, hash fields and opaque values with a stamp <= killed are
 * dead. base         stamp of the last SET of a string; its value is outside. counts       for each
 * origin: running totals (integer and float part) at a clock, and the `cut`, the totals that a
 * later SET, DEL or expiry had observed. The value of a string is base + sum over origins of (total
 * - cut), where it was written after the cut. fields       for each field of a hash: stamp of its
 * last write, or of its HDEL. members      for each member of a set: a dot (stamp of its SADD) per
 * origin, the newest one; a dot that was removed before it came is remembered until the version
 * vector covers it. bounds       dots up to which a DEL had observed, by origin, until the vector
 * covers them. ttl          absolute expiry time and its stamp; at the same stamp "none" wins, so
 * that nothing inherits the time of what has expired.
 *
 * Guarantees: a write that no delete, SET or expiry had observed survives it (add wins; concurrent
 * increments survive); hashes and string bases are last write wins by stamp; two types at once: the
 * later stamp decides, everywhere alike. Merging never looks at a clock. */
#ifndef MERIDIAN_CRDT_CRDT_H
#define MERIDIAN_CRDT_CRDT_H

#include "clock/clock.h"

/* The kinds of content a key may have. */
enum crdt_type {
        CRDT_STRING, /* register and counter */
        CRDT_HASH,
        CRDT_SET,
        CRDT_OPAQUE, /* any other type, as one serialized value: the last write wins as a whole */
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

/* The store of values, as a merge sees it: Redis by its module interface, or a model. A merge calls
 * only what changes something visible. Slices are borrowed for the call; slices that are returned
 * stay good until the next call through the same native. No call may come back into the keyspace.
 *
 * `context` is the caller's own. Times are Unix milliseconds, 0 is "no expiry". A time in the past
 * is possible and must be stored as it is: only the native's own expiry may strike it, which then
 * comes back as keyspace_local_expired. */
struct crdt_native {
        void *context;

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

        /* A serialized value of another type, for state transfer; false where it does not exist. */
        bool (*opaque_get)(void *context, struct crdt_name name, struct bytes *ret_value);

        /* Makes the key what the serialized value says, with this expiry. */
        void (*opaque_set)(void *context, struct crdt_name name, struct bytes value,
                           uint64_t expire_at_ms);
};

#endif
