/* locks.c - `meridian lock ...`: the lock service over RESP, as any Redis client would use it. */
#include "lock/lock.h"
#include "meridian/cli.h"
#include "meridian/lock_options.h"
#include "meridian/resp_ask.h"
#include "term/term.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

struct lock_row {
        const char *name;
        const char *usage;
        int args_min; /* after the name */
        int args_max;
        int (*run)(const struct cli *cli, redisContext *context, int argc, char **argv);
};

redisReply *resp_ask(redisContext *context, int argc, const char **argv)
{
        redisReply *reply = redisCommandArgv(context, argc, argv, NULL);
        if (reply == NULL) {
                cli_error("the connection broke: %s", context->errstr);
                return NULL;
        }
        if (reply->type == REDIS_REPLY_ERROR) {
                cli_error("%s", reply->str);
                freeReplyObject(reply);
                return NULL;
        }
        return reply;
}

static bool milliseconds(const char *text, char *out, size_t size)
{
        uint64_t ms = 0;
        if (!cli_duration(text, &ms)) {
                cli_error("\"%s\" is no time: write 30s, 500ms or 2m", text);
                return false;
        }
        snprintf(out, size, "%" PRIu64, ms);
        return true;
}

struct words {
        const char *items[16 + 2 * LOCK_SET_MAX];
        int count;
        char numbers[6][24];
        int number_count;
};

static void word(struct words *words, const char *text)
{
        words->items[words->count++] = text;
}

/* Nothing where the value is 0: not said. */
static void word_number(struct words *words, const char *name, uint64_t value)
{
        char *text = words->numbers[words->number_count++];
        snprintf(text, sizeof words->numbers[0], "%" PRIu64, value);
        if (value == 0)
                return;
        word(words, name);
        word(words, text);
}

/* What was done, for programs: an object of its own, which is taken. Names are those of HTTP. */
static void json_say(json_t *json)
{
        cli_print_json(json);
        json_decref(json);
}

/* A number that was given as a word; where it is none the node has refused it before. */
static json_int_t number_of(const char *text)
{
        return (json_int_t)strtoull(text, NULL, 10);
}

/* Takes "--also KEY" out of the arguments; how many are left, -1: there are too many keys. */
static int also_take(int argc, char **argv, struct words *words)
{
        int left = 0, keys = 1;
        for (int i = 0; i < argc; i++) {
                if (strcmp(argv[i], "--also") != 0 || i + 1 >= argc) {
                        argv[left++] = argv[i];
                        continue;
                }
                if (++keys > LOCK_SET_MAX)
                        return -1;
                word(words, "ALSO");
                word(words, argv[++i]);
        }
        return left;
}

static int lock_acquire(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        char ttl[32];
        int at = 3;
        struct lock_options options = {0};
        struct words words = {.count = 0};
        const char *const first[] = {"LOCK.ACQUIRE", argv[0], argv[1], ttl};
        for (size_t i = 0; i < COUNT_OF(first); i++)
                word(&words, first[i]);
        argc = also_take(argc, argv, &words);
        if (argc < 0)
                cli_error("at most %d locks are asked for at once", LOCK_SET_MAX);
        if (argc < 3 || !milliseconds(argv[2], ttl, sizeof ttl) ||
            !lock_options_read(&options, argc, argv, &at) || at < argc)
                return CLI_USAGE;
        bool several = words.count > (int)COUNT_OF(first);
        word_number(&words, "WAIT", options.wait_ms);
        word_number(&words, "SLOTS", options.slots);
        word_number(&words, "DELAY", options.delay_ms);
        word_number(&words, "SESSION", options.session);
        if (options.shared)
                word(&words, "SHARED");
        if (options.detect)
                word(&words, "DETECT");
        redisReply *reply = resp_ask(context, words.count, words.items);
        if (reply == NULL)
                return CLI_FAILED;
        int status = CLI_FAILED;
        bool got = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2;
        if (got && cli->json) {
                json_say(json_pack("{s:s, s:s, s:I, s:I}", "key", argv[0], "owner", argv[1],
                                   "token", (json_int_t)reply->element[0]->integer, "ttl_ms",
                                   (json_int_t)reply->element[1]->integer));
                status = CLI_DONE;
        } else if (got) {
                printf("acquired %s%s: token %lld, for %lld ms\n", argv[0],
                       several ? " and the others" : "", reply->element[0]->integer,
                       reply->element[1]->integer);
                status = CLI_DONE;
        } else {
                cli_error("%s is held by somebody else (`meridian lock info %s`)",
                          several ? "one of them" : argv[0], several ? "KEY" : argv[0]);
        }
        freeReplyObject(reply);
        return status;
}

