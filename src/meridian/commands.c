/* commands.c - the table of commands, and what is made from it. */
#include "meridian/commands.h"

#include "lab/lab.h"
#include "term/term.h"

#include <stdio.h>

#define USAGE_SIZE    320
#define HELP_COLUMN   46
#define WORDS_MANY    256
#define WORD_MAX      32

#define ORDER_OPTIONS "[--to NODE|REGION] [--dry-run] [--abort] [--json]"

static int run_help(struct cli *cli);
static int run_completion(struct cli *cli);
static int run_lab(struct cli *cli);

#define ASKS(...)                                                                                  \
        {                                                                                          \
                __VA_ARGS__, false                                                                 \
        }
#define LOCAL(...)                                                                                 \
        {                                                                                          \
                __VA_ARGS__, true                                                                  \
        }
#define HEADING(text)                                                                              \
        {                                                                                          \
                NULL, NULL, NULL, NULL, text, 0, 0, NULL, true                                     \
        } /* a row without a run */

static const struct command commands[] = {
        HEADING("Look"),
        ASKS("status", NULL, "", "[--json]", "regions, servers, lag, events", 0, 0, cli_status),
        ASKS("top", NULL, "", "", "the same, drawn again each second", 0, 0, cli_top),
        ASKS("events", NULL, "", "[-f] [--json]", "what happened; -f goes on", 0, 0, cli_events),
        LOCAL("doctor", NULL, "", "[--json]", "what is wrong on this machine", 0, 0, cli_doctor),
        ASKS("why-route", NULL, "CLIENT NAME", "[--json]", "where a client is sent to, and why", 2,
             2, cli_why_route),
        ASKS("conflicts", NULL, "[PREFIX]", "[-f] [--region R] [--json]",
             "what concurrent writes lost", 0, 1, cli_conflicts),
        ASKS("verify", NULL, "[PREFIX]", "[--region R,...] [--json]",
             "do all regions hold the same keys?", 0, 1, cli_verify),

        HEADING("Regions"),
        ASKS("drain", NULL, "REGION [WHY]", "[--json]", "give a region no new traffic", 1, 2,
             cli_drain),
        ASKS("undrain", NULL, "REGION [WHY]", "[--json]", "let it have traffic again", 1, 2,
             cli_undrain),
        ASKS("isolate", NULL, "REGION [WHY]", "[--json]", "take it out at once (security)", 1, 2,
             cli_isolate),
        ASKS("unisolate", NULL, "REGION [WHY]", "[--json]", "let it come back", 1, 2,
             cli_unisolate),

        ASKS("evacuate", NULL, "REGION [WHY]", "[--to NODE|REGION] [--dry-run] [--abort] [--json]",
             "move all away from it, in steps", 1, 6, cli_evacuate),
        ASKS("unevacuate", NULL, "REGION [WHY]", "[--writer] [--dry-run] [--json]", "bring it back",
             1, 4, cli_unevacuate),

        HEADING("Topology: which regions and nodes there are, and what is asked of them"),
        ASKS("topology", NULL, "", "[--json]", "the document in force", 0, 0, cli_topology),
        ASKS("plan", NULL, "FILE", "[--json]", "what another document would change", 1, 1,
             cli_plan),
        ASKS("apply", NULL, "FILE", "[--json]", "put it into force, and look on", 1, 1, cli_apply),

        HEADING("PostgreSQL"),
        ASKS("switchover", NULL, "", ORDER_OPTIONS, "move the writer; nothing is lost", 0, 4,
             cli_switchover),
        ASKS("failover", NULL, "", ORDER_OPTIONS " [--force [--yes]]",
             "a new writer, where there is none", 0, 6, cli_failover),
        ASKS("doors", NULL, "", "[--json]", "who is connected by a node's doors", 0, 0, cli_doors),

        HEADING("Locks; keys begin with global: or a region's name and a colon"),
        ASKS("lock", "run", "KEY -- COMMAND...",
             "[--lease TIME] [--wait TIME] [--owner NAME] [--shared | --slots N] [--delay TIME]",
             "a command while a lock is held", 3, WORDS_MANY, cli_lock),
        ASKS("lock", "acquire", "KEY OWNER TTL",
             "[--wait TIME] [--shared | --slots N] [--delay TIME] [--session ID] [--detect] "
             "[--also KEY]... [--json]",
             "take it; prints the fencing token", 3, WORDS_MANY, cli_lock),
        ASKS("lock", "renew", "KEY OWNER TOKEN TTL", "[--json]", "prolong it", 4, 4, cli_lock),
        ASKS("lock", "release", "KEY OWNER TOKEN", "[--json]", "give it back", 3, 3, cli_lock),
        ASKS("lock", "break", "KEY", "[--json]", "take it away; audited", 1, 1, cli_lock),
        ASKS("lock", "info", "KEY", "[--json]", "who holds it", 1, 1, cli_lock),
        ASKS("lock", "list", "PREFIX", "[--json]", "all that are held, e.g. of global:", 1, 1,
             cli_lock),
        ASKS("lock", "watch", "KEY", "[--prefix] [--copy] [--json]",
             "what happens to it, as it happens", 1, 3, cli_lock),
        ASKS("lock", "session", "open PREFIX OWNER TTL | keep|close PREFIX OWNER SESSION",
             "[--json]", "locks that end together", 4, 4, cli_lock),

        HEADING("Values, flags, configuration, services"),
        ASKS("kv", "get", "KEY", "[--stale] [--json]", "a value", 1, 2, cli_kv),
        ASKS("kv", "put", "KEY VALUE", "[--revision N] [--json]", "write it", 2, 4, cli_kv),
        ASKS("kv", "del", "KEY", "[--json]", "delete it", 1, 1, cli_kv),
        ASKS("kv", "list", "PREFIX", "[--stale] [--json]", "all keys that begin so", 1, 2, cli_kv),
        ASKS("kv", "history", "KEY", "[--json]", "its versions, newest first", 1, 1, cli_kv),
        ASKS("kv", "watch", "PREFIX", "[--json]", "changes as they come", 1, 1, cli_kv),
        ASKS("flag", "set", "NAME RULES", "[--json]", "rules, e.g. \"otherwise 10%\"", 2, 2,
             cli_flag),
        ASKS("flag", "kill", "NAME", "[--json]", "off for everybody, at once", 1, 1, cli_flag),
        ASKS("flag", "eval", "NAME USER [ATTRIBUTE=VALUE]...", "[--region R] [--json]",
             "is it on for a user, and why", 2, 20, cli_flag),
        ASKS("flag", "get", "NAME", "[--json]", "its rules", 1, 1, cli_flag),
        ASKS("flag", "list", "", "[--json]", "all flags", 0, 0, cli_flag),
        ASKS("flag", "history", "NAME", "[--json]", "who changed it, and when", 1, 1, cli_flag),
        ASKS("flag", "revert", "NAME [REVISION]", "[--json]", "an earlier version again", 1, 2,
             cli_flag),
        ASKS("flag", "del", "NAME", "[--json]", "delete it", 1, 1, cli_flag),
        ASKS("config", "set", "NAME VALUE", "[--json]", "configuration for all programs", 2, 2,
             cli_config),
        ASKS("config", "get", "NAME", "[--json]", "its value", 1, 1, cli_config),
        ASKS("config", "list", "", "[--json]", "all of them", 0, 0, cli_config),
        ASKS("config", "history", "NAME", "[--json]", "who changed it, and when", 1, 1, cli_config),
        ASKS("config", "revert", "NAME [REVISION]", "[--json]", "an earlier version again", 1, 2,
             cli_config),
        ASKS("config", "del", "NAME", "[--json]", "delete it", 1, 1, cli_config),
        ASKS("service", "list", "NAME", "[--json]", "its instances, the nearest first", 1, 1,
             cli_service),
        ASKS("service", "register", "NAME ID HOST:PORT",
             "[--region R] [--weight N] [--ttl TIME] [--json]", "an instance, while this runs", 3,
             7, cli_service),

        HEADING("Backup and certificates"),
        ASKS("backup", NULL, "FILE", "[--json]", "what the nodes have agreed on", 1, 1, cli_backup),
        LOCAL("restore", NULL, "FILE DATA_DIR", "[--life NUMBER] [--json]",
              "make a node begin with a backup", 2, 4, cli_restore),
        LOCAL("pki", "init", "DIR CLUSTER", "[--json]", "the authority of a cluster", 2, 2,
              cli_pki),
        LOCAL("pki", "node", "DIR REGION NUMBER FOLDER", "[--json]", "a node's key and certificate",
              4, 4, cli_pki),
        LOCAL("pki", "list", "DIR", "[--json]", "what was issued, and until when", 1, 1, cli_pki),

        HEADING("And"),
        LOCAL("lab", NULL, "COMMAND", "", "three regions on this machine", 0, WORDS_MANY, run_lab),
        LOCAL("completion", NULL, "bash", "", "eval \"$(meridian completion bash)\"", 1, 1,
              run_completion),
        LOCAL("help", NULL, "[COMMAND]", "", "this list, or all about one", 0, 1, run_help),
};

