/* lab.c - the commands of the lab. Each holds `.lab/lock` while it changes something, so that two
 * at once do not mix; each leaves the lab as it found it, or as it was asked to be, or says what is
 * in between and how to get out of it (`lab down` always ends everything). */
#include "lab/lab.h"

#include "lab/lab_priv.h"
#include "term/term.h"

static void status_part(const char *name, bool runs)
{
        printf(" %s%s%s %s", term_style(runs ? TERM_GOOD : TERM_BAD),
               term_symbol(runs ? TERM_OK : TERM_FAIL), term_style(TERM_PLAIN), name);
}

static int command_status(int argc, char **argv)
{
        static struct lab lab;
        (void)argc;
        (void)argv;
        if (!lab_open_made(&lab))
                return 1;
        printf("lab in %s\n\n", lab.dir);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                term_cell(TERM_HEAD, lab_regions[i].name, 14);
                for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                        if (!lab_part_used(&lab, &lab_regions[i], part))
                                continue;
                        pid_t pid = lab_process_pid(&lab, &lab_regions[i], part);
                        status_part(lab_part_name(part), pid != 0);
                        if (pid != 0)
                                printf(" (%d)", (int)pid);
                }
                if (lab_postgres_used(&lab) && !lab_is_witness(&lab, &lab_regions[i]))
                        status_part("postgres",
                                    lab_postgres_signal(&lab, &lab_regions[i], 0, 0) > 0);
                putchar('\n');
        }
        putchar('\n');
        lab_links_print(&lab);
        return lab_alive_count(&lab, NULL) == lab_part_count(&lab) ? 0 : 1;
}

static int command_certificate(int argc, char **argv)
{
        static struct lab lab;
        if (argc != 3)
                return lab_usage("certificate REGION ID");
        return lab_open_made(&lab) && lab_owner_check(&lab)
                       ? lab_certificate(&lab, argv[1], argv[2])
                       : 1;
}

/* ---- the table ---- */

const struct lab_command lab_commands[] = {
        {"up", "[--nodes N] [--servers N] [--witness] [--without postgres]",
         "start three regions (of N nodes and servers; the third a witness)"},
        {"down", "[--wipe]", "end everything; --wipe removes the data too"},
        {"status", "", "what runs, and how the links are; exit 1 unless all runs"},
        {"kill", "REGION[/NODE]", "kill -9 everything of a region, or one node of it"},
        {"start", "REGION[/NODE]", "start what is missing in a region"},
        {"partition", "REGION REGION", "let nothing pass between two regions"},
        {"heal", "[REGION REGION]", "undo partition, slow and lose"},
        {"slow", "REGION REGION TIME", "make round trips longer, e.g. by 300ms"},
        {"lose", "REGION REGION SHARE", "lose packets, e.g. 5%"},
        {"certificate", "REGION ID", "a certificate for a node that you add yourself"},
        {"backend", "--listen HOST:PORT --region NAME", "run one sample backend"},
        {NULL, NULL, NULL},
};

static int (*const handlers[])(int argc, char **argv) = {
        lab_command_up,    lab_command_down,      command_status,   lab_command_kill,
        lab_command_start, lab_command_partition, lab_command_heal, lab_command_slow,
        lab_command_lose,  command_certificate,   lab_backend,
};
_Static_assert(COUNT_OF(handlers) + 1 == COUNT_OF(lab_commands), "a handler for each command");

int lab_main(int argc, char **argv)
{
        for (size_t i = 0; argc > 0 && lab_commands[i].name != NULL; i++) {
                if (strcmp(argv[0], lab_commands[i].name) == 0)
                        return handlers[i](argc, argv);
        }
        bool help = argc == 0 || strcmp(argv[0], "help") == 0 || strcmp(argv[0], "--help") == 0 ||
                    strcmp(argv[0], "-h") == 0;
        if (!help)
                lab_error("no command \"lab %s\"; there are:", argv[0]);
        for (size_t i = 0; lab_commands[i].name != NULL; i++)
                fprintf(help ? stdout : stderr, "  meridian lab %s%s%s\n        %s\n",
                        lab_commands[i].name, lab_commands[i].arguments[0] == '\0' ? "" : " ",
                        lab_commands[i].arguments, lab_commands[i].help);
        return help ? 0 : 2;
}
