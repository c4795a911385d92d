/* verify.c - `meridian verify`: do the regions hold the same keys? They are asked for digests
 * while they are written (verify/verify.h says how, and what a verdict means); keys that differ are
 * named (verify_report.c). Regions that cannot be asked, or are behind, are said, and the rest is
 * compared.
 *
 * Exit status: 0 the same, 1 some keys differ, 2 some region could not be asked or did not catch
 * up, so nobody knows. */
#include "meridian/verify_run.h"
#include "topology/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
        ASK_MS = 10000,
        STATUS_MS = 3000,
        PAUSE_NS = 50000000,
        CATCH_UP_MS = 15000,
        ROUNDS_MAX = 8,
        KEYS_MAX = 200000, /* looked into at most, about */
};

static void progress(const struct run *run, const char *what)
{
        if (run->progress)
                fprintf(stderr, "\r\033[K%s: %llu keys looked at", what,
                        (unsigned long long)run->keys);
}

static uint64_t now_ms(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_shortly(void)
{
        struct timespec pause = {.tv_nsec = PAUSE_NS};
        nanosleep(&pause, NULL);
}

/* ---- one question */

static void problem_of(struct region *region, const struct client_answer *answer)
{
        json_t *json = json_loads(answer->body, 0, NULL);
        const char *text = json_string_value(json_object_get(json, "error"));
        snprintf(region->problem, sizeof region->problem, "%s",
                 answer->status == 0 ? answer->error
                 : text != NULL      ? text
                                     : "the node's answer cannot be read");
        json_decref(json);
}

/* The payload of an answer, which the caller ends; false: region->problem says why. */
static bool ask(struct run *run, struct region *region, bool positions,
                struct client_answer *ret_answer, struct bytes *ret_payload)
{
        char path[900];
        struct bytes body = bytes_of(NULL, 0);
        char *prefix = client_escape(run->prefix);
        snprintf(path, sizeof path, "/verify?shard=%u&walk=%llu&positions=%d&prefix=%s",
                 region->shard, (unsigned long long)region->walk, positions ? 1 : 0,
                 prefix == NULL ? "" : prefix);
        free(prefix);
        if (run->map_used && !positions && region->walk == 0)
                body = bytes_of(run->map, sizeof run->map);
        bool good = client_post(region->node, path, body, ASK_MS, ret_answer) &&
                    ret_answer->status == 200;
        struct cursor cursor = cursor_of(bytes_of(ret_answer->body, ret_answer->body_len));
        if (good) {
                good = cursor_u8(&cursor) == 1;
                region->shards = cursor_u32(&cursor);
                region->walk = cursor_u64(&cursor);
                uint64_t keys = cursor_u64(&cursor);
                run->keys += positions ? 0 : keys;
                *ret_payload = cursor_bytes(&cursor, cursor_left(&cursor));
                good = good && !cursor_failed(&cursor) && region->shards > 0;
        }
        if (!good) {
                problem_of(region, ret_answer);
                client_answer_fini(ret_answer);
        }
        return good;
}

/* ---- walks */

static void take_sums(struct run *run, const struct region *region, struct bytes payload)
{
        struct cursor cursor = cursor_of(payload);
        while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                uint32_t bucket = cursor_u32(&cursor);
                uint64_t keys = cursor_u64(&cursor);
                uint64_t sum = cursor_u64(&cursor);
                if (!cursor_failed(&cursor))
                        verify_sum(run->verify, region->index, bucket, keys, sum);
        }
}

static bool walk_on(struct run *run, struct region *region)
{
        struct client_answer answer;
        struct bytes payload;
        if (!ask(run, region, false, &answer, &payload))
                return false;
        enum err err = ERR_NONE;
        if (run->map_used)
                err = verify_records(run->verify, region->index, payload);
        else
                take_sums(run, region, payload);
        client_answer_fini(&answer);
        if (err != ERR_NONE) {
                snprintf(region->problem, sizeof region->problem, "its answer: %s", err_text(err));
                return false;
        }
        if (region->walk == 0) {
                region->shard++;
                region->walked = region->shard >= region->shards;
        }
        return true;
}

/* All regions, in turns, so that they are read at about the same time. False: one failed. */
static bool walk_all(struct run *run, const char *what)
{
        for (size_t i = 0; i < run->region_count; i++) {
                run->regions[i].shard = 0;
                run->regions[i].walk = 0;
                run->regions[i].walked = run->regions[i].problem[0] != 0;
        }
        for (bool more = true; more;) {
                more = false;
                for (size_t i = 0; i < run->region_count; i++) {
                        struct region *region = &run->regions[i];
                        if (region->walked)
                                continue;
                        if (!walk_on(run, region))
                                return false;
                        more = true;
                }
                progress(run, what);
        }
        return true;
}

