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
#include "meridian/cli.h"
#include "term/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
        LOOK_EVERY_MS = 40,
        RESUME_MS = 6000, /* for a node that is started anew to take up its order */
        LOOK_TIMEOUT_MS = 1000,
        WAIT_MS = 60000,
        STEP_WIDTH = 11,
};

/* What the options say. */
struct order {
        const char *to; /* a node or a region; NULL: any */
        bool force;
        bool dry;
        bool abort;
};

/* What one look at the nodes has shown. */
struct view {
        json_t *status; /* whole, of the node that knows most */
        json_t *postgres;
        json_t *own; /* postgres, of the node that was asked for by name; NULL: it did not answer */
};

static const char *text_of(json_t *object, const char *key)
{
        return json_string_value(json_object_get(object, key));
}

static bool is_text(json_t *object, const char *key, const char *text)
{
        const char *now = text_of(object, key);
        return now != NULL && strcmp(now, text) == 0;
}

static const char *or_else(const char *text, const char *otherwise)
{
        return text == NULL ? otherwise : text;
}

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

static void step(enum term_style style, enum term_symbol symbol, const char *name,
                 const char *format, ...) PRINTF_LIKE(4, 5);

static void step(enum term_style style, enum term_symbol symbol, const char *name,
                 const char *format, ...)
{
        va_list args;
        printf("  %s%s%s ", term_style(style), term_symbol(symbol), term_style(TERM_PLAIN));
        term_cell(TERM_BOLD, name, STEP_WIDTH);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
        fflush(stdout);
}

#define STEP_DONE(name, ...) step(TERM_GOOD, TERM_OK, name, __VA_ARGS__)
#define STEP_BAD(name, ...)  step(TERM_BAD, TERM_FAIL, name, __VA_ARGS__)
#define STEP_WARN(name, ...) step(TERM_WARN, TERM_RING, name, __VA_ARGS__)

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

static void view_fini(struct view *view)
{
        json_decref(view->status);
        json_decref(view->own);
        *view = (struct view){0};
}

static json_int_t epoch_of(json_t *postgres)
{
        return json_integer_value(json_object_get(json_object_get(postgres, "lease"), "epoch"));
}

/* Of those with a majority the one that knows of the newest epoch; else any. What others tell of a
 * node's server is older than its own word, some more than others: that of `own` is kept beside
 * (NULL: nobody's). */
static bool look(const struct cli *cli, const char *own, struct view *view)
{
        long long best = -1;
        view_fini(view);
        for (size_t i = 0; i < cli->node_count; i++) {
                json_t *status = look_at(&cli->nodes[i]);
                json_t *postgres = json_object_get(status, "postgres");
                long long worth = epoch_of(postgres) * 4 +
                                  (text_of(postgres, "writer") != NULL ? 1 : 0) +
                                  (json_is_true(json_object_get(status, "majority")) ? 2 : 0);
                if (own != NULL && is_text(postgres, "self", own))
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

/* A node's server, by its own word. NULL: it did not answer. */
static json_t *server_own(const struct view *view, const char *node)
{
        size_t index = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(view->own, "servers"), index, server)
        {
                if (is_text(server, "node", node))
                        return server;
        }
        return NULL;
}

/* ---- the plan ---- */

static bool candidate(json_t *server, const struct order *order, const char *writer)
{
        const char *node = text_of(server, "node"), *region = text_of(server, "region");
        if (node == NULL || (writer != NULL && strcmp(node, writer) == 0))
                return false;
        return order->to == NULL || strcmp(order->to, node) == 0 ||
               (region != NULL && strcmp(order->to, region) == 0);
}

/* Whom the nodes would choose, as far as this view goes: the one that is least behind. */
static json_t *candidate_best(const struct view *view, const struct order *order,
                              const char *writer)
{
        size_t index = 0;
        json_t *server = NULL, *best = NULL;
        json_int_t best_behind = 0;
        json_array_foreach(json_object_get(view->postgres, "servers"), index, server)
        {
                json_t *behind = json_object_get(server, "lag_bytes");
                json_int_t bytes = json_is_integer(behind) ? json_integer_value(behind) : INT64_MAX;
                bool eligible = json_is_true(json_object_get(server, "eligible"));
                if (!candidate(server, order, writer) || (!eligible && order->to == NULL))
                        continue;
                if (best == NULL || bytes < best_behind) {
                        best = server;
                        best_behind = bytes;
                }
        }
        return best;
}

/* Nobody fits: names those that there are, in case of a slip of the pen. */
static void nobody_say(const struct view *view, const struct order *order, const char *what)
{
        char names[512] = "";
        size_t index = 0;
        size_t at = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(view->postgres, "servers"), index, server)
        {
                if (at < sizeof names)
                        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s",
                                               at == 0 ? "" : ", ",
                                               or_else(text_of(server, "node"), "?"));
        }
        if (order->to != NULL)
                STEP_BAD("check", "\"%s\" has no %s; there are: %s", order->to, what, names);
        else
                STEP_BAD("check", "there is no %s; there are: %s", what, names);
}