/* ---- looking up ---- */

static bool is_command(const struct command *command, const char *name)
{
        return command->run != NULL && strcmp(command->name, name) == 0;
}

static void actions_say(const char *name, const char *tried)
{
        char list[256];
        size_t len = 0;
        for (size_t i = 0; i < COUNT_OF(commands) && len < sizeof list; i++)
                if (is_command(&commands[i], name))
                        len += (size_t)snprintf(list + len, sizeof list - len, "%s%s",
                                                len == 0 ? "" : ", ", commands[i].action);
        if (tried == NULL)
                cli_error("`meridian %s` wants one of: %s (`meridian help %s`)", name, list, name);
        else
                cli_error("there is no `meridian %s %s`: %s (`meridian help %s`)", name, tried,
                          list, name);
}

/* How many letters must be changed, added or left out to make one word of the other; both are
 * shorter than WORD_MAX, else it is WORD_MAX. */
static size_t letters_apart(const char *one, const char *other)
{
        size_t row[WORD_MAX + 1];
        size_t len = strlen(other);
        if (strlen(one) >= WORD_MAX || len >= WORD_MAX)
                return WORD_MAX;
        for (size_t i = 0; i <= len; i++)
                row[i] = i;
        for (size_t i = 0; one[i] != '\0'; i++) {
                size_t corner = row[0]++;
                for (size_t k = 0; k < len; k++) {
                        size_t swapped = corner + (one[i] == other[k] ? 0 : 1);
                        size_t least = row[k] < row[k + 1] ? row[k] + 1 : row[k + 1] + 1;
                        corner = row[k + 1];
                        row[k + 1] = swapped < least ? swapped : least;
                }
        }
        return row[len];
}

