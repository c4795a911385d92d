/* The lock library against doors that lie, are silent, break off or are not there. It must never be
 * sure of what nobody granted, hang, or leak; and it finds the one honest node among them.
 *
 * Nothing here depends on how fast the machine is: what is asserted holds whenever it is looked at.
 * A lock that is kept may be lost on a machine that stands still; that is tried again with a longer
 * lease. */
#include "holder/holder_priv.h"
#include "holder/wait.h"
#include "liar.h"

#include "../cmocka_all.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
        NODES_MAX = 8,
        ENDED_S = 60, /* a test that hangs is ended */
        LONG_MS = 600000,
};

#define GRANT "*2\r\n:7\r\n:600000\r\n"

static const struct liar_act honest[] = {
        {.to = "LOCK.ACQUIRE", .say = GRANT},
        {.to = "LOCK.RENEW", .say = ":600000\r\n"},
        {.to = "LOCK.RELEASE", .say = ":1\r\n"},
        {.to = "PING", .say = "+PONG\r\n"},
        {0},
};

/* ---- faults of the process: the n-th call from now fails ---- */

static _Atomic int fail_in; /* 0: none */
static _Atomic bool names_hang;

static bool fails(void)
{
        return fail_in > 0 && --fail_in == 0;
}

#define WRAP(type, failure, name, params, ...)                                                     \
        type __real_##name params;                                                                 \
        type __wrap_##name params;                                                                 \
        type __wrap_##name params                                                                  \
        {                                                                                          \
                if (fails()) {                                                                     \
                        errno = ENOMEM;                                                            \
                        return failure;                                                            \
                }                                                                                  \
                return __real_##name(__VA_ARGS__);                                                 \
        }

WRAP(void *, NULL, calloc, (size_t count, size_t size), count, size)
WRAP(char *, NULL, strdup, (const char *text), text)
WRAP(char *, NULL, strndup, (const char *text, size_t len), text, len)
WRAP(int, -1, eventfd, (unsigned value, int flags), value, flags)
WRAP(int, -1, socket, (int family, int type, int protocol), family, type, protocol)
WRAP(int, EAGAIN, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument),
     thread, attributes, run, argument)

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret);

/* A name server that does not answer, and one that knows "node". */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret)
{
        bool asks = (hints->ai_flags & AI_NUMERICHOST) == 0;
        while (asks && names_hang)
                usleep(1000);
        if (asks && strcmp(host, "node") == 0)
                host = "127.0.0.1";
        return __real_getaddrinfo(host, port, hints, ret);
}

/* ---- asking ---- */

/* A node that is silent is passed over early; one that is honest has time, unless nobody is. */
static void patient(bool honest_ones)
{
        uint64_t long_us = honest_ones ? 30000000 : 30000;
        holder_times = (struct holder_times){.ask_us = long_us,
                                             .dial_us = 200000,
                                             .slack_us = long_us,
                                             .pause_us = 5000,
                                             .probe_us = 50000,
                                             .look_us = 100000,
                                             .release_us = 30000000};
}

struct news {
        _Atomic unsigned told[MERIDIAN_LOCK_LOST + 1];
        struct meridian_lock *_Atomic release; /* by the news, wrongly */
        _Atomic int released;
};

static void on_news(void *context, enum meridian_lock_news what)
{
        struct news *news = context;
        struct meridian_lock *lock = news->release;
        if (lock != NULL)
                news->released = meridian_lock_release(lock) ? 1 : 2;
        news->told[what]++;
}

