/* postgres.c - `meridian switchover` and `meridian failover`: what is to happen is checked and
 * shown first, then asked for, then followed by the status of the nodes until it has come true or
 * is off.
 *
 *     check    what the rules want; by what the asked node knows
 *     ask      the node in question decides; it may refuse for what only it knows
 *     hold     a switchover: the old primary lets no commit begin
 *     hand over            it gives its lease back when the new one has everything
 *     take over            the new one has the lease, and takes writes under a new epoch
 *     follow   the others stream from it
 *
 * A switchover that cannot finish goes back by itself; ending this command stops nothing. */
#include "meridian/evacuate.h"
#include "meridian/postgres_plan.h"
#include "meridian/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
        LOOK_EVERY_MS = 40,
        TROUBLE_MS = 1500,
        RESUME_MS = 6000, /* for a node that is started anew to take up its order */
        LOOK_TIMEOUT_MS = 1000,
        WAIT_MS = 60000,
};

static uint64_t now_ms(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(long ms)
{
        struct timespec pause = {.tv_nsec = ms * 1000000};
        nanosleep(&pause, NULL);
}

/* ---- looking ---- */

/* One node's view, silent where it does not answer. */
static json_t *look_at(const struct cli_node *node)
{
        struct client_answer answer;
        json_t *json = NULL;
        if (client_get(node->admin, "/status", LOOK_TIMEOUT_MS, &answer) && answer.status == 200)
                json = json_loads(answer.body, 0, NULL);
        client_answer_fini(&answer);
        return json;
}

void postgres_view_fini(struct view *view)
{
        json_decref(view->status);
        json_decref(view->own);
        *view = (struct view){0};
}

/* Of those with a majority the one that knows of the newest epoch; else any. What others tell of a
 * node's server is older than its own word, some more than others: that of `own` is kept beside
 * (NULL: nobody's). */
bool postgres_look(const struct cli *cli, const char *own, struct view *view)
{
        long long best = -1;
        postgres_view_fini(view);
        for (size_t i = 0; i < cli->node_count; i++) {
                json_t *status = look_at(&cli->nodes[i]);
                json_t *postgres = json_object_get(status, "postgres");
                long long worth = postgres_epoch(postgres) * 4 +
                                  (postgres_text(postgres, "writer") != NULL ? 1 : 0) +
                                  (json_is_true(json_object_get(status, "majority")) ? 2 : 0);
                if (own != NULL && postgres_is_text(postgres, "self", own))
                        view->own = json_incref(postgres);
                if (status != NULL && worth > best) {
                        json_decref(view->status);
                        view->status = status;
                        view->postgres = postgres;
                        best = worth;
                } else {
                        json_decref(status);
                }
        }
        return view->status != NULL;
}

json_t *postgres_status_of_region(const struct cli *cli, const char *region)
{
        for (size_t i = 0; i < cli->node_count; i++) {
                json_t *status = look_at(&cli->nodes[i]);
                if (postgres_is_text(status, "region", region))
                        return status;
                json_decref(status);
        }
        return NULL;
}

/* A node's server, by its own word. NULL: it did not answer. */
static json_t *server_own(const struct view *view, const char *node)
{
        size_t index = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(view->own, "servers"), index, server)
        {
                if (postgres_is_text(server, "node", node))
                        return server;
        }
        return NULL;
}

/* ---- following ---- */

struct follow {
        const char *old;
        const char *target;
        char actor[128];  /* the node that carries it out: the old primary, or who takes over */
        uint64_t held_ms; /* 0: not yet */
        uint64_t open_ms;
        uint64_t none_ms; /* since when the node knows of no order; 0: it does */
        json_int_t epoch; /* before */
        bool handed;
        char trouble[256];   /* as it was told last */
        uint64_t trouble_ms; /* since when there is another one; 0: there is none */
};

static void pause_tell(const struct follow *follow, const char *node, json_int_t epoch)
{
        if (follow->held_ms != 0)
                STEP_DONE("take over",
                          "%s takes writes, epoch %lld; they paused for at most %llu ms", node,
                          (long long)epoch,
                          (unsigned long long)(follow->open_ms - follow->held_ms));
        else
                STEP_DONE("take over", "%s takes writes, epoch %lld", node, (long long)epoch);
}