static void behind_text(json_t *server, char *text, size_t size)
{
        json_t *behind = json_object_get(server, "lag_bytes");
        json_t *lag = json_object_get(server, "lag_ms");
        if (!json_is_integer(behind))
                snprintf(text, size, "how far it is behind is not known");
        else if (json_is_number(lag))
                snprintf(text, size, "%lld bytes (%.0f ms) behind",
                         (long long)json_integer_value(behind), json_number_value(lag));
        else
                snprintf(text, size, "%lld bytes behind", (long long)json_integer_value(behind));
}

/* True: nothing stands against it. */
static bool plan_switchover(const struct view *view, const struct order *order, json_t **ret_target)
{
        char behind[96];
        const char *writer = text_of(view->postgres, "writer");
        json_t *target = candidate_best(view, order, writer);
        *ret_target = target;
        if (writer == NULL) {
                STEP_BAD("check", "no server takes writes: there is nothing to hand over; see "
                                  "`meridian failover`");
                return false;
        }
        STEP_DONE("check", "%s takes writes, epoch %lld", writer,
                  (long long)epoch_of(view->postgres));
        if (target == NULL) {
                nobody_say(view, order, "other server of the cluster");
                return false;
        }
        behind_text(target, behind, sizeof behind);
        bool eligible = json_is_true(json_object_get(target, "eligible"));
        bool follows = json_is_true(json_object_get(target, "following"));
        if (!eligible || !follows) {
                STEP_BAD("check", "%s %s", text_of(target, "node"),
                         eligible ? "does not follow the primary"
                                  : "may not become primary (see its region's state, and `never`)");
                return false;
        }
        STEP_DONE("check", "%s follows it, %s", text_of(target, "node"), behind);
        return true;
}

static bool plan_failover(const struct view *view, const struct order *order, json_t **ret_target)
{
        char behind[96];
        json_t *lease = json_object_get(view->postgres, "lease");
        json_t *loss = json_object_get(view->postgres, "loss_bytes");
        const char *writer = text_of(view->postgres, "writer");
        const char *holder = text_of(lease, "holder");
        json_t *target = candidate_best(view, order, NULL);
        *ret_target = target;
        if (writer != NULL || holder != NULL) {
                STEP_BAD("check",
                         "%s %s: nobody may take over before its lease has ended. To move the "
                         "primary: `meridian switchover`; to stop it: `meridian isolate REGION`",
                         or_else(writer, holder),
                         writer != NULL ? "takes writes" : "holds the lease");
                return false;
        }
        STEP_DONE("check", "no lease stands, the last epoch was %lld",
                  (long long)epoch_of(view->postgres));
        if (target == NULL) {
                nobody_say(view, order, "server that may take over");
                return false;
        }
        behind_text(target, behind, sizeof behind);
        STEP_DONE("check", "%s has data up to %s", text_of(target, "node"),
                  or_else(text_of(target, "written"), "?"));
        if (json_is_integer(loss))
                STEP_WARN("loss", "by what %s knows, %lld bytes that were written are lost",
                          or_else(text_of(view->status, "region"), "the asked node"),
                          (long long)json_integer_value(loss));
        else
                STEP_WARN("loss", "nobody knows how much is lost: too few servers have told what "
                                  "they have");
        if (order->force)
                STEP_WARN("force", "whatever only other servers have is lost for clients; where "
                                   "they come back it is kept aside in a file and reported");
        return true;
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
        char trouble[256]; /* as it was told last */
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
        const char *why = text_of(order, "why");
        const char *writer = text_of(view->postgres, "writer");
        json_int_t epoch = epoch_of(view->postgres);
        if (follow->held_ms == 0 && is_text(old, "server", "held")) {
                follow->held_ms = now_ms() - LOOK_EVERY_MS;
                STEP_DONE("hold", "%s lets no commit begin", follow->old);
        }
        if (!follow->handed && follow->old != NULL && epoch == follow->epoch &&
            text_of(json_object_get(view->postgres, "lease"), "holder") == NULL) {
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
        if (is_text(order, "state", "off") && !is_text(old, "server", "held")) {
                STEP_BAD("return", "%s goes on, nothing has happened: %s", follow->actor,
                         or_else(why, "nobody knows why"));
                *ret_status = CLI_FAILED;
                return true;
        }
        /* A node that was started anew takes up what was recorded, once it knows the council's. */
        if (!is_text(order, "state", "none"))
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
        if (is_text(order, "state", "waits") && why != NULL && strcmp(why, follow->trouble) != 0) {
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
                        const char *role = text_of(server, "role");
                        /* One that is not heard is not waited for. */
                        if (role == NULL || strcmp(role, "primary") == 0)
                                continue;
                        count++;
                        following += json_is_true(json_object_get(server, "following"));
                }
                if (following == count)
                        break;
                pause_ms(4L * LOOK_EVERY_MS);
                if (!look(cli, NULL, view))
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
                if (!look(cli, follow->actor, &next))
                        continue;
                bool over = follow_look(follow, &next, &status);
                view_fini(view);
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
        STEP_DONE("ask", "%s", or_else(text_of(json, "text"), "it begins"));
        (void)snprintf(ret_node, size, "%s", or_else(text_of(json, "node"), ""));
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
                const char *writer = text_of(view->postgres, "writer");
                json_t *target = candidate_best(view, order, writer);
                if (writer != NULL &&
                    (target == NULL || json_is_true(json_object_get(target, "following"))))
                        return;
                pause_ms(LOOK_EVERY_MS);
                if (!look(cli, NULL, view))
                        return;
        }
}

