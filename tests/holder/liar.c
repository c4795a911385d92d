/* liar.c - one thread, poll, and a script. */
#include "liar.h"

#include "holder/wait.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
        int fd;
        size_t len;
        char text[2048];
};

static void need(bool good, const char *what)
{
        if (good)
                return;
        perror(what);
        abort();
}

/* The length of a whole command at the beginning; 0: there is none yet. */
static size_t command_len(const struct client *client)
{
        const char *at = client->text, *end = client->text + client->len;
        long words = 1;
        for (long i = 0; i <= words; i++) {
                const char *line_end = memchr(at, '\n', (size_t)(end - at));
                if (line_end == NULL)
                        return 0;
                long number = strtol(at + 1, NULL, 10);
                if (i == 0)
                        words = number;
                at = line_end + 1 + (i == 0 ? 0 : number + 2);
                if (at > end)
                        return 0;
        }
        return (size_t)(at - client->text);
}

static const struct liar_act *act_for(struct liar *liar, const char *name)
{
        for (size_t i = 0; i < LIAR_ACTS_MAX; i++) {
                const struct liar_act *act = &liar->acts[i];
                if (act->to == NULL && act->say == NULL)
                        return NULL;
                if (act->to != NULL && strncmp(name, act->to, strlen(act->to)) != 0)
                        continue;
                if (act->times != 0 && liar->used[i] >= act->times)
                        continue;
                liar->used[i]++;
                return act;
        }
        return NULL;
}

static void say(int fd, const struct liar_act *act)
{
        size_t len = act->say == NULL ? 0 : act->say_bytes != 0 ? act->say_bytes : strlen(act->say);
        size_t step = (act->flags & LIAR_DRIPS) != 0 ? 1 : len;
        for (size_t at = 0; at < len; at += step) {
                (void)!send(fd, act->say + at, step, MSG_NOSIGNAL);
                if (step == 1)
                        usleep(1000);
        }
}

static void count(struct liar *liar, const char *name)
{
        if (strncmp(name, "LOCK.ACQUIRE", 12) == 0) {
                liar->acquires++;
                liar->last_us = wait_now_us();
        }
        liar->renewals += strncmp(name, "LOCK.RENEW", 10) == 0;
        liar->releases += strncmp(name, "LOCK.RELEASE", 12) == 0;
}

/* False: the client is gone. */
static bool serve(struct liar *liar, struct client *client)
{
        size_t len;
        ssize_t more = recv(client->fd, client->text + client->len,
                            sizeof client->text - 1 - client->len, 0);
        if (more <= 0)
                return false;
        client->len += (size_t)more;
        client->text[client->len] = '\0';
        while (client->len > 0 && (len = command_len(client)) > 0) {
                const char *name = strchr(strchr(client->text, '\n') + 1, '\n') + 1;
                count(liar, name);
                const struct liar_act *act = act_for(liar, name);
                if (act != NULL)
                        say(client->fd, act);
                if (act != NULL && (act->flags & LIAR_CLOSES) != 0)
                        return false;
                memmove(client->text, client->text + len, client->len - len + 1);
                client->len -= len;
        }
        return true;
}

static struct client *client_add(struct liar *liar)
{
        struct client *client = malloc(sizeof *client);
        need(client != NULL, "malloc");
        client->len = 0;
        client->fd = accept(liar->listen_fd, NULL, NULL);
        need(client->fd >= 0, "accept");
        return client;
}

static void client_drop(struct client *client)
{
        close(client->fd);
        free(client);
}

static void *run(void *argument)
{
        struct liar *liar = argument;
        struct client *clients[LIAR_CLIENTS_MAX];
        size_t client_count = 0;
        for (;;) {
                struct pollfd items[LIAR_CLIENTS_MAX + 2] = {
                        {.fd = liar->end_fd, .events = POLLIN},
                        {.fd = client_count < LIAR_CLIENTS_MAX ? liar->listen_fd : -1,
                         .events = POLLIN}};
                for (size_t i = 0; i < client_count; i++)
                        items[i + 2] = (struct pollfd){.fd = clients[i]->fd, .events = POLLIN};
                if (poll(items, client_count + 2, -1) < 0)
                        continue;
                if (items[0].revents != 0)
                        break;
                for (size_t i = client_count; i > 0; i--)
                        if (items[i + 1].revents != 0 && !serve(liar, clients[i - 1])) {
                                client_drop(clients[i - 1]);
                                clients[i - 1] = clients[--client_count];
                        }
                if (items[1].revents != 0)
                        clients[client_count++] = client_add(liar);
        }
        while (client_count > 0)
                client_drop(clients[--client_count]);
        return NULL;
}

void liar_begin(struct liar *liar, const struct liar_act *acts)
{
        struct sockaddr_in address = {.sin_family = AF_INET};
        socklen_t len = sizeof address;
        memset(liar, 0, sizeof *liar);
        for (size_t i = 0; acts[i].to != NULL || acts[i].say != NULL; i++)
                liar->acts[i] = acts[i];
        liar->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        liar->end_fd = eventfd(0, EFD_CLOEXEC);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        need(liar->listen_fd >= 0 && liar->end_fd >= 0, "socket");
        need(bind(liar->listen_fd, (struct sockaddr *)&address, len) == 0, "bind");
        need(listen(liar->listen_fd, 512) == 0, "listen");
        need(getsockname(liar->listen_fd, (struct sockaddr *)&address, &len) == 0, "name");
        snprintf(liar->node, sizeof liar->node, "127.0.0.1:%d", ntohs(address.sin_port));
        need(pthread_create(&liar->thread, NULL, run, liar) == 0, "thread");
}

void liar_end(struct liar *liar)
{
        uint64_t one = 1;
        (void)!write(liar->end_fd, &one, sizeof one);
        pthread_join(liar->thread, NULL);
        close(liar->end_fd);
        close(liar->listen_fd);
}
