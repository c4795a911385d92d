/* The room's own core at its edges: messages cut, flipped and mad; journals cut and flipped; a
 * journal of the library's core taken over; memory that runs out; reads, members and a lost journal
 * of a group of one. What happens between nodes is tried in test_histories. */
#include "raft/consensus.h"

#include "base/buffer.h"
#include "base/hash.h"
#include "base/rng.h"
#include "raft/journal.h"
#include "raft/library.h"
#include "raft/message.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

static const uint32_t alone[] = {7};
static const uint32_t three[] = {7, 8, 9};

static struct consensus_config config_of(const uint32_t *voters, size_t count)
{
        return (struct consensus_config){
                .engine = &consensus_core,
                .cluster = 42,
                .group = 1,
                .self = 7,
                .voters = voters,
                .voter_count = count,
                .election_timeout_ms = 100,
                .heartbeat_ms = 20,
                .pre_vote = true,
                .trailing_entries = 4,
        };
}

static enum err recover(struct consensus_config config, struct bytes journal, uint64_t synced,
                        struct consensus_recovery *ret, struct consensus **ret_consensus)
{
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

static size_t sync_all(struct consensus *consensus, struct buffer *journal)
{
        size_t commands = carry_out(consensus, journal);
        struct consensus_status status = consensus_status(consensus);
        consensus_synced(consensus, 1000, status.generation, journal->len);
        return commands + carry_out(consensus, journal);
}

static void make_journal(const struct consensus_engine *engine, struct buffer *journal,
                         size_t count, size_t *ret_ends)
{
        struct consensus_recovery recovery;
        struct consensus *consensus = NULL;
        struct consensus_config config = config_of(alone, 1);
        config.engine = engine;
        assert_int_equal(recover(config, (struct bytes){0}, 0, &recovery, &consensus), ERR_NONE);
        assert_true(recovery.fresh);
        (void)sync_all(consensus, journal);
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(consensus_submit(consensus, 1000, BYTES("command")), ERR_NONE);
                assert_int_equal(sync_all(consensus, journal), 1);
                if (ret_ends != NULL)
                        ret_ends[i] = journal->len;
        }
        consensus_free(consensus);
}

/* Starts on a journal and says how many commands come out once all is synced. */
static size_t replayed(struct bytes journal, struct consensus_recovery *ret, enum err *ret_err)
{
        struct consensus *consensus = NULL;
        struct buffer copy;
        size_t commands = 0;
        buffer_init(&copy, &heap);
        buffer_bytes(&copy, journal);
        *ret_err = recover(config_of(alone, 1), journal, 0, ret, &consensus);
        if (*ret_err == ERR_NONE)
                commands = sync_all(consensus, &copy);
        consensus_free(consensus);
        buffer_fini(&copy);
        return commands;
}

static void test_truncated(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[5];
        buffer_init(&journal, &heap);
        make_journal(&consensus_core, &journal, 5, ends);
        for (size_t len = 0; len <= journal.len; len++) {
                struct consensus_recovery recovery;
                enum err err;
                size_t whole = 0;
                while (whole < COUNT_OF(ends) && ends[whole] <= len)
                        whole++;
                assert_int_equal(replayed(bytes_of(journal.ptr, len), &recovery, &err), whole);
                assert_int_equal(err, ERR_NONE);
        }
        buffer_fini(&journal);
}

/* Space that was made ready: zeros behind any cut change nothing of what is found, and behind whole
 * records they are no torn end: what comes next goes over them. */