static enum meridian_lock_status ask_nodes(const char *const *nodes, size_t count, unsigned ttl_ms,
                                           unsigned wait_ms, struct news *news,
                                           struct meridian_lock **ret)
{
        char why[256] = "";
        struct meridian_lock_options options = {.nodes = nodes,
                                                .node_count = count,
                                                .ttl_ms = ttl_ms,
                                                .wait_ms = wait_ms,
                                                .news = news == NULL ? NULL : on_news,
                                                .context = news};
        enum meridian_lock_status status =
                meridian_lock_acquire(&options, "us-east:key", ret, why, sizeof why);
        if (status != MERIDIAN_LOCK_OK) {
                assert_null(*ret);
                assert_true(why[0] != '\0');
        }
        return status;
}

static enum meridian_lock_status ask(const struct liar *liar, unsigned ttl_ms,
                                     struct meridian_lock **ret)
{
        const char *nodes[] = {liar->node};
        return ask_nodes(nodes, 1, ttl_ms, 0, NULL, ret);
}

/* ---- answers to the question for a lock ---- */

static const struct row {
        const char *say;
        unsigned flags;
        enum meridian_lock_status status;
} rows[] = {
        {GRANT, 0, MERIDIAN_LOCK_OK},
        {GRANT, LIAR_DRIPS, MERIDIAN_LOCK_OK},
        {"*2\r\n:7\r\n:9223372036854775807\r\n", 0, MERIDIAN_LOCK_OK}, /* a lease as asked for */
        {"*2\r\n:0\r\n:600000\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"*2\r\n:7\r\n:0\r\n", 0, MERIDIAN_LOCK_UNREACHABLE}, /* it has ended already */
        {"*2\r\n:-7\r\n:600000\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"*2\r\n$1\r\n7\r\n$4\r\n1000\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"*3\r\n:7\r\n:600000\r\n:1\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"*99999999999999999999\r\n:7\r\n:600000\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"$99999999999999999999\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {GRANT ":600000\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {GRANT GRANT, 0, MERIDIAN_LOCK_UNREACHABLE},
        {":1\r\n", 0, MERIDIAN_LOCK_UNREACHABLE}, /* of a release */
        {"+OK\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"", LIAR_CLOSES, MERIDIAN_LOCK_UNREACHABLE},
        {NULL, 0, MERIDIAN_LOCK_UNREACHABLE},
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"-NOMAJORITY there is none\r\n", 0, MERIDIAN_LOCK_UNREACHABLE},
        {"-BADREQUEST that is no key\r\n", 0, MERIDIAN_LOCK_REFUSED},
        {"*-1\r\n", 0, MERIDIAN_LOCK_HELD},
        {"$-1\r\n", 0, MERIDIAN_LOCK_HELD},
};

static void test_acquire_answers(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct liar_act acts[] = {
                        {.to = "LOCK.ACQUIRE", .say = rows[i].say, .flags = rows[i].flags},
                        {.to = "LOCK.RELEASE", .say = ":1\r\n"},
                        {0}};
                struct liar liar;
                struct meridian_lock *lock;
                print_message("answer %zu\n", i);
                liar_begin(&liar, acts);
                patient(rows[i].status != MERIDIAN_LOCK_UNREACHABLE);
                assert_int_equal(ask(&liar, LONG_MS, &lock), rows[i].status);
                patient(true);
                if (lock != NULL) {
                        assert_true(meridian_lock_sure(lock));
                        assert_int_equal(meridian_lock_token(lock), 7);
                        assert_true(wait_now_us() + meridian_lock_left_ms(lock) * 1000ull <=
                                    liar.last_us + LONG_MS * 950ull + 1000);
                        assert_true(meridian_lock_release(lock));
                }
                liar_end(&liar);
        }
}

/* A grant that breaks off at any byte is none. */
static void test_acquire_torn(void **state)
{
        (void)state;
        patient(false);
        for (size_t len = 1; len < strlen(GRANT); len++) {
                struct liar_act acts[] = {
                        {.to = "LOCK", .say = GRANT, .say_bytes = len, .flags = LIAR_CLOSES}, {0}};
                struct liar liar;
                struct meridian_lock *lock;
                liar_begin(&liar, acts);
                assert_int_equal(ask(&liar, LONG_MS, &lock), MERIDIAN_LOCK_UNREACHABLE);
                liar_end(&liar);
        }
        patient(true);
}

/* ---- nodes that are not there ---- */

/* An address that takes no more connections, as behind a wall. */
struct wall {
        char node[32];
        int fds[8];
};

static void wall_begin(struct wall *wall)
{
        struct sockaddr_in address = {.sin_family = AF_INET};
        socklen_t len = sizeof address;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        wall->fds[0] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(wall->fds[0], (struct sockaddr *)&address, len), 0);
        assert_int_equal(listen(wall->fds[0], 0), 0);
        assert_int_equal(getsockname(wall->fds[0], (struct sockaddr *)&address, &len), 0);
        snprintf(wall->node, sizeof wall->node, "127.0.0.1:%d", ntohs(address.sin_port));
        for (size_t i = 1; i < 8; i++) {
                wall->fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
                (void)connect(wall->fds[i], (struct sockaddr *)&address, len);
        }
}

