/* check.c - one of our own beliefs is broken: it is told on standard error, and the program
 * ends. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *file, int line, const char *function, const char *belief)
{
        fprintf(stderr, "meridian: broken belief at %s:%d in %s: %s\n", file, line, function,
                belief);
        fflush(stderr);
        abort();
}
