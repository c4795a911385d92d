/* The journal of the library's core, through the door: every truncation, every bit flip, what must
 * be accepted and what must not; and the recovery of whole journals with cuts and snapshots. */
#include "raft/consensus.h"

#include "base/buffer.h"
#include "base/rng.h"
#include "raft/journal.h"
#include "raft/library.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static const uint32_t alone[] = {7};
static const uint32_t three[] = {7, 8, 9};

static struct consensus_config config_of(const uint32_t *voters, size_t count)
{
        return (struct consensus_config){
                .engine = &consensus_library,
                .cluster = 42,
                .group = 1,
                .self = 7,
                .voters = voters,
                .voter_count = count,
                .election_timeout_ms = 100,
                .heartbeat_ms = 20,
                .trailing_entries = 4,
        };
}

static enum err recover(const uint32_t *voters, size_t count, struct bytes journal, uint64_t synced,
                        struct consensus_recovery *ret, struct consensus **ret_consensus)
{
        struct consensus_config config = config_of(voters, count);
        assert_int_equal(consensus_new(&heap, &config, ret_consensus), ERR_NONE);
        return consensus_start(*ret_consensus, 1000, journal, synced, ret);
}

/* Takes the output and keeps the journal; says how many commands came out. */
static size_t carry_out(struct consensus *consensus, struct buffer *journal)
{
        struct consensus_output output;
        consensus_take(consensus, &output);
        for (size_t i = 0; i < output.write_count; i++) {
                if (output.writes[i].kind == CONSENSUS_REPLACE)
                        buffer_reset(journal);
                journal->len = output.writes[i].offset;
                buffer_bytes(journal, output.writes[i].data);
        }
        return output.command_count;
}

static void sync_all(struct consensus *consensus, const struct buffer *journal)
{
        struct consensus_status status = consensus_status(consensus);
        consensus_synced(consensus, 1000, status.generation, journal->len);
}

/* A single voter that commits `count` commands one by one, each synced. `ret_ends` receives the
 * journal's length after each sync. */
static void make_journal(struct buffer *journal, size_t count, size_t *ret_ends)
{
        struct consensus_recovery recovery;
        struct consensus *consensus = NULL;
        assert_int_equal(recover(alone, 1, (struct bytes){0}, 0, &recovery, &consensus), ERR_NONE);
        assert_true(recovery.fresh);
        (void)carry_out(consensus, journal);
        sync_all(consensus, journal);
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(consensus_submit(consensus, 1000, BYTES("command")), ERR_NONE);
                assert_int_equal(carry_out(consensus, journal), 0);
                sync_all(consensus, journal);
                assert_int_equal(carry_out(consensus, journal), 1);
                ret_ends[i] = journal->len;
        }
        consensus_free(consensus);
}

static void test_whole(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[5];
        buffer_init(&journal, &heap);
        make_journal(&journal, 5, ends);
        struct consensus_recovery recovery;
        struct consensus *consensus = NULL;
        assert_int_equal(
                recover(alone, 1, buffer_view(&journal), journal.len, &recovery, &consensus),
                ERR_NONE);
        assert_false(recovery.fresh);
        assert_int_equal(recovery.valid_bytes, journal.len);
        assert_int_equal(recovery.dropped_bytes, 0);
        assert_int_equal(recovery.last_index, 6);
        struct consensus_output output;
        consensus_take(consensus, &output);
        assert_int_equal(output.command_count, 5);
        assert_int_equal(output.write_count, 0);
        assert_int_equal(output.commands[0].index, 2);
        assert_true(bytes_equal(output.commands[4].data, BYTES("command")));
        assert_true(consensus_status(consensus).ready);
        consensus_free(consensus);
        buffer_fini(&journal);
}

/* Cut anywhere, it recovers to the last whole record; cut below what is known as synced, never. */
static void test_truncated(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[5];
        buffer_init(&journal, &heap);
        make_journal(&journal, 5, ends);
        for (size_t len = 0; len < journal.len; len++) {
                struct consensus_recovery recovery;
                struct consensus *consensus = NULL;
                struct bytes part = bytes_of(journal.ptr, len);
                assert_int_equal(recover(alone, 1, part, 0, &recovery, &consensus), ERR_NONE);
                assert_true(recovery.fresh || recovery.dropped_bytes == 0 ||
                            recovery.valid_bytes + recovery.dropped_bytes <= len);
                size_t whole = 0;
                while (whole < COUNT_OF(ends) && ends[whole] <= len)
                        whole++;
                struct consensus_output output;
                consensus_take(consensus, &output);
                assert_int_equal(output.command_count, whole);
                assert_int_equal(output.write_count, recovery.fresh || recovery.dropped_bytes > 0);
                if (len > 0 && output.write_count == 1)
                        assert_int_equal(output.writes[0].kind, CONSENSUS_REPLACE);
                consensus_free(consensus);
                assert_int_equal(recover(alone, 1, part, len + 1, &recovery, &consensus),
                                 ERR_CORRUPT);
                consensus_free(consensus);
        }
        buffer_fini(&journal);
}

