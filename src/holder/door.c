/* door.c - RESP over a socket that never blocks: each step waits with poll for no longer than the
 * question has. Whatever goes wrong closes the connection, so that an answer that comes late is
 * never taken for that of the next question. */
#include "holder/door.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t door_now_us(void)
{
        struct timespec at;
        if (clock_gettime(CLOCK_BOOTTIME, &at) != 0)
                return UINT64_MAX; /* no clock: nothing is sure */
        return (uint64_t)at.tv_sec * 1000000 + (uint64_t)at.tv_nsec / 1000;
}

bool door_open(struct door *door, const char *const *nodes, size_t count)
{
        *door = (struct door){.fd = -1};
        if (count == 0 || count > DOOR_NODES_MAX)
                return false;
        for (; door->node_count < count; door->node_count++) {
                door->nodes[door->node_count] = strdup(nodes[door->node_count]);
                if (door->nodes[door->node_count] == NULL)
                        return false;
        }
        return true;
}

static void hang_up(struct door *door)
{
        if (door->fd >= 0)
                close(door->fd);
        door->fd = -1;
}

void door_next(struct door *door)
{
        hang_up(door);
        door->at = (door->at + 1) % door->node_count;
}

void door_close(struct door *door)
{
        hang_up(door);
        for (size_t i = 0; i < door->node_count; i++)
                free(door->nodes[i]);
        door->node_count = 0;
}

/* Waits until the socket can be read or written. */
static bool wait_for(int fd, short events, uint64_t until_us)
{
        for (;;) {
                uint64_t now_us = door_now_us();
                if (now_us >= until_us)
                        return false;
                struct pollfd pollfd = {.fd = fd, .events = events};
                int found = poll(&pollfd, 1, (int)((until_us - now_us) / 1000 + 1));
                if (found > 0)
                        return true;
                if (found < 0 && errno != EINTR)
                        return false;
        }
}

static int connect_to(const struct addrinfo *info, uint64_t until_us)
{
        int one = 1, error = 0;
        socklen_t len = sizeof error;
        int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -1;
        bool made = connect(fd, info->ai_addr, info->ai_addrlen) == 0;
        if (!made && errno == EINPROGRESS && wait_for(fd, POLLOUT, until_us))
                made = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
        if (!made) {
                close(fd);
                return -1;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
}

/* "host:port", "[::1]:port". */
static bool dial(struct door *door, uint64_t until_us)
{
        char host[256];
        const char *name = door->nodes[door->at];
        const char *colon = strrchr(name, ':');
        if (colon == NULL || (size_t)(colon - name) >= sizeof host)
                return false;
        size_t skip = name[0] == '[', len = (size_t)(colon - name) - 2 * skip;
        memcpy(host, name + skip, len);
        host[len] = '\0';
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
        if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
                return false;
        for (const struct addrinfo *info = found; info != NULL && door->fd < 0;
             info = info->ai_next)
                door->fd = connect_to(info, until_us);
        freeaddrinfo(found);
        return door->fd >= 0;
}

static bool send_all(int fd, const char *text, size_t len, uint64_t until_us)
{
        while (len > 0) {
                ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);
                if (sent < 0 && errno != EAGAIN && errno != EINTR)
                        return false;
                if (sent < 0 && !wait_for(fd, POLLOUT, until_us))
                        return false;
                if (sent > 0) {
                        text += sent;
                        len -= (size_t)sent;
                }
        }
        return true;
}

static bool question_send(struct door *door, const char *const *words, size_t count,
                          uint64_t until_us)
{
        char head[32];
        int len = snprintf(head, sizeof head, "*%zu\r\n", count);
        char text[4096];
        size_t at = (size_t)len;
        memcpy(text, head, at);
        for (size_t i = 0; i < count; i++) {
                size_t left = sizeof text - at;
                len = snprintf(text + at, left, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
                if (len < 0 || (size_t)len >= left)
                        return false;
                at += (size_t)len;
        }
        return send_all(door->fd, text, at, until_us);
}

/* The next line without its end, of what came so far; NULL: it is not complete. */
static const char *line_next(char *text, size_t *at)
{
        char *end = strstr(text + *at, "\r\n");
        if (end == NULL)
                return NULL;
        const char *line = text + *at;
        *end = '\0';
        *at = (size_t)(end - text) + 2;
        return line;
}

/* What came as an answer; DOOR_NONE: it is not complete. `text` is a copy. */
static void answer_read(char *text, struct door_answer *ret)
{
        size_t at = 0;
        const char *line = line_next(text, &at);
        ret->kind = DOOR_NONE;
        ret->count = 0;
        if (line == NULL)
                return;
        if (line[0] == '-' || line[0] == '+') {
                ret->kind = DOOR_ERROR;
                snprintf(ret->text, sizeof ret->text, "%.200s", line + 1);
        } else if (line[0] == '_' || strcmp(line + 1, "-1") == 0) {
                ret->kind = DOOR_NIL;
        } else if (line[0] == ':') {
                ret->kind = DOOR_NUMBERS;
                ret->numbers[ret->count++] = strtoull(line + 1, NULL, 10);
        } else if (line[0] == '*') {
                size_t count = strtoul(line + 1, NULL, 10);
                while (ret->count < count && ret->count < 2 &&
                       (line = line_next(text, &at)) != NULL)
                        ret->numbers[ret->count++] = strtoull(line + 1, NULL, 10);
                if (line != NULL)
                        ret->kind = DOOR_NUMBERS;
        } else {
                ret->kind = DOOR_ERROR;
                snprintf(ret->text, sizeof ret->text, "this is no lock door");
        }
}

static bool answer_wait(struct door *door, uint64_t until_us, struct door_answer *ret)
{
        char came[DOOR_TEXT_MAX], copy[DOOR_TEXT_MAX];
        size_t len = 0;
        while (len < sizeof came - 1) {
                ssize_t more = recv(door->fd, came + len, sizeof came - 1 - len, 0);
                if (more == 0 || (more < 0 && errno != EAGAIN && errno != EINTR))
                        return false;
                if (more < 0 && !wait_for(door->fd, POLLIN, until_us))
                        return false;
                if (more < 0)
                        continue;
                len += (size_t)more;
                came[len] = '\0';
                memcpy(copy, came, len + 1);
                answer_read(copy, ret);
                if (ret->kind != DOOR_NONE)
                        return true;
        }
        return false;
}

void door_ask(struct door *door, const char *const *words, size_t count, uint64_t until_us,
              struct door_answer *ret)
{
        *ret = (struct door_answer){.kind = DOOR_NONE};
        if ((door->fd >= 0 || dial(door, until_us)) &&
            question_send(door, words, count, until_us) && answer_wait(door, until_us, ret))
                return;
        *ret = (struct door_answer){.kind = DOOR_NONE};
        snprintf(ret->text, sizeof ret->text, "%.200s does not answer", door->nodes[door->at]);
        door_next(door);
}
