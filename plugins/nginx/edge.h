/* edge.h - which backend a request goes to: the decision, without the server.
 * One worker, one thread. */
#ifndef MERIDIAN_NGINX_EDGE_H
#define MERIDIAN_NGINX_EDGE_H

#include "view/view.h"

enum {
        EDGE_TRIES_MAX = 32, /* backends that one request may try */
        EDGE_MARKS_MAX = 64,
        EDGE_TEXTS = 64,
        EDGE_MARK_MS = 10000, /* how long a backend that failed is passed over */
};

enum edge_route {
        EDGE_ROUTE_NONE,           /* no backend */
        EDGE_ROUTE_OWN_REGION,     /* a healthy one of the own region */
        EDGE_ROUTE_NEAREST_REGION, /* a healthy one of another region */
        EDGE_ROUTE_FAIL_OPEN,      /* nothing is known to be healthy where it may be routed to */
        EDGE_ROUTE_SERVER_LINES,   /* no view: nginx's own servers */
        EDGE_ROUTE_COUNT,
};

struct edge_choice {
        enum edge_route route;
        struct topology_endpoint backend;
        char region[TOPOLOGY_NAME_SIZE];
};

/* What a request has tried already. */
struct edge_tried {
        size_t count;
        struct topology_endpoint backends[EDGE_TRIES_MAX];
};

/* Backends that failed of late in this worker. */
struct edge_marks {
        size_t count;
        struct {
                struct topology_endpoint backend;
                uint64_t until_ms;
        } items[EDGE_MARKS_MAX];
};

/* Chooses among: healthy backends of routable regions, own region first, then by round-trip time;
 * if there are none, healthy backends of any region; if there are none, all. An isolated region is
 * never used. Within a region in turn (*turn counts up). Marked backends come after all others that
 * were not tried. False, with route EDGE_ROUTE_NONE, when all were tried or there is none. */
bool edge_choose(const struct view *view, const struct edge_marks *marks, uint64_t now_ms,
                 const struct edge_tried *tried, uint32_t *turn, struct edge_choice *ret);

/* How many backends edge_choose would give one after the other, at most EDGE_TRIES_MAX. */
size_t edge_count(const struct view *view);

/* The backend as "192.0.2.1:80" or "[2001:db8::1]:80" with a NUL; returns its length. */
size_t edge_backend_text(const struct topology_endpoint *backend,
                         char text[static TOPOLOGY_ENDPOINT_TEXT]);

/* Texts made of late; zeroed memory is an empty one. */
struct edge_texts {
        struct {
                struct topology_endpoint backend;
                size_t len; /* 0: free */
                char text[TOPOLOGY_ENDPOINT_TEXT];
        } items[EDGE_TEXTS];
};

/* As edge_backend_text, which is done once for a backend and not for each request. */
size_t edge_texts_get(struct edge_texts *texts, const struct topology_endpoint *backend,
                      char text[static TOPOLOGY_ENDPOINT_TEXT]);

/* A failed backend is passed over until now_ms + EDGE_MARK_MS; a good one no longer. */
void edge_mark(struct edge_marks *marks, const struct topology_endpoint *backend, uint64_t now_ms);
void edge_unmark(struct edge_marks *marks, const struct topology_endpoint *backend);

/* "own-region", ...; empty for EDGE_ROUTE_NONE's like out of range. Static. */
const char *edge_route_name(enum edge_route route);

#endif
