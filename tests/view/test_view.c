/* The view: what is published is what is read, whatever happens to the file, the writer or the
 * reader's luck. Damage of any kind is refused with the place, and the last good view stays. */
#include "view/view_format.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char document[] =
        "cluster = test; epoch = 7;\n"
        "region us-east { id = 1; latitude = 39.04; longitude = -77.49; capacity = 100\n"
        "  a = [\"127.10.0.1\", \"127.10.0.2\"]; aaaa = [\"2001:db8::10\"]\n"
        "  node us-east-1 { id = 1; link = \"127.10.0.1:7401\" }\n"
        "  backends = [\"127.10.0.1:9000\", \"[::1]:9001\"] }\n"
        "region eu-west { id = 9; latitude = 53.35; longitude = -6.26; a = [\"127.20.0.1\"]\n"
        "  node eu-west-1 { id = 2; link = \"127.20.0.1:7401\" } }\n"
        "region watch { id = 3; role = witness; node watch-1 { id = 3; link = \"127.30.0.1:7401\" "
        "} }\n"
        "zone example.test { ttl = 30s\n"
        "  name www { policy = nearest } name api-us { region = us-east }\n"
        "  name ha { order = [eu-west, us-east]; ttl = 5s } }\n";

static struct topology topology;
static struct view_region_now regions[TOPOLOGY_REGIONS_MAX];
static char folder[] = "/tmp/meridian-test-view-XXXXXX";
static char path[64];
static char why[512];

static struct view_content content(uint32_t n)
{
        for (uint32_t i = 0; i < topology.region_count; i++) {
                regions[i] = (struct view_region_now){
                        .state = REGION_ACTIVE,
                        .routable = i != 2,
                        .rtt_us = n,
                        .backends_healthy = n,
                };
        }
        return (struct view_content){1, n, &topology, regions, {0}};
}

static struct view_writer *writer_open(void)
{
        struct view_writer *writer = NULL;
        if (view_writer_open(path, VIEW_GROUP_DEFAULT, &writer, why, sizeof why) != ERR_NONE)
                fail_msg("%s", why);
        return writer;
}

static void publish(struct view_writer *writer, uint32_t n)
{
        struct view_content now = content(n);
        assert_int_equal(view_publish(writer, &now), ERR_NONE);
}

static void refresh(struct view_reader *reader)
{
        if (view_reader_refresh(reader, why, sizeof why) != ERR_NONE)
                fail_msg("%s", why);
}

static int setup_all(void **state)
{
        struct topology_error error;
        (void)state;
        if (!topology_parse(bytes_of_str(document), &topology, &error)) {
                (void)fprintf(stderr, "%s\n", topology_error_text(&error, why, sizeof why));
                return -1;
        }
        if (mkdtemp(folder) == NULL)
                return -1;
        (void)snprintf(path, sizeof path, "%s/view", folder);
        return 0;
}

static int teardown_all(void **state)
{
        (void)state;
        (void)unlink(path);
        return rmdir(folder);
}

static int fresh(void **state)
{
        (void)state;
        (void)unlink(path);
        return 0;
}

static uint32_t number_seen(struct view_reader *reader)
{
        const struct view *view = view_enter(reader, 0);
        assert_non_null(view);
        uint32_t n = (uint32_t)view->wall_us;
        view_leave(reader, 0, view);
        return n;
}

static void test_round_trip(void **state)
{
        (void)state;
        struct view_writer *writer = writer_open();
        struct view_reader *reader = view_reader_new(path);
        assert_int_equal(view_writer_generation(writer), 0);
        publish(writer, 5);
        refresh(reader);
        const struct view *view = view_enter(reader, 3);
        assert_non_null(view);
        assert_int_equal(view->generation, 1);
        assert_int_equal(view->epoch, 7);
        assert_int_equal(view->wall_us, 5);
        assert_int_equal(view->self, 1);
        assert_int_equal(view->self_index, 0);
        assert_int_equal(view->region_count, 3);
        const struct view_region *us = &view->regions[0];
        assert_string_equal(us->name, "us-east");
        assert_int_equal(us->a_count, 2);
        assert_int_equal(us->aaaa_count, 1);
        assert_memory_equal(us->a, topology.regions[0].a, 2 * sizeof us->a[0]);
        assert_memory_equal(us->aaaa, topology.regions[0].aaaa, sizeof us->aaaa[0]);
        assert_int_equal(us->backend_count, 2);
        assert_memory_equal(us->backends, topology.regions[0].backends, 2 * sizeof us->backends[0]);
        assert_int_equal(us->backends_healthy, 5);
        assert_int_equal(view->regions[1].state, REGION_ACTIVE);
        assert_false(view->regions[2].data);
        assert_true(view->hints[0].routable && view->hints[1].routable);
        assert_false(view->hints[2].routable);
        assert_true(view->hints_aaaa[0].routable);
        assert_false(view->hints_aaaa[1].routable);
        assert_int_equal(view_region_index(view, 9), 1);
        assert_int_equal(view_region_index(view, 2), -1);
        view_leave(reader, 3, view);

        struct routing_table table;
        uint32_t rtt_us[3] = {5, 5, 5};
        routing_compile(&topology, 1, rtt_us, &table);
        view = view_enter(reader, 0);
        assert_int_equal(view->table.count, table.count);
        for (uint32_t i = 0; i < table.count; i++)
                assert_memory_equal(&view->table.entries[i].x, &table.entries[i].x,
                                    4 * sizeof(double));
        view_leave(reader, 0, view);
        view_reader_free(reader);
        view_writer_close(writer);
}