/* ---- positions */

static bool positions_ask(struct run *run, struct region *region)
{
        region->newest = 0;
        region->shards = 1;
        for (region->shard = 0; region->shard < region->shards; region->shard++) {
                struct client_answer answer;
                struct bytes payload;
                uint64_t positions[VERIFY_ORIGINS] = {0};
                if (!ask(run, region, true, &answer, &payload))
                        return false;
                struct cursor cursor = cursor_of(payload);
                uint64_t newest = cursor_u64(&cursor);
                (void)cursor_u64(&cursor);
                while (cursor_left(&cursor) > 0 && !cursor_failed(&cursor)) {
                        uint8_t origin = cursor_u8(&cursor);
                        uint64_t position = cursor_u64(&cursor);
                        if (origin < VERIFY_ORIGINS)
                                positions[origin] = position;
                }
                client_answer_fini(&answer);
                region->newest = newest > region->newest ? newest : region->newest;
                for (size_t i = 0; i < VERIFY_ORIGINS; i++)
                        if (region->shard == 0 || positions[i] < region->positions[i])
                                region->positions[i] = positions[i];
        }
        return true;
}

static bool positions_all(struct run *run)
{
        for (size_t i = 0; i < run->region_count; i++)
                if (run->regions[i].problem[0] == 0 && !positions_ask(run, &run->regions[i]))
                        return false;
        return true;
}

/* What every region must have merged to hold all that any of them holds now. Of an origin that is
 * not asked itself, the most that another has. */
static void needs_of(const struct run *run, uint64_t needs[static VERIFY_ORIGINS])
{
        memset(needs, 0, VERIFY_ORIGINS * sizeof *needs);
        for (size_t i = 0; i < run->region_count; i++) {
                const struct region *region = &run->regions[i];
                for (size_t origin = 0; region->problem[0] == 0 && origin < VERIFY_ORIGINS;
                     origin++)
                        if (region->positions[origin] > needs[origin])
                                needs[origin] = region->positions[origin];
        }
        for (size_t i = 0; i < run->region_count; i++)
                if (run->regions[i].problem[0] == 0)
                        needs[run->regions[i].id] = run->regions[i].newest;
}

/* The first that is behind, or NULL. */
static struct region *behind(struct run *run, const uint64_t *needs)
{
        for (size_t i = 0; i < run->region_count; i++) {
                struct region *region = &run->regions[i];
                for (size_t origin = 0; region->problem[0] == 0 && origin < VERIFY_ORIGINS;
                     origin++)
                        if (origin != region->id && region->positions[origin] < needs[origin])
                                return region;
        }
        return NULL;
}

/* Waits until everything that is anywhere now is everywhere. */
static bool catch_up(struct run *run)
{
        uint64_t needs[VERIFY_ORIGINS];
        uint64_t until = now_ms() + CATCH_UP_MS;
        if (!positions_all(run))
                return false;
        needs_of(run, needs);
        for (struct region *late; (late = behind(run, needs)) != NULL;) {
                if (now_ms() > until) {
                        snprintf(late->problem, sizeof late->problem,
                                 "it is behind: it did not merge what others hold within %d s",
                                 CATCH_UP_MS / 1000);
                        return false;
                }
                pause_shortly();
                if (!positions_all(run))
                        return false;
        }
        return true;
}

/* ---- who is asked */

static json_t *get(const char *node, const char *path)
{
        struct client_answer answer;
        json_t *json = NULL;
        if (client_get(node, path, STATUS_MS, &answer) && answer.status == 200)
                json = json_loads(answer.body, 0, NULL);
        client_answer_fini(&answer);
        return json;
}

/* Notes the node for its region, where that has none yet. */
static void node_try(struct run *run, const char *node)
{
        json_t *status = get(node, "/status");
        const char *name = json_string_value(json_object_get(status, "region"));
        for (size_t i = 0; name != NULL && i < run->region_count; i++) {
                struct region *region = &run->regions[i];
                if (region->node[0] == 0 && strcmp(region->name, name) == 0)
                        snprintf(region->node, sizeof region->node, "%s", node);
        }
        json_decref(status);
}

