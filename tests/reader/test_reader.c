/* The library of programs beside a writer in the same process: what is published is what is read,
 * and without a view, or with the writer gone, the answers are those promised. */
#include "reader/meridian_flags.h"

#include "view_of.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct heap heap;

static void publish(struct view_writer *writer, const char *flag, int down)
{
        struct board_build build;
        struct buffer page;
        buffer_init(&page, &heap);
        board_build_init(&build, &heap);
        assert_int_equal(flag_add(&build, &heap, "checkout", flag), ERR_NONE);
        board_build_add(&build, BOARD_CONFIG, BYTES("size"), BYTES("12"));
        board_build_add(&build, BOARD_SERVICES, BYTES("pay/ap"),
                        BYTES("10.3.0.1:80 region ap-southeast"));
        board_build_add(&build, BOARD_SERVICES, BYTES("pay/eu-1"),
                        BYTES("10.2.0.1:80 region eu-west weight 5"));
        board_build_add(&build, BOARD_SERVICES, BYTES("pay/eu-2"),
                        BYTES("[::1]:81 region eu-west weight 9"));
        board_build_add(&build, BOARD_SERVICES, BYTES("pay/nowhere"), BYTES("10.9.0.1:80"));
        board_build_add(&build, BOARD_SERVICES, BYTES("pay/us"),
                        BYTES("10.1.0.1:80 region us-east"));
        assert_int_equal(board_build_end(&build, 1, &page), ERR_NONE);
        assert_int_equal(view_of(writer, buffer_view(&page), down), ERR_NONE);
        board_build_fini(&build);
        buffer_fini(&page);
}

static void ids(struct meridian_flags *flags, char *text, size_t size)
{
        struct meridian_instance found[8];
        size_t count = meridian_service(flags, "pay", found, COUNT_OF(found));
        text[0] = '\0';
        for (size_t i = 0; i < count; i++)
                snprintf(text + strlen(text), size - strlen(text), "%s%s ", found[i].id,
                         found[i].near ? "" : "!");
}

static void test_reader(void **state)
{
        char folder[] = "/tmp/meridian-test-reader-XXXXXX";
        char path[64];
        char text[64];
        char why[256];
        struct view_writer *writer = NULL;
        const struct meridian_attribute beta = {"plan", "beta"};
        (void)state;
        heap_init(&heap, 0);
        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/view", folder);

        struct meridian_flags *flags = meridian_flags_open(path);
        assert_non_null(flags);
        assert_true(meridian_flag(flags, "checkout", "ann", NULL, 0, true)); /* no view: as asked */
        assert_false(meridian_flag(flags, "checkout", "ann", NULL, 0, false));
        assert_int_equal(meridian_config(flags, "size", text, sizeof text), -1);
        assert_int_equal(meridian_service(flags, "pay", NULL, 0), 0);
        assert_false(meridian_flags_refresh(flags, why, sizeof why));
        assert_non_null(strstr(why, path));

        assert_int_equal(view_writer_open(path, VIEW_GROUP_DEFAULT, &writer, why, sizeof why),
                         ERR_NONE);
        publish(writer, "when region is eu-west and plan is beta on", -1);
        assert_true(meridian_flags_refresh(flags, why, sizeof why));
        assert_false(meridian_flag(flags, "checkout", "ann", NULL, 0, true));
        assert_true(meridian_flag(flags, "checkout", "ann", &beta, 1, false));
        assert_true(meridian_flag(flags, "none", NULL, NULL, 0, true));
        assert_int_equal(meridian_config(flags, "size", text, sizeof text), 2);
        assert_string_equal(text, "12");
        assert_int_equal(meridian_config(flags, "size", text, 2), 2);
        assert_string_equal(text, "1");
        assert_int_equal(meridian_flags_time(flags), 1);

        /* the own region, then by round trip; within a region by weight */
        ids(flags, text, sizeof text);
        assert_string_equal(text, "eu-2 eu-1 us ap nowhere ");
        struct meridian_instance first[1];
        assert_int_equal(meridian_service(flags, "pay", first, 1), 5);
        assert_string_equal(first[0].host, "::1");
        assert_int_equal(first[0].port, 81);
        assert_int_equal(first[0].rtt_us, 0);

        /* the kill switch is seen without a call; what is down goes to the end */
        publish(writer, "when plan is beta on; killed", 1);
        assert_false(meridian_flag(flags, "checkout", "ann", &beta, 1, true));
        ids(flags, text, sizeof text);
        assert_string_equal(text, "us ap nowhere eu-2! eu-1! ");

        /* the writer is gone: the last view stays */
        view_writer_close(writer);
        assert_int_equal(unlink(path), 0);
        assert_false(meridian_flags_refresh(flags, why, sizeof why));
        assert_int_equal(meridian_config(flags, "size", text, sizeof text), 2);
        meridian_flags_close(flags);
        assert_int_equal(rmdir(folder), 0);
        assert_int_equal(heap.used_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_reader)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