static void test_zeros_behind(void **state)
{
        (void)state;
        struct buffer journal, padded;
        size_t ends[5];
        buffer_init(&journal, &heap);
        buffer_init(&padded, &heap);
        make_journal(&consensus_core, &journal, 5, ends);
        for (size_t len = 0; len <= journal.len; len++) {
                struct consensus_recovery recovery;
                struct consensus *consensus = NULL;
                enum err err;
                size_t whole = 0;
                while (whole < COUNT_OF(ends) && ends[whole] <= len)
                        whole++;
                buffer_reset(&padded);
                buffer_bytes(&padded, bytes_of(journal.ptr, len));
                for (size_t i = 0; i < 5000; i++)
                        buffer_u8(&padded, 0);
                assert_int_equal(replayed(buffer_view(&padded), &recovery, &err), whole);
                assert_int_equal(err, ERR_NONE);
                if (whole == 0 || ends[whole - 1] != len)
                        continue;
                assert_int_equal(recovery.dropped_bytes, 0);
                assert_int_equal(recover(config_of(alone, 1), buffer_view(&padded), 0, &recovery,
                                         &consensus),
                                 ERR_NONE);
                (void)carry_out(consensus, &padded);
                assert_int_equal(consensus_submit(consensus, 1001, BYTES("more")), ERR_NONE);
                (void)sync_all(consensus, &padded);
                assert_true(padded.len > len && padded.len < len + 200);
                consensus_free(consensus);
                assert_int_equal(replayed(buffer_view(&padded), &recovery, &err), whole + 1);
        }
        buffer_fini(&journal);
        buffer_fini(&padded);
}

/* Damage before the end is refused; at the very end it is a torn write. */
static void test_flipped(void **state)
{
        (void)state;
        struct buffer journal;
        size_t ends[4];
        buffer_init(&journal, &heap);
        make_journal(&consensus_core, &journal, 4, ends);
        for (size_t bit = 0; bit < journal.len * 8; bit++) {
                struct consensus_recovery recovery;
                enum err err;
                journal.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                size_t commands = replayed(buffer_view(&journal), &recovery, &err);
                if (bit / 8 < ends[2]) {
                        assert_int_equal(err, ERR_CORRUPT);
                        assert_true(recovery.corrupt_at <= bit / 8);
                } else {
                        assert_int_equal(err, ERR_NONE);
                        assert_int_equal(commands, 3);
                }
                journal.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_fini(&journal);
}

/* Random bytes, with and without a good header, never come to a start or a stop. */
static void test_random_journals(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 5, 0);
        struct buffer journal;
        buffer_init(&journal, &heap);
        for (int i = 0; i < 3000; i++) {
                struct consensus_recovery recovery;
                enum err err;
                buffer_reset(&journal);
                if (i % 2 == 0)
                        journal_write_header(&journal, &(struct journal_identity){.version = 2,
                                                                                  .cluster = 42,
                                                                                  .group = 1,
                                                                                  .node = 7});
                size_t len = (size_t)rng_below(&rng, 400);
                for (size_t k = 0; k < len; k++)
                        buffer_u8(&journal, (uint8_t)rng_next(&rng));
                assert_int_equal(replayed(buffer_view(&journal), &recovery, &err), 0);
        }
        buffer_fini(&journal);
}

/* What the library's core has written goes on with this one, with a snapshot and without. */
static void test_taken_over(void **state)
{
        (void)state;
        for (int snapshot = 0; snapshot < 2; snapshot++) {
                struct buffer journal;
                struct consensus *consensus = NULL;
                struct consensus_recovery recovery;
                buffer_init(&journal, &heap);
                make_journal(&consensus_library, &journal, 6, NULL);
                struct consensus_config config = config_of(alone, 1);
                if (snapshot == 1) {
                        config.engine = &consensus_library;
                        assert_int_equal(
                                recover(config, buffer_view(&journal), 0, &recovery, &consensus),
                                ERR_NONE);
                        (void)sync_all(consensus, &journal);
                        assert_int_equal(consensus_snapshot(consensus, BYTES("state")), ERR_NONE);
                        (void)sync_all(consensus, &journal);
                        consensus_free(consensus);
                }
                config.engine = &consensus_core;
                assert_int_equal(recover(config, buffer_view(&journal), 0, &recovery, &consensus),
                                 ERR_NONE);
                assert_int_equal(recovery.last_index, 7);
                struct consensus_output output;
                consensus_take(consensus, &output);
                assert_int_equal(output.write_count, 1);
                assert_int_equal(output.writes[0].kind, CONSENSUS_REPLACE);
                assert_int_equal(output.writes[0].data.ptr[8], 2);
                assert_int_equal(output.restore, snapshot);
                if (snapshot == 1)
                        assert_true(bytes_equal(output.restore_state, BYTES("state")));
                buffer_reset(&journal);
                buffer_bytes(&journal, output.writes[0].data);
                size_t commands = output.command_count + sync_all(consensus, &journal);
                assert_int_equal(commands, snapshot == 1 ? 0 : 6);
                assert_int_equal(consensus_submit(consensus, 1001, BYTES("more")), ERR_NONE);
                assert_int_equal(sync_all(consensus, &journal), 1);
                consensus_free(consensus);
                enum err err;
                assert_int_equal(replayed(buffer_view(&journal), &recovery, &err),
                                 snapshot == 1 ? 1 : 7);
                /* There is no way back: said, not guessed. */
                config.engine = &consensus_library;
                assert_int_equal(recover(config, buffer_view(&journal), 0, &recovery, &consensus),
                                 ERR_VERSION);
                consensus_free(consensus);
                buffer_fini(&journal);
        }
}

