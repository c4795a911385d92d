/* pass.h - how a server takes a client over from a door, so that their bytes need nobody between
 * them: what the daemon and plugins/postgres say to each other on a socket of the machine.
 *
 * A session begins through the door. When its client has proved who it is, nothing is under way for
 * a moment: the client waits for an answer that the server has not sent yet. Then the server's
 * process connects to the socket (SOCK_SEQPACKET) and asks for the client of its connection; it
 * gets the client's own socket, and uses it in place of the one that led to the door.
 *
 *   server's process                          daemon
 *     struct pass_ask       ---------->         finds the connection of that address, and checks
 *                                               that all that either said has come and gone on
 *     struct pass_answer    <----------         given 1, and the client's socket; or given 0: the
 *                                               session stays as it is
 *
 * The connection between the two then stays, and says nothing more: when the process is gone, the
 * daemon closes the client's socket, which it still has; when the daemon closes it, or is gone, the
 * process shuts the client's socket.
 *
 * What is under way is told by the kernel's counts of a TCP connection: what one end has sent is
 * what the other has received. Words are the machine's own.
 *
 * Header only, without other headers of the project: plugins/postgres includes it. */
#ifndef MERIDIAN_ROAD_PASS_H
#define MERIDIAN_ROAD_PASS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#define PASS_MAGIC 0x317373617064726dull /* "mrdpass1" */

struct pass_ask {
        uint64_t magic;
        uint64_t came; /* bytes that the process has received on its connection, and read */
        uint64_t sent; /* and that it has sent there */
        uint16_t family;
        uint16_t port;       /* of the other end of its connection, which is the door's */
        uint8_t address[20]; /* 4 or 16 bytes */
};
_Static_assert(sizeof(struct pass_ask) == 48, "without holes");

struct pass_answer {
        uint64_t magic;
        uint64_t given; /* 1: with the client's socket */
};

/* The family, port and address of a name of a socket; false: it is not TCP's. */
static inline bool pass_place(const struct sockaddr_storage *name, struct pass_ask *ask)
{
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        memset(ask->address, 0, sizeof ask->address);
        ask->family = name->ss_family;
        if (name->ss_family == AF_INET) {
                memcpy(&in, name, sizeof in);
                ask->port = ntohs(in.sin_port);
                memcpy(ask->address, &in.sin_addr, sizeof in.sin_addr);
                return true;
        }
        if (name->ss_family != AF_INET6)
                return false;
        memcpy(&in6, name, sizeof in6);
        ask->port = ntohs(in6.sin6_port);
        memcpy(ask->address, &in6.sin6_addr, sizeof in6.sin6_addr);
        return true;
}

/* What has come by a TCP socket so far, and what was sent by it, repetitions not counted. False:
 * the kernel does not tell (before 4.19). */
static inline bool pass_counts(int fd, uint64_t *ret_came, uint64_t *ret_sent)
{
        enum {
                TCP_INFO_OPTION = 11, /* of struct tcp_info in linux/tcp.h, which no other header */
                RECEIVED_AT = 128,    /* of that name may stand beside: */
                NOT_SENT_AT = 144,    /* bytes_received, notsent_bytes, */
                SENT_AT = 200,        /* bytes_sent, */
                SENT_AGAIN_AT = 208,  /* bytes_retrans */
                INFO_SIZE = 216,
        };
        uint8_t info[INFO_SIZE];
        uint64_t received, sent, sent_again;
        uint32_t not_sent;
        socklen_t len = sizeof info;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO_OPTION, info, &len) != 0 || len < sizeof info)
                return false;
        memcpy(&received, info + RECEIVED_AT, sizeof received);
        memcpy(&not_sent, info + NOT_SENT_AT, sizeof not_sent);
        memcpy(&sent, info + SENT_AT, sizeof sent);
        memcpy(&sent_again, info + SENT_AGAIN_AT, sizeof sent_again);
        *ret_came = received;
        *ret_sent = sent - sent_again + not_sent;
        return true;
}

#endif
