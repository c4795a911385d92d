/* The library's messages: round trips, every truncation, every bit flip; and a live node that is
 * fed messages which are well formed but mad, to see that its assertions are out of reach. */
#include "raft/library_message.h"

#include "base/rng.h"
#include "raft/library.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static uint8_t configuration[] = {1, 1, 0, 0, 0, 0,   0, 0, 0, 8, 0, 0,
                                  0, 0, 0, 0, 0, '8', 0, 1, 0, 0, 0, 0};

static struct library_message example(enum library_message_type type)
{
        struct library_message message = {
                .type = type, .group = 1, .cluster = 42, .from = 8, .to = 7, .term = 300};
        switch (type) {
        case LIBRARY_APPEND:
                message.append.previous_index = 1;
                message.append.previous_term = 1;
                message.append.commit_index = 2;
                message.append.count = 3;
                break;
        case LIBRARY_APPEND_RESULT:
                message.append_result.rejected = 1000;
                message.append_result.last_index = 999;
                message.append_result.features = 1;
                message.append_result.capacity = 65535;
                break;
        case LIBRARY_VOTE:
                message.vote.last_index = 5;
                message.vote.last_term = 300;
                message.vote.pre_vote = true;
                break;
        case LIBRARY_VOTE_RESULT:
                message.vote_result.granted = true;
                break;
        case LIBRARY_INSTALL:
                message.install.last_index = 500;
                message.install.last_term = 299;
                message.install.configuration_index = 1;
                message.install.configuration = bytes_of(configuration, sizeof configuration);
                message.install.state = BYTES("the whole state");
                break;
        case LIBRARY_TIMEOUT_NOW:
                message.timeout_now.last_index = 5;
                message.timeout_now.last_term = 300;
                break;
        }
        return message;
}

static void log_open(struct entries *entries)
{
        entries_init(entries, &heap, 2);
        assert_true(entries_append(entries, 1, ENTRY_COMMAND, BYTES("\x03one")));
        assert_true(entries_append(entries, 1, ENTRY_BARRIER, BYTES("")));
        assert_true(entries_append(entries, 4, ENTRY_CHANGE,
                                   bytes_of(configuration, sizeof configuration)));
}

static void test_round_trip(void **state)
{
        (void)state;
        struct entries entries;
        log_open(&entries);
        for (int type = LIBRARY_APPEND; type <= LIBRARY_TIMEOUT_NOW; type++) {
                struct library_message message = example((enum library_message_type)type);
                struct buffer one;
                struct buffer two;
                buffer_init(&one, &heap);
                buffer_init(&two, &heap);
                library_message_encode(&message, &entries, &one);
                struct library_message back;
                assert_int_equal(library_message_decode(buffer_view(&one), &back), ERR_NONE);
                assert_int_equal(back.type, type);
                assert_int_equal(back.term, 300);
                library_message_encode(&back, &entries, &two);
                assert_true(bytes_equal(buffer_view(&one), buffer_view(&two)));
                if (type == LIBRARY_APPEND) {
                        struct bytes items = back.append.items;
                        for (uint64_t index = 2; index <= 4; index++) {
                                struct entry entry = library_message_entry(&items);
                                const struct entry *was = entries_at(&entries, index);
                                assert_int_equal(entry.term, was->term);
                                assert_int_equal(entry.type, was->type);
                                assert_true(bytes_equal(entry.data, was->data));
                        }
                        assert_int_equal(items.len, 0);
                }
                buffer_fini(&one);
                buffer_fini(&two);
        }
        entries_fini(&entries);
}

