/* Runs a warden by words on stdin, so that a script can play the node ("" for none):
 *
 *      warden-tool TOPOLOGY NODE HOME BIN PASSWORD LIBRARY INIT ARCHIVE [ADOPT [plan]]
 *
 *      do ACTION UPSTREAM EPOCH        answered by {"done": n, "fail": "..."}
 *      gate EPOCH MS                   the gate is open for so long from now on
 *
 * Each look is one line {"seen": ...}; each note one {"note": ...}. Ends at the end of stdin. With
 * `plan` it prints what would be made of the data, and ends. */
#include "primary/primary.h"
#include "warden/warden.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct heap heap;
static struct warden *warden;
static uv_loop_t loop;
static uv_pipe_t input;
static char line[256];
static size_t line_len;
static uint64_t number;

static void print_text(const char *text, size_t len)
{
        putchar('"');
        for (size_t i = 0; i < len; i++)
                putchar(text[i] == '"' || text[i] == '\\' || (unsigned char)text[i] < ' '
                                ? '\''
                                : text[i]);
        putchar('"');
}

static void print_seen(const struct world_postgres *seen)
{
        printf("{\"seen\": \"%s\", \"system\": %llu, \"timeline\": %u, \"epoch\": %llu, "
               "\"written\": %llu, \"upstream\": %u, \"gap\": %s, \"gate\": %s, "
               "\"committed\": %llu, \"limited\": %s, \"paused\": %s, \"slot_max\": %llu, "
               "\"slots\": [",
               primary_server_name((enum primary_server)seen->server),
               (unsigned long long)seen->system, seen->timeline, (unsigned long long)seen->epoch,
               (unsigned long long)seen->written, seen->upstream, seen->gap ? "true" : "false",
               seen->gate_until_us != 0 ? "true" : "false", (unsigned long long)seen->committed,
               seen->limited ? "true" : "false", seen->paused ? "true" : "false",
               (unsigned long long)seen->slot_max);
        for (unsigned i = 0; i < seen->slot_count; i++)
                printf("%s[\"%s\", %s, %llu]", i == 0 ? "" : ", ", seen->slots[i].name,
                       seen->slots[i].active ? "true" : "false",
                       (unsigned long long)seen->slots[i].retained);
        printf("], \"lines\": [");
        for (unsigned i = 0; i < seen->line_count; i++)
                printf("%s[%u, %llu, %llu]", i == 0 ? "" : ", ", seen->lines[i].timeline,
                       (unsigned long long)seen->lines[i].epoch,
                       (unsigned long long)seen->lines[i].end);
        printf("]}\n");
}

static void on_event(void *user, const struct world_event *event)
{
        (void)user;
        if (event->kind == WORLD_POSTGRES_SEEN) {
                print_seen(&event->postgres);
        } else if (event->kind == WORLD_POSTGRES_DONE) {
                printf("{\"done\": %llu, \"fail\": ",
                       (unsigned long long)event->postgres_done.number);
                print_text((const char *)event->postgres_done.fail.ptr,
                           event->postgres_done.fail.len);
                printf("}\n");
        }
        fflush(stdout);
}

static void on_note(void *user, const char *name, const char *text)
{
        (void)user;
        printf("{\"note\": \"%s\", \"text\": ", name);
        print_text(text, strlen(text));
        printf("}\n");
        fflush(stdout);
}

static void command_do(const char *name, unsigned upstream, unsigned long long epoch)
{
        struct world_effect effect = {.kind = WORLD_POSTGRES_DO};
        effect.postgres.number = ++number;
        effect.postgres.upstream = upstream;
        effect.postgres.epoch = epoch;
        for (unsigned i = 0; i < PRIMARY_ACTION_COUNT; i++)
                if (strcmp(primary_action_name((enum primary_action)i), name) == 0)
                        effect.postgres.action = (uint8_t)i;
        warden_effect(warden, &effect);
}

static void command(const char *text)
{
        char name[32];
        unsigned upstream;
        unsigned long long epoch, ms, limited = 0;
        if (sscanf(text, "do %31s %u %llu", name, &upstream, &epoch) == 3) {
                command_do(name, upstream, epoch);
        } else if (sscanf(text, "gate %llu %llu %llu", &epoch, &ms, &limited) >= 2) {
                struct world_effect effect = {.kind = WORLD_POSTGRES_GATE};
                effect.gate.epoch = epoch;
                effect.gate.until_us = uv_hrtime() / 1000 + ms * 1000;
                effect.gate.limited = limited != 0;
                warden_effect(warden, &effect);
        } else {
                fprintf(stderr, "warden-tool: what is '%s'?\n", text);
                exit(2);
        }
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
        static char store[1024];
        (void)handle;
        (void)size;
        *buffer = uv_buf_init(store, sizeof store);
}

static void on_closed(void *user)
{
        (void)user;
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
        if (len < 0) {
                uv_close((uv_handle_t *)stream, NULL);
                warden_close(warden, on_closed, NULL);
                return;
        }
        for (ssize_t i = 0; i < len; i++) {
                if (buffer->base[i] != '\n' && line_len + 1 < sizeof line) {
                        line[line_len++] = buffer->base[i];
                        continue;
                }
                line[line_len] = '\0';
                line_len = 0;
                command(line);
        }
}

static bool topology_load(const char *path, struct topology *topology)
{
        static char text[65536];
        struct topology_error error;
        FILE *file = fopen(path, "re");
        size_t len = file != NULL ? fread(text, 1, sizeof text, file) : 0;
        if (file != NULL)
                fclose(file);
        if (topology_parse(bytes_of(text, len), topology, &error))
                return true;
        fprintf(stderr, "%s: line %u: %s\n", path, error.line, error.what);
        return false;
}

static void print_line(void *user, const char *text)
{
        (void)user;
        printf("%s\n", text);
}

static void text_set(char *to, const char *from)
{
        (void)snprintf(to, WARDEN_PATH_SIZE, "%s", from);
}

int main(int argc, char **argv)
{
        static struct topology topology;
        static struct warden_config config;
        char why[512];
        heap_init(&heap, 0);
        if (argc < 9 || argc > 11 || uv_loop_init(&loop) != 0 || !topology_load(argv[1], &topology))
                return 2;
        config.self = (node_id)strtoul(argv[2], NULL, 10);
        const struct topology_node *node = topology_node_by_id(&topology, config.self);
        if (node == NULL)
                return 2;
        config.loop = &loop;
        config.heap = &heap;
        text_set(config.home, argv[3]);
        text_set(config.bin, argv[4]);
        text_set(config.password, argv[5]);
        text_set(config.library, argv[6]);
        text_set(config.init, argv[7]);
        text_set(config.archive, argv[8]);
        text_set(config.adopt, argc > 9 ? argv[9] : "");
        config.listen = node->link;
        config.listen.port = WARDEN_PORT;
        if (argc > 10)
                return warden_plan(&config, print_line, NULL) ? 0 : 1;
        config.event = on_event;
        config.note = on_note;
        if (warden_new(&config, &warden, why, sizeof why) != ERR_NONE ||
            warden_start(warden) != ERR_NONE) {
                printf("{\"refused\": ");
                print_text(why, strlen(why));
                printf("}\n");
                return 1;
        }
        warden_topology(warden, &topology);
        if (uv_pipe_init(&loop, &input, 0) != 0 || uv_pipe_open(&input, STDIN_FILENO) != 0 ||
            uv_read_start((uv_stream_t *)&input, on_alloc, on_read) != 0)
                return 2;
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        warden_free(warden);
        return uv_loop_close(&loop) == 0 ? 0 : 1;
}
