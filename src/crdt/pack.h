/* pack.h - what is remembered of a small key, in one block: a counter, a string whose expiry was
 * told after it, or a hash, set, list or sorted set of few elements. Most keys are such. A pack
 * says the same as the `struct crdt` that it is made of, which it becomes again for every change
 * but the plainest; those are made in place.
 *
 * A pack has content of one type, or has had it, and nothing is remembered of any other. The
 * largest stamp of a write (`last`) is kept by the owner, beside it: after a change in place that
 * is the change's. The owner frees a pack with crdt_pack_free; `slot` is where it keeps the
 * pointer. */
#ifndef MERIDIAN_CRDT_PACK_H
#define MERIDIAN_CRDT_PACK_H

#include "crdt/crdt.h"

struct crdt_pack;

enum {
        CRDT_PACK_ELEMENTS_MAX = 32, /* fields, members, runs of list elements */
        CRDT_PACK_NAME_MAX = 128,    /* bytes of a field or member */
        CRDT_PACK_BYTES_MAX = 768,
        CRDT_PACK_MAKE_PERCENT = 75, /* of these: one that was too large becomes one only if it is
                                      * clearly smaller */
};

/* NULL: it does not fit, or no memory. *ret_last: the largest stamp of a write. */
struct crdt_pack *crdt_pack_make(const struct table_env *env, const struct crdt *crdt,
                                 struct stamp *ret_last);

/* A set, hash, list or sorted set without elements yet, created at `stamp`; a counter of one
 * increment of its origin, which is told as *ret. NULL: no memory. */
struct crdt_pack *crdt_pack_new(const struct table_env *env, enum crdt_type type,
                                struct stamp stamp);
/* A string that was set before, whose expiry (0: none) was told at `ttl`. NULL: no memory. */
struct crdt_pack *crdt_pack_string_new(const struct table_env *env, struct stamp ttl,
                                       uint64_t expire_at_ms);
struct crdt_pack *crdt_pack_count_new(const struct table_env *env, struct stamp stamp, uint8_t life,
                                      int64_t amount, struct crdt_count *ret);

/* The whole again, to be freed by crdt_fini; `touched` as in struct crdt. False: out of memory. */
MUST_USE bool crdt_pack_open(const struct table_env *env, const struct crdt_pack *pack,
                             struct stamp last, uint64_t touched, struct crdt *ret);

void crdt_pack_free(const struct table_env *env, struct crdt_pack *pack);

/* One that a SET wrote, and nothing else that outlives the next SET or DEL. */
bool crdt_pack_is_string(const struct crdt_pack *pack);

/* STRING: a counter or that; else HASH, SET, LIST or ZSET; and what is visible: that, or NONE. */
enum crdt_type crdt_pack_kind(const struct crdt_pack *pack);
enum crdt_type crdt_pack_type(const struct crdt_pack *pack);

/* The time that is remembered; it counts where something is visible. */
uint64_t crdt_pack_expire_at(const struct crdt_pack *pack);
/* How many elements are visible, where that is what it has; else 0. */
uint64_t crdt_pack_length(const struct crdt_pack *pack, enum crdt_type type);

/* As crdt_set_look. */
enum crdt_member crdt_pack_member(const struct crdt_pack *pack, struct bytes member,
                                  region_id origin, uint64_t shipped);

/* As crdt_zset_look. All members of a sorted set, in no order. */
enum crdt_member crdt_pack_score(const struct crdt_pack *pack, struct bytes member,
                                 region_id origin, uint64_t shipped, double *ret_score);
void crdt_pack_scores(const struct crdt_pack *pack,
                      void (*each)(void *context, struct bytes member, double score),
                      void *context);

/* ---- changes in place. False: not so plain, or no memory; the pack is as it was (of several puts,
 * with those before), and the change must be made to the whole. `stamp` is later than all that is
 * known, but for crdt_pack_apply. A removal is plain where what goes is covered by `seen`: it
 * cannot come again. */

/* HSET of one field, SADD of one member. */
bool crdt_pack_put(const struct table_env *env, struct crdt_pack **slot, struct bytes name,
                   struct stamp stamp);

/* ZADD of one member, which has no dot but of that origin. */
bool crdt_pack_score_put(const struct table_env *env, struct crdt_pack **slot, struct bytes name,
                         struct stamp stamp, double score);

/* HDEL of one field. */
bool crdt_pack_hash_delete(struct crdt_pack *pack, struct bytes field, struct stamp stamp);

/* SREM of one member: the dots that it had are appended as a delta has them. */
bool crdt_pack_set_remove(const struct crdt_env *env, struct crdt_pack **slot, struct bytes member,
                          struct buffer *dots);

/* One more increment of the origin of `stamp`, whose part of that life had the largest stamp so
 * far: the part after it. */
bool crdt_pack_increment(struct crdt_pack *pack, uint8_t life, struct stamp last,
                         struct stamp stamp, int64_t amount, struct crdt_count *ret);

/* LPUSH (`head`) or RPUSH of that many. */
bool crdt_pack_push(const struct table_env *env, struct crdt_pack **slot, bool head, uint32_t count,
                    struct stamp stamp);

/* LPOP (`head`) or RPOP of one: its name is appended as a delta has it. */
bool crdt_pack_pop(const struct crdt_env *env, struct crdt_pack **slot, bool head,
                   struct buffer *name);

/* EXPIRE, or PERSIST (0). */
bool crdt_pack_expire(const struct table_env *env, struct crdt_pack **slot, struct stamp stamp,
                      uint64_t expire_at_ms);

/* The SADD, HSET, ZADD or push of another region. `last` as above; it then is no smaller than the
 * delta's stamp. */
bool crdt_pack_apply(struct crdt_env *env, struct crdt_pack **slot, struct stamp last,
                     const struct crdt_delta *delta);

/* As crdt_collect. */
uint64_t crdt_pack_collect(const struct table_env *env, struct crdt_pack **slot, uint64_t stable);

#endif
