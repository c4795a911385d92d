/* The doors with a node that the test plays: what clients send becomes requests, answers come in
 * any order, clients leave, HTTP is asked. Real sockets on 127.98.0.1, one loop, no threads. */
#include "api/api.h"
#include "api/api_ask.h"
#include "base/buffer.h"
#include "council/request.h"
#include "kv/kv.h"
#include "node/status.h"
#include "primary/primary.h"
#include "topology/topology.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define HOST     "127.98.0.1"
#define SEEN_MAX 4096
#define USAGE                                                                                      \
        "key owner ttl-ms [WAIT ms] [SHARED | SLOTS n] [DELAY ms] [SESSION id] [DETECT] [FRESH] "  \
        "[ALSO key]..."
#define WATCH_USAGE "key [PREFIX] [COPY] [AFTER revision] [WAIT ms]"

struct world {
        uv_loop_t loop;
        uv_timer_t tick;
        struct api *api;
        struct node_status status;
        struct topology topology;
        struct heap heap;
        uint64_t numbers[SEEN_MAX];
        enum request_kind kinds[SEEN_MAX];
        uint32_t flags; /* of the last one about a lock */
        char keys[SEEN_MAX][32];
        size_t seen;
        size_t gone;
        bool at_once; /* answer from within the request */
        struct api_impairment impaired;
        uint64_t ticket; /* of the last verification */
        struct api_verify verify;
        bool closed;
};

static struct world world;

static void reply_send(uint64_t number, const struct reply *reply)
{
        struct buffer out;
        buffer_init(&out, &world.heap);
        reply_encode(reply, &out);
        assert_int_equal(out.err, ERR_NONE);
        api_reply(world.api, number, buffer_view(&out));
        buffer_fini(&out);
}

static void grant(uint64_t number, uint64_t token)
{
        struct reply reply = {.kind = REQUEST_LOCK_ACQUIRE, .code = REPLY_OK};
        reply.lock.key = BYTES("k");
        reply.lock.owner = BYTES("o");
        reply.lock.token = token;
        reply.lock.ttl_ms = 1000;
        reply_send(number, &reply);
}

static void host_request(void *context, uint64_t number, struct bytes data)
{
        struct request request;
        assert_ptr_equal(context, &world);
        assert_int_equal(request_decode(data, &request), ERR_NONE);
        assert_true(world.seen < SEEN_MAX);
        world.kinds[world.seen] = request.kind;
        if (request.kind <= REQUEST_LOCK_INFO)
                snprintf(world.keys[world.seen], sizeof world.keys[0], "%.*s",
                         BYTES_ARGS(request.lock.key));
        world.flags = request.lock.flags;
        world.numbers[world.seen++] = number;
        if (world.at_once)
                grant(number, world.seen);
}

static void host_gone(void *context, uint64_t number)
{
        (void)context;
        (void)number;
        world.gone++;
}

static const struct node_status *host_status(void *context)
{
        (void)context;
        return &world.status;
}

static const struct topology *host_topology(void *context)
{
        (void)context;
        return &world.topology;
}

static enum err host_impair(void *context, struct bytes region,
                            const struct api_impairment *impairment)
{
        (void)context;
        world.impaired = *impairment;
        return bytes_equal(region, BYTES("b")) ? ERR_NONE : ERR_NOT_FOUND;
}

static const char *host_verify(void *context, uint64_t ticket, const struct api_verify *ask)
{
        struct api_verified answer = {.shards = 3, .walk = 9, .keys = 5, .payload = BYTES("sums")};
        (void)context;
        if (ask->shard == 7)
                return "there is no such shard";
        world.ticket = ticket;
        world.verify = *ask;
        if (world.at_once)
                api_verified(world.api, ticket, &answer);
        return NULL;
}

static const char topology_text[] =
        "cluster = test\nepoch = 1\n"
        "region a { id = 1; latitude = 39; longitude = -77; a = [192.0.2.1]\n"
        "  node a-1 { id = 1; link = \"127.0.0.1:1\" } }\n"
        "region b { id = 2; latitude = 53; longitude = -6; a = [192.0.2.2]\n"
        "  node b-1 { id = 2; link = \"127.0.0.2:1\" } }\n"
        "zone example.test { name www { policy = nearest } }\n";

