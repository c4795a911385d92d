/* kv.c - `meridian kv ...`: values over HTTP. A watch asks again and again from the last revision
 * that it was told of, so nothing is missed; what a node has forgotten is said. */
#include "meridian/kv.h"
#include "base/digits.h"
#include "meridian/cli.h"
#include "term/term.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PATH_SIZE     4096
#define WATCH_WAIT_MS 3000 /* below the client's patience */

static bool path_make(char *path, size_t size, const struct kv_path *of)
{
        char *escaped = client_escape(of->text);
        int len = escaped == NULL ? -1
                                  : snprintf(path, size, "%s%s%s", of->before, escaped, of->after);
        free(escaped);
        if (len >= 0 && (size_t)len < size)
                return true;
        cli_error("the key is too long");
        return false;
}

json_t *kv_get(const struct cli *cli, struct kv_path of)
{
        char path[PATH_SIZE];
        struct client_answer answer;
        if (!path_make(path, sizeof path, &of) || !cli_get(cli, path, &answer, NULL))
                return NULL;
        return cli_json(&answer);
}

json_t *kv_post(const struct cli *cli, struct kv_path of, json_t *body)
{
        char path[PATH_SIZE];
        struct client_answer answer;
        char *dumped = json_dumps(body, 0);
        json_t *json = NULL;
        json_decref(body);
        if (dumped != NULL && path_make(path, sizeof path, &of) &&
            cli_post(cli, path, bytes_of_str(dumped), &answer))
                json = cli_json(&answer);
        free(dumped);
        return json;
}

const char *kv_actor(const char *before)
{
        static char text[128];
        const struct passwd *user = getpwuid(getuid());
        (void)snprintf(text, sizeof text, "%s?actor=%.63s", before,
                       user == NULL ? "cli" : user->pw_name);
        return text;
}

void kv_print_when(const json_t *item)
{
        char text[32] = "";
        time_t at = (time_t)json_real_value(json_object_get(item, "time"));
        struct tm split;
        if (at > 0 && gmtime_r(&at, &split) != NULL)
                (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &split);
        printf("%-20s  %s", text, json_string_value(json_object_get(item, "writer")));
}

static const char *value_text(const json_t *item)
{
        const char *value = json_string_value(json_object_get(item, "value"));
        return value != NULL ? value : "(not text)";
}

static bool stale_asked(const struct cli *cli, bool *ret_stale)
{
        *ret_stale = cli->argc == 3 && strcmp(cli->argv[2], "--stale") == 0;
        return *ret_stale || cli->argc == 2;
}

static int get(struct cli *cli)
{
        bool stale;
        if (!stale_asked(cli, &stale))
                return CLI_USAGE;
        json_t *json = kv_get(cli, (struct kv_path){"/kv/", cli->argv[1], stale ? "?stale=1" : ""});
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                puts(value_text(json));
        json_decref(json);
        return CLI_DONE;
}

static int put(struct cli *cli)
{
        json_t *body =
                json_pack("{s:s, s:b}", "value", cli->argc > 2 ? cli->argv[2] : "", "keep", 1);
        bool only = cli->argc == 5 && strcmp(cli->argv[3], "--revision") == 0;
        if (cli->argc != 3 && !only) {
                json_decref(body);
                return CLI_USAGE;
        }
        uint64_t revision = 0;
        if (only && !digits_parse(bytes_of_str(cli->argv[4]), INT64_MAX, &revision)) {
                json_decref(body);
                cli_error("\"%s\" is no revision: write it in digits, 0 where the key must not be "
                          "there",
                          cli->argv[4]);
                return CLI_USAGE;
        }
        if (only)
                json_object_set_new(body, "revision", json_integer((json_int_t)revision));
        json_t *json = kv_post(cli, (struct kv_path){"/kv/", cli->argv[1], kv_actor("/put")}, body);
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                printf("%s has revision %" JSON_INTEGER_FORMAT "\n", cli->argv[1],
                       json_integer_value(json_object_get(json, "revision")));
        json_decref(json);
        return CLI_DONE;
}