static void wall_end(struct wall *wall)
{
        for (size_t i = 0; i < 8; i++)
                close(wall->fds[i]);
}

/* Nobody there, a wall, one that stands still, one that lies, one without a majority; and a wait
 * that is longer than anybody would wait for these. */
static void test_dead_ones_first(void **state)
{
        static const struct liar_act silent[] = {{.to = "NOBODY", .say = ""}, {0}};
        static const struct liar_act foreign[] = {{.say = "220 mail.example\r\n"}, {0}};
        static const struct liar_act minority[] = {{.say = "-NOMAJORITY there is none\r\n"}, {0}};
        struct liar liars[4];
        struct wall wall;
        struct meridian_lock *lock;
        (void)state;
        liar_begin(&liars[0], silent);
        liar_begin(&liars[1], foreign);
        liar_begin(&liars[2], minority);
        liar_begin(&liars[3], honest);
        wall_begin(&wall);
        const char *nodes[] = {"127.0.0.1:1", wall.node,     liars[0].node,
                               liars[1].node, liars[2].node, liars[3].node};
        assert_int_equal(ask_nodes(nodes, 6, LONG_MS, LONG_MS, NULL, &lock), MERIDIAN_LOCK_OK);
        assert_true(meridian_lock_sure(lock));
        assert_true(meridian_lock_release(lock));
        for (size_t i = 0; i < 4; i++)
                liar_end(&liars[i]);
        wall_end(&wall);
}

/* A node that answers PING is waited for; its place in the queue is worth that. */
static void test_slow_is_not_dead(void **state)
{
        static const struct liar_act slow[] = {
                {.to = "PING", .say = "+PONG\r\n", .times = 3}, {.to = "NOBODY", .say = ""}, {0}};
        struct liar liars[2];
        struct meridian_lock *lock;
        (void)state;
        liar_begin(&liars[0], slow);
        liar_begin(&liars[1], honest);
        const char *nodes[] = {liars[0].node, liars[1].node};
        assert_int_equal(ask_nodes(nodes, 2, LONG_MS, LONG_MS, NULL, &lock), MERIDIAN_LOCK_OK);
        /* All of its PONGs were used, unless the machine was too slow for them to be seen. */
        assert_true(liars[0].used[0] >= 1);
        assert_int_equal(liars[0].acquires, 1);
        assert_true(meridian_lock_release(lock));
        liar_end(&liars[0]);
        liar_end(&liars[1]);
}

static void test_names_of_nodes(void **state)
{
        static const char *const wrong[] = {
                "", ":", ":7402", "host", "host:", "[:7402", "[:1", "[]:1", "[::1:7402", NULL,
        };
        struct meridian_lock *lock;
        (void)state;
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                const char *nodes[] = {"127.0.0.1:1", wrong[i]};
                assert_int_equal(ask_nodes(nodes, 2, LONG_MS, 0, NULL, &lock),
                                 MERIDIAN_LOCK_REFUSED);
        }
        assert_int_equal(ask_nodes(NULL, 0, LONG_MS, 0, NULL, &lock), MERIDIAN_LOCK_REFUSED);
}

