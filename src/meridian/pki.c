/* pki.c - `meridian pki`: the cluster's authority, and the certificates that it gives to nodes.
 *
 * The authority is a folder on one machine, which need not be a node. What it issues for a node is
 * a folder, too, which goes to that node as it is. */
#include "pki/pki.h"
#include "base/digits.h"
#include "meridian/cli.h"
#include "term/term.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define DAY_S 86400

static const struct pki_validity ca_validity = {-3600, (int64_t)PKI_DAYS_CA *DAY_S};
static const struct pki_validity node_validity = {-3600, (int64_t)PKI_DAYS_NODE *DAY_S};

static void json_say(json_t *json)
{
        cli_print_json(json);
        json_decref(json);
}

static int pki_init(struct cli *cli)
{
        const char *dir = cli->argv[1];
        struct pki_error error;
        if (pki_ca_make(dir, cli->argv[2], ca_validity, &error) != ERR_NONE)
                return cli_error("%s", error.text);
        if (cli->json) {
                json_say(json_pack("{s:s, s:s}", "dir", dir, "cluster", cli->argv[2]));
                return CLI_DONE;
        }
        printf("The authority of cluster %s is in %s, for %d years.\n"
               "Keep ca.key where no node is: who has it can make nodes.\n"
               "Next, for each node: meridian pki node %s REGION NUMBER FOLDER\n",
               cli->argv[2], dir, PKI_DAYS_CA / 365, dir);
        return CLI_DONE;
}

static int pki_node(struct cli *cli)
{
        const char *dir = cli->argv[1], *folder = cli->argv[4];
        struct pki_identity identity;
        struct pki_error error;
        uint64_t number = 0;
        char cluster[PKI_NAME_MAX + 1];
        if (!digits_parse(bytes_of_str(cli->argv[3]), UINT32_MAX, &number) || number == 0)
                return cli_error("\"%s\" is no node's number: it is the `id` of the node in the "
                                 "topology, 1 or more",
                                 cli->argv[3]);
        if (pki_ca_cluster(dir, cluster, &error) != ERR_NONE)
                return cli_error("%s", error.text);
        if (pki_identity_set(&identity, cluster, cli->argv[2], (uint32_t)number) != ERR_NONE)
                return cli_error("\"%s\" is no region's name: 1 to %d letters, digits, '-' or '_'",
                                 cli->argv[2], PKI_NAME_MAX);
        if (pki_node_issue(dir, folder, &identity, node_validity, &error) != ERR_NONE)
                return cli_error("%s", error.text);
        if (cli->json) {
                json_say(json_pack("{s:s, s:s, s:s, s:i}", "folder", folder, "cluster", cluster,
                                   "region", identity.region, "node", (int)identity.node));
                return CLI_DONE;
        }
        printf("%s: ca.crt, node.crt and node.key of node %u in %s, cluster %s, for %d days.\n",
               folder, identity.node, identity.region, cluster, PKI_DAYS_NODE);
        return CLI_DONE;
}

/* ---- what was issued ---- */

/* "2029-02-23": whole days from today; false where it is no date. */
static bool days_left(const char *date, long *ret_days)
{
        struct tm end = {0};
        const char *rest = strptime(date, "%Y-%m-%d", &end);
        if (rest == NULL || *rest != '\0')
                return false;
        *ret_days = (long)((timegm(&end) - time(NULL)) / DAY_S);
        return true;
}

/* A line of ca.issued: serial, identity, end. */
static bool issued_read(char *line, struct pki_identity *ret_identity, const char *ret_words[3],
                        long *ret_days)
{
        char *rest = NULL;
        ret_words[0] = strtok_r(line, " \n", &rest);
        for (size_t i = 1; i < 3; i++)
                ret_words[i] = strtok_r(NULL, " \n", &rest);
        return ret_words[2] != NULL && strtok_r(NULL, " \n", &rest) == NULL &&
               pki_identity_parse(bytes_of_str(ret_words[1]), ret_identity) == ERR_NONE &&
               days_left(ret_words[2], ret_days);
}

static void issued_print(const struct cli *cli, json_t *list, const struct pki_identity *identity,
                         const char *const words[3], long days)
{
        if (cli->json) {
                (void)json_array_append_new(
                        list, json_pack("{sssisssssi}", "region", identity->region, "node",
                                        (int)identity->node, "serial", words[0], "until", words[2],
                                        "days_left", (int)days));
                return;
        }
        printf("  ");
        term_cell(TERM_PLAIN, identity->region, 20);
        printf(" %5u  %s  ", identity->node, words[2]);
        term_cell(days < 30 ? TERM_BAD : TERM_PLAIN, days < 0 ? "has ended" : "", 10);
        printf(" %s\n", words[0]);
}

static int pki_list(struct cli *cli)
{
        char path[1024], line[1024];
        struct pki_identity identity;
        const char *words[3];
        long days = 0;
        int status = CLI_DONE;
        int len = snprintf(path, sizeof path, "%s/ca.issued", cli->argv[1]);
        FILE *file = len > 0 && (size_t)len < sizeof path ? fopen(path, "re") : NULL;
        if (file == NULL)
                return cli_error("%s: %s: no authority that has issued anything is there", path,
                                 strerrordesc_np(errno));
        json_t *list = json_array();
        if (!cli->json)
                printf("  region                node  until                  serial\n");
        for (unsigned number = 1; fgets(line, sizeof line, file) != NULL; number++) {
                if (issued_read(line, &identity, words, &days))
                        issued_print(cli, list, &identity, words, days);
                else
                        status = cli_error("%s: line %u is damaged", path, number);
        }
        fclose(file);
        if (cli->json)
                cli_print_json(list);
        json_decref(list);
        return status;
}

int cli_pki(struct cli *cli)
{
        static const struct {
                const char *name;
                int args;
                int (*run)(struct cli *cli);
                const char *usage;
        } rows[] = {
                {"init", 3, pki_init, "init DIR CLUSTER"},
                {"node", 5, pki_node, "node DIR REGION NUMBER FOLDER"},
                {"list", 2, pki_list, "list DIR"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (strcmp(rows[i].name, cli->argv[0]) != 0)
                        continue;
                if (cli->argc == rows[i].args)
                        return rows[i].run(cli);
                cli_error("usage: meridian pki %s", rows[i].usage);
                return CLI_USAGE;
        }
        cli_error("there is no \"pki %s\": init, node or list", cli->argv[0]);
        return CLI_USAGE;
}
