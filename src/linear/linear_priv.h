/* linear_priv.h - what the search asks of a model. */
#ifndef MERIDIAN_LINEAR_LINEAR_PRIV_H
#define MERIDIAN_LINEAR_LINEAR_PRIV_H

#include "linear/linear.h"

/* All that an object remembers; zero at the start. */
struct linear_state {
        uint64_t words[LINEAR_KEYS_MAX];
};

/* The keys of a part: the place of each in the state. */
struct linear_part {
        const uint32_t *places; /* by key */
        size_t words;           /* of the state that are in use */
};

/* Carries an operation out where its answer fits; false: it does not. */
typedef bool linear_step(const struct linear_part *part, struct linear_state *state,
                         const struct linear_op *op);

bool linear_step_values(const struct linear_part *part, struct linear_state *state,
                        const struct linear_op *op);
bool linear_step_locks(const struct linear_part *part, struct linear_state *state,
                       const struct linear_op *op);

/* An operation that has an answer changes nothing at this moment. Would it change nothing that
 * counts later either? Then nothing is lost by letting it happen now. */
typedef bool linear_idle(const struct linear_op *op);

bool linear_idle_values(const struct linear_op *op);
bool linear_idle_locks(const struct linear_op *op);

/* Searches one part. `ops` are indices, by rising call. */
void linear_search(struct heap *heap, enum linear_model model, const struct linear_part *part,
                   const struct linear_op *all, size_t all_count, const size_t *ops, size_t count,
                   struct linear_report *report);

#endif