static int lock_renew(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        char ttl[32];
        const char *words[5] = {"LOCK.RENEW", argv[0], argv[1], argv[2], ttl};
        (void)argc;
        if (!milliseconds(argv[3], ttl, sizeof ttl))
                return CLI_USAGE;
        redisReply *reply = resp_ask(context, 5, words);
        if (reply == NULL)
                return CLI_FAILED;
        if (cli->json)
                json_say(json_pack("{s:s, s:s, s:I, s:I}", "key", argv[0], "owner", argv[1],
                                   "token", number_of(argv[2]), "ttl_ms",
                                   (json_int_t)reply->integer));
        else
                printf("renewed %s: for %lld ms\n", argv[0], reply->integer);
        freeReplyObject(reply);
        return CLI_DONE;
}

static int lock_release(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        const char *words[4] = {"LOCK.RELEASE", argv[0], argv[1], argv[2]};
        (void)argc;
        redisReply *reply = resp_ask(context, 4, words);
        if (reply == NULL)
                return CLI_FAILED;
        bool released = reply->integer == 1;
        freeReplyObject(reply);
        if (!released)
                return cli_error("%s is not held by %s with token %s", argv[0], argv[1], argv[2]);
        if (cli->json)
                json_say(json_pack("{s:s, s:s, s:I}", "key", argv[0], "owner", argv[1], "token",
                                   number_of(argv[2])));
        else
                printf("released %s\n", argv[0]);
        return CLI_DONE;
}

static int lock_break(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        const char *words[3] = {"LOCK.BREAK", argv[0], cli_user()};
        (void)argc;
        redisReply *reply = resp_ask(context, 3, words);
        if (reply == NULL)
                return CLI_FAILED;
        long long token = reply->integer;
        freeReplyObject(reply);
        if (token == 0)
                return cli_error("%s is held by nobody", argv[0]);
        if (cli->json)
                json_say(json_pack("{s:s, s:I}", "key", argv[0], "token", (json_int_t)token));
        else
                printf("took %s away: later tokens are larger than %lld\n", argv[0], token);
        return CLI_DONE;
}

/* One lock: an array of names and values. */
static void lock_print(const redisReply *lock)
{
        for (size_t i = 0; i + 1 < lock->elements; i += 2) {
                const redisReply *value = lock->element[i + 1];
                printf("%s%s%s ", term_style(TERM_DIM), lock->element[i]->str,
                       term_style(TERM_PLAIN));
                if (value->type == REDIS_REPLY_INTEGER)
                        printf("%lld  ", value->integer);
                else
                        printf("%s  ", value->str);
        }
        putchar('\n');
}

static json_t *lock_json(const redisReply *lock)
{
        json_t *json = json_object();
        for (size_t i = 0; i + 1 < lock->elements; i += 2) {
                const redisReply *value = lock->element[i + 1];
                json_t *item = NULL;
                if (value->type == REDIS_REPLY_INTEGER)
                        item = json_integer((json_int_t)value->integer);
                else if (value->str != NULL)
                        item = json_stringn(value->str, value->len);
                /* Names of locks and owners are bytes. */
                (void)json_object_set_new(json, lock->element[i]->str,
                                          item == NULL ? json_string("(not text)") : item);
        }
        return json;
}

static int lock_info(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        const char *words[2] = {"LOCK.INFO", argv[0]};
        (void)argc;
        redisReply *reply = resp_ask(context, 2, words);
        if (reply == NULL)
                return CLI_FAILED;
        bool held = reply->type == REDIS_REPLY_ARRAY;
        if (cli->json)
                json_say(held ? lock_json(reply)
                              : json_pack("{s:s, s:n}", "key", argv[0], "owner"));
        else if (held)
                lock_print(reply);
        else
                printf("%s is free\n", argv[0]);
        freeReplyObject(reply);
        return CLI_DONE;
}

static int lock_list(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        const char *words[2] = {"LOCK.LIST", argv[0]};
        (void)argc;
        redisReply *reply = resp_ask(context, 2, words);
        if (reply == NULL)
                return CLI_FAILED;
        json_t *locks = json_array();
        for (size_t i = 0; i < reply->elements; i++) {
                if (cli->json)
                        (void)json_array_append_new(locks, lock_json(reply->element[i]));
                else
                        lock_print(reply->element[i]);
        }
        if (cli->json)
                json_say(json_pack("{s:O}", "locks", locks));
        json_decref(locks);
        freeReplyObject(reply);
        return CLI_DONE;
}

