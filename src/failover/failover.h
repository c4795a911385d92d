/* failover.h - decision rows: the state of a region and what is known of it -> its next state, and
 * the sentence for the operator. One table; a test proves that for each combination of inputs at
 * most one row matches, that every row can match, and that every move is one that
 * region_state_may() allows to the row's actor. docs/failover-rows.md is generated from it. */
#ifndef MERIDIAN_FAILOVER_FAILOVER_H
#define MERIDIAN_FAILOVER_FAILOVER_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "health/health.h"
#include "topology/state.h"

enum {
        FAILOVER_SENTENCE_SIZE = 768,
};

/* What an operator asks for. It comes once, as a command; what it changed is the state. */
enum failover_wish {
        FAILOVER_WISH_NONE,    /* none: the automatic rows decide */
        FAILOVER_WISH_DRAIN,   /* take it out gently */
        FAILOVER_WISH_RETURN,  /* undrain, or end an isolation */
        FAILOVER_WISH_ISOLATE, /* cut it off now */
        FAILOVER_WISH_COUNT,
};

struct failover_input {
        enum region_state state;
        enum health_verdict verdict;
        enum health_self self;
        enum failover_wish wish;
        bool caught_up; /* its data lags no more than lag_max */
        bool held;    /* the hold-down passed: up without a break for hold_down_ms in this state */
        bool emptied; /* draining: drain_ms passed */
        bool last;    /* no other data region is routable */
};

struct failover_row {
        const char *id;  /* "region-silent", ...: stored with the change */
        uint16_t states; /* masks of 1 << value: the row matches where all bits meet */
        uint8_t verdicts;
        uint8_t selves;
        uint8_t wishes;
        uint8_t caught_up, held, emptied, last; /* 1: only if false, 2: only if true, 3: either */
        bool refuses;                           /* nothing moves: the sentence says why */
        enum region_state to;                   /* the next state, unless it refuses */
        enum region_actor actor;                /* on whose authority */
        const char *sentence; /* with {region}, {evidence}, {parts} to be filled in */
        const char *witness;  /* the same of a witness, which never gets traffic; NULL: no other */
};

/* The row for an input, or NULL: nothing to do. `wish` other than NONE always gives a row: a move
 * or a refusal that says why. Static. */
const struct failover_row *failover_decide(const struct failover_input *input);

/* The row of an id, or NULL. */
const struct failover_row *failover_row_by_id(struct bytes id);

/* All rows, static. */
const struct failover_row *failover_rows(size_t *ret_count);

/* The region of a sentence. */
struct failover_region {
        const char *name;
        bool witness;
};

/* The sentence of a row with its placeholders filled in, cut to fit. `evidence` and `parts` may be
 * NULL ("unknown"). Returns `text`. */
const char *failover_sentence(const struct failover_row *row, struct failover_region region,
                              const char *evidence, const char *parts,
                              char text[static FAILOVER_SENTENCE_SIZE]);

/* May new traffic go to a region now? By its committed state, and at once by the verdict
 * and its own word, which the council commits later. The caller applies routing's fail-open
 * when no region is left. */
bool failover_routable(enum region_state state, enum health_verdict verdict, enum health_self self);

/* The table as Markdown: docs/failover-rows.md. */
void failover_markdown(struct buffer *buffer);

const char *failover_wish_name(enum failover_wish wish);

#endif
