/* consistency.h - commit tokens, for consistency.c and the SQL functions. */
#ifndef MERIDIAN_POSTGRES_CONSISTENCY_H
#define MERIDIAN_POSTGRES_CONSISTENCY_H

#include "access/xlogdefs.h"

struct consistency_token {
        TimeLineID timeline;
        XLogRecPtr position; /* Invalid: no commit */
};

/* False when the text is no token; then `*ret` is as it was. */
bool consistency_parse(const char *text, struct consistency_token *ret);
/* In the current memory context. */
char *consistency_text(struct consistency_token token);
/* The session's last forwarded commit; asks the primary where it must. */
struct consistency_token consistency_own(void);
/* Waits until it is replayed here; throws after meridian.read_timeout, or when it was lost. */
void consistency_wait_token(struct consistency_token token);

#endif
