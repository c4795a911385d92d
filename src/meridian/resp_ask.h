/* resp_ask.h - asking a node's lock port over RESP. */
#ifndef MERIDIAN_MERIDIAN_RESP_ASK_H
#define MERIDIAN_MERIDIAN_RESP_ASK_H

#include "meridian/cli.h"

#include <hiredis/hiredis.h>

/* The first node that answers; NULL, said on stderr. */
redisContext *resp_connect(const struct cli *cli);

/* `meridian lock watch`, with what follows it. */
int cli_lock_watch(struct cli *cli, int argc, char **argv);

/* NULL, said on stderr: an error, or the connection broke. */
redisReply *resp_ask(redisContext *context, int argc, const char **argv);

#endif
