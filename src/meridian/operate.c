/* operate.c - commands that ask about or change the cluster: topology, plan, apply, events,
 * why-route, drain and the like. */
#include "base/heap.h"
#include "merge/merge.h"
#include "meridian/cli.h"
#include "term/term.h"
#include "topology/topology.h"

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

/* ---- topology, plan, apply ---- */

static json_t *topology_get(const struct cli *cli)
{
        struct client_answer answer;
        if (!cli_get(cli, "/topology", &answer, NULL))
                return NULL;
        return cli_json(&answer);
}

int cli_topology(struct cli *cli)
{
        json_t *json = topology_get(cli);
        if (json == NULL)
                return CLI_FAILED;
        if (cli->json)
                cli_print_json(json);
        else
                fputs(json_string_value(json_object_get(json, "document")), stdout);
        json_decref(json);
        return CLI_DONE;
}

struct plan {
        struct heap heap;
        struct topology *before;
        struct topology *after;
        uint64_t epoch; /* of the council: the change applies to this and no other */
        struct buffer differences;
        struct buffer document;
        size_t count;
};

static bool file_read(const char *path, struct buffer *out)
{
        FILE *file = fopen(path, "re");
        if (file == NULL) {
                cli_error("%s: %s", path, strerror(errno));
                return false;
        }
        uint8_t *room = buffer_reserve(out, TOPOLOGY_BYTES_MAX + 1);
        size_t len = room == NULL ? 0 : fread(room, 1, TOPOLOGY_BYTES_MAX + 1, file);
        bool failed = ferror(file) != 0;
        fclose(file);
        if (room == NULL || failed || len > TOPOLOGY_BYTES_MAX) {
                cli_error("%s: %s", path,
                          failed ? "cannot be read" : "is longer than a topology may be");
                return false;
        }
        buffer_commit(out, len);
        return true;
}

static bool document_parse(const char *from, struct bytes text, struct topology *topology)
{
        char sentence[600];
        struct topology_error error;
        if (topology_parse(text, topology, &error))
                return true;
        cli_error("%s: %s", from, topology_error_text(&error, sentence, sizeof sentence));
        return false;
}

/* A file that says the epoch in force is a change to it; an older one was overtaken. */
static bool epoch_advance(const char *path, struct plan *plan)
{
        if (plan->after->epoch < plan->before->epoch) {
                cli_error("%s is of epoch %llu, in force is %llu: take `meridian topology`, make "
                          "your change there, then try again",
                          path, (unsigned long long)plan->after->epoch,
                          (unsigned long long)plan->before->epoch);
                return false;
        }
        bool same_epoch = plan->after->epoch == plan->before->epoch;
        if (same_epoch && topology_diff(plan->before, plan->after, &plan->differences) > 0)
                plan->after->epoch++;
        buffer_reset(&plan->differences);
        return true;
}

/* The text of a merge function must at least be Lua. */
static bool functions_check(const char *path, const struct topology *topology, struct heap *heap)
{
        char why[MERGE_WHY_SIZE];
        for (uint32_t i = 0; i < topology->function_count; i++) {
                const struct topology_function *function = &topology->functions[i];
                if (merge_check(heap, bytes_of_str(function->text), why))
                        continue;
                cli_error("%s: function %s, text: %s; correct it", path, function->name, why);
                return false;
        }
        return true;
}

static bool plan_make(const struct cli *cli, const char *path, struct plan *plan)
{
        struct buffer file;
        struct topology_error error;
        char sentence[600];
        heap_init(&plan->heap, 0);
        buffer_init(&plan->differences, &plan->heap);
        buffer_init(&plan->document, &plan->heap);
        buffer_init(&file, &plan->heap);
        plan->before = heap_alloc(&plan->heap, sizeof *plan->before);
        plan->after = heap_alloc(&plan->heap, sizeof *plan->after);
        if (plan->before == NULL || plan->after == NULL)
                return cli_error("out of memory") == CLI_DONE;
        bool good = file_read(path, &file) &&
                    document_parse(path, buffer_view(&file), plan->after) &&
                    functions_check(path, plan->after, &plan->heap);
        json_t *json = good ? topology_get(cli) : NULL;
        if (json == NULL) {
                buffer_fini(&file);
                return false;
        }
        const char *document = json_string_value(json_object_get(json, "document"));
        plan->epoch = (uint64_t)json_integer_value(json_object_get(json, "epoch"));
        good = document != NULL &&
               document_parse("the topology in force", bytes_of_str(document), plan->before) &&
               epoch_advance(path, plan);
        json_decref(json);
        buffer_fini(&file);
        if (!good)
                return false;
        plan->count = topology_diff(plan->before, plan->after, &plan->differences);
        if (plan->count > 0 && !topology_may_follow(plan->before, plan->after, &error)) {
                cli_error("%s: %s", path, topology_error_text(&error, sentence, sizeof sentence));
                return false;
        }
        topology_write(plan->after, &plan->document);
        return plan->document.err == ERR_NONE || cli_error("out of memory") == CLI_DONE;
}

