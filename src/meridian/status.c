/* status.c - `meridian status`: the answer of a node that has a majority, if there is one, as JSON
 * or drawn for people. */
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NAME_WIDTH   24
#define STATE_WIDTH  14
#define CELL_WIDTH   14
#define EVENTS_SHOWN 6

static const struct {
        const char *state;
        enum term_style style;
        enum term_symbol symbol;
} states[] = {
        {"active", TERM_GOOD, TERM_DOT},      {"joining", TERM_WARN, TERM_RING},
        {"draining", TERM_WARN, TERM_RING},   {"drained", TERM_WARN, TERM_RING},
        {"suspect", TERM_WARN, TERM_DOT},     {"down", TERM_BAD, TERM_FAIL},
        {"recovering", TERM_WARN, TERM_RING}, {"isolated", TERM_BAD, TERM_FAIL},
};

static const char *text_of(json_t *object, const char *key, const char *otherwise)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? otherwise : text;
}

static void state_find(const char *state, enum term_style *style, enum term_symbol *symbol)
{
        *style = TERM_PLAIN;
        *symbol = TERM_RING;
        for (size_t i = 0; i < COUNT_OF(states); i++) {
                if (strcmp(states[i].state, state) == 0) {
                        *style = states[i].style;
                        *symbol = states[i].symbol;
                }
        }
}

static void print_parts(json_t *region)
{
        static const char *const keys[] = {"redis", "dns", "edge"};
        json_t *parts = json_object_get(region, "parts");
        json_t *backends = json_object_get(region, "backends");
        char cell[48];
        for (size_t i = 0; i < COUNT_OF(keys); i++) {
                const char *part = text_of(parts, keys[i], "unknown");
                bool good = strcmp(part, "healthy") == 0;
                bool bad = strcmp(part, "unhealthy") == 0;
                snprintf(cell, sizeof cell, "%s %s",
                         term_symbol(good  ? TERM_OK
                                     : bad ? TERM_FAIL
                                           : TERM_RING),
                         keys[i]);
                term_cell(good ? TERM_GOOD : bad ? TERM_BAD : TERM_DIM, cell, 9);
        }
        snprintf(cell, sizeof cell, "%lld/%lld",
                 (long long)json_integer_value(json_object_get(backends, "healthy")),
                 (long long)json_integer_value(json_object_get(backends, "count")));
        term_cell(TERM_PLAIN, cell, 10);
}

static void print_regions(json_t *regions)
{
        size_t index = 0;
        json_t *region = NULL;
        printf("\n  ");
        term_cell(TERM_DIM, "region", NAME_WIDTH + 2);
        term_cell(TERM_DIM, "state", STATE_WIDTH);
        term_cell(TERM_DIM, "traffic", 9);
        term_cell(TERM_DIM, "servers", 27);
        term_cell(TERM_DIM, "backends", 10);
        printf("%swhy%s\n", term_style(TERM_DIM), term_style(TERM_PLAIN));
        json_array_foreach(regions, index, region)
        {
                enum term_style style = TERM_PLAIN;
                enum term_symbol symbol = TERM_RING;
                const char *state = text_of(region, "state", "unknown");
                bool routable = json_is_true(json_object_get(region, "routable"));
                bool leader = json_is_true(json_object_get(region, "leader"));
                char name[96];
                state_find(state, &style, &symbol);
                snprintf(name, sizeof name, "%s%s", text_of(region, "name", "?"),
                         leader ? " (leader)" : "");
                printf("  %s%s%s ", term_style(style), term_symbol(symbol), term_style(TERM_PLAIN));
                term_cell(TERM_BOLD, name, NAME_WIDTH);
                if (term_width(name) >= NAME_WIDTH)
                        putchar(' ');
                term_cell(style, state, STATE_WIDTH);
                term_cell(routable ? TERM_GOOD : TERM_BAD, routable ? "yes" : "no", 9);
                print_parts(region);
                printf("%s%s%s\n", term_style(TERM_DIM), text_of(region, "why", ""),
                       term_style(TERM_PLAIN));
        }
}

