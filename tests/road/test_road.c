/* What clients and other nodes may send to a road, whole, cut at every length, and damaged. Two
 * roads in one loop, joined by a queue in memory; the server is an echo on a socket. */
#include "base/rng.h"
#include "cmocka_all.h"
#include "road/road_priv.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- first packets ---- */

struct first_case {
        const char *why;
        struct bytes data;
        enum startup wanted;
        bool cut_is_more; /* each shorter one wants more */
};

static const struct first_case first_cases[] = {
        {"a session", BYTES_INIT("\0\0\0\x10\0\x03\0\0user\0a\0\0"), STARTUP_SESSION, true},
        {"SSLRequest", BYTES_INIT("\0\0\0\x08\x04\xd2\x16\x2f"), STARTUP_ENCRYPT, true},
        {"GSSENCRequest", BYTES_INIT("\0\0\0\x08\x04\xd2\x16\x30"), STARTUP_ENCRYPT, true},
        {"a cancel", BYTES_INIT("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02"), STARTUP_CANCEL,
         true},
        {"a cancel of another length", BYTES_INIT("\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x01"),
         STARTUP_BAD, false},
        {"SSLRequest of another length", BYTES_INIT("\0\0\0\x0c\x04\xd2\x16\x2f\0\0\0\0"),
         STARTUP_BAD, false},
        {"TLS", BYTES_INIT("\x16\x03\x01"), STARTUP_TLS, false},
        {"shorter than its head", BYTES_INIT("\0\0\0\x07\0\x03\0\0"), STARTUP_BAD, false},
        {"longer than allowed", BYTES_INIT("\0\0\x27\x11\0\x03\0\0"), STARTUP_BAD, false},
        {"as long as allowed", BYTES_INIT("\0\0\x27\x10\0\x03\0\0"), STARTUP_MORE, false},
        {"HTTP", BYTES_INIT("GET / HTTP/1.1\r\n"), STARTUP_BAD, false},
};

static void first_packets(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT_OF(first_cases); i++) {
                const struct first_case *row = &first_cases[i];
                if (startup_look(row->data) != row->wanted)
                        fail_msg("%s: %d", row->why, (int)startup_look(row->data));
                for (size_t len = 0; row->cut_is_more && len < row->data.len; len++)
                        assert_int_equal(startup_look(bytes_of(row->data.ptr, len)), STARTUP_MORE);
        }
}

static void refusals_are_whole(void **state)
{
        struct heap heap;
        struct buffer out;
        (void)state;
        heap_init(&heap, 0);
        for (int refusal = 0; refusal < REFUSAL_COUNT; refusal++) {
                for (int door = 0; door < ROAD_DOOR_COUNT; door++) {
                        buffer_init(&out, &heap);
                        startup_refuse((enum refusal)refusal, (enum road_door)door, &out);
                        assert_int_equal(out.err, ERR_NONE);
                        assert_int_equal(out.ptr[0], 'E');
                        assert_int_equal(out.ptr[3] << 8 | out.ptr[4], out.len - 1);
                        assert_int_equal(out.ptr[out.len - 1], 0);
                        assert_int_equal(out.ptr[out.len - 2], 0);
                        buffer_fini(&out);
                }
        }
        assert_int_equal(heap.used_bytes, 0);
}

/* ---- two roads ---- */

enum {
        QUEUE = 4096,
        FAR = 1,
        NEAR = 2
};

struct parcel {
        node_id to;
        size_t len;
        uint8_t data[ROAD_MESSAGE_MAX];
};

static struct {
        uv_loop_t loop;
        struct heap heap;
        struct road *roads[3];
        node_id ids[3];
        struct parcel *parcels;
        size_t first, count;
        int server;
        uint16_t server_port;
        uint16_t door;
        unsigned closed;
        bool bars[3]; /* this node bars the other */
} world;

static enum err put(void *user, node_id peer, struct bytes data)
{
        (void)user;
        assert_true(peer == NEAR || peer == FAR);
        assert_true(data.len <= ROAD_MESSAGE_MAX);
        if (world.count == QUEUE)
                return ERR_LIMIT;
        struct parcel *parcel = &world.parcels[(world.first + world.count++) % QUEUE];
        parcel->to = peer;
        parcel->len = data.len;
        memcpy(parcel->data, data.ptr, data.len);
        return ERR_NONE;
}

static size_t room(void *user, node_id peer)
{
        (void)user;
        (void)peer;
        return world.count < QUEUE / 2 ? ROAD_MESSAGE_MAX : 0;
}

