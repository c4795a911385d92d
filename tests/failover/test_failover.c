/* The table of rows in full: every combination of inputs has one row or none, every row is of use,
 * every move is allowed to its actor; then the laws that no row may break, the sentences, and the
 * generated page (its path is the first argument). */
#include "failover/failover.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *page_path;

static struct failover_input nth(unsigned n)
{
        struct failover_input input;
        input.caught_up = (n & 1) != 0;
        input.held = (n & 2) != 0;
        input.emptied = (n & 4) != 0;
        input.last = (n & 8) != 0;
        n /= 16;
        input.wish = (enum failover_wish)(n % FAILOVER_WISH_COUNT);
        n /= FAILOVER_WISH_COUNT;
        input.self = (enum health_self)(n % HEALTH_SELF_COUNT);
        n /= HEALTH_SELF_COUNT;
        input.verdict = (enum health_verdict)(n % HEALTH_VERDICT_COUNT);
        n /= HEALTH_VERDICT_COUNT;
        input.state = (enum region_state)n;
        return input;
}

enum {
        COMBINATIONS = 16 * FAILOVER_WISH_COUNT * HEALTH_SELF_COUNT * HEALTH_VERDICT_COUNT *
                       REGION_STATE_COUNT,
};

/* A second reading of the masks, apart from the one under test. */
static bool fits(const struct failover_row *row, const struct failover_input *input)
{
        return row->states >> input->state & row->verdicts >> input->verdict &
               row->selves >> input->self & row->wishes >> input->wish &
               row->caught_up >> input->caught_up & row->held >> input->held &
               row->emptied >> input->emptied & row->last >> input->last & 1;
}

static void test_one_row_or_none(void **state)
{
        (void)state;
        size_t count = 0;
        const struct failover_row *rows = failover_rows(&count);
        unsigned used[64] = {0};
        assert_in_range(count, 1, COUNT_OF(used));
        for (unsigned n = 0; n < COMBINATIONS; n++) {
                struct failover_input input = nth(n);
                const struct failover_row *found = NULL;
                for (size_t i = 0; i < count; i++) {
                        if (!fits(&rows[i], &input))
                                continue;
                        if (found != NULL)
                                fail_msg("both %s and %s fit %u", found->id, rows[i].id, n);
                        found = &rows[i];
                        used[i]++;
                }
                assert_ptr_equal(failover_decide(&input), found);
        }
        for (size_t i = 0; i < count; i++) {
                if (used[i] == 0)
                        fail_msg("%s never fits", rows[i].id);
        }
}

static void test_moves_are_allowed(void **state)
{
        (void)state;
        size_t count = 0;
        const struct failover_row *rows = failover_rows(&count);
        for (size_t i = 0; i < count; i++) {
                bool automatic = rows[i].wishes == 1u << FAILOVER_WISH_NONE;
                assert_int_equal(automatic, rows[i].actor == REGION_ACTOR_AUTOMATIC);
                assert_false(automatic && rows[i].refuses);
                for (unsigned s = 0; s < REGION_STATE_COUNT; s++) {
                        bool from = (rows[i].states >> s & 1) != 0;
                        if (from && !rows[i].refuses &&
                            !region_state_may((enum region_state)s, rows[i].to, rows[i].actor))
                                fail_msg("%s: %s may not become %s", rows[i].id,
                                         region_state_name((enum region_state)s),
                                         region_state_name(rows[i].to));
                }
        }
}

/* Every move that the table of states allows is made by some row. */
static void test_moves_are_used(void **state)
{
        (void)state;
        bool made[REGION_STATE_COUNT][REGION_STATE_COUNT][REGION_ACTOR_COUNT] = {0};
        for (unsigned n = 0; n < COMBINATIONS; n++) {
                struct failover_input input = nth(n);
                const struct failover_row *row = failover_decide(&input);
                if (row != NULL && !row->refuses)
                        made[input.state][row->to][row->actor] = true;
        }
        for (unsigned from = 0; from < REGION_STATE_COUNT; from++) {
                for (unsigned to = 0; to < REGION_STATE_COUNT; to++) {
                        for (unsigned actor = 0; actor < REGION_ACTOR_COUNT; actor++) {
                                bool may = region_state_may((enum region_state)from,
                                                            (enum region_state)to,
                                                            (enum region_actor)actor);
                                /* To end a drain at once by hand has no command yet. */
                                if (from == REGION_DRAINING && to == REGION_DRAINED &&
                                    actor == REGION_ACTOR_OPERATOR)
                                        continue;
                                if (may != made[from][to][actor])
                                        fail_msg("%s -> %s by %s: allowed %d, made %d",
                                                 region_state_name((enum region_state)from),
                                                 region_state_name((enum region_state)to),
                                                 region_actor_name((enum region_actor)actor), may,
                                                 made[from][to][actor]);
                        }
                }
        }
}

static void test_laws(void **state)
{
        (void)state;
        for (unsigned n = 0; n < COMBINATIONS; n++) {
                struct failover_input input = nth(n);
                const struct failover_row *row = failover_decide(&input);
                bool moves = row != NULL && !row->refuses;
                enum region_state to = moves ? row->to : input.state;
                bool serves = region_state_serves(input.state);
                bool will = region_state_serves(to);
                if (input.wish != FAILOVER_WISH_NONE)
                        assert_non_null(row); /* an operator always gets an answer */
                else if (input.state == REGION_DRAINED || input.state == REGION_ISOLATED)
                        assert_null(row); /* never by automatism */
                if (serves && !will)
                        assert_false(input.last); /* at least one region stays on */
                if (!serves && will && input.wish == FAILOVER_WISH_NONE) {
                        assert_true(input.caught_up);
                        assert_int_equal(input.verdict, HEALTH_UP);
                        assert_int_not_equal(input.self, HEALTH_SELF_FAILED);
                        if (input.state == REGION_RECOVERING)
                                assert_true(input.held);
                }
                if (input.state == REGION_DOWN && input.wish == FAILOVER_WISH_NONE)
                        assert_false(will); /* through recovering alone */
                if (serves && !input.last && input.wish == FAILOVER_WISH_NONE)
                        assert_int_equal(
                                !will, !failover_routable(input.state, input.verdict, input.self));
        }
}