static bool config_seen(struct view_reader *reader, struct bytes name)
{
        struct bytes value;
        const struct view *view = view_enter(reader, 0);
        assert_non_null(view);
        bool found = board_find(&view->board, BOARD_CONFIG, name, &value);
        view_leave(reader, 0, view);
        return found;
}

/* A damaged page, or one that was left by another writer, is none; the rest of the view stands. */
static void test_page(void **state)
{
        struct heap heap;
        struct buffer page;
        struct board_build build;
        (void)state;
        heap_init(&heap, 0);
        buffer_init(&page, &heap);
        board_build_init(&build, &heap);
        board_build_add(&build, BOARD_CONFIG, BYTES("size"), BYTES("10"));
        assert_int_equal(board_build_end(&build, 3, &page), ERR_NONE);
        struct view_writer *writer = writer_open();
        struct view_reader *reader = view_reader_new(path);
        for (uint32_t n = 1; n <= 4; n++) {
                struct view_content now = content(n);
                if (n != 2)
                        now.page = buffer_view(&page);
                if (n == 3)
                        page.ptr[0] ^= 1u; /* not a page */
                assert_int_equal(view_publish(writer, &now), ERR_NONE);
                page.ptr[0] = 1;
                refresh(reader);
                assert_int_equal(number_seen(reader), n);
                assert_int_equal(config_seen(reader, BYTES("size")), n == 1 || n == 4);
        }
        struct view_content large = content(5);
        static uint8_t bytes[BOARD_BYTES_MAX + 1];
        large.page = bytes_of(bytes, sizeof bytes);
        assert_int_equal(view_publish(writer, &large), ERR_LIMIT);
        /* one bit of the page flips in the file: no page, and all else as it was */
        view_writer_close(writer);
        view_reader_free(reader);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        uint8_t byte = 0;
        const struct view_slot *slot = NULL;
        off_t at = (off_t)VIEW_HEADER_SIZE; /* generation 4 lies in slot 0 */
        uint64_t len = 0;
        assert_int_equal(pread(fd, &len, sizeof len, at + (off_t)offsetof(struct view_slot, len)),
                         sizeof len);
        at += (off_t)(sizeof(*slot) - sizeof(slot->words) + view_page_at(len));
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 4u;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        (void)close(fd);
        reader = view_reader_new(path);
        refresh(reader);
        assert_int_equal(number_seen(reader), 4);
        assert_false(config_seen(reader, BYTES("size")));
        view_reader_free(reader);
        board_build_fini(&build);
        buffer_fini(&page);
}

static void test_names(void **state)
{
        (void)state;
        struct view_writer *writer = writer_open();
        struct view_reader *reader = view_reader_new(path);
        publish(writer, 1);
        refresh(reader);
        const struct view *view = view_enter(reader, 0);
        const struct view_name *name = view_name_find(view, BYTES("\3www\7example\4test\0"));
        assert_non_null(name);
        assert_int_equal(name->policy, TOPOLOGY_POLICY_NEAREST);
        assert_int_equal(name->ttl_s, 30);
        name = view_name_find(view, BYTES("\2ha\7example\4test\0"));
        assert_non_null(name);
        assert_int_equal(name->ttl_s, 5);
        assert_int_equal(name->order_count, 2);
        assert_int_equal(name->order[0], 9);
        assert_null(view_name_find(view, BYTES("\7example\4test\0")));
        assert_null(view_name_find(view, BYTES("\1x\3www\7example\4test\0")));
        assert_null(view_name_find(view, BYTES("\3www\7example\4test")));
        assert_null(view_name_find(view, BYTES("")));
        view_leave(reader, 0, view);
        view_reader_free(reader);
        view_writer_close(writer);
}

