/* Reports as bytes, ranks, and the holder's count of its lease. */
#include "primary/primary.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <string.h>

static struct primary_report report_of(node_id node, enum primary_server server, uint64_t epoch,
                                       uint64_t written)
{
        return (struct primary_report){.node = node,
                                       .region = (region_id)node,
                                       .server = server,
                                       .system = server == PRIMARY_ABSENT ? 0 : 77,
                                       .timeline = server == PRIMARY_ABSENT ? 0 : 3,
                                       .epoch = epoch,
                                       .written = written,
                                       .replayed = written,
                                       .eligible = true};
}

static struct primary_candidate fresh(struct primary_report report)
{
        return (struct primary_candidate){.report = report, .fresh = true};
}

static void test_bytes(void **state)
{
        (void)state;
        struct heap heap;
        struct buffer buffer;
        struct primary_report got;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        struct primary_report report = report_of(9, PRIMARY_STANDBY, 12, 1ull << 60);
        report.following = true;
        report.lines_cut = true;
        report.timeline = 40;
        report.line_count = PRIMARY_LINES_MAX;
        for (unsigned i = 0; i < PRIMARY_LINES_MAX; i++)
                report.lines[i] = (struct primary_line){39 - i, 11 - i / 2, 1000 - i};
        primary_report_encode(&report, &buffer);
        struct bytes data = buffer_view(&buffer);
        assert_int_equal(primary_report_decode(data, &got), ERR_NONE);
        assert_memory_equal(&got, &report, sizeof(got));
        for (size_t len = 0; len < data.len; len++)
                assert_int_not_equal(primary_report_decode(bytes_of(data.ptr, len), &got),
                                     ERR_NONE);
        /* whatever bytes: no crash, and what is accepted is in range */
        struct rng rng;
        rng_init(&rng, 7, 1);
        for (unsigned i = 0; i < 20000; i++) {
                uint8_t bad[512];
                memcpy(bad, data.ptr, data.len);
                for (unsigned n = 0; n < 1 + i % 3; n++)
                        bad[rng_below(&rng, data.len)] ^= (uint8_t)(1u << rng_below(&rng, 8));
                if (primary_report_decode(bytes_of(bad, data.len), &got) != ERR_NONE)
                        continue;
                assert_in_range(got.server, 0, PRIMARY_SERVER_COUNT - 1);
                assert_in_range(got.line_count, 0, PRIMARY_LINES_MAX);
                assert_int_not_equal(got.node, 0);
        }
        buffer_fini(&buffer);
}

static void test_order(void **state)
{
        (void)state;
        struct primary_rules rules = {.epoch = 5, .written = 100, .loss_max = 10};
        struct primary_candidate all[3] = {
                {.report = report_of(1, PRIMARY_OPEN, 5, 100), .gone = true},
                fresh(report_of(2, PRIMARY_STANDBY, 5, 90)),
                fresh(report_of(3, PRIMARY_STANDBY, 5, 95)),
        };
        struct primary_standing two = primary_rank(all, 3, 2, &rules);
        struct primary_standing three = primary_rank(all, 3, 3, &rules);
        assert_int_equal(two.rank, PRIMARY_RANK_BEHIND);
        assert_int_equal(two.best, 3);
        assert_int_equal(three.rank, PRIMARY_RANK_BEST);
        assert_int_equal(three.loss, 5);
        assert_false(three.loss_over);
        assert_int_equal(two.loss, 10);
        rules.loss_max = 4;
        assert_true(primary_rank(all, 3, 3, &rules).loss_over);

        /* equals: the designated one, then the last primary's region, then the smallest id */
        all[1].report.written = 95;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);
        rules.region = 3;
        assert_int_equal(primary_rank(all, 3, 3, &rules).rank, PRIMARY_RANK_BEST);
        rules.designated = 2;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);

        /* a newer epoch comes before more data */
        all[2].report.epoch = 4;
        all[2].report.written = 1000;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);
        assert_int_equal(primary_rank(all, 3, 3, &rules).loss, UINT64_MAX);
        assert_false(primary_rank(all, 3, 3, &rules).latest);

        /* who may not become primary is passed over, but still says what it has */
        all[2] = fresh(report_of(3, PRIMARY_STANDBY, 5, 99));
        all[2].report.eligible = false;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);
        assert_int_equal(primary_rank(all, 3, 3, &rules).rank, PRIMARY_RANK_BEHIND);
}

