/* number.h - texts of numbers as Redis writes and reads them. Private to crdt/. */
#ifndef MERIDIAN_CRDT_NUMBER_H
#define MERIDIAN_CRDT_NUMBER_H

#include "base/buffer.h"

/* An integer in its one canonical form: no sign but '-', no leading zero, no space. */
bool number_int(struct bytes text, int64_t *ret);

/* A finite decimal number, with or without an exponent. */
bool number_float(struct bytes text, double *ret);

/* 15 significant digits, no exponent, no trailing zeros, at most 17 decimals. */
void number_format(struct buffer *buffer, double value);

#endif
