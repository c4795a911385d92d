/* Some roads in one process, joined by a link in memory, for tests with real servers and clients.
 *
 *     road-tool HOST:SERVER:WRITE:READ:FOLLOW ...        one argument for each node, from node 1
 *
 * reads commands from stdin, one a line, and answers each with "ok" or a line of its own:
 *
 *     roles NODE WRITER EPOCH OWN_WRITES OWN_STAYS OWN_READS READER...
 *     follow NODE TARGET
 *     cut                         the link breaks, and stays so
 *     heal
 *     delay MS                    one way
 *     count NODE                  "opened w r f refused w r f cut w r f open w r f in N passed N
 *                                  bytes N"
 *
 *     list NODE                   "DOOR STATE CLIENT PORT SERVER IN OUT, " for each connection
 *
 * WAIT_MS and CONNECTIONS of the environment set the two limits. Where PASS is set, node 1's server
 * asks for its clients at that path. */
#include "base/check.h"
#include "road/road.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
        NODES_MAX = 4
};

struct parcel {
        struct parcel *next;
        uint64_t due_us;
        node_id from, to;
        size_t len;
        uint8_t data[];
};

static uv_loop_t loop;
static struct heap heap;
static struct road *roads[NODES_MAX + 1];
static unsigned road_count;
static struct parcel *first, *last;
static size_t under_way[NODES_MAX + 1];
static bool starved[NODES_MAX + 1];
static bool is_cut;
static uint64_t delay_us;
static uv_idle_t idle;
static uv_timer_t post;
static node_id numbers[NODES_MAX + 1];

enum {
        QUEUE_MAX = 384 << 10
};

static enum err tool_send(void *user, node_id peer, struct bytes data)
{
        node_id self = *(node_id *)user;
        if (is_cut || peer == 0 || peer > road_count)
                return ERR_CLOSED;
        struct parcel *parcel = malloc(sizeof *parcel + data.len);
        CHECK(parcel != NULL);
        *parcel = (struct parcel){
                .due_us = uv_hrtime() / 1000 + delay_us, .from = self, .to = peer, .len = data.len};
        memcpy(parcel->data, data.ptr, data.len);
        if (last != NULL)
                last->next = parcel;
        else
                first = parcel;
        last = parcel;
        under_way[self] += data.len;
        return ERR_NONE;
}

static size_t tool_room(void *user, node_id peer)
{
        node_id self = *(node_id *)user;
        if (is_cut || peer == 0 || peer > road_count)
                return 0;
        if (delay_us == 0 && under_way[self] > QUEUE_MAX) {
                starved[self] = true;
                return 0;
        }
        return ROAD_MESSAGE_MAX;
}

static void tool_note(void *user, const char *name, const char *text)
{
        fprintf(stderr, "node %u: %s: %s\n", *(node_id *)user, name, text);
}

static void deliver(void)
{
        uint64_t now_us = uv_hrtime() / 1000;
        while (first != NULL && first->due_us <= now_us) {
                struct parcel *parcel = first;
                first = parcel->next;
                if (first == NULL)
                        last = NULL;
                under_way[parcel->from] -= parcel->len;
                enum err err = road_message(roads[parcel->to], parcel->from,
                                            bytes_of(parcel->data, parcel->len));
                CHECK(err == ERR_NONE);
                if (starved[parcel->from] && under_way[parcel->from] < QUEUE_MAX / 2) {
                        starved[parcel->from] = false;
                        for (node_id peer = 1; peer <= road_count; peer++)
                                road_drained(roads[parcel->from], peer);
                }
                free(parcel);
        }
}

/* Spins while something is under way: the least delay that a link can have. */
static void on_idle(uv_idle_t *handle)
{
        (void)handle;
        deliver();
        if (first == NULL)
                uv_idle_stop(&idle);
}

static void on_post(uv_timer_t *timer)
{
        (void)timer;
        deliver();
}

