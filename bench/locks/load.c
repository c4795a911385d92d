/* load.c - clients that take and give back a lock each, over and over, in one thread.
 *
 *   load DOOR HOST:PORT [HOST:PORT ...] CLIENTS SECONDS [CONNECTIONS] [PREFIX]
 *
 * Each client asks for its own lock, waits for the answer, releases it, waits for the answer, and
 * begins again: closed loop, no two clients meet. What is measured begins after a tenth of the
 * time. Prints one JSON object. An answer that is not the wished one is counted; a connection that
 * ends ends the program. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
        CONNS_MAX = 20000,
        SERVERS_MAX = 8,
        READ_SIZE = 256 * 1024,
        BUCKETS = 64 * 32, /* 32 a doubling: within 3 per cent */
};

struct load {
        struct sockaddr_in servers[SERVERS_MAX];
        size_t server_count;
        struct load_client *clients;
        struct load_conn *conns;
        struct load_conn **dirty;
        size_t dirty_count;
        uint32_t client_count, conn_count;
        int epoll;
        uint64_t now_ns, begin_ns, end_ns;
        uint64_t done, refused;
        uint64_t histogram[LOAD_STEP_COUNT][BUCKETS];
};

static struct load load;
const struct load_door *load_door;

void load_die(const char *format, ...)
{
        va_list args;
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        exit(1);
}

static uint64_t clock_ns(void)
{
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

/* ---- latencies ---- */

static unsigned bucket_of(uint64_t ns)
{
        if (ns < 32)
                return (unsigned)ns;
        unsigned top = 63 - (unsigned)__builtin_clzll(ns);
        return (top - 4) * 32 + (unsigned)(ns >> (top - 5) & 31);
}

static double bucket_us(unsigned bucket)
{
        if (bucket < 32)
                return bucket / 1e3;
        unsigned top = bucket / 32 + 4;
        return (double)((32ull + bucket % 32) << (top - 5)) / 1e3;
}

static double percentile_us(const uint64_t *histogram, double share)
{
        uint64_t total = 0, seen = 0;
        for (unsigned i = 0; i < BUCKETS; i++)
                total += histogram[i];
        for (unsigned i = 0; i < BUCKETS; i++) {
                seen += histogram[i];
                if (total > 0 && (double)seen >= share * (double)total)
                        return bucket_us(i);
        }
        return 0;
}

/* ---- connections ---- */

void load_write(struct load_conn *conn, const void *data, size_t len)
{
        if (conn->out_len + len > conn->out_size) {
                conn->out_size = (conn->out_len + len) * 2;
                conn->out = realloc(conn->out, conn->out_size);
                if (conn->out == NULL)
                        load_die("out of memory");
        }
        memcpy(conn->out + conn->out_len, data, len);
        conn->out_len += len;
        if (!conn->dirty) {
                conn->dirty = true;
                load.dirty[load.dirty_count++] = conn;
        }
}

static void conn_poll(struct load_conn *conn, bool write, int operation)
{
        struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = conn};
        if (epoll_ctl(load.epoll, operation, conn->fd, &event) != 0)
                load_die("epoll: %s", strerror(errno));
        conn->polled = write;
}

static void conn_flush(struct load_conn *conn)
{
        conn->dirty = true; /* what fill writes leaves now, too */
        if (load_door->fill != NULL)
                load_door->fill(conn);
        conn->dirty = false;
        while (conn->out_sent < conn->out_len) {
                ssize_t len = send(conn->fd, conn->out + conn->out_sent,
                                   conn->out_len - conn->out_sent, MSG_NOSIGNAL);
                if (len < 0 && errno == EAGAIN) {
                        if (!conn->polled)
                                conn_poll(conn, true, EPOLL_CTL_MOD);
                        return;
                }
                if (len < 0)
                        load_die("a server went away: %s", strerror(errno));
                conn->out_sent += (size_t)len;
        }
        conn->out_len = conn->out_sent = 0;
        if (conn->polled)
                conn_poll(conn, false, EPOLL_CTL_MOD);
}

static void conn_open(struct load_conn *conn, const struct sockaddr_in *server)
{
        int one = 1;
        conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (conn->fd < 0 || connect(conn->fd, (const struct sockaddr *)server, sizeof *server) != 0)
                load_die("cannot connect: %s", strerror(errno));
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(conn->fd, F_SETFL, O_NONBLOCK);
        conn_poll(conn, false, EPOLL_CTL_ADD);
        if (load_door->open != NULL)
                load_door->open(conn);
}

static void conn_read(struct load_conn *conn)
{
        static uint8_t data[READ_SIZE];
        ssize_t len = recv(conn->fd, data, sizeof data, 0);
        if (len < 0 && errno == EAGAIN)
                return;
        if (len <= 0)
                load_die("a server went away: %s", len < 0 ? strerror(errno) : "closed");
        load_door->came(conn, data, (size_t)len);
}

/* ---- clients ---- */

static void client_ask(struct load_client *client, enum load_step step)
{
        client->step = step;
        client->began_ns = load.now_ns;
        load_door->ask(client);
}

