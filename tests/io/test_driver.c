/* The driver with a node made of a script: which events it sees, in which
 * order, and what is durable. */
#include "io/io_priv.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs some of the above. */
#include <cmocka.h>

#define EVENTS_MAX  6000
#define EFFECTS_MAX 4000
#define WAIT_MS     60000

static char root[64];
static struct heap heap;
static uv_loop_t loop;
static struct io_driver *driver;
static bool driver_closed;

/* Whose offsets are looked at. */
static enum world_group group_watched;

/* ---- the node: it writes down what it sees, and asks for what the test has laid ready ---- */

static struct {
        bool inside;
        enum world_event_kind kinds[EVENTS_MAX];
        bool more[EVENTS_MAX];
        uint64_t now_us[EVENTS_MAX];
        size_t count;
        char text[256]; /* of all messages, one behind the other */
        struct bytes journals[WORLD_GROUP_COUNT];
        uint8_t journal_copies[WORLD_GROUP_COUNT][4096];
        size_t journal_sizes[WORLD_GROUP_COUNT]; /* with the zeros behind */
        uint64_t ends[WORLD_GROUP_COUNT];
        bool known[WORLD_GROUP_COUNT];
        unsigned syncs, fails;
        uint64_t generation, offset;
        uint64_t durable[3];                      /* by generation */
        struct world_effect effects[EFFECTS_MAX]; /* for the next step */
        size_t effect_count;
} node;

static void start_seen(const struct world_event *event)
{
        for (unsigned i = 0; i < WORLD_GROUP_COUNT; i++) {
                struct bytes journal = event->start.journals[i];
                node.journal_sizes[i] = journal.len;
                node.known[i] = event->start.known[i];
                while (journal.len > 0 && journal.ptr[journal.len - 1] == 0)
                        journal.len--;
                node.ends[i] = journal.len;
                assert_true(journal.len <= sizeof node.journal_copies[i]);
                if (journal.len > 0)
                        memcpy(node.journal_copies[i], journal.ptr, journal.len);
                node.journals[i] = bytes_of(node.journal_copies[i], journal.len);
        }
}

static void node_step(void *user, const struct world_event *event, struct world_effects *ret)
{
        static struct world_effect given[EFFECTS_MAX];
        assert_ptr_equal(user, &node);
        assert_false(node.inside);
        assert_true(node.count < EVENTS_MAX);
        node.now_us[node.count] = event->now_us;
        node.more[node.count] = event->more;
        node.kinds[node.count++] = event->kind;
        if (event->kind == WORLD_START)
                start_seen(event);
        if (event->kind == WORLD_MESSAGE)
                snprintf(node.text + strlen(node.text), sizeof node.text - strlen(node.text),
                         "%.*s ", BYTES_ARGS(event->message.data));
        if (event->kind == WORLD_JOURNAL_SYNCED) {
                node.syncs++;
                if (event->synced.group == group_watched) {
                        node.generation = event->synced.generation;
                        node.offset = event->synced.offset;
                        if (event->synced.generation < COUNT_OF(node.durable))
                                node.durable[event->synced.generation] = event->synced.offset;
                }
        }
        node.fails += event->kind == WORLD_JOURNAL_FAILED;
        memcpy(given, node.effects, node.effect_count * sizeof given[0]);
        *ret = (struct world_effects){given, node.effect_count};
        node.effect_count = 0;
}

static void ask(struct world_effect effect)
{
        assert_true(node.effect_count < EFFECTS_MAX);
        node.effects[node.effect_count++] = effect;
}

static void ask_append(enum world_group group, struct bytes data)
{
        ask((struct world_effect){.kind = WORLD_JOURNAL_APPEND,
                                  .journal = {group, 0, node.ends[group], data}});
        node.ends[group] += data.len;
}

static void ask_replace(enum world_group group, uint64_t generation, struct bytes data)
{
        ask((struct world_effect){.kind = WORLD_JOURNAL_REPLACE,
                                  .journal = {group, generation, 0, data}});
        node.ends[group] = data.len;
}

static void message(const char *text)
{
        struct world_event event = {.kind = WORLD_MESSAGE,
                                    .message = {2, WORLD_CLASS_DATA, bytes_of_str(text)}};
        assert_int_equal(io_driver_event(driver, &event), ERR_NONE);
}

