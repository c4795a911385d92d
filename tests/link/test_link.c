/* Links of several nodes in one loop, on 127.97.0.1 to .3: what is promised to users, and what
 * strangers get (nothing). Strangers are blocking clients in threads. */
#include "base/heap.h"
#include "base/rng.h"
#include "link/link_priv.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
/* cmocka needs some of the above. */
#include <cmocka.h>

#define NODES    3
#define WAIT_MS  60000
#define PORT     7401
#define LOG_SIZE 4096

static char root[64];
static struct heap heap;
static uv_loop_t loop;
static const char *const regions[NODES + 1] = {"", "us-east", "eu-west", "ap-southeast"};

struct node {
        struct link *link;
        node_id id;
        bool closed;
        bool peer_up[NODES + 1];
        unsigned ups, downs, messages, rtts, drained, refusals;
        uint64_t bytes;
        uint64_t rtt_us_last;
        size_t len_last;
        unsigned next[NODES + 1][WORLD_CLASS_COUNT]; /* number that must come next */
        bool disorder;
        char classes[LOG_SIZE]; /* 'C', 'D', 'B' in the order of arrival */
        size_t class_count;
        char why[256];
};

static struct node nodes[NODES + 1];

static const char *in_root(const char *name)
{
        static char paths[12][256];
        static unsigned next;
        char *path = paths[next++ % COUNT_OF(paths)];
        snprintf(path, sizeof paths[0], "%s/%s", root, name);
        return path;
}

/* ---- users ---- */

static void on_up(void *user, node_id peer)
{
        struct node *node = user;
        assert_false(node->peer_up[peer]);
        node->peer_up[peer] = true;
        node->ups++;
        memset(node->next[peer], 0, sizeof node->next[peer]);
}

static void on_down(void *user, node_id peer, const char *why)
{
        struct node *node = user;
        assert_true(node->peer_up[peer]);
        node->peer_up[peer] = false;
        node->downs++;
        snprintf(node->why, sizeof node->why, "%s", why);
}

static void on_message(void *user, node_id peer, enum world_class class, struct bytes data)
{
        struct node *node = user;
        uint32_t number = 0;
        assert_true(node->peer_up[peer]);
        if (data.len >= sizeof number)
                memcpy(&number, data.ptr, sizeof number);
        node->disorder = node->disorder || number != node->next[peer][class]++;
        node->messages++;
        node->bytes += data.len;
        node->len_last = data.len;
        if (node->class_count < LOG_SIZE)
                node->classes[node->class_count++] = "CDTB"[class];
}

static void on_rtt(void *user, node_id peer, uint64_t rtt_us)
{
        struct node *node = user;
        assert_true(node->peer_up[peer]);
        node->rtts++;
        node->rtt_us_last = rtt_us;
}

static void on_drained(void *user, node_id peer, enum world_class class)
{
        struct node *node = user;
        (void)peer;
        (void)class;
        node->drained++;
}

static void on_refused(void *user, const char *who, const char *why)
{
        struct node *node = user;
        node->refusals++;
        snprintf(node->why, sizeof node->why, "%s: %s", who, why);
}

/* ---- the mesh ---- */

static struct link_peer peer_of(node_id id)
{
        static char hosts[NODES + 1][16];
        snprintf(hosts[id], sizeof hosts[id], "127.97.0.%u", (unsigned)id);
        return (struct link_peer){id, regions[id], hosts[id], PORT};
}

