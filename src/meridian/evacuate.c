/* evacuate.c - `meridian evacuate REGION`: all that the cluster does in a region is moved to
 * others, so that its machines may be stopped; `meridian unevacuate REGION` brings it back.
 *
 *     check      the region is known, a majority can be reached, others serve
 *     writer     PostgreSQL's writer goes to another region, if it is here; nothing is lost
 *     traffic    the region is drained: DNS and edge send nobody there any more
 *     agreement  the leader of the agreement is in another region
 *     changes    the others have acknowledged all that its Redis has written
 *
 * Each of these is looked at first, and shown; what is so already is left alone. So to be broken
 * off is no harm: the same command goes on where it was. Whatever cannot be had ends it there, with
 * what is done left as it is; --abort, or `unevacuate`, takes that back. Every change is one that
 * another command makes, too (switchover, drain), and is in the audit as such. */
#include "meridian/evacuate.h"
#include "meridian/step.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
        LOOK_EVERY_MS = 200,
        TEXT_SIZE = 512,
        WRITER_WAIT_S = 20,    /* for one that takes writes, while there is none */
        AGREEMENT_WAIT_S = 60, /* some elections */
        CHANGES_WAIT_S = 30,
        DRAIN_WAIT_S = 3660, /* `timing { drain }` is an hour at most */
        RETURN_WAIT_S = 300,
        FLOWING_MS = 2000, /* younger changes are on their way: it tells what it has seen, too */
};

struct move {
        const struct cli *cli;
        const char *region;
        const char *why;
        struct order order; /* its `to`: who is to write; NULL: who is least behind */
        bool writer;        /* unevacuate: the writer, too */
        bool draining;      /* it was seen so */
        struct view view;   /* of the last look */
};

enum found {
        FOUND_SO,
        FOUND_NOT_YET,
        FOUND_NEVER, /* what stands against it is in the text */
};

/* What is moved. `look` tells what it has found: as it is, or as it would become. `act` begins it,
 * and is asked once; NULL: it comes by itself. */
struct part {
        const char *name;
        enum found (*look)(struct move *move, char *text);
        int (*act)(struct move *move);
        unsigned wait_s;
};

static uint64_t now_ms(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool look_again(struct move *move)
{
        return postgres_look(move->cli, NULL, &move->view);
}

static json_t *region_find(json_t *status, const char *name)
{
        size_t index = 0;
        json_t *region = NULL;
        json_array_foreach(json_object_get(status, "regions"), index, region)
        {
                if (postgres_is_text(region, "name", name))
                        return region;
        }
        return NULL;
}

static const char *state_of(const struct move *move)
{
        json_t *region = region_find(move->view.status, move->region);
        return postgres_or_else(postgres_text(region, "state"), "not known");
}

static bool state_is(const struct move *move, const char *state)
{
        return strcmp(state_of(move), state) == 0;
}

/* ---- the writer ---- */

static json_t *server_find(const struct move *move, const char *node)
{
        size_t index = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(move->view.postgres, "servers"), index, server)
        {
                if (node != NULL && postgres_is_text(server, "node", node))
                        return server;
        }
        return NULL;
}

/* Is the server of that node in the region? */
static bool is_here(const struct move *move, const char *node)
{
        return postgres_is_text(server_find(move, node), "region", move->region);
}

static json_int_t lag_of(json_t *server)
{
        json_t *lag = json_object_get(server, "lag_bytes");
        return json_is_integer(lag) ? json_integer_value(lag) : INT64_MAX;
}

/* Of all other regions the one that is least behind; NULL: nobody may take over. */
static json_t *heir(const struct move *move)
{
        size_t index = 0;
        json_t *server = NULL, *best = NULL;
        const char *to = move->order.to;
        json_array_foreach(json_object_get(move->view.postgres, "servers"), index, server)
        {
                bool wanted = to == NULL || postgres_is_text(server, "node", to) ||
                              postgres_is_text(server, "region", to);
                if (!wanted || postgres_is_text(server, "region", move->region) ||
                    !json_is_true(json_object_get(server, "eligible")))
                        continue;
                if (best == NULL || lag_of(server) < lag_of(best))
                        best = server;
        }
        return best;
}

