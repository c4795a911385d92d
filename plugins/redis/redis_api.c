/* redis_api.c - resolves the module interface by name. A missing entry fails the load: the server
 * is older than the oldest supported one. */
#include "redis_api.h"

#include <string.h>

struct redis_api redis;

const char *redis_api_load(struct redis_context *ctx)
{
        int (*get)(const char *, void *);
        memcpy(&get, ctx, sizeof(get));
#define REDIS_API_RESOLVE(type, name, arguments)                                                   \
        if (get("RedisModule_" #name, &redis.name) != REDIS_OK)                                    \
                return #name;
        REDIS_API_LIST(REDIS_API_RESOLVE)
#undef REDIS_API_RESOLVE
#define REDIS_API_RESOLVE(type, name, arguments)                                                   \
        if (get("RedisModule_" #name, &redis.name) != REDIS_OK)                                    \
                redis.name = NULL;
        REDIS_API_LIST_NEWER(REDIS_API_RESOLVE)
#undef REDIS_API_RESOLVE
        return NULL;
}