static void test_sure(void **state)
{
        (void)state;
        struct primary_rules rules = {.epoch = 5, .written = 100};
        struct primary_candidate all[3] = {
                {.report = report_of(1, PRIMARY_OPEN, 5, 100)},
                fresh(report_of(2, PRIMARY_STANDBY, 5, 100)),
                fresh(report_of(3, PRIMARY_STANDBY, 5, 90)),
        };
        /* one that is not gone and does not tell is waited for */
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_UNSURE);
        all[0].gone = true;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);
        all[2].fresh = false;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_UNSURE);
        all[2].gone = true;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);
        /* a commit waited for one of two: both standbys have to tell */
        rules.sync = 1;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_UNSURE);
        /* for both: one is enough */
        rules.sync = 2;
        assert_int_equal(primary_rank(all, 3, 2, &rules).rank, PRIMARY_RANK_BEST);
        /* that it was the primary is not enough: another may have been promoted, with the third */
        rules.sync = 1;
        all[0] = fresh(report_of(1, PRIMARY_CLOSED, 5, 100));
        all[1].fresh = false;
        all[1].gone = true;
        assert_int_equal(primary_rank(all, 3, 1, &rules).rank, PRIMARY_RANK_UNSURE);
        /* but it is one of those that have to tell */
        all[1] = fresh(report_of(2, PRIMARY_STANDBY, 5, 100));
        all[2].fresh = false;
        all[2].gone = true;
        assert_int_equal(primary_rank(all, 3, 1, &rules).rank, PRIMARY_RANK_BEST);
        all[1].report.system = 78;
        assert_int_equal(primary_rank(all, 3, 1, &rules).rank, PRIMARY_RANK_UNSURE);
        /* one without data does not count, but where all tell there is nothing more to hear */
        all[1] = fresh(report_of(2, PRIMARY_ABSENT, 0, 0));
        assert_int_equal(primary_rank(all, 3, 1, &rules).rank, PRIMARY_RANK_UNSURE);
        all[2] = fresh(report_of(3, PRIMARY_ABSENT, 0, 0));
        assert_int_equal(primary_rank(all, 3, 1, &rules).rank, PRIMARY_RANK_BEST);
        all[1] = fresh(report_of(2, PRIMARY_STANDBY, 5, 100));
        /* what was not acknowledged is no loss where commits wait */
        all[0] = (struct primary_candidate){.report = report_of(1, PRIMARY_OPEN, 5, 100),
                                            .gone = true};
        all[2] = fresh(report_of(3, PRIMARY_STANDBY, 5, 90));
        all[1].report.written = 95;
        assert_int_equal(primary_rank(all, 3, 2, &rules).loss, 5);
        assert_false(primary_rank(all, 3, 2, &rules).loss_over);
}

