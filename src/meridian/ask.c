/* ask.c - questions to the nodes: one after the other until one answers. */
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>
#include <stdlib.h>

#define ASK_TIMEOUT_MS 4000

int cli_nodes_unnamed(void)
{
        return cli_error("no node is known: name one with --node HOST:PORT or MERIDIAN_NODE, or "
                         "start the lab (make lab)");
}

int cli_nodes_silent(const struct cli *cli)
{
        if (cli->node_count == 0)
                return cli_nodes_unnamed();
        return cli_error("no node answers; asked: %s. %s", cli->from, cli->advice);
}

static void node_dead(const struct cli *cli, size_t index, const char *error)
{
        bool more = index + 1 < cli->node_count;
        fprintf(stderr, "%s%s does not answer (%s)%s%s%s\n", term_style(TERM_DIM),
                cli->nodes[index].admin, error, more ? ": asking " : "",
                more ? cli->nodes[index + 1].admin : "", term_style(TERM_PLAIN));
}

bool cli_get(const struct cli *cli, const char *path, struct client_answer *ret_answer,
             const struct cli_node **ret_node)
{
        for (size_t i = 0; i < cli->node_count; i++) {
                if (client_get(cli->nodes[i].admin, path, ASK_TIMEOUT_MS, ret_answer)) {
                        if (ret_node != NULL)
                                *ret_node = &cli->nodes[i];
                        return true;
                }
                node_dead(cli, i, ret_answer->error);
                client_answer_fini(ret_answer);
        }
        (void)cli_nodes_silent(cli);
        return false;
}

bool cli_post(const struct cli *cli, const char *path, struct bytes body,
              struct client_answer *ret_answer)
{
        for (size_t i = 0; i < cli->node_count; i++) {
                bool last = i + 1 == cli->node_count;
                if (client_post(cli->nodes[i].admin, path, body, ASK_TIMEOUT_MS, ret_answer)) {
                        /* Cut off from the majority: another one may not be. */
                        if (ret_answer->status != 503 || last)
                                return true;
                        fprintf(stderr, "%s%s cannot decide it: asking %s%s\n",
                                term_style(TERM_DIM), cli->nodes[i].admin, cli->nodes[i + 1].admin,
                                term_style(TERM_PLAIN));
                } else {
                        node_dead(cli, i, ret_answer->error);
                }
                client_answer_fini(ret_answer);
        }
        (void)cli_nodes_silent(cli);
        return false;
}

json_t *cli_json(struct client_answer *answer)
{
        json_error_t error;
        json_t *json = json_loads(answer->body, JSON_REJECT_DUPLICATES, &error);
        if (json == NULL) {
                cli_error("the node's answer is no JSON (%s)", error.text);
        } else if (answer->status != 200) {
                const char *code = json_string_value(json_object_get(json, "code"));
                const char *text = json_string_value(json_object_get(json, "error"));
                cli_error("%s: %s", code == NULL ? "refused" : code, text == NULL ? "" : text);
                json_decref(json);
                json = NULL;
        }
        client_answer_fini(answer);
        return json;
}

/* Is the word of `len` bytes the name of one of `regions`? */
static bool is_region(json_t *regions, const char *word, size_t len)
{
        size_t index = 0;
        json_t *region = NULL;
        json_array_foreach(regions, index, region)
        {
                const char *name = json_string_value(json_object_get(region, "name"));
                if (name != NULL && strlen(name) == len && strncmp(name, word, len) == 0)
                        return true;
        }
        return false;
}

static void regions_say(json_t *regions, const char *word, size_t len)
{
        char names[512] = "";
        size_t index = 0;
        size_t at = 0;
        json_t *region = NULL;
        json_array_foreach(regions, index, region)
        {
                const char *name = json_string_value(json_object_get(region, "name"));
                if (name != NULL && at < sizeof names)
                        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s",
                                               at == 0 ? "" : ", ", name);
        }
        cli_error("there is no region \"%.*s\"; there are: %s", (int)len, word, names);
}

bool cli_regions_check(const struct cli *cli, const char *list)
{
        struct client_answer answer;
        bool good = true;
        if (!cli_get(cli, "/status", &answer, NULL))
                return false;
        json_t *json = cli_json(&answer);
        json_t *regions = json_object_get(json, "regions");
        for (const char *at = list; json != NULL && good; at++) {
                size_t len = strcspn(at, ",");
                good = is_region(regions, at, len);
                if (!good)
                        regions_say(regions, at, len);
                at += len;
                if (*at == '\0')
                        break;
        }
        good = good && json != NULL;
        json_decref(json);
        return good;
}

void cli_print_json(json_t *json)
{
        char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        if (text != NULL)
                puts(text);
        free(text);
}

void cli_print_json_line(json_t *json)
{
        char *text = json_dumps(json, JSON_COMPACT);
        puts(text == NULL ? "{}" : text);
        free(text);
}

bool cli_duration(const char *text, uint64_t *ret_ms)
{
        static const struct {
                const char *unit;
                uint64_t ms;
        } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1}};
        char *end = NULL;
        if (text[0] < '0' || text[0] > '9')
                return false;
        unsigned long value = strtoul(text, &end, 10);
        if (value > 1000000000)
                return false;
        for (size_t i = 0; i < COUNT_OF(units); i++) {
                if (strcmp(end, units[i].unit) == 0) {
                        *ret_ms = value * units[i].ms;
                        return true;
                }
        }
        return false;
}
