/* board.c - `meridian flag ...` and `meridian config ...`: values of the global group that every
 * program of every region reads (board/board.h). What is changed keeps its earlier versions, with
 * who and when, and can be reverted; a change that is based on an older state is refused. */
#include "board/board.h"

#include "base/heap.h"
#include "meridian/cli.h"
#include "meridian/kv.h"
#include "term/term.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_SIZE       256
#define ATTRIBUTES_MAX 16

/* What `flag` and `config` differ in. */
struct board_kind_row {
        const char *word;
        const char *prefix;
};

static const struct board_kind_row flag_row = {"flag", BOARD_FLAG_PREFIX};
static const struct board_kind_row config_row = {"config", BOARD_CONFIG_PREFIX};

static bool key_make(const struct board_kind_row *row, const char *name, char key[KEY_SIZE])
{
        size_t len = strlen(name);
        if (len == 0 || len > BOARD_NAME_MAX) {
                cli_error("the name of a %s has 1 to %d bytes", row->word, BOARD_NAME_MAX);
                return false;
        }
        (void)snprintf(key, KEY_SIZE, "%s%s", row->prefix, name);
        return true;
}

static const char *text_of(const json_t *item)
{
        const char *text = json_string_value(json_object_get(item, "value"));
        return text == NULL ? "" : text;
}

static json_int_t revision_of(const json_t *item)
{
        return json_integer_value(json_object_get(item, "revision"));
}

/* Writes `text` where the key's revision is `revision` (-1: whatever it is). */
static int write_text(const struct cli *cli, const char *key, const char *text, json_int_t revision)
{
        json_t *body = json_pack("{s:s, s:b}", "value", text, "keep", 1);
        if (revision >= 0)
                json_object_set_new(body, "revision", json_integer(revision));
        json_t *json = kv_post(cli, (struct kv_path){"/kv/", key, kv_actor("/put")}, body);
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                printf("%s has revision %" JSON_INTEGER_FORMAT "\n", key, revision_of(json));
        json_decref(json);
        return CLI_DONE;
}

/* Says what is wrong with a flag's text. */
static bool flag_good(const char *text)
{
        struct heap heap;
        struct buffer out;
        char why[FLAG_WHY_SIZE];
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        bool good = flag_compile(BYTES("x"), bytes_of_str(text), &out, why) == ERR_NONE;
        buffer_fini(&out);
        if (!good)
                cli_error("%s (rules: `killed`, `salt WORD`, `when ATTRIBUTE is VALUE [and ...] "
                          "SHARE`, "
                          "`otherwise SHARE`, with ; between them)",
                          why);
        return good;
}

/* ---- actions ---- */

static int set(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        if (!key_make(row, cli->argv[1], key) || (row == &flag_row && !flag_good(cli->argv[2])))
                return CLI_USAGE;
        return write_text(cli, key, cli->argv[2], -1);
}

/* In one line. */
static void print_line(const char *text)
{
        for (; *text != '\0'; text++)
                putchar(*text == '\n' ? ';' : *text);
        putchar('\n');
}

static json_t *current(const struct cli *cli, const struct board_kind_row *row, char key[KEY_SIZE])
{
        if (!key_make(row, cli->argv[1], key))
                return NULL;
        return kv_get(cli, (struct kv_path){"/kv/", key, ""});
}

static int get(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        json_t *item = current(cli, row, key);
        if (item == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(item);
        else
                puts(text_of(item));
        json_decref(item);
        return CLI_DONE;
}

static int list(const struct cli *cli, const struct board_kind_row *row)
{
        size_t i;
        json_t *item;
        json_t *json = kv_get(cli, (struct kv_path){"/kv?prefix=", row->prefix, "&stale=1"});
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json) {
                cli_print_json(json);
                json_decref(json);
                return CLI_DONE;
        }
        json_array_foreach(json_object_get(json, "items"), i, item)
        {
                const char *key = json_string_value(json_object_get(item, "key"));
                term_cell(TERM_BOLD, key + strlen(row->prefix), 24);
                print_line(text_of(item));
        }
        json_decref(json);
        return CLI_DONE;
}

