/* The table of rows in full: every combination of inputs has one row or none and every row is of
 * use; then the laws that no row may break, the sentences, and the generated page (its path is the
 * first argument). */
#include "primary/primary.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *page_path;

enum {
        FLAGS = 64,
        COMBINATIONS = FLAGS * PRIMARY_WISH_COUNT * PRIMARY_RANK_COUNT * PRIMARY_MATCH_COUNT *
                       PRIMARY_HOLD_COUNT * PRIMARY_SERVER_COUNT,
};

static struct primary_input nth(unsigned n)
{
        struct primary_input input;
        input.latest = (n & 1) != 0;
        input.loss_over = (n & 2) != 0;
        input.automatic = (n & 4) != 0;
        input.ready = (n & 8) != 0;
        input.following = (n & 16) != 0;
        input.founder = (n & 32) != 0;
        n /= FLAGS;
        input.wish = (enum primary_wish)(n % PRIMARY_WISH_COUNT);
        n /= PRIMARY_WISH_COUNT;
        input.rank = (enum primary_rank)(n % PRIMARY_RANK_COUNT);
        n /= PRIMARY_RANK_COUNT;
        input.match = (enum primary_match)(n % PRIMARY_MATCH_COUNT);
        n /= PRIMARY_MATCH_COUNT;
        input.hold = (enum primary_hold)(n % PRIMARY_HOLD_COUNT);
        n /= PRIMARY_HOLD_COUNT;
        input.server = (enum primary_server)n;
        return input;
}

/* A second reading of the masks, apart from the one under test. */
static bool fits(const struct primary_row *row, const struct primary_input *input)
{
        return row->servers >> input->server & row->holds >> input->hold &
               row->matches >> input->match & row->ranks >> input->rank &
               row->wishes >> input->wish & row->latest >> input->latest &
               row->loss_over >> input->loss_over & row->automatic >> input->automatic &
               row->ready >> input->ready & row->following >> input->following &
               row->founder >> input->founder & 1;
}

static void test_one_row_or_none(void **state)
{
        (void)state;
        size_t count = 0;
        const struct primary_row *rows = primary_rows(&count);
        unsigned used[64] = {0};
        assert_in_range(count, 1, COUNT_OF(used));
        for (unsigned n = 0; n < COMBINATIONS; n++) {
                struct primary_input input = nth(n);
                const struct primary_row *found = NULL;
                for (size_t i = 0; i < count; i++) {
                        if (!fits(&rows[i], &input))
                                continue;
                        if (found != NULL)
                                fail_msg("both %s and %s fit %u", found->id, rows[i].id, n);
                        found = &rows[i];
                        used[i]++;
                }
                assert_ptr_equal(primary_decide(&input), found);
        }
        for (size_t i = 0; i < count; i++) {
                if (used[i] == 0)
                        fail_msg("%s never fits", rows[i].id);
        }
}

static bool writes(enum primary_server server)
{
        return server == PRIMARY_OPEN || server == PRIMARY_HELD;
}

static bool begins_to_write(enum primary_action action)
{
        return action == PRIMARY_DO_OPEN || action == PRIMARY_DO_PROMOTE ||
               action == PRIMARY_DO_INIT;
}

static bool replaces_data(enum primary_action action)
{
        return action == PRIMARY_DO_CLONE || action == PRIMARY_DO_REWIND ||
               action == PRIMARY_DO_REBUILD;
}

