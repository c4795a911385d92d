/* conflicts.c - `meridian conflicts`: what concurrent writes have lost, as the regions of the
 * winners tell it. Every node that is known is asked, for each tells of its own region; what two
 * nodes of a region both tell of one of its servers is shown once. A node that does not answer is
 * said, and left out. What has no server, of an older daemon, counts as of one. */
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
        ASK_MS = 4000,
        PAUSE_NS = 500000000,
        SERVER_SIZE = 64,
};

/* One that tells of conflicts; its ids rise. */
struct server {
        json_int_t region;
        char name[SERVER_SIZE];
        uint64_t shown; /* id of the last one */
};

struct follow {
        const struct cli *cli;
        uint64_t since[CLI_NODES_MAX]; /* of each node's list */
        struct server *servers;
        size_t server_count;
        bool dead[CLI_NODES_MAX]; /* said already */
};

static const char *text_of(json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? "" : text;
}

/* Control characters of a value must not reach the terminal. */
static void print_value(const char *text, size_t max)
{
        putchar('"');
        for (size_t i = 0; text[i] != 0 && i < max; i++)
                putchar((unsigned char)text[i] < ' ' || text[i] == 0x7f ? '.' : text[i]);
        printf(strlen(text) > max ? "...\"" : "\"");
}

static void clock_write(json_int_t ms, char *text, size_t size)
{
        struct tm utc;
        time_t seconds = (time_t)(ms / 1000);
        text[0] = 0;
        if (gmtime_r(&seconds, &utc) != NULL)
                (void)strftime(text, size, "%Y-%m-%d %H:%M:%S", &utc);
}

/* Since when a node has heard of conflicts, and how many it could not hear of. */
static void print_since(const struct cli *cli, const char *node, json_t *answer)
{
        char clock[32];
        json_int_t missed = json_integer_value(json_object_get(answer, "missed"));
        json_t *since = json_object_get(answer, "since_ms");
        if (cli->json || cli->follow || since == NULL)
                return;
        clock_write(json_integer_value(since), clock, sizeof clock);
        printf("%s%s has listened since %sZ", term_style(TERM_DIM), node, clock);
        if (missed > 0)
                printf(", and missed %lld", (long long)missed);
        printf("%s\n", term_style(TERM_PLAIN));
}

static void print_conflict(json_t *conflict)
{
        char clock[32];
        json_int_t ms = json_integer_value(json_object_get(conflict, "at_ms"));
        json_int_t count = json_integer_value(json_object_get(conflict, "count"));
        json_t *lost = json_object_get(conflict, "lost");
        json_t *won = json_object_get(conflict, "won");
        clock_write(ms, clock, sizeof clock);
        printf("%s%s.%03dZ%s  ", term_style(TERM_DIM), clock, (int)(ms % 1000),
               term_style(TERM_PLAIN));
        term_cell(TERM_BOLD, text_of(conflict, "kind"), 13);
        putchar(' ');
        print_value(text_of(conflict, "key"), 60);
        if (text_of(conflict, "field")[0] != 0) {
                printf(" field ");
                print_value(text_of(conflict, "field"), 40);
        }
        printf("  %s ", text_of(lost, "region_name"));
        print_value(text_of(lost, "value"), 40);
        printf(" %s %s ", term_symbol(TERM_ARROW), text_of(won, "region_name"));
        print_value(text_of(won, "value"), 40);
        if (count > 1)
                printf("  x%lld", (long long)count);
        printf("  %s%s%s\n", term_style(TERM_DIM), text_of(conflict, "why"),
               term_style(TERM_PLAIN));
}

/* NULL: there is no memory. */
static struct server *server_of(struct follow *follow, json_t *conflict)
{
        json_int_t region = json_integer_value(json_object_get(conflict, "region"));
        const char *name = text_of(conflict, "server");
        for (size_t i = 0; i < follow->server_count; i++)
                if (follow->servers[i].region == region &&
                    strncmp(follow->servers[i].name, name, SERVER_SIZE - 1) == 0)
                        return &follow->servers[i];
        struct server *grown = realloc(follow->servers, (follow->server_count + 1) * sizeof *grown);
        if (grown == NULL)
                return NULL;
        follow->servers = grown;
        struct server *server = &grown[follow->server_count++];
        *server = (struct server){.region = region};
        snprintf(server->name, sizeof server->name, "%s", name);
        return server;
}

static void show(struct follow *follow, json_t *conflict)
{
        uint64_t id = (uint64_t)json_integer_value(json_object_get(conflict, "id"));
        const struct cli *cli = follow->cli;
        struct server *server = server_of(follow, conflict);
        if (server == NULL || id <= server->shown)
                return;
        server->shown = id;
        if (cli->region != NULL && strcmp(cli->region, text_of(conflict, "region_name")) != 0)
                return;
        if (cli->json)
                cli_print_json_line(conflict);
        else
                print_conflict(conflict);
}

/* The prefix is compared here: it may hold what a path cannot. */
static bool prefix_fits(const struct cli *cli, json_t *conflict)
{
        if (cli->argc == 0)
                return true;
        size_t len = strlen(cli->argv[0]);
        return strncmp(text_of(conflict, "key"), cli->argv[0], len) == 0;
}

/* Asks one node; true where it answered. */
static bool ask(struct follow *follow, size_t at)
{
        char path[64];
        struct client_answer answer;
        const struct cli *cli = follow->cli;
        const char *node = cli->nodes[at].admin;
        snprintf(path, sizeof path, "/conflicts?since=%llu", (unsigned long long)follow->since[at]);
        if (!client_get(node, path, ASK_MS, &answer)) {
                if (!follow->dead[at])
                        fprintf(stderr, "%s%s does not answer (%s): its region is left out%s\n",
                                term_style(TERM_DIM), node, answer.error, term_style(TERM_PLAIN));
                follow->dead[at] = true;
                follow->since[at] = 0;
                client_answer_fini(&answer);
                return false;
        }
        follow->dead[at] = false;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return false;
        size_t index = 0;
        json_t *conflict = NULL;
        json_array_foreach(json_object_get(json, "conflicts"), index, conflict)
        {
                if (prefix_fits(cli, conflict))
                        show(follow, conflict);
        }
        print_since(cli, node, json);
        uint64_t next = (uint64_t)json_integer_value(json_object_get(json, "next"));
        follow->since[at] = next < follow->since[at] ? 0 : next;
        json_decref(json);
        return true;
}

static int follow_all(struct follow *follow)
{
        const struct cli *cli = follow->cli;
        for (;;) {
                bool any = false;
                for (size_t i = 0; i < cli->node_count; i++)
                        any = ask(follow, i) || any;
                fflush(stdout);
                if (!any && !cli->follow)
                        return cli_nodes_silent(cli);
                if (!cli->follow)
                        return CLI_DONE;
                struct timespec pause = {.tv_nsec = PAUSE_NS};
                nanosleep(&pause, NULL);
        }
}

int cli_conflicts(struct cli *cli)
{
        struct follow follow = {.cli = cli};
        if (cli->region != NULL && !cli_regions_check(cli, cli->region))
                return CLI_FAILED;
        int status = follow_all(&follow);
        free(follow.servers);
        return status;
}