static void status_fill(struct node_status *status)
{
        static const char *const names[] = {"a", "b"};
        status->node = 1;
        status->region = 1;
        status->epoch = 7;
        status->majority = true;
        status->leader_known = true;
        status->leader_region = 2;
        status->region_count = 2;
        for (size_t i = 0; i < 2; i++) {
                struct node_status_region *region = &status->regions[i];
                region->id = (region_id)(i + 1);
                snprintf(region->name, sizeof region->name, "%s", names[i]);
                region->state = "active";
                region->routable = true;
                region->lag_count = 1;
                region->lags[0].origin = (region_id)(2 - i);
                region->lags[0].lag_us = 99999;
        }
        status->regions[0].rtt_known[1] = true;
        status->regions[0].rtt_us[1] = 70250;
        status->regions[0].lags[0].known = true;
        status->regions[0].redis_known = true;
        status->regions[0].redis_up = true;
}

static int setup(void **state)
{
        char why[256];
        struct topology_error error;
        (void)state;
        memset(&world, 0, sizeof world);
        heap_init(&world.heap, 0);
        uv_loop_init(&world.loop);
        status_fill(&world.status);
        if (!topology_parse(bytes_of_str(topology_text), &world.topology, &error)) {
                char text[600];
                fprintf(stderr, "%s\n", topology_error_text(&error, text, sizeof text));
                return -1;
        }
        struct api_config config = {
                .admin_host = HOST,
                .locks_host = HOST,
                .lab = true,
                .host = {&world, host_request, host_gone, host_status, host_topology, host_impair,
                         host_verify, NULL, NULL, NULL},
        };
        enum err err = api_new(&world.loop, &config, &world.api, why, sizeof why);
        if (err != ERR_NONE)
                fprintf(stderr, "%s\n", why);
        return err == ERR_NONE ? 0 : -1;
}

static void on_closed(void *context)
{
        ((struct world *)context)->closed = true;
}

static int teardown(void **state)
{
        (void)state;
        api_close(world.api, on_closed, &world);
        for (unsigned i = 0; i < 1000 && !world.closed; i++)
                uv_run(&world.loop, UV_RUN_ONCE);
        uv_run(&world.loop, UV_RUN_DEFAULT);
        return world.closed && uv_loop_close(&world.loop) == 0 && world.heap.used_bytes == 0 ? 0
                                                                                             : -1;
}

/* Turns the loop until nothing is left to do at once. */
static void turn(void)
{
        for (unsigned i = 0; i < 20; i++) {
                uv_run(&world.loop, UV_RUN_NOWAIT);
                usleep(200);
        }
}

static int dial(uint16_t port)
{
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, HOST, &name.sin_addr);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        turn();
        return fd;
}

static void say(int fd, const char *text)
{
        assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
        turn();
}

/* What has arrived, with NUL; "(closed)" at the end of the stream. */
static const char *hear(int fd)
{
        static char text[65536];
        turn();
        ssize_t len = read(fd, text, sizeof text - 1);
        if (len == 0)
                return "(closed)";
        if (len < 0)
                return errno == EAGAIN ? "" : "(closed)";
        text[len] = '\0';
        return text;
}

