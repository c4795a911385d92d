/* names.c - getaddrinfo may take as long as it likes, so a thread of its own asks it, one for each
 * name at a time. The thread and whoever waits share the search; the last of them frees it. */
#include "holder/names.h"

#include "holder/wait.h"

#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct search {
        _Atomic int users;
        _Atomic bool done;
        int event_fd; /* readable: done */
        struct addresses found;
        const char *port;
        char host[]; /* the port lies behind it */
};

static void addresses_take(struct addresses *addresses, const struct addrinfo *info)
{
        addresses->count = 0;
        for (; info != NULL && addresses->count < NAME_ADDRESSES_MAX; info = info->ai_next) {
                struct address *address = &addresses->items[addresses->count];
                if (info->ai_addrlen > sizeof address->v6)
                        continue;
                memcpy(&address->any, info->ai_addr, info->ai_addrlen);
                address->len = info->ai_addrlen;
                addresses->count++;
        }
}

static void look_up(const char *host, const char *port, int flags, struct addresses *ret)
{
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *found = NULL;
        if (getaddrinfo(host, port, &hints, &found) != 0)
                return;
        addresses_take(ret, found);
        freeaddrinfo(found);
}

/* ---- a search ---- */

static void search_leave(struct search *search)
{
        if (atomic_fetch_sub(&search->users, 1) > 1)
                return;
        close(search->event_fd);
        free(search);
}

static void *search_run(void *argument)
{
        struct search *search = argument;
        uint64_t one = 1;
        look_up(search->host, search->port, 0, &search->found);
        atomic_store(&search->done, true);
        (void)!write(search->event_fd, &one, sizeof one);
        search_leave(search);
        return NULL;
}

/* The program's signals are not for this thread. */
static bool thread_begin(struct search *search)
{
        pthread_t thread;
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        bool begun = pthread_create(&thread, NULL, search_run, search) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (begun)
                pthread_detach(thread);
        return begun;
}

static struct search *search_begin(const struct name *name)
{
        size_t host_size = strlen(name->host) + 1, port_size = strlen(name->port) + 1;
        struct search *search = calloc(1, sizeof *search + host_size + port_size);
        if (search == NULL)
                return NULL;
        memcpy(search->host, name->host, host_size);
        memcpy(search->host + host_size, name->port, port_size);
        search->port = search->host + host_size;
        search->users = 2;
        search->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (search->event_fd >= 0 && thread_begin(search))
                return search;
        if (search->event_fd >= 0)
                close(search->event_fd);
        free(search);
        return NULL;
}

/* ---- names ---- */

/* Splits "host:port"; NULL: that is not what it is. Gives the host, to be freed. */
static char *host_of(char *text, char **ret_port, bool *ret_formed)
{
        char *colon = strrchr(text, ':'), *begin = text;
        *ret_formed = false;
        if (colon == NULL || colon == text || colon[1] == '\0')
                return NULL;
        size_t len = (size_t)(colon - text);
        bool bracket = text[0] == '[';
        if (bracket && (len < 3 || colon[-1] != ']'))
                return NULL;
        if (bracket) {
                begin++;
                len -= 2;
        }
        *ret_formed = true;
        *ret_port = colon + 1;
        return strndup(begin, len);
}

enum meridian_lock_status name_open(struct name *name, const char *text)
{
        bool formed = false;
        *name = (struct name){0};
        if (text == NULL)
                return MERIDIAN_LOCK_REFUSED;
        name->text = strdup(text);
        if (name->text == NULL)
                return MERIDIAN_LOCK_NOMEM;
        name->host = host_of(name->text, &name->port, &formed);
        if (name->host != NULL)
                return MERIDIAN_LOCK_OK;
        free(name->text);
        name->text = NULL;
        return formed ? MERIDIAN_LOCK_NOMEM : MERIDIAN_LOCK_REFUSED;
}

void name_close(struct name *name)
{
        if (name->search != NULL)
                search_leave(name->search);
        free(name->host);
        free(name->text);
        *name = (struct name){0};
}

const struct addresses *name_find(struct name *name, int wake_fd, uint64_t until_us)
{
        struct addresses found = {.count = 0};
        look_up(name->host, name->port, AI_NUMERICHOST | AI_NUMERICSERV, &found);
        if (found.count > 0) {
                name->known = found;
                return &name->known;
        }
        if (name->search == NULL)
                name->search = search_begin(name);
        if (name->search == NULL)
                return &name->known;
        if (name->known.count == 0)
                (void)wait_for(name->search->event_fd, POLLIN, wake_fd, until_us);
        if (!atomic_load(&name->search->done))
                return &name->known;
        if (name->search->found.count > 0)
                name->known = name->search->found;
        search_leave(name->search);
        name->search = NULL;
        return &name->known;
}