/* A name server that does not answer stops neither the acquire, nor a lock that is held. */
static void test_name_server(void **state)
{
        struct liar liar;
        struct meridian_lock *lock;
        char name[32];
        (void)state;
        liar_begin(&liar, honest);
        snprintf(name, sizeof name, "node%s", strchr(liar.node, ':'));
        const char *nodes[] = {name, liar.node};
        assert_int_equal(ask_nodes(nodes, 1, LONG_MS, 0, NULL, &lock), MERIDIAN_LOCK_OK);
        names_hang = true;
        /* The connection is made again, by the address that is known. */
        keeper_end(lock);
        close(lock->door.fd);
        close(lock->wake_fd);
        lock->door.fd = -1;
        assert_true(keeper_begin(lock));
        assert_true(meridian_lock_release(lock));
        patient(false);
        assert_int_equal(ask_nodes(nodes, 1, LONG_MS, 0, NULL, &lock), MERIDIAN_LOCK_UNREACHABLE);
        patient(true);
        assert_int_equal(ask_nodes(nodes, 2, LONG_MS, 0, NULL, &lock), MERIDIAN_LOCK_OK);
        assert_true(meridian_lock_release(lock));
        names_hang = false;
        liar_end(&liar);
}

/* ---- keeping ---- */

static const char *const renewals[] = {
        NULL,
        "",
        ":-1\r\n",
        ":0\r\n",
        "*2\r\n:7\r\n:600000\r\n", /* of an acquire */
        ":600000\r\n:600000\r\n",  /* the next one's too */
        "+OK\r\n",
        "*-1\r\n",
        "$6\r\n600000\r\n",
        ":600000",
        "-NOMAJORITY there is none\r\n",
        "-NOTOWNER it is not yours\r\n",
};

enum {
        RENEWALS = sizeof renewals / sizeof renewals[0],
};

/* No such answer makes the lease longer by a moment: it ends, is told as lost, and stays so. */
static void test_renewal_answers(void **state)
{
        struct liar liars[RENEWALS];
        struct meridian_lock *locks[RENEWALS];
        struct news news[RENEWALS] = {0};
        size_t lost = 0;
        (void)state;
        for (size_t i = 0; i < RENEWALS; i++) {
                struct liar_act acts[] = {{.to = "LOCK.ACQUIRE", .say = "*2\r\n:7\r\n:400\r\n"},
                                          {.to = "LOCK.RENEW", .say = renewals[i]},
                                          {0}};
                if (renewals[i] != NULL && renewals[i][0] == '\0')
                        acts[1].flags = LIAR_CLOSES;
                liar_begin(&liars[i], acts);
                const char *nodes[] = {liars[i].node};
                if (ask_nodes(nodes, 1, 400, 0, &news[i], &locks[i]) != MERIDIAN_LOCK_OK)
                        news[i].told[MERIDIAN_LOCK_LOST] = 1; /* it took too long */
        }
        while (lost < RENEWALS) {
                lost = 0;
                for (size_t i = 0; i < RENEWALS; i++) {
                        uint64_t at_us = wait_now_us();
                        if (locks[i] != NULL && meridian_lock_sure(locks[i]))
                                assert_true(at_us < liars[i].last_us + 400 * 950);
                        lost += news[i].told[MERIDIAN_LOCK_LOST] != 0;
                }
                usleep(1000);
        }
        for (size_t i = 0; i < RENEWALS; i++) {
                assert_int_equal(news[i].told[MERIDIAN_LOCK_RENEWED], 0);
                assert_int_equal(news[i].told[MERIDIAN_LOCK_LOST], 1);
                assert_true(news[i].told[MERIDIAN_LOCK_DOUBTFUL] <= 1);
                if (locks[i] == NULL) {
                        liar_end(&liars[i]);
                        continue;
                }
                assert_false(meridian_lock_sure(locks[i]));
                assert_int_equal(meridian_lock_left_ms(locks[i]), 0);
                assert_false(meridian_lock_release(locks[i]));
                assert_int_equal(liars[i].releases, 0);
                liar_end(&liars[i]);
        }
}

