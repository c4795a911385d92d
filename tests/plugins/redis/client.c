/* client.c - an unmodified program of hiredis against a region: `client HOST PORT write|read`.
 * Prints nothing and ends with 0 where every reply was as from any Redis. */
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static redisContext *server;

static void fail(const char *what, const char *got)
{
        fprintf(stderr, "%s: %s\n", what, got);
        exit(1);
}

/* The reply as text; of an array, how many there are. */
static void expect(const char *wanted, const char *format, ...)
{
        char got[256];
        va_list arguments;
        va_start(arguments, format);
        redisReply *reply = redisvCommand(server, format, arguments);
        va_end(arguments);
        if (reply == NULL)
                fail(format, server->errstr);
        if (reply->type == REDIS_REPLY_INTEGER)
                snprintf(got, sizeof got, "%lld", reply->integer);
        else if (reply->type == REDIS_REPLY_ARRAY)
                snprintf(got, sizeof got, "%zu", reply->elements);
        else
                snprintf(got, sizeof got, "%s", reply->str == NULL ? "nil" : reply->str);
        freeReplyObject(reply);
        if (wanted != NULL && strcmp(got, wanted) != 0)
                fail(format, got);
}

static void write_all(void)
{
        expect("OK", "SET %s %s", "c:string", "value");
        expect("1", "INCR c:number");
        expect("2", "HSET c:hash f 1 g 2");
        expect("2", "SADD c:set a b");
        expect("3", "RPUSH c:list a b c");
        expect("1", "PFADD c:hll a b");
        expect("a", "LPOP c:list");
        expect("2", "BRPOP c:list 1");
        expect("OK", "MULTI");
        expect("QUEUED", "INCRBY c:number 4");
        expect("QUEUED", "SADD c:set b c");
        expect("2", "EXEC");
        expect("6", "EVAL %s 1 c:number", "return redis.call('INCR', KEYS[1])");
        for (int i = 0; i < 100; i++)
                redisAppendCommand(server, "SET c:pipe:%d %d", i, i);
        for (int i = 0; i < 100; i++) {
                redisReply *reply = NULL;
                if (redisGetReply(server, (void **)&reply) != REDIS_OK)
                        fail("a pipeline", server->errstr);
                freeReplyObject(reply);
        }
}

static void read_all(void)
{
        expect("value", "GET c:string");
        expect("6", "GET c:number");
        expect("4", "HGETALL c:hash");
        expect("3", "SMEMBERS c:set");
        expect("1", "LLEN c:list");
        expect("2", "PFCOUNT c:hll");
        expect("99", "GET c:pipe:99");
}

int main(int argc, char **argv)
{
        if (argc != 4)
                fail("usage", "client HOST PORT write|read");
        server = redisConnect(argv[1], atoi(argv[2]));
        if (server == NULL || server->err != 0)
                fail("connect", server == NULL ? "no memory" : server->errstr);
        if (strcmp(argv[3], "write") == 0)
                write_all();
        else
                read_all();
        redisFree(server);
        return 0;
}
