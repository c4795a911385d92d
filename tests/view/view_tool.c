/* view-tool - publishes views for tests and benches, without a daemon.
 *
 * usage: view-tool publish VIEW TOPOLOGY SELF [REGION=WORD[,WORD...]]...
 *        view-tool serve VIEW TOPOLOGY            for each line of its input: SELF and words
 *        view-tool storm VIEW TOPOLOGY SELF MS    publishes as fast as it can, for MS milliseconds
 *        view-tool show VIEW                      what a reader sees
 *        view-tool geo CSV OUTPUT                 makes a geo database
 *
 * All regions are active and routable with healthy backends, unless words say otherwise: a state's
 * name (then routable if that state serves), `sick=BITS` (hexadecimal: backends that are not
 * healthy), `rtt=MS`, `load=PER-MILLE`, `unroutable`, `routable`. `old=SECONDS` for REGION `view`
 * backdates it. It ends non-zero, with a sentence, at the first fault. */
#include "geo/geo_write.h"
#include "view/view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct topology topology;
static struct view_region_now regions[TOPOLOGY_REGIONS_MAX];
static uint64_t backdate_us;

_Noreturn static void die(const char *what, const char *about)
{
        (void)fprintf(stderr, "view-tool: %s: %s\n", about, what);
        exit(1);
}

