/* counter.h - what is added up to one number: a base, and of each origin the running total of what
 * it has added. Private to crdt/, but for what crdt.h names. Its value is
 *
 *      base (where alive) + sum over parts of (total - cut)
 *
 * of the parts, of origins and lives, whose last increment is later than the cut and than `rival`,
 * the last write of another type. `alive`: the base counts. */
#ifndef MERIDIAN_CRDT_COUNTER_H
#define MERIDIAN_CRDT_COUNTER_H

#include "crdt/crdt.h"

void counter_free(const struct table_env *env, struct crdt_counter *counter);

/* Nothing is known of the base any more; or that it is `value`. ERR_NOMEM. */
void counter_forget(const struct table_env *env, struct crdt_counter *counter);
MUST_USE enum err counter_learn(const struct table_env *env, struct crdt_counter *counter,
                                struct bytes value);

/* The part of that origin and life, made where there is none; NULL: out of memory. */
struct crdt_count *counter_slot(const struct table_env *env, struct crdt_counter *counter,
                                region_id origin, uint8_t life);
const struct crdt_count *counter_find(const struct crdt_counter *counter, region_id origin,
                                      uint8_t life);

/* Takes a newer total, or cut, of a part; true where it is one. */
bool count_raise(struct crdt_count *count, uint64_t hlc, struct crdt_totals total);
bool count_cut(struct crdt_count *count, uint64_t hlc, struct crdt_totals cut);

/* Of what the sender of a state had seen and did not tell, nothing is left. `told`: its parts, as
 * counter_check has passed them; len 0: none. */
bool counter_absent(struct crdt_counter *counter, struct bytes told,
                    const struct crdt_seen *sender);

/* What one part comes to. */
double count_value(const struct crdt_count *count);

/* Whether one part, or any, counts. */
bool count_counts(const struct crdt_count *count, struct stamp rival);
bool counter_counts(const struct crdt_counter *counter, struct stamp rival);

/* The sum, saturated, where all is integers; false where it is not, or is nothing. */
bool counter_whole(const struct crdt_counter *counter, bool alive, struct stamp rival,
                   int64_t *ret);

/* Whether that sum lies beyond 64 bits. */
bool counter_saturated(const struct crdt_counter *counter, bool alive, struct stamp rival);

/* The text of it, appended; false where it is the native value itself, or nothing. */
bool counter_text(const struct crdt_counter *counter, bool alive, struct stamp rival,
                  struct buffer *buffer);

/* What a write here observes of it: parts that are not cut. */
bool counter_uncut(const struct crdt_counter *counter);
void counter_cuts_encode(const struct crdt_counter *counter, struct buffer *buffer);

/* The largest clock of it: 0 where nothing was ever added. */
uint64_t counter_newest(const struct crdt_counter *counter);

/* varint count, (u8 origin rising, u64 clock, totals, u64 cut clock, totals) each. */
void counter_write(const struct crdt_counter *counter, struct buffer *buffer);
struct bytes counter_check(struct cursor *cursor, uint64_t hlc_max);
struct crdt_count count_read_one(struct cursor *cursor, uint64_t hlc_max, unsigned *part_last);

/* The base as this region's storage keeps it: u8 kind, signed varint for INT, slice for FLOAT. */
void counter_base_save(const struct crdt_counter *counter, struct buffer *buffer);
struct bytes counter_base_read(struct cursor *cursor, struct crdt_counter *ret);

uint64_t counter_digest(uint64_t hash, const struct crdt_counter *counter, struct stamp rival,
                        bool all);

/* A base and the parts of 64 origins, all of which do so, add up within 64 bits: no sum of them has
 * saturated. */
static inline bool crdt_adds_up(int64_t part)
{
        return (uint64_t)part + ((uint64_t)1 << 56) < (uint64_t)1 << 57;
}

#endif
