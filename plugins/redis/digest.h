/* digest.h - the digest of one value, read a piece at a time. What digests.c uses of
 * digest_value.c. */
#ifndef MERIDIAN_PLUGINS_REDIS_DIGEST_H
#define MERIDIAN_PLUGINS_REDIS_DIGEST_H

#include "plugin.h"
#include "verify/verify.h"

struct reading {
        struct redis_string *key; /* NULL: nothing is being read */
        uint32_t db;
        uint64_t name;   /* its hash */
        unsigned type;   /* REDIS_KEY_...; REDIS_KEY_EMPTY: there is no value */
        uint64_t length; /* as the server counts it */
        uint64_t expire_at_ms;
        uint64_t at;     /* pieces that were read */
        uint64_t sum;    /* since the last look at it */
        char cursor[64]; /* of HSCAN and its like; of a stream, where to go on */
        bool whole;      /* all of it was read */
};

/* Opens a value: its shape is in `sum`. An expired one is gone then. */
void reading_begin(struct reading *reading, struct redis_context *ctx, struct crdt_name name);

/* Reads on, about 64 items or 64 KiB. */
void reading_step(struct reading *reading, struct redis_context *ctx);
void reading_end(struct reading *reading);

#endif