static void plan_fini(struct plan *plan)
{
        buffer_fini(&plan->differences);
        buffer_fini(&plan->document);
        heap_free(&plan->heap, plan->before);
        heap_free(&plan->heap, plan->after);
}

static void plan_print(const struct plan *plan)
{
        struct bytes rest = buffer_view(&plan->differences);
        while (rest.len > 0) {
                const uint8_t *end = memchr(rest.ptr, '\n', rest.len);
                size_t len = end == NULL ? rest.len : (size_t)(end - rest.ptr);
                enum term_style style = rest.ptr[0] == '+'   ? TERM_GOOD
                                        : rest.ptr[0] == '-' ? TERM_BAD
                                                             : TERM_WARN;
                printf("%s%.*s%s\n", term_style(style), (int)len, (const char *)rest.ptr,
                       term_style(TERM_PLAIN));
                size_t used = end == NULL ? len : len + 1;
                rest = bytes_of(rest.ptr + used, rest.len - used);
        }
}

int cli_plan(struct cli *cli)
{
        struct plan plan = {0};
        bool made = plan_make(cli, cli->argv[0], &plan);
        if (made && plan.count == 0)
                printf("no change\n");
        else if (made)
                plan_print(&plan);
        plan_fini(&plan);
        return made ? CLI_DONE : CLI_FAILED;
}

static int plan_apply(const struct cli *cli, const struct plan *plan)
{
        char path[256];
        struct client_answer answer;
        snprintf(path, sizeof path, "/topology?epoch=%llu&actor=%s",
                 (unsigned long long)plan->epoch, cli_user());
        if (!cli_post(cli, path, buffer_view(&plan->document), &answer))
                return CLI_FAILED;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return CLI_FAILED;
        printf("applied: epoch %lld\n",
               (long long)json_integer_value(json_object_get(json, "epoch")));
        json_decref(json);
        return CLI_DONE;
}

int cli_apply(struct cli *cli)
{
        struct plan plan = {0};
        int status = CLI_FAILED;
        if (plan_make(cli, cli->argv[0], &plan)) {
                plan_print(&plan);
                if (plan.count > 0)
                        status = plan_apply(cli, &plan);
                else
                        status = printf("no change\n") > 0 ? CLI_DONE : CLI_FAILED;
        }
        plan_fini(&plan);
        return status;
}

/* ---- regions ---- */

static int region_act(struct cli *cli, const char *action)
{
        char path[1024];
        struct client_answer answer;
        char *region = client_escape(cli->argv[0]);
        char *why = client_escape(cli->argc > 1 ? cli->argv[1] : "");
        char *actor = client_escape(cli_user());
        int len = -1;
        if (region != NULL && why != NULL && actor != NULL)
                len = snprintf(path, sizeof path, "/region/%s/%s?actor=%s&why=%s", region, action,
                               actor, why);
        free(region);
        free(why);
        free(actor);
        if (len < 0 || (size_t)len >= sizeof path)
                return cli_error("the reason is too long: a sentence is enough");
        if (!cli_post(cli, path, BYTES(""), &answer))
                return CLI_FAILED;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return CLI_FAILED;
        const char *state = json_string_value(json_object_get(json, "state"));
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
                        char *text = json_dumps(event, JSON_COMPACT);
                        puts(text == NULL ? "{}" : text);
                        free(text);
                        continue;
                }
                if (gmtime_r(&seconds, &utc) != NULL)
                        strftime(clock, sizeof clock, "%Y-%m-%d %H:%M:%S", &utc);
                printf("%s%s.%03dZ%s  ", term_style(TERM_DIM), clock,
                       (int)((time - (double)seconds) * 1000), term_style(TERM_PLAIN));
                term_cell(TERM_BOLD, json_string_value(json_object_get(event, "name")), 18);
                printf(" %s\n", json_string_value(json_object_get(event, "text")));
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
