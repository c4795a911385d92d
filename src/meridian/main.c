/* main.c - the command line: a table of commands, from which help and shell completion are made. */
#include "config/config.h"
#include "lab/lab.h"
#include "meridian/cli.h"
#include "term/term.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct command {
        const char *name;
        const char *arguments;
        const char *help;
        int args_min;
        int args_max;
        int (*run)(struct cli *cli);
};

static int command_help(struct cli *cli);
static int command_completion(struct cli *cli);

static const struct command commands[] = {
        {"status", "[--json]", "regions, round trips, lag, recent events", 0, 0, cli_status},
        {"events", "[-f] [--json]", "what happened; -f goes on", 0, 0, cli_events},
        {"conflicts", "[-f] [--json] [--region R] [PREFIX]",
         "what concurrent writes to keys lost, and to what", 0, 1, cli_conflicts},
        {"verify", "[--json] [--region R,...] [PREFIX]",
         "compare the regions' keys while they are written", 0, 1, cli_verify},
        {"why-route", "CLIENT NAME", "which region a client is sent to, and which rule said so", 2,
         2, cli_why_route},
        {"topology", "", "the document in force", 0, 0, cli_topology},
        {"backup", "FILE", "what all groups hold, while they go on", 1, 1, cli_backup},
        {"restore", "FILE DATA_DIR [--life NUMBER]", "make a node ready to begin with a backup", 2,
         4, cli_restore},
        {"plan", "FILE", "what applying a document would change", 1, 1, cli_plan},
        {"apply", "FILE", "apply a document", 1, 1, cli_apply},
        {"drain", "REGION [WHY]", "give a region no new traffic", 1, 2, cli_drain},
        {"undrain", "REGION [WHY]", "let it have traffic again", 1, 2, cli_undrain},
        {"isolate", "REGION [WHY]", "take a region out at once (security)", 1, 2, cli_isolate},
        {"unisolate", "REGION [WHY]", "let it come back", 1, 2, cli_unisolate},
        {"switchover", "[--to NODE|REGION]", "move PostgreSQL's writer, nothing lost", 0, 4,
         cli_switchover},
        {"failover", "[--to NODE|REGION] [--force]", "a new writer, where there is none", 0, 5,
         cli_failover},
        {"doors", "[--json]", "who is connected by PostgreSQL's doors of a node", 0, 0, cli_doors},
        {"lock", "run KEY [--lease TIME] [--wait TIME] -- COMMAND...", "a command under a lock", 1,
         256, cli_lock},
        {"lock", "acquire KEY OWNER TTL [--wait TIME] [--shared | --slots N]", "acquire a lock", 1,
         256, cli_lock},
        {"lock", "session open PREFIX OWNER TTL", "locks of one session end together", 1, 256,
         cli_lock},
        {"lock", "renew KEY OWNER TOKEN TTL", "prolong it", 1, 256, cli_lock},
        {"lock", "release KEY OWNER TOKEN", "give it back", 1, 256, cli_lock},
        {"lock", "info KEY", "who holds it", 1, 256, cli_lock},
        {"lock", "list PREFIX", "all that are held, e.g. of global:", 1, 256, cli_lock},
        {"lock", "watch KEY [--prefix]", "what happens to it, or to all that begin so", 1, 256,
         cli_lock},
        {"kv", "get KEY [--stale]", "a value", 1, 3, cli_kv},
        {"kv", "put KEY VALUE [--revision N]", "write it; only where its revision is N", 1, 5,
         cli_kv},
        {"kv", "del KEY", "delete it", 1, 2, cli_kv},
        {"kv", "list PREFIX [--stale]", "all that begin so, e.g. with global:", 1, 3, cli_kv},
        {"kv", "history KEY", "its versions, newest first: who, when", 1, 2, cli_kv},
        {"kv", "watch PREFIX", "changes as they come", 1, 2, cli_kv},
        {"flag", "set NAME RULES", "a feature flag, e.g. \"otherwise 10%\"", 1, 20, cli_flag},
        {"flag", "kill NAME", "off for everybody, at once", 1, 20, cli_flag},
        {"flag", "eval NAME USER [A=V]...", "is it on for a user (--region R), and why", 1, 20,
         cli_flag},
        {"flag", "list | get | history | del NAME", "flags, and who changed them", 1, 20, cli_flag},
        {"flag", "revert NAME [REVISION]", "an earlier version again", 1, 20, cli_flag},
        {"config", "set NAME VALUE", "configuration for all programs; actions as for flags", 1, 3,
         cli_config},
        {"service", "list NAME", "its instances, the nearest first", 1, 8, cli_service},
        {"service", "register NAME ID HOST:PORT", "as long as this command runs", 1, 8,
         cli_service},
        {"pki", "init DIR CLUSTER", "the cluster's authority, in a folder", 1, 5, cli_pki},
        {"pki", "node DIR REGION NUMBER FOLDER", "key and certificate of a node", 1, 5, cli_pki},
        {"pki", "list DIR", "what was issued, and until when it counts", 1, 5, cli_pki},
        {"doctor", "[--json]", "look for what is missing or wrong on this machine", 0, 0,
         cli_doctor},
        {"lab", "COMMAND", "three regions on this machine: `meridian lab help`", 0, 0, NULL},
        {"completion", "bash", "a script for the shell: eval \"$(meridian completion bash)\"", 1, 1,
         command_completion},
        {"help", "", "this list", 0, 0, command_help},
};

