/* cmocka_all.h - cmocka with the headers that it wants first. */
#ifndef MERIDIAN_TESTS_CMOCKA_ALL_H
#define MERIDIAN_TESTS_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
