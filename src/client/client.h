/* client.h - asking a node's admin door over HTTP, one question after the other. For the command
 * line and the lab. */
#ifndef MERIDIAN_CLIENT_CLIENT_H
#define MERIDIAN_CLIENT_CLIENT_H

#include "base/bytes.h"

struct client_answer {
        long status; /* of HTTP; 0 where no answer came: see `error` */
        char *body;  /* NUL-terminated, never NULL */
        size_t body_len;
        char error[256]; /* a sentence where status is 0 */
};

/* The most that is read of an answer. */
#define CLIENT_BODY_MAX ((size_t)512 * 1024 * 1024)

/* GET http://`node``path`; `node` is "host:port". True where any answer of HTTP came, even one of
 * refusal. Fini the answer in either case. */
MUST_USE bool client_get(const char *node, const char *path, unsigned timeout_ms,
                         struct client_answer *ret_answer);

/* POST, with `body` (may be empty). */
MUST_USE bool client_post(const char *node, const char *path, struct bytes body,
                          unsigned timeout_ms, struct client_answer *ret_answer);

/* Sends a header "Host: `host`" instead of the node's address: for the edge. */
MUST_USE bool client_get_host(const char *node, const char *host, const char *path,
                              unsigned timeout_ms, struct client_answer *ret_answer);

void client_answer_fini(struct client_answer *answer);

/* `text` with everything but unreserved characters escaped for a query; free() it. NULL where
 * memory ran out. */
MUST_USE char *client_escape(const char *text);

#endif
