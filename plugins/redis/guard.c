/* guard.c - who may run a wrapped command.
 *
 * A user whose access list names SPOP must be able to run it although the filter wraps it. So the
 * wrapper needs no entry of its own: it has the server's flag for commands that skip the check of
 * the command (no-auth), and the wrapped command is checked against the list as itself. But the
 * same flag lets clients in who have not authenticated. The server does not tell a module whether
 * one has; it tells the user's name. While the user 'default' needs no password there is nothing
 * to tell apart. While it is off, whoever is 'default' has not authenticated. While it has
 * a password, a client of that name may be either, and gets the *strict* wrapper, without
 * the flag: then 'default' itself needs the commands MERIDIAN.STRICT* in its list, which a list
 * with +@all has. A filter that is not told which client it is for (Redis 7.0) can only
 * choose the strict one for all then. */
#include "plugin.h"

enum guard {
        GUARD_OPEN,   /* 'default' needs no password */
        GUARD_OFF,    /* nobody can be 'default' and have authenticated */
        GUARD_LOCKED, /* 'default' has a password */
};

static enum guard guard_now;
static bool guard_known;
static bool guard_unsure; /* a transaction may hold a change of the access lists */

static bool flag_is(struct redis_reply *flags, const char *name)
{
        for (size_t i = 0; i < redis.CallReplyLength(flags); i++) {
                size_t len = 0;
                const char *text =
                        redis.CallReplyStringPtr(redis.CallReplyArrayElement(flags, i), &len);
                if (text != NULL && bytes_equal(bytes_of(text, len), bytes_of_str(name)))
                        return true;
        }
        return false;
}

/* The flags are the second element: ACL GETUSER begins with "flags". */
static enum guard guard_ask(void)
{
        enum guard guard = GUARD_LOCKED;
        struct redis_reply *reply = redis.Call(plugin.ctx, "ACL", "cc", "GETUSER", "default");
        if (reply == NULL)
                return guard;
        if (redis.CallReplyType(reply) == REDIS_REPLY_ARRAY && redis.CallReplyLength(reply) > 1) {
                struct redis_reply *flags = redis.CallReplyArrayElement(reply, 1);
                if (flag_is(flags, "off"))
                        guard = GUARD_OFF;
                else if (flag_is(flags, "nopass"))
                        guard = GUARD_OPEN;
        }
        redis.FreeCallReply(reply);
        return guard;
}

static enum guard guard(void)
{
        if (!guard_known)
                guard_now = guard_ask();
        guard_known = true;
        return guard_now;
}

void guard_changes(void)
{
        guard_known = false;
        guard_unsure = guard_unsure || plugin.multi_open > 0;
}

void guard_executed(void)
{
        if (guard_unsure)
                guard_known = false;
}

static bool is_default(uint64_t client)
{
        struct redis_string *name = redis.GetClientUserNameById(plugin.ctx, client);
        if (name == NULL)
                return true;
        bool is = bytes_equal(plugin_bytes(name), BYTES("default"));
        redis.FreeString(NULL, name);
        return is;
}

bool guard_strict(struct redis_filter_context *ctx)
{
        if (guard() != GUARD_LOCKED)
                return false;
        return redis.CommandFilterGetClientId == NULL ||
               is_default(redis.CommandFilterGetClientId(ctx));
}

bool guard_lets(struct redis_context *ctx)
{
        if (guard() == GUARD_OPEN)
                return true;
        /* A transaction or a script has passed the server's own check. */
        if ((redis.GetContextFlags(ctx) & (REDIS_FLAG_LUA | REDIS_FLAG_MULTI)) != 0)
                return true;
        return !is_default(redis.GetClientId(ctx));
}
