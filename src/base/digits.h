/* digits.h - numbers in text that comes from outside: configuration, replies, files. */
#ifndef MERIDIAN_BASE_DIGITS_H
#define MERIDIAN_BASE_DIGITS_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* A number of decimal digits and nothing else, 0 to `max`; leading zeros are taken. False, and
 * `*ret` as it was, where it is empty, holds anything else or is larger. */
bool digits_parse(struct bytes text, uint64_t max, uint64_t *ret);

#endif
