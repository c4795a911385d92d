/* service.c - `meridian service ...`: instances that are registered as long as somebody keeps them.
 * Registering opens a session, binds the instance to it and keeps the session alive until the
 * command is ended; whoever does not come back in time is taken out. */
#include "board/board.h"
#include "meridian/cli.h"
#include "meridian/kv.h"
#include "meridian/resp_ask.h"
#include "term/term.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TTL_MS_DEFAULT 10000
#define TTL_MS_MIN     1000
#define SESSION_KEY    "global:"

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
        (void)number;
        ended = 1;
}

static int list(struct cli *cli)
{
        size_t i;
        json_t *item;
        json_t *json = kv_get(cli, (struct kv_path){"/services/", cli->argv[1], ""});
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json) {
                cli_print_json(json);
                json_decref(json);
                return CLI_DONE;
        }
        json_array_foreach(json_object_get(json, "instances"), i, item)
        {
                const char *region = json_string_value(json_object_get(item, "region"));
                bool routable = json_is_true(json_object_get(item, "routable"));
                term_cell(TERM_BOLD, json_string_value(json_object_get(item, "id")), 20);
                printf("%s:%" JSON_INTEGER_FORMAT "  %s%s\n",
                       json_string_value(json_object_get(item, "host")),
                       json_integer_value(json_object_get(item, "port")),
                       region == NULL ? "" : region,
                       routable ? "" : " (its region gets no traffic)");
        }
        json_decref(json);
        return CLI_DONE;
}

/* One registration: the session, and the instance in it. */
struct registration {
        char key[256];
        char owner[160];
        char value[256];
        char ttl[32];
        char session[32]; /* empty: none */
};

static bool session_open(redisContext *context, struct registration *of)
{
        const char *open[] = {"SESSION.OPEN", SESSION_KEY, of->owner, of->ttl};
        redisReply *reply = resp_ask(context, 4, open);
        if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
                freeReplyObject(reply);
                return false;
        }
        (void)snprintf(of->session, sizeof of->session, "%lld", reply->element[0]->integer);
        freeReplyObject(reply);
        const char *put[] = {"KV.PUT", of->key,   of->value, "SESSION", of->session,
                             "OWNER",  of->owner, "ACTOR",   of->owner};
        reply = resp_ask(context, (int)COUNT_OF(put), put);
        bool done = reply != NULL;
        freeReplyObject(reply);
        return done;
}

static bool session_say(redisContext *context, struct registration *of, const char *word)
{
        const char *words[] = {word, SESSION_KEY, of->owner, of->session};
        redisReply *reply = resp_ask(context, 4, words);
        bool done = reply != NULL;
        freeReplyObject(reply);
        return done;
}

static void tell(const struct cli *cli, const struct registration *of, const char *what)
{
        json_t *json = cli->json ? json_pack("{s:s, s:s, s:s}", "change", what, "key", of->key,
                                             "value", of->value)
                                 : NULL;
        if (json != NULL)
                cli_print_json_line(json);
        else
                printf("%s %s as %s\n", what, of->key, of->value);
        (void)fflush(stdout);
        json_decref(json);
}

/* Keeps it until the command is ended. A session that was lost is opened again. */
static void keep(const struct cli *cli, struct registration *of, uint64_t ttl_ms)
{
        redisContext *context = NULL;
        while (ended == 0) {
                if (context == NULL)
                        context = resp_connect(cli);
                bool good = context != NULL && of->session[0] != '\0' &&
                            session_say(context, of, "SESSION.KEEP");
                if (!good && context != NULL && context->err == 0) {
                        good = session_open(context, of);
                        if (good)
                                tell(cli, of, "registered");
                }
                if (!good && context != NULL && context->err != 0) {
                        redisFree(context);
                        context = NULL;
                }
                (void)usleep((useconds_t)(good ? ttl_ms / 3 : ttl_ms / 10) * 1000);
        }
        if (context != NULL && of->session[0] != '\0' && session_say(context, of, "SESSION.CLOSE"))
                tell(cli, of, "taken out");
        if (context != NULL)
                redisFree(context);
}

static bool option_take(const struct cli *cli, int at, struct registration *of, uint64_t *ttl_ms)
{
        const char *name = cli->argv[at];
        const char *value = at + 1 < cli->argc ? cli->argv[at + 1] : "";
        size_t len = strlen(of->value);
        if (strcmp(name, "--ttl") == 0)
                return cli_duration(value, ttl_ms) && *ttl_ms >= TTL_MS_MIN;
        if (strcmp(name, "--weight") != 0)
                return false;
        (void)snprintf(of->value + len, sizeof of->value - len, " weight %s", value);
        return true;
}

static int enroll(struct cli *cli)
{
        struct registration of = {0};
        struct board_service parsed;
        uint64_t ttl_ms = TTL_MS_DEFAULT;
        (void)snprintf(of.key, sizeof of.key, BOARD_SERVICE_PREFIX "%s/%s", cli->argv[1],
                       cli->argv[2]);
        (void)snprintf(of.owner, sizeof of.owner, "service %.60s/%.60s", cli->argv[1],
                       cli->argv[2]);
        (void)snprintf(of.value, sizeof of.value, "%.100s%s%.64s", cli->argv[3],
                       cli->region == NULL ? "" : " region ",
                       cli->region == NULL ? "" : cli->region);
        for (int i = 4; i < cli->argc; i += 2) {
                if (!option_take(cli, i, &of, &ttl_ms))
                        return CLI_USAGE;
        }
        if (board_service_parse(bytes_of_str(of.key + strlen(BOARD_SERVICE_PREFIX)),
                                bytes_of_str(of.value), &parsed) != ERR_NONE) {
                cli_error("names are labels of a-z, 0-9 and '-'; an address is HOST:PORT");
                return CLI_USAGE;
        }
        (void)snprintf(of.ttl, sizeof of.ttl, "%" PRIu64, ttl_ms);
        (void)signal(SIGINT, on_signal);
        (void)signal(SIGTERM, on_signal);
        keep(cli, &of, ttl_ms);
        return CLI_DONE;
}

int cli_service(struct cli *cli)
{
        int status = CLI_USAGE;
        if (strcmp(cli->argv[0], "list") == 0 && cli->argc == 2)
                status = list(cli);
        else if (strcmp(cli->argv[0], "register") == 0 && cli->argc >= 4 && cli->argc <= 8)
                status = enroll(cli);
        if (status == CLI_USAGE)
                cli_error("usage: meridian service list NAME | register NAME ID HOST:PORT "
                          "[--region R] [--weight N] [--ttl TIME]");
        return status;
}