static enum err node_open_as(node_id id, const char *pki_dir, struct pki_error *error)
{
        struct node *node = &nodes[id];
        struct link_peer peers[NODES], self = peer_of(id);
        char ca[256], cert[256], key[256];
        size_t count = 0;
        memset(node, 0, sizeof *node);
        node->id = id;
        snprintf(ca, sizeof ca, "%s/%s/ca.crt", root, pki_dir);
        snprintf(cert, sizeof cert, "%s/%s/node.crt", root, pki_dir);
        snprintf(key, sizeof key, "%s/%s/node.key", root, pki_dir);
        for (node_id other = 1; other <= NODES; other++) {
                if (other != id)
                        peers[count++] = peer_of(other);
        }
        struct link_config config = {
                .heap = &heap,
                .self = id,
                .cluster = "test",
                .region = regions[id],
                .host = self.host,
                .port = PORT,
                .files = {ca, cert, key, NULL},
                .peers = peers,
                .peer_count = count,
                .seed = 97 + id,
                .allow_impairments = true,
                .ping_ms = 50,
                .dead_ms = 1000,
                .handshake_ms = 2000,
                .reconnect_ms_min = 20,
                .reconnect_ms_max = 100,
        };
        struct link_callbacks callbacks = {node,   on_up,      on_down,   on_message,
                                           on_rtt, on_drained, on_refused};
        return link_new(&loop, &config, &callbacks, &node->link, error);
}

static void node_open(node_id id)
{
        static const char *const dirs[NODES + 1] = {"", "n1", "n2", "n3"};
        struct pki_error error;
        if (node_open_as(id, dirs[id], &error) != ERR_NONE)
                fail_msg("%s", error.text);
}

static void on_closed(void *user)
{
        struct node *node = user;
        node->closed = true;
}

static void on_tick(uv_timer_t *timer)
{
        (void)timer;
}

/* Turns the loop until `done` says so; false when the time is over. */
static bool run_until(bool (*done)(void))
{
        uv_timer_t timer;
        uint64_t end = uv_hrtime() + (uint64_t)WAIT_MS * 1000000;
        uv_timer_init(&loop, &timer);
        uv_timer_start(&timer, on_tick, 1, 5);
        bool reached = done();
        while (!reached && uv_hrtime() < end) {
                uv_run(&loop, UV_RUN_ONCE);
                reached = done();
        }
        uv_close((uv_handle_t *)&timer, NULL);
        uv_run(&loop, UV_RUN_NOWAIT);
        return reached;
}

static uint64_t pause_end;

static bool pause_over(void)
{
        return uv_hrtime() >= pause_end;
}

static void run_for(unsigned ms)
{
        pause_end = uv_hrtime() + (uint64_t)ms * 1000000;
        assert_true(run_until(pause_over));
}

static struct node *closing;

static bool closing_done(void)
{
        return closing->closed;
}

static void node_close(node_id id)
{
        closing = &nodes[id];
        if (closing->link == NULL)
                return;
        link_close(closing->link, on_closed, closing);
        assert_true(run_until(closing_done));
        link_free(closing->link);
        closing->link = NULL;
}

static bool pair_up(void)
{
        return nodes[1].peer_up[2] && nodes[2].peer_up[1];
}

static bool pair_down(void)
{
        return !nodes[1].peer_up[2] && !nodes[2].peer_up[1];
}

static bool all_up(void)
{
        return pair_up() && nodes[1].peer_up[3] && nodes[3].peer_up[1] && nodes[2].peer_up[3] &&
               nodes[3].peer_up[2];
}

static void pair_open(void)
{
        node_open(1);
        node_open(2);
        assert_true(run_until(pair_up));
}

/* A message that carries its number. */
static enum err send_numbered(node_id from, node_id to, enum world_class class, uint32_t number,
                              size_t len)
{
        uint8_t *body = calloc(1, len);
        assert_non_null(body);
        memcpy(body, &number, len < sizeof number ? len : sizeof number);
        enum err err = link_send(nodes[from].link, to, class, bytes_of(body, len));
        free(body);
        return err;
}

static int test_teardown(void **state)
{
        (void)state;
        for (node_id id = 1; id <= NODES; id++)
                node_close(id);
        /* Whatever a test did, nothing is left. */
        return heap.used_bytes == 0 ? 0 : -1;
}

/* ---- exchange ---- */

