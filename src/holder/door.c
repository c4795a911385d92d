/* door.c - RESP over a socket that never blocks: each step waits for no longer than the question
 * has. Whatever goes wrong closes the connection, and so does a byte that nobody asked for: an
 * answer that comes late, or twice, is never taken for that of the next question. */
#include "holder/door.h"

#include "holder/wait.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
        QUESTION_BYTES_MAX = 4096,
};

enum meridian_lock_status door_open(struct door *door, const char *const *nodes, size_t count)
{
        memset(door, 0, sizeof *door);
        door->fd = -1;
        door->wake_fd = -1;
        for (; door->node_count < count; door->node_count++) {
                enum meridian_lock_status status =
                        name_open(&door->nodes[door->node_count], nodes[door->node_count]);
                if (status != MERIDIAN_LOCK_OK)
                        return status;
        }
        return MERIDIAN_LOCK_OK;
}

static void hang_up(struct door *door)
{
        if (door->fd >= 0)
                close(door->fd);
        door->fd = -1;
        door->asked = false;
        door->came_len = 0;
}

void door_close(struct door *door)
{
        hang_up(door);
        for (size_t i = 0; i < door->node_count; i++)
                name_close(&door->nodes[i]);
        door->node_count = 0;
}

/* There is no answer of this node: `reason`. The next one's turn comes. */
static void give_up(struct door *door, const char *reason, struct answer *ret)
{
        *ret = (struct answer){.kind = ANSWER_NONE};
        snprintf(ret->text, sizeof ret->text, "%.200s %.150s", door->nodes[door->at].text, reason);
        hang_up(door);
        door->at = (door->at + 1) % door->node_count;
}

static void give_up_errno(struct door *door, int number, struct answer *ret)
{
        char reason[160], text[96] = "";
        const char *said = strerror_r(number, text, sizeof text);
        snprintf(reason, sizeof reason, "does not answer: %.96s", said);
        give_up(door, reason, ret);
}

void door_next(struct door *door, struct answer *ret)
{
        struct answer given_up;
        give_up(door, "does not answer in time", &given_up);
        if (ret->kind == ANSWER_WAITING)
                *ret = given_up;
}

/* ---- connections ---- */

/* A descriptor, or an errno below 0. */
static int connect_to(const struct address *address, int wake_fd, uint64_t until_us)
{
        int one = 1, error = 0;
        socklen_t len = sizeof error;
        int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, &address->any, address->len) != 0)
                error = errno;
        if (error == EINPROGRESS || error == EINTR) {
                error = ETIMEDOUT;
                if (wait_for(fd, POLLOUT, wake_fd, until_us) &&
                    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
                        error = errno;
        }
        if (error != 0) {
                close(fd);
                return -error;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
}

/* Each address of the name has its share of the time. False: `ret` says why. */
static bool dial(struct door *door, uint64_t until_us, struct answer *ret)
{
        struct name *name = &door->nodes[door->at];
        uint64_t now_us = wait_now_us(), left_us = until_us > now_us ? until_us - now_us : 0;
        const struct addresses *found = name_find(name, door->wake_fd, now_us + left_us / 2);
        int fd = -EHOSTUNREACH;
        for (size_t i = 0; i < found->count && fd < 0; i++) {
                now_us = wait_now_us();
                left_us = until_us > now_us ? until_us - now_us : 0;
                fd = connect_to(&found->items[i], door->wake_fd,
                                now_us + left_us / (found->count - i));
        }
        if (found->count == 0)
                give_up(door, "has no known address", ret);
        else if (fd < 0)
                give_up_errno(door, -fd, ret);
        else
                door->fd = fd;
        return fd >= 0;
}

/* Nothing is left of what came before, and the other end has not hung up. */
static bool is_quiet(const struct door *door)
{
        char byte;
        return !door->asked && recv(door->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
               (errno == EAGAIN || errno == EINTR);
}

/* ---- questions ---- */

static bool send_all(const struct door *door, const char *text, size_t len, uint64_t until_us)
{
        while (len > 0) {
                ssize_t sent = send(door->fd, text, len, MSG_NOSIGNAL);
                if (sent < 0 && errno != EAGAIN && errno != EINTR)
                        return false;
                if (sent < 0 && !wait_for(door->fd, POLLOUT, door->wake_fd, until_us)) {
                        errno = ETIMEDOUT;
                        return false;
                }
                if (sent > 0) {
                        text += sent;
                        len -= (size_t)sent;
                }
        }
        return true;
}

static bool question_send(const struct door *door, const char *const *words, size_t count,
                          uint64_t until_us)
{
        char text[QUESTION_BYTES_MAX];
        int len = snprintf(text, sizeof text, "*%zu\r\n", count);
        size_t at = (size_t)len;
        for (size_t i = 0; i < count; i++) {
                size_t left = sizeof text - at;
                len = snprintf(text + at, left, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
                if (len < 0 || (size_t)len >= left) {
                        errno = EMSGSIZE;
                        return false;
                }
                at += (size_t)len;
        }
        return send_all(door, text, at, until_us);
}

bool door_send(struct door *door, const char *const *words, size_t count, uint64_t until_us,
               struct answer *ret)
{
        if (door->fd >= 0 && !is_quiet(door))
                hang_up(door);
        if (door->fd < 0 && !dial(door, until_us, ret))
                return false;
        if (!question_send(door, words, count, until_us)) {
                give_up_errno(door, errno, ret);
                return false;
        }
        door->asked = true;
        door->came_len = 0;
        return true;
}

/* Takes what has come; false: nothing more now, or `ret` is given up. */
static bool take(struct door *door, struct answer *ret)
{
        ssize_t more =
                recv(door->fd, door->came + door->came_len, sizeof door->came - door->came_len, 0);
        if (more < 0 && errno == EINTR)
                return true;
        if (more < 0 && errno == EAGAIN)
                return false;
        if (more < 0) {
                give_up_errno(door, errno, ret);
                return false;
        }
        if (more == 0) {
                give_up(door, "hung up before it answered", ret);
                return false;
        }
        door->came_len += (size_t)more;
        return true;
}

void door_wait(struct door *door, uint64_t until_us, struct answer *ret)
{
        *ret = (struct answer){.kind = ANSWER_WAITING};
        do {
                while (take(door, ret)) {
                        enum answer_state state = answer_read(door->came, door->came_len, ret);
                        if (state == ANSWER_WHOLE)
                                door->asked = false;
                        if (state == ANSWER_BAD)
                                give_up(door, "is no lock door, by what it answers", ret);
                        if (state != ANSWER_MORE)
                                return;
                }
        } while (ret->kind == ANSWER_WAITING &&
                 wait_for(door->fd, POLLIN, door->wake_fd, until_us));
}

void door_ask(struct door *door, const char *const *words, size_t count, uint64_t until_us,
              struct answer *ret)
{
        if (!door_send(door, words, count, until_us, ret))
                return;
        door_wait(door, until_us, ret);
        if (ret->kind == ANSWER_WAITING)
                door_next(door, ret);
}

bool door_alive(const struct door *door, uint64_t until_us)
{
        static const char *const words[] = {"PING"};
        const char *node = door->nodes[door->at].text;
        struct door other;
        struct answer answer = {.kind = ANSWER_NONE};
        if (door_open(&other, &node, 1) == MERIDIAN_LOCK_OK)
                door_ask(&other, words, 1, until_us, &answer);
        door_close(&other);
        return answer.kind != ANSWER_NONE;
}