static int history(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        size_t i;
        json_t *item;
        if (!key_make(row, cli->argv[1], key))
                return CLI_USAGE;
        json_t *json = kv_get(cli, (struct kv_path){"/kv-history?key=", key, ""});
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json) {
                cli_print_json(json);
                json_decref(json);
                return CLI_DONE;
        }
        json_array_foreach(json_object_get(json, "items"), i, item)
        {
                bool deleted = json_is_true(json_object_get(item, "deleted"));
                printf("%-8" JSON_INTEGER_FORMAT "  ", revision_of(item));
                kv_print_when(item);
                printf("  ");
                print_line(deleted ? "(deleted)" : text_of(item));
        }
        json_decref(json);
        return CLI_DONE;
}

/* The version that a revert goes back to: the one named, or the one before the newest. */
static const json_t *version_find(const json_t *items, const char *wanted)
{
        size_t i;
        json_t *item;
        json_array_foreach(items, i, item)
        {
                bool deleted = json_is_true(json_object_get(item, "deleted"));
                if (wanted == NULL ? i > 0 && !deleted
                                   : strtoll(wanted, NULL, 10) == revision_of(item))
                        return deleted ? NULL : item;
        }
        return NULL;
}

static int revert(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        int status = CLI_FAILED;
        const char *wanted = cli->argc > 2 ? cli->argv[2] : NULL;
        if (!key_make(row, cli->argv[1], key))
                return CLI_USAGE;
        json_t *json = kv_get(cli, (struct kv_path){"/kv-history?key=", key, ""});
        const json_t *items = json_object_get(json, "items");
        const json_t *newest = json_array_get(items, 0);
        const json_t *version = version_find(items, wanted);
        if (json != NULL && version == NULL)
                cli_error("%s has no such earlier version: `meridian %s history %s`", key,
                          row->word, cli->argv[1]);
        else if (json != NULL)
                status = write_text(
                        cli, key, text_of(version),
                        json_is_true(json_object_get(newest, "deleted")) ? 0 : revision_of(newest));
        json_decref(json);
        return status;
}

static int del(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        if (!key_make(row, cli->argv[1], key))
                return CLI_USAGE;
        json_t *json =
                kv_post(cli, (struct kv_path){"/kv/", key, kv_actor("/delete")}, json_object());
        if (json == NULL)
                return CLI_FAILED;
        json_int_t deleted = json_integer_value(json_object_get(json, "deleted"));
        if (cli->json)
                cli_print_json(json);
        json_decref(json);
        if (deleted == 0)
                return cli_error("there is no %s %s", row->word, cli->argv[1]);
        if (cli->json)
                return CLI_DONE;
        printf("deleted %s; `meridian %s revert %s` brings it back\n", key, row->word,
               cli->argv[1]);
        return CLI_DONE;
}

/* Off for everybody, at once; the rules stay, and `revert` takes them back. */
static int kill_flag(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        char text[FLAG_TEXT_BYTES_MAX + 16];
        json_t *item = current(cli, row, key);
        if (item == NULL)
                return CLI_FAILED;
        json_int_t revision = revision_of(item);
        bool already = strncmp(text_of(item), "killed", strlen("killed")) == 0;
        (void)snprintf(text, sizeof text, "killed\n%s", text_of(item));
        json_decref(item);
        if (already)
                return cli_error("%s is killed already", cli->argv[1]);
        if (strlen(text) > FLAG_TEXT_BYTES_MAX)
                (void)snprintf(text, sizeof text, "killed");
        return write_text(cli, key, text, revision);
}

static void verdict_print(const struct flag_verdict *verdict, const char *user)
{
        char share[32];
        (void)snprintf(share, sizeof share, "%u.%02u %%", verdict->share / 100,
                       verdict->share % 100);
        printf("%s: ", verdict->on ? "on" : "off");
        if (verdict->reason == FLAG_KILLED)
                puts("the flag is killed");
        else if (verdict->reason == FLAG_RULE)
                printf("rule %u gives it to %s; ", verdict->rule, share);
        else
                printf("no rule fits, so %s get it; ", share);
        if (verdict->reason != FLAG_KILLED)
                printf("%s is at %u.%02u\n", user, verdict->bucket / 100, verdict->bucket % 100);
}