static enum found writer_look(struct move *move, char *text)
{
        const char *writer = postgres_text(move->view.postgres, "writer");
        json_t *next = heir(move);
        if (!json_is_object(move->view.postgres)) {
                snprintf(text, TEXT_SIZE, "there is no PostgreSQL cluster");
                return FOUND_SO;
        }
        if (writer == NULL) {
                snprintf(text, TEXT_SIZE, "no server takes writes: see `meridian failover`");
                return FOUND_NOT_YET;
        }
        if (!is_here(move, writer)) {
                snprintf(text, TEXT_SIZE, "%s takes writes", writer);
                return FOUND_SO;
        }
        if (next == NULL) {
                snprintf(text, TEXT_SIZE,
                         "%s takes writes, and %s%s may not take over: see `meridian status`",
                         writer, move->order.to == NULL ? "no server of another region" : "",
                         postgres_or_else(move->order.to, ""));
                return FOUND_NEVER;
        }
        snprintf(text, TEXT_SIZE, "%s takes over from %s; writes pause, nothing is lost",
                 postgres_text(next, "node"), writer);
        return FOUND_NOT_YET;
}

static int writer_move(struct move *move)
{
        char node[128];
        uint64_t until_ms = now_ms() + 1000ull * WRITER_WAIT_S;
        while (postgres_text(move->view.postgres, "writer") == NULL && now_ms() < until_ms) {
                nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
                (void)!look_again(move);
        }
        const char *writer = postgres_text(move->view.postgres, "writer");
        json_t *next = heir(move);
        if (writer == NULL || !is_here(move, writer) || next == NULL)
                return CLI_DONE; /* the look after it says what that means */
        snprintf(node, sizeof node, "%s", postgres_text(next, "node"));
        return postgres_switchover(move->cli, &(struct order){.to = node});
}

/* ---- traffic ---- */

static enum found traffic_look(struct move *move, char *text)
{
        if (state_is(move, "drained")) {
                snprintf(text, TEXT_SIZE, "%s is drained: it gets none", move->region);
                return FOUND_SO;
        }
        if (state_is(move, "isolated")) {
                snprintf(text, TEXT_SIZE, "%s was isolated meanwhile", move->region);
                return FOUND_NEVER;
        }
        if (move->draining && !state_is(move, "draining")) {
                snprintf(text, TEXT_SIZE, "%s is %s: somebody has taken the drain back",
                         move->region, state_of(move));
                return FOUND_NEVER;
        }
        move->draining = state_is(move, "draining");
        snprintf(text, TEXT_SIZE,
                 "%s is %s; drained it gets none by DNS and edge, after the time that the topology "
                 "gives (`timing { drain }`)",
                 move->region, state_of(move));
        return FOUND_NOT_YET;
}

static int traffic_move(struct move *move)
{
        if (state_is(move, "draining"))
                return CLI_DONE;
        json_t *json = cli_region_ask(move->cli, move->region, "drain", move->why);
        json_decref(json);
        return json != NULL ? CLI_DONE : CLI_FAILED;
}

/* ---- agreement ---- */

static enum found agreement_look(struct move *move, char *text)
{
        const char *leader = postgres_text(move->view.status, "leader");
        bool here = leader != NULL && strcmp(leader, move->region) == 0;
        if (leader != NULL && !here) {
                snprintf(text, TEXT_SIZE, "%s leads it", leader);
                return FOUND_SO;
        }
        snprintf(text, TEXT_SIZE,
                 here ? "%s leads it, and hands over once it is drained"
                      : "nobody leads it now; %s does not, once it is drained",
                 move->region);
        return FOUND_NOT_YET;
}

/* ---- Redis ---- */

static bool waits_for(json_t *other)
{
        const char *state = postgres_or_else(postgres_text(other, "state"), "");
        return !json_is_true(json_object_get(other, "witness")) && strcmp(state, "down") != 0 &&
               strcmp(state, "isolated") != 0;
}