/* One honest node behind three that are not: it is found in time. */
static bool is_kept(unsigned ttl_ms)
{
        static const struct liar_act grants[] = {
                {.to = "LOCK.ACQUIRE", .say = GRANT}, {.to = "LOCK.RENEW", .say = "+OK\r\n"}, {0}};
        static const struct liar_act silent[] = {{.to = "NOBODY", .say = ""}, {0}};
        static const struct liar_act minority[] = {{.say = "-NOMAJORITY there is none\r\n"}, {0}};
        struct liar liars[4];
        struct news news = {0};
        struct meridian_lock *lock;
        liar_begin(&liars[0], grants);
        liar_begin(&liars[1], minority);
        liar_begin(&liars[2], silent);
        liar_begin(&liars[3], honest);
        const char *nodes[] = {liars[0].node, liars[1].node, liars[2].node, liars[3].node};
        bool kept = ask_nodes(nodes, 4, ttl_ms, 0, &news, &lock) == MERIDIAN_LOCK_OK;
        while (kept && liars[3].renewals < 2 && news.told[MERIDIAN_LOCK_LOST] == 0)
                usleep(1000);
        kept = kept && news.told[MERIDIAN_LOCK_LOST] == 0;
        (void)meridian_lock_release(lock);
        for (size_t i = 0; i < 4; i++)
                liar_end(&liars[i]);
        return kept;
}

static void test_kept(void **state)
{
        (void)state;
        assert_true(is_kept(800) || is_kept(4000) || is_kept(20000));
}

/* ---- the program ---- */

static void test_fork(void **state)
{
        struct liar liar;
        struct meridian_lock *lock, *other;
        int status;
        (void)state;
        liar_begin(&liar, honest);
        assert_int_equal(ask(&liar, LONG_MS, &lock), MERIDIAN_LOCK_OK);
        pid_t child = fork();
        if (child == 0) {
                const char *nodes[] = {liar.node};
                struct meridian_lock_options options = {
                        .nodes = nodes, .node_count = 1, .ttl_ms = LONG_MS};
                int wrong = meridian_lock_sure(lock) || meridian_lock_left_ms(lock) != 0;
                wrong |= (meridian_lock_acquire(&options, "us-east:other", &other, NULL, 0) !=
                          MERIDIAN_LOCK_OK)
                         << 1;
                wrong |= (meridian_lock_sure(lock) || !meridian_lock_sure(other)) << 2;
                wrong |= meridian_lock_release(lock) << 3;
                wrong |= !meridian_lock_release(other) << 4;
                _exit(wrong);
        }
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_equal(liar.releases, 1); /* the child's own */
        assert_true(meridian_lock_sure(lock));
        assert_true(meridian_lock_release(lock));
        liar_end(&liar);
}

static void test_release_by_the_news(void **state)
{
        static const struct liar_act acts[] = {
                {.to = "LOCK.ACQUIRE", .say = "*2\r\n:7\r\n:300\r\n"},
                {.to = "LOCK.RENEW", .say = "-NOTOWNER no\r\n"},
                {0}};
        struct liar liar;
        struct news news = {0};
        struct meridian_lock *lock;
        (void)state;
        liar_begin(&liar, acts);
        const char *nodes[] = {liar.node};
        while (ask_nodes(nodes, 1, 300, 0, &news, &lock) != MERIDIAN_LOCK_OK)
                ; /* 300 ms had passed */
        news.release = lock;
        while (news.told[MERIDIAN_LOCK_LOST] == 0)
                usleep(1000);
        assert_true(news.released == 2 || news.released == 0); /* 0: it was lost before */
        assert_false(meridian_lock_release(lock));
        liar_end(&liar);
}

