/* kv.h - values over HTTP, for the commands that are made of them. */
#ifndef MERIDIAN_MERIDIAN_KV_H
#define MERIDIAN_MERIDIAN_KV_H

#include "meridian/cli.h"

/* A path, the middle of it escaped. */
struct kv_path {
        const char *before;
        const char *text;
        const char *after;
};

/* Asks. NULL, said on stderr: refused. */
MUST_USE json_t *kv_get(const struct cli *cli, struct kv_path of);
/* Takes `body`. */
MUST_USE json_t *kv_post(const struct cli *cli, struct kv_path of, json_t *body);

/* `before` and who asks, for the history of what is changed; static, until the next call. */
const char *kv_actor(const char *before);

/* When and by whom a version was written. */
void kv_print_when(const json_t *item);

#endif
