/* How histories relate, against a model that knows the truth: servers whose log is a list of
 * records, takeovers with and without followers, late returns. What primary_match calls a prefix
 * has to be one, and what it calls diverged has to be none. */
#include "primary/primary.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <string.h>

enum {
        SERVERS = 4,
        RECORDS_MAX = 600,
        STEPS = 400,
        SEEDS = 400,
};

struct server {
        struct primary_report report; /* `written` counts records */
        uint32_t records[RECORDS_MAX];
};

struct model {
        struct rng rng;
        struct server servers[SERVERS];
        unsigned writer;
        uint64_t epoch;
        uint32_t record_last;
        unsigned prefixes, diverged, broken;
};

static bool is_prefix(const struct server *own, const struct server *of)
{
        return own->report.written <= of->report.written &&
               memcmp(own->records, of->records,
                      (size_t)own->report.written * sizeof(own->records[0])) == 0;
}

static void left(struct primary_report *report, uint64_t epoch)
{
        unsigned keep =
                report->line_count < PRIMARY_LINES_MAX ? report->line_count : PRIMARY_LINES_MAX - 1;
        report->lines_cut = report->lines_cut || keep < report->line_count;
        memmove(report->lines + 1, report->lines, keep * sizeof(report->lines[0]));
        report->lines[0] = (struct primary_line){report->timeline, report->epoch, report->written};
        report->line_count = (uint8_t)(keep + 1);
        report->timeline++;
        report->epoch = epoch;
}

/* A standby that has come up to `written` on the writer's history is on the timeline there; at a
 * fork it may still be on the old one. */
static void place(struct model *model, struct server *server, const struct server *writer)
{
        struct primary_report *report = &server->report;
        unsigned skip = 0;
        for (unsigned i = 0; i < writer->report.line_count; i++) {
                uint64_t end = writer->report.lines[i].end;
                if (report->written < end ||
                    (report->written == end && rng_chance(&model->rng, 500)))
                        skip = i + 1;
        }
        memset(report->lines, 0, sizeof(report->lines));
        report->line_count = (uint8_t)(writer->report.line_count - skip);
        memcpy(report->lines, writer->report.lines + skip,
               report->line_count * sizeof(report->lines[0]));
        report->lines_cut = writer->report.lines_cut;
        report->timeline =
                skip == 0 ? writer->report.timeline : writer->report.lines[skip - 1].timeline;
        report->epoch = skip == 0 ? writer->report.epoch : writer->report.lines[skip - 1].epoch;
}

static void copy(struct model *model, struct server *server, uint64_t upto)
{
        const struct server *writer = &model->servers[model->writer];
        for (uint64_t i = server->report.written; i < upto; i++)
                server->records[i] = writer->records[i];
        if (upto > server->report.written)
                server->report.written = upto;
        place(model, server, writer);
}

static void follow(struct model *model, unsigned n)
{
        struct server *server = &model->servers[n];
        struct server *writer = &model->servers[model->writer];
        enum primary_match match = primary_match(&server->report, &writer->report);
        if (match == PRIMARY_MATCH_PREFIX) {
                model->prefixes++;
                assert_true(is_prefix(server, writer));
                copy(model, server,
                     rng_between(&model->rng, server->report.written, writer->report.written));
                return;
        }
        if (match == PRIMARY_MATCH_DIVERGED) {
                model->diverged++;
                if (server->report.timeline < writer->report.timeline)
                        assert_false(is_prefix(server, writer));
        } else {
                model->broken++;
                assert_int_equal(match, PRIMARY_MATCH_BROKEN);
        }
        *server = *writer; /* rewound, or made anew */
        server->report.node = n + 1;
}

static void step(struct model *model)
{
        struct server *writer = &model->servers[model->writer];
        unsigned other =
                (model->writer + 1 + (unsigned)rng_below(&model->rng, SERVERS - 1)) % SERVERS;
        switch (rng_below(&model->rng, 8)) {
        case 0: /* takes over, with whatever it has */
                left(&model->servers[other].report, ++model->epoch);
                model->writer = other;
                return;
        case 1:
        case 2:
        case 3:
                for (uint64_t n = rng_below(&model->rng, 4); n > 0; n--) {
                        if (writer->report.written < RECORDS_MAX)
                                writer->records[writer->report.written++] = ++model->record_last;
                }
                return;
        default:
                follow(model, other);
        }
}

static void test_against_the_truth(void **state)
{
        (void)state;
        unsigned prefixes = 0, diverged = 0, broken = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                static struct model model;
                memset(&model, 0, sizeof(model));
                rng_init(&model.rng, seed, 1);
                for (unsigned i = 0; i < SERVERS; i++) {
                        model.servers[i].report.node = i + 1;
                        model.servers[i].report.system = 7;
                        model.servers[i].report.timeline = 1;
                }
                for (unsigned i = 0; i < STEPS; i++)
                        step(&model);
                prefixes += model.prefixes;
                diverged += model.diverged;
                broken += model.broken;
        }
        assert_true(prefixes > 1000 && diverged > 1000 && broken > 1000);
}

static void test_strangers(void **state)
{
        (void)state;
        struct primary_report own = {.system = 1, .timeline = 1};
        struct primary_report holder = {.system = 2, .timeline = 1};
        assert_int_equal(primary_match(&own, &holder), PRIMARY_MATCH_FOREIGN);
        holder.system = 0;
        assert_int_equal(primary_match(&own, &holder), PRIMARY_MATCH_UNKNOWN);
        own.system = 0;
        holder.system = 2;
        assert_int_equal(primary_match(&own, &holder), PRIMARY_MATCH_UNKNOWN);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_against_the_truth),
                cmocka_unit_test(test_strangers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