/* Two regions of two: commits wait for a server of the other region. */
static void test_sure_in_regions(void **state)
{
        (void)state;
        static const struct {
                unsigned told; /* a bit a node */
                bool sure[2];  /* with sync 1, 2 */
                const char *why;
        } rows[] = {
                {0xe, {true, true}, "the writer's node died alone"},
                {0xc, {true, true}, "its region died: the other one has what was acknowledged"},
                {0xa, {false, true}, "1 may have been the writer, and only 3 have its last commit"},
                {0x6, {false, true}, "the same with 4"},
                {0x8, {false, false}, "3 may have been the writer, and only 1 and 2 have it"},
        };
        for (unsigned sync = 1; sync <= 2; sync++) {
                struct primary_rules rules = {.epoch = 5, .written = 100, .sync = sync};
                for (size_t i = 0; i < COUNT_OF(rows); i++) {
                        struct primary_candidate all[4];
                        node_id asker = 0;
                        for (unsigned n = 0; n < 4; n++) {
                                bool told = (rows[i].told & 1u << n) != 0;
                                all[n] = fresh(report_of(n + 1, PRIMARY_STANDBY, 5, 100));
                                all[n].report.region = (region_id)(n / 2 + 1);
                                all[n].fresh = told;
                                all[n].gone = !told;
                                if (told && asker == 0)
                                        asker = n + 1;
                        }
                        bool sure = primary_rank(all, 4, asker, &rules).rank == PRIMARY_RANK_BEST;
                        if (sure != rows[i].sure[sync - 1])
                                fail_msg("sync %u: %s", sync, rows[i].why);
                }
        }
}

static void test_empty(void **state)
{
        (void)state;
        struct primary_rules rules = {0};
        struct primary_candidate all[2] = {fresh(report_of(1, PRIMARY_ABSENT, 0, 0)),
                                           fresh(report_of(2, PRIMARY_ABSENT, 0, 0))};
        assert_int_equal(primary_rank(all, 2, 1, &rules).rank, PRIMARY_RANK_EMPTY);
        /* one that is gone may have data */
        all[1].fresh = false;
        all[1].gone = true;
        assert_int_not_equal(primary_rank(all, 2, 1, &rules).rank, PRIMARY_RANK_EMPTY);
        all[1] = fresh(report_of(2, PRIMARY_ASLEEP, 0, 5));
        assert_int_equal(primary_rank(all, 2, 1, &rules).rank, PRIMARY_RANK_BEHIND);
        /* data of another cluster does not outrank anybody */
        all[0] = fresh(report_of(1, PRIMARY_STANDBY, 0, 1));
        all[0].report.system = 78;
        assert_int_equal(primary_rank(all, 2, 1, &rules).rank, PRIMARY_RANK_BEST);
        assert_int_equal(primary_rank(all, 2, 2, &rules).rank, PRIMARY_RANK_BEST);
}

static void test_lease(void **state)
{
        (void)state;
        struct primary_lease lease = {0};
        assert_int_equal(primary_lease_hold(&lease, 10, 1), PRIMARY_UNKNOWN);
        primary_lease_granted(&lease, 4, 1000, 300);
        assert_int_equal(primary_lease_hold(&lease, 1199, 100), PRIMARY_MINE);
        assert_int_equal(primary_lease_hold(&lease, 1200, 100), PRIMARY_ENDING);
        assert_int_equal(primary_lease_hold(&lease, 1299, 100), PRIMARY_ENDING);
        assert_int_equal(primary_lease_hold(&lease, 1300, 100), PRIMARY_UNKNOWN);
        /* an older answer that comes late takes nothing away and adds nothing */
        primary_lease_granted(&lease, 4, 1200, 300);
        primary_lease_granted(&lease, 4, 1100, 300);
        assert_int_equal(lease.until_us, 1500);
        primary_lease_granted(&lease, 3, 5000, 300);
        assert_int_equal(lease.until_us, 1500);
        assert_int_equal(lease.token, 4);
        /* a new grant counts by itself, though it may end earlier */
        primary_lease_granted(&lease, 6, 1250, 100);
        assert_int_equal(lease.until_us, 1350);
        primary_lease_lost(&lease);
        assert_int_equal(primary_lease_hold(&lease, 1260, 0), PRIMARY_UNKNOWN);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bytes), cmocka_unit_test(test_order),
                cmocka_unit_test(test_sure),  cmocka_unit_test(test_sure_in_regions),
                cmocka_unit_test(test_empty), cmocka_unit_test(test_lease),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