/* Names a command that may be meant. */
static void unknown_say(const char *name)
{
        const char *best = NULL;
        size_t least = 3;
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (commands[i].run == NULL || letters_apart(name, commands[i].name) >= least)
                        continue;
                best = commands[i].name;
                least = letters_apart(name, best);
        }
        if (best != NULL && least < strlen(best))
                cli_error("there is no command \"%s\"; is \"%s\" meant? `meridian help` lists all",
                          name, best);
        else
                cli_error("there is no command \"%s\"; `meridian help` lists them", name);
}

const struct command *command_find(const struct cli *cli, const char *name)
{
        bool known = false;
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                const struct command *command = &commands[i];
                if (!is_command(command, name))
                        continue;
                known = true;
                if (command->action == NULL ||
                    (cli->argc > 0 && strcmp(command->action, cli->argv[0]) == 0))
                        return command;
        }
        if (known)
                actions_say(name, cli->argc > 0 ? cli->argv[0] : NULL);
        else
                unknown_say(name);
        return NULL;
}

bool command_has_option(const struct command *command, const char *option)
{
        size_t len = strlen(option);
        const char *at = command->options;
        while ((at = strstr(at, option)) != NULL) {
                if (strchr(" ]", at[len]) != NULL)
                        return true;
                at += len;
        }
        return false;
}

static const char *usage_text(const struct command *command, bool options, char text[USAGE_SIZE])
{
        /* Options stand before a " -- ". */
        const char *behind = strstr(command->words, " -- ");
        size_t before = behind == NULL ? strlen(command->words) : (size_t)(behind - command->words);
        bool has = options && command->options[0] != '\0';
        const char *action = command->action == NULL ? "" : command->action;
        (void)snprintf(text, USAGE_SIZE, "%s%s%s%s%.*s%s%s%s", command->name,
                       action[0] == '\0' ? "" : " ", action, before == 0 ? "" : " ", (int)before,
                       command->words, has ? " " : "", has ? command->options : "",
                       behind == NULL ? "" : behind);
        return text;
}

int command_usage(const struct command *command)
{
        char text[USAGE_SIZE];
        cli_error("usage: meridian %s", usage_text(command, true, text));
        return CLI_USAGE;
}

/* ---- help ---- */

static void row_print(const struct command *command)
{
        char text[USAGE_SIZE];
        printf("  meridian ");
        usage_text(command, false, text);
        term_cell(TERM_BOLD, text, HELP_COLUMN - 11);
        if (term_width(text) >= HELP_COLUMN - 11)
                printf("\n%*s", HELP_COLUMN, "");
        puts(command->help);
}