/* What is seen, of the others' part in it; false: something is still to come. */
static bool changes_seen(const struct move *move, json_t *own, json_t *regions, char *text)
{
        size_t index = 0;
        json_t *other = NULL;
        snprintf(text, TEXT_SIZE, "the others have acknowledged all that its Redis has written");
        json_array_foreach(regions, index, other)
        {
                const char *name = postgres_or_else(postgres_text(other, "name"), "");
                struct behind behind = cli_behind_of(own, name);
                if (strcmp(name, move->region) == 0 || !waits_for(other))
                        continue;
                if (!behind.known || behind.state || behind.ms > FLOWING_MS) {
                        snprintf(text, TEXT_SIZE,
                                 behind.known ? "%s has not acknowledged %.0f changes of its "
                                                "Redis, the oldest %.1f s old"
                                              : "what %s has of its Redis is not known",
                                 name, behind.deltas, behind.ms / 1000);
                        return false;
                }
                if (behind.deltas > 0)
                        snprintf(text, TEXT_SIZE,
                                 "the others have acknowledged all that its Redis has written, but "
                                 "for what is younger than %d s",
                                 FLOWING_MS / 1000);
        }
        return true;
}

static enum found changes_look(struct move *move, char *text)
{
        json_t *status = postgres_status_of_region(move->cli, move->region);
        json_t *own = region_find(status, move->region);
        json_t *redis = json_object_get(own, "redis");
        bool seen = true;
        if (own == NULL)
                snprintf(text, TEXT_SIZE,
                         "its node does not answer: what the others lack of its "
                         "Redis is not known");
        else if (json_array_size(json_object_get(redis, "servers")) == 0)
                snprintf(text, TEXT_SIZE, "it has no Redis that answers");
        else
                seen = changes_seen(move, own, json_object_get(move->view.status, "regions"), text);
        json_decref(status);
        return seen ? FOUND_SO : FOUND_NOT_YET;
}

/* ---- the way ---- */

static const struct part away[] = {
        {"writer", writer_look, writer_move, 5},
        {"traffic", traffic_look, traffic_move, DRAIN_WAIT_S},
        {"agreement", agreement_look, NULL, AGREEMENT_WAIT_S},
        {"changes", changes_look, NULL, CHANGES_WAIT_S},
};

static enum found part_wait(struct move *move, const struct part *part, char *text)
{
        uint64_t until_ms = now_ms() + 1000ull * part->wait_s;
        for (;;) {
                enum found found = look_again(move) ? part->look(move, text) : FOUND_NOT_YET;
                if (found != FOUND_NOT_YET || now_ms() > until_ms)
                        return found;
                nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
        }
}

static int part_move(struct move *move, const struct part *part)
{
        char text[TEXT_SIZE] = "no node answers";
        enum found found = look_again(move) ? part->look(move, text) : FOUND_NEVER;
        if (found == FOUND_NOT_YET && part->act != NULL && part->act(move) != CLI_DONE)
                return CLI_FAILED;
        if (found == FOUND_NOT_YET)
                found = part_wait(move, part, text);
        if (found == FOUND_SO)
                STEP_DONE(part->name, "%s", text);
        else
                STEP_BAD(part->name, "%s", text);
        return found == FOUND_SO ? CLI_DONE : CLI_FAILED;
}

/* What each part would do, in order. False: one cannot be had, and nothing is begun. */
static bool plan_show(struct move *move, const struct part *parts, size_t count)
{
        bool good = true;
        for (size_t i = 0; i < count; i++) {
                char text[TEXT_SIZE] = "";
                enum found found = parts[i].look(move, text);
                if (found == FOUND_NEVER)
                        STEP_BAD("plan", "%zu. %s: %s", i + 1, parts[i].name, text);
                else
                        STEP_DONE("plan", "%zu. %s: %s%s", i + 1, parts[i].name, text,
                                  found == FOUND_SO ? " (so already)" : "");
                good = good && found != FOUND_NEVER;
        }
        return good;
}