static struct message example(enum message_type type, struct bytes members)
{
        struct message message = {.type = type,
                                  .group = 1,
                                  .cluster = 42,
                                  .from = 8,
                                  .to = 7,
                                  .term = 300,
                                  .round = {.number = 5, .sent_ms = 77}};
        if (type == MESSAGE_APPEND) {
                message.append.previous_index = 1;
                message.append.previous_term = 1;
                message.append.commit_index = 2;
                message.append.count = 3;
        } else if (type == MESSAGE_APPEND_RESULT) {
                message.append_result.rejected = true;
                message.append_result.index = 1000;
                message.append_result.hint_index = 9;
                message.append_result.hint_term = 3;
                message.append_result.life = 12345678901;
        } else if (type == MESSAGE_VOTE) {
                message.vote.last_index = 5;
                message.vote.last_term = 300;
                message.vote.pre_vote = true;
        } else if (type == MESSAGE_VOTE_RESULT) {
                message.vote_result.granted = true;
                message.vote_result.asked_term = 301;
        } else if (type == MESSAGE_CHUNK) {
                message.chunk.index = 500;
                message.chunk.term = 299;
                message.chunk.members_index = 1;
                message.chunk.members = members;
                message.chunk.size = 100;
                message.chunk.offset = 10;
                message.chunk.data = BYTES("a part of the state");
        } else if (type == MESSAGE_CHUNK_RESULT) {
                message.chunk_result.index = 500;
                message.chunk_result.term = 299;
                message.chunk_result.offset = 29;
        } else {
                message.timeout_now.last_index = 5;
                message.timeout_now.last_term = 300;
        }
        return message;
}

static void members_open(struct buffer *members)
{
        struct members list = {0};
        for (uint32_t node = 7; node <= 9; node++)
                assert_true(members_put(
                        &list,
                        &(struct member){.node = node, .role = CONSENSUS_VOTER, .life = node}));
        buffer_init(members, &heap);
        members_encode(&list, members);
}

static void log_open(struct entries *entries, struct bytes members)
{
        entries_init(entries, &heap, 2);
        assert_true(entries_append(entries, 1, ENTRY_COMMAND, BYTES("\x03one")));
        assert_true(entries_append(entries, 1, ENTRY_BARRIER, BYTES("")));
        assert_true(entries_append(entries, 4, ENTRY_CHANGE, members));
}

