/* status.c - `meridian status`: the answer of a node that has a majority, if there is one, as JSON
 * or drawn for people. */
#include "meridian/cli.h"
#include "term/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

static bool is_witness(json_t *region)
{
        return json_is_true(json_object_get(region, "witness"));
}

static void cell_parts(struct term_table *table, json_t *region)
{
        static const char *const keys[] = {"redis", "dns", "edge"};
        json_t *parts = json_object_get(region, "parts");
        json_t *backends = json_object_get(region, "backends");
        if (is_witness(region)) {
                for (size_t i = 0; i <= COUNT_OF(keys); i++)
                        term_table_cell(table, TERM_PLAIN, "%s", "");
                return;
        }
        for (size_t i = 0; i < COUNT_OF(keys); i++) {
                const char *part = text_of(parts, keys[i], "unknown");
                bool good = strcmp(part, "healthy") == 0;
                bool bad = strcmp(part, "unhealthy") == 0;
                term_table_cell(table,
                                good  ? TERM_GOOD
                                : bad ? TERM_BAD
                                      : TERM_DIM,
                                "%s %s",
                                term_symbol(good  ? TERM_OK
                                            : bad ? TERM_FAIL
                                                  : TERM_RING),
                                keys[i]);
        }
        term_table_cell(table, TERM_PLAIN, "%lld/%lld",
                        (long long)json_integer_value(json_object_get(backends, "healthy")),
                        (long long)json_integer_value(json_object_get(backends, "count")));
}

static void cell_region(struct term_table *table, json_t *region)
{
        enum term_style style = TERM_PLAIN;
        enum term_symbol symbol = TERM_RING;
        const char *state = text_of(region, "state", "unknown");
        bool routable = json_is_true(json_object_get(region, "routable"));
        bool leader = json_is_true(json_object_get(region, "leader"));
        state_find(state, &style, &symbol);
        term_table_cell(table, TERM_PLAIN, "%s%s%s %s%s%s%s", term_style(style),
                        term_symbol(symbol), term_style(TERM_PLAIN), term_style(TERM_BOLD),
                        text_of(region, "name", "?"), term_style(TERM_PLAIN),
                        leader ? " (leader)" : "");
        term_table_cell(table, style, "%s", state);
        if (is_witness(region))
                term_table_cell(table, TERM_DIM, "witness");
        else
                term_table_cell(table, routable ? TERM_GOOD : TERM_BAD, routable ? "yes" : "no");
        cell_parts(table, region);
}

/* What is not as it should be has a reason. */
static void print_why(json_t *region)
{
        const char *why = text_of(region, "why", "");
        bool fine = strcmp(text_of(region, "state", ""), "active") == 0 &&
                    (is_witness(region) || json_is_true(json_object_get(region, "routable")));
        if (fine || why[0] == '\0')
                return;
        enum term_style style = TERM_PLAIN;
        enum term_symbol symbol = TERM_RING;
        state_find(text_of(region, "state", "unknown"), &style, &symbol);
        printf("  %s%s%s ", term_style(style), term_symbol(symbol), term_style(TERM_PLAIN));
        /* The agreed sentences begin with the region's name; an operator's reason does not. */
        const char *name = text_of(region, "name", "?");
        char sentence[1024];
        bool named = strncmp(why, name, strlen(name)) == 0;
        snprintf(sentence, sizeof sentence, "%s%s%s", named ? "" : name, named ? "" : ": ", why);
        term_sentence(TERM_PLAIN, sentence, 4);
}

static void print_regions(json_t *regions)
{
        static const char *const titles[] = {"region", "state", "traffic", "servers",
                                             "",       "",      "backends"};
        size_t index = 0;
        json_t *region = NULL;
        struct term_table table;
        term_table_init(&table, COUNT_OF(titles));
        for (size_t i = 0; i < COUNT_OF(titles); i++)
                term_table_cell(&table, TERM_DIM, "%s%s", i == 0 ? "  " : "", titles[i]);
        json_array_foreach(regions, index, region)
        {
                cell_region(&table, region);
        }
        putchar('\n');
        term_table_print(&table);
        json_array_foreach(regions, index, region)
        {
                print_why(region);
        }
}

/* A matrix: a row and a column for each region, from an object of numbers. */
struct matrix {
        const char *title;
        const char *key;
        const char *inner;       /* in the object of `key`; NULL: that itself */
        const char *preposition; /* before the regions at the top */
        bool data;               /* without witnesses */
};

