/* api_ask.h - private to api/: one HTTP request from its arrival (api_admin.c) by its row
 * (api_routes.c) to its answer (api_ask.c). */
#ifndef MERIDIAN_API_API_ASK_H
#define MERIDIAN_API_API_ASK_H

#include "api/api_priv.h"

#include <microhttpd.h>

struct api_admin {
        struct api *api;
        struct MHD_Daemon *daemon;
        uv_poll_t poll;
        uv_timer_t timer;
        struct ask *asks;
        struct visit *visits;
        size_t visit_count;
        size_t wait_count;  /* asks that wait for something to happen */
        uint64_t tickets;   /* of verifications and backups, ever */
        uint64_t looked_ms; /* when visits were last looked through */
        unsigned handles;
        bool closing;
};

/* One connection. */
struct visit {
        struct MHD_Connection *connection;
        struct visit *previous;
        struct visit *next;
        uint64_t until_ms; /* by then it has ended a request, or is ended */
};

/* One HTTP request. */
struct ask {
        struct api_admin *admin;
        struct MHD_Connection *connection;
        struct ask *previous;
        struct ask *next;
        const char *path;
        bool post;
        bool too_long;
        bool suspended;
        bool waits;      /* for something to happen, not for a decision alone */
        uint64_t number; /* of a request to the node; 0: none waits */
        uint64_t ticket; /* of a verification or backup that waits; 0: none */
        enum request_kind kind;
        struct buffer body;
        struct buffer out;
        unsigned status; /* of the answer; 0: none yet */
        const char *type;
};

/* ---- api_ask.c ---- */
/* Each is the answer; the first takes `json` (NULL: memory ran out). */
void ask_json(struct ask *ask, unsigned status, json_t *json);
void ask_error(struct ask *ask, unsigned status, const char *code, const char *text);
/* `out` has it. */
void ask_text(struct ask *ask, const char *type);
/* A connection that waits goes on with its answer. */
void ask_resume(struct ask *ask);
/* Hands a request to the node, which answers later or at once. Of those that wait for something
 * to happen API_ASKS_WAIT_MAX may be open: the other connections are left to those who
 * administrate. */
#define API_ASKS_WAIT_MAX 256
void ask_node(struct ask *ask, const struct request *request);

/* ---- api_routes.c ---- */
/* Answers, or leaves a number or a ticket of what is waited for. */
void ask_run(struct ask *ask);

/* ---- api_admin.c ---- */
void admin_run_soon(struct api_admin *admin);

#endif