static void verdict_json(const struct cli *cli, const struct flag_verdict *verdict)
{
        static const char *const reasons[] = {
                [FLAG_KILLED] = "killed", [FLAG_RULE] = "rule", [FLAG_OTHERWISE] = "otherwise"};
        json_t *json = json_pack(
                "{s:s, s:s, s:b, s:s, s:f, s:f}", "flag", cli->argv[1], "user", cli->argv[2], "on",
                (int)verdict->on, "reason", reasons[verdict->reason], "share_percent",
                (double)verdict->share / 100, "bucket_percent", (double)verdict->bucket / 100);
        if (verdict->reason == FLAG_RULE)
                (void)json_object_set_new(json, "rule", json_integer(verdict->rule));
        cli_print_json(json);
        json_decref(json);
}

static int eval(const struct cli *cli, const struct board_kind_row *row)
{
        char key[KEY_SIZE];
        char why[FLAG_WHY_SIZE] = "";
        struct flag_attribute attributes[ATTRIBUTES_MAX];
        struct flag_client client = {.user = bytes_of_str(cli->argv[2]), .attributes = attributes};
        struct heap heap;
        struct buffer out;
        client.region = bytes_of_str(cli->region == NULL ? "" : cli->region);
        for (int i = 3; i < cli->argc && client.attribute_count < ATTRIBUTES_MAX; i++) {
                const char *equals = strchr(cli->argv[i], '=');
                if (equals == NULL)
                        return CLI_USAGE;
                attributes[client.attribute_count++] = (struct flag_attribute){
                        bytes_of(cli->argv[i], (size_t)(equals - cli->argv[i])),
                        bytes_of_str(equals + 1)};
        }
        json_t *item = current(cli, row, key);
        if (item == NULL)
                return CLI_FAILED;
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        enum err err =
                flag_compile(bytes_of_str(cli->argv[1]), bytes_of_str(text_of(item)), &out, why);
        if (err == ERR_NONE) {
                struct flag_verdict verdict = flag_evaluate(buffer_view(&out), &client);
                if (cli->json)
                        verdict_json(cli, &verdict);
                else
                        verdict_print(&verdict, cli->argv[2]);
        } else {
                cli_error("its text cannot be read: %s", why);
        }
        buffer_fini(&out);
        json_decref(item);
        return err == ERR_NONE ? CLI_DONE : CLI_FAILED;
}

static const struct action {
        const char *name;
        const char *usage;
        int (*run)(const struct cli *cli, const struct board_kind_row *row);
        int args_min; /* the action included */
        int args_max;
        bool flags_only;
} actions[] = {
        {"set", "NAME RULES (a flag) or VALUE", set, 3, 3, false},
        {"get", "NAME", get, 2, 2, false},
        {"list", "", list, 1, 1, false},
        {"history", "NAME", history, 2, 2, false},
        {"revert", "NAME [REVISION]", revert, 2, 3, false},
        {"del", "NAME", del, 2, 2, false},
        {"kill", "NAME", kill_flag, 2, 2, true},
        {"eval", "NAME USER [ATTRIBUTE=VALUE]... [--region R]", eval, 3, 3 + ATTRIBUTES_MAX, true},
};

static int run(struct cli *cli, const struct board_kind_row *row)
{
        for (size_t i = 0; i < COUNT_OF(actions); i++) {
                const struct action *action = &actions[i];
                if (strcmp(action->name, cli->argv[0]) != 0 ||
                    (action->flags_only && row != &flag_row))
                        continue;
                bool fits = cli->argc >= action->args_min && cli->argc <= action->args_max;
                int status = fits ? action->run(cli, row) : CLI_USAGE;
                if (status == CLI_USAGE)
                        cli_error("usage: meridian %s %s %s", row->word, action->name,
                                  action->usage);
                return status;
        }
        cli_error("there is no command \"%s %s\": set, get, list, history, revert, del%s",
                  row->word, cli->argv[0], row == &flag_row ? ", kill, eval" : "");
        return CLI_USAGE;
}

int cli_flag(struct cli *cli)
{
        return run(cli, &flag_row);
}

int cli_config(struct cli *cli)
{
        return run(cli, &config_row);
}