/* Encodes the document into `out` and returns the bytes. */
static struct bytes payload_make(struct heap *heap, struct buffer *out)
{
        struct view_content now = content(42);
        heap_init(heap, 0);
        buffer_init(out, heap);
        assert_int_equal(view_encode(&now, out), ERR_NONE);
        return buffer_view(out);
}

static void test_inner_names(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer out;
        static struct topology spare;
        spare = topology;
        struct view *view = malloc(sizeof *view);
        assert_non_null(view);
        (void)snprintf(topology.names[0].label, sizeof topology.names[0].label, "a.b.c");
        (void)snprintf(topology.names[1].label, sizeof topology.names[1].label, "c");
        (void)snprintf(topology.names[2].label, sizeof topology.names[2].label, "@");
        struct bytes payload = payload_make(&heap, &out);
        assert_int_equal(view_decode(payload, 1, view), ERR_NONE);
        assert_false(view_name_find(view, BYTES("\1a\1b\1c\7example\4test\0"))->empty);
        assert_true(view_name_find(view, BYTES("\1b\1c\7example\4test\0"))->empty);
        assert_false(view_name_find(view, BYTES("\1c\7example\4test\0"))->empty);
        assert_non_null(view_name_find(view, BYTES("\7example\4test\0")));
        assert_null(view_name_find(view, BYTES("\4test\0")));
        buffer_fini(&out);
        topology = spare;
        free(view);
}

static void test_payload_cut(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer out;
        struct view *view = malloc(sizeof *view);
        assert_non_null(view);
        struct bytes payload = payload_make(&heap, &out);
        assert_int_equal(view_decode(payload, 1, view), ERR_NONE);
        for (size_t len = 0; len < payload.len; len++) {
                uint8_t *copy = malloc(len + 1);
                assert_non_null(copy);
                memcpy(copy, payload.ptr, len);
                assert_int_not_equal(view_decode(bytes_of(copy, len), 1, view), ERR_NONE);
                free(copy);
        }
        buffer_u8(&out, 0);
        assert_int_equal(view_decode(buffer_view(&out), 1, view), ERR_MALFORMED);
        buffer_fini(&out);
        free(view);
}

/* What decodes in spite of damage must still be within all bounds: use it. */
static void view_use(const struct view *view)
{
        struct routing_query query = {.policy = TOPOLOGY_POLICY_NEAREST, .by_rtt = true};
        struct routing_route route;
        routing_order(&view->table, view->hints, &query, &route);
        assert_true(view->region_count <= TOPOLOGY_REGIONS_MAX);
        for (uint32_t i = 0; i < view->region_count; i++) {
                assert_true(view->regions[i].backend_count <= TOPOLOGY_BACKENDS_MAX);
                assert_true(view->regions[i].a_count <= TOPOLOGY_ADDRESSES_MAX);
        }
        for (uint32_t i = 0; i < view->name_count; i++) {
                const struct view_name *name = &view->names[i];
                assert_ptr_equal(view_name_find(view, bytes_of(name->wire, name->wire_len)), name);
                for (uint32_t j = 0; j < name->order_count; j++)
                        assert_true(view_region_index(view, name->order[j]) >= 0);
        }
}