static uint64_t now_us(clockid_t id)
{
        struct timespec now;
        (void)clock_gettime(id, &now);
        return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void file_read(const char *path, struct buffer *out)
{
        FILE *file = fopen(path, "rbe");
        if (file == NULL)
                die(strerror(errno), path);
        size_t got = 1;
        while (got > 0) {
                uint8_t *room = buffer_reserve(out, 65536);
                if (room == NULL)
                        die("out of memory", path);
                got = fread(room, 1, 65536, file);
                buffer_commit(out, got);
        }
        (void)fclose(file);
}

static void topology_load(const char *path)
{
        struct heap heap;
        struct buffer text;
        struct topology_error error;
        char sentence[512];
        heap_init(&heap, 0);
        buffer_init(&text, &heap);
        file_read(path, &text);
        if (!topology_parse(buffer_view(&text), &topology, &error))
                die(topology_error_text(&error, sentence, sizeof sentence), path);
        buffer_fini(&text);
}

static void regions_reset(void)
{
        backdate_us = 0;
        for (uint32_t i = 0; i < topology.region_count; i++) {
                regions[i] = (struct view_region_now){
                        .state = REGION_ACTIVE,
                        .routable = topology.regions[i].role == TOPOLOGY_ROLE_DATA,
                        .rtt_us = 10000 * (i + 1),
                        .backends_healthy = UINT64_MAX,
                };
        }
}

static void word_apply(struct view_region_now *now, const char *word)
{
        enum region_state state;
        if (strncmp(word, "sick=", 5) == 0) {
                now->backends_healthy = ~strtoull(word + 5, NULL, 16);
        } else if (strncmp(word, "rtt=", 4) == 0) {
                now->rtt_us = (uint32_t)strtoul(word + 4, NULL, 10) * 1000u;
        } else if (strncmp(word, "load=", 5) == 0) {
                now->load_per_mille = (uint16_t)strtoul(word + 5, NULL, 10);
        } else if (strcmp(word, "routable") == 0 || strcmp(word, "unroutable") == 0) {
                now->routable = word[0] == 'r';
        } else if (region_state_parse(bytes_of_str(word), &state)) {
                now->state = state;
                now->routable = region_state_serves(state);
        } else {
                die("not a word that is known", word);
        }
}

/* "us-east=down,rtt=70" */
static void setting_apply(char *setting)
{
        char *words = strchr(setting, '=');
        char *rest = NULL;
        if (words == NULL)
                die("not REGION=WORDS", setting);
        *words++ = '\0';
        if (strcmp(setting, "view") == 0) {
                if (strncmp(words, "old=", 4) != 0)
                        die("not old=SECONDS", words);
                backdate_us = strtoull(words + 4, NULL, 10) * 1000000u;
                return;
        }
        const struct topology_region *region =
                topology_region_by_name(&topology, bytes_of_str(setting));
        if (region == NULL)
                die("no such region", setting);
        struct view_region_now *now = &regions[topology_region_index(&topology, region)];
        for (char *word = strtok_r(words, ",", &rest); word != NULL;
             word = strtok_r(NULL, ",", &rest))
                word_apply(now, word);
}

static uint8_t region_id_of(const char *name)
{
        const struct topology_region *region =
                topology_region_by_name(&topology, bytes_of_str(name));
        if (region == NULL)
                die("no such region", name);
        return region->id;
}

static struct view_writer *writer_open(const char *path)
{
        char why[512];
        struct view_writer *writer = NULL;
        if (view_writer_open(path, VIEW_GROUP_DEFAULT, &writer, why, sizeof why) != ERR_NONE)
                die(why, path);
        return writer;
}

static void publish(struct view_writer *writer, uint8_t self)
{
        struct view_content content = {
                .self = self,
                .wall_us = now_us(CLOCK_REALTIME) - backdate_us,
                .topology = &topology,
                .regions = regions,
        };
        enum err err = view_publish(writer, &content);
        if (err != ERR_NONE)
                die(err_text(err), "publishing");
}

static int run_publish(int count, char **arguments)
{
        if (count < 3)
                die("VIEW TOPOLOGY SELF are wanted", "publish");
        topology_load(arguments[1]);
        regions_reset();
        struct view_writer *writer = writer_open(arguments[0]);
        for (int i = 3; i < count; i++)
                setting_apply(arguments[i]);
        publish(writer, region_id_of(arguments[2]));
        (void)printf("%llu\n", (unsigned long long)view_writer_generation(writer));
        view_writer_close(writer);
        return 0;
}

static int run_serve(int count, char **arguments)
{
        char line[1024];
        if (count != 2)
                die("VIEW TOPOLOGY are wanted", "serve");
        topology_load(arguments[1]);
        struct view_writer *writer = writer_open(arguments[0]);
        while (fgets(line, sizeof line, stdin) != NULL) {
                char *rest = NULL;
                char *self = strtok_r(line, " \n", &rest);
                if (self == NULL)
                        continue;
                regions_reset();
                for (char *word = strtok_r(NULL, " \n", &rest); word != NULL;
                     word = strtok_r(NULL, " \n", &rest))
                        setting_apply(word);
                publish(writer, region_id_of(self));
                (void)printf("%llu\n", (unsigned long long)view_writer_generation(writer));
                (void)fflush(stdout);
        }
        view_writer_close(writer);
        return 0;
}

static int run_storm(int count, char **arguments)
{
        if (count != 4)
                die("VIEW TOPOLOGY SELF MS are wanted", "storm");
        topology_load(arguments[1]);
        regions_reset();
        struct view_writer *writer = writer_open(arguments[0]);
        uint8_t self = region_id_of(arguments[2]);
        uint64_t end_us = now_us(CLOCK_MONOTONIC) + strtoull(arguments[3], NULL, 10) * 1000u;
        while (now_us(CLOCK_MONOTONIC) < end_us)
                publish(writer, self);
        (void)printf("%llu\n", (unsigned long long)view_writer_generation(writer));
        view_writer_close(writer);
        return 0;
}

static int run_show(int count, char **arguments)
{
        char why[512];
        if (count != 1)
                die("VIEW is wanted", "show");
        struct view_reader *reader = view_reader_new(arguments[0]);
        if (reader == NULL)
                die("out of memory", "show");
        if (view_reader_refresh(reader, why, sizeof why) != ERR_NONE)
                die(why, "show");
        const struct view *view = view_enter(reader, 0);
        if (view == NULL)
                die("no view", "show");
        (void)printf("generation %llu epoch %llu self %u\n", (unsigned long long)view->generation,
                     (unsigned long long)view->epoch, view->self);
        for (uint32_t i = 0; i < view->region_count; i++)
                (void)printf("region %s %s %s backends %u healthy %llx\n", view->regions[i].name,
                             region_state_name(view->regions[i].state),
                             view->hints[i].routable ? "routable" : "unroutable",
                             view->regions[i].backend_count,
                             (unsigned long long)view->regions[i].backends_healthy);
        view_leave(reader, 0, view);
        view_reader_free(reader);
        return 0;
}

static int run_geo(int count, char **arguments)
{
        struct heap heap;
        struct buffer csv, database;
        struct geo_write_error error;
        char text[256];
        if (count != 2)
                die("CSV OUTPUT are wanted", "geo");
        heap_init(&heap, 0);
        buffer_init(&csv, &heap);
        buffer_init(&database, &heap);
        file_read(arguments[0], &csv);
        if (geo_write_csv(&heap, buffer_view(&csv), 1700000000, &database, &error) != ERR_NONE) {
                (void)snprintf(text, sizeof text, "line %zu: %s", error.line, error.why);
                die(text, arguments[0]);
        }
        (void)snprintf(text, sizeof text, "%s.new", arguments[1]);
        FILE *file = fopen(text, "wbe");
        if (file == NULL || fwrite(database.ptr, 1, database.len, file) != database.len ||
            fclose(file) != 0 || rename(text, arguments[1]) != 0)
                die(strerror(errno), arguments[1]);
        buffer_fini(&csv);
        buffer_fini(&database);
        return 0;
}

static const struct {
        const char *name;
        int (*run)(int count, char **arguments);
} commands[] = {
        {"publish", run_publish}, {"serve", run_serve}, {"storm", run_storm},
        {"show", run_show},       {"geo", run_geo},
};

int main(int argc, char **argv)
{
        for (size_t i = 0; argc > 1 && i < COUNT_OF(commands); i++) {
                if (strcmp(argv[1], commands[i].name) == 0)
                        return commands[i].run(argc - 2, argv + 2);
        }
        die("publish, serve, storm, show or geo is wanted", "usage");
}