static void on_prepare(uv_prepare_t *prepare)
{
        (void)prepare;
        if (first != NULL && delay_us == 0)
                uv_idle_start(&idle, on_idle);
}

static void link_cut(void)
{
        is_cut = true;
        while (first != NULL) {
                struct parcel *parcel = first;
                first = parcel->next;
                free(parcel);
        }
        last = NULL;
        for (node_id a = 1; a <= road_count; a++) {
                under_way[a] = 0;
                for (node_id b = 1; b <= road_count; b++)
                        if (a != b)
                                road_peer_down(roads[a], b);
        }
}

static void link_heal(void)
{
        is_cut = false;
        for (node_id a = 1; a <= road_count; a++)
                for (node_id b = 1; b <= road_count; b++)
                        if (a != b)
                                road_peer_up(roads[a], b);
}

static unsigned long number_next(char **text)
{
        return strtoul(*text, text, 10);
}

static struct road *road_next(char **text)
{
        unsigned long node = number_next(text);
        CHECK(node >= 1 && node <= road_count);
        return roads[node];
}

static void roles_set(char *text)
{
        struct road_roles roles;
        memset(&roles, 0, sizeof roles);
        struct road *road = road_next(&text);
        roles.writer = (node_id)number_next(&text);
        roles.epoch = number_next(&text);
        roles.own_writes = number_next(&text) != 0;
        roles.own_stays = number_next(&text) != 0;
        roles.own_reads = number_next(&text) != 0;
        for (;;) {
                node_id reader = (node_id)number_next(&text);
                if (reader == 0)
                        break;
                roles.readers[roles.reader_count++] = reader;
        }
        road_roles_set(road, &roles);
}

static void count_print(char *text)
{
        struct road_counters c = road_counters(road_next(&text));
        printf("opened %llu %llu %llu refused %llu %llu %llu cut %llu %llu %llu open %u %u %u in "
               "%u passed %u bytes %llu\n",
               (unsigned long long)c.opened[0], (unsigned long long)c.opened[1],
               (unsigned long long)c.opened[2], (unsigned long long)c.refused[0],
               (unsigned long long)c.refused[1], (unsigned long long)c.refused[2],
               (unsigned long long)c.cut[0], (unsigned long long)c.cut[1],
               (unsigned long long)c.cut[2], c.open[0], c.open[1], c.open[2], c.tunnels_in,
               c.passed[0] + c.passed[1] + c.passed[2], (unsigned long long)c.bytes);
}

static void session_print(void *user, const struct road_session *session)
{
        (void)user;
        printf("%u %s %s %u %u %llu %llu, ", (unsigned)session->door, session->state,
               session->client[0] == '\0' ? "-" : session->client, session->client_port,
               session->server, (unsigned long long)session->from_client,
               (unsigned long long)session->to_client);
}

static void command(char *line)
{
        char *space = strchr(line, ' ');
        char *rest = space != NULL ? space : line + strlen(line);
        size_t len = (size_t)(rest - line);
        if (len == 5 && memcmp(line, "count", 5) == 0) {
                count_print(rest);
                fflush(stdout);
                return;
        }
        if (len == 4 && memcmp(line, "list", 4) == 0) {
                road_sessions(road_next(&rest), session_print, NULL);
                puts("end");
                fflush(stdout);
                return;
        }
        if (len == 5 && memcmp(line, "roles", 5) == 0) {
                roles_set(rest);
        } else if (len == 6 && memcmp(line, "follow", 6) == 0) {
                struct road *road = road_next(&rest);
                road_follow(road, (node_id)number_next(&rest));
        } else if (len == 5 && memcmp(line, "delay", 5) == 0) {
                delay_us = number_next(&rest) * 1000;
        } else if (strcmp(line, "cut") == 0) {
                link_cut();
        } else if (strcmp(line, "heal") == 0) {
                link_heal();
        } else {
                puts("what?");
                fflush(stdout);
                return;
        }
        puts("ok");
        fflush(stdout);
}

