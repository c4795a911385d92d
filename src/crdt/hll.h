/* hll.h - what crdt.c and state.c call of hll.c. Private to crdt/. */
#ifndef MERIDIAN_CRDT_HLL_H
#define MERIDIAN_CRDT_HLL_H

#include "crdt/crdt.h"

bool hll_alive(const struct crdt *crdt);
void hll_free(const struct table_env *env, struct crdt *crdt);
/* After a kill was joined, before change_settle: one that was forgotten here and is told again does
 * not kill what is here, which was written after it. */
void hll_outlive(const struct crdt_env *env, struct crdt *crdt);
void apply_hll(struct crdt_env *env, struct crdt *crdt, const struct crdt_delta *delta);

/* In a state: stamp of the newest add; with `values`, u64 stable clock, slice registers. */
void hll_write(const struct crdt_env *env, const struct crdt *crdt, bool values,
               struct buffer *buffer);
void hll_check(struct cursor *cursor, uint64_t hlc_max, struct crdt_state *state);

/* Before change_settle, instead of raising last[CRDT_HLL]; where it returns true, the registers are
 * joined after it. */
bool merge_hll(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state,
               const struct crdt_seen *sender);
void merge_hll_registers(struct crdt_env *env, struct crdt *crdt, const struct crdt_state *state);

#endif
