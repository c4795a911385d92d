/* postgres_plan.c - see postgres_plan.h. */
#include "meridian/postgres_plan.h"
#include "meridian/step.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const char *postgres_text(json_t *object, const char *key)
{
        return json_string_value(json_object_get(object, key));
}

bool postgres_is_text(json_t *object, const char *key, const char *text)
{
        const char *now = postgres_text(object, key);
        return now != NULL && strcmp(now, text) == 0;
}

const char *postgres_or_else(const char *text, const char *otherwise)
{
        return text == NULL ? otherwise : text;
}

json_int_t postgres_epoch(json_t *postgres)
{
        return json_integer_value(json_object_get(json_object_get(postgres, "lease"), "epoch"));
}

/* ---- the plan ---- */

static bool candidate(json_t *server, const struct order *order, const char *writer)
{
        const char *node = postgres_text(server, "node"), *region = postgres_text(server, "region");
        if (node == NULL || (writer != NULL && strcmp(node, writer) == 0))
                return false;
        return order->to == NULL || strcmp(order->to, node) == 0 ||
               (region != NULL && strcmp(order->to, region) == 0);
}

/* How far a server is from having all: what it is behind the primary, or, where there is none, what
 * would be lost with it. */
static json_int_t lacks_of(json_t *server)
{
        json_t *behind = json_object_get(server, "lag_bytes");
        json_t *loss = json_object_get(server, "loss_bytes");
        return json_is_integer(behind) ? json_integer_value(behind)
               : json_is_integer(loss) ? json_integer_value(loss)
                                       : INT64_MAX;
}

