/* api_sessions.c - sessions over HTTP, for locks and for keys that are to end with their owner.
 *
 *   POST /sessions/open     {"prefix", "owner", "ttl_ms"}    {"session", "ttl_ms"}
 *   POST /sessions/keep     {"prefix", "owner", "session"}   {"session", "ttl_ms"}
 *   POST /sessions/close    {"prefix", "owner", "session"}   {"session", "ttl_ms"}
 *
 * A prefix is "global:" or "<region>:": the group that keeps the session. */
#include "api/api_priv.h"

#include <string.h>

#define PREFIX "/sessions/"

static const struct action {
        const char *word;
        enum request_kind kind;
        const char *format;
        const char *number; /* the member that is one */
        const char *problem;
} actions[] = {
        {"open", REQUEST_SESSION_OPEN, "{s:s, s:s, s:I !}", "ttl_ms",
         "want {\"prefix\": ..., \"owner\": ..., \"ttl_ms\": ...}"},
        {"keep", REQUEST_SESSION_KEEP, "{s:s, s:s, s:I !}", "session",
         "want {\"prefix\": ..., \"owner\": ..., \"session\": ...}"},
        {"close", REQUEST_SESSION_CLOSE, "{s:s, s:s, s:I !}", "session",
         "want {\"prefix\": ..., \"owner\": ..., \"session\": ...}"},
};

json_t *api_session_post(const char *path, struct bytes text, struct request *request,
                         const char **ret_problem)
{
        const char *prefix = NULL;
        const char *owner = NULL;
        json_int_t number = 0;
        *ret_problem = "want /sessions/open, keep or close";
        for (size_t i = 0; i < COUNT_OF(actions); i++) {
                const struct action *action = &actions[i];
                if (strcmp(action->word, path + strlen(PREFIX)) != 0)
                        continue;
                *ret_problem = action->problem;
                json_t *json = json_loadb((const char *)text.ptr, text.len, 0, NULL);
                if (json == NULL ||
                    json_unpack(json, action->format, "prefix", &prefix, "owner", &owner,
                                action->number, &number) != 0 ||
                    number < 0) {
                        json_decref(json);
                        return NULL;
                }
                *request = (struct request){.kind = action->kind};
                request->lock.key = bytes_of_str(prefix);
                request->lock.owner = bytes_of_str(owner);
                if (action->kind == REQUEST_SESSION_OPEN)
                        request->lock.ttl_ms = (uint64_t)number;
                else
                        request->lock.session = (uint64_t)number;
                return json;
        }
        return NULL;
}

bool api_session_is(enum request_kind kind)
{
        return kind == REQUEST_SESSION_OPEN || kind == REQUEST_SESSION_KEEP ||
               kind == REQUEST_SESSION_CLOSE;
}

json_t *api_session_reply(const struct reply *reply)
{
        return json_pack("{s:I, s:I}", "session", (json_int_t)reply->lock.token, "ttl_ms",
                         (json_int_t)reply->lock.ttl_ms);
}