/* `--region a,b`: only these. */
static bool region_wanted(const char *list, const char *name)
{
        size_t len = strlen(name);
        for (const char *at = list; at != NULL; at = strchr(at, ',')) {
                at += *at == ',';
                if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == 0))
                        return true;
        }
        return list == NULL;
}

static void nodes_of_topology(struct run *run, const struct topology *topology)
{
        char text[TOPOLOGY_ENDPOINT_TEXT];
        for (uint32_t i = 0; i < topology->region_count; i++) {
                const struct topology_region *told = &topology->regions[i];
                for (uint32_t j = 0; j < told->node_count; j++) {
                        const struct topology_endpoint *admin = &told->nodes[j].admin;
                        for (size_t k = 0; k < run->region_count; k++)
                                if (run->regions[k].id == told->id &&
                                    run->regions[k].node[0] == 0 && admin->address.family != 0)
                                        node_try(run, topology_endpoint_text(admin, text));
                }
        }
}

static bool topology_get(struct run *run, struct topology *topology)
{
        struct topology_error error;
        struct client_answer answer;
        if (!cli_get(run->cli, "/topology", &answer, NULL))
                return false;
        json_t *json = cli_json(&answer);
        const char *text = json_string_value(json_object_get(json, "document"));
        bool good = text != NULL && topology_parse(bytes_of_str(text), topology, &error);
        if (json != NULL && !good)
                cli_error("the topology cannot be read: are node and command of one version?");
        json_decref(json);
        return good;
}

static bool regions_find(struct run *run)
{
        struct topology *topology = calloc(1, sizeof *topology);
        bool good = topology != NULL && topology_get(run, topology);
        for (uint32_t i = 0; good && i < topology->region_count; i++) {
                const struct topology_region *told = &topology->regions[i];
                if (told->role != TOPOLOGY_ROLE_DATA ||
                    !region_wanted(run->cli->region, told->name))
                        continue;
                struct region *region = &run->regions[run->region_count++];
                snprintf(region->name, sizeof region->name, "%s", told->name);
                region->id = told->id;
        }
        for (size_t i = 0; good && i < run->cli->node_count; i++)
                node_try(run, run->cli->nodes[i].admin);
        if (good)
                nodes_of_topology(run, topology);
        free(topology);
        return good;
}

/* Regions that answer get a place in the comparison. Returns how many. */
static unsigned regions_number(struct run *run)
{
        unsigned count = 0;
        for (size_t i = 0; i < run->region_count; i++) {
                struct region *region = &run->regions[i];
                if (region->node[0] == 0)
                        snprintf(region->problem, sizeof region->problem,
                                 "no node of it answers: is it down, or not named by --node?");
                else
                        (void)positions_ask(run, region);
                if (region->problem[0] == 0)
                        region->index = count++;
                else
                        run->unknown = true;
        }
        return count;
}

/* ---- the run */

static void rounds(struct run *run)
{
        uint64_t open = 0;
        run->map_used = true;
        for (unsigned i = 0; i < ROUNDS_MAX; i++) {
                if (!walk_all(run, "keys that may differ"))
                        return;
                open = verify_round_end(run->verify, run->map);
                if (open == 0 || !catch_up(run))
                        return;
        }
}

static int compare(struct run *run)
{
        struct heap heap;
        heap_init(&heap, 0);
        unsigned count = regions_number(run);
        run->verify = verify_new(&heap, count == 0 ? 1 : count);
        if (run->verify == NULL) {
                cli_error("out of memory");
                return VERIFY_EXIT_UNKNOWN;
        }
        if (count >= 2 && walk_all(run, "all keys")) {
                run->buckets_different =
                        verify_choose(run->verify, KEYS_MAX, run->map, &run->buckets_chosen);
                if (run->buckets_different > 0)
                        rounds(run);
        }
        run->unknown = run->unknown || count < 2;
        int status = verify_report(run);
        verify_free(run->verify);
        return status;
}

int cli_verify(struct cli *cli)
{
        struct run *run = calloc(1, sizeof *run);
        if (run == NULL) {
                cli_error("out of memory");
                return VERIFY_EXIT_UNKNOWN;
        }
        run->cli = cli;
        run->prefix = cli->argc > 0 ? cli->argv[0] : "";
        run->progress = !cli->json && isatty(STDERR_FILENO) != 0;
        int status = VERIFY_EXIT_UNKNOWN;
        if (strlen(run->prefix) > 200)
                cli_error("the prefix is longer than 200 bytes");
        else if ((cli->region == NULL || cli_regions_check(cli, cli->region)) && regions_find(run))
                status = compare(run);
        free(run);
        return status;
}