static void test_damaged(void **state)
{
        (void)state;
        struct entries entries;
        log_open(&entries);
        for (int type = LIBRARY_APPEND; type <= LIBRARY_TIMEOUT_NOW; type++) {
                struct library_message message = example((enum library_message_type)type);
                struct library_message back;
                struct buffer out;
                buffer_init(&out, &heap);
                library_message_encode(&message, &entries, &out);
                for (size_t len = 0; len < out.len; len++)
                        assert_int_not_equal(library_message_decode(bytes_of(out.ptr, len), &back),
                                             ERR_NONE);
                for (size_t bit = 0; bit < out.len * 8; bit++) {
                        out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        if (library_message_decode(buffer_view(&out), &back) == ERR_NONE &&
                            back.type == LIBRARY_APPEND) {
                                struct bytes items = back.append.items;
                                for (size_t i = 0; i < back.append.count; i++)
                                        (void)library_message_entry(&items);
                        }
                        out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
                buffer_u8(&out, 0);
                assert_int_equal(library_message_decode(buffer_view(&out), &back), ERR_MALFORMED);
                buffer_fini(&out);
        }
        entries_fini(&entries);
}

/* What the library would assert on, one by one. */
static void test_refused(void **state)
{
        (void)state;
        struct entries entries;
        log_open(&entries);
        struct library_message cases[9];
        for (size_t i = 0; i < COUNT_OF(cases); i++)
                cases[i] = example(LIBRARY_APPEND);
        cases[0].term = 0;
        cases[1].append.previous_term = 0;
        cases[2].append.previous_index = 0;
        cases[2].append.count = 0;
        cases[3].append.previous_term = 301;
        cases[4].term = 3; /* an entry of term 4 */
        cases[5] = example(LIBRARY_APPEND_RESULT);
        cases[5].append_result.last_index = 1000;
        cases[6] = example(LIBRARY_VOTE);
        cases[6].vote.last_term = 0;
        cases[7] = example(LIBRARY_INSTALL);
        cases[7].install.last_term = 0;
        cases[8] = example(LIBRARY_INSTALL);
        cases[8].install.configuration_index = 501;
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct buffer out;
                struct library_message back;
                buffer_init(&out, &heap);
                library_message_encode(&cases[i], &entries, &out);
                if (library_message_decode(buffer_view(&out), &back) != ERR_MALFORMED)
                        fail_msg("case %zu was accepted", i);
                buffer_fini(&out);
        }
        entries_fini(&entries);
}

static uint64_t small(struct rng *rng)
{
        return rng_chance(rng, 50) ? rng_next(rng) >> 3 : rng_below(rng, 12);
}

/* An index near the end of the node's log, mostly. */
static uint64_t near(struct rng *rng, const struct consensus_status *status)
{
        if (rng_chance(rng, 200))
                return small(rng);
        return status->last_index + 1 - rng_below(rng, status->last_index < 4 ? 2 : 4);
}

static void mad_entries(struct rng *rng, struct library_message *m, struct entries *entries,
                        const struct consensus_status *status)
{
        uint64_t previous = near(rng, status) & 0xffffff;
        entries_clear(entries, previous + 1);
        m->append.previous_index = previous;
        m->append.previous_term = previous == 0 ? 0 : 1 + rng_below(rng, m->term);
        m->append.commit_index = near(rng, status);
        m->append.count = (size_t)rng_below(rng, 5);
        uint64_t term = m->append.previous_term == 0 ? 1 : m->append.previous_term;
        for (size_t i = 0; i < m->append.count; i++) {
                if (rng_chance(rng, 200))
                        term = rng_between(rng, term, m->term);
                bool change = rng_chance(rng, 50);
                struct bytes data =
                        change ? bytes_of(configuration, sizeof configuration) : BYTES("\x01x");
                assert_true(
                        entries_append(entries, term, change ? ENTRY_CHANGE : ENTRY_COMMAND, data));
        }
}

static struct library_message mad(struct rng *rng, struct entries *entries,
                                  const struct consensus_status *status, bool elect)
{
        struct library_message m = example(
                (enum library_message_type)rng_between(rng, LIBRARY_APPEND, LIBRARY_TIMEOUT_NOW));
        if (elect && status->role != CONSENSUS_LEADER)
                m = example(LIBRARY_VOTE_RESULT);
        m.from = (uint32_t)rng_between(rng, 8, 9);
        m.term = rng_chance(rng, 900) ? status->term + rng_chance(rng, 100) : 1 + small(rng);
        switch (m.type) {
        case LIBRARY_APPEND:
                mad_entries(rng, &m, entries, status);
                break;
        case LIBRARY_APPEND_RESULT:
                m.append_result.rejected = rng_chance(rng, 300) ? near(rng, status) : 0;
                m.append_result.last_index = m.append_result.rejected == 0
                                                     ? near(rng, status)
                                                     : rng_below(rng, m.append_result.rejected);
                break;
        case LIBRARY_VOTE:
                m.vote.last_index = near(rng, status);
                m.vote.last_term = m.vote.last_index == 0 ? 0 : 1 + rng_below(rng, m.term);
                m.vote.disrupt_leader = rng_chance(rng, 300);
                m.vote.pre_vote = rng_chance(rng, 500);
                break;
        case LIBRARY_VOTE_RESULT:
                m.vote_result.granted = rng_chance(rng, 800);
                m.vote_result.pre_vote = rng_chance(rng, 500);
                break;
        case LIBRARY_INSTALL:
                m.install.last_index = 1 + near(rng, status);
                m.install.last_term = 1 + rng_below(rng, m.term);
                break;
        case LIBRARY_TIMEOUT_NOW:
                m.timeout_now.last_index = near(rng, status);
                m.timeout_now.last_term =
                        m.timeout_now.last_index == 0 ? 0 : 1 + rng_below(rng, m.term);
                break;
        }
        return m;
}

