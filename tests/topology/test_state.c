/* The table of moves against the drawing in state.h, in full. */
#include "topology/state.h"

#include "../cmocka_all.h"

#include <stdio.h>

/* The drawing, as text: a row a state from, a column a state to, in the order of the enum; "a"
 * automatic, "o" operator, "b" both, "." nobody. */
static const char *const drawing[REGION_STATE_COUNT] = {
        /* from       to: j a d D s w r i   (d draining, D drained, w down) */
        [REGION_JOINING] = ".ao..a.o",    [REGION_ACTIVE] = "..o.aa.o",
        [REGION_DRAINING] = ".o.b...o",   [REGION_DRAINED] = "......oo",
        [REGION_SUSPECT] = ".ao..a.o",    [REGION_DOWN] = "...o..ao",
        [REGION_RECOVERING] = ".ao..a.o", [REGION_ISOLATED] = "...o..o.",
};

static void test_moves(void **state)
{
        (void)state;
        for (unsigned from = 0; from < REGION_STATE_COUNT; from++) {
                for (unsigned to = 0; to < REGION_STATE_COUNT; to++) {
                        char mark = drawing[from][to];
                        bool automatic =
                                region_state_may((enum region_state)from, (enum region_state)to,
                                                 REGION_ACTOR_AUTOMATIC);
                        bool operator_ =
                                region_state_may((enum region_state)from, (enum region_state)to,
                                                 REGION_ACTOR_OPERATOR);
                        if (automatic != (mark == 'a' || mark == 'b') ||
                            operator_ != (mark == 'o' || mark == 'b'))
                                fail_msg("%s -> %s differs from the drawing",
                                         region_state_name((enum region_state)from),
                                         region_state_name((enum region_state)to));
                }
        }
}

static void test_out_of_range(void **state)
{
        (void)state;
        enum region_state beyond = (enum region_state)REGION_STATE_COUNT;
        assert_false(region_state_may(beyond, REGION_ACTIVE, REGION_ACTOR_OPERATOR));
        assert_false(region_state_may(REGION_ACTIVE, beyond, REGION_ACTOR_OPERATOR));
        assert_false(region_state_may(REGION_ACTIVE, REGION_DOWN, REGION_ACTOR_COUNT));
        assert_false(region_state_serves(beyond));
        assert_false(region_state_replicates(beyond));
        assert_string_equal(region_state_name(beyond), "unknown");
        assert_string_equal(region_actor_name(REGION_ACTOR_COUNT), "unknown");
}

/* Every state can be reached and left by somebody; nothing that an operator took out moves by
 * itself to a state that serves. */
static void test_reachable(void **state)
{
        (void)state;
        for (unsigned s = 0; s < REGION_STATE_COUNT; s++) {
                bool in = s == REGION_JOINING;
                bool out = false;
                for (unsigned t = 0; t < REGION_STATE_COUNT; t++) {
                        for (unsigned a = 0; a < REGION_ACTOR_COUNT; a++) {
                                in |= region_state_may((enum region_state)t, (enum region_state)s,
                                                       (enum region_actor)a);
                                out |= region_state_may((enum region_state)s, (enum region_state)t,
                                                        (enum region_actor)a);
                        }
                }
                assert_true(in);
                assert_true(out);
        }
}

static void test_names(void **state)
{
        (void)state;
        for (unsigned s = 0; s < REGION_STATE_COUNT; s++) {
                enum region_state back = REGION_STATE_COUNT;
                const char *name = region_state_name((enum region_state)s);
                assert_true(region_state_parse(bytes_of_str(name), &back));
                assert_int_equal(back, s);
        }
        enum region_state untouched = REGION_DOWN;
        assert_false(region_state_parse(BYTES("Active"), &untouched));
        assert_false(region_state_parse(BYTES(""), &untouched));
        assert_false(region_state_parse(BYTES("downy"), &untouched));
        assert_int_equal(untouched, REGION_DOWN);
}

static void test_properties(void **state)
{
        (void)state;
        assert_true(region_state_serves(REGION_ACTIVE));
        assert_true(region_state_serves(REGION_SUSPECT));
        assert_false(region_state_serves(REGION_JOINING));
        assert_false(region_state_serves(REGION_RECOVERING));
        assert_false(region_state_serves(REGION_DRAINING));
        assert_true(region_state_replicates(REGION_DOWN));
        assert_false(region_state_replicates(REGION_ISOLATED));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_moves),      cmocka_unit_test(test_out_of_range),
                cmocka_unit_test(test_reachable),  cmocka_unit_test(test_names),
                cmocka_unit_test(test_properties),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