static int run(const struct cli *cli, bool failover, const struct order *order)
{
        struct view view = {0};
        json_t *target = NULL;
        const char *action = failover ? "failover" : "switchover";
        if (!look(cli, NULL, &view))
                return cli_nodes_silent(cli);
        if (!json_is_object(view.postgres)) {
                view_fini(&view);
                return cli_error("the topology has no PostgreSQL cluster (section postgres)");
        }
        printf("%sPostgreSQL %s%s\n", term_style(TERM_HEAD), action, term_style(TERM_PLAIN));
        if (!failover)
                standby_wait(cli, order, &view);
        bool good = failover ? plan_failover(&view, order, &target)
                             : plan_switchover(&view, order, &target);
        char *old = strdup(or_else(text_of(view.postgres, "writer"), ""));
        char *name = strdup(or_else(text_of(target, "node"), ""));
        struct follow follow = {.epoch = epoch_of(view.postgres)};
        int status = good && old != NULL && name != NULL ? CLI_DONE : CLI_FAILED;
        if (status == CLI_DONE && order->dry)
                printf("  nothing is done (--dry-run)\n");
        else if (status == CLI_DONE)
                status = ask(cli, action, order, follow.actor, sizeof follow.actor);
        if (status == CLI_DONE && !order->dry) {
                follow.old = old[0] == '\0' ? NULL : old;
                if (!failover)
                        (void)snprintf(follow.actor, sizeof follow.actor, "%s", old);
                follow.target = order->to != NULL ? name : NULL;
                status = follow_run(cli, &view, &follow);
        }
        free(old);
        free(name);
        view_fini(&view);
        return status;
}

static int give_up(const struct cli *cli, const struct order *order)
{
        char node[128];
        return ask(cli, "abort", order, node, sizeof node);
}

int cli_switchover(struct cli *cli)
{
        struct order order = {0};
        if (!order_take(cli, false, &order)) {
                cli_error("usage: meridian switchover [--to NODE or REGION] [--dry-run] [--abort]");
                return CLI_USAGE;
        }
        return order.abort ? give_up(cli, &order) : run(cli, false, &order);
}

int cli_failover(struct cli *cli)
{
        struct order order = {0};
        if (!order_take(cli, true, &order)) {
                cli_error("usage: meridian failover [--to NODE or REGION] [--force] [--dry-run] "
                          "[--abort]");
                return CLI_USAGE;
        }
        return order.abort ? give_up(cli, &order) : run(cli, true, &order);
}
