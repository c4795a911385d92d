/* siblings.h - what crdt.c and state.c call of siblings.c. Private to crdt/. A change calls the
 * joins before change_settle; siblings_end, at its end, tells the native what is visible. */
#ifndef MERIDIAN_CRDT_SIBLINGS_H
#define MERIDIAN_CRDT_SIBLINGS_H

#include "crdt/crdt.h"

/* The siblings themselves go; what was seen stays known. NULL is fine. */
void siblings_forget(const struct table_env *env, struct crdt_siblings *siblings);
void siblings_free(const struct table_env *env, struct crdt_siblings **slot);

void apply_sibling(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta);

/* Drops what is dead by a kill or by a later write of another type. */
void siblings_sweep(struct crdt_env *env, struct crdt *crdt);
void siblings_end(struct crdt_env *env, struct crdt *crdt);

/* In a state: vector of what was seen, varint count, (stamp rising, u8 1 where a value follows,
 * slice) each; without `values` only those that the native does not have. */
void siblings_write(const struct crdt_env *env, const struct crdt *crdt, bool values,
                    struct buffer *buffer);
void siblings_check(struct cursor *cursor, uint64_t hlc_max, struct crdt_state *state);
void merge_siblings(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
                    const struct crdt_seen *sender);

/* The newest clock that is remembered. */
uint64_t siblings_newest(const struct crdt *crdt);

#endif