static bool messages_all(void)
{
        unsigned all = 200 * WORLD_CLASS_COUNT;
        return nodes[1].messages == all && nodes[2].messages == all && nodes[3].messages == all;
}

static void test_exchange(void **state)
{
        (void)state;
        for (node_id id = 1; id <= NODES; id++)
                node_open(id);
        assert_true(run_until(all_up));
        for (uint32_t i = 0; i < 100; i++) {
                for (unsigned pair = 0; pair < 9; pair++) {
                        node_id from = pair / 3 + 1, to = pair % 3 + 1;
                        for (unsigned c = 0; from != to && c < WORLD_CLASS_COUNT; c++)
                                assert_int_equal(
                                        send_numbered(from, to, (enum world_class)c, i, 4 + i * 37),
                                        ERR_NONE);
                }
        }
        assert_true(run_until(messages_all));
        for (node_id id = 1; id <= NODES; id++)
                assert_false(nodes[id].disorder);
        struct link_status status;
        assert_int_equal(link_status_get(nodes[1].link, 2, &status), ERR_NONE);
        assert_true(status.up);
        assert_int_equal(status.connections, 1);
        assert_int_equal(link_status_get(nodes[1].link, 9, &status), ERR_NOT_FOUND);
}

static bool rtt_known(void)
{
        return nodes[1].rtts >= 3 && nodes[2].rtts >= 3;
}

static void test_round_trips(void **state)
{
        (void)state;
        pair_open();
        assert_true(run_until(rtt_known));
}

static bool messages_sizes(void)
{
        return nodes[2].messages == 4;
}

static void test_sizes(void **state)
{
        (void)state;
        pair_open();
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_CONTROL, 0, 1), ERR_NONE);
        assert_int_equal(link_send(nodes[1].link, 2, WORLD_CLASS_BULK, bytes_of(NULL, 0)),
                         ERR_NONE);
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_DATA, 0, LINK_MESSAGE_DATA), ERR_NONE);
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_DATA, 1, LINK_MESSAGE_DATA + 1),
                         ERR_INVALID);
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_CONTROL, 1, LINK_MESSAGE_CONTROL),
                         ERR_NONE);
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_CONTROL, 1, LINK_MESSAGE_CONTROL + 1),
                         ERR_INVALID);
        assert_int_equal(send_numbered(1, 9, WORLD_CLASS_DATA, 1, 1), ERR_INVALID);
        assert_int_equal(send_numbered(1, 3, WORLD_CLASS_DATA, 1, 1), ERR_CLOSED);
        assert_true(run_until(messages_sizes));
        assert_false(nodes[2].disorder);
        assert_int_equal(nodes[2].bytes, 1 + LINK_MESSAGE_DATA + LINK_MESSAGE_CONTROL);
}

static bool drained(void)
{
        return nodes[1].drained > 0;
}

static void test_room(void **state)
{
        (void)state;
        pair_open();
        assert_int_equal(link_room(nodes[1].link, 2, WORLD_CLASS_BULK), LINK_MESSAGE_BULK);
        enum err err = ERR_NONE;
        uint32_t sent = 0;
        for (; err == ERR_NONE && sent < 100; sent++)
                err = send_numbered(1, 2, WORLD_CLASS_BULK, sent, 1 << 20);
        assert_int_equal(err, ERR_LIMIT);
        assert_in_range(sent, 30, 33);
        assert_true(link_room(nodes[1].link, 2, WORLD_CLASS_BULK) < 1 << 20);
        assert_int_equal(link_room(nodes[1].link, 3, WORLD_CLASS_BULK), 0);
        assert_true(run_until(drained));
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_BULK, sent - 1, 1 << 20), ERR_NONE);
}

/* ---- priority ---- */

#define URGENT 20

static bool bulk_done(void)
{
        return nodes[2].messages == 64 + URGENT;
}

static bool bulk_begun(void)
{
        return nodes[2].messages >= 3;
}

