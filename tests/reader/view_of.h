/* A view with three regions and some flags, for programs that read it. */
#ifndef TESTS_READER_VIEW_OF_H
#define TESTS_READER_VIEW_OF_H

#include "view/view.h"

static const char view_document[] =
        "cluster = test; epoch = 7;\n"
        "region us-east { id = 1; latitude = 39.04; longitude = -77.49; a = [\"127.10.0.1\"]\n"
        "  node us-east-1 { id = 1; link = \"127.10.0.1:7401\" } }\n"
        "region eu-west { id = 2; latitude = 53.35; longitude = -6.26; a = [\"127.20.0.1\"]\n"
        "  node eu-west-1 { id = 2; link = \"127.20.0.1:7401\" } }\n"
        "region ap-southeast { id = 3; latitude = 1.35; longitude = 103.8; a = [\"127.30.0.1\"]\n"
        "  node ap-southeast-1 { id = 3; link = \"127.30.0.1:7401\" } }\n"
        "zone example.test { ttl = 30s\n  name www { policy = nearest } }\n";

/* `down`: a region that gets no traffic, from 0; -1: none. */
static inline enum err view_of(struct view_writer *writer, struct bytes page, int down)
{
        static struct topology topology;
        struct topology_error error;
        struct view_region_now regions[TOPOLOGY_REGIONS_MAX];
        static const uint32_t rtts[] = {70000, 0, 180000};
        if (!topology_parse(bytes_of_str(view_document), &topology, &error))
                return ERR_MALFORMED;
        for (int i = 0; i < 3; i++)
                regions[i] = (struct view_region_now){.state = REGION_ACTIVE,
                                                      .routable = i != down,
                                                      .load_per_mille = ROUTING_LOAD_UNKNOWN,
                                                      .rtt_us = rtts[i]};
        struct view_content content = {2, 1, &topology, regions, page};
        return view_publish(writer, &content);
}

/* Adds a flag by its text. */
static inline enum err flag_add(struct board_build *build, struct heap *heap, const char *name,
                                const char *text)
{
        struct buffer compiled;
        buffer_init(&compiled, heap);
        enum err err = flag_compile(bytes_of_str(name), bytes_of_str(text), &compiled, NULL);
        if (err == ERR_NONE)
                board_build_add(build, BOARD_FLAGS, bytes_of_str(name), buffer_view(&compiled));
        buffer_fini(&compiled);
        return err;
}

#endif
