/* plan.c - a change of the topology: what would be different and what follows from it (plan), and
 * the change, step by step, until every node is where it belongs (apply). What is asked of the
 * cluster is one thing, the new document; the rest is looking on, so to break off is no harm. */
#include "base/heap.h"
#include "council/seats.h"
#include "merge/merge.h"
#include "meridian/cli.h"
#include "meridian/step.h"
#include "term/term.h"
#include "topology/topology.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define APPLY_WAIT_MS 120000
#define APPLY_LOOK_MS 250
#define APPLY_TOLD_MS 5000

struct plan {
        struct heap heap;
        struct topology *before;
        struct topology *after;
        uint64_t epoch; /* of the council: the change applies to this and no other */
        struct buffer differences;
        struct buffer document;
        size_t count;
        json_t *follows; /* with --json: what follows, a sentence each; else NULL */
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
        int number = errno;
        fclose(file);
        if (room == NULL || failed || len > TOPOLOGY_BYTES_MAX) {
                cli_error("%s: %s", path,
                          failed ? strerror(number) : "is longer than a topology may be");
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
        json_t *json = good ? cli_topology_get(cli) : NULL;
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
        json_decref(plan->follows);
}

/* Takes the next line off `rest`. */
static struct bytes line_take(struct bytes *rest)
{
        const uint8_t *end = memchr(rest->ptr, '\n', rest->len);
        size_t len = end == NULL ? rest->len : (size_t)(end - rest->ptr);
        size_t used = end == NULL ? len : len + 1;
        struct bytes line = bytes_of(rest->ptr, len);
        *rest = bytes_of(rest->ptr + used, rest->len - used);
        return line;
}

static void changes_print(const struct plan *plan)
{
        struct bytes rest = buffer_view(&plan->differences);
        while (rest.len > 0) {
                struct bytes line = line_take(&rest);
                enum term_style style = line.ptr[0] == '+'   ? TERM_GOOD
                                        : line.ptr[0] == '-' ? TERM_BAD
                                                             : TERM_WARN;
                printf("%s%.*s%s\n", term_style(style), BYTES_ARGS(line), term_style(TERM_PLAIN));
        }
}

/* ---- what follows ---- */

static void say(const struct plan *plan, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(const struct plan *plan, const char *format, ...)
{
        char text[1024];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        if (plan->follows != NULL)
                (void)json_array_append_new(plan->follows, json_string(text));
        else
                printf("  %s%s%s\n", term_style(TERM_DIM), text, term_style(TERM_PLAIN));
}

/* "us-east, eu-west": the regions whose loss ends agreement; empty: none. */
static void mortal_text(const struct topology *topology, const struct seats *seats, char *text,
                        size_t size)
{
        size_t at = 0;
        text[0] = '\0';
        for (uint32_t i = 0; i < topology->region_count && at < size; i++) {
                if (seats_survive(seats, topology->regions[i].id))
                        continue;
                int len = snprintf(text + at, size - at, "%s%s", at > 0 ? ", " : "",
                                   topology->regions[i].name);
                at += len > 0 ? (size_t)len : 0;
        }
}

static void consequence_votes(const struct plan *plan)
{
        struct seats before, after;
        char mortal[512];
        if (!seats_wanted(plan->before, 0, &before) || !seats_wanted(plan->after, 0, &after))
                return;
        size_t was = seats_votes(&before), is = seats_votes(&after);
        say(plan, "votes: %zu before, a majority is %zu; then %zu, a majority is %zu", was,
            was / 2 + 1, is, is / 2 + 1);
        mortal_text(plan->after, &after, mortal, sizeof mortal);
        if (mortal[0] == '\0')
                say(plan, "agreement then survives the loss of any one region");
        else
                say(plan, "agreement then ends with the loss of: %s%s", mortal,
                    plan->after->region_count == 2 ? " (a witness region would prevent that)" : "");
}

static void consequence_region(const struct plan *plan, const struct topology_region *before,
                               const struct topology_region *after)
{
        uint32_t nodes = after == NULL ? 0 : after->node_count;
        if (after == NULL) {
                say(plan,
                    "%s goes: nothing that it still sends is taken, its own locks are gone; its id "
                    "(%u) is never used again",
                    before->name, before->id);
                return;
        }
        if (before != NULL && before->node_count == nodes)
                return;
        say(plan, "%s has %u node%s then: its own locks and values survive the loss of %u",
            after->name, nodes, nodes == 1 ? "" : "s", (nodes - 1) / 2);
}

static void consequence_nodes(const struct plan *plan)
{
        for (uint32_t i = 0; i < plan->after->region_count; i++) {
                const struct topology_region *region = &plan->after->regions[i];
                for (uint32_t k = 0; k < region->node_count; k++) {
                        const struct topology_node *node = &region->nodes[k];
                        if (topology_node_by_id(plan->before, node->id) == NULL)
                                say(plan,
                                    "%s (id %u) comes: start it with the new document (epoch "
                                    "%llu); it votes when it has caught up, and only then does "
                                    "who goes lose its vote",
                                    node->name, node->id, (unsigned long long)plan->after->epoch);
                }
        }
        for (uint32_t i = 0; i < plan->before->region_count; i++) {
                const struct topology_region *region = &plan->before->regions[i];
                for (uint32_t k = 0; k < region->node_count; k++)
                        if (topology_node_by_id(plan->after, region->nodes[k].id) == NULL)
                                say(plan, "%s (id %u) goes: stop it when apply is done",
                                    region->nodes[k].name, region->nodes[k].id);
        }
}

/* What the limit of what other regions may lack means. */
static void consequence_rpo(const struct plan *plan)
{
        const struct topology_postgres *before = &plan->before->postgres;
        const struct topology_postgres *after = &plan->after->postgres;
        bool had = before->rpo_ms != 0 || before->rpo_bytes != 0;
        bool has = after->rpo_ms != 0 || after->rpo_bytes != 0;
        if (after->node_count == 0 ||
            (before->rpo_ms == after->rpo_ms && before->rpo_bytes == after->rpo_bytes &&
             before->rpo_hold == after->rpo_hold))
                return;
        if (after->rpo_hold)
                say(plan,
                    "PostgreSQL's commits wait, in all sessions, while no other region has what "
                    "was committed before the limit: with all other regions' servers away nobody "
                    "can write");
        else if (has)
                say(plan, "beyond the limit (rpo) you are told; PostgreSQL's commits go on");
        else if (had)
                say(plan,
                    "nobody is told any more how much of PostgreSQL's commits other regions lack");
        if (before->rpo_hold && !after->rpo_hold)
                say(plan, "commits that wait for other regions go on at once");
}

/* The rest only where somebody comes, goes or changes its part. */
static void consequences_tell(const struct plan *plan)
{
        consequence_rpo(plan);
        struct seats before, after;
        bool known = seats_wanted(plan->before, 0, &before) && seats_wanted(plan->after, 0, &after);
        if (known && memcmp(&before, &after, sizeof before) == 0)
                return;
        consequence_votes(plan);
        for (uint32_t i = 0; i < plan->after->region_count; i++) {
                const struct topology_region *region = &plan->after->regions[i];
                consequence_region(plan, topology_region_by_id(plan->before, region->id), region);
        }
        for (uint32_t i = 0; i < plan->before->region_count; i++) {
                const struct topology_region *region = &plan->before->regions[i];
                if (topology_region_by_id(plan->after, region->id) == NULL)
                        consequence_region(plan, region, NULL);
        }
        consequence_nodes(plan);
}

/* The plan for programs; the same from `plan` and, in its first line, from `apply`. */
static json_t *plan_json(struct plan *plan)
{
        json_t *changes = json_array();
        struct bytes rest = buffer_view(&plan->differences);
        while (rest.len > 0) {
                struct bytes line = line_take(&rest);
                (void)json_array_append_new(changes,
                                            json_stringn((const char *)line.ptr, line.len));
        }
        plan->follows = json_array();
        if (plan->count > 0)
                consequences_tell(plan);
        uint64_t next = plan->count > 0 ? plan->after->epoch : plan->epoch;
        return json_pack("{s:I, s:I, s:o, s:O}", "epoch", (json_int_t)plan->epoch, "next_epoch",
                         (json_int_t)next, "changes", changes, "follows", plan->follows);
}

static void plan_print(const struct plan *plan)
{
        if (plan->count == 0) {
                printf("no change\n");
                return;
        }
        changes_print(plan);
        consequences_tell(plan);
}

int cli_plan(struct cli *cli)
{
        struct plan plan = {0};
        bool made = plan_make(cli, cli->argv[0], &plan);
        json_t *json = made && cli->json ? plan_json(&plan) : NULL;
        if (json != NULL)
                cli_print_json(json);
        else if (made)
                plan_print(&plan);
        json_decref(json);
        plan_fini(&plan);
        return made ? CLI_DONE : CLI_FAILED;
}

/* ---- looking on ---- */

static const char *text_of(json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));
        return text == NULL ? "" : text;
}