static int parts_move(struct move *move, const struct part *parts, size_t count)
{
        if (!plan_show(move, parts, count))
                return CLI_FAILED;
        if (move->order.dry) {
                STEP_DONE("dry run", "nothing is done");
                return CLI_DONE;
        }
        for (size_t i = 0; i < count; i++) {
                if (part_move(move, &parts[i]) == CLI_DONE)
                        continue;
                return cli_error("%s: what is done stays; the same command goes on from here",
                                 parts[i].name);
        }
        return CLI_DONE;
}

/* Is there another region that serves? */
static bool others_serve(const struct move *move)
{
        size_t index = 0;
        json_t *region = NULL;
        json_array_foreach(json_object_get(move->view.status, "regions"), index, region)
        {
                if (!postgres_is_text(region, "name", move->region) &&
                    json_is_true(json_object_get(region, "routable")))
                        return true;
        }
        return false;
}

static bool checked(const struct move *move)
{
        if (!json_is_true(json_object_get(move->view.status, "majority"))) {
                STEP_BAD("check",
                         "no majority of the regions can be reached: nothing can be moved");
                return false;
        }
        if (state_is(move, "isolated")) {
                STEP_BAD("check", "%s is isolated: nothing of it is in use (`meridian unisolate`)",
                         move->region);
                return false;
        }
        if (!others_serve(move)) {
                STEP_BAD("check", "no other region serves: bring one back first");
                return false;
        }
        STEP_DONE("check", "%s is %s, other regions serve, a majority can be reached", move->region,
                  state_of(move));
        return true;
}

/* Do those who vote elsewhere, and are up, decide without the region's votes? */
static bool votes_suffice(const struct move *move)
{
        size_t index = 0, all = 0, left = 0;
        json_t *node = NULL;
        json_array_foreach(json_object_get(move->view.status, "nodes"), index, node)
        {
                if (!postgres_is_text(node, "role", "voter") &&
                    !postgres_is_text(node, "role", "witness"))
                        continue;
                all++;
                left += json_is_true(json_object_get(node, "up")) &&
                        !postgres_is_text(node, "region", move->region);
        }
        return 2 * left > all;
}

static void ready_tell(const struct move *move)
{
        const char *region = move->region;
        if (votes_suffice(move))
                STEP_DONE("ready",
                          "nothing but its own locks and values (%s:...) needs %s now: its nodes "
                          "may be stopped. `meridian unevacuate %s` brings it back",
                          region, region, region);
        else
                STEP_WARN("ready",
                          "its nodes must go on all the same: those who vote elsewhere, and are "
                          "up, are no majority without them. `meridian unevacuate %s` brings it "
                          "back",
                          region);
}

static int evacuate(struct move *move)
{
        if (!checked(move))
                return CLI_FAILED;
        int status = parts_move(move, away, COUNT_OF(away));
        if (status == CLI_DONE && !move->order.dry)
                ready_tell(move);
        return status;
}

/* ---- the way back ---- */

static enum found return_look(struct move *move, char *text)
{
        if (state_is(move, "active") || state_is(move, "suspect")) {
                snprintf(text, TEXT_SIZE, "%s is %s: it gets traffic", move->region,
                         state_of(move));
                return FOUND_SO;
        }
        snprintf(text, TEXT_SIZE, "%s is %s; it gets traffic again when it has caught up",
                 move->region, state_of(move));
        return state_is(move, "isolated") ? FOUND_NEVER : FOUND_NOT_YET;
}

static int return_move(struct move *move)
{
        if (!state_is(move, "draining") && !state_is(move, "drained"))
                return CLI_DONE; /* it comes by itself */
        json_t *json = cli_region_ask(move->cli, move->region, "undrain", move->why);
        json_decref(json);
        return json != NULL ? CLI_DONE : CLI_FAILED;
}

