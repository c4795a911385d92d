/* What a program pays for a flag: CPU nanoseconds an evaluation, with 1,000 flags in the view. */
#include "reader/meridian_flags.h"

#include "../../tests/reader/view_of.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
        FLAGS = 1000,
        CALLS = 2000000,
};

static enum err publish(struct view_writer *writer)
{
        struct heap heap;
        struct board_build build;
        struct buffer page;
        char name[32];
        heap_init(&heap, 0);
        buffer_init(&page, &heap);
        board_build_init(&build, &heap);
        enum err err = ERR_NONE;
        for (int i = 0; i < FLAGS && err == ERR_NONE; i++) {
                (void)snprintf(name, sizeof name, "flag-%04d", i);
                err = flag_add(&build, &heap, name,
                               "when plan is beta on; when region is ap-southeast 20%; "
                               "otherwise 2.5%");
        }
        if (err == ERR_NONE)
                err = board_build_end(&build, 1, &page);
        if (err == ERR_NONE)
                err = view_of(writer, buffer_view(&page), -1);
        board_build_fini(&build);
        buffer_fini(&page);
        return err;
}

static double cpu_ns(void)
{
        struct timespec now;
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(void)
{
        char folder[] = "/tmp/meridian-bench-flags-XXXXXX";
        char path[64];
        char name[32];
        char user[32];
        char why[256] = "";
        unsigned on = 0;
        struct view_writer *writer = NULL;
        const struct meridian_attribute free_plan = {"plan", "free"};
        if (mkdtemp(folder) == NULL)
                return 1;
        (void)snprintf(path, sizeof path, "%s/view", folder);
        if (view_writer_open(path, VIEW_GROUP_DEFAULT, &writer, why, sizeof why) != ERR_NONE ||
            publish(writer) != ERR_NONE) {
                (void)fprintf(stderr, "no view: %s\n", why);
                return 1;
        }
        struct meridian_flags *flags = meridian_flags_open(path);
        double begin = cpu_ns();
        for (int i = 0; i < CALLS; i++) {
                (void)snprintf(name, sizeof name, "flag-%04d", i % FLAGS);
                (void)snprintf(user, sizeof user, "user-%d", i);
        }
        double made = cpu_ns();
        for (int i = 0; i < CALLS; i++) {
                (void)snprintf(name, sizeof name, "flag-%04d", i % FLAGS);
                (void)snprintf(user, sizeof user, "user-%d", i);
                on += meridian_flag(flags, name, user, &free_plan, 1, false);
        }
        double end = cpu_ns();
        (void)printf("{\"flags\": %d, \"calls\": %d, \"on_percent\": %.2f, \"ns\": %.0f}\n", FLAGS,
                     CALLS, 100.0 * on / CALLS, ((end - made) - (made - begin)) / CALLS);
        meridian_flags_close(flags);
        view_writer_close(writer);
        (void)unlink(path);
        (void)rmdir(folder);
        return 0;
}