static void small_commands(void **state)
{
        static const struct {
                const char *say;
                const char *hear;
        } rows[] = {
                {"PING\r\n", "+PONG\r\n"},
                {"*2\r\n$4\r\nping\r\n$2\r\nhi\r\n", "$2\r\nhi\r\n"},
                {"ECHO x\r\n", "$1\r\nx\r\n"},
                {"SELECT 0\r\n", "+OK\r\n"},
                {"SELECT 1\r\n", "-ERR there is only database 0 here\r\n"},
                {"CLIENT SETINFO LIB-NAME x\r\n", "+OK\r\n"},
                {"CLIENT SETNAME me\r\nCLIENT GETNAME\r\n", "+OK\r\n$2\r\nme\r\n"},
                {"CLIENT KILL x\r\n", "-ERR unknown or wrong CLIENT sub-command 'KILL'\r\n"},
                {"AUTH x\r\n", "-ERR no password is set for this port: connect without AUTH\r\n"},
                {"SET global:k v\r\n",
                 "-ERR this port keeps locks, which end by themselves: SET key "
                 "value NX PX milliseconds\r\n"},
                {"SET global:k v NX NX PX 5\r\n",
                 "-ERR this port keeps locks, which end by "
                 "themselves: SET key value NX PX milliseconds\r\n"},
                {"SET global:k v NX PX -5\r\n",
                 "-ERR the time to live is not a number in range: write it in digits\r\n"},
                {"EVALSHA 00 1 global:k v\r\n",
                 "-NOSCRIPT No matching script. Please use EVAL.\r\n"},
                {"SCRIPT EXISTS 00 01\r\n", "*2\r\n:0\r\n:0\r\n"},
                {"LOCK.ACQUIRE k o 5 SLOTS 1025\r\n", "-ERR a semaphore has 1 to 1024 slots\r\n"},
                {"LOCK.ACQUIRE k o 5 SHARED SLOTS 2\r\n", "-ERR SHARED or SLOTS, and once\r\n"},
                {"LOCK.ACQUIRE k o 5 SLOTS 2 SHARED\r\n", "-ERR SHARED or SLOTS, and once\r\n"},
                {"*3\r\n$10\r\nLOCK.BREAK\r\n$1\r\nk\r\n$0\r\n\r\n",
                 "-ERR who breaks it has a name of 1 to 64 bytes, for the audit\r\n"},
                {"LOCK.CHECK k 0\r\n", "-ERR no token is 0\r\n"},
                {"NOSUCH a b\r\n", "-ERR unknown command 'NOSUCH'\r\n"},
                {"LOCK.ACQUIRE k o\r\n",
                 "-ERR wrong number of arguments: LOCK.ACQUIRE " USAGE "\r\n"},
                {"LOCK.ACQUIRE k o 1s\r\n",
                 "-ERR the time to live is not a number in range: write it in digits\r\n"},
                {"LOCK.ACQUIRE k o 1000 WAIT\r\n", "-ERR syntax: LOCK.ACQUIRE " USAGE "\r\n"},
                {"LOCK.WATCH k COPIES\r\n", "-ERR syntax: LOCK.WATCH " WATCH_USAGE "\r\n"},
                {"LOCK.WATCH k COPY AFTER\r\n", "-ERR syntax: LOCK.WATCH " WATCH_USAGE "\r\n"},
                {"LOCK.WATCH k COPY AFTER x\r\n",
                 "-ERR the revision is not a number in range: write it in digits\r\n"},
                {"LOCK.WATCH k PREFIX COPY AFTER 1 WAIT 1 PREFIX\r\n",
                 "-ERR wrong number of arguments: LOCK.WATCH " WATCH_USAGE "\r\n"},
                {"COMMAND COUNT\r\n", ":35\r\n"},
                {"COMMAND DOCS\r\n", "*0\r\n"},
                {"HELLO 4\r\n", "-NOPROTO unsupported protocol version: 2 and 3 are\r\n"},
                {"RESET\r\n", "+RESET\r\n"},
                {"\r\n", ""},
                {"*0\r\n", ""},
        };
        int fd = dial(api_locks_port(world.api));
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                say(fd, rows[i].say);
                assert_string_equal(hear(fd), rows[i].hear);
        }
        say(fd, "QUIT\r\nPING\r\n");
        assert_string_equal(hear(fd), "+OK\r\n");
        assert_string_equal(hear(fd), "(closed)");
        close(fd);
        assert_int_equal(world.seen, 0);
}

static void hello_three(void **state)
{
        int fd = dial(api_locks_port(world.api));
        (void)state;
        say(fd, "HELLO 3 SETNAME me\r\n");
        assert_true(strncmp(hear(fd), "%7\r\n$6\r\nserver\r\n$8\r\nmeridian\r\n", 30) == 0);
        say(fd, "LOCK.INFO k\r\n");
        struct reply reply = {.kind = REQUEST_LOCK_INFO, .code = REPLY_NOT_FOUND};
        reply_send(world.numbers[0], &reply);
        assert_string_equal(hear(fd), "_\r\n");
        close(fd);
}