/* Messages wait for the end of the loop's turn. */
static void message_now(const char *text)
{
        message(text);
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* ---- the ports: an echo, to see that nothing is entered twice ---- */

static unsigned echo_left;
static char sent[256];

static void port_send(void *user, node_id peer, enum world_class class, struct bytes data)
{
        (void)user;
        (void)peer;
        (void)class;
        char copy[32];
        snprintf(copy, sizeof copy, "%.*s", BYTES_ARGS(data));
        snprintf(sent + strlen(sent), sizeof sent - strlen(sent), "%s ", copy);
        node.inside = true;
        if (echo_left > 0) {
                echo_left--;
                message(copy);
        }
        memset(copy, '!', sizeof copy); /* the queued event must have a copy of its own */
        node.inside = false;
}

static void port_reply(void *user, uint64_t request, struct bytes data)
{
        (void)user;
        (void)request;
        (void)data;
}

static void port_publish(void *user)
{
        (void)user;
        if (echo_left > 0) {
                echo_left--;
                struct world_event event = {.kind = WORLD_PEER_UP, .peer = {2}};
                ask((struct world_effect){.kind = WORLD_PUBLISH});
                assert_int_equal(io_driver_event(driver, &event), ERR_NONE);
        }
}

static void port_note(void *user, uint64_t wall_us, const char *name, struct bytes text)
{
        (void)user;
        (void)wall_us;
        (void)name;
        (void)text;
}

static void port_redis(void *user, const struct world_effect *effect)
{
        (void)user;
        (void)effect;
}

/* ---- helpers ---- */

static void on_tick(uv_timer_t *timer)
{
        (void)timer;
}

static bool run_until(bool (*done)(void))
{
        uv_timer_t timer;
        uint64_t end = uv_hrtime() + (uint64_t)WAIT_MS * 1000000;
        uv_timer_init(&loop, &timer);
        uv_timer_start(&timer, on_tick, 1, 5);
        while (!done() && uv_hrtime() < end)
                uv_run(&loop, UV_RUN_ONCE);
        uv_close((uv_handle_t *)&timer, NULL);
        uv_run(&loop, UV_RUN_NOWAIT);
        return done();
}

static void driver_open(void)
{
        struct io_error error;
        struct io_config config = {
                .loop = &loop,
                .heap = &heap,
                .data_dir = root,
                .incarnation = 3,
                .seed = 5,
                .node = {&node, node_step},
                .ports = {.send = port_send,
                          .reply = port_reply,
                          .publish = port_publish,
                          .note = port_note,
                          .redis = port_redis},
        };
        memset(&node, 0, sizeof node);
        sent[0] = '\0';
        echo_left = 0;
        driver_closed = false;
        group_watched = WORLD_GROUP_GLOBAL;
        if (io_driver_new(&config, &driver, &error) != ERR_NONE)
                fail_msg("%s", error.text);
        assert_int_equal(node.count, 1);
        assert_int_equal(node.kinds[0], WORLD_START);
}

static void on_closed(void *user)
{
        (void)user;
        driver_closed = true;
}

static bool closed(void)
{
        return driver_closed;
}

static void driver_shut(void)
{
        if (driver == NULL)
                return;
        io_driver_close(driver, on_closed, NULL);
        assert_true(run_until(closed));
        io_driver_free(driver);
        driver = NULL;
}

static uint64_t offset_wanted;

static bool offset_reached(void)
{
        return node.offset >= offset_wanted;
}

static bool generation_two(void)
{
        return node.generation == 2;
}

static bool failed(void)
{
        return node.fails > 0;
}

/* ---- tests ---- */

static void test_append_and_reopen(void **state)
{
        (void)state;
        driver_open();
        assert_int_equal(node.journals[0].len, 0);
        ask_append(WORLD_GROUP_GLOBAL, BYTES("hello "));
        ask_append(WORLD_GROUP_REGION, BYTES("region"));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("world"));
        message("go");
        assert_int_equal(node.syncs, 0);
        offset_wanted = 11;
        assert_true(run_until(offset_reached));
        driver_shut();
        driver_open();
        assert_true(bytes_equal(node.journals[WORLD_GROUP_GLOBAL], BYTES("hello world")));
        assert_true(bytes_equal(node.journals[WORLD_GROUP_REGION], BYTES("region")));
        /* Space was made ready, and offsets go on from where the node's own bytes end. */
        assert_int_equal(node.journal_sizes[WORLD_GROUP_GLOBAL], 1 << 20);
        ask_append(WORLD_GROUP_GLOBAL, BYTES("!"));
        message("go");
        offset_wanted = 12;
        assert_true(run_until(offset_reached));
        assert_int_equal(node.offset, 12);
        assert_int_equal(node.generation, 0);
}

static uint64_t file_size(void)
{
        char path[128];
        struct stat stat_now;
        snprintf(path, sizeof path, "%s/journal-global", root);
        assert_int_equal(stat(path, &stat_now), 0);
        return (uint64_t)stat_now.st_size;
}

