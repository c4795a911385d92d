/* view_make.h - a decoded view for unit tests, by way of a file: topology and what differs. */
#ifndef MERIDIAN_TESTS_PLUGINS_VIEW_MAKE_H
#define MERIDIAN_TESTS_PLUGINS_VIEW_MAKE_H

#include "view/view.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct topology view_topology;
static struct view_region_now view_regions[TOPOLOGY_REGIONS_MAX];
static struct view_writer *view_writer;
static struct view_reader *view_reader;
static char view_folder[] = "/tmp/meridian-test-plugin-XXXXXX";
static char view_path[64];

static inline int view_setup(const char *document)
{
        struct topology_error error;
        char text[512];
        if (!topology_parse(bytes_of_str(document), &view_topology, &error)) {
                (void)fprintf(stderr, "%s\n", topology_error_text(&error, text, sizeof text));
                return -1;
        }
        if (mkdtemp(view_folder) == NULL)
                return -1;
        (void)snprintf(view_path, sizeof view_path, "%s/view", view_folder);
        view_reader = view_reader_new(view_path);
        return view_writer_open(view_path, VIEW_GROUP_DEFAULT, &view_writer, text, sizeof text) ==
                               ERR_NONE
                       ? 0
                       : -1;
}

static inline int view_teardown(void)
{
        view_writer_close(view_writer);
        view_reader_free(view_reader);
        (void)unlink(view_path);
        return rmdir(view_folder);
}

/* All well; change view_regions and then call view_made. */
static inline void view_reset(void)
{
        for (uint32_t i = 0; i < view_topology.region_count; i++)
                view_regions[i] = (struct view_region_now){
                        .state = REGION_ACTIVE,
                        .routable = true,
                        .rtt_us = (i + 1) * 1000,
                        .backends_healthy = UINT64_MAX,
                };
}

static inline void view_down(uint32_t index)
{
        view_regions[index].state = REGION_DOWN;
        view_regions[index].routable = false;
}

/* The view, held until view_done. */
static inline const struct view *view_made(uint8_t self)
{
        struct view_content content = {self, 1, &view_topology, view_regions, {0}};
        assert_int_equal(view_publish(view_writer, &content), ERR_NONE);
        assert_int_equal(view_reader_refresh(view_reader, NULL, 0), ERR_NONE);
        const struct view *view = view_enter(view_reader, 0);
        assert_non_null(view);
        return view;
}

static inline void view_done(const struct view *view)
{
        view_leave(view_reader, 0, view);
}

#endif