static void test_payload_flipped(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer out;
        struct view *view = malloc(sizeof *view);
        assert_non_null(view);
        struct bytes payload = payload_make(&heap, &out);
        for (size_t bit = 0; bit < payload.len * 8; bit++) {
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                if (view_decode(payload, 1, view) == ERR_NONE)
                        view_use(view);
                out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        struct rng rng;
        uint64_t seed = 20;
        print_message("seed %llu\n", (unsigned long long)seed);
        rng_init(&rng, seed, 0);
        for (unsigned round = 0; round < 20000; round++) {
                uint8_t before[4];
                size_t places[4];
                for (unsigned i = 0; i < 4; i++) {
                        places[i] = rng_below(&rng, payload.len);
                        before[i] = out.ptr[places[i]];
                        out.ptr[places[i]] = (uint8_t)rng_next(&rng);
                }
                if (view_decode(payload, 1, view) == ERR_NONE)
                        view_use(view);
                for (unsigned i = 4; i-- > 0;)
                        out.ptr[places[i]] = before[i];
        }
        buffer_fini(&out);
        free(view);
}

static void test_nothing_there(void **state)
{
        (void)state;
        struct view_reader *reader = view_reader_new(path);
        assert_int_equal(view_reader_refresh(reader, why, sizeof why), ERR_NOT_FOUND);
        assert_non_null(strstr(why, path));
        assert_null(view_enter(reader, 0));
        struct view_writer *writer = writer_open();
        assert_int_equal(view_reader_refresh(reader, why, sizeof why), ERR_NOT_FOUND);
        assert_non_null(strstr(why, "nothing was published"));
        publish(writer, 3);
        assert_null(view_enter(reader, 0));
        refresh(reader);
        assert_int_equal(number_seen(reader), 3);
        publish(writer, 4);
        assert_int_equal(number_seen(reader), 4);
        view_writer_close(writer);
        view_reader_free(reader);
}

static void test_writer_again(void **state)
{
        (void)state;
        struct view_reader *reader = view_reader_new(path);
        struct view_writer *writer = writer_open();
        struct view_writer *second = NULL;
        publish(writer, 1);
        publish(writer, 2);
        refresh(reader);
        assert_int_equal(view_writer_open(path, VIEW_GROUP_DEFAULT, &second, why, sizeof why),
                         ERR_BUSY);
        assert_null(second);
        view_writer_close(writer);
        writer = writer_open();
        assert_int_equal(view_writer_generation(writer), 2);
        assert_int_equal(number_seen(reader), 2);
        publish(writer, 3);
        assert_int_equal(view_writer_generation(writer), 3);
        assert_int_equal(number_seen(reader), 3);
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0640);
        view_writer_close(writer);
        view_reader_free(reader);
}

static void test_content_refused(void **state)
{
        (void)state;
        struct view_reader *reader = view_reader_new(path);
        struct view_writer *writer = writer_open();
        publish(writer, 1);
        refresh(reader);
        struct view_content bad = content(2);
        bad.self = 8;
        assert_int_equal(view_publish(writer, &bad), ERR_INVALID);
        assert_int_equal(number_seen(reader), 1);
        bad.self = 0;
        assert_int_equal(view_publish(writer, &bad), ERR_NONE);
        assert_int_equal(number_seen(reader), 2);
        view_writer_close(writer);
        view_reader_free(reader);
}

static void test_replaced(void **state)
{
        (void)state;
        struct view_reader *reader = view_reader_new(path);
        for (uint32_t n = 1; n < 12; n++) {
                (void)unlink(path);
                if (n > 1)
                        assert_int_equal(view_reader_refresh(reader, why, sizeof why),
                                         ERR_NOT_FOUND);
                struct view_writer *writer = writer_open();
                if (n > 1)
                        assert_int_equal(number_seen(reader), n - 1);
                publish(writer, n);
                refresh(reader);
                assert_int_equal(number_seen(reader), n);
                view_writer_close(writer);
        }
        view_reader_free(reader);
}

/* Three views are held; the fourth copy is what the rest can move with. */
static void test_held(void **state)
{
        (void)state;
        struct view_reader *reader = view_reader_new(path);
        struct view_writer *writer = writer_open();
        const struct view *held[3];
        for (uint32_t n = 0; n < 3; n++) {
                publish(writer, n + 1);
                if (n == 0)
                        refresh(reader);
                held[n] = view_enter(reader, n);
                assert_int_equal(held[n]->wall_us, n + 1);
        }
        for (uint32_t n = 4; n < 20; n++) {
                publish(writer, n);
                (void)number_seen(reader);
                for (uint32_t i = 0; i < 3; i++) {
                        assert_int_equal(held[i]->wall_us, i + 1);
                        assert_int_equal(held[i]->regions[0].backends_healthy, i + 1);
                }
        }
        for (uint32_t i = 0; i < 3; i++)
                view_leave(reader, i, held[i]);
        publish(writer, 77);
        assert_int_equal(number_seen(reader), 77);
        view_writer_close(writer);
        view_reader_free(reader);
}

static void file_poke(off_t at, uint8_t mask)
{
        uint8_t byte;
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= mask;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        (void)close(fd);
}