static void session_json(const redisReply *reply, bool opened, bool kept, const char *session)
{
        json_int_t number = opened ? (json_int_t)reply->element[0]->integer : number_of(session);
        json_t *json = json_pack("{s:I}", "session", number);
        if (opened)
                (void)json_object_set_new(json, "ttl_ms", json_integer(reply->element[1]->integer));
        else if (kept)
                (void)json_object_set_new(json, "ttl_ms", json_integer(reply->integer));
        json_say(json);
}

/* SESSION.OPEN, KEEP and CLOSE by the word after "session". */
static int lock_session(const struct cli *cli, redisContext *context, int argc, char **argv)
{
        char ttl[32];
        const char *words[4] = {NULL, argv[1], argv[2], argc > 3 ? argv[3] : ""};
        bool opens = strcmp(argv[0], "open") == 0, keeps = strcmp(argv[0], "keep") == 0;
        if (!opens && !keeps && strcmp(argv[0], "close") != 0) {
                cli_error("usage: meridian lock session open PREFIX OWNER TTL, or keep or close "
                          "PREFIX OWNER SESSION");
                return CLI_USAGE;
        }
        words[0] = opens ? "SESSION.OPEN" : keeps ? "SESSION.KEEP" : "SESSION.CLOSE";
        if (opens && !milliseconds(argv[3], ttl, sizeof ttl))
                return CLI_USAGE;
        words[3] = opens ? ttl : argv[3];
        redisReply *reply = resp_ask(context, 4, words);
        if (reply == NULL)
                return CLI_FAILED;
        bool opened = opens && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2;
        if (cli->json)
                session_json(reply, opened, keeps, argv[3]);
        else if (opened)
                printf("session %lld, for %lld ms\n", reply->element[0]->integer,
                       reply->element[1]->integer);
        else if (keeps)
                printf("session %s: for %lld ms\n", argv[3], reply->integer);
        else
                printf("session %s is closed, and its locks are free\n", argv[3]);
        freeReplyObject(reply);
        return CLI_DONE;
}

static const struct lock_row lock_commands[] = {
        {"acquire",
         "KEY OWNER TTL [--wait TIME] [--shared | --slots N] [--delay TIME] [--session ID] "
         "[--detect] [--also KEY]...",
         3, 12 + 2 * LOCK_SET_MAX, lock_acquire},
        {"session", "open PREFIX OWNER TTL | keep|close PREFIX OWNER SESSION", 4, 4, lock_session},
        {"renew", "KEY OWNER TOKEN TTL", 4, 4, lock_renew},
        {"release", "KEY OWNER TOKEN", 3, 3, lock_release},
        {"break", "KEY", 1, 1, lock_break},
        {"info", "KEY", 1, 1, lock_info},
        {"list", "PREFIX", 1, 1, lock_list},
};

redisContext *resp_connect(const struct cli *cli)
{
        struct timeval timeout = {.tv_sec = 2};
        for (size_t i = 0; i < cli->node_count; i++) {
                redisContext *context = redisConnectWithTimeout(cli->nodes[i].host,
                                                                cli->nodes[i].lock_port, timeout);
                if (context != NULL && context->err == 0)
                        return context;
                fprintf(stderr, "%s%s:%u does not answer (%s)%s\n", term_style(TERM_DIM),
                        cli->nodes[i].host, cli->nodes[i].lock_port,
                        context == NULL ? "out of memory" : context->errstr,
                        term_style(TERM_PLAIN));
                if (context != NULL)
                        redisFree(context);
        }
        (void)cli_nodes_silent(cli);
        return NULL;
}

int cli_lock(struct cli *cli)
{
        const struct lock_row *found = NULL;
        if (strcmp(cli->argv[0], "run") == 0)
                return cli_lock_run(cli, cli->argc - 1, cli->argv + 1);
        if (strcmp(cli->argv[0], "watch") == 0)
                return cli_lock_watch(cli, cli->argc - 1, cli->argv + 1);
        for (size_t i = 0; i < COUNT_OF(lock_commands); i++) {
                if (strcmp(lock_commands[i].name, cli->argv[0]) == 0)
                        found = &lock_commands[i];
        }
        if (found == NULL) {
                cli_error("there is no command \"lock %s\": run, acquire, renew, release, session, "
                          "info, list, watch",
                          cli->argv[0]);
                return CLI_USAGE;
        }
        if (cli->argc - 1 < found->args_min || cli->argc - 1 > found->args_max) {
                cli_error("usage: meridian lock %s %s", found->name, found->usage);
                return CLI_USAGE;
        }
        redisContext *context = resp_connect(cli);
        if (context == NULL)
                return CLI_FAILED;
        int status = found->run(cli, context, cli->argc - 1, cli->argv + 1);
        redisFree(context);
        return status;
}