/* True: it has come true, or is off; *ret_status says which. */
static bool follow_look(struct follow *follow, const struct view *view, int *ret_status)
{
        json_t *old = follow->old == NULL ? NULL : server_own(view, follow->old);
        json_t *order = json_object_get(view->own, "order");
        const char *why = postgres_text(order, "why");
        const char *writer = postgres_text(view->postgres, "writer");
        json_int_t epoch = postgres_epoch(view->postgres);
        if (follow->held_ms == 0 && postgres_is_text(old, "server", "held")) {
                follow->held_ms = now_ms() - LOOK_EVERY_MS;
                STEP_DONE("hold", "%s lets no commit begin", follow->old);
        }
        if (!follow->handed && follow->old != NULL && epoch == follow->epoch &&
            postgres_text(json_object_get(view->postgres, "lease"), "holder") == NULL) {
                follow->handed = true;
                STEP_DONE("hand over", "%s has given its lease back", follow->old);
        }
        if (writer != NULL && epoch > follow->epoch) {
                follow->open_ms = now_ms();
                pause_tell(follow, writer, epoch);
                *ret_status = follow->target == NULL || strcmp(writer, follow->target) == 0
                                      ? CLI_DONE
                                      : cli_error("another one than asked for has taken over: %s",
                                                  writer);
                return true;
        }
        if (postgres_is_text(order, "state", "off") && !postgres_is_text(old, "server", "held")) {
                STEP_BAD("return", "%s%s, nothing has happened: %s", follow->actor,
                         follow->old != NULL ? " goes on" : " does not take over",
                         postgres_or_else(why, "nobody knows why"));
                *ret_status = CLI_FAILED;
                return true;
        }
        /* A node that was started anew takes up what was recorded, once it knows the council's. */
        if (!postgres_is_text(order, "state", "none"))
                follow->none_ms = 0;
        else if (follow->none_ms == 0)
                follow->none_ms = now_ms();
        if (follow->none_ms != 0 && now_ms() > follow->none_ms + RESUME_MS) {
                STEP_BAD("return",
                         "%s was started anew meanwhile, and what was asked is over: see "
                         "`meridian status`, and ask again",
                         follow->actor);
                *ret_status = CLI_FAILED;
                return true;
        }
        bool waits = postgres_is_text(order, "state", "waits") && why != NULL &&
                     strcmp(why, follow->trouble) != 0;
        if (!waits)
                follow->trouble_ms = 0;
        else if (follow->trouble_ms == 0)
                follow->trouble_ms = now_ms();
        /* A step that takes its time is no trouble. */
        if (waits && now_ms() > follow->trouble_ms + TROUBLE_MS) {
                (void)snprintf(follow->trouble, sizeof follow->trouble, "%s", why);
                STEP_WARN("wait", "%s", why);
        }
        return false;
}

static void followers_wait(const struct cli *cli, struct view *view, uint64_t until_ms)
{
        size_t count = 0, following = 0;
        while (now_ms() < until_ms) {
                size_t index = 0;
                json_t *server = NULL;
                count = following = 0;
                json_array_foreach(json_object_get(view->postgres, "servers"), index, server)
                {
                        const char *role = postgres_text(server, "role");
                        /* One that is not heard is not waited for. */
                        if (role == NULL || strcmp(role, "primary") == 0)
                                continue;
                        count++;
                        following += json_is_true(json_object_get(server, "following"));
                }
                if (following == count)
                        break;
                pause_ms(4L * LOOK_EVERY_MS);
                if (!postgres_look(cli, NULL, view))
                        break;
        }
        if (following == count)
                STEP_DONE("follow", "all %zu others that are heard stream from it", count);
        else
                STEP_WARN("follow", "%zu of %zu others stream from it yet; `meridian status`",
                          following, count);
}

static int follow_run(const struct cli *cli, struct view *view, struct follow *follow)
{
        enum {
                FOLLOWERS_MS = 10000
        };
        int status = CLI_FAILED;
        uint64_t until_ms = now_ms() + WAIT_MS;
        while (now_ms() < until_ms) {
                struct view next = {0};
                pause_ms(LOOK_EVERY_MS);
                if (!postgres_look(cli, follow->actor, &next))
                        continue;
                bool over = follow_look(follow, &next, &status);
                postgres_view_fini(view);
                *view = next;
                if (!over)
                        continue;
                if (status == CLI_DONE)
                        followers_wait(cli, view, now_ms() + FOLLOWERS_MS);
                return status;
        }
        STEP_BAD("wait", "not yet, after %d s: `meridian status` and `meridian events` say why",
                 WAIT_MS / 1000);
        return CLI_FAILED;
}

/* ---- asking ---- */

/* `ret_node`: who takes over, or "". */
static int ask(const struct cli *cli, const char *action, const struct order *order, char *ret_node,
               size_t size)
{
        char path[512];
        struct client_answer answer;
        char *to = client_escape(order->to == NULL ? "" : order->to);
        char *actor = client_escape(cli_user());
        int len = -1;
        if (to != NULL && actor != NULL)
                len = snprintf(path, sizeof path, "/postgres/%s?to=%s&actor=%s%s", action, to,
                               actor, order->force ? "&force=1" : "");
        free(to);
        free(actor);
        if (len < 0 || (size_t)len >= sizeof path)
                return cli_error("the name is too long");
        if (!cli_post(cli, path, BYTES(""), &answer))
                return CLI_FAILED;
        json_t *json = cli_json(&answer);
        if (json == NULL)
                return CLI_FAILED;
        STEP_DONE("ask", "%s", postgres_or_else(postgres_text(json, "text"), "it begins"));
        (void)snprintf(ret_node, size, "%s", postgres_or_else(postgres_text(json, "node"), ""));
        json_decref(json);
        return CLI_DONE;
}

