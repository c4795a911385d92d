/* reader.c - the library of programs: the view's reader with names that fit a program outside of
 * this repository. Nothing here fails but for memory at the opening: what is not there is said. */
#include "reader/reader.h"

#include "view/view.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define ATTRIBUTES_MAX 32

#define EXPORT         __attribute__((visibility("default")))

struct meridian_flags {
        struct view_reader *reader;
};

/* Threads get a shard of their own, by turns. */
static unsigned shard(void)
{
        static atomic_uint last;
        static _Thread_local unsigned own;
        if (own == 0)
                own = atomic_fetch_add(&last, 1u) + 1;
        return own;
}

EXPORT struct meridian_flags *meridian_flags_open(const char *path)
{
        struct meridian_flags *flags = calloc(1, sizeof *flags);
        if (flags == NULL)
                return NULL;
        flags->reader = view_reader_new(path);
        if (flags->reader == NULL) {
                free(flags);
                return NULL;
        }
        (void)meridian_flags_refresh(flags, NULL, 0);
        return flags;
}

EXPORT void meridian_flags_close(struct meridian_flags *flags)
{
        if (flags == NULL)
                return;
        view_reader_free(flags->reader);
        free(flags);
}

EXPORT bool meridian_flags_refresh(struct meridian_flags *flags, char *why, size_t why_size)
{
        return view_reader_refresh(flags->reader, why, why_size) == ERR_NONE;
}

static struct bytes text_of(const char *text)
{
        return bytes_of_str(text == NULL ? "" : text);
}

static bool evaluate(const struct view *view, struct bytes compiled, const char *user,
                     const struct meridian_attribute *attributes, size_t count)
{
        struct flag_attribute own[ATTRIBUTES_MAX];
        struct flag_client client = {.user = text_of(user), .attributes = own};
        client.attribute_count = count < ATTRIBUTES_MAX ? count : ATTRIBUTES_MAX;
        for (size_t i = 0; i < client.attribute_count; i++)
                own[i] = (struct flag_attribute){text_of(attributes[i].name),
                                                 text_of(attributes[i].value)};
        if (view->self_index >= 0)
                client.region = bytes_of_str(view->regions[view->self_index].name);
        return flag_evaluate(compiled, &client).on;
}

EXPORT bool meridian_flag(struct meridian_flags *flags, const char *name, const char *user,
                          const struct meridian_attribute *attributes, size_t attribute_count,
                          bool otherwise)
{
        struct bytes compiled;
        unsigned own = shard();
        const struct view *view = view_enter(flags->reader, own);
        if (view == NULL)
                return otherwise;
        bool on = otherwise;
        if (board_find(&view->board, BOARD_FLAGS, bytes_of_str(name), &compiled))
                on = evaluate(view, compiled, user, attributes, attribute_count);
        view_leave(flags->reader, own, view);
        return on;
}

EXPORT long meridian_config(struct meridian_flags *flags, const char *name, char *value,
                            size_t size)
{
        struct bytes found;
        unsigned own = shard();
        long len = -1;
        const struct view *view = view_enter(flags->reader, own);
        if (view == NULL)
                return -1;
        if (board_find(&view->board, BOARD_CONFIG, bytes_of_str(name), &found)) {
                size_t copied = size == 0 ? 0 : (found.len < size ? found.len : size - 1);
                if (copied > 0)
                        memcpy(value, found.ptr, copied);
                if (size > 0)
                        value[copied] = '\0';
                len = (long)found.len;
        }
        view_leave(flags->reader, own, view);
        return len;
}

static void instance_fill(const struct view_instance *from, struct meridian_instance *to)
{
        *to = (struct meridian_instance){
                .port = from->service.port,
                .weight = from->service.weight,
                .near = from->routable,
                .rtt_us = from->rtt_us,
        };
        (void)snprintf(to->id, sizeof to->id, "%.*s", BYTES_ARGS(from->service.id));
        (void)inet_ntop(from->service.family == 4 ? AF_INET : AF_INET6, from->service.address,
                        to->host, sizeof to->host);
}

EXPORT size_t meridian_service(struct meridian_flags *flags, const char *name,
                               struct meridian_instance *instances, size_t size)
{
        struct view_instance found[VIEW_INSTANCES_MAX];
        unsigned own = shard();
        const struct view *view = view_enter(flags->reader, own);
        if (view == NULL)
                return 0;
        size_t count = view_nearest(view, bytes_of_str(name), NULL, found, VIEW_INSTANCES_MAX);
        for (size_t i = 0; i < count && i < size; i++)
                instance_fill(&found[i], &instances[i]);
        view_leave(flags->reader, own, view);
        return count;
}

EXPORT uint64_t meridian_flags_time(struct meridian_flags *flags)
{
        unsigned own = shard();
        const struct view *view = view_enter(flags->reader, own);
        if (view == NULL)
                return 0;
        uint64_t wall_us = view->wall_us;
        view_leave(flags->reader, own, view);
        return wall_us;
}
