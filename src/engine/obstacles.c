/* What a server has against the work of replication is said once for each time that it begins, and
 * when it is over. Nothing is lost by any of it, and all is tried again:
 *
 *   a refusal   of a merge, a tail or a scan: nothing of it is half done, and the stream waits
 *   a cut       the server closes the connection, time after time, before it has answered one
 *               command. Redis does so with what is larger than its limits for clients, and says it
 *               in its own log alone. It is asked less and less often, for to answer costs the
 *               server as much each time. */
#include "engine/engine_priv.h"

#include <stdio.h>

enum {
        CUTS_MIN = 3, /* before it is said */
        CUT_WAIT_MS_MAX = 4000,
};

struct obstacle {
        const char *word; /* with which the server's refusal begins */
        const char *name;
        const char *trouble;
        const char *over;
};

static const struct obstacle obstacles[] = {
        {"OOM", "redis-memory",
         "is at its maxmemory and refuses what other regions send: their streams wait until there "
         "is room; raise maxmemory there or delete keys",
         "has room again: what other regions send is merged"},
        {"MISCONF", "redis-disk",
         "cannot write its log or its snapshot, and refuses what other regions send, as it refuses "
         "its clients' writes: their streams wait; make room on its disk, its own log says more",
         "writes to its disk again: what other regions send is merged"},
        {"READONLY", "redis-readonly",
         "is a replica and refuses what other regions send: their streams wait; if it is to be the "
         "region's primary, tell it REPLICAOF NO ONE",
         "is no replica any more: what other regions send is merged"},
        {"NOPERM", "redis-denied", NULL, "lets the daemon's user do its work again"},
};

static const struct obstacle *obstacle_of(const redisReply *reply)
{
        struct bytes text = bytes_of(reply->str, reply->len);
        for (size_t i = 0; i < COUNT_OF(obstacles); i++)
                if (bytes_starts_with(text, bytes_of_str(obstacles[i].word)))
                        return &obstacles[i];
        return NULL;
}

static void host_note(struct connection *connection, const char *name, const char *text)
{
        char host[TOPOLOGY_ENDPOINT_TEXT];
        topology_endpoint_text(&connection->endpoint, host);
        engine_note(connection->engine, name, "Redis at %s %s", host, text);
}

static void denied_note(struct connection *connection, const redisReply *reply)
{
        char text[ENGINE_TEXT_SIZE];
        reply_refusal(&connection->endpoint, reply, text);
        engine_note(connection->engine, "redis-denied",
                    "%s; give the daemon's user all rights that stand in examples/redis.conf",
                    text);
}

void obstacle_heard(const struct call *call, const redisReply *reply)
{
        struct connection *connection = call->connection;
        const struct obstacle *before = connection->obstacle;
        bool error = reply->type == REDIS_REPLY_ERROR;
        const struct obstacle *now = error ? obstacle_of(reply) : NULL;
        if (now == before || (error && now == NULL))
                return;
        if (!error && !bytes_equal(call->name, connection->obstacle_name))
                return;
        connection->obstacle = now;
        connection->obstacle_name = call->name;
        if (now == NULL)
                host_note(connection, before->name, before->over);
        else if (now->trouble != NULL)
                host_note(connection, now->name, now->trouble);
        else
                denied_note(connection, reply);
}

void obstacle_told(struct call *call, const redisReply *reply)
{
        struct connection *connection = call->connection;
        if (reply == NULL || connection->lack_told || !reply_is_denied(reply))
                return;
        connection->lack_told = true;
        denied_note(connection, reply);
}

/* ---- cuts ---- */

/* The one that is too large, where several are under way. */
static const struct call *largest(const struct connection *connection)
{
        const struct call *found = connection->calls;
        for (const struct call *call = found; call != NULL; call = call->next)
                if (call->bytes > found->bytes)
                        found = call;
        return found;
}

void obstacle_cut(struct connection *connection)
{
        const struct call *call = largest(connection);
        if (call == NULL)
                return;
        if (!bytes_equal(call->name, connection->cut_name))
                connection->cuts = 0;
        connection->cut_name = call->name;
        if (++connection->cuts != CUTS_MIN)
                return;
        char host[TOPOLOGY_ENDPOINT_TEXT];
        topology_endpoint_text(&connection->endpoint, host);
        engine_note(connection->engine, "redis-cut",
                    "Redis at %s closed the connection %d times before %.*s was answered: set its "
                    "limits for clients, 'client-output-buffer-limit normal' and "
                    "'maxmemory-clients', to 0 or above the largest value (see its log)",
                    host, CUTS_MIN, BYTES_ARGS(call->name));
}

void obstacle_answered(struct connection *connection, const struct call *call)
{
        uint32_t cuts = connection->cuts;
        if (cuts == 0 || !bytes_equal(call->name, connection->cut_name))
                return;
        connection->cuts = 0;
        if (cuts >= CUTS_MIN)
                host_note(connection, "redis-cut", "answers again: replication goes on");
}

uint32_t obstacle_wait_ms(const struct connection *connection)
{
        uint32_t wait_ms = connection->wait_ms;
        for (uint32_t i = CUTS_MIN; i <= connection->cuts && wait_ms < CUT_WAIT_MS_MAX; i++)
                wait_ms *= 2;
        return wait_ms;
}