/* Round trips; cut anywhere it is refused; flipped, it is refused or safe to walk. */
static void test_messages(void **state)
{
        (void)state;
        struct buffer members;
        struct entries entries;
        members_open(&members);
        log_open(&entries, buffer_view(&members));
        for (int type = MESSAGE_APPEND; type <= MESSAGE_TIMEOUT_NOW; type++) {
                struct message message = example((enum message_type)type, buffer_view(&members));
                struct message back;
                struct buffer one;
                struct buffer two;
                buffer_init(&one, &heap);
                buffer_init(&two, &heap);
                message_encode(&message, &entries, &one);
                assert_int_equal(message_decode(buffer_view(&one), &back), ERR_NONE);
                message_encode(&back, &entries, &two);
                assert_true(bytes_equal(buffer_view(&one), buffer_view(&two)));
                for (size_t len = 0; len < one.len; len++)
                        assert_int_not_equal(message_decode(bytes_of(one.ptr, len), &back),
                                             ERR_NONE);
                for (size_t bit = 0; bit < one.len * 8; bit++) {
                        one.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        if (message_decode(buffer_view(&one), &back) == ERR_NONE &&
                            back.type == MESSAGE_APPEND) {
                                struct bytes items = back.append.items;
                                for (size_t i = 0; i < back.append.count; i++)
                                        (void)message_entry(&items);
                        }
                        one.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
                one.ptr[0] = 3;
                assert_int_equal(message_decode(buffer_view(&one), &back), ERR_VERSION);
                one.ptr[0] = 2;
                buffer_u8(&one, 0);
                assert_int_equal(message_decode(buffer_view(&one), &back), ERR_MALFORMED);
                buffer_fini(&one);
                buffer_fini(&two);
        }
        entries_fini(&entries);
        buffer_fini(&members);
}

static uint64_t near(struct rng *rng, uint64_t last)
{
        if (rng_chance(rng, 100))
                return rng_next(rng) >> 3;
        return last + 2 - rng_below(rng, last < 5 ? 2 : 6);
}

static void mad_entries(struct rng *rng, struct message *m, struct entries *entries, uint64_t last,
                        struct bytes members)
{
        uint64_t previous = near(rng, last) & 0xffffff;
        uint64_t term = previous == 0 ? 1 : 1 + rng_below(rng, m->term);
        entries_clear(entries, previous + 1);
        m->append.previous_index = previous;
        m->append.previous_term = previous == 0 ? 0 : term;
        m->append.commit_index = near(rng, last);
        m->append.everywhere_index = near(rng, last);
        m->append.count = (size_t)rng_below(rng, 5);
        for (size_t i = 0; i < m->append.count; i++) {
                bool change = rng_chance(rng, 50);
                if (rng_chance(rng, 200))
                        term = rng_between(rng, term, m->term);
                assert_true(entries_append(entries, term, change ? ENTRY_CHANGE : ENTRY_COMMAND,
                                           change ? members : BYTES("\x01x")));
        }
}

static struct message mad(struct rng *rng, struct entries *entries,
                          const struct consensus_status *status, struct bytes members)
{
        struct message m = example(
                (enum message_type)rng_between(rng, MESSAGE_APPEND, MESSAGE_TIMEOUT_NOW), members);
        m.from = (uint32_t)rng_between(rng, 8, 10);
        m.term = rng_chance(rng, 900) ? status->term + rng_chance(rng, 50)
                                      : 1 + rng_below(rng, 1000);
        m.round.number = rng_below(rng, 30);
        m.round.sent_ms = rng_below(rng, 2000);
        if (m.type == MESSAGE_APPEND) {
                mad_entries(rng, &m, entries, status->last_index, members);
        } else if (m.type == MESSAGE_APPEND_RESULT) {
                m.append_result.rejected = rng_chance(rng, 300);
                m.append_result.amnesiac = rng_chance(rng, 100);
                m.append_result.index = near(rng, status->last_index);
                m.append_result.hint_index = near(rng, status->last_index);
                m.append_result.hint_term = rng_below(rng, m.term + 1);
                m.append_result.life = rng_chance(rng, 900) ? 0 : rng_below(rng, 3);
        } else if (m.type == MESSAGE_VOTE) {
                m.vote.last_index = near(rng, status->last_index) + 1;
                m.vote.last_term = 1 + rng_below(rng, m.term);
                m.vote.transfer = rng_chance(rng, 300);
                m.vote.pre_vote = rng_chance(rng, 500);
        } else if (m.type == MESSAGE_VOTE_RESULT) {
                m.vote_result.granted = rng_chance(rng, 800);
                m.vote_result.pre_vote = rng_chance(rng, 500);
                m.vote_result.asked_term = m.term + m.vote_result.pre_vote;
        } else if (m.type == MESSAGE_CHUNK) {
                m.chunk.index = 1 + (near(rng, status->last_index) & 0xffffff);
                m.chunk.term = 1 + rng_below(rng, m.term);
                m.chunk.members_index = rng_below(rng, m.chunk.index + 1);
                m.chunk.size = rng_chance(rng, 500) ? 19 : 38;
                m.chunk.offset = m.chunk.size == 38 && rng_chance(rng, 500) ? 19 : 0;
                static const uint8_t zeros[38];
                m.chunk.crc =
                        rng_chance(rng, 100) ? 1 : hash_crc32c(0, bytes_of(zeros, m.chunk.size));
                if (m.chunk.size == 19 || rng_chance(rng, 800))
                        m.chunk.data = bytes_of(zeros, 19);
                if (rng_chance(rng, 300)) {
                        m.chunk.size = m.chunk.offset = 0;
                        m.chunk.crc = 0;
                        m.chunk.data = (struct bytes){0};
                }
        } else if (m.type == MESSAGE_CHUNK_RESULT) {
                m.chunk_result.index = near(rng, status->last_index);
                m.chunk_result.term = rng_below(rng, m.term + 1);
                m.chunk_result.offset = rng_below(rng, 50);
        } else {
                m.timeout_now.last_index = near(rng, status->last_index) + 1;
                m.timeout_now.last_term = 1 + rng_below(rng, m.term);
        }
        return m;
}

static void mad_history(struct rng *rng, struct bytes members, uint64_t *led, uint64_t *arrived)
{
        struct consensus_config config = config_of(three, 3);
        struct consensus *consensus = NULL;
        struct consensus_recovery recovery;
        struct entries entries;
        uint64_t now = 1000;
        struct consensus_write aside = {0};
        config.seed = rng_next(rng);
        config.pre_vote = rng_chance(rng, 500);
        config.trailing_entries = 2;
        entries_init(&entries, &heap, 1);
        assert_int_equal(recover(config, (struct bytes){0}, 0, &recovery, &consensus), ERR_NONE);
        for (int i = 0; i < 300; i++) {
                struct consensus_status before = consensus_status(consensus);
                struct message message = mad(rng, &entries, &before, members);
                struct consensus_output output;
                struct buffer out;
                now += rng_below(rng, 40);
                buffer_init(&out, &heap);
                message_encode(&message, &entries, &out);
                (void)!consensus_receive(consensus, now, message.from, buffer_view(&out));
                buffer_fini(&out);
                if (rng_chance(rng, 300))
                        consensus_tick(consensus, now);
                if (rng_chance(rng, 300))
                        (void)!consensus_submit(consensus, now, BYTES("y"));
                if (rng_chance(rng, 100))
                        (void)!consensus_read(consensus, now, (uint64_t)i, rng_chance(rng, 500));
                consensus_take(consensus, &output);
                struct consensus_status status = consensus_status(consensus);
                assert_false(status.failed);
                for (size_t j = 0; j < output.write_count; j++)
                        if (output.writes[j].kind == CONSENSUS_ASIDE)
                                aside = output.writes[j];
                *led += status.role == CONSENSUS_LEADER;
                *arrived += status.snapshot_index > before.snapshot_index;
                if (rng_chance(rng, 500))
                        consensus_synced(consensus, now, status.generation, status.journal_bytes);
                if (rng_chance(rng, 500))
                        consensus_synced(consensus, now, aside.generation,
                                         aside.offset + aside.data.len);
                if (rng_chance(rng, 100))
                        (void)!consensus_snapshot(consensus, BYTES("state"));
        }
        consensus_free(consensus);
        entries_fini(&entries);
}

/* Well formed, and mad: whatever peers say, this replica neither stops nor fails. */
static void test_mad_peers(void **state)
{
        (void)state;
        struct buffer members;
        uint64_t led = 0;
        uint64_t arrived = 0;
        members_open(&members);
        for (uint64_t seed = 1; seed <= 1500; seed++) {
                struct rng rng;
                rng_init(&rng, seed, 0);
                mad_history(&rng, buffer_view(&members), &led, &arrived);
        }
        buffer_fini(&members);
        assert_true(led > 100);
        assert_true(arrived > 100);
}

/* Every allocation fails once: an error or a failed replica, never a crash or a leak. */
static void test_memory(void **state)
{
        (void)state;
        struct buffer journal;
        struct heap other;
        heap_init(&other, 0);
        buffer_init(&journal, &other);
        make_journal(&consensus_core, &journal, 3, NULL);
        uint64_t calls = 0;
        for (uint64_t fail = 0; fail == 0 || fail <= calls; fail++) {
                struct consensus_config config = config_of(alone, 1);
                struct consensus_recovery recovery;
                struct consensus *consensus = NULL;
                heap_init(&heap, 0);
                heap.fail_at = fail;
                if (consensus_new(&heap, &config, &consensus) == ERR_NONE) {
                        struct consensus_output output;
                        enum err err =
                                consensus_start(consensus, 0, buffer_view(&journal), 0, &recovery);
                        assert_true(err == ERR_NONE || err == ERR_NOMEM);
                        consensus_take(consensus, &output);
                        struct consensus_status status = consensus_status(consensus);
                        consensus_synced(consensus, 1, status.generation, status.journal_bytes);
                        (void)!consensus_submit(consensus, 1, BYTES("more"));
                        (void)!consensus_read(consensus, 1, 1, false);
                        (void)!consensus_member_set(
                                consensus, 1,
                                &(struct consensus_member){.node = 9, .role = CONSENSUS_LEARNER});
                        consensus_take(consensus, &output);
                        (void)!consensus_snapshot(consensus, BYTES("state"));
                        consensus_take(consensus, &output);
                        consensus_free(consensus);
                }
                if (fail == 0)
                        calls = heap.calls;
                assert_int_equal(heap.used_bytes, 0);
        }
        assert_true(calls > 20);
        heap_init(&heap, 0);
        buffer_fini(&journal);
}

static void test_reads_and_members(void **state)
{
        (void)state;
        struct consensus_recovery recovery;
        struct consensus *consensus = NULL;
        struct buffer journal;
        buffer_init(&journal, &heap);
        assert_int_equal(recover(config_of(alone, 1), (struct bytes){0}, 0, &recovery, &consensus),
                         ERR_NONE);
        /* Asked before anything of this term is durable: answered after. */
        assert_int_equal(consensus_read(consensus, 1000, 11, false), ERR_NONE);
        struct consensus_output output;
        consensus_take(consensus, &output);
        assert_int_equal(output.read_count, 0);
        buffer_bytes(&journal, output.writes[0].data);
        consensus_synced(consensus, 1000, 0, journal.len);
        consensus_take(consensus, &output);
        assert_int_equal(output.read_count, 1);
        assert_int_equal(output.reads[0].id, 11);
        assert_int_equal(output.reads[0].index, 2);
        assert_true(consensus_lease_held(consensus, 1000));

        static const struct {
                const char *why;
                struct consensus_member member;
                enum err err;
        } cases[] = {
                {"nobody", {.node = 0, .role = CONSENSUS_VOTER}, ERR_INVALID},
                {"no role", {.node = 8}, ERR_INVALID},
                {"is one", {.node = 7, .role = CONSENSUS_VOTER}, ERR_EXISTS},
                {"state lost", {.node = 7, .role = CONSENSUS_WITNESS}, ERR_INVALID},
                {"the last one", {.node = 7, .role = CONSENSUS_LEARNER}, ERR_INVALID},
                {"a learner", {.node = 8, .role = CONSENSUS_VOTER}, ERR_NONE},
                {"one at a time", {.node = 9, .role = CONSENSUS_LEARNER}, ERR_BUSY},
        };
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
                enum err err = consensus_member_set(consensus, 1000, &cases[i].member);
                if (err != cases[i].err)
                        fail_msg("%s: %s", cases[i].why, err_name(err));
        }
        struct consensus_member members[4];
        assert_int_equal(consensus_members(consensus, members, 4), 2);
        assert_int_equal(members[1].role, CONSENSUS_LEARNER);
        assert_int_equal(members[1].wanted, CONSENSUS_VOTER);
        (void)sync_all(consensus, &journal);
        assert_int_equal(consensus_member_remove(consensus, 1000, 5), ERR_NOT_FOUND);
        assert_int_equal(consensus_member_remove(consensus, 1000, 7), ERR_INVALID);
        assert_int_equal(consensus_member_remove(consensus, 1000, 8), ERR_NONE);
        assert_int_equal(consensus_members(consensus, members, 4), 1);
        consensus_free(consensus);
        buffer_fini(&journal);
}