static void append_until(struct bytes data, uint64_t wanted)
{
        ask_append(WORLD_GROUP_GLOBAL, data);
        message("go");
        offset_wanted = wanted;
        assert_true(run_until(offset_reached));
        assert_int_equal(node.offset, wanted);
}

/* The size changes when an append goes over its end, and at no other. */
static void test_space_ready(void **state)
{
        static uint8_t block[1 << 19];
        const uint64_t half = sizeof block, mebibyte = 1 << 20;
        (void)state;
        memset(block, 'b', sizeof block);
        driver_open();
        append_until(bytes_of(block, half), half);
        assert_int_equal(file_size(), mebibyte);
        append_until(bytes_of(block, half), mebibyte);
        assert_int_equal(file_size(), mebibyte);
        append_until(BYTES("x"), mebibyte + 1);
        assert_int_equal(file_size(), 2 * mebibyte);
        ask_replace(WORLD_GROUP_GLOBAL, 2, BYTES("short"));
        message("go");
        assert_true(run_until(generation_two));
        assert_int_equal(file_size(), mebibyte);
}

/* A journal from before, with nothing behind its last byte; and one that holds only zeros, as a
 * crash in the first write may leave it. */
static void test_space_found(void **state)
{
        const struct {
                const char *text;
                size_t len, handed;
        } cases[] = {{"before", 6, 6}, {"b\0\0", 3, 3}, {"\0\0\0\0", 4, 0}};
        char path[128];
        (void)state;
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                snprintf(path, sizeof path, "%s/journal-global", root);
                FILE *file = fopen(path, "we");
                assert_non_null(file);
                fwrite(cases[i].text, 1, cases[i].len, file);
                fclose(file);
                driver_open();
                assert_int_equal(node.journal_sizes[WORLD_GROUP_GLOBAL], cases[i].handed);
                append_until(BYTES("!"), node.ends[WORLD_GROUP_GLOBAL] + 1);
                driver_shut();
                driver_open();
                assert_int_equal(node.journals[0].ptr[node.journals[0].len - 1], '!');
                driver_shut();
                unlink(path);
        }
}

/* A thousand appends in one turn are one write. */
static void test_group_commit(void **state)
{
        (void)state;
        driver_open();
        for (unsigned i = 0; i < 1000; i++)
                ask_append(WORLD_GROUP_GLOBAL, BYTES("x"));
        message("go");
        offset_wanted = 1000;
        assert_true(run_until(offset_reached));
        assert_int_equal(node.syncs, 1);
        assert_int_equal(node.offset, 1000);
}

static void test_replace(void **state)
{
        (void)state;
        driver_open();
        ask_append(WORLD_GROUP_GLOBAL, BYTES("old and long"));
        message("go");
        offset_wanted = 12;
        assert_true(run_until(offset_reached));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("dropped"));
        ask_replace(WORLD_GROUP_GLOBAL, 1, BYTES("never seen"));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("nor this"));
        ask_replace(WORLD_GROUP_GLOBAL, 2, BYTES("new"));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("+more"));
        message("go");
        assert_true(run_until(generation_two));
        assert_int_equal(node.offset, 8);
        driver_shut();
        driver_open();
        assert_true(bytes_equal(node.journals[WORLD_GROUP_GLOBAL], BYTES("new+more")));
}

/* A crash in the middle of a replacement leaves the file aside: the old journal counts. */
static void test_replace_unfinished(void **state)
{
        (void)state;
        char path[128];
        driver_open();
        ask_append(WORLD_GROUP_GLOBAL, BYTES("kept"));
        message("go");
        offset_wanted = 4;
        assert_true(run_until(offset_reached));
        driver_shut();
        snprintf(path, sizeof path, "%s/journal-global.new", root);
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        fputs("half of a repl", file);
        fclose(file);
        driver_open();
        assert_true(bytes_equal(node.journals[WORLD_GROUP_GLOBAL], BYTES("kept")));
        assert_int_equal(access(path, F_OK), -1);
}

static void ask_piece(enum world_effect_kind kind, uint64_t generation, uint64_t offset,
                      struct bytes data)
{
        ask((struct world_effect){.kind = kind,
                                  .journal = {WORLD_GROUP_GLOBAL, generation, offset, data}});
        if (kind == WORLD_JOURNAL_SWAP)
                node.ends[WORLD_GROUP_GLOBAL] = offset + data.len;
}

/* What was told as durable of the journal in use and of the one beside it. */
static uint64_t wanted[3];

