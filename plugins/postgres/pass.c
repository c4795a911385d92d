/* pass.c - a session that came by a door takes its client over from it (src/road/pass.h).
 *
 * When the client has proved who it is, and before it is told so, the door is asked for it. The
 * client's socket then takes the place of the one to the door, under the same number: TLS and all
 * that was read ahead stay as they are. From then on nothing is between the two, and the session
 * shows the client's own address. pg_hba.conf has judged by the door's address before.
 *
 * Where the door does not answer within a second, or does not give, the session goes on through it.
 * What it does give is never refused: if this process ends, the door closes the client's socket.
 * When the door closes the connection to it, because this server is not the writer any more or the
 * daemon has ended, a signal comes, and shuts the client's socket: the session ends as where a
 * client went away. */
#include "postgres.h"

/* Its headers are not needed for building, and struct Port is the same without. */
#undef ENABLE_GSS
#undef USE_OPENSSL

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/ip.h"
#include "libpq/auth.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "forward.h"
#include "road/pass.h"

static char *doors_path;
static ClientAuthentication_hook_type next_authentication;
static int door_fd = -1;

/* ---- asking ---- */

/* -1: nobody is there. */
static int door_connect(void)
{
        const struct timeval limit = {.tv_sec = 1};
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        int fd;
        size_t len = strlen(doors_path);
        if (len >= sizeof name.sun_path)
                return -1;
        memcpy(name.sun_path, doors_path, len + 1);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -1;
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
            connect(fd, (struct sockaddr *)&name, sizeof name) == 0)
                return fd;
        close(fd);
        return -1;
}

/* False: something is under way still, or the connection is none of a door's. */
static bool ask_fill(const Port *port, struct pass_ask *ask)
{
        int unread = 0;
        memset(ask, 0, sizeof *ask);
        ask->magic = PASS_MAGIC;
        return pass_place(&port->raddr.addr, ask) && ioctl(port->sock, FIONREAD, &unread) == 0 &&
               unread == 0 && pass_counts(port->sock, &ask->came, &ask->sent);
}

/* The client's socket; -1: it was not given. */
static int door_ask(int door, const struct pass_ask *ask)
{
        struct pass_answer answer = {0};
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec data = {.iov_base = &answer, .iov_len = sizeof answer};
        struct msghdr message = {.msg_iov = &data,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof control};
        ssize_t len;
        int client;
        if (send(door, ask, sizeof *ask, MSG_NOSIGNAL) != sizeof *ask)
                return -1;
        do {
                len = recvmsg(door, &message, MSG_CMSG_CLOEXEC);
        } while (len < 0 && errno == EINTR);
        struct cmsghdr *part = len < 0 ? NULL : CMSG_FIRSTHDR(&message);
        if (part == NULL || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
                return -1;
        memcpy(&client, CMSG_DATA(part), sizeof client);
        if (len == sizeof answer && answer.magic == PASS_MAGIC && answer.given == 1)
                return client;
        close(client);
        return -1;
}

/* ---- the end of the door ---- */

/* In a signal too: whatever it is for, only the door's end counts. */
static void look_at_door(void)
{
        char byte;
        if (recv(door_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
                (void)shutdown(MyProcPort->sock, SHUT_RDWR);
}

static void on_door(SIGNAL_ARGS)
{
        int before = errno;
        look_at_door();
        errno = before;
        (void)postgres_signal_arg;
}

static void watch_door(int door)
{
        door_fd = door;
        ReserveExternalFD();
        pqsignal(SIGIO, on_door);
        if (fcntl(door, F_SETOWN, getpid()) != 0 || fcntl(door, F_SETFL, O_NONBLOCK | O_ASYNC) != 0)
                ereport(FATAL, (errcode_for_socket_access(),
                                errmsg("the door of this session cannot be watched: %m")));
        look_at_door(); /* it may have ended before */
}

/* ---- the client ---- */

/* As pq_init does: what it waits for is bound to the old socket. */
static void wait_for_client(Port *port)
{
        FreeWaitEventSet(FeBeWaitSet);
        FeBeWaitSet = CreateWaitEventSet(TopMemoryContext, FeBeWaitSetNEvents);
        AddWaitEventToSet(FeBeWaitSet, WL_SOCKET_WRITEABLE, port->sock, NULL, NULL);
        AddWaitEventToSet(FeBeWaitSet, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
        AddWaitEventToSet(FeBeWaitSet, WL_POSTMASTER_DEATH, PGINVALID_SOCKET, NULL, NULL);
}

/* The server's settings hold for the client's socket now. */
static void tune_client(Port *port)
{
        port->keepalives_idle = port->keepalives_interval = port->keepalives_count = 0;
        port->default_keepalives_idle = port->default_keepalives_interval = 0;
        port->default_keepalives_count = port->default_tcp_user_timeout = 0;
        port->tcp_user_timeout = 0;
        (void)pq_setkeepalivesidle(tcp_keepalives_idle, port);
        (void)pq_setkeepalivesinterval(tcp_keepalives_interval, port);
        (void)pq_setkeepalivescount(tcp_keepalives_count, port);
        (void)pq_settcpusertimeout(tcp_user_timeout, port);
}

/* What pg_stat_activity, inet_client_addr() and the log's %h tell. */
static void name_client(Port *port)
{
        char host[NI_MAXHOST], service[NI_MAXSERV];
        SockAddr client = {.salen = sizeof client.addr}, local = {.salen = sizeof local.addr};
        if (getpeername(port->sock, (struct sockaddr *)&client.addr, &client.salen) != 0 ||
            getsockname(port->sock, (struct sockaddr *)&local.addr, &local.salen) != 0 ||
            pg_getnameinfo_all(&client.addr, (int)client.salen, host, sizeof host, service,
                               sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
                return; /* it has gone away: the next read tells */
        port->raddr = client;
        port->laddr = local;
        port->remote_host = MemoryContextStrdup(TopMemoryContext, host);
        port->remote_port = MemoryContextStrdup(TopMemoryContext, service);
        port->remote_hostname = NULL;
        port->remote_hostname_resolv = 0;
}

static void take_client(Port *port)
{
        struct pass_ask ask;
        int client = -1, door = ask_fill(port, &ask) ? door_connect() : -1;
        if (door < 0)
                return;
        client = door_ask(door, &ask);
        if (client < 0) {
                close(door);
                return;
        }
        if (dup3(client, port->sock, O_CLOEXEC) < 0)
                ereport(FATAL, (errcode_for_socket_access(),
                                errmsg("the client's socket cannot be taken over: %m")));
        close(client);
        wait_for_client(port);
        tune_client(port);
        name_client(port);
        watch_door(door);
}

static void on_authentication(Port *port, int status)
{
        if (next_authentication != NULL)
                next_authentication(port, status);
        if (status == STATUS_OK && doors_path[0] != '\0')
                take_client(port);
}

void pass_init(void)
{
        DefineCustomStringVariable(
                "meridian.doors", "The socket of the doors by which clients come here.",
                "Empty: sessions stay on the connection that they came by.", &doors_path, "",
                PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
        if (!process_shared_preload_libraries_in_progress)
                return;
        next_authentication = ClientAuthentication_hook;
        ClientAuthentication_hook = on_authentication;
}