static void note(void *user, const char *name, const char *text)
{
        (void)user;
        (void)name;
        (void)text;
}

static bool barred(void *user, node_id peer)
{
        return world.bars[*(const node_id *)user] && peer != *(const node_id *)user;
}

static uint16_t port_of(int fd)
{
        struct sockaddr_in name = {0};
        socklen_t len = sizeof name;
        assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
        return ntohs(name.sin_port);
}

static int listen_any(void)
{
        struct sockaddr_in name = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
        assert_int_equal(listen(fd, 64), 0);
        return fd;
}

static uint16_t port_free(void)
{
        int fd = listen_any();
        uint16_t port = port_of(fd);
        close(fd);
        return port;
}

static void roles(node_id id, bool writes)
{
        struct road_roles now;
        memset(&now, 0, sizeof now);
        now.writer = FAR;
        now.epoch = 7;
        now.own_writes = writes;
        now.own_reads = true;
        now.readers[0] = FAR;
        now.reader_count = 1;
        now.bars = world.bars[id];
        road_roles_set(world.roads[id], &now);
}

static void bar(node_id id, bool bars)
{
        world.bars[id] = bars;
        roles(id, id == FAR);
}

static int setup(void **state)
{
        char why[256];
        (void)state;
        memset(&world, 0, sizeof world);
        heap_init(&world.heap, 0);
        assert_int_equal(uv_loop_init(&world.loop), 0);
        world.parcels = calloc(QUEUE, sizeof *world.parcels);
        assert_non_null(world.parcels);
        world.server = listen_any();
        world.server_port = port_of(world.server);
        world.door = port_free();
        for (node_id id = FAR; id <= NEAR; id++) {
                world.ids[id] = id;
                struct road_callbacks callbacks = {&world.ids[id], put, room, note, barred};
                struct road_config config = {.heap = &world.heap,
                                             .loop = &world.loop,
                                             .self = id,
                                             .wait_ms = 300,
                                             .server = {"127.0.0.1", world.server_port}};
                if (id == NEAR)
                        config.doors[ROAD_WRITE] = (struct road_address){"127.0.0.1", world.door};
                assert_int_equal(road_new(&config, &callbacks, &world.roads[id], why, sizeof why),
                                 ERR_NONE);
                roles(id, id == FAR);
        }
        return 0;
}

static void on_closed(void *user)
{
        (void)user;
        world.closed++;
}

static int teardown(void **state)
{
        (void)state;
        for (node_id id = FAR; id <= NEAR; id++)
                road_close(world.roads[id], on_closed, NULL);
        while (world.closed < 2)
                uv_run(&world.loop, UV_RUN_ONCE);
        for (node_id id = FAR; id <= NEAR; id++)
                road_free(world.roads[id]);
        assert_int_equal(uv_loop_close(&world.loop), 0);
        close(world.server);
        free(world.parcels);
        return world.heap.used_bytes == 0 ? 0 : -1;
}

static enum err say(node_id to, struct bytes data)
{
        return road_message(world.roads[to], to == FAR ? NEAR : FAR, data);
}

/* A few turns; what is in the queue is delivered, but for one in `drop_per_mille`, which is damaged
 * first where a stream of numbers is given. A node that gets nonsense drops its link, as the daemon
 * does. */
static void turn(struct rng *damage)
{
        uv_run(&world.loop, UV_RUN_NOWAIT);
        while (world.count > 0) {
                struct parcel *parcel = &world.parcels[world.first];
                world.first = (world.first + 1) % QUEUE;
                world.count--;
                if (damage != NULL && rng_below(damage, 4) == 0)
                        parcel->data[rng_below(damage, parcel->len)] ^=
                                (uint8_t)(1u << rng_below(damage, 8));
                if (damage != NULL && rng_below(damage, 16) == 0)
                        parcel->len = rng_below(damage, parcel->len + 1);
                if (say(parcel->to, bytes_of(parcel->data, parcel->len)) == ERR_NONE)
                        continue;
                assert_non_null(damage);
                for (node_id id = FAR; id <= NEAR; id++)
                        road_peer_down(world.roads[id], id == FAR ? NEAR : FAR);
                world.count = 0;
        }
}