static int all_print(void)
{
        printf("%sMeridian%s %s: several regions, one service\n", term_style(TERM_HEAD),
               term_style(TERM_PLAIN), MERIDIAN_VERSION);
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (commands[i].run != NULL)
                        row_print(&commands[i]);
                else
                        printf("\n%s%s%s\n", term_style(TERM_HEAD), commands[i].help,
                               term_style(TERM_PLAIN));
        }
        printf("\nmeridian help COMMAND shows its options; man meridian says more.\n\n"
               "--node HOST:PORT (several times, or MERIDIAN_NODE) asks that node's admin door,\n"
               "else the lab of this checkout is asked, or where there is none, the node of\n"
               "/etc/meridian/meridiand.conf (or MERIDIAN_CONFIG). --json prints for programs;\n"
               "NO_COLOR is respected. Exit status: 0 done, 1 failed, 2 wrong usage.\n");
        return CLI_DONE;
}

int commands_print(const char *name)
{
        char text[USAGE_SIZE];
        bool known = false;
        if (name == NULL)
                return all_print();
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (!is_command(&commands[i], name))
                        continue;
                known = true;
                printf("  %smeridian %s%s\n        %s\n", term_style(TERM_BOLD),
                       usage_text(&commands[i], true, text), term_style(TERM_PLAIN),
                       commands[i].help);
        }
        if (known) {
                printf("\nAnd --node HOST:PORT. What follows `--` is no option. More: man "
                       "meridian.\n");
                return CLI_DONE;
        }
        unknown_say(name);
        return CLI_USAGE;
}

static int run_lab(struct cli *cli)
{
        return lab_main(cli->argc, cli->argv);
}

static int run_help(struct cli *cli)
{
        return commands_print(cli->argc > 0 ? cli->argv[0] : NULL);
}

/* ---- completion ---- */

static bool is_first(size_t index)
{
        return index == 0 || commands[index - 1].run == NULL ||
               strcmp(commands[index].name, commands[index - 1].name) != 0;
}

static void completion_actions(const char *name)
{
        printf("        2:%s) words='", name);
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                if (is_command(&commands[i], name))
                        printf("%s ", commands[i].action);
        printf("' ;;\n");
}

static void completion_first_words(void)
{
        printf("        1:*) words='");
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                if (commands[i].run != NULL && is_first(i))
                        printf("%s ", commands[i].name);
        printf("' ;;\n");
}

/* Options of a command, all its actions together. */
static void completion_options(const char *name)
{
        printf("                %s) words='--node ", name);
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (!is_command(&commands[i], name))
                        continue;
                for (const char *at = commands[i].options; *at != '\0'; at++)
                        if (strncmp(at, "--", 2) == 0) {
                                int len = (int)strcspn(at, " ]");
                                printf("%.*s ", len, at);
                                at += len - 1;
                        }
        }
        printf("' ;;\n");
}

static int run_completion(struct cli *cli)
{
        if (strcmp(cli->argv[0], "bash") != 0) {
                cli_error("there is completion for bash only");
                return CLI_USAGE;
        }
        printf("_meridian() {\n"
               "        local word=${COMP_WORDS[COMP_CWORD]} words=\n"
               "        COMPREPLY=()\n"
               "        case $COMP_CWORD:${COMP_WORDS[1]} in\n");
        completion_first_words();
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                if (commands[i].run != NULL && commands[i].action != NULL && is_first(i))
                        completion_actions(commands[i].name);
        printf("        2:lab) words='");
        for (size_t i = 0; lab_commands[i].name != NULL; i++)
                printf("%s ", lab_commands[i].name);
        printf("' ;;\n        2:plan|2:apply|2:backup|2:restore)\n"
               "                compopt -o default; return ;;\n"
               "        *) words='");
        for (size_t i = 0; i < LAB_REGIONS; i++)
                printf("%s ", lab_regions[i].name);
        printf("' ;;\n        esac\n"
               "        if [[ $word == -* ]]; then\n"
               "                case ${COMP_WORDS[1]} in\n");
        for (size_t i = 0; i < COUNT_OF(commands); i++)
                if (commands[i].run != NULL && is_first(i))
                        completion_options(commands[i].name);
        printf("                esac\n"
               "        fi\n"
               "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
               "}\n"
               "complete -F _meridian meridian build/meridian\n");
        return CLI_DONE;
}