static void test_damaged(void **state)
{
        (void)state;
        static const struct {
                off_t at;
                enum err err;
                const char *text;
        } cases[] = {
                {0, ERR_CORRUPT, "not a view"},
                {8, ERR_VERSION, "version"},
                {12, ERR_VERSION, "byte order"},
                {18, ERR_CORRUPT, "checksum"},
                {33, ERR_CORRUPT, "checksum"},
                {4096 + VIEW_SLOT_SIZE, ERR_CORRUPT, "sequence"},
                {4096 + VIEW_SLOT_SIZE + 8, ERR_CORRUPT, "checksum"},
                {4096 + VIEW_SLOT_SIZE + 15, ERR_CORRUPT, "length"},
                {4096 + VIEW_SLOT_SIZE + 16, ERR_CORRUPT, "checksum"},
                {4096 + VIEW_SLOT_SIZE + 64, ERR_CORRUPT, "checksum"},
                {4096 + VIEW_SLOT_SIZE + 200, ERR_CORRUPT, "checksum"},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                (void)unlink(path);
                struct view_writer *writer = writer_open();
                publish(writer, 1);
                view_writer_close(writer);
                file_poke(cases[i].at, 0x10);
                struct view_reader *reader = view_reader_new(path);
                assert_int_equal(view_reader_refresh(reader, why, sizeof why), cases[i].err);
                if (strstr(why, cases[i].text) == NULL || strstr(why, path) == NULL)
                        fail_msg("case %zu: %s", i, why);
                assert_null(view_enter(reader, 0));
                writer = writer_open(); /* replaces it */
                publish(writer, 2);
                refresh(reader);
                assert_int_equal(number_seen(reader), 2);
                view_reader_free(reader);
                view_writer_close(writer);
        }
}

/* Damage while it is in use: the last good view stays, and the next publication is seen. */
static void test_damaged_in_use(void **state)
{
        (void)state;
        struct view_writer *writer = writer_open();
        struct view_reader *reader = view_reader_new(path);
        publish(writer, 1);
        refresh(reader);
        publish(writer, 2); /* not looked at yet */
        file_poke(4096 + 100, 0xff);
        assert_int_equal(number_seen(reader), 1);
        assert_int_equal(view_reader_refresh(reader, why, sizeof why), ERR_CORRUPT);
        assert_int_equal(number_seen(reader), 1);
        publish(writer, 3);
        assert_int_equal(number_seen(reader), 3);
        refresh(reader);
        view_writer_close(writer);
        view_reader_free(reader);
}

static void test_cut_off(void **state)
{
        (void)state;
        static const off_t sizes[] = {0, 1, 63, 64, 4095, 4096, VIEW_FILE_SIZE - 1};
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
                (void)unlink(path);
                struct view_writer *writer = writer_open();
                struct view_reader *reader = view_reader_new(path);
                publish(writer, 1);
                refresh(reader);
                view_writer_close(writer);
                assert_int_equal(truncate(path, sizes[i]), 0);
                assert_int_equal(view_reader_refresh(reader, why, sizeof why), ERR_TRUNCATED);
                assert_int_equal(number_seen(reader), 1);
                assert_int_equal(view_reader_refresh(reader, why, sizeof why), ERR_TRUNCATED);
                struct view_reader *late = view_reader_new(path);
                assert_int_equal(view_reader_refresh(late, why, sizeof why), ERR_TRUNCATED);
                writer = writer_open();
                publish(writer, 2);
                refresh(reader);
                refresh(late);
                assert_int_equal(number_seen(reader), 2);
                assert_int_equal(number_seen(late), 2);
                view_writer_close(writer);
                view_reader_free(late);
                view_reader_free(reader);
        }
}

static void test_not_a_file(void **state)
{
        (void)state;
        struct view_writer *writer = NULL;
        struct view_reader *reader = view_reader_new(folder);
        assert_int_not_equal(view_reader_refresh(reader, why, sizeof why), ERR_NONE);
        assert_int_not_equal(view_writer_open(folder, VIEW_GROUP_DEFAULT, &writer, why, sizeof why),
                             ERR_NONE);
        assert_int_equal(view_writer_open("/nowhere/at/all/view", VIEW_GROUP_DEFAULT, &writer, why,
                                          sizeof why),
                         ERR_IO);
        assert_non_null(strstr(why, "/nowhere/at/all/view"));
        view_reader_free(reader);
}

_Noreturn static void storm(void)
{
        struct view_writer *writer = writer_open();
        for (uint32_t n = 1;; n++)
                publish(writer, n);
}

/* All parts of one view were written by one publication. */
static bool consistent(const struct view *view)
{
        uint32_t n = (uint32_t)view->wall_us;
        for (uint32_t i = 0; i < view->region_count; i++) {
                if (view->regions[i].backends_healthy != n || view->table.entries[i].rtt_us != n)
                        return false;
        }
        return view->region_count == 3 && view->name_count == 3;
}

