/* check.h - assertions for our own mistakes. They stay on in production.
 * Never for outside input. */
#ifndef MERIDIAN_BASE_CHECK_H
#define MERIDIAN_BASE_CHECK_H

/* Prints the place and the broken belief on stderr and aborts. */
_Noreturn void check_failed(const char *file, int line, const char *function, const char *belief);

/* One condition each; no side effects inside. */
#define CHECK(belief)                                                                              \
        do {                                                                                       \
                if (__builtin_expect(!(belief), 0))                                                \
                        check_failed(__FILE__, __LINE__, __func__, #belief);                       \
        } while (0)

#define IMPLIES(a, b)    (!(a) || (b))

/* A place that no input can reach. */
#define UNREACHABLE(why) check_failed(__FILE__, __LINE__, __func__, "unreachable: " why)

#endif