static struct consensus *live(struct rng *rng)
{
        static const uint32_t voters[] = {7, 8, 9};
        struct consensus_config config = {
                .engine = &consensus_library,
                .cluster = 42,
                .group = 1,
                .self = 7,
                .voters = voters,
                .voter_count = 3,
                .election_timeout_ms = 100,
                .heartbeat_ms = 20,
                .pre_vote = rng_chance(rng, 500),
                .trailing_entries = 2,
                .seed = rng_next(rng),
        };
        struct consensus *consensus = NULL;
        struct consensus_recovery recovery;
        assert_int_equal(consensus_new(&heap, &config, &consensus), ERR_NONE);
        assert_int_equal(consensus_start(consensus, 0, (struct bytes){0}, 0, &recovery), ERR_NONE);
        return consensus;
}

static void test_mad_peers(void **state)
{
        (void)state;
        uint64_t led = 0;
        uint64_t restored = 0;
        struct entries entries;
        entries_init(&entries, &heap, 1);
        for (uint64_t seed = 1; seed <= 400; seed++) {
                struct rng rng;
                rng_init(&rng, seed, 0);
                struct consensus *consensus = live(&rng);
                uint64_t now = 0;
                for (int i = 0; i < 300 && !consensus_status(consensus).failed; i++) {
                        now += rng_below(&rng, 40);
                        struct consensus_status before = consensus_status(consensus);
                        struct library_message message =
                                mad(&rng, &entries, &before, seed % 2 == 0);
                        struct buffer out;
                        buffer_init(&out, &heap);
                        library_message_encode(&message, &entries, &out);
                        (void)!consensus_receive(consensus, now, message.from, buffer_view(&out));
                        buffer_fini(&out);
                        if (rng_chance(&rng, 300))
                                consensus_tick(consensus, now);
                        if (rng_chance(&rng, 300))
                                (void)!consensus_submit(consensus, now, BYTES("y"));
                        struct consensus_output output;
                        consensus_take(consensus, &output);
                        restored += output.restore;
                        struct consensus_status status = consensus_status(consensus);
                        led += status.role == CONSENSUS_LEADER;
                        if (rng_chance(&rng, 500))
                                consensus_synced(consensus, now, status.generation,
                                                 status.journal_bytes);
                        if (rng_chance(&rng, 100))
                                (void)!consensus_snapshot(consensus, BYTES("state"));
                }
                consensus_free(consensus);
        }
        entries_fini(&entries);
        assert_true(led > 100);
        assert_true(restored > 100);
}

static void test_strangers(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 1, 0);
        struct consensus *consensus = live(&rng);
        struct entries entries;
        log_open(&entries);
        static const struct {
                uint32_t from;
                uint32_t says;
                uint32_t to;
                uint32_t group;
                uint64_t cluster;
                enum err err;
        } cases[] = {
                {8, 8, 7, 1, 42, ERR_NONE},    {10, 10, 7, 1, 42, ERR_REFUSED},
                {9, 8, 7, 1, 42, ERR_REFUSED}, {7, 7, 7, 1, 42, ERR_REFUSED},
                {8, 8, 9, 1, 42, ERR_REFUSED}, {8, 8, 7, 0, 42, ERR_REFUSED},
                {8, 8, 7, 1, 43, ERR_REFUSED},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct library_message message = example(LIBRARY_VOTE);
                message.from = cases[i].says;
                message.to = cases[i].to;
                message.group = cases[i].group;
                message.cluster = cases[i].cluster;
                struct buffer out;
                buffer_init(&out, &heap);
                library_message_encode(&message, &entries, &out);
                assert_int_equal(consensus_receive(consensus, 1, cases[i].from, buffer_view(&out)),
                                 cases[i].err);
                buffer_fini(&out);
        }
        consensus_free(consensus);
        entries_fini(&entries);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip), cmocka_unit_test(test_damaged),
                cmocka_unit_test(test_refused),    cmocka_unit_test(test_mad_peers),
                cmocka_unit_test(test_strangers),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
