/* Clients that their server takes over (pass.h): from then on a way holds the client's socket and
 * the connection to the server's process, reads neither, and is only there to be cut or to end.
 *
 *     the process asks -> its way is found, and nothing is under way -> WAY_PASSED: the socket to
 *     the server is closed, the client's is not read any more -> the process ends, or the way is
 *     cut: the client's socket is shut, which ends it for the process too
 *
 * Whoever asks for what is not his, or says what makes no sense, gets nothing; a client whose bytes
 * are under way, which those of a first statement sent ahead may be, stays as it is. */
#include "road/pass.h"

#include "road/road_priv.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
        ASKERS_SPARE = 64, /* that have asked for nothing yet */
};

static int fd_of(const struct plug *plug)
{
        uv_os_fd_t fd = -1;
        return plug->made && uv_fileno((const uv_handle_t *)&plug->tcp, &fd) == 0 ? fd : -1;
}

/* ---- the end ---- */

static void on_asker_closed(uv_handle_t *handle)
{
        struct asker *asker = handle->data;
        struct road *road = asker->road;
        if (asker->next != NULL)
                asker->next->before = asker->before;
        if (asker->before != NULL)
                asker->before->next = asker->next;
        else
                road->passes.askers = asker->next;
        road->passes.count--;
        close(asker->fd);
        heap_free(road->heap, asker);
        road_way_gone(road);
}

static void asker_close(struct asker *asker)
{
        struct way *way = asker->way;
        if (asker->closing)
                return;
        asker->closing = true;
        asker->way = NULL;
        uv_close((uv_handle_t *)&asker->poll, on_asker_closed);
        /* The process waits for nothing that a later turn brings. */
        (void)shutdown(asker->fd, SHUT_RDWR);
        if (way != NULL)
                way_close(way);
}

static uint64_t bytes_of_plug(const struct plug *plug)
{
        uint64_t came, sent;
        int fd = fd_of(plug);
        return fd >= 0 && pass_counts(fd, &came, &sent) ? came + sent : 0;
}

uint64_t pass_bytes(const struct way *way)
{
        uint64_t bytes = bytes_of_plug(&way->plugs[0]);
        return bytes > way->passed_before ? bytes - way->passed_before : 0;
}

void pass_end(struct way *way)
{
        struct asker *asker = way->asker;
        int client = fd_of(&way->plugs[0]);
        way->road->counters.bytes += pass_bytes(way);
        if (client >= 0)
                (void)shutdown(client, SHUT_RDWR);
        asker->way = NULL;
        way->asker = NULL;
        asker_close(asker);
}

/* ---- asking ---- */

static bool is_at(const struct plug *plug, const struct pass_ask *ask)
{
        struct sockaddr_storage name;
        struct pass_ask own = {0};
        int len = sizeof name;
        return plug->made && uv_tcp_getsockname(&plug->tcp, (struct sockaddr *)&name, &len) == 0 &&
               pass_place(&name, &own) && own.family == ask->family && own.port == ask->port &&
               memcmp(own.address, ask->address, sizeof own.address) == 0;
}

static struct way *way_asked(const struct road *road, const struct pass_ask *ask)
{
        for (struct way *way = road->ways; way != NULL; way = way->next) {
                if (way->near && !way->courier && !way->cancel && way->state == WAY_OPEN &&
                    way->tunnel.id == 0 && is_at(&way->plugs[1], ask))
                        return way;
        }
        return NULL;
}

/* All that either end has said is where it belongs. */
static bool is_quiet(const struct way *way, const struct pass_ask *ask)
{
        const struct plug *client = &way->plugs[0], *server = &way->plugs[1];
        uint64_t came, sent;
        int unread = 0, fd = fd_of(server);
        return !client->finishing && !server->finishing && plug_pending(client) == 0 &&
               plug_pending(server) == 0 && fd >= 0 && ioctl(fd, FIONREAD, &unread) == 0 &&
               unread == 0 && pass_counts(fd, &came, &sent) && came == ask->sent &&
               sent == ask->came;
}