/* One of three that lost its journal starts empty, asks for no vote and gives none. */
static void test_amnesiac(void **state)
{
        (void)state;
        struct consensus_config config = config_of(three, 3);
        struct consensus_recovery recovery;
        struct consensus *consensus = NULL;
        struct consensus_output output;
        config.amnesiac = true;
        assert_int_equal(recover(config, BYTES("what is left"), 0, &recovery, &consensus),
                         ERR_NONE);
        assert_true(consensus_status(consensus).amnesiac);
        for (uint64_t now = 1000; now < 3000; now += 50) {
                consensus_tick(consensus, now);
                struct message ask = {.type = MESSAGE_VOTE,
                                      .group = 1,
                                      .cluster = 42,
                                      .from = 8,
                                      .to = 7,
                                      .term = now};
                struct entries none;
                struct buffer out;
                entries_init(&none, &heap, 1);
                buffer_init(&out, &heap);
                ask.vote.last_index = 900;
                ask.vote.last_term = 1;
                ask.vote.pre_vote = now % 100 == 0;
                message_encode(&ask, &none, &out);
                assert_int_equal(consensus_receive(consensus, now, 8, buffer_view(&out)), ERR_NONE);
                consensus_take(consensus, &output);
                struct consensus_status status = consensus_status(consensus);
                assert_int_equal(status.role, CONSENSUS_FOLLOWER);
                assert_int_equal(status.vote, 0);
                for (size_t i = 0; i < output.message_count; i++) {
                        struct message answer;
                        assert_int_equal(message_decode(output.messages[i].data, &answer),
                                         ERR_NONE);
                        assert_int_equal(answer.type, MESSAGE_VOTE_RESULT);
                        assert_false(answer.vote_result.granted);
                }
                consensus_synced(consensus, now, status.generation, status.journal_bytes);
                buffer_fini(&out);
                entries_fini(&none);
        }
        consensus_free(consensus);
}

