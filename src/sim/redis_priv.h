/* redis_priv.h - what the files of the simulated Redis share: redis.c (its log and lives),
 * redis_link.c (the node's side of it), redis_clients.c (who changes keys), redis_check.c, and one
 * file for each group of types, which is a row in the table of redis_clients.c. */
#ifndef MERIDIAN_SIM_REDIS_PRIV_H
#define MERIDIAN_SIM_REDIS_PRIV_H

#include "sim/sim_priv.h"

/* A group of types, or of commands, as the clients use it. */
struct redis_type {
        const char *name;
        enum crdt_type type; /* of the keys that `check` is for */
        const char *key;     /* where four of five of its changes go; NULL: any key */
        unsigned weight;     /* how often it has its turn, beside the others */

        /* A random change, native and in the keyspace, told by redis_logged(); or nothing, where
         * the key is of another type. `turn` is drawn in [0, weight). */
        void (*act)(struct sim_redis *redis, struct crdt_name name, unsigned turn);

        /* The callbacks of the type; NULL where model.c has them. */
        void (*native)(struct crdt_native *native);

        /* False where the store's value and the metadata do not say the same; NULL: nothing to look
         * at. Asked of every key of `type` at the end. */
        bool (*check)(struct sim_redis *redis, const struct model_key *key);
};

extern const struct redis_type redis_witnesses, redis_strings, redis_hashes, redis_sets,
        redis_deletes, redis_lists, redis_expiries, redis_hlls, redis_streams, redis_siblings,
        redis_flushes, redis_zsets;

/* The rows. */
const struct redis_type *const *redis_types(size_t *ret_count);

/* redis.c */
uint64_t redis_wall_ms(const struct sim_redis *redis);
void redis_must(struct sim_redis *redis, enum err err, const char *what);
void redis_log(struct sim_redis *redis, enum log_kind kind, region_id origin, uint64_t last,
               const struct vector *vector, struct bytes data);
/* What a keyspace wants logged. */
void redis_log_change(struct sim_redis *redis, enum err err, const struct keyspace_change *change);
/* Reserves the clock; once a turn. */
void redis_reserve(struct sim_redis *redis);

/* Where the key is due: it dies before anything else happens to it. */
void redis_strike(struct sim_redis *redis, struct crdt_name name);

/* redis_link.c: own deltas may have come. */
void redis_wake_tails(struct sim_redis *redis);
/* What the two had under way is void. */
/* All connections break. */
void redis_forget_links(struct sim_redis *redis);

/* redis_values.c: a string's number; the key becomes it plus `amount`. */
int64_t redis_number(const struct model_key *key);
void redis_delete(struct sim_redis *redis, struct crdt_name name);
MUST_USE enum err redis_increment(struct sim_redis *redis, struct crdt_name name, uint32_t amount,
                                  struct keyspace_change *ret);

/* redis_clients.c: a client's change is logged, and told. */
void redis_logged(struct sim_redis *redis, enum err err, const struct keyspace_change *change);
struct crdt_name redis_name(const char *text);
struct bytes redis_draw_field(struct sim *sim, char text[8]);

/* redis_witness.c: changes that are looked for at the end. */
/* Of one who acknowledged and crashed: what it wrote beyond `recovered` is in nobody's log. */
void witness_crash(struct sim *sim, region_id origin, uint64_t recovered);
/* Every region has what it must; for a person who looks for the cause. */
void witness_check(struct sim_redis *redis);
void witness_explain(struct sim_redis *redis);

#endif