static bool order_take(struct cli *cli, bool failover, struct order *ret)
{
        for (int i = 0; i < cli->argc; i++) {
                const char *word = cli->argv[i];
                if (strcmp(word, "--to") == 0 && i + 1 < cli->argc)
                        ret->to = cli->argv[++i];
                else if (strcmp(word, "--dry-run") == 0)
                        ret->dry = true;
                else if (strcmp(word, "--abort") == 0)
                        ret->abort = true;
                else if (failover && strcmp(word, "--force") == 0)
                        ret->force = true;
                else if (failover && strcmp(word, "--yes") == 0)
                        ret->yes = true;
                else
                        return false;
        }
        return true;
}

/* What was not heard just now, or changes its primary, is looked at for a moment longer. */
static void standby_wait(const struct cli *cli, const struct order *order, struct view *view)
{
        enum {
                STANDBY_MS = 3000
        };
        uint64_t until_ms = now_ms() + STANDBY_MS;
        while (now_ms() < until_ms) {
                const char *writer = postgres_text(view->postgres, "writer");
                json_t *target = postgres_candidate(view, order, writer);
                if (writer != NULL &&
                    (target == NULL || json_is_true(json_object_get(target, "following"))))
                        return;
                pause_ms(LOOK_EVERY_MS);
                if (!postgres_look(cli, NULL, view))
                        return;
        }
}

/* What the one that would take over says itself. */
static void target_look(const struct cli *cli, const struct order *order, struct view *view)
{
        struct view next = {0};
        json_t *target = postgres_candidate(view, order, NULL);
        const char *name = postgres_text(target, "node");
        if (name == NULL || !postgres_look(cli, name, &next))
                return;
        postgres_view_fini(view);
        *view = next;
}

/* Where somebody sits there, a loss is taken by whoever has read what it costs. */
static bool agreed(const struct order *order)
{
        char line[16] = "";
        if (!order->force || order->yes || isatty(STDIN_FILENO) == 0)
                return true;
        /* Not on stdout, which may be read by a program. */
        fprintf(stderr, "  take this loss? Type yes: ");
        if (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "yes\n") == 0)
                return true;
        STEP_BAD("ask", "nothing is done");
        return false;
}

static int run(const struct cli *cli, bool failover, const struct order *order)
{
        struct view view = {0};
        json_t *target = NULL;
        const char *action = failover ? "failover" : "switchover";
        if (!postgres_look(cli, NULL, &view))
                return cli_nodes_silent(cli);
        if (!json_is_object(view.postgres)) {
                postgres_view_fini(&view);
                return cli_error("the topology has no PostgreSQL cluster (section postgres)");
        }
        if (failover)
                target_look(cli, order, &view);
        else
                standby_wait(cli, order, &view);
        bool good = failover ? postgres_plan_failover(&view, order, &target)
                             : postgres_plan_switchover(&view, order, &target);
        char *old = strdup(postgres_or_else(postgres_text(view.postgres, "writer"), ""));
        char *name = strdup(postgres_or_else(postgres_text(target, "node"), ""));
        struct follow follow = {.epoch = postgres_epoch(view.postgres)};
        /* By force it is the one whose cost was shown. */
        struct order shown = *order;
        if (order->force)
                shown.to = name;
        int status = good && old != NULL && name != NULL ? CLI_DONE : CLI_FAILED;
        if (status == CLI_DONE && order->dry)
                STEP_DONE("dry run", "nothing is done");
        else if (status == CLI_DONE && !agreed(order))
                status = CLI_FAILED;
        else if (status == CLI_DONE)
                status = ask(cli, action, &shown, follow.actor, sizeof follow.actor);
        if (status == CLI_DONE && !order->dry) {
                follow.old = old[0] == '\0' ? NULL : old;
                if (!failover)
                        (void)snprintf(follow.actor, sizeof follow.actor, "%s", old);
                follow.target = order->to != NULL ? name : NULL;
                status = follow_run(cli, &view, &follow);
        }
        free(old);
        free(name);
        postgres_view_fini(&view);
        return status;
}

static int give_up(const struct cli *cli, const struct order *order)
{
        char node[128];
        return ask(cli, "abort", order, node, sizeof node);
}

int postgres_switchover(const struct cli *cli, const struct order *order)
{
        return run(cli, false, order);
}

int postgres_give_up(const struct cli *cli)
{
        return give_up(cli, &(struct order){0});
}

static int carry_out(const struct cli *cli, bool failover, const struct order *order)
{
        const char *title = failover ? "PostgreSQL failover" : "PostgreSQL switchover";
        step_begin(cli, order->abort ? NULL : title);
        return step_end(order->abort ? give_up(cli, order) : run(cli, failover, order));
}

int cli_switchover(struct cli *cli)
{
        struct order order = {0};
        if (!order_take(cli, false, &order)) {
                cli_error("usage: meridian switchover [--to NODE or REGION] [--dry-run] [--abort]");
                return CLI_USAGE;
        }
        return carry_out(cli, false, &order);
}

int cli_failover(struct cli *cli)
{
        struct order order = {0};
        if (!order_take(cli, true, &order)) {
                cli_error("usage: meridian failover [--to NODE or REGION] [--force [--yes]] "
                          "[--dry-run] [--abort]");
                return CLI_USAGE;
        }
        return carry_out(cli, true, &order);
}