json_t *postgres_candidate(const struct view *view, const struct order *order, const char *writer)
{
        size_t index = 0;
        json_t *server = NULL, *best = NULL;
        json_array_foreach(json_object_get(view->postgres, "servers"), index, server)
        {
                bool eligible = json_is_true(json_object_get(server, "eligible"));
                if (!candidate(server, order, writer) || (!eligible && order->to == NULL))
                        continue;
                if (best == NULL || lacks_of(server) < lacks_of(best))
                        best = server;
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
                        at += (size_t)snprintf(
                                names + at, sizeof names - at, "%s%s", at == 0 ? "" : ", ",
                                postgres_or_else(postgres_text(server, "node"), "?"));
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
bool postgres_plan_switchover(const struct view *view, const struct order *order,
                              json_t **ret_target)
{
        char behind[96];
        const char *writer = postgres_text(view->postgres, "writer");
        json_t *target = postgres_candidate(view, order, writer);
        *ret_target = target;
        if (writer == NULL) {
                STEP_BAD("check", "no server takes writes: there is nothing to hand over; see "
                                  "`meridian failover`");
                return false;
        }
        STEP_DONE("check", "%s takes writes, epoch %lld", writer,
                  (long long)postgres_epoch(view->postgres));
        if (target == NULL) {
                nobody_say(view, order, "other server of the cluster");
                return false;
        }
        behind_text(target, behind, sizeof behind);
        bool eligible = json_is_true(json_object_get(target, "eligible"));
        bool follows = json_is_true(json_object_get(target, "following"));
        if (!eligible || !follows) {
                STEP_BAD("check", "%s %s", postgres_text(target, "node"),
                         eligible ? "does not follow the primary"
                                  : "may not become primary (see its region's state, and `never`)");
                return false;
        }
        STEP_DONE("check", "%s follows it, %s", postgres_text(target, "node"), behind);
        return true;
}

/* ---- what a takeover costs ---- */

static json_t *server_find(const struct view *view, const char *node)
{
        size_t index = 0;
        json_t *server = NULL;
        json_array_foreach(json_object_get(view->postgres, "servers"), index, server)
        {
                if (node != NULL && postgres_is_text(server, "node", node))
                        return server;
        }
        return NULL;
}

/* A time of that server's in seconds; below 0: not known. */
static double seconds_of(json_t *server, const char *key)
{
        json_t *ms = json_object_get(server, key);
        return json_is_number(ms) ? json_number_value(ms) / 1000 : -1;
}

static void utc_text(double seconds_ago, char text[static 32])
{
        struct tm utc;
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        time_t then = (time_t)((double)now.tv_sec + (double)now.tv_nsec / 1e9 - seconds_ago + 0.5);
        text[0] = '\0';
        if (gmtime_r(&then, &utc) != NULL)
                (void)strftime(text, 32, "%Y-%m-%d %H:%M:%SZ", &utc);
}

/* In time: from the newest commit that the target has to the last word of who wrote last. */
static void cost_seconds(const struct view *view, json_t *target, bool some)
{
        json_t *lease = json_object_get(view->postgres, "lease");
        const char *former = postgres_text(lease, "grantee");
        double commit = seconds_of(target, "commit_age_ms");
        double heard = seconds_of(server_find(view, former), "heard_ms");
        double lease_s = seconds_of(lease, "ttl_ms");
        char since[32];
        if (former == NULL || postgres_is_text(target, "node", former))
                return;
        if (some && commit >= 0 && heard >= 0) {
                utc_text(commit, since);
                STEP_WARN("loss",
                          "the newest commit that %s has is of %s: whatever was committed in the "
                          "%.1f s from then until %s was last heard may be lost",
                          postgres_text(target, "node"), since,
                          commit > heard ? commit - heard : 0.0, former);
        } else if (some) {
                STEP_WARN("loss", "of how many seconds that is, is not known");
        }
        /* Who tells what it has is in the figure. */
        if (postgres_text(server_find(view, former), "role") != NULL)
                return;
        if (heard >= 0)
                STEP_WARN("loss",
                          "%s was last heard %.1f s ago; what it committed after that, until its "
                          "lease of %.1f s had ended, nobody knows",
                          former, heard, lease_s > 0 ? lease_s : 0.0);
        else
                STEP_WARN("loss", "when %s was last heard is not known", former);
}

/* Another that would lose less. */
static void cost_other(const struct view *view, json_t *target)
{
        json_t *best = postgres_candidate(view, &(struct order){0}, NULL);
        json_t *loss = json_object_get(target, "loss_bytes");
        json_t *least = json_object_get(best, "loss_bytes");
        if (best == NULL || best == target || !json_is_integer(least))
                return;
        if (!json_is_integer(loss))
                STEP_WARN("loss", "%s has more: `--to %s` loses less", postgres_text(best, "node"),
                          postgres_text(best, "node"));
        else if (json_integer_value(loss) > json_integer_value(least))
                STEP_WARN("loss", "%s has %lld bytes more: `--to %s` loses less",
                          postgres_text(best, "node"),
                          (long long)(json_integer_value(loss) - json_integer_value(least)),
                          postgres_text(best, "node"));
}

static void cost_tell(const struct view *view, const struct order *order, json_t *target)
{
        json_t *loss = json_object_get(target, "loss_bytes");
        const char *rank = postgres_text(view->own, "rank");
        json_int_t sync = json_integer_value(json_object_get(view->postgres, "sync"));
        bool unsure = rank != NULL && strcmp(rank, "unsure") == 0;
        bool some = !json_is_integer(loss) || json_integer_value(loss) > 0;
        if (json_is_integer(loss))
                STEP_WARN("loss", "%lld bytes that are known to have been written are lost",
                          (long long)json_integer_value(loss));
        else
                STEP_WARN("loss",
                          "nobody knows how much is lost: %s has nothing of the newest "
                          "epoch, or too few servers have told what they have",
                          postgres_text(target, "node"));
        cost_seconds(view, target, some);
        if (unsure)
                STEP_WARN("loss",
                          "too few servers have told what they have: one that is not heard may "
                          "have more%s",
                          sync > 0 ? ", acknowledged commits among it" : "");
        cost_other(view, target);
        if (order->force)
                STEP_WARN("force", "whatever only other servers have is lost for clients; where "
                                   "they come back it is kept aside in a file and reported");
}

/* What stands against it; true: something does. */
static bool failover_refused(const struct view *view, const struct order *order, json_t *target)
{
        const char *writer = postgres_text(view->postgres, "writer");
        const char *holder = postgres_text(json_object_get(view->postgres, "lease"), "holder");
        if (writer != NULL || holder != NULL) {
                STEP_BAD("check",
                         "%s %s: nobody may take over before its lease has ended. To move the "
                         "primary: `meridian switchover`; to stop it: `meridian isolate REGION`",
                         postgres_or_else(writer, holder),
                         writer != NULL ? "takes writes" : "holds the lease");
                return true;
        }
        if (!json_is_true(json_object_get(view->status, "majority"))) {
                STEP_BAD("check", "no majority of the council can be reached: nobody may take "
                                  "over, by force neither, since an old primary might still "
                                  "write. Bring regions back, or see the manual's part on a lost "
                                  "majority");
                return true;
        }
        STEP_DONE("check", "no lease stands, the last epoch was %lld",
                  (long long)postgres_epoch(view->postgres));
        if (target == NULL) {
                nobody_say(view, order, "server that may take over");
                return true;
        }
        if (postgres_text(target, "role") == NULL) {
                STEP_BAD("check", "%s is not heard: it cannot take over",
                         postgres_text(target, "node"));
                return true;
        }
        return false;
}

bool postgres_plan_failover(const struct view *view, const struct order *order, json_t **ret_target)
{
        json_t *target = postgres_candidate(view, order, NULL);
        *ret_target = target;
        if (failover_refused(view, order, target))
                return false;
        STEP_DONE("check", "%s has data up to %s", postgres_text(target, "node"),
                  postgres_or_else(postgres_text(target, "written"), "?"));
        cost_tell(view, order, target);
        return true;
}
