/* converge.h - a world of several replicas for random histories, and what must hold at each moment:
 * what is visible natively is what the metadata says. Part of test_converge.c. */
#ifndef MERIDIAN_TESTS_KEYSPACE_CONVERGE_H
#define MERIDIAN_TESTS_KEYSPACE_CONVERGE_H

#include "../../src/keyspace/keyspace_priv.h"
#include "base/rng.h"
#include "model.h"

#include <limits.h>
#include <stdlib.h>

enum {
        KEY_TALLY = 8, /* in key_names */
        KEY_SCORE = 9,
        KEY_ZSET = 10,
        KEY_NAMES = 11,
        REPLICAS_MAX = 4,
        STEPS = 160,
        STEPS_OFTEN = 900,
        DRIFT_MS = 5000,
        SKEW_MS = 1000,
        SKEW_FAR_MS =
                4000, /* what is added to it by lives that begin ahead stays within the bound */
        STASH = 8,
        ADDED_MAX = 2 * STEPS_OFTEN,
};

enum fault {
        FAULT_TRANSFER = 1,   /* state transfers in the middle */
        FAULT_RESTART = 2,    /* save and load */
        FAULT_COLLECT = 4,    /* tombstones are collected */
        FAULT_SMALL_RING = 8, /* gaps */
        FAULT_EXPIRY = 16,
        FAULT_CRASH = 32, /* back to an older save: the end of the own stream is lost */
        FAULT_TYPES = 64, /* several types at one key */
        FAULT_FLUSH = 128,
        FAULT_OFTEN = 512,   /* so many crashes that there are more holes than can be kept */
        FAULT_REMOVE = 1024, /* one replica is removed, and noticed so by each at another time */
        FAULT_TELL = 8192,   /* all tell and read often, so that what is dead is soon forgotten */
        FAULT_ROUND = 2048,  /* streams go round by others, too */
        FAULT_JOIN =
                4096, /* the last replica comes later, and is noticed so by each at another time */
        FAULT_DRIFT = 32768,  /* wall clocks differ by seconds, and wander; without FAULT_LOSE, by
                               * whose lives the clocks would leave the bound */
        FAULT_EVICT = 65536,  /* the first replica drops values, and need not end like the others */
        FAULT_RESUME = 16384, /* all lag, and take states while now and then a stream goes on */
        FAULT_TAILS =
                131072,   /* with FAULT_LOSE: one life after the other is lost, as a whole too */
        FAULT_LOSE = 256, /* the same, the wall clock goes back too, and others read on meanwhile */
        FAULT_WHOLE = 262144, /* whole keys are renamed, copied, stored; several changes a turn;
                               * policies come and go */
};

/* How a store tells its changes of a key. */
enum policy {
        POLICY_TYPED,
        POLICY_LAST_WRITE, /* as one serialized value, but for strings */
        POLICY_SIBLINGS,   /* strings as siblings */
        POLICY_COUNT,
};

struct replica {
        struct keyspace *keyspace;
        struct model model;
        struct crdt_native native;
        int64_t skew_ms;
        struct buffer saved; /* for a crash */
        struct model saved_model;
        bool saved_told;
        uint64_t incarnation;
        uint8_t reserved[64]; /* the last reservation of the clock: what a log would hold */
        size_t reserved_len;
        uint64_t given; /* clock of the newest that others were given of its stream */
        unsigned lives; /* begun since all of its own stream was there */
        bool told;      /* a state has come, and has been taken over */
        bool alone;     /* to it the last replica is no member: not any more, or not yet */
        enum policy policies[KEY_NAMES]; /* with FAULT_WHOLE: by key_names, as it knows them now */
};

/* A batch that was sent and comes late, or twice. */
struct batch {
        unsigned from;
        unsigned to;
        uint64_t after;
        uint64_t last;
        struct bytes data;
};

/* What is only ever added to: a counter, the fields of a hash, the members of a sorted set. */
enum sum {
        SUM_COUNTER,
        SUM_TALLY,
        SUM_SCORE,
};

struct added {
        struct stamp stamp;
        enum sum which;
        int8_t amount;
};

struct world {
        struct heap heap;
        struct rng rng;
        uint64_t seed;
        unsigned faults;
        unsigned count;
        uint64_t now_ms;
        struct replica replicas[REPLICAS_MAX];
        struct batch stash[STASH];
        uint64_t collected;
        unsigned elements;           /* ever made, so that each is told from the others */
        bool joined;                 /* the last one is there */
        bool settling;               /* only delivery from here on */
        int64_t sums[SUM_SCORE + 1]; /* what must be there of that: converge_sums.h */
        bool unsure;                 /* nobody can say what must be */
        struct added added[ADDED_MAX];
        unsigned added_count;
};

static const char *const key_names[] = {"a",   "b",      "c",     "counter", "f",   "list",
                                        "hll", "stream", "tally", "score",   "zset"};
_Static_assert(COUNT_OF(key_names) == KEY_NAMES, "each key has a policy");
static const char *const item_names[] = {"x", "y", "z", "w"};

static void failed(int line);