/* Three commands, answered last first: the client sees them in its own order. */
static void answers_in_order(void **state)
{
        int fd = dial(api_locks_port(world.api));
        (void)state;
        say(fd, "LOCK.ACQUIRE a o 1000\r\nPING\r\nLOCK.ACQUIRE b o 1000\r\nLOCK.RELEASE c o 9\r\n");
        assert_int_equal(world.seen, 3);
        assert_string_equal(world.keys[2], "c");
        struct reply no = {.kind = REQUEST_LOCK_RELEASE, .code = REPLY_NOT_OWNER};
        reply_send(world.numbers[2], &no);
        assert_string_equal(hear(fd), "");
        grant(world.numbers[1], 5);
        assert_string_equal(hear(fd), "");
        grant(world.numbers[0], 4);
        assert_string_equal(hear(fd), "*2\r\n:4\r\n:1000\r\n+PONG\r\n*2\r\n:5\r\n:1000\r\n:0\r\n");
        close(fd);
}

static void refusals_have_words(void **state)
{
        int fd = dial(api_locks_port(world.api));
        (void)state;
        say(fd, "LOCK.ACQUIRE a o 1000\r\nLOCK.ACQUIRE a o 1000 WAIT 5\r\nLOCK.RENEW a o 1 10\r\n");
        struct reply reply = {.kind = REQUEST_LOCK_ACQUIRE, .code = REPLY_NO_MAJORITY};
        reply.text = BYTES("no majority\r\n+OK");
        reply_send(world.numbers[0], &reply);
        reply.code = REPLY_HELD;
        reply_send(world.numbers[1], &reply);
        reply = (struct reply){.kind = REQUEST_LOCK_RENEW, .code = REPLY_NOT_OWNER};
        reply.text = BYTES("held by x");
        reply_send(world.numbers[2], &reply);
        assert_string_equal(hear(fd),
                            "-NOMAJORITY no majority  +OK\r\n$-1\r\n-NOTOWNER held by x\r\n");
        close(fd);
}

static void answers_at_once(void **state)
{
        int fd = dial(api_locks_port(world.api));
        (void)state;
        world.at_once = true;
        say(fd, "LOCK.ACQUIRE a o 1000\r\nLOCK.ACQUIRE b o 1000\r\n");
        assert_string_equal(hear(fd), "*2\r\n:1\r\n:1000\r\n*2\r\n:2\r\n:1000\r\n");
        close(fd);
}

/* A client that leaves: the node is told once for each request, and late answers find nobody. */
static void clients_leave(void **state)
{
        int fd = dial(api_locks_port(world.api));
        (void)state;
        say(fd, "LOCK.ACQUIRE a o 1000 WAIT 60000\r\nLOCK.INFO a\r\n");
        assert_int_equal(world.seen, 2);
        close(fd);
        turn();
        assert_int_equal(world.gone, 2);
        uint64_t old = world.numbers[0];
        grant(old, 1);
        fd = dial(api_locks_port(world.api));
        say(fd, "LOCK.ACQUIRE b o 1000\r\n");
        assert_true(world.numbers[2] != old);
        grant(old, 1);
        grant(world.numbers[2], 2);
        assert_string_equal(hear(fd), "*2\r\n:2\r\n:1000\r\n");
        close(fd);
}