/* 64 MiB of BULK (in messages of 1 MiB, half of it queued at once) are under way when urgent
 * messages are sent. They pass all that is still in queues: what arrives before them is only what
 * was already in the socket, which is less than one bulk message and the socket buffers' few. */
static void test_priority(void **state)
{
        (void)state;
        pair_open();
        uint32_t sent = 0, urgent = 0;
        while (link_room(nodes[1].link, 2, WORLD_CLASS_BULK) > 1 << 20)
                assert_int_equal(send_numbered(1, 2, WORLD_CLASS_BULK, sent++, 1 << 20), ERR_NONE);
        assert_true(run_until(bulk_begun));
        while (!bulk_done()) {
                unsigned before = nodes[2].messages;
                if (urgent < URGENT)
                        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_CONTROL, urgent++, 100),
                                         ERR_NONE);
                while (sent < 64 && link_room(nodes[1].link, 2, WORLD_CLASS_BULK) > 1 << 20)
                        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_BULK, sent++, 1 << 20),
                                         ERR_NONE);
                while (nodes[2].messages == before)
                        uv_run(&loop, UV_RUN_ONCE);
        }
        assert_false(nodes[2].disorder);
        /* Where the i-th urgent message arrived: it was sent after about i others had come. */
        unsigned seen = 0;
        for (size_t at = 0; at < nodes[2].class_count; at++) {
                if (nodes[2].classes[at] != 'C')
                        continue;
                assert_true(at <= 3 + (size_t)seen * 3 + 8);
                seen++;
        }
        assert_int_equal(seen, URGENT);
        assert_int_equal(nodes[2].classes[nodes[2].class_count - 1], 'B');
}

/* All queued in one turn, the least urgent first: they leave in the order of urgency, and the two
 * that are equals take turns. */
static bool all_classes(void)
{
        return nodes[2].messages == 40;
}

static void test_priority_in_one_turn(void **state)
{
        (void)state;
        pair_open();
        for (int class = WORLD_CLASS_BULK; class >= WORLD_CLASS_CONTROL; class --) {
                for (uint32_t i = 0; i < 10; i++)
                        assert_int_equal(send_numbered(1, 2, (enum world_class) class, i, 100000),
                                         ERR_NONE);
        }
        assert_true(run_until(all_classes));
        assert_memory_equal(nodes[2].classes, "CCCCCCCCCCDDDDDDDDDD", 20);
        unsigned first_half[2] = {0};
        for (size_t at = 20; at < 30; at++)
                first_half[nodes[2].classes[at] == 'T']++;
        assert_true(first_half[0] >= 3 && first_half[1] >= 3);
}

/* ---- breaking and coming back ---- */

static bool pair_up_twice(void)
{
        return pair_up() && nodes[1].ups == 2 && nodes[2].ups == 2;
}

static void test_drop_and_return(void **state)
{
        (void)state;
        pair_open();
        link_drop(nodes[2].link, 1, "because the test says so");
        assert_int_equal(send_numbered(2, 1, WORLD_CLASS_DATA, 0, 4), ERR_CLOSED);
        assert_true(run_until(pair_up_twice));
        assert_int_equal(nodes[1].downs, 1);
        assert_int_equal(nodes[2].downs, 1);
        assert_string_equal(nodes[2].why, "because the test says so");
}

static bool first_alone(void)
{
        return !nodes[1].peer_up[2];
}

static void test_restart(void **state)
{
        (void)state;
        pair_open();
        node_close(2);
        assert_true(run_until(first_alone));
        node_open(2);
        assert_true(run_until(pair_up));
        assert_int_equal(nodes[1].ups, 2);
}

