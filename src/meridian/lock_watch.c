/* lock_watch.c - `meridian lock watch`: what happens to locks, as it happens. Where the connection
 * breaks it goes on at the next node that answers, after the last change that was told: none twice,
 * and none is left out. It ends where changes are forgotten before they could be told. */
#include "meridian/cli.h"
#include "meridian/resp_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROUND_MS  "5000"
#define CONNECT_S 30 /* without a node that answers: the end */

struct watch {
        const char *key;
        bool prefix;
        bool json;
        bool begun; /* `after` is known */
        char after[24];
};

static const char *text_of(const redisReply *reply)
{
        return reply->str == NULL ? "" : reply->str;
}

static void change_print(const struct watch *watch, const redisReply *change)
{
        if (change->type != REDIS_REPLY_ARRAY || change->elements < 5)
                return;
        const char *what = text_of(change->element[0]);
        const char *key = text_of(change->element[1]), *owner = text_of(change->element[2]);
        long long token = change->element[3]->integer;
        if (watch->json) {
                json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:I}", "change", what, "key", key,
                                         "owner", owner, "token", (json_int_t)token, "revision",
                                         (json_int_t)change->element[4]->integer);
                cli_print_json_line(json);
                json_decref(json);
        } else if (token != 0) {
                printf("%s %s %s token %lld\n", what, key, owner, token);
        } else {
                printf("%s %s %s\n", what, key, owner);
        }
}

/* One question. False: the connection broke, or `ret_refused`. */
static bool watch_round(struct watch *watch, redisContext *context, bool *ret_refused)
{
        const char *words[7] = {"LOCK.WATCH", watch->key};
        int count = 2;
        if (watch->prefix)
                words[count++] = "PREFIX";
        if (watch->begun) {
                words[count++] = "AFTER";
                words[count++] = watch->after;
                words[count++] = "WAIT";
                words[count++] = ROUND_MS;
        }
        redisReply *reply = redisCommandArgv(context, count, words, NULL);
        if (reply == NULL)
                return false;
        if (reply->type == REDIS_REPLY_ERROR) {
                /* Its region cannot be reached now: asked again. */
                *ret_refused = strncmp(reply->str, "UNREACHABLE", 11) != 0 &&
                               strncmp(reply->str, "TIMEOUT", 7) != 0;
                if (*ret_refused)
                        cli_error("%s", reply->str);
                freeReplyObject(reply);
                return false;
        }
        bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == 3;
        for (size_t i = 0; good && i < reply->element[2]->elements; i++)
                change_print(watch, reply->element[2]->element[i]);
        (void)fflush(stdout);
        if (good) {
                snprintf(watch->after, sizeof watch->after, "%lld", reply->element[0]->integer);
                watch->begun = true;
        }
        freeReplyObject(reply);
        return good;
}

int cli_lock_watch(struct cli *cli, int argc, char **argv)
{
        struct watch watch = {.json = cli->json};
        bool refused = false;
        if (argc == 2 && strcmp(argv[1], "--prefix") == 0)
                watch.prefix = true;
        else if (argc != 1) {
                cli_error("usage: meridian lock watch KEY [--prefix]");
                return CLI_USAGE;
        }
        watch.key = argv[0];
        for (int tries = 0; tries < CONNECT_S && !refused; tries++) {
                redisContext *context = resp_connect(cli);
                if (context == NULL && !watch.begun)
                        return CLI_FAILED;
                while (context != NULL && watch_round(&watch, context, &refused))
                        tries = 0;
                if (context != NULL)
                        redisFree(context);
                if (!refused)
                        (void)sleep(1);
        }
        return refused ? CLI_FAILED : cli_error("no node answers any more");
}