static int dial(void)
{
        struct sockaddr_in name = {.sin_family = AF_INET,
                                   .sin_port = htons(world.door),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
        return fd;
}

static const struct bytes hello = BYTES_INIT("\0\0\0\x10\0\x03\0\0user\0a\0\0");

/* A client that has reached the server; both of their sockets. */
static void meet(int *ret_client, int *ret_server)
{
        uint8_t got[64];
        ssize_t len = -1;
        *ret_client = dial();
        assert_int_equal(write(*ret_client, hello.ptr, 16), 16);
        *ret_server = -1;
        for (unsigned i = 0; i < 100000 && *ret_server < 0; i++) {
                turn(NULL);
                *ret_server = accept4(world.server, NULL, NULL, SOCK_NONBLOCK);
        }
        assert_true(*ret_server >= 0);
        for (unsigned i = 0; i < 100000 && len < 0; i++) {
                turn(NULL);
                len = read(*ret_server, got, sizeof got);
        }
        assert_int_equal(len, 16);
        assert_memory_equal(got, hello.ptr, 16);
}

static struct way *way_open_of(node_id id)
{
        for (struct way *way = world.roads[id]->ways; way != NULL; way = way->next) {
                if (way->state == WAY_OPEN)
                        return way;
        }
        return NULL;
}

static void bytes_pass_and_ends_are_told(void **state)
{
        int client, server;
        char got[16] = "";
        (void)state;
        meet(&client, &server);
        assert_int_equal(write(server, "answer", 6), 6);
        for (unsigned i = 0; i < 1000; i++)
                turn(NULL);
        assert_int_equal(recv(client, got, sizeof got, MSG_DONTWAIT), 6);
        assert_string_equal(got, "answer");
        close(server);
        for (unsigned i = 0; i < 1000; i++)
                turn(NULL);
        assert_int_equal(recv(client, got, sizeof got, MSG_DONTWAIT), 0);
        assert_null(way_open_of(FAR));
        assert_null(way_open_of(NEAR));
        close(client);
}

/* What a client gets within some turns: bytes, 0 at the end, -1 for nothing. */
static ssize_t hears(int client, char *got, size_t size)
{
        ssize_t len = -1;
        for (unsigned i = 0; i < 20000 && len < 0; i++) {
                turn(NULL);
                if (i > 1000)
                        usleep(100);
                len = recv(client, got, size, MSG_DONTWAIT);
        }
        return len;
}

/* Whichever end bars the other: what passes is cut, and who comes is told that there is no server;
 * when nobody does any more, all is as before. */
static void nothing_passes_where_one_is_barred(void **state)
{
        int client, server;
        char got[256];
        (void)state;
        for (node_id id = FAR; id <= NEAR; id++) {
                meet(&client, &server);
                bar(id, true);
                assert_true(hears(client, got, sizeof got) <= 0);
                assert_null(way_open_of(FAR));
                assert_null(way_open_of(NEAR));
                close(client);
                close(server);
                client = dial();
                assert_int_equal(write(client, hello.ptr, 16), 16);
                assert_true(hears(client, got, sizeof got) > 5);
                assert_int_equal(got[0], 'E');
                assert_int_equal(accept4(world.server, NULL, NULL, SOCK_NONBLOCK), -1);
                close(client);
                bar(id, false);
        }
        meet(&client, &server);
        close(client);
        close(server);
}

static void frame(struct buffer *out, unsigned kind, uint32_t to)
{
        buffer_reset(out);
        buffer_u8(out, (uint8_t)kind);
        buffer_u32(out, to);
}

/* Kinds as in tunnel.c. */
enum {
        OPEN = 1,
        OPENED,
        REFUSED,
        DATA,
        CREDIT,
        END,
        RESET,
        CANCEL
};

static void nonsense_is_malformed(void **state)
{
        int client, server;
        struct buffer out;
        (void)state;
        meet(&client, &server);
        struct way *way = way_open_of(FAR);
        if (way == NULL) {
                fail_msg("no way is open");
                return;
        }
        uint32_t id = way->tunnel.id;
        buffer_init(&out, &world.heap);
        for (size_t len = 0; len < FRAME_HEAD; len++)
                assert_int_equal(say(FAR, bytes_of("\x04\0\0\0\0", len)), ERR_MALFORMED);
        assert_int_equal(say(FAR, BYTES("\0\0\0\0\0")), ERR_MALFORMED);
        assert_int_equal(say(FAR, BYTES("\x09\0\0\0\0")), ERR_MALFORMED);
        frame(&out, OPEN, 5);
        assert_int_equal(say(FAR, buffer_view(&out)), ERR_MALFORMED); /* no door */
        buffer_u8(&out, ROAD_DOOR_COUNT);
        buffer_u64(&out, 7);
        assert_int_equal(say(FAR, buffer_view(&out)), ERR_MALFORMED);
        frame(&out, CANCEL, 0);
        buffer_u8(&out, ROAD_WRITE);
        buffer_bytes(&out, bytes_of(hello.ptr, CANCEL_BYTES));
        assert_int_equal(say(FAR, buffer_view(&out)), ERR_MALFORMED); /* it is a session */
        frame(&out, OPENED, id);
        buffer_u32(&out, 9);
        assert_int_equal(say(FAR, buffer_view(&out)), ERR_MALFORMED); /* we are the far end */
        frame(&out, CREDIT, id);
        buffer_u32(&out, 1); /* nothing was sent */
        assert_int_equal(say(FAR, buffer_view(&out)), ERR_MALFORMED);
        frame(&out, DATA, id + 1); /* nobody's: ignored, as it may be late */
        assert_int_equal(say(FAR, buffer_view(&out)), ERR_NONE);
        frame(&out, DATA, id);
        assert_int_equal(road_message(world.roads[FAR], 3, buffer_view(&out)), ERR_NONE);
        /* More than the window while the server takes nothing. */
        enum err err = ERR_NONE;
        size_t sent = 0;
        static uint8_t much[ROAD_MESSAGE_MAX - FRAME_HEAD];
        frame(&out, DATA, id);
        buffer_bytes(&out, bytes_of(much, sizeof much));
        way->plugs[0].writing = true; /* as if the socket took nothing */
        while (err == ERR_NONE && sent <= ROAD_WINDOW) {
                err = say(FAR, buffer_view(&out));
                sent += err == ERR_NONE ? sizeof much : 0;
        }
        assert_int_equal(err, ERR_MALFORMED);
        assert_true(sent <= ROAD_WINDOW);
        way->plugs[0].writing = false;
        buffer_fini(&out);
        close(client);
        close(server);
}

static void an_old_epoch_is_refused(void **state)
{
        struct buffer out;
        (void)state;
        buffer_init(&out, &world.heap);
        for (uint64_t epoch = 6; epoch <= 8; epoch++) {
                frame(&out, OPEN, 5);
                buffer_u8(&out, ROAD_WRITE);
                buffer_u64(&out, epoch);
                assert_int_equal(say(FAR, buffer_view(&out)), ERR_NONE);
                bool refused = world.count == 1 && world.parcels[world.first].data[0] == REFUSED;
                assert_true(refused == (epoch != 7));
                world.count = 0;
        }
        roles(FAR, false);
        assert_null(way_open_of(FAR));
        buffer_fini(&out);
}

/* Whatever comes: nothing is read beyond its end, nothing is left behind (see teardown). */
static void damage_does_no_harm(void **state)
{
        struct rng rng;
        uint8_t junk[256];
        (void)state;
        uint64_t seed = 0x20261121;
        print_message("seed %llx\n", (unsigned long long)seed);
        rng_init(&rng, seed, 1);
        for (unsigned i = 0; i < 20000; i++) {
                size_t len = rng_below(&rng, sizeof junk);
                for (size_t at = 0; at < len; at++)
                        junk[at] = (uint8_t)rng_below(&rng, at == 0 ? 10 : 256);
                (void)say(rng_below(&rng, 2) == 0 ? FAR : NEAR, bytes_of(junk, len));
                world.count = 0;
        }
        for (unsigned round = 0; round < 30; round++) {
                int client = dial(), server = -1;
                assert_int_equal(write(client, hello.ptr, 16), 16);
                for (unsigned i = 0; i < 60; i++) {
                        turn(&rng);
                        if (server < 0)
                                server = accept4(world.server, NULL, NULL, SOCK_NONBLOCK);
                        (void)send(client, junk, 100, MSG_DONTWAIT | MSG_NOSIGNAL);
                        if (server >= 0)
                                (void)send(server, junk, 200, MSG_DONTWAIT | MSG_NOSIGNAL);
                }
                close(client);
                if (server >= 0)
                        close(server);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(first_packets),
                cmocka_unit_test(refusals_are_whole),
                cmocka_unit_test_setup_teardown(bytes_pass_and_ends_are_told, setup, teardown),
                cmocka_unit_test_setup_teardown(nothing_passes_where_one_is_barred, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(nonsense_is_malformed, setup, teardown),
                cmocka_unit_test_setup_teardown(an_old_epoch_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(damage_does_no_harm, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