static void test_peer_leaves_and_comes(void **state)
{
        (void)state;
        pair_open();
        struct link_peer three = peer_of(3), both[2] = {peer_of(2), three};
        assert_int_equal(link_set_peers(nodes[1].link, &three, 1), ERR_NONE);
        assert_true(run_until(pair_down));
        assert_int_equal(send_numbered(1, 2, WORLD_CLASS_DATA, 0, 4), ERR_INVALID);
        run_for(100);
        assert_true(pair_down());
        assert_int_equal(link_set_peers(nodes[1].link, both, 2), ERR_NONE);
        assert_true(run_until(pair_up));
        struct link_peer bad = {1, "us-east", "127.97.0.1", PORT};
        assert_int_equal(link_set_peers(nodes[1].link, &bad, 1), ERR_INVALID);
        bad = (struct link_peer){4, "us-east", "somewhere", PORT};
        assert_int_equal(link_set_peers(nodes[1].link, &bad, 1), ERR_INVALID);
        assert_true(pair_up());
}

/* ---- impairments ---- */

static bool slow_rtt(void)
{
        return nodes[1].rtt_us_last > 100000;
}

static bool ten_messages(void)
{
        return nodes[2].messages == 10;
}

static void test_delay(void **state)
{
        (void)state;
        pair_open();
        struct link_impairment slow = {.delay_us = 50000}, cut = {.cut = true}, none = {0};
        assert_int_equal(link_impair(nodes[1].link, 2, &slow), ERR_NONE);
        assert_int_equal(link_impair(nodes[2].link, 1, &slow), ERR_NONE);
        assert_true(run_until(slow_rtt));
        assert_true(nodes[1].rtt_us_last < 1000000);
        for (uint32_t i = 0; i < 10; i++)
                assert_int_equal(send_numbered(1, 2, WORLD_CLASS_DATA, i, 3000), ERR_NONE);
        assert_int_equal(link_impair(nodes[1].link, 2, &none), ERR_NONE);
        assert_true(run_until(ten_messages));
        assert_false(nodes[2].disorder);
        assert_int_equal(link_impair(nodes[1].link, 7, &slow), ERR_NOT_FOUND);
        slow.loss_per_mille = 1001;
        assert_int_equal(link_impair(nodes[1].link, 2, &slow), ERR_INVALID);
        assert_int_equal(link_impair(nodes[2].link, 1, &cut), ERR_NONE);
        assert_true(run_until(pair_down));
        run_for(300);
        assert_true(pair_down());
        assert_int_equal(link_impair(nodes[2].link, 1, &none), ERR_NONE);
        assert_true(run_until(pair_up));
}

static bool messages_200(void)
{
        return nodes[2].messages == 200;
}

static void test_loss_keeps_order(void **state)
{
        (void)state;
        pair_open();
        struct link_impairment lossy = {.delay_us = 2000, .loss_per_mille = 20};
        assert_int_equal(link_impair(nodes[1].link, 2, &lossy), ERR_NONE);
        for (uint32_t i = 0; i < 200; i++) {
                assert_int_equal(send_numbered(1, 2, WORLD_CLASS_CONTROL, i, 200), ERR_NONE);
                run_for(1);
        }
        assert_true(run_until(messages_200));
        assert_false(nodes[2].disorder);
        assert_int_equal(nodes[2].downs, 0);
}

/* All segments lost: the peer does not answer, and is dropped. */
static void test_dead_peer(void **state)
{
        (void)state;
        pair_open();
        struct link_impairment lost = {.loss_per_mille = 1000};
        assert_int_equal(link_impair(nodes[1].link, 2, &lost), ERR_NONE);
        assert_true(run_until(pair_down));
        /* Who notices first says so; the other one sees the end of the connection. */
        assert_true(strstr(nodes[1].why, "no answer") != NULL ||
                    strstr(nodes[2].why, "no answer") != NULL);
}

/* ---- strangers ---- */

struct stranger {
        const char *dir; /* of its certificate; NULL: plain TCP */
        int tls_max;     /* TLS version */
        const char *alpn;
        const char *send;
        size_t send_len;
        /* What came of it. */
        bool done;
        bool shaken;
        size_t got_plain;   /* bytes of application data */
        size_t got_network; /* bytes, for plain TCP */
};