#define LAW(condition)                                                                             \
        do {                                                                                       \
                if (!(condition))                                                                  \
                        fail_msg("%s breaks: %s", row->id, #condition);                            \
        } while (0)

static void laws(const struct primary_row *row, const struct primary_input *input)
{
        bool forced = input->wish == PRIMARY_WISH_FORCE;
        if (begins_to_write(row->action)) {
                LAW(input->hold == PRIMARY_MINE);
                LAW(forced || input->rank == PRIMARY_RANK_BEST || input->server == PRIMARY_HELD ||
                    input->rank == PRIMARY_RANK_EMPTY);
        }
        if (row->action == PRIMARY_DO_PROMOTE) {
                LAW(input->server == PRIMARY_STANDBY);
                LAW(forced || !input->loss_over);
        }
        if (row->action == PRIMARY_DO_INIT)
                LAW(input->server == PRIMARY_ABSENT && input->rank == PRIMARY_RANK_EMPTY &&
                    input->founder);
        /* a timeline goes on only under the lease that it was begun under, and never by force */
        if (row->action == PRIMARY_DO_OPEN)
                LAW(input->server == PRIMARY_HELD);
        if (row->action == PRIMARY_DO_START && input->hold == PRIMARY_MINE &&
            input->server != PRIMARY_ASLEEP)
                LAW(forced || (input->rank == PRIMARY_RANK_BEST && input->latest));
        if (row->action == PRIMARY_DO_CLAIM) {
                /* who is to be handed the lease waits for it; it looks again when it has it */
                if (input->hold == PRIMARY_OTHER) {
                        LAW(input->server == PRIMARY_STANDBY && input->following &&
                            input->wish == PRIMARY_WISH_HERE &&
                            input->match == PRIMARY_MATCH_PREFIX);
                        return;
                }
                LAW(input->hold == PRIMARY_FREE);
                LAW(forced || input->rank == PRIMARY_RANK_BEST ||
                    input->rank == PRIMARY_RANK_EMPTY);
                LAW(forced || !input->loss_over || input->server != PRIMARY_STANDBY);
                LAW(input->automatic || input->wish == PRIMARY_WISH_HERE || forced ||
                    input->server != PRIMARY_STANDBY);
        }
        if (row->action == PRIMARY_DO_RELEASE)
                LAW(input->hold == PRIMARY_MINE && input->server != PRIMARY_OPEN);
        if (replaces_data(row->action)) {
                LAW(input->hold == PRIMARY_OTHER);
                LAW(!writes(input->server));
                LAW(row->action == PRIMARY_DO_CLONE || input->match == PRIMARY_MATCH_DIVERGED ||
                    input->match == PRIMARY_MATCH_BROKEN);
                LAW(row->action != PRIMARY_DO_CLONE || input->server == PRIMARY_ABSENT);
        }
        if (row->action == PRIMARY_DO_FENCE)
                LAW(writes(input->server) && input->hold != PRIMARY_MINE);
        LAW(row->action != PRIMARY_DO_NOTHING || row->sentence != NULL);
}

static void test_laws(void **state)
{
        (void)state;
        for (unsigned n = 0; n < COMBINATIONS; n++) {
                struct primary_input input = nth(n);
                const struct primary_row *row = primary_decide(&input);
                if (writes(input.server) && input.hold != PRIMARY_MINE &&
                    (row == NULL || row->action != PRIMARY_DO_FENCE))
                        fail_msg("combination %u writes without a lease", n);
                if (row != NULL)
                        laws(row, &input);
        }
}

/* A server that is well is left alone. */
static void test_well(void **state)
{
        (void)state;
        struct primary_input holder = {.server = PRIMARY_OPEN,
                                       .hold = PRIMARY_MINE,
                                       .rank = PRIMARY_RANK_BEST,
                                       .latest = true,
                                       .automatic = true};
        struct primary_input standby = {.server = PRIMARY_STANDBY,
                                        .hold = PRIMARY_OTHER,
                                        .match = PRIMARY_MATCH_PREFIX,
                                        .rank = PRIMARY_RANK_BEHIND,
                                        .following = true,
                                        .automatic = true};
        assert_null(primary_decide(&holder));
        assert_null(primary_decide(&standby));
}

/* Who was primary and claims its lease again goes the way of every other: it starts as a standby,
 * and is promoted. */
static void test_return(void **state)
{
        (void)state;
        struct primary_input input = {
                .hold = PRIMARY_FREE, .rank = PRIMARY_RANK_BEST, .latest = true};
        static const enum primary_server former[] = {PRIMARY_CLOSED, PRIMARY_FENCED};
        for (size_t i = 0; i < COUNT_OF(former); i++) {
                input.server = former[i];
                input.hold = PRIMARY_FREE;
                assert_int_equal(primary_decide(&input)->action, PRIMARY_DO_CLAIM);
                input.hold = PRIMARY_MINE;
                assert_int_equal(primary_decide(&input)->action, PRIMARY_DO_START);
                input.server = PRIMARY_STANDBY;
                assert_int_equal(primary_decide(&input)->action, PRIMARY_DO_PROMOTE);
        }
}

static void test_sentences(void **state)
{
        (void)state;
        size_t count = 0;
        char text[PRIMARY_SENTENCE_SIZE];
        const struct primary_row *rows = primary_rows(&count);
        for (size_t i = 0; i < count; i++) {
                primary_sentence(&rows[i], "us-east-1", "eu-west-1", 4096, text);
                assert_int_equal(rows[i].sentence == NULL, text[0] == 0);
                assert_null(strchr(text, '{'));
                assert_ptr_equal(primary_row_by_id(bytes_of_str(rows[i].id)), &rows[i]);
        }
        const struct primary_row *row = primary_row_by_id(bytes_of_str("holder-loses"));
        assert_string_equal(primary_sentence(row, "a", NULL, UINT64_MAX, text),
                            "a gives the lease back: nobody knows how much would be lost, more "
                            "than the limit");
        char name[2 * PRIMARY_SENTENCE_SIZE];
        memset(name, 'n', sizeof(name));
        name[sizeof(name) - 1] = 0;
        assert_int_equal(strlen(primary_sentence(row, name, NULL, 0, text)),
                         PRIMARY_SENTENCE_SIZE - 1);
        assert_null(primary_row_by_id(bytes_of_str("no such row")));
}

static void test_page(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        primary_markdown(&buffer);
        struct bytes text = buffer_view(&buffer);
        char *page = malloc(text.len + 2);
        assert_non_null(page);
        FILE *file = fopen(page_path, "r");
        if (file == NULL)
                fail_msg("%s cannot be read", page_path);
        size_t len = fread(page, 1, text.len + 1, file);
        fclose(file);
        if (len != text.len || memcmp(page, text.ptr, len) != 0)
                fail_msg("%s is old: write it anew with meridian-primary-rows", page_path);
        free(page);
        buffer_fini(&buffer);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_row_or_none),
                cmocka_unit_test(test_laws),
                cmocka_unit_test(test_well),
                cmocka_unit_test(test_return),
                cmocka_unit_test(test_sentences),
                cmocka_unit_test(test_page),
        };
        page_path = argc > 1 ? argv[1] : "docs/primary-rows.md";
        return cmocka_run_group_tests(tests, NULL, NULL);
}
