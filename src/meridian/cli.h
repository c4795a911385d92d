/* cli.h - what the files of the command line share. */
#ifndef MERIDIAN_MERIDIAN_CLI_H
#define MERIDIAN_MERIDIAN_CLI_H

#include "base/bytes.h"
#include "client/client.h"

#include <jansson.h>

enum {
        CLI_DONE = 0,
        CLI_FAILED = 1,
        CLI_USAGE = 2,
        CLI_NODES_MAX = 16,
};

struct cli_node {
        char admin[96]; /* "127.10.0.1:7400" */
        char host[80];  /* of its door for locks */
        uint16_t lock_port;
};

/* Where the nodes are, and what the options say. */
struct cli {
        struct cli_node nodes[CLI_NODES_MAX];
        size_t node_count;
        char from[256];     /* where the list of nodes comes from, for people */
        const char *advice; /* what to do where none of them answers */
        bool json;
        bool follow;
        const char *region; /* NULL: all */
        int argc;           /* the command's own arguments */
        char **argv;
};

/* Says on stderr what is wrong, where, what to do; returns CLI_FAILED. */
int cli_error(const char *format, ...) PRINTF_LIKE(1, 2);

/* Where no node was named: the environment, then the lab, then this machine's own node. False, said
 * on stderr, where what names them cannot be read. */
MUST_USE bool cli_nodes_find(struct cli *cli);

/* Say on stderr that no node is named, or none answers, and what to do; return CLI_FAILED. */
int cli_nodes_unnamed(void);
int cli_nodes_silent(const struct cli *cli);

/* Are all of these regions, "a,b", in the topology? False: said on stderr. */
MUST_USE bool cli_regions_check(const struct cli *cli, const char *list);

/* Asks the nodes in turn until one answers; those that do not are told on stderr. False, said on
 * stderr, where none does. `ret_node` (may be NULL) is who answered. */
MUST_USE bool cli_get(const struct cli *cli, const char *path, struct client_answer *ret_answer,
                      const struct cli_node **ret_node);
MUST_USE bool cli_post(const struct cli *cli, const char *path, struct bytes body,
                       struct client_answer *ret_answer);

/* The JSON of an answer of status 200; else NULL, with the node's own words on stderr. Ends the
 * answer in either case. */
MUST_USE json_t *cli_json(struct client_answer *answer);

/* Prints JSON for programs; in one line where there are many. */
void cli_print_json(json_t *json);
void cli_print_json_line(json_t *json);

/* "30s", "500ms", "2m" or "1500" (milliseconds). */
MUST_USE bool cli_duration(const char *text, uint64_t *ret_ms);

/* Where this machine's node has its configuration; there may be none. */
const char *cli_config_path(void);

/* "12 kB", "1.2 MB": in at most 8 columns. */
void cli_bytes_text(double bytes, char *text, size_t size);

/* Who runs this, for the audit. Borrowed from the environment. */
const char *cli_user(void);

/* The PostgreSQL part of a status; nothing where there is no cluster. */
void cli_print_postgres(json_t *postgres);
void cli_print_redis(json_t *regions); /* with "servers" in them, as far as nodes have told */

/* The document in force and its epoch, as GET /topology answers; NULL: said on stderr. */
json_t *cli_topology_get(const struct cli *cli);

/* ---- commands ---- */
int cli_status(struct cli *cli);
int cli_top(struct cli *cli);
int cli_topology(struct cli *cli);
int cli_plan(struct cli *cli);
int cli_apply(struct cli *cli);
int cli_why_route(struct cli *cli);
int cli_events(struct cli *cli);
int cli_conflicts(struct cli *cli);
int cli_verify(struct cli *cli);
int cli_lock(struct cli *cli);
int cli_kv(struct cli *cli);
int cli_flag(struct cli *cli);
int cli_config(struct cli *cli);
int cli_service(struct cli *cli);
int cli_drain(struct cli *cli);
int cli_undrain(struct cli *cli);
int cli_isolate(struct cli *cli);
int cli_unisolate(struct cli *cli);
int cli_evacuate(struct cli *cli);
int cli_unevacuate(struct cli *cli);
int cli_switchover(struct cli *cli);
int cli_failover(struct cli *cli);
int cli_pki(struct cli *cli);
int cli_doctor(struct cli *cli);
int cli_doors(struct cli *cli);
int cli_backup(struct cli *cli);
int cli_restore(struct cli *cli);

#endif