static int stranger_connect(void)
{
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
        struct timeval patience = {.tv_sec = 6};
        inet_pton(AF_INET, "127.97.0.2", &to.sin_addr);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (connect(fd, (const struct sockaddr *)&to, sizeof to) == 0)
                return fd;
        close(fd);
        return -1;
}

static void stranger_plain(struct stranger *stranger, int fd)
{
        uint8_t got[4096];
        ssize_t len = send(fd, stranger->send, stranger->send_len, MSG_NOSIGNAL);
        while (len > 0) {
                len = recv(fd, got, sizeof got, 0);
                stranger->got_network += len > 0 ? (size_t)len : 0;
        }
}

static SSL_CTX *stranger_context(const struct stranger *stranger)
{
        char path[256];
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_max_proto_version(context, stranger->tls_max);
        if (stranger->alpn != NULL)
                SSL_CTX_set_alpn_protos(context, (const uint8_t *)stranger->alpn,
                                        (unsigned)strlen(stranger->alpn));
        if (stranger->dir[0] == '\0')
                return context;
        snprintf(path, sizeof path, "%s/%s/node.crt", root, stranger->dir);
        SSL_CTX_use_certificate_file(context, path, SSL_FILETYPE_PEM);
        snprintf(path, sizeof path, "%s/%s/node.key", root, stranger->dir);
        SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM);
        return context;
}

static void stranger_tls(struct stranger *stranger, int fd)
{
        uint8_t got[4096];
        size_t len;
        SSL_CTX *context = stranger_context(stranger);
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        stranger->shaken = SSL_connect(ssl) == 1;
        if (stranger->shaken && stranger->send != NULL)
                SSL_write_ex(ssl, stranger->send, stranger->send_len, &len);
        while (stranger->shaken && SSL_read_ex(ssl, got, sizeof got, &len) == 1)
                stranger->got_plain += len;
        SSL_free(ssl);
        SSL_CTX_free(context);
}

static void stranger_run(void *argument)
{
        struct stranger *stranger = argument;
        int fd = stranger_connect();
        if (fd >= 0 && stranger->dir == NULL)
                stranger_plain(stranger, fd);
        else if (fd >= 0)
                stranger_tls(stranger, fd);
        close(fd);
        __atomic_store_n(&stranger->done, true, __ATOMIC_RELEASE);
}

static struct stranger *visiting;

static bool stranger_done(void)
{
        return __atomic_load_n(&visiting->done, __ATOMIC_ACQUIRE);
}

static bool stranger_refused(void)
{
        return nodes[2].refusals > 0;
}

/* Lets a stranger try while the pair works; says afterwards that the pair did not notice. */
static void visit(struct stranger *stranger, const char *why_part)
{
        uv_thread_t thread;
        visiting = stranger;
        nodes[2].refusals = 0;
        assert_int_equal(uv_thread_create(&thread, stranger_run, stranger), 0);
        bool finished = run_until(stranger_done);
        uv_thread_join(&thread);
        assert_true(finished);
        /* Only ten refusals a second are told. */
        assert_true(why_part == NULL || run_until(stranger_refused));
        if (why_part != NULL && strstr(nodes[2].why, why_part) == NULL)
                fail_msg("expected '%s' in '%s'", why_part, nodes[2].why);
        assert_int_equal(stranger->got_plain, 0);
        assert_true(pair_up());
        assert_int_equal(nodes[1].ups, 1);
}

#define H2 "\x02h2"