/* Rows settle: without new facts a region does not move for ever. Recovering
 * and down may not swap. */
static void test_settles(void **state)
{
        (void)state;
        for (unsigned n = 0; n < COMBINATIONS; n++) {
                struct failover_input input = nth(n);
                if (input.wish != FAILOVER_WISH_NONE)
                        continue;
                unsigned moves = 0;
                for (const struct failover_row *row; (row = failover_decide(&input)) != NULL;) {
                        input.state = row->to;
                        assert_in_range(++moves, 1, 3);
                }
        }
}

static void test_routable(void **state)
{
        (void)state;
        assert_true(failover_routable(REGION_ACTIVE, HEALTH_UP, HEALTH_SELF_OK));
        assert_true(failover_routable(REGION_SUSPECT, HEALTH_SUSPECT, HEALTH_SELF_DEGRADED));
        assert_true(failover_routable(REGION_ACTIVE, HEALTH_UNKNOWN, HEALTH_SELF_OK));
        assert_false(failover_routable(REGION_ACTIVE, HEALTH_DOWN, HEALTH_SELF_OK));
        assert_false(failover_routable(REGION_ACTIVE, HEALTH_UP, HEALTH_SELF_FAILED));
        assert_false(failover_routable(REGION_RECOVERING, HEALTH_UP, HEALTH_SELF_OK));
        assert_false(failover_routable(REGION_DRAINING, HEALTH_UP, HEALTH_SELF_OK));
}

static void test_ids(void **state)
{
        (void)state;
        size_t count = 0;
        const struct failover_row *rows = failover_rows(&count);
        for (size_t i = 0; i < count; i++) {
                assert_ptr_equal(failover_row_by_id(bytes_of_str(rows[i].id)), &rows[i]);
                assert_non_null(strstr(rows[i].sentence, "{region}"));
                assert_null(strchr(rows[i].sentence, '|'));
        }
        assert_null(failover_row_by_id(BYTES("")));
        assert_null(failover_row_by_id(BYTES("region")));
}

static void test_sentence(void **state)
{
        (void)state;
        char text[FAILOVER_SENTENCE_SIZE];
        char longest[2000];
        const struct failover_region east = {"us-east", false};
        const struct failover_row *row = failover_row_by_id(BYTES("region-silent"));
        assert_string_equal(failover_sentence(row, east, "2 of 2", NULL, text),
                            "us-east is down (2 of 2): it gets no traffic");
        assert_string_equal(failover_sentence(row, east, NULL, "", text),
                            "us-east is down (unknown): it gets no traffic");
        row = failover_row_by_id(BYTES("region-failed"));
        assert_string_equal(failover_sentence(row, (struct failover_region){"{parts}", false}, NULL,
                                              "edge", text),
                            "{parts} says that it cannot serve (edge down): it gets no traffic");
        memset(longest, 'x', sizeof longest);
        longest[sizeof longest - 1] = 0;
        failover_sentence(row, (struct failover_region){longest, false}, longest, longest, text);
        assert_int_equal(strlen(text), FAILOVER_SENTENCE_SIZE - 1);
}

/* No sentence of a witness promises traffic, and the cause stays in it. */
static void test_sentence_of_a_witness(void **state)
{
        (void)state;
        size_t count;
        char text[FAILOVER_SENTENCE_SIZE];
        const struct failover_row *rows = failover_rows(&count);
        const struct failover_region witness = {"far", true};
        for (size_t i = 0; i < count; i++) {
                (void)failover_sentence(&rows[i], witness, "2 of 2", "edge", text);
                if (strstr(text, "traffic") != NULL && strstr(text, "no traffic") == NULL)
                        fail_msg("%s: %s", rows[i].id, text);
                if (strstr(rows[i].sentence, "{evidence}") != NULL)
                        assert_non_null(strstr(text, "2 of 2"));
        }
        assert_string_equal(failover_sentence(failover_row_by_id(BYTES("region-silent")), witness,
                                              "2 of 2", NULL, text),
                            "far is down (2 of 2): its vote is missing");
}

static void test_page(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        static char page[65536];
        if (page_path == NULL)
                skip();
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        failover_markdown(&buffer);
        FILE *file = fopen(page_path, "rb");
        assert_non_null(file);
        size_t len = fread(page, 1, sizeof page, file);
        (void)fclose(file);
        if (!bytes_equal(buffer_view(&buffer), bytes_of(page, len)))
                fail_msg("%s is not up to date: write it anew with meridian-rows", page_path);
        buffer_fini(&buffer);
}

int main(int argc, char **argv)
{
        page_path = argc > 1 ? argv[1] : NULL;
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_row_or_none),
                cmocka_unit_test(test_moves_are_allowed),
                cmocka_unit_test(test_moves_are_used),
                cmocka_unit_test(test_laws),
                cmocka_unit_test(test_settles),
                cmocka_unit_test(test_routable),
                cmocka_unit_test(test_ids),
                cmocka_unit_test(test_sentence),
                cmocka_unit_test(test_sentence_of_a_witness),
                cmocka_unit_test(test_page),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