static void print_matrix(json_t *regions, const struct matrix *matrix)
{
        size_t row_index = 0;
        size_t column_index = 0;
        json_t *row = NULL;
        json_t *column = NULL;
        struct term_table table;
        size_t columns = 1;
        json_array_foreach(regions, column_index, column)
        {
                columns += !matrix->data || !is_witness(column);
        }
        term_table_init(&table, columns);
        term_table_cell(&table, TERM_DIM, "%s", matrix->title);
        json_array_foreach(regions, column_index, column)
        {
                if (!matrix->data || !is_witness(column))
                        term_table_cell(&table, TERM_DIM, "%s%s", matrix->preposition,
                                        text_of(column, "name", "?"));
        }
        json_array_foreach(regions, row_index, row)
        {
                json_t *values = json_object_get(row, matrix->key);
                if (matrix->inner != NULL)
                        values = json_object_get(values, matrix->inner);
                if (matrix->data && is_witness(row))
                        continue;
                term_table_cell(&table, TERM_PLAIN, "%s", text_of(row, "name", "?"));
                json_array_foreach(regions, column_index, column)
                {
                        json_t *value = json_object_get(values, text_of(column, "name", ""));
                        if (matrix->data && is_witness(column))
                                continue;
                        if (json_is_number(value))
                                term_table_cell(&table, TERM_PLAIN, "%.1f",
                                                json_number_value(value));
                        else
                                term_table_cell(&table, TERM_DIM, row == column ? "-" : "?");
                }
        }
        putchar('\n');
        term_table_print(&table);
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

static void cell_node(struct term_table *table, json_t *node)
{
        bool up = json_is_true(json_object_get(node, "up"));
        bool leads = json_is_true(json_object_get(node, "leader"));
        bool carries = json_is_true(json_object_get(node, "carries"));
        const char *role = text_of(node, "role", "?");
        term_table_cell(table, up ? TERM_PLAIN : TERM_BAD, "%s", text_of(node, "name", "?"));
        term_table_cell(table, TERM_PLAIN, "%s%s", strcmp(role, "none") == 0 ? "no member" : role,
                        json_is_true(json_object_get(node, "coming")) ? ", catches up" : "");
        term_table_cell(table, TERM_PLAIN, "%s%s%s%s%s", up ? "" : "not heard",
                        leads ? "leads" : "", leads && carries ? ", " : "",
                        carries ? "carries the region's data" : "",
                        json_is_true(json_object_get(node, "done")) ? "" : "  (on its way)");
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
        struct term_table table;
        term_table_init(&table, 3);
        term_table_cell(&table, TERM_DIM, "node");
        term_table_cell(&table, TERM_DIM, "in the global group");
        term_table_cell(&table, TERM_DIM, "does");
        json_array_foreach(nodes, index, node)
        {
                cell_node(&table, node);
        }
        putchar('\n');
        term_table_print(&table);
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
        putchar(' ');
        term_sentence(TERM_PLAIN, text_of(event, "text", ""), 31);
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

/* The first line, or two where the terminal is narrow. */
static void print_head(json_t *status, const struct cli_node *node, bool majority)
{
        char about[160];
        char asked[200];
        snprintf(about, sizeof about, "  leader %s  epoch %lld  majority ",
                 text_of(status, "leader", "unknown"),
                 (long long)json_integer_value(json_object_get(status, "epoch")));
        snprintf(asked, sizeof asked, "asked %s (%s)", text_of(status, "region", "?"), node->admin);
        size_t width = strlen("Meridian") + term_width(about) + 3 + 2 + term_width(asked);
        printf("%sMeridian%s%s", term_style(TERM_HEAD), term_style(TERM_PLAIN), about);
        term_cell(majority ? TERM_GOOD : TERM_BAD, majority ? "yes" : "no", 0);
        printf("%s", term_columns() == 0 || width <= term_columns() ? "  " : "\n  ");
        term_cell(TERM_DIM, asked, 0);
        putchar('\n');
        if (majority)
                return;
        printf("  ");
        term_sentence(TERM_WARN,
                      "no majority of regions is in touch with this node: global locks and changes "
                      "are refused, all else is served from what it knows",
                      2);
}

static void print_status(const struct cli *cli, json_t *status, const struct cli_node *node)
{
        static const struct matrix round_trips = {"round trip, ms", "rtt_ms", NULL, "", false};
        static const struct matrix lags = {"Redis: ms behind the changes", "redis", "lag_ms", "of ",
                                           true};
        json_t *regions = json_object_get(status, "regions");
        print_head(status, node, json_is_true(json_object_get(status, "majority")));
        print_regions(regions);
        print_nodes(json_object_get(status, "nodes"), json_array_size(regions));
        print_matrix(regions, &round_trips);
        print_matrix(regions, &lags);
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
                return cli_nodes_unnamed();
        json_t *status = status_ask(cli, &node);
        if (status == NULL)
                return cli_nodes_silent(cli);
        if (cli->json)
                cli_print_json(status);
        else
                print_status(cli, status, node);
        json_decref(status);
        return CLI_DONE;
}
