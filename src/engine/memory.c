/* A server that is at its maxmemory, and may not or cannot evict, refuses what other regions send:
 * nothing of it is half applied, their streams wait here, and are tried again. That is said once
 * for each time that it begins, and when it is over. */
#include "engine/engine_priv.h"

void memory_heard(struct connection *connection, const redisReply *reply)
{
        char host[TOPOLOGY_ENDPOINT_TEXT];
        bool full = reply->type == REDIS_REPLY_ERROR && reply_err(reply) == ERR_LIMIT;
        if (full == connection->memory_full || (reply->type == REDIS_REPLY_ERROR && !full))
                return;
        connection->memory_full = full;
        topology_endpoint_text(&connection->endpoint, host);
        if (full)
                engine_note(connection->engine, "redis-memory",
                            "Redis at %s is at its maxmemory and refuses what other regions send: "
                            "their streams wait until there is room; raise maxmemory there or "
                            "delete keys",
                            host);
        else
                engine_note(connection->engine, "redis-memory",
                            "Redis at %s has room again: what other regions send is merged", host);
}