/* One matrix: a row for each region, a column for each region, from an object of numbers. */
static void print_matrix(json_t *regions, const char *title, const char *key, const char *inner)
{
        size_t row_index = 0;
        size_t column_index = 0;
        json_t *row = NULL;
        json_t *column = NULL;
        char cell[48];
        printf("\n  ");
        term_cell(TERM_DIM, title, NAME_WIDTH + 2);
        json_array_foreach(regions, column_index, column)
        {
                term_cell(TERM_DIM, text_of(column, "name", "?"), CELL_WIDTH);
        }
        putchar('\n');
        json_array_foreach(regions, row_index, row)
        {
                json_t *values = json_object_get(row, key);
                if (inner != NULL)
                        values = json_object_get(values, inner);
                printf("  ");
                term_cell(TERM_PLAIN, text_of(row, "name", "?"), NAME_WIDTH + 2);
                json_array_foreach(regions, column_index, column)
                {
                        json_t *value = json_object_get(values, text_of(column, "name", ""));
                        if (json_is_number(value))
                                snprintf(cell, sizeof cell, "%.1f", json_number_value(value));
                        else
                                snprintf(cell, sizeof cell, "%s", row == column ? "-" : "?");
                        term_cell(json_is_number(value) ? TERM_PLAIN : TERM_DIM, cell, CELL_WIDTH);
                }
                putchar('\n');
        }
}

/* Only a region's own node knows its servers, and how far it is with another's state. */
static void own_join(json_t *told, json_t *regions)
{
        size_t i = 0;
        json_t *region = NULL;
        json_array_foreach(json_object_get(told, "regions"), i, region)
        {
                json_t *known = json_object_get(json_array_get(regions, i), "redis");
                json_t *redis = json_object_get(region, "redis");
                const char *name = text_of(json_array_get(regions, i), "name", "?");
                if (!json_is_array(json_object_get(redis, "servers")) ||
                    strcmp(text_of(region, "name", ""), name) != 0)
                        continue;
                json_object_set(known, "servers", json_object_get(redis, "servers"));
                json_object_set(known, "transfers", json_object_get(redis, "transfers"));
        }
}

static void servers_join(const struct cli *cli, const struct cli_node *asked, json_t *regions)
{
        for (size_t i = 0; i < cli->node_count; i++) {
                struct client_answer answer;
                if (&cli->nodes[i] == asked)
                        continue;
                if (!client_get(cli->nodes[i].admin, "/status", 2000, &answer)) {
                        client_answer_fini(&answer);
                        continue;
                }
                json_t *told = cli_json(&answer);
                own_join(told, regions);
                json_decref(told);
        }
}

/* Where regions have several nodes, or one is not where it belongs. */
static void print_nodes(json_t *nodes, size_t regions)
{
        size_t index = 0;
        json_t *node = NULL;
        bool plain = json_array_size(nodes) <= regions;
        json_array_foreach(nodes, index, node)
        {
                plain = plain && json_is_true(json_object_get(node, "done"));
        }
        if (plain)
                return;
        printf("\n  ");
        term_cell(TERM_DIM, "node", NAME_WIDTH + 2);
        term_cell(TERM_DIM, "in the global group", 24);
        term_cell(TERM_DIM, "does", 0);
        putchar('\n');
        json_array_foreach(nodes, index, node)
        {
                char part[48];
                bool up = json_is_true(json_object_get(node, "up"));
                bool leads = json_is_true(json_object_get(node, "leader"));
                bool carries = json_is_true(json_object_get(node, "carries"));
                const char *role = text_of(node, "role", "?");
                snprintf(part, sizeof part, "%s%s", strcmp(role, "none") == 0 ? "no member" : role,
                         json_is_true(json_object_get(node, "coming")) ? ", catches up" : "");
                printf("  ");
                term_cell(up ? TERM_PLAIN : TERM_BAD, text_of(node, "name", "?"), NAME_WIDTH + 2);
                term_cell(TERM_PLAIN, part, 24);
                printf("%s%s%s%s%s\n", up ? "" : "not heard", leads ? "leads" : "",
                       leads && carries ? ", " : "", carries ? "carries the region's data" : "",
                       json_is_true(json_object_get(node, "done")) ? "" : "  (on its way)");
        }
}

