/* What PostgreSQL writes in text: histories with our epochs, pg_controldata, pg_waldump; as it is,
 * cut at every length, and with bytes changed. */
#include "../../src/warden/history.c"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <stdlib.h>

static struct bytes text_of(const char *text)
{
        return bytes_of_str(text);
}

/* As a server wrote it: the comment was in the history of timeline 1 before the promotion. */
static const char second[] = "# meridian: after timeline 1 epoch 44\n"
                             "\n"
                             "1\t0/402E538\tno recovery target specified\n";

static const char fourth[] = "# meridian: after timeline 1 epoch 7\n"
                             "# meridian: after timeline 1 epoch 9\n"
                             "\n"
                             "1\t0/402E538\tno recovery target specified\n"
                             "# by somebody else\n"
                             "\n"
                             "2\t1/5000000\tno recovery target specified\n"
                             "# meridian: after timeline 3 epoch 30\n"
                             "\n"
                             "3\t1/6000000\tno recovery target specified\n";

static void test_histories(void **state)
{
        (void)state;
        struct history history;
        assert_true(history_parse(text_of(""), 1, 5, &history));
        assert_int_equal(history.count, 0);
        assert_int_equal(history.epoch, 5);
        assert_true(history_parse(text_of(second), 2, 5, &history));
        assert_int_equal(history.count, 1);
        assert_int_equal(history.epoch, 44);
        assert_int_equal(history.lines[0].timeline, 1);
        assert_int_equal(history.lines[0].epoch, 5);
        assert_int_equal(history.lines[0].end, 0x402E538);
        /* Of two comments the last counts: the first promotion did not happen. A promotion by hand
         * has none. */
        assert_true(history_parse(text_of(fourth), 4, 0, &history));
        assert_int_equal(history.count, 3);
        assert_int_equal(history.lines[0].epoch, 0);
        assert_int_equal(history.lines[1].epoch, 9);
        assert_int_equal(history.lines[2].epoch, 0);
        assert_int_equal(history.epoch, 30);
        /* A comment about the timeline itself says nothing yet. */
        assert_true(
                history_parse(text_of("# meridian: after timeline 1 epoch 3\n"), 1, 2, &history));
        assert_int_equal(history.epoch, 2);
}

static void test_bad_histories(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                uint32_t timeline;
                const char *why;
        } rows[] = {
                {"1\t0/1\tx\n", 1, "it left itself"},
                {"1\t0/1\tx\n", 0, "there is no timeline 0"},
                {"2\t0/1\n1\t0/2\n", 3, "timelines grow"},
                {"1\t0/2\n2\t0/1\n", 3, "places do not go back"},
                {"0\t0/1\n", 3, "no timeline 0"},
                {"x\t0/1\n", 3, "a number"},
                {"1\n", 3, "a place"},
                {"1\t0-1\n", 3, "a place with a slash"},
                {"4294967296\t0/1\n", 3, "too large"},
                {"1\t0/123456789\n", 3, "too many digits"},
        };
        struct history history;
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                if (history_parse(text_of(rows[i].text), rows[i].timeline, 0, &history))
                        fail_msg("accepted: %s", rows[i].why);
}

static void test_told(void **state)
{
        (void)state;
        static char text[8192];
        size_t len = 0;
        struct history history;
        struct world_postgres told = {0};
        for (unsigned i = 1; i <= HISTORY_LINES_MAX + 3; i++)
                len += (size_t)snprintf(text + len, sizeof text - len,
                                        "# meridian: after timeline %u epoch %u\n%u\t0/%X\tx\n", i,
                                        1000 + i, i, i * 16);
        assert_true(history_parse(bytes_of(text, len), 100, 9, &history));
        assert_true(history.cut);
        assert_int_equal(history.count, HISTORY_LINES_MAX);
        assert_int_equal(history.lines[0].timeline, 4);
        history_tell(&history, &told);
        assert_true(told.lines_cut);
        assert_int_equal(told.line_count, WORLD_POSTGRES_LINES_MAX);
        assert_int_equal(told.timeline, 100);
        assert_int_equal(told.epoch, 1000 + HISTORY_LINES_MAX + 3);
        assert_int_equal(told.lines[0].timeline, HISTORY_LINES_MAX + 3);
        assert_int_equal(told.lines[0].epoch, 1000 + HISTORY_LINES_MAX + 2);
        assert_true(history_parse(text_of(second), 2, 5, &history));
        history_tell(&history, &told);
        assert_false(told.lines_cut);
        assert_int_equal(told.line_count, 1);
}