static void test_killed(void **state)
{
        (void)state;
        struct view_reader *reader = view_reader_new(path);
        uint64_t last = 0;
        struct rng rng;
        rng_init(&rng, 4, 0);
        for (unsigned round = 0; round < 40 || (last == 0 && round < 4000); round++) {
                pid_t child = fork();
                assert_true(child >= 0);
                if (child == 0)
                        storm();
                (void)usleep((useconds_t)rng_between(&rng, 1000, 12000));
                (void)kill(child, SIGKILL);
                assert_int_equal(waitpid(child, NULL, 0), child);
                /* The first ones may be killed before there is a file. */
                if (view_reader_refresh(reader, why, sizeof why) != ERR_NONE && last > 0)
                        fail_msg("%s", why);
                const struct view *view = view_enter(reader, 0);
                if (view == NULL)
                        continue;
                assert_true(consistent(view));
                assert_true(view->generation >= last);
                last = view->generation;
                view_leave(reader, 0, view);
        }
        assert_true(last > 0);
        view_reader_free(reader);
}

static atomic_bool stopping;

struct looker {
        struct view_reader *reader;
        unsigned shard;
        uint64_t looked;
        uint64_t changes;
        bool failed;
};

static void *look(void *data)
{
        struct looker *looker = data;
        uint64_t last = 0;
        while (!atomic_load(&stopping)) {
                const struct view *view = view_enter(looker->reader, looker->shard);
                if (view == NULL)
                        continue;
                looker->failed |= !consistent(view) || view->generation < last;
                looker->changes += view->generation != last;
                last = view->generation;
                view_leave(looker->reader, looker->shard, view);
                looker->looked++;
        }
        return NULL;
}

static void *keep_refreshing(void *data)
{
        while (!atomic_load(&stopping)) {
                enum err err = view_reader_refresh(data, NULL, 0);
                (void)err;
                (void)usleep(500);
        }
        return NULL;
}

/* A writer as fast as it can, readers that share a shard and readers that do not, a refresher, and
 * now and then another file in the place of the first. */
static void test_threads(void **state)
{
        (void)state;
        struct view_writer *writer = writer_open();
        struct view_reader *reader = view_reader_new(path);
        struct looker lookers[4] = {0};
        pthread_t threads[4], refresher;
        atomic_store(&stopping, false);
        assert_int_equal(pthread_create(&refresher, NULL, keep_refreshing, reader), 0);
        for (unsigned i = 0; i < 4; i++) {
                lookers[i].reader = reader;
                lookers[i].shard = i / 2;
                assert_int_equal(pthread_create(&threads[i], NULL, look, &lookers[i]), 0);
        }
        for (uint32_t n = 1; n < 20000; n++) {
                publish(writer, n);
                if (n % 200 == 0) /* where the cores are busy, the others have a turn, too */
                        (void)usleep(200);
        }
        atomic_store(&stopping, true);
        uint64_t changes = 0;
        for (unsigned i = 0; i < 4; i++) {
                (void)pthread_join(threads[i], NULL);
                assert_false(lookers[i].failed);
                changes += lookers[i].changes;
        }
        (void)pthread_join(refresher, NULL);
        print_message("views seen: %llu\n", (unsigned long long)changes);
        assert_true(changes > 4);
        refresh(reader);
        assert_int_equal(number_seen(reader), 19999);
        view_writer_close(writer);
        view_reader_free(reader);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_round_trip, fresh),
                cmocka_unit_test_setup(test_page, fresh),
                cmocka_unit_test_setup(test_names, fresh),
                cmocka_unit_test(test_inner_names),
                cmocka_unit_test(test_payload_cut),
                cmocka_unit_test(test_payload_flipped),
                cmocka_unit_test_setup(test_nothing_there, fresh),
                cmocka_unit_test_setup(test_writer_again, fresh),
                cmocka_unit_test_setup(test_content_refused, fresh),
                cmocka_unit_test_setup(test_replaced, fresh),
                cmocka_unit_test_setup(test_held, fresh),
                cmocka_unit_test_setup(test_damaged, fresh),
                cmocka_unit_test_setup(test_damaged_in_use, fresh),
                cmocka_unit_test_setup(test_cut_off, fresh),
                cmocka_unit_test_setup(test_not_a_file, fresh),
                cmocka_unit_test_setup(test_killed, fresh),
                cmocka_unit_test_setup(test_threads, fresh),
        };
        return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