/* True where every node is where it belongs. Tells of each that has changed its part since the
 * last look (`before`), and in `ret_waits` of one that is not there yet. */
static bool nodes_look(json_t *nodes, json_t *before, char *ret_waits, size_t size)
{
        size_t index = 0;
        json_t *node = NULL;
        bool done = true;
        ret_waits[0] = '\0';
        json_array_foreach(nodes, index, node)
        {
                char key[32], part[96];
                bool stays = json_is_string(json_object_get(node, "region"));
                bool up = json_is_true(json_object_get(node, "up"));
                const char *role = text_of(node, "role");
                snprintf(key, sizeof key, "%lld",
                         (long long)json_integer_value(json_object_get(node, "id")));
                snprintf(part, sizeof part, "%s%s", strcmp(role, "none") == 0 ? "no member" : role,
                         json_is_true(json_object_get(node, "coming")) ? ", catches up" : "");
                const char *was = json_string_value(json_object_get(before, key));
                if (was != NULL && strcmp(was, part) != 0)
                        STEP_DONE("node", "%s%s%s: %s", key, stays ? " " : "",
                                  stays ? text_of(node, "name") : "", part);
                json_object_set_new(before, key, json_string(part));
                if (!stays && strcmp(role, "none") == 0)
                        continue;
                if (!stays || !json_is_true(json_object_get(node, "done"))) {
                        done = false;
                        if (stays && !up)
                                snprintf(ret_waits, size, "waits for %s (node %s): start it",
                                         text_of(node, "name"), key);
                }
        }
        fflush(stdout);
        return done;
}