static bool durable(void)
{
        for (size_t i = 0; i < COUNT_OF(wanted); i++)
                if (node.durable[i] < wanted[i])
                        return false;
        return true;
}

/* A new journal in pieces: an earlier one is dropped, the old one goes on until the swap, and what
 * is appended behind that goes to the new one. */
static void test_pieces(void **state)
{
        (void)state;
        driver_open();
        memset(node.durable, 0, sizeof node.durable);
        memset(wanted, 0, sizeof wanted);
        ask_append(WORLD_GROUP_GLOBAL, BYTES("old"));
        ask_piece(WORLD_JOURNAL_ASIDE, 1, 0, BYTES("given up, and long"));
        message("go");
        wanted[0] = 3;
        assert_true(run_until(durable));
        ask_piece(WORLD_JOURNAL_ASIDE, 2, 0, BYTES("first "));
        ask_piece(WORLD_JOURNAL_ASIDE, 2, 6, BYTES("second "));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("+goes on"));
        message("go");
        wanted[0] = 11;
        wanted[2] = 13;
        assert_true(run_until(durable));
        driver_shut();
        driver_open();
        assert_true(bytes_equal(node.journals[WORLD_GROUP_GLOBAL], BYTES("old+goes on")));
        memset(node.durable, 0, sizeof node.durable);
        memset(wanted, 0, sizeof wanted);
        node.ends[WORLD_GROUP_GLOBAL] = 11;
        ask_piece(WORLD_JOURNAL_ASIDE, 2, 0, BYTES("first "));
        message("go");
        wanted[2] = 6;
        assert_true(run_until(durable));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("dropped"));
        ask_piece(WORLD_JOURNAL_SWAP, 2, 6, BYTES("last"));
        ask_append(WORLD_GROUP_GLOBAL, BYTES("+more"));
        message("go");
        wanted[2] = 15;
        assert_true(run_until(durable));
        driver_shut();
        driver_open();
        assert_true(bytes_equal(node.journals[WORLD_GROUP_GLOBAL], BYTES("first last+more")));
}

/* An empty journal of which something was told as durable is lost, not new. */
static void test_known(void **state)
{
        (void)state;
        char path[128];
        driver_open();
        assert_false(node.known[WORLD_GROUP_GLOBAL]);
        ask_append(WORLD_GROUP_GLOBAL, BYTES("something"));
        message("go");
        offset_wanted = 9;
        assert_true(run_until(offset_reached));
        driver_shut();
        snprintf(path, sizeof path, "%s/journal-global.begun", root);
        assert_int_equal(unlink(path), 0); /* as an earlier build left it */
        driver_open();
        assert_true(node.known[WORLD_GROUP_GLOBAL]);
        assert_false(node.known[WORLD_GROUP_REGION]);
        driver_shut();
        snprintf(path, sizeof path, "%s/journal-global", root);
        assert_int_equal(truncate(path, 0), 0);
        driver_open();
        assert_int_equal(node.journals[WORLD_GROUP_GLOBAL].len, 0);
        assert_true(node.known[WORLD_GROUP_GLOBAL]);
}

/* A close in the same turn still writes what was asked. */
static void test_close_writes(void **state)
{
        (void)state;
        driver_open();
        ask_append(WORLD_GROUP_REGION, BYTES("last words"));
        message("go");
        driver_shut();
        driver_open();
        assert_true(bytes_equal(node.journals[WORLD_GROUP_REGION], BYTES("last words")));
}

/* Two sends in one step; each brings a message, which brings nothing more. */
static void test_effects_before_events(void **state)
{
        (void)state;
        driver_open();
        echo_left = 2;
        ask((struct world_effect){.kind = WORLD_SEND, .send = {2, WORLD_CLASS_DATA, BYTES("a")}});
        ask((struct world_effect){.kind = WORLD_SEND, .send = {2, WORLD_CLASS_DATA, BYTES("b")}});
        message_now("go");
        assert_string_equal(sent, "a b ");
        assert_string_equal(node.text, "go a b ");
}

