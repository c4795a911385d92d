/* err.h - the world's refusals, as one list: name, text for a person, may a caller try again. */
#ifndef MERIDIAN_BASE_ERR_H
#define MERIDIAN_BASE_ERR_H

#include <stdbool.h>

#define ERR_LIST(X)                                                                                \
        X(ERR_NOMEM, "out of memory", true)                                                        \
        X(ERR_LIMIT, "a limit was reached", true)                                                  \
        X(ERR_TRUNCATED, "the input ends too early", false)                                        \
        X(ERR_MALFORMED, "the input is malformed", false)                                          \
        X(ERR_CORRUPT, "stored data is damaged", false)                                            \
        X(ERR_VERSION, "the format version is not supported", false)                               \
        X(ERR_INVALID, "an argument is out of range", false)                                       \
        X(ERR_NOT_FOUND, "not found", false)                                                       \
        X(ERR_EXISTS, "exists already", false)                                                     \
        X(ERR_NOT_LEADER, "this node does not lead", true)                                         \
        X(ERR_NO_MAJORITY, "no majority of regions can be reached", true)                          \
        X(ERR_NOT_OWNER, "held by another owner", false)                                           \
        X(ERR_BUSY, "busy", true)                                                                  \
        X(ERR_TIMEOUT, "time ran out", true)                                                       \
        X(ERR_CLOSED, "the connection is closed", true)                                            \
        X(ERR_REFUSED, "refused", false)                                                           \
        X(ERR_IO, "input or output failed", true)                                                  \
        X(ERR_NOSPACE, "no space is left on the disk", true)                                       \
        X(ERR_UNSUPPORTED, "not supported", false)

enum err {
        ERR_NONE = 0,
#define ERR_ENUM(name, text, retry) name,
        ERR_LIST(ERR_ENUM)
#undef ERR_ENUM
        ERR_COUNT
};

/* The sentence of an error, static; "ok" for ERR_NONE. Any value is accepted. */
const char *err_text(enum err err);

/* The constant's name, e.g. "ERR_NOMEM", static. */
const char *err_name(enum err err);

/* True where the same call may succeed later without a change by the caller. */
bool err_may_retry(enum err err);

#endif