int cli_error(const char *format, ...)
{
        va_list args;
        fputs("meridian: ", stderr);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        return CLI_FAILED;
}

const char *cli_config_path(void)
{
        const char *named = getenv("MERIDIAN_CONFIG");
        return named != NULL && named[0] != '\0' ? named : "/etc/meridian/meridiand.conf";
}

static int command_help(struct cli *cli)
{
        char line[160];
        (void)cli;
        printf("%sMeridian%s %s: several regions, one service\n\n", term_style(TERM_HEAD),
               term_style(TERM_PLAIN), MERIDIAN_VERSION);
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                snprintf(line, sizeof line, "%s %s", commands[i].name, commands[i].arguments);
                printf("  meridian ");
                term_cell(TERM_BOLD, line, 42);
                printf(" %s\n", commands[i].help);
        }
        printf("\nOptions: --node HOST:PORT (or MERIDIAN_NODE) asks that node's admin door, else\n"
               "the lab of this checkout is asked, or where there is none, the node of\n"
               "/etc/meridian/meridiand.conf (or MERIDIAN_CONFIG). --json prints for programs;\n"
               "NO_COLOR is respected. Exit status: 0 done, 1 failed, 2 wrong usage.\n");
        return CLI_DONE;
}

static int command_completion(struct cli *cli)
{
        if (strcmp(cli->argv[0], "bash") != 0)
                return cli_error("there is completion for bash only");
        printf("_meridian() {\n"
               "        local word=${COMP_WORDS[COMP_CWORD]} words=\n"
               "        case $COMP_CWORD:${COMP_WORDS[1]} in\n"
               "        1:*) words='");
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
                if (i == 0 || strcmp(commands[i].name, commands[i - 1].name) != 0)
                        printf("%s ", commands[i].name);
        }
        printf("' ;;\n"
               "        2:lock) words='run acquire session renew release info list watch' ;;\n"
               "        2:kv) words='get put del list history watch' ;;\n"
               "        2:flag) words='set get list history revert del kill eval' ;;\n"
               "        2:config) words='set get list history revert del' ;;\n"
               "        2:service) words='list register' ;;\n"
               "        2:pki) words='init node list' ;;\n"
               "        2:lab) words='");
        for (size_t i = 0; lab_commands[i].name != NULL; i++)
                printf("%s ", lab_commands[i].name);
        printf("' ;;\n        *) words='");
        for (size_t i = 0; i < LAB_REGIONS; i++)
                printf("%s ", lab_regions[i].name);
        printf("' ;;\n        esac\n"
               "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
               "}\n"
               "complete -o default -F _meridian meridian build/meridian\n");
        return CLI_DONE;
}

/* ---- options ---- */

static bool node_add(struct cli *cli, const char *text)
{
        const char *colon = strrchr(text, ':');
        if (cli->node_count == CLI_NODES_MAX || colon == NULL || colon == text ||
            strlen(text) >= sizeof cli->nodes[0].admin) {
                cli_error("\"%s\" is no node: write HOST:PORT, e.g. 127.10.0.1:7400", text);
                return false;
        }
        struct cli_node *node = &cli->nodes[cli->node_count++];
        snprintf(node->admin, sizeof node->admin, "%s", text);
        const char *host = text[0] == '[' ? text + 1 : text;
        size_t len = (size_t)(colon - host) - (text[0] == '[' ? 1 : 0);
        snprintf(node->host, sizeof node->host, "%.*s", (int)len, host);
        return true;
}

