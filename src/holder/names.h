/* names.h - private to holder/: a node's name and its addresses, without waiting for a name server
 * longer than there is time. */
#ifndef MERIDIAN_HOLDER_NAMES_H
#define MERIDIAN_HOLDER_NAMES_H

#include "holder/meridian_lock.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum {
        NAME_ADDRESSES_MAX = 8,
};

struct address {
        socklen_t len;
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        };
};

struct addresses {
        size_t count;
        struct address items[NAME_ADDRESSES_MAX];
};

struct search;

struct name {
        char *text; /* as it was given; owned */
        char *host; /* owned */
        char *port; /* inside of text */
        struct addresses known;
        struct search *search; /* that has not ended yet; NULL: none */
};

/* "host:port", "1.2.3.4:port", "[::1]:port". REFUSED: it is none of these; NOMEM. Nothing is kept
 * then. */
enum meridian_lock_status name_open(struct name *name, const char *text);
void name_close(struct name *name);

/* The addresses that are known. Where none is, they are looked up, until `until_us` or `wake_fd`
 * (-1: none) end the wait; else a look for newer ones begins, of which a later call has what it
 * found. So has one after a search that was not done in time. */
const struct addresses *name_find(struct name *name, int wake_fd, uint64_t until_us);

#endif