static int del(struct cli *cli)
{
        json_t *json = kv_post(cli, (struct kv_path){"/kv/", cli->argv[1], kv_actor("/delete")},
                               json_object());
        if (json == NULL)
                return CLI_FAILED;
        json_int_t deleted = json_integer_value(json_object_get(json, "deleted"));
        if (cli->json)
                cli_print_json(json);
        json_decref(json);
        if (deleted == 0)
                return cli_error("there is no %s", cli->argv[1]);
        if (!cli->json)
                printf("deleted %s\n", cli->argv[1]);
        return CLI_DONE;
}

static int list(struct cli *cli)
{
        bool stale;
        size_t i;
        json_t *item;
        if (!stale_asked(cli, &stale))
                return CLI_USAGE;
        json_t *json =
                kv_get(cli, (struct kv_path){"/kv?prefix=", cli->argv[1], stale ? "&stale=1" : ""});
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                json_array_foreach(json_object_get(json, "items"), i, item)
                {
                        printf("%s %s%s%s\n", json_string_value(json_object_get(item, "key")),
                               term_style(TERM_DIM), value_text(item), term_style(TERM_PLAIN));
                }
        if (json_is_true(json_object_get(json, "more")))
                fprintf(stderr, "there are more: name a longer prefix\n");
        json_decref(json);
        return CLI_DONE;
}

static int history(struct cli *cli)
{
        size_t i;
        json_t *item;
        json_t *json = kv_get(cli, (struct kv_path){"/kv-history?key=", cli->argv[1], ""});
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                json_array_foreach(json_object_get(json, "items"), i, item)
                {
                        bool deleted = json_is_true(json_object_get(item, "deleted"));
                        printf("%-8" JSON_INTEGER_FORMAT "  ",
                               json_integer_value(json_object_get(item, "revision")));
                        kv_print_when(item);
                        printf("  %s\n", deleted ? "(deleted)" : value_text(item));
                }
        json_decref(json);
        return CLI_DONE;
}

static bool watch_round(const struct cli *cli, json_int_t *after)
{
        char more[96];
        size_t i;
        json_t *item;
        (void)snprintf(more, sizeof more, "&after=%" JSON_INTEGER_FORMAT "&wait_ms=%d", *after,
                       WATCH_WAIT_MS);
        json_t *json = kv_get(cli, (struct kv_path){"/kv-watch?prefix=", cli->argv[1], more});
        if (json == NULL)
                return false;
        json_array_foreach(json_object_get(json, "items"), i, item)
        {
                bool deleted = json_is_true(json_object_get(item, "deleted"));
                if (cli->json)
                        cli_print_json_line(item);
                else
                        printf("%s %s %s\n", deleted ? "del" : "put",
                               json_string_value(json_object_get(item, "key")),
                               deleted ? "" : value_text(item));
        }
        (void)fflush(stdout);
        *after = json_integer_value(json_object_get(json, "revision"));
        json_decref(json);
        return true;
}

static int watch(struct cli *cli)
{
        json_t *json = kv_get(cli, (struct kv_path){"/kv?prefix=", cli->argv[1], "&limit=1"});
        if (json == NULL)
                return CLI_FAILED;
        json_int_t after = json_integer_value(json_object_get(json, "revision"));
        json_decref(json);
        while (watch_round(cli, &after))
                continue;
        return CLI_FAILED;
}

static const struct {
        const char *name;
        const char *usage;
        int (*run)(struct cli *cli);
        int args_min;
        int args_max;
} commands[] = {
        {"get", "KEY [--stale]", get, 2, 3}, {"put", "KEY VALUE [--revision N]", put, 3, 5},
        {"del", "KEY", del, 2, 2},           {"list", "PREFIX [--stale]", list, 2, 3},
        {"history", "KEY", history, 2, 2},   {"watch", "PREFIX", watch, 2, 2},
};

int cli_kv(struct cli *cli)
{
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (strcmp(commands[i].name, cli->argv[0]) != 0)
                        continue;
                bool fits = cli->argc >= commands[i].args_min && cli->argc <= commands[i].args_max;
                int status = fits ? commands[i].run(cli) : CLI_USAGE;
                if (status == CLI_USAGE)
                        cli_error("usage: meridian kv %s %s", commands[i].name, commands[i].usage);
                return status;
        }
        cli_error("there is no command \"kv %s\": get, put, del, list, history, watch",
                  cli->argv[0]);
        return CLI_USAGE;
}