#define DEMAND(world, belief)                                                                      \
        do {                                                                                       \
                if (!(belief)) {                                                                   \
                        failed(__LINE__);                                                          \
                        printf("not ok - seed %llu faults %u line %d: %s\n",                       \
                               (unsigned long long)(world)->seed, (world)->faults, __LINE__,       \
                               #belief);                                                           \
                        exit(1);                                                                   \
                }                                                                                  \
        } while (0)

static bool tracing;

#define TRACE(replica, ...)                                                                        \
        do {                                                                                       \
                if (tracing) {                                                                     \
                        printf("# %u: ", (unsigned)(replica)->keyspace->config.origin);            \
                        printf(__VA_ARGS__);                                                       \
                        printf("\n");                                                              \
                }                                                                                  \
        } while (0)

static void trace_change(const struct replica *replica, const struct keyspace_change *change)
{
        struct crdt_delta delta;
        if (!tracing || change->nothing || change->delta.ptr == NULL)
                return;
        CHECK(crdt_delta_decode(change->delta, change->stamp.origin, &delta) == ERR_NONE);
        TRACE(replica, "changes %.*s of %u by %d at %llu, stable to %llu",
              BYTES_ARGS(delta.name.key), (unsigned)delta.name.db, (int)delta.op,
              (unsigned long long)delta.stamp.hlc,
              (unsigned long long)keyspace_stable(replica->keyspace));
}

static uint64_t wall(struct world *world, const struct replica *replica)
{
        return (uint64_t)((int64_t)world->now_ms + replica->skew_ms);
}

static struct keyspace *keyspace_made(struct world *world, unsigned index)
{
        struct keyspace_config config = {
                .origin = (region_id)(index + 1),
                .ring_bytes = (world->faults & FAULT_SMALL_RING) != 0 ? 4096 : 1 << 16,
                .drift_max_ms = DRIFT_MS,
                .incarnation = world->replicas[index].incarnation,
                .hash_key = {world->seed, index},
                .slice_items = (uint32_t)(world->seed % 4), /* 0: no key is large */
        };
        struct keyspace *keyspace = keyspace_new(&world->heap, &config);
        CHECK(keyspace != NULL);
        if ((world->faults & FAULT_COLLECT) != 0) {
                region_id members[REPLICAS_MAX];
                for (unsigned i = 0; i < world->count; i++)
                        members[i] = (region_id)(i + 1);
                CHECK(keyspace_members(keyspace, members, world->count) == ERR_NONE);
        }
        return keyspace;
}

/* Values are missing there that the metadata may still say. */
static bool evicts(const struct world *world, const struct replica *replica)
{
        return (world->faults & FAULT_EVICT) != 0 && replica == &world->replicas[0];
}

/* The same of scores, bit for bit. */
static void agree_scores(struct world *world, struct replica *replica, struct crdt_name name,
                         const struct model_key *key)
{
        uint64_t length = keyspace_zset_length(replica->keyspace, name);
        bool zset = key != NULL && key->type == CRDT_ZSET;
        DEMAND(world, length == (zset ? model_item_count(key) : 0));
        for (size_t i = 0; i < MODEL_ITEMS && zset; i++) {
                double known = 0;
                const struct model_item *item = &key->items[i];
                if (!item->used)
                        continue;
                DEMAND(world, keyspace_zset_look(replica->keyspace, name, text_get(&item->name), 0,
                                                 &known) != CRDT_MEMBER_ABSENT);
                DEMAND(world, memcmp(&known, item->value.data, sizeof known) == 0);
        }
}

/* What is visible natively is what the metadata says. */
static void agree(struct world *world, struct replica *replica)
{
        if (evicts(world, replica))
                return;
        for (unsigned db = 0; db < 2; db++) {
                for (size_t i = 0; i < COUNT_OF(key_names); i++) {
                        struct crdt_name name = {db, bytes_of_str(key_names[i])};
                        struct keyspace_key told;
                        struct model_key *key = model_find(&replica->model, name);
                        keyspace_find(replica->keyspace, name, &told);
                        if (told.type == CRDT_OPAQUE && (world->faults & FAULT_WHOLE) != 0) {
                                DEMAND(world, key != NULL);
                                DEMAND(world, told.expire_at_ms == key->expire_at_ms);
                                continue; /* of any type */
                        }
                        DEMAND(world, (told.type == CRDT_SIBLINGS ? CRDT_STRING : told.type) ==
                                              (key == NULL ? CRDT_NONE : key->type));
                        struct crdt_stream_id last;
                        uint64_t length = key == NULL ? 0 : key->length;
                        DEMAND(world, keyspace_list_length(replica->keyspace, name) +
                                                      keyspace_stream_length(replica->keyspace,
                                                                             name, &last) ==
                                              length);
                        DEMAND(world, key == NULL || told.expire_at_ms == key->expire_at_ms);
                        agree_scores(world, replica, name, key);
                }
        }
}

static void strike_key(struct world *world, struct replica *replica, struct model_key *key)
{
        struct keyspace_change change;
        struct model_text text = key->name;
        struct crdt_name name = {key->db, text_get(&text)};
        model_drop(key);
        CHECK(keyspace_local_expired(replica->keyspace, wall(world, replica), name, &change) ==
              ERR_NONE);
        DEMAND(world, !change.nothing || evicts(world, replica));
        trace_change(replica, &change);
}

static bool is_due(struct world *world, const struct replica *replica, const struct model_key *key)
{
        return key->type != CRDT_NONE && key->expire_at_ms != 0 &&
               key->expire_at_ms <= wall(world, replica);
}

/* The store's own expiry, by its own clock. */
static void strike(struct world *world, struct replica *replica)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                struct model_key *key = &replica->model.keys[i];
                if (is_due(world, replica, key) && rng_chance(&world->rng, 500))
                        strike_key(world, replica, key);
        }
}

/* A store strikes a key that is due before it is changed: HyperLogLogs rely on it. */
static void strike_before_change(struct world *world, struct replica *replica)
{
        for (size_t i = 0; i < MODEL_KEYS; i++) {
                struct model_key *key = &replica->model.keys[i];
                if (key->type == CRDT_HLL && is_due(world, replica, key))
                        strike_key(world, replica, key);
        }
}

#endif