static bool status_look(const struct cli *cli, json_t *before, uint64_t epoch, char *ret_waits,
                        size_t size)
{
        struct client_answer answer;
        ret_waits[0] = '\0';
        if (!cli_get(cli, "/status", &answer, NULL))
                return false;
        json_t *status = cli_json(&answer);
        bool current = (uint64_t)json_integer_value(json_object_get(status, "epoch")) >= epoch;
        bool done = nodes_look(json_object_get(status, "nodes"), before, ret_waits, size);
        json_decref(status);
        return current && done;
}

/* Until every node is where it belongs. */
static int look_on(const struct cli *cli, uint64_t epoch)
{
        char waits[160] = "", told[160] = "";
        json_t *before = json_object();
        struct timespec pause = {.tv_nsec = APPLY_LOOK_MS * 1000000L};
        for (unsigned waited_ms = 0; waited_ms < APPLY_WAIT_MS; waited_ms += APPLY_LOOK_MS) {
                if (status_look(cli, before, epoch, waits, sizeof waits)) {
                        STEP_DONE("done", "every node is where it belongs");
                        json_decref(before);
                        return CLI_DONE;
                }
                if (waited_ms >= APPLY_TOLD_MS && strcmp(told, waits) != 0) {
                        memcpy(told, waits, sizeof told);
                        STEP_WARN("wait", "%s", waits[0] != '\0' ? waits : "nodes catch up");
                }
                nanosleep(&pause, NULL);
        }
        json_decref(before);
        return cli_error("not done yet (%s); the nodes go on by themselves: `meridian apply` with "
                         "the same file looks on",
                         waits[0] != '\0' ? waits : "see meridian status");
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
        uint64_t epoch = (uint64_t)json_integer_value(json_object_get(json, "epoch"));
        step_tell(STEP_STATE_DONE, "apply", json_pack("{s:I}", "epoch", (json_int_t)epoch),
                  "applied: epoch %llu", (unsigned long long)epoch);
        json_decref(json);
        return look_on(cli, epoch);
}

int cli_apply(struct cli *cli)
{
        struct plan plan = {0};
        int status = CLI_FAILED;
        step_begin(cli, NULL);
        if (plan_make(cli, cli->argv[0], &plan)) {
                if (cli->json)
                        step_tell(STEP_STATE_DONE, "plan", plan_json(&plan), "%zu change%s",
                                  plan.count, plan.count == 1 ? "" : "s");
                else
                        plan_print(&plan);
                status = plan.count > 0 ? plan_apply(cli, &plan) : look_on(cli, plan.epoch);
        }
        plan_fini(&plan);
        return step_end(status);
}
