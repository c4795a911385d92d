/* A page of what the global group holds. What cannot be read is left out, so that one bad value
 * does not take the others away, and is told. */
#include "board/board.h"
#include "kv/kv.h"

#include <stdio.h>

struct collecting {
        struct board_build build;
        struct buffer compiled;
        char *refused;
};

static void refuse(const struct collecting *collecting, struct bytes key, const char *why)
{
        if (collecting->refused[0] == '\0')
                (void)snprintf(collecting->refused, FLAG_WHY_SIZE, "%.*s: %s",
                               (int)(key.len < 64 ? key.len : 64), (const char *)key.ptr, why);
}

static void flag_add(struct collecting *collecting, struct bytes name, const struct kv_item *item)
{
        char why[FLAG_WHY_SIZE] = "";
        buffer_reset(&collecting->compiled);
        if (name.len > BOARD_NAME_MAX)
                refuse(collecting, item->key, "the name is too long");
        else if (flag_compile(name, item->value, &collecting->compiled, why) == ERR_NONE)
                board_build_add(&collecting->build, BOARD_FLAGS, name,
                                buffer_view(&collecting->compiled));
        else
                refuse(collecting, item->key, why);
}

static void config_add(struct collecting *collecting, struct bytes name, const struct kv_item *item)
{
        board_build_add(&collecting->build, BOARD_CONFIG, name, item->value);
}

static void service_add(struct collecting *collecting, struct bytes name,
                        const struct kv_item *item)
{
        struct board_service service;
        if (board_service_parse(name, item->value, &service) == ERR_NONE)
                board_build_add(&collecting->build, BOARD_SERVICES, name, item->value);
        else
                refuse(collecting, item->key,
                       "want NAME/ID and ADDRESS:PORT [region R] [weight N]");
}

static void collect(struct collecting *collecting, const struct kv *kv, struct bytes prefix,
                    void (*add)(struct collecting *collecting, struct bytes name,
                                const struct kv_item *item))
{
        struct bytes after = {0};
        struct kv_item item;
        while (kv_next(kv, prefix, after, &item)) {
                struct bytes name = bytes_of(item.key.ptr + prefix.len, item.key.len - prefix.len);
                after = item.key;
                if (name.len > 0)
                        add(collecting, name, &item);
        }
}

/* Flags come first: what is cut is the configuration, whose values are the largest. */
enum err board_collect(const struct kv *kv, struct heap *heap, struct buffer *out, bool *ret_cut,
                       char refused[FLAG_WHY_SIZE])
{
        struct collecting collecting = {.refused = refused};
        refused[0] = '\0';
        board_build_init(&collecting.build, heap);
        buffer_init(&collecting.compiled, heap);
        collect(&collecting, kv, BYTES(BOARD_FLAG_PREFIX), flag_add);
        collect(&collecting, kv, BYTES(BOARD_SERVICE_PREFIX), service_add);
        collect(&collecting, kv, BYTES(BOARD_CONFIG_PREFIX), config_add);
        enum err err = board_build_end(&collecting.build, kv_revision(kv), out);
        *ret_cut = collecting.build.cut;
        buffer_fini(&collecting.compiled);
        board_build_fini(&collecting.build);
        return err;
}