enum {
        MANY = 150,
};

static void test_many(void **state)
{
        static struct meridian_lock *locks[MANY];
        struct liar liar;
        (void)state;
        liar_begin(&liar, honest);
        for (size_t i = 0; i < MANY; i++)
                assert_int_equal(ask(&liar, LONG_MS, &locks[i]), MERIDIAN_LOCK_OK);
        for (size_t i = 0; i < MANY; i++)
                assert_true(meridian_lock_sure(locks[i]));
        for (size_t i = 0; i < MANY; i++)
                assert_true(meridian_lock_release(locks[i]));
        assert_int_equal(liar.releases, MANY);
        liar_end(&liar);
}

static void *take_and_give(void *argument)
{
        const struct liar *liar = argument;
        for (int i = 0; i < 10; i++) {
                struct meridian_lock *lock;
                if (ask(liar, LONG_MS, &lock) != MERIDIAN_LOCK_OK || !meridian_lock_sure(lock) ||
                    !meridian_lock_release(lock))
                        return argument;
        }
        return NULL;
}

static void test_threads(void **state)
{
        pthread_t threads[8];
        struct liar liar;
        void *wrong;
        (void)state;
        liar_begin(&liar, honest);
        for (size_t i = 0; i < 8; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &liar), 0);
        for (size_t i = 0; i < 8; i++) {
                assert_int_equal(pthread_join(threads[i], &wrong), 0);
                assert_null(wrong);
        }
        liar_end(&liar);
}

/* Each piece of memory, descriptor and thread fails once: no lock, or a good one, and no leak. */
static void test_failures(void **state)
{
        struct liar liar;
        (void)state;
        liar_begin(&liar, honest);
        for (int at = 1;; at++) {
                struct meridian_lock *lock;
                char name[32];
                snprintf(name, sizeof name, "node%s", strchr(liar.node, ':'));
                const char *nodes[] = {name};
                fail_in = at;
                enum meridian_lock_status status = ask_nodes(nodes, 1, LONG_MS, 0, NULL, &lock);
                bool all = fail_in > 0;
                fail_in = 0;
                if (status == MERIDIAN_LOCK_OK)
                        assert_true(meridian_lock_release(lock));
                else
                        assert_true(status == MERIDIAN_LOCK_NOMEM);
                if (all)
                        break;
        }
        assert_int_equal(liar.releases, liar.acquires); /* a grant that is not kept is given back */
        liar_end(&liar);
}

/* Whatever went wrong, each descriptor was closed; a search for a name ends a moment later. */
static size_t descriptors(void)
{
        size_t count = 0;
        for (int fd = 0; fd < 1024; fd++)
                count += fcntl(fd, F_GETFD) >= 0;
        return count;
}

static void test_no_descriptor_left(void **state)
{
        const size_t *before = *state;
        while (descriptors() != *before)
                usleep(1000); /* or the alarm */
}

int main(void)
{
        size_t before = descriptors();
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_acquire_answers),
                cmocka_unit_test(test_acquire_torn),
                cmocka_unit_test(test_dead_ones_first),
                cmocka_unit_test(test_slow_is_not_dead),
                cmocka_unit_test(test_names_of_nodes),
                cmocka_unit_test(test_name_server),
                cmocka_unit_test(test_renewal_answers),
                cmocka_unit_test(test_kept),
                cmocka_unit_test(test_fork),
                cmocka_unit_test(test_release_by_the_news),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_threads),
                cmocka_unit_test(test_failures),
                cmocka_unit_test_prestate(test_no_descriptor_left, &before),
        };
        patient(true);
        alarm(ENDED_S);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