static void test_strangers(void **state)
{
        (void)state;
        static struct {
                struct stranger stranger;
                const char *why;
        } rows[] = {
                {{"other", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0},
                 "unable to get local issuer certificate"},
                {{"expired", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0}, "certificate has expired"},
                {{"future", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0},
                 "certificate is not yet valid"},
                {{"", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0},
                 "peer did not return a certificate"},
                {{"unknown", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0},
                 "no such node in the topology"},
                {{"moved", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0}, "another region"},
                {{"n3", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0}, "must be dialled from here"},
                {{"n2", TLS1_3_VERSION, H2, NULL, 0, 0, 0, 0, 0}, "no such node"},
                {{"n1", TLS1_2_VERSION, H2, NULL, 0, 0, 0, 0, 0}, "unsupported protocol"},
                {{"n1", TLS1_3_VERSION, "\x08http/1.1", NULL, 0, 0, 0, 0, 0},
                 "no application protocol"},
                {{"n1", TLS1_3_VERSION, NULL, NULL, 0, 0, 0, 0, 0}, "does not speak HTTP/2"},
                {{NULL, 0, NULL, "GET / HTTP/1.1\r\n\r\n", 18, 0, 0, 0, 0}, "http request"},
                {{NULL, 0, NULL, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, 0, 0, 0, 0},
                 "TLS handshake failed"},
        };
        pair_open();
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                run_for(110);
                visit(&rows[i].stranger, rows[i].why);
        }
}

/* Random bytes instead of TLS: an error each time, the peers go on. */
static void test_noise(void **state)
{
        (void)state;
        struct rng rng;
        char noise[600];
        rng_init(&rng, 99, 0);
        pair_open();
        for (unsigned round = 0; round < 30; round++) {
                for (size_t i = 0; i < sizeof noise; i++)
                        noise[i] = (char)rng_next(&rng);
                noise[0] = round % 2 == 0 ? 0x16 : noise[0]; /* looks like a handshake */
                noise[1] = 3;
                noise[2] = 1;
                noise[3] = 0;
                noise[4] = 100;
                struct stranger stranger = {.send = noise, .send_len = sizeof noise};
                visit(&stranger, NULL);
        }
}

/* Says nothing: it is put out after the time allowed. */
static void test_silence(void **state)
{
        (void)state;
        pair_open();
        struct stranger stranger = {.send = "\x16", .send_len = 1};
        visit(&stranger, "no connection within 2000 ms");
        assert_int_equal(stranger.got_network, 0);
}

static bool second_down(void)
{
        return nodes[2].downs > 0;
}

/* One with the certificate of node 1 that speaks nonsense instead of HTTP/2: it takes the
 * place of the real one for a moment, gets no message, and is put out with the reason;
 * the real one comes back. */
static void test_garbage_http2(void **state)
{
        (void)state;
        uv_thread_t thread;
        struct stranger stranger = {.dir = "n1",
                                    .tls_max = TLS1_3_VERSION,
                                    .alpn = H2,
                                    .send = "this is no HTTP/2 at all, sorry",
                                    .send_len = 31};
        pair_open();
        visiting = &stranger;
        assert_int_equal(uv_thread_create(&thread, stranger_run, &stranger), 0);
        bool finished = run_until(stranger_done);
        uv_thread_join(&thread);
        assert_true(finished);
        assert_true(run_until(second_down));
        assert_true(run_until(pair_up));
        struct link_status status;
        assert_int_equal(link_status_get(nodes[2].link, 1, &status), ERR_NONE);
        assert_int_equal(nodes[2].messages, 0);
        /* SETTINGS, the window and GOAWAY are all that it may get. */
        assert_true(stranger.got_plain < 200);
}

/* ---- wrong from our side ---- */

static void test_server_with_wrong_certificate(void **state)
{
        (void)state;
        struct pki_error error;
        node_open(1);
        assert_int_equal(node_open_as(2, "n3", &error), ERR_INVALID);
        assert_non_null(strstr(error.text, "meridian://test/ap-southeast/3"));
        assert_non_null(strstr(error.text, "meridian://test/eu-west/2"));
        uv_run(&loop, UV_RUN_NOWAIT);
        nodes[2].link = NULL;
}