/* The admin door of this machine's own node, as its configuration has it. */
static bool node_of_machine(struct cli *cli)
{
        static struct config config; /* large */
        struct config_error error;
        char node[CONFIG_HOST_MAX + 16];
        const char *path = cli_config_path();
        if (access(path, F_OK) != 0)
                return true;
        if (config_load(path, &config, &error) != ERR_NONE) {
                cli_error("%s", error.text);
                return false;
        }
        const char *host = config.admin.host;
        if (strcmp(host, "0.0.0.0") == 0)
                host = "127.0.0.1";
        else if (strcmp(host, "::") == 0)
                host = "::1";
        bool six = strchr(host, ':') != NULL;
        snprintf(node, sizeof node, "%s%s%s:%u", six ? "[" : "", host, six ? "]" : "",
                 config.admin.port);
        snprintf(cli->from, sizeof cli->from, "%s", path);
        return node_add(cli, node);
}

/* Where no node was named: the environment, then the lab, then this machine's own node. */
static bool nodes_find(struct cli *cli)
{
        char lab[sizeof cli->from - 16];
        char node[96];
        const char *environment = getenv("MERIDIAN_NODE");
        if (cli->node_count > 0) {
                snprintf(cli->from, sizeof cli->from, "--node");
                return true;
        }
        if (environment != NULL && environment[0] != '\0') {
                snprintf(cli->from, sizeof cli->from, "MERIDIAN_NODE");
                return node_add(cli, environment);
        }
        if (!lab_find(lab, sizeof lab))
                return node_of_machine(cli);
        snprintf(cli->from, sizeof cli->from, "the lab in %s", lab);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                snprintf(node, sizeof node, "%s:%d", lab_regions[i].address, LAB_PORT_ADMIN);
                if (!node_add(cli, node))
                        return false;
        }
        return true;
}

/* Takes the options out of argv; what stays are the words. Everything after "--" is a word. */
static bool options_take(struct cli *cli, int argc, char **argv, char **words, int *ret_count)
{
        bool options = true;
        *ret_count = 0;
        for (int i = 1; i < argc; i++) {
                if (options && strcmp(argv[i], "--") == 0) {
                        options = false;
                        /* `lock run` tells its own options from the command by it. */
                        if (*ret_count > 0 && strcmp(words[0], "lock") == 0)
                                words[(*ret_count)++] = argv[i];
                } else if (options && strcmp(argv[i], "--json") == 0) {
                        cli->json = true;
                } else if (options && (strcmp(argv[i], "-f") == 0)) {
                        cli->follow = true;
                } else if (options && strcmp(argv[i], "--region") == 0) {
                        if (i + 1 == argc)
                                return cli_error("--region wants a region's name") == CLI_DONE;
                        cli->region = argv[++i];
                } else if (options && strcmp(argv[i], "--node") == 0) {
                        if (i + 1 == argc)
                                return cli_error("--node wants HOST:PORT") == CLI_DONE;
                        if (!node_add(cli, argv[++i]))
                                return false;
                } else {
                        words[(*ret_count)++] = argv[i];
                }
        }
        return true;
}

static int command_run(struct cli *cli, const char *name)
{
        const struct command *found = NULL;
        for (size_t i = 0; i < COUNT_OF(commands) && found == NULL; i++) {
                if (strcmp(commands[i].name, name) == 0)
                        found = &commands[i];
        }
        if (found == NULL || found->run == NULL) {
                cli_error("there is no command \"%s\"; `meridian help` lists them", name);
                return CLI_USAGE;
        }
        if (cli->argc < found->args_min || cli->argc > found->args_max) {
                cli_error("usage: meridian %s %s", found->name, found->arguments);
                return CLI_USAGE;
        }
        if (!nodes_find(cli))
                return CLI_USAGE;
        return found->run(cli);
}

int main(int argc, char **argv)
{
        static struct cli cli;
        int count = 0;
        term_start();
        if (argc > 1 && strcmp(argv[1], "lab") == 0)
                return lab_main(argc - 2, argv + 2);
        if (argc == 1) {
                (void)command_help(&cli);
                return CLI_USAGE;
        }
        if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
                printf("meridian %s\n", MERIDIAN_VERSION);
                return CLI_DONE;
        }
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
                return command_help(&cli);
        char **words = calloc((size_t)argc, sizeof *words);
        if (words == NULL)
                return cli_error("out of memory");
        int status = CLI_USAGE;
        if (options_take(&cli, argc, argv, words, &count) && count > 0) {
                cli.argc = count - 1;
                cli.argv = words + 1;
                status = command_run(&cli, words[0]);
        }
        free(words);
        if (fflush(stdout) != 0)
                status = CLI_FAILED;
        return status;
}