static bool answer(const struct asker *asker, int client)
{
        struct pass_answer text = {PASS_MAGIC, client >= 0};
        struct iovec data = {.iov_base = &text, .iov_len = sizeof text};
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
        if (client >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof control;
                struct cmsghdr *part = CMSG_FIRSTHDR(&message);
                part->cmsg_level = SOL_SOCKET;
                part->cmsg_type = SCM_RIGHTS;
                part->cmsg_len = CMSG_LEN(sizeof client);
                memcpy(CMSG_DATA(part), &client, sizeof client);
        }
        return sendmsg(asker->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof text;
}

static void way_pass(struct way *way, struct asker *asker)
{
        plug_pause(&way->plugs[0]);
        plug_close(&way->plugs[1]);
        way->state = WAY_PASSED;
        way->asker = asker;
        way->passed_before = bytes_of_plug(&way->plugs[0]);
        asker->way = way;
}

static void asked(struct asker *asker, const struct pass_ask *ask)
{
        struct way *way = way_asked(asker->road, ask);
        if (way != NULL && is_quiet(way, ask)) {
                int client = fd_of(&way->plugs[0]);
                if (client >= 0 && answer(asker, client)) {
                        way_pass(way, asker);
                        return;
                }
        } else {
                (void)answer(asker, -1);
        }
        asker_close(asker);
}

static void on_asker(uv_poll_t *poll, int status, int events)
{
        struct asker *asker = poll->data;
        struct pass_ask ask;
        (void)events;
        if (asker->closing)
                return;
        ssize_t len = recv(asker->fd, &ask, sizeof ask, MSG_DONTWAIT | MSG_TRUNC);
        if (status == 0 && len < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (status == 0 && len == sizeof ask && asker->way == NULL && ask.magic == PASS_MAGIC)
                asked(asker, &ask);
        else
                asker_close(asker); /* the process has ended, or talks nonsense */
}

static bool is_heard(const struct passes *passes, int fd)
{
        struct ucred peer;
        socklen_t len = sizeof peer;
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
               (peer.uid == passes->uid || peer.uid == geteuid());
}

static bool asker_new(struct road *road, int fd)
{
        struct passes *passes = &road->passes;
        uint32_t limit = road->connections_max * ROAD_DOOR_COUNT + ASKERS_SPARE;
        if (road->closing || passes->count >= limit || !is_heard(passes, fd))
                return false;
        struct asker *asker = heap_alloc(road->heap, sizeof *asker);
        if (asker == NULL)
                return false;
        asker->road = road;
        asker->fd = fd;
        if (uv_poll_init(road->loop, &asker->poll, fd) != 0) {
                heap_free(road->heap, asker);
                return false;
        }
        asker->poll.data = asker;
        asker->next = passes->askers;
        if (passes->askers != NULL)
                passes->askers->before = asker;
        passes->askers = asker;
        passes->count++;
        if (uv_poll_start(&asker->poll, UV_READABLE | UV_DISCONNECT, on_asker) != 0)
                asker_close(asker);
        return true;
}

static void on_passes(uv_poll_t *poll, int status, int events)
{
        struct road *road = poll->data;
        (void)events;
        if (status != 0 || road->closing)
                return;
        int fd = accept4(road->passes.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && !asker_new(road, fd))
                close(fd);
}

/* ---- opening and closing ---- */

static int listen_at(const struct sockaddr_un *name, uid_t uid)
{
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -1;
        (void)unlink(name->sun_path);
        if (bind(fd, (const struct sockaddr *)name, sizeof *name) == 0 &&
            chmod(name->sun_path, 0600) == 0 &&
            (uid == geteuid() || lchown(name->sun_path, uid, (gid_t)-1) == 0) &&
            listen(fd, LISTEN_BACKLOG) == 0)
                return fd;
        close(fd);
        return -1;
}

static void on_passes_closed(uv_handle_t *handle)
{
        struct road *road = handle->data;
        close(road->passes.fd);
        road->passes.fd = -1;
        road->handles--;
        road_way_gone(road);
}

enum err road_pass_open(struct road *road, const char *path, uid_t uid)
{
        struct passes *passes = &road->passes;
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        CHECK(passes->fd < 0);
        if (strlen(path) >= sizeof name.sun_path)
                return ERR_INVALID;
        memcpy(name.sun_path, path, strlen(path) + 1);
        passes->fd = listen_at(&name, uid);
        if (passes->fd < 0)
                return ERR_IO;
        passes->uid = uid;
        if (uv_poll_init(road->loop, &passes->poll, passes->fd) != 0) {
                close(passes->fd);
                passes->fd = -1;
                return ERR_NOMEM;
        }
        passes->poll.data = road;
        passes->made = true;
        road->handles++;
        return uv_poll_start(&passes->poll, UV_READABLE, on_passes) == 0 ? ERR_NONE : ERR_IO;
}

/* The file stays: a process that asks nobody is told so at once. */
void passes_close(struct road *road)
{
        for (struct asker *asker = road->passes.askers; asker != NULL; asker = asker->next)
                asker_close(asker);
        if (road->passes.made)
                uv_close((uv_handle_t *)&road->passes.poll, on_passes_closed);
}