static struct history history_of(uint32_t timeline, uint64_t epoch, unsigned count,
                                 const struct history_line *lines)
{
        struct history history = {.timeline = timeline, .epoch = epoch, .count = count};
        for (unsigned i = 0; i < count; i++)
                history.lines[i] = lines[i];
        return history;
}

static void test_forks(void **state)
{
        (void)state;
        static const struct history_line one[] = {{1, 5, 100}};
        static const struct history_line two[] = {{1, 5, 100}, {2, 8, 200}};
        static const struct history_line strange[] = {{1, 6, 100}};
        struct history own = history_of(1, 5, 0, NULL);
        struct history other = history_of(2, 8, 1, one);
        uint32_t timeline = 0;
        uint64_t lsn = 0;
        assert_true(history_fork(&own, 130, &other, 150, &timeline, &lsn));
        assert_int_equal(timeline, 1);
        assert_int_equal(lsn, 100);
        assert_true(history_fork(&own, 90, &other, 150, &timeline, &lsn));
        assert_int_equal(lsn, 90);
        /* Both began a timeline 2: the epochs tell them apart. */
        own = history_of(2, 7, 1, one);
        assert_true(history_fork(&own, 300, &other, 150, &timeline, &lsn));
        assert_int_equal(timeline, 1);
        assert_int_equal(lsn, 100);
        own = history_of(2, 8, 1, one);
        other = history_of(3, 9, 2, two);
        assert_true(history_fork(&own, 300, &other, 250, &timeline, &lsn));
        assert_int_equal(timeline, 2);
        assert_int_equal(lsn, 200);
        other = history_of(2, 9, 1, strange);
        assert_false(history_fork(&own, 300, &other, 150, &timeline, &lsn));
}

static void test_places(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                bool good;
                uint64_t lsn;
        } rows[] = {{"0/17529B0", true, 0x17529B0},
                    {"1/0", true, 1ull << 32},
                    {"ffffffff/FFFFFFFF", true, UINT64_MAX},
                    {"", false, 0},
                    {"/", false, 0},
                    {"1/", false, 0},
                    {"/1", false, 0},
                    {"1", false, 0},
                    {"G/1", false, 0},
                    {"1/2/3", false, 0},
                    {"123456789/0", false, 0},
                    {" 1/2", false, 0}};
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                uint64_t lsn = 0;
                if (history_lsn_parse(text_of(rows[i].text), &lsn) != rows[i].good ||
                    lsn != rows[i].lsn)
                        fail_msg("%s", rows[i].text);
        }
        uint64_t epoch = 0;
        assert_true(history_epoch_parse(text_of("timeline 1 epoch 42\n"), &epoch));
        assert_int_equal(epoch, 42);
        assert_false(history_epoch_parse(text_of("timeline 1 epoch\n"), &epoch));
        assert_false(history_epoch_parse(text_of("timeline 1 epoch 1\nx"), &epoch));
        assert_false(history_epoch_parse(text_of("timeline 1 epoch 99999999999999999999"), &epoch));
        assert_false(history_epoch_parse(text_of(""), &epoch));
}

static const char control_text[] =
        "pg_control version number:            1300\n"
        "Catalog version number:               202209061\n"
        "Database system identifier:           7710534273852759513\n"
        "Database cluster state:               shut down\n"
        "pg_control last modified:             Sat Nov 21 08:10:58 2026\n"
        "Latest checkpoint location:           0/17529B0\n"
        "Latest checkpoint's REDO location:    0/17529A0\n"
        "Latest checkpoint's REDO WAL file:    000000010000000000000001\n"
        "Latest checkpoint's TimeLineID:       3\n"
        "Time of latest checkpoint:            Sat Nov 21 08:10:58 2026\n"
        "Minimum recovery ending location:     0/200\n"
        "Min recovery ending loc's timeline:   2\n"
        "wal_log_hints setting:                off\n"
        "Bytes per WAL segment:                16777216\n"
        "Data page checksum version:           1\n";

static void test_control(void **state)
{
        (void)state;
        struct history_control control;
        assert_true(history_control_parse(text_of(control_text), &control));
        assert_int_equal(control.system, 7710534273852759513ull);
        assert_int_equal(control.checkpoint, 0x17529B0);
        assert_int_equal(control.redo, 0x17529A0);
        assert_int_equal(control.timeline, 3);
        assert_int_equal(control.recovered, 0x200);
        assert_int_equal(control.recovered_timeline, 2);
        assert_int_equal(control.segment_bytes, 1 << 24);
        assert_int_equal(control.version, 1300);
        assert_true(control.checksums);
        assert_false(control.hints);
        assert_true(control.clean);
        /* Cut anywhere before the last value, it is none. */
        size_t whole = sizeof control_text - 1;
        for (size_t len = 0; len + 2 < whole; len++)
                assert_false(history_control_parse(bytes_of(control_text, len), &control));
}

