/* engine-tool - an engine by itself, for test_engine.py and the tests of Redis Cluster. The first
 * argument is a topology file, the second the region's id, the rest redis=ADDRESS, cluster=ADDRESS
 * (some of a Redis Cluster), replica=ADDRESS (some of several, or sentinels with master=NAME),
 * dns=ADDRESS, edge=ADDRESS, user=NAME, password=WORD, stall=MS, ca=FILE, cert=FILE, key=FILE.
 * Prints each event as a line; reads commands: tail PEER AFTER MAX BLOCK, merge ORIGIN AFTER LAST
 * HEX, state ORIGIN HEX, stateend ORIGIN HEX, scan PEER CURSOR MAX, acked REGION POSITION, topology
 * FILE, status, close. */
#include "engine/engine.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct heap heap;
static struct engine *engine;
static struct topology topology;
static uv_pipe_t input;
static char line[1 << 20];
static size_t line_len;
static uint8_t region;

static void print_hex(struct bytes data)
{
        for (size_t i = 0; i < data.len; i++)
                printf("%02x", data.ptr[i]);
}

static void print_positions(const struct world_position *positions, size_t count)
{
        for (size_t i = 0; i < count; i++)
                printf(" %u:%" PRIu64, positions[i].origin, positions[i].hlc);
}

static void on_event(void *user, const struct world_event *event)
{
        static const char *const parts[WORLD_PART_COUNT] = {"redis", "dns", "edge", "postgres",
                                                            "backend"};
        (void)user;
        switch ((int)event->kind) {
        case WORLD_PROBED:
                printf("probed %s %u %s %.*s", parts[event->probed.part], event->probed.index,
                       event->probed.healthy ? "good" : "bad", BYTES_ARGS(event->probed.why));
                break;
        case WORLD_REDIS_UP:
                printf("up %" PRIu64 " %" PRIu64 " %" PRIu64, event->redis_up.incarnation,
                       event->redis_up.recovered, event->redis_up.first);
                print_positions(event->redis_up.positions, event->redis_up.count);
                break;
        case WORLD_REDIS_DOWN:
                printf("down");
                break;
        case WORLD_REDIS_TAILED:
                printf("tailed %u %d %" PRIu64 " %" PRIu64 " ", event->tailed.peer,
                       event->tailed.gap, event->tailed.after, event->tailed.last);
                print_hex(event->tailed.deltas);
                break;
        case WORLD_REDIS_MERGED:
                printf("merged %u %d %" PRIu64 " %s", event->merged.origin, event->merged.gap,
                       event->merged.position,
                       event->merged.err == ERR_NONE ? "ok" : err_name(event->merged.err));
                break;
        case WORLD_REDIS_SCANNED:
                printf("scanned %u %" PRIu64 " %s ", event->scanned.peer, event->scanned.cursor,
                       event->scanned.err == ERR_NONE ? "ok" : err_name(event->scanned.err));
                print_hex(event->scanned.state);
                print_positions(event->scanned.positions, event->scanned.position_count);
                break;
        default:
                printf("strange event %d", (int)event->kind);
        }
        printf("\n");
        (void)fflush(stdout);
}

static void on_note(void *user, const char *name, const char *text)
{
        (void)user;
        printf("note %s %s\n", name, text);
        (void)fflush(stdout);
}

static void load(const char *path)
{
        static char text[1 << 16];
        struct topology_error error;
        FILE *file = fopen(path, "rb");
        size_t len = file != NULL ? fread(text, 1, sizeof text, file) : 0;
        if (file != NULL)
                (void)fclose(file);
        if (!topology_parse(bytes_of(text, len), &topology, &error)) {
                char sentence[512];
                (void)fprintf(stderr, "%s: %s\n", path,
                              topology_error_text(&error, sentence, sizeof sentence));
                exit(2);
        }
        if (engine_topology(engine, &topology, region) != ERR_NONE)
                exit(2);
}

static void closed(void *user)
{
        (void)user;
        engine_free(engine);
        uv_close((uv_handle_t *)&input, NULL);
}

static uint64_t field_number(char **at)
{
        return strtoull(*at, at, 10);
}

static unsigned nibble(char letter)
{
        static const char digits[] = "0123456789abcdef";
        const char *at = letter != 0 ? strchr(digits, letter) : NULL;
        return at != NULL ? (unsigned)(at - digits) : 16;
}

static struct bytes field_hex(const char *at)
{
        static uint8_t data[1 << 19];
        size_t len = 0;
        while (*at == ' ')
                at++;
        for (; nibble(at[0]) < 16 && nibble(at[1]) < 16 && len < sizeof data; at += 2)
                data[len++] = (uint8_t)(nibble(at[0]) << 4 | nibble(at[1]));
        return bytes_of(data, len);
}