/* Node 2 has a sound certificate of another authority: node 1 must not talk to it. */
static void test_server_of_other_authority(void **state)
{
        (void)state;
        struct pki_error error;
        struct link_status status;
        node_open(1);
        assert_int_equal(node_open_as(2, "alien", &error), ERR_NONE);
        run_for(400);
        assert_int_equal(nodes[1].ups, 0);
        assert_int_equal(nodes[2].ups, 0);
        assert_int_equal(link_status_get(nodes[1].link, 2, &status), ERR_NONE);
        assert_non_null(strstr(status.why, "certificate"));
}

static void test_port_in_use(void **state)
{
        (void)state;
        struct pki_error error;
        struct node first;
        node_open(1);
        first = nodes[1];
        assert_int_equal(node_open_as(1, "n1", &error), ERR_EXISTS);
        assert_non_null(strstr(error.text, "127.97.0.1 port 7401"));
        assert_non_null(strstr(error.text, "ss -ltnp"));
        for (unsigned i = 0; i < 5; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
        nodes[1].link = first.link;
}

/* ---- certificates ---- */

static bool issue(const char *ca, const char *dir, const char *region, uint32_t id,
                  struct pki_validity validity)
{
        struct pki_identity identity;
        struct pki_error error;
        if (pki_identity_set(&identity, "test", region, id) != ERR_NONE)
                return false;
        enum err err = pki_node_issue(in_root(ca), in_root(dir), &identity, validity, &error);
        if (err != ERR_NONE)
                fprintf(stderr, "%s\n", error.text);
        return err == ERR_NONE;
}

static int setup(void **state)
{
        (void)state;
        static const struct pki_validity year = {-3600, (int64_t)365 * 86400};
        static const struct pki_validity past = {-7200, -3600}, future = {3600, 7200};
        struct pki_error error;
        heap_init(&heap, 0);
        snprintf(root, sizeof root, "/tmp/meridian-link-XXXXXX");
        if (uv_loop_init(&loop) != 0 || mkdtemp(root) == NULL)
                return -1;
        bool made = pki_ca_make(in_root("ca"), "test", year, &error) == ERR_NONE &&
                    pki_ca_make(in_root("ca2"), "test", year, &error) == ERR_NONE &&
                    issue("ca", "n1", regions[1], 1, year) &&
                    issue("ca", "n2", regions[2], 2, year) &&
                    issue("ca", "n3", regions[3], 3, year) &&
                    issue("ca2", "other", regions[1], 1, year) &&
                    issue("ca2", "alien", regions[2], 2, year) &&
                    issue("ca", "expired", regions[1], 1, past) &&
                    issue("ca", "future", regions[1], 1, future) &&
                    issue("ca", "unknown", regions[1], 77, year) &&
                    issue("ca", "moved", regions[3], 1, year);
        return made ? 0 : -1;
}

static int teardown(void **state)
{
        (void)state;
        char command[128];
        snprintf(command, sizeof command, "rm -rf '%s'", root);
        int removed = system(command); /* NOLINT(cert-env33-c): our own folder */
        return uv_loop_close(&loop) == 0 ? removed : -1;
}

#define LINK_TEST(f) cmocka_unit_test_teardown(f, test_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                LINK_TEST(test_exchange),
                LINK_TEST(test_round_trips),
                LINK_TEST(test_sizes),
                LINK_TEST(test_room),
                LINK_TEST(test_priority),
                LINK_TEST(test_priority_in_one_turn),
                LINK_TEST(test_drop_and_return),
                LINK_TEST(test_restart),
                LINK_TEST(test_peer_leaves_and_comes),
                LINK_TEST(test_delay),
                LINK_TEST(test_loss_keeps_order),
                LINK_TEST(test_dead_peer),
                LINK_TEST(test_strangers),
                LINK_TEST(test_noise),
                LINK_TEST(test_silence),
                LINK_TEST(test_garbage_http2),
                LINK_TEST(test_server_with_wrong_certificate),
                LINK_TEST(test_server_of_other_authority),
                LINK_TEST(test_port_in_use),
        };
        signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests_name("link", tests, setup, teardown);
}
