/* lock_watch.c - `meridian lock watch`: what happens to locks, as it happens. Where the connection
 * breaks it goes on at the next node that answers, after the last change that was told: none twice,
 * and none is left out. It ends where changes are forgotten before they could be told. With --copy
 * it tells what one node has kept of another region's locks, whether or not that lives, and ends.
 */
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
        bool copy;
        bool begun; /* `after` is known */
        bool more;
        char after[24];
        long long known, age_ms; /* of the copy */
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
        } else if (strcmp(what, "gap") == 0) {
                printf("gap: what happened after revision %lld and up to %lld is not known\n",
                       token, change->element[4]->integer);
        } else if (token != 0) {
                printf("%s %s %s token %lld\n", what, key, owner, token);
        } else {
                printf("%s %s %s\n", what, key, owner);
        }
}

/* One question. False: the connection broke, or `ret_refused`. */
static bool watch_round(struct watch *watch, redisContext *context, bool *ret_refused)
{
        const char *words[8] = {"LOCK.WATCH", watch->key};
        int count = 2;
        if (watch->prefix)
                words[count++] = "PREFIX";
        if (watch->copy)
                words[count++] = "COPY";
        if (watch->begun) {
                words[count++] = "AFTER";
                words[count++] = watch->after;
        }
        if (watch->begun && !watch->copy) {
                words[count++] = "WAIT";
                words[count++] = ROUND_MS;
        }
        redisReply *reply = redisCommandArgv(context, count, words, NULL);
        if (reply == NULL)
                return false;
        if (reply->type == REDIS_REPLY_ERROR) {
                /* Its region cannot be reached now: asked again. */
                *ret_refused = watch->copy || (strncmp(reply->str, "UNREACHABLE", 11) != 0 &&
                                               strncmp(reply->str, "TIMEOUT", 7) != 0);
                if (*ret_refused)
                        cli_error("%s", reply->str);
                freeReplyObject(reply);
                return false;
        }
        bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == (watch->copy ? 5u : 3u);
        for (size_t i = 0; good && i < reply->element[2]->elements; i++)
                change_print(watch, reply->element[2]->element[i]);
        (void)fflush(stdout);
        if (good) {
                snprintf(watch->after, sizeof watch->after, "%lld", reply->element[0]->integer);
                watch->begun = true;
                watch->more = reply->element[1]->integer != 0;
        }
        if (good && watch->copy) {
                watch->known = reply->element[3]->integer;
                watch->age_ms = reply->element[4]->integer;
        }
        freeReplyObject(reply);
        return good;
}

/* All that one node has kept. */
static int copy_tell(struct cli *cli, struct watch *watch)
{
        bool refused = false;
        redisContext *context = resp_connect(cli);
        if (context == NULL)
                return CLI_FAILED;
        watch->begun = watch->more = true;
        memcpy(watch->after, "0", 2);
        while (watch->more && watch_round(watch, context, &refused))
                continue;
        bool whole = !watch->more;
        if (whole)
                fprintf(stderr, "up to revision %lld; the region was heard %lld ms ago\n",
                        watch->known, watch->age_ms);
        else if (!refused)
                cli_error("the node's answer broke off");
        redisFree(context);
        return whole ? CLI_DONE : CLI_FAILED;
}

int cli_lock_watch(struct cli *cli, int argc, char **argv)
{
        struct watch watch = {.json = cli->json};
        bool refused = false;
        bool known = argc > 0;
        for (int i = 1; i < argc && known; i++) {
                watch.prefix = watch.prefix || strcmp(argv[i], "--prefix") == 0;
                watch.copy = watch.copy || strcmp(argv[i], "--copy") == 0;
                known = strcmp(argv[i], "--prefix") == 0 || strcmp(argv[i], "--copy") == 0;
        }
        if (!known) {
                cli_error("usage: meridian lock watch KEY [--prefix] [--copy]");
                return CLI_USAGE;
        }
        watch.key = argv[0];
        if (watch.copy)
                return copy_tell(cli, &watch);
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