/* A flip is refused when a later record knows its place for durable or `synced` covers it; at the
 * very end it is a torn write. Nothing damaged is ever taken for good. */
static void test_flipped(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[4];
        buffer_init(&journal, &heap);
        make_journal(&journal, 4, ends);
        /* The last record was written when all before it was known to be durable. */
        for (size_t bit = 0; bit < journal.len * 8; bit++) {
                struct consensus_recovery recovery;
                struct consensus *consensus = NULL;
                journal.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                enum err err = recover(alone, 1, buffer_view(&journal), 0, &recovery, &consensus);
                if (bit / 8 < ends[2]) {
                        assert_int_equal(err, ERR_CORRUPT);
                        assert_true(recovery.corrupt_at <= bit / 8);
                } else {
                        assert_int_equal(err, ERR_NONE);
                        assert_int_equal(recovery.valid_bytes, ends[2]);
                }
                consensus_free(consensus);
                assert_int_equal(recover(alone, 1, buffer_view(&journal), journal.len, &recovery,
                                         &consensus),
                                 ERR_CORRUPT);
                consensus_free(consensus);
                journal.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_fini(&journal);
}

static void test_identity(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[1];
        buffer_init(&journal, &heap);
        make_journal(&journal, 1, ends);
        for (int what = 0; what < 3; what++) {
                struct consensus_config config = config_of(three, 3);
                config.cluster += what == 0;
                config.group += what == 1;
                config.self += what == 2;
                struct consensus *consensus = NULL;
                struct consensus_recovery recovery;
                assert_int_equal(consensus_new(&heap, &config, &consensus), ERR_NONE);
                assert_int_equal(consensus_start(consensus, 0, buffer_view(&journal), 0, &recovery),
                                 ERR_REFUSED);
                consensus_free(consensus);
        }
        buffer_fini(&journal);
}

static void test_config(void **state)
{
        (void)state;
        static const uint32_t twice[] = {7, 7};
        static const uint32_t zero[] = {7, 0};
        static const uint32_t others[] = {8, 9};
        static const struct {
                const uint32_t *voters;
                size_t count;
                uint32_t election;
                uint32_t heartbeat;
                enum err err;
                const char *why;
        } cases[] = {
                {three, 3, 100, 20, ERR_NONE, "plain"},
                {three, 0, 100, 20, ERR_INVALID, "nobody votes"},
                {twice, 2, 100, 20, ERR_INVALID, "one twice"},
                {zero, 2, 100, 20, ERR_INVALID, "0 is no node"},
                {others, 2, 100, 20, ERR_INVALID, "not among them"},
                {three, 3, 9, 1, ERR_INVALID, "election too short"},
                {three, 3, 10, 5, ERR_NONE, "both at their bounds"},
                {three, 3, 60000, 20, ERR_NONE, "longest election"},
                {three, 3, 60001, 20, ERR_INVALID, "election too long"},
                {three, 3, 100, 0, ERR_INVALID, "no heartbeat"},
                {three, 3, 100, 51, ERR_INVALID, "heartbeat too slow"},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct consensus_config config = config_of(cases[i].voters, cases[i].count);
                config.election_timeout_ms = cases[i].election;
                config.heartbeat_ms = cases[i].heartbeat;
                struct consensus *consensus = NULL;
                enum err err = consensus_new(&heap, &config, &consensus);
                if (err != cases[i].err)
                        fail_msg("%s: %s", cases[i].why, err_name(err));
                if (err == ERR_NONE)
                        consensus_free(consensus);
        }
}

struct step {
        enum journal_type type; /* 0: the end */
        uint64_t index;         /* META: the vote */
        uint64_t term;
};

/* Journals that are whole but cannot have been written by us, and some that can. */
static void test_sense(void **state)
{
        (void)state;
        static const struct {
                const char *why;
                enum err err;
                uint64_t last;
                struct step steps[8];
        } cases[] = {
                {"plain", ERR_NONE, 2, {{1, 0, 1}, {2, 1, 1}, {2, 2, 1}}},
                {"a suffix is cut",
                 ERR_NONE,
                 2,
                 {{1, 0, 1}, {2, 1, 1}, {2, 2, 1}, {2, 3, 1}, {1, 0, 2}, {2, 2, 2}}},
                {"entry before term", ERR_CORRUPT, 0, {{2, 1, 1}}},
                {"a gap", ERR_CORRUPT, 0, {{1, 0, 1}, {2, 1, 1}, {2, 3, 1}}},
                {"begins at 2", ERR_CORRUPT, 0, {{1, 0, 1}, {2, 2, 1}}},
                {"term of an entry unknown", ERR_CORRUPT, 0, {{1, 0, 1}, {2, 1, 1}, {2, 2, 2}}},
                {"terms fall", ERR_CORRUPT, 0, {{1, 0, 3}, {2, 1, 1}, {2, 2, 3}, {2, 3, 2}}},
                {"own term falls", ERR_CORRUPT, 0, {{1, 0, 3}, {2, 1, 1}, {1, 0, 2}}},
                {"snapshot, then on", ERR_NONE, 11, {{1, 0, 4}, {3, 10, 3}, {2, 11, 4}}},
                {"snapshot alone", ERR_NONE, 10, {{1, 0, 4}, {3, 10, 3}}},
                {"entries before the snapshot",
                 ERR_NONE,
                 11,
                 {{1, 0, 4}, {3, 10, 3}, {2, 9, 2}, {2, 10, 3}, {2, 11, 4}}},
                {"another term at its index",
                 ERR_CORRUPT,
                 0,
                 {{1, 0, 4}, {3, 10, 3}, {2, 9, 2}, {2, 10, 2}}},
                {"a gap behind it", ERR_CORRUPT, 0, {{1, 0, 4}, {3, 10, 3}, {2, 12, 4}}},
                {"cuts into it", ERR_CORRUPT, 0, {{1, 0, 4}, {3, 10, 3}, {2, 11, 3}, {2, 10, 3}}},
                {"two snapshots", ERR_CORRUPT, 0, {{1, 0, 4}, {3, 10, 3}, {3, 12, 3}}},
                {"snapshot before term", ERR_CORRUPT, 0, {{3, 10, 3}, {1, 0, 4}}},
        };
        static const struct journal_identity identity = {
                .version = 1, .cluster = 42, .group = 1, .node = 7};
        uint8_t configuration[] = {1, 1, 0, 0, 0, 0,   0, 0, 0, 7, 0, 0,
                                   0, 0, 0, 0, 0, '7', 0, 1, 0, 0, 0, 0};
        struct bytes change = bytes_of(configuration, sizeof configuration);
        assert_true(journal_configuration_valid(change));
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                struct buffer journal;
                buffer_init(&journal, &heap);
                journal_write_header(&journal, &identity);
                for (const struct step *s = cases[i].steps; s->type != 0; s++) {
                        struct journal_meta meta = {.term = s->term, .vote = 0};
                        struct journal_entry entry = {
                                .index = s->index,
                                .term = s->term,
                                .type = s->index == 1 ? ENTRY_CHANGE : ENTRY_BARRIER,
                                .data = s->index == 1 ? change : BYTES("12345678")};
                        struct journal_snapshot snapshot = {.index = s->index,
                                                            .term = s->term,
                                                            .configuration_index = 1,
                                                            .configuration = change,
                                                            .state = BYTES("state")};
                        if (s->type == JOURNAL_META)
                                journal_write_meta(&journal, 0, &meta);
                        else if (s->type == JOURNAL_ENTRY)
                                journal_write_entry(&journal, 0, &entry);
                        else
                                journal_write_snapshot(&journal, 0, &snapshot);
                }
                struct consensus_recovery recovery;
                struct consensus *consensus = NULL;
                enum err err = recover(alone, 1, buffer_view(&journal), 0, &recovery, &consensus);
                if (err != cases[i].err ||
                    (err == ERR_NONE && recovery.last_index != cases[i].last))
                        fail_msg("%s: %s, last %llu", cases[i].why, err_name(err),
                                 (unsigned long long)recovery.last_index);
                consensus_free(consensus);
                buffer_fini(&journal);
        }
}

