/* commands.h - the table of commands. Help, usage, completion and the check of options are made
 * from its rows; docs/man/meridian.1 says more, and a test compares. */
#ifndef MERIDIAN_MERIDIAN_COMMANDS_H
#define MERIDIAN_MERIDIAN_COMMANDS_H

#include "meridian/cli.h"

struct command {
        const char *name;
        const char *action;  /* the word behind it; NULL: it has none */
        const char *words;   /* what comes then, for people */
        const char *options; /* all that it takes, but --node */
        const char *help;
        int words_min; /* the action not counted, options that the command reads itself are */
        int words_max;
        int (*run)(struct cli *cli);
        bool local; /* asks no node, or looks for them itself */
};

/* The row of a command and, where it has actions, of the one that argv[0] names. NULL: there is no
 * such command, or action: said on stderr. */
const struct command *command_find(const struct cli *cli, const char *name);

/* May `option` ("--json") stand in this command? */
MUST_USE bool command_has_option(const struct command *command, const char *option);

/* Says on stderr how a command is written; returns CLI_USAGE. */
int command_usage(const struct command *command);

/* All commands (`name` NULL) or one with its options, on stdout. */
int commands_print(const char *name);

#endif