static void test_waldump(void **state)
{
        (void)state;
        static const char record[] =
                "rmgr: Heap        len (rec/tot):     54/    54, tx: 7, lsn: 0/00000028, prev 0/0\n"
                "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/017529B0, "
                "prev 0/01752968, desc: CHECKPOINT_SHUTDOWN redo 0/17529B0; tli 1\n";
        static const char error[] = "pg_waldump: error: error in WAL record at 0/17529B0: invalid "
                                    "record length at 0/1752A28: wanted 24, got 0\n";
        uint64_t lsn = 0;
        assert_true(history_waldump_last(text_of(error), &lsn));
        assert_int_equal(lsn, 0x17529B0);
        assert_false(history_waldump_last(text_of("pg_waldump: error: no such file\n"), &lsn));
        static const char missing[] = "pg_waldump: error: could not find file "
                                      "\"0000000200000001000000FF\": No such file or directory\n";
        assert_true(history_waldump_missing(text_of(missing), 2, 1 << 24, &lsn));
        assert_int_equal(lsn, 0x1FF000000);
        assert_false(history_waldump_missing(text_of(missing), 3, 1 << 24, &lsn));
        assert_false(history_waldump_missing(text_of(missing), 2, 3, &lsn));
        assert_false(history_waldump_missing(text_of(error), 1, 1 << 24, &lsn));
        for (size_t len = 0; len < strlen("pg_waldump: error: could not find file \"") + 24; len++)
                assert_false(history_waldump_missing(bytes_of(missing, len), 2, 1 << 24, &lsn));
        assert_true(history_waldump_end(text_of(record), 1 << 24, &lsn));
        assert_int_equal(lsn, 0x1752A28);
        assert_true(history_waldump_end(text_of(record + 20), 1 << 24, &lsn));
        assert_int_equal(lsn, 0x1752A28);
        assert_false(history_waldump_end(text_of(""), 1 << 24, &lsn));
        assert_false(history_waldump_end(text_of(record), 0, &lsn));
        static const struct {
                uint64_t lsn, len, end;
                const char *why;
        } rows[] = {
                {0x1000028, 24, 0x1000040, "within a page"},
                {0x1000028, 25, 0x1000048, "up to a multiple of 8"},
                {0x1001FE0, 32, 0x1002000, "to the end of a page"},
                {0x1001FF8, 32, 0x1002030, "over a page: its header"},
                {0x1FFFFF8, 16, 0x2000030, "over a file: its header is longer"},
                {0x1001FF8, 8 + 8168 + 8, 0x1004020, "over two pages"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                if (history_record_end(rows[i].lsn, rows[i].len, 1 << 24) != rows[i].end)
                        fail_msg("%s", rows[i].why);
}

/* Whatever comes: an answer, and nothing read past the end (the sanitizers look). */
static void test_damage(void **state)
{
        (void)state;
        static const char *const texts[] = {second, fourth, control_text};
        struct rng rng;
        rng_init(&rng, 5434, 0);
        for (unsigned round = 0; round < 30000; round++) {
                const char *text = texts[rng_below(&rng, COUNT_OF(texts))];
                size_t len = rng_below(&rng, strlen(text) + 1);
                char *copy = malloc(len + 1);
                struct history history;
                struct history_control control;
                uint64_t lsn;
                assert_non_null(copy);
                memcpy(copy, text, len);
                for (unsigned i = 0; i < 3 && len > 0; i++)
                        copy[rng_below(&rng, len)] = (char)rng_next(&rng);
                struct bytes bytes = bytes_of(copy, len);
                if (history_parse(bytes, 4, 1, &history))
                        assert_true(history.count <= HISTORY_LINES_MAX);
                (void)!history_control_parse(bytes, &control);
                (void)!history_waldump_last(bytes, &lsn);
                (void)!history_waldump_end(bytes, 1 << 24, &lsn);
                (void)!history_waldump_missing(bytes, 2, 1 << 24, &lsn);
                (void)!history_epoch_parse(bytes, &lsn);
                free(copy);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories), cmocka_unit_test(test_bad_histories),
                cmocka_unit_test(test_told),      cmocka_unit_test(test_forks),
                cmocka_unit_test(test_places),    cmocka_unit_test(test_control),
                cmocka_unit_test(test_waldump),   cmocka_unit_test(test_damage),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
