/* main.c - the command line: takes the options, finds the nodes, runs the command that
 * commands.c has a row for. */
#include "config/config.h"
#include "lab/lab.h"
#include "meridian/cli.h"
#include "meridian/commands.h"
#include "meridian/lock_options.h"
#include "term/term.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
        node->lock_port = LOCK_DOOR_PORT;
        return true;
}

/* Where a door that listens on all addresses is reached from here. */
static const char *host_reachable(const struct config_address *door)
{
        if (strcmp(door->host, "0.0.0.0") == 0)
                return "127.0.0.1";
        return strcmp(door->host, "::") == 0 ? "::1" : door->host;
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
        const char *host = host_reachable(&config.admin);
        bool six = strchr(host, ':') != NULL;
        snprintf(node, sizeof node, "%s%s%s:%u", six ? "[" : "", host, six ? "]" : "",
                 config.admin.port);
        snprintf(cli->from, sizeof cli->from, "%s of %s", node, path);
        cli->advice = "Does meridiand run? (systemctl status meridiand)";
        if (!node_add(cli, node))
                return false;
        struct cli_node *own = &cli->nodes[cli->node_count - 1];
        snprintf(own->host, sizeof own->host, "%s", host_reachable(&config.locks));
        own->lock_port = config.locks.port;
        return true;
}

bool cli_nodes_find(struct cli *cli)
{
        char lab[sizeof cli->from - 16];
        char node[96];
        const char *environment = getenv("MERIDIAN_NODE");
        cli->advice = "Does meridiand run there, and may this machine reach its admin door?";
        if (cli->node_count > 0) {
                snprintf(cli->from, sizeof cli->from, "what --node names");
                return true;
        }
        if (environment != NULL && environment[0] != '\0') {
                snprintf(cli->from, sizeof cli->from, "MERIDIAN_NODE, %s", environment);
                return node_add(cli, environment);
        }
        if (!lab_find(lab, sizeof lab))
                return node_of_machine(cli);
        snprintf(cli->from, sizeof cli->from, "the lab in %s", lab);
        cli->advice = "`meridian lab status` says what runs, `make lab` starts it";
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                snprintf(node, sizeof node, "%s:%d", lab_regions[i].address, LAB_PORT_ADMIN);
                if (!node_add(cli, node))
                        return false;
        }
        return true;
}

/* argv without the options that all commands share. */
struct words {
        char **items;
        const char **options; /* those of the items that stand before "--" and begin with '-' */
        int count;
        int option_count;
        bool help;
};

/* The value of an option of ours; NULL: it is missing, as is said. */
static const char *value_take(const char *option, const char *what, int argc, char **argv, int *at)
{
        if (*at + 1 < argc)
                return argv[++*at];
        cli_error("%s wants %s", option, what);
        return NULL;
}

static void word_take(struct words *words, char *word, bool options)
{
        words->items[words->count++] = word;
        bool option = word[0] == '-' && (word[1] == '-' || isalpha((unsigned char)word[1]));
        if (options && option)
                words->options[words->option_count++] = word;
}

/* One option, or a word. False: said. */
static bool argument_take(struct cli *cli, int argc, char **argv, int *at, struct words *words)
{
        static const char *const followed[] = {"-f", "--json", "--region"};
        char *word = argv[*at];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
                words->help = true;
        } else if (strcmp(word, "--node") == 0) {
                const char *node = value_take(word, "HOST:PORT", argc, argv, at);
                return node != NULL && node_add(cli, node);
        } else if (strcmp(word, followed[0]) == 0) {
                cli->follow = true;
                words->options[words->option_count++] = followed[0];
        } else if (strcmp(word, followed[1]) == 0) {
                cli->json = true;
                words->options[words->option_count++] = followed[1];
        } else if (strcmp(word, followed[2]) == 0) {
                cli->region = value_take(word, "a region's name", argc, argv, at);
                words->options[words->option_count++] = followed[2];
                return cli->region != NULL;
        } else {
                word_take(words, word, true);
        }
        return true;
}

/* Everything after "--" is a word. */
static bool options_take(struct cli *cli, int argc, char **argv, struct words *words)
{
        bool options = true;
        for (int i = 1; i < argc; i++) {
                if (!options) {
                        word_take(words, argv[i], false);
                } else if (strcmp(argv[i], "--") == 0) {
                        options = false;
                        /* `lock run` tells its own options from the command by it. */
                        if (words->count > 0 && strcmp(words->items[0], "lock") == 0)
                                word_take(words, argv[i], false);
                } else if (!argument_take(cli, argc, argv, &i, words)) {
                        return false;
                }
        }
        return true;
}

static bool options_check(const struct command *command, const struct words *words)
{
        for (int i = 0; i < words->option_count; i++) {
                if (command_has_option(command, words->options[i]))
                        continue;
                cli_error("`meridian %s%s%s` has no option %s (a word that is none: behind --)",
                          command->name, command->action == NULL ? "" : " ",
                          command->action == NULL ? "" : command->action, words->options[i]);
                return false;
        }
        return true;
}

static int command_run(struct cli *cli, const struct words *words)
{
        cli->argc = words->count - 1;
        cli->argv = words->items + 1;
        if (words->help)
                return commands_print(words->items[0]);
        const struct command *command = command_find(cli, words->items[0]);
        if (command == NULL)
                return CLI_USAGE;
        int count = cli->argc - (command->action != NULL ? 1 : 0);
        if (!options_check(command, words) || count < command->words_min ||
            count > command->words_max)
                return command_usage(command);
        if (!command->local && !cli_nodes_find(cli))
                return CLI_USAGE;
        return command->run(cli);
}

static int run(int argc, char **argv)
{
        static struct cli cli;
        struct words words = {.items = calloc((size_t)argc, sizeof *words.items),
                              .options = calloc((size_t)argc, sizeof *words.options)};
        int status = CLI_USAGE;
        if (words.items == NULL || words.options == NULL)
                status = cli_error("out of memory");
        else if (options_take(&cli, argc, argv, &words))
                status = words.count > 0 ? command_run(&cli, &words) : commands_print(NULL);
        free(words.items);
        free(words.options);
        return status;
}

int main(int argc, char **argv)
{
        term_start();
        if (argc > 1 && strcmp(argv[1], "lab") == 0)
                return lab_main(argc - 2, argv + 2);
        if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
                printf("meridian %s\n", MERIDIAN_VERSION);
                return CLI_DONE;
        }
        int status = run(argc, argv);
        if (argc == 1)
                status = CLI_USAGE;
        if (fflush(stdout) != 0)
                status = cli_error("what is printed cannot be written: %s", strerror(errno));
        return status;
}