/* A cascade without end does not hold up the loop. */
static void test_cascade_is_bounded(void **state)
{
        (void)state;
        driver_open();
        echo_left = 3000;
        ask((struct world_effect){.kind = WORLD_PUBLISH});
        message_now("go");
        assert_true(node.count < 1100);
        message("later");
        offset_wanted = 0;
        for (unsigned i = 0; i < 10; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
        assert_int_equal(echo_left, 0);
        assert_int_equal(node.count, 3000 + 3);
        assert_string_equal(node.text, "go later ");
}

static bool timer_seen(void)
{
        return node.kinds[node.count - 1] == WORLD_TIMER;
}

static void test_wake(void **state)
{
        (void)state;
        driver_open();
        uint64_t now_us = io_driver_now_us(driver);
        ask((struct world_effect){.kind = WORLD_WAKE, .wake = {now_us + 3600000000u}});
        message_now("far");
        ask((struct world_effect){.kind = WORLD_WAKE, .wake = {now_us + 20000}});
        message_now("near");
        size_t before = node.count;
        assert_true(run_until(timer_seen));
        assert_true(node.now_us[node.count - 1] >= now_us + 20000);
        assert_int_equal(node.count, before + 1);
}

/* One clock read a turn: events of one turn have one time. */
static void test_one_time_a_turn(void **state)
{
        (void)state;
        driver_open();
        message("a");
        usleep(2000);
        message_now("b");
        assert_int_equal(node.now_us[1], node.now_us[2]);
        usleep(2000);
        message_now("c");
        assert_true(node.now_us[3] >= node.now_us[2] + 2000);
}

/* The node is told that more follows, but for the last of a turn and whatever never waits. */
static void test_more(void **state)
{
        (void)state;
        driver_open();
        message("a");
        message("b");
        struct world_event event = {.kind = WORLD_PEER_UP, .peer = {2}};
        assert_int_equal(io_driver_event(driver, &event), ERR_NONE);
        message_now("c");
        assert_int_equal(node.count, 5);
        const bool more[] = {false, true, true, false, false};
        for (size_t i = 0; i < COUNT_OF(more); i++)
                assert_int_equal(node.more[i], more[i]);
}

/* The file may not grow: the node is told once, and nothing is written any more. */
static void test_failure(void **state)
{
        (void)state;
        struct rlimit limit, small;
        driver_open();
        getrlimit(RLIMIT_FSIZE, &limit);
        small = limit;
        small.rlim_cur = 4;
        setrlimit(RLIMIT_FSIZE, &small);
        ask_append(WORLD_GROUP_GLOBAL, BYTES("more than four"));
        message("go");
        bool told = run_until(failed);
        ask_append(WORLD_GROUP_GLOBAL, BYTES("x"));
        ask_replace(WORLD_GROUP_GLOBAL, 1, BYTES("y"));
        message("go");
        ask_append(WORLD_GROUP_REGION, BYTES("ok"));
        message("go");
        group_watched = WORLD_GROUP_REGION;
        offset_wanted = 2;
        bool other = run_until(offset_reached);
        setrlimit(RLIMIT_FSIZE, &limit);
        assert_true(told);
        assert_true(other);
        assert_int_equal(node.fails, 1);
        assert_int_equal(node.syncs, 1);
}

static void test_no_folder(void **state)
{
        (void)state;
        struct io_error error;
        struct io_config config = {.loop = &loop, .heap = &heap, .data_dir = "/nonexistent/data"};
        assert_int_equal(io_driver_new(&config, &driver, &error), ERR_NOT_FOUND);
        assert_non_null(strstr(error.text, "/nonexistent/data/journal-global"));
        driver = NULL;
}

static int test_setup(void **state)
{
        (void)state;
        snprintf(root, sizeof root, "/tmp/meridian-io-XXXXXX");
        return mkdtemp(root) == NULL ? -1 : 0;
}

static int test_teardown(void **state)
{
        (void)state;
        char command[128];
        driver_shut();
        snprintf(command, sizeof command, "rm -rf '%s'", root);
        int removed = system(command); /* NOLINT(cert-env33-c): our own folder */
        return heap.used_bytes == 0 ? removed : -1;
}

#define IO_TEST(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)

int main(void)
{
        heap_init(&heap, 0);
        signal(SIGXFSZ, SIG_IGN);
        if (uv_loop_init(&loop) != 0)
                return 1;
        const struct CMUnitTest tests[] = {
                IO_TEST(test_append_and_reopen),
                IO_TEST(test_space_ready),
                IO_TEST(test_space_found),
                IO_TEST(test_group_commit),
                IO_TEST(test_replace),
                IO_TEST(test_pieces),
                IO_TEST(test_known),
                IO_TEST(test_replace_unfinished),
                IO_TEST(test_close_writes),
                IO_TEST(test_effects_before_events),
                IO_TEST(test_cascade_is_bounded),
                IO_TEST(test_wake),
                IO_TEST(test_one_time_a_turn),
                IO_TEST(test_more),
                IO_TEST(test_failure),
                IO_TEST(test_no_folder),
        };
        int failed_count = cmocka_run_group_tests_name("io/driver", tests, NULL, NULL);
        return uv_loop_close(&loop) == 0 ? failed_count : 1;
}
