/* operate.c - commands that ask about or change the cluster: topology, events,
 * why-route, drain and the like. */
#include "meridian/evacuate.h"
#include "term/term.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

const char *cli_user(void)
{
        const char *user = getenv("SUDO_USER");
        if (user == NULL || user[0] == '\0')
                user = getenv("USER");
        return user == NULL || user[0] == '\0' ? "operator" : user;
}

/* ---- topology ---- */

json_t *cli_topology_get(const struct cli *cli)
{
        struct client_answer answer;
        if (!cli_get(cli, "/topology", &answer, NULL))
                return NULL;
        return cli_json(&answer);
}

int cli_topology(struct cli *cli)
{
        json_t *json = cli_topology_get(cli);
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                fputs(json_string_value(json_object_get(json, "document")), stdout);
        json_decref(json);
        return CLI_DONE;
}

/* ---- regions ---- */

json_t *cli_region_ask(const struct cli *cli, const char *region, const char *action,
                       const char *why)
{
        char path[1024];
        struct client_answer answer;
        char *name = client_escape(region);
        char *reason = client_escape(why);
        char *actor = client_escape(cli_user());
        int len = -1;
        if (name != NULL && reason != NULL && actor != NULL)
                len = snprintf(path, sizeof path, "/region/%s/%s?actor=%s&why=%s", name, action,
                               actor, reason);
        free(name);
        free(reason);
        free(actor);
        if (len < 0 || (size_t)len >= sizeof path)
                (void)cli_error("the reason is too long: a sentence is enough");
        else if (cli_post(cli, path, BYTES(""), &answer))
                return cli_json(&answer);
        return NULL;
}

static int region_act(struct cli *cli, const char *action)
{
        if (!cli_regions_check(cli, cli->argv[0]))
                return CLI_FAILED;
        json_t *json = cli_region_ask(cli, cli->argv[0], action, cli->argc > 1 ? cli->argv[1] : "");
        if (json == NULL)
                return CLI_FAILED;
        const char *state = json_string_value(json_object_get(json, "state"));
        if (cli->json)
                cli_print_json(json);
        else
                printf("%s is %s\n", cli->argv[0], state == NULL ? "changed" : state);
        json_decref(json);
        return CLI_DONE;
}

int cli_drain(struct cli *cli)
{
        return region_act(cli, "drain");
}

int cli_undrain(struct cli *cli)
{
        return region_act(cli, "undrain");
}

int cli_isolate(struct cli *cli)
{
        return region_act(cli, "isolate");
}

int cli_unisolate(struct cli *cli)
{
        return region_act(cli, "unisolate");
}

/* ---- why-route ---- */

static void route_print(json_t *json)
{
        size_t index = 0;
        json_t *choice = NULL;
        json_t *place = json_object_get(json, "place");
        const char *country = json_string_value(json_object_get(place, "country"));
        const char *region = json_string_value(json_object_get(json, "region"));
        printf("%s for %s %s ", json_string_value(json_object_get(json, "client")),
               json_string_value(json_object_get(json, "name")), term_symbol(TERM_ARROW));
        term_cell(TERM_HEAD, region == NULL ? "no region" : region, 0);
        printf("   (policy %s, client in %s)\n", json_string_value(json_object_get(json, "policy")),
               json_is_null(place) ? "an unknown place"
               : country == NULL   ? "?"
                                   : country);
        if (json_is_true(json_object_get(json, "fail_open")))
                printf("  %sno region may be routed to: answered as if all were well%s\n",
                       term_style(TERM_WARN), term_style(TERM_PLAIN));
        json_array_foreach(json_object_get(json, "choices"), index, choice)
        {
                bool usable = json_is_true(json_object_get(choice, "usable"));
                printf("  %s%zu.%s ", term_style(TERM_DIM), index + 1, term_style(TERM_PLAIN));
                term_cell(usable ? TERM_GOOD : TERM_BAD,
                          json_string_value(json_object_get(choice, "rule")), 16);
                printf(" %s\n", json_string_value(json_object_get(choice, "why")));
        }
}

int cli_why_route(struct cli *cli)
{
        char path[1024];
        struct client_answer answer;
        char *client = client_escape(cli->argv[0]);
        char *name = client_escape(cli->argv[1]);
        int len = -1;
        if (client != NULL && name != NULL)
                len = snprintf(path, sizeof path, "/why-route?client=%s&name=%s", client, name);
        free(client);
        free(name);
        if (len < 0 || (size_t)len >= sizeof path)
                return cli_error("client or name is too long");
        if (!cli_get(cli, path, &answer, NULL))
                return CLI_FAILED;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                route_print(json);
        json_decref(json);
        return CLI_DONE;
}

/* ---- events ---- */

#define EVENT_COLUMN 45 /* where the text begins */

static void events_print(const struct cli *cli, json_t *events)
{
        size_t index = 0;
        json_t *event = NULL;
        json_array_foreach(events, index, event)
        {
                char clock[32] = "";
                struct tm utc;
                double time = json_number_value(json_object_get(event, "time"));
                time_t seconds = (time_t)time;
                if (cli->json) {
                        cli_print_json_line(event);
                        continue;
                }
                if (gmtime_r(&seconds, &utc) != NULL)
                        strftime(clock, sizeof clock, "%Y-%m-%d %H:%M:%S", &utc);
                printf("%s%s.%03dZ%s  ", term_style(TERM_DIM), clock,
                       (int)((time - (double)seconds) * 1000), term_style(TERM_PLAIN));
                term_cell(TERM_BOLD, json_string_value(json_object_get(event, "name")), 18);
                putchar(' ');
                const char *text = json_string_value(json_object_get(event, "text"));
                term_sentence(TERM_PLAIN, text == NULL ? "" : text, EVENT_COLUMN);
        }
        fflush(stdout);
}

/* Follows one node: indices are its own. A node that begins anew begins at 0. */
int cli_events(struct cli *cli)
{
        char path[64];
        uint64_t since = 0;
        const struct cli_node *node = NULL;
        for (;;) {
                struct client_answer answer;
                snprintf(path, sizeof path, "/events?since=%llu", (unsigned long long)since);
                if (node == NULL) {
                        if (!cli_get(cli, path, &answer, &node))
                                return CLI_FAILED;
                } else if (!client_get(node->admin, path, 4000, &answer)) {
                        client_answer_fini(&answer);
                        node = NULL;
                        since = 0;
                        sleep(1);
                        continue;
                }
                json_t *json = cli_json(&answer);
                if (json == NULL)
                        return CLI_FAILED;
                events_print(cli, json_object_get(json, "events"));
                uint64_t next = (uint64_t)json_integer_value(json_object_get(json, "next"));
                since = next < since ? 0 : next;
                json_decref(json);
                if (!cli->follow)
                        return CLI_DONE;
                struct timespec pause = {.tv_nsec = 300000000};
                nanosleep(&pause, NULL);
        }
}