/* One that asks and asks without waiting is not read from beyond its bound. */
static void pending_is_bounded(void **state)
{
        int fd = dial(api_locks_port(world.api));
        (void)state;
        for (unsigned i = 0; i < API_PENDING_MAX + 50; i++) {
                static const char text[] = "LOCK.INFO a\r\n";
                assert_int_equal(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
        }
        turn();
        assert_int_equal(world.seen, API_PENDING_MAX);
        struct reply reply = {.kind = REQUEST_LOCK_INFO, .code = REPLY_NOT_FOUND};
        for (size_t i = 0; i < API_PENDING_MAX; i++)
                reply_send(world.numbers[i], &reply);
        turn();
        assert_int_equal(world.seen, API_PENDING_MAX + 50);
        close(fd);
}

/* Answers that may be large are not asked for without end while nobody reads them. */
static void large_answers_are_bounded(void **state)
{
        const size_t at_once = API_EXPECTED_MAX / KV_ITEMS_BYTES_MAX;
        struct reply reply = {.kind = REQUEST_KV, .code = REPLY_NO_MAJORITY};
        int fd = dial(api_locks_port(world.api));
        (void)state;
        for (size_t i = 0; i < 3 * at_once; i++)
                say(fd, "KV.RANGE global:v\r\n");
        for (size_t round = 1; round <= 3; round++) {
                turn();
                assert_int_equal(world.seen, round * at_once);
                for (size_t i = world.seen - at_once; i < round * at_once; i++)
                        reply_send(world.numbers[i], &reply);
        }
        close(fd);
}

static void garbage_is_refused(void **state)
{
        static const char *const rows[][2] = {
                {"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
                {"*9999\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
                {"POST / HTTP/1.1\r\nHost: x\r\n\r\nLOCK.ACQUIRE a o 1\r\n",
                 "-ERR this port speaks RESP, not HTTP\r\n"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                int fd = dial(api_locks_port(world.api));
                say(fd, rows[i][0]);
                assert_string_equal(hear(fd), rows[i][1]);
                assert_string_equal(hear(fd), "(closed)");
                close(fd);
        }
        assert_int_equal(world.seen, 0);
}

/* ---- HTTP ---- */

static const char *http(const char *request)
{
        int fd = dial(api_admin_port(world.api));
        say(fd, request);
        const char *text = hear(fd);
        close(fd);
        return text;
}

static void assert_holds(const char *text, const char *part)
{
        if (strstr(text, part) == NULL)
                fail_msg("no \"%s\" in:\n%s", part, text);
}

static void tells_status(void **state)
{
        const char *text = http("GET /status HTTP/1.1\r\nHost: x\r\n\r\n");
        (void)state;
        assert_holds(text, "200 OK");
        assert_holds(text, "\"epoch\": 7");
        assert_holds(text, "\"leader\": \"b\"");
        assert_holds(text, "\"majority\": true");
        assert_holds(text, "\"rtt_ms\": {\"b\": 70.25}");
        assert_holds(text, "\"rtt_ms\": {\"a\": null}");
        assert_holds(text, "\"redis\": {\"up\": true, \"lag_ms\": {\"b\": 99.99");
        assert_holds(text, "\"redis\": {\"up\": null, \"lag_ms\": {\"a\": null}, \"transfers\": "
                           "{}, \"servers\": null}");
        assert_holds(text, "\"postgres\": {\"role\": null, \"lag_ms\": null, \"lag_bytes\": null}");
}

/* Node 1 takes writes; node 2 streams and is a little behind. */
static void postgres_fill(struct node_status_postgres *postgres)
{
        *postgres = (struct node_status_postgres){.present = true, .hold = "mine", .wish = "none"};
        postgres->holder = postgres->grantee = 1;
        postgres->may_write = true;
        postgres->grant = 5;
        postgres->left_known = true;
        postgres->left_us = 2500000;
        postgres->server_count = 2;
        postgres->servers[0] = (struct node_status_server){
                .node = 1, .region = 1, .known = true, .server = "open", .timeline = 3};
        postgres->servers[0].server_value = PRIMARY_OPEN;
        postgres->servers[0].written = 0x100000020;
        postgres->servers[1] = (struct node_status_server){
                .node = 2, .region = 2, .known = true, .server = "standby", .following = true};
        postgres->servers[1].server_value = PRIMARY_STANDBY;
        postgres->servers[1].behind_known = postgres->servers[1].lag_known = true;
        postgres->servers[1].behind_bytes = 32;
        postgres->servers[1].lag_us = 1250;
        postgres->servers[1].heard = postgres->servers[1].loss_known = true;
        postgres->servers[1].heard_us = 20000;
        postgres->servers[1].loss_bytes = 33;
}

static void tells_postgres(void **state)
{
        (void)state;
        postgres_fill(&world.status.postgres);
        const char *text = http("GET /status HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_holds(text, "{\"role\": \"primary\", \"lag_ms\": null, \"lag_bytes\": null}");
        assert_holds(text, "{\"role\": \"standby\", \"lag_ms\": 1.25, \"lag_bytes\": 32}");
        assert_holds(text, "\"writer\": \"a-1\", \"writer_region\": \"a\"");
        assert_holds(text, "\"epoch\": 5, \"may_write\": true, \"left_ms\": 2500.0");
        assert_holds(text, "\"written\": \"1/20\"");
        assert_holds(text, "\"heard_ms\": 20.0, \"commit_age_ms\": null, \"loss_bytes\": 33");
        assert_holds(text, "\"holder\": \"a-1\", \"grantee\": \"a-1\"");
        text = http("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_holds(text, "meridian_postgres_primary{node=\"a-1\",region=\"a\"} 1\n");
        assert_holds(text, "meridian_postgres_lag_bytes{node=\"b-1\",region=\"b\"} 32\n");
        assert_holds(text, "meridian_postgres_lease_left_seconds 2.500\n");
        /* The lag of one that does not stream is not known, and does not stand still. */
        world.status.postgres.servers[1].following = false;
        text = http("GET /status HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_holds(text, "{\"role\": \"standby\", \"lag_ms\": null, \"lag_bytes\": 32}");
}

static void postgres_is_asked(void **state)
{
        (void)state;
        int fd = dial(api_admin_port(world.api));
        say(fd, "POST /postgres/switchover?to=b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        while (world.seen == 0)
                turn();
        assert_int_equal(world.kinds[0], REQUEST_POSTGRES);
        struct reply reply = {.kind = REQUEST_POSTGRES, .text = BYTES("b-1 takes over.")};
        reply.postgres.node = 2;
        reply_send(world.numbers[0], &reply);
        assert_holds(hear(fd), "{\"node\": \"b-1\", \"text\": \"b-1 takes over.\"}");
        close(fd);
        assert_holds(http("POST /postgres/dance HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
                     "404 Not");
        assert_holds(http("POST /postgres/abort?force=1 HTTP/1.1\r\nHost: x\r\n"
                          "Content-Length: 0\r\n\r\n"),
                     "404 Not");
}

static void tells_events(void **state)
{
        (void)state;
        for (unsigned i = 0; i < API_EVENTS_MAX + 10; i++)
                api_note(world.api, 1000000, "test", BYTES("an \"event\""));
        const char *text = http("GET /events?since=1032 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_holds(text, "\"next\": 1034");
        assert_holds(text, "\"index\": 1033");
        assert_holds(text, "an \\\"event\\\"");
        assert_null(strstr(text, "\"index\": 1032"));
        assert_holds(http("GET /events?since=x HTTP/1.1\r\nHost: x\r\n\r\n"), "400 Bad");
        assert_holds(http("GET /events?since=99999999 HTTP/1.1\r\nHost: x\r\n\r\n"),
                     "\"events\": []");
}

static void tells_the_rest(void **state)
{
        (void)state;
        assert_holds(http("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200 OK");
        assert_holds(http("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "meridian_epoch 7\n");
        assert_holds(http("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "/why-route");
        assert_holds(http("GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n"), "404 Not Found");
        assert_holds(http("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n"), "404 Not Found");
        assert_holds(http("POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
                     "405 Method");
        assert_holds(http("GET /why-route?client=192.0.2.9&name=www.example.test HTTP/1.1\r\n"
                          "Host: x\r\n\r\n"),
                     "\"region\": \"a\"");
        assert_holds(http("GET /why-route?client=nope&name=www.example.test HTTP/1.1\r\n"
                          "Host: x\r\n\r\n"),
                     "client is not an IP address");
        assert_holds(http("GET /why-route?client=::1&name=x.example.com HTTP/1.1\r\n"
                          "Host: x\r\n\r\n"),
                     "no policy answers that name");
        world.status.stopped = true;
        assert_holds(http("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "503 Service");
}

static void changes_wait_for_the_node(void **state)
{
        int fd = dial(api_admin_port(world.api));
        (void)state;
        say(fd, "POST /region/b/drain?actor=me HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_int_equal(world.seen, 1);
        assert_int_equal(world.kinds[0], REQUEST_REGION);
        assert_string_equal(hear(fd), "");
        struct reply reply = {.kind = REQUEST_REGION, .code = REPLY_OK};
        reply.region.state = REGION_DRAINING;
        reply_send(world.numbers[0], &reply);
        assert_holds(hear(fd), "\"state\": \"draining\"");
        say(fd, "POST /topology HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        assert_int_equal(world.kinds[1], REQUEST_TOPOLOGY_APPLY);
        reply = (struct reply){.kind = REQUEST_TOPOLOGY_APPLY, .code = REPLY_CONFLICT};
        reply.text = BYTES("the epoch is 8");
        reply_send(world.numbers[1], &reply);
        const char *text = hear(fd);
        assert_holds(text, "409 Conflict");
        assert_holds(text, "\"code\": \"CONFLICT\"");
        close(fd);
        assert_holds(http("POST /region/b/dance HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
                     "404 Not Found");
        assert_holds(http("POST /region/b/isolate HTTP/1.1\r\nHost: x\r\n"
                          "Origin: http://evil.example\r\nContent-Length: 0\r\n\r\n"),
                     "403 Forbidden");
        assert_int_equal(world.seen, 2);
}

/* What is told of a copy, in both doors. */
static void tells_of_a_copy(void **state)
{
        static const uint8_t gap[] = {7, LOCK_GAP, 0, 0, 3};
        struct reply reply = {.kind = REQUEST_LOCK_WATCH, .code = REPLY_OK};
        (void)state;
        reply.watch.changes = bytes_of(gap, sizeof gap);
        reply.watch.revision = 9;
        reply.watch.copy = true;
        reply.watch.known = 11;
        reply.watch.age_ms = 250;
        int fd = dial(api_locks_port(world.api));
        say(fd, "LOCK.WATCH b: COPY PREFIX AFTER 0 WAIT 5\r\n");
        assert_int_equal(world.seen, 1);
        assert_int_equal(world.flags, REQUEST_WATCH_PREFIX | REQUEST_WATCH_COPY);
        reply_send(world.numbers[0], &reply);
        assert_string_equal(hear(fd), "*5\r\n:9\r\n:0\r\n*1\r\n*5\r\n$3\r\ngap\r\n$0\r\n\r\n"
                                      "$0\r\n\r\n:3\r\n:7\r\n:11\r\n:250\r\n");
        close(fd);
        fd = dial(api_admin_port(world.api));
        say(fd, "GET /lock-watch?prefix=b:&copy=1&after=0 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_int_equal(world.seen, 2);
        assert_int_equal(world.flags, REQUEST_WATCH_PREFIX | REQUEST_WATCH_COPY);
        reply_send(world.numbers[1], &reply);
        assert_holds(hear(fd), "\"copy\": {\"revision\": 11, \"age_ms\": 250}");
        close(fd);
        assert_holds(http("GET /lock-watch?key=b:k&copy=2 HTTP/1.1\r\nHost: x\r\n\r\n"),
                     "400 Bad Request");
        assert_holds(http("GET /lock-watch?key=b:k&copy=yes HTTP/1.1\r\nHost: x\r\n\r\n"),
                     "400 Bad Request");
        assert_int_equal(world.seen, 2);
        world.status.regions[1].copy_known = world.status.regions[1].copy_heard = true;
        world.status.regions[1].copy_revision = 12;
        world.status.regions[1].copy_age_us = 1500;
        world.status.regions[1].copy_changes = 4;
        assert_holds(http("GET /status HTTP/1.1\r\nHost: x\r\n\r\n"),
                     "\"lock_copy\": {\"revision\": 12, \"age_ms\": 1.5, \"changes\": 4, "
                     "\"gaps\": 0}");
}

/* The daemon may end while a change waits. */
/* More clients than there may be keep others out for as long as they stay, and no longer. */
static void crowds_leave(void **state)
{
        static int fds[700];
        (void)state;
        for (size_t i = 0; i < COUNT_OF(fds); i++) {
                fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                struct sockaddr_in name = {.sin_family = AF_INET,
                                           .sin_port = htons(api_admin_port(world.api))};
                assert_int_equal(inet_pton(AF_INET, HOST, &name.sin_addr), 1);
                (void)connect(fds[i], (struct sockaddr *)&name, sizeof name);
                if (i % 50 == 0)
                        turn();
        }
        turn();
        for (size_t i = 0; i < COUNT_OF(fds); i++)
                close(fds[i]);
        turn();
        assert_holds(http("GET /status HTTP/1.1\r\nHost: x\r\n\r\n"), "200 OK");
}

/* Those who wait for something to happen leave room for who administrates. */
static void waiting_leaves_room(void **state)
{
        static int fds[API_ASKS_WAIT_MAX];
        static const char ask[] = "GET /lock-watch?key=k&wait_ms=20000 HTTP/1.1\r\nHost: x\r\n\r\n";
        (void)state;
        for (size_t i = 0; i < COUNT_OF(fds); i++) {
                fds[i] = dial(api_admin_port(world.api));
                assert_int_equal(write(fds[i], ask, sizeof ask - 1), (ssize_t)sizeof ask - 1);
                if (i % 32 == 31)
                        turn();
        }
        for (int i = 0; i < 100 && world.seen < COUNT_OF(fds); i++)
                turn();
        assert_int_equal(world.seen, COUNT_OF(fds));
        assert_holds(http(ask), "429 ");
        assert_holds(http("GET /status HTTP/1.1\r\nHost: x\r\n\r\n"), "200 OK");
        for (size_t i = 0; i < COUNT_OF(fds); i++)
                close(fds[i]);
}

static void ends_while_waiting(void **state)
{
        int fd = dial(api_admin_port(world.api));
        (void)state;
        say(fd, "POST /region/b/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_int_equal(world.seen, 1);
        int locks = dial(api_locks_port(world.api));
        say(locks, "LOCK.INFO a\r\n");
        assert_int_equal(world.seen, 2);
        /* teardown closes with both pending */
        close(fd);
        close(locks);
}

static void links_are_impaired(void **state)
{
        (void)state;
        assert_holds(
                http("POST /lab/link HTTP/1.1\r\nHost: x\r\nContent-Length: 61\r\n\r\n"
                     "{\"region\":\"b\",\"delay_us\":35000,\"loss_per_mille\":7,\"cut\":true}"),
                "200 OK");
        assert_int_equal(world.impaired.delay_us, 35000);
        assert_int_equal(world.impaired.loss_per_mille, 7);
        assert_true(world.impaired.cut);
        assert_holds(http("POST /lab/link HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
                          "{\"region\":\"c\"}"),
                     "404 Not Found");
        assert_holds(http("POST /lab/link HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n[1]x"),
                     "400 Bad");
}

/* The answer is bytes: u8 form, u32 shards, u64 walk, u64 keys, payload. */
static void verifies(void **state)
{
        static const char post[] =
                "POST /verify?shard=2&walk=4&prefix=a%20b HTTP/1.1\r\nHost: x\r\n"
                "Content-Length: 3\r\n\r\nmap";
        (void)state;
        assert_holds(http("POST /verify?shard=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
                     "400 Bad");
        assert_holds(http("POST /verify?shard=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
                     "no such shard");
        world.at_once = true;
        assert_holds(http(post), "Content-Length: 25\r\n");
        assert_int_equal(world.verify.shard, 2);
        assert_int_equal(world.verify.walk, 4);
        assert_false(world.verify.positions);
        world.at_once = false;
        int fd = dial(api_admin_port(world.api));
        say(fd, post);
        struct api_verified failed = {.why = "it broke"};
        api_verified(world.api, world.ticket + 1, &failed); /* nobody's */
        api_verified(world.api, world.ticket, &failed);
        assert_holds(hear(fd), "it broke");
        close(fd);
        fd = dial(api_admin_port(world.api));
        say(fd, post);
        close(fd); /* its answer finds nobody, or somebody who has gone */
        turn();
        api_verified(world.api, world.ticket, &failed);
        turn();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(small_commands, setup, teardown),
                cmocka_unit_test_setup_teardown(hello_three, setup, teardown),
                cmocka_unit_test_setup_teardown(answers_in_order, setup, teardown),
                cmocka_unit_test_setup_teardown(refusals_have_words, setup, teardown),
                cmocka_unit_test_setup_teardown(answers_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(clients_leave, setup, teardown),
                cmocka_unit_test_setup_teardown(pending_is_bounded, setup, teardown),
                cmocka_unit_test_setup_teardown(large_answers_are_bounded, setup, teardown),
                cmocka_unit_test_setup_teardown(garbage_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(tells_status, setup, teardown),
                cmocka_unit_test_setup_teardown(tells_postgres, setup, teardown),
                cmocka_unit_test_setup_teardown(postgres_is_asked, setup, teardown),
                cmocka_unit_test_setup_teardown(tells_events, setup, teardown),
                cmocka_unit_test_setup_teardown(tells_the_rest, setup, teardown),
                cmocka_unit_test_setup_teardown(changes_wait_for_the_node, setup, teardown),
                cmocka_unit_test_setup_teardown(crowds_leave, setup, teardown),
                cmocka_unit_test_setup_teardown(tells_of_a_copy, setup, teardown),
                cmocka_unit_test_setup_teardown(waiting_leaves_room, setup, teardown),
                cmocka_unit_test_setup_teardown(ends_while_waiting, setup, teardown),
                cmocka_unit_test_setup_teardown(links_are_impaired, setup, teardown),
                cmocka_unit_test_setup_teardown(verifies, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