static void on_command(char *text)
{
        static struct world_position none[1];
        struct world_effect effect = {0};
        char word[16] = "", path[512];
        int used = 0;
        (void)sscanf(text, "%15s%n", word, &used);
        char *at = text + used;
        if (strcmp(word, "tail") == 0) {
                effect.kind = WORLD_REDIS_TAIL;
                effect.tail.peer = (node_id)field_number(&at);
                effect.tail.after = field_number(&at);
                effect.tail.bytes_max = (uint32_t)field_number(&at);
                effect.tail.block_ms = (uint32_t)field_number(&at);
        } else if (strcmp(word, "merge") == 0) {
                effect.kind = WORLD_REDIS_MERGE;
                effect.merge.origin = (region_id)field_number(&at);
                effect.merge.after = field_number(&at);
                effect.merge.last = field_number(&at);
                effect.merge.data = field_hex(at);
        } else if (strncmp(word, "state", 5) == 0) {
                effect.kind = WORLD_REDIS_MERGE;
                effect.merge.state = true;
                effect.merge.state_end = strcmp(word, "stateend") == 0;
                effect.merge.origin = (region_id)field_number(&at);
                none[0].origin = effect.merge.origin;
                none[0].hlc = field_number(&at);
                effect.merge.positions = none;
                effect.merge.position_count = effect.merge.state_end ? 1 : 0;
                effect.merge.data = field_hex(at);
        } else if (strcmp(word, "scan") == 0) {
                effect.kind = WORLD_REDIS_SCAN;
                effect.scan.peer = (node_id)field_number(&at);
                effect.scan.cursor = field_number(&at);
                effect.scan.bytes_max = (uint32_t)field_number(&at);
        } else if (strcmp(word, "acked") == 0) {
                effect.kind = WORLD_REDIS_ACKED;
                effect.acked.peer = (region_id)field_number(&at);
                effect.acked.position = field_number(&at);
        } else if (strcmp(word, "topology") == 0 && sscanf(at, "%511s", path) == 1) {
                load(path);
                return;
        } else if (strcmp(word, "status") == 0) {
                struct engine_status status;
                engine_status(engine, &status);
                printf("status %d %d %d %u %s\n", status.redis_used, status.redis_up,
                       status.redis_module_missing, status.redis_origin, status.redis_text);
                (void)fflush(stdout);
                return;
        } else {
                uv_read_stop((uv_stream_t *)&input);
                engine_close(engine, closed, NULL);
                return;
        }
        engine_redis(engine, &effect);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
        (void)handle;
        (void)suggested;
        *buf = uv_buf_init(line + line_len, (unsigned)(sizeof line - 1 - line_len));
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
        char *end;
        (void)stream;
        (void)buf;
        if (len < 0) {
                char word[] = "close";
                on_command(word);
                return;
        }
        line_len += (size_t)len;
        line[line_len] = 0;
        while ((end = strchr(line, '\n')) != NULL) {
                *end = 0;
                on_command(line);
                line_len -= (size_t)(end + 1 - line);
                memmove(line, end + 1, line_len + 1);
        }
}

int main(int argc, char **argv)
{
        uv_loop_t loop;
        if (argc < 3 || uv_loop_init(&loop) != 0)
                return 2;
        heap_init(&heap, 0);
        (void)signal(SIGPIPE, SIG_IGN);
        struct engine_tls files = {.ca = "", .cert = "", .key = ""};
        struct engine_config config = {.loop = &loop,
                                       .heap = &heap,
                                       .seed = 1,
                                       .interval_ms = 100,
                                       .timeout_ms = 80,
                                       .event = on_event,
                                       .note = on_note};
        for (int i = 3; i < argc; i++) {
                struct {
                        const char *key;
                        struct topology_endpoint *endpoint;
                } keys[] = {
                        {"redis=", &config.redis}, {"dns=", &config.dns}, {"edge=", &config.edge}};
                for (size_t k = 0; k < COUNT_OF(keys); k++) {
                        size_t len = strlen(keys[k].key);
                        if (strncmp(argv[i], keys[k].key, len) == 0 &&
                            !topology_endpoint_parse(bytes_of_str(argv[i] + len), keys[k].endpoint))
                                return 2;
                }
                if (strncmp(argv[i], "master=", 7) == 0)
                        (void)snprintf(config.redis_master, sizeof config.redis_master, "%s",
                                       argv[i] + 7);
                if (strncmp(argv[i], "cluster=", 8) == 0 || strncmp(argv[i], "replica=", 8) == 0) {
                        config.redis_cluster = config.redis_cluster || argv[i][0] == 'c';
                        if (!topology_endpoint_parse(
                                    bytes_of_str(argv[i] + 8),
                                    &config.redis_nodes[config.redis_node_count++]))
                                return 2;
                }
                if (strncmp(argv[i], "password=", 9) == 0)
                        config.redis_password = argv[i] + 9;
                if (strncmp(argv[i], "user=", 5) == 0)
                        config.redis_user = argv[i] + 5;
                if (strncmp(argv[i], "stall=", 6) == 0)
                        config.stall_ms = (uint32_t)atoi(argv[i] + 6);
                if (strncmp(argv[i], "ca=", 3) == 0)
                        files.ca = argv[i] + 3;
                if (strncmp(argv[i], "cert=", 5) == 0)
                        files.cert = argv[i] + 5;
                if (strncmp(argv[i], "key=", 4) == 0)
                        files.key = argv[i] + 4;
        }
        struct engine_tls_error error;
        if (files.ca[0] != 0)
                config.redis_tls = engine_tls_new(&files, &error);
        if (files.ca[0] != 0 && config.redis_tls == NULL) {
                printf("refused %s\n", error.text);
                return uv_loop_close(&loop);
        }
        if (engine_new(&config, &engine) != ERR_NONE)
                return 2;
        region = (uint8_t)atoi(argv[2]);
        load(argv[1]);
        engine_start(engine);
        if (uv_pipe_init(&loop, &input, 0) != 0 || uv_pipe_open(&input, STDIN_FILENO) != 0 ||
            uv_read_start((uv_stream_t *)&input, on_room, on_read) != 0)
                return 2;
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        engine_tls_free(config.redis_tls);
        if (uv_loop_close(&loop) != 0 || heap.used_bytes != 0) {
                (void)fprintf(stderr, "handles or %zu bytes are left\n", heap.used_bytes);
                return 3;
        }
        return 0;
}