/* A configuration that is cut or changed is either refused or decodes to the same length. */
static void test_configuration(void **state)
{
        (void)state;
        uint8_t good[] = {1,  2, 0, 0, 0, 0, 0, 0, 0,   7,   0, 0, 0, 0, 0, 0, 0, '7', 0, 1,
                          12, 0, 0, 0, 0, 0, 0, 0, '1', '2', 0, 2, 0, 0, 0, 0, 0, 0,   0};
        assert_true(journal_configuration_valid(bytes_of(good, sizeof good)));
        for (size_t len = 0; len < 32; len++)
                assert_false(journal_configuration_valid(bytes_of(good, len)));
        uint8_t twice[sizeof good];
        memcpy(twice, good, sizeof good);
        twice[20] = 7;
        assert_false(journal_configuration_valid(bytes_of(twice, sizeof twice)));
        uint8_t role[sizeof good];
        memcpy(role, good, sizeof good);
        role[19] = 3;
        assert_false(journal_configuration_valid(bytes_of(role, sizeof role)));
}

/* Every allocation fails once, at start and at work: an error or a failed replica,
 * never a crash or a leak. */
/* Up to where a journal is durable by its own word: never beyond a record that says so, and no
 * damaged record is believed. */
static void test_known(void **state)
{
        (void)state;
        struct journal_identity identity = {.version = 2, .cluster = 42, .group = 1, .node = 7};
        struct journal_meta meta = {.term = 3, .extended = true};
        static const uint64_t durable[] = {0, 32, 60, 40, 100};
        size_t ends[COUNT_OF(durable)];
        struct buffer journal;
        buffer_init(&journal, &heap);
        journal_write_header(&journal, &identity);
        for (size_t i = 0; i < COUNT_OF(durable); i++) {
                journal_write_meta(&journal, durable[i], &meta);
                ends[i] = journal.len;
        }
        buffer_bytes(&journal, BYTES("\0\0\0\0\0\0"));
        for (size_t len = 0; len <= journal.len; len++) {
                uint64_t want = 0;
                for (size_t i = 0; i < COUNT_OF(durable); i++)
                        if (ends[i] <= len && durable[i] > want)
                                want = durable[i];
                assert_int_equal(consensus_journal_known(bytes_of(journal.ptr, len)), want);
        }
        for (size_t bit = JOURNAL_HEADER_SIZE * 8; bit < ends[COUNT_OF(ends) - 1] * 8; bit++) {
                size_t before = 0;
                uint64_t want = 0;
                for (; ends[before] <= bit / 8; before++)
                        want = durable[before] > want ? durable[before] : want;
                journal.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                assert_int_equal(consensus_journal_known(buffer_view(&journal)), want);
                journal.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_fini(&journal);
}

static void test_memory(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[3];
        struct heap other;
        heap_init(&other, 0);
        buffer_init(&journal, &other);
        make_journal(&journal, 3, ends);
        uint64_t calls = 0;
        for (uint64_t fail = 0; fail == 0 || fail <= calls; fail++) {
                heap_init(&heap, 0);
                heap.fail_at = fail;
                struct consensus_config config = config_of(alone, 1);
                struct consensus_recovery recovery;
                struct consensus *consensus = NULL;
                if (consensus_new(&heap, &config, &consensus) == ERR_NONE) {
                        enum err err =
                                consensus_start(consensus, 0, buffer_view(&journal), 0, &recovery);
                        assert_true(err == ERR_NONE || err == ERR_NOMEM);
                        struct consensus_output output;
                        consensus_take(consensus, &output);
                        (void)!consensus_submit(consensus, 1, BYTES("more"));
                        consensus_take(consensus, &output);
                        (void)!consensus_snapshot(consensus, BYTES("state"));
                        consensus_take(consensus, &output);
                        consensus_free(consensus);
                }
                if (fail == 0)
                        calls = heap.calls;
                assert_int_equal(heap.used_bytes, 0);
        }
        assert_true(calls > 10);
        heap_init(&heap, 0);
        buffer_fini(&journal);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whole),         cmocka_unit_test(test_truncated),
                cmocka_unit_test(test_flipped),       cmocka_unit_test(test_identity),
                cmocka_unit_test(test_config),        cmocka_unit_test(test_sense),
                cmocka_unit_test(test_configuration), cmocka_unit_test(test_known),
                cmocka_unit_test(test_memory),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