void load_answered(struct load_client *client, bool good)
{
        enum load_step step = client->step;
        bool counts = step != LOAD_SETUP && client->began_ns >= load.begin_ns &&
                      load.now_ns < load.end_ns;
        if (!good && step == LOAD_SETUP)
                load_die("a client could not be set up");
        if (counts) {
                load.histogram[step][bucket_of(load.now_ns - client->began_ns)]++;
                load.done += good;
                load.refused += !good;
        }
        client_ask(client, step == LOAD_ACQUIRE && good ? LOAD_RELEASE : LOAD_ACQUIRE);
}

static void clients_begin(const char *prefix)
{
        for (uint32_t i = 0; i < load.client_count; i++) {
                struct load_client *client = &load.clients[i];
                client->index = i;
                client->conn = &load.conns[i % load.conn_count];
                client->conn->client = client;
                snprintf(client->key, sizeof client->key, "%sbench-%u", prefix, i);
                client_ask(client, load_door->setup ? LOAD_SETUP : LOAD_ACQUIRE);
        }
}

static void turn(void)
{
        struct epoll_event events[512];
        for (size_t i = 0; i < load.dirty_count; i++)
                conn_flush(load.dirty[i]);
        load.dirty_count = 0;
        int count = epoll_wait(load.epoll, events, 512, 100);
        load.now_ns = clock_ns();
        for (int i = 0; i < count; i++) {
                struct load_conn *conn = events[i].data.ptr;
                if (events[i].events & EPOLLOUT)
                        conn_flush(conn);
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                        conn_read(conn);
        }
}

static void print(double seconds)
{
        struct rusage use;
        getrusage(RUSAGE_SELF, &use);
        double cpu_us = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 +
                        (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
        printf("{\"door\": \"%s\", \"clients\": %u, \"connections\": %u, \"seconds\": %.3f, "
               "\"operations\": %llu, \"refused\": %llu, \"per_second\": %.0f",
               load_door->name, load.client_count, load.conn_count, seconds,
               (unsigned long long)load.done, (unsigned long long)load.refused,
               (double)load.done / seconds);
        static const char *const names[] = {[LOAD_ACQUIRE] = "first", [LOAD_RELEASE] = "second"};
        for (int i = LOAD_ACQUIRE; i < LOAD_STEP_COUNT; i++)
                printf(", \"%s_p50_us\": %.0f, \"%s_p99_us\": %.0f", names[i],
                       percentile_us(load.histogram[i], 0.5), names[i],
                       percentile_us(load.histogram[i], 0.99));
        printf(", \"load_cpu_us\": %.2f}\n", load.done > 0 ? cpu_us / (double)load.done : 0);
}

static const struct load_door *const doors[] = {
        &load_resp,       &load_etcd,       &load_etcd_txn,   &load_resp_values, &load_etcd_values,
        &load_resp_reads, &load_etcd_reads, &load_resp_stale, &load_etcd_stale};

static void server_add(const char *text)
{
        char host[64];
        const char *colon = strchr(text, ':');
        struct sockaddr_in *server = &load.servers[load.server_count];
        if (load.server_count == SERVERS_MAX || (size_t)(colon - text) >= sizeof host)
                load_die("'%s' is one server too many, or no address", text);
        memcpy(host, text, (size_t)(colon - text));
        host[colon - text] = '\0';
        server->sin_family = AF_INET;
        server->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
        if (inet_pton(AF_INET, host, &server->sin_addr) != 1)
                load_die("'%s' is no address", text);
        load.server_count++;
}

int main(int argc, char **argv)
{
        int at = 2;
        for (size_t i = 0; argc > 1 && i < sizeof doors / sizeof doors[0]; i++)
                if (strcmp(doors[i]->name, argv[1]) == 0)
                        load_door = doors[i];
        while (at < argc && strchr(argv[at], ':') != NULL && argv[at][0] <= '9')
                server_add(argv[at++]);
        if (load_door == NULL || load.server_count == 0 || argc < at + 2)
                load_die("usage: load DOOR HOST:PORT ... CLIENTS SECONDS [CONNECTIONS] [PREFIX]");
        load.client_count = (uint32_t)strtoul(argv[at], NULL, 10);
        double seconds = strtod(argv[at + 1], NULL);
        uint32_t wish = argc > at + 2 ? (uint32_t)strtoul(argv[at + 2], NULL, 10) : 0;
        load.conn_count = load_door->conn_count(load.client_count, wish);
        if (load.client_count == 0 || load.conn_count > CONNS_MAX || seconds <= 0)
                load_die("1 to %d clients, and some time", CONNS_MAX);
        load.clients = calloc(load.client_count, sizeof *load.clients);
        load.conns = calloc(load.conn_count, sizeof *load.conns);
        load.dirty = calloc(load.conn_count, sizeof(struct load_conn *));
        load.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (load.clients == NULL || load.conns == NULL || load.dirty == NULL || load.epoll < 0)
                load_die("out of memory");
        for (uint32_t i = 0; i < load.conn_count; i++)
                conn_open(&load.conns[i], &load.servers[i % load.server_count]);
        load.now_ns = clock_ns();
        load.begin_ns = load.now_ns + (uint64_t)(seconds * 1e8);
        load.end_ns = load.begin_ns + (uint64_t)(seconds * 9e8);
        clients_begin(argc > at + 3 ? argv[at + 3] : "");
        while (load.now_ns < load.end_ns)
                turn();
        print((double)(load.end_ns - load.begin_ns) / 1e9);
        return 0;
}