static void print_event(json_t *event)
{
        char clock[16] = "";
        struct tm utc;
        time_t seconds = (time_t)json_number_value(json_object_get(event, "time"));
        if (gmtime_r(&seconds, &utc) != NULL)
                strftime(clock, sizeof clock, "%H:%M:%S", &utc);
        printf("  %s%s%s  ", term_style(TERM_DIM), clock, term_style(TERM_PLAIN));
        term_cell(TERM_PLAIN, text_of(event, "name", ""), 18);
        printf(" %s\n", text_of(event, "text", ""));
}

static void print_events(const struct cli_node *node)
{
        struct client_answer answer;
        if (client_get(node->admin, "/events", 2000, &answer) && answer.status == 200) {
                json_t *json = json_loads(answer.body, 0, NULL);
                json_t *events = json_object_get(json, "events");
                size_t count = json_array_size(events);
                size_t first = count > EVENTS_SHOWN ? count - EVENTS_SHOWN : 0;
                if (count > 0)
                        printf("\n  %srecent events (UTC)%s\n", term_style(TERM_DIM),
                               term_style(TERM_PLAIN));
                for (size_t i = first; i < count; i++)
                        print_event(json_array_get(events, i));
                json_decref(json);
        }
        client_answer_fini(&answer);
}

static void print_status(const struct cli *cli, json_t *status, const struct cli_node *node)
{
        bool majority = json_is_true(json_object_get(status, "majority"));
        json_t *regions = json_object_get(status, "regions");
        printf("%sMeridian%s  leader %s  epoch %lld  majority ", term_style(TERM_HEAD),
               term_style(TERM_PLAIN), text_of(status, "leader", "unknown"),
               (long long)json_integer_value(json_object_get(status, "epoch")));
        term_cell(majority ? TERM_GOOD : TERM_BAD, majority ? "yes" : "no", 0);
        printf("  %sasked %s (%s)%s\n", term_style(TERM_DIM), text_of(status, "region", "?"),
               node->admin, term_style(TERM_PLAIN));
        if (!majority)
                printf("  %sno majority of regions is in touch with this node: global locks and "
                       "changes are refused, all else is served from what it knows%s\n",
                       term_style(TERM_WARN), term_style(TERM_PLAIN));
        print_regions(regions);
        print_nodes(json_object_get(status, "nodes"), json_array_size(regions));
        print_matrix(regions, "round trip, ms", "rtt_ms", NULL);
        print_matrix(regions, "Redis: behind origin, ms", "redis", "lag_ms");
        servers_join(cli, node, regions);
        cli_print_redis(regions);
        cli_print_postgres(json_object_get(status, "postgres"));
        print_events(node);
}

/* The first node with a majority, else the first that answers. */
static json_t *status_ask(const struct cli *cli, const struct cli_node **ret_node)
{
        json_t *best = NULL;
        for (size_t i = 0; i < cli->node_count; i++) {
                struct client_answer answer;
                json_t *json = NULL;
                if (client_get(cli->nodes[i].admin, "/status", 2000, &answer)) {
                        json = cli_json(&answer);
                } else {
                        fprintf(stderr, "%s%s does not answer (%s)%s\n", term_style(TERM_DIM),
                                cli->nodes[i].admin, answer.error, term_style(TERM_PLAIN));
                        client_answer_fini(&answer);
                }
                bool majority = json_is_true(json_object_get(json, "majority"));
                if (json != NULL && (best == NULL || majority)) {
                        json_decref(best);
                        best = json;
                        *ret_node = &cli->nodes[i];
                } else {
                        json_decref(json);
                }
                if (majority)
                        break;
        }
        return best;
}

int cli_status(struct cli *cli)
{
        const struct cli_node *node = NULL;
        if (cli->node_count == 0)
                return cli_error("no node is known: name one with --node HOST:PORT or "
                                 "MERIDIAN_NODE, or start the lab (make lab)");
        json_t *status = status_ask(cli, &node);
        if (status == NULL)
                return cli_error("no node of %s answers: is it running? (`meridian lab status`, "
                                 "`make lab`)",
                                 cli->from);
        if (cli->json)
                cli_print_json(status);
        else
                print_status(cli, status, node);
        json_decref(status);
        return CLI_DONE;
}