static char input[4096];
static size_t input_len;
static unsigned roads_open;

static void on_road_closed(void *user)
{
        (void)user;
        if (--roads_open == 0)
                uv_stop(&loop);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
        (void)handle;
        (void)suggested;
        *ret_buffer = uv_buf_init(input + input_len, (unsigned)(sizeof input - 1 - input_len));
}

static void on_input(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
        (void)buffer;
        if (len < 0) {
                uv_read_stop(stream);
                is_cut = true;
                for (node_id id = 1; id <= road_count; id++)
                        road_close(roads[id], on_road_closed, NULL);
                return;
        }
        input_len += (size_t)len;
        input[input_len] = '\0';
        for (char *end = strchr(input, '\n'); end != NULL; end = strchr(input, '\n')) {
                *end = '\0';
                command(input);
                input_len -= (size_t)(end + 1 - input);
                memmove(input, end + 1, input_len + 1);
        }
}

static uint32_t setting(const char *name)
{
        const char *text = getenv(name);
        return text == NULL ? 0 : (uint32_t)strtoul(text, NULL, 10);
}

static bool road_start(node_id id, char *place)
{
        struct road_callbacks callbacks = {&numbers[id], tool_send, tool_room, tool_note, NULL};
        char why[256];
        char *ports = strchr(place, ':');
        CHECK(ports != NULL);
        *ports++ = '\0';
        struct road_config config = {.heap = &heap, .loop = &loop, .self = id};
        config.server = (struct road_address){place, (uint16_t)strtoul(ports, &ports, 10)};
        for (unsigned i = 0; i < ROAD_DOOR_COUNT; i++)
                config.doors[i] = (struct road_address){
                        place, (uint16_t)(*ports == ':' ? strtoul(ports + 1, &ports, 10) : 0)};
        config.wait_ms = setting("WAIT_MS");
        config.connections_max = setting("CONNECTIONS");
        numbers[id] = id;
        if (road_new(&config, &callbacks, &roads[id], why, sizeof why) != ERR_NONE) {
                fprintf(stderr, "%s\n", why);
                return false;
        }
        return true;
}

int main(int count, char **args)
{
        static uv_pipe_t commands;
        static uv_prepare_t prepare;
        (void)signal(SIGPIPE, SIG_IGN); /* as the daemon does */
        heap_init(&heap, 0);
        CHECK(count >= 2 && count <= NODES_MAX + 1);
        CHECK(uv_loop_init(&loop) == 0);
        road_count = (unsigned)count - 1;
        for (int i = 1; i < count; i++) {
                if (!road_start((node_id)i, args[i]))
                        return 1;
                roads_open++;
        }
        if (getenv("PASS") != NULL)
                CHECK(road_pass_open(roads[1], getenv("PASS"), geteuid()) == ERR_NONE);
        CHECK(uv_idle_init(&loop, &idle) == 0 && uv_prepare_init(&loop, &prepare) == 0);
        CHECK(uv_timer_init(&loop, &post) == 0 && uv_timer_start(&post, on_post, 1, 1) == 0);
        CHECK(uv_prepare_start(&prepare, on_prepare) == 0);
        CHECK(uv_pipe_init(&loop, &commands, 0) == 0 && uv_pipe_open(&commands, 0) == 0);
        CHECK(uv_read_start((uv_stream_t *)&commands, on_alloc, on_input) == 0);
        puts("ready");
        fflush(stdout);
        uv_run(&loop, UV_RUN_DEFAULT);
        for (node_id id = 1; id <= road_count; id++)
                road_free(roads[id]);
        if (heap.used_bytes != 0)
                fprintf(stderr, "%zu bytes are left\n", heap.used_bytes);
        return heap.used_bytes == 0 ? 0 : 1;
}