/* A witness that hears its leader no more knows that as soon as any other, and stands later. */
static void test_witness_without_leader(void **state)
{
        (void)state;
        static const struct consensus_member members[] = {{.node = 7, .role = CONSENSUS_WITNESS},
                                                          {.node = 8, .role = CONSENSUS_VOTER},
                                                          {.node = 9, .role = CONSENSUS_VOTER}};
        struct consensus_config config = config_of(three, 3);
        struct consensus_recovery recovery;
        struct consensus *consensus = NULL;
        struct consensus_output output;
        struct message word = {
                .type = MESSAGE_APPEND, .group = 1, .cluster = 42, .from = 8, .to = 7, .term = 5};
        struct entries none;
        struct buffer out;
        config.members = members;
        assert_int_equal(recover(config, (struct bytes){0}, 0, &recovery, &consensus), ERR_NONE);
        entries_init(&none, &heap, 1);
        buffer_init(&out, &heap);
        word.append.previous_index = 1;
        word.append.previous_term = 1;
        message_encode(&word, &none, &out);
        assert_int_equal(consensus_receive(consensus, 1000, 8, buffer_view(&out)), ERR_NONE);
        uint64_t alone_ms = 0;
        uint64_t stands_ms = 0;
        for (uint64_t now = 1000; now < 2000; now += 5) {
                consensus_tick(consensus, now);
                consensus_take(consensus, &output);
                struct consensus_status status = consensus_status(consensus);
                consensus_synced(consensus, now, status.generation, status.journal_bytes);
                if (alone_ms == 0 && status.leader == 0)
                        alone_ms = now;
                if (stands_ms == 0 && status.role == CONSENSUS_CANDIDATE)
                        stands_ms = now;
        }
        assert_in_range(alone_ms, 1100, 1205);
        assert_in_range(stands_ms, 1300, 1410);
        buffer_fini(&out);
        entries_fini(&none);
        consensus_free(consensus);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_truncated),
                cmocka_unit_test(test_flipped),
                cmocka_unit_test(test_zeros_behind),
                cmocka_unit_test(test_random_journals),
                cmocka_unit_test(test_taken_over),
                cmocka_unit_test(test_messages),
                cmocka_unit_test(test_mad_peers),
                cmocka_unit_test(test_memory),
                cmocka_unit_test(test_reads_and_members),
                cmocka_unit_test(test_amnesiac),
                cmocka_unit_test(test_witness_without_leader),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