static enum found home_look(struct move *move, char *text)
{
        const char *writer = postgres_text(move->view.postgres, "writer");
        bool here = writer != NULL && is_here(move, writer);
        if (!json_is_object(move->view.postgres)) {
                snprintf(text, TEXT_SIZE, "there is no PostgreSQL cluster");
                return FOUND_NEVER;
        }
        snprintf(text, TEXT_SIZE, here ? "%s takes writes" : "%s takes writes; it goes to %s",
                 postgres_or_else(writer, "nobody"), move->region);
        return here ? FOUND_SO : FOUND_NOT_YET;
}

static bool may_write(const struct move *move)
{
        size_t index = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(move->view.postgres, "servers"), index, server)
        {
                if (postgres_is_text(server, "region", move->region) &&
                    json_is_true(json_object_get(server, "eligible")) &&
                    json_is_true(json_object_get(server, "following")))
                        return true;
        }
        return false;
}

static int home_move(struct move *move)
{
        uint64_t until_ms = now_ms() + 1000ull * WRITER_WAIT_S;
        while (!may_write(move) && now_ms() < until_ms) {
                nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
                (void)!look_again(move);
        }
        return postgres_switchover(move->cli, &(struct order){.to = move->region});
}

static const struct part back[] = {
        {"traffic", return_look, return_move, RETURN_WAIT_S},
        {"writer", home_look, home_move, 5},
};

static int unevacuate(struct move *move)
{
        return parts_move(move, back, move->writer ? 2 : 1);
}

/* A switchover that is on its way goes back; then the region returns. */
static int abort_all(struct move *move)
{
        const char *writer = postgres_text(move->view.postgres, "writer");
        char node[128];
        snprintf(node, sizeof node, "%s", postgres_or_else(writer, ""));
        bool order = postgres_look(move->cli, node, &move->view) &&
                     postgres_is_text(json_object_get(move->view.own, "order"), "state", "waits");
        if (order && is_here(move, node) && postgres_give_up(move->cli) != CLI_DONE)
                return CLI_FAILED;
        return unevacuate(move);
}

/* ---- words ---- */

static bool words_take(struct cli *cli, bool back_again, struct move *move)
{
        int words = 0;
        for (int i = 0; i < cli->argc; i++) {
                const char *word = cli->argv[i];
                if (!back_again && strcmp(word, "--to") == 0 && i + 1 < cli->argc)
                        move->order.to = cli->argv[++i];
                else if (strcmp(word, "--dry-run") == 0)
                        move->order.dry = true;
                else if (!back_again && strcmp(word, "--abort") == 0)
                        move->order.abort = true;
                else if (back_again && strcmp(word, "--writer") == 0)
                        move->writer = true;
                else if (words++ == 0)
                        move->region = word;
                else
                        move->why = word;
        }
        return words == 1 || words == 2;
}

static int carry_out(struct cli *cli, const char *title, int (*run)(struct move *move),
                     struct move *move)
{
        move->cli = cli;
        if (!cli_regions_check(cli, move->region))
                return CLI_FAILED;
        step_begin(cli, title);
        int status = look_again(move) ? run(move) : cli_nodes_silent(cli);
        postgres_view_fini(&move->view);
        return step_end(status);
}

int cli_evacuate(struct cli *cli)
{
        struct move move = {.why = "it is evacuated"};
        if (!words_take(cli, false, &move)) {
                cli_error("usage: meridian evacuate REGION [WHY] [--to NODE|REGION] [--dry-run] "
                          "[--abort] [--json]");
                return CLI_USAGE;
        }
        if (move.order.abort)
                return carry_out(cli, "Evacuation, back", abort_all, &move);
        return carry_out(cli, "Evacuation", evacuate, &move);
}

int cli_unevacuate(struct cli *cli)
{
        struct move move = {.why = "it is back"};
        if (!words_take(cli, true, &move)) {
                cli_error(
                        "usage: meridian unevacuate REGION [WHY] [--writer] [--dry-run] [--json]");
                return CLI_USAGE;
        }
        return carry_out(cli, "Evacuation, back", unevacuate, &move);
}
